//! Operators of this package in ONNX Runtime's graphs.

use std::borrow::Cow;

use ort::Error;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::value::{DynTensorValueType, TensorElementType};

use crate::model::layer_norm::{Before, DOMAIN, EPSILON, Norm};

/// All of them.
///
/// None tells the runtime what shape it gives: sizes that are known only when it runs would be told as -1, at which the runtime's own
/// arithmetic of shapes ends the process.
pub(super) fn operators() -> ort::Result<OperatorDomain> {
    OperatorDomain::new(DOMAIN)?.add(LayerNorm(Before::Nothing))?.add(LayerNorm(Before::BiasAndSum))
}

struct LayerNorm(Before);

/// Changes nothing of itself: runs on several threads have the same one.
struct LayerNormKernel {
    norm: Norm,
    /// Which input is added to the first.
    skip: Option<usize>,
}

impl Operator for LayerNorm {
    type Kernel<'attr> = LayerNormKernel;

    fn name(&self) -> &str {
        self.0.operator()
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let count = match self.0 {
            Before::Nothing => 3,
            Before::BiasAndSum => 5,
        };
        (0..count).map(|_| OperatorInput::required(TensorElementType::Float32))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let list = |input: usize| -> ort::Result<Vec<f32>> {
            let values = context.constant_input::<DynTensorValueType>(input)?;
            Ok(values.try_extract_tensor::<f32>()?.1.to_vec())
        };
        let ([scale, shift], bias, skip) = match self.0 {
            Before::Nothing => ([1, 2], None, None),
            Before::BiasAndSum => ([3, 4], Some(list(1)?), Some(2)),
        };
        let epsilon = context.get::<f32>(EPSILON).ok_or_else(|| Error::new("there is no epsilon"))?;
        let norm = Norm { scale: list(scale)?, shift: list(shift)?, epsilon, bias };
        let width = norm.scale.len();
        if width == 0 || norm.shift.len() != width || norm.bias.as_ref().is_some_and(|bias| bias.len() != width) {
            return Err(Error::new("scale, shift and bias are not of one length"));
        }
        Ok(LayerNormKernel { norm, skip })
    }
}

impl Kernel for LayerNormKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let input = |at: usize| context.input(at)?.ok_or_else(|| Error::new("an input is missing"));
        let x = input(0)?;
        let (shape, x) = x.try_extract_tensor::<f32>()?;
        if shape.last().copied() != i64::try_from(self.norm.scale.len()).ok() {
            return Err(Error::new("the last size is not that of scale and shift"));
        }
        let skip = self.skip.map(input).transpose()?;
        let skip = skip.as_ref().map(|skip| skip.try_extract_tensor::<f32>()).transpose()?;
        let skip = match skip {
            Some((other, values)) if other[..] == shape[..] => Some(Cow::Borrowed(values)),
            Some((other, values)) => {
                let all = repeated(values, other, shape);
                let reason = || Error::new(format!("what is added is of the shape {other:?}, not {shape:?}"));
                Some(Cow::Owned(all.ok_or_else(reason)?))
            }
            None => None,
        };
        let mut out = context.output(0, shape.to_vec())?.ok_or_else(|| Error::new("the output is missing"))?;
        let (_, out) = out.try_extract_tensor_mut::<f32>()?;
        self.norm.apply(x, skip.as_deref(), out);
        Ok(())
    }
}

/// Values of one shape repeated to fill another one, as sums in a graph do it: along what is 1 in theirs. `None`: they cannot.
fn repeated(values: &[f32], from: &[i64], to: &[i64]) -> Option<Vec<f32>> {
    if from.len() != to.len() || from.iter().zip(to).any(|(from, to)| from != to && *from != 1) {
        return None;
    }
    let mut all = values.to_vec();
    let mut inner = 1;
    for (from, to) in from.iter().zip(to).rev() {
        let [from, to] = [from, to].map(|size| usize::try_from(*size).unwrap_or_default());
        if from != to {
            all = all.chunks(inner).flat_map(|block| std::iter::repeat_n(block, to)).flatten().copied().collect();
        }
        inner = inner.saturating_mul(to).max(1);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_repeated_along_what_is_one() {
        let all = |values: &[f32], from: &[i64], to: &[i64]| repeated(values, from, to).unwrap();
        assert_eq!(all(&[1.0, 2.0], &[1, 1, 2], &[2, 1, 2]), [1.0, 2.0, 1.0, 2.0]);
        assert_eq!(all(&[1.0, 2.0], &[2, 1, 1], &[2, 2, 1]), [1.0, 1.0, 2.0, 2.0]);
        assert_eq!(all(&[1.0, 2.0], &[1, 2, 1], &[2, 2, 2]), [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
        assert!(repeated(&[1.0, 2.0], &[2], &[3]).is_none() && repeated(&[1.0], &[1], &[1, 1]).is_none());
    }
}
