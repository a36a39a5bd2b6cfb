//! A call without a model, as one of several processes with one file makes it: for `tests/model/`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use super::CallOptions;
use super::answer::Answer;
use super::call::Call;
use super::contents::{Contents, Names};
use super::leases::{Leases, Watch, holding};
use super::model_cache::{About, Known, ModelCache, Shape, Values};
use super::stage_metrics::StageMetrics;
use crate::batch::optimizer::OptimizerOptions;
use crate::cache::EmbeddingCache;
use crate::cancel::Cancel;
use crate::embedding::{Fingerprint, InputType, Modality, Space, Task, Value};
use crate::error::Result;

/// One of several processes.
pub struct Process {
    model_cache: Arc<ModelCache>,
    stage_metrics: Arc<StageMetrics>,
}

impl Process {
    pub fn new(cache: Arc<EmbeddingCache>) -> Self {
        let shape = Shape { task: Task::Embedding, dimensions: 1 };
        let fingerprint = Fingerprint::builder().finish();
        Self {
            model_cache: Arc::new(ModelCache::new(
                cache,
                &Space::builder().finish(),
                &fingerprint,
                Modality::Text,
                shape,
            )),
            stage_metrics: Arc::new(StageMetrics::new(None, OptimizerOptions::default())),
        }
    }

    /// The vectors of texts, one number each, which `compute` makes where nobody else does.
    pub async fn call(&self, texts: &[&str], cancel: &Cancel, compute: impl AsyncFn(&str) -> f32) -> Result<Vec<f32>> {
        let model_cache = &self.model_cache;
        let contents = Contents::Texts(texts.iter().map(|text| (*text).to_owned()).collect());
        let options = CallOptions::default();
        let (distinct, keys) = contents.distinct(Some(model_cache), InputType::Document);
        let call = Call {
            contents: Arc::new(contents),
            names: Names::Texts,
            distinct: &distinct,
            cancel: cancel.clone(),
            options: &options,
            keys,
            model_cache: Some(Arc::clone(model_cache)),
            stage_metrics: &self.stage_metrics,
            busy: Arc::new(Arc::new(tokio::sync::RwLock::new(())).try_read_owned().unwrap()),
        };
        let cut = vec![false; texts.len()];
        let shape = Shape { task: Task::Embedding, dimensions: 1 };
        let mut answer = Answer::new(shape, &distinct, &cut, None)?;
        let mut open: Vec<usize> = (0..distinct.first.len()).collect();
        while !open.is_empty() {
            let (mut theirs, waits) = call.recall(open, &mut answer).await?;
            // As `Engine::compute_once` does, and then `Engine::compute`, a text at a time.
            let mut leases = Leases::new(model_cache);
            let mut mine = call.lease(&mut theirs, &mut leases, &mut Watch::new(model_cache), &mut answer).await?;
            loop {
                for (slot, leader) in std::mem::take(&mut mine) {
                    let work = compute(texts[distinct.first[slot]]);
                    let number = cancel.or_else(holding(&mut Some(&mut leases), work)).await??;
                    let value = Values::Computed(Value::Dense(vec![number]));
                    let known = Arc::new(Known { value, about: About::default() });
                    answer.commit(slot, &known, 0.0, false);
                    call.keep(vec![(slot, leader, known)], &[slot], &mut Some(&mut leases)).await?;
                }
                if theirs.is_empty() {
                    break;
                }
                mine = call.watch(&mut theirs, &mut leases, &mut Watch::new(model_cache), &mut answer).await?;
            }
            open = call.wait(waits, &mut answer).await?;
        }
        let embedded = answer.finish(Vec::new(), String::new())?;
        Ok((0..texts.len()).map(|index| embedded.matrix.row(index)[0]).collect())
    }

    /// Whether the leases on texts are free.
    pub fn are_free(&self, texts: &[&str]) -> bool {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let keys = self.model_cache.keys(&texts, InputType::Document);
        let free = self.model_cache.lease(&keys, std::time::Duration::from_secs(3)).iter().all(|granted| *granted);
        self.model_cache.release(keys);
        free
    }
}
