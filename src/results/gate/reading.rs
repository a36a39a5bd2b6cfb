//! A prompt as the gate sees it.

use super::roots::{Ending, Root};
use super::tokens::{Token, is_plain, plain_word, tokens};
use super::turns::turn;
use super::words::{
    ASKING, BEING, CREATING, DENYING, LIGHT, LITERAL, OPENINGS, OWNERS, PERSONS, PHRASES, REQUESTS, SYMMETRIC, TELLING,
};

/// How a prompt asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Who,
    When,
    Where,
    Why,
    How,
    /// What is a thing of its kind.
    Define,
    /// What, which.
    What,
    /// What something does.
    Does,
    /// Explain, describe.
    Explain,
    /// Give, suggest; or nothing but a thing.
    Give,
    /// List, show: what is there.
    Show,
    /// Write, create, generate.
    Create,
    /// Is, does, can.
    Whether,
    /// Do something else.
    Request,
}

impl Manner {
    /// Whether two prompts about the same thing ask for the same.
    pub fn agrees(self, other: Self) -> bool {
        use Manner::{Create, Define, Does, Explain, Give, Show, What};
        let alike = [
            (Define, Explain),
            (What, Explain),
            (Does, Explain),
            (What, Give),
            (What, Show),
            (Give, Show),
            (Give, Create),
        ];
        self == other || alike.contains(&(self, other)) || alike.contains(&(other, self))
    }
}

/// A word that carries meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    pub root: Root,
    /// Whether it stands behind a preposition that makes it the frame of what is asked.
    pub framed: bool,
    /// The preposition before it.
    pub relation: Relation,
    /// Whether it stands behind "a".
    pub indefinite: bool,
    /// Whether it stands behind any article.
    pub noun: bool,
    /// As it is written, where it is a name: those of two people may differ in an ending.
    pub name: Option<String>,
    /// Whether it stands behind "and" or the like.
    pub joined: bool,
}

/// What a thing is to the rest, by the preposition before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    None,
    In,
    On,
    At,
    Of,
    /// With, using.
    With,
    For,
    To,
    About,
    From,
    By,
    Than,
}

impl Relation {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "in" => Self::In,
            "on" => Self::On,
            "at" => Self::At,
            "of" => Self::Of,
            "with" | "using" => Self::With,
            "for" => Self::For,
            "to" | "into" => Self::To,
            "about" => Self::About,
            "from" => Self::From,
            "by" => Self::By,
            "than" => Self::Than,
            _ => return None,
        })
    }

    /// Whether what stands behind it is the frame of what is asked, so that it may as well stand elsewhere.
    fn frames(self) -> bool {
        matches!(self, Self::In | Self::On | Self::At | Self::Of | Self::For | Self::About)
    }

    /// Whether one may stand for the other, before a name or before another thing. Where one is missing, a noun may
    /// stand before another one instead.
    pub fn agrees(self, other: Self, name: bool) -> bool {
        let loose = |relation| !matches!(relation, Self::From | Self::By | Self::Than);
        let alike = |a, b| match (a, b) {
            (Self::None, _) => true,
            // In Linux, on Linux; but in the box, on the box.
            (Self::In, Self::On) => name,
            (Self::In | Self::On, Self::At | Self::Of | Self::With) | (Self::At | Self::With, Self::Of) => true,
            (Self::For, Self::In | Self::On | Self::Of | Self::To) => true,
            _ => false,
        };
        self == other || loose(self) && loose(other) && (alike(self, other) || alike(other, self))
    }
}

#[derive(Debug, Clone)]
pub struct Reading {
    pub manner: Manner,
    pub modal: Option<&'static str>,
    /// Whether it speaks of the past, where it says so.
    pub tense: Option<bool>,
    pub denials: usize,
    /// Who things belong to, in turn.
    pub owners: Vec<u8>,
    /// Who acts and who is acted on, in turn: see [`PERSONS`].
    pub persons: Vec<u8>,
    /// Who it is that is, or was, something.
    pub being: Option<u8>,
    /// All words, where it asks about words.
    pub literal: Option<Vec<String>>,
    /// Whether it asks who or what "is", or who or what "are"; where it says so.
    pub plural: Option<bool>,
    pub symmetric: bool,
    pub things: Vec<Thing>,
}

