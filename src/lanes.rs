//! Who computes next: a fixed number of threads that serve all calls in turn.
//!
//! A call's units of work hang on a few strands, one for each lane that it may occupy. A lane takes the first strand in
//! the queue, does one unit and puts the strand back at the end. So a query does not wait behind the thousand batches
//! of an indexing run, only behind one.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::error::{Error, Result};

/// Work that falls into units which may run in any order, in parallel.
pub trait Work: Send + Sync {
    /// Does unit number `unit`. Blocks.
    fn run(&self, unit: usize);
}

/// A pool of threads. Dropping it lets them finish their unit and end, without waiting for them.
pub struct Lanes {
    shared: Arc<Shared>,
    count: usize,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    strands: VecDeque<Arc<Units>>,
    closed: bool,
}

struct Units {
    work: Arc<dyn Work>,
    next: AtomicUsize,
    count: usize,
}

impl Lanes {
    /// Starts `count` threads, at least one.
    pub fn new(count: usize) -> Result<Self> {
        let lanes = Self { shared: Arc::default(), count: count.max(1) };
        for lane in 0..lanes.count {
            let shared = Arc::clone(&lanes.shared);
            thread::Builder::new()
                .name(format!("embedcore-{lane}"))
                .spawn(move || shared.serve())
                .map_err(|error| Error::Internal(format!("could not start a thread: {error}")))?;
        }
        Ok(lanes)
    }

    /// Queues units `0..count` of `work`, at most `parallel` of them at a time. Units that no lane has begun when the
    /// pool is dropped are dropped with it.
    pub fn submit(&self, work: Arc<dyn Work>, count: usize, parallel: usize) {
        let units = Arc::new(Units { work, next: AtomicUsize::new(0), count });
        let strands = parallel.clamp(1, self.count).min(count);
        self.shared.lock().strands.extend(std::iter::repeat_n(units, strands));
        self.shared.ready.notify_all();
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        let abandoned = {
            let mut queue = self.shared.lock();
            queue.closed = true;
            std::mem::take(&mut queue.strands)
        };
        self.shared.ready.notify_all();
        drop(abandoned);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        while let Some(units) = self.next_strand() {
            let unit = units.next.fetch_add(1, Ordering::Relaxed);
            if unit >= units.count {
                continue;
            }
            // A unit that panics never reports its result; whoever waits for it sees its `Work` dropped.
            let _ = catch_unwind(AssertUnwindSafe(|| units.work.run(unit)));
            let mut queue = self.lock();
            if !queue.closed {
                queue.strands.push_back(units);
            }
        }
    }

    /// Waits for work; `None` once the pool is closed.
    fn next_strand(&self) -> Option<Arc<Units>> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(units) = queue.strands.pop_front() {
                return Some(units);
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    struct Report(&'static str, mpsc::Sender<(&'static str, usize)>, Duration);

    impl Work for Report {
        fn run(&self, unit: usize) {
            thread::sleep(self.2);
            assert_ne!(unit, 1000, "a unit may panic");
            self.1.send((self.0, unit)).ok();
        }
    }

    #[test]
    fn every_unit_runs_once() {
        let lanes = Lanes::new(3).unwrap();
        let (sender, receiver) = mpsc::channel();
        lanes.submit(Arc::new(Report("a", sender, Duration::ZERO)), 1002, 8);
        let mut units: Vec<_> = receiver.iter().map(|(_, unit)| unit).collect();
        units.sort_unstable();
        let expected: Vec<usize> = (0..1002).filter(|&unit| unit != 1000).collect();
        assert_eq!(units, expected);
    }

    #[test]
    fn a_short_call_does_not_wait_behind_a_long_one() {
        let lanes = Lanes::new(1).unwrap();
        let (sender, receiver) = mpsc::channel();
        lanes.submit(Arc::new(Report("long", sender.clone(), Duration::from_millis(2))), 50, 8);
        lanes.submit(Arc::new(Report("short", sender, Duration::ZERO)), 1, 8);
        let order: Vec<_> = receiver.iter().map(|(name, _)| name).collect();
        let short = order.iter().position(|name| *name == "short").unwrap();
        assert!(short <= 3, "{short}");
    }

    struct Peak(AtomicUsize, AtomicUsize, mpsc::Sender<()>);

    impl Work for Peak {
        fn run(&self, _: usize) {
            let now = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            self.1.fetch_max(now, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(1));
            self.0.fetch_sub(1, Ordering::SeqCst);
            self.2.send(()).ok();
        }
    }

    #[test]
    fn a_call_occupies_no_more_lanes_than_it_may() {
        let lanes = Lanes::new(4).unwrap();
        let (sender, receiver) = mpsc::channel();
        let peak = Arc::new(Peak(AtomicUsize::new(0), AtomicUsize::new(0), sender));
        lanes.submit(peak.clone(), 40, 2);
        assert_eq!(receiver.iter().take(40).count(), 40);
        assert!(peak.1.load(Ordering::SeqCst) <= 2);
    }

    #[test]
    fn dropping_the_pool_drops_what_waits() {
        let lanes = Lanes::new(1).unwrap();
        let (sender, receiver) = mpsc::channel();
        lanes.submit(Arc::new(Report("a", sender, Duration::from_millis(5))), 1000, 8);
        drop(lanes);
        assert!(receiver.iter().count() <= 2);
    }
}
