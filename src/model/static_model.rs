//! Models that are tables, and run no graph: the mean of the vectors of a text's tokens, or the weight of each of them.

use std::sync::Arc;

use super::directory::ModelSpec;
use super::pooling::Head;
use super::table::Table;
use super::tensors::Number;
use super::{Architecture, Engine, Model, ModelInfo, ModelOptions, Pooling, Precision, ProviderInfo, RunError, Then};
use crate::cancel::Cancel;
use crate::embedding::{Fingerprint, FingerprintBuilder, Modality, SparseVector, Tokens, Value};
use crate::error::{Error, Result};

/// Tokens of a run: more would leave cores without work.
const RUN_TOKENS: usize = 1 << 14;

/// See the module.
pub(super) struct StaticModel {
    table: Arc<Table>,
    head: Head,
    info: ModelInfo,
}

impl StaticModel {
    /// Reads the whole file once, for its hash. Blocks.
    pub fn load(
        id: &str,
        spec: &ModelSpec,
        table: &Arc<Table>,
        options: &ModelOptions,
        cancel: &Cancel,
    ) -> Result<Self> {
        let bad = |reason: String| Error::model(&table.path, reason);
        if !options.pooling.is_empty() {
            let reason = format!("{id} is a table of vectors, and a text's is the mean of its tokens': leave it out");
            return Err(Error::config("pooling", reason));
        }
        let asked = [
            ("engine", options.engine == Some(Engine::OpenVino)),
            ("precision", options.precision == Some(Precision::Bf16)),
        ];
        if let Some((option, _)) = asked.into_iter().find(|(_, asked)| *asked) {
            let reason = format!("{id} is a table of vectors, which no engine computes: leave it out");
            return Err(Error::config(option, reason));
        }
        let head = Head {
            layers: spec.layers.clone(),
            dimensions: options.dimensions,
            normalize: spec.normalize.unwrap_or(false),
            ..Head::default()
        };
        let full = head.full_width(table.width).map_err(bad)?;
        if let Some(dimensions) = options.dimensions.filter(|&dimensions| dimensions > full) {
            return Err(bad(format!("dimensions: {dimensions} is more than the {full} that the model has")));
        }
        let weights = table.hash(cancel)?;
        let dimensions = options.dimensions.unwrap_or(full);
        let fingerprint = Fingerprint::builder()
            .field("architecture", Architecture::Static.as_str())
            .field("layout", format!("{:?}", table.layout))
            .field("weights", weights)
            .field("tokenizer.json", &spec.tokenizer_json)
            .field("normalize", [u8::from(head.normalize)])
            .field("dimensions", (dimensions as u64).to_le_bytes());
        let info = ModelInfo {
            model_path: table.path.display().to_string(),
            dimensions,
            pooling: vec![Pooling::Mean],
            normalize: head.normalize,
            dtype: Some(match table.number {
                Number::F16 => "fp16",
                Number::Bf16 => "bf16",
                Number::I8 => "int8",
                _ => "fp32",
            }),
            ..info(id, spec, fingerprint)
        };
        Ok(Self { table: Arc::clone(table), head, info })
    }
}

impl Model for StaticModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn run(&self, batch: &[&Tokens], cancel: &Cancel) -> Result<Vec<Value>, RunError> {
        let failed = |reason| RunError { error: Error::generation(reason), then: Then::Alone };
        let table = self.table.tensor().map_err(failed)?.bytes;
        let mut vectors = Vec::with_capacity(batch.len());
        for tokens in batch {
            cancel.check().map_err(|error| RunError { error, then: Then::Nothing })?;
            let mut vector = self.table.mean(table, tokens).map_err(failed)?;
            self.head.finish(&mut vector);
            vectors.push(Value::Dense(vector));
        }
        Ok(vectors)
    }

    fn bytes(&self, rows: usize, _: usize) -> u64 {
        // The vectors, twice while they are handed over.
        (rows as u64).saturating_mul((self.info.dimensions * 2 * size_of::<f32>()) as u64)
    }

    fn parallel(&self, cores: usize) -> usize {
        cores.max(1)
    }

    fn most_rows(&self) -> usize {
        usize::MAX
    }

    fn most_weight(&self) -> Option<usize> {
        Some(RUN_TOKENS)
    }

    fn shrink(&self) {}
}

/// What is known of all of them.
fn info(id: &str, spec: &ModelSpec, fingerprint: FingerprintBuilder) -> ModelInfo {
    ModelInfo {
        model_id: id.to_owned(),
        modality: Modality::Text,
        task: spec.purpose.task(),
        labels: Vec::new(),
        sigmoid: false,
        architecture: Some(Architecture::Static),
        model_path: spec.onnx.display().to_string(),
        repository: spec.origin.as_ref().map(|(repository, _)| repository.clone()),
        revision: spec.origin.as_ref().map(|(_, commit)| commit.clone()),
        dimensions: 0,
        max_length: Some(spec.max_length),
        max_length_from: spec.max_length_from,
        pooling: Vec::new(),
        normalize: false,
        output: None,
        dtype: Some("fp32"),
        batch_invariant: true,
        intra_op_threads: 1,
        providers: vec![ProviderInfo::cpu(None, Some(env!("CARGO_PKG_VERSION").to_owned()))],
        runtime: concat!("embedcore ", env!("CARGO_PKG_VERSION")).to_owned(),
        remote: None,
        compute: None,
        fingerprint: spec.with_config_files(spec.identify(fingerprint)).finish(),
    }
}

/// How rare each token is: a text has the weights of its tokens, each once.
pub(super) struct IdfModel {
    weights: Arc<Vec<f32>>,
    info: ModelInfo,
}

impl IdfModel {
    /// The weights are among the files of the configuration.
    pub fn new(id: &str, spec: &ModelSpec, weights: &Arc<Vec<f32>>) -> Self {
        let fingerprint =
            Fingerprint::builder().field("architecture", "idf").field("tokenizer.json", &spec.tokenizer_json);
        let info = ModelInfo { dimensions: weights.len(), ..info(id, spec, fingerprint) };
        Self { weights: Arc::clone(weights), info }
    }
}

impl Model for IdfModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn run(&self, batch: &[&Tokens], _: &Cancel) -> Result<Vec<Value>, RunError> {
        let vector = |tokens: &&Tokens| {
            let mut indices = tokens.ids.clone();
            indices.sort_unstable();
            indices.dedup();
            let weight = |id: &u32| self.weights.get(*id as usize).copied().unwrap_or_default();
            indices.retain(|id| weight(id) != 0.0);
            let values = indices.iter().map(weight).collect();
            Value::Sparse(SparseVector { indices, values })
        };
        Ok(batch.iter().map(vector).collect())
    }

    fn bytes(&self, rows: usize, longest: usize) -> u64 {
        rows.saturating_mul(longest).saturating_mul(2 * (size_of::<u32>() + size_of::<f32>())) as u64
    }

    fn parallel(&self, cores: usize) -> usize {
        cores.max(1)
    }

    fn most_rows(&self) -> usize {
        usize::MAX
    }

    fn most_weight(&self) -> Option<usize> {
        Some(RUN_TOKENS)
    }

    fn shrink(&self) {}
}
