//! What entries are called in memory: 128 bits of a keyed hash, many times cheaper than the SHA-256 of keys on disk.
//!
//! Two entries with one name would answer for each other, and two contents with one hash would pass for the same. The
//! hash is HighwayHash, which its authors made as a keyed pseudo-random function, and its key is drawn when the process
//! starts and never leaves it; neither do its hashes. Whoever does not know the key cannot do better than to guess, and
//! for 2³² names (more than any memory holds) the chance that any two are equal is below 2⁻⁶⁴. XXH3 would take half the
//! time, but beyond 240 bytes its collisions can be provoked without knowing the secret: the highest bit of one word,
//! changed in two stripes that follow each other, cancels out for about one in 2³² secrets. SipHash is as safe, and slower
//! on contents of some hundred bytes.
//!
//! What outlives the process, or is shared with another one, has a [`Key`] and a SHA-256 of its content. Both are
//! computed only when the disk is asked or written.

use std::array;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use highway::{HighwayHash, HighwayHasher};

use crate::embedding::{Key, Modality, Space, content_hash};

/// What an entry, or a content, is called in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyHash([u64; 2]);

impl KeyHash {
    fn of(begun: HighwayHasher, bytes: &[u8]) -> Self {
        Self(begun.hash128(bytes))
    }

    /// For the hash map.
    pub fn short(self) -> u64 {
        self.0[0]
    }

    /// Bits that the hash map does not use.
    pub fn other(self) -> u64 {
        self.0[1]
    }
}

fn hasher() -> HighwayHasher {
    static SECRET: OnceLock<[u64; 4]> = OnceLock::new();
    HighwayHasher::new(highway::Key(*SECRET.get_or_init(|| {
        // SipHash under keys of the system's randomness, which the standard library seeds its maps with.
        let system = RandomState::new();
        array::from_fn(|i| system.hash_one(i))
    })))
}

/// KeyHasher what a space holds, by the strings that users know it by.
#[derive(Clone)]
pub struct KeyHasher {
    space: Space,
    field: &'static str,
    entries: HighwayHasher,
    contents: HighwayHasher,
}

impl KeyHasher {
    /// KeyHasher in `space`. The same string under another `field` is another entry.
    pub fn new(space: &Space, field: &'static str) -> Self {
        let mut entries = hasher();
        // 32 bytes each, so that no two lists of fields give the same bytes.
        for part in [space.key().finish(), space.key().field(field, b"").finish()] {
            entries.append(part.as_bytes());
        }
        Self { space: space.clone(), field, entries, contents: hasher() }
    }

    /// What they name the entries of.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// The key on disk of the entry of `key`.
    pub fn key(&self, key: &[u8]) -> Key {
        self.space.key().field(self.field, key).finish()
    }

    /// Asks for the entry of `key`. Where `content` is given, the entry must have been made from it.
    pub fn probe<'a>(&'a self, key: &'a [u8], content: Option<&'a [u8]>) -> Probe<'a> {
        Probe {
            name: KeyHash::of(self.entries.clone(), key),
            content: content.map(|content| KeyHash::of(self.contents.clone(), content)),
            modality: self.space.modality(),
            fixed: false,
            source: Source::Text { names: self, key, content },
        }
    }
}

/// Asks for an entry, or says which one is set.
///
/// An entry that was set by a string is found by that string, one that was set by a [`Key`] by that key: a space is to be
/// used in one of the two ways.
#[derive(Clone, Copy)]
pub struct Probe<'a> {
    name: KeyHash,
    content: Option<KeyHash>,
    modality: Modality,
    fixed: bool,
    source: Source<'a>,
}

/// Where an entry is put in memory, what it can be checked by, and among which it is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub name: KeyHash,
    pub content: Option<KeyHash>,
    pub modality: Modality,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Hashed(Key, Option<[u8; 32]>),
    Text { names: &'a KeyHasher, key: &'a [u8], content: Option<&'a [u8]> },
}

