//! Samples of a machine, taken in the background: whoever asks gets the latest one for the price of a lock.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::{Machine, Resources, ThisMachine, threads};

/// Watches a machine as long as somebody holds it. Its thread never keeps the process alive.
pub struct Monitor {
    shared: Arc<Shared>,
}

struct Shared {
    machine: Mutex<Box<dyn Machine>>,
    latest: Mutex<Resources>,
    stopped: Mutex<bool>,
    stop: Condvar,
}

/// The monitors of this machine that somebody holds, by interval.
static RUNNING: Mutex<Option<HashMap<Duration, Weak<Monitor>>>> = Mutex::new(None);

impl Monitor {
    /// The monitor of this machine that samples every `interval`; all who ask for the same interval share one.
    pub fn of_this_machine(interval: Duration) -> Arc<Self> {
        let mut running = lock(&RUNNING);
        let running = running.get_or_insert_default();
        running.retain(|_, monitor| monitor.strong_count() > 0);
        if let Some(monitor) = running.get(&interval).and_then(Weak::upgrade) {
            return monitor;
        }
        let monitor = Arc::new(Self::start(Box::new(ThisMachine::default()), interval));
        running.insert(interval, Arc::downgrade(&monitor));
        monitor
    }

    /// Takes a first sample at once, and further ones every `interval`. Where no thread can be had there are none.
    pub fn start(mut machine: Box<dyn Machine>, interval: Duration) -> Self {
        let latest = Mutex::new(machine.sample());
        let shared =
            Arc::new(Shared { machine: Mutex::new(machine), latest, stopped: Mutex::default(), stop: Condvar::new() });
        let watched = Arc::clone(&shared);
        threads::start("embedcore-monitor".to_owned(), move || watched.watch(interval)).ok();
        Self { shared }
    }

    /// The latest sample.
    pub fn latest(&self) -> Resources {
        *lock(&self.shared.latest)
    }

    /// A new sample. For somebody who asks how it is now, never for every batch.
    pub fn now(&self) -> Resources {
        self.shared.sample()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        *lock(&self.shared.stopped) = true;
        self.shared.stop.notify_all();
    }
}

impl Shared {
    fn sample(&self) -> Resources {
        let resources = lock(&self.machine).sample();
        *lock(&self.latest) = resources;
        resources
    }

    fn watch(&self, interval: Duration) {
        let mut stopped = lock(&self.stopped);
        while !*stopped {
            let (guard, timeout) = self.stop.wait_timeout(stopped, interval).unwrap_or_else(PoisonError::into_inner);
            drop(guard);
            if timeout.timed_out() {
                self.sample();
            }
            stopped = lock(&self.stopped);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Invented(mpsc::Sender<u64>, u64);

    impl Machine for Invented {
        fn sample(&mut self) -> Resources {
            self.1 += 1;
            self.0.send(self.1).ok();
            Resources { process_memory: self.1, ..Resources::default() }
        }
    }

    #[test]
    fn samples_until_it_is_dropped() {
        let (sender, samples) = mpsc::channel();
        let monitor = Monitor::start(Box::new(Invented(sender, 0)), Duration::from_millis(1));
        assert_eq!(samples.recv(), Ok(1));
        assert_eq!(samples.recv(), Ok(2));
        assert!(monitor.latest().process_memory >= 1);
        assert!(monitor.now().process_memory >= 3);
        drop(monitor);
        // The thread ends, and lets go of the machine: then the channel closes.
        assert!(samples.iter().count() < 1_000_000);
    }

    #[test]
    fn a_long_interval_does_not_hold_it_back() {
        let (sender, samples) = mpsc::channel();
        drop(Monitor::start(Box::new(Invented(sender, 0)), Duration::from_secs(3600)));
        assert_eq!(samples.iter().count(), 1);
    }

    #[test]
    fn those_who_ask_for_the_same_share_one() {
        let one = Monitor::of_this_machine(Duration::from_secs(60));
        let two = Monitor::of_this_machine(Duration::from_secs(60));
        let other = Monitor::of_this_machine(Duration::from_secs(61));
        assert!(Arc::ptr_eq(&one, &two) && !Arc::ptr_eq(&one, &other));
        assert!(one.latest().memory.total > 0);
        let weak = Arc::downgrade(&one);
        drop((one, two));
        assert!(weak.upgrade().is_none());
    }
}
