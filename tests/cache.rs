//! The cache on a real disk: crashes, damage, many processes, and a clock that somebody sets.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, thread};

use embedcore::cache::{CacheOptions, Draft, EmbeddingCache, Event, Precision, Recall};
use embedcore::embedding::{Key, Space, content_hash};
use embedcore::error::Error;
use embedcore::host::Clock;
use proptest::prelude::*;
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

#[test]
fn what_was_committed_is_there_in_the_next_process() {
    let bench = Bench::new();
    let nested = CacheOptions { path: Some(bench.directory.path().join("a/b/cache.db")), ..bench.options() };
    let cache = EmbeddingCache::open(nested.clone()).unwrap();
    (0..2000).for_each(|n| put(&cache, n));
    assert_eq!(count(&cache, 2000), 2000, "evicted from memory, still queued or on disk");
    cache.flush().unwrap();
    assert_eq!(cache.stats().disk.unwrap().entries, 2000);
    cache.close();
    cache.close();
    assert_eq!(cache.commit(&space(), key(1), &Draft::default()), Err(Error::CacheClosed));
    assert!(cache.lookup(key(1)).is_none());

    let again = EmbeddingCache::open(nested).unwrap();
    assert_eq!(count(&again, 2000), 2000);
    let stats = again.stats();
    assert_eq!((stats.requests, stats.memory_hits, stats.disk_hits), (2000, 0, 2000));
    assert_eq!(stats.entries, 1000);
    assert_eq!((stats.evicted_size, stats.evictions()), (1000, 1000));
    assert!(stats.access_ns > 0 && again.samples().len() == 128);
    assert!(again.delete(key(7)).unwrap() && !again.delete(key(7)).unwrap());
    again.clear(Some(&Space::builder().finish()), None).unwrap();
    assert_eq!(count(&again, 2000), 1999);
    again.clear(Some(&space()), None).unwrap();
    assert_eq!(count(&again, 2000), 0);
    again.flush().unwrap();
    assert_eq!(again.stats().disk.unwrap().entries, 0);
    again.close();
}

#[test]
fn the_log_is_gone_after_close() {
    let bench = Bench::new();
    let cache = bench.open();
    (0..10).for_each(|n| put(&cache, n));
    cache.flush().unwrap();
    assert!(get(&cache, 1));
    cache.close();
    let files: Vec<_> = fs::read_dir(bench.directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!files.iter().any(|name| name.to_str().unwrap().ends_with("-wal")), "{files:?}");
}

#[test]
fn a_changed_content_is_a_miss_in_both_tiers() {
    let bench = Bench::new();
    let (old, new) = (content_hash(b"old"), content_hash(b"new"));
    let vector = vector(1, 8);
    let draft = Draft { vector: Some(&vector), ..Draft::default() };
    let cache = bench.open();
    for n in 0..2 {
        cache.commit(&space(), (key(n), Some(old)), &draft).unwrap();
    }
    assert!(cache.lookup((key(0), Some(old))).is_some() && cache.contains((key(0), Some(old))));
    assert!(!cache.contains((key(0), Some(new))) && cache.contains((key(0), Some(old))), "contains changes nothing");
    assert!(cache.lookup((key(0), Some(new))).is_none());
    assert!(cache.lookup((key(0), Some(old))).is_none(), "the entry is gone");
    cache.close();
    let cache = bench.open();
    assert!(cache.lookup((key(0), Some(old))).is_some(), "for that cache: a lookup changes nothing in the file");
    assert!(cache.lookup((key(1), Some(new))).is_none());
    assert!(cache.lookup((key(1), Some(old))).is_none(), "gone at once");
    cache.flush().unwrap();
    assert!(cache.lookup((key(1), Some(old))).is_none());
    assert!(bench.open().lookup((key(1), Some(old))).is_some());
    cache.commit(&space(), (key(1), Some(old)), &draft).unwrap();
    assert!(cache.lookup((key(1), Some(old))).is_some(), "set anew");
    assert_eq!((cache.stats().missed_changed, cache.stats().missed_absent), (1, 2));
    // Another process may have written the new one meanwhile: memory's old one does not hide it.
    let other = bench.open();
    cache.commit(&space(), (key(2), Some(old)), &draft).unwrap();
    cache.flush().unwrap();
    other.commit(&space(), (key(2), Some(new)), &draft).unwrap();
    other.flush().unwrap();
    assert!(cache.lookup((key(2), Some(new))).is_some());
    // Without a hash, nothing can vouch for the content.
    cache.commit(&space(), key(3), &draft).unwrap();
    assert!(cache.lookup((key(3), Some(old))).is_none());
}

#[test]
fn time_passes_in_both_tiers() {
    let bench = Bench::new();
    let vector = vector(1, 8);
    let hour = Draft { vector: Some(&vector), ..Draft::default() };
    let cache = bench.open();
    cache.commit(&space(), key(0), &hour).unwrap();
    cache.commit(&space(), key(1), &Draft { ttl: Some(Duration::from_secs(10)), ..hour }).unwrap();
    cache.commit(&space(), key(2), &Draft { ttl: Some(Duration::MAX), ..hour }).unwrap();
    cache.flush().unwrap();
    let reader = bench.open();
    bench.clock.pass(9_999);
    assert!((0..3).all(|n| cache.contains(key(n)) && reader.contains(key(n))));
    bench.clock.pass(1);
    assert!(!cache.contains(key(1)) && !reader.contains(key(1)));
    bench.clock.pass(3_600_000);
    let optimized = reader.optimize(Duration::from_secs(60));
    assert_eq!((optimized.expired_on_disk, optimized.complete), (2, true));
    assert_eq!(cache.optimize(Duration::from_secs(60)).expired_in_memory, 2);
    assert_eq!(cache.stats().evicted_expired, 2);
    assert!(cache.contains(key(2)) && reader.contains(key(2)));
    assert_eq!(reader.stats().disk.unwrap().entries, 1);
}

