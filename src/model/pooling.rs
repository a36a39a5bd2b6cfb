//! Hidden states → one vector per text: pooling, layers, truncation, normalisation. Pure arithmetic.

use std::borrow::Cow;

use crate::embedding::Tokens;

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
    /// Their sum, divided by the square root of their number.
    MeanSqrtLen,
    /// Their mean, in which the first token counts once, the second twice, and so on.
    WeightedMean,
}

impl Pooling {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Mean, Self::Cls, Self::LastToken, Self::Max, Self::MeanSqrtLen, Self::WeightedMean];

    /// The spelling in options and keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::LastToken => "last_token",
            Self::Max => "max",
            Self::MeanSqrtLen => "mean_sqrt_len",
            Self::WeightedMean => "weightedmean",
        }
    }

    /// The pooling that is spelled `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pooling| pooling.as_str() == name)
    }

    /// Several of them, as keys and messages name them.
    pub fn joined(poolings: &[Self]) -> String {
        poolings.iter().map(|pooling| pooling.as_str()).collect::<Vec<_>>().join(" + ")
    }

    /// What the token at `at` counts for where a text has `extent` tokens, so that the pooled vector is the sum of all token vectors, each
    /// times that; of [`Pooling::Max`], what is added to it before the maximum is taken.
    pub(super) fn weight(self, at: usize, Extent { tokens, unpooled }: Extent) -> f32 {
        let pooled = (unpooled..tokens).contains(&at);
        let count = tokens.saturating_sub(unpooled) as f32;
        let one = |is: bool| if is { 1.0 } else { 0.0 };
        match self {
            // The first of all, where none is pooled.
            Self::Cls => one(at == if unpooled < tokens { unpooled } else { 0 }),
            Self::LastToken => one(pooled && at + 1 == tokens),
            Self::Max => {
                if pooled {
                    0.0
                } else {
                    f32::NEG_INFINITY
                }
            }
            _ if !pooled => 0.0,
            Self::Mean => 1.0 / count,
            Self::MeanSqrtLen => 1.0 / count.sqrt(),
            // The sum of all of them is their number times the mean of the first and the last.
            Self::WeightedMean => (at + 1) as f32 / (count * (unpooled + 1 + tokens) as f32 / 2.0),
        }
    }

    /// Appends the pooled vector of one text to `out`. `hidden` holds its tokens' vectors, one after the other, padding
    /// excluded; those before `first` are not pooled. Where none is, all but [`Pooling::Cls`] and [`Pooling::Max`] give zeros.
    fn pool(self, hidden: &[f32], width: usize, first: usize, out: &mut Vec<f32>) {
        let mut tokens = hidden.chunks_exact(width).skip(first);
        let count = tokens.len() as f32;
        let weighted = |weight: fn(usize) -> f32, divisor: f32, out: &mut Vec<f32>| {
            let begin = out.len();
            out.resize(begin + width, 0.0);
            let sum = &mut out[begin..];
            for (at, token) in hidden.chunks_exact(width).enumerate().skip(first) {
                let weight = weight(at);
                sum.iter_mut().zip(token).for_each(|(sum, value)| *sum += value * weight);
            }
            sum.iter_mut().for_each(|value| *value /= divisor.max(1e-9));
        };
        match self {
            Self::Cls => out.extend(tokens.next().or(hidden.chunks_exact(width).next()).into_iter().flatten()),
            Self::LastToken => match tokens.next_back() {
                Some(token) => out.extend(token),
                None => out.resize(out.len() + width, 0.0),
            },
            Self::Mean => weighted(|_| 1.0, count, out),
            Self::MeanSqrtLen => weighted(|_| 1.0, count.sqrt(), out),
            Self::WeightedMean => {
                let weight = |at: usize| (at + 1) as f32;
                let sum = (first..first + tokens.len()).map(weight).sum();
                weighted(|at| (at + 1) as f32, sum, out);
            }
            Self::Max => {
                let begin = out.len();
                out.resize(begin + width, f32::NEG_INFINITY);
                for token in tokens {
                    // Not f32::max, which would hide a NaN.
                    out[begin..].iter_mut().zip(token).for_each(|(max, &value)| {
                        if value > *max || value.is_nan() {
                            *max = value;
                        }
                    });
                }
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

/// A dense layer: `activation(weight · x + bias)`, and perhaps `x` itself, or its image, added to that.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dense {
    /// `outputs × inputs`, row-major.
    pub weight: Vec<f32>,
    /// One per output, or empty.
    pub bias: Vec<f32>,
    pub inputs: usize,
    pub outputs: usize,
    pub activation: Activation,
    pub residual: Residual,
}

/// What a dense layer adds to its result.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Residual {
    None,
    /// What it was given, which is as long.
    Input,
    /// These weights times what it was given.
    Weight(Vec<f32>),
}

impl Dense {
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let product = |row: &[f32]| -> f32 { row.iter().zip(x).map(|(weight, value)| weight * value).sum() };
        let rows = self.weight.chunks_exact(self.inputs).enumerate();
        rows.map(|(output, row)| {
            let sum = product(row) + self.bias.get(output).unwrap_or(&0.0);
            let value = match self.activation {
                Activation::Identity => sum,
                Activation::Tanh => sum.tanh(),
            };
            value
                + match &self.residual {
                    Residual::None => 0.0,
                    Residual::Input => x[output],
                    Residual::Weight(weight) => product(&weight[output * self.inputs..][..self.inputs]),
                }
        })
        .collect()
    }
}

