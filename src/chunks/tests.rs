use proptest::prelude::*;

use super::*;

/// Words and punctuation; two units are put around each chunk.
struct Words;

impl Sizer for Words {
    fn units(&self, piece: &str) -> Result<Vec<usize>> {
        let mut word = false;
        let begins = |(at, c): (usize, char)| {
            let before = std::mem::replace(&mut word, c.is_alphanumeric());
            (!(c.is_whitespace() || before && word)).then_some(at)
        };
        Ok(piece.char_indices().filter_map(begins).collect())
    }

    fn size(&self, chunk: &str) -> Result<usize> {
        Ok(self.units(chunk)?.len() + 2)
    }

    fn most_bytes(&self) -> usize {
        1 << 20
    }
}

fn options(most: usize) -> SplitOptions {
    SplitOptions { most, ..SplitOptions::default() }
}

fn chunks(text: &str, path: Option<&str>, options: &SplitOptions) -> Vec<Chunk> {
    let document = Document { text: text.to_owned(), path: path.map(str::to_owned) };
    split(&document, options, &Words, &Cancel::default()).unwrap()
}

fn texts<'a>(text: &'a str, chunks: &[Chunk]) -> Vec<&'a str> {
    // All of it is ASCII.
    chunks.iter().map(|chunk| &text[chunk.utf16.clone()]).collect()
}

const GUIDE: &str = "---\ntitle: Guide\n---\n\nAbout this.\n\n# Guide\n\nFirst words here.\n\n## Install\n\nRun this one.\nIt wraps on.\n\n```sh\n# no heading\nnpm i x\n```\n\n## Use\n\n- one item here\n- two item here\n\nTable of it:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nMore\n----\n\nThe last words.\n";

#[test]
fn markdown_is_cut_at_headings_and_blocks() {
    let found = chunks(GUIDE, Some("guide.md"), &options(16));
    let headings: Vec<String> = found.iter().map(|chunk| chunk.headings.join(" > ")).collect();
    let texts = texts(GUIDE, &found);
    assert_eq!(texts[0], "---\ntitle: Guide\n---\n\nAbout this.");
    assert_eq!((texts[1], &headings[1][..]), ("# Guide\n\nFirst words here.", "Guide"));
    assert_eq!((texts[2], &headings[2][..]), ("## Install\n\nRun this one.\nIt wraps on.", "Guide > Install"));
    assert_eq!((texts[3], &headings[3][..]), ("```sh\n# no heading\nnpm i x\n```", "Guide > Install"));
    assert_eq!((texts[4], &headings[4][..]), ("## Use\n\n- one item here\n- two item here", "Guide > Use"));
    assert_eq!(texts[5], "Table of it:");
    assert_eq!(headings.last().unwrap(), "Guide > More");
    assert_eq!(found[3].line, 16);
    assert!(found.iter().all(|chunk| chunk.size <= 16));
    assert_eq!(chunks(GUIDE, Some("guide.md"), &options(1000)).len(), 1);
}

#[test]
fn sections_that_fit_together_stay_together_and_rests_do_not_run_on() {
    let text = "# A\n\na b c\n\n# B\n\nd e f\n\n# C\n\ng h i j k l m n o p q r s t u v.\n\nw x y z\n\n# D\n\nend\n";
    let found = chunks(text, Some("a.md"), &options(14));
    let headings: Vec<&str> = found.iter().map(|chunk| &chunk.headings[0][..]).collect();
    assert_eq!(headings, ["A", "C", "C", "D"]);
    assert_eq!(texts(text, &found)[0], "# A\n\na b c\n\n# B\n\nd e f");
}

#[test]
fn code_is_cut_at_declarations() {
    let text = "use a;\n\n/// About f.\nfn f() {\n    one();\n    two();\n}\n\nmod m {\n    fn g() {\n        three();\n        four();\n        five();\n    }\n}\n";
    let found = chunks(text, Some("src/a.rs"), &options(22));
    assert_eq!(texts(text, &found)[0], "use a;");
    assert!(texts(text, &found)[1].starts_with("/// About f.") && texts(text, &found)[1].ends_with('}'));
    assert_eq!(found[1].headings, ["f"]);
    let last = found.last().unwrap();
    assert_eq!(last.headings, ["g"]);
    let named = SplitOptions { language: Some("rust".to_owned()), ..options(22) };
    assert_eq!(chunks(text, None, &named), found);
}

