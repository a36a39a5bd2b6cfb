//! Texts or vectors that are kept until somebody deletes them, and found by what they mean. JS class: `EmbeddingCollection`.

mod filter;
#[cfg(fuzzing)]
pub mod fuzzing;
mod metadata;
mod store;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::matrix::exact::Query;
use store::Store;

pub use filter::Filter;
pub use store::{Draft, MadeWith, Record};

/// A collection.
pub struct Collection {
    path: Option<PathBuf>,
    store: Mutex<Option<Store>>,
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Where answers point.
    pub vector: Vec<f32>,
    /// Most answers.
    pub limit: usize,
    /// Least cosine.
    pub min_score: f32,
    /// What answers have to be.
    pub filter: Option<Filter>,
}

impl Collection {
    /// Reads nothing yet. Without a `path`, in memory.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, store: Mutex::new(None) }
    }

    /// Opens it, or begins it; what it is of. Blocks, as all that follows.
    ///
    /// # Errors
    /// [`Error::Storage`] for a file that cannot be used, which is left as it is.
    pub fn open(&self, made_with: &MadeWith, cancel: &Cancel) -> Result<MadeWith> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let store = match &mut *store {
            Some(store) => store,
            none => none.insert(Store::open(self.path.as_deref(), made_with, cancel)?),
        };
        store.follow()?;
        Ok(store.made_with().clone())
    }

    /// Keeps entries, all or none. See `Store::put`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for vectors of another length, or with values that are not finite.
    pub fn put(
        &self,
        drafts: &[Draft],
        documents: &[(String, Vec<u8>)],
        made_with: &MadeWith,
        cancel: &Cancel,
    ) -> Result<()> {
        self.with(|store| {
            store.follow()?;
            require(store, made_with)?;
            let known = store.made_with().dimensions;
            let length = if known > 0 { known } else { drafts.first().map_or(0, |draft| draft.vector.len()) };
            for draft in drafts {
                let id = shortened(&draft.id);
                check(&draft.vector, length, &format!("The embedding of {id:?}"))?;
                metadata::read(&draft.metadata)
                    .map_err(|reason| Error::InvalidArgument(format!("The metadata of {id:?} {reason}")))?;
            }
            store.put(drafts, documents, cancel)
        })
    }

    /// The best answers, the best first; of equally good ones, in the order of their ids.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a vector of another length.
    pub fn query(&self, search: &Search, made_with: &MadeWith, cancel: &Cancel) -> Result<Vec<(f32, Record)>> {
        self.reading(|store| {
            require(store, made_with)?;
            let dimensions = store.made_with().dimensions;
            check(&search.vector, if dimensions > 0 { dimensions } else { search.vector.len() }, "The query")?;
            let Search { vector, limit, min_score, filter } = search;
            let query = Query::new(vector);
            let mut best = Best { limit: *limit, least: *min_score, found: Vec::new() };
            if query.norm() > 0.0 && !store.codes().is_empty() {
                nearest(store, search, &query, &mut best, cancel)?;
            }
            if best.wants(0.0) && (query.norm() == 0.0 || store.count() > store.codes().len()) {
                // Their cosine with anything is 0: of those, the first ones by their ids.
                let mut left = *limit;
                store.by_id(|row| {
                    cancel.check()?;
                    if (query.norm() == 0.0 || !store.is_coded(row))
                        && let Some((score, record)) = look(store, row, &query, filter.as_ref())?
                    {
                        best.offer(score, record);
                        left -= 1;
                    }
                    Ok(left > 0)
                })?;
                best.settle();
            }
            Ok(best.found)
        })
    }

    /// The entries with these ids; `None` where there is none.
    pub fn get(&self, ids: &[String]) -> Result<Vec<Option<Record>>> {
        self.reading(|store| ids.iter().map(|id| store.named(id)).collect())
    }

    /// How many entries there are, or how many `filter` admits.
    pub fn count(&self, filter: Option<&Filter>) -> Result<usize> {
        self.reading(|store| match filter {
            None => Ok(store.count()),
            Some(filter) => Ok(admitted(store, filter)?.len()),
        })
    }

    /// Forgets entries, all or none; how many there were.
    pub fn delete(&self, ids: &[String], filter: Option<&Filter>, cancel: &Cancel) -> Result<usize> {
        self.with(|store| {
            store.follow()?;
            let rows = match filter {
                Some(filter) => {
                    let rows = admitted(store, filter)?;
                    // Whether what was judged is what was written.
                    rows.iter().try_for_each(|row| store.record(*row)?.map(drop).ok_or_else(|| store.damaged()))?;
                    rows
                }
                None => {
                    let row = |id| Ok(store.named(id)?.map(|record| record.row));
                    ids.iter().filter_map(|id| row(id).transpose()).collect::<Result<Vec<_>>>()?
                }
            };
            if rows.is_empty() { Ok(0) } else { store.remove(&rows, cancel) }
        })
    }

    /// Up to `limit` entries in the order of their rows, after that of `after`.
    pub fn page(&self, after: i64, limit: usize) -> Result<Vec<Record>> {
        self.reading(|store| {
            let mut rows = Vec::new();
            store.scan(after, |row, _, _| {
                rows.push(row);
                Ok(rows.len() < limit)
            })?;
            rows.into_iter().filter_map(|row| store.record(row).transpose()).collect()
        })
    }

    /// What is known of the collection itself: a JSON object.
    pub fn metadata(&self) -> Result<String> {
        self.reading(|store| store.metadata())
    }

    /// Keeps more of it, both JSON objects; with `only_new`, what is known already stays as it is. What is known then.
    pub fn set_metadata(&self, more: &str, only_new: bool, cancel: &Cancel) -> Result<String> {
        // Each value as it is written: it need not be one of ours.
        let object = |json: &str| {
            serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(json).map_err(|error| {
                Error::InvalidArgument(format!("The metadata of the collection cannot be read: {error}"))
            })
        };
        self.with(|store| {
            let merged = |known: &str| {
                let mut known = object(known)?;
                for (name, value) in object(more)? {
                    if !(only_new && known.contains_key(&name)) {
                        known.insert(name, value);
                    }
                }
                serde_json::to_string(&known).map_err(|error| Error::Internal(error.to_string()))
            };
            store.set_metadata(merged, cancel)
        })
    }

    /// The hash of each document, as it was put.
    pub fn documents(&self) -> Result<HashMap<String, Vec<u8>>> {
        self.reading(|store| store.documents())
    }

    /// The chunks of a document.
    pub fn of_document(&self, document: &str) -> Result<Vec<Record>> {
        self.reading(|store| store.of_document(document))
    }

    /// Forgets documents and their chunks, all or none.
    pub fn remove_documents(&self, documents: &[String], cancel: &Cancel) -> Result<()> {
        self.with(|store| store.remove_documents(documents, cancel))
    }

    /// Gives every entry another vector, and the collection another model: all of it, or nothing.
    pub fn rebuild(&self, made_with: &MadeWith, vectors: &[(i64, Vec<f32>)], cancel: &Cancel) -> Result<()> {
        self.with(|store| {
            for (_, vector) in vectors {
                check(vector, made_with.dimensions, "A vector of the model")?;
            }
            store.rebuild(made_with, vectors, cancel)
        })
    }

    /// Lets go of the file.
    pub fn close(&self) {
        self.lock().take();
    }

    fn with<T>(&self, work: impl FnOnce(&mut Store) -> Result<T>) -> Result<T> {
        self.lock().as_mut().map_or(Err(Error::Closed), work)
    }

    fn reading<T>(&self, work: impl FnOnce(&mut Store) -> Result<T>) -> Result<T> {
        self.with(|store| store.reading(work))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Store>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another process may have given it another model meanwhile.
fn require(store: &Store, wanted: &MadeWith) -> Result<()> {
    let found = store.made_with();
    if found.fingerprint == wanted.fingerprint {
        return Ok(());
    }
    let made_with =
        if found.model.is_empty() { "vectors of no model".to_owned() } else { format!("the model {}", found.model) };
    Err(Error::InvalidConfig {
        option: "generator".to_owned(),
        reason: format!("the collection was made with {made_with}: use that, or onModelChange: 'rebuild'"),
    })
}

/// The best answers so far.
struct Best {
    limit: usize,
    /// What an answer has to reach: the last one of as many as are wanted, as of when they were settled.
    least: f32,
    found: Vec<(f32, Record)>,
}

impl Best {
    /// Whether something of this score may be among them: also what is as good as the last one, and comes before it by its id.
    fn wants(&self, score: f32) -> bool {
        score >= self.least
    }

    fn offer(&mut self, score: f32, record: Record) {
        if self.wants(score) {
            self.found.push((score, record));
        }
    }

    /// Lets go of what is not among them.
    fn settle(&mut self) {
        self.found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.draft.id.cmp(&b.1.draft.id)));
        self.found.truncate(self.limit);
        if let Some((last, _)) = self.found.get(self.limit - 1) {
            self.least = *last;
        }
    }
}