/// A step that makes a vector of a vector.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Layer {
    Dense(Dense),
    /// To mean 0 and variance 1, then times the weight, plus the bias.
    Standardize {
        weight: Vec<f32>,
        bias: Vec<f32>,
    },
    /// To length 1.
    Normalize,
}

impl Layer {
    pub fn apply(&self, vector: &mut Vec<f32>) {
        match self {
            Self::Dense(dense) => *vector = dense.apply(vector),
            Self::Standardize { weight, bias } => layer_norm(vector, weight, bias),
            Self::Normalize => normalize(vector),
        }
    }

    /// The length of what it gives for vectors that are `width` long.
    pub fn width(&self, width: usize) -> Result<usize, String> {
        match self {
            Self::Dense(dense) if dense.inputs != width => {
                Err(format!("a Dense module expects {} values, but it is given {width}", dense.inputs))
            }
            Self::Dense(dense) => Ok(dense.outputs),
            Self::Standardize { weight, .. } if weight.len() != width => {
                Err(format!("a LayerNorm module expects {} values, but it is given {width}", weight.len()))
            }
            Self::Standardize { .. } | Self::Normalize => Ok(width),
        }
    }
}

/// The tokens of a text in an output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// How many there are, padding excluded.
    pub tokens: usize,
    /// How many of them, at the beginning, are not pooled.
    pub unpooled: usize,
}

/// That of a text.
pub(super) fn extent(tokens: &Tokens) -> Extent {
    Extent { tokens: tokens.ids.len(), unpooled: tokens.prompt }
}

/// Everything that follows the graph, in the order in which sentence-transformers does it; truncation comes before the
/// last normalisation, so that a truncated vector has length 1 again.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Head {
    /// What is done with the vector of each token.
    pub tokens: Vec<Layer>,
    /// How they become one, joined in this order; empty when the graph pools.
    pub pooling: Vec<Pooling>,
    /// What is done with that.
    pub layers: Vec<Layer>,
    pub dimensions: Option<usize>,
    pub normalize: bool,
}

impl Head {
    /// Appends the vectors of a batch to `vectors`. `output` is `rows × longest × width`, or `rows × width` when the
    /// graph pools.
    pub fn apply(
        &self,
        output: &[f32],
        width: usize,
        extents: impl ExactSizeIterator<Item = Extent>,
        vectors: &mut Vec<f32>,
    ) {
        let per_row = output.len() / extents.len().max(1);
        for (row, extent) in output.chunks_exact(per_row.max(1)).zip(extents) {
            let mut vector = if self.pooling.is_empty() { row.to_vec() } else { self.pool(row, width, extent) };
            self.finish(&mut vector);
            vectors.extend_from_slice(&vector);
        }
    }

    /// What is left to do once a graph has pooled and applied so many layers.
    pub fn after(self, layers: usize) -> Self {
        let layers = self.layers.into_iter().skip(layers).collect();
        Self { tokens: Vec::new(), pooling: Vec::new(), layers, ..self }
    }

