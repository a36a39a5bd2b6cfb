//! Options of what sizes batches, and of what watches memory.

use std::time::Duration;

use serde_json::{Map, Value};

use super::reader::Reader;
use crate::batch::optimizer::OptimizerOptions;
use crate::error::{Error, Result};
use crate::memory::{Approach, MemoryOptions, Strategy, Thresholds};

/// Most items of a batch.
pub(super) const MOST_ITEMS: u64 = 1 << 20;

/// Parses a batch optimizer's options.
pub(in crate::binding) fn optimizer(
    prefix: &str,
    options: &Map<String, Value>,
    default: OptimizerOptions,
) -> Result<OptimizerOptions> {
    let read = Reader::new(prefix, options);
    let size = |size: Option<u64>, default: usize| size.map_or(default, |size| size as usize);
    Ok(OptimizerOptions {
        min_size: size(read.count("minBatchSize", MOST_ITEMS)?, default.min_size),
        max_size: size(read.count("maxBatchSize", MOST_ITEMS)?, default.max_size),
        target_cpu: read.number("targetCpuUsage", 1.0, 100.0)?.unwrap_or(default.target_cpu),
        target_memory: read.number("targetMemoryUsage", 1.0, 100.0)?.unwrap_or(default.target_memory),
        min_samples: size(read.count("minSamples", MOST_ITEMS)?, default.min_samples),
        history: size(read.count("historyRetention", MOST_ITEMS)?, default.history),
        aggressiveness: read.number("aggressiveness", 0.0, 1.0)?.unwrap_or(default.aggressiveness),
        ..default
    })
}

/// Parses a memory processor's options.
pub(in crate::binding) fn memory(prefix: &str, options: &Map<String, Value>) -> Result<MemoryOptions> {
    let read = Reader::new(prefix, options);
    let default = MemoryOptions::default();
    let strategies = match read.get("strategies") {
        None => default.strategies,
        Some(Value::Array(strategies)) => strategies
            .iter()
            .enumerate()
            .map(|(index, strategy)| parse_strategy(&format!("{prefix}strategies[{index}]"), strategy))
            .collect::<Result<_>>()?,
        Some(other) => return read.wrong("strategies", other, "an array of strategies"),
    };
    let thresholds = match read.get("memoryThresholds") {
        None => default.thresholds,
        Some(Value::Object(thresholds)) => parse_thresholds(&format!("{prefix}memoryThresholds."), thresholds)?,
        Some(other) => return read.wrong("memoryThresholds", other, "an object { critical, high, normal, low }"),
    };
    // The two thresholds for cleaning up are written as shares by some users and as percentages by others.
    let usage = |name| {
        let usage = read.number(name, 0.0, 100.0)?;
        Ok::<_, Error>(usage.map(|usage| if usage <= 1.0 { usage * 100.0 } else { usage }))
    };
    let cleanup_threshold = usage("cleanupThreshold")?.unwrap_or(default.cleanup_threshold);
    let gc_threshold = usage("gcThreshold")?.unwrap_or(default.gc_threshold);
    let emergency_cleanup_threshold =
        usage("emergencyCleanupThreshold")?.unwrap_or(default.emergency_cleanup_threshold);
    Ok(MemoryOptions {
        strategies,
        thresholds,
        monitoring_interval: read
            .count("monitoringInterval", (1 << 31) - 1)?
            .map_or(default.monitoring_interval, Duration::from_millis),
        cleanup_threshold,
        gc_threshold,
        enable_gc_hints: read.boolean("enableGcHints")?.unwrap_or(default.enable_gc_hints),
        emergency_cleanup_threshold,
        memory_buffer: read.number("memoryBuffer", 0.0, 0.99)?.unwrap_or(default.memory_buffer),
    })
}

fn parse_thresholds(prefix: &str, thresholds: &Map<String, Value>) -> Result<Thresholds> {
    let read = Reader::new(prefix, thresholds);
    let default = Thresholds::default();
    Ok(Thresholds {
        critical: read.number("critical", 0.0, 100.0)?.unwrap_or(default.critical),
        high: read.number("high", 0.0, 100.0)?.unwrap_or(default.high),
        normal: read.number("normal", 0.0, 100.0)?.unwrap_or(default.normal),
        low: read.number("low", 0.0, 100.0)?.unwrap_or(default.low),
    })
}

fn parse_strategy(path: &str, strategy: &Value) -> Result<Strategy> {
    let Some(strategy) = strategy.as_object() else {
        return Err(Error::config(path, format!("{strategy} is not a strategy: pass {{ name, maxBatchSize, … }}")));
    };
    let prefix = format!("{path}.");
    let read = Reader::new(&prefix, strategy);
    let missing = |name: &str| Error::config(format!("{prefix}{name}"), "a strategy needs one");
    let approaches = Approach::ALL.map(|approach| (approach.as_str(), approach));
    Ok(Strategy {
        name: read.string("name")?.ok_or_else(|| missing("name"))?,
        max_batch_size: read.count("maxBatchSize", MOST_ITEMS)?.ok_or_else(|| missing("maxBatchSize"))? as usize,
        approach: read.one_of("approach", &approaches)?.unwrap_or(Approach::Sequential),
        memory_overhead: read.number("memoryOverhead", 0.0, 1e6)?.unwrap_or(1.0),
        cpu_overhead: read.number("cpuOverhead", 0.0, 1e6)?.unwrap_or(1.0),
        cleanup_frequency: read.count("cleanupFrequency", MOST_ITEMS)?.map_or(5, |frequency| frequency as usize),
    })
}
