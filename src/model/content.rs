//! What files hold: read once, in chunks; and whether it is what the cache of the hub names it by.
//!
//! There a file is a link to its content, whose name is its hash. So each file that is loaded can be checked at the cost of
//! a hash, whoever fetched it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

const CHUNK: usize = 1 << 20;

/// How git keeps a file whose content lies elsewhere (Git LFS), and how long that is at most.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
const MOST_POINTER_BYTES: u64 = 1024;

/// Opens regular files only: opening a pipe would wait for ever. Refuses what only points to a file.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut file = File::open(path)?;
    if metadata.len() <= MOST_POINTER_BYTES {
        let mut begin = Vec::new();
        (&file).take(POINTER.len() as u64).read_to_end(&mut begin)?;
        if begin == POINTER {
            let reason = "it is a Git LFS pointer in place of the file itself: run `git lfs pull` where it was cloned, or \
                          fetch the file otherwise";
            return Err(io::Error::other(reason));
        }
        file.rewind()?;
    }
    Ok(file)
}

/// Reads a file from its beginning to its end. `take` gets each new chunk, and the same with the `overlap` bytes before
/// it; its error ends the reading.
pub(super) fn each_chunk(
    path: &Path,
    overlap: usize,
    mut take: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> io::Result<Result<()>> {
    let mut file = open(path)?;
    let mut buffer = vec![0; overlap + CHUNK];
    let mut kept = 0;
    loop {
        let filled = match file.read(&mut buffer[kept..]) {
            Ok(0) => return Ok(Ok(())),
            Ok(read) => kept + read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if let Err(stop) = take(&buffer[kept..filled], &buffer[..filled]) {
            return Ok(Err(stop));
        }
        kept = filled.min(overlap);
        buffer.copy_within(filled - kept..filled, 0);
    }
}

/// The SHA-256 of a whole file.
pub(super) fn sha256(path: &Path) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let read = each_chunk(path, 0, |chunk, _| {
        hash.update(chunk);
        Ok(())
    })?;
    read.map_err(io::Error::other)?;
    Ok(hash.finalize().into())
}

/// Bytes as hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether it can be the name of some content.
pub(super) fn is_name(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The hash that names content on the hub: SHA-256 of large files, git's own of small ones.
pub(super) enum NameHash {
    Sha256(Sha256),
    Git(Sha1),
}

impl NameHash {
    /// The kind of hash that `name` is, of content that has `size` bytes.
    pub fn like(name: &str, size: u64) -> Self {
        match name.len() {
            64 => Self::Sha256(Sha256::new()),
            _ => Self::Git(Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Git(hash) => hash.update(bytes),
        }
    }

    /// The name of what it was given so far.
    pub fn name(&self) -> String {
        match self {
            Self::Sha256(hash) => hexadecimal(&hash.clone().finalize()),
            Self::Git(hash) => hexadecimal(&hash.clone().finalize()),
        }
    }
}

/// Where the cache of the hub keeps the content of the file at `path`, if it does.
fn blob(path: &Path) -> Option<(PathBuf, String)> {
    let target = fs::read_link(path).ok()?;
    let name = target.file_name()?.to_str().filter(|name| is_name(name))?.to_owned();
    let within = target.parent()?.file_name()? == "blobs";
    within.then(|| (path.parent().unwrap_or(Path::new("")).join(target), name))
}

/// Refuses `bytes` of the file at `path` that are not what the cache names them by.
pub(super) fn check(path: &Path, bytes: &[u8]) -> Result<()> {
    let Some((blob, name)) = blob(path) else { return Ok(()) };
    let mut hash = NameHash::like(&name, bytes.len() as u64);
    hash.update(bytes);
    if hash.name() == name { Ok(()) } else { Err(damaged(path, &blob)) }
}

/// The same for a file whose SHA-256 is known.
pub(super) fn check_hashed(path: &Path, sha256: &[u8; 32]) -> Result<()> {
    let Some((blob, name)) = blob(path) else { return Ok(()) };
    let found = match name.len() {
        64 => hexadecimal(sha256),
        // A small one, which does not take long a second time.
        _ => name_of(path, &name).map_err(|error| Error::model(path, error.to_string()))?,
    };
    if found == name { Ok(()) } else { Err(damaged(path, &blob)) }
}

/// What the content of the file at `path` should be named, in the manner of `name`.
pub(super) fn name_of(path: &Path, name: &str) -> io::Result<String> {
    let mut hash = NameHash::like(name, fs::metadata(path)?.len());
    let read = each_chunk(path, 0, |chunk, _| {
        hash.update(chunk);
        Ok(())
    })?;
    read.map_err(io::Error::other)?;
    Ok(hash.name())
}

/// Takes damaged content out of the cache: to where a download looks for what it can go on with, so that the next one
/// mends it.
fn damaged(path: &Path, blob: &Path) -> Error {
    let aside = blob.with_extension("incomplete");
    let moved = if aside.exists() { fs::remove_file(blob) } else { fs::rename(blob, &aside) };
    let reason = match moved {
        Ok(()) => "it has been taken out of the cache, and the next attempt fetches it anew".to_owned(),
        Err(error) => {
            format!("it cannot be taken out of the cache ({error}): remove it, and the next attempt fetches it anew")
        }
    };
    Error::model(path, format!("it is damaged, its hash is not the one that the hub named it by: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_git_and_of_large_files() {
        for name in [
            "ce013625030ba8dba906f756967f9e9ca394464a",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ] {
            let mut hash = NameHash::like(name, 6);
            hash.update(b"hello\n");
            assert_eq!(hash.name(), name);
            assert!(is_name(name) && !is_name(&name[1..]) && !is_name(&name.to_uppercase()));
        }
    }

    #[test]
    fn chunks_overlap_and_miss_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let bytes: Vec<u8> = (0..CHUNK * 2 + 100).map(|i| (i * 7 % 251) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let (mut all, mut windows) = (Vec::new(), Vec::new());
        let read = each_chunk(&path, 10, |new, window| {
            assert!(window.ends_with(new) && window.len() <= new.len() + 10);
            windows.push(window.len() - new.len());
            all.extend_from_slice(new);
            Ok(())
        });
        read.unwrap().unwrap();
        assert!(all == bytes);
        assert_eq!((windows[0], windows[1]), (0, 10));
        assert_eq!(each_chunk(&path, 0, |_, _| Err(Error::Aborted)).unwrap(), Err(Error::Aborted));
        assert_eq!(sha256(&path).unwrap(), <[u8; 32]>::from(Sha256::digest(&bytes)));
    }

    #[cfg(unix)]
    #[test]
    fn damaged_content_leaves_the_cache_for_the_next_download_to_mend() {
        let directory = tempfile::tempdir().unwrap();
        let (blobs, path) = (directory.path().join("blobs"), directory.path().join("snapshots/1/config.json"));
        fs::create_dir_all(&blobs).unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let name = "ce013625030ba8dba906f756967f9e9ca394464a";
        std::os::unix::fs::symlink(format!("../../blobs/{name}"), &path).unwrap();
        fs::write(blobs.join(name), "hello\n").unwrap();
        assert_eq!(check(&path, b"hello\n"), Ok(()));
        assert_eq!(check_hashed(&path, &sha256(&path).unwrap()), Ok(()));
        fs::write(blobs.join(name), "hallo\n").unwrap();
        assert!(check_hashed(&path, &sha256(&path).unwrap()).unwrap_err().to_string().contains("damaged"));
        assert!(!path.exists());
        assert_eq!(fs::read(blobs.join(format!("{name}.incomplete"))).unwrap(), b"hallo\n");
        // What no cache holds has no name to be compared with.
        assert_eq!(check(&directory.path().join("other"), b"x"), Ok(()));
    }
}
