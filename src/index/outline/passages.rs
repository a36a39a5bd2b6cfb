//! Text in no language that is known: chunks of it, each with the end of the one before.

use std::ops::Range;

use super::prose::{cut, folded};
use super::{Declaration, MAX_DECLARATIONS, MAX_NAME, MAX_SIGNATURE};
use crate::cancel::Cancel;
use crate::chunks::{Characters, Document, Format, SplitOptions, split};
use crate::error::Error;
use crate::syntax::Kind;

/// Characters of a chunk, and of those how many the next one repeats, at most: about as much as a function, and its last lines.
const MOST: usize = 1200;
const OVERLAP: usize = 200;

/// The chunks of `source`, each called by its file and its first line.
pub fn passages(source: &str, path: &str, cancel: &Cancel) -> Result<Vec<Declaration>, Error> {
    let document = Document { text: source.to_owned(), path: None };
    let options = SplitOptions { most: MOST, overlap: OVERLAP, format: Format::Text, language: None };
    let own = cut(path.rsplit('/').next().unwrap_or(path), MAX_NAME);
    let (mut starts, mut ends) = (Place::of(source), Place::of(source));
    let chunks = split(&document, &options, &Characters, cancel)?;
    // A little one that the next one repeats as a whole tells nothing.
    let next = chunks.iter().skip(1).map(|next| next.utf16.start).chain([usize::MAX]);
    let told = chunks.iter().zip(next).filter(|(chunk, next)| chunk.utf16.start < *next).map(|(chunk, _)| chunk);
    let found = told.take(MAX_DECLARATIONS).filter_map(|chunk| {
        let Range { start, end } = chunk.utf16.clone();
        let code = source.get(starts.at(start)..ends.at(end))?.trim_end();
        let first = code.lines().find(|line| !line.trim().is_empty())?;
        let lines = chunk.line..chunk.line + code.bytes().filter(|byte| *byte == b'\n').count();
        Some(Declaration {
            kind: Kind::Chunk,
            name: format!("{own}:{}", lines.start),
            lines,
            signature: folded(cut(first, MAX_SIGNATURE * 4), MAX_SIGNATURE),
            summary: String::new(),
            code: code.to_owned(),
        })
    });
    Ok(found.collect())
}

/// Where a UTF-16 unit is, in bytes; asked for with units that do not go back.
struct Place<'a> {
    rest: std::str::Chars<'a>,
    units: usize,
    bytes: usize,
}

impl<'a> Place<'a> {
    fn of(text: &'a str) -> Self {
        Self { rest: text.chars(), units: 0, bytes: 0 }
    }

    fn at(&mut self, unit: usize) -> usize {
        while self.units < unit {
            let Some(c) = self.rest.next() else { break };
            self.units += c.len_utf16();
            self.bytes += c.len_utf8();
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_into_chunks_that_overlap_and_miss_nothing() {
        let text: String = (0..200).map(|n| format!("key_{n} = größe 😀 number {n}\n\n")).collect();
        let found = passages(&text, "etc/app.conf", &Cancel::default()).unwrap();
        assert!(found.len() > 4, "{}", found.len());
        assert_eq!((found[0].name.as_str(), found[0].lines.start), ("app.conf:1", 1));
        let lines: Vec<&str> = text.lines().collect();
        for chunk in &found {
            assert!(chunk.code.chars().map(char::len_utf16).sum::<usize>() <= MOST);
            // Its lines are those of the file.
            assert_eq!(chunk.code, lines[chunk.lines.start - 1..chunk.lines.end].join("\n"));
            assert_eq!(chunk.signature, chunk.code.lines().next().unwrap());
        }
        let overlap = |pair: &[Declaration]| pair[1].lines.start <= pair[0].lines.end;
        assert!(found.windows(2).all(overlap), "{:?}", found.iter().map(|chunk| &chunk.lines).collect::<Vec<_>>());
        for n in 0..200 {
            assert!(found.iter().any(|chunk| chunk.code.contains(&format!("key_{n} ="))), "{n}");
        }
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        for text in ["", "\n \t\n", "\u{feff}"] {
            assert!(passages(text, "a", &Cancel::default()).unwrap().len() <= 1, "{text:?}");
        }
    }

    #[test]
    fn one_long_line_is_cut_too() {
        let found = passages(&"word ".repeat(10_000), "a.txt", &Cancel::default()).unwrap();
        assert!(found.len() > 30 && found.iter().all(|chunk| chunk.lines == (1..1)), "{}", found.len());
    }
}
