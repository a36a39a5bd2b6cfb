//! How large batches are, learned while they run: one [`BatchOptimizer`] for each class of lengths.
//!
//! What is best for texts of 8 tokens says nothing about texts of 200, and a call goes through all lengths, the longest
//! first. So rows fall into classes by the power of two that their length does not exceed, and each class learns how
//! many rows of that full length are fastest. For shorter rows of the class that is a budget of tokens.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Budget;
use super::optimizer::{BatchOptimizer, OptimizerOptions, Record};
use crate::error::Result;

/// Classes of lengths: up to 2^0, 2^1, … tokens. The last one takes all that is longer.
const CLASSES: usize = 18;

/// Largest batch that is ever tried, in tokens: what more gains is lost in the caches.
const MOST_TOKENS: usize = 4096;

/// Largest batch that is ever tried, in rows.
const MOST_ROWS: usize = 1024;

/// Batches shorter than this are recorded only now and then: learning must not cost what it can gain.
const SHORT_MS: f64 = 2.0;
const SHORT_EVERY: usize = 8;

/// Chooses how many rows a batch has.
pub struct Pacer {
    budget: Budget,
    learners: Learners,
}

enum Learners {
    /// The budget stands.
    None,
    /// One for each class of lengths.
    Own(Vec<Mutex<BatchOptimizer>>),
    /// The user's, which counts rows whatever their length; the budget still holds.
    Shared(Arc<Mutex<BatchOptimizer>>),
}

/// How many rows a batch may have, and what is learned from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// At least 1.
    pub rows: usize,
    class: usize,
    size: usize,
}

/// What a class of lengths has learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// Most tokens of a text of this class.
    pub longest: usize,
    /// Rows of that length in a batch now.
    pub rows: usize,
    /// Batches that it has learned from.
    pub samples: usize,
}

impl Pacer {
    /// Always the same budget.
    pub fn fixed(budget: Budget) -> Self {
        Self { budget, learners: Learners::None }
    }

    /// Begins with `budget` and learns. `most` tells how many rows of a length may be tried, where they are more than the
    /// budget has: a runtime keeps the memory of the largest batch it ever ran.
    ///
    /// # Errors
    /// `INVALID_CONFIG` as of [`BatchOptimizer::new`].
    pub fn learning(budget: Budget, options: OptimizerOptions, most: impl Fn(usize) -> usize) -> Result<Self> {
        // The budget is good to begin with: a search would cost short calls more than it could gain.
        let options = OptimizerOptions { searches: false, ..options };
        let learner = |class| {
            let longest = 1usize << class;
            let (low, high) = (options.min_size.min(options.max_size), options.max_size.max(options.min_size));
            let most = most(longest).min(MOST_TOKENS / longest).max(budget.rows(longest));
            let max_size = high.min(most);
            let initial = Budget { max_rows: budget.max_rows.min(max_size), ..budget }.rows(longest);
            let min_size = low.min(max_size);
            BatchOptimizer::new(initial, OptimizerOptions { min_size, max_size, ..options }).map(Mutex::new)
        };
        Ok(Self { budget, learners: Learners::Own((0..CLASSES).map(learner).collect::<Result<_>>()?) })
    }

    /// Options for [`Pacer::learning`] where the user gives none.
    pub fn defaults() -> OptimizerOptions {
        // A try is one batch of a like size: it may come twice as often as where nothing is known about its cost.
        OptimizerOptions { max_size: MOST_ROWS, aggressiveness: 0.6, ..OptimizerOptions::default() }
    }

    /// Takes the number of rows from an optimizer that others may use, too.
    pub fn shared(budget: Budget, optimizer: Arc<Mutex<BatchOptimizer>>) -> Self {
        Self { budget, learners: Learners::Shared(optimizer) }
    }

    /// What the next batch may be, whose longest row has `longest` tokens.
    pub fn next(&self, longest: usize) -> Pace {
        let class = class_of(longest);
        let (rows, size) = match &self.learners {
            Learners::None => (self.budget.rows(longest), 0),
            Learners::Own(classes) => {
                let size = classes.get(class).map_or(1, |learner| lock(learner).current());
                // Shorter rows than the class' longest: as many more as have the same number of tokens.
                (((size << class) / longest.max(1)).clamp(size, 2 * size), size)
            }
            Learners::Shared(optimizer) => {
                let size = lock(optimizer).current();
                (size.min(Budget { max_rows: size, ..self.budget }.rows(longest)), size)
            }
        };
        Pace { rows: rows.max(1), class, size }
    }

    /// Learns from a batch that was as large as it might be: `rows` rows with so many tokens in all, padding not
    /// counted, took `ms`. `nth` tells apart batches of a call.
    pub fn record(&self, pace: Pace, rows: usize, tokens: usize, ms: f64, success: bool, nth: usize) {
        if rows != pace.rows || ms < SHORT_MS && success && !nth.is_multiple_of(SHORT_EVERY) {
            return;
        }
        let learner = match &self.learners {
            Learners::None => return,
            Learners::Own(classes) => classes.get(pace.class),
            Learners::Shared(optimizer) => Some(&**optimizer),
        };
        let Some(learner) = learner else { return };
        // Memory is the governor's, and all sizes keep the cores busy alike.
        let record = Record {
            size: pace.size,
            time_ms: ms,
            items: pace.size as f64,
            tokens: Some(tokens as f64),
            cpu: None,
            memory: None,
            sampled: true,
            success,
            at_ms: 0.0,
        };
        // Nothing here is a number that it could refuse.
        drop(lock(learner).record(record));
    }

