//! Options of caches: of embeddings, of results, and of the tier that machines share.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::LONGEST_WAIT_MS;
use super::reader::Reader;
use crate::cache::{CacheOptions, Precision, SharedOptions, Target};
use crate::error::{Error, Result};
use crate::results::{MOST_VALUE_BYTES, ResultsOptions};

/// Longest time to live in ms: beyond this, clocks are no longer integers in JavaScript. Some 285 thousand years.
const LONGEST_MS: f64 = 9e15;

/// Most bytes and entries of a cache.
const MOST: u64 = 1 << 50;

/// Parses a cache's options, and its namespace and model.
pub(in crate::binding) fn cache(options: &Map<String, Value>) -> Result<(CacheOptions, String, String)> {
    let read = Reader::new("", options);
    let default = CacheOptions::default();
    let from_mb = |mb: Option<f64>| mb.map(|mb| (mb * f64::from(1 << 20)).ceil() as u64);
    let ttl_seconds = read.number("ttlSeconds", 0.0, LONGEST_MS / 1e3)?;
    let ttl_ms = read.number("ttlMs", 0.0, LONGEST_MS)?.map(|ms| ms / 1e3);
    let ttl = read.either(("ttlSeconds", ttl_seconds), ("ttlMs", ttl_ms))?;
    let megabytes = from_mb(read.number("maxMemoryMB", 1e-3, MOST as f64)?);
    let bytes = read.count("maxSizeBytes", MOST)?;
    let max_bytes = read.either(("maxMemoryMB", megabytes), ("maxSizeBytes", bytes))?;
    let precisions = [("f32", Precision::F32), ("f16", Precision::F16)];
    let path: Option<PathBuf> = read.string("persistPath")?.map(Into::into);
    let parsed = CacheOptions {
        max_entries: read.count("maxEntries", MOST)?.map_or(default.max_entries, |count| count as usize),
        max_bytes: max_bytes.map_or(default.max_bytes, |bytes| bytes as usize),
        // 0: for ever. So is what is kept in a file, unless something else is said.
        ttl: match ttl {
            Some(seconds) => (seconds > 0.0).then(|| Duration::from_secs_f64(seconds)),
            None => default.ttl.filter(|_| path.is_none()),
        },
        precision: read.one_of("vectorPrecision", &precisions)?.unwrap_or_default(),
        path,
        max_disk_bytes: from_mb(read.number("maxDiskMB", 1.0, MOST as f64)?),
        shared: shared(&read)?,
        validate_content: read.boolean("enableContentValidation")?.unwrap_or(default.validate_content),
        // 2^31 - 1 ms is the longest timer of Node.js.
        maintenance_interval: read
            .count("maintenanceInterval", (1 << 31) - 1)?
            .map_or(default.maintenance_interval, Duration::from_millis),
        hit_ratio_threshold: read.number("hitRatioThreshold", 0.0, 1.0)?.unwrap_or(default.hit_ratio_threshold),
        ..default
    };
    if parsed.max_disk_bytes.is_some() && parsed.path.is_none() {
        return Err(Error::config("maxDiskMB", "there is no file to limit: give persistPath, too"));
    }
    let namespace = read.string("namespace")?.unwrap_or_default();
    let model = read.string("model")?.unwrap_or_default();
    Ok((parsed, namespace, model))
}

/// Longest prefix of keys: each of them has it.
const LONGEST_PREFIX: usize = 512;

