//! What a node of a syntax tree declares.

use tree_sitter::Node;

use super::{Declared, MAX_NAME, cut, declarator};
use crate::syntax::{Grammar, Kind};

/// Calls, casts and parentheses around a function that are looked through.
const MAX_WRAPS: usize = 5;

/// Functions that give back the function they are given, in other words.
const WRAPS_FUNCTIONS: [&str; 9] =
    ["memo", "forwardRef", "useCallback", "observer", "debounce", "throttle", "memoize", "once", "defineComponent"];

/// Values that are functions or classes.
const FUNCTIONS: [&str; 9] = [
    "arrow_function",
    "function_expression",
    "generator_function",
    "class",
    "lambda",
    "func_literal",
    "anonymous_function",
    "lambda_literal",
    "lambda_expression",
];

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
const HOLDS_METHODS: [&str; 6] =
    ["impl_item", "class", "singleton_class", "companion_object", "extension_definition", "anonymous_class"];

/// Nodes that only name what is in them.
const MODULES: [&str; 5] = ["mod_item", "internal_module", "module", "namespace_definition", "package_object"];

/// What Python calls to make a type, and whose `new` or `define` Ruby calls.
const MAKES_TYPES: [&str; 5] = ["NewType", "namedtuple", "NamedTuple", "TypedDict", "TypeAliasType"];
const MAKERS_OF_TYPES: [&str; 4] = ["Struct", "Class", "Module", "Data"];

/// Nodes that hold what a property computes.
const COMPUTES: [&str; 4] = ["getter", "setter", "computed_property", "accessor_list"];

/// Children of a declaration that are looked at for what it is.
const MAX_PARTS: usize = 32;

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
        return Declared::of(kind, name, node);
    }
    let Some(&(_, kind)) = grammar.declares.iter().find(|(name, _)| *name == node.kind()) else {
        let holds_methods = HOLDS_METHODS.contains(&node.kind());
        if !holds_methods && !MODULES.contains(&node.kind()) {
            return Declared::Nothing;
        }
        // What Scala adds to a type is a part of that.
        let extended = field(&["parameters"])
            .filter(|_| node.kind() == "extension_definition")
            .and_then(|parameters| parameters.named_child(0)?.child_by_field_name("type"));
        // The root of a Python file is a module without a name. Namespaces of PHP are as long as Java's, and left out like them.
        let name = extended.or_else(|| field(&["type", "name"])).filter(|name| name.kind() != "namespace_name");
        let name = name.map(text).unwrap_or_default().trim_matches(['"', '\'']);
        // A class that is a value is called what that is called.
        let is_value = node.kind() == "class" && parent.is_some_and(|parent| NAMES_VALUES.contains(&parent.kind()));
        return Declared::Scope { name: if is_value { "" } else { name }, holds_methods };
    };
    if grammar.declarators {
        return declarator::declared(node, kind, source);
    }
    if let Some(declared) = by_its_parts(node, kind, source) {
        return declared;
    }
    let name = field(&["name", "left", "key", "property"]);
    if !NAMES_VALUES.contains(&node.kind()) {
        let declarator = field(&["declarator"]).filter(|_| kind == Kind::Constant);
        if declarator.is_some() && !is_constant_field(node, source) {
            return Declared::Nothing;
        }
        let name = name.or_else(|| declarator?.child_by_field_name("name")).map(text).unwrap_or_default();
        let owner = node.child_by_field_name("receiver").and_then(|receiver| receiver_type(text(receiver)));
        let name = unquoted(name).replace("::", ".");
        let name = owner.map_or_else(|| name.clone(), |owner| format!("{owner}.{name}"));
        return Declared::of(kind, name, node);
    }
    let (name_node, name) = (name, unquoted(name.map(text).unwrap_or_default()));
    let value = field(&["value", "right"]);
    if let Some(with_body) = value.and_then(|value| function_in(value, source)) {
        let kind = if with_body.kind() == "class" { Kind::Class } else { kind };
        let kind = if kind == Kind::Constant { Kind::Function } else { kind };
        // What a CommonJS module is has its own name rather than that of all modules.
        let own = with_body.child_by_field_name("name").map(text).filter(|_| name == "module.exports");
        return Declared::of(kind, own.unwrap_or(name.trim_start_matches('$')), with_body);
    }
    if value.is_some_and(|value| value.kind() == "object") {
        return Declared::Scope { name, holds_methods: false };
    }
    let identifier = name_node.is_some_and(|name| name.kind().ends_with("identifier") || name.kind() == "constant");
    let kind = match node.kind() {
        "assignment" if is_type(field(&["type"]), value, text) => Kind::Type,
        // What Ruby calls a constant begins with a capital; a type's are all that is left.
        "assignment" if name_node.is_some_and(|name| name.kind() == "constant") => Kind::Constant,
        "assignment" if is_constant_name(name) => Kind::Constant,
        "variable_declarator" if parent.is_some_and(|parent| is_const(parent, source)) => Kind::Constant,
        "const_spec" | "var_spec" => Kind::Constant,
        _ => return Declared::Nothing,
    };
    if identifier { Declared::of(kind, name, node) } else { Declared::Nothing }
}

