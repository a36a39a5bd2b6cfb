//! Of all processes that share a file, one computes a text: the others wait for it, and look it up.
//!
//! Before a call computes texts it takes leases on them, all in one transaction. Those that another process holds are
//! waited for. A lease ends by itself, so a process that dies or hangs keeps nobody waiting for long; whoever computes
//! for longer renews its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::model_cache::{Known, ModelCache, TextLeader};
use crate::cancel::Cancel;
use crate::embedding::Key;
use crate::error::Result;
use crate::sync::{Fault, Instant, planted, sleep, timeout};

/// How long leases last unless they are renewed, by how many there are: to renew one takes some microseconds of the
/// thread that writes.
const LEASE_PER_TEXT: Duration = Duration::from_millis(1);
const SHORTEST_LEASE: Duration = Duration::from_secs(3);
const LONGEST_LEASE: Duration = Duration::from_secs(30);

/// How often a lease is renewed in its lifetime.
const RENEWALS: u32 = 3;

/// How often those who wait look whether something has come, and whether a lease has become free.
const LOOK: Duration = Duration::from_millis(25);
const ASK: Duration = Duration::from_millis(500);

/// Without anything coming for so long, nobody waits any more, whoever has the lease.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Texts that are looked for to find out whether anything has come.
const SAMPLE: usize = 16;

/// A text that takes less is computed sooner than it is arranged who does; and so is a call that takes less.
const LEAST_TEXT_MS: f64 = 0.5;
const LEAST_CALL_MS: f64 = 25.0;

/// Texts that are to be computed, by slot.
pub(super) type TextLeaders = BTreeMap<usize, Option<TextLeader>>;

/// Whether so many texts are worth leases. `text_ms`: what one has taken so far; `None`: nobody knows yet.
pub(super) fn worthwhile(texts: usize, text_ms: Option<f64>) -> bool {
    texts > 0 && text_ms.is_none_or(|ms| ms >= LEAST_TEXT_MS && ms * texts as f64 >= LEAST_CALL_MS)
}

fn lifetime(texts: usize) -> Duration {
    LEASE_PER_TEXT.saturating_mul(texts.try_into().unwrap_or(u32::MAX)).clamp(SHORTEST_LEASE, LONGEST_LEASE)
}

/// The leases of one call. Given back one by one, or all when this is dropped.
pub(super) struct Leases {
    model_cache: Arc<ModelCache>,
    /// By slot.
    held: BTreeMap<usize, Key>,
    lifetime: Duration,
    renewed: Instant,
    renew_after: Duration,
}

impl Leases {
    /// None.
    pub fn new(model_cache: &Arc<ModelCache>) -> Self {
        let (lifetime, renew_after) = (SHORTEST_LEASE, SHORTEST_LEASE / RENEWALS);
        Self {
            model_cache: Arc::clone(model_cache),
            held: BTreeMap::new(),
            lifetime,
            renewed: Instant::now(),
            renew_after,
        }
    }

    /// Takes those of `wanted` that are free; gives the slots of the others.
    pub async fn take(&mut self, wanted: Vec<(usize, Key)>) -> Result<Vec<usize>> {
        let (model_cache, keys) =
            (Arc::clone(&self.model_cache), wanted.iter().map(|(_, key)| *key).collect::<Vec<_>>());
        if self.held.is_empty() {
            self.renewed = Instant::now();
            self.lifetime = lifetime(wanted.len());
            self.renew_after = self.lifetime / RENEWALS;
        }
        let lifetime = self.lifetime;
        let granted = super::blocking(move || model_cache.lease(&keys, lifetime)).await?;
        let (mine, theirs): (Vec<_>, Vec<_>) = wanted.into_iter().zip(granted).partition(|(_, granted)| *granted);
        self.held.extend(mine.into_iter().map(|(wanted, _)| wanted));
        Ok(theirs.into_iter().map(|((slot, _), _)| slot).collect())
    }

    /// What `work` gives. Until then those that are held are renewed, however long one batch takes.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        tokio::pin!(work);
        while !self.held.is_empty() {
            let rest = self.renew_after.saturating_sub(self.renewed.elapsed());
            if let Ok(done) = timeout(rest, &mut work).await {
                return Ok(done);
            }
            match planted(Fault::LeaseRunsOut) {
                true => self.renewed = Instant::now(),
                false => self.renew().await?,
            }
        }
        Ok(work.await)
    }

    /// Makes those that are left last longer.
    async fn renew(&mut self) -> Result<()> {
        let lifetime = self.lifetime;
        self.renewed = Instant::now();
        let (model_cache, keys) = (Arc::clone(&self.model_cache), self.held.values().copied().collect::<Vec<_>>());
        // One that another process has taken over meanwhile is computed twice.
        super::blocking(move || model_cache.lease(&keys, lifetime)).await.map(drop)
    }

    /// Gives those of `slots` back. What was committed before is seen first.
    pub fn release(&mut self, slots: impl IntoIterator<Item = usize>) {
        let keys: Vec<Key> = slots.into_iter().filter_map(|slot| self.held.remove(&slot)).collect();
        if !keys.is_empty() {
            self.model_cache.release(keys);
        }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let slots: Vec<usize> = self.held.keys().copied().collect();
        self.release(slots);
    }
}

