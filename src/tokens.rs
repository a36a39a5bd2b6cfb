//! Text → token ids, with what was cut off reported.

use std::{fmt, panic};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::TruncationDirection;

use crate::embedding::Tokens;
use crate::error::{Error, Result};

/// The longest text that is tokenised, in UTF-8 bytes: sixteen times what the longest-context models read. Tokenising a
/// megabyte takes about a third of a second of one core and a hundred times its size in memory.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

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
        let special = inner.encode_fast("", true).map_err(|error| error.to_string())?.len();
        if max_length <= special {
            return Err(format!(
                "the maximum length of {max_length} tokens leaves no room for text beside {special} special tokens"
            ));
        }
        let unknown_id = unknown_id(json, &inner);
        Ok(Self { inner, direction, max_length, special, unknown_id })
    }

    /// The tokens of `text`. `index` is its position in the call, for the error.
    pub fn encode(&self, index: usize, text: &str) -> Result<Tokens> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Error::InputTooLong { index, bytes: text.len(), limit: MAX_TEXT_BYTES });
        }
        let failed =
            |error: tokenizers::Error| Error::Generation { index, reason: format!("its tokenizer failed: {error}") };
        // Cut here and not by the tokenizer, which would not tell how much it cut off.
        let mut encoding = self.inner.encode_fast(text, false).map_err(failed)?;
        let total = encoding.len() + self.special;
        encoding.truncate(self.max_length - self.special, 0, self.direction);
        drop(encoding.take_overflowing());
        let encoding = self.inner.post_process(encoding, None, true).map_err(failed)?;
        let ids = encoding.get_ids();
        let type_ids = encoding.get_type_ids();
        Ok(Tokens {
            ids: ids.to_vec(),
            type_ids: type_ids.iter().any(|&id| id != 0).then(|| type_ids.to_vec()),
            total,
            special: self.special,
            unknown: self.unknown_id.map_or(0, |unknown| ids.iter().filter(|&&id| id == unknown).count()),
        })
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("unknown_id", &self.unknown_id).finish_non_exhaustive()
    }
}

/// What a `tokenizer.json` may say about unknown words, without the vocabulary: that takes long to read.
#[derive(Deserialize)]
struct Unknown {
    model: UnknownToken,
}

#[derive(Deserialize)]
struct UnknownToken {
    #[serde(default)]
    unk_token: Value,
    #[serde(default)]
    unk_id: Value,
}

/// The id of `[UNK]`: named by most kinds of `tokenizer.json`, numbered by Unigram, absent in byte-level ones.
fn unknown_id(json: &[u8], tokenizer: &tokenizers::Tokenizer) -> Option<u32> {
    let Unknown { model } = serde_json::from_slice(json).ok()?;
    match (model.unk_token, model.unk_id) {
        (Value::String(token), _) => tokenizer.token_to_id(&token),
        (_, Value::Number(id)) => u32::try_from(id.as_u64()?).ok(),
        _ => None,
    }
}
