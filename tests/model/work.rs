//! Who computes, and who may have memory: the scheduler's lanes, and the governor's permits.

use std::sync::Arc;

use embedcore::cancel::Cancel;
use embedcore::error::Error;
use embedcore::memory::governor::{Governor, Refusal};
use embedcore::scheduler::{Scheduler, Work};
use embedcore::sync::Fault;
use shuttle::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use shuttle::sync::mpsc;
use shuttle::thread;

struct Units {
    left: AtomicUsize,
    now: AtomicUsize,
    most: usize,
    cancel: Cancel,
    done: mpsc::Sender<usize>,
}

impl Work for Units {
    fn run(&self) -> bool {
        if self.cancel.check().is_err() {
            return false;
        }
        let Ok(unit) = self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) else { return false };
        assert!(self.now.fetch_add(1, SeqCst) < self.most, "a call occupies more lanes than it may");
        thread::yield_now();
        self.now.fetch_sub(1, SeqCst);
        self.done.send(unit).ok();
        true
    }
}

fn units(count: usize, most: usize, cancel: &Cancel) -> (Arc<Units>, mpsc::Receiver<usize>) {
    let (done, units) = mpsc::channel();
    let (left, now) = (AtomicUsize::new(count), AtomicUsize::new(0));
    (Arc::new(Units { left, now, most, cancel: cancel.clone(), done }), units)
}

/// Two calls on two threads, each of which may occupy so many of them.
fn lanes() {
    let scheduler = Scheduler::new(2).unwrap();
    let calls = [(3, 1), (3, 2)].map(|(count, most)| {
        let (work, done) = units(count, most, &Cancel::default());
        scheduler.submit(work, most);
        (count, done)
    });
    for (count, done) in calls {
        let mut all: Vec<usize> = done.iter().collect();
        all.sort_unstable();
        assert_eq!(all, (1..=count).collect::<Vec<_>>(), "each unit is done once");
    }
}

#[test]
fn each_unit_is_done_once_and_no_call_has_more_lanes_than_it_may() {
    super::holds(lanes);
}

#[test]
fn work_that_nobody_is_told_of_is_found() {
    super::finds(Fault::NobodyIsTold, lanes);
}

/// The pool is closed, and the call is stopped, while it runs: whoever waits for its units is told that there will be none.
fn closing() {
    let scheduler = Scheduler::new(2).unwrap();
    let cancel = Cancel::default();
    let (work, done) = units(4, 2, &cancel);
    scheduler.submit(work, 2);
    let stopping = thread::spawn(move || cancel.cancel(Error::Aborted));
    let closing = thread::spawn(move || drop(scheduler));
    assert!(done.iter().count() <= 4);
    stopping.join().unwrap();
    closing.join().unwrap();
}

#[test]
fn whoever_waits_learns_that_the_pool_was_closed() {
    super::holds(closing);
}

/// Permits for 10 bytes, of which one call is stopped while it waits.
fn permits() {
    let governor = Arc::new(Governor::of_permits(10));
    let out = Arc::new(AtomicUsize::new(0));
    let cancel = Cancel::default();
    let mut threads: Vec<_> = [6, 5, 4, 6]
        .into_iter()
        .enumerate()
        .map(|(nth, bytes)| {
            let (governor, out) = (Arc::clone(&governor), Arc::clone(&out));
            let cancel = if nth == 3 { cancel.clone() } else { Cancel::default() };
            thread::spawn(move || match governor.admit(bytes, &cancel) {
                Ok(permit) => {
                    let sum = out.fetch_add(bytes as usize, SeqCst) + bytes as usize;
                    assert!(sum <= 10, "permits promise {sum} of 10 bytes");
                    thread::yield_now();
                    out.fetch_sub(bytes as usize, SeqCst);
                    drop(permit);
                }
                Err(refusal) => assert_eq!((refusal, nth), (Refusal::Stopped(Error::Aborted), 3)),
            })
        })
        .collect();
    threads.push(thread::spawn(move || cancel.cancel(Error::Aborted)));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(governor.account().granted, 0, "a permit is left over");
}

#[test]
fn permits_never_promise_more_than_there_is() {
    super::holds(permits);
}

#[test]
fn a_sum_that_is_made_in_two_steps_is_found() {
    super::finds(Fault::PermitInTwoSteps, permits);
}
