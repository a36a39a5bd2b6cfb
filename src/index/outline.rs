//! Source text → its functions, methods, classes and types, with the words that describe them.

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use tree_sitter::{Language, Node, ParseOptions, Parser};

/// Longest part of a declaration's source that is embedded, in bytes. Twice as much ranks no better.
const MAX_CODE: usize = 2000;

/// Longest signature and summary that are kept, in bytes.
const MAX_SIGNATURE: usize = 400;
const MAX_SUMMARY: usize = 600;

/// A file whose parse takes longer is made to hurt parsers. A megabyte of ordinary code takes a tenth of this.
const MAX_PARSE: Duration = Duration::from_secs(5);

/// Lines above a declaration in which its comment is looked for.
const MAX_COMMENT_LINES: usize = 60;

/// Where a comment begins to speak of parts.
const SECTIONS: [&str; 9] =
    ["Args", "Arguments", "Parameters", "Returns", "Raises", "Errors", "Panics", "Examples", "Safety"];

/// Declarations of one file that are kept.
const MAX_DECLARATIONS: usize = 20_000;

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
}

impl Kind {
    /// The spelling in results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Method => "method",
            Self::Class => "class",
            Self::Type => "type",
        }
    }
}

/// One declaration of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// What it declares.
    pub kind: Kind,
    /// Its name, after those of the declarations around it: `Stack.push`.
    pub name: String,
    /// Its first and last line, from 1.
    pub lines: Range<usize>,
    /// Its source up to its body, white space folded.
    pub signature: String,
    /// Its documentation comment, white space folded; may be empty.
    pub summary: String,
    /// Its source, cut to [`MAX_CODE`].
    pub code: String,
}

/// Why a file has no outline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// No declaration was found between syntax errors.
    Syntax,
    /// Parsing took too long.
    Slow,
}

/// A language that can be read.
pub struct Grammar {
    extensions: &'static [&'static str],
    language: fn() -> Language,
    /// Node kinds that declare something.
    declares: &'static [(&'static str, Kind)],
    /// Whether a string at the beginning of a body documents it.
    docstrings: bool,
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
        extensions: &["ts", "mts", "cts"],
        language: || tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
        declares: ECMASCRIPT,
        docstrings: false,
    },
    Grammar {
        extensions: &["tsx"],
        language: || tree_sitter_typescript::LANGUAGE_TSX.into(),
        declares: ECMASCRIPT,
        docstrings: false,
    },
    Grammar {
        extensions: &["js", "mjs", "cjs", "jsx"],
        language: || tree_sitter_javascript::LANGUAGE.into(),
        declares: ECMASCRIPT,
        docstrings: false,
    },
    Grammar {
        extensions: &["py", "pyi"],
        language: || tree_sitter_python::LANGUAGE.into(),
        declares: &[("function_definition", Kind::Function), ("class_definition", Kind::Class)],
        docstrings: true,
    },
    Grammar {
        extensions: &["rs"],
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
        ],
        docstrings: false,
    },
    Grammar {
        extensions: &["go"],
        language: || tree_sitter_go::LANGUAGE.into(),
        declares: &[
            ("function_declaration", Kind::Function),
            ("method_declaration", Kind::Method),
            ("type_spec", Kind::Type),
            ("type_alias", Kind::Type),
        ],
        docstrings: false,
    },
    Grammar {
        extensions: &["java"],
        language: || tree_sitter_java::LANGUAGE.into(),
        declares: &[
            ("method_declaration", Kind::Method),
            ("constructor_declaration", Kind::Method),
            ("class_declaration", Kind::Class),
            ("record_declaration", Kind::Class),
            ("interface_declaration", Kind::Type),
            ("annotation_type_declaration", Kind::Type),
            ("enum_declaration", Kind::Type),
        ],
        docstrings: false,
    },
];

/// Nodes whose functions are methods, beside the declarations of classes and types themselves.
const HOLDS_METHODS: [&str; 2] = ["impl_item", "class"];

/// Nodes between a declaration and the comment above it that belong to the declaration.
const WRAPPERS: [&str; 7] = [
    "export_statement",
    "decorated_definition",
    "lexical_declaration",
    "variable_declaration",
    "expression_statement",
    "type_declaration",
    "ambient_declaration",
];

