//! The disk tier: a queue, one thread that writes it to the file in batches, and a few connections that read.
//!
//! What is queued is already an answer. Changes take effect when they are queued, in that order, and queueing never waits;
//! who wants to know that the file has them waits for that afterwards. Whatever happens to the file is counted and told as
//! an event; no lookup ever fails because of it. While another program holds the file, calls wait a tenth of a second and
//! go on without it. While it cannot be written at all, the keys that it would have answered wrongly are remembered and
//! deleted once it works again.
//!
//! Memory's entries are copies of the file's. Other processes, and other caches of this one, change the file too: every
//! transaction counts itself in it, and before memory's entries are believed, somebody has looked at that number in the
//! last [`LOOK_MS`]. If others have written, [`Disk::epoch`] is a new one, and entries of an older one are read anew; where
//! the file cannot be read then, they are no answers.

mod queue;
mod reading;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use queue::{Call, NOT_YET, Op, POLL_INTERVAL, Phase, Queue, Told, WaitLimit};
pub(super) use reading::{Purpose, Seen};
use writing::serve;

use super::entry::Entry;
use super::report::{Counter, DiskStats, Event, Listener};
use super::selection::Selection;
use super::store::{Fault, Identity, OwnTransactions, Reader, Tidied, Usage, Writer};
use crate::embedding::{Key, Space};
use crate::error;
use crate::host::{Clock, threads};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Condvar, Instant, Mutex, RwLock, mpsc};

/// How long the file is left alone after an error.
pub(super) const RETRY_AFTER_MS: u64 = 30_000;

/// How old the noted time of use of a row must be to be written again: reading must not become writing.
pub(super) const TOUCH_AFTER_MS: u64 = 600_000;

/// How long memory's entries are believed without a look at the file.
const LOOK_MS: u64 = 150;

/// How long a cache that is closed waits for a file that another program holds.
const DRAIN: Duration = Duration::from_secs(3);

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
    /// An answer unless the server knows better: its row is older than what was missed of other machines' changes.
    Doubtful(Arc<Entry>),
    Absent,
    Expired,
    Changed,
    Damaged,
    /// The file could not be asked.
    Unread,
    /// It is to be deleted from the file, or what was set could not be written, or there is no file: what memory has, if
    /// anything, is newer.
    Unwritten,
}

/// A key, and the hash of the content that the entry must have been made from, if that matters.
pub(super) type Asked = (Key, Option<[u8; 32]>);

/// A deletion that is on its way to the file.
pub(super) struct Ticket {
    number: u64,
    told: Told,
    doomed: Doomed,
}

/// What a deletion is about.
enum Doomed {
    Key(Key),
    Selection(Selection),
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
    /// Looks whether others have changed the file. `None`: it is not in use.
    watch: Mutex<Option<(Reader, Identity)>>,
    /// The file that was found broken last, and was opened anew. One that nobody could open yet has not been tried.
    broken: Mutex<Option<Identity>>,
    /// Held by those who read, and alone by who opens the file or puts another one in its place: SQLite cuts the log's
    /// index to nothing when it opens one, which is a SIGBUS for whoever of this process still reads the old one.
    using: RwLock<()>,
    /// Which opening of the file readers belong to.
    generation: AtomicU64,
    /// See [`Disk::epoch`].
    epoch: AtomicU32,
    looked_ms: AtomicU64,
    /// Transactions of this cache since the file was opened, and all others that it had when it was last looked at.
    own: OwnTransactions,
    others: AtomicU64,
    /// Nobody can look whether others change the file, and whoever has it open for writing does not know that yet.
    unwatched: AtomicBool,
    /// Whether rows are doubtful that are older than now, and which ones are.
    doubted: AtomicBool,
    doubt: Mutex<Option<Seen>>,
    /// Whether it was told that the file cannot be used, and not yet that it can.
    failing: AtomicBool,
    /// Whether leases were taken.
    leased: AtomicBool,
    /// Which time was noted in the file because something was too old then.
    noted_ms: AtomicU64,
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
    /// Whether there was no file when it was made: nobody waits to learn what is in it.
    fresh: bool,
}

