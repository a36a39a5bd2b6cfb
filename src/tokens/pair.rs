//! The tokens of a query and a document that are read together.

use tokenizers::{Encoding, Token, TruncationDirection};

use super::{Chat, Tokenizer, check_length};
use crate::embedding::Tokens;
use crate::error::Result;

/// What is cut off a pair of texts that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The longer text, until both are equally long; then both.
    Longest,
    /// The query.
    First,
    /// The document.
    Second,
}

impl Cut {
    /// How many tokens of a query and a document with so many are kept, where there is room for `room` in all; nothing where cutting is
    /// not enough, as the text that may be cut is too short.
    fn kept(self, [query, document]: [usize; 2], room: usize) -> Option<[usize; 2]> {
        let Some(beyond) = (query + document).checked_sub(room).filter(|beyond| *beyond > 0) else {
            return Some([query, document]);
        };
        // A text that may be cut keeps at least one token.
        let cut = |tokens: usize| tokens.checked_sub(beyond).filter(|left| *left > 0);
        match self {
            Self::First => Some([cut(query)?, document]),
            Self::Second => Some([query, cut(document)?]),
            Self::Longest => {
                let shorter = query.min(document).min(room / 2);
                let longer = room - shorter;
                Some(if query <= document { [shorter, longer] } else { [longer, shorter] })
            }
        }
    }
}

/// What pairs need of a text.
pub enum Half {
    /// Its tokens, where those of a pair are made of those of its texts.
    Read(Ids),
    /// The text itself, where it becomes a part of another one, and how many tokens were cut off it.
    Written(String, usize),
}

/// Tokens of a text, without special ones and beyond what a model reads.
pub struct Ids {
    ids: Vec<u32>,
    /// How many there were.
    total: usize,
}

impl Half {
    /// About as many as a pair with it takes, while that is put together.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Read(Ids { ids, .. }) => ids.len() * size_of::<Token>(),
            Self::Written(text, _) => text.len(),
        }
    }
}

impl Ids {
    /// Its first `kept` tokens, or the last ones, with which the special ones are put together.
    fn encoding(&self, kept: usize, direction: TruncationDirection, type_id: u32) -> Encoding {
        let ids = match direction {
            TruncationDirection::Right => &self.ids[..kept.min(self.ids.len())],
            TruncationDirection::Left => &self.ids[self.ids.len().saturating_sub(kept)..],
        };
        let token = |&id: &u32| Token { id, value: String::new(), offsets: (0, 0) };
        Encoding::from_tokens(ids.iter().map(token).collect(), type_id)
    }
}

/// How many tokens more than a model reads are kept of a text: those next to where it is cut may become others in a conversation.
const SPARE: usize = 16;

/// The tokens that every conversation ends with: those that two of them, whose texts have no token in common, have in common.
pub(super) fn ending(chat: &Chat, tokenizer: &tokenizers::Tokenizer, max_length: usize) -> Result<Vec<u32>, String> {
    let tokens = |text: &str| {
        let encoding = tokenizer.encode_fast(chat.fill(text, text)?, false).map_err(|error| error.to_string())?;
        Ok::<_, String>(encoding.get_ids().to_vec())
    };
    let (mut one, other) = (tokens("0")?, tokens("1 2 3 4")?);
    let common = one.iter().rev().zip(other.iter().rev()).take_while(|(one, other)| one == other).count();
    let ending = one.split_off(one.len() - common);
    match ending.len() < max_length {
        true => Ok(ending),
        false => Err(format!(
            "the maximum length of {max_length} tokens leaves no room beside the {common} at the end of its chat template"
        )),
    }
}

impl Tokenizer {
    /// What a pair needs of one of its texts. The error is about the first input.
    pub fn encode_half(&self, text: &str) -> Result<Half> {
        check_length(0, text)?;
        self.guarded(0, || match self.reading.chat {
            Some(_) => self.written(text),
            None => self.half(text).map(Half::Read),
        })
    }

    /// The tokens of a query and a document, as one text. The error is about the first input.
    pub fn encode_pair(&self, query: &Half, document: &Half) -> Result<Tokens> {
        self.guarded(0, || match (query, document, &self.reading.chat) {
            (Half::Read(query), Half::Read(document), _) => self.tokens_of_pair(query, document),
            (Half::Written(query, before), Half::Written(document, beyond), Some(chat)) => {
                self.tokens_of_chat(&chat.fill(query, document)?, before + beyond)
            }
            _ => Err("its texts were not read in one way".to_owned()),
        })
    }

