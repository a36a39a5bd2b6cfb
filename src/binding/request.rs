//! The body of a request to `EmbeddingServer`.

use napi::bindgen_prelude::{Buffer, Either, PromiseRaw, Uint32Array, Utf16String};
use napi::{Env, Result};
use napi_derive::napi;

use super::cache::blocking;
use crate::server::request::{Inputs, Request, Rerank, Wrong, read, read_inputs, read_rerank};

/// See `Request`.
#[napi(object, object_from_js = false)]
pub struct NativeRequest {
    /// What the client calls the model.
    pub model: String,
    /// All texts, one behind the other, in the form that costs the event loop no more than a copy.
    pub text: Either<String, Utf16String>,
    /// The length of each, in UTF-16 units.
    pub lengths: Uint32Array,
    /// Whether vectors are to be written in base64.
    pub base64: bool,
    /// How many values they are to have.
    pub dimensions: Option<f64>,
    /// Whether the texts are queries.
    pub query: bool,
}

impl From<Request> for NativeRequest {
    fn from(Request { model, texts, base64, dimensions, query }: Request) -> Self {
        let (text, lengths) = joined(&texts);
        Self { model, text, lengths, base64, dimensions, query }
    }
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
    /// All texts, as in `NativeRequest`.
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
    /// All texts, as in `NativeRequest`.
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

/// See `request::read`.
#[napi(catch_unwind)]
pub fn read_request(
    env: &Env,
    body: Buffer,
    most_texts: u32,
) -> Result<PromiseRaw<'_, Either<NativeRequest, NativeRefusal>>> {
    blocking(env, move || {
        let request = read(&body, most_texts as usize);
        Ok(request.map_or_else(|wrong| Either::B(wrong.into()), |request| Either::A(request.into())))
    })
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
