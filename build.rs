//! Tells the crate which ONNX Runtime it will find beside itself, and which OpenVINO and plugin for WebGPU it may find in packages of
//! their own: `onnxruntime.json`, `openvino.json` and `webgpu.json` pin them for every platform. Compiles the grammars of programming languages.

#[path = "build/grammars.rs"]
mod grammars;

use std::{env, fs, process};

const PINS: &str = "onnxruntime.json";
const PACKAGES: [(&str, &str); 2] = [("openvino.json", "OPENVINO"), ("webgpu.json", "WEBGPU")];

fn main() {
    let packages = PACKAGES.into_iter().map(|(pins, name)| (pins, pin_package(pins, name)));
    for (pins, pinned) in [(PINS, pin_library(PINS))].into_iter().chain(packages) {
        println!("cargo:rerun-if-changed={pins}");
        if let Err(reason) = pinned {
            eprintln!("{pins}: {reason}");
            process::exit(1);
        }
    }
    println!("cargo:rerun-if-changed=build/grammars.rs");
    if let Err(reason) = grammars::compile() {
        eprintln!("{reason}");
        process::exit(1);
    }
    #[cfg(feature = "napi")]
    napi_build::setup();
    fold_identical_code();
}

/// Platforms without a pin build too: their users bring a library of their own.
fn pin_library(pins: &str) -> Result<(), String> {
    let pins = read(pins)?;
    let pin = platform(&pins)?;
    for (name, field) in [("EMBEDCORE_ORT_FILE", "file"), ("EMBEDCORE_ORT_SHA256", "sha256")] {
        println!("cargo:rustc-env={name}={}", pin[field].as_str().unwrap_or_default());
    }
    println!("cargo:rustc-env=EMBEDCORE_ORT_VERSION={}", pins["version"].as_str().unwrap_or_default());
    Ok(())
}

/// The libraries of a package, the one that is loaded first: a line with name and SHA-256 for each. None on other platforms.
fn pin_package(pins: &str, name: &str) -> Result<(), String> {
    let pins = read(pins)?;
    let platform = platform(&pins)?;
    let files = platform["files"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let lines = files.iter().map(|file| format!("{} {}", text(&file["sha256"]), text(&file["file"])));
    println!("cargo:rustc-env=EMBEDCORE_{name}_FILES={}", lines.collect::<Vec<_>>().join(","));
    println!("cargo:rustc-env=EMBEDCORE_{name}_PACKAGE={}", text(&platform["package"]));
    Ok(())
}

fn read(pins: &str) -> Result<serde_json::Value, String> {
    let text = fs::read_to_string(pins).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

/// What is pinned for the platform that is built for.
fn platform(pins: &serde_json::Value) -> Result<serde_json::Value, String> {
    let target = env::var("TARGET").map_err(|error| error.to_string())?;
    Ok(pins["platforms"][&target].clone())
}

/// Functions that came out the same are kept once, where Rust brings a linker that can tell which of them may be.
fn fold_identical_code() {
    let target = env::var("TARGET").unwrap_or_default();
    let profile = env::var("PROFILE").unwrap_or_default();
    if target == "x86_64-unknown-linux-gnu" && profile == "release" {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--icf=safe");
    }
}
