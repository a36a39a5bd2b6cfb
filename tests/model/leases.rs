//! Calls of generators in two processes with one file: of a text that both want, one computes the vector, and the other waits for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use embedcore::cancel::Cancel;
use embedcore::error::Error;
use embedcore::generator::interleave::Process;
use embedcore::host::Clock;
use embedcore::sync::{self, Fault};
use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use shuttle::thread;

use super::cache::{Still, directory, open_at};

const TEXTS: [&str; 2] = ["a", "b"];

/// What is computed, and how often.
#[derive(Default)]
struct Computed {
    now: [AtomicUsize; TEXTS.len()],
    times: [AtomicUsize; TEXTS.len()],
}

impl Computed {
    /// Takes `takes`.
    async fn make(&self, text: &str, takes: Duration) -> f32 {
        let nth = TEXTS.iter().position(|known| *known == text).unwrap();
        assert_eq!(self.now[nth].fetch_add(1, SeqCst), 0, "two compute the same");
        // Whoever is stopped here computes no more.
        let _ends = Ends(&self.now[nth]);
        let begun = sync::Instant::now();
        loop {
            sync::sleep(takes).await;
            if begun.elapsed() >= takes {
                break;
            }
        }
        self.times[nth].fetch_add(1, SeqCst);
        nth as f32
    }

    fn times(&self) -> [usize; TEXTS.len()] {
        [0, 1].map(|nth| self.times[nth].load(SeqCst))
    }
}

struct Ends<'a>(&'a AtomicUsize);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

fn process(path: &Path, clock: Arc<dyn Clock>) -> (Arc<embedcore::cache::EmbeddingCache>, Process) {
    let cache = Arc::new(open_at(path, clock));
    (Arc::clone(&cache), Process::new(cache))
}

/// Both want both texts, in another order.
fn once() {
    let directory = directory();
    let path = directory.path().join("cache.db");
    let computed = Arc::new(Computed::default());
    let threads = [[0, 1], [1, 0]].map(|order| {
        let (path, computed) = (path.clone(), Arc::clone(&computed));
        thread::spawn(move || {
            let (cache, process) = process(&path, Arc::new(Still));
            let texts = order.map(|nth| TEXTS[nth]);
            let make = async |text: &str| computed.make(text, Duration::from_millis(2)).await;
            let vectors = block_on(process.call(&texts, &Cancel::default(), make)).unwrap();
            assert_eq!(vectors, order.map(|nth| nth as f32), "a vector is wrong");
            cache.close();
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(computed.times(), [1, 1], "each text is computed once");
    let (cache, process) = process(&path, Arc::new(Still));
    assert!(process.are_free(&TEXTS), "a lease is left over");
    cache.close();
}

#[test]
fn of_a_text_that_two_processes_want_one_computes_the_vector() {
    super::holds(once);
}

#[test]
fn a_lease_of_a_call_that_all_have_is_found() {
    super::finds(Fault::LeaseForAll, once);
}

/// One is stopped at some moment: the other has its vectors all the same, and nobody holds a lease afterwards.
fn stopped() {
    let directory = directory();
    let path = directory.path().join("cache.db");
    let computed = Arc::new(Computed::default());
    let cancel = Cancel::default();
    let threads = [cancel.clone(), Cancel::default()].map(|cancel| {
        let (path, computed) = (path.clone(), Arc::clone(&computed));
        thread::spawn(move || {
            let (cache, process) = process(&path, Arc::new(Still));
            let make = async |text: &str| computed.make(text, Duration::from_millis(2)).await;
            let vectors = block_on(process.call(&TEXTS, &cancel, make));
            match cancel.check() {
                Ok(()) => assert_eq!(vectors, Ok(vec![0.0, 1.0])),
                Err(_) => assert!(matches!(&vectors, Ok(all) if *all == [0.0, 1.0]) || vectors == Err(Error::Aborted)),
            }
            cache.close();
        })
    });
    let stopping = thread::spawn(move || cancel.cancel(Error::Aborted));
    threads.into_iter().chain([stopping]).for_each(|thread| thread.join().unwrap());
    let (cache, process) = process(&path, Arc::new(Still));
    assert!(process.are_free(&TEXTS), "a lease is left over");
    cache.close();
}

#[test]
fn whoever_waits_for_a_call_that_is_stopped_computes_the_rest() {
    super::holds(stopped);
}

/// As much time passes as the checker's threads have waited.
struct Passing(sync::Instant);

impl Clock for Passing {
    fn wall_ms(&self) -> u64 {
        1_000_000 + self.steady_ms()
    }

    fn steady_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

/// One computes for longer than leases last.
fn long() {
    let directory = directory();
    let path = directory.path().join("cache.db");
    let computed = Arc::new(Computed::default());
    let began = sync::Instant::now();
    let threads = [0, 1].map(|_| {
        let (path, computed) = (path.clone(), Arc::clone(&computed));
        thread::spawn(move || {
            let (cache, process) = process(&path, Arc::new(Passing(began)));
            let make = async |text: &str| computed.make(text, Duration::from_secs(4)).await;
            assert_eq!(block_on(process.call(&TEXTS[..1], &Cancel::default(), make)), Ok(vec![0.0]));
            cache.close();
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(computed.times(), [1, 0], "it is computed once");
}

#[test]
fn leases_last_as_long_as_what_they_were_taken_for() {
    super::holds(long);
}

#[test]
fn a_lease_that_runs_out_is_found() {
    super::finds(Fault::LeaseRunsOut, long);
}
