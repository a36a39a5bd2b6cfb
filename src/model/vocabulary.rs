//! Tokenizers of models that have no `tokenizer.json`, made from their vocabulary: `vocab.txt`, or `vocab.json` and
//! `merges.txt`. The answer is what `tokenizer.json` would say.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

use super::config_files::ConfigFiles;

/// The files that take the place of `tokenizer.json`, as far as a model has them.
pub(super) const FILES: [&str; 4] = ["vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json"];

/// Whether the files that `has` names are enough.
pub(super) fn is_enough(has: impl Fn(&str) -> bool) -> bool {
    has("vocab.txt") || (has("vocab.json") && has("merges.txt"))
}

/// What the model's files say about how text is cut up, beside the vocabulary.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Settings {
    tokenizer_class: Option<String>,
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    add_prefix_space: Option<bool>,
    #[serde(flatten)]
    tokens: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, PartialEq)]
enum Family {
    Bert,
    Mpnet,
    Roberta,
}

impl Family {
    fn of(class: Option<&str>, model_type: Option<&str>) -> Option<Self> {
        let class = class.map(|class| class.strip_suffix("Fast").unwrap_or(class));
        match class {
            Some("BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" | "MobileBertTokenizer") => {
                return Some(Self::Bert);
            }
            Some("MPNetTokenizer") => return Some(Self::Mpnet),
            Some("RobertaTokenizer" | "LongformerTokenizer") => return Some(Self::Roberta),
            // Says nothing: the model has to.
            None | Some("PreTrainedTokenizer" | "AutoTokenizer" | "TokenizersBackend") => {}
            Some(_) => return None,
        }
        match model_type? {
            "bert" | "distilbert" | "electra" | "mobilebert" | "nomic_bert" => Some(Self::Bert),
            "mpnet" => Some(Self::Mpnet),
            "roberta" | "longformer" => Some(Self::Roberta),
            _ => None,
        }
    }

    /// The usual special tokens: beginning, end, padding, unknown, mask.
    fn specials(self) -> [(&'static str, &'static str); 5] {
        let names = match self {
            Self::Bert => ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"],
            Self::Mpnet => ["<s>", "</s>", "<pad>", "[UNK]", "<mask>"],
            Self::Roberta => ["<s>", "</s>", "<pad>", "<unk>", "<mask>"],
        };
        let [cls, sep, pad, unk, mask] = names;
        [("cls_token", cls), ("sep_token", sep), ("pad_token", pad), ("unk_token", unk), ("mask_token", mask)]
    }
}

