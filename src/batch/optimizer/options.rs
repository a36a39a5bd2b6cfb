//! How an optimizer behaves, and what it is told: values that are checked once.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The aggressiveness at which constants are meant as they are written.
pub(super) const NORMAL: f64 = 0.3;

/// The largest amount that can be meant: beyond it, sums and squares of what was recorded would no longer be finite.
pub(super) const MOST: f64 = 1e15;

/// How a [`BatchOptimizer`](super::BatchOptimizer) behaves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OptimizerOptions {
    /// Smallest size, at least 1. More than `max_size`: the two are swapped.
    pub min_size: usize,
    /// Largest size.
    pub max_size: usize,
    /// CPU usage (%) above which a size is held to be worse than it is fast.
    pub target_cpu: f64,
    /// Memory usage (%) above which sizes shrink.
    pub target_memory: f64,
    /// Records before the size is changed for the first time.
    pub min_samples: usize,
    /// Records that are kept for [`BatchOptimizer::analytics`](super::BatchOptimizer::analytics).
    pub history: usize,
    /// How eagerly other sizes are tried, 0–1. 0: never; the optimizer learns only from sizes that somebody else tries.
    pub aggressiveness: f64,
    /// Whether it may search: spend some twenty batches in a row on finding the best size, at the beginning and after a
    /// change. If not, it is always in the hold: other sizes are tried one at a time, for a bounded share of the time.
    pub searches: bool,
}

impl OptimizerOptions {
    /// The same with bounds in order, if it makes sense.
    pub(super) fn checked(mut self) -> Result<Self> {
        if self.min_size > self.max_size {
            std::mem::swap(&mut self.min_size, &mut self.max_size);
        }
        if self.min_size == 0 {
            return Err(Error::config("minBatchSize", "0 is not a whole number from 1"));
        }
        for (name, target) in [("targetCpuUsage", self.target_cpu), ("targetMemoryUsage", self.target_memory)] {
            if !(target > 0.0 && target <= 100.0) {
                return Err(Error::config(name, format!("{target} is not a percentage above 0, up to 100")));
            }
        }
        if !(0.0..=1.0).contains(&self.aggressiveness) {
            return Err(Error::config("aggressiveness", format!("{} is not from 0 to 1", self.aggressiveness)));
        }
        Ok(self)
    }
}

impl Default for OptimizerOptions {
    fn default() -> Self {
        Self {
            min_size: 1,
            max_size: 128,
            target_cpu: 70.0,
            target_memory: 75.0,
            min_samples: 10,
            history: 100,
            aggressiveness: NORMAL,
            searches: true,
        }
    }
}

/// One batch that ran.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// Items that it was meant to have.
    pub size: usize,
    /// How long it took, in ms.
    pub time_ms: f64,
    /// Items that were processed.
    pub items: f64,
    /// Tokens of these, where they are known: throughput in tokens compares batches of short and long texts.
    pub tokens: Option<f64>,
    /// CPU usage (%) while it ran; more than 100 counts as 100.
    pub cpu: Option<f64>,
    /// Memory usage (%) while it ran; more than 100 counts as 100.
    pub memory: Option<f64>,
    /// Whether CPU and memory are the machine's at about that time, and not the batch's own.
    pub sampled: bool,
    /// Whether it succeeded.
    pub success: bool,
    /// When it ended, in ms since 1970; only handed back.
    pub at_ms: f64,
}

impl Record {
    /// Items per second. A batch too short for the caller's clock took a tenth of a millisecond.
    pub fn throughput(&self) -> f64 {
        if self.success { self.items / self.time_ms.max(0.1) * 1e3 } else { 0.0 }
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.size == 0 {
            return Err(Error::InvalidArgument("The batch size is 0: pass a whole number from 1".into()));
        }
        let amount = |name: &str, value: f64| {
            if (0.0..=MOST).contains(&value) {
                return Ok(());
            }
            Err(Error::InvalidArgument(format!("The {name} is {value}: pass a number from 0 to {MOST:e}")))
        };
        amount("processing time", self.time_ms)?;
        amount("number of items", self.items)?;
        amount("number of tokens", self.tokens.unwrap_or_default())?;
        amount("CPU usage", self.cpu.unwrap_or_default())?;
        amount("memory usage", self.memory.unwrap_or_default())
    }
}
