//! The file of the disk tier: its schema, and everything that is said to SQLite.

mod batch;
mod file;
#[cfg(fuzzing)]
pub mod fuzzing;
mod row;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

pub(super) use batch::Batch;
use batch::{dimensions_of, parameters};
use file::{
    BUSY_WAIT, Contents, TRANSACTIONS, bound, has_log, is_current, limit_log, lock, meta, migrate, pragma, prepare,
    shrink, unchanging,
};
pub(super) use file::{Identity, PAGE_BYTES, set_aside};
pub(super) use row::{Checked, Row, Stored, decode, encode};
use row::{find, key_of, read, select};

use super::entry::{CLOCK_SLACK_MS, NEVER};
use super::selection::Selection;
use crate::embedding::Key;
use crate::sync::{Mutex, MutexGuard};

/// Rows that one step of maintenance deletes, and pages that it gives back: a few milliseconds each, so that it never
/// keeps another process or the queue waiting.
const STEP_ROWS: usize = 500;
const STEP_PAGES: usize = 256;

/// Why something could not be done, by what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another program holds the file.
    Busy(String),
    /// The file can be read, and not written.
    ReadOnly(String),
    /// The file is damaged, or none of SQLite's.
    Broken(String),
    /// The file is somebody else's.
    Foreign(String),
    /// The disk is full, the directory cannot be written, …
    Unavailable(String),
}

