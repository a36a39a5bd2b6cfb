//! The thread that has the file open for writing: it opens it, serves the queue, and goes on without the file where there
//! is trouble. It never waits long for another program that holds the file: it looks again, and meanwhile at the queue.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use super::super::report::Event;
use super::super::store::{self, Batch, Fault, Identity, Reader, Refusal, Writer};
use super::queue::{BATCH_ENTRIES, Call, Op, Phase, Trouble};
use super::{DiskOptions, Shared};
use crate::host;
use crate::sync::atomic::Ordering;
use crate::sync::{Fault as Planted, Instant, RwLockWriteGuard, planted};

const BATCH_BYTES: usize = 8 << 20;

/// Of a file with a limit, what one transaction may add before older entries make room, and what a row takes at least.
const BATCH_SHARE: u64 = 8;
const LEAST_BATCH_BYTES: u64 = 64 << 10;
const ROW_BYTES: usize = 256;

/// How long the first entry of a batch waits for others. A process that ends without `close` loses no more than this.
const LINGER: Duration = Duration::from_millis(10);

/// How long a file that another program holds is left alone.
const AGAIN: Duration = Duration::from_millis(10);

/// How often a batch is tried again in a file that had to be replaced.
const ATTEMPTS: usize = 3;

/// How long after a read the thread looks whether the file was changed or replaced.
const LOOK: Duration = Duration::from_millis(100);

/// How long there is nothing to write before the file's pages are no longer held in memory.
const REST: Duration = Duration::from_secs(1);

/// Bytes that come from the file or go there before what was freed for them goes back to the system: an allocator that is
/// never asked keeps up to a third of a full memory tier in pieces that nothing fits into.
const MOVED: usize = 32 << 20;

/// Changes of one transaction, in order, and when rows were used.
struct Changes {
    ops: Vec<(u64, Op)>,
    touches: HashMap<i64, u64>,
}

/// What became of a change.
enum Applied {
    Done,
    /// Another process has written what is newer.
    Superseded,
    Told(Event),
}

/// What the thread has to do next.
enum Next {
    Open,
    Call(Call),
    Write(Changes),
    LookInto(Trouble),
    Look,
    Rest,
    End,
}

/// The thread's life: open the file, serve the queue, close the file.
pub(super) fn serve(shared: &Shared) {
    let mut slot = None;
    loop {
        let next = shared.next(slot.is_some());
        let began = Instant::now();
        let outcome = match next {
            Next::End => break,
            Next::Open => shared.open().map(|writer| slot = Some(writer)),
            Next::Call(call) => shared.answer(&mut slot, call),
            Next::Write(changes) => shared.write(&mut slot, changes),
            Next::LookInto(trouble) => shared.look_into(&mut slot, trouble.clone()).inspect_err(|fault| {
                // Of a file that is held, once it is not.
                if matches!(fault, Fault::Busy(_)) {
                    shared.queue().trouble.get_or_insert(trouble);
                }
            }),
            Next::Look => {
                shared.look(shared.clock.steady_ms());
                continue;
            }
            Next::Rest => {
                // Memory that cannot be given back is no trouble with the file.
                slot.as_ref().map(|writer| shared.rest(writer));
                continue;
            }
        };
        match outcome {
            Ok(()) => shared.queue().held_since = None,
            Err(Fault::Busy(_)) => shared.held(slot.as_mut(), began),
            Err(fault) => {
                slot = None;
                shared.suspend(fault);
            }
        }
        if matches!(shared.queue().phase, Phase::Off(_)) {
            break;
        }
    }
    // Readers first: the last connection to close takes the log with it, and those that only read cannot.
    shared.leave();
    drop(slot);
    let mut queue = shared.queue();
    queue.ended = true;
    queue.lost += queue.puts as u64;
    shared.counters.lost.add(queue.puts);
    queue.puts = 0;
    queue.calls.clear();
    queue.pending.clear();
    queue.hidden = Default::default();
    queue.ops.clear();
    queue.done = queue.last;
    drop(queue);
    shared.progress.notify_all();
}

