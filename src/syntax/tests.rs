//! What is made to hurt parsers is left after a time in proportion to it; what people write is not.

use super::*;

/// Short sequences that a grammar takes minutes for, when they are repeated.
const HOSTILE: [(&str, &str); 3] = [("c", "()=>async "), ("java", "x=>"), ("py", "/*#if x\n")];

#[test]
fn a_grammar_takes_no_longer_than_it_may() {
    for (ending, piece) in HOSTILE {
        for size in [1 << 13, 1 << 16] {
            let source = format!("x\n{}", piece.repeat(size / piece.len()));
            let started = cpu_time();
            drop(parse(&source, grammar(ending).unwrap(), &Cancel::default()));
            let took = cpu_time() - started;
            // What is under way is not stopped at once, and some of it is done several times.
            let most = 10 * (MOST_TIME + MOST_TIME_PER_BYTE * source.len() as u32);
            assert!(took < most, "{ending}, {size} bytes of {piece:?}: {took:?}");
        }
    }
}

#[test]
fn what_stands_around_a_long_run_of_comments_is_found() {
    let comments = "    # Said before, and said again: it's nothing.\n\n".repeat(20_000);
    let source = format!(
        "def f():\n    x = 1\n{comments}    return x\n\n# About g.\ndef g():\n    return \"\"\"\n# one\n\"\"\"\n"
    );
    let sections = sections(&source, grammar("py").unwrap(), &Cancel::default()).unwrap();
    let names: Vec<_> = sections.iter().filter_map(|section| section.name.as_deref()).collect();
    assert_eq!(names, ["f", "g"]);
    assert!(
        source[sections.last().unwrap().start..].starts_with("# About g.\n")
            || sections.iter().any(|section| source[section.start..].starts_with("# About g.\n"))
    );
}

#[test]
fn only_the_middle_of_a_long_run_of_comments_is_blank() {
    let short = "# one\nx = 1\n".repeat(100);
    assert!(matches!(without_long_comments(&short, "#"), Cow::Borrowed(_)));
    let long = format!("x = 1\n{}y = 2\n", "# ä\n".repeat(100));
    let blanked = without_long_comments(&long, "#");
    assert_eq!((blanked.len(), blanked.lines().count()), (long.len(), 102));
    assert_eq!(blanked.matches("# ä").count(), FIRST_LINES + LAST_LINES);
    assert!(blanked.ends_with("# ä\ny = 2\n"));
    // A string that looks like comments ends where it does.
    let string = format!("s = \"\"\"\n{}# \"\"\"\n", "# a\n".repeat(100));
    assert!(without_long_comments(&string, "#").ends_with("# a\n# \"\"\"\n"));
}
