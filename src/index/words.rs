//! Text → the words that BM25 compares: identifiers split, stemmed, hashed and counted.

use std::cell::RefCell;
use std::collections::HashMap;

use rust_stemmers::{Algorithm, Stemmer};
use sha2::{Digest, Sha256};
use unicode_segmentation::UnicodeSegmentation;

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
    /// Each stem once, with its count; those of a name first.
    pub stems: Vec<(Stem, u8)>,
    /// Number of words.
    pub length: u16,
    /// How many of the stems are of a declaration's own name, which come first.
    pub own: u8,
    /// How many are of its name and those around it.
    pub named: u8,
    /// Whether it stands aside from what is looked for most: in tests, fixtures and what is generated.
    pub aside: bool,
}

/// Of a bag as it is written: how many stems, how many words, how many are of the names, whether it stands aside.
const HEAD: usize = 7;

impl Bag {
    /// The words of several texts together.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut stems = Vec::new();
        texts.into_iter().for_each(|text| each_stem(text, |stem| stems.push(stem)));
        let length = u16::try_from(stems.len()).unwrap_or(u16::MAX);
        stems.sort_unstable();
        let counted = stems.chunk_by(|a, b| a == b).map(|same| (same[0], u8::try_from(same.len()).unwrap_or(u8::MAX)));
        Self { stems: counted.collect(), length, ..Self::default() }
    }

    /// The words of a declaration: its name after those around it, and `texts`.
    pub fn of_declaration<'a>(name: &'a str, texts: impl IntoIterator<Item = &'a str>, aside: bool) -> Self {
        let mut bag = Self { aside, ..Self::of([name].into_iter().chain(texts)) };
        let own = name.rsplit('.').find(|part| !part.is_empty()).unwrap_or(name);
        bag.own = bag.move_forward(own, 0);
        bag.named = bag.move_forward(name, bag.own);
        bag
    }

    /// Moves the stems of `text` to the place `from`, those that are there already excepted; where they end.
    fn move_forward(&mut self, text: &str, from: u8) -> u8 {
        let mut end = from;
        each_stem(text, |stem| {
            let place = usize::from(end);
            let found = self.stems.iter().position(|(known, _)| *known == stem);
            if let Some(at) = found.filter(|at| *at >= place && end < u8::MAX) {
                self.stems.swap(at, place);
                end += 1;
            }
        });
        end
    }

    /// Appends the bag to `bytes`: its head, the stems, their counts.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        let count = u16::try_from(self.stems.len()).unwrap_or(u16::MAX);
        let stems = &self.stems[..usize::from(count)];
        bytes.extend(count.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes.extend([self.own, self.named, u8::from(self.aside)]);
        stems.iter().for_each(|(stem, _)| bytes.extend(stem.to_le_bytes()));
        bytes.extend(stems.iter().map(|(_, count)| count));
    }
}

/// A bag as it was written.
pub struct BagView<'a> {
    /// Number of words.
    pub length: u16,
    /// As those of a [`Bag`].
    pub own: u8,
    pub named: u8,
    pub aside: bool,
    stems: &'a [u8],
    counts: &'a [u8],
}

impl<'a> BagView<'a> {
    /// Takes the first bag off `bytes`; `None` if they hold none.
    pub fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let count = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let (stems, rest) = rest.split_at_checked(count * 4)?;
        let (counts, rest) = rest.split_at_checked(count)?;
        *bytes = rest;
        let length = u16::from_le_bytes([head[2], head[3]]);
        Some(Self { length, own: head[4], named: head[5], aside: head[6] != 0, stems, counts })
    }

    /// Where `stem` is among its stems, and how often it occurs. Always inlined: as wide as the caller is compiled for.
    #[inline(always)]
    pub fn find(&self, stem: Stem) -> Option<(usize, u8)> {
        let stems = self.stems.as_chunks().0;
        let (eights, rest) = stems.as_chunks::<8>();
        for (at, eight) in eights.iter().enumerate() {
            if holds(eight, stem) {
                return self.first(8 * at, eight, stem);
            }
        }
        match stems.last_chunk::<8>() {
            Some(last) if holds(last, stem) => self.first(stems.len() - 8, last, stem),
            Some(_) => None,
            None => self.first(0, rest, stem),
        }
    }

    /// Where `stem` is among `some`, which are those from `start` on.
    fn first(&self, start: usize, some: &[[u8; 4]], stem: Stem) -> Option<(usize, u8)> {
        let at = start + some.iter().position(|found| Stem::from_le_bytes(*found) == stem)?;
        Some((at, self.counts[at]))
    }
}

/// Whether `stem` is one of eight, which are compared in the time of one.
#[inline(always)]
fn holds(eight: &[[u8; 4]; 8], stem: Stem) -> bool {
    let mut any = 0;
    for found in eight {
        any |= u32::from(Stem::from_le_bytes(*found) == stem);
    }
    any > 0
}

/// What a character is to the splitting of identifiers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Upper,
    Lower,
    /// A letter of a script that has no case.
    Letter,
    Digit,
    /// Between words.
    None,
}

impl Class {
    fn of(character: char) -> Self {
        match character {
            'a'..='z' => Self::Lower,
            'A'..='Z' => Self::Upper,
            '0'..='9' => Self::Digit,
            '\0'..='\x7f' => Self::None,
            _ if character.is_uppercase() => Self::Upper,
            _ if character.is_lowercase() => Self::Lower,
            _ if character.is_alphabetic() => Self::Letter,
            _ if character.is_numeric() => Self::Digit,
            _ => Self::None,
        }
    }

