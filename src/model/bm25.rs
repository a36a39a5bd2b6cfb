//! Texts → the sparse vectors of BM25, as fastembed makes them for a vector database: how often each word occurs, by its
//! saturation and the length of the text. How rare a word is, the database knows.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use regex::Regex;
use rust_stemmers::{Algorithm, Stemmer};

use super::{Model, ModelInfo, ModelOptions, RunError};
use crate::cancel::Cancel;
use crate::embedding::{Fingerprint, InputType, Modality, SparseVector, Task, Tokens, Value};
use crate::error::{Error, Result};

/// The name of it, where models have theirs.
pub const BM25: &str = "bm25";

/// What is said about BM25.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bm25Options {
    /// How soon more of a word counts no more. Default: 1.2.
    pub k: Option<f64>,
    /// How much the length of a text counts, 0–1. Default: 0.75.
    pub b: Option<f64>,
    /// Words of a text that is neither long nor short. Default: 256.
    pub average_length: Option<f64>,
}

impl Bm25Options {
    /// Refuses all of it, for a model that is another one.
    pub(super) fn refuse(&self) -> Result<()> {
        let given = [("k", self.k), ("b", self.b), ("averageLength", self.average_length)];
        match given.into_iter().find(|(_, given)| given.is_some()) {
            Some((option, _)) => Err(Error::config(option, "it is for modelPath: 'bm25' alone: leave it out")),
            None => Ok(()),
        }
    }
}

/// Refuses what is said about models that have files, or an engine.
pub(super) fn check_options(options: &ModelOptions) -> Result<()> {
    let given = [
        ("revision", options.hub.revision.is_some()),
        ("dtype", options.dtype.is_some()),
        ("maxLength", options.max_length.is_some()),
        ("prompts", options.prompts.document.is_some() || options.prompts.query.is_some()),
        ("intraOpThreads", options.intra_op_threads.is_some()),
        ("executionProviders", !options.providers.is_empty()),
        ("engine", options.engine.is_some()),
        ("precision", options.precision.is_some()),
        ("mixPrecision", options.mix_precision),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Error::config(
            option,
            "bm25 counts words, and has neither files nor an engine nor a limit: leave it out",
        )),
        None => Ok(()),
    }
}

/// Characters of the longest word that counts.
const LONGEST_WORD: usize = 40;

/// Version of all that is done here: part of the fingerprint.
const VERSION: u32 = 1;

/// Letters and digits of any script, as Python sees them.
static WORD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[\p{L}\p{N}_]+").ok());

/// Words of English that say nothing: the list that NLTK has, of which a part with an apostrophe is never a word here.
const STOP_WORDS: [&str; 153] = [
    "i",
    "me",
    "my",
    "myself",
    "we",
    "our",
    "ours",
    "ourselves",
    "you",
    "your",
    "yours",
    "yourself",
    "yourselves",
    "he",
    "him",
    "his",
    "himself",
    "she",
    "her",
    "hers",
    "herself",
    "it",
    "its",
    "itself",
    "they",
    "them",
    "their",
    "theirs",
    "themselves",
    "what",
    "which",
    "who",
    "whom",
    "this",
    "that",
    "these",
    "those",
    "am",
    "is",
    "are",
    "was",
    "were",
    "be",
    "been",
    "being",
    "have",
    "has",
    "had",
    "having",
    "do",
    "does",
    "did",
    "doing",
    "a",
    "an",
    "the",
    "and",
    "but",
    "if",
    "or",
    "because",
    "as",
    "until",
    "while",
    "of",
    "at",
    "by",
    "for",
    "with",
    "about",
    "against",
    "between",
    "into",
    "through",
    "during",
    "before",
    "after",
    "above",
    "below",
    "to",
    "from",
    "up",
    "down",
    "in",
    "out",
    "on",
    "off",
    "over",
    "under",
    "again",
    "further",
    "then",
    "once",
    "here",
    "there",
    "when",
    "where",
    "why",
    "how",
    "all",
    "any",
    "both",
    "each",
    "few",
    "more",
    "most",
    "other",
    "some",
    "such",
    "no",
    "nor",
    "not",
    "only",
    "own",
    "same",
    "so",
    "than",
    "too",
    "very",
    "s",
    "t",
    "can",
    "will",
    "just",
    "don",
    "should",
    "now",
    "d",
    "ll",
    "m",
    "o",
    "re",
    "ve",
    "y",
    "ain",
    "aren",
    "couldn",
    "didn",
    "doesn",
    "hadn",
    "hasn",
    "haven",
    "isn",
    "ma",
    "mightn",
    "mustn",
    "needn",
    "shan",
    "shouldn",
    "wasn",
    "weren",
    "won",
    "wouldn",
];

/// The same, to look words up.
static STOPPED: LazyLock<HashSet<&str>> = LazyLock::new(|| STOP_WORDS.into());

