//! Results of expensive calls, kept under what they were made from. JS class: `InferenceCache`.
//!
//! | part | what it does |
//! |---|---|
//! | `payload` | a result → the bytes of an entry, and back |
//! | `near` | which result was made from a prompt that means the same |
//! | `gate` | whether two prompts mean the same although their vectors are near, or not |
//! | `counters` | how often what was found, by type |
//!
//! Everything that is kept lies in an [`EmbeddingCache`]: the two tiers, what they survive and how processes share a file
//! are its. A result is an entry without a vector, in one space; a prompt that can be found by its meaning is an entry of
//! another space, with the vector of the prompt and the key of its result. If the result is gone, the prompt finds nothing.

mod counters;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gate;
mod payload;
mod semantic;

use std::collections::BTreeMap;
use std::time::Duration;

pub use counters::{KindStats, ResultStats, Tier};
pub use payload::{Format, Stored};
pub use semantic::{LONGEST_PROMPT, NearHit, Prompt, Scope};

use crate::cache::{
    CacheOptions, Deletion, Draft, EmbeddingCache, MissCause, Open, Optimized, Selection, label, unlabel,
};
use crate::embedding::{Key, Space, content_hash};
use crate::error::{Error, Result};
use counters::Counters;
use payload::encode;
use semantic::prompt_key;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Largest `max_value_bytes`: what the cache takes, less than a MB for what is kept beside a value.
pub const MOST_VALUE_BYTES: usize = crate::cache::MAX_ENTRY_BYTES - (1 << 20);

/// Largest metadata of a result: JSON.
const MOST_METADATA_BYTES: usize = 1 << 19;

/// What results are kept with.
#[derive(Clone)]
pub struct ResultsOptions {
    /// The tiers.
    pub cache: CacheOptions,
    /// Keeps different uses of one file apart.
    pub namespace: String,
    /// How long a result of a type without a time of its own is an answer; `None`: until it is evicted.
    pub ttl: Option<Duration>,
    /// The same by type.
    pub ttl_by_kind: BTreeMap<String, Option<Duration>>,
    /// Largest value, in bytes of its JSON or its own.
    pub max_value_bytes: usize,
}

impl Default for ResultsOptions {
    fn default() -> Self {
        // What a model says about the same input stays true; what a service says does not.
        let month = ["text_inference", "vision_inference", "audio_inference", "embedding"];
        let ttl_by_kind = month.map(|kind| (kind.to_owned(), Some(30 * DAY)));
        Self {
            cache: CacheOptions { max_entries: 10_000, ..CacheOptions::default() },
            namespace: String::new(),
            ttl: Some(DAY),
            ttl_by_kind: ttl_by_kind.into_iter().chain([("api".to_owned(), Some(DAY))]).collect(),
            max_value_bytes: 16 << 20,
        }
    }
}

