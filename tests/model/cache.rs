//! The file of a cache: its queue, its one thread that writes, leases, and `close` while others work. SQLite is the real one; what it
//! does in a transaction is one step.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use embedcore::cache::{CacheOptions, Draft, EmbeddingCache};
use embedcore::embedding::{Key, Space};
use embedcore::host::Clock;
use embedcore::sync::Fault;
use shuttle::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use shuttle::thread;

/// It is always the same time.
pub struct Still;

impl Clock for Still {
    fn wall_ms(&self) -> u64 {
        1_000_000
    }

    fn steady_ms(&self) -> u64 {
        1000
    }
}

pub fn open_at(path: &Path, clock: Arc<dyn Clock>) -> EmbeddingCache {
    let options = CacheOptions { path: Some(path.to_owned()), clock, ..CacheOptions::default() };
    EmbeddingCache::open(options).unwrap()
}

fn open(path: &Path) -> EmbeddingCache {
    open_at(path, Arc::new(Still))
}

fn space() -> Space {
    Space::builder().field("model", "1").finish()
}

fn key(n: usize) -> Key {
    space().key().field("n", n.to_string()).finish()
}

fn put(cache: &EmbeddingCache, n: usize, value: f32) {
    cache.commit(&space(), key(n), &Draft { vector: Some(&[value; 3]), ..Draft::default() }).unwrap();
}

fn value(cache: &EmbeddingCache, n: usize) -> Option<f32> {
    cache.lookup(key(n)).map(|entry| entry.vector.to_vec()[0])
}

pub fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Two write, one of them deletes what the other replaces; what is flushed is in the file.
fn writing() {
    let directory = directory();
    let path = directory.path().join("cache.db");
    let cache = Arc::new(open(&path));
    put(&cache, 0, 1.0);
    let other = thread::spawn({
        let cache = Arc::clone(&cache);
        move || {
            put(&cache, 1, 1.0);
            put(&cache, 2, 1.0);
            assert_eq!(cache.delete(key(1)), Ok(true));
            assert_eq!(value(&cache, 1), None, "what was deleted is there");
            cache.flush().unwrap();
        }
    });
    put(&cache, 3, 1.0);
    put(&cache, 3, 2.0);
    assert_eq!(value(&cache, 3), Some(2.0));
    cache.flush().unwrap();
    other.join().unwrap();
    cache.close();
    let again = open(&path);
    let there: Vec<_> = (0..4).map(|n| value(&again, n)).collect();
    assert_eq!(there, [Some(1.0), None, Some(1.0), Some(2.0)], "what was flushed is not what is read");
    again.close();
}

#[test]
fn what_is_flushed_is_in_the_file_in_the_order_of_the_calls() {
    super::holds(writing);
}

#[test]
fn a_queue_that_takes_more_for_written_than_was_is_found() {
    super::finds(Fault::WrittenAllOfTheQueue, writing);
}

/// It is closed while somebody writes. What was put before is in the file; what is put later is there or it is not.
fn closing() {
    let directory = directory();
    let path = directory.path().join("cache.db");
    let cache = Arc::new(open(&path));
    put(&cache, 0, 1.0);
    let other = thread::spawn({
        let cache = Arc::clone(&cache);
        move || {
            for n in 1..3 {
                // It may be closed already.
                cache.commit(&space(), key(n), &Draft { vector: Some(&[1.0; 3]), ..Draft::default() }).ok();
            }
            cache.flush().ok();
            cache.delete(key(1)).ok();
            cache.acquire(&[key(5)], Duration::from_secs(3));
        }
    });
    cache.close();
    other.join().unwrap();
    let again = open(&path);
    assert_eq!(value(&again, 0), Some(1.0), "what was put before the cache was closed is lost");
    assert!((1..3).all(|n| value(&again, n).is_none_or(|value| value == 1.0)));
    again.close();
}

#[test]
fn what_was_put_before_a_cache_is_closed_is_in_its_file() {
    super::holds(closing);
}

#[test]
fn a_thread_that_ends_before_all_is_written_is_found() {
    super::finds(Fault::EndBeforeWritten, closing);
}

/// Two caches of one file want the same lease.
fn leases() {
    let directory = directory();
    let path = directory.path().join("cache.db");
    let computing = Arc::new(AtomicUsize::new(0));
    let made = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (path, computing, made) = (path.clone(), Arc::clone(&computing), Arc::clone(&made));
            thread::spawn(move || {
                let cache = open(&path);
                for _ in 0..3 {
                    if cache.acquire(&[key(1)], Duration::from_secs(3)) != [true] {
                        thread::yield_now();
                        continue;
                    }
                    assert_eq!(computing.fetch_add(1, SeqCst), 0, "two have one lease");
                    if value(&cache, 1).is_none() {
                        made.fetch_add(1, SeqCst);
                        put(&cache, 1, 1.0);
                    }
                    computing.fetch_sub(1, SeqCst);
                    cache.release(vec![key(1)]);
                    cache.flush().unwrap();
                }
                cache.close();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(made.load(SeqCst) <= 1, "it was made twice");
}

#[test]
fn a_lease_is_one_caches_and_what_it_made_is_there_for_the_next() {
    super::holds(leases);
}

#[test]
fn a_lease_that_all_have_is_found() {
    super::finds(Fault::LeaseForAll, leases);
}
