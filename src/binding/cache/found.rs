//! What lookups have found, and how it gets to JavaScript: copied into arrays that were made there.

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::bindgen_prelude::{Float32ArraySlice, PromiseRaw, Uint8ArraySlice};
use napi::{Env, Result, Task};
use napi_derive::napi;

use super::{Text, blocking, to_js};
use crate::cache::{EmbeddingCache, Entry, InlineReads, Near, Open, Recall};
use crate::embedding::{Modality, Space};
use crate::error::Error;
use crate::generator::name_of;

/// What is kept beside a vector: the key as the user wrote it, and JSON.
pub fn to_note(key: &[u8], metadata: &[u8]) -> Vec<u8> {
    [&(key.len() as u32).to_le_bytes(), key, metadata].concat()
}

pub fn from_note(note: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = note.split_first_chunk() else { return (&[], &[]) };
    rest.split_at_checked(u32::from_le_bytes(*length) as usize).unwrap_or_default()
}

fn metadata(entry: &Entry) -> Option<String> {
    let (_, metadata) = from_note(&entry.note);
    (!metadata.is_empty()).then(|| String::from_utf8_lossy(metadata).into_owned())
}

/// A look into the file for one key. On a thread of libuv: some microseconds of work are not worth the way to a thread
/// of the runtime and back.
pub struct Settle {
    cache: Arc<EmbeddingCache>,
    open: Option<Open>,
    inline_reads: Arc<Mutex<InlineReads>>,
}

impl Settle {
    pub fn new(cache: &Arc<EmbeddingCache>, open: Option<Open>, inline_reads: &Arc<Mutex<InlineReads>>) -> Self {
        lock(inline_reads).sent();
        Self { cache: Arc::clone(cache), open, inline_reads: Arc::clone(inline_reads) }
    }
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
        Ok(found.map(NativeEntry::new))
    }

    fn finally(self, _: Env) -> Result<()> {
        lock(&self.inline_reads).returned();
        Ok(())
    }
}

/// One entry that was found.
#[napi]
pub struct NativeEntry {
    entry: Arc<Entry>,
}

impl NativeEntry {
    pub fn new(entry: Arc<Entry>) -> Self {
        Self { entry }
    }
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

/// The entries that are near, the nearest first. One object for all of them: each costs as much as a search among
/// thousands.
#[napi]
pub struct NativeNearest {
    nearest: Vec<Near>,
    /// Of each, its modality and whether a generator has kept it.
    kinds: Vec<(Modality, bool)>,
}

impl NativeNearest {
    /// What was found in `spaces`, of which all but the first `own` are those of generators.
    pub fn new(nearest: Vec<Near>, spaces: &[Space], own: usize) -> Self {
        let kind = |near: &Near| {
            let at = spaces.iter().position(|space| space.id() == near.entry.space);
            at.map(|at| (spaces[at].modality(), at >= own)).unwrap_or_default()
        };
        let kinds = nearest.iter().map(kind).collect();
        Self { nearest, kinds }
    }
}

#[napi]
impl NativeNearest {
    /// Their cosines.
    #[napi(catch_unwind)]
    pub fn similarities(&self) -> Vec<f64> {
        self.nearest.iter().map(|near| near.similarity.into()).collect()
    }

    /// What each was made from.
    #[napi(catch_unwind)]
    pub fn modalities(&self) -> Vec<&'static str> {
        self.kinds.iter().map(|(modality, _)| modality.as_str()).collect()
    }

    /// The key of each, as the user wrote it, and its metadata as JSON, empty where there is none; in turn.
    #[napi(catch_unwind)]
    pub fn texts(&self) -> Vec<Text> {
        let both = self.nearest.iter().zip(&self.kinds);
        let texts = both.flat_map(|(near, (_, generated))| match generated {
            true => [name_of(&near.entry.note), &[]],
            false => from_note(&near.entry.note).into(),
        });
        texts.map(|text| Text(text.to_vec())).collect()
    }

    /// Writes the vector of one to `out`, which is as long as the query.
    #[napi(catch_unwind)]
    pub fn copy_to(&self, at: u32, mut out: Float32ArraySlice) {
        let out = writable(&mut out);
        if let Some(near) = self.nearest.get(at as usize)
            && near.entry.vector.len() == out.len()
        {
            near.entry.vector.copy_to(out);
        }
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

impl NativeLookup {
    pub fn new(cache: &Arc<EmbeddingCache>, recall: Recall) -> Self {
        let state = match recall {
            Recall::Done(answers) => Looked::Done(answers),
            Recall::AskDisk(open) => Looked::Open(open),
        };
        Self { cache: Arc::clone(cache), state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, Looked> {
        lock(&self.state)
    }
}

impl Drop for NativeLookup {
    /// V8 lets go of lookups long after they were answered: their entries' counters of references are no longer in the
    /// processor's caches. Reading all of them first has them wait for the main memory at the same time.
    fn drop(&mut self) {
        if let Looked::Done(answers) = &*self.state() {
            black_box(answers.iter().flatten().map(Arc::strong_count).fold(0, usize::wrapping_add));
        }
    }
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
            *lock(&state) = settled;
            Ok(())
        })
    }

    /// Length of the vectors that were found; 0 if there are none.
    #[napi(getter, catch_unwind)]
    pub fn dimensions(&self) -> u32 {
        match &*self.state() {
            Looked::Done(answers) => longest(answers) as u32,
            _ => 0,
        }
    }

    /// Writes to `hits` a 1 for each that was found, and has a row of this length.
    #[napi(catch_unwind)]
    pub fn hits(&self, mut hits: Uint8ArraySlice) {
        // SAFETY: see `writable`.
        let hits = unsafe { hits.as_mut() };
        if let Looked::Done(answers) = &*self.state() {
            let dimensions = longest(answers);
            let is_hit =
                |answer: &Option<Arc<Entry>>| answer.as_ref().is_some_and(|entry| entry.vector.len() == dimensions);
            hits.iter_mut().zip(answers).for_each(|(hit, answer)| *hit = u8::from(is_hit(answer)));
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
}

/// Another process may have gone over to vectors of another length: then some of before are still in memory.
fn longest(answers: &[Option<Arc<Entry>>]) -> usize {
    answers.iter().flatten().map(|entry| entry.vector.len()).max().unwrap_or(0)
}

/// The values behind an array that JavaScript has passed, to be written.
fn writable<'a>(array: &'a mut Float32ArraySlice) -> &'a mut [f32] {
    // SAFETY: JavaScript waits for this call, and `lib/cache/` passes arrays of its own that no worker shares.
    unsafe { array.as_mut() }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
