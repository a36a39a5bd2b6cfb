//! How often what was found, by type.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cache::{MissCause, Stats};

/// Types that are counted one by one. Types are few; whoever has made one of each prompt must not fill memory with them.
const KINDS: usize = 1000;

/// Stands for all types beyond.
const OTHERS: &str = "(others)";

/// Where a result was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// In memory.
    Memory,
    /// In the file.
    Disk,
    /// On the server.
    Shared,
    /// Anywhere, for a prompt that means the same.
    Near,
}

/// How one type does. Every number is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KindStats {
    /// Lookups that were answered, near ones included.
    pub hits: u64,
    /// Of these, the ones for a prompt that means the same.
    pub near_hits: u64,
    /// Lookups that were not.
    pub misses: u64,
    /// Lookups that found a result whose time was over.
    pub expired: u64,
    /// Lookups that found a damaged row.
    pub damaged: u64,
    /// Results that were set.
    pub sets: u64,
    /// Results in memory.
    pub entries: usize,
    /// Bytes of them, without their bookkeeping.
    pub bytes: usize,
}

/// How all of them do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResultStats {
    /// By type.
    pub kinds: BTreeMap<String, KindStats>,
    /// All of them together.
    pub total: KindStats,
    /// Of all hits, the ones from memory, from disk, and from the server.
    pub memory_hits: u64,
    /// See `memory_hits`.
    pub disk_hits: u64,
    /// See `memory_hits`.
    pub shared_hits: u64,
    /// The tiers, with everything that was ever asked of them.
    pub cache: Stats,
}

impl ResultStats {
    /// The numbers of a type.
    pub(super) fn kind(&mut self, kind: String) -> &mut KindStats {
        let known = self.kinds.len() < KINDS || self.kinds.contains_key(&kind);
        self.kinds.entry(if known { kind } else { OTHERS.to_owned() }).or_default()
    }
}

#[derive(Default)]
struct Counted {
    kinds: BTreeMap<String, KindStats>,
    memory_hits: u64,
    disk_hits: u64,
    shared_hits: u64,
}

#[derive(Default)]
pub(super) struct Counters(Mutex<Counted>);

impl Counters {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, kind: &str, count: impl FnOnce(&mut KindStats)) {
        let kinds = &mut self.counted().kinds;
        if let Some(known) = kinds.get_mut(kind) {
            return count(known);
        }
        let name = if kinds.len() < KINDS { kind } else { OTHERS };
        count(kinds.entry(name.to_owned()).or_default());
    }

    pub fn hit(&self, kind: &str, tier: Tier) {
        self.count(kind, |stats| {
            stats.hits += 1;
            stats.near_hits += u64::from(tier == Tier::Near);
        });
        match tier {
            Tier::Memory => self.counted().memory_hits += 1,
            Tier::Disk => self.counted().disk_hits += 1,
            Tier::Shared => self.counted().shared_hits += 1,
            Tier::Near => {}
        }
    }

    /// Notes why nothing was found, whatever comes of the lookup.
    pub fn absent(&self, kind: &str, cause: MissCause) {
        match cause {
            MissCause::Expired => self.count(kind, |stats| stats.expired += 1),
            MissCause::Damaged => self.count(kind, |stats| stats.damaged += 1),
            MissCause::Absent | MissCause::Changed => {}
        }
    }

    pub fn missed(&self, kind: &str) {
        self.count(kind, |stats| stats.misses += 1);
    }

    pub fn set(&self, kind: &str) {
        self.count(kind, |stats| stats.sets += 1);
    }

    /// Everything but what memory holds now.
    pub fn stats(&self, cache: Stats) -> ResultStats {
        let counted = self.counted();
        let mut total = KindStats::default();
        for stats in counted.kinds.values() {
            total.hits += stats.hits;
            total.near_hits += stats.near_hits;
            total.misses += stats.misses;
            total.expired += stats.expired;
            total.damaged += stats.damaged;
            total.sets += stats.sets;
        }
        let Counted { memory_hits, disk_hits, shared_hits, .. } = *counted;
        ResultStats { kinds: counted.kinds.clone(), total, memory_hits, disk_hits, shared_hits, cache }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_without_end_take_no_memory_without_end() {
        let counters = Counters::default();
        for i in 0..3 * KINDS {
            counters.missed(&format!("type {i}"));
        }
        let stats = counters.stats(Stats::default());
        assert_eq!(stats.total.misses, 3 * KINDS as u64);
        assert_eq!(stats.kinds.len(), KINDS + 1);
        assert_eq!(stats.kinds[OTHERS].misses, 2 * KINDS as u64);
    }
}
