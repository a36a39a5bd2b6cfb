//! The file of a collection: entries, and what a search looks at first.
//!
//! Every row bears a checksum. Codes lie in blocks of [`BLOCK`] entries, so that all of them are read at once, and few are
//! written with an entry; each bears the number of the write that has changed it, so that whoever reads again reads what is new.

mod records;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::matrix::quantized::{Code, QuantizedCodes};
use crate::sqlite::{self, Begun, Fault, Step, checksum, failed, patiently, read_only};
use records::{ABOUT, Change, SCHEMA, about, bytes_of, incomplete, record_of, taken};
pub use records::{Draft, Record};

/// Marks the file as ours ("embc"), whatever it is called.
const APPLICATION_ID: i32 = 0x656d_6263;

/// Raised whenever what is stored, or how, changes.
const VERSION: i32 = 1;

/// Entries whose codes lie together.
const BLOCK: i64 = 256;

/// Codes that room is made for at once, when a file is read first.
const MOST_ROOM: usize = 1 << 20;

/// How long a write waits for the one of another process.
const BUSY: Duration = Duration::from_secs(30);

/// What to do about damage.
const MEND: &str = "restore it from a copy, or delete it and fill it again";

/// What a collection is of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MadeWith {
    /// The model as its user named it; empty where there is none.
    pub model: String,
    /// Its embedding space.
    pub fingerprint: String,
    /// Length of the vectors; 0 as long as there are none.
    pub dimensions: usize,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Meta {
    made_with: MadeWith,
    clock: i64,
    entries: i64,
    coded: i64,
}

impl Meta {
    fn checksum(&self) -> i64 {
        let Self { made_with: MadeWith { model, fingerprint, dimensions }, clock, entries, coded } = self;
        checksum(&[*dimensions as i64, *clock, *entries, *coded], &[model.as_bytes(), fingerprint.as_bytes()])
    }
}

/// An open collection.
pub struct Store {
    db: Connection,
    path: std::path::PathBuf,
    /// Which file it is, where it is in one.
    identity: Option<(u64, u64)>,
    meta: Meta,
    /// What the file said when it was read last.
    version: i64,
    codes: QuantizedCodes,
    /// The row of each code.
    rows: Vec<i64>,
    places: HashMap<i64, usize>,
    /// The rows of each block that have a code.
    blocks: HashMap<i64, Vec<i64>>,
}

impl Store {
    /// Opens the file at `path`, or begins it; without one, in memory. `cancel` ends waiting for others.
    pub fn open(path: Option<&Path>, made_with: &MadeWith, cancel: &Cancel) -> Result<Self> {
        let shown = path.unwrap_or(Path::new(":memory:"));
        let explained = |fault| sqlite::explained(shown, fault, MEND);
        let db = match path {
            None => Connection::open_in_memory().map_err(|error| explained(error.into()))?,
            Some(path) => {
                if let Some(directory) = path.parent() {
                    std::fs::create_dir_all(directory)
                        .map_err(|error| failed(path, format!("its directory cannot be made: {error}")))?;
                }
                patiently(BUSY, cancel, || sqlite::open(path))
                    .or_else(|fault| read_only(path).map_err(|_| fault))
                    .map_err(explained)?
            }
        };
        let mut store = Self {
            db,
            path: shown.to_owned(),
            identity: path.and_then(sqlite::identity),
            meta: Meta::default(),
            version: -1,
            codes: QuantizedCodes::default(),
            rows: Vec::new(),
            places: HashMap::new(),
            blocks: HashMap::new(),
        };
        store.begin(made_with, cancel)?;
        store.follow()?;
        Ok(store)
    }

