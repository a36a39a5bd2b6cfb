//! The thread that has the file open for writing: it opens it, serves the queue, and goes on without the file where there
//! is trouble.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, RwLockWriteGuard};
use std::time::{Duration, Instant};

use super::super::report::Event;
use super::super::store::{self, Batch, Fault, Identity, Writer};
use super::Shared;
use super::queue::{Call, Op, Phase};
use crate::host;

/// What one transaction writes at most: some ten milliseconds, for which other processes wait.
pub(super) const BATCH_ENTRIES: usize = 1024;
pub(super) const BATCH_BYTES: usize = 8 << 20;

/// How long the first entry of a batch waits for others. A process that ends without `close` loses no more than this.
pub(super) const LINGER: Duration = Duration::from_millis(10);

/// How often a batch is tried again while another process holds the file, each time after SQLite's own patience.
pub(super) const BUSY_ATTEMPTS: usize = 12;

/// How long there is nothing to write before the file's pages are no longer held in memory.
const REST: Duration = Duration::from_secs(1);

/// Bytes that come from the file or go there before what was freed for them goes back to the system: an allocator that is
/// never asked keeps up to a third of a full memory tier in pieces that nothing fits into.
const MOVED: usize = 32 << 20;

/// What the thread has to do next.
enum Next {
    Calls(VecDeque<Call>),
    Write(Vec<(u64, Op)>, HashMap<i64, u64>),
    Replace(String),
    Rest,
    End,
}

/// The thread's life: open the file, serve the queue, close the file.
pub(super) fn serve(shared: &Shared) {
    let mut writer = None;
    while let Some(next) = shared.next(writer.is_some()) {
        match next {
            Next::End => break,
            // Memory that cannot be given back is no trouble with the file.
            Next::Rest => drop(writer.as_ref().map(|writer| shared.rest(writer))),
            Next::Replace(reason) => {
                let broken = writer.take().map(|writer: Writer| writer.identity());
                let broken = broken.or_else(|| Identity::of(&shared.options.path).ok());
                match shared.replace(broken, &reason) {
                    Ok(new) => writer = Some(new),
                    Err(fault) => shared.suspend(fault, Vec::new()),
                }
            }
            Next::Calls(calls) => {
                let mut fault = None;
                if writer.is_none() {
                    writer = shared.open().map_err(|failed| fault = Some(failed)).ok();
                }
                let missing = fault.clone().unwrap_or_else(|| Fault::Unavailable(String::new()));
                for call in calls {
                    call(writer.as_mut().ok_or(&missing));
                }
                if let Some(fault) = fault {
                    shared.suspend(fault, Vec::new());
                }
            }
            Next::Write(ops, touches) => {
                if let Err(fault) = shared.write(&mut writer, &ops, &touches) {
                    writer = None;
                    shared.suspend(fault, ops);
                } else {
                    shared.written(ops);
                }
            }
        }
        if matches!(shared.queue().phase, Phase::Off(_)) {
            break;
        }
    }
    // Readers first: the last connection to close takes the log with it, and those that only read cannot.
    shared.generation.fetch_add(1, Ordering::AcqRel);
    shared.readers().clear();
    drop(writer);
    let mut queue = shared.queue();
    queue.ended = true;
    queue.calls.clear();
    queue.pending.clear();
    queue.clears.clear();
    queue.ops.clear();
    queue.done = queue.last;
    drop(queue);
    shared.progress.notify_all();
}

