//! Where all that comes of a text comes of its first token, the last layer is computed for that one alone.

use std::collections::{HashMap, HashSet};

use super::{LeanGraph, Node, onnx};
use crate::model::protobuf::{Field, Message, fields};

/// From where, to where and along what the first token is taken.
const SLICE: [(&str, i64); 3] = [("embedcore.begin", 0), ("embedcore.end", 1), ("embedcore.axis", 1)];

/// What the first token of a value is called.
fn first_of(value: &str) -> String {
    format!("embedcore.first.{value}")
}

impl LeanGraph {
    /// Has what follows the last attention computed for the first token of each text alone, where the graph itself reads no other one
    /// of it. Whether it could be.
    ///
    /// From `Gather(x, 0, axis: 1)` backwards, what makes each token's values of that token's alone, and is read by nothing else, is
    /// given the first token of what it reads. Nothing else changes: each value is made of the same ones as before.
    pub fn keep_first(&mut self) -> bool {
        let ranks = self.ranks();
        if self.nodes.iter().any(Node::has_graph) {
            return false;
        }
        let Some(first) = self.nodes.iter().position(|node| self.takes_first(node, &ranks)) else { return false };
        let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|input| readers.entry(input).or_default().push(at));
        }
        let (mut within, mut wanted) = (HashSet::from([first]), HashSet::from([self.nodes[first].inputs[0].clone()]));
        let (mut cut, mut products) = (HashSet::new(), 0);
        for (at, node) in self.nodes.iter().enumerate().take(first).rev() {
            let asked = || node.outputs.iter().filter(|output| wanted.contains(*output));
            if asked().next().is_none() {
                continue;
            }
            let read_within = |output: &String| {
                let all = readers.get(output.as_str());
                !self.outputs.contains(output)
                    && all.is_some_and(|all| all.iter().all(|reader| within.contains(reader)))
            };
            if !node.outputs.iter().all(read_within) || !self.is_by_token(node, &ranks) {
                cut.extend(asked().cloned());
                continue;
            }
            within.insert(at);
            products += usize::from(node.operator == "MatMul");
            let tokens = node.inputs.iter().filter(|input| self.is_tokens(input, &ranks)).cloned();
            wanted.extend(tokens.collect::<Vec<_>>());
        }
        // What nothing makes is an input of the graph.
        let made: HashSet<&String> = self.nodes.iter().flat_map(|node| &node.outputs).collect();
        if products == 0 || cut.is_empty() || wanted.iter().any(|value| !made.contains(value)) {
            return false;
        }
        within.remove(&first);
        let mut nodes = Vec::with_capacity(self.nodes.len() + cut.len());
        for (at, node) in std::mem::take(&mut self.nodes).into_iter().enumerate() {
            let makes: Vec<String> = node.outputs.iter().filter(|output| cut.contains(*output)).cloned().collect();
            nodes.push(if within.contains(&at) { node.reading_first(&cut) } else { node });
            nodes.extend(makes.iter().map(|value| Node::slice(value)));
        }
        self.nodes = nodes;
        for (name, value) in SLICE {
            let tensor = Message::default().number(onnx::TENSOR_SIZES, 1).number(onnx::TENSOR_TYPE, onnx::INT64);
            let tensor = tensor.bytes(onnx::TENSOR_NAME, name).bytes(onnx::TENSOR_BYTES, value.to_le_bytes());
            self.rest = std::mem::take(&mut self.rest).bytes(onnx::GRAPH_WEIGHTS, tensor);
        }
        true
    }

    /// Whether a node gives the values of the first token of each text.
    fn takes_first(&self, node: &Node, ranks: &HashMap<String, usize>) -> bool {
        let [x, index] = &node.inputs[..] else { return false };
        let is_first = self.weights.get(index).is_some_and(|index| index.sizes.is_empty() && index.number == Some(0));
        node.operator == "Gather" && node.number("axis") == Some(1) && is_first && self.is_tokens(x, ranks)
    }

    /// Whether a value is one of texts, tokens and their values, which is not the same for all texts.
    fn is_tokens(&self, name: &str, ranks: &HashMap<String, usize>) -> bool {
        ranks.get(name) == Some(&3) && !self.weights.contains_key(name)
    }

    /// Whether a node makes the values of each token of that token's alone.
    fn is_by_token(&self, node: &Node, ranks: &HashMap<String, usize>) -> bool {
        let sizes = |name: &String| self.weights.get(name).map(|weights| weights.sizes.len());
        let is_vector = |name: &String| name.is_empty() || sizes(name).is_some_and(|sizes| sizes <= 1);
        let is_tokens = |name: &String| self.is_tokens(name, ranks);
        let is_last = |axis: i64| axis == -1 || axis == 2;
        let [_] = &node.outputs[..] else { return false };
        match (&node.operator[..], &node.inputs[..]) {
            ("MatMul", [x, weights]) => is_tokens(x) && sizes(weights) == Some(2),
            ("Add" | "Sub" | "Mul" | "Div" | "Pow", [one, other]) => {
                let each = [one, other];
                each.iter().any(|name| is_tokens(name)) && each.iter().all(|name| is_tokens(name) || is_vector(name))
            }
            ("Cast" | "Erf" | "Gelu" | "Identity" | "Reciprocal" | "Relu" | "Sigmoid" | "Sqrt" | "Tanh", [x]) => {
                is_tokens(x)
            }
            ("FastGelu" | "BiasGelu", [x, rest @ ..]) => is_tokens(x) && rest.iter().all(is_vector),
            ("ReduceMean", [x, axes @ ..]) => {
                let of_attribute = || matches!(node.numbers("axes")[..], [axis] if is_last(axis));
                let of_input = |axes: &String| self.weights.get(axes).and_then(|axes| axes.number).is_some_and(is_last);
                let last = if axes.is_empty() { of_attribute() } else { axes.iter().all(of_input) };
                is_tokens(x) && last && node.number("keepdims") != Some(0)
            }
            ("LayerNormalization", [x, rest @ ..]) => {
                is_tokens(x) && rest.iter().all(is_vector) && node.number("axis").is_none_or(is_last)
            }
            ("SkipLayerNormalization", [x, other, rest @ ..]) => {
                is_tokens(x) && is_tokens(other) && rest.iter().all(is_vector)
            }
            _ => false,
        }
    }
}

impl Node {
    /// What takes the first token of a value.
    fn slice(value: &str) -> Self {
        let inputs = std::iter::once(value).chain(SLICE.iter().map(|(name, _)| *name));
        let node = inputs.fold(Message::default(), |node, input| node.bytes(onnx::NODE_INPUTS, input));
        let node = node.bytes(onnx::NODE_OUTPUTS, first_of(value)).bytes(onnx::NODE_OPERATOR, "Slice");
        Self::read(&node.into_bytes())
    }

    /// The same, but that it reads the first token of what is `cut`.
    fn reading_first(self, cut: &HashSet<String>) -> Self {
        let inputs = self.inputs.iter().map(|input| if cut.contains(input) { first_of(input) } else { input.clone() });
        let inputs = inputs.fold(Message::default(), |node, input| node.bytes(onnx::NODE_INPUTS, input));
        let others = fields(&self.raw).filter(|(number, _)| *number != onnx::NODE_INPUTS);
        let node = others.fold(inputs, |node, (number, field)| match field {
            Field::Number(value) => node.number(number, value),
            Field::Bytes(bytes) => node.bytes(number, bytes),
            // A node has none.
            Field::Fixed(_) => node,
        });
        Self::read(&node.into_bytes())
    }
}
