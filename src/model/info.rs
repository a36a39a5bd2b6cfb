//! What a loaded model says about itself.

use super::{Compute, Kind, Pooling, ProviderInfo};
use crate::embedding::{Fingerprint, Modality, Task};

/// What a loaded model is, as `getModelInfo()` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The model as the user named it.
    pub model_id: String,
    /// What it reads.
    pub modality: Modality,
    /// What it is for.
    pub task: Task,
    /// What the scores of a pair are called; one for each dimension.
    pub labels: Vec<String>,
    /// Whether scores are meant to be numbers from 0 to 1, by the logistic function.
    pub sigmoid: bool,
    /// How it reads; `None` where only a server knows.
    pub architecture: Option<Architecture>,
    /// The file of its graph or table, or the address that is asked.
    pub model_path: String,
    /// The repository of the hub that its files come from: another one than its id says where that one has no ONNX.
    pub repository: Option<String>,
    /// The commit of that repository.
    pub revision: Option<String>,
    /// Length of its vectors.
    pub dimensions: usize,
    /// Most tokens of a text that it sees, special tokens included; `None` where nobody says.
    pub max_length: Option<usize>,
    /// What says so: the option `maxLength`, a file of the model by its name, or `server`.
    pub max_length_from: Option<&'static str>,
    /// How token vectors become one vector: in all of these ways, joined; none where the graph does it, or a server.
    pub pooling: Vec<Pooling>,
    /// Whether vectors have length 1.
    pub normalize: bool,
    /// The graph's output that is read, where there is a graph.
    pub output: Option<String>,
    /// Type of the weights, as far as the file's name tells; else the element type of that output, `fp32` or `fp16`. `None`
    /// on a server.
    pub dtype: Option<&'static str>,
    /// Whether a text's vector is independent of the batch that it runs in. It is not in graphs that quantise
    /// activations on the fly; their texts are run one by one.
    pub batch_invariant: bool,
    /// Threads inside one run; 0 on a server.
    pub intra_op_threads: usize,
    /// What computes, best first; nothing here where it is a server.
    pub providers: Vec<ProviderInfo>,
    /// How the engine in use describes itself, or what the server is.
    pub runtime: String,
    /// What computes its graph, and how; `None` on a server.
    pub compute: Option<Compute>,
    /// Where it runs, if not here.
    pub remote: Option<RemoteInfo>,
    /// Identifies the embedding space: weights, tokenizer, configuration, prompts and everything in this struct that
    /// changes vectors.
    pub fingerprint: Fingerprint,
}

/// How a model makes a vector of what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Every part of it is seen in the light of all others.
    Encoder,
    /// From its beginning to its end, each part in the light of those before it.
    Decoder,
    /// Each token has a vector, whatever stands beside it.
    Static,
}

impl Architecture {
    /// The spelling in `getModelInfo()`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Encoder => "encoder",
            Self::Decoder => "decoder",
            Self::Static => "static",
        }
    }
}

/// A model on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteInfo {
    /// What the server speaks.
    pub kind: Kind,
    /// Where it is, without anything secret.
    pub url: String,
    /// What the server calls the model.
    pub model: String,
    /// What the server says its content is, where it does.
    pub digest: Option<String>,
    /// Most texts of a request.
    pub max_batch_items: usize,
    /// Requests at a time.
    pub concurrency: usize,
}
