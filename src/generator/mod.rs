//! The conductor: one call from texts to vectors, through every stage. JS class: `OptimizedEmbeddingGenerator`.

mod memo;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use tokio::sync::mpsc;

use crate::batch::{self, Budget};
use crate::cache::{Boarding, EmbeddingCache};
use crate::cancel::Cancel;
use crate::embedding::{EmbeddingMatrix, InputType, Key, Space, Tokens};
use crate::error::{Error, Result};
use crate::host;
use crate::lanes::{Lanes, Work};
use crate::model::{BUILTIN, Model, ModelFiles, ModelInfo, ModelOptions, Prompts};
use crate::text::{self, Annotation, Prepared};
use crate::tokens::Tokenizer;
use memo::{About, Known, Lead, Memo, Wait};

/// Texts, and bytes of text, that are tokenised before another call gets its turn: some tenths of a second at most.
const WINDOW_TEXTS: usize = 1024;
const WINDOW_BYTES: usize = 1 << 20;

/// What a generator is made with.
#[derive(Debug, Clone, Default)]
pub struct GeneratorOptions {
    /// The model that `initialize` loads when it is given none. Default: [`BUILTIN`].
    pub model_path: Option<String>,
    /// What the user says about the model.
    pub model: ModelOptions,
    /// The limits of one batch.
    pub budget: Budget,
}

/// What a call embeds.
#[derive(Debug, Clone)]
pub enum Inputs {
    /// Texts, embedded as they are.
    Texts(Vec<String>),
    /// Annotations, embedded as [`text::prepare`] words them.
    Annotations(Vec<Annotation>),
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

/// A loaded model with all that a call needs.
struct Engine {
    path: String,
    model: Arc<dyn Model>,
    tokenizer: Tokenizer,
    prompts: Prompts,
    budget: Budget,
    lanes: Lanes,
    lowercase: bool,
    memo: Option<Arc<Memo>>,
}

impl Generator {
    /// A generator without a model yet. Costs nothing.
    pub fn new(options: GeneratorOptions) -> Self {
        let (loading, calls) = (tokio::sync::Mutex::default(), tokio::sync::RwLock::default());
        Self { options, state: Mutex::default(), loading, calls }
    }

    /// Lets the models that are loaded from now on use a cache. `within` tells the entries of this generator apart from
    /// others of the cache, beside their embedding space.
    pub fn attach(&self, cache: Arc<EmbeddingCache>, within: Space) {
        self.state().cache = Some((cache, within));
    }

