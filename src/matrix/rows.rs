//! The kernel: products of some rows with some other rows, in single precision.
//!
//! A few rows of either side are multiplied at once, so that what is read is used several times while it is in a register. The
//! sums are [`LANES`] partial ones for each product, added in one order: blocks and processors change nothing about a product.

use std::ops::Range;

use rayon::prelude::*;

use super::Matrix;
use crate::cancel::Cancel;
use crate::error::Result;

/// Values that are multiplied side by side.
pub const LANES: usize = 16;

/// Rows on both sides whose products are summed at once: as many sums as there are wide registers for, some left.
const WIDE: usize = 4;
const NARROW: usize = 2;

/// Rows of one length, each filled up with zeros to whole chunks.
pub struct Rows {
    values: Vec<[f32; LANES]>,
    chunks: usize,
    count: usize,
}

impl Rows {
    /// The rows of a matrix, each times what `scale` says of it.
    pub fn of(matrix: &Matrix, cancel: &Cancel, scale: impl Fn(&[f32]) -> f64 + Sync) -> Result<Self> {
        let (chunks, count) = (matrix.dimensions.div_ceil(LANES), matrix.count());
        let mut values = vec![[0.0f32; LANES]; chunks * count];
        values.par_chunks_mut(chunks.max(1)).enumerate().try_for_each(|(at, out)| {
            if at % 4096 == 0 {
                cancel.check()?;
            }
            let row = matrix.row(at);
            let scale = scale(row);
            for (out, value) in out.as_flattened_mut().iter_mut().zip(row) {
                *out = (f64::from(*value) * scale) as f32;
            }
            Ok(())
        })?;
        Ok(Self { values, chunks, count })
    }

    /// `count` rows that are filled up already.
    pub fn packed(values: &[f32], count: usize) -> Self {
        let values: Vec<[f32; LANES]> = values.as_chunks().0.to_vec();
        Self { chunks: values.len() / count.max(1), values, count }
    }

    /// The first values of each row, a quarter of them, and the length of what is left of it: by Cauchy and Schwarz, the product of
    /// two rows is at most that of their first values and the product of these lengths.
    pub fn heads(&self) -> (Self, Vec<f32>) {
        let chunks = self.chunks.div_ceil(4);
        let rows = self.values.par_chunks(self.chunks.max(1));
        let lengths = rows.clone().map(|row| {
            let squares = row[chunks..].as_flattened().iter().map(|value| f64::from(*value).powi(2));
            squares.sum::<f64>().sqrt() as f32
        });
        let values = rows.flat_map_iter(|row| row[..chunks].iter().copied());
        (Self { values: values.collect(), chunks, count: self.count }, lengths.collect())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// One of them.
    pub fn row(&self, at: usize) -> &[[f32; LANES]] {
        &self.values[at * self.chunks..][..self.chunks]
    }

    /// Writes the product of each of the rows `of` with each of `others`' rows `with` to `out`: `with.len()` for each.
    pub fn products(&self, of: Range<usize>, others: &Self, with: Range<usize>, out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        for (has, products) in x86::WAYS {
            if has() {
                // SAFETY: the processor has what the function is compiled for.
                #[allow(unsafe_code)]
                return unsafe { products(self, of, others, with, out) };
            }
        }
        self.multiply(of, others, with, out, block::<NARROW>);
    }

    /// Always inlined, as all that it calls: each way to compile it then is one function. `block`: the products of some rows with
    /// some others.
    #[inline(always)]
    fn multiply<const BLOCK: usize>(
        &self,
        of: Range<usize>,
        others: &Self,
        with: Range<usize>,
        out: &mut [f32],
        block: impl Fn(Block<BLOCK>, Block<BLOCK>) -> [[f32; BLOCK]; BLOCK],
    ) {
        let width = with.len();
        let mut at = of.start;
        while at < of.end {
            let rows = BLOCK.min(of.end - at);
            let mut other = with.start;
            while other < with.end {
                let columns = BLOCK.min(with.end - other);
                // What fills up a block is the last row again.
                let left: [_; BLOCK] = std::array::from_fn(|row| self.row((at + row).min(of.end - 1)));
                let right: [_; BLOCK] = std::array::from_fn(|column| others.row((other + column).min(with.end - 1)));
                let block = block(left, right);
                for (row, products) in block.iter().enumerate().take(rows) {
                    let out = &mut out[(at + row - of.start) * width + other - with.start..][..columns];
                    out.copy_from_slice(&products[..columns]);
                }
                other += columns;
            }
            at += rows;
        }
    }
}

/// Some rows.
type Block<'a, const BLOCK: usize> = [&'a [[f32; LANES]]; BLOCK];

