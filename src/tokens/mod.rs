//! Text → token ids, with what was cut off reported.

mod chat;
mod pair;
mod wordpiece;
mod words;

use std::fmt;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::utils::truncation::TruncationStrategy;
use tokenizers::{
    AddedToken, DecoderWrapper, Encoding, Model, ModelWrapper, NormalizerWrapper, PostProcessor, PostProcessorWrapper,
    PreTokenizerWrapper, TokenizerImpl, TruncationDirection, models,
};

use wordpiece::WordPiece;
use words::Words;

pub use chat::Chat;
pub use pair::{Cut, Half};

use crate::embedding::{InputType, Tokens};
use crate::error::{Error, Result, Subject};

/// The longest text that is tokenised, in UTF-8 bytes: sixteen times what the longest-context models read. Tokenising a
/// megabyte takes about a third of a second of one core and a hundred times its size in memory.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// Texts of many kinds, for which a tokenizer is tried before it is used.
const TRIED: [&str; 6] =
    ["", "a", "fn main() { println!(\"{}\", 1 + 2); }", "Größe 你好 🦀 ﷽", " \t\n ", "[CLS] </s> <mask> ##a ▁b"];

/// The tokens of a text: ids, spellings, and where in the text each is, in bytes.
pub struct Described {
    /// Ids.
    pub ids: Vec<u32>,
    /// As the vocabulary spells them.
    pub tokens: Vec<String>,
    /// Bytes of the text; empty for what was put around it.
    pub offsets: Vec<Range<usize>>,
}

/// How a model wants its texts to be read, beside what its tokenizer says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// Most tokens of a text, special tokens included.
    pub max_length: usize,
    /// Most tokens of a query, and of a document, where it is fewer.
    pub by_role: [Option<usize>; 2],
    /// Whether texts are cut at their beginning, where something says so; else as the tokenizer says.
    pub truncate_left: Option<bool>,
    /// Which text of a pair is cut, where something says so; else as the tokenizer says.
    pub pairs: Option<Cut>,
    /// What makes tokens of queries, and how those are read, where that is another way.
    pub queries: Option<Box<(Vec<u8>, Reading)>>,
    /// What a pair is read as, where that is a conversation.
    pub chat: Option<Chat>,
    /// Beginnings of texts that are one token each, where the vocabulary has them.
    pub markers: Vec<String>,
    /// Whether queries have no special tokens, or no text has.
    pub bare_queries: bool,
    /// See there.
    pub bare: bool,
    /// How many ids the model knows, where it has a table of them.
    pub ids: Option<usize>,
    /// Whether a text is cut before it is tokenised, too, at as many characters as `max_length` tokens have by the median.
    pub cuts_characters: bool,
    /// What queries are filled up with.
    pub expansion: Option<Expansion>,
    /// Words whose vectors do not count, where the vocabulary has them.
    pub skipped: Vec<String>,
    /// Whether they do not count in queries either.
    pub skipped_in_queries: bool,
}

/// What queries are filled up with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expansion {
    /// Tokens of a query, at the least.
    pub length: usize,
    /// Whether it is all that a query has, however long.
    pub fixed: bool,
    /// Whether other tokens attend to it.
    pub attended: bool,
    /// The first of these that the vocabulary has.
    pub tokens: Vec<String>,
}

/// A model's tokenizer. Never pads.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The short way, if there is one.
    short: Option<WordPiece>,
    /// That of queries, where they have one of their own.
    queries: Option<Box<Tokenizer>>,
    /// Where words are read one by one: those that were counted.
    words: Option<Words>,
    direction: TruncationDirection,
    reading: Reading,
    /// How many special tokens the model adds to a text, and to a pair.
    special: usize,
    special_of_pairs: usize,
    cut: Cut,
    /// The tokens that every conversation ends with.
    ending: Vec<u32>,
    /// Most characters of a text of which tokens are kept.
    max_chars: usize,
    unknown_id: Option<u32>,
    expansion_id: Option<u32>,
    skipped: Vec<u32>,
}

