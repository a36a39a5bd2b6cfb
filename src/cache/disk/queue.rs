//! What waits to be written, which is an answer already.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::super::entry::{CLOCK_SLACK_MS, Entry};
use super::super::selection::Selection;
use super::super::store::{Fault, Writer};
use super::Shared;
use crate::embedding::Key;
use crate::sync::atomic::{AtomicBool, AtomicUsize};
use crate::sync::{Condvar, Instant, MutexGuard};

/// What may wait in the queue before callers do. Bytes, because entries have any size; number, because small ones have
/// a price, too.
const QUEUE_ENTRIES: usize = 16_384;
const QUEUE_BYTES: usize = 32 << 20;

/// What one transaction writes at most: some ten milliseconds, for which other processes wait.
pub(super) const BATCH_ENTRIES: usize = 1024;

/// Keys that are remembered while the file cannot be written, some 150 bytes each. Beyond, what the file has from before
/// is not believed any more, instead.
const TOMBSTONES: usize = 250_000;

/// How long another program may hold the file before calls go on without it.
const BRIEF: Duration = Duration::from_millis(100);

/// How long a file may be held before that is trouble, if it was not opened yet.
const LONG_OPENING: Duration = Duration::from_secs(1);

/// How long those wait for a file that another program holds who asked for nothing but that the file knows.
const LONG: Duration = Duration::from_secs(8);

/// How long a call waits for a file that another program holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitLimit {
    /// Until it is known that the file has been held for [`BRIEF`]: then nobody waits again.
    Brief,
    /// For [`LONG`].
    Long,
}

impl WaitLimit {
    pub(super) fn is_over(self, queue: &Queue, began: Instant) -> bool {
        match self {
            Self::Brief => queue.is_held(),
            Self::Long => queue.held_since.is_some() && began.elapsed() >= LONG,
        }
    }
}

/// Entries that are no answers for this cache any more, although they are in the file. More are not remembered.
const FORGOTTEN: usize = 65_536;

/// How often those who wait look at the time.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How many entries a deletion has found, once the file knows of it; [`NOT_YET`] before.
pub(super) type Told = Arc<AtomicUsize>;

/// See [`Told`].
pub(super) const NOT_YET: usize = usize::MAX;

/// One change, in the order of the callers.
#[derive(Clone)]
pub(super) enum Op {
    /// In force from this time on, as the others: what another process has written since then stays.
    Put(Key, Arc<Entry>, u64),
    Delete(Key, Told, u64),
    Repair(Key),
    Clear(Box<Selection>, Told, u64),
    /// Notes what time it is.
    Clock,
    /// Gives these leases back; `None`: all of this cache.
    Release(Option<Vec<Key>>),
}

impl Op {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put(_, entry, _) => entry.payload_bytes(),
            _ => 0,
        }
    }

    pub(super) fn is_put(&self) -> bool {
        matches!(self, Self::Put(..))
    }
}

/// Which entry of a key: when it was made, and of which content.
type Which = (u64, Option<[u8; 32]>);

/// Rows that are no answers although they are in the file.
#[derive(Default, Clone)]
pub(super) struct Hidden {
    /// Clears that are in the queue or being written: their number, and what they cover.
    pub(super) clears: Vec<(u64, Selection)>,
    /// What was made before that time may have been replaced while the file could not be written.
    pub(super) before_ms: u64,
    /// Those that were looked up with another content than theirs.
    pub(super) forgotten: Arc<HashMap<Key, Which>>,
}

impl Hidden {
    pub(super) fn covers(&self, key: &Key, entry: &Entry) -> bool {
        entry.created_ms < self.before_ms
            || self.clears.iter().any(|(_, selection)| selection.covers(entry))
            || self.forgets(key, entry)
    }

    /// Whether this very entry was looked up with another content than its own.
    pub(super) fn forgets(&self, key: &Key, entry: &Entry) -> bool {
        !self.forgotten.is_empty() && self.forgotten.get(key) == Some(&(entry.created_ms, entry.content))
    }

    /// An entry was set.
    fn set(&mut self, key: &Key) {
        if !self.forgotten.is_empty() {
            Arc::make_mut(&mut self.forgotten).remove(key);
        }
    }

    pub(super) fn forget(&mut self, key: Key, entry: &Entry) {
        let forgotten = Arc::make_mut(&mut self.forgotten);
        if forgotten.len() >= FORGOTTEN {
            forgotten.clear();
        }
        forgotten.insert(key, (entry.created_ms, entry.content));
    }
}