impl From<Key> for Probe<'_> {
    fn from(key: Key) -> Self {
        (key, None).into()
    }
}

/// A key, and the SHA-256 of the content that the entry must have been made from, if that matters.
impl From<(Key, Option<[u8; 32]>)> for Probe<'_> {
    fn from((key, content): (Key, Option<[u8; 32]>)) -> Self {
        let name = |hash: &[u8; 32]| KeyHash::of(hasher(), hash);
        Self {
            name: name(key.as_bytes()),
            content: content.as_ref().map(name),
            modality: Modality::Text,
            fixed: false,
            source: Source::Hashed(key, content),
        }
    }
}

impl Probe<'_> {
    /// Says what the entry of a [`Key`] was made from: a text, unless this says otherwise.
    #[must_use]
    pub fn of(self, modality: Modality) -> Self {
        Self { modality, ..self }
    }

    /// Says that all values that its key ever has are the same: nothing older has to be kept from answering for it.
    #[must_use]
    pub fn fixed(self) -> Self {
        Self { fixed: true, ..self }
    }

    pub(super) fn is_fixed(&self) -> bool {
        self.fixed
    }

    pub(super) fn modality(&self) -> Modality {
        self.modality
    }

    pub(super) fn place(&self) -> Place {
        Place { name: self.name, content: self.content, modality: self.modality }
    }

    pub(super) fn name(&self) -> KeyHash {
        self.name
    }

    /// What the content is called in memory, where there is one to be compared.
    pub(super) fn content(&self) -> Option<KeyHash> {
        self.content
    }

    /// The key on disk.
    pub(super) fn key(&self) -> Key {
        match self.source {
            Source::Hashed(key, _) => key,
            Source::Text { names, key, .. } => names.key(key),
        }
    }

    /// The content's hash on disk.
    pub(super) fn content_hash(&self) -> Option<[u8; 32]> {
        match self.source {
            Source::Hashed(_, hash) => hash,
            Source::Text { content, .. } => content.map(content_hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_equal_where_keys_are(
            spaces in prop::array::uniform2(0u8..2),
            fields in prop::array::uniform2(prop::sample::select(vec!["key", "node"])),
            texts in prop::array::uniform2(prop::collection::vec(0u8..2, 0..70)),
        ) {
            let names: Vec<KeyHasher> =
                (0..2).map(|i| KeyHasher::new(&Space::builder().field("n", [spaces[i]]).finish(), fields[i])).collect();
            let [a, b] = [0, 1].map(|i| names[i].probe(&texts[i], Some(&texts[i])));
            prop_assert_eq!(a.name() == b.name(), a.key() == b.key());
            prop_assert_eq!(a.content() == b.content(), texts[0] == texts[1]);
            prop_assert_eq!(a.content_hash() == b.content_hash(), texts[0] == texts[1]);
            prop_assert_ne!(a.name(), a.content().unwrap());
        }

        #[test]
        fn a_bit_of_a_text_changes_half_of_its_name(text in prop::collection::vec(any::<u8>(), 1..100), at in any::<prop::sample::Index>()) {
            let names = KeyHasher::new(&Space::builder().finish(), "key");
            let mut changed = text.clone();
            *at.get_mut(&mut changed) ^= 1;
            let [a, b] = [&text, &changed].map(|text| names.probe(text, None).name().0);
            // 64 expected; eight standard deviations around it.
            let changed: u32 = a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum();
            prop_assert!((19..=109).contains(&changed));
        }
    }

    #[test]
    fn a_key_on_disk_is_what_it_always_was() {
        let space = Space::builder().field("namespace", "n").finish();
        let names = KeyHasher::new(&space, "node");
        let probe = names.probe(b"k", Some(b"c"));
        assert_eq!(probe.key(), space.key().field("node", "k").finish());
        assert_eq!(probe.content_hash(), Some(content_hash(b"c")));
    }
}
