//! The models: where their files are, how they run, how hidden states become one vector.

mod builtin;
mod config_files;
mod content;
mod directory;
mod graph;
mod hub;
mod library;
mod onnx;
mod pooling;
mod price;
mod vocabulary;

use std::path::PathBuf;
use std::sync::Arc;

use crate::cancel::Cancel;
use crate::embedding::{Fingerprint, InputType, Tokens};
use crate::error::{Error, Result};
use crate::host;
use directory::{HashedWeights, ModelSpec};
use onnx::OnnxModel;

pub use builtin::{BUILTIN, set_builtin_directory};
pub use graph::Dtype;
pub use hub::{AddedModel, Fetched, ModelStore, Problem, Progress, StoredModel, VerifiedModel};
pub use library::set_addon_directory;
pub use onnx::{await_load, close};
pub use pooling::Pooling;

/// Something that turns tokens into vectors. Safe to call from many threads at once.
pub trait Model: Send + Sync {
    /// What the model is.
    fn info(&self) -> &ModelInfo;

    /// Vectors of `batch`, row by row, each of `info().dimensions` values. Blocks for as long as the model computes.
    ///
    /// # Errors
    /// The reason in plain words. When `cancel` was raised meanwhile, the reason is of no interest.
    fn run(&self, batch: &[&Tokens], cancel: &Cancel) -> Result<Vec<f32>, String>;

    /// Bytes of memory that a run of so many rows takes beyond the weights, the longest row having `longest` tokens.
    fn bytes(&self, rows: usize, longest: usize) -> u64;

    /// Gives back memory that is kept for later runs, as far as none is under way.
    fn shrink(&self);
}

/// What the user may say about a model; what is `None` is read from the model's own files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelOptions {
    /// Where models come from that are named by an id.
    pub hub: HubOptions,
    /// Which variant of the graph is taken, where there are several. Default: the plain `model.onnx`.
    pub dtype: Option<Dtype>,
    /// How token vectors become one vector.
    pub pooling: Option<Pooling>,
    /// Whether vectors are scaled to length 1.
    pub normalize: Option<bool>,
    /// Keep only the first so many values (Matryoshka models).
    pub dimensions: Option<usize>,
    /// Most tokens of a text that the model sees, special tokens included.
    pub max_length: Option<usize>,
    /// Text put before each document or query.
    pub prompts: PromptOptions,
    /// Threads inside one run of the model. Runs go in parallel anyway, so the default is 1.
    pub intra_op_threads: Option<usize>,
    /// What computes, best first; what the first cannot is left to the next, and at last to the CPU. Empty: the CPU.
    pub providers: Vec<Provider>,
}

/// What computes a graph, where the ONNX Runtime in use was built for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Every runtime has it.
    Cpu,
    /// GPUs of NVIDIA.
    Cuda,
    /// Apple's.
    CoreMl,
    /// Any GPU on Windows.
    DirectMl,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Cuda, Self::CoreMl, Self::DirectMl];

    /// The spelling in options.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::CoreMl => "coreml",
            Self::DirectMl => "directml",
        }
    }
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

/// What is put before a text, by its role.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prompts {
    /// Before documents.
    pub document: String,
    /// Before queries.
    pub query: String,
}

impl Prompts {
    /// The prompt for `input_type`.
    pub fn of(&self, input_type: InputType) -> &str {
        match input_type {
            InputType::Document => &self.document,
            InputType::Query => &self.query,
        }
    }
}

/// What a loaded model is, as `getModelInfo()` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The model as the user named it.
    pub model_id: String,
    /// Its ONNX file.
    pub model_path: String,
    /// The repository of the hub that its files come from: another one than its id says where that one has no ONNX.
    pub repository: Option<String>,
    /// The commit of that repository.
    pub revision: Option<String>,
    /// Length of its vectors.
    pub dimensions: usize,
    /// Most tokens of a text that it sees, special tokens included.
    pub max_length: usize,
    /// How token vectors become one vector; `None` where the graph does it.
    pub pooling: Option<Pooling>,
    /// Whether vectors are scaled to length 1.
    pub normalize: bool,
    /// The graph's output that is read.
    pub output: String,
    /// Type of the weights, as far as the file's name tells; else the element type of that output, `fp32` or `fp16`.
    pub dtype: &'static str,
    /// Whether a text's vector is independent of the batch that it runs in. It is not in graphs that quantise
    /// activations on the fly; their texts are run one by one.
    pub batch_invariant: bool,
    /// Threads inside one run.
    pub intra_op_threads: usize,
    /// What computes, best first.
    pub providers: Vec<Provider>,
    /// How the ONNX Runtime in use describes itself.
    pub runtime: String,
    /// Identifies the embedding space: weights, tokenizer, configuration, prompts and everything in this struct that
    /// changes vectors.
    pub fingerprint: Fingerprint,
}

