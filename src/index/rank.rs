//! Which declarations answer a query best: by meaning (cosine of vectors), by words (BM25's saturation) and by name, added up.
//!
//! `score = 0.7 × max(0, cosine) + 0.22 × words + 0.08 × name`, where `words` is the mean over the words of the query of
//! `n / (n + k₁ (1 − b + b × length / 60))`, 0 for a word that is not there, and `name` is the share of the query's first four words
//! that are in the declaration's own name. All are from 0 to 1, and so is the score. What a word weighs in both is 1, and less only
//! where it is frequent in the index: a score means the same, whatever else is indexed.
//!
//! A declaration whose name is the query comes first: `0.9 + 0.1 × score`. What is in tests, in fixtures or generated comes behind what
//! is as good, `0.9 × score`, unless the query is about such.

use rayon::prelude::*;

use super::scan::{Block, Scanned, scan};
use super::words::{Bag, Stem, distinct_stems};
use crate::error::Result;
use crate::host::threads::in_parallel;

/// BM25's parameters. A word that is there says most, whether it is there again says little: with 1.5, as is usual, descriptions are
/// found less well.
const K1: f32 = 0.5;
const B: f32 = 0.75;

/// Shares of the words and of the name in a score. They, and the weights below, were chosen on the projects that were held out of
/// training, by a model that had not seen these: MRR@10 0.786 instead of 0.765 by the cosine alone, and 0.776 with 0.15 for the words and
/// nothing for the name. On the development projects it is 0.825, by the cosine alone 0.818, and was 0.824 with 0.15.
const WORDS_SHARE: f32 = 0.22;
const NAME_SHARE: f32 = 0.08;

/// So many words at the beginning of a query may be in a name: descriptions begin with what is done, and to what.
const FIRST_WORDS: usize = 4;

/// What the score of a declaration has at least whose name is the query.
const NAMED: f32 = 0.9;

/// What stands aside is worth so much of what does not. In whole trees of five development projects without their comments, the MRR@10 of
/// 750 descriptions is 0.595 with it, 0.570 without. (A share of the score for the words of the name made it 0.002 worse.)
const ASIDE: f32 = 0.9;

/// Words of queries that are about what stands aside.
const ABOUT_ASIDE: [&str; 9] =
    ["test", "tests", "spec", "mock", "fixture", "benchmark", "example", "generated", "assert"];

/// How long a declaration is that is neither long nor short, in words.
const USUAL_LENGTH: f32 = 60.0;

/// A word in one of so many declarations weighs half; a smaller index tells nothing about what is frequent.
const FREQUENT: f32 = 20.0;
const FEW_DECLARATIONS: f32 = 300.0;

/// How much of a query is looked for by its words, in bytes.
const MAX_WORDS: usize = 500;

/// Blocks that are scanned at once by one thread.
const PART: usize = 64;

/// A declaration that answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The file's id in the store.
    pub file: i64,
    /// That of its block.
    pub described: i64,
    /// The declaration's position in its file.
    pub ordinal: usize,
    /// What it is ranked by.
    pub score: f32,
    /// Cosine of its vector and the query's.
    pub similarity: f32,
}

/// The scores of all declarations for a query.
pub struct Ranking<'a> {
    parts: Vec<(Scanned<'a>, Vec<f32>)>,
}

impl<'a> Ranking<'a> {
    /// Scores each declaration for a query: its `vector`, of length 1 as all vectors, and its `words`. What a word weighs is counted in
    /// all of them. Without `words`, meaning alone counts.
    ///
    /// # Errors
    /// [`Error::Threads`](crate::error::Error::Threads).
    pub fn of(blocks: &'a [Block], vector: &[f32], words: Option<&str>) -> Result<Self> {
        // Longer queries have their meaning; looking for each of their words would take long.
        let stems = distinct_stems(words.map_or("", beginning));
        in_parallel(|| {
            let scanned: Vec<Scanned> = blocks.par_chunks(PART).map(|part| scan(part, vector, &stems)).collect();
            let formula = Formula::of(&scanned, &stems, words.is_some());
            let scored = |part: Scanned<'a>| {
                let scores = formula.scores(&part);
                (part, scores)
            };
            Self { parts: scanned.into_par_iter().map(scored).collect() }
        })
    }

    /// The `limit` best declarations, best first, of those that `admits` lets in by their file and their position in it: a filter
    /// changes no score.
    ///
    /// # Errors
    /// [`Error::Threads`](crate::error::Error::Threads).
    pub fn best(&self, limit: usize, admits: impl Fn(i64, usize) -> bool + Sync) -> Result<Vec<Hit>> {
        let of_parts = || self.parts.par_iter().flat_map_iter(|part| Best::of_part(part, limit, &admits).hits);
        let mut best = Best { limit, hits: in_parallel(|| of_parts().collect())?, least: f32::NEG_INFINITY };
        best.cut();
        best.hits.sort_by(order);
        Ok(best.hits)
    }
}

