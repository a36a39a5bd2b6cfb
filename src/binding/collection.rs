//! The handle behind `EmbeddingCollection`.

use std::path::PathBuf;
use std::sync::Arc;

use napi::bindgen_prelude::{Float32Array, PromiseRaw, ToNapiValue};
use napi::{Env, Result};
use napi_derive::napi;
use serde_json::Value;

use super::to_js;
use crate::cancel::Cancel;
use crate::collection::{Collection, Draft, Filter, MadeWith, Record, Search};
use crate::error::{self, Error};
use crate::host::threads::blocking;

/// See `MadeWith`.
#[napi(object)]
#[derive(Clone)]
pub struct NativeMadeWith {
    /// The model's name.
    pub model: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Length of vectors.
    pub dimensions: u32,
}

impl From<NativeMadeWith> for MadeWith {
    fn from(made_with: NativeMadeWith) -> Self {
        let NativeMadeWith { model, fingerprint, dimensions } = made_with;
        Self { model, fingerprint, dimensions: dimensions as usize }
    }
}

/// An entry to be kept; its vector is in an array of all.
#[napi(object)]
pub struct NativeDraft {
    /// See `Draft`.
    pub id: String,
    /// See `Draft`.
    pub text: Option<String>,
    /// See `Draft`.
    pub metadata: String,
    /// See `Draft`.
    pub document: Option<String>,
    /// See `Draft`.
    pub place: Option<String>,
}

/// A document and the hash of it.
#[napi(object)]
pub struct NativeDocument {
    /// Its id.
    pub id: String,
    /// What its content is told by.
    pub hash: String,
}

/// An entry that is kept.
#[napi(object, object_from_js = false)]
pub struct NativeRecord {
    /// Its row.
    pub row: i64,
    /// See `Draft`.
    pub id: String,
    /// See `Draft`.
    pub text: Option<String>,
    /// See `Draft`.
    pub metadata: String,
    /// See `Draft`.
    pub document: Option<String>,
    /// See `Draft`.
    pub place: Option<String>,
    /// Its vector.
    pub vector: Float32Array,
    /// Its cosine, of an answer.
    pub score: Option<f64>,
}

impl NativeRecord {
    fn of(record: Record, score: Option<f32>) -> Self {
        let Record { row, draft: Draft { id, text, metadata, document, place, vector } } = record;
        Self { row, id, text, metadata, document, place, vector: vector.into(), score: score.map(f64::from) }
    }
}

/// See `Collection`.
#[napi]
pub struct NativeCollection {
    inner: Arc<Collection>,
    cancel: Cancel,
}

fn filter(json: Option<String>) -> Result<Option<Filter>> {
    json.map(|json| Filter::read(&json))
        .transpose()
        .map_err(|error| to_js(Error::Internal(format!("a filter cannot be read: {error}"))))
}

#[napi]
impl NativeCollection {
    /// Reads nothing yet.
    #[napi(constructor, catch_unwind)]
    pub fn new(path: Option<String>) -> Self {
        Self { inner: Arc::new(Collection::new(path.map(PathBuf::from))), cancel: Cancel::default() }
    }

