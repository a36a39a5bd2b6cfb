//! Options as they cross → options that are valid. Defaults live in the core; which options there are is in `lib/`, where
//! all others are refused.

mod cache;
mod memory;
mod reader;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

pub(super) use cache::{cache, results};
use memory::MOST_ITEMS;
pub(super) use memory::{memory, optimizer};
use reader::Reader;

use crate::batch::sizing::BatchSizer;
use crate::coherence::{CoherenceOptions, ShrinkageTarget};
use crate::embedding::{InputType, Task};
use crate::error::{Error, Result};
use crate::generator::{Batching, CallOptions, GeneratorOptions, OnError, StateDir};
use crate::memory::MemoryOptions;
use crate::metrics::MetricsOptions;
use crate::model::{
    self, Bm25Options, Dtype, Engine, HubOptions, Kind, ModelOptions, Plugin, Pooling, PromptOptions, Provider,
    RemoteOptions, Secret,
};

/// Longest that anything waits for a server: the longest timer of Node.js.
const LONGEST_WAIT_MS: u64 = (1 << 31) - 1;

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
