//! Lookups in the file, by a few connections that are used in turn.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::super::entry::Entry;
use super::super::memory::Now;
use super::super::report::Event;
use super::super::store::{Fault, Identity, Reader, Row, Stored};
use super::queue::{Hidden, Op, Pending, Phase, Queue, Trouble};
use super::{Asked, Disk, LOOK_MS, OnDisk, Shared};
use crate::embedding::Key;
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering;

/// Connections that are kept for reading; more are opened when more threads read at once, and closed afterwards.
const READERS: usize = 4;

/// Rows whose use waits to be noted.
const TOUCHES: usize = 4096;

/// What a lookup finds before it reads the file.
struct Glance {
    found: Vec<OnDisk>,
    /// Places of the probes that are left.
    asked: Vec<usize>,
    hidden: Hidden,
}

/// How much later it must be before a lookup that finds something too old has the time noted again.
const NOTE_AFTER_MS: u64 = 60_000;

/// What follows from what was read.
#[derive(Default)]
struct After {
    damaged: Vec<Key>,
    changed: Vec<(Key, Arc<Entry>)>,
    touches: Vec<(i64, u64)>,
    expired: bool,
}

/// How far somebody has followed the file.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    generation: u64,
    row: i64,
}

/// Whether a lookup counts as use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Answer,
    Look,
}

impl Disk {
    /// Looks keys up. Changes no entry of the file. One that is asked for with another content than its own is no answer for
    /// this cache any more.
    pub fn get(&self, probes: &[Asked], purpose: Purpose, now: Now) -> Vec<OnDisk> {
        let mut queue = self.shared.opened();
        let Glance { mut found, asked, hidden } = self.shared.glance(&mut queue, probes, purpose, now);
        drop(queue);
        if !asked.is_empty() {
            let look = |reader: &Reader| self.look(reader, probes, &asked, &hidden, purpose, now, &mut found);
            if let Err(fault) = self.shared.read(look) {
                self.shared.read_failed(fault);
            }
        }
        found
    }

    /// [`Disk::get`] for one answer, unless another thread or process would have to be waited for.
    pub fn get_now(&self, probe: &Asked, now: Now) -> Option<OnDisk> {
        let mut queue = self.shared.queue();
        if queue.phase == Phase::Opening {
            return None;
        }
        let probes = std::slice::from_ref(probe);
        let Glance { mut found, asked, hidden } = self.shared.glance(&mut queue, probes, Purpose::Answer, now);
        drop(queue);
        if !asked.is_empty() {
            let _using = self.shared.using.try_read().ok()?;
            let reader = self.shared.spare_reader()?;
            let outcome = self.look(&reader.1, probes, &asked, &hidden, Purpose::Answer, now, &mut found);
            match outcome {
                Ok(()) => self.shared.keep(reader),
                Err(Fault::Busy(_)) => return None,
                Err(fault) => self.shared.read_failed(fault),
            }
        }
        found.pop()
    }

    /// Reads what is left.
    #[expect(clippy::too_many_arguments, reason = "the parts of a lookup, which only its two callers have")]
    fn look(
        &self,
        reader: &Reader,
        probes: &[Asked],
        asked: &[usize],
        hidden: &Hidden,
        purpose: Purpose,
        now: Now,
        found: &mut [OnDisk],
    ) -> Result<(), Fault> {
        let mut rows = asked.iter();
        let mut after = After::default();
        let doubtful = self.shared.doubtful(reader)?;
        let outcome = reader.get(asked.iter().map(|&at| &probes[at].0), |row| {
            let Some(&at) = rows.next() else { return };
            let (key, content) = &probes[at];
            found[at] = match row {
                Row::Absent => OnDisk::Absent,
                Row::Damaged => {
                    after.damaged.push(*key);
                    OnDisk::Damaged
                }
                Row::Found(stored) if hidden.covers(key, &stored.entry) => OnDisk::Absent,
                Row::Found(Stored { id, used_ms, entry }) => {
                    let entry = Arc::new(entry);
                    let verdict = judge(&entry, content.as_ref(), now);
                    let old = used_ms + self.shared.options.touch_after_ms <= now.wall_ms;
                    match verdict {
                        // Without a limit nobody asks which entry was used last.
                        OnDisk::Hit(_) if old && self.shared.options.max_bytes.is_some() => {
                            after.touches.push((id, now.wall_ms));
                        }
                        OnDisk::Changed => after.changed.push((*key, entry)),
                        OnDisk::Expired => after.expired = true,
                        _ => {}
                    }
                    match verdict {
                        OnDisk::Hit(entry) if id <= doubtful => OnDisk::Doubtful(entry),
                        verdict => verdict,
                    }
                }
            };
        });
        self.follow_up(after, purpose, now);
        outcome
    }

