//! Comments, and what they belong to.

use std::ops::Range;

use tree_sitter::Node;

use super::prose::{cut, is_about_file, plain_comment};
use crate::syntax::Grammar;

/// Longest comment that is looked at, in bytes.
const MAX_COMMENT: usize = 4096;

/// Nodes that may stand between a declaration and its comment.
const ATTRIBUTES: [&str; 3] = ["attribute_item", "decorator", "inner_attribute_item"];

/// Nodes that say what a whole file belongs to: a comment above them is about the file.
const FILE_CLAUSES: [&str; 2] = ["package_clause", "package_declaration"];

/// The comment right before a node, as the walk has seen it.
#[derive(Debug, Default)]
pub struct Leading {
    /// Its parts: comments, and the texts of attributes that document.
    parts: Vec<Range<usize>>,
    length: usize,
    /// Whether one of them is an attribute.
    attribute: bool,
    /// The last line of it, or of the attributes that follow it.
    last_row: usize,
    /// Whether other code is before it on its line: then it belongs to what follows on that line, or to that code.
    behind_code: bool,
}

/// Whether a node is a comment or an attribute: it declares nothing, whatever is in it.
pub fn is_aside(node: Node<'_>) -> bool {
    node.kind().contains("comment") || ATTRIBUTES.contains(&node.kind())
}

/// The line on which a node ends. Some grammars count the line break.
pub fn last_row(node: Node<'_>) -> usize {
    let end = node.end_position();
    if end.column == 0 { end.row.saturating_sub(1).max(node.start_position().row) } else { end.row }
}

impl Leading {
    /// Whether nothing is between it and what follows it.
    pub fn belongs_to(&self, next: Node<'_>) -> bool {
        next.start_position().row <= self.last_row + usize::from(!self.behind_code)
    }

    /// What is before the next sibling of `node`, a comment or attribute, after what was before `node`.
    pub fn extended(before: Option<Self>, node: Node<'_>, code_row: Option<usize>, source: &str) -> Option<Self> {
        let inner = ["//!", "/*!"].iter().any(|inner| source[node.start_byte()..].starts_with(inner));
        if node.kind() == "inner_attribute_item" || (inner && node.kind() != "comment") {
            // It belongs to what is around it.
            return None;
        }
        let attribute = ATTRIBUTES.contains(&node.kind());
        let part = if attribute { document(node, source) } else { Some(node.byte_range()) };
        if part.is_none() && before.is_none() {
            return None;
        }
        let behind_code =
            before.as_ref().map_or(code_row == Some(node.start_position().row), |before| before.behind_code);
        let mut extended = Self { behind_code, ..before.unwrap_or_default() };
        extended.attribute |= attribute && part.is_some();
        extended.push(part, node);
        Some(extended)
    }

    fn push(&mut self, part: Option<Range<usize>>, node: Node<'_>) {
        self.last_row = last_row(node);
        if let Some(part) = part.filter(|_| self.length < MAX_COMMENT) {
            self.length += part.len();
            self.parts.push(part);
        }
    }

    /// Takes what a node at the top of a file says about the file; `first` if nothing was declared before it.
    pub fn add_about_file(&mut self, node: Node<'_>, before: Option<&Self>, source: &str, first: bool) {
        let text = source.get(node.byte_range()).unwrap_or_default();
        match node.kind() {
            "inner_attribute_item" => {
                if let part @ Some(_) = document(node, source) {
                    self.push(part, node);
                }
            }
            "line_comment" | "block_comment" if text.starts_with("//!") || text.starts_with("/*!") => {
                self.push(Some(node.byte_range()), node);
            }
            "comment" if first && self.parts.is_empty() && text.starts_with("/**") => {
                let tagged = cut(text, MAX_COMMENT).lines().any(|line| {
                    let line = line.trim_start().trim_start_matches(['/', '*', ' ']);
                    is_about_file(line)
                });
                if tagged {
                    self.push(Some(node.byte_range()), node);
                }
            }
            kind if FILE_CLAUSES.contains(&kind) => {
                if let Some(before) = before {
                    self.parts.clone_from(&before.parts);
                    self.last_row = before.last_row;
                }
            }
            _ => {}
        }
    }

    /// Whether it is what the language calls documentation, if it tells that from other comments.
    pub fn documents(&self, source: &str, grammar: &Grammar) -> bool {
        let marks = grammar.documents;
        let is = |part: &Range<usize>| marks.iter().any(|mark| source[part.start..].starts_with(mark));
        marks.is_empty() || self.attribute || self.parts.iter().any(is)
    }

    /// Its words.
    pub fn summary(&self, source: &str, limit: usize) -> String {
        let parts = self.parts.iter().filter_map(|part| source.get(part.clone()));
        let text: Vec<&str> = parts.map(|part| cut(part, MAX_COMMENT)).collect();
        plain_comment(cut(&text.join("\n"), MAX_COMMENT), limit)
    }

    /// The last line of it.
    pub fn last_row(&self) -> usize {
        self.last_row
    }
}

/// Where the text is in Rust's `#[doc = "text"]`; nothing in another attribute.
fn document(node: Node<'_>, source: &str) -> Option<Range<usize>> {
    let attribute = node.named_child(0).filter(|attribute| attribute.kind() == "attribute")?;
    let name = attribute.named_child(0)?;
    let value = attribute.child_by_field_name("value")?;
    if source.get(name.byte_range())? != "doc" || !value.kind().ends_with("string_literal") {
        return None;
    }
    let text = source.get(value.byte_range())?;
    let start = value.start_byte() + text.find('"')? + 1;
    let end = value.start_byte() + text.rfind('"')?;
    (start <= end).then_some(start..end)
}
