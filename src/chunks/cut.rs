//! Cuts a text, from its beginning to its end.

use std::borrow::Cow;

use rayon::prelude::*;
use unicode_segmentation::UnicodeSegmentation;

use super::outline::{BLOCK, Level, Outline, SECTIONS};
use super::{Chunk, Sizer, SplitOptions};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Bytes of a piece that is measured at once, and how many such are measured at the same time.
const PIECE: usize = 8 << 10;
const PIECES: usize = 32;

/// Bytes of a chunk for each unit, at most: words that a model does not know are one unit, however long they are.
const MOST_BYTES_A_UNIT: usize = 32;

/// A text on its way.
pub struct Cutter<'a> {
    text: &'a str,
    outline: &'a Outline,
    options: &'a SplitOptions,
    sizer: &'a dyn Sizer,
    cancel: &'a Cancel,
    /// Units that are put around each chunk.
    around: usize,
    /// Where each unit begins, of what was measured and may still be wanted.
    units: Vec<usize>,
    measured: usize,
    /// The end of what belongs to chunks already.
    done: usize,
    /// How far lines and UTF-16 units were counted.
    line: Position,
    start: Position,
    end: Position,
}

/// A byte of the text, and what was counted before it.
#[derive(Default)]
struct Position {
    at: usize,
    count: usize,
}

impl Position {
    fn go(&mut self, text: &str, to: usize, count: impl Fn(&str) -> usize) -> usize {
        // Places only go on.
        if to > self.at {
            self.count += count(&text[self.at..to]);
            self.at = to;
        }
        self.count
    }
}

impl<'a> Cutter<'a> {
    pub fn new(
        text: &'a str,
        outline: &'a Outline,
        options: &'a SplitOptions,
        around: usize,
        sizer: &'a dyn Sizer,
        cancel: &'a Cancel,
    ) -> Self {
        let (line, start, end) = Default::default();
        Self {
            text,
            outline,
            options,
            sizer,
            cancel,
            around,
            units: Vec::new(),
            measured: 0,
            done: 0,
            line,
            start,
            end,
        }
    }

