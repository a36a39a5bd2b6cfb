//! The files of a model that reads queries and documents in ways of their own.

use std::path::Path;

use super::id::is_inside;
use super::{CONFIG, TOKENIZER, module_files, modules_in};
use crate::error::Result;
use crate::model::config_files::ConfigFiles;
use crate::model::idf::IDF;
use crate::model::modules::Module;
use crate::model::router::{self, Way};
use crate::model::table::TABLE;
use crate::model::{graph, vocabulary};

/// What is read of such a model.
pub(super) struct RouteFiles {
    /// Without which there is no model: what computes.
    pub needed: Vec<String>,
    /// All the rest, which need not be there.
    pub others: Vec<String>,
}

/// Beside a graph, what says how its texts are read.
const OF_READERS: [&str; 6] = [
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "sentence_bert_config.json",
    "chat_template.jinja",
    TOKENIZER,
];

impl RouteFiles {
    /// The files that say which ways there are, where the files that are here say that there are some.
    pub fn configs(snapshot: &Path) -> Vec<String> {
        let modules = modules_in(snapshot);
        let router = modules.first().filter(|module| router::is_one(module)).and_then(prefix);
        router.map_or_else(Vec::new, |prefix| router::CONFIGS.map(|file| format!("{prefix}{file}")).to_vec())
    }

    /// Those of the ways of the model whose files are in `snapshot`, as far as those say what they are; `has`: what else there is.
    ///
    /// # Errors
    /// What is wrong with what they say.
    pub fn of(snapshot: &Path, dtype: Option<graph::Dtype>, has: impl Fn(&str) -> bool) -> Result<Option<Self>> {
        let modules = modules_in(snapshot);
        let Some(router) = modules.first().filter(|module| router::is_one(module)) else { return Ok(None) };
        let ways = router::ways(&mut ConfigFiles::at(snapshot), router)?;
        let mut files = Self { needed: Vec::new(), others: CONFIG.map(str::to_owned).to_vec() };
        files.others.extend(Self::configs(snapshot));
        files.others.extend(module_files(&modules[1..]));
        ways.iter().for_each(|way| files.add(way, dtype, &has));
        for names in [&mut files.needed, &mut files.others] {
            names.sort();
            names.dedup();
        }
        let Self { needed, others } = &mut files;
        others.retain(|file| !needed.contains(file));
        Ok(Some(files))
    }

    fn add(&mut self, way: &Way, dtype: Option<graph::Dtype>, has: &impl Fn(&str) -> bool) {
        let [first, rest @ ..] = &way.modules[..] else { return };
        let Some(own) = prefix(first) else { return };
        self.others.extend(module_files(rest));
        self.others.extend(OF_READERS.map(|file| format!("{own}{file}")));
        match first.name() {
            "StaticEmbedding" => self.needed.extend([TOKENIZER, TABLE].map(|file| format!("{own}{file}"))),
            "SparseStaticEmbedding" => {
                let weights = [TABLE, IDF].map(|file| format!("{own}{file}"));
                self.needed.extend([weights.iter().find(|file| has(file)).unwrap_or(&weights[0]).clone()]);
                self.others.extend(weights);
            }
            _ => {
                // Its own graph, or else that of the whole.
                let [one, other] = graph::places(dtype);
                let places = [format!("{own}{one}"), format!("{own}{other}"), one, other];
                let graph = places.iter().find(|place| has(place)).unwrap_or(&places[0]);
                self.needed.push(graph.clone());
                self.others.extend(graph::data_of(graph, has));
                self.others.extend(places.iter().take_while(|place| *place != graph).cloned());
                self.others.extend(vocabulary::FILES.map(str::to_owned));
            }
        }
    }
}

fn prefix(module: &Module) -> Option<String> {
    module.prefix().filter(|prefix| prefix.is_empty() || is_inside(prefix.trim_end_matches('/')))
}
