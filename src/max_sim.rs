//! How well documents answer a query by late interaction: for each of the query's vectors the largest dot product with one of the
//! document's, all of them summed (MaxSim). Exact. JS: `maxSim`.

use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::host;

/// Vectors of tokens, `dimensions` values each.
#[derive(Debug, Clone, Copy)]
pub struct TokenVectors<'a> {
    /// All of them, one after the other.
    pub data: &'a [f32],
    /// Length of each.
    pub dimensions: usize,
}

/// The score of each document. `ends`: where the vectors of each end, counted in vectors. A document without any has 0. Blocks.
///
/// # Errors
/// `INVALID_ARGUMENT` for sizes that contradict each other, and for values and scores that are not finite.
pub fn scores(query: TokenVectors, documents: TokenVectors, ends: &[usize]) -> Result<Vec<f32>> {
    let invalid = |reason: String| Err(Error::InvalidArgument(reason));
    let dimensions = documents.dimensions;
    if query.dimensions != dimensions || dimensions == 0 {
        return invalid(format!(
            "The query's vectors have {} values and those of the documents {dimensions}: take both from one model",
            query.dimensions
        ));
    }
    let vectors = documents.data.len() / dimensions;
    if !ends.is_sorted() || ends.last().is_some_and(|last| *last > vectors) {
        return invalid(format!("The documents' offsets do not rise up to their {vectors} vectors"));
    }
    if !query.data.iter().all(|value| value.is_finite()) {
        return invalid("The query has a value that is not a finite number".to_owned());
    }
    let score = best_way();
    let begins = || std::iter::once(0).chain(ends.iter().copied());
    let parts: Vec<&[f32]> =
        begins().zip(ends).map(|(begin, end)| &documents.data[begin * dimensions..end * dimensions]).collect();
    let (laid, mut scores) = (Laid::out(query), vec![0.0_f32; parts.len()]);
    let products = documents.data.len().saturating_mul(laid.vectors);
    let threads = if products < WORTH_A_THREAD { 1 } else { host::available_cores() };
    {
        let open = Mutex::new(parts.chunks(PORTION).zip(scores.chunks_mut(PORTION)));
        let next = || open.lock().unwrap_or_else(PoisonError::into_inner).next();
        together(threads, &|| {
            while let Some((parts, scores)) = next() {
                parts.iter().zip(scores).for_each(|(part, place)| *place = score(&laid, part));
            }
        });
    }
    match scores.iter().position(|score| !score.is_finite()) {
        None => Ok(scores),
        Some(index) if parts[index].iter().all(|value| value.is_finite()) => invalid(format!(
            "The score of document {index} is not a finite number: its values, or the query's, are too large"
        )),
        Some(index) => invalid(format!("Document {index} has a value that is not a finite number")),
    }
}

/// Products that are worth starting another thread for: some tenths of a millisecond.
const WORTH_A_THREAD: usize = 1 << 24;

/// Documents that a thread takes at a time.
const PORTION: usize = 8;

/// Runs `work` on as many threads at once, this one among them. They are started for it: the caller may be one who must not wait
/// until those that compute have time, and does it alone where others come late.
fn together(threads: usize, work: &(dyn Fn() + Sync)) {
    match threads {
        0 | 1 => work(),
        _ => drop(host::join(work, || together(threads - 1, work))),
    }
}

/// The query's vectors side by side: the first values of `LANES` of them, then their second values, and so on.
struct Laid {
    data: Vec<f32>,
    dimensions: usize,
    vectors: usize,
}

/// Vectors of the query that are compared at a time.
const LANES: usize = 32;

impl Laid {
    fn out(query: TokenVectors) -> Self {
        let dimensions = query.dimensions;
        let vectors = query.data.len() / dimensions;
        let mut data = vec![0.0; vectors.next_multiple_of(LANES) * dimensions];
        for (vector, values) in query.data.chunks_exact(dimensions).enumerate() {
            let block = vector / LANES * LANES * dimensions;
            for (at, value) in values.iter().enumerate() {
                data[block + at * LANES + vector % LANES] = *value;
            }
        }
        Self { data, dimensions, vectors }
    }
}

