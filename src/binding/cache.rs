//! The handles behind `IntelligentEmbeddingCache`: the cache, a lookup of many, and what was found on disk.
//!
//! What memory answers is answered at once, on the event loop, for that costs less than to go anywhere else. What may
//! wait for the disk gives a promise and waits on another thread.

use std::borrow::Cow;
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{ptr, slice};

use napi::bindgen_prelude::{
    AsyncTask, Either, Float32Array, Float32ArraySlice, FnArgs, FromNapiValue, PromiseRaw, ToNapiValue, TypeName,
    Uint8ArraySlice, ValidateNapiValue,
};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Result, Status, Task, ValueType, sys};
use napi_derive::napi;
use serde_json::{Map, Value, json};

use super::{options, to_js};
use crate::cache::{Draft, EmbeddingCache, Entry, Event, Open, Probe, Recall};
use crate::embedding::{Key, Space, content_hash};
use crate::error::Error;

/// What `get` answers instead of a number of values.
const MISS: i32 = -1;
const ASK_DISK: i32 = -2;

/// Set in the answer of `get` when there is metadata, too. No vector is that long.
const HAS_METADATA: i32 = 1 << 28;

/// How long one call of `optimize` works.
const OPTIMIZE_BUDGET: Duration = Duration::from_secs(2);

/// Called with an event as JSON. Weak: a callback never keeps the process alive.
type OnEvent = ThreadsafeFunction<FnArgs<(String,)>, (), FnArgs<(String,)>, Status, false, true>;

/// A string's bytes in UTF-8.
pub struct Text(Vec<u8>);

/// The SHA-256 of a string's bytes in UTF-8. Nothing is allocated for strings of usual length.
pub struct Hashed([u8; 32]);

/// Longer strings are read a second time.
const SHORT: usize = 4096;

/// Calls `work` with a string's bytes in UTF-8. Lone surrogates become U+FFFD, as everywhere in the web platform.
///
/// # Safety
/// `env` and `value` are the ones that Node.js has just passed.
unsafe fn with_bytes<T>(env: sys::napi_env, value: sys::napi_value, work: impl FnOnce(&[u8]) -> T) -> Result<T> {
    let mut short = [MaybeUninit::<u8>::uninit(); SHORT];
    let mut length = 0;
    // SAFETY: Node.js writes at most as many bytes as it is told, a final zero included, and says how many without it.
    unsafe {
        read(sys::napi_get_value_string_utf8(env, value, short.as_mut_ptr().cast(), SHORT, &mut length))?;
        // A character has up to four bytes; with fewer left, the next one may not have fitted.
        if length + 5 <= SHORT {
            return Ok(work(slice::from_raw_parts(short.as_ptr().cast(), length)));
        }
        read(sys::napi_get_value_string_utf8(env, value, ptr::null_mut(), 0, &mut length))?;
        let mut long: Vec<u8> = Vec::with_capacity(length + 1);
        let room = long.capacity();
        read(sys::napi_get_value_string_utf8(env, value, long.as_mut_ptr().cast(), room, &mut length))?;
        long.set_len(length);
        Ok(work(&long))
    }
}

macro_rules! from_string {
    ($type:ty, $from:expr) => {
        impl TypeName for $type {
            fn type_name() -> &'static str {
                "String"
            }

            fn value_type() -> ValueType {
                ValueType::String
            }
        }

        impl ValidateNapiValue for $type {}

        impl FromNapiValue for $type {
            unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> Result<Self> {
                // SAFETY: passed on as they came.
                unsafe { with_bytes(env, value, $from) }
            }
        }
    };
}

from_string!(Text, |bytes| Text(bytes.to_vec()));
from_string!(Hashed, |bytes| Hashed(content_hash(bytes)));

fn read(status: sys::napi_status) -> Result<()> {
    if status == sys::Status::napi_ok {
        return Ok(());
    }
    Err(napi::Error::new(Status::from(status), "a string was expected".to_owned()))
}

