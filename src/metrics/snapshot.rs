//! All that a monitor knows at one moment: told to users, written down, and merged with that of others.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::cycles::CycleReport;
use super::distribution::{Distribution, Latency};
use super::{Failure, MAX_FAILURES, checked_name, checked_span};
use crate::error::{Error, Result};

/// What [`Snapshot::format`] says.
pub(super) const FORMAT: &str = "embedcore-monitor";

/// Two snapshots are of the same time if they were taken within so many milliseconds: the window of recent throughput.
const SAME_TIME_MS: f64 = 60_000.0;

/// All that a monitor knows at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// `embedcore-monitor`.
    pub format: String,
    /// 1.
    pub version: u32,
    /// Milliseconds since 1970, as all moments here.
    pub taken_at: f64,
    /// When the monitor was made or reset.
    pub started_at: f64,
    /// By name.
    pub operations: Vec<Operation>,
    /// By type.
    pub caches: Vec<CacheUse>,
    #[allow(missing_docs)]
    pub cycles: CycleReport,
    /// The latest failures, the oldest first.
    pub errors: Vec<Failure>,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    #[allow(missing_docs)]
    pub name: String,
    /// How often it ran, failures included.
    pub count: u64,
    /// How often it failed.
    pub errors: u64,
    /// Items that it has processed. Failures process none.
    pub items: u64,
    #[allow(missing_docs)]
    #[serde(flatten)]
    pub latency: Latency,
    #[allow(missing_docs)]
    pub throughput: Throughput,
    /// `None` where it was not measured.
    pub memory: Option<OperationMemory>,
    /// When the first one began.
    pub first_at: f64,
    /// When the last one ended.
    pub last_at: f64,
    /// Durations in nanoseconds and how many there are of each, in turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub histogram: Vec<u64>,
}

/// Items a second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Throughput {
    /// From the beginning of the first operation to the end of the last one.
    pub whole_run: f64,
    /// Over the last minute, or since the beginning of the first one where that was later.
    pub last_minute: f64,
}

/// Bytes that the process held.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationMemory {
    /// When the latest operation began.
    pub before: u64,
    /// When it ended.
    pub after: u64,
    /// The most that was seen at any of them.
    pub peak: u64,
    /// How much more was held after an operation than before it, on average.
    pub average_growth: f64,
    /// Operations that it was measured at.
    pub samples: u64,
}

/// How one type of thing was found in a cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheUse {
    #[allow(missing_docs)]
    #[serde(rename = "type")]
    pub kind: String,
    #[allow(missing_docs)]
    pub hits: u64,
    #[allow(missing_docs)]
    pub misses: u64,
    /// 0–1.
    pub hit_ratio: f64,
}

impl CacheUse {
    pub(super) fn new(kind: &str, hits: u64, misses: u64) -> Self {
        let all = hits.saturating_add(misses);
        let hit_ratio = if all > 0 { hits as f64 / all as f64 } else { 0.0 };
        Self { kind: kind.to_owned(), hits, misses, hit_ratio }
    }
}

impl Snapshot {
    /// Reads a snapshot, which may come from anybody. Figures that others follow from are made anew from those.
    pub fn parse(json: &str) -> Result<Self> {
        let wrong = |what: String| Error::InvalidArgument(format!("This is no snapshot of a monitor: {what}"));
        let mut snapshot: Self = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
        if snapshot.format != FORMAT || snapshot.version != 1 {
            let Self { format, version, .. } = snapshot;
            return Err(wrong(format!("it is {format:?} of version {version}, not {FORMAT:?} of version 1")));
        }
        checked_span(snapshot.started_at, snapshot.taken_at)?;
        let mut names = HashSet::new();
        for operation in &mut snapshot.operations {
            let durations = operation.check()?;
            operation.latency = durations.latency().unwrap_or_default();
            if !names.insert(operation.name.clone()) {
                return Err(wrong(format!("the operation {:?} is there twice", operation.name)));
            }
        }
        names.clear();
        for cache in &mut snapshot.caches {
            checked_name("The type of a cache", &cache.kind)?;
            *cache = CacheUse::new(&cache.kind, cache.hits, cache.misses);
            if !names.insert(cache.kind.clone()) {
                return Err(wrong(format!("the cache {:?} is there twice", cache.kind)));
            }
        }
        snapshot.cycles.summary.duration = snapshot.cycles.check()?.latency();
        for error in &snapshot.errors {
            checked_span(error.at, error.at)?;
        }
        Ok(snapshot)
    }

