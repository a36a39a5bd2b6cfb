//! What is read of a model, and of those who serve models, that may come from anybody: what `fuzz/` calls.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::remote::fuzzing as remote;
use super::tensors::Tensors;
use super::weights::hash_weights;
use super::{Files, Model, ModelFiles, ModelOptions, Source, Unloaded, hub, library};
use crate::cancel::Cancel;
use crate::embedding::{InputType, Task, Tokens};
use crate::images::Preprocessing;
use crate::tokens::{Chat, Tokenizer};

pub use hub::fuzzing::{Hub, listing};
pub use remote::answer;

const TEXTS: [&str; 6] = [
    "",
    "a",
    "The quick brown fox, 3.14!",
    "Größe 你好 🦀 ﷽ e\u{301}",
    " \t\n\u{0}",
    "[CLS] </s> <mask> ##a ▁b unaffable",
];

pub fn tensors(bytes: &[u8]) {
    let Ok(tensors) = Tensors::parse(bytes) else { return };
    for name in tensors.names() {
        let Ok(Some(tensor)) = tensors.find(&name) else { continue };
        let count = tensor.floats().count();
        assert_eq!(count * tensor.number.size(), tensor.bytes.len());
        assert_eq!(count, tensor.shape.iter().product::<usize>());
        tensors.floats(&name, &[1, 2]).ok();
    }
}

/// A `tokenizer.json`, and texts in a model's way.
pub fn tokenizer(json: &[u8], max_length: usize, text: &str) {
    let reading = crate::tokens::Reading { max_length, ..Default::default() };
    let Ok(tokenizer) = Tokenizer::new(json, &reading) else { return };
    tokenize(&tokenizer, max_length, TEXTS.into_iter().chain([text]));
}

fn tokenize<'a>(tokenizer: &Tokenizer, most: usize, texts: impl Iterator<Item = &'a str>) -> Vec<Tokens> {
    texts
        .filter_map(|text| {
            tokenizer.count(0, text).ok();
            tokenizer.starts(text).ok();
            tokenizer.describe(text).ok();
            let [query, document] = [text, "b"].map(|text| tokenizer.encode_half(text).ok());
            query.zip(document).and_then(|(query, document)| tokenizer.encode_pair(&query, &document).ok());
            let tokens = tokenizer.encode(0, InputType::Document, text).ok()?;
            assert!(tokens.ids.len() <= most, "{} tokens of {most}", tokens.ids.len());
            Some(tokens)
        })
        .collect()
}

/// A directory with the files of a model. A table computes; a graph is read up to where the runtime takes over.
pub fn directory(path: &Path, options: &ModelOptions) {
    let files = Files { id: "fuzz".to_owned(), path: path.to_str().unwrap().to_owned(), origin: None };
    let Ok(unloaded) = Unloaded::read(&Source::Files(files), options) else { return };
    let Unloaded::Files(files) = &unloaded else { return };
    let ModelFiles { spec, .. } = &**files;
    let tokenizer = unloaded.tokenizer().and_then(|file| Tokenizer::new(file.json, file.reading).ok());
    let most = unloaded.tokenizer().map_or(0, |file| file.reading.max_length);
    let tokens = tokenizer.map(|tokenizer| tokenize(&tokenizer, most, TEXTS.into_iter())).unwrap_or_default();
    if let Some(table) = &spec.table {
        let model = super::static_model::StaticModel::load("fuzz", spec, table, options, &Cancel::default());
        if let Ok(model) = model.map(Arc::new) {
            let width = model.info().dimensions;
            let batch: Vec<&Tokens> = tokens.iter().collect();
            for value in model.run(&batch, &Cancel::default()).into_iter().flatten() {
                assert_eq!(value.numbers().len(), width);
                assert!(value.numbers().iter().all(|number| number.is_finite()), "{:?}", value.numbers());
            }
        }
    }
    unloaded.load_bytes(options);
}

pub fn options(task: u8) -> ModelOptions {
    let task = [Task::Embedding, Task::Reranking, Task::Sparse, Task::MultiVector][task as usize % 4];
    ModelOptions { task, ..ModelOptions::default() }
}

/// A graph in a directory, and what lies beside it.
pub fn graph(path: &Path) {
    hash_weights(path, &Cancel::default()).ok();
    super::pooled_graph::Declared::read(&std::fs::read(path).unwrap_or_default());
    let Ok(Some(mut lean)) = super::lean_graph::LeanGraph::read(path) else { return };
    lean.keep_first();
    lean.fuse_norms();
    lean.into_file();
}

/// A library of the user.
pub fn library(path: &Path) {
    library::check_elf(path).ok();
    library::version(path);
}

/// How images are prepared.
pub fn preprocessing(json: &[u8]) -> Option<Preprocessing> {
    Preprocessing::parse(&serde_json::from_slice(json).ok()?).ok().flatten()
}

/// A template of conversations, and a pair of texts for it.
pub fn template(source: &str, way: u8, query: &str, document: &str) {
    let variables = Map::from_iter([("bos_token".to_owned(), Value::from("<s>"))]);
    let in_parts = [None, Some(false), Some(true)][way as usize % 3];
    let Ok(chat) = Chat::new(source.to_owned(), variables, in_parts) else { return };
    chat.fill(query, document).ok();
    if let Some(told) = chat.told("Judge".to_owned()) {
        assert_eq!(told.instruction(), Some("Judge"));
        told.fill(query, document).ok();
    }
}

/// What a user calls a model.
pub fn name(text: &str) {
    hub::fuzzing::id(text);
    super::remote::fuzzing::name(text);
}
