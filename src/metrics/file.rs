//! Cycles in a file: read with whatever is wrong with it, written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cycles::{Cycle, CycleReport, CycleSummary, Cycles};
use crate::error::{Error, Result};

/// What a file says that it is.
const FORMAT: &str = "embedcore-cycles";

/// The version that is written, and the latest that is read.
const VERSION: u64 = 1;

/// How every file of ours begins, as far as it is there at all.
const BEGINNING: &[u8] = br#"{"format":"embedcore-cycles""#;

#[derive(Serialize)]
struct Written {
    format: &'static str,
    version: u64,
    cycles: CycleReport,
}

#[derive(Deserialize)]
struct Read {
    format: String,
    version: Value,
    #[serde(default)]
    cycles: Value,
}

/// Cycles of which each part may be damaged.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    summary: Value,
    #[serde(default)]
    recent: Vec<Value>,
    #[serde(default)]
    active: Vec<Value>,
    #[serde(default)]
    histogram: Value,
}

/// Why a file, or something in it, was not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Where it was moved, if it was damaged; one of a later release stays where it is, and must not be written over.
    pub moved_to: Option<PathBuf>,
    /// What is wrong with it.
    pub reason: String,
}

impl Cycles {
    /// What is written down.
    pub(super) fn to_file(&self) -> Result<Vec<u8>> {
        let written = Written { format: FORMAT, version: VERSION, cycles: self.report(usize::MAX) };
        serde_json::to_vec(&written).map_err(|error| Error::Internal(format!("cycles do not become JSON: {error}")))
    }

    /// Reads what [`Self::to_file`] has written, as far as it makes sense. A file that is not there is empty.
    pub(super) fn load(&mut self, path: &Path, now: u64) -> Result<Option<Unusable>> {
        let storage = |reason: String| Error::Storage { path: path.display().to_string(), reason };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(storage(format!("{error}; pass a file that can be read and written"))),
        };
        let reason = match serde_json::from_slice::<Read>(&bytes) {
            Ok(Read { format, .. }) if format != FORMAT => return Err(storage(foreign())),
            Ok(Read { version, .. }) if version.as_u64().is_some_and(|version| version > VERSION) => {
                let reason = format!("a later release has written it (version {version}, this one reads {VERSION})");
                return Ok(Some(Unusable { moved_to: None, reason }));
            }
            Ok(Read { version, .. }) if version != VERSION => format!("it is of version {version}"),
            Ok(Read { cycles, .. }) => match serde_json::from_value(cycles).map(|parts| self.restore_parts(parts)) {
                Ok(None) => return Ok(None),
                Ok(Some(reason)) => reason,
                Err(error) => error.to_string(),
            },
            // What was cut off, or is nothing but zeros, as files are after a loss of power.
            Err(error) if bytes.starts_with(BEGINNING) || bytes.iter().all(|byte| *byte == 0) => error.to_string(),
            Err(_) => return Err(storage(foreign())),
        };
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".damaged-{now}"));
        let aside = PathBuf::from(aside);
        match fs::rename(path, &aside) {
            // Somebody else who reads it was faster.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(storage(format!("{reason}; and it cannot be renamed: {error}")))
            }
            _ => Ok(Some(Unusable { moved_to: Some(aside), reason })),
        }
    }

    /// Takes what makes sense, and tells what of the rest comes first.
    fn restore_parts(&mut self, parts: Parts) -> Option<String> {
        let mut wrong = None;
        let mut usable = |value: Value, ended: bool| {
            let read = serde_json::from_value::<Cycle>(value).map_err(|error| error.to_string());
            let cycle = read.and_then(|cycle| cycle.check(ended).map(|()| cycle).map_err(|error| error.to_string()));
            cycle
                .map_err(|reason| {
                    wrong.get_or_insert(reason);
                })
                .ok()
        };
        let recent: Vec<Cycle> = parts.recent.into_iter().filter_map(|value| usable(value, true)).collect();
        let active: Vec<Cycle> = parts.active.into_iter().filter_map(|value| usable(value, false)).collect();
        let summary = serde_json::from_value::<CycleSummary>(parts.summary);
        let histogram = serde_json::from_value::<Vec<u64>>(parts.histogram);
        let totals = summary.and_then(|summary| Ok((summary, histogram?))).map_err(|error| error.to_string());
        let totals = totals.and_then(|(summary, histogram)| {
            let report = CycleReport { summary, histogram, recent: recent.clone(), active: Vec::new() };
            report.check().map(|durations| (report.summary, durations)).map_err(|error| error.to_string())
        });
        if let Err(reason) = &totals {
            wrong.get_or_insert_with(|| reason.clone());
        }
        self.restore(totals.ok(), recent, active);
        wrong
    }
}

fn foreign() -> String {
    "it is not a file of cycles; pass the path of one, or of a file that is not there yet".to_owned()
}

/// Writes a file so that after a crash there is the old one or the new one, and never a part; and so that of several who
/// write it at the same time, each succeeds, and one of their files is there.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    // What a link leads to is written, as any program would.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut part = None;
    let written = write_beside(&target, bytes, &mut part);
    written.map_err(|error| {
        part.into_iter().for_each(|part| drop(fs::remove_file(part)));
        let reason = format!("it cannot be written: {error}; pass a path in a directory that exists and is writable");
        Error::Storage { path: path.display().to_string(), reason }
    })
}

