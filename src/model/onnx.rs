//! ONNX Runtime: the only file that names it.
//!
//! One session per model, called by many threads at once, each run on one thread by default: with small batches that is
//! faster than one run on many threads, and the weights are held once.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ort::AsPointer;
use ort::environment::Environment;
use ort::ep::{self, ExecutionProviderDispatch};
use ort::logging::LogLevel;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{RunOptions, Session};
use ort::value::{DynValue, Outlet, Tensor, TensorElementType};

use super::directory::{self, HashedWeights, ModelSpec};
use super::memory_cost::MemoryCost;
use super::pooling::Head;
use super::vision::{ImageGraph, PIXELS, RunMemory};
use super::{Dtype, Model, ModelInfo, ModelOptions, Pooling, Provider, RunError, Then, library};
use crate::cancel::Cancel;
use crate::embedding::{Fingerprint, InputType, Modality, Tokens};
use crate::error::{Error, Result};
use crate::text;

/// Outputs that hold one vector per text, then those that hold one per token; best first.
const SENTENCE_OUTPUTS: [&str; 1] = ["sentence_embedding"];
const TOKEN_OUTPUTS: [&str; 2] = ["last_hidden_state", "token_embeddings"];

/// Tokens of the text from which a model's price is learned: a run of tens of milliseconds.
const PRICED_LENGTH: usize = 128;

/// Tells ONNX Runtime to give back, after a run, what its arena has kept.
const SHRINK: (&str, &str) = ("memory.enable_memory_arena_shrinkage", "cpu:0");

/// What a graph can ask for.
#[derive(Clone, Copy, PartialEq)]
enum Feed {
    Ids,
    Mask,
    TypeIds,
    Positions,
}

impl Feed {
    fn named(name: &str) -> Option<Self> {
        match name {
            "input_ids" => Some(Self::Ids),
            "attention_mask" => Some(Self::Mask),
            "token_type_ids" => Some(Self::TypeIds),
            "position_ids" => Some(Self::Positions),
            _ => None,
        }
    }
}

struct Input {
    feed: Feed,
    wide: bool,
}

/// A compiled graph. Safe to call from many threads at once.
pub(super) struct Graph {
    session: ManuallyDrop<Session>,
    /// Held by the one run that there may be at a time, where providers do not take more.
    turn: Option<Mutex<()>>,
    /// The names of its inputs, in the order in which runs give them.
    inputs: Vec<CString>,
    runtime: String,
    providers: Vec<Provider>,
    intra_op_threads: usize,
}

/// A transformer or static embedding model in ONNX.
pub(super) struct OnnxModel {
    graph: Graph,
    inputs: Vec<Input>,
    output: CString,
    output_dtype: &'static str,
    head: Head,
    /// Length of the graph's own vectors; 0 until the first run has told.
    width: usize,
    pad_id: u32,
    first_position: u32,
    memory_cost: MemoryCost,
    info: ModelInfo,
}

