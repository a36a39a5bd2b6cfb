//! Semantic search in a source tree. JS class: `CodeIndex`.
//!
//! | part | what it does |
//! |---|---|
//! | `tree` | directory → source files, and why others are left out |
//! | `outline` | source → functions, methods, classes, types |
//! | `words` | text → what BM25 compares |
//! | `store` | all of it on disk, one row for each file |
//! | `rank` | query → best declarations |
//!
//! The vectors come from a [`Generator`].

mod outline;
mod rank;
mod store;
mod tree;
mod words;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cancel::Cancel;
use crate::embedding::InputType;
use crate::error::{Error, Result};
use crate::generator::{CallOptions, Generator, Inputs};
use crate::text::Annotation;
use outline::Declaration;
use rank::{Block, Hit};
use store::{FileRecord, Key, MadeWith, Store, StoredFile};
use tree::{Found, Skip, Skipped};
use words::Bag;

pub use outline::extensions;
pub use store::Entry;

/// Where the index of a directory lies.
const DIRECTORY: &str = ".embedcore";
const FILE: &str = "index.sqlite";

/// Source that is parsed, embedded and written at a time. A process that is killed loses less than three of these.
const CHUNK_BYTES: u64 = 1 << 20;
const CHUNK_FILES: usize = 256;

/// Chunks that are embedded at once: the next one fills the cores while the last texts of the one before run.
const EMBEDDING: usize = 2;

/// A file that was changed within this time before it was read may be changed again without its time telling.
const TIME_GRAIN_NS: i64 = 2_000_000_000;

/// How often a search begins again because the index was changed under it.
const ANSWERS: usize = 3;

/// The most answers to a search.
pub const MAX_LIMIT: usize = 1000;

/// How a run of [`CodeIndex::update`] goes on.
pub type Progress = Box<dyn Fn(&Report) + Send + Sync>;

/// What a run of [`CodeIndex::update`] is asked to do.
#[derive(Default)]
pub struct UpdateOptions {
    /// Whether an index that another model or version made, or a damaged one, is thrown away.
    pub rebuild: bool,
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
    /// Files that are new or seem changed, and have to be read.
    pub changed: usize,
    /// How many of those are done.
    pub done: usize,
    /// Files that are as they were.
    pub unchanged: usize,
    /// Files that are gone from the tree, and now from the index.
    pub removed: usize,
    /// Declarations in the index.
    pub annotations: usize,
    /// Declarations that were embedded.
    pub embedded: usize,
    /// Declarations of changed files that were as they were, so that their vectors could be kept.
    pub reused: usize,
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
    /// The declaration.
    pub entry: Entry,
    /// What answers are ranked by: the similarity and a share of the BM25 score.
    pub score: f32,
    /// Cosine of the declaration's vector and the query's.
    pub similarity: f32,
}

/// The index of one directory. All methods may be called at once.
pub struct CodeIndex {
    root: PathBuf,
    path: PathBuf,
    generator: Arc<Generator>,
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
    /// The index of the directory `root`, made with `generator`, at `path` or in the directory itself. Costs nothing.
    pub fn new(root: PathBuf, path: Option<PathBuf>, generator: Arc<Generator>) -> Self {
        let path = path.unwrap_or_else(|| root.join(DIRECTORY).join(FILE));
        Self { root, path, generator, loaded: Mutex::default(), updating: tokio::sync::Mutex::default() }
    }

