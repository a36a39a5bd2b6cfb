//! The models: where their files are, how they run, how hidden states become one vector.

mod bm25;
mod builtin;
mod config_files;
mod content;
mod device;
mod directory;
mod engine;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gate;
mod graph;
mod head;
mod http;
mod hub;
mod idf;
mod info;
mod late_interaction;
mod layer_norm;
mod lean_graph;
mod library;
mod memory_cost;
mod modules;
mod onnx;
mod openvino;
mod options;
mod pooled_graph;
mod pooling;
mod protobuf;
mod provider;
mod purpose;
mod remote;
mod reranker;
mod routed;
mod router;
mod session;
mod splade;
mod static_model;
mod table;
mod tensors;
mod transformer;
mod turns;
mod vision;
mod vocabulary;
mod weights;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::batch::Budget;
use crate::cancel::Cancel;
use crate::embedding::{InputType, Task, Tokens, Value};
use crate::error::{Error, Result};
use crate::host;
use crate::tokens::Reading;
use bm25::Bm25;
use directory::ModelSpec;
use onnx::OnnxSession;
use openvino::OpenVinoSession;
use routed::Routed;
use session::Session;
use static_model::{IdfModel, StaticModel};
use transformer::Transformer;
use vision::VisionModel;
use weights::HashedWeights;

pub use bm25::{BM25, Bm25Options};
pub use builtin::{BUILTIN, set_builtin_directory};
pub use engine::{Compute, Engine, Precision};
pub use gate::{close, exit_if_busy};
pub use graph::Dtype;
pub use http::Secret;
pub use hub::{AddedModel, Fetched, HubState, ModelStore, Problem, Progress, StoredModel, VerifiedModel};
pub use info::{Architecture, ModelInfo, RemoteInfo};
pub use library::{set_addon_directory, set_package_directories};
pub use onnx::{RuntimeInfo, describe as describe_runtime};
pub use options::{HubOptions, ModelOptions, PromptOptions};
pub use pooling::Pooling;
pub use provider::{Plugin, Provider, ProviderInfo};
pub use remote::{Kind, RemoteOptions};

/// Something that turns texts into vectors. Safe to call from many threads at once.
pub trait Model: Send + Sync {
    /// What the model is.
    fn info(&self) -> &ModelInfo;

    /// What it makes of each row of `batch`, of the kind of `info().task`. Blocks for as long as the model computes.
    ///
    /// # Errors
    /// Why there are none. When `cancel` was raised meanwhile, the reason is of no interest.
    fn run(&self, batch: &[&Tokens], cancel: &Cancel) -> Result<Vec<Value>, RunError>;

    /// Bytes of memory that a run of so many rows takes beyond the weights, the longest row having a weight of `longest`.
    fn bytes(&self, rows: usize, longest: usize) -> u64;

    /// How many runs at a time are worth while, where this process may use so many cores. At least 1.
    fn parallel(&self, cores: usize) -> usize;

    /// Most rows of a run, as of now.
    fn most_rows(&self) -> usize;

    /// Most weight of all rows of a run together; a lone row may have more. `None`: what is fastest is learned.
    fn most_weight(&self) -> Option<usize>;

    /// How large batches best are to begin with, where that is not as on the processor.
    fn budget(&self) -> Option<Budget> {
        None
    }

    /// Gives back memory that is kept for later runs, as far as none is under way.
    fn shrink(&self);

    /// Whether what computes is another model by now, under the same name, as was known no longer than `ago`. Blocks while
    /// whoever knows is asked; where nobody answers, it is still the same.
    fn is_replaced(&self, _ago: Duration, _cancel: &Cancel) -> bool {
        false
    }
}

/// Why a run gave no vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct RunError {
    /// The reason; where it is about a text, about the first one.
    pub error: Error,
    /// What may still come of its rows.
    pub then: Then,
}

/// What may still come of the rows of a run that gave nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Then {
    /// Nothing: it is not about them.
    Nothing,
    /// One of them may be at fault: each may run alone.
    Alone,
    /// They are too much together: halves may run.
    Halves,
    /// These cannot be read, by their places in the batch, in ascending order: the others may run.
    Without(Vec<(usize, Error)>),
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

/// A model as the user names it, in the working directory of that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    id: String,
    directory: PathBuf,
}

impl Name {
    /// Whether it is [`BUILTIN`].
    pub fn is_builtin(&self) -> bool {
        self.id == BUILTIN
    }

