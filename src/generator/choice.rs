//! Which engine computes a model, by which provider, and in how many bits: what was asked for, or else what is faster here and agrees with
//! the reference.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::StateDir;
use super::agreement::Probes;
use super::learned::Kept;
use super::threads::Trial;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::host;
use crate::model::{self, Compute, Engine, Model, ModelFiles, ModelOptions, Precision, Provider, Unloaded};
use crate::scheduler::Scheduler;
use crate::tokens::Tokenizer;

/// Raised when a trial means something else than before: other texts, another measure.
const VERSION: u32 = 3;

/// How much faster than the reference another way has to be: what is left to chance must not decide about vectors.
const LEAST_GAIN: f64 = 1.1;

/// Times that each way is measured, in turns; the best one counts.
const ROUNDS: usize = 2;

/// Where the reference takes less for a batch, in seconds, calls spend their time elsewhere: nothing else is even loaded.
const WORTH_TRYING: f64 = 0.01;

/// A model, and why it is computed as it is.
pub(super) struct Chosen {
    pub model: Arc<dyn Model>,
    pub way: Way,
    pub reason: String,
}

/// How a graph may be computed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Way {
    pub compute: Compute,
    /// By which provider of ONNX Runtime; `None`: by those that the options name, or the CPU.
    provider: Option<Provider>,
}

impl From<Compute> for Way {
    fn from(compute: Compute) -> Self {
        Self { compute, provider: None }
    }
}

impl Way {
    /// All that a trial may find.
    fn all() -> impl Iterator<Item = Self> {
        let computes =
            Engine::ALL.into_iter().flat_map(|engine| Precision::ALL.map(|precision| Compute { engine, precision }));
        computes.map(Self::from).chain(Provider::NAMED.map(Self::by))
    }

    fn by(provider: Provider) -> Self {
        Self { compute: Compute::REFERENCE, provider: Some(provider) }
    }

    /// Options that name what the way is by.
    pub fn of<'a>(&self, options: &'a ModelOptions) -> Cow<'a, ModelOptions> {
        match &self.provider {
            Some(provider) => Cow::Owned(ModelOptions { providers: vec![provider.clone()], ..options.clone() }),
            None => Cow::Borrowed(options),
        }
    }

    fn name(&self) -> String {
        let Compute { engine, precision } = self.compute;
        let by = self.provider.iter().map(|provider| format!(" {}", provider.as_str()));
        format!("{} {}{}", engine.as_str(), precision.as_str(), by.collect::<String>())
    }

    /// As a person says it.
    fn spoken(&self) -> String {
        let Compute { engine, precision } = self.compute;
        match &self.provider {
            Some(provider) => format!("'{}'", provider.as_str()),
            None => format!("{} in {}", engine.name(), precision.as_str()),
        }
    }
}

/// What may be chosen, before anything is loaded.
#[derive(Debug, PartialEq)]
enum Choice {
    /// There is only this way.
    Only(Compute, String),
    /// This one, unless another is faster and agrees with it.
    Trial(Compute),
}

const OPENVINO: fn(Precision) -> Compute = |precision| Compute { engine: Engine::OpenVino, precision };

/// Why there is no bf16.
const NO_BF16: &str = "this processor has neither AVX512-BF16 nor AMX";