/// `part`: the file that is there until all is done.
fn write_beside(path: &Path, bytes: &[u8], part: &mut Option<PathBuf>) -> std::io::Result<()> {
    let (name, mut file) = loop {
        let name = part_of(path);
        match OpenOptions::new().write(true).create_new(true).open(&name) {
            // Left there by a process of the same number.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            opened => break (name, opened?),
        }
    };
    *part = Some(name.clone());
    file.write_all(bytes)?;
    if let Ok(before) = fs::metadata(path) {
        file.set_permissions(before.permissions()).ok();
    }
    file.sync_all()?;
    drop(file);
    fs::rename(&name, path)?;
    // The name survives a loss of power once the directory is written, which some systems have no way to ask for.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).ok();
    Ok(())
}

/// A name that nobody else has: of this process, its threads, and processes of other containers with the same number.
fn part_of(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}-{}-{nanos:x}.part", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    part.into()
}

#[cfg(test)]
mod tests {
    use super::super::cycles::tests::{held, run};
    use super::super::{CycleReport, CycleStatus};
    use super::*;

    #[test]
    fn comes_back_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cycles.json");
        let mut cycles = Cycles::new(1000);
        run(&mut cycles, "a", true);
        cycles.start("open", 1.0, 0, held(1)).unwrap();
        write_whole(&path, &cycles.to_file().unwrap()).unwrap();

        let mut later = Cycles::new(1000);
        run(&mut later, "b", false);
        assert_eq!(later.load(&path, 7), Ok(None));
        let report = later.report(usize::MAX);
        let found: Vec<_> = report.recent.iter().map(|cycle| (cycle.id.as_str(), cycle.status)).collect();
        let expected = [("a", CycleStatus::Succeeded), ("open", CycleStatus::Interrupted), ("b", CycleStatus::Failed)];
        assert_eq!(found, expected);
        assert_eq!((report.summary.count, report.summary.active), (3, 0));
        assert_eq!(report.summary.duration.unwrap().total, 5.0);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);

        let mut fewer = Cycles::new(1);
        fewer.load(&path, 7).unwrap();
        let report = fewer.report(usize::MAX);
        assert_eq!((report.recent.len(), &*report.recent[0].id, report.summary.count), (1, "open", 2));
    }

    #[test]
    fn what_is_damaged_is_set_aside_and_the_rest_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cycles.json");
        let mut whole = Cycles::new(10);
        run(&mut whole, "a", true);
        run(&mut whole, "b", false);
        let whole = String::from_utf8(whole.to_file().unwrap()).unwrap();
        let cases = [
            (String::new(), 0),
            ("\u{0}".repeat(100), 0),
            (whole[..whole.len() / 2].to_owned(), 0),
            (whole.replace("\"version\":1", "\"version\":0"), 0),
            (whole.replace("\"succeeded\":1", "\"succeeded\":2"), 2),
            (whole.replacen("\"startedAt\":1000.0", "\"startedAt\":1e300", 1), 1),
            (whole.replacen("\"endedAt\":1002.5", "\"endedAt\":1.0", 1), 1),
            (whole.replacen("\"startedAt\":1000.0", "\"startedAt\":\"now\"", 1), 1),
            (whole.replacen("\"status\":\"succeeded\"", "\"status\":\"inProgress\"", 1), 1),
            // It has ended, and took no time that is known.
            (whole.replacen("\"endedAt\":1002.5,\"duration\":2.5", "\"endedAt\":1002.5,\"duration\":null", 1), 1),
            (whole.replacen("\"llmCalls\":8", "\"llmCalls\":-8", 1), 2),
            (whole.replace("\"histogram\":[", "\"histogram\":[1,"), 2),
        ];
        for (i, (content, kept)) in cases.iter().enumerate() {
            assert_ne!(content, &whole);
            fs::write(&path, content).unwrap();
            let mut cycles = Cycles::new(10);
            let Unusable { moved_to, reason } = cycles.load(&path, i as u64).unwrap().unwrap();
            assert!(!reason.is_empty());
            assert_eq!(fs::read_to_string(moved_to.unwrap()).unwrap(), *content);
            let report = cycles.report(usize::MAX);
            assert!(!path.exists() && report.recent.len() == *kept, "{i}: {reason}: {report:?}");
            assert!(report.summary.count >= *kept as u64 && report.check().is_ok(), "{i}: {report:?}");
        }
        assert!(matches!(Cycles::new(1).load(directory.path(), 0), Err(Error::Storage { .. })));
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cycles.json");
        let later = r#"{"format":"embedcore-cycles","version":2,"cycles":"otherwise"}"#;
        for content in ["my notes", "{\"format\":\"other\",\"version\":1}", "[1,2]", "{}", later] {
            fs::write(&path, content).unwrap();
            let mut cycles = Cycles::new(10);
            let loaded = cycles.load(&path, 0);
            assert_eq!(loaded.is_ok(), content == later, "{content}");
            assert!(loaded.is_err() || loaded.unwrap().unwrap().moved_to.is_none());
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(cycles.report(usize::MAX), CycleReport::default());
        }
    }

    #[test]
    fn of_all_who_write_at_the_same_time_each_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let contents: Vec<String> = (1..=8).map(|i| i.to_string().repeat(i * 10_000)).collect();
        std::thread::scope(|scope| {
            for content in &contents {
                scope.spawn(|| (0..20).for_each(|_| write_whole(&path, content.as_bytes()).unwrap()));
            }
        });
        assert!(contents.contains(&fs::read_to_string(&path).unwrap()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let error = write_whole(&directory.path().join("no/such/file"), b"").unwrap_err();
        assert_eq!(error.code(), "CACHE_STORAGE_FAILED");
        assert!(write_whole(directory.path(), b"").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_and_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = tempfile::tempdir().unwrap();
        let [path, link] = ["file", "link"].map(|name| directory.path().join(name));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&path, &link).unwrap();
        write_whole(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