    /// Loads the model at `path`, or the one of the options. Does nothing when that model is loaded already; replaces
    /// another one only once the new one is ready, and lets running calls finish with the old one.
    pub async fn initialize(&self, path: Option<String>) -> Result<()> {
        let _one_at_a_time = self.loading.lock().await;
        let path = path.or_else(|| self.options.model_path.clone()).unwrap_or_else(|| BUILTIN.to_owned());
        let cancel = Cancel::default();
        {
            let mut state = self.state();
            if state.engine.as_ref().is_some_and(|engine| engine.path == path) {
                return Ok(());
            }
            state.load = cancel.clone();
        }
        let options = self.options.clone();
        let load = cancel.clone();
        let cache = self.state().cache.clone();
        let engine = blocking(move || Engine::load(path, &options, cache, &load)).await??;
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

impl Engine {
    fn load(
        path: String,
        options: &GeneratorOptions,
        cache: Option<(Arc<EmbeddingCache>, Space)>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let files = ModelFiles::read(&path, &options.model)?;
        let (model, tokenizer) = files.load(&options.model, cancel, || {
            Tokenizer::new(files.tokenizer_json(), files.max_length(), files.truncate_left())
        });
        let model = model?;
        let tokenizer = tokenizer.map_err(|reason| {
            Error::model(files.tokenizer_path(), format!("its tokenizer cannot be used: {reason}"))
        })?;
        let info = model.info();
        // Where a vector depends on the other rows of its batch, there are none.
        let max_rows = if info.batch_invariant { options.budget.max_rows } else { 1 };
        let memo = cache.map(|(cache, within)| Memo::new(cache, &within, &info.fingerprint, info.dimensions));
        let lanes = Lanes::new(host::available_cores() / info.intra_op_threads)?;
        Ok(Self {
            path,
            tokenizer,
            prompts: files.prompts().clone(),
            budget: Budget { max_rows, ..options.budget },
            lanes,
            lowercase: files.lowercase(),
            memo: memo.map(Arc::new),
            model,
        })
    }

    async fn call(self: &Arc<Self>, inputs: Inputs, options: CallOptions) -> Result<Embedded> {
        let cancel = options.cancel.clone();
        cancel.check()?;
        let annotated = matches!(inputs, Inputs::Annotations(_));
        let max_chars = self.model.info().max_length.saturating_mul(text::CHARS_PER_TOKEN);
        let memo = self.memo.clone().filter(|_| !options.bypass_cache);
        let (stop, input_type) = (cancel.clone(), options.input_type);
        let keys_of = memo.clone();
        let (texts, cut, distinct, keys) = blocking(move || {
            let (texts, cut) = prepare(inputs, max_chars, &stop);
            let distinct = Distinct::of(&texts);
            let keys = keys_of.map_or_else(Vec::new, |memo| memo.keys(&texts, &distinct.first, input_type));
            (texts, cut, distinct, keys)
        })
        .await?;
        let call = Call { texts: Arc::new(texts), distinct: &distinct, cancel, options: &options, keys, memo };
        let mut answer = Answer::new(self.model.info().dimensions, &distinct, &cut, options.progress.as_ref());
        let mut open: Vec<usize> = (0..distinct.first.len()).collect();
        while !open.is_empty() {
            let (leads, waits) = call.recall(open, &mut answer).await?;
            self.compute(&call, leads, &mut answer).await?;
            open = call.wait(waits, &mut answer).await?;
        }
        call.cancel.check()?;
        let texts = if annotated { Arc::unwrap_or_clone(call.texts) } else { Vec::new() };
        answer.finish(texts, self.path.clone())
    }

    /// Computes the texts of `leads`. Each goes into the cache with its batch.
    async fn compute(
        self: &Arc<Self>,
        call: &Call<'_>,
        mut leads: BTreeMap<usize, Option<Lead>>,
        answer: &mut Answer<'_>,
    ) -> Result<()> {
        if leads.is_empty() {
            return Ok(());
        }
        let slots: Vec<usize> = leads.keys().copied().collect();
        let tokens = self.tokenize(call, &slots).await?;
        let mut runnable = Vec::with_capacity(tokens.len());
        for (slot, tokens) in slots.into_iter().zip(tokens) {
            match tokens {
                Ok(tokens) => runnable.push((slot, tokens)),
                Err(error) if call.options.on_error == OnError::Throw => return Err(error),
                Err(error) => answer.fail(slot, &error),
            }
        }
        let mut finished = self.start(runnable, call);
        while let Some(rows) = finished.recv().await {
            let mut batch = Vec::with_capacity(rows.len());
            for Row { slot, ms, known } in rows {
                let lead = leads.remove(&slot).flatten();
                match known {
                    Ok(known) => {
                        answer.commit(slot, &known, ms, false);
                        batch.push((slot, lead, Arc::new(known)));
                    }
                    // A run that was stopped says nothing about its texts: who waits for them computes them.
                    Err(_) if call.cancel.check().is_err() => {}
                    Err(reason) => {
                        let error = Error::Generation { index: call.distinct.first[slot], reason };
                        answer.fail(slot, &error);
                        lead.into_iter().for_each(|lead| lead.land(Err(error.clone())));
                        if call.options.on_error == OnError::Throw {
                            call.cancel.cancel(error);
                        }
                    }
                }
            }
            call.commit(batch).await;
            answer.report();
        }
        call.cancel.check()
    }

    /// Tokens of the texts of `slots`, in parallel, off the caller's threads.
    async fn tokenize(self: &Arc<Self>, call: &Call<'_>, slots: &[usize]) -> Result<Vec<Result<Tokens>>> {
        let first: Vec<usize> = slots.iter().map(|&slot| call.distinct.first[slot]).collect();
        let mut tokens = Vec::with_capacity(first.len());
        let mut rest = &first[..];
        while !rest.is_empty() {
            call.cancel.check()?;
            let mut bytes = 0;
            let fits = rest.iter().take(WINDOW_TEXTS).take_while(|&&index| {
                let full = bytes >= WINDOW_BYTES;
                bytes += call.texts[index].len();
                !full
            });
            let (window, after) = rest.split_at(fits.count());
            rest = after;
            let (engine, texts, cancel, window) =
                (Arc::clone(self), Arc::clone(&call.texts), call.cancel.clone(), window.to_vec());
            let input_type = call.options.input_type;
            let encode_all = move || -> Vec<Result<Tokens>> {
                let encode = |index| cancel.check().and_then(|()| engine.encode(index, input_type, &texts[index]));
                window.into_par_iter().map(encode).collect()
            };
            tokens.extend(blocking(encode_all).await?);
        }
        call.cancel.check()?;
        Ok(tokens)
    }

    fn encode(&self, index: usize, input_type: InputType, text: &str) -> Result<Tokens> {
        if text.trim().is_empty() {
            return Err(Error::EmptyText { index });
        }
        let mut text = Cow::Borrowed(text);
        let prompt = self.prompts.of(input_type);
        if !prompt.is_empty() {
            text = Cow::Owned(format!("{prompt}{text}"));
        }
        if self.lowercase {
            text = Cow::Owned(text.to_lowercase());
        }
        self.tokenizer.encode(index, &text)
    }

    /// Queues the batches; each sends its rows when it is done, and the channel ends after the last.
    fn start(&self, runnable: Vec<(usize, Tokens)>, call: &Call<'_>) -> mpsc::UnboundedReceiver<Vec<Row>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (slots, tokens): (Vec<usize>, Vec<Tokens>) = runnable.into_iter().unzip();
        let lengths: Vec<usize> = tokens.iter().map(|tokens| tokens.ids.len()).collect();
        let max_rows = call.options.batch_size.map_or(self.budget.max_rows, |rows| rows.min(self.budget.max_rows));
        let batches = batch::plan(&lengths, Budget { max_rows, ..self.budget });
        let units = batches.len();
        let batches = Batches {
            model: Arc::clone(&self.model),
            slots,
            tokens,
            batches,
            cancel: call.cancel.clone(),
            finished: sender,
        };
        self.lanes.submit(Arc::new(batches), units, call.options.max_concurrency.unwrap_or(usize::MAX));
        receiver
    }
}

/// One call on its way.
struct Call<'a> {
    texts: Arc<Vec<String>>,
    distinct: &'a Distinct,
    cancel: Cancel,
    options: &'a CallOptions,
    /// The key of each slot; empty without a memo.
    keys: Vec<Key>,
    memo: Option<Arc<Memo>>,
}

impl Call<'_> {
    /// Answers what is known of the slots `open`. Tells which of the others this call computes, and which another one
    /// has under way.
    async fn recall(
        &self,
        open: Vec<usize>,
        answer: &mut Answer<'_>,
    ) -> Result<(BTreeMap<usize, Option<Lead>>, Vec<(usize, Wait)>)> {
        let (mut leads, mut waits) = (BTreeMap::new(), Vec::new());
        let Some(memo) = &self.memo else {
            return Ok((open.into_iter().map(|slot| (slot, None)).collect(), waits));
        };
        let started = Instant::now();
        let keys: Vec<Key> = open.iter().map(|&slot| self.keys[slot]).collect();
        let (reader, cancel) = (Arc::clone(memo), self.cancel.clone());
        let found = blocking(move || reader.recall(&keys, &cancel)).await??;
        let ms = started.elapsed().as_secs_f64() * 1e3 / open.len() as f64;
        for (slot, known) in open.into_iter().zip(found) {
            if let Some(known) = known {
                answer.commit(slot, &known, ms, true);
                continue;
            }
            match memo.board(self.keys[slot]) {
                (Boarding::Lead(lead), Some(known)) => {
                    answer.commit(slot, &known, ms, true);
                    lead.land(Ok(Arc::new(known)));
                }
                (Boarding::Lead(lead), None) => drop(leads.insert(slot, Some(lead))),
                (Boarding::Wait(wait), _) => waits.push((slot, wait)),
            }
        }
        answer.report();
        Ok((leads, waits))
    }

