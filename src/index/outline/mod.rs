//! Source text → its functions, methods, classes, types and documented constants, with the words that describe them.
//!
//! All of it takes time in proportion to the source, whatever that holds: a node is looked at with what the walk has kept
//! from before, never by looking back.

mod declarator;
mod declared;
mod definitions;
mod headings;
#[cfg(test)]
mod languages;
mod leading;
mod passages;
mod prose;
mod scripts;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use tree_sitter::{Node, Tree};

use crate::cancel::Cancel;
use crate::error::Error;
use crate::syntax::{self, Unparsed, mended, parse};
use declared::declared;
use leading::Leading;
use prose::{cut, folded, plain_comment};

pub use crate::syntax::{Grammar, Kind};

/// How files of a language are read.
#[derive(Clone, Copy)]
pub enum Reader {
    /// By its grammar.
    Code(&'static Grammar),
    /// By the scripts in it.
    Scripts,
    /// By its headings.
    Headings,
    /// By what its statements create.
    Definitions,
    /// In chunks.
    Passages,
}

/// What is read without a grammar of its own: extension, language, and how.
const OTHERS: [(&str, &str, Reader); 7] = [
    ("vue", "vue", Reader::Scripts),
    ("svelte", "svelte", Reader::Scripts),
    ("md", "markdown", Reader::Headings),
    ("markdown", "markdown", Reader::Headings),
    ("mdx", "markdown", Reader::Headings),
    ("sql", "sql", Reader::Definitions),
    ("ddl", "sql", Reader::Definitions),
];

/// The file name extensions that are read, each with its language.
pub fn extensions() -> impl Iterator<Item = (&'static str, &'static str)> {
    syntax::extensions().chain(OTHERS.iter().map(|(extension, language, _)| (*extension, *language)))
}

/// The language of files in none that is known.
pub const TEXT: &str = "text";

/// The language of files with this extension.
pub fn language(extension: &str) -> &'static str {
    extensions().find(|(known, _)| known.eq_ignore_ascii_case(extension)).map_or(TEXT, |(_, language)| language)
}

/// How files with this extension are read.
pub fn reader(extension: &str) -> Option<Reader> {
    let other = || OTHERS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(extension));
    syntax::grammar(extension).map(Reader::Code).or_else(|| other().map(|(_, _, reader)| *reader))
}

/// Longest part of a declaration's source that is embedded, in bytes. Twice as much ranks no better.
const MAX_CODE: usize = 2000;

/// Longest name, signature and summary that are kept, in bytes.
const MAX_NAME: usize = 400;
const MAX_SIGNATURE: usize = 400;
const MAX_SUMMARY: usize = 600;

/// Longest source that a signature is made of, in bytes: with white space that is folded.
const MAX_HEAD: usize = 4096;

/// How many nodes are looked at before somebody may stop it.
const NODES: usize = 4096;

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

/// What a node declares.
enum Declared<'tree, 'source> {
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
        /// Whether what is inside bears its name, too.
        holds: bool,
        /// Whether its body is elsewhere: then it is worth something only where it is described.
        elsewhere: bool,
    },
}

impl<'tree> Declared<'tree, '_> {
    /// Something with its body.
    fn of(kind: Kind, name: impl Into<String>, with_body: Node<'tree>) -> Self {
        let described = kind == Kind::Constant;
        Self::Something { kind, name: name.into(), with_body, holds: !described, elsewhere: described }
    }
}

/// Why a file has no outline.
#[derive(Debug, Clone, PartialEq)]
pub enum Unreadable {
    /// No declaration was found between syntax errors.
    Syntax,
    /// Parsing took too long.
    Slow,
    /// Nobody waits for it any more.
    Stopped(Error),
}

/// Nodes between a declaration and the comment above it that belong to the declaration.
const WRAPPERS: [&str; 16] = [
    "export_statement",
    "decorated_definition",
    "lexical_declaration",
    "variable_declaration",
    "expression_statement",
    "type_declaration",
    "const_declaration",
    "var_declaration",
    "ambient_declaration",
    "template_declaration",
    "linkage_specification",
    "friend_declaration",
    "declaration",
    "field_declaration",
    // Ruby's `private def f`.
    "call",
    "argument_list",
];

/// How many of them may be around each other.
const MAX_WRAPPERS: usize = 4;

/// Nodes of which one statement may hold several.
const SEVERAL: [&str; 5] = ["variable_declarator", "type_spec", "type_alias", "const_spec", "var_spec"];

/// Files that are called the same in every directory.
const NAMELESS: [&str; 6] = ["mod", "lib", "main", "index", "__init__", "package-info"];

