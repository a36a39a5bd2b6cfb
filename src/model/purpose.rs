//! What a model is for, as its files say, and what they say about one that gives something else than a vector for each text.
//! What they say about rerankers is read in `reranker.rs`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::ModelOptions;
use super::config_files::ConfigFiles;
use super::late_interaction::{LateInteraction, Shrink};
use super::modules::{self, Module};
use super::pooling::Layer;
use super::reranker::{self, Scores};
use super::splade::Splade;
use crate::embedding::Task;
use crate::error::{Error, Result};
use crate::tokens::{Cut, Expansion, Reading};

/// What a model is for, with all that its files say about that.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Purpose {
    /// What else there is to know about it, its modules say.
    #[default]
    Embedding,
    /// Scores of pairs.
    Reranking(Scores),
    /// Weights of the vocabulary's tokens.
    Sparse(Splade),
    /// A vector for each token.
    MultiVector(LateInteraction),
}

impl Purpose {
    pub fn task(&self) -> Task {
        match self {
            Self::Embedding => Task::Embedding,
            Self::Reranking(_) => Task::Reranking,
            Self::Sparse(_) => Task::Sparse,
            Self::MultiVector(_) => Task::MultiVector,
        }
    }
}

/// What all of it is read from.
pub(super) struct Described {
    pub purpose: Purpose,
    pub reading: Reading,
    /// What stands before prompts, by role.
    pub markers: BTreeMap<&'static str, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    architectures: Option<Vec<String>>,
}

/// What sentence-transformers and PyLate say about a model as a whole.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Whole {
    model_type: Option<String>,
    query_prefix: Option<String>,
    document_prefix: Option<String>,
    query_length: Option<usize>,
    document_length: Option<usize>,
    do_query_expansion: Option<bool>,
    attend_to_expansion_tokens: Option<bool>,
    attend_to_mask_tokens: Option<bool>,
    skiplist_words: Option<Vec<String>>,
}

/// What sentence-transformers says about how texts are read.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Texts {
    query_length: Option<usize>,
    document_length: Option<usize>,
    query_expansion: Option<QueryExpansion>,
    processing_kwargs: Option<Processing>,
}

#[derive(Deserialize)]
struct QueryExpansion {
    strategy: String,
    length: usize,
    #[serde(default)]
    attend: bool,
    #[serde(default)]
    token: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Processing {
    text: BTreeMap<String, Value>,
}

/// What the makers of ColBERT say about a model.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Artifact {
    query_token_id: Option<String>,
    doc_token_id: Option<String>,
    query_maxlen: Option<usize>,
    doc_maxlen: Option<usize>,
    attend_to_mask_tokens: bool,
    mask_punctuation: Option<bool>,
}

/// What a tokenizer calls its special tokens.
#[derive(Deserialize, Default)]
#[serde(default)]
struct SpecialTokens {
    mask_token: Value,
    eos_token: Value,
}

/// Tokens of a query that is filled up, where nothing else is said.
const QUERY_LENGTH: usize = 32;

const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// Reads what a model's files say about its purpose, if that is the one that is asked for.
///
/// # Errors
/// `MODEL_INIT_FAILED` with the class for such a model, where it is another one.
pub(super) fn read(
    files: &mut ConfigFiles,
    modules: Option<&[Module]>,
    tokenizer: &[u8],
    options: &ModelOptions,
) -> Result<Described> {
    let config: Config = files.own_json("config.json")?.unwrap_or_default();
    let whole: Whole = files.json("config_sentence_transformers.json")?.unwrap_or_default();
    let architecture = config.architectures.iter().flatten().next().map(String::as_str).unwrap_or_default();
    // Both give logits for each token, and without modules only the name of the class tells for what.
    let found = task(modules, architecture, &whole).or(match options.task {
        _ if modules.is_some() => None,
        Task::Sparse if architecture.ends_with("ForCausalLM") => Some(Task::Reranking),
        Task::Reranking if architecture.ends_with("ForMaskedLM") => Some(Task::Sparse),
        _ => None,
    });
    if let Some(task) = found.filter(|task| *task != options.task) {
        return Err(wrong(&files.root, task));
    }
    options.bm25.refuse()?;
    let texts: Texts = files.own_json("sentence_bert_config.json")?.unwrap_or_default();
    let mut described =
        Described { purpose: Purpose::Embedding, reading: Reading::default(), markers: BTreeMap::new() };
    let truncation = texts.processing_kwargs.as_ref().and_then(|processing| processing.text.get("truncation"));
    described.reading.pairs = match truncation.and_then(Value::as_str) {
        Some("longest_first") => Some(Cut::Longest),
        Some("only_first") => Some(Cut::First),
        Some("only_second") => Some(Cut::Second),
        _ => None,
    };
    described.purpose = match options.task {
        Task::Embedding => Purpose::Embedding,
        Task::Reranking => Purpose::Reranking(reranker::read(
            files,
            modules,
            architecture,
            tokenizer,
            options.instruction.as_deref().filter(|instruction| !instruction.is_empty()),
            &mut described.reading,
        )?),
        Task::Sparse => Purpose::Sparse(splade(files, modules)?),
        Task::MultiVector => {
            let stanford = architecture == "HF_ColBERT";
            Purpose::MultiVector(late_interaction(files, modules, (whole, texts, stanford), options, &mut described)?)
        }
    };
    Ok(described)
}