    /// Remembers a batch, then tells those who wait for it: from then on, others find it in the cache.
    async fn commit(&self, batch: Vec<(usize, Option<Lead>, Arc<Known>)>) {
        let Some(memo) = &self.memo else { return };
        memo.commit(batch.iter().map(|(slot, _, known)| (self.keys[*slot], Arc::clone(known))).collect()).await;
        for (_, lead, known) in batch {
            lead.into_iter().for_each(|lead| lead.land(Ok(Arc::clone(&known))));
        }
    }

    /// Answers what other calls compute. Tells which slots they have left open because they were stopped.
    async fn wait(&self, waits: Vec<(usize, Wait)>, answer: &mut Answer<'_>) -> Result<Vec<usize>> {
        let mut open = Vec::new();
        for (slot, wait) in waits {
            let started = Instant::now();
            match self.cancel.or_else(wait.wait()).await? {
                Some(Ok(known)) => {
                    answer.commit(slot, &known, started.elapsed().as_secs_f64() * 1e3, true);
                    answer.report();
                }
                Some(Err(error)) if self.options.on_error == OnError::Throw => {
                    return Err(error.at(self.distinct.first[slot]));
                }
                Some(Err(error)) => answer.fail(slot, &error),
                None => open.push(slot),
            }
        }
        Ok(open)
    }
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(error.to_string()))
}

