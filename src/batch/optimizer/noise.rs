//! How noisy records are.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Noise of ln(throughput) before any is measured, and its bounds.
const PRIOR: f64 = 0.05;
const BOUNDS: (f64, f64) = (0.005, 0.5);

/// Records that the prior is worth.
const PRIOR_RECORDS: usize = 3;

/// The standard deviation of a normal distribution, as a multiple of its median absolute deviation.
const DEVIATION_OF_MEDIAN: f64 = 1.4826;

/// Residuals that are kept.
pub(super) const RESIDUALS: usize = 24;

/// The standard deviation of a record, in ln(throughput), from the median absolute deviation of the latest ones: robust,
/// and with a few records as much the prior as the data.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Noise {
    /// Absolute values.
    pub(super) residuals: VecDeque<f64>,
}

impl Noise {
    pub(super) fn new() -> Self {
        Self { residuals: VecDeque::new() }
    }

    /// Takes the residual of a record whose size has a mean of so many records (`weight`).
    pub(super) fn observe(&mut self, residual: f64, weight: f64) {
        // The mean itself is uncertain.
        let scale = (weight / (weight + 1.0)).sqrt();
        self.residuals.push_back((residual * scale).abs());
        if self.residuals.len() > RESIDUALS {
            self.residuals.pop_front();
        }
    }

    pub(super) fn deviation(&self) -> f64 {
        let prior = PRIOR / DEVIATION_OF_MEDIAN;
        let mut residuals: Vec<f64> = self.residuals.iter().copied().chain([prior; PRIOR_RECORDS]).collect();
        (DEVIATION_OF_MEDIAN * median(&mut residuals)).clamp(BOUNDS.0, BOUNDS.1)
    }
}

/// The upper median; 0 of nothing.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_prior_at_first_and_then_what_is_measured_but_for_outliers() {
        let mut noise = Noise::new();
        assert!((noise.deviation() - 0.05).abs() < 1e-9);
        for nth in 0..24 {
            noise.observe(if nth % 6 == 0 { 5.0 } else { 0.1 }, 100.0);
        }
        assert!((noise.deviation() - 0.148).abs() < 0.01, "{}", noise.deviation());
    }
}
