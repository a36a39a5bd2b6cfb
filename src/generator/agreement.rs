//! Whether two ways of computing a model agree: what each gives for built-in texts.

use std::sync::Arc;

use crate::cancel::Cancel;
use crate::embedding::{InputType, Task, Tokens, Value};
use crate::error::Result;
use crate::model::{Model, ModelInfo};
use crate::tokens::Tokenizer;

/// Least cosine of a vector to that of the reference: of a text's, of its weights of tokens, or of each of its tokens'.
const LEAST_COSINE: f64 = 0.9999;

/// By how much a score may differ from that of the reference, both as a number from 0 to 1 and as a share of how far the scores of the
/// built-in pairs lie apart: two documents that differ by more than twice as much keep their order, wherever the scores lie.
const MOST_DIFFERENCE: f64 = 0.01;

/// What is read in both ways: words, prose, code and other scripts, from two tokens to some hundreds.
const PROBES: [&str; 8] = [
    "cache",
    "How do I read a file line by line?",
    "Signature: parseConfig(path: string): Config | Summary: Reads the file and checks every field of it.",
    "Die Katze schläft auf dem Sofa, während draußen der Regen fällt. 東京は今日も晴れです。 Ça va très bien, merci !",
    "SELECT id, name, created_at FROM users WHERE created_at > NOW() - INTERVAL '7 days' ORDER BY created_at DESC LIMIT 50;",
    "The committee met on 14 March 2019 to discuss the budget for the coming year, which had grown by 3.5 % since the last \
     meeting. After two hours of debate, members agreed to postpone the vote until more figures about the cost of the new \
     building were available, and asked the treasurer for a report by the end of the month.",
    "export async function retry<T>(work: () => Promise<T>, { attempts = 3, delayMs = 100 }: RetryOptions = {}): Promise<T> { \
     for (let attempt = 1; ; attempt++) { try { return await work(); } catch (error) { if (attempt >= attempts) throw error; \
     await new Promise((resolve) => setTimeout(resolve, delayMs * 2 ** attempt)); } } } // Doubles the delay with every \
     attempt, and gives up with the last error. Callers that want another schedule pass a function instead of a number.",
    "A hash table stores pairs of keys and values. The key is turned into a number by a hash function, and that number, taken \
     modulo the size of the table, says in which slot the pair is kept. Two keys may fall into the same slot; then the \
     table either keeps a list of pairs for each slot, or looks for the next slot that is free. As long as the table is \
     not too full, a lookup takes the same time however many pairs there are. When more than about three quarters of the \
     slots are in use, the table is made twice as large and all pairs are put into their new slots, which takes time in \
     proportion to their number, but happens so rarely that the cost of each insertion is constant on the average. \
     def insert(self, key, value): index = hash(key) % len(self.slots); self.slots[index].append((key, value)); self.count \
     += 1; if self.count > 0.75 * len(self.slots): self.grow(). Ordered trees need more time for a lookup, but can give \
     all pairs in the order of their keys, and the pairs between two keys; databases use them for their indexes.",
];

/// What a reranker is asked about each of them: one of them answers each.
const QUERIES: [&str; 2] = [
    "how does a hash table find the slot of a key?",
    "function that tries again and doubles the delay after each error",
];

/// What a model is tried with.
pub(super) struct Probes {
    tokens: Vec<Tokens>,
    task: Task,
    /// How many values a vector of a token has.
    dimensions: usize,
}

impl Probes {
    /// As a model reads them, but for what it cannot read.
    pub fn new(tokenizer: &Tokenizer, info: &ModelInfo) -> Self {
        let text = |text: &&str| tokenizer.encode(0, InputType::Document, text).ok();
        let pair = |query, document| {
            let halves = [query, document].map(|text| tokenizer.encode_half(text));
            let [Ok(query), Ok(document)] = halves else { return None };
            tokenizer.encode_pair(&query, &document).ok()
        };
        let tokens = match info.task {
            Task::Reranking => QUERIES
                .iter()
                .flat_map(|query| PROBES.iter().filter_map(move |document| pair(query, document)))
                .collect(),
            Task::Embedding | Task::Sparse | Task::MultiVector => PROBES.iter().filter_map(text).collect(),
        };
        Self { tokens, task: info.task, dimensions: info.dimensions.max(1) }
    }

