//! `coherenceMetrics`: many trajectories in one crossing.

use napi::Result;
use napi::bindgen_prelude::Float64Array;
use napi_derive::napi;
use serde_json::{Map, Value};

use super::{options, to_js};
use crate::coherence::{self, Metrics, NUMBERS, Shape};
use crate::error::Error;

/// See `coherence::metrics`. `shapes`: rows and columns of each trajectory or, where there is only one pair, of all. Answers
/// EVB, CR, TS, ES, PD and CCI of each.
#[napi(catch_unwind)]
pub fn coherence_metrics(values: &[f64], shapes: &[u32], options: Map<String, Value>) -> Result<Float64Array> {
    let options = options::coherence(&options).map_err(to_js)?;
    let mut each: Vec<Shape> =
        shapes.chunks_exact(2).map(|pair| Shape { rows: pair[0] as usize, columns: pair[1] as usize }).collect();
    if each.iter().any(|shape| shape.rows == 0 || shape.columns == 0) {
        return Err(to_js(Error::InvalidArgument("A trajectory has at least one row and one column".to_owned())));
    }
    if let [all] = each[..] {
        each = vec![all; values.len() / (all.rows * all.columns)];
    }
    let metrics = coherence::metrics(values, &each, &options).map_err(to_js)?;
    let mut numbers = Vec::with_capacity(metrics.len() * NUMBERS);
    numbers.extend(metrics.iter().flat_map(Metrics::numbers));
    Ok(numbers.into())
}