/// What a word weighs by.
struct Weights {
    k: f64,
    b: f64,
    average_length: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { k: 1.2, b: 0.75, average_length: 256.0 }
    }
}

/// BM25 as a model.
pub(super) struct Bm25 {
    weights: Weights,
    stemmer: Stemmer,
    info: ModelInfo,
}

impl Bm25 {
    pub fn new(options: &Bm25Options) -> Self {
        let usual = Weights::default();
        let (k, b) = (options.k.unwrap_or(usual.k), options.b.unwrap_or(usual.b));
        let average_length = options.average_length.unwrap_or(usual.average_length);
        let number = |value: f64| value.to_le_bytes();
        let fingerprint = Fingerprint::builder()
            .field("model", BM25)
            .field("version", VERSION.to_le_bytes())
            .field("k", number(k))
            .field("b", number(b))
            .field("average length", number(average_length))
            .finish();
        let info = ModelInfo {
            model_id: BM25.to_owned(),
            modality: Modality::Text,
            architecture: None,
            task: Task::Sparse,
            labels: Vec::new(),
            sigmoid: false,
            model_path: BM25.to_owned(),
            repository: None,
            revision: None,
            // A word is any number of 31 bits, and the one that has no counterpart.
            dimensions: (1 << 31) + 1,
            max_length: None,
            max_length_from: None,
            pooling: Vec::new(),
            normalize: false,
            output: None,
            dtype: None,
            batch_invariant: true,
            intra_op_threads: 1,
            providers: Vec::new(),
            runtime: BM25.to_owned(),
            compute: None,
            remote: None,
            fingerprint,
        };
        Self { weights: Weights { k, b, average_length }, stemmer: Stemmer::create(Algorithm::English), info }
    }

    fn vector(&self, text: &str, input_type: InputType) -> SparseVector {
        let words = self.words(text);
        let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
        let mut order: Vec<&str> = Vec::new();
        for word in &words {
            *counts.entry(word).or_insert_with(|| {
                order.push(word);
                0.0
            }) += 1.0;
        }
        let Weights { k, b, average_length } = self.weights;
        let length = words.len() as f64;
        let weight = |count: f64| match input_type {
            InputType::Query => 1.0,
            InputType::Document => count * (k + 1.0) / (count + k * (1.0 - b + b * length / average_length)),
        };
        // Of two words with one number, the later one counts.
        let weights: BTreeMap<u32, f32> =
            order.into_iter().map(|word| (number_of(word), weight(counts[word]) as f32)).collect();
        let (indices, values) = weights.into_iter().unzip();
        SparseVector { indices, values }
    }

    fn words(&self, text: &str) -> Vec<String> {
        let text = text.to_lowercase();
        let Some(word) = WORD.as_ref() else { return Vec::new() };
        // A lone underscore is punctuation.
        let counts = |word: &str| {
            word != "_" && !STOPPED.contains(word) && word.chars().take(LONGEST_WORD + 1).count() <= LONGEST_WORD
        };
        let words = word.find_iter(&text).map(|found| found.as_str()).filter(|word| counts(word));
        words.map(|word| self.stemmer.stem(word).into_owned()).filter(|stem| !stem.is_empty()).collect()
    }
}

/// The number that stands for a word: its MurmurHash3 as a signed number, without its sign.
fn number_of(word: &str) -> u32 {
    (murmur3(word.as_bytes()) as i32).unsigned_abs()
}

/// MurmurHash3 of 32 bits, for x86, with the seed 0.
fn murmur3(bytes: &[u8]) -> u32 {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    let mix = |block: u32| block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = 0_u32;
    for block in blocks {
        hash = (hash ^ mix(u32::from_le_bytes(*block))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let last = tail.iter().rev().fold(0_u32, |last, byte| last << 8 | u32::from(*byte));
    hash ^= mix(last);
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

impl Model for Bm25 {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn run(&self, batch: &[&Tokens], _cancel: &Cancel) -> Result<Vec<Value>, RunError> {
        let text = |tokens: &&Tokens| self.vector(tokens.text.as_deref().unwrap_or_default(), tokens.input_type);
        Ok(batch.iter().map(text).map(Value::Sparse).collect())
    }

    fn bytes(&self, rows: usize, longest: usize) -> u64 {
        (rows * longest * 64) as u64
    }

    fn parallel(&self, cores: usize) -> usize {
        cores.max(1)
    }

    fn most_rows(&self) -> usize {
        usize::MAX
    }

    fn most_weight(&self) -> Option<usize> {
        // There is nothing to be gained by more.
        Some(1 << 16)
    }

    fn shrink(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_reference() {
        for (word, hash) in [("", 0), ("hello", 613_153_351), ("test", -1_167_338_989_i32 as u32), ("a", 1_009_084_850)]
        {
            assert_eq!(murmur3(word.as_bytes()), hash, "{word}");
        }
    }
}
