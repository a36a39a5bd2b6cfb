//! The throughput of batch sizes as a Gaussian process over log₂(size), after Rasmussen & Williams, *Gaussian Processes for
//! Machine Learning* (2006), algorithm 2.1.
//!
//! Values are ln(throughput), relative to a level that only the caller knows.

use serde::{Deserialize, Serialize};

/// Prior standard deviation of ln(throughput) around its mean, after clipping.
const SPREAD: f64 = 0.35;

/// Where a size is expected that nothing is known about, below the best, in ln(throughput).
const PRIOR_BELOW_BEST: f64 = 0.05;

/// How far below the best a size counts as its measured value; whatever is slower is just slow. In ln(throughput).
pub(super) const CLIP: f64 = 0.30;

/// The records of one size. Values are ln(throughput) relative to the level.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arm {
    pub(super) size: usize,
    pub(super) mean: f64,
    /// How many records it is worth.
    pub(super) weight: f64,
}

/// The posterior distribution of the throughput of a size: of its logarithm relative to the level.
#[derive(Debug, Clone, Copy)]
pub(super) struct Posterior {
    pub(super) size: usize,
    pub(super) mean: f64,
    pub(super) deviation: f64,
}

impl Posterior {
    /// By how much this size is expected to beat `best`, where not beating it counts as nothing.
    pub(super) fn expected_improvement(&self, best: f64) -> f64 {
        if self.deviation < 1e-9 {
            return (self.mean - best).max(0.0);
        }
        let z = (self.mean - best) / self.deviation;
        (self.deviation * (z * normal_cdf(z) + normal_pdf(z))).max(0.0)
    }
}

/// What records of some sizes, `noise` the standard deviation of one, say about `sizes`. Whatever is far below the best
/// counts as equally bad. Cubic in the number of sizes that ran; nothing without any.
pub(super) fn posterior(arms: &[Arm], noise: f64, sizes: &[usize]) -> Vec<Posterior> {
    let Some(best) = arms.iter().map(|arm| arm.mean).max_by(f64::total_cmp) else { return Vec::new() };
    let prior = best - PRIOR_BELOW_BEST;
    let places: Vec<f64> = arms.iter().map(|arm| (arm.size as f64).log2()).collect();
    let count = places.len();
    let mut factor = vec![0.0; count * count];
    for row in 0..count {
        for column in 0..=row {
            factor[row * count + column] = kernel(places[row] - places[column]);
        }
        factor[row * count + row] += noise * noise / arms[row].weight.max(1e-6) + 1e-8;
    }
    cholesky(&mut factor, count);
    let values: Vec<f64> = arms.iter().map(|arm| arm.mean.max(best - CLIP) - prior).collect();
    let values = forward(&factor, values);
    let at = |&size: &usize| {
        let place = (size as f64).log2();
        let near = forward(&factor, places.iter().map(|other| kernel(place - other)).collect());
        let mean = prior + near.iter().zip(&values).map(|(a, b)| a * b).sum::<f64>();
        let variance = kernel(0.0) - near.iter().map(|a| a * a).sum::<f64>();
        Posterior { size, mean, deviation: variance.max(0.0).sqrt() }
    };
    sizes.iter().map(at).collect()
}

/// Covariance of two sizes `distance` octaves apart: a smooth part (squared exponential) and a rough one (Ornstein–
/// Uhlenbeck), which admits steps. Their lengths in octaves, their shares and the constants above are those that did best
/// in a random search on the machines of `benchmark/optimizer.mjs`; a wide range does nearly as well.
fn kernel(distance: f64) -> f64 {
    let smooth = (-distance * distance / (2.0 * 1.2 * 1.2)).exp();
    let rough = (-distance.abs() / 1.5).exp();
    SPREAD * SPREAD * (0.5 * smooth + 0.5 * rough)
}

/// Replaces the lower triangle of a symmetric, positive definite matrix by its Cholesky factor.
fn cholesky(matrix: &mut [f64], count: usize) {
    for row in 0..count {
        for column in 0..=row {
            let sum: f64 = (0..column).map(|k| matrix[row * count + k] * matrix[column * count + k]).sum();
            let rest = matrix[row * count + column] - sum;
            matrix[row * count + column] =
                if row == column { rest.max(1e-12).sqrt() } else { rest / matrix[column * count + column] };
        }
    }
}

/// Solves `factor · x = values` for a lower triangular factor.
fn forward(factor: &[f64], mut values: Vec<f64>) -> Vec<f64> {
    let count = values.len();
    for row in 0..count {
        let sum: f64 = (0..row).map(|k| factor[row * count + k] * values[k]).sum();
        values[row] = (values[row] - sum) / factor[row * count + row];
    }
    values
}

fn normal_pdf(z: f64) -> f64 {
    (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// To within 1e-7: Abramowitz & Stegun 26.2.17.
fn normal_cdf(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let sum =
        t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let upper = normal_pdf(z) * sum;
    if z >= 0.0 { 1.0 - upper } else { upper }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(size: usize, mean: f64, weight: f64) -> Arm {
        Arm { size, mean, weight }
    }

    #[test]
    fn is_sure_where_it_has_seen_and_unsure_elsewhere() {
        let arms = [arm(8, 0.0, 10.0), arm(32, -0.1, 10.0)];
        let seen = posterior(&arms, 0.05, &[8, 16, 32, 128]);
        assert!((seen[0].mean - 0.0).abs() < 0.01 && (seen[2].mean + 0.1).abs() < 0.01);
        assert!(seen[0].deviation < 0.02 && seen[1].deviation > 0.05 && seen[3].deviation > seen[1].deviation);
        assert!(posterior(&[], 0.05, &[8]).is_empty());
    }

    #[test]
    fn noisy_records_count_less() {
        let at_9 = |noise| posterior(&[arm(8, 0.0, 5.0), arm(9, 0.2, 1.0)], noise, &[9])[0].mean;
        assert!(at_9(0.01) > 0.19 && at_9(0.5) < 0.15);
    }

    #[test]
    fn expects_improvement_of_what_is_better_or_unknown() {
        let improvement = |mean, deviation| Posterior { size: 1, mean, deviation }.expected_improvement(0.0);
        assert_eq!((improvement(0.2, 0.0), improvement(-0.2, 0.0)), (0.2, 0.0));
        // At the mean: deviation × φ(0).
        assert!((improvement(0.0, 1.0) - 0.398_942).abs() < 1e-5);
        assert!(improvement(-0.1, 0.3) > improvement(-0.1, 0.1) && improvement(0.1, 0.1) > 0.1);
        assert!((normal_cdf(1.96) - 0.975_002).abs() < 1e-6 && (normal_cdf(-1.96) - 0.024_998).abs() < 1e-6);
    }
}