    /// What `id` means now: [`BUILTIN`], a path, or else a model on the hub.
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), directory: std::env::current_dir().unwrap_or_default() }
    }

    /// What tells it apart from other models: an absolute path where there is one, else the id.
    pub fn place(&self) -> PathBuf {
        let elsewhere = self.id == BUILTIN || remote::names(&self.id) || self.on_hub().is_some();
        if elsewhere { PathBuf::from(&self.id) } else { self.path() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(&self.id)
    }

    fn on_hub(&self) -> Option<hub::Id> {
        hub::Id::parse(&self.id).filter(|_| !self.path().exists())
    }
}

/// Where a model is.
pub enum Source {
    /// Its files are on this machine.
    Files(Files),
    /// On a server.
    Remote(Box<remote::Server>),
    /// Nowhere: it is arithmetic.
    Bm25,
}

/// Where a model's files are on this machine.
pub struct Files {
    id: String,
    path: String,
    /// The repository and the commit that they come from.
    origin: Option<(String, String)>,
}

impl Source {
    /// Finds what `name` names: [`BUILTIN`], a model on a server, a directory in Hugging Face layout, an `.onnx` file inside
    /// one, or else a model on the hub, whose files are fetched unless they are here. Blocks.
    pub fn find(name: &Name, options: &ModelOptions, cancel: &Cancel, progress: Option<&Progress>) -> Result<Self> {
        let id = name.id.clone();
        if id == BM25 && options.task == Task::Sparse {
            return Ok(Self::Bm25);
        }
        // A directory may be called so, too.
        if id == BM25 && !name.path().exists() {
            return Err(purpose::wrong(Path::new(BM25), Task::Sparse));
        }
        if let Some(server) = remote::Server::named(&id, options)? {
            return match options.task {
                Task::Embedding => Ok(Self::Remote(Box::new(server))),
                _ => Err(Error::config(
                    "modelPath",
                    format!("{id} is on a server, and those give vectors only: use OptimizedEmbeddingGenerator"),
                )),
            };
        }
        if let Some(option) = options.remote.fingerprint.as_ref().map(|_| "fingerprint") {
            return Err(Error::config(option, format!("{id} runs here, and its files say what it is: leave it out")));
        }
        let local = |path: String| match &options.hub.revision {
            None => Ok(Self::Files(Files { id: id.clone(), path, origin: None })),
            Some(_) => {
                Err(Error::config("revision", format!("{id} is not on the hub, so it has no revisions: leave it out")))
            }
        };
        if id == BUILTIN {
            return local(builtin::directory()?);
        }
        let Some(named) = name.on_hub() else {
            let path = name.path();
            remote::check_scheme(&id, &path)?;
            return local(path.display().to_string());
        };
        let snapshot = hub::resolve(&named, options, cancel, progress)?;
        let path = snapshot.directory.display().to_string();
        Ok(Self::Files(Files { id, path, origin: Some((snapshot.repository, snapshot.commit)) }))
    }
}

/// A model that is not loaded yet: what its pipeline needs beside the model itself.
pub enum Unloaded {
    /// Its files have been read.
    Files(Box<ModelFiles>),
    /// Its server has not been asked yet.
    Remote(Box<remote::Server>),
    /// There is nothing to load.
    Bm25(Prompts),
}

/// What the files of a model say.
pub struct ModelFiles {
    id: String,
    spec: ModelSpec,
    builtin: bool,
    weights: OnceLock<HashedWeights>,
    /// Those of the way of queries, where that is another one.
    queries: Option<Box<ModelFiles>>,
}

/// What makes tokens of texts.
pub struct TokenizerFile<'a> {
    /// The bytes of the model's `tokenizer.json`, or of what takes its place.
    pub json: &'a [u8],
    /// The name of that file, for errors.
    pub path: &'a str,
    /// How texts are read.
    pub reading: &'a Reading,
}

/// What a table of vectors asks of the tokens of a text: no special ones are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableTokens {
    /// How many tokens have a row.
    pub ids: usize,
    /// Whether a text is cut before it is tokenised, too, at as many characters as that many tokens have by the median.
    pub cuts_characters: bool,
}

