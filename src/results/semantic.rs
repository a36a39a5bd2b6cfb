//! Which result was made from a prompt that means the same.
//!
//! Vectors say which prompts are near; whether one means the same, [`gate`](super::gate) decides. Only prompts of the same
//! type, params, modality and model may answer for each other: of the same [`Scope`].

use std::time::Duration;

use super::Results;
use super::counters::Tier;
use super::gate::Question;
use super::payload::Stored;
use crate::cache::{Draft, Entry, NEVER, Near};
use crate::embedding::{Fingerprint, Key, Space};
use crate::error::{Error, Result};

/// A vector is kept with so many more values, which stand for its scope, as signs: prompts of other scopes, however many,
/// are far away from it, and leave no room among the nearest to none of its own.
const SCOPE_VALUES: usize = 64;

/// Which part of the kept vector's length these make up, squared: half of the cosine is the scope's.
const SCOPE_SHARE: f32 = 0.5;

/// Longest prompt that is found by its meaning, in bytes: no model sees more of it, and none of its vectors says what was
/// asked somewhere in a book.
pub const LONGEST_PROMPT: usize = 16 << 10;

/// What prompts must have in common to answer for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope([u8; 32]);

impl Scope {
    /// `params` are canonical JSON; `model` says where vectors come from.
    pub fn new(kind: &str, params: &[u8], modality: &str, model: &str) -> Self {
        let fields = Fingerprint::builder().field("type", kind).field("params", params);
        Self(*fields.field("modality", modality).field("model", model).finish().as_bytes())
    }

    /// The scope of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn sign(&self, at: usize) -> f32 {
        if self.0[at / 8] >> (at % 8) & 1 == 1 { 1.0 } else { -1.0 }
    }
}

/// A prompt that is looked for, or finds a result, by its meaning.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<'a> {
    /// See [`Scope`].
    pub scope: Scope,
    /// The prompt.
    pub text: &'a str,
    /// Its vector.
    pub vector: &'a [f32],
}

/// A result that was made from a prompt that means the same.
#[derive(Debug, Clone)]
pub struct NearHit {
    /// The result.
    pub stored: Stored,
    /// Cosine of the vectors of the two prompts, -1–1.
    pub similarity: f32,
    /// The prompt that the result was made from.
    pub matched: String,
}

/// The vector as it is kept: of length 1, with the scope's values.
fn placed(vector: &[f32], scope: &Scope) -> Result<Vec<f32>> {
    if let Some(at) = vector.iter().position(|value| !value.is_finite()) {
        let value = vector[at];
        return Err(Error::InvalidArgument(format!(
            "The prompt's vector has {value} at position {at}, not a finite number"
        )));
    }
    // Squares of the smallest and largest values of an f32 have room in an f64.
    let norm = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if norm == 0.0 {
        return Err(Error::InvalidArgument("The prompt's vector has no length: it is empty, or all zeros".to_owned()));
    }
    let own = f64::from(1.0 - SCOPE_SHARE).sqrt() / norm;
    let sign = (SCOPE_SHARE / SCOPE_VALUES as f32).sqrt();
    let scope = (0..SCOPE_VALUES).map(|at| sign * scope.sign(at));
    Ok(vector.iter().map(|value| (f64::from(*value) * own) as f32).chain(scope).collect())
}

/// The cosine of two vectors as they are kept, from the one of the vectors themselves; and back.
fn kept(similarity: f32) -> f32 {
    similarity * (1.0 - SCOPE_SHARE) + SCOPE_SHARE
}

fn unkept(similarity: f32) -> f32 {
    ((similarity - SCOPE_SHARE) / (1.0 - SCOPE_SHARE)).clamp(-1.0, 1.0)
}

/// Scope, key of the result, prompt.
fn read(entry: &Entry) -> Option<(Scope, Key, &str)> {
    let (scope, rest) = entry.note.split_first_chunk::<32>()?;
    let (key, text) = rest.split_first_chunk::<32>()?;
    Some((Scope(*scope), Key::from(*key), std::str::from_utf8(text).ok()?))
}

/// The key of the prompt that finds a result.
pub(super) fn prompt_key(prompts: &Space, result: Key) -> Key {
    prompts.key().field("of", result.as_bytes()).finish()
}

impl Results {
    /// Where prompts are kept whose vectors have this length, as they are kept. Models whose vectors are of another length
    /// share the file, and nothing else.
    fn prompts(&self, length: usize) -> Space {
        self.space.inner().field("prompts", "2").field("values", (length as u64).to_le_bytes()).finish()
    }

    /// Wherever there may be prompts.
    pub(super) fn all_prompts(&self) -> Vec<Space> {
        self.cache.lengths().into_iter().map(|length| self.prompts(length)).collect()
    }

    /// Has a prompt find the result of `key`, if there is one, for as long as it lives. May wait for the disk.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a vector that is none; [`Error::CacheClosed`].
    pub fn attach(&self, key: Key, prompt: &Prompt) -> Result<()> {
        let vector = placed(prompt.vector, &prompt.scope)?;
        let Some(result) = self.cache.glance(key) else { return Ok(()) };
        let note = [prompt.scope.as_bytes(), key.as_bytes(), prompt.text.as_bytes()].concat();
        let now_ms = self.cache.options().clock.wall_ms();
        let ttl = match result.expires_ms {
            NEVER => Duration::MAX,
            expires_ms => Duration::from_millis(expires_ms.saturating_sub(now_ms)),
        };
        let draft =
            Draft { vector: Some(&vector), note: &note, kind: &result.kind, ttl: Some(ttl), ..Draft::default() };
        let prompts = self.prompts(vector.len());
        self.cache.commit_at_once(&prompts, [(prompt_key(&prompts, key), draft)])
    }

    /// The result of the nearest prompt that means the same: of the `limit` nearest with a cosine of at least `threshold`,
    /// the first that the gate lets pass. Counts a hit or a miss. Waits for the disk.
    pub fn near(&self, kind: &str, prompt: &Prompt, threshold: f32, limit: usize) -> Result<Option<NearHit>> {
        let hit = self.find_near(prompt, threshold, limit);
        match &hit {
            Ok(Some(_)) => self.counters.hit(kind, Tier::Near),
            _ => self.counters.missed(kind),
        }
        hit
    }

    fn find_near(&self, prompt: &Prompt, threshold: f32, limit: usize) -> Result<Option<NearHit>> {
        let query = placed(prompt.vector, &prompt.scope)?;
        // Prompts of other scopes, and those whose result is gone, leave their places to others.
        let counts = |entry: &Entry| {
            read(entry).is_some_and(|(scope, result, _)| scope == prompt.scope && self.cache.contains(result))
        };
        // A hair's breadth: a cosine at the threshold itself counts, whatever the rounding.
        let prompts = self.prompts(query.len());
        let asked = Question::of(prompt.text);
        let nearest = self.cache.nearest_where(&prompts, &query, kept(threshold) - 1e-6, limit, counts)?;
        for Near { similarity, entry } in nearest {
            let Some((_, result, text)) = read(&entry) else { continue };
            if !asked.asks_the_same(&Question::of(text)) {
                continue;
            }
            if let Some(stored) = self.cache.lookup(result).and_then(Stored::of) {
                // A result that is found by its meaning is in use, and so is what finds it.
                self.cache.use_again(prompt_key(&prompts, result));
                return Ok(Some(NearHit { stored, similarity: unkept(similarity), matched: text.to_owned() }));
            }
        }
        Ok(None)
    }
}
