//! Which batch size is fastest here. JS class: `DynamicBatchOptimizer`. Pure: records in, a size out; no clock, no I/O.
//!
//! Nobody knows the curve of throughput over batch size: it has one peak or several, is flat or falls off a cliff where
//! memory or a cache ends, is noisy, and moves with the load. So it is learned as a function of log₂(size) by Bayesian
//! optimisation:
//!
//! - **Model** (`gaussian_process`, `throughput`, `noise`). The logarithm of throughput is a Gaussian process over
//!   log₂(size), with a kernel that is the sum of a smooth and a rough part: sizes near each other are about equally fast,
//!   except where there is a step (Rasmussen & Williams, *Gaussian Processes for Machine Learning*, 2006, ch. 2 and 4).
//!   Whatever is far below the best counts as equally bad, else the far side of a cliff would spoil the estimate of the near
//!   one.
//! - **Search** (`acquisition`, `candidates`). The next size is the one of largest *expected improvement* over the best,
//!   at most twice the largest one known. It ends when no size promises more than a small fraction of the throughput. Unlike
//!   hill climbing it cannot be caught by a local peak: a size that nobody has tried stays uncertain, and what is uncertain
//!   gets tried.
//! - **Hold**. Then the best size, the *incumbent*, is kept. Another one takes over only when it leads by a margin
//!   (hysteresis). What is known of other sizes fades with age (Bogunovic et al., *Time-Varying Gaussian Process Bandit
//!   Optimization*, 2016), so that now and then one of them is tried again, in one batch, as long as the regret, the time
//!   that this costs, stays below a fixed share of all time. `aggressiveness` scales that share, how often, and how small a
//!   promise is worth a try.
//! - **Change** (`change_point`). All sizes are compared relative to a level that follows the incumbent, so a slow drift of
//!   the load, which slows all sizes alike, changes nothing. A sudden change is noticed by a CUSUM test; then what is known
//!   is kept as a mere hint and the search starts again.
//! - **Failures** (`failures`). A size that is too large fails, but so does everything when the machine, or a service, has
//!   trouble. An experiment tells which, and its verdict is tried again: throughput is learned from successes alone.
//! - **Limits** (`resources`). Memory above its target lowers a ceiling. CPU above its target, where measured with the
//!   batch, counts as slowness: if all sizes take as much, none is preferred for it.

mod acquisition;
mod analytics;
mod candidates;
mod change_point;
mod failures;
mod gaussian_process;
mod noise;
mod options;
mod resources;
mod state;
mod throughput;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use self::acquisition::{Margin, WORTH};
use self::candidates::candidates;
use self::change_point::ChangeDetector;
use self::failures::{Failures, Verdict};
use self::gaussian_process::Arm;
use self::noise::Noise;
use self::resources::Resources;
use self::throughput::Unit;
use crate::error::Result;

pub use self::analytics::{Analytics, Recommendation};
pub use self::options::{OptimizerOptions, Record};

/// Batches between two looks at all sizes while the incumbent is held.
const CHECK: usize = 8;

/// Batches in the hold between two tries, at an aggressiveness of 1, and at least.
const SPACING: f64 = 4.0;
const LEAST_SPACING: f64 = 2.0;

