//! Which execution providers compute a graph: how they are asked for, where they come from, and what each of them did.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::path::PathBuf;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use ort::AsPointer;
use ort::device::Device;
use ort::ep::{self, ExecutionProviderDispatch};
use ort::session::Session;

use super::runtime::{Runtime, spelt};
use crate::error::Result;
use crate::host;
use crate::model::{Plugin, Provider, ProviderInfo, library};

/// How a provider is asked for. The CPU always comes last by itself.
pub(super) fn dispatch(provider: &Provider, memory: Option<u64>) -> Option<ExecutionProviderDispatch> {
    let memory = memory.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let dispatch = match provider {
        // Plugins have devices instead.
        Provider::Cpu | Provider::Plugin(_) => return None,
        Provider::Cuda => {
            memory.map_or_else(ep::CUDA::default, |most| ep::CUDA::default().with_memory_limit(most)).build()
        }
        Provider::CoreMl => ep::CoreML::default().build(),
        Provider::DirectMl => ep::DirectML::default().build(),
        Provider::WebGpu => ep::WebGPU::default().build(),
        Provider::TensorRtRtx => {
            memory.map_or_else(ep::NVRTX::default, |most| ep::NVRTX::default().with_max_workspace(most)).build()
        }
    };
    // Without its driver, say: nobody who asks for a GPU wants to wait for a CPU instead.
    Some(dispatch.error_on_failure())
}

/// Longest name of an execution provider, in bytes: longer ones overrun a buffer of ort's.
const LONGEST_NAME: usize = 120;

/// The plugin that a provider comes from, if it is not in the runtime itself.
pub(super) fn plugin(runtime: &Runtime, provider: &Provider) -> Result<Option<Arc<Plugin>>> {
    match provider {
        Provider::Plugin(plugin) => Ok(Some(Arc::clone(plugin))),
        Provider::WebGpu if !runtime.offers(provider) && library::WEBGPU.directory().is_ok() => {
            let library = library::WEBGPU.libraries()?.into_iter().next();
            Ok(library.map(|library| Arc::new(Plugin { library, name: None, device: 0, options: BTreeMap::new() })))
        }
        _ => Ok(None),
    }
}

/// The device that a plugin is to compute on, or why there is none. Its library is loaded at the first call.
pub(super) fn device(runtime: &'static Runtime, plugin: &Plugin) -> Result<Device<'static>, String> {
    let path = library::plugin(&plugin.library).map_err(|error| error.to_string())?;
    // The names of what a library brings, by its path: it is loaded once.
    static LOADED: Mutex<BTreeMap<PathBuf, Vec<String>>> = Mutex::new(BTreeMap::new());
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let names = || runtime.environment.devices().filter_map(|device| device.ep().ok()).map(str::to_owned);
    if !loaded.contains_key(&path) {
        let before: Vec<String> = names().collect();
        let name = format!("embedcore {}", path.display());
        runtime.environment.register_ep_library(name, &path).map_err(|error| error.to_string())?;
        loaded.insert(path.clone(), names().filter(|name| !before.contains(name)).collect());
    }
    let brings = loaded.get(&path).map_or(&[][..], Vec::as_slice);
    if let Some(name) = brings.iter().find(|name| name.len() > LONGEST_NAME) {
        return Err(format!("its provider's name has {} bytes, and {LONGEST_NAME} at most are known", name.len()));
    }
    let asked = |name: &str| plugin.name.as_deref().is_none_or(|asked| spelt(asked) == spelt(name));
    let devices = runtime.environment.devices();
    let devices: Vec<Device> = devices
        .filter(|device| device.ep().is_ok_and(|name| brings.iter().any(|one| one == name) && asked(name)))
        .collect();
    let count = devices.len();
    devices.into_iter().nth(plugin.device).ok_or_else(|| match (count, brings) {
        (0, []) => "it finds no device here".to_owned(),
        (0, brings) => format!("it brings {}, and not what `name` says", brings.join(", ")),
        (count, _) => {
            format!("it has {count} devices, and `device` {} is not one of them: it counts from 0", plugin.device)
        }
    })
}

/// What computes a graph that is compiled: those that were asked for, and the CPU where it computes some of it.
pub(super) fn used(runtime: &Runtime, session: &Session, asked: &[Provider]) -> Vec<ProviderInfo> {
    if asked == [Provider::Cpu] {
        return vec![ProviderInfo::cpu(Some(runtime.library.clone()), library::version(&runtime.library))];
    }
    let nodes = assigned(session);
    let total: usize = nodes.iter().map(|(_, count)| count).sum();
    let rest = (!asked.contains(&Provider::Cpu) && nodes.iter().any(|(name, _)| name == Provider::Cpu.as_str()))
        .then_some(Provider::Cpu);
    let about = |provider: &Provider| {
        let (library, version, device) = match (provider, plugin(runtime, provider)) {
            (_, Ok(Some(plugin))) => {
                (plugin.library.clone(), library::version(&plugin.library), Some(plugin.device.to_string()))
            }
            (Provider::Cpu, _) => {
                (runtime.library.clone(), library::version(&runtime.library), Some(host::processor().name))
            }
            (named, _) => {
                let of = |device: &Device| device.ep().is_ok_and(|name| spelt(name) == named.as_str());
                let vendor =
                    runtime.environment.devices().find(of).and_then(|device| device.hardware_device().vendor().ok());
                (runtime.library.clone(), library::version(&runtime.library), vendor.map(str::to_owned))
            }
        };
        // Names of plugins are those of their providers only where they were given.
        let of = |name: &str| match provider {
            Provider::Plugin(_) => !Provider::NAMED.iter().any(|named| named.as_str() == name),
            named => named.as_str() == name,
        };
        let computed = nodes.iter().filter(|(name, _)| of(name)).map(|(_, count)| count).sum::<usize>();
        let nodes = (total > 0).then(|| computed as f64 / total as f64);
        ProviderInfo { provider: provider.clone(), device, library: Some(library), version, nodes }
    };
    asked.iter().chain(&rest).map(about).collect()
}

/// How many nodes of a graph each provider computes; empty where the runtime does not tell.
fn assigned(session: &Session) -> Vec<(String, usize)> {
    let (mut parts, mut count) = (ptr::null(), 0);
    // SAFETY: the session lives; both pointers are to places for the answer, which stays the session's.
    let status = unsafe { (ort::api().Session_GetEpGraphAssignmentInfo)(session.ptr(), &mut parts, &mut count) };
    // SAFETY: the status was just returned by the call above and is used once.
    if unsafe { ort::Error::result_from_status(status) }.is_err() || parts.is_null() {
        return Vec::new();
    }
    let of = |index: usize| {
        let (mut name, mut nodes, mut count) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the call above has answered `count` pointers to parts of the session.
        let part = unsafe { *parts.add(index) };
        // SAFETY: the part is the session's, and the places are for the answers, which stay the session's.
        unsafe {
            ort::Error::result_from_status((ort::api().EpAssignedSubgraph_GetEpName)(part, &mut name)).ok()?;
            ort::Error::result_from_status((ort::api().EpAssignedSubgraph_GetNodes)(part, &mut nodes, &mut count))
                .ok()?;
            (!name.is_null()).then(|| (spelt(&CStr::from_ptr(name).to_string_lossy()), count))
        }
    };
    (0..count).filter_map(of).collect()
}
