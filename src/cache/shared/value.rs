//! An entry as a server keeps it: what is believed of a value is what was written for the key that was asked for.
//!
//! | bytes | |
//! |---|---|
//! | 4 | `ecv1`: what this is |
//! | 8 | checksum: the same as that of a row on disk |
//! | 8 | the space |
//! | 8 + 8 | when it was made and when it expires, in ms of the server's clock |
//! | 1 | format of the vector |
//! | 1 + 32 | whether a content's SHA-256 follows, and that |
//! | 4 + n | kind and tags |
//! | 4 + n | note |
//! | n | vector |
//!
//! All numbers are little-endian. Times are the server's: the clocks of machines may be hours apart.

use super::super::entry::{Entry, NEVER};
use super::super::selection::Selection;
use super::super::store::{Checked, decode as decode_vector, encode as encode_vector};
use crate::embedding::Key;

const MAGIC: &[u8; 4] = b"ecv1";

/// Bytes in front of the kind.
const HEAD: usize = 4 + 8 + 8 + 16 + 1 + 1;

/// Bytes of a value that say whether a [`Selection`] covers it, in nearly all cases.
pub(super) const LABELLED: usize = 512;

/// What a value says.
#[derive(Debug, PartialEq)]
pub(super) enum Read {
    /// An entry, with times of this machine's clock.
    Entry(Entry),
    Expired,
    /// Not what was written for this key.
    Damaged,
}

/// What time it is: here, and at the server.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Times {
    pub wall_ms: u64,
    pub server_ms: u64,
}

impl Times {
    /// What this machine calls a moment of the server's clock.
    pub fn here(self, server_ms: u64) -> u64 {
        match server_ms {
            NEVER.. => NEVER,
            _ => (self.wall_ms.saturating_add(server_ms)).saturating_sub(self.server_ms).min(NEVER - 1),
        }
    }

    /// What the server calls a moment of this machine's clock.
    pub fn there(self, wall_ms: u64) -> u64 {
        match wall_ms {
            NEVER.. => NEVER,
            _ => (self.server_ms.saturating_add(wall_ms)).saturating_sub(self.wall_ms).min(NEVER - 1),
        }
    }
}

/// The value of an entry.
pub(super) fn encode(key: &Key, entry: &Entry, times: Times) -> Vec<u8> {
    let (format, vector) = encode_vector(&entry.vector);
    let stored = (times.there(entry.created_ms), times.there(entry.expires_ms));
    let checksum = Checked { key, entry, times: stored, format, bytes: &vector }.checksum();
    let content = entry.content.as_ref().map_or(&[][..], |hash| &hash[..]);
    let mut value = Vec::with_capacity(HEAD + content.len() + 8 + entry.payload_bytes());
    value.extend_from_slice(MAGIC);
    value.extend_from_slice(&checksum.to_le_bytes());
    value.extend_from_slice(&entry.space.to_le_bytes());
    value.extend_from_slice(&stored.0.to_le_bytes());
    value.extend_from_slice(&stored.1.to_le_bytes());
    value.push(format as u8);
    value.push(u8::from(entry.content.is_some()));
    value.extend_from_slice(content);
    for part in [entry.kind.as_bytes(), &entry.note] {
        value.extend_from_slice(&(part.len() as u32).to_le_bytes());
        value.extend_from_slice(part);
    }
    value.extend_from_slice(&vector);
    value
}

/// The entry of a value that was kept under `key`.
pub(super) fn decode(key: &Key, value: &[u8], times: Times) -> Read {
    whole(key, value, times).unwrap_or(Read::Damaged)
}

fn whole(key: &Key, value: &[u8], times: Times) -> Option<Read> {
    let mut rest = Rest(value);
    let head = Head::read(&mut rest)?;
    let kind = rest.text()?;
    let note = rest.sized()?;
    let vector = decode_vector(head.format, rest.0)?;
    let entry = Entry {
        space: head.space,
        kind: kind.into(),
        content: head.content,
        vector,
        note: note.into(),
        created_ms: times.here(head.created_ms).min(times.wall_ms),
        expires_ms: times.here(head.expires_ms),
    };
    let stored = (head.created_ms, head.expires_ms);
    let checked = Checked { key, entry: &entry, times: stored, format: head.format, bytes: rest.0 };
    if checked.checksum() != head.checksum {
        return None;
    }
    Some(if entry.live(times.wall_ms) { Read::Entry(entry) } else { Read::Expired })
}

/// Whether a selection covers a value, of which `start` are the first bytes. `None`: more of it has to be read.
pub(super) fn covers(selection: &Selection, start: &[u8], times: Times) -> Option<bool> {
    let mut rest = Rest(start);
    let Some(head) = Head::read(&mut rest) else { return Some(false) };
    let kind = match rest.text() {
        Some(kind) => kind,
        None if start.len() < LABELLED => return Some(false),
        None => return None,
    };
    let entry = Entry {
        space: head.space,
        kind: kind.into(),
        content: None,
        vector: super::super::entry::Vector::F32(Box::default()),
        note: Box::default(),
        created_ms: times.here(head.created_ms),
        expires_ms: times.here(head.expires_ms),
    };
    Some(selection.covers(&entry))
}

