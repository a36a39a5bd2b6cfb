//! What a generator has done, measured stage by stage as it happens.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::forecast::Overhead;
use crate::batch::optimizer::{Analytics, BatchOptimizer, OptimizerOptions, Record};
use crate::error::Error;
use crate::host::Resources;
use crate::metrics::{Metrics, MetricsOptions, Operation, Recorder};

/// What a whole call is named, beside its stages.
const CALL: &str = "call";

/// Batches that analytics can be about, at most: each takes some hundred bytes.
const MOST_RECENT: usize = 1000;

/// Standard deviation of ln(speed) at least, where speeds of all lengths are one.
const UNSURE: f64 = 0.35;

/// The type of what calls look up.
const KIND: &str = "embedding";

/// A stage of a call. Times are those of the work itself, not of waiting for a thread to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Wording annotations, finding equal texts, and hashing keys. Once a call; items are texts.
    Prepare,
    /// Asking the cache. Items are distinct texts.
    Lookup,
    /// Making tokens of texts, some hundred texts at a time.
    Tokenize,
    /// Choosing the texts of a batch.
    Plan,
    /// Waiting until memory permits a batch.
    Wait,
    /// Running the model on a batch.
    Infer,
    /// Putting a batch into the cache.
    Commit,
}

impl Stage {
    /// All, in the order of a call.
    pub const ALL: [Self; 7] =
        [Self::Prepare, Self::Lookup, Self::Tokenize, Self::Plan, Self::Wait, Self::Infer, Self::Commit];

    /// As it is named in `getPerformanceMetrics().stages`; in a monitor, after `embedcore.`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Lookup => "lookup",
            Self::Tokenize => "tokenize",
            Self::Plan => "plan",
            Self::Wait => "wait",
            Self::Infer => "infer",
            Self::Commit => "commit",
        }
    }
}

/// Measures one generator: in a monitor of its own, and in the one that its user watches. Cheap enough for every batch.
pub(super) struct StageMetrics {
    own: Arc<Metrics>,
    watched: Option<Arc<Metrics>>,
    call: Meter,
    /// In the order of [`Stage::ALL`].
    stages: [Meter; Stage::ALL.len()],
    hits: AtomicU64,
    failed_texts: AtomicU64,
    rows: AtomicU64,
    tokens: AtomicU64,
    padded: AtomicU64,
    /// Of runs, as [`StageMetrics::text_ms`] needs it: reading a monitor takes longer than a text that is known.
    infer_ns: AtomicU64,
    /// Texts of calls that failed.
    lost: AtomicU64,
    busy: Mutex<Busy>,
    /// The latest batches, the oldest first.
    recent: Mutex<VecDeque<Record>>,
    /// How analytics are made of them.
    analysis: OptimizerOptions,
}

/// The time during which at least one call was under way.
#[derive(Default)]
struct Busy {
    calls: usize,
    since: Option<Instant>,
    total: Duration,
}

/// A call is under way as long as this lives.
pub(super) struct Inside(Arc<StageMetrics>);

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
    /// Texts of calls that failed; those of calls that were stopped do not count.
    pub lost_texts: u64,
    /// Milliseconds of all calls, from their beginning to their end.
    pub call_ms: f64,
    /// Milliseconds during which at least one call was under way.
    pub busy_ms: f64,
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
    /// Milliseconds in the model, of all workers together.
    pub inference_ms: f64,
    /// Milliseconds that batches waited for memory, of all workers together.
    pub waiting_ms: f64,
}

/// How a call ended.
pub(super) struct Answered {
    pub hits: usize,
    pub failed: usize,
    /// Whether there was a cache to find texts in.
    pub cached: bool,
}

/// One run of the model.
pub(super) struct Ran {
    pub rows: usize,
    pub tokens: usize,
    /// With padding.
    pub padded: usize,
    /// Whether the tokens were counted, and not guessed.
    pub known: bool,
    pub waited: Duration,
    pub took: Duration,
    pub success: bool,
    /// The machine when it ended.
    pub machine: Resources,
}

