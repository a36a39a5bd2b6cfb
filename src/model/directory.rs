//! A model's own files, in Hugging Face layout: what they say about it, and the hash of what they hold.

use std::collections::BTreeMap;
use std::fs;

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::config_files::{ConfigFiles, PREPROCESSOR, read_file};
use super::content;
use super::pooling::{Activation, Dense};
use super::{ModelOptions, Pooling, PromptOptions, Prompts, graph, vocabulary};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::images::Preprocessing;

/// The most tokens that any model is believed to read, as many as a text has at most.
const MOST_TOKENS: usize = 1 << 20;

/// A model as its files and the user's options describe it.
pub(super) struct ModelSpec {
    pub root: PathBuf,
    /// The repository and the commit of the hub that all of it comes from.
    pub origin: Option<(String, String)>,
    pub onnx: PathBuf,
    pub tokenizer_path: String,
    /// Empty where there is none: fine only if the model reads images.
    pub tokenizer_json: Vec<u8>,
    /// Where a file says how images are prepared.
    pub preprocessing: Option<Preprocessing>,
    /// Whether no file says how vectors are made.
    pub silent: bool,
    /// `None` when nothing says: fine only if the graph pools by itself.
    pub pooling: Option<Pooling>,
    pub normalize: Option<bool>,
    pub dense: Vec<Dense>,
    pub max_length: usize,
    pub prompts: Prompts,
    pub truncate_left: Option<bool>,
    pub lowercase: bool,
    pub pad_id: u32,
    /// The position of the first token: RoBERTa and its kin start after the padding id.
    pub first_position: u32,
    /// Every configuration file that was read, for the fingerprint.
    pub config_files: Vec<(String, Vec<u8>)>,
}

