//! The ceiling of memory: who wants to run asks for a permit priced in bytes, and the permits that are out never promise
//! more than there is.
//!
//! How much there is: what the limit leaves of the process' physical memory, or what the container or host has available
//! if that is less, minus a reserve for all that nobody asks for (garbage of JavaScript, allocators). What runs in one
//! permit's memory was often there before: an arena keeps what it once had. So only what would go beyond the largest sum
//! of permits so far counts as growth.
//!
//! When memory is short, first everything that can be given back is given back; then work waits until permits are
//! returned or memory comes free elsewhere. Refused is only what cannot fit even alone.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Approach, MemoryProcessor};
use crate::cancel::Cancel;
use crate::error::Error;
use crate::host::{Machine, Memory, Resources, ThisMachine};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Fault, Instant, Mutex, MutexGuard, planted};

/// How old a sample of the machine may be while work goes on. A sample costs a tenth of a millisecond.
const FRESH: Duration = Duration::from_millis(100);

/// How often those who wait look again.
const LOOK: Duration = Duration::from_millis(20);

/// How often things are given back at most: it costs milliseconds, and what was given back is soon wanted again.
const RELIEF_EVERY: Duration = Duration::from_secs(1);

/// How long a lone item waits for memory that others hold. After that it fails where a limit was set; where there is none,
/// it may have the reserve.
const LONGEST_WAIT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// Share of the ceiling that is left alone, and its bounds in bytes.
const RESERVE_SHARE: u64 = 16;
const RESERVE: (u64, u64) = (4 << 20, 64 << 20);

/// Gives back what it can spare, at once: whatever is kept without a use, and if memory is short (`true`) also what would
/// be missed. `false` once there is nothing left that could. Called on the thread of somebody who waits for memory.
pub type Relief = Box<dyn Fn(bool) -> bool + Send + Sync>;

/// The strategies changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The strategy before.
    pub before: String,
    /// The strategy now.
    pub after: String,
    /// Share that is in use of what the ceiling leaves beyond the model and all else that the process holds anyway, 0–100 %.
    pub usage: f64,
}

/// Told of changes, on the thread of whoever noticed.
pub type OnChange = Box<dyn Fn(&Change) + Send + Sync>;

/// Why there is no permit.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// The work was stopped.
    Stopped(Error),
    /// It cannot fit: bytes that are needed in all, and bytes that there may be.
    TooLarge {
        /// With what the process holds anyway.
        need: u64,
        /// The ceiling.
        limit: u64,
    },
}

/// What a governor has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Account {
    /// Bytes of the ceiling: the limit, or what the process holds and what the machine has left. 0: unknown.
    pub ceiling: u64,
    /// Bytes that the container, or the host, has available.
    pub available: u64,
    /// Bytes of physical memory that the process held at the last look.
    pub process: u64,
    /// The most that was seen.
    pub peak: u64,
    /// Bytes that permits promise now.
    pub granted: u64,
    /// Share of the ceiling that the process holds, 0–100 %.
    pub usage: f64,
    /// Times that somebody waited.
    pub waits: u64,
    /// Milliseconds waited, of all together.
    pub waited_ms: f64,
    /// Times that memory was given back.
    pub reliefs: u64,
    /// Times that the strategy changed.
    pub changes: u64,
}

/// Hands out permits.
pub struct Governor {
    limit: Option<u64>,
    /// Share of the ceiling that is left alone; 0 where permits are all there is.
    reserve: u64,
    sampled: Mutex<Sampled>,
    strategies: Option<Mutex<MemoryProcessor>>,
    state: Mutex<State>,
    returned: Condvar,
    reliefs: Mutex<Vec<Relief>>,
    on_change: Mutex<Option<OnChange>>,
    peak: AtomicU64,
    changes: AtomicU64,
}

/// Locked before [`State`], never while that is held.
struct Sampled {
    machine: Box<dyn Machine>,
    latest: Resources,
    at: Instant,
    /// The least that the process held with no permit out.
    floor: u64,
}

