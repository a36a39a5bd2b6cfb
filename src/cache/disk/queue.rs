//! What waits to be written, which is an answer already.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, MutexGuard, PoisonError};

use super::super::entry::Entry;
use super::super::selection::Selection;
use super::super::store::{Fault, Writer};
use super::Shared;
use super::writing::BATCH_ENTRIES;
use crate::embedding::Key;

/// What may wait in the queue before callers do. Bytes, because entries have any size; number, because small ones have
/// a price, too.
const QUEUE_ENTRIES: usize = 16_384;
const QUEUE_BYTES: usize = 32 << 20;

/// Keys that are remembered while the file cannot be used; beyond, all of it is forgotten instead.
const TOMBSTONES: usize = 100_000;

/// One change, in the order of the callers.
pub(super) enum Op {
    Put(Key, Arc<Entry>),
    Delete {
        key: Key,
        only: Option<i64>,
    },
    Repair(Key),
    /// Says how many there were, once they are deleted.
    Clear(Selection, Arc<AtomicUsize>),
    Release(Vec<Key>),
}

impl Op {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put(_, entry) => entry.payload_bytes(),
            _ => 0,
        }
    }
}

/// A clear that is on its way: its number, and what it covers.
pub(super) type Clearing = (u64, Selection);

/// Work for the writing thread that somebody waits for.
pub(super) type Call = Box<dyn FnOnce(Result<&mut Writer, &Fault>) + Send>;

pub(super) struct Pending {
    pub(super) number: u64,
    /// `None`: deleted.
    pub(super) entry: Option<Arc<Entry>>,
}

/// Whether the file is in use.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Phase {
    /// Not opened yet: lookups wait.
    Opening,
    Ready,
    /// After an error, until so many steady ms.
    Suspended {
        until_ms: u64,
        fault: Fault,
    },
    /// For good.
    Off(Fault),
}

pub(super) struct Queue {
    pub(super) ops: VecDeque<(u64, Op)>,
    pub(super) calls: VecDeque<Call>,
    /// The newest change of each key that is in `ops` or being written.
    pub(super) pending: HashMap<Key, Pending>,
    /// Clears that are in `ops` or being written.
    pub(super) clears: Vec<Clearing>,
    pub(super) touches: HashMap<i64, u64>,
    /// Number of the latest change, and of the latest one that is done.
    pub(super) last: u64,
    pub(super) done: u64,
    pub(super) bytes: usize,
    /// Entries that were lost since the last flush.
    pub(super) lost: u64,
    pub(super) phase: Phase,
    /// Somebody waits for the queue to be empty.
    pub(super) hurry: usize,
    /// The thread waits for the first change.
    pub(super) idle: bool,
    /// A reader found the file of this identity broken.
    pub(super) broken: Option<String>,
    /// Memory for pages of the file is to be given back.
    pub(super) shrink: bool,
    /// It was, and nothing was written since.
    pub(super) rested: bool,
    pub(super) stop: bool,
    pub(super) ended: bool,
}

/// Whether a row is about to be cleared.
pub(super) fn covered(clears: &[Clearing], entry: &Entry) -> bool {
    clears.iter().any(|(_, selection)| selection.covers(entry))
}

impl Queue {
    pub(super) fn full(&self) -> bool {
        self.ops.len() >= QUEUE_ENTRIES || self.bytes >= QUEUE_BYTES
    }

    /// Whether entries that are queued now will be written, as far as anybody knows.
    pub(super) fn accepts(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Ready) && !self.stop
    }

    /// Keeps of a change what must not be forgotten although the entry cannot be written.
    pub(super) fn bury(&mut self, number: u64, op: Op) -> usize {
        let lost = usize::from(matches!(op, Op::Put(..)));
        let op = match op {
            Op::Put(key, _) => Op::Delete { key, only: None },
            Op::Delete { .. } | Op::Clear(..) => op,
            Op::Repair(_) | Op::Release(_) => return 0,
        };
        let op = if self.ops.len() < TOMBSTONES {
            op
        } else {
            self.ops.clear();
            self.pending.clear();
            self.clears.clear();
            Op::Clear(Selection::default(), Arc::default())
        };
        // Once the file works again, none of it may answer before it is deleted.
        match &op {
            Op::Delete { key, .. } => drop(self.pending.insert(*key, Pending { number, entry: None })),
            Op::Clear(selection, _) => self.clears.push((number, selection.clone())),
            _ => {}
        }
        self.ops.push_back((number, op));
        lost
    }
}

impl Shared {
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait<'q>(&self, condition: &Condvar, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        condition.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn queue_one(&self, op: Op) {
        let mut queue = self.queue();
        self.enqueue(&mut queue, op);
        self.wake(&mut queue);
    }

    /// Tells the thread about changes. One that already gathers a batch is left alone until the batch is full: waking
    /// it costs more than queueing.
    pub(super) fn wake(&self, queue: &mut Queue) {
        if std::mem::take(&mut queue.idle) || queue.ops.len() >= BATCH_ENTRIES {
            self.work.notify_one();
        }
    }

    pub(super) fn enqueue(&self, queue: &mut Queue, op: Op) {
        if queue.ended || matches!(queue.phase, Phase::Off(_)) {
            self.counters.lost.add(usize::from(matches!(op, Op::Put(..))));
            return;
        }
        queue.last += 1;
        let number = queue.last;
        if let Phase::Suspended { until_ms, .. } = queue.phase
            && self.clock.steady_ms() < until_ms
        {
            queue.done = number;
            let lost = queue.bury(number, op);
            queue.lost += lost as u64;
            self.counters.lost.add(lost);
            return;
        }
        match &op {
            Op::Put(key, entry) => {
                queue.pending.insert(*key, Pending { number, entry: Some(Arc::clone(entry)) });
            }
            Op::Delete { key, only: None } => {
                queue.pending.insert(*key, Pending { number, entry: None });
            }
            Op::Clear(selection, _) => {
                let covered = |pending: &Pending| pending.entry.as_ref().is_some_and(|entry| selection.covers(entry));
                queue.pending.retain(|_, pending| !covered(pending));
                queue.clears.push((number, selection.clone()));
            }
            // Nobody needs to see that row again, and a newer one of another process is not missed for long.
            Op::Delete { key, only: Some(_) } => {
                queue.pending.entry(*key).or_insert(Pending { number, entry: None });
            }
            Op::Repair(_) | Op::Release(_) => {}
        }
        queue.bytes += op.bytes();
        queue.ops.push_back((number, op));
    }
}
