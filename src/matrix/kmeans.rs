//! k-means: the centres of Arthur and Vassilvitskii's k-means++ (2007), then Lloyd's steps.

use rayon::prelude::*;

use super::Matrix;
use super::nearest::{TILE, tiles};
use super::rows::Rows;
use crate::cancel::Cancel;
use crate::error::Result;

/// How centres are looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KMeansOptions {
    /// Where chance begins.
    pub seed: u64,
    /// Most steps.
    pub max_iterations: usize,
}

impl Default for KMeansOptions {
    fn default() -> Self {
        Self { seed: 0, max_iterations: 300 }
    }
}

/// What k-means has found.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// The cluster of each row.
    pub labels: Vec<u32>,
    /// The mean of the rows of each cluster, one after the other.
    pub centroids: Vec<f32>,
    /// The sum of the squared distances of all rows to the centroids of their clusters.
    pub inertia: f64,
    /// How many steps were made.
    pub iterations: usize,
}

/// Groups rows around `k` centres, 1 to as many as there are rows. The same for the same seed, whatever the machine.
pub fn k_means(matrix: &Matrix, k: usize, options: KMeansOptions, cancel: &Cancel) -> Result<Clusters> {
    // Squares of large values are no values: a power of two changes no digit.
    let largest = matrix.data.par_iter().map(|value| value.abs()).reduce(|| 0.0, f32::max);
    let exponent = if largest > 0.0 { f64::from(largest).log2().ceil() as i32 } else { 0 };
    let points = Points::new(Rows::of(matrix, cancel, |_| 2f64.powi(-exponent))?);
    let seeds = seeds(&points, k, options.seed, cancel)?;
    let mut centres: Vec<f32> = seeds.into_iter().flat_map(|at| points.row(at)).collect();
    let mut labels = Vec::new();
    let mut iterations = 0;
    let distances = loop {
        let (assigned, distances) = points.assign(&Points::new(Rows::packed(&centres, k)), cancel)?;
        let settled = assigned == labels || iterations >= options.max_iterations;
        labels = assigned;
        if settled {
            break distances;
        }
        iterations += 1;
        points.centre(&labels, &distances, &mut centres, cancel)?;
    };
    let unscale = 2f64.powi(exponent);
    let width = centres.len() / k.max(1);
    let values = centres.chunks_exact(width.max(1)).flat_map(|centre| &centre[..matrix.dimensions]);
    Ok(Clusters {
        labels,
        centroids: values.map(|value| (f64::from(*value) * unscale) as f32).collect(),
        inertia: distances.iter().map(|distance| f64::from(*distance)).sum::<f64>() * unscale * unscale,
        iterations,
    })
}

/// Rows, and the product of each with itself.
struct Points {
    rows: Rows,
    squares: Vec<f32>,
}

impl Points {
    fn new(rows: Rows) -> Self {
        let square = |at| {
            let mut out = [0.0];
            rows.products(at..at + 1, &rows, at..at + 1, &mut out);
            out[0]
        };
        let squares = (0..rows.count()).into_par_iter().map(square).collect();
        Self { rows, squares }
    }

    fn row(&self, at: usize) -> Vec<f32> {
        self.rows.row(at).as_flattened().to_vec()
    }

    /// Never below 0, and 0 for equal rows: their products are the same to the last bit.
    fn distance(&self, at: usize, others: &Self, other: usize, product: f32) -> f32 {
        let distance = f64::from(self.squares[at]) + f64::from(others.squares[other]) - 2.0 * f64::from(product);
        distance.max(0.0) as f32
    }

    /// The nearest centre of each row, the first of equally near ones, and how far it is, squared.
    fn assign(&self, centres: &Self, cancel: &Cancel) -> Result<(Vec<u32>, Vec<f32>)> {
        let some = |of: std::ops::Range<usize>| {
            cancel.check()?;
            let mut nearest = vec![(f32::INFINITY, 0u32); of.len()];
            let mut products = vec![0.0; TILE * TILE];
            for with in tiles(0..centres.rows.count()) {
                let products = &mut products[..of.len() * with.len()];
                self.rows.products(of.clone(), &centres.rows, with.clone(), products);
                for ((nearest, at), products) in nearest.iter_mut().zip(of.clone()).zip(products.chunks(with.len())) {
                    for (centre, product) in with.clone().zip(products) {
                        let distance = self.distance(at, centres, centre, *product);
                        if distance < nearest.0 {
                            *nearest = (distance, centre as u32);
                        }
                    }
                }
            }
            Ok(nearest)
        };
        let nearest = tiles(0..self.rows.count()).into_par_iter().map(some).collect::<Result<Vec<_>>>()?.concat();
        Ok(nearest.into_iter().map(|(distance, label)| (label, distance)).unzip())
    }

