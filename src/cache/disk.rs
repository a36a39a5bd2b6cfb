//! The disk tier: a queue, one thread that writes it to the file in batches, and a few connections that read.
//!
//! What is queued is already an answer; a full queue makes the caller wait and loses nothing. Whatever happens to the
//! file is counted and told as an event; no lookup ever fails because of it. While the file cannot be used, the keys
//! that it would have answered wrongly are remembered and deleted once it works again.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::memory::Now;
use super::report::{Counter, DiskStats, Event, Listener};
use super::store::{self, Batch, Fault, Identity, Reader, Row, Stored, Tidied, Usage, Writer};
use crate::embedding::{Key, Space};
use crate::host::Clock;

/// What may wait in the queue before callers do. Bytes, because entries have any size; number, because small ones have
/// a price, too.
const QUEUE_ENTRIES: usize = 16_384;
const QUEUE_BYTES: usize = 32 << 20;

/// What one transaction writes at most: some ten milliseconds, for which other processes wait.
const BATCH_ENTRIES: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;

/// How long the first entry of a batch waits for others. A process that ends without `close` loses no more than this.
const LINGER: Duration = Duration::from_millis(10);

/// Connections that are kept for reading; more are opened when more threads read at once, and closed afterwards.
const READERS: usize = 4;

/// How often a batch is tried again while another process holds the file, each time after SQLite's own patience.
const BUSY_ATTEMPTS: usize = 12;

/// How long the file is left alone after an error.
pub(super) const RETRY_AFTER_MS: u64 = 30_000;

/// How old the noted time of use of a row must be to be written again: reading must not become writing.
pub(super) const TOUCH_AFTER_MS: u64 = 600_000;

/// Keys that are remembered while the file cannot be used; beyond, all of it is forgotten instead.
const TOMBSTONES: usize = 100_000;

/// Rows whose use waits to be noted.
const TOUCHES: usize = 4096;

/// What a disk tier is made with.
#[derive(Debug, Clone)]
pub(super) struct DiskOptions {
    pub path: PathBuf,
    pub max_bytes: Option<u64>,
    pub retry_after_ms: u64,
    pub touch_after_ms: u64,
}

/// What a lookup finds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum OnDisk {
    Hit(Arc<Entry>),
    Absent,
    Expired,
    Changed,
    Damaged,
}

/// A key, and the hash of the content that the entry must have been made from, if that matters.
pub(super) type Asked = (Key, Option<[u8; 32]>);

/// What a lookup finds before it reads the file.
struct Glance {
    found: Vec<OnDisk>,
    /// Places of the probes that are left.
    asked: Vec<usize>,
    clears: Vec<Clearing>,
}

/// How far somebody has followed the file.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    generation: u64,
    row: i64,
}

/// One change, in the order of the callers.
enum Op {
    Put(Key, Arc<Entry>),
    Delete { key: Key, only: Option<i64> },
    Repair(Key),
    Clear { space: Option<i64>, kind: Option<Box<str>> },
    Release(Vec<Key>),
}

impl Op {
    fn bytes(&self) -> usize {
        match self {
            Self::Put(_, entry) => entry.payload_bytes(),
            _ => 0,
        }
    }
}

/// A clear that is on its way: its number, and the space and kind that it covers.
type Clearing = (u64, Option<i64>, Option<Box<str>>);

/// Work for the writing thread that somebody waits for.
type Call = Box<dyn FnOnce(Result<&mut Writer, &Fault>) + Send>;

struct Pending {
    number: u64,
    /// `None`: deleted.
    entry: Option<Arc<Entry>>,
}

/// Whether the file is in use.
#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// Not opened yet: lookups wait.
    Opening,
    Ready,
    /// After an error, until so many steady ms.
    Suspended {
        until_ms: u64,
        fault: Fault,
    },
    /// For good.
    Off(Fault),
}

struct Queue {
    ops: VecDeque<(u64, Op)>,
    calls: VecDeque<Call>,
    /// The newest change of each key that is in `ops` or being written.
    pending: HashMap<Key, Pending>,
    /// Clears that are in `ops` or being written.
    clears: Vec<Clearing>,
    touches: HashMap<i64, u64>,
    /// Number of the latest change, and of the latest one that is done.
    last: u64,
    done: u64,
    bytes: usize,
    /// Entries that were lost since the last flush.
    lost: u64,
    phase: Phase,
    /// Somebody waits for the queue to be empty.
    hurry: usize,
    /// The thread waits for the first change.
    idle: bool,
    /// A reader found the file of this identity broken.
    broken: Option<String>,
    stop: bool,
    ended: bool,
}

struct Shared {
    options: DiskOptions,
    clock: Arc<dyn Clock>,
    listener: Option<Listener>,
    owner: [u8; 16],
    queue: Mutex<Queue>,
    /// There is something to do.
    work: Condvar,
    /// Something was done.
    progress: Condvar,
    readers: Mutex<Vec<(u64, Reader)>>,
    /// Held by those who read, and alone by who opens the file or puts another one in its place: SQLite cuts the log's
    /// index to nothing when it opens one, which is a SIGBUS for whoever of this process still reads the old one.
    using: RwLock<()>,
    /// Which opening of the file readers belong to.
    generation: AtomicU64,
    /// Whether the order of its keys is to be checked: of each file that is opened, once, and where there was damage.
    unchecked: AtomicBool,
    counters: DiskCounters,
}

