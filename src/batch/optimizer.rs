//! Which batch size is fastest here. JS class: `DynamicBatchOptimizer`. Pure: records in, a size out; no clock, no I/O.
//!
//! Nobody knows the curve of throughput over batch size: it has one peak or several, is flat or falls off a cliff where
//! memory or a cache ends, is noisy, and moves with the load. So it is learned as a function of log₂(size) by Bayesian
//! optimisation:
//!
//! - **Model.** The logarithm of throughput is a Gaussian process over log₂(size), with a kernel that is the sum of a
//!   smooth and a rough part: sizes near each other are about equally fast, except where there is a step (Rasmussen &
//!   Williams, *Gaussian Processes for Machine Learning*, 2006, ch. 2 and 4). Whatever is far below the best counts as
//!   equally bad, else the far side of a cliff would spoil what is believed about the near one.
//! - **Search.** The next size is the one of largest *expected improvement* over the best (Mockus 1978; Jones, Schonlau &
//!   Welch, *Efficient Global Optimization*, 1998), at most twice the largest one known. It ends when no size promises
//!   more than a small fraction of the throughput. Unlike hill climbing it cannot be caught by a local peak: a size that
//!   nobody has tried stays uncertain, and what is uncertain gets tried.
//! - **Hold.** Then the best size is kept. Another one takes over only when it leads by a margin (hysteresis). Beliefs
//!   about other sizes fade with age (Bogunovic et al., *Time-Varying Gaussian Process Bandit Optimization*, 2016), so that
//!   now and then one of them is tried again, in one batch, as long as the time that this costs stays below a fixed
//!   share of all time. `aggressiveness` scales that share, how often, and how small a promise is worth a try.
//! - **Change.** All sizes are compared relative to a level that follows the size in use, so a slow drift of the load,
//!   which slows all sizes alike, changes nothing. A sudden change is noticed by a two-sided CUSUM test (Page 1954); then
//!   beliefs are kept as mere hints and the search starts again.
//! - **Failures.** A size that is too large fails, but so does everything when the machine, or a service, has trouble.
//!   So nothing is learned from batches that fail before it is known whether a smaller size helps: sizes shrink until one
//!   succeeds, then the smallest that had failed is tried once more. If it succeeds, all is as it was before; if not, what
//!   failed counts as slow.
//! - **Limits.** Memory above its target lowers a ceiling in proportion, quickly,
//!   and the ceiling rises slowly once memory is well below (the asymmetry of AIMD: Chiu & Jain 1989). Where smaller
//!   batches do not help, memory is somebody else's and the ceiling goes no lower. CPU above its target, where measured
//!   with the batch, counts as slowness: if all sizes take as much, none is preferred for it.

mod state;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::belief::{Arm, Belief, CLIP, beliefs};
use crate::error::{Error, Result};

/// Candidates per doubling of the size. Two neighbours are 9 % apart: a cliff is missed by less than that.
const STEPS_PER_OCTAVE: f64 = 8.0;

/// Noise of ln(throughput) before any is measured, and its bounds.
const NOISE: f64 = 0.05;
const NOISE_BOUNDS: (f64, f64) = (0.005, 0.5);

/// A batch that failed counts as this much slower than the best, in ln(throughput): 5 times.
const FAILURE: f64 = 1.6;

/// A size with this weight of records has been seen, and not too long ago.
const KNOWN: f64 = 0.3;

/// A size with this weight of records is known well: from then on its records move the level instead.
const WELL_KNOWN: f64 = 8.0;

/// How fast the level follows the size in use: share of each surprise. A drift of 1 % a batch stays below the alarm.
const FOLLOW: f64 = 0.2;

/// Batches between two looks at all beliefs while the best size is held.
const CHECK: usize = 8;

/// Beliefs that weigh less than this are forgotten.
const FORGOTTEN: f64 = 0.002;

/// Two sizes nearer than this, as a ratio, need no other one between them.
const NEAR: f64 = 1.12;

/// Records that a belief about a size lives on, roughly.
const MEMORY: f64 = 200.0;

/// How uncertain a belief is after a change, as a standard deviation: a hint, no more.
const HINT: f64 = 0.5;

/// Most batches of a search: from the start, and after a change.
const SEARCH: usize = 20;
const SEARCH_AGAIN: usize = 16;

/// The expected improvement, relative, that is worth a batch at the default aggressiveness.
const WORTH: f64 = 0.005;

/// The aggressiveness at which constants are meant as they are written.
const NORMAL: f64 = 0.3;

/// Share of all time that trying other sizes may cost, for an aggressiveness of 1.
const SHARE: f64 = 0.05;

/// A size takes over when it leads by this much, relative, and by as much as noise could explain.
const HYSTERESIS: f64 = 0.01;

/// CUSUM in standard deviations: what is tolerated per record, and when it is a change.
const TOLERANCE: f64 = 1.0;
const ALARM: f64 = 6.0;

/// How much CPU above the target slows a size, in ln(throughput) per part of the target.
const CPU_PENALTY: f64 = 2.0;

/// Memory (%) that must not be crossed, whoever uses it.
const DANGER: f64 = 95.0;

/// Batches below a lowered ceiling after which it must have shown whether it helps.
const ENOUGH_LOWERED: usize = 4;

/// The largest amount that can be meant: beyond it, sums and squares of what was recorded would no longer be finite.
const MOST: f64 = 1e15;

/// How a [`BatchOptimizer`] behaves.
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
    /// Records that are kept for [`BatchOptimizer::analytics`].
    pub history: usize,
    /// How eagerly other sizes are tried, 0–1. 0: never; the optimizer learns only from sizes that somebody else tries.
    pub aggressiveness: f64,
    /// Whether it may search: spend some twenty batches in a row on finding the best size, at the beginning and after a
    /// change. If not, it is always in the hold: other sizes are tried one at a time, for a bounded share of the time.
    pub searches: bool,
}

