//! Near-match: which entries' vectors point in nearly the same direction.
//!
//! The few entries of a small memory tier are all compared. Beyond, an [`Index`] of the space says which ones are worth
//! it. It is made when it is first asked for, follows what is set, and may name entries that are no longer there: only
//! what the tiers still answer is ever shown to [`Nearest`], which compares the vectors themselves.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool};

use super::disk::Seen;
use super::entry::{Entry, Vector};
use super::key_hash::KeyHash;
use super::lock;
use crate::embedding::Key;
use crate::matrix::exact::Query;
use crate::matrix::quantized::QuantizedCodes;
use crate::sync::{Mutex, MutexGuard};

/// An entry and how near it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Near {
    /// Cosine of the angle between the two vectors, -1–1.
    pub similarity: f32,
    /// The entry.
    pub entry: Arc<Entry>,
}

impl Near {
    /// The nearest first. Equal ones in the order of their notes, which begin with the key: the same answer every time.
    pub(super) fn cmp_nearest(&self, other: &Self) -> Ordering {
        other.similarity.total_cmp(&self.similarity).then_with(|| self.entry.note.cmp(&other.entry.note))
    }
}

/// Where an entry is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Handle {
    /// Without a disk.
    InMemory(KeyHash),
    OnDisk(Key),
}

/// An entry that is worth a look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub handle: Handle,
    pub stamp: u64,
    /// Cosine, by its bytes.
    pub similarity: f32,
}

/// The vectors of one space, as [`QuantizedCodes`].
#[derive(Default)]
pub(super) struct Index {
    codes: QuantizedCodes,
    handles: Vec<Handle>,
    /// When each was added or set, as of `clock`.
    stamps: Vec<u64>,
    places: HashMap<Handle, usize>,
    clock: u64,
    /// Whether all that memory held when it was made was added.
    pub made: bool,
    /// How far it has followed the file.
    pub seen: Seen,
}

impl Index {
    pub fn len(&self) -> usize {
        self.handles.len()
    }

    pub fn holds(&self, handle: &Handle) -> bool {
        self.places.contains_key(handle)
    }

    /// Adds an entry's vector, or sets it anew.
    pub fn set(&mut self, handle: Handle, entry: &Entry) {
        let vector = entry.vector.to_vec();
        if self.codes.is_empty() {
            self.codes = QuantizedCodes::new(vector.len());
        }
        let usable = vector.len() == self.codes.dimensions() && vector.iter().any(|value| *value != 0.0);
        match (self.places.get(&handle), usable) {
            (Some(&at), false) => self.remove_at(at),
            (None, false) => {}
            (Some(&at), true) => {
                self.codes.set(at, &vector);
                self.clock += 1;
                self.stamps[at] = self.clock;
            }
            (None, true) => {
                self.places.insert(handle, self.len());
                self.codes.push(&vector);
                self.handles.push(handle);
                self.clock += 1;
                self.stamps.push(self.clock);
            }
        }
    }

    /// Removes an entry, unless it was set since.
    pub fn remove(&mut self, gone: &Candidate) {
        if let Some(&at) = self.places.get(&gone.handle)
            && self.stamps[at] == gone.stamp
        {
            self.remove_at(at);
        }
    }

    fn remove_at(&mut self, at: usize) {
        self.codes.swap_remove(at);
        self.stamps.swap_remove(at);
        let gone = self.handles.swap_remove(at);
        self.places.remove(&gone);
        if let Some(moved) = self.handles.get(at) {
            self.places.insert(*moved, at);
        }
    }

    /// The entries that are probably nearest, the nearest first, more than `limit`; and how far their cosines may be off.
    pub fn nearest(&self, query: &[f32], limit: usize, threshold: f32) -> (Vec<Candidate>, f32) {
        if self.codes.dimensions() != query.len() || query.iter().all(|value| *value == 0.0) {
            return Default::default();
        }
        let near = self.codes.nearest(query, limit, threshold);
        let candidate = |(similarity, at)| Candidate { handle: self.handles[at], stamp: self.stamps[at], similarity };
        (near.ranked.into_iter().map(candidate).collect(), near.rounding)
    }
}

/// An index, and what has changed since somebody had it last: whoever changes something never waits for a search.
#[derive(Default)]
pub(super) struct Followed {
    index: Mutex<Index>,
    changes: Mutex<Vec<(Handle, Arc<Entry>)>>,
}