impl Choice {
    /// What `options` leave open for a model that has these files.
    ///
    /// # Errors
    /// `INVALID_CONFIG` for what contradicts itself, or cannot be had on this machine.
    fn of(options: &ModelOptions, files: Option<&ModelFiles>) -> Result<Self> {
        let only = |compute, reason: &str| Ok(Self::Only(compute, reason.to_owned()));
        let Some(files) = files else { return only(Compute::REFERENCE, "it has no graph here") };
        let elsewhere = options.providers.iter().find(|provider| **provider != Provider::Cpu);
        let automatic = options.engine.is_none();
        if options.any_provider && !files.is_builtin() && options.engine != Some(Engine::OpenVino) {
            return Ok(Self::Trial(Compute::REFERENCE));
        }
        match (options.engine, options.precision, elsewhere) {
            (Some(Engine::OpenVino), _, Some(provider)) => {
                let reason = format!(
                    "'openvino' computes on the CPU, and executionProviders names '{}': leave one of the two out",
                    provider.as_str()
                );
                return Err(Error::config("engine", reason));
            }
            (Some(Engine::OnnxRuntime), Some(Precision::Bf16), _) => {
                let reason = "'bf16' is computed by the engine 'openvino' alone: leave one of the two options out";
                return Err(Error::config("precision", reason));
            }
            (Some(Engine::OnnxRuntime), ..) => return only(Compute::REFERENCE, "the option engine asks for it"),
            (None, _, Some(provider)) => {
                return only(Compute::REFERENCE, &format!("executionProviders asks for '{}'", provider.as_str()));
            }
            (None, ..) if files.is_builtin() => {
                return only(Compute::REFERENCE, "the time of the built-in model is that of its tokenizer");
            }
            _ => {}
        }
        if automatic {
            return match Engine::OpenVino.installed() {
                Ok(()) => Ok(Self::Trial(Compute::REFERENCE)),
                Err(error) => only(Compute::REFERENCE, &error.to_string()),
            };
        }
        match (options.precision, Engine::OpenVino.has_bf16()?) {
            (Some(Precision::Bf16), false) => {
                Err(Error::config("precision", format!("'bf16' cannot be had: {NO_BF16}; leave it out")))
            }
            (Some(precision), _) => only(OPENVINO(precision), "the options engine and precision ask for it"),
            (None, true) => Ok(Self::Trial(OPENVINO(Precision::Fp32))),
            (None, false) => only(OPENVINO(Precision::Fp32), &format!("the option engine asks for it; {NO_BF16}")),
        }
    }

    /// What is loaded first.
    fn first(&self) -> Compute {
        match self {
            Self::Only(compute, _) | Self::Trial(compute) => *compute,
        }
    }
}

/// What else `options` permit than `first`, best first; or why nothing.
fn others(first: Compute, options: &ModelOptions) -> Result<Vec<Way>, String> {
    if first.engine == Engine::OpenVino {
        return Ok(vec![OPENVINO(Precision::Bf16).into()]);
    }
    let providers = providers(options)?;
    // 'auto' is not to fail for an engine that it was not asked for.
    let engines = match options.engine {
        Some(_) => Ok(Vec::new()),
        None => engines(options),
    };
    match engines {
        Err(reason) if providers.is_empty() => Err(reason),
        engines => Ok(providers.into_iter().chain(engines.unwrap_or_default()).collect()),
    }
}

/// What else than the CPU may compute.
fn providers(options: &ModelOptions) -> Result<Vec<Way>, String> {
    if !options.any_provider {
        return Ok(Vec::new());
    }
    let offered = model::describe_runtime().map_err(|error| error.to_string())?.providers;
    let fits = |provider: &Provider| options.device_memory.is_none() || provider.has_memory_limit();
    let others = Provider::NAMED.into_iter().filter(|provider| *provider != Provider::Cpu && fits(provider));
    let has = |provider: &Provider| {
        offered.iter().any(|name| name == provider.as_str())
            || *provider == Provider::WebGpu && model::has_webgpu_package()
    };
    let others: Vec<Way> = others.filter(has).map(Way::by).collect();
    if others.is_empty() && options.engine.is_some() {
        return Err(format!("the ONNX Runtime in use offers {} alone", offered.join(", ")));
    }
    Ok(others)
}

/// Which other engine may compute, and in how many bits.
fn engines(options: &ModelOptions) -> Result<Vec<Way>, String> {
    let bf16 = Engine::OpenVino.has_bf16().map_err(|error| error.to_string())?;
    match options.precision {
        Some(Precision::Bf16) if !bf16 => Err(NO_BF16.to_owned()),
        Some(precision) => Ok(vec![OPENVINO(precision).into()]),
        None if bf16 => Ok(vec![OPENVINO(Precision::Bf16).into(), OPENVINO(Precision::Fp32).into()]),
        None => Ok(vec![OPENVINO(Precision::Fp32).into()]),
    }
}

/// What trials depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Place {
    version: u32,
    /// Of this package, which decides about the engines'.
    package: String,
    weights: String,
    /// What it is for: the same graph may be read in several ways.
    task: String,
    machine: String,
    intra_op_threads: Option<usize>,
    /// What was left open.
    engine: Option<String>,
    precision: Option<String>,
    /// Where providers were left open: what offers them, and whether they are limited.
    runtime: Option<String>,
    limited: bool,
}

/// What a trial has found.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Found {
    place: Place,
    way: String,
    reason: String,
}

