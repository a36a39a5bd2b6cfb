//! Models that run on a server: Ollama, whatever speaks OpenAI's API, text-embeddings-inference. Each is a model like any
//! other, but for its tokens, which nobody else knows.

mod api;
mod client;
mod connections;
#[cfg(fuzzing)]
pub mod fuzzing;
mod model;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::http::{Secret, Url, clean, variable};
use super::{Model, ModelOptions, Prompts};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Where Ollama listens.
const OLLAMA: &str = "http://127.0.0.1:11434";

/// Where OpenAI's own models are.
const OPENAI: &str = "https://api.openai.com/v1";

/// Texts of a request: what text-embeddings-inference takes by default, and enough for the way there to cost little.
const BATCH_ITEMS: usize = 32;

const CONCURRENCY: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(60);
const RETRIES: u32 = 3;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ollama's own API.
    Ollama,
    /// OpenAI's API, whoever offers it.
    OpenAi,
    /// That of text-embeddings-inference.
    Tei,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ollama, Self::OpenAi, Self::Tei];

    /// The spelling in options, and before the name of a model.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::OpenAi => "openai",
            Self::Tei => "tei",
        }
    }
}

/// What the user says about a server; what is `None` is read from the environment, or asked of the server.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RemoteOptions {
    /// What it speaks.
    pub kind: Option<Kind>,
    /// Where it is.
    pub url: Option<Secret>,
    /// What it calls the model.
    pub model: Option<String>,
    /// What it knows the user by.
    pub api_key: Option<Secret>,
    /// Sent with every request.
    pub headers: Vec<(String, Secret)>,
    /// The length of vectors that it is asked for.
    pub dimensions: Option<usize>,
    /// Most texts of a request.
    pub max_batch_items: Option<usize>,
    /// Most tokens of a request, as far as they can be guessed from the length of its texts.
    pub max_batch_tokens: Option<usize>,
    /// Requests at a time.
    pub concurrency: Option<usize>,
    /// How long an answer may take.
    pub timeout: Option<Duration>,
    /// How often a request is made again that came to nothing.
    pub retries: Option<u32>,
    /// What tells the vectors apart from those of other models, instead of the server, the name and the digest.
    pub fingerprint: Option<String>,
}

impl RemoteOptions {
    /// The name of the model that they are about, where `path` is what else was said about it.
    ///
    /// # Errors
    /// `INVALID_CONFIG` for what is missing or contradicts itself.
    pub fn name(&self, path: Option<&str>) -> Result<String> {
        let named = path.map(|path| split(path).ok_or(path)).transpose().map_err(|path| {
            let reason = format!("{path} is no model on a server, but `remote` is given: leave one of the two out");
            Error::config("modelPath", reason)
        })?;
        let kind = match (self.kind, named) {
            (Some(kind), Some((other, _))) if kind != other => {
                let reason = format!("it is '{}', but modelPath begins with '{}:'", kind.as_str(), other.as_str());
                return Err(Error::config("remote.kind", reason));
            }
            (Some(kind), _) | (None, Some((kind, _))) => kind,
            (None, None) => return Err(missing("kind", "'ollama', 'openai' or 'tei'")),
        };
        let (option, own, what) = match kind {
            Kind::Tei => ("url", self.url.as_ref().map(|Secret(url)| url), "where the server is"),
            _ => ("model", self.model.as_ref(), "what the server calls the model"),
        };
        match (own, named) {
            (Some(own), Some((_, name))) if own != name => Err(Error::config(
                format!("remote.{option}"),
                "it is not the one that modelPath names: leave one of the two out",
            )),
            (Some(name), _) => Ok(format!("{}:{name}", kind.as_str())),
            (None, Some((_, name))) => Ok(format!("{}:{name}", kind.as_str())),
            (None, None) => Err(missing(option, what)),
        }
    }
}

fn missing(option: &str, what: &str) -> Error {
    Error::config(format!("remote.{option}"), format!("it is missing: {what}"))
}

/// The kind and the rest of a model's name, if it is on a server.
fn split(id: &str) -> Option<(Kind, &str)> {
    Kind::ALL.into_iter().find_map(|kind| Some((kind, id.strip_prefix(kind.as_str())?.strip_prefix(':')?)))
}

/// Whether `id` names a model on a server.
pub(super) fn names(id: &str) -> bool {
    split(id).is_some()
}