    /// What follows pooling.
    pub fn finish(&self, vector: &mut Vec<f32>) {
        self.layers.iter().for_each(|layer| layer.apply(vector));
        if let Some(dimensions) = self.dimensions {
            vector.truncate(dimensions);
        }
        if self.normalize {
            normalize(vector);
        }
    }

    fn pool(&self, row: &[f32], mut width: usize, extent: Extent) -> Vec<f32> {
        let mut hidden = Cow::Borrowed(&row[..extent.tokens * width]);
        for layer in &self.tokens {
            let each = hidden.chunks_exact(width).flat_map(|token| {
                let mut token = token.to_vec();
                layer.apply(&mut token);
                token
            });
            hidden = each.collect::<Vec<_>>().into();
            width = hidden.len() / extent.tokens.max(1);
        }
        let mut vector = Vec::with_capacity(width * self.pooling.len());
        self.pooling.iter().for_each(|pooling| pooling.pool(&hidden, width, extent.unpooled, &mut vector));
        vector
    }

    /// The length of vectors before truncation, for a graph whose output is `width` wide.
    pub fn full_width(&self, width: usize) -> Result<usize, String> {
        let width = self.tokens.iter().try_fold(width, |width, layer| layer.width(width))?;
        self.layers.iter().try_fold(width * self.pooling.len().max(1), |width, layer| layer.width(width))
    }
}

/// Scales to length 1. The floor on the length is torch's `normalize`; a zero vector stays zero.
pub(super) fn normalize(vector: &mut [f32]) {
    // In f64: the squares of large values would overflow and leave a zero vector behind.
    let length = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
}

