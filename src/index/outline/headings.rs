//! Markdown: a section for each heading, with what stands under it up to the next one.

use super::prose::{cut, folded};
use super::{Declaration, MAX_CODE, MAX_DECLARATIONS, MAX_NAME, MAX_SIGNATURE, MAX_SUMMARY};
use crate::chunks::headings;
use crate::syntax::Kind;

/// The sections of `source` under which something is written.
pub fn sections(source: &str) -> Vec<Declaration> {
    let headings = headings(source);
    let ends = headings.iter().skip(1).map(|next| next.start).chain([source.len()]);
    let (mut line, mut at) = (1, 0);
    let mut found = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for (heading, end) in headings.iter().zip(ends) {
        let own = cut(&heading.title, MAX_NAME);
        let name = heading
            .around
            .and_then(|around| names.get(around))
            .map_or_else(|| own.to_owned(), |around| joined(around, own));
        names.push(name.clone());
        line += newlines(&source[at..heading.start]);
        at = heading.start;
        let text = source[heading.start..end].trim_end();
        let (head, body) = text.split_once('\n').unwrap_or((text, ""));
        // The line that makes a heading of the one above.
        let body = body.trim_start();
        let underlined = body
            .lines()
            .next()
            .is_some_and(|line| !head.starts_with('#') && line.trim_end().chars().all(|c| matches!(c, '=' | '-')));
        let body = if underlined { body.split_once('\n').map_or("", |(_, body)| body) } else { body }.trim();
        if body.is_empty() || name.is_empty() {
            continue;
        }
        let prose = cut(body.split("\n\n").next().unwrap_or_default(), MAX_SUMMARY * 2);
        let prose: Vec<&str> =
            prose.lines().filter(|line| !line.starts_with("```") && !line.starts_with("~~~")).collect();
        let signature = folded(head, MAX_SIGNATURE);
        found.push(Declaration {
            kind: Kind::Section,
            name,
            lines: line..line + newlines(text),
            signature,
            summary: folded(&prose.join("\n"), MAX_SUMMARY),
            code: cut(text, MAX_CODE).to_owned(),
        });
        if found.len() >= MAX_DECLARATIONS {
            break;
        }
    }
    found
}

/// A title after those around it, as far as there is room.
fn joined(around: &str, own: &str) -> String {
    if around.len() + own.len() < MAX_NAME { format!("{around}.{own}") } else { own.to_owned() }
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}
