//! What a generator need not compute: texts that are in the cache, and texts that another call computes right now.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rayon::prelude::*;

use super::pairs::Pairs;
use crate::cache::{Draft, EmbeddingCache, Entry, Joined, Leader, Probe, SingleFlight, Waiter};
use crate::cancel::Cancel;
use crate::embedding::{Fingerprint, InputType, Key, Modality, Space, SparseVector, Task, Value};
use crate::error::{Error, Result};
use crate::model::ModelInfo;
use crate::text::{self, Annotation, Prepared};

/// Longest name of an entry, in bytes: beyond, only its beginning is kept.
const MOST_NAME: usize = 256;

/// Texts that are looked up between two checks whether the call was stopped.
const WINDOW: usize = 1024;

/// Keys that are made one after the other.
const FEW: usize = 64;

/// What a model has made of an input, with what results say about the input.
#[derive(Debug, Clone)]
pub struct Known {
    /// What it has made of it.
    pub value: Values,
    /// The rest.
    pub about: About,
}

/// What a model has made of an input, where it is.
#[derive(Debug, Clone)]
pub enum Values {
    /// Computed for a call, or made of what the cache has.
    Computed(Value),
    /// A vector, in the cache.
    Kept(Arc<Entry>),
}

impl Values {
    /// Writes a vector to `out`, which is as long.
    pub fn copy_to(&self, out: &mut [f32]) {
        match self {
            Self::Computed(value) => out.copy_from_slice(value.numbers()),
            Self::Kept(entry) => entry.vector.copy_to(out),
        }
    }

    /// All its numbers.
    pub fn get(&self) -> Cow<'_, [f32]> {
        match self {
            Self::Computed(value) => Cow::Borrowed(value.numbers()),
            Self::Kept(entry) => Cow::Owned(entry.vector.to_vec()),
        }
    }

    /// What is not a vector in the cache.
    pub fn made(&self) -> Option<&Value> {
        match self {
            Self::Computed(value) => Some(value),
            Self::Kept(_) => None,
        }
    }
}

/// What results say about a text beside its vector.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct About {
    /// Tokens of the whole text; 0 where nobody knows.
    pub token_count: usize,
    /// By the tokenizer.
    pub truncated: bool,
    /// Share of its tokens that the model saw and knew.
    pub confidence: f64,
}

impl About {
    const BYTES: usize = 17;

    /// With the name of the entry behind it.
    fn to_note(self, name: &str) -> Vec<u8> {
        let name = &name.as_bytes()[..name.floor_char_boundary(MOST_NAME)];
        let mut note = Vec::with_capacity(Self::BYTES + name.len());
        note.extend((self.token_count as u64).to_le_bytes());
        note.push(u8::from(self.truncated));
        note.extend(self.confidence.to_le_bytes());
        note.extend(name);
        note
    }

    /// What a note begins with, and the rest of it.
    pub(super) fn from_note(note: &[u8]) -> Option<(Self, &[u8])> {
        let (count, rest) = note.split_first_chunk()?;
        let (truncated, rest) = rest.split_first()?;
        let (confidence, rest) = rest.split_first_chunk()?;
        let about = Self {
            token_count: u64::from_le_bytes(*count) as usize,
            truncated: *truncated != 0,
            confidence: f64::from_le_bytes(*confidence),
        };
        Some((about, rest))
    }
}

/// What kind of values a model has.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// What it is for.
    pub task: Task,
    /// How many values a vector has.
    pub dimensions: usize,
}

impl Shape {
    /// That of a model's values.
    pub(super) fn of(info: &ModelInfo) -> Self {
        Self { task: info.task, dimensions: info.dimensions.max(1) }
    }

