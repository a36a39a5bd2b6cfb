//! The file of a cache on a system that fails: each of its calls, once (`shim.c` stands in between). Whatever fails, no lookup is
//! wrong, nothing hangs or panics, what was flushed is there afterwards unless it was the file itself that could not be read, and
//! the cache goes on working. After a loss of power, what was flushed is there.
//!
//! `EMBEDCORE_FAULTS=all` makes each call fail; else one in so many.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use embedcore::cache::{CacheOptions, Draft, EmbeddingCache};
use embedcore::embedding::{Key, Space};

const ENTRIES: usize = 16;

/// Far more than any of it takes: SQLite itself tries for ten seconds where a lock could not be given back.
const HANGS: Duration = Duration::from_secs(240);

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
    let (path, told) =
        (PathBuf::from(std::env::var("SCENARIO_PATH").unwrap()), std::env::var("SCENARIO_TOLD").unwrap());
    let mut told = OpenOptions::new().append(true).create(true).open(told).unwrap();
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

static SHIM: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let place = tempfile::tempdir().unwrap();
    let shim = place.path().join("shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.c");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status =
        Command::new(compiler).args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).arg("-ldl").status();
    assert!(status.unwrap().success());
    (place, shim)
});

struct Outcome {
    /// For each entry, since which round the file has it, by what `flush` said.
    flushed: [Option<usize>; ENTRIES],
    /// How many calls there were that can fail like this.
    calls: usize,
}

/// Runs the scenario in a directory, with a call failing.
fn run(place: &Path, kind: &str, at: usize, seed: usize) -> Outcome {
    let (told, count) = (place.join("told"), place.join("count"));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "scenario", "--ignored", "--nocapture"])
        .env("LD_PRELOAD", &SHIM.1)
        .env("SCENARIO_PATH", place.join("file.db"))
        .env("SCENARIO_TOLD", &told)
        .env("FAULTS_PATH", place.join("file.db"))
        .env("FAULTS_KIND", kind)
        .env("FAULTS_AT", at.to_string())
        .env("FAULTS_SEED", seed.to_string())
        .env("FAULTS_COUNT", &count)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > HANGS {
            child.kill().unwrap();
            panic!("{kind} at call {at}: it hangs");
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    let ended =
        if kind == "POWER" && at > 0 { status.code() == Some(137) || status.success() } else { status.success() };
    assert!(ended, "{kind} at call {at}: {status}: {said}");
    let mut flushed = [None; ENTRIES];
    for line in fs::read_to_string(told).unwrap_or_default().lines().filter(|line| *line != "end") {
        let mut parts = line.split(' ');
        let mut number = || parts.next().unwrap().parse::<usize>().unwrap();
        let (round, from, to) = (number(), number(), number());
        // What was replaced is no answer any more, whether the file has what it was replaced by or not.
        flushed[from..to].fill((parts.next() == Some("true")).then_some(round));
    }
    Outcome { flushed, calls: fs::read_to_string(count).unwrap().trim().parse().unwrap() }
}

/// What is found afterwards, with nothing failing: how many entries are not there that were flushed.
fn look(place: &Path, what: &str, outcome: &Outcome) -> usize {
    let path = place.join("file.db");
    let cache = open(&path);
    let mut missing = 0;
    for (n, flushed) in outcome.flushed.iter().enumerate() {
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

fn place() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// How many calls there are of a kind, and how many that were flushed are missing after each of them failed.
fn each_call_fails(kind: &str, tries: usize) -> (usize, usize, usize) {
    let whole = place();
    let calm = run(whole.path(), kind, 0, 1);
    assert_eq!(calm.flushed.iter().filter(|round| **round == Some(2)).count(), ENTRIES - 1, "{kind}: nothing fails");
    let thorough = std::env::var_os("EMBEDCORE_FAULTS").is_some();
    let step = if thorough { 1 } else { (calm.calls / 12).max(1) };
    let (mut runs, mut missing) = (0, 0);
    for at in (1..=calm.calls).step_by(step) {
        for seed in 0..if thorough { tries } else { 1 } {
            let place = place();
            let outcome = run(place.path(), kind, at, seed * 7919 + at);
            let lost = look(place.path(), &format!("{kind} at call {at}, seed {seed}"), &outcome);
            assert!(
                kind != "POWER" || lost == 0,
                "{kind} at call {at}, seed {seed}: {lost} entries that were flushed are gone"
            );
            (runs, missing) = (runs + 1, missing + lost);
        }
    }
    eprintln!("{kind}: {} calls, {runs} runs, {missing} entries missing that were flushed", calm.calls);
    (calm.calls, runs, missing)
}

#[test]
fn a_call_that_fails_makes_no_answer_wrong() {
    each_call_fails("EIO", 1);
}

#[test]
fn a_disk_that_is_full_for_a_moment_makes_no_answer_wrong() {
    let (_, _, missing) = each_call_fails("ENOSPC", 1);
    assert_eq!(missing, 0, "what was in the file is gone because there was no room for more");
}

#[test]
fn a_call_that_is_interrupted_is_made_again() {
    let (_, _, missing) = each_call_fails("EINTR", 1);
    assert_eq!(missing, 0);
}

#[test]
fn half_a_read_or_write_is_not_taken_for_all_of_it() {
    let (_, _, missing) = each_call_fails("SHORT", 1);
    assert_eq!(missing, 0);
}

#[test]
fn what_could_not_be_synced_is_not_said_to_be_flushed() {
    let (_, _, missing) = each_call_fails("SYNC", 1);
    assert_eq!(missing, 0);
}

#[test]
fn what_was_flushed_survives_a_loss_of_power() {
    each_call_fails("POWER", 3);
}
