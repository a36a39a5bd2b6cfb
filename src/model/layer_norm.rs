//! Layer normalisation, with the sum before it, in one pass over each row: `(v - mean) / √(variance + ε) × scale + shift`.
//!
//! A runtime that adds up one number after the other takes several times as long: a tenth of what a model of the size of MiniLM takes.
//! Here the sums are kept in as many parts as a register has places, which also rounds less.

/// The domain of the operators in a graph.
pub(super) const DOMAIN: &str = "embedcore";

/// The attribute that has what is added to a variance.
pub(super) const EPSILON: &str = "epsilon";

/// What is added up before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// Inputs: the values, the scale, the shift.
    Nothing,
    /// Inputs: the product of a layer, its bias, what the layer was given, the scale, the shift.
    BiasAndSum,
}

impl Before {
    /// The name of the operator.
    pub fn operator(self) -> &'static str {
        match self {
            Self::Nothing => "LayerNorm",
            Self::BiasAndSum => "AddLayerNorm",
        }
    }
}

/// Sums that are kept apart.
const LANES: usize = 16;

/// How rows are normalised. `scale` and `shift` are as long as a row, as is `bias`.
pub(super) struct Norm {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
    pub epsilon: f32,
    /// What is added to each row before.
    pub bias: Option<Vec<f32>>,
}

impl Norm {
    /// Normalises each row of `x`, or of `x + bias + skip`, into `out`. All are `rows × width` values; what is too short is left out.
    pub fn apply(&self, x: &[f32], skip: Option<&[f32]>, out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has what the function is compiled for.
            #[allow(unsafe_code)]
            return unsafe { apply_avx2(self, x, skip, out) };
        }
        self.rows(x, skip, out);
    }

    /// Always inlined: each way to compile it then is one function.
    #[inline(always)]
    fn rows(&self, x: &[f32], skip: Option<&[f32]>, out: &mut [f32]) {
        let width = self.scale.len().max(1);
        let rows = out.chunks_exact_mut(width).zip(x.chunks_exact(width));
        match (&self.bias, skip) {
            (Some(bias), Some(skip)) => {
                for ((out, x), skip) in rows.zip(skip.chunks_exact(width)) {
                    let values = x.iter().zip(bias).zip(skip);
                    out.iter_mut().zip(values).for_each(|(out, ((x, bias), skip))| *out = (x + bias) + skip);
                    self.row(out);
                }
            }
            _ => {
                for (out, x) in rows {
                    out.copy_from_slice(x);
                    self.row(out);
                }
            }
        }
    }

    #[inline(always)]
    fn row(&self, row: &mut [f32]) {
        let mean = sum(row, |value| value) / row.len() as f32;
        let variance = sum(row, |value| (value - mean) * (value - mean)) / row.len() as f32;
        let inverse = 1.0 / (variance + self.epsilon).sqrt();
        for ((value, scale), shift) in row.iter_mut().zip(&self.scale).zip(&self.shift) {
            *value = (*value - mean) * inverse * scale + shift;
        }
    }
}

#[inline(always)]
fn sum(row: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let (whole, rest) = row.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for values in whole {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane += of(*value);
        }
    }
    let mut step = LANES / 2;
    while step > 0 {
        for lane in 0..step {
            lanes[lane] += lanes[lane + step];
        }
        step /= 2;
    }
    lanes[0] + rest.iter().map(|value| of(*value)).sum::<f32>()
}

/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[allow(unsafe_code)]
unsafe fn apply_avx2(norm: &Norm, x: &[f32], skip: Option<&[f32]>, out: &mut [f32]) {
    norm.rows(x, skip, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, one number after the other, in twice as many bits.
    fn plain(norm: &Norm, x: &[f32], skip: Option<&[f32]>) -> Vec<f64> {
        let width = norm.scale.len();
        let bias = |at: usize| f64::from(norm.bias.as_ref().map_or(0.0, |bias| bias[at % width]));
        let values =
            x.iter().enumerate().map(|(at, x)| f64::from(*x) + bias(at) + f64::from(skip.map_or(0.0, |skip| skip[at])));
        let values: Vec<f64> = values.collect();
        let mut all = Vec::new();
        for row in values.chunks(width) {
            let mean = row.iter().sum::<f64>() / width as f64;
            let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / width as f64;
            let each = row.iter().enumerate().map(|(at, value)| {
                (value - mean) / (variance + f64::from(norm.epsilon)).sqrt() * f64::from(norm.scale[at])
                    + f64::from(norm.shift[at])
            });
            all.extend(each);
        }
        all
    }

    proptest! {
        #[test]
        fn rows_are_normalised_as_by_the_formula(width in 1usize..70, rows in 0usize..5, summed: bool, seed: u64) {
            let mut state = seed | 1;
            let mut numbers = |count: usize| -> Vec<f32> {
                let mut next = || {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
                };
                (0..count).map(|_| next()).collect()
            };
            let bias = summed.then(|| numbers(width));
            let norm = Norm { scale: numbers(width), shift: numbers(width), epsilon: 1e-5, bias };
            let (x, skip) = (numbers(rows * width), summed.then(|| numbers(rows * width)));
            let mut out = vec![f32::NAN; rows * width];
            norm.apply(&x, skip.as_deref(), &mut out);
            for (value, expected) in out.iter().zip(plain(&norm, &x, skip.as_deref())) {
                // Where all values of a row are nearly the same, little is left of the difference.
                prop_assert!((f64::from(*value) - expected).abs() < 2e-4, "{value} {expected}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_in_its_row() {
        let norm = Norm { scale: vec![1.0; 3], shift: vec![0.0; 3], epsilon: 1e-12, bias: None };
        let mut out = vec![0.0; 6];
        norm.apply(&[1.0, f32::NAN, 2.0, 1.0, 2.0, 3.0], None, &mut out);
        assert!(out[..3].iter().all(|value| value.is_nan()));
        assert!((out[5] - 1.224_744_9).abs() < 1e-6 && out[4] == 0.0);
    }
}
