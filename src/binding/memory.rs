//! The handle behind `MemoryAwareProcessor`: what memory allows. Running the user's function is left to JavaScript.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::Result;
use napi_derive::napi;
use serde_json::{Map, Value, json};

use super::{options, to_js};
use crate::host::{self, Monitor};
use crate::memory::{MemoryOptions, MemoryProcessor};

/// Set in the answer of `cleanup`.
const TRIM: u32 = 1;
const COLLECT: u32 = 2;

/// See `MemoryProcessor`.
#[napi]
pub struct NativeMemoryProcessor {
    inner: Mutex<MemoryProcessor>,
    /// `None` once it was stopped.
    monitor: Mutex<Option<Arc<Monitor>>>,
}

#[napi]
impl NativeMemoryProcessor {
    /// Parses the options and begins to watch memory.
    #[napi(constructor, catch_unwind)]
    pub fn new(options: Map<String, Value>) -> Result<Self> {
        let options = options::memory("", &options).map_err(to_js)?;
        let interval = options.monitoring_interval;
        // Refused options start no thread.
        let mut inner = MemoryProcessor::new(options, 0.0).map_err(to_js)?;
        let monitor = Monitor::of_this_machine(interval);
        inner.advance(monitor.latest().memory.usage());
        Ok(Self { inner: Mutex::new(inner), monitor: Mutex::new(Some(monitor)) })
    }

    /// What the JavaScript side must know of the options, as JSON.
    #[napi(catch_unwind)]
    pub fn settings(&self) -> String {
        let inner = self.inner();
        let options = inner.options();
        let strategies: Vec<Value> = options
            .strategies
            .iter()
            .map(|strategy| {
                json!({
                    "name": strategy.name,
                    "maxBatchSize": strategy.max_batch_size,
                    "approach": strategy.approach.as_str(),
                    "memoryOverhead": strategy.memory_overhead,
                    "cpuOverhead": strategy.cpu_overhead,
                    "cleanupFrequency": strategy.cleanup_frequency,
                })
            })
            .collect();
        json!({
            "strategies": strategies,
            "high": options.thresholds.high,
            "monitoringInterval": options.monitoring_interval.as_millis() as u64,
            "memoryBuffer": options.memory_buffer,
            "cores": host::available_cores(),
        })
        .to_string()
    }

    /// Total and available memory in bytes: now, or as of the latest sample.
    #[napi(catch_unwind)]
    pub fn memory(&self, now: bool) -> Vec<f64> {
        let monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let resources = match monitor {
            Some(monitor) if now => monitor.now(),
            Some(monitor) => monitor.latest(),
            None => host::Machine::sample(&mut host::ThisMachine::default()),
        };
        vec![resources.memory.total as f64, resources.memory.available as f64]
    }

    /// See `MemoryProcessor::current`.
    #[napi(catch_unwind)]
    pub fn current(&self) -> u32 {
        self.inner().current() as u32
    }

    /// See `MemoryProcessor::select`.
    #[napi(catch_unwind)]
    pub fn select(&self, usage: f64) -> u32 {
        self.inner().select(usage) as u32
    }

    /// See `MemoryProcessor::advance`.
    #[napi(catch_unwind)]
    pub fn advance(&self, usage: f64) -> u32 {
        self.inner().advance(usage) as u32
    }

    /// See `MemoryProcessor::cleanup`. Gives memory back itself; collecting garbage is left to JavaScript.
    #[napi(catch_unwind)]
    pub fn cleanup(&self, usage: f64, batches: u32) -> u32 {
        let cleanup = self.inner().cleanup(usage, batches as usize);
        if cleanup.trim {
            host::trim();
        }
        (if cleanup.trim { TRIM } else { 0 }) | (if cleanup.collect { COLLECT } else { 0 })
    }

    /// See `MemoryProcessor::recommendations`.
    #[napi(catch_unwind)]
    pub fn recommendations(&self, usage: f64) -> Vec<String> {
        self.inner().recommendations(usage)
    }

    /// Stops watching memory.
    #[napi(catch_unwind)]
    pub fn stop(&self) {
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The options, for a generator that goes by them.
    pub(super) fn options(&self) -> MemoryOptions {
        self.inner().options().clone()
    }

    fn inner(&self) -> MutexGuard<'_, MemoryProcessor> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
