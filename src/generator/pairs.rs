//! Pairs of texts with each distinct text once: what is done for a text is done once, however many pairs have it.

use std::collections::HashMap;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::Subject;

/// Queries, each with a document.
#[derive(Debug, Clone, Default)]
pub struct Pairs {
    /// All distinct texts.
    texts: Vec<String>,
    /// Where the query and the document of each pair are among them.
    places: Vec<[usize; 2]>,
    ranked: bool,
}

impl Pairs {
    /// Pairs of `strings`, of which some may be equal; `places`: where among them the query and the document of each pair are. Pairs of
    /// what is not there are left out.
    pub fn new(strings: Vec<String>, places: impl Iterator<Item = [usize; 2]>) -> Self {
        let mut known: HashMap<&str, usize> = HashMap::with_capacity(strings.len());
        let mut distinct = Vec::with_capacity(strings.len());
        for string in &strings {
            let next = known.len();
            distinct.push(*known.entry(string).or_insert(next));
        }
        let place = |at: usize| distinct.get(at).copied();
        let places = places.filter_map(|[query, document]| Some([place(query)?, place(document)?])).collect();
        let mut texts = Vec::with_capacity(known.len());
        for (string, at) in strings.into_iter().zip(distinct) {
            if at == texts.len() {
                texts.push(string);
            }
        }
        Self { texts, places, ranked: false }
    }

    /// The first of `strings` with each of the others.
    pub fn ranked(strings: Vec<String>) -> Self {
        let documents = 1..strings.len().max(1);
        Self { ranked: true, ..Self::new(strings, documents.map(|document| [0, document])) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// Whether they are documents with one query.
    pub fn are_ranked(&self) -> bool {
        self.ranked
    }

    /// The distinct texts.
    pub(super) fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Where the texts of each pair are among the distinct ones, and so which pairs are equal.
    pub(super) fn places(&self) -> &[[usize; 2]] {
        &self.places
    }

    /// Empties the queries of some pairs.
    pub(super) fn clear(&mut self, indices: &[usize]) {
        let empty = self.texts.iter().position(String::is_empty).unwrap_or(self.texts.len());
        for &index in indices {
            self.places.get_mut(index).into_iter().for_each(|pair| pair[0] = empty);
        }
        if empty == self.texts.len() && !indices.is_empty() {
            self.texts.push(String::new());
        }
    }

    /// The hash of each distinct text.
    pub(super) fn hashes(&self) -> Vec<[u8; 32]> {
        self.texts.par_iter().with_min_len(64).map(|text| Sha256::digest(text).into()).collect()
    }
}

/// What an error about the query or the document of a pair is about.
pub(super) const PARTS: [Subject; 2] = [Subject::QueryOfPair, Subject::DocumentOfPair];

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(strings: &[&str]) -> Vec<String> {
        strings.iter().map(|string| (*string).to_owned()).collect()
    }

    #[test]
    fn equal_texts_are_one() {
        let pairs = Pairs::ranked(owned(&["q", "a", "b", "a", "q"]));
        assert_eq!(pairs.texts(), ["q", "a", "b"]);
        assert_eq!(pairs.places(), [[0, 1], [0, 2], [0, 1], [0, 0]]);
        let pairs = Pairs::new(owned(&["a", "b", "a"]), [[0, 1], [2, 1], [1, 2], [3, 0]].into_iter());
        assert_eq!(pairs.places(), [[0, 1], [0, 1], [1, 0]]);
        assert_eq!(Pairs::ranked(Vec::new()).count(), 0);
    }

    #[test]
    fn a_cleared_pair_has_an_empty_query_and_the_others_keep_theirs() {
        let mut pairs = Pairs::ranked(owned(&["q", "a", "b"]));
        pairs.clear(&[0, 1, 7]);
        assert_eq!((pairs.texts()[pairs.places()[0][0]].as_str(), pairs.texts().len()), ("", 4));
        assert_eq!(pairs.places()[0][0], pairs.places()[1][0]);
    }
}