/// Equal scores keep the order of the files, so that a search gives the same answer each time.
fn order(a: &Hit, b: &Hit) -> std::cmp::Ordering {
    let better = b.score.total_cmp(&a.score).then(b.similarity.total_cmp(&a.similarity));
    better.then(a.file.cmp(&b.file)).then(a.ordinal.cmp(&b.ordinal))
}

/// The best hits so far.
struct Best {
    limit: usize,
    hits: Vec<Hit>,
    /// What is worse than this is none of them.
    least: f32,
}

impl Best {
    fn of_part((part, scores): &(Scanned, Vec<f32>), limit: usize, admits: &impl Fn(i64, usize) -> bool) -> Self {
        let mut best = Self { limit, hits: Vec::new(), least: f32::NEG_INFINITY };
        let mut rows = scores.iter().zip(&part.similarities);
        for (&Block { file, described, .. }, &count) in part.blocks.iter().zip(&part.counts) {
            for (ordinal, (&score, &similarity)) in rows.by_ref().take(count).enumerate() {
                if score >= best.least && admits(file, ordinal) {
                    best.hits.push(Hit { file, described, ordinal, score, similarity });
                    if best.hits.len() >= limit.saturating_mul(2) {
                        best.cut();
                    }
                }
            }
        }
        best.cut();
        best
    }

    /// Drops all but the best.
    fn cut(&mut self) {
        if self.limit < self.hits.len() {
            self.hits.select_nth_unstable_by(self.limit, order);
            self.hits.truncate(self.limit);
            self.least = self.hits.iter().map(|hit| hit.score).fold(f32::INFINITY, f32::min);
        }
    }
}

/// What a score is made of.
struct Formula {
    by_words: bool,
    /// Whether what stands aside is worth as much as what does not.
    aside_counts: bool,
    /// What each stem of the query weighs.
    weights: Vec<f32>,
}

impl Formula {
    fn of(parts: &[Scanned], stems: &[Stem], by_words: bool) -> Self {
        let about = Bag::of(ABOUT_ASIDE);
        let aside_counts = !by_words || stems.iter().any(|stem| about.stems.iter().any(|(other, _)| stem == other));
        let declarations: usize = parts.iter().map(|part| part.similarities.len()).sum();
        let total = (declarations as f32).max(FEW_DECLARATIONS) + FREQUENT;
        let mut holds = vec![0usize; stems.len()];
        for counts in parts.iter().flat_map(|part| part.occurrences.chunks_exact(stems.len().max(1))) {
            holds.iter_mut().zip(counts).for_each(|(holds, &count)| *holds += usize::from(count > 0));
        }
        let weights = holds.into_iter().map(|holds| 1.0 / (1.0 + FREQUENT * holds as f32 / total)).collect();
        Self { by_words, aside_counts, weights }
    }

    /// The score of each declaration of `part`.
    fn scores(&self, part: &Scanned) -> Vec<f32> {
        let meanings = part.similarities.iter().map(|similarity| similarity.max(0.0));
        if !self.by_words {
            return meanings.collect();
        }
        let mut scores: Vec<f32> = meanings.map(|meaning| (1.0 - WORDS_SHARE - NAME_SHARE) * meaning).collect();
        let all = self.weights.iter().sum::<f32>().max(f32::MIN_POSITIVE);
        let first = &self.weights[..self.weights.len().min(FIRST_WORDS)];
        let of_first = |bits: u8| {
            let those = first.iter().enumerate().filter(|(at, _)| bits >> at & 1 > 0);
            those.map(|(_, weight)| weight).sum::<f32>()
        };
        let all_first = of_first(u8::MAX).max(f32::MIN_POSITIVE);
        let occurrences = part.occurrences.chunks_exact(self.weights.len().max(1));
        for (matched, counts) in part.matched.iter().zip(occurrences) {
            let length = f32::from(matched.length);
            let found = counts.iter().zip(&self.weights).map(|(&count, weight)| {
                let count = f32::from(count);
                weight * count / (count + K1 * (1.0 - B + B * length / USUAL_LENGTH))
            });
            let score = &mut scores[matched.row];
            *score += WORDS_SHARE * (found.sum::<f32>() / all) + NAME_SHARE * (of_first(matched.in_name) / all_first);
            if matched.is_named {
                *score = NAMED + (1.0 - NAMED) * *score;
            }
        }
        for (score, &aside) in scores.iter_mut().zip(&part.aside) {
            let worth = if aside && !self.aside_counts { ASIDE } else { 1.0 };
            *score = (worth * *score).clamp(0.0, 1.0);
        }
        scores
    }
}