impl OnnxModel {
    /// A model whose graph was compiled. Runs it once, so that a model that cannot work fails here and not later. Its
    /// identity is still open, see [`OnnxModel::identified`].
    pub fn new(id: &str, spec: &ModelSpec, options: &ModelOptions, graph: Graph, cancel: &Cancel) -> Result<Self> {
        let bad = |reason: String| Error::model(&spec.onnx, reason);
        if spec.tokenizer_json.is_empty() {
            return Err(directory::no_tokenizer(&spec.root));
        }
        let session = &graph.session;
        let inputs =
            session.inputs().iter().map(|input| parse_input(input).map_err(bad)).collect::<Result<Vec<_>>>()?;
        if !inputs.iter().any(|input| input.feed == Feed::Ids) {
            return Err(bad("it has no input named input_ids, so it is not a text embedding model".to_owned()));
        }
        // An explicit pooling asks for the tokens' own vectors; otherwise what the graph pools itself is preferred.
        let preferred: Vec<&str> = match options.pooling {
            Some(_) => TOKEN_OUTPUTS.iter().chain(&SENTENCE_OUTPUTS).copied().collect(),
            None => SENTENCE_OUTPUTS.iter().chain(&TOKEN_OUTPUTS).copied().collect(),
        };
        let output = preferred.iter().find_map(|name| session.outputs().iter().find(|output| output.name() == *name));
        let output = output.ok_or_else(|| {
            let found: Vec<&str> = session.outputs().iter().map(Outlet::name).collect();
            let known: Vec<&str> = SENTENCE_OUTPUTS.iter().chain(&TOKEN_OUTPUTS).copied().collect();
            bad(format!(
                "it has no output to read vectors from: it has {}, one of {} is needed",
                found.join(", "),
                known.join(", ")
            ))
        })?;
        let output_dtype = match output.dtype().tensor_type() {
            Some(TensorElementType::Float32) => "fp32",
            Some(TensorElementType::Float16) => "fp16",
            other => {
                return Err(bad(format!(
                    "its output {} is {other:?}; float32 and float16 are supported",
                    output.name()
                )));
            }
        };
        let pooled = SENTENCE_OUTPUTS.contains(&output.name());
        if pooled && options.pooling.is_some() {
            let reason =
                format!("the graph pools by itself: it has {} but no output with a vector per token", output.name());
            return Err(Error::config("pooling", reason));
        }
        let unsaid: Vec<&str> = [
            (spec.pooling.is_none() && !pooled).then_some("pooling: 'mean' | 'cls' | 'last_token' | 'max'"),
            spec.normalize.is_none().then_some("normalize: true | false"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let (Some(normalize), true) = (spec.normalize, unsaid.is_empty()) else {
            let reason = format!(
                "nothing in its files says how its vectors are made (no modules.json): pass {}, as the model's authors describe it",
                unsaid.join(" and ")
            );
            return Err(bad(reason));
        };
        let head = Head {
            pooling: if pooled { None } else { spec.pooling },
            dense: if pooled { Vec::new() } else { spec.dense.clone() },
            dimensions: options.dimensions,
            normalize,
        };
        let output_name = output.name().to_owned();
        let mut model = Self {
            output: CString::new(output_name.as_str()).map_err(|error| bad(error.to_string()))?,
            output_dtype,
            inputs,
            head,
            width: 0,
            pad_id: spec.pad_id,
            first_position: spec.first_position,
            memory_cost: MemoryCost::guess(0),
            info: ModelInfo {
                model_id: id.to_owned(),
                modality: Modality::Text,
                model_path: spec.onnx.display().to_string(),
                repository: spec.origin.as_ref().map(|(repository, _)| repository.clone()),
                revision: spec.origin.as_ref().map(|(_, commit)| commit.clone()),
                dimensions: 0,
                max_length: Some(spec.max_length),
                pooling: if pooled { None } else { spec.pooling },
                normalize,
                output: Some(output_name),
                dtype: Some(Dtype::named(&spec.onnx).map_or(output_dtype, Dtype::as_str)),
                batch_invariant: false,
                intra_op_threads: graph.intra_op_threads,
                runtime: graph.runtime.clone(),
                providers: graph.providers.clone(),
                remote: None,
                fingerprint: Fingerprint::builder().finish(),
            },
            graph,
        };
        (model.width, model.info.dimensions) =
            model.probe(options, cancel).map_err(|reason| cancel.check().err().unwrap_or_else(|| bad(reason)))?;
        model.memory_cost = model.learn_memory_cost(cancel).unwrap_or_else(|| MemoryCost::guess(model.width));
        Ok(model)
    }

    /// The model with what only the hashed weights tell.
    pub fn identified(mut self, spec: &ModelSpec, weights: &HashedWeights) -> Self {
        self.info.batch_invariant = !weights.dynamic_quantization;
        self.info.fingerprint = fingerprint(spec, weights, &self.info, self.output_dtype);
        self
    }

    /// Runs one token through the graph and the head; gives the width of the graph's vectors and the length of ours.
    fn probe(&self, options: &ModelOptions, cancel: &Cancel) -> Result<(usize, usize), String> {
        // The first token of any vocabulary; a padding id may lie outside the table.
        let token = Tokens { ids: vec![0], total: 1, ..Tokens::default() };
        let probe = |output: &[f32], width: usize| {
            let full = self.head.full_width(width)?;
            if let Some(dimensions) = options.dimensions.filter(|&dimensions| dimensions > full) {
                return Err(format!("dimensions: {dimensions} is more than the {full} that the model has"));
            }
            let mut vector = Vec::new();
            self.head.apply(output, width, [1].into_iter(), &mut vector);
            if vector.iter().any(|value| !value.is_finite()) {
                return Err("its vectors are not finite numbers: the weights are damaged".to_owned());
            }
            Ok((width, vector.len()))
        };
        self.infer(&[&token], cancel, probe).map_err(|reason| format!("a first run of the model failed: {reason}"))?
    }

    /// Runs two texts, one after the other, and sees what they take. `None` where the runtime does not tell.
    fn learn_memory_cost(&self, cancel: &Cancel) -> Option<MemoryCost> {
        let idle = self.graph.memory()?.now;
        let longest = self.info.max_length.map_or(PRICED_LENGTH, |longest| longest.min(PRICED_LENGTH));
        let measure = |length: usize| {
            let tokens = Tokens { ids: vec![0; length], total: length, ..Tokens::default() };
            // The arena's peak only ever rises, so the shorter text comes first.
            self.infer(&[&tokens], cancel, |_, _| ()).ok()?;
            Some((length, self.graph.memory()?.peak.saturating_sub(idle)))
        };
        let short = measure((longest / 4).max(1))?;
        Some(MemoryCost::fit(short, measure(longest)?))
    }

    /// Runs the graph and hands its output for `batch`, and the length of each of its vectors, to `read`.
    fn infer<T>(&self, batch: &[&Tokens], cancel: &Cancel, read: impl FnOnce(&[f32], usize) -> T) -> Result<T, String> {
        self.infer_with(batch, cancel, &[], read)
    }

    /// The same, with settings of the run.
    fn infer_with<T>(
        &self,
        batch: &[&Tokens],
        cancel: &Cancel,
        settings: &[(&str, &str)],
        read: impl FnOnce(&[f32], usize) -> T,
    ) -> Result<T, String> {
        // Taken first, so that it is given back last: the tensors below belong to the runtime too.
        let _inside = GATE.enter(cancel).map_err(|error| error.to_string())?;
        let rows = batch.len();
        let longest = batch.iter().map(|tokens| tokens.ids.len()).max().unwrap_or(0);
        if batch.iter().any(|tokens| tokens.ids.is_empty()) {
            return Err("the tokenizer found nothing in it that the model could read".to_owned());
        }
        let value = |feed: Feed, tokens: &Tokens, at: usize| match (feed, tokens.ids.get(at)) {
            (Feed::Ids, id) => *id.unwrap_or(&self.pad_id),
            (Feed::Mask, id) => u32::from(id.is_some()),
            (Feed::TypeIds, _) => tokens.type_ids.as_ref().and_then(|ids| ids.get(at)).copied().unwrap_or(0),
            (Feed::Positions, Some(_)) => self.first_position.saturating_add(at as u32),
            (Feed::Positions, None) => self.first_position.saturating_sub(1),
        };
        let cells =
            |feed: Feed| batch.iter().flat_map(move |tokens| (0..longest).map(move |at| value(feed, tokens, at)));
        let shape = [rows as i64, longest as i64];
        let tensors = self.inputs.iter().map(|input| {
            if input.wide {
                let cells: Vec<i64> = cells(input.feed).map(i64::from).collect();
                Tensor::from_array((shape, cells)).map(Tensor::into_dyn)
            } else {
                let cells: Vec<i32> = cells(input.feed).map(|cell| cell as i32).collect();
                Tensor::from_array((shape, cells)).map(Tensor::into_dyn)
            }
        });
        let tensors: Vec<DynValue> = tensors.collect::<ort::Result<_>>().map_err(|error| error.to_string())?;
        let output = self.graph.run(&tensors, &self.output, cancel, settings)?;
        let dims: Vec<i64> = output.dtype().tensor_shape().map(|shape| shape.to_vec()).unwrap_or_default();
        let expected = if self.head.pooling.is_some() { 3 } else { 2 };
        let width = match dims.last() {
            Some(&width) if width > 0 && dims.len() == expected && dims[..expected - 1] == shape[..expected - 1] => {
                width as usize
            }
            _ => {
                return Err(format!(
                    "its output {} has the shape {dims:?} for {rows} texts of {longest} tokens",
                    self.output.to_string_lossy()
                ));
            }
        };
        if self.width != 0 && width != self.width {
            let output = self.output.to_string_lossy();
            return Err(format!("its output {output} was {} wide at first and is {width} now", self.width));
        }
        match output.try_extract_tensor::<f32>() {
            Ok((_, values)) => Ok(read(values, width)),
            Err(_) => {
                let (_, values) = output.try_extract_tensor::<half::f16>().map_err(|error| error.to_string())?;
                let values: Vec<f32> = values.iter().map(|value| value.to_f32()).collect();
                Ok(read(&values, width))
            }
        }
    }
}

impl Graph {
    /// Compiles the graph of a model.
    pub fn compile(spec: &ModelSpec, options: &ModelOptions, cancel: &Cancel) -> Result<Self> {
        let runtime = runtime()?;
        let intra_op_threads = options.intra_op_threads.unwrap_or(1);
        let providers = if options.providers.is_empty() { vec![Provider::Cpu] } else { options.providers.clone() };
        let session = compile(runtime, spec, intra_op_threads, &providers, cancel)?;
        let names = session.inputs().iter().map(|input| CString::new(input.name()));
        let inputs = names.collect::<Result<_, _>>().map_err(|error| Error::model(&spec.onnx, error.to_string()))?;
        Ok(Self {
            session: ManuallyDrop::new(session),
            turn: providers.iter().any(|provider| *provider != Provider::Cpu).then(Mutex::default),
            inputs,
            runtime: runtime.build.clone(),
            providers,
            intra_op_threads,
        })
    }

    /// Whether it asks for images.
    pub fn reads_images(&self) -> bool {
        self.inputs.iter().any(|name| name.as_bytes() == PIXELS.as_bytes())
    }

    /// Memory that runs have. `None` where the runtime does not tell.
    pub fn memory(&self) -> Option<RunMemory> {
        Some(RunMemory { now: self.arena("InUse")?, peak: self.arena("MaxInUse")? })
    }

    /// A figure of the arena from which runs take their memory, in bytes.
    fn arena(&self, name: &str) -> Option<u64> {
        let info = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default).ok()?;
        let arena = Allocator::new(&self.session, info).ok()?;
        let key = CString::new(name).ok()?;
        let mut pairs = ptr::null_mut();
        // SAFETY: the allocator lives until the end of this function, and the pairs are ours from here on.
        let status = unsafe { (ort::api().AllocatorGetStats)(arena.ptr(), &mut pairs) };
        // SAFETY: the status was just returned by the call above and is used once.
        unsafe { ort::Error::result_from_status(status) }.ok()?;
        // SAFETY: the pairs are not null after a success; the value belongs to them, or is null, and is copied before
        // they are released, which happens once.
        unsafe {
            let value = (ort::api().GetKeyValue)(pairs, key.as_ptr());
            let text = (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned());
            (ort::api().ReleaseKeyValuePairs)(pairs);
            text?.parse().ok()
        }
    }

    /// `OrtApi::Run`, called directly because ort's `Session::run` takes `&mut self`.
    fn run(
        &self,
        tensors: &[DynValue],
        output_name: &CStr,
        cancel: &Cancel,
        settings: &[(&str, &str)],
    ) -> Result<DynValue, String> {
        let mut options = RunOptions::new().map_err(|error| error.to_string())?;
        for (key, value) in settings {
            options.set(key, value).map_err(|error| error.to_string())?;
        }
        let options = Arc::new(options);
        let _hook = cancel.on_cancel({
            let options = Arc::clone(&options);
            // It can only fail if the options were null.
            move |_| drop(options.terminate())
        });
        let names: Vec<_> = self.inputs.iter().map(|name| name.as_ptr()).collect();
        let values: Vec<_> = tensors.iter().map(|tensor| tensor.ptr()).collect();
        let mut output = ptr::null_mut();
        let _turn = self.turn.as_ref().map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: all pointers outlive the call; names and values have the same length; the output's slot is null, so the
        // runtime allocates. Many threads may call Run on one session: ONNX Runtime documents that, and its CPU provider
        // keeps it. ort asks for `&mut` because other providers do not: with those, `turn` lets in one at a time.
        let status = unsafe {
            (ort::api().Run)(
                self.session.ptr().cast_mut(),
                options.ptr(),
                names.as_ptr(),
                values.as_ptr(),
                values.len(),
                &output_name.as_ptr(),
                1,
                &mut output,
            )
        };
        // SAFETY: the status was just returned by the call above and is used once.
        unsafe { ort::Error::result_from_status(status) }.map_err(|error| error.to_string())?;
        let output = NonNull::new(output).ok_or("ONNX Runtime returned no output")?;
        // SAFETY: Run succeeded, so this is a value that nobody else owns, made by the session's allocator.
        Ok(unsafe { DynValue::from_ptr(output, Some(self.session.allocator())) })
    }
}

impl ImageGraph for Graph {
    fn inputs(&self) -> Vec<&str> {
        self.session.inputs().iter().map(Outlet::name).collect()
    }

