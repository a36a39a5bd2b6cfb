//! What the machine offers. The only module that asks the operating system.

mod cgroup;
mod machine;
mod monitor;
mod processor;
pub mod threads;

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cgroup::Cgroup;
pub use machine::{Machine, Memory, ProcessMemory, Resources, ThisMachine, machine_name, process_memory, trim};
pub use monitor::Monitor;
pub use processor::{Processor, processor};

/// Cores that this process may use: affinity and the container's CPU quota counted in. At least 1.
pub fn available_cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Whether the processor multiplies numbers of 16 bits with the exponents of 32 (AVX512-BF16; whatever has AMX has that, too).
pub fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// What this thread has had of a processor, in seconds, which other work does not prolong. Where nobody can say, the time that passes.
pub fn thread_seconds() -> f64 {
    #[cfg(unix)]
    {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: it is given one to write.
        #[allow(unsafe_code)]
        unsafe {
            libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time)
        };
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    }
    #[cfg(not(unix))]
    Instant::now().duration_since(*STARTED.get_or_init(Instant::now)).as_secs_f64()
}

#[cfg(not(unix))]
static STARTED: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();

/// Runs both at once, the first on a thread of its own; one after the other where there can be none. For work that waits
/// on files; what computes belongs to [`threads::in_parallel`].
///
/// # Panics
/// When one of them panics.
pub fn join<A: Send, B>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (A, B) {
    // Held here, too, so that it can still be run if no thread takes it.
    let first = Mutex::new(Some(first));
    let take = || first.lock().unwrap_or_else(PoisonError::into_inner).take();
    thread::scope(|scope| {
        let other = thread::Builder::new().spawn_scoped(scope, || take().map(|first| first()));
        let second = second();
        let first = match other.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(first)) => first,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => None,
        };
        match first.or_else(|| take().map(|first| first())) {
            Some(first) => (first, second),
            None => unreachable!("it is taken once, and given back by whoever took it"),
        }
    })
}

/// The time, as far as it decides anything. Tests put another one in its place.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 by the machine's clock, which its owner may set to anything at any time.
    fn wall_ms(&self) -> u64;

    /// Milliseconds since some moment in the past. Never goes back; may stand still while the machine sleeps.
    fn steady_ms(&self) -> u64;

    /// The same in microseconds.
    fn steady_us(&self) -> u64 {
        self.steady_ms().saturating_mul(1000)
    }
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn steady_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn steady_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}
