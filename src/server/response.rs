//! The answer to a request for embeddings, as clients of OpenAI's read it. JS class: `EmbeddingServer`.
//!
//! Written here, because an answer may have a million numbers, which would hold up the event loop.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes of the longest number there is, `-1.17549435e-38`, and a comma.
const NUMBER: usize = 16;

/// Bytes of an item beside its vector, with room for any index.
const FRAME: usize = 96;

/// Bytes that are written at a time, about.
const CHUNK: usize = 1 << 18;

/// Bytes that a value takes, about: as a number, and in base64.
const VALUE: [f32; 2] = [11.5, 5.4];

/// What is answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vectors {
    /// All values, vector by vector.
    pub values: Vec<f32>,
    /// Values of a vector.
    pub dimensions: usize,
    /// For each vector, whether the model did not see all of its text.
    pub truncated: Vec<bool>,
    /// Tokens of all texts, special tokens included.
    pub tokens: u64,
    /// Whether they are of length 1, and are to be so when they are shortened.
    pub normalized: bool,
}

/// How it is answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Form {
    /// What the client calls the model.
    pub model: String,
    /// Whether vectors are written in base64: their values as they lie in memory, little-endian.
    pub base64: bool,
    /// How many of its values are answered of each vector; `None`: all.
    pub dimensions: Option<usize>,
}

/// An answer as it is written.
#[derive(Debug, Default)]
pub struct Response {
    vectors: Vectors,
    form: Form,
    /// The vector that is written next.
    next: usize,
}

impl Response {
    /// Of nothing that is written yet.
    pub fn new(vectors: Vectors, form: Form) -> Self {
        Self { vectors, form, next: 0 }
    }

    /// Whether all of it is written.
    pub fn is_over(&self) -> bool {
        self.next >= self.vectors.truncated.len()
    }
}

