//! Whole files of SQLite: written by us, damaged, read again. What is read is what was written, or it is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use embedcore::cache::{CacheOptions, Draft, EmbeddingCache};
use embedcore::cancel::Cancel;
use embedcore::collection::{self, Collection, MadeWith};
use embedcore::embedding::{Key, Space};
use embedcore::index;

use crate::input::Input;
use crate::places;

/// The bytes of a file and of its log.
type Files = [Vec<u8>; 2];

/// Two states: with a log, and without.
type States = [Files; 2];

fn log(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

fn files(path: &Path) -> Files {
    [path.to_owned(), log(path)].map(|file| fs::read(file).unwrap_or_default())
}

/// The file as it is after the damage that `data` says: patches of the file or its log, and where they end.
fn damaged(place: &str, states: &States, data: &[u8]) -> PathBuf {
    let mut input = Input(data);
    let flags = input.byte();
    let mut files = states[usize::from(flags & 1)].clone();
    if flags & 2 != 0 {
        let file = &mut files[usize::from(flags >> 2 & 1)];
        file.truncate(input.number() as usize % (file.len() + 1));
    }
    while !input.0.is_empty() {
        let at = input.bytes(4).iter().fold(0usize, |at, byte| at << 8 | usize::from(*byte));
        let file = &mut files[at >> 31 & 1];
        let length = input.byte() % 24;
        let patch = input.bytes(length.into());
        let at = (at & 0x7fff_ffff) % (file.len() + 1);
        for (byte, new) in file[at..].iter_mut().zip(patch) {
            *byte = *new;
        }
    }
    let path = places::empty(place).join("file.db");
    fs::write(&path, &files[0]).expect("a file");
    if !files[1].is_empty() {
        fs::write(log(&path), &files[1]).expect("a log");
    }
    path
}

const ENTRIES: usize = 24;

fn space() -> Space {
    Space::builder().field("fuzz", "1").finish()
}

fn key(n: usize) -> Key {
    space().key().field("n", n.to_string()).finish()
}

fn vector(n: usize) -> Vec<f32> {
    (0..16).map(|i| (n * 16 + i) as f32).collect()
}

fn note(n: usize) -> Vec<u8> {
    // One of them takes more than a page.
    vec![n as u8; if n == 5 { 20_000 } else { n * 7 }]
}

fn open(path: &Path) -> EmbeddingCache {
    let options = CacheOptions { path: Some(path.to_owned()), ..CacheOptions::default() };
    EmbeddingCache::open(options).expect("a cache, whatever its file is")
}

fn put(cache: &EmbeddingCache, n: usize) {
    let (vector, note) = (vector(n), note(n));
    let draft = Draft { vector: Some(&vector), note: &note, kind: "kind", ..Draft::default() };
    cache.commit(&space(), key(n), &draft).expect("an entry that fits");
}

static CACHE: LazyLock<States> = LazyLock::new(|| {
    let path = places::empty("cache-base").join("file.db");
    let cache = open(&path);
    (0..ENTRIES).for_each(|n| put(&cache, n));
    cache.flush().expect("a file that takes it");
    cache.delete(key(3)).expect("a deletion");
    let with_log = files(&path);
    cache.close();
    [with_log, files(&path)]
});

/// The file of a cache.
pub fn cache(data: &[u8]) {
    let path = damaged("cache", &CACHE, data);
    let cache = open(&path);
    let check = |cache: &EmbeddingCache, n: usize| {
        let Some(entry) = cache.lookup(key(n)) else { return false };
        assert_eq!((entry.vector.to_vec(), &*entry.note), (vector(n), &note(n)[..]), "entry {n} is wrong");
        true
    };
    for n in 0..ENTRIES {
        check(&cache, n);
    }
    // It works on, file or not.
    put(&cache, ENTRIES);
    assert!(check(&cache, ENTRIES));
    cache.delete(key(1)).ok();
    assert!(!check(&cache, 1), "what was deleted is there");
    cache.flush().ok();
    cache.close();
    drop(cache);
    let again = open(&path);
    for n in 0..=ENTRIES {
        check(&again, n);
    }
    again.close();
}

fn made_with() -> MadeWith {
    MadeWith { model: "m".into(), fingerprint: "f".into(), dimensions: 16 }
}

fn draft(n: usize) -> collection::Draft {
    collection::Draft {
        id: format!("id{n}"),
        text: Some(format!("text {n}")),
        metadata: format!("{{\"n\":{n}}}"),
        document: (n > 12).then(|| "document".to_owned()),
        place: None,
        vector: vector(n + 1),
    }
}

static COLLECTION: LazyLock<States> = LazyLock::new(|| {
    let path = places::empty("collection-base").join("file.db");
    let (collection, cancel) = (Collection::new(Some(path.clone())), Cancel::default());
    collection.open(&made_with(), &cancel).expect("a collection");
    let drafts: Vec<_> = (0..ENTRIES).map(draft).collect();
    collection.put(&drafts, &[("document".to_owned(), vec![7; 32])], &made_with(), &cancel).expect("entries");
    let with_log = files(&path);
    collection.close();
    [with_log, files(&path)]
});

/// The file of a collection.
pub fn collection(data: &[u8]) {
    let path = damaged("collection", &COLLECTION, data);
    let (collection, cancel) = (Collection::new(Some(path)), Cancel::default());
    if collection.open(&made_with(), &cancel).is_err() {
        return;
    }
    let check = |record: collection::Record| {
        let n: usize = record.draft.id.strip_prefix("id").and_then(|n| n.parse().ok()).expect("an id of ours");
        assert_eq!(record.draft, draft(n), "entry {n} is wrong");
    };
    let ids: Vec<String> = (0..ENTRIES).map(|n| format!("id{n}")).collect();
    collection.get(&ids).into_iter().flatten().flatten().for_each(check);
    let search = collection::Search { vector: vector(4), limit: 5, min_score: -1.0, filter: None };
    for (_, record) in collection.query(&search, &made_with(), &cancel).into_iter().flatten() {
        check(record);
    }
    collection.page(0, 100).into_iter().flatten().for_each(check);
    collection.of_document("document").into_iter().flatten().for_each(check);
    collection.put(&[draft(3)], &[], &made_with(), &cancel).ok();
    collection.delete(&["id2".to_owned()], None, &cancel).ok();
    collection.close();
}

static INDEX: LazyLock<States> = LazyLock::new(|| {
    let path = places::empty("index-base").join("file.db");
    index::fuzzing::write(&path);
    let closed = files(&path);
    [closed.clone(), closed]
});

/// The file of an index.
pub fn index(data: &[u8]) {
    // Where only indexes lie, each of them may be removed to be built anew.
    index::fuzzing::read(&damaged("index/.embedcore", &INDEX, data));
}

/// Places that are worth a look: the header, and where pages begin.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], vec![1], vec![2, 0, 32], vec![6, 0, 8], vec![3, 100]];
    for log in [0, 0x80] {
        for page in 0..8u32 {
            for within in [0, 16, 24, 40, 100] {
                let at = (page * 8192 + within).to_be_bytes();
                seeds.push(vec![log >> 7 ^ 1, at[0] | log, at[1], at[2], at[3], 4, 0xff, 0, 1, 2]);
            }
        }
    }
    seeds
}
