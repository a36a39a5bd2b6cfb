//! What git's configuration says about files; see git-config(1).

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::str::Chars;

use super::glob::Glob;

/// Files that include each other are followed so far, as with git.
const DEEPEST: usize = 10;

/// Files that are read for one repository, and the longest of them in bytes: what includes itself many times has no end.
const MOST_FILES: usize = 1000;
const LONGEST: u64 = 4 << 20;

/// Where git looks for what the machine and the user have configured.
#[derive(Debug, Clone, Default)]
pub struct User {
    /// The home directory.
    pub home: Option<PathBuf>,
    /// Where configurations lie beside those in the home directory.
    pub directory: Option<PathBuf>,
    /// The files; what comes later counts more.
    pub files: Vec<PathBuf>,
}

impl User {
    /// The one whose process this is.
    pub fn of_this_process() -> Self {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = set("HOME").or_else(|| if cfg!(windows) { set("USERPROFILE") } else { None });
        let directory = set("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let directory = directory.map(|directory| directory.join("git"));
        let mut files = Vec::new();
        let off = env::var("GIT_CONFIG_NOSYSTEM").is_ok_and(|value| is_true(&value));
        if !off {
            files.push(env::var_os("GIT_CONFIG_SYSTEM").map_or_else(|| "/etc/gitconfig".into(), PathBuf::from));
        }
        match env::var_os("GIT_CONFIG_GLOBAL") {
            Some(file) => files.push(PathBuf::from(file)),
            None => {
                files.extend(directory.as_ref().map(|directory| directory.join("config")));
                files.extend(home.as_ref().map(|home| home.join(".gitconfig")));
            }
        }
        Self { home, directory, files }
    }

    /// A path as it is written in a configuration, below `base` where it is relative.
    fn path(&self, text: &str, base: &Path) -> Option<PathBuf> {
        match text.strip_prefix("~/") {
            Some(rest) => Some(self.home.as_ref()?.join(rest)),
            None => Some(base.join(text)),
        }
    }
}

/// The settings that decide about files.
#[derive(Debug, Default, PartialEq)]
pub struct Config {
    /// The file with what is ignored everywhere.
    pub excludes_file: Option<PathBuf>,
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
    /// Whether the repository names its objects by SHA-256.
    pub sha256: bool,
}

impl Config {
    /// Of the repository with this directory `git`, which shares `common` with others, in the worktree `top`.
    pub fn read(user: &User, git: &Path, common: &Path, top: &Path) -> Self {
        let own = common.join("config");
        let mut reading =
            Reading { user, git, settings: BTreeMap::new(), urls: Vec::new(), asked_for_urls: false, files: 0 };
        reading.all(&own);
        if reading.asked_for_urls {
            reading.urls = reading.settings.remove("remote.*.url").unwrap_or_default();
            reading.settings.clear();
            reading.all(&own);
        }
        let last = |name: &str| reading.settings.get(name).and_then(|values| values.last()).map(String::as_str);
        let on = |name: &str| last(name).is_some_and(is_true);
        let excludes_file = match last("core.excludesfile") {
            Some("") => None,
            Some(file) => user.path(file, top),
            None => user.directory.as_ref().map(|directory| directory.join("ignore")),
        };
        let sha256 = last("extensions.objectformat").is_some_and(|name| name.eq_ignore_ascii_case("sha256"));
        Self { excludes_file, ignore_case: on("core.ignorecase"), sha256 }
    }
}

/// A file of a bearable size. A device or a FIFO would never end.
fn read_regular(file: &Path) -> Option<Vec<u8>> {
    let usable = |metadata: fs::Metadata| metadata.is_file() && metadata.len() <= LONGEST;
    fs::metadata(file).is_ok_and(usable).then(|| fs::read(file).ok()).flatten()
}

struct Reading<'a> {
    user: &'a User,
    git: &'a Path,
    /// By name, subsections left out or, of remotes, as `*`.
    settings: BTreeMap<String, Vec<String>>,
    /// Of remotes, once they are known; and whether an include depends on them.
    urls: Vec<String>,
    asked_for_urls: bool,
    /// That were read.
    files: usize,
}