/// Refuses what looks like a model on a server of a kind that is not known, and is no path.
pub(super) fn check_scheme(id: &str, path: &Path) -> Result<()> {
    let Some((scheme, rest)) = id.split_once(':') else { return Ok(()) };
    // A single letter is a drive.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if scheme.len() < 2 || !scheme.chars().all(plain) || path.exists() {
        return Ok(());
    }
    let hint = match scheme {
        "http" | "https" => format!("pass 'tei:{}', or remote: {{ kind, url, model }}; ", clean(id)),
        _ if rest.is_empty() => String::new(),
        _ => format!("there is no kind of server '{scheme}', and no such file; "),
    };
    let known = "known are 'ollama:NAME', 'openai:NAME', 'tei:URL', 'builtin', paths, and ids of models on the hub";
    Err(Error::config("modelPath", format!("{}: {hint}{known}", clean(id))))
}

/// A model on a server, as far as it is known without asking.
#[derive(Debug, Clone)]
pub struct Server {
    /// The model as the user named it, without anything secret.
    id: String,
    kind: Kind,
    url: Url,
    /// What the server calls the model; `None` where it has but one.
    model: Option<String>,
    /// Headers that nobody else may see.
    secrets: Vec<(String, Secret)>,
    /// Whatever must not be shown, should the server repeat it.
    hidden: Vec<Secret>,
    prompts: Prompts,
    normalize: Option<bool>,
    /// Keep only the first so many values.
    kept: Option<usize>,
    max_length: Option<usize>,
    dimensions: Option<usize>,
    max_items: usize,
    max_tokens: Option<usize>,
    concurrency: usize,
    timeout: Duration,
    retries: u32,
    fingerprint: Option<String>,
}

impl Server {
    /// The one that `id` names, if it does. Nothing is asked of it.
    pub(super) fn named(id: &str, options: &ModelOptions) -> Result<Option<Self>> {
        let Some((kind, name)) = split(id) else { return Ok(None) };
        // What is said about a server of another kind is not about this one.
        let remote = if options.remote.kind.is_none_or(|given| given == kind) {
            options.remote.clone()
        } else {
            RemoteOptions::default()
        };
        check_local_options(id, options)?;
        let (url, from) = match (kind, &remote.url) {
            (Kind::Tei, _) => (Some(name.to_owned()), "modelPath"),
            (_, Some(Secret(url))) => (Some(url.clone()), "remote.url"),
            (Kind::Ollama, None) => (variable("OLLAMA_HOST").map(|host| ollama_url(&host)), "OLLAMA_HOST"),
            (Kind::OpenAi, None) => (variable("OPENAI_BASE_URL"), "OPENAI_BASE_URL"),
        };
        let default = if kind == Kind::OpenAi { OPENAI } else { OLLAMA };
        let mut url = Url::parse(url.as_deref().unwrap_or(default).trim()).ok_or_else(|| {
            // Not shown: whatever it is, there may be a key in it.
            Error::config(from, "it is not an http or https URL, such as http://localhost:8080")
        })?;
        url.path = base_path(kind, &url.path);
        if kind != Kind::Tei && name.trim().is_empty() {
            return Err(Error::config("modelPath", format!("'{id}' names no model: pass '{}NAME'", id.trim())));
        }
        let key = remote.api_key.or_else(|| match kind {
            Kind::OpenAi => variable("OPENAI_API_KEY").map(|key| Secret::new(key.trim().to_owned())),
            _ => None,
        });
        if key.as_ref().is_some_and(|Secret(key)| key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Error::config("OPENAI_API_KEY", "the key has characters in it that no key has"));
        }
        let mut hidden: Vec<Secret> =
            key.iter().cloned().chain(remote.headers.iter().map(|(_, value)| value.clone())).collect();
        hidden.extend(url.secrets().map(|secret| Secret::new(secret.to_owned())));
        if let Some((user, _)) = url.authority.rsplit_once('@') {
            hidden.push(Secret::new(BASE64_STANDARD.encode(user)));
        }
        // What the user writes wins over what is made of the key.
        let own = remote.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        let bearer = key.filter(|_| !own).map(|key| ("authorization".to_owned(), key.bearer()));
        let secrets = bearer.into_iter().chain(remote.headers).collect();
        Ok(Some(Self {
            id: if kind == Kind::Tei { format!("tei:{}", clean(&url.at(""))) } else { id.to_owned() },
            model: if kind == Kind::Tei { remote.model } else { Some(name.to_owned()) },
            kind,
            url,
            secrets,
            hidden,
            prompts: Prompts {
                document: options.prompts.document.clone().unwrap_or_default(),
                query: options.prompts.query.clone().unwrap_or_default(),
            },
            normalize: options.normalize,
            kept: options.dimensions,
            max_length: options.max_length,
            dimensions: remote.dimensions,
            max_items: remote.max_batch_items.unwrap_or(BATCH_ITEMS),
            max_tokens: remote.max_batch_tokens,
            concurrency: remote.concurrency.unwrap_or(CONCURRENCY),
            timeout: remote.timeout.unwrap_or(TIMEOUT),
            retries: remote.retries.unwrap_or(RETRIES),
            fingerprint: remote.fingerprint,
        }))
    }

    /// The model as the user named it, without anything secret.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// What to put before texts.
    pub(super) fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// Asks it about the model, and has it embed something. Blocks.
    pub(super) fn load(&self, cancel: &Cancel) -> Result<Arc<dyn Model>> {
        Ok(Arc::new(model::RemoteModel::load(self, cancel)?))
    }

    /// What a server says, without what it must not repeat.
    fn redacted(&self, text: &str) -> String {
        // What is that short would be found in every other word.
        let hidden = self.hidden.iter().map(|Secret(secret)| secret).filter(|secret| secret.len() >= 4);
        hidden.fold(text.to_owned(), |text, secret| {
            spellings(secret).iter().fold(text, |text, spelling| text.replace(spelling.as_str(), "…"))
        })
    }
}

