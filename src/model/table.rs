//! A table with a vector for each token, whose mean is a text's: model2vec's models, and sentence-transformers'
//! `StaticEmbedding`. Here is the file that holds it, and its arithmetic.

#![allow(unsafe_code)]

use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::modules::Module;
use super::tensors::{Number, Tensor, Tensors};
use super::{TableTokens, content};
use crate::cancel::Cancel;
use crate::embedding::Tokens;
use crate::error::{Error, Result};

/// The file that holds a table.
pub(super) const TABLE: &str = "model.safetensors";

/// Most bytes of one number.
const WIDEST: usize = 8;

/// By whose rules a table is read: it is their file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `embeddings`, and perhaps `weights` and `mapping`. Unknown tokens are left out.
    Model2Vec,
    /// `embedding.weight`. An unknown token has a row like any other.
    SentenceTransformers,
}

/// A table in its file, mapped into memory.
pub(super) struct Table {
    pub path: PathBuf,
    tensors: Tensors<Mmap>,
    pub layout: Layout,
    name: &'static str,
    rows: usize,
    pub width: usize,
    pub number: Number,
    /// What the row of each token counts.
    weights: Option<Vec<f32>>,
    /// The row of each token.
    mapping: Option<Vec<u32>>,
}

impl Table {
    /// Opens a table, and looks at its shape. Its rows are read as they are needed.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(path).map_err(|reason| Error::model(path, reason))
    }

    /// Whether the file is of another kind: the weights of a whole transformer, for example.
    pub fn is_none(path: &Path) -> bool {
        map(path).is_ok_and(|tensors| NAMES.iter().all(|(_, name)| matches!(tensors.find(name), Ok(None))))
    }

    fn parse(path: &Path) -> Result<Self, String> {
        let tensors = map(path)?;
        let mut found = None;
        for (layout, name) in NAMES {
            found = found.or(tensors.find(name)?.map(|tensor| (layout, name, tensor)));
        }
        let (layout, name, Tensor { number, shape, .. }) = found.ok_or_else(|| {
            let names = tensors.names().join(", ");
            format!("it has no table of vectors (embeddings, or embedding.weight); it has {names}")
        })?;
        let &[rows, width] = shape else { return Err(format!("{name} is {shape:?}, and a table has two dimensions")) };
        if rows == 0 || width == 0 {
            return Err(format!("{name} is {shape:?}: there is nothing in it"));
        }
        if matches!(number, Number::I32 | Number::I64) {
            return Err(format!("{name} has numbers of the type {number:?}; F64, F32, F16, BF16 and I8 are supported"));
        }
        let beside = |name: &str| -> Result<Option<Tensor<'_>>, String> {
            let tensor = if layout == Layout::Model2Vec { tensors.find(name)? } else { None };
            match tensor {
                Some(Tensor { shape, .. }) if shape.len() != 1 => {
                    Err(format!("{name} is {shape:?}, and one number for each token was expected"))
                }
                tensor => Ok(tensor),
            }
        };
        let mapping = beside("mapping")?.map(|tensor| rows_of_tokens(&tensor, rows)).transpose()?;
        let weights: Option<Vec<f32>> = beside("weights")?.map(|tensor| tensor.floats().collect());
        if let Some(at) = weights.iter().flatten().position(|weight| !weight.is_finite()) {
            return Err(format!("the weight of token {at} is not a finite number: the file is damaged"));
        }
        Ok(Self { path: path.to_path_buf(), layout, name, rows, width, number, weights, mapping, tensors })
    }

    /// What it asks of the tokens of a text.
    pub fn tokens(&self) -> TableTokens {
        TableTokens { ids: self.ids(), cuts_characters: self.layout == Layout::Model2Vec }
    }

    /// How many tokens it knows: the first so many ids of its tokenizer.
    fn ids(&self) -> usize {
        let mapped = self.mapping.as_ref().map_or(self.rows, Vec::len);
        self.weights.as_ref().map_or(mapped, |weights| weights.len().min(mapped))
    }

    /// Bytes of memory that it takes at the most.
    pub fn bytes(&self) -> u64 {
        (self.rows * self.width * self.number.size()) as u64
    }

    /// All rows.
    pub fn tensor(&self) -> Result<Tensor<'_>, String> {
        self.tensors.find(self.name)?.ok_or_else(|| format!("{} is gone", self.name))
    }

    /// The SHA-256 of the file. Reads all of it, and looks at every number of the table.
    pub fn hash(&self, cancel: &Cancel) -> Result<[u8; 32]> {
        let bad = |reason: String| Error::model(&self.path, reason);
        let Tensor { number, bytes, at: begin, .. } = self.tensor().map_err(bad)?;
        let (size, end) = (number.size(), begin + bytes.len());
        let (mut hash, mut read) = (Sha256::new(), 0);
        // A number may lie across the end of a chunk.
        let pass = content::each_chunk(&self.path, WIDEST, |chunk, window| {
            cancel.check()?;
            hash.update(chunk);
            let (from, to) = (read.max(begin), (read + chunk.len()).min(end));
            let window_at = read + chunk.len() - window.len();
            read += chunk.len();
            if size < 2 || from >= to {
                return Ok(());
            }
            // Those that end in this chunk.
            let (first, last) = ((from - begin) / size, (to - begin) / size);
            for nth in first..last {
                let highest = begin + (nth + 1) * size - 2 - window_at;
                let Some(&[low, high]) = window.get(highest..highest + 2) else { continue };
                if number.is_odd([low, high]) {
                    let row = nth / self.width;
                    return Err(bad(format!(
                        "row {row} of its table has numbers that are not finite: the file is damaged"
                    )));
                }
            }
            Ok(())
        });
        pass.map_err(|error| bad(error.to_string()))??;
        let sha256 = hash.finalize().into();
        content::check_hashed(&self.path, &sha256)?;
        Ok(sha256)
    }

    /// The mean of the rows of `tokens`; zeros where there are none.
    ///
    /// # Errors
    /// A token that has no row.
    pub fn mean(&self, table: &[u8], tokens: &Tokens) -> Result<Vec<f32>, String> {
        let row_bytes = self.width * self.number.size();
        let mut rows: Vec<Weighted<'_>> = Vec::with_capacity(tokens.ids.len());
        for &id in &tokens.ids {
            if self.layout == Layout::Model2Vec && tokens.unknown_id == Some(id) {
                continue;
            }
            let id = id as usize;
            let row = self.mapping.as_ref().map_or(Some(id), |mapping| mapping.get(id).map(|&row| row as usize));
            let weight = self.weights.as_ref().map_or(Some(1.0), |weights| weights.get(id).copied());
            let row = row.and_then(|row| table.get(row * row_bytes..(row + 1) * row_bytes));
            let (Some(row), Some(weight)) = (row, weight) else {
                return Err(format!("its tokenizer gave token {id}, and its table has the vectors of {}", self.ids()));
            };
            rows.push((row, weight));
        }
        let mut sum = vec![0.0; self.width];
        let (together, others) = rows.as_chunks::<TOGETHER>();
        together.iter().for_each(|rows| self.add(rows, &mut sum));
        others.iter().for_each(|row| self.add(&[*row], &mut sum));
        let share = 1.0 / rows.len().max(1) as f32;
        sum.iter_mut().for_each(|value| *value *= share);
        Ok(sum)
    }

    /// Adds rows to `sum`, one after the other: written out for each kind of number, so that each is a loop that the compiler makes
    /// wide.
    fn add<const ROWS: usize>(&self, rows: &[Weighted<'_>; ROWS], sum: &mut [f32]) {
        fn each<const ROWS: usize, const N: usize>(
            rows: &[Weighted<'_>; ROWS],
            sum: &mut [f32],
            read: impl Fn([u8; N]) -> f32,
        ) {
            let rows = rows.map(|(row, weight)| (&row.as_chunks::<N>().0[..sum.len()], weight));
            for (at, sum) in sum.iter_mut().enumerate() {
                *sum = rows.iter().fold(*sum, |sum, (numbers, weight)| sum + read(numbers[at]) * weight);
            }
        }
        match self.number {
            Number::F64 => each(rows, sum, |bytes| f64::from_le_bytes(bytes) as f32),
            Number::F32 => each(rows, sum, f32::from_le_bytes),
            Number::F16 => each(rows, sum, |bytes| half_to_float(u16::from_le_bytes(bytes))),
            Number::Bf16 => each(rows, sum, |bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)),
            Number::I8 => each(rows, sum, |[byte]| f32::from(byte as i8)),
            // Refused when it was opened.
            Number::I32 | Number::I64 => {}
        }
    }
}

