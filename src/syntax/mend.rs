//! Past what a grammar cannot read. An error takes what follows it along, for from there on braces are no pairs any more. So the
//! bodies of functions, where most code is and no declaration that others look for, are made blank by their indentation, and
//! the rest is read again.

use std::collections::HashSet;
use std::ops::Range;

use tree_sitter::{Node, Tree};

use super::{Grammar, Unparsed, parse};
use crate::cancel::Cancel;

/// How often a source is read again, at most.
const MOST_PASSES: usize = 4;

/// How many errors are looked at each time.
const MOST_FAULTS: usize = 256;

/// How what holds declarations is told from functions.
const HOLDERS: [&str; 15] = [
    "class",
    "enum",
    "extension",
    "extern",
    "impl",
    "interface",
    "mod",
    "module",
    "namespace",
    "object",
    "protocol",
    "record",
    "struct",
    "trait",
    "union",
];

/// What belongs to the line before that is indented as far.
const PARTS: [&str; 7] = ["{", "}", ")", "]", "else", "catch", "finally"];

/// A tree of `source` that lies as the source does and has fewer and smaller errors than `tree`, for it lacks the bodies of
/// functions. `None`: there is nothing to gain. Takes time in proportion to the source.
pub fn mended(source: &str, tree: &Tree, grammar: &Grammar, cancel: &Cancel) -> Result<Option<Tree>, Unparsed> {
    let mut least = lost(tree.root_node());
    // A body that is only indented must not be empty.
    if least == 0 || grammar.docstrings {
        return Ok(None);
    }
    let lines = lines(source, &inside_of_texts(tree.root_node()));
    let mut text = skeleton(&lines, grammar, source.len());
    let mut best = None;
    for _ in 0..MOST_PASSES {
        let Ok(rest) = std::str::from_utf8(&text) else { break };
        let tree = match parse(rest, grammar, cancel) {
            Err(Unparsed::Stopped(reason)) => return Err(Unparsed::Stopped(reason)),
            // What was found before is still good.
            Err(_) => break,
            Ok(tree) => tree,
        };
        let (errors, faults) = (lost(tree.root_node()), faults(tree.root_node()));
        // Where all is an error, what was blank may still have helped.
        if errors <= least {
            (least, best) = (errors, Some(tree));
        }
        if errors == 0 || faults.into_iter().filter(|row| blank_around(*row, &lines, &mut text)).count() == 0 {
            break;
        }
    }
    Ok(best)
}

/// Calls `each` with nodes, those around others first, and with what is inside of them where it says so.
fn walk<'tree>(root: Node<'tree>, mut each: impl FnMut(Node<'tree>) -> bool) {
    let mut cursor = root.walk();
    loop {
        if each(cursor.node()) && cursor.goto_first_child() {
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return;
            }
        }
    }
}

/// Bytes of errors, and how much is missing.
fn lost(root: Node<'_>) -> usize {
    let mut bytes = 0;
    walk(root, |node| {
        bytes += if node.is_error() { node.byte_range().len() } else { usize::from(node.is_missing()) };
        node.has_error() && !node.is_error()
    });
    bytes
}

/// The lines on which errors begin that are longer than one: the others cost nothing but that.
fn faults(root: Node<'_>) -> Vec<usize> {
    let mut rows = Vec::new();
    walk(root, |node| {
        if node.is_error() && is_long(node) && rows.len() < MOST_FAULTS {
            rows.push(innermost(node));
        }
        node.has_error() && !node.is_error()
    });
    rows.dedup();
    rows
}

fn is_long(node: Node<'_>) -> bool {
    node.end_position().row > node.start_position().row
}

/// The line of the first error in one that has none inside: where it is, not where that began which it broke.
fn innermost(error: Node<'_>) -> usize {
    let mut cursor = error.walk();
    let mut row = error.start_position().row;
    while cursor.goto_first_child() {
        while !cursor.node().has_error() {
            if !cursor.goto_next_sibling() {
                return row;
            }
        }
        row = cursor.node().start_position().row;
    }
    row
}

/// The lines that begin inside of a string or comment.
fn inside_of_texts(root: Node<'_>) -> HashSet<usize> {
    let mut rows = HashSet::new();
    walk(root, |node| {
        let is_text = node.kind().contains("string") || node.kind().contains("comment");
        if is_text && is_long(node) {
            rows.extend(node.start_position().row + 1..=node.end_position().row);
        }
        !is_text && is_long(node)
    });
    rows
}

struct Line<'source> {
    start: usize,
    text: &'source str,
    /// Its text without white space around.
    code: &'source str,
    /// `None`: it is blank, or for the preprocessor, or inside of a text, and may be indented in any way.
    indent: Option<usize>,
    in_text: bool,
}

fn lines<'source>(source: &'source str, inside_of_texts: &HashSet<usize>) -> Vec<Line<'source>> {
    let mut start = 0;
    let line = |(row, text): (usize, &'source str)| {
        let (code, in_text) = (text.trim(), inside_of_texts.contains(&row));
        let indent =
            (!code.is_empty() && !code.starts_with('#') && !in_text).then(|| text.len() - text.trim_start().len());
        start += text.len();
        Line { start: start - text.len(), text, code, indent, in_text }
    };
    source.split_inclusive('\n').enumerate().map(line).collect()
}