impl Reading {
    pub fn of(text: &str) -> Self {
        let mut tokens = tokens(text);
        without_openings(&mut tokens);
        tokens = frame_last(tokens);
        without_openings(&mut tokens);
        let tense = tense(&tokens);
        with_phrases(&mut tokens);
        turn(&mut tokens);
        let (manner, asks_at) = manner(&tokens);
        let mut reading = Self {
            manner,
            modal: tokens.iter().find_map(modal),
            tense,
            denials: 0,
            owners: Vec::new(),
            persons: persons(&tokens),
            being: being(&tokens),
            literal: literal(&tokens),
            plural: plural(&tokens),
            symmetric: false,
            things: Vec::new(),
        };
        // What the little words before a thing say of it.
        let (mut framed, mut relation, mut indefinite, mut noun, mut joined) =
            (false, Relation::None, false, false, false);
        for (at, token) in tokens.iter().enumerate() {
            let plain = is_plain(token);
            let word = token.word.as_str();
            if plain {
                if DENYING.contains(&word) {
                    reading.denials += 1;
                }
                if SYMMETRIC.contains(&word) || word == "differences" || word == "differs" {
                    reading.symmetric = true;
                }
                if word == "must" && reading.denials > 0 {
                    // "Do not have to" permits what "must not" forbids.
                    reading.modal = Some("need not");
                }
                if let Some(by) = Relation::of(word) {
                    (framed, relation, indefinite, noun) = (by.frames(), by, false, false);
                    // "What does it depend on": what is asked for stands elsewhere, and in another role.
                    if token.ends && at > 0 {
                        reading.things.push(Thing::bare("~"));
                    }
                    continue;
                }
                if let Some((_, owner)) = OWNERS.iter().find(|(name, _)| *name == word) {
                    if reading.owners.last() != Some(owner) {
                        reading.owners.push(*owner);
                    }
                    noun = true;
                    continue;
                }
                // "When and where": the second one asks, too.
                let asks = at != asks_at && matches!(word, "who" | "whom" | "when" | "where" | "why" | "how");
                let is_article =
                    word != "a" || tokens.get(at + 1).is_some_and(|next| token.bound && takes_an_article(next));
                if LIGHT.contains(&word) && is_article && !asks || word == "too" && token.ends {
                    // An article, and not a verb, may stand between a preposition and its thing.
                    if !matches!(word, "a" | "an" | "the" | "this" | "that" | "these" | "those" | "its") {
                        (framed, relation) = (false, Relation::None);
                    }
                    indefinite = matches!(word, "a" | "an");
                    noun = matches!(word, "a" | "an" | "the");
                    joined |= word == "and";
                    continue;
                }
                let first = TELLING.contains(&word)
                    || word == "what-does"
                    || (CREATING.contains(&word) && manner == Manner::Create);
                if at == 0 && first {
                    continue;
                }
            }
            let mut root = Root::of(token);
            if at == 0
                && manner == Manner::Request
                && let Some(group) = REQUESTS.iter().find(|group| is_in(token, group))
            {
                root = Root { like: group[0].to_owned(), e: None, ending: Ending::Plain };
            }
            // "quickly" may stand before the verb, or at the end.
            let moves = plain && word.len() > 4 && word.ends_with("ly");
            joined |=
                reading.things.last().is_some_and(|before| matches!(before.root.like.as_str(), "or" | "versus" | "vs"));
            let name = token.name.then(|| token.word.clone());
            // "trainings" are things, "trains" may be what somebody does.
            noun |= plain && word.ends_with("ings");
            reading.things.push(Thing { root, framed: framed || moves, relation, indefinite, noun, name, joined });
            // "of the largest city": all of it is the frame, until a sign or a little word ends it.
            framed &= token.bound;
            (relation, indefinite, noun, joined) = (Relation::None, false, false, false);
        }
        reading
    }
}

impl Thing {
    fn bare(like: &str) -> Self {
        let root = Root { like: like.to_owned(), e: None, ending: Ending::Plain };
        let (framed, relation, name) = (false, Relation::None, None);
        Self { root, framed, relation, indefinite: false, noun: false, name, joined: false }
    }