#[test]
fn prose_is_cut_at_sentences_and_words() {
    let text = "One two three. Four five six seven. Eight nine ten eleven twelve thirteen fourteen.";
    let found = chunks(text, None, &options(8));
    let expected = ["One two three.", "Four five six seven.", "Eight nine ten eleven twelve thirteen", "fourteen."];
    assert_eq!(texts(text, &found), expected);
    let overlapping = SplitOptions { overlap: 3, ..options(8) };
    let found = chunks("a b c d e f g h i j k l m n", None, &overlapping);
    let all = texts("a b c d e f g h i j k l m n", &found);
    assert_eq!(all[..2], ["a b c d e f", "d e f g h i"]);
    assert_eq!(all.last().unwrap().chars().last(), Some('n'));
}

#[test]
fn limits_without_room_are_refused() {
    let refused = |options: &SplitOptions| {
        let document = Document { text: "a b".to_owned(), path: None };
        split(&document, options, &Words, &Cancel::default()).unwrap_err().to_string()
    };
    assert!(refused(&options(2)).contains("at least 3"));
    assert!(refused(&SplitOptions { overlap: 3, ..options(5) }).contains("overlap"));
    let document = Document { text: "a🦀".to_owned(), path: None };
    let none = split(&document, &options(1), &Characters, &Cancel::default()).unwrap_err().to_string();
    assert!(none.contains("'🦀'"), "{none}");
}

#[test]
fn what_is_endless_is_cut_in_linear_time() {
    for text in [
        "x".repeat(1 << 20),
        "🦀".repeat(1 << 18),
        "e\u{301}".repeat(1 << 18),
        "a ".repeat(1 << 19),
        "#\n".repeat(1 << 19),
    ] {
        let document = Document { text: text.clone(), path: Some("a.md".to_owned()) };
        let found = split(&document, &options(1000), &Characters, &Cancel::default()).unwrap();
        assert!(found.len() >= text.chars().count() / 2000);
        assert!(found.iter().all(|chunk| chunk.size <= 1000));
        let overlapping = SplitOptions { overlap: 900, ..options(1000) };
        let few = split(&document, &overlapping, &Characters, &Cancel::default()).unwrap();
        assert!(few.len() <= 40 * found.len());
    }
}

proptest! {
    #[test]
    fn chunks_hold_all_of_the_text_within_their_limit(
        pieces in prop::collection::vec(prop_oneof![
            "[a-c]{1,9}", Just(" ".to_owned()), Just("\n".to_owned()), Just("\r\n\r\n".to_owned()), Just("\n# H\n".to_owned()),
            Just("\n```\n".to_owned()), Just(". ".to_owned()), Just("🦀".to_owned()), Just("e\u{301}\u{302}".to_owned()),
            Just("\n- ".to_owned()), Just("\n===\n".to_owned()), Just("\t".to_owned()), Just("fn f() {\n".to_owned()), Just("}\n".to_owned()),
        ], 0..60),
        most in 4usize..30,
        overlap in 0usize..4,
        path in prop::sample::select(vec!["a.md", "a.txt", "a.rs", "a.unknown"]),
        words in any::<bool>(),
    ) {
        let text = pieces.concat();
        let overlap = overlap.min(most - 3);
        let options = SplitOptions { overlap, ..options(most) };
        let document = Document { text: text.clone(), path: Some(path.to_owned()) };
        let sizer: &dyn Sizer = if words { &Words } else { &Characters };
        let found = split(&document, &options, sizer, &Cancel::default()).unwrap();
        let units: Vec<u16> = text.encode_utf16().collect();
        let mut covered = vec![false; units.len()];
        let mut last = 0;
        for chunk in &found {
            let own = String::from_utf16(&units[chunk.utf16.clone()]).unwrap();
            prop_assert_eq!(chunk.size, sizer.size(&own).unwrap(), "{:?}", own);
            prop_assert!(chunk.size <= most);
            prop_assert!(!own.trim().is_empty() && chunk.utf16.end > last);
            prop_assert_eq!(chunk.line, 1 + units[..chunk.utf16.start].iter().filter(|unit| **unit == 10).count());
            last = chunk.utf16.end;
            covered[chunk.utf16.clone()].fill(true);
        }
        for (unit, covered) in units.iter().zip(covered) {
            let space = char::from_u32(u32::from(*unit)).is_some_and(char::is_whitespace);
            prop_assert!(covered || space);
        }
    }
}
