//! What sentence-transformers' `modules.json` says about a model: what reads its texts, and what follows.

use std::path::{Component, Path};

use serde::Deserialize;
use serde_json::Value;

use super::Pooling;
use super::config_files::{ConfigFiles, read_file};
use super::pooling::{Activation, Dense, Layer, Residual};
use super::tensors::Tensors;
use crate::error::{Error, Result};

pub(super) const MODULES: &str = "modules.json";

/// One module of a model.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Module {
    #[serde(default)]
    pub path: String,
    #[serde(rename = "type", default)]
    pub kind: String,
}

impl Module {
    /// The last part of its type: whatever package it comes from, and wherever that keeps it.
    pub fn name(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or_default()
    }

    /// Its folder as a prefix, or `None` where that is outside the model: a file of a model never names anything there.
    pub fn prefix(&self) -> Option<String> {
        let mut prefix = String::new();
        for part in Path::new(&self.path).components() {
            match part {
                Component::CurDir => {}
                Component::Normal(part) => prefix.extend([part.to_str()?, "/"]),
                _ => return None,
            }
        }
        Some(prefix)
    }
}

/// How vectors are made of what a model gives for tokens, as its files say.
#[derive(Debug, Default)]
pub(super) struct After {
    /// What is done with the vector of each token.
    pub tokens: Vec<Layer>,
    /// How they become one, joined in this order; empty where nothing says.
    pub pooling: Vec<Pooling>,
    /// What is done with that.
    pub layers: Vec<Layer>,
    /// Whether vectors end with length 1; `None` where nothing says.
    pub normalize: Option<bool>,
    /// Whether the tokens of a prompt are not pooled.
    pub without_prompt: bool,
    /// Whether what comes of it is scores.
    pub scores: bool,
}

impl After {
    /// Of a model without `modules.json`.
    pub fn without_modules(files: &mut ConfigFiles) -> Result<Self> {
        let mut after = Self::default();
        if let Some(config) = files.json("1_Pooling/config.json")? {
            after.pool(&files.root, config)?;
        }
        Ok(after)
    }

    /// Of what comes after the first module. `pools`: whether what that gives is one vector for each text.
    pub fn read(files: &mut ConfigFiles, modules: &[Module], pools: bool) -> Result<Self> {
        let mut after = Self { normalize: Some(false), ..Self::default() };
        for module in modules {
            let prefix = prefix(&files.root, module)?;
            let pooled = pools || !after.pooling.is_empty();
            match module.name() {
                "Pooling" if pooled => {
                    return Err(Error::model(
                        &files.root,
                        "modules.json pools what is one vector for each text already",
                    ));
                }
                "Pooling" => {
                    let file = format!("{prefix}config.json");
                    let config = files.json(&file)?.ok_or_else(|| missing(&files.root, &file))?;
                    after.pool(&files.root, config)?;
                }
                "Dense" => {
                    let (config, dense) = read_dense(files, &prefix)?;
                    after.add(files, Layer::Dense(dense), config.places, pooled)?;
                }
                "LayerNorm" => {
                    let layer = read_layer_norm(files, &prefix)?;
                    after.add(files, layer, Places::default(), pooled)?;
                }
                "Normalize" => {
                    let config: Option<Places> = files.json(&format!("{prefix}config.json"))?;
                    after.add(files, Layer::Normalize, config.unwrap_or_default(), pooled)?;
                }
                // Nothing is dropped but while a model is trained.
                "Dropout" => {}
                _ => {
                    return Err(Error::model(
                        &files.root,
                        format!(
                            "modules.json asks for {}; supported are Transformer, StaticEmbedding, Router, Pooling, Dense, LayerNorm, Normalize and Dropout",
                            module.kind
                        ),
                    ));
                }
            }
        }
        // The last one is done after vectors have been cut.
        if after.layers.last() == Some(&Layer::Normalize) {
            after.layers.pop();
            after.normalize = Some(true);
        }
        Ok(after)
    }

    fn add(&mut self, files: &ConfigFiles, layer: Layer, places: Places, pooled: bool) -> Result<()> {
        let bad = |reason: String| Err(Error::model(files.root.join(MODULES), reason));
        let read = places.module_input_name.unwrap_or_else(|| SENTENCE.to_owned());
        if self.scores {
            return bad("a module follows the one that writes scores, which is not supported".to_owned());
        }
        if places.module_output_name.as_deref() == Some(SCORES) && read == SENTENCE && pooled {
            self.scores = true;
            self.layers.push(layer);
            return Ok(());
        }
        if let Some(other) = places.module_output_name.filter(|output| *output != read) {
            return bad(format!(
                "a module reads {read} and writes {other}, which is not supported: it has to write what it reads"
            ));
        }
        match (read.as_str(), pooled) {
            (TOKENS, false) => self.tokens.push(layer),
            // Nobody reads what becomes of tokens once they are pooled.
            (TOKENS, true) => {}
            // Where nothing pools, the graph does, or it is said that nobody knows.
            (SENTENCE, _) => self.layers.push(layer),
            _ => return bad(format!("a module reads {read}; token_embeddings and sentence_embedding are supported")),
        }
        Ok(())
    }

