//! Patterns for paths as git reads them (its `wildmatch`), matched in time proportional to pattern × path.

/// One pattern.
pub struct Glob {
    parts: Vec<Part>,
    /// Whether upper and lower case are the same.
    fold: bool,
    /// The least number of bytes that can match.
    least: usize,
}

enum Part {
    Byte(u8),
    /// `?`: any byte but a slash.
    Any,
    /// `[a-z]`: one of these bytes, never a slash.
    Class(Box<[bool; 256]>),
    /// `*`: any run without a slash.
    Run,
    /// `**` at the end: any run.
    Deep,
    /// `**/`: no directory, or …
    Directories,
    /// … (always the next part) any run that ends with a slash.
    Within,
}

impl Glob {
    /// `None` for a pattern that matches nothing, because it is malformed.
    pub fn new(pattern: &[u8], fold: bool) -> Option<Self> {
        // What git compares before it looks for wildcards is taken off, so that `**` right behind it begins a pattern.
        let plain = pattern.iter().position(|byte| b"*?[\\".contains(byte)).unwrap_or(pattern.len());
        let mut parts: Vec<Part> = Vec::new();
        let mut at = 0;
        while let Some(&byte) = pattern.get(at) {
            at += 1;
            match byte {
                b'?' => parts.push(Part::Any),
                b'*' => {
                    let start = at - 1;
                    at += pattern[at..].iter().take_while(|&&byte| byte == b'*').count();
                    let rest = &pattern[at..];
                    let whole = at - start > 1 && (start == plain || pattern[start - 1] == b'/');
                    if whole && rest.starts_with(b"/") {
                        at += 1;
                        // Twice is the same as once.
                        if !matches!(parts.last(), Some(Part::Within)) {
                            parts.extend([Part::Directories, Part::Within]);
                        }
                    } else if whole && (rest.is_empty() || rest.starts_with(b"\\/")) {
                        parts.push(Part::Deep);
                    } else {
                        parts.push(Part::Run);
                    }
                }
                b'[' => {
                    let (class, length) = class(&pattern[at..], fold)?;
                    at += length;
                    parts.push(Part::Class(class));
                }
                b'\\' => {
                    parts.push(Part::Byte(folded(*pattern.get(at)?, fold)));
                    at += 1;
                }
                _ => parts.push(Part::Byte(folded(byte, fold))),
            }
        }
        let least = parts.iter().filter(|part| matches!(part, Part::Byte(_) | Part::Any | Part::Class(_))).count();
        Some(Self { parts, fold, least })
    }

    /// Whether the whole of `path` matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        if path.len() < self.least {
            return false;
        }
        let parts = &self.parts;
        // Which parts may come next. All ways are followed at once, so that no pattern takes long.
        let mut open = vec![false; parts.len() + 1];
        let mut next = open.clone();
        open[0] = true;
        for &byte in path {
            let byte = folded(byte, self.fold);
            self.skip_what_may_be_empty(&mut open);
            let mut any = false;
            for (at, part) in parts.iter().enumerate().filter(|(at, _)| open[*at]) {
                let (stays, goes_on) = match part {
                    Part::Byte(wanted) => (false, byte == *wanted),
                    Part::Any => (false, byte != b'/'),
                    Part::Class(wanted) => (false, wanted[usize::from(byte)]),
                    Part::Run => (byte != b'/', false),
                    Part::Deep => (true, false),
                    Part::Directories => (false, false),
                    Part::Within => (true, byte == b'/'),
                };
                next[at] |= stays;
                next[at + 1] |= goes_on;
                any |= stays || goes_on;
            }
            if !any {
                return false;
            }
            std::mem::swap(&mut open, &mut next);
            next.fill(false);
        }
        self.skip_what_may_be_empty(&mut open);
        open[parts.len()]
    }

    fn skip_what_may_be_empty(&self, open: &mut [bool]) {
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                Part::Run | Part::Deep => open[at + 1] |= open[at],
                Part::Directories => {
                    open[at + 1] |= open[at];
                    open[at + 2] |= open[at];
                }
                _ => {}
            }
        }
    }
}