    fn run<'env, T: ToNapiValue + Send + 'static>(
        &self,
        env: &'env Env,
        work: impl FnOnce(&Collection, &Cancel) -> error::Result<T> + Send + 'static,
    ) -> Result<PromiseRaw<'env, T>> {
        let (inner, cancel) = (Arc::clone(&self.inner), self.cancel.clone());
        env.spawn_future(async move { blocking(move || work(&inner, &cancel)).await.flatten().map_err(to_js) })
    }

    /// See `Collection::open`.
    #[napi(catch_unwind)]
    pub fn open<'env>(&self, env: &'env Env, made_with: NativeMadeWith) -> Result<PromiseRaw<'env, NativeMadeWith>> {
        self.run(env, move |collection, cancel| {
            let MadeWith { model, fingerprint, dimensions } = collection.open(&made_with.into(), cancel)?;
            Ok(NativeMadeWith { model, fingerprint, dimensions: dimensions as u32 })
        })
    }

    /// See `Collection::put`. `data`: the vectors, one after the other.
    #[napi(catch_unwind)]
    pub fn put<'env>(
        &self,
        env: &'env Env,
        drafts: Vec<NativeDraft>,
        data: &[f32],
        documents: Vec<NativeDocument>,
        made_with: NativeMadeWith,
    ) -> Result<PromiseRaw<'env, ()>> {
        let data = data.to_vec();
        self.run(env, move |collection, cancel| {
            let dimensions = data.len() / drafts.len().max(1);
            let draft = |(at, draft): (usize, NativeDraft)| {
                let NativeDraft { id, text, metadata, document, place } = draft;
                let vector = data[at * dimensions..][..dimensions].to_vec();
                Draft { id, text, metadata, document, place, vector }
            };
            let drafts: Vec<Draft> = drafts.into_iter().enumerate().map(draft).collect();
            let documents: Vec<_> =
                documents.into_iter().map(|document| (document.id, document.hash.into_bytes())).collect();
            collection.put(&drafts, &documents, &made_with.into(), cancel)
        })
    }

    /// See `Collection::query`.
    #[napi(catch_unwind)]
    pub fn query<'env>(
        &self,
        env: &'env Env,
        vector: &[f32],
        limit: u32,
        min_score: f64,
        filter_json: Option<String>,
        made_with: NativeMadeWith,
    ) -> Result<PromiseRaw<'env, Vec<NativeRecord>>> {
        let filter = filter(filter_json)?;
        let search = Search { vector: vector.to_vec(), limit: limit as usize, min_score: min_score as f32, filter };
        self.run(env, move |collection, cancel| {
            let found = collection.query(&search, &made_with.into(), cancel)?;
            Ok(found.into_iter().map(|(score, record)| NativeRecord::of(record, Some(score))).collect())
        })
    }

    /// See `Collection::get`.
    #[napi(catch_unwind)]
    pub fn get<'env>(&self, env: &'env Env, ids: Vec<String>) -> Result<PromiseRaw<'env, Vec<Option<NativeRecord>>>> {
        self.run(env, move |collection, _| {
            let found = collection.get(&ids)?.into_iter();
            Ok(found.map(|record| record.map(|record| NativeRecord::of(record, None))).collect())
        })
    }

    /// See `Collection::count`.
    #[napi(catch_unwind)]
    pub fn count<'env>(&self, env: &'env Env, filter_json: Option<String>) -> Result<PromiseRaw<'env, u32>> {
        let filter = filter(filter_json)?;
        self.run(env, move |collection, _| Ok(collection.count(filter.as_ref())? as u32))
    }

    /// See `Collection::delete`.
    #[napi(catch_unwind)]
    pub fn delete<'env>(
        &self,
        env: &'env Env,
        ids: Vec<String>,
        filter_json: Option<String>,
    ) -> Result<PromiseRaw<'env, u32>> {
        let filter = filter(filter_json)?;
        self.run(env, move |collection, cancel| Ok(collection.delete(&ids, filter.as_ref(), cancel)? as u32))
    }

    /// See `Collection::page`.
    #[napi(catch_unwind)]
    pub fn page<'env>(&self, env: &'env Env, after: i64, limit: u32) -> Result<PromiseRaw<'env, Vec<NativeRecord>>> {
        self.run(env, move |collection, _| {
            let found = collection.page(after, limit as usize)?.into_iter();
            Ok(found.map(|record| NativeRecord::of(record, None)).collect())
        })
    }

    /// See `Collection::metadata`.
    #[napi(catch_unwind)]
    pub fn metadata<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, String>> {
        self.run(env, move |collection, _| collection.metadata())
    }

    /// See `Collection::set_metadata`.
    #[napi(catch_unwind)]
    pub fn set_metadata<'env>(&self, env: &'env Env, more: String, only_new: bool) -> Result<PromiseRaw<'env, String>> {
        self.run(env, move |collection, cancel| collection.set_metadata(&more, only_new, cancel))
    }

    /// See `Collection::documents`: pairs, as a JSON object.
    #[napi(catch_unwind)]
    pub fn documents<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, Value>> {
        self.run(env, move |collection, _| {
            let found = collection.documents()?.into_iter();
            let pairs = found.map(|(id, hash)| (id, Value::from(String::from_utf8_lossy(&hash).into_owned())));
            Ok(Value::Array(pairs.map(|(id, hash)| Value::Array(vec![id.into(), hash])).collect()))
        })
    }

    /// See `Collection::of_document`.
    #[napi(catch_unwind)]
    pub fn of_document<'env>(&self, env: &'env Env, document: String) -> Result<PromiseRaw<'env, Vec<NativeRecord>>> {
        self.run(env, move |collection, _| {
            let found = collection.of_document(&document)?.into_iter();
            Ok(found.map(|record| NativeRecord::of(record, None)).collect())
        })
    }

    /// See `Collection::remove_documents`.
    #[napi(catch_unwind)]
    pub fn remove_documents<'env>(&self, env: &'env Env, documents: Vec<String>) -> Result<PromiseRaw<'env, ()>> {
        self.run(env, move |collection, cancel| collection.remove_documents(&documents, cancel))
    }

    /// See `Collection::rebuild`. `data`: the vectors of `rows`, one after the other.
    #[napi(catch_unwind)]
    pub fn rebuild<'env>(
        &self,
        env: &'env Env,
        made_with: NativeMadeWith,
        rows: Vec<i64>,
        data: &[f32],
    ) -> Result<PromiseRaw<'env, ()>> {
        let data = data.to_vec();
        self.run(env, move |collection, cancel| {
            let made_with = MadeWith::from(made_with);
            let vectors = data.chunks_exact(made_with.dimensions.max(1)).map(<[f32]>::to_vec);
            let vectors: Vec<(i64, Vec<f32>)> = rows.into_iter().zip(vectors).collect();
            collection.rebuild(&made_with, &vectors, cancel)
        })
    }

    /// See `Collection::close`; nobody waits for another process any more.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        self.run(env, move |collection, _| {
            collection.close();
            Ok(())
        })
    }
}