    fn outputs(&self) -> Vec<(&str, Option<&'static str>)> {
        let kind = |output: &Outlet| match output.dtype().tensor_type() {
            Some(TensorElementType::Float32) => Some("fp32"),
            Some(TensorElementType::Float16) => Some("fp16"),
            _ => None,
        };
        self.session.outputs().iter().map(|output| (output.name(), kind(output))).collect()
    }

    fn takes_half(&self) -> bool {
        let pixels = self.session.inputs().iter().find(|input| input.name() == PIXELS);
        pixels.is_some_and(|input| input.dtype().tensor_type() == Some(TensorElementType::Float16))
    }

    fn run(
        &self,
        pixels: Vec<f32>,
        shape: [usize; 4],
        output: &CStr,
        cancel: &Cancel,
        shrink: bool,
    ) -> Result<(Vec<i64>, Vec<f32>), String> {
        // Taken first, so that it is given back last: the tensors below belong to the runtime too.
        let _inside = GATE.enter(cancel).map_err(|error| error.to_string())?;
        let shape = shape.map(|size| size as i64);
        let tensor = if self.takes_half() {
            let pixels: Vec<half::f16> = pixels.into_iter().map(half::f16::from_f32).collect();
            Tensor::from_array((shape, pixels)).map(Tensor::into_dyn)
        } else {
            Tensor::from_array((shape, pixels)).map(Tensor::into_dyn)
        };
        let settings: &[_] = if shrink { &[SHRINK] } else { &[] };
        let tensors = [tensor.map_err(|error| error.to_string())?];
        let output = Self::run(self, &tensors, output, cancel, settings)?;
        let dims: Vec<i64> = output.dtype().tensor_shape().map(|shape| shape.to_vec()).unwrap_or_default();
        match output.try_extract_tensor::<f32>() {
            Ok((_, values)) => Ok((dims, values.to_vec())),
            Err(_) => {
                let (_, values) = output.try_extract_tensor::<half::f16>().map_err(|error| error.to_string())?;
                Ok((dims, values.iter().map(|value| value.to_f32()).collect()))
            }
        }
    }