/// What `work` gives, while leases on its texts last.
pub(super) async fn holding<T>(leases: &mut Option<&mut Leases>, work: impl Future<Output = T>) -> Result<T> {
    match leases {
        Some(leases) => leases.during(work).await,
        None => Ok(work.await),
    }
}

/// Waits for what other processes compute.
pub(super) struct Watch {
    model_cache: Arc<ModelCache>,
    began: Instant,
    asked: Instant,
    /// When something came the last time.
    came: Instant,
    turn: usize,
}

impl Watch {
    pub fn new(model_cache: &Arc<ModelCache>) -> Self {
        let now = Instant::now();
        Self { model_cache: Arc::clone(model_cache), began: now, asked: now, came: now, turn: 0 }
    }

    /// What has come of `wanted`, which is not empty, once there is something, or when it is time to ask for leases again:
    /// see [`Watch::asks`].
    pub async fn look(&mut self, wanted: &[(usize, Key)], cancel: &Cancel) -> Result<Vec<(usize, Known)>> {
        loop {
            cancel.or_else(sleep(LOOK)).await?;
            // Others compute in an order of their own: each look is for some others.
            let count = wanted.len().min(SAMPLE);
            let sample: Vec<Key> = (0..count).map(|n| wanted[(self.turn + n) % wanted.len()].1).collect();
            self.turn += count;
            let model_cache = Arc::clone(&self.model_cache);
            let ask = self.asked.elapsed() >= ASK;
            if ask || super::blocking(move || model_cache.holds_any(&sample)).await? {
                let came = self.come(wanted, cancel).await?;
                if ask || !came.is_empty() {
                    return Ok(came);
                }
            }
        }
    }

    /// What is there of `wanted`.
    pub async fn come(&mut self, wanted: &[(usize, Key)], cancel: &Cancel) -> Result<Vec<(usize, Known)>> {
        let (model_cache, stop, wanted) = (Arc::clone(&self.model_cache), cancel.clone(), wanted.to_vec());
        let came = super::blocking(move || model_cache.recall_held(&wanted, &stop)).await??;
        if !came.is_empty() {
            self.came = Instant::now();
        }
        Ok(came)
    }

    /// Whether it is time to ask for leases again: some may have been given back, or have ended.
    pub fn asks(&mut self) -> bool {
        let ask = self.asked.elapsed() >= ASK;
        if ask {
            self.asked = Instant::now();
        }
        ask
    }

    /// Milliseconds since the call began to wait.
    pub fn waited_ms(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * 1e3
    }

    /// Whether it has been waited for long enough.
    pub fn gives_up(&self) -> bool {
        self.came.elapsed() >= LONGEST_WAIT
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::cache::{CacheOptions, EmbeddingCache};
    use crate::embedding::{Fingerprint, InputType, Modality, Space, Task};
    use crate::generator::Shape;
    use crate::host::Clock;

    /// A clock that the test sets; both of its readings are the same.
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn wall_ms(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }

        fn steady_ms(&self) -> u64 {
            self.wall_ms()
        }
    }

    #[tokio::test]
    async fn a_lease_outlasts_a_batch_that_takes_longer() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hand(AtomicU64::new(1_700_000_000_000)));
        let advance = |ms| clock.0.fetch_add(ms, Ordering::SeqCst);
        let process = || {
            let path = Some(directory.path().join("cache.db"));
            let options = CacheOptions { path, clock: clock.clone() as Arc<dyn Clock>, ..CacheOptions::default() };
            let cache = Arc::new(EmbeddingCache::open(options).unwrap());
            let space = Space::builder().finish();
            let shape = Shape { task: Task::Embedding, dimensions: 2 };
            Arc::new(ModelCache::new(cache, &space, &Fingerprint::builder().finish(), Modality::Text, shape))
        };
        let (one, other) = (process(), process());
        let key = one.keys(&["a".to_owned()], InputType::Document)[0];
        let mut leases = Leases::new(&one);
        assert_eq!(leases.take(vec![(0, key)]).await.unwrap(), Vec::<usize>::new());
        // For the test, renewed long before the three seconds are over that it was taken for.
        leases.renew_after = Duration::from_millis(10);
        advance(2900);
        leases.during(tokio::time::sleep(Duration::from_millis(300))).await.unwrap();
        advance(200);
        assert_eq!(other.lease(&[key], SHORTEST_LEASE), [false]);
    }

    #[test]
    fn quick_texts_and_short_calls_are_not_worth_a_lease() {
        let cases = [
            (1, None, true),
            (0, None, false),
            (1, Some(26.0), true),
            (1, Some(20.0), false),
            (5000, Some(0.2), false),
            (50, Some(0.5), true),
        ];
        for (texts, ms, expected) in cases {
            assert_eq!(worthwhile(texts, ms), expected, "{texts} {ms:?}");
        }
    }
}
