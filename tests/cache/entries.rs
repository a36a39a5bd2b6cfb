//! What is kept, for how long, and what is found of it.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use embedcore::cache::{CacheOptions, Draft, EmbeddingCache, Precision, Recall};
use embedcore::embedding::{Space, content_hash};
use embedcore::error::Error;
use embedcore::host::Clock;
use proptest::prelude::*;

use super::{AT, Bench, count, get, key, put, space, vector};

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
