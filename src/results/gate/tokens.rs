//! A prompt → words, numbers, signs, and what is in quotes. In time linear in its length.

use super::courtesy::is_courtesy;
use super::grammar::{AUXILIARIES, QUESTION_WORDS};
use super::token::{Case, Kind, PART, Token};

/// Signs that mean nothing by themselves.
const PUNCTUATION: &str = ".?!:;,\"'’‘“”¿¡…–—";

/// Signs that operators are made of.
const OPERATORS: &str = "=<>+*/&|^~%$@-!?:.";

/// Words, numbers, signs that mean something, and what is in quotes.
pub fn tokens(text: &str) -> Vec<Token> {
    let characters: Vec<char> = text.chars().collect();
    let mut lexer =
        Lexer { ahead: Ahead::of(&characters), text: &characters, tokens: Vec::new(), begins_sentence: true };
    lexer.run();
    let mut tokens = lexer.tokens;
    if tokens.is_empty() {
        // Nothing but punctuation.
        tokens.push(Token::new(text.trim(), Kind::Exact, Case::Lower));
    }
    if let Some(last) = tokens.last_mut() {
        (last.comma, last.ends) = (false, true);
    }
    tokens
}

/// What is known of the text ahead, so that nobody has to look for it twice.
struct Ahead {
    /// The last letter or digit.
    part: Option<usize>,
    /// The last sign that closes a quotation, for each of `CLOSING`.
    closing: [Option<usize>; CLOSING.len()],
}

const CLOSING: [char; 5] = ['`', '"', '”', '\'', '’'];

impl Ahead {
    fn of(text: &[char]) -> Self {
        let closing = CLOSING.map(|close| (0..text.len()).rfind(|&at| text[at] == close && closes(text, at)));
        Self { part: text.iter().rposition(|character| is_part(*character)), closing }
    }

    fn closes(&self, close: char, from: usize) -> bool {
        let last = CLOSING.iter().position(|one| *one == close).and_then(|at| self.closing[at]);
        last.is_some_and(|last| last >= from)
    }
}

/// Whether a sign that may close a quotation does so: an apostrophe does not inside of a word.
fn closes(text: &[char], at: usize) -> bool {
    !matches!(text[at], '\'' | '’') || text.get(at + 1).is_none_or(|next| !is_part(*next))
}

struct Lexer<'a> {
    text: &'a [char],
    ahead: Ahead,
    tokens: Vec<Token>,
    begins_sentence: bool,
}