/// The declarations of `source`, in their order; those that can be told apart between syntax errors. The file itself is
/// one, called by its `path`, if a comment describes it.
pub fn outline(source: &str, path: &str, reader: Reader, cancel: &Cancel) -> Result<Vec<Declaration>, Unreadable> {
    match reader {
        Reader::Code(grammar) => code(source, path, grammar, cancel),
        Reader::Scripts => {
            let (scripts, extension) = scripts::scripts(source);
            syntax::grammar(extension).map_or(Ok(Vec::new()), |grammar| code(&scripts, path, grammar, cancel))
        }
        Reader::Headings => Ok(headings::sections(source)),
        Reader::Passages => passages::passages(source, path, cancel).map_err(Unreadable::Stopped),
        Reader::Definitions => definitions::definitions(source, cancel).map_err(Unreadable::Stopped),
    }
}

fn code(source: &str, path: &str, grammar: &Grammar, cancel: &Cancel) -> Result<Vec<Declaration>, Unreadable> {
    let unreadable = |unparsed| match unparsed {
        Unparsed::Grammar => Unreadable::Syntax,
        Unparsed::Slow => Unreadable::Slow,
        Unparsed::Stopped(reason) => Unreadable::Stopped(reason),
    };
    let tree = parse(source, grammar, cancel).map_err(unreadable)?;
    let walk = |tree: &Tree| {
        let mut walk = Walk { source, grammar, found: Vec::new(), scopes: Vec::new(), about_file: Leading::default() };
        walk.collect(tree.root_node(), cancel).map_err(Unreadable::Stopped)?;
        Ok((walk.found, walk.about_file))
    };
    let (mut found, about_file) = walk(&tree)?;
    if let Some(tree) = mended(source, &tree, grammar, cancel).map_err(unreadable)? {
        let (rest, _) = walk(&tree)?;
        found = merged(rest, found);
    }
    if found.is_empty() && tree.root_node().has_error() {
        return Err(Unreadable::Syntax);
    }
    found.splice(0..0, file(source, path, grammar, tree.root_node(), &about_file));
    Ok(found)
}

/// What was found past errors, and what was found among them and not past them, in the order of lines.
fn merged(past: Vec<Declaration>, among: Vec<Declaration>) -> Vec<Declaration> {
    let mut names: HashMap<&str, Vec<usize>> = HashMap::new();
    past.iter().for_each(|found| names.entry(&found.name).or_default().push(found.lines.start));
    let lines: HashSet<usize> = past.iter().map(|found| found.lines.start).collect();
    // An error makes things begin too early, and end too late.
    let is_known = |found: &Declaration| {
        let starts = names.get(found.name.as_str()).map_or(&[][..], Vec::as_slice);
        let next = starts.get(starts.partition_point(|start| *start < found.lines.start));
        lines.contains(&found.lines.start) || next.is_some_and(|next| found.lines.contains(next))
    };
    let rest: Vec<_> = among.into_iter().filter(|found| !is_known(found)).collect();
    let mut all = past;
    all.extend(rest);
    all.sort_by_key(|found| found.lines.start);
    all.truncate(MAX_DECLARATIONS);
    all
}

/// The file itself, if something is written about it.
fn file(source: &str, path: &str, grammar: &Grammar, root: Node<'_>, about: &Leading) -> Option<Declaration> {
    let docstring = if grammar.docstrings { docstring(root) } else { None };
    let summary = match docstring {
        Some(node) => plain_comment(cut(source.get(node.byte_range())?, MAX_SUMMARY * 4), MAX_SUMMARY),
        None => about.summary(source, MAX_SUMMARY),
    };
    if summary.is_empty() {
        return None;
    }
    let mut parts = path.rsplit('/');
    let own = parts.next().unwrap_or(path);
    let nameless = own.split('.').next().is_some_and(|stem| NAMELESS.contains(&stem));
    let name = parts.next().filter(|_| nameless).map_or_else(|| own.to_owned(), |above| format!("{above}/{own}"));
    let signature = cut(&name, MAX_SIGNATURE).to_owned();
    let end = docstring.map_or(about.last_row(), |node| node.end_position().row) + 1;
    Some(Declaration {
        kind: Kind::File,
        name: signature.clone(),
        lines: 1..end,
        signature,
        summary,
        code: String::new(),
    })
}

/// A declaration that the walk is inside of.
struct Scope {
    depth: usize,
    /// Its name, after those around it.
    path: String,
    /// Whether a function right inside is a method.
    holds_methods: bool,
    /// Whether it is a function, or in one.
    in_function: bool,
}

/// Where the walk is: a node, and the comment before it.
struct Step<'tree> {
    node: Node<'tree>,
    leading: Option<Leading>,
    /// Whether more than one declaration is in it; looked for once, if anybody wants to know.
    several: Option<bool>,
}

struct Walk<'source> {
    source: &'source str,
    grammar: &'source Grammar,
    found: Vec<Declaration>,
    scopes: Vec<Scope>,
    /// What is written about the file.
    about_file: Leading,
}

