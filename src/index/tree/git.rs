//! What git knows of a directory: whether a repository begins there, what it ignores everywhere, and what it tracks.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::config::{Config, User, path_in};
use super::rules::Rules;

/// Larger ignore files and configurations are none.
const MAX_BYTES: u64 = 16 << 20;

/// A repository, as far as it decides about files.
#[derive(Default)]
pub struct Repository {
    /// Where it keeps what its worktrees share: `.git`, if it has one worktree. Empty where there is no repository.
    common: PathBuf,
    /// Whether upper and lower case are the same in ignore files.
    pub fold: bool,
    /// `info/exclude` of the repository, then the file that the user's configuration names.
    pub exclude: [Rules; 2],
    /// The paths that are tracked, sorted.
    tracked: Vec<Vec<u8>>,
}

/// Where a repository begins.
pub struct Place {
    top: PathBuf,
    git: PathBuf,
    common: PathBuf,
}

impl Place {
    /// The repository whose worktree begins in `directory`, if one does.
    pub fn of(directory: &Path) -> Option<Self> {
        let entry = directory.join(".git");
        let git = if entry.is_dir() {
            entry
        } else {
            let text = read(&entry)?;
            directory.join(path_in(text.strip_prefix(b"gitdir: ")?))
        };
        if !git.join("HEAD").exists() {
            return None;
        }
        let common = read(&git.join("commondir")).map_or_else(|| git.clone(), |text| git.join(path_in(&text)));
        Some(Self { common: common.canonicalize().unwrap_or(common), git, top: directory.to_owned() })
    }

    /// Where its first worktree is, if this is another one.
    pub fn linked_to(&self) -> Option<&Path> {
        let linked = self.git.canonicalize().is_ok_and(|git| git != self.common);
        if linked && self.common.ends_with(".git") { self.common.parent() } else { None }
    }

    /// What tells two repositories apart, whichever of its worktrees this is.
    pub fn common(&self) -> &Path {
        &self.common
    }

    /// Reads what decides about files.
    pub fn open(self, user: &User) -> Repository {
        let config = Config::read(user, &self.git, &self.common, &self.top);
        let rules = |file: PathBuf| Rules::parse(&read(&file).unwrap_or_default(), config.ignore_case);
        Repository {
            exclude: [
                rules(self.common.join("info/exclude")),
                config.excludes_file.clone().map(rules).unwrap_or_default(),
            ],
            fold: config.ignore_case,
            tracked: tracked(&self.git, if config.sha256 { 32 } else { 20 }),
            common: self.common,
        }
    }
}

impl Repository {
    /// Whether git tracks the file.
    pub fn tracks(&self, path: &[u8]) -> bool {
        self.tracked.binary_search_by(|tracked| tracked.as_slice().cmp(path)).is_ok()
    }

    /// Whether git tracks anything below the directory.
    pub fn tracks_below(&self, directory: &[u8]) -> bool {
        let below = |tracked: &[u8]| tracked.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"));
        let first = self.tracked.partition_point(|tracked| {
            // As if the directory ended with a slash.
            tracked.iter().cmp(directory.iter().chain(b"/")).is_lt()
        });
        self.tracked.get(first).is_some_and(|tracked| below(tracked))
    }

    /// Where it keeps what its worktrees share.
    pub fn common(&self) -> &Path {
        &self.common
    }
}

/// The bytes of a name.
pub fn bytes(name: &OsStr) -> Cow<'_, [u8]> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Cow::Borrowed(name.as_bytes())
    }
    #[cfg(not(unix))]
    match name.to_string_lossy() {
        Cow::Borrowed(name) => Cow::Borrowed(name.as_bytes()),
        Cow::Owned(name) => Cow::Owned(name.into_bytes()),
    }
}

/// A small regular file; links are none, as with git.
pub fn read(file: &Path) -> Option<Vec<u8>> {
    let small = |metadata: fs::Metadata| metadata.is_file() && metadata.len() <= MAX_BYTES;
    fs::symlink_metadata(file).is_ok_and(small).then(|| fs::read(file).ok()).flatten()
}

/// The paths in a repository's index, sorted; none where it cannot be read.
fn tracked(git: &Path, hash: usize) -> Vec<Vec<u8>> {
    // As large as it has to be, but nothing that never ends.
    let whole = |file: PathBuf| file.is_file().then(|| fs::read(file).ok()).flatten().unwrap_or_default();
    let index = whole(git.join("index"));
    let (mut paths, shared) = entries(&index, hash).unwrap_or_default();
    if let Some(name) = shared {
        // A split index: most of it is in another file, and here is what was changed since.
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        let base = whole(git.join(format!("sharedindex.{name}")));
        paths.extend(entries(&base, hash).unwrap_or_default().0);
        paths.retain(|path| !path.is_empty());
        paths.sort_unstable();
    }
    paths
}

/// The paths of an index file, and the name of the file that it shares.
pub(super) type IndexFile<'a> = (Vec<Vec<u8>>, Option<&'a [u8]>);

/// Reads an index file; see gitformat-index(5).
pub(super) fn entries(index: &[u8], hash: usize) -> Option<IndexFile<'_>> {
    let number = |at: usize| Some(u32::from_be_bytes(index.get(at..at + 4)?.try_into().ok()?) as usize);
    let version = number(4)?;
    if !index.starts_with(b"DIRC") || !(2..=4).contains(&version) {
        return None;
    }
    let count = number(8)?;
    let mut paths: Vec<Vec<u8>> = Vec::new();
    let mut at = 12;
    for _ in 0..count {
        let flags_at = at + 40 + hash;
        let extended = index.get(flags_at)? & 0x40 != 0;
        let mut name_at = flags_at + if extended { 4 } else { 2 };
        let mut path = Vec::new();
        if version == 4 {
            let (cut, length) = offset(index.get(name_at..)?)?;
            name_at += length;
            let before = paths.last().map_or(&[][..], Vec::as_slice);
            path.extend_from_slice(before.get(..before.len().checked_sub(cut)?)?);
        }
        let rest = index.get(name_at..)?;
        let length = rest.iter().position(|&byte| byte == 0)?;
        path.extend_from_slice(&rest[..length]);
        paths.push(path);
        let end = name_at + length;
        // Up to version 3, entries are filled up to a multiple of eight.
        at = if version == 4 { end + 1 } else { at + (end - at + 8) / 8 * 8 };
    }
    let mut shared = None;
    while at + 8 + hash <= index.len() {
        if index.get(at..at + 4)? == b"link" {
            shared = index.get(at + 8..at + 8 + hash);
        }
        at += 8 + number(at + 4)?;
    }
    Some((paths, shared))
}

/// A number as git packs it, and its length in bytes.
fn offset(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0usize;
    for (at, &byte) in bytes.iter().enumerate().take(9) {
        value = value.checked_shl(7)? | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
        value += 1;
    }
    None
}
