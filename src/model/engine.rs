//! What computes graphs, and in how many bits.

use super::{library, openvino};
use crate::embedding::FingerprintBuilder;
use crate::error::Result;

/// A library that computes graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// The default, and what others are measured by.
    OnnxRuntime,
    /// A package of its own.
    OpenVino,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::OnnxRuntime, Self::OpenVino];

    /// The spelling in options.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnnxRuntime => "onnxruntime",
            Self::OpenVino => "openvino",
        }
    }

    /// Why it is not there, if so. Whether it is whole is seen when it is loaded.
    pub fn installed(self) -> Result<()> {
        match self {
            Self::OnnxRuntime => Ok(()),
            Self::OpenVino => library::OPENVINO.directory().map(drop),
        }
    }

    /// Whether it computes in 16 bits on this processor, or why it cannot compute at all. Blocks: loads it.
    pub fn has_bf16(self) -> Result<bool> {
        match self {
            Self::OnnxRuntime => Ok(false),
            Self::OpenVino => openvino::has_bf16(),
        }
    }

    /// As its makers call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OnnxRuntime => "ONNX Runtime",
            Self::OpenVino => "OpenVINO",
        }
    }
}

/// In how many bits a graph is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As the graph says, which is 32 bits for most.
    Fp32,
    /// Products of numbers of 16 bits, with the exponents of 32; their sums in 32 bits.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Fp32, Self::Bf16];

    /// The spelling in options.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
        }
    }
}

/// A way to compute a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Compute {
    /// By what.
    pub engine: Engine,
    /// How exactly.
    pub precision: Precision,
}

impl Compute {
    /// What is always there, and what others are measured by.
    pub const REFERENCE: Self = Self { engine: Engine::OnnxRuntime, precision: Precision::Fp32 };

    /// An embedding space with this in it, where its vectors are others than the reference's.
    pub(super) fn identify(self, space: FingerprintBuilder) -> FingerprintBuilder {
        if self == Self::REFERENCE {
            return space;
        }
        space.field("engine", self.engine.as_str()).field("precision", self.precision.as_str())
    }
}
