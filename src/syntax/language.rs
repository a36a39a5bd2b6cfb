//! The languages that are read, and what declares something in them.

use tree_sitter::Language;

use super::packed;

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
    /// What stands under a heading.
    Section,
    /// A part of a text in no language that is known.
    Chunk,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Function, Self::Method, Self::Class, Self::Type, Self::Constant, Self::File, Self::Section, Self::Chunk];

    /// The spelling in results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Method => "method",
            Self::Class => "class",
            Self::Type => "type",
            Self::Constant => "constant",
            Self::File => "file",
            Self::Section => "section",
            Self::Chunk => "chunk",
        }
    }
}

/// A language that can be read.
pub struct Grammar {
    /// File name extensions, each with the language that is written in such files.
    extensions: &'static [(&'static str, &'static str)],
    /// Its grammar.
    pub language: fn() -> Option<Language>,
    /// Node kinds that declare something.
    pub declares: &'static [(&'static str, Kind)],
    /// Whether a string at the beginning of a body documents it.
    pub docstrings: bool,
    /// How comments begin that document, where the language tells them from others.
    pub documents: &'static [&'static str],
    /// How comments begin, where a long run of them takes its grammar longer than in proportion.
    pub long_comments: Option<&'static str>,
    /// Whether names stand inside declarators, which tell what is declared: `int *(*f)(int)`.
    pub declarators: bool,
}

/// What most grammars are.
const GRAMMAR: Grammar = Grammar {
    extensions: &[],
    language: || None,
    declares: &[],
    docstrings: false,
    documents: &[],
    long_comments: None,
    declarators: false,
};

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

const C: &[(&str, Kind)] = &[
    ("function_definition", Kind::Function),
    ("struct_specifier", Kind::Type),
    ("union_specifier", Kind::Type),
    ("enum_specifier", Kind::Type),
    ("type_definition", Kind::Type),
    ("preproc_function_def", Kind::Function),
    ("preproc_def", Kind::Constant),
    // Declares a function or a constant, by its declarator.
    ("declaration", Kind::Constant),
];

