//! How large batches are, learned while they run: one [`BatchOptimizer`] for each class of lengths.
//!
//! What is best for texts of 8 tokens says nothing about texts of 200, and a call goes through all lengths, the longest
//! first. So rows fall into classes by the power of two that their length does not exceed, and each class learns how
//! many rows of that full length are fastest. For shorter rows of the class that is a budget of tokens.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

use super::Budget;
use super::optimizer::{BatchOptimizer, OptimizerOptions, Record};
use crate::error::Result;

/// Classes of lengths: up to 2^0, 2^1, … tokens. The last one takes all that is longer.
const CLASSES: usize = 18;

/// Largest batch that is ever tried, as a multiple of the tokens that it begins with: what more gains is lost in the caches, or there
/// is no memory for it.
const MOST_TIMES: usize = 8;

/// Largest batch that is ever tried, in rows.
const MOST_ROWS: usize = 1024;

/// How unlike the speeds of two classes of lengths are that lie beside each other, as a standard deviation of ln(speed).
const UNLIKE: f64 = 0.25;

/// Batches shorter than this are recorded only now and then: learning must not cost what it can gain.
const SHORT_MS: f64 = 2.0;
const SHORT_EVERY: usize = 8;

/// Tokens of the longest text of a batch before any ran: those of a function's code.
const USUAL: usize = 128;

/// Chooses how many rows a batch has.
pub struct BatchSizer {
    budget: Budget,
    learners: Learners,
    /// Tokens of the longest text of the batch that was chosen last.
    longest: AtomicUsize,
    /// The sizes that [`BatchSizer::changes`] has told, by learner.
    told: Mutex<Vec<usize>>,
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
pub struct SizeChoice {
    /// At least 1.
    pub rows: usize,
    class: usize,
    size: usize,
}

/// How large batches like the latest one are.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Outlook {
    /// Rows of the next one.
    pub current: usize,
    /// The number of rows that is fastest, as far as it is known.
    pub best: usize,
    /// How sure that is, 0–1; 0 where nothing is learned.
    pub confidence: f64,
}

impl Outlook {
    /// The same where no batch has more than `rows` rows.
    pub fn at_most(self, rows: usize) -> Self {
        Self { current: self.current.min(rows), best: self.best.min(rows), ..self }
    }
}

/// Another size is in use.
#[derive(Debug, Clone, PartialEq)]
pub struct SizeChange {
    /// Most tokens of a text that it is about.
    pub longest: usize,
    /// Rows of that length before.
    pub before: usize,
    /// Rows of that length now.
    pub after: usize,
    /// Why, in words.
    pub reason: String,
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

impl BatchSizer {
    /// Always the same budget.
    pub fn fixed(budget: Budget) -> Self {
        Self::of(budget, Learners::None)
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
            let most =
                most(longest).min(budget.max_tokens.saturating_mul(MOST_TIMES) / longest).max(budget.rows(longest));
            let max_size = high.min(most);
            let initial = Budget { max_rows: budget.max_rows.min(max_size), ..budget }.rows(longest);
            let min_size = low.min(max_size);
            BatchOptimizer::new(initial, OptimizerOptions { min_size, max_size, ..options }).map(Mutex::new)
        };
        Ok(Self::of(budget, Learners::Own((0..CLASSES).map(learner).collect::<Result<_>>()?)))
    }

    /// Options for [`BatchSizer::learning`] where the user gives none.
    pub fn defaults() -> OptimizerOptions {
        // A try is one batch of a like size: it may come twice as often as where nothing is known about its cost.
        OptimizerOptions { max_size: MOST_ROWS, aggressiveness: 0.6, ..OptimizerOptions::default() }
    }

    /// Takes the number of rows from an optimizer that others may use, too.
    pub fn shared(budget: Budget, optimizer: Arc<Mutex<BatchOptimizer>>) -> Self {
        Self::of(budget, Learners::Shared(optimizer))
    }

    fn of(budget: Budget, learners: Learners) -> Self {
        let sizer = Self { budget, learners, longest: AtomicUsize::new(USUAL), told: Mutex::default() };
        *sizer.told.lock().unwrap_or_else(PoisonError::into_inner) =
            sizer.all().map(|(_, learner)| lock(learner).settled()).collect();
        sizer
    }