#[derive(Default)]
struct State {
    granted: u64,
    permits: usize,
    /// The largest sum of permits that has run, and what of it the latest sample has seen: an arena keeps that much.
    peak: u64,
    held: u64,
    relieved: Option<Instant>,
    waits: u64,
    waited: Duration,
    reliefs: u64,
}

/// The right to use so many bytes, until it is dropped.
#[must_use = "memory is reserved only as long as the permit lives"]
pub struct Permit {
    governor: Arc<Governor>,
    bytes: u64,
}

impl Governor {
    /// Keeps this process below `limit` bytes of physical memory, and within what the container or host has left.
    pub fn new(limit: Option<u64>, strategies: Option<MemoryProcessor>) -> Self {
        Self::on(Box::new(ThisMachine::default()), limit, strategies)
    }

    /// Keeps no more than `bytes` of permits out, whatever the machine has. For a part of the work.
    pub fn of_permits(bytes: u64) -> Self {
        Self { reserve: 0, ..Self::on(Box::new(Fixed), Some(bytes), None) }
    }

    /// The same as [`Governor::new`] on another machine.
    pub fn on(mut machine: Box<dyn Machine>, limit: Option<u64>, strategies: Option<MemoryProcessor>) -> Self {
        let latest = machine.sample();
        let floor = latest.process_memory;
        Self {
            limit,
            reserve: RESERVE_SHARE,
            sampled: Mutex::new(Sampled { machine, latest, at: Instant::now(), floor }),
            strategies: strategies.map(Mutex::new),
            state: Mutex::default(),
            returned: Condvar::new(),
            reliefs: Mutex::default(),
            on_change: Mutex::default(),
            peak: AtomicU64::new(floor),
            changes: AtomicU64::new(0),
        }
    }

    /// Adds something that can be given back, before all that was added so far.
    pub fn on_shortage(&self, relief: Relief) {
        lock(&self.reliefs).insert(0, relief);
    }

    /// Tells `listener` of changes of the strategy, instead of the one before.
    pub fn on_change(&self, listener: OnChange) {
        *lock(&self.on_change) = Some(listener);
    }

    /// Bytes that a batch may have if `workers` of them are to run at a time.
    pub fn share(&self, workers: usize) -> u64 {
        let room = self.room(false);
        let state = lock(&self.state);
        room.saturating_add(state.held) / workers.max(1) as u64
    }

    /// Most rows of a batch by the strategy of the moment.
    pub fn most_rows(&self) -> usize {
        self.strategy(|strategy| strategy.max_batch_size).unwrap_or(usize::MAX)
    }

