//! One program for all targets, so that the library is linked once: `FUZZ_TARGET` says which one runs, and the arguments are
//! those of libFuzzer. `FUZZ_SEEDS=directory` writes the seeds of all targets instead. See `scripts/fuzz.mjs`.

#![cfg_attr(not(test), no_main)]

mod damage;
mod input;
mod places;
mod seeds;
mod targets;

use std::panic;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

use targets::{TARGETS, Target};

/// What the latest panic said.
static LATEST: Mutex<String> = Mutex::new(String::new());

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    // libFuzzer ends the process at every panic. What the library catches itself, because a crate that it uses panics, is none
    // of ours; what reaches this program is, and ends it below.
    panic::set_hook(Box::new(|panic| *LATEST.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string()));
    if let Some(directory) = std::env::var_os("FUZZ_SEEDS") {
        seeds::write(Path::new(&directory));
        std::process::exit(0);
    }
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let known = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| {
        eprintln!("FUZZ_TARGET is one of {}", known());
        std::process::exit(2)
    })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = *TARGET;
    if panic::catch_unwind(|| (target.run)(data)).is_err() {
        eprintln!("{}: {}", target.name, LATEST.lock().unwrap_or_else(PoisonError::into_inner));
        std::process::abort();
    }
});
