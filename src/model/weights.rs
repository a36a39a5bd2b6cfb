//! The hash of a model's weights: those in its graph's file, and those in files beside it.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::content;
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// What a pass over a graph's file tells.
pub(super) struct HashedWeights {
    /// Of the graph's file; where weights lie beside it, of the hashes of all of them.
    pub sha256: [u8; 32],
    /// Whether the graph quantises activations by the range found in the batch at hand.
    pub dynamic_quantization: bool,
}

/// Operators whose result depends on all rows of a batch: `DynamicQuantizeLinear`, `DynamicQuantizeMatMul`,
/// `DynamicQuantizeLSTM` and what they feed. A graph is searched for their names instead of being parsed: a false
/// positive would cost speed only, and weights that spell such a name by chance do not exist.
const DYNAMIC: [&str; 3] = ["DynamicQuantize", "MatMulInteger", "ConvInteger"];

/// Hashes the graph and the files beside it that it names, because weights may lie outside the graph; refuses what the
/// cache of the hub names otherwise.
pub(super) fn hash_weights(onnx: &Path, cancel: &Cancel) -> Result<HashedWeights> {
    let mut beside: Vec<String> = onnx
        .parent()
        .and_then(|directory| fs::read_dir(directory).ok())
        .into_iter()
        .flat_map(|entries| entries.flatten())
        .filter(|entry| entry.path() != onnx && entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    // Directories list their files in any order.
    beside.sort();
    let names: Vec<&str> = DYNAMIC.iter().copied().chain(beside.iter().map(String::as_str)).collect();
    let (mut sha256, found) = hash_file(onnx, &names, cancel)?;
    let beside: Vec<&String> =
        beside.iter().enumerate().filter(|(i, _)| found[DYNAMIC.len() + i]).map(|(_, name)| name).collect();
    if !beside.is_empty() {
        let mut all = Sha256::new_with_prefix(sha256);
        for name in beside {
            all.update(hash_file(&onnx.with_file_name(name), &[], cancel)?.0);
        }
        sha256 = all.finalize().into();
    }
    Ok(HashedWeights { sha256, dynamic_quantization: found[..DYNAMIC.len()].contains(&true) })
}

/// Hashes a file and tells which of `names` occur in it.
fn hash_file(path: &Path, names: &[&str], cancel: &Cancel) -> Result<([u8; 32], Vec<bool>)> {
    // A name may lie across the end of a chunk.
    let overlap = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let (mut hash, mut found) = (Sha256::new(), vec![false; names.len()]);
    let read = content::each_chunk(path, overlap, |chunk, window| {
        cancel.check()?;
        hash.update(chunk);
        for (found, name) in found.iter_mut().zip(names) {
            *found = *found || memchr::memmem::find(window, name.as_bytes()).is_some();
        }
        Ok(())
    });
    read.map_err(|error| Error::model(path, error.to_string()))??;
    let sha256 = hash.finalize().into();
    content::check_hashed(path, &sha256)?;
    Ok((sha256, found))
}
