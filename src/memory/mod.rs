//! How much to process at once, by how full memory is. JS class: `MemoryAwareProcessor`. Pure: usage in, strategy out.
//!
//! Usage falls into four levels, and each has its strategy. A fuller level is entered at once, an emptier one only when
//! usage is clearly below the threshold (hysteresis), so that a usage that hovers about it does not switch to and fro.

pub mod governor;

use std::time::Duration;

use crate::error::{Error, Result};

/// How far (in percentage points) usage must fall below a threshold before it counts as below.
const HYSTERESIS: f64 = 5.0;

/// How a strategy goes through the items. None ever has more than its `max_batch_size` items in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approach {
    /// One batch after the other.
    Sequential,
    /// As many batches at a time as there are cores.
    Parallel,
    /// One batch after the other, memory looked at before each.
    Streaming,
    /// One batch after the other, with a turn of the event loop between.
    Chunked,
}

impl Approach {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sequential, Self::Parallel, Self::Streaming, Self::Chunked];

    /// The name that users write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Parallel => "parallel",
            Self::Streaming => "streaming",
            Self::Chunked => "chunked",
        }
    }
}

/// One way to process items.
#[derive(Debug, Clone, PartialEq)]
pub struct Strategy {
    /// What events and users call it.
    pub name: String,
    /// Most items of one call, at least 1.
    pub max_batch_size: usize,
    /// How batches follow each other.
    pub approach: Approach,
    /// How much memory it takes, relative to the balanced strategy. For the user's information.
    pub memory_overhead: f64,
    /// How much CPU it takes, relative to the balanced strategy. For the user's information.
    pub cpu_overhead: f64,
    /// Batches between two clean-ups while memory is short, at least 1.
    pub cleanup_frequency: usize,
}

/// Usages (%) at which levels begin, in falling order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// From here on, one item at a time.
    pub critical: f64,
    /// From here on, small batches, and a warning.
    pub high: f64,
    /// From here on, middling batches; below, large ones.
    pub normal: f64,
    /// Below it there is room for more.
    pub low: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { critical: 85.0, high: 70.0, normal: 55.0, low: 35.0 }
    }
}

/// How a [`MemoryProcessor`] behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryOptions {
    /// The strategies, at least one.
    pub strategies: Vec<Strategy>,
    /// Where levels begin.
    pub thresholds: Thresholds,
    /// How often memory is looked at.
    pub monitoring_interval: Duration,
    /// Usage (%) from which memory is cleaned up every so many batches; see [`Strategy::cleanup_frequency`].
    pub cleanup_threshold: f64,
    /// Usage (%) from which a clean-up collects garbage, too, if hints are enabled and Node.js runs with `--expose-gc`.
    pub gc_threshold: f64,
    /// Whether garbage may be collected.
    pub enable_gc_hints: bool,
    /// Usage (%) from which memory is cleaned up after every batch.
    pub emergency_cleanup_threshold: f64,
    /// Share of what is available that is left alone, 0–1.
    pub memory_buffer: f64,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        let strategy =
            |name: &str, max_batch_size, approach, memory_overhead, cpu_overhead, cleanup_frequency| Strategy {
                name: name.to_owned(),
                max_batch_size,
                approach,
                memory_overhead,
                cpu_overhead,
                cleanup_frequency,
            };
        Self {
            strategies: vec![
                strategy("streaming", 1, Approach::Streaming, 0.1, 0.2, 1),
                strategy("conservative", 8, Approach::Sequential, 0.3, 0.5, 3),
                strategy("balanced", 32, Approach::Parallel, 1.0, 1.0, 5),
                strategy("aggressive", 128, Approach::Parallel, 2.0, 1.5, 10),
            ],
            thresholds: Thresholds::default(),
            monitoring_interval: Duration::from_secs(1),
            cleanup_threshold: 80.0,
            gc_threshold: 70.0,
            enable_gc_hints: true,
            emergency_cleanup_threshold: 95.0,
            memory_buffer: 0.1,
        }
    }
}

/// How full memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// At or above the critical threshold.
    Critical,
    /// At or above the high one.
    High,
    /// At or above the normal one.
    Normal,
    /// Below it.
    Low,
}

impl Level {
    /// The strategies that are meant for it, by name.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Critical => &["streaming", "emergency"],
            Self::High => &["conservative"],
            Self::Normal => &["balanced"],
            Self::Low => &["aggressive"],
        }
    }
}

/// What to clean up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cleanup {
    /// Give free memory back to the system.
    pub trim: bool,
    /// Collect garbage.
    pub collect: bool,
}

