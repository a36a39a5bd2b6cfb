//! What a node of a syntax tree declares.

use tree_sitter::Node;

use super::{MAX_NAME, cut};
use crate::syntax::{Grammar, Kind};

/// Calls, casts and parentheses around a function that are looked through.
const MAX_WRAPS: usize = 5;

/// Functions that give back the function they are given, in other words.
const WRAPS_FUNCTIONS: [&str; 9] =
    ["memo", "forwardRef", "useCallback", "observer", "debounce", "throttle", "memoize", "once", "defineComponent"];

/// Values that are functions or classes.
const FUNCTIONS: [&str; 6] =
    ["arrow_function", "function_expression", "generator_function", "class", "lambda", "func_literal"];

/// Nodes that give a name to a value, and declare something only if that is a function, a class or a constant.
const NAMES_VALUES: [&str; 8] = [
    "variable_declarator",
    "assignment_expression",
    "assignment",
    "pair",
    "public_field_definition",
    "field_definition",
    "var_spec",
    "const_spec",
];

/// Nodes whose functions are methods, beside the declarations of classes and types themselves.
const HOLDS_METHODS: [&str; 2] = ["impl_item", "class"];

/// Nodes that only name what is in them.
const MODULES: [&str; 3] = ["mod_item", "internal_module", "module"];

/// What Python calls to make a type.
const MAKES_TYPES: [&str; 5] = ["NewType", "namedtuple", "NamedTuple", "TypedDict", "TypeAliasType"];

/// What a node declares.
pub enum Declared<'tree, 'source> {
    /// Nothing.
    Nothing,
    /// Nothing by itself, but what is inside bears its name.
    Scope {
        /// The name.
        name: &'source str,
        /// Whether functions in it are methods.
        holds_methods: bool,
    },
    /// Something.
    Something {
        /// What it is.
        kind: Kind,
        /// What it is called, its owner first.
        name: String,
        /// The node that has the body: the value, where a name is given to a function.
        with_body: Node<'tree>,
    },
}

/// What `node`, a child of `parent`, declares.
pub fn declared<'tree, 'source>(
    node: Node<'tree>,
    parent: Option<Node<'tree>>,
    source: &'source str,
    grammar: &Grammar,
) -> Declared<'tree, 'source> {
    // Longer names are not kept: code in them would be copied again and again.
    let text = |node: Node<'_>| cut(source.get(node.byte_range()).unwrap_or_default(), MAX_NAME + 1);
    let field = |names: &[&str]| names.iter().find_map(|field| node.child_by_field_name(field));
    if FUNCTIONS.contains(&node.kind()) && parent.is_some_and(|parent| parent.kind() == "export_statement") {
        let kind = if node.kind() == "class" { Kind::Class } else { Kind::Function };
        let name = field(&["name"]).map_or("default", text).to_owned();
        return Declared::Something { kind, name, with_body: node };
    }
    let Some(&(_, kind)) = grammar.declares.iter().find(|(name, _)| *name == node.kind()) else {
        let holds_methods = HOLDS_METHODS.contains(&node.kind());
        if !holds_methods && !MODULES.contains(&node.kind()) {
            return Declared::Nothing;
        }
        // The root of a Python file is a module without a name.
        let name = field(&["type", "name"]).map(text).unwrap_or_default().trim_matches(['"', '\'']);
        return Declared::Scope { name, holds_methods };
    };
    let name = field(&["name", "left", "key", "property"]);
    if !NAMES_VALUES.contains(&node.kind()) {
        let declarator = field(&["declarator"]).filter(|_| kind == Kind::Constant);
        if declarator.is_some() && !is_constant_field(node, source) {
            return Declared::Nothing;
        }
        let name = name.or_else(|| declarator?.child_by_field_name("name")).map(text).unwrap_or_default();
        let owner = node.child_by_field_name("receiver").and_then(|receiver| receiver_type(text(receiver)));
        let name = unquoted(name);
        let name = owner.map_or_else(|| name.to_owned(), |owner| format!("{owner}.{name}"));
        return Declared::Something { kind, name, with_body: node };
    }
    let (name_node, name) = (name, unquoted(name.map(text).unwrap_or_default()));
    let value = field(&["value", "right"]);
    if let Some(with_body) = value.and_then(|value| function_in(value, source)) {
        let kind = if with_body.kind() == "class" { Kind::Class } else { kind };
        let kind = if kind == Kind::Constant { Kind::Function } else { kind };
        return Declared::Something { kind, name: name.to_owned(), with_body };
    }
    if value.is_some_and(|value| value.kind() == "object") {
        return Declared::Scope { name, holds_methods: false };
    }
    let identifier = name_node.is_some_and(|name| name.kind().ends_with("identifier"));
    let kind = match node.kind() {
        "assignment" if is_type(field(&["type"]), value, text) => Kind::Type,
        "assignment" if is_constant_name(name) => Kind::Constant,
        "variable_declarator" if parent.is_some_and(|parent| is_const(parent, source)) => Kind::Constant,
        "const_spec" | "var_spec" => Kind::Constant,
        _ => return Declared::Nothing,
    };
    if identifier { Declared::Something { kind, name: name.to_owned(), with_body: node } } else { Declared::Nothing }
}

/// The word that declares the node, where it may stand at the first of several only.
pub fn keyword(node: Node<'_>) -> Option<&'static str> {
    match node.kind() {
        "type_spec" => Some("type"),
        "const_spec" => Some("const"),
        "var_spec" => Some("var"),
        _ => None,
    }
}

fn unquoted(name: &str) -> &str {
    name.trim_matches(['"', '\'', '`'])
}

/// Python's constants are told by their names.
fn is_constant_name(name: &str) -> bool {
    name.contains(|c: char| c.is_uppercase()) && !name.contains(|c: char| c.is_lowercase())
}

/// JavaScript's `const`.
fn is_const(declaration: Node<'_>, source: &str) -> bool {
    let kind = declaration.child_by_field_name("kind").and_then(|kind| source.get(kind.byte_range()));
    declaration.kind() == "lexical_declaration" && kind == Some("const")
}

/// Java's `static final`; what an interface declares is that without the words.
fn is_constant_field(node: Node<'_>, source: &str) -> bool {
    let modifiers = node.child(0).filter(|first| first.kind() == "modifiers");
    let words = modifiers.and_then(|modifiers| source.get(modifiers.byte_range())).map(|text| cut(text, MAX_NAME));
    let has = |word| words.is_some_and(|words| words.split_whitespace().any(|found| found == word));
    node.kind() == "constant_declaration" || (has("static") && has("final"))
}

/// Whether Python's `name: annotation = value` gives a name to a type.
fn is_type<'s>(annotation: Option<Node<'_>>, value: Option<Node<'_>>, text: impl Fn(Node<'_>) -> &'s str) -> bool {
    let last = |text: &'s str| text.rsplit('.').next().unwrap_or_default();
    let made = value.filter(|value| value.kind() == "call").and_then(|call| call.child_by_field_name("function"));
    annotation.is_some_and(|annotation| last(text(annotation)) == "TypeAlias")
        || made.is_some_and(|made| MAKES_TYPES.contains(&last(text(made))))
}

/// The function or class that a value is, through what only wraps it.
fn function_in<'tree>(value: Node<'tree>, source: &str) -> Option<Node<'tree>> {
    let mut value = value;
    for _ in 0..MAX_WRAPS {
        value = match value.kind() {
            kind if FUNCTIONS.contains(&kind) => return Some(value),
            "as_expression" | "satisfies_expression" | "parenthesized_expression" | "expression_list" => {
                value.named_child(0)?
            }
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