/// Parses what is said about the shared tier. `lib/cache/shared.ts` has taken the URL apart.
fn shared(read: &Reader) -> Result<Option<SharedOptions>> {
    let leases = read.one_of("singleFlight", &[("process", false), ("cluster", true)])?.unwrap_or_default();
    let given = match read.get("shared") {
        None if leases => {
            return Err(Error::config(
                "singleFlight",
                "'cluster' needs a server that has the leases: give `shared`, too",
            ));
        }
        None => return Ok(None),
        Some(Value::Object(given)) => given,
        Some(other) => return read.wrong("shared", other, "an object such as { url: 'redis://localhost:6379' }"),
    };
    let inner = Reader::new("shared.", given);
    let Some(Value::Object(server)) = inner.get("url") else {
        return Err(Error::config("shared.url", "it is missing: give one such as 'redis://localhost:6379'"));
    };
    let part = Reader::new("shared.url: ", server);
    // Taken as they are, and never shown.
    let secret = |name| server.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let cluster = inner.boolean("cluster")?.unwrap_or_default();
    let target = Target {
        host: part.string("host")?.unwrap_or_default(),
        port: part.count("port", u16::MAX.into())?.unwrap_or(6379) as u16,
        tls: part.boolean("tls")?.unwrap_or_default(),
        user: secret("user"),
        password: secret("password"),
        database: part.whole("database", 0, 1 << 20)?.unwrap_or_default() as u32,
        resp3: part.boolean("resp3")?.unwrap_or_default(),
        cluster,
    };
    if cluster && target.database > 0 {
        return Err(Error::config("shared.url", "a cluster has database 0 only"));
    }
    let default = SharedOptions::new(target);
    let parsed = SharedOptions {
        key_prefix: inner.string("keyPrefix")?.unwrap_or(default.key_prefix),
        ttl: inner
            .number("ttlSeconds", 0.0, LONGEST_MS / 1e3)?
            .filter(|seconds| *seconds > 0.0)
            .map(Duration::from_secs_f64),
        connect_timeout: inner
            .count("connectTimeoutMs", LONGEST_WAIT_MS)?
            .map_or(default.connect_timeout, Duration::from_millis),
        command_timeout: inner
            .count("commandTimeoutMs", LONGEST_WAIT_MS)?
            .map_or(default.command_timeout, Duration::from_millis),
        target: default.target,
        leases,
    };
    let prefix = &parsed.key_prefix;
    if prefix.len() > LONGEST_PREFIX {
        return Err(Error::config("shared.keyPrefix", format!("it is longer than {LONGEST_PREFIX} bytes")));
    }
    if cluster && prefix.contains(['{', '}']) {
        let reason = "in a cluster, braces have a server of its own hold every key: leave them out";
        return Err(Error::config("shared.keyPrefix", format!("{prefix:?} has braces; {reason}")));
    }
    Ok(Some(parsed))
}

/// Parses a result cache's options.
pub(in crate::binding) fn results(options: &Map<String, Value>) -> Result<ResultsOptions> {
    let read = Reader::new("", options);
    let default = ResultsOptions::default();
    let from_mb = |mb: f64| (mb * f64::from(1 << 20)).ceil() as u64;
    let lifetime = |seconds: f64| (seconds > 0.0).then(|| Duration::from_secs_f64(seconds));
    let mut ttl_by_kind = default.ttl_by_kind;
    match read.get("ttlSecondsByType") {
        None => {}
        Some(Value::Object(by_type)) => {
            for (kind, value) in by_type {
                let seconds = value.as_f64().filter(|seconds| (0.0..=LONGEST_MS / 1e3).contains(seconds));
                let Some(seconds) = seconds else {
                    let expected = format!("a number of seconds from 0 (for ever) to {}", LONGEST_MS / 1e3);
                    return read.wrong(&format!("ttlSecondsByType.{kind}"), value, &expected);
                };
                ttl_by_kind.insert(kind.clone(), lifetime(seconds));
            }
        }
        Some(other) => return read.wrong("ttlSecondsByType", other, "an object such as { api: 3600 }"),
    }
    let most_mb = (MOST_VALUE_BYTES >> 20) as f64;
    let parsed = ResultsOptions {
        namespace: read.string("namespace")?.unwrap_or_default(),
        ttl: read.number("ttlSeconds", 0.0, LONGEST_MS / 1e3)?.map_or(default.ttl, lifetime),
        ttl_by_kind,
        max_value_bytes: read
            .number("maxValueMB", 1e-3, most_mb)?
            .map_or(default.max_value_bytes, |mb| from_mb(mb) as usize),
        cache: CacheOptions {
            max_entries: read.count("maxEntries", MOST)?.map_or(default.cache.max_entries, |count| count as usize),
            max_bytes: read
                .number("maxMemoryMB", 1e-3, MOST as f64)?
                .map_or(default.cache.max_bytes, |mb| from_mb(mb) as usize),
            path: read.string("persistPath")?.map(Into::into),
            max_disk_bytes: read.number("maxDiskMB", 1.0, MOST as f64)?.map(from_mb),
            shared: shared(&read)?,
            // 2^31 - 1 ms is the longest timer of Node.js.
            maintenance_interval: read
                .count("maintenanceInterval", (1 << 31) - 1)?
                .map_or(default.cache.maintenance_interval, Duration::from_millis),
            ..default.cache
        },
    };
    if parsed.cache.max_disk_bytes.is_some() && parsed.cache.path.is_none() {
        return Err(Error::config("maxDiskMB", "there is no file to limit: give persistPath, too"));
    }
    Ok(parsed)
}
