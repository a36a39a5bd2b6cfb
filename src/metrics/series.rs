//! What is kept of one operation. Threads write into parts of their own, so that they do not wait for each other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::distribution::Distribution;

/// Threads that write at the same time without waiting. More share.
const PARTS: usize = 8;

/// Seconds that the window reaches back.
const WINDOW_SECONDS: i64 = 60;

/// Slots of the window: a power of two, so that finding one takes no division.
const SLOTS: usize = 64;

const US_PER_SECOND: u64 = 1_000_000;

/// One operation.
#[derive(Default)]
pub(super) struct Series {
    parts: [Part; PARTS],
}

/// On cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Part(Mutex<Option<Box<Tally>>>);

/// What was recorded.
#[derive(Clone)]
pub(super) struct Tally {
    pub(super) durations: Distribution,
    pub(super) errors: u64,
    pub(super) items: u64,
    /// When the first one began and the last one ended, in microseconds of the steady clock, which may be younger.
    pub(super) first_us: i64,
    pub(super) last_us: u64,
    pub(super) memory: Option<MemoryTally>,
    window: [Slot; SLOTS],
}

/// Memory around operations, in bytes.
#[derive(Clone, Copy)]
pub(super) struct MemoryTally {
    at_us: u64,
    pub(super) latest: MemoryUse,
    pub(super) peak: u64,
    pub(super) growth: f64,
    pub(super) count: u64,
}

/// Memory around one operation, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// Held when it began.
    pub before: u64,
    /// Held when it ended.
    pub after: u64,
    /// The most that was seen between.
    pub peak: u64,
}

/// What happened in one second.
#[derive(Clone, Copy, Default)]
struct Slot {
    second: u64,
    items: u64,
}

/// One operation that has ended.
#[derive(Clone, Copy)]
pub(super) struct Ended {
    pub(super) at_us: u64,
    pub(super) ns: u64,
    pub(super) items: u64,
    pub(super) success: bool,
    pub(super) memory: Option<MemoryUse>,
}

impl Series {
    pub(super) fn record(&self, ended: Ended) {
        self.record_all(std::iter::once(ended));
    }

    /// Records many with one look for the lock.
    pub(super) fn record_all(&self, all: impl Iterator<Item = Ended>) {
        let part = &self.parts[own_part()];
        let mut tally = part.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = tally.get_or_insert_with(|| Box::new(Tally::new()));
        all.for_each(|ended| tally.record(ended));
    }

    /// All that was recorded, if anything was.
    pub(super) fn read(&self) -> Option<Tally> {
        let mut all: Option<Tally> = None;
        for part in &self.parts {
            if let Some(tally) = part.0.lock().unwrap_or_else(PoisonError::into_inner).as_deref() {
                match &mut all {
                    None => all = Some(tally.clone()),
                    Some(all) => all.merge(tally),
                }
            }
        }
        all
    }
}

/// The part that this thread writes to.
fn own_part() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % PARTS);
    OWN.with(|part| *part)
}

impl Tally {
    fn new() -> Self {
        Self {
            durations: Distribution::new(),
            errors: 0,
            items: 0,
            first_us: i64::MAX,
            last_us: 0,
            memory: None,
            window: [Slot::default(); SLOTS],
        }
    }

    fn record(&mut self, ended: Ended) {
        let Ended { at_us, ns, items, success, memory } = ended;
        self.durations.record(ns);
        self.first_us = self.first_us.min(at_us as i64 - (ns / 1000) as i64);
        self.last_us = self.last_us.max(at_us);
        if success {
            self.items = self.items.saturating_add(items);
            let second = at_us / US_PER_SECOND;
            self.window[second as usize % SLOTS].add(Slot { second, items });
        } else {
            self.errors += 1;
        }
        if let Some(latest) = memory {
            let growth = latest.after as f64 - latest.before as f64;
            let one = MemoryTally { at_us, latest, peak: latest.peak, growth, count: 1 };
            self.memory = Some(self.memory.map_or(one, |memory| memory.merged(one)));
        }
    }

    fn merge(&mut self, other: &Self) {
        self.durations.merge(&other.durations);
        self.errors += other.errors;
        self.items = self.items.saturating_add(other.items);
        self.first_us = self.first_us.min(other.first_us);
        self.last_us = self.last_us.max(other.last_us);
        for (mine, other) in self.window.iter_mut().zip(other.window) {
            mine.add(other);
        }
        self.memory = match (self.memory, other.memory) {
            (Some(mine), Some(other)) => Some(mine.merged(other)),
            (mine, other) => mine.or(other),
        };
    }