/// Pieces of the JSON. Numbers are the shortest that read back as the same 32-bit value.
impl Iterator for Response {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.is_over() {
            return None;
        }
        let Self { vectors, form, next: first } = self;
        let rows = vectors.truncated.len();
        let dimensions = form.dimensions.map_or(vectors.dimensions, |most| most.min(vectors.dimensions)).max(1);
        let likely = (dimensions as f32 * VALUE[usize::from(form.base64)]) as usize + FRAME;
        let end = (*first + (CHUNK / likely).max(1)).min(rows);
        let each = if form.base64 { dimensions * 6 } else { dimensions * NUMBER };
        let mut out = Vec::with_capacity((end - *first) * (each + FRAME) + form.model.len() * 6 + 2 * FRAME);
        out.extend_from_slice(if *first == 0 { br#"{"object":"list","data":["# } else { b"," });
        let mut short = vec![0.0; if dimensions < vectors.dimensions { dimensions } else { 0 }];
        let all = vectors.values.chunks_exact(vectors.dimensions.max(1)).zip(&vectors.truncated).enumerate();
        for (index, (vector, truncated)) in all.skip(*first).take(end - *first) {
            let comma = if index > *first { "," } else { "" };
            // Nothing is written but to memory, which does not fail.
            write!(out, r#"{comma}{{"object":"embedding","index":{index},"embedding":"#).ok();
            let vector = if short.is_empty() {
                vector
            } else {
                shorten(vector, &mut short, vectors.normalized);
                &short
            };
            if form.base64 {
                write_base64(&mut out, vector);
            } else {
                write_numbers(&mut out, vector);
            }
            out.extend_from_slice(if *truncated { br#","truncated":true}"# } else { b"}" });
        }
        if end == rows {
            let model = serde_json::Value::from(form.model.as_str());
            let tokens = vectors.tokens;
            let usage = format_args!(r#"{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}"#);
            writeln!(out, r#"],"model":{model},"usage":{usage}}}"#).ok();
        }
        *first = end;
        Some(out)
    }
}

/// The first values of a vector, of length 1 again where it was.
fn shorten(vector: &[f32], short: &mut [f32], normalized: bool) {
    short.copy_from_slice(&vector[..short.len()]);
    if !normalized {
        return;
    }
    let squares: f64 = short.iter().map(|value| f64::from(*value).powi(2)).sum();
    // The floor is torch's: a vector of zeros stays one.
    let length = squares.sqrt().max(1e-12);
    short.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
}

fn write_numbers(out: &mut Vec<u8>, vector: &[f32]) {
    let mut number = zmij::Buffer::new();
    out.push(b'[');
    for (at, value) in vector.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let digits = if value.is_finite() { number.format_finite(*value) } else { "null" };
        out.extend_from_slice(digits.strip_suffix(".0").unwrap_or(digits).as_bytes());
    }
    out.push(b']');
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

    fn written(vectors: Vectors, form: Form) -> Vec<u8> {
        let mut response = Response::new(vectors, form);
        let pieces: Vec<Vec<u8>> = response.by_ref().collect();
        assert!(response.is_over());
        pieces.concat()
    }

    fn json(vectors: Vectors, base64: bool) -> Vec<Value> {
        let form = Form { base64, ..Form::default() };
        let Value::Object(mut answer) = serde_json::from_slice(&written(vectors, form)).unwrap() else { panic!() };
        answer["data"].as_array_mut().map(std::mem::take).unwrap()
    }

    #[test]
    fn numbers_are_the_shortest_of_their_value() {
        let values = vec![0.042_553_097, -0.0, 1.0, 3e-12, f32::MAX, f32::MIN_POSITIVE, 16_777_216.0, f32::NAN];
        let vectors = Vectors { values, dimensions: 4, truncated: vec![false, true], tokens: 7, normalized: true };
        let form = Form { model: "a\"".to_owned(), ..Form::default() };
        assert_eq!(
            String::from_utf8(written(vectors, form)).unwrap(),
            "{\"object\":\"list\",\"data\":[\
             {\"object\":\"embedding\",\"index\":0,\"embedding\":[0.042553097,-0,1,3e-12]},\
             {\"object\":\"embedding\",\"index\":1,\"embedding\":[3.4028235e+38,1.1754944e-38,16777216,null],\"truncated\":true}\
             ],\"model\":\"a\\\"\",\"usage\":{\"prompt_tokens\":7,\"total_tokens\":7}}\n"
        );
    }

    #[test]
    fn what_is_shortened_is_of_length_one_again_where_it_was() {
        let vectors = Vectors {
            values: vec![3.0, 4.0, 12.0, 0.0, 0.0, 1.0],
            dimensions: 3,
            truncated: vec![false; 2],
            tokens: 0,
            normalized: true,
        };
        let form = Form { dimensions: Some(2), ..Form::default() };
        let of = |vectors: Vectors| String::from_utf8(written(vectors, form.clone())).unwrap();
        let normalized = of(vectors.clone());
        assert!(normalized.contains("[0.6,0.8]") && normalized.contains("[0,0]"), "{normalized}");
        assert!(of(Vectors { normalized: false, ..vectors }).contains("[3,4]"));
    }

    #[test]
    fn many_vectors_are_written_in_pieces_of_bounded_size() {
        let (rows, dimensions) = (3000, 64);
        let values: Vec<f32> = (0..rows * dimensions).map(|at| (at as f32).sin()).collect();
        let vectors =
            Vectors { values: values.clone(), dimensions, truncated: vec![false; rows], ..Vectors::default() };
        for base64 in [true, false] {
            let mut response = Response::new(vectors.clone(), Form { base64, ..Form::default() });
            let pieces: Vec<Vec<u8>> = response.by_ref().collect();
            assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece.len() < 2 * CHUNK));
            let items = json(vectors.clone(), base64);
            assert!(items.iter().enumerate().all(|(at, item)| item["index"] == at));
            assert_eq!(items.len(), rows);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bits: Vec<u32>, dimensions in 1usize..9) {
            let mut values: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|value| value.is_finite()).collect();
            let rows = values.len() / dimensions;
            values.truncate(rows * dimensions);
            prop_assume!(rows > 0);
            let vectors = Vectors { values: values.clone(), dimensions, truncated: vec![false; rows], ..Vectors::default() };
            let (plain, coded) = (json(vectors.clone(), false), json(vectors, true));
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