/// As torch does it, which adds 1e-5 to the variance.
fn layer_norm(vector: &mut [f32], weight: &[f32], bias: &[f32]) {
    let count = vector.len() as f64;
    let mean = vector.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let variance = vector.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
    let scale = 1.0 / (variance + 1e-5).sqrt();
    for ((value, weight), bias) in vector.iter_mut().zip(weight).zip(bias) {
        *value = ((f64::from(*value) - mean) * scale) as f32 * weight + bias;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDDEN: [f32; 6] = [1.0, -2.0, 3.0, 4.0, 100.0, 100.0];

    fn head(pooling: Pooling) -> Head {
        Head { pooling: vec![pooling], ..Head::default() }
    }

    fn extent(tokens: usize, unpooled: usize) -> Extent {
        Extent { tokens, unpooled }
    }

    fn apply(head: &Head) -> Vec<f32> {
        let mut vectors = vec![];
        head.apply(&HIDDEN, 2, [extent(2, 0)].into_iter(), &mut vectors);
        vectors
    }

    fn dense(weight: &[f32], bias: &[f32], inputs: usize) -> Dense {
        Dense {
            weight: weight.to_vec(),
            bias: bias.to_vec(),
            inputs,
            outputs: weight.len() / inputs,
            activation: Activation::Identity,
            residual: Residual::None,
        }
    }

    #[test]
    fn padding_never_counts() {
        assert_eq!(apply(&head(Pooling::Mean)), [2.0, 1.0]);
        assert_eq!(apply(&head(Pooling::Cls)), [1.0, -2.0]);
        assert_eq!(apply(&head(Pooling::LastToken)), [3.0, 4.0]);
        assert_eq!(apply(&head(Pooling::Max)), [3.0, 4.0]);
        assert_eq!(apply(&head(Pooling::MeanSqrtLen)), [4.0 / 2f32.sqrt(), 2.0 / 2f32.sqrt()]);
        assert_eq!(apply(&head(Pooling::WeightedMean)), [7.0 / 3.0, 2.0]);
        let joined = Head { pooling: vec![Pooling::Max, Pooling::Mean], ..Head::default() };
        assert_eq!(apply(&joined), [3.0, 4.0, 2.0, 1.0]);
        assert_eq!(joined.full_width(2), Ok(4));
    }

    #[test]
    fn a_prompt_is_left_out_but_keeps_its_places() {
        let pooled = |pooling: Pooling, unpooled| {
            let mut vectors = vec![];
            head(pooling).apply(&HIDDEN, 2, [extent(3, unpooled)].into_iter(), &mut vectors);
            vectors
        };
        assert_eq!(pooled(Pooling::Mean, 1), [51.5, 52.0]);
        assert_eq!(pooled(Pooling::Cls, 1), [3.0, 4.0]);
        assert_eq!(pooled(Pooling::LastToken, 1), [100.0, 100.0]);
        // The second token counts twice and the third three times, as they do where the first one is pooled.
        assert_eq!(pooled(Pooling::WeightedMean, 1), [306.0 / 5.0, 308.0 / 5.0]);
        for pooling in [Pooling::Mean, Pooling::MeanSqrtLen, Pooling::WeightedMean, Pooling::LastToken] {
            assert_eq!(pooled(pooling, 5), [0.0, 0.0], "{pooling:?}");
        }
        assert_eq!(pooled(Pooling::Cls, 5), [1.0, -2.0]);
    }

    #[test]
    fn weights_pool_alike() {
        for pooling in Pooling::ALL {
            for (tokens, unpooled) in [(1, 0), (2, 0), (3, 0), (3, 1), (3, 2), (2, 2), (2, 5)] {
                let mut expected = vec![];
                pooling.pool(&HIDDEN[..tokens * 2], 2, unpooled, &mut expected);
                let weights = (0..3).map(|at| pooling.weight(at, extent(tokens, unpooled)));
                let mut found = [if pooling == Pooling::Max { f32::NEG_INFINITY } else { 0.0 }; 2];
                for (token, weight) in HIDDEN.chunks(2).zip(weights) {
                    for (found, value) in found.iter_mut().zip(token) {
                        *found =
                            if pooling == Pooling::Max { found.max(value + weight) } else { *found + value * weight };
                    }
                }
                for (found, expected) in found.iter().zip(&expected) {
                    let alike = found == expected || (found - expected).abs() <= 1e-5 * expected.abs();
                    assert!(alike, "{pooling:?} of {tokens} from {unpooled}: {found}, {expected}");
                }
            }
        }
    }

    #[test]
    fn layers_then_truncate_then_normalise() {
        let mut head = Head {
            layers: vec![Layer::Dense(dense(&[1.0, 0.0, 0.0, 2.0, 1.0, 1.0], &[1.0, 2.0, 0.0], 2))],
            ..head(Pooling::Mean)
        };
        assert_eq!(apply(&head), [3.0, 4.0, 3.0]);
        head.dimensions = Some(2);
        head.normalize = true;
        assert_eq!(apply(&head), [0.6, 0.8]);
        assert_eq!(head.full_width(2), Ok(3));
        assert!(head.full_width(3).is_err());
    }

    #[test]
    fn layers_on_tokens_come_before_pooling() {
        let head = Head { tokens: vec![Layer::Dense(dense(&[1.0, 1.0], &[], 2))], ..head(Pooling::Max) };
        assert_eq!(apply(&head), [7.0]);
        assert_eq!(head.full_width(2), Ok(1));
    }

    #[test]
    fn a_dense_layer_may_add_what_it_was_given() {
        let sums = dense(&[1.0, 1.0, 0.0, 1.0], &[], 2);
        assert_eq!(Dense { residual: Residual::Input, ..sums.clone() }.apply(&[1.0, 2.0]), [4.0, 4.0]);
        let weight = Residual::Weight(vec![0.0, 10.0, 1.0, 0.0]);
        assert_eq!(Dense { residual: weight, ..sums }.apply(&[1.0, 2.0]), [23.0, 3.0]);
    }

    #[test]
    fn layer_norm_has_its_weights() {
        let mut vector = vec![1.0, 3.0];
        Layer::Standardize { weight: vec![2.0, 1.0], bias: vec![0.5, 0.0] }.apply(&mut vector);
        assert!((vector[0] + 1.5).abs() < 1e-4 && (vector[1] - 1.0).abs() < 1e-4, "{vector:?}");
    }

    #[test]
    fn a_nan_is_never_hidden() {
        for pooling in [Pooling::Mean, Pooling::Max] {
            for hidden in [[1.0, f32::NAN, 2.0], [f32::NAN, 1.0, 2.0]] {
                let mut vector = vec![];
                pooling.pool(&hidden, 1, 0, &mut vector);
                assert!(vector[0].is_nan(), "{pooling:?}");
            }
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