impl Unloaded {
    /// Reads what the files of a model say, where there are files. Options win over files.
    pub fn read(source: &Source, options: &ModelOptions) -> Result<Self> {
        let files = match source {
            Source::Files(files) => files,
            Source::Remote(server) => return Ok(Self::Remote(server.clone())),
            Source::Bm25 => return bm25::check_options(options).map(|()| Self::Bm25(Prompts::default())),
        };
        let mut spec = directory::read(&files.path, options)?;
        spec.origin = files.origin.clone();
        let manner = files.origin.as_ref().and_then(|(repository, _)| hub::manner(repository));
        if let (Some((pooling, normalize)), true) = (manner, spec.silent) {
            spec.pooling = if spec.pooling.is_empty() { vec![pooling] } else { spec.pooling };
            spec.normalize = spec.normalize.or(Some(normalize));
        }
        let builtin = files.id == BUILTIN;
        if let Some(queries) = &mut spec.queries {
            queries.origin = spec.origin.clone();
        }
        Ok(Self::Files(Box::new(ModelFiles::new(&files.id, spec, builtin))))
    }

    /// The model as the user named it.
    pub fn id(&self) -> &str {
        match self {
            Self::Files(files) => &files.id,
            Self::Remote(server) => server.id(),
            Self::Bm25(_) => BM25,
        }
    }

    /// What makes tokens of its texts; `None` where only the model itself does.
    pub fn tokenizer(&self) -> Option<TokenizerFile<'_>> {
        let Self::Files(files) = self else { return None };
        let spec = &files.spec;
        if spec.tokenizer_json.is_empty() {
            return None;
        }
        Some(TokenizerFile { json: &spec.tokenizer_json, path: &spec.tokenizer_path, reading: &spec.reading })
    }

    /// Whether texts are to be written in lower case first.
    pub fn lowercase(&self) -> bool {
        matches!(self, Self::Files(files) if files.spec.lowercase)
    }

    /// Whether prompts are read but are not part of what a vector stands for.
    pub fn leaves_out_prompts(&self) -> bool {
        matches!(self, Self::Files(files) if files.spec.without_prompt)
    }

    /// What to put before texts.
    pub fn prompts(&self) -> &Prompts {
        match self {
            Self::Files(files) => &files.spec.prompts,
            Self::Remote(server) => server.prompts(),
            Self::Bm25(prompts) => prompts,
        }
    }

    /// Bytes of memory that it takes to load it, at the most. 0 where nobody can tell.
    pub fn load_bytes(&self, options: &ModelOptions) -> u64 {
        match self {
            Self::Files(files) => files.load_bytes(options),
            Self::Remote(_) | Self::Bm25(_) => 0,
        }
    }

    /// Where its graph may be computed in other ways than the reference, so that there is something to choose.
    pub fn files(&self) -> Option<&ModelFiles> {
        match self {
            Self::Files(files) => Some(&**files).filter(|files| files.has_choice()),
            Self::Remote(_) | Self::Bm25(_) => None,
        }
    }

    /// Makes the model ready to run on `compute`, and does what else there is to do `meanwhile`. Blocks: hashes and compiles
    /// the whole file, or asks the server.
    pub fn load<T: Send>(
        &self,
        compute: Compute,
        options: &ModelOptions,
        cancel: &Cancel,
        meanwhile: impl FnOnce() -> T + Send,
    ) -> (Result<Arc<dyn Model>>, T) {
        match self {
            Self::Files(files) => files.load(compute, options, cancel, meanwhile),
            Self::Remote(server) => (server.load(cancel), meanwhile()),
            Self::Bm25(_) => (Ok(Arc::new(Bm25::new(&options.bm25))), meanwhile()),
        }
    }
}

impl ModelFiles {
    fn new(id: &str, mut spec: ModelSpec, builtin: bool) -> Self {
        let queries = spec.queries.take().map(|queries| Box::new(Self::new(id, *queries, false)));
        Self { id: id.to_owned(), spec, builtin, weights: OnceLock::new(), queries }
    }

    /// Whether all of it is one graph.
    fn has_choice(&self) -> bool {
        self.spec.table.is_none() && self.spec.idf.is_none() && self.queries.is_none()
    }

    fn load_bytes(&self, options: &ModelOptions) -> u64 {
        let own = match (&self.spec.table, &self.spec.idf) {
            (Some(table), _) => table.bytes(),
            (None, Some(weights)) => (weights.len() * size_of::<f32>()) as u64,
            (None, None) => {
                let mapped = options.providers.iter().all(|provider| *provider == Provider::Cpu);
                let graph = memory_cost::load_bytes_of(&self.spec.onnx, mapped);
                graph.saturating_add(onnx::extending_bytes(&self.spec, options))
            }
        };
        own.saturating_add(self.queries.as_ref().map_or(0, |queries| queries.load_bytes(options)))
    }

