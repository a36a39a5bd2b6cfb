//! The file of a collection: each call is done or it is not, and what cannot be done is an error and not a wrong answer.

use std::io::Write;
use std::path::Path;

use embedcore::cancel::Cancel;
use embedcore::collection::{Collection, Draft, MadeWith, Search};
use embedcore::error::Error;

use super::{Case, asked, each_call_fails};

const CASE: Case = Case { scenario: "collection::scenario", look };

/// Entries that are put at once.
const GROUP: usize = 8;
const GROUPS: usize = 2;

/// What is deleted in each round, by its place in a group of its own.
const DELETED: &str = "deleted";

fn made_with() -> MadeWith {
    MadeWith { model: "m".into(), fingerprint: "f".into(), dimensions: 16 }
}

fn draft(id: &str, n: usize, round: usize) -> Draft {
    Draft {
        id: id.to_owned(),
        // One does not fit into a page.
        text: Some(format!("text {n} of round {round}{}", " long".repeat(if n == 3 { 3000 } else { 1 }))),
        metadata: format!("{{\"n\":{n},\"round\":{round}}}"),
        document: (n > 12).then(|| "document".to_owned()),
        place: None,
        vector: (0..16).map(|i| (n * 16 + i + round * 1000 + 1) as f32).collect(),
    }
}

fn entry(n: usize, round: usize) -> Draft {
    draft(&format!("id{n}"), n, round)
}

fn group(nth: usize, round: usize) -> Vec<Draft> {
    (nth * GROUP..(nth + 1) * GROUP).map(|n| entry(n, round)).collect()
}

fn open(path: &Path) -> Result<Collection, Error> {
    let collection = Collection::new(Some(path.to_owned()));
    collection.open(&made_with(), &Cancel::default())?;
    Ok(collection)
}

/// In which round a group is; none: it is not there. It is whole, and nothing else.
fn round(collection: &Collection, nth: usize) -> Result<Option<usize>, Error> {
    let ids: Vec<String> = group(nth, 0).into_iter().map(|draft| draft.id).collect();
    let found: Vec<Option<Draft>> =
        collection.get(&ids)?.into_iter().map(|found| found.map(|record| record.draft)).collect();
    if found.iter().all(Option::is_none) {
        return Ok(None);
    }
    let is = |round: &usize| found.iter().eq(group(nth, *round).into_iter().map(Some).collect::<Vec<_>>().iter());
    Ok(Some((0..3).find(is).unwrap_or_else(|| panic!("group {nth} is none that was put: {found:?}"))))
}

/// What a search finds was put.
fn search(collection: &Collection) -> Result<(), Error> {
    let search = Search { vector: entry(4, 0).vector, limit: 5, min_score: -1.0, filter: None };
    for (_, record) in collection.query(&search, &made_with(), &Cancel::default())? {
        let known = |round| (0..GROUP * GROUPS).any(|n| record.draft == entry(n, round)) || record.draft.id == DELETED;
        assert!((0..3).any(known), "a search finds what nobody has put: {record:?}");
    }
    Ok(())
}

/// One round; which groups are known to be in it.
fn work(path: &Path, now: usize, done: &mut [Option<usize>; GROUPS]) -> Result<(), Error> {
    let (collection, cancel) = (open(path)?, Cancel::default());
    for nth in 0..GROUPS {
        let found = round(&collection, nth)?;
        assert!(done[nth].is_none_or(|done| found == Some(done)), "group {nth} is of {found:?}, and was put: {done:?}");
        // Until it is known what became of it.
        done[nth] = None;
        // All of the document is in the last group, and replaces what there was of it.
        let documents = [("document".to_owned(), vec![now as u8; 32])];
        let documents = if nth + 1 == GROUPS { &documents[..] } else { &[] };
        collection.put(&group(nth, now), documents, &made_with(), &cancel)?;
        done[nth] = Some(now);
        assert_eq!(round(&collection, nth)?, Some(now), "what was put is not there");
        search(&collection)?;
    }
    collection.put(&[draft(DELETED, 1, now)], &[], &made_with(), &cancel)?;
    assert_eq!(collection.delete(&[DELETED.to_owned()], None, &cancel)?, 1);
    assert_eq!(collection.get(&[DELETED.to_owned()])?, [None], "what was deleted is there");
    assert_eq!(collection.count(None)?, GROUP * GROUPS);
    collection.close();
    Ok(())
}

/// What happens while a call fails. Says what was put, line by line.
#[test]
#[ignore = "runs in a process of its own, below the shim"]
fn scenario() {
    let (path, mut told) = asked();
    let mut done = [None; GROUPS];
    let mut failures = Vec::new();
    for now in 0..3 {
        let worked = work(&path, now, &mut done);
        for (nth, round) in done.iter().enumerate() {
            writeln!(told, "{nth} {}", round.map_or("?".to_owned(), |round| round.to_string())).unwrap();
        }
        failures.extend(worked.err());
    }
    assert!(failures.len() <= 1, "one call failed, and then: {failures:?}");
    assert!(failures.iter().all(|error| matches!(error, Error::Storage { .. })), "{failures:?}");
    writeln!(told, "end").unwrap();
}

/// How many groups are not as they were when they were put.
fn look(place: &Path, what: &str, told: &str) -> usize {
    let collection = open(&place.join("file.db")).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut missing = 0;
    for nth in 0..GROUPS {
        let found = round(&collection, nth).unwrap_or_else(|error| panic!("{what}: {error}"));
        let last = told.lines().rev().find_map(|line| line.strip_prefix(&format!("{nth} ")));
        if let Some(Ok(last)) = last.map(str::parse::<usize>) {
            missing += usize::from(found.is_none_or(|found| found < last));
        }
    }
    search(&collection).unwrap_or_else(|error| panic!("{what}: {error}"));
    let put = collection.put(&group(0, 0), &[], &made_with(), &Cancel::default());
    assert_eq!((put, round(&collection, 0)), (Ok(()), Ok(Some(0))), "{what}: it does not work afterwards");
    missing
}

#[test]
fn a_call_that_fails_is_an_error_and_no_wrong_answer() {
    assert_eq!(each_call_fails(&CASE, "EIO", 1), 0);
}

#[test]
fn a_disk_that_is_full_for_a_moment_loses_nothing() {
    assert_eq!(each_call_fails(&CASE, "ENOSPC", 1), 0);
}

#[test]
fn a_call_that_is_interrupted_is_made_again() {
    assert_eq!(each_call_fails(&CASE, "EINTR", 1), 0);
}

#[test]
fn half_a_read_or_write_is_not_taken_for_all_of_it() {
    assert_eq!(each_call_fails(&CASE, "SHORT", 1), 0);
}

#[test]
fn what_could_not_be_synced_is_there_all_the_same() {
    assert_eq!(each_call_fails(&CASE, "SYNC", 1), 0);
}

#[test]
fn a_loss_of_power_leaves_what_some_call_has_put() {
    // The latest may be gone, each as a whole.
    each_call_fails(&CASE, "POWER", 3);
}
