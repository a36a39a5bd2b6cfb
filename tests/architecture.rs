//! The house holds: imports go down only, stages do not know each other.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What each module may use. A module that is not listed here may not exist.
const MAY_USE: [(&str, &[&str]); 28] = [
    ("error", &[]),
    ("files", &[]),
    ("sync", &[]),
    ("host", &["error", "sync"]),
    ("images", &["error"]),
    // What a model reads may be an image.
    ("embedding", &["images"]),
    ("cancel", &["error", "sync"]),
    ("coherence", &["error"]),
    ("max_sim", &["error", "host"]),
    ("server", &[]),
    ("text", &[]),
    ("batch", &["error"]),
    ("tokens", &["embedding", "error"]),
    ("matrix", &["cancel", "error"]),
    ("syntax", &["cancel", "error", "host"]),
    ("sqlite", &["cancel", "error"]),
    ("collection", &["cancel", "error", "matrix", "sqlite"]),
    ("chunks", &["cancel", "error", "syntax"]),
    // Near entries are told by the same exact cosine.
    ("cache", &["embedding", "error", "host", "matrix", "sync"]),
    ("scheduler", &["error", "host", "sync"]),
    ("memory", &["cancel", "error", "host", "sync"]),
    ("metrics", &["error", "host"]),
    // The version of the text preparation is part of an embedding space.
    // How its files say that texts are read.
    ("model", &["batch", "cancel", "embedding", "error", "host", "images", "text", "tokens"]),
    (
        "generator",
        &[
            "batch",
            "cache",
            "cancel",
            "chunks",
            "embedding",
            "error",
            "host",
            "images",
            "scheduler",
            "memory",
            "metrics",
            "model",
            "sync",
            "text",
            "tokens",
        ],
    ),
    ("index", &["cancel", "chunks", "embedding", "error", "generator", "host", "matrix", "sqlite", "syntax", "text"]),
    // Lies above the cache, as `index` does above the generator, and shares all of it with the embeddings.
    ("results", &["cache", "embedding", "error"]),
    (
        "binding",
        &[
            "batch",
            "cache",
            "cancel",
            "chunks",
            "coherence",
            "collection",
            "embedding",
            "error",
            "files",
            "generator",
            "host",
            "images",
            "index",
            "matrix",
            "max_sim",
            "memory",
            "metrics",
            "model",
            "results",
            "server",
            "text",
        ],
    ),
    ("lib", &[]),
];

