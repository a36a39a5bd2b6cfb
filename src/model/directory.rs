//! A model's own files, in Hugging Face layout: what they say about it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::config_files::{ConfigFiles, PREPROCESSOR, read_file};
use super::idf::{self, IDF};
use super::modules::{After, MODULES, Module};
use super::pooling::Layer;
use super::purpose::{self, Purpose};
use super::router::{self, Way};
use super::splade::Splade;
use super::table::{self, Layout, TABLE, Table};
use super::{Architecture, ModelOptions, Pooling, PromptOptions, Prompts, graph, modules, vocabulary};
use crate::embedding::{FingerprintBuilder, InputType, Task};
use crate::error::{Error, Result};
use crate::images::Preprocessing;
use crate::text;
use crate::tokens::Reading;

/// The most tokens that any model is believed to read, as many as a text has at most.
const MOST_TOKENS: usize = 1 << 20;

/// What model2vec reads of a text, where a model's files do not say.
const MODEL2VEC_TOKENS: usize = 512;

/// A model as its files and the user's options describe it.
pub(super) struct ModelSpec {
    pub root: PathBuf,
    /// The repository and the commit of the hub that all of it comes from.
    pub origin: Option<(String, String)>,
    /// The file that holds its weights: its graph, or its table.
    pub onnx: PathBuf,
    /// A table of vectors, where that is all that there is to compute.
    pub table: Option<Arc<Table>>,
    /// The same of weights of tokens.
    pub idf: Option<Arc<Vec<f32>>>,
    /// How queries are read, where that is another way.
    pub queries: Option<Box<ModelSpec>>,
    /// Of a transformer, as far as its configuration tells.
    pub architecture: Architecture,
    pub tokenizer_path: String,
    /// Empty where there is none: fine only if the model reads images.
    pub tokenizer_json: Vec<u8>,
    /// Where a file says how images are prepared.
    pub preprocessing: Option<Preprocessing>,
    /// Whether no file says how vectors are made.
    pub silent: bool,
    /// What is done with the vector of each token.
    pub tokens: Vec<Layer>,
    /// Empty when nothing says: fine only if the graph pools by itself.
    pub pooling: Vec<Pooling>,
    pub layers: Vec<Layer>,
    pub normalize: Option<bool>,
    /// Whether the tokens of a prompt are not pooled.
    pub without_prompt: bool,
    pub max_length: usize,
    /// What says so; `None` where nothing does.
    pub max_length_from: Option<&'static str>,
    /// How texts are read.
    pub reading: Reading,
    pub purpose: Purpose,
    pub prompts: Prompts,
    pub lowercase: bool,
    pub pad_id: u32,
    /// The position of the first token: RoBERTa and its kin start after the padding id.
    pub first_position: u32,
    /// Every configuration file that was read, for the fingerprint.
    pub config_files: Vec<(String, Vec<u8>)>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    model_type: Option<String>,
    /// Some files say -1 where there is none.
    pad_token_id: Option<i64>,
    max_position_embeddings: Option<usize>,
    /// What these hold is the business of whoever trained it.
    architectures: Value,
    is_decoder: Value,
    /// Some decoders are made to read in both directions.
    is_causal: Value,
    use_bidirectional_attention: Value,
}

/// What model2vec says about a table.
#[derive(Deserialize, Default)]
#[serde(default)]
struct TableConfig {
    normalize: Option<bool>,
    /// Absent is another thing than none.
    #[serde(deserialize_with = "present")]
    max_length: Option<Option<usize>>,
}

/// A field that is there, whatever it holds.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(field: D) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

/// Families of transformers that read a text from its beginning to its end.
const DECODERS: [&str; 14] = [
    "bloom",
    "falcon",
    "gemma",
    "gpt",
    "llama",
    "mistral",
    "mixtral",
    "olmo",
    "opt",
    "phi",
    "qwen",
    "smollm",
    "stablelm",
    "starcoder",
];

