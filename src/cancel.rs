//! Stopping work from outside: one token per call, with the reason for which it stops.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Fault, Mutex, MutexGuard, planted};

type Hook = Box<dyn Fn(&Error) + Send + Sync>;

/// A flag that is raised at most once. Clones share it.
#[derive(Clone, Default)]
pub struct Cancel(Arc<State>);

#[derive(Default)]
struct State {
    reason: OnceLock<Error>,
    hooks: Mutex<BTreeMap<u64, Hook>>,
    next: AtomicU64,
}

/// Keeps a hook in place; dropping it removes the hook.
pub struct HookGuard {
    cancel: Cancel,
    id: u64,
}

impl Cancel {
    /// Stops the work for `reason`. Only the first call counts. Runs the hooks on this thread.
    pub fn cancel(&self, reason: Error) {
        if self.0.reason.set(reason.clone()).is_ok() {
            // Taken out first: a hook may drop its own guard, which locks the map.
            let hooks = std::mem::take(&mut *self.hooks());
            for hook in hooks.values() {
                hook(&reason);
            }
        }
    }

    /// `Err(reason)` once the work shall stop.
    pub fn check(&self) -> Result<()> {
        self.0.reason.get().map_or(Ok(()), |reason| Err(reason.clone()))
    }

    /// Runs `hook` when the work is stopped, at once if it already is. Hooks must be quick and must not block.
    pub fn on_cancel(&self, hook: impl Fn(&Error) + Send + Sync + 'static) -> HookGuard {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.hooks().insert(id, Box::new(hook));
        // A cancel between this thread's insert and here has either taken the hook out and run it, or set the reason
        // before the insert and never saw it: then it is still in the map and is run now.
        if let Some(reason) = self.0.reason.get().filter(|_| !planted(Fault::LateHookIsLost)) {
            let late = self.hooks().remove(&id);
            if let Some(hook) = late {
                hook(reason);
            }
        }
        HookGuard { cancel: self.clone(), id }
    }

    /// What `work` gives, or `Err(reason)` as soon as the work shall stop.
    pub async fn or_else<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let stopped = Arc::new(Notify::new());
        let _hook = self.on_cancel({
            let stopped = Arc::clone(&stopped);
            move |_| stopped.notify_one()
        });
        tokio::select! {
            given = work => Ok(given),
            () = stopped.notified() => Err(self.0.reason.get().cloned().unwrap_or(Error::Closed)),
        }
    }

    fn hooks(&self) -> MutexGuard<'_, BTreeMap<u64, Hook>> {
        self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HookGuard {
    fn drop(&mut self) {
        self.cancel.hooks().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let cancel = Cancel::default();
        assert_eq!(cancel.check(), Ok(()));
        cancel.cancel(Error::Aborted);
        cancel.cancel(Error::Closed);
        assert_eq!(cancel.check(), Err(Error::Aborted));
    }

    #[test]
    fn hooks_run_once_whenever_they_were_added() {
        let cancel = Cancel::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let count = |runs: &Arc<AtomicUsize>| {
            let runs = runs.clone();
            move |_: &Error| {
                runs.fetch_add(1, Ordering::SeqCst);
            }
        };
        let _early = cancel.on_cancel(count(&runs));
        drop(cancel.on_cancel(count(&runs)));
        cancel.cancel(Error::Aborted);
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        let _late = cancel.on_cancel(count(&runs));
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }
}
