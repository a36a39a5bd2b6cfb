//! Tells the crate which ONNX Runtime it will find beside itself: `onnxruntime.json` pins it for every platform.

use std::{env, fs, process};

const PINS: &str = "onnxruntime.json";

fn main() {
    println!("cargo:rerun-if-changed={PINS}");
    if let Err(reason) = pin_library() {
        eprintln!("{PINS}: {reason}");
        process::exit(1);
    }
    #[cfg(feature = "napi")]
    napi_build::setup();
    fold_identical_code();
}

/// Platforms without a pin build too: their users bring a library of their own.
fn pin_library() -> Result<(), String> {
    let text = fs::read_to_string(PINS).map_err(|error| error.to_string())?;
    let pins: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let target = env::var("TARGET").map_err(|error| error.to_string())?;
    let pin = &pins["platforms"][&target];
    for (name, field) in [("EMBEDCORE_ORT_FILE", "file"), ("EMBEDCORE_ORT_SHA256", "sha256")] {
        println!("cargo:rustc-env={name}={}", pin[field].as_str().unwrap_or_default());
    }
    println!("cargo:rustc-env=EMBEDCORE_ORT_VERSION={}", pins["version"].as_str().unwrap_or_default());
    Ok(())
}

/// Functions that came out the same are kept once, where Rust brings a linker that can tell which of them may be.
fn fold_identical_code() {
    let target = env::var("TARGET").unwrap_or_default();
    let profile = env::var("PROFILE").unwrap_or_default();
    if target == "x86_64-unknown-linux-gnu" && profile == "release" {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--icf=safe");
    }
}
