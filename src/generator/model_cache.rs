//! What a generator need not compute: texts that are in the cache, and texts that another call computes right now.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;

use crate::cache::{Draft, EmbeddingCache, Entry, Joined, Leader, Probe, SingleFlight, Waiter};
use crate::cancel::Cancel;
use crate::embedding::{Fingerprint, InputType, Key, Modality, Space};
use crate::error::{Error, Result};

/// Texts that are looked up between two checks whether the call was stopped.
const WINDOW: usize = 1024;

/// A text's vector, with what results say about the text.
#[derive(Debug, Clone)]
pub struct Known {
    /// The vector.
    pub vector: Values,
    /// The rest.
    pub about: About,
}

/// The values of a vector, where they are.
#[derive(Debug, Clone)]
pub enum Values {
    /// Computed for a call.
    Computed(Vec<f32>),
    /// In the cache.
    Kept(Arc<Entry>),
}

impl Values {
    /// Writes them to `out`, which is as long.
    pub fn copy_to(&self, out: &mut [f32]) {
        match self {
            Self::Computed(values) => out.copy_from_slice(values),
            Self::Kept(entry) => entry.vector.copy_to(out),
        }
    }

    /// The values.
    pub fn get(&self) -> Cow<'_, [f32]> {
        match self {
            Self::Computed(values) => Cow::Borrowed(values),
            Self::Kept(entry) => Cow::Owned(entry.vector.to_vec()),
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

    fn to_note(self) -> [u8; Self::BYTES] {
        let mut note = [0; Self::BYTES];
        note[..8].copy_from_slice(&(self.token_count as u64).to_le_bytes());
        note[8] = u8::from(self.truncated);
        note[9..].copy_from_slice(&self.confidence.to_le_bytes());
        note
    }

    fn from_note(note: &[u8]) -> Option<Self> {
        let (count, rest) = note.split_first_chunk()?;
        let (truncated, rest) = rest.split_first()?;
        Some(Self {
            token_count: u64::from_le_bytes(*count) as usize,
            truncated: *truncated != 0,
            confidence: f64::from_le_bytes(rest.try_into().ok()?),
        })
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
    dimensions: usize,
    single_flight: SingleFlight<Key, Arc<Known>, Error>,
}

impl ModelCache {
    /// `within`: what else tells the entries of this generator apart, such as a namespace. `modality`: what the model reads.
    pub fn new(
        cache: Arc<EmbeddingCache>,
        within: &Space,
        fingerprint: &Fingerprint,
        modality: Modality,
        dimensions: usize,
    ) -> Self {
        let space: Space = within.inner().field("generator", fingerprint.as_bytes()).finish();
        let space = space.of(modality);
        Self { cache, space, dimensions, single_flight: SingleFlight::default() }
    }

    /// The keys of the texts at `first`: the embedding space, the role and the text itself.
    pub fn keys(&self, texts: &[String], first: &[usize], input_type: InputType) -> Vec<Key> {
        let begun = self.space.key().field("role", input_type.as_str());
        first.par_iter().with_min_len(64).map(|&index| begun.clone().field("text", &texts[index]).finish()).collect()
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
        Probe::from(key).of(self.space.modality())
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
        keys.iter().any(|key| self.cache.contains(*key))
    }

    /// [`ModelCache::recall`] for what other processes may have computed meanwhile: only what there is, and no misses.
    pub(super) fn recall_held(&self, wanted: &[(usize, Key)], cancel: &Cancel) -> Result<Vec<(usize, Known)>> {
        let held: Vec<(usize, Key)> = wanted.iter().filter(|(_, key)| self.cache.contains(*key)).copied().collect();
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
    pub(super) async fn commit(self: &Arc<Self>, batch: Vec<(Key, Arc<Known>)>) {
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
    pub fn keep(&self, batch: &[(Key, Arc<Known>)]) -> Result<()> {
        self.try_put(batch)?;
        self.cache.await_room();
        Ok(())
    }

    fn put(&self, batch: &[(Key, Arc<Known>)]) {
        if let Err(error) = self.try_put(batch)
            && !self.cache.is_closed()
        {
            self.cache.reject(batch.len(), &error.to_string());
        }
    }

    fn try_put(&self, batch: &[(Key, Arc<Known>)]) -> Result<()> {
        let notes: Vec<[u8; About::BYTES]> = batch.iter().map(|(_, known)| known.about.to_note()).collect();
        let vectors: Vec<Cow<[f32]>> = batch.iter().map(|(_, known)| known.vector.get()).collect();
        let drafts = batch.iter().zip(&vectors).zip(&notes).map(|(((key, _), vector), note)| {
            (self.probe(*key), Draft { vector: Some(vector), note, fixed: true, ..Draft::default() })
        });
        self.cache.commit_at_once(&self.space, drafts)
    }

    /// An entry that is not what this generator writes is a miss.
    fn known(&self, entry: Arc<Entry>) -> Option<Known> {
        let about = About::from_note(&entry.note)?;
        (entry.vector.len() == self.dimensions).then_some(Known { vector: Values::Kept(entry), about })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_about_a_text_survives_storage() {
        let about = About { token_count: 70_000, truncated: true, confidence: 0.25 };
        assert_eq!(About::from_note(&about.to_note()), Some(about));
        for end in 0..About::BYTES {
            assert_eq!(About::from_note(&about.to_note()[..end]), None);
        }
    }
}
