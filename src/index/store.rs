//! The index on disk: one SQLite file, one row for each source file, replaced as a whole.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use half::f16;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::rank::Block;
use super::tree::Skip;
use crate::embedding::Fingerprint;
use crate::error::{Error, Result};

/// Marks the file as ours ("embi"), whatever it is called.
const APPLICATION_ID: i32 = 0x656d_6269;

/// Raised whenever what is stored, or how it is made, changes.
const VERSION: i32 = 1;

/// How long one process waits for another one that writes.
const BUSY: Duration = Duration::from_secs(30);

const SCHEMA: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE files (
        -- AUTOINCREMENT: the id of a row that is gone never means another file.
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        path TEXT NOT NULL UNIQUE,
        size INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        hash BLOB NOT NULL,
        skipped TEXT,
        count INTEGER NOT NULL,
        declarations TEXT NOT NULL
    ) STRICT;
    CREATE TABLE vectors (
        file INTEGER PRIMARY KEY REFERENCES files (id) ON DELETE CASCADE,
        keys BLOB NOT NULL,
        vectors BLOB NOT NULL,
        bags BLOB NOT NULL
    ) STRICT;
";

/// What identifies the text that a vector was made of.
pub type Key = [u8; 16];

/// What the store keeps about a source file.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredFile {
    /// Its id.
    pub id: i64,
    /// Size in bytes when it was read.
    pub size: u64,
    /// When it had been changed then; 0 if that does not tell whether it was changed since.
    pub modified: i64,
    /// SHA-256 of its content.
    pub hash: [u8; 32],
    /// Why it has no declarations, if it could not be read.
    pub skipped: Option<Skip>,
    /// How many declarations it has.
    pub count: usize,
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
    /// Size, time and hash of its content, and why it has no declarations.
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

/// An open index.
pub struct Store {
    db: Connection,
    path: PathBuf,
    /// `None` while it is empty.
    made_with: Option<MadeWith>,
}

