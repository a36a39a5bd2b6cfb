//! What the server of the shared tier says: what `fuzz/` calls.

use super::super::selection::Selection;
use super::changes;
use super::value::{self, LABELLED, Read, Times};
use crate::embedding::Key;

/// A value that is kept under a key.
pub fn value(bytes: &[u8]) {
    let times = Times { wall_ms: 1_000_000, server_ms: 999_000 };
    if let Read::Entry(entry) = value::decode(&Key::from([7; 32]), bytes, times) {
        assert!(entry.payload_bytes() <= bytes.len());
    }
    value::covers(&Selection::default(), &bytes[..bytes.len().min(LABELLED)], times);
}

/// What another machine tells.
pub fn change(bytes: &[u8]) {
    changes::decode("somebody", bytes);
    if let Some(selection) = Selection::from_bytes(bytes) {
        assert_eq!(Selection::from_bytes(&selection.to_bytes()), Some(selection));
    }
}
