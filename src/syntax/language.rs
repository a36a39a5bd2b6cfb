//! The languages that are read, and what declares something in them.

use tree_sitter::Language;

/// What a declaration declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A function that belongs to no type.
    Function,
    /// A function of a type.
    Method,
    /// A class.
    Class,
    /// Any other type: struct, enum, trait, interface, alias.
    Type,
    /// A value that has a name and a comment.
    Constant,
    /// The file itself.
    File,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Function, Self::Method, Self::Class, Self::Type, Self::Constant, Self::File];

    /// The spelling in results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Method => "method",
            Self::Class => "class",
            Self::Type => "type",
            Self::Constant => "constant",
            Self::File => "file",
        }
    }
}

/// A language that can be read.
pub struct Grammar {
    /// File name extensions, each with the language that is written in such files.
    extensions: &'static [(&'static str, &'static str)],
    /// Its grammar.
    pub language: fn() -> Language,
    /// Node kinds that declare something.
    pub declares: &'static [(&'static str, Kind)],
    /// Whether a string at the beginning of a body documents it.
    pub docstrings: bool,
    /// How comments begin that document, where the language tells them from others.
    pub documents: &'static [&'static str],
}

const ECMASCRIPT: &[(&str, Kind)] = &[
    ("function_declaration", Kind::Function),
    ("generator_function_declaration", Kind::Function),
    ("function_signature", Kind::Function),
    ("method_definition", Kind::Method),
    ("abstract_method_signature", Kind::Method),
    ("class_declaration", Kind::Class),
    ("abstract_class_declaration", Kind::Class),
    ("interface_declaration", Kind::Type),
    ("type_alias_declaration", Kind::Type),
    ("enum_declaration", Kind::Type),
    // These declare a function if their value is one.
    ("variable_declarator", Kind::Function),
    ("assignment_expression", Kind::Function),
    ("pair", Kind::Function),
    ("public_field_definition", Kind::Method),
    ("field_definition", Kind::Method),
];

/// All languages.
static GRAMMARS: &[Grammar] = &[
    Grammar {
        extensions: &[("ts", "typescript"), ("mts", "typescript"), ("cts", "typescript")],
        language: || tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
        declares: ECMASCRIPT,
        docstrings: false,
        documents: &["/**"],
    },
    // JavaScript is nearly part of TypeScript with JSX. Over 2,800 files of packages, 999 of 1,000 declarations come out
    // the same as with a grammar of its own, which would be a third of a megabyte more.
    Grammar {
        extensions: &[
            ("tsx", "typescript"),
            ("js", "javascript"),
            ("mjs", "javascript"),
            ("cjs", "javascript"),
            ("jsx", "javascript"),
        ],
        language: || tree_sitter_typescript::LANGUAGE_TSX.into(),
        declares: ECMASCRIPT,
        docstrings: false,
        documents: &["/**"],
    },
    Grammar {
        extensions: &[("py", "python"), ("pyi", "python")],
        language: || tree_sitter_python::LANGUAGE.into(),
        declares: &[
            ("function_definition", Kind::Function),
            ("class_definition", Kind::Class),
            ("type_alias_statement", Kind::Type),
            // Declares a function, a type or a constant if its value or its name is one.
            ("assignment", Kind::Function),
        ],
        docstrings: true,
        documents: &[],
    },
    Grammar {
        extensions: &[("rs", "rust")],
        language: || tree_sitter_rust::LANGUAGE.into(),
        declares: &[
            ("function_item", Kind::Function),
            ("function_signature_item", Kind::Function),
            ("macro_definition", Kind::Function),
            ("struct_item", Kind::Type),
            ("enum_item", Kind::Type),
            ("union_item", Kind::Type),
            ("trait_item", Kind::Type),
            ("type_item", Kind::Type),
            ("const_item", Kind::Constant),
            ("static_item", Kind::Constant),
        ],
        docstrings: false,
        documents: &["///", "/**"],
    },
    Grammar {
        extensions: &[("go", "go")],
        language: || tree_sitter_go::LANGUAGE.into(),
        declares: &[
            ("function_declaration", Kind::Function),
            ("method_declaration", Kind::Method),
            ("type_spec", Kind::Type),
            ("type_alias", Kind::Type),
            ("const_spec", Kind::Constant),
            ("var_spec", Kind::Constant),
        ],
        docstrings: false,
        documents: &[],
    },
    Grammar {
        extensions: &[("java", "java")],
        language: || tree_sitter_java::LANGUAGE.into(),
        declares: &[
            ("method_declaration", Kind::Method),
            ("constructor_declaration", Kind::Method),
            ("compact_constructor_declaration", Kind::Method),
            ("class_declaration", Kind::Class),
            ("record_declaration", Kind::Class),
            ("interface_declaration", Kind::Type),
            ("annotation_type_declaration", Kind::Type),
            ("enum_declaration", Kind::Type),
            ("field_declaration", Kind::Constant),
            ("constant_declaration", Kind::Constant),
        ],
        docstrings: false,
        documents: &["/**"],
    },
];

/// The file name extensions that are read, each with its language.
pub fn extensions() -> impl Iterator<Item = (&'static str, &'static str)> {
    GRAMMARS.iter().flat_map(|grammar| grammar.extensions).copied()
}

/// The language of files with this extension.
pub fn language(extension: &str) -> Option<&'static str> {
    extensions().find(|(known, _)| known.eq_ignore_ascii_case(extension)).map(|(_, language)| language)
}

/// The grammar for a file name extension.
pub fn grammar(extension: &str) -> Option<&'static Grammar> {
    let is = |(known, _): &(&str, &str)| known.eq_ignore_ascii_case(extension);
    GRAMMARS.iter().find(|grammar| grammar.extensions.iter().any(is))
}

/// The grammar of a language: by its name, or by an extension of its files.
pub fn grammar_of(name: &str) -> Option<&'static Grammar> {
    let is = |(_, known): &(&str, &str)| known.eq_ignore_ascii_case(name);
    grammar(name).or_else(|| GRAMMARS.iter().find(|grammar| grammar.extensions.iter().any(is)))
}