    fn pool(&mut self, root: &Path, config: PoolingConfig) -> Result<()> {
        self.without_prompt = config.include_prompt == Some(false);
        self.pooling = config.modes().map_err(|reason| Error::model(root, reason))?;
        Ok(())
    }
}

/// What modules name the vectors of tokens, that of their text, and what is made of that for a pair.
const TOKENS: &str = "token_embeddings";
const SENTENCE: &str = "sentence_embedding";
const SCORES: &str = "scores";

/// What a module reads and writes.
#[derive(Deserialize, Default)]
struct Places {
    module_input_name: Option<String>,
    module_output_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode: Option<Value>,
    pooling_mode_cls_token: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
    include_prompt: Option<bool>,
}

impl PoolingConfig {
    /// Those that are switched on: by name, or else each by itself, where they are joined in this order. `mean` where none is.
    fn modes(&self) -> Result<Vec<Pooling>, String> {
        let named = |name: &Value| {
            let pooling = name.as_str().and_then(|name| match name {
                "lasttoken" => Some(Pooling::LastToken),
                "mean_sqrt_len_tokens" => Some(Pooling::MeanSqrtLen),
                name => Pooling::parse(name),
            });
            pooling.ok_or_else(|| {
                format!(
                    "its pooling ({name}) is not supported; pass pooling: {} only if the model was trained for it",
                    Pooling::ALL.map(|pooling| format!("'{}'", pooling.as_str())).join(", ")
                )
            })
        };
        let modes: Vec<Pooling> = match &self.pooling_mode {
            Some(Value::Array(names)) => names.iter().map(named).collect::<Result<_, _>>()?,
            Some(name) => vec![named(name)?],
            None => [
                (self.pooling_mode_cls_token, Pooling::Cls),
                (self.pooling_mode_max_tokens, Pooling::Max),
                (self.pooling_mode_mean_tokens, Pooling::Mean),
                (self.pooling_mode_mean_sqrt_len_tokens, Pooling::MeanSqrtLen),
                (self.pooling_mode_weightedmean_tokens, Pooling::WeightedMean),
                (self.pooling_mode_lasttoken, Pooling::LastToken),
            ]
            .into_iter()
            .filter_map(|(on, pooling)| on.then_some(pooling))
            .collect(),
        };
        Ok(if modes.is_empty() { vec![Pooling::Mean] } else { modes })
    }
}

#[derive(Deserialize)]
pub(super) struct DenseConfig {
    in_features: usize,
    out_features: usize,
    #[serde(default)]
    activation_function: Option<String>,
    #[serde(default)]
    use_residual: bool,
    #[serde(flatten)]
    places: Places,
}

#[derive(Deserialize)]
struct LayerNormConfig {
    dimension: usize,
}

pub(super) fn read_dense(files: &mut ConfigFiles, prefix: &str) -> Result<(DenseConfig, Dense)> {
    let file = format!("{prefix}config.json");
    let config: DenseConfig = files.json(&file)?.ok_or_else(|| missing(&files.root, &file))?;
    let named = config.activation_function.as_deref().unwrap_or("Tanh");
    let activation = match named.rsplit('.').next() {
        Some("Tanh") => Activation::Tanh,
        Some("Identity") => Activation::Identity,
        other => {
            let name = other.unwrap_or_default();
            let reason = format!("the activation {name} is not supported; Tanh and Identity are");
            return Err(Error::model(files.root.join(file), reason));
        }
    };
    let (inputs, outputs) = (config.in_features, config.out_features);
    if inputs == 0 || outputs == 0 {
        let reason = "a dense layer needs at least one input and one output";
        return Err(Error::model(files.root.join(file), reason));
    }
    let dense = weights(files, prefix, |tensors| {
        let has = |name: &str| tensors.names().iter().any(|other| other == name);
        let residual = match (config.use_residual, inputs == outputs) {
            (false, _) => Residual::None,
            (true, true) => Residual::Input,
            (true, false) => Residual::Weight(tensors.floats("residual.weight", &[outputs, inputs])?),
        };
        let weight = tensors.floats("linear.weight", &[outputs, inputs])?;
        let bias = if has("linear.bias") { tensors.floats("linear.bias", &[outputs])? } else { Vec::new() };
        Ok(Dense { weight, bias, inputs, outputs, activation, residual })
    })?;
    Ok((config, dense))
}

