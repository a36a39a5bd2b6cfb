use serde_json::{Value, json};

use super::*;

fn draft(id: &str, vector: &[f32], metadata: Value) -> Draft {
    Draft {
        id: id.to_owned(),
        text: Some(format!("text of {id}")),
        metadata: metadata.to_string(),
        vector: vector.to_vec(),
        ..Draft::default()
    }
}

fn opened(path: Option<&std::path::Path>) -> Collection {
    let collection = Collection::new(path.map(PathBuf::from));
    collection.open(&MadeWith::default(), &Cancel::default()).unwrap();
    collection
}

fn ids(collection: &Collection, vector: &[f32], limit: usize, filter: Option<Filter>) -> Vec<String> {
    let search = Search { vector: vector.to_vec(), limit, min_score: -1.0, filter };
    let found = collection.query(&search, &MadeWith::default(), &Cancel::default()).unwrap();
    assert!(found.is_sorted_by(|a, b| a.0 >= b.0));
    found.into_iter().map(|(_, record)| record.draft.id).collect()
}

fn put(collection: &Collection, drafts: &[Draft]) {
    collection.put(drafts, &[], &MadeWith::default(), &Cancel::default()).unwrap();
}

/// On a circle, so that the nearest ones are known.
fn circle(count: usize) -> Vec<Draft> {
    let at = |at: usize| (at as f32 / count as f32 * std::f32::consts::TAU).sin_cos();
    (0..count)
        .map(|n| draft(&format!("{n:05}"), &[at(n).1, at(n).0, 0.1, 0.0], json!({ "n": n, "even": n % 2 == 0 })))
        .collect()
}

#[test]
fn what_was_put_is_found_also_by_who_opens_it_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/a.db");
    let (one, other) = (opened(Some(&path)), opened(Some(&path)));
    put(&one, &circle(3000));
    let near = |collection: &Collection| ids(collection, &[1.0, 0.0, 0.1, 0.0], 3, None);
    let expected = ["00000", "00001", "02999"].map(str::to_owned);
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    assert_eq!(sorted(near(&one)), expected);
    assert_eq!(sorted(near(&other)), expected);
    put(&other, &[draft("00001", &[-1.0, 0.0, 0.0, 0.0], json!({})), draft("none", &[0.0; 4], json!({}))]);
    assert_eq!(one.delete(&["00000".to_owned(), "nobody".to_owned()], None, &Cancel::default()).unwrap(), 1);
    for collection in [&one, &other, &opened(Some(&path))] {
        assert_eq!(sorted(near(collection)), ["00002", "02998", "02999"]);
        assert_eq!(collection.count(None).unwrap(), 3000);
    }
}

#[test]
fn filters_find_what_is_far_away() {
    let collection = opened(None);
    put(&collection, &circle(2000));
    let filter = |value: Value| Some(serde_json::from_value::<Filter>(value).unwrap());
    let at = |n: usize| json!({ "op": "in", "path": ["n"], "values": [n.to_string()] });
    assert_eq!(ids(&collection, &[1.0, 0.0, 0.1, 0.0], 5, filter(at(1000))), ["01000"]);
    let even = json!({ "op": "in", "path": ["even"], "values": ["true"] });
    let found = ids(&collection, &[1.0, 0.0, 0.1, 0.0], 300, filter(even.clone()));
    assert_eq!(found.len(), 300);
    assert_eq!(collection.count(filter(even.clone()).as_ref()).unwrap(), 1000);
    assert_eq!(collection.delete(&[], filter(even).as_ref(), &Cancel::default()).unwrap(), 1000);
    assert_eq!(collection.count(None).unwrap(), 1000);
}

#[test]
fn what_is_refused_leaves_no_trace() {
    let collection = opened(None);
    put(&collection, &circle(5));
    let wrong = [draft("new", &[1.0; 4], json!({})), draft("short", &[1.0; 3], json!({}))];
    let put = |drafts: &[Draft], made_with: &MadeWith| collection.put(drafts, &[], made_with, &Cancel::default());
    assert!(put(&wrong, &MadeWith::default()).unwrap_err().to_string().contains("\"short\" has 3 values"));
    assert!(put(&[draft("nan", &[f32::NAN, 1.0, 1.0, 1.0], json!({}))], &MadeWith::default()).is_err());
    let other = MadeWith { model: "m".to_owned(), fingerprint: "f".to_owned(), dimensions: 4 };
    assert_eq!(put(&circle(1), &other).unwrap_err().code(), "INVALID_CONFIG");
    assert_eq!(collection.count(None).unwrap(), 5);
}

