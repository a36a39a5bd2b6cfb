//! Candidate sizes: those that are worth a look.

use super::options::OptimizerOptions;

/// Candidates per doubling of the size. Two neighbours are 9 % apart: a cliff is missed by less than that.
const STEPS_PER_OCTAVE: f64 = 8.0;

/// All candidates in ascending order: every size where they are small, then eight for each doubling.
pub(super) fn candidates(options: &OptimizerOptions) -> Vec<usize> {
    let (min, max) = (options.min_size as f64, options.max_size as f64);
    let steps = ((max / min).log2() * STEPS_PER_OCTAVE).ceil() as usize;
    let mut sizes: Vec<usize> = (0..=steps)
        .map(|step| (min * 2f64.powf(step as f64 / STEPS_PER_OCTAVE)).round() as usize)
        .map(|size| size.clamp(options.min_size, options.max_size))
        .chain([options.max_size])
        .collect();
    // Round numbers are what people, and hardware, expect.
    sizes.extend(
        (0..usize::BITS - 1).map(|bit| 1 << bit).filter(|size| (options.min_size..=options.max_size).contains(size)),
    );
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_dense_within_the_bounds_and_hold_the_powers_of_two() {
        for (min_size, max_size) in [(1, 128), (3, 100), (7, 7), (1, 1024)] {
            let sizes = candidates(&OptimizerOptions { min_size, max_size, ..OptimizerOptions::default() });
            assert_eq!((sizes.first(), sizes.last()), (Some(&min_size), Some(&max_size)));
            assert!(sizes.windows(2).all(|pair| pair[0] < pair[1]), "{sizes:?}");
            // Rounding included.
            assert!(sizes.windows(2).all(|pair| pair[1] as f64 <= 1.1 * pair[0] as f64 + 1.0), "{sizes:?}");
            let powers = (0..11).map(|bit| 1usize << bit).filter(|size| (min_size..=max_size).contains(size));
            assert!(powers.into_iter().all(|size| sizes.contains(&size)), "{sizes:?}");
        }
    }
}
