//! Lookups in the file, by a few connections that are used in turn.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::super::entry::Entry;
use super::super::memory::Now;
use super::super::report::Event;
use super::super::store::{Fault, Reader, Row, Stored};
use super::queue::{Clearing, Op, Pending, Phase, Queue, covered};
use super::{Asked, Disk, OnDisk, Shared};
use crate::embedding::Key;

/// Connections that are kept for reading; more are opened when more threads read at once, and closed afterwards.
const READERS: usize = 4;

/// Rows whose use waits to be noted.
const TOUCHES: usize = 4096;

/// What a lookup finds before it reads the file.
struct Glance {
    found: Vec<OnDisk>,
    /// Places of the probes that are left.
    asked: Vec<usize>,
    clears: Vec<Clearing>,
}

/// How far somebody has followed the file.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    generation: u64,
    row: i64,
}

impl Disk {
    /// Looks keys up. What no longer is an answer is deleted.
    pub fn get(&self, probes: &[Asked], now: Now) -> Vec<OnDisk> {
        let mut queue = self.shared.queue();
        while queue.phase == Phase::Opening {
            queue = self.shared.wait(&self.shared.progress, queue);
        }
        let Glance { mut found, asked, clears } = self.glance(queue, probes, now);
        if !asked.is_empty() {
            let outcome = self.shared.read(|reader| self.look(reader, probes, &asked, &clears, now, &mut found));
            if let Err(fault) = outcome {
                self.shared.read_failed(fault);
            }
        }
        found
    }

    /// [`Disk::get`] for one, unless another thread or process would have to be waited for.
    pub fn get_now(&self, probe: &Asked, now: Now) -> Option<OnDisk> {
        let queue = self.shared.queue();
        if queue.phase == Phase::Opening {
            return None;
        }
        let probes = std::slice::from_ref(probe);
        let Glance { mut found, asked, clears } = self.glance(queue, probes, now);
        if !asked.is_empty() {
            let _using = self.shared.using.try_read().ok()?;
            let reader = self.shared.spare_reader()?;
            let outcome = self.look(&reader.1, probes, &asked, &clears, now, &mut found);
            self.shared.keep(reader);
            match outcome {
                Err(Fault::Busy(_)) => return None,
                Err(fault) => self.shared.read_failed(fault),
                Ok(()) => {}
            }
        }
        found.pop()
    }

    /// What is queued, and what is left to be read.
    fn glance(&self, mut queue: MutexGuard<Queue>, probes: &[Asked], now: Now) -> Glance {
        let mut glance = Glance { found: vec![OnDisk::Absent; probes.len()], asked: Vec::new(), clears: Vec::new() };
        let mut changed = Vec::new();
        for (at, (key, content)) in probes.iter().enumerate() {
            match queue.pending.get(key) {
                Some(Pending { entry: Some(entry), .. }) => {
                    glance.found[at] = judge(entry, content.as_ref(), now);
                    if glance.found[at] == OnDisk::Changed {
                        changed.push(*key);
                    }
                }
                Some(Pending { entry: None, .. }) => {}
                None => glance.asked.push(at),
            }
        }
        for key in changed {
            self.shared.enqueue(&mut queue, Op::Delete { key, only: None });
        }
        if queue.phase != Phase::Ready || queue.ended {
            glance.asked.clear();
        }
        glance.clears.clone_from(&queue.clears);
        glance
    }

    /// Reads what is left.
    fn look(
        &self,
        reader: &Reader,
        probes: &[Asked],
        asked: &[usize],
        clears: &[Clearing],
        now: Now,
        found: &mut [OnDisk],
    ) -> Result<(), Fault> {
        let mut rows = asked.iter();
        let mut after = Vec::new();
        let mut touches = Vec::new();
        let outcome = reader.get(asked.iter().map(|&at| &probes[at].0), |row| {
            let Some(&at) = rows.next() else { return };
            let (key, content) = &probes[at];
            found[at] = match row {
                Row::Absent => OnDisk::Absent,
                Row::Damaged => {
                    after.push(Op::Repair(*key));
                    OnDisk::Damaged
                }
                Row::Found(stored) if covered(clears, &stored.entry) => OnDisk::Absent,
                Row::Found(Stored { id, used_ms, checksum, entry }) => {
                    let verdict = judge(&Arc::new(entry), content.as_ref(), now);
                    if !matches!(verdict, OnDisk::Hit(_)) {
                        after.push(Op::Delete { key: *key, only: Some(checksum) });
                    } else if used_ms + self.shared.options.touch_after_ms <= now.wall_ms {
                        touches.push((id, now.wall_ms));
                    }
                    verdict
                }
            };
        });
        self.follow_up(after, touches);
        outcome
    }