/// Chooses strategies as memory fills and empties.
#[derive(Debug, Clone)]
pub struct MemoryProcessor {
    options: MemoryOptions,
    level: Level,
}

impl MemoryProcessor {
    /// Begins with the strategy for `usage` (%).
    ///
    /// # Errors
    /// `INVALID_CONFIG` without a strategy, for thresholds out of order or outside 0–100, and for other options out of
    /// their range.
    pub fn new(options: MemoryOptions, usage: f64) -> Result<Self> {
        if options.strategies.is_empty() {
            return Err(Error::config("strategies", "At least one processing strategy must be configured"));
        }
        for (at, strategy) in options.strategies.iter().enumerate() {
            if strategy.max_batch_size == 0 || strategy.cleanup_frequency == 0 {
                return Err(Error::config(format!("strategies[{at}]"), "sizes and frequencies begin with 1"));
            }
        }
        let Thresholds { critical, high, normal, low } = options.thresholds;
        let in_order = critical >= high && high >= normal && normal >= low;
        if !(in_order && low >= 0.0 && critical <= 100.0) {
            let reason = format!(
                "critical {critical}, high {high}, normal {normal}, low {low}: give percentages from 0 to 100 in this order"
            );
            return Err(Error::config("memoryThresholds", reason));
        }
        let mut processor = Self { options, level: Level::Low };
        processor.level = processor.level_of(usage);
        Ok(processor)
    }

    /// The options.
    pub fn options(&self) -> &MemoryOptions {
        &self.options
    }

    /// The strategy in use, as an index.
    pub fn current(&self) -> usize {
        self.strategy_of(self.level)
    }

    /// The strategy for `usage` (%), whatever came before, as an index.
    pub fn select(&self, usage: f64) -> usize {
        self.strategy_of(self.level_of(usage))
    }

    /// Goes on to the strategy for `usage` (%), with hysteresis. Its index.
    pub fn advance(&mut self, usage: f64) -> usize {
        let strict = self.level_of(usage);
        self.level = strict.min(self.level_of(usage + HYSTERESIS).max(self.level));
        self.current()
    }

    /// The level of `usage` (%). What is no number is critical: nobody knows.
    pub fn level_of(&self, usage: f64) -> Level {
        let thresholds = &self.options.thresholds;
        match usage {
            _ if usage < thresholds.normal => Level::Low,
            _ if usage < thresholds.high => Level::Normal,
            _ if usage < thresholds.critical => Level::High,
            _ => Level::Critical,
        }
    }

    /// What to clean up at `usage` (%), `batches` after the last clean-up.
    pub fn cleanup(&self, usage: f64, batches: usize) -> Cleanup {
        let options = &self.options;
        let due = batches >= self.options.strategies[self.current()].cleanup_frequency;
        let emergency = usage >= options.emergency_cleanup_threshold;
        let collects = options.enable_gc_hints && usage >= options.gc_threshold;
        Cleanup {
            trim: emergency || due && usage >= options.cleanup_threshold,
            collect: collects && (emergency || due),
        }
    }

    /// What a person could do at `usage` (%).
    pub fn recommendations(&self, usage: f64) -> Vec<String> {
        let size = self.options.strategies[self.select(usage)].max_batch_size;
        let say = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
        match self.level_of(usage) {
            Level::Critical => say(&[
                "CRITICAL: memory is nearly exhausted: free some, or give the container more",
                &format!("Batches are down to {size}"),
            ]),
            Level::High => say(&[
                "HIGH: memory is short: smaller caches or fewer calls at a time would help",
                &format!("Batches are down to {size}"),
            ]),
            Level::Low if usage < self.options.thresholds.low => {
                say(&["LOW: there is room for larger batches, larger caches or more calls at a time"])
            }
            Level::Normal | Level::Low => Vec::new(),
        }
    }

