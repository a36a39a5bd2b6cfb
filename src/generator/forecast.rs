//! How long so many texts will take, and how much memory: from what was learned about batches, and from how long the other
//! stages took for a text.
//!
//! Of n texts with t tokens each, in batches of r rows on L workers, b = ⌈n / r⌉:
//!
//! - time = n · prepare + n · t · tokenize + max(n · t / (speed · min(L, b)), n · commit), where `speed` is what is believed
//!   about the tokens a second of such a batch, and its logarithm has a standard deviation σ; the interval is
//!   time · e^(±1.96 σ), in which 95 of 100 calls end if the machine stays as it was.
//! - memory = the vectors, n · (bytes of one, as they were on the average so far, between the least and the most that one may
//!   have; n · dimensions · 4 where all have as many), and the working memory of min(L, b) batches, as the ceiling prices
//!   them; between one batch of one row, and all of them with the most rows that may be next.
//! - rows = those of the next batch; between the fewest and the most that it may soon have.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::model_cache::Known;
use crate::batch::sizing::Outlook;
use crate::embedding::{Task, Value};
use crate::model::ModelInfo;

/// Standard deviations on each side of 95 of 100.
const SIGMAS: f64 = 1.96;

/// Uncertainty of ln(time) that is always there.
const LEAST_SIGMA: f64 = 0.05;

/// An expectation, and the interval that it is in.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    /// What is expected.
    pub expected: f64,
    /// The least.
    pub low: f64,
    /// The most.
    pub high: f64,
}

/// What a call will take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// Milliseconds; `None` as long as nothing is known about this model on this machine.
    pub time_ms: Option<Estimate>,
    /// Bytes.
    pub memory: Estimate,
    /// Texts in a batch.
    pub rows: Estimate,
}

/// Milliseconds that all but the model takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Overhead {
    /// For a text: wording, hashing, and asking the cache.
    pub prepare_ms: f64,
    /// For a token.
    pub token_ms: f64,
    /// For a text: putting it into the cache, while others run.
    pub commit_ms: f64,
}

impl Overhead {
    /// Whether somebody can have measured it.
    pub fn is_sound(&self) -> bool {
        [self.prepare_ms, self.token_ms, self.commit_ms].iter().all(|ms| (0.0..1e9).contains(ms))
    }
}

/// What was answered for texts so far, where that depends on the text.
#[derive(Debug, Default)]
pub(super) struct AnsweredBytes {
    tokens: AtomicU64,
    bytes: AtomicU64,
}

impl AnsweredBytes {
    pub fn count(&self, known: &Known) {
        let Some(value @ (Value::Sparse(_) | Value::Tokens(_))) = known.value.made() else { return };
        let each = if matches!(value, Value::Sparse(_)) { SPARSE } else { size_of::<f32>() };
        self.bytes.fetch_add((value.numbers().len() * each) as u64, Ordering::Relaxed);
        self.tokens.fetch_add(known.about.token_count.max(1) as u64, Ordering::Relaxed);
    }

    /// Bytes for a text with `tokens` tokens.
    pub fn of(&self, info: &ModelInfo, tokens: usize) -> Estimate {
        let (n, size) = (tokens as f64, info.dimensions as f64);
        let vector = size * size_of::<f32>() as f64;
        let most = match info.task {
            Task::Embedding | Task::Reranking => return Estimate { expected: vector, low: vector, high: vector },
            Task::MultiVector => n * vector,
            // A word has one number, and so has a token of the vocabulary, of which a text may have more than are its own.
            Task::Sparse if info.architecture.is_none() => n * SPARSE as f64,
            Task::Sparse => size * SPARSE as f64,
        };
        let seen = self.tokens.load(Ordering::Relaxed);
        let mean = self.bytes.load(Ordering::Relaxed) as f64 / seen.max(1) as f64;
        let expected = if seen == 0 { most } else { (mean * n).min(most) };
        Estimate { expected, low: 0.0, high: most }
    }
}

/// Bytes of a value of a sparse vector, with its index.
const SPARSE: usize = size_of::<f32>() + size_of::<u32>();

/// What a forecast is made of.
pub(super) struct Basis<'a> {
    /// ln(tokens a second) of a batch, and its standard deviation.
    pub speed: Option<(f64, f64)>,
    pub overhead: Overhead,
    pub workers: usize,
    /// Bytes of what is answered for each of these texts.
    pub answered: Estimate,
    pub outlook: Outlook,
    /// Bytes of a batch with so many rows, each as long as these texts.
    pub price: &'a dyn Fn(usize) -> u64,
}

