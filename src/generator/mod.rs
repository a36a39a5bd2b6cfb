//! The conductor: one call from texts to vectors, through every stage. JS class: `OptimizedEmbeddingGenerator`.

mod answer;
mod batches;
mod engine;
mod leases;
mod memo;
mod tally;
mod threads;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::batch::Budget;
use crate::batch::optimizer::{Analytics, BatchOptimizer, OptimizerOptions};
use crate::batch::pace::{Learned, Outlook, Pacer};
use crate::cache::EmbeddingCache;
use crate::cancel::Cancel;
use crate::embedding::{EmbeddingMatrix, InputType, Space};
use crate::error::{Error, Result};
use crate::host;
use crate::memory::governor::{Account, Governor, OnChange};
use crate::memory::{MemoryOptions, MemoryProcessor};
use crate::metrics::{Metrics, Operation};
use crate::model::{self, BUILTIN, ModelInfo, ModelOptions, Source};
use crate::text::Annotation;
use engine::Engine;
use tally::Tally;
pub use tally::{Stage, Totals};

/// What a generator is made with.
#[derive(Debug, Clone, Default)]
pub struct GeneratorOptions {
    /// The model that `initialize` loads when it is given none. Default: [`BUILTIN`].
    pub model_path: Option<String>,
    /// What the user says about the model.
    pub model: ModelOptions,
    /// The limits of one batch, to begin with.
    pub budget: Budget,
    /// Whether loading measures what is faster: as many runs as there are cores on one thread each, or one run on all.
    pub measure_threads: bool,
    /// How batches become faster.
    pub batching: Batching,
    /// Most bytes of physical memory that the process may hold while texts are embedded. Default: what the container or
    /// the host leaves.
    pub memory_limit: Option<u64>,
    /// How much is done at once by how full memory is; `None`: as much as the limit permits.
    pub memory: Option<MemoryOptions>,
    /// What else measures the stages of calls, as `embedcore.…`; may be shared.
    pub monitor: Option<Arc<Metrics>>,
}

/// How the size of batches is chosen.
#[derive(Debug, Clone)]
pub enum Batching {
    /// By the budget alone.
    Fixed,
    /// Learned, for each class of lengths apart.
    Learning(OptimizerOptions),
    /// By an optimizer that others may use, too; within the budget.
    Shared(Arc<Mutex<BatchOptimizer>>),
}

impl Batching {
    /// What chooses the sizes; `most` as for [`Pacer::learning`].
    fn pacer(&self, budget: Budget, most: impl Fn(usize) -> usize) -> Result<Pacer> {
        match self {
            Self::Fixed => Ok(Pacer::fixed(budget)),
            Self::Learning(learning) => Pacer::learning(budget, *learning, most),
            Self::Shared(optimizer) => Ok(Pacer::shared(budget, Arc::clone(optimizer))),
        }
    }

    /// The options of the optimizers that choose, or the default ones.
    fn options(&self) -> OptimizerOptions {
        match self {
            Self::Fixed => OptimizerOptions::default(),
            Self::Learning(options) => *options,
            Self::Shared(optimizer) => *optimizer.lock().unwrap_or_else(PoisonError::into_inner).options(),
        }
    }
}

impl Default for Batching {
    fn default() -> Self {
        Self::Learning(Pacer::defaults())
    }
}

/// What a call embeds.
#[derive(Debug, Clone)]
pub enum Inputs {
    /// Texts, embedded as they are.
    Texts(Vec<String>),
    /// Annotations, embedded as [`crate::text::prepare`] words them.
    Annotations(Vec<Annotation>),
}

