//! The values that flow through the house: vectors, their role, and the space that they live in.

use std::fmt;

use sha2::{Digest, Sha256};

/// Row-major vectors: row `i` is `data[i * dimensions..][..dimensions]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmbeddingMatrix {
    /// `rows × dimensions` values.
    pub data: Vec<f32>,
    /// Number of vectors.
    pub rows: usize,
    /// Length of each vector.
    pub dimensions: usize,
}

impl EmbeddingMatrix {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, dimensions: usize) -> Self {
        Self { data: vec![0.0; rows * dimensions], rows, dimensions }
    }

    /// The vector at `row`.
    ///
    /// # Panics
    /// When `row` is not below `rows`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.dimensions..][..self.dimensions]
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.dimensions..][..self.dimensions]
    }
}

/// What a text is to a search: the thing that is found or the words that find it.
///
/// Models trained for search embed the two differently, by a prompt put before the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum InputType {
    /// A text that is stored and found.
    #[default]
    Document,
    /// A text that searches.
    Query,
}

impl InputType {
    /// The spelling in options and keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::Query => "query",
        }
    }
}

/// One text as the model reads it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tokens {
    /// Token ids with the model's special tokens; at most the tokenizer's maximum length.
    pub ids: Vec<u32>,
    /// Segment ids, where they are not all zero.
    pub type_ids: Option<Vec<u32>>,
    /// Tokens of the whole text, special tokens included, before anything was cut off.
    pub total: usize,
    /// How many of `ids` the tokenizer adds to every text.
    pub special: usize,
    /// How many of `ids` stand for text that the vocabulary does not know.
    pub unknown: usize,
}

impl Tokens {
    /// Whether the model does not see the whole text.
    pub fn truncated(&self) -> bool {
        self.total > self.ids.len()
    }

    /// Share of the text's own tokens that the model sees and knows, 0–1.
    pub fn confidence(&self) -> f64 {
        let all = self.total.saturating_sub(self.special);
        let known = self.ids.len().saturating_sub(self.special + self.unknown);
        if all == 0 { 0.0 } else { known as f64 / all as f64 }
    }
}

/// Identifies an embedding space: two vectors may be compared, and one cache entry may answer for the other, only if
/// their fingerprints are equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Starts a fingerprint.
    pub fn builder() -> FingerprintBuilder {
        FingerprintBuilder(Sha256::new_with_prefix(b"embedcore/space/v1\0"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Collects the fields of a [`Fingerprint`].
///
/// Name and value are both length-prefixed: no two different lists of fields give the same bytes.
pub struct FingerprintBuilder(Sha256);

impl FingerprintBuilder {
    /// Adds one field.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        for part in [name.as_bytes(), value.as_ref()] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// The fingerprint of all fields added so far.
    pub fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fingerprint(fields: &[(String, Vec<u8>)]) -> Fingerprint {
        fields.iter().fold(Fingerprint::builder(), |builder, (name, value)| builder.field(name, value)).finish()
    }

    proptest! {
        #[test]
        fn different_fields_never_meet(
            a in prop::collection::vec((".{0,3}", prop::collection::vec(any::<u8>(), 0..3)), 0..4),
            b in prop::collection::vec((".{0,3}", prop::collection::vec(any::<u8>(), 0..3)), 0..4),
        ) {
            prop_assert_eq!(a == b, fingerprint(&a) == fingerprint(&b));
        }

        #[test]
        fn a_moved_boundary_is_another_space(text in "[a-z]{2,12}", cut in 0usize..12) {
            let cut = cut % text.len();
            let split = Fingerprint::builder().field(&text[..cut], &text[cut..]).finish();
            let whole = Fingerprint::builder().field(&text, "").finish();
            prop_assert_ne!(split, whole);
        }
    }
}