impl Reading<'_> {
    fn all(&mut self, own: &Path) {
        self.user.files.iter().for_each(|file| self.file(file, 0));
        self.file(own, 0);
        let of_worktrees = self.settings.get("extensions.worktreeconfig").and_then(|values| values.last());
        if of_worktrees.is_some_and(|value| is_true(value)) {
            self.file(&self.git.join("config.worktree"), 0);
        }
    }

    fn file(&mut self, file: &Path, depth: usize) {
        if self.files >= MOST_FILES {
            return;
        }
        let Some(text) = read_regular(file) else { return };
        self.files += 1;
        for Setting { section, subsection, name, value } in settings(&text) {
            let value = value.unwrap_or_else(|| "true".to_owned());
            match (section.as_str(), subsection.as_deref(), name.as_str()) {
                ("include", None, "path") => self.include(&value, file, depth),
                ("includeif", Some(condition), "path") if self.holds(condition, file) => {
                    self.include(&value, file, depth);
                }
                ("remote", Some(_), "url") => self.set("remote.*.url".to_owned(), value),
                (section, None, name) => self.set(format!("{section}.{name}"), value),
                _ => {}
            }
        }
    }

    fn set(&mut self, name: String, value: String) {
        self.settings.entry(name).or_default().push(value);
    }

    fn include(&mut self, path: &str, from: &Path, depth: usize) {
        if depth < DEEPEST
            && let Some(path) = self.user.path(path, from.parent().unwrap_or(Path::new("")))
        {
            self.file(&path, depth + 1);
        }
    }

    fn holds(&mut self, condition: &str, from: &Path) -> bool {
        let Some((kind, pattern)) = condition.split_once(':') else { return false };
        match kind {
            "gitdir" => self.is_in(pattern, from, false),
            "gitdir/i" => self.is_in(pattern, from, true),
            "onbranch" => {
                let head = read_regular(&self.git.join("HEAD")).unwrap_or_default();
                let branch = head.strip_prefix(b"ref: refs/heads/").map(path_in);
                let pattern = with_all_below(pattern.to_owned());
                branch.is_some_and(|branch| matches(&pattern, &slashes(&branch), false))
            }
            "hasconfig" => {
                let Some(pattern) = pattern.strip_prefix("remote.*.url:") else { return false };
                self.asked_for_urls = true;
                self.urls.iter().any(|url| matches(pattern, url, false))
            }
            _ => false,
        }
    }

    /// Whether the repository lies where a pattern says, under any of its names.
    fn is_in(&self, pattern: &str, from: &Path, fold: bool) -> bool {
        let (base, rest) = if let Some(rest) = pattern.strip_prefix("~/") {
            (self.user.home.clone(), rest)
        } else if let Some(rest) = pattern.strip_prefix("./") {
            let from = from.canonicalize().ok();
            (from.and_then(|from| from.parent().map(Path::to_path_buf)), rest)
        } else if Path::new(pattern).is_absolute() {
            (Some(PathBuf::new()), pattern)
        } else {
            let pattern = with_all_below(format!("**/{pattern}"));
            return self.names().any(|name| matches(&pattern, &name, fold));
        };
        let Some(base) = base else { return false };
        let mut whole = slashes(&base);
        if !whole.is_empty() && !whole.ends_with('/') {
            whole.push('/');
        }
        // The directory is no pattern.
        let mut pattern: String =
            whole.chars().flat_map(|c| "*?[\\".contains(c).then_some('\\').into_iter().chain([c])).collect();
        pattern.push_str(rest);
        let pattern = with_all_below(pattern);
        self.names().any(|name| matches(&pattern, &name, fold))
    }

    fn names(&self) -> impl Iterator<Item = String> {
        let given = std::path::absolute(self.git).ok();
        [self.git.canonicalize().ok(), given].into_iter().flatten().map(|name| slashes(&name))
    }
}

/// A path in a file of git's: one line.
pub fn path_in(text: &[u8]) -> PathBuf {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        PathBuf::from(std::ffi::OsStr::from_bytes(line))
    }
    #[cfg(not(unix))]
    PathBuf::from(String::from_utf8_lossy(line).into_owned())
}

fn with_all_below(mut pattern: String) -> String {
    if pattern.ends_with('/') {
        pattern.push_str("**");
    }
    pattern
}

fn matches(pattern: &str, text: &str, fold: bool) -> bool {
    Glob::new(pattern.as_bytes(), fold).is_some_and(|glob| glob.matches(text.as_bytes()))
}

fn slashes(path: &Path) -> String {
    let text = path.to_string_lossy();
    if cfg!(windows) { text.replace('\\', "/") } else { text.into_owned() }
}

fn is_true(value: &str) -> bool {
    let number = || value.parse::<i64>().is_ok_and(|number| number != 0);
    ["true", "yes", "on"].iter().any(|word| value.eq_ignore_ascii_case(word)) || number()
}

/// One line of a configuration.
#[derive(Debug, PartialEq)]
pub(super) struct Setting {
    /// In lower case, as is the name.
    section: String,
    subsection: Option<String>,
    name: String,
    /// `None`: there is only the name.
    value: Option<String>,
}

/// The settings up to the first line that makes no sense: git itself goes no further.
pub(super) fn settings(text: &[u8]) -> Vec<Setting> {
    let text = String::from_utf8_lossy(text).replace("\r\n", "\n");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut parser = Parser { rest: text.chars().peekable(), section: None };
    let mut settings = Vec::new();
    while parser.read(&mut settings).is_some() {}
    settings
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    section: Option<(String, Option<String>)>,
}

