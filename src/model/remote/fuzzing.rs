//! What other servers of models answer: what `fuzz/` calls.

use serde_json::Value;

use super::{Kind, Server, api};
use crate::model::ModelOptions;

pub fn answer(kind: u8, bytes: &[u8], texts: usize) {
    let kind = [Kind::Tei, Kind::Ollama, Kind::OpenAi][kind as usize % 3];
    if let Ok(vectors) = api::vectors(kind, bytes, texts) {
        assert_eq!(vectors.values.len(), vectors.width * texts);
        assert!(vectors.values.iter().all(|value| value.is_finite()));
    }
    if let Ok(told) = serde_json::from_slice::<Value>(bytes) {
        api::shown_by_ollama(&told);
        api::digest_by_ollama(&told, "m");
        api::told_by_tei(&told);
    }
}

pub fn name(text: &str) {
    Server::named(text, &ModelOptions::default()).ok();
}
