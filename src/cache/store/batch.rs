//! The changes of one transaction.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, ToSql, params, params_from_iter};

use super::super::entry::{Entry, live};
use super::super::selection::Selection;
use super::file::{PAGE_BYTES, TRANSACTIONS, meta, pragma};
use super::row::{Checked, Row, disagreement, encode, find, key_of, read, select};
use super::{Refusal, Result};
use crate::embedding::Key;
use crate::sync::{Fault as Planted, planted};

/// What a file takes without entries, and a page for the places of one: tables, indexes, and a page of each that changes.
const FRAME_BYTES: u64 = 16 * PAGE_BYTES;

/// No lease is believed for longer: it was taken while the clock was ahead.
pub const LONGEST_LEASE_MS: u64 = 600_000;

/// How many deletions are remembered: of keys, and of many at once. A put that is older than a deletion waits in the queue of
/// another process, or is being computed there.
const TOMBSTONES: i64 = 65_536;
const CLEARS: i64 = 64;

/// How long: no longer does anybody wait for a computation.
const TOMBSTONE_MS: u64 = 600_000;

/// The changes of one transaction. What was written to a key after the time of a change, by another process, is newer and stays.
pub struct Batch<'a> {
    pub(super) connection: &'a Connection,
    pub(super) dimensions: &'a mut HashMap<i64, usize>,
    pub(super) max_bytes: Option<u64>,
    pub(super) now_ms: u64,
    pub(super) added: i64,
    /// Of the next row, once one was written.
    pub(super) next_id: Option<i64>,
    /// The clears that are remembered, once somebody has asked: what they cover, and when they were.
    pub(super) clears: Option<Vec<(Selection, u64)>>,
}

