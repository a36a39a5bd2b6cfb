//! What the machine offers. The only file that asks the operating system.

use std::thread;

/// Cores that this process may use: affinity and the container's CPU quota counted in. At least 1.
pub fn available_cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Runs both at once, the first on a thread of its own. For work that waits on files; computing belongs to rayon.
///
/// # Panics
/// When one of them panics.
pub fn join<A: Send, B>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        (first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), second)
    })
}