    fn follow_up(&self, after: After, purpose: Purpose, now: Now) {
        let After { damaged, mut changed, mut touches, expired } = after;
        if purpose == Purpose::Look {
            changed.clear();
            touches.clear();
        }
        // What was too old once stays so, if somebody sets the clock back.
        let noted_ms = self.shared.noted_ms.load(Ordering::Acquire);
        let note = expired && now.wall_ms > noted_ms.saturating_add(NOTE_AFTER_MS);
        if damaged.is_empty() && changed.is_empty() && touches.is_empty() && !note {
            return;
        }
        let rows = damaged.len();
        let mut queue = self.shared.queue();
        if note {
            self.shared.noted_ms.store(now.wall_ms, Ordering::Release);
            self.shared.enqueue(&mut queue, Op::Clock);
        }
        for key in damaged {
            self.shared.enqueue(&mut queue, Op::Repair(key));
        }
        for (key, entry) in changed {
            queue.hidden.forget(key, &entry);
        }
        for (id, used_ms) in touches {
            if queue.touches.len() < TOUCHES {
                queue.touches.insert(id, used_ms);
            }
        }
        self.shared.wake(&mut queue);
        drop(queue);
        if rows > 0 {
            self.shared.counters.damaged.add(rows);
            self.shared.unchecked.store(true, Ordering::Release);
            self.shared.tell(|path| Event::RowsDamaged { path, rows });
        }
    }

    /// Whether the file can be asked. Waits until it is opened.
    pub fn ready(&self) -> bool {
        self.shared.opened().readable()
    }

    /// Which state of the file memory's entries must be copies of. `None`: somebody has to look first, and to wait for that.
    pub fn epoch(&self, now: Now) -> Option<u32> {
        let looked = now.steady_ms.saturating_sub(self.shared.looked_ms.load(Ordering::Acquire)) < LOOK_MS;
        (looked || self.shared.look(now.steady_ms)).then(|| self.shared.epoch.load(Ordering::Acquire))
    }

    /// The one that was known last.
    pub fn known_epoch(&self) -> u32 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    /// The entries of a space that wait to be written and are answers.
    pub fn queued(&self, space: i64, now: Now) -> Vec<Arc<Entry>> {
        let queue = self.shared.queue();
        let entries = queue.pending.iter().filter_map(|(key, pending)| Some((key, pending.entry.as_ref()?)));
        let answers = entries.filter(|(key, entry)| {
            entry.space == space && entry.live(now.wall_ms) && !queue.hidden.forgets(key, entry)
        });
        answers.map(|(_, entry)| Arc::clone(entry)).collect()
    }

