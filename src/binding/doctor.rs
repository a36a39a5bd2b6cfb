//! The facts behind `doctor()`: what this machine has. What to make of them is said in `lib/doctor/`.

use napi::bindgen_prelude::PromiseRaw;
use napi::{Env, Result};
use napi_derive::napi;
use serde_json::{Map, Value, json};

use super::cache::blocking;
use super::options;
use crate::host::{self, Machine, ThisMachine};
use crate::model::{self, HubOptions, HubState};

/// Looks at the processor, the memory, ONNX Runtime, and the hub, which it asks for an answer. JSON.
#[napi(catch_unwind)]
pub fn facts(env: &Env, options: Map<String, Value>) -> Result<PromiseRaw<'_, String>> {
    let cache_dir = options::model_store(&options).map_err(super::to_js)?;
    blocking(env, move || Ok(gathered(HubOptions { cache_dir, ..HubOptions::default() }).to_string()))
}

fn gathered(options: HubOptions) -> Value {
    let processor = host::processor();
    let resources = ThisMachine::default().sample();
    let runtime = match model::describe_runtime() {
        Ok(runtime) => json!({
            "library": runtime.library.display().to_string(),
            "version": runtime.version,
            "providers": runtime.providers,
        }),
        Err(error) => json!({ "error": error.to_string() }),
    };
    let hub = match HubState::look(&options) {
        Ok(hub) => json!({
            "endpoint": hub.endpoint,
            "directory": hub.directory.display().to_string(),
            "offline": hub.offline,
            "proxy": hub.proxy,
            "reachable": hub.unreachable.as_ref().map(Option::is_none),
            "error": hub.unreachable.flatten(),
        }),
        Err(error) => json!({ "error": error.to_string() }),
    };
    json!({
        "processor": {
            "name": processor.name,
            "architecture": processor.architecture,
            "instructionSets": processor.instructions,
            "cores": resources.cores,
        },
        "memory": { "totalBytes": resources.memory.total, "availableBytes": resources.memory.available },
        "runtime": runtime,
        "hub": hub,
    })
}