fn read_layer_norm(files: &mut ConfigFiles, prefix: &str) -> Result<Layer> {
    let file = format!("{prefix}config.json");
    let config: LayerNormConfig = files.json(&file)?.ok_or_else(|| missing(&files.root, &file))?;
    weights(files, prefix, |tensors| {
        let values = |name: &str| tensors.floats(name, &[config.dimension]);
        Ok(Layer::Standardize { weight: values("norm.weight")?, bias: values("norm.bias")? })
    })
}

/// The projection that ColBERT's makers keep beside the weights of the transformer.
pub(super) fn projection(files: &mut ConfigFiles) -> Result<Option<Layer>> {
    if !files.root.join("model.safetensors").is_file() {
        return Ok(None);
    }
    let dense = weights(files, "", |tensors| {
        let shape = tensors.find("linear.weight")?.map(|tensor| tensor.shape.to_vec()).unwrap_or_default();
        let [outputs, inputs] = shape[..] else { return Err(format!("linear.weight has the shape {shape:?}")) };
        let weight = tensors.floats("linear.weight", &[outputs, inputs])?;
        let (bias, activation, residual) = (Vec::new(), Activation::Identity, Residual::None);
        Ok(Dense { weight, bias, inputs, outputs, activation, residual })
    })?;
    Ok(Some(Layer::Dense(dense)))
}

/// What `read` makes of a module's weights, which are remembered like its configuration.
fn weights<T>(
    files: &mut ConfigFiles,
    prefix: &str,
    read: impl FnOnce(&Tensors<&[u8]>) -> Result<T, String>,
) -> Result<T> {
    let file = format!("{prefix}model.safetensors");
    let path = files.root.join(&file);
    let bytes = read_file(&path)?.ok_or_else(|| {
        Error::model(&path, "there is no such file; weights in pytorch_model.bin have to be converted to safetensors")
    })?;
    let result = Tensors::parse(bytes.as_slice()).and_then(|tensors| read(&tensors));
    let result = result.map_err(|reason| Error::model(&path, reason))?;
    files.read.push((file, bytes));
    Ok(result)
}

/// See [`Module::prefix`].
pub(super) fn prefix(root: &Path, module: &Module) -> Result<String> {
    module
        .prefix()
        .ok_or_else(|| Error::model(root, format!("modules.json points outside the model: {:?}", module.path)))
}

pub(super) fn missing(root: &Path, file: &str) -> Error {
    Error::model(root.join(file), "modules.json names this file, but it is not there")
}

/// The error about a module that is not known here.
pub(super) fn unsupported(root: &Path, module: &Module, known: &str) -> Error {
    Error::model(root, format!("modules.json asks for {}; supported are {known}", module.kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poolings_are_read_in_all_spellings() {
        let modes = |json: &str| serde_json::from_str::<PoolingConfig>(json).unwrap().modes();
        assert_eq!(modes(r#"{"pooling_mode": "lasttoken"}"#), Ok(vec![Pooling::LastToken]));
        assert_eq!(modes(r#"{"pooling_mode": "weightedmean"}"#), Ok(vec![Pooling::WeightedMean]));
        assert_eq!(
            modes(r#"{"pooling_mode": ["mean_sqrt_len_tokens", "cls"], "pooling_mode_max_tokens": true}"#),
            Ok(vec![Pooling::MeanSqrtLen, Pooling::Cls])
        );
        assert_eq!(
            modes(
                r#"{"pooling_mode_lasttoken": true, "pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}"#
            ),
            Ok(vec![Pooling::Cls, Pooling::Mean, Pooling::LastToken])
        );
        assert_eq!(modes("{}"), Ok(vec![Pooling::Mean]));
        assert!(modes(r#"{"pooling_mode": "sum"}"#).unwrap_err().contains("\"sum\""));
        assert!(modes(r#"{"pooling_mode": ["mean", 3]}"#).is_err());
    }

    #[test]
    fn a_module_lies_within_its_model() {
        let prefix = |path: &str| Module { path: path.to_owned(), kind: String::new() }.prefix();
        for (path, expected) in [("", ""), (".", ""), ("1_Pooling", "1_Pooling/"), ("./a/b", "a/b/")] {
            assert_eq!(prefix(path).as_deref(), Some(expected), "{path}");
        }
        for path in ["..", "a/../b", "/etc"] {
            assert_eq!(prefix(path), None, "{path}");
        }
    }
}
