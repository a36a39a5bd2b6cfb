//! The file itself: whose it is, its schema, and how it is opened and put aside.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::{Fault, Result};

/// In the file's header: whose it is. "embc".
pub const APPLICATION_ID: i32 = 0x656d_6263;

/// What makes version `i + 1` of version `i`. Never change one that was released; append.
///
/// A rowid table, because a table sorted by a random key fills its pages badly and rewrites a whole row's page for every
/// new neighbour: 12–25 thousand inserts a second against 100 thousand. The narrow index on the key pays that price.
/// All other indexes grow at their end only.
pub const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL,
        space INTEGER NOT NULL,
        kind TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        used_ms INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        content BLOB,
        format INTEGER NOT NULL,
        vector BLOB NOT NULL,
        note BLOB NOT NULL
    );
    CREATE UNIQUE INDEX entries_key ON entries(key);
    CREATE INDEX entries_space ON entries(space, kind);
    CREATE INDEX entries_used ON entries(used_ms);
    CREATE INDEX entries_expires ON entries(expires_ms) WHERE expires_ms < 9223372036854775807;
    CREATE TABLE spaces (id INTEGER PRIMARY KEY, dimensions INTEGER NOT NULL);
    CREATE TABLE leases (key BLOB PRIMARY KEY, owner BLOB NOT NULL, expires_ms INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('entries', 0), ('clock_ms', 0);
"];

/// Embeddings of 384 values take five to a page, half as many as fit the largest page, and little is left over.
pub const PAGE_BYTES: u64 = 8192;

/// Memory for pages that every connection has: with less, a batch would be written many times over.
const LEAST_PAGES: usize = 256 << 10;

/// How long SQLite waits for another process before it says that the file is locked.
pub const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Moves a broken file out of the way with everything that belongs to it; where to. `None`: somebody else did already.
pub fn set_aside(path: &Path, broken: Option<Identity>, now_ms: u64) -> Result<Option<PathBuf>> {
    let _alone = lock(path, File::lock);
    let there = Identity::of(path);
    if broken.is_some_and(|broken| there.as_ref().ok() != Some(&broken)) {
        return Ok(None);
    }
    let mut aside = with_suffix(path, &format!(".broken-{now_ms}"));
    for attempt in 1.. {
        if !aside.exists() {
            break;
        }
        aside = with_suffix(path, &format!(".broken-{now_ms}-{attempt}"));
    }
    // The log first: a new file must never find the log of an old one.
    for suffix in ["-wal", "-shm", ""] {
        match fs::rename(with_suffix(path, suffix), with_suffix(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(Some(aside))
}

/// Which file a path stands for, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity(u64, u64);

impl Identity {
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Ok(Self(metadata.dev(), metadata.ino()))
        }
        // Elsewhere an open file can be neither deleted nor renamed.
        #[cfg(not(unix))]
        Ok(Self(u64::from(metadata.is_file()), 0))
    }
}

/// Held while the file is opened or set aside. Where locks do not work, neither do several processes on one file.
pub fn lock(path: &Path, how: fn(&File) -> io::Result<()>) -> Option<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(with_suffix(path, "-lock")).ok()?;
    how(&file).ok()?;
    Some(file)
}

pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub fn prepare(connection: &Connection) -> Result<()> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(32);
    // A damaged file must be found out, not believed.
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

/// Bounds the memory for pages of the file, in bytes. Only once the file was looked into: SQLite counts in pages of the
/// size that it believes in at this moment, which is half of the right one before.
pub fn bound(connection: &Connection, bytes: usize) -> Result<()> {
    Ok(connection.pragma_update(None, "cache_size", -(bytes.max(LEAST_PAGES) as i64 / 1024))?)
}

/// Gives the memory for pages back that is not in use.
pub fn shrink(connection: &Connection) -> Result<()> {
    Ok(connection.execute_batch("PRAGMA shrink_memory")?)
}

pub fn migrate(connection: &mut Connection) -> Result<()> {
    let application = pragma(connection, "application_id")? as i32;
    let version = pragma(connection, "user_version")? as usize;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let fresh = application == 0 && version == 0 && tables == 0;
    if !fresh && application != APPLICATION_ID {
        return Err(Fault::Foreign("it is a database of another program: choose another path".to_owned()));
    }
    if version > MIGRATIONS.len() {
        return Err(Fault::Foreign(format!(
            "it has schema {version}, made by a later release; this one reads up to {}",
            MIGRATIONS.len()
        )));
    }
    if fresh {
        connection.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // A log that grew in a burst gives its space back.
    connection.query_row("PRAGMA journal_size_limit = 33554432", [], |_| Ok(()))?;
    if version < MIGRATIONS.len() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for migration in &MIGRATIONS[version..] {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
        transaction.commit()?;
    }
    Ok(())
}

pub fn pragma(connection: &Connection, name: &str) -> Result<u64> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA {name}"))?;
    let value: i64 = statement.query_row([], |row| row.get(0))?;
    Ok(value as u64)
}

pub fn meta(connection: &Connection, name: &str) -> Result<u64> {
    let mut select = connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    let value: Option<i64> = select.query_row([name], |row| row.get(0)).optional()?;
    Ok(value.unwrap_or_default().max(0) as u64)
}
