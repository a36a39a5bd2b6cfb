//! The handle behind `InferenceCache`. Keys cross as 64 hexadecimal digits.

use std::sync::{Arc, Weak};
use std::time::Duration;

use napi::bindgen_prelude::{Either, PromiseRaw, ToNapiValue, Uint8Array, Uint8ArraySlice};
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi::{Env, Result, Status, sys};
use napi_derive::napi;
use serde_json::{Map, Value, json};

use super::cache::{Ends, OPTIMIZE_BUDGET, OnEvent, Text, blocking, ends_with, storage_event};
use super::{options, to_js};
use crate::embedding::Key;
use crate::error::Error;
use crate::results::{
    Computed, Content, Deletions, Format, KindStats, LONGEST_PROMPT, NearHit, Prompt, Results, Scope, Stored,
};

/// See `Results`.
#[napi]
pub struct NativeResults {
    inner: Arc<Results>,
}

/// A value on its way to JavaScript: JSON as a string, bytes as a `Buffer` of its own.
pub struct Payload(Stored);

impl ToNapiValue for Payload {
    unsafe fn to_napi_value(env: sys::napi_env, Self(stored): Self) -> Result<sys::napi_value> {
        let bytes = stored.value();
        let (data, length) = (bytes.as_ptr(), bytes.len());
        let mut value = std::ptr::null_mut();
        // SAFETY: Node.js copies as many bytes as it is told there are; the entry lives until it has.
        let status = unsafe {
            match stored.format() {
                Format::Json => sys::napi_create_string_utf8(env, data.cast(), length as isize, &mut value),
                Format::Bytes | Format::Buffer => {
                    sys::napi_create_buffer_copy(env, length, data.cast(), std::ptr::null_mut(), &mut value)
                }
            }
        };
        match Status::from(status) {
            Status::Ok => Ok(value),
            status => Err(napi::Error::new(status, format!("a value of {length} bytes cannot be given to JavaScript"))),
        }
    }
}

/// A result that was found.
#[napi(object, object_from_js = false)]
pub struct NativeStored {
    /// See `Format`.
    pub format: u32,
    /// The value.
    pub value: Payload,
    /// JSON, if there is any.
    pub metadata: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// In ms since 1970.
    pub created_at: f64,
    /// In ms since 1970.
    pub expires_at: Option<f64>,
    /// Of a near hit only.
    pub similarity: Option<f64>,
    /// Of a near hit only: the prompt that was found.
    pub matched: Option<String>,
}

impl From<Stored> for NativeStored {
    fn from(stored: Stored) -> Self {
        let metadata = stored.metadata();
        Self {
            format: stored.format().number().into(),
            metadata: (!metadata.is_empty()).then(|| String::from_utf8_lossy(metadata).into_owned()),
            tags: stored.tags(),
            created_at: stored.created_ms() as f64,
            expires_at: stored.expires_ms().map(|ms| ms as f64),
            similarity: None,
            matched: None,
            value: Payload(stored),
        }
    }
}

impl From<NearHit> for NativeStored {
    fn from(NearHit { stored, similarity, matched }: NearHit) -> Self {
        Self { similarity: Some(similarity.into()), matched: Some(matched), ..stored.into() }
    }
}

/// A prompt that is to be found by its meaning.
#[napi(object, object_to_js = false)]
pub struct NativePrompt {
    /// See `NativeResults::scope`.
    pub scope: String,
    /// The prompt.
    pub text: String,
    /// Its vector.
    pub vector: napi::bindgen_prelude::Float32Array,
}

/// A result that is set.
#[napi(object, object_to_js = false)]
pub struct NativeResult {
    /// Its type.
    pub kind: String,
    /// See `NativeResults::key`.
    pub key: String,
    /// See `Format`.
    pub format: u32,
    /// The value.
    pub value: Either<Text, Uint8Array>,
    /// JSON, or empty.
    pub metadata: String,
    /// For `invalidate`.
    pub tags: Vec<String>,
    /// 0: for ever.
    pub ttl_seconds: Option<f64>,
    /// See `Computed::exact`.
    pub exact: bool,
    /// When the work on it began, as `NativeResults::now` told; absent: now.
    pub began: Option<f64>,
}

