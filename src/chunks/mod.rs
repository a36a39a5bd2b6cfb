//! Long texts → chunks that a model reads whole: `generator.split`, `splitText`.
//!
//! A chunk ends at the highest structure that its limit lets it reach: a heading or a declaration, a block, a sentence, a word, a
//! grapheme. What begins inside a section does not run on into the next one. Texts are measured once, piece by piece as they are
//! needed, to know where a chunk may end at the latest; then the chunk itself is measured, as whoever reads it will, and made
//! shorter if that is more than the pieces were. All of it takes time in proportion to the text.
//!
//! Why not the crate `text-splitter`: it measures what it tries again and again, takes the whole text for one piece, tells neither
//! headings nor lines, and brings a dozen of crates; what it would save is `markdown` and half of this file.

mod cut;
mod markdown;
mod outline;
mod reading;

use std::ops::Range;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use cut::Cutter;

/// A heading of a text in Markdown.
pub struct Heading {
    /// Where it begins, in bytes.
    pub start: usize,
    /// Its title.
    pub title: String,
    /// Which heading before it, by its place among them, it stands under.
    pub around: Option<usize>,
}

/// The headings of a text in Markdown.
pub fn headings(text: &str) -> Vec<Heading> {
    let mut builder = outline::Builder::new(text.len());
    markdown::read(text, &mut builder);
    builder.finish(true).titles()
}

/// How a text is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// By its path, else by what it looks like.
    #[default]
    Auto,
    /// Paragraphs.
    Text,
    /// Headings, blocks and fences.
    Markdown,
    /// Declarations and statements, of a language that is known; else blank lines and lines.
    Code,
}

/// How texts are split.
#[derive(Debug, Clone, Default)]
pub struct SplitOptions {
    /// Most units of a chunk.
    pub most: usize,
    /// Units of a chunk that are repeated at the beginning of the next one, at most.
    pub overlap: usize,
    /// How texts are read.
    pub format: Format,
    /// The language of code.
    pub language: Option<String>,
}

/// What [`SplitOptions::language`] may be: names, then endings of files.
pub fn languages() -> impl Iterator<Item = &'static str> {
    let (endings, mut names): (Vec<_>, Vec<_>) = crate::syntax::extensions().unzip();
    names.sort_unstable();
    names.dedup();
    names.into_iter().chain(reading::MARKDOWN).chain(endings)
}

/// A text to be split.
#[derive(Debug, Clone, Default)]
pub struct Document {
    /// The text.
    pub text: String,
    /// Where it is from: its ending tells what it is.
    pub path: Option<String>,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it is, in UTF-16 units.
    pub utf16: Range<usize>,
    /// How many units it has, as it is read.
    pub size: usize,
    /// Its first line, from 1.
    pub line: usize,
    /// The headings, or the names of the declarations, that it stands under: the outermost first.
    pub headings: Vec<String>,
}

/// What a text is measured in.
pub trait Sizer: Sync {
    /// Where in `piece` each of its units begins, in bytes: about as many as it is measured to have as part of a chunk.
    ///
    /// # Errors
    /// Why nobody can tell.
    fn units(&self, piece: &str) -> Result<Vec<usize>>;

    /// How many units a chunk has when it is read, all that is put around it included.
    ///
    /// # Errors
    /// Why nobody can tell.
    fn size(&self, chunk: &str) -> Result<usize>;

    /// Longest chunk that can be measured, in bytes.
    fn most_bytes(&self) -> usize;
}

/// Characters, as JavaScript counts them.
pub struct Characters;

impl Sizer for Characters {
    fn units(&self, piece: &str) -> Result<Vec<usize>> {
        Ok(piece.char_indices().flat_map(|(at, c)| std::iter::repeat_n(at, c.len_utf16())).collect())
    }

    fn size(&self, chunk: &str) -> Result<usize> {
        Ok(chunk.chars().map(char::len_utf16).sum())
    }

    fn most_bytes(&self) -> usize {
        usize::MAX
    }
}

/// The chunks of a text, in order: all of it but white space between them.
///
/// # Errors
/// [`Error::InvalidArgument`] for a limit that has no room for a single character; what `sizer` cannot tell.
pub fn split(document: &Document, options: &SplitOptions, sizer: &dyn Sizer, cancel: &Cancel) -> Result<Vec<Chunk>> {
    let around = sizer.size("")?;
    if options.most <= around {
        return Err(Error::InvalidArgument(format!(
            "The limit of {} leaves no room for text: {around} are taken by what is put around it; give at least {}",
            options.most,
            around + 1
        )));
    }
    if options.overlap >= options.most - around {
        return Err(Error::InvalidArgument(format!(
            "overlap is {}, which leaves no room for anything new in chunks of {}: give less than {}",
            options.overlap,
            options.most,
            options.most - around
        )));
    }
    let outline = reading::outline(document, options, cancel)?;
    Cutter::new(&document.text, &outline, options, around, sizer, cancel).all()
}

#[cfg(test)]
mod tests;
