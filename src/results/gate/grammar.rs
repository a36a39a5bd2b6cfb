//! The little words of English, and how its words are inflected.
//!
//! A word that stands in no list here is compared as it is: a list only ever lets more prompts pass.

/// What asks.
pub const QUESTION_WORDS: &[&str] = &["what", "which", "who", "whom", "whose", "when", "where", "why", "how"];

pub const AUXILIARIES: &[&str] = &[
    "is", "are", "am", "was", "were", "be", "do", "does", "did", "has", "have", "had", "can", "could", "should",
    "would", "will", "shall", "may", "might", "must", "need",
];

pub const PREPOSITIONS: &[&str] = &[
    "in",
    "on",
    "at",
    "of",
    "for",
    "with",
    "without",
    "to",
    "into",
    "from",
    "by",
    "about",
    "using",
    "between",
    "during",
    "before",
    "after",
    "under",
    "over",
    "through",
    "within",
    "against",
    "via",
    "as",
    "than",
    "per",
    "since",
    "until",
    "inside",
    "outside",
    "across",
    "along",
    "among",
    "around",
    "above",
    "below",
    "behind",
    "beneath",
    "beside",
    "beyond",
    "despite",
    "except",
    "near",
    "onto",
    "throughout",
    "toward",
    "towards",
    "upon",
];

/// What begins a clause that says when, or under which condition.
pub const CONJUNCTIONS: &[&str] = &["if", "when", "while", "because", "unless", "although", "once", "whenever"];

/// What a noun may stand behind.
pub const DETERMINERS: &[&str] = &["the", "a", "an", "my", "your", "his", "her", "its", "our", "their", "this", "that"];

pub const PRONOUNS: &[&str] = &["i", "you", "we", "he", "she", "it", "they", "me", "us", "him", "them", "there"];

/// Whether it holds a sentence together rather than say what it is about.
pub fn is_little(word: &str) -> bool {
    [QUESTION_WORDS, AUXILIARIES, PREPOSITIONS, CONJUNCTIONS, DETERMINERS, PRONOUNS]
        .iter()
        .any(|list| list.contains(&word))
        || matches!(word, "and" | "or" | "not" | "no" | "but" | "'s")
}

/// Forms of one verb of which the first goes with one, the second with several.
pub const AGREEING: &[(&str, &str)] = &[("is", "are"), ("does", "do"), ("has", "have")];

/// How a word is inflected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// "files", "closes".
    S,
    Ing,
    Past,
    /// "largest".
    Most,
}

/// Which form of a word another one is: not by what is cut off, but by what the word would become, so that "hoping" is no
/// form of "hop".
pub fn form(base: &str, word: &str) -> Option<Form> {
    if base.as_bytes().first() != word.as_bytes().first() {
        return None;
    }
    if let Some((_, of)) = IRREGULAR.iter().find(|(form, _)| *form == word) {
        return (*of == base).then_some(Form::Past);
    }
    if let Some((_, of)) = PLURALS.iter().find(|(form, _)| *form == word) {
        return (*of == base).then_some(Form::S);
    }
    let letters = base.as_bytes();
    if letters.len() < 2 || word.len() <= base.len().saturating_sub(1) || !base.bytes().all(|b| b.is_ascii_lowercase())
    {
        return None;
    }
    let (last, before) = (letters[letters.len() - 1], letters[letters.len() - 2]);
    let without_last = &base[..base.len() - 1];
    let is_vowel = |letter: u8| b"aeiou".contains(&letter);
    let consonant_y = last == b'y' && !is_vowel(before);
    // What stands before an ending that begins with a vowel, and the ending.
    let is = |stem: &str, ending: &str| word.strip_prefix(stem) == Some(ending);
    let doubled =
        |ending: &str| word.strip_prefix(base).and_then(|rest| rest.strip_prefix(last as char)) == Some(ending);
    let vowels = letters.iter().zip(&letters[1..]).filter(|(a, b)| is_vowel(**a) && !is_vowel(**b)).count();
    let closed = !is_vowel(last)
        && is_vowel(before)
        && !b"wxy".contains(&last)
        && (letters.len() < 3 || !is_vowel(letters[letters.len() - 3]));
    // "hop" doubles its last letter; "open" does not, "begin" does, and who knows why.
    let (may_double, may_not) = (closed, !closed || vowels > 1);
    let hisses = matches!(last, b's' | b'x' | b'z') || base.ends_with("ch") || base.ends_with("sh");
    let s = if consonant_y {
        is(without_last, "ies")
    } else if hisses {
        is(base, "es") || last == b'z' && doubled("es")
    } else {
        is(base, "s") || last == b'o' && is(base, "es")
    };
    let ing = match last {
        b'e' if before == b'i' => is(&base[..base.len() - 2], "ying"),
        b'e' if !matches!(before, b'e' | b'o' | b'y') => is(without_last, "ing"),
        _ => may_not && is(base, "ing") || may_double && doubled("ing"),
    };
    let past = match last {
        b'e' => is(base, "d"),
        _ if consonant_y => is(without_last, "ied"),
        _ => may_not && is(base, "ed") || may_double && doubled("ed"),
    };
    let most = match last {
        b'e' => is(base, "st"),
        _ if consonant_y => is(without_last, "iest"),
        _ => may_not && is(base, "est") || may_double && doubled("est"),
    };
    s.then_some(Form::S).or(ing.then_some(Form::Ing)).or(past.then_some(Form::Past)).or(most.then_some(Form::Most))
}