impl Disk {
    /// Starts the thread, which opens the file. Does not wait for it.
    ///
    /// # Errors
    /// [`error::Error::Threads`].
    pub fn new(options: DiskOptions, clock: Arc<dyn Clock>, listener: Option<Listener>) -> error::Result<Self> {
        let fresh = !options.path.exists();
        let shared = Arc::new(Shared {
            options,
            clock,
            listener,
            owner: random(),
            queue: Mutex::new(Queue::new()),
            work: Condvar::new(),
            progress: Condvar::new(),
            readers: Mutex::default(),
            watch: Mutex::default(),
            broken: Mutex::default(),
            using: RwLock::default(),
            generation: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
            looked_ms: AtomicU64::new(0),
            own: OwnTransactions::default(),
            others: AtomicU64::new(0),
            unwatched: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
            doubt: Mutex::default(),
            failing: AtomicBool::new(false),
            leased: AtomicBool::new(false),
            noted_ms: AtomicU64::new(0),
            unchecked: AtomicBool::new(true),
            counters: DiskCounters::default(),
            moved: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&shared);
        threads::start("embedcore-cache".to_owned(), move || serve(&serving))?;
        Ok(Self { shared, fresh })
    }

    /// Whether more can be queued without waiting.
    pub fn has_room(&self) -> bool {
        !self.shared.queue().full()
    }

    /// Waits until more can be queued, or until it is known that this takes long.
    pub fn await_room(&self) {
        let mut queue = self.shared.queue();
        if queue.full() {
            self.shared.wake(&mut queue);
            drop(self.shared.wait_until(queue, WaitLimit::Brief, |queue| !queue.full() || !queue.accepts()));
        }
    }

    /// Queues entries, each with how many ms ago the work on it began. Never waits.
    pub fn put(&self, entries: impl IntoIterator<Item = (Key, Arc<Entry>, u64)>) {
        let mut queue = self.shared.queue();
        let now_ms = queue.order_ms(self.shared.clock.wall_ms());
        for (key, entry, age_ms) in entries {
            self.shared.enqueue(&mut queue, Op::Put(key, entry, now_ms.saturating_sub(age_ms)));
        }
        self.shared.wake(&mut queue);
    }

    /// Queues the deletion of what others have replaced or deleted at `at_ms`: what was written later stays.
    pub fn delete_before(&self, key: Key, at_ms: u64) {
        self.shared.queue_one(|_| Op::Delete(key, Told::default(), at_ms));
    }

    /// The same of all that a selection covers.
    pub fn clear_before(&self, selection: Selection, at_ms: u64) {
        self.shared.queue_one(|_| Op::Clear(selection.into(), Told::default(), at_ms));
    }

    /// Says that changes were missed which other machines have made of what the file has now.
    pub fn doubt(&self) {
        self.shared.doubted.store(true, Ordering::Release);
    }

    /// Queues the deletion of a key.
    pub fn delete(&self, key: Key) -> Ticket {
        let told = Told::new(NOT_YET.into());
        let number = self.shared.queue_one(|at_ms| Op::Delete(key, Arc::clone(&told), at_ms));
        Ticket { number, told, doomed: Doomed::Key(key) }
    }

    /// Queues the deletion of all entries that a selection covers.
    pub fn clear(&self, selection: Selection) -> Ticket {
        let told = Told::new(NOT_YET.into());
        let number = self.shared.queue_one(|at_ms| Op::Clear(selection.clone().into(), Arc::clone(&told), at_ms));
        Ticket { number, told, doomed: Doomed::Selection(selection) }
    }

    /// Waits until the file knows of a deletion; how many entries there were. `None`: the file has none of them, or is not
    /// in use, for good.
    pub fn resolve(&self, ticket: &Ticket) -> Result<Option<usize>, String> {
        let told = || Some(ticket.told.load(Ordering::Acquire)).filter(|count| *count != NOT_YET);
        let mut queue = self.shared.queue();
        queue.hurry += 1;
        self.shared.work.notify_one();
        let over = |queue: &Queue| told().is_some() || queue.done >= ticket.number || !queue.accepts();
        queue = self.shared.wait_until(queue, WaitLimit::Long, over);
        queue.hurry -= 1;
        match (told(), &queue.phase) {
            (Some(count), _) => Ok(Some(count)),
            (None, Phase::Off(_)) => Ok(None),
            (None, Phase::Suspended { readable, fault, .. }) => {
                let (readable, reason) = (*readable, fault.reason().to_owned());
                drop(queue);
                if readable && self.has_none(&ticket.doomed) { Ok(None) } else { Err(reason) }
            }
            (None, _) if queue.ended => Err("the cache was closed".to_owned()),
            (None, _) => Err("another program holds it; it is deleted there as soon as that one lets go".to_owned()),
        }
    }

    /// Whether the file, which cannot be written, has nothing of what is to be deleted.
    fn has_none(&self, doomed: &Doomed) -> bool {
        let now_ms = self.shared.clock.wall_ms();
        let none = self.shared.read(|reader| match doomed {
            Doomed::Key(key) => reader.has(key, now_ms).map(|has| !has),
            Doomed::Selection(selection) => reader.has_any(selection).map(|any| !any),
        });
        none.unwrap_or_else(|fault| {
            self.shared.read_failed(fault);
            false
        })
    }

    /// Length of the vectors of a space in the file, or on their way there. `None`: nobody can say.
    pub fn dimensions_of(&self, space: &Space, first: usize) -> Option<usize> {
        let id = space.id();
        let queue = if self.fresh { self.shared.queue() } else { self.shared.opened() };
        let waiting = queue.pending.values().filter_map(|pending| pending.entry.as_ref());
        let length =
            waiting.filter(|entry| entry.space == id).map(|entry| entry.vector.len()).find(|length| *length > 0);
        let being_cleared = |selection: &Selection| selection.is_whole() && selection.space.is_none_or(|of| of == id);
        if length.is_some()
            || queue.hidden.clears.iter().any(|(_, cleared)| being_cleared(cleared))
            || !queue.readable()
        {
            return length;
        }
        drop(queue);
        match self.shared.read(|reader| reader.dimensions_of(id, first)) {
            Ok(known) => known,
            Err(fault) => {
                self.shared.read_failed(fault);
                None
            }
        }
    }

    /// The lengths of vectors that there are in the file.
    pub fn lengths(&self) -> Vec<usize> {
        let queue = if self.fresh { self.shared.queue() } else { self.shared.opened() };
        if !queue.readable() {
            return Vec::new();
        }
        drop(queue);
        self.shared
            .read(Reader::lengths)
            .inspect_err(|fault| self.shared.read_failed(fault.clone()))
            .unwrap_or_default()
    }

    /// Waits until everything that was queued before is in the file and would survive a loss of power.
    pub fn flush(&self) -> Result<(), String> {
        let lost = {
            let mut queue = self.shared.queue();
            let target = queue.last;
            queue.hurry += 1;
            self.shared.work.notify_one();
            queue = self.shared.wait_until(queue, WaitLimit::Long, |queue| queue.done >= target || !queue.accepts());
            queue.hurry -= 1;
            match &queue.phase {
                Phase::Suspended { readable: true, .. } if queue.lost == 0 => return Ok(()),
                Phase::Suspended { readable: true, fault, .. } => {
                    let reason = fault.reason().to_owned();
                    queue.lost = 0;
                    return Err(reason);
                }
                // Once the file can be used again, the next flush says how many entries were lost.
                Phase::Suspended { fault, .. } | Phase::Off(fault) => return Err(fault.reason().to_owned()),
                _ if queue.done < target && !queue.ended => {
                    return Err("another program holds it; what was set waits to be written".to_owned());
                }
                _ => std::mem::take(&mut queue.lost),
            }
        };
        if lost > 0 {
            return Err(format!("{lost} entries could not be written"));
        }
        if self.shared.queue().ended {
            return Ok(());
        }
        self.shared.call(WaitLimit::Long, |writer| writer.sync()).map_err(|fault| fault.reason().to_owned())
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
        self.shared.leased.store(true, Ordering::Release);
        self.shared.call(WaitLimit::Brief, acquire).unwrap_or_else(|_| vec![true; keys.len()])
    }

    /// Gives leases back, after everything that was queued before is visible to others.
    pub fn release(&self, keys: Vec<Key>) {
        self.shared.queue_one(|_| Op::Release(Some(keys)));
    }

    /// Maintenance in small steps, between which the queue is served, until there is no more to do or `budget` is over.
    pub fn tidy(&self, budget: Duration) -> Tidied {
        let started = Instant::now();
        let mut total = Tidied::default();
        self.check_order();
        loop {
            let clock = Arc::clone(&self.shared.clock);
            let Ok(step) = self.shared.call(WaitLimit::Brief, move |writer| writer.tidy(clock.wall_ms())) else {
                return total;
            };
            total.expired += step.expired;
            total.evicted += step.evicted;
            total.pages += step.pages;
            total.more = step.more;
            if !step.more || started.elapsed() >= budget {
                break;
            }
        }
        self.shared.counters.evicted.add(total.evicted);
        if let Ok(usage) = self.shared.call(WaitLimit::Brief, |writer| writer.usage()) {
            self.shared.note_usage(usage);
        }
        total
    }

    /// Finds out whether there are rows that no search finds, and then makes the index anew. A file that is broken is opened anew,
    /// and looked at once more.
    fn check_order(&self) {
        for _ in 0..2 {
            if !self.ready() || !self.shared.unchecked.swap(false, Ordering::AcqRel) {
                return;
            }
            match self.shared.read(Reader::in_order) {
                Ok(true) => {}
                Ok(false) => {
                    self.shared.counters.errors.add(1);
                    let now_ms = self.shared.clock.wall_ms();
                    match self.shared.call(WaitLimit::Long, move |writer| writer.reindex(now_ms)) {
                        Ok(()) => self.shared.tell(|path| Event::IndexRebuilt { path }),
                        Err(_) => self.shared.unchecked.store(true, Ordering::Release),
                    }
                    return;
                }
                Err(fault) => {
                    self.shared.read_failed(fault);
                    // Answered when the fault has been looked into.
                    self.shared.call(WaitLimit::Brief, |_| Ok(())).ok();
                }
            }
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

    /// Writes what is queued, ends the thread and closes the file. May be called any number of times. What another program
    /// keeps from the file is lost after [`DRAIN`].
    pub fn close(&self) {
        self.begin_close();
        let mut queue = self.shared.queue();
        while !queue.ended && queue.stop.is_some_and(|stop| stop + DRAIN > Instant::now()) {
            queue = self.shared.wait(&self.shared.progress, queue, DRAIN);
        }
    }

    /// Has the thread write what is queued and end, without waiting for it.
    pub fn begin_close(&self) {
        let mut queue = self.shared.queue();
        if queue.stop.is_none() {
            if self.shared.leased.load(Ordering::Acquire) {
                self.shared.enqueue(&mut queue, Op::Release(None));
            }
            queue.stop = Some(Instant::now() + DRAIN);
        }
        drop(queue);
        self.shared.work.notify_all();
    }

    pub fn stats(&self) -> DiskStats {
        let counters = &self.shared.counters;
        let queue = self.shared.queue();
        DiskStats {
            available: queue.readable(),
            entries: counters.entries.get(),
            bytes: counters.bytes.get(),
            queued: queue.puts,
            written: counters.written.get(),
            lost: counters.lost.get(),
            evicted: counters.evicted.get(),
            damaged: counters.damaged.get(),
            errors: counters.errors.get(),
        }
    }

    #[cfg(test)]
    pub fn execute(&self, sql: &'static str) {
        self.shared.call(WaitLimit::Long, move |writer| writer.execute(sql)).unwrap();
    }
}

impl Drop for Disk {
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

    /// The file could not be used. That is told once, until it works again.
    fn fails(&self, reason: &str) {
        self.counters.errors.add(1);
        if !self.failing.swap(true, Ordering::AcqRel) {
            self.tell(|path| Event::StorageFailed { path, reason: reason.to_owned() });
        }
    }

    /// The file was used.
    fn works(&self) {
        if self.failing.load(Ordering::Acquire) && self.failing.swap(false, Ordering::AcqRel) {
            self.tell(|path| Event::StorageRestored { path });
        }
    }

    fn note_usage(&self, usage: Usage) {
        self.counters.entries.set(usage.entries);
        self.counters.bytes.set(usage.bytes);
    }

    /// Has the writing thread do something and waits for it, until another program has held the file for too long.
    fn call<T: Send + 'static>(
        &self,
        limit: WaitLimit,
        mut work: impl FnMut(&mut Writer) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let over = Arc::new(AtomicBool::new(false));
        let call = Call {
            work: Box::new(move |writer| match writer.map_err(|fault| fault.clone()).and_then(&mut work) {
                Err(fault @ Fault::Busy(_)) => Err(fault),
                outcome => {
                    // Whoever asked may have gone.
                    sender.send(outcome).ok();
                    Ok(())
                }
            }),
            over: Arc::clone(&over),
        };
        let closed = || Fault::Unavailable("the cache is closed".to_owned());
        let mut queue = self.queue();
        match queue.fault() {
            Some(fault) => return Err(fault.clone()),
            None if queue.stop.is_some() => return Err(closed()),
            None => queue.calls.push_back(call),
        }
        self.work.notify_one();
        let began = Instant::now();
        let answer = loop {
            drop(queue);
            match receiver.recv_timeout(POLL_INTERVAL) {
                Ok(answer) => break answer,
                Err(mpsc::RecvTimeoutError::Disconnected) => break Err(closed()),
                Err(mpsc::RecvTimeoutError::Timeout) => queue = self.queue(),
            }
            if limit.is_over(&queue, began) {
                over.store(true, Ordering::Release);
                return Err(Fault::Busy("another program holds it".to_owned()));
            }
        };
        if let Err(fault @ (Fault::Broken(_) | Fault::Foreign(_))) = &answer {
            self.read_failed(fault.clone());
        }
        answer
    }
}

/// What cannot be a path of a file, so that the caller learns of it at once.
pub(super) fn check_path(path: &Path) -> Result<(), String> {
    let name = path.to_string_lossy();
    if name.starts_with(":memory:") || name.starts_with("file:") {
        return Err(format!("\"{name}\" is no path of a file: leave it out for a cache in memory, or give a path"));
    }
    if name.is_empty() || path.is_dir() {
        return Err(format!("\"{name}\" is a directory, not a file"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
