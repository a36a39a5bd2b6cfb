//! What is like what: the declarations nearest to one of them, and those that repeat each other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;

use super::scan::Block;
use super::store::{Described, Store};
use super::{CodeIndex, Entry, Filter, MAX_LIMIT, Match, Staleness, language_of};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::host::threads::{blocking, in_parallel};
use crate::matrix::{Matrix, dedupe, exact};

/// What is compared where nobody says which kinds.
const COMPARED: [&str; 4] = ["function", "method", "class", "type"];

/// What [`CodeIndex::duplicates`] looks for.
#[derive(Debug, Clone)]
pub struct DuplicateOptions {
    /// Least cosine of a declaration and the one that it repeats.
    pub threshold: f32,
    /// Lines that a declaration has at least.
    pub min_lines: usize,
    /// Most groups.
    pub limit: usize,
    /// Which declarations are compared; its score counts for nothing.
    pub filter: Filter,
}

/// Declarations that repeat the first of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Duplicates {
    /// Lines of all but the first.
    pub lines: usize,
    /// The one that is repeated, and what repeats it, the nearest first. Scores are those of being like the first.
    pub declarations: Vec<Match>,
}

impl CodeIndex {
    /// The `limit` declarations that are most like the innermost one at `line` of `file`, best first. Left out are itself, what it is
    /// in, and what is in it. Needs no model.
    pub async fn similar(
        self: Arc<Self>,
        file: String,
        line: usize,
        limit: usize,
        filter: Filter,
    ) -> Result<Vec<Match>> {
        check_limit(limit)?;
        filter.check()?;
        blocking(move || {
            let blocks = self.load()?;
            self.consistently(blocks, |blocks| {
                let Some(like) = self.with_loaded(|loaded| Like::at(&loaded.store, blocks, &file, line))? else {
                    // It may be there by now.
                    return if self.with_loaded(|loaded| Ok(self.is_that_of(loaded, blocks)))? {
                        Err(Error::InvalidArgument(format!(
                            "There is no declaration at line {line} of {file} in the index"
                        )))
                    } else {
                        Ok((Vec::new(), false))
                    };
                };
                self.answer(blocks, &like.vector, None, limit, &filter, |file, ordinal| !like.holds(file, ordinal))
            })
        })
        .await?
    }

    /// Groups of declarations that repeat each other, those with the most lines to spare first. A declaration is compared with those
    /// of its own kind; functions and methods are one. Needs no model.
    pub async fn duplicates(self: Arc<Self>, options: DuplicateOptions, cancel: Cancel) -> Result<Vec<Duplicates>> {
        check_limit(options.limit)?;
        options.filter.check()?;
        blocking(move || {
            let store = self.open_existing()?;
            let blocks = self.load()?;
            let (files, families) = compared(&store, &blocks, &options, &cancel)?;
            let mut groups = Vec::new();
            for family in families.values() {
                groups.extend(family.groups(&files, options.threshold, &cancel)?);
            }
            let first = |group: &Duplicates| {
                group.declarations.first().map(|first| (first.file.clone(), first.entry.line)).unwrap_or_default()
            };
            groups.sort_by_cached_key(|group| (std::cmp::Reverse(group.lines), first(group)));
            groups.truncate(options.limit);
            let hashes: HashMap<&str, [u8; 32]> = files.iter().map(|file| (file.path.as_str(), file.hash)).collect();
            let mut stale = Staleness::of(&self.root);
            for found in groups.iter_mut().flat_map(|group| &mut group.declarations) {
                cancel.check()?;
                found.stale = hashes.get(found.file.as_str()).is_none_or(|hash| stale.has(&found.file, *hash));
            }
            Ok(groups)
        })
        .await?
    }
}

fn check_limit(limit: usize) -> Result<()> {
    if (1..=MAX_LIMIT).contains(&limit) {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!("limit is {limit}, not a whole number from 1 to {MAX_LIMIT}")))
}

/// The declaration that others are to be like.
struct Like {
    /// Its file's id.
    file: i64,
    vector: Vec<f32>,
    /// Which of the file's declarations are it, around it, or in it.
    own: Vec<bool>,
}

impl Like {
    /// Nothing where there is none at this line, or where the file was replaced since its block was read.
    fn at(store: &Store, blocks: &[Block], path: &str, line: usize) -> Result<Option<Self>> {
        let Some((file, described)) = store.at(path)? else { return Ok(None) };
        let there =
            described.entries.iter().enumerate().filter(|(_, entry)| (entry.line..=entry.end_line).contains(&line));
        let Some((ordinal, of)) = there.min_by_key(|(_, entry)| entry.end_line - entry.line) else { return Ok(None) };
        let vector = blocks.iter().find(|block| block.file == file.0 && block.described == file.1).and_then(|block| {
            let dimensions = block.vectors.len() / described.entries.len();
            let stored = block.vectors.get(ordinal * dimensions..(ordinal + 1) * dimensions)?;
            let mut vector = vec![0.0; dimensions];
            stored.convert_to_f32_slice(&mut vector);
            Some(vector)
        });
        let own = described.entries.iter().map(|entry| overlap(entry, of)).collect();
        Ok(vector.map(|vector| Self { file: file.0, vector, own }))
    }

