//! Where the parts of a source begin: declarations and statements, with the comments above them, as deep as they lie.

use tree_sitter::{Node, TreeCursor};

use super::{Grammar, Unparsed, parse};
use crate::cancel::Cancel;

/// Parts within parts that are told apart.
const MOST_DEPTH: usize = 6;

/// How many nodes are looked at before somebody may stop it.
const NODES: usize = 4096;

/// Longest name, in bytes.
const MAX_NAME: usize = 400;

/// A part that begins a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its first byte: that of its line, or of the comment above.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// How many parts it lies in.
    pub depth: usize,
    /// Its name, if it declares something.
    pub name: Option<String>,
}

/// The parts of `source`, in order.
pub fn sections(source: &str, grammar: &Grammar, cancel: &Cancel) -> Result<Vec<Section>, Unparsed> {
    let tree = parse(source, grammar, cancel)?;
    let mut walk = Walk { source, grammar, found: Vec::new(), seen: 0 };
    walk.children(&mut tree.walk(), cancel).map_err(Unparsed::Stopped)?;
    Ok(walk.found)
}

struct Walk<'a> {
    source: &'a str,
    grammar: &'a Grammar,
    found: Vec<Section>,
    seen: usize,
}

/// Where the walk is among the children of a node.
#[derive(Default)]
struct Level {
    /// How many parts are around.
    depth: usize,
    /// Where the node begins whose children they are.
    from: usize,
    /// Where the comments begin that end on the line above, and on which line they end.
    above: Option<(usize, usize)>,
}

impl Walk<'_> {
    /// Without recursion: sources may be nested as deep as they like.
    fn children(&mut self, cursor: &mut TreeCursor<'_>, cancel: &Cancel) -> Result<(), crate::error::Error> {
        if !cursor.goto_first_child() {
            return Ok(());
        }
        let mut levels = vec![Level { from: usize::MAX, ..Level::default() }];
        loop {
            self.seen += 1;
            if self.seen.is_multiple_of(NODES) {
                cancel.check()?;
            }
            let node = cursor.node();
            let Some(level) = levels.last_mut() else { return Ok(()) };
            let inside = self.look(node, level);
            if let Some(depth) = inside
                && cursor.goto_first_child()
            {
                levels.push(Level { depth, from: node.start_byte(), above: None });
                continue;
            }
            while !cursor.goto_next_sibling() {
                levels.pop();
                if levels.is_empty() || !cursor.goto_parent() {
                    return Ok(());
                }
            }
        }
    }

    /// Notes a node that begins a line. How deep the parts in it lie, if they are looked at.
    fn look(&mut self, node: Node<'_>, level: &mut Level) -> Option<usize> {
        let (start, end) = (node.start_position(), node.end_position());
        let line = node.start_byte() - start.column.min(node.start_byte());
        let begins = self.source.get(line..node.start_byte()).is_some_and(|before| before.trim().is_empty());
        let is_above = node.kind().contains("comment") || matches!(node.kind(), "attribute_item" | "decorator");
        let above = level.above.take().filter(|(_, row)| start.row <= row + 1);
        let mut depth = level.depth;
        // What begins with the node around it is no part of its own.
        if node.is_named() && begins && node.start_byte() != level.from {
            let start = above.map_or(line, |(start, _)| start);
            if is_above {
                // What a line comment holds ends on the next line in some grammars.
                let last = if end.column == 0 { end.row.saturating_sub(1) } else { end.row };
                level.above = Some((start, last));
            }
            // A comment that belongs to what comes is that part's.
            if above.is_none() || !is_above {
                let (end, name) = (node.end_byte(), self.name(node));
                match self.found.last_mut() {
                    Some(last) if last.start == start => {
                        last.end = end;
                        last.name = last.name.take().or(name);
                    }
                    _ => self.found.push(Section { start, end, depth, name }),
                }
            }
            depth += 1;
        }
        (end.row > start.row && depth < MOST_DEPTH && !is_above).then_some(depth)
    }

    fn name(&self, node: Node<'_>) -> Option<String> {
        let declares = |node: Node<'_>| self.grammar.declares.iter().any(|(kind, _)| *kind == node.kind());
        let inner = ["declaration", "definition"].iter().find_map(|field| node.child_by_field_name(field));
        let declared = if declares(node) { Some(node) } else { inner.filter(|inner| declares(*inner)) }?;
        let name = self.source.get(declared.child_by_field_name("name")?.byte_range())?;
        (name.len() <= MAX_NAME).then(|| name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::grammar;
    use super::*;

    fn found(source: &str, extension: &str) -> Vec<(String, usize, Option<String>)> {
        let found = sections(source, grammar(extension).unwrap(), &Cancel::default()).unwrap();
        let line = |section: &Section| source[section.start..].lines().next().unwrap().trim().to_owned();
        found.iter().map(|section| (line(section), section.depth, section.name.clone())).collect()
    }

    #[test]
    fn parts_begin_with_the_comments_above_them() {
        let source = "import a from 'a';\n\n// About f.\n// More.\nexport function f() {\n  const x = 1;\n  return x;\n}\n\nclass C {\n  /** m */\n  m() {\n    return 2;\n  }\n}\n";
        let name = |name: &str| Some(name.to_owned());
        let expected = [
            ("import a from 'a';", 0, None),
            ("// About f.", 0, name("f")),
            ("const x = 1;", 1, None),
            ("return x;", 1, None),
            ("class C {", 0, name("C")),
            ("/** m */", 1, name("m")),
            ("return 2;", 2, None),
        ];
        assert_eq!(found(source, "ts"), expected.map(|(line, depth, name)| (line.to_owned(), depth, name)));
    }

    #[test]
    fn attributes_belong_to_what_they_are_about() {
        let source = "/// S.\n#[derive(Debug)]\nstruct S;\n\n#[test]\nfn t() {}\n";
        let lines: Vec<String> = found(source, "rs").into_iter().map(|(line, ..)| line).collect();
        assert_eq!(lines, ["/// S.", "#[test]"]);
    }
}