impl Fault {
    pub fn reason(&self) -> &str {
        match self {
            Self::Busy(reason) | Self::ReadOnly(reason) => reason,
            Self::Broken(reason) | Self::Foreign(reason) | Self::Unavailable(reason) => reason,
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let reason = error.to_string();
        match error.sqlite_error_code() {
            // Not where locking itself has failed, which only closing the file mends: a lock that could not be given back would
            // be waited for again and again, ten seconds each time.
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(reason),
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

/// Why an entry is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Vectors of its space have this length.
    Length(usize),
    /// It takes more than what the file may have.
    Size(u64),
    /// Its key was written, deleted or cleared since the work on it began.
    Superseded,
}

/// A connection that only reads. Never waits for a writer.
pub(super) struct Reader {
    connection: Connection,
    /// Of a file that nobody is said to change: how it was then.
    unchanging: Option<Contents>,
}

impl Reader {
    /// `page_bytes`: memory for pages of the file. `patient`: as for [`Reader::patient`].
    pub fn open(path: &Path, page_bytes: usize, patient: bool) -> Result<Self> {
        // Between the renames of a file that is set aside, the file of before would be read with the log of the new one.
        let _steady = lock(path, File::try_lock_shared)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = |name: &Path, flags| {
            let connection = Connection::open_with_flags(name, flags)?;
            prepare(&connection, if patient { BUSY_WAIT } else { Duration::ZERO })?;
            // The log is opened with the first look.
            is_current(&connection)?;
            Ok(connection)
        };
        let contents = Contents::of(path);
        let (connection, unchanging) = match open(path, flags) {
            // Where nothing can be written beside the file, there is no log, and hardly anybody changes the file.
            Err(Fault::Unavailable(_)) if !has_log(path) => {
                (open(&unchanging(path), flags | OpenFlags::SQLITE_OPEN_URI)?, Some(contents))
            }
            opened => (opened?, None),
        };
        bound(&connection, page_bytes)?;
        Ok(Self { connection, unchanging })
    }

    /// Whether the file at `path` is still the one that was opened, and one that is opened as what nobody changes is as it was.
    pub fn is_of(&self, path: &Path, file: &Identity) -> bool {
        Identity::of(path).is_ok_and(|there| there == *file)
            && self.unchanging.as_ref().is_none_or(|contents| *contents == Contents::of(path))
    }

    /// Whether it waits for other processes that have the file to themselves for a moment, or says [`Fault::Busy`].
    pub fn patient(&self, patient: bool) -> Result<()> {
        Ok(self.connection.busy_timeout(if patient { BUSY_WAIT } else { Duration::ZERO })?)
    }

    /// How many transactions there were in this file, of all who write it. Refuses a file that has changed hands.
    pub fn transactions(&self) -> Result<u64> {
        is_current(&self.connection)?;
        meta(&self.connection, TRANSACTIONS)
    }

    /// Length of the vectors of a space, if there are any. A damaged length is corrected where `expected` is the right one.
    pub fn dimensions_of(&self, space: i64, expected: usize) -> Result<Option<usize>> {
        dimensions_of(&self.connection, space, expected)
    }

    /// Gives the memory for pages back that is not in use.
    pub fn shrink(&self) -> Result<()> {
        shrink(&self.connection)
    }

    /// The lengths of vectors of all spaces.
    pub fn lengths(&self) -> Result<Vec<usize>> {
        let mut select = self.connection.prepare_cached("SELECT DISTINCT dimensions FROM spaces")?;
        let lengths = select.query_map([], |row| row.get::<_, i64>(0))?;
        Ok(lengths.map(|length| length.map(|length| length as usize)).collect::<rusqlite::Result<_>>()?)
    }

    /// The rows of `keys`, all as of one moment.
    pub fn get<'k>(&self, mut keys: impl ExactSizeIterator<Item = &'k Key>, mut each: impl FnMut(Row)) -> Result<()> {
        // A transaction locks once for all; one look does that by itself.
        let transaction = if keys.len() > 1 { Some(self.connection.unchecked_transaction()?) } else { None };
        keys.try_for_each(|key| find(&self.connection, key).map(&mut each))?;
        Ok(transaction.map_or(Ok(()), |transaction| transaction.finish())?)
    }

    /// Whether a key has an answer.
    pub fn has(&self, key: &Key, now_ms: u64) -> Result<bool> {
        Ok(matches!(find(&self.connection, key)?, Row::Found(stored) if stored.entry.live(now_ms)))
    }

    /// Whether there are rows that a selection covers.
    pub fn has_any(&self, selection: &Selection) -> Result<bool> {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM entries WHERE {})", Selection::SQL);
        let mut select = self.connection.prepare_cached(&sql)?;
        for values in parameters(selection) {
            if select.query_row(values, |row| row.get(0))? {
                return Ok(true);
            }
        }
        Ok(false)
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

    /// The row that was written last.
    pub fn last(&self) -> Result<i64> {
        let last = self.connection.prepare_cached("SELECT max(id) FROM entries")?.query_row([], |row| row.get(0));
        Ok(last.map(Option::unwrap_or_default)?)
    }

    /// Calls `each` with every whole row of a space after the row `after`. Gives the last row of all.
    pub fn scan(&self, space: i64, after: i64, mut each: impl FnMut(Key, Stored)) -> Result<i64> {
        let last = self.last()?;
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
    /// Transactions in the file when this connection looked last.
    seen: u64,
    own: OwnTransactions,
}

/// How many of the transactions that a file counts its cache has made itself. The lock is held while one is committed: who
/// has it can tell all of them from those of others.
#[derive(Default, Clone)]
pub(super) struct OwnTransactions(Arc<Mutex<u64>>);

impl OwnTransactions {
    /// The count. Waits while one is being committed.
    pub fn lock(&self) -> MutexGuard<'_, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The count, unless one is being committed.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, u64>> {
        match self.0.try_lock() {
            Ok(own) => Some(own),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Writer {
    /// Opens the file or begins one. Nobody else opens it or sets it aside meanwhile. `page_bytes`: memory for its pages; `own`
    /// counts what it commits.
    pub fn open(
        path: &Path,
        page_bytes: usize,
        max_bytes: Option<u64>,
        now_ms: u64,
        own: OwnTransactions,
    ) -> Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let _alone = lock(path, File::try_lock)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        prepare(&connection, BUSY_WAIT)?;
        // Without this the directory is found to be read-only at the first write only.
        if connection.is_readonly("main")? {
            return Err(Fault::Unavailable(format!("{} cannot be written", path.display())));
        }
        migrate(&mut connection)?;
        bound(&connection, page_bytes)?;
        limit_log(&connection, max_bytes)?;
        let clock_ms = meta(&connection, "clock_ms")?;
        let mut writer = Self {
            connection,
            path: path.to_owned(),
            file: Identity::of(path)?,
            max_bytes,
            dimensions: HashMap::new(),
            clock_ms,
            seen: 0,
            own,
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
        let transaction = begin(&mut self.connection)?;
        let before = meta(&transaction, TRANSACTIONS)?;
        if before != self.seen {
            // Others may have begun with vectors of another length.
            self.dimensions.clear();
        }
        let mut batch = Batch {
            connection: &transaction,
            dimensions: &mut self.dimensions,
            max_bytes,
            now_ms,
            added: 0,
            next_id: None,
            clears: None,
        };
        let done = work(&mut batch).and_then(|done| {
            let evicted = batch.evict()?;
            let entries = batch.finish(now_ms, before + 1)?;
            Ok((done, entries, evicted))
        });
        let (done, entries, evicted) = done.inspect_err(|_| self.dimensions.clear())?;
        let pages = pragma(&transaction, "page_count")?.saturating_sub(pragma(&transaction, "freelist_count")?);
        let mut own = self.own.lock();
        transaction.commit().inspect_err(|_| self.dimensions.clear())?;
        *own += 1;
        drop(own);
        self.clock_ms = self.clock_ms.max(now_ms);
        self.seen = before + 1;
        Ok((done, Usage { entries, bytes: pages * PAGE_BYTES, evicted }))
    }

    /// Whether others have written to the file since it was last asked.
    pub fn others_write(&mut self) -> bool {
        let before = self.seen;
        self.seen = meta(&self.connection, TRANSACTIONS).unwrap_or(before);
        if self.seen != before {
            self.dimensions.clear();
        }
        self.seen != before
    }

    /// Makes what was committed survive a loss of power, too.
    pub fn sync(&self) -> Result<()> {
        // Answers "busy" in a column, where readers keep it from doing all; the log itself is synced before that.
        Ok(self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
    }

    /// Gives the memory for pages back that is not in use.
    pub fn shrink(&self) -> Result<()> {
        shrink(&self.connection)
    }

    /// Makes the index of keys anew. See [`Batch::reindex`].
    pub fn reindex(&mut self, now_ms: u64) -> Result<()> {
        self.transaction(now_ms, |batch| batch.reindex()).map(drop)
    }

    /// A small part of maintenance.
    pub fn tidy(&mut self, now_ms: u64) -> Result<Tidied> {
        let (expired, usage) = self.transaction(now_ms, |batch| {
            batch.drop_leases(now_ms)?;
            batch.drop_tombstones()?;
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
        let transaction = begin(&mut self.connection)?;
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
        transaction.execute_batch("DELETE FROM leases; DELETE FROM tombstones; DELETE FROM clears;")?;
        transaction.execute("UPDATE meta SET value = max(value - ?1, 0) WHERE name = 'entries'", [gone as i64])?;
        transaction.execute("UPDATE meta SET value = ?1 WHERE name = 'clock_ms'", [now_ms as i64])?;
        transaction.execute("UPDATE meta SET value = value + 1 WHERE name = ?1", [TRANSACTIONS])?;
        transaction.commit()?;
        self.clock_ms = now_ms;
        Ok(())
    }

    #[cfg(test)]
    pub fn execute(&mut self, sql: &str) -> Result<()> {
        Ok(self.connection.execute_batch(sql)?)
    }
}

impl Writer {
    pub fn identity(&self) -> Identity {
        self.file
    }
}

/// A transaction that writes, in a file that is still one of this release.
fn begin(connection: &mut Connection) -> Result<Transaction<'_>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    is_current(&transaction)?;
    Ok(transaction)
}

const _: () = assert!(NEVER == 9_223_372_036_854_775_807, "the number in the SQL");

#[cfg(test)]
mod tests {
    use super::super::entry::{Draft, Precision};
    use super::*;
    use crate::embedding::Space;

    /// Bytes of pages that a connection holds.
    #[allow(unsafe_code)]
    fn held(connection: &Connection) -> usize {
        let (mut now, mut most) = (0, 0);
        // SAFETY: the connection is open, and both numbers outlive the call.
        let code = unsafe {
            let handle = connection.handle();
            rusqlite::ffi::sqlite3_db_status(handle, rusqlite::ffi::SQLITE_DBSTATUS_CACHE_USED, &mut now, &mut most, 0)
        };
        assert_eq!(code, rusqlite::ffi::SQLITE_OK);
        now as usize
    }

    #[test]
    fn locking_that_fails_is_not_taken_for_another_program_that_holds_the_file() {
        let fault = |code| Fault::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
        assert!(matches!(fault(rusqlite::ffi::SQLITE_PROTOCOL), Fault::Unavailable(_)));
        assert!(matches!(fault(rusqlite::ffi::SQLITE_BUSY), Fault::Busy(_)));
    }

    #[test]
    fn a_change_that_waited_does_not_undo_what_was_written_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache.db");
        let mut writer = Writer::open(&path, 1 << 20, None, 100, OwnTransactions::default()).unwrap();
        let space = Space::builder().finish();
        let key = |n: u32| space.key().field("n", n.to_le_bytes()).finish();
        let entry =
            |created_ms| Draft { note: b"x", ..Draft::default() }.entry(&space, None, Precision::F32, created_ms, None);
        let outcome = writer.transaction(200, |batch| {
            for n in 0..3 {
                batch.put(&key(n), &entry(100), 100)?.unwrap();
            }
            let put = |batch: &mut Batch, n, at| batch.put(&key(n), &entry(at), at);
            assert_eq!(put(batch, 0, 99)?, Err(Refusal::Superseded));
            assert_eq!(put(batch, 0, 100)?, Ok(()), "who is later at the same moment");
            assert_eq!((batch.delete(&key(1), 99)?, batch.delete(&key(1), 101)?), (0, 1));
            assert_eq!(put(batch, 1, 100)?, Err(Refusal::Superseded), "deleted at 101");
            assert_eq!(put(batch, 1, 102)?, Ok(()));
            let whole = Selection::default().of(space.id());
            assert_eq!(batch.clear(&whole, 101)?, 2, "the one of 102 is newer");
            assert_eq!(put(batch, 2, 100)?, Err(Refusal::Superseded), "cleared at 101");
            assert_eq!(put(batch, 2, 150)?, Ok(()));
            // A clock that was ahead says nothing about what comes first.
            batch.put(&key(3), &entry(900), 900)?.unwrap();
            batch.delete(&key(4), 900)?;
            assert_eq!((put(batch, 3, 150)?, put(batch, 4, 150)?), (Ok(()), Ok(())));
            (10..20).try_for_each(|n| batch.delete(&key(n), 120).map(drop))
        });
        outcome.unwrap();
        let counted = |table| -> i64 {
            let sql = format!("SELECT count(*) FROM {table}");
            Connection::open(&path).unwrap().query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!((counted("tombstones"), counted("clears")), (12, 1));
        writer.tidy(1000 + 600_000).unwrap();
        assert_eq!((counted("tombstones"), counted("clears")), (0, 0), "nobody computes for so long");
    }

    #[test]
    fn pages_take_the_memory_that_they_are_given() {
        const GIVEN: usize = 2 << 20;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache.db");
        let space = Space::builder().finish();
        let key = |n: u32| space.key().field("n", n.to_le_bytes()).finish();
        let draft = Draft { vector: Some(&[0.5; 384]), ..Draft::default() };
        let entry = draft.entry(&space, None, Precision::F32, 1, None);
        // A new file, then one that is there.
        for from in [0, 6000] {
            let mut writer = Writer::open(&path, GIVEN, None, 1, OwnTransactions::default()).unwrap();
            for batch in 0..6 {
                let keys = (0..1000).map(|n| key(from + batch * 1000 + n));
                let mut keys = keys.collect::<Vec<_>>().into_iter();
                let put =
                    |batch: &mut Batch| keys.try_for_each(|key| batch.put(&key, &entry, 1).map(|put| put.unwrap()));
                writer.transaction(1, put).unwrap();
            }
            let busy = held(&writer.connection);
            assert!((GIVEN / 2..GIVEN * 9 / 8).contains(&busy), "{busy}");
            writer.shrink().unwrap();
            assert!(held(&writer.connection) < GIVEN / 8);
        }
        let reader = Reader::open(&path, GIVEN, true).unwrap();
        let keys: Vec<Key> = (0..12_000).map(key).collect();
        let mut found = 0;
        reader.get(keys.iter(), |row| found += usize::from(matches!(row, Row::Found(_)))).unwrap();
        assert_eq!(found, 12_000);
        let busy = held(&reader.connection);
        assert!((GIVEN / 2..GIVEN * 9 / 8).contains(&busy), "{busy}");
    }
}
