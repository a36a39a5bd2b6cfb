//! Source text → its functions, methods, classes and types, with the words that describe them.

mod language;
mod prose;

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use tree_sitter::{Node, ParseOptions, Parser};

use prose::{cut, folded, plain_comment};

pub use language::{Grammar, Kind, extensions, grammar};

/// Longest part of a declaration's source that is embedded, in bytes. Twice as much ranks no better.
const MAX_CODE: usize = 2000;

/// Longest signature and summary that are kept, in bytes.
const MAX_SIGNATURE: usize = 400;
const MAX_SUMMARY: usize = 600;

/// A file whose parse takes longer is made to hurt parsers: a megabyte of ordinary code takes half a second, the worst
/// that is known takes two. Long enough that a busy machine leaves out nothing that an idle one takes.
const MAX_PARSE: Duration = Duration::from_secs(20);

/// Longest comment that is looked at, in bytes.
const MAX_COMMENT: usize = 4096;

/// Calls, casts and parentheses around a function that are looked through.
const MAX_WRAPS: usize = 5;

/// Functions that give back the function they are given, in other words.
const WRAPS_FUNCTIONS: [&str; 9] =
    ["memo", "forwardRef", "useCallback", "observer", "debounce", "throttle", "memoize", "once", "defineComponent"];

/// Values that are functions or classes.
const FUNCTIONS: [&str; 4] = ["arrow_function", "function_expression", "generator_function", "class"];

/// Nodes that give a name to a value, and declare something only if that is a function or a class.
const NAMES_VALUES: [&str; 5] =
    ["variable_declarator", "assignment_expression", "pair", "public_field_definition", "field_definition"];

/// Nodes that may stand between a declaration and its comment.
const ATTRIBUTES: [&str; 2] = ["attribute_item", "decorator"];

/// Declarations of one file that are kept.
const MAX_DECLARATIONS: usize = 20_000;

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

/// The comment right before a node, as the walk has seen it.
#[derive(Clone)]
struct Leading {
    bytes: Range<usize>,
    /// The last line of it, or of the attributes that follow it.
    last_row: usize,
}

impl Leading {
    /// What is before the next sibling of `node`, if that was the case before `node`.
    fn extended(before: Option<Self>, node: Node<'_>, source: &str) -> Option<Self> {
        let adjacent = before.filter(|before| node.start_position().row <= before.last_row + 1);
        // Some grammars count the line break.
        let end = node.end_position();
        let last_row = if end.column == 0 { end.row.saturating_sub(1) } else { end.row };
        if ATTRIBUTES.contains(&node.kind()) {
            return adjacent.map(|before| Self { last_row, ..before });
        }
        let line_start = source[..node.start_byte()].rfind('\n').map_or(0, |at| at + 1);
        // A comment behind other code belongs to that; one of a whole file belongs to nobody in it.
        let inner = source[node.start_byte()..].starts_with("//!");
        if inner || !source[line_start..node.start_byte()].trim().is_empty() {
            return None;
        }
        let start = adjacent.map_or(node.start_byte(), |before| before.bytes.start);
        Some(Self { bytes: start..node.end_byte(), last_row })
    }
}

/// Where the walk is: a node, and the comment before it.
struct Step<'tree> {
    node: Node<'tree>,
    leading: Option<Leading>,
}

/// Walks the tree without recursion: sources may be nested as deep as they like.
fn collect(root: Node<'_>, source: &str, grammar: &Grammar, found: &mut Vec<Declaration>) {
    let mut cursor = root.walk();
    let mut scopes: Vec<Scope> = Vec::new();
    // The steps from the root down to the current node's parent. `Node::parent` would search for it from the root.
    let mut above: Vec<Step<'_>> = Vec::new();
    // What the siblings so far leave for the next one.
    let mut leading: Option<Leading> = None;
    loop {
        let node = cursor.node();
        let depth = above.len();
        scopes.retain(|scope| scope.depth < depth);
        let aside = node.kind().contains("comment") || ATTRIBUTES.contains(&node.kind());
        let before = leading.take();
        if aside {
            leading = Leading::extended(before.clone(), node, source);
        }
        above.push(Step { node, leading: before });
        let scope = enter(&above, source, grammar, &scopes, found);
        scopes.extend(scope.map(|scope| Scope { depth, ..scope }));
        if found.len() >= MAX_DECLARATIONS {
            return;
        }
        // What is inside comments and attributes declares nothing.
        if !aside && node.named_child_count() > 0 && cursor.goto_first_child() {
            continue;
        }
        above.pop();
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return;
            }
            // A parent is no comment: nothing is left for what follows it.
            leading = None;
            above.pop();
        }
    }
}