    /// What the next batch may be, whose longest row has `longest` tokens.
    pub fn next(&self, longest: usize) -> SizeChoice {
        self.longest.store(longest, Ordering::Relaxed);
        let class = class_of(longest);
        let size = self.learner(class).map_or(0, |learner| lock(learner).current());
        SizeChoice { rows: self.rows(longest, size), class, size }
    }

    /// How many rows a batch has whose longest has `longest` tokens, where its learner is for `size`; at least 1.
    fn rows(&self, longest: usize, size: usize) -> usize {
        let rows = match &self.learners {
            Learners::None => self.budget.rows(longest),
            // Shorter rows than the class' longest: as many more as have the same number of tokens.
            Learners::Own(_) => ((size << class_of(longest)) / longest.max(1)).clamp(size, 2 * size),
            Learners::Shared(_) => size.min(Budget { max_rows: size, ..self.budget }.rows(longest)),
        };
        rows.max(1)
    }

    /// What a batch of a class is learned by.
    fn learner(&self, class: usize) -> Option<&Mutex<BatchOptimizer>> {
        match &self.learners {
            Learners::None => None,
            Learners::Own(classes) => classes.get(class),
            Learners::Shared(optimizer) => Some(optimizer),
        }
    }

    /// The learners, each with the length of the longest texts that it is about.
    fn all(&self) -> impl Iterator<Item = (usize, &Mutex<BatchOptimizer>)> {
        let (own, shared) = match &self.learners {
            Learners::None => (None, None),
            Learners::Own(classes) => (Some(classes.iter().enumerate()), None),
            Learners::Shared(optimizer) => (None, Some((self.budget.max_tokens, &**optimizer))),
        };
        own.into_iter().flatten().map(|(class, learner)| (1usize << class, learner)).chain(shared)
    }

