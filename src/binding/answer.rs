//! The answer of `EmbeddingServer`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::bindgen_prelude::{Buffer, PromiseRaw};
use napi::{Env, Result};
use napi_derive::napi;

use super::cache::blocking;
use super::request::NativeRequest;
use crate::generator::Embedded;
use crate::server::response::{Form, Response, Vectors};

/// See `Response`.
#[napi]
pub struct NativeResponse {
    response: Arc<Mutex<Response>>,
    /// Its first piece, where that was written with the vectors.
    written: Option<Vec<u8>>,
    tokens: u64,
    rows: usize,
    hits: usize,
    truncated: usize,
}

impl NativeResponse {
    /// What the texts of a request have become, and the first piece of its answer. Takes milliseconds.
    pub(super) fn of(embedded: Embedded, form: Form, normalized: bool) -> Self {
        let Embedded { matrix, items, .. } = embedded;
        let vectors = Vectors {
            values: matrix.data,
            dimensions: matrix.dimensions,
            truncated: items.iter().map(|item| item.truncated).collect(),
            tokens: items.iter().map(|item| item.token_count as u64).sum(),
            normalized,
        };
        let mut made = Self::new(vectors, form);
        made.hits = items.iter().filter(|item| item.from_cache).count();
        made.written = lock(&made.response).next();
        made
    }

    fn new(vectors: Vectors, form: Form) -> Self {
        Self {
            tokens: vectors.tokens,
            rows: vectors.truncated.len(),
            hits: 0,
            truncated: vectors.truncated.iter().filter(|truncated| **truncated).count(),
            response: Arc::new(Mutex::new(Response::new(vectors, form))),
            written: None,
        }
    }
}

fn lock(response: &Mutex<Response>) -> MutexGuard<'_, Response> {
    response.lock().unwrap_or_else(PoisonError::into_inner)
}

#[napi]
impl NativeResponse {
    /// The answer to `request` with vectors that another generator has made.
    #[napi(factory, catch_unwind)]
    pub fn with(
        request: &NativeRequest,
        values: &[f32],
        dimensions: u32,
        truncated: &[u8],
        from_cache: &[u8],
        tokens: f64,
        normalized: bool,
    ) -> Self {
        let vectors = Vectors {
            values: values.to_vec(),
            dimensions: dimensions as usize,
            truncated: truncated.iter().map(|truncated| *truncated != 0).collect(),
            tokens: tokens as u64,
            normalized,
        };
        let mut made = Self::new(vectors, request.form());
        made.hits = from_cache.iter().filter(|hit| **hit != 0).count();
        made
    }

    /// Tokens of all texts.
    #[napi(getter, catch_unwind)]
    pub fn tokens(&self) -> f64 {
        self.tokens as f64
    }

    /// Number of texts.
    #[napi(getter, catch_unwind)]
    pub fn rows(&self) -> u32 {
        self.rows as u32
    }

    /// How many of them were not computed for this call.
    #[napi(getter, catch_unwind)]
    pub fn hits(&self) -> u32 {
        self.hits as u32
    }

    /// How many of them the model did not see whole.
    #[napi(getter, catch_unwind)]
    pub fn truncated(&self) -> u32 {
        self.truncated as u32
    }

    /// The first piece, where it is there already; once.
    #[napi(catch_unwind)]
    pub fn take(&mut self) -> Option<Buffer> {
        self.written.take().map(Buffer::from)
    }

    /// Whether all of it is written.
    #[napi(getter, catch_unwind)]
    pub fn over(&self) -> bool {
        lock(&self.response).is_over()
    }

    /// The next piece, written on another thread.
    #[napi(catch_unwind)]
    pub fn next<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, Option<Buffer>>> {
        let response = Arc::clone(&self.response);
        blocking(env, move || Ok(lock(&response).next().map(Buffer::from)))
    }
}
