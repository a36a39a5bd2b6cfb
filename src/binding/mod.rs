//! The addon: JS values → core values, core values → JS values, and nothing else. `lib/native/addon.ts` is its only caller.

// The attribute macros of napi expand to unsafe code.
#![allow(unsafe_code)]

mod answer;
mod batch;
mod cache;
mod call;
mod chunks;
mod coherence;
mod collection;
mod doctor;
mod encoders;
mod files;
mod generator;
mod index;
mod matrix;
mod memory;
mod metrics;
mod models;
mod options;
mod request;
mod results;

use std::panic;
use std::path::PathBuf;
use std::sync::OnceLock;

use napi::bindgen_prelude::{Object, create_custom_tokio_runtime};
use napi_derive::napi;
use serde_json::json;
use tokio::runtime::Builder;

use crate::error::{self, Error};
use crate::host::threads;
use crate::model;
use crate::text::{self, Annotation};

/// Marks messages that carry a whole error; `lib/call/errors.ts` reads them. Any other message is a defect or a panic.
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

/// Whether the threads could be had that a runtime needs, when the addon was loaded.
static THREADS: OnceLock<error::Result<()>> = OnceLock::new();

/// A panic is caught where it would reach Node.js, and told as an error; a library prints nothing by itself. The hook is
/// that of this addon alone, on all of its threads: each addon has a standard library of its own.
#[napi_derive::module_init]
fn print_nothing() {
    panic::set_hook(Box::new(|_| {}));
}

/// Looks for threads, and makes the runtime that Node.js is about to start, which would end the process if it could have
/// none. Not while the addon is loaded: the loader holds a lock then that threads need in order to end.
#[napi(module_exports)]
pub fn begin(_exports: Object) -> napi::Result<()> {
    let mut first = false;
    let enough = THREADS.get_or_init(|| {
        first = true;
        threads::enough()
    });
    if !first {
        return Ok(());
    }
    let build = || {
        let mut builder = if enough.is_ok() { Builder::new_multi_thread() } else { Builder::new_current_thread() };
        builder.enable_all().build()
    };
    if let Ok(Ok(runtime)) = panic::catch_unwind(build) {
        create_custom_tokio_runtime(runtime);
    }
    Ok(())
}

/// Refuses to go on where there are too few threads; called before all else.
#[napi(catch_unwind)]
pub fn check_threads() -> napi::Result<()> {
    THREADS.get_or_init(threads::enough).clone().map_err(to_js)
}

/// The version that this addon was built as; `lib/native/platform.ts` compares it with its own.
#[napi(catch_unwind)]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Says where the addon lies, so that the libraries beside it are found, where the built-in model, and where the packages
/// with OpenVINO and with WebGPU, if they are installed.
#[napi(catch_unwind)]
pub fn set_directories(addon: String, builtin_model: String, openvino: Option<String>, webgpu: Option<String>) {
    model::set_addon_directory(PathBuf::from(addon));
    model::set_builtin_directory(PathBuf::from(builtin_model));
    model::set_package_directories(openvino.map(PathBuf::from), webgpu.map(PathBuf::from));
}

/// For a process that is about to exit with a status, see `model::close` and `model::exit_if_busy`.
#[napi(catch_unwind)]
pub fn close_runtime(code: i32) {
    model::close();
    model::exit_if_busy(code);
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
