//! What the index reads that may come from anybody: what `fuzz/` calls.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;

use half::f16;

use super::outline;
use super::store::{Entry, FileRecord, MadeWith, Store, StoredFile};
use super::tree;
use crate::cancel::Cancel;
use crate::chunks::{self, Characters, Document, Format, SplitOptions};

pub use super::tree::fuzzing::{git_index, rules, settings};

const FILES: usize = 12;

fn made_with() -> MadeWith {
    MadeWith { model_id: "m".to_owned(), fingerprint: "f".to_owned(), dimensions: 4 }
}

fn entry(n: usize) -> Entry {
    let name = format!("name{n}");
    Entry {
        kind: "function".into(),
        signature: name.clone(),
        name,
        line: n,
        end_line: n + 1,
        summary: "it is".repeat(n),
    }
}

fn state(n: usize) -> StoredFile {
    let mut state = StoredFile::default();
    (state.count, state.hash) = (1, [n as u8; 32]);
    state
}

/// Writes an index at `path`.
pub fn write(path: &Path) {
    let mut store = Store::open(path, &made_with(), None, false, &Cancel::default()).unwrap();
    let records: Vec<FileRecord> = (0..FILES)
        .map(|n| FileRecord {
            path: format!("src/{n}.rs"),
            before: None,
            state: state(n),
            entries: vec![entry(n)],
            keys: vec![[n as u8; 16]],
            vectors: vec![f16::from_f32(n as f32); 4],
            bags: vec![n as u8; 9],
        })
        .collect();
    store.put(&records).unwrap();
}

/// Reads one that was damaged since: what it says is what was written, or it says that it is damaged.
pub fn read(path: &Path) {
    let cancel = Cancel::default();
    let Ok(store) = Store::open(path, &made_with(), None, false, &cancel) else {
        Store::open(path, &made_with(), None, true, &cancel).unwrap();
        return;
    };
    let Ok(files) = store.files() else { return };
    let whole = files.len();
    assert!(whole == FILES || whole == 0, "{whole} files of {FILES}");
    for (path, file) in &files {
        let n: usize = path.strip_prefix("src/").and_then(|rest| rest.strip_suffix(".rs")).unwrap().parse().unwrap();
        assert_eq!(file.hash, [n as u8; 32]);
    }
    if let Ok(vectors) = store.vectors_of(files.values()) {
        for (key, vector) in vectors {
            assert_eq!(vector, vec![f16::from_f32(f32::from(key[0])); 4]);
        }
    }
    for block in store.blocks().into_iter().flatten() {
        let n = usize::from(block.bags[0]);
        assert_eq!(block.vectors, vec![f16::from_f32(n as f32); 4]);
        if let Ok(Some(described)) = store.describe(block.file, block.described) {
            assert_eq!((described.path, described.entries), (format!("src/{n}.rs"), vec![entry(n)]));
        }
    }
    store.paths().ok();
    store.declaring("name3").ok();
}

/// The source of a file with one of the extensions, by its number.
pub fn source(extension: usize, bytes: Vec<u8>) {
    let all: Vec<&str> = outline::extensions().map(|(extension, _)| extension).collect();
    let extension = all[extension % all.len()];
    let Some((source, _)) = tree::fuzzing::text(bytes) else { return };
    let (path, cancel) = (format!("a/index.{extension}"), Cancel::default());
    for reader in outline::reader(extension).into_iter().chain([outline::Reader::Passages]) {
        let Ok(declarations) = outline::outline(&source, &path, reader, &cancel) else { continue };
        let lines = source.lines().count() + 1;
        for declaration in declarations {
            assert!(
                declaration.lines.start >= 1 && declaration.lines.start <= lines,
                "{:?} of {lines}",
                declaration.lines
            );
        }
    }
    let units = source.encode_utf16().count();
    let document = Document { text: source, path: Some(path) };
    for (most, overlap, format) in [(20, 5, Format::Auto), (7, 0, Format::Markdown), (300, 0, Format::Code)] {
        let options = SplitOptions { most, overlap, format, language: None };
        let mut end = 0;
        for chunk in chunks::split(&document, &options, &Characters, &cancel).into_iter().flatten() {
            assert!(chunk.size <= most && chunk.utf16.start < chunk.utf16.end && chunk.utf16.end <= units);
            assert!(chunk.utf16.end > end);
            end = chunk.utf16.end;
        }
    }
}

/// How many extensions there are.
pub fn extensions() -> usize {
    outline::extensions().count()
}

/// The number of an extension.
pub fn extension(name: &str) -> Option<usize> {
    outline::extensions().position(|(extension, _)| extension == name)
}

/// A tree with whatever lies in it.
pub fn walk(root: &Path) {
    tree::walk(root, true, &Cancel::default()).ok();
}
