//! Where a text may be cut, and what it stands under.

use super::{Document, Format, SplitOptions, markdown};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::syntax::{self, Unparsed};

/// How good a place is to cut at, the best first: the sections of each depth, from 0, then these.
pub type Level = u8;

/// The deepest level of sections.
pub const SECTIONS: Level = 6;
/// Paragraphs, lists, fences.
pub const BLOCK: Level = 7;
/// Lines that begin something.
pub const LINE: Level = 8;

/// Longest code that is parsed, in bytes: longer ones are no code that somebody wrote.
const MOST_CODE: usize = 8 << 20;

/// The structure of a text.
#[derive(Debug, Default)]
pub struct Outline {
    /// Where it may be cut, in order: byte and level.
    pub breaks: Vec<(usize, Level)>,
    /// Its sections, in order of their beginnings.
    sections: Vec<Section>,
    /// Whether line breaks within paragraphs mean nothing.
    pub wraps: bool,
}

#[derive(Debug)]
struct Section {
    start: usize,
    end: usize,
    title: String,
    /// The section around it.
    around: Option<usize>,
}

impl Outline {
    /// Reads a text as the options say, or its path, or itself.
    ///
    /// # Errors
    /// What has stopped it.
    pub fn of(document: &Document, options: &SplitOptions, cancel: &Cancel) -> Result<Self> {
        let Document { text, path } = document;
        let extension = path.as_deref().and_then(extension).unwrap_or_default();
        let named = options.language.as_deref();
        let markdown =
            |name: &str| ["md", "markdown", "mdx", "mdown", "mkd"].iter().any(|known| known.eq_ignore_ascii_case(name));
        let format = match options.format {
            Format::Auto if named.is_some_and(markdown) => Format::Markdown,
            Format::Auto if named.is_some() => Format::Code,
            Format::Auto if markdown(extension) => Format::Markdown,
            Format::Auto if syntax::grammar(extension).is_some() => Format::Code,
            Format::Auto if extension.is_empty() && markdown::looks_like(text) => Format::Markdown,
            Format::Auto => Format::Text,
            format => format,
        };
        let mut builder = Builder { length: text.len(), ..Builder::default() };
        match format {
            Format::Markdown => markdown::read(text, &mut builder),
            Format::Code => {
                let grammar = named.and_then(syntax::grammar_of).or_else(|| syntax::grammar(extension));
                lines(text, true, &mut builder);
                if let Some(grammar) = grammar.filter(|_| text.len() <= MOST_CODE) {
                    match syntax::sections(text, grammar, cancel) {
                        Ok(sections) => builder.code(sections),
                        Err(Unparsed::Stopped(reason)) => return Err(reason),
                        // Then it is cut by its lines.
                        Err(Unparsed::Grammar | Unparsed::Slow) => {}
                    }
                }
            }
            Format::Text | Format::Auto => lines(text, false, &mut builder),
        }
        Ok(builder.finish(format == Format::Markdown))
    }

    /// The titles of the sections around a place, the outermost first.
    pub fn headings(&self, at: usize) -> Vec<String> {
        let mut titles = Vec::new();
        let mut next = self.sections.partition_point(|section| section.start <= at).checked_sub(1);
        while let Some(index) = next {
            let section = &self.sections[index];
            if at < section.end {
                titles.push(section.title.clone());
            }
            next = section.around;
        }
        titles.reverse();
        titles
    }
}

/// Blocks between blank lines; with `each`, lines are something by themselves.
fn lines(text: &str, each: bool, builder: &mut Builder) {
    let (mut at, mut blank) = (0, true);
    for line in text.split_inclusive('\n') {
        let is_blank = line.trim().is_empty();
        if !is_blank && (blank || each) {
            builder.mark(at, if blank { BLOCK } else { LINE });
        }
        blank = is_blank;
        at += line.len();
    }
}

fn extension(path: &str) -> Option<&str> {
    let name = path.rsplit(['/', '\\']).next()?;
    name.rsplit_once('.').map(|(_, extension)| extension)
}

/// Collects an [`Outline`].
#[derive(Debug, Default)]
pub struct Builder {
    length: usize,
    breaks: Vec<(usize, Level)>,
    sections: Vec<Section>,
    /// Headings whose sections have not ended: their levels and places.
    open: Vec<(usize, usize)>,
}

impl Builder {
    /// The text may be cut here.
    pub fn mark(&mut self, at: usize, level: Level) {
        self.breaks.push((at, level));
    }

    /// A section begins here, and ends where one of its level or of a higher one begins. `cut`: whether the text may be cut here.
    pub fn heading(&mut self, at: usize, level: usize, title: &str, cut: bool) {
        while let Some((_, last)) = self.open.pop_if(|(open, _)| *open >= level) {
            self.sections[last].end = at;
        }
        let around = self.open.last().map(|(_, index)| *index);
        self.open.push((level, self.sections.len()));
        self.sections.push(Section { start: at, end: self.length, title: title.to_owned(), around });
        if cut {
            self.mark(at, (level as Level - 1).min(SECTIONS));
        }
    }

    /// The parts of code.
    fn code(&mut self, parts: Vec<syntax::Section>) {
        for syntax::Section { start, end, depth, name } in parts {
            self.mark(start, (depth as Level).min(SECTIONS));
            if let Some(title) = name {
                while self.open.pop_if(|(end, _)| *end <= start).is_some() {}
                let around = self.open.last().map(|(_, index)| *index);
                self.open.push((end, self.sections.len()));
                self.sections.push(Section { start, end, title, around });
            }
        }
    }

    fn finish(self, wraps: bool) -> Outline {
        let Self { mut breaks, sections, .. } = self;
        // Of several for one place, the best counts.
        breaks.sort_unstable();
        breaks.dedup_by_key(|(at, _)| *at);
        Outline { breaks, sections, wraps }
    }
}
