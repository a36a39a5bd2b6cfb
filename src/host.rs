//! What the machine offers. The only file that asks the operating system.

use std::thread;

/// Cores that this process may use: affinity and the container's CPU quota counted in. At least 1.
pub fn available_cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
