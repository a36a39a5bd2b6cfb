//! Vectors in a tenth of their size, to find out which few of many are worth a close look.
//!
//! Each vector is kept twice: one bit per value, whether it is above the mean of all, and one byte per value. A search
//! counts differing bits, which takes some nanoseconds a vector, ranks the nearest few hundred by their bytes, and
//! gives the best of these. That is no exact answer, but near to one: whoever asks compares the vectors themselves.
//!
//! How many differing bits are few enough, each search finds out by itself: those of the answers tell how many an
//! equally near vector may have, and while the ranked ones do not reach `SIGMAS` beyond that, more are ranked, up to
//! all. Vectors of a model lie in heaps, and the first few hundred do; among random vectors, which are all about equally
//! far from each other, it takes all bytes, more than ten times as long.
//!
//! Why not a graph (HNSW: `usearch`, `hnsw_rs`): a hundred thousand vectors take this less than a millisecond; it is there
//! as soon as the vectors were read once (a graph takes many times as long to be built), forgets an entry at once, finds as
//! much among random vectors, and needs no C++ and no dozen of crates in every build. Of 14,800 vectors of a model
//! `hnsw_rs` needed 31 s to be built and 12.6 ms a search for a recall@10 of 0.984; this has 0.997 in less than half a
//! millisecond. It grows with their number, though: at some millions, a graph would be the better choice.

/// Searched by their bytes, at least.
const CANDIDATES: usize = 200;

/// How far beyond the expected number of differing bits an answer may lie, in standard deviations: one of some hundreds
/// lies farther.
const SIGMAS: f32 = 3.0;

/// Standard deviation of the number of differing bits, at least: bits of near vectors are few, and no coins.
const LEAST_SIGMA: f32 = 2.0;

/// Vectors whose bits are counted side by side: some registers full of words, and no more than the compiler unrolls into
/// code without a loop.
const LANES: usize = 16;

/// From this part of all on, all are ranked: one after the other, that is faster.
const MANY: usize = 6;

/// How far the cosine by bytes usually is from the one by the values themselves, ten times over, at 384 values.
const ROUNDING: f32 = 0.004;

/// What sums of single precision add to that.
const PRECISION: f32 = 1e-5;

/// Bytes of a code stand for -1–1 of the largest value of the vector.
const STEPS: f32 = 127.0;

/// What is probably nearest to a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Near {
    /// The cosine of each, by its bytes, and its place; the nearest first.
    pub ranked: Vec<(f32, usize)>,
    /// How far such a cosine may be from the one by the values themselves, at most.
    pub rounding: f32,
}

/// Codes of vectors of one length, at places `0..len()`.
#[derive(Debug, Default)]
pub struct QuantizedCodes {
    dimensions: usize,
    /// `dimensions` for each.
    bytes: Vec<i8>,
    /// What a byte stands for: times its length, so that vectors of length 1 are compared.
    scales: Vec<f32>,
    /// `words()` for each; those of [`LANES`] vectors side by side.
    bits: Vec<[u64; LANES]>,
    /// The mean of the vectors, when there were `counted` of them.
    mean: Vec<f32>,
    counted: usize,
}

impl QuantizedCodes {
    /// None yet, of so many values.
    pub fn new(dimensions: usize) -> Self {
        Self { dimensions, mean: vec![0.0; dimensions], ..Self::default() }
    }

    /// Of what is known already: the bytes of all, one after the other, and the scale of each.
    pub fn of(dimensions: usize, bytes: Vec<i8>, scales: Vec<f32>) -> Self {
        let mut codes = Self { bytes, scales, ..Self::new(dimensions) };
        codes.bits.resize(codes.words() * codes.len().div_ceil(LANES), [0; LANES]);
        if !codes.is_empty() {
            codes.settle();
        }
        codes
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// Values of each vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn words(&self) -> usize {
        self.dimensions.div_ceil(64)
    }

    /// Adds a vector at the end. It has [`QuantizedCodes::new`]'s length and is not zero.
    pub fn push(&mut self, vector: &[f32]) {
        self.push_code(&Code::of(vector));
    }

