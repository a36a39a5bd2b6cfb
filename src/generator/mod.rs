//! The conductor: one call from texts to vectors, through every stage. JS class: `OptimizedEmbeddingGenerator`.

mod agreement;
mod answer;
mod batches;
mod call;
mod choice;
mod contents;
mod engine;
mod forecast;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(feature = "interleave")]
pub mod interleave;
mod learned;
mod leases;
mod loaded;
mod model_cache;
mod pairs;
mod reading;
mod session;
mod stage_metrics;
mod texts;
mod threads;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::batch::Budget;
use crate::batch::optimizer::{Analytics, BatchOptimizer, OptimizerOptions};
use crate::batch::sizing::{BatchSizer, Learned, Outlook, SizeChange};
use crate::cancel::{Cancel, HookGuard};
use crate::embedding::{EmbeddingMatrix, Fingerprint, InputType, Task};
use crate::error::{Error, Result};
use crate::host::{self, threads::blocking};
use crate::images::ImageSource;
use crate::memory::governor::{Account, Governor, OnChange};
use crate::memory::{MemoryOptions, MemoryProcessor};
use crate::metrics::{Metrics, Operation};
use crate::model::{self, BUILTIN, ModelInfo, ModelOptions, Name, Source};
use crate::text::Annotation;
use engine::Engine;
pub use forecast::{Estimate, Forecast};
pub use learned::StateDir;
use loaded::Loaded;
pub use model_cache::{About, GeneratorCache, Kept, Known, ModelCache, Remembered, Shape, Values, name_of};
pub use pairs::Pairs;
pub use session::Session;
use session::{End, Turn};
use stage_metrics::StageMetrics;
pub use stage_metrics::{Stage, Totals};
pub use texts::Tokenized;

/// What a generator is made with.
#[derive(Debug, Clone, Default)]
pub struct GeneratorOptions {
    /// The model that `initialize` loads when none was given to it so far. Default: [`BUILTIN`].
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
    /// Where what is learned about batches is kept for the next process.
    pub state_dir: StateDir,
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
    /// What chooses the sizes; `most` as for [`BatchSizer::learning`].
    fn sizer(&self, budget: Budget, most: impl Fn(usize) -> usize) -> Result<BatchSizer> {
        match self {
            Self::Fixed => Ok(BatchSizer::fixed(budget)),
            Self::Learning(learning) => BatchSizer::learning(budget, *learning, most),
            Self::Shared(optimizer) => Ok(BatchSizer::shared(budget, Arc::clone(optimizer))),
        }
    }

