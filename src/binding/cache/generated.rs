//! What generators have put into a cache, for those who have no generator: a queue's producer, who reads what workers have
//! computed on other machines, and workers, whose generator may have another cache.

use std::sync::Arc;

use napi::bindgen_prelude::{Float32Array, Float64Array, PromiseRaw, Uint8Array, Uint32Array};
use napi::{Env, Result};
use napi_derive::napi;
use serde_json::json;

use super::{NativeCache, blocking, to_js};
use crate::cancel::Cancel;
use crate::embedding::{Fingerprint, InputType, Key, Modality, Task, Value};
use crate::error::Error;
use crate::generator::{About, Kept, Known, ModelCache, Remembered, Shape, Values};
use crate::text::Annotation;

/// What a text needs beside itself to be found.
#[napi(object)]
pub struct NativeModelKey {
    /// Of the model: 64 hexadecimal digits.
    pub fingerprint: String,
    /// Length of its vectors.
    pub dimensions: u32,
    /// Whether the texts are words of a search, not what is found.
    pub query: bool,
}

impl NativeCache {
    fn model_cache(&self, model: &NativeModelKey) -> Result<ModelCache> {
        let fingerprint = Fingerprint::parse(&model.fingerprint).ok_or_else(|| {
            to_js(Error::InvalidArgument(format!(
                "The fingerprint {:?} is not 64 hexadecimal digits: pass that of getModelInfo()",
                model.fingerprint
            )))
        })?;
        let (cache, within) = self.shared();
        let shape = Shape { task: Task::Embedding, dimensions: model.dimensions as usize };
        Ok(ModelCache::new(cache, &within, &fingerprint, Modality::Text, shape))
    }
}

fn keys(cache: &ModelCache, texts: &[String], query: bool) -> Vec<Key> {
    cache.keys(texts, if query { InputType::Query } else { InputType::Document })
}

/// What a generator has kept for an annotation.
#[napi]
pub struct NativeRemembered {
    inner: Remembered,
}

#[napi]
impl NativeRemembered {
    /// The vector.
    #[napi(catch_unwind)]
    pub fn vector(&self) -> Float32Array {
        self.inner.known.value.get().into_owned().into()
    }

    /// What is said of it, as JSON: the fields of a result.
    #[napi(catch_unwind)]
    pub fn about(&self) -> String {
        let Remembered { known, prepared, model_id } = &self.inner;
        let About { token_count, truncated, confidence } = known.about;
        let mut about = json!({ "inputText": prepared.text, "modelUsed": model_id });
        // Where nobody counts tokens, nothing is known of them; but that something was cut off before is.
        if token_count > 0 {
            about["confidence"] = confidence.into();
            about["tokenCount"] = token_count.into();
        }
        if token_count > 0 || prepared.cut {
            about["truncated"] = (truncated || prepared.cut).into();
        }
        about.to_string()
    }
}

fn annotation(node_id: String, signature: String, summary: String, source_snippet: String) -> Annotation {
    Annotation { node_id, signature, summary, source_snippet }
}

/// Vectors of texts, in their order.
#[napi]
pub struct NativeGenerated {
    dimensions: usize,
    found: Vec<Option<Known>>,
}

#[napi]
impl NativeGenerated {
    /// 1 for each that is there.
    #[napi(catch_unwind)]
    pub fn hits(&self) -> Uint8Array {
        self.found.iter().map(|known| u8::from(known.is_some())).collect::<Vec<u8>>().into()
    }

    /// All vectors, one after the other; zeros where there is none.
    #[napi(catch_unwind)]
    pub fn data(&self) -> Float32Array {
        let mut data = Vec::with_capacity(self.found.len() * self.dimensions);
        for known in &self.found {
            match known {
                Some(known) => data.extend_from_slice(&known.value.get()),
                None => data.resize(data.len() + self.dimensions, 0.0),
            }
        }
        data.into()
    }

    /// Tokens of each.
    #[napi(catch_unwind)]
    pub fn token_counts(&self) -> Uint32Array {
        self.each(|about| u32::try_from(about.token_count).unwrap_or(u32::MAX)).into()
    }

    /// 1 for each that the model did not see whole.
    #[napi(catch_unwind)]
    pub fn truncated(&self) -> Uint8Array {
        self.each(|about| u8::from(about.truncated)).into()
    }

