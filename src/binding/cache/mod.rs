//! The handles behind `IntelligentEmbeddingCache`: the cache, a lookup of many, and what was found on disk.
//!
//! What memory answers is answered at once, on the event loop, for that costs less than to go anywhere else. What may
//! wait for the disk gives a promise and waits on another thread.

mod found;
mod generated;
mod report;
mod strings;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use napi::bindgen_prelude::{
    AsyncTask, Either, Float32Array, Float32ArraySlice, FnArgs, Function, JsValue, PromiseRaw, ToNapiValue, Uint8Array,
    Uint8ArraySlice, within_runtime_if_available,
};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Result, Status};
use napi_derive::napi;
use serde_json::{Map, Value, json};

use self::found::{NativeEntry, NativeLookup, NativeNearest, Settle, from_note, lock, to_note};
pub(super) use self::report::{disk, event as storage_event, eviction_causes, optimized, shared};
pub(super) use self::strings::Text;
use self::strings::{Str, Strings};
use super::{options, to_js};
use crate::cache::{
    Draft, EmbeddingCache, Entry, InlineReads, KeyHasher, Open, Precision, Probe, Recalling, Selection, Vector,
};
use crate::embedding::{Modality, Space, digest_of_bytes};
use crate::error::Error;
use crate::generator::GeneratorCache;
use crate::host::threads::begin_blocking;

/// What `get` answers instead of a number of values.
const MISS: i32 = -1;
const ASK_DISK: i32 = -2;

/// Set in the answer of `get` when there is metadata, too. No vector is that long.
const HAS_METADATA: i32 = 1 << 28;

/// How long one call of `optimize` works.
pub(super) const OPTIMIZE_BUDGET: Duration = Duration::from_secs(2);

/// Called with an event as JSON. Weak: a callback never keeps the process alive.
pub(super) type OnEvent = ThreadsafeFunction<FnArgs<(String,)>, (), FnArgs<(String,)>, Status, false, true>;

/// See `NativeCache::getter`.
type Getter<'env> = Function<'env, FnArgs<(u32, String, Option<String>)>, i32>;

/// See `NativeCache::looker` and `NativeCache::pusher`: any number of strings follow.
type Looker<'env> = Function<'env, FnArgs<(u32,)>, ()>;
type Pusher<'env> = Function<'env, (), ()>;

/// Strings of a call that are read before anything is done with them: they are still in the processor's nearest cache
/// then.
const AT_ONCE: usize = 128;

/// What an entry is named by, and made from: a text under a key is 0, an annotation 1, an image under a key 2, a recording 3.
type Kind = u32;

/// See `EmbeddingCache`.
#[napi]
pub struct NativeCache {
    inner: Arc<EmbeddingCache>,
    /// Of its own entries, by `Modality::ALL`.
    spaces: [Space; Modality::ALL.len()],
    /// What the generators have to do with it that it was given to.
    generators: Arc<GeneratorCache>,
    door: Rc<Door>,
}

/// What lookups need, and what a call leaves for the next one on the same turn of the event loop.
struct Door {
    cache: Arc<EmbeddingCache>,
    /// By [`Kind`].
    names: [KeyHasher; 4],
    left: RefCell<Left>,
    inline_reads: Arc<Mutex<InlineReads>>,
}

impl NativeCache {
    /// The cache, and the space of its own entries.
    pub(super) fn shared(&self) -> (Arc<EmbeddingCache>, Space) {
        (Arc::clone(&self.inner), self.spaces[0].clone())
    }

    /// The cache as generators use it.
    pub(super) fn of_generators(&self) -> Arc<GeneratorCache> {
        Arc::clone(&self.generators)
    }

    /// Spaces that are asked for by their places in `Modality::ALL`: its own, then those of generators.
    fn spaces(&self, modalities: &[u32]) -> Vec<Space> {
        let own = modalities.iter().filter_map(|&modality| self.spaces.get(modality as usize));
        let generated = own.clone().flat_map(|space| self.generators.spaces(space.modality()));
        own.cloned().chain(generated).collect()
    }
}

impl Door {
    /// Entries of one kind. Of the same name, those of two kinds are two.
    fn names(&self, kind: Kind) -> &KeyHasher {
        self.names.get(kind as usize).unwrap_or(&self.names[0])
    }

