//! What is only polite: greetings, thanks, apologies, and words about the asking itself.
//!
//! A sentence, or what a comma or a colon sets apart, is courtesy if each of its words may be part of some, and one of them
//! says so. Nothing else is taken away: a word that stands in no list here is part of the question.

use super::token::Token;

/// Of which one must be there.
const MARKS: &[&str] = &[
    "hi",
    "hello",
    "hey",
    "greetings",
    "thanks",
    "thank",
    "please",
    "sorry",
    "excuse",
    "pardon",
    "cheers",
    "question",
    "wondering",
    "curious",
    "help",
];

/// What may stand beside them.
const FILL: &[&str] = &[
    "i",
    "you",
    "me",
    "us",
    "my",
    "your",
    "a",
    "an",
    "the",
    "one",
    "some",
    "any",
    "am",
    "is",
    "was",
    "have",
    "need",
    "just",
    "quick",
    "short",
    "simple",
    "basic",
    "silly",
    "stupid",
    "more",
    "another",
    "so",
    "very",
    "much",
    "many",
    "lot",
    "there",
    "all",
    "everyone",
    "everybody",
    "folks",
    "guys",
    "team",
    "again",
    "and",
    "but",
];

/// What follows one of them as a whole.
const TAILS: &[&[&str]] = &[
    &["in", "advance"],
    &["for", "your", "help"],
    &["for", "your", "time"],
    &["for", "the", "help"],
    &["to", "bother", "you"],
    &["to", "disturb", "you"],
    &["for", "bothering", "you"],
];

/// Greetings of two words.
const TIMES: &[&str] = &["morning", "afternoon", "evening", "day"];

/// Longest courtesy, in words.
pub const MOST_WORDS: usize = 12;

/// Whether it says nothing but that.
pub fn is_courtesy(tokens: &[Token]) -> bool {
    if tokens.is_empty() || tokens.len() > MOST_WORDS {
        return false;
    }
    let (mut at, mut marked) = (0, false);
    while at < tokens.len() {
        let token = &tokens[at];
        let rest = &tokens[at..];
        let is =
            |words: &[&str]| rest.len() >= words.len() && rest.iter().zip(words).all(|(token, word)| token.is(word));
        let tail = TAILS.iter().find(|words| marked && is(words)).map(|words| words.len());
        let good = token.is("good") && rest.get(1).is_some_and(|next| next.is_in(TIMES));
        marked |= token.is_in(MARKS) || good;
        at += match tail {
            Some(length) => length,
            None if good => 2,
            None if token.is_in(MARKS) || token.is_in(FILL) => 1,
            None => return false,
        };
    }
    marked
}

/// Without the courtesy that a comma sets apart, in front and at the end.
pub fn without_asides(mut sentence: Vec<Token>) -> Vec<Token> {
    let mut said = 0;
    while let Some(comma) = sentence[said..].iter().take(MOST_WORDS).position(|token| token.comma)
        && said + comma + 1 < sentence.len()
        && is_courtesy(&sentence[said..=said + comma])
    {
        said += comma + 1;
        said += usize::from(sentence[said].is_in(&["but", "so"]) && said + 1 < sentence.len());
    }
    sentence.drain(..said);
    if let Some(last) = sentence.iter().rposition(|token| token.comma)
        && is_courtesy(&sentence[last + 1..])
    {
        sentence.truncate(last + 1);
    }
    while sentence.len() > 1 && sentence.last().is_some_and(|last| last.is("please")) {
        sentence.pop();
    }
    sentence
}
