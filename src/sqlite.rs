//! Files of SQLite that more than one process uses: opened, waited for, checked, and what is said when that fails.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use xxhash_rust::xxh3::Xxh3Default;

use crate::cancel::Cancel;
use crate::error::Error;

/// How often somebody who waits for another program looks whether it shall stop.
const BUSY_STEP: Duration = Duration::from_millis(100);

/// How long a reader waits.
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

/// Does `work` again for as long as others keep the file busy, `longest` at most.
pub fn patiently<T>(longest: Duration, cancel: &Cancel, work: impl Fn() -> Step<T>) -> Step<T> {
    let started = Instant::now();
    loop {
        match work() {
            Err(Fault::Sql(error)) if is_busy(&error) && started.elapsed() < longest => {
                cancel.check().map_err(Fault::Stopped)?;
            }
            done => return done,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Opens a file for reading and writing.
pub fn open(path: &Path) -> Step<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(BUSY_STEP)?;
    // To say so of a file that has pages already changes nothing, and waits for whoever writes to it.
    if db.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))? == 0 {
        db.execute_batch("PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL;")?;
    }
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    Ok(db)
}

/// Opens it for reading, which needs no right to write: where SQLite cannot even write its notes beside the file, the file stands
/// still, because nobody else can write it either.
pub fn read_only(path: &Path) -> Step<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = |more: &str| {
        let db = Connection::open_with_flags(format!("file:{}?mode=ro{more}", escaped(path)), flags)?;
        db.busy_timeout(READ_BUSY)?;
        // To open it reads nothing yet.
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(db)
    };
    open("").or_else(|error: rusqlite::Error| {
        let refused = [ErrorCode::CannotOpen, ErrorCode::ReadOnly, ErrorCode::PermissionDenied];
        let still = error.sqlite_error_code().is_some_and(|code| refused.contains(&code)) && !has_log(path);
        if still { open("&immutable=1") } else { Err(error) }.map_err(Fault::Sql)
    })
}

/// Whether what was written last lies beside the file.
fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    fs::metadata(log).is_ok_and(|metadata| metadata.len() > 0)
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

/// It cannot be used for a reason.
pub fn failed(path: &Path, reason: impl Into<String>) -> Error {
    Error::Storage { path: path.display().to_string(), reason: reason.into() }
}

/// SQLite's own words, and what to do; `mend`: where it is damaged.
pub fn explained(path: &Path, fault: Fault, mend: &str) -> Error {
    let error = match fault {
        Fault::Stopped(reason) => return reason,
        Fault::Damaged => return failed(path, format!("what it holds is not what was written: it is damaged; {mend}")),
        Fault::Sql(error) => error,
    };
    let damaged = format!("it is damaged; {mend}");
    let foreign = format!("it is another program's, and another path is to be chosen, or {damaged}");
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => &foreign,
        Some(ErrorCode::DiskFull) => "make room on the disk",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "check the permissions of the file and of its directory"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program has been writing to it for too long; try again when that is done"
        }
        Some(ErrorCode::SystemIoFailure) => "check the disk",
        Some(ErrorCode::OutOfMemory) => "there is not enough memory",
        _ => &damaged,
    };
    failed(path, format!("{error}: {advice}"))
}

/// A transaction that is rolled back, if nobody has committed it.
pub struct Begun<'a>(pub &'a Connection);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            drop(self.0.execute_batch("ROLLBACK"));
        }
    }
}

/// Of numbers and texts, each with its length.
pub fn checksum(numbers: &[i64], texts: &[&[u8]]) -> i64 {
    let mut hash = Xxh3Default::new();
    numbers.iter().for_each(|number| hash.update(&number.to_le_bytes()));
    for text in texts {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.digest() as i64
}

/// Changes whenever the file does, by whichever process.
pub fn version(db: &Connection) -> Step<i64> {
    // Both: one counts the others' commits, the other one this connection's.
    let others: i64 = db.pragma_query_value(None, "data_version", |row| row.get(0))?;
    Ok((others << 32) + db.total_changes() as i64)
}