#[napi]
impl NativeResults {
    /// Parses the options and begins to open the file. Events are the ones that concern the file.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: Env, options: Map<String, Value>, on_event: OnEvent) -> Result<Self> {
        let mut options = options::results(&options).map_err(to_js)?;
        options.cache.listener = Some(Arc::new(move |event| {
            if let Some(event) = storage_event(&event) {
                on_event.call((event,).into(), ThreadsafeFunctionCallMode::NonBlocking);
            }
        }));
        let inner = Arc::new(Results::open(options).map_err(to_js)?);
        let weak: Weak<Results> = Arc::downgrade(&inner);
        ends_with(&env, weak)?;
        Ok(Self { inner })
    }

    /// What the JavaScript side must know of the options, as JSON.
    #[napi(catch_unwind)]
    pub fn settings(&self) -> String {
        let options = &self.inner.options().cache;
        json!({
            "maintenanceInterval": options.maintenance_interval.as_millis() as u64,
            "shared": self.inner.is_shared(),
            "longestPrompt": LONGEST_PROMPT,
        })
        .to_string()
    }

    /// See `Results::key`. What `content` is, `form` says: a text, JSON, or a hash by name; bytes are always themselves.
    #[napi(catch_unwind)]
    pub fn key(
        &self,
        kind: String,
        params: Text,
        modality: String,
        form: String,
        content: Either<Text, Uint8ArraySlice>,
    ) -> Result<String> {
        let hash;
        let content = match (&content, form.as_str()) {
            (Either::B(bytes), _) => Content::Bytes(bytes),
            (Either::A(text), "text") => Content::Bytes(&text.0),
            (Either::A(json), "json") => Content::Json(&json.0),
            (Either::A(name), _) => {
                let name = std::str::from_utf8(&name.0).unwrap_or_default();
                match name.strip_prefix("sha256:").map(from_hex).transpose()? {
                    Some(sha256) => {
                        hash = sha256;
                        Content::Sha256(&hash)
                    }
                    None => Content::Name(name),
                }
            }
        };
        Ok(to_hex(self.inner.key(&kind, &params.0, &modality, content).as_bytes()))
    }

    /// See `Scope`.
    #[napi(catch_unwind)]
    pub fn scope(&self, kind: String, params: Text, modality: String, model: String) -> String {
        to_hex(Scope::new(&kind, &params.0, &modality, &model).as_bytes())
    }

    /// The result of a key. A promise only if the disk must be asked. `last`: see `Results::recall`.
    #[napi(catch_unwind)]
    pub fn get<'env>(
        &self,
        env: &'env Env,
        kind: String,
        key: String,
        last: bool,
    ) -> Result<Either<Option<NativeStored>, PromiseRaw<'env, Option<NativeStored>>>> {
        match self.inner.recall(&kind, to_key(&key)?, last) {
            Ok(found) => Ok(Either::A(found.map(Into::into))),
            Err(asking) => {
                let inner = Arc::clone(&self.inner);
                blocking(env, move || Ok(inner.settle(asking).map(Into::into))).map(Either::B)
            }
        }
    }

    /// See `Results::near`.
    #[napi(catch_unwind)]
    pub fn near<'env>(
        &self,
        env: &'env Env,
        kind: String,
        prompt: NativePrompt,
        threshold: f64,
        limit: u32,
    ) -> Result<PromiseRaw<'env, Option<NativeStored>>> {
        let inner = Arc::clone(&self.inner);
        let prompt = OwnedPrompt::of(prompt)?;
        blocking(env, move || {
            let near = inner.near(&kind, &prompt.borrowed(), threshold as f32, limit as usize).map_err(to_js)?;
            Ok(near.map(Into::into))
        })
    }

    /// See `Results::glance`. A promise only if it has to wait for the disk.
    #[napi(catch_unwind)]
    pub fn glance<'env>(
        &self,
        env: &'env Env,
        key: String,
    ) -> Result<Either<Option<NativeStored>, PromiseRaw<'env, Option<NativeStored>>>> {
        let key = to_key(&key)?;
        self.at_once_or_blocking(env, move |results| results.glance(key).map(Into::into))
    }

    /// See `Results::count`.
    #[napi(catch_unwind)]
    pub fn count(&self, kind: String, near: bool) {
        self.inner.count(&kind, near);
    }

    /// The time for `began`.
    #[napi(catch_unwind)]
    pub fn now(&self) -> f64 {
        self.inner.now_us() as f64
    }

    /// See `EmbeddingCache::reject`.
    #[napi(catch_unwind)]
    pub fn reject(&self, reason: String) {
        self.inner.reject(&reason);
    }

    /// Sets results, all or none. They are set when this returns; a promise says when more can be.
    #[napi(catch_unwind)]
    pub fn set<'env>(&self, env: &'env Env, results: Vec<NativeResult>) -> Result<Either<(), PromiseRaw<'env, ()>>> {
        let results =
            results.into_iter().map(|result| OwnedResult::of(&self.inner, result)).collect::<Result<Vec<_>>>()?;
        OwnedResult::set(&self.inner, &results)?;
        if self.inner.has_room() {
            return Ok(Either::A(()));
        }
        let inner = Arc::clone(&self.inner);
        blocking(env, move || {
            inner.await_room();
            Ok(())
        })
        .map(Either::B)
    }

    /// See `Results::attach`. A promise only if it has to wait for the disk.
    #[napi(catch_unwind)]
    pub fn attach<'env>(
        &self,
        env: &'env Env,
        key: String,
        prompt: NativePrompt,
    ) -> Result<Either<(), PromiseRaw<'env, ()>>> {
        let (key, prompt) = (to_key(&key)?, OwnedPrompt::of(prompt)?);
        if !self.inner.may_wait() {
            return self.inner.attach(key, &prompt.borrowed()).map(Either::A).map_err(to_js);
        }
        let inner = Arc::clone(&self.inner);
        blocking(env, move || inner.attach(key, &prompt.borrowed()).map_err(to_js)).map(Either::B)
    }

    /// See `Results::contains`. A promise only if it has to wait for the disk.
    #[napi(catch_unwind)]
    pub fn has<'env>(&self, env: &'env Env, key: String) -> Result<Either<bool, PromiseRaw<'env, bool>>> {
        let key = to_key(&key)?;
        self.at_once_or_blocking(env, move |results| results.contains(key))
    }

    /// See `Results::delete`. It is gone when this returns; a promise says when the file knows.
    #[napi(catch_unwind)]
    pub fn delete<'env>(&self, env: &'env Env, key: String) -> Result<Either<f64, PromiseRaw<'env, f64>>> {
        self.deleted(env, self.inner.delete(to_key(&key)?))
    }

    /// See `Results::invalidate`, and `delete`.
    #[napi(catch_unwind)]
    pub fn invalidate<'env>(
        &self,
        env: &'env Env,
        kind: Option<String>,
        tags: Vec<String>,
    ) -> Result<Either<f64, PromiseRaw<'env, f64>>> {
        let tags: Vec<_> = tags.iter().map(String::as_str).collect();
        self.deleted(env, self.inner.invalidate(kind.as_deref(), &tags))
    }

    /// See `Results::clear_expired`, and `delete`.
    #[napi(catch_unwind)]
    pub fn clear_expired<'env>(&self, env: &'env Env) -> Result<Either<f64, PromiseRaw<'env, f64>>> {
        self.deleted(env, self.inner.clear_expired())
    }

    fn deleted<'env>(&self, env: &'env Env, deletions: Deletions) -> Result<Either<f64, PromiseRaw<'env, f64>>> {
        if let Some(count) = deletions.done() {
            return Ok(Either::A(count as f64));
        }
        let inner = Arc::clone(&self.inner);
        blocking(env, move || inner.resolve(deletions).map(|count| count as f64).map_err(to_js)).map(Either::B)
    }

    /// See `EmbeddingCache::acquire`.
    #[napi(catch_unwind)]
    pub fn acquire<'env>(&self, env: &'env Env, key: String, lifetime_ms: u32) -> Result<PromiseRaw<'env, bool>> {
        let (inner, key) = (Arc::clone(&self.inner), to_key(&key)?);
        blocking(env, move || Ok(inner.acquire(key, Duration::from_millis(lifetime_ms.into()))))
    }

    /// See `EmbeddingCache::release`.
    #[napi(catch_unwind)]
    pub fn release(&self, key: String) -> Result<()> {
        self.inner.release(to_key(&key)?);
        Ok(())
    }

    /// See `EmbeddingCache::optimize`. What it did, as JSON.
    #[napi(catch_unwind)]
    pub fn optimize<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, String>> {
        let inner = Arc::clone(&self.inner);
        blocking(env, move || Ok(super::cache::optimized(&inner.optimize(OPTIMIZE_BUDGET))))
    }

    /// See `EmbeddingCache::flush`.
    #[napi(catch_unwind)]
    pub fn flush<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        let inner = Arc::clone(&self.inner);
        blocking(env, move || inner.flush().map_err(to_js))
    }

    /// See `EmbeddingCache::close`.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        self.inner.begin_close();
        let inner = Arc::clone(&self.inner);
        blocking(env, move || {
            inner.close();
            Ok(())
        })
    }

    /// How many left memory because their time was over, they were deleted, replaced, or for want of space.
    #[napi(catch_unwind)]
    pub fn evicted(&self) -> Vec<f64> {
        self.inner.evicted().map(|entries| entries as f64).to_vec()
    }

    /// See `Results::stats`. As JSON: what the cache says, with the numbers by type.
    #[napi(catch_unwind)]
    pub fn stats(&self) -> String {
        let stats = self.inner.stats();
        let by_type: Map<String, Value> =
            stats.kinds.iter().map(|(kind, stats)| (kind.clone(), kind_stats(stats).into())).collect();
        let (total, cache) = (&stats.total, &stats.cache);
        let mut told = kind_stats(total);
        let more = json!({
            "memoryHits": stats.memory_hits,
            "diskHits": stats.disk_hits,
            "sharedHits": stats.shared_hits,
            "currentEntries": cache.entries,
            "currentSizeBytes": cache.bytes,
            "maxEntries": cache.max_entries,
            "maxSizeBytes": cache.max_bytes,
            "utilization": cache.utilization(),
            "evictions": cache.evictions(),
            "evictionCauses": super::cache::eviction_causes(cache),
            "rejected": cache.rejected,
            "disk": cache.disk.as_ref().map(super::cache::disk),
            "shared": cache.shared.as_ref().map(super::cache::shared),
            "byType": by_type,
        });
        for gone in ["entries", "bytes"] {
            told.remove(gone);
        }
        told.extend(more.as_object().cloned().unwrap_or_default());
        Value::Object(told).to_string()
    }

    /// Does `work` here if there is no disk to wait for.
    fn at_once_or_blocking<'env, T: Send + ToNapiValue + 'static>(
        &self,
        env: &'env Env,
        work: impl FnOnce(&Results) -> T + Send + 'static,
    ) -> Result<Either<T, PromiseRaw<'env, T>>> {
        if !self.inner.may_wait() {
            return Ok(Either::A(work(&self.inner)));
        }
        let inner = Arc::clone(&self.inner);
        blocking(env, move || Ok(work(&inner))).map(Either::B)
    }
}