impl Tokenizer {
    /// Parses a `tokenizer.json`.
    ///
    /// # Errors
    /// A reason in plain words, without the file's name.
    pub fn new(json: &[u8], reading: &Reading) -> Result<Self, String> {
        // The crate trusts its files: some of what they may say makes it panic.
        let parse = || Self::parse(json, reading.clone());
        panic::catch_unwind(AssertUnwindSafe(parse)).unwrap_or_else(|_| Err("it contradicts itself".to_owned()))
    }

    fn parse(json: &[u8], reading: Reading) -> Result<Self, String> {
        let max_length = reading.max_length;
        let told = serde_json::from_slice::<Told>(json);
        let kind = told.as_ref().ok().and_then(|told| told.model.kind.as_str());
        let mut inner = read(json, kind)?;
        let own = inner.get_truncation().cloned().unwrap_or_default();
        let direction = match reading.truncate_left {
            Some(true) => TruncationDirection::Left,
            Some(false) => TruncationDirection::Right,
            None => own.direction,
        };
        let cut = reading.pairs.unwrap_or(match own.strategy {
            TruncationStrategy::LongestFirst => Cut::Longest,
            TruncationStrategy::OnlyFirst => Cut::First,
            TruncationStrategy::OnlySecond => Cut::Second,
        });
        inner.with_padding(None).with_truncation(None).map_err(|error| error.to_string())?;
        register(&mut inner, &reading.markers)?;
        let told = told.map_err(|error| error.to_string())?;
        check_templates(&told.post_processor)?;
        let [special, ..] = TRIED.map(|text| inner.encode_fast(text, !reading.bare).map(|encoding| encoding.len()));
        let special = special.map_err(|error| error.to_string())?;
        if max_length <= special {
            return Err(format!(
                "the maximum length of {max_length} tokens leaves no room for text beside {special} special tokens"
            ));
        }
        let tokens = inner.get_vocab_size(true);
        if let Some(ids) = reading.ids.filter(|&ids| ids < tokens) {
            return Err(format!("its vocabulary has {tokens} tokens, and the model has the vectors of {ids} only"));
        }
        let max_chars = match reading.cuts_characters {
            true => max_length.saturating_mul(median_characters(&inner)),
            false => usize::MAX,
        };
        let special_of_pairs = inner.get_post_processor().map_or(0, |processor| processor.added_tokens(true));
        let unknown_id = unknown_id(&told.model, &inner);
        let id_of = |token: &String| inner.token_to_id(token).filter(|id| Some(*id) != unknown_id);
        let expansion_id = reading.expansion.as_ref().and_then(|expansion| expansion.tokens.iter().find_map(id_of));
        if reading.expansion.is_some() && expansion_id.is_none() {
            return Err("queries are to be filled up with a token for masked words, and it has none".to_owned());
        }
        let skipped = reading.skipped.iter().filter_map(id_of).collect();
        let short = WordPiece::of(&told, &inner, &TRIED);
        let added = inner.get_added_tokens_decoder();
        let beside = |token: &AddedToken| token.lstrip || token.rstrip || token.single_word;
        let own: Vec<_> = added.values().map(|token| (&token.content[..], beside(token))).collect();
        let words = Words::of(json, &own);
        let queries =
            reading.queries.as_deref().map(|(json, reading)| Self::parse(json, reading.clone()).map(Box::new));
        let ending = match &reading.chat {
            Some(chat) => pair::ending(chat, &inner, max_length)?,
            None => Vec::new(),
        };
        Ok(Self {
            queries: queries.transpose()?,
            ending,
            inner,
            short,
            words,
            direction,
            special,
            special_of_pairs,
            cut,
            max_chars,
            unknown_id,
            expansion_id,
            skipped,
            reading,
        })
    }

    /// What makes tokens of texts of that role.
    pub fn of(&self, input_type: InputType) -> &Self {
        match (input_type, &self.queries) {
            (InputType::Query, Some(queries)) => queries,
            _ => self,
        }
    }

