//! Things by name: those that were recorded since the last reset, and of those only so many.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::{MAX_NAMES, OTHERS};

/// A name and what it stands for.
pub(super) type Entry<T> = (Arc<str>, Arc<T>);

/// All of one kind. A name takes up room once something is recorded under it, and until it is forgotten.
pub(super) struct KeyHasher<T> {
    all: RwLock<HashMap<Arc<str>, Arc<T>>>,
    /// How often all of them were forgotten.
    epoch: AtomicU64,
}

impl<T> Default for KeyHasher<T> {
    fn default() -> Self {
        Self { all: RwLock::default(), epoch: AtomicU64::new(0) }
    }
}

impl<T: Default> KeyHasher<T> {
    /// What is recorded under `name`; where there is no room for one more name, under that of all others.
    pub(super) fn get(&self, name: &Arc<str>) -> Arc<T> {
        if let Some(found) = self.find(name) {
            return found;
        }
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let name = if all.len() < MAX_NAMES || all.contains_key(name) { Arc::clone(name) } else { OTHERS.into() };
        Arc::clone(all.entry(name).or_default())
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<T>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// How often all were forgotten before, and all of them in no order.
    pub(super) fn list(&self) -> (u64, Vec<Entry<T>>) {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        (self.epoch(), all.iter().map(|(name, one)| (Arc::clone(name), Arc::clone(one))).collect())
    }

    pub(super) fn forget(&self) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        self.epoch.fetch_add(1, Ordering::Release);
        all.clear();
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}

/// One name, and what was found under it the last time.
pub(super) struct Named<T> {
    name: Arc<str>,
    found: Option<(u64, Arc<T>)>,
}

impl<T: Default> Named<T> {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), found: None }
    }

    /// What was found, unless it was forgotten meanwhile.
    pub(super) fn known(&self, names: &KeyHasher<T>) -> Option<&T> {
        self.found.as_ref().filter(|(epoch, _)| *epoch == names.epoch()).map(|(_, one)| &**one)
    }

    pub(super) fn get(&mut self, names: &KeyHasher<T>) -> &T {
        let epoch = names.epoch();
        if self.found.as_ref().is_some_and(|(found, _)| *found != epoch) {
            self.found = None;
        }
        let (_, one) = self.found.get_or_insert_with(|| (epoch, names.get(&self.name)));
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_for_names_that_are_used() {
        let names = KeyHasher::<AtomicU64>::default();
        let mut idle = Named::new("idle");
        for i in 0..MAX_NAMES + 5 {
            Named::new(&format!("{i}")).get(&names).fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!((names.list().1.len(), names.find(OTHERS).unwrap().load(Ordering::Relaxed)), (MAX_NAMES + 1, 5));
        assert!(names.find("idle").is_none() && idle.known(&names).is_none());
        names.forget();
        assert_eq!((names.list().0, names.list().1.len()), (1, 0));
        idle.get(&names).fetch_add(1, Ordering::Relaxed);
        assert_eq!(names.find("idle").unwrap().load(Ordering::Relaxed), 1);
        assert!(idle.known(&names).is_some());
        names.forget();
        assert!(idle.known(&names).is_none());
    }
}