    /// Items a second from the beginning of the first operation to the end of the last one. 0 if that is no time at all.
    pub(super) fn rate(&self) -> f64 {
        let us = self.last_us as i64 - self.first_us;
        if us > 0 { self.items as f64 / us as f64 * US_PER_SECOND as f64 } else { 0.0 }
    }

    /// The same over the last minute, or since the beginning where that was later.
    pub(super) fn recent_rate(&self, now_us: u64) -> f64 {
        // The second that has begun counts, and with it only what of it is over.
        let from = (now_us / US_PER_SECOND) as i64 + 1 - WINDOW_SECONDS;
        let items: u64 = self.window.iter().filter(|slot| slot.second as i64 >= from).map(|slot| slot.items).sum();
        // Work done before that second, by operations that ended after it, is not told apart.
        let us = now_us as i64 - self.first_us.max(from * US_PER_SECOND as i64);
        if us > 0 { items as f64 / us as f64 * US_PER_SECOND as f64 } else { 0.0 }
    }
}

impl Slot {
    /// What was longer ago gives way.
    fn add(&mut self, other: Self) {
        if self.second < other.second {
            *self = other;
        } else if self.second == other.second {
            self.items = self.items.saturating_add(other.items);
        }
    }
}

impl MemoryTally {
    fn merged(self, other: Self) -> Self {
        let latest = if other.at_us >= self.at_us { other } else { self };
        Self {
            peak: self.peak.max(other.peak),
            growth: self.growth + other.growth,
            count: self.count + other.count,
            ..latest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64, items: u64) -> Ended {
        Ended { at_us: (seconds * 1e6) as u64, ns: 500_000_000, items, success: true, memory: None }
    }

    #[test]
    fn rates_of_the_whole_run_and_of_the_last_minute() {
        let series = Series::default();
        assert!(series.read().is_none());
        series.record(at(0.5, 10));
        let tally = series.read().unwrap();
        // It has begun at 0.
        assert_eq!((tally.rate(), tally.recent_rate(500_000)), (20.0, 20.0));
        assert_eq!(tally.recent_rate(1_000_000), 10.0);
        for second in 1..100 {
            series.record(at(f64::from(second) + 0.5, 10));
        }
        let tally = series.read().unwrap();
        assert_eq!(tally.rate(), 1000.0 / 99.5);
        // Seconds 40 to 99, the last of which is half over.
        assert_eq!(tally.recent_rate(99_500_000), 600.0 / 59.5);
        assert_eq!(tally.recent_rate(129_999_999).round(), 5.0);
        assert_eq!(tally.recent_rate(300_000_000), 0.0);
        // Failures take time, and get nothing done.
        series.record(Ended { success: false, ..at(200.0, 10) });
        let tally = series.read().unwrap();
        assert_eq!((tally.items, tally.errors, tally.durations.count()), (1000, 1, 101));
        assert_eq!(tally.recent_rate(200_000_000), 0.0);
    }

    #[test]
    fn what_began_before_the_clock() {
        let series = Series::default();
        series.record(at(0.1, 10));
        let tally = series.read().unwrap();
        assert_eq!((tally.rate(), tally.recent_rate(100_000)), (20.0, 20.0));
    }

    #[test]
    fn what_takes_no_time_has_no_rate() {
        let series = Series::default();
        series.record(Ended { ns: 0, ..at(1.0, 5) });
        let tally = series.read().unwrap();
        assert_eq!((tally.rate(), tally.recent_rate(1_000_000)), (0.0, 0.0));
    }

    #[test]
    fn memory() {
        let series = Series::default();
        for (second, before, after, peak) in [(2.0, 30, 50, 90), (1.0, 10, 20, 40)] {
            series.record(Ended { memory: Some(MemoryUse { before, after, peak }), ..at(second, 1) });
        }
        let memory = series.read().unwrap().memory.unwrap();
        assert_eq!(memory.latest, MemoryUse { before: 30, after: 50, peak: 90 });
        assert_eq!((memory.peak, memory.growth, memory.count), (90, 30.0, 2));
    }

    #[test]
    fn threads_lose_nothing() {
        let series = Series::default();
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| (0..5_000).for_each(|i| series.record(at(f64::from(i) / 100.0, 2))));
            }
        });
        let tally = series.read().unwrap();
        assert_eq!((tally.durations.count(), tally.items), (60_000, 120_000));
        assert_eq!(tally.durations.latency().unwrap().total, 60_000.0 * 500.0);
    }
}