    fn half(&self, text: &str) -> Result<Ids, String> {
        let mut ids = match self.short.as_ref().and_then(|short| short.ids(&self.inner, text)) {
            Some(ids) => ids,
            None => self.inner.encode_fast(text, false).map_err(|error| error.to_string())?.get_ids().to_vec(),
        };
        let total = ids.len();
        if let Some(beyond) = total.checked_sub(self.reading.max_length) {
            match self.direction {
                TruncationDirection::Right => ids.truncate(self.reading.max_length),
                TruncationDirection::Left => drop(ids.drain(..beyond)),
            }
            ids.shrink_to_fit();
        }
        Ok(Ids { ids, total })
    }

    fn tokens_of_pair(&self, query: &Ids, document: &Ids) -> Result<Tokens, String> {
        let special = self.special_of_pairs;
        let total = query.total + document.total + special;
        let room = self.reading.max_length.checked_sub(special).filter(|room| *room > 0);
        let Some(room) = room else {
            return Err(format!("{} tokens leave no room beside {special} special ones", self.reading.max_length));
        };
        let [kept_query, kept_document] = self.cut.kept([query.total, document.total], room).ok_or_else(|| {
            format!(
                "its query has {} tokens, its document {}, and only one of them may be cut to {room} in all: shorten the other",
                query.total, document.total
            )
        })?;
        // A document's tokens are of another type, where no template says otherwise.
        let query = query.encoding(kept_query, self.direction, 0);
        let document = document.encoding(kept_document, self.direction, 1);
        let encoding = self.inner.post_process(query, Some(document), true).map_err(|error| error.to_string())?;
        Ok(self.tokens_of(&encoding, total, special))
    }

    /// As much of a text as a conversation that is cut can show: what is read with every other text is short.
    fn written(&self, text: &str) -> Result<Half, String> {
        let most = self.reading.max_length.saturating_add(SPARE);
        // No token is of less than a byte.
        let starts = if text.len() > most { self.starts_in(text)? } else { Vec::new() };
        let Some(beyond) = starts.len().checked_sub(most).filter(|beyond| *beyond > 0) else {
            return Ok(Half::Written(text.to_owned(), 0));
        };
        let kept = match self.direction {
            TruncationDirection::Right => &text[..text.floor_char_boundary(starts[most])],
            TruncationDirection::Left => &text[text.floor_char_boundary(starts[beyond])..],
        };
        Ok(Half::Written(kept.to_owned(), beyond))
    }

    /// The tokens of a conversation, `beyond` of which are left out already. Of one that is too long the end stays, which asks for the
    /// answer.
    fn tokens_of_chat(&self, conversation: &str, beyond: usize) -> Result<Tokens, String> {
        let encoding = self.inner.encode_fast(conversation, false).map_err(|error| error.to_string())?;
        let mut ids = encoding.get_ids().to_vec();
        let (total, most) = (ids.len() + beyond, self.reading.max_length);
        if ids.len() > most {
            match self.direction {
                TruncationDirection::Right => {
                    ids.truncate(most - self.ending.len());
                    ids.extend(&self.ending);
                }
                TruncationDirection::Left => drop(ids.drain(..ids.len() - most)),
            }
        }
        Ok(self.told(ids, None, total, 0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::utils::truncation::{TruncationParams, TruncationStrategy, truncate_encodings};

    use super::*;

    proptest! {
        #[test]
        fn pairs_are_cut_as_the_crate_cuts_them(query in 0usize..30, document in 0usize..30, max_length in 1usize..30, left: bool) {
            let half = |total: usize| Ids { ids: (0..total as u32).collect(), total };
            let (query, document) = (half(query), half(document));
            let direction = if left { TruncationDirection::Left } else { TruncationDirection::Right };
            for (cut, strategy) in [
                (Cut::Longest, TruncationStrategy::LongestFirst),
                (Cut::First, TruncationStrategy::OnlyFirst),
                (Cut::Second, TruncationStrategy::OnlySecond),
            ] {
                let params = TruncationParams { direction, max_length, strategy, stride: 0 };
                let whole = |half: &Ids| half.encoding(half.total, direction, 0);
                let expected = truncate_encodings(whole(&query), Some(whole(&document)), &params).ok();
                let expected = expected.map(|(one, other)| [Some(one), other].map(|cut| cut.unwrap().get_ids().to_vec()));
                let kept = cut.kept([query.total, document.total], max_length);
                let found = kept.map(|[one, other]| {
                    [query.encoding(one, direction, 0), document.encoding(other, direction, 0)].map(|half| half.get_ids().to_vec())
                });
                prop_assert_eq!(found, expected);
            }
        }
    }
}
