//! Texts whose words are read one by one, each once: what a word's tokens are is kept, and a text costs a look-up a word.
//!
//! BERT's tokenizers cut at white space and at punctuation before they do anything that looks at more than one character, so that
//! the tokens of a text are those of its words, wherever these stand. Others read a word together with the space before it, or
//! with whatever else is near.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use serde::Deserialize;
use serde_json::Value;

/// Words that are kept, at most, and bytes of one: some megabytes of those that come first, which are the frequent ones.
const MOST_WORDS: usize = 1 << 16;
const MOST_BYTES: usize = 64;

/// White space that every part of such a tokenizer takes for that; some of the rest is dropped instead.
const SPACES: [u8; 4] = *b" \t\n\r";

/// The words that were read.
pub struct Words {
    /// Whether a byte ends a word: white space, and punctuation that stands in no token of the tokenizer's own.
    ends: [bool; 256],
    /// Where in it each token of a word begins, in bytes.
    known: RwLock<HashMap<Box<str>, Box<[u8]>>>,
}

/// What a `tokenizer.json` says that decides whether words are read one by one.
#[derive(Deserialize)]
struct Told {
    model: Kind,
    #[serde(default)]
    normalizer: Option<Kind>,
    #[serde(default)]
    pre_tokenizer: Option<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type", default)]
    name: Value,
}

impl Words {
    /// For the tokenizer that `json` describes, if it reads words one by one. `own`: tokens that it looks for before it cuts, and
    /// whether what stands beside them matters.
    pub fn of(json: &[u8], own: &[(&str, bool)]) -> Option<Self> {
        let Told { model, normalizer, pre_tokenizer } = serde_json::from_slice(json).ok()?;
        let by_words = model.name == "WordPiece"
            && pre_tokenizer.is_some_and(|kind| kind.name == "BertPreTokenizer")
            && normalizer.is_none_or(|kind| kind.name == "BertNormalizer")
            && own.iter().all(|(token, beside)| !(*beside || token.contains(char::is_whitespace)));
        let ends = std::array::from_fn(|byte| {
            let byte = byte as u8;
            let within = || own.iter().any(|(token, _)| token.as_bytes().contains(&byte));
            SPACES.contains(&byte) || (byte.is_ascii_punctuation() && !within())
        });
        by_words.then(|| Self { ends, known: RwLock::default() })
    }

    /// Shows where in `text` each token begins, in bytes. `read` tells it of a word that is new.
    pub fn starts<'a>(
        &self,
        text: &'a str,
        read: impl Fn(&str) -> Result<Vec<usize>, String>,
        mut show: impl FnMut(usize),
    ) -> Result<(), String> {
        let mut new: HashMap<&str, Box<[u8]>> = HashMap::new();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut look = |at: usize, word: &'a str| {
            let starts = match known.get(word).or_else(|| new.get(word)) {
                Some(starts) => starts,
                None if word.len() > MOST_BYTES => {
                    read(word)?.into_iter().for_each(|start| show(at + start));
                    return Ok(());
                }
                None => {
                    let starts: Box<[u8]> = read(word)?.into_iter().map(|start| start as u8).collect();
                    new.entry(word).or_insert(starts)
                }
            };
            starts.iter().for_each(|start| show(at + usize::from(*start)));
            Ok::<_, String>(())
        };
        let mut begin = 0;
        for (at, byte) in text.bytes().enumerate().filter(|(_, byte)| self.ends[usize::from(*byte)]) {
            if begin < at {
                look(begin, &text[begin..at])?;
            }
            begin = at + 1;
            if byte.is_ascii_punctuation() {
                look(at, &text[at..begin])?;
            }
        }
        if begin < text.len() {
            look(begin, &text[begin..])?;
        }
        drop(known);
        if !new.is_empty() {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            let room = MOST_WORDS.saturating_sub(known.len());
            known.extend(new.into_iter().take(room).map(|(word, starts)| (word.into(), starts)));
        }
        Ok(())
    }
}