impl Shared {
    /// Waits for something to do. The file is opened before anything else.
    fn next(&self, open: bool) -> Option<Next> {
        let mut queue = self.queue();
        if !open && queue.phase == Phase::Opening {
            return Some(Next::Calls(std::mem::take(&mut queue.calls)));
        }
        loop {
            if !queue.calls.is_empty() {
                return Some(Next::Calls(std::mem::take(&mut queue.calls)));
            }
            if let Some(reason) = queue.broken.take()
                && !queue.stop
            {
                return Some(Next::Replace(reason));
            }
            let suspended = match queue.phase {
                Phase::Suspended { until_ms, .. } => until_ms.saturating_sub(self.clock.steady_ms()),
                _ => 0,
            };
            if suspended == 0 && matches!(queue.phase, Phase::Suspended { .. }) {
                // Opens the file, whether or not there is something to write.
                return Some(Next::Calls(VecDeque::new()));
            }
            let idle = (queue.ops.is_empty() && queue.touches.is_empty()) || suspended > 0;
            if idle {
                if queue.stop {
                    return Some(Next::End);
                }
                if std::mem::take(&mut queue.shrink) {
                    queue.rested = true;
                    return Some(Next::Rest);
                }
                queue.idle = suspended == 0;
                if suspended == 0 && !queue.rested {
                    let (waited, timeout) = self.work.wait_timeout(queue, REST).unwrap_or_else(PoisonError::into_inner);
                    queue = waited;
                    queue.shrink |= timeout.timed_out();
                    continue;
                }
                queue = if suspended > 0 {
                    let wait = Duration::from_millis(suspended.min(1000));
                    self.work.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0
                } else {
                    self.wait(&self.work, queue)
                };
                continue;
            }
            queue.idle = false;
            queue.rested = false;
            if queue.ops.len() < BATCH_ENTRIES && queue.hurry == 0 && !queue.stop {
                let end = Instant::now() + LINGER;
                while let Some(left) = end.checked_duration_since(Instant::now())
                    && queue.ops.len() < BATCH_ENTRIES
                    && queue.hurry == 0
                    && queue.calls.is_empty()
                    && !queue.stop
                {
                    queue = self.work.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                if !queue.calls.is_empty() {
                    continue;
                }
            }
            let mut bytes = 0;
            let fits = queue.ops.iter().take(BATCH_ENTRIES).take_while(|(_, op)| {
                let full = bytes >= BATCH_BYTES;
                bytes += op.bytes();
                !full
            });
            let count = fits.count();
            let ops: Vec<_> = queue.ops.drain(..count).collect();
            queue.bytes -= ops.iter().map(|(_, op)| op.bytes()).sum::<usize>().min(queue.bytes);
            let touches = std::mem::take(&mut queue.touches);
            drop(queue);
            self.progress.notify_all();
            return Some(Next::Write(ops, touches));
        }
    }

    /// Gives back the memory that was needed to write.
    fn rest(&self, writer: &Writer) -> Result<(), Fault> {
        let shrunk: Result<(), Fault> = self.readers().iter().try_for_each(|(_, reader)| reader.shrink());
        let outcome = writer.shrink().and(shrunk);
        self.trim(MOVED / 8);
        outcome
    }

    /// Counts bytes that were read or written; whether there were so many that freed memory is to be given back.
    pub(super) fn moved(&self, bytes: usize) -> bool {
        self.moved.fetch_add(bytes, Ordering::Relaxed) + bytes >= MOVED
    }

    /// Has the allocator give back what was freed, if at least `least` bytes were read or written: it looks at all that
    /// this process has freed.
    fn trim(&self, least: usize) {
        if self.moved.load(Ordering::Relaxed) >= least {
            self.moved.store(0, Ordering::Relaxed);
            host::trim();
        }
    }

    /// Waits for those who read, and keeps others from it. Nothing of the file is open then.
    fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        let alone = self.using.write().unwrap_or_else(PoisonError::into_inner);
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.readers().clear();
        alone
    }

    /// Opens the file; a broken one is set aside first.
    fn open(&self) -> Result<Writer, Fault> {
        let _alone = self.alone();
        let path = &self.options.path;
        let opened = Writer::open(path, self.options.page_bytes / 2, self.options.max_bytes, self.clock.wall_ms());
        match opened.and_then(|writer| self.opened(writer)) {
            Err(Fault::Broken(reason)) => self.replace_alone(Identity::of(path).ok(), &reason),
            opened => opened,
        }
    }

    fn opened(&self, writer: Writer) -> Result<Writer, Fault> {
        self.note_usage(writer.usage()?);
        self.unchecked.store(true, Ordering::Release);
        if matches!(self.queue().phase, Phase::Suspended { .. }) {
            self.tell(|path| Event::StorageRestored { path });
        }
        self.queue().phase = Phase::Ready;
        self.progress.notify_all();
        Ok(writer)
    }

    fn replace(&self, broken: Option<Identity>, reason: &str) -> Result<Writer, Fault> {
        let _alone = self.alone();
        self.replace_alone(broken, reason)
    }

    fn replace_alone(&self, broken: Option<Identity>, reason: &str) -> Result<Writer, Fault> {
        self.counters.errors.add(1);
        let path = &self.options.path;
        if let Some(moved_to) = store::set_aside(path, broken, self.clock.wall_ms())? {
            self.tell(|path| Event::FileSetAside { path, moved_to, reason: reason.to_owned() });
        }
        self.opened(Writer::open(path, self.options.page_bytes / 2, self.options.max_bytes, self.clock.wall_ms())?)
    }

