//! What a model takes in memory: its weights by their files, a run by what was learned from a few.

use std::fs::{self, File};
use std::io::{self, BufReader, Seek};
use std::path::Path;

use super::protobuf::{Place, each_field, number_in};

/// Bytes for each token beside what the runtime allocates: its ids, mask and types, and its share of our own vectors.
const INPUTS: f64 = 64.0;

/// How much more than expected a run may take: allocators round up, and the fit is one of two points.
const MARGIN: f64 = 1.15;

/// What the runtime and the tokenizer take beside a model's weights.
const BESIDE_WEIGHTS: u64 = 24 << 20;

/// Bytes that a process grows by while a model with such weights is loaded: the runtime reads the file, copies weights out of
/// it, and arranges some of them anew before it lets go of the old ones (146 MB for the 86 MB of all-MiniLM-L6-v2, 27 MB for
/// the 9 MB of the built-in model).
fn load_bytes(weights: u64) -> u64 {
    if weights == 0 { 0 } else { weights.saturating_add(weights / 2).saturating_add(BESIDE_WEIGHTS) }
}

/// The same of a graph, by its file and those beside it; `mapped`: whether weights are read where they lie, as far as they are large.
pub(super) fn load_bytes_of(onnx: &Path, mapped: bool) -> u64 {
    let (inside, all) = (fs::metadata(onnx).map_or(0, |file| file.len()), weight_bytes(onnx));
    let halves = if all > LARGE { half_bytes(onnx).unwrap_or_default() } else { 0 };
    // Each becomes a number of 32 bits, twice as large; where it lies is let go of.
    let beside = if mapped { halves / 2 } else { parsed_bytes(inside, halves.min(inside)).max(halves / 2) };
    load_bytes(all).saturating_add(beside)
}

/// Weights up to which it makes no difference worth having how they are read.
const LARGE: u64 = 100 << 20;

/// Whether the weights in a graph's own file are better read where they lie than parsed.
pub(super) fn is_large(onnx: &Path) -> bool {
    fs::metadata(onnx).is_ok_and(|file| file.len() > LARGE)
}

/// Bytes that it takes beyond [`load_bytes`] where weights lie in the graph's own file, and the runtime parses that as a whole: 1,480 MB
/// in all for 832 MB, and, as some become numbers of 32 bits, 2,984 MB for 1,136 MB in half precision.
fn parsed_bytes(inside: u64, halves: u64) -> u64 {
    let beyond = inside.saturating_sub(LARGE);
    let halves = halves.min(beyond);
    ((beyond - halves) / 20 * 7).saturating_add(halves).saturating_add(halves / 4)
}

/// Bytes of the weights in half precision that a graph has, in its own file or beside it. Reads no more of it than says so.
fn half_bytes(onnx: &Path) -> io::Result<u64> {
    /// Fields of the messages of ONNX (onnx.proto), and its types FLOAT16 and BFLOAT16.
    const GRAPH: u64 = 7;
    const INITIALIZER: u64 = 5;
    const SIZES: u64 = 1;
    const DATA_TYPE: u64 = 2;
    const HALVES: [u64; 2] = [10, 16];
    let mut file = BufReader::new(File::open(onnx)?);
    let (mut sum, end) = (0_u64, fs::metadata(onnx)?.len());
    each_field(&mut file, end, &mut |file, number, graph| {
        let end = file.stream_position()?.saturating_add(graph.length());
        if number != GRAPH {
            return Ok(());
        }
        each_field(file, end, &mut |file, number, tensor| {
            let (end, mut kind, mut bytes) = (file.stream_position()?.saturating_add(tensor.length()), 0, 2_u64);
            if number == INITIALIZER {
                each_field(file, end, &mut |file, number, place| {
                    match (number, place) {
                        (DATA_TYPE, Place::Number(value)) => kind = value,
                        (SIZES, Place::Number(size)) => bytes = bytes.saturating_mul(size),
                        (SIZES, Place::Bytes(length)) => {
                            let end = file.stream_position()?.saturating_add(length);
                            while file.stream_position()? < end {
                                bytes = bytes.saturating_mul(number_in(file)?);
                            }
                        }
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            sum = sum.saturating_add(if HALVES.contains(&kind) { bytes } else { 0 });
            Ok(())
        })
    })?;
    Ok(sum)
}

/// Bytes of a graph and of the files beside it that hold its weights: their names begin with its own.
fn weight_bytes(onnx: &Path) -> u64 {
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
    use super::super::protobuf::Message;
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
    fn weights_inside_of_a_large_graph_are_parsed() {
        const MB: u64 = 1 << 20;
        for (inside, halves, grown) in [(832 * MB, 0, 1480 * MB), (1136 * MB, 1136 * MB, 2984 * MB)] {
            let bytes = load_bytes(inside) + parsed_bytes(inside, halves);
            assert!((grown..grown + grown / 20).contains(&bytes), "{}", bytes / MB);
        }
        assert_eq!(parsed_bytes(90 * MB, 90 * MB), 0);
        assert_eq!(parsed_bytes(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn weights_in_half_precision_are_found_in_a_graph() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models");
        let of = |name: &str| half_bytes(&models.join(name).join("onnx/model.onnx")).unwrap();
        let all = fs::metadata(models.join("bert-fp16/onnx/model.onnx")).unwrap().len();
        assert_eq!(of("bert-mean"), 0);
        assert!((all / 2..all).contains(&of("bert-fp16")), "{} of {all}", of("bert-fp16"));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.onnx");
        let whole = fs::read(models.join("bert-fp16/onnx/model.onnx")).unwrap();
        for length in [0, 1, 100, whole.len() / 2] {
            fs::write(&path, &whole[..length]).unwrap();
            half_bytes(&path).ok();
        }
        fs::write(&path, [0xff; 64]).unwrap();
        assert!(half_bytes(&path).is_err());
    }

    #[test]
    fn weights_in_half_precision_are_counted_beside_a_graph_too() {
        const MB: u64 = 1 << 20;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.onnx");
        let tensor = |kind: u64| {
            let sizes = Message::default().number(1, 1024).number(1, 65_536).number(2, kind);
            // Packed, as others write them.
            sizes.bytes(8, "weights").number(14, 1)
        };
        let packed = Message::default().bytes(1, [0x80, 0x80, 0x80, 0x01]).number(2, 16).number(14, 1);
        let graph =
            [tensor(10), tensor(1), packed].into_iter().fold(Message::default(), |graph, one| graph.bytes(5, one));
        fs::write(&path, Message::default().bytes(7, graph)).unwrap();
        assert_eq!(half_bytes(&path).unwrap(), 128 * MB + 4 * MB);
        fs::File::create(directory.path().join("model.onnx_data")).unwrap().set_len(384 * MB).unwrap();
        assert!(!is_large(&path));
        let [mapped, parsed] = [true, false].map(|mapped| load_bytes_of(&path, mapped));
        assert_eq!(mapped / MB, 384 + 192 + 24 + 66);
        assert!(parsed >= mapped);
    }

    #[test]
    fn what_was_measured_of_weights_that_are_mapped_is_expected() {
        const MB: u64 = 1 << 20;
        // Weights, those in half precision, and what a process grew by.
        for (weights, halves, grown) in [(384 * MB, 0, 408 * MB), (1136 * MB, 1136 * MB, 1836 * MB)] {
            assert!(load_bytes(weights) + halves / 2 >= grown);
        }
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
