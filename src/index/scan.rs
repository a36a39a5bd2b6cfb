//! One pass over all declarations: how near each is to the vector of a query, and which words of the query it has.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::words::{BagView, Stem};

/// Sums of a dot product that are kept apart: as many registers as hide what an addition waits for the one before.
const LANES: usize = 32;

/// The vectors and words of one file's declarations.
pub struct Block {
    /// The file's id in the store.
    pub file: i64,
    /// Checksum of what the store shows of the file.
    pub described: i64,
    /// `declarations × dimensions` values.
    pub vectors: Vec<f16>,
    /// One [`Bag`](super::words::Bag) for each declaration, as written.
    pub bags: Vec<u8>,
    /// Hash of each declaration's content, whatever it belongs to.
    pub contents: Vec<u64>,
}

/// What was found in some blocks.
pub struct Scanned<'a> {
    pub blocks: &'a [Block],
    /// How many declarations each block has.
    pub counts: Vec<usize>,
    /// Of each declaration: cosine of its vector and the query's.
    pub similarities: Vec<f32>,
    /// Of each declaration: whether it stands aside.
    pub aside: Vec<bool>,
    /// Those that have a word of the query, in their order.
    pub matched: Vec<Matched>,
    /// How often each of them has each stem of the query: `matched × stems`.
    pub occurrences: Vec<u8>,
}

/// A declaration that has words of the query.
pub struct Matched {
    /// Its position among all declarations of these blocks.
    pub row: usize,
    /// Number of its words.
    pub length: u16,
    /// Which of the query's first eight stems are in its own name: a bit for each, the first the lowest.
    pub in_name: u8,
    /// Whether its name is the query.
    pub is_named: bool,
}

/// Scans `blocks` for a `vector` of length 1 and the `stems` of a query, each once.
pub fn scan<'a>(blocks: &'a [Block], vector: &[f32], stems: &[Stem]) -> Scanned<'a> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
        // SAFETY: the processor has what the function is compiled for.
        #[allow(unsafe_code)]
        return unsafe { x86::scan(blocks, vector, stems) };
    }
    let mut values = vec![0.0; vector.len()];
    pass(blocks, vector, stems, |stored, vector| {
        stored.convert_to_f32_slice(&mut values);
        dot(&values, vector)
    })
}

/// Always inlined, as what it calls: each way to compile it then is one function.
#[inline(always)]
fn pass<'a>(
    blocks: &'a [Block],
    vector: &[f32],
    stems: &[Stem],
    mut dot: impl FnMut(&[f16], &[f32]) -> f32,
) -> Scanned<'a> {
    let mut found = Scanned {
        blocks,
        counts: Vec::with_capacity(blocks.len()),
        similarities: Vec::new(),
        aside: Vec::new(),
        matched: Vec::new(),
        occurrences: Vec::new(),
    };
    for block in blocks {
        let mut bags = &block.bags[..];
        let before = found.similarities.len();
        for stored in block.vectors.chunks_exact(vector.len().max(1)) {
            let Some(bag) = BagView::read(&mut bags) else { break };
            found.words(&bag, stems);
            found.similarities.push(dot(stored, vector).clamp(-1.0, 1.0));
            found.aside.push(bag.aside);
        }
        found.counts.push(found.similarities.len() - before);
    }
    found
}