#[test]
fn a_clock_that_was_ahead_leaves_nothing_behind_that_never_ages() {
    let bench = Bench::new();
    bench.clock.set(AT + 80 * 365 * 86_400_000);
    let cache = bench.open();
    (0..3).for_each(|n| put(&cache, n));
    let vector = vector(9, 64);
    cache
        .commit(&space(), key(9), &Draft { vector: Some(&vector), ttl: Some(Duration::MAX), ..Draft::default() })
        .unwrap();
    cache.flush().unwrap();
    bench.clock.set(AT);
    assert!(!get(&cache, 0), "in memory");
    let other = bench.open();
    assert!(!get(&other, 1), "on disk");
    assert!(other.contains(key(9)), "what never expires needs no clock");
    put(&other, 5);
    other.flush().unwrap();
    assert_eq!(other.stats().disk.unwrap().entries, 2);
    assert!(get(&other, 5), "the cache works under the new clock");
    bench.clock.pass(3_600_001);
    assert!(!get(&other, 5));
}

#[test]
fn a_clock_that_is_set_back_brings_nothing_back() {
    let bench = Bench::new();
    let cache = bench.open();
    put(&cache, 0);
    cache.flush().unwrap();
    bench.clock.pass(7_200_000);
    put(&cache, 1);
    cache.flush().unwrap();
    cache.close();
    bench.clock.set(AT + 600_000);
    let cache = bench.open();
    assert!(!get(&cache, 0), "it had expired");
    // A step of a few seconds, as time services make them, costs nothing.
    put(&cache, 2);
    bench.clock.set(AT + 590_000);
    assert!(get(&cache, 2));
    cache.flush().unwrap();
    assert!(get(&bench.open(), 2));
}

#[test]
fn f16_takes_half_the_space() {
    let bench = Bench::new();
    let cache = EmbeddingCache::open(CacheOptions { precision: Precision::F16, ..bench.options() }).unwrap();
    let vector: Vec<f32> = (0..384).map(|i| (i as f32 * 0.37).sin()).collect();
    cache.commit(&space(), key(1), &Draft { vector: Some(&vector), ..Draft::default() }).unwrap();
    cache.flush().unwrap();
    for cache in [cache, bench.open()] {
        let entry = cache.lookup(key(1)).unwrap();
        assert_eq!(entry.vector.bytes(), 768);
        for (a, b) in vector.iter().zip(entry.vector.to_vec()) {
            assert!((a - b).abs() <= 1.0 / 2048.0);
        }
    }
}

#[test]
fn unusable_values_are_refused_and_all_of_their_call_with_them() {
    let bench = Bench::new();
    let cache = bench.open();
    put(&cache, 1);
    let refused = |cache: &EmbeddingCache, vector: &[f32]| {
        let good = [0.5f32; 64];
        let drafts = [&good[..], vector].map(|vector| Draft { vector: Some(vector), ..Draft::default() });
        let outcome = cache.commit_many(&space(), [(key(50), drafts[0]), (key(51), drafts[1])]);
        assert!(!cache.contains(key(50)));
        outcome.unwrap_err().to_string()
    };
    assert!(refused(&cache, &[f32::NAN; 64]).contains("NaN at position 0"));
    let mixed = refused(&cache, &[1.0; 32]);
    assert!(mixed.contains("32 values") && mixed.contains("have 64"), "{mixed}");
    cache.flush().unwrap();
    let mixed = refused(&bench.open(), &[1.0; 32]);
    assert!(mixed.contains("have 64"), "the file remembers: {mixed}");
    cache.clear(Some(&space()), None).unwrap();
    cache.commit(&space(), key(1), &Draft { vector: Some(&[1.0; 32]), ..Draft::default() }).unwrap();
    // A value larger than memory is not kept there, but on disk; and it pushes nothing out.
    let small = EmbeddingCache::open(CacheOptions { max_bytes: 10_000, ..bench.options() }).unwrap();
    let note = vec![7u8; 100_000];
    small.commit(&space(), key(2), &Draft { note: &[1], ..Draft::default() }).unwrap();
    small.commit(&space(), key(3), &Draft { note: &note, ..Draft::default() }).unwrap();
    assert_eq!(small.stats().entries, 1);
    assert_eq!(small.lookup(key(3)).unwrap().note.len(), 100_000);
}

#[test]
fn spaces_and_kinds_are_cleared_apart() {
    let bench = Bench::new();
    let cache = bench.open();
    let other = Space::builder().field("namespace", "other").finish();
    let draft = |kind| Draft { note: b"x", kind, ..Draft::default() };
    let all = |cache: &EmbeddingCache| -> Vec<bool> { (0..3).map(|n| cache.contains(key(n))).collect() };
    cache.commit(&space(), key(0), &draft("a")).unwrap();
    cache.commit(&space(), key(1), &draft("b")).unwrap();
    cache.commit(&other, key(2), &draft("a")).unwrap();
    cache.flush().unwrap();
    cache.clear(Some(&space()), Some("a")).unwrap();
    assert_eq!(all(&cache), [false, true, true]);
    assert_eq!(
        all(&{
            cache.flush().unwrap();
            bench.open()
        }),
        [false, true, true]
    );
    cache.clear(None, Some("a")).unwrap();
    cache.commit(&other, key(2), &draft("a")).unwrap();
    assert_eq!(all(&cache), [false, true, true], "set after the clear");
    cache.clear(None, None).unwrap();
    assert_eq!(all(&cache), [false; 3]);
    cache.flush().unwrap();
    assert_eq!(all(&bench.open()), [false; 3]);
}

#[test]
fn the_file_keeps_its_limit_and_what_is_used() {
    let bench = Bench::new();
    let limit = 2 << 20;
    let options = CacheOptions { max_disk_bytes: Some(limit), touch_after_ms: 0, max_entries: 1, ..bench.options() };
    let cache = EmbeddingCache::open(options).unwrap();
    for n in 0..20_000 {
        put(&cache, n);
        bench.clock.pass(1);
        if n % 500 == 0 {
            cache.flush().unwrap();
            assert!(get(&cache, 0), "used often, never evicted: {n}");
        }
    }
    cache.flush().unwrap();
    let disk = cache.stats().disk.unwrap();
    assert!(disk.bytes <= limit && disk.bytes > limit / 2, "{disk:?}");
    assert!(disk.evicted > 5000 && disk.entries + disk.evicted == 20_000, "{disk:?}");
    assert!(get(&cache, 0) && get(&cache, 19_999) && !get(&cache, 1));
    let pages = fs::metadata(bench.path()).unwrap().len();
    assert!(pages <= limit + limit / 2, "{pages}");
    // Space is given back.
    cache.clear(None, None).unwrap();
    cache.flush().unwrap();
    assert!(cache.optimize(Duration::from_secs(60)).freed_bytes > limit / 4);
    assert!(fs::metadata(bench.path()).unwrap().len() < pages / 2);
}