/// The file name extensions that are read.
pub fn extensions() -> impl Iterator<Item = &'static str> {
    GRAMMARS.iter().flat_map(|grammar| grammar.extensions).copied()
}

/// The grammar for a file name extension.
pub fn grammar(extension: &str) -> Option<&'static Grammar> {
    GRAMMARS.iter().find(|grammar| grammar.extensions.contains(&extension))
}

/// The declarations of `source`, in their order; those that can be told apart between syntax errors.
pub fn outline(source: &str, grammar: &Grammar) -> Result<Vec<Declaration>, Unreadable> {
    let mut parser = Parser::new();
    // Fails only for a grammar of another version of the library, which a test rules out.
    if parser.set_language(&(grammar.language)()).is_err() {
        return Err(Unreadable::Syntax);
    }
    let bytes = source.as_bytes();
    let started = Instant::now();
    let mut stop =
        |_: &_| if started.elapsed() > MAX_PARSE { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let options = ParseOptions::new().progress_callback(&mut stop);
    let tree = parser.parse_with_options(&mut |at, _| &bytes[at.min(bytes.len())..], None, Some(options));
    let Some(tree) = tree else { return Err(Unreadable::Slow) };
    let mut declarations = Vec::new();
    collect(tree.root_node(), source, grammar, &mut declarations);
    if declarations.is_empty() && tree.root_node().has_error() {
        return Err(Unreadable::Syntax);
    }
    Ok(declarations)
}

/// A declaration that the walk is inside of.
struct Scope {
    depth: usize,
    name: String,
    /// Whether a function right inside is a method.
    holds_methods: bool,
    /// Whether it is a function.
    function: bool,
}

/// Walks the tree without recursion: sources may be nested as deep as they like.
fn collect(root: Node<'_>, source: &str, grammar: &Grammar, found: &mut Vec<Declaration>) {
    let mut cursor = root.walk();
    let mut scopes: Vec<Scope> = Vec::new();
    // The nodes from the root down to the current one's parent. `Node::parent` would search for it from the root.
    let mut above: Vec<Node<'_>> = Vec::new();
    loop {
        let node = cursor.node();
        let depth = above.len();
        scopes.retain(|scope| scope.depth < depth);
        let scope = enter(node, &above, source, grammar, &scopes, found);
        scopes.extend(scope.map(|scope| Scope { depth, ..scope }));
        if found.len() >= MAX_DECLARATIONS {
            return;
        }
        if node.named_child_count() > 0 && cursor.goto_first_child() {
            above.push(node);
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return;
            }
            above.pop();
        }
    }
}