/// The score of a document. `WIDTH` of the query's vectors and `TOKENS` of the document's are compared at a time, by `dots`: of the
/// query's it is given the first values of all of [`LANES`], then the second ones, and which part of them to take.
#[inline(always)]
fn score<const WIDTH: usize, const TOKENS: usize>(
    query: &Laid,
    document: &[f32],
    dots: impl Fn(&[f32], usize, [&[f32]; TOKENS]) -> [[f32; WIDTH]; TOKENS],
) -> f32 {
    let dimensions = query.dimensions;
    let Some(last) = (document.len() / dimensions).checked_sub(1) else { return 0.0 };
    let (mut total, mut check) = (0.0_f64, 0.0_f32);
    for (block, lanes) in query.data.chunks_exact(LANES * dimensions).enumerate() {
        const { assert!(LANES.is_multiple_of(WIDTH)) };
        for part in 0..LANES / WIDTH {
            let first = block * LANES + part * WIDTH;
            if first >= query.vectors {
                break;
            }
            let mut best = [f32::NEG_INFINITY; WIDTH];
            for token in (0..=last).step_by(TOKENS) {
                // What fills up a tile is the last vector again.
                let tile = std::array::from_fn(|at| &document[(token + at).min(last) * dimensions..][..dimensions]);
                for sums in dots(lanes, part, tile) {
                    check += sums[0];
                    best.iter_mut().zip(sums).for_each(|(best, sum)| *best = best.max(sum));
                }
            }
            let count = (query.vectors - first).min(WIDTH);
            total += best[..count].iter().map(|best| f64::from(*best)).sum::<f64>();
        }
    }
    // What is not finite is in each of a vector's products, and stays in their sum; but so is what has become too large.
    let sound = check.is_finite() || document.iter().all(|value| value.is_finite());
    if sound { total as f32 } else { f32::NAN }
}

/// `FUSED`: whether the processor multiplies and adds at once.
#[inline(always)]
fn dots<const WIDTH: usize, const TOKENS: usize, const FUSED: bool>(
    lanes: &[f32],
    part: usize,
    tile: [&[f32]; TOKENS],
) -> [[f32; WIDTH]; TOKENS] {
    let mut sums = [[0.0_f32; WIDTH]; TOKENS];
    for (at, row) in lanes.chunks_exact(LANES).enumerate() {
        let row = &row[part * WIDTH..][..WIDTH];
        for (sums, vector) in sums.iter_mut().zip(tile) {
            let value = vector[at];
            for (sum, lane) in sums.iter_mut().zip(row) {
                *sum = if FUSED { value.mul_add(*lane, *sum) } else { value * lane + *sum };
            }
        }
    }
    sums
}

type Score = fn(&Laid, &[f32]) -> f32;

fn plain(query: &Laid, document: &[f32]) -> f32 {
    score::<8, 4>(query, document, dots::<8, 4, { cfg!(target_arch = "aarch64") }>)
}

#[cfg(not(target_arch = "x86_64"))]
fn best_way() -> Score {
    plain
}

