//! Text → the words that BM25 compares: identifiers split, stemmed, hashed and counted.

use std::cell::RefCell;
use std::collections::HashMap;

use rust_stemmers::{Algorithm, Stemmer};
use sha2::{Digest, Sha256};

/// Words that say nothing about a piece of code.
const STOP_WORDS: [&str; 23] = [
    "a", "an", "the", "of", "to", "in", "for", "and", "or", "is", "are", "be", "this", "that", "it", "by", "with",
    "on", "as", "from", "at", "if", "not",
];

/// Stems that a thread remembers. Code repeats its words, and stemming takes longer than looking one up.
const REMEMBERED: usize = 50_000;

/// A word without its form. Two words of a corpus share one by chance about once in four thousand million.
pub type Stem = u32;

/// How often each stem occurs in a text, and how many words it has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bag {
    /// Each stem once, with its count.
    pub stems: Vec<(Stem, u8)>,
    /// Number of words.
    pub length: u16,
}

impl Bag {
    /// The words of several texts together.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut stems = Vec::new();
        texts.into_iter().for_each(|text| each_stem(text, |stem| stems.push(stem)));
        let length = u16::try_from(stems.len()).unwrap_or(u16::MAX);
        stems.sort_unstable();
        let counted = stems.chunk_by(|a, b| a == b).map(|same| (same[0], u8::try_from(same.len()).unwrap_or(u8::MAX)));
        Self { stems: counted.collect(), length }
    }

    /// Appends the bag to `bytes`: how many stems, how many words, the stems, their counts.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        let count = u16::try_from(self.stems.len()).unwrap_or(u16::MAX);
        let stems = &self.stems[..usize::from(count)];
        bytes.extend(count.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        stems.iter().for_each(|(stem, _)| bytes.extend(stem.to_le_bytes()));
        bytes.extend(stems.iter().map(|(_, count)| count));
    }
}

/// A bag as it was written.
pub struct BagView<'a> {
    /// Number of words.
    pub length: u16,
    stems: &'a [u8],
    counts: &'a [u8],
}

impl<'a> BagView<'a> {
    /// Takes the first bag off `bytes`; `None` if they hold none.
    pub fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(4)?;
        let count = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let (stems, rest) = rest.split_at_checked(count * 4)?;
        let (counts, rest) = rest.split_at_checked(count)?;
        *bytes = rest;
        Some(Self { length: u16::from_le_bytes([head[2], head[3]]), stems, counts })
    }

    /// How often `stem` occurs.
    pub fn count(&self, stem: Stem) -> u8 {
        // Stems are sorted, but there are so few of them that a plain scan is faster.
        let wanted = stem.to_le_bytes();
        self.stems.as_chunks().0.iter().position(|found| *found == wanted).map_or(0, |at| self.counts[at])
    }
}

/// Calls `found` for each word of `text`: runs of ASCII letters or digits, split where the case changes.
fn each_stem(text: &str, mut found: impl FnMut(Stem)) {
    thread_local! {
        static STEMS: RefCell<(Stemmer, HashMap<String, Option<Stem>>)> =
            RefCell::new((Stemmer::create(Algorithm::English), HashMap::new()));
    }
    STEMS.with_borrow_mut(|(stemmer, known)| {
        let mut word = String::new();
        let mut take = |word: &mut String| {
            if word.is_empty() {
                return;
            }
            let stem = match known.get(word.as_str()) {
                Some(stem) => *stem,
                None => {
                    let stem = (!STOP_WORDS.contains(&word.as_str())).then(|| hash(&stemmer.stem(word)));
                    if known.len() >= REMEMBERED {
                        known.clear();
                    }
                    known.insert(word.clone(), stem);
                    stem
                }
            };
            stem.into_iter().for_each(&mut found);
            word.clear();
        };
        let bytes = text.as_bytes();
        for (at, &byte) in bytes.iter().enumerate() {
            let before = at.checked_sub(1).map_or(0, |before| bytes[before]);
            let after = bytes.get(at + 1).copied().unwrap_or(0);
            // parseHTMLTree9: parse, html, tree, 9.
            let boundary = match byte {
                b'A'..=b'Z' => !before.is_ascii_uppercase() || after.is_ascii_lowercase(),
                b'0'..=b'9' => !before.is_ascii_digit(),
                b'a'..=b'z' => before.is_ascii_digit(),
                _ => true,
            };
            if boundary {
                take(&mut word);
            }
            if byte.is_ascii_alphanumeric() {
                word.push(char::from(byte.to_ascii_lowercase()));
            }
        }
        take(&mut word);
    });
}

/// Stable from version to version: stems are stored.
fn hash(word: &str) -> Stem {
    let digest = Sha256::digest(word);
    Stem::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stems(text: &str) -> Vec<Stem> {
        let mut stems = Vec::new();
        each_stem(text, |stem| stems.push(stem));
        stems
    }

    #[test]
    fn identifiers_are_split_and_words_lose_their_form() {
        let expected: Vec<Stem> = ["pars", "html", "tree", "9", "node"].map(hash).into();
        assert_eq!(stems("parseHTMLTree9_nodes"), expected);
        assert_eq!(stems("Parsing the HTML-trees, 9 node"), expected);
        assert!(stems("of the").is_empty());
        assert_eq!(stems("naïve Größe"), ["na", "ve", "gr", "e"].map(hash));
    }

    proptest! {
        #[test]
        fn bags_survive_storage(texts in prop::collection::vec(".{0,60}", 0..5)) {
            let bags: Vec<Bag> = texts.iter().map(|text| Bag::of([text.as_str()])).collect();
            let mut bytes = Vec::new();
            bags.iter().for_each(|bag| bag.write(&mut bytes));
            let mut rest = &bytes[..];
            for bag in &bags {
                let view = BagView::read(&mut rest).unwrap();
                prop_assert_eq!(view.length, bag.length);
                for &(stem, count) in &bag.stems {
                    prop_assert_eq!(view.count(stem), count);
                }
                prop_assert_eq!(view.count(1), 0);
            }
            prop_assert!(BagView::read(&mut rest).is_none());
            for end in 0..bytes.len() {
                let mut torn = &bytes[..end];
                while BagView::read(&mut torn).is_some() {}
            }
        }
    }
}