/// Many strings, joined to one. Their lengths come beside it, in UTF-16 units.
pub struct Joined {
    utf8: Vec<u8>,
    /// Only where the lengths of the two differ.
    utf16: Option<Vec<u16>>,
}

impl TypeName for Joined {
    fn type_name() -> &'static str {
        "String"
    }

    fn value_type() -> ValueType {
        ValueType::String
    }
}

impl ValidateNapiValue for Joined {}

impl FromNapiValue for Joined {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> Result<Self> {
        // SAFETY: passed on as they came.
        let utf8 = unsafe { with_bytes(env, value, <[u8]>::to_vec) }?;
        if utf8.is_ascii() {
            return Ok(Self { utf8, utf16: None });
        }
        let mut length = 0;
        let mut units: Vec<u16>;
        // SAFETY: as above; lengths are in units here.
        unsafe {
            read(sys::napi_get_value_string_utf16(env, value, ptr::null_mut(), 0, &mut length))?;
            units = Vec::with_capacity(length + 1);
            let room = units.capacity();
            read(sys::napi_get_value_string_utf16(env, value, units.as_mut_ptr(), room, &mut length))?;
            units.set_len(length);
        }
        Ok(Self { utf8, utf16: Some(units) })
    }
}

impl Joined {
    /// The strings. Lone surrogates become U+FFFD, as everywhere in the web platform.
    fn split<'a>(&'a self, lengths: &'a [u32]) -> impl Iterator<Item = Cow<'a, [u8]>> {
        let mut at = 0;
        lengths.iter().map(move |&length| {
            let from = at;
            at += length as usize;
            match &self.utf16 {
                None => Cow::Borrowed(self.utf8.get(from..at).unwrap_or_default()),
                Some(units) => {
                    let units = units.get(from..at).unwrap_or_default();
                    Cow::Owned(String::from_utf16_lossy(units).into_bytes())
                }
            }
        })
    }
}

/// What names an entry. An annotation and a key of the same name are two.
fn name(space: &Space, annotated: bool, key: &[u8]) -> Key {
    space.key().field(if annotated { "node" } else { "key" }, key).finish()
}

/// What is kept beside a vector: the key as the user wrote it, and JSON.
fn to_note(key: &[u8], metadata: &[u8]) -> Vec<u8> {
    [&(key.len() as u32).to_le_bytes(), key, metadata].concat()
}

fn from_note(note: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = note.split_first_chunk() else { return (&[], &[]) };
    rest.split_at_checked(u32::from_le_bytes(*length) as usize).unwrap_or_default()
}

fn metadata(entry: &Entry) -> Option<String> {
    let (_, metadata) = from_note(&entry.note);
    (!metadata.is_empty()).then(|| String::from_utf8_lossy(metadata).into_owned())
}

/// See `EmbeddingCache`.
#[napi]
pub struct NativeCache {
    inner: Arc<EmbeddingCache>,
    space: Space,
    /// Where `get` writes vectors to. In a cell, because a `settle` on its way borrows the cache.
    out: RefCell<Option<Float32Array>>,
    /// What the latest `get` left for the next call on the same turn of the event loop.
    left: Mutex<Left>,
}

impl NativeCache {
    /// The cache, and the space of its own entries.
    pub(super) fn shared(&self) -> (Arc<EmbeddingCache>, Space) {
        (Arc::clone(&self.inner), self.space.clone())
    }
}

#[derive(Default)]
struct Left {
    entry: Option<Arc<Entry>>,
    open: Option<Open>,
}

