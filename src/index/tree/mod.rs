//! A directory → the source files in it, and why other files are left out.

mod config;
#[cfg(fuzzing)]
pub mod fuzzing;
mod git;
mod glob;
mod rules;
mod text;

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirEntry, File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use super::outline;
use crate::cancel::Cancel;
use crate::error::Result;
use config::User;
use git::{Place, Repository};

pub use rules::Rules;
pub use text::decode;

/// Larger files are generated, data or minified: nobody reads them.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Directories of other people's code, also where no `.gitignore` says so.
const NEVER: &[u8] = b"node_modules";

/// Why a file is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// Its extension belongs to none of the languages, and texts are not indexed.
    Language,
    /// A link to somewhere else: what is in the tree is found without it.
    Link,
    /// A pipe, a socket or the like.
    NotRegular,
    /// Larger than [`MAX_FILE_BYTES`].
    Huge,
    /// No text in any encoding.
    Binary,
    /// Its name is not UTF-8.
    Name,
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
        Self::Name,
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
            Self::Name => "name not UTF-8",
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
    /// What the file system says about it.
    pub stamp: Stamp,
}

/// What the file system says about a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Its size in bytes.
    pub size: u64,
    /// When its content was changed last, in nanoseconds since 1970: what its owner likes it to be.
    pub modified: i64,
    /// When anything about it was changed, its name and that time included, which nobody can set; 0 where no such time is
    /// kept, or where it is so short ago that another change may have the same.
    pub changed: i64,
    /// The number that tells it from a file put in its place.
    pub inode: u64,
}

/// A file that was changed within this time before it was looked at may be changed again without its times telling.
const TIME_GRAIN_NS: i64 = 2_000_000_000;

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = since.and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(0);
        let size = metadata.len();
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let changed = metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec());
            let now =
                std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
            let settled = now.saturating_sub(changed) > TIME_GRAIN_NS;
            Self { size, modified, changed: if settled { changed } else { 0 }, inode: metadata.ino() }
        }
        #[cfg(not(unix))]
        Self { size, modified, changed: 0, inode: 0 }
    }

    /// Whether a file with this stamp has the content that it had with the stamp `before`, for sure.
    pub fn proves_unchanged_since(&self, before: &Self) -> bool {
        self.changed != 0 && self == before
    }
}

/// What is in a tree.
#[derive(Debug, Default)]
pub struct Tree {
    /// All source files, sorted by path.
    pub files: Vec<Found>,
    /// What was left out.
    pub skipped: Skipped,
    /// The directories that it was read from, as paths.
    pub directories: Vec<PathBuf>,
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

    fn unseen(&mut self, path: String) {
        self.skipped.add(&path, Skip::Unreadable);
        self.unseen.push(path);
    }
}

/// All source files below `root`: those that git tracks, and those that it does not ignore. A `.ignore` file, of the
/// same form, is for the index alone, and leaves out tracked files, too.
///
/// Left out are hidden files, `node_modules`, and worktrees of a repository that is in the tree already; and, without `texts`, what is
/// in no language that is known.
pub fn walk(root: &Path, texts: bool, cancel: &Cancel) -> Result<Tree> {
    walk_as(&User::of_this_process(), root, texts, cancel)
}

/// The directories that [`walk`] reads.
pub fn directories(root: &Path, cancel: &Cancel) -> Result<Vec<PathBuf>> {
    Ok(walk(root, false, cancel)?.directories)
}

