//! What was computed before, in memory and on disk. JS class: `IntelligentEmbeddingCache`.
//!
//! One door: look up, commit. A lookup answers what was committed last for its key, or nothing: never a value for
//! another key, another content, a value that is too old, or one that a crash tore apart. What the disk does never
//! fails a lookup or a commit; it is counted and told as an [`Event`].
//!
//! Each user has a [`Space`] of its own, so several can share one cache and one file.

mod codes;
mod disk;
mod entry;
mod flights;
mod memory;
mod name;
mod near;
mod report;
mod store;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use disk::{Asked, Disk, DiskOptions, OnDisk};
pub use entry::{Draft, Entry, MAX_ENTRY_BYTES, Precision, Vector};
pub use flights::{Boarding, Flights, Leader, Waiter};
use memory::{Displaced, Found, Memory, Now, Place};
pub use name::{Names, Probe};
pub use near::Near;
use near::{Handle, Index, Indexes, Nearest};
use report::Counters;
pub use report::{DiskStats, Event, EvictionCause, Listener, MissCause, Sample, Stats};

use crate::embedding::{Key, Space};
use crate::error::{Error, Result};
use crate::host::{Clock, SystemClock};

/// What a cache is made with.
#[derive(Clone)]
pub struct CacheOptions {
    /// Most entries in memory, at least 1.
    pub max_entries: usize,
    /// Most bytes in memory, bookkeeping included.
    pub max_bytes: usize,
    /// How long an entry is an answer unless it says so itself; `None`: until it is evicted.
    pub ttl: Option<Duration>,
    /// How vectors are stored.
    pub precision: Precision,
    /// The file of the disk tier; `None`: memory only. Missing directories are made.
    pub path: Option<PathBuf>,
    /// Most bytes of the file; `None`: as many as the disk has. Its log beside it takes some 10 MB more.
    pub max_disk_bytes: Option<u64>,
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

/// Entries in memory that are compared one by one when similar ones are asked for: a fraction of a millisecond.
pub const SMALL: usize = 2000;

/// Lookups whose way to the main memory is shared. See [`Memory::fetch`].
const TOGETHER: usize = 64;

/// What memory alone can say.
pub enum Recall {
    /// All of it: an answer or `None` for each probe.
    Done(Vec<Option<Arc<Entry>>>),
    /// The disk must be asked: [`EmbeddingCache::settle`] does, and blocks.
    AskDisk(Open),
}

/// A lookup on its way from memory to disk.
pub struct Open {
    answers: Vec<Option<Arc<Entry>>>,
    open: Vec<Unanswered>,
    started: Instant,
}

struct Unanswered {
    at: usize,
    cause: MissCause,
    /// Where memory would have it, and [`Memory::version`] of that.
    place: Place,
    version: u32,
    asked: Asked,
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

/// A cache. All methods may be called at once from many threads.
///
/// Nothing here is async. Methods that may wait for the disk say so.
pub struct EmbeddingCache {
    options: CacheOptions,
    memory: Memory,
    disk: Option<Disk>,
    counters: Counters,
    indexes: Indexes,
    /// Length of the vectors of each space.
    dimensions: RwLock<HashMap<i64, usize>>,
    /// Held while a change goes to the disk and then to memory: both see all changes in one order.
    changing: Mutex<()>,
    closed: AtomicBool,
}

impl EmbeddingCache {
    /// A cache with these options. Does not wait for the file to be opened.
    pub fn open(options: CacheOptions) -> Result<Self> {
        let disk = match &options.path {
            None => None,
            Some(path) => {
                disk::check_path(path).map_err(|reason| Error::config("persistPath", reason))?;
                let disk_options = DiskOptions {
                    path: path.clone(),
                    max_bytes: options.max_disk_bytes,
                    retry_after_ms: options.retry_after_ms,
                    touch_after_ms: options.touch_after_ms,
                };
                let disk = Disk::new(disk_options, Arc::clone(&options.clock), options.listener.clone());
                Some(disk.map_err(|reason| storage_failed(&options, reason))?)
            }
        };
        Ok(Self {
            memory: Memory::new(options.max_entries, options.max_bytes),
            disk,
            counters: Counters::default(),
            indexes: Indexes::default(),
            dimensions: RwLock::default(),
            changing: Mutex::default(),
            closed: AtomicBool::new(false),
            options,
        })
    }