    /// Whether a word begins here. `parseHTMLTree9`: parse, html, tree, 9.
    fn begins(self, before: Self, after: Self) -> bool {
        match self {
            Self::Upper => before != Self::Upper || after == Self::Lower,
            Self::Lower | Self::Letter => before == Self::Digit,
            Self::Digit => before != Self::Digit,
            Self::None => true,
        }
    }
}

/// Calls `found` for each word of `text`: words of any script, split where digits begin or the case changes.
fn each_stem(text: &str, mut found: impl FnMut(Stem)) {
    thread_local! {
        static STEMS: RefCell<Stems> = RefCell::new(Stems::default());
    }
    STEMS.with_borrow_mut(|stems| {
        if text.is_ascii() {
            let class = |at: Option<usize>| {
                at.and_then(|at| text.as_bytes().get(at)).map_or(Class::None, |&byte| Class::of(char::from(byte)))
            };
            for (at, &byte) in text.as_bytes().iter().enumerate() {
                let this = class(Some(at));
                if this.begins(class(at.checked_sub(1)), class(Some(at + 1))) {
                    stems.end_word(&mut found);
                }
                if this != Class::None {
                    stems.word.push(char::from(byte.to_ascii_lowercase()));
                }
            }
            stems.end_word(&mut found);
            return;
        }
        for word in text.split_word_bounds() {
            // A mark belongs to the letter before it.
            let mut letters = word
                .graphemes(true)
                .map(|letter| (letter, letter.chars().next().map_or(Class::None, Class::of)))
                .peekable();
            let mut before = Class::None;
            while let Some((letter, this)) = letters.next() {
                let after = letters.peek().map_or(Class::None, |(_, after)| *after);
                if this.begins(before, after) {
                    stems.end_word(&mut found);
                }
                if this != Class::None {
                    stems.word.extend(letter.chars().flat_map(char::to_lowercase));
                }
                before = this;
            }
            stems.end_word(&mut found);
        }
    });
}

/// The stems of a text in their order, each once.
pub fn distinct_stems(text: &str) -> Vec<Stem> {
    let mut stems = Vec::new();
    each_stem(text, |stem| {
        if !stems.contains(&stem) {
            stems.push(stem);
        }
    });
    stems
}

/// Turns words into stems, one after the other.
struct Stems {
    stemmer: Stemmer,
    known: HashMap<String, Option<Stem>>,
    /// The word so far.
    word: String,
}

impl Default for Stems {
    fn default() -> Self {
        Self { stemmer: Stemmer::create(Algorithm::English), known: HashMap::new(), word: String::new() }
    }
}

impl Stems {
    fn end_word(&mut self, found: &mut impl FnMut(Stem)) {
        if self.word.is_empty() {
            return;
        }
        let word = self.word.as_str();
        let stem = match self.known.get(word) {
            Some(stem) => *stem,
            None => {
                // What has other letters than English has is no English.
                let form = if word.is_ascii() { self.stemmer.stem(word) } else { word.into() };
                let stem = (!STOP_WORDS.contains(&word)).then(|| hash(&form));
                if self.known.len() >= REMEMBERED {
                    self.known.clear();
                }
                self.known.insert(word.to_owned(), stem);
                stem
            }
        };
        stem.into_iter().for_each(found);
        self.word.clear();
    }
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
    }

    #[test]
    fn words_of_any_script_are_words() {
        assert_eq!(stems("naïve Größe"), ["naïve", "größe"].map(hash));
        assert_eq!(stems("größeBerechnen_ÄÖÜFormat2"), ["größe", "berechnen", "äöü", "format", "2"].map(hash));
        assert_eq!(stems("прочитатьФайл(имя)"), ["прочитать", "файл", "имя"].map(hash));
        // Without case and without spaces, each ideograph is a word; a mark belongs to its letter.
        assert_eq!(stems("文字 é"), ["文", "字", "é"].map(hash));
        // Beside other scripts, English is what it is alone.
        assert_eq!(stems("Größe: parsing the HTML-trees"), [hash("größe"), hash("pars"), hash("html"), hash("tree")]);
        assert_eq!(stems("don’t").len(), stems("don't").len());
    }

    #[test]
    fn the_words_of_a_name_come_first() {
        let bag = Bag::of_declaration("Stack.pushAll", ["push one, all of the others on a stack"], true);
        let first = |count: u8| {
            let mut first: Vec<Stem> = bag.stems[..usize::from(count)].iter().map(|(stem, _)| *stem).collect();
            first.sort_unstable();
            first
        };
        let sorted = |words: &[&str]| {
            let mut hashes: Vec<Stem> = words.iter().map(|word| hash(word)).collect();
            hashes.sort_unstable();
            hashes
        };
        assert_eq!(first(bag.own), sorted(&["push", "all"]));
        assert_eq!(first(bag.named), sorted(&["push", "all", "stack"]));
        assert!(bag.aside);
        let mut plain = Bag::of(["Stack.pushAll", "push one, all of the others on a stack"]);
        let mut stems = bag.stems.clone();
        stems.sort_unstable();
        plain.stems.sort_unstable();
        assert_eq!((stems, bag.length), (plain.stems, plain.length));
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
                    prop_assert_eq!(view.find(stem).map(|(_, count)| count), Some(count));
                }
                prop_assert_eq!(view.find(1), None);
            }
            prop_assert!(BagView::read(&mut rest).is_none());
            for end in 0..bytes.len() {
                let mut torn = &bytes[..end];
                while BagView::read(&mut torn).is_some() {}
            }
        }
    }
}