    /// Moves each centre to the mean of its rows. One without rows goes to the row that is farthest from its own.
    fn centre(&self, labels: &[u32], distances: &[f32], centres: &mut [f32], cancel: &Cancel) -> Result<()> {
        let width = self.row(0).len();
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); centres.len() / width.max(1)];
        labels.iter().enumerate().for_each(|(at, label)| members[*label as usize].push(at as u32));
        centres.par_chunks_mut(width.max(1)).zip(&members).try_for_each(|(centre, members)| {
            cancel.check()?;
            if members.is_empty() {
                return Ok(());
            }
            // In the order of the rows.
            let mut sums = vec![0.0f64; width];
            for at in members {
                let row = self.rows.row(*at as usize).as_flattened();
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            centre.iter_mut().zip(sums).for_each(|(value, sum)| *value = (sum / members.len() as f64) as f32);
            Ok(())
        })?;
        let mut farthest: Vec<usize> = Vec::new();
        for empty in (0..members.len()).filter(|cluster| members[*cluster].is_empty()) {
            if farthest.is_empty() {
                farthest = (0..distances.len()).filter(|at| distances[*at] > 0.0).collect();
                farthest.sort_by(|a, b| distances[*a].total_cmp(&distances[*b]).then(b.cmp(a)));
            }
            if let Some(at) = farthest.pop() {
                centres[empty * width..][..width].copy_from_slice(self.rows.row(at).as_flattened());
            }
        }
        Ok(())
    }
}

/// Rows to begin with: each of some that were drawn by their squared distance to the nearest one so far, that one which brings
/// all rows nearest (greedy k-means++).
fn seeds(points: &Points, k: usize, seed: u64, cancel: &Cancel) -> Result<Vec<usize>> {
    let count = points.rows.count();
    let mut chance = Chance(seed);
    let trials = 2 + (k as f64).ln() as usize;
    let mut chosen = vec![(chance.share() * count as f64) as usize];
    let mut distances = points.to(&chosen, cancel)?.remove(0);
    while chosen.len() < k {
        let total: f64 = distances.iter().map(|distance| f64::from(*distance)).sum();
        if total <= 0.0 {
            // All rows are where a centre is: any of those that are left.
            let next = (0..count).find(|at| !chosen.contains(at)).unwrap_or(0);
            chosen.push(next);
            continue;
        }
        let drawn: Vec<usize> = (0..trials).map(|_| draw(&distances, chance.share() * total)).collect();
        let mut best: Option<(f64, usize, Vec<f32>)> = None;
        for (at, to) in drawn.iter().zip(points.to(&drawn, cancel)?) {
            let nearer: Vec<f32> = distances.iter().zip(to).map(|(a, b)| a.min(b)).collect();
            let sum = nearer.iter().map(|distance| f64::from(*distance)).sum();
            if best.as_ref().is_none_or(|(least, ..)| sum < *least) {
                best = Some((sum, *at, nearer));
            }
        }
        if let Some((_, at, nearer)) = best {
            chosen.push(at);
            distances = nearer;
        }
    }
    Ok(chosen)
}

impl Points {
    /// The squared distances of all rows to each of some.
    fn to(&self, some: &[usize], cancel: &Cancel) -> Result<Vec<Vec<f32>>> {
        let values: Vec<f32> = some.iter().flat_map(|at| self.row(*at)).collect();
        let others = Self::new(Rows::packed(&values, some.len()));
        let tile = |of: std::ops::Range<usize>| {
            cancel.check()?;
            let mut products = vec![0.0; of.len() * some.len()];
            self.rows.products(of.clone(), &others.rows, 0..some.len(), &mut products);
            let each = of.zip(products.chunks(some.len()));
            let distances = each.flat_map(|(at, products)| {
                products
                    .iter()
                    .enumerate()
                    .map(|(other, product)| self.distance(at, &others, other, *product))
                    .collect::<Vec<_>>()
            });
            Ok(distances.collect::<Vec<f32>>())
        };
        let all = tiles(0..self.rows.count()).into_par_iter().map(tile).collect::<Result<Vec<_>>>()?.concat();
        let of = |other| all.iter().skip(other).step_by(some.len()).copied().collect();
        Ok((0..some.len()).map(of).collect())
    }
}

/// The row at which the sum of the distances passes `at`.
fn draw(distances: &[f32], at: f64) -> usize {
    let mut sum = 0.0;
    let passed = distances.iter().position(|distance| {
        sum += f64::from(*distance);
        sum > at
    });
    passed.unwrap_or_else(|| distances.iter().rposition(|distance| *distance > 0.0).unwrap_or(0))
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Chance(u64);

impl Chance {
    /// 0–1, 1 excluded.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}
