//! Source code → syntax trees, and what they tell about where code begins and ends.

mod language;
mod packed;
mod structure;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tree_sitter::{ParseOptions, Parser, Tree};

use crate::cancel::Cancel;
use crate::error::Error;

pub use language::{Grammar, Kind, extensions, grammar, grammar_of};
pub use structure::{Section, sections};

/// A file whose parse takes longer is made to hurt parsers: a megabyte of ordinary code takes half a second, the worst
/// that is known takes two. Long enough that a busy machine leaves out nothing that an idle one takes.
const MAX_PARSE: Duration = Duration::from_secs(20);

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
pub fn parse(source: &str, grammar: &Grammar, cancel: &Cancel) -> Result<Tree, Unparsed> {
    let mut parser = Parser::new();
    let language = (grammar.language)().ok_or(Unparsed::Grammar)?;
    parser.set_language(&language).map_err(|_| Unparsed::Grammar)?;
    let bytes = source.as_bytes();
    let started = Instant::now();
    let mut stop = |_: &_| {
        let goes_on = started.elapsed() <= MAX_PARSE && cancel.check().is_ok();
        if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let options = ParseOptions::new().progress_callback(&mut stop);
    let tree = parser.parse_with_options(&mut |at, _| &bytes[at.min(bytes.len())..], None, Some(options));
    cancel.check().map_err(Unparsed::Stopped)?;
    tree.ok_or(Unparsed::Slow)
}
