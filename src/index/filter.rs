//! Which declarations a search may answer with: by path, by language and by kind.

use super::outline::{self, Kind};
use super::tree::Rules;
use crate::error::{Error, Result};

/// Longest pattern for paths, in bytes.
const MAX_PATTERN: usize = 4096;

/// What answers have to be; what is left empty lets everything in.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Least score, 0 to 1.
    pub min_score: f32,
    /// Patterns as in `.gitignore`, from the root: `src/`, `*.test.ts`, `!fixtures/`.
    pub paths: Vec<String>,
    /// Languages, as results name them.
    pub languages: Vec<String>,
    /// Kinds, as results name them.
    pub kinds: Vec<String>,
}

impl Filter {
    /// Refuses what no result can be.
    pub fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.min_score) {
            let message = format!("minScore is {}, not a number from 0 to 1", self.min_score);
            return Err(Error::InvalidArgument(message));
        }
        for pattern in &self.paths {
            let wrong = match pattern.as_str() {
                "" | "!" | "/" => "is empty".to_owned(),
                long if long.len() > MAX_PATTERN => format!("has {} bytes, of {MAX_PATTERN} at most", long.len()),
                lines if lines.contains('\n') => "has more than one line".to_owned(),
                _ => continue,
            };
            return Err(Error::InvalidArgument(format!("A pattern in paths {wrong}")));
        }
        let mut languages: Vec<&str> =
            outline::extensions().map(|(_, language)| language).chain([outline::TEXT]).collect();
        languages.sort_unstable();
        languages.dedup();
        known("languages", &self.languages, &languages)?;
        known("kinds", &self.kinds, &Kind::ALL.map(Kind::as_str))
    }

    /// Whether files are chosen by their paths.
    pub fn by_path(&self) -> bool {
        !self.paths.is_empty() || !self.languages.is_empty()
    }

    /// Whether declarations are chosen by their kinds.
    pub fn by_kind(&self) -> bool {
        !self.kinds.is_empty()
    }

    /// What decides about paths.
    pub fn admission(&self) -> impl Fn(&str) -> bool + '_ {
        // No pattern is a comment.
        let line = |pattern: &String| format!("{}{pattern}\n", if pattern.starts_with('#') { "\\" } else { "" });
        let rules = Rules::parse(self.paths.iter().map(line).collect::<String>().as_bytes(), false);
        // Where all patterns exclude, what none of them matches is in.
        let otherwise = self.paths.iter().all(|pattern| pattern.starts_with('!'));
        move |path| {
            let in_language = self.languages.is_empty()
                || self.languages.iter().any(|name| name == outline::language(extension(path)));
            let of = |end: usize| rules.ignore(&path.as_bytes()[..end], end < path.len());
            // The pattern that matches the longest part of the path decides.
            let mut ends = std::iter::once(path.len()).chain(path.rmatch_indices('/').map(|(at, _)| at));
            in_language && ends.find_map(of).unwrap_or(otherwise)
        }
    }

    /// Whether declarations of this kind are answers.
    pub fn admits(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|name| name == kind)
    }
}

/// The extension of a path.
pub fn extension(path: &str) -> &str {
    path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(_, extension)| extension)
}

fn known(option: &str, given: &[String], known: &[&str]) -> Result<()> {
    let Some(unknown) = given.iter().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    let message = format!("{option} has {unknown:?}; known are {}", known.join(", "));
    Err(Error::InvalidArgument(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted<'a>(paths: &[&str], languages: &[&str], files: &[&'a str]) -> Vec<&'a str> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let filter = Filter { paths: owned(paths), languages: owned(languages), ..Filter::default() };
        filter.check().unwrap();
        let admits = filter.admission();
        files.iter().copied().filter(|file| admits(file)).collect()
    }

    #[test]
    fn patterns_choose_files_and_directories() {
        let files = ["src/a.rs", "src/deep/b.rs", "test/c.ts", "a.ts", "#x.ts"];
        assert_eq!(admitted(&[], &[], &files), files);
        assert_eq!(admitted(&["src/"], &[], &files), ["src/a.rs", "src/deep/b.rs"]);
        assert_eq!(admitted(&["src"], &[], &files), ["src/a.rs", "src/deep/b.rs"]);
        assert_eq!(admitted(&["src", "!deep/"], &[], &files), ["src/a.rs"]);
        assert_eq!(admitted(&["!test"], &[], &files), ["src/a.rs", "src/deep/b.rs", "a.ts", "#x.ts"]);
        assert_eq!(admitted(&["/*.ts"], &[], &files), ["a.ts", "#x.ts"]);
        assert_eq!(admitted(&["#x.ts"], &[], &files), ["#x.ts"]);
        assert_eq!(admitted(&["src"], &["typescript"], &files), [] as [&str; 0]);
        assert_eq!(admitted(&[], &["typescript"], &files), ["test/c.ts", "a.ts", "#x.ts"]);
    }

    #[test]
    fn what_nothing_can_be_is_refused() {
        let wrong = |filter: Filter| filter.check().unwrap_err().to_string();
        assert!(
            wrong(Filter { kinds: vec!["klass".into()], ..Filter::default() }).contains("known are function, method")
        );
        assert!(
            wrong(Filter { languages: vec!["cobol".into()], ..Filter::default() }).contains("known are bash, c, cpp")
        );
        assert!(wrong(Filter { min_score: f32::NAN, ..Filter::default() }).contains("NaN"));
        assert!(wrong(Filter { paths: vec![String::new()], ..Filter::default() }).contains("empty"));
    }
}
