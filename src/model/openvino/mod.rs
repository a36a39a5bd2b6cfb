//! OpenVINO, beside ONNX Runtime: the only place that names it. Its package holds the libraries; none of them is linked.
//!
//! One compiled graph per model, with a stream for each run that there may be at a time. A run goes on by itself on its
//! stream's threads while whoever asked for it waits, so that it can be stopped at any moment.

#![allow(unsafe_code)]

mod api;

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::directory::ModelSpec;
use super::gate::{self, OPENVINO};
use super::lean_graph::LeanGraph;
use super::session::{About, Cells, Kind, Output, Port, Run, RunMemory, Session};
use super::transformer::is_cache;
use super::{Compute, ModelOptions, Precision, ProviderInfo, library};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::host;
use api::{Api, Compiled, Core, Element, Request};

/// How long a run goes on, in milliseconds, before it is seen that it shall stop.
const LOOK_MS: i64 = 20;

/// A graph that OpenVINO has compiled.
pub(super) struct OpenVinoSession {
    compiled: ManuallyDrop<Compiled>,
    /// Requests that compute nothing right now.
    idle: ManuallyDrop<Mutex<Vec<Request>>>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    about: About,
}

impl OpenVinoSession {
    /// Compiles a graph, for as many runs at a time as there are cores for them.
    pub fn compile(spec: &ModelSpec, compute: Compute, options: &ModelOptions, cancel: &Cancel) -> Result<Self> {
        let runtime = runtime()?;
        // It does not tell which sizes are fixed, and compiling such a large graph to find that out takes long.
        let graph = LeanGraph::read(&spec.onnx).ok().flatten();
        if graph.is_some_and(|graph| graph.inputs().any(is_cache)) {
            let reason = "a decoder that is exported with a cache is left to ONNX Runtime: leave the option engine out";
            return Err(Error::model(&spec.onnx, reason));
        }
        let threads = options.intra_op_threads.unwrap_or(1);
        let streams = (host::available_cores() / threads.max(1)).max(1);
        let _inside = OPENVINO.enter(cancel)?;
        let properties = [
            (c"INFERENCE_PRECISION_HINT", precision(compute.precision).to_owned()),
            (c"NUM_STREAMS", streams.to_string()),
            (c"INFERENCE_NUM_THREADS", (streams * threads).to_string()),
            // Where a process shares its cores with others, the system knows better where a thread should run.
            (c"ENABLE_CPU_PINNING", "NO".to_owned()),
        ];
        let compiled = runtime.core.compile(&spec.onnx, &properties);
        let ports = compiled.and_then(|compiled| Ok((ports(compiled.inputs()?), ports(compiled.outputs()?), compiled)));
        let (inputs, outputs, compiled) = ports.map_err(|reason| {
            let error = || Error::model(&spec.onnx, format!("OpenVINO cannot compute it: {reason}"));
            cancel.check().err().unwrap_or_else(error)
        })?;
        Ok(Self {
            compiled: ManuallyDrop::new(compiled),
            idle: ManuallyDrop::default(),
            inputs,
            outputs,
            about: About {
                compute,
                build: format!("OpenVINO {}", runtime.version),
                providers: vec![ProviderInfo::cpu(runtime.library.clone(), Some(runtime.version.clone()))],
                intra_op_threads: threads,
            },
        })
    }

    fn compute(&self, request: &mut Request, run: &Run<'_>) -> std::result::Result<(), String> {
        for (index, cells) in run.inputs.iter().enumerate() {
            match cells {
                Cells::Wide(cells) => request.set_input(index, Element::I64, &run.shape, cells)?,
                Cells::Narrow(cells) => request.set_input(index, Element::I32, &run.shape, cells)?,
                Cells::Real(cells) => request.set_input(index, Element::F32, &run.shape, cells)?,
                Cells::Half(cells) => request.set_input(index, Element::F16, &run.shape, cells)?,
                Cells::NoReals(shape) => request.set_input::<f32>(index, Element::F32, shape, &[])?,
                Cells::NoHalves(shape) => request.set_input::<half::f16>(index, Element::F16, shape, &[])?,
                Cells::Count(count, shape) => request.set_input(index, Element::I64, shape, &[*count])?,
            }
        }
        request.start()?;
        while !request.wait(LOOK_MS)? {
            if let Err(stopped) = run.cancel.check() {
                request.stop();
                return Err(stopped.to_string());
            }
        }
        Ok(())
    }
}