/// Of `items` texts with `tokens` tokens each.
pub(super) fn forecast(basis: &Basis<'_>, items: usize, tokens: usize) -> Forecast {
    let Basis { speed, overhead, workers, answered, outlook, price } = basis;
    let (n, t) = (items as f64, tokens as f64);
    let rows = outlook.current.max(1);
    let (fewest, most) = (outlook.best.min(rows).max(1), outlook.best.max(rows));
    let parallel = items.div_ceil(rows).min(*workers);
    let time_ms = speed.map(|(speed, deviation)| {
        let infer = n * t / (speed.exp() * parallel.max(1) as f64) * 1e3;
        let expected = n * overhead.prepare_ms + n * t * overhead.token_ms + infer.max(n * overhead.commit_ms);
        let spread = (SIGMAS * deviation.max(LEAST_SIGMA)).exp();
        Estimate { expected, low: expected / spread, high: expected * spread }
    });
    let working = |batches: usize, rows: usize| batches as f64 * price(rows.min(items)) as f64;
    let memory = Estimate {
        expected: n * answered.expected + working(parallel, rows),
        low: n * answered.low + working(parallel.min(1), 1),
        high: n * answered.high + working(parallel, most),
    };
    let of = |rows: usize| rows.min(items) as f64;
    Forecast { time_ms, memory, rows: Estimate { expected: of(rows), low: of(fewest), high: of(most) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basis<'a>(price: &'a dyn Fn(usize) -> u64, speed: Option<(f64, f64)>) -> Basis<'a> {
        let overhead = Overhead { prepare_ms: 0.01, token_ms: 0.001, commit_ms: 0.02 };
        let outlook = Outlook { current: 8, best: 16, confidence: 0.5 };
        Basis {
            speed,
            overhead,
            workers: 2,
            answered: Estimate { expected: 16.0, low: 16.0, high: 16.0 },
            outlook,
            price,
        }
    }

    #[test]
    fn is_the_formula() {
        let price = |rows: usize| 100 * rows as u64;
        // 1000 tokens a second and worker: 100 texts of 20 tokens are a second on two.
        let of = forecast(&basis(&price, Some((1000f64.ln(), 0.1))), 100, 20);
        let time = of.time_ms.unwrap();
        assert!((time.expected - (1.0 + 2.0 + 1000.0)).abs() < 1e-9, "{time:?}");
        assert!((time.high / time.expected - 0.196f64.exp()).abs() < 1e-9);
        assert!((time.expected / time.low - 0.196f64.exp()).abs() < 1e-9);
        let vectors = 100.0 * 4.0 * 4.0;
        assert_eq!(of.memory, Estimate { expected: vectors + 1600.0, low: vectors + 100.0, high: vectors + 3200.0 });
        assert_eq!(of.rows, Estimate { expected: 8.0, low: 8.0, high: 16.0 });
    }

    #[test]
    fn a_fast_model_waits_for_what_is_around_it() {
        let price = |_: usize| 0;
        let of = forecast(&basis(&price, Some((1e9f64.ln(), 0.0))), 1000, 10).time_ms.unwrap();
        assert!((of.expected - (10.0 + 10.0 + 20.0)).abs() < 1e-6, "{of:?}");
        assert!(of.high > of.expected && of.low < of.expected);
    }

    #[test]
    fn few_texts_use_few_lanes_and_none_takes_nothing() {
        let price = |rows: usize| rows as u64;
        let one = forecast(&basis(&price, Some((1000f64.ln(), 0.1))), 1, 1000);
        assert!((one.time_ms.unwrap().expected - 1001.01).abs() < 1e-6);
        assert_eq!((one.rows.expected, one.memory.expected), (1.0, 17.0));
        let none = forecast(&basis(&price, Some((1000f64.ln(), 0.1))), 0, 10);
        assert_eq!((none.time_ms.unwrap().expected, none.memory.high, none.rows.high), (0.0, 0.0, 0.0));
    }

    #[test]
    fn says_nothing_about_time_that_it_does_not_know() {
        let price = |_: usize| 1;
        assert_eq!(forecast(&basis(&price, None), 10, 10).time_ms, None);
    }
}
