//! Declarations of C and C++: what a declarator names, and whether that is a function.

use tree_sitter::Node;

use super::{Declared, MAX_NAME, cut};
use crate::syntax::Kind;

/// Pointers, references, arrays and parentheses around a name that are looked through.
const MAX_DECLARATORS: usize = 16;

/// What a declarator declares.
struct Declarator<'tree> {
    /// The node that has the name.
    name: Node<'tree>,
    /// Whether that is a function, and not a pointer to one.
    function: Option<Node<'tree>>,
}

/// What `node`, of this kind, declares.
pub fn declared<'tree, 'source>(node: Node<'tree>, kind: Kind, source: &'source str) -> Declared<'tree, 'source> {
    let text = |node: Node<'_>| cut(source.get(node.byte_range()).unwrap_or_default(), MAX_NAME + 1);
    let named = |field: &str| node.child_by_field_name(field).map(text).unwrap_or_default();
    let body = node.child_by_field_name("body");
    match node.kind() {
        // Without a body, it is only mentioned.
        "struct_specifier" | "union_specifier" | "enum_specifier" | "class_specifier" if body.is_none() => {
            Declared::Nothing
        }
        "function_definition" | "declaration" | "field_declaration" | "type_definition" => {
            let Some(found) = node.child_by_field_name("declarator").and_then(declarator) else {
                return Declared::Nothing;
            };
            let name = match found.name.kind() {
                "qualified_identifier" => qualified(found.name, source),
                "operator_cast" => text(found.name).split('(').next().unwrap_or_default().trim_end().to_owned(),
                _ => unspecialised(text(found.name)).to_owned(),
            };
            if node.kind() == "type_definition" {
                return Declared::Something { kind, name, with_body: node, holds: false, elsewhere: false };
            }
            let is_method = found.name.kind() == "qualified_identifier";
            let function = if is_method { Kind::Method } else { Kind::Function };
            let lambda = node
                .child_by_field_name("declarator")
                .and_then(|declarator| declarator.child_by_field_name("value"))
                .filter(|value| value.kind() == "lambda_expression");
            if node.kind() == "function_definition" {
                // `class EXPORT Name : Base {}`, where EXPORT is a macro, is read as a function.
                let exported = node.child_by_field_name("type").is_some_and(|of| {
                    matches!(of.kind(), "class_specifier" | "struct_specifier")
                        && of.child_by_field_name("body").is_none()
                });
                let kind = if exported && found.function.is_none() { Kind::Class } else { function };
                let name =
                    found.function.and_then(|function| made_by_macro(node, function, &name, source)).unwrap_or(name);
                return Declared::Something { kind, name, with_body: node, holds: true, elsewhere: false };
            }
            if let Some(with_body) = lambda {
                return Declared::Something { kind: function, name, with_body, holds: true, elsewhere: false };
            }
            // What it does is written elsewhere, except where that is left to others.
            let elsewhere = node.child_by_field_name("default_value").is_none();
            match found.function {
                Some(_) => Declared::Something { kind: function, name, with_body: node, holds: false, elsewhere },
                None if found.name.kind() == "structured_binding_declarator" => Declared::Nothing,
                None if node.kind() == "declaration" || is_constant(node, source) => Declared::of(kind, name, node),
                None => Declared::Nothing,
            }
        }
        _ => Declared::of(kind, unspecialised(named("name")).replace("::", "."), node),
    }
}

/// Whether the members of a class that are declared so are constants.
fn is_constant(node: Node<'_>, source: &str) -> bool {
    let mut cursor = node.walk();
    let mut children = node.children(&mut cursor);
    let words = children.by_ref().take_while(|child| child.kind() != "field_identifier");
    words.filter_map(|word| source.get(word.byte_range())).any(|word| matches!(word, "const" | "constexpr" | "static"))
}

/// What is declared, through all that is around the name.
fn declarator(outermost: Node<'_>) -> Option<Declarator<'_>> {
    let mut node = outermost;
    let mut function = None;
    for _ in 0..MAX_DECLARATORS {
        node = match node.kind() {
            "function_declarator" => {
                function = Some(node);
                node.child_by_field_name("declarator")?
            }
            "pointer_declarator" | "array_declarator" | "init_declarator" | "attributed_declarator" => {
                // A function that was seen further out is what the pointer points to.
                if node.kind() == "pointer_declarator" {
                    function = None;
                }
                node.child_by_field_name("declarator").or_else(|| node.named_child(0))?
            }
            "reference_declarator" | "parenthesized_declarator" => {
                let mut cursor = node.walk();
                node.named_children(&mut cursor).find(|child| child.kind() != "ms_call_modifier")?
            }
            "operator_cast" => return Some(Declarator { name: node, function: Some(node) }),
            "template_function" | "template_method" => node.child_by_field_name("name")?,
            "qualified_identifier" => {
                let cast = last_of(node).kind() == "operator_cast";
                return Some(Declarator { name: node, function: if cast { Some(node) } else { function } });
            }
            _ => return Some(Declarator { name: node, function }),
        };
    }
    None
}

/// The last part of `a::b::c`.
fn last_of(qualified: Node<'_>) -> Node<'_> {
    let mut node = qualified;
    for _ in 0..MAX_DECLARATORS {
        match node.child_by_field_name("name").filter(|_| node.kind() == "qualified_identifier") {
            Some(name) => node = name,
            None => break,
        }
    }
    node
}

/// `a::B<int>::get` as `a.B.get`.
fn qualified(node: Node<'_>, source: &str) -> String {
    let text = |node: Node<'_>| cut(source.get(node.byte_range()).unwrap_or_default(), MAX_NAME + 1);
    let mut parts = Vec::new();
    let mut node = node;
    while parts.len() < MAX_DECLARATORS {
        if node.kind() != "qualified_identifier" {
            let name = if node.kind() == "operator_cast" {
                text(node).split('(').next().unwrap_or_default()
            } else {
                text(node)
            };
            parts.push(unspecialised(name.trim_end()));
            break;
        }
        parts.extend(node.child_by_field_name("scope").map(|scope| unspecialised(text(scope))));
        match node.child_by_field_name("name") {
            Some(name) => node = name,
            None => break,
        }
    }
    parts.join(".")
}

/// A name without the arguments of a template: the same in a class and behind it.
fn unspecialised(name: &str) -> &str {
    match name.find('<') {
        Some(at) if at > 0 && !name.starts_with("operator") => &name[..at],
        _ => name,
    }
}

/// The name of what a macro such as `TEST(Suite, Name)` makes: its arguments.
fn made_by_macro(node: Node<'_>, function: Node<'_>, name: &str, source: &str) -> Option<String> {
    let shouts = name.contains(|c: char| c.is_ascii_uppercase()) && !name.contains(|c: char| c.is_lowercase());
    if !shouts || node.child_by_field_name("type").is_some() {
        return None;
    }
    let parameters = function.child_by_field_name("parameters")?;
    let mut cursor = parameters.walk();
    let names: Option<Vec<&str>> = (parameters.named_children(&mut cursor).take(MAX_DECLARATORS))
        .map(|parameter| {
            let only = parameter.child_by_field_name("type").filter(|of| of.byte_range() == parameter.byte_range());
            source.get(only?.byte_range())
        })
        .collect();
    names.map(|names| names.join(".")).filter(|joined| !joined.is_empty())
}