impl StageMetrics {
    /// `analysis` says how many batches analytics are about, and what their targets are.
    pub fn new(watched: Option<Arc<Metrics>>, analysis: OptimizerOptions) -> Self {
        let own = Arc::new(Metrics::new(MetricsOptions::default()));
        let meter = |name: &str| Meter {
            own: own.recorder(name),
            watched: watched.as_ref().map(|metrics| metrics.recorder(&format!("embedcore.{name}"))),
        };
        let (call, stages) = (meter(CALL), Stage::ALL.map(|stage| meter(stage.name())));
        let [hits, failed_texts, rows, tokens, padded, infer_ns, lost] = Default::default();
        let (busy, recent) = Default::default();
        // Sizes are the planner's: nothing is decided here, and none of them is too small or too large to be looked at.
        let history = analysis.history.min(MOST_RECENT);
        let (min_size, max_size, min_samples) = (1, u32::MAX as usize, usize::MAX);
        let analysis = OptimizerOptions { min_size, max_size, min_samples, history, ..analysis };
        Self {
            own,
            watched,
            call,
            stages,
            hits,
            failed_texts,
            rows,
            tokens,
            padded,
            infer_ns,
            lost,
            busy,
            recent,
            analysis,
        }
    }

    /// A call begins; it ends when what this gives is dropped.
    pub fn enter(self: &Arc<Self>) -> Inside {
        let mut busy = lock(&self.busy);
        busy.calls += 1;
        busy.since.get_or_insert_with(Instant::now);
        Inside(Arc::clone(self))
    }

    /// A call for so many texts has ended.
    pub fn call(&self, texts: usize, answer: Result<Answered, &Error>, took: Duration) {
        let answered = match answer {
            Ok(answered) => answered,
            Err(error) => {
                self.call.fail(took);
                // A call that its user stopped is no fault.
                if matches!(error, Error::Aborted | Error::Closed) {
                    return;
                }
                add(&self.lost, texts);
                let watched = self.watched.iter();
                return watched.for_each(|metrics| metrics.failed("embedcore.call", &error.to_string()));
            }
        };
        let Answered { hits, failed, cached } = answered;
        self.call.record(took, texts);
        add(&self.hits, hits);
        add(&self.failed_texts, failed);
        if let Some(metrics) = self.watched.as_ref().filter(|_| cached) {
            metrics.looked_up(KIND, hits as u64, (texts - hits) as u64);
        }
    }

    /// A stage that began at `started` has just ended, and processed `items`.
    pub fn done(&self, stage: Stage, started: Instant, items: usize) {
        self.meter(stage).record(started.elapsed(), items);
    }

    pub fn batch(&self, ran: &Ran) {
        self.meter(Stage::Wait).record(ran.waited, ran.rows);
        match ran.success {
            true => self.meter(Stage::Infer).record(ran.took, ran.rows),
            false => self.meter(Stage::Infer).fail(ran.took),
        }
        add(&self.rows, ran.rows);
        if ran.known {
            add(&self.tokens, ran.tokens);
            add(&self.padded, ran.padded);
        }
        add(&self.infer_ns, ran.took.as_nanos() as usize);
        self.keep(ran);
    }

    fn keep(&self, ran: &Ran) {
        let record = Record {
            size: ran.rows,
            time_ms: ran.took.as_secs_f64() * 1e3,
            items: ran.rows as f64,
            tokens: Some(ran.tokens as f64),
            cpu: Some(ran.machine.cpu),
            memory: Some(ran.machine.memory.usage()),
            sampled: true,
            success: ran.success,
            at_ms: 0.0,
        };
        let mut recent = lock(&self.recent);
        if recent.len() >= self.analysis.history {
            recent.pop_front();
        }
        recent.push_back(record);
    }

    /// How the latest batches went, as an optimizer sees it that was told of each. Made when it is asked for, so that a
    /// batch costs no more than a place in a list.
    pub fn analytics(&self) -> Analytics {
        let Ok(mut observer) = BatchOptimizer::new(1, self.analysis) else { return Analytics::default() };
        for record in lock(&self.recent).iter() {
            // What was measured is nothing that it could refuse.
            drop(observer.record(*record));
        }
        observer.analytics()
    }

