//! What a cache keeps: one entry, and how it is checked on its way in.

use std::time::Duration;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::embedding::Space;
use crate::error::{Error, Result};

/// Largest entry that any tier takes, in bytes of vector and note. An embedding has some kilobytes; what comes near
/// this is a mistake, and one value must not push out everything else.
pub const MAX_ENTRY_BYTES: usize = 64 << 20;

/// The `expires_ms` of entries that stay until they are evicted. SQLite's largest integer.
pub const NEVER: u64 = i64::MAX as u64;

/// How far two looks at the machine's clock may disagree before its owner must have set it. Beyond this, an entry from
/// the future has an age that nobody knows.
pub(super) const CLOCK_SLACK_MS: u64 = 60_000;

/// How values are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they came, bit for bit.
    #[default]
    F32,
    /// In half the space, with 11 bits of mantissa: a relative error of at most 2⁻¹¹ in values of usual size. A vector
    /// with a value beyond ±65504, which f16 cannot tell from infinity, is kept as [`Precision::F32`].
    F16,
}

/// The values of an entry, as they are stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Vector {
    /// See [`Precision::F32`].
    F32(Box<[f32]>),
    /// See [`Precision::F16`].
    F16(Box<[f16]>),
}

impl Vector {
    /// The values as they are kept.
    pub fn pack(values: &[f32], precision: Precision) -> Self {
        let fits = || values.iter().all(|value| value.abs() <= f16::MAX.to_f32());
        if precision == Precision::F32 || !fits() {
            return Self::F32(values.into());
        }
        let mut packed = vec![f16::ZERO; values.len()];
        packed.convert_from_f32_slice(values);
        Self::F16(packed.into())
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }

    /// Whether the entry has no vector, only a note.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the values take.
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => size_of_val::<[f32]>(values),
            Self::F16(values) => size_of_val::<[f16]>(values),
        }
    }

    /// Writes the values to `out`.
    ///
    /// # Panics
    /// When `out` is not [`Vector::len`] long.
    pub fn copy_to(&self, out: &mut [f32]) {
        match self {
            Self::F32(values) => out.copy_from_slice(values),
            Self::F16(values) => values.convert_to_f32_slice(out),
        }
    }

    /// The values.
    pub fn to_vec(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.len()];
        self.copy_to(&mut values);
        values
    }
}

/// What one key stands for. Never changes: another value for the same key is another entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// [`Space::id`] of the space that it belongs to.
    pub space: i64,
    /// Its type, for clearing by type; may be empty.
    pub kind: Box<str>,
    /// SHA-256 of the content that it was made from, if lookups shall check that and the disk needs it.
    pub content: Option<[u8; 32]>,
    /// The embedding; may be empty.
    pub vector: Vector,
    /// What else is kept; may be empty.
    pub note: Box<[u8]>,
    /// When it was made, in ms since 1970.
    pub created_ms: u64,
    /// From when on it is no longer an answer, in ms since 1970.
    pub expires_ms: u64,
}

impl Entry {
    /// Bytes of vector, note and kind: what the tiers count, with their own overhead on top.
    pub fn payload_bytes(&self) -> usize {
        self.vector.bytes() + self.note.len() + self.kind.len()
    }

    /// Whether it answers at `wall_ms`. An entry that will expire, from a clock that was ahead, does not: its age is
    /// unknown, and believing its times could make it live for years.
    pub(super) fn live(&self, wall_ms: u64) -> bool {
        live(self.created_ms, self.expires_ms, wall_ms)
    }

    /// Whether it was made from this content. Without a content to compare with, any will do.
    pub(super) fn matches(&self, content: Option<&[u8; 32]>) -> bool {
        content.is_none() || self.content.as_ref() == content
    }
}

/// See [`Entry::live`].
pub(super) fn live(created_ms: u64, expires_ms: u64, wall_ms: u64) -> bool {
    let from_the_future = created_ms > wall_ms.saturating_add(CLOCK_SLACK_MS);
    expires_ms >= NEVER || (wall_ms < expires_ms && !from_the_future)
}

