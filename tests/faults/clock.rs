//! A clock that somebody sets, forward and back, while two caches have one file: what is answered is what was set last, for no
//! longer than it may be, and no lease is kept for ever.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use embedcore::cache::{CacheOptions, Draft, EmbeddingCache};
use embedcore::embedding::{Key, Space};
use embedcore::host::Clock;

const AT: u64 = 1_700_000_000_000;
const MINUTE: u64 = 60_000;
const SECOND: u64 = 1000;

#[derive(Default)]
struct SetClock {
    wall_ms: AtomicU64,
    steady_ms: AtomicU64,
}

impl SetClock {
    fn pass(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, SeqCst);
        self.steady_ms.fetch_add(ms, SeqCst);
    }
}

impl Clock for SetClock {
    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(SeqCst)
    }

    fn steady_ms(&self) -> u64 {
        self.steady_ms.load(SeqCst)
    }
}

fn open(path: &Path, clock: &Arc<SetClock>) -> EmbeddingCache {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    EmbeddingCache::open(CacheOptions { path: Some(path.to_owned()), clock, ..CacheOptions::default() }).unwrap()
}

fn space() -> Space {
    Space::builder().field("model", "1").finish()
}

fn key(n: u64) -> Key {
    space().key().field("n", n.to_string()).finish()
}

/// Numbers that are as good as any.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

#[derive(Clone, Copy)]
struct Known {
    value: f32,
    /// By the clock that nobody sets, and how far the other one had been set back by then in all.
    since: u64,
    back: u64,
    ttl: u64,
}

/// How often what was set was found at once.
fn sequence(seed: u64) -> usize {
    let directory = super::place();
    let path = directory.path().join("file.db");
    let clock = Arc::new(SetClock { wall_ms: AT.into(), ..SetClock::default() });
    let mut numbers = Numbers(seed);
    let mut caches = [open(&path, &clock), open(&path, &clock)];
    let mut known = [None::<Known>; 4];
    let (mut back, mut found) = (0, 0);
    for step in 0..60 {
        let (which, n) = (numbers.below(2) as usize, numbers.below(4));
        let what = format!("seed {seed}, step {step}");
        match numbers.below(9) {
            0 | 1 => {
                let (value, ttl) = ((seed * 100 + step) as f32, (1 + numbers.below(120)) * MINUTE);
                let draft =
                    Draft { vector: Some(&[value; 3]), ttl: Some(Duration::from_millis(ttl)), ..Draft::default() };
                caches[which].commit(&space(), key(n), &draft).unwrap();
                caches[which].flush().unwrap();
                // What others write is noticed a moment later.
                clock.pass(SECOND);
                known[n as usize] = Some(Known { value, since: clock.steady_ms(), back, ttl });
                for (reader, cache) in caches.iter().enumerate() {
                    // A file that is not read soon enough is a miss.
                    let Some(entry) = cache.lookup(key(n)) else { continue };
                    found += 1;
                    assert_eq!(entry.vector.to_vec(), [value; 3], "{what}: cache {reader}, and {which} has set it");
                }
            }
            2 => clock.pass((1 + numbers.below(90)) * MINUTE),
            3 => drop(clock.wall_ms.fetch_add(numbers.below(2000) * MINUTE, SeqCst)),
            4 => {
                let step = numbers.below(2000) * MINUTE;
                back += step;
                clock.wall_ms.fetch_sub(step, SeqCst);
            }
            5 => {
                caches[which].delete(key(n)).unwrap();
                caches[which].flush().unwrap();
                clock.pass(SECOND);
                known[n as usize] = None;
            }
            6 => {
                caches[which].close();
                caches[which] = open(&path, &clock);
            }
            7 => drop(caches[which].optimize(Duration::from_secs(5))),
            _ => {
                // Whoever gets no answer soon enough computes for itself: that two have one lease is no mistake here.
                let lifetime = Duration::from_secs(3);
                assert_eq!(caches[which].acquire(&[key(9)], lifetime), [true], "{what}: nobody has this lease");
                let far = numbers.below(3000) * MINUTE;
                match numbers.below(3) {
                    0 => drop(clock.wall_ms.fetch_add(far, SeqCst)),
                    1 => {
                        back += far;
                        clock.wall_ms.fetch_sub(far, SeqCst);
                    }
                    _ => {}
                }
                clock.pass(11 * MINUTE);
                assert_eq!(caches[1 - which].acquire(&[key(9)], lifetime), [true], "{what}: a lease does not end");
                caches[1 - which].release(vec![key(9)]);
                caches[1 - which].flush().unwrap();
            }
        }
        for (n, known) in known.iter().enumerate() {
            for cache in &caches {
                let Some(entry) = cache.lookup(key(n as u64)) else { continue };
                let Some(Known { value, since, back: before, ttl }) = *known else {
                    panic!("{what}: entry {n} was deleted")
                };
                assert_eq!(entry.vector.to_vec(), [value; 3], "{what}: entry {n} is not what was set last");
                let age = clock.steady_ms() - since;
                // What was set back cannot be told from what has not passed yet.
                assert!(age < ttl + (back - before), "{what}: entry {n} is too old: {age} ms of {ttl}");
            }
        }
    }
    found
}

#[test]
fn a_clock_that_somebody_sets_makes_no_answer_wrong_and_no_lease_endless() {
    let count = if std::env::var_os("EMBEDCORE_FAULTS").is_some() { 2000 } else { 40 };
    let found: usize = (1..=count).map(sequence).sum();
    assert!(found > 0, "nothing that was set is found");
}