/// A row of a table in its bytes, and what it counts.
type Weighted<'a> = (&'a [u8], f32);

/// Rows that are added at a time: the sum is read and written once for all of them, and they come from memory side by side.
const TOGETHER: usize = 4;

/// What the tensor is named that is the table.
const NAMES: [(Layout, &str); 2] =
    [(Layout::Model2Vec, "embeddings"), (Layout::SentenceTransformers, "embedding.weight")];

/// The tensors of a file, mapped into memory.
fn map(path: &Path) -> Result<Tensors<Mmap>, String> {
    let file = content::open(path).map_err(|error| error.to_string())?;
    // SAFETY: the file is only read. Whoever writes into it while it is mapped changes vectors, and whoever cuts it off ends the
    // process: so it is with every file that a program maps, its own code among them. Files of models are replaced, not written
    // into.
    let bytes = unsafe { Mmap::map(&file) }.map_err(|error| error.to_string())?;
    Tensors::parse(bytes)
}

/// A finite number of 16 bits, without a branch: moved to the places of one of 32 bits, its exponent set right by a product.
fn half_to_float(bits: u16) -> f32 {
    /// 2 to the power of 112, by which the two differ in what they count exponents from.
    const SCALE: f32 = f32::from_bits(239 << 23);
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * SCALE;
    f32::from_bits(magnitude.to_bits() | u32::from(bits & 0x8000) << 16)
}

