//! What happens, how often and how long it takes. JS class: `PerformanceMonitor`.
//!
//! Knows nothing of what it measures: users name their operations, hold a [`Recorder`] of each, and record durations
//! from any thread for some tens of nanoseconds. Whoever wants to know takes a [`Snapshot`], or a [`Sampler`] for what
//! happened since the last time.

mod cycles;
mod distribution;
mod file;
mod names;
mod recorder;
mod sampler;
mod series;
mod snapshot;

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub use cycles::{Cycle, CycleReport, CycleStatus, CycleSummary};
pub use distribution::{Latency, MAX_MS, nanoseconds};
pub use file::{Unusable, write_whole};
pub use recorder::{Event, Numbers, Recorder};
pub use sampler::{Interval, IntervalOperation, Sampler};
use serde::{Deserialize, Serialize};
pub use series::MemoryUse;
pub use snapshot::{CacheUse, Operation, OperationMemory, Snapshot, Throughput};

use crate::error::{Error, Result};
use crate::host::{Clock, ProcessMemory, SystemClock, process_memory};
use cycles::Cycles;
use names::KeyHasher;
use series::Series;

/// Longest name of an operation, a cache's type or a cycle, in characters.
pub const MAX_NAME: usize = 256;

/// Most operations, and most types of caches. What is named after these is counted together, as [`OTHERS`]: a name that
/// somebody makes of every file or user must not take all memory.
pub const MAX_NAMES: usize = 1000;

/// The name of what has no place of its own any more.
pub const OTHERS: &str = "(others)";

/// Failures that are kept with their messages.
pub const MAX_FAILURES: usize = 100;

/// Characters of a failure's message that are kept.
const MAX_MESSAGE: usize = 500;

/// How long memory is taken to be what it was, in microseconds.
const MEMORY_AGE_US: u64 = 1000;

/// What a monitor is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsOptions {
    /// Cycles that are kept one by one.
    pub max_cycles: usize,
    /// Where cycles are kept when the process ends.
    pub persist_path: Option<PathBuf>,
}

impl Default for MetricsOptions {
    fn default() -> Self {
        Self { max_cycles: 1000, persist_path: None }
    }
}

/// One failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Milliseconds since 1970.
    pub at: f64,
    /// The operation.
    pub name: String,
    /// What went wrong.
    pub message: String,
}

/// Everything that is measured.
pub struct Metrics {
    clock: Arc<dyn Clock>,
    probe: Box<dyn Fn() -> ProcessMemory + Send + Sync>,
    /// The same moment on both clocks, in microseconds and milliseconds.
    origin: (u64, u64),
    /// When it was made or emptied, in microseconds.
    started_us: AtomicU64,
    operations: KeyHasher<Series>,
    caches: KeyHasher<Lookups>,
    cycles: Mutex<Cycles>,
    /// Held while cycles are written, so that what is written last is what was known last.
    saving: Mutex<()>,
    failures: Mutex<VecDeque<Failure>>,
    /// The latest look at memory, and when it was.
    memory: Mutex<Option<(u64, ProcessMemory)>>,
    options: MetricsOptions,
}

/// How one type was found.
#[derive(Default)]
struct Lookups {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Metrics {
    /// An empty one. Nothing is read from `persist_path` before [`Self::load`].
    pub fn new(options: MetricsOptions) -> Self {
        Self::with(options, Arc::new(SystemClock::default()), Box::new(process_memory))
    }

    /// The same, with a clock and a look at memory of the caller's.
    pub fn with(
        options: MetricsOptions,
        clock: Arc<dyn Clock>,
        probe: Box<dyn Fn() -> ProcessMemory + Send + Sync>,
    ) -> Self {
        let origin = (clock.steady_us(), clock.wall_ms());
        Self {
            clock,
            probe,
            origin,
            started_us: AtomicU64::new(origin.0),
            operations: KeyHasher::default(),
            caches: KeyHasher::default(),
            cycles: Mutex::new(Cycles::new(options.max_cycles)),
            saving: Mutex::default(),
            failures: Mutex::default(),
            memory: Mutex::default(),
            options,
        }
    }

    /// The one of the process.
    pub fn global() -> Arc<Self> {
        static GLOBAL: OnceLock<Arc<Metrics>> = OnceLock::new();
        Arc::clone(GLOBAL.get_or_init(|| Arc::new(Self::new(MetricsOptions::default()))))
    }

    /// What it was made with.
    pub fn options(&self) -> &MetricsOptions {
        &self.options
    }