    /// What the model saw and knew of each, 0–1.
    #[napi(catch_unwind)]
    pub fn confidences(&self) -> Float64Array {
        self.each(|about| about.confidence).into()
    }

    fn each<T: Default>(&self, value: impl Fn(&About) -> T) -> Vec<T> {
        self.found.iter().map(|known| known.as_ref().map_or_else(T::default, |known| value(&known.about))).collect()
    }
}

#[napi]
impl NativeCache {
    /// Whether it was given to a generator that has had a model.
    #[napi(catch_unwind)]
    pub fn serves_generators(&self) -> bool {
        self.generators.has_models()
    }

    /// Whether a generator has kept a vector for an annotation.
    #[napi(catch_unwind)]
    pub fn remembers<'env>(
        &self,
        env: &'env Env,
        node_id: String,
        signature: String,
        summary: String,
        source_snippet: String,
    ) -> Result<PromiseRaw<'env, bool>> {
        let generators = self.of_generators();
        let annotation = annotation(node_id, signature, summary, source_snippet);
        blocking(env, move || Ok(generators.holds(&annotation)))
    }

    /// What a generator has kept for an annotation.
    #[napi(catch_unwind)]
    pub fn remembered<'env>(
        &self,
        env: &'env Env,
        node_id: String,
        signature: String,
        summary: String,
        source_snippet: String,
    ) -> Result<PromiseRaw<'env, Option<NativeRemembered>>> {
        let generators = self.of_generators();
        let annotation = annotation(node_id, signature, summary, source_snippet);
        blocking(env, move || {
            let found = generators.recall(&annotation).map_err(to_js)?;
            Ok(found.map(|inner| NativeRemembered { inner }))
        })
    }

    /// Deletes what generators have kept for an annotation. See `delete`.
    #[napi(catch_unwind)]
    pub fn forget<'env>(
        &self,
        env: &'env Env,
        node_id: String,
        signature: String,
        summary: String,
        source_snippet: String,
    ) -> Result<PromiseRaw<'env, bool>> {
        let keys = self.generators.keys_of(&annotation(node_id, signature, summary, source_snippet));
        let (cache, _) = self.shared();
        let deletions: Vec<_> = keys.into_iter().map(|key| cache.begin_delete(key)).collect();
        blocking(env, move || {
            let mut count = 0;
            for deletion in deletions {
                count += cache.resolve(deletion).map_err(to_js)?;
            }
            Ok(count > 0)
        })
    }

    /// What is known of `texts`, as they are embedded.
    #[napi(catch_unwind)]
    pub fn generated<'env>(
        &self,
        env: &'env Env,
        model: NativeModelKey,
        texts: Vec<String>,
    ) -> Result<PromiseRaw<'env, NativeGenerated>> {
        let cache = self.model_cache(&model)?;
        blocking(env, move || {
            let found = cache.recall(&keys(&cache, &texts, model.query), &Cancel::default()).map_err(to_js)?;
            Ok(NativeGenerated { dimensions: model.dimensions as usize, found })
        })
    }

    /// Keeps vectors of `texts` as a generator with this fingerprint would. The arrays have a value for each text, `data` a
    /// vector.
    #[napi(catch_unwind)]
    #[allow(clippy::too_many_arguments)]
    pub fn keep_generated<'env>(
        &self,
        env: &'env Env,
        model: NativeModelKey,
        texts: Vec<String>,
        data: Float32Array,
        token_counts: Uint32Array,
        truncated: Uint8Array,
        confidences: Float64Array,
    ) -> Result<PromiseRaw<'env, ()>> {
        let cache = self.model_cache(&model)?;
        // Copied now: the arrays are the caller's.
        let values = Value::dense(&data, model.dimensions as usize);
        let abouts = token_counts.iter().zip(truncated.iter()).zip(confidences.iter());
        let abouts = abouts.map(|((&token_count, &truncated), &confidence)| About {
            token_count: token_count as usize,
            truncated: truncated != 0,
            confidence,
        });
        let known = values
            .into_iter()
            .zip(abouts)
            .map(|(value, about)| Arc::new(Known { value: Values::Computed(value), about }));
        let known: Vec<Arc<Known>> = known.collect();
        blocking(env, move || {
            let keys = keys(&cache, &texts, model.query);
            let kept = keys.into_iter().zip(known).zip(texts).map(|((key, known), name)| Kept { key, known, name });
            cache.keep(&kept.collect::<Vec<_>>()).map_err(to_js)
        })
    }
}
