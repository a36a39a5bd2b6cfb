//! Text → token ids, with what was cut off reported.

use std::fmt;
use std::ops::Range;
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
    /// Whether they are added.
    adds_special: bool,
    /// Most characters of a text of which tokens are kept.
    max_chars: usize,
    unknown_id: Option<u32>,
}

/// The tokens of a text: ids, spellings, and where in the text each is, in bytes.
pub struct Described {
    /// Ids.
    pub ids: Vec<u32>,
    /// As the vocabulary spells them.
    pub tokens: Vec<String>,
    /// Bytes of the text; empty for what was put around it.
    pub offsets: Vec<Range<usize>>,
}

/// How a tokenizer is used.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Most tokens of a text that are kept, special ones included.
    pub max_length: usize,
    /// Whether texts are cut at their beginning; as the file itself says by default.
    pub truncate_left: Option<bool>,
    /// Whether the model's special tokens are added.
    pub special: bool,
    /// How many ids the model knows, where it has a table of them.
    pub ids: Option<usize>,
    /// Whether a text is cut before it is tokenised, too, at as many characters as `max_length` tokens have by the median.
    pub cuts_characters: bool,
}

impl Rules {
    /// As most models are used.
    pub fn of(max_length: usize, truncate_left: Option<bool>) -> Self {
        Self { max_length, truncate_left, special: true, ids: None, cuts_characters: false }
    }
}

impl Tokenizer {
    /// Parses a `tokenizer.json`.
    ///
    /// # Errors
    /// A reason in plain words, without the file's name.
    pub fn new(json: &[u8], rules: Rules) -> Result<Self, String> {
        // The crate trusts its files: some of what they may say makes it panic.
        let parse = || Self::parse(json, rules);
        panic::catch_unwind(parse).unwrap_or_else(|_| Err("it contradicts itself".to_owned()))
    }

    fn parse(json: &[u8], rules: Rules) -> Result<Self, String> {
        let Rules { max_length, truncate_left, special: adds_special, .. } = rules;
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        let direction = inner.get_truncation().map_or(TruncationDirection::Right, |truncation| truncation.direction);
        let direction = match truncate_left {
            Some(true) => TruncationDirection::Left,
            Some(false) => TruncationDirection::Right,
            None => direction,
        };
        inner.with_padding(None).with_truncation(None).map_err(|error| error.to_string())?;
        let Told { model, post_processor } = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        check_templates(&post_processor)?;
        let [special, ..] = TRIED.map(|text| inner.encode_fast(text, adds_special).map(|encoding| encoding.len()));
        let special = special.map_err(|error| error.to_string())?;
        if max_length <= special {
            return Err(format!(
                "the maximum length of {max_length} tokens leaves no room for text beside {special} special tokens"
            ));
        }
        let tokens = inner.get_vocab_size(true);
        if let Some(ids) = rules.ids.filter(|&ids| ids < tokens) {
            return Err(format!("its vocabulary has {tokens} tokens, and the model has the vectors of {ids} only"));
        }
        let max_chars = match rules.cuts_characters {
            true => max_length.saturating_mul(median_characters(&inner)),
            false => usize::MAX,
        };
        let unknown_id = unknown_id(model, &inner);
        Ok(Self { inner, direction, max_length, special, adds_special, max_chars, unknown_id })
    }

    /// How many tokens `text` has before it is cut, special ones included. `index` is its position in the call.
    pub fn count(&self, index: usize, text: &str) -> Result<usize> {
        check_length(index, text)?;
        self.guarded(index, || {
            let encoding = self.inner.encode_fast(text, false).map_err(|error| error.to_string())?;
            Ok(encoding.len() + self.special)
        })
    }

    /// Where each token of a piece of text begins, in bytes; without special ones.
    pub fn starts(&self, piece: &str) -> Result<Vec<usize>> {
        self.guarded(0, || {
            let encoding = self.inner.encode(piece, false).map_err(|error| error.to_string())?;
            Ok(encoding.get_offsets().iter().map(|(start, _)| *start).collect())
        })
    }

    /// All tokens of `text` before it is cut, special ones included.
    pub fn describe(&self, text: &str) -> Result<Described> {
        check_length(0, text)?;
        self.guarded(0, || {
            let encoding = self.inner.encode(text, self.adds_special).map_err(|error| error.to_string())?;
            let offsets = encoding.get_offsets().iter().map(|(start, end)| *start..*end);
            Ok(Described {
                ids: encoding.get_ids().to_vec(),
                tokens: encoding.get_tokens().to_vec(),
                offsets: offsets.collect(),
            })
        })
    }

    /// Some of what a file may say shows only with some texts.
    fn guarded<T>(&self, index: usize, work: impl FnOnce() -> Result<T, String>) -> Result<T> {
        panic::catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err("it contradicts itself".to_owned()))
            .map_err(|error| Error::Generation { index, reason: format!("its tokenizer failed: {error}") })
    }

    /// The tokens of `text`. `index` is its position in the call, for the error.
    pub fn encode(&self, index: usize, text: &str) -> Result<Tokens> {
        check_length(index, text)?;
        self.guarded(index, || self.tokens(text))
    }

    /// How many tokens of a text are those of `prompt`, where it begins with that: as many as it has alone, but for the special one at
    /// its end, which stands behind the text then.
    pub fn prompt_tokens(&self, prompt: &str) -> usize {
        let count = || {
            let encoding = self.inner.encode_fast(prompt, self.adds_special).ok()?;
            let ends = encoding.get_special_tokens_mask().last() == Some(&1);
            Some(encoding.len() - usize::from(ends))
        };
        // What cannot be read alone cannot be read before a text either, and that is an error of the text.
        panic::catch_unwind(AssertUnwindSafe(count)).ok().flatten().unwrap_or_default()
    }

    fn tokens(&self, text: &str) -> Result<Tokens, String> {
        // Cut here and not by the tokenizer, which would not tell how much it cut off.
        let mut encoding = self.inner.encode_fast(text, false).map_err(|error| error.to_string())?;
        let total = encoding.len() + self.special;
        if text.len() > self.max_chars
            && let Some((end, _)) = text.char_indices().nth(self.max_chars)
        {
            encoding = self.inner.encode_fast(&text[..end], false).map_err(|error| error.to_string())?;
        }
        encoding.truncate(self.max_length - self.special, 0, self.direction);
        drop(encoding.take_overflowing());
        let encoding = self.inner.post_process(encoding, None, self.adds_special).map_err(|error| error.to_string())?;
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
            unknown_id: self.unknown_id,
            prompt: 0,
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
struct Told {
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

/// How many characters its tokens have, by the median.
fn median_characters(tokenizer: &tokenizers::Tokenizer) -> usize {
    let mut lengths: Vec<usize> = tokenizer.get_vocab(true).keys().map(|token| token.chars().count()).collect();
    lengths.sort_unstable();
    let middle = |at: usize| lengths.get(at).copied().unwrap_or(1);
    let half = lengths.len() / 2;
    // Of an even number, what lies between the two in the middle, rounded down.
    if lengths.len().is_multiple_of(2) { (middle(half.saturating_sub(1)) + middle(half)) / 2 } else { middle(half) }
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
