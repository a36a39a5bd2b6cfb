//! The handle behind `PerformanceMonitor`. What is recorded crosses in packs of numbers; what is told, as JSON.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use napi::bindgen_prelude::{AsyncTask, Float64Array, Float64ArraySlice};
use napi::{Env, Result, Task};
use napi_derive::napi;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{options, to_js};
use crate::error::Error;
use crate::host::{Monitor, ProcessMemory, Resources};
use crate::metrics::{self, Event, MemoryUse, Metrics, Numbers, Sampler, Snapshot, Unusable, nanoseconds};

/// How old a sample of the machine may be.
const INTERVAL: Duration = Duration::from_secs(1);

/// Numbers of one event: what it is (an id times four, and a kind), milliseconds, items, and when it was.
const EVENT: usize = 4;
const FAILED: usize = 1;
const HIT: usize = 2;
const MISS: usize = 3;

/// See `Metrics`.
#[napi]
pub struct NativeMonitor {
    inner: Arc<Metrics>,
    /// Those that the thread which holds this has for names.
    numbers: Mutex<Numbers>,
    machine: OnceLock<Arc<Monitor>>,
}

impl NativeMonitor {
    fn of(inner: Arc<Metrics>) -> Self {
        Self { numbers: Mutex::new(Numbers::new(Arc::clone(&inner))), inner, machine: OnceLock::new() }
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The monitor itself, for a generator to tell.
    pub(super) fn shared(&self) -> Arc<Metrics> {
        Arc::clone(&self.inner)
    }
}

#[napi]
impl NativeMonitor {
    /// Parses the options.
    #[napi(constructor, catch_unwind)]
    pub fn new(options: Map<String, Value>) -> Result<Self> {
        let options = options::metrics(&options).map_err(to_js)?;
        Ok(Self::of(Arc::new(Metrics::new(options))))
    }

    /// The one that all threads of the process share.
    #[napi(catch_unwind)]
    pub fn global() -> Self {
        Self::of(Metrics::global())
    }

    /// See `Numbers::operation`.
    #[napi(catch_unwind)]
    pub fn operation(&self, name: String) -> Result<u32> {
        self.numbers().operation(&name).map(|id| id as u32).map_err(to_js)
    }

    /// See `Numbers::cache`.
    #[napi(catch_unwind)]
    pub fn cache(&self, kind: String) -> Result<u32> {
        self.numbers().cache(&kind).map(|id| id as u32).map_err(to_js)
    }

    /// See `Numbers::forget`.
    #[napi(catch_unwind)]
    pub fn forget(&self) {
        self.numbers().forget();
    }

    /// Records the events in `buffer`. Their moments are those of the clock that says `now`, in milliseconds.
    #[napi(catch_unwind)]
    pub fn drain(&self, buffer: Float64ArraySlice<'_>, now: f64) {
        let now_us = self.inner.now_us();
        let events = buffer.chunks_exact(EVENT).map(|event| {
            let (what, ns, items) = (event[0] as usize, (event[1] * 1e6).round() as u64, event[2] as u64);
            let ago = ((now - event[3]) * 1000.0).round() as u64;
            let id = what / EVENT;
            let event = match what % EVENT {
                kind @ (HIT | MISS) => Event::Lookup { id, hit: kind == HIT },
                kind => Event::Ended { id, ns, items, success: kind != FAILED },
            };
            (now_us.saturating_sub(ago), event)
        });
        self.numbers().record_all(events);
    }

    /// See `Numbers::record_many`.
    #[napi(catch_unwind)]
    pub fn record_many(&self, id: u32, durations: Float64ArraySlice<'_>, items: f64, success: bool) -> Result<()> {
        self.numbers().record_many(id as usize, &durations, items as u64, success).map_err(to_js)
    }

    /// Records one operation with the memory that its user has measured.
    #[napi(catch_unwind)]
    #[allow(clippy::too_many_arguments)]
    pub fn record_with_memory(
        &self,
        id: u32,
        ms: f64,
        items: f64,
        success: bool,
        before: f64,
        after: f64,
        peak: f64,
    ) -> Result<()> {
        let ns = nanoseconds("The duration", ms).map_err(to_js)?;
        let memory = MemoryUse { before: before as u64, after: after as u64, peak: peak as u64 };
        self.numbers().record_with_memory(id as usize, ns, items as u64, success, Some(memory));
        Ok(())
    }

