//! Which libraries of engines are loaded, and whether they may be: nothing damaged ever reaches the dynamic linker.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use object::read::ReadCache;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use rayon::prelude::*;

use super::content;
use crate::error::{Error, Result};

/// A user's own library, for platforms without a bundled one and for other execution providers.
const OVERRIDE: &str = "ORT_DYLIB_PATH";

/// Name and SHA-256 of the library that is shipped beside the addon; empty where none is.
const BUNDLED_FILE: &str = env!("EMBEDCORE_ORT_FILE");
const BUNDLED_SHA256: &str = env!("EMBEDCORE_ORT_SHA256");
const BUNDLED_VERSION: &str = env!("EMBEDCORE_ORT_VERSION");

/// A package of libraries that may be installed beside this one.
pub(super) struct Package {
    /// What is in it.
    product: &'static str,
    /// SHA-256 and name of each library, the one that is loaded first; empty where its makers build none.
    files: &'static str,
    name: &'static str,
    /// What to do where there is none for this platform.
    without: &'static str,
    directory: Mutex<Option<PathBuf>>,
}

pub(super) static OPENVINO: Package = Package {
    product: "OpenVINO",
    files: env!("EMBEDCORE_OPENVINO_FILES"),
    name: concat!("embedcore-", env!("EMBEDCORE_OPENVINO_PACKAGE")),
    without: "leave engine out, or pass engine: 'onnxruntime'",
    directory: Mutex::new(None),
};

pub(super) static WEBGPU: Package = Package {
    product: "WebGPU",
    files: env!("EMBEDCORE_WEBGPU_FILES"),
    name: concat!("embedcore-", env!("EMBEDCORE_WEBGPU_PACKAGE")),
    without: "leave 'webgpu' out, or set ORT_DYLIB_PATH to a library that was built with it",
    directory: Mutex::new(None),
};

static ADDON_DIRECTORY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Says where the addon lies: the bundled library is looked for beside it.
pub fn set_addon_directory(directory: PathBuf) {
    *lock(&ADDON_DIRECTORY) = Some(directory);
}

/// Says where the packages with OpenVINO and with WebGPU lie, if they are installed.
pub fn set_package_directories(openvino: Option<PathBuf>, webgpu: Option<PathBuf>) {
    *lock(&OPENVINO.directory) = openvino;
    *lock(&WEBGPU.directory) = webgpu;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Package {
    /// Where it is, whatever it is worth; else why it is not there.
    pub fn directory(&self) -> Result<PathBuf> {
        let missing = |reason: String| Err(Error::model(self.product, reason));
        if self.files.is_empty() {
            return missing(format!("its makers build none for this platform: {}", self.without));
        }
        let name = self.name;
        lock(&self.directory).clone().map_or_else(
            || {
                missing(format!(
                    "the package {name} is not installed: install it beside embedcore, in the same version"
                ))
            },
            Ok,
        )
    }

    /// The paths of its libraries, the one that is to be loaded first before the others; all are whole. Blocks for tenths of a
    /// second: hashes all of them.
    pub fn libraries(&self) -> Result<Vec<PathBuf>> {
        let directory = self.directory()?;
        let files: Vec<(&str, PathBuf)> = self
            .files
            .split(',')
            .filter_map(|file| file.split_once(' '))
            .map(|(sha256, name)| (sha256, directory.join(name)))
            .collect();
        files.par_iter().try_for_each(|(sha256, path)| {
            let reinstall = format!("reinstall {}, in the same version as embedcore", self.name);
            match content::sha256(path).map(|hash| content::hexadecimal(&hash)) {
                Ok(hash) if hash == *sha256 => Ok(()),
                Ok(_) => {
                    let reason = "it is damaged or of another version (its SHA-256 is not the pinned one)";
                    Err(Error::model(path, format!("{reason}: {reinstall}")))
                }
                Err(error) => Err(Error::model(path, format!("it cannot be read ({error}): {reinstall}"))),
            }
        })?;
        Ok(files.into_iter().map(|(_, path)| path).collect())
    }
}

/// The path of an ONNX Runtime that is whole.
pub(super) fn onnxruntime() -> Result<PathBuf> {
    if let Some(path) = env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return match check_elf(&path) {
            Ok(()) => Ok(path),
            Err(error) => Err(Error::model(
                &path,
                format!("the environment variable {OVERRIDE} names it, but it cannot be loaded: {error}"),
            )),
        };
    }
    let directory = lock(&ADDON_DIRECTORY).clone();
    let bundled = directory.filter(|_| !BUNDLED_FILE.is_empty()).map(|directory| directory.join(BUNDLED_FILE));
    let Some(path) = bundled else {
        let reason = format!(
            "no ONNX Runtime is bundled for this platform: set {OVERRIDE} to the path of a library, version 1.24 or later"
        );
        return Err(Error::model("ONNX Runtime", reason));
    };
    match content::sha256(&path).map(|hash| content::hexadecimal(&hash)) {
        Ok(hash) if hash == BUNDLED_SHA256 => Ok(path),
        Ok(_) => Err(Error::model(
            &path,
            "the bundled ONNX Runtime is damaged (its SHA-256 is not the pinned one): reinstall the package",
        )),
        Err(error) => Err(Error::model(
            &path,
            format!("the bundled ONNX Runtime cannot be read ({error}): reinstall the package"),
        )),
    }
}

/// The version of the library at `path`: of the bundled one as it is pinned, of another one as its file is named.
pub(super) fn version(path: &Path) -> Option<String> {
    let of = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    if of(path).is_some_and(|name| name == BUNDLED_FILE) {
        return Some(BUNDLED_VERSION.to_owned());
    }
    let name = of(&fs::canonicalize(path).ok()?)?;
    let (_, version) = name.split_once(".so.").or_else(|| name.split_once("onnxruntime."))?;
    let version = version.trim_end_matches(".dylib");
    version
        .split('.')
        .all(|part| !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit()))
        .then(|| version.to_owned())
}

/// The library of a plugin, as it can be loaded.
pub(super) fn plugin(path: &Path) -> io::Result<PathBuf> {
    let path = fs::canonicalize(path)?;
    check_elf(&path)?;
    Ok(path)
}

/// Refuses what would crash the dynamic linker instead of giving an error: an ELF library whose segments reach beyond
/// the end of the file. Other formats are left to their linkers, which check.
pub(super) fn check_elf(path: &Path) -> io::Result<()> {
    let size = fs::metadata(path)?.len();
    if cfg!(not(target_os = "linux")) {
        return Ok(());
    }
    let cache = ReadCache::new(File::open(path)?);
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let elf: ElfFile64<'_, object::Endianness, _> =
        ElfFile64::parse(&cache).map_err(|error| damaged(&format!("not a whole shared library ({error})")))?;
    let endian = elf.endian();
    let segments = elf.elf_header().program_headers(endian, &cache).map_err(|error| damaged(&error.to_string()))?;
    let end = segments.iter().map(|segment| segment.p_offset(endian).saturating_add(segment.p_filesz(endian))).max();
    if end.is_none_or(|end| end > size) {
        return Err(damaged("the file is truncated"));
    }
    Ok(())
}