    /// A handle to record one operation with. For names in this crate's own code: those of users go through [`Numbers`].
    pub fn recorder(self: &Arc<Self>, name: &str) -> Recorder {
        Recorder::new(Arc::clone(self), name)
    }

    /// Counts look-ups of a type that this crate's own code names.
    pub fn looked_up(&self, kind: &str, hits: u64, misses: u64) {
        if hits + misses == 0 {
            return;
        }
        let lookups = self.caches.find(kind).unwrap_or_else(|| self.caches.get(&kind.into()));
        lookups.hits.fetch_add(hits, Ordering::Relaxed);
        lookups.misses.fetch_add(misses, Ordering::Relaxed);
    }

    /// Microseconds of the steady clock.
    pub fn now_us(&self) -> u64 {
        self.clock.steady_us()
    }

    /// Milliseconds since 1970. Runs evenly, whatever is done to the machine's clock meanwhile.
    fn wall(&self, us: i64) -> f64 {
        self.origin.1 as f64 + (us as f64 - self.origin.0 as f64) / 1000.0
    }

    fn wall_now(&self) -> f64 {
        self.wall(self.now_us() as i64)
    }

    /// Memory of this process, at most a millisecond old.
    pub fn process_memory(&self) -> ProcessMemory {
        let now = self.now_us();
        let mut latest = lock(&self.memory);
        match *latest {
            Some((at, memory)) if now.saturating_sub(at) < MEMORY_AGE_US => memory,
            _ => latest.insert((now, (self.probe)())).1,
        }
    }

    /// Keeps the message of an operation that failed; it is recorded by whoever measured it.
    pub fn failed(&self, name: &str, message: &str) {
        let cut = |text: &str, most| text.chars().take(most).collect::<String>();
        let at = self.wall_now();
        let mut failures = lock(&self.failures);
        if failures.len() >= MAX_FAILURES {
            failures.pop_front();
        }
        failures.push_back(Failure { at, name: cut(name, MAX_NAME), message: cut(message, MAX_MESSAGE) });
    }

    /// Starts a cycle.
    ///
    /// # Errors
    /// `InvalidArgument` for an id that is empty, too long, or in progress.
    pub fn start_cycle(&self, id: &str) -> Result<()> {
        let now = self.now_us();
        let memory = self.process_memory();
        lock(&self.cycles).start(id, self.wall(now as i64), now, memory)
    }

    /// Changes a cycle in progress.
    ///
    /// # Errors
    /// `InvalidArgument` when there is none of this id.
    pub fn in_cycle(&self, id: &str, change: impl FnOnce(&mut Cycle)) -> Result<()> {
        lock(&self.cycles).running(id).map(change)
    }

    /// Ends a cycle, and gives what is known of it.
    ///
    /// # Errors
    /// As [`Self::in_cycle`].
    pub fn end_cycle(&self, id: &str, success: bool) -> Result<Cycle> {
        let now = self.now_us();
        let memory = self.process_memory();
        lock(&self.cycles).end(id, success, self.wall(now as i64), now, memory).cloned()
    }

    /// Cycles: totals, the latest ones and those in progress.
    pub fn cycles(&self) -> CycleReport {
        lock(&self.cycles).report(usize::MAX)
    }

    /// Reads the cycles of earlier processes, and gives back why, if something is wrong with their file.
    ///
    /// # Errors
    /// `Storage` for a file that is there and cannot be read, or was never one of cycles.
    pub fn load(&self) -> Result<Option<Unusable>> {
        let Some(path) = &self.options.persist_path else { return Ok(None) };
        lock(&self.cycles).load(path, self.clock.wall_ms())
    }

    /// Writes cycles to `path`, all or nothing. Blocks until they survive a loss of power.
    ///
    /// # Errors
    /// `Storage`.
    pub fn save(&self, path: &Path) -> Result<()> {
        let _one_at_a_time = lock(&self.saving);
        let bytes = lock(&self.cycles).to_file()?;
        write_whole(path, &bytes)
    }

    /// One operation; `None` for one that was never recorded.
    pub fn stats(&self, name: &str) -> Option<Operation> {
        self.operation_of(name, &*self.operations.find(name)?, false)
    }