/// A model as the user names it, in the working directory of that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    id: String,
    directory: PathBuf,
}

impl Name {
    /// What `id` means now: [`BUILTIN`], a path, or else a model on the hub.
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), directory: std::env::current_dir().unwrap_or_default() }
    }

    /// What tells it apart from other models: an absolute path where there is one, else the id.
    pub fn place(&self) -> PathBuf {
        if self.id == BUILTIN || self.on_hub().is_some() { PathBuf::from(&self.id) } else { self.path() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(&self.id)
    }

    fn on_hub(&self) -> Option<hub::Id> {
        hub::Id::parse(&self.id).filter(|_| !self.path().exists())
    }
}

/// Where a model's files are on this machine.
pub struct Source {
    /// The model as the user named it.
    pub id: String,
    path: String,
    /// The repository and the commit that they come from.
    origin: Option<(String, String)>,
}

impl Source {
    /// Finds what `name` names: [`BUILTIN`], a directory in Hugging Face layout, an `.onnx` file inside one, or else a model
    /// on the hub, whose files are fetched unless they are here. Blocks.
    pub fn find(name: &Name, options: &ModelOptions, cancel: &Cancel, progress: Option<&Progress>) -> Result<Self> {
        let id = name.id.clone();
        let local = |path: String| match &options.hub.revision {
            None => Ok(Self { id: id.clone(), path, origin: None }),
            Some(_) => {
                Err(Error::config("revision", format!("{id} is not on the hub, so it has no revisions: leave it out")))
            }
        };
        if id == BUILTIN {
            return local(builtin::directory()?);
        }
        let Some(named) = name.on_hub() else { return local(name.path().display().to_string()) };
        let snapshot = hub::resolve(&named, options, cancel, progress)?;
        let path = snapshot.directory.display().to_string();
        Ok(Self { id, path, origin: Some((snapshot.repository, snapshot.commit)) })
    }
}

/// A model's files, read but not loaded yet: what its pipeline needs beside the model itself.
pub struct ModelFiles {
    id: String,
    spec: ModelSpec,
    builtin: bool,
}

impl ModelFiles {
    /// Reads what the files of a model say. Options win over files.
    pub fn read(source: &Source, options: &ModelOptions) -> Result<Self> {
        let mut spec = directory::read(&source.path, options)?;
        spec.origin = source.origin.clone();
        let manner = source.origin.as_ref().and_then(|(repository, _)| hub::manner(repository));
        if let (Some((pooling, normalize)), true) = (manner, spec.silent) {
            spec.pooling = spec.pooling.or(Some(pooling));
            spec.normalize = spec.normalize.or(Some(normalize));
        }
        Ok(Self { id: source.id.clone(), spec, builtin: source.id == BUILTIN })
    }

    /// The bytes of its `tokenizer.json`, or of what takes its place.
    pub fn tokenizer_json(&self) -> &[u8] {
        &self.spec.tokenizer_json
    }

    /// The name of that file, for errors.
    pub fn tokenizer_path(&self) -> &str {
        &self.spec.tokenizer_path
    }

    /// Most tokens of a text that the model sees.
    pub fn max_length(&self) -> usize {
        self.spec.max_length
    }

    /// Whether texts are cut at their beginning, where the files say so.
    pub fn truncate_left(&self) -> Option<bool> {
        self.spec.truncate_left
    }

    /// Whether texts are to be written in lower case first.
    pub fn lowercase(&self) -> bool {
        self.spec.lowercase
    }

    /// What to put before texts.
    pub fn prompts(&self) -> &Prompts {
        &self.spec.prompts
    }

    /// Bytes of its weights on disk, and so about what it takes in memory at least. 0 where nobody can tell.
    pub fn weight_bytes(&self) -> u64 {
        price::weight_bytes(&self.spec.onnx)
    }

    /// Makes the model ready to run, and does what else there is to do `meanwhile`. Blocks: hashes and compiles the
    /// whole file.
    pub fn load<T: Send>(
        &self,
        options: &ModelOptions,
        cancel: &Cancel,
        meanwhile: impl FnOnce() -> T + Send,
    ) -> (Result<Arc<dyn Model>>, T) {
        // One core loads and checks the runtime, then compiles: that takes longest. The other one does all the rest.
        let compile = || OnnxModel::compile(&self.id, &self.spec, options, cancel);
        let hash = || (directory::hash_weights(&self.spec.onnx, cancel), meanwhile());
        let ((weights, meanwhile), model) = host::join(hash, compile);
        (self.finish(weights, model), meanwhile)
    }

    fn finish(&self, weights: Result<HashedWeights>, model: Result<OnnxModel>) -> Result<Arc<dyn Model>> {
        let weights = weights?;
        if self.builtin {
            builtin::check(&self.spec, &weights)?;
        }
        Ok(Arc::new(model?.identified(&self.spec, &weights)))
    }
}
