//! A model on a server, as a model like any other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::api::{self, Manner, Told, Vectors};
use super::client::Client;
use super::{Kind, Server};
use crate::cancel::Cancel;
use crate::embedding::{Fingerprint, Modality, Task, Tokens, Value as Numbers};
use crate::error::{Error, Fault, Result};
use crate::model::http::clean;
use crate::model::pooling::Head;
use crate::model::{Model, ModelInfo, RemoteInfo, RunError, Then};
use crate::text;

/// What a server is asked to embed, to know the length of its vectors.
const PROBE: &str = "embedcore";

/// Most bytes of what a server says about a model, and of vectors as long as any that there are.
const MOST_TOLD: u64 = 16 << 20;
const MOST_PROBED: u64 = 8 << 20;

/// Bytes of a value in JSON, blanks included, at the most; and beside all values.
const BYTES_PER_VALUE: u64 = 48;
const BYTES_BESIDE: u64 = 1 << 20;

/// Runs that may be under way beside those whose requests are: one is made ready and another one read, so that no connection
/// waits for either.
const BESIDE: usize = 2;

/// How much of a vector's length may be missing to 1, where it is said to be 1.
const NORMAL: f32 = 1e-3;

pub(super) struct RemoteModel {
    server: Server,
    client: Client,
    /// Length of the server's own vectors.
    width: usize,
    head: Head,
    max_items: usize,
    max_tokens: Option<usize>,
    concurrency: usize,
    /// Most rows that were answered so far, and half of the fewest that were too much.
    answered: AtomicUsize,
    refused: AtomicUsize,
    /// Whether vectors are asked for as bytes.
    base64: bool,
    /// When the server said last that it is this model, and whether it has said since that it is another one.
    seen: Mutex<Instant>,
    replaced: AtomicBool,
    info: ModelInfo,
}

impl RemoteModel {
    pub fn load(server: &Server, cancel: &Cancel) -> Result<Self> {
        let client = Client::new(server)?;
        let told = told(server, &client, cancel)?;
        let mut server = server.clone();
        server.model = server.model.or_else(|| told.model.clone());
        let url = clean(&server.url.at(api::embed_path(server.kind)));
        let max_items = least(server.max_items, told.max_items);
        let concurrency = least(server.concurrency, told.max_concurrency);
        let mut model = Self {
            client,
            width: 0,
            head: Head { dimensions: server.kept, ..Head::default() },
            max_items,
            max_tokens: [server.max_tokens, told.max_tokens].into_iter().flatten().min(),
            concurrency,
            answered: AtomicUsize::new(1),
            refused: AtomicUsize::new(usize::MAX),
            base64: server.kind == Kind::OpenAi,
            seen: Mutex::new(Instant::now()),
            replaced: AtomicBool::new(false),
            info: ModelInfo {
                modality: Modality::Text,
                architecture: None,
                task: Task::Embedding,
                labels: Vec::new(),
                sigmoid: false,
                model_id: server.id.clone(),
                model_path: url,
                repository: None,
                revision: None,
                dimensions: 0,
                max_length: server.max_length.or(told.max_length),
                max_length_from: server.max_length.map(|_| "maxLength").or(told.max_length.map(|_| "server")),
                pooling: Vec::new(),
                normalize: false,
                output: None,
                dtype: None,
                batch_invariant: true,
                intra_op_threads: 0,
                providers: Vec::new(),
                compute: None,
                runtime: told.version.as_ref().map_or_else(
                    || server.kind.as_str().to_owned(),
                    |version| format!("{} {version}", server.kind.as_str()),
                ),
                remote: Some(RemoteInfo {
                    kind: server.kind,
                    url: clean(&server.url.at("")),
                    model: server.model.clone().unwrap_or_default(),
                    digest: told.digest.clone(),
                    max_batch_items: max_items,
                    concurrency,
                }),
                fingerprint: Fingerprint::builder().finish(),
            },
            server,
        };
        model.probe(cancel)?;
        model.info.fingerprint = fingerprint(&model.server, &told, &model.info);
        Ok(model)
    }

