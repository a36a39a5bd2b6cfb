//! The answer to a request for embeddings, as clients of OpenAI's read it. JS class: `EmbeddingServer`.
//!
//! Written here, because an answer may have a million numbers, which would hold up the event loop.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::ser::{CompactFormatter, Formatter};

/// Bytes that a number takes at most: `-1.17549435e-38`, and a comma.
const NUMBER: usize = 16;

/// Bytes of an item beside its vector, with room for any index.
const FRAME: usize = 96;

/// Some vectors in a row.
#[derive(Debug, Clone, Copy)]
pub struct Items<'a> {
    /// All values, vector by vector.
    pub values: &'a [f32],
    /// Values of a vector.
    pub dimensions: usize,
    /// For each vector, whether the model did not see all of its text.
    pub truncated: &'a [u8],
    /// The index of the first one.
    pub first: usize,
    /// Whether vectors are written in base64: their values as they lie in memory, little-endian.
    pub base64: bool,
}

impl Items<'_> {
    /// `before`, then the items as JSON with a comma between each two, then `after`. Numbers are the shortest that read
    /// back as the same 32-bit value.
    ///
    /// # Errors
    /// None: nothing is written but to memory.
    pub fn write(&self, before: &str, after: &str) -> io::Result<Vec<u8>> {
        let each = if self.base64 { self.dimensions * 6 } else { self.dimensions * NUMBER };
        let room = self.truncated.len() * (each + FRAME) + before.len() + after.len();
        let mut out = Vec::with_capacity(room);
        out.extend_from_slice(before.as_bytes());
        let vectors = self.values.chunks_exact(self.dimensions.max(1));
        for (at, (vector, truncated)) in vectors.zip(self.truncated).enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let index = self.first + at;
            write!(out, r#"{comma}{{"object":"embedding","index":{index},"embedding":"#)?;
            if self.base64 {
                write_base64(&mut out, vector);
            } else {
                write_numbers(&mut out, vector)?;
            }
            out.extend_from_slice(if *truncated == 0 { b"}" } else { br#","truncated":true}"# });
        }
        out.extend_from_slice(after.as_bytes());
        Ok(out)
    }
}

fn write_numbers(out: &mut Vec<u8>, vector: &[f32]) -> io::Result<()> {
    out.push(b'[');
    for value in vector {
        match value.is_finite() {
            true => CompactFormatter.write_f32(out, *value)?,
            false => out.extend_from_slice(b"null"),
        }
        if out.ends_with(b".0") {
            out.truncate(out.len() - 2);
        }
        out.push(b',');
    }
    match out.last_mut() {
        Some(last) if *last == b',' => *last = b']',
        _ => out.push(b']'),
    }
    Ok(())
}

fn write_base64(out: &mut Vec<u8>, vector: &[f32]) {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // There is room for all of it.
    let written = STANDARD.encode_slice(&bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn json(items: Items<'_>) -> Vec<Value> {
        serde_json::from_slice(&items.write("[", "]").unwrap()).unwrap()
    }

    #[test]
    fn numbers_are_the_shortest_of_their_value() {
        let values = [0.042_553_097, -0.0, 1.0, 3e-12, f32::MAX, f32::MIN_POSITIVE, 16_777_216.0, f32::NAN];
        let items = Items { values: &values, dimensions: 4, truncated: &[0, 1], first: 7, base64: false };
        let text = String::from_utf8(items.write("", "\n").unwrap()).unwrap();
        assert_eq!(
            text,
            "{\"object\":\"embedding\",\"index\":7,\"embedding\":[0.042553097,-0,1,3e-12]},\
             {\"object\":\"embedding\",\"index\":8,\"embedding\":[3.4028235e+38,1.1754944e-38,16777216,null],\"truncated\":true}\n"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bits: Vec<u32>, dimensions in 1usize..9) {
            let values: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|value| value.is_finite()).collect();
            let rows = values.len() / dimensions;
            let truncated = vec![0; rows];
            let items = Items { values: &values, dimensions, truncated: &truncated, first: 0, base64: false };
            let (plain, coded) = (json(items), json(Items { base64: true, ..items }));
            prop_assert_eq!((plain.len(), coded.len()), (rows, rows));
            for (row, vector) in values.chunks_exact(dimensions).enumerate() {
                let read = plain[row]["embedding"].as_array().unwrap().iter().map(|n| n.to_string().parse::<f32>().unwrap());
                prop_assert_eq!(read.collect::<Vec<_>>(), vector);
                let bytes = STANDARD.decode(coded[row]["embedding"].as_str().unwrap()).unwrap();
                let read = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
                prop_assert_eq!(read.collect::<Vec<_>>(), vector);
            }
        }
    }
}
