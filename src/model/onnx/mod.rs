//! ONNX Runtime: the only folder that names it. Here is a model's session; its providers and the library are beside it.
//!
//! One session per model, called by many threads at once, each run on one thread by default: with small batches that is
//! faster than one run on many threads, and the weights are held once.

#![allow(unsafe_code)]

mod operators;
mod providers;
mod runtime;

use std::ffi::{CStr, CString};
use std::fs;
use std::io::Read;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use ort::AsPointer;
use ort::logging::LogLevel;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, Session};
use ort::value::{DynValue, Outlet, Tensor, TensorElementType};

use super::directory::ModelSpec;
use super::gate::{self, ONNX};
use super::head::Head;
use super::lean_graph::{LeanFile, LeanGraph};
use super::pooled_graph::{Declared, Extension, POOLED};
use super::purpose::Purpose;
use super::session::{self, About, Cells, IDS, Kind, Output, Pooled, Port, Run, RunMemory};
use super::turns::Turns;
use super::{Compute, ModelOptions, Plugin, Provider, content, library, memory_cost};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

use providers::{device, dispatch, plugin, used};
use runtime::{Runtime, runtime};

pub use runtime::{RuntimeInfo, await_load, describe};

/// Tells ONNX Runtime to give back, after a run, what its arena has kept.
const SHRINK: (&str, &str) = ("memory.enable_memory_arena_shrinkage", "cpu:0");

/// A graph that ONNX Runtime has compiled.
pub(super) struct OnnxSession {
    session: ManuallyDrop<Session>,
    /// Held by each run, where providers do not take as many as come.
    turns: Option<Arc<Turns>>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// The names of both, as the runtime takes them.
    input_names: Vec<CString>,
    output_names: Vec<CString>,
    pooled: Option<Pooled>,
    about: About,
}

