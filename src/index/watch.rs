//! Tells when something in a source tree has changed, so that an index can follow. What changed does not matter: an update
//! compares the whole tree anyway, and so nothing is lost when the operating system drops events.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher, recommended_watcher};

use super::tree;
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Watches the directories that are indexed, one by one: what is ignored, `node_modules` for example, costs nothing. Where
/// the system watches whole trees at no price, it is asked for the whole tree.
pub struct TreeWatch {
    root: PathBuf,
    watcher: RecommendedWatcher,
    watched: HashSet<PathBuf>,
}

impl TreeWatch {
    /// Begins to watch the directory `root`. `changed` is called from a thread of the watcher's, often.
    pub fn start(root: &Path, changed: impl Fn() + Send + 'static) -> Result<Self> {
        let whole = WHOLE_TREES.then(|| root.to_path_buf());
        let watcher = recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| !matters(&event, whole.as_deref())) {
                return;
            }
            changed();
        });
        let watcher = watcher.map_err(|error| failed(root, &error))?;
        let mut watch = Self { root: root.to_path_buf(), watcher, watched: HashSet::new() };
        if WHOLE_TREES {
            watch.watcher.watch(root, RecursiveMode::Recursive).map_err(|error| failed(root, &error))?;
        }
        watch.follow()?;
        Ok(watch)
    }

    /// Watches directories that are new, and lets go of those that are gone; whether there were new ones.
    pub fn follow(&mut self) -> Result<bool> {
        if WHOLE_TREES {
            return Ok(false);
        }
        let there: HashSet<PathBuf> = tree::directories(&self.root, &Cancel::default())?.into_iter().collect();
        for gone in self.watched.extract_if(|directory| !there.contains(directory)) {
            // The system has let go of what was deleted.
            drop(self.watcher.unwatch(&gone));
        }
        let mut new = false;
        for directory in there {
            if self.watched.contains(&directory) {
                continue;
            }
            match self.watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => new |= self.watched.insert(directory),
                // Gone again.
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) || !directory.exists() => {}
                Err(error) => return Err(failed(&directory, &error)),
            }
        }
        Ok(new)
    }
}

/// Whether this system watches a directory with all that is below it.
const WHOLE_TREES: bool = cfg!(any(target_os = "macos", target_os = "windows"));

/// Whether an event may change an index: reading does not, and what is hidden is not indexed, but for ignore files.
fn matters(event: &Event, root: Option<&Path>) -> bool {
    let shown = |path: &PathBuf| {
        let Some(root) = root else { return true };
        let below = path.strip_prefix(root).unwrap_or(path);
        below.iter().all(|part| {
            let name = part.to_string_lossy();
            (!name.starts_with('.') && name != "node_modules") || name == ".gitignore" || name == ".ignore"
        })
    };
    !matches!(event.kind, EventKind::Access(_)) && (event.paths.is_empty() || event.paths.iter().any(shown))
}

fn failed(path: &Path, error: &notify::Error) -> Error {
    let reason = match &error.kind {
        ErrorKind::MaxFilesWatch => "the system watches no more directories for this user: raise \
            fs.inotify.max_user_watches, or leave directories out with a file .ignore"
            .to_owned(),
        _ => format!("it cannot be watched: {error}"),
    };
    Error::Storage { path: path.display().to_string(), reason }
}
