//! The search for similar entries, over both tiers.

use std::collections::HashSet;
use std::sync::Arc;

use super::EmbeddingCache;
use super::disk::{Disk, OnDisk, Purpose};
use super::entry::{Draft, Entry};
use super::key_hash::Place;
use super::memory::Now;
use super::similarity::{Candidate, Handle, Index, Near, Nearest};
use crate::embedding::{Key, Space};
use crate::error::Result;

/// Entries in memory that are compared one by one when similar ones are asked for: a fraction of a millisecond.
pub const SMALL: usize = 2000;

impl EmbeddingCache {
    /// Has the index of the space follow a change of its own among `entries`, if there is one.
    pub(super) fn index(&self, space: &Space, entries: &[(Place, Option<Key>, Arc<Entry>)]) {
        let Some(index) = self.indexes.existing(space.id()) else { return };
        for (place, key, entry) in entries.iter().filter(|(.., entry)| entry.space == space.id()) {
            index.note(key.map_or(Handle::InMemory(place.name), Handle::OnDisk), entry);
        }
        // Most of what it holds has been deleted or evicted: the next search makes it anew.
        if index.try_lock().is_some_and(|index| index.len() > 2 * self.entries() + SMALL) {
            self.indexes.forget(Some(space.id()));
        }
    }

    /// The entries of a space whose vectors are most similar to `query`, the nearest first: at most `limit` of those
    /// with a cosine of at least `threshold`. Waits for the disk; the first call of a space reads all of it.
    ///
    /// Exact among up to [`SMALL`] entries in memory only. Otherwise one of the nearest may rarely be missing.
    pub fn nearest(&self, space: &Space, query: &[f32], threshold: f32, limit: usize) -> Result<Vec<Near>> {
        self.nearest_where(space, query, threshold, limit, |_| true)
    }

    /// [`EmbeddingCache::nearest`] among the entries of several spaces whose vectors may be compared.
    pub fn nearest_in(&self, spaces: &[Space], query: &[f32], threshold: f32, limit: usize) -> Result<Vec<Near>> {
        let found = spaces.iter().map(|space| self.nearest(space, query, threshold, limit));
        let mut found = found.collect::<Result<Vec<_>>>()?.concat();
        // Stable: of equally near ones with one key, those of the first space come first.
        found.sort_by(Near::cmp_nearest);
        found.truncate(limit);
        Ok(found)
    }

    /// [`EmbeddingCache::nearest`] among the entries that count.
    pub fn nearest_where(
        &self,
        space: &Space,
        query: &[f32],
        threshold: f32,
        limit: usize,
        counts: impl Fn(&Entry) -> bool,
    ) -> Result<Vec<Near>> {
        Draft { vector: Some(query), ..Draft::default() }.check()?;
        let now = self.now();
        let disk = self.disk.as_ref().filter(|disk| disk.ready());
        if disk.is_none() && self.memory.len() <= SMALL || self.disk.is_some() && disk.is_none() {
            let mut nearest = Nearest::new(query, threshold, limit);
            // What waits to be written is an answer as well; memory may have it, too.
            let queued = self.disk.as_ref().map(|disk| disk.queued(space.id(), now)).unwrap_or_default();
            let known: HashSet<_> = queued.iter().map(Arc::as_ptr).collect();
            let held = self.memory.answers_of(space.id(), now).into_iter().map(|(_, entry)| entry);
            for entry in held.filter(|entry| !known.contains(&Arc::as_ptr(entry))).chain(queued.iter().cloned()) {
                nearest.show(&entry, &counts);
            }
            return Ok(nearest.finish());
        }
        let index = self.indexes.of(space.id());
        {
            let mut index = index.lock();
            match disk {
                Some(disk) => self.follow(disk, space, &mut index, now),
                None => self.make(space, &mut index, now),
            }
        }
        // What the index names and is no answer takes a place among the nearest: then they are asked for again, without
        // what is dead, and more of them.
        let mut wanted = limit;
        loop {
            let (candidates, rounding) = index.lock().nearest(query, wanted, threshold);
            let mut nearest = Nearest::new(query, threshold, limit);
            let (mut dead, mut passed_over) = (Vec::new(), 0);
            // The few that are probably wanted, then more for as long as one of them may be.
            for some in candidates.chunks(limit.saturating_add(2)) {
                if !some.first().is_some_and(|best| nearest.wants(best.similarity + rounding)) {
                    break;
                }
                for (candidate, entry) in some.iter().zip(self.fetch(some, now)) {
                    match entry {
                        Ok(Some(entry)) => passed_over += usize::from(!nearest.show(&entry, &counts)),
                        Ok(None) => dead.push(*candidate),
                        Err(()) => {}
                    }
                }
            }
            // A file that cannot be read just now says of everything that it is not there.
            if self.disk.as_ref().is_some_and(|disk| !disk.ready()) {
                return Ok(nearest.finish());
            }
            let mut index = index.lock();
            dead.iter().for_each(|gone| index.remove(gone));
            let all = wanted >= index.len();
            if dead.is_empty() && (all || limit.saturating_add(passed_over) <= wanted) {
                return Ok(nearest.finish());
            }
            wanted = wanted.max(passed_over).saturating_mul(2);
        }
    }

    /// Makes the index of what memory holds, once: always in the same order, so that equal calls have equal answers.
    fn make(&self, space: &Space, index: &mut Index, now: Now) {
        if std::mem::replace(&mut index.made, true) {
            return;
        }
        let mut held = self.memory.answers_of(space.id(), now);
        held.sort_unstable_by(|(_, a), (_, b)| a.note.cmp(&b.note));
        for (name, entry) in held {
            if !index.holds(&Handle::InMemory(name)) {
                index.set(Handle::InMemory(name), &entry);
            }
        }
    }

    /// Has the index follow what was written to the file since it was last looked at, by whatever process.
    fn follow(&self, disk: &Disk, space: &Space, index: &mut Index, now: Now) {
        let seen = disk.scan(space.id(), index.seen, now, |key, entry| index.set(Handle::OnDisk(key), &entry));
        index.seen = seen.unwrap_or(index.seen);
    }

    /// What the tiers answer now for what an index names. `Err`: nobody can say.
    fn fetch(&self, candidates: &[Candidate], now: Now) -> Vec<std::result::Result<Option<Arc<Entry>>, ()>> {
        let named = |candidate: &Candidate| match candidate.handle {
            Handle::InMemory(name) => Ok(self.memory.named(name, now)),
            Handle::OnDisk(_) => Ok(None),
        };
        let Some(disk) = &self.disk else { return candidates.iter().map(named).collect() };
        let asked = candidates.iter().filter_map(|candidate| match candidate.handle {
            Handle::OnDisk(key) => Some((key, None)),
            Handle::InMemory(_) => None,
        });
        let found = disk.get(&asked.collect::<Vec<_>>(), Purpose::Look, now).into_iter();
        let answer = |found| match found {
            OnDisk::Hit(entry) | OnDisk::Doubtful(entry) => Ok(Some(entry)),
            OnDisk::Unread => Err(()),
            _ => Ok(None),
        };
        found.map(answer).collect()
    }
}
