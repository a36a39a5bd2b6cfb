//! WordPiece for texts in ASCII, the short way: the same ids as the tokenizer's, without the offsets and spellings that it keeps.
//!
//! It knows two ways to find words: that of BERT, and that of the built-in model. Any other text or tokenizer is left to the crate.

use serde_json::{Value, json};
use tokenizers::{Model, ModelWrapper, Tokenizer};

/// How words are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    /// Runs of what is neither space nor punctuation, and each sign of punctuation.
    Bert {
        /// Whether control characters are taken out of the text.
        clean: bool,
    },
    /// Runs of letters, of digits and of signs, and each `(`; identifiers are taken apart at capital letters.
    Identifiers,
}

/// The part of a tokenizer that it takes for this.
#[derive(Debug)]
pub(super) struct WordPiece {
    words: Words,
    lowercase: bool,
    prefix: String,
    /// Longest word, in bytes, that is not unknown for its length.
    max_word: usize,
    /// Bytes of the longest piece, with the prefix.
    longest: usize,
    unknown: u32,
    /// What is found in a text before it is taken apart.
    added: Vec<String>,
    /// Special tokens around a text.
    before: Vec<u32>,
    after: Vec<u32>,
}

impl WordPiece {
    /// If the tokenizer is one of those. `tried` are texts with which it is compared.
    pub fn of(told: &super::Told, inner: &Tokenizer, tried: &[&str]) -> Option<Self> {
        let ModelWrapper::WordPiece(model) = inner.get_model() else { return None };
        let (words, lowercase) = words(&told.normalizer, &told.pre_tokenizer)?;
        let added = inner.get_added_tokens_decoder().into_values();
        let added: Option<Vec<String>> = added
            .map(|token| {
                let literal = !(token.normalized || token.lstrip || token.rstrip || token.single_word);
                (literal && !token.content.is_empty()).then_some(token.content)
            })
            .collect();
        let with = inner.encode_fast("a", true).ok()?;
        let special = |mask: &&u32| **mask == 1;
        let before = with.get_special_tokens_mask().iter().take_while(special).count();
        let after = with.get_special_tokens_mask().iter().rev().take_while(special).count();
        let ids = with.get_ids();
        let longest =
            (0..model.get_vocab_size() as u32).filter_map(|id| model.id_to_token(id)).map(|token| token.len()).max()?;
        let found = Self {
            words,
            lowercase,
            prefix: told.model.continuing_subword_prefix.as_str()?.to_owned(),
            max_word: usize::try_from(told.model.max_input_chars_per_word.as_u64()?).ok()?,
            longest,
            unknown: model.token_to_id(told.model.unk_token.as_str()?)?,
            added: added?,
            before: ids.get(..before)?.to_vec(),
            after: ids.get(ids.len().checked_sub(after)?..)?.to_vec(),
        };
        let same = |text: &&str| {
            let Some(ids) = found.ids(inner, text) else { return true };
            let all: Vec<u32> = [&found.before[..], &ids, &found.after].concat();
            inner
                .encode_fast(*text, true)
                .is_ok_and(|right| right.get_ids() == all && right.get_type_ids().iter().all(|&id| id == 0))
        };
        tried.iter().all(same).then_some(found)
    }

    /// The ids of a text without special ones; nothing where the text is for the tokenizer itself. `inner` is that.
    pub fn ids(&self, inner: &Tokenizer, text: &str) -> Option<Vec<u32>> {
        let ModelWrapper::WordPiece(model) = inner.get_model() else { return None };
        if !text.is_ascii() || self.added.iter().any(|token| text.contains(token.as_str())) {
            return None;
        }
        let bytes = text.as_bytes();
        if self.words == (Words::Bert { clean: true })
            && bytes.iter().any(|byte| byte.is_ascii_control() && !b"\t\n\r".contains(byte))
        {
            return None;
        }
        let lower = if self.lowercase { text.to_ascii_lowercase() } else { text.to_owned() };
        let mut ids = Vec::with_capacity(bytes.len() / 4 + 1);
        let mut piece = self.prefix.clone();
        let mut at = 0;
        while let Some((start, end)) = self.words.next(bytes, at) {
            self.pieces(model, &lower[start..end], &mut piece, &mut ids);
            at = end;
        }
        Some(ids)
    }

