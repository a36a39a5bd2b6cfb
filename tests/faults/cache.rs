//! The file of a cache. What was flushed is there afterwards, also after a loss of power.

use std::io::Write;
use std::path::Path;

use embedcore::cache::{CacheOptions, Draft, EmbeddingCache};
use embedcore::embedding::{Key, Space};

use super::{Case, asked, each_call_fails};

const CASE: Case = Case { scenario: "cache::scenario", look };

const ENTRIES: usize = 16;

fn open(path: &Path) -> EmbeddingCache {
    let options = CacheOptions { path: Some(path.to_owned()), retry_after_ms: 20, ..CacheOptions::default() };
    EmbeddingCache::open(options).unwrap()
}

fn key(n: usize) -> Key {
    Space::builder().field("model", "1").finish().key().field("n", n.to_string()).finish()
}

/// The vector of an entry, as it is at first and as it is replaced.
fn vector(n: usize, round: usize) -> Vec<f32> {
    (0..64).map(|i| (round * 10_000 + n * 64 + i) as f32).collect()
}

fn put(cache: &EmbeddingCache, n: usize, round: usize) {
    let space = Space::builder().field("model", "1").finish();
    // One does not fit into a page.
    let note = vec![n as u8; if n == 3 { 20_000 } else { 10 }];
    let draft = Draft { vector: Some(&vector(n, round)), note: &note, ..Draft::default() };
    cache.commit(&space, key(n), &draft).unwrap();
}

/// In which round an entry is; none: it is not there. Anything else is wrong.
fn round(cache: &EmbeddingCache, n: usize) -> Option<usize> {
    let found = cache.lookup(key(n))?.vector.to_vec();
    Some((0..3).find(|round| found == vector(n, *round)).unwrap_or_else(|| panic!("entry {n} is wrong: {found:?}")))
}

/// What happens while a call fails. Says what was flushed, line by line.
#[test]
#[ignore = "runs in a process of its own, below the shim"]
fn scenario() {
    let (path, mut told) = asked();
    for round_now in 0..3 {
        let cache = open(&path);
        // What is there of the round before.
        for n in 0..ENTRIES {
            assert!(round(&cache, n).is_none_or(|round| round < round_now));
        }
        for n in 0..ENTRIES / 2 {
            put(&cache, n, round_now);
        }
        let flushed = cache.flush().is_ok();
        writeln!(told, "{round_now} 0 {} {flushed}", ENTRIES / 2).unwrap();
        for n in ENTRIES / 2..ENTRIES {
            put(&cache, n, round_now);
        }
        let deleted = cache.delete(key(ENTRIES - 1)).is_ok();
        assert_eq!(round(&cache, ENTRIES - 1), None, "what was deleted is there");
        for n in 0..ENTRIES - 1 {
            assert!(round(&cache, n).is_none_or(|round| round == round_now), "entry {n} is older than the last write");
        }
        let flushed = cache.flush().is_ok() && deleted;
        cache.close();
        writeln!(told, "{round_now} {} {} {flushed}", ENTRIES / 2, ENTRIES - 1).unwrap();
    }
    writeln!(told, "end").unwrap();
}

/// For each entry, since which round the file has it, by what `flush` said.
fn flushed(told: &str) -> [Option<usize>; ENTRIES] {
    let mut flushed = [None; ENTRIES];
    for line in told.lines().filter(|line| *line != "end") {
        let mut parts = line.split(' ');
        let mut number = || parts.next().unwrap().parse::<usize>().unwrap();
        let (round, from, to) = (number(), number(), number());
        // What was replaced is no answer any more, whether the file has what it was replaced by or not.
        flushed[from..to].fill((parts.next() == Some("true")).then_some(round));
    }
    flushed
}

/// How many entries are not there that were flushed.
fn look(place: &Path, what: &str, told: &str) -> usize {
    let path = place.join("file.db");
    let cache = open(&path);
    let mut missing = 0;
    for (n, flushed) in flushed(told).iter().enumerate() {
        let Some(flushed) = flushed else { continue };
        match round(&cache, n) {
            Some(found) => {
                assert!(found >= *flushed, "{what}: entry {n} is of round {found}, and {flushed} was flushed")
            }
            None => missing += 1,
        }
    }
    put(&cache, 0, 0);
    assert_eq!(cache.flush(), Ok(()), "{what}: it does not work afterwards");
    cache.close();
    assert_eq!(round(&open(&path), 0), Some(0), "{what}: it does not work afterwards");
    missing
}

#[test]
fn a_call_that_fails_makes_no_answer_wrong() {
    let missing = each_call_fails(&CASE, "EIO", 1);
    assert_eq!(missing, 0, "what was in the file is gone because it could not be read for once");
}

#[test]
fn a_disk_that_is_full_for_a_moment_makes_no_answer_wrong() {
    let missing = each_call_fails(&CASE, "ENOSPC", 1);
    assert_eq!(missing, 0, "what was in the file is gone because there was no room for more");
}

#[test]
fn a_call_that_is_interrupted_is_made_again() {
    let missing = each_call_fails(&CASE, "EINTR", 1);
    assert_eq!(missing, 0);
}

#[test]
fn half_a_read_or_write_is_not_taken_for_all_of_it() {
    let missing = each_call_fails(&CASE, "SHORT", 1);
    assert_eq!(missing, 0);
}

#[test]
fn what_could_not_be_synced_is_not_said_to_be_flushed() {
    let missing = each_call_fails(&CASE, "SYNC", 1);
    assert_eq!(missing, 0);
}

#[test]
fn what_was_flushed_survives_a_loss_of_power() {
    let missing = each_call_fails(&CASE, "POWER", 3);
    assert_eq!(missing, 0, "what was flushed is gone");
}
