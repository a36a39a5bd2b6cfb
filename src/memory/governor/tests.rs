//! Permits: who waits, who is refused, and that nothing is lost.

use std::sync::atomic::AtomicUsize;
use std::thread;

use super::*;
use crate::memory::MemoryOptions;

const MB: u64 = 1 << 20;

/// A process that holds what its permits take, on a machine with 1 GB.
#[derive(Clone, Default)]
struct Invented(Arc<AtomicU64>);

impl Machine for Invented {
    fn sample(&mut self) -> Resources {
        let process_memory = self.0.load(Ordering::SeqCst);
        let total = 1024 * MB;
        let memory = Memory { total, available: total.saturating_sub(process_memory) };
        Resources { memory, process_memory, ..Resources::default() }
    }
}

fn governor(base: u64, limit: Option<u64>, strategies: bool) -> (Arc<Governor>, Invented) {
    let machine = Invented(Arc::new(AtomicU64::new(base * MB)));
    let strategies = strategies.then(|| MemoryProcessor::new(MemoryOptions::default(), 0.0).unwrap());
    (Arc::new(Governor::on(Box::new(machine.clone()), limit.map(|mb| mb * MB), strategies)), machine)
}

#[test]
fn permits_never_promise_more_than_there_is() {
    let (governor, machine) = governor(100, Some(256), false);
    let (peak, now) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for worker in 0..8 {
            let (governor, machine, peak, now) = (&governor, &machine, &peak, &now);
            scope.spawn(move || {
                for round in 0..20u64 {
                    let bytes = (1 + (worker * 7 + round * 13) % 60) * MB;
                    let _permit = governor.admit(bytes, &Cancel::default()).unwrap();
                    machine.0.fetch_add(bytes, Ordering::SeqCst);
                    peak.fetch_max(now.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                    thread::sleep(Duration::from_micros(300));
                    now.fetch_sub(bytes, Ordering::SeqCst);
                    machine.0.fetch_sub(bytes, Ordering::SeqCst);
                }
            });
        }
    });
    let account = governor.account();
    assert!(peak.load(Ordering::SeqCst) <= 140 * MB, "{}", peak.load(Ordering::SeqCst) / MB);
    assert_eq!(account.granted, 0);
    assert!(account.waits > 0 && account.waited_ms > 0.0);
}

#[test]
fn what_can_never_fit_is_refused_at_once_with_need_and_limit() {
    let (governor, _) = governor(100, Some(256), false);
    let started = Instant::now();
    let refusal = governor.admit(200 * MB, &Cancel::default()).err();
    assert_eq!(refusal, Some(Refusal::TooLarge { need: 316 * MB, limit: 256 * MB }));
    assert!(started.elapsed() < LONGEST_WAIT);
    assert!(governor.expect(100 * MB).is_ok());
    assert!(governor.expect(141 * MB).is_err());
}

#[test]
fn permits_alone_are_counted_exactly() {
    let governor = Arc::new(Governor::of_permits(10));
    for _ in 0..3 {
        let first = governor.admit(6, &Cancel::default()).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| governor.admit(5, &Cancel::default()).map(drop));
            thread::sleep(Duration::from_millis(30));
            assert!(!second.is_finished());
            drop(first);
            assert_eq!(second.join().unwrap(), Ok(()));
        });
    }
    assert_eq!(governor.admit(11, &Cancel::default()).err(), Some(Refusal::TooLarge { need: 11, limit: 10 }));
    assert_eq!(governor.share(2), 5);
}

#[test]
fn what_is_short_is_given_back_first() {
    let (governor, machine) = governor(100, Some(256), false);
    let gives = Arc::new(AtomicUsize::new(0));
    machine.0.store(230 * MB, Ordering::SeqCst);
    let (counted, process) = (gives.clone(), machine.0.clone());
    governor.on_shortage(Box::new(move |short| {
        assert!(short);
        counted.fetch_add(1, Ordering::SeqCst);
        process.store(100 * MB, Ordering::SeqCst);
        true
    }));
    thread::sleep(FRESH);
    drop(governor.admit(50 * MB, &Cancel::default()).unwrap());
    assert_eq!((gives.load(Ordering::SeqCst), governor.account().reliefs), (1, 1));
}

#[test]
fn memory_that_others_hold_is_waited_for_and_a_stop_ends_the_wait() {
    let (governor, machine) = governor(100, Some(256), false);
    machine.0.store(250 * MB, Ordering::SeqCst);
    thread::sleep(FRESH);
    let cancel = Cancel::default();
    thread::scope(|scope| {
        let waits = scope.spawn(|| governor.admit(20 * MB, &Cancel::default()).map(drop));
        let stops = scope.spawn(|| governor.admit(20 * MB, &cancel).map(drop));
        thread::sleep(Duration::from_millis(50));
        cancel.cancel(Error::Aborted);
        assert_eq!(stops.join().unwrap(), Err(Refusal::Stopped(Error::Aborted)));
        machine.0.store(100 * MB, Ordering::SeqCst);
        assert_eq!(waits.join().unwrap(), Ok(()));
    });
}

