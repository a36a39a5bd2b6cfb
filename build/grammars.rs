//! Compiles the grammars without their largest tables, and packs these.
//!
//! Nine tenths of a grammar are two tables of its parser, which pack to a fifteenth: all languages take 6 MB of the addon,
//! and would take 30. So the source of each parser is compiled with both tables left empty, which takes no
//! room in a file, and what belongs into them lies beside it, compressed, for `src/syntax/packed.rs` to fill in when a file
//! in that language is read for the first time. The tables come out of the grammars' crates, compiled for the machine that
//! builds; the sources are those of the same crates.

#![allow(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, slice};

use miniz_oxide::deflate::compress_to_vec;
use serde_json::Value;

type Result<T> = std::result::Result<T, String>;

/// A grammar.
struct Grammar {
    /// Its function is `tree_sitter_NAME`.
    name: &'static str,
    /// Its crate, and where in it the sources lie.
    package: &'static str,
    sources: &'static str,
    /// The same function, in the crate.
    language: unsafe extern "C" fn() -> *const (),
}

macro_rules! grammars {
    ($($name:literal: $package:literal $sources:literal $language:expr,)*) => {
        [$(Grammar { name: $name, package: $package, sources: $sources, language: $language.into_raw() },)*]
    };
}

/// Those that `src/syntax/packed.rs` knows by the same names.
const GRAMMARS: &[Grammar] = &grammars! {
    "bash": "tree-sitter-bash" "src" tree_sitter_bash::LANGUAGE,
    "c": "tree-sitter-c" "src" tree_sitter_c::LANGUAGE,
    "c_sharp": "tree-sitter-c-sharp" "src" tree_sitter_c_sharp::LANGUAGE,
    "cpp": "tree-sitter-cpp" "src" tree_sitter_cpp::LANGUAGE,
    "go": "tree-sitter-go" "src" tree_sitter_go::LANGUAGE,
    "java": "tree-sitter-java" "src" tree_sitter_java::LANGUAGE,
    "kotlin": "tree-sitter-kotlin-ng" "src" tree_sitter_kotlin_ng::LANGUAGE,
    "php": "tree-sitter-php" "php/src" tree_sitter_php::LANGUAGE_PHP,
    "python": "tree-sitter-python" "src" tree_sitter_python::LANGUAGE,
    "ruby": "tree-sitter-ruby" "src" tree_sitter_ruby::LANGUAGE,
    "rust": "tree-sitter-rust" "src" tree_sitter_rust::LANGUAGE,
    "scala": "tree-sitter-scala" "src" tree_sitter_scala::LANGUAGE,
    "swift": "tree-sitter-swift" "src" tree_sitter_swift::LANGUAGE,
    "tsx": "tree-sitter-typescript" "tsx/src" tree_sitter_typescript::LANGUAGE_TSX,
    "typescript": "tree-sitter-typescript" "typescript/src" tree_sitter_typescript::LANGUAGE_TYPESCRIPT,
};

/// The beginning of `TSLanguage` in tree-sitter's `parser.h`: the same in all versions of grammars that are in use.
#[repr(C)]
struct Language {
    version: u32,
    symbols: u32,
    aliases: u32,
    tokens: u32,
    external_tokens: u32,
    states: u32,
    large_states: u32,
    productions: u32,
    fields: u32,
    longest_alias_sequence: u16,
    large: *const u16,
    small: *const u16,
    small_starts: *const u32,
}

const VERSIONS: std::ops::RangeInclusive<u32> = 13..=15;