    /// How many tokens `text` has before it is cut, special ones included. `index` is its position in the call.
    pub fn count(&self, index: usize, text: &str) -> Result<usize> {
        check_length(index, text)?;
        self.guarded(index, || {
            if let Some(ids) = self.short.as_ref().and_then(|short| short.ids(&self.inner, text)) {
                return Ok(ids.len() + self.special);
            }
            let mut count = self.special;
            match &self.words {
                Some(words) => words.starts(text, |word| self.starts_in(word), |_| count += 1)?,
                None => count += self.inner.encode_fast(text, false).map_err(|error| error.to_string())?.len(),
            }
            Ok(count)
        })
    }

    /// Where each token of a piece of text begins, in bytes; without special ones.
    pub fn starts(&self, piece: &str) -> Result<Vec<usize>> {
        self.guarded(0, || match &self.words {
            Some(words) => {
                let mut starts = Vec::new();
                words.starts(piece, |word| self.starts_in(word), |start| starts.push(start))?;
                Ok(starts)
            }
            None => self.starts_in(piece),
        })
    }

    fn starts_in(&self, piece: &str) -> Result<Vec<usize>, String> {
        let encoding = self.inner.encode(piece, false).map_err(|error| error.to_string())?;
        Ok(encoding.get_offsets().iter().map(|(start, _)| *start).collect())
    }

