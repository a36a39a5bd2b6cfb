//! Annotation → the text that is embedded: `Signature: … | Summary: … | Code: …`.

use std::borrow::Cow;

/// Part of the embedding space: raise it whenever [`prepare`] gives another text for the same annotation.
pub const PREPARATION_VERSION: u32 = 1;

/// Characters kept per token that the model can see. Prose and code average 3–5 characters a token, so a text cut here
/// still fills the model; what it bounds is the work spent on text that no model would look at.
pub const CHARS_PER_TOKEN: usize = 8;

/// One node of a syntax tree, as the caller describes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Annotation {
    /// Identifies the node; stands in for a node without any text.
    pub node_id: String,
    /// The declaration.
    pub signature: String,
    /// What it does, in prose.
    pub summary: String,
    /// Its code.
    pub source_snippet: String,
}

/// A text that is ready to be embedded.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The text.
    pub text: String,
    /// Whether something was cut off its end.
    pub cut: bool,
}

/// The text to embed: comments stripped from the code, white space folded, cut to `max_chars` characters. Empty parts
/// are left out; a node with none gives `Node: <nodeId>`. Takes time linear in the annotation's length.
pub fn prepare(annotation: &Annotation, max_chars: usize) -> Prepared {
    let code = strip_comments(&annotation.source_snippet);
    let parts = [("Signature: ", annotation.signature.as_str()), ("Summary: ", &annotation.summary), ("Code: ", &code)];
    let mut text = Folded::new(max_chars);
    for (label, part) in parts {
        if part.chars().all(char::is_whitespace) {
            continue;
        }
        text.push(if text.is_empty() { "" } else { " | " });
        text.push(label);
        text.push(part);
    }
    if text.is_empty() {
        text.push("Node: ");
        text.push(&annotation.node_id);
    }
    text.finish()
}

/// A string that folds runs of white space into one space and stops at a number of characters.
struct Folded {
    text: String,
    left: usize,
    space: bool,
    cut: bool,
}

impl Folded {
    fn new(max_chars: usize) -> Self {
        Self { text: String::new(), left: max_chars, space: false, cut: false }
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn push(&mut self, part: &str) {
        for c in part.chars() {
            if c.is_whitespace() {
                self.space = !self.text.is_empty();
                continue;
            }
            if self.left > 0 && std::mem::take(&mut self.space) {
                self.text.push(' ');
                self.left -= 1;
            }
            if self.left == 0 {
                self.cut = true;
                return;
            }
            self.text.push(c);
            self.left -= 1;
        }
    }

    fn finish(mut self) -> Prepared {
        self.text.truncate(self.text.trim_end().len());
        Prepared { text: self.text, cut: self.cut }
    }
}

/// How a snippet writes its comments. The language is not known, so it is told from the shape of the snippet.
#[derive(Clone, Copy, PartialEq)]
enum Comments {
    /// `// …` and `/* … */`.
    Slashes,
    /// `# …`, where `//` is an operator.
    Hash,
}

fn comment_style(code: &str) -> Comments {
    let first = code.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let hash = first.starts_with("def ")
        || first.starts_with("async def ")
        || first.starts_with('@') && !code.contains('{')
        || first.starts_with("# ")
        || first.starts_with("#!")
        || first.ends_with(':') && !code.contains('{');
    if hash { Comments::Hash } else { Comments::Slashes }
}

/// `code` without its comments; what stands in a string literal stays. Where it is unsure it keeps the text: a comment
/// too many costs a few tokens, code too few costs the meaning.
fn strip_comments(code: &str) -> Cow<'_, str> {
    let style = comment_style(code);
    let mut kept = String::new();
    let mut copied = 0;
    let mut rest = code;
    while let Some(at) = rest.find(['/', '#', '"', '\'', '`', '\\']) {
        let here = code.len() - rest.len() + at;
        let tail = &code[here..];
        let comment = match style {
            Comments::Slashes if tail.starts_with("//") => Some(to_line_end(tail)),
            Comments::Slashes if tail.starts_with("/*") => Some(tail.find("*/").map_or(tail.len(), |end| end + 2)),
            Comments::Hash if tail.starts_with('#') => Some(to_line_end(tail)),
            _ => None,
        };
        let len = comment.unwrap_or_else(|| literal_len(tail));
        if comment.is_some() {
            kept.push_str(&code[copied..here]);
            // A space, so that `a/* */b` does not become one word.
            kept.push(' ');
            copied = here + len;
        }
        rest = &tail[len..];
    }
    if copied == 0 {
        return Cow::Borrowed(code);
    }
    kept.push_str(&code[copied..]);
    Cow::Owned(kept)
}