    fn get(&self, probe: &Probe, out: &mut [f32]) -> i32 {
        let answer = self.cache.recall_one(probe).or_else(|open| lock(&self.inline_reads).settle(&self.cache, open));
        match answer {
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
    looking: Option<Recalling>,
    /// Of the next `set`.
    pushed: Strings,
    /// Memory that is used again.
    scratch: Strings,
}

#[napi]
impl NativeCache {
    /// Parses the options and begins to open the file. Events are the ones that concern the file.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: Env, options: Map<String, Value>, on_event: OnEvent) -> Result<Self> {
        let (mut options, namespace, model) = options::cache(&options).map_err(to_js)?;
        options.listener = Some(Arc::new(move |event| {
            if let Some(event) = report::event(&event) {
                on_event.call((event,).into(), ThreadsafeFunctionCallMode::NonBlocking);
            }
        }));
        let inner = Arc::new(EmbeddingCache::open(options).map_err(to_js)?);
        let weak: Weak<EmbeddingCache> = Arc::downgrade(&inner);
        ends_with(&env, weak)?;
        let space = Space::builder().field("namespace", namespace).field("model", model).finish();
        let spaces = Modality::ALL.map(|modality| space.of(modality));
        let [texts, images, recordings] = &spaces;
        let names = [(texts, "key"), (texts, "node"), (images, "key"), (recordings, "key")];
        let names = names.map(|(space, field)| KeyHasher::new(space, field));
        let left = RefCell::default();
        let door = Rc::new(Door { cache: Arc::clone(&inner), names, left, inline_reads: Arc::default() });
        let generators = Arc::new(GeneratorCache::new(Arc::clone(&inner), spaces[0].clone()));
        Ok(Self { inner, spaces, generators, door })
    }

    /// What the JavaScript side must know of the options, as JSON.
    #[napi(catch_unwind)]
    pub fn settings(&self) -> String {
        let options = self.inner.options();
        json!({
            "maintenanceInterval": options.maintenance_interval.as_millis() as u64,
            "hitRatioThreshold": options.hit_ratio_threshold,
            "validate": options.validate_content,
            "shared": self.inner.has_leases(),
            "rounds": options.precision != Precision::F32,
        })
        .to_string()
    }

    /// The function that looks one up in memory: of which kind, the key, and the content, if that matters.
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
        self.door.left.borrow_mut().entry.take().map(NativeEntry::new)
    }

    /// Asks the disk what the latest `get` could not answer.
    #[napi(catch_unwind)]
    pub fn settle(&self) -> AsyncTask<Settle> {
        let open = self.door.left.borrow_mut().open.take();
        AsyncTask::new(Settle::new(&self.inner, open, &self.door.inline_reads))
    }