    /// The same with the special ones around them.
    pub fn around(&self, ids: &[u32]) -> Vec<u32> {
        [&self.before[..], ids, &self.after].concat()
    }

    /// Adds the longest pieces from the left, or one unknown token. `piece` holds the prefix.
    fn pieces(&self, model: &impl Model, word: &str, piece: &mut String, ids: &mut Vec<u32>) {
        let known = ids.len();
        if word.len() > self.max_word {
            return ids.push(self.unknown);
        }
        if let Some(id) = model.token_to_id(word) {
            return ids.push(id);
        }
        let mut start = 0;
        while start < word.len() {
            let prefix = if start == 0 { 0 } else { self.prefix.len() };
            piece.truncate(self.prefix.len());
            piece.push_str(&word[start..word.len().min(start + self.longest)]);
            let candidate = &piece[self.prefix.len() - prefix..];
            let found = (prefix + 1..=candidate.len())
                .rev()
                .find_map(|end| Some((model.token_to_id(&candidate[..end])?, end - prefix)));
            let Some((id, length)) = found else {
                ids.truncate(known);
                return ids.push(self.unknown);
            };
            ids.push(id);
            start += length;
        }
    }
}

impl Words {
    /// Where the next word begins and ends.
    fn next(self, text: &[u8], from: usize) -> Option<(usize, usize)> {
        let start = from + text[from..].iter().position(|&byte| !self.separates(byte))?;
        let kind = self.kind(text[start]);
        let alone = kind == Kind::Alone;
        let goes_on =
            |&at: &usize| !alone && !self.separates(text[at]) && self.kind(text[at]) == kind && !self.breaks(text, at);
        let end = (start + 1..text.len()).take_while(goes_on).last().map_or(start + 1, |last| last + 1);
        Some((start, end))
    }

    fn separates(self, byte: u8) -> bool {
        let space = matches!(byte, b'\t'..=b'\r' | b' ');
        space || self == Self::Identifiers && byte == b'_'
    }

    fn kind(self, byte: u8) -> Kind {
        match self {
            Self::Bert { .. } if byte.is_ascii_punctuation() => Kind::Alone,
            Self::Bert { .. } => Kind::Letter,
            Self::Identifiers => match byte {
                b'(' => Kind::Alone,
                b'0'..=b'9' => Kind::Digit,
                _ if byte.is_ascii_alphabetic() => Kind::Letter,
                _ => Kind::Sign,
            },
        }
    }

    /// Whether a part of an identifier begins there: `camel|Case`, `HTML|Page`.
    fn breaks(self, text: &[u8], at: usize) -> bool {
        let upper = |at: usize| text.get(at).is_some_and(u8::is_ascii_uppercase);
        let lower = |at: usize| text.get(at).is_some_and(u8::is_ascii_lowercase);
        self == Self::Identifiers && upper(at) && (lower(at - 1) || upper(at - 1) && lower(at + 1))
    }
}

/// What stands together in a word.
#[derive(PartialEq, Eq)]
enum Kind {
    Letter,
    Digit,
    Sign,
    Alone,
}

