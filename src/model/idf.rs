//! How rare each token is, and so how much it counts in a query, as files say: sentence-transformers' `SparseStaticEmbedding`, or an
//! `idf.json`.

use std::collections::BTreeMap;

use super::config_files::ConfigFiles;
use super::table::TABLE;
use super::tensors::Tensors;
use super::vocabulary;
use crate::error::{Error, Result};

/// Weights by token, in a file of their own.
pub(super) const IDF: &str = "idf.json";

/// The weights in the folder `prefix` of a model with such a tokenizer, where it has them, and the name of their file.
pub(super) fn read(files: &mut ConfigFiles, prefix: &str, tokenizer: &[u8]) -> Result<Option<(Vec<f32>, String)>> {
    let name = format!("{prefix}{TABLE}");
    let bad = |files: &ConfigFiles, name: &str, reason: String| Error::model(files.root.join(name), reason);
    let (weights, name) = if let Some(bytes) = files.bytes(&name)? {
        let read = Tensors::parse(bytes.as_slice()).and_then(|tensors| match tensors.find("weight")? {
            Some(weight) if weight.shape.len() == 1 => Ok(weight.floats().collect::<Vec<f32>>()),
            Some(weight) => Err(format!("weight is {:?}, and one number for each token was expected", weight.shape)),
            None => Err(format!("it has no tensor weight; it has {}", tensors.names().join(", "))),
        });
        (read.map_err(|reason| bad(files, &name, reason))?, name)
    } else {
        let name = format!("{prefix}{IDF}");
        let Some(by_token) = files.json::<BTreeMap<String, f32>>(&name)? else { return Ok(None) };
        let ids = vocabulary::ids(tokenizer);
        let mut weights = Vec::new();
        for (token, weight) in by_token {
            // What the tokenizer never gives is never asked for.
            let Some(id) = ids.get(&token) else { continue };
            let id = *id as usize;
            weights.resize(weights.len().max(id + 1), 0.0);
            weights[id] = weight;
        }
        (weights, name)
    };
    match weights.iter().position(|weight| !weight.is_finite()) {
        Some(at) => {
            Err(bad(files, &name, format!("the weight of token {at} is not a finite number: the file is damaged")))
        }
        None if weights.is_empty() => Err(bad(files, &name, "there are no weights of tokens in it".to_owned())),
        None => Ok(Some((weights, name))),
    }
}
