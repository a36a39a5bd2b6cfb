//! Many processes on one file. A child is this very program, told by its environment what to do.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, thread};

use embedcore::cache::{CacheOptions, Draft, EmbeddingCache, Event};
use embedcore::embedding::Key;
use embedcore::host::Clock;

use super::{AT, Bench, count, get, key, put, space, vector};

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
        let mut writer = child(
            "writer",
            &bench.path(),
            "processes::killed_at_any_moment_nothing_is_torn_and_what_was_flushed_is_there",
        );
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
    let name = "processes::four_processes_share_one_file";
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
    // The thread that writes may have met the missing file before the entry was set, or after it.
    let near = near_notes(&cache);
    assert!(near.is_empty() || near == ["alone"], "{near:?}");
    set_note(&cache, 0, "alone");
    bench.clock.pass(250);
    assert_eq!((note(&cache, 0).as_deref(), note(&cache, 1)), (Some("alone"), None));
    let near = near_notes(&cache);
    assert!(near == ["alone"] || near == ["alone", "alone"], "{near:?}");
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
