//! Semantic search in a source tree. JS class: `CodeIndex`.
//!
//! | part | what it does |
//! |---|---|
//! | `tree` | directory → source files, and why others are left out |
//! | `outline` | source → functions, methods, classes, types |
//! | `words` | text → what BM25 compares |
//! | `aside` | path → whether it holds tests, fixtures, or what a program has written |
//! | `update` | brings the index up to date |
//! | `watch` | tells when the tree has changed |
//! | `store` | all of it on disk, one row for each file |
//! | `rank` | query → best declarations |
//! | `near` | declaration → those like it; what repeats what |
//! | `filter` | which of them may be answers |
//!
//! The vectors come from a [`Generator`].

mod aside;
mod filter;
#[cfg(fuzzing)]
pub mod fuzzing;
mod near;
mod outline;
mod rank;
mod scan;
mod store;
mod tree;
mod update;
mod watch;
mod words;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cancel::Cancel;
use crate::embedding::InputType;
use crate::error::{Error, Result};
use crate::generator::{CallOptions, Generator, Inputs};
use crate::host::threads::blocking;
use rank::{Hit, Ranking};
use scan::Block;
use sha2::{Digest, Sha256};
use store::{Described, MadeWith, Store};

pub use filter::Filter;
pub use near::{DuplicateOptions, Duplicates};
pub use outline::extensions;
pub use store::Entry;
pub use watch::TreeWatch;

/// Where the index of a directory lies.
const DIRECTORY: &str = ".embedcore";
const FILE: &str = "index.sqlite";

/// How often a search begins again because the index was changed under it.
const ANSWERS: usize = 3;

/// How many times as many answers are looked at where a filter may leave some of them out, and again where that was not enough.
const KIND_DEPTH: usize = 8;

/// The most answers to a search.
pub const MAX_LIMIT: usize = 1000;

/// How a run of [`CodeIndex::update`] goes on.
pub type Progress = Box<dyn Fn(&Report) + Send + Sync>;

/// What a run of [`CodeIndex::update`] is asked to do.
#[derive(Default)]
pub struct UpdateOptions {
    /// Whether whatever index is there is thrown away: one of another model or version, or a damaged one.
    pub rebuild: bool,
    /// How long the run waits while another process updates the index.
    pub wait: Duration,
    /// Stops the run. What is written by then stays.
    pub cancel: Cancel,
    /// Told whenever files were written.
    pub progress: Option<Progress>,
}

/// What a run of [`CodeIndex::update`] has done.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Source files in the index; those that cannot be read are none.
    pub files: usize,
    /// Files that are new or have another content.
    pub changed: usize,
    /// How many of those are done.
    pub done: usize,
    /// Files whose content is as it was.
    pub unchanged: usize,
    /// Files that are gone from the tree, and now from the index.
    pub removed: usize,
    /// Declarations in the index.
    pub annotations: usize,
    /// Declarations that were embedded.
    pub embedded: usize,
    /// Declarations of changed files that were as they were, so that their vectors could be kept.
    pub reused: usize,
    /// Files in the index whose text is not UTF-8, by encoding.
    pub encodings: BTreeMap<String, usize>,
    /// Files left out, by reason.
    pub skipped: BTreeMap<&'static str, usize>,
    /// Some of them, with the reason.
    pub examples: Vec<(String, &'static str)>,
    /// Seconds since the run began.
    pub seconds: f64,
}

/// An answer to a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// The source file, below the root.
    pub file: String,
    /// The language that the file is written in.
    pub language: &'static str,
    /// The declaration.
    pub entry: Entry,
    /// What answers are ranked by, 0 to 1: most of it the similarity, the rest the words that they share with the query.
    pub score: f32,
    /// Cosine of the declaration's vector and the query's.
    pub similarity: f32,
    /// Whether the file has another content now, or cannot be read any more.
    pub stale: bool,
}

/// A declaration that was asked for by its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Symbol {
    /// The source file, below the root.
    pub file: String,
    /// The language that the file is written in.
    pub language: &'static str,
    /// The declaration.
    pub entry: Entry,
    /// Whether the file has another content now, or cannot be read any more.
    pub stale: bool,
}