#[test]
fn damage_is_told_and_other_files_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    put(&opened(Some(&path)), &circle(400));
    let whole = std::fs::read(&path).unwrap();
    let mut told = 0;
    for at in (100..whole.len()).step_by(4001) {
        let mut bytes = whole.clone();
        for byte in &mut bytes[at..(at + 64).min(whole.len())] {
            *byte ^= 0x55;
        }
        std::fs::write(&path, &bytes).unwrap();
        let collection = Collection::new(Some(path.clone()));
        let search = Search { vector: vec![1.0, 0.0, 0.1, 0.0], limit: 400, min_score: -1.0, filter: None };
        let opened = collection.open(&MadeWith::default(), &Cancel::default());
        match opened.and_then(|_| collection.query(&search, &MadeWith::default(), &Cancel::default())) {
            Ok(found) => assert_eq!(found.len(), 400),
            Err(error) => {
                told += 1;
                assert_eq!(error.code(), "CACHE_STORAGE_FAILED", "{error}");
            }
        }
    }
    assert!(told > 5, "{told}");
    std::fs::write(&path, "no database, but some text that somebody wrote, long enough to be one".repeat(20)).unwrap();
    let error = Collection::new(Some(path.clone())).open(&MadeWith::default(), &Cancel::default()).unwrap_err();
    assert_eq!(error.code(), "CACHE_STORAGE_FAILED");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("no database"));
}

#[test]
fn another_model_replaces_all_vectors_or_none() {
    let collection = opened(None);
    put(&collection, &circle(600));
    let made_with = MadeWith { model: "other".to_owned(), fingerprint: "f".to_owned(), dimensions: 2 };
    let rows: Vec<i64> = collection.page(0, 1000).unwrap().iter().map(|record| record.row).collect();
    let few: Vec<(i64, Vec<f32>)> = rows[1..].iter().map(|row| (*row, vec![1.0, *row as f32])).collect();
    assert!(collection.rebuild(&made_with, &few, &Cancel::default()).is_err());
    let all: Vec<(i64, Vec<f32>)> = rows.iter().map(|row| (*row, vec![1.0, *row as f32])).collect();
    collection.rebuild(&made_with, &all, &Cancel::default()).unwrap();
    let search = Search { vector: vec![1.0, 1.0], limit: 1, min_score: -1.0, filter: None };
    let found = collection.query(&search, &made_with, &Cancel::default()).unwrap();
    assert_eq!((found[0].1.draft.id.as_str(), found[0].0), ("00000", 1.0));
}

#[test]
fn metadata_that_cannot_be_read_is_told_and_deletes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let collection = opened(Some(&path));
    put(&collection, &[draft("deep", &[1.0, 2.0], json!({})), draft("other", &[1.0, 2.0], json!({ "a": 1 }))]);
    // As an earlier release has kept it.
    let deep = format!("{}1{}", "{\"a\":".repeat(150), "}".repeat(150));
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE entries SET metadata = ? WHERE id = 'deep'", [deep]).unwrap();
    let not = json!({ "op": "not", "of": { "op": "in", "path": ["a"], "values": ["1"] } });
    let filter = Filter::read(&not.to_string()).unwrap();
    let error = collection.count(Some(&filter)).unwrap_err();
    assert!(error.code() == "CACHE_STORAGE_FAILED" && error.to_string().contains("\"deep\" is nested 150"), "{error}");
    assert!(collection.delete(&[], Some(&filter), &Cancel::default()).is_err());
    assert_eq!(collection.count(None).unwrap(), 2);
    let deep = format!("{}1{}", "{\"a\":".repeat(101), "}".repeat(101));
    let refused = Draft { metadata: deep, ..draft("new", &[1.0, 2.0], json!({})) };
    let error = collection.put(&[refused], &[], &MadeWith::default(), &Cancel::default()).unwrap_err();
    assert_eq!(error.code(), "INVALID_ARGUMENT");
}

#[test]
fn what_is_no_json_is_refused() {
    for metadata in ["{\"a\":\"\\é\\ud800\"}", "{\"\\\u{fffd}ud\u{fffd}ff\\udfff\"}", "\\ud800\\"] {
        assert!(metadata::read(metadata).is_err(), "{metadata}");
    }
}
