//! Work on many vectors: copied when a call is made, done on other threads, stopped at any time.

use napi::bindgen_prelude::{Float32Array, Int32Array, PromiseRaw, Uint32Array};
use napi::{Env, Result};
use napi_derive::napi;

use super::to_js;
use crate::cancel::Cancel;
use crate::error::{self, Error};
use crate::host::threads::{blocking, in_parallel};
use crate::matrix::{self, KMeansOptions, Matrix};

/// One call.
#[napi]
#[derive(Default)]
pub struct NativeMatrixWork {
    cancel: Cancel,
}

/// Numbers of two kinds.
#[napi(object, object_from_js = false)]
pub struct NativeRows {
    /// Rows; -1 where there is none.
    pub rows: Int32Array,
    /// What belongs to each.
    pub scores: Float32Array,
    /// How many belong together.
    pub places: u32,
}

/// See `Deduplicated`.
#[napi(object, object_from_js = false)]
pub struct NativeDeduplicated {
    /// The rows that are kept.
    pub keep: Uint32Array,
    /// For each row the kept one that it repeats; -1 where it is kept.
    pub duplicate_of: Int32Array,
}

/// See `Clusters`.
#[napi(object, object_from_js = false)]
pub struct NativeClusters {
    /// The cluster of each row.
    pub labels: Uint32Array,
    /// All centroids.
    pub centroids: Float32Array,
    /// The sum of squared distances.
    pub inertia: f64,
    /// Steps.
    pub iterations: u32,
}

impl NativeMatrixWork {
    fn run<'env, T, R>(
        &self,
        env: &'env Env,
        work: impl FnOnce(&Cancel) -> error::Result<T> + Send + 'static,
        shown: impl FnOnce(T) -> R + Send + 'static,
    ) -> Result<PromiseRaw<'env, R>>
    where
        T: Send + 'static,
        R: napi::bindgen_prelude::ToNapiValue + Send + 'static,
    {
        let cancel = self.cancel.clone();
        env.spawn_future(async move {
            let work = {
                let cancel = cancel.clone();
                blocking(move || in_parallel(|| work(&cancel)))
            };
            // Not waited for once it is stopped.
            let done = cancel.or_else(work).await.and_then(|done| done.and_then(|done| done.flatten()));
            done.map(shown).map_err(to_js)
        })
    }
}

fn row(at: Option<u32>) -> i32 {
    at.map_or(-1, |at| at as i32)
}

#[napi]
impl NativeMatrixWork {
    /// Work that has not begun.
    #[napi(constructor, catch_unwind)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the work: its promise is rejected with `ABORTED`.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.cancel.cancel(Error::Aborted);
    }

    /// See `matrix::similarities`.
    #[napi(catch_unwind)]
    pub fn similarities<'env>(
        &self,
        env: &'env Env,
        query: &[f32],
        data: &[f32],
    ) -> Result<PromiseRaw<'env, Float32Array>> {
        let (query, data) = (query.to_vec(), data.to_vec());
        let work = move |cancel: &Cancel| {
            let matrix = Matrix::new("the matrix", &data, query.len())?;
            Matrix::new("the query", &query, query.len())?;
            matrix::similarities(&query, &matrix, cancel)
        };
        self.run(env, work, Into::into)
    }

    /// See `matrix::top_k`.
    #[napi(catch_unwind)]
    pub fn top_k<'env>(
        &self,
        env: &'env Env,
        queries: &[f32],
        data: &[f32],
        dimensions: u32,
        k: u32,
        threshold: f64,
    ) -> Result<PromiseRaw<'env, NativeRows>> {
        let (queries, data, dimensions) = (queries.to_vec(), data.to_vec(), dimensions as usize);
        let work = move |cancel: &Cancel| {
            let queries = Matrix::new("the queries", &queries, dimensions)?;
            let matrix = Matrix::new("the matrix", &data, dimensions)?;
            matrix::top_k(&queries, &matrix, k as usize, threshold as f32, cancel)
        };
        self.run(env, work, |ranked| NativeRows {
            rows: ranked.found.iter().map(|found| row(found.map(|(at, _)| at))).collect::<Vec<_>>().into(),
            scores: ranked
                .found
                .iter()
                .map(|found| found.map_or(f32::NEG_INFINITY, |(_, score)| score))
                .collect::<Vec<_>>()
                .into(),
            places: ranked.places as u32,
        })
    }

    /// See `matrix::pairs`: both rows of each, in turn.
    #[napi(catch_unwind)]
    pub fn pairs<'env>(
        &self,
        env: &'env Env,
        data: &[f32],
        dimensions: u32,
        threshold: f64,
    ) -> Result<PromiseRaw<'env, NativeRows>> {
        let data = data.to_vec();
        let work = move |cancel: &Cancel| {
            matrix::pairs(&Matrix::new("the matrix", &data, dimensions as usize)?, threshold as f32, cancel)
        };
        self.run(env, work, |pairs| NativeRows {
            rows: pairs.iter().flat_map(|pair| [pair.a as i32, pair.b as i32]).collect::<Vec<_>>().into(),
            scores: pairs.iter().map(|pair| pair.score).collect::<Vec<_>>().into(),
            places: 2,
        })
    }

    /// See `matrix::dedupe`.
    #[napi(catch_unwind)]
    pub fn dedupe<'env>(
        &self,
        env: &'env Env,
        data: &[f32],
        dimensions: u32,
        threshold: f64,
    ) -> Result<PromiseRaw<'env, NativeDeduplicated>> {
        let data = data.to_vec();
        let work = move |cancel: &Cancel| {
            matrix::dedupe(&Matrix::new("the matrix", &data, dimensions as usize)?, threshold as f32, cancel)
        };
        self.run(env, work, |found| NativeDeduplicated {
            keep: found.keep.into(),
            duplicate_of: found.duplicate_of.into_iter().map(row).collect::<Vec<_>>().into(),
        })
    }

    /// See `matrix::communities`.
    #[napi(catch_unwind)]
    pub fn communities<'env>(
        &self,
        env: &'env Env,
        data: &[f32],
        dimensions: u32,
        threshold: f64,
        min_size: u32,
    ) -> Result<PromiseRaw<'env, Vec<Uint32Array>>> {
        let data = data.to_vec();
        let work = move |cancel: &Cancel| {
            let matrix = Matrix::new("the matrix", &data, dimensions as usize)?;
            matrix::communities(&matrix, threshold as f32, min_size as usize, cancel)
        };
        self.run(env, work, |found| found.into_iter().map(Into::into).collect())
    }

    /// See `matrix::k_means`; `k` is no more than there are rows.
    #[napi(catch_unwind)]
    pub fn k_means<'env>(
        &self,
        env: &'env Env,
        data: &[f32],
        dimensions: u32,
        k: u32,
        seed: f64,
        max_iterations: u32,
    ) -> Result<PromiseRaw<'env, NativeClusters>> {
        let data = data.to_vec();
        let options = KMeansOptions { seed: seed as u64, max_iterations: max_iterations as usize };
        let work = move |cancel: &Cancel| {
            let matrix = Matrix::new("the matrix", &data, dimensions as usize)?;
            matrix::k_means(&matrix, k as usize, options, cancel)
        };
        self.run(env, work, |found| NativeClusters {
            labels: found.labels.into(),
            centroids: found.centroids.into(),
            inertia: found.inertia,
            iterations: found.iterations as u32,
        })
    }
}
