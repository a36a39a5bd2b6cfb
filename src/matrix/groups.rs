//! What says the same: duplicates of what came before, and groups around one row.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::exact::Query;
use super::nearest::{TILE, around, tiles};
use super::rows::Rows;
use super::{Matrix, slack};
use crate::cancel::Cancel;
use crate::error::Result;

/// Of the pairs of two tiles, the share that is multiplied pair by pair: more of them are faster multiplied all together.
const MANY: usize = 16;

/// Pairs of tiles after which it shows whether looking at heads pays.
const FIRST: usize = 64;

/// Rows of which each is unlike the others, and what the rest repeats.
#[derive(Debug, Clone, PartialEq)]
pub struct Deduplicated {
    /// The rows that are kept, in order.
    pub keep: Vec<u32>,
    /// For each row the kept one that it repeats; `None` where it is kept.
    pub duplicate_of: Vec<Option<u32>>,
}

/// Leader clustering: a row is kept unless its cosine with one that is kept already is at least `threshold`; then it repeats the
/// nearest of those. What repeats is compared with no other row: duplicates form no chains.
pub fn dedupe(matrix: &Matrix, threshold: f32, cancel: &Cancel) -> Result<Deduplicated> {
    let pairs = Pairs::of(matrix, threshold, cancel)?;
    let (rows, least) = (&pairs.rows, pairs.least);
    let mut keep: Vec<u32> = Vec::new();
    let mut duplicate_of: Vec<Option<u32>> = vec![None; matrix.count()];
    let mut is_kept = vec![false; matrix.count()];
    for of in tiles(0..matrix.count()) {
        // Those before this tile are decided on: they are looked at in parallel.
        let before = tiles(0..of.start);
        let near: Vec<Vec<(u32, u32)>> = before
            .into_par_iter()
            .map(|with| {
                cancel.check()?;
                let mut found = pairs.near(of.clone(), with);
                found.retain(|(_, b)| is_kept[*b as usize]);
                Ok(found)
            })
            .collect::<Result<_>>()?;
        let mut candidates: Vec<Vec<u32>> = vec![Vec::new(); of.len()];
        near.into_iter().flatten().for_each(|(a, b)| candidates[a as usize - of.start].push(b));
        for at in of.clone() {
            cancel.check()?;
            let query = Query::new(matrix.row(at));
            let within = around(rows, at, of.start..at, least).into_iter().filter(|other| is_kept[*other as usize]);
            let scored = candidates[at - of.start].iter().copied().chain(within).filter_map(|leader| {
                let score = query.cosine(matrix.row(leader as usize)).unwrap_or(0.0);
                (score >= threshold).then_some((score, leader))
            });
            // Of equally near ones, the first.
            let nearest = scored.reduce(|best, one| if one.0 > best.0 { one } else { best });
            duplicate_of[at] = nearest.map(|(_, leader)| leader);
            if nearest.is_none() {
                keep.push(at as u32);
                is_kept[at] = true;
            }
        }
    }
    Ok(Deduplicated { keep, duplicate_of })
}

/// The rows of a matrix, of which pairs are looked for that have a product of at least `least`.
struct Pairs {
    rows: Rows,
    /// As [`Rows::heads`].
    heads: Rows,
    lengths: Vec<f32>,
    least: f32,
    /// How far a sum of two products may be from the exact one.
    slack: f32,
    /// Pairs of tiles that were looked at by their heads, and those of them that had to be multiplied as a whole.
    looked: AtomicUsize,
    whole: AtomicUsize,
}

impl Pairs {
    fn of(matrix: &Matrix, threshold: f32, cancel: &Cancel) -> Result<Self> {
        let rows = matrix.unit(cancel)?;
        let (heads, lengths) = rows.heads();
        let slack = slack(matrix.dimensions);
        let (looked, whole) = Default::default();
        Ok(Self { rows, heads, lengths, least: threshold - slack, slack, looked, whole })
    }

