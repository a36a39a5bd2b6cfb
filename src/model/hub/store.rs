//! The models in the cache: what is there, whether it is whole, adding and removing. JS class: `ModelStore`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::cache::unwritable;
use super::{Fetched, Id, Progress, Search, Settings, Snapshot};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::model::{HubOptions, ModelOptions, content};

/// The cache of models from the hub, shared with the hub's other tools. Nothing of it is kept in memory. All methods block.
#[derive(Debug, Clone)]
pub struct ModelStore {
    directory: PathBuf,
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredModel {
    /// `owner/name`.
    pub id: String,
    /// Its folder.
    pub path: PathBuf,
    /// The commits of which files are there, and the branches and tags that stand for them.
    pub revisions: BTreeMap<String, Vec<String>>,
    /// Files of all revisions.
    pub files: usize,
    /// Bytes of all content on the disk.
    pub bytes: u64,
    /// Bytes of downloads that are not finished, part of `bytes`.
    pub partial_bytes: u64,
    /// When anything of it was written last, in ms since 1970.
    pub modified_ms: u64,
}

/// A model that was added.
#[derive(Debug, Clone, PartialEq)]
pub struct AddedModel {
    /// As the caller named it.
    pub id: String,
    /// The repository that its files come from: a conversion where the model has no ONNX.
    pub repository: String,
    /// The commit.
    pub revision: String,
    /// The directory of its files.
    pub path: PathBuf,
    /// Bytes of the files of that commit.
    pub bytes: u64,
}

/// What a look at all files of a model has shown.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedModel {
    /// `owner/name`.
    pub id: String,
    /// Contents that are what their names say.
    pub sound: usize,
    /// Contents without a hash to compare them with: copies in place of links, and names of other kinds.
    pub unchecked: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Something wrong with a file in the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The file's name in the model; of content that no file points to, the content's.
    pub file: String,
    /// Where it lies.
    pub path: PathBuf,
    /// `damaged`: its hash is not its name. `missing`: a link without content. `unreadable`: with the system's reason.
    pub what: String,
}