    /// [`QuantizedCodes::push`] of what is known already.
    pub fn push_code(&mut self, code: &Code) {
        let at = self.len();
        self.bytes.resize(self.bytes.len() + self.dimensions, 0);
        self.bits.resize(self.words() * (at / LANES + 1), [0; LANES]);
        self.scales.push(0.0);
        self.set_code(at, code);
        if self.len() >= 2 * self.counted.max(CANDIDATES / 2) {
            self.settle();
        }
    }

    /// Puts another vector in the place of one.
    pub fn set(&mut self, at: usize, vector: &[f32]) {
        self.set_code(at, &Code::of(vector));
    }

    /// [`QuantizedCodes::set`] of what is known already.
    pub fn set_code(&mut self, at: usize, code: &Code) {
        self.bytes[at * self.dimensions..][..self.dimensions].copy_from_slice(&code.bytes);
        self.scales[at] = code.scale;
        self.mark(at);
    }

    /// What is kept of one.
    pub fn code(&self, at: usize) -> (&[i8], f32) {
        (&self.bytes[at * self.dimensions..][..self.dimensions], self.scales[at])
    }

    /// Takes one away; the last one takes its place.
    pub fn swap_remove(&mut self, at: usize) {
        let last = self.len() - 1;
        self.bytes.copy_within(last * self.dimensions.., at * self.dimensions);
        self.bytes.truncate(last * self.dimensions);
        let (to, from) = (self.row(at), self.row(last));
        for word in 0..self.words() {
            self.bits[to + word][at % LANES] = self.bits[from + word][last % LANES];
        }
        self.bits.truncate(self.words() * last.div_ceil(LANES));
        self.scales.swap_remove(at);
    }

    /// Where the words of its block begin.
    fn row(&self, at: usize) -> usize {
        at / LANES * self.words()
    }

