//! Notices when the size in use is suddenly slower or faster than it was: a two-sided CUSUM test (Page, *Continuous
//! Inspection Schemes*, 1954).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::noise::median;

/// CUSUM in standard deviations: what is tolerated per record, and when it is a change.
const TOLERANCE: f64 = 1.0;
const THRESHOLD: f64 = 6.0;

/// No residual counts for more standard deviations than this.
const MOST_DEVIATIONS: f64 = 4.0;

/// Standard deviations are at least this large, in ln(throughput): smaller changes matter to nobody.
const LEAST_NOISE: f64 = 0.01;

/// Every alarm raises the threshold, up to a multiple, and quiet lowers it again: a load that jumps about all the time is no
/// reason to search all the time.
const RAISE: f64 = 1.3;
const LOWER: f64 = 0.99;
pub(super) const MOST_RAISED: f64 = 3.0;

/// Residuals of which the median is the size of a change.
pub(super) const RESIDUALS: usize = 3;

/// Watches the residuals of the size in use.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeDetector {
    /// Cumulative sums of what is above, and below, what was expected.
    pub(super) up: f64,
    pub(super) down: f64,
    pub(super) residuals: VecDeque<f64>,
    /// The threshold as a multiple of [`THRESHOLD`].
    pub(super) threshold: f64,
}

impl ChangeDetector {
    pub(super) fn new() -> Self {
        Self { up: 0.0, down: 0.0, residuals: VecDeque::new(), threshold: 1.0 }
    }

    /// Takes the residual of a record, `noise` its standard deviation. By how much the size in use is faster than it was, in
    /// ln(throughput), if that is a change.
    pub(super) fn observe(&mut self, residual: f64, noise: f64) -> Option<f64> {
        self.residuals.push_back(residual);
        if self.residuals.len() > RESIDUALS {
            self.residuals.pop_front();
        }
        let score = (residual / noise.max(LEAST_NOISE)).clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS);
        self.up = (self.up + score - TOLERANCE).max(0.0);
        self.down = (self.down - score - TOLERANCE).max(0.0);
        if self.up.max(self.down) < THRESHOLD * self.threshold {
            self.threshold = (self.threshold * LOWER).max(1.0);
            return None;
        }
        self.threshold = (self.threshold * RAISE).min(MOST_RAISED);
        let shift = median(self.residuals.make_contiguous());
        self.restart();
        Some(shift)
    }

    /// Sums from nothing: what is in use is another size.
    pub(super) fn restart(&mut self) {
        (self.up, self.down) = (0.0, 0.0);
        self.residuals.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many records like this a change is noticed, and its size.
    fn alarm(mut residual: impl FnMut(usize) -> f64) -> Option<(usize, f64)> {
        let mut detector = ChangeDetector::new();
        (0..500).find_map(|nth| Some((nth + 1, detector.observe(residual(nth), 0.05)?)))
    }

    #[test]
    fn a_jump_is_noticed_soon_and_in_both_directions() {
        assert!(matches!(alarm(|_| 0.3), Some((..=3, 0.3))));
        assert!(matches!(alarm(|_| -0.3), Some((..=3, -0.3))));
        assert!(matches!(alarm(|_| 0.1), Some((..=8, 0.1))));
    }

    #[test]
    fn noise_and_single_outliers_are_no_change() {
        assert_eq!(alarm(|nth| if nth % 2 == 0 { 0.08 } else { -0.08 }), None);
        assert_eq!(alarm(|nth| if nth % 10 == 0 { -2.0 } else { 0.0 }), None);
    }

    #[test]
    fn after_many_alarms_it_takes_more() {
        let mut detector = ChangeDetector::new();
        let mut wait = || (1..).find(|_| detector.observe(0.15, 0.05).is_some());
        let waits: Vec<_> = (0..8).map(|_| wait()).collect();
        assert!(waits[7] > waits[0] && waits[7] < Some(3 * 4), "{waits:?}");
    }
}
