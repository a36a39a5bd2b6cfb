//! A word, a sign or a quotation of a prompt, and what its letters say.

/// A piece of the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// In lower case, unless it is exact.
    pub word: String,
    pub kind: Kind,
    pub case: Case,
    /// Whether its sentence begins with it, so that its first letter is a capital one whatever it means.
    pub initial: bool,
    /// Whether a comma follows.
    pub comma: bool,
    /// Whether it is the last of its sentence.
    pub ends: bool,
    /// Where it stands for its verb, the form that it has: "done" of "can be done", for "do".
    pub stands_for_base: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Word,
    /// Numbers, units and signs: nothing but themselves.
    Sign,
    /// Code, or in quotes: letter by letter.
    Exact,
}

/// Where a word has capital letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    Lower,
    /// The first only.
    Title,
    /// All.
    Upper,
    /// Each part's first: "JavaScript".
    Compound,
    /// Others: "LaTeX".
    Mixed,
}

/// Fewest letters of a part of a compound, and of an abbreviation that spells no word.
pub(super) const PART: usize = 3;

impl Token {
    pub fn new(word: impl Into<String>, kind: Kind, case: Case) -> Self {
        Self { word: word.into(), kind, case, initial: false, comma: false, ends: false, stands_for_base: false }
    }

    /// A word that is put in.
    pub fn plain(word: &str) -> Self {
        Self::new(word, Kind::Word, Case::Lower)
    }

    /// Whether it is a word of the language, and no name: these begin with a capital letter, as sentences do.
    pub fn is_plain(&self) -> bool {
        self.kind == Kind::Word && (self.case == Case::Lower || self.initial && self.case == Case::Title)
    }

    /// Whether its capital letters tell it from no word that is spelled alike: "PDF" cannot be pronounced, and nobody writes
    /// "javascript" for anything else; but "PATH" and "path", "Polish" and "polish" are two things.
    pub fn spells_no_other_word(&self) -> bool {
        match self.case {
            Case::Compound => true,
            Case::Upper => self.word.len() >= PART && !self.word.contains(['a', 'e', 'i', 'o', 'u', 'y']),
            _ => false,
        }
    }

    /// Whether it is this word.
    pub fn is(&self, word: &str) -> bool {
        self.word == word && self.is_plain()
    }

    pub fn is_in(&self, words: &[&str]) -> bool {
        self.is_plain() && words.contains(&self.word.as_str())
    }
}
