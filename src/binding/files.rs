//! `BatchFileProcessor`: many files in one crossing.

use std::path::PathBuf;

use napi::bindgen_prelude::{Buffer, Float64Array, PromiseRaw};
use napi::{Env, Result};
use napi_derive::napi;

use super::cache::blocking;
use super::to_js;
use crate::error::Error;
use crate::files::{self, Contents, Failure, Root, WriteOptions};

/// A file that was not read or written.
#[napi(object, object_from_js = false)]
pub struct NativeFileFailure {
    /// Its place among the paths of the call.
    pub index: u32,
    /// `io`, `outside`, `size` or `kind`.
    pub kind: &'static str,
    /// The number that the system gave.
    pub errno: Option<i32>,
    /// What happened, or the size in bytes.
    pub reason: String,
}

impl NativeFileFailure {
    fn new(index: usize, failure: Failure) -> Self {
        let (kind, errno, reason) = match failure {
            Failure::Io(error) => ("io", error.raw_os_error(), error.to_string()),
            Failure::Outside => ("outside", None, String::new()),
            Failure::TooLarge { bytes } => ("size", None, bytes.to_string()),
            Failure::NotAFile => ("kind", None, String::new()),
        };
        Self { index: index as u32, kind, errno, reason }
    }
}

/// Files that were read.
#[napi(object, object_from_js = false)]
pub struct NativeFiles {
    /// How many of the first ones are in the room, one after the other.
    pub in_room: u32,
    /// The bytes of the others.
    pub beside: Buffer,
    /// How many bytes each has; 0 for those that failed.
    pub lengths: Float64Array,
    /// Those that failed, in order.
    pub failures: Vec<NativeFileFailure>,
}

fn root_of(root: Option<String>) -> Result<Option<Root>> {
    let unusable = |path: &str, error| Error::Storage {
        path: path.to_owned(),
        reason: format!("it cannot be used as root: {error}; pass a directory that exists"),
    };
    root.map(|path| Root::new(path.as_ref()).map_err(|error| to_js(unusable(&path, error)))).transpose()
}

/// See `files::Contents`. `room` is the call's alone until it has ended.
#[napi(catch_unwind)]
pub fn read_files(
    env: &Env,
    paths: Vec<String>,
    root: Option<String>,
    max_bytes: f64,
    mut room: Buffer,
) -> Result<PromiseRaw<'_, NativeFiles>> {
    blocking(env, move || {
        let root = root_of(root)?;
        let mut contents = Contents::new(&mut room);
        let mut failures = Vec::new();
        let lengths: Vec<f64> = paths
            .into_iter()
            .enumerate()
            .map(|(index, path)| {
                contents.read(&PathBuf::from(path), root.as_ref(), max_bytes as u64).unwrap_or_else(|failure| {
                    failures.push(NativeFileFailure::new(index, failure));
                    0
                }) as f64
            })
            .collect();
        let (in_room, beside) = (contents.in_room as u32, contents.beside.into());
        Ok(NativeFiles { in_room, beside, lengths: lengths.into(), failures })
    })
}

/// See `files::write`. `lengths`: how many bytes of `data` belong to each path, in order.
#[napi(catch_unwind)]
#[allow(clippy::too_many_arguments)]
pub fn write_files(
    env: &Env,
    paths: Vec<String>,
    data: Buffer,
    lengths: Float64Array,
    root: Option<String>,
    atomic: bool,
    fsync: bool,
    create_directories: bool,
) -> Result<PromiseRaw<'_, Vec<NativeFileFailure>>> {
    let lengths = lengths.to_vec();
    blocking(env, move || {
        if let Some(root) = root.as_ref().filter(|_| create_directories) {
            // What is wrong with it is told below.
            std::fs::create_dir_all(root).ok();
        }
        let root = root_of(root)?;
        let options = WriteOptions { atomic, fsync, create_directories };
        let mut rest: &[u8] = &data;
        let mut failures = Vec::new();
        for (index, (path, length)) in paths.into_iter().zip(lengths).enumerate() {
            let (bytes, following) = rest.split_at(rest.len().min(length as usize));
            rest = following;
            if let Err(failure) = files::write(&PathBuf::from(path), root.as_ref(), bytes, options) {
                failures.push(NativeFileFailure::new(index, failure));
            }
        }
        Ok(failures)
    })
}