/// What trials have found in this process.
static FOUND: Mutex<Option<HashMap<Place, Found>>> = Mutex::new(None);

fn found() -> MutexGuard<'static, Option<HashMap<Place, Found>>> {
    FOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the outcome of a trial is remembered: in this process, and beside what else is learned about a model.
pub(super) struct Memory {
    place: Place,
    file: Option<Kept>,
}

impl Memory {
    /// For a trial that `options` ask for; `cache` is the file of the cache. Blocks: reads the model's weights.
    pub fn new(
        files: &ModelFiles,
        options: &ModelOptions,
        directory: &StateDir,
        cache: Option<&Path>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let weights = files.weights(cancel)?;
        let place = Place {
            version: VERSION,
            package: env!("CARGO_PKG_VERSION").to_owned(),
            weights: weights.iter().map(|byte| format!("{byte:02x}")).collect(),
            task: options.task.as_str().to_owned(),
            machine: host::machine_name(),
            intra_op_threads: options.intra_op_threads,
            engine: options.engine.map(|engine| engine.as_str().to_owned()),
            precision: options.precision.map(|precision| precision.as_str().to_owned()),
            runtime: options.any_provider.then(|| {
                let told = |runtime: model::RuntimeInfo| {
                    format!("{} {:?} {}", runtime.library.display(), runtime.providers, model::has_webgpu_package())
                };
                model::describe_runtime().map_or_else(|error| error.to_string(), told)
            }),
            limited: options.device_memory.is_some(),
        };
        let file = Kept::new(directory, cache, "engine", &place);
        Ok(Self { place, file })
    }

    /// The way that was found before, and why.
    fn recall(&self) -> Option<(Way, String)> {
        let here = found().as_ref().and_then(|found| found.get(&self.place).cloned());
        let kept = || self.file.as_ref()?.read::<Found>().filter(|found| found.place == self.place);
        let found = here.or_else(kept)?;
        Way::all().find(|way| way.name() == found.way).map(|way| (way, found.reason))
    }

    /// Remembers it. Whether that works; nothing depends on it.
    fn keep(&self, way: &Way, reason: &str) {
        let kept = Found { place: self.place.clone(), way: way.name(), reason: reason.to_owned() };
        if let Some(file) = &self.file {
            file.write(&kept);
        }
        found().get_or_insert_default().insert(self.place.clone(), kept);
    }
}

/// Loads a model in the way that is chosen.
pub(super) struct Loader<'a> {
    pub unloaded: &'a Unloaded,
    pub options: &'a ModelOptions,
    /// Whether there is memory for one more.
    pub room: &'a dyn Fn() -> Result<()>,
    pub cores: usize,
    pub cancel: &'a Cancel,
}