/// Looks at all entries that may be among the best, which their codes tell.
fn nearest(store: &Store, search: &Search, query: &Query, best: &mut Best, cancel: &Cancel) -> Result<()> {
    let Search { vector, limit, min_score, filter } = search;
    let mut seen = HashSet::new();
    let (mut wanted, mut passed_over) = (*limit, 0);
    loop {
        let candidates = store.codes().nearest(vector, wanted, *min_score);
        'all: for some in candidates.ranked.chunks(limit.saturating_add(2)) {
            cancel.check()?;
            for (similarity, place) in some {
                let row = store.row_of(*place);
                if !best.wants(similarity + candidates.rounding) {
                    break 'all;
                }
                if !seen.insert(row) {
                    continue;
                }
                match look(store, row, query, filter.as_ref())? {
                    Some((score, record)) => best.offer(score, record),
                    None => passed_over += 1,
                }
            }
            best.settle();
        }
        best.settle();
        if wanted >= store.codes().len() || limit.saturating_add(passed_over) <= wanted {
            return Ok(());
        }
        wanted = wanted.max(passed_over).saturating_mul(2);
    }
}

/// An entry and its cosine, if the filter admits it; 0 where one of the two has no direction.
fn look(store: &Store, row: i64, query: &Query, filter: Option<&Filter>) -> Result<Option<(f32, Record)>> {
    let record = store.record(row)?.ok_or_else(|| store.damaged())?;
    if let Some(filter) = filter
        && !admits(store, filter, &record.draft.id, &record.draft.metadata)?
    {
        return Ok(None);
    }
    Ok(Some((query.cosine(&record.draft.vector).unwrap_or(0.0), record)))
}

