//! A loaded model, and the way of a call through it: every stage in turn.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use tokio::sync::mpsc;

use super::answer::{Answer, Distinct};
use super::batches::{Batches, Busy, Failure, Row};
use super::choice::{Chosen, Loader, Memory};
use super::contents::{Contents, Names, prepare};
use super::forecast::{AnsweredBytes, Basis, Forecast, Overhead, forecast};
use super::learned::Store;
use super::leases::{Leases, TextLeaders, Watch, worthwhile};
use super::model_cache::{GeneratorCache, Kept, Known, ModelCache, Shape, TextLeader, TextWaiter};
use super::pairs::PARTS;
use super::stage_metrics::{Answered, Stage, StageMetrics};
use super::{CallOptions, Embedded, GeneratorOptions, Inputs, Item, OnError, blocking, threads};
use crate::batch::sizing::BatchSizer;
use crate::batch::{Budget, Plan};
use crate::cache::Joined;
use crate::cancel::Cancel;
use crate::embedding::{InputType, Key, Modality, Task, Tokens};
use crate::error::{Error, Result, Subject};
use crate::host::{
    self,
    threads::{begin_blocking, in_parallel},
};
use crate::images::{ImageSource, MOST_PIXELS};
use crate::memory::governor::{Governor, Refusal};
use crate::model::{Model, ModelFiles, ModelInfo, ModelOptions, Prompts, Source, Unloaded};
use crate::scheduler::Scheduler;
use crate::text;
use crate::tokens::{self, Half, Tokenizer};

/// Texts, and bytes of text, that are tokenised before another call gets its turn: some tenths of a second at most.
const WINDOW_TEXTS: usize = 1024;
const WINDOW_BYTES: usize = 1 << 20;

/// Memory of the largest batch that is tried only to learn whether it is faster.
const MOST_TRIED_BYTES: u64 = 24 << 20;