    fn memory(&self) -> Option<RunMemory> {
        Self::memory(self)
    }

    fn computed_by(&self) -> (String, Vec<Provider>, usize) {
        (self.runtime.clone(), self.providers.clone(), self.intra_op_threads)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // While the process exits the session is left to the operating system.
        if let Ok(_inside) = GATE.enter(&Cancel::default()) {
            // SAFETY: the session is not used again: this is the only place that drops it, and self is going away.
            unsafe { ManuallyDrop::drop(&mut self.session) };
        }
    }
}

impl Model for OnnxModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn run(&self, batch: &[&Tokens], cancel: &Cancel) -> Result<Vec<f32>, RunError> {
        let vectors = self.infer(batch, cancel, |output, width| {
            let mut vectors = Vec::with_capacity(batch.len() * self.info.dimensions);
            self.head.apply(output, width, batch.iter().map(|tokens| tokens.ids.len()), &mut vectors);
            vectors
        });
        // One unusable text must not take its neighbours with it.
        vectors.map_err(|reason| RunError { error: Error::Generation { index: 0, reason }, then: Then::Alone })
    }

    fn bytes(&self, rows: usize, longest: usize) -> u64 {
        self.memory_cost.bytes(rows, longest)
    }

    fn parallel(&self, cores: usize) -> usize {
        (cores / self.info.intra_op_threads.max(1)).max(1)
    }

