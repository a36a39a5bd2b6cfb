//! The queue and the file of the disk tier.

use std::sync::atomic::AtomicUsize;
use std::thread;

use super::*;
use crate::cache::entry::{Draft, Precision};
use crate::cache::memory::Now;
use crate::host::SystemClock;

#[test]
fn a_full_disk_suspends_the_tier_and_nothing_stale_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&failures);
    let listener: Listener = Arc::new(move |event| {
        counted.fetch_add(usize::from(matches!(event, Event::StorageFailed { .. })), Ordering::SeqCst);
    });
    let path = directory.path().join("cache.db");
    let options = DiskOptions { path, max_bytes: None, page_bytes: 0, retry_after_ms: 200, touch_after_ms: 0 };
    let clock = Arc::new(SystemClock::default());
    let disk = Disk::new(options, clock.clone(), Some(listener)).unwrap();
    let space = Space::builder().finish();
    let key = |n: u32| space.key().field("n", n.to_le_bytes()).finish();
    let entry = |note: Vec<u8>| {
        Arc::new(Draft { note: &note, ..Draft::default() }.entry(&space, None, Precision::F32, clock.wall_ms(), None))
    };
    let note = |n: u32| {
        let now = Now { wall_ms: clock.wall_ms(), steady_ms: clock.steady_ms(), epoch: 0, verified: true };
        match &disk.get(&[(key(n), None)], Purpose::Look, now)[..] {
            [OnDisk::Hit(entry)] => Some(entry.note.len()),
            _ => None,
        }
    };
    disk.put((0..10).map(|n| (key(n), entry(vec![1; 100]), 0)));
    disk.flush().unwrap();
    disk.execute("PRAGMA max_page_count = 20");
    disk.put((0..5).map(|n| (key(n), entry(vec![2; 100_000]), 0)));
    assert!(disk.flush().is_err());
    assert_eq!(note(7), None, "suspended");
    assert_eq!(failures.load(Ordering::SeqCst), 1);
    let stats = disk.stats();
    assert!(!stats.available && stats.lost == 5);
    // The new connection knows no limit: as if somebody had made room.
    while !disk.stats().available {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((0..10).map(note).collect::<Vec<_>>(), [[None; 5], [Some(100); 5]].concat());
    assert!(disk.flush().unwrap_err().contains("5 entries"));
    disk.flush().unwrap();
    assert_eq!((0..10).map(note).collect::<Vec<_>>(), [[None; 5], [Some(100); 5]].concat());
    disk.close();
}

#[test]
fn the_thread_ends_with_the_cache() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.db");
    let options = DiskOptions { path, max_bytes: None, page_bytes: 0, retry_after_ms: 200, touch_after_ms: 0 };
    let disk = Disk::new(options, Arc::new(SystemClock::default()), None).unwrap();
    let shared = Arc::downgrade(&disk.shared);
    drop(disk);
    while shared.upgrade().is_some() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_others_write_while_this_one_commits_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.db");
    let options = DiskOptions { path, max_bytes: None, page_bytes: 0, retry_after_ms: 200, touch_after_ms: 0 };
    let [disk, other] = [(); 2].map(|()| Disk::new(options.clone(), Arc::new(SystemClock::default()), None).unwrap());
    let at = |steady_ms| Now { wall_ms: 0, steady_ms, epoch: 0, verified: true };
    let entry = || Arc::new(Draft::default().entry(&Space::builder().finish(), None, Precision::F32, 1, None));
    let put = |disk: &Disk| disk.put([(Space::builder().finish().key().finish(), entry(), 0)]);
    put(&disk);
    disk.flush().unwrap();
    put(&other);
    other.flush().unwrap();
    let before = disk.epoch(at(1000)).unwrap();
    let committing = disk.shared.own.lock();
    assert_eq!(disk.epoch(at(2000)), None, "nobody can tell whose the last one was");
    put(&other);
    other.flush().unwrap();
    drop(committing);
    assert_ne!(disk.epoch(at(3000)), Some(before));
}
