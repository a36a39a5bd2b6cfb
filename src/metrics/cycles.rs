//! Work of several steps: what each cycle took and did. The latest are kept one by one, of all others the totals.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::distribution::{Distribution, Latency, nanoseconds};
use super::series::MemoryUse;
use super::{MAX_NAME, checked_name, checked_span};
use crate::error::{Error, Result};
use crate::host::ProcessMemory;

/// Most cycles in progress. Who starts more forgets to end them.
const MAX_ACTIVE: usize = 10_000;

/// One cycle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cycle {
    /// What its user calls it.
    pub id: String,
    /// Whether it has ended, and how.
    pub status: CycleStatus,
    /// Milliseconds since 1970.
    pub started_at: f64,
    /// Milliseconds since 1970. `None` while it is in progress, or where nobody saw the end.
    pub ended_at: Option<f64>,
    /// Milliseconds. `None` as `ended_at`.
    pub duration: Option<f64>,
    /// Calls of a language model, answered from a cache or not.
    pub llm_calls: u64,
    /// Of these, the ones that a cache answered.
    pub cache_hits: u64,
    /// Milliseconds that calls took, where they were told.
    pub llm_time: f64,
    /// Things validated.
    pub validations: u64,
    /// Milliseconds that validation took.
    pub validation_time: f64,
    /// Files read or written.
    pub file_operations: u64,
    /// Bytes that the process held when it began and ended, and the most that was seen between.
    pub memory: Option<CycleMemory>,
}

/// Bytes that the process held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CycleMemory {
    pub before: u64,
    pub after: u64,
    pub peak: u64,
}

/// Where a cycle stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CycleStatus {
    /// It has not ended yet.
    InProgress,
    /// It has ended well.
    Succeeded,
    /// It has ended otherwise.
    Failed,
    /// Its process ended before it did, or too many others were started after it.
    Interrupted,
}

/// What is told about cycles.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CycleSummary {
    /// Cycles that are no longer in progress: `succeeded + failed + interrupted`.
    pub count: u64,
    #[allow(missing_docs)]
    pub succeeded: u64,
    #[allow(missing_docs)]
    pub failed: u64,
    #[allow(missing_docs)]
    pub interrupted: u64,
    /// Cycles in progress.
    pub active: u64,
    /// Of cycles that have ended, as the other totals.
    pub llm_calls: u64,
    #[allow(missing_docs)]
    pub cache_hits: u64,
    /// Share of the calls that a cache answered, 0–1; 0 before the first one.
    pub cache_hit_ratio: f64,
    /// Milliseconds.
    pub llm_time: f64,
    #[allow(missing_docs)]
    pub validations: u64,
    /// Milliseconds.
    pub validation_time: f64,
    #[allow(missing_docs)]
    pub file_operations: u64,
    /// Of cycles that succeeded or failed; `None` before the first one.
    pub duration: Option<Latency>,
}

/// Cycles as they are told and written down.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CycleReport {
    #[allow(missing_docs)]
    pub summary: CycleSummary,
    /// The latest ones that have ended, the oldest first.
    pub recent: Vec<Cycle>,
    /// Those in progress, the oldest first.
    pub active: Vec<Cycle>,
    /// Durations of all: nanoseconds and how many, in turn.
    #[serde(default)]
    pub histogram: Vec<u64>,
}

/// All cycles of one monitor.
pub(super) struct Cycles {
    active: Vec<Running>,
    recent: VecDeque<Cycle>,
    totals: CycleSummary,
    durations: Distribution,
    keep: usize,
}

struct Running {
    cycle: Cycle,
    started_us: u64,
    memory: ProcessMemory,
}

impl Cycles {
    pub(super) fn new(keep: usize) -> Self {
        Self {
            active: Vec::new(),
            recent: VecDeque::new(),
            totals: CycleSummary::default(),
            durations: Distribution::new(),
            keep,
        }
    }