    /// Adds what another monitor knows: counts are summed, percentiles are those of all durations together, rates are
    /// those of all that happened, from the first beginning to the last end.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        let apart = other.taken_at - self.taken_at;
        // What was recent when the older one was taken is no longer.
        let (mine_is_recent, other_is_recent) = (apart <= SAME_TIME_MS, apart >= -SAME_TIME_MS);
        self.taken_at = self.taken_at.max(other.taken_at);
        self.started_at = self.started_at.min(other.started_at);
        for operation in &mut self.operations {
            operation.throughput.last_minute *= f64::from(u8::from(mine_is_recent));
        }
        let known: HashMap<_, _> = self.operations.iter().enumerate().map(|(at, one)| (one.name.clone(), at)).collect();
        for mut operation in other.operations {
            operation.throughput.last_minute *= f64::from(u8::from(other_is_recent));
            match known.get(&operation.name) {
                Some(at) => self.operations[*at].merge(&operation)?,
                None => self.operations.push(operation),
            }
        }
        let known: HashMap<_, _> = self.caches.iter().enumerate().map(|(at, one)| (one.kind.clone(), at)).collect();
        for CacheUse { kind, hits, misses, .. } in other.caches {
            match known.get(&kind) {
                Some(at) => {
                    let mine = &mut self.caches[*at];
                    *mine = CacheUse::new(&kind, mine.hits.saturating_add(hits), mine.misses.saturating_add(misses));
                }
                None => self.caches.push(CacheUse::new(&kind, hits, misses)),
            }
        }
        self.cycles.merge(other.cycles)?;
        self.errors.extend(other.errors);
        self.errors.sort_by(|a, b| a.at.total_cmp(&b.at));
        self.errors.drain(..self.errors.len().saturating_sub(MAX_FAILURES));
        Ok(())
    }
}

impl Operation {
    /// Durations, if all of it can be.
    fn check(&self) -> Result<Distribution> {
        checked_name("The name of an operation", &self.name)?;
        checked_span(self.first_at, self.last_at)?;
        let Self { errors, count, throughput, memory, .. } = self;
        let growth = memory.map_or(0.0, |memory| memory.average_growth);
        let rates = [throughput.whole_run, throughput.last_minute];
        if errors > count || !growth.is_finite() || rates.into_iter().any(|rate| !rate.is_finite() || rate < 0.0) {
            let what = format!("{:?} has {errors} errors in {count}, throughput {rates:?}, growth {growth}", self.name);
            return Err(Error::InvalidArgument(format!("The snapshot cannot be used: the operation {what}")));
        }
        self.durations()
    }

    fn durations(&self) -> Result<Distribution> {
        Distribution::parse(&self.latency, self.count, &self.histogram)
    }

    fn merge(&mut self, other: &Self) -> Result<()> {
        let mut durations = self.durations()?;
        durations.merge(&other.durations()?);
        let latest = if other.last_at >= self.last_at { other } else { &*self };
        let memory = latest.memory.or(self.memory).or(other.memory);
        self.memory = memory.map(|latest| {
            let each = [self.memory, other.memory].into_iter().flatten();
            let samples = each.clone().fold(0u64, |sum, memory| sum.saturating_add(memory.samples));
            let growth: f64 = each.clone().map(|memory| memory.average_growth * memory.samples as f64).sum();
            let peak = each.map(|memory| memory.peak).max().unwrap_or(latest.peak);
            let average_growth = (growth / samples.max(1) as f64).clamp(f64::MIN, f64::MAX);
            OperationMemory { peak, samples, average_growth, ..latest }
        });
        self.count = self.count.saturating_add(other.count);
        self.errors = self.errors.saturating_add(other.errors);
        self.items = self.items.saturating_add(other.items);
        self.latency = durations.latency().unwrap_or_default();
        self.histogram = durations.buckets();
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
        let ms = self.last_at - self.first_at;
        self.throughput.whole_run = if ms > 0.0 { self.items as f64 / ms * 1000.0 } else { 0.0 };
        self.throughput.last_minute = (self.throughput.last_minute + other.throughput.last_minute).min(f64::MAX);
        Ok(())
    }
}
