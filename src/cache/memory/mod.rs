//! The memory tier: strict LRU by number and by bytes.
//!
//! Entries are spread over shards by their key, each with a lock of its own that is held for a look into a hash map.
//! The order of use is nevertheless one for all: every use takes the next stamp of a common counter while it holds the
//! shard's lock, so each shard is sorted by stamp, and the oldest entry of all is the oldest of the shards' oldest.
//! Whatever one thread does one after the other therefore evicts exactly what a single list would evict.

use std::hash::{BuildHasher, Hash, Hasher};
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::entry::Entry;
use super::key_hash::{KeyHash, Place, Probe};
use crate::embedding::Modality;

/// Sixteen threads that look up different keys seldom meet; finding the oldest entry still looks at sixteen numbers.
const SHARDS: usize = 16;

/// See [`Memory::version`].
const VERSIONS: usize = 1024;

/// What the allocator adds to each block, near enough for all of them.
const BLOCK_BYTES: usize = 16;

/// Bytes of an entry beside vector, note and kind: itself with its counters, its node in the list, its place in the
/// map (a pointer to the key, one to the node and a byte, at a load between 7/16 and 7/8), and five blocks.
const OVERHEAD_BYTES: usize =
    size_of::<Entry>() + 2 * size_of::<usize>() + size_of::<(KeyHash, Slot, usize, usize)>() + 26 + 5 * BLOCK_BYTES;

/// Bytes that `entry` takes in this tier.
pub(super) fn cost(entry: &Entry) -> usize {
    entry.payload_bytes() + OVERHEAD_BYTES
}

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub wall_ms: u64,
    pub steady_ms: u64,
    /// Of which state of the file entries are copies that are set now.
    pub epoch: u32,
    /// Whether that is its state now: if not, no copy is believed.
    pub verified: bool,
}

/// What a lookup finds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    Hit(Arc<Entry>),
    Absent,
    /// It was there, too old, and is gone.
    Expired,
    /// It was there, made from another content, and is gone.
    Changed,
    /// It is a copy of what the file had once.
    Stale(Arc<Entry>),
}

/// What an insert did beside inserting.
#[derive(Debug, Default)]
pub(super) struct Displaced {
    pub replaced: usize,
    pub expired: usize,
    pub for_size: usize,
    /// Freed by whoever drops this, outside of all locks.
    entries: Vec<Arc<Entry>>,
}

/// What was dropped because somebody asked for it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Removed {
    /// Entries that were answers.
    pub live: usize,
    /// Entries that were none any more.
    pub expired: usize,
}

impl Removed {
    fn count(&mut self, slot: &Slot, now: Now) {
        *(if live(slot, now) { &mut self.live } else { &mut self.expired }) += 1;
    }
}

struct Slot {
    stamp: u64,
    /// When it expires by the clock that nobody sets: a machine whose clock goes back must not make it younger.
    deadline_ms: u64,
    /// The content that it was set or found with, if that was said.
    content: Option<KeyHash>,
    /// See [`Now::epoch`].
    epoch: u32,
    modality: Modality,
    entry: Arc<Entry>,
}

impl Slot {
    /// Whether it is what the file has.
    fn current(&self, now: Now) -> bool {
        now.verified && self.epoch == now.epoch
    }

    /// Whether it was made from the content that `probe` asks for.
    fn matches(&self, probe: &Probe) -> bool {
        let Some(content) = probe.content() else { return true };
        match self.content {
            Some(known) => known == content,
            // It came from disk, and nobody said then which content was meant.
            None => self.entry.matches(probe.content_hash().as_ref()),
        }
    }
}

/// KeyHasher are hashes already.
#[derive(Clone, Copy, Default)]
struct AsIs(u64);

impl BuildHasher for AsIs {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.short());
    }
}

type Lru = LruCache<KeyHash, Slot, AsIs>;