    /// What chooses the sizes where as large as `most` is fastest.
    fn within(&self, most: Budget) -> BatchSizer {
        match self {
            Self::Fixed => BatchSizer::fixed(most),
            Self::Learning(options) => {
                let max_rows = most.max_rows.min(options.max_size.max(options.min_size));
                BatchSizer::fixed(Budget { max_rows, ..most })
            }
            Self::Shared(optimizer) => BatchSizer::shared(most, Arc::clone(optimizer)),
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
        Self::Learning(BatchSizer::defaults())
    }
}

/// What a call embeds.
#[derive(Debug, Clone)]
pub enum Inputs {
    /// Texts, embedded as they are.
    Texts(Vec<String>),
    /// Annotations, embedded as [`crate::text::prepare`] words them.
    Annotations(Vec<Annotation>),
    /// Images, for a model that reads them.
    Images(Vec<ImageSource>),
    /// Queries, each with a document, for a model that scores such pairs.
    Pairs(Pairs),
}

impl Inputs {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Annotations(annotations) => annotations.len(),
            Self::Images(images) => images.len(),
            Self::Pairs(pairs) => pairs.count(),
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
    /// Most pixels of an image. Default: [`MOST_PIXELS`](crate::images::MOST_PIXELS).
    pub max_pixels: Option<u64>,
    /// Inputs that are no texts at all, by position: whatever stands in their places counts as empty.
    pub refused: Vec<usize>,
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
    /// A vector for each input, in input order; for pairs, their scores. Empty where the model makes something else.
    pub matrix: EmbeddingMatrix,
    /// What a model makes of inputs that is not of one length.
    pub ragged: Ragged,
    /// A report for each input, in input order.
    pub items: Vec<Item>,
    /// For annotations, what was embedded for each.
    pub texts: Vec<String>,
    /// The model that was used, as the user named it.
    pub model_id: String,
    /// Its embedding space.
    pub fingerprint: Option<Fingerprint>,
    /// What the scores of a pair are called, one for each dimension.
    pub labels: Vec<String>,
    /// Whether scores are meant to be numbers from 0 to 1, by the logistic function.
    pub sigmoid: bool,
}

/// Sparse vectors, or the vectors of tokens, of all inputs one after the other.
#[derive(Debug, Default)]
pub struct Ragged {
    /// The values.
    pub data: Vec<f32>,
    /// Of sparse vectors, which dimension each value is of.
    pub indices: Vec<u32>,
    /// Where those of each input end in `data`.
    pub ends: Vec<usize>,
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
    /// Held for reading by all that works for a call.
    calls: Arc<tokio::sync::RwLock<()>>,
    governor: Arc<Governor>,
    stage_metrics: Arc<StageMetrics>,
}

struct State {
    model: Option<Arc<Loaded>>,
    cache: Option<Arc<GeneratorCache>>,
    /// The model that was given last.
    named: Name,
    /// What was asked for last, for whatever comes next; and for calls, which do not wait for a generator that closes.
    last: Turn,
    turn: Turn,
    /// Stops all loads and calls since the last close.
    stop: Cancel,
    closed: bool,
    /// How many times it was closed.
    closes: u64,
}

/// A load that has its place in the order of calls. Dropped, it changes nothing.
pub struct Load {
    name: Option<Name>,
    cancel: Cancel,
    before: Turn,
    end: End,
    closes: u64,
    _stop: HookGuard,
}

impl Generator {
    /// A generator without a model yet. Costs nothing.
    ///
    /// # Errors
    /// `INVALID_CONFIG` for options of batching and memory that contradict each other.
    pub fn new(options: GeneratorOptions) -> Result<Self> {
        options.batching.sizer(options.budget, |_| usize::MAX)?;
        let strategies = options.memory.clone().map(|memory| MemoryProcessor::new(memory, 0.0)).transpose()?;
        let governor = Governor::new(options.memory_limit, strategies);
        governor.on_shortage(Box::new(|_| {
            host::trim();
            true
        }));
        let governor = Arc::new(governor);
        let stage_metrics = Arc::new(StageMetrics::new(options.monitor.clone(), options.batching.options()));
        let nothing = Turn::ended(None);
        let state = State {
            model: None,
            cache: None,
            named: Name::new(options.model_path.as_deref().unwrap_or(BUILTIN)),
            last: nothing.clone(),
            turn: nothing,
            stop: Cancel::default(),
            closed: false,
            closes: 0,
        };
        Ok(Self { options, state: Mutex::new(state), calls: Arc::default(), governor, stage_metrics })
    }

    /// Tells `listener` when memory makes another strategy necessary, or possible.
    pub fn on_strategy_change(&self, listener: OnChange) {
        self.governor.on_change(listener);
    }

    /// What was done so far.
    pub fn totals(&self) -> Totals {
        self.stage_metrics.totals()
    }

    /// How the stages of calls went so far: those that ran, in the order of a call.
    pub fn stages(&self) -> Vec<Operation> {
        self.stage_metrics.stages()
    }

    /// How memory stands, and the name of the strategy in use.
    pub fn memory(&self) -> (Account, Option<String>) {
        (self.governor.account(), self.governor.strategy_name())
    }

    /// What was learned about batches of the loaded model.
    pub fn learned(&self) -> Vec<Learned> {
        self.latest().map(|engine| engine.sizer.learned()).unwrap_or_default()
    }

    /// Sizes of batches that have changed since this was asked for the last time.
    pub fn size_changes(&self) -> Vec<SizeChange> {
        self.latest().map(|engine| engine.sizer.changes()).unwrap_or_default()
    }

    /// How the latest batches went.
    pub fn analytics(&self) -> Analytics {
        self.stage_metrics.analytics()
    }

    /// How large batches like the latest one are now, and how large they are best, as far as that is known.
    pub fn outlook(&self) -> Outlook {
        let of = |sizer: &BatchSizer, max_rows| sizer.outlook().at_most(max_rows);
        match self.latest() {
            Some(engine) => of(&engine.sizer, engine.model.most_rows()),
            // Such options were accepted when the generator was made.
            None => self
                .options
                .batching
                .sizer(self.options.budget, |_| usize::MAX)
                .map_or_else(|_| Outlook::default(), |sizer| of(&sizer, usize::MAX)),
        }
    }