fn admitted(store: &Store, filter: &Filter) -> Result<Vec<i64>> {
    let mut rows = Vec::new();
    store.scan(0, |row, id, metadata| {
        if admits(store, filter, id, metadata)? {
            rows.push(row);
        }
        Ok(true)
    })?;
    Ok(rows)
}

/// Nothing is said of metadata that cannot be read: it would be what nobody asked for.
fn admits(store: &Store, filter: &Filter, id: &str, json: &str) -> Result<bool> {
    match metadata::read(json) {
        Ok(metadata) => Ok(filter.admits(&metadata)),
        Err(reason) => Err(store.unusable(&format!(
            "the metadata of {:?} {reason}, so that no filter can be applied: delete that entry by its id, or upsert it anew",
            shortened(id)
        ))),
    }
}

fn check(vector: &[f32], dimensions: usize, what: &str) -> Result<()> {
    if vector.len() != dimensions || vector.is_empty() {
        return Err(Error::InvalidArgument(format!(
            "{what} has {} values, those of the collection have {dimensions}",
            vector.len()
        )));
    }
    match vector.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(Error::InvalidArgument(format!(
            "{what} has {} at position {at}, not a finite number of 32 bits",
            vector[at]
        ))),
        None => Ok(()),
    }
}

fn shortened(id: &str) -> &str {
    &id[..id.floor_char_boundary(80)]
}

#[cfg(test)]
mod tests;