    fn operation_of(&self, name: &str, series: &Series, histogram: bool) -> Option<Operation> {
        let tally = series.read()?;
        Some(Operation {
            name: name.to_owned(),
            count: tally.durations.count(),
            errors: tally.errors,
            items: tally.items,
            latency: tally.durations.latency()?,
            throughput: Throughput { whole_run: tally.rate(), last_minute: tally.recent_rate(self.now_us()) },
            memory: tally.memory.map(|memory| OperationMemory {
                before: memory.latest.before,
                after: memory.latest.after,
                peak: memory.peak,
                average_growth: memory.growth / memory.count.max(1) as f64,
                samples: memory.count,
            }),
            first_at: self.wall(tally.first_us),
            last_at: self.wall(tally.last_us as i64),
            histogram: if histogram { tally.durations.buckets() } else { Vec::new() },
        })
    }

    /// All that is known, operations and types by name, and at most so many of the latest cycles. Without histograms it is
    /// shorter, and cannot be merged.
    pub fn snapshot(&self, histograms: bool, cycles: usize) -> Snapshot {
        let (_, operations) = self.operations.list();
        let told = operations.iter().filter_map(|(name, series)| self.operation_of(name, series, histograms));
        let mut all: Vec<Operation> = told.collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let (_, caches) = self.caches.list();
        let used = caches.iter().map(|(kind, lookups)| (kind, lookups.read())).filter(|(_, used)| *used != (0, 0));
        let mut caches: Vec<CacheUse> = used.map(|(kind, (hits, misses))| CacheUse::new(kind, hits, misses)).collect();
        caches.sort_by(|a, b| a.kind.cmp(&b.kind));
        Snapshot {
            format: snapshot::FORMAT.to_owned(),
            version: 1,
            taken_at: self.wall_now(),
            started_at: self.wall(self.started_us.load(Ordering::Relaxed) as i64),
            operations: all,
            caches,
            cycles: lock(&self.cycles).report(cycles),
            errors: lock(&self.failures).iter().cloned().collect(),
        }
    }

