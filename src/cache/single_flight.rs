//! Single-flight: of all who want the same thing at the same time, one makes it and the others wait.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, PoisonError};

use tokio::sync::watch;

use crate::sync::{Fault, Mutex, MutexGuard, planted};

type Outcome<V, E> = Option<Result<V, E>>;
/// By key, who tells those who wait: there is nobody to tell until the first one does.
type InFlight<K, V, E> = Mutex<HashMap<K, Option<watch::Sender<Outcome<V, E>>>>>;

/// What is being made now, by key. Clones share it. An outcome goes to those who wait for it and is then forgotten:
/// keeping values is the cache's business, and failures are nobody's.
pub struct SingleFlight<K, V, E> {
    in_flight: Arc<InFlight<K, V, E>>,
}

impl<K, V, E> Clone for SingleFlight<K, V, E> {
    fn clone(&self) -> Self {
        Self { in_flight: Arc::clone(&self.in_flight) }
    }
}

impl<K, V, E> Default for SingleFlight<K, V, E> {
    fn default() -> Self {
        Self { in_flight: Arc::default() }
    }
}

/// Whose turn it is.
pub enum Joined<K: Eq + Hash, V, E> {
    /// The caller's: it makes the value and calls [`Leader::finish`].
    ///
    /// Between its lookup and now another one may have landed, so it looks into the cache once more before it begins.
    Lead(Leader<K, V, E>),
    /// Somebody else's.
    Wait(Waiter<V, E>),
}

impl<K: Eq + Hash + Clone, V: Clone, E: Clone> SingleFlight<K, V, E> {
    /// Joins the flight for `key`, or starts one. Never waits.
    pub fn join(&self, key: K) -> Joined<K, V, E> {
        if planted(Fault::JoinInTwoSteps) && !lock(&self.in_flight).contains_key(&key) {
            lock(&self.in_flight).insert(key.clone(), None);
            return Joined::Lead(Leader { key: Some(key), in_flight: Arc::clone(&self.in_flight) });
        }
        match lock(&self.in_flight).entry(key.clone()) {
            Entry::Occupied(mut flight) => {
                let told = flight.get_mut().get_or_insert_with(|| watch::channel(None).0);
                Joined::Wait(Waiter { outcome: told.subscribe() })
            }
            Entry::Vacant(place) => {
                place.insert(None);
                Joined::Lead(Leader { key: Some(key), in_flight: Arc::clone(&self.in_flight) })
            }
        }
    }

    /// The value of `key`, made by one of all who ask at the same time. `make` is called at most once per caller, and
    /// only where no earlier caller's `make` gave an outcome; what it returns goes to all who wait.
    pub async fn run<F>(&self, key: K, make: impl FnOnce() -> F) -> Result<V, E>
    where
        F: Future<Output = Result<V, E>>,
    {
        loop {
            match self.join(key.clone()) {
                Joined::Lead(leader) => {
                    let outcome = make().await;
                    leader.finish(outcome.clone());
                    return outcome;
                }
                Joined::Wait(waiter) => {
                    if let Some(outcome) = waiter.wait().await {
                        return outcome;
                    }
                }
            }
        }
    }

    /// How many single_flight there are now.
    pub fn len(&self) -> usize {
        lock(&self.in_flight).len()
    }

    /// Whether there is no flight now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The one who makes the value. Dropping it without an outcome leaves that to one of those who wait.
pub struct Leader<K: Eq + Hash, V, E> {
    key: Option<K>,
    in_flight: Arc<InFlight<K, V, E>>,
}

impl<K: Eq + Hash, V, E> Leader<K, V, E> {
    /// Gives all who wait the outcome. A value must be in the cache before: whoever comes from now on looks there.
    pub fn finish(mut self, outcome: Result<V, E>) {
        if let Some(waiting) = self.leave() {
            waiting.send_replace(Some(outcome));
        }
    }

    /// Whoever comes from now on does not meet this flight. Gives who tells those that wait for it.
    fn leave(&mut self) -> Option<watch::Sender<Outcome<V, E>>> {
        let key = self.key.take()?;
        lock(&self.in_flight).remove(&key).flatten()
    }
}

impl<K: Eq + Hash, V, E> Drop for Leader<K, V, E> {
    fn drop(&mut self) {
        // Closes the channel last: those who wait then board again and must not meet this flight.
        drop(self.leave());
    }
}

/// One who waits.
pub struct Waiter<V, E> {
    outcome: watch::Receiver<Outcome<V, E>>,
}

impl<V: Clone, E: Clone> Waiter<V, E> {
    /// The outcome; `None` when the leader was dropped without one: board again.
    pub async fn wait(mut self) -> Outcome<V, E> {
        self.outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hundred_callers_make_one_call() {
        let single_flight: SingleFlight<u8, usize, String> = SingleFlight::default();
        let calls = Arc::new(AtomicUsize::new(0));
        for outcome in [Ok(7), Err("no".to_owned())] {
            calls.store(0, Ordering::SeqCst);
            let callers: Vec<_> = (0..100)
                .map(|_| {
                    let (single_flight, calls, outcome) = (single_flight.clone(), Arc::clone(&calls), outcome.clone());
                    tokio::spawn(async move {
                        let make = || async {
                            calls.fetch_add(1, Ordering::SeqCst);
                            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                            outcome
                        };
                        single_flight.run(1, make).await
                    })
                })
                .collect();
            for caller in callers {
                assert_eq!(caller.await.unwrap(), outcome);
            }
            assert_eq!(calls.load(Ordering::SeqCst), 1);
            assert!(single_flight.is_empty(), "neither values nor failures are kept");
        }
    }

    #[tokio::test]
    async fn when_the_leader_is_cancelled_one_who_waits_takes_over() {
        let single_flight: SingleFlight<u8, usize, String> = SingleFlight::default();
        let (began, begun) = tokio::sync::oneshot::channel();
        let leader = tokio::spawn({
            let single_flight = single_flight.clone();
            async move {
                let make = || async {
                    began.send(()).ok();
                    std::future::pending().await
                };
                single_flight.run(1, make).await
            }
        });
        begun.await.unwrap();
        let others: Vec<_> = (0..3)
            .map(|n| {
                let single_flight = single_flight.clone();
                tokio::spawn(async move { single_flight.run(1, || async { Ok(n) }).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(single_flight.len(), 1);
        leader.abort();
        for other in others {
            assert!(other.await.unwrap().is_ok());
        }
        assert!(single_flight.is_empty());
    }

    #[tokio::test]
    async fn keys_do_not_wait_for_each_other() {
        let single_flight: SingleFlight<u8, u8, String> = SingleFlight::default();
        let Joined::Lead(held) = single_flight.join(1) else { unreachable!() };
        assert_eq!(single_flight.run(2, || async { Ok(2) }).await, Ok(2));
        held.finish(Ok(1));
        assert_eq!(single_flight.run(1, || async { Ok(3) }).await, Ok(3));
    }
}