impl ModelStore {
    /// The cache that the options name, else the environment. Need not be there yet.
    pub fn new(options: &HubOptions) -> Result<Self> {
        Ok(Self { directory: Settings::read(options)?.cache })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// All models in it, by name.
    pub fn list(&self) -> Result<Vec<StoredModel>> {
        let mut models: Vec<StoredModel> = Vec::new();
        for (id, folder) in self.folders()? {
            models.push(stored(id, folder).map_err(|(path, error)| unreadable(&path, &error))?);
        }
        models.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(models)
    }

    /// Fetches what a load with `options` needs and is not there, damaged content included. A branch or tag is looked up
    /// anew, so that this is also how a model is brought up to date.
    pub fn add(
        &self,
        id: &str,
        options: &ModelOptions,
        cancel: &Cancel,
        progress: Option<&Progress>,
    ) -> Result<AddedModel> {
        let named = parsed(id)?;
        let mut options = options.clone();
        options.hub.cache_dir = Some(self.directory.clone());
        let resolve = |refresh| {
            let settings = Settings::read(&options.hub)?;
            Search { settings, options: &options, cancel, progress, refresh }.resolve(&named)
        };
        let mut found = resolve(true)?;
        if check_snapshot(&found, cancel)? {
            found = resolve(false)?;
        }
        let Snapshot { directory, repository, commit } = found;
        let bytes = files_below(&directory).map_err(|(path, error)| unreadable(&path, &error))?;
        let bytes = bytes.iter().filter_map(|(path, _)| fs::metadata(path).ok()).map(|found| found.len()).sum();
        Ok(AddedModel { id: id.to_owned(), repository, revision: commit, path: directory, bytes })
    }

    /// Reads all content of one model, or of all, and compares it with its hash. Changes nothing.
    pub fn verify(&self, id: Option<&str>, cancel: &Cancel, progress: Option<&Progress>) -> Result<Vec<VerifiedModel>> {
        let folders: Vec<(String, PathBuf)> = match id {
            Some(id) => vec![(id.to_owned(), self.folder(id)?)],
            None => self.folders()?,
        };
        let mut work = Vec::new();
        for (id, folder) in folders {
            work.push((id, Contents::of(&folder).map_err(|(path, error)| unreadable(&path, &error))?));
        }
        let all: u64 = work.iter().flat_map(|(_, contents)| contents.blobs.values()).map(|(_, size)| size).sum();
        let mut done = 0;
        let mut verified = Vec::new();
        for (id, contents) in work {
            verified.push(contents.verify(id, cancel, |file, loaded, total| {
                if let Some(progress) = progress {
                    let share = if all == 0 { 100.0 } else { (done + loaded) as f64 / all as f64 * 100.0 };
                    progress(&Fetched { file, loaded, total, progress_total: share.min(100.0) });
                }
                if loaded == total {
                    done += total;
                }
            })?);
        }
        verified.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(verified)
    }

    /// Removes all of a model, whatever tool put it there; gives the bytes that this frees.
    pub fn remove(&self, id: &str) -> Result<u64> {
        let folder = self.folder(id)?;
        let bytes = stored(id.to_owned(), folder.clone()).map_or(0, |model| model.bytes);
        // Out of sight at once: nobody finds half a model.
        let aside = self.directory.join(format!(".removed-{}", super::cache::unique()));
        let failed = |error: io::Error| unwritable(&folder, &error);
        fs::rename(&folder, &aside).map_err(failed)?;
        match fs::symlink_metadata(&aside) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&aside).map_err(failed)?,
            _ => fs::remove_file(&aside).map_err(failed)?,
        }
        let locks = folder.file_name().map(|name| self.directory.join(".locks").join(name));
        drop(locks.map(fs::remove_dir_all));
        Ok(bytes)
    }

    /// The folder of a model that is there. Found by its name in the list, so that no id leads anywhere else.
    fn folder(&self, id: &str) -> Result<PathBuf> {
        if let Some((_, folder)) = self.folders()?.into_iter().find(|(known, _)| known == id) {
            return Ok(folder);
        }
        let named = parsed(id)?;
        if named.revision.is_some() {
            return Err(Error::InvalidArgument(format!("{id} names a revision: give the whole model, {}", named.name)));
        }
        let cache = self.directory.display();
        Err(Error::InvalidArgument(format!("{id} is not in {cache}: list what is there, or name its cacheDir")))
    }

    /// All models, by the names of their folders.
    fn folders(&self) -> Result<Vec<(String, PathBuf)>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&self.directory, &error)),
        };
        let named = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let id = name.strip_prefix("models--")?.replace("--", "/");
            entry.path().is_dir().then(|| (id, entry.path()))
        };
        Ok(entries.flatten().filter_map(named).collect())
    }
}

fn parsed(id: &str) -> Result<Id> {
    Id::parse(id).ok_or_else(|| {
        Error::InvalidArgument(format!(
            "{id:?} is not the id of a model on the hub: give owner/name or owner/name@revision"
        ))
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::Storage { path: path.display().to_string(), reason: format!("the cache of models cannot be read: {error}") }
}

/// What could not be read, and why.
type Unread = (PathBuf, io::Error);

/// All files below a directory that is there, links not followed, with their own lengths.
fn files_below(directory: &Path) -> Result<Vec<(PathBuf, fs::Metadata)>, Unread> {
    let mut files = Vec::new();
    let mut folders = vec![directory.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err((folder, error)),
        };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => files.push((entry.path(), found)),
                // Gone since: somebody is at work here.
                Err(_) => {}
            }
        }
    }
    Ok(files)
}

