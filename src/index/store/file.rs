//! The file of an index: opened, waited for, removed, and what is said when that fails.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use super::super::DIRECTORY;
use crate::error::{Error, Result};
use crate::sqlite::{self, Fault, failed};

/// Marks the file as ours ("embi"), whatever it is called.
pub const APPLICATION_ID: i32 = 0x656d_6269;

/// Where SQLite keeps it, and how a file of its begins.
const APPLICATION_ID_AT: usize = 68;
const MAGIC: &[u8] = b"SQLite format 3\0";

/// How long a run waits for another program that writes to the file.
pub const BUSY: Duration = Duration::from_secs(30);

/// What to do about damage.
const MEND: &str = "rebuild it";

/// Removes the index at `path`, whatever its state; nothing that is no index.
pub fn remove(path: &Path) -> Result<()> {
    if !only_indexes_lie_at(path) && !is_ours(path) {
        return Err(failed(path, "it is damaged or no index: delete it, or choose another path"));
    }
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.to_path_buf().into_os_string();
        name.push(suffix);
        match fs::remove_file(&name) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed(path, format!("it cannot be removed to be built anew: {error}")));
            }
            _ => {}
        }
    }
    Ok(())
}

fn only_indexes_lie_at(path: &Path) -> bool {
    path.parent().is_some_and(|directory| directory.ends_with(DIRECTORY))
}

/// Whether the file begins as ours do, or is empty or absent.
fn is_ours(path: &Path) -> bool {
    let mut head = Vec::new();
    match fs::File::open(path).map(|file| file.take(100).read_to_end(&mut head)) {
        Ok(Ok(0)) => true,
        Ok(Ok(_)) => {
            let id = head.get(APPLICATION_ID_AT..APPLICATION_ID_AT + 4);
            head.starts_with(MAGIC) && id == Some(&APPLICATION_ID.to_be_bytes()[..])
        }
        Ok(Err(_)) => false,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// It belongs to something else.
pub fn mismatch(path: &Path, made_with: String) -> Error {
    Error::IndexMismatch { path: path.display().to_string(), made_with }
}

/// What went wrong, and what to do.
pub fn explained(path: &Path, fault: Fault) -> Error {
    sqlite::explained(path, fault, MEND)
}