impl Config {
    fn architecture(&self) -> Architecture {
        let family = self.model_type.as_deref().unwrap_or_default();
        let causal = |name: &Value| name.as_str().is_some_and(|name| name.ends_with("ForCausalLM"));
        if family.starts_with("static") {
            return Architecture::Static;
        }
        let both_ways = match &self.use_bidirectional_attention {
            Value::Null | Value::Bool(false) => self.is_causal == false,
            _ => true,
        };
        let decoder = self.is_decoder == true
            || self.architectures.as_array().is_some_and(|names| names.iter().any(causal))
            || DECODERS.iter().any(|name| family.starts_with(name));
        if decoder && !both_ways { Architecture::Decoder } else { Architecture::Encoder }
    }
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

/// Reads what the files at `path` say. Options win over files.
pub(super) fn read(path: &str, options: &ModelOptions) -> Result<ModelSpec> {
    let given = Path::new(path);
    if given.is_dir() {
        let mut files = ConfigFiles::at(given);
        let modules: Option<Vec<Module>> = files.json(MODULES)?;
        if let Some([router, rest @ ..]) = modules.as_deref()
            && router::is_one(router)
        {
            return read_ways(path, router::ways(&mut files, router)?, rest, options);
        }
        let config = || files.json("config.json").ok().flatten().unwrap_or_default();
        let place = table::place(modules.as_deref(), config);
        // Where nothing says what it is, and there is no graph, its header tells.
        let file = given.join(TABLE);
        let silent = || modules.is_none() && file.is_file() && !graph::is_in(given) && !Table::is_none(&file);
        if let Some(prefix) = place.or_else(|| silent().then(String::new)) {
            return read_table(path, files, &prefix, modules.as_deref(), options);
        }
    }
    let (root, onnx) = graph::locate(path, options.dtype)?;
    let mut files = ConfigFiles::at(&root);
    let modules: Option<Vec<Module>> = files.json(MODULES)?;
    let mut spec = read_graph(files, onnx, modules.as_deref(), options)?;
    if options.task == Task::Sparse && modules.is_none() && root.join(IDF).is_file() {
        let queries = read_idf(ConfigFiles::at(&root), "", options)?;
        spec.reading.queries = Some(Box::new((queries.tokenizer_json.clone(), queries.reading.clone())));
        spec.queries = Some(Box::new(queries));
    }
    Ok(spec)
}

/// A model that reads queries and documents in ways of their own, `rest` being what follows both.
fn read_ways(path: &str, ways: [Way; 2], rest: &[Module], options: &ModelOptions) -> Result<ModelSpec> {
    let root = Path::new(path);
    let read = |way: &Way| -> Result<ModelSpec> {
        let modules: Vec<Module> = way.modules.iter().chain(rest).cloned().collect();
        let Some(first) = modules.first() else {
            return Err(Error::model(root, "modules.json names a way of nothing"));
        };
        let prefix = modules::prefix(root, first)?;
        let mut files = ConfigFiles::at(root);
        // They say which way it is, and so are part of what it is.
        drop(files.json::<Value>(MODULES)?);
        drop(files.json::<Value>("router_config.json")?);
        match first.name() {
            "SparseStaticEmbedding" => {
                if let Some(other) = modules.get(1) {
                    return Err(modules::unsupported(root, other, "SparseStaticEmbedding alone in its way"));
                }
                read_idf(files, &prefix, options)
            }
            // What is said about graphs is not about it.
            "StaticEmbedding" => {
                read_table(path, files, &prefix, Some(&modules), &ModelOptions { dtype: None, ..options.clone() })
            }
            _ => {
                let own = root.join(&prefix);
                let onnx = graph::at(&own, options.dtype).or_else(|| graph::at(root, options.dtype));
                let onnx = onnx.ok_or_else(|| graph::none_in(&own, options.dtype))?;
                files.own = prefix;
                read_graph(files, onnx, Some(&modules), options)
            }
        }
    };
    let [documents, queries] = &ways;
    let mut spec = read(documents)?;
    if queries.name != documents.name {
        let queries = read(queries)?;
        if let (Some(one), Some(_)) = (&spec.idf, &queries.idf) {
            let reason = format!("both of its ways are tables of {} weights: there is nothing to compute", one.len());
            return Err(Error::model(root, reason));
        }
        spec.reading.queries = Some(Box::new((queries.tokenizer_json.clone(), queries.reading.clone())));
        spec.queries = Some(Box::new(queries));
    }
    Ok(spec)
}

/// Weights of tokens, in the folder `prefix`.
fn read_idf(mut files: ConfigFiles, prefix: &str, options: &ModelOptions) -> Result<ModelSpec> {
    if options.task != Task::Sparse {
        return Err(purpose::wrong(&files.root, Task::Sparse));
    }
    let (tokenizer_json, tokenizer_path) = tokenizer(&mut files, prefix, None)?;
    let Some((weights, name)) = idf::read(&mut files, prefix, &tokenizer_json)? else {
        return Err(modules::missing(&files.root, &format!("{prefix}{TABLE}")));
    };
    let tokenizer_config: TokenizerConfig = files.json(&format!("{prefix}tokenizer_config.json"))?.unwrap_or_default();
    let prompts: SentenceTransformersConfig = files.json("config_sentence_transformers.json")?.unwrap_or_default();
    let said = tokenizer_config.limit();
    let max_length_from = options.max_length.map(|_| "maxLength").or(said.map(|_| "tokenizer_config.json"));
    let max_length = options.max_length.or(said).unwrap_or(MOST_TOKENS).min(MOST_TOKENS);
    Ok(ModelSpec {
        root: files.root.clone(),
        origin: None,
        onnx: files.root.join(name),
        table: None,
        idf: Some(Arc::new(weights)),
        queries: None,
        architecture: Architecture::Static,
        tokenizer_path,
        tokenizer_json,
        preprocessing: None,
        silent: false,
        tokens: Vec::new(),
        pooling: Vec::new(),
        layers: Vec::new(),
        normalize: None,
        without_prompt: false,
        max_length,
        max_length_from,
        prompts: merged_prompts(&options.prompts, &prompts)?,
        reading: Reading { max_length, bare: true, ..Reading::default() },
        purpose: Purpose::Sparse(Splade::default()),
        lowercase: false,
        pad_id: 0,
        first_position: 0,
        config_files: files.read,
    })
}

/// A table of vectors, its files but for `modules.json` being in the folder `prefix`.
fn read_table(
    path: &str,
    mut files: ConfigFiles,
    prefix: &str,
    modules: Option<&[Module]>,
    options: &ModelOptions,
) -> Result<ModelSpec> {
    if options.dtype.is_some() {
        let reason = format!("it chooses one of several ONNX files, and {path} is a table of vectors: leave it out");
        return Err(Error::config("dtype", reason));
    }
    if options.task != Task::Embedding {
        return Err(purpose::wrong(&files.root, Task::Embedding));
    }
    let table = Table::open(&files.root.join(format!("{prefix}{TABLE}")))?;
    let config: TableConfig = files.json(&format!("{prefix}config.json"))?.unwrap_or_default();
    let (tokenizer_json, tokenizer_path) = tokenizer(&mut files, prefix, None)?;
    let prompts: SentenceTransformersConfig = files.json("config_sentence_transformers.json")?.unwrap_or_default();
    let truncation = truncation(&tokenizer_json).map_err(|reason| Error::model(&tokenizer_path, reason))?;
    let (max_length, says, truncate_left) = match table.layout {
        Layout::Model2Vec => {
            let says = config.max_length.map(|_| "config.json");
            (config.max_length.unwrap_or(Some(MODEL2VEC_TOKENS)), says, Some(false))
        }
        Layout::SentenceTransformers => (truncation, truncation.map(|_| "tokenizer.json"), None),
    };
    let max_length_from = options.max_length.map(|_| "maxLength").or(says.filter(|_| max_length.is_some()));
    let after = match modules {
        Some([_, rest @ ..]) => After::read(&mut files, rest, true)?,
        _ => After::default(),
    };
    // The file of its own makers says more than what was written for other programs.
    let says = config.normalize.filter(|_| table.layout == Layout::Model2Vec);
    let max_length = options.max_length.or(max_length).unwrap_or(MOST_TOKENS);
    let tokens = table.tokens();
    Ok(ModelSpec {
        root: files.root.clone(),
        origin: None,
        onnx: files.root.join(format!("{prefix}{TABLE}")),
        table: Some(Arc::new(table)),
        idf: None,
        queries: None,
        architecture: Architecture::Static,
        tokenizer_path,
        tokenizer_json,
        preprocessing: None,
        silent: false,
        tokens: after.tokens,
        pooling: Vec::new(),
        layers: after.layers,
        normalize: options.normalize.or(says).or(after.normalize),
        without_prompt: false,
        max_length,
        max_length_from,
        prompts: merged_prompts(&options.prompts, &prompts)?,
        reading: Reading {
            max_length,
            truncate_left,
            bare: true,
            ids: Some(tokens.ids),
            cuts_characters: tokens.cuts_characters,
            ..Reading::default()
        },
        purpose: Purpose::Embedding,
        lowercase: false,
        pad_id: 0,
        first_position: 0,
        config_files: files.read,
    })
}

/// The most tokens that a `tokenizer.json` leaves of a text, where it cuts texts.
fn truncation(json: &[u8]) -> Result<Option<usize>, String> {
    #[derive(Deserialize)]
    struct Described {
        truncation: Option<Truncation>,
    }
    #[derive(Deserialize)]
    struct Truncation {
        max_length: usize,
    }
    let described: Described = serde_json::from_slice(json).map_err(|error| format!("not a tokenizer: {error}"))?;
    Ok(described.truncation.map(|truncation| truncation.max_length))
}

fn read_graph(
    mut files: ConfigFiles,
    onnx: PathBuf,
    modules: Option<&[Module]>,
    options: &ModelOptions,
) -> Result<ModelSpec> {
    let config: Config = files.own_json("config.json")?.unwrap_or_default();
    let own = files.own.clone();
    let preprocessing = preprocessing(&files.root)?;
    let (tokenizer_json, tokenizer_path) = match tokenizer(&mut files, &own, config.model_type.as_deref()) {
        Ok(tokenizer) => tokenizer,
        // Whether it is needed, the graph tells.
        Err(error) => preprocessing.as_ref().map(|_| Default::default()).ok_or(error)?,
    };
    let sentence_bert: SentenceBertConfig = files.own_json("sentence_bert_config.json")?.unwrap_or_default();
    let tokenizer_config: TokenizerConfig = files.own_json("tokenizer_config.json")?.unwrap_or_default();
    let mut prompts: SentenceTransformersConfig = files.json("config_sentence_transformers.json")?.unwrap_or_default();
    let described = purpose::read(&mut files, modules, &tokenizer_json, options)?;
    for (role, marker) in described.markers {
        let prompt = prompts.prompts.entry(role.to_owned()).or_default().get_or_insert_default();
        *prompt = format!("{marker}{}", prompt.strip_prefix(&marker).unwrap_or(prompt));
    }

    let roberta_like = matches!(
        config.model_type.as_deref(),
        Some("roberta" | "xlm-roberta" | "camembert" | "mpnet" | "longformer" | "xlm-roberta-xl" | "data2vec-text")
    );
    let pad_id = config.pad_token_id.and_then(|id| u32::try_from(id).ok()).unwrap_or(u32::from(roberta_like));
    let first_position = if roberta_like { pad_id.saturating_add(1) } else { 0 };
    let longest =
        config.max_position_embeddings.map(|all| all.saturating_sub(first_position as usize).min(MOST_TOKENS));
    let (max_length, max_length_from) = if tokenizer_json.is_empty() {
        (0, None)
    } else {
        let (most, from) = max_length(&files.root, options.max_length, longest, &sentence_bert, &tokenizer_config)?;
        (most, Some(from))
    };
    let after = match modules {
        _ if described.purpose != Purpose::Embedding => After::default(),
        Some([first, rest @ ..])
            if first.name() == "Transformer" && modules::prefix(&files.root, first)? == files.own =>
        {
            After::read(&mut files, rest, false)?
        }
        Some(modules) => After::read(&mut files, modules, false)?,
        None => After::without_modules(&mut files)?,
    };
    if after.scores {
        return Err(purpose::wrong(&files.root, Task::Reranking));
    }
    let prompts = match &described.purpose {
        Purpose::Reranking(scores) => Prompts { query: scores.prompt.clone(), ..Prompts::default() },
        _ => merged_prompts(&options.prompts, &prompts)?,
    };
    Ok(ModelSpec {
        root: files.root.clone(),
        origin: None,
        onnx,
        table: None,
        idf: None,
        queries: None,
        architecture: config.architecture(),
        tokenizer_path,
        tokenizer_json,
        preprocessing,
        silent: after.pooling.is_empty() && after.normalize.is_none(),
        tokens: after.tokens,
        pooling: if options.pooling.is_empty() { after.pooling } else { options.pooling.clone() },
        layers: after.layers,
        normalize: options.normalize.or(after.normalize),
        without_prompt: after.without_prompt,
        max_length,
        max_length_from,
        prompts,
        reading: Reading {
            max_length,
            truncate_left: tokenizer_config.truncation_side.map(|side| side == "left"),
            ..described.reading
        },
        purpose: described.purpose,
        lowercase: sentence_bert.do_lower_case,
        pad_id,
        first_position,
        config_files: files.read,
    })
}

impl TokenizerConfig {
    /// Most tokens of a text. Above a million it stands for "no limit".
    fn limit(&self) -> Option<usize> {
        self.model_max_length.filter(|&max| (1.0..1e6).contains(&max)).map(|max| max as usize)
    }
}

impl ModelSpec {
    /// Adds what it reads of a text to an embedding space.
    pub fn identify(&self, space: FingerprintBuilder) -> FingerprintBuilder {
        let space = space
            .field("max_length", (self.max_length as u64).to_le_bytes())
            .field("prompt", self.prompts.of(InputType::Document))
            .field("query prompt", self.prompts.of(InputType::Query))
            .field("case", [u8::from(self.lowercase)])
            .field("preparation", text::PREPARATION_VERSION.to_le_bytes());
        match &self.origin {
            Some((_, commit)) => space.field("revision", commit),
            None => space,
        }
    }