    /// What a model gives for them, one by one.
    pub fn run(&self, model: &Arc<dyn Model>, cancel: &Cancel) -> Result<Vec<Value>> {
        let one = |tokens| model.run(&[tokens], cancel).map_err(|failed| failed.error);
        let all = self.tokens.iter().map(one).collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().flatten().collect())
    }

    /// How near what another way gives is to the reference, in words; or why that is not near enough.
    pub fn agreement(&self, reference: &[Value], other: &[Value]) -> Result<String, String> {
        if self.task == Task::Reranking {
            let found = ceiling(difference(reference, other));
            if found <= MOST_DIFFERENCE {
                return Ok(format!("its scores differ by {found} at the most"));
            }
            return Err(format!("its scores differ by {found}, and {MOST_DIFFERENCE} at the most is wanted"));
        }
        let cosines = reference.iter().zip(other).flat_map(|(one, other)| self.cosines(one, other));
        // A cosine that is no number is none at all.
        let least = cosines.fold(1.0, |least: f64, one| if one < least || one.is_nan() { one } else { least });
        let found = floor(least);
        if least >= LEAST_COSINE {
            return Ok(format!("agrees to a cosine of {found}"));
        }
        Err(format!("its vectors agree to a cosine of {found}, and {LEAST_COSINE} is needed"))
    }

    /// Of the vectors of one text.
    fn cosines(&self, one: &Value, other: &Value) -> Vec<f64> {
        match (one, other) {
            (Value::Sparse(a), Value::Sparse(b)) => {
                let shared = a.indices.iter().zip(&a.values).filter_map(|(index, value)| {
                    let at = b.indices.binary_search(index).ok()?;
                    Some(f64::from(*value) * f64::from(b.values[at]))
                });
                let squares = |values: &[f32]| values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
                vec![quotient(shared.sum(), squares(&a.values) * squares(&b.values), a == b)]
            }
            (Value::Tokens(a), Value::Tokens(b)) if a.len() == b.len() => {
                let rows = a.chunks_exact(self.dimensions).zip(b.chunks_exact(self.dimensions));
                rows.map(|(a, b)| cosine(a, b)).collect()
            }
            (one, other) if one.numbers().len() == other.numbers().len() => {
                vec![cosine(one.numbers(), other.numbers())]
            }
            _ => vec![0.0],
        }
    }
}

/// The largest difference of scores, of those for each label.
fn difference(reference: &[Value], other: &[Value]) -> f64 {
    let labels = reference.first().map_or(0, |value| value.numbers().len());
    let column = |values: &[Value], label: usize| -> Vec<f64> {
        values.iter().map(|value| value.numbers().get(label).map_or(f64::NAN, |score| f64::from(*score))).collect()
    };
    let sigmoid = |score: f64| 1.0 / (1.0 + (-score).exp());
    let of_label = |label| {
        let (one, other) = (column(reference, label), column(other, label));
        let least = one.iter().copied().fold(f64::INFINITY, f64::min);
        let apart = one.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least;
        let pairs = one.into_iter().zip(other);
        pairs.flat_map(move |(one, other)| {
            let off = (one - other).abs();
            [(sigmoid(one) - sigmoid(other)).abs(), if off == 0.0 { 0.0 } else { off / apart }]
        })
    };
    // What is no number differs by all there is.
    let worst = |most: f64, one: f64| if one.is_nan() { f64::INFINITY } else { most.max(one) };
    if reference.len() != other.len() {
        return f64::INFINITY;
    }
    (0..labels).flat_map(of_label).fold(0.0, worst)
}

/// Five digits, never rounded up.
fn floor(cosine: f64) -> f64 {
    (cosine * 1e5).floor() / 1e5
}

