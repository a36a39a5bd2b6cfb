//! Ways to say the same, made one.
//!
//! A rule is what a sentence begins with, and what stands for it. Words are separated by spaces; `a|b` is either of them, `?a`
//! may be missing, `!a` must not follow; `,` is where a comma or the end is, `$` the end. What is kept is put in by its number:
//! `(a|b)` one of these words, `*` whatever stands before the next one, `Q` a word that asks, `V` a verb, `W` any word that is
//! not among the little ones, `Ving`, `Vs`, `Ven` a verb in one of its forms, for which it stands, and `Vest` a superlative.

use std::sync::LazyLock;

use super::courtesy::without_asides;
use super::grammar::{AUXILIARIES, CONJUNCTIONS, DETERMINERS, PREPOSITIONS, QUESTION_WORDS, is_little, is_participle};
use super::token::{Kind, Token};

/// What only asks politely, and what stands for it. Taken away at the beginning, as long as there is any.
const OPENINGS: &[(&str, &str)] = &[
    ("please|kindly", ""),
    ("can|could you ?please|kindly", ""),
    ("will|would you please|kindly", ""),
    ("i would like|love you to", ""),
    ("i want|need you to", ""),
    ("i would like|love to know Q", "1"),
    ("i want|need to know Q", "1"),
    ("i am|was wondering if you can|could|would ?please", ""),
    ("i am|was wondering Q", "1"),
    ("i would like|love to know the", "give the"),
    ("i want|need to know the", "give the"),
    ("i wonder Q", "1"),
    ("do|would you ?happen ?to know Q", "1"),
    ("do you have any idea|clue Q", "1"),
    ("any idea|clue Q", "1"),
    ("does|do|would anyone|anybody|someone|somebody ?here ?happen ?to know|remember Q", "1"),
    (
        "can|could|will|would anyone|anybody|someone|somebody ?please tell|show|explain|describe|clarify ?to ?me|us Q",
        "1",
    ),
    ("just wondering Q", "1"),
    ("wondering Q", "1"),
    ("i am curious Q", "1"),
    ("i am trying to understand|learn Q", "1"),
    ("i am trying to find|figure out Q", "1"),
    ("it would be great|nice|helpful if you could", ""),
    ("i would be grateful if you could", ""),
    ("i would appreciate it if you could", ""),
    ("may|can|could i ask ?you Q", "1"),
    ("would|do you mind telling|explaining|showing ?to ?me|us Q", "1"),
    ("let me|us know Q", "1"),
    ("tell|show|explain|describe ?to ?me|us Q", "1"),
    ("help me|us ?to understand|learn Q", "1"),
    ("understand Q", "1"),
    ("help me|us ?to V", "1"),
    ("i would like|love a|an", "give a"),
    ("i want|need a|an", "give a"),
    ("tell|give me|us", "give"),
    ("show me|us", "show"),
];