    fn mark(&mut self, at: usize) {
        let scale = self.scales[at];
        let bytes = &self.bytes[at * self.dimensions..][..self.dimensions];
        let marks = marks(bytes, &self.mean, |byte| f32::from(byte) * scale);
        let row = self.row(at);
        for (words, mark) in self.bits[row..].iter_mut().zip(marks) {
            words[at % LANES] = mark;
        }
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

    /// The vectors that are probably nearest to `query`. At least four times `limit`, if there are so many, and all whose bytes
    /// leave it open whether they are among the `limit` nearest; all of them that matter have a cosine of at least `threshold`.
    pub fn nearest(&self, query: &[f32], limit: usize, threshold: f32) -> Near {
        #[cfg(target_arch = "x86_64")]
        for (has, nearest) in x86::WAYS {
            if has() {
                // SAFETY: the processor has what the function is compiled for.
                #[allow(unsafe_code)]
                return unsafe { nearest(self, query, limit, threshold) };
            }
        }
        self.search(query, limit, threshold)
    }

    /// Always inlined, as all that it calls where time is spent, and without closures there: each way to compile it then
    /// is one function.
    #[inline(always)]
    fn search(&self, query: &[f32], limit: usize, threshold: f32) -> Near {
        let asked = Asked::new(self, query);
        let limit = limit.max(1);
        let most = CANDIDATES.max(limit.saturating_mul(4));
        if self.len() <= most {
            return self.ranked(&asked, 0..self.len(), limit, most);
        }
        let (mut candidates, mut radius) = self.fewest(&asked.bits, most);
        loop {
            let near = self.ranked(&asked, candidates.into_iter().map(|(_, at)| at as usize), limit, usize::MAX);
            // So many that are as near as the last one: bits do not tell them apart.
            if near.ranked[most - 1].0 + ROUNDING >= near.ranked[limit - 1].0 {
                return self.ranked(&asked, 0..self.len(), limit, most);
            }
            let needed = self.needed(&near.ranked, &asked, limit, threshold);
            if needed <= radius {
                return near;
            }
            match self.within(&asked.bits, needed as u64, self.len() / MANY) {
                Some(more) => candidates = more,
                None => return self.ranked(&asked, 0..self.len(), limit, most),
            }
            radius = needed;
        }
    }

    /// Those with the fewest bits that differ, in no order: `most` of them. And up to which number all are there, -1: none.
    #[inline(always)]
    fn fewest(&self, asked: &[u64], most: usize) -> (Vec<(u32, u32)>, i32) {
        let mut found = Vec::with_capacity(2 * most + LANES);
        let mut below = self.dimensions as u64 + 1;
        for (block, bits) in self.bits.chunks_exact(self.words()).enumerate() {
            self.take_below(below, block, asked, bits, &mut found);
            if found.len() >= 2 * most {
                below = keep(&mut found, most);
            }
        }
        let last = keep(&mut found, most);
        (found, last as i32 - 1)
    }

    /// All that differ by no more than `radius`, unless they are more than `most`.
    #[inline(always)]
    fn within(&self, asked: &[u64], radius: u64, most: usize) -> Option<Vec<(u32, u32)>> {
        let mut found = Vec::new();
        for (block, bits) in self.bits.chunks_exact(self.words()).enumerate() {
            self.take_below(radius + 1, block, asked, bits, &mut found);
            if found.len() > most {
                return None;
            }
        }
        Some(found)
    }

    /// Adds those of a block that differ by less than `below`.
    #[inline(always)]
    fn take_below(&self, below: u64, block: usize, asked: &[u64], bits: &[[u64; LANES]], found: &mut Vec<(u32, u32)>) {
        let mut differing = [0u64; LANES];
        for (words, asked) in bits.iter().zip(asked) {
            for lane in 0..LANES {
                differing[lane] += u64::from((words[lane] ^ asked).count_ones());
            }
        }
        let mut some = false;
        for differing in &differing {
            some |= *differing < below;
        }
        if !some {
            return;
        }
        for (lane, differing) in differing.iter().enumerate() {
            let at = block * LANES + lane;
            // What fills the last block is no vector.
            if *differing < below && at < self.len() {
                found.push((*differing as u32, at as u32));
            }
        }
    }

    /// The cosines of those at `places`, the nearest first: `most` of them, and what may be among the `limit` nearest.
    #[inline(always)]
    fn ranked(&self, asked: &Asked, places: impl Iterator<Item = usize>, limit: usize, most: usize) -> Near {
        let mut ranked = Vec::with_capacity(places.size_hint().0);
        for at in places {
            let bytes = &self.bytes[at * self.dimensions..][..self.dimensions];
            ranked.push((dot(&asked.steps, bytes) as f32 * self.scales[at] / asked.length, at));
        }
        // Equal ones by their places, so that the same vectors are found every time.
        let nearer = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if ranked.len() > most {
            ranked.select_nth_unstable_by(most, nearer);
            ranked[..most].select_nth_unstable_by(limit - 1, nearer);
            let least = ranked[limit - 1].0 - self.rounding(asked, &ranked[..limit]);
            let mut widest = 0.0f32;
            for scale in &self.scales {
                widest = widest.max(*scale);
            }
            // Of most, that is enough to know.
            let near = least - asked.rounding(widest);
            let mut kept = most;
            for at in most..ranked.len() {
                let (similarity, place) = ranked[at];
                if similarity >= near && similarity + asked.rounding(self.scales[place]) >= least {
                    ranked.swap(kept, at);
                    kept += 1;
                }
            }
            ranked.truncate(kept);
        }
        ranked.sort_unstable_by(nearer);
        let rounding = self.rounding(asked, &ranked);
        Near { ranked, rounding }
    }

    /// How far the cosines of these may be off.
    #[inline(always)]
    fn rounding(&self, asked: &Asked, ranked: &[(f32, usize)]) -> f32 {
        let mut scale = 0.0f32;
        for (_, at) in ranked {
            scale = scale.max(self.scales[*at]);
        }
        asked.rounding(scale)
    }

    /// Within how many differing bits the `limit` nearest are, all but surely, as `ranked` and what is asked for let one
    /// expect.
    fn needed(&self, ranked: &[(f32, usize)], asked: &Asked, limit: usize, threshold: f32) -> i32 {
        let found = ranked.iter().take(limit).take_while(|(similarity, _)| similarity + ROUNDING >= threshold).count();
        let mut needed = -1.0f32;
        // Others that are as near as the farther half of them differ by as many bits.
        let farther = &ranked[found / 2..found];
        if !farther.is_empty() {
            let number = farther.len() as f32;
            let bits = || farther.iter().map(|(_, at)| self.differing(*at, &asked.bits) as f32);
            let mean = bits().sum::<f32>() / number;
            let seen = bits().map(|bits| (bits - mean).powi(2)).sum::<f32>() / (number - 1.0).max(1.0);
            needed = mean + SIGMAS * (self.variance(mean).max(seen) * (1.0 + 1.0 / number)).sqrt();
        }
        if found < limit {
            let mean = self.expected(&asked.unit, threshold);
            needed = needed.max(mean + SIGMAS * self.variance(mean).sqrt());
        }
        (needed as i32).min(self.dimensions as i32)
    }

    fn differing(&self, at: usize, asked: &[u64]) -> u32 {
        self.bits[self.row(at)..].iter().zip(asked).map(|(words, asked)| (words[at % LANES] ^ asked).count_ones()).sum()
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

/// What is kept of a vector, whatever the others are.
#[derive(Debug, Clone, PartialEq)]
pub struct Code {
    /// One for each value.
    pub bytes: Vec<i8>,
    /// What a byte stands for.
    pub scale: f32,
}

impl Code {
    /// Of a vector that is not zero.
    pub fn of(vector: &[f32]) -> Self {
        let largest = vector.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        // Of the vector whose largest value is 1: the square of a value may be no f32.
        let norm = vector.iter().map(|value| (value / largest).powi(2)).sum::<f32>().sqrt();
        let bytes = vector.iter().map(|value| (value / largest * STEPS).round() as i8).collect();
        Self { bytes, scale: 1.0 / STEPS / norm }
    }
}

/// A query, in all ways that it is compared in.
struct Asked {
    unit: Vec<f32>,
    bits: Vec<u64>,
    /// As many steps as the sum of all products has room for.
    steps: Vec<i16>,
    /// Of `steps`.
    length: f32,
    /// The sum of the values of `unit`, each as it is above 0.
    sum: f32,
}

impl Asked {
    fn new(codes: &QuantizedCodes, query: &[f32]) -> Self {
        let largest = query.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let norm = query.iter().map(|value| (value / largest).powi(2)).sum::<f32>().sqrt();
        let unit: Vec<f32> = query.iter().map(|value| value / largest / norm).collect();
        let bits = marks(&unit, &codes.mean, |value| value).collect();
        let steps = (i32::MAX as f32 / STEPS / codes.dimensions as f32 / 2.0).min(4095.0);
        let length = norm * steps;
        let sum = unit.iter().map(|value| value.abs()).sum();
        Self { bits, steps: unit.iter().map(|value| (value * length).round() as i16).collect(), length, sum, unit }
    }

    /// How far the cosine with a code of this scale may be off: half a step for each value, on both sides.
    #[inline(always)]
    fn rounding(&self, scale: f32) -> f32 {
        let root = (self.unit.len() as f32).sqrt();
        0.5 * (self.sum * scale + root / self.length * (1.0 + 0.5 * root * scale)) + PRECISION
    }
}

/// Keeps the `most` with the fewest bits that differ, those first in place of equal ones; how many the last one has.
fn keep(found: &mut Vec<(u32, u32)>, most: usize) -> u64 {
    let (_, last, _) = found.select_nth_unstable(most - 1);
    let last = last.0.into();
    found.truncate(most);
    last
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Near, QuantizedCodes};

    type Nearest = unsafe fn(&QuantizedCodes, &[f32], usize, f32) -> Near;

    /// The best first.
    pub const WAYS: [(fn() -> bool, Nearest); 2] = [
        (
            || {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vpopcntdq")
                    && is_x86_feature_detected!("popcnt")
            },
            avx512,
        ),
        (|| is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt"), avx2),
    ];

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vpopcntdq,popcnt")]
    fn avx512(codes: &QuantizedCodes, query: &[f32], limit: usize, threshold: f32) -> Near {
        codes.search(query, limit, threshold)
    }

    #[target_feature(enable = "avx2,popcnt")]
    fn avx2(codes: &QuantizedCodes, query: &[f32], limit: usize, threshold: f32) -> Near {
        codes.search(query, limit, threshold)
    }
}

#[inline(always)]
fn dot(query: &[i16], bytes: &[i8]) -> i32 {
    query.iter().zip(bytes).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}

/// Whether what each value stands for is above its mean, in words.
fn marks<T: Copy>(values: &[T], mean: &[f32], of: impl Fn(T) -> f32) -> impl Iterator<Item = u64> {
    values.chunks(64).zip(mean.chunks(64)).map(move |(values, mean)| {
        let mut above = [0u8; 64];
        for ((above, value), mean) in above.iter_mut().zip(values).zip(mean) {
            *above = u8::from(of(*value) > *mean);
        }
        // The product brings the lowest bits of eight bytes together in the highest byte.
        let eight = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        above.as_chunks().0.iter().enumerate().fold(0, |word, (at, bytes)| word | eight(bytes) << (8 * at))
    })
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

    fn recall(codes: &QuantizedCodes, vectors: &[Vec<f32>], queries: &[Vec<f32>]) -> f32 {
        let found = queries.iter().map(|query| {
            let mut exact: Vec<(f32, usize)> =
                vectors.iter().enumerate().map(|(at, vector)| (-cosine(query, vector), at)).collect();
            exact.sort_by(|a, b| a.0.total_cmp(&b.0));
            let off = |(by_bytes, at): &(f32, usize)| (by_bytes - cosine(query, &vectors[*at])).abs();
            let near = codes.nearest(query, 10, -1.0);
            assert_eq!(near, codes.search(query, 10, -1.0), "on every processor");
            #[cfg(target_arch = "x86_64")]
            for (has, nearest) in x86::WAYS {
                // SAFETY: the processor has what the function is compiled for.
                #[allow(unsafe_code)]
                let same = || near == unsafe { nearest(codes, query, 10, -1.0) };
                assert!(!has() || same(), "with every set of instructions");
            }
            assert!(near.ranked.iter().all(|one| off(one) <= near.rounding));
            let near = near.ranked;
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
            let mut codes = QuantizedCodes::new(dimensions);
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
        let mut codes = QuantizedCodes::new(384);
        vectors.iter().for_each(|vector| codes.push(vector));
        assert!(recall(&codes, &vectors, &queries) >= 0.98);
        // One that is as near as is asked for, and nothing else that is: found among the first, without all the others.
        for similarity in [0.6f32, 0.8, 0.95] {
            let query = &queries[0];
            let other = &queries[1];
            let scale = (1.0 / similarity.powi(2) - 1.0).sqrt();
            let planted: Vec<f32> = query.iter().zip(other).map(|(a, b)| a + scale * b).collect();
            codes.set(7, &planted);
            assert_eq!(codes.nearest(query, 10, similarity - 0.1).ranked[0].1, 7);
        }
        let radius = |threshold| codes.needed(&[], &Asked::new(&codes, &queries[0]), 10, threshold);
        assert!(radius(0.95) < 100 && radius(0.6) < 160 && radius(0.1) > 192);
    }

    /// Nearer to each other than bytes can tell: whatever may be the nearest is there.
    #[test]
    fn what_bytes_cannot_tell_apart_is_all_there() {
        let mut noise = Noise(5);
        for (count, dimensions, spread) in [(3000, 384, 1e-4), (5000, 384, 2e-3), (4000, 2, 1e-4)] {
            let center: Vec<f32> = (0..dimensions).map(|_| noise.next()).collect();
            let mut around = |spread: f32| -> Vec<f32> { center.iter().map(|at| at + spread * noise.next()).collect() };
            let vectors: Vec<Vec<f32>> = (0..count).map(|_| around(spread)).collect();
            let mut codes = QuantizedCodes::new(dimensions);
            vectors.iter().for_each(|vector| codes.push(vector));
            for at in (0..count).step_by(311) {
                let near = codes.nearest(&vectors[at], 10, -1.0);
                assert!(near.ranked.iter().any(|(_, place)| *place == at), "{at} of {count}, {spread}");
            }
        }
    }

    #[test]
    fn extremes_are_vectors_like_any_other() {
        let mut codes = QuantizedCodes::new(2);
        for vector in [[1e-30, 0.0], [0.0, 1e30], [-5.0, 0.0], [1e-3, 1e-3]] {
            codes.push(&vector);
        }
        let places =
            |query: &[f32]| codes.nearest(query, 1, -1.0).ranked.into_iter().map(|near| near.1).collect::<Vec<_>>();
        assert_eq!(places(&[1e-20, 0.0]), [0, 3, 1, 2]);
        assert_eq!(places(&[1e20, 1.1e20])[..2], [3, 1]);
    }
}