impl Loader<'_> {
    /// The model, and what makes its tokens. `memory` remembers what trials have found.
    ///
    /// # Errors
    /// Whatever is wrong with the options or the model; and once it is stopped.
    pub fn load(
        &self,
        memory: impl FnOnce(&ModelFiles) -> Result<Memory>,
        tokenizer: impl FnOnce() -> Option<Result<Tokenizer>> + Send,
    ) -> Result<(Chosen, Option<Tokenizer>)> {
        let files = self.unloaded.files();
        let choice = Choice::of(self.options, files)?;
        let first = Way::from(choice.first());
        let memory = match (&choice, files) {
            (Choice::Trial(_), Some(files)) => Some(memory(files)?),
            _ => None,
        };
        let known = memory.as_ref().and_then(Memory::recall);
        let mut begin = known.as_ref().map_or(first.clone(), |(way, _)| way.clone());
        (self.room)()?;
        let (mut loaded, tokenizer) =
            self.unloaded.load(begin.compute, &begin.of(self.options), self.cancel, tokenizer);
        let mut known = known.map(|(_, reason)| reason);
        if loaded.is_err() && begin != first {
            // What was found before holds no longer.
            self.cancel.check()?;
            (loaded, known, begin) = (self.one(&first), None, first.clone());
        }
        let (model, tokenizer) = (loaded?, tokenizer.transpose()?);
        let reason = match &choice {
            Choice::Only(_, reason) => Some(reason.clone()),
            Choice::Trial(_) => known,
        };
        if let Some(reason) = reason {
            return Ok((Chosen { model, way: begin, reason }, tokenizer));
        }
        let (chosen, lasting) = match &tokenizer {
            Some(tokenizer) => self.trial(model, first, tokenizer)?,
            None => {
                let reason = "built-in texts say nothing about a model that reads images".to_owned();
                (Chosen { model, way: first, reason }, false)
            }
        };
        if let Some(memory) = memory.filter(|_| lasting) {
            memory.keep(&chosen.way, &chosen.reason);
        }
        Ok((chosen, tokenizer))
    }

    fn one(&self, way: &Way) -> Result<Arc<dyn Model>> {
        self.unloaded.load(way.compute, &way.of(self.options), self.cancel, || ()).0
    }

    /// Which way is to be preferred to `first`, in which `model` is loaded; and whether that would be found again.
    fn trial(&self, model: Arc<dyn Model>, first: Way, tokenizer: &Tokenizer) -> Result<(Chosen, bool)> {
        let compared = self.compare(&model, &first, tokenizer);
        self.cancel.check()?;
        // A model may work for the texts of its user, and for none of those that are tried.
        compared.or_else(|error| Ok((Chosen { model, way: first, reason: format!("a trial failed: {error}") }, false)))
    }

    fn compare(&self, model: &Arc<dyn Model>, first: &Way, tokenizer: &Tokenizer) -> Result<(Chosen, bool)> {
        let stays =
            |reason: String, lasting| Ok((Chosen { model: Arc::clone(model), way: first.clone(), reason }, lasting));
        let seconds = Trial::of(model).seconds(self.cancel)?;
        if first.compute == Compute::REFERENCE && seconds < WORTH_TRYING {
            let reason = format!("a batch takes it less than {} ms, which leaves nothing to gain", WORTH_TRYING * 1e3);
            // Soon found again.
            return stays(reason, false);
        }
        let others = match others(first.compute, self.options) {
            Ok(others) => others,
            Err(reason) => return stays(reason, false),
        };
        let probes = Probes::new(tokenizer, model.info());
        let reference = probes.run(model, self.cancel)?;
        let (mut reasons, mut lasting) = (Vec::new(), true);
        let mut best: Option<(f64, Chosen)> = None;
        for other in others {
            let is_engine = other.provider.is_none();
            let candidate = (self.room)().and_then(|()| self.one(&other));
            let candidate = candidate.and_then(|other| Ok((probes.run(&other, self.cancel)?, other)));
            self.cancel.check()?;
            let (values, candidate) = match candidate {
                Ok(loaded) => loaded,
                Err(error) => {
                    lasting = false;
                    reasons.push(format!("{}: {error}", other.spoken()));
                    continue;
                }
            };
            let agrees = match probes.agreement(&reference, &values) {
                Ok(agrees) => agrees,
                Err(reason) => {
                    reasons.push(format!("{}: {reason}", other.spoken()));
                    continue;
                }
            };
            let gain = gain(model, &candidate, self.cores, self.cancel)?;
            let figures = format!("{gain:.2} times as fast as {} here", first.spoken());
            if gain >= LEAST_GAIN {
                let reason = format!("{} is {figures}, and {agrees}", other.spoken());
                if best.as_ref().is_none_or(|(most, _)| gain > *most) {
                    best = Some((gain, Chosen { model: candidate, way: other, reason }));
                }
                // Of engines, the better ones come first.
                if is_engine {
                    break;
                }
                continue;
            }
            reasons.push(format!("{} is {figures}, and {LEAST_GAIN} times is needed", other.spoken()));
        }
        match best {
            Some((_, chosen)) => Ok((chosen, true)),
            None => stays(reasons.join("; "), lasting),
        }
    }
}

/// How many times as fast `other` is as `one`.
fn gain(one: &Arc<dyn Model>, other: &Arc<dyn Model>, cores: usize, cancel: &Cancel) -> Result<f64> {
    let trials =
        [one, other].map(|model| -> Result<_> { Ok((Trial::of(model), Scheduler::new(model.parallel(cores))?)) });
    let [one, other] = trials;
    let trials = [one?, other?];
    let mut best = [0.0_f64; 2];
    for (trial, workers) in &trials {
        trial.warm(workers, cancel)?;
    }
    for _ in 0..ROUNDS {
        for (best, (trial, workers)) in best.iter_mut().zip(&trials) {
            *best = best.max(trial.speed(workers, 1, cancel)?);
        }
    }
    Ok(if best[0] > 0.0 { best[1] / best[0] } else { 0.0 })
}
