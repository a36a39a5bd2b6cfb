//! Whether two sentences are equal but for what is explained.

use super::grammar::{AGREEING, AUXILIARIES, Form, NAMES, OTHER_PLURALS, QUESTION_WORDS, SAME, form, is_little};
use super::token::{Case, Kind, Token};

/// What a writer's capital letters say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capitals {
    /// What is a name.
    Tell,
    /// What is an abbreviation: even the first word has a small letter, and names have, too.
    Abbreviate,
    /// Nothing: there are none, or nothing else, or every word begins with one.
    Idle,
}

/// Whether the sentences are the same, word for word, but for what is explained. `capitals`: of the one where they say less.
pub fn are_same(a: &[Token], b: &[Token], capitals: Capitals) -> bool {
    // What is tried first differs by the side.
    Comparison::new(a, b, capitals).holds() || Comparison::new(b, a, capitals).holds()
}

/// Whether the sentences are the same, and only words are others that mean the same.
pub fn are_equal(a: &[Token], b: &[Token], capitals: Capitals) -> bool {
    let comparison = Comparison::new(a, b, capitals);
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| comparison.same(a, b))
}

/// Longest run of words before a noun that may stand behind it.
const MOST_MODIFIERS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    A,
    B,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Goes through two sentences at once, and keeps what is still to be explained: each difference has to have its reason in
