//! The answer of `EmbeddingServer`.

use napi::bindgen_prelude::{Buffer, Float32Array, PromiseRaw, Uint8Array};
use napi::{Env, Result};
use napi_derive::napi;

use super::cache::blocking;
use super::to_js;
use crate::error::Error;
use crate::server::response::Items;

/// Some vectors of an answer, and what stands around them.
#[napi(object, object_to_js = false)]
pub struct NativeItems {
    /// All values, vector by vector.
    pub values: Float32Array,
    /// Values of a vector.
    pub dimensions: u32,
    /// For each vector, whether the model did not see all of its text.
    pub truncated: Uint8Array,
    /// The index of the first one.
    pub first: u32,
    /// Whether vectors are written in base64.
    pub base64: bool,
    /// What comes before.
    pub before: String,
    /// What comes after.
    pub after: String,
}

/// See `Items::write`. At once: for few vectors.
#[napi(catch_unwind)]
pub fn write_items(items: NativeItems) -> Result<Buffer> {
    written(&items)
}

/// The same on another thread.
#[napi(catch_unwind)]
pub fn write_many_items(env: &Env, items: NativeItems) -> Result<PromiseRaw<'_, Buffer>> {
    blocking(env, move || written(&items))
}

fn written(items: &NativeItems) -> Result<Buffer> {
    let NativeItems { values, dimensions, truncated, first, base64, before, after } = items;
    let (dimensions, first) = (*dimensions as usize, *first as usize);
    let items = Items { values, dimensions, truncated, first, base64: *base64 };
    let written = items.write(before, after).map_err(|error| to_js(Error::Internal(error.to_string())))?;
    Ok(written.into())
}
