//! Models from a hub: an id → a directory with the files that are needed, verified.
//!
//! What is in the cache is taken as it is, and then nothing is asked of the network. A branch or tag therefore stays at
//! the commit that was found first. Files and cache are laid out as other tools of the hub lay them out.

mod cache;
mod client;
mod download;
#[cfg(fuzzing)]
pub mod fuzzing;
mod id;
mod retry;
mod routes;
mod state;
mod store;

use std::collections::HashSet;
use std::env;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::config_files::MAX_CONFIG_BYTES;
use super::http::{Secret, variable};
use super::idf::IDF;
use super::modules::{MODULES, Module};
use super::table::TABLE;
use super::{HubOptions, ModelOptions, Pooling, content, graph, table, vocabulary};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use cache::{Known, Repo};
use client::Client;
use download::Delivery;
use id::{is_commit, is_inside, is_revision};
use routes::RouteFiles;

pub(super) use id::Id;
pub use state::HubState;
pub use store::{AddedModel, ModelStore, Problem, StoredModel, VerifiedModel};

/// How far a download has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fetched<'a> {
    /// The file's name in its repository.
    pub file: &'a str,
    /// How many of its bytes are there, and of how many.
    pub loaded: u64,
    /// See there.
    pub total: u64,
    /// The share of all files of this load that is there, in percent. Never goes back, ends with 100.
    pub progress_total: f64,
}

/// Told of what is fetched.
pub type Progress = Box<dyn Fn(&Fetched) + Send + Sync>;

/// A model that is published without ONNX.
struct Converted {
    model: &'static str,
    /// Conversions that hold the same weights, best first.
    repositories: &'static [&'static str],
    /// How its vectors are made: conversions do not say.
    pooling: Pooling,
    normalize: bool,
}

/// Only conversions that bring all that is needed (files of two repositories are never mixed) and give vectors: those for
/// guessing masked words, as of bert-base-uncased, do not.
const CONVERSIONS: [Converted; 2] = [
    Converted {
        model: "microsoft/codebert-base",
        repositories: &["Xenova/codebert-base", "onnx-community/codebert-base-ONNX"],
        // It says nothing itself; this is what other tools take then, and what code search with it commonly does.
        pooling: Pooling::Mean,
        normalize: true,
    },
    Converted {
        model: "BAAI/bge-small-zh-v1.5",
        repositories: &["Xenova/bge-small-zh-v1.5"],
        pooling: Pooling::Cls,
        normalize: true,
    },
];

/// How the vectors of a repository are made, and whether they are normalised, where it is known without its files.
pub(super) fn manner(repository: &str) -> Option<(Pooling, bool)> {
    let converted = CONVERSIONS.iter().find(|converted| converted.repositories.contains(&repository))?;
    Some((converted.pooling, converted.normalize))
}

/// What says how vectors are made, beside the tokenizer and the graph. A model need not have all of them.
const CONFIG: [&str; 8] = [
    "config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    IDF,
    "sentence_bert_config.json",
    PROMPTS,
    MODULES,
    "1_Pooling/config.json",
];

const PROMPTS: &str = "config_sentence_transformers.json";

const TOKENIZER: &str = "tokenizer.json";
const PREPROCESSOR: &str = super::config_files::PREPROCESSOR;

/// The most modules that a model is believed to have. The largest known have four.
const MAX_MODULES: usize = 32;

/// A path that is misspelt looks like a name: an error about the name says what is not here, either.
fn not_here(name: &str) -> String {
    format!("there is no file or directory {name} on this machine, either")
}

/// The files of a model on this machine.
pub(super) struct Snapshot {
    pub directory: PathBuf,
    /// Where they come from: a conversion where the model itself has no graph.
    pub repository: String,
    pub commit: String,
}

/// Where things are and how they are reached, from the options and the environment.
struct Settings {
    endpoint: String,
    token: Option<Secret>,
    cache: PathBuf,
    /// What forbids the network, if anything does.
    offline: Option<&'static str>,
    /// How long a server may be silent.
    read_timeout: Duration,
}