impl Scanned<'_> {
    /// Which words of the query the next declaration has.
    #[inline(always)]
    fn words(&mut self, bag: &BagView, stems: &[Stem]) {
        let first = self.occurrences.len();
        let (mut own, mut named, mut in_name) = (0, 0, 0);
        for (at, &stem) in stems.iter().enumerate() {
            let Some((place, count)) = bag.find(stem) else { continue };
            if self.occurrences.len() == first {
                self.occurrences.resize(first + stems.len(), 0);
            }
            self.occurrences[first + at] = count;
            if place < usize::from(bag.own) {
                own += 1;
                in_name |= 1u8.checked_shl(at as u32).unwrap_or(0);
            }
            named += usize::from(place < usize::from(bag.named));
        }
        if self.occurrences.len() > first {
            let is_named = own > 0 && own == usize::from(bag.own) && named == stems.len();
            self.matched.push(Matched { row: self.similarities.len(), length: bag.length, in_name, is_named });
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::{Block, LANES, Scanned, Stem, pass};

    #[target_feature(enable = "avx2,f16c")]
    pub fn scan<'a>(blocks: &'a [Block], vector: &[f32], stems: &[Stem]) -> Scanned<'a> {
        pass(blocks, vector, stems, |stored, vector| dot(stored, vector))
    }

    /// As [`super::dot`], to the last bit, of halves as they are stored.
    #[target_feature(enable = "avx2,f16c")]
    #[inline]
    fn dot(a: &[f16], b: &[f32]) -> f32 {
        let mut sums = [_mm256_setzero_ps(); LANES / 8];
        let (a, a_rest) = a.as_chunks::<LANES>();
        let (b, b_rest) = b.as_chunks::<LANES>();
        for (a, b) in a.iter().zip(b) {
            let eights = a.as_chunks().0.iter().zip(b.as_chunks().0);
            for (sum, (a, b)) in sums.iter_mut().zip(eights) {
                *sum = _mm256_add_ps(*sum, product(a, b));
            }
        }
        let mut lanes = [[0.0f32; 8]; LANES / 8];
        for (lanes, sum) in lanes.iter_mut().zip(sums) {
            // SAFETY: there are as many values as are written.
            #[allow(unsafe_code)]
            unsafe {
                _mm256_storeu_ps(lanes.as_mut_ptr(), sum);
            }
        }
        let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a.to_f32() * b);
        lanes.as_flattened().iter().sum::<f32>() + rest.sum::<f32>()
    }

    #[target_feature(enable = "avx2,f16c")]
    #[inline]
    fn product(a: &[f16; 8], b: &[f32; 8]) -> __m256 {
        // SAFETY: there are as many values as are read.
        #[allow(unsafe_code)]
        let (a, b) = unsafe { (_mm_loadu_si128(a.as_ptr().cast()), _mm256_loadu_ps(b.as_ptr())) };
        _mm256_mul_ps(_mm256_cvtph_ps(a), b)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::index::words::Bag;

    proptest! {
        /// Whatever the processor has, the answers are the same, to the last bit.
        #[test]
        fn each_way_to_scan_finds_the_same(
            values in prop::collection::vec(-1.0f32..1.0, 0..200), rows in 0usize..4, text in "([a-f]{1,2} ){0,30}",
        ) {
            let stored = values.iter().cycle().skip(1).take(rows * values.len()).map(|value| f16::from_f32(*value));
            let mut bags = Vec::new();
            (0..rows).for_each(|_| Bag::of([text.as_str()]).write(&mut bags));
            let blocks = [Block { file: 1, described: 0, vectors: stored.collect(), bags, contents: Vec::new() }];
            let stems = crate::index::words::distinct_stems("a b aa ab ff");
            let mut row = vec![0.0; values.len()];
            let plain = pass(&blocks, &values, &stems, |stored, vector| {
                stored.convert_to_f32_slice(&mut row);
                dot(&row, vector)
            });
            let found = scan(&blocks, &values, &stems);
            prop_assert_eq!(bits(&found), bits(&plain));
            prop_assert_eq!(&found.counts, &plain.counts);
            prop_assert_eq!(&found.occurrences, &plain.occurrences);
            let exact: Vec<u8> = stems.iter().map(|stem| {
                Bag::of([text.as_str()]).stems.iter().find(|(found, _)| found == stem).map_or(0, |(_, count)| *count)
            }).collect();
            prop_assert!(found.occurrences.chunks_exact(stems.len()).all(|counts| counts == exact));
            let any = exact.iter().any(|&count| count > 0);
            prop_assert_eq!(found.matched.len(), if any { found.similarities.len() } else { 0 });
        }
    }

    fn bits(scanned: &Scanned) -> Vec<u32> {
        scanned.similarities.iter().map(|value| value.to_bits()).collect()
    }
}
