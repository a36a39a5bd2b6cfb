//! The file of the disk tier: its schema, and everything that is said to SQLite.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use half::f16;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};
use xxhash_rust::xxh3::Xxh3;

use super::entry::{CLOCK_SLACK_MS, Entry, NEVER, Vector};
use crate::embedding::Key;

/// In the file's header: whose it is. "embc".
const APPLICATION_ID: i32 = 0x656d_6263;

/// What makes version `i + 1` of version `i`. Never change one that was released; append.
///
/// A rowid table, because a table sorted by a random key fills its pages badly and rewrites a whole row's page for every
/// new neighbour: 12–25 thousand inserts a second against 100 thousand. The narrow index on the key pays that price.
/// All other indexes grow at their end only.
const MIGRATIONS: [&str; 1] = ["
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
pub(super) const PAGE_BYTES: u64 = 8192;

/// How long SQLite waits for another process before it says that the file is locked.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// No lease is believed for longer: it was taken while the clock was ahead.
const LONGEST_LEASE_MS: u64 = 600_000;

/// Rows that one step of maintenance deletes, and pages that it gives back: a few milliseconds each, so that it never
/// keeps another process or the queue waiting.
const STEP_ROWS: usize = 500;
const STEP_PAGES: usize = 256;

/// Why something could not be done, by what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another process holds the file.
    Busy(String),
    /// The file is damaged, or none of SQLite's.
    Broken(String),
    /// The file is somebody else's.
    Foreign(String),
    /// The disk is full, the directory cannot be written, …
    Unavailable(String),
}

impl Fault {
    pub fn reason(&self) -> &str {
        let (Self::Busy(reason) | Self::Broken(reason) | Self::Foreign(reason) | Self::Unavailable(reason)) = self;
        reason
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let reason = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
                Self::Busy(reason)
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Broken(reason),
            // What these statements never meet in a file as they leave it. Unknown is SQLITE_ERROR: no such table.
            Some(ErrorCode::Unknown | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => Self::Broken(reason),
            Some(_) => Self::Unavailable(reason),
            // A value of a type that this schema does not have, or no row where there must be one.
            None => Self::Broken(reason),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

type Result<T> = std::result::Result<T, Fault>;

/// What the file has for a key.
#[derive(Debug)]
pub(super) enum Row {
    Absent,
    /// Not what was written.
    Damaged,
    Found(Stored),
}

/// A row as it was written.
#[derive(Debug)]
pub(super) struct Stored {
    pub id: i64,
    pub used_ms: u64,
    pub checksum: i64,
    pub entry: Entry,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT space, kind, created_ms, expires_ms, used_ms, checksum, content, format, vector, note, id, key ",
            $rest
        )
    };
}

/// A connection that only reads. Never waits for a writer.
pub(super) struct Reader {
    connection: Connection,
}

impl Reader {
    pub fn open(path: &Path) -> Result<Self> {
        // Between the renames of a file that is set aside, the file of before would be read with the log of the new one.
        let _steady = lock(path, File::lock_shared);
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        prepare(&connection, -4096)?;
        // The log is opened with the first look.
        pragma(&connection, "schema_version")?;
        Ok(Self { connection })
    }

    /// Whether it waits for other processes that have the file to themselves for a moment, or says [`Fault::Busy`].
    pub fn patient(&self, patient: bool) -> Result<()> {
        Ok(self.connection.busy_timeout(if patient { BUSY_WAIT } else { Duration::ZERO })?)
    }

    /// The rows of `keys`, all as of one moment.
    pub fn get<'k>(&self, mut keys: impl ExactSizeIterator<Item = &'k Key>, mut each: impl FnMut(Row)) -> Result<()> {
        // A transaction locks once for all; one look does that by itself.
        let transaction = if keys.len() > 1 { Some(self.connection.unchecked_transaction()?) } else { None };
        keys.try_for_each(|key| find(&self.connection, key).map(&mut each))?;
        Ok(transaction.map_or(Ok(()), |transaction| transaction.finish())?)
    }

