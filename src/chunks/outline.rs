//! Where a text may be cut, and what it stands under.

use super::Heading;
use crate::syntax;

/// How good a place is to cut at, the best first: the sections of each depth, from 0, then these.
pub type Level = u8;

/// The deepest level of sections.
pub const SECTIONS: Level = 6;
/// Paragraphs, lists, fences.
pub const BLOCK: Level = 7;
/// Lines that begin something.
pub const LINE: Level = 8;

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
    /// The titles of its sections, in order.
    pub fn titles(self) -> Vec<Heading> {
        let heading = |Section { start, title, around, .. }| Heading { start, title, around };
        self.sections.into_iter().map(heading).collect()
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
    /// For a text of so many bytes.
    pub fn new(length: usize) -> Self {
        Self { length, ..Self::default() }
    }

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
    pub fn code(&mut self, parts: Vec<syntax::Section>) {
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

    /// What was collected.
    pub fn finish(self, wraps: bool) -> Outline {
        let Self { mut breaks, sections, .. } = self;
        // Of several for one place, the best counts.
        breaks.sort_unstable();
        breaks.dedup_by_key(|(at, _)| *at);
        Outline { breaks, sections, wraps }
    }
}