impl OptimizerOptions {
    /// The same with bounds in order, if it makes sense.
    fn checked(mut self) -> Result<Self> {
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

    fn check(&self) -> Result<()> {
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

/// What the optimizer would do, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendation {
    /// The best size that is known.
    pub size: usize,
    /// 0–1: exp(−e / 0.02), where e is the relative gain that other sizes still promise. At most 0.1 without enough records.
    pub confidence: f64,
    /// In words.
    pub reason: String,
    /// Relative gain over what was measured of late, at least 0: 0.1 for 10 % more throughput.
    pub expected_improvement: f64,
    /// CPU usage (%) to expect, where it was ever measured.
    pub cpu: Option<f64>,
    /// Memory usage (%) to expect, where it was ever measured.
    pub memory: Option<f64>,
    /// Items per second to expect; 0 without any record of success.
    pub throughput: f64,
}

/// How batches went, over the history that is kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Analytics {
    /// Items per second, over all time that batches took.
    pub average_throughput: f64,
    /// Mean size.
    pub average_size: f64,
    /// Mean duration in ms.
    pub average_time_ms: f64,
    /// Share of batches that succeeded, 0–1.
    pub success_rate: f64,
    /// 0–1: half the performance score, three tenths the resource score, two tenths the stability score.
    pub score: f64,
    /// Throughput of late relative to that of the best size known, 0–1.
    pub performance_score: f64,
    /// 1 up to the targets of CPU and memory, from there linearly to 0 at 100 %; the mean of the two.
    pub resource_score: f64,
    /// Success rate × (1 − coefficient of variation of throughput among batches of one size), 0–1.
    pub stability_score: f64,
    /// Mean of CPU and memory usage, 0–1; 0 where neither was measured.
    pub utilization: f64,
    /// Relative change of the latest five batches against the five before: throughput, memory and CPU.
    pub trends: [f64; 3],
}

/// The ceiling was lowered.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lowered {
    /// Memory usage (%) before.
    before: f64,
    from: usize,
    to: usize,
    /// Batches below it since.
    records: usize,
}

/// Batches that failed one after the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Streak {
    /// The sizes that failed.
    sizes: Vec<usize>,
    /// Whether a smaller size has succeeded since: now the smallest of these is tried once more.
    helped: bool,
    /// What was believed before.
    arms: Vec<Arm>,
    level: f64,
    base: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Phase {
    /// Too little is known to do anything.
    Gather,
    /// So many batches may still look for the best size.
    Search(usize),
    /// The best size is in use, for so many batches without a try of another one.
    Hold(usize),
}

/// What a batch is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Unit {
    Items,
    Tokens,
}

/// Learns the fastest batch size from what batches took. Use one for each model.
///
/// Deterministic: the same records give the same sizes. A record costs microseconds, tens of them while it searches.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchOptimizer {
    options: OptimizerOptions,
    initial: usize,
    #[serde(skip)]
    candidates: Vec<usize>,
    history: VecDeque<Record>,
    samples: usize,

    arms: Vec<Arm>,
    unit: Unit,
    level: f64,
    surprises: VecDeque<f64>,
    phase: Phase,
    base: usize,
    current: usize,
    streak: Option<Streak>,

    /// CUSUM upwards and downwards, the latest residuals, and how much calmer it has become by false alarms.
    drift: (f64, f64),
    residuals: VecDeque<f64>,
    calm: f64,
    /// Milliseconds held, and of these lost by trying.
    held_ms: f64,
    lost_ms: f64,

    /// Most that memory allows.
    ceiling: usize,
    memory: Option<f64>,
    cpu: Option<f64>,
    lowered: Option<Lowered>,
    /// Records in a row with memory well below its target.
    relaxed: usize,
}

impl Streak {
    fn smallest(&self) -> usize {
        self.sizes.iter().copied().min().unwrap_or(1)
    }

    /// The size that tells more: a smaller one, best one that is known well; then the smallest that failed.
    fn next(&self) -> usize {
        let known = self.base < self.smallest() && self.arms.iter().any(|arm| arm.size == self.base);
        match (self.helped, known) {
            (true, _) => self.smallest(),
            (false, true) => self.base,
            (false, false) => self.smallest() / 2,
        }
    }
}

impl BatchOptimizer {
    /// Starts with batches of `initial`, brought within the bounds.
    ///
    /// # Errors
    /// `INVALID_CONFIG` for bounds of 0, targets that are no percentages, and an aggressiveness outside 0–1.
    pub fn new(initial: usize, options: OptimizerOptions) -> Result<Self> {
        let options = options.checked()?;
        let initial = initial.clamp(options.min_size, options.max_size);
        Ok(Self::start(initial, options))
    }

    fn start(initial: usize, options: OptimizerOptions) -> Self {
        Self {
            candidates: candidates(&options),
            options,
            initial,
            history: VecDeque::new(),
            samples: 0,
            arms: Vec::new(),
            unit: Unit::Items,
            level: 0.0,
            surprises: VecDeque::new(),
            phase: Phase::Gather,
            base: initial,
            current: initial,
            streak: None,
            drift: (0.0, 0.0),
            residuals: VecDeque::new(),
            calm: 1.0,
            held_ms: 0.0,
            lost_ms: 0.0,
            ceiling: options.max_size,
            memory: None,
            cpu: None,
            lowered: None,
            relaxed: 0,
        }
    }

    /// The options, bounds in order.
    pub fn options(&self) -> &OptimizerOptions {
        &self.options
    }

    /// The size that the next batch should have.
    pub fn current(&self) -> usize {
        self.current
    }

    /// The best size that is known and allowed: the one in use, but for single batches that try another.
    pub fn settled(&self) -> usize {
        self.base.min(self.limit())
    }

    /// Records that were learned from since the start.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// The records that are kept, the oldest first.
    pub fn history(&self) -> impl ExactSizeIterator<Item = &Record> + DoubleEndedIterator {
        self.history.iter()
    }

    /// Forgets everything and starts again with the initial size.
    pub fn reset(&mut self) {
        *self = Self::start(self.initial, self.options);
    }

    /// Learns from a batch.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for what cannot be: nothing is learned from it.
    pub fn record(&mut self, record: Record) -> Result<()> {
        record.check()?;
        let record = Record {
            cpu: record.cpu.map(|cpu| cpu.min(100.0)),
            memory: record.memory.map(|memory| memory.min(100.0)),
            ..record
        };
        self.samples += 1;
        if self.options.history > 0 {
            if self.history.len() >= self.options.history {
                self.history.pop_front();
            }
            self.history.push_back(record);
        }
        self.watch_resources(&record);
        let tried = record.size != self.base;
        if self.tells(&record) {
            self.learn(&record);
        }
        self.decide(tried);
        Ok(())
    }

    /// Decides anew, and takes the best size that is known even where it leads by less than the usual margin.
    pub fn optimize(&mut self) -> usize {
        if self.phase != Phase::Gather && self.streak.is_none() {
            self.base = self.leader(0.0);
            if !matches!(self.phase, Phase::Search(_)) || self.current > self.limit() {
                self.current = self.base;
            }
        }
        self.current
    }

