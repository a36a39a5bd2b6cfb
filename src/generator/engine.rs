//! A loaded model, and the way of a call through it: every stage in turn.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::answer::Answer;
use super::batches::{Batches, Busy, Failure, Row};
use super::call::Call;
use super::choice::{Chosen, Loader, Memory};
use super::contents::{Contents, Names, prepare};
use super::forecast::{AnsweredBytes, Basis, Forecast, Overhead, forecast};
use super::learned::Store;
use super::leases::{Leases, TextLeaders, Watch, holding, worthwhile};
use super::model_cache::{GeneratorCache, ModelCache, Shape};
use super::stage_metrics::{Answered, Stage, StageMetrics};
use super::{CallOptions, Embedded, GeneratorOptions, Inputs, Item, OnError, threads};
use crate::batch::sizing::BatchSizer;
use crate::batch::{Budget, Plan};
use crate::cancel::Cancel;
use crate::embedding::{Modality, Task, Tokens};
use crate::error::{Error, Result};
use crate::host::{
    self,
    threads::{BRIEF_BYTES, begin_blocking, blocking_unless, in_parallel},
};
use crate::images::{ImageSource, MOST_PIXELS};
use crate::memory::governor::{Governor, Refusal};
use crate::model::{Model, ModelFiles, ModelInfo, ModelOptions, Prompts, Source, Unloaded};
use crate::scheduler::Scheduler;
use crate::text;
use crate::tokens::Tokenizer;

/// Texts that a device gets at a time, while those after them are tokenised.
const DEVICE_WINDOW_TEXTS: usize = 2048;

/// Texts that are prepared and tokenised one after the other, where they are short.
const FEW_TEXTS: usize = 64;

/// Memory of the largest batch that is tried only to learn whether it is faster.
const MOST_TRIED_BYTES: u64 = 24 << 20;

/// A loaded model with all that a call needs.
pub(super) struct Engine {
    /// The model as the user named it.
    pub(super) id: String,
    /// See [`crate::model::Name::place`].
    pub place: PathBuf,
    pub model: Arc<dyn Model>,
    /// Why it is computed as it is; `None` on a server.
    pub engine_reason: Option<String>,
    learned: Option<Learned>,
    /// `None` where only the model itself knows its tokens.
    pub(super) tokenizer: Option<Tokenizer>,
    pub(super) prompts: Prompts,
    pub(super) leaves_out_prompts: bool,
    pub sizer: Arc<BatchSizer>,
    governor: Arc<Governor>,
    pub(super) stage_metrics: Arc<StageMetrics>,
    workers: Scheduler,
    pub(super) lowercase: bool,
    model_cache: Option<Arc<ModelCache>>,
    answered: AnsweredBytes,
}

/// What comes next in a call.
enum Step<'a> {
    /// The rows of a batch, or the end of them.
    Computed(Option<Vec<Row>>),
    /// The texts that come after these.
    Tokenized(Result<Option<Window<'a>>>),
}

/// Texts by their slots, and their tokens.
type Window<'a> = (&'a [usize], Vec<Result<Tokens>>);

/// Where what was learned is kept, and how much of it is.
struct Learned {
    store: Store,
    /// Of this model, in processes before this one.
    overhead: Overhead,
    /// Batches that were learned from when it was kept, and when that was.
    kept: Mutex<(usize, Instant)>,
}

/// Batches that are worth keeping what was learned from them, and how often that is done at most while calls go on.
const WORTH_KEEPING: usize = 64;
const KEEP_EVERY: Duration = Duration::from_secs(10);

