//! Which rows are near: to one vector, to each of many, and to each other.

use std::ops::Range;

use rayon::prelude::*;

use super::exact::Query;
use super::rows::Rows;
use super::{Matrix, slack};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Rows of either side that are multiplied by one call of the kernel: their values fit a core's cache.
pub(super) const TILE: usize = 64;

/// Most pairs of one answer: some hundred megabytes.
const MOST_PAIRS: usize = 1 << 24;

/// The nearest rows of each of many queries.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// How many places each query has.
    pub places: usize,
    /// The row of each place, the nearest first; `None` where there is none.
    pub found: Vec<Option<(u32, f32)>>,
}

/// Two rows that are near, the first one before the second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The first one.
    pub a: u32,
    /// The second one.
    pub b: u32,
    /// Their cosine.
    pub score: f32,
}

/// The cosine of a vector and each row; 0 where one of the two has no direction.
pub fn similarities(query: &[f32], matrix: &Matrix, cancel: &Cancel) -> Result<Vec<f32>> {
    let query = Query::new(query);
    let some = |rows: Range<usize>| {
        cancel.check()?;
        Ok(rows.map(|at| query.cosine(matrix.row(at)).unwrap_or(0.0)).collect::<Vec<f32>>())
    };
    let parts = tiles(0..matrix.count()).into_par_iter().map(some).collect::<Result<Vec<_>>>()?;
    Ok(parts.concat())
}

/// For each query, the `k` rows with the highest cosine of at least `threshold`; of equal ones, those that come first.
pub fn top_k(queries: &Matrix, matrix: &Matrix, k: usize, threshold: f32, cancel: &Cancel) -> Result<Ranked> {
    let places = k.min(matrix.count());
    // What is found, in pieces and as a whole.
    Error::require_memory(
        "the rows that are found",
        queries.count().saturating_mul(places),
        2 * size_of::<Option<(u32, f32)>>(),
    )?;
    let (asked, rows) = (queries.unit(cancel)?, matrix.unit(cancel)?);
    let slack = slack(matrix.dimensions);
    let some = |of: Range<usize>| {
        let mut best: Vec<Best> = of.clone().map(|_| Best::new(places, threshold - slack, slack)).collect();
        let mut products = vec![0.0; TILE * TILE];
        for with in tiles(0..rows.count()) {
            cancel.check()?;
            let products = &mut products[..of.len() * with.len()];
            asked.products(of.clone(), &rows, with.clone(), products);
            for (best, products) in best.iter_mut().zip(products.chunks_exact(with.len())) {
                best.show(with.start, products);
            }
        }
        let mut found = Vec::with_capacity(of.len() * places);
        for (best, at) in best.into_iter().zip(of) {
            let query = Query::new(queries.row(at));
            let exact = best.rows().map(|row| (row, query.cosine(matrix.row(row as usize)).unwrap_or(0.0)));
            let mut exact: Vec<(u32, f32)> = exact.filter(|(_, score)| *score >= threshold).collect();
            exact.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let next = found.len() + places;
            found.extend(exact.into_iter().take(places).map(Some));
            found.resize(next, None);
        }
        Ok(found)
    };
    let found = tiles(0..asked.count()).into_par_iter().map(some).collect::<Result<Vec<_>>>()?.concat();
    Ok(Ranked { places, found })
}

/// All pairs of rows with a cosine of at least `threshold`, the nearest first.
///
/// # Errors
/// [`Error::InvalidArgument`] where there are too many.
pub fn pairs(matrix: &Matrix, threshold: f32, cancel: &Cancel) -> Result<Vec<Pair>> {
    let rows = matrix.unit(cancel)?;
    let least = threshold - slack(matrix.dimensions);
    let total = std::sync::atomic::AtomicUsize::new(0);
    let some = |of: Range<usize>| {
        let mut found = Vec::new();
        let mut products = vec![0.0; TILE * TILE];
        let queries: Vec<Query> = of.clone().map(|at| Query::new(matrix.row(at))).collect();
        for with in tiles(of.start..rows.count()) {
            cancel.check()?;
            let products = &mut products[..of.len() * with.len()];
            rows.products(of.clone(), &rows, with.clone(), products);
            let before = found.len();
            for (a, products) in of.clone().zip(products.chunks_exact(with.len())) {
                for (b, product) in with.clone().zip(products) {
                    if b <= a || *product < least {
                        continue;
                    }
                    let score = queries[a - of.start].cosine(matrix.row(b)).unwrap_or(0.0);
                    if score >= threshold {
                        found.push(Pair { a: a as u32, b: b as u32, score });
                    }
                }
            }
            let new = found.len() - before;
            if total.fetch_add(new, std::sync::atomic::Ordering::Relaxed) + new > MOST_PAIRS {
                return Err(Error::InvalidArgument(format!(
                    "More than {MOST_PAIRS} pairs have a cosine of at least {threshold}: raise the threshold"
                )));
            }
        }
        Ok(found)
    };
    let mut found = tiles(0..rows.count()).into_par_iter().map(some).collect::<Result<Vec<_>>>()?.concat();
    found.par_sort_unstable_by(|x, y| y.score.total_cmp(&x.score).then((x.a, x.b).cmp(&(y.a, y.b))));
    Ok(found)
}

/// A range in pieces of [`TILE`].
pub(super) fn tiles(range: Range<usize>) -> Vec<Range<usize>> {
    range.clone().step_by(TILE).map(|at| at..(at + TILE).min(range.end)).collect()
}

/// Rows that may be among the best of one query.
struct Best {
    places: usize,
    slack: f32,
    /// What is worth a look.
    least: f32,
    found: Vec<(f32, u32)>,
}

impl Best {
    fn new(places: usize, least: f32, slack: f32) -> Self {
        Self { places, slack, least, found: Vec::new() }
    }

    fn show(&mut self, first: usize, products: &[f32]) {
        for (at, product) in products.iter().enumerate() {
            if *product >= self.least {
                self.found.push((*product, (first + at) as u32));
            }
        }
        if self.found.len() > 4 * self.places + TILE {
            self.settle();
        }
    }

    /// Lets go of what is farther than the last place by more than both may be wrong.
    fn settle(&mut self) {
        if self.places == 0 || self.found.len() <= self.places {
            return;
        }
        let (_, last, _) = self.found.select_nth_unstable_by(self.places - 1, |a, b| b.0.total_cmp(&a.0));
        self.least = self.least.max(last.0 - 2.0 * self.slack);
        let least = self.least;
        self.found.retain(|(product, _)| *product >= least);
    }

    fn rows(mut self) -> impl Iterator<Item = u32> {
        self.settle();
        self.found.into_iter().map(|(_, row)| row)
    }
}

/// The rows of `rows` among `with` whose product with row `of` is at least `least`.
pub(super) fn around(rows: &Rows, of: usize, with: Range<usize>, least: f32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut products = vec![0.0; TILE];
    for with in tiles(with) {
        let products = &mut products[..with.len()];
        rows.products(of..of + 1, rows, with.clone(), products);
        found.extend(with.zip(products).filter(|(_, product)| **product >= least).map(|(at, _)| at as u32));
    }
    found
}