    /// Whether the index of keys is sorted. Where a damaged key is not, a search may pass by whole rows beside it.
    pub fn in_order(&self) -> Result<bool> {
        let mut keys = self.connection.prepare("SELECT key FROM entries INDEXED BY entries_key ORDER BY key")?;
        let mut rows = keys.query([])?;
        let mut before = Vec::new();
        while let Some(row) = rows.next()? {
            match row.get_ref(0)? {
                ValueRef::Blob(key) if before.as_slice() < key => {
                    before.clear();
                    before.extend_from_slice(key);
                }
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Calls `each` with every whole row of a space after the row `after`. Gives the last row of all.
    pub fn scan(&self, space: i64, after: i64, mut each: impl FnMut(Key, Stored)) -> Result<i64> {
        let last = self.connection.prepare_cached("SELECT max(id) FROM entries")?.query_row([], |row| row.get(0));
        let last: i64 = last.map(Option::unwrap_or_default)?;
        if last <= after {
            return Ok(last);
        }
        // A + keeps SQLite from reading the index of the space, which does not know the rows' order.
        let sql = match after {
            0 => select!("FROM entries WHERE space = ?1 AND id > ?2"),
            _ => select!("FROM entries WHERE +space = ?1 AND id > ?2"),
        };
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([space, after])?;
        while let Some(row) = rows.next()? {
            let Some(key) = key_of(row)? else { continue };
            if let Row::Found(stored) = read(&key, row)? {
                each(key, stored);
            }
        }
        Ok(last)
    }
}

/// What a batch changed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub entries: u64,
    pub bytes: u64,
    pub evicted: usize,
}

/// What a step of maintenance did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tidied {
    pub expired: usize,
    pub evicted: usize,
    pub pages: usize,
    /// Whether there may be more to do.
    pub more: bool,
}

/// The connection that writes.
pub(super) struct Writer {
    connection: Connection,
    path: PathBuf,
    file: Identity,
    max_bytes: Option<u64>,
    dimensions: HashMap<i64, usize>,
    /// The latest time that any writer of this file has seen.
    clock_ms: u64,
}

impl Writer {
    /// Opens the file or begins one. Nobody else opens it or sets it aside meanwhile.
    pub fn open(path: &Path, max_bytes: Option<u64>, now_ms: u64) -> Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let _alone = lock(path, File::lock);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        prepare(&connection, -16_384)?;
        // Without this the directory is found to be read-only at the first write only.
        if connection.is_readonly("main")? {
            return Err(Fault::Unavailable(format!("{} cannot be written", path.display())));
        }
        migrate(&mut connection)?;
        let clock_ms = meta(&connection, "clock_ms")?;
        let mut writer = Self {
            connection,
            path: path.to_owned(),
            file: Identity::of(path)?,
            max_bytes,
            dimensions: HashMap::new(),
            clock_ms,
        };
        writer.follow_clock(now_ms)?;
        Ok(writer)
    }

    /// Whether the file is still where it was opened.
    pub fn in_place(&self) -> bool {
        Identity::of(&self.path).is_ok_and(|file| file == self.file)
    }

    /// Entries and bytes in use.
    pub fn usage(&self) -> Result<Usage> {
        let pages = pragma(&self.connection, "page_count")?.saturating_sub(pragma(&self.connection, "freelist_count")?);
        Ok(Usage { entries: meta(&self.connection, "entries")?, bytes: pages * PAGE_BYTES, evicted: 0 })
    }

