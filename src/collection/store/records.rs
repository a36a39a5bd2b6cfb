//! The tables of a collection, and what a row of each holds.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension};

use super::{Meta, Store};
use crate::error::{Error, Result};
use crate::matrix::quantized::Code;
use crate::sqlite::{Fault, Step, checksum};

pub(super) const SCHEMA: &str = "
    CREATE TABLE meta (
        model TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        dimensions INTEGER NOT NULL,
        -- How many writes there were.
        clock INTEGER NOT NULL,
        entries INTEGER NOT NULL,
        -- Entries whose vectors have a direction.
        coded INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE entries (
        -- AUTOINCREMENT: the number of a row that is gone never means another entry.
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        -- The document that it is a chunk of, and which place it has there.
        document TEXT,
        place TEXT,
        metadata TEXT NOT NULL,
        text TEXT,
        vector BLOB NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX entries_by_document ON entries (document) WHERE document IS NOT NULL;
    CREATE TABLE documents (
        id TEXT PRIMARY KEY,
        hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE codes (
        block INTEGER PRIMARY KEY,
        clock INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        codes BLOB NOT NULL
    ) STRICT;
";

/// What is known of a collection itself: one row, once there is something.
pub(super) const ABOUT: &str =
    "CREATE TABLE IF NOT EXISTS about (metadata TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT";

/// What is to be kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Draft {
    /// Its id.
    pub id: String,
    /// Its text, if it has any.
    pub text: Option<String>,
    /// A JSON object.
    pub metadata: String,
    /// See the schema.
    pub document: Option<String>,
    /// JSON, of what only JavaScript reads.
    pub place: Option<String>,
    /// Its vector.
    pub vector: Vec<f32>,
}

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// The number of its row.
    pub row: i64,
    /// The rest.
    pub draft: Draft,
}

impl Draft {
    pub(super) fn checksum(&self, row: i64, vector: &[u8]) -> i64 {
        let text = |text: &Option<String>| text.as_ref().map_or(-1, |text| text.len() as i64);
        let numbers = [row, text(&self.text), text(&self.document), text(&self.place)];
        let of = |text: &'_ Option<String>| text.clone().unwrap_or_default();
        let (own, document, place) = (of(&self.text), of(&self.document), of(&self.place));
        let texts = [
            self.id.as_bytes(),
            self.metadata.as_bytes(),
            own.as_bytes(),
            document.as_bytes(),
            place.as_bytes(),
            vector,
        ];
        checksum(&numbers, &texts)
    }
}

impl Store {
    /// What is known of the collection itself: a JSON object.
    pub fn metadata(&self) -> Result<String> {
        about(&self.db).map_err(|fault| self.failed(fault))
    }

    /// The entry of a row.
    pub fn record(&self, row: i64) -> Result<Option<Record>> {
        record_of(&self.db, row).map_err(|fault| self.failed(fault))
    }

    /// The entry with an id.
    pub fn named(&self, id: &str) -> Result<Option<Record>> {
        let find = || {
            let mut select = self.db.prepare_cached("SELECT row FROM entries WHERE id = ?")?;
            let Some(row) = select.query_row([id], |row| row.get(0)).optional()? else { return Ok(None) };
            // The index may be damaged where the row is not.
            let record = record_of(&self.db, row)?.filter(|record| record.draft.id == id);
            record.map_or(Err(Fault::Damaged), |record| Ok(Some(record)))
        };
        find().map_err(|fault| self.failed(fault))
    }

    /// Shows the rows after `after`, their ids and their metadata, until `show` has seen enough.
    pub fn scan(&self, after: i64, mut show: impl FnMut(i64, &str, &str) -> Result<bool>) -> Result<()> {
        let mut scan = || -> Step<()> {
            let mut select =
                self.db.prepare_cached("SELECT row, id, metadata FROM entries WHERE row > ? ORDER BY row")?;
            let mut rows = select.query([after])?;
            while let Some(row) = rows.next()? {
                let text = |at| row.get_ref(at)?.as_str().map_err(rusqlite::Error::from);
                if !show(row.get(0)?, text(1)?, text(2)?).map_err(Fault::Stopped)? {
                    break;
                }
            }
            Ok(())
        };
        scan().map_err(|fault| self.failed(fault))
    }

    /// Shows all rows in the order of their ids, until `show` has seen enough.
    pub fn by_id(&self, mut show: impl FnMut(i64) -> Result<bool>) -> Result<()> {
        let mut scan = || -> Step<()> {
            let mut select = self.db.prepare_cached("SELECT row FROM entries ORDER BY id")?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                if !show(row.get(0)?).map_err(Fault::Stopped)? {
                    break;
                }
            }
            Ok(())
        };
        scan().map_err(|fault| self.failed(fault))
    }

    /// The hash of each document that is known.
    pub fn documents(&self) -> Result<HashMap<String, Vec<u8>>> {
        let read = || -> Step<_> {
            let mut select = self.db.prepare_cached("SELECT id, hash FROM documents")?;
            let found = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(found.collect::<rusqlite::Result<_>>()?)
        };
        read().map_err(|fault| self.failed(fault))
    }

    /// The chunks of a document.
    pub fn of_document(&self, document: &str) -> Result<Vec<Record>> {
        let read = || -> Step<Vec<Record>> {
            let mut select = self.db.prepare_cached("SELECT row FROM entries WHERE document = ? ORDER BY row")?;
            let rows: Vec<i64> = select.query_map([document], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            let is_of = |record: &Record| record.draft.document.as_deref() == Some(document);
            rows.into_iter().map(|row| record_of(&self.db, row)?.filter(is_of).ok_or(Fault::Damaged)).collect()
        };
        read().map_err(|fault| self.failed(fault))
    }
}

/// What a write changes.
pub(super) struct Change {
    pub meta: Meta,
    /// Of rows; `None` where there is none any more.
    pub codes: BTreeMap<i64, Option<Code>>,
    /// Whether no code is as it was.
    pub whole: bool,
}

impl Change {
    pub fn forget(&mut self, db: &Connection, row: i64) -> Step<usize> {
        let mut delete = db.prepare_cached("DELETE FROM entries WHERE row = ? RETURNING document")?;
        let Some(document) = delete.query_row([row], |row| row.get::<_, Option<String>>(0)).optional()? else {
            return Ok(0);
        };
        self.meta.entries -= 1;
        self.codes.insert(row, None);
        document.map_or(Ok(()), |document| incomplete(db, &document))?;
        Ok(1)
    }

    pub fn forget_document(&mut self, db: &Connection, document: &str) -> Step<()> {
        let mut select = db.prepare_cached("SELECT row FROM entries WHERE document = ?")?;
        let rows: Vec<i64> = select.query_map([document], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        for row in rows {
            self.forget(db, row)?;
        }
        db.prepare_cached("DELETE FROM documents WHERE id = ?")?.execute([document])?;
        Ok(())
    }
}

pub(super) fn about(db: &Connection) -> Step<String> {
    if !db.table_exists(None, "about")? {
        return Ok("{}".to_owned());
    }
    let row =
        db.query_row("SELECT metadata, checksum FROM about", [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (metadata, sum): (String, i64) = row.ok_or(Fault::Damaged)?;
    if checksum(&[], &[metadata.as_bytes()]) == sum { Ok(metadata) } else { Err(Fault::Damaged) }
}

/// Notes that an entry of a document is gone: it is not known any more, or not as what it was.
pub(super) fn incomplete(db: &Connection, document: &str) -> Step<()> {
    let mut some = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM entries WHERE document = ?)")?;
    let change = if some.query_row([document], |row| row.get(0))? {
        "UPDATE documents SET hash = x'' WHERE id = ?"
    } else {
        "DELETE FROM documents WHERE id = ?"
    };
    db.prepare_cached(change)?.execute([document])?;
    Ok(())
}

/// Of an id that a document needs for a chunk, and something else has.
pub(super) fn taken(id: &str, document: &str, owner: Option<&String>) -> Error {
    let owner = owner.map_or("an entry that was upserted".to_owned(), |owner| format!("the document {owner:?}"));
    Error::InvalidArgument(format!(
        "The document {document:?} needs the id {id:?}, which {owner} has: give one of them another id, or delete that entry"
    ))
}

pub(super) fn record_of(db: &Connection, row: i64) -> Step<Option<Record>> {
    let mut select =
        db.prepare_cached("SELECT id, text, metadata, document, place, vector, checksum FROM entries WHERE row = ?")?;
    let mut rows = select.query([row])?;
    let Some(found) = rows.next()? else { return Ok(None) };
    let bytes = found.get_ref(5)?.as_blob().map_err(rusqlite::Error::from)?;
    let vector = bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    let draft = Draft {
        id: found.get(0)?,
        text: found.get(1)?,
        metadata: found.get(2)?,
        document: found.get(3)?,
        place: found.get(4)?,
        vector,
    };
    if draft.checksum(row, bytes) != found.get::<_, i64>(6)? {
        return Err(Fault::Damaged);
    }
    Ok(Some(Record { row, draft }))
}

pub(super) fn bytes_of(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}