fn folded(byte: u8, fold: bool) -> u8 {
    if fold { byte.to_ascii_lowercase() } else { byte }
}

/// What stands behind a `[`: the bytes of the class, and how long it is.
fn class(pattern: &[u8], fold: bool) -> Option<(Box<[bool; 256]>, usize)> {
    let mut set = Box::new([false; 256]);
    let mut at = 0;
    let negated = matches!(pattern.first(), Some(b'!' | b'^'));
    at += usize::from(negated);
    // The first byte of a range, if one may begin here.
    let mut from: Option<u8> = None;
    let first = at;
    loop {
        let byte = *pattern.get(at)?;
        if byte == b']' && at > first {
            break;
        }
        at += 1;
        let next = pattern.get(at).copied();
        match byte {
            b'\\' => {
                let byte = next?;
                at += 1;
                set[usize::from(byte)] = true;
                from = Some(byte);
            }
            b'-' if from.is_some() && next.is_some_and(|next| next != b']') => {
                let mut to = next?;
                at += 1;
                if to == b'\\' {
                    to = *pattern.get(at)?;
                    at += 1;
                }
                for byte in from.unwrap_or(to)..=to {
                    set[usize::from(byte)] = true;
                    set[usize::from(folded(byte, fold))] = true;
                }
                from = None;
            }
            b'[' if next == Some(b':') => {
                let name = &pattern[at + 1..];
                let length = name.iter().position(|&byte| byte == b']')?;
                match name[..length].strip_suffix(b":") {
                    Some(name) => {
                        let holds = named(name, fold)?;
                        (0..=255).filter(holds).for_each(|byte| set[usize::from(byte)] = true);
                        at += length + 2;
                        from = None;
                    }
                    // No name of a class: two ordinary bytes.
                    None => {
                        set[usize::from(b'[')] = true;
                        from = Some(b'[');
                    }
                }
            }
            byte => {
                set[usize::from(byte)] = true;
                from = Some(byte);
            }
        }
    }
    if negated {
        set.iter_mut().for_each(|holds| *holds = !*holds);
    }
    set[usize::from(b'/')] = false;
    Some((set, at + 1))
}

/// The bytes of `[:name:]`; `None` if there is no such class.
fn named(name: &[u8], fold: bool) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | 9..=13),
        b"upper" if fold => u8::is_ascii_alphabetic,
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Glob::new(pattern.as_bytes(), false).is_some_and(|glob| glob.matches(path.as_bytes()))
    }

    #[test]
    fn wildcards_mean_what_they_mean_to_git() {
        for (pattern, path, expected) in [
            ("*.py{}", "a.py", false),
            ("config.{js,ts}", "config.ts", false),
            ("[[:alpha:]].ts", "b.ts", true),
            ("[[:alpha:]].ts", "7.ts", false),
            ("[[:nonsense:]]", "a", false),
            ("[!a-c]", "b", false),
            ("[^a-c]", "d", true),
            ("[]-]", "]", true),
            ("[a-]", "-", true),
            ("[a", "a", false),
            ("a[!b]c", "a/c", false),
            ("*", "a/b", false),
            ("**/b", "b", true),
            ("**/b", "x/y/b", true),
            ("**/b", "xb", false),
            ("a/**/b", "a/b", true),
            ("a/**/**/b", "a/x/b", true),
            ("a/**", "a/x/y", true),
            ("a**/b", "ax/y/b", true),
            ("[a]**/b", "ax/y/b", false),
            (r"\*", "*", true),
            (r"a\", "a\\", false),
            ("a?c", "a/c", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
        assert!(Glob::new(b"[a-c]X", true).is_some_and(|glob| glob.matches(b"Bx")));
    }

    #[test]
    fn a_pattern_of_many_wildcards_is_decided() {
        let pattern = format!("{}b", "*a".repeat(2000));
        assert!(!matches(&pattern, &"a".repeat(4000)));
    }
}