impl OnnxSession {
    /// Compiles a graph.
    pub fn compile(spec: &ModelSpec, options: &ModelOptions, cancel: &Cancel) -> Result<Self> {
        let runtime = runtime()?;
        let intra_op_threads = options.intra_op_threads.unwrap_or(1);
        let providers = if options.providers.is_empty() { &[Provider::Cpu][..] } else { &options.providers };
        let turns = Turns::of(providers);
        let _turn = turns.as_deref().map(Turns::take);
        let extended = if providers == [Provider::Cpu] { None } else { extended(spec, options) };
        let lean = if providers == [Provider::Cpu] { lean(spec) } else { None };
        let own = spec.onnx.parent().unwrap_or(Path::new(""));
        let extended_file = extended.as_ref().map(|(file, _)| (&file[..], own));
        let other = extended_file.or(lean.as_ref().map(|file| (&file.bytes[..], file.folder.as_path())));
        let session = match other.map(|file| compile(runtime, spec, options, providers, Some(file), cancel)) {
            Some(Ok(session)) => session,
            // What is wrong with the graph itself is told in its own words.
            Some(Err(_)) | None => {
                cancel.check()?;
                compile(runtime, spec, options, providers, None, cancel)?
            }
        };
        let (inputs, outputs) = (ports(session.inputs()), ports(session.outputs()));
        let names = |ports: &[Port]| {
            let names = ports.iter().map(|port| CString::new(port.name.as_str()));
            names.collect::<Result<_, _>>().map_err(|error| Error::model(&spec.onnx, error.to_string()))
        };
        Ok(Self {
            turns: turns.clone(),
            about: About {
                compute: Compute::REFERENCE,
                build: runtime.build.clone(),
                providers: used(runtime, &session, providers),
                intra_op_threads,
            },
            session: ManuallyDrop::new(session),
            input_names: names(&inputs)?,
            output_names: names(&outputs)?,
            pooled: outputs
                .iter()
                .position(|output| output.name == POOLED)
                .zip(extended)
                .map(|(output, (_, Extension { poolings, layers, .. }))| Pooled { output, poolings, layers }),
            inputs,
            outputs,
        })
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
    fn run_graph(&self, tensors: &[DynValue], run: &Run<'_>) -> Result<DynValue, String> {
        let mut options = RunOptions::new().map_err(|error| error.to_string())?;
        if run.shrink {
            let (key, value) = SHRINK;
            options.set(key, value).map_err(|error| error.to_string())?;
        }
        let options = Arc::new(options);
        let _hook = run.cancel.on_cancel({
            let options = Arc::clone(&options);
            // It can only fail if the options were null.
            move |_| drop(options.terminate())
        });
        let names: Vec<_> = self.input_names.iter().map(|name| name.as_ptr()).collect();
        let values: Vec<_> = tensors.iter().map(|tensor| tensor.ptr()).collect();
        let name = self.output_names.get(run.output).ok_or("there is no such output")?;
        let mut output = ptr::null_mut();
        let _turn = self.turns.as_deref().map(Turns::take);
        // SAFETY: all pointers outlive the call; names and values have the same length; the output's slot is null, so the
        // runtime allocates. Many threads may call Run on one session: ONNX Runtime documents that, and its CPU provider
        // keeps it, and that of CUDA. ort asks for `&mut` because other providers do not: with those, `turns` lets in one at a time.
        let status = unsafe {
            (ort::api().Run)(
                self.session.ptr().cast_mut(),
                options.ptr(),
                names.as_ptr(),
                values.as_ptr(),
                values.len(),
                &name.as_ptr(),
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

impl Drop for OnnxSession {
    fn drop(&mut self) {
        // While the process exits the session is left to the operating system.
        if let Ok(_inside) = ONNX.enter(&Cancel::default()) {
            let _turn = self.turns.as_deref().map(Turns::take);
            // SAFETY: the session is not used again: this is the only place that drops it, and self is going away.
            unsafe { ManuallyDrop::drop(&mut self.session) };
        }
    }
}

impl session::Session for OnnxSession {
    fn gate(&self) -> &'static gate::Gate {
        &ONNX
    }

    fn about(&self) -> &About {
        &self.about
    }

    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn run(&self, mut run: Run<'_>, read: &mut dyn FnMut(&Output<'_>)) -> Result<(), String> {
        let sizes = |shape: &[usize]| shape.iter().map(|&size| size as i64).collect::<Vec<_>>();
        let shape = || sizes(&run.shape);
        let inputs = std::mem::take(&mut run.inputs);
        let tensors = inputs.into_iter().map(|cells| match cells {
            Cells::Wide(cells) => Tensor::from_array((shape(), cells)).map(Tensor::into_dyn),
            Cells::Narrow(cells) => Tensor::from_array((shape(), cells)).map(Tensor::into_dyn),
            Cells::Real(cells) => Tensor::from_array((shape(), cells)).map(Tensor::into_dyn),
            Cells::Half(cells) => Tensor::from_array((shape(), cells)).map(Tensor::into_dyn),
            Cells::NoReals(shape) => Tensor::from_array((sizes(&shape), Vec::<f32>::new())).map(Tensor::into_dyn),
            Cells::NoHalves(shape) => {
                Tensor::from_array((sizes(&shape), Vec::<half::f16>::new())).map(Tensor::into_dyn)
            }
            Cells::Count(count, shape) => Tensor::from_array((sizes(&shape), vec![count])).map(Tensor::into_dyn),
        });
        let tensors: Vec<DynValue> = tensors.collect::<ort::Result<_>>().map_err(|error| error.to_string())?;
        let output = self.run_graph(&tensors, &run)?;
        let dims: Vec<i64> = output.dtype().tensor_shape().map(|shape| shape.to_vec()).unwrap_or_default();
        match (output.try_extract_tensor::<f32>(), &run.picked) {
            (Ok((_, values)), None) => read(&Output { dims, values }),
            (Ok((_, values)), Some(_)) => {
                let values = run.picked(&dims, values, |value| value);
                read(&Output { dims, values: &values });
            }
            (Err(_), _) => {
                let (_, values) = output.try_extract_tensor::<half::f16>().map_err(|error| error.to_string())?;
                let values = run.picked(&dims, values, half::f16::to_f32);
                read(&Output { dims, values: &values });
            }
        }
        Ok(())
    }

    fn pooled(&self) -> Option<&Pooled> {
        self.pooled.as_ref()
    }

    fn memory(&self) -> Option<RunMemory> {
        Some(RunMemory { now: self.arena("InUse")?, peak: self.arena("MaxInUse")? })
    }
}

fn ports(outlets: &[Outlet]) -> Vec<Port> {
    let kind = |outlet: &Outlet| match outlet.dtype().tensor_type() {
        Some(TensorElementType::Int32) => Kind::Int32,
        Some(TensorElementType::Int64) => Kind::Int64,
        Some(TensorElementType::Float32) => Kind::Float32,
        Some(TensorElementType::Float16) => Kind::Float16,
        Some(other) => Kind::Other(format!("{other:?}")),
        None => Kind::Other(format!("{:?}", outlet.dtype())),
    };
    let dims = |outlet: &Outlet| match outlet.dtype().tensor_shape() {
        Some(shape) => shape.iter().map(|&size| usize::try_from(size).ok()).collect(),
        None => Vec::new(),
    };
    outlets
        .iter()
        .map(|outlet| Port { name: outlet.name().to_owned(), kind: kind(outlet), dims: dims(outlet) })
        .collect()
}

/// Bytes that it takes to make a graph pool: those of its file, which is read for that where a device computes.
pub(super) fn extending_bytes(spec: &ModelSpec, options: &ModelOptions) -> u64 {
    if options.providers.iter().all(|provider| *provider == Provider::Cpu) {
        return 0;
    }
    fs::metadata(&spec.onnx).map_or(0, |file| file.len())
}

/// The graph without its weights, without what is of no use for scores, and in fewer steps; where any of that is worth it.
fn lean(spec: &ModelSpec) -> Option<LeanFile> {
    let mut lean = LeanGraph::read(&spec.onnx).ok().flatten()?;
    let scores = matches!(&spec.purpose, Purpose::Reranking(scores) if scores.is_of_graph());
    let less = scores && lean.keep_first();
    let fused = lean.fuse_norms() > 0;
    if less || fused || memory_cost::is_large(&spec.onnx) { lean.into_file() } else { None }
}

/// The file of a graph with what makes it pool, where it can, and what that is.
fn extended(spec: &ModelSpec, options: &ModelOptions) -> Option<(Vec<u8>, Extension)> {
    let mut file = Vec::new();
    content::open(&spec.onnx).ok()?.read_to_end(&mut file).ok()?;
    let declared = Declared::read(&file);
    let (output, Head::Vector(head)) = Head::of(spec, options, &declared.outputs).ok()? else { return None };
    if !declared.inputs.iter().any(|input| input == IDS) {
        return None;
    }
    let extension = Extension::of(&head, &declared.outputs[output], declared.opset?)?;
    file.extend_from_slice(&extension.bytes);
    Some((file, extension))
}

/// Compiles the graph in `file`, whose weights are in files of a folder, or else that of the model.
fn compile(
    runtime: &'static Runtime,
    spec: &ModelSpec,
    options: &ModelOptions,
    providers: &[Provider],
    file: Option<(&[u8], &Path)>,
    cancel: &Cancel,
) -> Result<Session> {
    let plugins = providers.iter().map(|provider| plugin(runtime, provider)).collect::<Result<Vec<_>>>()?;
    let offered = |(provider, plugin): &(&Provider, &Option<Arc<Plugin>>)| plugin.is_some() || runtime.offers(provider);
    if let Some((missing, _)) = providers.iter().zip(&plugins).find(|named| !offered(named)) {
        let install = match library::WEBGPU.directory() {
            Err(missing_package) if *missing == Provider::WebGpu => format!(" ({missing_package})"),
            _ => ", or leave the option out".to_owned(),
        };
        let reason = format!(
            "the ONNX Runtime in use ({}) does not offer '{}'; it offers {}: set ORT_DYLIB_PATH to a library that was built for it{install}",
            runtime.library.display(),
            missing.as_str(),
            runtime.providers.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
        );
        return Err(Error::config("executionProviders", reason));
    }
    let unlimited = |provider: &&Provider| **provider != Provider::Cpu && !provider.has_memory_limit();
    if let Some(provider) = providers.iter().find(unlimited).filter(|_| options.device_memory.is_some()) {
        let name = provider.as_str();
        let reason = format!("'{name}' takes no limit of the memory on its device: leave it out, or use 'cuda'");
        return Err(Error::config("deviceMemoryLimit", reason));
    }
    let _inside = ONNX.enter(cancel)?;
    let devices = providers.iter().zip(&plugins).map(|(provider, plugin)| {
        let found = plugin.as_ref().map(|plugin| device(runtime, plugin).map(|device| (device, plugin)));
        found.transpose().map_err(|reason| {
            let reason = match provider {
                Provider::Plugin(plugin) => format!("the plugin {} cannot be used: {reason}", plugin.library.display()),
                named => format!("'{}' cannot be used here: {reason}", named.as_str()),
            };
            Error::config("executionProviders", reason)
        })
    });
    let devices = devices.collect::<Result<Vec<_>>>()?;
    let configure = || -> ort::Result<SessionBuilder> {
        let mut builder = Session::builder(&runtime.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(options.intra_op_threads.unwrap_or(1))?
            .with_inter_threads(1)?
            // DirectML does not work with it.
            .with_memory_pattern(!providers.contains(&Provider::DirectMl))?
            .with_log_level(LogLevel::Fatal)?;
        for (provider, device) in providers.iter().zip(devices) {
            builder = match device {
                Some((device, plugin)) => {
                    // Options of several providers are told apart by their names.
                    let name = device.ep()?;
                    let options = plugin.options.iter().map(|(key, value)| (format!("{name}.{key}"), value.clone()));
                    builder.with_devices([device], Some(&options.collect::<Vec<_>>()))?
                }
                None => match dispatch(provider, options.device_memory) {
                    Some(dispatch) => builder.with_execution_providers([dispatch])?,
                    None => builder,
                },
            };
        }
        if providers != [Provider::Cpu] {
            builder = builder.with_config_entry(RECORD.0, RECORD.1)?;
        }
        if providers == [Provider::Cpu] && file.is_some() {
            builder = builder.with_operators(operators::operators()?)?;
        }
        if let Some(folder) = file.and_then(|(_, folder)| folder.to_str()) {
            builder = builder.with_config_entry(WEIGHTS_BESIDE, folder)?;
        }
        Ok(builder)
    };
    let others = providers.iter().filter(|provider| **provider != Provider::Cpu);
    let others = others.map(|provider| format!("'{}'", provider.as_str())).collect::<Vec<_>>().join(", ");
    let mut builder = configure().map_err(|error| match &others[..] {
        "" => Error::model(&spec.onnx, format!("ONNX Runtime cannot be set up: {error}")),
        others => Error::config("executionProviders", format!("{others} cannot be used here: {error}")),
    })?;
    let canceler = builder.canceler();
    let _hook = cancel.on_cancel(move |_| drop(canceler.cancel()));
    let compiled = match file {
        Some((file, _)) => builder.commit_from_memory(file),
        None => builder.commit_from_file(&spec.onnx),
    };
    compiled.map_err(|error| {
        let with = if others.is_empty() { String::new() } else { format!(" with {others}") };
        let reason = || Error::model(&spec.onnx, format!("ONNX Runtime cannot read it{with}: {error}"));
        cancel.check().err().unwrap_or_else(reason)
    })
}

/// Where weights are that a graph in memory has in files beside its own.
const WEIGHTS_BESIDE: &str = "session.model_external_initializers_file_folder_path";

/// Has a session remember what computes which node.
const RECORD: (&str, &str) = ("session.record_ep_graph_assignment_info", "1");