fn kind_stats(stats: &KindStats) -> Map<String, Value> {
    let requests = stats.hits + stats.misses;
    let stats = json!({
        "totalRequests": requests,
        "hits": stats.hits,
        "nearHits": stats.near_hits,
        "misses": stats.misses,
        "hitRatio": if requests > 0 { stats.hits as f64 / requests as f64 } else { 0.0 },
        "expired": stats.expired,
        "damaged": stats.damaged,
        "sets": stats.sets,
        "entries": stats.entries,
        "bytes": stats.bytes,
    });
    stats.as_object().cloned().unwrap_or_default()
}

impl Ends for Results {
    fn begin(&self) {
        self.begin_close();
    }

    fn end(&self) {
        self.close();
    }
}

struct OwnedResult {
    kind: String,
    key: Key,
    format: Format,
    value: Vec<u8>,
    metadata: String,
    tags: Vec<String>,
    ttl: Option<Duration>,
    exact: bool,
    age: Option<Duration>,
}

impl OwnedResult {
    fn of(results: &Results, result: NativeResult) -> Result<Self> {
        let NativeResult { kind, key, format, value, metadata, tags, ttl_seconds, exact, began } = result;
        let ttl = ttl_seconds.map(|seconds| match seconds {
            0.0 => Duration::MAX,
            seconds => Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
        });
        let format = u8::try_from(format).ok().and_then(Format::from_number);
        let format = format.ok_or_else(|| to_js(Error::Internal("there is no such format".to_owned())))?;
        let value = match value {
            Either::A(text) => text.0,
            Either::B(bytes) => bytes.to_vec(),
        };
        let age = began.map(|began| results.age(began as u64));
        Ok(Self { kind, key: to_key(&key)?, format, value, metadata, tags, ttl, exact, age })
    }