impl<'source> Walk<'source> {
    /// Walks the tree without recursion: sources may be nested as deep as they like.
    fn collect(&mut self, root: Node<'_>, cancel: &Cancel) -> Result<(), Error> {
        let mut cursor = root.walk();
        // The steps from the root down to the current node's parent. `Node::parent` would search for it from the root.
        let mut above: Vec<Step<'_>> = Vec::new();
        // What the siblings so far leave for the next one.
        let mut leading: Option<Leading> = None;
        // The line on which the code so far ends.
        let mut code_row = None;
        let mut seen = 0;
        loop {
            seen += 1;
            if seen % NODES == 0 {
                cancel.check()?;
            }
            let node = cursor.node();
            let depth = above.len();
            while self.scopes.last().is_some_and(|scope| scope.depth >= depth) {
                self.scopes.pop();
            }
            let aside = leading::is_aside(node);
            let mut before = leading.take().filter(|leading| leading.belongs_to(node));
            if depth == 1 {
                let first = self.found.is_empty();
                self.about_file.add_about_file(node, before.as_ref(), self.source, first);
            }
            if aside {
                leading = Leading::extended(before.take(), node, code_row, self.source);
            }
            above.push(Step { node, leading: before, several: None });
            if !aside && let Some(scope) = self.enter(&mut above) {
                self.scopes.push(Scope { depth, ..scope });
            }
            if self.found.len() >= MAX_DECLARATIONS {
                return Ok(());
            }
            // What is inside comments and attributes declares nothing.
            if !aside && node.named_child_count() > 0 && cursor.goto_first_child() {
                if matches!(node.kind(), "block" | "body_statement") {
                    // In Python and Ruby, the comment before the first statement stands before the block.
                    leading = above.last_mut().and_then(|step| step.leading.take());
                }
                continue;
            }
            if !aside {
                code_row = Some(leading::last_row(node));
            }
            above.pop();
            while !cursor.goto_next_sibling() {
                if !cursor.goto_parent() {
                    return Ok(());
                }
                // A parent is no comment: nothing is left for what follows it.
                leading = None;
                above.pop();
            }
        }
    }

