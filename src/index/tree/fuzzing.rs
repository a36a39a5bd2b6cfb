//! See `src/index/fuzzing.rs`.

use std::path::Path;

use super::config;
use super::git;
use super::rules::Rules;

/// An ignore file, and paths.
pub fn rules(text: &[u8], path: &[u8]) {
    for fold in [false, true] {
        let rules = Rules::parse(text, fold);
        for directory in [false, true] {
            rules.ignore(path, directory);
        }
    }
}

/// A configuration of git.
pub fn settings(text: &[u8]) {
    config::settings(text);
    config::path_in(text);
}

/// The index of a repository.
pub fn git_index(text: &[u8]) {
    for hash in [20, 32] {
        git::entries(text, hash);
    }
    Rules::parse(text, false).ignore(Path::new("a").as_os_str().as_encoded_bytes(), false);
}

/// The text of a source file.
pub fn text(bytes: Vec<u8>) -> Option<(String, Option<&'static str>)> {
    super::text::decode(bytes)
}