    fn most_rows(&self) -> usize {
        // Where a vector depends on the other rows of its batch, there are none.
        if self.info.batch_invariant { usize::MAX } else { 1 }
    }

    fn most_weight(&self) -> Option<usize> {
        None
    }

    fn shrink(&self) {
        let token = Tokens { ids: vec![0], total: 1, ..Tokens::default() };
        // There is nobody to tell of a failure, and nothing to do about it.
        drop(self.infer_with(&[&token], &Cancel::default(), &[SHRINK], |_, _| ()));
    }
}

fn parse_input(input: &Outlet) -> Result<Input, String> {
    let name = input.name();
    let feed = Feed::named(name).ok_or_else(|| {
        format!("it needs an input named {name}; known are input_ids, attention_mask, token_type_ids and position_ids")
    })?;
    let wide = match input.dtype().tensor_type() {
        Some(TensorElementType::Int64) => true,
        Some(TensorElementType::Int32) => false,
        other => return Err(format!("its input {name} is {other:?}; int64 and int32 are supported")),
    };
    Ok(Input { feed, wide })
}

fn compile(
    runtime: &Runtime,
    spec: &ModelSpec,
    intra_op_threads: usize,
    providers: &[Provider],
    cancel: &Cancel,
) -> Result<Session> {
    let offered = |provider: &Provider| runtime.providers.iter().any(|name| name == provider.as_str());
    if let Some(missing) = providers.iter().find(|provider| !offered(provider)) {
        let reason = format!(
            "the ONNX Runtime in use ({}) does not offer '{}'; it offers {}: set ORT_DYLIB_PATH to a library that was built for it, or leave the option out",
            runtime.library.display(),
            missing.as_str(),
            runtime.providers.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
        );
        return Err(Error::config("executionProviders", reason));
    }
    let _inside = GATE.enter(cancel)?;
    let build = || -> ort::Result<Session> {
        let mut builder = Session::builder(&runtime.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(intra_op_threads)?
            .with_inter_threads(1)?
            // DirectML does not work with it.
            .with_memory_pattern(!providers.contains(&Provider::DirectMl))?
            .with_log_level(LogLevel::Fatal)?
            .with_execution_providers(
                providers.iter().filter_map(|provider| dispatch(*provider)).collect::<Vec<_>>(),
            )?;
        let canceler = builder.canceler();
        let _hook = cancel.on_cancel(move |_| drop(canceler.cancel()));
        builder.commit_from_file(&spec.onnx)
    };
    build().map_err(|error| {
        let reason = || Error::model(&spec.onnx, format!("ONNX Runtime cannot read it: {error}"));
        cancel.check().err().unwrap_or_else(reason)
    })
}

/// How a provider is asked for. The CPU always comes last by itself.
fn dispatch(provider: Provider) -> Option<ExecutionProviderDispatch> {
    let dispatch = match provider {
        Provider::Cpu => return None,
        Provider::Cuda => ep::CUDA::default().build(),
        Provider::CoreMl => ep::CoreML::default().build(),
        Provider::DirectMl => ep::DirectML::default().build(),
    };
    // Without its driver, say: nobody who asks for a GPU wants to wait for a CPU instead.
    Some(dispatch.error_on_failure())
}

fn fingerprint(spec: &ModelSpec, weights: &HashedWeights, info: &ModelInfo, output_dtype: &str) -> Fingerprint {
    let number = |value: usize| (value as u64).to_le_bytes();
    let mut builder = Fingerprint::builder()
        .field("weights", weights.sha256)
        .field("tokenizer.json", &spec.tokenizer_json)
        .field("output", info.output.as_deref().unwrap_or_default())
        .field("pooling", info.pooling.map_or("graph", Pooling::as_str))
        .field("normalize", [u8::from(info.normalize)])
        .field("dimensions", number(info.dimensions))
        .field("dtype", output_dtype)
        .field("max_length", number(spec.max_length))
        .field("prompt", spec.prompts.of(InputType::Document))
        .field("query prompt", spec.prompts.of(InputType::Query))
        .field("case", [u8::from(spec.lowercase)])
        .field("preparation", text::PREPARATION_VERSION.to_le_bytes());
    if let Some((_, commit)) = &spec.origin {
        builder = builder.field("revision", commit);
    }
    // Other hardware computes with fewer bits: vectors are close to those of the CPU, but not as close as those of one
    // space have to be.
    for provider in info.providers.iter().filter(|provider| **provider != Provider::Cpu) {
        builder = builder.field("provider", provider.as_str());
    }
    for (name, bytes) in &spec.config_files {
        builder = builder.field(name, bytes);
    }
    builder.finish()
}

/// The ONNX Runtime of this process.
struct Runtime {
    environment: Environment,
    build: String,
    library: PathBuf,
    /// What it offers, as options spell it.
    providers: Vec<String>,
}

/// Held while the library loads.
static LOADING: Mutex<()> = Mutex::new(());

/// Waits until nobody loads the library. For a thread of JS that ends, as it does before its process may.
pub fn await_load() {
    drop(LOADING.lock());
}

/// Loads the library at the first call. A failure is not remembered: the user may mend it and try again.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let _one_at_a_time = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let library = library::find()?;
    let failed = |error: &dyn std::error::Error| {
        let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        Error::model(&library, format!("ONNX Runtime could not be loaded: {error}{cause}"))
    };
    // Versions 1.29 and later report home unless told not to before they are loaded.
    // SAFETY: runs once per process, under the lock above. What remains is the race of every setenv with a getenv on
    // another thread, which Node.js itself accepts at each assignment to process.env.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
    // Until the handler below stands, only `close` keeps an exit of the process from running into the load.
    let _inside = GATE.enter(&Cancel::default())?;
    let environment = ort::init_from(&library).map_err(|error| failed(&error))?;
    // Registered after the library was loaded, so that it runs before the library's static destructors.
    // SAFETY: the handler is a plain function without captures and does not unwind.
    unsafe { libc::atexit(close_at_exit) };
    let environment =
        environment.with_name("embedcore").with_telemetry(false).build().map_err(|error| failed(&error))?;
    environment.set_log_level(LogLevel::Fatal);
    let (build, providers) = (ort::info().to_owned(), offered());
    Ok(RUNTIME.get_or_init(|| Runtime { environment, build, library, providers }))
}