    fn text(&self, node: Node<'_>) -> &'source str {
        self.source.get(node.byte_range()).unwrap_or_default()
    }

    /// Adds what the last of `steps` declares, and tells what its children are inside of.
    fn enter(&mut self, steps: &mut [Step<'_>]) -> Option<Scope> {
        let (Step { node, .. }, above) = steps.split_last()?;
        let node = *node;
        let around = self.scopes.last();
        let in_function = around.is_some_and(|scope| scope.in_function);
        let parent = above.last().map(|step| step.node);
        let (kind, name, with_body, holds, elsewhere) = match declared(node, parent, self.source, self.grammar) {
            Declared::Nothing => return None,
            Declared::Scope { name, holds_methods } => {
                let path = path(around, &name.replace("::", "."));
                return Some(Scope { depth: 0, path, holds_methods, in_function });
            }
            Declared::Something { kind, name, with_body, holds, elsewhere } => {
                (kind, name, with_body, holds, elsewhere)
            }
        };
        let kind = match around {
            Some(scope) if kind == Kind::Function && scope.holds_methods => Kind::Method,
            _ => kind,
        };
        if elsewhere && in_function {
            return None;
        }
        let is_function = matches!(kind, Kind::Function | Kind::Method);
        let path = path(around, &name);
        let scope = Scope {
            depth: 0,
            path: path.clone(),
            holds_methods: !is_function,
            in_function: in_function || is_function,
        };

        let outer = outermost(steps);
        let outer_node = steps[outer].node;
        let lines = outer_node.start_position().row + 1..with_body.end_position().row + 1;
        // Little helpers inside a function are part of it.
        let little = lines.end - lines.start < 2 && in_function;
        if little || name.is_empty() || name.len() > MAX_NAME {
            return holds.then_some(scope);
        }
        let body = body(with_body);
        let slice = |range: Range<usize>| self.source.get(range).unwrap_or_default();
        let (start, end) = (outer_node.start_byte(), with_body.end_byte());
        let docstring =
            if self.grammar.docstrings { body.and_then(docstring).map(|node| self.text(node)) } else { None };
        let summary = match docstring {
            Some(text) => plain_comment(cut(text, MAX_SUMMARY * 4), MAX_SUMMARY),
            // The nearest of those above it and above the statement that it is.
            None => {
                steps[outer..].iter().rev().find_map(|step| step.leading.as_ref()).map_or_else(String::new, |leading| {
                    if kind == Kind::Constant && !leading.documents(self.source, self.grammar) {
                        return String::new();
                    }
                    leading.summary(self.source, MAX_SUMMARY)
                })
            }
        };
        // Constants, and declarations of what is written elsewhere, are many; those that somebody has described are looked for.
        if elsewhere && summary.is_empty() {
            return None;
        }
        let head = cut(slice(start..head_end(with_body, body, self.source)), MAX_HEAD);
        let signature = folded(without_lead_in(head), MAX_SIGNATURE);
        // Several in one statement: the word that declares them stands at the first one only.
        let signature = match declared::keyword(node) {
            Some(keyword) if !signature.starts_with(keyword) => format!("{keyword} {signature}"),
            _ => signature,
        };
        let code = cut(slice(start..end), MAX_CODE).to_owned();
        self.found.push(Declaration { kind, name: path, lines, signature, summary, code });
        holds.then_some(scope)
    }
}

/// Children that are looked at for a body which no field names.
const MAX_PARTS: usize = 32;

/// The body of a declaration.
fn body(node: Node<'_>) -> Option<Node<'_>> {
    let mut cursor = node.walk();
    let fields = ["body", "accessors", "computed_value"];
    fields.iter().find_map(|field| node.child_by_field_name(field)).or_else(|| {
        let is_body = |child: &Node<'_>| {
            child.kind().ends_with("_body") || matches!(child.kind(), "getter" | "computed_property")
        };
        node.named_children(&mut cursor).take(MAX_PARTS).find(is_body)
    })
}

/// A name after those around it, the innermost as far as there is room.
fn path(around: Option<&Scope>, name: &str) -> String {
    let name = cut(name, MAX_NAME + 1);
    let Some(around) = around.filter(|scope| !scope.path.is_empty()) else { return name.to_owned() };
    if name.is_empty() {
        return around.path.clone();
    }
    let room = MAX_NAME.saturating_sub(name.len() + 1);
    let mut above = around.path.as_str();
    while above.len() > room {
        match above.split_once('.') {
            Some((_, inner)) => above = inner,
            None => return name.to_owned(),
        }
    }
    format!("{above}.{name}")
}

/// Where the signature ends.
fn head_end(node: Node<'_>, body: Option<Node<'_>>, source: &str) -> usize {
    if let Some(go_type) = node.child_by_field_name("type").filter(|_| node.kind() == "type_spec") {
        let text = source.get(go_type.byte_range()).map(|text| cut(text, MAX_HEAD));
        let brace = text.and_then(|text| text.find('{'));
        return brace.map_or(node.end_byte(), |at| go_type.start_byte() + at);
    }
    match body {
        // In Python, a comment may stand between the colon and the body.
        Some(body) if body.kind() == "block" && node.kind().ends_with("_definition") => {
            let parts = ["name", "parameters", "superclasses", "return_type"];
            let ends = parts.iter().filter_map(|part| node.child_by_field_name(part)).map(|part| part.end_byte());
            ends.max().unwrap_or(body.start_byte())
        }
        // In Ruby, what is empty has no body, and a comment may stand before one.
        body if matches!(node.kind(), "method" | "singleton_method" | "class" | "module")
            && body.is_none_or(|body| body.kind() == "body_statement") =>
        {
            let parts = ["name", "parameters", "superclass"];
            let ends = parts.iter().filter_map(|part| node.child_by_field_name(part)).map(|part| part.end_byte());
            ends.max().unwrap_or(node.end_byte())
        }
        Some(body) => body.start_byte(),
        None => node.end_byte(),
    }
}

/// A declaration's source before its body, without what leads into the body.
fn without_lead_in(source: &str) -> &str {
    let head = source.trim_end();
    ["=>", "{", ":", "="].iter().find_map(|end| head.strip_suffix(end)).unwrap_or(head).trim_end()
}

/// The step that holds the whole statement, with `export`, decorators and the like.
fn outermost(steps: &mut [Step<'_>]) -> usize {
    let last = steps.len() - 1;
    let mut outer = last;
    while outer > 0 && last - outer < MAX_WRAPPERS && WRAPPERS.contains(&steps[outer - 1].node.kind()) {
        let step = &mut steps[outer - 1];
        let several = *step.several.get_or_insert_with(|| {
            let mut cursor = step.node.walk();
            let children = step.node.named_children(&mut cursor);
            let more = children.filter(|child| SEVERAL.contains(&child.kind())).take(2).count() > 1;
            more || step.node.child(1).is_some_and(|child| child.kind() == "(")
        });
        // A list of several declarations is the beginning of none of them.
        if several {
            break;
        }
        outer -= 1;
    }
    outer
}

/// The string at the beginning of a body.
fn docstring(body: Node<'_>) -> Option<Node<'_>> {
    let mut cursor = body.walk();
    let first = body.named_children(&mut cursor).find(|child| child.kind() != "comment")?;
    let string = if first.kind() == "expression_statement" { first.named_child(0)? } else { first };
    (string.kind() == "string").then_some(string)
}