    /// Brings the index up to date: reads what is new or changed, forgets what is gone.
    pub async fn update(self: Arc<Self>, options: UpdateOptions) -> Result<Report> {
        let started = Instant::now();
        let _one_at_a_time = options.cancel.or_else(self.updating.lock()).await?;
        let made_with = options.cancel.or_else(self.made_with()).await??;
        let UpdateOptions { rebuild, cancel, progress } = options;
        let (index, stop) = (Arc::clone(&self), cancel.clone());
        let (lock, store, plan) = blocking(move || index.plan(made_with, rebuild, &stop)).await??;

        let mut report = plan.report;
        report.seconds = started.elapsed().as_secs_f64();
        let (sender, mut parsed) = mpsc::channel::<Vec<Read>>(1);
        let (index, stop) = (Arc::clone(&self), cancel.clone());
        let parser = tokio::task::spawn_blocking(move || index.read_all(plan.changed, &stop, &sender));

        let reuse = Arc::new(plan.reuse);
        let (finished, records) = mpsc::channel::<Vec<Read>>(1);
        let writer = Writer { store, report, skipped: plan.skipped, started, progress };
        let writer = tokio::task::spawn_blocking(move || writer.run(records));
        let mut running: VecDeque<JoinHandle<Result<Vec<Read>>>> = VecDeque::new();
        loop {
            let next = if running.len() < EMBEDDING { parsed.recv().await } else { None };
            match next {
                Some(chunk) => {
                    let (index, reuse, cancel) = (Arc::clone(&self), Arc::clone(&reuse), cancel.clone());
                    running.push_back(tokio::spawn(async move { index.embed(chunk, &reuse, &cancel).await }));
                }
                None => {
                    let Some(oldest) = running.pop_front() else { break };
                    let embedded = oldest.await.map_err(|error| Error::Internal(error.to_string())).flatten();
                    match embedded {
                        // The writer is gone only if it failed, which its own result tells.
                        Ok(chunk) => {
                            if finished.send(chunk).await.is_err() {
                                break;
                            }
                        }
                        Err(error) => {
                            cancel.cancel(error);
                            break;
                        }
                    }
                }
            }
        }
        // Closed, so that the parser does not wait for anybody, and the writer ends with what it has.
        drop((parsed, finished));
        let parsed = joined(parser).await;
        let mut report = joined(writer).await??;
        drop(lock);
        parsed?;
        cancel.check()?;
        report.seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    /// The `limit` best declarations for `words`, best first.
    pub async fn search(self: Arc<Self>, words: String, limit: usize) -> Result<Vec<Match>> {
        if words.trim().is_empty() {
            return Err(Error::InvalidArgument("The words to search for are empty".to_owned()));
        }
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Error::InvalidArgument(format!("limit is {limit}, not a whole number from 1 to {MAX_LIMIT}")));
        }
        // Reading the index and loading the model need nothing of each other.
        let index = Arc::clone(&self);
        let reading = tokio::task::spawn_blocking(move || index.load());
        let query = self.embed_query(words.clone()).await;
        let blocks = joined(reading).await??;
        let (made_with, vector) = query?;
        blocking(move || {
            let mut blocks = blocks;
            for _ in 0..ANSWERS {
                self.with_loaded(|loaded| loaded.store.require(&made_with))?;
                let hits = rank::rank(&blocks, &vector, &words, limit);
                let (matches, current) = self.describe(&hits)?;
                if current {
                    return Ok(matches);
                }
                blocks = self.load()?;
            }
            // Somebody writes all the time. What is gone is left out, and ids never change their meaning.
            Ok(self.describe(&rank::rank(&blocks, &vector, &words, limit))?.0)
        })
        .await?
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

