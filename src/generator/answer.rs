//! The answer to a call as it fills: equal texts share one slot.

use std::collections::HashMap;
use std::hash::Hash;

use super::model_cache::{Known, Shape};
use super::{Embedded, Item, Progress};
use crate::embedding::{EmbeddingMatrix, SparseVector, Task, Value};
use crate::error::{Error, Result};

/// The distinct inputs of a call. Each has a slot; the vector of a slot answers all its inputs.
pub(super) struct Distinct {
    /// The first input of each slot.
    pub first: Vec<usize>,
    /// Number of inputs.
    pub total: usize,
    /// All inputs, those of a slot side by side, and where they end; empty where no two are equal.
    inputs: Vec<usize>,
    ends: Vec<usize>,
}

impl Distinct {
    pub fn of<T: Hash + Eq>(contents: impl ExactSizeIterator<Item = T>) -> Self {
        let total = contents.len();
        let mut slot_of: HashMap<T, usize> = HashMap::with_capacity(total);
        let mut first = Vec::with_capacity(total);
        let slots: Vec<usize> = contents
            .enumerate()
            .map(|(index, content)| {
                let slot = *slot_of.entry(content).or_insert(first.len());
                if slot == first.len() {
                    first.push(index);
                }
                slot
            })
            .collect();
        if first.len() == total {
            return Self { first, total, inputs: Vec::new(), ends: Vec::new() };
        }
        let mut ends = vec![0; first.len()];
        slots.iter().for_each(|&slot| ends[slot] += 1);
        let mut end = 0;
        for count in &mut ends {
            (*count, end) = (end, end + *count);
        }
        // Where the inputs of a slot begin becomes where they end, as they come.
        let mut inputs = vec![0; total];
        for (index, &slot) in slots.iter().enumerate() {
            inputs[ends[slot]] = index;
            ends[slot] += 1;
        }
        Self { first, total, inputs, ends }
    }

    /// The inputs of a slot, in their order.
    pub fn inputs(&self, slot: usize) -> &[usize] {
        match self.ends.get(slot) {
            Some(&end) => &self.inputs[slot.checked_sub(1).map_or(0, |before| self.ends[before])..end],
            None => std::slice::from_ref(&self.first[slot]),
        }
    }
}

/// The answer as it fills.
pub(super) struct Answer<'a> {
    distinct: &'a Distinct,
    cut: &'a [bool],
    embedded: Embedded,
    /// What each input has that fits no matrix; empty where all do.
    ragged: Vec<Option<Value>>,
    open: Vec<bool>,
    answered: usize,
    progress: Option<&'a Progress>,
}

impl<'a> Answer<'a> {
    /// # Errors
    /// [`Error::OutOfMemory`] where there is none for all vectors.
    pub fn new(shape: Shape, distinct: &'a Distinct, cut: &'a [bool], progress: Option<&'a Progress>) -> Result<Self> {
        let dense = matches!(shape.task, Task::Embedding | Task::Reranking);
        let rows = if dense { distinct.total } else { 0 };
        Error::require_memory("the vectors of a call", rows.saturating_mul(shape.dimensions), size_of::<f32>())?;
        let embedded = Embedded {
            matrix: EmbeddingMatrix::zeros(rows, shape.dimensions),
            items: vec![Item::default(); distinct.total],
            ..Embedded::default()
        };
        let (ragged, open) = (vec![None; distinct.total - rows], vec![true; distinct.first.len()]);
        Ok(Self { distinct, cut, embedded, ragged, open, answered: 0, progress })
    }

    pub fn commit(&mut self, slot: usize, known: &Known, ms: f64, from_cache: bool) {
        let (inputs, cut) = (self.distinct.inputs(slot), self.cut);
        let share = ms / inputs.len() as f64;
        for &index in inputs {
            match self.ragged.get_mut(index) {
                Some(value) => *value = known.value.made().cloned(),
                None => known.value.copy_to(self.embedded.matrix.row_mut(index)),
            }
            self.embedded.items[index] = Item {
                processing_ms: share,
                token_count: known.about.token_count,
                truncated: known.about.truncated || cut[index],
                confidence: known.about.confidence,
                from_cache,
                error: None,
            };
        }
        self.close(slot);
    }

    pub fn fail(&mut self, slot: usize, error: &Error) {
        for &index in self.distinct.inputs(slot) {
            self.embedded.items[index] = Item { error: Some(error.at(index)), ..Item::default() };
        }
        self.close(slot);
    }

    fn close(&mut self, slot: usize) {
        if std::mem::take(&mut self.open[slot]) {
            self.answered += self.distinct.inputs(slot).len();
        }
    }

    pub fn report(&self) {
        if let Some(progress) = self.progress {
            progress(self.answered, self.distinct.total);
        }
    }

    pub fn finish(mut self, texts: Vec<String>, model_id: String) -> Result<Embedded> {
        if let Some(slot) = self.open.iter().position(|open| *open) {
            let index = self.distinct.first[slot];
            return Err(Error::Internal(format!("the batch of text {index} ended without an answer")));
        }
        let lengths = |value: &Option<Value>| value.as_ref().map_or(0, |value| value.numbers().len());
        let ragged = &mut self.embedded.ragged;
        // Made to measure: growing, it would take up to three times as much.
        ragged.data.reserve_exact(self.ragged.iter().map(lengths).sum());
        for value in self.ragged {
            match value {
                Some(Value::Sparse(SparseVector { indices, values })) => {
                    ragged.indices.extend(indices);
                    ragged.data.extend(values);
                }
                Some(Value::Dense(values) | Value::Tokens(values)) => ragged.data.extend(values),
                // It has an error.
                None => {}
            }
            ragged.ends.push(ragged.data.len());
        }
        self.embedded.texts = texts;
        self.embedded.model_id = model_id;
        Ok(self.embedded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_is_in_the_slot_of_what_it_equals() {
        for contents in ["", "a", "abc", "aaa", "abacbca", "aab", "abb"] {
            let contents = contents.as_bytes();
            let distinct = Distinct::of(contents.iter());
            let slots: Vec<&[usize]> = (0..distinct.first.len()).map(|slot| distinct.inputs(slot)).collect();
            let mut seen: Vec<usize> = slots.concat();
            seen.sort_unstable();
            assert_eq!(seen, (0..contents.len()).collect::<Vec<_>>());
            assert!(distinct.first.is_sorted());
            for (slot, inputs) in slots.into_iter().enumerate() {
                assert_eq!(inputs[0], distinct.first[slot]);
                assert!(inputs.is_sorted());
                let equal = (0..contents.len()).filter(|index| contents[*index] == contents[inputs[0]]);
                assert_eq!(inputs, equal.collect::<Vec<_>>());
            }
        }
    }
}