    /// All chunks.
    pub fn all(mut self) -> Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        while self.done < self.text.len() {
            self.cancel.check()?;
            chunks.extend(self.next()?);
        }
        Ok(chunks)
    }

    /// The next chunk; none where there is only white space.
    fn next(&mut self) -> Result<Option<Chunk>> {
        let done = self.done;
        let from = self.overlapping()?;
        let mut cut = None;
        if from < done {
            cut = self.fitting(from)?;
        }
        let (from, (cut, size)) = match cut {
            Some(cut) => (from, cut),
            None => match self.fitting(done)? {
                Some(cut) => (done, cut),
                None => return Err(self.no_room(done)),
            },
        };
        self.done = cut;
        // What lies behind is not looked at again, but for what overlaps.
        let keep = self.units.partition_point(|unit| *unit < done);
        if keep > 2 * self.options.most + PIECE {
            self.units.drain(..keep - self.options.most);
        }
        let (Some((own, _)), Some((start, end))) = (self.trimmed(done, cut), self.trimmed(from, cut)) else {
            return Ok(None);
        };
        let utf16 = |text: &str| text.chars().map(char::len_utf16).sum();
        let line = self.line.go(self.text, start, |text| memchr::memchr_iter(b'\n', text.as_bytes()).count()) + 1;
        Ok(Some(Chunk {
            utf16: self.start.go(self.text, start, utf16)..self.end.go(self.text, end, utf16),
            size,
            line,
            headings: self.outline.headings(own),
        }))
    }

    /// The end of the chunk that begins at `from` and has something new, and how many units that has; none where there is none.
    fn fitting(&mut self, from: usize) -> Result<Option<(usize, usize)>> {
        let mut budget = self.options.most - self.around;
        let least = self.text[self.done..].chars().next().map_or(self.done, |c| self.done + c.len_utf8());
        // Where a piece says too little, as in the middle of a word: halves.
        let mut farthest = self.text.len();
        loop {
            let reach = self.reach(from, budget)?.min(farthest);
            if reach <= self.done {
                return Ok(None);
            }
            let cut = self.place(from, reach);
            let Some((start, end)) = self.trimmed(from, cut) else { return Ok(Some((cut, 0))) };
            let counted = self.counted(start, end);
            // As a whole: the units of its pieces need not be its own.
            let size = self.sizer.size(&self.text[start..end])?;
            if size <= self.options.most {
                return Ok(Some((cut, size)));
            }
            // Less, by what it is too much; at last a single character.
            if cut <= least {
                return Ok(None);
            }
            if cut >= farthest || budget == 0 {
                let half = self.text.floor_char_boundary(self.done + (cut - self.done) / 2);
                farthest = half.max(least);
            } else {
                farthest = cut;
            }
            budget = counted.min(budget).saturating_sub(size - self.options.most);
        }
    }

    /// How far a chunk from `from` reaches with so many units; at least to the next character.
    fn reach(&mut self, from: usize, budget: usize) -> Result<usize> {
        let first = loop {
            let first = self.units.partition_point(|unit| *unit < from);
            if self.measured == self.text.len() || self.units.len() > first + budget {
                break first;
            }
            // However few units there are.
            if self.measured - from.min(self.measured) > self.options.most.saturating_mul(MOST_BYTES_A_UNIT) {
                break first;
            }
            self.measure(budget)?;
        };
        let reach = self.units.get(first + budget).copied().unwrap_or(self.measured);
        let most = self.options.most.saturating_mul(MOST_BYTES_A_UNIT).min(self.sizer.most_bytes());
        let reach = self.text.floor_char_boundary(reach.min(from.saturating_add(most)));
        // What repeats something and has no room for more is no chunk.
        if from < self.done {
            return Ok(reach);
        }
        let least = self.text[self.done..].chars().next().map_or(self.text.len(), |c| self.done + c.len_utf8());
        Ok(reach.max(least))
    }

    /// Measures on, as far as `budget` units may reach and some more.
    fn measure(&mut self, budget: usize) -> Result<()> {
        let wanted = (budget * 4).clamp(1 << 10, PIECE * PIECES);
        let mut pieces = Vec::new();
        let mut at = self.measured;
        while at < self.text.len() && at - self.measured < wanted {
            let end = self.text.floor_char_boundary(at + PIECE.min(wanted));
            let end = if end >= self.text.len() {
                self.text.len()
            } else {
                // At white space, where pieces are words.
                let piece = &self.text[at..end];
                let line = piece.rfind('\n').map(|line| line + 1).filter(|line| *line > piece.len() / 2);
                at + line.or_else(|| piece.rfind(char::is_whitespace).filter(|at| *at > 0)).unwrap_or(piece.len())
            };
            pieces.push(at..end);
            at = end;
        }
        let units = |piece: std::ops::Range<usize>| {
            self.cancel.check()?;
            let units = self.sizer.units(&self.text[piece.clone()])?;
            Ok(units.into_iter().map(|unit| unit + piece.start).collect::<Vec<_>>())
        };
        let found = match pieces.len() {
            1 => pieces.into_iter().map(units).collect::<Result<Vec<_>>>()?,
            _ => pieces.into_par_iter().map(units).collect::<Result<Vec<_>>>()?,
        };
        found.into_iter().for_each(|units| self.units.extend(units));
        self.measured = at;
        Ok(())
    }

    fn counted(&self, from: usize, to: usize) -> usize {
        self.units.partition_point(|unit| *unit < to) - self.units.partition_point(|unit| *unit < from)
    }

    /// The best place to cut at, after what is done, up to `reach`.
    fn place(&self, from: usize, reach: usize) -> usize {
        let breaks = &self.outline.breaks;
        let first = breaks.partition_point(|(at, _)| *at <= self.done);
        let begun = match first.checked_sub(1).map(|at| breaks[at]) {
            // All of the text is above its sections.
            _ if self.done == 0 => 0,
            Some((at, level)) if at == self.done => level.min(BLOCK),
            _ => BLOCK,
        };
        let mut best: Option<(Level, usize)> = None;
        for (at, level) in breaks[first..].iter().copied().take_while(|(at, _)| *at <= reach) {
            // What has begun inside of a section ends with it.
            if level < begun && level <= SECTIONS {
                return at;
            }
            if best.is_none_or(|(found, _)| level <= found) {
                best = Some((level, at));
            }
        }
        match best {
            _ if reach == self.text.len() => reach,
            Some((_, at)) => at,
            None => self.place_in_line(from, reach),
        }
    }

    /// The end of a sentence, else of a word, else of a grapheme.
    fn place_in_line(&self, from: usize, reach: usize) -> usize {
        // What follows tells whether something ends there.
        let some = self.text.ceil_char_boundary((reach + 64).min(self.text.len()));
        let window = &self.text[from..some];
        let prose =
            if self.outline.wraps { Cow::Owned(window.replace(['\n', '\r'], " ")) } else { Cow::Borrowed(window) };
        let last = |bounds: &mut dyn Iterator<Item = usize>| {
            bounds.map(|at| from + at).take_while(|at| *at <= reach).filter(|at| *at > self.done).last()
        };
        let found = last(&mut prose.split_sentence_bound_indices().map(|(at, _)| at))
            .or_else(|| last(&mut window.split_word_bound_indices().map(|(at, _)| at)))
            .or_else(|| last(&mut window.grapheme_indices(true).map(|(at, _)| at)));
        found.unwrap_or(reach)
    }

    /// Where the next chunk begins.
    fn overlapping(&self) -> Result<usize> {
        let done = self.done;
        if self.options.overlap == 0 || done == 0 {
            return Ok(done);
        }
        let next = self.units.partition_point(|unit| *unit < done);
        let earliest = next.checked_sub(self.options.overlap).and_then(|at| self.units.get(at)).copied().unwrap_or(0);
        let earliest = self.text.ceil_char_boundary(earliest);
        let breaks = &self.outline.breaks;
        let place = breaks.get(breaks.partition_point(|(at, _)| *at < earliest)).filter(|(at, _)| *at < done);
        if let Some((at, _)) = place {
            return Ok(*at);
        }
        let window = &self.text[earliest..done];
        let at_space = |at: usize| at == 0 || window[..at].ends_with(char::is_whitespace);
        let sentence = window.split_sentence_bound_indices().map(|(at, _)| at).find(|at| *at > 0);
        let before = self.text[..earliest].chars().next_back();
        let whole = before.is_none_or(char::is_whitespace);
        let word =
            || window.split_word_bound_indices().map(|(at, _)| at).find(|at| (*at > 0 || whole) && at_space(*at));
        Ok(sentence.or_else(word).map_or(earliest, |at| earliest + at))
    }

    /// Without the blank lines before, the spaces in the middle of a line, and the white space behind.
    fn trimmed(&self, from: usize, to: usize) -> Option<(usize, usize)> {
        let text = &self.text[from..to];
        let end = from + text.trim_end().len();
        let begin = from + (text.len() - text.trim_start().len());
        if begin >= end {
            return None;
        }
        // The first line keeps its indentation.
        let indented = |c: char| c.is_whitespace() && c != '\n';
        let before = self.text[..begin].trim_end_matches(indented);
        let start = if before.is_empty() || before.ends_with('\n') { before.len().max(from) } else { begin };
        Some((start, end))
    }

    fn no_room(&self, at: usize) -> Error {
        let c = self.text[at..].chars().next().unwrap_or(' ');
        Error::InvalidArgument(format!(
            "The limit of {} leaves no room for the single character {c:?}: give more",
            self.options.most
        ))
    }
}
