//! What was computed before: in memory, on disk, and on a server that machines share. JS class: `IntelligentEmbeddingCache`.
//!
//! One door: look up, commit. A lookup answers what was committed last for its key, or nothing: never a value for
//! another key, another content, a value that is too old, or one that a crash tore apart. What the disk or the server does
//! never fails a lookup or a commit; it is counted and told as an [`Event`].
//!
//! Each user has a [`Space`] of its own, so several can share one cache and one file.

mod commit;
mod disk;
mod entry;
#[cfg(fuzzing)]
pub mod fuzzing;
mod inline_read;
mod key_hash;
mod lookup;
mod memory;
mod others;
mod report;
mod search;
mod selection;
mod shared;
mod similarity;
mod single_flight;
mod store;

use std::collections::{BTreeSet, HashMap};
use std::path::{self, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use disk::{Disk, DiskOptions, Ticket};
pub use entry::{Draft, Entry, MAX_ENTRY_BYTES, NEVER, Precision, Vector};
pub use inline_read::InlineReads;
pub use key_hash::{KeyHasher, Probe};
pub use lookup::{Open, Recall, Recalling};
use memory::{Displaced, Memory, Now, Removed};
use others::Others;
use report::Counters;
pub use report::{
    DiskStats, Event, EvictionCause, Listener, MissCause, ModalityStats, Sample, SharedState, SharedStats, Stats,
};
pub use search::SMALL;
pub use selection::{Selection, label, unlabel};
use shared::Shared;
pub use shared::{SharedOptions, Target};
use similarity::Indexes;
pub use similarity::Near;
pub use single_flight::{Joined, Leader, SingleFlight, Waiter};

use crate::embedding::{Key, Modality, Space};
use crate::error::{Error, Result};
use crate::host::{self, Clock, SystemClock};
use crate::sync::{Mutex, MutexGuard, RwLock};

/// What a cache is made with.
#[derive(Clone)]
pub struct CacheOptions {
    /// Most entries in memory, at least 1.
    pub max_entries: usize,
    /// Most bytes in memory, bookkeeping included; with a file, the memory for its pages, too.
    pub max_bytes: usize,
    /// How long an entry is an answer unless it says so itself; `None`: until it is evicted.
    pub ttl: Option<Duration>,
    /// How vectors are stored.
    pub precision: Precision,
    /// The file of the disk tier; `None`: memory only. Missing directories are made.
    pub path: Option<PathBuf>,
    /// Most bytes of the file; `None`: as many as the disk has. Its log beside it takes up to half as much again,
    /// 10 MB at most.
    pub max_disk_bytes: Option<u64>,
    /// The server of the shared tier; `None`: this machine only.
    pub shared: Option<SharedOptions>,
    /// Whether those who look up say which content they mean. The cache itself checks what it is given.
    pub validate_content: bool,
    /// How often whoever runs the cache calls [`EmbeddingCache::optimize`].
    pub maintenance_interval: Duration,
    /// Hit ratio below which whoever runs the cache warns, 0–1.
    pub hit_ratio_threshold: f64,
    /// How long the file is left alone after an error, in ms.
    pub retry_after_ms: u64,
    /// How old the noted time of use of an entry on disk must be to be noted again, in ms. Eviction there is no more
    /// exact than this.
    pub touch_after_ms: u64,
    /// Told about events.
    pub listener: Option<Listener>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            max_entries: 1000,
            max_bytes: 100 << 20,
            ttl: Some(Duration::from_secs(3600)),
            precision: Precision::default(),
            path: None,
            max_disk_bytes: None,
            shared: None,
            validate_content: true,
            maintenance_interval: Duration::from_secs(300),
            hit_ratio_threshold: 0.7,
            retry_after_ms: disk::RETRY_AFTER_MS,
            touch_after_ms: disk::TOUCH_AFTER_MS,
            listener: None,
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// Memory for pages of the file: an eighth of all, as far as that is of use.
fn page_bytes(max_bytes: usize) -> usize {
    (max_bytes / 8).min(16 << 20)
}

/// What maintenance did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Optimized {
    /// Entries whose time was over, in memory.
    pub expired_in_memory: usize,
    /// Entries whose time was over, on disk.
    pub expired_on_disk: usize,
    /// Entries that were deleted because the file was too large.
    pub evicted_on_disk: usize,
    /// Bytes that the file gave back.
    pub freed_bytes: u64,
    /// Whether all was done that there was to do, within the time.
    pub complete: bool,
}

/// A deletion that has taken effect, and of which the file and the server may not know yet. See [`EmbeddingCache::resolve`].
pub struct Deletion {
    in_memory: usize,
    on_disk: Option<Ticket>,
    shared: Option<shared::Ticket>,
}

impl Deletion {
    /// How many entries there were, where there is nobody else who has to know of it.
    pub fn done(&self) -> Option<usize> {
        (self.on_disk.is_none() && self.shared.is_none()).then_some(self.in_memory)
    }
}

/// A cache. All methods may be called at once from many threads.
///
/// Nothing here is async. Methods that may wait for the disk say so. Changes take effect in the order of their calls, before
/// any waiting.
pub struct EmbeddingCache {
    options: CacheOptions,
    memory: Memory,
    disk: Option<Disk>,
    shared: Option<Shared>,
    counters: Counters,
    indexes: Indexes,
    /// Length of the vectors of each space, and the state of the file ([`Disk::epoch`]) for which it is known.
    dimensions: RwLock<HashMap<i64, (usize, u32)>>,
    /// What other machines have changed.
    others: Others,
    /// Held while a change goes to the disk and then to memory: both see all changes in one order.
    changing: Mutex<()>,
    closed: AtomicBool,
}

impl EmbeddingCache {
    /// A cache with these options. Does not wait for the file to be opened.
    pub fn open(mut options: CacheOptions) -> Result<Self> {
        if let Some(path) = &mut options.path {
            disk::check_path(path).map_err(|reason| Error::config("persistPath", reason))?;
            // Whatever becomes the working directory: it is the file that the caller means now.
            *path = path::absolute(&*path).map_err(|error| Error::config("persistPath", error.to_string()))?;
        }
        let pages = options.path.as_ref().map_or(0, |_| page_bytes(options.max_bytes));
        let disk = match &options.path {
            None => None,
            Some(path) => {
                let disk_options = DiskOptions {
                    path: path.clone(),
                    max_bytes: options.max_disk_bytes,
                    page_bytes: pages,
                    retry_after_ms: options.retry_after_ms,
                    touch_after_ms: options.touch_after_ms,
                };
                Some(Disk::new(disk_options, Arc::clone(&options.clock), options.listener.clone())?)
            }
        };
        let shared = options.shared.clone();
        let shared = shared
            .map(|shared| Shared::new(shared, Arc::clone(&options.clock), options.listener.clone()))
            .transpose()?;
        // Nobody knows what others have changed while this process did not run.
        if let (Some(disk), Some(_)) = (&disk, &shared) {
            disk.doubt();
        }
        Ok(Self {
            memory: Memory::new(options.max_entries, options.max_bytes - pages),
            disk,
            shared,
            counters: Counters::default(),
            indexes: Indexes::default(),
            dimensions: RwLock::default(),
            others: Others::default(),
            changing: Mutex::default(),
            closed: AtomicBool::new(false),
            options,
        })
    }

    /// Whether there is a tier below memory, which may have to be waited for.
    pub fn may_wait(&self) -> bool {
        self.disk.is_some() || self.shared.is_some()
    }

    /// Whether it has nothing but memory.
    pub fn is_memory(&self) -> bool {
        self.disk.is_none() && self.shared.is_none()
    }

    /// Whether others may compute what this cache has no answer for: then leases say who does.
    pub fn has_leases(&self) -> bool {
        self.disk.is_some() || self.shared.as_ref().is_some_and(Shared::leases)
    }

    /// Entries in memory and on disk, about.
    fn entries(&self) -> usize {
        self.memory.len() + self.disk.as_ref().map_or(0, |disk| disk.stats().entries as usize)
    }

    /// Whether more can be set without waiting for the disk.
    pub fn has_room(&self) -> bool {
        self.disk.as_ref().is_none_or(Disk::has_room)
    }

    /// Waits until more can be set, or until it is known that the file takes nothing for a while.
    pub fn await_room(&self) {
        if let Some(disk) = &self.disk {
            disk.await_room();
        }
    }

    /// Counts entries that a caller wanted to be kept, and tells that they were not: whoever has computed them answers
    /// with them all the same.
    pub fn reject(&self, entries: usize, reason: &str) {
        self.counters.rejected.add(entries);
        if let Some(listener) = &self.options.listener {
            listener(Event::Rejected { entries, reason: reason.to_owned() });
        }
    }

    /// The length of a space's vectors, which `first` decides if there are none yet.
    fn dimensions(&self, space: &Space, first: usize, now: Now) -> usize {
        let known = self.dimensions.read().unwrap_or_else(PoisonError::into_inner).get(&space.id()).copied();
        let known = match (known, &self.disk) {
            (Some((length, _)), None) => Some(length),
            (Some((length, epoch)), _) if epoch == now.epoch => Some(length),
            (None, None) => None,
            // Others may have begun anew, with another model.
            (_, Some(disk)) => disk.dimensions_of(space, first),
        };
        let known = known.unwrap_or(first);
        let mut dimensions = self.dimensions.write().unwrap_or_else(PoisonError::into_inner);
        dimensions.insert(space.id(), (known, now.epoch));
        known
    }

    /// The lengths of vectors of all spaces, as far as anybody knows. May wait for the file to be opened.
    pub fn lengths(&self) -> BTreeSet<usize> {
        let known = self.dimensions.read().unwrap_or_else(PoisonError::into_inner);
        let mut lengths: BTreeSet<usize> = known.values().map(|(length, _)| *length).collect();
        drop(known);
        lengths.extend(self.disk.iter().flat_map(Disk::lengths));
        lengths
    }

    /// Deletes an entry; whether there was one. Waits until the file knows of it.
    ///
    /// # Errors
    /// [`Error::Storage`] where the file has the entry, or may have it, and cannot be told now: the entry is gone from memory,
    /// and goes from the file once that can be written, if this cache is still open then.
    pub fn delete<'a>(&self, probe: impl Into<Probe<'a>>) -> Result<bool> {
        self.resolve(self.begin_delete(probe)).map(|deleted| deleted > 0)
    }

    /// [`EmbeddingCache::delete`] that takes effect at once; [`EmbeddingCache::resolve`] waits for the file.
    pub fn begin_delete<'a>(&self, probe: impl Into<Probe<'a>>) -> Deletion {
        let (probe, now) = (probe.into(), self.now());
        let changing = lock(&self.changing);
        let shared = self.shared.as_ref().map(|shared| shared.delete(probe.key()));
        let on_disk = self.disk.as_ref().map(|disk| disk.delete(probe.key()));
        let removed = self.memory.remove(probe.name(), now);
        drop(changing);
        self.removed(removed);
        Deletion { in_memory: removed.live, on_disk, shared }
    }

    /// Deletes all entries of a space and of a kind; absent ones stand for all. Waits until the file knows of it.
    ///
    /// # Errors
    /// See [`EmbeddingCache::delete`].
    pub fn clear(&self, space: Option<&Space>, kind: Option<&str>) -> Result<()> {
        let selection = space.map_or_else(Selection::default, |space| Selection::default().of(space.id()));
        self.delete_all(kind.map_or(selection.clone(), |kind| selection.kind(kind))).map(drop)
    }

    /// Deletes all entries that `selection` covers; how many there were: in the file, or in memory where there is none. Waits
    /// until the file knows of it.
    ///
    /// # Errors
    /// See [`EmbeddingCache::delete`].
    pub fn delete_all(&self, selection: Selection) -> Result<usize> {
        self.resolve(self.begin_delete_all(selection))
    }

    /// [`EmbeddingCache::delete_all`] that takes effect at once; [`EmbeddingCache::resolve`] waits for the file.
    pub fn begin_delete_all(&self, selection: Selection) -> Deletion {
        let now = self.now();
        let changing = lock(&self.changing);
        // What has expired, the server deletes by itself.
        let shared = self.shared.as_ref().filter(|_| selection.expired_by_ms.is_none());
        let shared = shared.map(|shared| shared.clear(selection.clone()));
        let on_disk = self.disk.as_ref().map(|disk| disk.clear(selection.clone()));
        let removed = self.memory.remove_all(now, |entry| selection.covers(entry));
        self.indexes.forget(selection.space);
        if selection.is_whole() {
            let mut dimensions = self.dimensions.write().unwrap_or_else(PoisonError::into_inner);
            dimensions.retain(|space, _| selection.space.is_some_and(|id| id != *space));
        }
        drop(changing);
        self.removed(removed);
        let of_expired = selection.expired_by_ms.is_some();
        Deletion { in_memory: removed.live + if of_expired { removed.expired } else { 0 }, on_disk, shared }
    }

    /// Waits until the file knows of a deletion, and the server as long as it answers; how many entries there were where
    /// there were most.
    ///
    /// # Errors
    /// See [`EmbeddingCache::delete`].
    pub fn resolve(&self, deletion: Deletion) -> Result<usize> {
        let Deletion { in_memory, on_disk, shared } = deletion;
        let shared = self.shared.as_ref().zip(shared).and_then(|(tier, ticket)| tier.resolve(&ticket));
        let on_disk = self.disk.as_ref().zip(on_disk).map(|(disk, ticket)| disk.resolve(&ticket));
        let on_disk = on_disk.transpose().map_err(|reason| storage_failed(&self.options, reason))?.flatten();
        Ok(on_disk.unwrap_or(in_memory).max(shared.unwrap_or_default()))
    }

    /// All entries of a space that memory holds and that are answers, in no order. Counts as no use and in no statistics.
    pub fn in_memory(&self, space: &Space) -> Vec<Arc<Entry>> {
        self.memory.of_space(space.id(), self.now()).into_iter().map(|(_, entry)| entry).collect()
    }

    /// Takes the leases on `keys` that are free, for `lifetime` (at most ten minutes): whoever has the lease computes,
    /// the others of all processes on this file, or of all machines on the server, wait and look again. Without either, or
    /// while neither can be used, all are granted. Waits for the server as long as an answer may take, and for the disk a tenth
    /// of a second where another program holds it.
    pub fn acquire(&self, keys: &[Key], lifetime: Duration) -> Vec<bool> {
        let shared = self.shared.as_ref().filter(|shared| shared.leases());
        if let Some(granted) = shared.and_then(|shared| shared.acquire(keys, lifetime)) {
            return granted;
        }
        self.disk.as_ref().map_or_else(|| vec![true; keys.len()], |disk| disk.acquire(keys, lifetime))
    }

    /// Gives leases back, once what was committed before can be seen by others.
    pub fn release(&self, keys: Vec<Key>) {
        if let Some(shared) = self.shared.as_ref().filter(|shared| shared.leases()) {
            shared.release(keys.clone());
        }
        if let Some(disk) = &self.disk {
            disk.release(keys);
        }
    }

    /// Drops what has expired, keeps the file within its limit and gives free space and memory back, in small steps for
    /// about `budget`. Waits for the disk.
    pub fn optimize(&self, budget: Duration) -> Optimized {
        let expired_in_memory = self.memory.sweep(self.now());
        self.left(EvictionCause::Expired, expired_in_memory);
        let tidied = self.disk.as_ref().map(|disk| disk.tidy(budget)).unwrap_or_default();
        host::trim();
        Optimized {
            expired_in_memory,
            expired_on_disk: tidied.expired,
            evicted_on_disk: tidied.evicted,
            freed_bytes: tidied.pages as u64 * store::PAGE_BYTES,
            complete: !tidied.more,
        }
    }

    /// Gives half of the memory back that entries take, for others who need it now. What is in a file stays there.
    pub fn give_back(&self) {
        self.displaced(&self.memory.halve(self.now()));
        if let Some(disk) = &self.disk {
            disk.shrink();
        }
    }

    /// Waits until everything that was committed before is in the file, so that not even a loss of power takes it, and on the
    /// server, as long as that answers.
    ///
    /// # Errors
    /// [`Error::Storage`] when entries could not be written since the last call, or another program has held the file for some
    /// seconds.
    pub fn flush(&self) -> Result<()> {
        self.shared.iter().for_each(Shared::flush);
        let flushed = self.disk.as_ref().map_or(Ok(()), Disk::flush);
        flushed.map_err(|reason| storage_failed(&self.options, reason))
    }

    /// Takes no changes any more, and begins to write what is queued. Does not wait.
    pub fn begin_close(&self) {
        self.closed.store(true, Ordering::Release);
        self.shared.iter().for_each(Shared::begin_close);
        self.disk.iter().for_each(Disk::begin_close);
    }

    /// Writes what is queued, closes the file and frees memory. May be called any number of times. Waits for the disk: for one
    /// that another program holds, some seconds, after which what is queued is lost.
    pub fn close(&self) {
        self.begin_close();
        self.disk.iter().for_each(Disk::close);
        self.shared.iter().for_each(Shared::close);
        self.memory.remove_all(self.now(), |_| true);
        self.indexes.forget(None);
        host::trim();
    }

    /// Whether [`EmbeddingCache::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// What it was made with.
    pub fn options(&self) -> &CacheOptions {
        &self.options
    }

    /// Counts a lookup that could not even be made, because what was asked for has no key.
    pub fn count_miss(&self) {
        self.counters.missed(MissCause::Absent, Modality::Text);
    }

    /// A time that only goes forward, in microseconds: of a difference of whole milliseconds, one might be too much.
    pub fn steady_us(&self) -> u64 {
        self.options.clock.steady_us()
    }

    /// How long it is since [`EmbeddingCache::steady_us`] was `began_us`.
    pub fn age(&self, began_us: u64) -> Duration {
        Duration::from_micros(self.steady_us().saturating_sub(began_us))
    }

    /// How many entries left memory: expired, deleted, replaced, for want of space.
    pub fn evicted(&self) -> [u64; 4] {
        self.counters.evictions()
    }

    /// How it does.
    pub fn stats(&self) -> Stats {
        let mut counted = self.counters.stats();
        for (stats, [entries, bytes]) in counted.modalities.iter_mut().zip(self.memory.by_modality()) {
            (stats.entries, stats.bytes) = (entries, bytes);
        }
        Stats {
            entries: self.memory.len(),
            bytes: self.memory.bytes(),
            payload_bytes: self.memory.payload_bytes(),
            max_entries: self.options.max_entries,
            max_bytes: self.options.max_bytes,
            entry_bytes: self.memory.max_bytes(),
            disk: self.disk.as_ref().map(Disk::stats),
            shared: self.shared.as_ref().map(Shared::stats),
            ..counted
        }
    }

    /// The latest calls, the oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.counters.samples()
    }

    /// Looks at the file now and then whether others have changed it, which takes microseconds.
    fn now(&self) -> Now {
        let clock = &self.options.clock;
        let now = Now { wall_ms: clock.wall_ms(), steady_ms: clock.steady_ms(), epoch: 0, verified: true };
        self.follow_others(now);
        // What was missed of other machines' changes counts like a change of the file.
        let missed = self.others.missed();
        let Some(disk) = &self.disk else { return Now { epoch: missed, ..now } };
        let (epoch, verified) = disk.epoch(now).map_or_else(|| (disk.known_epoch(), false), |epoch| (epoch, true));
        Now { epoch: epoch.wrapping_add(missed), verified, ..now }
    }

    fn displaced(&self, displaced: &Displaced) {
        self.left(EvictionCause::Replaced, displaced.replaced);
        self.left(EvictionCause::Expired, displaced.expired);
        self.left(EvictionCause::Size, displaced.for_size);
    }

    fn removed(&self, removed: Removed) {
        self.left(EvictionCause::Explicit, removed.live);
        self.left(EvictionCause::Expired, removed.expired);
    }

    fn left(&self, cause: EvictionCause, entries: usize) {
        if entries > 0 {
            self.counters.evicted(cause, entries);
            if let Some(listener) = &self.options.listener {
                listener(Event::Evicted { cause, entries });
            }
        }
    }
}

fn storage_failed(options: &CacheOptions, reason: String) -> Error {
    let path = options.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    Error::Storage { path, reason }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
