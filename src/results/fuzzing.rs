//! What the results read that may come from anybody: what `fuzz/` calls.

#![allow(missing_docs)]

use std::sync::Arc;

use super::payload::Stored;
use crate::cache::{Entry, Precision, Vector};

pub fn payload(kind: &str, note: &[u8]) {
    let entry = Entry {
        space: 0,
        kind: kind.into(),
        content: None,
        vector: Vector::pack(&[], Precision::F32),
        note: note.into(),
        created_ms: 0,
        expires_ms: 0,
    };
    if let Some(stored) = Stored::of(Arc::new(entry)) {
        assert_eq!(5 + stored.metadata().len() + stored.value().len(), note.len());
        stored.tags();
        stored.format();
    }
}