impl Store {
    /// Opens the index at `path` for a model, or starts it. One that another model or version made, or that is damaged,
    /// is refused, unless `rebuild`: then it starts over. One that can be used stays in any case.
    pub fn open(path: &Path, made_with: &MadeWith, rebuild: bool) -> Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .map_err(|error| failed(path, format!("its directory cannot be made: {error}")))?;
        }
        let mut store = match connect(path).and_then(|db| Self::read(db, path)) {
            Err(Error::Storage { .. } | Error::IndexMismatch { .. }) if rebuild => Self::replace(path)?,
            opened => opened?,
        };
        let usable = store.require(made_with).is_ok();
        if store.made_with.is_none() || (rebuild && !usable) {
            store.start_over(made_with)?;
        }
        store.require(made_with)?;
        Ok(store)
    }

    /// Opens the index at `path`; `None` where there is none.
    pub fn open_existing(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        // Reading needs no right to write; where SQLite cannot even write its notes beside the file, the file stands
        // still, because nobody else can write it either.
        let store = read_only(path, "")
            .and_then(|db| Self::read(db, path))
            .or_else(|error| read_only(path, "&immutable=1").and_then(|db| Self::read(db, path)).map_err(|_| error))?;
        Ok(store.made_with.is_some().then_some(store))
    }

    /// Refuses a model that did not make the index.
    pub fn require(&self, wanted: &MadeWith) -> Result<()> {
        match &self.made_with {
            Some(found) if found.fingerprint == wanted.fingerprint => Ok(()),
            Some(found) => {
                let same = if found.model_id == wanted.model_id { "another version or other options of " } else { "" };
                Err(mismatch(&self.path, format!("{same}the model {}", found.model_id)))
            }
            None => Err(Error::NoIndex { path: self.path.display().to_string() }),
        }
    }

    fn read(db: Connection, path: &Path) -> Result<Self> {
        let sql = |error: rusqlite::Error| failed(path, explain(&error));
        let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(sql);
        let (application, version) = (pragma("application_id")?, pragma("user_version")?);
        let tables = || db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
        if application != APPLICATION_ID {
            if application != 0 || version != 0 || tables().map_err(sql)? != 0 {
                return Err(failed(path, "it is the database of another program"));
            }
            return Ok(Self { db, path: path.to_path_buf(), made_with: None });
        }
        if version != VERSION {
            return Err(mismatch(path, format!("version {version} of the index, this is version {VERSION}")));
        }
        let meta = |name: &str| {
            db.query_row("SELECT value FROM meta WHERE name = ?", [name], |row| row.get::<_, String>(0)).map_err(sql)
        };
        let made_with = MadeWith {
            model_id: meta("model")?,
            fingerprint: meta("fingerprint")?,
            dimensions: meta("dimensions")?.parse().map_err(|_| failed(path, "it is damaged; rebuild it"))?,
        };
        Ok(Self { db, path: path.to_path_buf(), made_with: Some(made_with) })
    }

    /// Empties the index and writes what it is made with.
    fn start_over(&mut self, made_with: &MadeWith) -> Result<()> {
        self.write(|db| {
            db.execute_batch("DROP TABLE IF EXISTS vectors; DROP TABLE IF EXISTS files; DROP TABLE IF EXISTS meta;")?;
            db.execute_batch(SCHEMA)?;
            db.pragma_update(None, "application_id", APPLICATION_ID)?;
            db.pragma_update(None, "user_version", VERSION)?;
            let mut insert = db.prepare("INSERT INTO meta VALUES (?, ?)")?;
            insert.execute(["model", &made_with.model_id])?;
            insert.execute(["fingerprint", &made_with.fingerprint])?;
            insert.execute(["dimensions", &made_with.dimensions.to_string()])?;
            Ok(())
        })?;
        self.made_with = Some(made_with.clone());
        Ok(())
    }

    /// Replaces a file that cannot be used, if it lies where only indexes lie.
    fn replace(path: &Path) -> Result<Self> {
        if !path.parent().is_some_and(|directory| directory.ends_with(super::DIRECTORY)) {
            return Err(failed(path, "it is damaged or no index: delete it, or choose another path"));
        }
        for suffix in ["", "-wal", "-shm"] {
            let mut name = path.to_path_buf().into_os_string();
            name.push(suffix);
            match fs::remove_file(&name) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(failed(path, format!("it is damaged and cannot be removed: {error}")));
                }
                _ => {}
            }
        }
        Self::read(connect(path)?, path)
    }

    /// All files, by path.
    pub fn files(&self) -> Result<HashMap<String, StoredFile>> {
        let read = || {
            let mut select =
                self.db.prepare_cached("SELECT path, id, size, modified, hash, skipped, count FROM files")?;
            let rows = select.query_map([], |row| {
                Ok((
                    row.get(0)?,
                    StoredFile {
                        id: row.get(1)?,
                        size: row.get::<_, i64>(2)? as u64,
                        modified: row.get(3)?,
                        hash: row.get(4)?,
                        skipped: row.get_ref(5)?.as_str_or_null()?.and_then(Skip::parse),
                        count: row.get::<_, i64>(6)? as usize,
                    },
                ))
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failed(&error))
    }

    /// The vectors of some files, by what they were made of.
    pub fn vectors_of(&self, files: impl IntoIterator<Item = i64>) -> Result<HashMap<Key, Vec<f16>>> {
        let dimensions = self.made_with.as_ref().map_or(1, |made_with| made_with.dimensions);
        let mut found = HashMap::new();
        let read = || {
            let mut select = self.db.prepare_cached("SELECT keys, vectors FROM vectors WHERE file = ?")?;
            for file in files {
                let row = select.query_row([file], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)));
                let Some((keys, vectors)) = row.optional()? else { continue };
                let vectors = vectors.chunks_exact(dimensions * 2);
                for (key, vector) in keys.as_chunks().0.iter().zip(vectors) {
                    found.insert(*key, halves(vector));
                }
            }
            Ok(())
        };
        read().map_err(|error: rusqlite::Error| self.failed(&error))?;
        Ok(found)
    }

    /// Writes all of `files`, or none. Tells how many declarations they had before.
    pub fn put(&mut self, files: &[FileRecord]) -> Result<usize> {
        self.write(|db| {
            let mut delete = db.prepare_cached("DELETE FROM files WHERE path = ? RETURNING count")?;
            let mut insert = db.prepare_cached(
                "INSERT INTO files (path, size, modified, hash, skipped, count, declarations) VALUES (?, ?, ?, ?, ?, ?, ?)",
            )?;
            let mut vectors = db.prepare_cached("INSERT INTO vectors VALUES (?, ?, ?, ?)")?;
            let mut before = 0;
            for file in files {
                let state = &file.state;
                let entries = serde_json::to_string(&file.entries)
                    .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                let count: Option<i64> = delete.query_row([&file.path], |row| row.get(0)).optional()?;
                before += count.unwrap_or(0) as usize;
                insert.execute(params![
                    file.path,
                    state.size as i64,
                    state.modified,
                    state.hash,
                    state.skipped.map(Skip::as_str),
                    file.entries.len() as i64,
                    entries
                ])?;
                if !file.entries.is_empty() {
                    let values: Vec<u8> = file.vectors.iter().flat_map(|value| value.to_le_bytes()).collect();
                    vectors.execute(params![db.last_insert_rowid(), file.keys.as_flattened(), values, file.bags])?;
                }
            }
            Ok(before)
        })
    }

    /// Remembers that files have the content that is stored, and a new time.
    pub fn touch(&mut self, files: &[(i64, i64)]) -> Result<()> {
        self.write(|db| {
            let mut update = db.prepare_cached("UPDATE files SET modified = ? WHERE id = ?")?;
            files.iter().try_for_each(|(id, modified)| update.execute([modified, id]).map(drop))
        })
    }

    /// Forgets files.
    pub fn remove(&mut self, files: &[i64]) -> Result<()> {
        self.write(|db| {
            let mut delete = db.prepare_cached("DELETE FROM files WHERE id = ?")?;
            files.iter().try_for_each(|id| delete.execute([id]).map(drop))
        })
    }

    /// Gives back the room of what was removed.
    pub fn tidy(&mut self) -> Result<()> {
        let tidied = self.db.execute_batch("PRAGMA incremental_vacuum;");
        tidied.map_err(|error| self.failed(&error))
    }

    /// The vectors and words of everything.
    pub fn blocks(&self) -> Result<Vec<Block>> {
        let read = || {
            let mut select = self.db.prepare_cached("SELECT file, vectors, bags FROM vectors")?;
            let rows = select.query_map([], |row| {
                let vectors = halves(row.get_ref(1)?.as_blob()?);
                Ok(Block { file: row.get(0)?, vectors, bags: row.get(2)? })
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failed(&error))
    }

    /// Path and declarations of a file.
    pub fn describe(&self, file: i64) -> Result<Option<(String, Vec<Entry>)>> {
        let mut select = self
            .db
            .prepare_cached("SELECT path, declarations FROM files WHERE id = ?")
            .map_err(|error| self.failed(&error))?;
        let row = select
            .query_row([file], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
            .optional()
            .map_err(|error| self.failed(&error))?;
        let Some((path, entries)) = row else { return Ok(None) };
        let entries = serde_json::from_str(&entries).map_err(|error| failed(&self.path, error.to_string()))?;
        Ok(Some((path, entries)))
    }

    /// Changes whenever the index does, by whichever process.
    pub fn version(&self) -> Result<i64> {
        // Both: one counts the others' commits, the other one this connection's.
        let others: i64 =
            self.db.pragma_query_value(None, "data_version", |row| row.get(0)).map_err(|error| self.failed(&error))?;
        Ok((others << 32) + self.db.total_changes() as i64)
    }

    fn write<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let write = || {
            let transaction = self.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        write().map_err(|error: rusqlite::Error| failed(&self.path, explain(&error)))
    }

    fn failed(&self, error: &rusqlite::Error) -> Error {
        failed(&self.path, explain(error))
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let open = || {
        let db = Connection::open(path)?;
        db.busy_timeout(BUSY)?;
        db.execute_batch(
            "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;",
        )?;
        Ok(db)
    };
    open().map_err(|error: rusqlite::Error| failed(path, explain(&error)))
}

fn read_only(path: &Path, more: &str) -> Result<Connection> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(format!("file:{}?mode=ro{more}", escaped(path)), flags)?;
        db.busy_timeout(BUSY)?;
        Ok(db)
    };
    open().map_err(|error: rusqlite::Error| failed(path, explain(&error)))
}

/// A path as part of a URI, as SQLite reads it.
fn escaped(path: &Path) -> String {
    let path = path.to_string_lossy();
    let path = if cfg!(windows) { format!("/{}", path.replace('\\', "/")) } else { path.into_owned() };
    path.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

/// What tells a file from another one that was put in its place.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Some((metadata.dev(), metadata.ino()))
    }
    #[cfg(not(unix))]
    {
        let since = metadata.created().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some((since.as_secs(), u64::from(since.subsec_nanos())))
    }
}

fn mismatch(path: &Path, made_with: String) -> Error {
    Error::IndexMismatch { path: path.display().to_string(), made_with }
}

fn failed(path: &Path, reason: impl Into<String>) -> Error {
    Error::Storage { path: path.display().to_string(), reason: reason.into() }
}

/// SQLite's own words, and what to do.
fn explain(error: &rusqlite::Error) -> String {
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => ": it is damaged; rebuild it",
        Some(ErrorCode::DiskFull) => ": make room on the disk",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            ": check the permissions of the file and of its directory"
        }
        Some(ErrorCode::DatabaseBusy) => ": another process has been writing for too long",
        _ => "",
    };
    format!("{error}{advice}")
}

fn halves(bytes: &[u8]) -> Vec<f16> {
    bytes.as_chunks().0.iter().map(|value| f16::from_le_bytes(*value)).collect()
}