/// [`walk`] with what somebody has configured.
fn walk_as(user: &User, root: &Path, texts: bool, cancel: &Cancel) -> Result<Tree> {
    let mut tree = Tree::default();
    let real = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
    let (first, repository) = Directory::root(user, root, &real);
    let mut seen: HashSet<PathBuf> = HashSet::from([repository.common().to_path_buf()]);
    let mut open = vec![first];
    while let Some(directory) = open.pop() {
        let entries: std::io::Result<Vec<DirEntry>> = fs::read_dir(&directory.path).and_then(Iterator::collect);
        let Ok(entries) = entries else {
            tree.unseen(directory.name);
            continue;
        };
        let rules = directory.rules_inside(&entries);
        tree.directories.push(directory.path.clone());
        for entry in entries {
            cancel.check()?;
            let name = entry.file_name();
            let bytes = git::bytes(&name);
            if bytes.starts_with(b".") || *bytes == *NEVER {
                continue;
            }
            let below = |above: &str| {
                let name = name.to_string_lossy();
                if above.is_empty() { name.into_owned() } else { format!("{above}/{name}") }
            };
            let Ok(kind) = entry.file_type() else {
                tree.unseen(below(&directory.name));
                continue;
            };
            let mut in_repository = directory.in_repository.clone();
            if !in_repository.is_empty() {
                in_repository.push(b'/');
            }
            in_repository.extend_from_slice(&bytes);
            let fate = rules.fate(&in_repository, kind.is_dir(), directory.ignored);
            if kind.is_dir() {
                let ignored = fate == Fate::Ignored;
                if fate == Fate::Out || (ignored && !rules.repository.tracks_below(&in_repository)) {
                    continue;
                }
                let (name, path) = (below(&directory.name), entry.path());
                let inside = Directory { path, name, in_repository, ignored, rules: Rc::clone(&rules) };
                open.extend(inside.of_its_repository(user, &real, &mut seen));
            } else if fate == Fate::In {
                let path = entry.path();
                match look_at(&entry, kind, path.strip_prefix(root).unwrap_or(&path), texts) {
                    Some(Ok(stamp)) => tree.files.push(Found { path: below(&directory.name), stamp }),
                    Some(Err(reason)) => tree.skipped.add(below(&directory.name), reason),
                    None => tree.unseen(below(&directory.name)),
                }
            }
        }
    }
    tree.files.sort_by(|a, b| a.path.cmp(&b.path));
    tree.skipped.examples.sort();
    Ok(tree)
}

/// What the ignore files make of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    In,
    /// Ignored by git: what it tracks there counts nevertheless.
    Ignored,
    Out,
}

/// A directory on the way.
struct Directory {
    path: PathBuf,
    /// Its path below the root, with `/`.
    name: String,
    /// Its path below the root of its repository.
    in_repository: Vec<u8>,
    /// Whether git ignores it: only what is tracked in it counts.
    ignored: bool,
    /// What holds for it.
    rules: Rc<Holding>,
}

/// The ignore files that hold in a directory, and those that hold above it.
struct Holding {
    above: Option<Rc<Holding>>,
    /// Length of the directory's path below the root of its repository, with a slash at its end.
    base: usize,
    gitignore: Rules,
    /// Of the `.ignore` file.
    own: Rules,
    repository: Rc<Repository>,
}

impl Directory {
    /// The root: ignore files above it count as far as the repository reaches that it is in.
    fn root(user: &User, root: &Path, real: &Path) -> (Self, Rc<Repository>) {
        let begins = real.ancestors().find_map(|above| Some((above, Place::of(above)?)));
        let mut in_repository = Vec::new();
        let (repository, top) =
            begins.map_or_else(|| (Repository::default(), real), |(at, place)| (place.open(user), at));
        let repository = Rc::new(repository);
        let mut rules = Rc::new(Holding::none(&repository));
        let mut above = top.to_path_buf();
        for part in real.strip_prefix(top).unwrap_or(Path::new("")) {
            rules = rules.with(&above, &in_repository);
            above.push(part);
            if !in_repository.is_empty() {
                in_repository.push(b'/');
            }
            in_repository.extend_from_slice(&git::bytes(part));
        }
        let root = Self { path: root.to_path_buf(), name: String::new(), in_repository, ignored: false, rules };
        (root, repository)
    }

    /// What holds for what is in the directory.
    fn rules_inside(&self, entries: &[DirEntry]) -> Rc<Holding> {
        let has = entries.iter().any(|entry| [".gitignore", ".ignore"].iter().any(|name| entry.file_name() == *name));
        if has { self.rules.with(&self.path, &self.in_repository) } else { Rc::clone(&self.rules) }
    }