impl Inputs {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Annotations(annotations) => annotations.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What becomes of a call when one of its texts cannot be embedded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnError {
    /// The whole call fails with that text's error.
    #[default]
    Throw,
    /// That text's item carries the error and its row is zero.
    Skip,
}

/// Told how many texts are answered, of how many. Never goes back, ends with all of them.
pub type Progress = Box<dyn Fn(usize, usize) + Send + Sync>;

/// How one call behaves.
#[derive(Default)]
pub struct CallOptions {
    /// The role of its texts.
    pub input_type: InputType,
    /// What an unusable text does.
    pub on_error: OnError,
    /// Most rows in a batch, where fewer than by default are wanted.
    pub batch_size: Option<usize>,
    /// Most batches at a time.
    pub max_concurrency: Option<usize>,
    /// Most bytes of working memory that its batches have together.
    pub memory_limit: Option<u64>,
    /// The index of the first input, where the call is a part of something longer: errors count from it.
    pub first_index: usize,
    /// Whether the cache is neither asked nor told.
    pub bypass_cache: bool,
    /// When to give up.
    pub timeout: Option<Duration>,
    /// Stops the call from outside.
    pub cancel: Cancel,
    /// Called on a thread of the runtime.
    pub progress: Option<Progress>,
}

/// The answer to a call.
#[derive(Debug, Default)]
pub struct Embedded {
    /// A vector for each input, in input order.
    pub matrix: EmbeddingMatrix,
    /// A report for each input, in input order.
    pub items: Vec<Item>,
    /// For annotations, what was embedded for each.
    pub texts: Vec<String>,
    /// The model that was used, as the user named it.
    pub model_id: String,
}

/// What became of one input.
#[derive(Debug, Clone, Default)]
pub struct Item {
    /// Milliseconds that the model spent on it: its tokens' share of its batch. Equal texts share one run.
    pub processing_ms: f64,
    /// Tokens of the whole text, special tokens included.
    pub token_count: usize,
    /// Whether the model did not see the whole text, cut by its tokenizer or before.
    pub truncated: bool,
    /// Share of the text's tokens that the model saw and knew, 0–1.
    pub confidence: f64,
    /// Whether this call did not compute it: it was in the cache, or another call computed it at the same time.
    pub from_cache: bool,
    /// Why there is no vector.
    pub error: Option<Error>,
}

/// Embeds texts with one model. All methods may be called at once from many tasks.
pub struct Generator {
    options: GeneratorOptions,
    state: Mutex<State>,
    /// Held while a model loads, so that concurrent calls of `initialize` load it once.
    loading: tokio::sync::Mutex<()>,
    /// Held for reading by every call.
    calls: tokio::sync::RwLock<()>,
    governor: Arc<Governor>,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct State {
    engine: Option<Arc<Engine>>,
    cache: Option<(Arc<EmbeddingCache>, Space)>,
    /// Stops the load that is under way.
    load: Cancel,
    /// Stops all calls, with this model or with one that it replaced.
    stop: Cancel,
    closed: bool,
}

impl Generator {
    /// A generator without a model yet. Costs nothing.
    ///
    /// # Errors
    /// `INVALID_CONFIG` for options of batching and memory that contradict each other.
    pub fn new(options: GeneratorOptions) -> Result<Self> {
        let (loading, calls) = (tokio::sync::Mutex::default(), tokio::sync::RwLock::default());
        options.batching.pacer(options.budget, |_| usize::MAX)?;
        let strategies = options.memory.clone().map(|memory| MemoryProcessor::new(memory, 0.0)).transpose()?;
        let governor = Governor::new(options.memory_limit, strategies);
        governor.on_shortage(Box::new(|_| {
            host::trim();
            true
        }));
        let governor = Arc::new(governor);
        let tally = Arc::new(Tally::new(options.monitor.clone(), options.batching.options()));
        Ok(Self { options, state: Mutex::default(), loading, calls, governor, tally })
    }

    /// Tells `listener` when memory makes another strategy necessary, or possible.
    pub fn on_strategy_change(&self, listener: OnChange) {
        self.governor.on_change(listener);
    }

    /// What was done so far.
    pub fn totals(&self) -> Totals {
        self.tally.totals()
    }

    /// How the stages of calls went so far: those that ran, in the order of a call.
    pub fn stages(&self) -> Vec<Operation> {
        self.tally.stages()
    }

    /// How memory stands, and the name of the strategy in use.
    pub fn memory(&self) -> (Account, Option<String>) {
        (self.governor.account(), self.governor.strategy_name())
    }

    /// What was learned about batches of the loaded model.
    pub fn learned(&self) -> Vec<Learned> {
        self.state().engine.as_ref().map(|engine| engine.pacer.learned()).unwrap_or_default()
    }

    /// How the latest batches went.
    pub fn analytics(&self) -> Analytics {
        self.tally.analytics()
    }

    /// How large batches like the latest one are now, and how large they are best, as far as that is known.
    pub fn outlook(&self) -> Outlook {
        let engine = self.state().engine.clone();
        let of = |pacer: &Pacer, max_rows| pacer.outlook().at_most(max_rows);
        match engine {
            Some(engine) => of(&engine.pacer, engine.max_rows),
            // Such options were accepted when the generator was made.
            None => self
                .options
                .batching
                .pacer(self.options.budget, |_| usize::MAX)
                .map_or_else(|_| Outlook::default(), |pacer| of(&pacer, usize::MAX)),
        }
    }

    /// What a person could do about memory as it is.
    pub fn memory_recommendations(&self) -> Vec<String> {
        self.governor.recommendations()
    }

    /// Decides anew how large batches are, and gives back what memory can be spared. Blocks for milliseconds.
    pub fn optimize(&self) {
        let engine = self.state().engine.clone();
        if let Some(engine) = engine {
            engine.pacer.optimize();
        }
        self.governor.relieve();
    }

