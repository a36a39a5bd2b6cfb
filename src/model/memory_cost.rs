//! What a model takes in memory: its weights by their files, a run by what was learned from a few.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
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
fn load_bytes(weights: u64) -> u64 {
    if weights == 0 { 0 } else { weights.saturating_add(weights / 2).saturating_add(BESIDE_WEIGHTS) }
}

/// The same of a graph, by its file and those beside it.
pub(super) fn load_bytes_of(onnx: &Path) -> u64 {
    let inside = fs::metadata(onnx).map_or(0, |file| file.len());
    let halves = if inside > PARSED { half_bytes(onnx).unwrap_or_default() } else { 0 };
    load_bytes(weight_bytes(onnx)).saturating_add(parsed_bytes(inside, halves))
}

/// Weights up to which a graph's own file takes no more than others while it is parsed.
const PARSED: u64 = 100 << 20;

/// Bytes that it takes beyond [`load_bytes`] where weights lie in the graph's own file, which the runtime parses as a whole: 1,480 MB
/// in all for 832 MB, and, as some become numbers of 32 bits, 2,984 MB for 1,136 MB in half precision.
fn parsed_bytes(inside: u64, halves: u64) -> u64 {
    let beyond = inside.saturating_sub(PARSED);
    let halves = halves.min(beyond);
    ((beyond - halves) / 20 * 7).saturating_add(halves).saturating_add(halves / 4)
}

/// Bytes of the weights in half precision that lie in a graph's own file. Reads no more of it than says so.
fn half_bytes(onnx: &Path) -> io::Result<u64> {
    /// Fields of the messages of ONNX (onnx.proto), and its types FLOAT16 and BFLOAT16.
    const GRAPH: u64 = 7;
    const INITIALIZER: u64 = 5;
    const DATA_TYPE: u64 = 2;
    const RAW_DATA: u64 = 9;
    const HALVES: [u64; 2] = [10, 16];
    let mut file = BufReader::new(File::open(onnx)?);
    let (mut sum, end) = (0_u64, fs::metadata(onnx)?.len());
    fields(&mut file, end, &mut |file, number, length| {
        let end = file.stream_position()?.saturating_add(length);
        if number != GRAPH {
            return Ok(());
        }
        fields(file, end, &mut |file, number, length| {
            let (end, mut kind, mut bytes) = (file.stream_position()?.saturating_add(length), 0, 0);
            if number == INITIALIZER {
                fields(file, end, &mut |_, number, value| {
                    match number {
                        DATA_TYPE => kind = value,
                        RAW_DATA => bytes = value,
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

/// What becomes of a field.
type Show<'a> = dyn FnMut(&mut BufReader<File>, u64, u64) -> io::Result<()> + 'a;

/// Shows each field of a message, up to where that ends: its number, and its value or how many bytes follow.
fn fields(file: &mut BufReader<File>, end: u64, show: &mut Show<'_>) -> io::Result<()> {
    let odd = || io::Error::from(io::ErrorKind::InvalidData);
    while file.stream_position()? < end {
        let key = varint(file)?;
        let (value, length) = match key & 7 {
            0 => (varint(file)?, 0),
            1 => (0, 8),
            2 => varint(file).map(|length| (length, length))?,
            5 => (0, 4),
            _ => return Err(odd()),
        };
        let next = file.stream_position()?.checked_add(length).ok_or_else(odd)?;
        show(file, key >> 3, value)?;
        let rest = next.checked_sub(file.stream_position()?).ok_or_else(odd)?;
        file.seek_relative(i64::try_from(rest).map_err(|_| odd())?)?;
    }
    Ok(())
}

/// A number of which each byte holds seven bits.
fn varint(file: &mut impl Read) -> io::Result<u64> {
    let (mut value, mut byte) = (0, [0]);
    for shift in (0..64).step_by(7) {
        file.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 127) << shift;
        if byte[0] < 128 {
            return Ok(value);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
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