impl Engine {
    pub fn load(
        source: &Source,
        place: PathBuf,
        options: &GeneratorOptions,
        cache: Option<Arc<GeneratorCache>>,
        (governor, stage_metrics): (Arc<Governor>, Arc<StageMetrics>),
        cancel: &Cancel,
    ) -> Result<Self> {
        let available = host::available_cores();
        // More threads than cores wait for each other: runs become hundreds of times slower.
        let threads = options.model.intra_op_threads.map(|threads| threads.min(available));
        let model_options = ModelOptions { intra_op_threads: threads, ..options.model.clone() };
        let unloaded = Unloaded::read(source, &model_options)?;
        let id = unloaded.id().to_owned();
        let too_large = |refusal| match refusal {
            Refusal::TooLarge { need, limit } => Error::ModelTooLarge { model: id.clone(), need, limit },
            Refusal::Stopped(error) => error,
        };
        let path = cache.as_ref().and_then(|cache| cache.cache().options().path.clone());
        let cores = threads::for_computing(available);
        let room = || governor.expect(unloaded.load_bytes(&model_options)).map_err(too_large);
        let tokenizer = || {
            let file = unloaded.tokenizer()?;
            let tokenizer = Tokenizer::new(file.json, file.reading);
            Some(tokenizer.map_err(|reason| Error::model(file.path, format!("its tokenizer cannot be used: {reason}"))))
        };
        let memory =
            |files: &ModelFiles| Memory::new(files, &model_options, &options.state_dir, path.as_deref(), cancel);
        let loader = Loader { unloaded: &unloaded, options: &model_options, room: &room, cores, cancel };
        let (Chosen { mut model, way, reason }, tokenizer) = loader.load(memory, tokenizer)?;
        let mut workers = Scheduler::new(model.parallel(cores))?;
        if options.measure_threads && cores > 1 && tokenizer.is_some() {
            room()?;
            let wide = ModelOptions { intra_op_threads: Some(cores), ..way.of(&model_options).into_owned() };
            let (wide, one_worker) = (unloaded.load(way.compute, &wide, cancel, || ()).0?, Scheduler::new(1)?);
            if threads::speed(&wide, &one_worker, cancel)? > threads::speed(&model, &workers, cancel)? {
                (model, workers) = (wide, one_worker);
            }
        }
        let info = model.info();
        let most = |longest| (MOST_TRIED_BYTES / model.bytes(1, longest).max(1)) as usize;
        let budget = model.budget().unwrap_or(options.budget);
        let sizer = match model.most_weight() {
            None => options.batching.sizer(budget, most)?,
            // There is nothing to learn: as much as it takes is fastest.
            Some(max_tokens) => options.batching.within(Budget { max_tokens, max_rows: model.most_rows() }),
        };
        governor.settle();
        governor.expect(model.bytes(1, 1)).map_err(too_large)?;
        let shrinks = Arc::downgrade(&model);
        governor.on_shortage(Box::new(move |_| shrinks.upgrade().map(|model| model.shrink()).is_some()));
        let store = Store::new(&options.state_dir, path.as_deref(), info, workers.count());
        let learned = store.map(|store| {
            let (overhead, batches) = store.read().unwrap_or_default();
            sizer.restore(batches);
            Learned { store, overhead, kept: Mutex::new((sizer.samples(), Instant::now())) }
        });
        let model_cache = cache.map(|cache| cache.part_of(info, max_chars(info)));
        Ok(Self {
            id,
            place,
            engine_reason: unloaded.files().map(|_| reason),
            learned,
            tokenizer,
            prompts: unloaded.prompts().clone(),
            leaves_out_prompts: unloaded.leaves_out_prompts(),
            sizer: Arc::new(sizer),
            governor,
            stage_metrics,
            workers,
            lowercase: unloaded.lowercase(),
            model_cache,
            answered: AnsweredBytes::default(),
            model,
        })
    }

    /// Whether its model may become another one while it is loaded.
    pub fn may_be_replaced(&self) -> bool {
        self.model.info().remote.as_ref().is_some_and(|remote| remote.digest.is_some())
    }

    /// Embeds `inputs`. Whatever works for the call holds `busy`, also when it was stopped and nobody waits any more.
    pub async fn call(self: &Arc<Self>, inputs: Inputs, options: CallOptions, busy: Busy) -> Result<Embedded> {
        let (first, started) = (options.first_index, Instant::now());
        let _inside = self.stage_metrics.enter();
        let texts = inputs.len();
        let cached = self.model_cache.is_some() && !options.bypass_cache;
        let paths: Option<Vec<Option<String>>> = match &inputs {
            Inputs::Images(images) => Some(images.iter().map(ImageSource::path).collect()),
            _ => None,
        };
        let ranked = match &inputs {
            Inputs::Pairs(pairs) => Some(pairs.are_ranked()),
            _ => None,
        };
        let own = |error: Error| match (&paths, ranked) {
            (Some(paths), _) => error.of_images(|index| paths.get(index).cloned().flatten()),
            (None, Some(ranked)) => error.of_pairs(ranked),
            (None, None) => error,
        };
        let answer = self.answer(inputs, options, busy).await;
        let answered = answer.as_ref().map(|Embedded { items, .. }| {
            let count = |which: fn(&Item) -> bool| items.iter().filter(|item| which(item)).count();
            let (hits, failed) = (count(|item| item.from_cache), count(|item| item.error.is_some()));
            Answered { hits, failed, cached }
        });
        self.stage_metrics.call(texts, answered, started.elapsed());
        if self.is_worth_keeping() {
            let engine = Arc::clone(self);
            // Nobody waits for it, nor misses it where there is no thread for it.
            begin_blocking(move |thread| drop(thread.map(|()| engine.keep_learned())));
        }
        let mut embedded = answer.map_err(|error| own(error).shifted(first))?;
        for item in &mut embedded.items {
            item.error = item.error.take().map(|error| own(error).shifted(first));
        }
        Ok(embedded)
    }

