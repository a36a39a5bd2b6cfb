//! A directory → the source files in it, and why other files are left out.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use ignore::{DirEntry, WalkBuilder};

use super::outline;
use crate::cancel::Cancel;
use crate::error::Result;

/// Larger files are generated, data or minified: nobody reads them.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Directories of other people's code, also where no `.gitignore` says so.
const NEVER: [&str; 1] = ["node_modules"];

/// Why a file is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// Its extension belongs to none of the languages.
    Language,
    /// A link to somewhere else: what is in the tree is found without it.
    Link,
    /// A pipe, a socket or the like.
    NotRegular,
    /// Larger than [`MAX_FILE_BYTES`].
    Huge,
    /// It has NUL bytes.
    Binary,
    /// Its text is not UTF-8.
    NotUtf8,
    /// The operating system refuses to read it.
    Unreadable,
    /// Nothing but syntax errors.
    Syntax,
    /// Made to keep parsers busy.
    Slow,
}

impl Skip {
    const ALL: [Self; 9] = [
        Self::Language,
        Self::Link,
        Self::NotRegular,
        Self::Huge,
        Self::Binary,
        Self::NotUtf8,
        Self::Unreadable,
        Self::Syntax,
        Self::Slow,
    ];

    /// The reason that [`Skip::as_str`] words like this.
    pub fn parse(words: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == words)
    }

    /// The reason in plain words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Language => "in no supported language",
            Self::Link => "symbolic link",
            Self::NotRegular => "not a regular file",
            Self::Huge => "larger than 1 MB",
            Self::Binary => "binary",
            Self::NotUtf8 => "not UTF-8",
            Self::Unreadable => "unreadable",
            Self::Syntax => "syntax errors",
            Self::Slow => "parsing took too long",
        }
    }
}

/// Counts what was left out, and names some of it.
#[derive(Debug, Clone, Default)]
pub struct Skipped {
    /// How many files, by reason.
    pub counts: BTreeMap<Skip, usize>,
    /// The first of them, without those in other languages.
    pub examples: Vec<(String, Skip)>,
}

impl Skipped {
    /// Most files that are named.
    const EXAMPLES: usize = 100;

    /// Adds all of another one.
    pub fn merge(&mut self, other: Self) {
        other.counts.into_iter().for_each(|(reason, count)| *self.counts.entry(reason).or_default() += count);
        self.examples.extend(other.examples);
        self.examples.truncate(Self::EXAMPLES);
    }

    /// Adds one.
    pub fn add(&mut self, path: impl Into<String>, reason: Skip) {
        *self.counts.entry(reason).or_default() += 1;
        if reason != Skip::Language && self.examples.len() < Self::EXAMPLES {
            self.examples.push((path.into(), reason));
        }
    }
}

/// A source file of the tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its path below the root, with `/`.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was changed last, in nanoseconds since 1970; 0 where nobody knows.
    pub modified: i64,
}

/// What is in a tree.
#[derive(Debug, Default)]
pub struct Tree {
    /// All source files, sorted by path.
    pub files: Vec<Found>,
    /// What was left out.
    pub skipped: Skipped,
    /// Directories and files that could not be looked at: nobody knows what is there now.
    pub unseen: Vec<String>,
}

impl Tree {
    /// Whether a file that is not among [`Tree::files`] may be there nevertheless.
    pub fn may_hold(&self, path: &str) -> bool {
        let within = |unseen: &String| {
            path.strip_prefix(unseen.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.unseen.iter().any(|unseen| unseen.is_empty() || within(unseen))
    }
}

/// All source files below `root`; `.gitignore`, `.ignore` and hidden files respected.
pub fn walk(root: &Path, cancel: &Cancel) -> Result<Tree> {
    let mut tree = Tree::default();
    // Ignore files above the root count where it is part of a repository, and only there: a home directory may have
    // one that hides everything.
    let in_repository = root.canonicalize().is_ok_and(|root| root.ancestors().any(|above| above.join(".git").exists()));
    let walk = WalkBuilder::new(root)
        .require_git(false)
        .parents(in_repository)
        .filter_entry(|entry| !NEVER.iter().any(|name| entry.file_name() == *name) || entry.depth() == 0)
        .build();
    for entry in walk {
        cancel.check()?;
        let looked = entry
            .map_err(|error| at_fault(&error))
            .and_then(|entry| look_at(root, &entry).ok_or_else(|| Some(entry.path().to_path_buf())));
        match looked {
            Ok(Looked::Source(file)) => tree.files.push(file),
            Ok(Looked::Directory) => {}
            Ok(Looked::Other(path, reason)) => tree.skipped.add(path, reason),
            Err(path) => {
                let path = path.unwrap_or_default();
                let path = path.strip_prefix(root).map(below).unwrap_or_default();
                tree.skipped.add(&path, Skip::Unreadable);
                tree.unseen.push(path);
            }
        }
    }
    tree.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(tree)
}

fn at_fault(error: &ignore::Error) -> Option<PathBuf> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path.clone()),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => at_fault(err),
        _ => None,
    }
}

/// A path below the root, with `/`.
fn below(path: &Path) -> String {
    let path = path.to_string_lossy();
    if cfg!(windows) { path.replace('\\', "/") } else { path.into_owned() }
}

enum Looked {
    Source(Found),
    Directory,
    Other(String, Skip),
}

fn look_at(root: &Path, entry: &DirEntry) -> Option<Looked> {
    let kind = entry.file_type()?;
    let relative = entry.path().strip_prefix(root).ok()?;
    let path = below(relative);
    if kind.is_dir() {
        return Some(Looked::Directory);
    }
    if kind.is_symlink() {
        return Some(Looked::Other(path, Skip::Link));
    }
    let extension = relative.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if outline::grammar(extension).is_none() {
        return Some(Looked::Other(path, Skip::Language));
    }
    if relative.to_str().is_none() {
        return Some(Looked::Other(path, Skip::NotUtf8));
    }
    if !kind.is_file() {
        return Some(Looked::Other(path, Skip::NotRegular));
    }
    let metadata = entry.metadata().ok()?;
    if metadata.len() > MAX_FILE_BYTES {
        return Some(Looked::Other(path, Skip::Huge));
    }
    Some(Looked::Source(Found { path, size: metadata.len(), modified: modified(&metadata) }))
}

fn modified(metadata: &Metadata) -> i64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

/// The text of a file that [`walk`] found.
pub fn read(root: &Path, file: &Found) -> Result<String, Skip> {
    let path: PathBuf = root.join(&file.path);
    let mut bytes = Vec::with_capacity(file.size as usize);
    // The file may have grown, or have become something else, since it was found.
    let regular = std::fs::symlink_metadata(&path).map_err(|_| Skip::Unreadable)?.is_file();
    if !regular {
        return Err(Skip::NotRegular);
    }
    let opened = File::open(&path).map_err(|_| Skip::Unreadable)?;
    opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|_| Skip::Unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Skip::Huge);
    }
    if bytes.contains(&0) {
        return Err(Skip::Binary);
    }
    let text = String::from_utf8(bytes).map_err(|_| Skip::NotUtf8)?;
    // A byte order mark is no part of the first line.
    Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
}