/// What a model is for, where its files say.
fn task(modules: Option<&[Module]>, architecture: &str, whole: &Whole) -> Option<Task> {
    let has = |names: &[&str]| modules.iter().copied().flatten().any(|module| names.contains(&module.name()));
    let pylate = modules.iter().copied().flatten().any(|module| module.kind.starts_with("pylate."));
    match whole.model_type.as_deref() {
        Some("CrossEncoder") => return Some(Task::Reranking),
        Some("SparseEncoder") => return Some(Task::Sparse),
        Some("ColBERT" | "MultiVectorEncoder") => return Some(Task::MultiVector),
        _ => {}
    }
    if pylate || has(&["MultiVectorMask"]) || architecture == "HF_ColBERT" {
        Some(Task::MultiVector)
    } else if has(&["SpladePooling", "SparseStaticEmbedding", "MLMTransformer"]) {
        Some(Task::Sparse)
    } else if has(&["LogitScore", "CausalScoreHead"]) {
        Some(Task::Reranking)
    } else if has(&["Pooling", "StaticEmbedding"]) {
        Some(Task::Embedding)
    } else if modules.is_none() && architecture.ends_with("ForSequenceClassification") {
        Some(Task::Reranking)
    } else {
        None
    }
}

/// The error about a model that was given to the wrong class.
pub(super) fn wrong(root: &Path, task: Task) -> Error {
    let reason = match task {
        Task::Embedding => "it gives a vector for each text: use OptimizedEmbeddingGenerator",
        Task::Reranking => "it is a cross-encoder, which scores pairs of texts: use CrossEncoder",
        Task::Sparse => "it gives sparse vectors: use SparseEncoder",
        Task::MultiVector => "it gives a vector for each token (late interaction): use MultiVectorEncoder",
    };
    let path = root.display().to_string();
    Error::ModelInit { path, reason: reason.to_owned(), task: Some(task.as_str()) }
}

fn splade(files: &mut ConfigFiles, modules: Option<&[Module]>) -> Result<Splade> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Config {
        pooling_strategy: Option<String>,
        activation_function: Option<String>,
    }
    let mut splade = Splade::default();
    for module in modules.into_iter().flatten() {
        let path = modules::prefix(&files.root, module)?;
        match module.name() {
            "Transformer" | "MLMTransformer" => {}
            "SpladePooling" => {
                let file = format!("{path}config.json");
                let config: Config = files.json(&file)?.ok_or_else(|| modules::missing(&files.root, &file))?;
                let unknown = |what: &str, name: &str, known: &str| {
                    Error::model(files.root.join(&file), format!("its {what} {name} is not supported; {known} are"))
                };
                splade.sums = match config.pooling_strategy.as_deref() {
                    None | Some("max") => false,
                    Some("sum") => true,
                    Some(other) => return Err(unknown("pooling_strategy", other, "max and sum")),
                };
                splade.twice = match config.activation_function.as_deref() {
                    None | Some("relu") => false,
                    Some("log1p_relu") => true,
                    Some(other) => return Err(unknown("activation_function", other, "relu and log1p_relu")),
                };
            }
            _ => {
                return Err(modules::unsupported(&files.root, module, "Transformer, MLMTransformer and SpladePooling"));
            }
        }
    }
    Ok(splade)
}