impl Settings {
    fn read(options: &HubOptions) -> Result<Self> {
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(Error::config("HF_ENDPOINT", "the environment variable is not an http or https URL"));
        }
        let on = |name: &'static str| {
            let value = variable(name)?.to_ascii_lowercase();
            ["1", "true", "yes", "on"].contains(&value.as_str()).then_some(name)
        };
        let home = || {
            let cache = || path_variable("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")));
            path_variable("HF_HOME").or_else(|| Some(cache()?.join("huggingface")))
        };
        let cache = options.cache_dir.clone().or_else(|| path_variable("HF_HUB_CACHE"));
        let cache = cache.or_else(|| path_variable("HUGGINGFACE_HUB_CACHE")).or_else(|| Some(home()?.join("hub")));
        let token_file = || {
            let path = path_variable("HF_TOKEN_PATH").or_else(|| Some(home()?.join("token")))?;
            std::fs::read_to_string(path).ok()
        };
        let named = || variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN"));
        let token = match on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            // As the hub's own tools have it: then none is sent that nobody passed for this very call.
            Some(_) => None,
            None => named().or_else(token_file),
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Error::config("HF_TOKEN", "the token has characters in it that no token has"));
        }
        let read_timeout = variable("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|seconds| seconds.parse::<f64>().ok());
        let read_timeout = read_timeout.filter(|seconds| seconds.is_finite()).unwrap_or(10.0);
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.map(Secret::new),
            cache: cache.ok_or_else(|| {
                Error::config("cacheDir", "there is no home directory to keep models in: pass cacheDir, or set HF_HOME")
            })?,
            offline: match options.local_files_only {
                true => Some("localFilesOnly"),
                false => on("HF_HUB_OFFLINE").or_else(|| on("TRANSFORMERS_OFFLINE")),
            },
            read_timeout: Duration::from_secs_f64(read_timeout.clamp(0.1, 3600.0)),
        })
    }
}

/// A path, in which `~` stands for the home directory.
fn path_variable(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(name).filter(|value| !value.is_empty())?);
    match path.strip_prefix("~") {
        Ok(rest) => Some(env::home_dir()?.join(rest)),
        Err(_) => Some(path),
    }
}

/// Why a repository cannot serve.
enum Failure {
    /// It holds no graph at all, or nothing of it is here and nothing may be fetched: a conversion may serve.
    NoGraph(Error),
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// One search for the files of a model.
struct Search<'a> {
    settings: Settings,
    options: &'a ModelOptions,
    cancel: &'a Cancel,
    progress: Option<&'a Progress>,
    /// Whether the hub is asked about a branch although it is in the cache.
    refresh: bool,
}

/// The files of `id`, from the cache or from the hub.
pub(super) fn resolve(
    id: &Id,
    options: &ModelOptions,
    cancel: &Cancel,
    progress: Option<&Progress>,
) -> Result<Snapshot> {
    Search { settings: Settings::read(&options.hub)?, options, cancel, progress, refresh: false }.resolve(id)
}

