//! The handles behind `IntelligentEmbeddingCache`: the cache, a lookup of many, and what was found on disk.
//!
//! What memory answers is answered at once, on the event loop, for that costs less than to go anywhere else. What may
//! wait for the disk gives a promise and waits on another thread.

use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{ptr, slice};

use napi::bindgen_prelude::{
    AsyncTask, Either, Float32Array, Float32ArraySlice, FnArgs, FromNapiValue, Function, PromiseRaw, ToNapiValue,
    TypeName, Uint8ArraySlice, ValidateNapiValue,
};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Result, Status, Task, ValueType, sys};
use napi_derive::napi;
use serde_json::{Map, Value, json};

use super::{options, to_js};
use crate::cache::{Draft, EmbeddingCache, Entry, Event, Names, Open, Probe, Recall};
use crate::embedding::Space;
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

/// See `NativeCache::getter`.
type Getter<'env> = Function<'env, FnArgs<(bool, String, Option<String>)>, i32>;

/// Strings up to this many bytes are read to the stack.
const SHORT: usize = 4096;

/// More than this is not kept for the next call.
const KEPT: usize = 4 << 20;

thread_local! {
    /// Where the strings of a call lie. Kept: memory of this size comes from the system each time, zeroed page by page,
    /// which takes as long as everything else.
    static STRINGS: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A string's bytes in UTF-8. Lone surrogates become U+FFFD, as everywhere in the web platform.
pub struct Text(Vec<u8>);

/// A string that is read when its bytes are needed.
pub struct Str(sys::napi_env, sys::napi_value);

impl Str {
    /// Calls `work` with the bytes in UTF-8. Nothing is allocated for strings of usual length.
    fn with<T>(&self, work: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let mut short = [MaybeUninit::<u8>::uninit(); SHORT];
        let mut length = 0;
        // SAFETY: a `Str` lives no longer than the call that passed it. Node.js writes at most as many bytes as it is
        // told, a final zero included, and says how many without it.
        unsafe {
            read(sys::napi_get_value_string_utf8(self.0, self.1, short.as_mut_ptr().cast(), SHORT, &mut length))?;
            // A character has up to four bytes; with fewer left, the next one may not have fitted.
            if length + 5 <= SHORT {
                return Ok(work(slice::from_raw_parts(short.as_ptr().cast(), length)));
            }
        }
        let mut long = Vec::new();
        self.append_to(&mut long, None)?;
        Ok(work(&long))
    }

    /// Appends the bytes in UTF-8. `units`: its length in UTF-16, if that is known.
    fn append_to(&self, bytes: &mut Vec<u8>, units: Option<usize>) -> Result<()> {
        let mut length = 0;
        // SAFETY: as above; there is room for what Node.js is told.
        unsafe {
            let most = match units {
                // V8 counts the bytes first unless there is room for the longest that there can be.
                Some(units) => 3 * units,
                None => {
                    read(sys::napi_get_value_string_utf8(self.0, self.1, ptr::null_mut(), 0, &mut length))?;
                    length
                }
            };
            bytes.reserve(most + 1);
            let to = bytes.as_mut_ptr().add(bytes.len()).cast();
            read(sys::napi_get_value_string_utf8(self.0, self.1, to, most + 1, &mut length))?;
            bytes.set_len(bytes.len() + length);
        }
        Ok(())
    }

    fn utf16(&self) -> Result<Vec<u16>> {
        let mut length = 0;
        // SAFETY: as above; lengths are in units here.
        unsafe {
            read(sys::napi_get_value_string_utf16(self.0, self.1, ptr::null_mut(), 0, &mut length))?;
            let mut units: Vec<u16> = Vec::with_capacity(length + 1);
            read(sys::napi_get_value_string_utf16(self.0, self.1, units.as_mut_ptr(), length + 1, &mut length))?;
            units.set_len(length);
            Ok(units)
        }
    }
}

fn read(status: sys::napi_status) -> Result<()> {
    if status == sys::Status::napi_ok {
        return Ok(());
    }
    Err(napi::Error::new(Status::from(status), "a string was expected".to_owned()))
}

macro_rules! from_value {
    ($type:ty, $js:literal, $value_type:ident, $from:expr) => {
        impl TypeName for $type {
            fn type_name() -> &'static str {
                $js
            }

            fn value_type() -> ValueType {
                ValueType::$value_type
            }
        }

        impl ValidateNapiValue for $type {}

        impl FromNapiValue for $type {
            unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> Result<Self> {
                $from(env, value)
            }
        }
    };
}

