//! What a word is compared by.

use super::tokens::Token;
use super::words::{DENYING, IRREGULAR, NUMBERS, SAME, SINGULAR};

/// A word without its inflection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Equal for words that are alike.
    pub like: String,
    /// Whether the word itself ends with an e, which is not in `like`: "planes" and "plans" are two things. `None`: who
    /// knows, of "planing".
    pub e: Option<bool>,
    pub ending: Ending,
}

/// How a word is inflected, as far as that tells two things apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Plain,
    /// "closed", "bitten": what is done to something, or was.
    Past,
    /// "closing", "biting".
    Ing,
}

impl Root {
    pub fn of(token: &Token) -> Self {
        let bare = |like: String| Self { like, e: None, ending: Ending::Plain };
        if token.exact {
            return bare(format!("={}", token.word));
        }
        let word = token.word.as_str();
        if let Some((_, number)) = NUMBERS.iter().find(|(name, _)| *name == word) {
            return bare((*number).to_owned());
        }
        if DENYING.contains(&word) && !token.name {
            return bare("not".to_owned());
        }
        let irregular = IRREGULAR.iter().find(|(form, _)| *form == word);
        let mut root = inflected(irregular.map_or(word, |(_, root)| root));
        if irregular.is_some_and(|(form, root)| form != root) {
            root.ending = Ending::Past;
        }
        let word = irregular.map_or(word, |(_, root)| root);
        let is_same = |other: &str| {
            let its = inflected(other);
            other == word || its.like == root.like && root.e.zip(its.e).is_none_or(|(a, b)| a == b)
        };
        if let Some(group) = SAME.iter().find(|group| group.iter().any(|other| is_same(other))) {
            (root.like, root.e) = (inflected(group[0]).like, None);
        }
        if token.active {
            root.ending = Ending::Plain;
        }
        root
    }

    /// Whether two roots that are alike are of the same word.
    pub fn agrees(&self, other: &Self) -> bool {
        let both = (self.ending, other.ending);
        self.e.zip(other.e).is_none_or(|(a, b)| a == b)
            && (both.0 == both.1 || !matches!(both, (Ending::Past, _) | (_, Ending::Past)))
    }
}

/// Without the endings of inflection: plural, past, -ing. Not of derivation: an employer is no employee.
fn inflected(word: &str) -> Root {
    let is_vowel = |c: char| matches!(c, 'a' | 'e' | 'i' | 'o' | 'u' | 'y');
    let whole = |word: &str| Root { like: word.to_owned(), e: Some(word.ends_with('e')), ending: Ending::Plain };
    let mut root = whole(word);
    if !word.is_ascii() || word.len() < 4 || !word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return root;
    }
    if SINGULAR.contains(&word) {
        return root;
    }
    let stem = &mut root.like;
    if let Some(rest) = word.strip_suffix("ies").filter(|rest| rest.len() > 2) {
        *stem = format!("{rest}y");
        root.e = None;
    } else if ["sses", "xes", "ches", "shes", "zes"].iter().any(|ending| word.ends_with(ending)) {
        stem.truncate(stem.len() - 2);
        root.e = None;
    } else if word.ends_with('s') && !["ss", "us", "is", "as"].iter().any(|ending| word.ends_with(ending)) {
        stem.truncate(stem.len() - 1);
        let doubtful = ["ses", "oes"].iter().any(|ending| word.ends_with(ending));
        root.e = (!doubtful).then(|| stem.ends_with('e'));
    }
    for (suffix, ending) in [("ing", Ending::Ing), ("ed", Ending::Past)] {
        if let Some(rest) = stem.strip_suffix(suffix) {
            let last = rest.chars().next_back().unwrap_or(' ');
            if rest.len() < 3 || !rest.chars().any(is_vowel) || (suffix == "ed" && last == 'e') {
                break;
            }
            let doubled = rest.len() > 3
                && rest.as_bytes()[rest.len() - 2] == last as u8
                && !is_vowel(last)
                && !matches!(last, 'l' | 's' | 'z');
            root.e = doubled.then_some(false);
            root.ending = ending;
            *stem = if doubled { rest[..rest.len() - 1].to_owned() } else { rest.to_owned() };
            break;
        }
    }
    if stem.len() > 3 && stem.ends_with('e') {
        stem.pop();
    }
    root
}