#[derive(Deserialize)]
struct ModuleEntry {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    model_type: Option<String>,
    /// Some files say -1 where there is none.
    pad_token_id: Option<i64>,
    max_position_embeddings: Option<usize>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SentenceBertConfig {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TokenizerConfig {
    /// Often a number like 1e30 that stands for "no limit", too large for an integer.
    model_max_length: Option<f64>,
    truncation_side: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SentenceTransformersConfig {
    prompts: BTreeMap<String, Option<String>>,
    default_prompt_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode: Option<String>,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_lasttoken: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    include_prompt: Option<bool>,
}

#[derive(Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    #[serde(default)]
    activation_function: Option<String>,
}

/// Reads what the files at `path` say. Options win over files.
pub(super) fn read(path: &str, options: &ModelOptions) -> Result<ModelSpec> {
    let (root, onnx) = graph::locate(path, options.dtype)?;
    let mut files = ConfigFiles::at(&root);
    let config: Config = files.json("config.json")?.unwrap_or_default();
    let preprocessing = preprocessing(&files.root)?;
    let (tokenizer_json, tokenizer_path) = match tokenizer(&mut files, config.model_type.as_deref()) {
        Ok(tokenizer) => tokenizer,
        // Whether it is needed, the graph tells.
        Err(error) => preprocessing.as_ref().map(|_| Default::default()).ok_or(error)?,
    };
    let sentence_bert: SentenceBertConfig = files.json("sentence_bert_config.json")?.unwrap_or_default();
    let tokenizer_config: TokenizerConfig = files.json("tokenizer_config.json")?.unwrap_or_default();
    let prompts: SentenceTransformersConfig = files.json("config_sentence_transformers.json")?.unwrap_or_default();
    let modules: Option<Vec<ModuleEntry>> = files.json("modules.json")?;

    let roberta_like = matches!(
        config.model_type.as_deref(),
        Some("roberta" | "xlm-roberta" | "camembert" | "mpnet" | "longformer" | "xlm-roberta-xl" | "data2vec-text")
    );
    let pad_id = config.pad_token_id.and_then(|id| u32::try_from(id).ok()).unwrap_or(u32::from(roberta_like));
    let first_position = if roberta_like { pad_id.saturating_add(1) } else { 0 };
    let longest =
        config.max_position_embeddings.map(|all| all.saturating_sub(first_position as usize).min(MOST_TOKENS));
    let max_length = if tokenizer_json.is_empty() {
        0
    } else {
        max_length(&files.root, options.max_length, longest, &sentence_bert, &tokenizer_config)?
    };

    let mut spec = ModelSpec {
        root: files.root.clone(),
        origin: None,
        onnx,
        tokenizer_path,
        tokenizer_json,
        preprocessing,
        silent: false,
        pooling: None,
        normalize: None,
        dense: Vec::new(),
        max_length,
        prompts: merged_prompts(&options.prompts, &prompts)?,
        truncate_left: tokenizer_config.truncation_side.map(|side| side == "left"),
        lowercase: sentence_bert.do_lower_case,
        pad_id,
        first_position,
        config_files: Vec::new(),
    };
    match modules {
        Some(modules) => read_modules(&mut files, &modules, options, &mut spec)?,
        None => {
            let config: Option<PoolingConfig> = files.json("1_Pooling/config.json")?;
            spec.pooling = config.map(|config| pooling(&files.root, &config, options)).transpose()?;
        }
    }
    spec.silent = spec.pooling.is_none() && spec.normalize.is_none();
    spec.pooling = options.pooling.or(spec.pooling);
    spec.normalize = options.normalize.or(spec.normalize);
    spec.config_files = files.read;
    Ok(spec)
}

/// The bytes of `tokenizer.json`, or what takes its place, and the name of the file that is read.
fn tokenizer(files: &mut ConfigFiles, model_type: Option<&str>) -> Result<(Vec<u8>, String)> {
    let path = files.root.join("tokenizer.json");
    if let Some(json) = read_file(&path)? {
        return Ok((json, path.display().to_string()));
    }
    vocabulary::tokenizer_json(files, model_type)?.ok_or_else(|| no_tokenizer(&files.root))
}

/// The error about a model without one.
pub(super) fn no_tokenizer(root: &Path) -> Error {
    Error::model(
        root.join("tokenizer.json"),
        "there is no such file, nor a vocabulary (vocab.txt, or vocab.json and merges.txt), and without its tokenizer the model cannot be used",
    )
}

/// What the model's file says about images. Beside other files, because it says nothing about texts.
fn preprocessing(root: &Path) -> Result<Option<Preprocessing>> {
    let path = root.join(PREPROCESSOR);
    let Some(bytes) = read_file(&path)? else { return Ok(None) };
    let json = serde_json::from_slice(&bytes)
        .map_err(|error| Error::model(&path, format!("not the JSON expected here: {error}")))?;
    Preprocessing::parse(&json).map_err(|reason| Error::model(&path, reason))
}

/// Option, then sentence-transformers' own limit, then the tokenizer's, then the number of positions, which also bounds
/// all the others.
fn max_length(
    root: &Path,
    option: Option<usize>,
    longest: Option<usize>,
    sentence_bert: &SentenceBertConfig,
    tokenizer: &TokenizerConfig,
) -> Result<usize> {
    if let (Some(option), Some(longest)) = (option, longest)
        && option > longest
    {
        return Err(Error::config(
            "maxLength",
            format!("{option} is more than the {longest} tokens that the model has positions for"),
        ));
    }
    // Above a million it stands for "no limit".
    let tokenizer = tokenizer.model_max_length.filter(|&max| (1.0..1e6).contains(&max)).map(|max| max as usize);
    let said = option.or(sentence_bert.max_seq_length).or(tokenizer).or(longest).ok_or_else(|| {
        Error::model(
            root,
            "nothing in its files says how many tokens it reads: pass maxLength, for example maxLength: 512",
        )
    })?;
    Ok(said.min(longest.unwrap_or(MOST_TOKENS)))
}

/// What the user says, then what the model names for the role, then its default. A prompt that the user chooses by its
/// name is put before texts of either role.
fn merged_prompts(options: &PromptOptions, config: &SentenceTransformersConfig) -> Result<Prompts> {
    let own = |name: &str| config.prompts.get(name).cloned().flatten();
    let named = |name: &str| match name {
        "document" if options.document.is_some() => options.document.clone(),
        "query" if options.query.is_some() => options.query.clone(),
        _ => own(name),
    };
    if let Some(name) = &options.name {
        let prompt = named(name).ok_or_else(|| {
            let known: Vec<String> = config.prompts.keys().map(|name| format!("'{name}'")).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Error::config(
                "promptName",
                format!("the model has no prompt '{name}'; it has {known}: pass the text in prompts"),
            )
        })?;
        return Ok(Prompts { document: prompt.clone(), query: prompt });
    }
    let default = config.default_prompt_name.as_deref().and_then(own).unwrap_or_default();
    let of_role = |option: &Option<String>, names: &[&str]| {
        option.clone().or_else(|| names.iter().find_map(|name| own(name))).unwrap_or_else(|| default.clone())
    };
    Ok(Prompts {
        document: of_role(&options.document, &["document", "passage", "search_document", "corpus"]),
        query: of_role(&options.query, &["query", "search_query"]),
    })
}

fn read_modules(
    files: &mut ConfigFiles,
    modules: &[ModuleEntry],
    options: &ModelOptions,
    spec: &mut ModelSpec,
) -> Result<()> {
    spec.normalize = Some(false);
    for module in modules {
        let name = module.kind.rsplit('.').next().unwrap_or_default();
        let path = module_path(&files.root, module)?;
        match name {
            "Transformer" if path.is_empty() => {}
            _ if spec.normalize == Some(true) => {
                return Err(Error::model(
                    &files.root,
                    format!("modules.json has {name} after Normalize, which is not supported"),
                ));
            }
            "Pooling" => {
                let file = format!("{path}config.json");
                let config: PoolingConfig = files.json(&file)?.ok_or_else(|| missing(&files.root, &file))?;
                spec.pooling = Some(pooling(&files.root, &config, options)?);
            }
            "Dense" => spec.dense.push(read_dense(files, &path)?),
            "Normalize" => spec.normalize = Some(true),
            _ => {
                return Err(Error::model(
                    &files.root,
                    format!(
                        "modules.json asks for {}; supported are Transformer, Pooling, Dense and Normalize",
                        module.kind
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// A module's folder as a prefix. A file of a model never names anything outside the model.
fn module_path(root: &Path, module: &ModuleEntry) -> Result<String> {
    let inside = Path::new(&module.path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    match (inside, module.path.is_empty()) {
        (false, _) => Err(Error::model(root, format!("modules.json points outside the model: {:?}", module.path))),
        (true, true) => Ok(String::new()),
        (true, false) => Ok(format!("{}/", module.path)),
    }
}

fn missing(root: &Path, file: &str) -> Error {
    Error::model(root.join(file), "modules.json names this file, but it is not there")
}

fn pooling(root: &Path, config: &PoolingConfig, options: &ModelOptions) -> Result<Pooling> {
    if let Some(pooling) = options.pooling {
        return Ok(pooling);
    }
    let unsupported = |what: &str| {
        Err(Error::model(
            root,
            format!(
                "its pooling ({what}) is not supported; pass pooling: 'mean', 'cls', 'last_token' or 'max' only if the model was trained for it"
            ),
        ))
    };
    if config.include_prompt == Some(false) {
        return unsupported("include_prompt: false");
    }
    if let Some(mode) = &config.pooling_mode {
        let name = if mode == "lasttoken" { "last_token" } else { mode };
        return Pooling::parse(name).map_or_else(|| unsupported(mode), Ok);
    }
    let modes = [
        (config.pooling_mode_cls_token, Some(Pooling::Cls), "cls"),
        (config.pooling_mode_mean_tokens, Some(Pooling::Mean), "mean"),
        (config.pooling_mode_max_tokens, Some(Pooling::Max), "max"),
        (config.pooling_mode_lasttoken, Some(Pooling::LastToken), "last token"),
        (config.pooling_mode_mean_sqrt_len_tokens, None, "mean, divided by the root of the length"),
        (config.pooling_mode_weightedmean_tokens, None, "weighted mean"),
    ];
    let on: Vec<_> = modes.into_iter().filter(|(on, ..)| *on).collect();
    match on[..] {
        [(_, Some(pooling), _)] => Ok(pooling),
        [] => unsupported("none is switched on"),
        _ => unsupported(&on.iter().map(|(.., name)| *name).collect::<Vec<_>>().join(" + ")),
    }
}

fn read_dense(files: &mut ConfigFiles, path: &str) -> Result<Dense> {
    let config_file = format!("{path}config.json");
    let config: DenseConfig = files.json(&config_file)?.ok_or_else(|| missing(&files.root, &config_file))?;
    let activation =
        match config.activation_function.as_deref().unwrap_or("torch.nn.modules.activation.Tanh").rsplit('.').next() {
            Some("Tanh") => Activation::Tanh,
            Some("Identity") => Activation::Identity,
            other => {
                let name = other.unwrap_or_default();
                return Err(Error::model(
                    files.root.join(config_file),
                    format!("the activation {name} is not supported; Tanh and Identity are"),
                ));
            }
        };
    let weights_file = format!("{path}model.safetensors");
    let weights_path = files.root.join(&weights_file);
    let bytes = read_file(&weights_path)?.ok_or_else(|| {
        Error::model(
            &weights_path,
            "there is no such file; weights in pytorch_model.bin have to be converted to safetensors",
        )
    })?;
    let bad = |reason: String| Error::model(&weights_path, reason);
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| bad(format!("not a safetensors file: {error}")))?;
    let tensor = |name: &str, shape: &[usize]| -> Result<Vec<f32>> {
        let tensor = tensors.tensor(name).map_err(|error| bad(error.to_string()))?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
            return Err(bad(format!(
                "{name} is {:?} {:?}, but F32 {shape:?} was expected",
                tensor.dtype(),
                tensor.shape()
            )));
        }
        Ok(tensor
            .data()
            .chunks_exact(4)
            .map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]]))
            .collect())
    };
    let (inputs, outputs) = (config.in_features, config.out_features);
    if inputs == 0 || outputs == 0 {
        return Err(Error::model(
            files.root.join(config_file),
            "a dense layer needs at least one input and one output",
        ));
    }
    let weight = tensor("linear.weight", &[outputs, inputs])?;
    let bias = if tensors.names().contains(&"linear.bias") { tensor("linear.bias", &[outputs])? } else { Vec::new() };
    files.read.push((weights_file, bytes));
    Ok(Dense { weight, bias, inputs, outputs, activation })
}

/// What a pass over a graph's file tells.
pub(super) struct HashedWeights {
    /// Of the graph's file; where weights lie beside it, of the hashes of all of them.
    pub sha256: [u8; 32],
    /// Whether the graph quantises activations by the range found in the batch at hand.
    pub dynamic_quantization: bool,
}

/// Operators whose result depends on all rows of a batch: `DynamicQuantizeLinear`, `DynamicQuantizeMatMul`,
/// `DynamicQuantizeLSTM` and what they feed. A graph is searched for their names instead of being parsed: a false
/// positive would cost speed only, and weights that spell such a name by chance do not exist.
const DYNAMIC: [&str; 3] = ["DynamicQuantize", "MatMulInteger", "ConvInteger"];

/// Hashes the graph and the files beside it that it names, because weights may lie outside the graph; refuses what the
/// cache of the hub names otherwise.
pub(super) fn hash_weights(onnx: &Path, cancel: &Cancel) -> Result<HashedWeights> {
    let mut beside: Vec<String> = onnx
        .parent()
        .and_then(|directory| fs::read_dir(directory).ok())
        .into_iter()
        .flat_map(|entries| entries.flatten())
        .filter(|entry| entry.path() != onnx && entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    // Directories list their files in any order.
    beside.sort();
    let names: Vec<&str> = DYNAMIC.iter().copied().chain(beside.iter().map(String::as_str)).collect();
    let (mut sha256, found) = hash_file(onnx, &names, cancel)?;
    let beside: Vec<&String> =
        beside.iter().enumerate().filter(|(i, _)| found[DYNAMIC.len() + i]).map(|(_, name)| name).collect();
    if !beside.is_empty() {
        let mut all = Sha256::new_with_prefix(sha256);
        for name in beside {
            all.update(hash_file(&onnx.with_file_name(name), &[], cancel)?.0);
        }
        sha256 = all.finalize().into();
    }
    Ok(HashedWeights { sha256, dynamic_quantization: found[..DYNAMIC.len()].contains(&true) })
}

/// Hashes a file and tells which of `names` occur in it.
fn hash_file(path: &Path, names: &[&str], cancel: &Cancel) -> Result<([u8; 32], Vec<bool>)> {
    // A name may lie across the end of a chunk.
    let overlap = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let (mut hash, mut found) = (Sha256::new(), vec![false; names.len()]);
    let read = content::each_chunk(path, overlap, |chunk, window| {
        cancel.check()?;
        hash.update(chunk);
        for (found, name) in found.iter_mut().zip(names) {
            *found = *found || memchr::memmem::find(window, name.as_bytes()).is_some();
        }
        Ok(())
    });
    read.map_err(|error| Error::model(path, error.to_string()))??;
    let sha256 = hash.finalize().into();
    content::check_hashed(path, &sha256)?;
    Ok((sha256, found))
}
