//! Files from the hub into the cache: each either whole and verified, or not at all.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::cache::{Lock, Repo, unwritable};
use super::client::{Client, Meta};
use super::retry::{retried, wait};
use super::{Fetched, Progress};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::model::content::NameHash;
use crate::model::http::{Trouble, clean};

/// Attempts in all, where each brings a few bytes.
const ALL_ATTEMPTS: u32 = 200;

/// How often progress is told.
const REPORT_EVERY: Duration = Duration::from_millis(100);

const CHUNK: usize = 1 << 16;

/// The files of one load on their way.
pub(super) struct Delivery<'a> {
    pub client: &'a Client<'a>,
    pub repo: &'a Repo,
    /// The repository.
    pub name: &'a str,
    pub commit: &'a str,
    pub cancel: &'a Cancel,
    pub progress: Option<&'a Progress>,
}

/// A file that is to be fetched.
struct Order<'a> {
    file: &'a str,
    url: String,
    meta: Meta,
}

impl Delivery<'_> {
    /// Fetches files unless their contents are in the cache, and lets the snapshot point to them, one after the other. Of
    /// many processes one fetches, the others wait for it. Where `more` follow, shares of the whole are not known yet.
    pub fn fetch(&self, files: &[String], most: impl Fn(&str) -> u64, more: bool) -> Result<()> {
        // All are asked about before the first is fetched: what is refused is known at once, and how much there is.
        let orders = files.iter().map(|file| self.order(file, most(file))).collect::<Result<Vec<_>>>()?;
        let all = if more { 0 } else { orders.iter().map(|order| order.meta.size).sum() };
        let mut report = Report { progress: self.progress, file: "", total: 0, before: 0, all, told: 0.0 };
        for order in &orders {
            (report.file, report.total) = (order.file, order.meta.size);
            self.deliver(order, &mut report)?;
            report.before += order.meta.size;
        }
        Ok(())
    }

    fn order<'a>(&self, file: &'a str, most: u64) -> Result<Order<'a>> {
        let url = self.client.url(self.name, self.commit, file);
        let meta = retried(self.cancel, || self.client.meta(&url));
        let meta = meta.map_err(|trouble| self.client.failed(trouble, self.name, file, &url))?;
        if meta.size > most {
            let reason = format!("{file} has {} bytes, more than the {most} that such a file may have", meta.size);
            return Err(Error::model(self.name, reason));
        }
        Ok(Order { file, url, meta })
    }

    fn deliver(&self, Order { file, url, meta }: &Order, report: &mut Report) -> Result<()> {
        let blob = self.repo.blob(&meta.etag);
        // Cheap; what is read of it is compared with its hash when the model is loaded.
        let whole = || fs::metadata(&blob).is_ok_and(|found| found.is_file() && found.len() == meta.size);
        if !whole() {
            let lock = self.repo.lock(&meta.etag, self.cancel)?;
            if !whole() {
                let path = self.repo.incomplete(&meta.etag, &lock)?;
                let filled = Partial::open(&path, meta)?.fill(self.client, url, meta, self.cancel, report);
                if filled.is_err() && matches!(lock, Lock::Unsupported) {
                    drop(fs::remove_file(&path));
                }
                filled.map_err(|trouble| self.client.failed(trouble, self.name, file, url))?;
                fs::rename(&path, &blob).map_err(|error| unwritable(&blob, &error))?;
            }
        }
        report.tell(meta.size);
        self.repo.point(self.commit, file, &meta.etag)
    }
}

struct Report<'a> {
    progress: Option<&'a Progress>,
    file: &'a str,
    total: u64,
    /// Bytes of the files before it, and of all; 0 where that is not known yet.
    before: u64,
    all: u64,
    told: f64,
}

impl Report<'_> {
    fn tell(&mut self, loaded: u64) {
        let Some(progress) = self.progress else { return };
        if self.all > 0 {
            // What was left behind wrong is thrown away; the whole never goes back.
            self.told = self.told.max((self.before + loaded) as f64 / self.all as f64 * 100.0);
        }
        progress(&Fetched { file: self.file, loaded, total: self.total, progress_total: self.told });
    }
}

/// A file on its way, and the hash of what is there of it.
struct Partial<'a> {
    path: &'a Path,
    file: File,
    length: u64,
    hash: NameHash,
}

impl<'a> Partial<'a> {
    /// Goes on where somebody else was stopped.
    fn open(path: &'a Path, meta: &Meta) -> Result<Self> {
        let failed = |error: std::io::Error| unwritable(path, &error);
        let file = File::options().create(true).read(true).write(true).truncate(false).open(path).map_err(failed)?;
        let mut partial = Self { path, file, length: 0, hash: NameHash::like(&meta.etag, meta.size) };
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
        self.hash = NameHash::like(&meta.etag, meta.size);
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
        report: &mut Report,
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
            if self.hash.name() == meta.etag {
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
                return Err(Error::model(clean(url), reason).into());
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
        report: &mut Report,
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
