//! What is concurrent, in as many orders as there is time for: the code itself, with the checker's threads, locks and clock
//! (`src/sync.rs`). Each model is run twice: as it is, and with a fault planted that it has to find.
//!
//! `EMBEDCORE_SCHEDULES`: how many orders are tried of each model.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cache;
mod flights;
mod leases;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use embedcore::sync::{Fault, plant};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

/// Orders of each model, unless somebody says how many.
const SCHEDULES: usize = 100;

/// Orders in which a fault may be that is planted.
const UNTIL_FOUND: usize = 5000;

/// The fault that is planted, and the clock, are those of all.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn schedules() -> usize {
    std::env::var("EMBEDCORE_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(SCHEDULES)
}

fn run(scheduler: impl Scheduler + 'static, model: fn()) -> usize {
    let mut config = Config::new();
    // SQLite takes more than threads of the checker have otherwise.
    config.stack_size = 1 << 20;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(200_000);
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(model)
}

/// Tries orders at random, and such that differ from the obvious one in a few places only.
fn holds(model: fn()) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let tried = run(RandomScheduler::new(schedules()), model) + run(PctScheduler::new(3, schedules()), model);
    eprintln!("{tried} orders");
}

/// The model finds the fault.
fn finds(fault: Fault, model: fn()) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    plant(Some(fault));
    let found = catch_unwind(AssertUnwindSafe(|| run(RandomScheduler::new(UNTIL_FOUND), model)));
    plant(None);
    assert!(found.is_err(), "{fault:?} was not found in {UNTIL_FOUND} orders");
}