/// Sentences that ask the same. Each is tried once, in turn, at the beginning of a sentence.
const RULES: &[(&str, &str)] = &[
    // How something is done.
    ("what|which is|are the|a|an ?best|right|proper|correct way|ways|method|approach|steps to V", "how 1"),
    ("what|which is|are the|a|an ?best|right|proper|correct way|ways|method|approach|steps of|for Ving", "how 1"),
    ("is there a|any way to V", "how 1"),
    ("is there a|any way of Ving", "how 1"),
    ("what is the fastest|quickest way to", "how fastest"),
    ("what is a fast|quick way to V * $", "how 1 2 quickly"),
    ("what can|should i do to", "how"),
    ("explain|describe the way", "how"),
    ("explain the workings of * $", "how does 1 work"),
    ("how do|can|could i|one", "how"),
    ("how does one", "how"),
    ("how to", "how"),
    // As it stands behind "tell me".
    ("how i|one can|could", "how"),
    ("how (you|we) can|could", "how 1"),
    ("how i V", "how 1"),
    ("how do|can|could (you|we)", "how 1"),
    ("how can|could * be Ven !by", "how 2 1"),
    ("what|which ?is ?the command|statement|syntax to V", "how 1"),
    ("what|which ?is ?the command|statement|syntax Vs", "how 1"),
    ("what|which ?is ?the W command|statement|syntax to V * $", "how 2 3 in 1"),
    ("what|which W command|statement Vs * $", "how 2 3 in 1"),
    ("how use * to V * $", "how 2 3 with 1"),
    ("how is|are V Ven !by", "how 2 1"),
    ("how is|are V V Ven !by", "how 3 1 2"),
    ("how is (a|an) V Ven !by", "how 3 1 2"),
    ("how V are Ven !by", "how 2 1"),
    ("how (a|an) V is Ven !by", "how 3 1 2"),
    ("what|which W do|should i need|use ?to V * $", "how 2 3 with 1"),
    // Why, when, who.
    ("what is the reason that|why", "why"),
    ("on which|what date", "when"),
    ("when is the best time to", "what are/is the best time to"),
    ("which|what person", "who"),
    ("which|what artist painted", "who painted"),
    ("who is|was the author of", "who wrote"),
    ("who is|was the inventor of", "who invented"),
    ("who is|was the founder of", "who founded"),
    // Which of them.
    ("which (is|are) the", "what 1 the"),
    ("which * (is|are) the Vest", "what 2 the 3 1"),
    ("which|what city is the capital of", "what is the capital of"),
    ("which|what * does|do * have $", "what are/is the 1 of 2"),
    ("which|what * is|are * in $", "what are/is the 1 of 2"),
    ("which|what * does|do * use by default", "what are/is the default 1 of 2"),
    ("which|what * do i need for", "what are/is the 1 of"),
    ("which * (is|are) (good|common|popular|important|safe)", "what 2 3 1"),
    // How much of it.
    ("how many * are|is in", "what are/is the number of 1 in"),
    ("count the * in * $", "how many 1 2 has"),
    ("how many people live in", "what are/is the population of"),
    ("how old is|are", "what are/is the age of"),
    ("how tall is|are", "what are/is the height of"),
    ("how heavy is|are", "what are/is the weight of"),
    ("how deep is|are", "what are/is the depth of"),
    ("how fast does|do * go|move|travel", "what are/is the speed of 1"),
    ("how far is|are * from", "what are/is the distance between 1 and"),
    ("how much time is needed to", "how long does it take to"),
    ("how much time does it take to", "how long does it take to"),
    ("how high|much is|are * (price|rent|fee|tax|wage|salary|income|rate|gdp|budget|debt)", "what are/is 1 2"),
    ("how much does|do * cost $", "what are/is the price of 1"),
    ("at what|which temperature does * boil", "what are/is the boiling point of 1"),
    ("at what|which temperature does * melt", "what are/is the melting point of 1"),
    ("at what|which temperature does * freeze", "what are/is the freezing point of 1"),
    // What it is.
    ("how do|does * differ from", "what are/is the difference between 1 and"),
    ("how do|does * differ", "what are/is the difference between 1"),
    ("what does|do * mean $", "what are/is the meaning of 1"),
    ("what is the function|role of * in", "what do/does 1 do in"),
    ("what is the function|role of * $", "what do/does 1 do"),
    ("what do|does * do", "what do/does 1 do"),
    ("what !do|does|do/does * does|do $", "what do/does 1 do"),
    ("what !do|does|do/does * does|do in", "what do/does 1 do in"),
    ("what is the name of", "who is"),
    ("suggest|recommend (a|an) (good)", "what are/is 1 2"),
    ("what causes", "what are/is the causes of"),
    ("explain|define", "what are/is"),
    ("give|list|name|calculate|compute the", "what are/is the"),
    // What is to be made, or worked on.
    ("make|create|write|generate|give a list of the", "what are/is the"),
    ("make|create|write|generate|give a list of", "list"),
    ("come up with (a|an)", "write 1"),
    ("show (a|an) (example)", "write 1 2"),
    ("give|tell (a|an)", "write 1"),
    ("create|make|generate|compose|draft|produce !the|this|that|these|it|my|sure", "write"),
    ("turn|transform|port * into|to", "convert 1 to"),
    ("(convert|translate|shorten|condense) * into", "1 2 to"),
    ("how (convert|translate) * into", "how 1 2 to"),
    ("condense", "shorten"),
    ("spot|identify", "find"),
    ("correct|repair", "fix"),
    ("rephrase|reword|paraphrase", "rewrite"),
    ("categorize", "classify"),
    ("enhance", "improve"),
    ("analyse|examine", "analyze"),
    ("which W", "what 1"),
];

