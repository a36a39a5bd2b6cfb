//! A result → the bytes of an entry, and back.

use std::ops::Range;
use std::sync::Arc;

use crate::cache::{Entry, NEVER, unlabel};

/// What the bytes of a value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON in UTF-8.
    Json,
    /// Themselves.
    Bytes,
    /// The same; whoever has set it knows them as a `Buffer`.
    Buffer,
}

impl Format {
    /// The number that stands for it. Never change one: files have it.
    pub fn number(self) -> u8 {
        match self {
            Self::Json => 1,
            Self::Bytes => 2,
            Self::Buffer => 3,
        }
    }

    /// The format that a number stands for.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Json, Self::Bytes, Self::Buffer].into_iter().find(|format| format.number() == number)
    }
}

/// The format, the length of the metadata, the metadata, the value.
pub(super) fn encode(format: Format, metadata: &[u8], value: &[u8]) -> Vec<u8> {
    [&[format.number()][..], &(metadata.len() as u32).to_le_bytes(), metadata, value].concat()
}

/// A result that was found. A view of the entry: nothing is copied until it is read.
#[derive(Debug, Clone)]
pub struct Stored {
    entry: Arc<Entry>,
    format: Format,
    metadata: Range<usize>,
}

impl Stored {
    /// `None` for what [`encode`] has not made.
    pub(super) fn of(entry: Arc<Entry>) -> Option<Self> {
        let (format, rest) = entry.note.split_first()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let format = Format::from_number(*format)?;
        let start = entry.note.len() - rest.len();
        (length <= rest.len()).then_some(Self { format, metadata: start..start + length, entry })
    }

    /// What the value is.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        &self.entry.note[self.metadata.end..]
    }

    /// JSON, or empty.
    pub fn metadata(&self) -> &[u8] {
        &self.entry.note[self.metadata.clone()]
    }

    /// Its tags.
    pub fn tags(&self) -> Vec<String> {
        unlabel(&self.entry.kind).1
    }

    /// When it was set, in ms since 1970.
    pub fn created_ms(&self) -> u64 {
        self.entry.created_ms
    }

    /// From when on it is no longer an answer, in ms since 1970; `None`: never.
    pub fn expires_ms(&self) -> Option<u64> {
        Some(self.entry.expires_ms).filter(|ms| *ms < NEVER)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::{Draft, EmbeddingCache};
    use crate::embedding::Space;

    fn stored(note: &[u8]) -> Option<Stored> {
        let cache = EmbeddingCache::open(Default::default()).unwrap();
        let space = Space::builder().finish();
        cache.commit(&space, space.key().finish(), &Draft { note, ..Draft::default() }).unwrap();
        Stored::of(cache.lookup(space.key().finish()).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_goes_in_comes_out(metadata: Vec<u8>, value: Vec<u8>, number in 1u8..=3) {
            let format = Format::from_number(number).unwrap();
            let stored = stored(&encode(format, &metadata, &value)).unwrap();
            prop_assert_eq!((stored.format(), stored.metadata(), stored.value()), (format, &metadata[..], &value[..]));
        }

        #[test]
        fn other_bytes_are_no_result_or_harmless(note: Vec<u8>) {
            if let Some(stored) = stored(&note) {
                prop_assert_eq!(5 + stored.metadata().len() + stored.value().len(), note.len());
            }
        }
    }
}