impl Parser<'_> {
    /// The next setting, header or comment; `None` at the end.
    fn read(&mut self, settings: &mut Vec<Setting>) -> Option<()> {
        match *self.rest.peek()? {
            '#' | ';' => drop(self.rest.by_ref().find(|&c| c == '\n')),
            '[' => self.section = Some(self.header()?),
            c if c.is_ascii_whitespace() => drop(self.rest.next()),
            c if c.is_ascii_alphabetic() => {
                let (section, subsection) = self.section.clone()?;
                let name = self.word("-");
                self.blanks();
                let value = match self.rest.next() {
                    Some('=') => Some(self.value()?),
                    Some('\n') | None => None,
                    Some(_) => return None,
                };
                settings.push(Setting { section, subsection, name, value });
            }
            _ => return None,
        }
        Some(())
    }

    /// Letters, digits and these, in lower case.
    fn word(&mut self, more: &str) -> String {
        let belongs = |c: &char| c.is_ascii_alphanumeric() || more.contains(*c);
        std::iter::from_fn(|| self.rest.next_if(belongs)).map(|c| c.to_ascii_lowercase()).collect()
    }

    fn blanks(&mut self) {
        while self.rest.next_if(|c| [' ', '\t'].contains(c)).is_some() {}
    }

    fn header(&mut self) -> Option<(String, Option<String>)> {
        self.rest.next();
        let section = self.word("-.");
        let mut subsection = None;
        if self.rest.peek()?.is_ascii_whitespace() {
            self.blanks();
            self.rest.next_if_eq(&'"')?;
            let mut name = String::new();
            loop {
                match self.rest.next()? {
                    '"' => break,
                    '\n' => return None,
                    '\\' => name.push(self.rest.next().filter(|&c| c != '\n')?),
                    c => name.push(c),
                }
            }
            subsection = Some(name);
        }
        self.rest.next_if_eq(&']')?;
        Some((section, subsection))
    }

    /// Without quotes, escapes, comment and the blanks around it.
    fn value(&mut self) -> Option<String> {
        let (mut value, mut end, mut quoted) = (String::new(), 0, false);
        loop {
            match self.rest.next() {
                None | Some('\n') if quoted => return None,
                None | Some('\n') => break,
                Some('#' | ';') if !quoted => {
                    self.rest.by_ref().find(|&c| c == '\n');
                    break;
                }
                Some(c) if c.is_ascii_whitespace() && !quoted => {
                    if !value.is_empty() {
                        value.push(c);
                    }
                    continue;
                }
                Some('"') => quoted = !quoted,
                Some('\\') => match self.rest.next()? {
                    '\n' => {}
                    't' => value.push('\t'),
                    'n' => value.push('\n'),
                    'b' => value.push('\u{8}'),
                    c if c == '"' || c == '\\' => value.push(c),
                    _ => return None,
                },
                Some(c) => value.push(c),
            }
            end = value.len();
        }
        value.truncate(end);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn includes_without_end_and_files_that_never_end_are_left_out() {
        let git = tempfile::tempdir().unwrap();
        let (own, device) = (git.path().join("config"), "[include]\npath = /dev/zero\n");
        fs::write(&own, format!("{device}{}[core]\nexcludesFile = /here\n", "[include]\npath = config\n".repeat(50)))
            .unwrap();
        let config = Config::read(&User::default(), git.path(), git.path(), git.path());
        assert_eq!(config.excludes_file, Some("/here".into()));
    }

    #[test]
    fn settings_are_read_as_git_reads_them() {
        let text = "\u{feff}; none\r\n[Core] ExcludesFile = a b\\t\\\\ \"# c \" ; comment\r\n\tbare\n[remote \"a\\\"]b\"]url=x\\\n  y\n\
                    [a.B]\nname-1 =\n[extensions]\n worktreeConfig\n = 5\n[core]\nlost = 1\n";
        let read: Vec<_> = settings(text.as_bytes())
            .into_iter()
            .map(|Setting { section, subsection, name, value }| (section, subsection, name, value))
            .collect();
        let line = |section: &str, subsection: Option<&str>, name: &str, value: Option<&str>| {
            (section.to_owned(), subsection.map(str::to_owned), name.to_owned(), value.map(str::to_owned))
        };
        assert_eq!(
            read,
            [
                line("core", None, "excludesfile", Some("a b\t\\ # c ")),
                line("core", None, "bare", None),
                line("remote", Some("a\"]b"), "url", Some("x  y")),
                line("a.b", None, "name-1", Some("")),
                line("extensions", None, "worktreeconfig", None),
            ]
        );
        for broken in
            ["a = 1\n", "[core\na = 1", "[core]\na = \"x\n", "[core]\na = \\x\n", "[a \"b\n\"]c = 1", "[core]\na x"]
        {
            assert_eq!(settings(broken.as_bytes()), [], "{broken:?}");
        }
    }

    #[test]
    fn files_that_include_each_other_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::write(path.join("config"), "[include]\npath = config\n[core]\nignoreCase = yes\n").unwrap();
        let config = Config::read(&User::default(), path, path, path);
        assert_eq!(config, Config { excludes_file: None, ignore_case: true, sha256: false });
    }
}