#[derive(Default)]
struct DiskCounters {
    entries: Counter,
    bytes: Counter,
    written: Counter,
    lost: Counter,
    evicted: Counter,
    damaged: Counter,
    errors: Counter,
}

pub(super) struct Disk {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Disk {
    /// Starts the thread, which opens the file. Does not wait for it.
    pub fn new(options: DiskOptions, clock: Arc<dyn Clock>, listener: Option<Listener>) -> Result<Self, String> {
        let queue = Queue {
            ops: VecDeque::new(),
            calls: VecDeque::new(),
            pending: HashMap::new(),
            clears: Vec::new(),
            touches: HashMap::new(),
            last: 0,
            done: 0,
            bytes: 0,
            lost: 0,
            phase: Phase::Opening,
            hurry: 0,
            idle: false,
            broken: None,
            stop: false,
            ended: false,
        };
        let shared = Arc::new(Shared {
            options,
            clock,
            listener,
            owner: random(),
            queue: Mutex::new(queue),
            work: Condvar::new(),
            progress: Condvar::new(),
            readers: Mutex::default(),
            using: RwLock::default(),
            generation: AtomicU64::new(0),
            unchecked: AtomicBool::new(true),
            counters: DiskCounters::default(),
        });
        let serving = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("embedcore-cache".to_owned())
            .spawn(move || serve(&serving))
            .map_err(|error| error.to_string())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Whether a change would be taken at once.
    pub fn has_room(&self) -> bool {
        let queue = self.shared.queue();
        queue.phase != Phase::Opening && !queue.full()
    }

    /// Queues entries; waits while the queue is full.
    pub fn put(&self, entries: impl IntoIterator<Item = (Key, Arc<Entry>)>) {
        let mut queue = self.shared.queue();
        for (key, entry) in entries {
            while queue.full() && queue.accepts() {
                self.shared.wake(&mut queue);
                queue = self.shared.wait(&self.shared.progress, queue);
            }
            self.shared.enqueue(&mut queue, Op::Put(key, entry));
        }
        self.shared.wake(&mut queue);
    }

    /// Queues the deletion of a key.
    pub fn delete(&self, key: Key) {
        self.shared.queue_one(Op::Delete { key, only: None });
    }

    /// Queues the deletion of all entries of a space and kind; absent ones stand for all.
    pub fn clear(&self, space: Option<i64>, kind: Option<&str>) {
        self.shared.queue_one(Op::Clear { space, kind: kind.map(Into::into) });
    }

    /// Looks keys up. What no longer is an answer is deleted.
    pub fn get(&self, probes: &[Asked], now: Now) -> Vec<OnDisk> {
        let mut queue = self.shared.queue();
        while queue.phase == Phase::Opening {
            queue = self.shared.wait(&self.shared.progress, queue);
        }
        let Glance { mut found, asked, clears } = self.glance(queue, probes, now);
        if !asked.is_empty() {
            let outcome = self.shared.read(|reader| self.look(reader, probes, &asked, &clears, now, &mut found));
            if let Err(fault) = outcome {
                self.shared.read_failed(fault);
            }
        }
        found
    }

    /// [`Disk::get`] for one, unless another thread or process would have to be waited for.
    pub fn get_now(&self, probe: &Asked, now: Now) -> Option<OnDisk> {
        let queue = self.shared.queue();
        if queue.phase == Phase::Opening {
            return None;
        }
        let probes = std::slice::from_ref(probe);
        let Glance { mut found, asked, clears } = self.glance(queue, probes, now);
        if !asked.is_empty() {
            let _using = self.shared.using.try_read().ok()?;
            let reader = self.shared.spare_reader()?;
            let outcome = self.look(&reader.1, probes, &asked, &clears, now, &mut found);
            self.shared.keep(reader);
            match outcome {
                Err(Fault::Busy(_)) => return None,
                Err(fault) => self.shared.read_failed(fault),
                Ok(()) => {}
            }
        }
        found.pop()
    }

    /// What is queued, and what is left to be read.
    fn glance(&self, mut queue: MutexGuard<Queue>, probes: &[Asked], now: Now) -> Glance {
        let mut glance = Glance { found: vec![OnDisk::Absent; probes.len()], asked: Vec::new(), clears: Vec::new() };
        let mut changed = Vec::new();
        for (at, (key, content)) in probes.iter().enumerate() {
            match queue.pending.get(key) {
                Some(Pending { entry: Some(entry), .. }) => {
                    glance.found[at] = judge(entry, content.as_ref(), now);
                    if glance.found[at] == OnDisk::Changed {
                        changed.push(*key);
                    }
                }
                Some(Pending { entry: None, .. }) => {}
                None => glance.asked.push(at),
            }
        }
        for key in changed {
            self.shared.enqueue(&mut queue, Op::Delete { key, only: None });
        }
        if queue.phase != Phase::Ready || queue.ended {
            glance.asked.clear();
        }
        glance.clears.clone_from(&queue.clears);
        glance
    }

    /// Reads what is left.
    fn look(
        &self,
        reader: &Reader,
        probes: &[Asked],
        asked: &[usize],
        clears: &[Clearing],
        now: Now,
        found: &mut [OnDisk],
    ) -> Result<(), Fault> {
        let mut rows = asked.iter();
        let mut after = Vec::new();
        let mut touches = Vec::new();
        let outcome = reader.get(asked.iter().map(|&at| &probes[at].0), |row| {
            let Some(&at) = rows.next() else { return };
            let (key, content) = &probes[at];
            found[at] = match row {
                Row::Absent => OnDisk::Absent,
                Row::Damaged => {
                    after.push(Op::Repair(*key));
                    OnDisk::Damaged
                }
                Row::Found(stored) if covered(clears, &stored.entry) => OnDisk::Absent,
                Row::Found(Stored { id, used_ms, checksum, entry }) => {
                    let verdict = judge(&Arc::new(entry), content.as_ref(), now);
                    if !matches!(verdict, OnDisk::Hit(_)) {
                        after.push(Op::Delete { key: *key, only: Some(checksum) });
                    } else if used_ms + self.shared.options.touch_after_ms <= now.wall_ms {
                        touches.push((id, now.wall_ms));
                    }
                    verdict
                }
            };
        });
        self.follow_up(after, touches);
        outcome
    }

    fn follow_up(&self, after: Vec<Op>, touches: Vec<(i64, u64)>) {
        let damaged = after.iter().filter(|op| matches!(op, Op::Repair(_))).count();
        // Without a limit nobody asks which entry was used last.
        let touches = if self.shared.options.max_bytes.is_some() { touches } else { Vec::new() };
        if after.is_empty() && touches.is_empty() {
            return;
        }
        let mut queue = self.shared.queue();
        for op in after {
            self.shared.enqueue(&mut queue, op);
        }
        for (id, used_ms) in touches {
            if queue.touches.len() < TOUCHES {
                queue.touches.insert(id, used_ms);
            }
        }
        self.shared.wake(&mut queue);
        drop(queue);
        if damaged > 0 {
            self.shared.counters.damaged.add(damaged);
            self.shared.unchecked.store(true, Ordering::Release);
            self.shared.tell(|path| Event::RowsDamaged { path, rows: damaged });
        }
    }

    /// Whether the file can be asked. Waits until it is opened.
    pub fn ready(&self) -> bool {
        let mut queue = self.shared.queue();
        while queue.phase == Phase::Opening {
            queue = self.shared.wait(&self.shared.progress, queue);
        }
        queue.phase == Phase::Ready && !queue.ended
    }

    /// Calls `each` with every entry of a space that is an answer and was written, by whatever process, since `seen`;
    /// if that is of no use any more, with all, and with those that are queued. Gives what has been seen now, `None` if the
    /// file could not be read.
    pub fn scan(&self, space: i64, seen: Seen, now: Now, mut each: impl FnMut(Key, Arc<Entry>)) -> Option<Seen> {
        let generation = self.shared.generation.load(Ordering::Acquire);
        let after = if seen.generation == generation { seen.row } else { 0 };
        let (waiting, clears) = {
            let queue = self.shared.queue();
            if queue.phase != Phase::Ready || queue.ended {
                return None;
            }
            // What is queued later is told to whoever follows.
            let waiting = queue.pending.iter().filter(|_| after == 0);
            let waiting = waiting.map(|(key, pending)| (*key, pending.entry.clone()));
            (waiting.collect::<HashMap<_, _>>(), queue.clears.clone())
        };
        for (key, entry) in &waiting {
            if let Some(entry) = entry
                && entry.space == space
                && entry.live(now.wall_ms)
            {
                each(*key, Arc::clone(entry));
            }
        }
        let outcome = self.shared.read(|reader| {
            reader.scan(space, after, |key, stored| {
                let entry = stored.entry;
                // What is queued is newer than its row.
                let old = || waiting.contains_key(&key) || self.shared.queue().pending.contains_key(&key);
                if entry.live(now.wall_ms) && !covered(&clears, &entry) && !old() {
                    each(key, Arc::new(entry));
                }
            })
        });
        let row = outcome.map_err(|fault| self.shared.read_failed(fault)).ok()?;
        Some(Seen { generation, row })
    }

    /// Length of the vectors of a space, which `first` decides if there are none yet. `None`: the file does not say.
    pub fn dimensions_of(&self, space: &Space, first: usize) -> Option<usize> {
        let (id, now_ms) = (space.id(), self.shared.clock.wall_ms());
        let being_cleared = |(_, space, kind): &Clearing| kind.is_none() && space.is_none_or(|space| space == id);
        if self.shared.queue().clears.iter().any(being_cleared) {
            return None;
        }
        let ask = move |writer: &mut Writer| {
            writer.transaction(now_ms, |batch| batch.dimensions_of(id, first)).map(|(dimensions, _)| dimensions)
        };
        self.shared.call(ask).ok()
    }

    /// Waits until everything that was queued before is in the file and would survive a loss of power.
    pub fn flush(&self) -> Result<(), String> {
        let lost = {
            let mut queue = self.shared.queue();
            let target = queue.last;
            queue.hurry += 1;
            self.shared.work.notify_one();
            while queue.done < target && !queue.ended && !matches!(queue.phase, Phase::Off(_)) {
                if matches!(queue.phase, Phase::Suspended { .. }) {
                    break;
                }
                queue = self.shared.wait(&self.shared.progress, queue);
            }
            queue.hurry -= 1;
            if let Phase::Suspended { fault, .. } | Phase::Off(fault) = &queue.phase {
                return Err(fault.reason().to_owned());
            }
            std::mem::take(&mut queue.lost)
        };
        if lost > 0 {
            return Err(format!("{lost} entries could not be written"));
        }
        if self.shared.queue().ended {
            return Ok(());
        }
        self.shared.call(|writer| writer.sync()).map_err(|fault| fault.reason().to_owned())
    }

    /// Takes leases that are free, for `lifetime`; whether each is ours now. Without a file there is nobody to share
    /// with.
    pub fn acquire(&self, keys: &[Key], lifetime: Duration) -> Vec<bool> {
        let (wanted, owner) = (keys.to_vec(), self.shared.owner);
        let clock = Arc::clone(&self.shared.clock);
        let acquire = move |writer: &mut Writer| {
            let now = clock.wall_ms();
            let until = now + lifetime.as_millis() as u64;
            writer.transaction(now, |batch| batch.acquire(&wanted, &owner, now, until)).map(|(granted, _)| granted)
        };
        self.shared.call(acquire).unwrap_or_else(|_| vec![true; keys.len()])
    }

    /// Gives leases back, after everything that was queued before is visible to others.
    pub fn release(&self, keys: Vec<Key>) {
        self.shared.queue_one(Op::Release(keys));
    }

    /// Maintenance in small steps, between which the queue is served, until there is no more to do or `budget` is over.
    pub fn tidy(&self, budget: Duration) -> Tidied {
        let started = Instant::now();
        let mut total = Tidied::default();
        self.check_order();
        loop {
            let clock = Arc::clone(&self.shared.clock);
            let Ok(step) = self.shared.call(move |writer| writer.tidy(clock.wall_ms())) else { return total };
            total.expired += step.expired;
            total.evicted += step.evicted;
            total.pages += step.pages;
            total.more = step.more;
            if !step.more || started.elapsed() >= budget {
                break;
            }
        }
        self.shared.counters.evicted.add(total.evicted);
        if let Ok(usage) = self.shared.call(|writer| writer.usage()) {
            self.shared.note_usage(usage);
        }
        total
    }

    /// Finds out whether there are rows that no search finds, and then makes the index anew.
    fn check_order(&self) {
        if !self.ready() || !self.shared.unchecked.swap(false, Ordering::AcqRel) {
            return;
        }
        match self.shared.read(Reader::in_order) {
            Ok(true) => {}
            Ok(false) => {
                self.shared.counters.errors.add(1);
                let now_ms = self.shared.clock.wall_ms();
                match self.shared.call(move |writer| writer.reindex(now_ms)) {
                    Ok(()) => self.shared.tell(|path| Event::IndexRebuilt { path }),
                    Err(_) => self.shared.unchecked.store(true, Ordering::Release),
                }
            }
            Err(fault) => self.shared.read_failed(fault),
        }
    }

    /// Writes what is queued, ends the thread and closes the file. May be called any number of times.
    pub fn close(&self) {
        self.begin_close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread {
            Some(thread) => drop(thread.join()),
            // Another thread closes it: wait as long as that one does.
            None => {
                let mut queue = self.shared.queue();
                while !queue.ended {
                    queue = self.shared.wait(&self.shared.progress, queue);
                }
            }
        }
    }

    fn begin_close(&self) {
        self.shared.queue().stop = true;
        self.shared.work.notify_all();
    }

    pub fn stats(&self) -> DiskStats {
        let counters = &self.shared.counters;
        let queue = self.shared.queue();
        DiskStats {
            available: queue.phase == Phase::Ready && !queue.ended,
            entries: counters.entries.get(),
            bytes: counters.bytes.get(),
            queued: queue.ops.len(),
            written: counters.written.get(),
            lost: counters.lost.get(),
            evicted: counters.evicted.get(),
            damaged: counters.damaged.get(),
            errors: counters.errors.get(),
        }
    }

    #[cfg(test)]
    pub fn execute(&self, sql: &'static str) {
        self.shared.call(move |writer| writer.execute(sql)).unwrap();
    }
}

impl Drop for Disk {
    /// Lets the thread write what is queued and end, without waiting for it.
    fn drop(&mut self) {
        self.begin_close();
    }
}

fn judge(entry: &Arc<Entry>, content: Option<&[u8; 32]>, now: Now) -> OnDisk {
    if !entry.live(now.wall_ms) {
        OnDisk::Expired
    } else if !entry.matches(content) {
        OnDisk::Changed
    } else {
        OnDisk::Hit(Arc::clone(entry))
    }
}

/// Whether a row is about to be cleared.
fn covered(clears: &[Clearing], entry: &Entry) -> bool {
    clears.iter().any(|(_, space, kind)| clears_entry(*space, kind.as_deref(), entry))
}

fn clears_entry(space: Option<i64>, kind: Option<&str>, entry: &Entry) -> bool {
    space.is_none_or(|space| space == entry.space) && kind.is_none_or(|kind| *kind == *entry.kind)
}

/// Tells this cache from all others in the world: the standard library seeds its maps with the system's randomness.
fn random() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let mut bytes = [0; 16];
    for half in bytes.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(std::process::id()).to_le_bytes());
    }
    bytes
}