/// What the hub says about a revision.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Search<'_> {
    fn resolve(&self, id: &Id) -> Result<Snapshot> {
        let revision = match (&id.revision, &self.options.hub.revision) {
            (Some(one), Some(other)) if one != other => {
                return Err(Error::config("revision", format!("{other} is not {one}, which the model's id says")));
            }
            (one, other) => one.as_ref().or(other.as_ref()),
        };
        if let Some(revision) = revision.filter(|revision| !is_revision(revision)) {
            return Err(Error::config("revision", format!("{revision:?} is not a branch, a tag or a commit")));
        }
        let conversions =
            CONVERSIONS.iter().find(|converted| converted.model == id.name).map(|converted| converted.repositories);
        match (self.find(&id.name, revision.map_or("main", String::as_str)), conversions) {
            (Ok(snapshot), _) => Ok(snapshot),
            (Err(Failure::NoGraph(error)), Some(conversions)) if revision.is_none() => {
                self.converted(conversions, error)
            }
            (Err(Failure::NoGraph(Error::ModelInit { path, reason, task })), Some([conversion, ..])) => {
                let reason =
                    format!("{reason}; or load its conversion, '{conversion}', which has revisions of its own");
                Err(Error::ModelInit { path, reason, task })
            }
            (Err(Failure::NoGraph(error) | Failure::Other(error)), _) => Err(error),
        }
    }

    /// The first conversion that there is. `error` is the trouble with the model itself.
    fn converted(&self, conversions: &[&str], error: Error) -> Result<Snapshot> {
        for conversion in conversions {
            match self.find(conversion, "main") {
                Ok(snapshot) => return Ok(snapshot),
                // It is not there, or not here: the next one may be.
                Err(Failure::NoGraph(_) | Failure::Other(Error::Hub { status: Some(401 | 404), .. })) => {}
                Err(Failure::Other(other)) => return Err(other),
            }
        }
        Err(error)
    }

    fn find(&self, name: &str, revision: &str) -> Result<Snapshot, Failure> {
        let repo = Repo::of(&self.settings.cache, name);
        let commit = if is_commit(revision) { Some(revision.to_owned()) } else { repo.commit_of(revision) };
        let snapshot = |commit: &str| Snapshot {
            directory: repo.snapshot(commit),
            repository: name.to_owned(),
            commit: commit.to_owned(),
        };
        let mut usable = None;
        if let Some(commit) = commit {
            match self.cached(&repo, &commit) {
                Cached::Complete if !self.asks_again(revision) => return Ok(snapshot(&commit)),
                Cached::Complete => usable = Some(commit),
                Cached::NoGraph if self.asks_again(revision) => {}
                Cached::NoGraph => return Err(Failure::NoGraph(no_graph(name, self.options, &[]))),
                Cached::Usable => usable = Some(commit),
                Cached::Incomplete => {}
            }
        }
        if let Some(reason) = self.settings.offline {
            return usable.as_deref().map(snapshot).ok_or_else(|| {
                let cache = self.settings.cache.display();
                Failure::NoGraph(Error::model(
                    format!("{name}@{revision}"),
                    format!(
                        "not all of its files are in {cache}, and {reason} forbids to fetch them: load it once with the network, or pass the path of a model directory ({})",
                        not_here(name)
                    ),
                ))
            });
        }
        if let Some(commit) = usable.as_deref().filter(|_| !self.refresh && !repo.takes_files()) {
            return Ok(snapshot(commit));
        }
        let client = Client::new(&self.settings, self.cancel)?;
        match (self.download(&client, &repo, name, revision), usable) {
            (Ok(commit), _) => Ok(snapshot(&commit)),
            // What is here was good enough for the tool that put it here.
            (Err(Failure::Other(Error::Hub { .. })), Some(commit)) if !self.refresh => Ok(snapshot(&commit)),
            (Err(failure), _) => Err(failure),
        }
    }

    /// Whether the hub is to say where a revision is now.
    fn asks_again(&self, revision: &str) -> bool {
        self.refresh && !is_commit(revision) && self.settings.offline.is_none()
    }

    /// How much of a commit is in the cache.
    fn cached(&self, repo: &Repo, commit: &str) -> Cached {
        let state = |file: &str| repo.known(commit, file);
        let routes = RouteFiles::of(&repo.snapshot(commit), self.options.dtype, |file| state(file) == Known::Here);
        match routes {
            Ok(Some(RouteFiles { needed, others })) => return known(&needed, &others, state),
            Ok(None) => {}
            // Which ways there are, is in a file that is not here, or it is wrong.
            Err(_) => return Cached::Incomplete,
        }
        if let Some(table) = TableFiles::of(&repo.snapshot(commit)) {
            return known(&table.needed(), &table.others(&repo.snapshot(commit)), state);
        }
        let everywhere = graph::Dtype::ALL.into_iter().flat_map(|dtype| graph::places(Some(dtype)));
        if everywhere.into_iter().all(|place| state(&place) == Known::Absent) {
            return Cached::NoGraph;
        }
        let places = graph::places(self.options.dtype);
        let Some(at) = places.iter().position(|place| state(place) == Known::Here) else { return Cached::Incomplete };
        let here = |file: &str| state(file) == Known::Here;
        let tokenizer: &[&str] = if here(TOKENIZER) { &[] } else { &vocabulary::FILES };
        if !here(TOKENIZER) && !vocabulary::is_enough(here) && !here(PREPROCESSOR) {
            return Cached::Incomplete;
        }
        let mut optional: Vec<String> = CONFIG.iter().map(|file| (*file).to_owned()).collect();
        optional.extend(tokenizer.iter().map(|file| (*file).to_owned()).chain([TOKENIZER.to_owned()]));
        optional.extend(places[..at].iter().cloned());
        optional.extend(graph::data_of(&places[at], |file| state(file) == Known::Here));
        optional.extend(module_files(&modules_in(&repo.snapshot(commit))));
        match optional.iter().all(|file| state(file) != Known::Unknown) {
            true => Cached::Complete,
            false => Cached::Usable,
        }
    }

    /// Fetches what is missing; gives the commit. The graph comes last: where it is, all the rest is, too.
    fn download(&self, client: &Client, repo: &Repo, name: &str, revision: &str) -> Result<String, Failure> {
        let listing: Listing = client.listing(name, revision)?;
        if !is_commit(&listing.sha) || (is_commit(revision) && listing.sha != revision) {
            let reason = format!("the hub answers with another commit than was asked for: {:?}", listing.sha);
            return Err(Error::model(format!("{name}@{revision}"), reason).into());
        }
        let commit = listing.sha;
        let there: Vec<String> =
            listing.siblings.into_iter().map(|sibling| sibling.rfilename).filter(|file| is_inside(file)).collect();
        let has = |file: &str| there.iter().any(|other| other == file);
        let mark = |files: &mut dyn Iterator<Item = String>| {
            files.filter(|file| !has(file)).try_for_each(|file| repo.mark_absent(&commit, &file))
        };
        let delivery = Delivery { client, repo, name, commit: &commit, cancel: self.cancel, progress: self.progress };
        let missing = |files: &mut dyn Iterator<Item = &str>| -> Vec<String> {
            let wanted = files.filter(|file| has(file) && repo.known(&commit, file) != Known::Here);
            wanted.map(str::to_owned).collect()
        };
        let places = graph::places(self.options.dtype);
        let graph = places.iter().find(|place| has(place));
        let table = |file: &String| file == TABLE || file.ends_with(&format!("/{TABLE}"));
        if graph.is_some() || there.iter().any(|file| table(file) || file.ends_with(".onnx")) {
            // What else there is, it says; where it is not there, what is read for want of it.
            let first = if has(MODULES) { MODULES } else { CONFIG[0] };
            delivery.fetch(&missing(&mut [first].into_iter()), |_| MAX_CONFIG_BYTES, true)?;
        }
        let snapshot = repo.snapshot(&commit);
        let ways = RouteFiles::configs(&snapshot);
        if !ways.is_empty() {
            mark(&mut ways.iter().cloned())?;
            delivery.fetch(&missing(&mut ways.iter().map(String::as_str)), |_| MAX_CONFIG_BYTES, true)?;
        }
        let table = || {
            TableFiles::of(&snapshot)
                .map(|table| ("a table of vectors", table.needed().to_vec(), table.others(&snapshot)))
        };
        let routes = RouteFiles::of(&snapshot, self.options.dtype, has)?;
        let routes = routes.map(|RouteFiles { needed, others }| ("read in two ways", needed, others));
        if let Some((what, needed, others)) = routes.or_else(table) {
            if let Some(lacking) = needed.iter().find(|file| !has(file)) {
                return Err(Error::model(name, format!("it is {what}, and it has no {lacking}")).into());
            }
            mark(&mut others.iter().cloned())?;
            // What computes comes last: where it is, all the rest is, too.
            let wanted = missing(&mut others.iter().chain(&needed).map(String::as_str));
            let weights = |file: &str| needed.iter().any(|graph| graph == file || graph::is_data_of(graph, file));
            let most = |file: &str| if weights(file) { u64::MAX } else { MAX_CONFIG_BYTES };
            delivery.fetch(&wanted, most, false)?;
            if !is_commit(revision) {
                repo.write_ref(revision, &commit)?;
            }
            return Ok(commit);
        }
        let Some(graph) = graph else {
            let graphs: Vec<String> = there.iter().filter(|file| file.ends_with(".onnx")).cloned().collect();
            let error = no_graph(name, self.options, &graphs);
            let mut everywhere = graph::Dtype::ALL.into_iter().flat_map(|dtype| graph::places(Some(dtype)));
            if everywhere.any(|place| has(&place)) {
                return Err(error.into());
            }
            mark(&mut graph::Dtype::ALL.into_iter().flat_map(|dtype| graph::places(Some(dtype))))?;
            repo.write_ref(revision, &commit)?;
            return Err(Failure::NoGraph(error));
        };
        // A model that reads images has no tokenizer, but this.
        let of_images = !has(TOKENIZER) && !vocabulary::is_enough(has) && has(PREPROCESSOR);
        let tokenizer = match has(TOKENIZER) {
            true => vec![TOKENIZER],
            false if of_images => vec![PREPROCESSOR],
            false => vocabulary::FILES.to_vec(),
        };
        if !has(TOKENIZER) && !vocabulary::is_enough(has) && !of_images {
            let reason = format!(
                "it has neither {TOKENIZER} nor a vocabulary (vocab.txt, or vocab.json and merges.txt): pass the id of a repository that has one, or make one and pass the path of a model directory"
            );
            return Err(Error::model(name, reason).into());
        }
        mark(&mut CONFIG.iter().chain(&tokenizer).chain(&[TOKENIZER]).map(|file| (*file).to_owned()))?;
        if of_images {
            mark(&mut vocabulary::FILES.iter().map(|file| (*file).to_owned()))?;
        }
        mark(&mut places.iter().cloned().chain(graph::data_of(graph, has)))?;
        let data = |file: &str| file == graph || graph::is_data_of(graph, file);
        let most = |file: &str| if data(file) { u64::MAX } else { MAX_CONFIG_BYTES };
        let modules = module_files(&modules_in(&snapshot));
        mark(&mut modules.iter().cloned())?;
        let weights = there.iter().filter(|file| graph::is_data_of(graph, file));
        let config = CONFIG.into_iter().chain(modules.iter().map(String::as_str)).chain(tokenizer);
        let all = config.chain(weights.map(String::as_str)).chain([graph.as_str()]);
        let mut wanted = missing(&mut { all });
        // Some files have two reasons to be there.
        let mut seen = HashSet::new();
        wanted.retain(|file| seen.insert(file.clone()));
        delivery.fetch(&wanted, most, false)?;
        if !is_commit(revision) {
            repo.write_ref(revision, &commit)?;
        }
        Ok(commit)
    }
}