    /// Calls `each` with every entry of a space that is an answer and was written, by whatever process, since `seen`;
    /// if that is of no use any more, with all, and with those that are queued. Gives what has been seen now, `None` if the
    /// file could not be read.
    pub fn scan(&self, space: i64, seen: Seen, now: Now, mut each: impl FnMut(Key, Arc<Entry>)) -> Option<Seen> {
        let generation = self.shared.generation.load(Ordering::Acquire);
        let after = if seen.generation == generation { seen.row } else { 0 };
        let (waiting, hidden) = {
            let queue = self.shared.queue();
            if !queue.readable() {
                return None;
            }
            // What is queued later is told to whoever follows.
            let waiting = queue.pending.iter().filter(|_| after == 0);
            let waiting = waiting.map(|(key, pending)| (*key, pending.entry.clone()));
            (waiting.collect::<HashMap<_, _>>(), queue.hidden.clone())
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
                if entry.live(now.wall_ms) && !hidden.covers(&key, &entry) && !old() {
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
    /// What is queued, and what is left to be read.
    fn glance(&self, queue: &mut Queue, probes: &[Asked], purpose: Purpose, now: Now) -> Glance {
        let mut glance = Glance { found: Vec::new(), asked: Vec::new(), hidden: queue.hidden.clone() };
        for (at, (key, content)) in probes.iter().enumerate() {
            glance.found.push(match queue.pending.get(key) {
                Some(Pending { entry: Some(entry), .. }) if queue.hidden.forgets(key, entry) => OnDisk::Absent,
                Some(Pending { entry: Some(entry), .. }) => {
                    let verdict = judge(entry, content.as_ref(), now);
                    if verdict == OnDisk::Changed && purpose == Purpose::Answer {
                        queue.hidden.forget(*key, &Arc::clone(entry));
                    }
                    verdict
                }
                Some(Pending { entry: None, .. }) => OnDisk::Unwritten,
                None => {
                    glance.asked.push(at);
                    OnDisk::Unread
                }
            });
        }
        if !queue.readable() {
            glance.asked.clear();
        }
        if !glance.asked.is_empty() && !std::mem::replace(&mut queue.read, true) {
            self.work.notify_one();
        }
        glance
    }

    /// The last of the rows that are doubtful. Those of another file all are.
    fn doubtful(&self, reader: &Reader) -> Result<i64, Fault> {
        let mut doubt = self.doubt.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation.load(Ordering::Acquire);
        let again =
            self.doubted.swap(false, Ordering::AcqRel) || doubt.is_some_and(|seen| seen.generation != generation);
        if again {
            let row = reader.last().inspect_err(|_| self.doubted.store(true, Ordering::Release))?;
            *doubt = Some(Seen { generation, row });
        }
        Ok(doubt.map_or(0, |seen| seen.row))
    }

    pub(super) fn read<T>(&self, work: impl FnOnce(&Reader) -> Result<T, Fault>) -> Result<T, Fault> {
        let _using = self.using.read().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation.load(Ordering::Acquire);
        // Once it is known that another program has the file to itself, nobody waits again to learn that.
        let patient = !self.failing.load(Ordering::Acquire);
        let reader = match self.spare_reader() {
            Some((_, reader)) => reader,
            None => Reader::open(&self.options.path, self.options.page_bytes / 2 / READERS, patient)?,
        };
        reader.patient(patient)?;
        let answer = work(&reader)?;
        reader.patient(false)?;
        self.keep((generation, reader));
        if !patient && self.queue().phase == Phase::Ready {
            self.works();
        }
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

    /// Looks whether others have changed the file, if nobody has to be waited for. Whether it is known now.
    pub(super) fn look(&self, now_ms: u64) -> bool {
        let Ok(mut watch) = self.watch.try_lock() else { return false };
        let Some((reader, file)) = &*watch else {
            // A file that is not in use tells nothing, and nobody gets anything from it.
            let known = !self.unwatched.load(Ordering::Acquire);
            if known {
                self.looked_ms.store(now_ms, Ordering::Release);
            }
            return known;
        };
        let Ok(_using) = self.using.try_read() else { return false };
        // What is being committed may be counted already, or not yet.
        let Some(own) = self.own.try_lock() else { return false };
        let trouble = match reader.transactions() {
            Ok(_) if !reader.is_of(&self.options.path, file) => Some(Trouble::Moved),
            Ok(transactions) => {
                let others = transactions.wrapping_sub(*own);
                if self.others.swap(others, Ordering::AcqRel) != others {
                    self.epoch.fetch_add(1, Ordering::AcqRel);
                }
                self.looked_ms.store(now_ms, Ordering::Release);
                return true;
            }
            Err(Fault::Busy(_)) => None,
            Err(fault) => Some(Trouble::Fault(fault)),
        };
        drop(own);
        if let Some(trouble) = trouble {
            self.unwatch(&mut watch);
            match trouble {
                Trouble::Fault(fault) => self.read_failed(fault),
                moved => self.troubles(moved),
            }
        }
        false
    }

    /// Lets go of the file. Until it is watched again, or given up, nobody knows whether memory's copies are still right.
    pub(super) fn unwatch(&self, watch: &mut Option<(Reader, Identity)>) {
        if watch.take().is_some() {
            self.unwatched.store(true, Ordering::Release);
        }
    }

    /// Begins to look for what others do to the file, which was just opened. Of what they did before, memory knows nothing.
    pub(super) fn watch(&self) -> Result<(), Fault> {
        let reader = Reader::open(&self.options.path, 0, true)?;
        reader.patient(false)?;
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = self.own.lock();
        let (transactions, file) = (reader.transactions()?, Identity::of(&self.options.path)?);
        let known = self.others.swap(transactions, Ordering::AcqRel).wrapping_add(std::mem::take(&mut *own));
        // A file that was just begun takes nothing back.
        if transactions != known && transactions > 0 {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        *watch = Some((reader, file));
        self.unwatched.store(false, Ordering::Release);
        Ok(())
    }

    /// Goes on without the file. What memory has of it nobody can compare with it any more; what is set from now on is no copy.
    pub(super) fn give_up_watching(&self) {
        if self.unwatched.swap(false, Ordering::AcqRel) {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn read_failed(&self, fault: Fault) {
        if matches!(fault, Fault::Busy(_)) {
            return self.fails(fault.reason());
        }
        self.counters.errors.add(1);
        self.troubles(Trouble::Fault(fault));
    }

    fn troubles(&self, trouble: Trouble) {
        self.queue().trouble.get_or_insert(trouble);
        self.work.notify_one();
    }
}
