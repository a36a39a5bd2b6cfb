//! What the user may say about a model.

use std::path::PathBuf;

use super::{Bm25Options, Dtype, Engine, Pooling, Precision, Provider, RemoteOptions};
use crate::embedding::Task;

/// What the user may say about a model; what is `None` is read from the model's own files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelOptions {
    /// What the model has to be for.
    pub task: Task,
    /// Where models come from that are named by an id.
    pub hub: HubOptions,
    /// Which variant of the graph is taken, where there are several. Default: the plain `model.onnx`.
    pub dtype: Option<Dtype>,
    /// How token vectors become one vector: in all of these ways, joined.
    pub pooling: Vec<Pooling>,
    /// Whether vectors are scaled to length 1.
    pub normalize: Option<bool>,
    /// Keep only the first so many values (Matryoshka models).
    pub dimensions: Option<usize>,
    /// Most tokens of a text that the model sees, special tokens included.
    pub max_length: Option<usize>,
    /// Text put before each document or query.
    pub prompts: PromptOptions,
    /// Keep one of so many vectors of a document's tokens.
    pub pool_factor: Option<usize>,
    /// What documents are to be judged by, for models that are told.
    pub instruction: Option<String>,
    /// How words are weighed, where it is BM25.
    pub bm25: Bm25Options,
    /// Threads inside one run of the model. Runs go in parallel anyway, so the default is 1.
    pub intra_op_threads: Option<usize>,
    /// What computes, best first; what the first cannot is left to the next, and at last to the CPU. Empty: the CPU.
    pub providers: Vec<Provider>,
    /// Instead, whatever computes fastest and agrees with the CPU.
    pub any_provider: bool,
    /// Most memory on a device that is not the CPU, in bytes.
    pub device_memory: Option<u64>,
    /// What computes the graph. `None`: what is fastest and agrees with the reference.
    pub engine: Option<Engine>,
    /// In how many bits it is computed. `None`: as few as agree with the reference.
    pub precision: Option<Precision>,
    /// Whether vectors of all engines and precisions may be one space.
    pub mix_precision: bool,
    /// The server that computes, where the model runs on one.
    pub remote: RemoteOptions,
}

/// How models are had from the hub; what is `None` is read from the environment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HubOptions {
    /// A branch, a tag or a commit. Default: `main`.
    pub revision: Option<String>,
    /// Where files are kept, in the layout of the hub's other tools.
    pub cache_dir: Option<PathBuf>,
    /// Whether the network is left alone.
    pub local_files_only: bool,
}

/// What the user wants put before a text, by its role.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PromptOptions {
    /// Before documents.
    pub document: Option<String>,
    /// Before queries.
    pub query: Option<String>,
    /// The name of one of the model's own prompts, put before all texts instead.
    pub name: Option<String>,
}
