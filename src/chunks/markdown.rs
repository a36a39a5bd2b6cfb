//! The structure of Markdown, line by line: headings, blocks, fences, lists and tables. Front matter and HTML are blocks.

use super::outline::{BLOCK, Builder, LINE};

/// Whether a text without a name looks like Markdown: it has a heading or a fence.
pub fn looks_like(text: &str) -> bool {
    unmarked(text).lines().take(1000).any(|line| heading(line).is_some() || fence(line).is_some())
}

/// Notes what is in a text.
pub fn read(text: &str, builder: &mut Builder) {
    let mut at = 0;
    // The fence that is open: its character and length.
    let mut open: Option<(u8, usize)> = None;
    // The line before: where it begins, if it is one of a paragraph that has begun with it.
    let mut paragraph: Option<usize> = None;
    let mut blank = true;
    // What comes right after a heading stays with it.
    let mut headed = false;
    let mut front = unmarked(text).lines().next().is_some_and(|line| line.trim_end() == "---")
        && text.lines().skip(1).any(|line| matches!(line.trim_end(), "---" | "..."));
    for line in text.split_inclusive('\n') {
        let begins = at;
        at += line.len();
        let line = if begins == 0 { unmarked(line) } else { line }.trim_end();
        if front {
            builder.mark(begins, if begins == 0 { BLOCK } else { LINE });
            front = begins == 0 || !matches!(line, "---" | "...");
            (blank, paragraph) = (true, None);
            continue;
        }
        if let Some((mark, length)) = open {
            builder.mark(begins, LINE);
            if fence(line).is_some_and(|(other, more, rest)| other == mark && more >= length && rest.is_empty()) {
                open = None;
                blank = true;
            }
            continue;
        }
        if let Some((mark, length, _)) = fence(line) {
            if !std::mem::take(&mut headed) {
                builder.mark(begins, BLOCK);
            }
            open = Some((mark, length));
            paragraph = None;
            continue;
        }
        if let Some((level, title)) = heading(line) {
            builder.heading(begins, level, title, !std::mem::replace(&mut headed, true));
            (blank, paragraph) = (true, None);
            continue;
        }
        if line.trim_start().is_empty() {
            (blank, paragraph) = (true, None);
            continue;
        }
        if let (Some(title), Some(level)) = (paragraph, underline(line)) {
            let text = text[title..begins].trim();
            builder.heading(title, level, text, true);
            (blank, paragraph, headed) = (true, None, true);
            continue;
        }
        if std::mem::take(&mut headed) {
            // Nothing is cut off it.
        } else if blank {
            builder.mark(begins, BLOCK);
        } else if begins_item(line) {
            builder.mark(begins, LINE);
        }
        paragraph = (blank && !begins_item(line)).then_some(begins);
        blank = false;
    }
}

/// Without the byte order mark that some editors put before a text.
fn unmarked(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The level and the title of a line that is a heading.
fn heading(line: &str) -> Option<(usize, &str)> {
    let text = unindented(line)?;
    let level = text.bytes().take_while(|byte| *byte == b'#').count();
    let rest = &text[level..];
    if !(1..=6).contains(&level) || !(rest.is_empty() || rest.starts_with([' ', '\t'])) {
        return None;
    }
    let title = rest.trim();
    let bare = title.trim_end_matches('#');
    Some((level, if bare.is_empty() || bare.ends_with([' ', '\t']) { bare.trim_end() } else { title }))
}

/// The level of the heading that a line of `=` or `-` makes of the line above.
fn underline(line: &str) -> Option<usize> {
    let text = unindented(line)?.trim_end();
    let of = |mark: char| text.len() >= 2 && text.chars().all(|c| c == mark);
    if of('=') { Some(1) } else { of('-').then_some(2) }
}

/// The character and the length of a fence, and what stands behind it.
fn fence(line: &str) -> Option<(u8, usize, &str)> {
    let text = unindented(line)?;
    let mark = *text.as_bytes().first().filter(|mark| matches!(mark, b'`' | b'~'))?;
    let length = text.bytes().take_while(|byte| *byte == mark).count();
    let rest = text[length..].trim();
    // What is behind backticks and has some itself is code within a line.
    (length >= 3 && !(mark == b'`' && rest.contains('`'))).then_some((mark, length, rest))
}

/// Four spaces make code.
fn unindented(line: &str) -> Option<&str> {
    let text = line.trim_start_matches(' ');
    (line.len() - text.len() <= 3).then_some(text)
}

/// Whether a line begins something of its own: an item of a list, a row of a table, a quotation, an element.
fn begins_item(line: &str) -> bool {
    let text = line.trim_start();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let numbered = (1..=9).contains(&digits) && text[digits..].starts_with(['.', ')']);
    numbered
        || text.starts_with("- ")
        || text.starts_with("* ")
        || text.starts_with("+ ")
        || text.starts_with(['|', '>', '<'])
}
