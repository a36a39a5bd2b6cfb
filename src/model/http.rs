//! HTTP: the only file that names the client. Blocking calls that another thread can end, with the certificates and proxies
//! of this machine.

use std::env;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use ureq::config::Config;
use ureq::http::{HeaderMap, Request, Response, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy, ProxyProtocol};

use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Most redirects that are followed; the hub's own tools follow no more.
const MAX_REDIRECTS: usize = 10;

/// How long finding a server may take, and reaching it.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a connection may be idle before another one is made: less than servers commonly keep theirs.
const IDLE: Duration = Duration::from_secs(4);

/// Characters of an answer that are shown where it is an error.
const SHOWN: usize = 300;

/// Never shown, by no means.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(super) String);

impl Secret {
    /// Keeps `text` to itself.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The header's value that shows it to a server.
    pub(super) fn bearer(&self) -> Self {
        Self(format!("Bearer {}", self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What a request came to grief on.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There was no answer, or not all of it.
    Network(String),
    /// It took longer than it may.
    Late(String),
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

impl From<ureq::Error> for Trouble {
    fn from(error: ureq::Error) -> Self {
        match plainly(&error) {
            reason if matches!(error, ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect)) => {
                Self::Network(reason)
            }
            reason if matches!(error, ureq::Error::Timeout(_)) => Self::Late(reason),
            // The library has no kind of its own for these.
            reason if reason.contains("certificate") => Self::Distrust(reason),
            reason => Self::Network(reason),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        ureq::Error::from(error).into()
    }
}

/// How long a server may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitLimit {
    /// Between two pieces of what it sends or takes.
    pub silence: Option<Duration>,
    /// For all of an answer.
    pub whole: Option<Duration>,
}

/// What is asked for.
pub(super) struct Ask<'a> {
    pub method: &'static str,
    pub url: &'a str,
    /// Told to whoever answers.
    pub headers: &'a [(&'a str, &'a str)],
    /// Told only to the origin that is asked, and never to one that it redirects to.
    pub secrets: &'a [(String, Secret)],
    pub body: Option<&'a [u8]>,
    /// Which redirects are an answer themselves.
    pub ends: fn(&Answer) -> bool,
}

/// A client of one server. Clones share its connections.
#[derive(Clone)]
pub(super) struct Http {
    agent: Agent,
}

impl Http {
    /// For the server at `url`.
    ///
    /// # Errors
    /// `INVALID_CONFIG` naming the variable, where the environment names a proxy that cannot be used.
    pub fn new(url: &str, read_timeout: WaitLimit) -> Result<Self> {
        let config = Config::builder()
            .user_agent(concat!("embedcore/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // Followed here, because secrets must not be.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy(url)?)
            .max_idle_age(IDLE)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(read_timeout.silence)
            .timeout_per_write(read_timeout.silence)
            .timeout_global(read_timeout.whole)
            .tls_config(TlsConfig::builder().root_certs(roots()).build())
            .build();
        Ok(Self { agent: config.new_agent() })
    }

    /// Another one for the same server, with connections of its own.
    pub fn another(&self) -> Self {
        Self { agent: self.agent.config().new_agent() }
    }

    /// Ends whatever is under way, at once. Nothing can be asked afterwards.
    pub fn stop(&self) {
        self.agent.clone().shutdown();
    }

    /// An answer that is not an error and not a redirect, save one that ends there. Blocks.
    pub fn ask(&self, ask: &Ask, cancel: &Cancel) -> Result<Answer, Trouble> {
        let home = ask.url.parse::<Uri>().map(|uri| origin(&uri)).ok();
        let mut url = ask.url.to_owned();
        let mut status = 0;
        for _ in 0..=MAX_REDIRECTS {
            cancel.check()?;
            let uri: Uri = url.parse().map_err(|_| Trouble::Network("it is not a URL".to_owned()))?;
            let mut request = Request::builder().method(ask.method).uri(&uri).header("accept-encoding", "identity");
            for (name, value) in ask.headers {
                request = request.header(*name, *value);
            }
            if home.as_ref() == Some(&origin(&uri)) {
                for (name, Secret(value)) in ask.secrets {
                    request = request.header(name, value);
                }
            }
            let unusable = |error: ureq::http::Error| Trouble::Network(error.to_string());
            let answer = match ask.body {
                Some(body) => self.agent.run(request.body(body).map_err(unusable)?),
                None => self.agent.run(request.body(()).map_err(unusable)?),
            };
            cancel.check()?;
            let answer = Answer(answer?);
            status = answer.status();
            match status {
                200..=299 => return Ok(answer),
                300..=399 if (ask.ends)(&answer) => return Ok(answer),
                // What a browser would turn into a request without a body is of no use.
                300..=399 if ask.body.is_none() || matches!(status, 307 | 308) => {
                    let next = answer.header("location").and_then(|location| resolved(&uri, location));
                    let next = next.filter(|next| next.starts_with("https://") || url.starts_with("http://"));
                    url = next.ok_or_else(|| {
                        let said = "to nowhere that may be followed".to_owned();
                        Trouble::Status { status, said, retry_after: None }
                    })?;
                }
                _ => {
                    let retry_after = retry_after(answer.0.headers());
                    return Err(Trouble::Status { status, said: answer.said(), retry_after });
                }
            }
        }
        Err(Trouble::Status { status, said: format!("more than {MAX_REDIRECTS} times"), retry_after: None })
    }
}

/// What a server answers.
pub(super) struct Answer(Response<Body>);

impl Answer {
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }

    /// Its body, piece by piece.
    pub fn into_reader(self) -> impl Read + use<> {
        self.0.into_body().into_reader()
    }

    /// Its body; `None` if it is longer than `most` bytes.
    pub fn read(self, most: u64) -> Result<Option<Vec<u8>>, Trouble> {
        let length = self.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        // Whoever says that much is coming need not send it.
        let mut bytes = Vec::with_capacity(length.min(most).min(1 << 20) as usize);
        self.into_reader().take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok((bytes.len() as u64 <= most).then_some(bytes))
    }

    /// What it says is wrong, in one short line of plain characters.
    fn said(self) -> String {
        let header = self.header("x-error-message").map(str::to_owned);
        let html = self.header("content-type").is_some_and(|kind| kind.contains("html"));
        let text = header.unwrap_or_else(|| {
            let start = beginning(self.into_reader());
            match serde_json::from_slice(&start) {
                Ok(json) => complaint(&json).unwrap_or_default(),
                // A page is for people; and what looks like JSON is a part of it.
                Err(_) if html || start.starts_with(b"{") || start.starts_with(b"[") => String::new(),
                Err(_) => String::from_utf8_lossy(&start).trim().to_owned(),
            }
        });
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect()
    }
}

/// Where servers put what is wrong: in `error`, `message` or `detail`, or in one within another.
fn complaint(json: &serde_json::Value) -> Option<String> {
    if let Some(text) = json.as_str() {
        return Some(text.to_owned());
    }
    let inner = match json.as_array() {
        Some(list) => list.first(),
        None => ["error", "message", "detail", "msg"].iter().find_map(|name| json.get(name).filter(|it| !it.is_null())),
    };
    complaint(inner?)
}

/// What comes of an answer within a second, up to 4 KB: nobody waits for the rest of an excuse.
fn beginning(mut body: impl Read) -> Vec<u8> {
    let (begun, mut start) = (Instant::now(), vec![0; 4096]);
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

/// Does nothing for a while, or until the work shall stop.
pub(super) fn pause(cancel: &Cancel, duration: Duration) -> Result<()> {
    let (stop, stopped) = mpsc::channel();
    let _hook = cancel.on_cancel(move |_| {
        let _ = stop.send(());
    });
    let _ = stopped.recv_timeout(duration);
    cancel.check()
}

/// Who may read secrets: the scheme, host and port of a URL.
type Origin = (Option<String>, Option<String>, Option<u16>);

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

/// The parts of a URL that are asked by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    /// `http` or `https`.
    pub scheme: String,
    /// User and password, if any; the host, and the port if it is given.
    pub authority: String,
    /// Begins with a slash, or is empty; ends with none.
    pub path: String,
    /// Without the question mark.
    pub query: Option<String>,
}

impl Url {
    /// `None` for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let authority = uri.authority()?;
        if !["http", "https"].contains(&scheme.as_str()) || authority.host().is_empty() {
            return None;
        }
        let path = uri.path().trim_end_matches('/').to_owned();
        Some(Self { scheme, authority: authority.to_string(), path, query: uri.query().map(str::to_owned) })
    }

    /// The origin, as browsers write it.
    pub fn origin(&self) -> String {
        let host = self.authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        let host = match (self.scheme.as_str(), host.rsplit_once(':')) {
            ("http", Some((name, "80"))) | ("https", Some((name, "443"))) => name.to_owned(),
            _ => host,
        };
        format!("{}://{host}", self.scheme)
    }

    /// The URL of what is at `path` below it.
    pub fn at(&self, path: &str) -> String {
        let query = self.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
        format!("{}://{}{}{path}{query}", self.scheme, self.authority, self.path)
    }

    /// What in it is nobody else's to know.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let (user, _) = self.authority.rsplit_once('@').unwrap_or_default();
        let parts = user.split(':').chain(
            self.query.iter().flat_map(|query| query.split('&')).filter_map(|pair| Some(pair.split_once('=')?.1)),
        );
        parts.filter(|part| !part.is_empty())
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

fn plainly(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "it did not answer in time".to_owned(),
        ureq::Error::HostNotFound => "its host cannot be found".to_owned(),
        ureq::Error::BadUri(_) => "it is not a URL".to_owned(),
        ureq::Error::ConnectProxyFailed(_) => "the proxy refuses to connect".to_owned(),
        ureq::Error::Protocol(_) => "what it answers is not HTTP".to_owned(),
        ureq::Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => "it takes no connections".to_owned(),
            _ => error.to_string(),
        },
        other => other.to_string(),
    }
}

pub(super) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
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
pub(super) fn proxy(endpoint: &str) -> Result<Option<Proxy>> {
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
    fn a_pause_ends_with_the_work() {
        let cancel = Cancel::default();
        cancel.cancel(Error::Aborted);
        let started = Instant::now();
        assert_eq!(pause(&cancel, Duration::from_secs(30)), Err(Error::Aborted));
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
