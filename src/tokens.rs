//! Text → token ids, with what was cut off reported.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::TruncationDirection;

use crate::embedding::Tokens;
use crate::error::{Error, Result};

/// The longest text that is tokenised, in UTF-8 bytes: sixteen times what the longest-context models read. Tokenising a
/// megabyte takes about a third of a second of one core and a hundred times its size in memory.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// Texts of many kinds, for which a tokenizer is tried before it is used.
const TRIED: [&str; 6] =
    ["", "a", "fn main() { println!(\"{}\", 1 + 2); }", "Größe 你好 🦀 ﷽", " \t\n ", "[CLS] </s> <mask> ##a ▁b"];

/// A model's tokenizer. Never pads.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    direction: TruncationDirection,
    /// Most tokens that are kept, and how many of them are the model's special ones.
    max_length: usize,
    special: usize,
    unknown_id: Option<u32>,
}

impl Tokenizer {
    /// Parses a `tokenizer.json`. Texts are cut to `max_length` tokens, special tokens included; at their beginning if
    /// `truncate_left`, by default as the file itself says.
    ///
    /// # Errors
    /// A reason in plain words, without the file's name.
    pub fn new(json: &[u8], max_length: usize, truncate_left: Option<bool>) -> Result<Self, String> {
        // The crate trusts its files: some of what they may say makes it panic.
        let parse = || Self::parse(json, max_length, truncate_left);
        panic::catch_unwind(parse).unwrap_or_else(|_| Err("it contradicts itself".to_owned()))
    }

    fn parse(json: &[u8], max_length: usize, truncate_left: Option<bool>) -> Result<Self, String> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        let direction = inner.get_truncation().map_or(TruncationDirection::Right, |truncation| truncation.direction);
        let direction = match truncate_left {
            Some(true) => TruncationDirection::Left,
            Some(false) => TruncationDirection::Right,
            None => direction,
        };
        inner.with_padding(None).with_truncation(None).map_err(|error| error.to_string())?;
        let Described { model, post_processor } = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        check_templates(&post_processor)?;
        let [special, ..] = TRIED.map(|text| inner.encode_fast(text, true).map(|encoding| encoding.len()));
        let special = special.map_err(|error| error.to_string())?;
        if max_length <= special {
            return Err(format!(
                "the maximum length of {max_length} tokens leaves no room for text beside {special} special tokens"
            ));
        }
        let unknown_id = unknown_id(model, &inner);
        Ok(Self { inner, direction, max_length, special, unknown_id })
    }

    /// The tokens of `text`. `index` is its position in the call, for the error.
    pub fn encode(&self, index: usize, text: &str) -> Result<Tokens> {
        check_length(index, text)?;
        let failed = |error: String| Error::Generation { index, reason: format!("its tokenizer failed: {error}") };
        // Some of what a file may say shows only with some texts.
        panic::catch_unwind(AssertUnwindSafe(|| self.tokens(text)))
            .unwrap_or_else(|_| Err("it contradicts itself".to_owned()))
            .map_err(failed)
    }

    fn tokens(&self, text: &str) -> Result<Tokens, String> {
        // Cut here and not by the tokenizer, which would not tell how much it cut off.
        let mut encoding = self.inner.encode_fast(text, false).map_err(|error| error.to_string())?;
        let total = encoding.len() + self.special;
        encoding.truncate(self.max_length - self.special, 0, self.direction);
        drop(encoding.take_overflowing());
        let encoding = self.inner.post_process(encoding, None, true).map_err(|error| error.to_string())?;
        let ids = encoding.get_ids();
        let type_ids = encoding.get_type_ids();
        Ok(Tokens {
            text: None,
            image: None,
            ids: ids.to_vec(),
            type_ids: type_ids.iter().any(|&id| id != 0).then(|| type_ids.to_vec()),
            total,
            special: self.special,
            unknown: self.unknown_id.map_or(0, |unknown| ids.iter().filter(|&&id| id == unknown).count()),
        })
    }
}

/// The same of a model that tokenises by itself.
pub fn untold(index: usize, text: &str) -> Result<Tokens> {
    check_length(index, text)?;
    Ok(Tokens::untold(text.to_owned()))
}

fn check_length(index: usize, text: &str) -> Result<()> {
    match text.len() {
        0..=MAX_TEXT_BYTES => Ok(()),
        bytes => Err(Error::InputTooLong { index, bytes, limit: MAX_TEXT_BYTES }),
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("unknown_id", &self.unknown_id).finish_non_exhaustive()
    }
}

/// What a `tokenizer.json` says beside the vocabulary, which takes long to read.
#[derive(Deserialize)]
struct Described {
    model: UnknownToken,
    #[serde(default)]
    post_processor: Value,
}

#[derive(Deserialize)]
struct UnknownToken {
    #[serde(default)]
    unk_token: Value,
    #[serde(default)]
    unk_id: Value,
}

/// The id of `[UNK]`: named by most kinds of `tokenizer.json`, numbered by Unigram, absent in byte-level ones.
fn unknown_id(model: UnknownToken, tokenizer: &tokenizers::Tokenizer) -> Option<u32> {
    match (model.unk_token, model.unk_id) {
        (Value::String(token), _) => tokenizer.token_to_id(&token),
        (_, Value::Number(id)) => u32::try_from(id.as_u64()?).ok(),
        _ => None,
    }
}

/// Refuses templates for one text that the crate takes and then trips over, or fills in otherwise than they say.
fn check_templates(post_processor: &Value) -> Result<(), String> {
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    list(post_processor, "processors").iter().try_for_each(check_templates)?;
    if post_processor.get("type").and_then(Value::as_str) != Some("TemplateProcessing") {
        return Ok(());
    }
    let tokens = post_processor.get("special_tokens").and_then(Value::as_object).cloned().unwrap_or_default();
    for (name, token) in &tokens {
        let [ids, strings] = ["ids", "tokens"].map(|part| list(token, part).len());
        if ids != strings || ids == 0 {
            return Err(format!("its special token {name} has {ids} ids for {strings} tokens"));
        }
    }
    for piece in list(post_processor, "single") {
        let id = |kind: &str| piece.get(kind)?.get("id")?.as_str().map(str::to_owned);
        if id("Sequence").is_some_and(|sequence| sequence != "A") {
            return Err("its template for one text has a place for a second one".to_owned());
        }
        if let Some(name) = id("SpecialToken").filter(|name| !tokens.contains_key(name)) {
            return Err(format!("its template has the special token {name}, which it does not define"));
        }
    }
    Ok(())
}