/// Words that are one, wherever they stand.
const PHRASES: &[(&[&str], &str)] = &[
    (&["regular", "expression"], "regex"),
    (&["regular", "expressions"], "regexes"),
    (&["in", "order", "to"], "to"),
    (&["get", "rid", "of"], "remove"),
    (&["deal", "with"], "handle"),
    (&["tests", "if"], "checks if"),
    (&["test", "if"], "check if"),
    (&["loop", "over"], "iterate"),
    (&["iterate", "over"], "iterate"),
    (&["as", "well", "as"], "and"),
    (&["the", "concept", "of"], ""),
    (&["all", "the"], "all"),
    (&["all", "of", "the"], "all"),
    (&["turn", "on"], "enable"),
    (&["switch", "on"], "enable"),
    (&["turn", "off"], "disable"),
    (&["switch", "off"], "disable"),
    (&["have", "to"], "need to"),
    (&["look", "for"], "search for"),
    (&["set", "up"], "configure"),
    (&["speed", "up"], "accelerate"),
];

/// A piece of a pattern.
enum Element {
    /// One of these words.
    Words(Vec<&'static str>),
    /// One of these words, or none.
    Maybe(Vec<&'static str>),
    /// One of these words, which is kept.
    Kept(Vec<&'static str>),
    /// None of these words, and nothing is taken.
    Not(Vec<&'static str>),
    /// A comma, or the end.
    Comma,
    /// The end.
    End,
    /// All up to what follows.
    Gap,
    /// A word that asks.
    Asks,
    /// A word that says what is done.
    Verb,
    /// The same, in one of its forms, for which it stands.
    Doing,
    Does,
    Done,
    /// "largest".
    Most,
    /// Any word that is no little one.
    Thing,
}

struct Rule {
    find: Vec<Element>,
    put: Vec<&'static str>,
}

impl Rule {
    fn of((find, put): &(&'static str, &'static str)) -> Self {
        let words = |of: &'static str| of.split('|').collect();
        let element = |of: &'static str| match of {
            "," => Element::Comma,
            "$" => Element::End,
            "*" => Element::Gap,
            "Q" => Element::Asks,
            "V" => Element::Verb,
            "Ving" => Element::Doing,
            "Vs" => Element::Does,
            "Ven" => Element::Done,
            "Vest" => Element::Most,
            "W" => Element::Thing,
            _ => match of.split_at(1) {
                ("?", rest) => Element::Maybe(words(rest)),
                ("(", rest) => Element::Kept(words(rest.trim_end_matches(')'))),
                ("!", rest) => Element::Not(words(rest)),
                _ => Element::Words(words(of)),
            },
        };
        Self { find: find.split(' ').map(element).collect(), put: put.split_whitespace().collect() }
    }

    /// The sentence as it is to be, if it begins as this rule says.
    fn apply(&self, sentence: &[Token]) -> Option<Vec<Token>> {
        let mut captures: Vec<Vec<Token>> = Vec::new();
        let mut at = 0;
        let mut elements = self.find.iter().peekable();
        while let Some(element) = elements.next() {
            match element {
                Element::Gap => {
                    let until = elements.peek()?;
                    let found = || (at + 1..sentence.len()).find(|&end| until.takes(&sentence[end]));
                    let end = if matches!(until, Element::End) { Some(sentence.len()) } else { found() };
                    let end = end.filter(|end| *end > at)?;
                    captures.push(sentence[at..end].to_vec());
                    at = end;
                }
                Element::Maybe(words) => at += usize::from(sentence.get(at).is_some_and(|token| token.is_in(words))),
                Element::Not(words) if sentence.get(at).is_some_and(|token| token.is_in(words)) => return None,
                Element::Not(_) => {}
                Element::End if at < sentence.len() => return None,
                Element::End => {}
                Element::Comma if at < sentence.len() && !sentence[at - 1].comma => return None,
                Element::Comma => {}
                one => {
                    let token = sentence.get(at).filter(|token| one.takes(token))?;
                    if !matches!(one, Element::Words(_)) {
                        let stands_for_base = matches!(one, Element::Doing | Element::Does | Element::Done);
                        captures.push(vec![Token { stands_for_base, ..token.clone() }]);
                    }
                    at += 1;
                }
            }
        }
        let mut made: Vec<Token> = Vec::with_capacity(sentence.len());
        for word in &self.put {
            match word.parse::<usize>() {
                Ok(number) => made.extend_from_slice(captures.get(number - 1)?),
                Err(_) => made.push(Token::plain(word)),
            }
        }
        made.extend_from_slice(&sentence[at..]);
        (!made.is_empty()).then_some(made)
    }
}

impl Element {
    fn takes(&self, token: &Token) -> bool {
        let verb = || token.kind == Kind::Word && token.is_plain() && !is_little(&token.word);
        match self {
            Self::Words(words) => token.is_in(words),
            Self::Kept(words) => token.kind == Kind::Word && words.contains(&token.word.as_str()),
            Self::Asks => token.is_in(QUESTION_WORDS) || token.is_in(&["if", "whether"]),
            Self::Verb => verb(),
            Self::Doing => verb() && token.word.ends_with("ing"),
            Self::Does => verb() && token.word.ends_with('s'),
            Self::Most => verb() && (token.word.ends_with("est") || token.is_in(&["worst", "most", "least"])),
            Self::Thing => !token.is_plain() || verb(),
            Self::Done => verb() && is_participle(&token.word),
            _ => false,
        }
    }
}

static OPENING: LazyLock<Vec<Rule>> = LazyLock::new(|| OPENINGS.iter().map(Rule::of).collect());
static REWRITES: LazyLock<Vec<Rule>> = LazyLock::new(|| RULES.iter().map(Rule::of).collect());

/// Most polite openings that are taken away.
const MOST_OPENINGS: usize = 8;

/// A sentence as it is compared.
pub fn rewritten(mut sentence: Vec<Token>) -> Vec<Token> {
    sentence = without_asides(sentence);
    sentence = front_last(without_openings(sentence));
    // What stood in front may have hidden some.
    sentence = with_phrases(without_beneficiary(without_openings(sentence)));
    for rule in REWRITES.iter() {
        sentence = rule.apply(&sentence).unwrap_or(sentence);
    }
    manner_last(source_first(denial_first(owners_last(sentence))))
}

fn without_openings(mut sentence: Vec<Token>) -> Vec<Token> {
    for _ in 0..MOST_OPENINGS {
        match OPENING.iter().find_map(|rule| rule.apply(&sentence)) {
            Some(opened) => sentence = opened,
            None => break,
        }
    }
    sentence
}

/// "do it for me" → "do it", where somebody is to do it; "is it bad for me" is another question than "is it bad".
fn without_beneficiary(mut sentence: Vec<Token>) -> Vec<Token> {
    let asks = sentence.first().is_none_or(|first| first.is_in(QUESTION_WORDS) || first.is_in(AUXILIARIES));
    let length = sentence.len();
    if !asks && length > 3 && sentence[length - 2].is("for") && sentence[length - 1].is("me") {
        sentence.truncate(length - 2);
    }
    sentence
}

/// "In Python, how do I …", "If it fails, what …" → "how do I … in Python", "what … if it fails".
fn front_last(mut sentence: Vec<Token>) -> Vec<Token> {
    let fronted = sentence.first().is_some_and(|first| first.is_in(PREPOSITIONS) || first.is_in(CONJUNCTIONS));
    // "In which year …" is no front.
    if !fronted || sentence.get(1).is_none_or(|second| second.is_in(QUESTION_WORDS)) {
        return sentence;
    }
    let asks = |token: &Token| token.is_in(QUESTION_WORDS) && !token.is_in(&["which", "whom", "whose", "who"]);
    let comma = sentence.iter().position(|token| token.comma).map(|at| at + 1);
    let bare = (2..sentence.len().min(6)).find(|&at| asks(&sentence[at]));
    match comma.or(bare.filter(|_| sentence[0].is_in(PREPOSITIONS))) {
        Some(end) if end < sentence.len() => {
            sentence.rotate_left(end);
            sentence
        }
        _ => sentence,
    }
}

/// Most words of a name that owns something.
const MOST_NAMES: usize = 4;

/// "Anna's dog" → "the dog of Anna".
fn owners_last(sentence: Vec<Token>) -> Vec<Token> {
    let mut made: Vec<Token> = Vec::with_capacity(sentence.len());
    let mut at = 0;
    while at < sentence.len() {
        let token = &sentence[at];
        let ends = |token: &Token| token.is_plain() && is_little(&token.word);
        let owns = token.is("'s") && !made.is_empty();
        let owned = if owns { sentence[at + 1..].iter().take_while(|token| !ends(token)).count() } else { 0 };
        if owned == 0 {
            made.push(token.clone());
            at += 1;
            continue;
        }
        // KeyHasher may have several words.
        let name = |token: &Token| token.kind == Kind::Word && !token.is_plain();
        let last = made.len() - 1;
        let mut start = last;
        while start > 0 && last - start < MOST_NAMES && name(&made[start]) && name(&made[start - 1]) {
            start -= 1;
        }
        if start > 0 && made[start - 1].is_in(DETERMINERS) {
            start -= 1;
        }
        let owner = made.split_off(start);
        made.push(Token::plain("the"));
        made.extend_from_slice(&sentence[at + 1..=at + owned]);
        made.push(Token::plain("of"));
        made.extend(owner);
        at += owned + 1;
    }
    made
}

/// Most words of who does not.
const MOST_SUBJECT: usize = 4;

/// "why does the test not run" → "why does not the test run", as in "why doesn't the test run".
fn denial_first(mut sentence: Vec<Token>) -> Vec<Token> {
    let asks = usize::from(sentence.first().is_some_and(|first| first.is_in(QUESTION_WORDS)));
    if !sentence.get(asks).is_some_and(|verb| verb.is_in(AUXILIARIES)) {
        return sentence;
    }
    // Who it is that does not: "I", "tests", "the new test", "Visual Studio". Not "all tests": not all do is another thing.
    let subject = &sentence[asks + 1..];
    let until = subject.iter().take(MOST_SUBJECT + 1).position(|token| token.is("not"));
    let Some(length) = until.filter(|length| *length > 0) else { return sentence };
    let inside = subject[1..length].iter().all(|token| !token.is_plain() || !is_little(&token.word));
    let whole = subject[0].is_in(DETERMINERS) || length == 1 || subject[..length].iter().all(|token| !token.is_plain());
    if inside && whole {
        sentence[asks + 1..=asks + 1 + length].rotate_right(1);
    }
    sentence
}

/// "copy it to B from A" → "copy it from A to B".
fn source_first(mut sentence: Vec<Token>) -> Vec<Token> {
    let relates = |at: &usize| sentence[*at].is_in(PREPOSITIONS);
    let all: Vec<usize> = (1..sentence.len()).filter(relates).collect();
    let Some(at) = all.windows(2).position(|pair| sentence[pair[0]].is("to") && sentence[pair[1]].is("from")) else {
        return sentence;
    };
    let end = all.get(at + 2).copied().unwrap_or(sentence.len());
    sentence[all[at]..end].rotate_left(all[at + 1] - all[at]);
    sentence
}

/// "how quickly sort a list" → "how sort a list quickly".
fn manner_last(mut sentence: Vec<Token>) -> Vec<Token> {
    let moves = |token: &Token| token.is_plain() && token.word.len() > 5 && token.word.ends_with("ly");
    let mut all = (1..sentence.len()).filter(|&at| moves(&sentence[at]));
    let (Some(at), None) = (all.next(), all.next()) else { return sentence };
    let free = at == 1 || sentence.get(at + 1).is_some_and(|next| next.is_in(PREPOSITIONS));
    if sentence[0].is("how") && free {
        sentence[at..].rotate_left(1);
    }
    sentence
}

fn with_phrases(sentence: Vec<Token>) -> Vec<Token> {
    let mut made = Vec::with_capacity(sentence.len());
    let mut at = 0;
    while at < sentence.len() {
        let begins = |words: &[&str]| {
            sentence.len() >= at + words.len() && sentence[at..].iter().zip(words).all(|(token, word)| token.is(word))
        };
        match PHRASES.iter().find(|(words, _)| begins(words)) {
            Some((words, word)) => {
                made.extend(word.split_whitespace().map(Token::plain));
                at += words.len();
            }
            None => {
                // "a function which", "a function that".
                let relative = at > 1 && sentence[at].is("which") && !is_little(&sentence[at - 1].word);
                made.push(if relative { Token::plain("that") } else { sentence[at].clone() });
                at += 1;
            }
        }
    }
    made
}