/// How much of a model is here, by what `state` says of the files without which there is none, and of the others.
fn known(needed: &[String], others: &[String], state: impl Fn(&str) -> Known) -> Cached {
    if needed.iter().any(|file| state(file) != Known::Here) {
        Cached::Incomplete
    } else if others.iter().any(|file| state(file) == Known::Unknown) {
        Cached::Usable
    } else {
        Cached::Complete
    }
}

enum Cached {
    /// All that a load reads is here, and what is not here does not exist.
    Complete,
    /// What every model needs is here; what else there may be is unknown.
    Usable,
    Incomplete,
    /// It is known to have no graph.
    NoGraph,
}

fn no_graph(name: &str, options: &ModelOptions, found: &[String]) -> Error {
    let missing = graph::missing(&graph::places(options.dtype), found);
    Error::model(name, format!("{missing}, or pass the id of a repository that holds it"))
}

/// The files of a model that is a table of vectors.
struct TableFiles {
    /// Where it lies, as a prefix of names.
    prefix: String,
}

impl TableFiles {
    /// Of a model that is one, as far as its files are here to say so.
    fn of(snapshot: &Path) -> Option<Self> {
        let modules = modules_in(snapshot);
        let config = || read_json::<Value>(&snapshot.join(CONFIG[0])).unwrap_or_default();
        table::place(Some(&modules).filter(|modules| !modules.is_empty()).map(Vec::as_slice), config)
            .map(|prefix| Self { prefix })
    }

