//! The batches of one call, as the lanes run them.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::memo::{About, Known};
use crate::cancel::Cancel;
use crate::embedding::Tokens;
use crate::lanes::Work;
use crate::model::Model;

/// One text that a batch is done with.
pub(super) struct Row {
    pub slot: usize,
    pub ms: f64,
    pub known: Result<Known, String>,
}

/// The batches of one call, run by the lanes.
pub(super) struct Batches {
    pub model: Arc<dyn Model>,
    pub slots: Vec<usize>,
    pub tokens: Vec<Tokens>,
    pub batches: Vec<Vec<usize>>,
    pub cancel: Cancel,
    pub finished: mpsc::UnboundedSender<Vec<Row>>,
}

impl Work for Batches {
    fn run(&self, unit: usize) {
        if self.cancel.check().is_ok() {
            // Nobody listens any more when the call was dropped; then it is cancelled, too.
            self.finished.send(self.run_rows(&self.batches[unit])).ok();
        }
    }
}

impl Batches {
    fn run_rows(&self, rows: &[usize]) -> Vec<Row> {
        let batch: Vec<&Tokens> = rows.iter().map(|&row| &self.tokens[row]).collect();
        let started = Instant::now();
        let vectors = self.model.run(&batch, &self.cancel);
        let ms = started.elapsed().as_secs_f64() * 1e3;
        let total: usize = batch.iter().map(|tokens| tokens.ids.len()).sum();
        match vectors {
            Ok(vectors) => {
                let vectors = vectors.chunks_exact(self.model.info().dimensions);
                let rows = rows.iter().zip(&batch).zip(vectors);
                rows.map(|((&row, tokens), vector)| Row {
                    slot: self.slots[row],
                    ms: ms * tokens.ids.len() as f64 / total as f64,
                    known: finite(vector).map(|vector| Known { vector, about: about(tokens) }),
                })
                .collect()
            }
            // One unusable text must not take its neighbours with it.
            Err(_) if rows.len() > 1 && self.cancel.check().is_ok() => {
                rows.iter().flat_map(|&row| self.run_rows(&[row])).collect()
            }
            Err(reason) => {
                rows.iter().map(|&row| Row { slot: self.slots[row], ms: 0.0, known: Err(reason.clone()) }).collect()
            }
        }
    }
}

fn about(tokens: &Tokens) -> About {
    About { token_count: tokens.total, truncated: tokens.truncated(), confidence: tokens.confidence() }
}

fn finite(vector: &[f32]) -> Result<Vec<f32>, String> {
    match vector.iter().position(|value| !value.is_finite()) {
        None => Ok(vector.to_vec()),
        Some(at) => Err(format!("the model gave {} at position {at} of its vector", vector[at])),
    }
}
