//! The addon: JS values → core values, core values → JS values, and nothing else. `lib/native.ts` is its only caller.

// The attribute macros of napi expand to unsafe code.
#![allow(unsafe_code)]

mod answer;
mod batch;
mod cache;
mod files;
mod generator;
mod index;
mod memory;
mod metrics;
mod models;
mod options;
mod request;
mod results;

use std::path::PathBuf;
use std::{env, panic};

use napi_derive::napi;
use serde_json::json;

use crate::error::Error;
use crate::model;
use crate::text::{self, Annotation};

/// Marks messages that carry a whole error; `lib/errors.ts` reads them. Any other message is a defect or a panic.
const ERROR_MARK: &str = "embedcore:";

/// An error as it crosses to JS: one JSON text, because a rejected promise keeps nothing but its message.
fn to_wire(error: &Error) -> String {
    let error = json!({
        "code": error.code(),
        "message": error.to_string(),
        "retryable": error.retryable(),
        "details": error.details(),
    });
    format!("{ERROR_MARK}{error}")
}

fn to_js(error: Error) -> napi::Error {
    napi::Error::from_reason(to_wire(&error))
}

/// A panic is caught where it would reach Node.js, and told as an error; a library prints nothing by itself. Who sets
/// `RUST_BACKTRACE` wants to see it.
#[napi_derive::module_init]
fn print_nothing() {
    if env::var_os("RUST_BACKTRACE").is_none() {
        panic::set_hook(Box::new(|_| {}));
    }
}

/// The version that this addon was built as; `lib/platform.ts` compares it with its own.
#[napi(catch_unwind)]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Says where the addon lies, so that the libraries beside it are found, and where the built-in model.
#[napi(catch_unwind)]
pub fn set_directories(addon: String, builtin_model: String) {
    model::set_addon_directory(PathBuf::from(addon));
    model::set_builtin_directory(PathBuf::from(builtin_model));
}

/// For a process that is about to exit, see `model::close`.
#[napi(catch_unwind)]
pub fn close_runtime() {
    model::close();
}

/// The text that is embedded for an annotation, for a model that sees `max_tokens` tokens.
#[napi(catch_unwind)]
pub fn prepare_text(
    node_id: String,
    signature: String,
    summary: String,
    source_snippet: String,
    max_tokens: u32,
) -> String {
    let annotation = Annotation { node_id, signature, summary, source_snippet };
    text::prepare(&annotation, (max_tokens as usize).saturating_mul(text::CHARS_PER_TOKEN)).text
}
