//! The order of calls: which model each has, by what was asked for before it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{RwLock, watch};

use super::batches::Busy;
use super::engine::Engine;
use super::loaded::Loaded;
use super::texts::Tokenized;
use super::{CallOptions, Embedded, Inputs, blocking};
use crate::cancel::{Cancel, HookGuard};
use crate::chunks::{Chunk, Document, SplitOptions};
use crate::embedding::InputType;
use crate::error::{Error, Result};
use crate::host::threads::in_parallel;

/// A load or a close, in the order in which they were asked for: once it has ended, it tells which model there is.
#[derive(Clone)]
pub(super) struct Turn(Arc<State>);

struct State {
    outcome: watch::Receiver<Outcome>,
    /// Whose model there still is where this one ends without an outcome.
    before: Option<Turn>,
}

/// The model that there is afterwards; `None` as long as nobody knows.
type Outcome = Option<Option<Arc<Loaded>>>;

/// Ends a turn. Dropped without an outcome, it changes nothing.
pub(super) struct End(watch::Sender<Outcome>);

impl Turn {
    /// One that has ended.
    pub fn ended(model: Option<Arc<Loaded>>) -> Self {
        let (_, outcome) = watch::channel(Some(model));
        Self(Arc::new(State { outcome, before: None }))
    }

    /// One that comes after this one.
    pub fn next(&self) -> (Self, End) {
        let (sender, outcome) = watch::channel(None);
        (Self(Arc::new(State { outcome, before: Some(self.last().clone()) })), End(sender))
    }

    /// The model that there is when this turn has ended, and all before it.
    pub async fn model(&self) -> Option<Arc<Loaded>> {
        let mut turn = self;
        loop {
            let mut outcome = turn.0.outcome.clone();
            if let Ok(known) = outcome.wait_for(Option::is_some).await {
                return known.clone().flatten();
            }
            turn = turn.0.before.as_ref()?;
        }
    }

    /// This one, or the one before it that counts, where this one has ended without an outcome.
    fn last(&self) -> &Self {
        let mut turn = self;
        while let (Err(_), true, Some(before)) =
            (turn.0.outcome.has_changed(), turn.0.outcome.borrow().is_none(), &turn.0.before)
        {
            turn = before;
        }
        turn
    }
}

impl End {
    /// This is the model from now on.
    pub fn with(self, model: Option<Arc<Loaded>>) {
        self.0.send_replace(Some(model));
    }
}

/// What calls are made on: the model that was asked for last when this was made, whatever is loaded later.
pub struct Session {
    /// Empty once the generator was closed: a model is freed then, whoever still holds a session.
    turn: Arc<Mutex<Option<Turn>>>,
    stop: Cancel,
    without: Error,
    calls: Arc<RwLock<()>>,
    _closed: HookGuard,
}

impl Session {
    /// `without`: the error where there is no model. `stop` stops all its calls.
    pub(super) fn new(turn: Turn, without: Error, stop: Cancel, calls: Arc<RwLock<()>>) -> Self {
        let turn = Arc::new(Mutex::new(Some(turn)));
        let _closed = stop.on_cancel({
            let turn = Arc::clone(&turn);
            move |_| drop(turn.lock().unwrap_or_else(PoisonError::into_inner).take())
        });
        Self { turn, stop, without, calls, _closed }
    }

    /// Embeds `inputs`: equal texts once, results in input order.
    ///
    /// # Errors
    /// What stopped the call, whatever it waits for: it is not waited for what still runs. See [`OnError`] for the rest.
    ///
    /// [`OnError`]: super::OnError
    pub async fn embed(&self, inputs: Inputs, options: CallOptions) -> Result<Embedded> {
        let (cancel, timeout) = (options.cancel.clone(), options.timeout);
        let call = self.with_model(&cancel, |engine, busy| async move { engine.call(inputs, options, busy).await });
        let Some(limit) = timeout else { return call.await };
        tokio::pin!(call);
        match tokio::time::timeout(limit, &mut call).await {
            Ok(result) => result,
            Err(_) => {
                cancel.cancel(Error::TimedOut { timeout_ms: limit.as_millis() as u64 });
                call.await
            }
        }
    }
}

impl Session {
    /// How many tokens each of `texts` has as the model reads it, before it is cut.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where nobody here can tell.
    pub async fn count_tokens(&self, texts: Vec<String>, input_type: InputType, cancel: Cancel) -> Result<Vec<u32>> {
        let work = move |engine: &Engine, cancel: &Cancel| engine.count_tokens(&texts, input_type, cancel);
        self.reading(cancel, work).await
    }

    /// The tokens of a text as the model reads it, before it is cut.
    ///
    /// # Errors
    /// See [`Session::count_tokens`].
    pub async fn tokenize(&self, text: String, input_type: InputType, cancel: Cancel) -> Result<Tokenized> {
        self.reading(cancel, move |engine: &Engine, _: &Cancel| engine.tokenize_text(&text, input_type)).await
    }

    /// The chunks of each of `documents` that the model reads whole: of `most` tokens, no more than it reads, all that is put
    /// around them included.
    ///
    /// # Errors
    /// See [`Session::count_tokens`] and [`split`](crate::chunks::split).
    pub async fn split(
        &self,
        documents: Vec<Document>,
        most: Option<usize>,
        options: SplitOptions,
        cancel: Cancel,
    ) -> Result<Vec<Vec<Chunk>>> {
        let work = move |engine: &Engine, cancel: &Cancel| engine.split(&documents, most, &options, cancel);
        self.reading(cancel, work).await
    }

    /// Work that reads texts on other threads. Not waited for once it is stopped.
    async fn reading<T: Send + 'static>(
        &self,
        cancel: Cancel,
        work: impl FnOnce(&Engine, &Cancel) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let stop = cancel.clone();
        let read = move |engine: Arc<Engine>, busy: Busy| async move {
            let stopped = stop.clone();
            let done = blocking(move || {
                let _busy = busy;
                in_parallel(|| work(&engine, &stop))
            });
            stopped.or_else(done).await???
        };
        self.with_model(&cancel, read).await
    }

    /// Does something with the model that was asked for last, until `cancel` or the end of the generator stops it.
    async fn with_model<T, F: Future<Output = Result<T>>>(
        &self,
        cancel: &Cancel,
        work: impl FnOnce(Arc<Engine>, Busy) -> F,
    ) -> Result<T> {
        let _stop = self.stop.on_cancel({
            let cancel = cancel.clone();
            move |reason| cancel.cancel(reason.clone())
        });
        // If the runtime drops this future, nothing of it goes on computing.
        let _dropped = CancelOnDrop(cancel.clone());
        cancel.check()?;
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let model = match turn {
            Some(turn) => cancel.or_else(turn.model()).await?,
            None => None,
        };
        let model = model.ok_or_else(|| self.without.clone())?;
        let busy = Arc::new(cancel.or_else(Arc::clone(&self.calls).read_owned()).await?);
        work(model.current(cancel).await?, busy).await
    }
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel(Error::Closed);
    }
}