    /// Finds out how long the vectors are, and in which form they come.
    fn probe(&mut self, cancel: &Cancel) -> Result<()> {
        let mut probed = self.vectors(&[PROBE], MOST_PROBED, cancel);
        if self.base64 && probed.as_ref().is_err_and(|failed| api::is_about_encoding(&failed.error)) {
            self.base64 = false;
            probed = self.vectors(&[PROBE], MOST_PROBED, cancel);
        }
        let Vectors { values: mut vector, width, .. } = probed.map_err(|failed| failed.error)?;
        if let Some(most) = self.server.kept.filter(|kept| *kept > width) {
            return Err(Error::config("dimensions", format!("{most} is more than the {width} that the model has")));
        }
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        let normal = (length - 1.0).abs() <= NORMAL;
        // What is shortened is as long as before only if that is seen to.
        self.head.normalize = self.server.normalize == Some(true) || normal && self.server.kept.is_some();
        self.width = width;
        self.info.normalize = normal || self.head.normalize;
        self.head.finish(&mut vector);
        self.info.dimensions = vector.len();
        Ok(())
    }

    /// The server's own vectors of `texts`.
    fn vectors(&self, texts: &[&str], most: u64, cancel: &Cancel) -> Result<Vectors, RunError> {
        let server = &self.server;
        let manner = Manner {
            kind: server.kind,
            model: server.model.as_deref(),
            dimensions: server.dimensions,
            normalize: server.normalize,
            base64: self.base64,
        };
        let path = api::embed_path(server.kind);
        let answer = self.client.ask(path, Some(manner.body(texts)), most, cancel)?;
        let unusable = |reason: &str, then| self.client.unusable(path, &server.redacted(reason), then);
        let vectors = api::vectors(server.kind, &answer, texts.len())
            .map_err(|api::Unusable { reason, then }| unusable(&reason, then))?;
        // Whoever loads a model may load another one than before.
        if self.width > 0 && vectors.loaded && self.is_replaced(Duration::ZERO, cancel) {
            return Err(RunError { error: self.client.replaced(path), then: Then::Nothing });
        }
        let expected = if self.width > 0 { Some(self.width) } else { server.dimensions };
        match expected.filter(|expected| *expected != vectors.width) {
            Some(expected) => {
                let reason = format!("its vectors have {} values where {expected} are expected", vectors.width);
                Err(unusable(&reason, Then::Nothing))
            }
            None => Ok(vectors),
        }
    }
}

impl Model for RemoteModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn run(&self, batch: &[&Tokens], cancel: &Cancel) -> Result<Vec<Numbers>, RunError> {
        let texts: Vec<&str> = batch.iter().map(|tokens| tokens.text.as_deref().unwrap_or_default()).collect();
        let rows = texts.len();
        let most = (rows * self.width) as u64 * BYTES_PER_VALUE + BYTES_BESIDE;
        let vectors = self.vectors(&texts, most, cancel);
        match &vectors {
            Ok(_) => {
                self.answered.fetch_max(rows, Ordering::Relaxed);
            }
            Err(RunError { then: Then::Halves, .. }) => {
                self.refused.fetch_min(rows.div_ceil(2), Ordering::Relaxed);
            }
            Err(_) => {}
        }
        let Vectors { values, width, .. } = vectors?;
        if self.head.dimensions.is_none() && !self.head.normalize {
            return Ok(Numbers::dense(&values, width));
        }
        let mut changed = Vec::with_capacity(rows * self.info.dimensions);
        for vector in values.chunks_exact(width) {
            let mut vector = vector.to_vec();
            self.head.finish(&mut vector);
            changed.extend_from_slice(&vector);
        }
        Ok(Numbers::dense(&changed, self.info.dimensions))
    }

    fn bytes(&self, rows: usize, longest: usize) -> u64 {
        // The request in JSON, and the answer in JSON and as numbers.
        (rows * (longest * 8 + self.width * 32)) as u64 + (16 << 10)
    }

    fn parallel(&self, _cores: usize) -> usize {
        self.concurrency + BESIDE
    }

    fn most_rows(&self) -> usize {
        // What was answered once is not too much, whatever was refused since: that may have been the texts.
        let fits = self.refused.load(Ordering::Relaxed).max(self.answered.load(Ordering::Relaxed));
        fits.min(self.max_items)
    }

    fn most_weight(&self) -> Option<usize> {
        Some(self.max_tokens.unwrap_or(usize::MAX))
    }

    fn shrink(&self) {}

    fn is_replaced(&self, ago: Duration, cancel: &Cancel) -> bool {
        let digest = self.info.remote.as_ref().and_then(|remote| remote.digest.as_deref());
        // With a fingerprint of the user's, whatever is there counts as the same.
        let Some(digest) = digest.filter(|_| self.server.fingerprint.is_none()) else { return false };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.replaced.load(Ordering::Relaxed) && seen.elapsed() >= ago {
            let now = digest_now(&self.server, &self.client, cancel);
            *seen = Instant::now();
            self.replaced.store(now.is_some_and(|now| now != digest), Ordering::Relaxed);
        }
        self.replaced.load(Ordering::Relaxed)
    }
}