/// What is in an index.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where it lies.
    pub path: PathBuf,
    /// Its size, in bytes.
    pub bytes: u64,
    /// The model that made it.
    pub model: String,
    /// Length of its vectors.
    pub dimensions: usize,
    /// Source files in it, by language; those that cannot be read are none.
    pub languages: BTreeMap<&'static str, usize>,
    /// Whether texts in no known language are indexed, too.
    pub texts: bool,
    /// Declarations in it.
    pub annotations: usize,
}

/// The index of one directory. All methods may be called at once.
pub struct CodeIndex {
    root: PathBuf,
    path: PathBuf,
    generator: Arc<Generator>,
    /// Whether texts in no known language are indexed, too; `None`: as they are.
    texts: Option<bool>,
    /// What searches have read.
    loaded: Mutex<Option<Loaded>>,
    /// One run at a time in this process; a lock on a file keeps others out.
    updating: tokio::sync::Mutex<()>,
}

/// The index in memory.
struct Loaded {
    store: Store,
    identity: Option<(u64, u64)>,
    version: i64,
    blocks: Arc<Vec<Block>>,
}

impl CodeIndex {
    /// The index of the directory `root`, made with `generator`, at `path` or in the directory itself. Costs nothing. With `texts`,
    /// texts in no known language are indexed, too, or not any more.
    pub fn new(root: PathBuf, path: Option<PathBuf>, texts: Option<bool>, generator: Arc<Generator>) -> Self {
        let path = path.unwrap_or_else(|| root.join(DIRECTORY).join(FILE));
        Self { root, path, generator, texts, loaded: Mutex::default(), updating: tokio::sync::Mutex::default() }
    }

