//! What a collection reads that may come from anybody: what `fuzz/` calls.

#![allow(missing_docs)]

use super::Filter;
use super::metadata;

/// A condition, and what is said about an entry.
pub fn filter(condition: &str, about: &str) {
    let condition = Filter::read(condition);
    let Ok(about) = metadata::read(about) else { return };
    if let Ok(condition) = condition {
        let admits = condition.admits(&about);
        assert_ne!(Filter::Not { of: Box::new(condition) }.admits(&about), admits);
    }
    let strings: Vec<&str> = about.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).take(9).collect();
    for one in &strings {
        for other in &strings {
            assert_eq!(metadata::compare(one, other), metadata::compare(other, one).reverse());
        }
    }
}