    /// The function that looks many up in memory: of which kind, then keys and contents in turn. What it has
    /// found, the calls of one lookup together, is `looked`.
    #[napi(catch_unwind)]
    pub fn looker<'env>(&self, env: &'env Env) -> Result<Looker<'env>> {
        let door = Rc::clone(&self.door);
        let validate = self.inner.options().validate_content;
        env.create_function_from_closure("look", move |call| {
            let names = door.names(call.get(0)?);
            let mut left = door.left.borrow_mut();
            let mut recalling = left.looking.take().unwrap_or_else(|| door.cache.recalling());
            let mut strings = std::mem::take(&mut left.scratch);
            for from in (1..call.length()).step_by(AT_ONCE) {
                strings.clear();
                strings.read(&call, from, from + AT_ONCE)?;
                let probes = strings.groups().map(|[key, content]| names.probe(key, validate.then_some(content)));
                door.cache.recall_more(&mut recalling, probes);
            }
            left.scratch = strings;
            left.looking = Some(recalling);
            Ok(())
        })
    }

    /// What was looked up since the last time.
    #[napi(catch_unwind)]
    pub fn looked(&self) -> NativeLookup {
        let recalling = self.door.left.borrow_mut().looking.take();
        let recalling = recalling.unwrap_or_else(|| self.inner.recalling());
        NativeLookup::new(&self.inner, self.inner.recalled(recalling))
    }

    /// The function that takes the strings of the next `set`.
    #[napi(catch_unwind)]
    pub fn pusher<'env>(&self, env: &'env Env) -> Result<Pusher<'env>> {
        let door = Rc::clone(&self.door);
        env.create_function_from_closure("push", move |call| {
            let pushed = &mut door.left.borrow_mut().pushed;
            pushed.read(&call, 0, call.length()).inspect_err(|_| pushed.clear())
        })
    }

    /// Sets entries: keys, contents and metadata in turn were pushed before; `dimensions` values for each in `data`; in
    /// `settings`, how many ms each lives, where that is a number, and of which kind it is. `began`:
    /// when the work on all of them did, as `now` told. They are set when this returns; a promise says when more can be.
    #[napi(catch_unwind)]
    pub fn set<'env>(
        &self,
        env: &'env Env,
        data: &[f32],
        settings: &[f64],
        began: Option<f64>,
    ) -> Result<Either<(), PromiseRaw<'env, ()>>> {
        let strings = std::mem::take(&mut self.door.left.borrow_mut().pushed);
        let validate = self.inner.options().validate_content;
        let groups = strings.groups();
        let dimensions = data.len() / groups.len().max(1);
        let notes: Vec<_> = strings.groups().map(|[key, _, metadata]| to_note(key, metadata)).collect();
        let age = began.map(|began| self.inner.age(began as u64));
        let settings = settings.as_chunks().0;
        let drafts =
            groups.zip(&notes).zip(settings).enumerate().map(|(at, (([key, content, _], note), [ms, kind]))| {
                let vector = data.get(at * dimensions..(at + 1) * dimensions).unwrap_or_default();
                let lives = || Duration::try_from_secs_f64(ms / 1e3).unwrap_or(Duration::MAX);
                let ttl = (!ms.is_nan()).then(lives);
                let names = self.door.names(*kind as Kind);
                let probe = names.probe(key, validate.then_some(content));
                (names.space(), probe, Draft { vector: Some(vector), note, kind: "", ttl, age })
            });
        self.inner.commit_in_spaces(drafts).map_err(to_js)?;
        if self.inner.has_room() {
            return Ok(Either::A(()));
        }
        let cache = Arc::clone(&self.inner);
        blocking(env, move || {
            cache.await_room();
            Ok(())
        })
        .map(Either::B)
    }

    /// See `EmbeddingCache::contains`.
    #[napi(catch_unwind)]
    pub fn has<'env>(
        &self,
        env: &'env Env,
        kind: u32,
        key: Text,
        content: Option<Text>,
    ) -> Result<Either<bool, PromiseRaw<'env, bool>>> {
        let (cache, names) = (Arc::clone(&self.inner), self.door.names(kind).clone());
        self.at_once_or_blocking(env, move || {
            cache.contains(names.probe(&key.0, content.as_ref().map(|content| &content.0[..])))
        })
    }

    /// See `EmbeddingCache::delete`. It is gone when this returns; a promise says when the file knows.
    #[napi(catch_unwind)]
    pub fn delete<'env>(&self, env: &'env Env, kind: u32, key: Text) -> Result<Either<bool, PromiseRaw<'env, bool>>> {
        let deletion = self.inner.begin_delete(self.door.names(kind).probe(&key.0, None));
        if let Some(count) = deletion.done() {
            return Ok(Either::A(count > 0));
        }
        let cache = Arc::clone(&self.inner);
        blocking(env, move || cache.resolve(deletion).map(|count| count > 0).map_err(to_js)).map(Either::B)
    }

    /// Deletes everything of these modalities in this namespace and model. See `delete`.
    #[napi(catch_unwind)]
    pub fn clear<'env>(&self, env: &'env Env, modalities: Vec<u32>) -> Result<Either<(), PromiseRaw<'env, ()>>> {
        let begin = |space: &Space| self.inner.begin_delete_all(Selection::default().of(space.id()));
        let deletions: Vec<_> = self.spaces(&modalities).iter().map(begin).collect();
        if deletions.iter().all(|deletion| deletion.done().is_some()) {
            return Ok(Either::A(()));
        }
        let cache = Arc::clone(&self.inner);
        let resolve = move || deletions.into_iter().try_for_each(|deletion| cache.resolve(deletion).map(drop));
        blocking(env, move || resolve().map_err(to_js)).map(Either::B)
    }

    /// See `EmbeddingCache::nearest_in`.
    #[napi(catch_unwind)]
    pub fn nearest<'env>(
        &self,
        env: &'env Env,
        query: &[f32],
        threshold: f64,
        limit: u32,
        modalities: Vec<u32>,
    ) -> Result<PromiseRaw<'env, NativeNearest>> {
        let (cache, spaces, query) = (Arc::clone(&self.inner), self.spaces(&modalities), query.to_vec());
        let own = modalities.len();
        blocking(env, move || {
            let nearest = cache.nearest_in(&spaces, &query, threshold as f32, limit as usize).map_err(to_js)?;
            Ok(NativeNearest::new(nearest, &spaces, own))
        })
    }

    /// Whether this process is the one that computes the value of a key: see `EmbeddingCache::acquire`.
    #[napi(catch_unwind)]
    pub fn acquire<'env>(
        &self,
        env: &'env Env,
        kind: u32,
        key: Text,
        lifetime_ms: u32,
    ) -> Result<PromiseRaw<'env, bool>> {
        let key = self.door.names(kind).key(&key.0);
        let cache = Arc::clone(&self.inner);
        let lifetime = Duration::from_millis(lifetime_ms.into());
        blocking(env, move || Ok(cache.acquire(&[key], lifetime).first().copied().unwrap_or(true)))
    }

    /// See `EmbeddingCache::release`.
    #[napi(catch_unwind)]
    pub fn release(&self, kind: u32, key: Text) {
        let key = self.door.names(kind).key(&key.0);
        self.inner.release(vec![key]);
    }

    /// See `EmbeddingCache::optimize`. What it did, as JSON.
    #[napi(catch_unwind)]
    pub fn optimize<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, String>> {
        let cache = Arc::clone(&self.inner);
        blocking(env, move || Ok(report::optimized(&cache.optimize(OPTIMIZE_BUDGET))))
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
        self.inner.begin_close();
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
        report::stats(&self.inner.stats())
    }

    /// How many left memory because their time was over, they were deleted, replaced, or for want of space.
    #[napi(catch_unwind)]
    pub fn evicted(&self) -> Vec<f64> {
        self.inner.evicted().map(|entries| entries as f64).to_vec()
    }

    /// Rounds values as the cache would keep them.
    #[napi(catch_unwind)]
    pub fn round(&self, mut values: Float32ArraySlice) {
        // SAFETY: JavaScript waits for this call, and `lib/cache/` passes an array of its own.
        let values = unsafe { values.as_mut() };
        Vector::pack(values, self.inner.options().precision).copy_to(values);
    }

    /// The time for `began`.
    #[napi(catch_unwind)]
    pub fn now(&self) -> f64 {
        self.inner.steady_us() as f64
    }

    /// See `EmbeddingCache::reject`.
    #[napi(catch_unwind)]
    pub fn reject(&self, reason: String) {
        self.inner.reject(1, &reason);
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
        if !self.inner.may_wait() {
            return Ok(Either::A(work()));
        }
        blocking(env, move || Ok(work())).map(Either::B)
    }
}

