//! Options as they cross → options that are valid. Defaults live in the core; which options there are is in `lib/`, where
//! all others are refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::batch::optimizer::OptimizerOptions;
use crate::batch::sizing::BatchSizer;
use crate::cache::{CacheOptions, Precision, SharedOptions, Target};
use crate::coherence::{CoherenceOptions, ShrinkageTarget};
use crate::embedding::{InputType, Task};
use crate::error::{Error, Result};
use crate::generator::{Batching, CallOptions, GeneratorOptions, OnError, StateDir};
use crate::memory::{Approach, MemoryOptions, Strategy, Thresholds};
use crate::metrics::MetricsOptions;
use crate::model::{
    self, Bm25Options, Dtype, Engine, HubOptions, Kind, ModelOptions, Plugin, Pooling, PromptOptions, Provider,
    RemoteOptions, Secret,
};
use crate::results::{MOST_VALUE_BYTES, ResultsOptions};

/// Reads options one by one.
struct Reader<'a> {
    options: &'a Map<String, Value>,
    prefix: &'a str,
}

impl<'a> Reader<'a> {
    fn new(prefix: &'a str, options: &'a Map<String, Value>) -> Self {
        Self { options, prefix }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.options.get(name)
    }

    fn wrong<T>(&self, name: &str, value: &Value, expected: &str) -> Result<T> {
        // What JSON does not know crosses as what it looks like: see `crossing` in `lib/call/options.ts`.
        let shown = value.get("unlike").and_then(Value::as_str).map_or_else(|| value.to_string(), str::to_owned);
        Err(Error::config(format!("{}{name}", self.prefix), format!("{shown} is not {expected}")))
    }

    fn string(&self, name: &'static str) -> Result<Option<String>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
            Some(other) => self.wrong(name, other, "a non-empty string"),
        }
    }

    fn boolean(&self, name: &'static str) -> Result<Option<bool>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => self.wrong(name, other, "true or false"),
        }
    }

    /// A whole number of at least 1.
    fn count(&self, name: &'static str, most: u64) -> Result<Option<u64>> {
        self.whole(name, 1, most)
    }

    /// A whole number from `least` to `most`.
    fn whole(&self, name: &'static str, least: u64, most: u64) -> Result<Option<u64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_u64().or_else(|| {
            value.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0).map(|number| number as u64)
        });
        match number {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => self.wrong(name, value, &format!("a whole number from {least} to {most}")),
        }
    }

    /// A string that is never shown. What it has to be, whoever sent it has checked.
    fn secret(&self, name: &'static str) -> Result<Option<Secret>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(Secret::new(text.clone()))),
            Some(_) => Err(Error::config(format!("{}{name}", self.prefix), "it is not a non-empty string")),
        }
    }

    /// A number from `least` to `most`, fractions allowed.
    fn number(&self, name: &'static str, least: f64, most: f64) -> Result<Option<f64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => self.wrong(name, value, &format!("a number from {least} to {most}")),
        }
    }

    /// An amount of memory, in MB of 1024 × 1024 bytes, as bytes.
    fn megabytes(&self, name: &'static str) -> Result<Option<u64>> {
        Ok(self.count(name, 1 << 40)?.map(|mb| mb << 20))
    }

    /// One setting in two spellings, of which only one may be used.
    fn either<T>(&self, one: (&str, Option<T>), other: (&str, Option<T>)) -> Result<Option<T>> {
        match (one.1, other.1) {
            (Some(_), Some(_)) => Err(Error::config(
                format!("{}{}", self.prefix, other.0),
                format!("it says the same as `{}`: give only one of the two", one.0),
            )),
            (one, other) => Ok(one.or(other)),
        }
    }

    fn one_of<T>(&self, name: &'static str, choices: &[(&str, T)]) -> Result<Option<T>>
    where
        T: Copy,
    {
        let Some(value) = self.get(name) else { return Ok(None) };
        let found = choices.iter().find(|(choice, _)| value.as_str() == Some(choice));
        let names: Vec<String> = choices.iter().map(|(choice, _)| format!("'{choice}'")).collect();
        found.map_or_else(|| self.wrong(name, value, &names.join(" or ")), |(_, choice)| Ok(Some(*choice)))
    }
}

/// Parses the options of a monitor.
pub(super) fn metrics(options: &Map<String, Value>) -> Result<MetricsOptions> {
    let read = Reader::new("", options);
    let default = MetricsOptions::default();
    Ok(MetricsOptions {
        max_cycles: read.count("maxCycles", 1_000_000)?.map_or(default.max_cycles, |count| count as usize),
        persist_path: read.string("persistPath")?.map(Into::into),
    })
}

