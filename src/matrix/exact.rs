//! The exact cosine of two vectors: in double precision, which has room for the products of any values of single precision.

/// A vector that others are compared with.
#[derive(Debug, Clone)]
pub struct Query {
    values: Vec<f64>,
    norm: f64,
}

impl Query {
    /// Its values are finite.
    pub fn new(values: &[f32]) -> Self {
        let values: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
        Self { values, norm }
    }

    /// How many values it has.
    pub fn dimensions(&self) -> usize {
        self.values.len()
    }

    /// Its length.
    pub fn norm(&self) -> f64 {
        self.norm
    }

    /// The cosine, rounded to what can be told of values of this precision: that of a vector and itself is 1. `None` where one of
    /// the two has no direction, or they are of two lengths.
    #[inline]
    pub fn cosine(&self, values: &[f32]) -> Option<f32> {
        if values.len() != self.values.len() {
            return None;
        }
        let (dot, square) = products(&self.values, values);
        let norms = self.norm * square.sqrt();
        (norms > 0.0).then(|| (dot / norms).clamp(-1.0, 1.0) as f32)
    }
}

/// The product of both, and of the values with themselves. Eight sums side by side: as wide as the widest registers, and more
/// exact than one.
fn products(query: &[f64], values: &[f32]) -> (f64, f64) {
    const LANES: usize = 8;
    let (query_chunks, query_rest) = query.as_chunks::<LANES>();
    let (chunks, rest) = values.as_chunks::<LANES>();
    let (mut dots, mut squares) = ([0.0f64; LANES], [0.0f64; LANES]);
    for (query, values) in query_chunks.iter().zip(chunks) {
        for lane in 0..LANES {
            let value = f64::from(values[lane]);
            dots[lane] += query[lane] * value;
            squares[lane] += value * value;
        }
    }
    let (mut dot, mut square) = (dots.iter().sum::<f64>(), squares.iter().sum::<f64>());
    for (query, value) in query_rest.iter().zip(rest) {
        let value = f64::from(*value);
        dot += query * value;
        square += value * value;
    }
    (dot, square)
}