fn stored(id: String, path: PathBuf) -> Result<StoredModel, Unread> {
    let mut revisions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let snapshots = path.join("snapshots");
    for entry in fs::read_dir(&snapshots).into_iter().flatten().flatten() {
        revisions.insert(entry.file_name().to_string_lossy().into_owned(), Vec::new());
    }
    let refs = path.join("refs");
    for (file, _) in files_below(&refs)? {
        let commit = fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
        let name = file.strip_prefix(&refs).unwrap_or(&file).to_string_lossy().replace('\\', "/");
        if let Some(names) = revisions.get_mut(&commit) {
            names.push(name);
            names.sort();
        }
    }
    let (mut files, mut bytes, mut partial_bytes, mut modified_ms) = (0, 0, 0, 0);
    for (file, found) in files_below(&path)? {
        files += usize::from(file.starts_with(&snapshots));
        bytes += if found.is_symlink() { 0 } else { found.len() };
        if file.extension().is_some_and(|extension| extension == "incomplete" || extension == "temporary") {
            partial_bytes += found.len();
        }
        let modified = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        modified_ms = modified_ms.max(modified.map_or(0, |time| time.as_millis() as u64));
    }
    Ok(StoredModel { id, path, revisions, files, bytes, partial_bytes, modified_ms })
}

/// Whether a file of a snapshot was damaged, and has been taken out of the cache.
fn check_snapshot(snapshot: &Snapshot, cancel: &Cancel) -> Result<bool> {
    let files = files_below(&snapshot.directory).map_err(|(path, error)| unreadable(&path, &error))?;
    let mut damaged = false;
    for (file, _) in files {
        cancel.check()?;
        match content::sha256(&file) {
            Ok(sha256) => damaged |= content::check_hashed(&file, &sha256).is_err(),
            // Content that another tool needs and has removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&file, &error)),
        }
    }
    Ok(damaged)
}

/// All that a model's folder holds.
struct Contents {
    /// By name, with path and size.
    blobs: BTreeMap<String, (PathBuf, u64)>,
    /// The files that point to a blob.
    named: BTreeMap<String, String>,
    unchecked: usize,
    problems: Vec<Problem>,
}

impl Contents {
    fn of(folder: &Path) -> Result<Self, Unread> {
        let mut contents = Self { blobs: BTreeMap::new(), named: BTreeMap::new(), unchecked: 0, problems: Vec::new() };
        for (path, found) in files_below(&folder.join("blobs"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if content::is_name(&name) {
                contents.blobs.insert(name, (path, found.len()));
            } else if path.extension().is_none_or(|extension| extension != "incomplete" && extension != "temporary") {
                contents.unchecked += 1;
            }
        }
        let snapshots = folder.join("snapshots");
        for (path, found) in files_below(&snapshots)? {
            let within = path.strip_prefix(&snapshots).unwrap_or(&path).components().skip(1).collect::<PathBuf>();
            let file = within.to_string_lossy().replace('\\', "/");
            let target = fs::read_link(&path).ok();
            match target.as_ref().and_then(|target| target.file_name()) {
                Some(_) if !path.exists() => {
                    contents.problems.push(Problem { file, path, what: "missing".to_owned() });
                }
                Some(blob) => drop(contents.named.insert(blob.to_string_lossy().into_owned(), file)),
                None => contents.unchecked += usize::from(found.is_file()),
            }
        }
        Ok(contents)
    }

    fn verify(self, id: String, cancel: &Cancel, mut report: impl FnMut(&str, u64, u64)) -> Result<VerifiedModel> {
        let Self { blobs, named, unchecked, problems } = self;
        let mut verified = VerifiedModel { id, sound: 0, unchecked, bytes: 0, problems };
        for (name, (path, size)) in blobs {
            let file = named.get(&name).unwrap_or(&name);
            let mut hash = content::NameHash::like(&name, size);
            let mut loaded = 0;
            let read = content::each_chunk(&path, 0, |chunk, _| {
                cancel.check()?;
                hash.update(chunk);
                loaded += chunk.len() as u64;
                if loaded < size {
                    report(file, loaded, size);
                }
                Ok(())
            });
            report(file, size, size);
            verified.bytes += loaded;
            let what = match read {
                Ok(stopped) => {
                    stopped?;
                    if hash.name() == name {
                        verified.sound += 1;
                        continue;
                    }
                    "damaged".to_owned()
                }
                Err(error) => format!("unreadable: {error}"),
            };
            verified.problems.push(Problem { file: file.clone(), path, what });
        }
        Ok(verified)
    }
}
