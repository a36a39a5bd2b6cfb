//! The handles behind a call of `OptimizedEmbeddingGenerator`: what it is fed with, and its answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::bindgen_prelude::{Float32Array, Float64Array, FnArgs, PromiseRaw, Uint8Array, Uint32Array, Utf16String};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Result, Status};
use napi_derive::napi;
use serde_json::{Map, Value};

use super::answer::NativeResponse;
use super::chunks::{NativeChunks, NativeSplit, documents};
use super::request::NativeRequest;
use super::{options, to_js, to_wire};
use crate::cancel::Cancel;
use crate::embedding::InputType;
use crate::error::Error;
use crate::generator::{CallOptions, Embedded, Inputs, Pairs, Progress, Session};
use crate::host::threads::{BRIEF_BYTES, blocking_unless};
use crate::images::ImageSource;
use crate::text::Annotation;

/// Vectors above this size are handed over without a copy. Below it a copy is cheaper than a finaliser.
const SHARE_ABOVE: usize = 1 << 16;

/// Called with (processed, total). Weak: a callback never keeps the process alive.
type OnProgress = ThreadsafeFunction<FnArgs<(u32, u32)>, (), FnArgs<(u32, u32)>, Status, false, true>;

/// What is there to be taken, once.
pub(super) fn taken<T>(of: &Mutex<Option<T>>) -> Option<T> {
    of.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// See `Tokenized`.
#[napi(object, object_from_js = false)]
pub struct NativeTokens {
    /// Ids.
    pub ids: Uint32Array,
    /// Spellings.
    pub tokens: Vec<String>,
    /// Beginning and end of each, in turn.
    pub offsets: Uint32Array,
}

fn role(query: bool) -> InputType {
    if query { InputType::Query } else { InputType::Document }
}

/// Some strings of a call, still in UTF-16: converting them is left to another thread.
struct Pack {
    joined: Utf16String,
    lengths: Vec<u32>,
}

/// One call: fed, then run, stopped at any time.
#[napi]
pub struct NativeCall {
    session: Mutex<Option<Arc<Session>>>,
    cancel: Cancel,
    fed: Mutex<Fed>,
}

#[derive(Default)]
struct Fed {
    packs: Vec<Pack>,
    images: Vec<ImageSource>,
    refused: Vec<usize>,
}

impl NativeCall {
    pub(super) fn on(session: Option<Arc<Session>>) -> Self {
        Self { session: Mutex::new(session), cancel: Cancel::default(), fed: Mutex::default() }
    }

    fn fed(&self) -> MutexGuard<'_, Fed> {
        self.fed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[napi]
impl NativeCall {
    /// Adds strings, joined to one; `lengths` are theirs in UTF-16 units.
    #[napi(catch_unwind)]
    pub fn push(&self, joined: Utf16String, lengths: Uint32Array) {
        let pack = Pack { joined, lengths: lengths.to_vec() };
        self.fed().packs.push(pack);
    }

    /// Adds an image by what its file holds, which is copied.
    #[napi(catch_unwind)]
    pub fn push_bytes(&self, bytes: &[u8]) {
        self.fed().images.push(ImageSource::Bytes(bytes.into()));
    }

    /// Adds an image by an absolute path.
    #[napi(catch_unwind)]
    pub fn push_path(&self, path: String) {
        self.fed().images.push(ImageSource::File(path.into()));
    }

    /// Some of the inputs that are pushed are not what they should be, and are answered with an error.
    #[napi(catch_unwind)]
    pub fn refuse(&self, indices: Uint32Array) {
        self.fed().refused.extend(indices.iter().map(|&index| index as usize));
    }

    /// Stops the call, if it runs (its promise is rejected with `ABORTED`), and lets go of what was pushed.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.cancel.cancel(Error::Aborted);
        drop((taken(&self.session), std::mem::take(&mut *self.fed())));
    }

    /// Embeds what was pushed: texts, or annotations as four strings each. `first`: what errors count from.
    #[napi(catch_unwind)]
    pub fn run<'env>(
        &self,
        env: &'env Env,
        annotated: bool,
        first: u32,
        options: Map<String, Value>,
        on_progress: Option<OnProgress>,
    ) -> Result<PromiseRaw<'env, NativeAnswer>> {
        let packs = std::mem::take(&mut self.fed().packs);
        let brief = packs.iter().map(|pack| pack.joined.len()).sum::<usize>() <= BRIEF_BYTES;
        self.begin(env, brief, move || unpack(packs, annotated), first, &options, on_progress)
    }

    /// Embeds the texts of a request to a server, and begins to write its answer.
    #[napi(catch_unwind)]
    pub fn respond<'env>(
        &self,
        env: &'env Env,
        request: &mut NativeRequest,
        normalized: bool,
    ) -> Result<PromiseRaw<'env, NativeResponse>> {
        let (texts, form, session) = (request.take_texts(), request.form(), taken(&self.session));
        let (input_type, cancel) = (role(request.is_query()), self.cancel.clone());
        let options = CallOptions { input_type, cancel, ..CallOptions::default() };
        env.spawn_future(async move {
            let Some(session) = session else { return Err(to_js(Error::Closed)) };
            let embedded = session.embed(Inputs::Texts(texts), options).await.map_err(to_js)?;
            Ok(NativeResponse::of(embedded, form, normalized))
        })
    }

    /// Scores pairs of the strings that were pushed; `places`: which of them the query and the document of each pair are, in turn.
    /// Without it, the first string is the query of each of the others.
    #[napi(catch_unwind)]
    pub fn run_pairs<'env>(
        &self,
        env: &'env Env,
        places: Option<Uint32Array>,
        options: Map<String, Value>,
        on_progress: Option<OnProgress>,
    ) -> Result<PromiseRaw<'env, NativeAnswer>> {
        let packs = std::mem::take(&mut self.fed().packs);
        let places = places.map(|places| places.to_vec());
        self.begin(env, false, move || Inputs::Pairs(pairs(&packs, places)), 0, &options, on_progress)
    }

    /// Embeds the images that were pushed.
    #[napi(catch_unwind)]
    pub fn run_images<'env>(
        &self,
        env: &'env Env,
        options: Map<String, Value>,
        on_progress: Option<OnProgress>,
    ) -> Result<PromiseRaw<'env, NativeAnswer>> {
        let images = std::mem::take(&mut self.fed().images);
        self.begin(env, true, move || Inputs::Images(images), 0, &options, on_progress)
    }

    /// How many tokens each of the texts has that were pushed, before it is cut.
    #[napi(catch_unwind)]
    pub fn count_tokens<'env>(&self, env: &'env Env, query: bool) -> Result<PromiseRaw<'env, Uint32Array>> {
        let (session, cancel, packs) = self.reading()?;
        env.spawn_future(async move {
            let counts = session.count_tokens(strings(&packs).collect(), role(query), cancel).await.map_err(to_js)?;
            Ok(counts.into())
        })
    }

    /// The tokens of the text that was pushed.
    #[napi(catch_unwind)]
    pub fn tokenize<'env>(&self, env: &'env Env, query: bool) -> Result<PromiseRaw<'env, NativeTokens>> {
        let (session, cancel, packs) = self.reading()?;
        env.spawn_future(async move {
            let text = strings(&packs).last().unwrap_or_default();
            let found = session.tokenize(text, role(query), cancel).await.map_err(to_js)?;
            let offsets: Vec<u32> =
                found.offsets.iter().flat_map(|offset| [offset.start as u32, offset.end as u32]).collect();
            Ok(NativeTokens { ids: found.ids.into(), tokens: found.tokens, offsets: offsets.into() })
        })
    }

    /// The chunks of the documents that were pushed, as texts and paths in turn: see `Session::split`.
    #[napi(catch_unwind)]
    pub fn split<'env>(&self, env: &'env Env, options: NativeSplit) -> Result<PromiseRaw<'env, Vec<NativeChunks>>> {
        let (session, cancel, packs) = self.reading()?;
        env.spawn_future(async move {
            let (most, options) = options.parsed();
            let found =
                session.split(documents(strings(&packs).collect()), most, options, cancel).await.map_err(to_js)?;
            Ok(found.into_iter().map(NativeChunks::from).collect())
        })
    }

    /// What a call needs that makes no vectors.
    fn reading(&self) -> Result<(Arc<Session>, Cancel, Vec<Pack>)> {
        let session = taken(&self.session).ok_or_else(|| to_js(Error::Aborted))?;
        Ok((session, self.cancel.clone(), std::mem::take(&mut self.fed().packs)))
    }

    /// `brief`: whether `inputs` takes less time than to ask another thread.
    fn begin<'env>(
        &self,
        env: &'env Env,
        brief: bool,
        inputs: impl FnOnce() -> Inputs + Send + 'static,
        first: u32,
        options: &Map<String, Value>,
        on_progress: Option<OnProgress>,
    ) -> Result<PromiseRaw<'env, NativeAnswer>> {
        let mut options = options::call(options).map_err(to_js)?;
        let Fed { refused, .. } = std::mem::take(&mut *self.fed());
        options.cancel = self.cancel.clone();
        options.first_index = first as usize;
        options.refused = refused;
        options.progress = on_progress.map(|callback| -> Progress {
            Box::new(move |processed, total| {
                callback.call((processed as u32, total as u32).into(), ThreadsafeFunctionCallMode::NonBlocking);
            })
        });
        let session = taken(&self.session);
        env.spawn_future(async move {
            let Some(session) = session else { return Err(to_js(Error::Closed)) };
            let inputs = blocking_unless(brief, inputs).await.map_err(to_js)?;
            let embedded = session.embed(inputs, options).await.map_err(to_js)?;
            Ok(NativeAnswer { embedded })
        })
    }
}