    /// Does everything that `work` does, or nothing of it.
    pub fn transaction<T>(&mut self, now_ms: u64, work: impl FnOnce(&mut Batch) -> Result<T>) -> Result<(T, Usage)> {
        self.follow_clock(now_ms)?;
        let max_bytes = self.max_bytes;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut batch = Batch { connection: &transaction, dimensions: &mut self.dimensions, added: 0, next_id: None };
        let done = work(&mut batch).and_then(|done| {
            let evicted = max_bytes.map_or(Ok(0), |max_bytes| batch.evict(max_bytes))?;
            let entries = batch.finish(now_ms)?;
            Ok((done, entries, evicted))
        });
        let (done, entries, evicted) = done.inspect_err(|_| self.dimensions.clear())?;
        let pages = pragma(&transaction, "page_count")?.saturating_sub(pragma(&transaction, "freelist_count")?);
        transaction.commit().inspect_err(|_| self.dimensions.clear())?;
        self.clock_ms = self.clock_ms.max(now_ms);
        Ok((done, Usage { entries, bytes: pages * PAGE_BYTES, evicted }))
    }

    /// Makes what was committed survive a loss of power, too.
    pub fn sync(&self) -> Result<()> {
        // Answers "busy" in a column, where readers keep it from doing all; the log itself is synced before that.
        Ok(self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
    }

    /// Makes the index of keys anew. See [`Batch::reindex`].
    pub fn reindex(&mut self, now_ms: u64) -> Result<()> {
        self.transaction(now_ms, |batch| batch.reindex()).map(drop)
    }

    /// A small part of maintenance.
    pub fn tidy(&mut self, now_ms: u64) -> Result<Tidied> {
        let (expired, usage) = self.transaction(now_ms, |batch| {
            batch.drop_leases(now_ms)?;
            batch.expire(now_ms, STEP_ROWS)
        })?;
        let free = pragma(&self.connection, "freelist_count")?;
        let mut pages = 0;
        if expired == 0 && free > 0 {
            let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            pages = free.saturating_sub(pragma(&self.connection, "freelist_count")?) as usize;
        }
        let more = expired == STEP_ROWS || (expired > 0 && free > 0) || pages == STEP_PAGES;
        if !more {
            self.sync()?;
        }
        Ok(Tidied { expired, evicted: usage.evicted, pages, more })
    }

    /// When the machine's clock was set back, ends at once what it would bring back to life or keep alive for ever.
    fn follow_clock(&mut self, now_ms: u64) -> Result<()> {
        let before = self.clock_ms;
        if before <= now_ms.saturating_add(CLOCK_SLACK_MS) {
            return Ok(());
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let future = (now_ms + CLOCK_SLACK_MS) as i64;
        // What had expired by the clock that was ahead stays expired.
        let mut gone = transaction.execute(
            "DELETE FROM entries WHERE expires_ms <= ?1 AND expires_ms < 9223372036854775807",
            [before as i64],
        )?;
        // What was made by it has an age that nobody knows.
        gone += transaction.execute(
            "DELETE FROM entries WHERE used_ms > ?1 AND created_ms > ?1 AND expires_ms < 9223372036854775807",
            [future],
        )?;
        transaction.execute("UPDATE entries SET used_ms = ?2 WHERE used_ms > ?1", [future, now_ms as i64])?;
        transaction.execute("DELETE FROM leases", [])?;
        transaction.execute("UPDATE meta SET value = max(value - ?1, 0) WHERE name = 'entries'", [gone as i64])?;
        transaction.execute("UPDATE meta SET value = ?1 WHERE name = 'clock_ms'", [now_ms as i64])?;
        transaction.commit()?;
        self.clock_ms = now_ms;
        Ok(())
    }

    #[cfg(test)]
    pub fn execute(&mut self, sql: &str) -> Result<()> {
        Ok(self.connection.execute_batch(sql)?)
    }
}

/// The changes of one transaction.
pub(super) struct Batch<'a> {
    connection: &'a Connection,
    dimensions: &'a mut HashMap<i64, usize>,
    added: i64,
    /// Of the next row, once one was written.
    next_id: Option<i64>,
}

impl Batch<'_> {
    /// Writes an entry; `Err(length)` in the answer when its space has vectors of another length.
    pub fn put(&mut self, key: &Key, entry: &Entry) -> Result<std::result::Result<(), usize>> {
        if !entry.vector.is_empty() {
            let stored = self.dimensions_of(entry.space, entry.vector.len())?;
            if stored != entry.vector.len() {
                return Ok(Err(stored));
            }
        }
        let id = self.next_id()?;
        let (format, bytes) = encode(&entry.vector);
        let fields = Checked { key, entry, format, bytes: &bytes };
        let checksum = fields.checksum();
        let values = params![
            key.as_bytes(),
            entry.space,
            &*entry.kind,
            entry.created_ms as i64,
            entry.expires_ms as i64,
            entry.created_ms as i64,
            checksum,
            entry.content.as_ref().map(|hash| &hash[..]),
            format,
            bytes,
            &*entry.note,
            id,
        ];
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO entries
             (key, space, kind, created_ms, expires_ms, used_ms, checksum, content, format, vector, note, id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT (key) DO NOTHING",
        )?;
        if insert.execute(values)? == 1 {
            self.added += 1;
            return Ok(Ok(()));
        }
        let mut update = self.connection.prepare_cached(
            "UPDATE entries SET space = ?2, kind = ?3, created_ms = ?4, expires_ms = ?5, used_ms = ?6, checksum = ?7,
             content = ?8, format = ?9, vector = ?10, note = ?11, id = ?12 WHERE key = ?1",
        )?;
        // The index says that there is such a row.
        if update.execute(values)? == 1 { Ok(Ok(())) } else { Err(disagreement()) }
    }

