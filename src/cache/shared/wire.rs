//! One connection to a server: commands out, answers in, and all of it within a time.
//!
//! The crate knows the protocol: how commands are written, answers read and keys spread over a cluster. Its own blocking
//! connections are not used: they bound each read and not the answer, so that a server that sends a byte now and then holds
//! a call for ever, and after a time-out they read on for every command of a batch.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use redis::{Cmd, Parser, Value, cmd};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::super::entry::MAX_ENTRY_BYTES;

/// Most bytes of one answer: an entry, and what stands around it.
const LONGEST_ANSWER: usize = MAX_ENTRY_BYTES + (1 << 20);

/// Bytes that are read at once.
const AT_ONCE: usize = 64 << 10;

/// Whom to ask, and as whom.
#[derive(Clone)]
pub struct Target {
    /// Name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the connection is encrypted, and the server must show a certificate that this machine trusts.
    pub tls: bool,
    /// The user, if not the default one.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// Number of the database.
    pub database: u32,
    /// Whether the third version of the protocol is spoken, not the second.
    pub resp3: bool,
    /// Whether it is one of a cluster.
    pub cluster: bool,
}

impl Target {
    pub(super) fn node(&self) -> Node {
        Node { host: self.host.clone(), port: self.port }
    }
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node {
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Node {
    /// Where it is. Waits for the system's resolver, for as long as that takes.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, Trouble> {
        let found = (self.host.as_str(), self.port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        match found {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            Ok(_) => Err(Trouble::Lost("the host name stands for no address".to_owned())),
            Err(error) => Err(Trouble::Lost(format!("the host name cannot be resolved: {error}"))),
        }
    }
}

/// Why there is no answer. Never says what was sent: that may be a password.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Trouble {
    /// Not in time.
    Late,
    /// There is no connection, or none any more.
    Lost(String),
    /// There would be one, but this server is of no use.
    Refused(String),
}

/// What a server said instead of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    /// Its first word.
    pub code: String,
    /// Where the answer is, if it is elsewhere in the cluster.
    pub at: Option<Node>,
}

impl Refusal {
    /// For a person. The server's own words are left out: some servers repeat what was sent.
    pub fn reason(&self) -> String {
        let meaning = match self.code.as_str() {
            "WRONGPASS" => "the user or the password is wrong",
            "NOAUTH" => "it wants a password: give one in the URL, as in redis://user:password@host",
            "NOPERM" => "the user may not do this",
            "OOM" => "its memory is full, and it evicts nothing (maxmemory-policy noeviction)",
            "READONLY" => "it is a replica, which takes no writes",
            "LOADING" => "it is loading its data",
            "MASTERDOWN" => "its primary is down",
            "CLUSTERDOWN" => "its cluster is down",
            "MISCONF" => "it cannot save its data, and takes no writes",
            "MOVED" | "ASK" => "the key is elsewhere: it is one of a cluster, set `cluster: true`",
            other => return format!("it answered {other}"),
        };
        format!("it answered {}: {meaning}", self.code)
    }
}

pub(super) type Answer = Result<Value, Refusal>;

/// What a server says of itself.
#[derive(Debug, Default)]
struct Greeting {
    version: String,
    mode: String,
}

/// What there is to be trusted.
#[derive(Default)]
pub(super) struct Trust(OnceLock<Result<Arc<ClientConfig>, String>>);

impl Trust {
    /// The certificates of this machine. Reads them the first time, which takes some ten milliseconds.
    fn config(&self) -> Result<Arc<ClientConfig>, Trouble> {
        let load = || {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            // One that cannot be used says nothing about the others.
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err("this machine has no certificates to check the server's by: set SSL_CERT_FILE".to_owned());
            }
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let config = config.map_err(|error| error.to_string())?;
            Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
        };
        self.0.get_or_init(load).clone().map_err(Trouble::Refused)
    }
}

/// What is heard on a connection that listens.
pub(super) enum Message {
    /// It does from now on.
    Subscribed,
    Said(Vec<u8>),
    /// Nothing of interest.
    Other,
}