/// Text of ASCII alone: many times faster than reading units one by one.
fn narrowed(text: &[u16]) -> Option<String> {
    let ascii = text.iter().fold(0, |all, unit| all | unit) < 0x80;
    ascii.then(|| String::from_utf8(text.iter().map(|&unit| unit as u8).collect()).ok()).flatten()
}

/// Lone surrogates become U+FFFD, as everywhere in the web platform.
fn strings(packs: &[Pack]) -> impl Iterator<Item = String> {
    packs.iter().flat_map(|pack| {
        let mut rest: &[u16] = &pack.joined;
        pack.lengths.iter().map(move |&length| {
            let (text, after) = rest.split_at((length as usize).min(rest.len()));
            rest = after;
            narrowed(text).unwrap_or_else(|| String::from_utf16_lossy(text))
        })
    })
}

fn unpack(packs: Vec<Pack>, annotated: bool) -> Inputs {
    let mut fields = strings(&packs);
    if !annotated {
        return Inputs::Texts(fields.collect());
    }
    let mut annotations = Vec::new();
    while let Some(node_id) = fields.next() {
        let mut field = || fields.next().unwrap_or_default();
        annotations.push(Annotation { node_id, signature: field(), summary: field(), source_snippet: field() });
    }
    Inputs::Annotations(annotations)
}