    /// Makes what an empty file lacks.
    fn begin(&mut self, made_with: &MadeWith, cancel: &Cancel) -> Result<()> {
        let pragma = |db: &Connection, name| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let begin = || -> Step<()> {
            if pragma(&self.db, "application_id")? == APPLICATION_ID {
                return Ok(());
            }
            self.db.execute_batch("BEGIN IMMEDIATE")?;
            let transaction = Begun(&self.db);
            // Another process may have begun it meanwhile.
            let tables: i64 = self.db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if pragma(&self.db, "application_id")? == 0 && tables == 0 {
                self.db.execute_batch(SCHEMA)?;
                self.db.pragma_update(None, "application_id", APPLICATION_ID)?;
                self.db.pragma_update(None, "user_version", VERSION)?;
                let meta = Meta { made_with: made_with.clone(), ..Meta::default() };
                let insert = "INSERT INTO meta VALUES (?, ?, ?, 0, 0, 0, ?)";
                let MadeWith { model, fingerprint, dimensions } = made_with;
                self.db.execute(insert, params![model, fingerprint, *dimensions as i64, meta.checksum()])?;
                self.db.execute_batch("COMMIT")?;
            }
            drop(transaction);
            Ok(())
        };
        patiently(BUSY, cancel, begin).map_err(|fault| self.failed(fault))?;
        let read = |name| pragma(&self.db, name).map_err(|error| self.failed(error.into()));
        if read("application_id")? != APPLICATION_ID {
            return Err(failed(
                &self.path,
                "it is the database of another program, or a damaged collection: choose another path",
            ));
        }
        // A cache bears the same mark.
        let is_ours = || {
            Ok(self
                .db
                .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'codes'", [], |row| row.get::<_, i64>(0))?)
        };
        if is_ours().map_err(|fault| self.failed(fault))? == 0 {
            return Err(failed(&self.path, "it is a cache, not a collection: choose another path"));
        }
        match read("user_version")? {
            VERSION => Ok(()),
            other => Err(failed(
                &self.path,
                format!(
                    "it is of version {other} of collections, this is version {VERSION}: use the release that made it"
                ),
            )),
        }
    }

    /// What it is of.
    pub fn made_with(&self) -> &MadeWith {
        &self.meta.made_with
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        self.meta.entries as usize
    }

    /// The codes of all entries.
    pub fn codes(&self) -> &QuantizedCodes {
        &self.codes
    }

    /// Whether a row has a code: not what has no direction.
    pub fn is_coded(&self, row: i64) -> bool {
        self.places.contains_key(&row)
    }

    /// The row of a code.
    pub fn row_of(&self, place: usize) -> i64 {
        self.rows[place]
    }

    /// Does what reads, of one state of the file, with all that was written before.
    pub fn reading<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let sql = |store: &Self, sql: &str| store.db.execute_batch(sql).map_err(|error| store.failed(error.into()));
        sql(self, "BEGIN")?;
        let done = self.follow().and_then(|()| work(self));
        let ended = sql(self, "ROLLBACK");
        done.and_then(|done| ended.map(|()| done))
    }

    /// Reads what was written since, by whomever.
    pub fn follow(&mut self) -> Result<()> {
        let version = sqlite::version(&self.db).map_err(|fault| self.failed(fault))?;
        if version == self.version {
            return Ok(());
        }
        let follow = |store: &mut Self| -> Step<()> {
            // One state of the file, whoever writes meanwhile.
            let within = store.db.is_autocommit();
            if within {
                store.db.execute_batch("BEGIN")?;
            }
            let done = store.catch_up();
            if within {
                store.db.execute_batch("ROLLBACK")?;
            }
            done
        };
        follow(self).map_err(|fault| self.failed(fault))?;
        self.version = version;
        Ok(())
    }