impl Lexer<'_> {
    fn run(&mut self) {
        let mut at = 0;
        // Where a run of signs ends that has been found to be punctuation.
        let mut punctuation = 0;
        while at < self.text.len() {
            let character = self.text[at];
            if !self.tokens.is_empty() && self.begins_text(at) {
                // What is to be worked on: letter by letter.
                let rest: String = self.text[at + 1..].iter().collect();
                let rest: Vec<&str> = rest.split_whitespace().collect();
                self.end_sentence();
                self.push(rest.join(" "), Kind::Exact, Case::Lower);
                break;
            }
            if let Some(end) = self.quoted(at) {
                let word: String = self.text[at + 1..end].iter().collect();
                self.push(word.trim(), Kind::Exact, Case::Lower);
                at = end + 1;
            } else if is_part(character) || self.starts_code(at) {
                let end = self.end_of_word(at);
                let word: String = self.text[at..end].iter().collect();
                self.push_word(&word.replace('’', "'"));
                at = end;
            } else if let Some(end) = (at >= punctuation).then(|| self.operator(at, &mut punctuation)).flatten() {
                let word: String = self.text[at..end].iter().collect();
                self.push(word, Kind::Sign, Case::Lower);
                at = end;
            } else {
                self.sign(at);
                at += 1;
            }
        }
    }

    fn sign(&mut self, at: usize) {
        let character = self.text[at];
        match character {
            '.' | '?' | '!' | ':' | '\n' => self.end_sentence(),
            ',' | ';' => {
                if let Some(last) = self.tokens.last_mut() {
                    last.comma = true;
                }
            }
            _ => {}
        }
        if is_dash(character) {
            if self.is_minus(at) {
                self.push("-", Kind::Sign, Case::Lower);
            }
        } else if !character.is_whitespace() && !PUNCTUATION.contains(character) {
            self.push(character, Kind::Sign, Case::Lower);
        }
    }

    fn end_sentence(&mut self) {
        self.begins_sentence = true;
        if let Some(last) = self.tokens.last_mut() {
            last.ends = true;
        }
    }

    fn push(&mut self, word: impl Into<String>, kind: Kind, case: Case) {
        let initial = std::mem::take(&mut self.begins_sentence);
        self.tokens.push(Token { initial, ..Token::new(word, kind, case) });
    }

    /// A dash before a number, or between two, is a sign; one between words is none.
    fn is_minus(&self, at: usize) -> bool {
        let is_digit = |character: Option<&char>| character.is_some_and(char::is_ascii_digit);
        let after = self.text[at + 1..].iter().find(|character| **character != ' ');
        let before = self.text[..at].iter().rfind(|character| **character != ' ');
        is_digit(self.text.get(at + 1)) || is_digit(before) && is_digit(after)
    }

    /// Where an operator ends that begins at `at`: `!=`, `->`, `??`, the `!` of `!x` and of `5!`; or a sign that is spoken
    /// of: "what does ; do". Signs that only end a sentence are none: `punctuation` is where they end.
    fn operator(&self, at: usize, punctuation: &mut usize) -> Option<usize> {
        let text = self.text;
        let length = text[at..].iter().take_while(|character| OPERATORS.contains(**character)).count();
        let before = at.checked_sub(1).map(|before| text[before]);
        let alone = before.is_none_or(char::is_whitespace);
        let mut end = at + length;
        let run = &text[at..end];
        let ends_sentences = |character: &char| matches!(character, '!' | '?' | ':' | '.');
        if matches!(run, ['!'] | ['!', '?']) && before.is_some_and(|before| before.is_ascii_digit()) {
            return Some(at + 1);
        }
        if matches!(text[at], ',' | ';' | '"' | '\'') {
            let next = text.get(at + 1).is_some_and(|next| next.is_whitespace());
            let lowercase = text.get(at + 2).is_some_and(|next| next.is_lowercase());
            return (alone && next && lowercase).then_some(at + 1);
        }
        if run.is_empty() {
            return None;
        }
        // "cd .." and "git add ." do not end with a sign of punctuation.
        if alone && at > 0 && run.iter().all(|character| *character == '.') {
            return Some(end);
        }
        let mut rest = text[end..].iter().skip_while(|character| matches!(character, ' ' | '\t'));
        let goes_on = rest.next().is_some_and(|next| next.is_lowercase() || next.is_ascii_digit());
        let spaced = text.get(end).is_none_or(|next| next.is_whitespace());
        if run.iter().all(ends_sentences) {
            let prefix = alone && !spaced && goes_on && run.iter().all(|character| *character == '!');
            *punctuation = end;
            return (alone && spaced && goes_on || prefix).then_some(end);
        }
        if spaced && !goes_on {
            end -= run.iter().rev().take_while(|character| ends_sentences(character)).count();
        }
        *punctuation = at + length;
        let is_word = text[at..end].iter().all(|character| is_dash(*character));
        (end > at + 1 && !is_word).then_some(end)
    }

    /// Whether a text follows that a prompt is about: behind a colon, or on lines of its own.
    fn begins_text(&self, at: usize) -> bool {
        let next = self.text.get(at + 1);
        let sets_apart = match self.text[at] {
            ':' => next.is_some_and(|next| next.is_whitespace()),
            '\n' => true,
            _ => false,
        };
        sets_apart && self.ahead.part.is_some_and(|last| last > at) && !self.said_courtesy()
    }

    /// Whether the sentence so far is courtesy: "quick question: …".
    fn said_courtesy(&self) -> bool {
        self.tokens.rsplit(|token| token.ends).next().is_some_and(is_courtesy)
    }

    /// Where a quotation that begins at `at` ends. An apostrophe begins none inside of a word.
    fn quoted(&self, at: usize) -> Option<usize> {
        let close = match self.text[at] {
            '`' => '`',
            '"' => '"',
            '“' => '”',
            '\'' if at == 0 || !is_part(self.text[at - 1]) => '\'',
            '‘' => '’',
            _ => return None,
        };
        let ends = |&end: &usize| self.text[end] == close && closes(self.text, end);
        self.ahead.closes(close, at + 2).then(|| (at + 2..self.text.len()).find(ends)).flatten()
    }

    /// Paths, flags and names of files begin with a sign.
    fn starts_code(&self, at: usize) -> bool {
        let next = self.text.get(at + 1);
        let alone = at == 0 || self.text[at - 1].is_whitespace();
        alone
            && match self.text[at] {
                '/' | '.' | '@' | '#' | '~' | '\\' | '$' => next.is_some_and(|next| is_part(*next)),
                '-' => next.is_some_and(|next| *next == '-' || next.is_alphabetic()),
                _ => false,
            }
    }

    /// A word goes on over signs that are inside of names, numbers and contractions.
    fn end_of_word(&self, start: usize) -> usize {
        let text = self.text;
        let mut end = start + 1;
        while end < text.len() {
            let (before, character) = (text[end - 1], text[end]);
            let next = text.get(end + 1).copied().unwrap_or(' ');
            let joins = match character {
                '\'' | '’' => is_part(before) && next.is_alphabetic(),
                '.' | '/' | ':' | '@' | '\\' | '~' => is_part(next) || (character == next && character != '.'),
                ',' => before.is_ascii_digit() && next.is_ascii_digit(),
                '-' => is_part(next) || next == '-' || before == '-',
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

    fn push_word(&mut self, word: &str) {
        if let Some(number) = number(word) {
            for part in number {
                self.push(part, Kind::Sign, Case::Lower);
            }
            return;
        }
        let counted = self.tokens.last().is_some_and(|last| last.word.ends_with(|end: char| end.is_ascii_digit()));
        if let Some(unit) = bits(word).or_else(|| (counted && word.eq_ignore_ascii_case("am")).then(|| MORNING.into()))
        {
            return self.push(unit, Kind::Sign, Case::Lower);
        }
        if is_code(word) {
            return self.push(word, Kind::Exact, Case::Lower);
        }
        // "New-York", "vegan-friendly": two words, as they might be written.
        if word.contains('-') {
            return word.split('-').filter(|part| !part.is_empty()).for_each(|part| self.push_word(part));
        }
        let lower = word.to_lowercase();
        match contraction(&lower) {
            Some((stem, ending)) => {
                self.push(stem, Kind::Word, case(&word[..word.find('\'').unwrap_or(0)]));
                self.push(ending, Kind::Word, Case::Lower);
            }
            None => self.push(lower, Kind::Word, case(word)),
        }
    }
}

fn is_part(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn is_dash(character: char) -> bool {
    matches!(character, '-' | '–' | '—' | '−')
}

/// "don't" → "do not"; "Anna's" → "Anna 's". Without its apostrophe, too, where nothing else is written so.
fn contraction(lower: &str) -> Option<(&str, &'static str)> {
    let denied = |stem| match stem {
        "ca" => Some("can"),
        "wo" => Some("will"),
        "sha" => Some("shall"),
        _ => AUXILIARIES.contains(&stem).then_some(stem),
    };
    let is_what = |stem: &str| QUESTION_WORDS.contains(&stem) || matches!(stem, "that" | "it" | "there" | "he" | "she");
    if let Some((stem, ending)) = lower.split_once('\'') {
        return Some(match ending {
            "t" => (denied(stem.strip_suffix('n')?)?, "not"),
            "s" if stem == "let" => (stem, "us"),
            "s" if is_what(stem) => (stem, "is"),
            "s" => (stem, "'s"),
            "m" => (stem, "am"),
            "re" => (stem, "are"),
            "ve" => (stem, "have"),
            "ll" => (stem, "will"),
            "d" => (stem, "would"),
            _ => return None,
        });
    }
    let stem = lower.strip_suffix("nt").or_else(|| lower.strip_suffix("nnot").filter(|stem| *stem == "ca"));
    // "wont" is a word.
    match stem.filter(|stem| *stem != "wo").and_then(denied) {
        Some(verb) => Some((verb, "not")),
        None => lower
            .strip_suffix('s')
            .filter(|stem| matches!(*stem, "what" | "where" | "who" | "how" | "that"))
            .map(|stem| (stem, "is")),
    }
}

fn case(word: &str) -> Case {
    if word == "I" {
        return Case::Lower;
    }
    let mut letters = word.chars();
    let first = letters.next().is_some_and(char::is_uppercase);
    let rest = letters.as_str();
    match (first, rest.contains(char::is_uppercase), rest.contains(char::is_lowercase)) {
        (true, false, _) => Case::Title,
        (false, false, _) => Case::Lower,
        (true, true, false) => Case::Upper,
        (true, true, true) if is_compound(word) => Case::Compound,
        _ => Case::Mixed,
    }
}

/// "JavaScript", "GitHub": capital letters only where a part begins, and no part is short.
fn is_compound(word: &str) -> bool {
    let capital = |letter: char| letter.is_uppercase();
    word.split_inclusive(capital)
        .skip(1)
        .map(|part| part.chars().filter(|letter| !capital(*letter)).count() + 1)
        .all(|length| length >= PART)
        && word.chars().all(char::is_alphabetic)
}

/// KeyHasher of programs: a capital letter behind a small one, a digit, an underscore, a path, a file, an address.
fn is_code(word: &str) -> bool {
    let small = word.chars().next().is_some_and(char::is_lowercase);
    // "utf-8" is a word and a number, as "UTF-8" is.
    let mixed = |part: &str| part.contains(|c: char| c.is_ascii_digit()) && part.contains(char::is_lowercase);
    small && word.contains(char::is_uppercase)
        || word.split('-').any(mixed)
        || word.contains(['_', '/', '@', '#', '+', ':', '\\', '~', '.', '$'])
        || word.starts_with('-')
        || word.ends_with("--")
}

/// The hours before noon, of which "am" is a verb.
const MORNING: &str = "a.m.";

/// Numbers as they are meant: `1,000`, `1.5k`, `50%`, `5kg`, `2nd`. Digit by digit otherwise: 3.10 is no 3.1, 007 no 7,
/// and 1,5 no 15.
fn number(word: &str) -> Option<Vec<String>> {
    let digits_end = word.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',').unwrap_or(word.len());
    let (digits, unit) = word.split_at(digits_end);
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    let grouped = groups.all(|group| group.len() == 3 && is_number(group)) && (first.len() <= 3 || first == whole);
    if !is_number(first) || !grouped || !fraction.is_none_or(is_number) {
        return None;
    }
    let mut value = digits.replace(',', "");
    if !unit.chars().all(|c| c.is_alphabetic() || matches!(c, '%' | '°' | '€' | '$')) || unit.chars().count() > 3 {
        return None;
    }
    let lower = unit.to_lowercase();
    // "mW" is a billionth of "MW".
    let small = unit.strip_prefix('m').is_some_and(|rest| rest.contains(char::is_uppercase));
    Some(match lower.as_str() {
        "" => vec![value],
        "st" | "nd" | "rd" | "th" => vec![format!("{value}{lower}")],
        "k" => {
            let thousands: f64 = value.parse().ok()?;
            value = (thousands * 1e3).to_string();
            vec![value]
        }
        "am" => vec![value, MORNING.to_owned()],
        _ if small => vec![value, unit.to_owned()],
        _ => vec![value, bits(unit).unwrap_or(lower)],
    })
}

/// "Mb" is an eighth of "MB"; those who write neither capital mean bytes.
fn bits(unit: &str) -> Option<String> {
    matches!(unit, "Kb" | "Mb" | "Gb" | "Tb").then(|| format!("{}bit", unit[..1].to_lowercase()))
}