    /// The `limit` best declarations for `words` that `filter` lets in, best first.
    pub async fn search(self: Arc<Self>, words: String, limit: usize, filter: Filter) -> Result<Vec<Match>> {
        if words.trim().is_empty() {
            return Err(Error::InvalidArgument("The words to search for are empty".to_owned()));
        }
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Error::InvalidArgument(format!("limit is {limit}, not a whole number from 1 to {MAX_LIMIT}")));
        }
        filter.check()?;
        // Reading the index and loading the model need nothing of each other.
        let index = Arc::clone(&self);
        let (query, blocks) = tokio::join!(self.embed_query(words.clone()), blocking(move || index.load()));
        let blocks = blocks??;
        let (made_with, vector) = query?;
        blocking(move || {
            self.consistently(blocks, |blocks| {
                self.with_loaded(|loaded| loaded.store.require(&made_with))?;
                self.answer(blocks, &vector, Some(&words), limit, &filter, |_, _| true)
            })
        })
        .await?
    }

    /// What `answer` makes of the index, which tells whether the index is still that of the blocks: where it was changed meanwhile, it is
    /// asked again.
    fn consistently<T>(
        &self,
        mut blocks: Arc<Vec<Block>>,
        answer: impl Fn(&Arc<Vec<Block>>) -> Result<(T, bool)>,
    ) -> Result<T> {
        let mut attempts = 0;
        loop {
            let (found, current) = answer(&blocks)?;
            attempts += 1;
            // Somebody may write all the time. What is gone is left out, and ids never change their meaning.
            if current || attempts > ANSWERS {
                return Ok(found);
            }
            blocks = self.load()?;
        }
    }

    /// The declarations that are called `name`: wholly, or behind the names around them. The shortest names first.
    pub fn symbols(&self, name: &str, limit: usize) -> Result<Vec<Symbol>> {
        if name.trim().is_empty() {
            return Err(Error::InvalidArgument("The name to look for is empty".to_owned()));
        }
        let quoted = serde_json::Value::from(name).to_string();
        let store = self.open_existing()?;
        let mut found = Vec::new();
        for Described { path, hash, entries } in store.declaring(&quoted[1..quoted.len() - 1])? {
            let is = |entry: &Entry| {
                entry.name.strip_suffix(name).is_some_and(|around| around.is_empty() || around.ends_with('.'))
            };
            let language = language_of(&path);
            let named = entries.into_iter().filter(is);
            let symbol = |entry| (hash, Symbol { file: path.clone(), language, entry, stale: false });
            found.extend(named.map(symbol));
        }
        found.sort_by_key(|(_, symbol)| symbol.entry.name.len());
        found.truncate(limit);
        let mut stale = Staleness::of(&self.root);
        let told = found.into_iter().map(|(hash, symbol)| Symbol { stale: stale.has(&symbol.file, hash), ..symbol });
        Ok(told.collect())
    }

    /// The source files in the index, sorted.
    pub fn files(&self) -> Result<Vec<String>> {
        let files = self.open_existing()?.files()?;
        let mut paths: Vec<String> =
            files.into_iter().filter(|(_, file)| file.skipped.is_none()).map(|(path, _)| path).collect();
        paths.sort_unstable();
        Ok(paths)
    }

    /// What is in the index; all that is read of it is checked.
    pub fn status(&self) -> Result<Status> {
        let store = self.open_existing()?;
        let bytes = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        let mut languages = BTreeMap::new();
        let mut annotations = 0;
        for (path, file) in store.files()? {
            annotations += file.count;
            if file.skipped.is_none() {
                *languages.entry(language_of(&path)).or_default() += 1;
            }
        }
        let texts = store.holds_texts();
        let made_with = store.made_with().ok_or_else(|| store.damaged())?;
        let MadeWith { model_id: model, dimensions, .. } = made_with.clone();
        Ok(Status { path: self.path.clone(), bytes, model, dimensions, languages, texts, annotations })
    }

    /// Watches the tree; `changed` is called whenever something in it may have changed.
    pub fn watch(&self, changed: impl Fn() + Send + 'static) -> Result<TreeWatch> {
        TreeWatch::start(&self.root, changed)
    }

    /// Lets go of the index' file and memory. It may be used again.
    pub fn close(&self) {
        self.loaded().take();
    }

    /// The model in use; loads it first, where that was not done yet.
    async fn made_with(&self) -> Result<MadeWith> {
        if !self.generator.is_ready() {
            self.generator.initialize(None).await?;
        }
        let info = self.generator.model_info()?;
        Ok(MadeWith::new(&info.model_id, info.fingerprint, info.dimensions))
    }

    async fn embed_query(&self, words: String) -> Result<(MadeWith, Vec<f32>)> {
        let made_with = self.made_with().await?;
        let options = CallOptions { input_type: InputType::Query, ..CallOptions::default() };
        let query = self.generator.embed(Inputs::Texts(vec![words]), options).await?;
        Ok((made_with, unit(query.matrix.data)))
    }

    /// The index in memory, read again if it was changed.
    fn load(&self) -> Result<Arc<Vec<Block>>> {
        let mut loaded = self.loaded();
        if let Some(loaded) = loaded.as_ref()
            && self.is_current(loaded)
        {
            return Ok(Arc::clone(&loaded.blocks));
        }
        // Opened again rather than read again: the file may have been replaced.
        *loaded = None;
        let identity = store::identity(&self.path);
        let store = self.open_existing()?;
        let version = store.version()?;
        let blocks = Arc::new(store.blocks()?);
        *loaded = Some(Loaded { store, identity, version, blocks: Arc::clone(&blocks) });
        Ok(blocks)
    }

    fn open_existing(&self) -> Result<Store> {
        Store::open_existing(&self.path)?.ok_or_else(|| Error::NoIndex { path: self.path.display().to_string() })
    }

    /// Whether the file is the one that was read, and was not written since.
    fn is_current(&self, loaded: &Loaded) -> bool {
        store::identity(&self.path) == loaded.identity
            && loaded.store.version().is_ok_and(|version| version == loaded.version)
    }

    /// Whether `blocks` are the index as it is: another search may have read it anew.
    fn is_that_of(&self, loaded: &Loaded, blocks: &Arc<Vec<Block>>) -> bool {
        Arc::ptr_eq(blocks, &loaded.blocks) && self.is_current(loaded)
    }

    fn with_loaded<T>(&self, work: impl FnOnce(&Loaded) -> Result<T>) -> Result<T> {
        self.loaded().as_ref().map_or(Err(Error::Closed), work)
    }

    /// The best answers in `blocks` of those that `wanted` and `filter` let in, and whether the index is still the one that these were
    /// read from.
    fn answer(
        &self,
        blocks: &Arc<Vec<Block>>,
        vector: &[f32],
        words: Option<&str>,
        limit: usize,
        filter: &Filter,
        wanted: impl Fn(i64, usize) -> bool + Sync,
    ) -> Result<(Vec<Match>, bool)> {
        let admitted: Option<HashSet<i64>> = if filter.by_path() {
            let admits = filter.admission();
            let paths = self.with_loaded(|loaded| loaded.store.paths())?;
            Some(paths.into_iter().filter(|(_, path)| admits(path)).map(|(id, _)| id).collect())
        } else {
            None
        };
        let ranking = Ranking::of(blocks, vector, words)?;
        // The kind of a declaration is known once it is described: it may take more than a few to find enough.
        let mut depth = if filter.by_kind() { limit.saturating_mul(KIND_DEPTH) } else { limit };
        loop {
            let hits = ranking.best(depth, |file, ordinal| {
                admitted.as_ref().is_none_or(|admitted| admitted.contains(&file)) && wanted(file, ordinal)
            })?;
            let good = hits.partition_point(|hit| hit.score >= filter.min_score);
            let answer = self.describe(blocks, &hits[..good], limit, filter)?;
            if answer.0.len() == limit || good < depth {
                return Ok(answer);
            }
            depth = depth.saturating_mul(KIND_DEPTH);
        }
    }

    /// What is shown of the first `limit` hits that `filter` lets in, and whether the index is still that of `blocks`.
    fn describe(
        &self,
        blocks: &Arc<Vec<Block>>,
        hits: &[Hit],
        limit: usize,
        filter: &Filter,
    ) -> Result<(Vec<Match>, bool)> {
        let described = self.with_loaded(|loaded| {
            let is_current = || self.is_that_of(loaded, blocks);
            let mut files: HashMap<i64, Option<Described>> = HashMap::new();
            let mut matches = Vec::with_capacity(hits.len().min(limit));
            for hit in hits {
                if matches.len() == limit {
                    break;
                }
                let described = match files.entry(hit.file) {
                    std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                    std::collections::hash_map::Entry::Vacant(open) => {
                        open.insert(loaded.store.describe(hit.file, hit.described)?)
                    }
                };
                let found = described.as_ref().and_then(|file| Some((file, file.entries.get(hit.ordinal)?)));
                let Some((file, entry)) = found else {
                    // Replaced meanwhile, unless nobody has written anything.
                    if is_current() {
                        return Err(loaded.store.damaged());
                    }
                    continue;
                };
                if filter.admits(&entry.kind) {
                    let Hit { score, similarity, .. } = *hit;
                    let (path, entry, language) = (file.path.clone(), entry.clone(), language_of(&file.path));
                    let found = Match { file: path, language, entry, score, similarity, stale: false };
                    matches.push((file.hash, found));
                }
            }
            Ok((matches, is_current()))
        });
        // Other searches need not wait while files are read.
        let (matches, current) = described?;
        let mut stale = Staleness::of(&self.root);
        let told = matches.into_iter().map(|(hash, found)| Match { stale: stale.has(&found.file, hash), ..found });
        Ok((told.collect(), current))
    }

    fn loaded(&self) -> MutexGuard<'_, Option<Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which files have another content than was indexed; each is read once.
struct Staleness<'a> {
    root: &'a Path,
    known: HashMap<String, bool>,
}

impl<'a> Staleness<'a> {
    fn of(root: &'a Path) -> Self {
        Self { root, known: HashMap::new() }
    }

    /// By content, whatever size and time say.
    fn has(&mut self, path: &str, hash: [u8; 32]) -> bool {
        if let Some(known) = self.known.get(path) {
            return *known;
        }
        let stale = tree::read(self.root, path).map_or(true, |(bytes, _)| Sha256::digest(&bytes)[..] != hash);
        self.known.insert(path.to_owned(), stale);
        stale
    }
}

/// The language of an indexed file.
fn language_of(path: &str) -> &'static str {
    outline::language(filter::extension(path))
}

/// `vector` scaled to length 1: cosines are dot products then. Models that do not normalise are no exception.
fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
    vector
}