#[test]
fn memory_answers_without_the_disk() {
    let bench = Bench::new();
    let cache = bench.open();
    put(&cache, 1);
    assert!(matches!(cache.recall_one(&key(1).into()), Ok(Some(_))));
    assert!(cache.recall_one(&key(2).into()).is_err());
    assert!(matches!(cache.recall([key(1)]), Recall::Done(_)));
    let Recall::AskDisk(open) = cache.recall([key(1), key(2)]) else { panic!() };
    let answers = cache.settle(open);
    assert!(answers[0].is_some() && answers[1].is_none());
    let stats = cache.stats();
    assert_eq!((stats.requests, stats.memory_hits, stats.misses()), (4, 3, 1));
}

#[test]
fn half_is_given_back_when_memory_is_short_the_least_recently_used() {
    let cache = EmbeddingCache::open(CacheOptions { ttl: None, ..CacheOptions::default() }).unwrap();
    (0..100).for_each(|n| put(&cache, n));
    assert!(get(&cache, 0));
    let before = cache.stats().bytes;
    cache.give_back();
    assert!(cache.stats().bytes <= before / 2 && cache.stats().bytes > before / 3);
    assert!(get(&cache, 0) && get(&cache, 99) && !get(&cache, 1) && !get(&cache, 40));
    cache.give_back();
    assert!(get(&cache, 99));
}

#[test]
fn similar_vectors_are_found_in_both_tiers() {
    let bench = Bench::new();
    let cache = EmbeddingCache::open(CacheOptions { max_entries: 2, ..bench.options() }).unwrap();
    for n in 0..8u32 {
        let angle = n as f32 / 10.0;
        let vector = [angle.cos() * (n + 1) as f32, angle.sin() * (n + 1) as f32];
        let note = n.to_le_bytes();
        let draft = Draft { vector: Some(&vector), note: &note, ..Draft::default() };
        cache.commit(&space(), key(n), &draft).unwrap();
        if n == 4 {
            cache.flush().unwrap();
        }
    }
    let found = cache.nearest(&space(), &[2.0, 0.0], 0.95, 10).unwrap();
    let expected: Vec<(u32, f32)> = (0..4u32).map(|n| (n, (n as f32 / 10.0).cos())).collect();
    assert_eq!(found.len(), expected.len());
    for (near, (n, similarity)) in found.iter().zip(&expected) {
        assert_eq!(*near.entry.note, n.to_le_bytes());
        assert!((near.similarity - similarity).abs() < 1e-6);
    }
    assert_eq!(cache.nearest(&space(), &[2.0, 0.0], -1.0, 3).unwrap().len(), 3);
    assert_eq!(cache.nearest(&Space::builder().finish(), &[2.0, 0.0], -1.0, 3).unwrap(), []);
    assert!(cache.nearest(&space(), &[f32::NAN, 0.0], 0.0, 3).is_err());
}

/// Around one of fifty directions.
fn clustered(n: u32) -> Vec<f32> {
    let noise = |seed: u32| f64::from(seed).sin().mul_add(43_758.545, 0.0).fract() as f32;
    (0..96).map(|i| noise(n % 50 * 1000 + i) + 0.4 * noise(n * 97 + i)).collect()
}