    /// The answer, from memory or else from disk. May wait for the disk.
    pub fn lookup<'a>(&self, probe: impl Into<Probe<'a>>) -> Option<Arc<Entry>> {
        self.recall_one(&probe.into()).unwrap_or_else(|open| self.settle(open).pop().flatten())
    }

    /// The answers to many probes, in their order. May wait for the disk, once for all.
    pub fn lookup_many<'a, P: Into<Probe<'a>>>(&self, probes: impl IntoIterator<Item = P>) -> Vec<Option<Arc<Entry>>> {
        match self.recall(probes) {
            Recall::Done(answers) => answers,
            Recall::AskDisk(open) => self.settle(open),
        }
    }

    /// Looks into memory only. Never waits.
    pub fn recall<'a, P: Into<Probe<'a>>>(&self, probes: impl IntoIterator<Item = P>) -> Recall {
        let started = Instant::now();
        let now = self.now();
        let mut probes = probes.into_iter().map(Into::into);
        let mut open = Vec::new();
        let mut found = 0;
        let mut answers = Vec::with_capacity(probes.size_hint().0);
        let mut some: Vec<Probe> = Vec::with_capacity(TOGETHER);
        loop {
            some.clear();
            some.extend(probes.by_ref().take(TOGETHER));
            if some.is_empty() {
                break;
            }
            self.memory.fetch(&some);
            for probe in &some {
                let answer = match self.ask_memory(probe, now) {
                    Ok(entry) => {
                        found += 1;
                        Some(entry)
                    }
                    Err(cause) => {
                        match self.disk {
                            Some(_) => open.push(self.unanswered(probe, answers.len(), cause)),
                            None => self.counters.missed(cause, 1),
                        }
                        None
                    }
                };
                answers.push(answer);
            }
        }
        self.counters.memory_hits.add(found);
        if open.is_empty() {
            self.counters.took(started.elapsed(), answers.len(), found, now.wall_ms);
            return Recall::Done(answers);
        }
        Recall::AskDisk(Open { answers, open, started })
    }

    /// [`EmbeddingCache::recall`] for one: the answer, `None` for a miss, or a lookup to be settled.
    pub fn recall_one(&self, probe: &Probe) -> Result<Option<Arc<Entry>>, Open> {
        let started = Instant::now();
        let now = self.now();
        let answer = match self.ask_memory(probe, now) {
            Ok(entry) => {
                self.counters.memory_hits.add(1);
                Some(entry)
            }
            Err(cause) if self.disk.is_some() => {
                return Err(Open { answers: vec![None], open: vec![self.unanswered(probe, 0, cause)], started });
            }
            Err(cause) => {
                self.counters.missed(cause, 1);
                None
            }
        };
        self.counters.took(started.elapsed(), 1, usize::from(answer.is_some()), now.wall_ms);
        Ok(answer)
    }

    fn unanswered(&self, probe: &Probe, at: usize, cause: MissCause) -> Unanswered {
        let asked = (probe.key(), probe.content_hash());
        let place = Place { name: probe.name(), content: probe.content() };
        Unanswered { at, cause, place, version: self.memory.version(place.name), asked }
    }

    /// Answers what memory could not. Waits for the disk.
    pub fn settle(&self, mut open: Open) -> Vec<Option<Arc<Entry>>> {
        let now = self.now();
        if let Some(disk) = &self.disk {
            let asked: Vec<Asked> = open.open.iter().map(|unanswered| unanswered.asked).collect();
            let mut found = disk.get(&asked, now).into_iter();
            open.open.retain_mut(|unanswered| {
                unanswered.cause = match found.next() {
                    Some(OnDisk::Hit(entry)) => {
                        let displaced = self.memory.promote(unanswered.place, &entry, now, unanswered.version);
                        self.displaced(&displaced);
                        self.counters.disk_hits.add(1);
                        open.answers[unanswered.at] = Some(entry);
                        return false;
                    }
                    Some(OnDisk::Expired) => MissCause::Expired,
                    Some(OnDisk::Changed) => MissCause::Changed,
                    Some(OnDisk::Damaged) => MissCause::Damaged,
                    // What memory had is the better reason.
                    Some(OnDisk::Absent) | None => unanswered.cause,
                };
                true
            });
        }
        for unanswered in &open.open {
            self.counters.missed(unanswered.cause, 1);
        }
        let requests = open.answers.len();
        self.counters.took(open.started.elapsed(), requests, requests - open.open.len(), now.wall_ms);
        open.answers
    }

