//! The search for similar entries, over both tiers.

use std::sync::Arc;

use super::codes::ROUNDING;
use super::disk::{Disk, OnDisk};
use super::entry::{Draft, Entry};
use super::memory::{Now, Place};
use super::near::{Candidate, Handle, Index, Near, Nearest};
use super::{EmbeddingCache, lock};
use crate::embedding::{Key, Space};
use crate::error::Result;

/// Entries in memory that are compared one by one when similar ones are asked for: a fraction of a millisecond.
pub const SMALL: usize = 2000;

impl EmbeddingCache {
    /// Has the index of the space follow a change, if there is one.
    pub(super) fn index(&self, space: &Space, entries: &[(Place, Option<Key>, Arc<Entry>)]) {
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

    /// The entries of a space whose vectors are most similar to `query`, the nearest first: at most `limit` of those
    /// with a cosine of at least `threshold`. Waits for the disk; the first call of a space reads all of it.
    ///
    /// Exact among up to [`SMALL`] entries in memory only. Otherwise one of the nearest may rarely be missing.
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
            index.nearest(query, limit, threshold)
        };
        // The few that are probably wanted, then more for as long as one of them may be.
        for some in candidates.chunks(limit.saturating_add(2)) {
            if !some.first().is_some_and(|best| nearest.wants(best.similarity + ROUNDING)) {
                break;
            }
            for (candidate, entry) in some.iter().zip(self.fetch(some, now)) {
                match entry {
                    Some(entry) => nearest.show(&entry),
                    None => dead.push(*candidate),
                }
            }
        }
        if !dead.is_empty() {
            let mut index = lock(&index);
            dead.iter().for_each(|gone| index.remove(gone));
        }
        Ok(nearest.finish())
    }

    /// Has the index follow what was written to the file since it was last looked at, by whatever process.
    fn follow(&self, disk: &Disk, space: &Space, index: &mut Index, now: Now) {
        let seen = disk.scan(space.id(), index.seen, now, |key, entry| index.set(Handle::OnDisk(key), &entry));
        index.seen = seen.unwrap_or(index.seen);
    }

    /// What the tiers answer now for what an index names.
    fn fetch(&self, candidates: &[Candidate], now: Now) -> Vec<Option<Arc<Entry>>> {
        let named = |candidate: &Candidate| match candidate.handle {
            Handle::InMemory(name) => self.memory.named(name, now),
            Handle::OnDisk(_) => None,
        };
        let Some(disk) = &self.disk else { return candidates.iter().map(named).collect() };
        let asked = candidates.iter().filter_map(|candidate| match candidate.handle {
            Handle::OnDisk(key) => Some((key, None)),
            Handle::InMemory(_) => None,
        });
        let found = disk.get(&asked.collect::<Vec<_>>(), now).into_iter();
        found.map(|found| if let OnDisk::Hit(entry) = found { Some(entry) } else { None }).collect()
    }
}
