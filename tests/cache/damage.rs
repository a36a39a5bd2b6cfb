//! Files that are damaged, cut, deleted, somebody else's, or cannot be written.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::thread;
use std::time::Duration;

use embedcore::cache::{CacheOptions, EmbeddingCache, Event};
use embedcore::embedding::Key;
use embedcore::error::Error;
use proptest::prelude::*;

use super::{Bench, count, get, key, put};

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
            let mut found = count(&cache, 400);
            if found < 400 {
                // What cannot be read for once need not be damaged: the second time it is.
                count(&cache, 400);
                cache.flush().unwrap();
                found = count(&cache, 400);
            }
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
