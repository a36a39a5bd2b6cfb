//! What the files of a reranker say: what its scores are, and what it is asked.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::config_files::ConfigFiles;
use super::modules::{self, After, MODULES, Module};
use super::{pooling, vocabulary};
use crate::error::{Error, Result};
use crate::tokens::{Chat, Reading};

/// What is said about the scores of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Scores {
    /// Whether they become numbers from 0 to 1; `None` where that depends on how many there are.
    pub sigmoid: Option<bool>,
    /// What they are called, where somebody says.
    pub labels: Vec<String>,
    /// Of a language model, which of its words are the answers.
    pub answer: Option<Answer>,
    /// Of a model that gives vectors of tokens, how they become scores.
    pub head: Option<pooling::Head>,
    /// What is put before each query.
    pub prompt: String,
}

impl Scores {
    /// Whether the graph gives them itself.
    pub fn is_of_graph(&self) -> bool {
        self.answer.is_none() && self.head.is_none()
    }
}

/// The tokens by whose logits, where the answer begins, a language model says yes or no.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub yes: u32,
    /// `None`: how likely yes is says all.
    pub no: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    id2label: Option<BTreeMap<String, Value>>,
    sentence_transformers: Option<Activated>,
    sbert_ce_default_activation_function: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Activated {
    activation_fn: Option<String>,
}

/// What sentence-transformers says about a model as a whole.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Whole {
    activation_fn: Option<String>,
    prompts: BTreeMap<String, Option<String>>,
    default_prompt_name: Option<String>,
}

#[derive(Deserialize)]
struct LogitScore {
    true_token_id: u32,
    false_token_id: Option<u32>,
    module_input_name: Option<String>,
}

/// What a language model gives for each token.
const LOGITS: &str = "causal_logits";

/// Reads what there is to know about a model with such an `architecture`, and how it reads pairs.
pub(super) fn read(
    files: &mut ConfigFiles,
    modules: Option<&[Module]>,
    architecture: &str,
    tokenizer: &[u8],
    instruction: Option<&str>,
    reading: &mut Reading,
) -> Result<Scores> {
    let config: Config = files.own_json("config.json")?.unwrap_or_default();
    let whole: Whole = files.json("config_sentence_transformers.json")?.unwrap_or_default();
    let (answer, head) = match modules {
        Some(modules) if modules.iter().any(|module| module.name() == "Pooling") => (None, Some(head(files, modules)?)),
        Some(modules) => (answer_of(files, modules)?, None),
        None if architecture.ends_with("ForCausalLM") => (Some(answer_in(files, tokenizer)?), None),
        None => (None, None),
    };
    let default = whole.default_prompt_name.as_ref().and_then(|name| whole.prompts.get(name).cloned().flatten());
    let default = default.filter(|default| !default.is_empty());
    let chat = chat(files, answer.is_some())?;
    // Where there is no conversation in which somebody could say it, it stands before the query.
    let prompt = if chat.is_none() { default.clone().unwrap_or_default() } else { String::new() };
    reading.chat = match (chat, instruction) {
        (Some(chat), Some(instruction)) => Some(
            chat.told(instruction.to_owned())
                .ok_or_else(|| refused("the model's chat template has no place for it"))?,
        ),
        (Some(chat), None) => match default {
            Some(default) => chat.clone().told(default).or(Some(chat)),
            None => Some(chat),
        },
        (None, Some(_)) => return Err(refused("the model reads a query and a document and nothing else")),
        (None, None) => None,
    };
    Ok(Scores { sigmoid: sigmoid(&config, &whole), labels: labels(&config), answer, head, prompt })
}

/// How the vectors of tokens become scores, where modules say so.
fn head(files: &mut ConfigFiles, modules: &[Module]) -> Result<pooling::Head> {
    let after = match modules {
        [first, rest @ ..] if first.name() == "Transformer" => After::read(files, rest, false)?,
        _ => {
            return Err(Error::model(
                &files.root,
                "modules.json of a cross-encoder that pools begins with Transformer",
            ));
        }
    };
    let refused = |reason: &str| Err(Error::model(files.root.join(MODULES), reason));
    if !after.scores {
        return refused(
            "it pools, and no module makes scores of that: the last Dense has to have module_output_name: \"scores\"",
        );
    }
    if after.without_prompt {
        return refused("its pooling leaves out prompts, which is not supported for pairs of texts");
    }
    let After { tokens, pooling, layers, .. } = after;
    Ok(pooling::Head { tokens, pooling, layers, ..pooling::Head::default() })
}

fn refused(why: &str) -> Error {
    Error::config("instruction", format!("{why}: leave it out"))
}

fn sigmoid(config: &Config, whole: &Whole) -> Option<bool> {
    let inner = config.sentence_transformers.as_ref().and_then(|inner| inner.activation_fn.as_ref());
    let said = whole.activation_fn.as_ref().or(inner).or(config.sbert_ce_default_activation_function.as_ref());
    said.and_then(|name| match name.rsplit('.').next() {
        Some("Sigmoid") => Some(true),
        Some("Identity") => Some(false),
        _ => None,
    })
}