    /// The id of a row that is written now: higher than those of all that were ever written, so that whoever has seen the
    /// rows up to one sees all later changes behind it.
    fn next_id(&mut self) -> Result<i64> {
        let id = match self.next_id {
            Some(id) => id,
            None => {
                let mut last = self.connection.prepare_cached("SELECT max(id) FROM entries")?;
                let last: Option<i64> = last.query_row([], |row| row.get(0))?;
                (meta(self.connection, "next_id")? as i64).max(last.unwrap_or_default().saturating_add(1))
            }
        };
        self.next_id = Some(id.saturating_add(1));
        Ok(id)
    }

    /// The length of a space's vectors. The first one decides.
    pub fn dimensions_of(&mut self, space: i64, first: usize) -> Result<usize> {
        if let Some(&known) = self.dimensions.get(&space)
            && known == first
        {
            return Ok(known);
        }
        let mut insert =
            self.connection.prepare_cached("INSERT INTO spaces VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING")?;
        insert.execute(params![space, first as i64])?;
        let mut select = self.connection.prepare_cached("SELECT dimensions FROM spaces WHERE id = ?1")?;
        let stored: i64 = select.query_row([space], |row| row.get(0))?;
        let mut stored = stored as usize;
        // A damaged length would refuse all vectors for ever: entries have a checksum, and know better.
        if stored != first
            && let Some(known) = self.any_vector_of(space)?
            && known != stored
        {
            self.connection.execute("UPDATE spaces SET dimensions = ?2 WHERE id = ?1", [space, known as i64])?;
            stored = known;
        }
        self.dimensions.insert(space, stored);
        Ok(stored)
    }

    /// Length of the vector of any whole entry of a space.
    fn any_vector_of(&self, space: i64) -> Result<Option<usize>> {
        let sql = select!("FROM entries WHERE space = ?1 AND length(vector) > 0 LIMIT 8");
        let mut select = self.connection.prepare_cached(sql)?;
        let mut rows = select.query([space])?;
        while let Some(row) = rows.next()? {
            if let Some(key) = key_of(row)?
                && let Row::Found(stored) = read(&key, row)?
            {
                return Ok(Some(stored.entry.vector.len()));
            }
        }
        Ok(None)
    }

    /// Deletes the entry of a key; where `only` is given, only the row with that checksum.
    pub fn delete(&mut self, key: &Key, only: Option<i64>) -> Result<()> {
        let mut delete =
            self.connection.prepare_cached("DELETE FROM entries WHERE key = ?1 AND (?2 IS NULL OR checksum = ?2)")?;
        self.added -= delete.execute(params![key.as_bytes(), only])? as i64;
        Ok(())
    }

