//! The body of a request to `EmbeddingServer`.

use napi::bindgen_prelude::{Buffer, Either, PromiseRaw, Uint32Array, Utf16String};
use napi::{Env, Result};
use napi_derive::napi;

use super::cache::blocking;
use crate::server::request::{Inputs, Request, Rerank, Wrong, read, read_inputs, read_rerank};
use crate::server::response::Form;

/// See `Request`.
#[napi]
pub struct NativeRequest {
    texts: Vec<String>,
    count: usize,
    form: Form,
    dimensions: Option<f64>,
    query: bool,
}

impl From<Request> for NativeRequest {
    fn from(Request { model, texts, base64, dimensions, query }: Request) -> Self {
        let form = Form { model, base64, dimensions: dimensions.map(|dimensions| dimensions as usize) };
        Self { count: texts.len(), texts, form, dimensions, query }
    }
}

impl NativeRequest {
    /// Its texts, once.
    pub(super) fn take_texts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.texts)
    }

    pub(super) fn form(&self) -> Form {
        self.form.clone()
    }
}

#[napi]
impl NativeRequest {
    /// What the client calls the model.
    #[napi(getter, catch_unwind)]
    pub fn model(&self) -> &str {
        &self.form.model
    }

    /// How many texts there are.
    #[napi(getter, catch_unwind)]
    pub fn count(&self) -> u32 {
        self.count as u32
    }

    /// How many values vectors are to have.
    #[napi(getter, catch_unwind)]
    pub fn dimensions(&self) -> Option<f64> {
        self.dimensions
    }

    /// Whether the texts are queries.
    #[napi(getter, catch_unwind)]
    pub fn is_query(&self) -> bool {
        self.query
    }

    /// Its texts, for a generator that is not of this package.
    #[napi(catch_unwind)]
    pub fn texts(&self) -> NativeTexts {
        let (text, lengths) = joined(&self.texts);
        NativeTexts { text, lengths }
    }
}

/// Texts as they cross to JS.
#[napi(object, object_from_js = false)]
pub struct NativeTexts {
    /// All of them, one behind the other, in the form that costs the event loop no more than a copy.
    pub text: Either<String, Utf16String>,
    /// The length of each, in UTF-16 units.
    pub lengths: Uint32Array,
}

fn joined(texts: &[String]) -> (Either<String, Utf16String>, Uint32Array) {
    let lengths: Vec<u32> = texts.iter().map(|text| text.encode_utf16().count() as u32).collect();
    let text = texts.concat();
    (if text.is_ascii() { Either::A(text) } else { Either::B(text.into()) }, lengths.into())
}

/// See `Rerank`.
#[napi(object, object_from_js = false)]
pub struct NativeRerank {
    /// What the client calls the model.
    pub model: Option<String>,
    /// What documents are scored for.
    pub query: String,
    /// All texts, as in `NativeTexts`.
    pub text: Either<String, Utf16String>,
    /// The length of each.
    pub lengths: Uint32Array,
    /// Whether they were called documents.
    pub documents: bool,
    /// Whether scores stay what the model gives.
    pub raw: bool,
    /// Whether the answer repeats the texts.
    pub with_texts: bool,
    /// How many of the best are wanted.
    pub most: Option<f64>,
}

impl From<Rerank> for NativeRerank {
    fn from(Rerank { model, query, texts, documents, raw, with_texts, most }: Rerank) -> Self {
        let (text, lengths) = joined(&texts);
        Self { model, query, text, lengths, documents, raw, with_texts, most }
    }
}

/// See `Inputs`.
#[napi(object, object_from_js = false)]
pub struct NativeInputs {
    /// All texts, as in `NativeTexts`.
    pub text: Either<String, Utf16String>,
    /// The length of each.
    pub lengths: Uint32Array,
    /// Whether they are queries.
    pub query: bool,
}

impl From<Inputs> for NativeInputs {
    fn from(Inputs { texts, query }: Inputs) -> Self {
        let (text, lengths) = joined(&texts);
        Self { text, lengths, query }
    }
}

/// See `Wrong`.
#[napi(object, object_from_js = false)]
pub struct NativeRefusal {
    /// The parameter that it is about.
    pub param: Option<String>,
    /// For programs.
    pub code: Option<String>,
    /// For people.
    pub message: String,
}

impl From<Wrong> for NativeRefusal {
    fn from(Wrong { param, code, message }: Wrong) -> Self {
        Self { param, code: code.map(str::to_owned), message }
    }
}

type Read = Either<NativeRequest, NativeRefusal>;

fn request(body: &[u8], most_texts: u32) -> Read {
    match read(body, most_texts as usize) {
        Ok(request) => Either::A(request.into()),
        Err(wrong) => Either::B(wrong.into()),
    }
}

/// See `request::read`. At once: for short bodies.
#[napi(catch_unwind)]
pub fn read_request(body: &[u8], most_texts: u32) -> Read {
    request(body, most_texts)
}

/// The same on another thread.
#[napi(catch_unwind)]
pub fn read_long_request(env: &Env, body: Buffer, most_texts: u32) -> Result<PromiseRaw<'_, Read>> {
    blocking(env, move || Ok(request(&body, most_texts)))
}

/// See `request::read_rerank`.
#[napi(catch_unwind)]
pub fn read_rerank_request(
    env: &Env,
    body: Buffer,
    most_texts: u32,
) -> Result<PromiseRaw<'_, Either<NativeRerank, NativeRefusal>>> {
    blocking(env, move || {
        let request = read_rerank(&body, most_texts as usize);
        Ok(request.map_or_else(|wrong| Either::B(wrong.into()), |request| Either::A(request.into())))
    })
}

/// See `request::read_inputs`.
#[napi(catch_unwind)]
pub fn read_inputs_request(
    env: &Env,
    body: Buffer,
    most_texts: u32,
) -> Result<PromiseRaw<'_, Either<NativeInputs, NativeRefusal>>> {
    blocking(env, move || {
        let request = read_inputs(&body, most_texts as usize);
        Ok(request.map_or_else(|wrong| Either::B(wrong.into()), |request| Either::A(request.into())))
    })
}
