//! The batches of one call, as the workers run them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedRwLockReadGuard, mpsc};

use super::model_cache::{About, Known, Values};
use super::stage_metrics::{Ran, Stage, StageMetrics};
use crate::batch::Plan;
use crate::batch::sizing::{BatchSizer, SizeChoice};
use crate::cancel::Cancel;
use crate::embedding::{Tokens, Value};
use crate::error::{Error, Subject};
use crate::memory::governor::{Governor, Permit, Refusal};
use crate::model::{Model, RunError, Then};
use crate::scheduler::Work;

/// One text that a batch is done with.
pub(super) struct Row {
    pub slot: usize,
    pub ms: f64,
    pub known: Result<Known, Failure>,
}

/// Why a text has no vector.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// That of text 0: which one it is, the call knows.
    pub error: Error,
    /// Whether it is only this call that cannot have it, because of a limit of its own.
    pub own: bool,
}

/// Held by all that works for a call: closing waits for it.
pub(super) type Busy = Arc<OwnedRwLockReadGuard<()>>;

/// The batches of one call, run by the workers.
pub(super) struct Batches {
    pub model: Arc<dyn Model>,
    pub slots: Vec<usize>,
    pub tokens: Vec<Tokens>,
    pub plan: Mutex<Plan>,
    pub sizer: Arc<BatchSizer>,
    /// Most rows of a batch, whatever the sizer says.
    pub max_rows: usize,
    /// Batches that are meant to run at a time.
    pub workers: usize,
    /// Who must permit a run: the call's own limit, if it has one, then the generator's.
    pub own: Option<Arc<Governor>>,
    pub governor: Arc<Governor>,
    pub stage_metrics: Arc<StageMetrics>,
    pub cancel: Cancel,
    pub finished: mpsc::UnboundedSender<Vec<Row>>,
    pub nth: AtomicUsize,
    pub _busy: Busy,
}

impl Work for Batches {
    fn run(&self) -> bool {
        if self.cancel.check().is_err() {
            return false;
        }
        let Some((rows, choice)) = self.next() else { return false };
        // Nobody listens any more when the call was dropped; then it is cancelled, too.
        self.finished.send(self.run_rows(&rows, choice)).ok();
        true
    }
}

impl Batches {
    /// The rows of the next batch: as many as are fastest, as far as memory allows. With the choice to learn from, if the
    /// batch is a full one and other workers are busy, too.
    fn next(&self) -> Option<(Vec<usize>, Option<SizeChoice>)> {
        let started = Instant::now();
        let share =
            self.own.as_ref().map_or(u64::MAX, |own| own.share(self.workers)).min(self.governor.share(self.workers));
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = plan.longest()?;
        let choice = self.sizer.next(longest);
        let row = self.model.bytes(1, longest).max(1);
        let most = self.max_rows.min(self.model.most_rows());
        let rows = choice.rows.min(most).min(self.governor.most_rows()).min((share / row) as usize).max(1);
        // To a server or a device each batch is a request; where the workers compute themselves, they are to end together.
        let computes = self.model.most_weight().is_none() && self.model.budget().is_none();
        let rows = if computes { plan.even(rows, self.workers) } else { rows };
        let full = rows == choice.rows && plan.left() > rows * self.workers;
        let taken = plan.take(rows);
        drop(plan);
        self.stage_metrics.done(Stage::Plan, started, taken.len());
        Some((taken, full.then_some(choice)))
    }