/// What is said about late interaction, by sentence-transformers 6, by PyLate, or by ColBERT's own makers.
fn late_interaction(
    files: &mut ConfigFiles,
    modules: Option<&[Module]>,
    (whole, texts, stanford): (Whole, Texts, bool),
    options: &ModelOptions,
    described: &mut Described,
) -> Result<LateInteraction> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Mask {
        skiplist_words: Option<Vec<String>>,
        skiplist_tasks: Option<Vec<String>>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Pooled {
        pool_factor: Option<usize>,
        num_protected_tokens: Option<usize>,
    }
    let old = stanford || whole.model_type.as_deref() == Some("ColBERT") || whole.query_prefix.is_some();
    let mut late = LateInteraction { normalize: old || modules.is_none(), ..LateInteraction::default() };
    let mut skipped = whole.skiplist_words.or_else(|| old.then(punctuation));
    let reading = &mut described.reading;
    reading.by_role = [texts.query_length.or(whole.query_length), texts.document_length.or(whole.document_length)];
    let mask = mask_tokens(files)?;
    reading.expansion = match texts.query_expansion {
        Some(expansion) => Some(Expansion {
            length: expansion.length,
            fixed: expansion.strategy != "min",
            attended: expansion.attend,
            tokens: expansion.token.map_or(mask, |token| vec![token]),
        }),
        None if old && whole.do_query_expansion != Some(false) => Some(Expansion {
            length: whole.query_length.unwrap_or(QUERY_LENGTH),
            fixed: true,
            attended: whole.attend_to_expansion_tokens.or(whole.attend_to_mask_tokens).unwrap_or(false),
            tokens: mask,
        }),
        None => None,
    };
    let prefixes = [("query", whole.query_prefix), ("document", whole.document_prefix)];
    described.markers = prefixes.into_iter().filter_map(|(role, prefix)| Some((role, prefix?))).collect();
    if stanford {
        let artifact: Artifact = files.json("artifact.metadata")?.unwrap_or_default();
        let marker = |token: Option<String>, default: &str| format!("{} ", token.unwrap_or_else(|| default.to_owned()));
        described.markers = BTreeMap::from([
            ("query", marker(artifact.query_token_id, "[unused0]")),
            ("document", marker(artifact.doc_token_id, "[unused1]")),
        ]);
        if let Some(expansion) = &mut reading.expansion {
            expansion.length = artifact.query_maxlen.unwrap_or(QUERY_LENGTH);
            expansion.attended = artifact.attend_to_mask_tokens;
        }
        reading.by_role[1] = reading.by_role[1].or(artifact.doc_maxlen);
        if artifact.mask_punctuation == Some(false) {
            skipped = None;
        }
        late.layers.extend(modules::projection(files)?);
    }
    for module in modules.into_iter().flatten() {
        let path = modules::prefix(&files.root, module)?;
        let file = format!("{path}config.json");
        match module.name() {
            "Transformer" => {}
            "Dense" => late.layers.push(Layer::Dense(modules::read_dense(files, &path)?.1)),
            "Normalize" => late.normalize = true,
            "MultiVectorMask" => {
                let mask: Mask = files.json(&file)?.ok_or_else(|| modules::missing(&files.root, &file))?;
                skipped = mask.skiplist_words;
                reading.skipped_in_queries = mask.skiplist_tasks.iter().flatten().any(|task| task == "query");
            }
            "HierarchicalTokenPooling" => {
                let pooled: Pooled = files.json(&file)?.unwrap_or_default();
                late.shrink.factor = pooled.pool_factor.unwrap_or(1);
                late.shrink.kept = pooled.num_protected_tokens.unwrap_or(Shrink::default().kept);
            }
            _ => {
                let known = "Transformer, Dense, Normalize, MultiVectorMask and HierarchicalTokenPooling";
                return Err(modules::unsupported(&files.root, module, known));
            }
        }
    }
    if let Some(factor) = options.pool_factor {
        late.shrink.factor = factor;
    }
    reading.skipped = skipped.unwrap_or_default();
    reading.markers = described.markers.values().cloned().collect();
    Ok(late)
}

fn punctuation() -> Vec<String> {
    PUNCTUATION.chars().map(String::from).collect()
}

/// What queries are filled up with: the token for masked words, or that for the end.
fn mask_tokens(files: &mut ConfigFiles) -> Result<Vec<String>> {
    let mut tokens = Vec::new();
    let mut all = Vec::new();
    for file in ["tokenizer_config.json", "special_tokens_map.json"] {
        all.push(files.own_json::<SpecialTokens>(file)?.unwrap_or_default());
    }
    let named = |token: &Value| token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned);
    tokens.extend(all.iter().filter_map(|special| named(&special.mask_token)));
    tokens.extend(["[MASK]", "<mask>"].map(str::to_owned));
    tokens.extend(all.iter().filter_map(|special| named(&special.eos_token)));
    Ok(tokens)
}