/// Adds what the last node of `steps` declares, and tells what its children are inside of.
fn enter(
    steps: &[Step<'_>],
    source: &str,
    grammar: &Grammar,
    scopes: &[Scope],
    found: &mut Vec<Declaration>,
) -> Option<Scope> {
    let (Step { node, .. }, above) = steps.split_last()?;
    let node = *node;
    let text = |node: Node<'_>| source.get(node.byte_range()).unwrap_or_default();
    let (kind, name, with_body) = match declared(node, above.last().map(|step| step.node), source, grammar) {
        Declared::Nothing => return None,
        Declared::Scope { name, holds_methods } => {
            return Some(Scope { depth: 0, name: name.to_owned(), holds_methods, function: false });
        }
        Declared::Something { kind, name, with_body } => (kind, name, with_body),
    };
    let kind = match scopes.last() {
        Some(scope) if kind == Kind::Function && scope.holds_methods => Kind::Method,
        _ => kind,
    };
    let is_function = matches!(kind, Kind::Function | Kind::Method);
    let scope = Scope { depth: 0, name: name.clone(), holds_methods: !is_function, function: is_function };

    let outer = &steps[outermost(steps)];
    let lines = outer.node.start_position().row + 1..with_body.end_position().row + 1;
    // Little helpers inside a function are part of it.
    let little = lines.end - lines.start < 2 && scopes.iter().any(|scope| scope.function);
    if little || name.is_empty() || name.len() > MAX_SIGNATURE {
        return Some(scope);
    }
    let body = with_body.child_by_field_name("body").or_else(|| {
        let mut cursor = with_body.walk();
        with_body.named_children(&mut cursor).find(|child| child.kind() == "class_body")
    });
    let slice = |range: Range<usize>| source.get(range).unwrap_or_default();
    let (start, end) = (outer.node.start_byte(), with_body.end_byte());
    let docstring = if grammar.docstrings { body.and_then(docstring).map(text) } else { None };
    let summary = match (docstring, &outer.leading) {
        (Some(text), _) => plain_comment(text, MAX_SUMMARY),
        (None, Some(comment)) if outer.node.start_position().row <= comment.last_row + 1 => {
            plain_comment(cut(slice(comment.bytes.clone()), MAX_COMMENT), MAX_SUMMARY)
        }
        _ => String::new(),
    };
    let signature = folded(head(slice(start..head_end(with_body, body, source))), MAX_SIGNATURE);
    // Several types in one statement: the word that declares them stands at the first one only.
    let signature = if node.kind() == "type_spec" && !signature.starts_with("type ") {
        format!("type {signature}")
    } else {
        signature
    };
    found.push(Declaration {
        kind,
        name: path(scopes, &name),
        lines,
        signature,
        summary,
        code: cut(slice(start..end), MAX_CODE).to_owned(),
    });
    Some(scope)
}

/// What a node declares.
enum Declared<'tree, 'source> {
    Nothing,
    /// Nothing by itself, but what is inside bears its name.
    Scope {
        name: &'source str,
        holds_methods: bool,
    },
    Something {
        kind: Kind,
        name: String,
        /// The node that has the body: the value, where a name is given to a function.
        with_body: Node<'tree>,
    },
}

fn declared<'tree, 'source>(
    node: Node<'tree>,
    parent: Option<Node<'tree>>,
    source: &'source str,
    grammar: &Grammar,
) -> Declared<'tree, 'source> {
    let text = |node: Node<'_>| source.get(node.byte_range()).unwrap_or_default();
    let field = |names: &[&str]| names.iter().find_map(|field| node.child_by_field_name(field));
    if FUNCTIONS.contains(&node.kind()) && parent.is_some_and(|parent| parent.kind() == "export_statement") {
        let kind = if node.kind() == "class" { Kind::Class } else { Kind::Function };
        let name = field(&["name"]).map_or("default", text).to_owned();
        return Declared::Something { kind, name, with_body: node };
    }
    let Some(&(_, kind)) = grammar.declares.iter().find(|(name, _)| *name == node.kind()) else {
        let holds_methods = HOLDS_METHODS.contains(&node.kind());
        let name = field(&["type"]).map(text).unwrap_or_default();
        return if holds_methods { Declared::Scope { name, holds_methods } } else { Declared::Nothing };
    };
    let name = field(&["name", "left", "key", "property"]).map(text).unwrap_or_default().trim_matches(['"', '\'', '`']);
    if !NAMES_VALUES.contains(&node.kind()) {
        let owner = node.child_by_field_name("receiver").and_then(|receiver| receiver_type(text(receiver)));
        let name = owner.map_or_else(|| name.to_owned(), |owner| format!("{owner}.{name}"));
        return Declared::Something { kind, name, with_body: node };
    }
    let value = field(&["value", "right"]);
    match value.and_then(|value| function_in(value, source)) {
        Some(with_body) => {
            let kind = if with_body.kind() == "class" { Kind::Class } else { kind };
            Declared::Something { kind, name: name.to_owned(), with_body }
        }
        None if value.is_some_and(|value| value.kind() == "object") => Declared::Scope { name, holds_methods: false },
        None => Declared::Nothing,
    }
}

/// The function or class that a value is, through what only wraps it.
fn function_in<'tree>(value: Node<'tree>, source: &str) -> Option<Node<'tree>> {
    let mut value = value;
    for _ in 0..MAX_WRAPS {
        value = match value.kind() {
            kind if FUNCTIONS.contains(&kind) => return Some(value),
            "as_expression" | "satisfies_expression" | "parenthesized_expression" => value.named_child(0)?,
            "call_expression" => {
                let callee = source.get(value.child_by_field_name("function")?.byte_range())?;
                let callee = callee.rsplit('.').next().unwrap_or_default();
                if !WRAPS_FUNCTIONS.contains(&callee) {
                    return None;
                }
                value.child_by_field_name("arguments")?.named_child(0)?
            }
            _ => return None,
        };
    }
    None
}

