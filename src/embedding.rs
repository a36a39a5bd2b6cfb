//! The values that flow through the house: vectors, their role, and the space that they live in.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::images::Image;

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

/// What a model is for, and so the kind of its values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Task {
    /// A vector for each input.
    #[default]
    Embedding,
    /// Scores for each pair of texts.
    Reranking,
    /// A sparse vector for each text.
    Sparse,
    /// A vector for each token of a text.
    MultiVector,
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Embedding, Self::Reranking, Self::Sparse, Self::MultiVector];

    /// The spelling in options and keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Reranking => "reranking",
            Self::Sparse => "sparse",
            Self::MultiVector => "multi-vector",
        }
    }
}

/// What a model makes of one input.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A vector, or a score for each label of a pair: as many values as the model has dimensions.
    Dense(Vec<f32>),
    /// Some of very many dimensions; the others are 0.
    Sparse(SparseVector),
    /// Vectors one after the other, one for each token that counts.
    Tokens(Vec<f32>),
}

/// Some of very many dimensions; the others are 0.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SparseVector {
    /// Which they are, in ascending order.
    pub indices: Vec<u32>,
    /// The value of each.
    pub values: Vec<f32>,
}

impl Value {
    /// The vectors of `rows`, all of one length.
    pub fn dense(data: &[f32], dimensions: usize) -> Vec<Self> {
        data.chunks_exact(dimensions.max(1)).map(|vector| Self::Dense(vector.to_vec())).collect()
    }

    /// All its numbers.
    pub fn numbers(&self) -> &[f32] {
        match self {
            Self::Dense(values) | Self::Tokens(values) => values,
            Self::Sparse(vector) => &vector.values,
        }
    }
}

impl Default for Value {
    fn default() -> Self {
        Self::Dense(Vec::new())
    }
}

/// What an embedding was made from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Modality {
    /// A text.
    #[default]
    Text,
    /// A picture.
    Image,
    /// A recording.
    Audio,
}

impl Modality {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Text, Self::Image, Self::Audio];

    /// The spelling in options and keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Audio => "audio",
        }
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

/// One input as the model reads it: the tokens of a text, most often.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// The text itself, where only the model knows its tokens: then nothing else here says anything.
    pub text: Option<String>,
    /// An image, which has no tokens: nothing else here says anything either. It is decoded by whoever runs the model, so
    /// that only as many are held in memory as run.
    pub image: Option<Arc<Image>>,
    /// Token ids with the model's special tokens; at most the tokenizer's maximum length.
    pub ids: Vec<u32>,
    /// Segment ids, where they are not all zero.
    pub type_ids: Option<Vec<u32>>,
    /// How many of `ids`, at the end, no other token attends to.
    pub unattended: usize,
    /// Which of `ids` have vectors that count, where not all do and each has one of its own.
    pub counted: Option<Vec<u32>>,
    /// Its role, for models that read the two differently.
    pub input_type: InputType,
    /// Tokens of the whole text, special tokens included, before anything was cut off.
    pub total: usize,
    /// How many of `ids` the tokenizer adds to every text.
    pub special: usize,
    /// How many of `ids` stand for text that the vocabulary does not know.
    pub unknown: usize,
    /// The id of such a one.
    pub unknown_id: Option<u32>,
    /// How many of `ids`, at the beginning, are a prompt that is read but not part of the text.
    pub prompt: usize,
}

/// Bytes of a text that has one token, at the least: prose has some more for each, code about as many.
const BYTES_PER_TOKEN: usize = 3;

/// Tokens that a model adds to a text.
const ADDED: usize = 2;

impl Tokens {
    /// A text whose tokens only the model knows.
    pub fn untold(text: String) -> Self {
        Self { text: Some(text), ..Self::default() }
    }

    /// An image.
    pub fn of_image(image: Arc<Image>) -> Self {
        Self { image: Some(image), ..Self::default() }
    }

    /// How much there is for the model to read, in tokens: roughly, and rather too many, where they are not known. All images
    /// weigh the same: they become equally large.
    pub fn weight(&self) -> usize {
        match (&self.text, &self.image) {
            (Some(text), _) => text.len().div_ceil(BYTES_PER_TOKEN) + ADDED,
            (None, Some(_)) => 1,
            (None, None) => self.ids.len(),
        }
    }

    /// Whether its number of tokens is known.
    pub fn is_counted(&self) -> bool {
        self.text.is_none() && self.image.is_none()
    }

    /// Bytes of memory that it takes before the model runs.
    pub fn working_bytes(&self) -> u64 {
        self.image.as_ref().map_or(0, |image| image.working_bytes)
    }

    /// Whether the model does not see the whole text.
    pub fn truncated(&self) -> bool {
        self.total > self.ids.len()
    }

    /// Share of the text's own tokens that the model sees and knows, 0–1.
    pub fn confidence(&self) -> f64 {
        let all = self.total.saturating_sub(self.special);
        let known = self.ids.len().min(self.total).saturating_sub(self.special + self.unknown);
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
        Fields::new(b"embedcore/space/v1\0")
    }