    fn set(results: &Results, all: &[Self]) -> Result<()> {
        let tags: Vec<Vec<&str>> = all.iter().map(|one| one.tags.iter().map(String::as_str).collect()).collect();
        let computed = all.iter().zip(&tags).map(|(one, tags)| {
            let Self { key, format, ttl, exact, age, .. } = *one;
            let metadata = one.metadata.as_bytes();
            (key, Computed { kind: &one.kind, format, value: &one.value, metadata, tags, ttl, exact, age })
        });
        results.set_many(&computed.collect::<Vec<_>>()).map_err(to_js)
    }
}

struct OwnedPrompt {
    scope: Scope,
    text: String,
    vector: Vec<f32>,
}

impl OwnedPrompt {
    fn of(NativePrompt { scope, text, vector }: NativePrompt) -> Result<Self> {
        Ok(Self { scope: Scope::from_bytes(from_hex(&scope)?), text, vector: vector.to_vec() })
    }

    fn borrowed(&self) -> Prompt<'_> {
        Prompt { scope: self.scope, text: &self.text, vector: &self.vector }
    }
}

fn to_key(hex: &str) -> Result<Key> {
    from_hex(hex).map(Key::from)
}

fn to_hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(hex: &str) -> Result<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    let bytes = bytes.filter(|_| rest.is_empty()).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| {
        to_js(Error::InvalidArgument(format!("\"{hex}\" is not a SHA-256: that has 64 hexadecimal digits")))
    })
}
