//! The shared tier: a Redis or Valkey server that many machines have.
//!
//! | part | what it does |
//! |---|---|
//! | `value` | an entry → the bytes that the server keeps, and back |
//! | `queue` | what waits to be written, which is an answer already |
//! | `worker` | the thread that connects, writes and clears |
//! | `changes` | what other machines have changed |
//! | `lookups` | what the server has for keys |
//! | `leases` | which machine computes what |
//! | `link`, `wire` | connections, to one server or a cluster |
//!
//! Lookups ask the server from the thread of their caller, all keys in one round trip. What the server does never fails a
//! call: everything but an answer is a counted miss. Nobody waits for a server that did not answer the last time: the thread
//! finds out in the background whether it does again. That costs one time-out, and no other within [`AFTER_LATE`].
//!
//! What a server holds, it may lose at any moment: eviction and expiry are its own. What it gives is believed only if its
//! checksum holds for the key that was asked for.

mod changes;
#[cfg(fuzzing)]
pub mod fuzzing;
mod leases;
mod link;
mod lookups;
mod queue;
mod value;
mod wire;
mod worker;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis::{Value, cmd};

use super::disk::{Asked, OnDisk};
use super::entry::Entry;
use super::memory::Now;
use super::report::{Counter, Event, Listener, SharedState, SharedStats};
use super::selection::Selection;
use crate::embedding::Key;
use crate::error;
use crate::host::{Clock, threads};
pub(super) use changes::Change;
use changes::Inbox;
use leases::Lease;
use link::{Commands, Link, Servers};
pub(super) use queue::Source;
use queue::{NOT_YET, Op, Put, Queue, Told};
use value::Times;
pub use wire::Target;
use wire::{Trouble, text};

/// How long nobody asks a server that did not answer in time.
const AFTER_LATE: Duration = Duration::from_secs(30);

/// How soon a server that refused a connection, or closed one, is tried again: nobody waits for that.
const AFTER_LOST: Duration = Duration::from_millis(250);

/// How long the server remembers what was deleted, for those who do not hear of it: as long as a file does.
const TOMBSTONE_MS: u64 = 600_000;

/// The latest clearings that it remembers.
const MOST_CLEARED: usize = 64;

/// How long a call waits that asked for nothing but that the server knows.
const LONG: Duration = Duration::from_secs(8);

/// How long a cache that is closed waits.
const DRAIN: Duration = Duration::from_secs(3);

/// What a shared tier is made with.
#[derive(Clone)]
pub struct SharedOptions {
    /// The server.
    pub target: Target,
    /// What the names of all keys begin with.
    pub key_prefix: String,
    /// How long the server keeps an entry at most; `None`: as long as the entry says.
    pub ttl: Option<Duration>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub command_timeout: Duration,
    /// Whether one of all machines computes a value.
    pub leases: bool,
}

impl SharedOptions {
    /// The defaults, for a server.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            key_prefix: "embedcore:".to_owned(),
            ttl: None,
            connect_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_millis(500),
            leases: false,
        }
    }
}

/// Whether the server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody knows yet: calls wait, for as long as an answer may take from when it was begun to connect.
    Connecting,
    Ready,
    /// Not before so many steady ms, and then in the background.
    Open {
        until_ms: u64,
    },
}

struct State {
    queue: Queue,
    phase: Phase,
    /// Until when the server takes no changes, in steady ms.
    suspended_ms: u64,
    /// Failures since the last connection, and refusals since the last change that was taken.
    failures: u32,
    refusals: u32,
    /// When the thread last got on.
    moved: Instant,
    stop: Option<Instant>,
    ended: bool,
}

struct Inner {
    options: SharedOptions,
    servers: Arc<Servers>,
    clock: Arc<dyn Clock>,
    listener: Option<Listener>,
    began: Instant,
    /// Until when all changes of others were heard, by the server's clock.
    heard_ms: AtomicU64,
    state: Mutex<State>,
    /// There is something to do.
    work: Condvar,
    /// Something was done.
    progress: Condvar,
    links: Mutex<Vec<Link>>,
    /// What the server's clock is ahead of the steady one, in ms.
    ahead_ms: AtomicI64,
    /// [`Phase`], to be read without a lock.
    state_now: AtomicU8,
    /// Whether it was told that the server cannot be used, and not yet that it can.
    failing: AtomicBool,
    /// The same of changes, while it can be asked.
    refusing: AtomicBool,
    /// The leases of this cache.
    held: Mutex<HashMap<Key, Lease>>,
    owner: String,
    inbox: Mutex<Inbox>,
    /// Whether there is something in it.
    heard: AtomicBool,
    /// Whether changes of others are heard of, and whether they ever were.
    listening: AtomicBool,
    listened: AtomicBool,
    /// Which run of the server was listened to last, as it says itself: one that is started anew may have lost everything.
    run: Mutex<Option<Option<String>>>,
    /// The connection on which they are, until somebody listens.
    ear: Mutex<Option<Link>>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    hits: Counter,
    misses: Counter,
    skipped: Counter,
    damaged: Counter,
    errors: Counter,
    timeouts: Counter,
    written: Counter,
    dropped: Counter,
    latencies: Mutex<(usize, Vec<f64>)>,
}