fn least(one: usize, other: Option<usize>) -> usize {
    other.map_or(one, |other| one.min(other))
}

/// What the server says about the model. A server that does not know the question is not asked: whether it can embed is seen
/// when it shall.
fn told(server: &Server, client: &Client, cancel: &Cancel) -> Result<Told> {
    let ask = |path: &str, body: Option<Vec<u8>>| match client.ask(path, body, MOST_TOLD, cancel) {
        Ok(answer) => Ok(serde_json::from_slice::<Value>(&answer).ok()),
        Err(RunError { error: Error::Backend { fault: Fault::Rejected, .. }, .. }) => Ok(None),
        Err(RunError { error, .. }) => Err(error),
    };
    match (server.kind, &server.model) {
        (Kind::Ollama, Some(model)) => {
            let body = serde_json::json!({ "model": model }).to_string().into_bytes();
            let shown = ask("/api/show", Some(body))?.map(|answer| api::shown_by_ollama(&answer)).unwrap_or_default();
            let digest = ask("/api/tags", None)?.and_then(|answer| api::digest_by_ollama(&answer, model));
            Ok(Told { digest, ..shown })
        }
        (Kind::Tei, _) => Ok(ask("/info", None)?.map(|answer| api::told_by_tei(&answer)).unwrap_or_default()),
        _ => Ok(Told::default()),
    }
}

/// The digest of the model that the server has now, where it says so.
fn digest_now(server: &Server, client: &Client, cancel: &Cancel) -> Option<String> {
    let ask = |path: &str| serde_json::from_slice::<Value>(&client.glance(path, MOST_TOLD, cancel)?).ok();
    match (server.kind, &server.model) {
        (Kind::Ollama, Some(model)) => api::digest_by_ollama(&ask("/api/tags")?, model),
        (Kind::Tei, _) => api::told_by_tei(&ask("/info")?).digest,
        _ => None,
    }
}

/// What tells the vectors apart from all others.
fn fingerprint(server: &Server, told: &Told, info: &ModelInfo) -> Fingerprint {
    let number = |value: usize| (value as u64).to_le_bytes();
    let builder = match server.fingerprint.as_deref() {
        // One that was told by `getModelInfo` stands as it is.
        Some(given) => match Fingerprint::parse(given) {
            Some(fingerprint) => return fingerprint,
            None => Fingerprint::builder().field("given", given),
        },
        None => Fingerprint::builder()
            .field("kind", server.kind.as_str())
            .field("origin", server.url.origin())
            .field("path", &server.url.path)
            .field("model", server.model.as_deref().unwrap_or_default())
            .field("digest", told.digest.as_deref().unwrap_or_default()),
    };
    let asked = server.dimensions.map_or_else(Vec::new, |dimensions| number(dimensions).to_vec());
    builder
        .field("asked dimensions", asked)
        .field("dimensions", number(info.dimensions))
        .field("normalize", server.normalize.map_or("as it is", |normalize| if normalize { "yes" } else { "no" }))
        .field("prompt", &server.prompts.document)
        .field("query prompt", &server.prompts.query)
        .field("preparation", text::PREPARATION_VERSION.to_le_bytes())
        .finish()
}
