//! Comments and signatures → one line of words.

/// How lines begin that speak to tools.
const DIRECTIVES: [&str; 16] = [
    "eslint",
    "@ts-",
    "prettier-",
    "nolint",
    "go:",
    "noqa",
    "istanbul",
    "c8 ",
    "v8 ",
    "biome-",
    "tslint",
    "jshint",
    "pylint",
    "type:",
    "region",
    "endregion",
];

/// How lines begin that speak of a part.
const TAGS: [&str; 7] = ["@", ":param", ":arg", ":return", ":rtype", ":raise", ":type"];

/// Where a comment begins to speak of parts.
const SECTIONS: [&str; 9] =
    ["Args", "Arguments", "Parameters", "Returns", "Raises", "Errors", "Panics", "Examples", "Safety"];

/// The words of a comment or docstring, without its markers, up to its first tag.
pub fn plain_comment(comment: &str, limit: usize) -> String {
    let unquoted = comment.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let comment = if unquoted.starts_with(['"', '\'']) { unquoted.trim_matches(['"', '\'']) } else { comment };
    let mut words = String::new();
    for line in comment.lines() {
        let line = line.trim().trim_start_matches(['/', '*', '!']).trim_end_matches(['/', '*']).trim();
        let line = line.trim_start_matches(['#', ' ']);
        let for_tools = DIRECTIVES.iter().any(|directive| line.starts_with(directive));
        if for_tools || !line.contains(|c: char| c.is_alphanumeric()) {
            continue;
        }
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