/// Most batches of a search: from the start, after a change, and where memory allows more than before.
const SEARCH: usize = 20;
const SEARCH_AGAIN: usize = 16;
const SEARCH_ABOVE: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Phase {
    /// Too little is known to do anything.
    Gather,
    /// So many batches may still look for the best size.
    Search(usize),
    /// The incumbent is in use, for so many batches without a try of another size.
    Hold(usize),
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

    /// The sizes that ran, in which unit, and what their throughputs are relative to.
    arms: Vec<Arm>,
    unit: Unit,
    level: f64,
    noise: Noise,

    phase: Phase,
    /// The best size that is known.
    incumbent: usize,
    /// The one that the next batch should have.
    current: usize,
    /// Milliseconds held, and of these lost by trying other sizes.
    held_ms: f64,
    regret_ms: f64,

    changes: ChangeDetector,
    failures: Failures,
    resources: Resources,
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
            noise: Noise::new(),
            phase: Phase::Gather,
            incumbent: initial,
            current: initial,
            held_ms: 0.0,
            regret_ms: 0.0,
            changes: ChangeDetector::new(),
            failures: Failures::default(),
            resources: Resources::new(&options),
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
        self.incumbent.min(self.limit())
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

    /// The natural logarithm of the throughput of batches of `size`, in tokens a second, and its standard deviation. `None`
    /// where nothing is known, or not in tokens.
    pub fn speed(&self, size: usize) -> Option<(f64, f64)> {
        let posterior = self.posterior_of(&[size]).into_iter().next().filter(|_| self.unit == Unit::Tokens)?;
        Some((posterior.mean + self.level, posterior.deviation.hypot(self.noise.deviation())))
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
        self.resources.observe(&record);
        if self.has_enough() && self.resources.adjust(&record, &self.options) {
            self.search(SEARCH_ABOVE);
        }
        let tried = record.size != self.incumbent;
        // A batch that failed, or that only an experiment had asked for, tells a search nothing.
        let told = record.success && self.failures.experiment.is_none();
        match self.failures.observe(record.size, record.success, self.incumbent) {
            Verdict::Open => {}
            Verdict::TooLarge => self.search(SEARCH_AGAIN),
            Verdict::Refuted(before) => {
                self.incumbent = before;
                self.search(SEARCH);
            }
        }
        if record.success {
            self.learn(&record);
        }
        self.decide(tried, told);
        Ok(())
    }

    /// Decides anew, and takes the best size that is known even where it leads by less than the usual margin.
    pub fn optimize(&mut self) -> usize {
        if self.phase != Phase::Gather && self.failures.experiment.is_none() {
            self.incumbent = self.leader(Margin::None);
            if !matches!(self.phase, Phase::Search(_)) || self.current > self.limit() {
                self.current = self.incumbent;
            }
        }
        self.current
    }

    fn has_enough(&self) -> bool {
        self.samples >= self.options.min_samples
    }

    /// The largest size that may be used now.
    fn limit(&self) -> usize {
        self.resources.limit(&self.options).min(self.failures.limit()).max(self.options.min_size)
    }

    /// What comes next, after a batch of another size than the incumbent (`tried`), which may have told something.
    fn decide(&mut self, tried: bool, told: bool) {
        if !self.has_enough() {
            return;
        }
        if self.phase == Phase::Gather {
            self.search(SEARCH);
        }
        if let Some(size) = self.experiment() {
            self.current = size;
            return;
        }
        if self.arms.is_empty() {
            // Nothing is known any more, or yet: first of all how fast the size in use is.
            self.current = self.settled();
            return;
        }
        match self.phase {
            Phase::Gather => {}
            Phase::Search(left) => {
                self.incumbent = self.leader(Margin::None);
                let next = self.most_promising(&self.posterior()).filter(|(_, promise)| *promise > self.worth());
                match next.map(|(size, _)| size).or_else(|| self.bisection()).filter(|_| left > 0) {
                    Some(size) => {
                        self.current = size;
                        self.phase = Phase::Search(left - usize::from(told));
                    }
                    None => self.hold(),
                }
            }
            Phase::Hold(since) => self.go_on(since + 1, tried),
        }
        self.current = self.current.min(self.limit());
        if let Some(size) = self.retry() {
            self.current = size;
        }
    }

    /// Holds the incumbent, `since` the last try of another size so many batches ago, or tries one now.
    fn go_on(&mut self, mut since: usize, tried: bool) {
        let spacing = (SPACING / self.options.aggressiveness.max(1e-9)).max(LEAST_SPACING) as usize;
        // The posterior costs more than all else here, and a record of the incumbent changes next to nothing.
        if tried || since.is_multiple_of(CHECK) || self.incumbent > self.limit() {
            self.incumbent = self.leader(Margin::Hysteresis);
            if tried && self.leader(Margin::None) != self.incumbent {
                // What looks better is looked at again soon.
                since = spacing.saturating_sub(2);
            }
        }
        self.current = self.incumbent;
        self.phase = Phase::Hold(since);
        if since >= spacing && (since - spacing).is_multiple_of(CHECK) {
            let posterior = self.posterior();
            let promising = self.most_promising(&posterior).filter(|(_, promise)| *promise > self.worth() / 2.0);
            if let Some(size) = self.bisection().or(promising.map(|(size, _)| size))
                && self.can_afford(size, &posterior)
            {
                self.current = size;
                self.phase = Phase::Hold(0);
            }
        }
    }

    /// The size that tells more about a failure, within what memory allows.
    fn experiment(&mut self) -> Option<usize> {
        let allowed = self.resources.limit(&self.options);
        if self.failures.experiment.is_some_and(|experiment| experiment.failed > allowed) {
            // Whatever it would tell, memory does not allow that size any more.
            self.failures.experiment = None;
        }
        let in_use = self.settled();
        let next = self.failures.next(self.arm(in_use).map(|_| in_use))?;
        Some(next.max(self.options.min_size).min(allowed))
    }

    /// The size that failed, where it is time to try it again, memory allows it, and it is worth it.
    fn retry(&self) -> Option<usize> {
        let too_large = self.failures.retry(CHECK)?;
        let worth = too_large <= self.resources.limit(&self.options) && self.promises_from(too_large) > WORTH;
        worth.then_some(too_large)
    }

    /// So many batches may look for the best size, where that is wanted.
    fn search(&mut self, batches: usize) {
        self.changes.restart();
        if self.has_enough() {
            self.phase = if self.options.searches { Phase::Search(batches) } else { Phase::Hold(0) };
        }
    }

    fn hold(&mut self) {
        self.current = self.settled();
        self.phase = Phase::Hold(0);
        self.changes.restart();
    }
}
