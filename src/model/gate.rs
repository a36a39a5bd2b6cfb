//! Everything that is inside a runtime of models right now. At process exit the gates are closed and emptied, because a
//! library's static destructors must not run under a live inference.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// How long a process waits at exit for runs that were told to stop. One operator takes milliseconds.
const EXIT_WAIT: Duration = Duration::from_secs(10);

/// Of ONNX Runtime.
pub(super) static ONNX: Gate = Gate::new();

/// Of OpenVINO.
pub(super) static OPENVINO: Gate = Gate::new();

pub(super) struct Gate {
    inside: Mutex<Inside>,
    left: Condvar,
}

struct Inside {
    closed: bool,
    next: u64,
    calls: BTreeMap<u64, Cancel>,
}

/// Held by what is inside.
pub(super) struct GatePass(&'static Gate, u64);

impl Gate {
    const fn new() -> Self {
        Self { inside: Mutex::new(Inside { closed: false, next: 0, calls: BTreeMap::new() }), left: Condvar::new() }
    }

    /// Lets in what `cancel` stops.
    ///
    /// # Errors
    /// Once it was stopped, or the gate is closed.
    pub fn enter(&'static self, cancel: &Cancel) -> Result<GatePass> {
        cancel.check()?;
        let mut inside = self.lock();
        if inside.closed {
            return Err(Error::Closed);
        }
        let id = inside.next;
        inside.next += 1;
        inside.calls.insert(id, cancel.clone());
        Ok(GatePass(self, id))
    }

    /// Waits until those that are inside now have left, as long as a process waits at exit.
    pub fn await_leaving(&self) {
        let inside = self.lock();
        let now: Vec<u64> = inside.calls.keys().copied().collect();
        let stay = |inside: &mut Inside| now.iter().any(|id| inside.calls.contains_key(id));
        drop(self.left.wait_timeout_while(inside, EXIT_WAIT, stay));
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for GatePass {
    fn drop(&mut self) {
        self.0.lock().calls.remove(&self.1);
        self.0.left.notify_all();
    }
}

/// Closes the gates when the process exits. To be called after a library was loaded, so that it happens before the
/// library's static destructors run.
pub(super) fn close_at_exit() {
    extern "C" fn handler() {
        close();
    }
    #[allow(unsafe_code)]
    // SAFETY: the handler is a plain function without captures and does not unwind.
    unsafe {
        libc::atexit(handler);
    }
}

/// Ends the process at once, with `code` as its status, where something is still inside a runtime after [`close`] has waited: a device
/// may not let itself be stopped, and to run a library's static destructors under it would be a crash.
pub fn exit_if_busy(code: i32) {
    let is_busy = |gate: &Gate| !gate.lock().calls.is_empty();
    if [&ONNX, &OPENVINO].into_iter().any(is_busy) {
        #[cfg(unix)]
        #[allow(unsafe_code)]
        // SAFETY: it takes a number, and does not return.
        unsafe {
            libc::_exit(code);
        }
    }
}

/// Lets nothing into a runtime any more, stops what is inside and waits for it. For a process that ends: it must not
/// begin to, on one thread, while a library is loaded on another.
pub fn close() {
    for gate in [&ONNX, &OPENVINO] {
        let calls: Vec<Cancel> = {
            let mut inside = gate.lock();
            inside.closed = true;
            inside.calls.values().cloned().collect()
        };
        calls.iter().for_each(|call| call.cancel(Error::Closed));
    }
    for gate in [&ONNX, &OPENVINO] {
        let inside = gate.lock();
        drop(gate.left.wait_timeout_while(inside, EXIT_WAIT, |inside| !inside.calls.is_empty()));
    }
}
