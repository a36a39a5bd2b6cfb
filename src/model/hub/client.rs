//! The hub's protocol: the only file that names the HTTP client.

use std::env;
use std::fs;
use std::io::{self, Read};
use std::time::{Duration, Instant, SystemTime};

use ureq::config::Config;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy, ProxyProtocol};

use super::{Listing, Settings, not_here, variable};
use crate::cancel::{Cancel, HookGuard};
use crate::error::{Error, Result};

use super::download::retried;
use crate::model::content;

/// The hub's own tools follow no more.
const MAX_REDIRECTS: usize = 10;

/// How long finding and reaching a server may take.
const CONNECT: Duration = Duration::from_secs(10);

/// A listing names each file of a repository; the longest known have some megabytes.
const MAX_LISTING: u64 = 64 << 20;

/// What is asked for first.
const LISTING: &str = "the list of files";

/// Who may read the token: the scheme, host and port of a URL.
type Origin = (Option<String>, Option<String>, Option<u16>);

/// What a request came to grief on.
pub(super) enum Trouble {
    /// There was no answer, or not all of it.
    Network(String),
    /// The server's certificate is not one that is trusted, and will not be the next time.
    Distrust(String),
    /// The answer is no.
    Status { status: u16, said: String, retry_after: Option<Duration> },
    /// Trying again is of no use.
    Final(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// What the hub says about a file before it is fetched.
pub(super) struct Meta {
    /// Names the content: its SHA-256, or for small files git's own hash.
    pub etag: String,
    pub size: u64,
}

/// Asks a hub. A call that is cancelled ends at once.
pub(super) struct Client<'a> {
    agent: Agent,
    settings: &'a Settings,
    cancel: &'a Cancel,
    _hook: HookGuard,
}

impl<'a> Client<'a> {
    pub fn new(settings: &'a Settings, cancel: &'a Cancel) -> Result<Self> {
        let tls = TlsConfig::builder().root_certs(roots()).build();
        let config = Config::builder()
            .user_agent(concat!("embedcore/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // Followed here, because the token must not be.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy(&settings.endpoint)?)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(settings.patience))
            .timeout_per_write(Some(settings.patience))
            .tls_config(tls)
            .build();
        let agent = config.new_agent();
        let hook = cancel.on_cancel({
            let agent = agent.clone();
            move |_| agent.clone().shutdown()
        });
        Ok(Self { agent, settings, cancel, _hook: hook })
    }

    /// The commit and the files of a revision.
    pub fn listing(&self, name: &str, revision: &str) -> Result<Listing> {
        let url = format!("{}/api/models/{name}/revision/{}", self.settings.endpoint, encoded(revision, true));
        let ask = || {
            let mut response = self.request("GET", &url, None, true)?;
            let mut bytes = Vec::new();
            let body = response.body_mut().as_reader();
            let read = body.take(MAX_LISTING).read_to_end(&mut bytes);
            read.map_err(|error| Trouble::Network(error.to_string()))?;
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
        let response = self.request("HEAD", url, None, false)?;
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let etag = text("x-linked-etag").or_else(|| text("etag")).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
        let size = text("x-linked-size").or_else(|| text("content-length")).and_then(|size| size.parse().ok());
        match size {
            Some(size) if content::is_name(&etag) => Ok(Meta { etag, size }),
            _ => {
                let reason = "the server does not say its size and hash, so that it cannot be verified: check HF_ENDPOINT, or fetch it by other means and pass the path of its directory";
                Err(Error::model(clean(url), reason).into())
            }
        }
    }

    /// Its bytes beginning with `from`, and where they really begin.
    pub fn bytes(&self, url: &str, from: u64) -> Result<(u64, impl Read + use<>), Trouble> {
        let response = self.request("GET", url, (from > 0).then_some(from), true)?;
        let begins = response.headers().get("content-range").and_then(|range| range.to_str().ok()).and_then(|range| {
            let (first, _) = range.strip_prefix("bytes ")?.split_once('-')?;
            first.parse().ok()
        });
        let partial = response.status().as_u16() == 206;
        Ok((if partial { begins.unwrap_or(from) } else { 0 }, response.into_body().into_reader()))
    }

    /// An answer that is not a redirect and not an error. Where `through` is false, one that already tells about the file is
    /// taken though it redirects.
    fn request(&self, method: &str, url: &str, from: Option<u64>, through: bool) -> Result<Response<Body>, Trouble> {
        let home = url.parse::<Uri>().map(|uri| origin(&uri)).ok();
        let mut url = url.to_owned();
        let mut status = 0;
        for _ in 0..=MAX_REDIRECTS {
            self.cancel.check()?;
            let uri: Uri = url.parse().map_err(|_| Trouble::Network("it is not a URL".to_owned()))?;
            let mut request = if method == "HEAD" { self.agent.head(&uri) } else { self.agent.get(&uri) };
            request = request.header("accept-encoding", "identity");
            if let Some(token) = &self.settings.token
                && home.as_ref() == Some(&origin(&uri))
            {
                request = request.header("authorization", format!("Bearer {}", token.0));
            }
            if let Some(from) = from {
                request = request.header("range", format!("bytes={from}-"));
            }
            let answer = request.call();
            self.cancel.check()?;
            let response = answer.map_err(|error| match plainly(&error) {
                // The library has no kind of its own for these.
                reason if reason.contains("certificate") => Trouble::Distrust(reason),
                reason => Trouble::Network(reason),
            })?;
            status = response.status().as_u16();
            match status {
                200..=299 => return Ok(response),
                300..=399 if !through && told(&response) => return Ok(response),
                300..=399 => {
                    let location = response.headers().get("location").and_then(|value| value.to_str().ok());
                    let next = location.and_then(|location| resolved(&uri, location));
                    let next = next.filter(|next| next.starts_with("https://") || url.starts_with("http://"));
                    url = next.ok_or_else(|| {
                        let said = "to nowhere that may be followed".to_owned();
                        Trouble::Status { status, said, retry_after: None }
                    })?;
                }
                _ => {
                    let (parts, mut body) = response.into_parts();
                    let said = said(&parts.headers, &mut body);
                    return Err(Trouble::Status { status, said, retry_after: retry_after(&parts.headers) });
                }
            }
        }
        Err(Trouble::Status { status, said: format!("more than {MAX_REDIRECTS} times"), retry_after: None })
    }

    /// The error that a user gets.
    pub fn failed(&self, trouble: Trouble, name: &str, file: &str, url: &str) -> Error {
        if let Err(reason) = self.cancel.check() {
            return reason;
        }
        let (status, reason) = match trouble {
            Trouble::Final(error) => return error,
            Trouble::Network(reason) | Trouble::Distrust(reason) => (
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
fn told(response: &Response<Body>) -> bool {
    ["x-linked-etag", "x-linked-size"].iter().all(|name| response.headers().contains_key(*name))
}

/// When a server wants to be asked again: in so many seconds, or at a time by its own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let value = text("retry-after")?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let now = text("date").and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now);
    Some(at.duration_since(now).unwrap_or_default())
}

fn origin(uri: &Uri) -> Origin {
    let lower = |text: &str| text.to_ascii_lowercase();
    let port = uri.port_u16().or(match uri.scheme_str() {
        Some("https") => Some(443),
        _ => Some(80),
    });
    (uri.scheme_str().map(lower), uri.host().map(lower), port)
}

/// A URL without what may be secret: user, password, signature.
pub(super) fn clean(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = host.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}/{path}")
        }
        None => url.to_owned(),
    }
}

/// Where a redirect leads.
fn resolved(from: &Uri, location: &str) -> Option<String> {
    if let Some((scheme, rest)) = location.split_once("://") {
        let scheme = scheme.to_ascii_lowercase();
        return ["http", "https"].contains(&scheme.as_str()).then(|| format!("{scheme}://{rest}"));
    }
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    match location.starts_with('/') {
        true => Some(format!("{scheme}://{authority}{location}")),
        false => {
            let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            Some(format!("{scheme}://{authority}{folder}/{location}"))
        }
    }
}

/// What the server says is wrong, in one short line of plain characters.
fn said(headers: &HeaderMap, body: &mut Body) -> String {
    let header = headers.get("x-error-message").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let text = header.unwrap_or_else(|| {
        let start = beginning(body.as_reader());
        let json: Option<serde_json::Value> = serde_json::from_slice(&start).ok();
        json.and_then(|json| json.get("error")?.as_str().map(str::to_owned)).unwrap_or_default()
    });
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// What comes of an answer within a second, up to 1 KB: nobody waits for the rest of an excuse.
fn beginning(mut body: impl Read) -> Vec<u8> {
    let (begun, mut start) = (Instant::now(), vec![0; 1024]);
    let mut filled = 0;
    while filled < start.len() && begun.elapsed() < Duration::from_secs(1) {
        match body.read(&mut start[filled..]) {
            Ok(read) if read > 0 => filled += read,
            _ => break,
        }
    }
    start.truncate(filled);
    start
}

fn plainly(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "it did not answer in time".to_owned(),
        ureq::Error::HostNotFound => "its host cannot be found".to_owned(),
        ureq::Error::BadUri(_) => "it is not a URL".to_owned(),
        ureq::Error::ConnectProxyFailed(_) => "the proxy refuses to connect".to_owned(),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "it takes no connections".to_owned()
        }
        other => other.to_string(),
    }
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

/// The certificates of this machine and those that the user adds. Slim containers have none: then those that the user
/// adds, else Mozilla's.
fn roots() -> RootCerts {
    let mut all: Vec<Certificate<'static>> = rustls_native_certs::load_native_certs()
        .certs
        .iter()
        .map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned())
        .collect();
    for name in ["NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"] {
        let pem = variable(name).and_then(|path| fs::read(path).ok()).unwrap_or_default();
        all.extend(parse_pem(&pem).flatten().filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        }));
    }
    if all.is_empty() { RootCerts::WebPki } else { RootCerts::new_with_certs(&all) }
}

/// The proxy that the environment names for the endpoint, if any.
fn proxy(endpoint: &str) -> Result<Option<Proxy>> {
    let names: [&'static str; 4] = match endpoint.starts_with("https://") {
        true => ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        // HTTP_PROXY in capitals may come from a request, where this runs as CGI.
        false => ["http_proxy", "http_proxy", "all_proxy", "ALL_PROXY"],
    };
    let Some((name, url)) = names.into_iter().find_map(|name| Some((name, variable(name)?))) else { return Ok(None) };
    let unusable = |_| Error::config(name, "the environment variable is not the URL of an HTTP proxy");
    let proxy = Proxy::new(&url).map_err(unusable)?;
    if !matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) {
        return Err(Error::config(name, "SOCKS proxies are not supported: name an HTTP proxy, or unset it"));
    }
    let mut builder = Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port());
    if let Some(user) = proxy.username() {
        builder = builder.username(user);
    }
    if let Some(password) = proxy.password() {
        builder = builder.password(password);
    }
    let except = env::var("no_proxy").or_else(|_| env::var("NO_PROXY")).unwrap_or_default();
    let mut except: Vec<String> = except.split(',').map(|entry| entry.trim().to_owned()).collect();
    except.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
    for entry in except.iter().filter(|entry| !entry.is_empty()) {
        builder = builder.no_proxy(entry);
        // As curl has it: a domain stands for its hosts.
        if !entry.starts_with(['.', '*']) {
            builder = builder.no_proxy(&format!(".{entry}"));
        }
    }
    builder.build().map(Some).map_err(unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_secrets() {
        assert_eq!(clean("https://user:secret@host:8/a/b?Signature=x#y"), "https://host:8/a/b");
        assert_eq!(clean("http://host"), "http://host/");
    }

    #[test]
    fn redirects_lead_where_they_say() {
        let from: Uri = "https://host:8/a/b?c".parse().unwrap();
        for (location, expected) in [
            ("https://other/x", "https://other/x"),
            ("//other/x", "https://other/x"),
            ("/x?y", "https://host:8/x?y"),
            ("x", "https://host:8/a/x"),
            ("HTTPS://other/x", "https://other/x"),
        ] {
            assert_eq!(resolved(&from, location).as_deref(), Some(expected));
        }
        for location in ["ftp://other/x", "file:///etc/passwd"] {
            assert_eq!(resolved(&from, location), None, "{location}");
        }
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_as_a_date() {
        let asked = |value: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", value.parse().unwrap());
            date.map(|date| headers.insert("date", date.parse().unwrap()));
            retry_after(&headers).map(|pause| pause.as_secs())
        };
        assert_eq!(asked(" 7 ", None), Some(7));
        // By the server's clock, whatever ours says.
        let now = Some("Sun, 06 Nov 1994 08:49:30 GMT");
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(7));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:29 GMT", now), Some(0));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT", None), Some(0));
        for nonsense in ["soon", "-1", "", "1e3"] {
            assert_eq!(asked(nonsense, now), None, "{nonsense}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |url: &str| origin(&url.parse().unwrap());
        assert_eq!(origin("https://Host/a"), origin("https://host:443/b"));
        for other in ["http://host/a", "https://host:444/a", "https://host.evil/a"] {
            assert_ne!(origin("https://host/a"), origin(other));
        }
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encoded("refs/pr/1", true), "refs%2Fpr%2F1");
        assert_eq!(encoded("a b/ü?.json", false), "a%20b/%C3%BC%3F.json");
    }
}
