//! What a cache tells about itself: counters, samples of recent calls, events.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::embedding::Modality;

/// Calls whose duration is kept one by one.
const SAMPLES: usize = 128;

/// Something that a caller may want to know when it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Entries left the memory tier.
    Evicted {
        /// Why.
        cause: EvictionCause,
        /// How many.
        entries: usize,
    },
    /// Rows of the file were not what was written. They are misses and are deleted.
    RowsDamaged {
        /// The file.
        path: PathBuf,
        /// How many.
        rows: usize,
    },
    /// The file cannot be read or written. The cache goes on without it and tries again later.
    StorageFailed {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The file is in use again.
    StorageRestored {
        /// The file.
        path: PathBuf,
    },
    /// The file belongs to somebody else and is left alone: this cache stays in memory.
    StorageRefused {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        reason: String,
    },
    /// Keys of the file were damaged, so that entries could not be found. They can again.
    IndexRebuilt {
        /// The file.
        path: PathBuf,
    },
    /// The file was broken; it was kept under another name and a new one was begun.
    FileSetAside {
        /// The file.
        path: PathBuf,
        /// Where the broken one is now.
        moved_to: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
    /// The server of the shared tier cannot be asked, or takes no changes. The cache goes on without it, and tries again.
    SharedFailed {
        /// The server.
        server: String,
        /// What happened.
        reason: String,
    },
    /// The server is in use again.
    SharedRestored {
        /// The server.
        server: String,
    },
    /// Values on the server were not what was written: damaged, or another program's. They are misses.
    SharedDamaged {
        /// The server.
        server: String,
        /// How many.
        values: usize,
    },
    /// Entries were not kept although their caller was not told so by an error.
    Rejected {
        /// How many.
        entries: usize,
        /// Why.
        reason: String,
    },
}

/// Why an entry left the memory tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictionCause {
    /// Its time was over.
    Expired,
    /// The caller deleted it, or showed another content.
    Explicit,
    /// The caller set another value.
    Replaced,
    /// Another one needed the space.
    Size,
}

/// Told about events, on whatever thread they happen. Must be quick and must not use the cache.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// Why a lookup had no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissCause {
    /// Never set, deleted, or evicted.
    Absent,
    /// Too old.
    Expired,
    /// Made from another content.
    Changed,
    /// The row on disk was not what was written.
    Damaged,
}

/// One recent call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When it was answered, in ms since 1970.
    pub at_ms: u64,
    /// How long it took, in ns; of a call for many entries, the share of one.
    pub ns: u64,
    /// Share of its entries that were there, 0–1.
    pub hit_ratio: f64,
}

/// How a cache does, since it was made. Every number is measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Entries that were looked up.
    pub requests: u64,
    /// Of these, answered from memory.
    pub memory_hits: u64,
    /// Of these, answered from disk.
    pub disk_hits: u64,
    /// Of these, answered by the server of the shared tier.
    pub shared_hits: u64,
    /// Of these, not there.
    pub missed_absent: u64,
    /// Of these, there but too old.
    pub missed_expired: u64,
    /// Of these, there but made from another content.
    pub missed_changed: u64,
    /// Of these, there but damaged.
    pub missed_damaged: u64,
    /// Entries that were set.
    pub sets: u64,
    /// Entries that could not be kept although their caller was answered.
    pub rejected: u64,
    /// Entries that left memory because their time was over.
    pub evicted_expired: u64,
    /// Entries that left memory because the caller deleted them or showed another content.
    pub evicted_explicit: u64,
    /// Entries that left memory because another value was set.
    pub evicted_replaced: u64,
    /// Entries that left memory because another one needed the space.
    pub evicted_size: u64,
    /// Entries in memory.
    pub entries: usize,
    /// Bytes that they take, their bookkeeping included.
    pub bytes: usize,
    /// Of these, the bytes of vectors and notes alone.
    pub payload_bytes: usize,
    /// Most entries in memory.
    pub max_entries: usize,
    /// Most bytes in memory.
    pub max_bytes: usize,
    /// Of these, bytes for entries.
    pub entry_bytes: usize,
    /// How it does by what embeddings were made from, in the order of [`Modality::ALL`]: together, what is said above.
    pub modalities: [ModalityStats; Modality::ALL.len()],
    /// Nanoseconds that all lookups together took, waiting for disk included.
    pub access_ns: u64,
    /// The disk tier, if there is one.
    pub disk: Option<DiskStats>,
    /// The shared tier, if there is one.
    pub shared: Option<SharedStats>,
}