/// An entry as a caller hands it in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Draft<'a> {
    /// The embedding; `None` for entries that are only a note.
    pub vector: Option<&'a [f32]>,
    /// Anything else to keep.
    pub note: &'a [u8],
    /// A type, for clearing by type.
    pub kind: &'a str,
    /// How long it is an answer; `None` takes the cache's default.
    pub ttl: Option<Duration>,
    /// How long ago the work on it began, if it was computed: what others have written since then stays.
    pub age: Option<Duration>,
}

impl Draft<'_> {
    /// Refuses what must not get into any tier.
    pub(super) fn check(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::InvalidArgument(message));
        if let Some(vector) = self.vector {
            if vector.is_empty() {
                return invalid("The embedding has no values: pass at least one".to_owned());
            }
            if let Some(at) = vector.iter().position(|value| !value.is_finite()) {
                return invalid(format!("The embedding has {} at position {at}, not a finite number", vector[at]));
            }
        }
        let bytes = self.vector.map_or(0, size_of_val::<[f32]>) + self.note.len() + self.kind.len();
        if bytes > MAX_ENTRY_BYTES {
            return invalid(format!("The entry has {bytes} bytes, more than the limit of {MAX_ENTRY_BYTES} bytes"));
        }
        Ok(())
    }

    pub(super) fn entry(
        &self,
        space: &Space,
        content: Option<[u8; 32]>,
        precision: Precision,
        created_ms: u64,
        default_ttl: Option<Duration>,
    ) -> Entry {
        let lifetime = self.ttl.or(default_ttl).map_or(NEVER, |ttl| ttl.as_millis().min(NEVER.into()) as u64);
        Entry {
            space: space.id(),
            kind: self.kind.into(),
            content,
            vector: Vector::pack(self.vector.unwrap_or_default(), precision),
            note: self.note.into(),
            created_ms,
            expires_ms: created_ms.saturating_add(lifetime).min(NEVER),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn f16_keeps_values_within_its_precision(values in prop::collection::vec(-70_000f32..70_000.0, 1..100)) {
            let packed = Vector::pack(&values, Precision::F16);
            let beyond = values.iter().any(|value| value.abs() > 65504.0);
            prop_assert_eq!(matches!(packed, Vector::F32(_)), beyond);
            for (value, back) in values.iter().zip(packed.to_vec()) {
                prop_assert!((value - back).abs() <= value.abs().max(1e-4) / 2048.0, "{} {}", value, back);
            }
            prop_assert_eq!(Vector::pack(&values, Precision::F32).to_vec(), values);
        }
    }

    #[test]
    fn an_entry_lives_from_its_making_to_its_end_and_not_under_another_clock() {
        let draft = Draft { ttl: Some(Duration::from_secs(3600)), ..Draft::default() };
        let entry = draft.entry(&Space::builder().finish(), None, Precision::F32, 1_000_000_000, None);
        let lives = [(0i64, true), (3_599_999, true), (3_600_000, false), (-30_000, true), (-61_000, false)];
        for (offset, lives) in lives {
            assert_eq!(entry.live(1_000_000_000u64.wrapping_add_signed(offset)), lives, "{offset}");
        }
        let forever = Draft::default().entry(&Space::builder().finish(), None, Precision::F32, 1_000_000_000, None);
        assert!(forever.live(0) && forever.live(u64::MAX));
    }

    #[test]
    fn unusable_entries_are_refused_with_value_and_limit() {
        let refused = |draft: Draft| draft.check().unwrap_err().to_string();
        assert!(refused(Draft { vector: Some(&[]), ..Draft::default() }).contains("no values"));
        assert!(refused(Draft { vector: Some(&[0.0, f32::NAN]), ..Draft::default() }).contains("NaN at position 1"));
        assert!(refused(Draft { vector: Some(&[f32::INFINITY]), ..Draft::default() }).contains("inf at position 0"));
        let note = vec![0; MAX_ENTRY_BYTES + 1];
        assert!(refused(Draft { note: &note, ..Draft::default() }).contains("67108865 bytes"));
        assert_eq!(Draft { note: &note[1..], ..Draft::default() }.check(), Ok(()));
    }
}
