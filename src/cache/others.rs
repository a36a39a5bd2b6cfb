//! What other machines have changed: memory and the disk let go of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::disk::OnDisk;
use super::key_hash::KeyHash;
use super::memory::{Now, Removed};
use super::shared::{Change, Shared};
use super::{EmbeddingCache, SMALL, lock};
use crate::embedding::Key;
use crate::sync::Mutex;

/// What a cache knows of them.
pub(super) struct Others {
    /// What memory calls the entries of keys that others may change.
    names: Mutex<HashMap<u64, KeyHash>>,
    /// How often changes were missed.
    missed: AtomicU32,
    /// See [`Others::epoch`].
    epoch: AtomicU64,
    /// Whether the server may have lost what it had, meanwhile: then it says nothing about what it does not have.
    server_lost: AtomicBool,
}

impl Default for Others {
    fn default() -> Self {
        Self {
            names: Mutex::default(),
            missed: AtomicU32::default(),
            epoch: AtomicU64::default(),
            // As far as anybody knows who has just come.
            server_lost: AtomicBool::new(true),
        }
    }
}

impl Others {
    /// Grows when changes were missed, or names forgotten: what was read before must not be kept after it.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// How often some were missed.
    pub fn missed(&self) -> u32 {
        self.missed.load(Ordering::Acquire)
    }
}

impl EmbeddingCache {
    /// Lets go of what other machines have changed since the last time. Never waits.
    pub(super) fn follow_others(&self, now: Now) {
        let changes = self.shared.as_ref().map(Shared::changes).unwrap_or_default();
        changes.into_iter().for_each(|change| self.follow_change(change, now));
    }

    fn follow_change(&self, change: Change, now: Now) {
        let changing = lock(&self.changing);
        let removed = match change {
            Change::Keys(keys) => {
                let mut removed = Removed::default();
                for (key, at_ms) in keys {
                    let name = lock(&self.others.names).remove(&key.short());
                    removed.live += name.map_or(0, |name| self.memory.remove(name, now).live);
                    if let Some(disk) = &self.disk {
                        disk.delete_before(key, at_ms);
                    }
                }
                removed
            }
            Change::Cleared(selection, at_ms) => {
                if let Some(disk) = &self.disk {
                    disk.clear_before(selection.clone(), at_ms);
                }
                self.indexes.forget(selection.space);
                self.memory.remove_all(now, |entry| selection.covers(entry))
            }
            Change::Unknown { lost } => {
                self.others.server_lost.store(lost, Ordering::Release);
                self.others.missed.fetch_add(1, Ordering::AcqRel);
                self.others.epoch.fetch_add(1, Ordering::AcqRel);
                if let Some(disk) = &self.disk {
                    disk.doubt();
                }
                Removed::default()
            }
        };
        drop(changing);
        self.removed(removed);
    }

    /// Remembers what memory calls the entries of keys: of those that it has, and of those that are looked up below, so that a change
    /// that is heard of meanwhile counts as one of the entry.
    pub(super) fn remember(&self, entries: impl Iterator<Item = (Key, KeyHash)>) {
        let mut names = lock(&self.others.names);
        // By then most are of entries that were evicted.
        if names.len() > 2 * self.options.max_entries.saturating_add(SMALL) {
            names.retain(|_, name| self.memory.holds(*name));
            self.others.epoch.fetch_add(1, Ordering::AcqRel);
        }
        names.extend(entries.map(|(key, name)| (key.short(), name)));
    }

    /// Whether a copy in memory is an answer although the server has given none: it was not asked, or may have lost what it had.
    pub(super) fn holds_alone(&self, answer: &OnDisk) -> bool {
        let lost = || self.others.server_lost.load(Ordering::Acquire);
        self.disk.is_none() && (*answer == OnDisk::Unread || *answer == OnDisk::Absent && lost())
    }
}