impl Line<'_> {
    fn range(&self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    fn begins_with_any(&self, of: &[&str]) -> bool {
        of.iter().any(|part| self.code.starts_with(part))
    }

    /// Its macros, by their names, that stand where the grammar has no place for them: alone, or before what is declared.
    fn macros(&self) -> Vec<Range<usize>> {
        let is_macro = |word: &str| {
            word.contains('_') && word.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
        };
        let end = self.code.find('(').filter(|_| self.code.ends_with(')')).unwrap_or(self.code.len());
        if self.code.get(..end).is_some_and(is_macro) {
            return vec![self.range()];
        }
        let words = self.text.split(|char: char| !char.is_alphanumeric() && char != '_');
        let at = |word: &str| word.as_ptr().addr() - self.text.as_ptr().addr();
        let places = words.filter(|word| is_macro(word)).map(|word| at(word)..at(word) + word.len());
        let stands = |place: &Range<usize>| {
            !self.text.get(place.end..).unwrap_or_default().trim_start().starts_with(['(', ':', '='])
        };
        places.filter(stands).map(|place| self.start + place.start..self.start + place.end).collect()
    }

    /// Whether it says that declarations are inside of what it begins.
    fn holds(&self, grammar: &Grammar) -> bool {
        self.code.split(|char: char| !char.is_alphanumeric() && char != '<' && char != ',').any(|word| {
            // In C, values have no methods. After `<`, it is about a parameter.
            HOLDERS.contains(&word) && !(grammar.declarators && word == "enum")
        })
    }
}

/// Where the lines are.
#[derive(Clone, Copy)]
enum Place {
    Members,
    /// In what comes before a body, which may have several lines.
    Head {
        indent: usize,
        holds: bool,
    },
    /// In a body, and what is to stand for it.
    Body {
        indent: usize,
        stand_in: &'static str,
    },
}

/// The source with the bodies of functions, and values of several lines, blank.
fn skeleton(lines: &[Line<'_>], grammar: &Grammar, length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length);
    lines.iter().for_each(|line| text.extend_from_slice(line.text.as_bytes()));
    let mut place = Place::Members;
    for line in lines {
        let Some(indent) = line.indent else {
            if line.in_text && matches!(place, Place::Body { .. }) {
                fill(&mut text, line, "");
            }
            continue;
        };
        let is_label =
            line.code.strip_suffix(':').is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_alphabetic()));
        if grammar.declarators && !matches!(place, Place::Body { indent: of, .. } if indent > of) {
            let macros = line.macros();
            for place in &macros {
                text.get_mut(place.clone()).map(blank);
            }
            if macros.first() == Some(&line.range()) {
                continue;
            }
        }
        place = match place {
            Place::Body { indent: of, stand_in } if indent > of => {
                fill(&mut text, line, stand_in);
                Place::Body { indent: of, stand_in: "" }
            }
            Place::Body { indent: of, .. } if indent == of && line.begins_with_any(&PARTS) => {
                Place::Body { indent, stand_in: "" }
            }
            Place::Head { indent: of, .. } if indent > of && line.code.starts_with("=>") => {
                fill(&mut text, line, ";");
                Place::Body { indent: of, stand_in: "" }
            }
            Place::Head { indent: of, holds } if indent > of || indent == of && line.begins_with_any(&PARTS) => {
                after(line, of, holds || line.holds(grammar))
            }
            // In C++ and others, those are indented less than what they are about.
            _ if is_label || line.begins_with_any(&["//", "/*", "*", "@", "[", "}", ")", "]"]) => Place::Members,
            _ => after(line, indent, line.holds(grammar)),
        };
    }
    text
}

/// Where the line after one is that belongs to a head.
fn after(line: &Line<'_>, indent: usize, holds: bool) -> Place {
    let ends = |end: &str| line.code.ends_with(end);
    match () {
        () if ends("{") && holds || ends("}") => Place::Members,
        () if ends("{") || ends(";") => Place::Body { indent, stand_in: "" },
        () if ends("=") || ends("=>") => Place::Body { indent, stand_in: "0;" },
        () if ends("= (") || ends("= [") => Place::Body { indent, stand_in: "0" },
        () => Place::Head { indent, holds },
    }
}

fn blank(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|byte| !matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
}

/// Makes a line blank but for what stands for it, if there is room; whether anything was there.
fn fill(text: &mut [u8], line: &Line<'_>, stand_in: &str) -> bool {
    let Some(bytes) = text.get_mut(line.range()) else { return false };
    let any = bytes.iter().any(|byte| !byte.is_ascii_whitespace());
    blank(bytes);
    let at = line.indent.unwrap_or(0);
    if let Some(place) = bytes.get_mut(at..at + stand_in.len()).filter(|place| place.iter().all(|byte| *byte == b' ')) {
        place.copy_from_slice(stand_in.as_bytes());
    }
    any
}

/// Makes all between the braces blank that a line is in; whether anything was there.
fn blank_around(row: usize, lines: &[Line<'_>], text: &mut [u8]) -> bool {
    let Some(indent) = lines.get(row).and_then(|line| line.indent).filter(|indent| *indent > 0) else { return false };
    let above = lines.iter().enumerate().take(row).rev().filter_map(|(at, line)| Some((at, line.indent?)));
    let head = above.into_iter().find(|(_, of)| *of < indent);
    let Some((head, indent)) = head.filter(|(head, _)| lines.get(*head).is_some_and(|line| line.code.ends_with('{')))
    else {
        return false;
    };
    let inside = || lines.iter().skip(head + 1);
    let ends = |line: &Line<'_>| line.indent == Some(indent) && line.code.starts_with('}');
    match inside().position(ends) {
        Some(end) => inside().take(end).filter(|line| fill(text, line, "")).count() > 0,
        None => false,
    }
}
