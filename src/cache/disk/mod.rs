//! The disk tier: a queue, one thread that writes it to the file in batches, and a few connections that read.
//!
//! What is queued is already an answer; a full queue makes the caller wait and loses nothing. Whatever happens to the
//! file is counted and told as an event; no lookup ever fails because of it. While the file cannot be used, the keys
//! that it would have answered wrongly are remembered and deleted once it works again.

mod queue;
mod reading;
mod writing;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use queue::{Call, Clearing, Op, Phase, Queue};
pub(super) use reading::Seen;
use writing::serve;

use super::entry::Entry;
use super::report::{Counter, DiskStats, Event, Listener};
use super::selection::Selection;
use super::store::{Fault, Reader, Tidied, Usage, Writer};
use crate::embedding::{Key, Space};
use crate::host::Clock;

/// How long the file is left alone after an error.
pub(super) const RETRY_AFTER_MS: u64 = 30_000;

/// How old the noted time of use of a row must be to be written again: reading must not become writing.
pub(super) const TOUCH_AFTER_MS: u64 = 600_000;

/// See [`Disk::clear`].
pub(super) const NOT_YET: usize = usize::MAX;

/// What a disk tier is made with.
#[derive(Debug, Clone)]
pub(super) struct DiskOptions {
    pub path: PathBuf,
    pub max_bytes: Option<u64>,
    /// Memory for pages of the file: half for the connection that writes, the rest for those that are kept for reading.
    pub page_bytes: usize,
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
    /// Bytes that were read and written since freed memory was given back to the system.
    moved: AtomicUsize,
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
            shrink: false,
            rested: true,
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
            moved: AtomicUsize::new(0),
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

    /// Queues the deletion of all entries that a selection covers. What counts them is [`NOT_YET`] until it is done.
    pub fn clear(&self, selection: Selection) -> Arc<AtomicUsize> {
        let deleted = Arc::new(AtomicUsize::new(NOT_YET));
        self.shared.queue_one(Op::Clear(selection, Arc::clone(&deleted)));
        deleted
    }

    /// Waits until everything that was queued before is in the file, or cannot be.
    pub fn catch_up(&self) {
        let mut queue = self.shared.queue();
        let target = queue.last;
        queue.hurry += 1;
        self.shared.work.notify_one();
        while queue.done < target && !queue.ended && queue.accepts() {
            queue = self.shared.wait(&self.shared.progress, queue);
        }
        queue.hurry -= 1;
    }

    /// Length of the vectors of a space, which `first` decides if there are none yet. `None`: the file does not say.
    pub fn dimensions_of(&self, space: &Space, first: usize) -> Option<usize> {
        let (id, now_ms) = (space.id(), self.shared.clock.wall_ms());
        let being_cleared =
            |(_, cleared): &Clearing| cleared.is_whole() && cleared.space.is_none_or(|space| space == id);
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

    /// Bytes have been read from here.
    pub fn moved(&self, bytes: usize) {
        if bytes > 0 && self.shared.moved(bytes) {
            self.shrink();
        }
    }

    /// Gives the memory back that pages of the file take, as soon as the file is not in use.
    pub fn shrink(&self) {
        self.shared.queue().shrink = true;
        self.shared.work.notify_one();
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

/// Tells this cache from all others in the world: the standard library seeds its maps with the system's randomness.
fn random() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let mut bytes = [0; 16];
    for half in bytes.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(std::process::id()).to_le_bytes());
    }
    bytes
}

impl Shared {
    fn tell(&self, event: impl FnOnce(PathBuf) -> Event) {
        if let Some(listener) = &self.listener {
            listener(event(self.options.path.clone()));
        }
    }

    fn note_usage(&self, usage: Usage) {
        self.counters.entries.set(usage.entries);
        self.counters.bytes.set(usage.bytes);
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
    use crate::cache::memory::Now;
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
        let options = DiskOptions { path, max_bytes: None, page_bytes: 0, retry_after_ms: 200, touch_after_ms: 0 };
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
        let options = DiskOptions { path, max_bytes: None, page_bytes: 0, retry_after_ms: 200, touch_after_ms: 0 };
        let disk = Disk::new(options, Arc::new(SystemClock::default()), None).unwrap();
        let shared = Arc::downgrade(&disk.shared);
        drop(disk);
        while shared.upgrade().is_some() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
