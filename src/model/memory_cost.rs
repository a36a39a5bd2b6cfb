//! What a model takes in memory: its weights by their files, a run by what was learned from a few.

use std::fs;
use std::path::Path;

/// Bytes for each token beside what the runtime allocates: its ids, mask and types, and its share of our own vectors.
const INPUTS: f64 = 64.0;

/// How much more than expected a run may take: allocators round up, and the fit is one of two points.
const MARGIN: f64 = 1.15;

/// What the runtime and the tokenizer take beside a model's weights.
const BESIDE_WEIGHTS: u64 = 24 << 20;

/// Bytes that a process grows by while a model with such weights is loaded: the runtime reads the file, copies weights out of
/// it, and arranges some of them anew before it lets go of the old ones (146 MB for the 86 MB of all-MiniLM-L6-v2, 27 MB for
/// the 9 MB of the built-in model).
pub(super) fn load_bytes(weights: u64) -> u64 {
    if weights == 0 { 0 } else { weights.saturating_add(weights / 2).saturating_add(BESIDE_WEIGHTS) }
}

/// Bytes of a graph and of the files beside it that hold its weights: their names begin with its own.
pub(super) fn weight_bytes(onnx: &Path) -> u64 {
    let Some((directory, name)) = onnx.parent().zip(onnx.file_name()) else { return 0 };
    let own = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&*name.to_string_lossy());
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().filter(own);
    entries.filter_map(|entry| fs::metadata(entry.path()).ok()).map(|file| file.len()).sum()
}

/// Bytes of a run of `rows` texts, the longest of which has n tokens: rows × (a·n + b·n²). A transformer's layers take
/// memory for each token, its attention for each pair of tokens of one text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemoryCost {
    token: f64,
    pair: f64,
}

impl MemoryCost {
    /// The price that explains two runs of one text each: (tokens, bytes).
    pub fn fit(short: (usize, u64), long: (usize, u64)) -> Self {
        let each = |(tokens, bytes): (usize, u64)| bytes as f64 / tokens.max(1) as f64;
        let apart = long.0.saturating_sub(short.0);
        if apart == 0 {
            return Self { token: each(short).max(each(long)), pair: 0.0 };
        }
        let pair = ((each(long) - each(short)) / apart as f64).max(0.0);
        Self { token: (each(long) - pair * long.0 as f64).max(0.0), pair }
    }

    /// A guess for a graph of which only the length of its vectors is known. The first factor is what a BERT takes in
    /// ONNX Runtime, rounded up (52 bytes for each value of a token's vector, all-MiniLM-L6-v2); the second one is for 16
    /// heads with 4 bytes each.
    pub fn guess(width: usize) -> Self {
        Self { token: 64.0 * width as f64, pair: 64.0 }
    }

    /// Bytes of a run.
    pub fn bytes(&self, rows: usize, longest: usize) -> u64 {
        let tokens = longest as f64;
        (rows as f64 * tokens * ((self.token + self.pair * tokens) * MARGIN + INPUTS)).ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_at_least_what_was_measured_and_not_much_more() {
        // all-MiniLM-L6-v2 in fp32: peaks of the runtime's arena, in bytes.
        let measured = [
            (1, 16, 319_744),
            (1, 64, 1_441_792),
            (1, 128, 3_145_728),
            (1, 256, 7_736_832),
            (2, 256, 15_468_544),
            (4, 256, 31_461_376),
            (8, 256, 62_922_752),
            (32, 256, 251_691_008),
        ];
        let price = MemoryCost::fit((64, 1_441_792), (128, 3_145_728));
        for (rows, longest, bytes) in measured {
            let priced = price.bytes(rows, longest);
            assert!(
                priced >= bytes && priced as f64 <= bytes as f64 * 1.35,
                "{rows} × {longest}: {priced} for {bytes}"
            );
        }
    }

    #[test]
    fn loading_takes_at_least_what_was_measured_and_not_much_more() {
        const MB: u64 = 1 << 20;
        for (weights, grown) in [(90_332_124, 146 * MB), (10_000_000, 27 * MB)] {
            assert!((grown..grown + 12 * MB).contains(&load_bytes(weights)), "{}", load_bytes(weights) / MB);
        }
        assert_eq!((load_bytes(0), load_bytes(u64::MAX)), (0, u64::MAX));
    }

    #[test]
    fn weights_are_the_graph_and_what_belongs_to_it() {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in
            [("model.onnx", 10), ("model.onnx_data", 100), ("model_fp16.onnx", 1000), ("config.json", 5)]
        {
            fs::write(directory.path().join(name), vec![0; bytes]).unwrap();
        }
        assert_eq!(weight_bytes(&directory.path().join("model.onnx")), 110);
        assert_eq!(weight_bytes(Path::new("/nowhere/model.onnx")), 0);
    }

    #[test]
    fn odd_measurements_give_no_odd_prices() {
        for (short, long) in [((1, 0), (1, 0)), ((8, 100), (8, 50)), ((8, 1000), (64, 10)), ((1, u64::MAX), (2, 1))] {
            let price = MemoryCost::fit(short, long);
            assert!(price.token.is_finite() && price.token >= 0.0 && price.pair >= 0.0, "{price:?}");
            assert!(price.bytes(3, 100) >= 3 * 100 * INPUTS as u64);
        }
        assert!(MemoryCost::guess(384).bytes(1, 256) > 7_736_832);
        assert_eq!(MemoryCost::guess(usize::MAX).bytes(usize::MAX, usize::MAX), u64::MAX);
    }
}
