//! How something is recorded: by this crate's own code under a fixed name, by users under numbers for their names.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::distribution::{MAX_MS, nanoseconds};
use super::names::Named;
use super::series::{Ended, MemoryUse, Series};
use super::{Lookups, Metrics, checked_name};
use crate::error::Result;

/// Records one operation, from any thread.
#[derive(Clone)]
pub struct Recorder {
    metrics: Arc<Metrics>,
    named: Arc<RwLock<Named<Series>>>,
}

impl Recorder {
    pub(super) fn new(metrics: Arc<Metrics>, name: &str) -> Self {
        Self { metrics, named: Arc::new(RwLock::new(Named::new(name))) }
    }

    /// Records one that has just ended, with the items that it has processed.
    pub fn record(&self, duration: Duration, items: u64) {
        self.ended(duration, items, true);
    }

    /// Records one that has just failed.
    pub fn fail(&self, duration: Duration) {
        self.ended(duration, 0, false);
    }

    fn ended(&self, duration: Duration, items: u64, success: bool) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min((MAX_MS * 1e6) as u64);
        let ended = Ended { at_us: self.metrics.now_us(), ns, items, success, memory: None };
        let names = &self.metrics.operations;
        if let Some(series) = self.named.read().unwrap_or_else(PoisonError::into_inner).known(names) {
            return series.record(ended);
        }
        self.named.write().unwrap_or_else(PoisonError::into_inner).get(names).record(ended);
    }
}

/// One recorded operation, with numbers for names: see [`Numbers`].
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// An operation has ended.
    Ended {
        /// The operation.
        id: usize,
        /// How long it took.
        ns: u64,
        /// What it has processed.
        items: u64,
        /// Whether it did.
        success: bool,
    },
    /// Something was looked up.
    Lookup {
        /// The type.
        id: usize,
        /// Whether it was there.
        hit: bool,
    },
}

/// Numbers that one user has for names, who should forget them now and then: they take no room of the monitor's, and
/// stay good when that is reset.
pub struct Numbers {
    metrics: Arc<Metrics>,
    operations: Vec<Named<Series>>,
    caches: Vec<Named<Lookups>>,
}

impl Numbers {
    /// Of names in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, operations: Vec::new(), caches: Vec::new() }
    }

    /// Makes a number for an operation.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is empty or longer than [`super::MAX_NAME`].
    pub fn operation(&mut self, name: &str) -> Result<usize> {
        checked_name("The name", name)?;
        self.operations.push(Named::new(name));
        Ok(self.operations.len() - 1)
    }

    /// Makes a number for a type of cached things.
    ///
    /// # Errors
    /// As [`Self::operation`].
    pub fn cache(&mut self, kind: &str) -> Result<usize> {
        checked_name("The type", kind)?;
        self.caches.push(Named::new(kind));
        Ok(self.caches.len() - 1)
    }

    /// All numbers become invalid.
    pub fn forget(&mut self) {
        (self.operations, self.caches) = (Vec::new(), Vec::new());
    }

    /// Records what happened, each with its moment in microseconds of the steady clock. Numbers that were never given
    /// out are left out.
    pub fn record_all(&mut self, events: impl Iterator<Item = (u64, Event)>) {
        for (at_us, event) in events {
            match event {
                Event::Ended { id, ns, items, success } => {
                    self.series(id, |series| series.record(Ended { at_us, ns, items, success, memory: None }));
                }
                Event::Lookup { id, hit } => {
                    if let Some(named) = self.caches.get_mut(id) {
                        let lookups = named.get(&self.metrics.caches);
                        let count = if hit { &lookups.hits } else { &lookups.misses };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// Records many of one operation that have just ended, `items` each.
    ///
    /// # Errors
    /// `InvalidArgument` naming the first duration that is none; then none is recorded.
    pub fn record_many(&mut self, id: usize, ms: &[f64], items: u64, success: bool) -> Result<()> {
        for (index, ms) in ms.iter().enumerate() {
            if !(0.0..=MAX_MS).contains(ms) {
                nanoseconds(&format!("The duration at index {index}"), *ms)?;
            }
        }
        if ms.is_empty() {
            return Ok(());
        }
        let at_us = self.metrics.now_us();
        let ended = |ms: &f64| Ended { at_us, ns: (ms * 1e6).round() as u64, items, success, memory: None };
        self.series(id, |series| series.record_all(ms.iter().map(ended)));
        Ok(())
    }

    /// Records one operation that has just ended, with its memory.
    pub fn record_with_memory(&mut self, id: usize, ns: u64, items: u64, success: bool, memory: Option<MemoryUse>) {
        let at_us = self.metrics.now_us();
        self.series(id, |series| series.record(Ended { at_us, ns, items, success, memory }));
    }

    fn series(&mut self, id: usize, record: impl FnOnce(&Series)) {
        if let Some(named) = self.operations.get_mut(id) {
            record(named.get(&self.metrics.operations));
        }
    }
}