    /// Decides anew what is best, see [`BatchOptimizer::optimize`].
    pub fn optimize(&self) {
        match &self.learners {
            Learners::None => {}
            Learners::Own(classes) => {
                for learner in classes {
                    lock(learner).optimize();
                }
            }
            Learners::Shared(optimizer) => {
                lock(optimizer).optimize();
            }
        }
    }

    /// What was learned, for the classes that ran.
    pub fn learned(&self) -> Vec<Learned> {
        let of = |longest, learner: &Mutex<BatchOptimizer>| {
            let learner = lock(learner);
            Learned { longest, rows: learner.current(), samples: learner.samples() }
        };
        let all: Vec<Learned> = match &self.learners {
            Learners::None => Vec::new(),
            Learners::Own(classes) => {
                classes.iter().enumerate().map(|(class, learner)| of(1usize << class, learner)).collect()
            }
            Learners::Shared(optimizer) => vec![of(self.budget.max_tokens, optimizer)],
        };
        all.into_iter().filter(|learned| learned.samples > 0).collect()
    }
}

fn class_of(longest: usize) -> usize {
    (longest.max(1).next_power_of_two().trailing_zeros() as usize).min(CLASSES - 1)
}

fn lock(learner: &Mutex<BatchOptimizer>) -> MutexGuard<'_, BatchOptimizer> {
    learner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_with_the_budget() {
        let budget = Budget::default();
        let pacer = Pacer::learning(budget, Pacer::defaults(), |_| usize::MAX).unwrap();
        for longest in [5, 8, 13, 60, 64, 100, 128, 200, 256, 400, 512, 700, 8192, 1 << 20] {
            assert_eq!(pacer.next(longest).rows.min(64), budget.rows(longest), "{longest}");
            assert_eq!(Pacer::fixed(budget).next(longest).rows, budget.rows(longest));
        }
        assert_eq!(pacer.next(0).rows.min(64), 64);
    }

    /// A machine on which a batch costs 1 ms, 20 µs per token, and beyond `edge` tokens four times as much.
    fn run(pacer: &Pacer, longest: usize, edge: usize, batches: usize) -> Vec<usize> {
        (0..batches)
            .map(|nth| {
                let pace = pacer.next(longest);
                let tokens = pace.rows * longest;
                let over = if tokens > edge { 4.0 } else { 1.0 };
                pacer.record(pace, pace.rows, tokens, (2.0 + 0.02 * tokens as f64) * over, true, nth);
                tokens
            })
            .collect()
    }

    #[test]
    fn each_class_finds_its_own_best() {
        let pacer = Pacer::learning(Budget::default(), Pacer::defaults(), |_| usize::MAX).unwrap();
        let (short, long) = (run(&pacer, 16, 4096, 1000), run(&pacer, 128, 300, 1000));
        assert!(short[900..].iter().filter(|&&tokens| tokens > 2048 && tokens <= 4096).count() >= 90, "{short:?}");
        assert!(long[900..].iter().filter(|&&tokens| tokens == 256).count() >= 90, "{long:?}");
        let learned: Vec<_> = pacer.learned().iter().map(|class| (class.longest, class.samples)).collect();
        assert_eq!(learned, [(16, 1000), (128, 1000)]);
        // What the tries have cost, in time: batches slower than the budget's own, against the same tokens at its speed.
        let ms = |tokens: usize| (2.0 + 0.02 * tokens as f64) * if tokens > 300 { 4.0 } else { 1.0 };
        let (spent, fixed): (f64, f64) = long
            .iter()
            .map(|&tokens| (ms(tokens), ms(512) * tokens as f64 / 512.0))
            .fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        assert!(spent < fixed, "{spent} ms, {fixed} without learning");
    }

    #[test]
    fn tries_nothing_that_takes_too_much_memory_but_always_the_budget() {
        let pacer = Pacer::learning(Budget::default(), Pacer::defaults(), |longest| 600 / longest).unwrap();
        for longest in [16, 256, 1024] {
            let most = run(&pacer, longest, usize::MAX, 300).into_iter().max().unwrap();
            assert!(most <= 600.max(longest), "{most} for {longest}");
        }
    }

    #[test]
    fn learns_nothing_from_batches_that_were_cut_short() {
        let pacer = Pacer::learning(Budget::default(), Pacer::defaults(), |_| usize::MAX).unwrap();
        let pace = pacer.next(64);
        pacer.record(pace, pace.rows - 1, 64 * (pace.rows - 1), 5.0, true, 0);
        assert_eq!(pacer.learned(), []);
        pacer.record(pace, pace.rows, 64 * pace.rows, 0.5, true, 1);
        assert_eq!(pacer.learned(), []);
        pacer.record(pace, pace.rows, 64 * pace.rows, 0.5, true, 8);
        assert_eq!(pacer.learned()[0].samples, 1);
    }

    #[test]
    fn an_optimizer_of_the_user_decides_within_the_budget() {
        let optimizer = BatchOptimizer::new(4, OptimizerOptions { min_samples: 1000, ..OptimizerOptions::default() });
        let optimizer = Arc::new(Mutex::new(optimizer.unwrap()));
        let pacer = Pacer::shared(Budget::default(), Arc::clone(&optimizer));
        assert_eq!([8, 64, 256, 1000].map(|longest| pacer.next(longest).rows), [4, 4, 2, 1]);
        run(&pacer, 8, 4096, 3);
        let samples = lock(&optimizer).samples();
        assert_eq!((samples, pacer.learned()[0].rows), (3, 4));
    }
}
