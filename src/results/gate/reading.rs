//! A prompt as the gate sees it.

use super::turns::turn;
use super::words::{
    ASKING, CREATING, DENYING, FRAMING, IRREGULAR, LIGHT, NUMBERS, OPENINGS, OWNERS, PHRASES, REQUESTS, SAME,
    SYMMETRIC, TELLING,
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
    /// List, give, show; or nothing but a thing.
    Give,
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
        use Manner::{Create, Define, Does, Explain, Give, What};
        let alike = [(Define, Explain), (What, Explain), (Does, Explain), (What, Give), (Give, Create)];
        self == other || alike.contains(&(self, other)) || alike.contains(&(other, self))
    }
}

/// A word that carries meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    /// Equal for words that are alike.
    pub like: String,
    /// Whether it stands behind a preposition that makes it the frame of what is asked.
    pub framed: bool,
    /// The preposition before it.
    pub relation: Relation,
    /// Whether it stands behind "a".
    pub indefinite: bool,
    /// As it is written, where it is a name: those of two people may differ in an ending.
    pub name: Option<String>,
    /// Whether it stands behind "and" or the like.
    pub joined: bool,
}

/// What a thing is to the rest, by the preposition before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    None,
    /// In, on, of, with, …: the frame.
    Frame,
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
            "for" => Self::For,
            "to" | "into" => Self::To,
            "about" => Self::About,
            "from" => Self::From,
            "by" => Self::By,
            "than" => Self::Than,
            _ if FRAMING.contains(&word) => Self::Frame,
            _ => return None,
        })
    }

    /// Whether one may stand for the other. Where one is missing, a noun may stand before another one instead.
    pub fn agrees(self, other: Self) -> bool {
        let loose = |relation| matches!(relation, Self::None | Self::Frame | Self::For | Self::To | Self::About);
        let alike = |a, b| matches!((a, b), (Self::None, _) | (Self::For, Self::Frame | Self::To));
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
    /// One bit for each owner.
    pub owners: Vec<u8>,
    pub symmetric: bool,
    pub things: Vec<Thing>,
}

/// A piece of the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// In lower case, unless it is exact.
    pub word: String,
    /// Code, or in quotes: letter by letter.
    pub exact: bool,
    /// A name: begins with a capital letter, but not because the sentence does.
    pub name: bool,
    /// Whether the next token follows without a sign between.
    pub bound: bool,
    /// Whether it is the last of its sentence.
    pub ends: bool,
}

/// A word that is put in.
pub fn plain_word(word: &str) -> Token {
    Token { word: word.to_owned(), exact: false, name: false, bound: true, ends: false }
}

/// Whether it is a word like any other.
pub fn is_plain(token: &Token) -> bool {
    !token.exact && !token.name
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
        let manner = manner(&tokens);
        let modal = tokens.iter().find_map(modal);
        let mut reading =
            Self { manner, modal, tense, denials: 0, owners: Vec::new(), symmetric: false, things: Vec::new() };
        // What the little words before a thing say of it.
        let (mut framed, mut relation, mut indefinite, mut joined) = (false, Relation::None, false, false);
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
                if let Some(by) = Relation::of(word) {
                    (framed, relation, indefinite) =
                        (matches!(by, Relation::Frame | Relation::For | Relation::About), by, false);
                    // "What does it depend on": what is asked for stands elsewhere, and in another role.
                    if token.ends && at > 0 {
                        reading.things.push(Thing::bare("~"));
                    }
                    continue;
                }
                if let Some((_, owner)) = OWNERS.iter().find(|(name, _)| *name == word) {
                    if !reading.owners.contains(owner) {
                        reading.owners.push(*owner);
                        reading.owners.sort_unstable();
                    }
                    continue;
                }
                let is_article =
                    word != "a" || tokens.get(at + 1).is_some_and(|next| token.bound && takes_an_article(next));
                if LIGHT.contains(&word) && is_article {
                    // An article, and not a verb, may stand between a preposition and its thing.
                    if !matches!(word, "a" | "an" | "the" | "this" | "that" | "these" | "those" | "its") {
                        (framed, relation) = (false, Relation::None);
                    }
                    indefinite = matches!(word, "a" | "an");
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
            let like = match REQUESTS.iter().find(|group| at == 0 && manner == Manner::Request && is_in(token, group)) {
                Some(group) => group[0].to_owned(),
                None => like(token),
            };
            // "quickly" may stand before the verb, or at the end.
            let moves = plain && word.len() > 4 && word.ends_with("ly");
            joined |=
                reading.things.last().is_some_and(|before| matches!(before.like.as_str(), "or" | "versus" | "vs"));
            let name = token.name.then(|| token.word.clone());
            reading.things.push(Thing { like, framed: framed || moves, relation, indefinite, name, joined });
            // "of the largest city": all of it is the frame, until a sign or a little word ends it.
            framed &= token.bound;
            (relation, indefinite, joined) = (Relation::None, false, false);
        }
        reading
    }
}