/// A deletion that is on its way to the server.
pub(super) struct Ticket {
    number: u64,
    told: Told,
}

pub(super) struct Shared {
    inner: Arc<Inner>,
}

impl Shared {
    /// Starts the thread, which connects. Does not wait for it.
    ///
    /// # Errors
    /// [`error::Error::Threads`].
    pub fn new(options: SharedOptions, clock: Arc<dyn Clock>, listener: Option<Listener>) -> error::Result<Self> {
        let state = State {
            queue: Queue::default(),
            phase: Phase::Connecting,
            suspended_ms: 0,
            failures: 0,
            refusals: 0,
            moved: Instant::now(),
            stop: None,
            ended: false,
        };
        let inner = Arc::new(Inner {
            servers: Arc::new(Servers::new(options.target.clone())),
            options,
            clock,
            listener,
            began: Instant::now(),
            heard_ms: AtomicU64::default(),
            state: Mutex::new(state),
            work: Condvar::new(),
            progress: Condvar::new(),
            links: Mutex::default(),
            ahead_ms: AtomicI64::new(0),
            state_now: AtomicU8::new(SharedState::Connecting as u8),
            failing: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            held: Mutex::default(),
            owner: leases::owner(),
            inbox: Mutex::default(),
            heard: AtomicBool::new(false),
            listening: AtomicBool::new(false),
            listened: AtomicBool::new(false),
            run: Mutex::default(),
            ear: Mutex::default(),
            counters: Counters::default(),
        });
        let serving = Arc::clone(&inner);
        threads::start("embedcore-shared".to_owned(), move || worker::serve(&serving))?;
        let listening = Arc::clone(&inner);
        threads::start("embedcore-changes".to_owned(), move || changes::listen(&listening))?;
        Ok(Self { inner })
    }

    /// Whether it would be asked, or waited for until it is known whether it can be. Never waits.
    pub fn asks(&self) -> bool {
        self.inner.state_now.load(Ordering::Acquire) != SharedState::Open as u8
    }

    /// What other machines have changed since the last time, by this machine's clock. Never waits.
    pub fn changes(&self) -> Vec<Change> {
        let heard = &self.inner.heard;
        if heard.load(Ordering::Acquire) && heard.swap(false, Ordering::AcqRel) {
            let times = self.inner.times();
            return lock(&self.inner.inbox).take().into_iter().map(|change| change.at(|ms| times.here(ms))).collect();
        }
        Vec::new()
    }

    /// Counts lookups that it was not asked.
    pub fn skip(&self, count: usize) {
        self.inner.counters.skipped.add(count);
        self.inner.counters.misses.add(count);
    }

    /// Looks keys up. Waits for the server, for as long as an answer may take.
    pub fn get(&self, asked: &[Asked], now: Now) -> Vec<OnDisk> {
        self.count(self.inner.get(asked, now))
    }

    /// The same, if there is an answer within about [`BRIEF`].
    pub fn get_now(&self, asked: &[Asked], now: Now) -> Option<Vec<OnDisk>> {
        Some(self.count(self.inner.get_now(asked, now)?))
    }

    fn count(&self, (found, unasked): (Vec<OnDisk>, usize)) -> Vec<OnDisk> {
        let inner = &*self.inner;
        let count = |which: fn(&OnDisk) -> bool| found.iter().filter(|found| which(found)).count();
        let (hits, damaged) =
            (count(|found| matches!(found, OnDisk::Hit(_))), count(|found| *found == OnDisk::Damaged));
        inner.counters.hits.add(hits);
        inner.counters.misses.add(found.len() - hits);
        inner.counters.skipped.add(unasked);
        if damaged > 0 {
            inner.counters.damaged.add(damaged);
            inner.tell(|server| Event::SharedDamaged { server, values: damaged });
        }
        found
    }

