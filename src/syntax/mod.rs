//! Source code → syntax trees, and what they tell about where code begins and ends.

mod language;
mod mend;
mod packed;
mod structure;

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use tree_sitter::{ParseOptions, ParseState, Parser, Tree};

use crate::cancel::Cancel;
use crate::error::Error;
use crate::host::thread_seconds;

pub use language::{Grammar, Kind, extensions, grammar, grammar_of};
pub use mend::mended;
pub use structure::{Section, sections};

/// Processor time that a parse may take: a little, and in proportion to the source. Ordinary code takes a tenth of a microsecond a byte,
/// the strangest that people have written two; grammars take as long as they like for what was made for it.
const MOST_TIME: Duration = Duration::from_millis(500);
const MOST_TIME_PER_BYTE: Duration = Duration::from_micros(4);

/// Bytes that a lexer is given at once. What looks ahead again and again comes back for more, and may be stopped there.
const PIECE: usize = 4096;

/// After so many calls, each a hundred steps, at least so many bytes should have been parsed: half a byte a step, where people's code
/// has one and a half.
const WINDOW: usize = 64;
const LEAST_BYTES: usize = 3200;

/// Ends of what is nested take many steps for each, and are nothing strange.
const CLOSING: &[u8] = b"})];, \t\r\nend";

/// How long a hundred steps may take: they take a fiftieth of a millisecond.
const MOST_TIME_PER_CALL: Duration = Duration::from_millis(5);

/// How often the time of the processor is asked for: the calls in between had no more of it than that.
const SAMPLE: Duration = Duration::from_millis(1);

/// How much further a source is parsed first, in bytes, where that is so; then half as much again, each time.
const FURTHER: usize = 512;

/// Of so many bytes, so many are parsed by themselves first. There is text that a grammar takes for code, at a usual pace, until it comes to
/// the end of it and finds that nothing is closed: what it tries then takes time by the square of the length, and cannot be stopped.
const STRIDE: usize = 8192;
const SAMPLED: usize = 1024;

/// Lines of a run of comments that are parsed: at its beginning, which may be about the file, and at its end, above what it is about.
const FIRST_LINES: usize = 16;
const LAST_LINES: usize = 48;

/// Why there is no tree.
#[derive(Debug, Clone, PartialEq)]
pub enum Unparsed {
    /// The grammar is of another version of the library, which a test rules out.
    Grammar,
    /// It took too long.
    Slow,
    /// Nobody waits for it any more.
    Stopped(Error),
}

/// The syntax tree of `source`, errors in it included. Takes time in proportion to the source.
///
/// A parser may be stopped between two steps. Where it has gone into what it does not understand, one step of it may take minutes: that
/// at the end, which tries to make sense of all that is open. So a source in which it takes many steps for few bytes, or long for few
/// steps, is parsed as far as there first, and then a little further each time, for as long as that takes no longer than it may. So is one
/// of which a sample takes long by itself.
pub fn parse(source: &str, grammar: &Grammar, cancel: &Cancel) -> Result<Tree, Unparsed> {
    let mut parser = Parser::new();
    let language = (grammar.language)().ok_or(Unparsed::Grammar)?;
    parser.set_language(&language).map_err(|_| Unparsed::Grammar)?;
    let parsed = grammar.long_comments.map_or(Cow::Borrowed(source), |mark| without_long_comments(source, mark));
    let bytes = parsed.as_bytes();
    let dense = match slow_sample(&mut parser, bytes, cancel)? {
        Some(at) => at,
        None => match attempt(&mut parser, bytes, true, cancel)? {
            Attempt::Parsed(tree) => return Ok(tree),
            Attempt::Dense(at) => at,
        },
    };
    let mut more = FURTHER;
    while dense + more < bytes.len() {
        attempt(&mut parser, &bytes[..dense + more], false, cancel)?;
        more += more / 2;
    }
    match attempt(&mut parser, bytes, false, cancel)? {
        Attempt::Parsed(tree) => Ok(tree),
        Attempt::Dense(_) => Err(Unparsed::Slow),
    }
}