    /// Compares the tree with the store.
    fn plan(&self, made_with: MadeWith, rebuild: bool, cancel: &Cancel) -> Result<(fs::File, Store, Plan)> {
        cancel.check()?;
        if !self.root.is_dir() {
            let reason = if self.root.exists() { "it is not a directory" } else { "there is no such directory" };
            return Err(Error::InvalidArgument(format!("{} cannot be indexed: {reason}", self.root.display())));
        }
        let (lock, mut store) = (self.lock()?, Store::open(&self.path, &made_with, rebuild)?);
        let known = store.files()?;
        let tree = tree::walk(&self.root, cancel)?;
        let mut gone: HashMap<&str, i64> = known.iter().map(|(path, file)| (path.as_str(), file.id)).collect();
        let mut annotations = 0;
        let mut plan = Plan { report: Report { files: tree.files.len(), ..Report::default() }, ..Plan::default() };
        for file in &tree.files {
            gone.remove(file.path.as_str());
            let before = known.get(&file.path);
            if let Some(before) = before {
                annotations += before.count;
            }
            match before {
                Some(before)
                    if before.modified != 0 && (before.size, before.modified) == (file.size, file.modified) =>
                {
                    plan.report.unchanged += 1;
                    // It could not be read before, and was not changed since.
                    if let Some(reason) = before.skipped {
                        plan.report.files -= 1;
                        plan.skipped.add(&file.path, reason);
                    }
                }
                before => plan.changed.push((file.clone(), before.cloned())),
            }
        }
        // What could not be looked at stays as it was.
        let (unseen, gone): (Vec<_>, Vec<_>) = gone.into_iter().partition(|(path, _)| tree.may_hold(path));
        annotations += unseen.iter().filter_map(|(path, _)| known.get(*path)).map(|file| file.count).sum::<usize>();
        let gone: Vec<i64> = gone.into_iter().map(|(_, id)| id).collect();
        plan.skipped.merge(tree.skipped);
        let old = plan.changed.iter().filter_map(|(_, before)| before.as_ref().map(|before| before.id));
        plan.reuse = store.vectors_of(old.chain(gone.iter().copied()))?;
        if !gone.is_empty() {
            store.remove(&gone)?;
        }
        plan.report.annotations = annotations;
        plan.report.changed = plan.changed.len();
        plan.report.removed = gone.len();
        Ok((lock, store, plan))
    }