    /// Whether much was learned since it was kept, some time ago.
    fn is_worth_keeping(&self) -> bool {
        let Some(learned) = &self.learned else { return false };
        let (samples, at) = *lock(&learned.kept);
        at.elapsed() >= KEEP_EVERY && self.sizer.samples() >= samples + WORTH_KEEPING
    }

    /// Keeps what was learned, if there is something new. Blocks until it is on the disk.
    pub fn keep_learned(&self) {
        let Some(learned) = &self.learned else { return };
        let mut kept = lock(&learned.kept);
        let samples = self.sizer.samples();
        if samples != kept.0 {
            learned.store.write(self.overhead(), self.sizer.state());
        }
        *kept = (samples, Instant::now());
    }

    fn overhead(&self) -> Overhead {
        let before = self.learned.as_ref().map(|learned| learned.overhead);
        self.stage_metrics.overhead().or(before).unwrap_or_default()
    }

    /// What a call for `items` texts with `tokens` tokens each will take.
    pub fn forecast(&self, items: usize, tokens: usize) -> Forecast {
        let info = self.model.info();
        let tokens = info.max_length.map_or(tokens, |longest| tokens.min(longest));
        let outlook = self.sizer.outlook_of(tokens).at_most(self.model.most_rows());
        let basis = Basis {
            speed: self.sizer.speed(tokens).or_else(|| self.stage_metrics.speed()),
            overhead: self.overhead(),
            workers: self.workers.count(),
            answered: self.answered.of(info, tokens),
            outlook,
            price: &|rows| self.model.bytes(rows, tokens),
        };
        forecast(&basis, items, tokens)
    }

    async fn answer(self: &Arc<Self>, inputs: Inputs, options: CallOptions, busy: Busy) -> Result<Embedded> {
        let cancel = options.cancel.clone();
        cancel.check()?;
        self.check_kind(&inputs)?;
        let annotated = matches!(inputs, Inputs::Annotations(_));
        let max_chars = max_chars(self.model.info());
        let names = Names::of(&inputs);
        let model_cache = self.model_cache.clone().filter(|_| !options.bypass_cache);
        let (stop, input_type, refused) = (cancel.clone(), options.input_type, options.refused.clone());
        let (keys_of, stage_metrics) = (model_cache.clone(), Arc::clone(&self.stage_metrics));
        let most_pixels = options.max_pixels.unwrap_or(MOST_PIXELS);
        let brief = match &inputs {
            Inputs::Texts(texts) => is_brief(texts.len(), texts.iter().map(String::len).sum()),
            _ => false,
        };
        let prepare_all = move || {
            let started = Instant::now();
            let (mut contents, cut) = prepare(inputs, max_chars, most_pixels, &stop);
            contents.clear(&refused);
            let (distinct, keys) = contents.distinct(keys_of.as_deref(), input_type);
            stage_metrics.done(Stage::Prepare, started, distinct.total);
            (contents, cut, distinct, keys)
        };
        let prepare_all = move || if brief { Ok(prepare_all()) } else { in_parallel(prepare_all) };
        let prepared = blocking_unless(brief, prepare_all);
        let (contents, cut, distinct, keys) = cancel.or_else(prepared).await???;
        let (contents, stage_metrics) = (Arc::new(contents), &self.stage_metrics);
        let call = Call {
            contents,
            names,
            distinct: &distinct,
            cancel,
            options: &options,
            keys,
            model_cache,
            stage_metrics,
            busy,
        };
        let mut answer = Answer::new(Shape::of(self.model.info()), &distinct, &cut, options.progress.as_ref())?;
        let mut open: Vec<usize> = (0..distinct.first.len()).collect();
        while !open.is_empty() {
            let (leaders, waits) = call.recall(open, &mut answer).await?;
            self.compute_once(&call, leaders, &mut answer).await?;
            open = call.wait(waits, &mut answer).await?;
        }
        call.cancel.check()?;
        let texts = match Arc::try_unwrap(call.contents) {
            Ok(Contents::Texts(texts)) if annotated => texts,
            Err(contents) if annotated => contents.texts().to_vec(),
            _ => Vec::new(),
        };
        let info = self.model.info();
        let embedded = answer.finish(texts, self.id.clone())?;
        Ok(Embedded {
            fingerprint: Some(info.fingerprint),
            labels: info.labels.clone(),
            sigmoid: info.sigmoid,
            ..embedded
        })
    }

