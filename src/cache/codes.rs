//! Vectors in a tenth of their size, to find out which few of many are worth a close look.
//!
//! Each vector is kept twice: one bit per value, whether it is above the mean of all, and one byte per value. A search
//! counts differing bits, which takes some nanoseconds a vector, ranks the nearest few hundred by their bytes, and
//! gives the best of these. That is no exact answer, but near to one: whoever asks compares the vectors themselves.
//!
//! How many differing bits are few enough, each search finds out by itself: those of the answers tell how many an
//! equally near vector may have, and while the ranked ones do not reach [`SIGMAS`] beyond that, more are ranked, up to
//! all. Vectors of a model lie in heaps, and the first few hundred do; among random vectors, which are all about equally
//! far from each other, it takes all bytes, some ten times as long.
//!
//! Why not a graph (HNSW: `usearch`, `hnsw_rs`): at a hundred thousand vectors this takes as long as a graph does, is
//! there as soon as the vectors were read once (a graph takes many times as long to be built), forgets an entry at once,
//! finds as much among random vectors, and needs no C++ and no dozen of crates in every build. Of 14,800 vectors of a model
//! `hnsw_rs` needed 31 s to be built and 12.6 ms a search for a recall@10 of 0.984; this has 0.994 in 0.4 ms. It grows
//! with their number, though: at some millions, a graph would be the better choice.

/// Searched by their bytes, at least.
const CANDIDATES: usize = 500;

/// How far beyond the expected number of differing bits an answer may lie, in standard deviations: one of some hundreds
/// lies farther.
const SIGMAS: f32 = 3.0;

/// Standard deviation of the number of differing bits, at least: bits of near vectors are few, and no coins.
const LEAST_SIGMA: f32 = 2.0;

/// From this part of all on, all are ranked: one after the other, that is faster.
const MANY: usize = 6;

/// How far the cosine by bytes may be from the one by the values themselves: ten times the usual error at 384 values.
pub(super) const ROUNDING: f32 = 0.004;

/// Bytes of a code stand for -1–1 of the largest value of the vector.
const STEPS: f32 = 127.0;

/// Codes of vectors of one length, at places `0..len()`.
#[derive(Debug, Default)]
pub(super) struct Codes {
    dimensions: usize,
    /// `dimensions` for each.
    bytes: Vec<i8>,
    /// What a byte stands for: times its length, so that vectors of length 1 are compared.
    scales: Vec<f32>,
    /// `words()` for each.
    bits: Vec<u64>,
    /// The mean of the vectors, when there were `counted` of them.
    mean: Vec<f32>,
    counted: usize,
}