/// The texts to embed, and for each whether something was cut off it.
fn prepare(inputs: Inputs, max_chars: usize, cancel: &Cancel) -> (Vec<String>, Vec<bool>) {
    match inputs {
        Inputs::Texts(texts) => {
            let cut = vec![false; texts.len()];
            (texts, cut)
        }
        Inputs::Annotations(annotations) => {
            let prepare = |annotation| {
                // Nobody looks at the texts of a call that was stopped.
                let stopped = |_| Prepared { text: String::new(), cut: true };
                let prepared = cancel.check().map_or_else(stopped, |()| text::prepare(annotation, max_chars));
                (prepared.text, prepared.cut)
            };
            annotations.par_iter().with_min_len(64).map(prepare).unzip()
        }
    }
}

/// The distinct texts of a call. Each has a slot; the vector of a slot answers all its inputs.
struct Distinct {
    /// The first input of each slot.
    first: Vec<usize>,
    /// All inputs of each slot.
    inputs: Vec<Vec<usize>>,
    /// Number of inputs.
    total: usize,
}

impl Distinct {
    fn of(texts: &[String]) -> Self {
        let mut slot_of: HashMap<&str, usize> = HashMap::with_capacity(texts.len());
        let mut distinct = Self { first: Vec::new(), inputs: Vec::new(), total: texts.len() };
        for (index, text) in texts.iter().enumerate() {
            let slot = *slot_of.entry(text).or_insert(distinct.first.len());
            if slot == distinct.first.len() {
                distinct.first.push(index);
                distinct.inputs.push(Vec::with_capacity(1));
            }
            distinct.inputs[slot].push(index);
        }
        distinct
    }
}

/// One text that a batch is done with.
struct Row {
    slot: usize,
    ms: f64,
    known: Result<Known, String>,
}

/// The batches of one call, run by the lanes.
struct Batches {
    model: Arc<dyn Model>,
    slots: Vec<usize>,
    tokens: Vec<Tokens>,
    batches: Vec<Vec<usize>>,
    cancel: Cancel,
    finished: mpsc::UnboundedSender<Vec<Row>>,
}

impl Work for Batches {
    fn run(&self, unit: usize) {
        if self.cancel.check().is_ok() {
            // Nobody listens any more when the call was dropped; then it is cancelled, too.
            self.finished.send(self.run_rows(&self.batches[unit])).ok();
        }
    }
}

