//! How coherent trajectories are, for many of them at once. JS function `coherenceMetrics`; `CoherenceEngine` ranks by it.
//!
//! A trajectory is a matrix of scores from 0 to 1: a row for each step of an answer, a column for each thing that is scored.
//! With `S` the sample covariance of its columns (divisor `H`, the number of steps behind the first row) and `m` columns:
//!
//! | | |
//! |---|---|
//! | EVB, evaluative variance bound | `min(1, tr((1 − λ) S + λ T) / m)`, `T` the identity or `(tr S / m) I` |
//! | CR, contradiction rate | share of the steps at which the stable ascending order of the columns changed |
//! | TS, trajectory smoothness | `1 −` mean of `min(1, ‖Δ‖₂ / √m)` |
//! | ES, expectation stability | `1 − min(1, Var(first column) / 0.25)`, population variance |
//! | PD, policy divergence | `min(1, mean |KL(before ‖ after)| / 2)` on rows that are normalised to sum 1 |
//! | CCI, composite coherence index | `w · (1 − EVB, 1 − CR, TS, ES, 1 − PD)` |

mod block;
mod logarithm;

use self::block::Block;
use crate::error::{Error, Result};

/// Trajectories of a shape that are computed side by side, one in each lane of the arithmetic.
const LANES: usize = 8;

/// Numbers of a [`Metrics`], in the order of its fields.
pub const NUMBERS: usize = 6;

/// What the covariance is drawn to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShrinkageTarget {
    /// The identity: even a trajectory that never changes has an EVB of λ.
    Identity,
    /// The identity times the mean variance: a trajectory that never changes has an EVB of 0.
    Scaled,
}

/// How trajectories are measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CoherenceOptions {
    /// λ, 0–1.
    pub shrinkage: f64,
    /// What the covariance is drawn to.
    pub target: ShrinkageTarget,
    /// What EVB, CR, TS, ES and PD weigh in CCI, each from 0.
    pub weights: [f64; 5],
}

impl Default for CoherenceOptions {
    fn default() -> Self {
        Self { shrinkage: 0.4, target: ShrinkageTarget::Identity, weights: [0.2; 5] }
    }
}

/// Rows and columns of a trajectory, each from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Steps, the first row included.
    pub rows: usize,
    /// Things that are scored.
    pub columns: usize,
}

impl Shape {
    fn values(self) -> usize {
        self.rows.saturating_mul(self.columns)
    }
}

/// What is known of a trajectory. All from 0 to 1, CCI to the sum of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[allow(missing_docs)]
pub struct Metrics {
    pub evb: f64,
    pub cr: f64,
    pub ts: f64,
    pub es: f64,
    pub pd: f64,
    pub cci: f64,
}

impl Metrics {
    /// Its numbers, in the order of the fields.
    pub fn numbers(&self) -> [f64; NUMBERS] {
        [self.evb, self.cr, self.ts, self.es, self.pd, self.cci]
    }
}

/// The metrics of trajectories, which lie in `values` one after the other, row by row; `shapes` says how large each is.
///
/// # Errors
/// [`Error::InvalidArgument`] for a shape without values, for a value that is not from 0 to 1, by its place, and where `values` has not as many as the
/// shapes say.
pub fn metrics(values: &[f64], shapes: &[Shape], options: &CoherenceOptions) -> Result<Vec<Metrics>> {
    if let Some(at) = shapes.iter().position(|shape| shape.rows == 0 || shape.columns == 0) {
        let Shape { rows, columns } = shapes[at];
        return Err(Error::InvalidArgument(format!(
            "Trajectory {at} has {rows} rows and {columns} columns, and there must be one of each at least"
        )));
    }
    let expected = shapes.iter().fold(0usize, |sum, shape| sum.saturating_add(shape.values()));
    if values.len() != expected {
        return Err(Error::InvalidArgument(format!(
            "There are {} values, but {} trajectories of these shapes have {expected}",
            values.len(),
            shapes.len()
        )));
    }
    let mut all = Vec::with_capacity(shapes.len());
    let mut rest = values;
    let mut block = Block::default();
    // Neighbours of one shape go side by side.
    for same in shapes.chunk_by(|a, b| a == b) {
        let shape = same[0];
        for lanes in same.chunks(LANES) {
            let (own, following) = rest.split_at(lanes.len() * shape.values());
            rest = following;
            if !block.fill(own, shape) {
                return Err(outside(own, shape, all.len()));
            }
            all.extend(block.metrics(options).into_iter().take(lanes.len()));
        }
    }
    Ok(all)
}

/// Names the value of these trajectories that is none. `first`: the number of the first of them.
fn outside(values: &[f64], shape: Shape, first: usize) -> Error {
    let at = values.iter().position(|value| !(0.0..=1.0).contains(value)).unwrap_or_default();
    let (trajectory, inside) = (first + at / shape.values(), at % shape.values());
    let (row, column) = (inside / shape.columns, inside % shape.columns);
    // As JavaScript writes it.
    let shown = match values[at] {
        value if value == f64::INFINITY => "Infinity".to_owned(),
        value if value == f64::NEG_INFINITY => "-Infinity".to_owned(),
        value => value.to_string(),
    };
    Error::InvalidArgument(format!(
        "Trajectory {trajectory}, row {row}, column {column} is {shown}, not a number from 0 to 1"
    ))
}

#[cfg(test)]
mod tests;