    fn follow_up(&self, after: Vec<Op>, touches: Vec<(i64, u64)>) {
        let damaged = after.iter().filter(|op| matches!(op, Op::Repair(_))).count();
        // Without a limit nobody asks which entry was used last.
        let touches = if self.shared.options.max_bytes.is_some() { touches } else { Vec::new() };
        if after.is_empty() && touches.is_empty() {
            return;
        }
        let mut queue = self.shared.queue();
        for op in after {
            self.shared.enqueue(&mut queue, op);
        }
        for (id, used_ms) in touches {
            if queue.touches.len() < TOUCHES {
                queue.touches.insert(id, used_ms);
            }
        }
        self.shared.wake(&mut queue);
        drop(queue);
        if damaged > 0 {
            self.shared.counters.damaged.add(damaged);
            self.shared.unchecked.store(true, Ordering::Release);
            self.shared.tell(|path| Event::RowsDamaged { path, rows: damaged });
        }
    }

    /// Whether the file can be asked. Waits until it is opened.
    pub fn ready(&self) -> bool {
        let mut queue = self.shared.queue();
        while queue.phase == Phase::Opening {
            queue = self.shared.wait(&self.shared.progress, queue);
        }
        queue.phase == Phase::Ready && !queue.ended
    }

    /// Calls `each` with every entry of a space that is an answer and was written, by whatever process, since `seen`;
    /// if that is of no use any more, with all, and with those that are queued. Gives what has been seen now, `None` if the
    /// file could not be read.
    pub fn scan(&self, space: i64, seen: Seen, now: Now, mut each: impl FnMut(Key, Arc<Entry>)) -> Option<Seen> {
        let generation = self.shared.generation.load(Ordering::Acquire);
        let after = if seen.generation == generation { seen.row } else { 0 };
        let (waiting, clears) = {
            let queue = self.shared.queue();
            if queue.phase != Phase::Ready || queue.ended {
                return None;
            }
            // What is queued later is told to whoever follows.
            let waiting = queue.pending.iter().filter(|_| after == 0);
            let waiting = waiting.map(|(key, pending)| (*key, pending.entry.clone()));
            (waiting.collect::<HashMap<_, _>>(), queue.clears.clone())
        };
        for (key, entry) in &waiting {
            if let Some(entry) = entry
                && entry.space == space
                && entry.live(now.wall_ms)
            {
                each(*key, Arc::clone(entry));
            }
        }
        let outcome = self.shared.read(|reader| {
            reader.scan(space, after, |key, stored| {
                let entry = stored.entry;
                // What is queued is newer than its row.
                let old = || waiting.contains_key(&key) || self.shared.queue().pending.contains_key(&key);
                if entry.live(now.wall_ms) && !covered(&clears, &entry) && !old() {
                    each(key, Arc::new(entry));
                }
            })
        });
        let row = outcome.map_err(|fault| self.shared.read_failed(fault)).ok()?;
        Some(Seen { generation, row })
    }
}

fn judge(entry: &Arc<Entry>, content: Option<&[u8; 32]>, now: Now) -> OnDisk {
    if !entry.live(now.wall_ms) {
        OnDisk::Expired
    } else if !entry.matches(content) {
        OnDisk::Changed
    } else {
        OnDisk::Hit(Arc::clone(entry))
    }
}

impl Shared {
    pub(super) fn read<T>(&self, work: impl FnOnce(&Reader) -> Result<T, Fault>) -> Result<T, Fault> {
        let _using = self.using.read().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation.load(Ordering::Acquire);
        let reader = match self.spare_reader() {
            Some((_, reader)) => reader,
            None => Reader::open(&self.options.path, self.options.page_bytes / 2 / READERS)?,
        };
        reader.patient(true)?;
        let answer = work(&reader)?;
        reader.patient(false)?;
        self.keep((generation, reader));
        Ok(answer)
    }

    /// A reader of the file as it is now, and of which opening it is.
    pub(super) fn spare_reader(&self) -> Option<(u64, Reader)> {
        let generation = self.generation.load(Ordering::Acquire);
        self.readers().pop().filter(|(of, _)| *of == generation)
    }

    pub(super) fn keep(&self, reader: (u64, Reader)) {
        let mut readers = self.readers();
        if readers.len() < READERS && self.generation.load(Ordering::Acquire) == reader.0 {
            readers.push(reader);
        }
    }

    pub(super) fn readers(&self) -> MutexGuard<'_, Vec<(u64, Reader)>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read_failed(&self, fault: Fault) {
        self.counters.errors.add(1);
        if let Fault::Broken(reason) = fault {
            self.queue().broken = Some(reason);
            self.work.notify_one();
        }
    }
}
