//! The hub's protocol.

use std::io::Read;
use std::time::Duration;

use super::retry::retried;
use super::{Listing, Settings, not_here};
use crate::cancel::{Cancel, HookGuard};
use crate::error::{Error, Result};
use crate::model::content;
use crate::model::http::{Answer, Ask, Http, Secret, Trouble, WaitLimit, clean};

/// A listing names each file of a repository; the longest known have some megabytes.
const MAX_LISTING: u64 = 64 << 20;

/// What is asked for first.
const LISTING: &str = "the list of files";

/// What the hub says about a file before it is fetched.
pub(super) struct Meta {
    /// KeyHasher the content: its SHA-256, or for small files git's own hash.
    pub etag: String,
    pub size: u64,
}

/// Asks a hub. A call that is cancelled ends at once.
pub(super) struct Client<'a> {
    http: Http,
    settings: &'a Settings,
    secrets: Vec<(String, Secret)>,
    cancel: &'a Cancel,
    _hook: HookGuard,
}

impl<'a> Client<'a> {
    pub fn new(settings: &'a Settings, cancel: &'a Cancel) -> Result<Self> {
        let http = Http::new(&settings.endpoint, WaitLimit { silence: Some(settings.read_timeout), whole: None })?;
        let hook = cancel.on_cancel({
            let http = http.clone();
            move |_| http.stop()
        });
        let bearer = |token: &Secret| ("authorization".to_owned(), token.bearer());
        Ok(Self { http, settings, secrets: settings.token.iter().map(bearer).collect(), cancel, _hook: hook })
    }

    /// The commit and the files of a revision.
    pub fn listing(&self, name: &str, revision: &str) -> Result<Listing> {
        let url = format!("{}/api/models/{name}/revision/{}", self.settings.endpoint, encoded(revision, true));
        let ask = || {
            let bytes = self.request("GET", &url, None, true)?.read(MAX_LISTING)?.unwrap_or_default();
            serde_json::from_slice(&bytes).map_err(|error| {
                let reason = format!("the answer is not a listing of a model ({error}): check HF_ENDPOINT");
                Trouble::Final(Error::model(&url, reason))
            })
        };
        retried(self.cancel, ask).map_err(|trouble| self.failed(trouble, name, LISTING, &url))
    }

    /// Where a file of a commit is.
    pub fn url(&self, name: &str, commit: &str, file: &str) -> String {
        format!("{}/{name}/resolve/{commit}/{}", self.settings.endpoint, encoded(file, false))
    }

    /// What its server says about a file.
    pub fn meta(&self, url: &str) -> Result<Meta, Trouble> {
        let answer = self.request("HEAD", url, None, false)?;
        let etag = answer.header("x-linked-etag").or_else(|| answer.header("etag")).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
        let size = answer.header("x-linked-size").or_else(|| answer.header("content-length"));
        match size.and_then(|size| size.parse().ok()) {
            Some(size) if content::is_name(&etag) => Ok(Meta { etag, size }),
            _ => {
                let reason = "the server does not say its size and hash, so that it cannot be verified: check HF_ENDPOINT, or fetch it by other means and pass the path of its directory";
                Err(Error::model(clean(url), reason).into())
            }
        }
    }

    /// Its bytes beginning with `from`, and where they really begin.
    pub fn bytes(&self, url: &str, from: u64) -> Result<(u64, impl Read + use<>), Trouble> {
        let answer = self.request("GET", url, (from > 0).then_some(from), true)?;
        let begins = answer.header("content-range").and_then(|range| {
            let (first, _) = range.strip_prefix("bytes ")?.split_once('-')?;
            first.parse().ok()
        });
        let partial = answer.status() == 206;
        Ok((if partial { begins.unwrap_or(from) } else { 0 }, answer.into_reader()))
    }

    /// An answer that is not a redirect and not an error. Where `through` is false, one that already tells about the file is
    /// taken though it redirects.
    fn request(&self, method: &'static str, url: &str, from: Option<u64>, through: bool) -> Result<Answer, Trouble> {
        let range = from.map(|from| format!("bytes={from}-"));
        let headers: Vec<(&str, &str)> = range.iter().map(|range| ("range", range.as_str())).collect();
        let ends = if through { |_: &Answer| false } else { told };
        self.http.ask(&Ask { method, url, headers: &headers, secrets: &self.secrets, body: None, ends }, self.cancel)
    }

    /// The error that a user gets.
    pub fn failed(&self, trouble: Trouble, name: &str, file: &str, url: &str) -> Error {
        if let Err(reason) = self.cancel.check() {
            return reason;
        }
        let (status, reason) = match trouble {
            Trouble::Final(error) => return error,
            Trouble::Network(reason) | Trouble::Late(reason) | Trouble::Distrust(reason) => (
                None,
                format!(
                    "{reason}; check the connection (HTTPS_PROXY, NODE_EXTRA_CA_CERTS, HF_ENDPOINT), or pass the path of a model directory"
                ),
            ),
            Trouble::Status { status, said, retry_after } => (Some(status), self.explained(status, &said, retry_after)),
        };
        // A path that is misspelt looks like a model's name.
        let reason = if file == LISTING { format!("{reason} ({})", not_here(name)) } else { reason };
        Error::Hub { file: format!("{file} of {name}"), url: clean(url), status, reason }
    }

    fn explained(&self, status: u16, said: &str, retry_after: Option<Duration>) -> String {
        let said = if said.is_empty() { String::new() } else { format!(", {said:?}") };
        let token = match self.settings.token {
            Some(_) => "check that HF_TOKEN may read it",
            None => "set HF_TOKEN to a token that may read it",
        };
        match status {
            300..=399 => format!(
                "it redirects ({status}{said}): check HF_ENDPOINT and the proxies in between, or pass the path of a model directory"
            ),
            401 | 403 => format!(
                "the hub refuses it ({status}{said}): if the name is right, {token} and accept the model's terms on its page, or pass the path of a model directory"
            ),
            404 => format!(
                "there is no such model, revision or file ({status}{said}): check the spelling, or, for a private one, {token}"
            ),
            429 => {
                let later = retry_after.map_or("later".to_owned(), |wait| format!("in {} s", wait.as_secs()));
                format!("too many requests ({status}{said}): try again {later}, or set HF_TOKEN for a higher limit")
            }
            500.. => format!("the server fails ({status}{said}): try again later, or set HF_ENDPOINT to a mirror"),
            _ => format!("the server answers {status}{said}: check HF_ENDPOINT, or pass the path of a model directory"),
        }
    }
}

/// Whether an answer says itself what the file is that it redirects to.
fn told(answer: &Answer) -> bool {
    ["x-linked-etag", "x-linked-size"].iter().all(|name| answer.header(name).is_some())
}

/// Everything but plain characters as `%xx`; slashes, too, where they do not separate.
fn encoded(text: &str, slashes: bool) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte.into()),
            b'/' if !slashes => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        assert_eq!(encoded("refs/pr/1", true), "refs%2Fpr%2F1");
        assert_eq!(encoded("a b/ü?.json", false), "a%20b/%C3%BC%3F.json");
    }
}
