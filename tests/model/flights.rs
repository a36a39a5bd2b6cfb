//! Single-flight, and how calls are stopped.

use std::sync::Arc;

use embedcore::cache::{Joined, SingleFlight};
use embedcore::cancel::Cancel;
use embedcore::error::Error;
use embedcore::sync::Fault;
use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use shuttle::thread;

/// Three want a value, and one of them goes before it is there.
fn flights() {
    let flights: SingleFlight<u8, usize, String> = SingleFlight::default();
    let making = Arc::new(AtomicUsize::new(0));
    let wanting: Vec<_> = (0..3)
        .map(|_| {
            let (flights, making) = (flights.clone(), Arc::clone(&making));
            thread::spawn(move || {
                let make = || async {
                    assert_eq!(making.fetch_add(1, SeqCst), 0, "two make the same");
                    shuttle::future::yield_now().await;
                    making.fetch_sub(1, SeqCst);
                    Ok(7)
                };
                assert_eq!(block_on(flights.run(1, make)), Ok(7));
            })
        })
        .collect();
    let leaving = thread::spawn({
        let (flights, making) = (flights.clone(), making);
        move || {
            if let Joined::Lead(leader) = flights.join(1) {
                assert_eq!(making.fetch_add(1, SeqCst), 0, "two make the same");
                thread::yield_now();
                making.fetch_sub(1, SeqCst);
                drop(leader);
            }
        }
    });
    wanting.into_iter().chain([leaving]).for_each(|thread| thread.join().unwrap());
    assert!(flights.is_empty(), "a flight is left over");
}

#[test]
fn of_all_who_want_the_same_one_makes_it_and_all_have_it() {
    super::holds(flights);
}

#[test]
fn a_flight_that_is_begun_in_two_steps_is_found() {
    super::finds(Fault::JoinInTwoSteps, flights);
}

/// Hooks that are added while the work is stopped, twice.
fn stopping() {
    let cancel = Cancel::default();
    let runs = Arc::new(AtomicUsize::new(0));
    let stopping = [Error::Aborted, Error::Closed].map(|reason| {
        let cancel = cancel.clone();
        thread::spawn(move || cancel.cancel(reason))
    });
    let guards: Vec<_> = (0..2)
        .map(|_| {
            let runs = Arc::clone(&runs);
            cancel.on_cancel(move |_| {
                runs.fetch_add(1, SeqCst);
            })
        })
        .collect();
    // One that nobody wants any more runs once at the most.
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&dropped);
    drop(cancel.on_cancel(move |_| {
        count.fetch_add(1, SeqCst);
    }));
    stopping.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(cancel.check().is_err());
    assert_eq!(runs.load(SeqCst), 2, "each hook runs once");
    assert!(dropped.load(SeqCst) <= 1);
    drop(guards);
}

#[test]
fn each_hook_runs_once_whenever_it_was_added() {
    super::holds(stopping);
}

#[test]
fn a_hook_that_comes_too_late_is_found() {
    super::finds(Fault::LateHookIsLost, stopping);
}