/// The type in Go's `(s *Stack[T])`.
fn receiver_type(receiver: &str) -> Option<&str> {
    let inside = receiver.trim_matches(['(', ')']);
    let name = inside.split('[').next()?.split([' ', '*']).rfind(|word| !word.is_empty())?;
    Some(name)
}

/// The names around a declaration and its own, the innermost as far as there is room.
fn path(scopes: &[Scope], name: &str) -> String {
    let mut length = name.len();
    let around = scopes.iter().rev().map(|scope| scope.name.as_str()).filter(|name| !name.is_empty());
    let mut names: Vec<&str> = around
        .take_while(|around| {
            length += around.len() + 1;
            length <= MAX_SIGNATURE
        })
        .collect();
    names.reverse();
    names.push(name);
    names.join(".")
}

/// Where the signature ends.
fn head_end(node: Node<'_>, body: Option<Node<'_>>, source: &str) -> usize {
    if let Some(go_type) = node.child_by_field_name("type").filter(|_| node.kind() == "type_spec") {
        let brace = source.get(go_type.byte_range()).and_then(|text| text.find('{'));
        return brace.map_or(node.end_byte(), |at| go_type.start_byte() + at);
    }
    match body {
        // In Python, a comment may stand between the colon and the body.
        Some(body) if body.kind() == "block" && node.kind().ends_with("_definition") => {
            let parts = ["name", "parameters", "superclasses", "return_type"];
            let ends = parts.iter().filter_map(|part| node.child_by_field_name(part)).map(|part| part.end_byte());
            ends.max().unwrap_or(body.start_byte())
        }
        Some(body) => body.start_byte(),
        None => node.end_byte(),
    }
}

/// A declaration's source before its body, without what leads into the body.
fn head(source: &str) -> &str {
    let head = source.trim_end();
    ["=>", "{", ":", "="].iter().find_map(|end| head.strip_suffix(end)).unwrap_or(head).trim_end()
}

/// The step that holds the whole statement, with `export`, decorators and the like.
fn outermost(steps: &[Step<'_>]) -> usize {
    let declarations = |parent: Node<'_>| {
        let mut cursor = parent.walk();
        let kinds = ["variable_declarator", "type_spec", "type_alias"];
        parent.named_children(&mut cursor).filter(|child| kinds.contains(&child.kind())).take(2).count()
    };
    let last = steps.len() - 1;
    // A list of several declarations is the beginning of none of them.
    let wraps = |step: &&Step<'_>| WRAPPERS.contains(&step.node.kind()) && declarations(step.node) < 2;
    last - steps[..last].iter().rev().take_while(wraps).count()
}