    pub fn tokens(&self, ids: &[u32]) -> Result<Vec<String>> {
        let Some(tokenizer) = &self.tokenizer else {
            let reason = format!("{} has no vocabulary: its indices are hashes of words", self.id);
            return Err(Error::InvalidArgument(reason));
        };
        let size = self.model.info().dimensions;
        if let Some(id) = ids.iter().find(|id| **id as usize >= size) {
            return Err(Error::InvalidArgument(format!("{id} is no token of {}, which has {size}", self.id)));
        }
        Ok(ids.iter().map(|id| tokenizer.token(*id).unwrap_or_default()).collect())
    }

    /// Whether the model reads what a call has, or what the right call is.
    fn check_kind(&self, inputs: &Inputs) -> Result<()> {
        let (id, info) = (&self.id, self.model.info());
        let reason = match (inputs, info.modality, info.task) {
            (Inputs::Images(_), Modality::Image, _) | (Inputs::Pairs(_), _, Task::Reranking) => return Ok(()),
            (Inputs::Images(_), ..) => format!(
                "The model {id} reads texts, not images: call embed() with texts, or load a model that reads images"
            ),
            (_, Modality::Image, _) => format!(
                "The model {id} reads images, not texts: call embedImages() with the bytes or the paths of images, or load \
                 a model that reads texts"
            ),
            (Inputs::Pairs(_), ..) => format!("The model {id} scores no pairs of texts: load a cross-encoder"),
            (_, _, Task::Reranking) => format!("The model {id} scores pairs of texts: call rank() or score()"),
            _ => return Ok(()),
        };
        Err(Error::InvalidArgument(reason))
    }

    /// Answers the texts of `leaders`, each computed by one of all processes that share the cache, where that is worth it.
    async fn compute_once(
        self: &Arc<Self>,
        call: &Call<'_>,
        leaders: TextLeaders,
        answer: &mut Answer<'_>,
    ) -> Result<()> {
        let worth = |model_cache: &&Arc<ModelCache>| {
            model_cache.is_shared() && worthwhile(leaders.len(), self.stage_metrics.text_ms())
        };
        let model_cache = call.model_cache.as_ref().filter(worth);
        let Some(model_cache) = model_cache else { return self.compute(call, leaders, None, answer).await };
        let (mut leases, mut theirs) = (Leases::new(model_cache), leaders);
        let mut mine = call.lease(&mut theirs, &mut leases, &mut Watch::new(model_cache), answer).await?;
        loop {
            self.compute(call, mine, Some(&mut leases), answer).await?;
            if theirs.is_empty() {
                return Ok(());
            }
            mine = call.watch(&mut theirs, &mut leases, &mut Watch::new(model_cache), answer).await?;
        }
    }