impl Queue {
    fn full(&self) -> bool {
        self.ops.len() >= QUEUE_ENTRIES || self.bytes >= QUEUE_BYTES
    }

    /// Whether entries that are queued now will be written, as far as anybody knows.
    fn accepts(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Ready) && !self.stop
    }

    /// Keeps of a change what must not be forgotten although the entry cannot be written.
    fn bury(&mut self, number: u64, op: Op) -> usize {
        let lost = usize::from(matches!(op, Op::Put(..)));
        let op = match op {
            Op::Put(key, _) => Op::Delete { key, only: None },
            Op::Delete { .. } | Op::Clear { .. } => op,
            Op::Repair(_) | Op::Release(_) => return 0,
        };
        let op = if self.ops.len() < TOMBSTONES {
            op
        } else {
            self.ops.clear();
            self.pending.clear();
            self.clears.clear();
            Op::Clear { space: None, kind: None }
        };
        // Once the file works again, none of it may answer before it is deleted.
        match &op {
            Op::Delete { key, .. } => drop(self.pending.insert(*key, Pending { number, entry: None })),
            Op::Clear { space, kind } => self.clears.push((number, *space, kind.clone())),
            _ => {}
        }
        self.ops.push_back((number, op));
        lost
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&self, condition: &Condvar, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        condition.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: impl FnOnce(PathBuf) -> Event) {
        if let Some(listener) = &self.listener {
            listener(event(self.options.path.clone()));
        }
    }

    fn note_usage(&self, usage: Usage) {
        self.counters.entries.set(usage.entries);
        self.counters.bytes.set(usage.bytes);
    }

    fn queue_one(&self, op: Op) {
        let mut queue = self.queue();
        self.enqueue(&mut queue, op);
        self.wake(&mut queue);
    }

    /// Tells the thread about changes. One that already gathers a batch is left alone until the batch is full: waking
    /// it costs more than queueing.
    fn wake(&self, queue: &mut Queue) {
        if std::mem::take(&mut queue.idle) || queue.ops.len() >= BATCH_ENTRIES {
            self.work.notify_one();
        }
    }

    fn enqueue(&self, queue: &mut Queue, op: Op) {
        if queue.ended || matches!(queue.phase, Phase::Off(_)) {
            self.counters.lost.add(usize::from(matches!(op, Op::Put(..))));
            return;
        }
        queue.last += 1;
        let number = queue.last;
        if let Phase::Suspended { until_ms, .. } = queue.phase
            && self.clock.steady_ms() < until_ms
        {
            queue.done = number;
            let lost = queue.bury(number, op);
            queue.lost += lost as u64;
            self.counters.lost.add(lost);
            return;
        }
        match &op {
            Op::Put(key, entry) => {
                queue.pending.insert(*key, Pending { number, entry: Some(Arc::clone(entry)) });
            }
            Op::Delete { key, only: None } => {
                queue.pending.insert(*key, Pending { number, entry: None });
            }
            Op::Clear { space, kind } => {
                queue.pending.retain(|_, pending| {
                    pending.entry.as_ref().is_none_or(|entry| !clears_entry(*space, kind.as_deref(), entry))
                });
                queue.clears.push((number, *space, kind.clone()));
            }
            // Nobody needs to see that row again, and a newer one of another process is not missed for long.
            Op::Delete { key, only: Some(_) } => {
                queue.pending.entry(*key).or_insert(Pending { number, entry: None });
            }
            Op::Repair(_) | Op::Release(_) => {}
        }
        queue.bytes += op.bytes();
        queue.ops.push_back((number, op));
    }

    /// Has the writing thread do something and waits for it.
    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let call: Call = Box::new(move |writer| {
            // Whoever asked may have gone.
            sender.send(writer.map_err(|fault| fault.clone()).and_then(work)).ok();
        });
        {
            let mut queue = self.queue();
            if let Phase::Suspended { fault, .. } | Phase::Off(fault) = &queue.phase {
                return Err(fault.clone());
            }
            if queue.ended {
                return Err(Fault::Unavailable("the cache is closed".to_owned()));
            }
            queue.calls.push_back(call);
        }
        self.work.notify_one();
        let closed = || Err(Fault::Unavailable("the cache is closed".to_owned()));
        let answer = receiver.recv().unwrap_or_else(|_| closed());
        if let Err(Fault::Broken(reason)) = &answer {
            self.read_failed(Fault::Broken(reason.clone()));
        }
        answer
    }

    fn read<T>(&self, work: impl FnOnce(&Reader) -> Result<T, Fault>) -> Result<T, Fault> {
        let _using = self.using.read().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation.load(Ordering::Acquire);
        let reader = match self.spare_reader() {
            Some((_, reader)) => reader,
            None => Reader::open(&self.options.path)?,
        };
        reader.patient(true)?;
        let answer = work(&reader)?;
        reader.patient(false)?;
        self.keep((generation, reader));
        Ok(answer)
    }

    /// A reader of the file as it is now, and of which opening it is.
    fn spare_reader(&self) -> Option<(u64, Reader)> {
        let generation = self.generation.load(Ordering::Acquire);
        self.readers().pop().filter(|(of, _)| *of == generation)
    }

    fn keep(&self, reader: (u64, Reader)) {
        let mut readers = self.readers();
        if readers.len() < READERS && self.generation.load(Ordering::Acquire) == reader.0 {
            readers.push(reader);
        }
    }

    fn readers(&self) -> MutexGuard<'_, Vec<(u64, Reader)>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_failed(&self, fault: Fault) {
        self.counters.errors.add(1);
        if let Fault::Broken(reason) = fault {
            self.queue().broken = Some(reason);
            self.work.notify_one();
        }
    }
}

