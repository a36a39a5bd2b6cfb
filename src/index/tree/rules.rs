//! Ignore files: lines → which paths they exclude, as git reads them.

use super::glob::Glob;

/// The lines of one ignore file.
#[derive(Default)]
pub struct Rules(Vec<Rule>);

struct Rule {
    /// Begins with `!`: what it matches is not ignored.
    keeps: bool,
    /// Ends with `/`: matches directories only.
    directories: bool,
    /// Has no other `/`: matches names at any depth.
    names: bool,
    pattern: Pattern,
}

enum Pattern {
    Exact(Vec<u8>),
    /// `*.pyc`, by far the most frequent with a wildcard.
    Suffix(Vec<u8>),
    Glob(Glob),
}

impl Rules {
    /// Reads an ignore file. `fold`: whether upper and lower case are the same.
    pub fn parse(text: &[u8], fold: bool) -> Self {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        Self(text.split(|&byte| byte == b'\n').filter_map(|line| Rule::parse(line, fold)).collect())
    }

    /// Whether the last rule that matches ignores `path`, which begins where the file lies; `None` if none matches.
    pub fn ignore(&self, path: &[u8], directory: bool) -> Option<bool> {
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        let matches = |rule: &&Rule| {
            (directory || !rule.directories) && rule.pattern.matches(if rule.names { name } else { path })
        };
        self.0.iter().rev().find(matches).map(|rule| !rule.keeps)
    }
}

impl Rule {
    fn parse(line: &[u8], fold: bool) -> Option<Self> {
        if line.first() == Some(&b'#') {
            return None;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.split(|&byte| byte == 0).next().unwrap_or_default();
        let line = without_trailing_spaces(line);
        let (keeps, line) = line.strip_prefix(b"!").map_or((false, line), |rest| (true, rest));
        let (directories, line) = line.strip_suffix(b"/").map_or((false, line), |rest| (true, rest));
        let names = !line.contains(&b'/');
        let line = line.strip_prefix(b"/").unwrap_or(line);
        Some(Self { keeps, directories, names, pattern: Pattern::new(line, fold)? })
    }
}

impl Pattern {
    fn new(pattern: &[u8], fold: bool) -> Option<Self> {
        let plain = |pattern: &[u8]| !fold && !pattern.iter().any(|byte| b"*?[\\".contains(byte));
        match pattern {
            [] => None,
            _ if plain(pattern) => Some(Self::Exact(pattern.to_vec())),
            [b'*', suffix @ ..] if plain(suffix) && !suffix.contains(&b'/') => Some(Self::Suffix(suffix.to_vec())),
            _ => Glob::new(pattern, fold).map(Self::Glob),
        }
    }

    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => path == wanted,
            Self::Suffix(suffix) => path.strip_suffix(&suffix[..]).is_some_and(|rest| !rest.contains(&b'/')),
            Self::Glob(glob) => glob.matches(path),
        }
    }
}

/// Spaces at the end count only after a backslash.
fn without_trailing_spaces(line: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        at += if byte == b'\\' { 2 } else { 1 };
        if byte != b' ' {
            end = at;
        }
    }
    &line[..end.min(line.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_matches_decides() {
        let rules = Rules::parse(
            b"\xef\xbb\xbf*.log\r\n# a comment\n!keep.log\nbuild/\n/top\nsrc/gen\nspaced  \nkept\\ \n\\#x\n",
            false,
        );
        let ignored = |path: &str, directory| rules.ignore(path.as_bytes(), directory);
        assert_eq!(ignored("a/b.log", false), Some(true));
        assert_eq!(ignored("keep.log", false), Some(false));
        assert_eq!((ignored("build", false), ignored("x/build", true)), (None, Some(true)));
        assert_eq!((ignored("top", false), ignored("a/top", false)), (Some(true), None));
        assert_eq!((ignored("src/gen", true), ignored("a/src/gen", true)), (Some(true), None));
        assert_eq!(
            (ignored("spaced", false), ignored("kept ", false), ignored("#x", false)),
            (Some(true), Some(true), Some(true))
        );
        assert!(Rules::parse(b"A.ts", true).ignore(b"a.TS", false).is_some());
    }
}