/// Gives the fault where it is to be tried again, because another program holds the file.
type Work = dyn FnMut(Result<&mut Writer, &Fault>) -> Result<(), Fault> + Send;

/// Work for the writing thread that somebody waits for.
pub(super) struct Call {
    pub(super) work: Box<Work>,
    /// Whoever asked has gone on without it.
    pub(super) over: Arc<AtomicBool>,
}

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
    /// After an error, until so many steady ms. What is only not to be written can be read.
    Suspended {
        until_ms: u64,
        fault: Fault,
        readable: bool,
    },
    /// For good.
    Off(Fault),
}

/// What the writing thread is to look into.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Trouble {
    /// The file is not where it was opened.
    Moved,
    Fault(Fault),
}

pub(super) struct Queue {
    /// Those that are being written stay until they are in the file.
    pub(super) ops: VecDeque<(u64, Op)>,
    pub(super) calls: VecDeque<Call>,
    /// The newest change of each key that is in `ops`.
    pub(super) pending: HashMap<Key, Pending>,
    pub(super) hidden: Hidden,
    pub(super) touches: HashMap<i64, u64>,
    /// See [`Queue::order_ms`].
    ordered_ms: u64,
    /// Number of the latest change, and of the latest one that is done.
    pub(super) last: u64,
    pub(super) done: u64,
    /// Of `ops`: entries, and their bytes.
    pub(super) puts: usize,
    pub(super) bytes: usize,
    /// Entries that were lost since the last flush.
    pub(super) lost: u64,
    pub(super) phase: Phase,
    /// Since when another program holds the file, without anybody's writing to it.
    pub(super) held_since: Option<Instant>,
    /// Somebody waits for the queue to be empty.
    pub(super) hurry: usize,
    /// The thread waits for the first change.
    pub(super) idle: bool,
    /// Somebody has read since the thread looked whether the file is still the one that was opened, and as it was.
    pub(super) read: bool,
    /// Somebody who reads has met it.
    pub(super) trouble: Option<Trouble>,
    /// Memory for pages of the file is to be given back.
    pub(super) shrink: bool,
    /// It was, and nothing was written since.
    pub(super) rested: bool,
    /// By when the thread is to end.
    pub(super) stop: Option<Instant>,
    pub(super) ended: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            ops: VecDeque::new(),
            calls: VecDeque::new(),
            pending: HashMap::new(),
            hidden: Hidden::default(),
            touches: HashMap::new(),
            ordered_ms: 0,
            last: 0,
            done: 0,
            puts: 0,
            bytes: 0,
            lost: 0,
            phase: Phase::Opening,
            held_since: None,
            hurry: 0,
            idle: false,
            read: false,
            trouble: None,
            shrink: false,
            rested: true,
            stop: None,
            ended: false,
        }
    }

    pub(super) fn full(&self) -> bool {
        self.ops.len() >= QUEUE_ENTRIES || self.bytes >= QUEUE_BYTES
    }

    /// Whether entries that are queued now will be written, as far as anybody knows.
    pub(super) fn accepts(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Ready) && !self.ended
    }

    /// Whether the file can be asked.
    pub(super) fn readable(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Suspended { readable: true, .. }) && !self.ended
    }

    /// Why the file cannot be written, while that is so.
    pub(super) fn fault(&self) -> Option<&Fault> {
        match &self.phase {
            Phase::Suspended { fault, .. } | Phase::Off(fault) => Some(fault),
            Phase::Opening | Phase::Ready => None,
        }
    }

    /// Whether another program has held the file for so long that calls go on without it.
    pub(super) fn is_held(&self) -> bool {
        self.held_since.is_some_and(|since| since.elapsed() >= BRIEF)
    }

    /// Keeps of a change what must not be forgotten although the entry cannot be written; whether that was an entry.
    pub(super) fn keep_tombstone(&mut self, number: u64, op: Op, now_ms: u64) -> bool {
        let lost = op.is_put();
        let op = match op {
            Op::Put(key, _, since_ms) => Op::Delete(key, Told::default(), since_ms),
            Op::Delete(..) | Op::Clear(..) => op,
            Op::Repair(_) | Op::Release(_) | Op::Clock => return false,
        };
        if self.ops.len() >= TOMBSTONES {
            self.forget_deletions(now_ms);
            return lost;
        }
        // Once the file works again, none of it may answer before it is deleted.
        match &op {
            Op::Delete(key, ..) => drop(self.pending.insert(*key, Pending { number, entry: None })),
            Op::Clear(selection, ..) => self.hidden.clears.push((number, (**selection).clone())),
            _ => {}
        }
        self.ops.push_back((number, op));
        lost
    }
}