/// Where a sample of a long source begins that takes longer than it may.
fn slow_sample(parser: &mut Parser, bytes: &[u8], cancel: &Cancel) -> Result<Option<usize>, Unparsed> {
    if bytes.len() <= STRIDE {
        return Ok(None);
    }
    for at in (0..bytes.len()).step_by(STRIDE) {
        let sample = &bytes[at..bytes.len().min(at + SAMPLED)];
        let started = cpu_time();
        attempt(parser, sample, false, cancel)?;
        if cpu_time().saturating_sub(started) > MOST_TIME_PER_BYTE * u32::try_from(SAMPLED).unwrap_or(u32::MAX) {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Processor time of this thread.
fn cpu_time() -> Duration {
    Duration::from_secs_f64(thread_seconds())
}

enum Attempt {
    Parsed(Tree),
    /// From about there, it takes many steps for few bytes, or long for few steps.
    Dense(usize),
}

fn attempt(parser: &mut Parser, bytes: &[u8], watches: bool, cancel: &Cancel) -> Result<Attempt, Unparsed> {
    parser.reset();
    let most = MOST_TIME + MOST_TIME_PER_BYTE * u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let (started, began) = (cpu_time(), Instant::now());
    // A thread has had no more of a processor than time has passed, which is many times cheaper to ask for.
    let is_over = || began.elapsed() > most && cpu_time().saturating_sub(started) > most;
    let (over, ended) = (Cell::new(false), Cell::new(false));
    let goes_on = || {
        over.set(over.get() || is_over() || cancel.check().is_err());
        !over.get()
    };
    let mut dense = None;
    let (mut calls, mut from, mut last, mut sampled) = (0, 0, started, began);
    let mut stop = |state: &ParseState| {
        if watches && dense.is_none() {
            let at = state.current_byte_offset();
            calls += 1;
            let crawls = calls % WINDOW == 0 && {
                let before = std::mem::replace(&mut from, at);
                let latest = bytes.get(before.max(at.saturating_sub(64))..at.saturating_add(1).min(bytes.len()));
                let closes = || latest.is_some_and(|part| part.iter().all(|byte| CLOSING.contains(byte)));
                // At the end, what was made is put in order, which takes steps and no bytes.
                at < before + LEAST_BYTES && !ended.get() && !closes()
            };
            let stalls = sampled.elapsed() > SAMPLE && {
                let now = cpu_time();
                sampled = Instant::now();
                now.saturating_sub(std::mem::replace(&mut last, now)) > MOST_TIME_PER_CALL + SAMPLE
            };
            dense = (crawls || stalls).then_some(at);
        }
        if dense.is_none() && goes_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let options = ParseOptions::new().progress_callback(&mut stop);
    // A lexer that does not come to an end finds that of the text.
    let mut read = |at: usize, _| {
        let at = if goes_on() { at.min(bytes.len()) } else { bytes.len() };
        ended.set(ended.get() || at == bytes.len());
        &bytes[at..bytes.len().min(at + PIECE)]
    };
    let tree = parser.parse_with_options(&mut read, None, Some(options));
    cancel.check().map_err(Unparsed::Stopped)?;
    match (tree, dense) {
        (None, Some(at)) => Ok(Attempt::Dense(at)),
        (Some(tree), _) if !over.get() && !is_over() => Ok(Attempt::Parsed(tree)),
        _ => Err(Unparsed::Slow),
    }
}

/// The same text with the middle of long runs of comments blank: there are grammars that read all comments that follow with each.
fn without_long_comments<'a>(source: &'a str, mark: &str) -> Cow<'a, str> {
    let mut blanked: Option<Vec<u8>> = None;
    // Where the comments of the run lie.
    let mut run: Vec<Range<usize>> = Vec::new();
    let mut blank = |run: &mut Vec<Range<usize>>| {
        let middle = FIRST_LINES..run.len().saturating_sub(LAST_LINES);
        for line in run.drain(..).take(middle.end).skip(middle.start) {
            blanked.get_or_insert_with(|| source.as_bytes().to_vec())[line].fill(b' ');
        }
    };
    let mut at = 0;
    for line in source.split_inclusive('\n') {
        let text = line.trim();
        // What may end a string is more than a comment.
        if text.starts_with(mark) && !text.contains("\"\"\"") && !text.contains("'''") {
            let start = at + line.len() - line.trim_start().len();
            run.push(start..start + text.len());
        } else if !text.is_empty() {
            blank(&mut run);
        }
        at += line.len();
    }
    blank(&mut run);
    blanked.and_then(|bytes| String::from_utf8(bytes).ok()).map_or(Cow::Borrowed(source), Cow::Owned)
}

#[cfg(test)]
mod tests;