/// How a cache does for one modality.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModalityStats {
    /// Lookups that were answered.
    pub hits: u64,
    /// Lookups that were not.
    pub misses: u64,
    /// Entries that were set.
    pub sets: u64,
    /// Entries in memory.
    pub entries: usize,
    /// Bytes that they take, their bookkeeping included.
    pub bytes: usize,
}

impl ModalityStats {
    /// Share of lookups that were answered, 0–1; 0 before the first.
    pub fn hit_ratio(&self) -> f64 {
        ratio(self.hits as f64, (self.hits + self.misses) as f64)
    }
}

impl Stats {
    /// Lookups that were answered.
    pub fn hits(&self) -> u64 {
        self.memory_hits + self.disk_hits + self.shared_hits
    }

    /// Lookups that were not.
    pub fn misses(&self) -> u64 {
        self.missed_absent + self.missed_expired + self.missed_changed + self.missed_damaged
    }

    /// Entries that left memory, for whatever reason.
    pub fn evictions(&self) -> u64 {
        self.evicted_expired + self.evicted_explicit + self.evicted_replaced + self.evicted_size
    }

    /// Share of lookups that were answered, 0–1; 0 before the first.
    pub fn hit_ratio(&self) -> f64 {
        ratio(self.hits() as f64, self.requests as f64)
    }

    /// How full memory is, by entries or by bytes, whichever is fuller. 0–1.
    pub fn utilization(&self) -> f64 {
        let entries = ratio(self.entries as f64, self.max_entries as f64);
        entries.max(ratio(self.bytes as f64, self.entry_bytes as f64))
    }

    /// Mean nanoseconds of a lookup; 0 before the first.
    pub fn average_access_ns(&self) -> f64 {
        ratio(self.access_ns as f64, self.requests as f64)
    }
}

/// Whether the server of the shared tier is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SharedState {
    /// Nobody knows yet.
    #[default]
    Connecting,
    /// It is.
    Ready,
    /// Not for a while, after it did not answer.
    Open,
}

/// How the shared tier does, as this cache sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SharedStats {
    /// Whether the server is asked.
    pub state: SharedState,
    /// Lookups that it answered.
    pub hits: u64,
    /// Lookups that it did not answer, for whatever reason.
    pub misses: u64,
    /// Of these, those that it was not asked, or in vain.
    pub skipped: u64,
    /// Of these, those whose value was not what was written.
    pub damaged: u64,
    /// Connections that failed, and commands that were refused.
    pub errors: u64,
    /// Of the failures, those that were waited for.
    pub timeouts: u64,
    /// Entries that wait to be written.
    pub queued: usize,
    /// Entries that it took.
    pub written: u64,
    /// Entries that it did not take, or that found no place in the queue.
    pub dropped: u64,
    /// How long a round trip took, of the latest, in ms: 50, 95 and 99 of a hundred took no longer.
    pub latency_ms: [f64; 3],
}