    /// What the optimizer would do, and why.
    pub fn recommendation(&self) -> Recommendation {
        let best = self.arm(self.base).filter(|_| self.samples > 0);
        let throughput = best.map_or(0.0, |arm| self.to_items(arm.mean + self.level));
        let mut recommendation = Recommendation {
            size: self.current,
            confidence: 0.1,
            reason: String::new(),
            expected_improvement: 0.0,
            cpu: self.cpu,
            memory: self.memory,
            throughput,
        };
        if self.samples < self.options.min_samples {
            let (has, needs) = (self.samples, self.options.min_samples);
            recommendation.reason = format!("Insufficient performance data for optimization: {has} of {needs} batches");
            return recommendation;
        }
        let size = self.base.min(self.limit());
        let promise = self.promise(&self.posterior()).map_or(0.0, |(_, promise)| promise);
        let recent: Vec<f64> = self.history.iter().rev().take(5).map(Record::throughput).collect();
        let recent = mean(&recent).unwrap_or_default();
        recommendation.size = size;
        recommendation.confidence = (-promise / 0.02).exp().clamp(0.1, 0.99);
        if recent > 0.0 && throughput > 0.0 {
            recommendation.expected_improvement = (throughput / recent - 1.0).clamp(0.0, f64::MAX);
        }
        let failing = self.history.iter().rev().take(5).filter(|record| !record.success).count();
        recommendation.reason = if self.limit() < self.options.max_size && size >= self.limit() {
            let memory = self.memory.unwrap_or_default();
            format!("Reduced batch size: memory usage was above {} % (now {memory:.0} %)", self.options.target_memory)
        } else if failing > 2 {
            format!("Recent batches failed ({failing} of 5): it is tried whether smaller ones succeed")
        } else if let Phase::Search(left) = self.phase {
            format!("Best size so far; at most {left} more batches look for a better one")
        } else {
            format!("Fastest of {} sizes measured", self.arms.len())
        };
        recommendation
    }

    /// What is believed about the speed of batches of `size`: the logarithm of their throughput in tokens a second, and the
    /// standard deviation of that belief. `None` where nothing is known, or not in tokens.
    pub fn speed(&self, size: usize) -> Option<(f64, f64)> {
        let belief = self.beliefs_of(&[size]).into_iter().next().filter(|_| self.unit == Unit::Tokens)?;
        Some((belief.mean + self.level, belief.deviation.hypot(self.noise())))
    }

    /// How batches went.
    pub fn analytics(&self) -> Analytics {
        let records: Vec<&Record> = self.history.iter().collect();
        let Some(last) = records.last() else { return Analytics::default() };
        let count = records.len() as f64;
        let time: f64 = records.iter().map(|record| record.time_ms.max(0.1)).sum();
        let items: f64 = records.iter().filter(|record| record.success).map(|record| record.items).sum();
        let success_rate = records.iter().filter(|record| record.success).count() as f64 / count;
        let measured = |value: fn(&Record) -> Option<f64>| {
            mean(&records.iter().filter_map(|record| value(record)).collect::<Vec<_>>())
        };
        let (cpu, memory) = (measured(|record| record.cpu), measured(|record| record.memory));
        let headroom = |usage: Option<f64>, target: f64| match usage {
            Some(usage) if usage > target => ((100.0 - usage) / (100.0 - target)).clamp(0.0, 1.0),
            _ => 1.0,
        };
        let resource_score =
            (headroom(cpu, self.options.target_cpu) + headroom(memory, self.options.target_memory)) / 2.0;
        let same: Vec<f64> = records
            .iter()
            .filter(|record| record.size == last.size && record.success)
            .map(|record| record.throughput())
            .collect();
        let variation = variation(&same);
        let stability_score = success_rate * (1.0 - variation.min(1.0));
        let recent: Vec<f64> = records.iter().rev().take(5).map(|record| record.throughput()).collect();
        let best = self.arms.iter().map(|arm| self.to_items(arm.mean + self.level)).fold(0.0, f64::max);
        let performance_score =
            if best > 0.0 { (mean(&recent).unwrap_or_default() / best).clamp(0.0, 1.0) } else { 0.0 };
        let usages: Vec<f64> = [cpu, memory].into_iter().flatten().collect();
        Analytics {
            average_throughput: items / time * 1e3,
            average_size: records.iter().map(|record| record.size as f64).sum::<f64>() / count,
            average_time_ms: records.iter().map(|record| record.time_ms).sum::<f64>() / count,
            success_rate,
            score: 0.5 * performance_score + 0.3 * resource_score + 0.2 * stability_score,
            performance_score,
            resource_score,
            stability_score,
            utilization: mean(&usages).unwrap_or_default() / 100.0,
            trends: [
                trend(&records, |record| Some(record.throughput())),
                trend(&records, |record| record.memory),
                trend(&records, |record| record.cpu),
            ],
        }
    }

    /// Largest size that may be used now.
    fn limit(&self) -> usize {
        self.ceiling.clamp(self.options.min_size, self.options.max_size)
    }