/// What a node declares whose name, kind or body is a child that no field names.
fn by_its_parts<'tree, 'source>(
    node: Node<'tree>,
    kind: Kind,
    source: &'source str,
) -> Option<Declared<'tree, 'source>> {
    let text = |node: Node<'_>| cut(source.get(node.byte_range()).unwrap_or_default(), MAX_NAME + 1);
    let part = |kinds: &[&str]| {
        let mut cursor = node.walk();
        node.children(&mut cursor).take(MAX_PARTS).find(|child| kinds.contains(&child.kind()))
    };
    let name = node.child_by_field_name("name");
    let named = name.map(text).unwrap_or_default();
    Some(match node.kind() {
        // Swift: one node for all of them.
        "class_declaration" | "protocol_declaration" if node.child_by_field_name("declaration_kind").is_some() => {
            match node.child_by_field_name("declaration_kind").map(text) {
                Some("extension") => Declared::Scope { name: named, holds_methods: true },
                Some("class" | "actor") => Declared::of(kind, named, node),
                _ => Declared::of(Kind::Type, named, node),
            }
        }
        // Kotlin: the same.
        "class_declaration"
            if part(&["interface"]).is_some()
                || part(&["modifiers"])
                    .is_some_and(|words| text(words).split_whitespace().any(|word| word == "enum")) =>
        {
            Declared::of(Kind::Type, named, node)
        }
        "type_alias" => Declared::of(kind, node.child_by_field_name("type").map(text)?, node),
        "secondary_constructor" => Declared::of(kind, "constructor", node),
        // Of Kotlin and Swift: a function if it is one, or computes something.
        "property_declaration" | "protocol_property_declaration" => {
            let bound = name.and_then(|name| name.child_by_field_name("bound_identifier"));
            let variable = part(&["variable_declaration"]).and_then(|variable| variable.named_child(0));
            let named = bound.or(variable).or(name).map(text)?;
            let owner = extended(node, &["variable_declaration"], source);
            let owned = owner.is_some();
            let named = owner.map_or_else(|| named.to_owned(), |owner| format!("{owner}.{named}"));
            let value = node.child_by_field_name("value").or_else(|| part(&FUNCTIONS));
            if let Some(with_body) = value.filter(|value| FUNCTIONS.contains(&value.kind())) {
                return Some(Declared::of(Kind::Function, named, with_body));
            }
            let computes = part(&COMPUTES).is_some_and(computes_something)
                || value.is_some_and(|value| value.kind() == "arrow_expression_clause");
            Declared::of(if computes { if owned { Kind::Method } else { Kind::Function } } else { kind }, named, node)
        }
        "function_declaration" => {
            let owner = extended(node, &["function_value_parameters", "function_body"], source)?;
            Declared::of(Kind::Method, format!("{owner}.{named}"), node)
        }
        "deinit_declaration" => Declared::of(kind, "deinit", node),
        "subscript_declaration" => Declared::of(kind, "subscript", node),
        "macro_declaration" => Declared::of(kind, part(&["simple_identifier"]).map(text)?, node),
        // C#.
        "destructor_declaration" => Declared::of(kind, format!("~{named}"), node),
        "indexer_declaration" => Declared::of(kind, "this", node),
        "operator_declaration" => {
            let operator = node.child_by_field_name("operator").map(text)?;
            Declared::of(kind, format!("operator {operator}"), node)
        }
        "conversion_operator_declaration" => {
            let to = node.child_by_field_name("type").map(text)?;
            Declared::of(kind, format!("operator {to}"), node)
        }
        "field_declaration" | "event_field_declaration" => {
            let variables = part(&["variable_declaration"])?;
            let mut cursor = variables.walk();
            let first = variables.named_children(&mut cursor).find(|child| child.kind() == "variable_declarator")?;
            let constant = {
                let mut cursor = node.walk();
                let words: Vec<&str> = node.children(&mut cursor).take(MAX_PARTS).map(text).collect();
                let has = |word| words.contains(&word);
                has("const") || has("event") || (has("static") && has("readonly"))
            };
            if !constant {
                return Some(Declared::Nothing);
            }
            Declared::of(kind, first.child_by_field_name("name").map(text)?, node)
        }
        // PHP.
        "const_declaration" => {
            let element = part(&["const_element"])?;
            Declared::of(kind, element.named_child(0).map(text)?, node)
        }
        // Ruby.
        "call" => {
            let method = node.child_by_field_name("method").map(text);
            let first = node.child_by_field_name("arguments").and_then(|arguments| arguments.named_child(0));
            match first.filter(|_| method == Some("define_method")) {
                Some(name) => Declared::of(kind, text(name).trim_matches([':', '"', '\'']), node),
                None => Declared::Nothing,
            }
        }
        // Bash.
        "declaration_command" => {
            let assigned = part(&["variable_assignment"]).and_then(|assigned| assigned.child_by_field_name("name"));
            assigned.map_or(Declared::Nothing, |name| Declared::of(kind, text(name), node))
        }
        "variable_assignment" if !is_constant_name(named) => Declared::Nothing,
        // Scala.
        "val_definition" => {
            let named = node.child_by_field_name("pattern").filter(|name| name.kind() == "identifier").map(text);
            let value = node.child_by_field_name("value").filter(|value| FUNCTIONS.contains(&value.kind()));
            match (named, value) {
                (Some(named), Some(value)) => Declared::of(Kind::Function, named, value),
                (Some(named), None) => Declared::of(kind, named, node),
                (None, _) => Declared::Nothing,
            }
        }
        "given_definition" if node.child_by_field_name("body").is_none() || named.is_empty() => Declared::Nothing,
        _ => return None,
    })
}

