//! The cache's layout, which is that of the hub's other tools: `models--owner--name/{blobs,refs,snapshots}`.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{download, is_commit};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// How often a lock that another process holds is tried.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// What the cache knows about a file of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Here,
    /// The commit has no such file.
    Absent,
    Unknown,
}

/// A model's folder in the cache.
pub(super) struct Repo {
    root: PathBuf,
    locks: PathBuf,
}

impl Repo {
    /// The folder of `name`, which is an id.
    pub fn of(cache: &Path, name: &str) -> Self {
        let folder = format!("models--{}", name.replace('/', "--"));
        Self { root: cache.join(&folder), locks: cache.join(".locks").join(folder) }
    }

    /// The commit that a branch or tag was at when it was last looked up.
    pub fn commit_of(&self, revision: &str) -> Option<String> {
        let commit = fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Remembers it.
    pub fn write_ref(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.root.join("refs").join(revision);
        if self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        self.place(&path, |temporary| fs::write(temporary, commit))
    }

    /// The directory of a commit's files.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// What is known about a file.
    pub fn known(&self, commit: &str, file: &str) -> Known {
        if self.snapshot(commit).join(file).is_file() {
            Known::Here
        } else if self.absent(commit, file).exists() {
            Known::Absent
        } else {
            Known::Unknown
        }
    }

    /// Remembers that a commit has no such file.
    pub fn mark_absent(&self, commit: &str, file: &str) -> Result<()> {
        let path = self.absent(commit, file);
        if path.exists() { Ok(()) } else { self.place(&path, |temporary| fs::write(temporary, "")) }
    }

    fn absent(&self, commit: &str, file: &str) -> PathBuf {
        self.root.join(".no_exist").join(commit).join(file)
    }

    /// Where a file's content lies, whatever its name.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Where it lies while it is not whole yet.
    pub fn incomplete(&self, etag: &str) -> Result<PathBuf> {
        let path = self.root.join("blobs").join(format!("{etag}.incomplete"));
        self.in_folder(&path, |_| Ok(()))?;
        Ok(path)
    }

    /// Waits until nobody else fetches this content. The lock ends with the file that is given, and with its process.
    pub fn lock(&self, etag: &str, cancel: &Cancel) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        let mut lock = None;
        self.in_folder(&path, |path| {
            lock = Some(File::options().create(true).append(true).open(path)?);
            Ok(())
        })?;
        let lock = lock.ok_or_else(|| Error::Internal("a lock without a file".to_owned()))?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) => download::pause(cancel, LOCK_POLL)?,
                // A file system without locks: files are still whole, they may only be fetched twice.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(lock),
                Err(TryLockError::Error(error)) => return Err(unwritable(&path, &error)),
            }
        }
    }

    /// Lets a file of a commit be the content `etag`: as a link, or a copy where there are no links.
    pub fn point(&self, commit: &str, file: &str, etag: &str) -> Result<()> {
        let up = "../".repeat(2 + file.matches('/').count());
        let target = format!("{up}blobs/{etag}");
        let blob = self.blob(etag);
        self.place(&self.snapshot(commit).join(file), |temporary| {
            symlink(&target, temporary)
                .or_else(|_| fs::hard_link(&blob, temporary))
                .or_else(|_| fs::copy(&blob, temporary).map(drop))
        })
    }

    /// Makes a file elsewhere in the cache and moves it to `path` when it is whole.
    fn place(&self, path: &Path, make: impl Fn(&Path) -> io::Result<()>) -> Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = self.root.join("blobs").join(format!("{}-{number}.temporary", process::id()));
        self.in_folder(&temporary, |temporary| {
            drop(fs::remove_file(temporary));
            make(temporary)
        })?;
        self.in_folder(path, |path| fs::rename(&temporary, path)).inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    fn in_folder(&self, path: &Path, work: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).and_then(|()| work(path)).map_err(|error| unwritable(path, &error))
    }
}

/// A cache that does not take files.
pub(super) fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::model(
        path,
        format!(
            "the cache cannot be written ({error}): make room or rights for it, or pass another cacheDir (or set HF_HOME)"
        ),
    )
}

#[cfg(unix)]
fn symlink(target: &str, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &str, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target.replace('/', "\\"), link)
}