/// What the thread has to do next.
enum Next {
    Calls(VecDeque<Call>),
    Write(Vec<(u64, Op)>, HashMap<i64, u64>),
    Replace(String),
    End,
}

/// The thread's life: open the file, serve the queue, close the file.
fn serve(shared: &Shared) {
    let mut writer = None;
    while let Some(next) = shared.next(writer.is_some()) {
        match next {
            Next::End => break,
            Next::Replace(reason) => {
                let broken = writer.take().map(|writer: Writer| writer.identity());
                let broken = broken.or_else(|| Identity::of(&shared.options.path).ok());
                match shared.replace(broken, &reason) {
                    Ok(new) => writer = Some(new),
                    Err(fault) => shared.suspend(fault, Vec::new()),
                }
            }
            Next::Calls(calls) => {
                let mut fault = None;
                if writer.is_none() {
                    writer = shared.open().map_err(|failed| fault = Some(failed)).ok();
                }
                let missing = fault.clone().unwrap_or_else(|| Fault::Unavailable(String::new()));
                for call in calls {
                    call(writer.as_mut().ok_or(&missing));
                }
                if let Some(fault) = fault {
                    shared.suspend(fault, Vec::new());
                }
            }
            Next::Write(ops, touches) => {
                if let Err(fault) = shared.write(&mut writer, &ops, &touches) {
                    writer = None;
                    shared.suspend(fault, ops);
                } else {
                    shared.written(ops);
                }
            }
        }
        if matches!(shared.queue().phase, Phase::Off(_)) {
            break;
        }
    }
    // Readers first: the last connection to close takes the log with it, and those that only read cannot.
    shared.generation.fetch_add(1, Ordering::AcqRel);
    shared.readers().clear();
    drop(writer);
    let mut queue = shared.queue();
    queue.ended = true;
    queue.calls.clear();
    queue.pending.clear();
    queue.clears.clear();
    queue.ops.clear();
    queue.done = queue.last;
    drop(queue);
    shared.progress.notify_all();
}