    /// Lets the models that are loaded from now on use a cache. `within` tells the entries of this generator apart from
    /// others of the cache, beside their embedding space.
    pub fn attach(&self, cache: Arc<EmbeddingCache>, within: Space) {
        let spares = Arc::downgrade(&cache);
        self.governor.on_shortage(Box::new(move |short| {
            let cache = spares.upgrade();
            cache.as_ref().filter(|_| short).into_iter().for_each(|cache| cache.give_back());
            cache.is_some()
        }));
        self.state().cache = Some((cache, within));
    }

    /// Loads the model at `path`, or the one of the options. Does nothing when that model is loaded already; replaces
    /// another one only once the new one is ready, and lets running calls finish with the old one.
    pub async fn initialize(&self, path: Option<String>) -> Result<()> {
        self.load(path, Cancel::default(), None).await
    }

    /// The same, stopped by `cancel`, and told of what is fetched.
    pub async fn load(&self, path: Option<String>, cancel: Cancel, progress: Option<model::Progress>) -> Result<()> {
        let _one_at_a_time = cancel.or_else(self.loading.lock()).await?;
        let path = path.or_else(|| self.options.model_path.clone()).unwrap_or_else(|| BUILTIN.to_owned());
        {
            let mut state = self.state();
            if state.engine.as_ref().is_some_and(|engine| engine.path == path) {
                return Ok(());
            }
            state.load = cancel.clone();
        }
        let (options, stop) = (self.options.clone(), cancel.clone());
        let find = blocking(move || Source::find(&path, &options.model, &stop, progress.as_ref()));
        // Not waited for once it is stopped: a name that is being looked up cannot be.
        let source = cancel.or_else(find).await???;
        let (options, stop) = (self.options.clone(), cancel.clone());
        let cache = self.state().cache.clone();
        let shared = (Arc::clone(&self.governor), Arc::clone(&self.tally));
        let engine = blocking(move || Engine::load(&source, &options, cache, shared, &stop)).await??;
        let replaced = {
            let mut state = self.state();
            cancel.check()?;
            state.closed = false;
            state.engine.replace(Arc::new(engine))
        };
        // Freeing a model takes milliseconds, too long for the lock and for a thread that serves other calls.
        blocking(move || drop(replaced)).await
    }

    /// Whether a model is loaded.
    pub fn is_ready(&self) -> bool {
        self.state().engine.is_some()
    }

    /// What the loaded model is.
    pub fn model_info(&self) -> Result<ModelInfo> {
        Ok(self.engine()?.0.model.info().clone())
    }

    /// Stops all calls with [`Error::Closed`], waits for them and frees the model. May be called at any time, any
    /// number of times; [`Generator::initialize`] makes the generator usable again.
    pub async fn close(&self) {
        self.state().load.cancel(Error::Closed);
        let _one_at_a_time = self.loading.lock().await;
        let engine = self.abandon();
        drop(self.calls.write().await);
        drop(blocking(move || drop(engine)).await);
    }

    /// Stops all work without waiting for it and gives up the model, which is freed with the answer.
    pub fn abandon(&self) -> Option<impl Send + use<>> {
        let (load, stop, engine) = {
            let mut state = self.state();
            state.closed = true;
            (state.load.clone(), std::mem::take(&mut state.stop), state.engine.take())
        };
        load.cancel(Error::Closed);
        stop.cancel(Error::Closed);
        engine
    }

    /// Embeds `inputs`: equal texts once, results in input order.
    pub async fn embed(&self, inputs: Inputs, options: CallOptions) -> Result<Embedded> {
        let (engine, stop) = self.engine()?;
        let _busy = self.calls.read().await;
        let cancel = options.cancel.clone();
        let _stop = stop.on_cancel({
            let cancel = cancel.clone();
            move |reason| cancel.cancel(reason.clone())
        });
        // If the runtime drops this future, nothing of it goes on computing.
        let _dropped = CancelOnDrop(cancel.clone());
        let timeout = options.timeout;
        let call = engine.call(inputs, options);
        tokio::pin!(call);
        let Some(limit) = timeout else { return call.await };
        match tokio::time::timeout(limit, &mut call).await {
            Ok(result) => result,
            Err(_) => {
                cancel.cancel(Error::TimedOut { timeout_ms: limit.as_millis() as u64 });
                // Ends within an operator of the model; until then its memory is in use.
                call.await
            }
        }
    }

    /// The model, and what stops calls.
    fn engine(&self) -> Result<(Arc<Engine>, Cancel)> {
        let state = self.state();
        let engine = state.engine.clone().ok_or(if state.closed { Error::Closed } else { Error::NotInitialized })?;
        Ok((engine, state.stop.clone()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel(Error::Closed);
    }
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(error.to_string()))
}
