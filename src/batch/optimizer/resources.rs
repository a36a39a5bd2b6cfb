//! What memory allows, and how much of the machine is in use.
//!
//! Memory above its target lowers a ceiling in proportion, quickly, and the ceiling rises slowly once memory is well below
//! (the asymmetry of AIMD: Chiu & Jain 1989). Where smaller batches do not help, memory is somebody else's and the ceiling
//! goes no lower.

use serde::{Deserialize, Serialize};

use super::options::{OptimizerOptions, Record};

/// Weight of the latest record in an average.
const SMOOTHING: f64 = 0.4;

/// Memory (%) that must not be crossed, whoever uses it.
const DANGER: f64 = 95.0;

/// Batches below a lowered ceiling after which it must have shown whether it helps.
const ENOUGH_LOWERED: usize = 4;

/// A change of memory (%) that shows that the ceiling helps, or that something else uses more.
const HELPED: f64 = 1.0;
const MORE: f64 = 3.0;

/// Memory well below its target, as a share of it, for so many batches: the ceiling rises by a part.
const RELAXED: f64 = 0.9;
const RELAXED_BATCHES: usize = 10;
const RISE: usize = 4;

/// The ceiling was lowered.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lowered {
    /// Memory usage (%) before.
    pub(super) before: f64,
    pub(super) from: usize,
    pub(super) to: usize,
    /// Batches below it since.
    pub(super) records: usize,
}

/// CPU and memory, and the ceiling that memory sets to sizes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resources {
    /// Largest size that memory allows.
    pub(super) ceiling: usize,
    /// Usage (%), averaged; unknown until it is measured.
    pub(super) memory: Option<f64>,
    pub(super) cpu: Option<f64>,
    pub(super) lowered: Option<Lowered>,
    /// Records in a row with memory well below its target.
    pub(super) relaxed: usize,
}

impl Resources {
    pub(super) fn new(options: &OptimizerOptions) -> Self {
        Self { ceiling: options.max_size, memory: None, cpu: None, lowered: None, relaxed: 0 }
    }

    /// The largest size that may be used.
    pub(super) fn limit(&self, options: &OptimizerOptions) -> usize {
        self.ceiling.clamp(options.min_size, options.max_size)
    }

    /// Averages what was measured with a record.
    pub(super) fn observe(&mut self, record: &Record) {
        let smooth = |old: Option<f64>, new: Option<f64>| match (old, new) {
            (Some(old), Some(new)) => Some(old + SMOOTHING * (new - old)),
            (old, new) => new.or(old),
        };
        self.cpu = smooth(self.cpu, record.cpu);
        self.memory = smooth(self.memory, record.memory);
        if let Some(lowered) =
            self.lowered.as_mut().filter(|lowered| record.memory.is_some() && record.size <= lowered.to)
        {
            lowered.records += 1;
        }
    }

    /// Moves the ceiling after a record that was observed. Whether it rose, so that larger sizes are worth a look again.
    pub(super) fn adjust(&mut self, record: &Record, options: &OptimizerOptions) -> bool {
        let (Some(smoothed), Some(own)) = (self.memory, record.memory) else { return false };
        // What was measured with the batch is its own; a sample of the machine may be a moment's.
        let memory = if record.sampled { smoothed } else { own };
        let target = options.target_memory;
        if memory <= target || own <= target {
            // Well below for a while: a little more, never all at once.
            self.relaxed = if memory < RELAXED * target { self.relaxed + 1 } else { 0 };
            let rises = self.relaxed >= RELAXED_BATCHES && self.ceiling < options.max_size;
            if rises {
                self.ceiling = (self.ceiling + self.ceiling.div_ceil(RISE)).min(options.max_size);
                (self.relaxed, self.lowered) = (0, None);
            }
            return rises;
        }
        self.relaxed = 0;
        if let Some(Lowered { before, from, records, .. }) = self.lowered {
            if records < ENOUGH_LOWERED {
                return false;
            }
            // Smaller batches have run. If they did not help, the memory is somebody else's.
            let changed = memory <= before - HELPED || memory > before + MORE;
            if !changed && memory < DANGER {
                self.ceiling = from;
                return false;
            }
        }
        let factor = (1.0 - 4.0 * (memory / target - 1.0)).clamp(0.5, 0.95);
        let from = self.ceiling;
        let to = ((record.size.min(self.limit(options)) as f64 * factor) as usize).max(options.min_size);
        self.ceiling = to;
        self.lowered = Some(Lowered { before: memory, from, to, records: 0 });
        false
    }
}
