//! The rows of an index's file, each with the checksum that it must have.

use half::f16;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::embedding::Fingerprint;
use crate::index::tree::{Skip, Stamp};
use crate::sqlite::{Fault, Step, checksum};

/// Of a file, as [`StoredFile::read`] reads them.
pub(super) const COLUMNS: &str =
    "id, path, size, modified, changed, inode, hash, encoding, skipped, count, declarations, described, checksum";

/// Which of them is `described`.
pub(super) const DESCRIBED: usize = 11;

/// What identifies the text that a vector was made of: a hash of a declaration's content, and one of what it belongs to.
pub type Key = [u8; 16];

/// The key of a declaration's texts, and of what it belongs to.
pub fn key_of(content: [&str; 3], context: &str) -> Key {
    let mut key = Key::default();
    let (left, right) = key.split_at_mut(8);
    left.copy_from_slice(&hash(&content)[..8]);
    right.copy_from_slice(&hash(&[context])[..8]);
    key
}

fn hash(texts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize().into()
}

/// The hash of the content alone.
pub(super) fn content_of(key: &Key) -> u64 {
    key.first_chunk().map_or(0, |content| u64::from_le_bytes(*content))
}

/// What the store keeps about a source file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredFile {
    /// Its id.
    pub id: i64,
    /// What the file system said about it before it was read.
    pub stamp: Stamp,
    /// SHA-256 of its content.
    pub hash: [u8; 32],
    /// The encoding of its text, if that is not UTF-8.
    pub encoding: Option<String>,
    /// Why it has no declarations, if it could not be read.
    pub skipped: Option<Skip>,
    /// How many declarations it has.
    pub count: usize,
    /// Checksum of its path and its declarations.
    pub(super) described: i64,
    /// Checksum of its row.
    pub(super) checksum: i64,
}

/// A declaration as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// `function`, `method`, `class` or `type`.
    pub kind: String,
    /// Its name, after those of the declarations around it.
    pub name: String,
    /// Its first line, from 1.
    pub line: usize,
    /// Its last line.
    pub end_line: usize,
    /// Its source up to its body.
    pub signature: String,
    /// Its documentation comment; may be empty.
    pub summary: String,
}

/// A source file as it is stored.
pub struct FileRecord {
    /// Its path below the root.
    pub path: String,
    /// The row that it replaces.
    pub before: Option<StoredFile>,
    /// What is known about it; its id and checksums are given by the store.
    pub state: StoredFile,
    /// Its declarations.
    pub entries: Vec<Entry>,
    /// The key of each.
    pub keys: Vec<Key>,
    /// The vector of each, one after the other.
    pub vectors: Vec<f16>,
    /// The words of each, as written.
    pub bags: Vec<u8>,
}

/// What is shown of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// Its path below the root.
    pub path: String,
    /// SHA-256 of the content that was indexed.
    pub hash: [u8; 32],
    /// Its declarations.
    pub entries: Vec<Entry>,
}

/// The model that an index was made with.
#[derive(Debug, Clone, PartialEq)]
pub struct MadeWith {
    /// As the user named it.
    pub model_id: String,
    /// Its embedding space.
    pub fingerprint: String,
    /// Length of its vectors.
    pub dimensions: usize,
}

impl MadeWith {
    /// The model of a generator.
    pub fn new(model_id: &str, fingerprint: Fingerprint, dimensions: usize) -> Self {
        Self { model_id: model_id.to_owned(), fingerprint: fingerprint.to_string(), dimensions }
    }
}

/// What the one row of `meta` says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Meta {
    pub made_with: MadeWith,
    pub texts: bool,
    pub sums: Sums,
}

/// The checksums of all rows, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    pub files: i64,
    pub vectors: i64,
}

impl Meta {
    pub fn checksum(&self) -> i64 {
        let Self { made_with: MadeWith { model_id, fingerprint, dimensions }, texts, sums } = self;
        let numbers = [*dimensions as i64, i64::from(*texts), sums.files, sums.vectors];
        checksum(&numbers, &[model_id.as_bytes(), fingerprint.as_bytes()])
    }
}

impl StoredFile {
    /// The file of a row of [`COLUMNS`], its path and its declarations.
    pub(super) fn read<'a>(row: &'a rusqlite::Row<'_>) -> Step<(Self, &'a str, &'a str)> {
        let text = |at| Ok::<_, Fault>(row.get_ref(at)?.as_str().map_err(rusqlite::Error::from)?);
        let (path, entries) = (text(1)?, text(10)?);
        let skipped: Option<String> = row.get(8)?;
        let file = Self {
            id: row.get(0)?,
            stamp: Stamp {
                size: row.get::<_, i64>(2)? as u64,
                modified: row.get(3)?,
                changed: row.get(4)?,
                inode: row.get::<_, i64>(5)? as u64,
            },
            hash: row.get(6)?,
            encoding: row.get(7)?,
            skipped: skipped.as_deref().and_then(Skip::parse),
            count: row.get::<_, i64>(9)? as usize,
            described: row.get(DESCRIBED)?,
            checksum: row.get(12)?,
        };
        let whole = described(path, entries) == file.described && file.checksum() == file.checksum;
        if whole { Ok((file, path, entries)) } else { Err(Fault::Damaged) }
    }

    pub(super) fn checksum(&self) -> i64 {
        let Self { id, stamp, hash, encoding, skipped, count, described, checksum: _ } = self;
        let Stamp { size, modified, changed, inode } = *stamp;
        let numbers = [*id, size as i64, modified, changed, inode as i64, *count as i64, *described];
        let skipped = skipped.map(Skip::as_str).unwrap_or_default();
        checksum(&numbers, &[hash, encoding.as_deref().unwrap_or_default().as_bytes(), skipped.as_bytes()])
    }
}

impl Described {
    pub(super) fn read(row: &rusqlite::Row<'_>) -> Step<Self> {
        let (file, path, entries) = StoredFile::read(row)?;
        let entries = serde_json::from_str(entries).map_err(|_| Fault::Damaged)?;
        Ok(Self { path: path.to_owned(), hash: file.hash, entries })
    }
}

/// A row of the table `vectors`.
pub(super) struct VectorsRow<'a> {
    pub file: i64,
    pub keys: &'a [u8],
    pub vectors: &'a [u8],
    pub bags: &'a [u8],
    pub described: i64,
}

impl<'a> VectorsRow<'a> {
    pub fn read(row: &'a rusqlite::Row<'_>) -> Step<Self> {
        let blob = |at| Ok::<_, Fault>(row.get_ref(at)?.as_blob().map_err(rusqlite::Error::from)?);
        let found =
            Self { file: row.get(0)?, keys: blob(1)?, vectors: blob(2)?, bags: blob(3)?, described: row.get(4)? };
        if row.get::<_, i64>(5)? == found.checksum() { Ok(found) } else { Err(Fault::Damaged) }
    }

    pub fn checksum(&self) -> i64 {
        checksum(&[self.file, self.described], &[self.keys, self.vectors, self.bags])
    }
}

/// Checksum of what a hit shows.
pub(super) fn described(path: &str, entries: &str) -> i64 {
    checksum(&[], &[path.as_bytes(), entries.as_bytes()])
}