    /// Writes to `out` what the process holds, and the most that it ever held.
    #[napi(catch_unwind)]
    pub fn memory(&self, mut out: Float64Array) {
        let memory = self.inner.process_memory();
        // SAFETY: this is the thread of the array, and JavaScript does not run meanwhile.
        if let [resident, high_water, ..] = unsafe { out.as_mut() } {
            (*resident, *high_water) = (memory.resident as f64, memory.high_water as f64);
        }
    }

    /// Records one operation whose memory was looked at when it began; the second look is taken here.
    #[napi(catch_unwind)]
    #[allow(clippy::too_many_arguments)]
    pub fn end(&self, id: u32, ms: f64, items: f64, success: bool, resident: f64, high_water: f64) -> Result<()> {
        let ns = nanoseconds("The duration", ms).map_err(to_js)?;
        let before = ProcessMemory { resident: resident as u64, high_water: high_water as u64 };
        let memory = MemoryUse::between(before, self.inner.process_memory());
        self.numbers().record_with_memory(id as usize, ns, items as u64, success, memory);
        Ok(())
    }

    /// See `Metrics::failed`.
    #[napi(catch_unwind)]
    pub fn failed(&self, name: String, message: String) {
        self.inner.failed(&name, &message);
    }

    /// One operation as JSON; `null` for one that was never recorded.
    #[napi(catch_unwind)]
    pub fn stats(&self, name: String) -> Result<Option<String>> {
        self.inner.stats(&name).map(|stats| to_json(&stats)).transpose()
    }

    /// See `Metrics::snapshot`. As JSON.
    #[napi(catch_unwind)]
    pub fn snapshot(&self, histograms: bool, cycles: Option<u32>) -> Result<String> {
        to_json(&self.inner.snapshot(histograms, cycles.map_or(usize::MAX, |cycles| cycles as usize)))
    }

    /// See `Metrics::reset`.
    #[napi(catch_unwind)]
    pub fn reset(&self) {
        self.inner.reset();
    }

    /// See `Metrics::start_cycle`.
    #[napi(catch_unwind)]
    pub fn start_cycle(&self, id: String) -> Result<()> {
        self.inner.start_cycle(&id).map_err(to_js)
    }

    /// Notes a call of a language model.
    #[napi(catch_unwind)]
    pub fn cycle_call(&self, id: String, cache_hit: bool, ms: f64) -> Result<()> {
        nanoseconds("The duration", ms).map_err(to_js)?;
        let note = self.inner.in_cycle(&id, |cycle| {
            cycle.llm_calls += 1;
            cycle.cache_hits += u64::from(cache_hit);
            cycle.llm_time += ms;
        });
        note.map_err(to_js)
    }

    /// Notes a validation of `count` things.
    #[napi(catch_unwind)]
    pub fn cycle_validation(&self, id: String, ms: f64, count: f64) -> Result<()> {
        nanoseconds("The duration", ms).map_err(to_js)?;
        let note = self.inner.in_cycle(&id, |cycle| {
            cycle.validations = cycle.validations.saturating_add(count as u64);
            cycle.validation_time += ms;
        });
        note.map_err(to_js)
    }

    /// Notes that `count` files were read or written.
    #[napi(catch_unwind)]
    pub fn cycle_files(&self, id: String, count: f64) -> Result<()> {
        let note = self.inner.in_cycle(&id, |cycle| {
            cycle.file_operations = cycle.file_operations.saturating_add(count as u64);
        });
        note.map_err(to_js)
    }

    /// Ends a cycle, and gives it as JSON.
    #[napi(catch_unwind)]
    pub fn end_cycle(&self, id: String, success: bool) -> Result<String> {
        to_json(&self.inner.end_cycle(&id, success).map_err(to_js)?)
    }