/// A loaded model with all that a call needs.
pub(super) struct Engine {
    /// The model as the user named it.
    id: String,
    /// See [`crate::model::Name::place`].
    pub place: PathBuf,
    pub model: Arc<dyn Model>,
    /// Why it is computed as it is; `None` on a server.
    pub engine_reason: Option<String>,
    learned: Option<Learned>,
    /// `None` where only the model itself knows its tokens.
    pub(super) tokenizer: Option<Tokenizer>,
    pub(super) prompts: Prompts,
    leaves_out_prompts: bool,
    pub sizer: Arc<BatchSizer>,
    governor: Arc<Governor>,
    stage_metrics: Arc<StageMetrics>,
    workers: Scheduler,
    pub(super) lowercase: bool,
    model_cache: Option<Arc<ModelCache>>,
    answered: AnsweredBytes,
}

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
        let room = || governor.expect(unloaded.load_bytes()).map_err(too_large);
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
        let sizer = match model.most_weight() {
            None => options.batching.sizer(options.budget, most)?,
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
        let prepare_all = move || {
            let started = Instant::now();
            let (mut contents, cut) = prepare(inputs, max_chars, most_pixels, &stop);
            contents.clear(&refused);
            let distinct = contents.distinct();
            let keys = keys_of.map_or_else(Vec::new, |model_cache| contents.keys(&model_cache, &distinct, input_type));
            stage_metrics.done(Stage::Prepare, started, distinct.total);
            (contents, cut, distinct, keys)
        };
        let prepared = blocking(move || in_parallel(prepare_all));
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
        let mut answer = Answer::new(Shape::of(self.model.info()), &distinct, &cut, options.progress.as_ref());
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
        let tokens = holding(&mut leases, self.tokenize(call, &slots)).await??;
        let mut runnable = Vec::with_capacity(tokens.len());
        for (slot, tokens) in slots.into_iter().zip(tokens) {
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
        // Not waited for once the call was stopped: other calls may have the workers for a while.
        while let Some(rows) = call.cancel.or_else(holding(&mut leases, finished.recv())).await?? {
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
            call.cancel.or_else(call.commit(batch)).await?;
            leases.iter_mut().for_each(|leases| leases.release(slots.iter().copied()));
            answer.report();
        }
        call.cancel.check()
    }

    /// Tokens of the inputs of `slots`.
    async fn tokenize(self: &Arc<Self>, call: &Call<'_>, slots: &[usize]) -> Result<Vec<Result<Tokens>>> {
        let first: Vec<usize> = slots.iter().map(|&slot| call.distinct.first[slot]).collect();
        if matches!(&*call.contents, Contents::Pairs(_)) {
            return self.tokenize_pairs(call, &first).await;
        }
        let input_type = call.options.input_type;
        let bytes = |index: usize| call.contents.texts().get(index).map_or(0, String::len);
        let read = move |engine: &Self, contents: &Contents, index: usize| match contents {
            Contents::Images(images) => match &images[index] {
                Ok(image) => Ok(Tokens::of_image(Arc::clone(image))),
                Err(error) => Err(error.at(index)),
            },
            texts => engine.encode(index, input_type, &texts.texts()[index]),
        };
        self.read_all(call, &first, bytes, read).await
    }

    /// Tokens of pairs: first of their texts, each of which is read once, then of both together.
    async fn tokenize_pairs(self: &Arc<Self>, call: &Call<'_>, first: &[usize]) -> Result<Vec<Result<Tokens>>> {
        let pairs = call.contents.pairs()?;
        let mut places: Vec<usize> = first.iter().flat_map(|&index| pairs.places()[index]).collect();
        places.sort_unstable();
        places.dedup();
        let bytes = |place: usize| pairs.texts()[place].len();
        let read = |engine: &Self, contents: &Contents, place: usize| {
            engine.pair_tokenizer()?.encode_half(&contents.pairs()?.texts()[place])
        };
        let halves = self.read_all(call, &places, bytes, read).await?;
        let halves: Arc<HashMap<usize, Result<Half>>> = Arc::new(places.into_iter().zip(halves).collect());
        let known = Arc::clone(&halves);
        // What a pair takes is made of the tokens that are kept.
        let bytes = |index: usize| {
            let kept = |place| halves.get(&place).and_then(|half| half.as_ref().ok()).map_or(0, Half::bytes);
            pairs.places()[index].map(kept).iter().sum()
        };
        let join = move |engine: &Self, contents: &Contents, index: usize| {
            let pairs = contents.pairs()?;
            let places = pairs.places()[index];
            // A query of nothing asks nothing; a document of nothing is a poor one.
            if pairs.texts()[places[0]].trim().is_empty() {
                return Err(Error::EmptyText { what: Subject::QueryOfPair, index });
            }
            let half = |part: usize| match known.get(&places[part]) {
                Some(half) => half.as_ref().map_err(|error| error.at(index).about(PARTS[part])),
                None => Err(Error::Internal(format!("text {} of a call was not read", places[part]))),
            };
            engine.pair_tokenizer()?.encode_pair(half(0)?, half(1)?).map_err(|error| error.at(index))
        };
        self.read_all(call, first, bytes, join).await
    }

    /// What `read` makes of each of `items`, in parallel, off the caller's threads, and some at a time, so that others get their turn.
    async fn read_all<T: Send + 'static>(
        self: &Arc<Self>,
        call: &Call<'_>,
        items: &[usize],
        bytes: impl Fn(usize) -> usize,
        read: impl Fn(&Self, &Contents, usize) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Vec<Result<T>>> {
        let mut done = Vec::with_capacity(items.len());
        let (mut rest, read) = (items, Arc::new(read));
        while !rest.is_empty() {
            call.cancel.check()?;
            let mut sum = 0;
            let fits = rest.iter().take(WINDOW_TEXTS).take_while(|&&item| {
                let full = sum >= WINDOW_BYTES;
                sum += bytes(item);
                !full
            });
            let (window, after) = rest.split_at(fits.count());
            rest = after;
            let (engine, contents, cancel, read, window) =
                (Arc::clone(self), Arc::clone(&call.contents), call.cancel.clone(), Arc::clone(&read), window.to_vec());
            let read_window = move || -> Result<Vec<Result<T>>> {
                let started = Instant::now();
                let one = |item| cancel.check().and_then(|()| read(&engine, &contents, item));
                let done: Vec<_> = in_parallel(|| window.into_par_iter().map(one).collect())?;
                engine.stage_metrics.done(Stage::Tokenize, started, done.len());
                Ok(done)
            };
            done.extend(call.cancel.or_else(blocking(read_window)).await???);
        }
        call.cancel.check()?;
        Ok(done)
    }

    fn pair_tokenizer(&self) -> Result<&Tokenizer> {
        let tokenizer = self.tokenizer.as_ref();
        tokenizer.ok_or_else(|| Error::Internal(format!("the model {} has no tokenizer for pairs", self.id)))
    }

    fn encode(&self, index: usize, input_type: InputType, text: &str) -> Result<Tokens> {
        if text.trim().is_empty() {
            return Err(Error::EmptyText { what: Subject::Text, index });
        }
        let prompt = self.prompts.of(input_type);
        let text = self.worded(input_type, text);
        let Some(tokenizer) = &self.tokenizer else { return tokens::untold(index, input_type, &text) };
        let mut tokens = tokenizer.encode(index, input_type, &text)?;
        if self.leaves_out_prompts && !prompt.is_empty() {
            tokens.prompt = tokenizer.prompt_tokens(prompt);
        }
        Ok(tokens)
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
        self.workers.submit(Arc::new(batches), parallel);
        receiver
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One call on its way.
struct Call<'a> {
    contents: Arc<Contents>,
    names: Names,
    distinct: &'a Distinct,
    cancel: Cancel,
    options: &'a CallOptions,
    /// The key of each slot; empty without a cache.
    keys: Vec<Key>,
    model_cache: Option<Arc<ModelCache>>,
    stage_metrics: &'a Arc<StageMetrics>,
    busy: Busy,
}

impl Call<'_> {
    /// Answers what is known of the slots `open`. Tells which of the others this call computes, and which another one
    /// has under way.
    async fn recall(
        &self,
        open: Vec<usize>,
        answer: &mut Answer<'_>,
    ) -> Result<(TextLeaders, Vec<(usize, TextWaiter)>)> {
        let (mut leaders, mut waits) = (TextLeaders::new(), Vec::new());
        let Some(model_cache) = &self.model_cache else {
            return Ok((open.into_iter().map(|slot| (slot, None)).collect(), waits));
        };
        let started = Instant::now();
        let keys: Vec<Key> = open.iter().map(|&slot| self.keys[slot]).collect();
        let (reader, cancel, stage_metrics) =
            (Arc::clone(model_cache), self.cancel.clone(), Arc::clone(self.stage_metrics));
        let found = blocking(move || {
            let started = Instant::now();
            let found = reader.recall(&keys, &cancel)?;
            stage_metrics.done(Stage::Lookup, started, keys.len());
            Ok(found)
        });
        let found = self.cancel.or_else(found).await???;
        let ms = started.elapsed().as_secs_f64() * 1e3 / open.len() as f64;
        for (slot, known) in open.into_iter().zip(found) {
            if let Some(known) = known {
                answer.commit(slot, &known, ms, true);
                continue;
            }
            match model_cache.join(self.keys[slot]) {
                (Joined::Lead(leader), Some(known)) => {
                    answer.commit(slot, &known, ms, true);
                    leader.finish(Ok(Arc::new(known)));
                }
                (Joined::Lead(leader), None) => drop(leaders.insert(slot, Some(leader))),
                (Joined::Wait(wait), _) => waits.push((slot, wait)),
            }
        }
        answer.report();
        Ok((leaders, waits))
    }

    /// Takes leases on the texts of `leaders`, and answers those that have been computed meanwhile. What it gives is this
    /// process's to compute; another one has what stays in `leaders`.
    async fn lease(
        &self,
        leaders: &mut TextLeaders,
        leases: &mut Leases,
        watch: &mut Watch,
        answer: &mut Answer<'_>,
    ) -> Result<TextLeaders> {
        let left = self.cancel.or_else(leases.take(self.wanted(leaders))).await??;
        let theirs: TextLeaders = left.into_iter().filter_map(|slot| leaders.remove_entry(&slot)).collect();
        let mut mine = std::mem::replace(leaders, theirs);
        // Whoever had a lease may have given it back, its work done, since the cache was asked.
        if !mine.is_empty() {
            let came = self.cancel.or_else(watch.come(&self.wanted(&mine), &self.cancel)).await??;
            leases.release(came.iter().map(|(slot, _)| *slot));
            self.finish(came, &mut mine, watch, answer);
        }
        Ok(mine)
    }

    /// Waits for what other processes compute, until all of it has come, or some of it falls to this one.
    async fn watch(
        &self,
        theirs: &mut TextLeaders,
        leases: &mut Leases,
        watch: &mut Watch,
        answer: &mut Answer<'_>,
    ) -> Result<TextLeaders> {
        while !theirs.is_empty() {
            let came = self.cancel.or_else(watch.look(&self.wanted(theirs), &self.cancel)).await??;
            self.finish(came, theirs, watch, answer);
            if watch.gives_up() {
                return Ok(std::mem::take(theirs));
            }
            if watch.asks() {
                let mine = self.lease(theirs, leases, watch, answer).await?;
                if !mine.is_empty() {
                    return Ok(mine);
                }
            }
        }
        Ok(TextLeaders::new())
    }

    fn wanted(&self, leaders: &TextLeaders) -> Vec<(usize, Key)> {
        leaders.keys().map(|&slot| (slot, self.keys[slot])).collect()
    }

    /// Answers what another process has computed.
    fn finish(&self, came: Vec<(usize, Known)>, leaders: &mut TextLeaders, watch: &Watch, answer: &mut Answer<'_>) {
        for (slot, known) in came {
            answer.commit(slot, &known, watch.waited_ms(), true);
            let leader = leaders.remove(&slot).flatten();
            leader.into_iter().for_each(|leader| leader.finish(Ok(Arc::new(known.clone()))));
        }
        answer.report();
    }

    /// Remembers a batch, then tells those who wait for it: from then on, others find it in the cache.
    async fn commit(&self, batch: Vec<(usize, Option<TextLeader>, Arc<Known>)>) {
        let Some(model_cache) = &self.model_cache else { return };
        let started = Instant::now();
        let kept = batch.iter().map(|(slot, _, known)| {
            let name = self.names.name(self.distinct.first[*slot], &self.contents);
            Kept { key: self.keys[*slot], known: Arc::clone(known), name }
        });
        model_cache.commit(kept.collect()).await;
        self.stage_metrics.done(Stage::Commit, started, batch.len());
        for (_, leader, known) in batch {
            leader.into_iter().for_each(|leader| leader.finish(Ok(Arc::clone(&known))));
        }
    }

    /// Answers what other calls compute. Tells which slots they have left open because they were stopped.
    async fn wait(&self, waits: Vec<(usize, TextWaiter)>, answer: &mut Answer<'_>) -> Result<Vec<usize>> {
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

/// What `work` gives, while leases on its texts last.
async fn holding<T>(leases: &mut Option<&mut Leases>, work: impl Future<Output = T>) -> Result<T> {
    match leases {
        Some(leases) => leases.during(work).await,
        None => Ok(work.await),
    }
}

/// What a model reads of an annotation.
fn max_chars(info: &ModelInfo) -> usize {
    info.max_length.unwrap_or(usize::MAX).saturating_mul(text::CHARS_PER_TOKEN)
}
