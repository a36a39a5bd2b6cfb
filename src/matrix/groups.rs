//! What says the same: duplicates of what came before, and groups around one row.

use std::ops::Range;

use rayon::prelude::*;

use super::exact::Query;
use super::nearest::{TILE, around, tiles};
use super::{Matrix, slack};
use crate::cancel::Cancel;
use crate::error::Result;

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
    let rows = matrix.unit(cancel)?;
    let least = threshold - slack(matrix.dimensions);
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
                let mut products = vec![0.0; TILE * TILE];
                let products = &mut products[..of.len() * with.len()];
                rows.products(of.clone(), &rows, with.clone(), products);
                let mut found = Vec::new();
                for (a, products) in of.clone().zip(products.chunks_exact(with.len())) {
                    let wanted = with.clone().zip(products).filter(|(b, product)| is_kept[*b] && **product >= least);
                    found.extend(wanted.map(|(b, _)| (a as u32, b as u32)));
                }
                Ok(found)
            })
            .collect::<Result<_>>()?;
        let mut candidates: Vec<Vec<u32>> = vec![Vec::new(); of.len()];
        near.into_iter().flatten().for_each(|(a, b)| candidates[a as usize - of.start].push(b));
        for at in of.clone() {
            cancel.check()?;
            let query = Query::new(matrix.row(at));
            let within = around(&rows, at, of.start..at, least).into_iter().filter(|other| is_kept[*other as usize]);
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