/// The execution providers that the loaded library was built with.
fn offered() -> Vec<String> {
    let (mut names, mut count) = (ptr::null_mut(), 0);
    // SAFETY: the library is loaded; both pointers are to places for the answer.
    let status = unsafe { (ort::api().GetAvailableProviders)(&mut names, &mut count) };
    // SAFETY: the status was just returned by the call above and is used once.
    if unsafe { ort::Error::result_from_status(status) }.is_err() || names.is_null() {
        return vec![Provider::Cpu.as_str().to_owned()];
    }
    let spelt = |index| {
        // SAFETY: the call above has filled `count` pointers to strings that end with a zero.
        let name = unsafe { CStr::from_ptr(*names.add(index)) }.to_string_lossy();
        let name = name.strip_suffix("ExecutionProvider").unwrap_or(&name).to_ascii_lowercase();
        if name == "dml" { Provider::DirectMl.as_str().to_owned() } else { name }
    };
    let mut spelt: Vec<String> = (0..usize::try_from(count).unwrap_or(0)).map(spelt).collect();
    // SAFETY: gives back what the call above gave, once. The answer is of no interest: nothing can be done.
    let released = unsafe { (ort::api().ReleaseAvailableProviders)(names, count) };
    // SAFETY: as above.
    drop(unsafe { ort::Error::result_from_status(released) });
    spelt.sort();
    spelt
}