    /// Deletes the row of a key if it is still damaged; whether that was not enough, because it was the index of keys that
    /// led to a row of another key, and is new now.
    pub fn repair(&mut self, key: &Key) -> Result<bool> {
        if !matches!(find(self.connection, key)?, Row::Damaged) {
            return Ok(false);
        }
        let mut select = self.connection.prepare_cached("SELECT id FROM entries WHERE key = ?1")?;
        let id: i64 = select.query_row([key.as_bytes()], |row| row.get(0))?;
        if !self.is_whole(id)? {
            self.added -= self.connection.execute("DELETE FROM entries WHERE id = ?1", [id])? as i64;
            if !matches!(find(self.connection, key)?, Row::Damaged) {
                return Ok(false);
            }
        }
        self.reindex().map(|()| true)
    }

    /// Whether a row is what was written for the key that it has itself, whatever an index says.
    fn is_whole(&self, id: i64) -> Result<bool> {
        let mut select = self.connection.prepare_cached(select!("FROM entries NOT INDEXED WHERE id = ?1"))?;
        let mut rows = select.query([id])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        Ok(match key_of(row)? {
            Some(key) => matches!(read(&key, row)?, Row::Found(_)),
            None => false,
        })
    }

    /// Makes the index of keys anew, from the rows. Of those with the same key, which the old one has let in, the newest
    /// stays.
    pub fn reindex(&mut self) -> Result<()> {
        self.connection.execute_batch(
            "DROP INDEX entries_key;
             DELETE FROM entries WHERE id NOT IN (SELECT max(id) FROM entries GROUP BY key);
             CREATE UNIQUE INDEX entries_key ON entries(key);
             UPDATE meta SET value = (SELECT count(*) FROM entries NOT INDEXED) WHERE name = 'entries';",
        )?;
        self.added = 0;
        Ok(())
    }

    /// Deletes all entries of a space and kind; absent ones stand for all.
    pub fn clear(&mut self, space: Option<i64>, kind: Option<&str>) -> Result<()> {
        let deleted = self.connection.execute(
            "DELETE FROM entries WHERE (?1 IS NULL OR space = ?1) AND (?2 IS NULL OR kind = ?2)",
            params![space, kind],
        )?;
        self.added -= deleted as i64;
        if kind.is_none() {
            self.connection.execute("DELETE FROM spaces WHERE ?1 IS NULL OR id = ?1", [space])?;
            self.dimensions.clear();
        }
        Ok(())
    }

    /// Notes that a row was used.
    pub fn touch(&mut self, id: i64, used_ms: u64) -> Result<()> {
        let mut update =
            self.connection.prepare_cached("UPDATE entries SET used_ms = ?2 WHERE id = ?1 AND used_ms < ?2")?;
        update.execute([id, used_ms as i64])?;
        Ok(())
    }