    /// Whether it is the model that comes with the package.
    pub fn is_builtin(&self) -> bool {
        self.builtin
    }

    /// The hash of its weights. Blocks the first time: reads the whole file.
    pub fn weights(&self, cancel: &Cancel) -> Result<[u8; 32]> {
        self.hashed(cancel).map(|weights| weights.sha256)
    }

    fn hashed(&self, cancel: &Cancel) -> Result<&HashedWeights> {
        if let Some(weights) = self.weights.get() {
            return Ok(weights);
        }
        let weights = weights::hash_weights(&self.spec.onnx, cancel)?;
        Ok(self.weights.get_or_init(|| weights))
    }

    fn load<T: Send>(
        &self,
        compute: Compute,
        options: &ModelOptions,
        cancel: &Cancel,
        meanwhile: impl FnOnce() -> T + Send,
    ) -> (Result<Arc<dyn Model>>, T) {
        let (model, meanwhile) = self.load_own(compute, options, cancel, meanwhile);
        let Some(queries) = &self.queries else { return (model, meanwhile) };
        let both = model.and_then(|documents| {
            let queries = queries.load_own(compute, options, cancel, || ()).0?;
            let routed = Routed::new(documents, queries).map_err(|reason| Error::model(&self.spec.root, reason))?;
            Ok(Arc::new(routed) as Arc<dyn Model>)
        });
        (both, meanwhile)
    }

    fn load_own<T: Send>(
        &self,
        compute: Compute,
        options: &ModelOptions,
        cancel: &Cancel,
        meanwhile: impl FnOnce() -> T + Send,
    ) -> (Result<Arc<dyn Model>>, T) {
        if let Some(weights) = &self.spec.idf {
            return (Ok(Arc::new(IdfModel::new(&self.id, &self.spec, weights))), meanwhile());
        }
        if let Some(table) = &self.spec.table {
            let load = || StaticModel::load(&self.id, &self.spec, table, options, cancel);
            let (model, meanwhile) = host::join(load, meanwhile);
            return (model.map(|model| Arc::new(model) as Arc<dyn Model>), meanwhile);
        }
        // One core loads and checks the runtime, then compiles: that takes longest. The other one does all the rest.
        let compile = || self.compile(compute, options, cancel);
        let hash = || (self.hashed(cancel).map(drop), meanwhile());
        let ((weights, meanwhile), model) = host::join(hash, compile);
        (weights.and_then(|()| self.finish(model, options, cancel)), meanwhile)
    }

    fn compile(&self, compute: Compute, options: &ModelOptions, cancel: &Cancel) -> Result<Compiled> {
        let (id, spec) = (&self.id, &self.spec);
        let session: Box<dyn Session> = match compute.engine {
            Engine::OnnxRuntime => Box::new(OnnxSession::compile(spec, options, cancel)?),
            Engine::OpenVino => Box::new(OpenVinoSession::compile(spec, compute, options, cancel)?),
        };
        let images = vision::reads_images(&*session);
        if images && options.task != Task::Embedding {
            return Err(purpose::wrong(&spec.root, Task::Embedding));
        }
        Ok(if images {
            Compiled::Images(Box::new(VisionModel::new(id, spec, options, session, cancel)?))
        } else {
            Compiled::Texts(Box::new(Transformer::new(id, spec, options, session, cancel)?))
        })
    }

    fn finish(&self, model: Result<Compiled>, options: &ModelOptions, cancel: &Cancel) -> Result<Arc<dyn Model>> {
        let weights = self.hashed(cancel)?;
        if self.builtin {
            builtin::check(&self.spec, weights)?;
        }
        let mix = options.mix_precision;
        Ok(match model? {
            Compiled::Texts(model) => Arc::new(model.identified(&self.spec, weights, mix)),
            Compiled::Images(model) => Arc::new(model.identified(&self.spec, weights, mix)),
        })
    }
}

/// A model by what it reads.
enum Compiled {
    Texts(Box<Transformer>),
    Images(Box<VisionModel>),
}

/// Whether there is a package with the plugin for [`Provider::WebGpu`], whatever it is worth.
pub fn has_webgpu_package() -> bool {
    library::WEBGPU.directory().is_ok()
}

/// Waits until nobody loads a library, and what is inside OpenVINO now has left, ten seconds at most. For a thread of JS that ends,
/// as it does before its process may.
pub fn await_load() {
    onnx::await_load();
    openvino::await_load();
}
