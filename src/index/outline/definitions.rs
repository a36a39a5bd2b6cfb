//! SQL: what its `CREATE` statements define. The dialects agree on these and on little else, so they are found by their words.

use std::ops::Range;

use super::prose::{cut, folded, plain_comment};
use super::{Declaration, MAX_CODE, MAX_DECLARATIONS, MAX_HEAD, MAX_NAME, MAX_SIGNATURE, MAX_SUMMARY};
use crate::cancel::Cancel;
use crate::error::Error;
use crate::syntax::Kind;

/// Words between `CREATE` and what is created, at most: `OR REPLACE DEFINER = a@b SQL SECURITY INVOKER`.
const MAX_WORDS: usize = 16;

/// How many tokens are looked at before somebody may stop it.
const TOKENS: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Word,
    /// A name in quotes.
    Name,
    Comment,
    /// A text in quotes.
    Text,
    Mark(u8),
}

/// The definitions in `source`.
pub fn definitions(source: &str, cancel: &Cancel) -> Result<Vec<Declaration>, Error> {
    let mut found = Vec::new();
    let mut tokens = Tokens { source, at: 0 };
    let mut comment: Option<Range<usize>> = None;
    let mut lines = Lines { source, at: 0, line: 1 };
    let mut begins = true;
    let mut seen = 0;
    while let Some((token, range, leads)) = tokens.next() {
        seen += 1;
        if seen % TOKENS == 0 {
            cancel.check()?;
        }
        if token == Token::Comment {
            let close = |before: &Range<usize>| {
                source[before.end..range.start].bytes().filter(|byte| *byte == b'\n').count() < 2
            };
            let start = comment.filter(close).map_or(range.start, |before| before.start);
            comment = Some(start..range.end);
            continue;
        }
        // Scripts of several dialects change what ends a statement; a line that begins with the word is clear enough.
        let first = begins || leads;
        begins = token == Token::Mark(b';');
        let above = comment.take();
        if !(first && token == Token::Word && source[range.clone()].eq_ignore_ascii_case("create")) {
            continue;
        }
        let Some(definition) = definition(&mut tokens) else { continue };
        let Definition { kind, name, head, end } = definition;
        let above =
            above.filter(|above| source[above.end..range.start].bytes().filter(|byte| *byte == b'\n').count() <= 1);
        let summary = above.map_or_else(String::new, |above| {
            let text: Vec<&str> =
                cut(&source[above], MAX_SUMMARY * 4).lines().map(|line| line.trim().trim_start_matches('-')).collect();
            plain_comment(&text.join("\n"), MAX_SUMMARY)
        });
        found.push(Declaration {
            kind,
            name,
            lines: lines.of(range.start)..lines.of(end),
            signature: folded(cut(&source[range.start..head], MAX_HEAD), MAX_SIGNATURE),
            summary,
            code: cut(&source[range.start..end], MAX_CODE).to_owned(),
        });
        begins = true;
        if found.len() >= MAX_DECLARATIONS {
            break;
        }
    }
    Ok(found)
}

struct Definition {
    kind: Kind,
    name: String,
    /// Where its signature ends, and where it does.
    head: usize,
    end: usize,
}

