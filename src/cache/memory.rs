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
use super::key_hash::{KeyHash, Probe};

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

/// Where an entry is put, and what it can be checked by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub name: KeyHash,
    pub content: Option<KeyHash>,
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
            // Whether it is an answer, and for which content, the file says.
            let stale = slot.matches(probe).then(|| Arc::clone(&slot.entry));
            return (stale.map_or(Found::Absent, Found::Stale), None);
        } else if !slot.matches(probe) {
            Found::Changed
        } else {
            slot.stamp = stamp;
            slot.content = slot.content.or(probe.content());
            Found::Hit(Arc::clone(&slot.entry))
        };
        let gone = if matches!(found, Found::Hit(_)) {
            None
        } else {
            self.touch_version(name);
            lru.pop(&name).inspect(|slot| self.forget(slot))
        };
        // Only the oldest entry's use makes another one the oldest; looking at it costs a cache miss.
        if before == shard.oldest.load(Ordering::Relaxed) {
            shard.note_oldest(lru);
        }
        (found, gone)
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
        let Place { name, content } = place;
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
            lru.put(name, Slot { stamp, deadline_ms, content, epoch: now.epoch, entry: Arc::clone(entry) })
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
    pub fn of_space(&self, space: i64, now: Now) -> Vec<(KeyHash, Arc<Entry>)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let lru = shard.lock();
            let entries = lru.iter().filter(|(_, slot)| slot.entry.space == space && live(slot, now));
            found.extend(entries.map(|(name, slot)| (*name, Arc::clone(&slot.entry))));
        }
        found
    }

    fn forget(&self, slot: &Slot) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(cost(&slot.entry), Ordering::Relaxed);
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
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::cache::entry::{Draft, Precision};
    use crate::embedding::{Key, Space};

    const AT: u64 = 1_700_000_000_000;

    fn key(n: u8) -> Key {
        Space::builder().finish().key().field("n", [n]).finish()
    }

    fn place(n: u8, content: u8) -> Place {
        let probe = Probe::from((key(n), Some([content; 32])));
        Place { name: probe.name(), content: probe.content() }
    }

    fn entry(values: usize, content: u8, ttl_ms: u64, created_ms: u64) -> Arc<Entry> {
        let vector = vec![f32::from(content); values];
        let ttl = Some(Duration::from_millis(ttl_ms));
        let draft = Draft { vector: Some(&vector), ttl, ..Draft::default() };
        Arc::new(draft.entry(&Space::builder().finish(), Some([content; 32]), Precision::F32, created_ms, None))
    }

    /// The same in the plainest words: a list, the most recently used first.
    struct Naive {
        list: Vec<(u8, Arc<Entry>)>,
        max_entries: usize,
        max_bytes: usize,
    }

    impl Naive {
        fn take(&mut self, n: u8) -> Option<Arc<Entry>> {
            let at = self.list.iter().position(|(name, _)| *name == n)?;
            Some(self.list.remove(at).1)
        }

        fn get(&mut self, n: u8, content: u8, now: u64) -> Found {
            match self.take(n) {
                None => Found::Absent,
                Some(entry) if now >= entry.expires_ms => Found::Expired,
                Some(entry) if entry.content != Some([content; 32]) => Found::Changed,
                Some(entry) => {
                    self.list.insert(0, (n, Arc::clone(&entry)));
                    Found::Hit(entry)
                }
            }
        }

        fn insert(&mut self, n: u8, entry: Arc<Entry>) {
            self.take(n);
            if cost(&entry) <= self.max_bytes {
                self.list.insert(0, (n, entry));
            }
            while self.list.len() > self.max_entries || self.bytes() > self.max_bytes {
                self.list.pop();
            }
        }

        fn bytes(&self) -> usize {
            self.list.iter().map(|(_, entry)| cost(entry)).sum()
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Get(u8, u8),
        GetSome(Vec<(u8, u8)>),
        Insert(u8, usize, u8, u64),
        Remove(u8),
        Sweep,
        RemoveAll(u8),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u8..24, 0u8..2).prop_map(|(n, content)| Step::Get(n, content)),
            2 => prop::collection::vec((0u8..24, 0u8..2), 0..6).prop_map(Step::GetSome),
            8 => (0u8..24, 1usize..300, 0u8..2, 1u64..1000).prop_map(|(n, v, c, ttl)| Step::Insert(n, v, c, ttl)),
            2 => (0u8..24).prop_map(Step::Remove),
            1 => Just(Step::Sweep),
            1 => (0u8..2).prop_map(Step::RemoveAll),
            2 => (0u64..200).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn it_is_a_list(
            steps in prop::collection::vec(step(), 1..200),
            max_entries in 1usize..20,
            max_bytes in 1_000usize..8_000,
        ) {
            let memory = Memory::new(max_entries, max_bytes);
            let mut naive = Naive { list: Vec::new(), max_entries, max_bytes };
            let mut elapsed = 0;
            for step in steps {
                let now = Now { wall_ms: AT + elapsed, steady_ms: elapsed, epoch: 0, verified: true };
                match step {
                    Step::Get(n, content) => {
                        let found = memory.get(&(key(n), Some([content; 32])).into(), now);
                        prop_assert_eq!(found, naive.get(n, content, now.wall_ms));
                    }
                    Step::GetSome(asked) => {
                        let probe = |(n, content): &(u8, u8)| Probe::from((key(*n), Some([*content; 32])));
                        let probes: Vec<Probe> = asked.iter().map(probe).collect();
                        let mut found = Vec::new();
                        memory.get_some(&probes, now, &mut found);
                        let expected = asked.iter().map(|(n, content)| naive.get(*n, *content, now.wall_ms));
                        prop_assert_eq!(found, expected.collect::<Vec<_>>());
                    }
                    Step::Insert(n, values, content, ttl) => {
                        let entry = entry(values, content, ttl, now.wall_ms);
                        memory.insert(place(n, content), &entry, now);
                        naive.insert(n, entry);
                    }
                    Step::Remove(n) => {
                        let was_answer = naive.take(n).map(|entry| now.wall_ms < entry.expires_ms);
                        let removed = memory.remove(place(n, 0).name, now);
                        let (live, expired) = (was_answer == Some(true), was_answer == Some(false));
                        prop_assert_eq!(removed, Removed { live: live.into(), expired: expired.into() });
                    }
                    Step::Sweep => {
                        let before = naive.list.len();
                        naive.list.retain(|(_, entry)| now.wall_ms < entry.expires_ms);
                        prop_assert_eq!(memory.sweep(now), before - naive.list.len());
                    }
                    Step::RemoveAll(content) => {
                        let before = naive.list.len();
                        naive.list.retain(|(_, entry)| entry.content != Some([content; 32]));
                        let removed = memory.remove_all(now, |entry| entry.content == Some([content; 32]));
                        prop_assert_eq!(removed.live + removed.expired, before - naive.list.len());
                    }
                    Step::Wait(ms) => elapsed += ms,
                }
                prop_assert_eq!(memory.len(), naive.list.len());
                prop_assert_eq!(memory.bytes(), naive.bytes());
                let now = Now { wall_ms: AT + elapsed, steady_ms: elapsed, epoch: 0, verified: true };
                for n in 0..24 {
                    let kept = naive.list.iter().find(|(name, _)| *name == n).map(|(_, entry)| entry);
                    let kept = kept.filter(|entry| now.wall_ms < entry.expires_ms);
                    let found = memory.peek(&key(n).into(), now);
                    prop_assert_eq!(found.as_ref(), kept);
                }
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_makes_nothing_younger() {
        let memory = Memory::new(10, 1 << 20);
        memory.insert(place(1, 0), &entry(1, 0, 1000, AT), Now { wall_ms: AT, steady_ms: 5, epoch: 0, verified: true });
        let at = |wall_ms, steady_ms| {
            memory.peek(&key(1).into(), Now { wall_ms, steady_ms, epoch: 0, verified: true }).is_some()
        };
        assert!(at(AT, 1004));
        assert!(!at(AT, 1005), "the wall clock stood still, the entry did not");
        assert!(at(AT - 30_000, 500) && !at(AT - 100_000, 500));
        assert!(!at(AT + 1000, 5), "asleep for a second");
    }

    #[test]
    fn what_was_read_before_a_change_is_not_brought_in_after_it() {
        let memory = Memory::new(10, 1 << 20);
        let now = Now { wall_ms: AT, steady_ms: 0, epoch: 0, verified: true };
        let (old, new) = (entry(1, 0, 1000, AT), entry(1, 1, 1000, AT));
        for change in [0, 1, 2] {
            let version = memory.version(place(1, 0).name);
            match change {
                0 => drop(memory.insert(place(1, 1), &new, now)),
                1 => _ = memory.remove(place(1, 0).name, now),
                _ => _ = memory.remove_all(now, |_| true),
            }
            memory.promote(place(1, 0), &old, now, version);
            assert_ne!(memory.peek(&key(1).into(), now).as_deref(), Some(&*old));
        }
        memory.promote(place(1, 0), &old, now, memory.version(place(1, 0).name));
        assert_eq!(memory.peek(&key(1).into(), now).as_deref(), Some(&*old));
    }

    #[test]
    fn threads_leave_the_limits_and_the_sums_right() {
        let memory = Memory::new(100, 1 << 20);
        let now = Now { wall_ms: AT, steady_ms: 0, epoch: 0, verified: true };
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let memory = &memory;
                scope.spawn(move || {
                    for i in 0..5000u32 {
                        let n = (i.wrapping_mul(2_654_435_761) >> 24) as u8;
                        match i % 4 {
                            0 => {
                                drop(memory.insert(place(n, thread), &entry(usize::from(n) + 1, thread, 1000, AT), now))
                            }
                            1 if i % 64 == 1 => _ = memory.remove(place(n, 0).name, now),
                            _ => drop(memory.get(&key(n).into(), now)),
                        }
                    }
                });
            }
        });
        let kept = memory.of_space(Space::builder().finish().id(), now);
        assert_eq!(memory.len(), kept.len());
        assert_eq!(memory.bytes(), kept.iter().map(|(_, entry)| cost(entry)).sum::<usize>());
        assert!(memory.len() <= 100);
        assert_eq!(memory.remove_all(now, |_| true).live, kept.len());
        assert_eq!((memory.len(), memory.bytes()), (0, 0));
    }
}