#[napi]
impl NativeCache {
    /// Parses the options and begins to open the file. Events are the ones that concern the file.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: Env, options: Map<String, Value>, on_event: OnEvent) -> Result<Self> {
        let (mut options, namespace, model) = options::cache(&options).map_err(to_js)?;
        options.listener = Some(Arc::new(move |event| {
            if let Some(event) = to_json(&event) {
                on_event.call((event,).into(), ThreadsafeFunctionCallMode::NonBlocking);
            }
        }));
        let inner = Arc::new(EmbeddingCache::open(options).map_err(to_js)?);
        // The end of a process or worker that nobody forces is an end in order: what is queued is written.
        env.add_env_cleanup_hook(Arc::downgrade(&inner), |cache| {
            if let Some(cache) = cache.upgrade() {
                cache.close();
            }
        })?;
        let space = Space::builder().field("namespace", namespace).field("model", model).finish();
        Ok(Self { inner, space, out: RefCell::default(), left: Mutex::default() })
    }

    /// What the JavaScript side must know of the options, as JSON.
    #[napi(catch_unwind)]
    pub fn settings(&self) -> String {
        let options = self.inner.options();
        json!({
            "maintenanceInterval": options.maintenance_interval.as_millis() as u64,
            "hitRatioThreshold": options.hit_ratio_threshold,
            "validate": options.validate_content,
            "shared": options.path.is_some(),
        })
        .to_string()
    }

    /// Where `get` writes vectors to. The array must never be passed to anybody else.
    #[napi(catch_unwind)]
    pub fn bind(&self, out: Float32Array) {
        *self.out.borrow_mut() = Some(out);
    }

    /// Looks a key up in memory: the number of values, written to the bound array if it has room for them; or a miss,
    /// or that the disk must be asked. See the constants above.
    #[napi(catch_unwind)]
    pub fn get(&self, key: Text, content: Option<Hashed>) -> i32 {
        self.get_from_memory(self.key(false, &key.0), content)
    }

    /// `get` for an annotation.
    #[napi(catch_unwind)]
    pub fn get_annotated(&self, key: Text, content: Option<Hashed>) -> i32 {
        self.get_from_memory(self.key(true, &key.0), content)
    }

    fn get_from_memory(&self, key: Key, content: Option<Hashed>) -> i32 {
        let mut bound = self.out.borrow_mut();
        // SAFETY: this is the thread of the array, and nobody else has it.
        let out = bound.as_mut().map(|out| unsafe { out.as_mut() }).unwrap_or_default();
        match self.inner.recall_key(key, content.map(|content| content.0)) {
            Ok(None) => MISS,
            Ok(Some(entry)) => {
                let values = entry.vector.len();
                let room = out.len();
                let has_metadata = !from_note(&entry.note).1.is_empty();
                if let Some(out) = out.get_mut(..values) {
                    entry.vector.copy_to(out);
                }
                if has_metadata || values > room {
                    self.left().entry = Some(entry);
                }
                values as i32 | if has_metadata { HAS_METADATA } else { 0 }
            }
            Err(open) => {
                self.left().open = Some(open);
                ASK_DISK
            }
        }
    }

    /// What the latest `get` has found.
    #[napi(catch_unwind)]
    pub fn found(&self) -> Option<NativeEntry> {
        self.left().entry.take().map(|entry| NativeEntry { entry })
    }

    /// Asks the disk what the latest `get` could not answer.
    #[napi(catch_unwind)]
    pub fn settle(&self) -> AsyncTask<Settle> {
        AsyncTask::new(Settle { cache: Arc::clone(&self.inner), open: self.left().open.take() })
    }

    /// Looks many up: keys and contents in turn.
    #[napi(catch_unwind)]
    pub fn lookup(&self, annotated: bool, joined: Joined, lengths: &[u32]) -> NativeLookup {
        let validate = self.inner.options().validate_content;
        let strings: Vec<_> = joined.split(lengths).collect();
        let (pairs, _) = strings.as_chunks::<2>();
        let space = &self.space;
        let probe = |[key, content]: &[Cow<[u8]>; 2]| -> Probe {
            (name(space, annotated, key), validate.then(|| content_hash(content)))
        };
        let probes: Vec<Probe> = pairs.iter().map(probe).collect();
        let state = match self.inner.recall(probes) {
            Recall::Done(answers) => Looked::Done(answers),
            Recall::AskDisk(open) => Looked::Open(open),
        };
        NativeLookup { cache: Arc::clone(&self.inner), state: Arc::new(Mutex::new(state)) }
    }

    /// Sets entries: keys, contents and metadata in turn; `dimensions` values for each in `data`; how many ms each
    /// lives, where that is a number. A promise only if it has to wait for the disk.
    #[napi(catch_unwind)]
    pub fn set<'env>(
        &self,
        env: &'env Env,
        annotated: bool,
        joined: Joined,
        lengths: &[u32],
        data: &[f32],
        ttls_ms: &[f64],
    ) -> Result<Either<(), PromiseRaw<'env, ()>>> {
        let validate = self.inner.options().validate_content;
        let mut strings = joined.split(lengths);
        let mut items = Vec::with_capacity(ttls_ms.len());
        while let (Some(key), Some(content), Some(metadata)) = (strings.next(), strings.next(), strings.next()) {
            let content = validate.then(|| content_hash(&content));
            items.push((self.key(annotated, &key), content, to_note(&key, &metadata)));
        }
        let dimensions = data.len() / items.len().max(1);
        let ttl = |at: usize| {
            let ms = ttls_ms.get(at).copied().filter(|ms| !ms.is_nan())?;
            Some(Duration::try_from_secs_f64(ms / 1e3).unwrap_or(Duration::MAX))
        };
        let commit =
            move |cache: &EmbeddingCache, space: &Space, data: &[f32], ttl: &dyn Fn(usize) -> Option<Duration>| {
                let drafts = items.iter().enumerate().map(|(at, (key, content, note))| {
                    let vector = data.get(at * dimensions..(at + 1) * dimensions).unwrap_or_default();
                    (*key, Draft { vector: Some(vector), note, kind: "", content: *content, ttl: ttl(at) })
                });
                cache.commit_many(space, drafts).map_err(to_js)
            };
        if self.inner.commits_at_once(&self.space) {
            return commit(&self.inner, &self.space, data, &ttl).map(Either::A);
        }
        let (cache, space, data) = (Arc::clone(&self.inner), self.space.clone(), data.to_vec());
        let ttls: Vec<_> = (0..ttls_ms.len()).map(ttl).collect();
        let ttl = move |at: usize| ttls.get(at).copied().flatten();
        blocking(env, move || commit(&cache, &space, &data, &ttl)).map(Either::B)
    }

    /// See `EmbeddingCache::contains`.
    #[napi(catch_unwind)]
    pub fn has<'env>(
        &self,
        env: &'env Env,
        annotated: bool,
        key: Text,
        content: Option<Hashed>,
    ) -> Result<Either<bool, PromiseRaw<'env, bool>>> {
        let (key, content) = (self.key(annotated, &key.0), content.map(|content| content.0));
        let cache = Arc::clone(&self.inner);
        self.at_once_or_blocking(env, move || cache.contains(key, content))
    }

    /// See `EmbeddingCache::delete`.
    #[napi(catch_unwind)]
    pub fn delete<'env>(
        &self,
        env: &'env Env,
        annotated: bool,
        key: Text,
    ) -> Result<Either<bool, PromiseRaw<'env, bool>>> {
        let key = self.key(annotated, &key.0);
        let cache = Arc::clone(&self.inner);
        self.at_once_or_blocking(env, move || cache.delete(key))
    }

    /// Deletes everything of this namespace and model.
    #[napi(catch_unwind)]
    pub fn clear<'env>(&self, env: &'env Env) -> Result<Either<(), PromiseRaw<'env, ()>>> {
        let (cache, space) = (Arc::clone(&self.inner), self.space.clone());
        self.at_once_or_blocking(env, move || cache.clear(Some(&space), None))
    }

    /// See `EmbeddingCache::nearest`.
    #[napi(catch_unwind)]
    pub fn nearest<'env>(
        &self,
        env: &'env Env,
        query: &[f32],
        threshold: f64,
        limit: u32,
    ) -> Result<PromiseRaw<'env, Vec<NativeNear>>> {
        let (cache, space, query) = (Arc::clone(&self.inner), self.space.clone(), query.to_vec());
        blocking(env, move || {
            let nearest = cache.nearest(&space, &query, threshold as f32, limit as usize).map_err(to_js)?;
            let near = nearest
                .into_iter()
                .map(|near| NativeNear { similarity: f64::from(near.similarity), entry: near.entry });
            Ok(near.collect())
        })
    }

    /// Whether this process is the one that computes the value of a key: see `EmbeddingCache::acquire`.
    #[napi(catch_unwind)]
    pub fn acquire<'env>(&self, env: &'env Env, key: Text, lifetime_ms: u32) -> Result<PromiseRaw<'env, bool>> {
        let key = self.key(false, &key.0);
        let cache = Arc::clone(&self.inner);
        let lifetime = Duration::from_millis(lifetime_ms.into());
        blocking(env, move || Ok(cache.acquire(&[key], lifetime).first().copied().unwrap_or(true)))
    }

    /// See `EmbeddingCache::release`.
    #[napi(catch_unwind)]
    pub fn release(&self, key: Text) {
        let key = self.key(false, &key.0);
        self.inner.release(vec![key]);
    }

    /// See `EmbeddingCache::optimize`. What it did, as JSON.
    #[napi(catch_unwind)]
    pub fn optimize<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, String>> {
        let cache = Arc::clone(&self.inner);
        blocking(env, move || {
            let did = cache.optimize(OPTIMIZE_BUDGET);
            Ok(json!({
                "expiredInMemory": did.expired_in_memory,
                "expiredOnDisk": did.expired_on_disk,
                "evictedOnDisk": did.evicted_on_disk,
                "freedBytes": did.freed_bytes,
                "complete": did.complete,
            })
            .to_string())
        })
    }

    /// See `EmbeddingCache::flush`.
    #[napi(catch_unwind)]
    pub fn flush<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        let cache = Arc::clone(&self.inner);
        blocking(env, move || cache.flush().map_err(to_js))
    }

    /// See `EmbeddingCache::close`.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        let cache = Arc::clone(&self.inner);
        blocking(env, move || {
            cache.close();
            Ok(())
        })
    }

    /// Counts a lookup that could not even be made.
    #[napi(catch_unwind)]
    pub fn missed(&self) {
        self.inner.count_miss();
    }

    /// See `Stats`. As JSON.
    #[napi(catch_unwind)]
    pub fn stats(&self) -> String {
        let stats = self.inner.stats();
        json!({
            "totalRequests": stats.requests,
            "hits": stats.hits(),
            "misses": stats.misses(),
            "hitRatio": stats.hit_ratio(),
            "missRatio": if stats.requests > 0 { 1.0 - stats.hit_ratio() } else { 0.0 },
            "currentEntries": stats.entries,
            "currentSizeBytes": stats.bytes,
            "maxEntries": stats.max_entries,
            "maxSizeBytes": stats.max_bytes,
            "utilization": stats.utilization(),
            "avgAccessTimeMs": stats.average_access_ns() / 1e6,
            "averageAccessTime": stats.average_access_ns() / 1e6,
            "sets": stats.sets,
            "evictions": stats.evictions(),
            "evictionCauses": {
                "expired": stats.evicted_expired,
                "explicit": stats.evicted_explicit,
                "replaced": stats.evicted_replaced,
                "size": stats.evicted_size,
            },
            "missCauses": {
                "absent": stats.missed_absent,
                "expired": stats.missed_expired,
                "changed": stats.missed_changed,
                "damaged": stats.missed_damaged,
            },
            "memoryHits": stats.memory_hits,
            "diskHits": stats.disk_hits,
            "payloadBytes": stats.payload_bytes,
            "disk": stats.disk.map(|disk| json!({
                "available": disk.available,
                "entries": disk.entries,
                "sizeBytes": disk.bytes,
                "queued": disk.queued,
                "written": disk.written,
                "lost": disk.lost,
                "evicted": disk.evicted,
                "damaged": disk.damaged,
                "errors": disk.errors,
            })),
        })
        .to_string()
    }

    /// The latest calls, the oldest first: when, how many ms, hit ratio.
    #[napi(catch_unwind)]
    pub fn samples(&self) -> Vec<f64> {
        let samples = self.inner.samples();
        samples.iter().flat_map(|sample| [sample.at_ms as f64, sample.ns as f64 / 1e6, sample.hit_ratio]).collect()
    }

    fn key(&self, annotated: bool, key: &[u8]) -> Key {
        name(&self.space, annotated, key)
    }

    fn left(&self) -> std::sync::MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` here if there is no disk to wait for.
    fn at_once_or_blocking<'env, T: Send + ToNapiValue + 'static>(
        &self,
        env: &'env Env,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Either<T, PromiseRaw<'env, T>>> {
        if self.inner.options().path.is_none() {
            return Ok(Either::A(work()));
        }
        blocking(env, move || Ok(work())).map(Either::B)
    }
}

/// A look into the file for one key. On a thread of libuv: some microseconds of work are not worth the way to a thread
/// of the runtime and back.
pub struct Settle {
    cache: Arc<EmbeddingCache>,
    open: Option<Open>,
}

impl Task for Settle {
    type Output = Option<Arc<Entry>>;
    type JsValue = Option<NativeEntry>;

    fn compute(&mut self) -> Result<Self::Output> {
        let (cache, open) = (&self.cache, self.open.take());
        // Out of here, a panic would end the process.
        let found = catch_unwind(AssertUnwindSafe(|| open.and_then(|open| cache.settle(open).pop().flatten())));
        found.map_err(|_| to_js(Error::Internal("the cache panicked".to_owned())))
    }

    fn resolve(&mut self, _: Env, found: Self::Output) -> Result<Self::JsValue> {
        Ok(found.map(|entry| NativeEntry { entry }))
    }
}

/// One entry that was found.
#[napi]
pub struct NativeEntry {
    entry: Arc<Entry>,
}

#[napi]
impl NativeEntry {
    /// Length of its vector.
    #[napi(getter, catch_unwind)]
    pub fn dimensions(&self) -> u32 {
        self.entry.vector.len() as u32
    }

    /// Writes the vector to `out`, which is as long.
    #[napi(catch_unwind)]
    pub fn copy_to(&self, mut out: Float32ArraySlice) {
        let out = writable(&mut out);
        if out.len() == self.entry.vector.len() {
            self.entry.vector.copy_to(out);
        }
    }

    /// JSON, if there is any.
    #[napi(catch_unwind)]
    pub fn metadata(&self) -> Option<String> {
        metadata(&self.entry)
    }
}

/// One entry that is near.
#[napi]
pub struct NativeNear {
    /// Cosine.
    pub similarity: f64,
    entry: Arc<Entry>,
}

#[napi]
impl NativeNear {
    /// The entry.
    #[napi(catch_unwind)]
    pub fn entry(&self) -> NativeEntry {
        NativeEntry { entry: Arc::clone(&self.entry) }
    }

    /// Its key, as the user wrote it.
    #[napi(catch_unwind)]
    pub fn key(&self) -> String {
        String::from_utf8_lossy(from_note(&self.entry.note).0).into_owned()
    }
}

enum Looked {
    Open(Open),
    Done(Vec<Option<Arc<Entry>>>),
    /// On its way to the disk, or taken.
    Asking,
}

/// A lookup of many entries.
#[napi]
pub struct NativeLookup {
    cache: Arc<EmbeddingCache>,
    state: Arc<Mutex<Looked>>,
}

#[napi]
impl NativeLookup {
    /// Whether the disk must be asked first.
    #[napi(getter, catch_unwind)]
    pub fn open(&self) -> bool {
        matches!(*self.state(), Looked::Open(_))
    }

    /// Asks the disk.
    #[napi(catch_unwind)]
    pub fn settle<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        let asked = std::mem::replace(&mut *self.state(), Looked::Asking);
        let (cache, state) = (Arc::clone(&self.cache), Arc::clone(&self.state));
        blocking(env, move || {
            let settled = match asked {
                Looked::Open(open) => Looked::Done(cache.settle(open)),
                other => other,
            };
            *state.lock().unwrap_or_else(PoisonError::into_inner) = settled;
            Ok(())
        })
    }

    /// Length of the vectors that were found; 0 if there are none.
    #[napi(getter, catch_unwind)]
    pub fn dimensions(&self) -> u32 {
        match &*self.state() {
            Looked::Done(answers) => answers.iter().flatten().map(|entry| entry.vector.len()).max().unwrap_or(0) as u32,
            _ => 0,
        }
    }

    /// Writes to `hits` a 1 for each that was found.
    #[napi(catch_unwind)]
    pub fn hits(&self, mut hits: Uint8ArraySlice) {
        // SAFETY: see `writable`.
        let hits = unsafe { hits.as_mut() };
        if let Looked::Done(answers) = &*self.state() {
            hits.iter_mut().zip(answers).for_each(|(hit, answer)| *hit = u8::from(answer.is_some()));
        }
    }

    /// Writes the vectors to `data`, one after the other, zeros where there is none, and lets go of the answers.
    #[napi(catch_unwind)]
    pub fn copy_to(&self, mut data: Float32ArraySlice) {
        let data = writable(&mut data);
        let Looked::Done(answers) = std::mem::replace(&mut *self.state(), Looked::Asking) else { return };
        let dimensions = data.len() / answers.len().max(1);
        if dimensions == 0 {
            return;
        }
        for (answer, row) in answers.iter().zip(data.chunks_exact_mut(dimensions)) {
            match answer {
                Some(entry) if entry.vector.len() == dimensions => entry.vector.copy_to(row),
                // The memory is as it came.
                _ => row.fill(0.0),
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Looked> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The values behind an array that JavaScript has passed, to be written.
fn writable<'a>(array: &'a mut Float32ArraySlice) -> &'a mut [f32] {
    // SAFETY: JavaScript waits for this call, and `lib/cache.ts` passes arrays of its own that no worker shares.
    unsafe { array.as_mut() }
}

/// Does what may wait on a thread that may.
fn blocking<'env, T: Send + ToNapiValue + 'static>(
    env: &'env Env,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<PromiseRaw<'env, T>> {
    env.spawn_future(async move {
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| to_js(Error::Internal(error.to_string())))?
    })
}

/// Events of the file. Those of entries are in the statistics.
fn to_json(event: &Event) -> Option<String> {
    let event = match event {
        Event::RowsDamaged { path, rows } => {
            json!({ "type": "rows-damaged", "path": path.to_string_lossy(), "rows": rows })
        }
        Event::StorageFailed { path, reason } => {
            json!({ "type": "storage-failed", "path": path.to_string_lossy(), "reason": reason })
        }
        Event::StorageRestored { path } => json!({ "type": "storage-restored", "path": path.to_string_lossy() }),
        Event::StorageRefused { path, reason } => {
            json!({ "type": "storage-refused", "path": path.to_string_lossy(), "reason": reason })
        }
        Event::FileSetAside { path, moved_to, reason } => json!({
            "type": "file-set-aside",
            "path": path.to_string_lossy(),
            "movedTo": moved_to.to_string_lossy(),
            "reason": reason,
        }),
        Event::Rejected { dimensions, stored } => {
            json!({ "type": "rejected", "dimensions": dimensions, "stored": stored })
        }
        Event::Evicted { .. } => return None,
    };
    Some(event.to_string())
}
