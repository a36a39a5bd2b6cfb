//! How many sizes the values in a graph have.

use std::collections::HashMap;

use super::{LeanGraph, Node, onnx};
use crate::model::protobuf::parts;

impl LeanGraph {
    /// How many sizes values have, as far as that is easily told. What constants there are becomes known with the weights.
    pub(super) fn ranks(&mut self) -> HashMap<String, usize> {
        for node in &self.nodes {
            if let ("Constant", [output]) = (&node.operator[..], &node.outputs[..]) {
                self.weights.extend(node.constant().map(|constant| (output.clone(), constant)));
            }
        }
        let mut ranks: HashMap<String, usize> =
            self.inputs.iter().map(|(name, sizes)| (name.clone(), *sizes)).collect();
        ranks.extend(self.weights.iter().map(|(name, weights)| (name.clone(), weights.sizes.len())));
        // How many numbers there are in a list.
        let lists = self.weights.iter().filter(|(_, weights)| weights.sizes.len() == 1);
        let mut lengths: HashMap<String, usize> =
            lists.map(|(name, weights)| (name.clone(), weights.sizes[0])).collect();
        for node in &self.nodes {
            let Some((rank, length)) = node.rank(&ranks, &lengths) else { continue };
            let Some(output) = node.outputs.first().filter(|output| !output.is_empty()) else { continue };
            ranks.insert(output.clone(), rank);
            lengths.extend(length.filter(|_| rank == 1).map(|length| (output.clone(), length)));
        }
        ranks
    }
}

impl Node {
    /// Whether there is a graph within, which reads values that the node does not name.
    pub(super) fn has_graph(&self) -> bool {
        self.attributes()
            .any(|attribute| onnx::ATTRIBUTE_GRAPHS.iter().any(|field| parts(attribute, *field).next().is_some()))
    }

    /// How many sizes its first output has, and how many numbers, where that is a list.
    fn rank(&self, ranks: &HashMap<String, usize>, lengths: &HashMap<String, usize>) -> Option<(usize, Option<usize>)> {
        let rank = |at: usize| ranks.get(self.inputs.get(at)?).copied();
        let length = |at: usize| lengths.get(self.inputs.get(at)?).copied();
        let all = || self.inputs.iter().map(|input| ranks.get(input).copied()).collect::<Option<Vec<_>>>();
        Some(match &self.operator[..] {
            "Gather" => ((rank(0)? + rank(1)?).checked_sub(1)?, length(1)),
            "MatMul" => {
                let (one, other) = (rank(0)?, rank(1)?);
                (one >= 2 && other >= 2).then_some((one.max(other), None))?
            }
            "Gemm" => (2, None),
            "Add" | "And" | "Div" | "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Max" | "Min"
            | "Mul" | "Or" | "Pow" | "Sub" | "Where" => {
                (all()?.into_iter().max()?, (0..self.inputs.len()).find_map(length))
            }
            "GatherElements" => (rank(1)?, length(1)),
            "Cast" | "Identity" => (rank(0)?, length(0)),
            "BiasGelu"
            | "Clip"
            | "CumSum"
            | "Dropout"
            | "Erf"
            | "Exp"
            | "FastGelu"
            | "Gelu"
            | "LayerNormalization"
            | "Log"
            | "Neg"
            | "Not"
            | "Reciprocal"
            | "Relu"
            | "Sigmoid"
            | "SkipLayerNormalization"
            | "Slice"
            | "Softmax"
            | "Sqrt"
            | "Tanh"
            | "Transpose" => (rank(0)?, None),
            "ReduceMean" | "ReduceSum" if self.number("keepdims") != Some(0) => (rank(0)?, None),
            "Shape" => (1, rank(0).filter(|_| self.attributes().next().is_none())),
            "Unsqueeze" => {
                let axes = self.numbers("axes").len().max(length(1).unwrap_or(0));
                let scalar = rank(0)? == 0;
                (axes > 0).then_some((rank(0)? + axes, scalar.then_some(1)))?
            }
            "Concat" => {
                let lengths = self.inputs.iter().map(|input| lengths.get(input).copied()).sum();
                (rank(0)?, lengths)
            }
            "Reshape" => (length(1)?, length(0).filter(|_| rank(0) == Some(1))),
            "ConstantOfShape" => (length(0)?, None),
            "Expand" => (rank(0)?.max(length(1)?), None),
            "Attention" | "EmbedLayerNormalization" | "MultiHeadAttention" => (3, None),
            _ => return None,
        })
    }
}
