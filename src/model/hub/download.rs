//! One file from the hub into the cache: either whole and verified, or not at all.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::Progress;
use super::cache::{Repo, unwritable};
use super::client::{Client, Meta, Trouble};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Attempts without a single new byte, and the pause after the first of them; each further one is twice as long.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(300);

/// The longest pause that a server may ask for before the caller is told instead.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Attempts in all, where each brings a few bytes.
const ALL_ATTEMPTS: u32 = 200;

/// How often progress is told.
const REPORT_EVERY: Duration = Duration::from_millis(100);

const CHUNK: usize = 1 << 16;

/// Fetches a file unless its content is in the cache, and lets the snapshot of `commit` point to it. Of many processes
/// one fetches, the others wait for it.
pub(super) fn fetch(
    client: &Client,
    repo: &Repo,
    name: &str,
    commit: &str,
    file: &str,
    cancel: &Cancel,
    progress: Option<&Progress>,
) -> Result<()> {
    let url = client.url(name, commit, file);
    let failed = |trouble| client.failed(trouble, name, file, &url);
    let meta = retried(cancel, || client.meta(&url)).map_err(failed)?;
    let blob = repo.blob(&meta.etag);
    // What is there under its hash was verified by who put it there; a wrong size is the one cheap sign that it was not.
    let whole = || fs::metadata(&blob).is_ok_and(|found| found.is_file() && found.len() == meta.size);
    if !whole() {
        let _lock = repo.lock(&meta.etag, cancel)?;
        if !whole() {
            let path = repo.incomplete(&meta.etag)?;
            let report = Report { file, total: meta.size, progress };
            Partial::open(&path, &meta)?.fill(client, &url, &meta, cancel, &report).map_err(failed)?;
            fs::rename(&path, &blob).map_err(|error| unwritable(&blob, &error))?;
        }
    }
    repo.point(commit, file, &meta.etag)
}

struct Report<'a> {
    file: &'a str,
    total: u64,
    progress: Option<&'a Progress>,
}

impl Report<'_> {
    fn tell(&self, loaded: u64) {
        if let Some(progress) = self.progress {
            progress(self.file, loaded, self.total);
        }
    }
}

/// A file on its way, and the hash of what is there of it.
struct Partial<'a> {
    path: &'a Path,
    file: File,
    length: u64,
    hash: Hash,
}

impl<'a> Partial<'a> {
    /// Goes on where somebody else was stopped.
    fn open(path: &'a Path, meta: &Meta) -> Result<Self> {
        let failed = |error: std::io::Error| unwritable(path, &error);
        let file = File::options().create(true).read(true).write(true).truncate(false).open(path).map_err(failed)?;
        let mut partial = Self { path, file, length: 0, hash: Hash::of(meta) };
        let mut chunk = vec![0; CHUNK];
        loop {
            match partial.file.read(&mut chunk).map_err(failed)? {
                0 => break,
                read => {
                    partial.hash.update(&chunk[..read]);
                    partial.length += read as u64;
                }
            }
        }
        if partial.length > meta.size {
            partial.restart(meta)?;
        }
        Ok(partial)
    }

    fn restart(&mut self, meta: &Meta) -> Result<()> {
        self.length = 0;
        self.hash = Hash::of(meta);
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map(drop).map_err(|error| unwritable(self.path, &error))
    }

    /// Gets what is missing. Afterwards the file is whole, verified and on the disk.
    fn fill(
        mut self,
        client: &Client,
        url: &str,
        meta: &Meta,
        cancel: &Cancel,
        report: &Report,
    ) -> Result<(), Trouble> {
        // What somebody else has left may be wrong; what was fetched from the first byte on may not.
        let mut inherited = self.length > 0;
        let mut fruitless = 0;
        for _ in 0..ALL_ATTEMPTS {
            let before = self.length;
            if before < meta.size || before == 0 {
                match self.attempt(client, url, meta, cancel, report) {
                    Ok(()) => {}
                    Err(trouble) => {
                        fruitless = if self.length > before { 0 } else { fruitless + 1 };
                        if matches!(trouble, Trouble::Status { status: 416, .. }) {
                            self.restart(meta)?;
                        }
                        wait(cancel, trouble, fruitless)?;
                        continue;
                    }
                }
            }
            if self.hash.matches(&meta.etag) {
                let synced = self.file.sync_all().map_err(|error| unwritable(self.path, &error));
                return Ok(synced?);
            }
            self.restart(meta)?;
            if !inherited {
                drop(fs::remove_file(self.path));
                let reason = format!(
                    "what the server sent does not have the hash that the hub names ({}), and is not kept: try again, or check HF_ENDPOINT and the proxies in between",
                    meta.etag
                );
                return Err(Error::model(super::client::clean(url), reason).into());
            }
            inherited = false;
        }
        Err(Trouble::Network("the connection broke too often".to_owned()))
    }