    /// By name where a strategy has the level's; else by size: the smallest for the fullest level.
    fn strategy_of(&self, level: Level) -> usize {
        let strategies = &self.options.strategies;
        let named = |name: &&str| strategies.iter().position(|strategy| strategy.name == **name);
        level.names().iter().find_map(named).unwrap_or_else(|| {
            let mut order: Vec<usize> = (0..strategies.len()).collect();
            order.sort_by_key(|&at| strategies[at].max_batch_size);
            let rank = level as usize * (strategies.len() - 1) / Level::Low as usize;
            order.get(rank).copied().unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn processor() -> MemoryProcessor {
        MemoryProcessor::new(MemoryOptions::default(), 20.0).unwrap()
    }

    fn name(processor: &MemoryProcessor, at: usize) -> &str {
        &processor.options().strategies[at].name
    }

    #[test]
    fn each_level_has_its_strategy() {
        let processor = processor();
        let expected = [
            (0.0, "aggressive"),
            (54.9, "aggressive"),
            (55.0, "balanced"),
            (70.0, "conservative"),
            (85.0, "streaming"),
            (100.0, "streaming"),
            (f64::NAN, "streaming"),
        ];
        for (usage, strategy) in expected {
            assert_eq!(name(&processor, processor.select(usage)), strategy, "{usage}");
        }
    }

    #[test]
    fn goes_up_at_once_and_down_only_when_clearly_below() {
        let mut processor = processor();
        let steps = [
            (54.0, "aggressive"),
            (56.0, "balanced"),
            (54.0, "balanced"),
            (56.0, "balanced"),
            (49.9, "aggressive"),
            (90.0, "streaming"),
            (81.0, "streaming"),
            (79.9, "conservative"),
            (20.0, "aggressive"),
        ];
        for (usage, strategy) in steps {
            let at = processor.advance(usage);
            assert_eq!((name(&processor, at), at), (strategy, processor.current()), "{usage}");
        }
    }

    #[test]
    fn strategies_of_other_names_are_ranked_by_size() {
        let strategy = |name: &str, size| super::Strategy {
            name: name.into(),
            max_batch_size: size,
            ..MemoryOptions::default().strategies.remove(0)
        };
        let make =
            |strategies| MemoryProcessor::new(MemoryOptions { strategies, ..MemoryOptions::default() }, 20.0).unwrap();
        let one = make(vec![strategy("only", 4)]);
        let two = make(vec![strategy("large", 64), strategy("small", 2)]);
        for usage in [10.0, 60.0, 75.0, 99.0] {
            assert_eq!(one.select(usage), 0);
        }
        assert_eq!(
            [10.0, 60.0, 75.0, 99.0].map(|usage| name(&two, two.select(usage))),
            ["large", "small", "small", "small"]
        );
    }

    #[test]
    fn cleans_up_only_where_memory_is_short() {
        let mut processor = processor();
        processor.advance(60.0);
        assert_eq!(processor.cleanup(60.0, 100), Cleanup::default());
        processor.advance(82.0);
        assert_eq!(processor.cleanup(82.0, 2), Cleanup::default());
        assert_eq!(processor.cleanup(82.0, 3), Cleanup { trim: true, collect: true });
        assert_eq!(processor.cleanup(72.0, 3), Cleanup { trim: false, collect: true });
        assert_eq!(processor.cleanup(96.0, 0), Cleanup { trim: true, collect: true });
        processor.options.enable_gc_hints = false;
        assert_eq!(processor.cleanup(96.0, 9), Cleanup { trim: true, collect: false });
    }

    #[test]
    fn recommends_by_level() {
        let processor = processor();
        let first = |usage| processor.recommendations(usage).first().cloned().unwrap_or_default();
        assert!(
            first(90.0).starts_with("CRITICAL") && first(75.0).starts_with("HIGH") && first(10.0).starts_with("LOW")
        );
        assert_eq!((first(60.0), first(40.0)), (String::new(), String::new()));
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let with = |change: fn(&mut MemoryOptions)| {
            let mut options = MemoryOptions::default();
            change(&mut options);
            MemoryProcessor::new(options, 0.0).unwrap_err()
        };
        let empty = with(|options| options.strategies.clear());
        assert!(empty.to_string().contains("At least one processing strategy must be configured"));
        for error in [
            empty,
            with(|options| options.strategies[0].max_batch_size = 0),
            with(|options| options.strategies[1].cleanup_frequency = 0),
            with(|options| options.thresholds.high = 90.0),
            with(|options| options.thresholds.critical = 101.0),
            with(|options| options.thresholds.low = -1.0),
            with(|options| options.thresholds.normal = f64::NAN),
        ] {
            assert_eq!(error.code(), "INVALID_CONFIG");
        }
    }

    proptest! {
        #[test]
        fn is_never_bolder_than_usage_allows_and_never_more_than_a_step_behind(
            usages in prop::collection::vec(0.0f64..=100.0, 1..60),
        ) {
            let mut processor = processor();
            for usage in usages {
                let before = processor.level;
                processor.advance(usage);
                prop_assert!(processor.level <= processor.level_of(usage));
                prop_assert!(processor.level >= before.min(processor.level_of(usage)));
                if (usage + HYSTERESIS) < processor.options.thresholds.normal {
                    prop_assert_eq!(processor.level, Level::Low);
                }
                let again = processor.current();
                prop_assert_eq!(processor.advance(usage), again);
            }
        }
    }
}
