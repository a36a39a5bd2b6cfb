//! The handle behind `DynamicBatchOptimizer`. Answers cross as JSON: they are asked for now and then, not for every batch.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use napi::Result;
use napi_derive::napi;
use serde_json::{Map, Value, json};

use super::{options, to_js};
use crate::batch::optimizer::{BatchOptimizer, OptimizerOptions, Recommendation, Record};
use crate::error::Error;
use crate::host::{Clock, Monitor, Resources, SystemClock};

/// How old a sample of the machine may be.
const INTERVAL: Duration = Duration::from_secs(1);

/// Records that `getPerformanceAnalytics` shows.
const RECENT: usize = 20;

/// See `BatchOptimizer`.
#[napi]
pub struct NativeBatchOptimizer {
    inner: Arc<Mutex<BatchOptimizer>>,
    /// Started by the first who needs it: whoever measures by himself has no thread for it.
    monitor: OnceLock<Arc<Monitor>>,
    clock: SystemClock,
}

#[napi]
impl NativeBatchOptimizer {
    /// Parses the options.
    #[napi(constructor, catch_unwind)]
    pub fn new(initial: f64, options: Map<String, Value>) -> Result<Self> {
        let options = options::optimizer("", &options, OptimizerOptions::default()).map_err(to_js)?;
        let initial = whole("initialBatchSize", initial)?;
        let inner = Arc::new(Mutex::new(BatchOptimizer::new(initial, options).map_err(to_js)?));
        Ok(Self { inner, monitor: OnceLock::new(), clock: SystemClock::default() })
    }

    /// See `BatchOptimizer::restored`. `state` is JSON.
    #[napi(factory, catch_unwind)]
    pub fn restored(state: String) -> Result<Self> {
        let state = serde_json::from_str(&state).map_err(|error| {
            to_js(Error::InvalidArgument(format!("The state of an optimizer cannot be used: {error}")))
        })?;
        let inner = Arc::new(Mutex::new(BatchOptimizer::restored(state).map_err(to_js)?));
        Ok(Self { inner, monitor: OnceLock::new(), clock: SystemClock::default() })
    }

    /// See `BatchOptimizer::state`. As JSON.
    #[napi(catch_unwind)]
    pub fn state(&self) -> String {
        self.inner().state().to_string()
    }

    /// The options as they are in force, as JSON.
    #[napi(catch_unwind)]
    pub fn config(&self) -> String {
        let inner = self.inner();
        let options = inner.options();
        json!({
            "minBatchSize": options.min_size,
            "maxBatchSize": options.max_size,
            "targetCpuUsage": options.target_cpu,
            "targetMemoryUsage": options.target_memory,
            "minSamples": options.min_samples,
            "historyRetention": options.history,
            "aggressiveness": options.aggressiveness,
        })
        .to_string()
    }

    /// See `BatchOptimizer::record`. Whatever of CPU and memory is not given is the machine's. Returns the next size.
    #[napi(catch_unwind)]
    #[allow(clippy::too_many_arguments)]
    pub fn record(
        &self,
        size: f64,
        time_ms: f64,
        items: f64,
        success: bool,
        tokens: Option<f64>,
        cpu: Option<f64>,
        memory: Option<f64>,
    ) -> Result<u32> {
        let size = whole("batchSize", size)?;
        let sampled = cpu.is_none() && memory.is_none();
        let (cpu, memory) = if sampled {
            let now = self.monitor().latest();
            (Some(now.cpu), Some(now.memory.usage()))
        } else {
            (cpu, memory)
        };
        let at_ms = self.clock.wall_ms() as f64;
        let mut inner = self.inner();
        inner.record(Record { size, time_ms, items, tokens, cpu, memory, sampled, success, at_ms }).map_err(to_js)?;
        Ok(inner.current() as u32)
    }

    /// See `BatchOptimizer::current`.
    #[napi(catch_unwind)]
    pub fn current(&self) -> u32 {
        self.inner().current() as u32
    }