#[test]
fn the_nearest_of_many_are_found_and_nothing_that_is_gone() {
    const ENTRIES: u32 = 4000;
    let bench = Bench::new();
    let in_memory = CacheOptions { path: None, ..bench.options() };
    for options in [CacheOptions { max_entries: 50_000, ..in_memory }, bench.options()] {
        let on_disk = options.path.is_some();
        let cache = EmbeddingCache::open(options).unwrap();
        let set = |cache: &EmbeddingCache, n: u32, vector: &[f32], seconds: u64| {
            let ttl = Some(Duration::from_secs(seconds));
            let draft = Draft { vector: Some(vector), note: &n.to_le_bytes(), ttl, ..Draft::default() };
            cache.commit(&space(), key(n), &draft).unwrap();
        };
        let mut vectors: Vec<Option<Vec<f32>>> = (0..ENTRIES).map(|n| Some(clustered(n))).collect();
        for (n, vector) in (0..).zip(&vectors) {
            set(&cache, n, vector.as_ref().unwrap(), if n % 7 == 0 { 10 } else { 1000 });
        }
        let check = |cache: &EmbeddingCache, vectors: &[Option<Vec<f32>>], least: usize| {
            let mut right = 0;
            for query in 0..20 {
                let query = clustered(100_000 + query * 31);
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                let cosine = |a: &[f32]| dot(a, &query) / (dot(a, a) * dot(&query, &query)).sqrt();
                let living = (0u32..).zip(vectors).filter_map(|(n, vector)| Some((n, cosine(vector.as_ref()?))));
                let mut exact: Vec<(u32, f64)> = living.collect();
                exact.sort_by(|a, b| b.1.total_cmp(&a.1));
                let found = cache.nearest(&space(), &query, 0.3, 10).unwrap();
                assert!(found.is_sorted_by(|a, b| a.similarity >= b.similarity));
                for near in &found {
                    let n = u32::from_le_bytes((*near.entry.note).try_into().unwrap());
                    let vector = vectors[n as usize].as_ref().unwrap();
                    assert!(near.similarity >= 0.3 && (f64::from(near.similarity) - cosine(vector)).abs() < 1e-4);
                    right += usize::from(exact[..10].iter().any(|(of, _)| *of == n));
                }
            }
            assert!(right >= least, "{right} of 200");
        };
        check(&cache, &vectors, 196);
        bench.clock.pass(10_000);
        (0..ENTRIES as usize).step_by(7).for_each(|n| vectors[n] = None);
        for n in (0..ENTRIES).step_by(5) {
            cache.delete(key(n)).unwrap();
            vectors[n as usize] = None;
        }
        for n in (1..ENTRIES).step_by(3) {
            let vector = clustered(n + 50_017);
            set(&cache, n, &vector, 1000);
            vectors[n as usize] = Some(vector);
        }
        check(&cache, &vectors, 196);
        if on_disk {
            cache.flush().unwrap();
            let other = bench.open();
            check(&other, &vectors, 196);
            for n in ENTRIES..ENTRIES + 500 {
                let vector = clustered(n);
                set(&other, n, &vector, 1000);
                vectors.push(Some(vector));
            }
            other.flush().unwrap();
            check(&cache, &vectors, 196);
            // Replaced by another process: found where they are now, and not where they were.
            for n in (2..ENTRIES).step_by(3) {
                let vector = clustered(n + 90_031);
                set(&other, n, &vector, 1000);
                vectors[n as usize] = Some(vector);
            }
            other.flush().unwrap();
            check(&cache, &vectors, 196);
        }
        cache.clear(Some(&space()), None).unwrap();
        assert_eq!(cache.nearest(&space(), &clustered(1), -1.0, 10).unwrap(), []);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u32, u8),
    Get(u32, u8),
    Delete(u32),
    ClearAll,
    Flush,
    Reopen,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u32..12, 0u8..3).prop_map(|(n, content)| Step::Put(n, content)),
        8 => (0u32..12, 0u8..3).prop_map(|(n, content)| Step::Get(n, content)),
        2 => (0u32..12).prop_map(Step::Delete),
        1 => Just(Step::ClearAll),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        2 => (0u64..2_000_000).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn both_tiers_together_are_a_map(steps in prop::collection::vec(step(), 1..60), max_entries in 1usize..8) {
        let bench = Bench::new();
        let options = CacheOptions { max_entries, ..bench.options() };
        let mut cache = EmbeddingCache::open(options.clone()).unwrap();
        // What is there: its content, and when it was set.
        let mut naive: HashMap<u32, (u8, u64)> = HashMap::new();
        // What this cache does not answer any more, and the next one on the file does.
        let mut forgotten: HashMap<u32, (u8, u64)> = HashMap::new();
        for step in steps {
            let now = bench.clock.wall_ms();
            match step {
                Step::Put(n, content) => {
                    let draft = Draft { note: &[content], ..Draft::default() };
                    cache.commit(&space(), (key(n), Some([content; 32])), &draft).unwrap();
                    naive.insert(n, (content, now));
                    forgotten.remove(&n);
                }
                Step::Get(n, content) => {
                    let expected = naive.get(&n).filter(|(is, at)| *is == content && now < at + 3_600_000).is_some();
                    let found = cache.lookup((key(n), Some([content; 32])));
                    prop_assert_eq!(found.is_some(), expected);
                    prop_assert!(found.is_none_or(|entry| *entry.note == [content]));
                    if !expected {
                        forgotten.extend(naive.remove(&n).map(|entry| (n, entry)));
                    }
                }
                Step::Delete(n) => {
                    forgotten.remove(&n);
                    let there = naive.remove(&n).is_some_and(|(_, at)| now < at + 3_600_000);
                    let deleted = cache.delete(key(n)).unwrap();
                    prop_assert!(deleted || !there);
                }
                Step::ClearAll => {
                    cache.clear(None, None).unwrap();
                    naive.clear();
                    forgotten.clear();
                }
                Step::Flush => cache.flush().unwrap(),
                Step::Reopen => {
                    cache.close();
                    cache = EmbeddingCache::open(options.clone()).unwrap();
                    naive.extend(forgotten.drain());
                }
                Step::Pass(ms) => bench.clock.pass(ms),
            }
        }
    }
}

// Damage.

#[test]
fn files_of_others_are_left_alone() {
    let database =
        |sql: &'static str| move |path: &Path| rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
    let accounts = database("CREATE TABLE accounts (name); INSERT INTO accounts VALUES ('me')");
    let later =
        database("PRAGMA application_id = 1701667427; PRAGMA user_version = 99; CREATE TABLE entries (whatever)");
    let broken = |path: &Path| {
        accounts(path);
        let mut bytes = fs::read(path).unwrap();
        bytes[4096..].fill(7);
        bytes[101..110].fill(9);
        fs::write(path, bytes).unwrap();
    };
    let notes = |path: &Path| fs::write(path, b"these are my notes, and no database at all; ".repeat(99)).unwrap();
    let short = |path: &Path| fs::write(path, b"notes").unwrap();
    type Case<'a> = (&'a dyn Fn(&Path), &'a str);
    let cases: [Case; 5] = [
        (&accounts, "another program"),
        (&later, "schema 99"),
        (&broken, "another program"),
        (&notes, "another program"),
        (&short, "another program"),
    ];
    for (made, says) in cases {
        let bench = Bench::new();
        made(&bench.path());
        let before = fs::read(bench.path()).unwrap();
        let cache = bench.open();
        put(&cache, 1);
        assert!(get(&cache, 1), "memory works");
        assert!(cache.flush().unwrap_err().to_string().contains(says));
        assert_eq!(
            bench.happened(|event| matches!(event, Event::StorageRefused { reason, .. } if reason.contains(says))),
            1
        );
        assert!(!cache.stats().disk.unwrap().available);
        cache.close();
        assert_eq!(fs::read(bench.path()).unwrap(), before);
    }
}