    /// Writes a batch, as often as it takes.
    fn write(&self, slot: &mut Option<Writer>, ops: &[(u64, Op)], touches: &HashMap<i64, u64>) -> Result<(), Fault> {
        let mut attempts = 0;
        loop {
            let mut writer = match slot.take().map(|writer| writer.in_place().then_some(writer)) {
                Some(Some(writer)) => writer,
                Some(None) => {
                    self.counters.errors.add(1);
                    let reason = "the file was deleted or replaced; a new one is begun".to_owned();
                    self.tell(|path| Event::StorageFailed { path, reason });
                    self.open()?
                }
                None => self.open()?,
            };
            let mut events = Vec::new();
            let now_ms = self.clock.wall_ms();
            let outcome = writer.transaction(now_ms, |batch| {
                events.clear();
                for (_, op) in ops {
                    events.extend(self.apply(batch, op)?);
                }
                touches.iter().try_for_each(|(id, used_ms)| batch.touch(*id, *used_ms))
            });
            attempts += 1;
            match outcome {
                Ok(((), usage)) => {
                    *slot = Some(writer);
                    self.note_usage(usage);
                    self.counters.evicted.add(usage.evicted);
                    let lost = events.iter().filter(|event| matches!(event, Event::Rejected { .. })).count();
                    self.counters.lost.add(lost);
                    events.into_iter().for_each(|event| self.tell(|_| event));
                    return Ok(());
                }
                Err(Fault::Busy(_)) if attempts < BUSY_ATTEMPTS => *slot = Some(writer),
                Err(Fault::Broken(reason)) if attempts < BUSY_ATTEMPTS => {
                    let broken = writer.identity();
                    drop(writer);
                    *slot = Some(self.replace(Some(broken), &reason)?);
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    fn apply(&self, batch: &mut Batch, op: &Op) -> Result<Option<Event>, Fault> {
        match op {
            Op::Put(key, entry) => {
                let refused = batch.put(key, entry)?.err();
                let reason = |stored| {
                    let length = entry.vector.len();
                    format!("its embedding has {length} values, those of its model in the file have {stored}")
                };
                return Ok(refused.map(|stored| Event::Rejected { entries: 1, reason: reason(stored) }));
            }
            Op::Delete { key, only } => batch.delete(key, *only)?,
            Op::Repair(key) => {
                let path = || self.options.path.clone();
                return Ok(batch.repair(key)?.then(|| Event::IndexRebuilt { path: path() }));
            }
            Op::Clear(selection, deleted) => deleted.store(batch.clear(selection)?, Ordering::Release),
            Op::Release(keys) => batch.release(keys, &self.owner)?,
        }
        Ok(None)
    }

    fn written(&self, ops: Vec<(u64, Op)>) {
        let mut queue = self.queue();
        for (number, op) in &ops {
            if let Op::Put(key, _) | Op::Delete { key, .. } = op
                && queue.pending.get(key).is_some_and(|pending| pending.number == *number)
            {
                queue.pending.remove(key);
            }
            queue.done = queue.done.max(*number);
        }
        let done = queue.done;
        queue.clears.retain(|(number, ..)| *number > done);
        drop(queue);
        let bytes = ops.iter().map(|(_, op)| op.bytes()).sum();
        self.counters.written.add(ops.iter().filter(|(_, op)| matches!(op, Op::Put(..))).count());
        self.progress.notify_all();
        drop(ops);
        self.moved(bytes);
        self.trim(MOVED);
    }

    /// Goes on without the file: for good if it is somebody else's, else for a while.
    fn suspend(&self, fault: Fault, unwritten: Vec<(u64, Op)>) {
        self.counters.errors.add(1);
        let reason = fault.reason().to_owned();
        let foreign = matches!(fault, Fault::Foreign(_));
        // Told before anybody can see the consequences.
        if foreign {
            self.tell(|path| Event::StorageRefused { path, reason });
        } else if !matches!(self.queue().phase, Phase::Suspended { .. }) {
            self.tell(|path| Event::StorageFailed { path, reason });
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.readers().clear();
        let mut queue = self.queue();
        let waiting: Vec<_> = unwritten.into_iter().chain(std::mem::take(&mut queue.ops)).collect();
        queue.pending.clear();
        queue.clears.clear();
        queue.bytes = 0;
        queue.touches.clear();
        let lost: usize = waiting.into_iter().map(|(number, op)| queue.bury(number, op)).sum();
        queue.lost += lost as u64;
        self.counters.lost.add(lost);
        queue.done = queue.last;
        queue.phase = if foreign {
            Phase::Off(fault.clone())
        } else {
            let until_ms = self.clock.steady_ms() + self.options.retry_after_ms;
            Phase::Suspended { until_ms, fault: fault.clone() }
        };
        let failed = std::mem::take(&mut queue.calls);
        drop(queue);
        self.progress.notify_all();
        for call in failed {
            call(Err(&fault));
        }
    }
}