/// Writes `NAME.tables` for each grammar into `OUT_DIR`, and links the rest of it.
pub fn compile() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let packages = packages()?;
    for grammar in GRAMMARS {
        let directory = packages.iter().find(|(name, _)| name == grammar.package).map(|(_, path)| path);
        let sources =
            directory.ok_or_else(|| format!("cargo does not know {}", grammar.package))?.join(grammar.sources);
        let failed = |reason: String| format!("{}: {reason}", sources.display());
        let (large, small) = tables(grammar).map_err(failed)?;
        let bytes: Vec<u8> = large.iter().chain(small).flat_map(|value| value.to_le_bytes()).collect();
        write(&out.join(format!("{}.tables", grammar.name)), &compress_to_vec(&bytes, 9))?;

        let parser = fs::read_to_string(sources.join("parser.c")).map_err(|error| failed(error.to_string()))?;
        let parser = without_tables(&parser, grammar.name, small.len())
            .ok_or_else(|| failed("the tables of the parser are not where they are expected".to_owned()))?;
        let source = out.join(format!("{}.c", grammar.name));
        write(&source, parser.as_bytes())?;
        let mut build = cc::Build::new();
        // As the grammars' own build does it, but for size: half of the time of reading a file is elsewhere.
        build.std("c11").include(&sources).file(&source).opt_level_str("s").warnings(false).cargo_warnings(false);
        if env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|name| name == "msvc") {
            build.flag("-utf-8");
        }
        let scanner = sources.join("scanner.c");
        if scanner.exists() {
            build.file(scanner);
        }
        build.try_compile(&format!("embedcore_{}", grammar.name)).map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// The crates that are built with this one, and where they lie.
fn packages() -> Result<Vec<(String, PathBuf)>> {
    let cargo = env::var("CARGO").map_err(|error| error.to_string())?;
    let target = env::var("TARGET").map_err(|error| error.to_string())?;
    let metadata = |more: &[&str]| {
        let arguments = ["metadata", "--format-version", "1", "--locked", "--filter-platform", &target];
        let output = Command::new(&cargo).args(arguments).args(more).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice::<Value>(&output.stdout).map_err(|error| error.to_string())
    };
    // All of them are here already, unless one is for another platform only.
    let known = metadata(&["--offline"]).or_else(|_| metadata(&[]))?;
    let text = |package: &Value, field: &str| package[field].as_str().map(str::to_owned);
    let packages = known["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let path = |package: &Value| Some(Path::new(&text(package, "manifest_path")?).parent()?.to_path_buf());
    Ok(packages.iter().filter_map(|package| Some((text(package, "name")?, path(package)?))).collect())
}

/// Both tables of a grammar.
fn tables(grammar: &Grammar) -> Result<(&'static [u16], &'static [u16])> {
    // SAFETY: all versions that are let through have this beginning, and the grammar was made with it: its tables are as
    // long as its counts say, live as long as the program, and are read only.
    unsafe {
        let language = &*(grammar.language)().cast::<Language>();
        if !VERSIONS.contains(&language.version) {
            return Err(format!("its version is {}, not one of {VERSIONS:?}", language.version));
        }
        let large = slice::from_raw_parts(language.large, (language.large_states * language.symbols) as usize);
        // A small state is so many groups: what to do, and the symbols for which.
        let mut length = 0;
        for state in 0..(language.states - language.large_states) as usize {
            let mut at = *language.small_starts.add(state) as usize;
            let groups = *language.small.add(at);
            at += 1;
            for _ in 0..groups {
                at += 2 + *language.small.add(at + 1) as usize;
            }
            length = length.max(at);
        }
        Ok((large, slice::from_raw_parts(language.small, length)))
    }
}

/// The source of a parser with its tables empty, and with a function that tells where they are.
fn without_tables(parser: &str, name: &str, small: usize) -> Option<String> {
    let cut = |source: &str, head: &str| {
        let start = source.find(head)?;
        let end = start + source[start..].find("\n};")? + "\n};".len();
        Some((source[..start].to_owned(), source[end..].to_owned()))
    };
    let (before, rest) = cut(parser, "static const uint16_t ts_parse_table[LARGE_STATE_COUNT][SYMBOL_COUNT] = {")?;
    let (between, after) = cut(&rest, "static const uint16_t ts_small_parse_table[] = {")?;
    Some(format!(
        "{before}
static struct {{
  uint16_t large[LARGE_STATE_COUNT][SYMBOL_COUNT];
  uint16_t small[{small}];
}} embedcore_tables;
#define ts_parse_table embedcore_tables.large
#define ts_small_parse_table embedcore_tables.small
{between}{after}
uint16_t *embedcore_tables_of_{name}(size_t *length) {{
  *length = sizeof embedcore_tables / sizeof(uint16_t);
  return (uint16_t *)&embedcore_tables;
}}
"
    ))
}