/// Whether it may be a participle.
pub fn is_participle(word: &str) -> bool {
    word.len() > 3 && word.ends_with("ed") && !word.ends_with("eed") || IRREGULAR.iter().any(|(form, _)| *form == word)
}

/// Plurals that no ending tells.
const PLURALS: &[(&str, &str)] = &[
    ("children", "child"),
    ("men", "man"),
    ("women", "woman"),
    ("mice", "mouse"),
    ("feet", "foot"),
    ("teeth", "tooth"),
    ("indices", "index"),
    ("vertices", "vertex"),
    ("matrices", "matrix"),
    ("leaves", "leaf"),
    ("lives", "life"),
    ("knives", "knife"),
    ("wives", "wife"),
    ("analyses", "analysis"),
    ("hypotheses", "hypothesis"),
    ("criteria", "criterion"),
    ("has", "have"),
    ("phenomena", "phenomenon"),
    ("bacteria", "bacterium"),
];

/// Past forms and participles that no ending tells, and that are no other words.
const IRREGULAR: &[(&str, &str)] = &[
    ("made", "make"),
    ("spoken", "speak"),
    ("spoke", "speak"),
    ("written", "write"),
    ("wrote", "write"),
    ("built", "build"),
    ("sent", "send"),
    ("ran", "run"),
    ("given", "give"),
    ("gave", "give"),
    ("taken", "take"),
    ("took", "take"),
    ("known", "know"),
    ("knew", "know"),
    ("seen", "see"),
    ("gone", "go"),
    ("gotten", "get"),
    ("got", "get"),
    ("kept", "keep"),
    ("held", "hold"),
    ("lost", "lose"),
    ("paid", "pay"),
    ("said", "say"),
    ("sold", "sell"),
    ("told", "tell"),
    ("thought", "think"),
    ("bought", "buy"),
    ("brought", "bring"),
    ("caught", "catch"),
    ("taught", "teach"),
    ("fed", "feed"),
    ("fallen", "fall"),
    ("grown", "grow"),
    ("grew", "grow"),
    ("drawn", "draw"),
    ("drew", "draw"),
    ("driven", "drive"),
    ("drove", "drive"),
    ("eaten", "eat"),
    ("ate", "eat"),
    ("forgotten", "forget"),
    ("frozen", "freeze"),
    ("froze", "freeze"),
    ("hidden", "hide"),
    ("chosen", "choose"),
    ("chose", "choose"),
    ("broken", "break"),
    ("broke", "break"),
    ("begun", "begin"),
    ("began", "begin"),
    ("became", "become"),
    ("won", "win"),
    ("thrown", "throw"),
    ("threw", "throw"),
    ("stolen", "steal"),
    ("woken", "wake"),
    ("worn", "wear"),
    ("torn", "tear"),
    ("slept", "sleep"),
    ("spent", "spend"),
    ("set", "set"),
    ("reset", "reset"),
    ("put", "put"),
    ("cut", "cut"),
    ("run", "run"),
    ("read", "read"),
    ("shut", "shut"),
    ("split", "split"),
    ("left", "leave"),
    ("done", "do"),
    ("shown", "show"),
    ("found", "find"),
    ("overridden", "override"),
    ("overwritten", "overwrite"),
    ("rewritten", "rewrite"),
    ("rebuilt", "rebuild"),
    ("undone", "undo"),
    ("met", "meet"),
    ("led", "lead"),
    ("bound", "bind"),
    ("hit", "hit"),
    ("dealt", "deal"),
    ("meant", "mean"),
    ("stuck", "stick"),
    ("swapped", "swap"),
];

/// Words for small numbers, and for what they are counted in.
pub const NUMBERS: &[(&str, &str)] = &[
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
    ("eleven", "11"),
    ("twelve", "12"),
    ("thirteen", "13"),
    ("fourteen", "14"),
    ("fifteen", "15"),
    ("sixteen", "16"),
    ("seventeen", "17"),
    ("eighteen", "18"),
    ("nineteen", "19"),
    ("twenty", "20"),
    ("thirty", "30"),
    ("forty", "40"),
    ("fifty", "50"),
    ("sixty", "60"),
    ("seventy", "70"),
    ("eighty", "80"),
    ("ninety", "90"),
    ("percent", "%"),
    ("first", "1st"),
    ("second", "2nd"),
    ("third", "3rd"),
    ("fourth", "4th"),
    ("fifth", "5th"),
    ("sixth", "6th"),
    ("seventh", "7th"),
    ("eighth", "8th"),
    ("ninth", "9th"),
    ("tenth", "10th"),
    ("kilometers", "km"),
    ("kilometer", "km"),
    ("kilograms", "kg"),
    ("kilogram", "kg"),
    ("euros", "euro"),
    ("€", "euro"),
    ("$", "dollar"),
];