    /// Adds a value to a note. A vector is none of it: the cache keeps those as what they are, to be searched.
    pub(super) fn write(self, value: &Value, note: &mut Vec<u8>) {
        if self.task == Task::Embedding {
            return;
        }
        if let Value::Sparse(vector) = value {
            note.extend(vector.indices.iter().flat_map(|index| index.to_le_bytes()));
        }
        note.extend(value.numbers().iter().flat_map(|number| number.to_le_bytes()));
    }

    /// What [`Shape::write`] has added; `None` for anything else.
    pub(super) fn read(self, note: &[u8]) -> Option<Value> {
        let words = || note.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let numbers = |skip: usize| -> Option<Vec<f32>> {
            words().skip(skip).map(f32::from_bits).map(|number| number.is_finite().then_some(number)).collect()
        };
        let (count, whole) = (note.len() / 4, note.len().is_multiple_of(4));
        match self.task {
            Task::Reranking if whole && count == self.dimensions => numbers(0).map(Value::Dense),
            Task::MultiVector if whole && count.is_multiple_of(self.dimensions) => numbers(0).map(Value::Tokens),
            Task::Sparse if whole && count.is_multiple_of(2) => {
                let indices: Vec<u32> = words().take(count / 2).collect();
                let ascending = indices.is_sorted_by(|one, next| one < next);
                let values = numbers(count / 2).filter(|_| ascending)?;
                Some(Value::Sparse(SparseVector { indices, values }))
            }
            _ => None,
        }
    }
}

/// What an entry of a generator is called: the id of its annotation, the path of its image, or else its text, of which the
/// beginning is kept.
pub fn name_of(note: &[u8]) -> &[u8] {
    note.get(About::BYTES..).unwrap_or_default()
}

/// A vector on its way into the cache.
pub struct Kept {
    /// Its key.
    pub key: Key,
    /// What is kept.
    pub known: Arc<Known>,
    /// See [`name_of`].
    pub name: String,
}

/// A cache as generators use it: each model has a part of its own in it, which is known from then on to those who ask the
/// cache and no generator, however long that lives.
pub struct GeneratorCache {
    cache: Arc<EmbeddingCache>,
    /// What else tells the entries of its generators apart, such as a namespace.
    within: Space,
    /// The latest one last.
    models: Mutex<Vec<Arc<Writer>>>,
}

/// A model that has a part of a cache, and how it reads annotations.
pub struct Writer {
    model_id: String,
    max_chars: usize,
    part: Arc<ModelCache>,
}

/// What a generator has kept for an annotation.
pub struct Remembered {
    /// The vector, and what is said of the text.
    pub known: Known,
    /// The text that was embedded, and whether something was cut off before.
    pub prepared: Prepared,
    /// The model, as its user named it.
    pub model_id: String,
}

impl GeneratorCache {
    /// `within`: see there.
    pub fn new(cache: Arc<EmbeddingCache>, within: Space) -> Self {
        Self { cache, within, models: Mutex::default() }
    }

    /// The cache itself.
    pub fn cache(&self) -> &Arc<EmbeddingCache> {
        &self.cache
    }

    /// Whether a model has a part of it.
    pub fn has_models(&self) -> bool {
        !self.models.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The part of a model, known from now on where it makes embeddings; `max_chars`: what it reads of an annotation.
    pub(super) fn part_of(&self, info: &ModelInfo, max_chars: usize) -> Arc<ModelCache> {
        let (cache, fingerprint) = (Arc::clone(&self.cache), &info.fingerprint);
        let part = Arc::new(ModelCache::new(cache, &self.within, fingerprint, info.modality, Shape::of(info)));
        if info.task != Task::Embedding {
            return part;
        }
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.retain(|known| known.part.space.id() != part.space.id());
        models.push(Arc::new(Writer { model_id: info.model_id.clone(), max_chars, part: Arc::clone(&part) }));
        part
    }

    fn writers(&self) -> Vec<Arc<Writer>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().map(Arc::clone).collect()
    }

