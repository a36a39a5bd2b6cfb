//! Hidden states → a vector for each token that counts (ColBERT): projection, length 1, and fewer of them by clustering. Pure
//! arithmetic.

use super::pooling::{Layer, normalize};
use crate::embedding::{InputType, Tokens, Value};

/// How the vectors of a text's tokens are made.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct LateInteraction {
    /// What is done with each, one after the other.
    pub layers: Vec<Layer>,
    /// Whether each is scaled to length 1.
    pub normalize: bool,
    pub shrink: Shrink,
}

/// How many of a document's vectors are kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shrink {
    /// One of so many; 1 keeps all of them.
    pub factor: usize,
    /// The first ones, which are kept as they are.
    pub kept: usize,
}

impl Default for Shrink {
    fn default() -> Self {
        Self { factor: 1, kept: 1 }
    }
}

impl LateInteraction {
    /// The vectors of one text: `hidden` holds those of its tokens, one after the other, padding excluded.
    pub fn apply(&self, hidden: &[f32], width: usize, tokens: &Tokens) -> Value {
        let all: Vec<&[f32]> = hidden.chunks_exact(width).collect();
        let counted: Vec<&[f32]> = match &tokens.counted {
            None => all,
            Some(counted) => counted.iter().filter_map(|&at| all.get(at as usize).copied()).collect(),
        };
        let vectors: Vec<Vec<f32>> = counted.into_iter().map(|token| self.project(token)).collect();
        let vectors = match tokens.input_type {
            InputType::Document => self.shrink.apply(vectors),
            InputType::Query => vectors,
        };
        Value::Tokens(vectors.concat())
    }

    fn project(&self, token: &[f32]) -> Vec<f32> {
        let mut vector = token.to_vec();
        self.layers.iter().for_each(|layer| layer.apply(&mut vector));
        if self.normalize {
            normalize(&mut vector);
        }
        vector
    }

    /// Bytes that making fewer vectors of `longest` takes: one text comes after the other.
    pub fn bytes(&self, longest: usize) -> usize {
        if self.shrink.factor > 1 { longest.saturating_mul(longest).saturating_mul(size_of::<f64>()) } else { 0 }
    }

    /// Length of the vectors, for a graph whose output is `width` wide.
    pub fn width(&self, width: usize) -> Result<usize, String> {
        self.layers.iter().try_fold(width, |width, layer| layer.width(width))
    }
}

impl Shrink {
    /// The means of clusters of vectors that have length 1, by Ward's method, in the order in which each has its first one.
    fn apply(&self, vectors: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
        let kept = self.kept.min(vectors.len());
        let points = &vectors[kept..];
        let wanted = (points.len() / self.factor.max(1)).max(1);
        if wanted >= points.len() {
            return vectors;
        }
        let labels = ward(distances(points), points.len(), wanted);
        let clusters = labels.iter().max().map_or(0, |label| label + 1);
        let width = points[0].len();
        let mut means = vec![(vec![0.0_f32; width], 0.0_f32); clusters];
        for (point, &label) in points.iter().zip(&labels) {
            let (sum, count) = &mut means[label];
            sum.iter_mut().zip(point).for_each(|(sum, value)| *sum += value);
            *count += 1.0;
        }
        let means = means.into_iter().map(|(sum, count)| sum.into_iter().map(|value| value / count).collect());
        vectors[..kept].iter().cloned().chain(means).collect()
    }
}

/// One minus the cosine of each two, all of them in a square.
fn distances(points: &[Vec<f32>]) -> Vec<f64> {
    let count = points.len();
    let mut square = vec![0.0; count * count];
    for one in 0..count {
        for other in one + 1..count {
            let dot: f32 = points[one].iter().zip(&points[other]).map(|(a, b)| a * b).sum();
            let distance = f64::from((1.0 - dot).clamp(0.0, 2.0));
            square[one * count + other] = distance;
            square[other * count + one] = distance;
        }
    }
    square
}