/// How servers write it in URLs, JSON and HTML.
fn spellings(secret: &str) -> Vec<String> {
    let each = |spell: &dyn Fn(char) -> Option<String>| {
        secret.chars().map(|char| spell(char).unwrap_or_else(|| char.to_string())).collect::<String>()
    };
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_.~".contains(char);
    let percent = |char: char| {
        let bytes = |char: char| char.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        (!is_plain(char)).then(|| bytes(char))
    };
    let named = |char: char| match char {
        '&' => Some("&amp;".to_owned()),
        '<' => Some("&lt;".to_owned()),
        '>' => Some("&gt;".to_owned()),
        '"' => Some("&quot;".to_owned()),
        _ => None,
    };
    let numbered = |char: char| (!is_plain(char)).then(|| format!("&#{};", u32::from(char)));
    let hexadecimal = |char: char| (!is_plain(char)).then(|| format!("&#x{:X};", u32::from(char)));
    let mut all = vec![
        secret.to_owned(),
        each(&percent),
        each(&|char| percent(char).map(|code| code.to_lowercase())),
        secret.replace('/', "\\/"),
        each(&named),
        each(&numbered),
        each(&hexadecimal),
        each(&|char| hexadecimal(char).map(|code| code.to_lowercase())),
    ];
    all.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
    all.dedup();
    all
}

/// Refuses options that only a model has which runs here.
fn check_local_options(id: &str, options: &ModelOptions) -> Result<()> {
    let given = [
        ("revision", options.hub.revision.is_some()),
        ("localFilesOnly", options.hub.local_files_only),
        ("dtype", options.dtype.is_some()),
        ("pooling", !options.pooling.is_empty()),
        ("promptName", options.prompts.name.is_some()),
        ("intraOpThreads", options.intra_op_threads.is_some()),
        ("executionProviders", !options.providers.is_empty() || options.any_provider),
        ("deviceMemoryLimit", options.device_memory.is_some()),
        ("engine", options.engine.is_some()),
        ("precision", options.precision.is_some()),
        ("mixPrecision", options.mix_precision),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((option, _)) => {
            Err(Error::config(option, format!("{} runs on a server, which decides that: leave it out", clean(id))))
        }
        None => Ok(()),
    }
}

/// What `OLLAMA_HOST` means, as Ollama has it: scheme, host and port may each be left out, and an address to listen on is one
/// of this machine.
fn ollama_url(host: &str) -> String {
    let host = host.trim().trim_matches(['"', '\'']);
    let (scheme, rest, port) = match host.split_once("://") {
        Some((scheme @ "https", rest)) => (scheme, rest, "443"),
        Some((scheme, rest)) => (scheme, rest, "80"),
        None => ("http", host, "11434"),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, given)) if !name.ends_with(':') && given.bytes().all(|byte| byte.is_ascii_digit()) => (name, given),
        _ => (authority, port),
    };
    let name = match name {
        "" | "0.0.0.0" => "127.0.0.1",
        "[::]" | "::" => "[::1]",
        name => name,
    };
    format!("{scheme}://{name}:{port}/{path}")
}