/// Everything that is inside ONNX Runtime right now. At process exit the gate is closed and emptied, because the
/// library's static destructors must not run under a live inference.
struct Gate {
    inside: Mutex<Inside>,
    left: Condvar,
}

struct Inside {
    closed: bool,
    next: u64,
    calls: BTreeMap<u64, Cancel>,
}

static GATE: Gate =
    Gate { inside: Mutex::new(Inside { closed: false, next: 0, calls: BTreeMap::new() }), left: Condvar::new() };

/// How long a process waits at exit for runs that were told to stop. One operator takes milliseconds.
const EXIT_WAIT: Duration = Duration::from_secs(10);

struct GatePass(u64);

impl Gate {
    fn enter(&self, cancel: &Cancel) -> Result<GatePass> {
        cancel.check()?;
        let mut inside = self.lock();
        if inside.closed {
            return Err(Error::Closed);
        }
        let id = inside.next;
        inside.next += 1;
        inside.calls.insert(id, cancel.clone());
        Ok(GatePass(id))
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for GatePass {
    fn drop(&mut self) {
        GATE.lock().calls.remove(&self.0);
        GATE.left.notify_all();
    }
}

extern "C" fn close_at_exit() {
    close();
}

/// Lets nothing into ONNX Runtime any more, stops what is inside and waits for it. For a process that ends: it must not
/// begin to, on one thread, while the library is loaded on another.
pub fn close() {
    let calls: Vec<Cancel> = {
        let mut inside = GATE.lock();
        inside.closed = true;
        inside.calls.values().cloned().collect()
    };
    calls.iter().for_each(|call| call.cancel(Error::Closed));
    let inside = GATE.lock();
    drop(GATE.left.wait_timeout_while(inside, EXIT_WAIT, |inside| !inside.calls.is_empty()));
}
