//! What waits to be written to a server, which is an answer already.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::super::entry::Entry;
use super::super::selection::Selection;
use crate::embedding::Key;

/// What may wait: what comes while it is full is dropped, and nobody waits.
const QUEUE_ENTRIES: usize = 16_384;
const QUEUE_BYTES: usize = 32 << 20;

/// Keys whose value on the server is to be deleted because there is a newer one, which it did not take. Beyond, what it has
/// from before is not believed any more, instead.
const TOMBSTONES: usize = 250_000;

/// What one round trip writes at most.
const BATCH_ENTRIES: usize = 128;
const BATCH_BYTES: usize = 256 << 10;

/// How many entries a deletion has found, once the server knows of it; [`NOT_YET`] before.
pub(super) type Told = Arc<AtomicUsize>;

/// See [`Told`].
pub(super) const NOT_YET: usize = usize::MAX;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) enum Source {
    /// All values that its key ever has are the same.
    Fixed,
    /// Somebody has set it: whoever computes one meanwhile is too late.
    Set,
    /// It was computed, under a lease if leases are taken.
    Computed,
}

impl Put {
    /// Whether a value that was there before may be another one.
    pub fn replaces(&self) -> bool {
        self.source != Source::Fixed
    }
}

/// One change, in the order of the callers.
#[derive(Clone)]
pub(super) enum Op {
    Put(Put),
    /// Where somebody has deleted it: when, in wall time. Else, what the server has is only not to stay.
    Delete(Key, Told, Option<u64>),
    Clear(Box<Selection>, Told),
    /// Gives these leases back.
    Release(Vec<Key>),
}

#[derive(Clone)]
pub(super) struct Put {
    pub key: Key,
    pub entry: Arc<Entry>,
    pub source: Source,
    /// The token of the lease under which it was made.
    pub token: Option<Arc<str>>,
}

impl Op {
    fn bytes(&self) -> usize {
        match self {
            Self::Put(put) => put.entry.payload_bytes(),
            _ => 0,
        }
    }
}

struct Pending {
    number: u64,
    /// `None`: deleted.
    entry: Option<Arc<Entry>>,
}

/// What is known of a key without the server.
pub(super) enum Known {
    Entry(Arc<Entry>),
    /// What the server has is no answer any more.
    Deleted,
    Nothing,
}

/// What is no answer although the server has it.
#[derive(Default, Clone)]
pub(super) struct Hidden {
    clears: Vec<(u64, Selection)>,
    /// What was made before that steady time may have been replaced.
    pub before_ms: u64,
}

impl Hidden {
    /// `made_ms`: steady time.
    pub fn covers(&self, entry: &Entry, made_ms: u64) -> bool {
        made_ms < self.before_ms || self.clears.iter().any(|(_, selection)| selection.covers(entry))
    }
}

#[derive(Default)]
pub(super) struct Queue {
    /// Those that are being written stay until the server has them.
    ops: VecDeque<(u64, Op)>,
    pending: HashMap<Key, Pending>,
    pub hidden: Hidden,
    /// Number of the latest change, and of the latest one that is done.
    pub last: u64,
    pub done: u64,
    puts: usize,
    bytes: usize,
}

impl Queue {
    /// Entries that wait.
    pub fn len(&self) -> usize {
        self.puts
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub fn known(&self, key: &Key) -> Known {
        match self.pending.get(key) {
            Some(Pending { entry: Some(entry), .. }) => Known::Entry(Arc::clone(entry)),
            Some(Pending { entry: None, .. }) => Known::Deleted,
            None => Known::Nothing,
        }
    }

    /// Queues a change; how many entries were dropped for want of space. `now_ms`: steady time.
    pub fn push(&mut self, op: Op, now_ms: u64) -> usize {
        let full = self.puts >= QUEUE_ENTRIES || self.bytes + op.bytes() > QUEUE_BYTES;
        let (op, dropped) = match op {
            Op::Put(put) if full && put.replaces() => (Op::Delete(put.key, Told::default(), None), 1),
            Op::Put(_) if full => return 1,
            op => (op, 0),
        };
        self.last += 1;
        let number = self.last;
        match &op {
            Op::Put(Put { key, entry, .. }) => {
                self.pending.insert(*key, Pending { number, entry: Some(Arc::clone(entry)) });
            }
            Op::Delete(key, ..) => {
                if self.ops.len() >= QUEUE_ENTRIES + TOMBSTONES {
                    self.forget_deletions(now_ms);
                }
                self.pending.insert(*key, Pending { number, entry: None });
            }
            Op::Clear(selection, _) => {
                let covered = |pending: &Pending| pending.entry.as_ref().is_some_and(|entry| selection.covers(entry));
                self.pending.retain(|_, pending| !covered(pending));
                self.hidden.clears.push((number, (**selection).clone()));
            }
            Op::Release(_) => {}
        }
        self.puts += usize::from(matches!(op, Op::Put(_)));
        self.bytes += op.bytes();
        self.ops.push_back((number, op));
        dropped
    }

    /// Of what waits, keeps only what is still to be written, and believes nothing that the server has from before.
    fn forget_deletions(&mut self, now_ms: u64) {
        self.hidden.before_ms = now_ms;
        self.ops.retain(|(_, op)| !matches!(op, Op::Delete(..)));
        self.pending.retain(|_, pending| pending.entry.is_some());
    }

    /// The changes of the next round trip, which stay in the queue until [`Queue::wrote`]. A [`Op::Clear`] is alone.
    pub fn batch(&self) -> Vec<(u64, Op)> {
        let mut bytes = 0;
        let mut batch = Vec::new();
        for (number, op) in self.ops.iter().take(BATCH_ENTRIES) {
            let clear = matches!(op, Op::Clear(..));
            if !batch.is_empty() && (clear || bytes + op.bytes() > BATCH_BYTES) {
                break;
            }
            bytes += op.bytes();
            batch.push((*number, op.clone()));
            if clear {
                break;
            }
        }
        batch
    }

    /// The server has the changes of a batch up to this one, or will not have them. `again`: what is to be changed there
    /// instead of what it has not taken.
    pub fn wrote(&mut self, up_to: u64, again: Vec<Key>) {
        while self.ops.front().is_some_and(|(number, _)| *number <= up_to) {
            let Some((number, op)) = self.ops.pop_front() else { break };
            self.puts -= usize::from(matches!(op, Op::Put(_)));
            self.bytes -= op.bytes();
            if let Op::Put(Put { key, .. }) | Op::Delete(key, ..) = &op
                && self.pending.get(key).is_some_and(|pending| pending.number == number)
            {
                self.pending.remove(key);
            }
        }
        self.hidden.clears.retain(|(number, _)| *number > up_to);
        self.done = self.done.max(up_to);
        for key in again {
            // Something newer is on its way already.
            if !self.pending.contains_key(&key) {
                self.push(Op::Delete(key, Told::default(), None), 0);
            }
        }
    }
}
