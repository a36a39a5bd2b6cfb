//! What batches are on a device that is not the processor: of few shapes, and never too large for its memory.
//!
//! A device prepares anew for every shape of `rows × tokens` that it has not seen, tens of milliseconds each for some kernels. So both are
//! filled up to one of a few numbers. And it tells that its memory is full only by failing: then batches get smaller.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Provider;
use crate::batch::Budget;

/// Steps within a doubling: of rows, whose number hardly changes within a call, and of tokens, of which up to a fifth is padding then.
const ROW_STEPS: usize = 2;
const TOKEN_STEPS: usize = 4;

/// Tokens below this are filled up to a multiple of 8, which kernels are made for.
const SHORT: usize = 64;
const MULTIPLE: usize = 8;

/// Runs without a failure, after which twice as much is tried again.
const RECOVERY: usize = 64;

/// How runtimes and drivers say that there is no memory, in lower case.
const OUT_OF_MEMORY: [&str; 8] = [
    "out of memory",
    "failed to allocate",
    "smaller than requested bytes",
    "cuda failure 2",
    "cublas_status_alloc_failed",
    "bad_alloc",
    "e_outofmemory",
    "outofdevicememory",
];

/// A device that computes a model.
#[derive(Debug)]
pub(super) struct Device {
    /// What is fastest to begin with.
    budget: Budget,
    /// Tokens of a batch, padding included, that did not fit; none that large runs.
    ceiling: AtomicUsize,
    /// Runs since the last failure.
    runs: AtomicUsize,
}

impl Device {
    /// What computes for `providers`, if it is not the processor alone.
    pub fn of(providers: &[Provider]) -> Option<Self> {
        // As measured: CUDA is fastest with 128 rows of 128 tokens, WebGPU with 32, and 16 times slower with 512.
        let rows = match providers.iter().find(|provider| **provider != Provider::Cpu)? {
            Provider::Cuda | Provider::TensorRtRtx => 128,
            _ => 32,
        };
        let budget = Budget { max_tokens: rows * 128, max_rows: 2 * rows };
        Some(Self { budget, ceiling: AtomicUsize::new(usize::MAX), runs: AtomicUsize::new(0) })
    }

    /// How large batches best are to begin with.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// The shape to which a batch of so many rows, the longest of so many tokens, is filled up; `most` is the longest that the model reads.
    pub fn shape(&self, rows: usize, longest: usize, most: usize) -> [usize; 2] {
        let tokens = if longest <= SHORT { longest.next_multiple_of(MULTIPLE) } else { step(longest, TOKEN_STEPS) };
        // Alone it stays: somebody waits for it.
        let rows = if rows == 1 { 1 } else { step(rows, ROW_STEPS) };
        [rows, tokens.min(most.max(longest))]
    }

    /// Whether a batch of that shape may run.
    pub fn admits(&self, [rows, tokens]: [usize; 2]) -> bool {
        rows == 1 || rows.saturating_mul(tokens) < self.ceiling.load(Ordering::Relaxed)
    }

    /// A batch of that shape has run.
    pub fn ran(&self) {
        if self.ceiling.load(Ordering::Relaxed) == usize::MAX {
            return;
        }
        if (self.runs.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(RECOVERY) {
            // Somebody else may have had the memory.
            self.ceiling.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |most| Some(most.saturating_mul(2))).ok();
        }
    }

    /// A batch of that shape has failed. Whether because there was no memory for it: then none that large runs for a while.
    pub fn failed(&self, [rows, tokens]: [usize; 2], reason: &str) -> bool {
        let reason = reason.to_ascii_lowercase();
        let full = OUT_OF_MEMORY.iter().any(|words| reason.contains(words));
        if full {
            self.ceiling.fetch_min(rows.saturating_mul(tokens), Ordering::Relaxed);
            self.runs.store(0, Ordering::Relaxed);
        }
        full
    }
}

/// The next number of those that divide each doubling into so many steps.
fn step(count: usize, steps: usize) -> usize {
    let below = (count.saturating_sub(1).max(1)).ilog2();
    let size = ((1usize << below) / steps).max(1);
    count.next_multiple_of(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_few_and_hold_what_they_are_for() {
        let device = Device::of(&[Provider::Cuda]).unwrap();
        let mut shapes = std::collections::BTreeSet::new();
        for rows in 1..=128 {
            for longest in 1..=512 {
                let [filled, tokens] = device.shape(rows, longest, 512);
                assert!(filled >= rows && tokens >= longest && tokens <= 512, "{rows} × {longest}");
                assert!(
                    filled * 2 <= rows * 3 && (longest <= SHORT || tokens * 4 <= longest * 5),
                    "{rows} × {longest}"
                );
                shapes.insert((filled, tokens));
            }
        }
        let counts =
            |of: fn(&(usize, usize)) -> usize| shapes.iter().map(of).collect::<std::collections::BTreeSet<_>>().len();
        assert_eq!((counts(|shape| shape.0), counts(|shape| shape.1)), (14, 20));
        assert_eq!(device.shape(1, 1, 512), [1, 8]);
        assert_eq!(device.shape(3, 500, 510), [3, 510]);
        assert_eq!([1, 2, 3, 4, 5, 7, 65, 97].map(|rows| device.shape(rows, 8, 512)[0]), [1, 2, 3, 4, 6, 8, 96, 128]);
    }

    #[test]
    fn batches_get_smaller_where_memory_is_full_and_larger_again_later() {
        let device = Device::of(&[Provider::Cpu, Provider::WebGpu]).unwrap();
        let shape = [32, 128];
        assert!(device.admits(shape));
        assert!(!device.failed(shape, "Non-zero status code: the graph is broken") && device.admits(shape));
        assert!(device.failed(shape, "CUDA failure 2: out of memory"));
        assert!(!device.admits(shape) && device.admits([16, 128]) && device.admits([1, 8192]));
        for _ in 0..RECOVERY {
            assert!(!device.admits(shape));
            device.ran();
        }
        assert!(device.admits(shape));
        assert!(Device::of(&[Provider::Cpu]).is_none());
    }
}