    pub(super) fn start(&mut self, id: &str, at: f64, us: u64, memory: ProcessMemory) -> Result<()> {
        checked_name("The id of the cycle", id)?;
        if self.active.iter().any(|running| running.cycle.id == id) {
            return Err(Error::InvalidArgument(format!("The cycle {id:?} is in progress already: end it first")));
        }
        if self.active.len() >= MAX_ACTIVE {
            let mut oldest = self.active.remove(0).cycle;
            oldest.status = CycleStatus::Interrupted;
            self.keep(oldest);
        }
        let cycle = Cycle {
            id: id.to_owned(),
            status: CycleStatus::InProgress,
            started_at: at,
            ended_at: None,
            duration: None,
            llm_calls: 0,
            cache_hits: 0,
            llm_time: 0.0,
            validations: 0,
            validation_time: 0.0,
            file_operations: 0,
            memory: None,
        };
        self.active.push(Running { cycle, started_us: us, memory });
        Ok(())
    }

    /// The cycle in progress that is called `id`.
    pub(super) fn running(&mut self, id: &str) -> Result<&mut Cycle> {
        let at = self.find(id)?;
        Ok(&mut self.active[at].cycle)
    }

    fn find(&self, id: &str) -> Result<usize> {
        self.active.iter().position(|running| running.cycle.id == id).ok_or_else(|| {
            let shown: String = id.chars().take(MAX_NAME).collect();
            let before = match self.recent.iter().any(|cycle| cycle.id == id) {
                true => "has ended already",
                false => "was never started",
            };
            Error::InvalidArgument(format!("The cycle {shown:?} {before}: call startCycle first"))
        })
    }

    pub(super) fn end(&mut self, id: &str, success: bool, at: f64, us: u64, now: ProcessMemory) -> Result<&Cycle> {
        let Running { mut cycle, started_us, memory } = self.active.remove(self.find(id)?);
        let ns = us.saturating_sub(started_us).saturating_mul(1000);
        cycle.status = if success { CycleStatus::Succeeded } else { CycleStatus::Failed };
        cycle.ended_at = Some(at);
        cycle.duration = Some(ns as f64 / 1e6);
        cycle.memory = MemoryUse::between(memory, now).map(|MemoryUse { before, after, peak }| CycleMemory {
            before,
            after,
            peak,
        });
        self.durations.record(ns);
        self.keep(cycle);
        self.recent.back().ok_or_else(|| Error::Internal("a cycle that has ended was not kept".to_owned()))
    }

    fn keep(&mut self, cycle: Cycle) {
        self.totals.add(&cycle);
        self.recent.push_back(cycle);
        while self.recent.len() > self.keep {
            self.recent.pop_front();
        }
    }

    pub(super) fn summary(&self) -> CycleSummary {
        let mut summary = self.totals.clone();
        summary.active = self.active.len() as u64;
        summary.duration = self.durations.latency();
        summary
    }

    /// All that is known, and at most so many of the latest ones.
    pub(super) fn report(&self, recent: usize) -> CycleReport {
        CycleReport {
            summary: self.summary(),
            recent: self.recent.iter().skip(self.recent.len().saturating_sub(recent)).cloned().collect(),
            active: self.active.iter().map(|running| running.cycle.clone()).collect(),
            histogram: self.durations.buckets(),
        }
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new(self.keep);
    }

    /// Puts what a file held before what has happened since. What was in progress then was interrupted. Without `totals`,
    /// they are those of the latest ones.
    pub(super) fn restore(
        &mut self,
        totals: Option<(CycleSummary, Distribution)>,
        recent: Vec<Cycle>,
        active: Vec<Cycle>,
    ) {
        let now = std::mem::replace(self, Self::new(self.keep));
        match totals {
            Some((summary, durations)) => {
                (self.totals, self.durations) = (summary, durations);
                let outdated = recent.len().saturating_sub(self.keep);
                self.recent = recent.into_iter().skip(outdated).collect();
            }
            None => {
                for cycle in recent {
                    let timed = matches!(cycle.status, CycleStatus::Succeeded | CycleStatus::Failed);
                    let ns = cycle.duration.filter(|_| timed).and_then(|ms| nanoseconds("The time", ms).ok());
                    ns.into_iter().for_each(|ns| self.durations.record(ns));
                    self.keep(cycle);
                }
            }
        }
        for cycle in active {
            self.keep(Cycle { status: CycleStatus::Interrupted, ..cycle });
        }
        now.recent.into_iter().for_each(|cycle| self.keep(cycle));
        self.durations.merge(&now.durations);
        self.active = now.active;
    }
}

