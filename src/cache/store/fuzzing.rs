//! See `src/cache/fuzzing.rs`.

pub use super::row::{Checked, Row, decode, encode, find};