    /// The same, in no statistics.
    pub fn look(&self, asked: &[Asked], now: Now) -> Vec<OnDisk> {
        self.inner.get(asked, now).0
    }

    /// Queues entries. Never waits.
    pub fn put(&self, entries: impl IntoIterator<Item = (Key, Arc<Entry>, Source)>) {
        let now_ms = self.inner.clock.steady_ms();
        let mut state = self.inner.state();
        let mut dropped = 0;
        for (key, entry, source) in entries {
            let token = self.inner.token(&key).filter(|_| source != Source::Set);
            dropped += state.push(Op::Put(Put { key, entry, source, token }), now_ms);
        }
        drop(state);
        self.inner.counters.dropped.add(dropped);
        self.inner.work.notify_one();
    }

    /// Queues the deletion of a key.
    pub fn delete(&self, key: Key) -> Ticket {
        let told = Told::new(NOT_YET.into());
        let at_ms = Some(self.inner.clock.wall_ms());
        Ticket { number: self.inner.queue_one(Op::Delete(key, Arc::clone(&told), at_ms)), told }
    }

    /// When keys that the server does not have were deleted, in wall time, as far as it remembers. Waits for the server.
    pub fn deleted(&self, keys: &[Key]) -> Vec<Option<u64>> {
        let inner = &*self.inner;
        let (mut commands, times) = (Commands::default(), inner.times());
        for key in keys {
            let name = inner.tombstone_name(key);
            commands.push(name.as_bytes(), cmd("GET").arg(&name));
        }
        let read = |_, answer| match answer {
            Ok(value @ Value::BulkString(_)) => text(&value).parse().ok().map(|ms| times.here(ms)),
            _ => None,
        };
        inner.exchange(&commands, None, read).unwrap_or_else(|trouble| {
            inner.failed(&trouble);
            vec![None; keys.len()]
        })
    }

    /// Queues the deletion of all entries that a selection covers.
    pub fn clear(&self, selection: Selection) -> Ticket {
        let told = Told::new(NOT_YET.into());
        Ticket { number: self.inner.queue_one(Op::Clear(selection.into(), Arc::clone(&told))), told }
    }

    /// Waits until the server knows of a deletion, as long as it can be told; how many entries there were. Until it knows,
    /// none of them is an answer for this cache.
    pub fn resolve(&self, ticket: &Ticket) -> Option<usize> {
        self.inner.wait_for(ticket.number, None);
        Some(ticket.told.load(Ordering::Acquire)).filter(|count| *count != NOT_YET)
    }

    /// Waits until the server knows of all changes, as long as it can be told.
    pub fn flush(&self) {
        let last = self.inner.state().queue.last;
        self.inner.wait_for(last, Some(LONG));
    }

    /// Writes what is queued and ends the thread, without waiting for it.
    pub fn begin_close(&self) {
        let inner = &*self.inner;
        inner.release_all();
        let mut state = inner.state();
        state.stop.get_or_insert_with(|| Instant::now() + DRAIN);
        drop(state);
        inner.work.notify_all();
        inner.progress.notify_all();
    }

    /// Writes what is queued and ends the thread; [`DRAIN`] at most, and no longer than the server answers.
    pub fn close(&self) {
        self.begin_close();
        let mut state = self.inner.state();
        while !state.ended && state.stop.is_some_and(|stop| stop > Instant::now()) {
            state = self.inner.wait(&self.inner.progress, state, DRAIN);
        }
        drop(state);
        self.inner.links().clear();
    }

    pub fn stats(&self) -> SharedStats {
        let inner = &*self.inner;
        let (queued, phase) = {
            let state = inner.state();
            (state.queue.len(), state.phase)
        };
        let counters = &inner.counters;
        let mut latencies = lock(&counters.latencies).1.clone();
        latencies.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or_default();
        SharedStats {
            state: phase.state(),
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            skipped: counters.skipped.get(),
            damaged: counters.damaged.get(),
            errors: counters.errors.get(),
            timeouts: counters.timeouts.get(),
            queued,
            written: counters.written.get(),
            dropped: counters.dropped.get(),
            latency_ms: [at(0.5), at(0.95), at(0.99)],
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.begin_close();
    }
}

impl Phase {
    fn state(self) -> SharedState {
        match self {
            Self::Connecting => SharedState::Connecting,
            Self::Ready => SharedState::Ready,
            Self::Open { .. } => SharedState::Open,
        }
    }
}

impl State {
    fn push(&mut self, op: Op, now_ms: u64) -> usize {
        if self.ended {
            return usize::from(matches!(op, Op::Put(_)));
        }
        self.queue.push(op, now_ms)
    }

