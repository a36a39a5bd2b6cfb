//! The model that comes with the package: where it lies, and whether it is whole.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::content;
use super::directory::ModelSpec;
use super::weights::HashedWeights;
use crate::error::{Error, Result};

/// The path that names it.
pub const BUILTIN: &str = "builtin";

/// What its files must hash to, in the format of `sha256sum`.
const SHA256SUMS: &str = include_str!("../../models/builtin/SHA256SUMS");

const GRAPH: &str = "onnx/model.onnx";

static DIRECTORY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Says where the model lies: it is shipped once, not with each platform's addon.
pub fn set_builtin_directory(directory: PathBuf) {
    *DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory);
}

pub(super) fn directory() -> Result<String> {
    let directory = DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let directory = directory.ok_or_else(|| Error::model(BUILTIN, "nobody has said where the built-in model lies"))?;
    match directory.is_dir() {
        true => Ok(directory.display().to_string()),
        false => Err(Error::model(
            &directory,
            "the built-in model is not there: reinstall the package; where a bundler moved the code, leave embedcore out of the bundle",
        )),
    }
}

/// Refuses files that are not the ones that were built with this code.
pub(super) fn check(spec: &ModelSpec, weights: &HashedWeights) -> Result<()> {
    let read = |name: &str| -> Option<[u8; 32]> {
        let hash = |bytes: &[u8]| Sha256::digest(bytes).into();
        match name {
            GRAPH => Some(weights.sha256),
            "tokenizer.json" => Some(hash(&spec.tokenizer_json)),
            _ => spec.config_files.iter().find(|(file, _)| file == name).map(|(_, bytes)| hash(bytes)),
        }
    };
    for line in SHA256SUMS.lines() {
        let Some((expected, name)) = line.split_once("  ") else { continue };
        let found = read(name).map(|hash| content::hexadecimal(&hash));
        if found.as_deref() != Some(expected) {
            let path = spec.root.join(name);
            return Err(Error::model(
                path,
                "the built-in model is damaged (its SHA-256 is not the pinned one): reinstall the package",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_name_graph_and_tokenizer() {
        let names: Vec<&str> = SHA256SUMS.lines().map(|line| line.split_once("  ").unwrap().1).collect();
        assert!(names.contains(&GRAPH) && names.contains(&"tokenizer.json") && names.contains(&"modules.json"));
    }
}