/// A connection.
pub(super) struct Wire {
    stream: Stream,
    parser: Parser,
}

enum Stream {
    Plain(Buffered),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Wire {
    /// Connects, says who we are, and looks whether the server is one that can be used.
    pub fn open(
        target: &Target,
        node: &Node,
        addresses: &[SocketAddr],
        trust: &Trust,
        deadline: Instant,
    ) -> Result<Self, Trouble> {
        let socket = Socket::connect(addresses, deadline)?;
        let stream = if target.tls {
            let name = ServerName::try_from(node.host.clone());
            let name = name.map_err(|_| Trouble::Refused("its host is no name of a server for TLS".to_owned()))?;
            let client = ClientConnection::new(trust.config()?, name);
            let client = client.map_err(|error| Trouble::Refused(format!("TLS cannot be used: {error}")))?;
            Stream::Tls(Box::new(StreamOwned::new(client, socket)))
        } else {
            Stream::Plain(Buffered { socket, buffer: vec![0; AT_ONCE].into(), rest: 0..0 })
        };
        let mut wire = Self { stream, parser: Parser::new() };
        wire.greet(target, deadline)?;
        Ok(wire)
    }

    fn greet(&mut self, target: &Target, deadline: Instant) -> Result<(), Trouble> {
        let mut hello = cmd("HELLO");
        hello.arg(if target.resp3 { 3 } else { 2 });
        if let Some(password) = &target.password {
            hello.arg("AUTH").arg(target.user.as_deref().unwrap_or("default")).arg(password);
        }
        let said = self.ask(&hello, deadline)?;
        let greeting = match said {
            Ok(said) => Greeting::of(&said),
            // Only servers before 6 do not know it.
            Err(Refusal { code, .. }) if code == "ERR" => Greeting { version: "5".to_owned(), ..Greeting::default() },
            Err(refusal) => return Err(Trouble::Refused(refusal.reason())),
        };
        let major = greeting.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        match (major, greeting.mode.as_str()) {
            (Some(major), _) if major < 6 => {
                return Err(Trouble::Refused(
                    "it is older than Redis 6, which is the oldest that can be used".to_owned(),
                ));
            }
            (None, _) => return Err(Trouble::Refused("it is no Redis and no Valkey".to_owned())),
            (_, "cluster") if !target.cluster => {
                return Err(Trouble::Refused("it is one of a cluster: set `cluster: true`".to_owned()));
            }
            (_, "sentinel") => return Err(Trouble::Refused("it is a sentinel, which keeps no data".to_owned())),
            (_, mode) if target.cluster && mode != "cluster" => {
                return Err(Trouble::Refused("it is in no cluster: leave `cluster` out".to_owned()));
            }
            _ => {}
        }
        if target.database > 0 {
            let selected = self.ask(cmd("SELECT").arg(target.database), deadline)?;
            selected.map_err(|_| Trouble::Refused(format!("it has no database {}", target.database)))?;
        }
        Ok(())
    }

    /// The answer to one command.
    pub fn ask(&mut self, command: &Cmd, deadline: Instant) -> Result<Answer, Trouble> {
        self.send(&command.get_packed_command(), deadline)?;
        self.receive(deadline)
    }

    /// Sends commands. Their answers are to be received, all of them, else the connection is of no use any more.
    pub fn send(&mut self, commands: &[u8], deadline: Instant) -> Result<(), Trouble> {
        self.socket().begin(deadline);
        let sent = match &mut self.stream {
            Stream::Plain(buffered) => buffered.socket.write_all(commands),
            Stream::Tls(stream) => stream.write_all(commands).and_then(|()| stream.flush()),
        };
        sent.map_err(|error| self.trouble(&error))
    }

    /// The next answer.
    pub fn receive(&mut self, deadline: Instant) -> Result<Answer, Trouble> {
        loop {
            self.socket().begin(deadline);
            match self.parse()? {
                Value::Push { .. } => {}
                Value::Attribute { data, .. } => return Ok(Ok(*data)),
                Value::ServerError(error) => {
                    let elsewhere = matches!(error.code(), "MOVED" | "ASK");
                    let at = error.details().filter(|_| elsewhere).and_then(place);
                    return Ok(Err(Refusal { code: error.code().to_owned(), at }));
                }
                value => return Ok(Ok(value)),
            }
        }
    }

    /// What is heard next; `None`: nothing in time, and the connection is as good as before.
    pub fn listen(&mut self, deadline: Instant) -> Result<Option<Message>, Trouble> {
        self.socket().begin(deadline);
        match self.parse() {
            Ok(Value::Push { kind, data }) => Ok(Some(message(&kind.to_string(), &data))),
            Ok(Value::Array(parts)) => {
                let kind = parts.first().map(text).unwrap_or_default();
                Ok(Some(message(&kind, &parts)))
            }
            Ok(Value::ServerError(error)) => {
                Err(Trouble::Refused(Refusal { code: error.code().to_owned(), at: None }.reason()))
            }
            Ok(_) => Ok(Some(Message::Other)),
            Err(Trouble::Late) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    fn parse(&mut self) -> Result<Value, Trouble> {
        let value = match &mut self.stream {
            Stream::Plain(buffered) => self.parser.parse_value(buffered),
            Stream::Tls(stream) => self.parser.parse_value(stream),
        };
        value.map_err(|error| self.trouble(&io::Error::other(error.to_string())))
    }

    fn socket(&mut self) -> &mut Socket {
        match &mut self.stream {
            Stream::Plain(buffered) => &mut buffered.socket,
            Stream::Tls(stream) => &mut stream.sock,
        }
    }

    fn trouble(&mut self, error: &io::Error) -> Trouble {
        let tls = matches!(self.stream, Stream::Tls(_));
        match self.socket().failure.take() {
            Some(Failure::Late) => Trouble::Late,
            Some(Failure::TooLong) => Trouble::Lost("it sent more than any entry has".to_owned()),
            Some(Failure::Closed) => Trouble::Lost("it closed the connection".to_owned()),
            Some(Failure::System(error)) => Trouble::Lost(error.to_string()),
            None if tls => Trouble::Refused(format!("TLS failed: {error}; does the port speak TLS?")),
            None => Trouble::Lost("what it sent is not Redis's protocol".to_owned()),
        }
    }
}

/// The payload of a message, in either version of the protocol.
fn message(kind: &str, data: &[Value]) -> Message {
    match (kind, data.last()) {
        ("message", Some(Value::BulkString(payload))) => Message::Said(payload.clone()),
        ("subscribe", _) => Message::Subscribed,
        _ => Message::Other,
    }
}

/// The node of `3999 127.0.0.1:6381`. Without a host, it is the one that was asked.
fn place(details: &str) -> Option<Node> {
    let (host, port) = details.split_whitespace().nth(1)?.rsplit_once(':')?;
    Some(Node { host: host.trim_matches(['[', ']']).to_owned(), port: port.parse().ok()? })
}

impl Greeting {
    fn of(said: &Value) -> Self {
        let pairs: Vec<(&Value, &Value)> = match said {
            Value::Map(pairs) => pairs.iter().map(|(name, value)| (name, value)).collect(),
            Value::Array(flat) => flat.as_chunks().0.iter().map(|[name, value]| (name, value)).collect(),
            _ => Vec::new(),
        };
        let find = |wanted: &str| {
            let found = pairs.iter().find(|(name, _)| text(name) == wanted);
            found.map(|(_, value)| text(value)).unwrap_or_default()
        };
        Self { version: find("version"), mode: find("mode") }
    }
}

/// A string, however it was sent.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        _ => String::new(),
    }
}

/// Why a socket gave no bytes.
enum Failure {
    Late,
    TooLong,
    Closed,
    System(io::Error),
}

/// A connection's socket, for some time and some bytes.
struct Socket {
    tcp: TcpStream,
    deadline: Instant,
    /// Bytes that may still come.
    left: usize,
    /// What was last set at the socket: setting it costs as much as to read.
    patience: (Duration, Duration),
    failure: Option<Failure>,
}

/// Time-outs of a socket are as exact as this, or less: they are whole ticks of the system. Shorter ones are polled for, where that can
/// be done.
const COARSE: Duration = Duration::from_millis(5);

/// Whether a wait for less than that ends in time.
pub(super) const EXACT: bool = cfg!(unix);

impl Socket {
    fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<Self, Trouble> {
        let mut trouble = Trouble::Late;
        for (at, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now()) / (addresses.len() - at) as u32;
            if left.is_zero() {
                return Err(Trouble::Late);
            }
            match TcpStream::connect_timeout(address, left) {
                Ok(tcp) => {
                    // Commands are sent whole: nothing is gained by waiting for more.
                    tcp.set_nodelay(true).map_err(|error| Trouble::Lost(error.to_string()))?;
                    let patience = (Duration::MAX, Duration::MAX);
                    return Ok(Self { tcp, deadline, left: LONGEST_ANSWER, patience, failure: None });
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => trouble = Trouble::Late,
                Err(error) => trouble = Trouble::Lost(error.to_string()),
            }
        }
        Err(trouble)
    }

