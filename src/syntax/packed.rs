//! The grammars: compiled with their tables left empty, which `build/grammars.rs` has packed beside them.

// The functions of grammars are C.
#![allow(unsafe_code)]

use std::slice;
use std::sync::OnceLock;

use miniz_oxide::inflate::decompress_to_vec_with_limit;
use tree_sitter::Language;
use tree_sitter_language::LanguageFn;

/// A grammar whose tables are filled in when it is used for the first time.
struct Packed {
    tables: &'static [u8],
    place: unsafe extern "C" fn(*mut usize) -> *mut u16,
    language: unsafe extern "C" fn() -> *const (),
    unpacked: OnceLock<Option<Language>>,
}

impl Packed {
    /// `None` if the tables are not those of the grammar, which a test rules out.
    fn language(&self) -> Option<Language> {
        let unpack = || {
            let mut length = 0;
            // SAFETY: the function tells where the tables lie and how many values they have, zeros so far. They are static,
            // and nobody else writes to them: this runs once. Nobody reads them either, because the only way to them is the
            // language, which is given after.
            unsafe {
                let place = (self.place)(&mut length);
                let bytes = decompress_to_vec_with_limit(self.tables, length * 2).ok()?;
                let (values, []) = bytes.as_chunks::<2>() else { return None };
                if values.len() != length {
                    return None;
                }
                let place = slice::from_raw_parts_mut(place, length);
                place.iter_mut().zip(values).for_each(|(place, value)| *place = u16::from_le_bytes(*value));
                Some(Language::new(LanguageFn::from_raw(self.language)))
            }
        };
        self.unpacked.get_or_init(unpack).clone()
    }
}

macro_rules! grammars {
    ($($name:ident $function:ident $tables:ident $file:literal;)*) => {
        unsafe extern "C" {
            $(fn $function() -> *const (); fn $tables(length: *mut usize) -> *mut u16;)*
        }
        $(
            /// The grammar of this language.
            pub fn $name() -> Option<Language> {
                static PACKED: Packed = Packed {
                    tables: include_bytes!(concat!(env!("OUT_DIR"), "/", $file, ".tables")),
                    place: $tables,
                    language: $function,
                    unpacked: OnceLock::new(),
                };
                PACKED.language()
            }
        )*
    };
}

grammars! {
    bash tree_sitter_bash embedcore_tables_of_bash "bash";
    c tree_sitter_c embedcore_tables_of_c "c";
    c_sharp tree_sitter_c_sharp embedcore_tables_of_c_sharp "c_sharp";
    cpp tree_sitter_cpp embedcore_tables_of_cpp "cpp";
    go tree_sitter_go embedcore_tables_of_go "go";
    java tree_sitter_java embedcore_tables_of_java "java";
    kotlin tree_sitter_kotlin embedcore_tables_of_kotlin "kotlin";
    php tree_sitter_php embedcore_tables_of_php "php";
    python tree_sitter_python embedcore_tables_of_python "python";
    ruby tree_sitter_ruby embedcore_tables_of_ruby "ruby";
    rust tree_sitter_rust embedcore_tables_of_rust "rust";
    scala tree_sitter_scala embedcore_tables_of_scala "scala";
    swift tree_sitter_swift embedcore_tables_of_swift "swift";
    tsx tree_sitter_tsx embedcore_tables_of_tsx "tsx";
    typescript tree_sitter_typescript embedcore_tables_of_typescript "typescript";
}
