//! Whether two prompts ask the same, or only look like it.
//!
//! Vectors of a question and of its opposite are as near as those of a question and its paraphrase. So words decide, and
//! whoever is not sure says no: a miss costs a call, a false hit answers what nobody has asked.
//!
//! The rule: two prompts are the same if they are equal word for word, in order, and every difference is explained. What
//! explains a difference:
//!
//! - courtesy, see [`courtesy`];
//! - a rewrite of a whole sentence that keeps its meaning: "how can I" for "how do I", what stands in front, see [`rewrites`];
//! - keywords that have their topic in front, or at the end;
//! - capital letters, where one prompt leaves them out, or where they tell a word from no other, see [`Capitals`];
//! - number: an "a" before a word in one prompt and its plural without "a" in the other, or "is the" and "are the";
//! - a word and its synonym, in the same form.
//!
//! All else is another question: no preposition, no ending, no letter of a name is too small. So nothing has to be listed
//! that tells two prompts apart; prompts in other languages pass if they differ in case and punctuation only.

mod comparison;
mod courtesy;
mod grammar;
mod rewrites;
mod token;
mod tokens;

use comparison::{Capitals, are_equal, are_same};
use courtesy::is_courtesy;
use grammar::{AUXILIARIES, NUMBERS, PREPOSITIONS, PRONOUNS, QUESTION_WORDS, is_little};
use rewrites::rewritten;
use token::{Case, Kind, Token};
use tokens::tokens;

/// A prompt as it is compared.
#[derive(Debug, Clone)]
pub struct Question {
    sentences: Vec<Vec<Token>>,
    capitals: Capitals,
}

impl Question {
    pub fn of(text: &str) -> Self {
        let mut tokens = tokens(text);
        let capitals = capitals(&tokens);
        if capitals == Capitals::Idle {
            lower(&mut tokens);
        }
        let sentences = || tokens.split_inclusive(|token| token.ends);
        // Courtesy says nothing, unless nothing else is said.
        let all = sentences().all(is_courtesy);
        let said = sentences().filter(|sentence| all || !is_courtesy(sentence));
        let sentences = said.map(|sentence| numbered(rewritten(sentence.to_vec()))).collect();
        Self { sentences, capitals }
    }

    /// Whether the answer to one answers the other.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let capitals = self.capitals.max(other.capitals);
        let same = |a: &Vec<Token>, b: &Vec<Token>| {
            are_same(a, b, capitals)
                || exchanged(b).is_some_and(|b| are_same(a, &b, capitals))
                || exchanged(a).is_some_and(|a| are_same(&a, b, capitals))
                || topic_last(b).is_some_and(|b| are_equal(a, &b, capitals))
                || topic_last(a).is_some_and(|a| are_equal(&a, b, capitals))
        };
        self.sentences.len() == other.sentences.len()
            && self.sentences.iter().zip(&other.sentences).all(|(a, b)| same(a, b))
    }
}

/// What the capital letters of a prompt say.
fn capitals(tokens: &[Token]) -> Capitals {
    let words = || tokens.iter().filter(|token| token.kind == Kind::Word && token.word != "i");
    let enough = words().count() > 2;
    let none = tokens.iter().all(|token| {
        token.case == Case::Lower && (token.kind != Kind::Exact || !token.word.starts_with(char::is_uppercase))
    });
    if none || enough && words().all(|token| token.case != Case::Lower) {
        return Capitals::Idle;
    }
    let begins_small = tokens.first().is_some_and(|first| first.kind == Kind::Word && first.case == Case::Lower);
    let abbreviates = words().all(|token| matches!(token.case, Case::Lower | Case::Upper));
    if enough && begins_small && abbreviates { Capitals::Abbreviate } else { Capitals::Tell }
}

fn lower(tokens: &mut [Token]) {
    let spelled = |token: &&mut Token| token.kind == Kind::Word && !matches!(token.case, Case::Mixed | Case::Compound);
    for token in tokens.iter_mut().filter(spelled) {
        token.case = Case::Lower;
    }
}