    /// Those of the rows `of` and `with`, a tile of each. Nearly all are ruled out by a quarter of their values: of a thousand pairs of
    /// functions one has to be multiplied as a whole to find those with 0.9, of ten thousand one for 0.95.
    fn near(&self, of: Range<usize>, with: Range<usize>) -> Vec<(u32, u32)> {
        let mut products = vec![0.0; of.len() * with.len()];
        let looked = self.looked.fetch_add(1, Ordering::Relaxed);
        if looked < FIRST || 2 * self.whole.load(Ordering::Relaxed) < looked {
            let mut open = self.open(of.clone(), with.clone(), &mut products);
            if open.len() < products.len() / MANY {
                open.retain(|(a, b)| {
                    let (a, b, mut product) = (*a as usize, *b as usize, [0.0]);
                    self.rows.products(a..a + 1, &self.rows, b..b + 1, &mut product);
                    product[0] >= self.least
                });
                return open;
            }
        }
        self.whole.fetch_add(1, Ordering::Relaxed);
        self.rows.products(of.clone(), &self.rows, with.clone(), &mut products);
        let rows = of.zip(products.chunks_exact(with.len()));
        let mut near = Vec::new();
        for (a, products) in rows {
            let found = with.clone().zip(products).filter(|(_, product)| **product >= self.least);
            near.extend(found.map(|(b, _)| (a as u32, b as u32)));
        }
        near
    }

    /// The pairs of a tile that their heads do not rule out.
    fn open(&self, of: Range<usize>, with: Range<usize>, products: &mut [f32]) -> Vec<(u32, u32)> {
        self.heads.products(of.clone(), &self.heads, with.clone(), products);
        let least = self.least - self.slack;
        let lengths = &self.lengths[with.clone()];
        let mut open = Vec::new();
        for (a, products) in of.zip(products.chunks_exact(with.len())) {
            let length = self.lengths[a];
            let may_be = |product: &f32, other: &f32| product + length * other >= least;
            // All are compared, which takes as long as a few.
            if products.iter().zip(lengths).fold(false, |any, (product, other)| any | may_be(product, other)) {
                let these = with.clone().zip(products.iter().zip(lengths));
                let these = these.filter(|(_, (product, other))| may_be(product, other));
                open.extend(these.map(|(b, _)| (a as u32, b as u32)));
            }
        }
        open
    }
}

/// Groups of at least `min_size` rows, each within `threshold` of the row in its middle, which comes first; then the others, the
/// nearest first. No row is in two groups. The largest groups come first: middles are taken by how many rows they have around
/// them.
pub fn communities(matrix: &Matrix, threshold: f32, min_size: usize, cancel: &Cancel) -> Result<Vec<Vec<u32>>> {
    let rows = matrix.unit(cancel)?;
    let least = threshold - slack(matrix.dimensions);
    let exact = |of: usize, found: Vec<u32>| {
        let query = Query::new(matrix.row(of));
        let scored = found.into_iter().map(|at| (query.cosine(matrix.row(at as usize)).unwrap_or(0.0), at));
        scored.filter(|(score, at)| *score >= threshold || *at as usize == of).collect::<Vec<(f32, u32)>>()
    };
    let count_some = |of: Range<usize>| {
        let mut products = vec![0.0; TILE * TILE];
        let mut counts = vec![0usize; of.len()];
        for with in tiles(0..rows.count()) {
            cancel.check()?;
            let products = &mut products[..of.len() * with.len()];
            rows.products(of.clone(), &rows, with.clone(), products);
            for (count, products) in counts.iter_mut().zip(products.chunks_exact(with.len())) {
                *count += products.iter().filter(|product| **product >= least).count();
            }
        }
        Ok(counts)
    };
    let counts = tiles(0..rows.count()).into_par_iter().map(count_some).collect::<Result<Vec<_>>>()?.concat();
    let mut middles: Vec<usize> = (0..rows.count()).filter(|at| counts[*at] >= min_size.max(1)).collect();
    middles.sort_by(|a, b| counts[*b].cmp(&counts[*a]).then(a.cmp(b)));
    let mut taken = vec![false; rows.count()];
    let mut found = Vec::new();
    for of in middles {
        cancel.check()?;
        if taken[of] {
            continue;
        }
        let parts = tiles(0..rows.count()).into_par_iter().map(|with| around(&rows, of, with, least));
        let near: Vec<u32> = parts.collect::<Vec<_>>().concat();
        let mut members = exact(of, near.into_iter().filter(|at| !taken[*at as usize]).collect());
        if members.len() < min_size {
            continue;
        }
        let first = |at: u32| at as usize != of;
        members.sort_unstable_by(|a, b| first(a.1).cmp(&first(b.1)).then(b.0.total_cmp(&a.0)).then(a.1.cmp(&b.1)));
        members.iter().for_each(|(_, at)| taken[*at as usize] = true);
        found.push(members.into_iter().map(|(_, at)| at).collect::<Vec<u32>>());
    }
    found.sort_by_key(|members: &Vec<u32>| std::cmp::Reverse(members.len()));
    Ok(found)
}