    /// See `BatchOptimizer::optimize`.
    #[napi(catch_unwind)]
    pub fn optimize(&self) -> u32 {
        self.inner().optimize() as u32
    }

    /// See `BatchOptimizer::reset`.
    #[napi(catch_unwind)]
    pub fn reset(&self) {
        self.inner().reset();
    }

    /// See `BatchOptimizer::recommendation`. As JSON.
    #[napi(catch_unwind)]
    pub fn recommendation(&self) -> String {
        self.recommend(&self.inner(), &self.monitor().latest()).to_string()
    }

    /// See `BatchOptimizer::analytics`. As JSON.
    #[napi(catch_unwind)]
    pub fn analytics(&self) -> String {
        let now = self.monitor().latest();
        let inner = self.inner();
        let analytics = inner.analytics();
        let recent: Vec<Value> = inner
            .history()
            .skip(inner.history().len().saturating_sub(RECENT))
            .map(|record| {
                json!({
                    "batchSize": record.size,
                    "processingTime": record.time_ms,
                    "throughput": record.throughput(),
                    "memoryUsage": record.memory,
                    "cpuUsage": record.cpu,
                    "timestamp": record.at_ms,
                    "success": record.success,
                })
            })
            .collect();
        let [throughput, memory, cpu] = analytics.trends;
        json!({
            "averageThroughput": analytics.average_throughput,
            "averageBatchSize": analytics.average_size,
            "averageProcessingTime": analytics.average_time_ms,
            "optimizationScore": analytics.score,
            "performanceScore": analytics.performance_score,
            "resourceScore": analytics.resource_score,
            "stabilityScore": analytics.stability_score,
            "resourceUtilization": analytics.utilization,
            "successRate": analytics.success_rate,
            "currentMetrics": show(&now),
            "recentHistory": recent,
            "trends": { "throughputTrend": throughput, "memoryTrend": memory, "cpuTrend": cpu },
            "recommendations": self.recommend(&inner, &now),
        })
        .to_string()
    }

    /// The machine, as JSON.
    #[napi(catch_unwind)]
    pub fn metrics(&self) -> String {
        show(&self.monitor().latest()).to_string()
    }

    /// What is predicted where nothing was measured is what the machine does now.
    fn recommend(&self, inner: &BatchOptimizer, now: &Resources) -> Value {
        let Recommendation { size, confidence, reason, expected_improvement, cpu, memory, throughput } =
            inner.recommendation();
        json!({
            "recommendedBatchSize": size,
            "confidence": confidence,
            "reason": reason,
            "expectedImprovement": expected_improvement,
            "resourcePrediction": {
                "cpuUsage": cpu.unwrap_or(now.cpu),
                "memoryUsage": memory.unwrap_or(now.memory.usage()),
                "throughput": throughput,
            },
        })
    }

    /// The optimizer, for a generator that uses it.
    pub(super) fn shared(&self) -> Arc<Mutex<BatchOptimizer>> {
        Arc::clone(&self.inner)
    }

    fn monitor(&self) -> &Monitor {
        self.monitor.get_or_init(|| Monitor::of_this_machine(INTERVAL))
    }

    fn inner(&self) -> MutexGuard<'_, BatchOptimizer> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A size that JavaScript has passed.
fn whole(name: &str, number: f64) -> Result<usize> {
    if number.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&number) {
        return Ok(number as usize);
    }
    Err(to_js(Error::InvalidArgument(format!("The {name} is {number}: pass a whole number from 1"))))
}

fn show(resources: &Resources) -> Value {
    json!({
        "cpuUsage": resources.cpu,
        "availableMemory": resources.memory.available,
        "totalMemory": resources.memory.total,
        "memoryUsage": resources.memory.usage(),
        "loadAverage": resources.load_average,
        "cpuCores": resources.cores,
    })
}