fn to_line_end(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// Length in bytes of the string literal that starts `text`, or of what is no literal: one character, or an escaped one
/// together with its backslash. Skipping those is what keeps the search linear: a quote that nothing closes is looked
/// for to the end of its line once, not once for each escaped quote behind it.
fn literal_len(text: &str) -> usize {
    if let Some(escaped) = text.strip_prefix('\\') {
        return 1 + escaped.chars().next().map_or(0, char::len_utf8);
    }
    for quotes in ["\"\"\"", "'''"] {
        if let Some(body) = text.strip_prefix(quotes) {
            return body.find(quotes).map_or(text.len(), |end| end + 2 * quotes.len());
        }
    }
    let quote = match text.as_bytes().first() {
        Some(quote @ (b'"' | b'\'' | b'`')) => *quote,
        _ => return 1,
    };
    let mut escaped = false;
    for (i, &byte) in text.as_bytes().iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'\n' if quote != b'`' => break,
            _ if byte == quote => return i + 1,
            _ => {}
        }
    }
    // Not closed on its line: an apostrophe or a Rust lifetime.
    1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn annotation(signature: &str, summary: &str, code: &str) -> Annotation {
        Annotation {
            node_id: "n1".into(),
            signature: signature.into(),
            summary: summary.into(),
            source_snippet: code.into(),
        }
    }

    fn code(code: &str) -> String {
        prepare(&annotation("", "", code), 10_000).text
    }

    #[test]
    fn parts_are_joined_and_white_space_is_folded() {
        let text = prepare(&annotation("fn  a()\n", " Adds.\t", "{\n    1\n}"), 1000).text;
        assert_eq!(text, "Signature: fn a() | Summary: Adds. | Code: { 1 }");
    }

    #[test]
    fn empty_parts_are_left_out_and_an_empty_node_gives_its_id() {
        assert_eq!(prepare(&annotation("", " \n", "x"), 1000).text, "Code: x");
        assert_eq!(prepare(&annotation("", "", ""), 1000).text, "Node: n1");
        assert_eq!(prepare(&annotation("f()", "", "// only a comment"), 1000).text, "Signature: f()");
    }

    #[test]
    fn comments_go_and_literals_stay() {
        assert_eq!(code("a(); // b\nc(); /* d\n e */ f()"), "Code: a(); c(); f()");
        assert_eq!(code("get(\"http://x\"); // y"), "Code: get(\"http://x\");");
        assert_eq!(code("let s = 'it\\'s // no'; // yes"), "Code: let s = 'it\\'s // no';");
        assert_eq!(code("`a // ${b}\n // c` // d"), "Code: `a // ${b} // c`");
        assert_eq!(code("fn f<'a>(x: &'a str) {} // gone"), "Code: fn f<'a>(x: &'a str) {}");
        assert_eq!(code("a/* */b"), "Code: a b");
        assert_eq!(code("x /* never closed"), "Code: x");
    }

    #[test]
    fn python_keeps_its_division_and_loses_its_hashes() {
        assert_eq!(code("def f(a):\n    # half\n    return a // 2  # floor"), "Code: def f(a): return a // 2");
        assert_eq!(code("def f():\n    '''doc # no'''\n    return '#'"), "Code: def f(): '''doc # no''' return '#'");
        assert_eq!(code("#[derive(Debug)]\nstruct A; // x"), "Code: #[derive(Debug)] struct A;");
        assert_eq!(code("this.#count // private"), "Code: this.#count");
    }

    #[test]
    fn what_is_cut_off_is_reported() {
        let prepared = |summary, max| prepare(&annotation("", summary, ""), max);
        assert_eq!(prepared("abc", 12), Prepared { text: "Summary: abc".into(), cut: false });
        assert_eq!(prepared("abc \n ", 12), Prepared { text: "Summary: abc".into(), cut: false });
        assert_eq!(prepared("abc d", 12), Prepared { text: "Summary: abc".into(), cut: true });
        assert_eq!(prepared("abc d", 13), Prepared { text: "Summary: abc".into(), cut: true });
    }

    #[test]
    fn ten_megabytes_of_escaped_quotes_take_no_time() {
        for line in ["\\'", "\\\"", "\\\\'", "'", "\"'`", "'\\"] {
            code(&line.repeat(1 << 20));
        }
    }

    proptest! {
        #[test]
        fn never_longer_than_asked_and_never_a_panic(s in any::<String>(), c in any::<String>(), max in 0usize..60) {
            let Prepared { text, .. } = prepare(&annotation(&s, "", &c), max);
            prop_assert!(text.chars().count() <= max);
            prop_assert_eq!(text.trim(), text.as_str());
        }

        #[test]
        fn quotes_slashes_and_hashes_in_any_order(c in "[/*#\"'`\\\\\n a:é]{0,40}") {
            code(&c);
        }
    }
}
