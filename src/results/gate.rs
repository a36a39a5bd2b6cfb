//! Whether two prompts mean the same although their vectors are near, or only look like it.
//!
//! Vectors of a question and of its opposite are as near as those of a question and its paraphrase. So words decide, and
//! whoever is not sure says no: a miss costs a call, a false hit answers what nobody has asked. Two prompts pass if
//!
//! - every word that carries meaning in one has its like in the other: itself, inflected, or a word of the few that always
//!   mean the same; numbers digit by digit, names, code, and what is in quotes or behind a colon letter by letter;
//! - they deny equally often, ask in the same way (who, when, why, how, yes or no, …), at the same time, for the same owner;
//! - these words come in the same order, but for the frame ("in Python", "of France"), which may stand elsewhere; and
//!   nothing that comes from, is done by, or is compared with one thing does so with another.
//!
//! Antonyms, other numbers, other names, and roles that are reversed need no lists: they are other words, or in another
//! order. What is listed, in `words`, is what may be left out or exchanged, in English; prompts in other languages pass if
//! they differ in nothing but case, inflection and punctuation.

mod reading;
mod roots;
mod tokens;
mod turns;
mod words;

use std::collections::BTreeMap;

use reading::{Manner, Reading, Thing};
use words::{ACTED_ON, ACTING, SPOKEN_TO};

/// Why two prompts do not mean the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// One denies what the other does not.
    Negation,
    /// They ask in different ways: who, when, why, how, …
    Question,
    /// One speaks of the past, or of somebody else's things.
    Circumstance,
    /// One asks about words, and the other not in the same words.
    Wording,
    /// A word of one has no like in the other.
    Word(String),
    /// The same words, in another order.
    Order(String, String),
    /// The same words, otherwise related.
    Relation(String),
}

/// The first difference in meaning that is found; `None`: they mean the same, as far as words can tell.
pub fn difference(a: &str, b: &str) -> Option<Difference> {
    let (a, b) = (Reading::of(a), Reading::of(b));
    if a.denials != b.denials {
        return Some(Difference::Negation);
    }
    if !a.manner.agrees(b.manner) || (a.manner != Manner::How && a.modal != b.modal) {
        return Some(Difference::Question);
    }
    if a.literal != b.literal {
        return Some(Difference::Wording);
    }
    if a.tense.zip(b.tense).is_some_and(|(a, b)| a != b)
        || a.plural.zip(b.plural).is_some_and(|(a, b)| a != b)
        || (a.owners != b.owners && !a.owners.is_empty() && !b.owners.is_empty())
        || are_others(&a, &b)
    {
        return Some(Difference::Circumstance);
    }
    match places(&a.things, &b.things) {
        Err(word) => Some(Difference::Word(word)),
        Ok(places) => order(&a, &b, &places),
    }
}

/// Whether they speak of other persons. "You" may be anybody, and so is who asks "how do I", but not where it says who did
/// what, or to whom.
fn are_others(a: &Reading, b: &Reading) -> bool {
    let both = |one: &Reading| one.persons.contains(&SPOKEN_TO) && one.persons.len() > 1;
    let (acts, suffers) = (|one: &Reading| one.persons == [ACTING], |one: &Reading| one.persons == [ACTED_ON]);
    // "What do you want" asks somebody, "how do you undo a commit" does not.
    let alone = a.manner != Manner::How && a.things.len() < 2;
    let tells = alone || both(a) && both(b) || a.tense == Some(true);
    tells && !a.persons.is_empty() && !b.persons.is_empty() && a.persons != b.persons
        || acts(a) && suffers(b)
        || suffers(a) && acts(b)
        || a.being.zip(b.being).is_some_and(|(a, b)| a != b)
}

/// Where in `b` each thing of `a` is; or the one that is not there, or not as often.
fn places(a: &[Thing], b: &[Thing]) -> Result<Vec<usize>, String> {
    let mut free: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, thing) in b.iter().enumerate().rev() {
        free.entry(&thing.root.like).or_default().push(at);
    }
    let mut places = Vec::with_capacity(a.len());
    for thing in a {
        let place = free.get_mut(thing.root.like.as_str()).and_then(Vec::pop);
        places.push(place.ok_or_else(|| thing.root.like.clone())?);
    }
    match free.into_iter().find(|(_, left)| !left.is_empty()) {
        Some((word, _)) => Err(word.to_owned()),
        None => Ok(places),
    }
}

fn order(a: &Reading, b: &Reading, places: &[usize]) -> Option<Difference> {
    for (thing, &place) in a.things.iter().zip(places) {
        let other = &b.things[place];
        // "Python" is no "python", though "python" may be either.
        let kinds = |one: &Thing, other: &Thing| {
            one.name.is_some() && other.name.is_none() && other.indefinite && !one.indefinite
        };
        if thing.name.is_some() && other.name.is_some() && thing.name != other.name {
            return Some(Difference::Word(thing.root.like.clone()));
        }
        if !thing.agrees(other) || kinds(thing, other) || kinds(other, thing) {
            return Some(Difference::Relation(thing.root.like.clone()));
        }
    }
    if a.symmetric && b.symmetric && only_exchanged(a, places) {
        return None;
    }
    // Neighbours are enough: where all of them are in order, everything is. Where not, all pairs are looked at.
    if places.windows(2).all(|pair| pair[0] < pair[1]) {
        return None;
    }
    if places.len() > MOST_MOVED {
        return Some(Difference::Order(String::new(), String::new()));
    }
    for second in 0..places.len() {
        for first in 0..second {
            let moved = places[first] > places[second];
            let framed = |at: usize| a.things[at].framed || b.things[places[at]].framed;
            if moved && framed(first) == framed(second) {
                let like = |at: usize| a.things[at].root.like.clone();
                return Some(Difference::Order(like(first), like(second)));
            }
        }
    }
    None
}

