//! The file itself: whose it is, its schema, and how it is opened and put aside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

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

/// What was deleted last, which is no longer there: what was computed before must not come back.
const TOMBSTONES: &str = "
    CREATE TABLE IF NOT EXISTS tombstones (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, at_ms INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS clears (id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, space INTEGER, kind TEXT, tag TEXT);
";

/// Embeddings of 384 values take five to a page, half as many as fit the largest page, and little is left over.
pub const PAGE_BYTES: u64 = 8192;

/// Memory for pages that every connection has: with less, a batch would be written many times over.
const LEAST_PAGES: usize = 256 << 10;

/// How long one who needs the file waits for another program before it says that the file is held.
pub const BUSY_WAIT: Duration = Duration::from_millis(50);

/// The log of a file without a limit: how long it may become before it is copied to the file, in pages, and what is left of
/// it afterwards. One with a limit has a quarter of that.
const LOG_PAGES: u64 = 1000;
const LEAST_LOG_PAGES: u64 = 16;
const LOG_BYTES: u64 = 32 << 20;

/// In `meta`: how many transactions there were.
pub const TRANSACTIONS: &str = "transactions";

/// What every file of SQLite begins with, where its header says whose it is, and what the first page of a cache has, too.
const MAGIC: &[u8] = b"SQLite format 3\0";
const APPLICATION_AT: usize = 68;
const OF_A_CACHE: &[u8] = b"INDEX entries_key ON entries";

/// Moves a broken file out of the way with everything that belongs to it; where to. `None`: somebody else did already, or
/// it is not broken.
pub fn set_aside(path: &Path, broken: Option<Identity>, now_ms: u64) -> Result<Option<PathBuf>> {
    let _alone = lock(path, File::try_lock)?;
    let there = Identity::of(path);
    if broken.is_some_and(|broken| there.as_ref().ok() != Some(&broken)) {
        return Ok(None);
    }
    refuse_others(path)?;
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

/// What can be seen of a file's contents without opening it: of the file, and of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents([Option<(u64, SystemTime)>; 2]);

impl Contents {
    pub fn of(path: &Path) -> Self {
        let seen = |path: PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.len(), metadata.modified().ok()?))
        };
        Self(["", "-wal"].map(|suffix| seen(with_suffix(path, suffix))))
    }
}

/// Refuses a file that is not one of this release's, however broken it is.
fn refuse_others(path: &Path) -> Result<()> {
    let mut page = Vec::new();
    File::open(path)?.take(PAGE_BYTES).read_to_end(&mut page)?;
    let whose = page.get(APPLICATION_AT..APPLICATION_AT + 4).and_then(|id| id.try_into().ok()).map(i32::from_be_bytes);
    let made_by_us = page.windows(OF_A_CACHE.len()).any(|bytes| bytes == OF_A_CACHE);
    // Cut off before it says whose it is.
    let cut_off = whose.is_none() && page.iter().zip(MAGIC).all(|(is, magic)| is == magic);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags).map_err(Fault::from);
    match opened.and_then(|connection| prepare(&connection, BUSY_WAIT).and_then(|()| is_current(&connection))) {
        // Its first page may still be in the log.
        Ok(()) => Ok(()),
        Err(foreign @ Fault::Foreign(_)) if whose == Some(APPLICATION_ID) || !made_by_us => Err(foreign),
        Err(_) if whose == Some(APPLICATION_ID) || made_by_us || cut_off => Ok(()),
        Err(_) => Err(Fault::Foreign("it is no cache, but a file of another program: choose another path".to_owned())),
    }
}

/// Refuses what is a database, and not a cache of this release.
pub fn is_current(connection: &Connection) -> Result<()> {
    if pragma(connection, "application_id")? as i32 != APPLICATION_ID {
        return Err(Fault::Foreign("it is a database of another program: choose another path".to_owned()));
    }
    let collection = "SELECT count(*) FROM sqlite_schema WHERE name = 'codes'";
    if connection.query_row(collection, [], |row| row.get::<_, i64>(0))? > 0 {
        return Err(Fault::Foreign("it is a collection, not a cache: choose another path".to_owned()));
    }
    check_version(pragma(connection, "user_version")? as usize)
}

fn check_version(version: usize) -> Result<()> {
    if version <= MIGRATIONS.len() {
        return Ok(());
    }
    Err(Fault::Foreign(format!(
        "it has schema {version}, made by a later release; this one reads up to {}",
        MIGRATIONS.len()
    )))
}

/// Held while the file is opened or set aside. Where locks do not work, neither do several processes on one file.
pub fn lock(path: &Path, try_lock: fn(&File) -> std::result::Result<(), TryLockError>) -> Result<Option<File>> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(with_suffix(path, "-lock"));
    let Ok(file) = opened else { return Ok(None) };
    let began = Instant::now();
    loop {
        match try_lock(&file) {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) if began.elapsed() < BUSY_WAIT => thread::sleep(Duration::from_millis(1)),
            Err(TryLockError::WouldBlock) => return Err(Fault::Busy("another program holds its lock file".to_owned())),
        }
    }
}

/// Whether there is a log with something in it.
pub fn has_log(path: &Path) -> bool {
    fs::metadata(with_suffix(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// The name by which SQLite opens a file that nobody changes, and neither makes nor needs others beside it.
pub fn unchanging(path: &Path) -> PathBuf {
    let mut name = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => name.push(char::from(*byte)),
            other => name.push_str(&format!("%{other:02x}")),
        }
    }
    format!("{name}?immutable=1").into()
}

pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// `busy_wait`: how long it waits for another program that has the file to itself.
pub fn prepare(connection: &Connection, busy_wait: Duration) -> Result<()> {
    connection.busy_timeout(busy_wait)?;
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
    if !fresh {
        is_current(connection)?;
    } else {
        connection.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    if version < MIGRATIONS.len() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for migration in &MIGRATIONS[version..] {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
        transaction.commit()?;
    }
    // Which releases that do not know it may leave aside.
    connection.execute_batch(TOMBSTONES)?;
    Ok(())
}

/// Bounds the log beside a file that is to have at most `max_bytes`. One that grew in a burst gives its space back.
pub fn limit_log(connection: &Connection, max_bytes: Option<u64>) -> Result<()> {
    let quarter = max_bytes.unwrap_or(u64::MAX) / 4;
    let pages = (quarter / PAGE_BYTES).clamp(LEAST_LOG_PAGES, LOG_PAGES);
    let set = |sql: String| connection.query_row(&sql, [], |_| Ok(()));
    set(format!("PRAGMA wal_autocheckpoint = {pages}"))?;
    Ok(set(format!("PRAGMA journal_size_limit = {}", quarter.min(LOG_BYTES)))?)
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
