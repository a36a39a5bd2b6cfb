//! What optimizers do on machines that do not exist.

mod failures;
mod limits;
mod records;
mod search;

use super::noise::median;
use super::{BatchOptimizer, OptimizerOptions, Record};

pub(super) type Shape = fn(f64) -> f64;

/// A machine that does not exist: how long a batch takes, with noise. Deterministic for a seed.
pub(super) struct Synthetic {
    pub(super) shape: Shape,
    noise: f64,
    random: u64,
}

/// Milliseconds of a batch of n.
pub(super) fn small_best(n: f64) -> f64 {
    2.0 + 5.0 * n + 0.4 * n * n
}
pub(super) fn large_best(n: f64) -> f64 {
    60.0 + 1.5 * n
}
pub(super) fn cliff(n: f64) -> f64 {
    if n <= 50.0 { 20.0 + 2.0 * n } else { 20.0 + 16.0 * n }
}
/// A peak at 8 and a better one at 128, with a valley between.
pub(super) fn two_peaks(n: f64) -> f64 {
    let octaves = n.log2();
    let throughput = (-(octaves - 3.0).powi(2) / 2.0).exp() + 1.3 * (-(octaves - 7.0).powi(2) / 2.0).exp() + 0.05;
    10.0 * n / throughput
}
pub(super) const SHAPES: [(&str, Shape); 4] =
    [("small", small_best), ("large", large_best), ("cliff", cliff), ("two peaks", two_peaks)];

impl Synthetic {
    pub(super) fn new(shape: Shape, noise: f64, seed: u64) -> Self {
        Self { shape, noise, random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 }
    }

    pub(super) fn uniform(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn run(&mut self, size: usize) -> f64 {
        let gauss = (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0;
        (self.shape)(size as f64) * (self.noise * gauss).exp()
    }

    /// Throughput of `size` relative to the best one.
    pub(super) fn efficiency(&self, size: usize) -> f64 {
        let throughput = |n: usize| n as f64 / (self.shape)(n as f64);
        let best = (1..=128).map(throughput).fold(0.0, f64::max);
        throughput(size) / best
    }
}

pub(super) fn batch(size: usize, time_ms: f64) -> Record {
    Record {
        size,
        time_ms,
        items: size as f64,
        tokens: None,
        cpu: None,
        memory: None,
        sampled: false,
        success: true,
        at_ms: 0.0,
    }
}

pub(super) fn drive(optimizer: &mut BatchOptimizer, machine: &mut Synthetic, batches: usize) -> f64 {
    let (mut items, mut ideal) = (0.0, 0.0);
    let best = (1..=128).map(|n| n as f64 / (machine.shape)(n as f64)).fold(0.0, f64::max);
    for _ in 0..batches {
        let size = optimizer.current();
        let time = machine.run(size);
        items += size as f64;
        ideal += (machine.shape)(size as f64) * best;
        optimizer.record(batch(size, time)).unwrap();
    }
    items / ideal
}

pub(super) fn optimizer(initial: usize) -> BatchOptimizer {
    BatchOptimizer::new(initial, OptimizerOptions::default()).unwrap()
}

/// What twelve machines of a shape give: the worst and the median.
pub(super) fn over_seeds(mut run: impl FnMut(u64) -> f64) -> (f64, f64) {
    let mut values: Vec<f64> = (1..=12).map(&mut run).collect();
    let median = median(&mut values);
    (values[0], median)
}