    fn begin(&mut self, deadline: Instant) {
        (self.deadline, self.left, self.failure) = (deadline, LONGEST_ANSWER, None);
    }

    /// The time that is left, as a time-out of the socket: about what was set last, or a new one.
    fn patience(&self, set: Duration) -> Result<Option<Duration>, Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Late);
        }
        let near = set >= left && set - left < COARSE;
        Ok((!near).then_some(left))
    }

    /// Whether there is something to read: waits for it for what little time is left.
    #[cfg(unix)]
    fn await_bytes(&self) -> io::Result<bool> {
        use std::os::fd::AsRawFd;
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left >= COARSE {
            return Ok(true);
        }
        let mut poll = libc::pollfd { fd: self.tcp.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: it is one of them, and lives until the end of this function.
        #[allow(unsafe_code)]
        match unsafe { libc::poll(&mut poll, 1, left.as_micros().div_ceil(1000) as libc::c_int) } {
            -1 => Err(io::Error::last_os_error()),
            ready => Ok(ready > 0),
        }
    }

    #[cfg(not(unix))]
    fn await_bytes(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn failed<T>(&mut self, failure: Failure) -> io::Result<T> {
        self.failure.get_or_insert(failure);
        Err(io::Error::other("the connection failed"))
    }
}

fn late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.await_bytes() {
                Ok(true) => {}
                Ok(false) => return self.failed(Failure::Late),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.failed(Failure::System(error)),
            }
            match self.patience(self.patience.0) {
                Ok(None) => {}
                Ok(Some(left)) => {
                    if let Err(error) = self.tcp.set_read_timeout(Some(left)) {
                        return self.failed(Failure::System(error));
                    }
                    self.patience.0 = left;
                }
                Err(failure) => return self.failed(failure),
            }
            return match self.tcp.read(bytes) {
                Ok(0) => self.failed(Failure::Closed),
                Ok(read) if read > self.left => self.failed(Failure::TooLong),
                Ok(read) => {
                    self.left -= read;
                    Ok(read)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted || late(&error) => continue,
                Err(error) => self.failed(Failure::System(error)),
            };
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.patience(self.patience.1) {
                Ok(None) => {}
                Ok(Some(left)) => {
                    if let Err(error) = self.tcp.set_write_timeout(Some(left)) {
                        return self.failed(Failure::System(error));
                    }
                    self.patience.1 = left;
                }
                Err(failure) => return self.failed(failure),
            }
            return match self.tcp.write(bytes) {
                Ok(0) => self.failed(Failure::Closed),
                Ok(written) => Ok(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted || late(&error) => continue,
                Err(error) => self.failed(Failure::System(error)),
            };
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// A socket that is read in large pieces: the parser asks for small ones.
struct Buffered {
    socket: Socket,
    buffer: Box<[u8]>,
    /// What was read and not yet given.
    rest: Range<usize>,
}

impl Read for Buffered {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = 0..self.socket.read(&mut self.buffer)?;
        }
        let rest = &self.buffer[self.rest.clone()];
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        self.rest.start += count;
        Ok(count)
    }
}