from_value!(Str, "String", String, |env, value| Ok(Str(env, value)));
from_value!(Text, "String", String, |env, value| Str(env, value).with(|bytes| Text(bytes.to_vec())));
from_value!(Joined, "Array", Object, |env, value| Ok(Joined(env, value)));

/// Many strings, joined to fewer. Their lengths come beside them, in UTF-16 units; none is cut between two.
pub struct Joined(sys::napi_env, sys::napi_value);

impl Joined {
    /// Reads all strings.
    fn read(&self, lengths: &[u32]) -> Result<Strings> {
        let mut strings = Strings { bytes: STRINGS.take(), ends: Vec::with_capacity(lengths.len()) };
        strings.bytes.clear();
        let mut count = 0;
        // SAFETY: a `Joined` lives no longer than the call that passed it.
        read(unsafe { sys::napi_get_array_length(self.0, self.1, &mut count) })?;
        let mut rest = lengths;
        for index in 0..count {
            let mut value = ptr::null_mut();
            let mut units = 0;
            // SAFETY: as above; only the length is asked for, which is where the string is made flat.
            unsafe {
                read(sys::napi_get_element(self.0, self.1, index, &mut value))?;
                read(sys::napi_get_value_string_utf16(self.0, value, ptr::null_mut(), 0, &mut units))?;
            }
            let mut sum = 0;
            let strings_in_it = rest.iter().take_while(|length| {
                sum += **length as usize;
                sum <= units
            });
            let (lengths, others) = rest.split_at(strings_in_it.count());
            strings.append(&Str(self.0, value), units, lengths)?;
            rest = others;
        }
        strings.ends.resize(lengths.len(), strings.bytes.len());
        Ok(strings)
    }
}

/// Strings, one after the other.
struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    fn append(&mut self, joined: &Str, units: usize, lengths: &[u32]) -> Result<()> {
        let (begin, before) = (self.bytes.len(), self.ends.len());
        joined.append_to(&mut self.bytes, Some(units))?;
        let mut at = begin;
        for length in lengths {
            let length = *length as usize;
            at = match self.bytes.get(at..at + length) {
                Some(bytes) if bytes.is_ascii() => at + length,
                _ => match end_of(&self.bytes[at..], length) {
                    Some(bytes) => at + bytes,
                    None => {
                        self.bytes.truncate(begin);
                        self.ends.truncate(before);
                        return self.append_units(&joined.utf16()?, lengths);
                    }
                },
            };
            self.ends.push(at);
        }
        Ok(())
    }

    /// Where a string ends with one half of a character and the next one begins with the other half, joining them has
    /// made a character that neither has.
    fn append_units(&mut self, units: &[u16], lengths: &[u32]) -> Result<()> {
        let mut at = 0;
        for length in lengths {
            let from = at;
            at += *length as usize;
            let string = String::from_utf16_lossy(units.get(from..at).unwrap_or_default());
            self.bytes.extend_from_slice(string.as_bytes());
            self.ends.push(self.bytes.len());
        }
        Ok(())
    }

    /// The strings in groups of `N`.
    fn groups<const N: usize>(&self) -> impl ExactSizeIterator<Item = [&[u8]; N]> {
        let mut from = 0;
        self.ends.as_chunks::<N>().0.iter().map(move |ends| {
            ends.map(|end| {
                let string = &self.bytes[from..end];
                from = end;
                string
            })
        })
    }
}