/// Adds what `node` declares, and tells what its children are inside of.
fn enter(
    node: Node<'_>,
    above: &[Node<'_>],
    source: &str,
    grammar: &Grammar,
    scopes: &[Scope],
    found: &mut Vec<Declaration>,
) -> Option<Scope> {
    let text = |node: Node<'_>| source.get(node.byte_range()).unwrap_or_default();
    let Some(&(_, kind)) = grammar.declares.iter().find(|(name, _)| *name == node.kind()) else {
        return HOLDS_METHODS.contains(&node.kind()).then(|| Scope {
            depth: 0,
            name: node.child_by_field_name("type").map(text).unwrap_or_default().to_owned(),
            holds_methods: true,
            function: false,
        });
    };
    // The node that has the body: the value, where a name is given to a function.
    let named_value = ["value", "right"].iter().find_map(|field| node.child_by_field_name(field));
    let with_body = match node.kind() {
        "variable_declarator" | "assignment_expression" | "pair" | "public_field_definition" | "field_definition" => {
            named_value.filter(|value| {
                matches!(value.kind(), "arrow_function" | "function_expression" | "generator_function" | "class")
            })?
        }
        _ => node,
    };
    let name = ["name", "left", "key", "property"].iter().find_map(|field| node.child_by_field_name(field));
    let name = text(name?);
    let kind = match (kind, scopes.last()) {
        _ if with_body.kind() == "class" => Kind::Class,
        (Kind::Function, Some(scope)) if scope.holds_methods => Kind::Method,
        (kind, _) => kind,
    };
    let is_function = matches!(kind, Kind::Function | Kind::Method);
    let scope = Scope {
        depth: 0,
        name: name.to_owned(),
        // An interface's members are part of it; a trait's and a class's stand alone.
        holds_methods: !is_function,
        function: is_function,
    };

    let outer = outermost(node, above);
    let lines = outer.start_position().row + 1..with_body.end_position().row + 1;
    // Little helpers inside a function are part of it.
    let little = lines.end - lines.start < 2 && scopes.iter().any(|scope| scope.function);
    if little || name.is_empty() || name.len() > MAX_SIGNATURE {
        return Some(scope);
    }
    let body = with_body.child_by_field_name("body").or_else(|| {
        let mut cursor = with_body.walk();
        with_body
            .named_children(&mut cursor)
            .find(|child| matches!(child.kind(), "class_body" | "struct_type" | "interface_type"))
    });
    let end = with_body.end_byte();
    let head_end = body.map_or(end, |body| body.start_byte());
    let slice = |range: Range<usize>| source.get(range).unwrap_or_default();
    let start = outer.start_byte();
    let docstring = if grammar.docstrings { body.and_then(docstring).map(text) } else { None };
    let summary = match docstring {
        Some(text) => plain_comment(text),
        None => comment_above(source, start, grammar.docstrings),
    };
    let path = scopes.iter().map(|scope| scope.name.as_str()).filter(|name| !name.is_empty());
    found.push(Declaration {
        kind,
        name: path.chain([name]).collect::<Vec<_>>().join("."),
        lines,
        signature: folded(head(slice(start..head_end)), MAX_SIGNATURE),
        summary,
        code: cut(slice(start..end), MAX_CODE).to_owned(),
    });
    Some(scope)
}

/// A declaration's source before its body, without what leads into the body.
fn head(source: &str) -> &str {
    let head = source.trim_end();
    ["=>", "{", ":", "="].iter().find_map(|end| head.strip_suffix(end)).unwrap_or(head).trim_end()
}

/// The node that holds the whole statement, with `export`, decorators and the like.
fn outermost<'tree>(node: Node<'tree>, above: &[Node<'tree>]) -> Node<'tree> {
    let declarations = |parent: &Node<'_>| {
        let mut cursor = parent.walk();
        let kinds = ["variable_declarator", "type_spec", "type_alias"];
        parent.named_children(&mut cursor).filter(|child| kinds.contains(&child.kind())).take(2).count()
    };
    // A list of several declarations is the beginning of none of them.
    let wrappers =
        above.iter().rev().take_while(|parent| WRAPPERS.contains(&parent.kind()) && declarations(parent) < 2);
    wrappers.last().copied().unwrap_or(node)
}

/// The string at the beginning of a body.
fn docstring(body: Node<'_>) -> Option<Node<'_>> {
    let first = body.named_child(0)?;
    let string = if first.kind() == "expression_statement" { first.named_child(0)? } else { first };
    (string.kind() == "string").then_some(string)
}

/// The comment on the lines right above `start`, attributes and decorators between them skipped.
fn comment_above(source: &str, start: usize, hash_comments: bool) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let mut block = false;
    let above = &source[..source[..start].rfind('\n').unwrap_or(0)];
    for line in above.rsplit('\n').take(MAX_COMMENT_LINES).map(str::trim) {
        if block || line.ends_with("*/") {
            // A block comment is read up to its beginning, which may be the same line.
            block = !line.contains("/*");
            if !block && !line.starts_with("/*") {
                break;
            }
        } else if line.starts_with("#[") || line.starts_with('@') {
            continue;
        } else if !(line.starts_with("//") || hash_comments && line.starts_with('#')) {
            break;
        }
        lines.push(line);
    }
    lines.reverse();
    if block { String::new() } else { plain_comment(&lines.join("\n")) }
}

/// The words of a comment or docstring, without its markers, up to its first tag.
fn plain_comment(comment: &str) -> String {
    let unquoted = comment.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let comment = if unquoted.starts_with(['"', '\'']) { unquoted.trim_matches(['"', '\'']) } else { comment };
    let mut words = String::new();
    for line in comment.lines() {
        let line = line.trim().trim_start_matches(['/', '*', '!']).trim_end_matches(['/', '*']).trim();
        // Tags and sections describe parts, not the whole.
        let section = line.trim_start_matches(['#', ' ']).trim_end_matches(':');
        if line.starts_with(['@', ':']) || SECTIONS.contains(&section) {
            break;
        }
        words.push_str(line.trim_start_matches(['#', ' ']));
        words.push(' ');
        if words.len() > MAX_SUMMARY {
            break;
        }
    }
    folded(&words, MAX_SUMMARY)
}

/// `text` with runs of white space made one space, cut to `limit` bytes.
fn folded(text: &str, limit: usize) -> String {
    let mut folded = String::with_capacity(text.len().min(limit));
    for word in text.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.push_str(word);
        if folded.len() > limit {
            folded.truncate(folded.floor_char_boundary(limit));
            break;
        }
    }
    folded
}