    /// What a call for `items` texts with `tokens` tokens each will take.
    ///
    /// # Errors
    /// `NOT_INITIALIZED` or `CLOSED`.
    pub fn forecast(&self, items: usize, tokens: usize) -> Result<Forecast> {
        Ok(self.engine()?.forecast(items, tokens))
    }

    /// What a person could do about memory as it is.
    pub fn memory_recommendations(&self) -> Vec<String> {
        self.governor.recommendations()
    }

    /// Decides anew how large batches are, and gives back what memory can be spared. Blocks for milliseconds.
    pub fn optimize(&self) {
        if let Some(engine) = self.latest() {
            engine.sizer.optimize();
        }
        self.governor.relieve();
    }

    /// Lets the models that are loaded from now on use a cache.
    pub fn attach(&self, cache: Arc<GeneratorCache>) {
        let spares = Arc::downgrade(cache.cache());
        self.governor.on_shortage(Box::new(move |short| {
            let cache = spares.upgrade();
            cache.as_ref().filter(|_| short).into_iter().for_each(|cache| cache.give_back());
            cache.is_some()
        }));
        self.state().cache = Some(cache);
    }

    /// Loads the model at `path`, or else the one that was given last. Does nothing when that model is loaded already;
    /// replaces another one only once the new one is ready, and lets calls that came before finish with the old one.
    pub async fn initialize(&self, path: Option<String>) -> Result<()> {
        self.load(self.queue(path.as_deref(), Cancel::default()), None).await
    }

    /// Takes the next place in the order of calls for a load, stopped by `cancel`. A relative path is meant as of now.
    pub fn queue(&self, path: Option<&str>, cancel: Cancel) -> Load {
        let name = path.map(Name::new);
        let mut state = self.state();
        let (turn, end) = state.last.next();
        let before = std::mem::replace(&mut state.last, turn.clone());
        state.turn = turn;
        let stop = {
            let cancel = cancel.clone();
            state.stop.on_cancel(move |reason| cancel.cancel(reason.clone()))
        };
        Load { name, cancel, before, end, closes: state.closes, _stop: stop }
    }

    /// Does what was queued, once all before it has ended; told of what is fetched.
    ///
    /// # Errors
    /// What stopped it, whatever it waits for; and whatever is wrong with the model.
    pub async fn load(&self, load: Load, progress: Option<model::Progress>) -> Result<()> {
        let Load { name, cancel, before, end, closes, _stop } = load;
        let turn = cancel.or_else(before.model()).await.and_then(|_| cancel.check());
        let given = name.is_some();
        let name = name.unwrap_or_else(|| self.state().named.clone());
        let loaded = match turn {
            Ok(()) if !given && self.lacks_model(&name) => Err(Error::config(
                "modelPath",
                "it was left out, and no model of this kind is built in: pass one to the constructor, or to initialize()",
            )),
            Ok(()) => self.loaded(&name, &cancel, progress).await,
            Err(stopped) => Err(stopped),
        };
        let replaced = {
            let mut state = self.state();
            // Closed meanwhile, whether or not this load has noticed yet.
            let loaded = if state.closes == closes { loaded } else { Err(Error::Closed) };
            // A model that was refused leaves no trace.
            let refused = |error: &Error| !matches!(error, Error::Closed | Error::Aborted) && !error.retryable();
            if given && !loaded.as_ref().is_err_and(refused) {
                state.named = name;
            }
            let model = loaded?;
            state.closed = false;
            end.with(Some(Arc::clone(&model)));
            state.model.replace(model)
        };
        // Freeing a model takes milliseconds, too long for the lock and for a thread that serves other calls.
        let free = move || {
            replaced.iter().for_each(|replaced| replaced.engine().keep_learned());
            drop(replaced);
        };
        blocking(free).await
    }

    /// Whether nobody has said which model it is, and there is none of this kind that everybody has.
    fn lacks_model(&self, name: &Name) -> bool {
        let options = &self.options;
        options.model.task != Task::Embedding && options.model_path.is_none() && name.is_builtin()
    }