/// What is defined behind `CREATE`.
fn definition(tokens: &mut Tokens<'_>) -> Option<Definition> {
    let source = tokens.source;
    let mut kind = None;
    for _ in 0..MAX_WORDS {
        let before = tokens.at;
        let (token, range, _) = tokens.next()?;
        let word = source[range].to_ascii_lowercase();
        kind = match word.as_str() {
            "table" | "view" | "type" | "domain" => Some(Kind::Type),
            "function" | "procedure" | "proc" | "trigger" | "macro" | "event" | "rule" => Some(Kind::Function),
            "package" => Some(Kind::Class),
            // Others have no code, or it is none that somebody looks for.
            "index" | "role" | "user" | "database" | "schema" | "extension" | "sequence" => return None,
            _ if token == Token::Mark(b';') => {
                tokens.at = before;
                return None;
            }
            _ => continue,
        };
        break;
    }
    let kind = kind?;
    let mut name = String::new();
    let mut named = 0;
    // `IF NOT EXISTS a.b`, and Oracle's `PACKAGE BODY a`.
    loop {
        let before = tokens.at;
        let Some((token, range, _)) = tokens.next() else { break };
        let text = &source[range];
        let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
        match token {
            Token::Comment => {}
            Token::Word if name.is_empty() && is(&["if", "not", "exists", "body", "concurrently"]) => {}
            Token::Word | Token::Name if named == 0 || name.ends_with('.') => {
                name.push_str(text.trim_matches(['"', '`', '[', ']']));
                named += 1;
            }
            Token::Mark(b'.') if named > 0 => name.push('.'),
            _ => {
                tokens.at = before;
                break;
            }
        }
    }
    if name.is_empty() || name.len() > MAX_NAME {
        return None;
    }
    let (mut head, mut end) = (None, tokens.at);
    let (mut round, mut depth) = (0usize, 0usize);
    let mut after_end = false;
    loop {
        let before = tokens.at;
        let Some((token, range, leads)) = tokens.next() else { break };
        let text = &source[range.clone()];
        let is = |words: &[&str]| token == Token::Word && words.iter().any(|word| text.eq_ignore_ascii_case(word));
        // A delimiter of its own, a batch's end, or the next definition where this one was not ended.
        let over = is(&["go", "create", "delimiter"]) || matches!(token, Token::Mark(b'/' | b'$'));
        if leads && depth == 0 && over {
            tokens.at = before;
            break;
        }
        if token != Token::Comment {
            end = range.end;
        }
        let routine = kind != Kind::Type;
        match token {
            Token::Mark(b'(') => {
                if !routine {
                    head = head.or(Some(range.start));
                }
                round += 1;
            }
            Token::Mark(b')') => round = round.saturating_sub(1),
            Token::Mark(b';') if depth == 0 => break,
            Token::Word => {
                if round == 0 && is(&["as", "begin", "is", "language"]) {
                    head = head.or(Some(range.start));
                }
                // `END IF` ends what did not begin a block.
                let blocks: &[&str] =
                    if after_end { &["if", "loop", "while", "repeat", "for"] } else { &["begin", "case"] };
                if routine && is(&["end"]) {
                    depth = depth.saturating_sub(1);
                } else if routine && is(blocks) {
                    depth += 1;
                }
            }
            Token::Text if routine && round == 0 => head = head.or(Some(range.start)),
            _ => {}
        }
        after_end = is(&["end"]);
    }
    let head = head.unwrap_or(end).min(end);
    Some(Definition { kind, name, head, end })
}

/// The line of places that come one after the other.
struct Lines<'source> {
    source: &'source str,
    at: usize,
    line: usize,
}

impl Lines<'_> {
    fn of(&mut self, at: usize) -> usize {
        self.line += self.source[self.at.min(at)..at].bytes().filter(|byte| *byte == b'\n').count();
        self.at = at;
        self.line
    }
}

/// How long the text in quotes is that begins there. Where a backslash before a quote escapes it, as in MySQL, and where it does not,
/// is told by what follows: no dialect has a word right behind a text.
fn text(rest: &str) -> usize {
    let mut from = 1;
    while let Some(at) = rest[from..].find('\'') {
        let end = from + at + 1;
        let escaped = rest[..end - 1].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
        if !(escaped && rest[end..].starts_with(|next: char| next.is_alphanumeric() || next == '_')) {
            return end;
        }
        from = end;
    }
    rest.len()
}

struct Tokens<'source> {
    source: &'source str,
    at: usize,
}

impl Iterator for Tokens<'_> {
    /// What it is, where, and whether it is the first of its line.
    type Item = (Token, Range<usize>, bool);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.source[self.at..];
        let start = self.at + (rest.len() - rest.trim_start().len());
        let leads = self.at == 0 || self.source[self.at..start].contains('\n');
        let rest = &self.source[start..];
        let first = rest.chars().next()?;
        let until = |skip: usize, end: &str| rest[skip..].find(end).map_or(rest.len(), |at| skip + at + end.len());
        let (token, length) = match first {
            '-' if rest.starts_with("--") => (Token::Comment, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (Token::Comment, until(2, "*/")),
            '\'' => (Token::Text, text(rest)),
            '"' => (Token::Name, until(1, "\"")),
            '`' => (Token::Name, until(1, "`")),
            '[' if rest[1..].starts_with(|c: char| c.is_alphabetic() || c == '_') => (Token::Name, until(1, "]")),
            '$' => match rest[1..].find(|c: char| !(c.is_alphanumeric() || c == '_')) {
                Some(at) if rest[at + 1..].starts_with('$') => (Token::Text, until(at + 2, &rest[..at + 2])),
                _ => (Token::Mark(b'$'), 1),
            },
            word if word.is_alphabetic() || word == '_' || word == '#' || word == '@' => {
                let is = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '#' | '@');
                (Token::Word, rest.find(|c: char| !is(c)).unwrap_or(rest.len()))
            }
            mark => (Token::Mark(u8::try_from(mark).unwrap_or(0)), mark.len_utf8()),
        };
        self.at = start + length;
        Some((token, start..self.at, leads))
    }
}
