//! What a generator has done, counted as it happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one generator. Cheap enough for every batch; nothing here is estimated.
#[derive(Debug, Default)]
pub(super) struct Tally {
    calls: AtomicU64,
    failed_calls: AtomicU64,
    texts: AtomicU64,
    hits: AtomicU64,
    failed_texts: AtomicU64,
    call_ns: AtomicU64,
    batches: AtomicU64,
    failed_batches: AtomicU64,
    rows: AtomicU64,
    tokens: AtomicU64,
    padded: AtomicU64,
    inference_ns: AtomicU64,
    waiting_ns: AtomicU64,
}

/// What a generator has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Calls that ended.
    pub calls: u64,
    /// Of these, calls that gave an error.
    pub failed_calls: u64,
    /// Texts of calls that were answered.
    pub texts: u64,
    /// Of these, texts that were not computed for the call.
    pub hits: u64,
    /// Of these, texts without a vector.
    pub failed_texts: u64,
    /// Milliseconds of all calls, from their beginning to their end.
    pub call_ms: f64,
    /// Runs of the model.
    pub batches: u64,
    /// Of these, runs that failed.
    pub failed_batches: u64,
    /// Texts in these runs.
    pub rows: u64,
    /// Tokens of these texts.
    pub tokens: u64,
    /// The same with padding.
    pub padded_tokens: u64,
    /// Milliseconds in the model, of all lanes together.
    pub inference_ms: f64,
    /// Milliseconds that batches waited for memory, of all lanes together.
    pub waiting_ms: f64,
}

impl Tally {
    pub fn call(&self, answer: Option<(usize, usize, usize)>, took: Duration) {
        add(&self.calls, 1);
        add(&self.call_ns, took.as_nanos() as u64);
        let Some((texts, hits, failed)) = answer else { return add(&self.failed_calls, 1) };
        add(&self.texts, texts as u64);
        add(&self.hits, hits as u64);
        add(&self.failed_texts, failed as u64);
    }

    pub fn batch(&self, rows: usize, tokens: usize, padded: usize, took: Duration, waited: Duration, success: bool) {
        add(&self.batches, 1);
        add(&self.failed_batches, u64::from(!success));
        add(&self.rows, rows as u64);
        add(&self.tokens, tokens as u64);
        add(&self.padded, padded as u64);
        add(&self.inference_ns, took.as_nanos() as u64);
        add(&self.waiting_ns, waited.as_nanos() as u64);
    }

    pub fn totals(&self) -> Totals {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ms = |counter: &AtomicU64| of(counter) as f64 / 1e6;
        Totals {
            calls: of(&self.calls),
            failed_calls: of(&self.failed_calls),
            texts: of(&self.texts),
            hits: of(&self.hits),
            failed_texts: of(&self.failed_texts),
            call_ms: ms(&self.call_ns),
            batches: of(&self.batches),
            failed_batches: of(&self.failed_batches),
            rows: of(&self.rows),
            tokens: of(&self.tokens),
            padded_tokens: of(&self.padded),
            inference_ms: ms(&self.inference_ns),
            waiting_ms: ms(&self.waiting_ns),
        }
    }
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