/// How the disk tier does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DiskStats {
    /// Whether the file is in use. Not before it was opened, and not after an error until it works again.
    pub available: bool,
    /// Entries in the file, all spaces and processes together, as of the last write.
    pub entries: u64,
    /// Bytes of the file that are in use, as of the last write.
    pub bytes: u64,
    /// Entries that wait to be written.
    pub queued: usize,
    /// Entries that were written.
    pub written: u64,
    /// Entries that were not written because of an error or because the file was not available.
    pub lost: u64,
    /// Entries that were deleted because the file was too large.
    pub evicted: u64,
    /// Rows that were not what was written.
    pub damaged: u64,
    /// Errors of the file or of SQLite.
    pub errors: u64,
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// A number that only grows, or a gauge.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: usize) {
        if count > 0 {
            self.0.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters behind [`Stats`].
#[derive(Default)]
pub(super) struct Counters {
    pub memory_hits: Counter,
    pub disk_hits: Counter,
    pub shared_hits: Counter,
    missed: [Counter; 4],
    evicted: [Counter; 4],
    sets: Counter,
    /// Of each modality but the first, which has the rest: texts, which are most, cost nothing to be told apart.
    others: [Others; Modality::ALL.len() - 1],
    pub rejected: Counter,
    access_ns: Counter,
    samples: Mutex<VecDeque<Sample>>,
}

/// See [`Counters::others`].
#[derive(Default)]
struct Others {
    hits: Counter,
    misses: Counter,
    sets: Counter,
}

impl Counters {
    /// Counts a lookup that was not answered.
    pub fn missed(&self, cause: MissCause, modality: Modality) {
        self.missed[cause as usize].add(1);
        self.others_of(modality).inspect(|others| others.misses.add(1));
    }

    /// Counts answers of `modality`, beside those of their tier.
    pub fn hits_of(&self, modality: Modality, count: usize) {
        self.others_of(modality).inspect(|others| others.hits.add(count));
    }

    /// Counts entries that were set.
    pub fn set(&self, modality: Modality, count: usize) {
        self.sets.add(count);
        self.others_of(modality).inspect(|others| others.sets.add(count));
    }

    fn others_of(&self, modality: Modality) -> Option<&Others> {
        (modality as usize).checked_sub(1).and_then(|at| self.others.get(at))
    }

    /// Hits, misses and sets by modality, where all together have `hits`, `misses` and `sets`.
    fn by_modality(&self, hits: u64, misses: u64, sets: u64) -> [ModalityStats; Modality::ALL.len()] {
        let mut stats = [ModalityStats::default(); Modality::ALL.len()];
        stats[0] = ModalityStats { hits, misses, sets, ..ModalityStats::default() };
        for (at, others) in self.others.iter().enumerate() {
            let (hits, misses, sets) = (others.hits.get(), others.misses.get(), others.sets.get());
            stats[at + 1] = ModalityStats { hits, misses, sets, ..ModalityStats::default() };
            // What another thread counts meanwhile may be in one of the two numbers only.
            let texts = &mut stats[0];
            texts.hits = texts.hits.saturating_sub(hits);
            texts.misses = texts.misses.saturating_sub(misses);
            texts.sets = texts.sets.saturating_sub(sets);
        }
        stats
    }

    pub fn evicted(&self, cause: EvictionCause, count: usize) {
        self.evicted[cause as usize].add(count);
    }

    /// By [`EvictionCause`]: expired, explicit, replaced, size.
    pub fn evictions(&self) -> [u64; 4] {
        [EvictionCause::Expired, EvictionCause::Explicit, EvictionCause::Replaced, EvictionCause::Size]
            .map(|cause| self.evicted[cause as usize].get())
    }

    /// Notes a call that looked up `requests` entries.
    pub fn took(&self, time: Duration, requests: usize, hits: usize, at_ms: u64) {
        if requests == 0 {
            return;
        }
        let ns = time.as_nanos() as u64;
        self.access_ns.add(ns as usize);
        // Samples may be missing: nobody waits for them.
        if let Ok(mut samples) = self.samples.try_lock() {
            if samples.len() == SAMPLES {
                samples.pop_front();
            }
            samples.push_back(Sample { at_ms, ns: ns / requests as u64, hit_ratio: hits as f64 / requests as f64 });
        }
    }

    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    pub fn stats(&self) -> Stats {
        let missed = |cause: MissCause| self.missed[cause as usize].get();
        let [evicted_expired, evicted_explicit, evicted_replaced, evicted_size] = self.evictions();
        let mut stats = Stats {
            memory_hits: self.memory_hits.get(),
            disk_hits: self.disk_hits.get(),
            shared_hits: self.shared_hits.get(),
            missed_absent: missed(MissCause::Absent),
            missed_expired: missed(MissCause::Expired),
            missed_changed: missed(MissCause::Changed),
            missed_damaged: missed(MissCause::Damaged),
            sets: self.sets.get(),
            rejected: self.rejected.get(),
            evicted_expired,
            evicted_explicit,
            evicted_replaced,
            evicted_size,
            access_ns: self.access_ns.get(),
            ..Stats::default()
        };
        // A request is one that has its answer: the sum is always right.
        stats.requests = stats.hits() + stats.misses();
        stats.modalities = self.by_modality(stats.hits(), stats.misses(), stats.sets);
        stats
    }
}