/// Whether nothing has moved but that what stands before one "and" stands behind it now, and the other way round.
fn only_exchanged(a: &Reading, places: &[usize]) -> bool {
    let moved = |at: &usize| places[*at] != *at;
    let (Some(start), Some(last)) = ((0..places.len()).find(moved), (0..places.len()).rfind(moved)) else {
        return true;
    };
    let Some(split) = (start + 1..=last).find(|&at| a.things[at].joined) else { return false };
    let behind = last + 1 - split;
    let expected = (start..split).map(|at| at + behind).chain((split..=last).map(|at| at + start - split));
    places[start..=last].iter().copied().eq(expected)
}

/// Longer prompts with words in another order are never the same.
const MOST_MOVED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        let there = difference(a, b).is_none();
        assert_eq!(there, difference(b, a).is_none(), "{a} | {b}");
        there
    }

    #[test]
    fn what_means_the_same_passes() {
        for (a, b) in [
            ("How do I reverse a string in Python?", "In Python, how can I reverse a string?"),
            ("What is the capital of France?", "Tell me the capital of France."),
            ("What's 1,000 kg in pounds?", "what is 1000 kilograms in pounds"),
            ("Don't use `getUser` here.", "Do not use `getUser` here"),
            ("Explain the two laws.", "Explain the 2 laws."),
            ("Compare Go and Rust.", "compare Rust and Go"),
            ("Name the capital of Chile.", "name the capital of chile"),
        ] {
            assert!(same(a, b), "{a} | {b}: {:?}", difference(a, b));
        }
    }

    #[test]
    fn what_only_looks_like_it_does_not() {
        for (a, b) in [
            ("Who invented the telephone?", "When was the telephone invented?"),
            ("Did Alice call Bob?", "Was Alice called by Bob?"),
            ("Who is the president?", "Who was the president?"),
            ("A letter from Anna", "A letter to Anna"),
            ("What is my name?", "What is your name?"),
            ("What can I bring?", "What must I bring?"),
            ("How do I parse JSON?", "What is JSON parsing?"),
            ("Explain getUser", "Explain getuser"),
            ("Is A in B?", "Is B in A?"),
            ("(1 + 2) * 3", "1 + (2 * 3)"),
            ("Divide a by b.", "Divide b by a."),
            ("cats or dogs", "cats and dogs"),
            ("Is the employer right?", "Is the employee right?"),
            ("Write a poem for my mother.", "Write a poem about my mother."),
            ("What is the time in Tokyo?", "What is the time to Tokyo?"),
            ("Compare A with B in C.", "Compare A with C in B."),
            ("Compare lists in Python and arrays in Java.", "Compare lists in Java and arrays in Python."),
            ("Compare gold in 2010 and silver in 2020.", "Compare gold in 2020 and silver in 2010."),
            ("What depends on libfoo?", "What does libfoo depend on?"),
            ("What is Python?", "What is a python?"),
            ("Who is Robin Williams?", "Who is Robin William?"),
        ] {
            assert!(!same(a, b), "{a} | {b}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_means_the_same_as_itself_in_both_directions(
            a in proptest::collection::vec(proptest::sample::select(WORDS.to_vec()), 0..9),
            b in proptest::collection::vec(proptest::sample::select(WORDS.to_vec()), 0..9),
            noise in ".{0,20}",
        ) {
            let (a, b) = (a.join(" "), b.join(" "));
            same(&a, &b);
            same(&noise, &a);
            proptest::prop_assert!(same(&a, &a) && same(&noise, &noise));
        }
    }

    const WORDS: [&str; 40] = [
        "what",
        "which",
        "is",
        "are",
        "the",
        "a",
        "how",
        "do",
        "does",
        "can",
        "be",
        "used",
        "to",
        "use",
        "I",
        "need",
        "in",
        "of",
        "one",
        "explain",
        "tell",
        "me",
        "X",
        "cats?",
        "dogs,",
        "getUser",
        "2",
        "largest",
        "command",
        "differ",
        "from",
        "mean?",
        "at",
        "temperature",
        "boil",
        "not",
        "quickly",
        "by",
        "who",
        "best",
    ];

    #[test]
    fn any_text_is_read() {
        for text in
            ["", " ", "?!", "¿", "'", "``", "a'", "n't", "1.", ".5", "-", "--1", "\u{0}", "日本語は?", "e\u{301}", "İ"]
        {
            assert!(difference(text, text).is_none(), "{text}");
        }
    }
}