impl Queue {
    /// The time that orders a change among those of other processes. Those of this one stay in the order of their calls when
    /// the clock goes back a little; when it was set back by more, all is new.
    pub(super) fn order_ms(&mut self, wall_ms: u64) -> u64 {
        if self.ordered_ms > wall_ms.saturating_add(CLOCK_SLACK_MS) {
            self.ordered_ms = 0;
        }
        self.ordered_ms = self.ordered_ms.max(wall_ms);
        self.ordered_ms
    }

    /// Of what waits, keeps only what will be in the file, and believes nothing that is in it from before.
    fn forget_deletions(&mut self, now_ms: u64) {
        self.hidden.before_ms = now_ms;
        let pending = &self.pending;
        self.ops.retain(|(number, op)| match op {
            Op::Put(key, ..) => pending.get(key).is_some_and(|pending| pending.number == *number),
            Op::Delete(..) => false,
            _ => true,
        });
        self.pending.retain(|_, pending| pending.entry.is_some());
        self.puts = self.ops.iter().filter(|(_, op)| op.is_put()).count();
        self.bytes = self.ops.iter().map(|(_, op)| op.bytes()).sum();
    }
}

impl Shared {
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait<'q>(
        &self,
        condition: &Condvar,
        queue: MutexGuard<'q, Queue>,
        most: Duration,
    ) -> MutexGuard<'q, Queue> {
        condition.wait_timeout(queue, most).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until something is so, or until another program has held the file for too long.
    pub(super) fn wait_until<'q>(
        &self,
        mut queue: MutexGuard<'q, Queue>,
        limit: WaitLimit,
        done: impl Fn(&Queue) -> bool,
    ) -> MutexGuard<'q, Queue> {
        let began = Instant::now();
        while !done(&queue) && !limit.is_over(&queue, began) {
            queue = self.wait(&self.progress, queue, POLL_INTERVAL);
        }
        queue
    }

    /// The queue, once the file was opened or it is known that this takes long.
    pub(super) fn opened(&self) -> MutexGuard<'_, Queue> {
        let opened = |queue: &Queue| queue.phase != Phase::Opening || queue.ended;
        let queue = self.wait_until(self.queue(), WaitLimit::Brief, opened);
        // To begin a file takes its first writer some time, too.
        if !opened(&queue) && queue.held_since.is_some_and(|since| since.elapsed() >= LONG_OPENING) {
            self.fails("another program holds it");
        }
        queue
    }

    /// Queues the change that is made of the time; its number.
    pub(super) fn queue_one(&self, op: impl FnOnce(u64) -> Op) -> u64 {
        let mut queue = self.queue();
        let at_ms = queue.order_ms(self.clock.wall_ms());
        self.enqueue(&mut queue, op(at_ms));
        self.wake(&mut queue);
        queue.last
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
            self.counters.lost.add(usize::from(op.is_put()));
            return;
        }
        queue.last += 1;
        let number = queue.last;
        let suspended = match queue.phase {
            Phase::Suspended { until_ms, .. } => self.clock.steady_ms() < until_ms,
            _ => false,
        };
        // A queue that nobody empties takes what must not be forgotten only.
        let shut = op.is_put() && queue.full() && queue.is_held();
        if suspended || shut {
            if queue.keep_tombstone(number, op, self.clock.wall_ms()) {
                queue.lost += 1;
                self.counters.lost.add(1);
            }
            if suspended {
                queue.done = number;
            } else {
                self.fails("another program holds it, and no more can wait to be written");
            }
            return;
        }
        match &op {
            Op::Put(key, entry, _) => {
                queue.hidden.set(key);
                queue.pending.insert(*key, Pending { number, entry: Some(Arc::clone(entry)) });
            }
            Op::Delete(key, ..) => {
                queue.pending.insert(*key, Pending { number, entry: None });
            }
            Op::Clear(selection, ..) => {
                let covered = |pending: &Pending| pending.entry.as_ref().is_some_and(|entry| selection.covers(entry));
                queue.pending.retain(|_, pending| !covered(pending));
                queue.hidden.clears.push((number, (**selection).clone()));
            }
            Op::Repair(_) | Op::Release(_) | Op::Clock => {}
        }
        queue.puts += usize::from(op.is_put());
        queue.bytes += op.bytes();
        queue.ops.push_back((number, op));
    }
}