    /// Cycles as JSON.
    #[napi(catch_unwind)]
    pub fn cycles(&self) -> Result<String> {
        to_json(&self.inner.cycles())
    }

    /// See `Metrics::load`.
    #[napi(catch_unwind)]
    pub fn load(&self) -> Result<Option<NativeUnusable>> {
        let unusable = self.inner.load().map_err(to_js)?;
        Ok(unusable.map(|Unusable { moved_to, reason }| NativeUnusable {
            moved_to: moved_to.map(|path| path.display().to_string()),
            reason,
        }))
    }

    /// Writes cycles. Blocks; for a process that is about to end.
    #[napi(catch_unwind)]
    pub fn save_now(&self, path: String) -> Result<()> {
        self.inner.save(&PathBuf::from(path)).map_err(to_js)
    }

    /// Writes cycles on another thread.
    #[napi(catch_unwind)]
    pub fn save(&self, path: String) -> AsyncTask<Save> {
        AsyncTask::new(Save { metrics: Arc::clone(&self.inner), path: path.into() })
    }

    /// The machine, as JSON: at most a second old.
    #[napi(catch_unwind)]
    pub fn machine(&self) -> String {
        let Resources { memory, process_memory, cpu, cores, .. } =
            self.machine.get_or_init(|| Monitor::of_this_machine(INTERVAL)).latest();
        json!({
            "processMemory": process_memory,
            "usedMemory": memory.total.saturating_sub(memory.available),
            "totalMemory": memory.total,
            "cpuUsage": cpu,
            "cpuCores": cores,
        })
        .to_string()
    }

    /// Looks at this one again and again.
    #[napi(catch_unwind)]
    pub fn sampler(&self) -> NativeSampler {
        NativeSampler { inner: Mutex::new(Sampler::new(Arc::clone(&self.inner))) }
    }
}

/// See `Unusable`.
#[napi(object, object_from_js = false)]
pub struct NativeUnusable {
    /// Where a damaged file was moved.
    pub moved_to: Option<String>,
    /// What is wrong with it.
    pub reason: String,
}

/// See `Sampler`.
#[napi]
pub struct NativeSampler {
    inner: Mutex<Sampler>,
}

#[napi]
impl NativeSampler {
    /// What happened since the last call, as JSON.
    #[napi(catch_unwind)]
    pub fn sample(&self) -> Result<String> {
        to_json(&self.inner.lock().unwrap_or_else(PoisonError::into_inner).sample())
    }
}

/// Writes cycles.
pub struct Save {
    metrics: Arc<Metrics>,
    path: PathBuf,
}

impl Task for Save {
    type Output = std::result::Result<(), Error>;
    type JsValue = ();

    fn compute(&mut self) -> Result<Self::Output> {
        Ok(self.metrics.save(&self.path))
    }

    fn resolve(&mut self, _: Env, output: Self::Output) -> Result<()> {
        output.map_err(to_js)
    }
}

/// Reads snapshots, which may come from anybody, and merges them.
#[napi(catch_unwind)]
pub fn merge_snapshots(all: Vec<String>) -> Result<String> {
    let mut merged: Option<Snapshot> = None;
    for json in &all {
        let snapshot = Snapshot::parse(json).map_err(to_js)?;
        match &mut merged {
            None => merged = Some(snapshot),
            Some(merged) => merged.merge(snapshot).map_err(to_js)?,
        }
    }
    to_json(&merged)
}

/// Writes a file, all or nothing.
#[napi(catch_unwind)]
pub fn write_whole(path: String, text: String) -> AsyncTask<WriteWhole> {
    AsyncTask::new(WriteWhole { path: path.into(), text })
}

/// See `write_whole`.
pub struct WriteWhole {
    path: PathBuf,
    text: String,
}

impl Task for WriteWhole {
    type Output = std::result::Result<(), Error>;
    type JsValue = ();

    fn compute(&mut self) -> Result<Self::Output> {
        Ok(metrics::write_whole(&self.path, self.text.as_bytes()))
    }

    fn resolve(&mut self, _: Env, output: Self::Output) -> Result<()> {
        output.map_err(to_js)
    }
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| to_js(Error::Internal(error.to_string())))
}