    /// Forgets everything, names and cycles in progress included. Numbers and recorders stay good.
    pub fn reset(&self) {
        self.operations.forget();
        self.caches.forget();
        lock(&self.cycles).reset();
        lock(&self.failures).clear();
        self.started_us.store(self.now_us(), Ordering::Relaxed);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Lookups {
    /// Hits and misses.
    fn read(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }
}

impl MemoryUse {
    /// What is known of memory between two looks; `None` where it could not be measured. The peak is exact where the
    /// process never held as much before; else it is the larger of the two.
    pub fn between(before: ProcessMemory, after: ProcessMemory) -> Option<Self> {
        let seen = before.resident.max(after.resident);
        let peak = if after.high_water > before.high_water { after.high_water.max(seen) } else { seen };
        let measured = before.resident > 0 && after.resident > 0;
        measured.then_some(Self { before: before.resident, after: after.resident, peak })
    }
}

/// Refuses names that nobody could read.
fn checked_name(what: &str, name: &str) -> Result<()> {
    let length = name.chars().count();
    if length == 0 || length > MAX_NAME {
        let problem = if length == 0 { "is empty".to_owned() } else { format!("has {length} characters") };
        return Err(Error::InvalidArgument(format!("{what} {problem}: pass 1 to {MAX_NAME} characters")));
    }
    Ok(())
}

/// The last moment that a date can be, in milliseconds from 1970, before which the first one is as far away.
const LAST_DATE: f64 = 8.64e15;

/// Refuses moments that are no dates, and an end before its beginning.
fn checked_span(from: f64, to: f64) -> Result<()> {
    if let Some(ms) = [from, to].into_iter().find(|ms| ms.is_nan() || ms.abs() > LAST_DATE) {
        return Err(Error::InvalidArgument(format!("{ms} is not a date in milliseconds since 1970")));
    }
    if to < from {
        return Err(Error::InvalidArgument(format!(
            "It ends at {to} and begins at {from}, in milliseconds since 1970"
        )));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A clock that is set by hand, in microseconds.
    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn wall_ms(&self) -> u64 {
            1_000_000 + self.steady_ms()
        }

        fn steady_ms(&self) -> u64 {
            self.steady_us() / 1000
        }

        fn steady_us(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn metrics() -> (Arc<Metrics>, Arc<Hand>) {
        let clock = Arc::new(Hand::default());
        let shared: Arc<dyn Clock> = Arc::<Hand>::clone(&clock);
        let held = AtomicU64::new(0);
        let probe = move || {
            let resident = (held.fetch_add(1, Ordering::Relaxed) + 1) << 20;
            ProcessMemory { resident, high_water: 0 }
        };
        (Arc::new(Metrics::with(MetricsOptions::default(), shared, Box::new(probe))), clock)
    }

    fn advance(clock: &Hand, ms: u64) {
        clock.0.fetch_add(ms * 1000, Ordering::Relaxed);
    }

    #[test]
    fn what_is_recorded_is_told() {
        let (metrics, clock) = metrics();
        let recorder = metrics.recorder("embed");
        assert!(metrics.stats("embed").is_none() && metrics.stats("other").is_none());
        advance(&clock, 100);
        recorder.record(Duration::from_millis(100), 32);
        advance(&clock, 50);
        recorder.fail(Duration::from_millis(50));
        let stats = metrics.stats("embed").unwrap();
        assert_eq!((stats.count, stats.errors, stats.items), (2, 1, 32));
        assert_eq!((stats.latency.min, stats.latency.max, stats.latency.mean), (50.0, 100.0, 75.0));
        assert_eq!((stats.first_at, stats.last_at), (1_000_000.0, 1_000_150.0));
        assert_eq!(stats.throughput.whole_run.round(), 213.0);
        assert!(stats.memory.is_none() && stats.histogram.is_empty());

        let mut numbers = Numbers::new(Arc::clone(&metrics));
        let id = numbers.operation("embed").unwrap();
        numbers.record_many(id, &[1.0, 2.0], 4, true).unwrap();
        assert!(numbers.record_many(id, &[1.0, -1.0], 4, true).unwrap_err().to_string().contains("index 1"));
        let cache = numbers.cache("text").unwrap();
        numbers.record_all(
            [(0, Event::Lookup { id: cache, hit: true }), (0, Event::Lookup { id: 99, hit: true })].into_iter(),
        );
        metrics.looked_up("image", 2, 1);
        metrics.looked_up("image", 1, 0);
        numbers.record_with_memory(id, 5, 1, true, Some(MemoryUse { before: 1, after: 3, peak: 9 }));
        let snapshot = metrics.snapshot(true, 10);
        assert_eq!(snapshot.operations[0].count, 5);
        assert_eq!(snapshot.operations[0].memory.unwrap().average_growth, 2.0);
        assert_eq!(snapshot.caches, [CacheUse::new("image", 3, 1), CacheUse::new("text", 1, 0)]);

        metrics.reset();
        assert!(metrics.stats("embed").is_none() && metrics.snapshot(true, 10).caches.is_empty());
        recorder.record(Duration::from_millis(1), 1);
        numbers.record_many(id, &[1.0], 1, true).unwrap();
        assert_eq!(metrics.stats("embed").unwrap().count, 2);
    }

    #[test]
    fn memory_is_looked_at_once_a_millisecond() {
        let (metrics, clock) = metrics();
        assert_eq!(metrics.process_memory().resident, 1 << 20);
        assert_eq!(metrics.process_memory().resident, 1 << 20);
        advance(&clock, 1);
        assert_eq!(metrics.process_memory().resident, 2 << 20);
        let at = |resident, high_water| ProcessMemory { resident, high_water };
        let between = |before, after| MemoryUse::between(before, after).map(|memory| memory.peak);
        assert_eq!(between(at(10, 50), at(20, 50)), Some(20));
        assert_eq!(between(at(10, 50), at(20, 70)), Some(70));
        assert_eq!(between(at(0, 0), at(20, 0)), None);
    }

    #[test]
    fn names_are_bounded() {
        let (metrics, _) = metrics();
        for i in 0..MAX_NAMES + 50 {
            metrics.recorder(&format!("file {i}")).record(Duration::from_millis(1), 1);
        }
        let snapshot = metrics.snapshot(false, 10);
        assert_eq!(snapshot.operations.len(), MAX_NAMES + 1);
        assert_eq!(metrics.stats(OTHERS).unwrap().count, 50);
        let mut numbers = Numbers::new(Arc::clone(&metrics));
        assert!(numbers.operation("").is_err() && numbers.operation(&"ä".repeat(MAX_NAME)).is_ok());
        assert!(numbers.cache(&"ä".repeat(MAX_NAME + 1)).is_err());
        for i in 0..MAX_FAILURES + 1 {
            metrics.failed("a", &format!("{i}{}", "ä".repeat(1000)));
        }
        let errors = metrics.snapshot(false, 10).errors;
        assert_eq!((errors.len(), errors[0].message.chars().count()), (MAX_FAILURES, MAX_MESSAGE));
        assert!(errors[0].message.starts_with("1ä"));
    }

    #[test]
    fn snapshots_merge() {
        let (one, clock) = metrics();
        let (two, other_clock) = metrics();
        for (metrics, clock, count, ms) in [(&one, &clock, 100, 10), (&two, &other_clock, 300, 50)] {
            let recorder = metrics.recorder("embed");
            for _ in 0..count {
                advance(clock, ms);
                recorder.record(Duration::from_millis(ms), 2);
            }
            metrics.looked_up("text", count / 2, count / 2);
            metrics.start_cycle("cycle").unwrap();
            advance(clock, ms);
            metrics.end_cycle("cycle", true).unwrap();
            metrics.failed("embed", &format!("after {ms}"));
        }
        two.recorder("only here").record(Duration::from_millis(1), 1);
        let json = |metrics: &Metrics| serde_json::to_string(&metrics.snapshot(true, 10)).unwrap();
        let mut merged = Snapshot::parse(&json(&one)).unwrap();
        assert_eq!(merged.operations[0].histogram, one.snapshot(true, 10).operations[0].histogram);
        merged.merge(Snapshot::parse(&json(&two)).unwrap()).unwrap();
        let embed = merged.operations.iter().find(|operation| operation.name == "embed").unwrap();
        assert_eq!((embed.count, embed.items, embed.latency.min, embed.latency.max), (400, 800, 10.0, 50.0));
        assert!((embed.latency.p50 - 50.0).abs() < 0.2 && embed.latency.mean == 40.0);
        assert_eq!(embed.throughput.whole_run.round(), (800.0f64 / 15.0).round());
        assert_eq!(merged.operations.len(), 2);
        assert_eq!(merged.caches, [CacheUse::new("text", 200, 200)]);
        assert_eq!((merged.cycles.summary.count, merged.cycles.recent.len()), (2, 2));
        assert_eq!(merged.errors.iter().map(|error| &error.message[..]).collect::<Vec<_>>(), ["after 10", "after 50"]);
        assert!(Snapshot::parse(&serde_json::to_string(&merged).unwrap()).is_ok());
    }

    #[test]
    fn a_snapshot_that_makes_no_sense_is_refused() {
        let (metrics, _) = metrics();
        metrics.recorder("a").record(Duration::from_millis(1), 1);
        let json = serde_json::to_string(&metrics.snapshot(true, 10)).unwrap();
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"count\":1,", "\"count\":2,"),
            ("\"count\":1,", "\"count\":-1,"),
            ("\"name\":\"a\"", "\"name\":\"\""),
            ("embedcore-monitor", "other"),
            ("\"histogram\":[", "\"histogram\":[null,"),
            ("\"min\":1.0", "\"min\":null"),
            ("\"min\":1.0", "\"min\":100.0"),
            ("\"errors\":0", "\"errors\":2"),
            ("\"takenAt\":1000000.0", "\"takenAt\":1e300"),
            ("\"startedAt\":1000000.0", "\"startedAt\":2000000.0"),
            ("\"firstAt\":999999.0", "\"firstAt\":1000001.0"),
            ("\"lastAt\":1000000.0", "\"lastAt\":-1e300"),
            ("\"lastMinute\":", "\"lastMinute\":-1"),
            ("{", ""),
        ] {
            let changed = json.replacen(from, to, 1);
            assert_ne!(changed, json, "{from}");
            assert_eq!(Snapshot::parse(&changed).unwrap_err().code(), "INVALID_ARGUMENT", "{from}");
        }
    }

    #[test]
    fn a_sampler_tells_what_is_new() {
        let (metrics, clock) = metrics();
        let recorder = metrics.recorder("a");
        recorder.record(Duration::from_millis(1000), 1);
        let mut sampler = Sampler::new(Arc::clone(&metrics));
        advance(&clock, 1000);
        assert!(sampler.sample().operations.is_empty());
        recorder.record(Duration::from_millis(10), 5);
        recorder.fail(Duration::from_millis(20));
        metrics.recorder("b").record(Duration::from_millis(1), 1);
        metrics.looked_up("text", 0, 1);
        metrics.start_cycle("c").unwrap();
        advance(&clock, 500);
        let interval = sampler.sample();
        assert_eq!((interval.at, interval.seconds, interval.active), (1_001_500.0, 0.5, 1));
        let [a, b] = &interval.operations[..] else { panic!("{interval:?}") };
        assert_eq!((a.count, a.errors, a.items, b.count), (2, 1, 5, 1));
        assert!((a.max / 20.0 - 1.0).abs() < 0.01 && (a.p50 / 10.0 - 1.0).abs() < 0.01, "{a:?}");
        assert_eq!(interval.caches, [CacheUse::new("text", 0, 1)]);
        metrics.reset();
        recorder.record(Duration::from_millis(3), 7);
        assert_eq!(sampler.sample().operations[0].items, 7);
    }
}