    /// Takes the leases that are free; whether each is `owner`'s now.
    pub fn acquire(&mut self, keys: &[Key], owner: &[u8], now_ms: u64, until_ms: u64) -> Result<Vec<bool>> {
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO leases VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE
             SET owner = excluded.owner, expires_ms = excluded.expires_ms
             WHERE owner = excluded.owner OR expires_ms <= ?4 OR expires_ms > ?5",
        )?;
        let until = until_ms.min(now_ms + LONGEST_LEASE_MS);
        let mut take = |key: &Key| {
            let latest = (now_ms + LONGEST_LEASE_MS) as i64;
            Ok(insert.execute(params![key.as_bytes(), owner, until as i64, now_ms as i64, latest])? == 1)
        };
        keys.iter().map(&mut take).collect()
    }

    /// Gives leases back.
    pub fn release(&mut self, keys: &[Key], owner: &[u8]) -> Result<()> {
        let mut delete = self.connection.prepare_cached("DELETE FROM leases WHERE key = ?1 AND owner = ?2")?;
        keys.iter().try_for_each(|key| delete.execute(params![key.as_bytes(), owner]).map(drop))?;
        Ok(())
    }

    fn drop_leases(&mut self, now_ms: u64) -> Result<()> {
        self.connection.execute("DELETE FROM leases WHERE expires_ms <= ?1", [now_ms as i64])?;
        Ok(())
    }

    fn expire(&mut self, now_ms: u64, most: usize) -> Result<usize> {
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM entries WHERE id IN (SELECT id FROM entries
             WHERE expires_ms <= ?1 AND expires_ms < 9223372036854775807 LIMIT ?2)",
        )?;
        let deleted = delete.execute([now_ms as i64, most as i64])?;
        self.added -= deleted as i64;
        Ok(deleted)
    }

    /// Deletes the least recently used entries until the file holds no more than `max_bytes`.
    fn evict(&mut self, max_bytes: u64) -> Result<usize> {
        let mut evicted = 0;
        loop {
            let pages = pragma(self.connection, "page_count")?;
            let used = (pages - pragma(self.connection, "freelist_count")?.min(pages)) * PAGE_BYTES;
            if used <= max_bytes {
                return Ok(evicted);
            }
            // About as many as the surplus has room for, a twentieth of the file on top so that not every batch evicts.
            let entries = (meta(self.connection, "entries")? as i64 + self.added).max(1) as u64;
            let surplus = used - max_bytes + max_bytes / 20;
            let rows = (surplus * entries / used).clamp(1, 20_000);
            let mut delete = self.connection.prepare_cached(
                "DELETE FROM entries WHERE id IN (SELECT id FROM entries ORDER BY used_ms, id LIMIT ?1)",
            )?;
            let deleted = delete.execute([rows as i64])?;
            if deleted == 0 {
                // Nothing but the file's own frame is left.
                return Ok(evicted);
            }
            self.added -= deleted as i64;
            evicted += deleted;
        }
    }

    fn finish(&mut self, now_ms: u64) -> Result<u64> {
        let mut update = self.connection.prepare_cached(
            "UPDATE meta SET value = CASE name WHEN 'entries' THEN max(value + ?1, 0) ELSE max(value, ?2) END
             WHERE name IN ('entries', 'clock_ms')",
        )?;
        update.execute([self.added, now_ms as i64])?;
        if let Some(next_id) = self.next_id {
            let mut note = self.connection.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('next_id', ?1)")?;
            note.execute([next_id])?;
        }
        meta(self.connection, "entries")
    }
}