impl Codes {
    pub fn new(dimensions: usize) -> Self {
        Self { dimensions, mean: vec![0.0; dimensions], ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.scales.len()
    }

    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn words(&self) -> usize {
        self.dimensions.div_ceil(64)
    }

    /// Adds a vector at the end. It has [`Codes::new`]'s length and is not zero.
    pub fn push(&mut self, vector: &[f32]) {
        let at = self.len();
        self.bytes.resize(self.bytes.len() + self.dimensions, 0);
        self.bits.resize(self.bits.len() + self.words(), 0);
        self.scales.push(0.0);
        self.set(at, vector);
        if self.len() >= 2 * self.counted.max(CANDIDATES / 2) {
            self.settle();
        }
    }

    /// Puts another vector in the place of one.
    pub fn set(&mut self, at: usize, vector: &[f32]) {
        let largest = vector.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        // Of the vector whose largest value is 1: the square of a value may be no f32.
        let norm = vector.iter().map(|value| (value / largest).powi(2)).sum::<f32>().sqrt();
        let bytes = &mut self.bytes[at * self.dimensions..][..self.dimensions];
        for (byte, value) in bytes.iter_mut().zip(vector) {
            *byte = (value / largest * STEPS).round() as i8;
        }
        self.scales[at] = 1.0 / STEPS / norm;
        self.mark(at);
    }

    /// Takes one away; the last one takes its place.
    pub fn swap_remove(&mut self, at: usize) {
        let last = self.len() - 1;
        let (dimensions, words) = (self.dimensions, self.words());
        self.bytes.copy_within(last * dimensions.., at * dimensions);
        self.bits.copy_within(last * words.., at * words);
        self.bytes.truncate(last * dimensions);
        self.bits.truncate(last * words);
        self.scales.swap_remove(at);
    }

    fn mark(&mut self, at: usize) {
        let scale = self.scales[at];
        let bytes = &self.bytes[at * self.dimensions..][..self.dimensions];
        let values = bytes.iter().map(|byte| f32::from(*byte) * scale);
        let words = self.words();
        marks(values, &self.mean, &mut self.bits[at * words..][..words]);
    }

    /// Bits say most where half of them are set.
    fn settle(&mut self) {
        let mut mean = vec![0.0; self.dimensions];
        for (bytes, scale) in self.bytes.chunks_exact(self.dimensions).zip(&self.scales) {
            mean.iter_mut().zip(bytes).for_each(|(mean, byte)| *mean += f32::from(*byte) * scale);
        }
        let count = self.len() as f32;
        mean.iter_mut().for_each(|mean| *mean /= count);
        self.mean = mean;
        self.counted = self.len();
        (0..self.len()).for_each(|at| self.mark(at));
    }

    /// The vectors that are probably nearest to `query`, the nearest first: the cosine, within [`ROUNDING`], and the place.
    /// At least four times `limit`, if there are so many; all of them that matter have a cosine of at least `threshold`.
    pub fn nearest(&self, query: &[f32], limit: usize, threshold: f32) -> Vec<(f32, usize)> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("popcnt") && is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has what the function is compiled for.
            #[allow(unsafe_code)]
            return unsafe { nearest_avx2(self, query, limit, threshold) };
        }
        self.search(query, limit, threshold)
    }

    #[inline(always)]
    fn search(&self, query: &[f32], limit: usize, threshold: f32) -> Vec<(f32, usize)> {
        let largest = query.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let norm = query.iter().map(|value| (value / largest).powi(2)).sum::<f32>().sqrt();
        let unit: Vec<f32> = query.iter().map(|value| value / largest / norm).collect();
        let most = CANDIDATES.max(4 * limit);
        // As many steps as the sum of all products has room for.
        let steps = (i32::MAX as f32 / STEPS / self.dimensions as f32 / 2.0).min(4095.0);
        let asked: Vec<i16> = unit.iter().map(|value| (value * norm * steps) as i16).collect();
        let whole = norm * steps;
        let rank = |at: usize| {
            let bytes = &self.bytes[at * self.dimensions..][..self.dimensions];
            (dot(&asked, bytes) as f32 * self.scales[at] / whole, at)
        };
        let sorted = |mut ranked: Vec<(f32, usize)>| {
            ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
            ranked
        };
        let all = || {
            let mut ranked: Vec<(f32, usize)> = (0..self.len()).map(rank).collect();
            if ranked.len() > most {
                ranked.select_nth_unstable_by(most, |a, b| b.0.total_cmp(&a.0));
                ranked.truncate(most);
            }
            ranked
        };
        if self.len() <= most {
            return sorted(all());
        }
        let spread = self.spread(&unit);
        let (mut candidates, mut radius) = spread.nearest(most);
        loop {
            let ranked = sorted(candidates.into_iter().map(rank).collect());
            let needed = self.needed(&ranked, &spread, (&unit, limit, threshold));
            if needed <= radius {
                return ranked;
            }
            candidates = spread.within(needed);
            if candidates.len() > self.len() / MANY {
                return sorted(all());
            }
            radius = needed;
        }
    }

    /// How many bits each vector differs by.
    #[inline(always)]
    fn spread(&self, unit: &[f32]) -> Spread {
        let words = self.words();
        let mut asked = vec![0; words];
        marks(unit.iter().copied(), &self.mean, &mut asked);
        let mut counts = vec![0u32; self.dimensions + 1];
        let mut distances = vec![0u16; self.len()];
        match <&[u64; 6]>::try_from(&asked[..]) {
            // The usual length, without a loop.
            Ok(asked) => count(self.bits.as_chunks::<6>().0, asked, &mut distances),
            Err(_) => count(self.bits.chunks_exact(words), &asked[..], &mut distances),
        }
        distances.iter().for_each(|distance| counts[*distance as usize] += 1);
        Spread { distances, counts }
    }

    /// Within how many differing bits the `limit` nearest are, all but surely, as `ranked` and what is asked for let one
    /// expect.
    fn needed(&self, ranked: &[(f32, usize)], spread: &Spread, asked: (&[f32], usize, f32)) -> i32 {
        let (unit, limit, threshold) = asked;
        let found = ranked.iter().take(limit).take_while(|(similarity, _)| similarity + ROUNDING >= threshold).count();
        let mut needed = -1.0f32;
        // Others that are as near as the farther half of them differ by as many bits.
        let farther = &ranked[found / 2..found];
        if !farther.is_empty() {
            let number = farther.len() as f32;
            let bits = || farther.iter().map(|(_, at)| f32::from(spread.distances[*at]));
            let mean = bits().sum::<f32>() / number;
            let seen = bits().map(|bits| (bits - mean).powi(2)).sum::<f32>() / (number - 1.0).max(1.0);
            needed = mean + SIGMAS * (self.variance(mean).max(seen) * (1.0 + 1.0 / number)).sqrt();
        }
        if found < limit {
            let mean = self.expected(unit, threshold);
            needed = needed.max(mean + SIGMAS * self.variance(mean).sqrt());
        }
        (needed as i32).min(self.dimensions as i32)
    }

    /// Of a number of differing bits, as if they were coins.
    fn variance(&self, mean: f32) -> f32 {
        (mean * (1.0 - mean / self.dimensions as f32)).max(LEAST_SIGMA * LEAST_SIGMA)
    }

    /// How many bits a vector of this cosine differs by, on average: as large a part of all as its angle is of a half
    /// turn, seen from the mean.
    fn expected(&self, unit: &[f32], similarity: f32) -> f32 {
        let along: f32 = unit.iter().zip(&self.mean).map(|(value, mean)| value * mean).sum();
        let mean: f32 = self.mean.iter().map(|value| value * value).sum();
        let (shift, whole) = (mean - 2.0 * along, 1.0 + mean - 2.0 * along);
        let cosine = if whole > 0.0 { ((similarity + shift) / whole).clamp(-1.0, 1.0) } else { -1.0 };
        cosine.acos() / std::f32::consts::PI * self.dimensions as f32
    }
}