impl Shared {
    /// Waits for something to do. The file is opened before anything else.
    fn next(&self, open: bool) -> Option<Next> {
        let mut queue = self.queue();
        if !open && queue.phase == Phase::Opening {
            return Some(Next::Calls(std::mem::take(&mut queue.calls)));
        }
        loop {
            if !queue.calls.is_empty() {
                return Some(Next::Calls(std::mem::take(&mut queue.calls)));
            }
            if let Some(reason) = queue.broken.take()
                && !queue.stop
            {
                return Some(Next::Replace(reason));
            }
            let suspended = match queue.phase {
                Phase::Suspended { until_ms, .. } => until_ms.saturating_sub(self.clock.steady_ms()),
                _ => 0,
            };
            if suspended == 0 && matches!(queue.phase, Phase::Suspended { .. }) {
                // Opens the file, whether or not there is something to write.
                return Some(Next::Calls(VecDeque::new()));
            }
            let idle = (queue.ops.is_empty() && queue.touches.is_empty()) || suspended > 0;
            if idle {
                if queue.stop {
                    return Some(Next::End);
                }
                queue.idle = suspended == 0;
                queue = if suspended > 0 {
                    let wait = Duration::from_millis(suspended.min(1000));
                    self.work.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0
                } else {
                    self.wait(&self.work, queue)
                };
                continue;
            }
            queue.idle = false;
            if queue.ops.len() < BATCH_ENTRIES && queue.hurry == 0 && !queue.stop {
                let end = Instant::now() + LINGER;
                while let Some(left) = end.checked_duration_since(Instant::now())
                    && queue.ops.len() < BATCH_ENTRIES
                    && queue.hurry == 0
                    && queue.calls.is_empty()
                    && !queue.stop
                {
                    queue = self.work.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                if !queue.calls.is_empty() {
                    continue;
                }
            }
            let mut bytes = 0;
            let fits = queue.ops.iter().take(BATCH_ENTRIES).take_while(|(_, op)| {
                let full = bytes >= BATCH_BYTES;
                bytes += op.bytes();
                !full
            });
            let count = fits.count();
            let ops: Vec<_> = queue.ops.drain(..count).collect();
            queue.bytes -= ops.iter().map(|(_, op)| op.bytes()).sum::<usize>().min(queue.bytes);
            let touches = std::mem::take(&mut queue.touches);
            drop(queue);
            self.progress.notify_all();
            return Some(Next::Write(ops, touches));
        }
    }

    /// Waits for those who read, and keeps others from it. Nothing of the file is open then.
    fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        let alone = self.using.write().unwrap_or_else(PoisonError::into_inner);
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.readers().clear();
        alone
    }