    fn run_rows(&self, rows: &[usize], choice: Option<SizeChoice>) -> Vec<Row> {
        let batch: Vec<&Tokens> = rows.iter().map(|&row| &self.tokens[row]).collect();
        let longest = batch.iter().map(|tokens| tokens.weight()).max().unwrap_or_default();
        let waiting = Instant::now();
        // They are decoded one after the other, before the model runs.
        let before = batch.iter().map(|tokens| tokens.working_bytes()).max().unwrap_or_default();
        let permits = match self.admit(self.model.bytes(rows.len(), longest).saturating_add(before)) {
            Ok(permits) => permits,
            Err((Refusal::TooLarge { .. }, _)) if rows.len() > 1 => return self.halves(rows),
            Err((Refusal::TooLarge { need, limit }, own)) => {
                return self.failed(
                    rows,
                    &Failure { error: Error::MemoryLimit { what: Subject::Text, index: 0, need, limit }, own },
                );
            }
            Err((Refusal::Stopped(error), own)) => return self.failed(rows, &Failure { error, own }),
        };
        let started = Instant::now();
        let values = self.model.run(&batch, &self.cancel);
        let ended = Instant::now();
        drop(permits);
        let ms = (ended - started).as_secs_f64() * 1e3;
        let total: usize = batch.iter().map(|tokens| tokens.weight()).sum();
        let stopped = self.cancel.check().is_err();
        // What could not even be read says nothing about batches.
        let ran = !matches!(&values, Err(RunError { then: Then::Without(_), .. }));
        if !stopped && ran {
            self.stage_metrics.batch(&Ran {
                rows: rows.len(),
                tokens: total,
                padded: rows.len() * longest,
                known: batch.iter().all(|tokens| tokens.is_counted()),
                waited: started - waiting,
                took: ended - started,
                success: values.is_ok(),
                machine: self.governor.machine(),
            });
            if let Some(choice) = choice {
                let nth = self.nth.fetch_add(1, Ordering::Relaxed);
                self.sizer.record(choice, rows.len(), total, ms, values.is_ok(), nth);
            }
        }
        match values {
            Ok(values) => {
                let rows = rows.iter().zip(&batch).zip(values);
                rows.map(|((&row, tokens), value)| Row {
                    slot: self.slots[row],
                    ms: ms * tokens.weight() as f64 / total.max(1) as f64,
                    known: finite(value).map(|value| Known { value: Values::Computed(value), about: about(tokens) }),
                })
                .collect()
            }
            Err(RunError { then: Then::Alone, .. }) if rows.len() > 1 && !stopped => {
                rows.iter().flat_map(|&row| self.run_rows(&[row], None)).collect()
            }
            Err(RunError { then: Then::Without(unreadable), .. }) if !stopped => self.without(rows, unreadable),
            Err(RunError { then: Then::Halves, .. }) if rows.len() > 1 && !stopped => self.halves(rows),
            Err(RunError { error, .. }) => self.failed(rows, &Failure { error, own: false }),
        }
    }

    /// Rows of which some cannot be read, each for its own reason.
    fn without(&self, rows: &[usize], unreadable: Vec<(usize, Error)>) -> Vec<Row> {
        let mut left = rows.to_vec();
        let mut done = Vec::with_capacity(rows.len());
        for (at, error) in unreadable.into_iter().rev() {
            let row = left.remove(at);
            done.extend(self.failed(&[row], &Failure { error, own: false }));
        }
        // Without a row at fault there is nothing to be gained by another try.
        if !left.is_empty() && left.len() < rows.len() {
            done.extend(self.run_rows(&left, None));
        }
        done
    }

    fn halves(&self, rows: &[usize]) -> Vec<Row> {
        let (one, other) = rows.split_at(rows.len() / 2);
        let mut done = self.run_rows(one, None);
        done.extend(self.run_rows(other, None));
        done
    }

    fn failed(&self, rows: &[usize], failure: &Failure) -> Vec<Row> {
        rows.iter().map(|&row| Row { slot: self.slots[row], ms: 0.0, known: Err(failure.clone()) }).collect()
    }

    /// Taken in the same order by all, so nobody waits for somebody who waits for him. With a refusal, whether it is by the
    /// call's own limit.
    fn admit(&self, bytes: u64) -> Result<(Option<Permit>, Permit), (Refusal, bool)> {
        let own = self.own.as_ref().map(|own| own.admit(bytes, &self.cancel)).transpose();
        let own = own.map_err(|refusal| (refusal, true))?;
        Ok((own, self.governor.admit(bytes, &self.cancel).map_err(|refusal| (refusal, false))?))
    }
}

fn about(tokens: &Tokens) -> About {
    About { token_count: tokens.total, truncated: tokens.truncated(), confidence: tokens.confidence() }
}

fn finite(value: Value) -> Result<Value, Failure> {
    let numbers = value.numbers();
    match numbers.iter().position(|number| !number.is_finite()) {
        None => Ok(value),
        Some(at) => {
            let reason = format!("the model gave {} at position {at} of its vector", numbers[at]);
            Err(Failure { error: Error::generation(reason), own: false })
        }
    }
}