struct Head {
    checksum: i64,
    space: i64,
    created_ms: u64,
    expires_ms: u64,
    format: i64,
    content: Option<[u8; 32]>,
}

impl Head {
    fn read(rest: &mut Rest) -> Option<Self> {
        if rest.take::<4>()? != *MAGIC {
            return None;
        }
        let checksum = i64::from_le_bytes(rest.take()?);
        let space = i64::from_le_bytes(rest.take()?);
        let created_ms = u64::from_le_bytes(rest.take()?);
        let expires_ms = u64::from_le_bytes(rest.take()?);
        let [format, has_content] = rest.take()?;
        let content = match has_content {
            0 => None,
            1 => Some(rest.take()?),
            _ => return None,
        };
        Some(Self { checksum, space, created_ms, expires_ms, format: format.into(), content })
    }
}

/// What is left of a value.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(self.take()?) as usize;
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.sized()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::cache::entry::{Draft, Precision};
    use crate::embedding::Space;

    const HERE: Times = Times { wall_ms: 1_700_000_000_000, server_ms: 1_700_000_000_000 };

    fn made(vector: &[f32], note: &[u8], kind: &str, ttl: Option<Duration>) -> (Key, Entry) {
        let space = Space::builder().field("n", "1").finish();
        let vector = (!vector.is_empty()).then_some(vector);
        let entry = Draft { vector, note, kind, ttl, ..Draft::default() }.entry(
            &space,
            Some([7; 32]),
            Precision::F32,
            HERE.wall_ms,
            None,
        );
        (space.key().field("k", "1").finish(), entry)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_nothing_else(
            vector in prop::collection::vec(-1f32..1.0, 0..20), note in prop::collection::vec(any::<u8>(), 0..30),
            kind in ".{0,5}", at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<prop::sample::Index>(),
        ) {
            let (key, entry) = made(&vector, &note, &kind, None);
            let value = encode(&key, &entry, HERE);
            prop_assert_eq!(decode(&key, &value, HERE), Read::Entry(entry.clone()));
            let mut flipped = value.clone();
            *at.get_mut(&mut flipped) ^= 1 << bit;
            prop_assert_eq!(decode(&key, &flipped, HERE), Read::Damaged);
            prop_assert_eq!(decode(&key, &value[..cut.index(value.len())], HERE), Read::Damaged);
            prop_assert_eq!(decode(&key, &[&value[..], b"\0"].concat(), HERE), Read::Damaged);
            let other = Space::builder().finish().key().finish();
            prop_assert_eq!(decode(&other, &value, HERE), Read::Damaged);
        }
    }

    #[test]
    fn an_entry_ages_by_the_clock_of_the_server() {
        let hour = 3_600_000;
        // One machine is an hour ahead of the server, the other an hour behind.
        let writer = Times { wall_ms: HERE.wall_ms + hour, ..HERE };
        let (key, mut entry) = made(&[1.0], b"", "", Some(Duration::from_secs(60)));
        (entry.created_ms, entry.expires_ms) = (writer.wall_ms, writer.wall_ms + 60_000);
        let value = encode(&key, &entry, writer);
        let reader = |after: u64| Times { wall_ms: HERE.wall_ms - hour + after, server_ms: HERE.server_ms + after };
        let Read::Entry(read) = decode(&key, &value, reader(10_000)) else { panic!("it is an answer") };
        assert_eq!(read.expires_ms, HERE.wall_ms - hour + 60_000);
        assert_eq!(decode(&key, &value, reader(60_000)), Read::Expired);
        let (key, forever) = made(&[1.0], b"", "", None);
        let Read::Entry(read) = decode(&key, &encode(&key, &forever, writer), reader(0)) else { panic!("it is one") };
        assert_eq!(read.expires_ms, NEVER);
    }

    #[test]
    fn the_start_of_a_value_says_whether_it_is_meant() {
        let (key, entry) = made(&[1.0; 500], b"note", "api", None);
        let value = encode(&key, &entry, HERE);
        let start = &value[..LABELLED];
        let of = |selection: Selection| covers(&selection, start, HERE);
        assert_eq!(of(Selection::default().of(entry.space)), Some(true));
        assert_eq!(of(Selection::default().of(entry.space + 1)), Some(false));
        assert_eq!(of(Selection::default().kind("api")), Some(true));
        assert_eq!(of(Selection::default().kind("other")), Some(false));
        assert_eq!(covers(&Selection::default(), b"somebody else's", HERE), Some(false));
        let (key, labelled) = made(&[], b"", &"x".repeat(1000), None);
        assert_eq!(covers(&Selection::default(), &encode(&key, &labelled, HERE)[..LABELLED], HERE), None);
    }
}