impl Batch<'_> {
    /// Writes an entry that was made of what there was at `since_ms`; in the answer, why it is not to be.
    pub fn put(&mut self, key: &Key, entry: &Entry, since_ms: u64) -> Result<std::result::Result<(), Refusal>> {
        // A row of its own pages, beside what a file has before there is an entry in it.
        let need = (entry.payload_bytes() as u64).next_multiple_of(PAGE_BYTES) + FRAME_BYTES;
        if let Some(limit) = self.max_bytes.filter(|limit| need > *limit) {
            return Ok(Err(Refusal::Size(limit)));
        }
        if !entry.vector.is_empty() {
            let stored = self.dimensions_of(entry.space, entry.vector.len())?;
            if stored != entry.vector.len() {
                return Ok(Err(Refusal::Length(stored)));
            }
        }
        if self.was_deleted(key, entry, since_ms)? {
            return Ok(Err(Refusal::Superseded));
        }
        let id = self.next_id()?;
        let (format, bytes) = encode(&entry.vector);
        let times = (entry.created_ms, entry.expires_ms);
        let fields = Checked { key, entry, times, format, bytes: &bytes };
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
             content = ?8, format = ?9, vector = ?10, note = ?11, id = ?12
             WHERE key = ?1 AND (created_ms <= ?13 OR created_ms > ?14)",
        )?;
        let times = [since_ms as i64, self.now_ms as i64];
        let of_before = times.each_ref().map(|ms| ms as &dyn ToSql);
        if update.execute(params_from_iter(values.iter().chain(&of_before)))? == 1 {
            return Ok(Ok(()));
        }
        let mut select = self.connection.prepare_cached("SELECT 1 FROM entries WHERE key = ?1")?;
        // The index says that there is such a row.
        if select.exists([key.as_bytes()])? { Ok(Err(Refusal::Superseded)) } else { Err(disagreement()) }
    }

    /// Whether a key, or many of which an entry of it would be one, was deleted after `since_ms`. What is said to have been
    /// later than now was written by a clock that was ahead.
    fn was_deleted(&mut self, key: &Key, entry: &Entry, since_ms: u64) -> Result<bool> {
        let mut select =
            self.connection.prepare_cached("SELECT 1 FROM tombstones WHERE key = ?1 AND at_ms > ?2 AND at_ms <= ?3")?;
        if select.exists(params![key.as_bytes(), since_ms as i64, self.now_ms as i64])? {
            return Ok(true);
        }
        let clears = match self.clears.take() {
            Some(clears) => clears,
            None => self.remembered_clears()?,
        };
        let deleted = clears.iter().any(|(selection, at_ms)| *at_ms > since_ms && selection.covers(entry));
        self.clears = Some(clears);
        Ok(deleted)
    }

    fn remembered_clears(&self) -> Result<Vec<(Selection, u64)>> {
        let mut select =
            self.connection.prepare_cached("SELECT at_ms, space, kind, tag FROM clears WHERE at_ms <= ?1")?;
        let clears = select.query_map([self.now_ms as i64], |row| {
            let (kind, tag): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
            let tags = tag.into_iter().map(Into::into).collect();
            let selection = Selection { space: row.get(1)?, kind: kind.map(Into::into), tags, expired_by_ms: None };
            Ok((selection, row.get::<_, i64>(0)? as u64))
        })?;
        Ok(clears.collect::<rusqlite::Result<_>>()?)
    }

    /// Forgets deletions that nobody asks for any more.
    pub(super) fn drop_tombstones(&mut self) -> Result<()> {
        for table in ["tombstones", "clears"] {
            let sql = format!("DELETE FROM {table} WHERE at_ms < ?1 OR at_ms > ?2");
            let oldest = self.now_ms.saturating_sub(TOMBSTONE_MS);
            self.connection.execute(&sql, [oldest as i64, self.now_ms as i64])?;
        }
        Ok(())
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
    fn dimensions_of(&mut self, space: i64, first: usize) -> Result<usize> {
        if let Some(&known) = self.dimensions.get(&space) {
            return Ok(known);
        }
        let known = dimensions_of(self.connection, space, first)?.unwrap_or(first);
        let mut write = self.connection.prepare_cached(
            "INSERT INTO spaces VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE
             SET dimensions = excluded.dimensions WHERE dimensions != excluded.dimensions",
        )?;
        write.execute(params![space, known as i64])?;
        self.dimensions.insert(space, known);
        Ok(known)
    }

    /// Deletes the entry of a key; how many there were that were answers.
    pub fn delete(&mut self, key: &Key, at_ms: u64) -> Result<usize> {
        let now_ms = self.now_ms;
        let most = self.max_bytes.map_or(TOMBSTONES, |max| TOMBSTONES.min((max / 1024) as i64));
        let mut remember = self
            .connection
            .prepare_cached("INSERT OR REPLACE INTO tombstones (key, at_ms) VALUES (?1, ?2) RETURNING id")?;
        let id: i64 = remember.query_row(params![key.as_bytes(), at_ms as i64], |row| row.get(0))?;
        self.connection.prepare_cached("DELETE FROM tombstones WHERE id <= ?1")?.execute([id.saturating_sub(most)])?;
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM entries WHERE key = ?1 AND (created_ms <= ?2 OR created_ms > ?3) RETURNING expires_ms, created_ms",
        )?;
        let times = params![key.as_bytes(), at_ms as i64, now_ms as i64];
        let times = delete.query_map(times, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        let times: Vec<_> = times.collect::<rusqlite::Result<_>>()?;
        self.added -= times.len() as i64;
        Ok(times.iter().filter(|(expires, created)| live(*created as u64, *expires as u64, now_ms)).count())
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

    /// Deletes all entries that `selection` covers; how many there were.
    pub fn clear(&mut self, selection: &Selection, at_ms: u64) -> Result<usize> {
        let (at, now) = (at_ms as i64, self.now_ms as i64);
        let sql = format!("DELETE FROM entries WHERE {} AND (created_ms <= ?5 OR created_ms > ?6)", Selection::SQL);
        let mut delete = self.connection.prepare_cached(&sql)?;
        let mut remember = self
            .connection
            .prepare_cached("INSERT INTO clears (at_ms, space, kind, tag) VALUES (?1, ?2, ?3, ?4) RETURNING id")?;
        let mut deleted = 0;
        for (space, kind, tag, expired_by) in parameters(selection) {
            deleted += delete.execute(params![space, kind, tag, expired_by, at, now])?;
            // What has expired does not come back.
            if expired_by.is_none() {
                let id: i64 = remember.query_row(params![at, space, kind, tag], |row| row.get(0))?;
                self.connection.prepare_cached("DELETE FROM clears WHERE id <= ?1")?.execute([id - CLEARS])?;
            }
        }
        self.clears = None;
        self.added -= deleted as i64;
        if selection.is_whole() {
            self.connection.execute(
                "DELETE FROM spaces WHERE (?1 IS NULL OR id = ?1)
                 AND NOT EXISTS (SELECT 1 FROM entries WHERE entries.space = spaces.id)",
                [selection.space],
            )?;
            self.dimensions.clear();
        }
        Ok(deleted)
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
            let taken = insert.execute(params![key.as_bytes(), owner, until as i64, now_ms as i64, latest])? == 1;
            Ok(taken || planted(Planted::LeaseForAll))
        };
        keys.iter().map(&mut take).collect()
    }

    /// Gives leases back; without keys, all of `owner`.
    pub fn release(&mut self, keys: Option<&[Key]>, owner: &[u8]) -> Result<()> {
        let Some(keys) = keys else {
            self.connection.execute("DELETE FROM leases WHERE owner = ?1", [owner])?;
            return Ok(());
        };
        let mut delete = self.connection.prepare_cached("DELETE FROM leases WHERE key = ?1 AND owner = ?2")?;
        keys.iter().try_for_each(|key| delete.execute(params![key.as_bytes(), owner]).map(drop))?;
        Ok(())
    }

    pub(super) fn drop_leases(&mut self, now_ms: u64) -> Result<()> {
        self.connection.execute("DELETE FROM leases WHERE expires_ms <= ?1", [now_ms as i64])?;
        Ok(())
    }

    pub(super) fn expire(&mut self, now_ms: u64, most: usize) -> Result<usize> {
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM entries WHERE id IN (SELECT id FROM entries
             WHERE expires_ms <= ?1 AND expires_ms < 9223372036854775807 LIMIT ?2)",
        )?;
        let deleted = delete.execute([now_ms as i64, most as i64])?;
        self.added -= deleted as i64;
        Ok(deleted)
    }

    /// Deletes the least recently used entries until the file holds no more than it may.
    pub(super) fn evict(&mut self) -> Result<usize> {
        let Some(max_bytes) = self.max_bytes else { return Ok(0) };
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

    /// `transactions`: how many there were with this one.
    pub(super) fn finish(&mut self, now_ms: u64, transactions: u64) -> Result<u64> {
        let mut note = self.connection.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?;
        note.execute(params![TRANSACTIONS, transactions as i64])?;
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

/// The values of [`Selection::SQL`]: for each tag, or once where there is none.
pub fn parameters(
    selection: &Selection,
) -> impl Iterator<Item = (Option<i64>, Option<&str>, Option<&str>, Option<i64>)> {
    let Selection { space, kind, tags, expired_by_ms } = selection;
    let expired_by_ms = expired_by_ms.map(|ms| ms.min(i64::MAX as u64) as i64);
    let any = tags.is_empty().then_some(None);
    let tags = any.into_iter().chain(tags.iter().map(|tag| Some(&**tag)));
    tags.map(move |tag| (*space, kind.as_deref(), tag, expired_by_ms))
}

/// The length of a space's vectors, if it has any. Where the one that was noted is not the one that is expected, the entries
/// are asked: a damaged length would refuse all vectors for ever, and they have a checksum.
pub fn dimensions_of(connection: &Connection, space: i64, expected: usize) -> Result<Option<usize>> {
    let mut select = connection.prepare_cached("SELECT dimensions FROM spaces WHERE id = ?1")?;
    let noted: Option<i64> = select.query_row([space], |row| row.get(0)).optional()?;
    let noted = noted.map(|noted| noted as usize);
    if noted.is_none_or(|noted| noted == expected) {
        return Ok(noted);
    }
    let sql = select!("FROM entries WHERE space = ?1 AND length(vector) > 0 LIMIT 8");
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query([space])?;
    while let Some(row) = rows.next()? {
        if let Some(key) = key_of(row)?
            && let Row::Found(stored) = read(&key, row)?
        {
            return Ok(Some(stored.entry.vector.len()));
        }
    }
    Ok(noted)
}