/// As much of a query as is looked for by its words. A word that would be cut is none.
fn beginning(query: &str) -> &str {
    let cut = &query[..query.floor_char_boundary(MAX_WORDS)];
    let whole = if cut.len() < query.len() { cut.rfind(char::is_whitespace) } else { None };
    &cut[..whole.unwrap_or(cut.len())]
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;

    fn rank(
        blocks: &[Block],
        vector: &[f32],
        words: Option<&str>,
        limit: usize,
        admits: impl Fn(i64, usize) -> bool + Sync,
    ) -> Result<Vec<Hit>> {
        Ranking::of(blocks, vector, words)?.best(limit, admits)
    }

    fn block(file: i64, declarations: &[([f32; 2], &str)]) -> Block {
        let mut bags = Vec::new();
        declarations.iter().for_each(|(_, words)| Bag::of([*words]).write(&mut bags));
        let vectors = declarations.iter().flat_map(|(vector, _)| vector.map(f16::from_f32)).collect();
        Block { file, described: 0, vectors, bags, contents: Vec::new() }
    }

    #[test]
    fn a_score_is_the_documented_formula() {
        let blocks = [block(1, &[([0.6, 0.8], "open file file"), ([-0.6, 0.8], "close socket")])];
        let hits = rank(&blocks, &[1.0, 0.0], Some("files opened"), 10, |_, _| true).unwrap();
        let present = |count: f32| count / (count + 0.5 * (0.25 + 0.75 * 3.0 / 60.0));
        let expected = 0.7 * 0.6 + 0.22 * (present(1.0) + present(2.0)) / 2.0;
        assert!((hits[0].score - expected).abs() < 1e-3, "{hits:?}");
        assert_eq!((hits[0].ordinal, hits[1].score), (0, 0.0));
    }

    #[test]
    fn a_score_means_the_same_whatever_else_is_indexed() {
        let wanted = block(1, &[([0.8, 0.6], "parse json text")]);
        let score = |others: usize| {
            let other = block(2, &vec![([0.1, 0.9], "close the socket"); others]);
            let blocks = [block(1, &[([0.8, 0.6], "parse json text")]), other];
            rank(&blocks, &[1.0, 0.0], Some("parse some json"), 1, |_, _| true).unwrap()[0].score
        };
        let alone = rank(&[wanted], &[1.0, 0.0], Some("parse some json"), 1, |_, _| true).unwrap()[0].score;
        for others in [1, 10, 1000, 20_000] {
            assert!((score(others) - alone).abs() < 0.01, "{alone} alone, {} beside {others} others", score(others));
        }
    }

    #[test]
    fn no_score_is_above_one() {
        let text = "retry ".repeat(300);
        let blocks = [block(1, &[([1.0, 0.0], text.as_str()), ([1.0, 0.0], "retry")])];
        let hits = rank(&blocks, &[1.0, 0.0], Some(&text), 10, |_, _| true).unwrap();
        assert!(hits.iter().all(|hit| hit.score > 0.85 && hit.score <= 1.0), "{hits:?}");
    }

    #[test]
    fn meaning_and_words_both_count() {
        let blocks = [block(1, &[([0.6, 0.8], "alpha")]), block(2, &[([0.6, 0.8], "beta"), ([1.0, 0.0], "gamma")])];
        let order = |words| {
            let hits = rank(&blocks, &[1.0, 0.0], Some(words), 9, |_, _| true).unwrap();
            hits.iter().map(|hit| (hit.file, hit.ordinal)).collect::<Vec<_>>()
        };
        assert_eq!(order("beta"), [(2, 1), (2, 0), (1, 0)]);
        assert_eq!(order(""), [(2, 1), (1, 0), (2, 0)]);
        assert!(rank(&[], &[1.0, 0.0], Some("x"), 5, |_, _| true).unwrap().is_empty());
        assert!(rank(&blocks, &[1.0, 0.0], Some("x"), 0, |_, _| true).unwrap().is_empty());
    }

    fn declaration(name: &str, vector: [f32; 2], aside: bool) -> Block {
        let mut bags = Vec::new();
        Bag::of_declaration(name, ["open the file and read all of it"], aside).write(&mut bags);
        Block { file: 1, described: 0, vectors: vector.map(f16::from_f32).into(), bags, contents: Vec::new() }
    }

    #[test]
    fn a_declaration_whose_name_is_the_query_comes_first() {
        let score = |name: &str, words: &str| {
            let blocks = [declaration(name, [0.6, 0.8], false)];
            rank(&blocks, &[1.0, 0.0], Some(words), 1, |_, _| true).unwrap()[0].score
        };
        for words in ["readLines", "read_line", "the lines read", "File.readLines", "file readLines"] {
            assert!(score("File.readLines", words) > 0.9, "{words}");
        }
        for words in ["file", "read", "File", "readLines of all", ""] {
            assert!(score("File.readLines", words) < 0.9, "{words}");
        }
        // A name without words is none.
        assert!(score("of", "of") < 0.9);
    }

    #[test]
    fn the_first_words_of_a_query_count_where_they_are_in_the_name() {
        let score = |name: &str, words: &str| {
            let mut bags = Vec::new();
            Bag::of_declaration(name, ["loads the settings that a user keeps, file by file"], false).write(&mut bags);
            let vectors = [0.6, 0.8].map(f16::from_f32).into();
            let blocks = [Block { file: 1, described: 0, vectors, bags, contents: Vec::new() }];
            rank(&blocks, &[1.0, 0.0], Some(words), 1, |_, _| true).unwrap()[0].score
        };
        let query = "load the settings of users, kept in files";
        let none = score("Unrelated.other", query);
        let one = score("Unrelated.load", query) - none;
        let two = score("load.loadSettings", query) - none;
        assert!(one > 0.0 && two > 1.5 * one, "{one} {two}");
        assert!((two - NAME_SHARE / 2.0).abs() < 0.02, "{two}");
        // What comes late in a query says little about a name, and what is around a declaration is not its name.
        assert!(score("Unrelated.file", query) - none < one / 4.0);
        assert!(score("Load.other", query) - none < one / 4.0);
    }

    #[test]
    fn what_stands_aside_comes_behind_unless_it_is_asked_for() {
        let score = |aside, words: &str| {
            let blocks = [declaration("openFile", [0.6, 0.8], aside)];
            rank(&blocks, &[1.0, 0.0], Some(words), 1, |_, _| true).unwrap()[0].score
        };
        assert!((score(true, "read it") - ASIDE * score(false, "read it")).abs() < 1e-6);
        assert_eq!(score(true, "tests that read it"), score(false, "tests that read it"));
        let nearest =
            |aside| rank(&[declaration("a", [0.6, 0.8], aside)], &[1.0, 0.0], None, 1, |_, _| true).unwrap()[0];
        assert_eq!(nearest(true).score, nearest(false).score);
    }

    #[test]
    fn a_filter_changes_no_score() {
        let blocks = [block(1, &[([0.6, 0.8], "open file")]), block(2, &[([1.0, 0.0], "open socket")])];
        let all = rank(&blocks, &[1.0, 0.0], Some("open"), 9, |_, _| true).unwrap();
        let some = rank(&blocks, &[1.0, 0.0], Some("open"), 9, |file, _| file == 1).unwrap();
        assert_eq!(some, all.into_iter().filter(|hit| hit.file == 1).collect::<Vec<_>>());
        assert_eq!(some.len(), 1);
    }

    proptest! {
        #[test]
        fn a_limit_gives_the_beginning_of_the_whole_list(
            values in prop::collection::vec((-4i8..4, "[ab]{0,2}"), 0..40), limit in 0usize..45,
        ) {
            let declarations: Vec<([f32; 2], &str)> =
                values.iter().map(|(value, words)| ([f32::from(*value), 1.0], words.as_str())).collect();
            let blocks: Vec<Block> =
                declarations.chunks(3).enumerate().map(|(file, part)| block(file as i64, part)).collect();
            let all = rank(&blocks, &[0.25, 0.5], Some("a ab"), usize::MAX, |_, _| true).unwrap();
            prop_assert_eq!(all.len(), values.len());
            prop_assert!(all.is_sorted_by(|a, b| a.score >= b.score));
            prop_assert_eq!(&rank(&blocks, &[0.25, 0.5], Some("a ab"), limit, |_, _| true).unwrap()[..], &all[..limit.min(all.len())]);
        }
    }
}