    /// Whether two things whose words are alike are the same. "The training" is no "train".
    pub fn agrees(&self, other: &Self) -> bool {
        let ing = |thing: &Self| thing.root.ending == Ending::Ing;
        let named = self.name.is_some() || other.name.is_some();
        self.root.agrees(&other.root)
            && (ing(self) == ing(other) || !self.noun && !other.noun)
            && self.relation.agrees(other.relation, named)
    }
}

fn is_in(token: &Token, words: &[&str]) -> bool {
    !token.exact && !token.name && words.contains(&token.word.as_str())
}

/// Whether "a" before it is an article, and not the name of something.
fn takes_an_article(next: &Token) -> bool {
    let word = next.word.as_str();
    next.exact
        || next.name
        || word.chars().next().is_some_and(char::is_alphanumeric)
            && !matches!(
                word,
                "and" | "or" | "to" | "from" | "by" | "with" | "in" | "is" | "of" | "than" | "on" | "are"
            )
}

fn modal(token: &Token) -> Option<&'static str> {
    if token.exact || token.name {
        return None;
    }
    Some(match token.word.as_str() {
        "can" | "could" | "may" | "might" => "can",
        "should" | "shall" => "should",
        "must" => "must",
        "will" | "would" => "will",
        _ => return None,
    })
}

fn tense(tokens: &[Token]) -> Option<bool> {
    let mut tenses = tokens.iter().filter(|token| is_plain(token)).filter_map(|token| match token.word.as_str() {
        "was" | "were" | "did" | "had" => Some(true),
        "is" | "are" | "am" | "do" | "does" | "has" | "have" => Some(false),
        _ => modal(token).map(|_| false),
    });
    tenses.next()
}

fn literal(tokens: &[Token]) -> Option<Vec<String>> {
    let asks = tokens.iter().any(|token| is_in(token, LITERAL));
    asks.then(|| tokens.iter().map(|token| token.word.clone()).collect())
}

/// Each change from one person to another. Not the one who is told.
fn persons(tokens: &[Token]) -> Vec<u8> {
    let told = usize::from(tokens.first().is_some_and(|first| is_in(first, TELLING))) * 3;
    let mut persons: Vec<u8> = tokens.iter().skip(told).filter_map(person).collect();
    persons.dedup();
    persons
}

fn person(token: &Token) -> Option<u8> {
    let is_it = |(name, _): &&(&str, u8)| is_in(token, &[*name]);
    PERSONS.iter().find(is_it).map(|(_, person)| *person)
}

/// Who stands beside a form of "be".
fn being(tokens: &[Token]) -> Option<u8> {
    let is = |token: &Token| is_in(token, BEING);
    tokens.windows(2).find_map(|pair| match pair {
        [verb, who] if is(verb) => person(who),
        [who, verb] if is(verb) => person(who),
        _ => None,
    })
}

/// Whether one is asked for, or several: who is, which are; what is the largest, what are the largest.
fn plural(tokens: &[Token]) -> Option<bool> {
    let first = tokens.first()?;
    let ranks = |token: &Token| is_plain(token) && (token.word.ends_with("est") || token.word == "most");
    let asks = is_in(first, &["who", "which"]) || is_in(first, &["what"]) && tokens.iter().any(ranks);
    let verb = tokens.iter().take(4).find(|token| is_in(token, BEING)).filter(|_| asks)?;
    let plural = is_in(verb, &["are", "were"]);
    (plural || is_in(verb, &["is", "was"])).then_some(plural)
}

