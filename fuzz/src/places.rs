//! Where targets write their files: a directory of this process, in memory where the system has one there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let above = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let root = above.join(format!("embedcore-fuzz-{}", std::process::id()));
    fs::create_dir_all(&root).expect("a directory for files");
    root
});

/// A place that is empty.
pub fn empty(name: &str) -> PathBuf {
    let place = ROOT.join(name);
    fs::remove_dir_all(&place).ok();
    fs::create_dir_all(&place).expect("a directory");
    place
}

/// A file with these bytes.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = ROOT.join(name);
    fs::write(&path, bytes).expect("a file");
    path
}
