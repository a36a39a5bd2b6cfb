//! What the cache reads that may come from anybody: what `fuzz/` calls.

#![allow(missing_docs, clippy::unwrap_used)]

use rusqlite::{Connection, params};

use super::entry::Entry;
use super::shared::fuzzing as shared;
use super::store::fuzzing::{Checked, Row, decode, encode, find};
use crate::embedding::Key;

pub use shared::{change, value};

/// A row with these values in its columns, whatever they are; with `mended`, its checksum is right.
pub fn row(kind: &[u8], content: Option<&[u8]>, note: &[u8], vector: &[u8], numbers: [i64; 5], mended: bool) {
    thread_local! {
        static FILE: Connection = {
            let file = Connection::open_in_memory().unwrap();
            file.execute_batch(
                "CREATE TABLE entries (id INTEGER PRIMARY KEY, key, space, kind, created_ms, expires_ms, used_ms, checksum, content, format, vector, note)",
            )
            .unwrap();
            file
        };
    }
    let key = Key::from([7; 32]);
    let [space, created, expires, format, sum] = numbers;
    let text = String::from_utf8_lossy(kind);
    let read = decode(format, vector);
    let sound = read.is_some() && content.is_none_or(|content| content.len() == 32);
    let entry = sound.then(|| Entry {
        space,
        kind: text.as_ref().into(),
        content: content.map(|content| content.try_into().unwrap()),
        vector: read.unwrap(),
        note: note.into(),
        created_ms: created as u64,
        expires_ms: expires as u64,
    });
    let right = entry.as_ref().map(|entry| {
        let times = (entry.created_ms, entry.expires_ms);
        Checked { key: &key, entry, times, format, bytes: vector }.checksum()
    });
    let sum = right.filter(|_| mended).unwrap_or(sum);
    FILE.with(|file| {
        file.prepare_cached("INSERT OR REPLACE INTO entries VALUES (1, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?)")
            .unwrap()
            .execute(params![key.as_bytes(), space, text, created, expires, sum, content, format, vector, note])
            .unwrap();
        match (find(file, &key).unwrap(), entry) {
            (Row::Found(found), Some(entry)) => {
                assert_eq!(Some(sum), right, "a row with a wrong checksum was believed");
                // NaN is not itself.
                assert_eq!(encode(&found.entry.vector), (format, vector.to_vec()));
                assert_eq!((&found.entry.note, &found.entry.kind), (&entry.note, &entry.kind));
            }
            (Row::Damaged, entry) => assert!(entry.is_none() || Some(sum) != right, "a sound row is damaged"),
            (other, _) => panic!("{other:?}"),
        }
    });
}