/// `mapping` as rows of the table.
fn rows_of_tokens(mapping: &Tensor<'_>, rows: usize) -> Result<Vec<u32>, String> {
    let read = |(token, row): (usize, f64)| match row {
        row if row >= 0.0 && row < rows as f64 => Ok(row as u32),
        row => Err(format!("its mapping gives token {token} the row {row}, and its table has {rows}")),
    };
    let bytes = mapping.bytes;
    let numbers: Vec<f64> = match mapping.number {
        Number::I64 => bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as f64).collect(),
        Number::I32 => bytes.as_chunks().0.iter().map(|bytes| f64::from(i32::from_le_bytes(*bytes))).collect(),
        other => return Err(format!("its mapping has numbers of the type {other:?}; I32 and I64 are supported")),
    };
    numbers.into_iter().enumerate().map(read).collect()
}

/// Where a model keeps its table, as a prefix of names in its directory, if it says that it has one: `modules.json` does, or else
/// what model2vec writes into its `config.json`.
pub(super) fn place(modules: Option<&[Module]>, config: impl FnOnce() -> Value) -> Option<String> {
    let Some(modules) = modules else {
        let config = config();
        let named = config.get("model_type").is_some_and(|kind| kind == "model2vec");
        // Its first versions did not name themselves.
        return (named || config.get("apply_zipf").is_some()).then(String::new);
    };
    let first = modules.first().filter(|module| module.name() == "StaticEmbedding")?;
    first.prefix()
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn numbers_of_16_bits_are_what_they_are() {
        for bits in 0..=u16::MAX {
            let expected = f16::from_bits(bits).to_f32();
            if expected.is_finite() {
                assert_eq!(half_to_float(bits).to_bits(), expected.to_bits(), "{bits:#x}");
            }
        }
    }
}