/// External crates that only one place may name.
const ONLY_IN: [(&str, &[&str]); 18] = [
    ("ort::", &["model/onnx/mod.rs", "model/onnx/operators.rs", "model/onnx/providers.rs", "model/onnx/runtime.rs"]),
    ("libloading::", &["model/openvino/api.rs"]),
    (
        "napi",
        &[
            "binding/answer.rs",
            "binding/batch.rs",
            "binding/cache/found.rs",
            "binding/cache/generated.rs",
            "binding/cache/mod.rs",
            "binding/cache/strings.rs",
            "binding/call.rs",
            "binding/chunks.rs",
            "binding/coherence.rs",
            "binding/doctor.rs",
            "binding/collection.rs",
            "binding/encoders.rs",
            "binding/files.rs",
            "binding/generator.rs",
            "binding/index.rs",
            "binding/matrix.rs",
            "binding/memory.rs",
            "binding/metrics.rs",
            "binding/mod.rs",
            "binding/models.rs",
            "binding/request.rs",
            "binding/results.rs",
            "lib.rs",
        ],
    ),
    ("image::", &["images/decode.rs"]),
    ("hdrhistogram::", &["metrics/distribution.rs"]),
    ("minijinja", &["tokens/chat.rs"]),
    ("tokenizers::", &["tokens/mod.rs", "tokens/pair.rs", "tokens/wordpiece.rs"]),
    (
        "rusqlite::",
        &[
            "cache/fuzzing.rs",
            "cache/store/batch.rs",
            "cache/store/file.rs",
            "cache/store/mod.rs",
            "cache/store/row.rs",
            "collection/store/mod.rs",
            "collection/store/records.rs",
            "index/store/mod.rs",
            "index/store/rows.rs",
            "sqlite.rs",
        ],
    ),
    (
        "tree_sitter",
        &[
            "index/outline/mod.rs",
            "index/outline/declarator.rs",
            "index/outline/declared.rs",
            "index/outline/leading.rs",
            "syntax/language.rs",
            "syntax/mend.rs",
            "syntax/mod.rs",
            "syntax/packed.rs",
            "syntax/structure.rs",
        ],
    ),
    ("encoding_rs::", &["index/tree/text.rs"]),
    (
        "redis::",
        &[
            "cache/shared/changes.rs",
            "cache/shared/leases.rs",
            "cache/shared/link.rs",
            "cache/shared/lookups.rs",
            "cache/shared/mod.rs",
            "cache/shared/wire.rs",
            "cache/shared/worker.rs",
        ],
    ),
    ("rustls::", &["cache/shared/wire.rs"]),
    ("ureq::", &["model/http.rs"]),
    ("rustls_native_certs", &["cache/shared/wire.rs", "model/http.rs"]),
    ("shuttle::", &["sync.rs"]),
    ("std::thread", &["cache/disk/mod.rs", "cache/store/file.rs", "host/mod.rs", "host/threads.rs", "sync.rs"]),
    ("sysinfo::", &["host/machine.rs", "host/processor.rs"]),
    (
        "env::",
        &[
            "binding/mod.rs",
            // The names of the system and the processor, no variables.
            "host/machine.rs",
            "host/processor.rs",
            "index/tree/config.rs",
            "model/http.rs",
            "model/hub/mod.rs",
            "model/library.rs",
            // The working directory, no variables.
            "model/mod.rs",
            "model/onnx/runtime.rs",
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

/// What each folder of `lib/` may use. A folder that is not listed here may not exist. `index`: what the package gives, from
/// the file that names it all.
const LIB_MAY_USE: [(&str, &[&str]); 24] = [
    ("call", &[]),
    ("native", &["call"]),
    ("server", &["call"]),
    ("models", &["call", "native"]),
    ("cache", &["call", "native"]),
    ("results", &["cache", "call", "native"]),
    ("batch", &["call", "native"]),
    ("memory", &["batch", "call", "native"]),
    ("matrix", &["call", "native"]),
    ("monitor", &["call", "native"]),
    ("chunks", &["call", "native"]),
    ("collection", &["call", "chunks", "generator", "matrix", "native"]),
    ("generator", &["batch", "cache", "call", "chunks", "matrix", "memory", "models", "monitor", "native"]),
    ("encoders", &["call", "generator", "matrix", "native"]),
    ("search", &["call", "encoders", "generator", "native", "server"]),
    ("dashboard", &["call", "monitor", "native", "server"]),
    ("doctor", &["cache", "call", "generator", "models", "native"]),
    (
        "index",
        &[
            "batch",
            "cache",
            "call",
            "chunks",
            "collection",
            "dashboard",
            "doctor",
            "encoders",
            "generator",
            "matrix",
            "memory",
            "models",
            "monitor",
            "native",
            "results",
            "search",
            "server",
        ],
    ),
    ("interfaces", &["call", "encoders", "generator", "index", "native", "server"]),
    ("parallel", &["call", "index", "monitor", "native"]),
    ("http", &["call", "index", "native", "results", "server"]),
    ("queue", &["cache", "call", "generator", "index", "matrix", "monitor", "native", "parallel"]),
    ("llm", &["call", "http", "index", "monitor", "native", "parallel", "results"]),
    ("coherence", &["call", "http", "index", "llm", "monitor", "native", "parallel", "results"]),
];

#[test]
fn imports_of_the_typescript_go_down_only() {
    let allowed: BTreeMap<&str, &[&str]> = LIB_MAY_USE.into_iter().collect();
    let room = |module: &str| module.split('/').next().unwrap().to_owned();
    let imports = lib_imports();
    for (module, used) in &imports {
        let here = room(module);
        let allowed =
            allowed.get(here.as_str()).unwrap_or_else(|| panic!("lib/{module} is in no folder that is known"));
        for other in used {
            let there = room(other);
            assert!(here == there || allowed.contains(&there.as_str()), "lib/{module} must not import {other}");
        }
    }
    no_circle("lib", &imports);
}

#[test]
fn files_beside_each_other_do_not_use_each_other_in_a_circle() {
    let modules: BTreeMap<String, String> = sources()
        .into_iter()
        .map(|(file, source)| {
            let module = file.trim_end_matches(".rs").trim_end_matches("/mod").to_owned();
            (module, source)
        })
        .collect();
    // The deepest file that a path leads to: what follows it names something inside.
    let file_of = |path: &[String]| {
        (1..=path.len()).rev().map(|depth| path[..depth].join("/")).find(|module| modules.contains_key(module))
    };
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, source) in &modules {
        let here: Vec<String> = module.split('/').map(str::to_owned).collect();
        let code: String =
            source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join(" ");
        for path in paths(&code) {
            let mut steps = path.into_iter().peekable();
            let mut base = match steps.next().as_deref() {
                Some("crate") => Vec::new(),
                Some("super") => here[..here.len() - 1].to_vec(),
                _ => continue,
            };
            while steps.next_if(|step| step == "super").is_some() {
                base.pop();
            }
            base.extend(steps);
            let Some(other) = file_of(&base) else { continue };
            let there: Vec<String> = other.split('/').map(str::to_owned).collect();
            // Of two files in different folders, the folders that lie beside each other count. A folder and what is in it are one.
            let shared = here.iter().zip(&there).take_while(|(a, b)| a == b).count();
            if shared < here.len() && shared < there.len() {
                imports.entry(here[..=shared].join("/")).or_default().insert(there[..=shared].join("/"));
            }
        }
    }
    no_circle("src", &imports);
}

/// The paths that begin with `crate` or `super`, those in braces one by one.
fn paths(code: &str) -> Vec<Vec<String>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            if code[..at].ends_with(|c: char| is_word(c) || c == ':') {
                continue;
            }
            collect_paths(&code[at..], &mut Vec::new(), &mut found);
        }
    }
    found
}