    /// The parts of all models that read what `modality` says, the latest first.
    pub fn spaces(&self, modality: Modality) -> Vec<Space> {
        let of = |writer: &Arc<Writer>| (writer.part.space.modality() == modality).then(|| writer.part.space.clone());
        self.writers().iter().filter_map(of).collect()
    }

    /// The keys of an annotation, one for each model that reads texts, the latest first.
    pub fn keys_of(&self, annotation: &Annotation) -> Vec<Key> {
        self.addressed(annotation).into_iter().map(|(_, _, key)| key).collect()
    }

    fn addressed(&self, annotation: &Annotation) -> Vec<(Arc<Writer>, Prepared, Key)> {
        let readers = self.writers().into_iter().filter(|writer| writer.part.space.modality() == Modality::Text);
        let address = |writer: Arc<Writer>| {
            let prepared = text::prepare(annotation, writer.max_chars);
            let key = writer.part.key(&prepared.text, InputType::Document);
            (writer, prepared, key)
        };
        readers.map(address).collect()
    }

    /// Whether a generator has kept a vector for an annotation. In no statistics. Blocks for as long as the disk takes.
    pub fn holds(&self, annotation: &Annotation) -> bool {
        self.keys_of(annotation).into_iter().any(|key| self.cache.contains(key))
    }

    /// What the latest model has kept for an annotation, or else an earlier one. A miss is not counted. Blocks for as long as
    /// the disk takes.
    pub fn recall(&self, annotation: &Annotation) -> Result<Option<Remembered>> {
        for (writer, prepared, key) in self.addressed(annotation) {
            if !self.cache.contains(key) {
                continue;
            }
            if let Some(known) = writer.part.recall(&[key], &Cancel::default())?.pop().flatten() {
                return Ok(Some(Remembered { known, prepared, model_id: writer.model_id.clone() }));
            }
        }
        Ok(None)
    }
}

/// The computation of one text that others may wait for.
pub(super) type TextLeader = Leader<Key, Arc<Known>, Error>;

/// A computation that another call has under way.
pub(super) type TextWaiter = Waiter<Arc<Known>, Error>;

/// The cache as one model uses it: whoever knows the model's fingerprint finds what its generators have computed.
pub struct ModelCache {
    cache: Arc<EmbeddingCache>,
    space: Space,
    shape: Shape,
    single_flight: SingleFlight<Key, Arc<Known>, Error>,
}

impl ModelCache {
    /// `within`: what else tells the entries of this generator apart, such as a namespace. `modality`: what the model reads.
    pub fn new(
        cache: Arc<EmbeddingCache>,
        within: &Space,
        fingerprint: &Fingerprint,
        modality: Modality,
        shape: Shape,
    ) -> Self {
        let space = within.inner().field("generator", fingerprint.as_bytes());
        let space: Space = match shape.task {
            Task::Embedding => space.finish(),
            task => space.field("task", task.as_str()).finish(),
        };
        let space = space.of(modality);
        Self { cache, space, shape, single_flight: SingleFlight::default() }
    }

    /// The keys of texts: the embedding space, the role and the text itself.
    pub fn keys(&self, texts: &[String], input_type: InputType) -> Vec<Key> {
        let begun = self.space.key().field("role", input_type.as_str());
        let key = |text: &String| begun.clone().field("text", text).finish();
        // A few are no work for several threads, and may be asked for outside of those that share such work.
        if texts.len() <= FEW {
            texts.iter().map(key).collect()
        } else {
            texts.par_iter().with_min_len(FEW).map(key).collect()
        }
    }

    fn key(&self, text: &str, input_type: InputType) -> Key {
        self.space.key().field("role", input_type.as_str()).field("text", text).finish()
    }