fn pairs(packs: &[Pack], places: Option<Vec<u32>>) -> Pairs {
    let strings = strings(packs).collect();
    match places {
        None => Pairs::ranked(strings),
        Some(places) => {
            let (places, _) = places.as_chunks();
            Pairs::new(strings, places.iter().map(|pair| pair.map(|place| place as usize)))
        }
    }
}

/// The answer to a call. Parts of it are taken when they are needed.
#[napi]
pub struct NativeAnswer {
    embedded: Embedded,
}

#[napi]
impl NativeAnswer {
    /// Length of each vector.
    #[napi(getter, catch_unwind)]
    pub fn dimensions(&self) -> u32 {
        self.embedded.matrix.dimensions as u32
    }

    /// The model that was used, as the user named it.
    #[napi(getter, catch_unwind)]
    pub fn model_id(&self) -> &str {
        &self.embedded.model_id
    }

    /// Its embedding space.
    #[napi(getter, catch_unwind)]
    pub fn fingerprint(&self) -> String {
        self.embedded.fingerprint.map(|fingerprint| fingerprint.to_string()).unwrap_or_default()
    }

    /// What the scores of a pair are called.
    #[napi(getter, catch_unwind)]
    pub fn labels(&self) -> Vec<&str> {
        self.embedded.labels.iter().map(String::as_str).collect()
    }