/// Parses how trajectories are measured.
pub(super) fn coherence(options: &Map<String, Value>) -> Result<CoherenceOptions> {
    let read = Reader::new("", options);
    let default = CoherenceOptions::default();
    let targets = [("identity", ShrinkageTarget::Identity), ("scaled", ShrinkageTarget::Scaled)];
    let mut weights = default.weights;
    match read.get("weights") {
        None => {}
        Some(Value::Array(given)) if given.len() == weights.len() => {
            for (at, (into, value)) in weights.iter_mut().zip(given).enumerate() {
                match value.as_f64() {
                    Some(weight) if weight >= 0.0 => *into = weight,
                    _ => return read.wrong(&format!("weights[{at}]"), value, "a number from 0"),
                }
            }
        }
        Some(other) => return read.wrong("weights", other, "an array of five numbers, for EVB, CR, TS, ES and PD"),
    }
    Ok(CoherenceOptions {
        shrinkage: read.number("shrinkage", 0.0, 1.0)?.unwrap_or(default.shrinkage),
        target: read.one_of("shrinkageTarget", &targets)?.unwrap_or(default.target),
        weights,
    })
}

/// Parses the constructor's options.
pub(super) fn generator(options: &Map<String, Value>) -> Result<GeneratorOptions> {
    let read = Reader::new("", options);
    let dtypes = Dtype::ALL.map(|dtype| (dtype.as_str(), dtype));
    let measure_threads = read.get("intraOpThreads").and_then(Value::as_str) == Some("auto");
    let (model_path, remote) = remote(&read)?;
    let (providers, any_provider) = providers(&read)?;
    Ok(GeneratorOptions {
        measure_threads,
        model_path,
        model: ModelOptions {
            // Said by the class, not by its user.
            task: read.one_of("task", &Task::ALL.map(|task| (task.as_str(), task)))?.unwrap_or_default(),
            pool_factor: read.count("poolFactor", 1 << 10)?.map(|factor| factor as usize),
            instruction: read.string("instruction")?,
            bm25: bm25(&read)?,
            hub: HubOptions {
                revision: read.string("revision")?,
                cache_dir: read.string("cacheDir")?.map(Into::into),
                local_files_only: read.boolean("localFilesOnly")?.unwrap_or_default(),
            },
            dtype: read.one_of("dtype", &dtypes)?,
            pooling: poolings(&read)?,
            normalize: read.boolean("normalize")?,
            dimensions: read.count("dimensions", 1 << 20)?.map(|value| value as usize),
            max_length: read.count("maxLength", 1 << 20)?.map(|value| value as usize),
            prompts: PromptOptions { name: read.string("promptName")?, ..prompts(&read)? },
            intra_op_threads: if measure_threads {
                None
            } else {
                read.count("intraOpThreads", 1024)?.map(|n| n as usize)
            },
            providers,
            any_provider,
            device_memory: read.megabytes("deviceMemoryLimit")?,
            engine: read.one_of("engine", &or_auto(Engine::ALL.map(|engine| (engine.as_str(), engine))))?.flatten(),
            precision: read
                .one_of("precision", &or_auto(model::Precision::ALL.map(|precision| (precision.as_str(), precision))))?
                .flatten(),
            mix_precision: read.boolean("mixPrecision")?.unwrap_or_default(),
            remote,
        },
        memory_limit: read.megabytes("memoryLimit")?,
        batching: match read.get("batchOptimizer") {
            None => Batching::default(),
            Some(Value::Bool(false)) => Batching::Fixed,
            Some(Value::Object(options)) => {
                Batching::Learning(optimizer("batchOptimizer.", options, BatchSizer::defaults())?)
            }
            Some(other) => return read.wrong("batchOptimizer", other, "options, a DynamicBatchOptimizer or false"),
        },
        memory: match read.get("memoryProcessor") {
            None => Some(MemoryOptions::default()),
            Some(Value::Bool(false)) => None,
            Some(Value::Object(options)) => Some(memory("memoryProcessor.", options)?),
            Some(other) => return read.wrong("memoryProcessor", other, "options, a MemoryAwareProcessor or false"),
        },
        state_dir: match read.get("stateDir") {
            None => StateDir::default(),
            Some(Value::Bool(false)) => StateDir::Off,
            Some(Value::String(path)) if !path.is_empty() => match std::path::absolute(path) {
                // As it is meant now, whatever becomes of the working directory.
                Ok(path) => StateDir::At(path),
                Err(error) => return Err(Error::config("stateDir", format!("{path} cannot be used: {error}"))),
            },
            Some(other) => return read.wrong("stateDir", other, "a directory or false"),
        },
        ..GeneratorOptions::default()
    })
}