    /// The keys of the pairs of texts at `first`.
    pub(super) fn keys_of_pairs(&self, pairs: &Pairs, first: &[usize]) -> Vec<Key> {
        let begun = self.space.key().field("role", "pair");
        let (places, hashes) = (pairs.places(), pairs.hashes());
        let key = |&index: &usize| {
            let [query, document] = places[index].map(|place| hashes[place]);
            begun.clone().field("query", query).field("text", document).finish()
        };
        first.par_iter().with_min_len(FEW).map(key).collect()
    }

    /// The key of an image, by the hash of its content.
    pub fn key_of_image(&self, hash: &[u8; 32]) -> Key {
        self.space.key().field("image", hash).finish()
    }

    /// The key of the input at `index` that cannot be embedded, and is nowhere.
    pub fn key_of_none(&self, index: usize) -> Key {
        self.space.key().field("unreadable", (index as u64).to_le_bytes()).finish()
    }

    fn probe(&self, key: Key) -> Probe<'static> {
        Probe::from(key).of(self.space.modality()).fixed()
    }

    /// What the cache knows, in the order of `keys`. Blocks for as long as the disk takes.
    pub fn recall(&self, keys: &[Key], cancel: &Cancel) -> Result<Vec<Option<Known>>> {
        let mut found = Vec::with_capacity(keys.len());
        for window in keys.chunks(WINDOW) {
            cancel.check()?;
            let entries = self.cache.lookup_many(window.iter().map(|key| self.probe(*key)));
            found.extend(entries.into_iter().map(|entry| entry.and_then(|entry| self.known(entry))));
        }
        Ok(found)
    }

    /// Whether looking into it never waits for anything.
    pub(super) fn is_memory(&self) -> bool {
        self.cache.is_memory()
    }

    /// Whether other processes may have the same cache.
    pub(super) fn is_shared(&self) -> bool {
        self.cache.has_leases()
    }

    /// Takes the leases on `keys` that are free, or renews them. Blocks for as long as the disk takes.
    pub(super) fn lease(&self, keys: &[Key], lifetime: Duration) -> Vec<bool> {
        self.cache.acquire(keys, lifetime)
    }

    /// Gives leases back, after what was committed before.
    pub(super) fn release(&self, keys: Vec<Key>) {
        self.cache.release(keys);
    }

    /// Whether the cache knows any of `keys`. In no statistics. Blocks for as long as the disk takes.
    pub(super) fn holds_any(&self, keys: &[Key]) -> bool {
        self.cache.glance_many(keys.iter().copied()).iter().any(Option::is_some)
    }

    /// [`ModelCache::recall`] for what other processes may have computed meanwhile: only what there is, and no misses.
    pub(super) fn recall_held(&self, wanted: &[(usize, Key)], cancel: &Cancel) -> Result<Vec<(usize, Known)>> {
        let there = self.cache.glance_many(wanted.iter().map(|(_, key)| *key));
        let held: Vec<(usize, Key)> =
            wanted.iter().zip(there).filter(|(_, entry)| entry.is_some()).map(|(wanted, _)| *wanted).collect();
        let keys: Vec<Key> = held.iter().map(|(_, key)| *key).collect();
        let found = held.iter().zip(self.recall(&keys, cancel)?);
        Ok(found.filter_map(|((slot, _), known)| Some((*slot, known?))).collect())
    }

    /// Makes the computation of `key` this call's own, or joins the one that is under way. In the first case another
    /// call may have finished between the lookup and now: then its outcome comes with it.
    pub(super) fn join(&self, key: Key) -> (Joined<Key, Arc<Known>, Error>, Option<Known>) {
        let joined = self.single_flight.join(key);
        let landed = match joined {
            Joined::Lead(_) => self.cache.peek(key).and_then(|entry| self.known(entry)),
            Joined::Wait(_) => None,
        };
        (joined, landed)
    }

    /// Remembers what a batch has computed. A cache that cannot is no reason to fail.
    pub(super) async fn commit(self: &Arc<Self>, batch: Vec<Kept>) {
        self.put(&batch);
        if !self.cache.has_room() {
            let cache = Arc::clone(&self.cache);
            drop(super::blocking(move || cache.await_room()).await);
        }
    }

    /// Remembers what somebody else has computed. Waits for the disk.
    ///
    /// # Errors
    /// See [`EmbeddingCache::commit_at_once`].
    pub fn keep(&self, batch: &[Kept]) -> Result<()> {
        self.try_put(batch)?;
        self.cache.await_room();
        Ok(())
    }

    fn put(&self, batch: &[Kept]) {
        if let Err(error) = self.try_put(batch)
            && !self.cache.is_closed()
        {
            self.cache.reject(batch.len(), &error.to_string());
        }
    }

    fn try_put(&self, batch: &[Kept]) -> Result<()> {
        let notes: Vec<Vec<u8>> = batch.iter().map(|kept| self.note(kept)).collect();
        let numbers: Vec<Cow<[f32]>> = batch.iter().map(|kept| kept.known.value.get()).collect();
        let drafts = batch.iter().zip(&numbers).zip(&notes).map(|((kept, numbers), note)| {
            let (vector, kind) = match self.shape.task {
                Task::Embedding => (Some(&numbers[..]), ""),
                task => (None, task.as_str()),
            };
            (self.probe(kept.key), Draft { vector, note, kind, ..Draft::default() })
        });
        self.cache.commit_at_once(&self.space, drafts)
    }

    /// What is kept beside a vector; of a model that makes something else, all of it.
    fn note(&self, Kept { known, name, .. }: &Kept) -> Vec<u8> {
        match (self.shape.task, known.value.made()) {
            (Task::Embedding, _) | (_, None) => known.about.to_note(name),
            (_, Some(value)) => {
                let mut note = known.about.to_note("");
                self.shape.write(value, &mut note);
                note
            }
        }
    }

    /// An entry that is not what this generator writes is a miss.
    fn known(&self, entry: Arc<Entry>) -> Option<Known> {
        let (about, rest) = About::from_note(&entry.note)?;
        let value = match self.shape.task {
            Task::Embedding => {
                let whole = entry.vector.len() == self.shape.dimensions;
                whole.then_some(Values::Kept(entry))?
            }
            _ => Values::Computed(self.shape.read(rest)?),
        };
        Some(Known { value, about })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_about_a_text_survives_storage() {
        let about = About { token_count: 70_000, truncated: true, confidence: 0.25 };
        let note = about.to_note("a name");
        assert_eq!((About::from_note(&note), name_of(&note)), (Some((about, &b"a name"[..])), &b"a name"[..]));
        for end in 0..About::BYTES {
            assert_eq!((About::from_note(&note[..end]), name_of(&note[..end])), (None, &b""[..]));
        }
        assert_eq!(name_of(&about.to_note(&"é".repeat(MOST_NAME))), "é".repeat(MOST_NAME / 2).as_bytes());
    }

    #[test]
    fn values_survive_storage_and_are_never_read_as_another_kind() {
        let shape = |task| Shape { task, dimensions: 3 };
        let sparse = SparseVector { indices: vec![3, 9], values: vec![0.5, 2.0] };
        let values = [
            (Task::Reranking, Value::Dense(vec![1.0, -2.0, 0.5])),
            (Task::Sparse, Value::Sparse(sparse)),
            (Task::Sparse, Value::Sparse(SparseVector::default())),
            (Task::MultiVector, Value::Tokens(vec![1.0; 6])),
        ];
        for (task, value) in values {
            let mut note = Vec::new();
            shape(task).write(&value, &mut note);
            assert_eq!(shape(task).read(&note), Some(value));
            note.push(0);
            assert_eq!(shape(task).read(&note), None);
            assert_eq!(shape(Task::Embedding).read(&note), None);
        }
        let descending = [9u32, 3, 0, 0].map(u32::to_le_bytes).concat();
        assert_eq!(shape(Task::Sparse).read(&descending), None);
    }
}