/// How these find words, if it is known, and whether in lower case.
fn words(normalizer: &Value, pre_tokenizer: &Value) -> Option<(Words, bool)> {
    let bert = |normalizer: &Value| {
        let of = |name: &str| normalizer.get(name).and_then(Value::as_bool);
        (normalizer.get("type")? == "BertNormalizer").then_some((of("clean_text")?, of("lowercase")?))
    };
    if *pre_tokenizer == json!({ "type": "BertPreTokenizer" }) {
        let (clean, lowercase) = bert(normalizer)?;
        return Some((Words::Bert { clean }, lowercase));
    }
    let split = json!({
        "type": "Split",
        "pattern": { "Regex": r"\p{L}+|\p{N}+|\(|[^\s\p{L}\p{N}_(]+" },
        "behavior": "Removed",
        "invert": true,
    });
    let identifiers = json!({
        "type": "Replace",
        "pattern": { "Regex": "(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])" },
        "content": " ",
    });
    let [replace, normalizer] = &normalizer.get("normalizers")?.as_array()?[..] else { return None };
    let (clean, lowercase) = bert(normalizer)?;
    (*pre_tokenizer == split && *replace == identifiers && !clean).then_some((Words::Identifiers, lowercase))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{TRIED, Told};
    use super::*;

    fn tokenizer(path: &str, change: impl Fn(&mut Value)) -> (Tokenizer, Option<WordPiece>) {
        let mut json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        change(&mut json);
        let bytes = serde_json::to_vec(&json).unwrap();
        let mut inner = Tokenizer::from_bytes(&bytes).unwrap();
        inner.with_padding(None).with_truncation(None).unwrap();
        let told: Told = serde_json::from_slice(&bytes).unwrap();
        let short = WordPiece::of(&told, &inner, &TRIED);
        (inner, short)
    }

    const BERT: &str = "fixtures/models/bert-mean/tokenizer.json";
    const BUILT_IN: &str = "models/builtin/tokenizer.json";

    /// Text as the tokenizer is most likely to take it apart in more than one way.
    fn texts() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[ -~\t\n\r]{0,12}",
            "[\\x00-\\x7f]{0,6}",
            "[a-cA-C0-2_()]{0,12}",
            "(get|set|HTML|page|Id|42|_|\\.|\\[CLS\\]|\\[cls\\]|##s| ){0,8}",
            "[a-f0-9]{90,110}",
            "\\PC{0,3}",
        ];
        proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
    }

    #[test]
    fn ids_are_those_of_the_tokenizer() {
        let cased = |json: &mut Value| json["normalizer"]["lowercase"] = false.into();
        let unclean = |json: &mut Value| json["normalizer"]["clean_text"] = false.into();
        let changes: [&dyn Fn(&mut Value); 4] = [&|_| {}, &cased, &unclean, &|_| {}];
        for (path, change) in [BERT, BERT, BERT, BUILT_IN].into_iter().zip(changes) {
            let (inner, short) = tokenizer(path, change);
            let short = short.expect("there is a short way");
            let taken = std::cell::Cell::new(0);
            proptest!(ProptestConfig::with_cases(2000), |(text in texts())| {
                if let Some(ids) = short.ids(&inner, &text) {
                    taken.set(taken.get() + 1);
                    let right = inner.encode_fast(text.as_str(), false).unwrap();
                    prop_assert_eq!(&ids, right.get_ids(), "{:?}", text);
                    let right = inner.encode_fast(text.as_str(), true).unwrap();
                    prop_assert_eq!(short.around(&ids), right.get_ids(), "{:?}", text);
                }
            });
            assert!(taken.get() > 500, "{path}: {taken:?}");
        }
    }

    #[test]
    fn other_tokenizers_have_no_short_way() {
        let changes: [&dyn Fn(&mut Value); 6] = [
            &|json| json["normalizer"] = json!({ "type": "Lowercase" }),
            &|json| json["pre_tokenizer"] = json!({ "type": "Whitespace" }),
            &|json| json["added_tokens"][0]["normalized"] = true.into(),
            &|json| json["added_tokens"][0]["lstrip"] = true.into(),
            &|json| json["post_processor"]["single"][1]["Sequence"]["type_id"] = 1.into(),
            &|json| json["model"]["unk_token"] = "a token that there is not".into(),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            assert!(tokenizer(BERT, change).1.is_none(), "change {at}");
        }
        assert!(tokenizer("fixtures/models/roberta-mean/tokenizer.json", |_| {}).1.is_none());
    }
}