/// How it asks, and at which word it says so.
fn manner(tokens: &[Token]) -> (Manner, usize) {
    let word = |at: usize| tokens.get(at).filter(|token| is_plain(token)).map_or("", |token| token.word.as_str());
    let asks = |word: &str| match word {
        "who" | "whom" | "whose" => Some(Manner::Who),
        "when" => Some(Manner::When),
        "where" => Some(Manner::Where),
        "why" => Some(Manner::Why),
        "how" => Some(Manner::How),
        _ => None,
    };
    let first = word(0);
    let defines = word(1) == "is"
        && match word(2) {
            // "What is a closure", but not "what is a good gift".
            "a" | "an" => !matches!(word(3), "good" | "quick" | "simple"),
            // "What is overfitting".
            third => !LIGHT.contains(&third) && tokens.get(2).is_some_and(|token| token.ends),
        };
    let manner = match first {
        "what-does" => Manner::Does,
        "what" if defines => Manner::Define,
        "what" | "which" => Manner::What,
        // "Explain how", "tell why".
        _ if TELLING.contains(&first) => {
            let told = match first {
                "explain" | "describe" | "define" => Manner::Explain,
                "give" | "provide" | "suggest" => Manner::Give,
                _ => Manner::Show,
            };
            return (1..3).find_map(|at| Some((asks(word(at))?, at))).unwrap_or((told, 0));
        }
        _ if CREATING.contains(&first) && !is_changed(tokens) => Manner::Create,
        "is" | "are" | "am" | "was" | "were" | "do" | "does" | "did" | "has" | "have" | "had" | "can" | "could"
        | "should" | "would" | "will" | "shall" | "may" | "might" | "must"
            if word(1) != "not" =>
        {
            Manner::Whether
        }
        // "At what temperature", "to which city".
        _ if matches!(word(1), "what" | "which") && LIGHT.contains(&first) => Manner::What,
        "a" | "an" | "the" | "some" => Manner::Give,
        _ => asks(first).unwrap_or(Manner::Request),
    };
    (manner, 0)
}

/// "Make the function faster" creates nothing: what is made is there already.
fn is_changed(tokens: &[Token]) -> bool {
    let there = ["the", "this", "that", "it", "my", "sure", "these"];
    is_in(&tokens[0], &["make"]) && tokens.get(1).is_some_and(|next| is_in(next, &there))
}

/// Takes away what only asks politely.
fn without_openings(tokens: &mut Vec<Token>) {
    while let Some((opening, instead)) = OPENINGS.iter().find(|(opening, _)| begins(tokens, opening)) {
        if tokens.len() == opening.len() {
            return;
        }
        let asks = is_in(&tokens[opening.len()], ASKING);
        let instead = instead.filter(|_| !asks);
        tokens.splice(..opening.len(), instead.map(plain_word));
        if instead.is_some() {
            return;
        }
    }
    while tokens.len() > 1 && tokens.last().is_some_and(|last| is_in(last, &["please"])) {
        tokens.pop();
    }
}

fn begins(tokens: &[Token], words: &[&str]) -> bool {
    tokens.len() >= words.len() && tokens.iter().zip(words).all(|(token, word)| is_in(token, &[word]))
}

/// "In Python, how do I …" → "how do I … in Python".
fn frame_last(tokens: Vec<Token>) -> Vec<Token> {
    let framing = ["in", "on", "with", "using", "for", "from"];
    let end = tokens.iter().take(6).position(|token| !token.bound).map(|at| at + 1);
    match end {
        Some(end) if end < tokens.len() && end > 1 && is_in(&tokens[0], &framing) => {
            let sentence =
                end + tokens[end..].iter().position(|token| token.ends).map_or(tokens.len() - end, |at| at + 1);
            let mut turned = tokens[end..sentence].to_vec();
            if let Some(last) = turned.last_mut() {
                (last.bound, last.ends) = (true, false);
            }
            turned.extend_from_slice(&tokens[..end]);
            if let Some(last) = turned.last_mut() {
                (last.bound, last.ends) = (false, true);
            }
            turned.extend_from_slice(&tokens[sentence..]);
            turned
        }
        _ => tokens,
    }
}

fn with_phrases(tokens: &mut Vec<Token>) {
    let mut at = 0;
    while at < tokens.len() {
        let found =
            PHRASES.iter().filter(|(phrase, _)| begins(&tokens[at..], phrase)).max_by_key(|(phrase, _)| phrase.len());
        if let Some((phrase, instead)) = found {
            let Token { bound, ends, .. } = tokens[at + phrase.len() - 1];
            let instead = instead.iter().map(|word| plain_word(word));
            let count = instead.len();
            tokens.splice(at..at + phrase.len(), instead);
            at += count;
            if let Some(last) = at.checked_sub(1).and_then(|last| tokens.get_mut(last)) {
                (last.bound, last.ends) = (bound, ends);
            }
        } else {
            at += 1;
        }
    }
}
