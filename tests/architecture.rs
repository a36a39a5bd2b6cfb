//! The house holds: imports go down only, stages do not know each other.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What each module may use. A module that is not listed here may not exist.
const MAY_USE: [(&str, &[&str]); 20] = [
    ("error", &[]),
    ("files", &[]),
    ("host", &["error"]),
    ("embedding", &[]),
    ("cancel", &["error"]),
    ("request", &[]),
    ("answer", &[]),
    ("text", &[]),
    ("batch", &["error"]),
    ("tokens", &["embedding", "error"]),
    ("cache", &["embedding", "error", "host"]),
    ("lanes", &["error", "host"]),
    ("memory", &["cancel", "error", "host"]),
    ("metrics", &["error", "host"]),
    // The version of the text preparation is part of an embedding space.
    ("model", &["cancel", "embedding", "error", "host", "text"]),
    (
        "generator",
        &[
            "batch",
            "cache",
            "cancel",
            "embedding",
            "error",
            "host",
            "lanes",
            "memory",
            "metrics",
            "model",
            "text",
            "tokens",
        ],
    ),
    ("index", &["cancel", "embedding", "error", "generator", "host", "text"]),
    // Lies above the cache, as `index` does above the generator, and shares all of it with the embeddings.
    ("results", &["cache", "embedding", "error"]),
    (
        "binding",
        &[
            "answer",
            "batch",
            "cache",
            "cancel",
            "embedding",
            "error",
            "files",
            "generator",
            "host",
            "index",
            "memory",
            "metrics",
            "model",
            "request",
            "results",
            "text",
        ],
    ),
    ("lib", &[]),
];

/// External crates that only one place may name.
const ONLY_IN: [(&str, &[&str]); 12] = [
    ("ort::", &["model/onnx.rs"]),
    (
        "napi",
        &[
            "binding/answer.rs",
            "binding/batch.rs",
            "binding/cache/found.rs",
            "binding/cache/mod.rs",
            "binding/cache/strings.rs",
            "binding/files.rs",
            "binding/generator.rs",
            "binding/index.rs",
            "binding/memory.rs",
            "binding/metrics.rs",
            "binding/mod.rs",
            "binding/models.rs",
            "binding/request.rs",
            "binding/results.rs",
            "lib.rs",
        ],
    ),
    ("hdrhistogram::", &["metrics/distribution.rs"]),
    ("tokenizers::", &["tokens.rs"]),
    (
        "rusqlite::",
        &[
            "cache/store/batch.rs",
            "cache/store/file.rs",
            "cache/store/mod.rs",
            "cache/store/row.rs",
            "index/store.rs",
            "index/store/file.rs",
        ],
    ),
    (
        "tree_sitter",
        &[
            "index/outline.rs",
            "index/outline/declared.rs",
            "index/outline/language.rs",
            "index/outline/leading.rs",
            "index/outline/tests.rs",
        ],
    ),
    ("encoding_rs::", &["index/tree/text.rs"]),
    ("ureq::", &["model/http.rs"]),
    ("rustls_native_certs", &["model/http.rs"]),
    ("std::thread", &["cache/disk/mod.rs", "cache/store/file.rs", "host.rs", "host/threads.rs"]),
    ("sysinfo::", &["host/machine.rs"]),
    (
        "env::",
        &[
            "binding/mod.rs",
            // The names of the system and the processor, no variables.
            "host/machine.rs",
            "index/tree/git.rs",
            "model/http.rs",
            "model/hub/mod.rs",
            "model/library.rs",
            // The working directory, no variables.
            "model/mod.rs",
            "model/onnx.rs",
        ],
    ),
];

#[test]
fn imports_go_down_only() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.into_iter().collect();
    for (file, source) in sources() {
        let module = file.split(['/', '.']).next().unwrap().to_owned();
        let used: BTreeSet<String> = source
            .split("crate::")
            .skip(1)
            .flat_map(|rest| {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                let name = &rest[..end];
                (name != module && !name.is_empty()).then(|| name.to_owned())
            })
            .collect();
        let allowed = allowed.get(module.as_str()).unwrap_or_else(|| panic!("src/{file} is no room of the house"));
        for name in used {
            assert!(allowed.contains(&name.as_str()), "src/{file} must not use crate::{name}");
        }
    }
}

#[test]
fn libraries_stay_behind_their_module() {
    for (file, source) in sources() {
        let code: String =
            source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        for (name, places) in ONLY_IN {
            let named = code
                .match_indices(name)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            assert!(!named || places.contains(&file.as_str()), "src/{file} must not name {name}");
        }
    }
}

/// Every source file: its path below `src`, and its text without tests.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
                let text = fs::read_to_string(&path).unwrap();
                files.push((name, text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned()));
            }
        }
    }
    assert!(files.len() > 10);
    files
}