#[test]
fn what_an_arena_has_kept_is_not_counted_twice() {
    let (governor, machine) = governor(100, Some(256), false);
    assert_eq!(governor.share(2), 140 * MB / 2);
    drop(governor.admit(100 * MB, &Cancel::default()).unwrap());
    // The arena keeps it: 200 of 256 MB are held, and yet the next 100 fit.
    machine.0.store(200 * MB, Ordering::SeqCst);
    thread::sleep(FRESH);
    drop(governor.admit(100 * MB, &Cancel::default()).unwrap());
    assert_eq!(governor.account().reliefs, 0);
    assert_eq!(governor.share(2), (40 + 100) * MB / 2);
}

#[test]
fn strategies_follow_and_are_reported() {
    let (governor, machine) = governor(100, Some(400), true);
    let changes = Arc::new(Mutex::new(Vec::new()));
    let seen = changes.clone();
    governor.on_change(Box::new(move |change| lock(&seen).push((change.before.clone(), change.after.clone()))));
    assert_eq!(governor.most_rows(), 128);
    machine.0.store(360 * MB, Ordering::SeqCst);
    thread::sleep(FRESH);
    let first = governor.admit(MB, &Cancel::default()).unwrap();
    assert_eq!((governor.most_rows(), governor.strategy_name().as_deref()), (1, Some("streaming")));
    // One at a time: the second waits for the first.
    thread::scope(|scope| {
        let second = scope.spawn(|| governor.admit(MB, &Cancel::default()).map(drop));
        thread::sleep(Duration::from_millis(60));
        assert!(!second.is_finished());
        drop(first);
        assert_eq!(second.join().unwrap(), Ok(()));
    });
    assert_eq!(lock(&changes)[0], ("aggressive".to_owned(), "streaming".to_owned()));
}

/// A process whose memory and machine are as they are said to be.
struct Told(u64, Memory);

impl Machine for Told {
    fn sample(&mut self) -> Resources {
        Resources { memory: self.1, process_memory: self.0 * MB, ..Resources::default() }
    }
}

fn told(process: u64, total: u64, available: u64, limit: Option<u64>) -> Arc<Governor> {
    let memory = Memory { total: total * MB, available: available * MB };
    Arc::new(Governor::on(Box::new(Told(process, memory)), limit.map(|mb| mb * MB), None))
}

#[test]
fn where_nobody_knows_what_there_is_only_a_limit_bites() {
    let governor = told(100, 0, 0, None);
    assert_eq!(governor.account().ceiling, 0, "unknown");
    assert_eq!(governor.expect(u64::MAX / 2), Ok(()));
    drop(governor.admit(1 << 40, &Cancel::default()).unwrap());
    let governor = told(100, 0, 0, Some(256));
    assert_eq!(governor.account().ceiling, 256 * MB);
    assert_eq!(governor.expect(141 * MB), Err(Refusal::TooLarge { need: 257 * MB, limit: 256 * MB }));
    assert!(
        governor.admit(141 * MB, &Cancel::default()).is_err() && governor.admit(140 * MB, &Cancel::default()).is_ok()
    );
}

#[test]
fn the_ceiling_never_passes_what_the_container_has() {
    // Of 70 MB that the process holds, 50 are shared with others: the container counts 20 of its 60.
    for limit in [None, Some(1000)] {
        let governor = told(70, 60, 40, limit);
        let account = governor.account();
        assert_eq!((account.ceiling, account.usage), (60 * MB, 100.0));
        // What is left is left nevertheless, and not more.
        let reserve = if limit.is_some() { 4 } else { 0 };
        assert_eq!(governor.expect((40 - reserve) * MB), Ok(()));
        let Err(Refusal::TooLarge { need, limit }) = governor.expect(41 * MB) else { panic!("it does not fit") };
        assert!(need > limit && limit == 60 * MB);
        let started = Instant::now();
        drop(governor.admit(30 * MB, &Cancel::default()).unwrap());
        assert!(started.elapsed() < LONGEST_WAIT);
    }
}

#[test]
fn without_a_limit_the_machine_is_one() {
    let (governor, machine) = governor(100, None, false);
    assert!(governor.expect(900 * MB).is_ok() && governor.expect(950 * MB).is_err());
    machine.0.store(1000 * MB, Ordering::SeqCst);
    assert_eq!(governor.account().ceiling, 1024 * MB);
    // Nobody has asked to stay below: after a while a lone item may have what is left.
    let started = Instant::now();
    drop(governor.admit(20 * MB, &Cancel::default()).unwrap());
    assert!(started.elapsed() >= LONGEST_WAIT);
}
