//! What sentence-transformers' `Router` says: by which modules queries are read, and by which documents.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::config_files::ConfigFiles;
use super::modules::{self, Module};
use crate::error::{Error, Result};

/// Where it is said, in the folder of the module; before version 5, elsewhere.
pub(super) const CONFIGS: [&str; 2] = ["router_config.json", "config.json"];

#[derive(Deserialize)]
struct Config {
    /// The class of each module, by the name of its folder.
    types: BTreeMap<String, String>,
    /// The modules of each way, in order.
    structure: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Parameters {
    default_route: Option<String>,
    /// Ways by task and modality, in the spelling of a tuple of Python.
    route_mappings: Option<BTreeMap<String, String>>,
}

/// The modules by which texts of a role are read.
pub(super) struct Way {
    pub name: String,
    pub modules: Vec<Module>,
}

/// Whether a module is one.
pub(super) fn is_one(module: &Module) -> bool {
    matches!(module.name(), "Router" | "Asym")
}

/// The ways of documents and of queries, which may be the same.
pub(super) fn ways(files: &mut ConfigFiles, router: &Module) -> Result<[Way; 2]> {
    let prefix = modules::prefix(&files.root, router)?;
    let [first, legacy] = CONFIGS.map(|file| format!("{prefix}{file}"));
    let (file, config) = match files.json::<Config>(&first)? {
        Some(config) => (first, config),
        None => {
            let config = files.json::<Config>(&legacy)?;
            (legacy, config.ok_or_else(|| modules::missing(&files.root, &first))?)
        }
    };
    let way = |role: &str| -> Result<Way> {
        let bad = |reason: String| Error::model(files.root.join(&file), reason);
        let name = config.way(role).ok_or_else(|| {
            let known: Vec<_> = config.structure.keys().map(String::as_str).collect();
            bad(format!("it has no way for texts of a {role}; it has {}", known.join(", ")))
        })?;
        let ids = config.structure.get(name).filter(|ids| !ids.is_empty());
        let ids = ids.ok_or_else(|| bad(format!("its way {name} has no modules")))?;
        let module = |id: &String| {
            let kind = config.types.get(id).ok_or_else(|| bad(format!("it does not say of which type {id} is")))?;
            Ok(Module { path: format!("{prefix}{id}"), kind: kind.clone() })
        };
        Ok(Way { name: name.to_owned(), modules: ids.iter().map(module).collect::<Result<_>>()? })
    };
    Ok([way("document")?, way("query")?])
}

impl Config {
    /// The way of a role's texts: as it is mapped, or called, or else the one that is for all.
    fn way(&self, role: &str) -> Option<&str> {
        let mapped = |task: Option<&str>, modality: Option<&str>| {
            let mut all = self.parameters.route_mappings.iter().flatten();
            all.find(|(key, _)| parts(key) == [task, modality]).map(|(_, name)| name.as_str())
        };
        let own = self.structure.get_key_value(role).map(|(name, _)| name.as_str());
        let text = self.structure.get_key_value("text").map(|(name, _)| name.as_str());
        mapped(Some(role), Some("text"))
            .or_else(|| mapped(Some(role), None))
            .or_else(|| mapped(None, Some("text")))
            .or_else(|| mapped(None, None))
            .or(own)
            .or(text)
            .or(self.parameters.default_route.as_deref())
            .filter(|name| self.structure.contains_key(*name))
    }
}

/// Both parts of a tuple such as `('query', None)`.
fn parts(key: &str) -> [Option<&str>; 2] {
    let inner = key.trim().trim_start_matches('(').trim_end_matches(')');
    let mut parts = inner.splitn(2, ',').map(|part| {
        let part = part.trim();
        let quoted = |quote: char| part.strip_prefix(quote)?.strip_suffix(quote);
        quoted('\'').or_else(|| quoted('"'))
    });
    [parts.next().flatten(), parts.next().flatten()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_mapped_named_or_for_all() {
        let config = |ways: &[&str], parameters: &str| Config {
            types: BTreeMap::new(),
            structure: ways.iter().map(|way| ((*way).to_owned(), Vec::new())).collect(),
            parameters: serde_json::from_str(parameters).unwrap(),
        };
        let both = |config: &Config| ["document", "query"].map(|role| config.way(role).map(str::to_owned));
        let some = |one: &str, other: &str| [Some(one.to_owned()), Some(other.to_owned())];
        assert_eq!(both(&config(&["query", "document"], "{}")), some("document", "query"));
        let mapped = r#"{"route_mappings": {"('query', 'text')": "a", "(None, ('image', 'text'))": "c", "(\"document\", None)": "b"}}"#;
        assert_eq!(both(&config(&["a", "b", "c"], mapped)), some("b", "a"));
        assert_eq!(both(&config(&["a", "query"], r#"{"default_route": "a"}"#)), some("a", "query"));
        assert_eq!(both(&config(&["a"], r#"{"default_route": "z"}"#)), [None, None]);
    }
}