/// What a result was made from.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// A text, or the bytes of an image or a recording.
    Bytes(&'a [u8]),
    /// The SHA-256 of such bytes, which is the same content.
    Sha256(&'a [u8; 32]),
    /// JSON in canonical form, of which it is known that it is no text of a user.
    Json(&'a [u8]),
    /// A name that the caller vouches for, such as another hash.
    Name(&'a str),
}

/// A result as a caller hands it in.
#[derive(Debug, Clone, Copy)]
pub struct Computed<'a> {
    /// Its type.
    pub kind: &'a str,
    /// What its value is.
    pub format: Format,
    /// The value.
    pub value: &'a [u8],
    /// JSON, or empty.
    pub metadata: &'a [u8],
    /// For [`Results::invalidate`].
    pub tags: &'a [&'a str],
    /// How long it is an answer; `None`: its type's time. [`Duration::MAX`]: until it is evicted.
    pub ttl: Option<Duration>,
    /// Only its very content is to find it from now on, and no prompt that was attached before.
    pub exact: bool,
    /// See [`Draft::age`].
    pub age: Option<Duration>,
}

/// A lookup on its way to the disk. See [`Results::settle`].
pub struct Asking {
    open: Open,
    kind: String,
    last: bool,
}

/// Deletions that have taken effect, and of which the file may not know yet.
pub struct Deletions {
    prompts: Vec<Deletion>,
    results: Deletion,
}

impl Deletions {
    /// How many results there were, where there is no file that has to know of it.
    pub fn done(&self) -> Option<usize> {
        self.results.done()
    }
}

/// Results. All methods may be called at once from many threads; those that may wait for the disk say so.
pub struct Results {
    cache: EmbeddingCache,
    options: ResultsOptions,
    space: Space,
    counters: Counters,
}

impl Results {
    /// See [`EmbeddingCache::open`].
    pub fn open(mut options: ResultsOptions) -> Result<Self> {
        // Every entry says itself how long it lives.
        options.cache.ttl = None;
        let space = Space::builder().field("results", "1").field("namespace", &options.namespace).finish();
        let cache = EmbeddingCache::open(options.cache.clone())?;
        Ok(Self { cache, options, space, counters: Counters::default() })
    }

    /// The key of the result of type `kind` that is made from `content` with `params`, which are canonical JSON.
    pub fn key(&self, kind: &str, params: &[u8], modality: &str, content: Content) -> Key {
        let key = self.space.key().field("type", kind).field("params", params).field("modality", modality);
        match content {
            Content::Bytes(bytes) => key.field("sha256", content_hash(bytes)),
            Content::Sha256(hash) => key.field("sha256", hash),
            Content::Json(json) => key.field("json", json),
            Content::Name(name) => key.field("name", name),
        }
        .finish()
    }

    /// The result of a key, from memory; else why there is none, or a lookup to be settled. `last`: nobody will ask for
    /// something near if there is none, so that a miss is one. Never waits.
    pub fn recall(&self, kind: &str, key: Key, last: bool) -> std::result::Result<Option<Stored>, Asking> {
        match self.cache.recall_or_why(&key.into()) {
            Ok(Ok(entry)) => Ok(self.found(kind, Stored::of(entry), Tier::Memory, last)),
            Ok(Err(cause)) => {
                self.missed(kind, cause, last);
                Ok(None)
            }
            Err(open) => Err(Asking { open, kind: kind.to_owned(), last }),
        }
    }

    /// Asks the tiers below what memory could not answer. Waits for them.
    pub fn settle(&self, Asking { open, kind, last }: Asking) -> Option<Stored> {
        match self.cache.settle_or_why(open) {
            Ok((entry, shared)) => {
                let tier = if shared { Tier::Shared } else { Tier::Disk };
                self.found(&kind, Stored::of(entry), tier, last)
            }
            Err(cause) => {
                self.missed(&kind, cause, last);
                None
            }
        }
    }

    fn found(&self, kind: &str, stored: Option<Stored>, tier: Tier, last: bool) -> Option<Stored> {
        match stored {
            Some(_) => self.counters.hit(kind, tier),
            // Written by another version, in a way that this one does not know.
            None => self.missed(kind, MissCause::Damaged, last),
        }
        stored
    }

    fn missed(&self, kind: &str, cause: MissCause, last: bool) {
        self.counters.absent(kind, cause);
        if last {
            self.counters.missed(kind);
        }
    }

    /// Counts a lookup that was left open for something near, and was answered elsewhere: with that, or with nothing.
    pub fn count(&self, kind: &str, near: bool) {
        if near { self.counters.hit(kind, Tier::Near) } else { self.counters.missed(kind) }
    }

    /// Sets results, all or, when one of them is refused, none. They are answers at once. See
    /// [`EmbeddingCache::commit_at_once`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a value that is too large; [`Error::CacheClosed`].
    pub fn set_many(&self, results: &[(Key, Computed)]) -> Result<()> {
        for (at, (_, computed)) in results.iter().enumerate() {
            self.check(computed).map_err(|error| error.in_entry(at, results.len() > 1))?;
        }
        let made: Vec<(String, Vec<u8>)> = results
            .iter()
            .map(|(_, computed)| {
                let label = label(computed.kind, computed.tags.iter().copied());
                (label, encode(computed.format, computed.metadata, computed.value))
            })
            .collect();
        let drafts = results.iter().zip(&made).map(|((key, computed), (label, note))| {
            let ttl = Some(self.lifetime(computed));
            (*key, Draft { note, kind: label, ttl, age: computed.age, ..Draft::default() })
        });
        self.cache.commit_at_once(&self.space, drafts)?;
        for (key, computed) in results {
            if computed.exact {
                self.detach(*key);
            }
            self.counters.set(computed.kind);
        }
        Ok(())
    }

    /// [`Results::set_many`] for one.
    pub fn set(&self, key: Key, computed: &Computed) -> Result<()> {
        self.set_many(&[(key, *computed)])
    }

    fn check(&self, computed: &Computed) -> Result<()> {
        let limit = self.options.max_value_bytes;
        if computed.value.len() > limit {
            return Err(Error::InvalidArgument(format!(
                "The value has {} bytes, more than the limit of {limit} bytes: raise maxValueMB, or keep a part of it",
                computed.value.len()
            )));
        }
        if computed.metadata.len() > MOST_METADATA_BYTES {
            return Err(Error::InvalidArgument(format!(
                "The metadata has {} bytes, more than the limit of {MOST_METADATA_BYTES} bytes",
                computed.metadata.len(),
            )));
        }
        Ok(())
    }

    fn lifetime(&self, computed: &Computed) -> Duration {
        let of_kind =
            || self.options.ttl_by_kind.get(computed.kind).unwrap_or(&self.options.ttl).unwrap_or(Duration::MAX);
        computed.ttl.unwrap_or_else(of_kind)
    }

    /// See [`EmbeddingCache::has_room`].
    pub fn has_room(&self) -> bool {
        self.cache.has_room()
    }

    /// See [`EmbeddingCache::await_room`].
    pub fn await_room(&self) {
        self.cache.await_room();
    }

    /// See [`EmbeddingCache::may_wait`].
    pub fn may_wait(&self) -> bool {
        self.cache.may_wait()
    }

    /// Whether others may compute the same results.
    pub fn is_shared(&self) -> bool {
        self.cache.has_leases()
    }

    /// Counts a result that its caller wanted to be kept, and tells that it was not.
    pub fn reject(&self, reason: &str) {
        self.cache.reject(1, reason);
    }

    /// See [`EmbeddingCache::steady_us`].
    pub fn now_us(&self) -> u64 {
        self.cache.steady_us()
    }

    /// See [`EmbeddingCache::age`].
    pub fn age(&self, began_us: u64) -> Duration {
        self.cache.age(began_us)
    }

    /// Whether there is a result. Counts as no use and in no statistics. May wait for the disk.
    pub fn contains(&self, key: Key) -> bool {
        self.cache.contains(key)
    }

    /// What a lookup would answer. Counts as no use and in no statistics. May wait for the disk.
    pub fn glance(&self, key: Key) -> Option<Stored> {
        self.cache.glance(key).and_then(Stored::of)
    }

    /// Deletes a result; [`Results::resolve`] says whether there was one.
    pub fn delete(&self, key: Key) -> Deletions {
        Deletions { prompts: self.detach(key), results: self.cache.begin_delete(key) }
    }

    /// Has nothing find a result by its meaning any more.
    fn detach(&self, key: Key) -> Vec<Deletion> {
        let delete = |prompts: &Space| self.cache.begin_delete(prompt_key(prompts, key));
        self.all_prompts().iter().map(delete).collect()
    }

    /// Deletes all results of a type, if one is given, and with one of these tags, if there are any; [`Results::resolve`] says
    /// how many there were.
    pub fn invalidate(&self, kind: Option<&str>, tags: &[&str]) -> Deletions {
        self.delete_all(|selection| {
            let selection = kind.map_or(selection.clone(), |kind| selection.kind(kind));
            selection.tags(tags.iter().copied())
        })
    }

    /// Deletes what is no longer an answer; [`Results::resolve`] says how many there were.
    pub fn clear_expired(&self) -> Deletions {
        let now_ms = self.cache.options().clock.wall_ms();
        self.delete_all(|selection| selection.expired_by(now_ms))
    }

    /// Of results and prompts alike.
    fn delete_all(&self, select: impl Fn(Selection) -> Selection) -> Deletions {
        let delete = |space: &Space| self.cache.begin_delete_all(select(Selection::default().of(space.id())));
        Deletions { prompts: self.all_prompts().iter().map(delete).collect(), results: delete(&self.space) }
    }

    /// Waits until the file knows of what was deleted; how many results there were.
    ///
    /// # Errors
    /// See [`EmbeddingCache::delete`].
    pub fn resolve(&self, deletions: Deletions) -> Result<usize> {
        let prompts = deletions.prompts.into_iter().try_for_each(|prompt| self.cache.resolve(prompt).map(drop));
        let results = self.cache.resolve(deletions.results)?;
        prompts.map(|()| results)
    }

    /// See [`EmbeddingCache::acquire`].
    pub fn acquire(&self, key: Key, lifetime: Duration) -> bool {
        self.cache.acquire(&[key], lifetime).first().copied().unwrap_or(true)
    }

    /// See [`EmbeddingCache::release`].
    pub fn release(&self, key: Key) {
        self.cache.release(vec![key]);
    }

    /// See [`EmbeddingCache::optimize`].
    pub fn optimize(&self, budget: Duration) -> Optimized {
        self.cache.optimize(budget)
    }

    /// See [`EmbeddingCache::flush`].
    pub fn flush(&self) -> Result<()> {
        self.cache.flush()
    }

    /// See [`EmbeddingCache::begin_close`].
    pub fn begin_close(&self) {
        self.cache.begin_close();
    }

    /// See [`EmbeddingCache::close`].
    pub fn close(&self) {
        self.cache.close();
    }

    /// What they are kept with.
    pub fn options(&self) -> &ResultsOptions {
        &self.options
    }

    /// How many entries left memory: expired, deleted, replaced, for want of space.
    pub fn evicted(&self) -> [u64; 4] {
        self.cache.evicted()
    }

    /// How it does. Looks at all that memory holds.
    pub fn stats(&self) -> ResultStats {
        let mut stats = self.counters.stats(self.cache.stats());
        for entry in self.cache.in_memory(&self.space) {
            let kind = stats.kind(unlabel(&entry.kind).0);
            kind.entries += 1;
            kind.bytes += entry.payload_bytes();
        }
        stats
    }
}
