//! Which entries are meant: of a space, of a kind, with a tag, expired.
//!
//! An entry's kind and tags are one string, its label, so that they need no column, no table and no checksum of their
//! own: the kind, and behind it each tag between separators. A kind without tags is its own label.

use super::entry::{Entry, NEVER};

/// Ends the kind, and each tag. ASCII calls it the unit separator; in kinds and tags it is escaped.
const SEPARATOR: char = '\u{1f}';
const ESCAPE: char = '\u{1b}';

/// The label of an entry of this kind, with these tags.
pub fn label<'t>(kind: &str, tags: impl IntoIterator<Item = &'t str>) -> String {
    let mut label = escape(kind);
    for tag in tags {
        if !label.ends_with(SEPARATOR) {
            label.push(SEPARATOR);
        }
        label.push_str(&escape(tag));
        label.push(SEPARATOR);
    }
    label
}

/// The kind and the tags that [`label`] was made of.
pub fn unlabel(label: &str) -> (String, Vec<String>) {
    let mut parts = label.split_terminator(SEPARATOR).map(unescape);
    (parts.next().unwrap_or_default(), parts.collect())
}

/// SQLite's functions end a text at a zero, so that one is escaped as well.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ESCAPE => escaped.extend([ESCAPE, 'e']),
            SEPARATOR => escaped.extend([ESCAPE, 's']),
            '\0' => escaped.extend([ESCAPE, '0']),
            other => escaped.push(other),
        }
    }
    escaped
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            ESCAPE => match characters.next() {
                Some('s') => SEPARATOR,
                Some('0') => '\0',
                _ => ESCAPE,
            },
            other => other,
        });
    }
    plain
}

/// Entries that fulfil all that is said here; what is not said does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub(super) space: Option<i64>,
    /// Escaped.
    pub(super) kind: Option<Box<str>>,
    /// Escaped, between separators. One of them is enough; no tags at all: any.
    pub(super) tags: Vec<Box<str>>,
    pub(super) expired_by_ms: Option<u64>,
}

impl Selection {
    /// Of a space.
    #[must_use]
    pub fn of(mut self, space: i64) -> Self {
        self.space = Some(space);
        self
    }

    /// Of a kind.
    #[must_use]
    pub fn kind(mut self, kind: &str) -> Self {
        self.kind = Some(escape(kind).into());
        self
    }

    /// With one of these tags at least.
    #[must_use]
    pub fn tags<'t>(mut self, tags: impl IntoIterator<Item = &'t str>) -> Self {
        self.tags = tags.into_iter().map(|tag| format!("{SEPARATOR}{}{SEPARATOR}", escape(tag)).into()).collect();
        self
    }

    /// No answers any more at that time.
    #[must_use]
    pub fn expired_by(mut self, wall_ms: u64) -> Self {
        self.expired_by_ms = Some(wall_ms);
        self
    }

    /// What another machine understands.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self { space, kind, tags, expired_by_ms: _ } = self;
        serde_json::json!([space, kind, tags]).to_string().into_bytes()
    }

    /// What [`Selection::to_bytes`] was made of.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (space, kind, tags) = serde_json::from_slice(bytes).ok()?;
        Some(Self { space, kind, tags, expired_by_ms: None })
    }

    /// Whether it is about whole spaces.
    pub(super) fn is_whole(&self) -> bool {
        self.kind.is_none() && self.tags.is_empty() && self.expired_by_ms.is_none()
    }

    pub(super) fn covers(&self, entry: &Entry) -> bool {
        let label = &*entry.kind;
        let of_kind =
            |kind: &str| label.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with(SEPARATOR));
        self.space.is_none_or(|space| space == entry.space)
            && self.kind.as_deref().is_none_or(of_kind)
            && (self.tags.is_empty() || self.tags.iter().any(|tag| label.contains(&**tag)))
            && self.expired_by_ms.is_none_or(|at| entry.expires_ms <= at && entry.expires_ms < NEVER)
    }

    /// What [`Selection::covers`] says, in SQL: conditions on the parameters 1 to 4, which are the space, the kind, one tag
    /// and the time.
    pub(super) const SQL: &str = "(?1 IS NULL OR space = ?1)
        AND (?2 IS NULL OR kind = ?2 OR (kind > ?2 || char(31) AND kind < ?2 || char(32)))
        AND (?3 IS NULL OR instr(kind, ?3) > 0)
        AND (?4 IS NULL OR (expires_ms <= ?4 AND expires_ms < 9223372036854775807))";
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::entry::{Draft, Precision};
    use crate::embedding::Space;

    fn entry(label: &str) -> Entry {
        let space = Space::builder().finish();
        Draft { kind: label, ..Draft::default() }.entry(&space, None, Precision::F32, 0, None)
    }

    const ODD: &str = "[ab\u{1f}\u{1b}\0 es0]{0,4}";

    proptest! {
        #[test]
        fn labels_are_found_by_their_kind_and_tags_and_by_nothing_else(
            kind in ODD, tags in prop::collection::vec(ODD, 0..4), other in ODD,
        ) {
            let label = label(&kind, tags.iter().map(String::as_str));
            prop_assert_eq!(unlabel(&label), (kind.clone(), tags.clone()));
            let entry = entry(&label);
            prop_assert!(Selection::default().kind(&kind).covers(&entry));
            prop_assert_eq!(Selection::default().kind(&other).covers(&entry), other == kind);
            prop_assert_eq!(Selection::default().tags([other.as_str()]).covers(&entry), tags.contains(&other));
            for tag in &tags {
                prop_assert!(Selection::default().tags(["none of them", tag]).covers(&entry));
            }
        }
    }

    #[test]
    fn a_kind_without_tags_is_its_own_label() {
        assert_eq!(label("text_inference", []), "text_inference");
    }
}