    /// Opens the file; a broken one is set aside first.
    fn open(&self) -> Result<Writer, Fault> {
        let _alone = self.alone();
        let path = &self.options.path;
        let opened = Writer::open(path, self.options.max_bytes, self.clock.wall_ms());
        match opened.and_then(|writer| self.opened(writer)) {
            Err(Fault::Broken(reason)) => self.replace_alone(Identity::of(path).ok(), &reason),
            opened => opened,
        }
    }

    fn opened(&self, writer: Writer) -> Result<Writer, Fault> {
        self.note_usage(writer.usage()?);
        self.unchecked.store(true, Ordering::Release);
        if matches!(self.queue().phase, Phase::Suspended { .. }) {
            self.tell(|path| Event::StorageRestored { path });
        }
        self.queue().phase = Phase::Ready;
        self.progress.notify_all();
        Ok(writer)
    }

    fn replace(&self, broken: Option<Identity>, reason: &str) -> Result<Writer, Fault> {
        let _alone = self.alone();
        self.replace_alone(broken, reason)
    }

    fn replace_alone(&self, broken: Option<Identity>, reason: &str) -> Result<Writer, Fault> {
        self.counters.errors.add(1);
        let path = &self.options.path;
        if let Some(moved_to) = store::set_aside(path, broken, self.clock.wall_ms())? {
            self.tell(|path| Event::FileSetAside { path, moved_to, reason: reason.to_owned() });
        }
        self.opened(Writer::open(path, self.options.max_bytes, self.clock.wall_ms())?)
    }