    fn catch_up(&mut self) -> Step<()> {
        let meta = self.read_meta()?;
        let first = self.codes.is_empty();
        if first || meta.made_with.dimensions != self.codes.dimensions() || meta.clock < self.meta.clock {
            self.codes = QuantizedCodes::new(meta.made_with.dimensions);
            (self.rows, self.places, self.blocks) = Default::default();
            self.meta.clock = -1;
        }
        let (dimensions, whole) = (meta.made_with.dimensions, self.rows.is_empty());
        let width = size_of::<i64>() + size_of::<f32>() + dimensions;
        let mut changed: Vec<(i64, Vec<(i64, Code)>)> = Vec::new();
        let room = if whole { (meta.coded as usize).min(MOST_ROOM) } else { 0 };
        let (mut bytes, mut scales) = (Vec::with_capacity(room * dimensions), Vec::with_capacity(room));
        self.places.reserve(room);
        {
            let mut select = self
                .db
                .prepare_cached("SELECT block, clock, checksum, codes FROM codes WHERE clock > ? ORDER BY block")?;
            let mut rows = select.query([self.meta.clock])?;
            while let Some(row) = rows.next()? {
                let (block, clock, sum): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let blob = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
                if checksum(&[block, clock], &[blob]) != sum || blob.len() % width != 0 {
                    return Err(Fault::Damaged);
                }
                let first = self.rows.len();
                let mut members = Vec::new();
                for code in blob.chunks_exact(width) {
                    let (row, rest) = code.split_first_chunk().ok_or(Fault::Damaged)?;
                    let (scale, values) = rest.split_first_chunk().ok_or(Fault::Damaged)?;
                    let (row, scale) = (i64::from_le_bytes(*row), f32::from_le_bytes(*scale));
                    let values = values.iter().map(|byte| *byte as i8);
                    if whole {
                        bytes.extend(values);
                        scales.push(scale);
                        self.places.insert(row, self.rows.len());
                        self.rows.push(row);
                    } else {
                        members.push((row, Code { bytes: values.collect(), scale }));
                    }
                }
                if whole {
                    self.blocks.insert(block, self.rows[first..].to_vec());
                } else {
                    changed.push((block, members));
                }
            }
        }
        if whole {
            self.codes = QuantizedCodes::of(dimensions, bytes, scales);
        } else {
            for (block, members) in changed {
                self.put_block(block, members);
            }
        }
        if self.rows.len() as i64 != meta.coded {
            return Err(Fault::Damaged);
        }
        self.meta = meta;
        Ok(())
    }

    /// A block is as it says now.
    fn put_block(&mut self, block: i64, members: Vec<(i64, Code)>) {
        let rows: Vec<i64> = members.iter().map(|(row, _)| *row).collect();
        for gone in self.blocks.insert(block, rows.clone()).unwrap_or_default() {
            if !rows.contains(&gone) {
                self.remove_code(gone);
            }
        }
        for (row, code) in members {
            match self.places.get(&row) {
                Some(&at) => self.codes.set_code(at, &code),
                None => {
                    self.places.insert(row, self.rows.len());
                    self.rows.push(row);
                    self.codes.push_code(&code);
                }
            }
        }
    }

    fn remove_code(&mut self, row: i64) {
        let Some(at) = self.places.remove(&row) else { return };
        self.codes.swap_remove(at);
        self.rows.swap_remove(at);
        if let Some(moved) = self.rows.get(at) {
            self.places.insert(*moved, at);
        }
    }

    fn read_meta(&self) -> Step<Meta> {
        let (meta, sum) = self.db.query_row("SELECT * FROM meta", [], |row| {
            let made_with =
                MadeWith { model: row.get(0)?, fingerprint: row.get(1)?, dimensions: row.get::<_, i64>(2)? as usize };
            Ok((
                Meta { made_with, clock: row.get(3)?, entries: row.get(4)?, coded: row.get(5)? },
                row.get::<_, i64>(6)?,
            ))
        })?;
        if meta.checksum() == sum { Ok(meta) } else { Err(Fault::Damaged) }
    }

