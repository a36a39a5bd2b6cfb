//! What computes a graph for ONNX Runtime: the processor, or what its execution providers reach.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::host;

/// What computes a graph, where the ONNX Runtime in use was built for it, or can load it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// Every runtime has it.
    Cpu,
    /// GPUs of NVIDIA.
    Cuda,
    /// Apple's.
    CoreMl,
    /// Any GPU on Windows.
    DirectMl,
    /// Any GPU, by Vulkan, Metal or Direct3D 12.
    WebGpu,
    /// GPUs of NVIDIA, compiled for the one that is there.
    TensorRtRtx,
    /// What a library brings.
    Plugin(Arc<Plugin>),
}

/// A library of ONNX Runtime's plugin interface, and what of it is to compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// Its path.
    pub library: PathBuf,
    /// Of its execution providers, where it has several.
    pub name: Option<String>,
    /// Which of that provider's devices.
    pub device: usize,
    /// As that provider spells them.
    pub options: BTreeMap<String, String>,
}

impl Provider {
    /// All that options spell by a name.
    pub const NAMED: [Self; 6] = [Self::Cpu, Self::Cuda, Self::CoreMl, Self::DirectMl, Self::WebGpu, Self::TensorRtRtx];

    /// The spelling in options; of a plugin, its name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::CoreMl => "coreml",
            Self::DirectMl => "directml",
            Self::WebGpu => "webgpu",
            Self::TensorRtRtx => "tensorrt-rtx",
            Self::Plugin(plugin) => {
                let stem = || plugin.library.file_stem().and_then(|stem| stem.to_str());
                plugin.name.as_deref().or_else(stem).unwrap_or("plugin")
            }
        }
    }

    /// Most runs of a graph at a time; `None`: as many as come. ONNX Runtime says so of its own providers; those of others may not.
    pub fn most_runs(&self) -> Option<usize> {
        match self {
            Self::Cpu => None,
            // One computes while the other's numbers come and go.
            Self::Cuda => Some(2),
            _ => Some(1),
        }
    }

    /// Whether it takes a limit of the memory on its device.
    pub fn has_memory_limit(&self) -> bool {
        matches!(self, Self::Cuda | Self::TensorRtRtx)
    }
}

/// What computes a graph that is loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderInfo {
    /// What it is.
    pub provider: Provider,
    /// The device, as far as it says.
    pub device: Option<String>,
    /// The library that it is in.
    pub library: Option<PathBuf>,
    /// That library's version.
    pub version: Option<String>,
    /// The share of the graph's nodes that it computes, 0 to 1, as far as the runtime tells.
    pub nodes: Option<f64>,
}

impl ProviderInfo {
    /// The processor, which computes all of it.
    pub fn cpu(library: Option<PathBuf>, version: Option<String>) -> Self {
        let device = Some(host::processor().name);
        Self { provider: Provider::Cpu, device, library, version, nodes: Some(1.0) }
    }

    /// What tells its vectors from the processor's; nothing where it is that.
    pub fn identity(&self) -> Option<String> {
        let name = self.provider.as_str();
        match &self.provider {
            Provider::Cpu => None,
            // Its library decides about its vectors, and so may its options.
            Provider::Plugin(plugin) => {
                let version = self.version.as_deref().unwrap_or_default();
                Some(format!("plugin {name} {version} {:?}", plugin.options))
            }
            _ => Some(name.to_owned()),
        }
    }
}