/// another one, as "a" before a word has its plural in the other sentence.
struct Comparison<'a> {
    a: &'a [Token],
    b: &'a [Token],
    capitals: Capitals,
    /// Whether both are questions: in those, a thing and several of its kind are the same. "Write a test" asks for one.
    question: bool,
    /// Which one has an "a" that waits for the plural in the other.
    article: Option<Side>,
    /// Which one has a noun in the singular where the other has it in the plural: for all nouns, the same.
    noun: Option<Side>,
    /// Where the last such noun is in `a`.
    noun_at: usize,
    /// Which one has a verb in the singular.
    verb: Option<Side>,
    /// Which one has "does" or "did", and the form that the other's verb is to have.
    support: Option<(Side, Form)>,
    /// Which one has its verb in front, as direct questions have: "where is it", "tell me where it is".
    front: Option<(Side, &'a Token)>,
    /// Which one has words before a noun, and which, that are to stand behind it in the other: "a Python list".
    modifier: Option<(Side, &'a [Token])>,
}

impl<'a> Comparison<'a> {
    fn new(a: &'a [Token], b: &'a [Token], capitals: Capitals) -> Self {
        let asks =
            |one: &[Token]| one.first().is_some_and(|first| first.is_in(QUESTION_WORDS) || first.is_in(AUXILIARIES));
        let (article, noun, verb, support, front, modifier) = (None, None, None, None, None, None);
        Self { a, b, capitals, question: asks(a) && asks(b), article, noun, noun_at: 0, verb, support, front, modifier }
    }

    fn sides(&self, side: Side) -> (&'a [Token], &'a [Token]) {
        match side {
            Side::A => (self.a, self.b),
            Side::B => (self.b, self.a),
        }
    }

    fn holds(mut self) -> bool {
        let (mut i, mut j) = (0, 0);
        loop {
            match (self.a.get(i), self.b.get(j)) {
                (None, None) => break,
                (Some(a), Some(b)) if self.same(a, b) => {
                    if self.article.is_some() && a.is_plain() && is_little(&a.word) {
                        return false;
                    }
                    (i, j) = (i + 1, j + 1);
                }
                (Some(a), Some(b)) if self.is_explained(a, b, i, j) => (i, j) = (i + 1, j + 1),
                _ => match self.left_out(i, j) {
                    Some((of_a, of_b)) => (i, j) = (i + of_a, j + of_b),
                    None => return false,
                },
            }
        }
        let open = self.article.is_some() || self.support.is_some() || self.front.is_some() || self.modifier.is_some();
        !open && (self.verb.is_none() || self.verb == self.noun)
    }

    /// How many words of which one may be missing in the other.
    fn left_out(&mut self, i: usize, j: usize) -> Option<(usize, usize)> {
        for reason in [Self::front, Self::article, Self::modifier] {
            if let Some(count) = reason(self, Side::A, i, j) {
                return Some((count, 0));
            }
            if let Some(count) = reason(self, Side::B, j, i) {
                return Some((0, count));
            }
        }
        None
    }

    fn same(&self, a: &Token, b: &Token) -> bool {
        let initials = a.initial || b.initial || self.capitals == Capitals::Abbreviate;
        let case = self.capitals == Capitals::Idle
            || a.case == b.case
            || a.spells_no_other_word()
            || b.spells_no_other_word()
            || initials && [a.case, b.case].iter().all(|case| matches!(case, Case::Lower | Case::Title));
        match (a.kind, b.kind) {
            (Kind::Exact, Kind::Exact) => {
                let name = |word: &str| word.starts_with(char::is_uppercase) && !word.contains(['_', '/', '\\']);
                a.word == b.word
                    || self.capitals != Capitals::Tell
                        && (name(&a.word) || name(&b.word))
                        && a.word.to_lowercase() == b.word.to_lowercase()
            }
            (Kind::Word, Kind::Word) if a.stands_for_base != b.stands_for_base => {
                let (of, base) = if a.stands_for_base { (a, b) } else { (b, a) };
                base.is_plain() && form(&base.word, &of.word).is_some_and(|form| form != Form::Most)
            }
            (Kind::Word, Kind::Word) if a.is_in(&["a", "an"]) => b.is_in(&["a", "an"]),
            (Kind::Word, Kind::Word) => case && a.word == b.word || are_synonyms(a, b),
            _ => a.kind == b.kind && a.word == b.word,
        }
    }

    /// A verb that stands in front where the other has it at its end, or in its form.
    fn front(&mut self, side: Side, at: usize, _: usize) -> Option<usize> {
        let (own, _) = self.sides(side);
        let token = own.get(at).filter(|token| token.is_plain())?;
        if at == 0 || !own[0].is_in(QUESTION_WORDS) {
            return None;
        }
        if let Some((of, verb)) = self.front {
            let behind = of != side && (token.word == verb.word || self.agree(side, &token.word, &verb.word));
            return behind.then(|| {
                self.front = None;
                1
            });
        }
        match token.word.as_str() {
            "do" if at + 1 < own.len() => {}
            "does" if self.support.is_none() => self.support = Some((side, Form::S)),
            "did" if self.support.is_none() => self.support = Some((side, Form::Past)),
            word if AUXILIARIES.contains(&word) || word.contains('/') => self.front = Some((side, token)),
            _ => return None,
        }
        Some(1)
    }

    /// "a", which a plural has not.
    fn article(&mut self, side: Side, at: usize, others: usize) -> Option<usize> {
        let (own, other) = self.sides(side);
        // "What is a …" has no plural in "what is …s".
        let verb = at.checked_sub(1).map(|at| &own[at]).filter(|verb| AGREEING.iter().any(|(one, _)| verb.is(one)));
        let bound = verb.is_some_and(|verb| others > 0 && other[others - 1].is(&verb.word));
        let free = self.article.is_none() && self.question && !bound && own.get(at)?.is_in(&["a", "an"]);
        free.then(|| {
            self.article = Some(side);
            1
        })
    }

    /// What stands before a noun where the other has it behind: "a Python list", "a list in Python".
    fn modifier(&mut self, side: Side, at: usize, others: usize) -> Option<usize> {
        let (own, other) = self.sides(side);
        let little = |token: &Token| token.is_plain() && is_little(&token.word);
        if let Some((of, words)) = self.modifier {
            let behind = at + 1..at + 1 + words.len();
            let there = own.get(behind.clone())?.iter().zip(words).all(|(a, b)| self.same(a, b));
            let ends = own.get(behind.end).is_none_or(little);
            let found = of != side && own[at].is_in(&["in", "on", "of", "for"]) && there && ends;
            return found.then(|| {
                self.modifier = None;
                behind.len() + 1
            });
        }
        let noun = other.get(others).filter(|noun| !little(noun))?;
        let words = own[at..].iter().take(MOST_MODIFIERS + 1).take_while(|token| !little(token)).count();
        let count = (1..words).find(|count| self.same(&own[at + count], noun))?;
        self.modifier = Some((side, &own[at..at + count]));
        Some(count)
    }

    /// Whether two verbs are one, for one and for several; what the rewrites have put in goes with both.
    fn agree(&mut self, side: Side, own: &str, other: &str) -> bool {
        for (one, several) in AGREEING {
            let is = |word: &str, number: &str| word == number || word.split_once('/') == Some((several, one));
            if is(own, one) && is(other, one) || is(own, several) && is(other, several) {
                return true;
            }
            let singular = match (is(own, one), is(other, one)) {
                (true, false) if is(other, several) => side,
                (false, true) if is(own, several) => side.other(),
                _ => continue,
            };
            let agrees = |verb: Option<Side>| verb.is_none_or(|side| side == singular);
            if agrees(self.verb) && agrees(self.noun) {
                self.verb = Some(singular);
                return true;
            }
        }
        false
    }

    fn is_explained(&mut self, a: &Token, b: &Token, i: usize, j: usize) -> bool {
        if !self.question || !a.is_plain() || !b.is_plain() {
            return false;
        }
        let (a_word, b_word) = (a.word.as_str(), b.word.as_str());
        let inflected = match (form(a_word, b_word), form(b_word, a_word)) {
            (Some(form), _) => Some((Side::A, form)),
            (_, Some(form)) => Some((Side::B, form)),
            _ => None,
        };
        // "does work" and "works", "did work" and "worked".
        if inflected.is_some() && self.support == inflected {
            self.support = None;
            return true;
        }
        if self.agree(Side::A, a_word, b_word) {
            return true;
        }
        let Some((side, form)) = inflected else { return false };
        if form != Form::S {
            return false;
        }
        let plural = if side == Side::A { b_word } else { a_word };
        let determined = |tokens: &[Token], at: usize| at > 0 && tokens[at - 1].is("the");
        let agrees = |with: Option<Side>| with.is_none_or(|with| with == side);
        let counted = match self.article {
            Some(with) => with == side,
            None => self.verb == Some(side) && self.a[0].is("what") && determined(self.a, i) && determined(self.b, j),
        };
        if counted && agrees(self.noun) && agrees(self.verb) && !OTHER_PLURALS.contains(&plural) {
            (self.article, self.noun, self.noun_at) = (None, Some(side), i);
            return true;
        }
        // "a vaccine works", "vaccines work".
        let works = self.noun == Some(side.other()) && self.verb.is_none() && self.noun_at + 1 == i;
        if works {
            self.verb = self.noun;
        }
        works
    }
}

fn are_synonyms(a: &Token, b: &Token) -> bool {
    let groups = match (a.is_plain(), b.is_plain()) {
        (true, true) => SAME,
        (false, false) => NAMES,
        _ => return false,
    };
    groups.iter().any(|group| {
        let form_of = |word: &str| {
            group.iter().find_map(|base| (*base == word).then_some(None).or_else(|| form(base, word).map(Some)))
        };
        form_of(&a.word).is_some_and(|form| form_of(&b.word) == Some(form))
    })
}