impl Shared {
    /// Waits for something to do. The file is opened before anything else.
    fn next(&self, open: bool) -> Next {
        let mut queue = self.queue();
        if queue.held_since.is_some() && queue.stop.is_none() {
            queue = self.wait(&self.work, queue, AGAIN);
        }
        let mut look_at = None;
        loop {
            let stopping = queue.stop.is_some();
            if queue.stop.is_some_and(|stop| stop <= Instant::now() || planted(Planted::EndBeforeWritten)) {
                return Next::End;
            }
            let left_alone = match queue.phase {
                Phase::Opening if open => Duration::ZERO,
                Phase::Opening => return Next::Open,
                Phase::Suspended { until_ms, .. } => {
                    let rest = until_ms.saturating_sub(self.clock.steady_ms());
                    // Whoever ends tries once more to have deleted what was deleted.
                    if rest == 0 || (stopping && !queue.ops.is_empty()) {
                        return Next::Open;
                    }
                    Duration::from_millis(rest)
                }
                _ => Duration::ZERO,
            };
            // Before calls: whoever waits for one knows that what was met before has been looked into.
            if let Some(trouble) = queue.trouble.take()
                && !stopping
            {
                return Next::LookInto(trouble);
            }
            if let Some(call) = queue.calls.pop_front() {
                return Next::Call(call);
            }
            if !left_alone.is_zero() || (queue.ops.is_empty() && queue.touches.is_empty()) {
                if stopping {
                    return Next::End;
                }
                if std::mem::take(&mut queue.shrink) {
                    queue.rested = true;
                    return Next::Rest;
                }
                queue.idle = left_alone.is_zero();
                if queue.read {
                    let rest =
                        look_at.get_or_insert_with(|| Instant::now() + LOOK).saturating_duration_since(Instant::now());
                    if rest.is_zero() {
                        queue.read = false;
                        return Next::Look;
                    }
                    queue = self.wait(&self.work, queue, rest);
                    continue;
                }
                queue = match left_alone {
                    Duration::ZERO if queue.rested => self.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
                    Duration::ZERO => {
                        let (mut waited, timeout) =
                            self.work.wait_timeout(queue, REST).unwrap_or_else(PoisonError::into_inner);
                        waited.shrink |= timeout.timed_out();
                        waited
                    }
                    left_alone => self.wait(&self.work, queue, left_alone.min(REST)),
                };
                continue;
            }
            queue.idle = false;
            queue.rested = false;
            let end = Instant::now() + LINGER;
            while let Some(left) = end.checked_duration_since(Instant::now())
                && queue.ops.len() < BATCH_ENTRIES
                && queue.hurry == 0
                && queue.calls.is_empty()
                && queue.stop.is_none()
                && queue.held_since.is_none()
            {
                queue = self.wait(&self.work, queue, left);
            }
            if !queue.calls.is_empty() {
                continue;
            }
            let most = self.options.max_bytes.map_or(u64::MAX, |max| max / BATCH_SHARE).max(LEAST_BATCH_BYTES);
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(BATCH_BYTES);
            let mut bytes = 0;
            let fits = queue.ops.iter().take(BATCH_ENTRIES).take_while(|(_, op)| {
                let full = bytes >= most;
                bytes += op.bytes() + ROW_BYTES;
                !full
            });
            let ops = fits.cloned().collect();
            return Next::Write(Changes { ops, touches: std::mem::take(&mut queue.touches) });
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

    /// Another program holds the file. As long as it writes, that is a matter of milliseconds.
    fn held(&self, writer: Option<&mut Writer>, since: Instant) {
        let others_write = writer.is_some_and(|writer| writer.others_write());
        let mut queue = self.queue();
        if others_write || queue.held_since.is_none() {
            queue.held_since = Some(since);
        }
        drop(queue);
        self.progress.notify_all();
    }

    /// Lets go of all that is open for reading.
    fn leave(&self) {
        self.unwatch(&mut self.watch.lock().unwrap_or_else(PoisonError::into_inner));
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.readers().clear();
    }

    /// Waits for those who read, and keeps others from it. Nothing of the file is open then.
    fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        let alone = self.using.write().unwrap_or_else(PoisonError::into_inner);
        self.leave();
        alone
    }

    fn open_writer(&self) -> Result<Writer, Fault> {
        let DiskOptions { path, page_bytes, max_bytes, .. } = &self.options;
        Writer::open(path, page_bytes / 2, *max_bytes, self.clock.wall_ms(), self.own.clone())
    }

    /// Opens the file; a broken one is replaced.
    fn open(&self) -> Result<Writer, Fault> {
        let _alone = self.alone();
        let path = &self.options.path;
        match self.open_writer().and_then(|writer| self.opened_for_writing(writer)) {
            Err(Fault::Broken(reason)) => self.replace(Identity::of(path).ok(), &reason),
            // A directory, or a medium, that is not to be written may hold what is to be read.
            Err(Fault::Unavailable(reason)) if path.is_file() && Reader::open(path, 0, true).is_ok() => {
                Err(Fault::ReadOnly(reason))
            }
            opened => opened,
        }
    }

    fn opened_for_writing(&self, writer: Writer) -> Result<Writer, Fault> {
        self.note_usage(writer.usage()?);
        self.watch()?;
        self.unchecked.store(true, Ordering::Release);
        let mut queue = self.queue();
        queue.phase = Phase::Ready;
        // Whatever was met, it was in the file of before.
        queue.trouble = None;
        drop(queue);
        self.works();
        self.progress.notify_all();
        Ok(writer)
    }

    /// Opens a broken file anew, the first time: a page that could not be read for once looks like one that is damaged. What
    /// is broken again is set aside. Nobody else uses the file.
    fn replace(&self, broken: Option<Identity>, reason: &str) -> Result<Writer, Fault> {
        let known = *self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.is_none() || known != broken {
            match self.open_writer().and_then(|writer| self.opened_for_writing(writer)) {
                Ok(writer) => {
                    *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = broken;
                    self.fails(reason);
                    self.works();
                    return Ok(writer);
                }
                Err(Fault::Broken(_)) => {}
                Err(fault) => return Err(fault),
            }
        }
        self.counters.errors.add(1);
        let path = &self.options.path;
        if let Some(moved_to) = store::set_aside(path, broken, self.clock.wall_ms())? {
            self.tell(|path| Event::FileSetAside { path, moved_to, reason: reason.to_owned() });
        }
        self.opened_for_writing(self.open_writer()?)
    }

    /// Finds out what is the matter with the file that could not be read.
    fn look_into(&self, slot: &mut Option<Writer>, trouble: Trouble) -> Result<(), Fault> {
        match trouble {
            Trouble::Moved => {
                let writer = slot.take();
                *slot = Some(self.in_place(writer)?);
            }
            Trouble::Fault(Fault::Broken(reason)) => {
                let broken = slot.take().map(|writer| writer.identity());
                let _alone = self.alone();
                let broken = broken.or_else(|| Identity::of(&self.options.path).ok());
                *slot = Some(self.replace(broken, &reason)?);
            }
            Trouble::Fault(fault) => return Err(fault),
        }
        Ok(())
    }

    /// The writer, or a new one where it is none of the file that is there.
    fn in_place(&self, writer: Option<Writer>) -> Result<Writer, Fault> {
        match writer {
            Some(writer) if writer.in_place() => {
                self.watch()?;
                Ok(writer)
            }
            Some(writer) => {
                drop(writer);
                self.counters.errors.add(1);
                let reason = "the file was deleted or replaced; a new one is begun".to_owned();
                self.tell(|path| Event::StorageFailed { path, reason });
                self.open()
            }
            None => self.open(),
        }
    }

    /// Does what somebody waits for.
    fn answer(&self, slot: &mut Option<Writer>, mut call: Call) -> Result<(), Fault> {
        if call.over.load(Ordering::Acquire) {
            return Ok(());
        }
        if slot.is_none() {
            match self.open() {
                Ok(writer) => *slot = Some(writer),
                Err(fault) => {
                    // Tried again where the file is only held.
                    if (call.work)(Err(&fault)).is_err() {
                        self.queue().calls.push_front(call);
                    }
                    return Err(fault);
                }
            }
        }
        let Some(writer) = slot.as_mut() else { return Ok(()) };
        let done = (call.work)(Ok(writer));
        if done.is_err() {
            self.queue().calls.push_front(call);
        }
        done
    }

    /// Writes a batch.
    fn write(&self, slot: &mut Option<Writer>, Changes { ops, touches }: Changes) -> Result<(), Fault> {
        for attempt in 1.. {
            let mut writer = match slot.take() {
                Some(writer) if writer.in_place() => writer,
                other => self.in_place(other)?,
            };
            let mut events = Vec::new();
            let (mut told, mut superseded) = (Vec::new(), false);
            let outcome = writer.transaction(self.clock.wall_ms(), |batch| {
                events.clear();
                told.clear();
                superseded = false;
                for (_, op) in &ops {
                    match self.apply(batch, op, &mut told)? {
                        Applied::Done => {}
                        Applied::Superseded => superseded = true,
                        Applied::Told(event) => events.push(event),
                    }
                }
                touches.iter().try_for_each(|(id, used_ms)| batch.touch(*id, *used_ms))
            });
            match outcome {
                Ok(((), usage)) => {
                    *slot = Some(writer);
                    self.note_usage(usage);
                    self.counters.evicted.add(usage.evicted);
                    let lost = events.iter().filter(|event| matches!(event, Event::Rejected { .. })).count();
                    if lost > 0 || superseded {
                        // What memory has of them is not what the file has.
                        self.epoch.fetch_add(1, Ordering::AcqRel);
                    }
                    if lost > 0 {
                        self.counters.lost.add(lost);
                        self.queue().lost += lost as u64;
                    }
                    events.into_iter().for_each(|event| self.tell(|_| event));
                    told.into_iter().for_each(|(told, count)| told.store(count, Ordering::Release));
                    self.written(ops.last().map(|(number, _)| *number));
                    return Ok(());
                }
                Err(fault @ Fault::Busy(_)) => {
                    *slot = Some(writer);
                    self.queue().touches.extend(touches);
                    return Err(fault);
                }
                Err(Fault::Broken(reason)) if attempt < ATTEMPTS => {
                    let broken = writer.identity();
                    drop(writer);
                    let _alone = self.alone();
                    *slot = Some(self.replace(Some(broken), &reason)?);
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    fn apply(&self, batch: &mut Batch, op: &Op, told: &mut Vec<(super::Told, usize)>) -> Result<Applied, Fault> {
        match op {
            Op::Put(key, entry, since_ms) => {
                let Err(refusal) = batch.put(key, entry, *since_ms)? else { return Ok(Applied::Done) };
                let reason = match refusal {
                    Refusal::Superseded => return Ok(Applied::Superseded),
                    Refusal::Length(known) => format!(
                        "the embedding has {} values, those of its namespace in the file have {known}",
                        entry.vector.len()
                    ),
                    Refusal::Size(limit) => format!(
                        "the entry has {} bytes, more than the file may hold: its limit is {limit} bytes",
                        entry.payload_bytes()
                    ),
                };
                // What the key stood for before is no answer any more.
                batch.delete(key, *since_ms)?;
                return Ok(Applied::Told(Event::Rejected { entries: 1, reason }));
            }
            Op::Delete(key, count, at_ms) => told.push((count.clone(), batch.delete(key, *at_ms)?)),
            Op::Repair(key) => {
                let path = || self.options.path.clone();
                return Ok(if batch.repair(key)? {
                    Applied::Told(Event::IndexRebuilt { path: path() })
                } else {
                    Applied::Done
                });
            }
            Op::Clear(selection, count, at_ms) => told.push((count.clone(), batch.clear(selection, *at_ms)?)),
            Op::Clock => {}
            Op::Release(keys) => batch.release(keys.as_deref(), &self.owner)?,
        }
        Ok(Applied::Done)
    }

    /// Everything up to a change is in the file.
    fn written(&self, last: Option<u64>) {
        let mut queue = self.queue();
        queue.done = queue.done.max(last.unwrap_or_default());
        if planted(Planted::WrittenAllOfTheQueue) {
            queue.done = queue.last;
        }
        let done = queue.done;
        let count = queue.ops.iter().take_while(|(number, _)| *number <= done).count();
        let ops: Vec<_> = queue.ops.drain(..count).collect();
        let (mut bytes, mut puts) = (0, 0);
        for (number, op) in &ops {
            bytes += op.bytes();
            puts += usize::from(op.is_put());
            if let Op::Put(key, ..) | Op::Delete(key, ..) = op
                && queue.pending.get(key).is_some_and(|pending| pending.number == *number)
            {
                queue.pending.remove(key);
            }
        }
        queue.bytes = queue.bytes.saturating_sub(bytes);
        queue.puts = queue.puts.saturating_sub(puts);
        queue.hidden.clears.retain(|(number, _)| *number > done);
        drop(queue);
        self.counters.written.add(puts);
        self.progress.notify_all();
        drop(ops);
        self.moved(bytes);
        self.trim(MOVED);
    }

    /// Goes on without the file: for good if it is somebody else's, else for a while.
    fn suspend(&self, fault: Fault) {
        self.leave();
        let reason = fault.reason().to_owned();
        let foreign = matches!(fault, Fault::Foreign(_));
        // Told before anybody can see the consequences.
        if foreign {
            self.counters.errors.add(1);
            self.tell(|path| Event::StorageRefused { path, reason });
        } else {
            self.fails(&reason);
        }
        let watched = self.watch().is_ok();
        if !watched {
            self.give_up_watching();
        }
        let readable = matches!(fault, Fault::ReadOnly(_)) && watched;
        let now_ms = self.clock.wall_ms();
        let mut queue = self.queue();
        let waiting = std::mem::take(&mut queue.ops);
        queue.pending.clear();
        queue.hidden.clears.clear();
        (queue.puts, queue.bytes) = (0, 0);
        queue.touches.clear();
        let lost = waiting
            .into_iter()
            .filter_map(|(number, op)| queue.keep_tombstone(number, op, now_ms).then_some(()))
            .count();
        queue.lost += lost as u64;
        self.counters.lost.add(lost);
        queue.done = queue.last;
        queue.held_since = None;
        queue.trouble = None;
        queue.phase = if foreign {
            Phase::Off(fault.clone())
        } else if queue.stop.is_some() {
            // It was the last try.
            queue.ops.clear();
            Phase::Suspended { until_ms: u64::MAX, fault: fault.clone(), readable }
        } else {
            let until_ms = self.clock.steady_ms() + self.options.retry_after_ms;
            Phase::Suspended { until_ms, fault: fault.clone(), readable }
        };
        let failed = std::mem::take(&mut queue.calls);
        drop(queue);
        self.progress.notify_all();
        for mut call in failed {
            (call.work)(Err(&fault)).ok();
        }
    }
}