    fn ask_memory(&self, probe: &Probe, now: Now) -> Result<Arc<Entry>, MissCause> {
        match self.memory.get(probe, now) {
            Found::Hit(entry) => Ok(entry),
            Found::Absent => Err(MissCause::Absent),
            Found::Expired => {
                self.left(EvictionCause::Expired, 1);
                Err(MissCause::Expired)
            }
            Found::Changed => {
                self.left(EvictionCause::Explicit, 1);
                Err(MissCause::Changed)
            }
        }
    }

    /// What memory has. Counts as no use and in no statistics; never waits.
    pub fn peek<'a>(&self, probe: impl Into<Probe<'a>>) -> Option<Arc<Entry>> {
        self.memory.peek(&probe.into(), self.now())
    }

    /// Whether a lookup would be answered. Counts as no use and in no statistics. May wait for the disk.
    pub fn contains<'a>(&self, probe: impl Into<Probe<'a>>) -> bool {
        let (probe, now) = (probe.into(), self.now());
        self.memory.peek(&probe, now).is_some() || self.on_disk((probe.key(), probe.content_hash()), now)
    }

    fn on_disk(&self, asked: Asked, now: Now) -> bool {
        let found = self.disk.as_ref().map(|disk| disk.get(&[asked], now));
        found.is_some_and(|found| matches!(found[..], [OnDisk::Hit(_)]))
    }

    /// Sets an entry. It is an answer at once; it is on disk some ten milliseconds later. May wait for the disk: when
    /// the queue is full, and for the first vector of a space.
    pub fn commit<'a>(&self, space: &Space, probe: impl Into<Probe<'a>>, draft: &Draft<'a>) -> Result<()> {
        self.commit_many(space, [(probe, *draft)])
    }

    /// Sets entries, all or, when one of them is refused, none. Where a probe says which content, a lookup with another
    /// one is a miss and drops the entry.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for values that are not finite, of another length than the space's, or too large;
    /// [`Error::CacheClosed`].
    pub fn commit_many<'a, P: Into<Probe<'a>>>(
        &self,
        space: &Space,
        drafts: impl IntoIterator<Item = (P, Draft<'a>)>,
    ) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::CacheClosed);
        }
        let now = self.now();
        let mut entries = Vec::new();
        for (probe, draft) in drafts {
            draft.check()?;
            if let Some(vector) = draft.vector {
                self.check_dimensions(space, vector.len())?;
            }
            let probe: Probe = probe.into();
            // Nobody but the disk asks for these.
            let (key, hash) = self.disk.as_ref().map(|_| (probe.key(), probe.content_hash())).unzip();
            let entry = draft.entry(space, hash.flatten(), self.options.precision, now.wall_ms, self.options.ttl);
            let place = Place { name: probe.name(), content: probe.content() };
            entries.push((place, key, Arc::new(entry)));
        }
        let count = entries.len();
        let Some(disk) = &self.disk else {
            for (place, _, entry) in &entries {
                self.displaced(&self.memory.insert(*place, entry, now));
            }
            self.index(space, &entries);
            self.counters.sets.add(count);
            return Ok(());
        };
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // The disk first: a lookup that reads it meanwhile must not bring the old value back into memory.
        disk.put(entries.iter().filter_map(|(_, key, entry)| Some(((*key)?, Arc::clone(entry)))));
        let displaced: Vec<_> =
            entries.iter().map(|(place, _, entry)| self.memory.insert(*place, entry, now)).collect();
        self.index(space, &entries);
        drop(changing);
        displaced.iter().for_each(|displaced| self.displaced(displaced));
        self.counters.sets.add(count);
        Ok(())
    }

    /// Has the index of the space follow a change, if there is one.
    fn index(&self, space: &Space, entries: &[(Place, Option<Key>, Arc<Entry>)]) {
        let Some(index) = self.indexes.existing(space.id()) else { return };
        let mut index = lock(&index);
        for (place, key, entry) in entries {
            index.set(key.map_or(Handle::InMemory(place.name), Handle::OnDisk), entry);
        }
        // Most of what it holds has been deleted or evicted: the next search makes it anew.
        if index.len() > 2 * self.entries() + SMALL {
            self.indexes.forget(Some(space.id()));
        }
    }

    /// Entries in both tiers, about.
    fn entries(&self) -> usize {
        self.memory.len() + self.disk.as_ref().map_or(0, |disk| disk.stats().entries as usize)
    }

    /// Whether a commit to `space` would return without waiting for the disk or a search.
    pub fn commits_at_once(&self, space: &Space) -> bool {
        let known = || self.dimensions_of(space).is_some();
        self.disk.as_ref().is_none_or(|disk| disk.has_room() && known()) && !self.indexes.busy(space.id())
    }

    fn dimensions_of(&self, space: &Space) -> Option<usize> {
        self.dimensions.read().unwrap_or_else(PoisonError::into_inner).get(&space.id()).copied()
    }

    fn check_dimensions(&self, space: &Space, length: usize) -> Result<()> {
        let known = match self.dimensions_of(space) {
            Some(known) => known,
            None => {
                let stored = self.disk.as_ref().and_then(|disk| disk.dimensions_of(space, length));
                let mut dimensions = self.dimensions.write().unwrap_or_else(PoisonError::into_inner);
                *dimensions.entry(space.id()).or_insert(stored.unwrap_or(length))
            }
        };
        if known == length {
            return Ok(());
        }
        Err(Error::InvalidArgument(format!(
            "The embedding has {length} values, those in this namespace have {known}: use a namespace of its own for \
             each model, or clear this one"
        )))
    }

    /// Deletes an entry; whether there was one. May wait for the disk.
    pub fn delete<'a>(&self, probe: impl Into<Probe<'a>>) -> bool {
        let probe = probe.into();
        let on_disk = self.disk.is_some() && self.on_disk((probe.key(), None), self.now());
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(disk) = &self.disk {
            disk.delete(probe.key());
        }
        let in_memory = self.memory.remove(probe.name());
        drop(changing);
        self.left(EvictionCause::Explicit, usize::from(in_memory));
        in_memory || on_disk
    }

    /// Deletes all entries of a space and of a kind; absent ones stand for all.
    pub fn clear(&self, space: Option<&Space>, kind: Option<&str>) {
        let id = space.map(Space::id);
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(disk) = &self.disk {
            disk.clear(id, kind);
        }
        let covered = |entry: &Entry| id.is_none_or(|id| id == entry.space) && kind.is_none_or(|k| *k == *entry.kind);
        let removed = self.memory.remove_all(covered);
        self.indexes.forget(id);
        if kind.is_none() {
            let mut dimensions = self.dimensions.write().unwrap_or_else(PoisonError::into_inner);
            dimensions.retain(|space, _| id.is_some_and(|id| id != *space));
        }
        drop(changing);
        self.left(EvictionCause::Explicit, removed);
    }

    /// The entries of a space whose vectors are most similar to `query`, the nearest first: at most `limit` of those
    /// with a cosine of at least `threshold`. Waits for the disk; the first call of a space reads all of it.
    ///
    /// Exact among up to [`SMALL`] entries in memory only. Otherwise one of the nearest may rarely be missing, and a value
    /// that another process has put in the place of one is found where the old one was until maintenance.
    pub fn nearest(&self, space: &Space, query: &[f32], threshold: f32, limit: usize) -> Result<Vec<Near>> {
        Draft { vector: Some(query), ..Draft::default() }.check()?;
        let now = self.now();
        let mut nearest = Nearest::new(query, threshold, limit);
        let disk = self.disk.as_ref().filter(|disk| disk.ready());
        if disk.is_none() && self.memory.len() <= SMALL || self.disk.is_some() && disk.is_none() {
            self.memory.of_space(space.id(), now).iter().for_each(|(_, entry)| nearest.show(entry));
            return Ok(nearest.finish());
        }
        let index = self.indexes.of(space.id());
        let mut dead = Vec::new();
        let candidates = {
            let mut index = lock(&index);
            match disk {
                Some(disk) => self.follow(disk, space, &mut index, now),
                None if index.made => {}
                None => {
                    for (name, entry) in self.memory.of_space(space.id(), now) {
                        if !index.holds(&Handle::InMemory(name)) {
                            index.set(Handle::InMemory(name), &entry);
                        }
                    }
                    index.made = true;
                }
            }
            index.nearest(query, limit)
        };
        // Bytes rank a little differently from the vectors themselves.
        let enough = limit.saturating_add(limit / 2 + 10);
        let mut shown = 0;
        for some in candidates.chunks(enough) {
            let entries = self.fetch(some, now);
            for (candidate, entry) in some.iter().zip(entries) {
                match entry {
                    Some(entry) => {
                        nearest.show(&entry);
                        shown += 1;
                    }
                    None => dead.push(*candidate),
                }
            }
            if shown >= enough {
                break;
            }
        }
        if !dead.is_empty() {
            let mut index = lock(&index);
            dead.iter().for_each(|(handle, stamp)| index.remove(handle, *stamp));
        }
        Ok(nearest.finish())
    }

    /// Adds to the index what was written to the file since it was last looked at, by whatever process.
    fn follow(&self, disk: &Disk, space: &Space, index: &mut Index, now: Now) {
        let after = index.last_row;
        let last = disk.scan(space.id(), after, now, |key, entry| {
            if !index.holds(&Handle::OnDisk(key)) {
                index.set(Handle::OnDisk(key), &entry);
            }
        });
        index.last_row = last.unwrap_or(after);
    }

    /// What the tiers answer now for what an index names.
    fn fetch(&self, candidates: &[(Handle, u64)], now: Now) -> Vec<Option<Arc<Entry>>> {
        let named = |(handle, _): &(Handle, u64)| match handle {
            Handle::InMemory(name) => self.memory.named(*name, now),
            Handle::OnDisk(_) => None,
        };
        let Some(disk) = &self.disk else { return candidates.iter().map(named).collect() };
        let asked = candidates.iter().filter_map(|(handle, _)| match handle {
            Handle::OnDisk(key) => Some((*key, None)),
            Handle::InMemory(_) => None,
        });
        let found = disk.get(&asked.collect::<Vec<_>>(), now).into_iter();
        found.map(|found| if let OnDisk::Hit(entry) = found { Some(entry) } else { None }).collect()
    }

    /// Takes the leases on `keys` that are free, for `lifetime` (at most ten minutes): whoever has the lease computes,
    /// the others of all processes on this file wait and look again. Without a file, or while it cannot be used, all
    /// are granted. Waits for the disk.
    pub fn acquire(&self, keys: &[Key], lifetime: Duration) -> Vec<bool> {
        self.disk.as_ref().map_or_else(|| vec![true; keys.len()], |disk| disk.acquire(keys, lifetime))
    }

    /// Gives leases back, once what was committed before can be seen by others.
    pub fn release(&self, keys: Vec<Key>) {
        if let Some(disk) = &self.disk {
            disk.release(keys);
        }
    }

    /// Drops what has expired, keeps the file within its limit and gives free space back, in small steps for about
    /// `budget`. Waits for the disk.
    pub fn optimize(&self, budget: Duration) -> Optimized {
        let expired_in_memory = self.memory.sweep(self.now());
        self.left(EvictionCause::Expired, expired_in_memory);
        let tidied = self.disk.as_ref().map(|disk| disk.tidy(budget)).unwrap_or_default();
        if self.disk.is_some() {
            // Other processes may have replaced what it holds.
            self.indexes.forget(None);
        }
        Optimized {
            expired_in_memory,
            expired_on_disk: tidied.expired,
            evicted_on_disk: tidied.evicted,
            freed_bytes: tidied.pages as u64 * store::PAGE_BYTES,
            complete: !tidied.more,
        }
    }

    /// Waits until everything that was committed before is in the file, so that not even a loss of power takes it.
    ///
    /// # Errors
    /// [`Error::Storage`] when entries could not be written since the last call.
    pub fn flush(&self) -> Result<()> {
        let flushed = self.disk.as_ref().map_or(Ok(()), Disk::flush);
        flushed.map_err(|reason| storage_failed(&self.options, reason))
    }

    /// Writes what is queued, closes the file and frees memory. May be called any number of times; waits for the disk.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(disk) = &self.disk {
            disk.close();
        }
        self.memory.remove_all(|_| true);
        self.indexes.forget(None);
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
        self.counters.missed(MissCause::Absent, 1);
    }

    /// How it does.
    pub fn stats(&self) -> Stats {
        Stats {
            entries: self.memory.len(),
            bytes: self.memory.bytes(),
            payload_bytes: self.memory.payload_bytes(),
            max_entries: self.options.max_entries,
            max_bytes: self.options.max_bytes,
            disk: self.disk.as_ref().map(Disk::stats),
            ..self.counters.stats()
        }
    }

    /// The latest calls, the oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.counters.samples()
    }

    fn now(&self) -> Now {
        let clock = &self.options.clock;
        Now { wall_ms: clock.wall_ms(), steady_ms: clock.steady_ms() }
    }

    fn displaced(&self, displaced: &Displaced) {
        self.left(EvictionCause::Replaced, displaced.replaced);
        self.left(EvictionCause::Expired, displaced.expired);
        self.left(EvictionCause::Size, displaced.for_size);
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