    /// Whether scores are meant to be numbers from 0 to 1.
    #[napi(getter, catch_unwind)]
    pub fn sigmoid(&self) -> bool {
        self.embedded.sigmoid
    }

    /// All values, row by row. The second call gives an empty array.
    #[napi(catch_unwind)]
    pub fn take_data(&mut self, env: Env) -> Result<Float32Array> {
        let Embedded { matrix, ragged, .. } = &mut self.embedded;
        let data = std::mem::take(if ragged.ends.is_empty() { &mut matrix.data } else { &mut ragged.data });
        if size_of_val(&data[..]) >= SHARE_ABOVE {
            return Ok(Float32Array::new(data));
        }
        napi::bindgen_prelude::Float32ArraySlice::copy_from(&env, &data)?.into_typed_array(&env)
    }

    /// Of sparse vectors, which dimension each value is of.
    #[napi(catch_unwind)]
    pub fn take_indices(&mut self) -> Uint32Array {
        std::mem::take(&mut self.embedded.ragged.indices).into()
    }

    /// Where the values of each input end, where rows are not all of one length.
    #[napi(catch_unwind)]
    pub fn ends(&self) -> Float64Array {
        self.embedded.ragged.ends.iter().map(|end| *end as f64).collect::<Vec<_>>().into()
    }

    /// Milliseconds spent on each input.
    #[napi(catch_unwind)]
    pub fn processing_times(&self) -> Float64Array {
        self.embedded.items.iter().map(|item| item.processing_ms).collect::<Vec<_>>().into()
    }

    /// Tokens of each input.
    #[napi(catch_unwind)]
    pub fn token_counts(&self) -> Uint32Array {
        self.embedded.items.iter().map(|item| item.token_count as u32).collect::<Vec<_>>().into()
    }

    /// 1 for each input that the model did not see whole.
    #[napi(catch_unwind)]
    pub fn truncated(&self) -> Uint8Array {
        self.embedded.items.iter().map(|item| u8::from(item.truncated)).collect::<Vec<_>>().into()
    }

    /// Share of each input's tokens that the model saw and knew.
    #[napi(catch_unwind)]
    pub fn confidences(&self) -> Float64Array {
        self.embedded.items.iter().map(|item| item.confidence).collect::<Vec<_>>().into()
    }

    /// 1 for each input that was not computed for this call.
    #[napi(catch_unwind, js_name = "fromCache")]
    pub fn cached(&self) -> Uint8Array {
        self.embedded.items.iter().map(|item| u8::from(item.from_cache)).collect::<Vec<_>>().into()
    }

    /// What was embedded for annotations `from..to`.
    #[napi(catch_unwind)]
    pub fn texts(&self, from: u32, to: u32) -> Vec<&str> {
        let texts = self.embedded.texts.get(from as usize..to as usize).unwrap_or_default();
        texts.iter().map(String::as_str).collect()
    }

    /// Lets go of everything: the garbage collector does not see how much memory an answer holds.
    #[napi(catch_unwind)]
    pub fn release(&mut self) {
        self.embedded = Embedded::default();
    }

    /// The next inputs from `from` that could not be embedded, at most `limit`: their indices, and an error for each.
    #[napi(catch_unwind)]
    pub fn failures(&self, from: u32, limit: u32) -> Vec<NativeFailure> {
        let items = self.embedded.items.iter().enumerate().skip(from as usize);
        let failed = items.filter_map(|(index, item)| item.error.as_ref().map(|error| (index, error)));
        let failed = failed.map(|(index, error)| NativeFailure { index: index as u32, error: to_wire(error) });
        failed.take(limit as usize).collect()
    }
}

/// One input that could not be embedded.
#[napi(object)]
pub struct NativeFailure {
    /// Its position in the call.
    pub index: u32,
    /// Its error, as errors cross to JS.
    pub error: String,
}