/// All languages.
static GRAMMARS: &[Grammar] = &[
    Grammar {
        extensions: &[("ts", "typescript"), ("mts", "typescript"), ("cts", "typescript")],
        language: packed::typescript,
        declares: ECMASCRIPT,
        documents: &["/**"],
        ..GRAMMAR
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
        language: packed::tsx,
        declares: ECMASCRIPT,
        documents: &["/**"],
        ..GRAMMAR
    },
    Grammar {
        extensions: &[("py", "python"), ("pyi", "python")],
        language: packed::python,
        declares: &[
            ("function_definition", Kind::Function),
            ("class_definition", Kind::Class),
            ("type_alias_statement", Kind::Type),
            // Declares a function, a type or a constant if its value or its name is one.
            ("assignment", Kind::Function),
        ],
        docstrings: true,
        long_comments: Some("#"),
        ..GRAMMAR
    },
    Grammar {
        extensions: &[("rs", "rust")],
        language: packed::rust,
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
        documents: &["///", "/**"],
        ..GRAMMAR
    },
    Grammar {
        extensions: &[("go", "go")],
        language: packed::go,
        declares: &[
            ("function_declaration", Kind::Function),
            ("method_declaration", Kind::Method),
            ("type_spec", Kind::Type),
            ("type_alias", Kind::Type),
            ("const_spec", Kind::Constant),
            ("var_spec", Kind::Constant),
        ],
        ..GRAMMAR
    },
    Grammar {
        extensions: &[("java", "java")],
        language: packed::java,
        declares: &[
            ("method_declaration", Kind::Method),
            ("constructor_declaration", Kind::Method),
            ("compact_constructor_declaration", Kind::Method),
            ("class_declaration", Kind::Class),
            ("record_declaration", Kind::Class),
            ("interface_declaration", Kind::Type),
            ("annotation_type_declaration", Kind::Type),
            ("annotation_type_element_declaration", Kind::Method),
            ("enum_declaration", Kind::Type),
            ("field_declaration", Kind::Constant),
            ("constant_declaration", Kind::Constant),
        ],
        documents: &["/**"],
        ..GRAMMAR
    },
    Grammar { extensions: &[("c", "c")], language: packed::c, declares: C, declarators: true, ..GRAMMAR },
    Grammar {
        extensions: &[
            // Headers of both: nearly all of C is C++.
            ("h", "c"),
            ("cpp", "cpp"),
            ("cc", "cpp"),
            ("cxx", "cpp"),
            ("c++", "cpp"),
            ("hpp", "cpp"),
            ("hh", "cpp"),
            ("hxx", "cpp"),
            ("h++", "cpp"),
            ("ipp", "cpp"),
            ("inl", "cpp"),
            ("tpp", "cpp"),
            ("cu", "cpp"),
            ("cuh", "cpp"),
        ],
        language: packed::cpp,
        declares: &[
            ("function_definition", Kind::Function),
            ("class_specifier", Kind::Class),
            ("struct_specifier", Kind::Type),
            ("union_specifier", Kind::Type),
            ("enum_specifier", Kind::Type),
            ("type_definition", Kind::Type),
            ("alias_declaration", Kind::Type),
            ("concept_definition", Kind::Type),
            ("preproc_function_def", Kind::Function),
            ("preproc_def", Kind::Constant),
            ("declaration", Kind::Constant),
            ("field_declaration", Kind::Constant),
        ],
        declarators: true,
        ..GRAMMAR
    },
    Grammar {
        extensions: &[("cs", "csharp"), ("csx", "csharp")],
        language: packed::c_sharp,
        declares: &[
            ("class_declaration", Kind::Class),
            ("record_declaration", Kind::Class),
            ("struct_declaration", Kind::Type),
            ("interface_declaration", Kind::Type),
            ("enum_declaration", Kind::Type),
            ("delegate_declaration", Kind::Type),
            ("method_declaration", Kind::Method),
            ("local_function_statement", Kind::Function),
            ("constructor_declaration", Kind::Method),
            ("destructor_declaration", Kind::Method),
            ("operator_declaration", Kind::Method),
            ("conversion_operator_declaration", Kind::Method),
            ("indexer_declaration", Kind::Method),
            // A method, if it computes something.
            ("property_declaration", Kind::Constant),
            ("field_declaration", Kind::Constant),
            ("event_field_declaration", Kind::Constant),
        ],
        documents: &["///", "/**"],
        ..GRAMMAR
    },
    Grammar {
        extensions: &[("php", "php"), ("phtml", "php")],
        language: packed::php,
        declares: &[
            ("function_definition", Kind::Function),
            ("method_declaration", Kind::Method),
            ("class_declaration", Kind::Class),
            ("interface_declaration", Kind::Type),
            ("trait_declaration", Kind::Type),
            ("enum_declaration", Kind::Type),
            ("const_declaration", Kind::Constant),
            ("assignment_expression", Kind::Function),
        ],
        documents: &["/**"],
        ..GRAMMAR
    },
    Grammar {
        extensions: &[("rb", "ruby"), ("rake", "ruby"), ("gemspec", "ruby"), ("ru", "ruby")],
        language: packed::ruby,
        declares: &[
            ("method", Kind::Function),
            ("singleton_method", Kind::Function),
            ("class", Kind::Class),
            ("module", Kind::Type),
            // Declares a method if it calls `define_method`.
            ("call", Kind::Function),
            ("assignment", Kind::Function),
        ],
        ..GRAMMAR
    },
    Grammar {
        extensions: &[("sh", "bash"), ("bash", "bash")],
        language: packed::bash,
        declares: &[
            ("function_definition", Kind::Function),
            ("declaration_command", Kind::Constant),
            ("variable_assignment", Kind::Constant),
        ],
        ..GRAMMAR
    },
    Grammar {
        extensions: &[("kt", "kotlin"), ("kts", "kotlin")],
        language: packed::kotlin,
        declares: &[
            ("function_declaration", Kind::Function),
            ("secondary_constructor", Kind::Method),
            ("class_declaration", Kind::Class),
            ("object_declaration", Kind::Class),
            ("type_alias", Kind::Type),
            // A function, if its value is one, or if it computes something.
            ("property_declaration", Kind::Constant),
        ],
        documents: &["/**"],
        ..GRAMMAR
    },
    Grammar {
        extensions: &[("swift", "swift")],
        language: packed::swift,
        declares: &[
            ("function_declaration", Kind::Function),
            ("protocol_function_declaration", Kind::Method),
            ("init_declaration", Kind::Method),
            ("deinit_declaration", Kind::Method),
            ("subscript_declaration", Kind::Method),
            ("macro_declaration", Kind::Function),
            // Of classes, actors, structs, enums and extensions.
            ("class_declaration", Kind::Class),
            ("protocol_declaration", Kind::Type),
            ("typealias_declaration", Kind::Type),
            ("associatedtype_declaration", Kind::Type),
            ("property_declaration", Kind::Constant),
            ("protocol_property_declaration", Kind::Constant),
        ],
        documents: &["///", "/**"],
        ..GRAMMAR
    },
    Grammar {
        extensions: &[("scala", "scala"), ("sc", "scala"), ("sbt", "scala")],
        language: packed::scala,
        declares: &[
            ("function_definition", Kind::Function),
            ("function_declaration", Kind::Function),
            ("class_definition", Kind::Class),
            ("object_definition", Kind::Class),
            ("given_definition", Kind::Class),
            ("trait_definition", Kind::Type),
            ("enum_definition", Kind::Type),
            ("type_definition", Kind::Type),
            ("val_definition", Kind::Constant),
        ],
        documents: &["/**"],
        ..GRAMMAR
    },
];

/// The file name extensions that grammars read, each with its language.
pub fn extensions() -> impl Iterator<Item = (&'static str, &'static str)> {
    GRAMMARS.iter().flat_map(|grammar| grammar.extensions).copied()
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
