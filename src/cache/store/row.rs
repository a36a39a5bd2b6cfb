//! One row: how an entry is written to it, and what is believed of it when it is read.

use std::hash::Hasher;

use half::f16;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use xxhash_rust::xxh3::Xxh3;

use super::super::entry::{Entry, Vector};
use super::{Fault, Result};
use crate::embedding::Key;

/// What the file has for a key.
#[derive(Debug)]
pub enum Row {
    Absent,
    /// Not what was written.
    Damaged,
    Found(Stored),
}

/// A row as it was written.
#[derive(Debug)]
pub struct Stored {
    pub id: i64,
    pub used_ms: u64,
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

pub fn find(connection: &Connection, key: &Key) -> Result<Row> {
    let mut select = connection.prepare_cached(select!("FROM entries WHERE key = ?1"))?;
    let mut rows = select.query([key.as_bytes()])?;
    match rows.next()? {
        Some(row) => read(key, row),
        None => Ok(Row::Absent),
    }
}

/// The key of a row that was selected without an index of keys.
pub fn key_of(row: &rusqlite::Row) -> Result<Option<Key>> {
    let key = row.get_ref(11)?.as_blob().ok();
    Ok(key.and_then(|key| <[u8; 32]>::try_from(key).ok()).map(Key::from))
}

/// The row, if it is what was written for `key`, the one that was asked for: an index may be damaged, too.
pub fn read(key: &Key, row: &rusqlite::Row) -> Result<Row> {
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
        let times = (entry.created_ms, entry.expires_ms);
        let whole = Checked { key, entry: &entry, times, format, bytes }.checksum() == integer(5)?;
        Some(Stored { id: integer(10)?, used_ms: integer(4)? as u64, entry }).filter(|_| whole)
    };
    Ok(whole().map_or(Row::Damaged, Row::Found))
}

pub fn disagreement() -> Fault {
    Fault::Broken("an index does not agree with its table".to_owned())
}

pub const F32: i64 = 0;
pub const F16: i64 = 1;

/// Little-endian values, on every machine.
pub fn encode(vector: &Vector) -> (i64, Vec<u8>) {
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

pub fn decode(format: i64, bytes: &[u8]) -> Option<Vector> {
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
pub struct Checked<'a> {
    pub key: &'a Key,
    pub entry: &'a Entry,
    /// When it was made and when it expires, as they are stored.
    pub times: (u64, u64),
    pub format: i64,
    /// The vector as it is stored.
    pub bytes: &'a [u8],
}

impl Checked<'_> {
    /// 64 bits: of all damaged rows that anybody will ever read, none will pass.
    pub fn checksum(&self) -> i64 {
        let Entry { space, kind, content, note, .. } = self.entry;
        let (created_ms, expires_ms) = self.times;
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

pub(super) use select;