    fn arm(&self, size: usize) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.size == size)
    }

    /// Logarithm of the throughput in whatever unit is learned → items per second.
    fn to_items(&self, log: f64) -> f64 {
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

    fn watch_resources(&mut self, record: &Record) {
        let smooth = |old: Option<f64>, new: Option<f64>| match (old, new) {
            (Some(old), Some(new)) => Some(old + 0.4 * (new - old)),
            (old, new) => new.or(old),
        };
        self.cpu = smooth(self.cpu, record.cpu);
        self.memory = smooth(self.memory, record.memory);
        let (Some(smoothed), Some(own)) = (self.memory, record.memory) else { return };
        // What was measured with the batch is its own; a sample of the machine may be a moment's.
        let memory = if record.sampled { smoothed } else { own };
        let target = self.options.target_memory;
        if let Some(lowered) = &mut self.lowered
            && record.size <= lowered.to
        {
            lowered.records += 1;
        }
        if self.samples < self.options.min_samples {
            return;
        }
        if memory <= target || own <= target {
            // Well below for a while: a little more, never all at once.
            self.relaxed = if memory < 0.9 * target { self.relaxed + 1 } else { 0 };
            if self.relaxed >= 10 && self.ceiling < self.options.max_size {
                self.ceiling = (self.ceiling + self.ceiling.div_ceil(4)).min(self.options.max_size);
                self.relaxed = 0;
                self.lowered = None;
                self.look_around(4);
            }
            return;
        }
        self.relaxed = 0;
        if let Some(Lowered { before, from, records, .. }) = self.lowered {
            if records < ENOUGH_LOWERED {
                return;
            }
            // Smaller batches have run. If they did not help, the memory is somebody else's.
            let changed = memory <= before - 1.0 || memory > before + 3.0;
            if !changed && memory < DANGER {
                self.ceiling = from;
                return;
            }
        }
        let factor = (1.0 - 4.0 * (memory / target - 1.0)).clamp(0.5, 0.95);
        let from = self.ceiling;
        let to = ((record.size.min(self.limit()) as f64 * factor) as usize).max(self.options.min_size);
        self.ceiling = to;
        self.lowered = Some(Lowered { before: memory, from, to, records: 0 });
    }

    /// Whether a record says something about its size: a failure does not, until it is known whether a smaller size helps.
    fn tells(&mut self, record: &Record) -> bool {
        let Some(mut streak) = self.streak.take() else {
            if !record.success {
                let (arms, level, base) = (self.arms.clone(), self.level, self.base);
                self.streak = Some(Streak { sizes: vec![record.size], helped: false, arms, level, base });
            }
            return record.success;
        };
        let again = record.size >= streak.smallest();
        match (record.success, again) {
            // It was not the size.
            (true, true) => {
                (self.arms, self.level, self.base) = (streak.arms, streak.level, streak.base);
                (self.drift, self.residuals) = ((0.0, 0.0), VecDeque::new());
                self.look_around(if self.arms.is_empty() { SEARCH } else { SEARCH_AGAIN });
                return false;
            }
            (true, false) => {
                streak.helped = true;
                self.streak = Some(streak);
            }
            (false, true) if streak.helped => {
                for size in streak.sizes {
                    self.learn(&Record { size, ..*record });
                }
            }
            (false, _) => {
                streak.helped = false;
                if !streak.sizes.contains(&record.size) {
                    streak.sizes.push(record.size);
                }
                self.streak = Some(streak);
            }
        }
        record.success
    }

    fn learn(&mut self, record: &Record) {
        // Half-filled batches, such as the last one of a call, are batches of the size that they had.
        let filled = record.items >= 0.9 * record.size as f64 || !record.success;
        let size = if filled { record.size } else { record.items.round() as usize };
        if record.success && record.items < 1.0 || !(self.options.min_size..=self.options.max_size).contains(&size) {
            return;
        }
        let unit = if record.tokens.is_some_and(|tokens| tokens > 0.0) { Unit::Tokens } else { Unit::Items };
        if unit != self.unit && record.success {
            self.arms.clear();
            self.unit = unit;
        }
        for arm in &mut self.arms {
            arm.weight *= 1.0 - 1.0 / MEMORY;
        }
        if matches!(self.phase, Phase::Hold(_)) {
            let base = self.base;
            self.arms.retain(|arm| arm.weight >= FORGOTTEN || arm.size == base);
        }
        let best = self.best();
        let mut measured = if record.success {
            let amount = if unit == Unit::Tokens { record.tokens.unwrap_or_default() } else { record.items };
            (amount / record.time_ms.max(0.1) * 1e3).ln()
        } else {
            if self.arms.is_empty() {
                self.level = 0.0;
            }
            self.level + best.unwrap_or_default() - FAILURE
        };
        if let (Some(cpu), false) = (record.cpu, record.sampled) {
            measured -= CPU_PENALTY * (cpu / self.options.target_cpu - 1.0).max(0.0);
        }
        if self.arms.is_empty() {
            self.level = measured;
        }
        let mut value = measured - self.level;
        let noise = self.noise();
        let holding = matches!(self.phase, Phase::Hold(_)) && size == self.base;
        let Some(arm) = self.arms.iter_mut().find(|arm| arm.size == size) else {
            self.arms.push(Arm { size, mean: value, weight: 1.0 });
            return;
        };
        let residual = value - arm.mean;
        if arm.weight >= 0.5 && record.success {
            let scale = (arm.weight / (arm.weight + 1.0)).sqrt();
            self.surprises.push_back((residual * scale).abs());
            if self.surprises.len() > 24 {
                self.surprises.pop_front();
            }
        }
        if arm.weight >= 3.0 && record.success {
            // One outlier, say a pause of the garbage collector, must not move a mean.
            value = arm.mean + residual.clamp(-4.0 * noise, 4.0 * noise);
        }
        if holding && arm.weight >= WELL_KNOWN {
            self.level += FOLLOW * (value - arm.mean);
            arm.weight += 1.0 / MEMORY * arm.weight;
        } else {
            arm.mean = (arm.mean * arm.weight + value) / (arm.weight + 1.0);
            arm.weight = (arm.weight + 1.0).min(2.0 * WELL_KNOWN);
        }
        if matches!(self.phase, Phase::Hold(_)) {
            self.held_ms += record.time_ms;
            if let Some(base) = self.arm(self.base).filter(|_| size != self.base) {
                let usual = record.items / self.to_items(base.mean + self.level).max(1e-9) * 1e3;
                self.lost_ms += (record.time_ms - usual).max(0.0);
            }
        }
        if holding {
            self.watch_change(residual, noise);
        }
    }

    /// Notices when the size in use is suddenly slower or faster than it was.
    fn watch_change(&mut self, residual: f64, noise: f64) {
        self.residuals.push_back(residual);
        if self.residuals.len() > 3 {
            self.residuals.pop_front();
        }
        let score = (residual / noise.max(0.01)).clamp(-4.0, 4.0);
        self.drift.0 = (self.drift.0 + score - TOLERANCE).max(0.0);
        self.drift.1 = (self.drift.1 - score - TOLERANCE).max(0.0);
        if self.drift.0.max(self.drift.1) < ALARM * self.calm {
            self.calm = (self.calm * 0.99).max(1.0);
            return;
        }
        self.calm = (self.calm * 1.3).min(3.0);
        let shift = median(self.residuals.make_contiguous());
        self.level += shift;
        let base = self.base;
        for arm in &mut self.arms {
            arm.weight = if arm.size == base { 2.0 } else { arm.weight.min((noise / HINT).powi(2)) };
        }
        self.drift = (0.0, 0.0);
        self.residuals.clear();
        // What was saved up on the machine as it was must not be spent on this one.
        (self.held_ms, self.lost_ms) = (0.0, 0.0);
        self.look_around(SEARCH_AGAIN);
    }

    /// What comes next, after a batch of another size than the one in use, or of that one.
    fn decide(&mut self, tried: bool) {
        if self.samples < self.options.min_samples {
            return;
        }
        if self.phase == Phase::Gather {
            self.look_around(SEARCH);
        }
        if let Some(streak) = &self.streak {
            self.current = streak.next().max(self.options.min_size).min(self.limit());
            return;
        }
        if self.arms.is_empty() {
            // Nothing is known any more, or yet: first of all how fast the size in use is.
            self.current = self.base.min(self.limit());
            return;
        }
        let worth = WORTH * NORMAL / self.options.aggressiveness.max(1e-9);
        match self.phase {
            Phase::Gather => {}
            Phase::Search(left) => {
                self.base = self.leader(0.0);
                let next = self.promise(&self.posterior()).filter(|(_, promise)| *promise > worth);
                match next.map(|(size, _)| size).or_else(|| self.edge()).filter(|_| left > 0) {
                    Some(size) => {
                        self.current = size;
                        self.phase = Phase::Search(left - 1);
                    }
                    None => self.hold(),
                }
            }
            Phase::Hold(calm) => {
                let spacing = (4.0 / self.options.aggressiveness.max(1e-9)).max(2.0) as usize;
                let mut calm = calm + 1;
                // Beliefs cost more than all else here, and a record of the size in use changes next to nothing.
                if tried || calm.is_multiple_of(CHECK) || self.base > self.limit() {
                    self.base = self.leader(1.0);
                    if tried && self.leader(0.0) != self.base {
                        // What looks better is looked at again soon.
                        calm = spacing.saturating_sub(2);
                    }
                }
                self.current = self.base;
                self.phase = Phase::Hold(calm);
                if calm >= spacing && (calm - spacing).is_multiple_of(CHECK) {
                    let posterior = self.posterior();
                    let promising = self.promise(&posterior).filter(|(_, promise)| *promise > worth / 2.0);
                    if let Some(size) = self.edge().or(promising.map(|(size, _)| size))
                        && self.can_afford(size, &posterior)
                    {
                        self.current = size;
                        self.phase = Phase::Hold(0);
                    }
                }
            }
        }
        self.current = self.current.min(self.limit());
    }

    /// So many batches may look for the best size, where that is wanted.
    fn look_around(&mut self, batches: usize) {
        self.phase = if self.options.searches { Phase::Search(batches) } else { Phase::Hold(0) };
    }

    fn hold(&mut self) {
        self.current = self.base.min(self.limit());
        self.phase = Phase::Hold(0);
        self.drift = (0.0, 0.0);
        self.residuals.clear();
    }

    /// The middle between the best size and the next larger one, where that one is so much slower that there is a step
    /// somewhere between: the best size is likely to lie right before it. The process alone would be slow to see that.
    fn edge(&self) -> Option<usize> {
        if self.options.aggressiveness == 0.0 {
            return None;
        }
        let known = |arm: &&Arm| arm.weight >= KNOWN;
        let base = self.arm(self.base).filter(known)?;
        let next = self.arms.iter().filter(known).filter(|arm| arm.size > base.size).min_by_key(|arm| arm.size)?;
        let middle = (base.size as f64 * next.size as f64).sqrt().round() as usize;
        let step = next.mean < base.mean - (CLIP / 2.0).max(3.0 * self.noise());
        let wide = next.size as f64 / base.size as f64 > NEAR && middle > base.size && middle < next.size;
        (step && wide && middle <= self.limit()).then_some(middle)
    }

    /// Whether trying `size` once stays within the share of time that trying may cost.
    fn can_afford(&self, size: usize, posterior: &[Belief]) -> bool {
        let Some(base) = self.arm(self.base) else { return true };
        let belief = posterior.iter().find(|belief| belief.size == size);
        let belief = belief.map_or(base.mean, |belief| belief.mean - belief.deviation);
        // What was measured counts as it was, without the clipping. Of a size that never ran, there may be a step anywhere
        // below the next larger one.
        let known = self.arms.iter().filter(|arm| arm.size >= size).min_by_key(|arm| arm.size);
        let value = known.map_or(belief, |known| if known.size == size { known.mean } else { known.mean.min(belief) });
        let throughput = |value: f64| self.to_items(value + self.level).max(1e-9);
        let loss = size as f64 * (1.0 / throughput(value) - 1.0 / throughput(base.mean)) * 1e3;
        self.lost_ms + loss.max(0.0) <= SHARE * self.options.aggressiveness * self.held_ms
    }

    /// The best size that is known and allowed; the one in use unless another leads by the margin.
    fn leader(&self, hysteresis: f64) -> usize {
        let limit = self.limit();
        let beliefs = self.beliefs_of(&self.arms.iter().map(|arm| arm.size).collect::<Vec<_>>());
        let allowed = || beliefs.iter().filter(|belief| belief.size <= limit);
        let Some(best) = allowed().max_by(|a, b| a.mean.total_cmp(&b.mean)) else { return self.base.min(limit) };
        let Some(base) = allowed().find(|belief| belief.size == self.base) else { return best.size };
        let margin = hysteresis * (HYSTERESIS + best.deviation);
        if best.mean > base.mean + margin { best.size } else { base.size }
    }

    fn best(&self) -> Option<f64> {
        self.arms.iter().map(|arm| arm.mean).max_by(f64::total_cmp)
    }

    /// Standard deviation of a record: robust, and with a few records as much the prior as the data.
    fn noise(&self) -> f64 {
        let mut surprises: Vec<f64> = self.surprises.iter().copied().chain([NOISE / 1.48; 3]).collect();
        (1.4826 * median(&mut surprises)).clamp(NOISE_BOUNDS.0, NOISE_BOUNDS.1)
    }

    /// The size that promises most, and how much, relative to the best one known. None is more than twice the largest
    /// size that ran since the last change, so that a first step over a cliff is a small one.
    fn promise(&self, posterior: &[Belief]) -> Option<(usize, f64)> {
        let known = self.arms.iter().filter(|arm| arm.weight >= KNOWN || arm.size == self.base);
        let reach = 2 * known.map(|arm| arm.size).max().unwrap_or(self.current).max(1);
        let limit = self.limit().min(reach);
        let best = posterior
            .iter()
            .filter(|belief| self.arm(belief.size).is_some())
            .map(|belief| belief.mean)
            .max_by(f64::total_cmp)?;
        posterior
            .iter()
            .filter(|belief| belief.size <= limit)
            .map(|belief| (belief.size, belief.improvement(best)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// What is believed about each candidate and each size that ran.
    fn posterior(&self) -> Vec<Belief> {
        let mut sizes = self.candidates.clone();
        sizes.extend(self.arms.iter().map(|arm| arm.size));
        sizes.sort_unstable();
        sizes.dedup();
        self.beliefs_of(&sizes)
    }

    fn beliefs_of(&self, sizes: &[usize]) -> Vec<Belief> {
        beliefs(&self.arms, self.noise(), sizes)
    }
}

/// All sizes that are worth a look: every one where they are small, then eight for each doubling.
fn candidates(options: &OptimizerOptions) -> Vec<usize> {
    let (min, max) = (options.min_size as f64, options.max_size as f64);
    let steps = ((max / min).log2() * STEPS_PER_OCTAVE).ceil() as usize;
    let mut sizes: Vec<usize> = (0..=steps)
        .map(|step| (min * 2f64.powf(step as f64 / STEPS_PER_OCTAVE)).round() as usize)
        .map(|size| size.clamp(options.min_size, options.max_size))
        .chain([options.max_size])
        .collect();
    // Round numbers are what people, and hardware, expect.
    sizes.extend(
        (0..usize::BITS - 1).map(|bit| 1 << bit).filter(|size| (options.min_size..=options.max_size).contains(size)),
    );
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Standard deviation relative to the mean; 0 for fewer than two values.
fn variation(values: &[f64]) -> f64 {
    let Some(mean) = mean(values).filter(|mean| *mean > 0.0 && values.len() > 1) else { return 0.0 };
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64;
    variance.sqrt() / mean
}

/// Relative change of the mean of the latest five against the five before. 0 while there are no such.
fn trend(records: &[&Record], value: impl Fn(&Record) -> Option<f64>) -> f64 {
    let of = |from: usize| {
        mean(&records.iter().rev().skip(from).take(5).filter_map(|record| value(record)).collect::<Vec<_>>())
    };
    match (of(0), of(5)) {
        // Next to nothing before makes it infinite.
        (Some(recent), Some(before)) if before > 0.0 => ((recent - before) / before).min(f64::MAX),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Shape = fn(f64) -> f64;

    /// A machine that does not exist: how long a batch takes, with noise. Deterministic for a seed.
    struct Synthetic {
        shape: Shape,
        noise: f64,
        random: u64,
    }

    /// Milliseconds of a batch of n.
    fn small_best(n: f64) -> f64 {
        2.0 + 5.0 * n + 0.4 * n * n
    }
    fn large_best(n: f64) -> f64 {
        60.0 + 1.5 * n
    }
    fn cliff(n: f64) -> f64 {
        if n <= 50.0 { 20.0 + 2.0 * n } else { 20.0 + 16.0 * n }
    }
    /// A peak at 8 and a better one at 128, with a valley between.
    fn two_peaks(n: f64) -> f64 {
        let octaves = n.log2();
        let throughput = (-(octaves - 3.0).powi(2) / 2.0).exp() + 1.3 * (-(octaves - 7.0).powi(2) / 2.0).exp() + 0.05;
        10.0 * n / throughput
    }
    const SHAPES: [(&str, Shape); 4] =
        [("small", small_best), ("large", large_best), ("cliff", cliff), ("two peaks", two_peaks)];

    impl Synthetic {
        fn new(shape: Shape, noise: f64, seed: u64) -> Self {
            Self { shape, noise, random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 }
        }

        fn uniform(&mut self) -> f64 {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            (self.random >> 11) as f64 / (1u64 << 53) as f64
        }

        fn run(&mut self, size: usize) -> f64 {
            let gauss = (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0;
            (self.shape)(size as f64) * (self.noise * gauss).exp()
        }

        /// Throughput of `size` relative to the best one.
        fn efficiency(&self, size: usize) -> f64 {
            let throughput = |n: usize| n as f64 / (self.shape)(n as f64);
            let best = (1..=128).map(throughput).fold(0.0, f64::max);
            throughput(size) / best
        }
    }

    fn batch(size: usize, time_ms: f64) -> Record {
        Record {
            size,
            time_ms,
            items: size as f64,
            tokens: None,
            cpu: None,
            memory: None,
            sampled: false,
            success: true,
            at_ms: 0.0,
        }
    }

    fn drive(optimizer: &mut BatchOptimizer, machine: &mut Synthetic, batches: usize) -> f64 {
        let (mut items, mut ideal) = (0.0, 0.0);
        let best = (1..=128).map(|n| n as f64 / (machine.shape)(n as f64)).fold(0.0, f64::max);
        for _ in 0..batches {
            let size = optimizer.current();
            let time = machine.run(size);
            items += size as f64;
            ideal += (machine.shape)(size as f64) * best;
            optimizer.record(batch(size, time)).unwrap();
        }
        items / ideal
    }

    fn optimizer(initial: usize) -> BatchOptimizer {
        BatchOptimizer::new(initial, OptimizerOptions::default()).unwrap()
    }

    /// What twelve machines of a shape give: the worst and the median.
    fn over_seeds(mut run: impl FnMut(u64) -> f64) -> (f64, f64) {
        let mut values: Vec<f64> = (1..=12).map(&mut run).collect();
        let median = median(&mut values);
        (values[0], median)
    }

    #[test]
    fn settles_within_thirty_batches_and_holds() {
        for (name, shape) in SHAPES {
            let (worst, median) = over_seeds(|seed| {
                let (mut machine, mut optimizer) = (Synthetic::new(shape, 0.03, seed), optimizer(32));
                drive(&mut optimizer, &mut machine, 30);
                assert!(machine.efficiency(optimizer.base) > 0.85, "{name}");
                drive(&mut optimizer, &mut machine, 200)
            });
            assert!(median >= 0.97 && worst >= 0.93, "{name}: {worst} {median}");
        }
    }

    #[test]
    fn follows_a_change_of_load_within_twenty_batches() {
        for (_, before) in SHAPES {
            for (name, after) in SHAPES {
                let (_, median) = over_seeds(|seed| {
                    let (mut machine, mut optimizer) = (Synthetic::new(before, 0.03, seed), optimizer(32));
                    drive(&mut optimizer, &mut machine, 100);
                    machine.shape = after;
                    drive(&mut optimizer, &mut machine, 20);
                    machine.efficiency(optimizer.base)
                });
                assert!(median >= 0.96, "{name}: {median}");
            }
        }
    }

    #[test]
    fn does_not_oscillate_nor_chase_a_load_that_slows_all_sizes_alike() {
        for (name, shape) in SHAPES {
            let (mut machine, mut optimizer) = (Synthetic::new(shape, 0.05, 3), optimizer(32));
            drive(&mut optimizer, &mut machine, 50);
            let (mut switches, mut base) = (0, optimizer.base);
            for round in 0..400 {
                let size = optimizer.current();
                // The whole machine breathes: 30 % up and down in 200 batches.
                let load = 1.0 + 0.3 * (round as f64 / 200.0 * std::f64::consts::TAU).sin();
                optimizer.record(batch(size, machine.run(size) * load)).unwrap();
                if matches!(optimizer.phase, Phase::Hold(_)) {
                    switches += usize::from(optimizer.base != base);
                    base = optimizer.base;
                }
            }
            assert!(switches <= 6, "{name}: {switches}");
            assert!(machine.efficiency(base) > 0.93, "{name}: {base}");
        }
    }

    #[test]
    fn keeps_the_size_until_it_has_enough_samples() {
        let mut optimizer = optimizer(32);
        for seen in 0..10 {
            assert_eq!(optimizer.current(), 32);
            let recommendation = optimizer.recommendation();
            assert_eq!((recommendation.size, recommendation.confidence <= 0.1), (32, true));
            assert!(recommendation.reason.starts_with("Insufficient performance data"), "{}", recommendation.reason);
            assert_eq!(optimizer.samples(), seen);
            optimizer.record(batch(32, 100.0)).unwrap();
        }
        assert_ne!(optimizer.current(), 32);
        assert!(optimizer.recommendation().confidence >= 0.1);
        optimizer.reset();
        assert_eq!((optimizer.current(), optimizer.samples(), optimizer.history().len()), (32, 0, 0));
    }

    #[test]
    fn without_aggressiveness_it_only_learns_from_what_others_try() {
        let options = OptimizerOptions { aggressiveness: 0.0, ..OptimizerOptions::default() };
        let mut optimizer = BatchOptimizer::new(32, options).unwrap();
        for _ in 0..100 {
            optimizer.record(batch(32, large_best(32.0))).unwrap();
            assert_eq!(optimizer.current(), 32);
        }
        for _ in 0..5 {
            optimizer.record(batch(64, large_best(64.0))).unwrap();
        }
        assert_eq!(optimizer.current(), 64);
    }

    #[test]
    fn memory_above_its_target_shrinks_batches_and_lets_them_grow_slowly() {
        let mut optimizer = optimizer(32);
        let mut sizes = Vec::new();
        for _ in 0..80 {
            let size = optimizer.current();
            sizes.push(size);
            let memory = (50.0 + size as f64 / 2.0).min(100.0);
            optimizer.record(Record { memory: Some(memory), ..batch(size, large_best(size as f64)) }).unwrap();
        }
        // 75 % is reached at 50.
        let late = &sizes[40..];
        assert!(late.iter().all(|size| *size <= 58), "{sizes:?}");
        assert!(late.iter().filter(|size| **size >= 30).count() > 30, "{sizes:?}");
        let high = optimizer.ceiling;
        for _ in 0..200 {
            let size = optimizer.current();
            optimizer.record(Record { memory: Some(30.0), ..batch(size, large_best(size as f64)) }).unwrap();
        }
        assert!(high < 128 && optimizer.ceiling == 128 && optimizer.base > 100, "{high} {}", optimizer.base);
    }

    #[test]
    fn memory_of_somebody_else_does_not_shrink_batches_for_ever() {
        let mut optimizer = optimizer(32);
        for _ in 0..60 {
            let size = optimizer.current();
            optimizer
                .record(Record { memory: Some(85.0), sampled: true, ..batch(size, large_best(size as f64)) })
                .unwrap();
        }
        assert!(optimizer.base >= 100, "{}", optimizer.base);
        // In danger it does not matter whose it is.
        for _ in 0..60 {
            let size = optimizer.current();
            optimizer
                .record(Record { memory: Some(98.0), sampled: true, ..batch(size, large_best(size as f64)) })
                .unwrap();
        }
        assert_eq!(optimizer.current(), 1);
        assert!(optimizer.recommendation().reason.contains("memory usage"));
    }

    #[test]
    fn cpu_above_its_target_is_avoided_where_another_size_needs_less() {
        let mut optimizer = optimizer(32);
        for _ in 0..60 {
            let size = optimizer.current();
            let cpu = if size > 40 { 100.0 } else { 60.0 };
            optimizer.record(Record { cpu: Some(cpu), ..batch(size, large_best(size as f64)) }).unwrap();
        }
        assert!((25..=40).contains(&optimizer.base), "{}", optimizer.base);
        let mut everywhere = self::optimizer(32);
        for _ in 0..60 {
            let size = everywhere.current();
            everywhere.record(Record { cpu: Some(100.0), ..batch(size, large_best(size as f64)) }).unwrap();
        }
        assert!(everywhere.base > 100, "{}", everywhere.base);
    }

    #[test]
    fn a_size_that_fails_is_left() {
        let mut optimizer = optimizer(32);
        let mut late = 0;
        for round in 0..100 {
            let size = optimizer.current();
            let fits = size <= 20;
            let time = if fits { large_best(size as f64) } else { 10.0 };
            let items = if fits { size as f64 } else { 0.0 };
            optimizer.record(Record { success: fits, items, ..batch(size, time) }).unwrap();
            late += usize::from(round >= 40 && !fits);
        }
        assert!((14..=20).contains(&optimizer.base), "{}", optimizer.base);
        assert!(late <= 6, "{late}");
        assert!(optimizer.analytics().success_rate < 1.0);
    }

    /// What share of the best size's throughput the next 50 batches have.
    fn share(optimizer: &mut BatchOptimizer, machine: &mut Synthetic) -> f64 {
        let best = (1..=128).map(|n| n as f64 / (machine.shape)(n as f64)).fold(0.0, f64::max);
        let (mut items, mut time) = (0.0, 0.0);
        for _ in 0..50 {
            let size = optimizer.current();
            let took = machine.run(size);
            optimizer.record(batch(size, took)).unwrap();
            items += size as f64;
            time += took;
        }
        items / time / best
    }

    fn fail(optimizer: &mut BatchOptimizer, batches: usize) {
        for _ in 0..batches {
            let size = optimizer.current();
            optimizer.record(Record { success: false, items: 0.0, ..batch(size, 5.0) }).unwrap();
        }
    }

    #[test]
    fn any_stretch_of_failures_is_forgotten_within_a_hundred_batches() {
        fn nearly_linear(n: f64) -> f64 {
            5.0 + 0.1 * n
        }
        for (name, shape) in SHAPES.into_iter().chain([("nearly linear", nearly_linear as Shape)]) {
            for good in [0, 30, 100] {
                for failed in [1, 3, 10, 13, 15, 50, 200] {
                    let worst = (1..=60)
                        .map(|seed| {
                            let (mut machine, mut optimizer) = (Synthetic::new(shape, 0.03, seed), optimizer(32));
                            drive(&mut optimizer, &mut machine, good);
                            fail(&mut optimizer, failed);
                            drive(&mut optimizer, &mut machine, 100);
                            share(&mut optimizer, &mut machine)
                        })
                        .fold(1.0, f64::min);
                    assert!(worst >= 0.85, "{name}, {good} good batches, {failed} failed ones: {worst}");
                }
            }
        }
    }

    #[test]
    fn without_searches_failures_leave_the_size_that_was_in_use() {
        for good in [0, 30, 100] {
            for failed in 1..30 {
                let options = OptimizerOptions { searches: false, ..OptimizerOptions::default() };
                let mut optimizer = BatchOptimizer::new(32, options).unwrap();
                let mut machine = Synthetic::new(cliff, 0.03, failed as u64);
                drive(&mut optimizer, &mut machine, good);
                let base = optimizer.base;
                fail(&mut optimizer, failed);
                drive(&mut optimizer, &mut machine, 3);
                assert_eq!(optimizer.base, base, "{good} good batches, {failed} failed ones");
            }
        }
    }

    #[test]
    fn throughput_is_in_tokens_where_they_are_known() {
        // Texts of very different length: in items per second it is all noise.
        let mut optimizer = optimizer(32);
        for round in 0..60 {
            let size = optimizer.current();
            let tokens = size as f64 * if round % 2 == 0 { 10.0 } else { 200.0 };
            let time = 60.0 + 0.02 * tokens + if size > 24 { tokens * 0.5 } else { 0.0 };
            optimizer.record(Record { tokens: Some(tokens), ..batch(size, time) }).unwrap();
        }
        assert!((16..=24).contains(&optimizer.base), "{}", optimizer.base);
        assert!(optimizer.recommendation().throughput > 0.0);
    }

    #[test]
    fn bounds_in_the_wrong_order_are_swapped_and_others_refused() {
        let options = OptimizerOptions { min_size: 10, max_size: 5, ..OptimizerOptions::default() };
        let optimizer = BatchOptimizer::new(32, options).unwrap();
        assert_eq!((optimizer.options().min_size, optimizer.options().max_size, optimizer.current()), (5, 10, 10));
        for options in [
            OptimizerOptions { min_size: 0, ..OptimizerOptions::default() },
            OptimizerOptions { target_cpu: 101.0, ..OptimizerOptions::default() },
            OptimizerOptions { target_memory: f64::NAN, ..OptimizerOptions::default() },
            OptimizerOptions { aggressiveness: -0.1, ..OptimizerOptions::default() },
        ] {
            assert_eq!(BatchOptimizer::new(32, options).unwrap_err().code(), "INVALID_CONFIG");
        }
    }

    #[test]
    fn scores_are_what_they_say() {
        let mut optimizer = optimizer(10);
        for _ in 0..10 {
            let resources = Record { cpu: Some(85.0), memory: Some(50.0), ..batch(10, 100.0) };
            optimizer.record(resources).unwrap();
        }
        let analytics = optimizer.analytics();
        assert!((analytics.average_throughput - 100.0).abs() < 1e-9);
        assert_eq!((analytics.average_size, analytics.average_time_ms, analytics.success_rate), (10.0, 100.0, 1.0));
        assert!((analytics.performance_score - 1.0).abs() < 1e-9);
        assert!((analytics.stability_score - 1.0).abs() < 1e-9);
        assert!((analytics.resource_score - 0.75).abs() < 1e-9);
        assert!((analytics.score - 0.925).abs() < 1e-9);
        assert!((analytics.utilization - 0.675).abs() < 1e-9);
        assert_eq!(analytics.trends, [0.0; 3]);
        assert_eq!(self::optimizer(3).analytics(), Analytics::default());
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let number = || {
            prop_oneof![
                8 => 0.0f64..1e4,
                1 => prop::sample::select(vec![0.0, -1.0, f64::NAN, f64::INFINITY, -0.0, 1e300, 1e-300]),
            ]
        };
        let optional = move || prop::option::weighted(0.3, number());
        (0usize..300, number(), number(), optional(), optional(), optional(), any::<bool>(), prop::bool::weighted(0.9))
            .prop_map(|(size, time_ms, items, tokens, cpu, memory, sampled, success)| Record {
                size,
                time_ms,
                items,
                tokens,
                cpu,
                memory,
                sampled,
                success,
                at_ms: 0.0,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn stays_within_bounds_and_finite_whatever_is_recorded(
            records in prop::collection::vec((any_record(), any::<bool>()), 0..120),
            bounds in (1usize..200, 1usize..200),
            initial in 0usize..300,
            min_samples in 0usize..12,
            history in 0usize..30,
            aggressiveness in 0.0f64..=1.0,
        ) {
            let options = OptimizerOptions {
                min_size: bounds.0,
                max_size: bounds.1,
                min_samples,
                history,
                aggressiveness,
                ..OptimizerOptions::default()
            };
            let mut optimizer = BatchOptimizer::new(initial, options).unwrap();
            let (min, max) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
            for (record, obedient) in records {
                let record = if obedient { Record { size: optimizer.current(), ..record } } else { record };
                let before = format!("{optimizer:?}");
                if let Err(error) = optimizer.record(record) {
                    prop_assert_eq!(error.code(), "INVALID_ARGUMENT");
                    prop_assert_eq!(before, format!("{optimizer:?}"));
                }
                let recommendation = optimizer.recommendation();
                for size in [optimizer.current(), recommendation.size] {
                    prop_assert!((min..=max).contains(&size), "{}", size);
                }
                prop_assert!((0.0..=1.0).contains(&recommendation.confidence));
                prop_assert!((0.0..=f64::MAX).contains(&recommendation.expected_improvement));
                prop_assert!(recommendation.throughput.is_finite());
                let analytics = optimizer.analytics();
                for score in [
                    analytics.score,
                    analytics.performance_score,
                    analytics.resource_score,
                    analytics.stability_score,
                    analytics.success_rate,
                    analytics.utilization,
                ] {
                    prop_assert!((0.0..=1.0).contains(&score), "{:?}", analytics);
                }
                prop_assert!(analytics.trends.iter().all(|trend| trend.is_finite()));
                prop_assert!(optimizer.history().len() <= history);
                if optimizer.samples().is_multiple_of(7) {
                    prop_assert!((min..=max).contains(&optimizer.optimize()));
                }
            }
        }
    }
}