impl Drop for Strings {
    fn drop(&mut self) {
        if self.bytes.capacity() <= KEPT {
            STRINGS.set(std::mem::take(&mut self.bytes));
        }
    }
}

/// How many bytes `units` units of UTF-16 take at the beginning of `utf8`, unless they end within a character.
fn end_of(utf8: &[u8], units: usize) -> Option<usize> {
    let mut left = units;
    let mut at = 0;
    while left > 0 {
        let (bytes, units) = match utf8.get(at)? {
            0..0x80 => (1, 1),
            0x80..0xe0 => (2, 1),
            0xe0..0xf0 => (3, 1),
            _ => (4, 2),
        };
        at += bytes;
        left = left.checked_sub(units)?;
    }
    Some(at)
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
    door: Rc<Door>,
}

/// What a lookup of one needs, and what it leaves for the next call on the same turn of the event loop.
struct Door {
    cache: Arc<EmbeddingCache>,
    /// Entries by key and by annotation: of the same name, they are two.
    keys: Names,
    nodes: Names,
    left: RefCell<Left>,
}

impl NativeCache {
    /// The cache, and the space of its own entries.
    pub(super) fn shared(&self) -> (Arc<EmbeddingCache>, Space) {
        (Arc::clone(&self.inner), self.space.clone())
    }
}

impl Door {
    fn names(&self, annotated: bool) -> &Names {
        if annotated { &self.nodes } else { &self.keys }
    }

