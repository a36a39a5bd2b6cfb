//! A model that reads queries in one way and documents in another: what each role has run by.

use std::sync::Arc;

use super::{Model, ModelInfo, RunError};
use crate::batch::Budget;
use crate::cancel::Cancel;
use crate::embedding::{Fingerprint, InputType, Task, Tokens, Value};

/// Two models whose vectors are of one space.
pub(super) struct Routed {
    documents: Arc<dyn Model>,
    queries: Arc<dyn Model>,
    info: ModelInfo,
}

impl Routed {
    /// The two together, which go by what is known of the one for documents.
    ///
    /// # Errors
    /// A reason in plain words, where their vectors have nothing to do with each other.
    pub fn new(documents: Arc<dyn Model>, queries: Arc<dyn Model>) -> Result<Self, String> {
        let (of_documents, of_queries) = (documents.info(), queries.info());
        let [one, other] = [of_documents, of_queries].map(|info| info.dimensions);
        // Which of the vocabulary's last tokens a table leaves out says nothing.
        if one != other && of_documents.task != Task::Sparse {
            return Err(format!("its way for documents gives vectors of {one} values, that for queries of {other}"));
        }
        let fingerprint = Fingerprint::builder()
            .field("documents", of_documents.fingerprint.as_bytes())
            .field("queries", of_queries.fingerprint.as_bytes())
            .finish();
        let info = ModelInfo {
            dimensions: one.max(other),
            batch_invariant: of_documents.batch_invariant && of_queries.batch_invariant,
            fingerprint,
            ..of_documents.clone()
        };
        Ok(Self { documents, queries, info })
    }

    fn of(&self, role: InputType) -> &dyn Model {
        match role {
            InputType::Document => &*self.documents,
            InputType::Query => &*self.queries,
        }
    }

    fn both(&self) -> [&dyn Model; 2] {
        [&*self.documents, &*self.queries]
    }
}

impl Model for Routed {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn run(&self, batch: &[&Tokens], cancel: &Cancel) -> Result<Vec<Value>, RunError> {
        let mut values = Vec::with_capacity(batch.len());
        // Those of a call have one role.
        for part in batch.chunk_by(|one, other| one.input_type == other.input_type) {
            values.extend(self.of(part[0].input_type).run(part, cancel)?);
        }
        Ok(values)
    }

    fn bytes(&self, rows: usize, longest: usize) -> u64 {
        self.both().map(|model| model.bytes(rows, longest)).into_iter().max().unwrap_or_default()
    }

    fn parallel(&self, cores: usize) -> usize {
        self.both().map(|model| model.parallel(cores)).into_iter().min().unwrap_or(1)
    }

    fn most_rows(&self) -> usize {
        self.both().map(|model| model.most_rows()).into_iter().min().unwrap_or(usize::MAX)
    }

    fn most_weight(&self) -> Option<usize> {
        let [one, other] = self.both().map(|model| model.most_weight());
        Some(one?.min(other?))
    }

    fn budget(&self) -> Option<Budget> {
        self.both().into_iter().find_map(|model| model.budget())
    }

    fn shrink(&self) {
        self.both().iter().for_each(|model| model.shrink());
    }
}
