//! The file of an index: what cannot be done is an error and not a wrong answer, and the next run makes good for it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use embedcore::error::Error;
use embedcore::generator::{Generator, GeneratorOptions, StateDir};
use embedcore::index::{CodeIndex, Filter, UpdateOptions};

use super::{Case, asked, each_call_fails};

const CASE: Case = Case { scenario: "index::scenario", look };

const FILES: usize = 6;

fn name(n: usize, round: usize) -> String {
    format!("declared_{n}_in_{round}")
}

/// The tree as it is in a round.
fn write(tree: &Path, round: usize) {
    fs::create_dir_all(tree).unwrap();
    for n in 0..FILES {
        let many = if n == 3 { 60 } else { 1 };
        let text: String = (0..many).map(|m| format!("/// Reads {m}.\nfn more_{m}() {{}}\n")).collect();
        fs::write(tree.join(format!("{n}.rs")), format!("fn {}() {{}}\n{text}", name(n, round))).unwrap();
    }
}

/// A model that is a table: it needs no runtime.
fn index(path: &Path, tree: &Path) -> Arc<CodeIndex> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models/static-embedding").display().to_string();
    let options = GeneratorOptions { model_path: Some(model), state_dir: StateDir::Off, ..GeneratorOptions::default() };
    let generator = Arc::new(Generator::new(options).unwrap());
    Arc::new(CodeIndex::new(tree.to_owned(), Some(path.to_owned()), None, generator))
}

/// What a whole index of a round says.
async fn check(index: &Arc<CodeIndex>, round: usize) -> Result<(), Error> {
    let files: Vec<String> = (0..FILES).map(|n| format!("{n}.rs")).collect();
    assert_eq!(index.files()?, files);
    for n in 0..FILES {
        let found: Vec<_> =
            index.symbols(&name(n, round), 9)?.into_iter().map(|found| (found.file, found.stale)).collect();
        assert_eq!(found, [(format!("{n}.rs"), false)], "{}", name(n, round));
        for before in 0..round {
            assert_eq!(index.symbols(&name(n, before), 9)?, [], "what is gone is found");
        }
    }
    let found = Arc::clone(index).search("declared in".to_owned(), 30, Filter::default()).await?;
    assert_eq!(found.len(), 30);
    for found in found {
        let known = found.entry.name.starts_with("more_") || (0..FILES).any(|n| found.entry.name == name(n, round));
        assert!(known && !found.stale, "a search finds what is not there: {found:?}");
    }
    Ok(())
}

async fn work(path: &Path, tree: &Path, now: usize) -> Result<(), Error> {
    let index = index(path, tree);
    Arc::clone(&index).update(UpdateOptions::default()).await?;
    check(&index, now).await?;
    index.close();
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What happens while a call fails.
#[test]
#[ignore = "runs in a process of its own, below the shim"]
fn scenario() {
    let (path, mut told) = asked();
    let tree = path.parent().unwrap().join("tree");
    let mut failures = Vec::new();
    for now in 0..3 {
        write(&tree, now);
        failures.extend(runtime().block_on(work(&path, &tree, now)).err());
        writeln!(told, "{now} {}", failures.len()).unwrap();
    }
    assert!(failures.len() <= 1, "one call failed, and then: {failures:?}");
    assert!(failures.iter().all(|error| matches!(error, Error::Storage { .. })), "{failures:?}");
    writeln!(told, "end").unwrap();
}

/// The next run brings it up to date. Nothing is missing then.
fn look(place: &Path, what: &str, _told: &str) -> usize {
    let tree = place.join("tree");
    write(&tree, 2);
    let worked = runtime().block_on(work(&place.join("file.db"), &tree, 2));
    assert_eq!(worked, Ok(()), "{what}: it does not work afterwards");
    0
}

#[test]
fn a_call_that_fails_is_an_error_and_no_wrong_answer() {
    each_call_fails(&CASE, "EIO", 1);
}

#[test]
fn a_disk_that_is_full_for_a_moment_makes_no_answer_wrong() {
    each_call_fails(&CASE, "ENOSPC", 1);
}

#[test]
fn a_call_that_is_interrupted_is_made_again() {
    each_call_fails(&CASE, "EINTR", 1);
}

#[test]
fn half_a_read_or_write_is_not_taken_for_all_of_it() {
    each_call_fails(&CASE, "SHORT", 1);
}

#[test]
fn what_could_not_be_synced_makes_no_answer_wrong() {
    each_call_fails(&CASE, "SYNC", 1);
}

#[test]
fn a_loss_of_power_leaves_an_index_that_can_be_brought_up_to_date() {
    each_call_fails(&CASE, "POWER", 3);
}