/// The string at the beginning of a body.
fn docstring(body: Node<'_>) -> Option<Node<'_>> {
    let mut cursor = body.walk();
    let first = body.named_children(&mut cursor).find(|child| child.kind() != "comment")?;
    let string = if first.kind() == "expression_statement" { first.named_child(0)? } else { first };
    (string.kind() == "string").then_some(string)
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
            is(Kind::Function, "routes.home"),
            is(Kind::Method, "routes.away"),
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
        assert_eq!(
            names("go", go),
            [is(Kind::Method, "Stack.Push"), is(Kind::Type, "Stack"), is(Kind::Function, "New")]
        );
        assert_eq!(found[0].summary, "Push puts x on top.");
        assert_eq!(found[1].summary, "Stack is a stack.");
        assert_eq!(found[1].signature, "type Stack struct");
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
    fn comments_belong_to_what_follows_them() {
        let summary = |extension, source: &str| of(extension, source)[0].summary.clone();
        assert_eq!(summary("rs", "/// Doc.\n#[cfg_attr(\n  a,\n  b\n)]\nfn f() {}"), "Doc.");
        assert_eq!(summary("rs", "//! The whole file.\nfn f() {}"), "");
        assert_eq!(summary("rs", "/// Far away.\n\n\nfn f() {}"), "");
        assert_eq!(summary("rs", "let x = 1; // trailing\nfn f() {}"), "");
        assert_eq!(
            summary("ts", "/** Expands `src/*.js`,\n * and more. */\nfunction f() {}"),
            "Expands `src/*.js`, and more."
        );
        assert_eq!(summary("ts", "/* eslint-disable no-console */\nfunction f() {}"), "");
        assert_eq!(summary("ts", "// @ts-ignore\n// Runs it.\nfunction f() {}"), "Runs it.");
        assert_eq!(summary("py", "# =====\n# Parses.\n# =====\ndef f(): pass"), "Parses.");
        assert_eq!(summary("py", "def f():\n    \"\"\":class:`X` keeps.\"\"\""), ":class:`X` keeps.");
        let long = format!("/** First.\n{} */\nfunction f() {{}}", " * more\n".repeat(500));
        assert!(summary("ts", &long).starts_with("First. more"));
        let class = "class A {\n  /** Doc. */\n  @Input({\n    a: 1,\n  })\n  set b(x) {}\n}";
        assert_eq!(of("ts", class)[1].summary, "Doc.");
        assert_eq!(of("py", "def m(self):  # a comment first\n    pass\n    pass")[0].signature, "def m(self)");
    }

    #[test]
    fn functions_are_found_in_what_wraps_them() {
        assert_eq!(names("ts", "export default function () { return 1; }"), [is(Kind::Function, "default")]);
        let class = "export default class extends Foo { run() {} }";
        assert_eq!(names("ts", class), [is(Kind::Class, "default"), is(Kind::Method, "default.run")]);
        assert_eq!(
            names("js", "const View = React.memo(function inner(p) { return p; });")[0],
            is(Kind::Function, "View")
        );
        assert_eq!(names("ts", "const f = ((a) => a) as Fn;"), [is(Kind::Function, "f")]);
        assert!(names("js", "const sum = list.reduce((a, b) => a + b);").is_empty());
        assert_eq!(names("js", "const o = { 'a-b': () => 1 };"), [is(Kind::Function, "o.a-b")]);
        let group = "package a\ntype (\n\tA struct{ x int }\n\tB interface{ C() }\n)";
        let signatures: Vec<String> = of("go", group).into_iter().map(|found| found.signature).collect();
        assert_eq!(signatures, ["type A struct", "type B interface"]);
        assert_eq!(names("go", "package a\nfunc (s *Stack[T]) Pop() T { return 1 }"), [is(Kind::Method, "Stack.Pop")]);
    }

    #[test]
    fn nesting_does_not_make_names_grow() {
        let nested: String = (0..300).map(|i| format!("function {}{i}() {{\n\n\n", "a".repeat(300))).collect();
        let found = of("js", &format!("{nested}{}", "}".repeat(300)));
        assert!(found.len() > 200);
        assert!(found.iter().all(|found| found.name.len() <= MAX_SIGNATURE));
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