    /// Keeps other processes from updating the same index; ends with the process, however it ends.
    fn lock(&self) -> Result<fs::File> {
        let failed = |reason: String| Error::Storage { path: self.path.display().to_string(), reason };
        let directory = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(|error| failed(format!("its directory cannot be made: {error}")))?;
        if directory.ends_with(DIRECTORY) {
            // Nobody wants to commit an index. Without this file it works as well.
            drop(fs::write(directory.join(".gitignore"), "*\n"));
        }
        let mut beside = self.path.clone().into_os_string();
        beside.push("-lock");
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(beside)
            .map_err(|error| failed(format!("its lock cannot be made: {error}")))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(fs::TryLockError::WouldBlock) => Err(failed("somebody else is indexing this directory now".to_owned())),
            Err(fs::TryLockError::Error(error)) => Err(failed(format!("it cannot be locked: {error}"))),
        }
    }

    /// Reads and parses all files, chunk by chunk, for as long as somebody takes the chunks.
    fn read_all(&self, mut files: Vec<(Found, Option<StoredFile>)>, cancel: &Cancel, sender: &mpsc::Sender<Vec<Read>>) {
        files.reverse();
        while !files.is_empty() && cancel.check().is_ok() {
            let mut bytes = 0;
            let mut chunk = Vec::new();
            while bytes < CHUNK_BYTES && chunk.len() < CHUNK_FILES {
                let Some(file) = files.pop() else { break };
                bytes += file.0.size;
                chunk.push(file);
            }
            let read = chunk.into_par_iter().map(|(found, before)| self.read(found, before)).collect();
            if sender.blocking_send(read).is_err() {
                return;
            }
        }
    }

    fn read(&self, found: Found, before: Option<StoredFile>) -> Read {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        let settled = now.saturating_sub(found.modified) > TIME_GRAIN_NS;
        let mut state = StoredFile {
            id: 0,
            size: found.size,
            modified: if settled { found.modified } else { 0 },
            hash: [0; 32],
            skipped: None,
            count: 0,
        };
        let source = match tree::read(&self.root, &found) {
            Ok(source) => source,
            Err(reason) => {
                let known = before.is_some();
                let outcome = match reason {
                    // It may be readable again the next time.
                    Skip::Unreadable if known => Outcome::Unseen,
                    _ => Outcome::Skipped(reason),
                };
                return Read { path: found.path, state, outcome };
            }
        };
        state.size = source.len() as u64;
        state.hash = Sha256::digest(&source).into();
        if let Some(before) = before.filter(|before| before.hash == state.hash) {
            return Read { path: found.path, state, outcome: Outcome::Same(before) };
        }
        let extension = found.path.rsplit('.').next().unwrap_or_default();
        let outline = match outline::grammar(extension) {
            Some(grammar) => outline::outline(&source, grammar),
            None => Ok(Vec::new()),
        };
        let outcome = match outline {
            Ok(declarations) => Outcome::Declares(declarations.into_iter().map(Item::new).collect()),
            Err(outline::Unreadable::Syntax) => Outcome::Skipped(Skip::Syntax),
            Err(outline::Unreadable::Slow) => Outcome::Skipped(Skip::Slow),
        };
        Read { path: found.path, state, outcome }
    }

    /// Gives each declaration of a chunk its vector.
    async fn embed(&self, mut chunk: Vec<Read>, reuse: &HashMap<Key, Vec<f16>>, cancel: &Cancel) -> Result<Vec<Read>> {
        // The generator ends the token of a call with the call.
        let call = Cancel::default();
        let _stop = cancel.on_cancel({
            let call = call.clone();
            move |reason| call.cancel(reason.clone())
        });
        let mut open = Vec::new();
        let mut annotations = Vec::new();
        for read in &mut chunk {
            let Outcome::Declares(items) = &mut read.outcome else { continue };
            for item in items {
                match reuse.get(&item.key) {
                    Some(vector) => {
                        item.vector.clone_from(vector);
                        item.reused = true;
                    }
                    None => {
                        annotations.push(item.annotation());
                        open.push(item);
                    }
                }
            }
        }
        if annotations.is_empty() {
            return Ok(chunk);
        }
        let options = CallOptions { cancel: call, ..CallOptions::default() };
        let embedded = self.generator.embed(Inputs::Annotations(annotations), options).await?;
        for (row, item) in open.into_iter().enumerate() {
            let vector = unit(embedded.matrix.row(row).to_vec());
            item.vector = vec![f16::ZERO; vector.len()];
            item.vector.convert_from_f32_slice(&vector);
        }
        Ok(chunk)
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
        let store = Store::open_existing(&self.path)?
            .ok_or_else(|| Error::NoIndex { path: self.path.display().to_string() })?;
        let version = store.version()?;
        let blocks = Arc::new(store.blocks()?);
        *loaded = Some(Loaded { store, identity, version, blocks: Arc::clone(&blocks) });
        Ok(blocks)
    }

    /// Whether the file is the one that was read, and was not written since.
    fn is_current(&self, loaded: &Loaded) -> bool {
        store::identity(&self.path) == loaded.identity
            && loaded.store.version().is_ok_and(|version| version == loaded.version)
    }

    fn with_loaded<T>(&self, work: impl FnOnce(&Loaded) -> Result<T>) -> Result<T> {
        self.loaded().as_ref().map_or(Err(Error::Closed), work)
    }

    /// What is shown of the hits, and whether the index is still the one that they were found in.
    fn describe(&self, hits: &[Hit]) -> Result<(Vec<Match>, bool)> {
        self.with_loaded(|loaded| {
            let mut files: HashMap<i64, Option<(String, Vec<Entry>)>> = HashMap::new();
            let mut matches = Vec::with_capacity(hits.len());
            for hit in hits {
                let described = match files.entry(hit.file) {
                    std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                    std::collections::hash_map::Entry::Vacant(open) => open.insert(loaded.store.describe(hit.file)?),
                };
                let Some((file, entries)) = described else { continue };
                let Some(entry) = entries.get(hit.ordinal) else { continue };
                let (file, entry) = (file.clone(), entry.clone());
                matches.push(Match { file, entry, score: hit.score, similarity: hit.similarity });
            }
            Ok((matches, self.is_current(loaded)))
        })
    }

    fn loaded(&self) -> MutexGuard<'_, Option<Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has to be done.
#[derive(Default)]
struct Plan {
    changed: Vec<(Found, Option<StoredFile>)>,
    reuse: HashMap<Key, Vec<f16>>,
    skipped: Skipped,
    report: Report,
}

/// A file as it was read.
struct Read {
    path: String,
    state: StoredFile,
    outcome: Outcome,
}

enum Outcome {
    /// It cannot be read now; the store has what it was.
    Unseen,
    /// Its content is what the store has.
    Same(StoredFile),
    Skipped(Skip),
    Declares(Vec<Item>),
}

/// A declaration on its way into the store.
struct Item {
    declaration: Declaration,
    key: Key,
    bag: Bag,
    vector: Vec<f16>,
    reused: bool,
}

