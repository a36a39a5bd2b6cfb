//! **embedcore** makes embeddings: texts in, vectors out, through ONNX Runtime.
//!
//! One door, one direction. A call runs down this list and every stage does one thing:
//!
//! | stage | what it does |
//! |---|---|
//! | [`text`] | annotation → the text that is embedded |
//! | [`cache`] | what was computed before, in memory and on disk |
//! | [`tokens`] | text → token ids, truncation reported |
//! | [`batch`] | which texts run together: sorted by length, within a token budget; which size is fastest |
//! | [`scheduler`] | who computes next: a few threads that serve all calls in turn |
//! | [`model`] | tokens → vectors; where weights come from |
//!
//! [`index`] lies above the generator and uses it like any caller: a source tree in, answers to searches out.
//!
//! So does [`results`] above the cache: whatever an expensive call has answered, by what it was asked.
//!
//! [`coherence`] measures answers by scores of their steps, [`matrix`] compares and groups vectors, and [`max_sim`] compares
//! documents by the vectors of their tokens; they need nothing of the above.
//!
//! [`collection`] keeps texts and vectors until somebody deletes them; it shares [`sqlite`] with the index, and the quantised
//! search of [`matrix`] with the cache.
//!
//! [`chunks`] splits what is too long for a model, source code by what [`syntax`] tells of it.
//!
//! What [`server`] reads comes in over HTTP, and what it writes goes out; what [`files`] reads and writes lies on disk.
//!
//! [`generator`] conducts and is the only module that names every stage; stages do not name each other. Below them lie
//! the values that flow ([`embedding`]), [`error`], [`cancel`] and [`host`]. [`memory`] chooses how much is processed at
//! once, for a caller's own function; [`metrics`] counts and times whatever its users name. On top lies the binding that
//! shows all of it to Node.js, behind the feature `napi`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod batch;
#[cfg(feature = "napi")]
mod binding;
pub mod cache;
pub mod cancel;
pub mod chunks;
pub mod coherence;
pub mod collection;
pub mod embedding;
pub mod error;
pub mod files;
pub mod generator;
pub mod host;
pub mod images;
pub mod index;
pub mod matrix;
pub mod max_sim;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod results;
pub mod scheduler;
pub mod server;
pub mod sqlite;
pub mod sync;
pub mod syntax;
pub mod text;
pub mod tokens;
