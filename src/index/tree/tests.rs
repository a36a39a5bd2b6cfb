//! Files that git lists and those that the walk finds are the same.

use std::process::Command;

use super::*;

/// Git as on a machine where nothing is set up.
fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = git_of(directory, directory, &["-c", "user.name=a", "-c", "user.email=a@example.com"], arguments);
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Git as somebody with this home directory has configured it.
fn git_of(home: &Path, directory: &Path, options: &[&str], arguments: &[&str]) -> std::process::Output {
    let mut git = Command::new("git");
    git.args(options).args(arguments).current_dir(directory);
    git.env("HOME", home).env("XDG_CONFIG_HOME", home).env("GIT_CONFIG_NOSYSTEM", "1");
    git.output().unwrap()
}

fn write(directory: &Path, path: &str, text: &str) {
    let file = directory.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

fn walked(directory: &Path) -> Vec<String> {
    walk(directory, false, &Cancel::default()).unwrap().files.into_iter().map(|file| file.path).collect()
}

/// What git tracks or does not ignore.
fn listed(directory: &Path) -> Vec<String> {
    let paths = git(directory, &["ls-files", "-z", "-c", "-o", "--exclude-standard"]);
    let mut paths: Vec<String> =
        paths.split('\0').filter(|path| path.ends_with(".ts") || path.ends_with(".py")).map(str::to_owned).collect();
    paths.sort();
    paths.dedup();
    paths
}

#[test]
fn ignore_files_mean_what_git_makes_of_them() {
    const PATHS: [&str; 24] = [
        "a.ts",
        "b.py",
        "7.ts",
        "ab.ts",
        "abc.ts",
        "a b.ts",
        "build/a.ts",
        "build/deep/b.ts",
        "src/a.ts",
        "src/build/x.ts",
        "src/x/y/a.ts",
        "src/x/y/build.ts",
        "x/a.ts",
        "x/b/a.ts",
        "v2.py",
        "Big.ts",
        "{a,b}.ts",
        "[a].ts",
        "!a.ts",
        "#a.ts",
        "a].ts",
        "a-b.ts",
        "a\\.ts",
        "ä.ts",
    ];
    const PIECES: [&str; 43] = [
        "big",
        "a",
        "b",
        "*",
        "*",
        "**",
        "?",
        "/",
        "/",
        ".ts",
        ".ts",
        ".py",
        "[ab]",
        "[!a]",
        "[^b]",
        "[a-c]",
        "[[:alpha:]]",
        "[[:digit:]]",
        "[[:upper:]]",
        "[[:x:]]",
        "[]a]",
        "[a",
        "[\\]a]",
        "[b-]",
        "{a,b}",
        "{}",
        "\\",
        "\\*",
        "!",
        "#",
        " ",
        "\\ ",
        "build",
        "src",
        "x",
        "build/",
        "/**/",
        "**/",
        "/**",
        "*/",
        ",",
        "\u{e4}",
        "\t",
    ];
    let mut state = 20u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let root = tempfile::tempdir().unwrap();
    for round in 0..200 {
        let directory = root.path().join(round.to_string());
        PATHS.iter().for_each(|path| write(&directory, path, ""));
        git(&directory, &["init", "-q", "."]);
        let mut lines = Vec::new();
        for _ in 0..=next(5) {
            let negated = if next(4) == 0 { "!" } else { "" };
            let pieces: String = (0..=next(4)).map(|_| PIECES[next(PIECES.len())]).collect();
            lines.push(format!("{negated}{pieces}"));
        }
        let (mark, end) = (["", "", "", "\u{feff}"][next(4)], ["\n", "\n", "\r\n"][next(3)]);
        let text = format!("{mark}{}{}", lines.join(end), ["", end][next(2)]);
        let file = ["src/.gitignore", ".gitignore", ".gitignore", ".gitignore"][next(4)];
        write(&directory, file, &text);
        let everywhere = PIECES[next(PIECES.len())];
        if next(3) == 0 {
            write(&directory, ".git/info/exclude", &format!("{everywhere}\n"));
        }
        if next(3) == 0 {
            git(&directory, &["--literal-pathspecs", "add", "-f", PATHS[next(PATHS.len())]]);
        }
        if next(6) == 0 {
            git(&directory, &["config", "core.ignorecase", "true"]);
        }
        assert_eq!(
            walked(&directory),
            listed(&directory),
            "round {round}, {file}: {text:?}, everywhere {everywhere:?}"
        );
    }
}

#[test]
fn configurations_mean_what_git_makes_of_them() {
    const FILES: [&str; 6] = ["a.ts", "B.ts", "src/a.ts", "src/c.py", "c.py", "lib/B.ts"];
    const LINES: [&str; 9] = ["a.ts", "b.ts", "*.py", "src", "/c.py", "!a.ts", "lib/", "src/*", "!*.py"];
    let root = tempfile::tempdir().unwrap();
    let mut state = 27u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for round in 0..60 {
        let home = root.path().join(round.to_string());
        let main = home.join("work/main");
        FILES.iter().for_each(|path| write(&main, path, ""));
        git(&main, &["init", "-q", "-b", "trunk", "."]);
        git(&main, &["add", "."]);
        git(&main, &["commit", "-q", "-m", "first"]);
        git(&main, &["worktree", "add", "-q", "-b", "topic/one", "../linked"]);
        git(&main, &["config", "remote.origin.url", "https://example.com/a/b.git"]);
        // Nothing is tracked, so that every file is asked about.
        let worktrees = [main.clone(), home.join("work/linked")];
        for worktree in &worktrees {
            git(worktree, &["rm", "-q", "-r", "--cached", "."]);
        }
        let lines = |of: &mut dyn FnMut(usize) -> usize| -> String {
            (0..=of(2)).map(|_| format!("{}\n", LINES[of(LINES.len())])).collect()
        };
        for name in ["one", "two", "work/main/.git/info/exclude", "work/main/relative", "work/linked/relative"] {
            write(&home, name, &lines(&mut next));
        }
        let absolute = home.join("two").display().to_string();
        let files = ["~/one", &absolute, "relative", "\"~/one\" ; of mine", "nowhere", ""];
        let setting = |file: &str| format!("[core]\n\texcludesFile = {file}\n");
        let some = |of: &mut dyn FnMut(usize) -> usize| setting(files[of(files.len())]);
        for name in ["included", "work/included", "work/main/.git/included"] {
            write(&home, name, &some(&mut next));
        }
        let conditions = [
            "include".to_owned(),
            "includeIf \"gitdir:~/work/\"".to_owned(),
            "includeIf \"gitdir:main/\"".to_owned(),
            "includeIf \"gitdir/i:WORK/**\"".to_owned(),
            "includeIf \"gitdir:./\"".to_owned(),
            "includeIf \"gitdir:linked\"".to_owned(),
            format!("includeIf \"gitdir:{}/work/main/.git\"", home.display()),
            "includeIf \"onbranch:trunk\"".to_owned(),
            "includeIf \"onbranch:topic/\"".to_owned(),
            "includeIf \"hasconfig:remote.*.url:https://example.com/**\"".to_owned(),
            "includeIf \"hasconfig:remote.*.url:https://other/**\"".to_owned(),
            "includeIf \"nonsense:x\"".to_owned(),
        ];
        let include = |of: &mut dyn FnMut(usize) -> usize, path: &str| {
            format!("[{}]\n\tpath = {path}\n", conditions[of(conditions.len())])
        };
        let mut global = String::new();
        for _ in 0..next(3) {
            global += &match next(3) {
                0 => some(&mut next),
                1 => include(&mut next, "included"),
                _ => include(&mut next, "~/work/included"),
            };
        }
        write(&home, ".gitconfig", &global);
        if next(3) == 0 {
            write(&home, "git/config", &some(&mut next));
        }
        if next(3) == 0 {
            write(&home, "git/ignore", &lines(&mut next));
        }
        let config = main.join(".git/config");
        let mut own = fs::read_to_string(&config).unwrap();
        for _ in 0..next(3) {
            own += &match next(3) {
                0 => some(&mut next),
                1 => include(&mut next, "included"),
                _ => "[core] ignoreCase\n".to_owned(),
            };
        }
        fs::write(&config, &own).unwrap();
        if next(2) == 0 {
            git(&main, &["config", "extensions.worktreeConfig", ["true", "false"][next(2)]]);
        }
        for name in ["work/main/.git/config.worktree", "work/main/.git/worktrees/linked/config.worktree"] {
            if next(2) == 0 {
                write(&home, name, &some(&mut next));
            }
        }
        let directory = home.join("git");
        let user = User {
            files: vec![directory.join("config"), home.join(".gitconfig")],
            home: Some(home.clone()),
            directory: Some(directory),
        };
        for worktree in &worktrees {
            let found = walk_as(&user, worktree, false, &Cancel::default()).unwrap().files;
            let found: Vec<_> = found.into_iter().map(|file| file.path).collect();
            let options = ["-c", "core.quotePath=false", "check-ignore", "--verbose", "--non-matching"];
            let checked = String::from_utf8(git_of(&home, worktree, &options, &FILES).stdout).unwrap();
            let mut kept: Vec<_> = checked
                .lines()
                .filter_map(|line| {
                    let (rule, path) = line.split_once('\t')?;
                    let pattern = rule.splitn(3, ':').nth(2)?;
                    (pattern.is_empty() || pattern.starts_with('!')).then(|| path.to_owned())
                })
                .collect();
            kept.sort();
            assert_eq!(found, kept, "round {round}, {}", worktree.display());
        }
    }
}

#[test]
fn the_user_s_own_ignore_file_counts_in_a_repository() {
    let root = tempfile::tempdir().unwrap();
    ["a.ts", "b.ts"].iter().for_each(|path| write(root.path(), path, ""));
    write(root.path(), "mine", "b.ts\n");
    assert_eq!(walked(root.path()), ["a.ts", "b.ts"]);
    git(root.path(), &["init", "-q", "."]);
    git(root.path(), &["config", "core.excludesFile", &root.path().join("mine").display().to_string()]);
    assert_eq!(walked(root.path()), ["a.ts"]);
}

#[test]
fn what_proves_that_a_file_is_unchanged() {
    let stamp = Stamp { size: 1, modified: 2, changed: 3, inode: 4 };
    assert!(stamp.proves_unchanged_since(&stamp));
    assert!(!stamp.proves_unchanged_since(&Stamp { changed: 5, ..stamp }));
    assert!(!stamp.proves_unchanged_since(&Stamp { inode: 5, ..stamp }));
    let unknown = Stamp { changed: 0, ..stamp };
    assert!(!unknown.proves_unchanged_since(&unknown));
}
