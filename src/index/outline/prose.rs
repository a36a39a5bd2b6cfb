//! Comments and signatures → one line of words.

/// Words that speak to tools wherever a line of a comment begins with them.
const DIRECTIVES: [&str; 18] = [
    ":nodoc:",
    "eslint-disable",
    "eslint-disable-line",
    "eslint-disable-next-line",
    "eslint-enable",
    "eslint-env",
    "prettier-ignore",
    "prettier-ignore-start",
    "prettier-ignore-end",
    "biome-ignore",
    "biome-ignore-all",
    "biome-ignore-start",
    "biome-ignore-end",
    "@ts-ignore",
    "@ts-expect-error",
    "@ts-check",
    "@ts-nocheck",
    "nosec",
];

/// Tools that are spoken to with a colon right behind their name, or with nothing else on the line.
const TOOLS: [&str; 12] =
    ["noqa", "nolint", "tslint", "pylint", "mypy", "pyright", "ruff", "flake8", "isort", "yapf", "fmt", "lint"];

/// Tools that are told what not to count.
const COVERAGE: [&str; 4] = ["istanbul", "c8", "v8", "node:coverage"];
const COVERAGE_VERBS: [&str; 3] = ["ignore", "disable", "enable"];

/// Tools whose comments hold settings.
const CONFIGURED: [&str; 3] = ["eslint", "jshint", "jslint"];

/// How lines begin that speak of a part.
const TAGS: [&str; 11] =
    ["@", "\\", ":param", ":arg", ":return", ":rtype", ":raise", ":type", "- Parameter", "- Returns:", "- Throws:"];

/// How lines begin that describe the whole, in Doxygen's words.
const BRIEFS: [&str; 4] = ["@brief ", "\\brief ", "@short ", "\\short "];

/// Where a comment begins to speak of parts.
const SECTIONS: [&str; 9] =
    ["Args", "Arguments", "Parameters", "Returns", "Raises", "Errors", "Panics", "Examples", "Safety"];

/// How comments about a whole file say that they are: with a description behind the tag, or without.
const FILE_TAGS: [&str; 3] = ["@fileoverview", "@file", "@overview"];
const BARE_FILE_TAGS: [&str; 2] = ["@packageDocumentation", "@module"];

/// Whether a line of a comment says that it is about the whole file.
pub fn is_about_file(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or_default();
    FILE_TAGS.contains(&word) || BARE_FILE_TAGS.contains(&word)
}

/// Whether a line of a comment is for tools. `raw` is the line with its marker.
fn speaks_to_tools(raw: &str, line: &str) -> bool {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let second = rest.split_whitespace().next().unwrap_or_default();
    let tool = word.split(':').next().unwrap_or_default();
    // In comments alone on their line; in prose it is a word like others.
    let region = ["region", "endregion"].contains(&word)
        && (raw.starts_with("//") || raw.starts_with('#'))
        && (rest.split_whitespace().count() < 2 || second.starts_with(char::is_uppercase));
    region
        || DIRECTIVES.contains(&word.trim_end_matches(':'))
        || (TOOLS.contains(&tool) && (word.contains(':') || line == tool))
        || (COVERAGE.contains(&word) && COVERAGE_VERBS.contains(&second))
        || (CONFIGURED.contains(&word) && rest.contains(':'))
        || (word == "type:" && (second.starts_with("ignore") || second.starts_with('(')))
        || word.strip_prefix("go:").is_some_and(|verb| verb.starts_with(|c: char| c.is_ascii_lowercase()))
        || word == "+build"
}

/// The words of a comment or docstring, without its markers, up to its first tag.
pub fn plain_comment(comment: &str, limit: usize) -> String {
    let unmarked = comment.contains("<summary>").then(|| summary_element(comment));
    let comment = unmarked.as_deref().unwrap_or(comment);
    let unquoted = comment.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let comment = if unquoted.starts_with(['"', '\'']) { unquoted.trim_matches(['"', '\'']) } else { comment };
    let mut words = String::new();
    for raw in comment.lines() {
        let raw = raw.trim();
        let line = raw.trim_start_matches(['/', '*', '!']).trim_end_matches(['/', '*']).trim();
        let mut line = line.trim_start_matches(['#', ' ']);
        let for_tools = raw.starts_with(['/', '*', '#']) && speaks_to_tools(raw, line);
        if for_tools || !line.contains(|c: char| c.is_alphanumeric()) {
            continue;
        }
        if is_about_file(line) {
            let (tag, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            line = if FILE_TAGS.contains(&tag) { rest } else { "" };
        }
        line = BRIEFS.iter().find_map(|brief| line.strip_prefix(brief)).unwrap_or(line).trim_start();
        // Tags and sections describe parts, not the whole.
        if TAGS.iter().any(|tag| line.starts_with(tag)) || SECTIONS.contains(&line.trim_end_matches(':')) {
            break;
        }
        words.push_str(line);
        words.push(' ');
        if words.len() > limit {
            break;
        }
    }
    folded(&words, limit)
}

/// What C#'s `<summary>` holds, its elements replaced by what they name: `<see cref="Stack.Push"/>`.
fn summary_element(comment: &str) -> String {
    let inside = comment.split_once("<summary>").map_or("", |(_, inside)| inside);
    let inside = inside.split("</summary>").next().unwrap_or_default();
    let mut pieces = inside.split('<');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (element, text) = piece.split_once('>').unwrap_or((piece, ""));
        let mut quoted = element.split('"');
        plain.push_str(quoted.nth(1).map(|named| named.rsplit(':').next().unwrap_or(named)).unwrap_or_default());
        plain.push_str(text);
    }
    plain
}

/// `text` with runs of white space made one space, cut to `limit` bytes.
pub fn folded(text: &str, limit: usize) -> String {
    let mut folded = String::with_capacity(text.len().min(limit));
    for word in text.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.push_str(word);
        if folded.len() > limit {
            folded.truncate(folded.floor_char_boundary(limit));
            break;
        }
    }
    folded
}

/// `text` up to `limit` bytes, never inside a character.
pub fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}
