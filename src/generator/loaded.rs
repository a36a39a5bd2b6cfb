//! The model of a generator: loaded once, and again where a server has put another one in its place.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::blocking;
use super::engine::Engine;
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// How long it is taken for granted that a model on a server is still the same.
const TRUSTED: Duration = Duration::from_secs(5);

/// How long is waited for a server to say which model it has.
const PATIENCE: Duration = Duration::from_secs(1);

/// Loads a model from where it was loaded before.
pub(super) type Load = dyn Fn(&Cancel) -> Result<Engine> + Send + Sync;

/// A loaded model, as of now.
pub(super) struct Loaded {
    engine: Mutex<Arc<Engine>>,
    load: Arc<Load>,
    /// Held by the call that loads it again: the others wait for that.
    renewing: tokio::sync::Mutex<()>,
}

impl Loaded {
    /// Loads a model. Blocks.
    pub fn new(load: Arc<Load>, cancel: &Cancel) -> Result<Self> {
        let engine = Mutex::new(Arc::new(load(cancel)?));
        Ok(Self { engine, load, renewing: tokio::sync::Mutex::default() })
    }

    /// The model that there was last.
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The model for a call: loaded again where it was replaced.
    pub async fn current(&self, cancel: &Cancel) -> Result<Arc<Engine>> {
        self.seen(TRUSTED, cancel).await
    }

    /// The same for who wants to know what there is now.
    pub async fn now(&self, cancel: &Cancel) -> Result<Arc<Engine>> {
        self.seen(Duration::ZERO, cancel).await
    }

    async fn seen(&self, ago: Duration, cancel: &Cancel) -> Result<Arc<Engine>> {
        let engine = self.engine();
        if !engine.may_be_replaced() || !is_replaced(&engine, ago, cancel).await? {
            return Ok(engine);
        }
        let _renewing = cancel.or_else(self.renewing.lock()).await?;
        let latest = self.engine();
        if !Arc::ptr_eq(&latest, &engine) {
            return Ok(latest);
        }
        let (load, stop) = (Arc::clone(&self.load), cancel.clone());
        let renewed = cancel.or_else(blocking(move || load(&stop).map(Arc::new))).await???;
        let replaced = {
            let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *engine, Arc::clone(&renewed))
        };
        blocking(move || replaced.keep_learned()).await?;
        Ok(renewed)
    }
}

/// Whether the server says so, if it says anything soon.
async fn is_replaced(engine: &Arc<Engine>, ago: Duration, cancel: &Cancel) -> Result<bool> {
    let (look, asked) = (Cancel::default(), Arc::clone(engine));
    let looking = {
        let look = look.clone();
        blocking(move || asked.model.is_replaced(ago, &look))
    };
    let seen = tokio::time::timeout(PATIENCE, cancel.or_else(looking)).await;
    // Nobody waits for it any more.
    look.cancel(Error::Aborted);
    match seen {
        Ok(seen) => seen?,
        Err(_) => Ok(false),
    }
}
