//! Hidden states → one vector per text: pooling, dense layers, truncation, normalisation. Pure arithmetic.

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's, as decoder models are trained.
    LastToken,
    /// Their maximum, value by value.
    Max,
}

impl Pooling {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Mean, Self::Cls, Self::LastToken, Self::Max];

    /// The spelling in options and keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::LastToken => "last_token",
            Self::Max => "max",
        }
    }

    /// The pooling that is spelled `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pooling| pooling.as_str() == name)
    }

    /// Pools the vectors of one text: `hidden` holds its tokens' vectors, one after the other, padding excluded.
    fn pool(self, hidden: &[f32], width: usize) -> Vec<f32> {
        let mut tokens = hidden.chunks_exact(width);
        match self {
            Self::Cls => tokens.next().map(<[f32]>::to_vec).unwrap_or_default(),
            Self::LastToken => tokens.next_back().map(<[f32]>::to_vec).unwrap_or_default(),
            Self::Mean => {
                let count = tokens.len() as f32;
                let mut sum = vec![0.0; width];
                for token in tokens {
                    sum.iter_mut().zip(token).for_each(|(sum, value)| *sum += value);
                }
                sum.iter_mut().for_each(|value| *value /= count);
                sum
            }
            Self::Max => {
                let mut max = tokens.next().map(<[f32]>::to_vec).unwrap_or_default();
                for token in tokens {
                    // Not f32::max, which would hide a NaN.
                    max.iter_mut().zip(token).for_each(|(max, &value)| {
                        if value > *max || value.is_nan() {
                            *max = value;
                        }
                    });
                }
                max
            }
        }
    }
}

/// What a dense layer does with its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    Identity,
    Tanh,
}

/// A dense layer after pooling: `activation(weight · x + bias)`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dense {
    /// `outputs × inputs`, row-major.
    pub weight: Vec<f32>,
    /// One per output, or empty.
    pub bias: Vec<f32>,
    pub inputs: usize,
    pub outputs: usize,
    pub activation: Activation,
}

impl Dense {
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(self.inputs).enumerate();
        rows.map(|(output, row)| {
            let dot: f32 = row.iter().zip(x).map(|(weight, value)| weight * value).sum();
            let sum = dot + self.bias.get(output).unwrap_or(&0.0);
            match self.activation {
                Activation::Identity => sum,
                Activation::Tanh => sum.tanh(),
            }
        })
        .collect()
    }
}

/// Everything that follows the graph, in the order in which sentence-transformers does it; truncation comes before
/// normalisation, so that a truncated vector has length 1 again.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Head {
    /// `None` when the graph pools.
    pub pooling: Option<Pooling>,
    pub dense: Vec<Dense>,
    pub dimensions: Option<usize>,
    pub normalize: bool,
}

impl Head {
    /// Appends the vectors of a batch to `vectors`. `output` is `rows × longest × width`, or `rows × width` when the
    /// graph pools; `lengths` are the rows' token counts.
    pub fn apply(
        &self,
        output: &[f32],
        width: usize,
        lengths: impl ExactSizeIterator<Item = usize>,
        vectors: &mut Vec<f32>,
    ) {
        let per_row = output.len() / lengths.len().max(1);
        for (row, length) in output.chunks_exact(per_row.max(1)).zip(lengths) {
            let mut vector = match self.pooling {
                Some(pooling) => pooling.pool(&row[..length * width], width),
                None => row.to_vec(),
            };
            for dense in &self.dense {
                vector = dense.apply(&vector);
            }
            if let Some(dimensions) = self.dimensions {
                vector.truncate(dimensions);
            }
            if self.normalize {
                normalize(&mut vector);
            }
            vectors.extend_from_slice(&vector);
        }
    }

    /// The length of vectors before truncation, for a graph whose output is `width` wide.
    pub fn full_width(&self, mut width: usize) -> Result<usize, String> {
        for dense in &self.dense {
            if dense.inputs != width {
                return Err(format!("a Dense module expects {} values, but it is given {width}", dense.inputs));
            }
            width = dense.outputs;
        }
        Ok(width)
    }
}

/// Scales to length 1. The floor on the length is torch's `normalize`; a zero vector stays zero.
fn normalize(vector: &mut [f32]) {
    // In f64: the squares of large values would overflow and leave a zero vector behind.
    let length = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDDEN: [f32; 6] = [1.0, -2.0, 3.0, 4.0, 100.0, 100.0];

    fn head(pooling: Pooling) -> Head {
        Head { pooling: Some(pooling), dense: vec![], dimensions: None, normalize: false }
    }

    fn apply(head: &Head) -> Vec<f32> {
        let mut vectors = vec![];
        head.apply(&HIDDEN, 2, [2].into_iter(), &mut vectors);
        vectors
    }

    #[test]
    fn padding_never_counts() {
        assert_eq!(apply(&head(Pooling::Mean)), [2.0, 1.0]);
        assert_eq!(apply(&head(Pooling::Cls)), [1.0, -2.0]);
        assert_eq!(apply(&head(Pooling::LastToken)), [3.0, 4.0]);
        assert_eq!(apply(&head(Pooling::Max)), [3.0, 4.0]);
    }

    #[test]
    fn dense_then_truncate_then_normalise() {
        let dense = Dense {
            weight: vec![1.0, 0.0, 0.0, 2.0, 1.0, 1.0],
            bias: vec![1.0, 2.0, 0.0],
            inputs: 2,
            outputs: 3,
            activation: Activation::Identity,
        };
        let mut head = Head { dense: vec![dense], ..head(Pooling::Mean) };
        assert_eq!(apply(&head), [3.0, 4.0, 3.0]);
        head.dimensions = Some(2);
        head.normalize = true;
        assert_eq!(apply(&head), [0.6, 0.8]);
        assert_eq!(head.full_width(2), Ok(3));
        assert!(head.full_width(3).is_err());
    }

    #[test]
    fn a_nan_is_never_hidden() {
        for pooling in [Pooling::Mean, Pooling::Max] {
            assert!(pooling.pool(&[1.0, f32::NAN, 2.0], 1)[0].is_nan(), "{pooling:?}");
            assert!(pooling.pool(&[f32::NAN, 1.0], 1)[0].is_nan(), "{pooling:?}");
        }
    }

    #[test]
    fn large_values_keep_their_direction() {
        let mut vector = [3e30, 4e30];
        normalize(&mut vector);
        assert!((vector[0] - 0.6).abs() < 1e-6 && (vector[1] - 0.8).abs() < 1e-6, "{vector:?}");
    }

    #[test]
    fn names_round_trip() {
        for pooling in Pooling::ALL {
            assert_eq!(Pooling::parse(pooling.as_str()), Some(pooling));
        }
        assert_eq!(Pooling::parse("sum"), None);
    }
}
