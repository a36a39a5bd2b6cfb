//! One server, asked until it answers: again after what passes, and never where it has said no.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::connections::{Connections, Question};
use super::{Kind, Server, api};
use crate::cancel::Cancel;
use crate::error::{Error, Fault, Result};
use crate::model::http::{Http, Trouble, WaitLimit, clean, pause};
use crate::model::{RunError, Then};

/// The pause before the second attempt is a random part of this, each further one of twice as much, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_OWN_PAUSE: Duration = Duration::from_secs(10);

/// The longest pause that a server may ask for before the caller is told instead; or as long as an answer may take, if that is
/// longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Asks one server.
pub(super) struct Client {
    server: Server,
    connections: Connections,
    /// When the server wants to be asked again: that holds for all that is asked.
    closed_until: Mutex<Option<Instant>>,
}

impl Client {
    pub fn new(server: &Server) -> Result<Self> {
        let read_timeout = WaitLimit { silence: None, whole: Some(server.timeout) };
        let http = Http::new(&server.url.at(""), read_timeout)?;
        let connections = Connections::new(http, server.secrets.clone(), server.concurrency);
        Ok(Self { server: server.clone(), connections, closed_until: Mutex::default() })
    }

    /// What the server answers at `path`. Blocks; returns at once where the work shall stop.
    pub fn ask(&self, path: &str, body: Option<Vec<u8>>, most: u64, cancel: &Cancel) -> Result<Vec<u8>, RunError> {
        let question = Question {
            method: if body.is_some() { "POST" } else { "GET" },
            url: self.server.url.at(path).into(),
            body: body.map(Into::into),
            most,
        };
        let mut tries = 0;
        loop {
            let asked = self.await_opening(cancel).map_err(Trouble::Final);
            let trouble = match asked.and_then(|()| self.connections.ask(&question, cancel)) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {
                    return Err(self.unusable(path, &format!("its answer is longer than {most} bytes"), Then::Nothing));
                }
                Err(trouble) => trouble,
            };
            tries += 1;
            let wait = self.wait_after(&trouble, tries);
            let Some(wait) = wait.filter(|_| tries <= self.server.retries) else {
                return Err(self.failed(path, trouble, tries));
            };
            pause(cancel, wait).map_err(|error| RunError { error, then: Then::Nothing })?;
        }
    }

    /// What the server answers at `path` if it does so at the first attempt. Blocks as [`Client::ask`] does.
    pub fn glance(&self, path: &str, most: u64, cancel: &Cancel) -> Option<Vec<u8>> {
        let question = Question { method: "GET", url: self.server.url.at(path).into(), body: None, most };
        self.connections.ask(&question, cancel).ok().flatten()
    }

    /// An answer that cannot be used.
    pub fn unusable(&self, path: &str, reason: &str, then: Then) -> RunError {
        RunError { error: self.error(path, Some(200), Fault::Rejected, reason.to_owned(), &then), then }
    }

    /// Another model has taken the place of the one that was asked.
    pub fn replaced(&self, path: &str) -> Error {
        let reason = "the model there was replaced by another one while it was asked: embed these texts again";
        self.error(path, None, Fault::Unavailable, reason.to_owned(), &Then::Nothing)
    }

    /// How long to wait before the next attempt; `None` where there shall be none.
    fn wait_after(&self, trouble: &Trouble, tries: u32) -> Option<Duration> {
        let asked_for = match trouble {
            Trouble::Network(_) | Trouble::Late(_) => None,
            Trouble::Status { status: 500, said, .. } if api::is_too_much(500, said) => return None,
            Trouble::Status { status: 408 | 425 | 429 | 500.., retry_after, .. } => *retry_after,
            _ => return None,
        };
        let Some(wait) = asked_for.filter(|wait| !wait.is_zero()) else { return Some(own_pause(tries)) };
        if wait > LONGEST_PAUSE.max(self.server.timeout) {
            return None;
        }
        let until = Instant::now() + wait;
        let mut closed = self.closed_until.lock().unwrap_or_else(PoisonError::into_inner);
        *closed = Some(closed.map_or(until, |before| before.max(until)));
        Some(wait)
    }

    /// Waits until the server wants to be asked.
    fn await_opening(&self, cancel: &Cancel) -> Result<()> {
        let until = *self.closed_until.lock().unwrap_or_else(PoisonError::into_inner);
        match until.and_then(|until| until.checked_duration_since(Instant::now())) {
            Some(rest) => pause(cancel, rest),
            None => Ok(()),
        }
    }

    fn failed(&self, path: &str, trouble: Trouble, tries: u32) -> RunError {
        let after = if tries > 1 { format!(" ({tries} attempts)") } else { String::new() };
        let then = match &trouble {
            Trouble::Status { status, said, .. } if api::is_too_much(*status, said) => Then::Halves,
            _ => Then::Nothing,
        };
        let (status, fault, reason) = match trouble {
            Trouble::Final(error) => return RunError { error, then },
            Trouble::Network(reason) => (
                None,
                Fault::Unavailable,
                format!("{reason}{after}: check that it runs there, and `url` and the proxies in between"),
            ),
            Trouble::Distrust(reason) => {
                let hint = "set NODE_EXTRA_CA_CERTS to the certificates of whoever has signed its own";
                (None, Fault::Unavailable, format!("{reason}: {hint}"))
            }
            Trouble::Late(_) => {
                let ms = self.server.timeout.as_millis() as u64;
                let hint = "raise `remote.timeoutMs`, or lower `remote.maxBatchItems`";
                (None, Fault::Late(ms), format!("it did not answer within {ms} ms{after}: {hint}"))
            }
            Trouble::Status { status, said, retry_after } => {
                let said = self.server.redacted(&said);
                let said = if said.is_empty() { status.to_string() } else { format!("{status}, {said:?}") };
                let (fault, reason) = self.explained(status, &said, retry_after, &after, &then);
                (Some(status), fault, reason)
            }
        };
        RunError { error: self.error(path, status, fault, reason, &then), then }
    }

    fn explained(
        &self,
        status: u16,
        said: &str,
        retry_after: Option<Duration>,
        after: &str,
        then: &Then,
    ) -> (Fault, String) {
        let key = match self.server.kind {
            Kind::OpenAi => "`remote.apiKey` or OPENAI_API_KEY",
            _ => "`remote.apiKey`",
        };
        match status {
            _ if *then == Then::Halves => {
                (Fault::Rejected, format!("it is too long for the model there ({said}): split it into smaller pieces"))
            }
            300..=399 => (Fault::Rejected, format!("it redirects ({said}): give the address that it means as `url`")),
            401 | 403 => (Fault::Rejected, format!("it refuses the request ({said}): check {key}")),
            404 => {
                (Fault::Rejected, format!("it has no such model or address ({said}): check the model's name and `url`"))
            }
            429 => {
                let later = retry_after.map_or("later".to_owned(), |wait| format!("in {} s", wait.as_secs()));
                let hint = "or lower `remote.concurrency`";
                (Fault::RateLimited, format!("it has too many requests ({said}){after}: try again {later}, {hint}"))
            }
            408 | 425 | 500.. => (Fault::Unavailable, format!("it fails ({said}){after}: try again later")),
            _ => (Fault::Rejected, format!("it refuses the request ({said})")),
        }
    }

    /// An error at `path`. About the first text alone where that is what may be at fault.
    fn error(&self, path: &str, status: Option<u16>, fault: Fault, reason: String, then: &Then) -> Error {
        let index = (*then != Then::Nothing).then_some(0);
        Error::Backend { url: clean(&self.server.url.at(path)), status, fault, reason, index }
    }
}

/// Exponential back-off with full jitter: anything from nothing to the whole pause.
fn own_pause(tries: u32) -> Duration {
    let most = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(tries.saturating_sub(1))).min(LONGEST_OWN_PAUSE);
    most.mul_f64(RandomState::new().hash_one(tries) as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_are_anything_below() {
        for (tries, most) in [(1, FIRST_PAUSE), (3, FIRST_PAUSE * 4), (60, LONGEST_OWN_PAUSE)] {
            let pauses: Vec<Duration> = (0..200).map(|_| own_pause(tries)).collect();
            assert!(pauses.iter().all(|pause| *pause <= most));
            assert!(pauses.iter().any(|pause| *pause < most / 2) && pauses.iter().any(|pause| *pause > most / 2));
        }
    }
}
