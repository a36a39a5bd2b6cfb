//! Many vectors against many: `similarities`, `topK`, `pairs`, `dedupe`, `communities`, `kMeans`. Knows nothing but numbers.
//!
//! All of it stands on one kernel (`rows`) that multiplies blocks of rows by blocks of rows in single precision, always in the
//! same order, so that every processor and every number of threads gives the same bits. What may be an answer by that is
//! compared exactly ([`exact`]), in double precision, as the caches compare.

pub mod exact;
mod groups;
mod kmeans;
mod nearest;
pub mod quantized;
mod rows;

pub use groups::{Deduplicated, communities, dedupe};
pub use kmeans::{Clusters, KMeansOptions, k_means};
pub use nearest::{Pair, Ranked, pairs, similarities, top_k};

use rayon::prelude::*;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use rows::Rows;

/// Vectors of one length, one after the other, all of whose values are finite.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    dimensions: usize,
}

impl<'a> Matrix<'a> {
    /// `what`: what the caller calls it. Call on the threads that compute.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the row of a value that is not finite.
    pub fn new(what: &str, data: &'a [f32], dimensions: usize) -> Result<Self> {
        let dimensions = dimensions.max(1);
        let wrong = data.par_chunks(1 << 14).enumerate().find_map_first(|(chunk, values)| {
            let at = values.iter().position(|value| !value.is_finite())?;
            Some(((chunk << 14) + at, values[at]))
        });
        match wrong {
            Some((at, value)) => Err(Error::InvalidArgument(format!(
                "Row {} of {what} has {value} at position {}, not a finite number of 32 bits",
                at / dimensions,
                at % dimensions
            ))),
            None => Ok(Self { data, dimensions }),
        }
    }

    /// How many vectors there are.
    pub fn count(&self) -> usize {
        self.data.len() / self.dimensions
    }

    /// One of them.
    pub fn row(&self, at: usize) -> &'a [f32] {
        &self.data[at * self.dimensions..][..self.dimensions]
    }

    /// All of them at length 1; zeros stay zeros.
    fn unit(&self, cancel: &Cancel) -> Result<Rows> {
        Rows::of(self, cancel, |row| {
            let norm = exact::Query::new(row).norm();
            if norm > 0.0 { 1.0 / norm } else { 0.0 }
        })
    }
}

/// How far a cosine of the kernel may be from the exact one.
fn slack(dimensions: usize) -> f32 {
    (dimensions as f32 / rows::LANES as f32 + 16.0) * 2.0 * f32::EPSILON
}

#[cfg(test)]
mod tests;
