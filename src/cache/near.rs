//! Near-match: which entries' vectors point in nearly the same direction.
//!
//! Every vector of a space is compared, which is exact at any size and needs nothing to be kept up to date.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::entry::{Entry, Vector};

/// An entry and how near it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Near {
    /// Cosine of the angle between the two vectors, -1–1.
    pub similarity: f32,
    /// The entry.
    pub entry: Arc<Entry>,
}

/// Collects the nearest of the entries that it is shown.
pub(super) struct Nearest<'a> {
    query: &'a [f32],
    norm: f32,
    threshold: f32,
    limit: usize,
    /// The farthest on top.
    heap: BinaryHeap<Ranked>,
    unpacked: Vec<f32>,
}

struct Ranked(Near);

impl<'a> Nearest<'a> {
    pub fn new(query: &'a [f32], threshold: f32, limit: usize) -> Self {
        let norm = dot(query, query).sqrt();
        Self { query, norm, threshold, limit, heap: BinaryHeap::new(), unpacked: vec![0.0; query.len()] }
    }

    /// Entries without a vector, of another length, or of length zero are near to nothing.
    pub fn show(&mut self, entry: &Arc<Entry>) {
        if entry.vector.len() != self.query.len() || self.limit == 0 {
            return;
        }
        let values = match &entry.vector {
            Vector::F32(values) => values,
            packed @ Vector::F16(_) => {
                packed.copy_to(&mut self.unpacked);
                &self.unpacked[..]
            }
        };
        let norms = self.norm * dot(values, values).sqrt();
        if norms <= 0.0 || !norms.is_finite() {
            return;
        }
        let similarity = (dot(self.query, values) / norms).clamp(-1.0, 1.0);
        let worse = |heap: &BinaryHeap<Ranked>| heap.peek().is_some_and(|last| similarity <= last.0.similarity);
        if similarity < self.threshold || (self.heap.len() == self.limit && worse(&self.heap)) {
            return;
        }
        if self.heap.len() == self.limit {
            self.heap.pop();
        }
        self.heap.push(Ranked(Near { similarity, entry: Arc::clone(entry) }));
    }

    /// The nearest first.
    pub fn finish(self) -> Vec<Near> {
        self.heap.into_sorted_vec().into_iter().map(|ranked| ranked.0).collect()
    }
}

/// Sixteen sums side by side: as wide as the widest registers, and more exact than one.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        // Equal ones in the order of their notes, which begin with the key: the same answer every time.
        let notes = || self.0.entry.note.cmp(&other.0.entry.note);
        other.0.similarity.total_cmp(&self.0.similarity).then_with(notes)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}
