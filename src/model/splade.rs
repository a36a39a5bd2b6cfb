//! The logits of a masked language model → weights of the vocabulary's tokens (SPLADE). Pure arithmetic.

use crate::embedding::{SparseVector, Value};

/// How the logits of a text's tokens become one weight for each token of the vocabulary.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Splade {
    /// Whether the weights of all tokens are summed; else the largest one counts.
    pub sums: bool,
    /// Whether the logarithm is taken twice.
    pub twice: bool,
}

impl Splade {
    /// The vector of one text: `logits` holds those of its tokens, one after the other, padding excluded.
    pub fn apply(&self, logits: &[f32], width: usize) -> Value {
        let mut weights = vec![0.0_f32; width];
        for token in logits.chunks_exact(width) {
            for (weight, &logit) in weights.iter_mut().zip(token) {
                if self.sums {
                    *weight += self.weight(logit);
                } else if logit > *weight || logit.is_nan() {
                    // The weight rises with the logit, so that it has to be made of the largest one only.
                    *weight = logit;
                }
            }
        }
        let weigh = |weight: f32| if self.sums { weight } else { self.weight(weight) };
        let found =
            (0..).zip(weights).map(|(index, weight)| (index, weigh(weight))).filter(|(_, weight)| *weight != 0.0);
        let (indices, values) = found.unzip();
        Value::Sparse(SparseVector { indices, values })
    }

    fn weight(&self, logit: f32) -> f32 {
        // Not f32::max, which would hide a NaN.
        let weight = if logit < 0.0 { 0.0 } else { logit }.ln_1p();
        if self.twice { weight.ln_1p() } else { weight }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_logarithms_of_the_largest_logit_or_summed() {
        let logits = [1.0, -1.0, 0.0, 3.0, -2.0, 0.0];
        let largest = Value::Sparse(SparseVector { indices: vec![0], values: vec![4.0_f32.ln()] });
        assert_eq!(Splade::default().apply(&logits, 3), largest);
        let Value::Sparse(summed) = (Splade { sums: true, twice: false }).apply(&logits, 3) else { panic!() };
        assert_eq!(summed.values, [2.0_f32.ln_1p() * 0.0 + 1.0_f32.ln_1p() + 3.0_f32.ln_1p()]);
        let Value::Sparse(twice) = (Splade { sums: false, twice: true }).apply(&logits, 3) else { panic!() };
        assert_eq!(twice.values, [4.0_f32.ln().ln_1p()]);
    }

    #[test]
    fn a_nan_is_never_hidden() {
        let value = Splade::default().apply(&[f32::NAN, 1.0], 1);
        assert!(value.numbers()[0].is_nan());
        assert!(Splade { sums: true, twice: true }.apply(&[1.0, f32::NAN], 1).numbers()[0].is_nan());
    }
}