#[cfg(target_arch = "x86_64")]
use x86::best_way;

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Laid, Score, plain, score};

    /// The document's vectors that are compared at a time: with two registers for the query's, as many sums as there are registers for.
    const TOKENS: usize = 8;

    /// The fastest that this processor can.
    pub fn best_way() -> Score {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has what the function was compiled for.
            |query, document| unsafe { avx512(query, document) }
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            |query, document| unsafe { avx2(query, document) }
        } else {
            plain
        }
    }

    #[target_feature(enable = "avx512f")]
    fn avx512(query: &Laid, document: &[f32]) -> f32 {
        score(query, document, |lanes, _, tile| wide(lanes, tile))
    }

    #[target_feature(enable = "avx2,fma")]
    fn avx2(query: &Laid, document: &[f32]) -> f32 {
        score(query, document, |lanes, part, tile| narrow(lanes, part, tile))
    }

    /// The same with half as wide registers, and half as many.
    const NARROW_TOKENS: usize = 6;

    /// What a register of those holds.
    const NARROW: usize = LANES / 4;

    /// All sums in registers, of half of the query's vectors: the compiler looks at the end of each vector again and again.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn narrow(lanes: &[f32], part: usize, tile: [&[f32]; NARROW_TOKENS]) -> [[f32; LANES / 2]; NARROW_TOKENS] {
        let (quarters, _) = lanes.as_chunks::<NARROW>();
        let (rows, _) = quarters.as_chunks::<4>();
        let tile = tile.map(|vector| &vector[..rows.len()]);
        let mut sums = [[_mm256_setzero_ps(); 2]; NARROW_TOKENS];
        for (at, [first, second, third, fourth]) in rows.iter().enumerate() {
            let (low, high) = if part == 0 { (first, second) } else { (third, fourth) };
            let (low, high) = (load_narrow(low), load_narrow(high));
            for (sums, vector) in sums.iter_mut().zip(tile) {
                let value = _mm256_set1_ps(vector[at]);
                *sums = [_mm256_fmadd_ps(value, low, sums[0]), _mm256_fmadd_ps(value, high, sums[1])];
            }
        }
        let mut out = [[0.0; LANES / 2]; NARROW_TOKENS];
        for (out, sums) in out.as_flattened_mut().as_chunks_mut::<NARROW>().0.iter_mut().zip(sums.as_flattened()) {
            // SAFETY: there are as many values as are written.
            #[allow(unsafe_code)]
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), *sums);
            }
        }
        out
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn load_narrow(values: &[f32; NARROW]) -> __m256 {
        const { assert!(size_of::<[f32; NARROW]>() == size_of::<__m256>()) };
        // SAFETY: there are as many values as are read.
        #[allow(unsafe_code)]
        unsafe {
            _mm256_loadu_ps(values.as_ptr())
        }
    }

    /// All sums in wide registers: the compiler takes half as wide ones, of which there are too few.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn wide(lanes: &[f32], tile: [&[f32]; TOKENS]) -> [[f32; LANES]; TOKENS] {
        let (halves, _) = lanes.as_chunks::<{ LANES / 2 }>();
        let (rows, _) = halves.as_chunks::<2>();
        // One length, which the compiler then need not look at again.
        let tile = tile.map(|vector| &vector[..rows.len()]);
        let mut sums = [[_mm512_setzero_ps(); 2]; TOKENS];
        for (at, [low, high]) in rows.iter().enumerate() {
            let (low, high) = (load(low), load(high));
            for (sums, vector) in sums.iter_mut().zip(tile) {
                let value = _mm512_set1_ps(vector[at]);
                *sums = [_mm512_fmadd_ps(value, low, sums[0]), _mm512_fmadd_ps(value, high, sums[1])];
            }
        }
        let mut out = [[0.0; LANES]; TOKENS];
        for (out, sums) in out.as_flattened_mut().as_chunks_mut::<{ LANES / 2 }>().0.iter_mut().zip(sums.as_flattened())
        {
            // SAFETY: there are as many values as are written.
            #[allow(unsafe_code)]
            unsafe {
                _mm512_storeu_ps(out.as_mut_ptr(), *sums);
            }
        }
        out
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(values: &[f32; LANES / 2]) -> __m512 {
        const { assert!(size_of::<[f32; LANES / 2]>() == size_of::<__m512>()) };
        // SAFETY: there are as many values as are read.
        #[allow(unsafe_code)]
        unsafe {
            _mm512_loadu_ps(values.as_ptr())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(query: &[f32], document: &[f32], dimensions: usize) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let best = |of: &[f32]| document.chunks_exact(dimensions).map(|token| dot(of, token)).fold(f64::MIN, f64::max);
        if document.is_empty() { 0.0 } else { query.chunks_exact(dimensions).map(best).sum::<f64>() as f32 }
    }

    proptest! {
        #[test]
        fn scores_are_sums_of_largest_products(
            dimensions in 1usize..20,
            vectors in 0usize..70,
            lengths in prop::collection::vec(0usize..20, 0..6),
            seed in any::<u32>(),
        ) {
            let mut state = u64::from(seed) | 1;
            let mut noise = |count: usize| -> Vec<f32> {
                (0..count).map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
                }).collect()
            };
            let query = noise(vectors * dimensions);
            let ends: Vec<usize> = lengths.iter().scan(0, |end, length| { *end += length; Some(*end) }).collect();
            let data = noise(ends.last().copied().unwrap_or(0) * dimensions);
            let laid = Laid::out(TokenVectors { data: &query, dimensions });
            let found = scores(TokenVectors { data: &query, dimensions }, TokenVectors { data: &data, dimensions }, &ends).unwrap();
            let mut begin = 0;
            for (end, score) in ends.iter().zip(found) {
                let document = &data[begin * dimensions..end * dimensions];
                let expected = naive(&query, document, dimensions);
                prop_assert!((score - expected).abs() < 1e-3, "{} {}", score, expected);
                prop_assert!((plain(&laid, document) - expected).abs() < 1e-3);
                begin = *end;
            }
        }
    }

    #[test]
    fn what_is_no_number_is_told() {
        let query = TokenVectors { data: &[1.0, 0.0], dimensions: 2 };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in 18..36 {
                let mut data = [1.0; 36];
                data[place] = bad;
                let error = scores(query, TokenVectors { data: &data, dimensions: 2 }, &[9, 18]).unwrap_err();
                assert!(error.to_string().contains("Document 1 has a value"), "{error}");
            }
        }
        let large = [[-1e38; 18], [1e38; 18]];
        let large = large.each_ref().map(|data| TokenVectors { data, dimensions: 2 });
        let doubled = TokenVectors { data: &[4.0, 0.0], dimensions: 2 };
        assert!(scores(query, large[0], &[9]).is_ok());
        assert!(scores(doubled, large[1], &[9]).unwrap_err().to_string().contains("too large"));
        let documents = TokenVectors { data: &[1.0; 4], dimensions: 2 };
        assert!(scores(query, documents, &[2, 1]).is_err());
        assert!(scores(query, documents, &[3]).is_err());
        assert!(scores(TokenVectors { data: &[1.0; 3], dimensions: 3 }, documents, &[2]).is_err());
    }
}
