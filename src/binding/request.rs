//! The body of a request to `EmbeddingServer`.

use napi::bindgen_prelude::{Buffer, Either, PromiseRaw, Uint32Array, Utf16String};
use napi::{Env, Result};
use napi_derive::napi;

use super::cache::blocking;
use crate::server::request::{Request, Wrong, read};

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
        let lengths: Vec<u32> = texts.iter().map(|text| text.encode_utf16().count() as u32).collect();
        let text = texts.concat();
        let text = if text.is_ascii() { Either::A(text) } else { Either::B(text.into()) };
        Self { model, text, lengths: lengths.into(), base64, dimensions, query }
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
