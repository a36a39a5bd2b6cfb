//! `maxSim`: many documents in one crossing.

use napi::Result;
use napi::bindgen_prelude::{Env, Float32Array, Float64Array, PromiseRaw};
use napi_derive::napi;

use super::to_js;
use crate::host::threads::blocking;
use crate::max_sim::{TokenVectors, scores};

/// The same at once, on the event loop and other threads.
#[napi(catch_unwind)]
pub fn max_sim_now(
    query: &[f32],
    documents: &[f32],
    ends: &[f64],
    dimensions: u32,
    query_dimensions: u32,
) -> Result<Float32Array> {
    let ends: Vec<usize> = ends.iter().map(|end| *end as usize).collect();
    let query = TokenVectors { data: query, dimensions: query_dimensions as usize };
    let documents = TokenVectors { data: documents, dimensions: dimensions as usize };
    scores(query, documents, &ends).map(Float32Array::new).map_err(to_js)
}

/// See `max_sim::scores`. The arrays are the call's alone until it has ended.
#[napi(catch_unwind)]
pub fn max_sim<'env>(
    env: &'env Env,
    query: Float32Array,
    documents: Float32Array,
    ends: Float64Array,
    dimensions: u32,
    query_dimensions: u32,
) -> Result<PromiseRaw<'env, Float32Array>> {
    let ends: Vec<usize> = ends.iter().map(|end| *end as usize).collect();
    env.spawn_future(async move {
        let compute = move || {
            let query = TokenVectors { data: &query, dimensions: query_dimensions as usize };
            scores(query, TokenVectors { data: &documents, dimensions: dimensions as usize }, &ends)
        };
        let scores = blocking(compute).await.flatten().map_err(to_js)?;
        Ok(Float32Array::new(scores))
    })
}