impl Followed {
    /// Notes what was set.
    pub fn note(&self, handle: Handle, entry: &Arc<Entry>) {
        lock(&self.changes).push((handle, Arc::clone(entry)));
    }

    /// The index with all that was noted, if that takes no waiting.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, Index>> {
        self.index.try_lock().ok().map(|index| self.caught_up(index))
    }

    /// The index with all that was noted.
    pub fn lock(&self) -> MutexGuard<'_, Index> {
        self.caught_up(lock(&self.index))
    }

    fn caught_up<'i>(&self, mut index: MutexGuard<'i, Index>) -> MutexGuard<'i, Index> {
        for (handle, entry) in std::mem::take(&mut *lock(&self.changes)) {
            index.set(handle, &entry);
        }
        index
    }
}

/// The indexes of a cache, by space.
#[derive(Default)]
pub(super) struct Indexes {
    spaces: Mutex<HashMap<i64, Arc<Followed>>>,
    /// Whether there is one: nobody waits for a lock before that.
    any: AtomicBool,
}

impl Indexes {
    fn spaces(&self) -> MutexGuard<'_, HashMap<i64, Arc<Followed>>> {
        lock(&self.spaces)
    }

    /// The index of a space, if it was asked for before.
    pub fn existing(&self, space: i64) -> Option<Arc<Followed>> {
        self.any.load(atomic::Ordering::Acquire).then(|| self.spaces().get(&space).cloned()).flatten()
    }

    /// The index of a space, which may be new and empty.
    pub fn of(&self, space: i64) -> Arc<Followed> {
        let mut spaces = self.spaces();
        self.any.store(true, atomic::Ordering::Release);
        Arc::clone(spaces.entry(space).or_default())
    }

    /// Forgets the index of a space, or all.
    pub fn forget(&self, space: Option<i64>) {
        if self.any.load(atomic::Ordering::Acquire) {
            self.spaces().retain(|id, _| space.is_some_and(|space| space != *id));
        }
    }
}

/// Collects the nearest of the entries that it is shown.
pub(super) struct Nearest {
    query: Query,
    threshold: f32,
    limit: usize,
    /// The last one on top.
    heap: BinaryHeap<Ranked>,
    unpacked: Vec<f32>,
}

struct Ranked(Near);

impl Nearest {
    pub fn new(query: &[f32], threshold: f32, limit: usize) -> Self {
        Self { unpacked: vec![0.0; query.len()], query: Query::new(query), threshold, limit, heap: BinaryHeap::new() }
    }

    /// Whether one of this similarity could be among them.
    pub fn wants(&self, similarity: f32) -> bool {
        let last = self.heap.peek().filter(|_| self.heap.len() == self.limit);
        similarity >= last.map_or(self.threshold, |last| last.0.similarity)
    }

    /// Entries without a vector, of another length, or of length zero are near to nothing. Whether an entry counts is
    /// asked only of those that would be among the nearest; `false`: it does not.
    pub fn show(&mut self, entry: &Arc<Entry>, counts: &impl Fn(&Entry) -> bool) -> bool {
        if self.limit == 0 {
            return true;
        }
        let Some(similarity) = self.similarity(entry).filter(|similarity| *similarity >= self.threshold) else {
            return true;
        };
        let ranked = Ranked(Near { similarity, entry: Arc::clone(entry) });
        let full = self.heap.len() == self.limit;
        if full && self.heap.peek().is_some_and(|last| ranked >= *last) {
            return true;
        }
        if !counts(entry) {
            return false;
        }
        if full {
            self.heap.pop();
        }
        self.heap.push(ranked);
        true
    }

    fn similarity(&mut self, entry: &Entry) -> Option<f32> {
        if entry.vector.len() != self.query.dimensions() {
            return None;
        }
        match &entry.vector {
            Vector::F32(values) => self.query.cosine(values),
            packed @ Vector::F16(_) => {
                packed.copy_to(&mut self.unpacked);
                self.query.cosine(&self.unpacked)
            }
        }
    }

    /// The nearest first; equally near ones in the order of their notes.
    pub fn finish(self) -> Vec<Near> {
        self.heap.into_sorted_vec().into_iter().map(|ranked| ranked.0).collect()
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp_nearest(&other.0)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}