/// The id of each token of a `tokenizer.json`; none where it is none.
pub(super) fn ids(tokenizer: &[u8]) -> HashMap<String, u32> {
    #[derive(Deserialize)]
    struct Tokenizer {
        model: Model,
        #[serde(default)]
        added_tokens: Vec<Added>,
    }
    #[derive(Deserialize)]
    struct Model {
        vocab: Vocabulary,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Vocabulary {
        Ids(HashMap<String, u32>),
        /// In the order of their ids.
        Scored(Vec<(String, f64)>),
    }
    #[derive(Deserialize)]
    struct Added {
        id: u32,
        content: String,
    }
    let Ok(Tokenizer { model, added_tokens }) = serde_json::from_slice(tokenizer) else { return HashMap::new() };
    let mut ids = match model.vocab {
        Vocabulary::Ids(ids) => ids,
        Vocabulary::Scored(tokens) => (0..).zip(tokens).map(|(id, (token, _))| (token, id)).collect(),
    };
    ids.extend(added_tokens.into_iter().map(|added| (added.content, added.id)));
    ids
}

/// The bytes of a `tokenizer.json`, and the file that they were made from; `None` where there is no vocabulary.
pub(super) fn tokenizer_json(files: &mut ConfigFiles, model_type: Option<&str>) -> Result<Option<(Vec<u8>, String)>> {
    if !is_enough(|file| files.root.join(file).is_file()) {
        return Ok(None);
    }
    let mut settings: Settings = files.json("tokenizer_config.json")?.unwrap_or_default();
    let map: BTreeMap<String, Value> = files.json("special_tokens_map.json")?.unwrap_or_default();
    let Some(family) = Family::of(settings.tokenizer_class.as_deref(), model_type) else {
        let what = settings.tokenizer_class.as_deref().or(model_type).unwrap_or("this model");
        let reason = format!(
            "there is no tokenizer.json, and a tokenizer for {what} cannot be made from the vocabulary alone (those of BERT, DistilBERT, MPNet and RoBERTa can): make one with transformers, AutoTokenizer.from_pretrained(…).save_pretrained(…), and pass the path of that directory"
        );
        return Err(Error::model(&files.root, reason));
    };
    let file = if family == Family::Roberta { "vocab.json" } else { "vocab.txt" };
    let path = files.root.join(file);
    let bad = |reason: String| Error::model(&path, reason);
    for (name, value) in map {
        settings.tokens.entry(name).or_insert(value);
    }
    let special = |name: &str, usual: &str| match settings.tokens.get(name) {
        Some(Value::String(token)) => token.clone(),
        Some(Value::Object(token)) => token.get("content").and_then(Value::as_str).unwrap_or(usual).to_owned(),
        _ => usual.to_owned(),
    };
    let specials = family.specials().map(|(name, usual)| special(name, usual));
    let vocabulary = match family {
        Family::Roberta => files.json(file)?,
        _ => files.text(file)?.map(|text| {
            let lines = text.lines().enumerate();
            lines.map(|(id, token)| (token.to_owned(), Value::from(id))).collect::<Map<String, Value>>()
        }),
    };
    let vocabulary: Map<String, Value> =
        vocabulary.ok_or_else(|| bad("there is no such file, and no tokenizer.json".to_owned()))?;
    let mut added = Vec::new();
    for (token, (name, _)) in specials.iter().zip(family.specials()) {
        match vocabulary.get(token) {
            Some(id) => added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": family != Family::Bert && name == "mask_token",
                "rstrip": false, "normalized": false, "special": true,
            })),
            // Texts are never masked, and padding is ours.
            None if name == "mask_token" || name == "pad_token" => {}
            None => return Err(bad(format!("it has no {token:?}, which is the {name}"))),
        }
    }
    added.sort_by_key(|token| token["id"].as_u64());
    let [cls, sep, _, unk, _] = &specials;
    let id = |token: &String| vocabulary.get(token).cloned().unwrap_or_default();
    let tokenizer = match family {
        Family::Roberta => {
            let merges = files.text("merges.txt")?.unwrap_or_default();
            let merges: Vec<&str> =
                merges.lines().filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
            let prefix = settings.add_prefix_space.unwrap_or(false);
            json!({
                "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true },
                "post_processor": {
                    "type": "RobertaProcessing", "sep": [sep, id(sep)], "cls": [cls, id(cls)],
                    "trim_offsets": true, "add_prefix_space": prefix,
                },
                "model": {
                    "type": "BPE", "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": false,
                    "vocab": vocabulary, "merges": merges,
                },
                "added_tokens": added,
            })
        }
        Family::Bert | Family::Mpnet => {
            let piece = |token: &String| json!({ "id": token, "ids": [id(token)], "tokens": [token] });
            let one = |token: &String| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
            let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
            json!({
                "normalizer": {
                    "type": "BertNormalizer", "clean_text": true,
                    "handle_chinese_chars": settings.tokenize_chinese_chars.unwrap_or(true),
                    "strip_accents": settings.strip_accents,
                    "lowercase": settings.do_lower_case.unwrap_or(true),
                },
                "pre_tokenizer": { "type": "BertPreTokenizer" },
                "post_processor": {
                    "type": "TemplateProcessing", "single": [one(cls), text, one(sep)], "pair": [one(cls), text, one(sep)],
                    "special_tokens": { cls.as_str(): piece(cls), sep.as_str(): piece(sep) },
                },
                "model": {
                    "type": "WordPiece", "unk_token": unk, "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100, "vocab": vocabulary,
                },
                "added_tokens": added,
            })
        }
    };
    Ok(Some((tokenizer.to_string().into_bytes(), path.display().to_string())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn made(directory: &Path, files: &[(&str, &str)], model_type: Option<&str>) -> Result<Option<Value>> {
        for (name, content) in files {
            fs::write(directory.join(name), content).unwrap();
        }
        let json = tokenizer_json(&mut ConfigFiles::at(directory), model_type)?;
        Ok(json.map(|(json, _)| serde_json::from_slice(&json).unwrap()))
    }

    #[test]
    fn special_tokens_are_named_by_either_file() {
        let directory = tempfile::tempdir().unwrap();
        let files = [
            ("vocab.txt", "<p>\nunk\r\n<c>\n[SEP]\na\n"),
            ("tokenizer_config.json", r#"{ "cls_token": { "content": "<c>" }, "do_lower_case": false }"#),
            ("special_tokens_map.json", r#"{ "cls_token": "<x>", "unk_token": "unk", "pad_token": "<p>" }"#),
        ];
        let json = made(directory.path(), &files, Some("bert")).unwrap().unwrap();
        assert_eq!(json["model"]["unk_token"], "unk");
        assert_eq!(json["post_processor"]["special_tokens"]["<c>"]["ids"], json!([2]));
        assert_eq!(json["normalizer"]["lowercase"], false);
        let added: Vec<_> = json["added_tokens"].as_array().unwrap().iter().map(|token| &token["content"]).collect();
        assert_eq!(added, ["<p>", "unk", "<c>", "[SEP]"]);
    }

    #[test]
    fn what_cannot_be_made_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(made(directory.path(), &[], Some("bert")), Ok(None));
        let reason = |files: &[(&str, &str)], model_type| {
            made(directory.path(), files, model_type).map(drop).unwrap_err().to_string()
        };
        let vocabulary = ("vocab.txt", "[PAD]\n[UNK]\n[SEP]\n");
        assert!(reason(&[vocabulary], Some("bert")).contains("[CLS]"));
        assert!(reason(&[vocabulary], Some("qwen2")).contains("qwen2"));
        assert!(reason(&[vocabulary], None).contains("save_pretrained"));
        let class = ("tokenizer_config.json", r#"{ "tokenizer_class": "CamembertTokenizer" }"#);
        assert!(reason(&[vocabulary, class], Some("bert")).contains("CamembertTokenizer"));
        let class = ("tokenizer_config.json", r#"{ "tokenizer_class": "RobertaTokenizerFast" }"#);
        assert!(reason(&[vocabulary, class], None).contains("vocab.json"));
        let broken = [("vocab.json", "[1]"), ("merges.txt", "")];
        assert!(reason(&broken, None).contains("not the JSON"));
    }
}