    /// A permit for `bytes`, after waiting for it as long as it takes.
    ///
    /// # Errors
    /// Once `cancel` is raised, and for what cannot fit even alone.
    pub fn admit(self: &Arc<Self>, bytes: u64, cancel: &Cancel) -> Result<Permit, Refusal> {
        let started = Instant::now();
        let (mut waited, mut last_resort) = (false, false);
        loop {
            cancel.check().map_err(Refusal::Stopped)?;
            // Whoever has waited wants to know how it is now.
            let room = self.room(waited) + if last_resort { self.reserved() } else { 0 };
            let alone = self.strategy(|strategy| strategy.approach == Approach::Streaming).unwrap_or(false);
            let mut state = lock(&self.state);
            let growth = (state.granted.saturating_add(bytes)).saturating_sub(state.held);
            // Over the ceiling, not even memory that is there already is used again before something was given back.
            let due = (growth > room || room == 0) && state.relieved.is_none_or(|at| at.elapsed() >= RELIEF_EVERY);
            if !due && growth <= room && !(alone && state.permits > 0) {
                let granted = state.granted + bytes;
                if planted(Fault::PermitInTwoSteps) {
                    drop(state);
                    state = lock(&self.state);
                }
                state.granted = granted;
                state.permits += 1;
                if waited {
                    state.waits += 1;
                    state.waited += started.elapsed();
                }
                return Ok(Permit { governor: Arc::clone(self), bytes });
            }
            if due {
                state.relieved = Some(Instant::now());
                state.reliefs += 1;
                // What an arena kept is gone.
                (state.held, state.peak) = (0, 0);
                drop(state);
                lock(&self.reliefs).retain(|relief| relief(true));
                waited = true;
                continue;
            }
            let idle = state.permits == 0;
            waited = true;
            // Permits that come back wake us; memory that comes free elsewhere does not.
            drop(self.returned.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner));
            // With no permit out, only others could make room.
            if idle {
                self.hopeless(bytes).map_or(Ok(()), Err)?;
                if started.elapsed() >= LONGEST_WAIT {
                    if self.limit.is_some() || last_resort {
                        return Err(self.too_large(bytes));
                    }
                    last_resort = true;
                }
            }
        }
    }

    /// Why `bytes` beyond what the process holds now cannot be had, if so. For a model that is loaded.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`].
    pub fn expect(&self, bytes: u64) -> Result<(), Refusal> {
        let room = self.room(true) + if self.limit.is_some() { 0 } else { self.reserved() };
        if bytes <= room { Ok(()) } else { Err(self.too_large(bytes)) }
    }

    /// The process has grown by something that stays, such as a model: what it holds now is the new floor.
    pub fn settle(&self) {
        let mut sampled = lock(&self.sampled);
        self.sample(&mut sampled);
        sampled.floor = sampled.latest.process_memory;
    }

    /// The accounts.
    pub fn account(&self) -> Account {
        let (process, ceiling, available) = {
            let mut sampled = lock(&self.sampled);
            self.sample(&mut sampled);
            let Resources { process_memory, memory, .. } = sampled.latest;
            (process_memory, self.ceiling(&sampled.latest), memory.available)
        };
        let state = lock(&self.state);
        Account {
            ceiling: if ceiling == u64::MAX { 0 } else { ceiling },
            available,
            process,
            peak: self.peak.load(Ordering::Relaxed),
            granted: state.granted,
            usage: (process as f64 / ceiling.max(1) as f64 * 100.0).min(100.0),
            waits: state.waits,
            waited_ms: state.waited.as_secs_f64() * 1e3,
            reliefs: state.reliefs,
            changes: self.changes.load(Ordering::Relaxed),
        }
    }

    /// The machine as of a sample that is not old.
    pub fn machine(&self) -> Resources {
        let mut sampled = lock(&self.sampled);
        if sampled.at.elapsed() >= FRESH {
            self.sample(&mut sampled);
        }
        sampled.latest
    }

    /// What a person could do about memory as it is; nothing without strategies.
    pub fn recommendations(&self) -> Vec<String> {
        let usage = {
            let mut sampled = lock(&self.sampled);
            self.sample(&mut sampled);
            self.strategic_usage(&sampled)
        };
        self.strategies.as_ref().map(|strategies| lock(strategies).recommendations(usage)).unwrap_or_default()
    }

    /// The strategy in use, by name.
    pub fn strategy_name(&self) -> Option<String> {
        self.strategy(|strategy| strategy.name.clone())
    }

    /// Gives back what is kept without a use.
    pub fn relieve(&self) {
        {
            let mut state = lock(&self.state);
            (state.held, state.peak) = (0, 0);
            state.reliefs += 1;
        }
        lock(&self.reliefs).retain(|relief| relief(false));
    }

    fn strategy<T>(&self, of: impl FnOnce(&super::Strategy) -> T) -> Option<T> {
        let strategies = lock(self.strategies.as_ref()?);
        strategies.options().strategies.get(strategies.current()).map(of)
    }

    /// Bytes that may be had beyond what the process holds, as of a sample that is not old; `now`, as of a new one.
    fn room(&self, now: bool) -> u64 {
        let mut sampled = lock(&self.sampled);
        let age = sampled.at.elapsed();
        if age >= if now { LOOK } else { FRESH } {
            self.sample(&mut sampled);
        }
        self.left(&sampled.latest).saturating_sub(self.reserve(self.ceiling(&sampled.latest)))
    }

    fn sample(&self, sampled: &mut Sampled) {
        sampled.latest = sampled.machine.sample();
        sampled.at = Instant::now();
        let process = sampled.latest.process_memory;
        self.peak.fetch_max(process, Ordering::Relaxed);
        {
            let mut state = lock(&self.state);
            if state.permits == 0 {
                sampled.floor = sampled.floor.min(process);
            }
            // No more than the process has grown by can still be there.
            state.held = state.peak.min(process.saturating_sub(sampled.floor));
        }
        let Some(strategies) = &self.strategies else { return };
        let usage = self.strategic_usage(sampled);
        let change = {
            let mut strategies = lock(strategies);
            let before = strategies.current();
            let after = strategies.advance(usage);
            let name = |at: usize| strategies.options().strategies[at].name.clone();
            (before != after).then(|| Change { before: name(before), after: name(after), usage })
        };
        if let Some(change) = change {
            self.changes.fetch_add(1, Ordering::Relaxed);
            if let Some(listener) = &*lock(&self.on_change) {
                listener(&change);
            }
        }
    }

    /// Share that is in use, 0–100 %, by which strategies are chosen: smaller batches make nothing smaller of what the
    /// process holds anyway, such as the model.
    fn strategic_usage(&self, sampled: &Sampled) -> f64 {
        let held = sampled.latest.process_memory.saturating_sub(sampled.floor);
        let room = held.saturating_add(self.left(&sampled.latest));
        held as f64 / room.max(1) as f64 * 100.0
    }

    /// Bytes that there are beyond what the process holds, the reserve included. Of the machine, what it says that it has:
    /// a process holds pages that it shares with others, and for which its container does not count, or not all.
    fn left(&self, resources: &Resources) -> u64 {
        let Memory { total, available } = resources.memory;
        let machine = if total > 0 { available } else { u64::MAX };
        self.limit.map_or(machine, |limit| limit.saturating_sub(resources.process_memory).min(machine))
    }

    /// Most physical memory that this process may hold: [`u64::MAX`] where there is no limit and nobody knows what there is.
    fn ceiling(&self, resources: &Resources) -> u64 {
        let Memory { total, available } = resources.memory;
        // Never more than there is, whatever the process shares with others.
        let machine = if total > 0 { resources.process_memory.saturating_add(available).min(total) } else { u64::MAX };
        self.limit.map_or(machine, |limit| limit.min(machine))
    }

    /// Bytes of the reserve now.
    fn reserved(&self) -> u64 {
        let sampled = lock(&self.sampled);
        self.reserve(self.ceiling(&sampled.latest))
    }

    fn reserve(&self, ceiling: u64) -> u64 {
        ceiling.checked_div(self.reserve).map_or(0, |share| share.clamp(RESERVE.0, RESERVE.1))
    }

    /// Why `bytes` can never be had, if so: not even if the process held as little as it ever did.
    fn hopeless(&self, bytes: u64) -> Option<Refusal> {
        let sampled = lock(&self.sampled);
        let limit = self.limit?;
        let need = sampled.floor.saturating_add(bytes).saturating_add(self.reserve(limit));
        (need > limit).then_some(Refusal::TooLarge { need, limit })
    }

    fn too_large(&self, bytes: u64) -> Refusal {
        let sampled = lock(&self.sampled);
        let limit = self.ceiling(&sampled.latest);
        let need = sampled.latest.process_memory.saturating_add(bytes).saturating_add(self.reserve(limit));
        Refusal::TooLarge { need, limit }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = lock(&self.governor.state);
        state.peak = state.peak.max(state.granted);
        state.granted = state.granted.saturating_sub(self.bytes);
        state.permits = state.permits.saturating_sub(1);
        drop(state);
        self.governor.returned.notify_all();
    }
}

/// A machine of which nothing is known.
struct Fixed;

impl Machine for Fixed {
    fn sample(&mut self) -> Resources {
        let memory = Memory { total: u64::MAX, available: u64::MAX };
        Resources { memory, ..Resources::default() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