/// On a cache line of its own: a thread that works in one shard does not slow down the others.
#[repr(align(64))]
struct Shard {
    lru: Mutex<Lru>,
    /// The stamp of its least recently used entry; `u64::MAX` when it is empty. Written under the lock.
    oldest: AtomicU64,
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Lru> {
        self.lru.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_oldest(&self, lru: &Lru) {
        self.oldest.store(lru.peek_lru().map_or(u64::MAX, |(_, slot)| slot.stamp), Ordering::Release);
    }
}

pub(super) struct Memory {
    shards: Vec<Shard>,
    stamp: AtomicU64,
    entries: AtomicUsize,
    bytes: AtomicUsize,
    /// Entries and bytes of each modality but the first, which has the rest.
    others: [[AtomicUsize; 2]; Modality::ALL.len() - 1],
    max_entries: usize,
    max_bytes: usize,
    /// Held by the thread that evicts: two that both see one entry too many must not evict two.
    evicting: Mutex<()>,
    versions: Vec<AtomicU32>,
}

impl Memory {
    pub fn new(max_entries: usize, max_bytes: usize) -> Self {
        let shard = |_| Shard {
            lru: Mutex::new(LruCache::unbounded_with_hasher(AsIs::default())),
            oldest: AtomicU64::new(u64::MAX),
        };
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            stamp: AtomicU64::new(0),
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            others: Default::default(),
            max_entries,
            max_bytes,
            evicting: Mutex::default(),
            versions: (0..VERSIONS).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Entries, and the bytes that they take, by [`Modality::ALL`].
    pub fn by_modality(&self) -> [[usize; 2]; Modality::ALL.len()] {
        let mut held = [[self.len(), self.bytes()], [0; 2], [0; 2]];
        for (at, other) in self.others.iter().enumerate() {
            held[at + 1] = other.each_ref().map(|count| count.load(Ordering::Relaxed));
            // Another thread may have changed one of the two numbers and not yet the other.
            held[0] = [0, 1].map(|what| held[0][what].saturating_sub(held[at + 1][what]));
        }
        held
    }

    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Whether there is room for the entry, if all others leave.
    pub fn fits(&self, entry: &Entry) -> bool {
        cost(entry) <= self.max_bytes
    }

    /// Bytes of vectors, notes and kinds alone.
    pub fn payload_bytes(&self) -> usize {
        self.bytes().saturating_sub(self.len() * OVERHEAD_BYTES)
    }

    /// Looks an entry up and makes it the most recently used. One that is no answer any more is dropped.
    pub fn get(&self, probe: &Probe, now: Now) -> Found {
        let shard = self.shard(probe.name());
        let mut lru = shard.lock();
        let stamp = self.stamp.fetch_add(1, Ordering::Relaxed);
        let (found, gone) = self.look(shard, &mut lru, probe, now, stamp);
        drop(lru);
        drop(gone);
        found
    }

    /// [`Memory::get`] for some probes, one after the other, appended to `found`. Meanwhile others wait.
    pub fn get_some(&self, probes: &[Probe], now: Now, found: &mut Vec<Found>) {
        let mut gone = Vec::new();
        let mut locked: Vec<_> = self.shards.iter().map(Shard::lock).collect();
        fetch(&locked, probes);
        let stamps = self.stamp.fetch_add(probes.len() as u64, Ordering::Relaxed)..;
        for (probe, stamp) in probes.iter().zip(stamps) {
            let shard = shard_of(probe.name());
            let (answer, dropped) = self.look(&self.shards[shard], &mut locked[shard], probe, now, stamp);
            found.push(answer);
            gone.extend(dropped);
        }
        drop(locked);
    }

    /// What is found, used at `stamp`, and what was dropped: to be freed without the lock.
    fn look(&self, shard: &Shard, lru: &mut Lru, probe: &Probe, now: Now, stamp: u64) -> (Found, Option<Slot>) {
        let name = probe.name();
        let Some(slot) = lru.get_mut(&name) else { return (Found::Absent, None) };
        let before = slot.stamp;
        let found = if !live(slot, now) {
            Found::Expired
        } else if !slot.current(now) {
            // Whether it is an answer, and for which content, the file says. Its place is that of the latest one used now.
            slot.stamp = stamp;
            let stale = slot.matches(probe).then(|| Arc::clone(&slot.entry));
            stale.map_or(Found::Absent, Found::Stale)
        } else if !slot.matches(probe) {
            Found::Changed
        } else {
            slot.stamp = stamp;
            slot.content = slot.content.or(probe.content());
            Found::Hit(Arc::clone(&slot.entry))
        };
        let gone = matches!(found, Found::Expired | Found::Changed).then(|| {
            self.touch_version(name);
            lru.pop(&name).inspect(|slot| self.forget(slot))
        });
        // Only the oldest entry's use makes another one the oldest; looking at it costs a cache miss.
        if before == shard.oldest.load(Ordering::Relaxed) {
            shard.note_oldest(lru);
        }
        (found, gone.flatten())
    }

    /// The entry, if it is an answer. Changes nothing.
    pub fn peek(&self, probe: &Probe, now: Now) -> Option<Arc<Entry>> {
        self.peek_if(probe, now, |slot| slot.current(now))
    }

    /// The same where no file says that it is not one any more.
    pub fn peek_alone(&self, probe: &Probe, now: Now) -> Option<Arc<Entry>> {
        self.peek_if(probe, now, |_| true)
    }

    fn peek_if(&self, probe: &Probe, now: Now, which: impl Fn(&Slot) -> bool) -> Option<Arc<Entry>> {
        let lru = self.shard(probe.name()).lock();
        let slot = lru.peek(&probe.name())?;
        (live(slot, now) && which(slot) && slot.matches(probe)).then(|| Arc::clone(&slot.entry))
    }

    /// The entry of that name, if it is an answer. Changes nothing.
    pub fn named(&self, name: KeyHash, now: Now) -> Option<Arc<Entry>> {
        let lru = self.shard(name).lock();
        lru.peek(&name).filter(|slot| live(slot, now)).map(|slot| Arc::clone(&slot.entry))
    }

    /// Whether there is anything of that name.
    pub fn holds(&self, name: KeyHash) -> bool {
        self.shard(name).lock().contains(&name)
    }

    /// Counts the changes to an entry, and to some others that share the counter. What was read from elsewhere before
    /// a change must not be brought in after it.
    pub fn version(&self, name: KeyHash) -> u32 {
        self.versions[version_slot(name)].load(Ordering::Acquire)
    }

    /// Puts the entry in as the most recently used, and evicts the least recently used until the limits hold.
    pub fn insert(&self, place: Place, entry: &Arc<Entry>, now: Now) -> Displaced {
        self.put(place, entry, now, None)
    }

    /// [`Memory::insert`] for what another tier answered: only if nothing has changed the entry since `version`.
    pub fn promote(&self, place: Place, entry: &Arc<Entry>, now: Now, version: u32) -> Displaced {
        // Two lookups may bring in the same entry: neither replaces anything.
        Displaced { replaced: 0, ..self.put(place, entry, now, Some(version)) }
    }

    fn put(&self, place: Place, entry: &Arc<Entry>, now: Now, version: Option<u32>) -> Displaced {
        let mut displaced = Displaced::default();
        let lifetime = if entry.expires_ms == super::entry::NEVER {
            u64::MAX
        } else {
            entry.expires_ms.saturating_sub(now.wall_ms)
        };
        let Place { name, content, modality } = place;
        let shard = self.shard(name);
        let mut lru = shard.lock();
        match version {
            Some(version) if self.version(name) != version => return displaced,
            Some(_) => {}
            None => self.touch_version(name),
        }
        let bytes = cost(entry);
        // What is larger than the whole tier would only push out everything else and then itself.
        let replaced = if !self.fits(entry) {
            lru.pop(&name)
        } else {
            let stamp = self.stamp.fetch_add(1, Ordering::Relaxed);
            let deadline_ms = now.steady_ms.saturating_add(lifetime);
            self.entries.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            if let Some([entries, of_them]) = self.others_of(modality) {
                entries.fetch_add(1, Ordering::Relaxed);
                of_them.fetch_add(bytes, Ordering::Relaxed);
            }
            lru.put(name, Slot { stamp, deadline_ms, content, epoch: now.epoch, modality, entry: Arc::clone(entry) })
        };
        if let Some(slot) = replaced {
            self.forget(&slot);
            displaced.replaced += 1;
            displaced.entries.push(slot.entry);
        }
        shard.note_oldest(&lru);
        drop(lru);
        self.evict(now, self.max_bytes, &mut displaced);
        displaced
    }

    /// Evicts the least recently used half, by bytes.
    pub fn halve(&self, now: Now) -> Displaced {
        let mut displaced = Displaced::default();
        self.evict(now, self.bytes() / 2, &mut displaced);
        displaced
    }

    fn evict(&self, now: Now, max_bytes: usize, displaced: &mut Displaced) {
        let over = || self.len() > self.max_entries || self.bytes() > max_bytes;
        if !over() {
            return;
        }
        let _one_at_a_time = self.evicting.lock().unwrap_or_else(PoisonError::into_inner);
        while over() {
            let oldest = self.shards.iter().map(|shard| (shard.oldest.load(Ordering::Acquire), shard));
            let Some((stamp, shard)) = oldest.min_by_key(|(stamp, _)| *stamp) else { return };
            let mut lru = shard.lock();
            match lru.peek_lru() {
                // It was used between the look and the lock: look again.
                Some((_, slot)) if slot.stamp != stamp => continue,
                None if stamp != u64::MAX => continue,
                None => return,
                Some(_) => {}
            }
            let Some((_, slot)) = lru.pop_lru() else { return };
            shard.note_oldest(&lru);
            drop(lru);
            self.forget(&slot);
            *(if live(&slot, now) { &mut displaced.for_size } else { &mut displaced.expired }) += 1;
            displaced.entries.push(slot.entry);
        }
    }

    /// Drops what is not what the file has, unless something has changed the entry since `version`.
    pub fn remove_stale(&self, name: KeyHash, version: u32) {
        let shard = self.shard(name);
        let mut lru = shard.lock();
        if self.version(name) == version {
            lru.pop(&name).iter().for_each(|slot| self.forget(slot));
            shard.note_oldest(&lru);
        }
    }

    /// Drops an entry.
    pub fn remove(&self, name: KeyHash, now: Now) -> Removed {
        let shard = self.shard(name);
        let mut lru = shard.lock();
        self.touch_version(name);
        let gone = lru.pop(&name).inspect(|slot| self.forget(slot));
        shard.note_oldest(&lru);
        drop(lru);
        let mut removed = Removed::default();
        gone.iter().for_each(|slot| removed.count(slot, now));
        removed
    }

    /// Drops all entries that `which` names. Other threads wait for one shard at a time.
    pub fn remove_all(&self, now: Now, which: impl Fn(&Entry) -> bool) -> Removed {
        self.retain(now, |slot| !which(&slot.entry), || self.versions.iter().for_each(bump))
    }

    /// Drops what has expired; how many there were.
    pub fn sweep(&self, now: Now) -> usize {
        self.retain(now, |slot| live(slot, now), || {}).expired
    }

    fn retain(&self, now: Now, keep: impl Fn(&Slot) -> bool, before: impl Fn()) -> Removed {
        let mut removed = Removed::default();
        for shard in &self.shards {
            let mut gone = Vec::new();
            let mut lru = shard.lock();
            before();
            lru.retain(|_, slot| {
                let keep = keep(slot);
                if !keep {
                    self.forget(slot);
                    removed.count(slot, now);
                    gone.push(Arc::clone(&slot.entry));
                }
                keep
            });
            shard.note_oldest(&lru);
            drop(lru);
        }
        removed
    }

    /// All entries of a space that answer at `now`, in no order. Does not count as use.
    pub fn answers_of(&self, space: i64, now: Now) -> Vec<(KeyHash, Arc<Entry>)> {
        self.select(space, |slot| live(slot, now) && slot.current(now))
    }

    /// All entries of a space that are held and whose time is not over, in no order. Does not count as use.
    pub fn of_space(&self, space: i64, now: Now) -> Vec<(KeyHash, Arc<Entry>)> {
        self.select(space, |slot| live(slot, now))
    }

    fn select(&self, space: i64, which: impl Fn(&Slot) -> bool) -> Vec<(KeyHash, Arc<Entry>)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let lru = shard.lock();
            let entries = lru.iter().filter(|(_, slot)| slot.entry.space == space && which(slot));
            found.extend(entries.map(|(name, slot)| (*name, Arc::clone(&slot.entry))));
        }
        found
    }