impl Item {
    fn new(declaration: Declaration) -> Self {
        let Declaration { name, signature, summary, code, .. } = &declaration;
        let mut hash = Sha256::new();
        for part in [signature, summary, code] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut key = Key::default();
        key.copy_from_slice(&hash.finalize()[..16]);
        let bag = Bag::of([name.as_str(), summary, code]);
        Self { declaration, key, bag, vector: Vec::new(), reused: false }
    }

    /// With the whole source as its code: the signature counts twice, which ranks better.
    fn annotation(&self) -> Annotation {
        let Declaration { name, signature, summary, code, .. } = &self.declaration;
        Annotation {
            node_id: name.clone(),
            signature: signature.clone(),
            summary: summary.clone(),
            source_snippet: code.clone(),
        }
    }

    fn entry(self) -> Entry {
        let Declaration { kind, name, lines, signature, summary, .. } = self.declaration;
        let kind = kind.as_str().to_owned();
        Entry { kind, name, line: lines.start, end_line: lines.end, signature, summary }
    }
}

/// Writes chunks as they come and keeps the report.
struct Writer {
    store: Store,
    report: Report,
    skipped: Skipped,
    started: Instant,
    progress: Option<Progress>,
}

impl Writer {
    fn run(mut self, mut chunks: mpsc::Receiver<Vec<Read>>) -> Result<Report> {
        self.tell();
        while let Some(chunk) = chunks.blocking_recv() {
            self.write(chunk)?;
            self.tell();
        }
        self.store.tidy()?;
        Ok(self.report)
    }

    fn write(&mut self, chunk: Vec<Read>) -> Result<()> {
        let done = chunk.len();
        let mut records = Vec::new();
        let mut touched = Vec::new();
        for Read { path, mut state, outcome } in chunk {
            let items = match outcome {
                Outcome::Unseen => {
                    self.skipped.add(path, Skip::Unreadable);
                    continue;
                }
                Outcome::Same(before) => {
                    touched.push((before.id, state.modified));
                    self.report.unchanged += 1;
                    if let Some(reason) = before.skipped {
                        self.skipped.add(path, reason);
                    }
                    continue;
                }
                Outcome::Skipped(reason) => {
                    self.report.files -= 1;
                    self.skipped.add(&path, reason);
                    // What the system would not let us read may be readable next time, without a new time.
                    if reason == Skip::Unreadable {
                        state.modified = 0;
                    }
                    state.skipped = Some(reason);
                    Vec::new()
                }
                Outcome::Declares(items) => items,
            };
            let mut record = FileRecord {
                path,
                state,
                entries: Vec::with_capacity(items.len()),
                keys: Vec::with_capacity(items.len()),
                vectors: Vec::new(),
                bags: Vec::new(),
            };
            for item in items {
                *(if item.reused { &mut self.report.reused } else { &mut self.report.embedded }) += 1;
                record.keys.push(item.key);
                record.vectors.extend_from_slice(&item.vector);
                item.bag.write(&mut record.bags);
                record.entries.push(item.entry());
            }
            records.push(record);
        }
        let before = self.store.put(&records)?;
        if !touched.is_empty() {
            self.store.touch(&touched)?;
        }
        let after: usize = records.iter().map(|record| record.entries.len()).sum();
        self.report.annotations = (self.report.annotations + after).saturating_sub(before);
        self.report.done += done;
        Ok(())
    }

    fn tell(&mut self) {
        self.report.skipped = self.skipped.counts.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
        self.report.examples =
            self.skipped.examples.iter().map(|(path, reason)| (path.clone(), reason.as_str())).collect();
        self.report.seconds = self.started.elapsed().as_secs_f64();
        if let Some(progress) = &self.progress {
            progress(&self.report);
        }
    }
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    joined(tokio::task::spawn_blocking(work)).await
}

async fn joined<T>(task: JoinHandle<T>) -> Result<T> {
    task.await.map_err(|error| Error::Internal(error.to_string()))
}

/// `vector` scaled to length 1: cosines are dot products then. Models that do not normalise are no exception.
fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
    vector
}