#[test]
fn flipped_bytes_never_become_answers() {
    let flips = proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..12);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let bench = Bench::new();
    let cache = bench.open();
    (0..400).for_each(|n| put(&cache, n));
    cache.close();
    let whole = fs::read(bench.path()).unwrap();
    let outcome = runner.run(&flips, |flips| {
        let bench = Bench::new();
        let mut damaged = whole.clone();
        for (at, with) in flips {
            damaged[at.index(whole.len())] ^= with;
        }
        fs::write(bench.path(), damaged).unwrap();
        let set_aside = || bench.happened(|event| matches!(event, Event::FileSetAside { .. }));
        let mut cache = bench.open();
        // `get` asserts that whatever is found is whole.
        count(&cache, 400);
        // A key that is damaged within an index may keep searches from rows beside it: maintenance finds that out.
        cache.optimize(Duration::from_secs(60));
        loop {
            let before = set_aside();
            (0..400).for_each(|n| put(&cache, n));
            let flushed = cache.flush();
            if bench.happened(|event| matches!(event, Event::StorageRefused { .. })) > 0 {
                prop_assert_eq!(count(&cache, 400), 400);
                return Ok(());
            }
            prop_assert!(flushed.is_ok(), "{flushed:?} {:?}", bench.events.lock().unwrap());
            prop_assert_eq!(count(&cache, 400), 400);
            cache.close();
            cache = bench.open();
            let found = count(&cache, 400);
            if found == 400 {
                break;
            }
            // Damage in a page that nobody had looked at before may show only while the file is written. Then the file
            // goes with what was written to it, once: the next one is whole.
            prop_assert!(set_aside() > before, "{found} {:?}", bench.events.lock().unwrap());
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn rows_that_a_damaged_key_hides_are_found_again() {
    let bench = Bench::new();
    let cache = bench.open();
    (0..400).for_each(|n| put(&cache, n));
    cache.close();
    let mut file = fs::read(bench.path()).unwrap();
    // The key of the middle one, as the index has it: a blob of 32 bytes, then the id of its row.
    let mut keys: Vec<Key> = (0..400).map(key).collect();
    keys.sort_by_key(|key| *key.as_bytes());
    let places: Vec<usize> =
        file.windows(32).enumerate().filter(|(_, at)| at == keys[200].as_bytes()).map(|at| at.0).collect();
    for at in &places {
        if file[at - 3..*at].windows(2).any(|header| header == [0x4c, 0x02] || header == [0x4c, 0x01]) {
            file[*at] = !file[*at];
        }
    }
    fs::write(bench.path(), &file).unwrap();
    let cache = bench.open();
    let before = count(&cache, 400);
    assert!(before < 400, "a damaged key hides entries");
    // A search that is led to a wrong row may have found it out by itself.
    cache.flush().unwrap();
    cache.optimize(Duration::from_secs(60));
    let events = || bench.events.lock().unwrap().clone();
    assert_eq!(bench.happened(|event| matches!(event, Event::IndexRebuilt { .. })), 1, "{before} {:?}", events());
    assert_eq!(count(&cache, 400), 400, "no row was damaged: {:?}", events());
    cache.optimize(Duration::from_secs(60));
    assert_eq!(bench.happened(|event| matches!(event, Event::IndexRebuilt { .. })), 1, "once");
    (0..400).for_each(|n| put(&cache, n));
    cache.close();
    assert_eq!(count(&bench.open(), 400), 400);
}

#[test]
fn a_damaged_length_does_not_refuse_all_vectors() {
    let bench = Bench::new();
    let cache = bench.open();
    put(&cache, 1);
    cache.close();
    let connection = rusqlite::Connection::open(bench.path()).unwrap();
    connection.execute("UPDATE spaces SET dimensions = 65", []).unwrap();
    drop(connection);
    let cache = bench.open();
    put(&cache, 2);
    cache.close();
    assert_eq!(count(&bench.open(), 3), 2);
}

#[test]
fn a_damaged_row_is_a_miss_that_repairs_itself() {
    let bench = Bench::new();
    let cache = bench.open();
    (0..10).for_each(|n| put(&cache, n));
    cache.close();
    let connection = rusqlite::Connection::open(bench.path()).unwrap();
    connection.execute("UPDATE entries SET note = x'00' WHERE key = ?1", [&key(3).as_bytes()[..]]).unwrap();
    connection.execute("UPDATE entries SET vector = 'text' WHERE key = ?1", [&key(4).as_bytes()[..]]).unwrap();
    connection
        .execute("UPDATE entries SET expires_ms = expires_ms + 1 WHERE key = ?1", [&key(5).as_bytes()[..]])
        .unwrap();
    drop(connection);
    let cache = bench.open();
    assert_eq!(count(&cache, 10), 7);
    cache.flush().unwrap();
    let stats = cache.stats();
    assert_eq!((stats.missed_damaged, stats.disk.unwrap().entries), (3, 7));
    assert_eq!(bench.happened(|event| matches!(event, Event::RowsDamaged { .. })), 3);
    (0..10).for_each(|n| put(&cache, n));
    cache.close();
    assert_eq!(count(&bench.open(), 10), 10);
}

#[test]
fn a_truncated_file_costs_its_entries_and_nothing_else() {
    let bench = Bench::new();
    let cache = bench.open();
    (0..2000).for_each(|n| put(&cache, n));
    cache.close();
    let whole = fs::read(bench.path()).unwrap();
    for length in [0, 1, 99, 100, 4096, 8192, 20_000, whole.len() / 2, whole.len() - 8192, whole.len() - 1] {
        let bench = Bench::new();
        fs::write(bench.path(), &whole[..length]).unwrap();
        let cache = bench.open();
        let before = count(&cache, 2000);
        (0..2000).for_each(|n| put(&cache, n));
        cache.flush().unwrap();
        cache.close();
        assert_eq!(count(&bench.open(), 2000), 2000, "cut to {length}, {before} left");
    }
}

#[test]
fn truncated_while_open() {
    let bench = Bench::new();
    let cache = EmbeddingCache::open(CacheOptions { max_entries: 1, ..bench.options() }).unwrap();
    (0..2000).for_each(|n| put(&cache, n));
    cache.close();
    let cache = EmbeddingCache::open(CacheOptions { max_entries: 1, ..bench.options() }).unwrap();
    assert!(get(&cache, 5));
    OpenOptions::new().write(true).open(bench.path()).unwrap().set_len(30_000).unwrap();
    count(&cache, 2000);
    (0..2000).for_each(|n| put(&cache, n));
    cache.flush().ok();
    cache.close();
    let cache = bench.open();
    (0..2000).for_each(|n| put(&cache, n));
    cache.flush().unwrap();
    assert_eq!(count(&cache, 2000), 2000);
}

#[test]
fn deleted_while_open() {
    let bench = Bench::new();
    let cache = bench.open();
    (0..10).for_each(|n| put(&cache, n));
    cache.flush().unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let mut path = bench.path().into_os_string();
        path.push(suffix);
        fs::remove_file(path).ok();
    }
    (10..20).for_each(|n| put(&cache, n));
    cache.flush().unwrap();
    assert_eq!(count(&cache, 20), 20, "memory has all of them");
    assert_eq!(bench.happened(|event| matches!(event, Event::StorageFailed { .. })), 1);
    let other = bench.open();
    assert_eq!((0..20).map(|n| u32::from(get(&other, n))).collect::<Vec<_>>(), [[0; 10], [1; 10]].concat());
    assert!(cache.stats().disk.unwrap().available);
}

/// The directory cannot be made: there is a file in its place. (Root may write anywhere, so rights do not do here.)
#[test]
fn a_directory_that_cannot_be_written_is_tried_again_later() {
    let bench = Bench::new();
    let blocked = bench.directory.path().join("blocked");
    fs::write(&blocked, "a file").unwrap();
    let options = CacheOptions { path: Some(blocked.join("cache.db")), max_entries: 5, ..bench.options() };
    let cache = EmbeddingCache::open(options.clone()).unwrap();
    (0..10).for_each(|n| put(&cache, n));
    assert!(matches!(cache.flush(), Err(Error::Storage { .. })));
    assert_eq!(count(&cache, 10), 5, "what memory holds");
    assert_eq!(bench.happened(|event| matches!(event, Event::StorageFailed { .. })), 1);
    let disk = cache.stats().disk.unwrap();
    assert!(!disk.available && disk.lost == 10 && disk.errors > 0, "{disk:?}");
    fs::remove_file(&blocked).unwrap();
    bench.clock.pass(60_000);
    while !cache.stats().disk.unwrap().available {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(bench.happened(|event| matches!(event, Event::StorageRestored { .. })), 1);
    (0..10).for_each(|n| put(&cache, n));
    cache.flush().ok();
    cache.flush().unwrap();
    assert_eq!(count(&cache, 10), 10);
}

#[test]
fn a_path_that_is_a_directory_is_refused_at_once() {
    let bench = Bench::new();
    let options = CacheOptions { path: Some(bench.directory.path().to_owned()), ..bench.options() };
    assert!(matches!(EmbeddingCache::open(options), Err(Error::InvalidConfig { .. })));
}

// Many processes. A child is this very program, told by its environment what to do.

const ROLE: &str = "EMBEDCORE_TEST_ROLE";

fn child(role: &str, path: &Path, test: &str) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role).env("EMBEDCORE_TEST_PATH", path);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn role(name: &str) -> Option<EmbeddingCache> {
    (env::var(ROLE).ok()? == name).then(|| {
        let path = env::var("EMBEDCORE_TEST_PATH").unwrap().into();
        EmbeddingCache::open(CacheOptions { path: Some(path), max_entries: 50, ..CacheOptions::default() }).unwrap()
    })
}

/// Writes for ever, and says after every flush how far it is.
fn write_for_ever(cache: &EmbeddingCache) -> ! {
    let mut n = 0u32;
    loop {
        (0..100).for_each(|_| {
            put(cache, n % 5000);
            n += 1;
        });
        if n.is_multiple_of(300) {
            cache.flush().unwrap();
            println!("flushed {}", n.min(5000));
        }
    }
}

#[test]
fn killed_at_any_moment_nothing_is_torn_and_what_was_flushed_is_there() {
    if let Some(cache) = role("writer") {
        write_for_ever(&cache);
    }
    let kills: u64 = env::var("EMBEDCORE_TEST_KILLS").map_or(24, |kills| kills.parse().unwrap());
    let bench = Bench::new();
    let mut flushed = 0;
    for kill in 0..kills {
        let mut writer =
            child("writer", &bench.path(), "killed_at_any_moment_nothing_is_torn_and_what_was_flushed_is_there");
        let out = writer.stdout.take().unwrap();
        let listening = thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.filter_map(|line| line.split("flushed ").nth(1)?.trim().parse::<u32>().ok()).max().unwrap_or(0)
        });
        // From the start of the process to well into its work.
        thread::sleep(Duration::from_micros(20_000 + kill.wrapping_mul(7_919) % 97 * 1_300));
        writer.kill().unwrap();
        writer.wait().unwrap();
        flushed = flushed.max(listening.join().unwrap());
        let options = CacheOptions { max_entries: 10, ..bench.options() };
        bench.clock.set(embedcore::host::SystemClock::default().wall_ms());
        let cache = EmbeddingCache::open(options).unwrap();
        let found = count(&cache, flushed);
        assert_eq!(found, flushed, "kill {kill}");
        let stats = cache.stats();
        assert_eq!(stats.missed_damaged, 0);
        cache.close();
        assert_eq!(bench.happened(|event| matches!(event, Event::FileSetAside { .. })), 0);
    }
    assert!(flushed > 0, "the writer never came as far as a flush");
}

