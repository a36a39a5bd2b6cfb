//! Lookups: memory first, then the disk for what memory does not have, then the server for what that does not have either.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::disk::{Asked, OnDisk, Purpose};
use super::entry::Entry;
use super::key_hash::{Place, Probe};
use super::memory::{Found, Now};
use super::report::{EvictionCause, MissCause};
use super::shared::Shared;
use super::{EmbeddingCache, lock};
use crate::embedding::{Key, Modality};

/// Lookups whose way to the main memory is shared. See [`Memory::get_some`](super::memory::Memory::get_some).
const TOGETHER: usize = 64;

/// A lookup of many on its way through memory.
pub struct Recalling {
    answers: Vec<Option<Arc<Entry>>>,
    open: Vec<Unanswered>,
    /// How many were answered, by [`Modality::ALL`]. Texts are not counted here.
    others: [usize; Modality::ALL.len()],
    started: Instant,
    now: Now,
}

/// What memory alone can say.
pub enum Recall {
    /// All of it: an answer or `None` for each probe.
    Done(Vec<Option<Arc<Entry>>>),
    /// A tier below must be asked: [`EmbeddingCache::settle`] does, and blocks.
    AskDisk(Open),
}

/// A lookup on its way from memory to the tiers below.
pub struct Open {
    answers: Vec<Option<Arc<Entry>>>,
    open: Vec<Unanswered>,
    started: Instant,
    /// [`Others::epoch`](super::others::Others::epoch) when it began.
    epoch: u64,
    /// Whether an answer is the server's.
    shared: bool,
}

struct Unanswered {
    at: usize,
    cause: MissCause,
    /// Where memory would have it, and [`Memory::version`](super::memory::Memory::version) of that.
    place: Place,
    version: u32,
    asked: Asked,
    fixed: bool,
    /// What memory has, which is an answer only where the file has nothing newer.
    stale: Option<Arc<Entry>>,
}