    fn holds(&self, file: i64, ordinal: usize) -> bool {
        file == self.file && self.own.get(ordinal).is_some_and(|own| *own)
    }
}

/// Whether two declarations of one file share lines.
fn overlap(a: &Entry, b: &Entry) -> bool {
    a.line <= b.end_line && b.line <= a.end_line
}

/// Declarations that are compared with each other.
#[derive(Default)]
struct Family {
    /// Their vectors, one after the other.
    vectors: Vec<f32>,
    /// The file of each, and its place in it.
    places: Vec<(usize, usize)>,
    /// Where the vector of the first one of each content begins.
    firsts: HashMap<u64, usize>,
}

/// What is shown of each file, and what is compared, by what sort it is of.
fn compared(
    store: &Store,
    blocks: &[Block],
    options: &DuplicateOptions,
    cancel: &Cancel,
) -> Result<(Vec<Described>, BTreeMap<String, Family>)> {
    let DuplicateOptions { filter, min_lines, .. } = options;
    let admits = filter.admission();
    let is_compared = |kind: &str| if filter.by_kind() { filter.admits(kind) } else { COMPARED.contains(&kind) };
    let (mut files, mut families) = (Vec::new(), BTreeMap::<String, Family>::new());
    for block in blocks {
        cancel.check()?;
        // Replaced meanwhile: what it is now is looked at the next time.
        let Some(described) = store.describe(block.file, block.described)? else { continue };
        if !admits(&described.path) {
            continue;
        }
        let rows = block.vectors.chunks_exact((block.vectors.len() / described.entries.len().max(1)).max(1));
        for (ordinal, (entry, row)) in described.entries.iter().zip(rows).enumerate() {
            if !is_compared(&entry.kind) || entry.end_line + 1 - entry.line < *min_lines {
                continue;
            }
            let sort = if entry.kind == "method" { "function" } else { &entry.kind };
            let family = families.entry(sort.to_owned()).or_default();
            let from = family.vectors.len();
            // A copy is one, whatever it belongs to: its own vector tells of that, too.
            let first =
                block.contents.get(ordinal).map_or(from, |content| *family.firsts.entry(*content).or_insert(from));
            family.vectors.resize(from + row.len(), 0.0);
            if first + row.len() <= from {
                family.vectors.copy_within(first..first + row.len(), from);
            } else {
                row.convert_to_f32_slice(&mut family.vectors[from..]);
            }
            family.places.push((files.len(), ordinal));
        }
        files.push(described);
    }
    Ok((files, families))
}

impl Family {
    fn groups(&self, files: &[Described], threshold: f32, cancel: &Cancel) -> Result<Vec<Duplicates>> {
        let dimensions = self.vectors.len() / self.places.len().max(1);
        let entry = |at: usize| {
            let (file, ordinal) = self.places[at];
            (&files[file].path, &files[file].entries[ordinal])
        };
        let (matrix, found) = in_parallel(|| {
            let matrix = Matrix::new("the index", &self.vectors, dimensions)?;
            Ok((matrix, dedupe(&matrix, threshold, cancel)?))
        })??;
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, of) in found.duplicate_of.iter().enumerate() {
            let Some(of) = of.map(|of| of as usize) else { continue };
            let ((path, one), (other_path, other)) = (entry(at), entry(of));
            // What is in what it repeats is no repetition.
            if path != other_path || !overlap(one, other) {
                members.entry(of).or_default().push(at);
            }
        }
        let shown = |at: usize, similarity: f32| {
            let (path, entry) = entry(at);
            let score = similarity.clamp(0.0, 1.0);
            Match {
                file: path.clone(),
                language: language_of(path),
                entry: entry.clone(),
                score,
                similarity,
                stale: false,
            }
        };
        let groups = members.into_iter().map(|(of, others)| {
            let query = exact::Query::new(matrix.row(of));
            let mut declarations = vec![shown(of, 1.0)];
            declarations.extend(others.iter().map(|&at| shown(at, query.cosine(matrix.row(at)).unwrap_or(0.0))));
            declarations[1..].sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
            let lines = declarations[1..].iter().map(|found| found.entry.end_line + 1 - found.entry.line).sum();
            Duplicates { lines, declarations }
        });
        Ok(groups.collect())
    }
}