    fn forget(&self, slot: &Slot) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(cost(&slot.entry), Ordering::Relaxed);
        if let Some([entries, bytes]) = self.others_of(slot.modality) {
            entries.fetch_sub(1, Ordering::Relaxed);
            bytes.fetch_sub(cost(&slot.entry), Ordering::Relaxed);
        }
    }

    fn others_of(&self, modality: Modality) -> Option<&[AtomicUsize; 2]> {
        (modality as usize).checked_sub(1).and_then(|at| self.others.get(at))
    }

    fn touch_version(&self, name: KeyHash) {
        bump(&self.versions[version_slot(name)]);
    }

    fn shard(&self, name: KeyHash) -> &Shard {
        &self.shards[shard_of(name)]
    }
}

/// Brings what the probes ask for into the processor's caches. A lookup goes to the main memory three or four times,
/// one after the other; here, many lookups wait at the same time: for their slots first, whose comparison ends in a
/// branch that nobody can foresee, then for all entries.
fn fetch(locked: &[MutexGuard<Lru>], probes: &[Probe]) {
    let slot = |probe: &Probe| locked[shard_of(probe.name())].peek(&probe.name());
    let slots: Vec<&Slot> = probes.iter().filter_map(slot).collect();
    let touched = slots.iter().map(|slot| {
        // Nothing of these lies side by side.
        let entry = &slot.entry;
        entry.expires_ms ^ entry.vector.len() as u64 ^ Arc::strong_count(entry) as u64
    });
    black_box(touched.fold(0, u64::wrapping_add));
}

fn shard_of(name: KeyHash) -> usize {
    name.other() as usize % SHARDS
}

fn bump(version: &AtomicU32) {
    version.fetch_add(1, Ordering::AcqRel);
}

fn version_slot(name: KeyHash) -> usize {
    (name.other() >> 32) as usize % VERSIONS
}

fn live(slot: &Slot, now: Now) -> bool {
    now.steady_ms < slot.deadline_ms && slot.entry.live(now.wall_ms)
}

#[cfg(test)]
mod tests;
