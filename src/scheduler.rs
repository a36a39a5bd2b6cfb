//! Who computes next: a fixed number of threads that serve all calls in turn.
//!
//! A call's units of work hang on a few queued, one for each worker that it may occupy. A worker takes the first entry in
//! the queue, does one unit and puts the entry back at the end. So a query does not wait behind the thousand batches
//! of an indexing run, only behind one.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use crate::error::Result;
use crate::host::threads;
use crate::sync::{Condvar, Fault, Mutex, MutexGuard, planted};

/// Work that falls into units which may run in parallel.
pub trait Work: Send + Sync {
    /// Does the next unit, if there is one. Blocks. `false` when there is none left to begin.
    fn run(&self) -> bool;
}

/// A pool of threads. Dropping it lets them finish their unit and end, without waiting for them.
pub struct Scheduler {
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
    queued: VecDeque<Arc<dyn Work>>,
    closed: bool,
}

impl Scheduler {
    /// Starts `count` threads, at least one.
    pub fn new(count: usize) -> Result<Self> {
        let scheduler = Self { shared: Arc::default(), count: count.max(1) };
        for worker in 0..scheduler.count {
            let shared = Arc::clone(&scheduler.shared);
            threads::start(format!("embedcore-{worker}"), move || shared.serve())?;
        }
        Ok(scheduler)
    }

    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Queues `work`, at most `parallel` units of it at a time. Units that no worker has begun when the pool is dropped are
    /// dropped with it.
    pub fn submit(&self, work: Arc<dyn Work>, parallel: usize) {
        let queued = parallel.clamp(1, self.count);
        self.shared.lock().queued.extend(std::iter::repeat_n(work, queued));
        if !planted(Fault::NobodyIsTold) {
            // No thread more than there is work for: each would wake up only to find none.
            (0..queued).for_each(|_| self.shared.ready.notify_one());
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        let abandoned = {
            let mut queue = self.shared.lock();
            queue.closed = true;
            std::mem::take(&mut queue.queued)
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
        while let Some(work) = self.next_strand() {
            // A unit that panics never reports its result; whoever waits for it sees its `Work` dropped.
            if !catch_unwind(AssertUnwindSafe(|| work.run())).unwrap_or(true) {
                continue;
            }
            let mut queue = self.lock();
            if !queue.closed {
                queue.queued.push_back(work);
            }
        }
    }

    /// Waits for work; `None` once the pool is closed.
    fn next_strand(&self) -> Option<Arc<dyn Work>> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(work) = queue.queued.pop_front() {
                return Some(work);
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    struct Report {
        name: &'static str,
        count: usize,
        next: AtomicUsize,
        takes: Duration,
        sender: mpsc::Sender<(&'static str, usize)>,
    }

    impl Work for Report {
        fn run(&self) -> bool {
            let unit = self.next.fetch_add(1, Ordering::SeqCst);
            if unit >= self.count {
                return false;
            }
            thread::sleep(self.takes);
            assert_ne!(unit, 1000, "a unit may panic");
            self.sender.send((self.name, unit)).ok();
            true
        }
    }

    fn report(name: &'static str, count: usize, ms: u64, sender: &mpsc::Sender<(&'static str, usize)>) -> Arc<Report> {
        let (sender, takes) = (sender.clone(), Duration::from_millis(ms));
        Arc::new(Report { name, count, next: AtomicUsize::new(0), takes, sender })
    }

    #[test]
    fn every_unit_runs_once() {
        let scheduler = Scheduler::new(3).unwrap();
        let (sender, receiver) = mpsc::channel();
        scheduler.submit(report("a", 1002, 0, &sender), 8);
        drop(sender);
        let mut units: Vec<_> = receiver.iter().map(|(_, unit)| unit).collect();
        units.sort_unstable();
        let expected: Vec<usize> = (0..1002).filter(|&unit| unit != 1000).collect();
        assert_eq!(units, expected);
    }

    #[test]
    fn a_short_call_does_not_wait_behind_a_long_one() {
        let scheduler = Scheduler::new(1).unwrap();
        let (sender, receiver) = mpsc::channel();
        scheduler.submit(report("long", 50, 2, &sender), 8);
        scheduler.submit(report("short", 1, 0, &sender), 8);
        drop(sender);
        let order: Vec<_> = receiver.iter().map(|(name, _)| name).collect();
        let short = order.iter().position(|name| *name == "short").unwrap();
        assert!(short <= 3, "{short}");
    }

    struct Peak {
        left: AtomicUsize,
        now: AtomicUsize,
        peak: AtomicUsize,
        sender: mpsc::Sender<()>,
    }

    impl Work for Peak {
        fn run(&self) -> bool {
            if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
                return false;
            }
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.peak.fetch_max(now, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(1));
            self.now.fetch_sub(1, Ordering::SeqCst);
            self.sender.send(()).ok();
            true
        }
    }

    #[test]
    fn a_call_occupies_no_more_lanes_than_it_may() {
        let scheduler = Scheduler::new(4).unwrap();
        let (sender, receiver) = mpsc::channel();
        let (left, now, peak) = (AtomicUsize::new(40), AtomicUsize::new(0), AtomicUsize::new(0));
        let work = Arc::new(Peak { left, now, peak, sender });
        scheduler.submit(work.clone(), 2);
        assert_eq!(receiver.iter().take(40).count(), 40);
        assert!(work.peak.load(Ordering::SeqCst) <= 2);
    }

    #[test]
    fn dropping_the_pool_drops_what_waits() {
        let scheduler = Scheduler::new(1).unwrap();
        let (sender, receiver) = mpsc::channel();
        scheduler.submit(report("a", 1000, 5, &sender), 8);
        drop((scheduler, sender));
        assert!(receiver.iter().count() <= 2);
    }
}