    /// Writes a batch, as often as it takes.
    fn write(&self, slot: &mut Option<Writer>, ops: &[(u64, Op)], touches: &HashMap<i64, u64>) -> Result<(), Fault> {
        let mut attempts = 0;
        loop {
            let mut writer = match slot.take().map(|writer| writer.in_place().then_some(writer)) {
                Some(Some(writer)) => writer,
                Some(None) => {
                    self.counters.errors.add(1);
                    let reason = "the file was deleted or replaced; a new one is begun".to_owned();
                    self.tell(|path| Event::StorageFailed { path, reason });
                    self.open()?
                }
                None => self.open()?,
            };
            let mut events = Vec::new();
            let now_ms = self.clock.wall_ms();
            let outcome = writer.transaction(now_ms, |batch| {
                events.clear();
                for (_, op) in ops {
                    events.extend(self.apply(batch, op)?);
                }
                touches.iter().try_for_each(|(id, used_ms)| batch.touch(*id, *used_ms))
            });
            attempts += 1;
            match outcome {
                Ok(((), usage)) => {
                    *slot = Some(writer);
                    self.note_usage(usage);
                    self.counters.evicted.add(usage.evicted);
                    let lost = events.iter().filter(|event| matches!(event, Event::Rejected { .. })).count();
                    self.counters.lost.add(lost);
                    events.into_iter().for_each(|event| self.tell(|_| event));
                    return Ok(());
                }
                Err(Fault::Busy(_)) if attempts < BUSY_ATTEMPTS => *slot = Some(writer),
                Err(Fault::Broken(reason)) if attempts < BUSY_ATTEMPTS => {
                    let broken = writer.identity();
                    drop(writer);
                    *slot = Some(self.replace(Some(broken), &reason)?);
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    fn apply(&self, batch: &mut Batch, op: &Op) -> Result<Option<Event>, Fault> {
        match op {
            Op::Put(key, entry) => {
                let refused = batch.put(key, entry)?.err();
                return Ok(refused.map(|stored| Event::Rejected { dimensions: entry.vector.len(), stored }));
            }
            Op::Delete { key, only } => batch.delete(key, *only)?,
            Op::Repair(key) => {
                let path = || self.options.path.clone();
                return Ok(batch.repair(key)?.then(|| Event::IndexRebuilt { path: path() }));
            }
            Op::Clear { space, kind } => batch.clear(*space, kind.as_deref())?,
            Op::Release(keys) => batch.release(keys, &self.owner)?,
        }
        Ok(None)
    }

    fn written(&self, ops: Vec<(u64, Op)>) {
        let mut queue = self.queue();
        for (number, op) in &ops {
            if let Op::Put(key, _) | Op::Delete { key, .. } = op
                && queue.pending.get(key).is_some_and(|pending| pending.number == *number)
            {
                queue.pending.remove(key);
            }
            queue.done = queue.done.max(*number);
        }
        let done = queue.done;
        queue.clears.retain(|(number, ..)| *number > done);
        drop(queue);
        self.counters.written.add(ops.iter().filter(|(_, op)| matches!(op, Op::Put(..))).count());
        self.progress.notify_all();
    }

    /// Goes on without the file: for good if it is somebody else's, else for a while.
    fn suspend(&self, fault: Fault, unwritten: Vec<(u64, Op)>) {
        self.counters.errors.add(1);
        let reason = fault.reason().to_owned();
        let foreign = matches!(fault, Fault::Foreign(_));
        // Told before anybody can see the consequences.
        if foreign {
            self.tell(|path| Event::StorageRefused { path, reason });
        } else if !matches!(self.queue().phase, Phase::Suspended { .. }) {
            self.tell(|path| Event::StorageFailed { path, reason });
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.readers().clear();
        let mut queue = self.queue();
        let waiting: Vec<_> = unwritten.into_iter().chain(std::mem::take(&mut queue.ops)).collect();
        queue.pending.clear();
        queue.clears.clear();
        queue.bytes = 0;
        queue.touches.clear();
        let lost: usize = waiting.into_iter().map(|(number, op)| queue.bury(number, op)).sum();
        queue.lost += lost as u64;
        self.counters.lost.add(lost);
        queue.done = queue.last;
        queue.phase = if foreign {
            Phase::Off(fault.clone())
        } else {
            let until_ms = self.clock.steady_ms() + self.options.retry_after_ms;
            Phase::Suspended { until_ms, fault: fault.clone() }
        };
        let failed = std::mem::take(&mut queue.calls);
        drop(queue);
        self.progress.notify_all();
        for call in failed {
            call(Err(&fault));
        }
    }
}

/// What cannot be a path of a file, so that the caller learns of it at once.
pub(super) fn check_path(path: &Path) -> Result<(), String> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Err(format!("\"{}\" is a directory, not a file", path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::cache::entry::{Draft, Precision};
    use crate::host::SystemClock;

    #[test]
    fn a_full_disk_suspends_the_tier_and_nothing_stale_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let failures = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&failures);
        let listener: Listener = Arc::new(move |event| {
            counted.fetch_add(usize::from(matches!(event, Event::StorageFailed { .. })), Ordering::SeqCst);
        });
        let path = directory.path().join("cache.db");
        let options = DiskOptions { path, max_bytes: None, retry_after_ms: 200, touch_after_ms: 0 };
        let clock = Arc::new(SystemClock::default());
        let disk = Disk::new(options, clock.clone(), Some(listener)).unwrap();
        let space = Space::builder().finish();
        let key = |n: u32| space.key().field("n", n.to_le_bytes()).finish();
        let entry = |note: Vec<u8>| {
            Arc::new(Draft { note: &note, ..Draft::default() }.entry(
                &space,
                None,
                Precision::F32,
                clock.wall_ms(),
                None,
            ))
        };
        let note = |n: u32| {
            let now = Now { wall_ms: clock.wall_ms(), steady_ms: clock.steady_ms() };
            match &disk.get(&[(key(n), None)], now)[..] {
                [OnDisk::Hit(entry)] => Some(entry.note.len()),
                _ => None,
            }
        };
        disk.put((0..10).map(|n| (key(n), entry(vec![1; 100]))));
        disk.flush().unwrap();
        disk.execute("PRAGMA max_page_count = 20");
        disk.put((0..5).map(|n| (key(n), entry(vec![2; 100_000]))));
        assert!(disk.flush().is_err());
        assert_eq!(note(7), None, "suspended");
        assert_eq!(failures.load(Ordering::SeqCst), 1);
        let stats = disk.stats();
        assert!(!stats.available && stats.lost == 5);
        // The new connection knows no limit: as if somebody had made room.
        while !disk.stats().available {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!((0..10).map(note).collect::<Vec<_>>(), [[None; 5], [Some(100); 5]].concat());
        assert!(disk.flush().unwrap_err().contains("5 entries"));
        disk.flush().unwrap();
        assert_eq!((0..10).map(note).collect::<Vec<_>>(), [[None; 5], [Some(100); 5]].concat());
        disk.close();
    }

    #[test]
    fn the_thread_ends_with_the_cache() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache.db");
        let options = DiskOptions { path, max_bytes: None, retry_after_ms: 200, touch_after_ms: 0 };
        let disk = Disk::new(options, Arc::new(SystemClock::default()), None).unwrap();
        let shared = Arc::downgrade(&disk.shared);
        drop(disk);
        while shared.upgrade().is_some() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
