//! Configuration files of a model: read, bounded, and remembered for the hash of what they hold.

use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::content;
use crate::error::{Error, Result};

/// How images are prepared.
pub(super) const PREPROCESSOR: &str = "preprocessor_config.json";

/// Files above this size are not configuration. The largest tokenizers known have about 35 MB.
pub(super) const MAX_CONFIG_BYTES: u64 = 256 << 20;

/// Reads configuration files and remembers what it read.
pub(super) struct ConfigFiles {
    pub root: PathBuf,
    /// Where those of what reads texts lie, as a prefix: most often beside the others.
    pub own: String,
    pub read: Vec<(String, Vec<u8>)>,
}

impl ConfigFiles {
    /// Of the model at `root`.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf(), own: String::new(), read: Vec::new() }
    }

    /// A parsed file of what reads texts.
    pub fn own_json<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        self.json(&format!("{}{name}", self.own))
    }

    /// The parsed file, or `None` when there is none.
    pub fn json<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        let path = self.root.join(name);
        let Some(bytes) = read_file(&path)? else { return Ok(None) };
        let parsed = serde_json::from_slice(&bytes)
            .map_err(|error| Error::model(&path, format!("not the JSON expected here: {error}")))?;
        self.remember(name, bytes);
        Ok(Some(parsed))
    }

    /// The text of a file, or `None` when there is none.
    pub fn text(&mut self, name: &str) -> Result<Option<String>> {
        let path = self.root.join(name);
        let Some(bytes) = read_file(&path)? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|_| Error::model(&path, "it is not UTF-8 text"))?;
        self.remember(name, text.clone().into_bytes());
        Ok(Some(text))
    }

    /// The bytes of a file, or `None` when there is none.
    pub fn bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let bytes = read_file(&self.root.join(name))?;
        bytes.iter().for_each(|bytes| self.remember(name, bytes.clone()));
        Ok(bytes)
    }

    /// Some files are read twice, for different reasons.
    fn remember(&mut self, name: &str, bytes: Vec<u8>) {
        if self.read.iter().all(|(other, _)| other != name) {
            self.read.push((name.to_owned(), bytes));
        }
    }
}

/// The bytes of a file, or `None` when there is none.
pub(super) fn read_file(path: &Path) -> Result<Option<Vec<u8>>> {
    let read = || {
        let mut bytes = Vec::new();
        content::open(path)?.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            return Err(io::Error::other(format!("the file is larger than {} MB", MAX_CONFIG_BYTES >> 20)));
        }
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => content::check(path, &bytes).map(|()| Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::model(path, error.to_string())),
    }
}