impl Thing {
    fn bare(like: &str) -> Self {
        let like = like.to_owned();
        Self { like, framed: false, relation: Relation::None, indefinite: false, name: None, joined: false }
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
    let mut tenses =
        tokens.iter().filter(|token| !token.exact && !token.name).filter_map(|token| match token.word.as_str() {
            "was" | "were" | "did" | "had" => Some(true),
            "is" | "are" | "am" | "do" | "does" | "has" | "have" => Some(false),
            _ => None,
        });
    tenses.next()
}

fn manner(tokens: &[Token]) -> Manner {
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
    match first {
        "what-does" => Manner::Does,
        "what" if defines => Manner::Define,
        "what" | "which" => Manner::What,
        // "Explain how", "tell why".
        _ if TELLING.contains(&first) => {
            let told = if matches!(first, "explain" | "describe" | "define") { Manner::Explain } else { Manner::Give };
            (1..3).find_map(|at| asks(word(at))).unwrap_or(told)
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
    }
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

/// What a word is compared by.
fn like(token: &Token) -> String {
    if token.exact {
        return format!("={}", token.word);
    }
    let word = token.word.as_str();
    if let Some((_, number)) = NUMBERS.iter().find(|(name, _)| *name == word) {
        return (*number).to_owned();
    }
    if DENYING.contains(&word) && !token.name {
        return "not".to_owned();
    }
    let word = IRREGULAR.iter().find(|(form, _)| *form == word).map_or(word, |(_, root)| root);
    let stem = stem(word);
    let group = SAME.iter().find(|group| group.iter().any(|other| *other == word || self::stem(other) == stem));
    group.map_or(stem, |group| self::stem(group[0]))
}

/// Without the endings of inflection: plural, past, -ing. Not of derivation: an employer is no employee.
fn stem(word: &str) -> String {
    let is_vowel = |c: char| matches!(c, 'a' | 'e' | 'i' | 'o' | 'u' | 'y');
    if !word.is_ascii() || word.len() < 4 || !word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return word.to_owned();
    }
    let mut stem = word.to_owned();
    if let Some(rest) = word.strip_suffix("ies").filter(|rest| rest.len() > 2) {
        stem = format!("{rest}y");
    } else if ["sses", "xes", "ches", "shes", "zes"].iter().any(|ending| word.ends_with(ending)) {
        stem.truncate(stem.len() - 2);
    } else if word.ends_with('s') && !["ss", "us", "is", "as"].iter().any(|ending| word.ends_with(ending)) {
        stem.truncate(stem.len() - 1);
    }
    for ending in ["ing", "ed"] {
        if let Some(rest) = stem.strip_suffix(ending) {
            let last = rest.chars().next_back().unwrap_or(' ');
            if rest.len() < 3 || !rest.chars().any(is_vowel) || (ending == "ed" && last == 'e') {
                break;
            }
            let doubled = rest.len() > 3
                && rest.as_bytes()[rest.len() - 2] == last as u8
                && !is_vowel(last)
                && !matches!(last, 'l' | 's' | 'z');
            stem = if doubled { rest[..rest.len() - 1].to_owned() } else { rest.to_owned() };
            break;
        }
    }
    if stem.len() > 3 && stem.ends_with('e') {
        stem.pop();
    }
    stem
}

/// Signs that mean nothing by themselves.
const PUNCTUATION: &str = ".?!:;,\"'’‘“”¿¡…–—";

/// Words, numbers, signs that mean something, and what is in quotes.
fn tokens(text: &str) -> Vec<Token> {
    let characters: Vec<char> = text.chars().collect();
    let mut tokens: Vec<Token> = Vec::new();
    let mut begins_sentence = true;
    let mut at = 0;
    while at < characters.len() {
        let character = characters[at];
        if let Some(end) = quoted(&characters, at) {
            let word: String = characters[at + 1..end].iter().collect();
            tokens.push(Token { word: word.trim().to_owned(), exact: true, name: false, bound: true, ends: false });
            at = end + 1;
            begins_sentence = false;
        } else if is_part(character) || starts_code(&characters, at) {
            let end = end_of_word(&characters, at);
            let word: String = characters[at..end].iter().collect();
            at = end;
            push_word(&mut tokens, &word, begins_sentence);
            begins_sentence = false;
        } else {
            if matches!(character, '.' | '?' | '!' | ':' | '\n') {
                begins_sentence = true;
            }
            if matches!(character, '.' | '?' | '!' | ':' | ';' | ',' | '\n')
                && let Some(last) = tokens.last_mut()
            {
                last.bound = false;
                last.ends |= matches!(character, '.' | '?' | '!' | ':' | '\n');
            }
            let is_dash = character == '-' && !is_minus(&characters, at);
            if !character.is_whitespace() && !PUNCTUATION.contains(character) && !is_dash {
                push(&mut tokens, character.to_string(), false, false);
            }
            at += 1;
        }
    }
    if let Some(last) = tokens.last_mut() {
        (last.bound, last.ends) = (false, true);
    }
    tokens
}

fn push(tokens: &mut Vec<Token>, word: String, exact: bool, name: bool) {
    tokens.push(Token { word, exact, name, bound: true, ends: false });
}

fn is_part(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// A dash between spaces, or before a number, is a sign; one between words is none.
fn is_minus(characters: &[char], at: usize) -> bool {
    characters.get(at + 1).is_some_and(char::is_ascii_digit)
}

/// Where a quotation that begins at `at` ends. An apostrophe begins none inside of a word.
fn quoted(characters: &[char], at: usize) -> Option<usize> {
    let close = match characters[at] {
        '`' => '`',
        '"' => '"',
        '“' => '”',
        '\'' if at == 0 || !is_part(characters[at - 1]) => '\'',
        '‘' => '’',
        _ => return None,
    };
    let inside =
        |end: usize| close != '\'' && close != '’' || characters.get(end + 1).is_none_or(|next| !is_part(*next));
    (at + 2..characters.len()).find(|&end| characters[end] == close && inside(end))
}

/// Paths, flags and names of files begin with a sign.
fn starts_code(characters: &[char], at: usize) -> bool {
    let followed = characters.get(at + 1).is_some_and(|next| is_part(*next));
    let alone = at == 0 || characters[at - 1].is_whitespace();
    alone && followed && matches!(characters[at], '/' | '.' | '@' | '#' | '~' | '\\')
        || alone
            && matches!(characters[at], '-')
            && characters.get(at + 1).is_some_and(|next| *next == '-' || next.is_alphabetic())
}

/// A word goes on over signs that are inside of names, numbers and contractions.
fn end_of_word(characters: &[char], start: usize) -> usize {
    let mut end = start + 1;
    while end < characters.len() {
        let (before, character) = (characters[end - 1], characters[end]);
        let next = characters.get(end + 1).copied().unwrap_or(' ');
        let joins = match character {
            '\'' | '’' => is_part(before) && next.is_alphabetic(),
            '.' | '/' | ':' | '@' | '\\' | '~' => is_part(next) || (character == next && character != '.'),
            ',' => before.is_ascii_digit() && next.is_ascii_digit(),
            '-' => is_part(next) || next == '-',
            '+' | '#' => is_part(before) || before == '+',
            '%' | '°' | '€' | '$' => before.is_ascii_digit(),
            _ => false,
        };
        if !is_part(character) && !joins {
            break;
        }
        end += 1;
    }
    end
}

fn push_word(tokens: &mut Vec<Token>, word: &str, begins_sentence: bool) {
    let straight = word.replace('’', "'");
    let lower = straight.to_lowercase();
    if let Some(number) = number(&lower) {
        for part in number {
            push(tokens, part, false, true);
        }
        return;
    }
    if is_code(&straight) {
        push(tokens, straight, true, false);
        return;
    }
    // "New-York", "vegan-friendly": two words, as they might be written.
    if lower.contains('-') {
        let mut begins = begins_sentence;
        for part in straight.split('-').filter(|part| !part.is_empty()) {
            // "non-root", "nut-free" deny.
            match part.to_lowercase().as_str() {
                "non" | "free" | "less" => push(tokens, "without".to_owned(), false, false),
                _ => push_word(tokens, part, begins),
            }
            begins = false;
        }
        return;
    }
    let capital = straight.chars().next().is_some_and(char::is_uppercase);
    let name = capital && !begins_sentence && lower != "i" && !lower.starts_with("i'");
    let (stem, ending) = lower.split_once('\'').unwrap_or((&lower, ""));
    match (stem, ending) {
        ("can", "t") => push_all(tokens, &["can", "not"]),
        ("won", "t") => push_all(tokens, &["will", "not"]),
        ("shan", "t") => push_all(tokens, &["shall", "not"]),
        (verb, "t") if verb.ends_with('n') && verb.len() > 2 => push_all(tokens, &[&verb[..verb.len() - 1], "not"]),
        ("let", "s") => push_all(tokens, &["let", "us"]),
        (who, "s")
            if matches!(
                who,
                "what" | "which" | "who" | "where" | "when" | "how" | "why" | "that" | "it" | "there" | "here"
            ) =>
        {
            push_all(tokens, &[who, "is"]);
        }
        ("i", "m") => push_all(tokens, &["i", "am"]),
        (who, "re") => push_all(tokens, &[who, "are"]),
        (who, "ve") => push_all(tokens, &[who, "have"]),
        (who, "ll") => push_all(tokens, &[who, "will"]),
        (who, "d") if who.len() < 5 => push_all(tokens, &[who, "would"]),
        ("cannot", _) => push_all(tokens, &["can", "not"]),
        (owner, "s") => push(tokens, owner.to_owned(), false, name),
        _ => push(tokens, lower.replace('\'', ""), false, name),
    }
}

fn push_all(tokens: &mut Vec<Token>, words: &[&str]) {
    for word in words {
        push(tokens, (*word).to_owned(), false, false);
    }
}

/// Names of programs: a capital letter or a digit inside, an underscore, a path, a file, an address.
fn is_code(word: &str) -> bool {
    let mut inner = word.chars().skip(1);
    let shouted = word.chars().all(|c| c.is_uppercase() || c.is_ascii_digit());
    let mixed = inner.any(|c| c.is_uppercase() || c.is_ascii_digit());
    (mixed && !shouted) || word.contains(['_', '/', '@', '#', '+', ':', '\\', '~', '.']) || word.starts_with('-')
}

/// Numbers as they are meant: `1,000`, `1.5k`, `50%`, `5kg`, `2nd`.
fn number(word: &str) -> Option<Vec<String>> {
    let digits_end = word.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',').unwrap_or(word.len());
    let (digits, unit) = word.split_at(digits_end);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) || digits.matches('.').count() > 1 {
        return None;
    }
    let value: f64 = digits.replace(',', "").trim_end_matches('.').parse().ok()?;
    let (times, unit) = match unit {
        "k" => (1e3, ""),
        unit => (1.0, unit),
    };
    if !unit.chars().all(|c| c.is_alphabetic() || matches!(c, '%' | '°' | '€' | '$')) || unit.chars().count() > 3 {
        return None;
    }
    let value = (value * times).to_string();
    Some(match unit {
        "" => vec![value],
        "st" | "nd" | "rd" | "th" => vec![format!("{value}{unit}")],
        unit => vec![value, unit.to_owned()],
    })
}
