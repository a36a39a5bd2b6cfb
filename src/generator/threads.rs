//! Many runs on one thread each, or one run on many threads: whichever is faster here, for this model.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use crate::cancel::Cancel;
use crate::embedding::Tokens;
use crate::error::Result;
use crate::model::Model;
use crate::scheduler::{Scheduler, Work};

/// A batch that is like those of code: 512 tokens in all on the processor.
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
    let trial = Trial::of(model);
    trial.warm(workers, cancel)?;
    trial.speed(workers, TIMED, cancel)
}

/// Batches of a model that only time it.
pub(super) struct Trial {
    model: Arc<dyn Model>,
    row: Tokens,
}

impl Trial {
    pub fn of(model: &Arc<dyn Model>) -> Self {
        let length = model.info().max_length.map_or(LENGTH, |longest| longest.min(LENGTH));
        Self { model: Arc::clone(model), row: Tokens { ids: vec![0; length], total: length, ..Tokens::default() } }
    }

    /// Runs what is slower the first time.
    pub fn warm(&self, workers: &Scheduler, cancel: &Cancel) -> Result<()> {
        self.speed(workers, WARM, cancel).map(drop)
    }

    /// Seconds that one batch takes on this thread: the shortest of a few.
    pub fn seconds(&self, cancel: &Cancel) -> Result<f64> {
        let batch = self.batch();
        let mut shortest = f64::INFINITY;
        for _ in 0..=TIMED {
            let started = Instant::now();
            self.model.run(&batch, cancel).map_err(|failed| failed.error)?;
            shortest = shortest.min(started.elapsed().as_secs_f64());
        }
        Ok(shortest)
    }

    fn batch(&self) -> Vec<&Tokens> {
        let rows = self.model.budget().map_or(ROWS, |budget| budget.rows(LENGTH));
        vec![&self.row; rows.min(self.model.most_rows())]
    }

    /// Tokens per second, while each of `workers` runs so many batches.
    pub fn speed(&self, workers: &Scheduler, each: usize, cancel: &Cancel) -> Result<f64> {
        let rows = self.batch().len();
        let (done, all) = mpsc::channel();
        let left = AtomicUsize::new(each * workers.count());
        let (model, row, cancelled) = (Arc::clone(&self.model), self.row.clone(), cancel.clone());
        let started = Instant::now();
        workers.submit(Arc::new(Timed { model, row, rows, left, done, cancelled }), workers.count());
        let batches = all.iter().count();
        cancel.check()?;
        Ok((batches * rows * self.row.ids.len()) as f64 / started.elapsed().as_secs_f64())
    }
}

struct Timed {
    model: Arc<dyn Model>,
    row: Tokens,
    rows: usize,
    left: AtomicUsize,
    done: mpsc::Sender<()>,
    cancelled: Cancel,
}

impl Work for Timed {
    fn run(&self) -> bool {
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            return false;
        }
        // A batch that fails counts for nothing: then the other way is faster.
        if self.model.run(&vec![&self.row; self.rows], &self.cancelled).is_ok() {
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