    /// Keeps all of `drafts`, or none; of those with one id, the last. All have vectors of one length. `documents`: what documents
    /// they are chunks of, with the hash of each; what those had before is gone.
    pub fn put(&mut self, drafts: &[Draft], documents: &[(String, Vec<u8>)], cancel: &Cancel) -> Result<()> {
        let Some(dimensions) = drafts.first().map(|draft| draft.vector.len()).or(Some(0)) else { return Ok(()) };
        self.write(cancel, |db, change| {
            if dimensions > 0 && change.meta.made_with.dimensions == 0 {
                change.meta.made_with.dimensions = dimensions;
            }
            for (document, hash) in documents {
                change.forget_document(db, document)?;
                db.prepare_cached("INSERT INTO documents VALUES (?, ?)")?.execute(params![document, hash])?;
            }
            let mut find = db.prepare_cached("SELECT row, document FROM entries WHERE id = ?")?;
            let mut insert = db.prepare_cached(
                "INSERT INTO entries (row, id, document, place, metadata, text, vector, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )?;
            // Of the row, whatever the index says of its id.
            let mut update = db.prepare_cached(
                "UPDATE entries SET document = ?3, place = ?4, metadata = ?5, text = ?6, vector = ?7, checksum = ?8 WHERE row = ?1 AND +id = ?2",
            )?;
            let mut next: i64 = db.query_row("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'entries'", [], |row| row.get(0))?;
            for draft in drafts {
                let found: Option<(i64, Option<String>)> =
                    find.query_row([&draft.id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
                let before = found.as_ref().map(|(_, document)| document.as_ref());
                if let (Some(document), Some(owner)) = (&draft.document, before)
                    && owner != Some(document)
                {
                    return Err(Fault::Stopped(taken(&draft.id, document, owner)));
                }
                let row = found.as_ref().map_or_else(|| {
                    next += 1;
                    next
                }, |(row, _)| *row);
                let vector = bytes_of(&draft.vector);
                let Draft { id, text, metadata, document, place, .. } = draft;
                let values = params![row, id, document, place, metadata, text, vector, draft.checksum(row, &vector)];
                if let Some((_, before)) = &found {
                    if update.execute(values)? != 1 {
                        return Err(Fault::Damaged);
                    }
                    if let Some(before) = before.as_ref().filter(|before| document.as_ref() != Some(before)) {
                        incomplete(db, before)?;
                    }
                } else {
                    insert.execute(values)?;
                    change.meta.entries += 1;
                }
                let usable = draft.vector.iter().any(|value| *value != 0.0);
                change.codes.insert(row, usable.then(|| Code::of(&draft.vector)));
            }
            Ok(())
        })
    }

    /// Forgets entries, all or none. How many there were.
    pub fn remove(&mut self, rows: &[i64], cancel: &Cancel) -> Result<usize> {
        self.write(cancel, |db, change| {
            let mut count = 0;
            for row in rows {
                count += change.forget(db, *row)?;
            }
            Ok(count)
        })
    }

    /// Forgets documents and their chunks, all or none.
    pub fn remove_documents(&mut self, documents: &[String], cancel: &Cancel) -> Result<()> {
        self.write(cancel, |db, change| documents.iter().try_for_each(|document| change.forget_document(db, document)))
    }

    /// Gives every entry another vector, and the collection another model: all of it, or nothing.
    pub fn rebuild(&mut self, made_with: &MadeWith, vectors: &[(i64, Vec<f32>)], cancel: &Cancel) -> Result<()> {
        self.write(cancel, |db, change| {
            if change.meta.entries != vectors.len() as i64 {
                return Err(Fault::Stopped(Error::InvalidArgument(
                    "The collection was changed while its vectors were computed anew: open it again".to_owned(),
                )));
            }
            change.meta.made_with = made_with.clone();
            change.whole = true;
            db.execute("DELETE FROM codes", [])?;
            let mut update = db.prepare_cached("UPDATE entries SET vector = ?, checksum = ? WHERE row = ?")?;
            for (row, vector) in vectors {
                let mut record = record_of(db, *row)?.ok_or(Fault::Damaged)?;
                record.draft.vector.clone_from(vector);
                let bytes = bytes_of(vector);
                update.execute(params![bytes, record.draft.checksum(*row, &bytes), row])?;
                change.codes.insert(*row, vector.iter().any(|value| *value != 0.0).then(|| Code::of(vector)));
            }
            Ok(())
        })
    }

    /// Does all of `work`, or nothing; waits for its turn.
    fn write<T>(&mut self, cancel: &Cancel, work: impl FnOnce(&Connection, &mut Change) -> Step<T>) -> Result<T> {
        patiently(BUSY, cancel, || Ok(self.db.execute_batch("BEGIN IMMEDIATE")?))
            .map_err(|fault| self.failed(fault))?;
        let written = self
            .in_place()
            .and_then(|()| self.follow())
            .and_then(|()| self.change(work).map_err(|fault| self.failed(fault)));
        if written.is_err() && !self.db.is_autocommit() {
            drop(self.db.execute_batch("ROLLBACK"));
        }
        let (meta, version, blocks, whole, done) = written?;
        if whole {
            self.codes = QuantizedCodes::new(meta.made_with.dimensions);
            (self.rows, self.places, self.blocks) = Default::default();
        } else if self.codes.dimensions() != meta.made_with.dimensions {
            self.codes = QuantizedCodes::new(meta.made_with.dimensions);
        }
        for (block, members) in blocks {
            self.put_block(block, members);
        }
        self.meta = meta;
        self.version = version;
        Ok(done)
    }

    /// What is written to a file without a name is gone with whoever has it open.
    fn in_place(&self) -> Result<()> {
        if self.identity.is_none() || sqlite::identity(&self.path) == self.identity {
            return Ok(());
        }
        Err(failed(
            &self.path,
            "it was removed, or another file put in its place, while it was open, and nothing would be kept: what it held can \
             still be read; close the collection, and make a new one to write",
        ))
    }

    #[allow(clippy::type_complexity)]
    fn change<T>(
        &self,
        work: impl FnOnce(&Connection, &mut Change) -> Step<T>,
    ) -> Step<(Meta, i64, Vec<(i64, Vec<(i64, Code)>)>, bool, T)> {
        let mut change = Change { meta: self.meta.clone(), codes: BTreeMap::new(), whole: false };
        let done = work(&self.db, &mut change)?;
        let Change { mut meta, codes, whole } = change;
        meta.clock += 1;
        let mut blocks: BTreeMap<i64, BTreeMap<i64, Code>> = BTreeMap::new();
        for (row, code) in codes {
            let block = blocks.entry(row / BLOCK).or_insert_with(|| {
                let known = self.blocks.get(&(row / BLOCK)).filter(|_| !whole).into_iter().flatten();
                let code = |row: &i64| {
                    let (bytes, scale) = self.codes.code(*self.places.get(row)?);
                    Some((*row, Code { bytes: bytes.to_vec(), scale }))
                };
                known.filter_map(code).collect()
            });
            match code {
                Some(code) => meta.coded += i64::from(block.insert(row, code).is_none()),
                None => meta.coded -= i64::from(block.remove(&row).is_some()),
            }
        }
        if whole {
            meta.coded = blocks.values().map(|block| block.len() as i64).sum();
        }
        let mut put = self.db.prepare_cached("INSERT OR REPLACE INTO codes VALUES (?, ?, ?, ?)")?;
        for (block, members) in &blocks {
            let mut blob = Vec::new();
            for (row, Code { bytes, scale }) in members {
                blob.extend(row.to_le_bytes());
                blob.extend(scale.to_le_bytes());
                blob.extend(bytes.iter().map(|byte| *byte as u8));
            }
            put.execute(params![block, meta.clock, checksum(&[*block, meta.clock], &[&blob]), blob])?;
        }
        let MadeWith { model, fingerprint, dimensions } = &meta.made_with;
        self.db.execute(
            "UPDATE meta SET model = ?, fingerprint = ?, dimensions = ?, clock = ?, entries = ?, coded = ?, checksum = ?",
            params![model, fingerprint, *dimensions as i64, meta.clock, meta.entries, meta.coded, meta.checksum()],
        )?;
        // Now, while nobody else can write: a moment after the commit, others may have.
        let version = sqlite::version(&self.db)?;
        self.db.execute_batch("COMMIT")?;
        let blocks = blocks.into_iter().map(|(block, members)| (block, members.into_iter().collect())).collect();
        Ok((meta, version, blocks, whole, done))
    }

    /// Keeps what is known of the collection itself, as `change` makes it of what is there; what is there then.
    pub fn set_metadata(&mut self, change: impl FnOnce(&str) -> Result<String>, cancel: &Cancel) -> Result<String> {
        self.write(cancel, |db, _| {
            let metadata = change(&about(db)?).map_err(Fault::Stopped)?;
            db.execute_batch(ABOUT)?;
            db.execute("DELETE FROM about", [])?;
            db.execute("INSERT INTO about VALUES (?, ?)", params![metadata, checksum(&[], &[metadata.as_bytes()])])?;
            Ok(metadata)
        })
    }

    /// What to say of a file that holds something else than what was written.
    pub fn damaged(&self) -> Error {
        self.failed(Fault::Damaged)
    }

    /// What to say of a file that cannot be used for another reason.
    pub fn unusable(&self, reason: &str) -> Error {
        failed(&self.path, reason)
    }

    fn failed(&self, fault: Fault) -> Error {
        sqlite::explained(&self.path, fault, MEND)
    }
}