/// The cluster of each of `count` points with these distances when `wanted` are left: the two whose union adds least to the variance are merged,
/// again and again (the nearest-neighbour chain of Murtagh, with the update of Lance and Williams). Quadratic in time and
/// memory.
fn ward(mut square: Vec<f64>, count: usize, wanted: usize) -> Vec<usize> {
    let mut size = vec![1.0_f64; count];
    let mut merges: Vec<(f64, usize, usize)> = Vec::with_capacity(count - 1);
    let mut chain: Vec<usize> = Vec::new();
    while merges.len() + 1 < count {
        if chain.is_empty() {
            chain.extend((0..count).find(|&at| size[at] > 0.0));
        }
        let (one, other) = loop {
            let last = chain[chain.len() - 1];
            let before = chain.len().checked_sub(2).map(|at| chain[at]);
            // Where two are equally near, the one that is there already: else the chain might never end.
            let mut nearest = before.map(|at| (square[last * count + at], at));
            for at in (0..count).filter(|&at| at != last && size[at] > 0.0) {
                let distance = square[last * count + at];
                if nearest.is_none_or(|(least, _)| distance < least) {
                    nearest = Some((distance, at));
                }
            }
            let Some((distance, at)) = nearest else { return vec![0; count] };
            if Some(at) == before {
                chain.truncate(chain.len() - 2);
                merges.push((distance, last.min(at), last.max(at)));
                break (last.min(at), last.max(at));
            }
            chain.push(at);
        };
        let (of_one, of_other, between) = (size[one], size[other], square[one * count + other]);
        for at in (0..count).filter(|&at| at != one && at != other && size[at] > 0.0) {
            let (to_one, to_other) = (square[at * count + one], square[at * count + other]);
            let sum = (size[at] + of_one) * to_one.powi(2) + (size[at] + of_other) * to_other.powi(2)
                - size[at] * between.powi(2);
            let distance = (sum / (size[at] + of_one + of_other)).max(0.0).sqrt();
            square[at * count + other] = distance;
            square[other * count + at] = distance;
        }
        size[other] += of_one;
        size[one] = 0.0;
    }
    merges.sort_by(|(a, ..), (b, ..)| a.total_cmp(b));
    let mut parent: Vec<usize> = (0..count).collect();
    fn root(parent: &mut [usize], mut at: usize) -> usize {
        while parent[at] != at {
            parent[at] = parent[parent[at]];
            at = parent[at];
        }
        at
    }
    for &(_, one, other) in merges.iter().take(count - wanted) {
        let (one, other) = (root(&mut parent, one), root(&mut parent, other));
        parent[one.max(other)] = one.min(other);
    }
    let mut label_of = vec![usize::MAX; count];
    let mut labels = Vec::with_capacity(count);
    let mut next = 0;
    for at in 0..count {
        let root = root(&mut parent, at);
        if label_of[root] == usize::MAX {
            label_of[root] = next;
            next += 1;
        }
        labels.push(label_of[root]);
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(angle: f32) -> Vec<f32> {
        vec![angle.cos(), angle.sin()]
    }

    #[test]
    fn clusters_are_means_of_what_is_near_and_the_first_one_is_kept() {
        let vectors = vec![unit(2.0), unit(0.0), unit(0.1), unit(1.5), unit(1.6)];
        let shrunk = Shrink { factor: 2, kept: 1 }.apply(vectors.clone());
        assert_eq!(shrunk.len(), 3);
        assert_eq!(shrunk[0], vectors[0]);
        for (mean, [a, b]) in shrunk[1..].iter().zip([[1, 2], [3, 4]]) {
            let expected = (vectors[a][0] + vectors[b][0]) / 2.0;
            assert!((mean[0] - expected).abs() < 1e-6, "{mean:?}");
        }
        assert_eq!(Shrink::default().apply(vectors.clone()), vectors);
        assert_eq!(Shrink { factor: 9, kept: 1 }.apply(vectors).len(), 2);
        assert_eq!(Shrink { factor: 2, kept: 1 }.apply(Vec::new()), Vec::<Vec<f32>>::new());
    }

    #[test]
    fn equal_vectors_end() {
        let shrunk = Shrink { factor: 3, kept: 0 }.apply(vec![unit(1.0); 30]);
        assert!(!shrunk.is_empty() && shrunk.len() <= 10);
    }
}
