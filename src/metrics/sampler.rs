//! What happened since the last time that somebody asked.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::series::Tally;
use super::{CacheUse, Metrics, lock};

/// What happened since the last time that somebody asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Interval {
    /// When it ended, in milliseconds since 1970.
    pub at: f64,
    /// How long it was.
    pub seconds: f64,
    /// Operations that ended in it.
    pub operations: Vec<IntervalOperation>,
    /// Lookups in it.
    pub caches: Vec<CacheUse>,
    /// Cycles that ended in it, well or not.
    pub cycles: u64,
    /// Cycles in progress at its end.
    pub active: u64,
}

/// One operation in an interval. Durations are in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct IntervalOperation {
    pub name: String,
    pub count: u64,
    pub errors: u64,
    pub items: u64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

/// Looks at a [`Metrics`] again and again.
pub struct Sampler {
    metrics: Arc<Metrics>,
    at_us: u64,
    operations: Latest<Tally>,
    caches: Latest<(u64, u64)>,
    cycles: u64,
}

/// What was seen under each name the last time, and how often all names were forgotten before.
type Latest<T> = (u64, HashMap<Arc<str>, T>);

impl Sampler {
    /// The first interval begins now.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let at_us = metrics.now_us();
        let mut sampler = Self { metrics, at_us, operations: Latest::default(), caches: Latest::default(), cycles: 0 };
        sampler.sample();
        sampler
    }

    /// What happened since the last call. What was reset meanwhile counts from there on.
    pub fn sample(&mut self) -> Interval {
        let metrics = Arc::clone(&self.metrics);
        let now = metrics.now_us();
        let (epoch, all) = metrics.operations.list();
        let before = latest(&mut self.operations, epoch);
        let mut operations = Vec::new();
        for (name, series) in all {
            let Some(tally) = series.read() else { continue };
            operations.extend(interval_of(&name, before.get(&name), &tally));
            before.insert(name, tally);
        }
        operations.sort_by(|a, b| a.name.cmp(&b.name));
        let (epoch, all) = metrics.caches.list();
        let before = latest(&mut self.caches, epoch);
        let mut caches = Vec::new();
        for (kind, lookups) in all {
            let (hits, misses) = lookups.read();
            let known = before.insert(Arc::clone(&kind), (hits, misses)).unwrap_or_default();
            let (hits, misses) = (hits.saturating_sub(known.0), misses.saturating_sub(known.1));
            if hits + misses > 0 {
                caches.push(CacheUse::new(&kind, hits, misses));
            }
        }
        caches.sort_by(|a, b| a.kind.cmp(&b.kind));
        let summary = lock(&metrics.cycles).summary();
        let ended = summary.count.checked_sub(self.cycles).unwrap_or(summary.count);
        let seconds = now.saturating_sub(self.at_us) as f64 / 1e6;
        (self.at_us, self.cycles) = (now, summary.count);
        Interval { at: metrics.wall(now as i64), seconds, operations, caches, cycles: ended, active: summary.active }
    }
}

/// What was seen last, unless it was forgotten.
fn latest<T>((known, seen): &mut Latest<T>, epoch: u64) -> &mut HashMap<Arc<str>, T> {
    if *known != epoch {
        (*known, *seen) = (epoch, HashMap::new());
    }
    seen
}

fn interval_of(name: &str, before: Option<&Tally>, latest: &Tally) -> Option<IntervalOperation> {
    let since = before.and_then(|before| {
        Some((latest.durations.since(&before.durations)?, latest.errors.checked_sub(before.errors)?, before.items))
    });
    let (durations, errors, items) = since.unwrap_or_else(|| (latest.durations.clone(), latest.errors, 0));
    let latency = durations.latency()?;
    Some(IntervalOperation {
        name: name.to_owned(),
        count: durations.count(),
        errors,
        items: latest.items.saturating_sub(items),
        p50: latency.p50,
        p95: latency.p95,
        p99: latency.p99,
        max: latency.max,
    })
}