/// Where the API begins, when this is what the user writes: some write the address that is asked, some only the host.
fn base_path(kind: Kind, path: &str) -> String {
    let ends: &[&str] = match kind {
        Kind::Ollama => &["/api/embed", "/api"],
        Kind::OpenAi => &["/embeddings"],
        Kind::Tei => &["/embed"],
    };
    let path = ends.iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path).trim_end_matches('/');
    if kind == Kind::OpenAi && path.is_empty() { "/v1".to_owned() } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(remote: RemoteOptions) -> ModelOptions {
        ModelOptions { remote, ..ModelOptions::default() }
    }

    fn named(id: &str, remote: RemoteOptions) -> Server {
        Server::named(id, &options(remote)).unwrap().unwrap()
    }

    fn url(text: &str) -> RemoteOptions {
        RemoteOptions { url: Some(Secret::new(text.to_owned())), ..RemoteOptions::default() }
    }

    #[test]
    fn the_host_of_ollama_is_read_as_ollama_does() {
        for (host, expected) in [
            ("", "http://127.0.0.1:11434/"),
            ("box", "http://box:11434/"),
            ("0.0.0.0", "http://127.0.0.1:11434/"),
            (":1234", "http://127.0.0.1:1234/"),
            ("box:1/sub", "http://box:1/sub"),
            ("https://box", "https://box:443/"),
            ("http://box", "http://box:80/"),
            ("[::]:5", "http://[::1]:5/"),
            ("\"box:7\"", "http://box:7/"),
        ] {
            assert_eq!(ollama_url(host), expected, "{host}");
        }
    }

    #[test]
    fn addresses_may_be_written_with_or_without_the_path_of_the_api() {
        for (kind, given, asked) in [
            ("ollama:m", "http://host:1/", "http://host:1/api/embed"),
            ("ollama:m", "http://host:1/api", "http://host:1/api/embed"),
            ("ollama:m", "http://host:1/sub/api/embed", "http://host:1/sub/api/embed"),
            ("openai:m", "http://host:1", "http://host:1/v1/embeddings"),
            ("openai:m", "http://host:1/v1/", "http://host:1/v1/embeddings"),
            ("openai:m", "http://host:1/v1/embeddings", "http://host:1/v1/embeddings"),
            ("openai:m", "https://host/d?api-version=1", "https://host/d/embeddings?api-version=1"),
        ] {
            let server = named(kind, url(given));
            assert_eq!(server.url.at(api::embed_path(server.kind)), asked);
        }
        assert_eq!(named("tei:http://host:1/embed", RemoteOptions::default()).url.at("/info"), "http://host:1/info");
    }

    #[test]
    fn what_is_secret_is_in_no_name_and_in_nothing_that_is_said() {
        let mut remote = url("http://user:pass-word@host/v1?key=hidden-value");
        remote.api_key = Some(Secret::new("sk-12345678".to_owned()));
        remote.headers = vec![("x-token".to_owned(), Secret::new("abcdefgh".to_owned()))];
        let server = named("openai:m", remote);
        let said = server.redacted("Wrong sk-12345678, abcdefgh, pass-word, hidden-value, dXNlcjpwYXNzLXdvcmQ= or m");
        assert_eq!(said, "Wrong …, …, …, …, … or m");
        let shown = format!("{server:?}");
        for secret in ["sk-12345678", "abcdefgh"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(named("tei:http://user:pass@host:1/?a=b", RemoteOptions::default()).id, "tei:http://host:1/");
    }

    #[test]
    fn a_name_and_options_that_contradict_each_other_are_refused() {
        let of = |kind, model: Option<&str>| RemoteOptions {
            kind,
            model: model.map(str::to_owned),
            ..RemoteOptions::default()
        };
        let ollama = Some(Kind::Ollama);
        assert_eq!(of(ollama, Some("m")).name(None), Ok("ollama:m".to_owned()));
        assert_eq!(of(None, None).name(Some("ollama:m")), Ok("ollama:m".to_owned()));
        assert_eq!(url("http://host").name(Some("tei:http://host")), Ok("tei:http://host".to_owned()));
        for (remote, path) in [
            (of(None, None), None),
            (of(ollama, None), None),
            (of(ollama, Some("m")), Some("ollama:n")),
            (of(ollama, None), Some("openai:m")),
            (of(ollama, Some("m")), Some("builtin")),
            (url("http://host"), Some("tei:http://other")),
            (of(Some(Kind::Tei), None), None),
        ] {
            assert_eq!(remote.name(path).unwrap_err().code(), "INVALID_CONFIG", "{remote:?} {path:?}");
        }
    }

    #[test]
    fn an_unknown_scheme_is_no_path() {
        let nowhere = Path::new("/nowhere");
        for id in ["cohere:embed", "http://host/", "Ollama:m", "ollama2:m"] {
            let error = check_scheme(id, nowhere).unwrap_err();
            assert!(error.to_string().contains("'ollama:NAME'"), "{error}");
        }
        for path in ["models/x", "C:\\models", "a b:c", "model"] {
            assert_eq!(check_scheme(path, nowhere), Ok(()), "{path}");
        }
    }

    #[test]
    fn what_only_a_model_has_that_runs_here_is_refused() {
        let given = ModelOptions { dtype: Some(crate::model::Dtype::ALL[0]), ..ModelOptions::default() };
        let error = Server::named("ollama:m", &given).unwrap_err();
        assert_eq!((error.code(), error.details()["option"].as_str()), ("INVALID_CONFIG", Some("dtype")));
    }
}