/// With numbers and units as signs.
fn numbered(mut sentence: Vec<Token>) -> Vec<Token> {
    for token in sentence.iter_mut().filter(|token| token.kind != Kind::Exact) {
        if let Some((_, number)) = NUMBERS.iter().find(|(word, sign)| *word == token.word || *sign == token.word) {
            (token.word, token.kind) = ((*number).to_owned(), Kind::Sign);
        }
    }
    sentence
}

/// Fewest keywords of which the first may be the last as well. Of fewer, the order may say what is what: "milk chocolate".
const FEWEST_KEYWORDS: usize = 4;

/// "python convert a string to a date" → "convert a string to a date python": keywords and no sentence, with the topic in
/// front or at the end.
fn topic_last(sentence: &[Token]) -> Option<Vec<Token>> {
    let speaks = |token: &Token| {
        token.is_in(QUESTION_WORDS)
            || token.is_in(AUXILIARIES)
            || token.is_in(PRONOUNS)
            || token.comma
            || token.is("not")
    };
    let topic = sentence.first().filter(|topic| topic.kind != Kind::Sign && !is_little(&topic.word))?;
    let keywords = sentence.len() >= FEWEST_KEYWORDS && !sentence.iter().any(speaks) && !is_little(&sentence[1].word);
    keywords.then(|| sentence[1..].iter().chain([topic]).cloned().collect())
}