impl EmbeddingCache {
    /// The answer, from memory or else from disk. May wait for the disk.
    pub fn lookup<'a>(&self, probe: impl Into<Probe<'a>>) -> Option<Arc<Entry>> {
        self.recall_one(&probe.into()).unwrap_or_else(|open| self.settle(open).pop().flatten())
    }

    /// The answers to many probes, in their order. May wait for the disk, once for all.
    pub fn lookup_many<'a, P: Into<Probe<'a>>>(&self, probes: impl IntoIterator<Item = P>) -> Vec<Option<Arc<Entry>>> {
        match self.recall(probes) {
            Recall::Done(answers) => answers,
            Recall::AskDisk(open) => self.settle(open),
        }
    }

    /// Looks into memory only. Never waits.
    pub fn recall<'a, P: Into<Probe<'a>>>(&self, probes: impl IntoIterator<Item = P>) -> Recall {
        let mut recalling = self.recalling();
        self.recall_more(&mut recalling, probes);
        self.recalled(recalling)
    }

    /// Begins a lookup of many that are not all at hand at once: [`EmbeddingCache::recall_more`] takes some,
    /// [`EmbeddingCache::recalled`] ends it.
    pub fn recalling(&self) -> Recalling {
        Recalling {
            answers: Vec::new(),
            open: Vec::new(),
            others: Default::default(),
            started: Instant::now(),
            now: self.now(),
        }
    }

    /// See [`EmbeddingCache::recalling`]. Never waits.
    pub fn recall_more<'a, P: Into<Probe<'a>>>(&self, recalling: &mut Recalling, probes: impl IntoIterator<Item = P>) {
        let Recalling { answers, open, others, now, .. } = recalling;
        let mut probes = probes.into_iter().map(Into::into);
        answers.reserve(probes.size_hint().0);
        let mut some: Vec<Probe> = Vec::with_capacity(TOGETHER);
        let mut found = Vec::with_capacity(TOGETHER);
        loop {
            some.clear();
            some.extend(probes.by_ref().take(TOGETHER));
            if some.is_empty() {
                break;
            }
            self.memory.get_some(&some, *now, &mut found);
            for (probe, found) in some.iter().zip(found.drain(..)) {
                let answer = match self.answer(found) {
                    Err(why) if self.asks_below(1) => {
                        open.push(self.unanswered(probe, answers.len(), why));
                        answers.push(None);
                        continue;
                    }
                    answer => alone(answer),
                };
                match answer {
                    Ok(_) if probe.modality() != Modality::Text => others[probe.modality() as usize] += 1,
                    Ok(_) => {}
                    Err(cause) => self.counters.missed(cause, probe.modality()),
                }
                answers.push(answer.ok());
            }
        }
    }

    /// See [`EmbeddingCache::recalling`].
    pub fn recalled(&self, recalling: Recalling) -> Recall {
        let Recalling { answers, open, others, started, now } = recalling;
        let found = answers.iter().flatten().count();
        self.counters.memory_hits.add(found);
        Modality::ALL.iter().zip(others).for_each(|(modality, count)| self.counters.hits_of(*modality, count));
        if open.is_empty() {
            self.counters.took(started.elapsed(), answers.len(), found, now.wall_ms);
            return Recall::Done(answers);
        }
        Recall::AskDisk(self.opened(answers, open, started))
    }

    /// [`EmbeddingCache::recall`] for one: the answer, `None` for a miss, or a lookup to be settled.
    pub fn recall_one(&self, probe: &Probe) -> Result<Option<Arc<Entry>>, Open> {
        self.recall_or_why(probe).map(Result::ok)
    }

    /// [`EmbeddingCache::recall_one`] that says why there is no answer.
    pub fn recall_or_why(&self, probe: &Probe) -> Result<Result<Arc<Entry>, MissCause>, Open> {
        let started = Instant::now();
        let now = self.now();
        let answer = match self.answer(self.memory.get(probe, now)) {
            Err(why) if self.asks_below(1) => {
                let open = vec![self.unanswered(probe, 0, why)];
                return Err(self.opened(vec![None], open, started));
            }
            answer => alone(answer),
        };
        match answer {
            Ok(_) => {
                self.counters.memory_hits.add(1);
                self.counters.hits_of(probe.modality(), 1);
            }
            Err(cause) => self.counters.missed(cause, probe.modality()),
        }
        self.counters.took(started.elapsed(), 1, usize::from(answer.is_ok()), now.wall_ms);
        Ok(answer)
    }

    fn opened(&self, answers: Vec<Option<Arc<Entry>>>, open: Vec<Unanswered>, started: Instant) -> Open {
        if self.shared.is_some() {
            self.remember(open.iter().map(|unanswered| (unanswered.asked.0, unanswered.place.name)));
        }
        Open { answers, open, started, epoch: self.others.epoch(), shared: false }
    }

    /// Whether a tier below can be asked. If there is one that cannot, counts what it is not asked.
    fn asks_below(&self, count: usize) -> bool {
        let shared = self.shared.as_ref();
        let asks = self.disk.is_some() || shared.is_some_and(Shared::asks);
        if !asks {
            shared.into_iter().for_each(|shared| shared.skip(count));
        }
        asks
    }

    fn unanswered(&self, probe: &Probe, at: usize, (cause, stale): (MissCause, Option<Arc<Entry>>)) -> Unanswered {
        let asked = (probe.key(), probe.content_hash());
        let place = probe.place();
        let version = self.memory.version(place.name);
        Unanswered { at, cause, place, version, asked, fixed: probe.is_fixed(), stale }
    }

    /// Answers what memory could not. Waits for the disk and the server.
    pub fn settle(&self, mut open: Open) -> Vec<Option<Arc<Entry>>> {
        self.settle_all(&mut open);
        open.answers
    }

    /// [`EmbeddingCache::settle`] for a lookup of one: the answer, and whether it is the server's; else why there is none.
    pub fn settle_or_why(&self, mut open: Open) -> Result<(Arc<Entry>, bool), MissCause> {
        self.settle_all(&mut open);
        let cause = open.open.pop().map_or(MissCause::Absent, |unanswered| unanswered.cause);
        let shared = open.shared;
        open.answers.pop().flatten().map(|entry| (entry, shared)).ok_or(cause)
    }

    fn settle_all(&self, open: &mut Open) {
        let now = self.now();
        let asked: Vec<Asked> = open.open.iter().map(|unanswered| unanswered.asked).collect();
        let disk = self.disk.as_ref();
        let mut found = disk.map_or_else(Vec::new, |disk| disk.get(&asked, Purpose::Answer, now));
        found.resize(asked.len(), OnDisk::Unwritten);
        let shared = self.ask_shared(open, &asked, &mut found, now, |shared, wanted| Some(shared.get(wanted, now)));
        self.settled(open, found, shared.unwrap_or_default(), now);
        // What the server had is on its way to the file.
        if open.shared {
            self.await_room();
        }
    }

    /// Asks the server for what the disk does not have: the answers by their place in `asked`. In `found`, they are misses.
    /// `None`: it was not asked, or in vain.
    fn ask_shared(
        &self,
        open: &Open,
        asked: &[Asked],
        found: &mut [OnDisk],
        now: Now,
        ask: impl FnOnce(&Shared, &[Asked]) -> Option<Vec<OnDisk>>,
    ) -> Option<Vec<(usize, Arc<Entry>)>> {
        let shared = self.shared.as_ref()?;
        for (found, _) in found.iter_mut().zip(&open.open).filter(|(_, unanswered)| unanswered.fixed) {
            believe(found);
        }
        // What memory has, and nobody can check, is newer than what the server has.
        let is_left = |at: &usize| match found[*at] {
            OnDisk::Hit(_) => false,
            OnDisk::Unread | OnDisk::Unwritten => self.disk.is_none() || open.open[*at].stale.is_none(),
            _ => true,
        };
        let left: Vec<usize> = (0..asked.len()).filter(is_left).collect();
        if left.is_empty() {
            return Some(Vec::new());
        }
        let wanted: Vec<Asked> = left.iter().map(|&at| asked[at]).collect();
        let (mut answers, mut unknown) = (Vec::new(), Vec::new());
        for (at, answer) in left.into_iter().zip(ask(shared, &wanted)?) {
            let doubtful = match &found[at] {
                OnDisk::Doubtful(row) => Some(Arc::clone(row)),
                _ => None,
            };
            match (answer, doubtful) {
                (OnDisk::Unread, Some(row)) => found[at] = OnDisk::Hit(row),
                (OnDisk::Absent, Some(row)) => unknown.push((at, row)),
                (OnDisk::Hit(entry), _) if self.is_of_length(&entry) => answers.push((at, entry)),
                (OnDisk::Hit(_), _) => found[at] = OnDisk::Damaged,
                (answer @ (OnDisk::Unread | OnDisk::Absent), _)
                    if self.holds_alone(&answer) && open.open[at].stale.is_some() =>
                {
                    // It need not be compared again with a server that has lost what it had.
                    if let (OnDisk::Absent, Unanswered { place, version, stale: Some(entry), .. }) =
                        (answer, &open.open[at])
                    {
                        self.displaced(&self.memory.promote(*place, entry, now, *version));
                    }
                }
                // The disk's reason is the better one.
                (answer, _) if !matches!(found[at], OnDisk::Expired | OnDisk::Changed | OnDisk::Damaged) => {
                    found[at] = answer;
                }
                _ => {}
            }
        }
        let deleted = self.deleted(unknown.iter().map(|(at, row)| (asked[*at].0, &**row)));
        for ((at, row), deleted) in unknown.into_iter().zip(deleted) {
            found[at] = match (deleted, &self.disk) {
                (Some(at_ms), Some(disk)) => {
                    disk.delete_before(asked[at].0, at_ms);
                    OnDisk::Absent
                }
                // The server has let go of it, or never had it.
                _ => OnDisk::Hit(row),
            };
        }
        Some(answers)
    }

    /// When other machines have deleted rows that the server does not have, if they did, as far as it remembers. Waits for it.
    fn deleted<'a>(&self, rows: impl Iterator<Item = (Key, &'a Entry)>) -> Vec<Option<u64>> {
        let (keys, made): (Vec<Key>, Vec<u64>) = rows.map(|(key, row)| (key, row.created_ms)).unzip();
        let Some(shared) = self.shared.as_ref().filter(|_| !keys.is_empty()) else { return vec![None; keys.len()] };
        let deleted = shared.deleted(&keys).into_iter().zip(made);
        deleted.map(|(at_ms, made_ms)| at_ms.filter(|at_ms| made_ms <= *at_ms)).collect()
    }

    /// Whether a vector is as long as all others of its space, as far as that is known.
    fn is_of_length(&self, entry: &Entry) -> bool {
        let dimensions = self.dimensions.read().unwrap_or_else(PoisonError::into_inner);
        let known = dimensions.get(&entry.space);
        entry.vector.is_empty() || known.is_none_or(|(length, _)| *length == entry.vector.len())
    }

    /// [`EmbeddingCache::settle`] for a lookup of one, if that is possible without waiting for another thread or
    /// process: only for the file's pages, where the system does not have them at hand, and for a server that is near.
    pub fn settle_now(&self, mut open: Open) -> Result<Option<Arc<Entry>>, Open> {
        let now = self.now();
        let [unanswered] = &open.open[..] else { return Err(open) };
        let asked = [unanswered.asked];
        let found = self.disk.as_ref().map_or(Some(OnDisk::Unwritten), |disk| disk.get_now(&asked[0], now));
        let Some(found) = found.filter(|_| self.shared.is_none() || self.has_room()) else { return Err(open) };
        let mut found = vec![found];
        let shared = match self.shared {
            None => Vec::new(),
            // Takes more than one answer.
            Some(_) if matches!(found[..], [OnDisk::Doubtful(_)]) && !unanswered.fixed => return Err(open),
            Some(_) => {
                let ask = |shared: &Shared, wanted: &[Asked]| shared.get_now(wanted, now);
                match self.ask_shared(&open, &asked, &mut found, now, ask) {
                    Some(shared) => shared,
                    None => return Err(open),
                }
            }
        };
        self.settled(&mut open, found, shared, now);
        Ok(open.answers.pop().flatten())
    }

    /// What the server has found is kept above, unless it was changed there meanwhile.
    fn keep(&self, open: &[Unanswered], shared: &[(usize, Arc<Entry>)], epoch: u64) {
        if shared.is_empty() {
            return;
        }
        let now = self.now();
        let changing = lock(&self.changing);
        if self.others.epoch() != epoch {
            return;
        }
        let unchanged = |(at, _): &&(usize, Arc<Entry>)| self.memory.version(open[*at].place.name) == open[*at].version;
        if let Some(disk) = &self.disk {
            let age_ms = |entry: &Entry| now.wall_ms.saturating_sub(entry.created_ms);
            let kept = shared.iter().filter(unchanged);
            disk.put(kept.map(|(at, entry)| (open[*at].asked.0, Arc::clone(entry), age_ms(entry))));
        }
        let promote = |(at, entry): &(usize, Arc<Entry>)| {
            let Unanswered { place, version, .. } = open[*at];
            self.memory.promote(place, entry, now, version)
        };
        let displaced: Vec<_> = shared.iter().map(promote).collect();
        // Now that memory has them, their names are not forgotten.
        self.remember(shared.iter().map(|(at, _)| (open[*at].asked.0, open[*at].place.name)));
        drop(changing);
        displaced.iter().for_each(|displaced| self.displaced(displaced));
    }

    /// What the disk has found is kept in memory, unless it was changed meanwhile.
    fn bring_up(&self, unanswered: &Unanswered, entry: &Arc<Entry>, epoch: u64, now: Now) {
        let Unanswered { place, version, asked: (key, _), .. } = *unanswered;
        let changing = self.shared.is_some().then(|| lock(&self.changing));
        if changing.is_some() && self.others.epoch() != epoch {
            return;
        }
        let displaced = self.memory.promote(place, entry, now, version);
        if changing.is_some() {
            self.remember([(key, place.name)].into_iter());
        }
        drop(changing);
        self.displaced(&displaced);
    }

    /// What the disk or the server has found is the answer; what is still open afterwards has none. `shared`: by place.
    fn settled(&self, open: &mut Open, found: Vec<OnDisk>, shared: Vec<(usize, Arc<Entry>)>, now: Now) {
        self.keep(&open.open, &shared, open.epoch);
        self.counters.shared_hits.add(shared.len());
        open.shared = !shared.is_empty();
        let (mut found, mut bytes) = (found.into_iter().enumerate(), 0);
        let mut shared = shared.into_iter().peekable();
        open.open.retain_mut(|unanswered| {
            let Unanswered { at, place, version, .. } = *unanswered;
            let (nth, found) = found.next().unwrap_or((usize::MAX, OnDisk::Unread));
            if let Some((_, entry)) = shared.next_if(|(place, _)| *place == nth) {
                self.counters.hits_of(place.modality, 1);
                open.answers[at] = Some(entry);
                return false;
            }
            if unanswered.stale.is_some() && !matches!(found, OnDisk::Hit(_) | OnDisk::Unread | OnDisk::Unwritten) {
                self.memory.remove_stale(place.name, version);
            }
            unanswered.cause = match found {
                OnDisk::Hit(entry) | OnDisk::Doubtful(entry) => {
                    self.bring_up(unanswered, &entry, open.epoch, now);
                    bytes += entry.payload_bytes();
                    self.counters.disk_hits.add(1);
                    self.counters.hits_of(place.modality, 1);
                    open.answers[at] = Some(entry);
                    return false;
                }
                OnDisk::Expired => MissCause::Expired,
                OnDisk::Changed => MissCause::Changed,
                OnDisk::Damaged => MissCause::Damaged,
                OnDisk::Unwritten => {
                    open.answers[at] = unanswered.stale.take();
                    if open.answers[at].is_some() {
                        self.counters.memory_hits.add(1);
                        self.counters.hits_of(place.modality, 1);
                        return false;
                    }
                    unanswered.cause
                }
                // What memory had is the better reason. Where the file cannot be asked, others may have written something newer.
                OnDisk::Absent | OnDisk::Unread => unanswered.cause,
            };
            true
        });
        if let Some(disk) = &self.disk {
            disk.moved(bytes);
        }
        for unanswered in &open.open {
            self.counters.missed(unanswered.cause, unanswered.place.modality);
        }
        let requests = open.answers.len();
        self.counters.took(open.started.elapsed(), requests, requests - open.open.len(), now.wall_ms);
    }

    /// What memory has found, and what follows from that.
    fn answer(&self, found: Found) -> Result<Arc<Entry>, (MissCause, Option<Arc<Entry>>)> {
        match found {
            Found::Hit(entry) => Ok(entry),
            Found::Absent => Err((MissCause::Absent, None)),
            Found::Stale(entry) => Err((MissCause::Absent, Some(entry))),
            Found::Expired => {
                self.left(EvictionCause::Expired, 1);
                Err((MissCause::Expired, None))
            }
            Found::Changed => {
                self.left(EvictionCause::Explicit, 1);
                Err((MissCause::Changed, None))
            }
        }
    }

    /// What memory has. Counts as no use and in no statistics; never waits.
    pub fn peek<'a>(&self, probe: impl Into<Probe<'a>>) -> Option<Arc<Entry>> {
        self.memory.peek(&probe.into(), self.now())
    }

    /// Whether a lookup would be answered. Counts as no use and in no statistics. May wait for the disk.
    pub fn contains<'a>(&self, probe: impl Into<Probe<'a>>) -> bool {
        self.glance(probe).is_some()
    }

    /// What a lookup would answer. Counts as no use and in no statistics. May wait for the disk and the server.
    pub fn glance<'a>(&self, probe: impl Into<Probe<'a>>) -> Option<Arc<Entry>> {
        self.glance_many([probe]).pop().flatten()
    }

    /// [`EmbeddingCache::glance`] for many. Waits once for all.
    pub fn glance_many<'a, P: Into<Probe<'a>>>(&self, probes: impl IntoIterator<Item = P>) -> Vec<Option<Arc<Entry>>> {
        let (probes, now): (Vec<Probe>, Now) = (probes.into_iter().map(Into::into).collect(), self.now());
        let mut found: Vec<_> = probes.iter().map(|probe| self.memory.peek(probe, now)).collect();
        let left = |found: &[Option<Arc<Entry>>]| -> (Vec<usize>, Vec<Asked>) {
            let left = (0..found.len()).filter(|at| found[*at].is_none());
            left.map(|at| (at, (probes[at].key(), probes[at].content_hash()))).unzip()
        };
        let mut doubtful = HashMap::new();
        if let Some(disk) = self.disk.as_ref().filter(|_| found.contains(&None)) {
            let (places, asked) = left(&found);
            for (at, answer) in places.into_iter().zip(disk.get(&asked, Purpose::Look, now)) {
                found[at] = match answer {
                    OnDisk::Doubtful(entry) if self.shared.is_some() && !probes[at].is_fixed() => {
                        doubtful.insert(at, entry);
                        None
                    }
                    OnDisk::Hit(entry) | OnDisk::Doubtful(entry) => Some(entry),
                    OnDisk::Unwritten => self.memory.peek_alone(&probes[at], now),
                    _ => None,
                };
            }
        }
        if let Some(shared) = &self.shared {
            let (places, asked) = left(&found);
            let mut unknown = Vec::new();
            for (at, answer) in places.into_iter().zip(shared.look(&asked, now)) {
                found[at] = match (answer, doubtful.remove(&at)) {
                    (OnDisk::Hit(entry), _) if self.is_of_length(&entry) => Some(entry),
                    (OnDisk::Unread, Some(row)) => Some(row),
                    (OnDisk::Absent, Some(row)) => {
                        unknown.push((at, probes[at].key(), row));
                        None
                    }
                    (answer, _) if self.holds_alone(&answer) => self.memory.peek_alone(&probes[at], now),
                    _ => None,
                };
            }
            let deleted = self.deleted(unknown.iter().map(|(_, key, row)| (*key, &**row)));
            for ((at, _, row), deleted) in unknown.into_iter().zip(deleted) {
                found[at] = deleted.is_none().then_some(row);
            }
        }
        found
    }

    /// Counts as a use of what memory has, and in no statistics; never waits.
    pub fn use_again<'a>(&self, probe: impl Into<Probe<'a>>) {
        let (probe, now) = (probe.into(), self.now());
        if self.memory.peek(&probe, now).is_some() {
            self.memory.get(&probe, now);
        }
    }
}

/// A row that nobody knows anything newer of is an answer.
fn believe(found: &mut OnDisk) {
    if let OnDisk::Doubtful(entry) = found {
        *found = OnDisk::Hit(Arc::clone(entry));
    }
}

/// What memory says where nobody below can be asked: nor can anybody say that a copy is none any more.
fn alone(answer: Result<Arc<Entry>, (MissCause, Option<Arc<Entry>>)>) -> Result<Arc<Entry>, MissCause> {
    answer.or_else(|(cause, stale)| stale.ok_or(cause))
}