impl CycleReport {
    /// Durations, if all of it can be.
    pub(super) fn check(&self) -> Result<Distribution> {
        let CycleSummary { count, succeeded, failed, interrupted, duration, .. } = &self.summary;
        let ended = succeeded.saturating_add(*failed);
        if ended.saturating_add(*interrupted) != *count || self.recent.len() as u64 > *count {
            let parts = format!("{succeeded} succeeded, {failed} failed and {interrupted} were interrupted");
            let reason = format!("of {count} cycles {parts}, and {} are listed", self.recent.len());
            return Err(Error::InvalidArgument(format!("The snapshot cannot be used: {reason}")));
        }
        self.summary.check()?;
        self.recent.iter().try_for_each(|cycle| cycle.check(true))?;
        self.active.iter().try_for_each(|cycle| cycle.check(false))?;
        Distribution::parse(&duration.unwrap_or_default(), ended, &self.histogram)
    }

    /// Adds cycles of another monitor. The latest ones of both are kept, as many as the larger has.
    pub(super) fn merge(&mut self, other: Self) -> Result<()> {
        let mut durations = self.check()?;
        durations.merge(&other.check()?);
        let keep = self.recent.len().max(other.recent.len());
        self.recent.extend(other.recent);
        self.recent.sort_by(|a, b| a.ended_at.unwrap_or(a.started_at).total_cmp(&b.ended_at.unwrap_or(b.started_at)));
        self.recent.drain(..self.recent.len().saturating_sub(keep.max(1000)));
        self.active.extend(other.active);
        self.summary.merge(&other.summary);
        self.summary.duration = durations.latency();
        self.histogram = durations.buckets();
        Ok(())
    }
}

impl Cycle {
    /// Refuses what no cycle can be. `ended`: whether it must have, or must not.
    pub(super) fn check(&self, ended: bool) -> Result<()> {
        checked_name("The id of a cycle", &self.id)?;
        let wrong = |what: String| Err(Error::InvalidArgument(format!("The cycle {:?} cannot be: {what}", self.id)));
        if ended == (self.status == CycleStatus::InProgress) {
            return wrong(format!("it is {:?}", self.status));
        }
        // What is counted as ended has a duration among all others.
        if matches!(self.status, CycleStatus::Succeeded | CycleStatus::Failed) && self.duration.is_none() {
            return wrong("it has ended, and has no duration".to_owned());
        }
        checked_span(self.started_at, self.ended_at.unwrap_or(self.started_at))?;
        nanoseconds("The time of a cycle", self.duration.unwrap_or(0.0))?;
        let sums = [self.llm_time, self.validation_time];
        if let Some(ms) = sums.into_iter().find(|ms| !ms.is_finite() || *ms < 0.0) {
            return wrong(format!("it took {ms} milliseconds"));
        }
        if self.cache_hits > self.llm_calls {
            return wrong(format!("of {} calls {} were hits", self.llm_calls, self.cache_hits));
        }
        Ok(())
    }
}

impl CycleSummary {
    fn check(&self) -> Result<()> {
        let sums = [self.llm_time, self.validation_time].into_iter().all(|ms| ms.is_finite() && ms >= 0.0);
        if sums && self.cache_hits <= self.llm_calls {
            return Ok(());
        }
        Err(Error::InvalidArgument("The snapshot cannot be used: the totals of its cycles do not add up".to_owned()))
    }

    fn add(&mut self, cycle: &Cycle) {
        let one = |status| u64::from(cycle.status == status);
        self.merge(&Self {
            count: 1,
            succeeded: one(CycleStatus::Succeeded),
            failed: one(CycleStatus::Failed),
            interrupted: one(CycleStatus::Interrupted),
            llm_calls: cycle.llm_calls,
            cache_hits: cycle.cache_hits,
            llm_time: cycle.llm_time,
            validations: cycle.validations,
            validation_time: cycle.validation_time,
            file_operations: cycle.file_operations,
            ..Self::default()
        });
    }