/// How many bits each vector differs by from a query.
struct Spread {
    distances: Vec<u16>,
    /// How many vectors there are for each number of bits.
    counts: Vec<u32>,
}

impl Spread {
    /// Those with the fewest bits that differ, in no order: `most` of them. And up to which number all are there, -1: none.
    fn nearest(&self, most: usize) -> (Vec<usize>, i32) {
        let mut within = 0;
        let limit = self.counts.iter().take_while(|count| {
            within += **count as usize;
            within <= most
        });
        let limit = limit.count() as u16;
        let mut rest = most - self.distances.iter().filter(|distance| **distance < limit).count();
        let mut found = Vec::with_capacity(most);
        for (at, distance) in self.distances.iter().enumerate() {
            if *distance < limit {
                found.push(at);
            } else if *distance == limit && rest > 0 {
                rest -= 1;
                found.push(at);
            }
        }
        (found, i32::from(limit) - 1)
    }

    /// All that differ by no more than `radius`.
    fn within(&self, radius: i32) -> Vec<usize> {
        let all = self.distances.iter().enumerate();
        all.filter(|(_, distance)| i32::from(**distance) <= radius).map(|(at, _)| at).collect()
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,popcnt")]
fn nearest_avx2(codes: &Codes, query: &[f32], limit: usize, threshold: f32) -> Vec<(f32, usize)> {
    codes.search(query, limit, threshold)
}

#[inline(always)]
fn count<'a, C: AsRef<[u64]> + ?Sized + 'a>(all: impl IntoIterator<Item = &'a C>, asked: &C, distances: &mut [u16]) {
    for (distance, bits) in distances.iter_mut().zip(all) {
        let differing = bits.as_ref().iter().zip(asked.as_ref()).map(|(a, b)| (a ^ b).count_ones());
        *distance = differing.sum::<u32>() as u16;
    }
}

#[inline(always)]
fn dot(query: &[i16], bytes: &[i8]) -> i32 {
    query.iter().zip(bytes).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}

#[inline(always)]
fn marks(values: impl Iterator<Item = f32>, mean: &[f32], bits: &mut [u64]) {
    bits.fill(0);
    for (at, (value, mean)) in values.zip(mean).enumerate() {
        bits[at / 64] |= u64::from(value > *mean) << (at % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look like any, from -1 to 1.
    struct Noise(u64);

    impl Noise {
        fn next(&mut self) -> f32 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        }

        fn vectors(&mut self, count: usize, dimensions: usize) -> Vec<Vec<f32>> {
            let centers: Vec<Vec<f32>> = (0..20).map(|_| (0..dimensions).map(|_| self.next()).collect()).collect();
            let around = |n: usize| &centers[n * 7 % 20];
            // Around some middles, all of them shifted to one side, some long and some short.
            (0..count)
                .map(|n| around(n).iter().map(|at| (at + 0.5 + 0.6 * self.next()) * (1 + n % 5) as f32).collect())
                .collect()
        }
    }

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    fn recall(codes: &Codes, vectors: &[Vec<f32>], queries: &[Vec<f32>]) -> f32 {
        // Few values round worse.
        let tolerance = ROUNDING * (384.0 / codes.dimensions() as f32).sqrt().max(1.0);
        let found = queries.iter().map(|query| {
            let mut exact: Vec<(f32, usize)> =
                vectors.iter().enumerate().map(|(at, vector)| (-cosine(query, vector), at)).collect();
            exact.sort_by(|a, b| a.0.total_cmp(&b.0));
            let near = codes.nearest(query, 10, -1.0);
            assert_eq!(near, codes.search(query, 10, -1.0), "on every processor");
            assert!(near.iter().all(|(by_bytes, at)| (by_bytes - cosine(query, &vectors[*at])).abs() < tolerance));
            exact[..10].iter().filter(|(_, at)| near[..25].iter().any(|near| near.1 == *at)).count()
        });
        found.sum::<usize>() as f32 / (10 * queries.len()) as f32
    }

    #[test]
    fn the_nearest_are_among_the_first() {
        for (count, dimensions) in [(100, 3), (2500, 384), (3000, 100)] {
            let mut noise = Noise(1);
            let mut vectors = noise.vectors(count + 20, dimensions);
            let queries = vectors.split_off(count);
            let mut codes = Codes::new(dimensions);
            vectors.iter().for_each(|vector| codes.push(vector));
            assert!(recall(&codes, &vectors, &queries) >= 0.98, "{count}");
            for at in 0..count / 10 {
                vectors[at * 3] = queries[at % 20].iter().map(|value| value + 0.1 * noise.next()).collect();
                codes.set(at * 3, &vectors[at * 3]);
                vectors.swap_remove(at);
                codes.swap_remove(at);
            }
            assert_eq!(codes.len(), vectors.len());
            assert!(recall(&codes, &vectors, &queries) >= 0.98, "{count}, changed");
        }
    }

    /// All about equally far from each other: bits alone would find half of the nearest.
    #[test]
    fn the_nearest_of_random_vectors_are_among_the_first() {
        let mut noise = Noise(3);
        let mut any =
            |count| -> Vec<Vec<f32>> { (0..count).map(|_| (0..384).map(|_| noise.next()).collect()).collect() };
        let (vectors, queries) = (any(6_000), any(5));
        let mut codes = Codes::new(384);
        vectors.iter().for_each(|vector| codes.push(vector));
        assert!(recall(&codes, &vectors, &queries) >= 0.98);
        // One that is as near as is asked for, and nothing else that is: found among the first, without all the others.
        for similarity in [0.6f32, 0.8, 0.95] {
            let query = &queries[0];
            let other = &queries[1];
            let scale = (1.0 / similarity.powi(2) - 1.0).sqrt();
            let planted: Vec<f32> = query.iter().zip(other).map(|(a, b)| a + scale * b).collect();
            codes.set(7, &planted);
            assert_eq!(codes.nearest(query, 10, similarity - 0.1)[0].1, 7);
        }
        let radius = |threshold| codes.needed(&[], &codes.spread(&queries[0]), (&queries[0], 10, threshold));
        assert!(radius(0.95) < 100 && radius(0.6) < 160 && radius(0.1) > 192);
    }

    #[test]
    fn extremes_are_vectors_like_any_other() {
        let mut codes = Codes::new(2);
        for vector in [[1e-30, 0.0], [0.0, 1e30], [-5.0, 0.0], [1e-3, 1e-3]] {
            codes.push(&vector);
        }
        let places = |query: &[f32]| codes.nearest(query, 1, -1.0).into_iter().map(|near| near.1).collect::<Vec<_>>();
        assert_eq!(places(&[1e-20, 0.0]), [0, 3, 1, 2]);
        assert_eq!(places(&[1e20, 1.1e20])[..2], [3, 1]);
    }
}
