//! A prompt → words, numbers, signs, and what is in quotes.

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
    /// Whether it is a participle that stands for its verb: "how is X done" asks how X is to do.
    pub active: bool,
}

/// A word that is put in.
pub fn plain_word(word: &str) -> Token {
    Token { word: word.to_owned(), exact: false, name: false, bound: true, ends: false, active: false }
}

/// Whether it is a word like any other.
pub fn is_plain(token: &Token) -> bool {
    !token.exact && !token.name
}

/// Signs that mean nothing by themselves.
const PUNCTUATION: &str = ".?!:;,\"'’‘“”¿¡…–—";

/// Words, numbers, signs that mean something, and what is in quotes.
pub fn tokens(text: &str) -> Vec<Token> {
    let characters: Vec<char> = text.chars().collect();
    let mut tokens: Vec<Token> = Vec::new();
    let mut begins_sentence = true;
    let mut at = 0;
    while at < characters.len() {
        let character = characters[at];
        if !tokens.is_empty() && begins_text(&characters, at) {
            // What is to be worked on: letter by letter.
            let rest: String = characters[at + 1..].iter().collect();
            let rest: Vec<&str> = rest.split_whitespace().collect();
            if let Some(last) = tokens.last_mut() {
                (last.bound, last.ends) = (false, true);
            }
            push(&mut tokens, rest.join(" "), true, false);
            break;
        }
        if let Some(end) = quoted(&characters, at) {
            let word: String = characters[at + 1..end].iter().collect();
            push(&mut tokens, word.trim().to_owned(), true, false);
            at = end + 1;
            begins_sentence = false;
        } else if is_part(character) || starts_code(&characters, at) {
            let end = end_of_word(&characters, at);
            let word: String = characters[at..end].iter().collect();
            at = end;
            push_word(&mut tokens, &word, begins_sentence);
            begins_sentence = false;
        } else if let Some(end) = operator(&characters, at) {
            push(&mut tokens, characters[at..end].iter().collect(), true, false);
            at = end;
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
            let is_dash = is_dash(character);
            if is_dash && is_minus(&characters, at) {
                push(&mut tokens, "-".to_owned(), false, false);
            } else if !character.is_whitespace() && !PUNCTUATION.contains(character) && !is_dash {
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
    tokens.push(Token { word, exact, name, bound: true, ends: false, active: false });
}

fn is_part(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn is_dash(character: char) -> bool {
    matches!(character, '-' | '–' | '—' | '−')
}

/// A dash before a number, or between two, is a sign; one between words is none.
fn is_minus(characters: &[char], at: usize) -> bool {
    let is_digit = |character: Option<&char>| character.is_some_and(char::is_ascii_digit);
    let after = characters[at + 1..].iter().find(|character| **character != ' ');
    let before = characters[..at].iter().rfind(|character| **character != ' ');
    is_digit(characters.get(at + 1)) || is_digit(before) && is_digit(after)
}

/// Signs that operators are made of.
const OPERATORS: &str = "=<>+*/&|^~%$@-!?:.";

/// Where an operator ends that begins at `at`: `!=`, `->`, `??`, the `!` of `!x` and of `5!`; or a sign that is spoken of:
/// "what does ; do". Signs that only end a sentence are none.
fn operator(characters: &[char], at: usize) -> Option<usize> {
    let length = characters[at..].iter().take_while(|character| OPERATORS.contains(**character)).count();
    let before = at.checked_sub(1).map(|before| characters[before]);
    let alone = before.is_none_or(char::is_whitespace);
    let mut end = at + length;
    let run = &characters[at..end];
    let ends_sentences = |character: &char| matches!(character, '!' | '?' | ':' | '.');
    if matches!(run, ['!'] | ['!', '?']) && before.is_some_and(|before| before.is_ascii_digit()) {
        return Some(at + 1);
    }
    let mut rest = characters[end..].iter().skip_while(|character| matches!(character, ' ' | '\t'));
    let goes_on = rest.next().is_some_and(|next| next.is_lowercase() || next.is_ascii_digit());
    let spaced = characters.get(end).is_none_or(|next| next.is_whitespace());
    // "cd .." and "git add ." do not end with a sign of punctuation.
    if alone && !run.is_empty() && at > 0 && run.iter().all(|character| *character == '.') {
        return Some(end);
    }
    if matches!(characters[at], ',' | ';' | '"' | '\'') {
        let next = characters.get(at + 1).is_some_and(|next| next.is_whitespace());
        let lowercase = characters.get(at + 2).is_some_and(|next| next.is_lowercase());
        return (alone && next && lowercase).then_some(at + 1);
    }
    if run.iter().all(ends_sentences) {
        let prefix = alone && !spaced && goes_on && run.iter().all(|character| *character == '!');
        return (length > 0 && (alone && spaced && goes_on || prefix)).then_some(end);
    }
    if spaced && !goes_on {
        end -= run.iter().rev().take_while(|character| ends_sentences(character)).count();
    }
    let is_word = characters[at..end].iter().all(|character| is_dash(*character));
    (end > at + 1 && !is_word).then_some(end)
}

/// Whether a text follows that a prompt is about: behind a colon, or on lines of its own.
fn begins_text(characters: &[char], at: usize) -> bool {
    let next = characters.get(at + 1);
    let sets_apart = match characters[at] {
        ':' => next.is_some_and(|next| next.is_whitespace()),
        '\n' => true,
        _ => false,
    };
    sets_apart && characters[at + 1..].iter().any(|character| is_part(*character))
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

fn push_word(tokens: &mut Vec<Token>, word: &str, begins_sentence: bool) {
    let straight = word.replace('’', "'");
    let lower = straight.to_lowercase();
    if let Some(number) = number(&straight) {
        for part in number {
            push(tokens, part, false, true);
        }
        return;
    }
    if let Some(bits) = bits(&straight) {
        push(tokens, bits, false, false);
        return;
    }
    let counted = tokens.last().is_some_and(|last| last.word.ends_with(|end: char| end.is_ascii_digit()));
    if lower == "am" && counted {
        push(tokens, MORNING.to_owned(), false, false);
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
    (mixed && !shouted)
        || word.contains(['_', '/', '@', '#', '+', ':', '\\', '~', '.'])
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