    /// The directory as part of the repository that begins in it, if one does; nothing if that is the worktree of a
    /// repository whose functions are found elsewhere in the tree.
    fn of_its_repository(self, user: &User, root: &Path, seen: &mut HashSet<PathBuf>) -> Option<Self> {
        let Some(place) = Place::of(&self.path) else { return Some(self) };
        let linked_to_the_tree = place.linked_to().is_some_and(|first| first.starts_with(root));
        if linked_to_the_tree || !seen.insert(place.common().to_path_buf()) {
            return None;
        }
        let repository = Rc::new(place.open(user));
        Some(Self { in_repository: Vec::new(), ignored: false, rules: Rc::new(Holding::none(&repository)), ..self })
    }
}

impl Holding {
    fn none(repository: &Rc<Repository>) -> Self {
        let (gitignore, own) = (Rules::default(), Rules::default());
        Self { above: None, base: 0, gitignore, own, repository: Rc::clone(repository) }
    }

    /// With the ignore files of `directory`.
    fn with(self: &Rc<Self>, directory: &Path, in_repository: &[u8]) -> Rc<Self> {
        let fold = self.repository.fold;
        let rules = |name| git::read(&directory.join(name)).map(|text| Rules::parse(&text, fold)).unwrap_or_default();
        Rc::new(Self {
            above: Some(Rc::clone(self)),
            base: if in_repository.is_empty() { 0 } else { in_repository.len() + 1 },
            gitignore: rules(".gitignore"),
            own: rules(".ignore"),
            repository: Rc::clone(&self.repository),
        })
    }

    /// What becomes of `path`, in a directory that git ignores or not.
    fn fate(&self, path: &[u8], directory: bool, in_ignored: bool) -> Fate {
        let decided = |rules: fn(&Self) -> &Rules| {
            std::iter::successors(Some(self), |holding| holding.above.as_deref())
                .find_map(|holding| rules(holding).ignore(&path[holding.base..], directory))
        };
        if let Some(out) = decided(|holding| &holding.own) {
            return if out { Fate::Out } else { Fate::In };
        }
        if !directory && self.repository.tracks(path) {
            return Fate::In;
        }
        let everywhere = || self.repository.exclude.iter().find_map(|rules| rules.ignore(path, directory));
        let ignored = in_ignored || decided(|holding| &holding.gitignore).or_else(everywhere).unwrap_or(false);
        if ignored { Fate::Ignored } else { Fate::In }
    }
}

/// The stamp of a source file, or why another one is left out; `None` if nobody knows.
fn look_at(entry: &DirEntry, kind: fs::FileType, path: &Path, texts: bool) -> Option<Result<Stamp, Skip>> {
    if kind.is_symlink() {
        return Some(Err(Skip::Link));
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if !texts && outline::reader(extension).is_none() {
        return Some(Err(Skip::Language));
    }
    if path.to_str().is_none() {
        return Some(Err(Skip::Name));
    }
    if !kind.is_file() {
        return Some(Err(Skip::NotRegular));
    }
    let metadata = entry.metadata().ok()?;
    Some(if metadata.len() > MAX_FILE_BYTES { Err(Skip::Huge) } else { Ok(Stamp::of(&metadata)) })
}

/// The content of a file that [`walk`] found, and its stamp from before it was read.
pub fn read(root: &Path, path: &str) -> Result<(Vec<u8>, Stamp), Skip> {
    let path: PathBuf = root.join(path);
    // The file may have grown, or have become something else, since it was found.
    let regular = fs::symlink_metadata(&path).map_err(|_| Skip::Unreadable)?.is_file();
    if !regular {
        return Err(Skip::NotRegular);
    }
    let opened = File::open(&path).map_err(|_| Skip::Unreadable)?;
    let stamp = Stamp::of(&opened.metadata().map_err(|_| Skip::Unreadable)?);
    let mut bytes = Vec::with_capacity(stamp.size.min(MAX_FILE_BYTES) as usize);
    opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|_| Skip::Unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Skip::Huge);
    }
    Ok((bytes, stamp))
}

#[cfg(test)]
mod tests;
