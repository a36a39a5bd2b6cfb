//! The index on disk: one SQLite file, one row for each source file, replaced as a whole.
//!
//! Every row bears a checksum of all that is in it, and the checksums of a table add up to a number that is kept beside
//! them: whatever is damaged, rows that are gone included, is noticed when it is read.

mod file;
mod rows;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::f16;
use rusqlite::{Connection, OptionalExtension, params};

use super::scan::Block;
use super::tree::{Skip, Stamp};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::sqlite::{self, Begun, Fault, Step, failed, patiently, read_only};
use file::{APPLICATION_ID, BUSY, explained, mismatch, remove};
use rows::{COLUMNS, DESCRIBED, Meta, Sums, VectorsRow, content_of, described};

pub use crate::sqlite::identity;
pub use rows::{Described, Entry, FileRecord, Key, MadeWith, StoredFile, key_of};

/// Raised whenever what is stored, or how it is made, changes.
const VERSION: i32 = 4;

const SCHEMA: &str = "
    CREATE TABLE meta (
        model TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        dimensions INTEGER NOT NULL,
        -- Whether texts in no known language are in it.
        texts INTEGER NOT NULL,
        -- Sums of the checksums of the tables.
        files INTEGER NOT NULL,
        vectors INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE files (
        -- AUTOINCREMENT: the id of a row that is gone never means another file.
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        path TEXT NOT NULL,
        size INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        changed INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        hash BLOB NOT NULL,
        encoding TEXT,
        skipped TEXT,
        count INTEGER NOT NULL,
        declarations TEXT NOT NULL,
        -- Checksum of the path and the declarations.
        described INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE vectors (
        file INTEGER PRIMARY KEY,
        keys BLOB NOT NULL,
        vectors BLOB NOT NULL,
        bags BLOB NOT NULL,
        -- That of the file, so that vectors are never shown as those of another one.
        described INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT;
";

/// An open index.
pub struct Store {
    db: Connection,
    path: PathBuf,
    /// `None` while it is empty.
    meta: Option<Meta>,
    /// Ends waiting for others.
    cancel: Cancel,
}

impl Store {
    /// Opens the index at `path` for a model, or starts it. One that another model or version made, or that is damaged,
    /// is refused. With `rebuild`, whatever index is there is removed first. `texts`: whether those in no known language are to be in
    /// it; as it was, where nobody says.
    pub fn open(
        path: &Path,
        made_with: &MadeWith,
        texts: Option<bool>,
        rebuild: bool,
        cancel: &Cancel,
    ) -> Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .map_err(|error| failed(path, format!("its directory cannot be made: {error}")))?;
        }
        let mut before = None;
        if rebuild {
            before = Self::open_existing(path).ok().flatten().map(|store| store.holds_texts());
            remove(path)?;
        }
        let db = patiently(BUSY, cancel, || sqlite::open(path)).map_err(|fault| explained(path, fault))?;
        let mut store = Self { cancel: cancel.clone(), ..Self::read(db, path)? };
        if store.meta.is_none() {
            store.start(made_with, texts.or(before).unwrap_or(false))?;
        }
        store.require(made_with)?;
        if let Some(texts) = texts.filter(|texts| *texts != store.holds_texts()) {
            store.meta.iter_mut().for_each(|meta| meta.texts = texts);
            store.write(|db, _| Ok(db.execute("UPDATE meta SET texts = ?", [texts])?))?;
        }
        Ok(store)
    }

    /// Opens the index at `path`; `None` where there is none.
    pub fn open_existing(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let store = Self::read(read_only(path).map_err(|fault| explained(path, fault))?, path)?;
        Ok(store.meta.is_some().then_some(store))
    }

    /// Refuses a model that did not make the index.
    pub fn require(&self, wanted: &MadeWith) -> Result<()> {
        match self.meta.as_ref().map(|meta| &meta.made_with) {
            Some(found) if found.fingerprint == wanted.fingerprint => Ok(()),
            Some(found) => {
                let same = if found.model_id == wanted.model_id { "another version or other options of " } else { "" };
                Err(mismatch(&self.path, format!("{same}the model {}", found.model_id)))
            }
            None => Err(Error::NoIndex { path: self.path.display().to_string() }),
        }
    }

    fn read(db: Connection, path: &Path) -> Result<Self> {
        let sql = |error: rusqlite::Error| explained(path, error.into());
        let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(sql);
        let (application, version) = (pragma("application_id")?, pragma("user_version")?);
        let mut store = Self { db, path: path.to_path_buf(), meta: None, cancel: Cancel::default() };
        if application != APPLICATION_ID {
            let tables = store.db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
            if application != 0 || version != 0 || tables.map_err(sql)? != 0 {
                return Err(failed(
                    path,
                    "it is the database of another program, or a damaged index: delete it, rebuild it, or choose another path",
                ));
            }
            return Ok(store);
        }
        if version != VERSION {
            return Err(mismatch(path, format!("version {version} of the index, this is version {VERSION}")));
        }
        store.meta = Some(store.meta().map_err(|fault| explained(path, fault))?);
        Ok(store)
    }

    fn meta(&self) -> Step<Meta> {
        let (meta, checksum) = self.db.query_row("SELECT * FROM meta", [], |row| {
            let dimensions: i64 = row.get(2)?;
            let made_with =
                MadeWith { model_id: row.get(0)?, fingerprint: row.get(1)?, dimensions: dimensions as usize };
            let sums = Sums { files: row.get(4)?, vectors: row.get(5)? };
            Ok((Meta { made_with, texts: row.get(3)?, sums }, row.get::<_, i64>(6)?))
        })?;
        if meta.checksum() == checksum { Ok(meta) } else { Err(Fault::Damaged) }
    }

    /// Writes what an empty index is made with.
    fn start(&mut self, made_with: &MadeWith, texts: bool) -> Result<()> {
        self.meta = Some(Meta { made_with: made_with.clone(), texts, sums: Sums::default() });
        self.write(|db, _| {
            db.execute_batch(SCHEMA)?;
            db.pragma_update(None, "application_id", APPLICATION_ID)?;
            db.pragma_update(None, "user_version", VERSION)?;
            let insert = "INSERT INTO meta VALUES (?, ?, ?, ?, 0, 0, 0)";
            db.execute(insert, params![made_with.model_id, made_with.fingerprint, made_with.dimensions as i64, texts])?;
            Ok(())
        })
    }

    /// All files, by path.
    pub fn files(&self) -> Result<HashMap<String, StoredFile>> {
        let read = || {
            let mut files = HashMap::new();
            let mut sum = 0i64;
            let mut select = self.db.prepare_cached(&format!("SELECT {COLUMNS} FROM files"))?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let (file, path, _) = StoredFile::read(row)?;
                sum = sum.wrapping_add(file.checksum);
                if files.insert(path.to_owned(), file).is_some() {
                    return Err(Fault::Damaged);
                }
            }
            if sum == self.meta()?.sums.files { Ok(files) } else { Err(Fault::Damaged) }
        };
        read().map_err(|fault| self.failed(fault))
    }

    /// The vectors of some files, by what they were made of.
    pub fn vectors_of<'a>(&self, files: impl IntoIterator<Item = &'a StoredFile>) -> Result<HashMap<Key, Vec<f16>>> {
        let mut found = HashMap::new();
        let read = || {
            let dimensions = self.meta()?.made_with.dimensions;
            let mut select = self.db.prepare_cached("SELECT * FROM vectors WHERE file = ?")?;
            for file in files.into_iter().filter(|file| file.count > 0) {
                let mut rows = select.query([file.id])?;
                let row = VectorsRow::read(rows.next()?.ok_or(Fault::Damaged)?)?;
                if row.described != file.described {
                    return Err(Fault::Damaged);
                }
                let vectors = row.vectors.chunks_exact((dimensions * 2).max(1));
                for (key, vector) in row.keys.as_chunks().0.iter().zip(vectors) {
                    found.insert(*key, halves(vector));
                }
            }
            Ok(())
        };
        read().map_err(|fault| self.failed(fault))?;
        Ok(found)
    }

    /// Writes all of `files`, or none.
    pub fn put(&mut self, files: &[FileRecord]) -> Result<()> {
        self.write(|db, sums| {
            let mut insert = db.prepare_cached(
                "INSERT INTO files (path, size, modified, changed, inode, hash, encoding, skipped, count, declarations, described, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            )?;
            let mut seal = db.prepare_cached("UPDATE files SET checksum = ? WHERE id = ?")?;
            let mut vectors = db.prepare_cached("INSERT INTO vectors VALUES (?, ?, ?, ?, ?, ?)")?;
            for file in files {
                if let Some(before) = &file.before {
                    forget(db, sums, before)?;
                }
                let entries = serde_json::to_string(&file.entries)
                    .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                let described = described(&file.path, &entries);
                let mut state = StoredFile { count: file.entries.len(), described, ..file.state.clone() };
                insert.execute(params![
                    file.path,
                    state.stamp.size as i64,
                    state.stamp.modified,
                    state.stamp.changed,
                    state.stamp.inode as i64,
                    state.hash,
                    state.encoding,
                    state.skipped.map(Skip::as_str),
                    state.count as i64,
                    entries,
                    described,
                ])?;
                state.id = db.last_insert_rowid();
                let checksum = state.checksum();
                seal.execute([checksum, state.id])?;
                sums.files = sums.files.wrapping_add(checksum);
                if state.count > 0 {
                    let values: Vec<u8> = file.vectors.iter().flat_map(|value| value.to_le_bytes()).collect();
                    let keys = file.keys.as_flattened();
                    let row = VectorsRow { file: state.id, keys, vectors: &values, bags: &file.bags, described };
                    vectors.execute(params![row.file, keys, values, file.bags, described, row.checksum()])?;
                    sums.vectors = sums.vectors.wrapping_add(row.checksum());
                }
            }
            Ok(())
        })
    }

    /// Remembers that files have the content that is stored, and another stamp.
    pub fn touch(&mut self, files: &[(StoredFile, Stamp)]) -> Result<()> {
        self.write(|db, sums| {
            let mut update = db.prepare_cached(
                "UPDATE files SET size = ?, modified = ?, changed = ?, inode = ?, checksum = ? WHERE id = ?",
            )?;
            for (before, stamp) in files {
                let after = StoredFile { stamp: *stamp, ..before.clone() };
                let checksum = after.checksum();
                let (size, inode) = (stamp.size as i64, stamp.inode as i64);
                let updated = update.execute([size, stamp.modified, stamp.changed, inode, checksum, after.id])?;
                if updated != 1 {
                    return Err(Fault::Damaged);
                }
                sums.files = sums.files.wrapping_sub(before.checksum).wrapping_add(checksum);
            }
            Ok(())
        })
    }

    /// Forgets files.
    pub fn remove(&mut self, files: &[StoredFile]) -> Result<()> {
        self.write(|db, sums| files.iter().try_for_each(|file| forget(db, sums, file)))
    }

    /// Gives back the room of what was removed.
    pub fn tidy(&mut self) -> Result<()> {
        let tidied = self.db.execute_batch("PRAGMA incremental_vacuum;");
        tidied.map_err(|error| self.failed(error.into()))
    }

    /// The vectors and words of everything.
    pub fn blocks(&self) -> Result<Vec<Block>> {
        let read = || {
            // One state of the file, whoever writes meanwhile.
            let transaction = self.db.unchecked_transaction()?;
            let Meta { made_with, sums, .. } = self.meta()?;
            let mut blocks = Vec::new();
            let mut sum = 0i64;
            let mut select = transaction.prepare_cached("SELECT * FROM vectors")?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let row = VectorsRow::read(row)?;
                if row.vectors.len() != row.keys.len() / size_of::<Key>() * made_with.dimensions * size_of::<f16>() {
                    return Err(Fault::Damaged);
                }
                sum = sum.wrapping_add(row.checksum());
                let (vectors, bags) = (halves(row.vectors), row.bags.to_vec());
                let contents = row.keys.as_chunks().0.iter().map(content_of).collect();
                blocks.push(Block { file: row.file, described: row.described, vectors, bags, contents });
            }
            if sum == sums.vectors { Ok(blocks) } else { Err(Fault::Damaged) }
        };
        read().map_err(|fault| self.failed(fault))
    }

    /// What is shown of a file; `None` if its path and declarations are not those that have this checksum.
    pub fn describe(&self, file: i64, expected: i64) -> Result<Option<Described>> {
        let read = || {
            let mut select = self.db.prepare_cached(&format!("SELECT {COLUMNS} FROM files WHERE id = ?"))?;
            let mut rows = select.query([file])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let described: i64 = row.get(DESCRIBED)?;
            if described == expected { Described::read(row).map(Some) } else { Ok(None) }
        };
        read().map_err(|fault| self.failed(fault))
    }

    /// What is shown of the file at a path, with its id and the checksum of that; `None` where it has no declarations.
    pub fn at(&self, path: &str) -> Result<Option<((i64, i64), Described)>> {
        let read = || {
            let query = format!("SELECT {COLUMNS} FROM files WHERE path = ? AND count > 0");
            let mut select = self.db.prepare_cached(&query)?;
            let mut rows = select.query([path])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let (file, ..) = StoredFile::read(row)?;
            Ok(Some(((file.id, file.described), Described::read(row)?)))
        };
        read().map_err(|fault| self.failed(fault))
    }

    /// The paths of all files that have declarations, by their ids.
    pub fn paths(&self) -> Result<HashMap<i64, String>> {
        let read = || {
            let mut select = self.db.prepare_cached("SELECT id, path FROM files WHERE count > 0")?;
            let paths = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(paths.collect::<rusqlite::Result<_>>()?)
        };
        read().map_err(|fault| self.failed(fault))
    }

    /// What is shown of all files in whose declarations `text` occurs somewhere, by path.
    pub fn declaring(&self, text: &str) -> Result<Vec<Described>> {
        let read = || {
            let mut found = Vec::new();
            let query = format!("SELECT {COLUMNS} FROM files WHERE instr(declarations, ?) > 0 ORDER BY path");
            let mut select = self.db.prepare_cached(&query)?;
            let mut rows = select.query([text])?;
            while let Some(row) = rows.next()? {
                found.push(Described::read(row)?);
            }
            Ok(found)
        };
        read().map_err(|fault| self.failed(fault))
    }

    /// The model that made it.
    pub fn made_with(&self) -> Option<&MadeWith> {
        self.meta.as_ref().map(|meta| &meta.made_with)
    }

    /// Whether texts in no known language are in it.
    pub fn holds_texts(&self) -> bool {
        self.meta.as_ref().is_some_and(|meta| meta.texts)
    }

    /// What to say of an index that holds something else than what was written.
    pub fn damaged(&self) -> Error {
        self.failed(Fault::Damaged)
    }

    /// Changes whenever the index does, by whichever process.
    pub fn version(&self) -> Result<i64> {
        sqlite::version(&self.db).map_err(|fault| self.failed(fault))
    }

    /// Does all of `work`, which keeps the sums, or nothing.
    fn write<T>(&mut self, work: impl FnOnce(&Connection, &mut Sums) -> Step<T>) -> Result<T> {
        let path = self.path.clone();
        let failed = |fault| explained(&path, fault);
        let mut meta = self.meta.clone().ok_or_else(|| failed(Fault::Damaged))?;
        let Self { db, cancel, .. } = self;
        patiently(BUSY, cancel, || Ok(db.execute_batch("BEGIN IMMEDIATE")?)).map_err(failed)?;
        let write = || {
            // Rolled back if it is not committed.
            let transaction = Begun(db);
            let done = work(db, &mut meta.sums)?;
            let Sums { files, vectors } = meta.sums;
            let written =
                db.execute("UPDATE meta SET files = ?, vectors = ?, checksum = ?", [files, vectors, meta.checksum()])?;
            if written != 1 {
                return Err(Fault::Damaged);
            }
            db.execute_batch("COMMIT")?;
            drop(transaction);
            Ok(done)
        };
        let done = write().map_err(failed)?;
        self.meta = Some(meta);
        Ok(done)
    }

    fn failed(&self, fault: Fault) -> Error {
        explained(&self.path, fault)
    }
}

/// Removes the rows of a file.
fn forget(db: &Connection, sums: &mut Sums, file: &StoredFile) -> Step<()> {
    if file.count > 0 {
        let mut delete = db.prepare_cached("DELETE FROM vectors WHERE file = ? RETURNING checksum")?;
        let checksum: Option<i64> = delete.query_row([file.id], |row| row.get(0)).optional()?;
        sums.vectors = sums.vectors.wrapping_sub(checksum.ok_or(Fault::Damaged)?);
    }
    let removed = db.prepare_cached("DELETE FROM files WHERE id = ?")?.execute([file.id])?;
    sums.files = sums.files.wrapping_sub(file.checksum);
    if removed == 1 { Ok(()) } else { Err(Fault::Damaged) }
}

fn halves(bytes: &[u8]) -> Vec<f16> {
    bytes.as_chunks().0.iter().map(|value| f16::from_le_bytes(*value)).collect()
}