impl Batches {
    fn run_rows(&self, rows: &[usize]) -> Vec<Row> {
        let batch: Vec<&Tokens> = rows.iter().map(|&row| &self.tokens[row]).collect();
        let started = Instant::now();
        let vectors = self.model.run(&batch, &self.cancel);
        let ms = started.elapsed().as_secs_f64() * 1e3;
        let total: usize = batch.iter().map(|tokens| tokens.ids.len()).sum();
        match vectors {
            Ok(vectors) => {
                let vectors = vectors.chunks_exact(self.model.info().dimensions);
                let rows = rows.iter().zip(&batch).zip(vectors);
                rows.map(|((&row, tokens), vector)| Row {
                    slot: self.slots[row],
                    ms: ms * tokens.ids.len() as f64 / total as f64,
                    known: finite(vector).map(|vector| Known { vector, about: about(tokens) }),
                })
                .collect()
            }
            // One unusable text must not take its neighbours with it.
            Err(_) if rows.len() > 1 && self.cancel.check().is_ok() => {
                rows.iter().flat_map(|&row| self.run_rows(&[row])).collect()
            }
            Err(reason) => {
                rows.iter().map(|&row| Row { slot: self.slots[row], ms: 0.0, known: Err(reason.clone()) }).collect()
            }
        }
    }
}

fn about(tokens: &Tokens) -> About {
    About { token_count: tokens.total, truncated: tokens.truncated(), confidence: tokens.confidence() }
}

fn finite(vector: &[f32]) -> Result<Vec<f32>, String> {
    match vector.iter().position(|value| !value.is_finite()) {
        None => Ok(vector.to_vec()),
        Some(at) => Err(format!("the model gave {} at position {at} of its vector", vector[at])),
    }
}

/// The answer as it fills.
struct Answer<'a> {
    distinct: &'a Distinct,
    cut: &'a [bool],
    embedded: Embedded,
    open: Vec<bool>,
    answered: usize,
    progress: Option<&'a Progress>,
}

impl<'a> Answer<'a> {
    fn new(dimensions: usize, distinct: &'a Distinct, cut: &'a [bool], progress: Option<&'a Progress>) -> Self {
        let embedded = Embedded {
            matrix: EmbeddingMatrix::zeros(distinct.total, dimensions),
            items: vec![Item::default(); distinct.total],
            ..Embedded::default()
        };
        Self { distinct, cut, embedded, open: vec![true; distinct.first.len()], answered: 0, progress }
    }

    fn commit(&mut self, slot: usize, known: &Known, ms: f64, from_cache: bool) {
        let (share, cut) = (ms / self.distinct.inputs[slot].len() as f64, self.cut);
        self.each(slot, |index, row, item| {
            row.copy_from_slice(&known.vector);
            *item = Item {
                processing_ms: share,
                token_count: known.about.token_count,
                truncated: known.about.truncated || cut[index],
                confidence: known.about.confidence,
                from_cache,
                error: None,
            };
        });
        self.close(slot);
    }

    fn fail(&mut self, slot: usize, error: &Error) {
        self.each(slot, |index, _, item| *item = Item { error: Some(error.at(index)), ..Item::default() });
        self.close(slot);
    }

    fn each(&mut self, slot: usize, mut change: impl FnMut(usize, &mut [f32], &mut Item)) {
        for &index in &self.distinct.inputs[slot] {
            change(index, self.embedded.matrix.row_mut(index), &mut self.embedded.items[index]);
        }
    }

    fn close(&mut self, slot: usize) {
        if std::mem::take(&mut self.open[slot]) {
            self.answered += self.distinct.inputs[slot].len();
        }
    }

    fn report(&self) {
        if let Some(progress) = self.progress {
            progress(self.answered, self.distinct.total);
        }
    }

    fn finish(mut self, texts: Vec<String>, model_id: String) -> Result<Embedded> {
        if let Some(slot) = self.open.iter().position(|open| *open) {
            let index = self.distinct.first[slot];
            return Err(Error::Internal(format!("the batch of text {index} ended without an answer")));
        }
        self.embedded.texts = texts;
        self.embedded.model_id = model_id;
        Ok(self.embedded)
    }
}