    fn get(&self, probe: &Probe, out: &mut [f32]) -> i32 {
        match self.cache.recall_one(probe) {
            Ok(None) => MISS,
            Ok(Some(entry)) => {
                let values = entry.vector.len();
                let room = out.len();
                let has_metadata = !from_note(&entry.note).1.is_empty();
                if let Some(out) = out.get_mut(..values) {
                    entry.vector.copy_to(out);
                }
                if has_metadata || values > room {
                    self.left.borrow_mut().entry = Some(entry);
                }
                values as i32 | if has_metadata { HAS_METADATA } else { 0 }
            }
            Err(open) => {
                self.left.borrow_mut().open = Some(open);
                ASK_DISK
            }
        }
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
        let (keys, nodes) = (Names::new(&space, "key"), Names::new(&space, "node"));
        let door = Rc::new(Door { cache: Arc::clone(&inner), keys, nodes, left: RefCell::default() });
        Ok(Self { inner, space, door })
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

    /// The function that looks one up in memory: whether for an annotation, the key, and the content, if that matters.
    /// Answers the number of values, written to `out` if it has room for them; or a miss, or that the disk must be asked.
    /// See the constants above. `out` must never be passed to anybody else.
    ///
    /// No method: Node.js takes longer to find what is behind an object than all of a lookup takes.
    #[napi(catch_unwind)]
    pub fn getter<'env>(&self, env: &'env Env, mut out: Float32Array) -> Result<Getter<'env>> {
        let door = Rc::clone(&self.door);
        let out = RefCell::new(move |probe: &Probe, door: &Door| {
            // SAFETY: this is the thread of the array, and nobody else has it.
            door.get(probe, unsafe { out.as_mut() })
        });
        env.create_function_from_closure("get", move |call| {
            let get = || -> Result<i32> {
                let names = door.names(call.get(0)?);
                let (key, content): (Str, Option<Str>) = (call.get(1)?, call.get(2)?);
                let found = |probe: &Probe| out.borrow_mut()(probe, &door);
                key.with(|key| match content {
                    None => Ok(found(&names.probe(key, None))),
                    Some(content) => content.with(|content| found(&names.probe(key, Some(content)))),
                })?
            };
            // Out of here, a panic would end the process.
            catch_unwind(AssertUnwindSafe(get))
                .unwrap_or_else(|_| Err(to_js(Error::Internal("the cache panicked".to_owned()))))
        })
    }

    /// What the latest `get` has found.
    #[napi(catch_unwind)]
    pub fn found(&self) -> Option<NativeEntry> {
        self.door.left.take().entry.map(|entry| NativeEntry { entry })
    }

    /// Asks the disk what the latest `get` could not answer.
    #[napi(catch_unwind)]
    pub fn settle(&self) -> AsyncTask<Settle> {
        AsyncTask::new(Settle { cache: Arc::clone(&self.inner), open: self.door.left.take().open })
    }

    /// Looks many up: keys and contents in turn.
    #[napi(catch_unwind)]
    pub fn lookup(&self, annotated: bool, joined: Joined, lengths: &[u32]) -> Result<NativeLookup> {
        let validate = self.inner.options().validate_content;
        let strings = joined.read(lengths)?;
        let names = self.door.names(annotated);
        let probes = strings.groups().map(|[key, content]| names.probe(key, validate.then_some(content)));
        let state = match self.inner.recall(probes) {
            Recall::Done(answers) => Looked::Done(answers),
            Recall::AskDisk(open) => Looked::Open(open),
        };
        Ok(NativeLookup { cache: Arc::clone(&self.inner), state: Arc::new(Mutex::new(state)) })
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
        let strings = joined.read(lengths)?;
        let names = self.door.names(annotated).clone();
        let validate = self.inner.options().validate_content;
        let commit = move |cache: &EmbeddingCache, data: &[f32], ttls_ms: &[f64]| {
            let groups = strings.groups();
            let dimensions = data.len() / groups.len().max(1);
            let notes: Vec<_> = strings.groups().map(|[key, _, metadata]| to_note(key, metadata)).collect();
            let drafts = groups.zip(&notes).enumerate().map(|(at, ([key, content, _], note))| {
                let vector = data.get(at * dimensions..(at + 1) * dimensions).unwrap_or_default();
                let ttl = ttls_ms.get(at).copied().filter(|ms| !ms.is_nan());
                let ttl = ttl.map(|ms| Duration::try_from_secs_f64(ms / 1e3).unwrap_or(Duration::MAX));
                let probe = names.probe(key, validate.then_some(content));
                (probe, Draft { vector: Some(vector), note, kind: "", ttl })
            });
            cache.commit_many(names.space(), drafts).map_err(to_js)
        };
        if self.inner.commits_at_once(&self.space) {
            return commit(&self.inner, data, ttls_ms).map(Either::A);
        }
        let (cache, data, ttls_ms) = (Arc::clone(&self.inner), data.to_vec(), ttls_ms.to_vec());
        blocking(env, move || commit(&cache, &data, &ttls_ms)).map(Either::B)
    }

    /// See `EmbeddingCache::contains`.
    #[napi(catch_unwind)]
    pub fn has<'env>(
        &self,
        env: &'env Env,
        annotated: bool,
        key: Text,
        content: Option<Text>,
    ) -> Result<Either<bool, PromiseRaw<'env, bool>>> {
        let (cache, names) = (Arc::clone(&self.inner), self.door.names(annotated).clone());
        self.at_once_or_blocking(env, move || {
            cache.contains(names.probe(&key.0, content.as_ref().map(|content| &content.0[..])))
        })
    }

    /// See `EmbeddingCache::delete`.
    #[napi(catch_unwind)]
    pub fn delete<'env>(
        &self,
        env: &'env Env,
        annotated: bool,
        key: Text,
    ) -> Result<Either<bool, PromiseRaw<'env, bool>>> {
        let (cache, names) = (Arc::clone(&self.inner), self.door.names(annotated).clone());
        self.at_once_or_blocking(env, move || cache.delete(names.probe(&key.0, None)))
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
        let key = self.door.keys.key(&key.0);
        let cache = Arc::clone(&self.inner);
        let lifetime = Duration::from_millis(lifetime_ms.into());
        blocking(env, move || Ok(cache.acquire(&[key], lifetime).first().copied().unwrap_or(true)))
    }

    /// See `EmbeddingCache::release`.
    #[napi(catch_unwind)]
    pub fn release(&self, key: Text) {
        let key = self.door.keys.key(&key.0);
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