/// Words of which each stands for all of its group, in the same form, whatever else the prompt says.
pub const SAME: &[&[&str]] = &[
    &["create", "make"],
    &["enable", "activate"],
    &["disable", "deactivate"],
    &["price", "cost"],
    &["each", "per"],
    &["remove", "delete"],
    &["get", "obtain"],
    &["purchase", "buy"],
    &["begin", "start"],
    &["big", "large"],
    &["fast", "quick", "quickly"],
    &["advantage", "benefit"],
    &["movie", "film"],
    &["photo", "picture"],
    &["execute", "run"],
    &["happen", "occur"],
    &["gift", "present"],
    &["regex", "regexp"],
    &["integer", "int"],
    &["utilize", "use"],
    &["function", "func"],
    &["javascript", "js"],
    &["typescript", "ts"],
    &["database", "db"],
    &["application", "app"],
    &["repository", "repo"],
    &["documentation", "docs"],
    &["directory", "folder"],
    &["whether", "if"],
    &["job", "position"],
    &["choose", "select"],
    &["show", "display"],
    &["modify", "change"],
    &["permit", "allow"],
    &["repair", "fix"],
    &["car", "automobile"],
    &["doctor", "physician"],
    &["lawyer", "attorney"],
    &["bike", "bicycle"],
    &["fridge", "refrigerator"],
    &["tv", "television"],
    &["exam", "examination"],
    &["kid", "child"],
    &["sofa", "couch"],
    &["forbid", "prohibit"],
    &["frequently", "often"],
    &["usually", "normally"],
    &["approximately", "roughly"],
    &["config", "configuration"],
    &["parameter", "param"],
    &["argument", "arg"],
    &["information", "info"],
    &["advertisement", "ad"],
    &["laboratory", "lab"],
    &["versus", "vs"],
    &["postgres", "postgresql"],
    &["evaluate", "assess"],
    &["reliable", "dependable"],
    &["analyze", "analyse"],
    &["color", "colour"],
    &["organize", "organise"],
    &["optimize", "optimise"],
    &["center", "centre"],
    &["favorite", "favourite"],
    &["behavior", "behaviour"],
    &["license", "licence"],
    &["catalog", "catalogue"],
    &["gray", "grey"],
    &["halt", "stop"],
    &["abort", "cancel"],
    &["launch", "start"],
    &["verify", "check"],
    &["confirm", "verify"],
    &["easy", "simple"],
    &["hard", "difficult"],
    &["clever", "smart"],
    &["strange", "weird"],
    &["expand", "enlarge"],
    &["reduce", "decrease"],
    &["increase", "raise"],
    &["choose", "pick"],
    &["select", "pick"],
    &["terminate", "kill"],
    &["definition", "meaning"],
    &["purpose", "aim"],
    &["purpose", "goal"],
    &["image", "picture"],
    &["image", "photo"],
    &["merge", "combine"],
    &["retrieve", "get"],
    &["retrieve", "fetch"],
    &["acquire", "obtain"],
    &["insert", "add"],
    &["alter", "change"],
    &["erase", "delete"],
    &["wipe", "erase"],
    &["construct", "build"],
    &["restart", "reboot"],
    &["refresh", "reload"],
    &["locate", "find"],
    &["correct", "fix"],
    &["replace", "substitute"],
    &["demonstrate", "show"],
    &["answer", "reply"],
    &["assist", "help"],
    &["rapid", "fast"],
    &["tiny", "small"],
    &["bug", "defect"],
    &["error", "mistake"],
    &["finish", "complete"],
    &["shop", "store"],
    &["asynchronous", "async"],
    &["kubernetes", "k8s"],
];

/// The same of names.
pub const NAMES: &[&[&str]] =
    &[&["javascript", "js"], &["typescript", "ts"], &["postgresql", "postgres"], &["kubernetes", "k8s"]];

/// Plurals that are other things than several of what they look like.
pub const OTHER_PLURALS: &[&str] = &[
    "accounts",
    "acoustics",
    "airs",
    "analytics",
    "arms",
    "basics",
    "bowels",
    "brains",
    "chips",
    "colors",
    "colours",
    "contents",
    "credits",
    "customs",
    "damages",
    "dynamics",
    "economics",
    "electronics",
    "ethics",
    "forces",
    "funds",
    "futures",
    "genetics",
    "genes",
    "glasses",
    "goods",
    "graphics",
    "greens",
    "grounds",
    "guts",
    "headquarters",
    "jeans",
    "letters",
    "logistics",
    "looks",
    "manners",
    "mathematics",
    "means",
    "mechanics",
    "minutes",
    "news",
    "pains",
    "pants",
    "papers",
    "physics",
    "politics",
    "premises",
    "quarters",
    "regards",
    "remains",
    "robotics",
    "savings",
    "scales",
    "securities",
    "shorts",
    "spectacles",
    "spirits",
    "statistics",
    "stocks",
    "tights",
    "trunks",
    "waters",
    "woods",
    "works",
];
