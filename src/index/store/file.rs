//! The file of an index: opened, waited for, removed, and what is said when that fails.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::super::DIRECTORY;
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Marks the file as ours ("embi"), whatever it is called.
pub const APPLICATION_ID: i32 = 0x656d_6269;

/// Where SQLite keeps it, and how a file of its begins.
const APPLICATION_ID_AT: usize = 68;
const MAGIC: &[u8] = b"SQLite format 3\0";

/// How long a run waits for another program that writes to the file, and how often it looks whether it shall stop.
const BUSY: Duration = Duration::from_secs(30);
const BUSY_STEP: Duration = Duration::from_millis(100);

/// How long a search waits.
const READ_BUSY: Duration = Duration::from_secs(5);

/// Why something could not be done.
pub enum Fault {
    /// SQLite refuses.
    Sql(rusqlite::Error),
    /// What is stored is not what was written.
    Damaged,
    /// Whoever waits shall stop.
    Stopped(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// What [`Fault`] may come in place of.
pub type Step<T> = std::result::Result<T, Fault>;

/// Removes the index at `path`, whatever its state; nothing that is no index.
pub fn remove(path: &Path) -> Result<()> {
    if !only_indexes_lie_at(path) && !is_ours(path) {
        return Err(failed(path, "it is damaged or no index: delete it, or choose another path"));
    }
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.to_path_buf().into_os_string();
        name.push(suffix);
        match fs::remove_file(&name) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed(path, format!("it cannot be removed to be built anew: {error}")));
            }
            _ => {}
        }
    }
    Ok(())
}

fn only_indexes_lie_at(path: &Path) -> bool {
    path.parent().is_some_and(|directory| directory.ends_with(DIRECTORY))
}

/// Whether the file begins as ours do, or is empty or absent.
fn is_ours(path: &Path) -> bool {
    let mut head = Vec::new();
    match fs::File::open(path).map(|file| file.take(100).read_to_end(&mut head)) {
        Ok(Ok(0)) => true,
        Ok(Ok(_)) => {
            let id = head.get(APPLICATION_ID_AT..APPLICATION_ID_AT + 4);
            head.starts_with(MAGIC) && id == Some(&APPLICATION_ID.to_be_bytes()[..])
        }
        Ok(Err(_)) => false,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// Does `work` again for as long as others keep the file busy, [`BUSY`] at most.
pub fn patiently<T>(cancel: &Cancel, work: impl Fn() -> Step<T>) -> Step<T> {
    let started = Instant::now();
    loop {
        match work() {
            Err(Fault::Sql(error)) if is_busy(&error) && started.elapsed() < BUSY => {
                cancel.check().map_err(Fault::Stopped)?;
            }
            done => return done,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Opens the index for writing.
pub fn connect(path: &Path) -> Step<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(BUSY_STEP)?;
    db.execute_batch(
        "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;",
    )?;
    Ok(db)
}

/// Opens it for reading; `more` is added to its URI.
pub fn read_only(path: &Path, more: &str) -> Result<Connection> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(format!("file:{}?mode=ro{more}", escaped(path)), flags)?;
        db.busy_timeout(READ_BUSY)?;
        Ok(db)
    };
    open().map_err(|error: rusqlite::Error| explained(path, error.into()))
}

/// A path as part of a URI, as SQLite reads it.
fn escaped(path: &Path) -> String {
    let path = path.to_string_lossy();
    let path = if cfg!(windows) { format!("/{}", path.replace('\\', "/")) } else { path.into_owned() };
    path.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

/// What tells a file from another one that was put in its place.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Some((metadata.dev(), metadata.ino()))
    }
    #[cfg(not(unix))]
    {
        let since = metadata.created().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some((since.as_secs(), u64::from(since.subsec_nanos())))
    }
}

/// It belongs to something else.
pub fn mismatch(path: &Path, made_with: String) -> Error {
    Error::IndexMismatch { path: path.display().to_string(), made_with }
}

/// It cannot be used for a reason.
pub fn failed(path: &Path, reason: impl Into<String>) -> Error {
    Error::Storage { path: path.display().to_string(), reason: reason.into() }
}

/// SQLite's own words, and what to do.
pub fn explained(path: &Path, fault: Fault) -> Error {
    let error = match fault {
        Fault::Stopped(reason) => return reason,
        Fault::Damaged => return failed(path, "what it holds is not what was written: it is damaged; rebuild it"),
        Fault::Sql(error) => error,
    };
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "make room on the disk",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "check the permissions of the file and of its directory"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program has been writing to it for too long; try again when that is done"
        }
        Some(ErrorCode::SystemIoFailure) => "check the disk",
        Some(ErrorCode::OutOfMemory) => "there is not enough memory",
        _ => "it is damaged; rebuild it",
    };
    failed(path, format!("{error}: {advice}"))
}