    fn merge(&mut self, other: &Self) {
        let add = |mine: &mut u64, other: u64| *mine = mine.saturating_add(other);
        add(&mut self.count, other.count);
        add(&mut self.succeeded, other.succeeded);
        add(&mut self.failed, other.failed);
        add(&mut self.interrupted, other.interrupted);
        add(&mut self.active, other.active);
        add(&mut self.llm_calls, other.llm_calls);
        add(&mut self.cache_hits, other.cache_hits);
        add(&mut self.validations, other.validations);
        add(&mut self.file_operations, other.file_operations);
        self.llm_time = (self.llm_time + other.llm_time).min(f64::MAX);
        self.validation_time = (self.validation_time + other.validation_time).min(f64::MAX);
        self.cache_hit_ratio = if self.llm_calls > 0 { self.cache_hits as f64 / self.llm_calls as f64 } else { 0.0 };
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    pub(in super::super) fn held(resident: u64) -> ProcessMemory {
        ProcessMemory { resident: resident * MB, high_water: 100 * MB }
    }

    pub(in super::super) fn run(cycles: &mut Cycles, id: &str, success: bool) -> Cycle {
        cycles.start(id, 1000.0, 0, held(10)).unwrap();
        let cycle = cycles.running(id).unwrap();
        (cycle.llm_calls, cycle.cache_hits, cycle.validations) = (4, 3, 5);
        cycles.end(id, success, 1002.5, 2500, held(20)).unwrap().clone()
    }

    #[test]
    fn a_cycle() {
        let mut cycles = Cycles::new(1000);
        let cycle = run(&mut cycles, "a", true);
        assert_eq!((cycle.status, cycle.duration, cycle.ended_at), (CycleStatus::Succeeded, Some(2.5), Some(1002.5)));
        assert_eq!(cycle.memory, Some(CycleMemory { before: 10 * MB, after: 20 * MB, peak: 20 * MB }));
        run(&mut cycles, "b", false);
        cycles.start("c", 1.0, 0, held(1)).unwrap();
        let summary = cycles.summary();
        assert_eq!((summary.count, summary.succeeded, summary.failed, summary.active), (2, 1, 1, 1));
        assert_eq!((summary.llm_calls, summary.cache_hit_ratio, summary.validations), (8, 0.75, 10));
        assert_eq!(summary.duration.unwrap().total, 5.0);
    }

    #[test]
    fn what_is_not_in_progress_is_refused() {
        let mut cycles = Cycles::new(10);
        run(&mut cycles, "over", true);
        cycles.start("twice", 0.0, 0, held(1)).unwrap();
        for (error, says) in [
            (cycles.start("twice", 0.0, 0, held(1)).unwrap_err(), "\"twice\" is in progress already"),
            (cycles.running("over").map(|_| ()).unwrap_err(), "\"over\" has ended already"),
            (cycles.end("nobody", true, 0.0, 0, held(1)).map(|_| ()).unwrap_err(), "\"nobody\" was never started"),
            (cycles.start("", 0.0, 0, held(1)).unwrap_err(), "id of the cycle"),
            (cycles.start(&"x".repeat(MAX_NAME + 1), 0.0, 0, held(1)).unwrap_err(), "id of the cycle"),
        ] {
            assert_eq!(error.code(), "INVALID_ARGUMENT");
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn history_is_bounded_and_totals_are_not() {
        let mut cycles = Cycles::new(3);
        (0..10).for_each(|i| drop(run(&mut cycles, &i.to_string(), true)));
        let report = cycles.report(usize::MAX);
        assert_eq!(report.recent.iter().map(|cycle| cycle.id.as_str()).collect::<Vec<_>>(), ["7", "8", "9"]);
        assert_eq!((report.summary.count, report.summary.llm_calls), (10, 40));
        for i in 0..=MAX_ACTIVE {
            cycles.start(&format!("never ended {i}"), 0.0, 0, held(1)).unwrap();
        }
        let report = cycles.report(usize::MAX);
        assert_eq!((report.active.len(), report.summary.interrupted), (MAX_ACTIVE, 1));
        assert_eq!(report.recent[2].id, "never ended 0");
    }
}
