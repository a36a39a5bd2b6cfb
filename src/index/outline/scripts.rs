//! The scripts of files that are mostly markup: those of Vue and Svelte.

/// `source` with all but its scripts blank, so that lines stay where they are, and the extension of what the scripts are in.
pub fn scripts(source: &str) -> (String, &'static str) {
    let mut kept = String::with_capacity(source.len());
    let mut extension = "js";
    let mut rest = source;
    while let Some(at) = rest.find('<') {
        let (before, tag) = rest.split_at(at);
        blank(before, &mut kept);
        if let Some(comment) = tag.strip_prefix("<!--") {
            let end = comment.find("-->").map_or(tag.len(), |end| end + "<!---->".len());
            blank(&tag[..end], &mut kept);
            rest = &tag[end..];
            continue;
        }
        if !tag[1..].starts_with(|c: char| c.is_ascii_alphabetic()) {
            blank("<", &mut kept);
            rest = &tag[1..];
            continue;
        }
        // What never ends is no tag, but a comparison in a template.
        let Some((inner, inside)) = tag_and_rest(tag) else {
            blank("<", &mut kept);
            rest = &tag[1..];
            continue;
        };
        blank(&tag[..tag.len() - inside.len()], &mut kept);
        let name = inner.split(|c: char| c.is_whitespace()).next().unwrap_or_default();
        if !name.eq_ignore_ascii_case("script") {
            rest = inside;
            continue;
        }
        let attributes = &inner[name.len()..];
        let end = closing(inside);
        kept.push_str(&inside[..end]);
        rest = &inside[end..];
        let lang = |names: &[&str]| {
            let compact: String =
                attributes.chars().filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\'')).collect();
            names.iter().any(|name| compact.contains(&format!("lang={name}")))
        };
        extension = match () {
            () if lang(&["tsx", "jsx"]) || extension == "tsx" => "tsx",
            () if lang(&["ts"]) || extension == "ts" => "ts",
            () => extension,
        };
    }
    blank(rest, &mut kept);
    (kept, extension)
}

/// Of a text that begins with a tag: what is in the tag, and what follows it.
fn tag_and_rest(tag: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    // Only a value is quoted; an apostrophe elsewhere is text.
    let mut is_value = false;
    for (at, byte) in tag.bytes().enumerate().skip(1) {
        match (quote, byte) {
            (None, b'>') => return Some((&tag[1..at], &tag[at + 1..])),
            (None, b'<') => return None,
            (None, b'"' | b'\'') if is_value => quote = Some(byte),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
        is_value = byte == b'=' || is_value && byte.is_ascii_whitespace();
    }
    None
}

/// Where the script ends that begins `inside`: as browsers see it, also within a string.
fn closing(inside: &str) -> usize {
    let ends = |at: &usize| inside.get(at + 2..at + 8).is_some_and(|name| name.eq_ignore_ascii_case("script"));
    inside.match_indices("</").map(|(at, _)| at).find(ends).unwrap_or(inside.len())
}

fn blank(text: &str, kept: &mut String) {
    kept.extend(text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
}