/// `text` up to `limit` bytes, never inside a character.
fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(extension: &str, source: &str) -> Vec<Declaration> {
        outline(source, grammar(extension).unwrap()).unwrap()
    }

    fn names(extension: &str, source: &str) -> Vec<(Kind, String)> {
        of(extension, source).into_iter().map(|found| (found.kind, found.name)).collect()
    }

    fn is(kind: Kind, name: &str) -> (Kind, String) {
        (kind, name.to_owned())
    }

    #[test]
    fn every_grammar_fits_the_library() {
        for extension in extensions() {
            let mut parser = Parser::new();
            parser.set_language(&(grammar(extension).unwrap().language)()).unwrap();
        }
    }

    #[test]
    fn typescript() {
        let source = r#"
/** Adds two numbers.
 * @param a the first */
export function add(a: number, b: number): number {
  return a + b;
}

// Keeps things.
@injectable()
export abstract class Store<T> extends Base<T> {
  #items = 1;
  /** Puts one in. */
  put(item: T): void { this.items.push(item); }
  abstract take(): T;
  handler = async (event: Event) => { await event; };
}

export interface Shape { area(): number }
type Id = string | number;
enum Color { Red }
export const double = (x: number) => x * 2;
const limit = 3;
module.exports.run = function () { return 1; };
const routes = { home: () => 1, away() { return 2; } };
function outer() {
  const little = () => 1;
  function large() {
    return 1;
  }
}
"#;
        let found = of("ts", source);
        let add = &found[0];
        assert_eq!(add.signature, "export function add(a: number, b: number): number");
        assert_eq!(add.summary, "Adds two numbers.");
        assert_eq!(add.lines, 4..6);
        assert!(add.code.starts_with("export function add") && add.code.ends_with('}'));
        assert_eq!(found[1].summary, "Keeps things.");
        assert!(found[1].signature.ends_with("class Store<T> extends Base<T>"), "{}", found[1].signature);
        let expected = [
            is(Kind::Function, "add"),
            is(Kind::Class, "Store"),
            is(Kind::Method, "Store.put"),
            is(Kind::Method, "Store.take"),
            is(Kind::Method, "Store.handler"),
            is(Kind::Type, "Shape"),
            is(Kind::Type, "Id"),
            is(Kind::Type, "Color"),
            is(Kind::Function, "double"),
            is(Kind::Function, "module.exports.run"),
            is(Kind::Function, "home"),
            is(Kind::Method, "away"),
            is(Kind::Function, "outer"),
            is(Kind::Function, "outer.large"),
        ];
        assert_eq!(names("ts", source), expected);
        assert_eq!(found[8].signature, "export const double = (x: number)");
    }

    #[test]
    fn javascript_and_jsx() {
        let source = "function* walk() { yield 1; }\nconst View = () => <div>{1}</div>;\nclass A { static b() {} }";
        let expected =
            [is(Kind::Function, "walk"), is(Kind::Function, "View"), is(Kind::Class, "A"), is(Kind::Method, "A.b")];
        assert_eq!(names("jsx", source), expected);
        assert_eq!(names("tsx", source), expected);
    }

    #[test]
    fn python() {
        let source = r#"
@cache
def area(width, height):
    """Gives the area.

    Args:
        width: in metres
    """
    return width * height

# A stack of things.
class Stack(list):
    async def push(self, item):
        r'''Puts it on top.'''
        self.append(item)
"#;
        let found = of("py", source);
        let expected = [is(Kind::Function, "area"), is(Kind::Class, "Stack"), is(Kind::Method, "Stack.push")];
        assert_eq!(names("py", source), expected);
        assert_eq!(found[0].signature, "@cache def area(width, height)");
        let summaries: Vec<&str> = found.iter().map(|found| found.summary.as_str()).collect();
        assert_eq!(summaries, ["Gives the area.", "A stack of things.", "Puts it on top."]);
        assert_eq!(found[0].lines, 2..9);
    }

    #[test]
    fn rust() {
        let source = r#"
/// A point in the plane.
///
/// # Errors
/// None.
#[derive(Debug)]
pub struct Point<T> { x: T, y: T }
struct Pair<T>(T, T);
impl<T: Copy> Point<T> {
    /// Its distance from the origin.
    pub fn norm(&self) -> f64 where T: Into<f64> { 0.0 }
}
pub trait Draw { fn draw(&self); }
pub enum Way { In, Out }
type Alias = Vec<u8>;
fn free() {}
"#;
        let found = of("rs", source);
        let expected = [
            is(Kind::Type, "Point"),
            is(Kind::Type, "Pair"),
            is(Kind::Method, "Point<T>.norm"),
            is(Kind::Type, "Draw"),
            is(Kind::Method, "Draw.draw"),
            is(Kind::Type, "Way"),
            is(Kind::Type, "Alias"),
            is(Kind::Function, "free"),
        ];
        assert_eq!(names("rs", source), expected);
        assert_eq!(found[0].summary, "A point in the plane.");
        assert_eq!(found[0].signature, "pub struct Point<T>");
        assert_eq!(found[2].signature, "pub fn norm(&self) -> f64 where T: Into<f64>");
    }

    #[test]
    fn go_and_java() {
        let go = "package a\n\n// Push puts x on top.\nfunc (s *Stack) Push(x int) {}\n// Stack is a stack.\ntype Stack struct{ items []int }\nfunc New() *Stack { return nil }\n";
        let found = of("go", go);
        assert_eq!(names("go", go), [is(Kind::Method, "Push"), is(Kind::Type, "Stack"), is(Kind::Function, "New")]);
        assert_eq!(found[0].summary, "Push puts x on top.");
        assert_eq!(found[1].summary, "Stack is a stack.");
        assert_eq!(found[1].signature, "type Stack");
        let java = "/** A list. */\npublic class A<T> extends B {\n  /** Makes it. */\n  public A() {}\n  @Override\n  public int size() { return 1; }\n  interface C { void d(); }\n}\nrecord P(int x) {}\nenum E { X }";
        let expected = [
            is(Kind::Class, "A"),
            is(Kind::Method, "A.A"),
            is(Kind::Method, "A.size"),
            is(Kind::Type, "A.C"),
            is(Kind::Method, "A.C.d"),
            is(Kind::Class, "P"),
            is(Kind::Type, "E"),
        ];
        assert_eq!(names("java", java), expected);
        assert_eq!(of("java", java)[0].signature, "public class A<T> extends B");
    }

    #[test]
    fn what_is_whole_beside_syntax_errors_is_read() {
        assert_eq!(names("js", "function a() {}\nlet x = = 1;\nfunction b() {}")[0], is(Kind::Function, "a"));
        let noise = "}}}} ((( %%% \u{1F600} ]]]";
        assert_eq!(outline(noise, grammar("ts").unwrap()), Err(Unreadable::Syntax));
        assert_eq!(outline("", grammar("ts").unwrap()), Ok(Vec::new()));
    }

    #[test]
    fn deep_nesting_and_long_lists_end() {
        let deep = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
        drop(outline(&deep, grammar("js").unwrap()));
        let nested = "function a() {".repeat(5_000);
        drop(outline(&nested, grammar("js").unwrap()));
        let long = "// x\nfunction a() {}\n".repeat(MAX_DECLARATIONS + 5);
        assert_eq!(of("js", &long).len(), MAX_DECLARATIONS);
    }

    #[test]
    fn never_cuts_inside_a_character() {
        for extension in ["ts", "py", "rs", "go", "java"] {
            for filler in [399, 400, 401, 1998, 1999, 2000] {
                let source = format!("function a{}(ä) {{ '{}' }}", "ö".repeat(filler), "ü".repeat(3000));
                drop(outline(&source, grammar(extension).unwrap()));
            }
        }
    }
}