/// Moves a broken file out of the way with everything that belongs to it; where to. `None`: somebody else did already.
pub(super) fn set_aside(path: &Path, broken: Option<Identity>, now_ms: u64) -> Result<Option<PathBuf>> {
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
pub(super) struct Identity(u64, u64);

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

impl Writer {
    pub fn identity(&self) -> Identity {
        self.file
    }
}

/// Held while the file is opened or set aside. Where locks do not work, neither do several processes on one file.
fn lock(path: &Path, how: fn(&File) -> io::Result<()>) -> Option<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(with_suffix(path, "-lock")).ok()?;
    how(&file).ok()?;
    Some(file)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn prepare(connection: &Connection, cache_size: i64) -> Result<()> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.pragma_update(None, "cache_size", cache_size)?;
    // A damaged file must be found out, not believed.
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<()> {
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

fn pragma(connection: &Connection, name: &str) -> Result<u64> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA {name}"))?;
    let value: i64 = statement.query_row([], |row| row.get(0))?;
    Ok(value as u64)
}

fn meta(connection: &Connection, name: &str) -> Result<u64> {
    let mut select = connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    let value: Option<i64> = select.query_row([name], |row| row.get(0)).optional()?;
    Ok(value.unwrap_or_default().max(0) as u64)
}

fn find(connection: &Connection, key: &Key) -> Result<Row> {
    let mut select = connection.prepare_cached(select!("FROM entries WHERE key = ?1"))?;
    let mut rows = select.query([key.as_bytes()])?;
    match rows.next()? {
        Some(row) => read(key, row),
        None => Ok(Row::Absent),
    }
}

/// The key of a row that was selected without an index of keys.
fn key_of(row: &rusqlite::Row) -> Result<Option<Key>> {
    let key = row.get_ref(11)?.as_blob().ok();
    Ok(key.and_then(|key| <[u8; 32]>::try_from(key).ok()).map(Key::from))
}

/// The row, if it is what was written for `key`, the one that was asked for: an index may be damaged, too.
fn read(key: &Key, row: &rusqlite::Row) -> Result<Row> {
    let integer = |column| match row.get_ref(column) {
        Ok(ValueRef::Integer(value)) => Some(value),
        _ => None,
    };
    let blob = |column| match row.get_ref(column) {
        Ok(ValueRef::Blob(bytes)) => Some(bytes),
        _ => None,
    };
    let whole = || -> Option<Stored> {
        let kind = match row.get_ref(1) {
            Ok(ValueRef::Text(text)) => std::str::from_utf8(text).ok()?,
            _ => return None,
        };
        let content = match row.get_ref(6) {
            Ok(ValueRef::Null) => None,
            Ok(ValueRef::Blob(bytes)) => Some(bytes.try_into().ok()?),
            _ => return None,
        };
        let (format, bytes) = (integer(7)?, blob(8)?);
        let entry = Entry {
            space: integer(0)?,
            kind: kind.into(),
            content,
            vector: decode(format, bytes)?,
            note: blob(9)?.into(),
            created_ms: integer(2)? as u64,
            expires_ms: integer(3)? as u64,
        };
        let stored = Stored { id: integer(10)?, used_ms: integer(4)? as u64, checksum: integer(5)?, entry };
        let fields = Checked { key, entry: &stored.entry, format, bytes };
        (fields.checksum() == stored.checksum).then_some(stored)
    };
    Ok(whole().map_or(Row::Damaged, Row::Found))
}

fn disagreement() -> Fault {
    Fault::Broken("an index does not agree with its table".to_owned())
}

const F32: i64 = 0;
const F16: i64 = 1;

/// Little-endian values, on every machine.
fn encode(vector: &Vector) -> (i64, Vec<u8>) {
    let mut bytes = vec![0; vector.bytes()];
    match vector {
        Vector::F32(values) => {
            for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = value.to_le_bytes();
            }
            (F32, bytes)
        }
        Vector::F16(values) => {
            for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = value.to_le_bytes();
            }
            (F16, bytes)
        }
    }
}

fn decode(format: i64, bytes: &[u8]) -> Option<Vector> {
    match format {
        F32 => {
            let (values, rest) = bytes.as_chunks::<4>();
            rest.is_empty().then(|| Vector::F32(values.iter().map(|value| f32::from_le_bytes(*value)).collect()))
        }
        F16 => {
            let (values, rest) = bytes.as_chunks::<2>();
            rest.is_empty().then(|| Vector::F16(values.iter().map(|value| f16::from_le_bytes(*value)).collect()))
        }
        _ => None,
    }
}

/// What a row's checksum covers: its key and everything that an entry says.
struct Checked<'a> {
    key: &'a Key,
    entry: &'a Entry,
    format: i64,
    /// The vector as it is stored.
    bytes: &'a [u8],
}

impl Checked<'_> {
    /// 64 bits: of all damaged rows that anybody will ever read, none will pass.
    fn checksum(&self) -> i64 {
        let Entry { space, kind, content, vector: _, note, created_ms, expires_ms } = self.entry;
        let mut hash = Xxh3::new();
        let mut field = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        field(self.key.as_bytes());
        field(&space.to_le_bytes());
        field(kind.as_bytes());
        field(content.as_ref().map_or(&[], |content| &content[..]));
        field(&created_ms.to_le_bytes());
        field(&expires_ms.to_le_bytes());
        field(note);
        field(&self.format.to_le_bytes());
        field(self.bytes);
        hash.finish() as i64
    }
}

const _: () = assert!(NEVER == 9_223_372_036_854_775_807, "the number in the SQL");