/// "between A and B" → "between B and A", "compare A with B" → "compare B with A".
fn exchanged(sentence: &[Token]) -> Option<Vec<Token>> {
    let compares = sentence.first()?.is("compare");
    let opens = |at: &usize| {
        let before = at.checked_sub(1).map(|at| &sentence[at]);
        sentence[*at].is("between")
            && before.is_some_and(|before| before.is_in(&["difference", "differences", "distance"]))
    };
    let start = if compares { 1 } else { (0..sentence.len()).find(opens)? + 1 };
    let joins = |token: &Token| token.is("and") || compares && token.is("with");
    let and = (start..sentence.len()).find(|&at| joins(&sentence[at]))?;
    let relates = |at: &usize| sentence[*at].is_in(PREPOSITIONS) || sentence[*at].is("and");
    // Where the first of the two is in, or of, something, so is the second one.
    let simple = !(start..and).any(|at| relates(&at));
    let end = (and + 1..sentence.len()).find(relates).filter(|_| simple).unwrap_or(sentence.len());
    let parts =
        [&sentence[..start], &sentence[and + 1..end], &sentence[and..=and], &sentence[start..and], &sentence[end..]];
    Some(parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        let (one, other) = (Question::of(a), Question::of(b));
        let there = one.asks_the_same(&other);
        assert_eq!(there, other.asks_the_same(&one), "{a} | {b}");
        there
    }

    #[test]
    fn whatever_only_one_has_must_be_explained() {
        for (a, b) in [
            ("How do I lint ESLint?", "How do I lint with ESLint?"),
            ("How do I deploy Nomad?", "How do I deploy on Nomad?"),
            ("What is the manifest?", "What is in the manifest?"),
            ("How do I sign a key?", "How do I sign with a key?"),
            ("Does it run on Linux?", "Does it only run on Linux?"),
            ("Who is the song by?", "Who is the song for?"),
            ("What is the port of ldap?", "What is the port of ldaps?"),
            ("What is the rail used for?", "What is the rails used for?"),
            ("How do I use a String?", "How do I use Strings?"),
            ("What does scraping mean?", "What does scrapping mean?"),
            ("What does hop mean?", "What does hoping mean?"),
            ("The order was shipped", "The order shipped"),
            ("I was fined", "I fined"),
            ("Write a test.", "Write tests."),
            ("Undo the change.", "Undo the changes."),
            ("What is the last commit?", "What are the last commits?"),
            ("How do I set PATH?", "How do I set path?"),
            ("How do I polish shoes?", "How do I Polish shoes?"),
            ("Is coffee bad for me?", "Is coffee bad?"),
            ("How do I say thanks?", "How do I say?"),
            ("Would you eat a bug?", "Can you eat a bug?"),
            ("Hi!", "Thanks!"),
            ("?", "!"),
            ("Wie installiere ich das?", "Wie installiere ich die?"),
        ] {
            assert!(!same(a, b), "{a} | {b}");
        }
    }

    #[test]
    fn what_keeps_the_meaning_explains() {
        for (a, b) in [
            ("How do I lint with ESLint on Windows?", "On Windows, how can I lint with ESLint?"),
            ("How can replies be cached in Rails?", "How do I cache replies in Rails?"),
            ("How do I write a regression test?", "How do I write regression tests?"),
            ("How does an index work in MySQL?", "How do indexes work in MySQL?"),
            ("What's the limit of Redis?", "What are the limits of Redis?"),
            ("Why can't I push?", "Why can I not push?"),
            ("Where is my order?", "Could you please tell me where my order is?"),
            ("How does TLS work?", "I would like to know how TLS works. Thanks!"),
            ("What is Node.js in short?", "what is node.js in short"),
            ("Compare tea with coffee.", "Compare coffee with tea."),
            ("How do I copy it from A to B?", "How do I copy it to B from A?"),
            ("How do I turn on Bluetooth?", "How do I enable Bluetooth?"),
            ("What is the biggest city?", "What is the largest city?"),
            ("What is Germany's tax rate?", "What is the tax rate of Germany?"),
        ] {
            assert!(same(a, b), "{a} | {b}");
        }
    }

    #[test]
    fn courtesy_says_nothing_wherever_it_stands() {
        let question = "How do I prune a tree?";
        for asked in [
            "Quick question: how do I prune a tree?",
            "Sorry to bother you, but how do I prune a tree?",
            "Good morning! How do I prune a tree? Many thanks in advance.",
            "Hey all, how do I prune a tree?",
            "I need some help: how do I prune a tree?",
            "Does anyone know how to prune a tree?",
            "Could somebody explain to me how I can prune a tree?",
            "Just wondering, how do I prune a tree? Thank you very much for your help!",
            "I am trying to figure out how to prune a tree.",
        ] {
            assert!(same(question, asked), "{asked}");
        }
        assert!(same("Prune the tree.", "Could you please prune the tree for me?"));
        for (a, b) in [
            (question, "I know how to prune a tree."),
            (question, "With help, how do I prune a tree?"),
            (question, "In the morning, how do I prune a tree?"),
            (question, "For a good friend, how do I prune a tree?"),
            (question, "No thanks. How do I prune a tree, then?"),
            ("Translate: how do I prune a tree?", "Translate: how do I prune the tree?"),
            ("Help!", "Thanks!"),
            ("Does anyone know the way?", "Does everyone know the way?"),
            ("Can anyone become a judge?", "Become a judge."),
            ("Is it good for me?", "Is it good?"),
        ] {
            assert!(!same(a, b), "{a} | {b}");
        }
    }

    #[test]
    fn capitals_tell_names_unless_their_writer_leaves_them_out() {
        for (a, b) in [
            ("how do I open a PDF in opera", "How do I open a PDF in Opera?"),
            ("How do I push to Gitlab?", "How do I push to GitLab?"),
            ("How do I style a page with css?", "How do I style a page with CSS?"),
            ("Is UTF-8 a charset?", "is utf-8 a charset"),
        ] {
            assert!(same(a, b), "{a} | {b}");
        }
        for (a, b) in [
            ("how do I set PATH in zsh", "How do I set path in zsh?"),
            ("How do I clean LaTeX?", "How do I clean latex?"),
            ("How do I learn Polish?", "Tell me: how do I learn polish?"),
            ("Explain gitLab here.", "Explain GitLab here."),
        ] {
            assert!(!same(a, b), "{a} | {b}");
        }
    }

    #[test]
    fn keywords_may_have_their_topic_at_either_end() {
        assert!(same("ansible restart a service", "restart a service ansible"));
        assert!(same("sqlite dump one table", "dump one table sqlite"));
        for (a, b) in [
            ("milk chocolate", "chocolate milk"),
            ("is bash a shell", "bash a shell is"),
            ("bash to zsh", "zsh to bash"),
            ("ruby call python code", "python call ruby code"),
            ("ruby list all files", "list all files python"),
        ] {
            assert!(!same(a, b), "{a} | {b}");
        }
    }

    #[test]
    fn no_language_but_english_is_read() {
        for text in [
            "Wie installiere ich Docker auf Ubuntu?",
            "¿Cómo instalo Docker en Ubuntu?",
            "Comment installer Docker sur Ubuntu ?",
            "Как установить Docker на Ubuntu?",
            "東京から大阪までの料金はいくらですか?",
            "怎么在 Ubuntu 上安装 Docker?",
            "كيف أثبت Docker على Ubuntu؟",
        ] {
            assert!(same(text, &text.replace('?', "")), "{text}");
        }
        for (a, b) in [
            ("Was ist Python?", "Was war Python?"),
            ("Wie lange dauert es mit Cache?", "Wie lange dauert es ohne Cache?"),
            ("Wer hat das Buch?", "Wer hat die Bücher?"),
            ("¿Cómo voy a Madrid?", "¿Cómo voy de Madrid?"),
            ("Où est le fichier ?", "Où sont les fichiers ?"),
            ("Je peux le faire", "Je ne peux pas le faire"),
            ("東京から大阪までの料金はいくらですか?", "大阪から東京までの料金はいくらですか?"),
            ("这是对的吗?", "这不是对的吗?"),
            ("Он пришёл?", "Она пришла?"),
        ] {
            assert!(!same(a, b), "{a} | {b}");
        }
    }

    #[test]
    fn signs_and_code_are_what_they_are() {
        for (a, b) in [
            ("What does 😀 mean?", "What does 😁 mean?"),
            ("What does 👍 mean?", "What does 👍🏽 mean?"),
            ("Is 1 < 2 true?", "Is 1 > 2 true?"),
            ("What is 2^3?", "What is 3^2?"),
            ("What is -5 + 3?", "What is 5 + 3?"),
            ("What does x = y do?", "What does x == y do?"),
            ("Why does f(a, b) fail?", "Why does f(b, a) fail?"),
            ("Explain a[0].", "Explain a[1]."),
            ("Explain `a b`.", "Explain `a  c`."),
            ("What does *p++ do?", "What does (*p)++ do?"),
            ("", " ?"),
            ("", "a"),
        ] {
            assert!(!same(a, b), "{a} | {b}");
        }
    }

    /// What a processor takes to compare two prompts of this many repetitions.
    fn seconds(part: &str, times: usize) -> f64 {
        let (a, b) = (part.repeat(times), format!("{}?", part.repeat(times)));
        let start = crate::host::thread_seconds();
        std::hint::black_box(Question::of(&a).asks_the_same(&Question::of(&b)));
        crate::host::thread_seconds() - start
    }

    #[test]
    fn time_is_linear_in_the_length() {
        // 32 times the text takes some 32 times the time, and by far not 1024 times.
        for part in [
            "word ",
            "please ",
            "'a ",
            "\"",
            "`",
            "‘a ",
            "-",
            "- ",
            "=",
            "=?",
            "!",
            "? ",
            "Anna's ",
            "a's ",
            "A B 's ",
            "not ",
            "in a, ",
            "how ",
            "to a from b ",
            "between a and b ",
            "does ",
            "a list ",
            "no. ",
            "all the ",
            "x-y-",
            "1,",
            "a.b",
            "quickly ",
            "difference between ",
            "Hi. ",
            "hi, ",
            "so many thanks ",
            "quick question: ",
            "good morning, ",
            "keyword ",
            "GitHub ",
        ] {
            let (mut short, mut long) = (f64::INFINITY, f64::INFINITY);
            let mut linear = || {
                (short, long) = (short.min(seconds(part, 250)), long.min(seconds(part, 8_000)));
                long < 64.0 * short
            };
            assert!((0..100).any(|_| linear()), "{part:?}: {short} s, then {long} s");
        }
    }

    #[test]
    fn what_means_the_same_passes() {
        for (a, b) in [
            ("How do I reverse a string in Python?", "In Python, how can I reverse a string?"),
            ("What is the capital of France?", "Tell me the capital of France."),
            ("What's 1,000 kg in pounds?", "what is 1000 kilograms in pounds"),
            ("Don't use `getUser` here.", "Do not use `getUser` here"),
            ("Explain the two laws.", "Explain the 2 laws."),
            ("Compare Go and Rust.", "compare Rust and Go"),
            ("Name the capital of Chile.", "name the capital of chile"),
        ] {
            assert!(same(a, b), "{a} | {b}");
        }
    }

    #[test]
    fn what_only_looks_like_it_does_not() {
        for (a, b) in [
            ("Who invented the telephone?", "When was the telephone invented?"),
            ("Did Alice call Bob?", "Was Alice called by Bob?"),
            ("Who is the president?", "Who was the president?"),
            ("A letter from Anna", "A letter to Anna"),
            ("What is my name?", "What is your name?"),
            ("What can I bring?", "What must I bring?"),
            ("How do I parse JSON?", "What is JSON parsing?"),
            ("Explain getUser", "Explain getuser"),
            ("Is A in B?", "Is B in A?"),
            ("(1 + 2) * 3", "1 + (2 * 3)"),
            ("Divide a by b.", "Divide b by a."),
            ("cats or dogs", "cats and dogs"),
            ("Is the employer right?", "Is the employee right?"),
            ("Write a poem for my mother.", "Write a poem about my mother."),
            ("What is the time in Tokyo?", "What is the time to Tokyo?"),
            ("Compare A with B in C.", "Compare A with C in B."),
            ("Compare lists in Python and arrays in Java.", "Compare lists in Java and arrays in Python."),
            ("Compare gold in 2010 and silver in 2020.", "Compare gold in 2020 and silver in 2010."),
            ("What depends on libfoo?", "What does libfoo depend on?"),
            ("What is Python?", "What is a python?"),
            ("Who is Robin Williams?", "Who is Robin William?"),
        ] {
            assert!(!same(a, b), "{a} | {b}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_means_the_same_as_itself_in_both_directions(
            a in proptest::collection::vec(proptest::sample::select(WORDS.to_vec()), 0..9),
            b in proptest::collection::vec(proptest::sample::select(WORDS.to_vec()), 0..9),
            noise in ".{0,20}",
        ) {
            let (a, b) = (a.join(" "), b.join(" "));
            same(&a, &b);
            same(&noise, &a);
            proptest::prop_assert!(same(&a, &a) && same(&noise, &noise));
        }
    }

    proptest::proptest! {
        /// Words of no language, so that no two of them are known to mean the same.
        #[test]
        fn one_letter_or_digit_makes_another_question(
            words in proptest::collection::vec("[b-df-hj-np-tv-z0-9]{3,8}", 1..9),
            which in proptest::prelude::any::<proptest::sample::Index>(),
            letter in proptest::sample::select("bcdfghjklmnpqrtvwxz0123456789".chars().collect::<Vec<_>>()),
        ) {
            let text = words.join(" ");
            let at = which.index(text.len());
            if text.as_bytes()[at] != b' ' && !text[at..].starts_with(letter) {
                let other = format!("{}{letter}{}", &text[..at], &text[at + 1..]);
                for (front, end) in [("", ""), ("How do I use ", "?"), ("Please show me the ", " in Go.")] {
                    let (a, b) = (format!("{front}{text}{end}"), format!("{front}{other}{end}"));
                    proptest::prop_assert!(!same(&a, &b), "{} | {}", a, b);
                }
            }
        }
    }

    const WORDS: [&str; 40] = [
        "what",
        "which",
        "is",
        "are",
        "the",
        "a",
        "how",
        "do",
        "does",
        "can",
        "be",
        "used",
        "to",
        "use",
        "I",
        "need",
        "in",
        "of",
        "one",
        "explain",
        "tell",
        "me",
        "X",
        "cats?",
        "dogs,",
        "getUser",
        "2",
        "largest",
        "command",
        "differ",
        "from",
        "mean?",
        "at",
        "temperature",
        "boil",
        "not",
        "quickly",
        "by",
        "who",
        "best",
    ];

    #[test]
    fn any_text_is_read() {
        for text in
            ["", " ", "?!", "¿", "'", "``", "a'", "n't", "1.", ".5", "-", "--1", "\u{0}", "日本語は?", "e\u{301}", "İ"]
        {
            assert!(same(text, text), "{text}");
        }
    }
}