impl Session for OpenVinoSession {
    fn gate(&self) -> &'static gate::Gate {
        &OPENVINO
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

    fn run(&self, run: Run<'_>, read: &mut dyn FnMut(&Output<'_>)) -> std::result::Result<(), String> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut request = taken.map_or_else(|| self.compiled.request(), Ok)?;
        self.compute(&mut request, &run)?;
        request.output(run.output, |dims, values| match run.picked {
            None => read(&Output { dims, values }),
            Some(_) => {
                let values = run.picked(&dims, values, |value| value);
                read(&Output { dims, values: &values });
            }
        })?;
        idle().push(request);
        Ok(())
    }

    fn memory(&self) -> Option<RunMemory> {
        None
    }
}

impl Drop for OpenVinoSession {
    fn drop(&mut self) {
        // While the process exits the graph is left to the operating system.
        if let Ok(_inside) = OPENVINO.enter(&Cancel::default()) {
            // SAFETY: neither is used again: this is the only place that drops them, and self is going away.
            unsafe {
                ManuallyDrop::drop(&mut self.idle);
                ManuallyDrop::drop(&mut self.compiled);
            }
        }
    }
}

fn precision(precision: Precision) -> &'static str {
    match precision {
        Precision::Fp32 => "f32",
        Precision::Bf16 => "bf16",
    }
}

fn ports(ports: Vec<(String, Element)>) -> Vec<Port> {
    let kind = |element| match element {
        Element::I32 => Kind::Int32,
        Element::I64 => Kind::Int64,
        Element::F32 => Kind::Float32,
        Element::F16 => Kind::Float16,
        Element(other) => Kind::Other(format!("type {other}")),
    };
    // Which sizes are fixed is not asked: only decoders need it, and they are left to ONNX Runtime.
    ports.into_iter().map(|(name, element)| Port { name, kind: kind(element), dims: Vec::new() }).collect()
}

/// The OpenVINO of this process.
struct Runtime {
    core: Core,
    version: String,
    /// The first of its libraries.
    library: Option<PathBuf>,
}

/// Held while the libraries load.
static LOADING: Mutex<()> = Mutex::new(());

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Waits until nobody loads the libraries, and what is inside them now has left: while they compile and compute, they make what has
/// a destructor of its own, which would run before the handler that closes the gate.
pub(super) fn await_load() {
    drop(LOADING.lock());
    if RUNTIME.get().is_some() {
        OPENVINO.await_leaving();
    }
}

/// Loads the libraries at the first call. A failure is not remembered: the user may mend it and try again.
fn runtime() -> Result<&'static Runtime> {
    let _one_at_a_time = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let libraries = library::OPENVINO.libraries()?;
    // Until the handler below stands, only `close` keeps an exit of the process from running into the load.
    let _inside = OPENVINO.enter(&Cancel::default())?;
    let failed = |reason: String| {
        let path = libraries.first().map(Path::new).unwrap_or(Path::new("OpenVINO"));
        Error::model(path, format!("OpenVINO could not be loaded: {reason}"))
    };
    let api = Api::load(&libraries).map_err(failed)?;
    gate::close_at_exit();
    let core = api.core().map_err(failed)?;
    // Loads what computes on the CPU, so that it is there or fails here.
    core.property(c"FULL_DEVICE_NAME").map_err(failed)?;
    // What was loaded with it has destructors, too.
    gate::close_at_exit();
    Ok(RUNTIME.get_or_init(|| Runtime { core, version: api.version(), library: libraries.first().map(PathBuf::from) }))
}

/// Whether this processor computes in 16 bits at once.
pub(super) fn has_bf16() -> Result<bool> {
    let capabilities = runtime()?.core.property(c"OPTIMIZATION_CAPABILITIES");
    Ok(host::has_bf16() && capabilities.is_ok_and(|list| list.split_whitespace().any(|one| one == "BF16")))
}