#[inline(always)]
fn block<const BLOCK: usize>(left: Block<BLOCK>, right: Block<BLOCK>) -> [[f32; BLOCK]; BLOCK] {
    let chunks = left[0].len();
    // One length, which the compiler then need not look at again.
    let (left, right) = (left.map(|row| &row[..chunks]), right.map(|row| &row[..chunks]));
    let mut sums = [[[0.0f32; LANES]; BLOCK]; BLOCK];
    for chunk in 0..chunks {
        for row in 0..BLOCK {
            let left = left[row][chunk];
            for column in 0..BLOCK {
                let right = &right[column][chunk];
                for lane in 0..LANES {
                    sums[row][column][lane] += left[lane] * right[lane];
                }
            }
        }
    }
    sums.map(|row| row.map(sum))
}

/// Halves are added to halves: few roundings, and what the processor does fast.
#[inline(always)]
fn sum(mut lanes: [f32; LANES]) -> f32 {
    const { assert!(LANES.is_power_of_two()) };
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Block, LANES, NARROW, Range, Rows, WIDE};

    type Products = unsafe fn(&Rows, Range<usize>, &Rows, Range<usize>, &mut [f32]);

    /// The best first.
    pub const WAYS: [(fn() -> bool, Products); 2] =
        [(|| is_x86_feature_detected!("avx512f"), avx512), (|| is_x86_feature_detected!("avx2"), avx2)];

    #[target_feature(enable = "avx512f")]
    fn avx512(rows: &Rows, of: Range<usize>, others: &Rows, with: Range<usize>, out: &mut [f32]) {
        rows.multiply::<WIDE>(of, others, with, out, |left, right| wide(left, right));
    }

    #[target_feature(enable = "avx2")]
    fn avx2(rows: &Rows, of: Range<usize>, others: &Rows, with: Range<usize>, out: &mut [f32]) {
        rows.multiply::<NARROW>(of, others, with, out, super::block);
    }

    /// The same, to the last bit, with all sums in wide registers: the compiler takes half as wide ones, of which there are too few.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn wide(left: Block<WIDE>, right: Block<WIDE>) -> [[f32; WIDE]; WIDE] {
        let chunks = left[0].len();
        let (left, right) = (left.map(|row| &row[..chunks]), right.map(|row| &row[..chunks]));
        let mut sums = [[_mm512_setzero_ps(); WIDE]; WIDE];
        for chunk in 0..chunks {
            let mut of = [_mm512_setzero_ps(); WIDE];
            for (of, row) in of.iter_mut().zip(left) {
                *of = load(&row[chunk]);
            }
            for (column, row) in right.iter().enumerate() {
                let with = load(&row[chunk]);
                for (sums, of) in sums.iter_mut().zip(of) {
                    sums[column] = _mm512_add_ps(sums[column], _mm512_mul_ps(of, with));
                }
            }
        }
        let mut out = [[0.0; WIDE]; WIDE];
        for (out, sums) in out.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
            *out = sum(*sums);
        }
        out
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(values: &[f32; LANES]) -> __m512 {
        const { assert!(size_of::<[f32; LANES]>() == size_of::<__m512>()) };
        // SAFETY: there are as many values as are read.
        #[allow(unsafe_code)]
        unsafe {
            _mm512_loadu_ps(values.as_ptr())
        }
    }

    /// As [`super::sum`].
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn sum(lanes: __m512) -> f32 {
        let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes)));
        let eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), upper);
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_processors_change_no_bit() {
        for (dimensions, counts) in [(1, (1, 1)), (16, (3, 5)), (37, (9, 6)), (384, (7, 11))] {
            let value = |at: usize| ((at * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
            let data: Vec<f32> = (0..dimensions * (counts.0 + counts.1)).map(value).collect();
            let (a, b) = data.split_at(dimensions * counts.0);
            let rows = |data| Rows::of(&Matrix { data, dimensions }, &Cancel::default(), |_| 1.0).unwrap();
            let (a, b) = (rows(a), rows(b));
            let all = |way: &dyn Fn(&mut [f32])| {
                let mut out = vec![f32::NAN; counts.0 * counts.1];
                way(&mut out);
                out
            };
            let one = all(&|out| a.multiply(0..counts.0, &b, 0..counts.1, out, block::<1>));
            assert_eq!(one, all(&|out| a.multiply(0..counts.0, &b, 0..counts.1, out, block::<NARROW>)));
            assert_eq!(one, all(&|out| a.multiply(0..counts.0, &b, 0..counts.1, out, block::<WIDE>)));
            assert_eq!(one, all(&|out| a.products(0..counts.0, &b, 0..counts.1, out)));
            let mut some = vec![0.0];
            a.products(counts.0 - 1..counts.0, &b, counts.1 - 1..counts.1, &mut some);
            assert_eq!(some[0], one[one.len() - 1]);
        }
    }
}