    /// Whether changes get to the server now, as far as anybody knows.
    fn writes(&self, now_ms: u64) -> bool {
        !self.ended && !matches!(self.phase, Phase::Open { .. }) && now_ms >= self.suspended_ms
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn links(&self) -> MutexGuard<'_, Vec<Link>> {
        lock(&self.links)
    }

    fn wait<'s>(&self, condition: &Condvar, state: MutexGuard<'s, State>, most: Duration) -> MutexGuard<'s, State> {
        condition.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0
    }

    fn tell(&self, event: impl FnOnce(String) -> Event) {
        if let Some(listener) = &self.listener {
            listener(event(self.options.target.node().to_string()));
        }
    }

    fn enter(&self, state: &mut State, phase: Phase) {
        state.phase = phase;
        self.state_now.store(phase.state() as u8, Ordering::Release);
        self.progress.notify_all();
        self.work.notify_one();
    }

    fn queue_one(&self, op: Op) -> u64 {
        let now_ms = self.clock.steady_ms();
        let mut state = self.state();
        state.push(op, now_ms);
        let number = state.queue.last;
        drop(state);
        self.work.notify_one();
        number
    }

    /// The server did not answer: for a while nobody asks.
    fn failed(&self, trouble: &Trouble) {
        self.counters.errors.add(1);
        self.links().clear();
        let reason = {
            let mut state = self.state();
            let (pause, reason) = match trouble {
                Trouble::Late => {
                    self.counters.timeouts.add(1);
                    (AFTER_LATE, "it did not answer in time".to_owned())
                }
                Trouble::Lost(reason) => {
                    let pause = AFTER_LOST.saturating_mul(1 << state.failures.min(7));
                    (pause.min(AFTER_LATE), reason.clone())
                }
                Trouble::Refused(reason) => (AFTER_LATE, reason.clone()),
            };
            state.failures = state.failures.saturating_add(1);
            let until_ms = self.clock.steady_ms() + pause.as_millis() as u64;
            self.enter(&mut state, Phase::Open { until_ms });
            reason
        };
        if !self.failing.swap(true, Ordering::AcqRel) {
            self.tell(|server| Event::SharedFailed { server, reason });
        }
    }

    /// The server can be asked.
    fn works(&self) {
        let mut state = self.state();
        self.enter(&mut state, Phase::Ready);
        drop(state);
        if self.failing.swap(false, Ordering::AcqRel) {
            self.tell(|server| Event::SharedRestored { server });
        }
    }

    /// The server takes no changes.
    fn refuses(&self, reason: String) {
        if !self.refusing.swap(true, Ordering::AcqRel) {
            self.tell(|server| Event::SharedFailed { server, reason: format!("it takes no changes: {reason}") });
        }
    }

    /// The server has taken changes.
    fn takes(&self) {
        if self.refusing.load(Ordering::Acquire) && self.refusing.swap(false, Ordering::AcqRel) {
            self.tell(|server| Event::SharedRestored { server });
        }
    }

    /// Waits until a change is done, as long as the thread gets on.
    fn wait_for(&self, number: u64, most: Option<Duration>) {
        let began = Instant::now();
        let patience = self.options.connect_timeout + 2 * self.options.command_timeout;
        let mut state = self.state();
        while state.queue.done < number && state.writes(self.clock.steady_ms()) {
            let idle = state.moved.max(began).elapsed();
            if idle >= patience || most.is_some_and(|most| began.elapsed() >= most) {
                return;
            }
            state = self.wait(&self.progress, state, Duration::from_millis(50));
        }
    }

    fn times(&self) -> Times {
        let ahead_ms = self.ahead_ms.load(Ordering::Acquire);
        Times { wall_ms: self.clock.wall_ms(), server_ms: self.clock.steady_ms().saturating_add_signed(ahead_ms) }
    }

    /// What the server calls the entry of a key. In braces: a cluster has what belongs to a key on one server.
    fn name(&self, key: &Key) -> String {
        format!("{}{{{}}}", self.options.key_prefix, URL_SAFE_NO_PAD.encode(key.as_bytes()))
    }

    /// Where it says when that was deleted.
    fn tombstone_name(&self, key: &Key) -> String {
        format!("{}deleted:{{{}}}", self.options.key_prefix, URL_SAFE_NO_PAD.encode(key.as_bytes()))
    }

    /// Where it says what was cleared.
    fn cleared_name(&self) -> String {
        format!("{}cleared", self.options.key_prefix)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