    /// Sizes that have changed since this was asked for the last time, and why. Single batches that try another size are
    /// no change.
    pub fn changes(&self) -> Vec<SizeChange> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = self.all().zip(told.iter_mut()).filter_map(|((longest, learner), told)| {
            let learner = lock(learner);
            let before = std::mem::replace(told, learner.settled());
            (before != *told).then(|| SizeChange {
                longest,
                before,
                after: *told,
                reason: learner.recommendation().reason,
            })
        });
        changed.collect()
    }

    /// How large batches like the latest one are now, and how large they are best.
    pub fn outlook(&self) -> Outlook {
        self.outlook_of(self.longest.load(Ordering::Relaxed))
    }

    /// The same of batches whose longest text has `longest` tokens.
    pub fn outlook_of(&self, longest: usize) -> Outlook {
        let Some(learner) = self.learner(class_of(longest)) else {
            let rows = self.rows(longest, 0);
            return Outlook { current: rows, best: rows, confidence: 0.0 };
        };
        let (current, recommendation) = {
            let learner = lock(learner);
            (learner.current(), learner.recommendation())
        };
        let rows = |size| self.rows(longest, size);
        let confidence = recommendation.confidence;
        Outlook { current: rows(current), best: rows(recommendation.size), confidence }
    }

    /// How fast batches are whose longest text has `longest` tokens: the logarithm of tokens a second of one of them while
    /// as many run as there are lanes, and a standard deviation. Of the class of lengths nearest to theirs that has
    /// learned; `None` where none has.
    pub fn speed(&self, longest: usize) -> Option<(f64, f64)> {
        let Learners::Own(classes) = &self.learners else { return None };
        let class = class_of(longest);
        let of = |class: usize| {
            let learner = lock(classes.get(class)?);
            learner.speed(learner.current())
        };
        (0..CLASSES).find_map(|distance| {
            let beside = [class.checked_sub(distance), Some(class + distance)].into_iter().flatten();
            let (speed, deviation) = beside.filter(|&class| class < CLASSES).find_map(of)?;
            Some((speed, deviation.hypot(UNLIKE * distance as f64)))
        })
    }

    /// Batches that were learned from, of all lengths.
    pub fn samples(&self) -> usize {
        let Learners::Own(classes) = &self.learners else { return 0 };
        classes.iter().map(|learner| lock(learner).samples()).sum()
    }

    /// What was learned, by class of lengths. An optimizer of the user is the user's to keep.
    pub fn state(&self) -> Value {
        let Learners::Own(classes) = &self.learners else { return Value::Null };
        let learned = classes.iter().enumerate().filter_map(|(class, learner)| {
            let learner = lock(learner);
            (learner.samples() > 0).then(|| (class.to_string(), learner.learned()))
        });
        Value::Object(learned.collect::<Map<_, _>>())
    }

    /// Goes on with what was learned, class by class: where its state is sound, and was learned with the same options.
    pub fn restore(&self, state: Value) {
        let (Learners::Own(classes), Value::Object(states)) = (&self.learners, state) else { return };
        for (class, state) in states {
            let learner = class.parse().ok().and_then(|class: usize| classes.get(class));
            if let (Some(learner), Ok(restored)) = (learner, BatchOptimizer::restored(state)) {
                let mut learner = lock(learner);
                if learner.options() == restored.options() {
                    *learner = restored;
                }
            }
        }
    }

    /// Learns from a batch that was as large as it might be: `rows` rows with so many tokens in all, padding not
    /// counted, took `ms`. `nth` tells apart batches of a call.
    pub fn record(&self, choice: SizeChoice, rows: usize, tokens: usize, ms: f64, success: bool, nth: usize) {
        if rows != choice.rows || ms < SHORT_MS && success && !nth.is_multiple_of(SHORT_EVERY) {
            return;
        }
        let Some(learner) = self.learner(choice.class) else { return };
        // Memory is the governor's, and all sizes keep the cores busy alike.
        let record = Record {
            size: choice.size,
            time_ms: ms,
            items: choice.size as f64,
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
        for (_, learner) in self.all() {
            lock(learner).optimize();
        }
    }

    /// What was learned, for the classes that ran.
    pub fn learned(&self) -> Vec<Learned> {
        let learned = self.all().map(|(longest, learner)| {
            let learner = lock(learner);
            Learned { longest, rows: learner.current(), samples: learner.samples() }
        });
        learned.filter(|learned| learned.samples > 0).collect()
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
        let sizer = BatchSizer::learning(budget, BatchSizer::defaults(), |_| usize::MAX).unwrap();
        for longest in [5, 8, 13, 60, 64, 100, 128, 200, 256, 400, 512, 700, 8192, 1 << 20] {
            assert_eq!(sizer.next(longest).rows.min(64), budget.rows(longest), "{longest}");
            assert_eq!(BatchSizer::fixed(budget).next(longest).rows, budget.rows(longest));
        }
        assert_eq!(sizer.next(0).rows.min(64), 64);
    }

    /// A machine on which a batch costs 1 ms, 20 µs per token, and beyond `edge` tokens four times as much.
    fn run(sizer: &BatchSizer, longest: usize, edge: usize, batches: usize) -> Vec<usize> {
        (0..batches)
            .map(|nth| {
                let choice = sizer.next(longest);
                let tokens = choice.rows * longest;
                let over = if tokens > edge { 4.0 } else { 1.0 };
                sizer.record(choice, choice.rows, tokens, (2.0 + 0.02 * tokens as f64) * over, true, nth);
                tokens
            })
            .collect()
    }

    #[test]
    fn each_class_finds_its_own_best() {
        let sizer = BatchSizer::learning(Budget::default(), BatchSizer::defaults(), |_| usize::MAX).unwrap();
        let (short, long) = (run(&sizer, 16, 4096, 1000), run(&sizer, 128, 300, 1000));
        assert!(short[900..].iter().filter(|&&tokens| tokens > 2048 && tokens <= 4096).count() >= 90, "{short:?}");
        assert!(long[900..].iter().filter(|&&tokens| tokens == 256).count() >= 90, "{long:?}");
        let learned: Vec<_> = sizer.learned().iter().map(|class| (class.longest, class.samples)).collect();
        assert_eq!(learned, [(16, 1000), (128, 1000)]);
        // The sizes that have changed are told once, with a reason.
        let changes = sizer.changes();
        assert_eq!(
            changes.iter().map(|change| (change.longest, change.before)).collect::<Vec<_>>(),
            [(16, 32), (128, 4)]
        );
        assert!(changes.iter().all(|change| change.after != change.before && change.reason.contains("measured")));
        assert_eq!(sizer.changes(), []);
        // What the tries have cost, in time: batches slower than the budget's own, against the same tokens at its speed.
        let ms = |tokens: usize| (2.0 + 0.02 * tokens as f64) * if tokens > 300 { 4.0 } else { 1.0 };
        let (spent, fixed): (f64, f64) = long
            .iter()
            .map(|&tokens| (ms(tokens), ms(512) * tokens as f64 / 512.0))
            .fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        assert!(spent < fixed, "{spent} ms, {fixed} without learning");
    }

    #[test]
    fn goes_on_with_what_another_has_learned() {
        let sizer = || BatchSizer::learning(Budget::default(), BatchSizer::defaults(), |_| usize::MAX).unwrap();
        let taught = sizer();
        run(&taught, 128, 300, 600);
        let fresh = sizer();
        fresh.restore(serde_json::from_str(&taught.state().to_string()).unwrap());
        assert_eq!((fresh.learned(), fresh.samples()), (taught.learned(), 600));
        assert_eq!(fresh.next(128).rows, taught.next(128).rows);
        // Other options, and what is damaged, are left out; the rest is taken.
        let other = BatchSizer::learning(Budget::default(), BatchSizer::defaults(), |_| 10).unwrap();
        other.restore(taught.state());
        assert_eq!(other.learned(), []);
        let mut damaged = taught.state();
        damaged["7"]["current"] = 0.into();
        damaged["99"] = damaged["7"].clone();
        damaged["no class"] = Value::Null;
        let unmoved = sizer();
        unmoved.restore(damaged);
        unmoved.restore(Value::from("nonsense"));
        assert_eq!(unmoved.learned(), []);
        assert_eq!(BatchSizer::fixed(Budget::default()).state(), Value::Null);
    }

    #[test]
    fn knows_how_fast_what_it_has_learned_is() {
        let sizer = BatchSizer::learning(Budget::default(), BatchSizer::defaults(), |_| usize::MAX).unwrap();
        assert_eq!(sizer.speed(128), None);
        run(&sizer, 128, usize::MAX, 600);
        // 2 ms and 20 µs a token, at the size in use.
        let tokens = (sizer.learned()[0].rows * 128) as f64;
        let expected = (tokens / (2.0 + 0.02 * tokens) * 1e3).ln();
        let (near, sure) = sizer.speed(128).unwrap();
        assert!((near - expected).abs() < 0.1 && sure < 0.2, "{near} ± {sure}, {expected} expected");
        let (far, unsure) = sizer.speed(1000).unwrap();
        assert!(far == near && unsure > 3.0 * UNLIKE - 0.1, "{far} ± {unsure}");
    }

    #[test]
    fn tries_nothing_that_takes_too_much_memory_but_always_the_budget() {
        let sizer = BatchSizer::learning(Budget::default(), BatchSizer::defaults(), |longest| 600 / longest).unwrap();
        for longest in [16, 256, 1024] {
            let most = run(&sizer, longest, usize::MAX, 300).into_iter().max().unwrap();
            assert!(most <= 600.max(longest), "{most} for {longest}");
        }
    }

    #[test]
    fn learns_nothing_from_batches_that_were_cut_short() {
        let sizer = BatchSizer::learning(Budget::default(), BatchSizer::defaults(), |_| usize::MAX).unwrap();
        let choice = sizer.next(64);
        sizer.record(choice, choice.rows - 1, 64 * (choice.rows - 1), 5.0, true, 0);
        assert_eq!(sizer.learned(), []);
        sizer.record(choice, choice.rows, 64 * choice.rows, 0.5, true, 1);
        assert_eq!(sizer.learned(), []);
        sizer.record(choice, choice.rows, 64 * choice.rows, 0.5, true, 8);
        assert_eq!(sizer.learned()[0].samples, 1);
    }

    #[test]
    fn an_optimizer_of_the_user_decides_within_the_budget() {
        let optimizer = BatchOptimizer::new(4, OptimizerOptions { min_samples: 1000, ..OptimizerOptions::default() });
        let optimizer = Arc::new(Mutex::new(optimizer.unwrap()));
        let sizer = BatchSizer::shared(Budget::default(), Arc::clone(&optimizer));
        assert_eq!([8, 64, 256, 1000].map(|longest| sizer.next(longest).rows), [4, 4, 2, 1]);
        run(&sizer, 8, 4096, 3);
        let samples = lock(&optimizer).samples();
        assert_eq!((samples, sizer.learned()[0].rows), (3, 4));
    }
}