    /// Adds the files of its configuration.
    pub fn with_config_files(&self, space: FingerprintBuilder) -> FingerprintBuilder {
        self.config_files.iter().fold(space, |space, (name, bytes)| space.field(name, bytes))
    }
}

/// The bytes of `tokenizer.json`, or what takes its place, and the name of the file that is read.
fn tokenizer(files: &mut ConfigFiles, prefix: &str, model_type: Option<&str>) -> Result<(Vec<u8>, String)> {
    let path = files.root.join(format!("{prefix}tokenizer.json"));
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
) -> Result<(usize, &'static str)> {
    if let (Some(option), Some(longest)) = (option, longest)
        && option > longest
    {
        return Err(Error::config(
            "maxLength",
            format!("{option} is more than the {longest} tokens that the model has positions for"),
        ));
    }
    let tokenizer = tokenizer.limit();
    let all = [
        (option, "maxLength"),
        (sentence_bert.max_seq_length, "sentence_bert_config.json"),
        (tokenizer, "tokenizer_config.json"),
        (longest, "config.json"),
    ];
    let said = all.into_iter().find_map(|(said, from)| Some((said?, from))).ok_or_else(|| {
        Error::model(
            root,
            "nothing in its files says how many tokens it reads: pass maxLength, for example maxLength: 512",
        )
    })?;
    Ok(match longest {
        Some(longest) if longest < said.0 => (longest, "config.json"),
        _ => (said.0.min(MOST_TOKENS), said.1),
    })
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