#[test]
fn four_processes_share_one_file() {
    const ENTRIES: u32 = 600;
    let name = "four_processes_share_one_file";
    if let Some(cache) = role("peer") {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        let first: u32 = line.trim().parse().unwrap();
        for n in 0..ENTRIES {
            put(&cache, first + n);
            assert!(get(&cache, first + n));
            if n % 50 == 0 {
                count(&cache, 100);
                cache.flush().unwrap();
            }
        }
        cache.flush().unwrap();
        assert_eq!(cache.stats().disk.unwrap().errors, 0);
        // Another process' value is there once that one has flushed: they tell each other through the file.
        println!("done");
        std::io::stdin().read_line(&mut line).unwrap();
        assert_eq!(count(&cache, 4 * ENTRIES), 4 * ENTRIES);
        cache.close();
        println!("saw all");
        return;
    }
    if env::var(ROLE).is_ok() {
        return;
    }
    let bench = Bench::new();
    let mut peers: Vec<Child> = (0..4).map(|_| child("peer", &bench.path(), name)).collect();
    let mut outs: Vec<_> = peers.iter_mut().map(|peer| BufReader::new(peer.stdout.take().unwrap())).collect();
    for (i, peer) in peers.iter_mut().enumerate() {
        writeln!(peer.stdin.as_ref().unwrap(), "{}", i as u32 * ENTRIES).unwrap();
    }
    for out in &mut outs {
        assert!(out.lines().map_while(Result::ok).any(|line| line.contains("done")));
    }
    for peer in &peers {
        writeln!(peer.stdin.as_ref().unwrap(), "look").unwrap();
    }
    for (peer, mut out) in peers.into_iter().zip(outs) {
        let mut said = String::new();
        out.read_to_string(&mut said).unwrap();
        let ended = peer.wait_with_output().unwrap();
        assert!(ended.status.success() && said.contains("saw all"), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    }
}

#[test]
fn one_lease_for_all() {
    let bench = Bench::new();
    let caches: Vec<EmbeddingCache> = (0..4).map(|_| bench.open()).collect();
    let minute = Duration::from_secs(60);
    // Whom the file gives no answer in time goes on without a lease: on a busy machine that happens now and then.
    let mut asked = (0..20).map(|round| {
        let keys: Vec<Key> = (20 * round..20 * round + 20).map(key).collect();
        let granted: Vec<Vec<bool>> = thread::scope(|scope| {
            let asking: Vec<_> = caches.iter().map(|cache| scope.spawn(|| cache.acquire(&keys, minute))).collect();
            asking.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        (20 * round, keys, granted)
    });
    let one_each = |granted: &[Vec<bool>]| (0..20).all(|n| granted.iter().filter(|granted| granted[n]).count() == 1);
    let Some((first, keys, granted)) = asked.find(|(_, _, granted)| one_each(granted)) else {
        panic!("several have a lease")
    };
    let owner = granted.iter().position(|granted| granted[0]).unwrap();
    let other = (owner + 1) % 4;
    assert_eq!(caches[owner].acquire(&keys[..1], minute), [true], "one's own is renewed");
    assert_eq!(caches[other].acquire(&keys[..1], minute), [false]);
    caches[other].release(keys[..1].to_vec());
    assert_eq!(caches[other].acquire(&keys[..1], minute), [false], "another's cannot be given back");
    put(&caches[owner], first);
    caches[owner].release(keys[..1].to_vec());
    while caches[other].acquire(&keys[..1], minute) != [true] {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(get(&caches[other], first), "whoever has the lease next sees what the one before committed");
    bench.clock.pass(60_000);
    assert_eq!(caches[owner].acquire(&keys[..1], minute), [true], "expired");
    bench.clock.set(AT - 86_400_000);
    assert_eq!(caches[other].acquire(&keys[..1], minute), [true], "taken under a clock that was ahead");
    let alone = EmbeddingCache::open(CacheOptions::default()).unwrap();
    assert_eq!(alone.acquire(&keys[..2], minute), [true, true]);
}

#[test]
fn a_locked_file_makes_callers_wait_and_nothing_fail() {
    let bench = Bench::new();
    let cache = bench.open();
    put(&cache, 0);
    cache.flush().unwrap();
    let mut connection = rusqlite::Connection::open(bench.path()).unwrap();
    let holding = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    (1..10).for_each(|n| put(&cache, n));
    let other = bench.open();
    assert!(get(&other, 0) && !get(&other, 1), "readers do not wait");
    thread::scope(|scope| {
        let flushing = scope.spawn(|| cache.flush());
        // Longer than SQLite waits by itself.
        thread::sleep(Duration::from_millis(5_500));
        drop(holding);
        flushing.join().unwrap().unwrap();
    });
    assert_eq!(count(&other, 10), 10);
    assert_eq!(cache.stats().disk.unwrap().errors, 0);
}

fn set_note(cache: &EmbeddingCache, n: u32, note: &str) {
    let vector = vector(n + 1, 8);
    let draft = Draft { vector: Some(&vector), note: note.as_bytes(), ..Draft::default() };
    cache.commit(&space(), key(n), &draft).unwrap();
}

fn note(cache: &EmbeddingCache, n: u32) -> Option<String> {
    cache.lookup(key(n)).map(|entry| String::from_utf8(entry.note.to_vec()).unwrap())
}

/// Notes of all that is found by vectors.
fn near_notes(cache: &EmbeddingCache) -> Vec<String> {
    let near = cache.nearest(&space(), &vector(1, 8), -1.0, 10).unwrap();
    let mut notes: Vec<_> = near.iter().map(|near| String::from_utf8(near.entry.note.to_vec()).unwrap()).collect();
    notes.sort();
    notes
}

#[test]
fn a_copy_that_nobody_can_compare_with_the_file_is_no_answer() {
    let bench = Bench::new();
    let cache = bench.open();
    (0..3).for_each(|n| set_note(&cache, n, "old"));
    cache.flush().unwrap();
    let other = bench.open();
    set_note(&other, 0, "new");
    other.delete(key(1)).unwrap();
    other.flush().unwrap();
    let mut name = bench.path().into_os_string();
    name.push("-lock");
    let lock = OpenOptions::new().write(true).open(name).unwrap();
    // As long as a file is opened nobody else opens it, and this cache has not read it yet.
    lock.lock().unwrap();
    bench.clock.pass(250);
    assert_eq!((note(&cache, 0), note(&cache, 1)), (None, None));
    assert!(!cache.contains(key(0)) && !cache.contains(key(1)) && cache.glance(key(0)).is_none());
    let many = cache.lookup_many([key(0), key(1), key(2)]);
    assert!(many.iter().all(Option::is_none), "nobody knows which of them are still right");
    assert_eq!(near_notes(&cache), Vec::<String>::new());
    // What it sets itself is newer than all others.
    set_note(&cache, 3, "own");
    assert_eq!(note(&cache, 3).as_deref(), Some("own"));
    lock.unlock().unwrap();
    assert_eq!(
        (note(&cache, 0).as_deref(), note(&cache, 1), note(&cache, 2).as_deref()),
        (Some("new"), None, Some("old"))
    );
    assert_eq!(near_notes(&cache), ["new", "old", "own"]);
}

/// Sets a note that was computed from what there was `age` ms ago.
fn set_computed(cache: &EmbeddingCache, n: u32, note: &str, age: u64) {
    let vector = vector(n + 1, 8);
    let draft = Draft {
        vector: Some(&vector),
        note: note.as_bytes(),
        age: Some(Duration::from_millis(age)),
        ..Draft::default()
    };
    cache.commit(&space(), key(n), &draft).unwrap();
}

#[test]
fn what_another_process_has_written_since_a_computation_began_stays() {
    let bench = Bench::new();
    let (ours, theirs) = (bench.open(), bench.open());
    (0..6).for_each(|n| set_note(&theirs, n, "old"));
    theirs.flush().unwrap();
    bench.clock.pass(1000);
    set_note(&theirs, 0, "new");
    assert!(theirs.delete(key(1)).unwrap());
    let draft = |kind| Draft { note: b"theirs", kind, ..Draft::default() };
    theirs.commit(&space(), key(6), &draft("a")).unwrap();
    theirs.clear(Some(&space()), Some("a")).unwrap();
    theirs.flush().unwrap();
    bench.clock.pass(500);
    // Begun before all of that, and after.
    (0..3).for_each(|n| set_computed(&ours, n, "computed", 600));
    (3..5).for_each(|n| set_computed(&ours, n, "computed", 400));
    let of_a_kind = |kind| Draft { note: b"computed", kind, age: Some(Duration::from_millis(600)), ..Draft::default() };
    ours.commit(&space(), key(6), &of_a_kind("a")).unwrap();
    ours.commit(&space(), key(7), &of_a_kind("b")).unwrap();
    ours.flush().unwrap();
    let right =
        [Some("new"), None, Some("computed"), Some("computed"), Some("computed"), Some("old"), None, Some("computed")];
    for cache in [&ours, &theirs] {
        bench.clock.pass(250);
        let notes: Vec<_> = (0..8).map(|n| note(cache, n)).collect();
        assert_eq!(notes.iter().map(Option::as_deref).collect::<Vec<_>>(), right);
    }
    assert_eq!(ours.stats().disk.unwrap().lost, 0, "superseded, and not lost");
    // What is set, and not computed, is as new as its call.
    (0..2).for_each(|n| set_note(&ours, n, "set"));
    ours.flush().unwrap();
    bench.clock.pass(250);
    assert_eq!((note(&theirs, 0).as_deref(), note(&theirs, 1).as_deref()), (Some("set"), Some("set")));
}

#[test]
fn changes_of_one_process_keep_their_order_whatever_the_clock_does() {
    let bench = Bench::new();
    let (ours, theirs) = (bench.open(), bench.open());
    for back in [0, 5, 30_000, 7_200_000] {
        set_note(&ours, 0, "first");
        set_note(&ours, 1, "first");
        assert!(ours.delete(key(1)).unwrap());
        ours.clear(Some(&space()), Some("kind")).unwrap();
        bench.clock.set(bench.clock.wall_ms() - back);
        set_note(&ours, 0, "second");
        set_note(&ours, 1, "second");
        bench.clock.pass(50);
        ours.flush().unwrap();
        bench.clock.pass(250);
        for cache in [&ours, &theirs] {
            let notes = (note(cache, 0), note(cache, 1));
            assert_eq!(notes, (Some("second".to_owned()), Some("second".to_owned())), "{back} ms back");
        }
        assert!(ours.delete(key(0)).unwrap(), "{back} ms back");
        assert!(ours.delete(key(1)).unwrap(), "{back} ms back");
    }
}

#[test]
fn what_waits_to_be_written_is_found_by_its_vector_although_the_file_cannot_be_opened() {
    let bench = Bench::new();
    let mut name = bench.path().into_os_string();
    name.push("-lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(name).unwrap();
    lock.lock().unwrap();
    let cache = EmbeddingCache::open(CacheOptions { max_entries: 1, ..bench.options() }).unwrap();
    for n in 0..3 {
        set_note(&cache, n, &n.to_string());
    }
    assert_eq!(
        (note(&cache, 0).as_deref(), note(&cache, 2).as_deref()),
        (Some("0"), Some("2")),
        "memory has one of them"
    );
    assert_eq!(near_notes(&cache), ["0", "1", "2"], "each once");
    cache.begin_delete(key(1));
    assert_eq!(near_notes(&cache), ["0", "2"]);
    lock.unlock().unwrap();
    cache.flush().unwrap();
    assert_eq!(near_notes(&cache), ["0", "2"]);
}

#[test]
fn without_its_file_a_cache_answers_with_what_is_set_from_then_on() {
    let bench = Bench::new();
    let cache = bench.open();
    (0..2).for_each(|n| set_note(&cache, n, "old"));
    cache.flush().unwrap();
    let away = bench.directory.path().join("away.db");
    fs::rename(bench.path(), &away).unwrap();
    fs::create_dir(bench.path()).unwrap();
    bench.clock.pass(250);
    set_note(&cache, 2, "alone");
    cache.flush().unwrap_err();
    // Whoever has the file may have changed it.
    assert_eq!((note(&cache, 0), note(&cache, 2).as_deref()), (None, Some("alone")));
    assert_eq!(near_notes(&cache), Vec::<String>::new());
    set_note(&cache, 0, "alone");
    bench.clock.pass(250);
    assert_eq!((note(&cache, 0).as_deref(), note(&cache, 1)), (Some("alone"), None));
    assert_eq!(near_notes(&cache), ["alone"]);
}

#[test]
fn a_full_queue_makes_callers_wait_and_loses_nothing() {
    let bench = Bench::new();
    let cache = Arc::new(EmbeddingCache::open(CacheOptions { max_entries: 10, ..bench.options() }).unwrap());
    thread::scope(|scope| {
        for part in 0..4 {
            let cache = Arc::clone(&cache);
            scope.spawn(move || (0..10_000).for_each(|n| put(&cache, part * 10_000 + n)));
        }
    });
    cache.flush().unwrap();
    let disk = cache.stats().disk.unwrap();
    assert_eq!((disk.entries, disk.written, disk.lost), (40_000, 40_000, 0));
    cache.close();
    let mut file = OpenOptions::new().read(true).open(bench.path()).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut header = [0; 16];
    file.read_exact(&mut header).unwrap();
    assert_eq!(&header, b"SQLite format 3\0");
}