    fn attempt(
        &mut self,
        client: &Client,
        url: &str,
        meta: &Meta,
        cancel: &Cancel,
        report: &Report,
    ) -> Result<(), Trouble> {
        let (from, mut body) = client.bytes(url, self.length)?;
        if from != self.length {
            self.restart(meta)?;
            if from != 0 {
                return Err(Trouble::Network("it does not begin where it was asked to".to_owned()));
            }
        }
        let mut chunk = vec![0; CHUNK];
        let mut told = Instant::now();
        report.tell(self.length);
        while self.length < meta.size {
            let read = body.read(&mut chunk);
            cancel.check()?;
            let read = read.map_err(|error| Trouble::Network(error.to_string()))?;
            if read == 0 {
                let reason = format!("the connection ended after {} of {} bytes", self.length, meta.size);
                return Err(Trouble::Network(reason));
            }
            // What is too much is left unread; what is read has to have the right hash.
            let read = read.min((meta.size - self.length) as usize);
            self.file.write_all(&chunk[..read]).map_err(|error| unwritable(self.path, &error))?;
            self.hash.update(&chunk[..read]);
            self.length += read as u64;
            if told.elapsed() >= REPORT_EVERY || self.length == meta.size {
                told = Instant::now();
                report.tell(self.length);
            }
        }
        Ok(())
    }
}

/// The hash that an ETag is: SHA-256 of large files, git's own of small ones.
enum Hash {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hash {
    fn of(meta: &Meta) -> Self {
        match meta.etag.len() {
            64 => Self::Sha256(Sha256::new()),
            _ => Self::Git(Sha1::new_with_prefix(format!("blob {}\0", meta.size))),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Git(hash) => hash.update(bytes),
        }
    }

    fn matches(&self, etag: &str) -> bool {
        let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        etag == match self {
            Self::Sha256(hash) => hexadecimal(&hash.clone().finalize()),
            Self::Git(hash) => hexadecimal(&hash.clone().finalize()),
        }
    }
}

/// Asks again where that may help, a few times.
pub(super) fn retried<T>(cancel: &Cancel, mut ask: impl FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
    let mut fruitless = 0;
    loop {
        match ask() {
            Err(trouble) => {
                fruitless += 1;
                wait(cancel, trouble, fruitless)?;
            }
            answer => return answer,
        }
    }
}

/// Waits before the next attempt, or gives the trouble back if there shall be none.
fn wait(cancel: &Cancel, trouble: Trouble, fruitless: u32) -> Result<(), Trouble> {
    let asked_for = match &trouble {
        Trouble::Network(_) => None,
        Trouble::Status { status: 408 | 416 | 429 | 500.., retry_after, .. } => *retry_after,
        _ => return Err(trouble),
    };
    if fruitless >= ATTEMPTS || asked_for.is_some_and(|pause| pause > LONGEST_PAUSE) {
        return Err(trouble);
    }
    let own = FIRST_PAUSE * 2u32.pow(fruitless.saturating_sub(1));
    Ok(pause(cancel, asked_for.unwrap_or_default().max(own))?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_of_large_files() {
        let known = |etag: &str| {
            let mut hash = Hash::of(&Meta { etag: etag.to_owned(), size: 6 });
            hash.update(b"hello\n");
            hash.matches(etag)
        };
        assert!(known("ce013625030ba8dba906f756967f9e9ca394464a"));
        assert!(known("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"));
        assert!(!known("ce013625030ba8dba906f756967f9e9ca394464b"));
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