/// Reads one path, or a group of them, and answers how many bytes that were.
fn collect_paths(code: &str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = prefix.len();
    let mut at = 0;
    loop {
        let rest = &code[at..];
        let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if word > 0 {
            prefix.push(rest[..word].to_owned());
            at += word;
            if code[at..].starts_with("::") {
                at += 2;
                continue;
            }
            found.push(prefix.clone());
        } else if rest.starts_with('{') {
            at += 1;
            loop {
                at += code[at..].find(|c: char| !c.is_whitespace() && c != ',').unwrap_or(code.len() - at);
                if at >= code.len() || code[at..].starts_with('}') {
                    at += 1;
                    break;
                }
                let read = collect_paths(&code[at..], prefix, found);
                at += read.max(code[at..].chars().next().map_or(1, char::len_utf8));
            }
        }
        prefix.truncate(depth);
        return at;
    }
}

/// @throws the circle that there is among these imports.
fn no_circle(of: &str, imports: &BTreeMap<String, BTreeSet<String>>) {
    fn visit<'a>(
        module: &'a str,
        imports: &'a BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<String> {
        if done.contains(module) {
            return None;
        }
        if let Some(at) = way.iter().position(|one| *one == module) {
            return Some(format!("{} → {module}", way[at..].join(" → ")));
        }
        way.push(module);
        let circle = imports.get(module).into_iter().flatten().find_map(|other| visit(other, imports, way, done));
        way.pop();
        done.insert(module);
        circle
    }
    let mut done = BTreeSet::new();
    for module in imports.keys() {
        let circle = visit(module, imports, &mut Vec::new(), &mut done);
        assert_eq!(circle, None, "imports in {of}/ go in a circle");
    }
}

/// The files of `lib/` without their endings, and which of them each one imports, types included.
fn lib_imports() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib");
    files_in(&root, |name| (name.ends_with(".ts") || name.ends_with(".mts")) && !name.ends_with(".d.ts"))
        .into_iter()
        .map(|(file, source)| {
            let module = file.trim_end_matches(".ts").trim_end_matches(".mts").trim_end_matches(".m").to_owned();
            let mut used = BTreeSet::new();
            for start in ["from '", "import('", "require('", "import '"] {
                for (at, _) in source.match_indices(start) {
                    let rest = &source[at + start.len()..];
                    let path = &rest[..rest.find('\'').unwrap_or(0)];
                    if !path.starts_with('.') || path.ends_with(".json") {
                        continue;
                    }
                    let mut parts: Vec<&str> = module.split('/').collect();
                    parts.pop();
                    for part in path.split('/') {
                        match part {
                            "." => {}
                            ".." => drop(parts.pop()),
                            name => parts.push(name.trim_end_matches(".mjs").trim_end_matches(".js")),
                        }
                    }
                    used.insert(parts.join("/"));
                }
            }
            (module, used)
        })
        .collect()
}

/// Every source file: its path below `src`, and its text without tests.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let without_tests = |text: String| text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
    let all = files_in(&root, |name| name.ends_with(".rs") && !name.ends_with("/tests.rs"));
    all.into_iter().map(|(name, text)| (name, without_tests(text))).collect()
}

/// The files below a folder whose names are wanted: their paths in it, and their texts.
fn files_in(root: &Path, wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let mut folders = vec![root.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            if path.is_dir() {
                folders.push(path);
            } else if wanted(&name) {
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(files.len() > 10);
    files
}