    /// Computes the texts of `leaders`. Each goes into the cache with its batch.
    async fn compute(
        self: &Arc<Self>,
        call: &Call<'_>,
        mut leaders: TextLeaders,
        mut leases: Option<&mut Leases>,
        answer: &mut Answer<'_>,
    ) -> Result<()> {
        if leaders.is_empty() {
            return Ok(());
        }
        let slots: Vec<usize> = leaders.keys().copied().collect();
        // A device computes while the processor tokenises what comes next; on the processor, both take the same time from each other.
        let window = self.model.budget().map_or(slots.len(), |_| DEVICE_WINDOW_TEXTS);
        let mut windows = slots.chunks(window);
        let mut next = match windows.next() {
            Some(window) => Some((window, holding(&mut leases, self.tokenize(call, window)).await??)),
            None => None,
        };
        while let Some((window, tokens)) = next.take() {
            let mut runnable = Vec::with_capacity(tokens.len());
            for (slot, tokens) in window.iter().copied().zip(tokens) {
                match tokens {
                    Ok(tokens) => runnable.push((slot, tokens)),
                    Err(error) if call.options.on_error == OnError::Throw => return Err(error),
                    // Whoever waits for it finds out by itself.
                    Err(error) => {
                        leaders.remove(&slot);
                        answer.fail(slot, &error);
                    }
                }
            }
            let mut finished = self.start(runnable, call);
            let ahead = windows.next();
            let mut tokenizing = pin!(async {
                match ahead {
                    Some(window) => self.tokenize(call, window).await.map(|tokens| Some((window, tokens))),
                    None => Ok(None),
                }
            });
            let mut tokenized = false;
            loop {
                let step = async {
                    tokio::select! {
                        rows = finished.recv() => Step::Computed(rows),
                        done = &mut tokenizing, if !tokenized => Step::Tokenized(done),
                    }
                };
                // Not waited for once the call was stopped: other calls may have the workers for a while.
                match call.cancel.or_else(holding(&mut leases, step)).await?? {
                    Step::Computed(Some(rows)) => self.take(call, rows, &mut leaders, &mut leases, answer).await?,
                    Step::Computed(None) => break,
                    Step::Tokenized(done) => (next, tokenized) = (done?, true),
                }
            }
            if !tokenized {
                next = holding(&mut leases, tokenizing).await??;
            }
        }
        call.cancel.check()
    }

    /// Answers the rows of a batch, and keeps them.
    async fn take(
        &self,
        call: &Call<'_>,
        rows: Vec<Row>,
        leaders: &mut TextLeaders,
        leases: &mut Option<&mut Leases>,
        answer: &mut Answer<'_>,
    ) -> Result<()> {
        let mut batch = Vec::with_capacity(rows.len());
        let slots: Vec<usize> = rows.iter().map(|row| row.slot).collect();
        for Row { slot, ms, known } in rows {
            let leader = leaders.remove(&slot).flatten();
            match known {
                Ok(known) => {
                    self.answered.count(&known);
                    answer.commit(slot, &known, ms, false);
                    batch.push((slot, leader, Arc::new(known)));
                }
                // A run that was stopped says nothing about its texts: who waits for them computes them.
                Err(_) if call.cancel.check().is_err() => {}
                Err(Failure { error, own }) => {
                    let error = error.at(call.distinct.first[slot]);
                    answer.fail(slot, &error);
                    // Nor does a limit that only this call has.
                    let leader = leader.filter(|_| !own);
                    leader.into_iter().for_each(|leader| leader.finish(Err(error.clone())));
                    if call.options.on_error == OnError::Throw {
                        call.cancel.cancel(error);
                    }
                }
            }
        }
        call.keep(batch, &slots, leases).await?;
        answer.report();
        Ok(())
    }

    /// Queues the batches; each sends its rows when it is done, and the channel ends after the last.
    fn start(&self, runnable: Vec<(usize, Tokens)>, call: &Call<'_>) -> mpsc::UnboundedReceiver<Vec<Row>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (slots, tokens): (Vec<usize>, Vec<Tokens>) = runnable.into_iter().unzip();
        let lengths: Vec<usize> = tokens.iter().map(Tokens::weight).collect();
        let parallel = call.options.max_concurrency.unwrap_or(usize::MAX);
        let own = call.options.memory_limit.map(|limit| Arc::new(Governor::of_permits(limit)));
        let batches = Batches {
            model: Arc::clone(&self.model),
            slots,
            tokens,
            plan: Mutex::new(Plan::new(lengths)),
            sizer: Arc::clone(&self.sizer),
            max_rows: call.options.batch_size.unwrap_or(usize::MAX),
            workers: self.workers.count().min(parallel),
            own,
            governor: Arc::clone(&self.governor),
            stage_metrics: Arc::clone(&self.stage_metrics),
            cancel: call.cancel.clone(),
            finished: sender,
            nth: AtomicUsize::new(0),
            _busy: Arc::clone(&call.busy),
        };
        // A batch has a text at least.
        let parallel = parallel.min(batches.slots.len());
        self.workers.submit(Arc::new(batches), parallel);
        receiver
    }
}

/// Whether texts are so few, and so short, that no other thread is asked.
pub(super) fn is_brief(texts: usize, bytes: usize) -> bool {
    texts <= FEW_TEXTS && bytes <= BRIEF_BYTES
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a model reads of an annotation.
fn max_chars(info: &ModelInfo) -> usize {
    info.max_length.unwrap_or(usize::MAX).saturating_mul(text::CHARS_PER_TOKEN)
}
