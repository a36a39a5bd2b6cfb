//! Who may compute on a device now.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::Provider;

/// Lets so many in at a time: of all sessions of this process that compute by the same provider, since those share a device.
pub(super) struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

/// Held by who is inside.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Those of a provider that does not take as many runs as come.
    pub fn of(providers: &[Provider]) -> Option<Arc<Self>> {
        static KNOWN: Mutex<BTreeMap<String, Arc<Turns>>> = Mutex::new(BTreeMap::new());
        let limited = providers.iter().filter_map(|provider| Some((provider.most_runs()?, provider.as_str())));
        let (most, name) = limited.min()?;
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = || Arc::new(Self { free: Mutex::new(most), freed: Condvar::new() });
        Some(Arc::clone(known.entry(name.to_owned()).or_insert_with(turns)))
    }

    pub fn take(&self) -> Turn<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