    /// All tokens of `text` before it is cut, special ones included.
    pub fn describe(&self, text: &str) -> Result<Described> {
        check_length(0, text)?;
        self.guarded(0, || {
            let encoding = self.inner.encode(text, !self.reading.bare).map_err(|error| error.to_string())?;
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
            .map_err(|error| Error::generation(format!("its tokenizer failed: {error}")).at(index))
    }

    /// The tokens of `text`. `index` is its position in the call, for the error.
    pub fn encode(&self, index: usize, input_type: InputType, text: &str) -> Result<Tokens> {
        check_length(index, text)?;
        self.guarded(index, || self.of(input_type).tokens(input_type, text))
    }

    /// How many tokens of a text are those of `prompt`, where it begins with that: as many as it has alone, but for the special one at
    /// its end, which stands behind the text then.
    pub fn prompt_tokens(&self, prompt: &str) -> usize {
        let count = || {
            let encoding = self.inner.encode_fast(prompt, !self.reading.bare).ok()?;
            let ends = encoding.get_special_tokens_mask().last() == Some(&1);
            Some(encoding.len() - usize::from(ends))
        };
        // What cannot be read alone cannot be read before a text either, and that is an error of the text.
        panic::catch_unwind(AssertUnwindSafe(count)).ok().flatten().unwrap_or_default()
    }

    /// The token of an id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    fn tokens(&self, input_type: InputType, text: &str) -> Result<Tokens, String> {
        let is_query = input_type == InputType::Query;
        let special = if self.reading.bare_queries && is_query { 0 } else { self.special };
        let longest = match (&self.reading.expansion, self.reading.by_role[usize::from(!is_query)]) {
            (Some(expansion), _) if is_query && expansion.fixed => expansion.length,
            (Some(expansion), Some(longest)) if is_query => longest.max(expansion.length),
            (_, longest) => longest.unwrap_or(usize::MAX),
        };
        let longest = longest.min(self.reading.max_length);
        let room = longest.saturating_sub(special).max(1);
        let short = self.short.as_ref().and_then(|short| self.short_tokens(short, text, special, room));
        let mut tokens = short.map_or_else(|| self.long_tokens(text, special, room), Ok)?;
        tokens.input_type = input_type;
        if let (Some(expansion), Some(id), true) = (&self.reading.expansion, self.expansion_id, is_query) {
            let length = expansion.length.min(self.reading.max_length);
            let missing = length.saturating_sub(tokens.ids.len());
            tokens.ids.extend(std::iter::repeat_n(id, missing));
            tokens.type_ids.iter_mut().for_each(|ids| ids.extend(std::iter::repeat_n(0, missing)));
            tokens.unattended = if expansion.attended { 0 } else { missing };
        }
        if !self.skipped.is_empty() && (!is_query || self.reading.skipped_in_queries) {
            let ids = (0..).zip(&tokens.ids);
            tokens.counted = Some(ids.filter(|(_, id)| !self.skipped.contains(id)).map(|(at, _)| at).collect());
        }
        Ok(tokens)
    }

    /// Those of a text, cut to `room` of them beside `special` ones.
    fn long_tokens(&self, text: &str, special: usize, room: usize) -> Result<Tokens, String> {
        // Cut here and not by the tokenizer, which would not tell how much it cut off.
        let mut encoding = self.inner.encode_fast(text, false).map_err(|error| error.to_string())?;
        let total = encoding.len() + special;
        if text.len() > self.max_chars
            && let Some((end, _)) = text.char_indices().nth(self.max_chars)
        {
            encoding = self.inner.encode_fast(&text[..end], false).map_err(|error| error.to_string())?;
        }
        encoding.truncate(room, 0, self.direction);
        drop(encoding.take_overflowing());
        let encoding = self.inner.post_process(encoding, None, special > 0).map_err(|error| error.to_string())?;
        Ok(self.tokens_of(&encoding, total, special))
    }

    /// The same the short way, where that takes the text.
    fn short_tokens(&self, short: &WordPiece, text: &str, special: usize, room: usize) -> Option<Tokens> {
        let mut ids = short.ids(&self.inner, text)?;
        let total = ids.len() + special;
        if text.len() > self.max_chars {
            ids = short.ids(&self.inner, &text[..self.max_chars])?;
        }
        match self.direction {
            TruncationDirection::Right => ids.truncate(room),
            TruncationDirection::Left => drop(ids.drain(..ids.len().saturating_sub(room))),
        }
        Some(self.told(if special > 0 { short.around(&ids) } else { ids }, None, total, special))
    }

    fn tokens_of(&self, encoding: &Encoding, total: usize, special: usize) -> Tokens {
        let type_ids = encoding.get_type_ids();
        let type_ids = type_ids.iter().any(|&id| id != 0).then(|| type_ids.to_vec());
        self.told(encoding.get_ids().to_vec(), type_ids, total, special)
    }

    fn told(&self, ids: Vec<u32>, type_ids: Option<Vec<u32>>, total: usize, special: usize) -> Tokens {
        let unknown = self.unknown_id.map_or(0, |unknown| ids.iter().filter(|&&id| id == unknown).count());
        Tokens { ids, type_ids, total, special, unknown_id: self.unknown_id, unknown, ..Tokens::default() }
    }
}

/// Makes one token of each of `markers` that the vocabulary has, or else of its first word.
fn register(tokenizer: &mut tokenizers::Tokenizer, markers: &[String]) -> Result<(), String> {
    for marker in markers {
        let first = marker.split_whitespace().next().unwrap_or_default();
        let known = [marker.as_str(), first].into_iter().find(|word| tokenizer.token_to_id(word).is_some());
        let Some(known) = known.filter(|word| !word.is_empty()) else { continue };
        let encoding = tokenizer.encode(known, false).map_err(|error| error.to_string())?;
        if encoding.get_tokens() != [known] {
            let token = AddedToken::from(known, true).normalized(false);
            tokenizer.add_special_tokens([token]).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// The same of a model that tokenises by itself.
pub fn untold(index: usize, input_type: InputType, text: &str) -> Result<Tokens> {
    check_length(index, text)?;
    Ok(Tokens { input_type, ..Tokens::untold(text.to_owned()) })
}

fn check_length(index: usize, text: &str) -> Result<()> {
    match text.len() {
        0..=MAX_TEXT_BYTES => Ok(()),
        bytes => Err(Error::InputTooLong { what: Subject::Text, index, bytes, limit: MAX_TEXT_BYTES }),
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
    model: ToldModel,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
}

#[derive(Deserialize)]
struct ToldModel {
    #[serde(default, rename = "type")]
    kind: Value,
    #[serde(default)]
    unk_token: Value,
    #[serde(default)]
    unk_id: Value,
    #[serde(default)]
    continuing_subword_prefix: Value,
    #[serde(default)]
    max_input_chars_per_word: Value,
}

/// What the crate reads. A vocabulary whose kind is known is read as that at once: the crate copies it three times until it knows.
fn read(json: &[u8], kind: Option<&str>) -> Result<tokenizers::Tokenizer, String> {
    type Of<M> = TokenizerImpl<M, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;
    fn of<M: DeserializeOwned + Model + Into<ModelWrapper>>(json: &[u8]) -> Option<tokenizers::Tokenizer> {
        serde_json::from_slice::<Of<M>>(json).ok().map(Into::into)
    }
    let known = match kind {
        Some("WordPiece") => of::<models::wordpiece::WordPiece>(json),
        Some("BPE") => of::<models::bpe::BPE>(json),
        Some("Unigram") => of::<models::unigram::Unigram>(json),
        _ => None,
    };
    // What is wrong with it, the crate says in its own way.
    known.map_or_else(|| tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string()), Ok)
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
fn unknown_id(model: &ToldModel, tokenizer: &tokenizers::Tokenizer) -> Option<u32> {
    match (&model.unk_token, &model.unk_id) {
        (Value::String(token), _) => tokenizer.token_to_id(token),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_vocabulary_that_is_read_as_what_it_says_it_is_is_what_the_crate_reads() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/models");
        let mut kinds = BTreeSet::new();
        for folder in std::fs::read_dir(directory).unwrap() {
            let Ok(json) = std::fs::read(folder.unwrap().path().join("tokenizer.json")) else { continue };
            let Ok(told) = serde_json::from_slice::<Told>(&json) else { continue };
            let kind = told.model.kind.as_str();
            let [ours, theirs] = [read(&json, kind), read(&json, None)]
                .map(|read| read.and_then(|tokenizer| tokenizer.to_string(true).map_err(|error| error.to_string())));
            assert_eq!(ours, theirs);
            kinds.extend(kind.filter(|_| ours.is_ok()).map(str::to_owned));
        }
        assert_eq!(Vec::from_iter(kinds), ["BPE", "Unigram", "WordLevel", "WordPiece"]);
    }

    #[test]
    fn words_one_by_one_have_the_tokens_of_the_text() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/models");
        let mut by_words = 0;
        for folder in std::fs::read_dir(directory).unwrap() {
            let Ok(json) = std::fs::read(folder.unwrap().path().join("tokenizer.json")) else { continue };
            let reading = Reading { max_length: 128, markers: vec!["[unused1] ".to_owned()], ..Reading::default() };
            let Ok(tokenizer) = Tokenizer::new(&json, &reading) else { continue };
            by_words += usize::from(tokenizer.words.is_some());
            let long = "a".repeat(300);
            let texts = [
                "",
                " ",
                "one",
                "  Two words,\tor\r\nthree…  --- #1's \"x\" a=b\u{338}≠",
                "na\u{308}ive re\u{301}sume\u{301} \u{301}x",
                "你好 世界abc def。x",
                "a\u{85}b\u{b}c\u{a0}d\u{2028}e f\0g",
                "[MASK] [MASK]x [CLS]\n[SEP] [unused1] a[0]",
                "x[UNK] ##y don't U.S.A. 3.14 🦀🦀 👩‍👩‍👧 https://a.b/c?d=e_f",
                "İstanbul ẞ ﬁ Ⅷ",
                &long,
                &format!("{long} {long}b"),
            ];
            for text in texts.iter().chain(&texts) {
                let whole = tokenizer.starts_in(text).unwrap();
                assert_eq!(tokenizer.starts(text).unwrap(), whole, "{text:?}");
                assert_eq!(tokenizer.count(0, text).unwrap(), whole.len() + tokenizer.special, "{text:?}");
            }
        }
        assert!(by_words > 0);
    }
}
