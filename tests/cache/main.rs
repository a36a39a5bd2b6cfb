//! The cache on a real disk: crashes, damage, many processes, and a clock that somebody sets.

#![allow(clippy::unwrap_used)]

mod damage;
mod entries;
mod processes;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use embedcore::cache::{CacheOptions, Draft, EmbeddingCache, Event};
use embedcore::embedding::{Key, Space};
use embedcore::host::Clock;
use tempfile::TempDir;

const AT: u64 = 1_700_000_000_000;

/// A clock that goes where the test wants it.
struct FakeClock {
    wall_ms: AtomicU64,
    steady_ms: AtomicU64,
}

impl FakeClock {
    fn new() -> Arc<Self> {
        Arc::new(Self { wall_ms: AtomicU64::new(AT), steady_ms: AtomicU64::new(0) })
    }

    fn pass(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.steady_ms.fetch_add(ms, Ordering::SeqCst);
    }

    fn set(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn steady_ms(&self) -> u64 {
        self.steady_ms.load(Ordering::SeqCst)
    }
}

/// A directory, a clock and the events of the caches on it.
struct Bench {
    directory: TempDir,
    clock: Arc<FakeClock>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Bench {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), clock: FakeClock::new(), events: Arc::default() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("cache.db")
    }

    fn options(&self) -> CacheOptions {
        let events = Arc::clone(&self.events);
        CacheOptions {
            path: Some(self.path()),
            clock: self.clock.clone(),
            listener: Some(Arc::new(move |event| events.lock().unwrap().push(event))),
            ..CacheOptions::default()
        }
    }

    fn open(&self) -> EmbeddingCache {
        EmbeddingCache::open(self.options()).unwrap()
    }

    fn happened(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|event| which(event)).count()
    }
}

fn space() -> Space {
    Space::builder().field("namespace", "test").finish()
}

fn key(n: u32) -> Key {
    space().key().field("key", n.to_le_bytes()).finish()
}

/// The only vector that is ever committed for `n`: whatever else comes back is torn or mistaken.
fn vector(n: u32, dimensions: usize) -> Vec<f32> {
    (0..dimensions as u32).map(|i| (n.wrapping_mul(31).wrapping_add(i) % 1000) as f32 / 8.0).collect()
}

fn put(cache: &EmbeddingCache, n: u32) {
    let vector = vector(n, 64);
    let draft = Draft { vector: Some(&vector), note: &n.to_le_bytes(), ..Draft::default() };
    cache.commit(&space(), key(n), &draft).unwrap();
}

/// Whether `n` is there. It must be whole then.
fn get(cache: &EmbeddingCache, n: u32) -> bool {
    cache.lookup(key(n)).is_some_and(|entry| {
        assert_eq!(entry.vector.to_vec(), vector(n, 64), "{n}");
        assert_eq!(&*entry.note, n.to_le_bytes());
        true
    })
}

fn count(cache: &EmbeddingCache, n: u32) -> u32 {
    (0..n).map(|n| u32::from(get(cache, n))).sum()
}