fn labels(config: &Config) -> Vec<String> {
    let of = |(id, label): (&String, &Value)| Some((id.parse::<usize>().ok()?, label.as_str()?.to_owned()));
    let mut labels: Vec<_> = config.id2label.iter().flatten().filter_map(of).collect();
    labels.sort();
    labels.into_iter().map(|(_, label)| label).collect()
}

/// The answers that the modules of a model name, where it is a language model.
fn answer_of(files: &mut ConfigFiles, modules: &[Module]) -> Result<Option<Answer>> {
    let mut answer = None;
    for module in modules {
        match module.name() {
            "Transformer" => {}
            "LogitScore" | "CausalScoreHead" => {
                let file = format!("{}config.json", modules::prefix(&files.root, module)?);
                let read: LogitScore = files.json(&file)?.ok_or_else(|| modules::missing(&files.root, &file))?;
                if let Some(other) = read.module_input_name.filter(|input| input != LOGITS) {
                    let reason = format!("it reads {other}, which is not supported; {LOGITS} is");
                    return Err(Error::model(files.root.join(file), reason));
                }
                answer = Some(Answer { yes: read.true_token_id, no: read.false_token_id });
            }
            _ => {
                let known = "Transformer and LogitScore, or Transformer, Pooling and what makes scores of that";
                return Err(modules::unsupported(&files.root, module, known));
            }
        }
    }
    Ok(answer)
}

/// The answers of a language model about which nothing is said: the tokens `yes` and `no`.
fn answer_in(files: &ConfigFiles, tokenizer: &[u8]) -> Result<Answer> {
    let ids = vocabulary::ids(tokenizer);
    let id = |word: &str| ids.get(word).copied();
    let (Some(yes), Some(no)) = (id("yes"), id("no")) else {
        return Err(Error::model(
            &files.root,
            "it is a language model, and its vocabulary has no tokens `yes` and `no` for it to answer with: a reranker says in modules.json and LogitScore which ones it has",
        ));
    };
    Ok(Answer { yes, no: Some(no) })
}

/// How a model is asked, where its files say. Only what answers takes a template that was made for people.
fn chat(files: &mut ConfigFiles, answers: bool) -> Result<Option<Chat>> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct TokenizerConfig {
        chat_template: Value,
        #[serde(flatten)]
        others: Map<String, Value>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Texts {
        modality_config: Option<BTreeMap<String, Value>>,
        processing_kwargs: BTreeMap<String, Value>,
    }
    let TokenizerConfig { chat_template, others } = files.own_json("tokenizer_config.json")?.unwrap_or_default();
    let (template, file) = match files.text(&format!("{}chat_template.jinja", files.own))? {
        Some(template) => (Some(template), "chat_template.jinja"),
        None => (named(&chat_template), "tokenizer_config.json"),
    };
    let texts: Texts = files.own_json("sentence_bert_config.json")?.unwrap_or_default();
    // What reads texts only is not asked.
    let message = texts.modality_config.as_ref().map(|modalities| modalities.get("message"));
    let (Some(template), Some(message)) = (template, message.map_or(Some(None), |found| found.map(Some))) else {
        return Ok(None);
    };
    let in_parts = message.and_then(|message| message.get("format")?.as_str()).and_then(|format| match format {
        "structured" => Some(true),
        "flat" => Some(false),
        _ => None,
    });
    // Special tokens go by their names, and more may be said for the template alone.
    let special = others.into_iter().filter_map(|(name, token)| {
        let content = token.as_str().or_else(|| token.get("content")?.as_str())?;
        name.ends_with("_token").then(|| (name, Value::from(content)))
    });
    let said = texts.processing_kwargs.get("chat_template").and_then(Value::as_object).cloned().unwrap_or_default();
    let said = said.into_iter().filter(|(name, _)| !OF_TOKENIZERS.contains(&name.as_str()));
    match Chat::new(template, special.chain(said).collect(), in_parts) {
        Ok(chat) => Ok(Some(chat).filter(|chat| answers || chat.is_for_pairs())),
        Err(reason) if answers => Err(Error::model(files.root.join(file), reason)),
        Err(_) => Ok(None),
    }
}

/// What is said beside a template about the tokens of what it gives.
const OF_TOKENIZERS: [&str; 7] =
    ["padding", "truncation", "max_length", "return_tensors", "return_dict", "tokenize", "restore_suffix"];

/// The template, or the one that is called `default`.
fn named(template: &Value) -> Option<String> {
    let one = match template {
        Value::Array(all) => {
            all.iter().find(|one| one.get("name").is_some_and(|name| name == "default"))?.get("template")?
        }
        one => one,
    };
    one.as_str().map(str::to_owned)
}