/// Writes to `out` what stands for bytes as a content. See `digest_of_bytes`.
#[napi(catch_unwind)]
pub fn digest_bytes(bytes: &[u8], mut out: Uint8ArraySlice) {
    let digest = digest_of_bytes(bytes);
    // SAFETY: JavaScript waits for this call, and `lib/cache/` passes an array of its own.
    let out = unsafe { out.as_mut() };
    if out.len() == digest.len() {
        out.copy_from_slice(&digest);
    }
}

/// The same for as many as would hold the event loop up: they are copied before this returns, and hashed on another thread.
#[napi(catch_unwind)]
pub fn digest_many_bytes<'env>(env: &'env Env, bytes: &[u8]) -> Result<PromiseRaw<'env, Uint8Array>> {
    let bytes = bytes.to_vec();
    blocking(env, move || Ok(digest_of_bytes(&bytes).to_vec().into()))
}

/// What is written and closed at the end of a process or worker.
pub(super) trait Ends {
    /// Begins to write what is queued.
    fn begin(&self);
    /// Waits until that is done, within limits.
    fn end(&self);
}

impl Ends for EmbeddingCache {
    fn begin(&self) {
        self.begin_close();
    }

    fn end(&self) {
        self.close();
    }
}

/// The end of a process or worker that nobody forces is an end in order: what is queued is written. All begin with that
/// before one is waited for: if other programs hold their files, they wait at the same time.
pub(super) fn ends_with(env: &Env, ending: Weak<dyn Ends>) -> Result<()> {
    thread_local! {
        static OPEN: RefCell<Vec<Weak<dyn Ends>>> = RefCell::default();
    }
    OPEN.with_borrow_mut(|open| {
        open.retain(|ending| ending.strong_count() > 0);
        open.push(Weak::clone(&ending));
    });
    env.add_env_cleanup_hook(ending, |ending| {
        OPEN.take().iter().filter_map(Weak::upgrade).for_each(|ending| ending.begin());
        if let Some(ending) = ending.upgrade() {
            ending.end();
        }
    })?;
    Ok(())
}

/// Does what may wait on a thread that may. That thread itself says that it is done: each further one would have to wake
/// up first.
pub(super) fn blocking<'env, T: Send + ToNapiValue + 'static>(
    env: &'env Env,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<PromiseRaw<'env, T>> {
    let (deferred, promise) = env.create_deferred()?;
    let work = move |thread: crate::error::Result<()>| {
        // Out of here, a panic would leave the promise open for ever.
        match catch_unwind(AssertUnwindSafe(|| thread.map_err(to_js).and_then(|()| work()))) {
            Ok(Ok(done)) => deferred.resolve(move |_| Ok(done)),
            Ok(Err(error)) => deferred.reject(error),
            Err(_) => deferred.reject(to_js(Error::Internal("the cache panicked".to_owned()))),
        }
    };
    within_runtime_if_available(|| begin_blocking(work));
    Ok(PromiseRaw::new(env.raw(), promise.raw()))
}