/// Whether what a property has behind its name computes something; `{ get; set; }` does not.
fn computes_something(accessors: Node<'_>) -> bool {
    let mut cursor = accessors.walk();
    let mut each = accessors.named_children(&mut cursor).take(MAX_PARTS);
    accessors.kind() != "accessor_list" || each.any(|accessor| accessor.child_by_field_name("body").is_some())
}

/// The type that Kotlin adds a function or a property to: it stands before the name, and no later than `end`.
fn extended<'source>(node: Node<'_>, end: &[&str], source: &'source str) -> Option<&'source str> {
    let name = node.child_by_field_name("name").map_or(usize::MAX, |name| name.start_byte());
    let mut cursor = node.walk();
    let before = node
        .children(&mut cursor)
        .take(MAX_PARTS)
        .take_while(|child| child.start_byte() < name && !end.contains(&child.kind()));
    let owner = before.filter(|child| matches!(child.kind(), "user_type" | "nullable_type")).last()?;
    let text = cut(source.get(owner.byte_range())?, MAX_NAME);
    text.split(['<', '?']).next().filter(|owner| !owner.is_empty())
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
    let maker = value.filter(|value| value.kind() == "call").and_then(|call| call.child_by_field_name("receiver"));
    annotation.is_some_and(|annotation| last(text(annotation)) == "TypeAlias")
        || made.is_some_and(|made| MAKES_TYPES.contains(&last(text(made))))
        || maker.is_some_and(|maker| MAKERS_OF_TYPES.contains(&text(maker)))
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