/// How token vectors become one: in one way, or in several that are joined.
fn poolings(read: &Reader) -> Result<Vec<Pooling>> {
    let choices = Pooling::ALL.map(|pooling| (pooling.as_str(), pooling));
    let Some(Value::Array(several)) = read.get("pooling") else {
        return Ok(read.one_of("pooling", &choices)?.into_iter().collect());
    };
    let one = |name: &Value| name.as_str().and_then(Pooling::parse);
    match several.iter().map(one).collect::<Option<Vec<_>>>() {
        Some(poolings) if !poolings.is_empty() => Ok(poolings),
        _ => {
            let names = choices.map(|(name, _)| format!("'{name}'")).join(", ");
            read.wrong("pooling", &Value::Array(several.clone()), &format!("a list of {names}"))
        }
    }
}

/// Choices, and the one of none of them.
fn or_auto<T: Copy, const N: usize>(choices: [(&'static str, T); N]) -> Vec<(&'static str, Option<T>)> {
    let auto = std::iter::once(("auto", None));
    auto.chain(choices.into_iter().map(|(name, choice)| (name, Some(choice)))).collect()
}

/// How BM25 weighs words.
fn bm25(read: &Reader) -> Result<Bm25Options> {
    Ok(Bm25Options {
        k: read.number("k", 0.0, 1e3)?,
        b: read.number("b", 0.0, 1.0)?,
        average_length: read.number("averageLength", 1e-3, 1e9)?,
    })
}

/// What is said about a server, and the name of the model.
fn remote(read: &Reader) -> Result<(Option<String>, RemoteOptions)> {
    let (path, fingerprint) = (read.string("modelPath")?, read.string("fingerprint")?);
    let given = match read.get("remote") {
        None => return Ok((path, RemoteOptions { fingerprint, ..RemoteOptions::default() })),
        Some(Value::Object(given)) => given,
        Some(other) => return read.wrong("remote", other, "an object such as { kind: 'ollama', model: 'NAME' }"),
    };
    let inner = Reader::new("remote.", given);
    let size = |value: Option<u64>| value.map(|value| value as usize);
    let headers = match inner.get("headers") {
        None => Vec::new(),
        Some(Value::Object(headers)) => {
            let secret = |(name, value): (&String, &Value)| match value.as_str() {
                Some(value) => Ok((name.clone(), Secret::new(value.to_owned()))),
                None => Err(Error::config(format!("remote.headers.{name}"), "it is not a string")),
            };
            headers.iter().map(secret).collect::<Result<_>>()?
        }
        Some(_) => return Err(Error::config("remote.headers", "it is not an object of strings")),
    };
    let own = inner.string("fingerprint")?;
    let remote = RemoteOptions {
        kind: inner.one_of("kind", &Kind::ALL.map(|kind| (kind.as_str(), kind)))?,
        url: inner.secret("url")?,
        model: inner.string("model")?,
        api_key: inner.secret("apiKey")?,
        headers,
        dimensions: size(inner.count("dimensions", 1 << 20)?),
        max_batch_items: size(inner.count("maxBatchItems", MOST_ITEMS)?),
        max_batch_tokens: size(inner.count("maxBatchTokens", 1 << 40)?),
        concurrency: size(inner.count("concurrency", MOST_REQUESTS)?),
        timeout: inner.count("timeoutMs", (1 << 31) - 1)?.map(Duration::from_millis),
        retries: inner.whole("retries", 0, MOST_RETRIES)?.map(|retries| retries as u32),
        fingerprint: read.either(("remote.fingerprint", own), ("fingerprint", fingerprint))?,
    };
    Ok((Some(remote.name(path.as_deref())?), remote))
}

/// Most requests at a time: each has a thread that waits for it.
const MOST_REQUESTS: u64 = 256;

/// Most attempts beside the first.
const MOST_RETRIES: u64 = 100;

/// Providers by name or library; and whether they are left open.
fn providers(read: &Reader) -> Result<(Vec<Provider>, bool)> {
    const OPTION: &str = "executionProviders";
    let Some(value) = read.get(OPTION) else { return Ok((Vec::new(), false)) };
    if value == "auto" {
        return Ok((Vec::new(), true));
    }
    let known = Provider::NAMED.map(|provider| format!("'{}'", provider.as_str())).join(", ");
    let list = value.as_array().filter(|list| !list.is_empty());
    let Some(list) = list else {
        return read.wrong(OPTION, value, &format!("'auto', or a list of {known} and {{ library }}"));
    };
    let mut providers = Vec::new();
    for (index, item) in list.iter().enumerate() {
        let named = Provider::NAMED.into_iter().find(|provider| item.as_str() == Some(provider.as_str()));
        let provider = match (named, item) {
            (Some(provider), _) => provider,
            (None, Value::Object(given)) if !given.contains_key("unlike") => {
                Provider::Plugin(Arc::new(plugin(&Reader::new(&format!("{OPTION}[{index}]."), given))?))
            }
            _ => return read.wrong(OPTION, item, &format!("one of {known}, or {{ library }}")),
        };
        if providers.contains(&provider) {
            return Err(Error::config(OPTION, format!("{item} is in it twice")));
        }
        providers.push(provider);
    }
    Ok((providers, false))
}

fn plugin(read: &Reader) -> Result<Plugin> {
    let Some(library) = read.string("library")? else {
        return Err(Error::config(format!("{}library", read.prefix), "a plugin needs the path of its library"));
    };
    let mut options = BTreeMap::new();
    if let Some(given) = read.get("options") {
        let Value::Object(given) = given else { return read.wrong("options", given, "an object of texts") };
        for (key, value) in given {
            match value.as_str().filter(|value| !value.contains('\0') && !key.contains('\0')) {
                Some(value) => drop(options.insert(key.clone(), value.to_owned())),
                None => return read.wrong(&format!("options.{key}"), value, "text"),
            }
        }
    }
    let device = read.whole("device", 0, 1 << 16)?.unwrap_or_default() as usize;
    Ok(Plugin { library: library.into(), name: read.string("name")?, device, options })
}

/// Parses a model store's options: where it is.
pub(super) fn model_store(options: &Map<String, Value>) -> Result<Option<PathBuf>> {
    let read = Reader::new("", options);
    Ok(read.string("cacheDir")?.map(Into::into))
}

/// Parses what of a model shall be added.
pub(super) fn added_model(options: &Map<String, Value>) -> Result<ModelOptions> {
    let read = Reader::new("", options);
    let dtypes = Dtype::ALL.map(|dtype| (dtype.as_str(), dtype));
    let hub = HubOptions { revision: read.string("revision")?, ..HubOptions::default() };
    Ok(ModelOptions { hub, dtype: read.one_of("dtype", &dtypes)?, ..ModelOptions::default() })
}

fn prompts(read: &Reader) -> Result<PromptOptions> {
    let prompts = match read.get("prompts") {
        None => return Ok(PromptOptions::default()),
        Some(Value::Object(prompts)) => prompts,
        Some(other) => {
            return read.wrong("prompts", other, "an object such as { query: 'query: ', document: 'passage: ' }");
        }
    };
    let read = Reader::new("prompts.", prompts);
    let prompt = |name| match read.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => read.wrong(name, other, "a string"),
    };
    Ok(PromptOptions { document: prompt("document")?, query: prompt("query")?, name: None })
}

/// Parses a call's options, without its signal and callbacks.
pub(super) fn call(options: &Map<String, Value>) -> Result<CallOptions> {
    let read = Reader::new("", options);
    let input_types = [InputType::Document, InputType::Query].map(|input_type| (input_type.as_str(), input_type));
    Ok(CallOptions {
        input_type: read.one_of("inputType", &input_types)?.unwrap_or_default(),
        on_error: read.one_of("onError", &[("throw", OnError::Throw), ("skip", OnError::Skip)])?.unwrap_or_default(),
        batch_size: read.count("batchSize", 1 << 20)?.map(|value| value as usize),
        max_concurrency: read.count("maxConcurrency", 1 << 20)?.map(|value| value as usize),
        memory_limit: read.megabytes("memoryLimit")?,
        bypass_cache: read.boolean("bypassCache")?.unwrap_or_default(),
        max_pixels: read.count("maxPixels", 1 << 30)?,
        ..CallOptions::default()
    })
}

/// Longest time to live in ms: beyond this, clocks are no longer integers in JavaScript. Some 285 thousand years.
const LONGEST_MS: f64 = 9e15;

/// Most bytes and entries of a cache.
const MOST: u64 = 1 << 50;

/// Parses a cache's options, and its namespace and model.
pub(super) fn cache(options: &Map<String, Value>) -> Result<(CacheOptions, String, String)> {
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

/// Longest that anything waits for a server: the longest timer of Node.js.
const LONGEST_WAIT_MS: u64 = (1 << 31) - 1;

/// Parses a result cache's options.
pub(super) fn results(options: &Map<String, Value>) -> Result<ResultsOptions> {
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

/// Most items of a batch.
const MOST_ITEMS: u64 = 1 << 20;

/// Parses a batch optimizer's options.
pub(super) fn optimizer(
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
pub(super) fn memory(prefix: &str, options: &Map<String, Value>) -> Result<MemoryOptions> {
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
