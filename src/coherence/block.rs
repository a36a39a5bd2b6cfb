//! Trajectories of one shape, side by side: lane `l` of every number belongs to the `l`th of them.

use std::array;
use std::cmp::Ordering;

use super::logarithm::ln;
use super::{CoherenceOptions, LANES, Metrics, Shape, ShrinkageTarget};

/// Keeps sums and logarithms away from 0.
const TINY: f64 = 1e-10;

/// The largest variance that values from 0 to 1 have.
const MOST_VARIANCE: f64 = 0.25;

/// A divergence that counts as complete.
const MOST_DIVERGENCE: f64 = 2.0;

type Lanes = [f64; LANES];

const ZERO: Lanes = [0.0; LANES];

/// At most [`LANES`] trajectories, and room for what is computed from them.
pub(super) struct Block {
    shape: Shape,
    /// By row and column.
    values: Vec<Lanes>,
    /// Of the row before: its shares, and the logarithms of these.
    shares: Vec<(Lanes, Lanes)>,
    order: Vec<usize>,
}

impl Default for Block {
    fn default() -> Self {
        Self { shape: Shape { rows: 0, columns: 0 }, values: Vec::new(), shares: Vec::new(), order: Vec::new() }
    }
}

impl Block {
    /// Takes the trajectories that lie in `values` one after the other; the lanes that are left are 0. Whether all of their
    /// values are from 0 to 1.
    pub(super) fn fill(&mut self, values: &[f64], shape: Shape) -> bool {
        self.shape = shape;
        self.values.clear();
        self.values.resize(shape.values(), ZERO);
        let mut fine = true;
        for (lane, trajectory) in values.chunks_exact(shape.values()).enumerate() {
            for (into, &value) in self.values.iter_mut().zip(trajectory) {
                fine &= (0.0..=1.0).contains(&value);
                into[lane] = value;
            }
        }
        fine
    }

    pub(super) fn metrics(&mut self, options: &CoherenceOptions) -> [Metrics; LANES] {
        let columns = self.shape.columns as f64;
        let lambda = options.shrinkage;
        let deviations = self.deviations();
        let (distance, divergence) = self.changes();
        let steps = (self.shape.rows - 1) as f64;
        let mean = |sum: f64| if steps > 0.0 { sum / steps } else { 0.0 };
        let mut reordered = [0.0; LANES];
        for (lane, share) in reordered.iter_mut().enumerate() {
            *share = mean(self.reorderings(lane) as f64);
        }
        array::from_fn(|lane| {
            let trace = mean(deviations.all[lane]);
            let variance = trace / columns;
            let evb = match options.target {
                ShrinkageTarget::Identity => (1.0 - lambda) * variance + lambda,
                ShrinkageTarget::Scaled => variance,
            };
            let evb = evb.min(1.0);
            let cr = reordered[lane];
            let ts = 1.0 - mean(distance[lane]);
            let es = 1.0 - (deviations.first[lane] / self.shape.rows as f64 / MOST_VARIANCE).min(1.0);
            let pd = (mean(divergence[lane]) / MOST_DIVERGENCE).min(1.0);
            let parts = [1.0 - evb, 1.0 - cr, ts, es, 1.0 - pd];
            let cci = options.weights.iter().zip(parts).map(|(weight, part)| weight * part).sum();
            Metrics { evb, cr, ts, es, pd, cci }
        })
    }

    fn row(&self, row: usize) -> &[Lanes] {
        &self.values[row * self.shape.columns..][..self.shape.columns]
    }

    /// Squared deviations from the mean of each column, summed.
    fn deviations(&self) -> Deviations {
        let mut sums = Deviations { all: ZERO, first: ZERO };
        for column in 0..self.shape.columns {
            let of_column = || self.values[column..].iter().step_by(self.shape.columns);
            // From its first value, so that what does not change deviates by exactly nothing.
            let origin = &self.values[column];
            let mut mean = ZERO;
            for value in of_column() {
                for lane in 0..LANES {
                    mean[lane] += value[lane] - origin[lane];
                }
            }
            mean = mean.map(|sum| sum / self.shape.rows as f64);
            let mut sum = ZERO;
            for value in of_column() {
                for lane in 0..LANES {
                    let deviation = value[lane] - origin[lane] - mean[lane];
                    sum[lane] += deviation * deviation;
                }
            }
            add(&mut sums.all, &sum);
            if column == 0 {
                sums.first = sum;
            }
        }
        sums
    }

    /// Sums over the steps: how far each goes (0–1), and how much its distribution diverges from the one before.
    fn changes(&mut self) -> (Lanes, Lanes) {
        let (mut distances, mut divergences) = (ZERO, ZERO);
        let width = (self.shape.columns as f64).sqrt();
        let mut before = std::mem::take(&mut self.shares);
        before.clear();
        for row in 0..self.shape.rows {
            let values = self.row(row);
            let mut sum = [TINY; LANES];
            for value in values {
                add(&mut sum, value);
            }
            let mut divergence = ZERO;
            for (column, value) in values.iter().enumerate() {
                let mut share = ZERO;
                for lane in 0..LANES {
                    share[lane] = value[lane] / sum[lane];
                }
                let logarithm = ln(share.map(|share| share + TINY));
                if row == 0 {
                    before.push((share, logarithm));
                    continue;
                }
                let (last, last_logarithm) = std::mem::replace(&mut before[column], (share, logarithm));
                for lane in 0..LANES {
                    divergence[lane] += last[lane] * (last_logarithm[lane] - logarithm[lane]);
                }
            }
            if row == 0 {
                continue;
            }
            let mut squares = ZERO;
            for (value, last) in values.iter().zip(self.row(row - 1)) {
                for lane in 0..LANES {
                    let step = value[lane] - last[lane];
                    squares[lane] += step * step;
                }
            }
            for lane in 0..LANES {
                distances[lane] += (squares[lane].sqrt() / width).min(1.0);
                divergences[lane] += divergence[lane].abs();
            }
        }
        self.shares = before;
        (distances, divergences)
    }

    /// How many steps of a trajectory change the order of its columns, by value and, of equal ones, by place.
    fn reorderings(&mut self, lane: usize) -> usize {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(0..self.shape.columns);
        let mut changes = 0;
        for row in 0..self.shape.rows {
            let values = self.row(row);
            let by_value = |a: &usize, b: &usize| {
                let (one, other) = (values[*a][lane], values[*b][lane]);
                one.partial_cmp(&other).unwrap_or(Ordering::Equal).then(a.cmp(b))
            };
            // Mostly it is as it was, and nothing is sorted.
            if !order.is_sorted_by(|a, b| by_value(a, b) == Ordering::Less) {
                order.sort_unstable_by(by_value);
                changes += usize::from(row > 0);
            }
        }
        self.order = order;
        changes
    }
}

/// Sums of squared deviations: over all columns, and of the first one.
struct Deviations {
    all: Lanes,
    first: Lanes,
}

fn add(sum: &mut Lanes, values: &Lanes) {
    for lane in 0..LANES {
        sum[lane] += values[lane];
    }
}