    /// One that was shown: 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
        let digits = text.as_bytes().iter().map(digit).collect::<Option<Vec<u8>>>()?;
        let (pairs, rest) = digits.as_chunks();
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        if rest.is_empty() { bytes.try_into().ok().map(Self) } else { None }
    }

    /// The fingerprint itself, as a field of something else.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
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
pub type FingerprintBuilder = Fields<Fingerprint>;

/// Identifies one cache entry: a SHA-256, so that no two entries of any caches on one file ever meet.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The 32 bytes under which the entry is stored.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Eight of the bytes: as good as any hash of the key, for it is one.
    pub(crate) fn short(&self) -> u64 {
        first_eight(&self.0)
    }
}

impl From<[u8; 32]> for Key {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:016x}…)", self.short().swap_bytes())
    }
}

/// A part of a cache whose keys never meet those of another part, and whose vectors all have one length: one namespace
/// with one model.
#[derive(Clone)]
pub struct Space {
    digest: [u8; 32],
    modality: Modality,
    /// The hash of everything that the keys of this space begin with.
    begun: Fields<Key>,
}

impl Space {
    /// Starts a space with the fields that tell it apart.
    pub fn builder() -> Fields<Space> {
        Fields::new(b"embedcore/cache/v1\0")
    }

    /// Starts a space within this one.
    pub fn inner(&self) -> Fields<Space> {
        Self::builder().field("within", self.digest)
    }

    /// A number that stands for the space in columns and maps. Unlike a [`Key`] it is short: two spaces with one number
    /// are cleared and searched together, but never answer for each other.
    pub fn id(&self) -> i64 {
        first_eight(&self.digest) as i64
    }

    /// The part of this space, whose own entries are texts, that holds what was made from `modality`: another space, with
    /// vectors of a length of its own.
    #[must_use]
    pub fn of(&self, modality: Modality) -> Self {
        match modality {
            Modality::Text => self.clone(),
            _ => Self { modality, ..self.inner().field("modality", modality.as_str()).finish() },
        }
    }

    /// What its entries were made from.
    pub fn modality(&self) -> Modality {
        self.modality
    }

    /// Starts the key of an entry in this space.
    pub fn key(&self) -> Fields<Key> {
        self.begun.clone()
    }
}

impl From<[u8; 32]> for Space {
    fn from(digest: [u8; 32]) -> Self {
        Self { digest, modality: Modality::Text, begun: Fields::new(b"embedcore/key/v1\0").field("space", digest) }
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Space({:016x})", self.id())
    }
}

/// The SHA-256 of a content, for validation: it is the content's own, without fields.
pub fn content_hash(content: &[u8]) -> [u8; 32] {
    Sha256::digest(content).into()
}

/// What stands for bytes as a content: their SHA-256 behind a byte that no text has, so that no text is ever taken for them.
pub fn digest_of_bytes(bytes: &[u8]) -> [u8; 33] {
    let mut digest = [0xff; 33];
    digest[1..].copy_from_slice(&Sha256::digest(bytes));
    digest
}

fn first_eight(digest: &[u8; 32]) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(eight)
}

/// Hashes named fields to a `T`, which is made of the SHA-256 of all of them.
///
/// Name and value are both length-prefixed: no two different lists of fields give the same bytes. Each kind of `T`
/// starts with a domain of its own: equal lists give unrelated hashes.
pub struct Fields<T>(Sha256, PhantomData<fn() -> T>);

impl<T: From<[u8; 32]>> Fields<T> {
    fn new(domain: &[u8]) -> Self {
        Self(Sha256::new_with_prefix(domain), PhantomData)
    }

    /// Adds one field.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        for part in [name.as_bytes(), value.as_ref()] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// The hash of all fields added so far.
    pub fn finish(self) -> T {
        T::from(self.0.finalize().into())
    }
}

impl<T> Clone for Fields<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
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

        #[test]
        fn keys_meet_only_within_a_space_and_with_equal_fields(
            spaces in prop::collection::vec(prop::collection::vec(("[ab]{0,2}", "[ab]{0,2}"), 0..3), 2),
            keys in prop::collection::vec(prop::collection::vec(("[ab]{0,2}", "[ab]{0,2}"), 0..3), 2),
        ) {
            fn all<T: From<[u8; 32]>>(start: Fields<T>, fields: &[(String, String)]) -> T {
                fields.iter().fold(start, |builder, (name, value)| builder.field(name, value)).finish()
            }
            let made: Vec<Key> = (0..2).map(|i| all(all(Space::builder(), &spaces[i]).key(), &keys[i])).collect();
            prop_assert_eq!(spaces[0] == spaces[1] && keys[0] == keys[1], made[0] == made[1]);
        }
    }

    #[test]
    fn kinds_of_hashes_never_meet() {
        let fields = Fingerprint::builder().field("a", "b").finish();
        let space = Space::builder().field("a", "b").finish();
        let key = space.key().finish();
        let all = [*fields.as_bytes(), space.digest, *key.as_bytes(), content_hash(b"")];
        assert!((1..all.len()).all(|i| !all[..i].contains(&all[i])));
    }
}