/// Four digits, never rounded down.
fn ceiling(difference: f64) -> f64 {
    (difference * 1e4).ceil() / 1e4
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    quotient(dot(one, other), dot(one, one) * dot(other, other), one == other)
}

/// A cosine by a dot product and the squares of the lengths. Two vectors of zeros are the same.
fn quotient(dot: f64, squares: f64, equal: bool) -> f64 {
    match squares.sqrt() {
        norms if norms > 0.0 => dot / norms,
        _ if equal => 1.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedding::SparseVector;

    fn probes(task: Task, dimensions: usize) -> Probes {
        Probes { tokens: Vec::new(), task, dimensions }
    }

    fn scores(scores: &[f32]) -> Vec<Value> {
        scores.iter().map(|score| Value::Dense(vec![*score])).collect()
    }

    #[test]
    fn scores_may_differ_by_little_as_they_are_shown_and_among_each_other() {
        let of = |one: &[f32], other: &[f32]| probes(Task::Reranking, 1).agreement(&scores(one), &scores(other));
        assert_eq!(of(&[-4.0, 0.0, 4.0], &[-4.0, 0.01, 4.0]).unwrap(), "its scores differ by 0.0025 at the most");
        assert_eq!(
            of(&[-4.0, 0.0, 4.0], &[-4.0, 0.05, 4.0]).unwrap_err(),
            "its scores differ by 0.0125, and 0.01 at the most is wanted"
        );
        // Numbers from 0 to 1 would not tell these apart, an order does.
        assert!(of(&[-20.0, -20.1], &[-20.0, -20.11]).is_err());
        assert!(of(&[1.0, 1.0], &[1.0, 1.0]).is_ok());
        for other in [&[f32::NAN, 4.0][..], &[4.0], &[f32::INFINITY, 4.0]] {
            assert!(of(&[-4.0, 4.0], other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn each_label_is_compared_by_itself() {
        let of = |one: [f32; 4], other: [f32; 4]| {
            let values =
                |all: [f32; 4]| all.chunks_exact(2).map(|pair| Value::Dense(pair.to_vec())).collect::<Vec<_>>();
            probes(Task::Reranking, 2).agreement(&values(one), &values(other)).is_ok()
        };
        assert!(of([0.0, 100.0, 1.0, 100.0], [0.0, 100.0, 1.0, 100.0]));
        assert!(!of([0.0, -100.0, 1.0, 100.0], [0.0, -100.0, 1.1, 100.0]));
    }

    #[test]
    fn vectors_of_all_kinds_are_compared_by_their_cosines() {
        let sparse = |values: &[f32]| {
            vec![Value::Sparse(SparseVector { indices: (0..values.len() as u32).collect(), values: values.to_vec() })]
        };
        let of_tokens = |values: &[f32]| vec![Value::Tokens(values.to_vec())];
        let near = |task, one: Vec<Value>, other: Vec<Value>| probes(task, 2).agreement(&one, &other);
        assert_eq!(near(Task::Sparse, sparse(&[1.0, 2.0]), sparse(&[1.0, 2.0])).unwrap(), "agrees to a cosine of 1");
        assert!(near(Task::Sparse, sparse(&[1.0, 2.0]), sparse(&[1.0])).is_err());
        assert!(near(Task::Sparse, sparse(&[]), sparse(&[])).is_ok());
        // Of four vectors, one is another.
        let found = near(Task::MultiVector, of_tokens(&[1.0, 0.0, 0.0, 1.0]), of_tokens(&[1.0, 0.0, 1.0, 0.0]));
        assert_eq!(found.unwrap_err(), "its vectors agree to a cosine of 0, and 0.9999 is needed");
        assert!(near(Task::MultiVector, of_tokens(&[1.0, 0.0]), of_tokens(&[1.0, 0.0, 0.0, 1.0])).is_err());
        let dense = |values: &[f32]| vec![Value::Dense(values.to_vec())];
        assert!(near(Task::Embedding, dense(&[3.0, 4.0]), dense(&[3.0, f32::NAN])).is_err());
    }
}