    async fn loaded(&self, name: &Name, cancel: &Cancel, progress: Option<model::Progress>) -> Result<Arc<Loaded>> {
        let (current, cache) = {
            let state = self.state();
            (state.model.clone(), state.cache.clone())
        };
        if let Some(model) = current.filter(|model| model.engine().place == name.place()) {
            model.now(cancel).await?;
            return Ok(model);
        }
        let (name, options, stop) = (name.clone(), self.options.clone(), cancel.clone());
        let shared = (Arc::clone(&self.governor), Arc::clone(&self.stage_metrics));
        let load = blocking(move || {
            let source = Source::find(&name, &options.model, &stop, progress.as_ref())?;
            let load = move |stop: &Cancel| {
                let (cache, (governor, stage_metrics)) = (cache.clone(), &shared);
                let shared = (Arc::clone(governor), Arc::clone(stage_metrics));
                Engine::load(&source, name.place(), &options, cache, shared, stop)
            };
            Loaded::new(Arc::new(load), &stop).map(Arc::new)
        });
        // Not waited for once it is stopped: a name that is being looked up cannot be.
        cancel.or_else(load).await??
    }

    /// Whether a model is loaded.
    pub fn is_ready(&self) -> bool {
        self.state().model.is_some()
    }

    /// What the loaded model is.
    pub fn model_info(&self) -> Result<ModelInfo> {
        Ok(self.engine()?.model.info().clone())
    }

    /// Why the loaded model is computed as it is; `None` on a server.
    ///
    /// # Errors
    /// `NOT_INITIALIZED` or `CLOSED`.
    pub fn engine_reason(&self) -> Result<Option<String>> {
        Ok(self.engine()?.engine_reason.clone())
    }

    /// The tokens of `ids`, in the vocabulary of the loaded model; empty ones where it has none such.
    ///
    /// # Errors
    /// `NOT_INITIALIZED` or `CLOSED`; and where the model has no vocabulary.
    pub fn tokens(&self, ids: &[u32]) -> Result<Vec<String>> {
        self.engine()?.tokens(ids)
    }

    fn engine(&self) -> Result<Arc<Engine>> {
        let state = self.state();
        let without = if state.closed { Error::Closed } else { Error::NotInitialized };
        state.model.as_ref().map(|model| model.engine()).ok_or(without)
    }

    /// Stops all calls with [`Error::Closed`], waits for them and frees the model. May be called at any time, any
    /// number of times; [`Generator::initialize`] makes the generator usable again. Takes its place in the order of calls
    /// at once.
    pub fn close(&self) -> impl Future<Output = ()> + Send + use<> {
        let (before, end) = {
            let mut state = self.state();
            let (turn, end) = state.last.next();
            (std::mem::replace(&mut state.last, turn), end)
        };
        let (model, calls) = (self.give_up(), Arc::clone(&self.calls));
        async move {
            before.model().await;
            drop(calls.write().await);
            let free = move || {
                model.iter().for_each(|model| model.engine().keep_learned());
                drop(model);
            };
            drop(blocking(free).await);
            end.with(None);
        }
    }

    /// Stops all work without waiting for it and gives up the model, which is freed with the answer.
    pub fn abandon(&self) -> Option<impl Send + use<>> {
        self.give_up()
    }

    fn give_up(&self) -> Option<Arc<Loaded>> {
        let (stop, model) = {
            let mut state = self.state();
            state.closed = true;
            state.closes += 1;
            state.turn = Turn::ended(None);
            (std::mem::take(&mut state.stop), state.model.take())
        };
        stop.cancel(Error::Closed);
        model
    }

    /// What calls are made on that come now, and all of something that shall have one model.
    pub fn session(&self) -> Session {
        let state = self.state();
        let without = if state.closed { Error::Closed } else { Error::NotInitialized };
        Session::new(state.turn.clone(), without, state.stop.clone(), Arc::clone(&self.calls))
    }

    /// Embeds `inputs`: see [`Session::embed`].
    pub async fn embed(&self, inputs: Inputs, options: CallOptions) -> Result<Embedded> {
        self.session().embed(inputs, options).await
    }

    /// The model that there was last.
    fn latest(&self) -> Option<Arc<Engine>> {
        self.state().model.as_ref().map(|model| model.engine())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