    /// Milliseconds that all but the model has taken so far, for each text and token; `None` before the first batch.
    pub fn overhead(&self) -> Option<Overhead> {
        let of = |stage: Stage| {
            let stats = self.own.stats(stage.name());
            stats.filter(|stats| stats.items > 0).map_or(0.0, |stats| stats.latency.total / stats.items as f64)
        };
        let tokens = self.tokens.load(Ordering::Relaxed);
        let tokenized = self.own.stats(Stage::Tokenize.name()).map_or(0.0, |stats| stats.latency.total);
        (tokens > 0).then(|| Overhead {
            prepare_ms: of(Stage::Prepare) + of(Stage::Lookup),
            token_ms: tokenized / tokens as f64,
            commit_ms: of(Stage::Commit),
        })
    }

    /// How fast the latest batches were: the logarithm of tokens a second of one, and its standard deviation.
    pub fn speed(&self) -> Option<(f64, f64)> {
        let recent = lock(&self.recent);
        let speeds = recent.iter().filter(|record| record.success && record.tokens.is_some_and(|tokens| tokens > 0.0));
        let speeds: Vec<f64> =
            speeds.map(|record| (record.tokens.unwrap_or_default() / record.time_ms.max(1e-3) * 1e3).ln()).collect();
        let mean = speeds.iter().sum::<f64>() / speeds.len() as f64;
        let variance = speeds.iter().map(|speed| (speed - mean).powi(2)).sum::<f64>() / speeds.len() as f64;
        (!speeds.is_empty()).then(|| (mean, variance.sqrt().max(UNSURE)))
    }

    /// Milliseconds that the model has taken for a text, on average; `None` before the first one.
    pub fn text_ms(&self) -> Option<f64> {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let rows = of(&self.rows);
        (rows > 0.0).then(|| of(&self.infer_ns) / 1e6 / rows)
    }

    pub fn totals(&self) -> Totals {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (calls, runs) = (self.own.stats(CALL), self.own.stats(Stage::Infer.name()));
        let waits = self.own.stats(Stage::Wait.name());
        let count = |of: &Option<Operation>| of.as_ref().map_or((0, 0, 0), |of| (of.count, of.errors, of.items));
        let total = |of: &Option<Operation>| of.as_ref().map_or(0.0, |of| of.latency.total);
        let ((calls_ended, failed_calls, texts), (batches, failed_batches, _)) = (count(&calls), count(&runs));
        Totals {
            calls: calls_ended,
            failed_calls,
            texts,
            hits: of(&self.hits),
            failed_texts: of(&self.failed_texts),
            lost_texts: of(&self.lost),
            busy_ms: lock(&self.busy).until_now().as_secs_f64() * 1e3,
            call_ms: total(&calls),
            batches,
            failed_batches,
            rows: of(&self.rows),
            tokens: of(&self.tokens),
            padded_tokens: of(&self.padded),
            inference_ms: total(&runs),
            waiting_ms: total(&waits),
        }
    }

    /// Stages that ran at least once, in the order of a call.
    pub fn stages(&self) -> Vec<Operation> {
        Stage::ALL.iter().filter_map(|stage| self.own.stats(stage.name())).collect()
    }

    fn meter(&self, stage: Stage) -> &Meter {
        &self.stages[stage as usize]
    }
}

impl Busy {
    fn until_now(&self) -> Duration {
        self.total + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut busy = lock(&self.0.busy);
        busy.calls -= 1;
        if busy.calls == 0 {
            busy.total = busy.until_now();
            busy.since = None;
        }
    }
}

/// Records one operation, for both.
struct Meter {
    own: Recorder,
    watched: Option<Recorder>,
}

impl Meter {
    fn record(&self, took: Duration, items: usize) {
        self.each(|recorder| recorder.record(took, items as u64));
    }

    fn fail(&self, took: Duration) {
        self.each(|recorder| recorder.fail(took));
    }

    fn each(&self, tell: impl Fn(&Recorder)) {
        tell(&self.own);
        self.watched.iter().for_each(tell);
    }
}

fn add(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
