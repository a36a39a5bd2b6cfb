//! The cache's layout, which is that of the hub's other tools: `models--owner--name/{blobs,refs,snapshots}`.

use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::is_commit;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::model::http::pause;

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

    /// Whether files can be added.
    pub fn takes_files(&self) -> bool {
        let path = self.root.join("blobs").join(format!("{}.temporary", unique()));
        let made = self.in_folder(&path, |path| File::create_new(path).map(drop));
        made.is_ok_and(|()| fs::remove_file(&path).is_ok())
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

    /// Where it lies while it is not whole yet. Without a lock nobody else may know that place, or two would write there.
    pub fn incomplete(&self, etag: &str, lock: &Lock) -> Result<PathBuf> {
        let name = match lock {
            Lock::Held(_) => format!("{etag}.incomplete"),
            Lock::Unsupported => format!("{etag}.{}.incomplete", unique()),
        };
        let path = self.root.join("blobs").join(name);
        self.in_folder(&path, |_| Ok(()))?;
        Ok(path)
    }

    /// Waits until nobody else fetches this content. The lock ends with what is given, and with its process.
    pub fn lock(&self, etag: &str, cancel: &Cancel) -> Result<Lock> {
        let path = self.locks.join(format!("{etag}.lock"));
        loop {
            let mut lock = None;
            self.in_folder(&path, |path| {
                lock = Some(File::options().create(true).append(true).open(path)?);
                Ok(())
            })?;
            let lock = lock.ok_or_else(|| Error::Internal("a lock without a file".to_owned()))?;
            match lock.try_lock() {
                // Somebody may have removed the file meanwhile: then others lock another one of that name.
                Ok(()) if is_at(&lock, &path) => return Ok(Lock::Held(lock)),
                Ok(()) => cancel.check()?,
                Err(TryLockError::WouldBlock) => pause(cancel, LOCK_POLL)?,
                Err(TryLockError::Error(error)) if is_unsupported(&error) => return Ok(Lock::Unsupported),
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
        let temporary = self.root.join("blobs").join(format!("{}.temporary", unique()));
        self.in_folder(&temporary, make)?;
        self.in_folder(path, |path| fs::rename(&temporary, path)).inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    fn in_folder(&self, path: &Path, work: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).and_then(|()| work(path)).map_err(|error| unwritable(path, &error))
    }
}

/// The right to fetch some content.
pub(super) enum Lock {
    /// Nobody else has it.
    Held(#[expect(dead_code, reason = "held, not read")] File),
    /// The file system has no locks: then content may be fetched twice, each time to a place of its own.
    Unsupported,
}

/// A name that nobody else has, in no process of no machine or container that shares the cache.
pub(super) fn unique() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Whether the open file is the one that `path` names.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |found: &fs::Metadata| (found.dev(), found.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(open), Ok(named)) if place(&open) == place(&named))
}

/// An open file cannot be removed here.
#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Whether a file system has no locks, as some network ones.
fn is_unsupported(error: &io::Error) -> bool {
    let no_locks = cfg!(unix) && error.raw_os_error() == Some(libc::ENOLCK);
    no_locks || error.kind() == io::ErrorKind::Unsupported
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

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_lock_whose_file_was_removed_is_worth_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let repo = || Repo::of(directory.path(), "a/b");
        let cancel = Cancel::default();
        let first = repo().lock("1", &cancel).unwrap();
        let path = directory.path().join(".locks/models--a--b/1.lock");
        let open = File::open(&path).unwrap();
        assert!(is_at(&open, &path));
        let inside = std::sync::Mutex::new(());
        let hold = || {
            let lock = repo().lock("1", &cancel).unwrap();
            let alone = inside.try_lock();
            assert!(alone.is_ok(), "two have it at a time");
            std::thread::sleep(LOCK_POLL * 2);
            drop((alone, lock));
        };
        std::thread::scope(|threads| {
            // Most of these open the file before it is removed, and lock it when it is given back: then it is worth nothing.
            (0..4).for_each(|_| drop(threads.spawn(hold)));
            std::thread::sleep(LOCK_POLL * 3);
            fs::remove_file(&path).unwrap();
            assert!(!is_at(&open, &path));
            threads.spawn(hold);
            drop(first);
        });
    }

    #[test]
    fn temporary_names_are_not_shared_by_those_that_share_a_process_id() {
        let names: std::collections::HashSet<String> = (0..1000).map(|_| unique()).collect();
        assert_eq!(names.len(), 1000);
    }
}
