//! Many runs on one thread each, or one run on many threads: whichever is faster here, for this model.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use crate::cancel::Cancel;
use crate::embedding::Tokens;
use crate::error::Result;
use crate::model::Model;
use crate::scheduler::{Scheduler, Work};

/// A batch that is like those of code: 512 tokens in all.
const ROWS: usize = 4;
const LENGTH: usize = 128;

/// Batches for each worker: one to warm up, then two that count.
const WARM: usize = 1;
const TIMED: usize = 2;

/// From so many cores on, one is left to the event loop.
const ENOUGH_TO_LEAVE_ONE: usize = 4;

/// Threads that compute, on a machine with so many cores for this process.
pub(super) fn for_computing(cores: usize) -> usize {
    if cores >= ENOUGH_TO_LEAVE_ONE { cores - 1 } else { cores }
}

/// Tokens per second of `model` on `workers`.
pub(super) fn speed(model: &Arc<dyn Model>, workers: &Scheduler, cancel: &Cancel) -> Result<f64> {
    let length = model.info().max_length.map_or(LENGTH, |longest| longest.min(LENGTH));
    let row = Tokens { ids: vec![0; length], total: length, ..Tokens::default() };
    let run = |count: usize| -> Result<f64> {
        let (done, all) = mpsc::channel();
        let trial = Trial { model: Arc::clone(model), row: row.clone(), left: AtomicUsize::new(count), done };
        let started = Instant::now();
        workers.submit(Arc::new(trial), workers.count());
        let batches = all.iter().count();
        cancel.check()?;
        Ok((batches * ROWS * length) as f64 / started.elapsed().as_secs_f64())
    };
    run(WARM * workers.count())?;
    run(TIMED * workers.count())
}

struct Trial {
    model: Arc<dyn Model>,
    row: Tokens,
    left: AtomicUsize,
    done: mpsc::Sender<()>,
}

impl Work for Trial {
    fn run(&self) -> bool {
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            return false;
        }
        // A batch that fails counts for nothing: then the other way is faster.
        if self.model.run(&[&self.row; ROWS], &Cancel::default()).is_ok() {
            self.done.send(()).ok();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_a_core_where_there_is_one_to_leave() {
        assert_eq!([1, 2, 3, 4, 8, 64].map(for_computing), [1, 2, 3, 3, 7, 63]);
    }
}