    fn needed(&self) -> [String; 2] {
        [TOKENIZER, TABLE].map(|file| format!("{}{file}", self.prefix))
    }

    fn others(&self, snapshot: &Path) -> Vec<String> {
        let read = [format!("{}{}", self.prefix, CONFIG[0]), PROMPTS.to_owned(), MODULES.to_owned()];
        read.into_iter().chain(module_files(&modules_in(snapshot))).collect()
    }
}

/// What is wrong with a file is found when it is read for good.
fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut bytes = Vec::new();
    content::open(path).ok()?.take(MAX_CONFIG_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn modules_in(snapshot: &Path) -> Vec<Module> {
    read_json(&snapshot.join(MODULES)).unwrap_or_default()
}

/// The files of modules.
fn module_files(modules: &[Module]) -> Vec<String> {
    let of_module = |module: &Module| {
        let files: &[&str] = match module.name() {
            "Dense" | "LayerNorm" | "SparseStaticEmbedding" => &[CONFIG[0], TABLE],
            _ => &[CONFIG[0]],
        };
        let prefix = module.prefix().filter(|prefix| !prefix.is_empty());
        let prefix = prefix.filter(|prefix| is_inside(prefix.trim_end_matches('/')));
        prefix
            .into_iter()
            .flat_map(|prefix| files.iter().map(move |file| format!("{prefix}{file}")))
            .collect::<Vec<_>>()
    };
    modules.iter().take(MAX_MODULES).flat_map(of_module).collect()
}
