//! What is learned from a record: the throughput of its size, relative to a level that follows the size in use.

use serde::{Deserialize, Serialize};

use super::gaussian_process::Arm;
use super::options::Record;
use super::{BatchOptimizer, Phase, SEARCH_AGAIN};

/// A size with this weight of records is known well: from then on its records move the level instead.
pub(super) const WELL_KNOWN: f64 = 8.0;

/// How fast the level follows the size in use: share of each residual. A drift of 1 % a batch stays below the alarm.
const FOLLOW: f64 = 0.2;

/// Sizes that weigh less than this are forgotten.
const FORGOTTEN: f64 = 0.002;

/// Records that what is known of a size lives on, roughly.
const MEMORY: f64 = 200.0;

/// How uncertain a mean is after a change, as a standard deviation: a hint, no more.
const HINT: f64 = 0.5;

/// Records of the size in use that count for its mean after a change.
const AFTER_CHANGE: f64 = 2.0;

/// From this weight on, a mean tells how noisy records are; and from this one on, outliers are cut off at so many standard
/// deviations: one pause of the garbage collector must not move a mean.
const SEEN: f64 = 0.5;
const ROBUST: f64 = 3.0;
const OUTLIER: f64 = 4.0;

/// How much CPU above the target slows a size, in ln(throughput) per part of the target.
const CPU_PENALTY: f64 = 2.0;

/// The share of its size from which on a batch counts as a full one.
const FULL: f64 = 0.9;

/// What a batch is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Unit {
    Items,
    Tokens,
}

impl BatchOptimizer {
    pub(super) fn arm(&self, size: usize) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.size == size)
    }

    /// Logarithm of the throughput in whatever unit is learned → items per second.
    pub(super) fn to_items(&self, log: f64) -> f64 {
        // Finite, whatever was recorded.
        let throughput = log.exp().min(f64::MAX);
        if self.unit == Unit::Items {
            return throughput;
        }
        let (mut items, mut tokens) = (0.0, 0.0);
        for record in self.history.iter().filter(|record| record.success) {
            items += record.items;
            tokens += record.tokens.unwrap_or_default();
        }
        if tokens > 0.0 { (throughput * items / tokens).min(f64::MAX) } else { 0.0 }
    }

    /// Learns from a batch that succeeded.
    pub(super) fn learn(&mut self, record: &Record) {
        // Half-filled batches, such as the last one of a call, are batches of the size that they had.
        let full = record.items >= FULL * record.size as f64;
        let size = if full { record.size } else { record.items.round() as usize };
        if record.items < 1.0 || !(self.options.min_size..=self.options.max_size).contains(&size) {
            return;
        }
        let unit = if record.tokens.is_some_and(|tokens| tokens > 0.0) { Unit::Tokens } else { Unit::Items };
        if unit != self.unit {
            self.arms.clear();
            self.unit = unit;
        }
        self.age();
        let measured = self.measured(record);
        if self.arms.is_empty() {
            self.level = measured;
        }
        let mut value = measured - self.level;
        let noise = self.noise.deviation();
        let holding = matches!(self.phase, Phase::Hold(_));
        let in_use = holding && size == self.incumbent;
        let Some(arm) = self.arms.iter_mut().find(|arm| arm.size == size) else {
            self.arms.push(Arm { size, mean: value, weight: 1.0 });
            return;
        };
        let residual = value - arm.mean;
        if arm.weight >= SEEN {
            self.noise.observe(residual, arm.weight);
        }
        if arm.weight >= ROBUST {
            value = arm.mean + residual.clamp(-OUTLIER * noise, OUTLIER * noise);
        }
        if in_use && arm.weight >= WELL_KNOWN {
            self.level += FOLLOW * (value - arm.mean);
            arm.weight += 1.0 / MEMORY * arm.weight;
        } else {
            arm.mean = (arm.mean * arm.weight + value) / (arm.weight + 1.0);
            arm.weight = (arm.weight + 1.0).min(2.0 * WELL_KNOWN);
        }
        if holding {
            self.spend(size, record);
        }
        if in_use && let Some(shift) = self.changes.observe(residual, noise) {
            self.start_over(shift, noise);
        }
    }

    /// What is known fades with every record, and is forgotten in the end, in the hold; of sizes that may not be tried now it
    /// stays, for when they may.
    fn age(&mut self) {
        let limit = self.limit();
        for arm in self.arms.iter_mut().filter(|arm| arm.size <= limit) {
            arm.weight *= 1.0 - 1.0 / MEMORY;
        }
        if matches!(self.phase, Phase::Hold(_)) {
            let incumbent = self.incumbent;
            self.arms.retain(|arm| arm.weight >= FORGOTTEN || arm.size == incumbent);
        }
    }

    /// The logarithm of a record's throughput, less what its CPU usage costs.
    fn measured(&self, record: &Record) -> f64 {
        let amount = if self.unit == Unit::Tokens { record.tokens.unwrap_or_default() } else { record.items };
        let above = record.cpu.filter(|_| !record.sampled).map_or(0.0, |cpu| cpu / self.options.target_cpu - 1.0);
        (amount / record.time_ms.max(0.1) * 1e3).ln() - CPU_PENALTY * above.max(0.0)
    }

    /// Goes on after a sudden change of the size in use by `shift`: what is known of other sizes is a hint from now on.
    fn start_over(&mut self, shift: f64, noise: f64) {
        self.level += shift;
        for arm in &mut self.arms {
            let in_use = arm.size == self.incumbent;
            arm.weight = if in_use { AFTER_CHANGE } else { arm.weight.min((noise / HINT).powi(2)) };
        }
        // What was saved up on the machine as it was must not be spent on this one.
        (self.held_ms, self.regret_ms) = (0.0, 0.0);
        self.search(SEARCH_AGAIN);
    }
}
