//! What structure a text has: its options say how to read it, or its path, or it does itself.

use super::outline::{BLOCK, Builder, LINE, Outline};
use super::{Document, Format, SplitOptions, markdown};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::syntax::{self, Unparsed};

/// Longest code that is parsed, in bytes: longer ones are no code that somebody wrote.
const MOST_CODE: usize = 8 << 20;

/// What Markdown is called, and endings of its files.
pub const MARKDOWN: [&str; 5] = ["markdown", "md", "mdx", "mdown", "mkd"];

/// Reads a text as the options say, or its path, or itself.
///
/// # Errors
/// What has stopped it.
pub fn outline(document: &Document, options: &SplitOptions, cancel: &Cancel) -> Result<Outline> {
    let Document { text, path } = document;
    let extension = path.as_deref().and_then(extension).unwrap_or_default();
    let named = options.language.as_deref();
    let markdown = |name: &str| MARKDOWN.iter().any(|known| known.eq_ignore_ascii_case(name));
    let format = match options.format {
        Format::Auto if named.is_some_and(markdown) => Format::Markdown,
        Format::Auto if named.is_some() => Format::Code,
        Format::Auto if markdown(extension) => Format::Markdown,
        Format::Auto if syntax::grammar(extension).is_some() => Format::Code,
        Format::Auto if extension.is_empty() && markdown::looks_like(text) => Format::Markdown,
        Format::Auto => Format::Text,
        format => format,
    };
    let mut builder = Builder::new(text.len());
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
