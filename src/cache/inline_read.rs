//! Whether an event loop asks the tiers below memory itself or has another thread ask them.
//!
//! While the system has the file's pages at hand, a look into it takes some microseconds, and a server that is near answers
//! in some tens of them: less than to hand the lookup to another thread, and a fraction of what its caller waits until that
//! thread has woken up, answered and woken up the event loop. So the event loop looks itself, as long as that is quick and
//! does not keep other work waiting: after [`MOST_AT_ONCE`] of it, and after a look that was slow, because the disk had to be
//! asked or the server is not near, other threads do it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::EmbeddingCache;
use super::entry::Entry;
use super::lookup::Open;

/// How long an event loop looks itself before it gets to other work.
const MOST_AT_ONCE: Duration = Duration::from_millis(2);

/// What takes longer was no matter of the processor alone, or of a server that is near.
const SLOW: Duration = Duration::from_micros(200);

/// Lookups that go elsewhere after one that was slow; twice as many after each that follows.
const FEW: u32 = 8;
const MANY: u32 = 1024;

thread_local! {
    /// Time that the event loop of this thread has looked since it got to other work, for all of its caches.
    static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// How an event loop looks for one cache.
#[derive(Debug, Default)]
pub struct InlineReads {
    /// Lookups that other threads have.
    away: usize,
    /// Lookups that are to go elsewhere, and how many there were to be the last time.
    skip: u32,
    skipped: u32,
}

impl InlineReads {
    /// The answer, if this is the time and place to ask for it; else the lookup is given back, and is to be settled on
    /// another thread, between [`InlineReads::sent`] and [`InlineReads::returned`].
    pub fn settle(&mut self, cache: &EmbeddingCache, open: Open) -> Result<Option<Arc<Entry>>, Open> {
        if !self.here() {
            return Err(open);
        }
        let started = Instant::now();
        let answer = cache.settle_now(open);
        self.took(started.elapsed());
        answer
    }

    /// A lookup was handed to another thread.
    pub fn sent(&mut self) {
        self.away += 1;
    }

    /// It has come back: the event loop has got to other work meanwhile.
    pub fn returned(&mut self) {
        self.away -= 1;
        SPENT.set(Duration::ZERO);
    }

    /// Nobody overtakes those who were sent elsewhere because the event loop has other work.
    fn here(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.away == 0 && SPENT.get() < MOST_AT_ONCE
    }

    fn took(&mut self, time: Duration) {
        SPENT.set(SPENT.get() + time);
        if time < SLOW {
            self.skipped /= 2;
        } else {
            self.skipped = (2 * self.skipped).clamp(FEW, MANY);
            self.skip = self.skipped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(10);

    #[test]
    fn an_event_loop_gets_to_other_work() {
        let mut inline_reads = InlineReads::default();
        let mut here = 0;
        while inline_reads.here() {
            inline_reads.took(QUICK);
            here += 1;
        }
        assert_eq!(here, MOST_AT_ONCE.as_micros() / QUICK.as_micros());
        for _ in 0..3 {
            inline_reads.sent();
        }
        inline_reads.returned();
        assert!(!inline_reads.here(), "two are still away");
        inline_reads.returned();
        inline_reads.returned();
        assert!(inline_reads.here());
    }

    #[test]
    fn a_slow_disk_is_left_to_others_more_and_more() {
        let mut inline_reads = InlineReads::default();
        let mut elsewhere = Vec::new();
        for _ in 0..9 {
            let mut skipped = 0;
            while !inline_reads.here() {
                inline_reads.sent();
                inline_reads.returned();
                skipped += 1;
            }
            elsewhere.push(skipped);
            inline_reads.took(SLOW);
        }
        assert_eq!(elsewhere, [0, 8, 16, 32, 64, 128, 256, 512, 1024]);
        // Once it is quick again, a slow look is soon an exception again.
        for _ in 0..20 {
            while !inline_reads.here() {}
            inline_reads.took(Duration::ZERO);
        }
        inline_reads.took(SLOW);
        assert_eq!(inline_reads.skip, FEW);
    }
}
