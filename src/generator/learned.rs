//! What a generator has learned about batches, kept in a file for the next process: for one model content, on one machine,
//! with one number of threads. What is damaged, or anybody else's, is as if there were nothing.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::forecast::Overhead;
use crate::embedding::content_hash;
use crate::host;
use crate::metrics;
use crate::model::ModelInfo;

/// Raised when the file means something else than before.
const VERSION: u32 = 1;

/// Largest file that is read. Eighteen classes of lengths with some hundred sizes each take less.
const MOST_BYTES: u64 = 4 << 20;

/// Where what was learned is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StateDir {
    /// Beside the file of the cache, where there is one.
    #[default]
    BesideCache,
    /// In a directory.
    At(PathBuf),
    /// Nowhere.
    Off,
}

/// The file of one model on this machine.
pub(super) struct Store {
    file: Kept,
    place: Place,
}

/// What a state holds for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Place {
    version: u32,
    /// Of the package: another one may run models in another way.
    package: String,
    runtime: String,
    fingerprint: String,
    machine: String,
    workers: usize,
    intra_op_threads: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct State {
    place: Place,
    pub overhead: Overhead,
    pub batches: Value,
}

impl Store {
    /// Of a model that runs on so many workers; `cache` is the file of its cache. `None` where nothing shall be kept.
    pub fn new(directory: &StateDir, cache: Option<&Path>, model: &ModelInfo, workers: usize) -> Option<Self> {
        let place = Place {
            version: VERSION,
            package: env!("CARGO_PKG_VERSION").to_owned(),
            runtime: model.runtime.clone(),
            fingerprint: model.fingerprint.to_string(),
            machine: host::machine_name(),
            workers,
            intra_op_threads: model.intra_op_threads,
        };
        Some(Self { file: Kept::new(directory, cache, "learned", &place)?, place })
    }

    /// What was kept, if it is for this model, machine and number of threads.
    pub fn read(&self) -> Option<(Overhead, Value)> {
        let state: State = self.file.read()?;
        (state.place == self.place && state.overhead.is_sound()).then_some((state.overhead, state.batches))
    }

    /// Keeps it: whole, or as it was. Whether that worked; nothing depends on it.
    pub fn write(&self, overhead: Overhead, batches: Value) -> bool {
        self.file.write(&State { place: self.place.clone(), overhead, batches })
    }
}

/// A file in which something is kept for the next process.
pub(super) struct Kept(pub PathBuf);

impl Kept {
    /// The one of a kind for a place; `cache` is the file of the cache. `None` where nothing shall be kept.
    pub fn new(directory: &StateDir, cache: Option<&Path>, kind: &str, place: &impl Serialize) -> Option<Self> {
        let hash = content_hash(serde_json::to_string(place).unwrap_or_default().as_bytes());
        let id: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{kind}-{id}.json");
        let path = match (directory, cache) {
            (StateDir::Off, _) | (StateDir::BesideCache, None) => return None,
            (StateDir::At(directory), _) => directory.join(name),
            (StateDir::BesideCache, Some(cache)) => {
                let mut path = cache.as_os_str().to_owned();
                path.push(format!(".{name}"));
                path.into()
            }
        };
        Some(Self(path))
    }

    /// What is in it, if it can be read.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let mut bytes = Vec::new();
        File::open(&self.0).ok()?.take(MOST_BYTES + 1).read_to_end(&mut bytes).ok()?;
        if bytes.len() as u64 > MOST_BYTES {
            return None;
        }
        serde_json::from_slice(&bytes).ok()
    }

    /// Writes it: whole, or as it was. Whether that worked.
    pub fn write(&self, value: &impl Serialize) -> bool {
        let directory = self.0.parent().is_none_or(|parent| fs::create_dir_all(parent).is_ok());
        directory && serde_json::to_vec(value).is_ok_and(|bytes| metrics::write_whole(&self.0, &bytes).is_ok())
    }
}
