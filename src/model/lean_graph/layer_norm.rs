//! Layer normalisation as one node, with the sum before it: the operators of [`layer_norm`](crate::model::layer_norm).

use std::collections::{HashMap, HashSet};

use super::{LeanGraph, Node, onnx};
use crate::model::layer_norm::{Before, DOMAIN, EPSILON};
use crate::model::protobuf::{Message, reals};

/// What ONNX's own operator adds to a variance where it does not say.
const USUAL_EPSILON: f32 = 1e-5;

/// A normalisation: what it reads, and the nodes that it is made of, the last one last.
struct Norm {
    x: String,
    scale: String,
    shift: String,
    epsilon: f32,
    nodes: Vec<usize>,
}

/// Data flow: who makes which value, and who reads it.
struct Flow<'a> {
    graph: &'a LeanGraph,
    ranks: &'a HashMap<String, usize>,
    makers: HashMap<&'a str, usize>,
    readers: HashMap<&'a str, Vec<usize>>,
}

impl LeanGraph {
    /// Has each layer normalisation be one node of [`DOMAIN`], with the sum of what a layer gives and what it was given, and the bias of
    /// the layer. How many there are.
    ///
    /// What is read elsewhere, too, or is not surely that, is left as it is: the values are the same but for rounding.
    pub fn fuse_norms(&mut self) -> usize {
        let ranks = self.ranks();
        if self.nodes.iter().any(Node::has_graph) {
            return 0;
        }
        let flow = Flow::of(self, &ranks);
        let fused: Vec<(Vec<usize>, Node)> =
            (0..self.nodes.len()).filter_map(|last| flow.norm(last).map(|norm| flow.fused(norm))).collect();
        let mut taken = HashSet::new();
        let mut nodes: Vec<Option<Node>> = std::mem::take(&mut self.nodes).into_iter().map(Some).collect();
        let mut count = 0;
        for (parts, node) in fused {
            // Two that share a node are none.
            if parts.iter().any(|part| !taken.insert(*part)) {
                continue;
            }
            let Some((last, others)) = parts.split_last() else { continue };
            others.iter().for_each(|at| nodes[*at] = None);
            nodes[*last] = Some(node);
            count += 1;
        }
        self.nodes = nodes.into_iter().flatten().collect();
        if count > 0 {
            let opset = Message::default().bytes(onnx::OPSET_DOMAIN, DOMAIN).number(onnx::OPSET_VERSION, 1);
            self.around.add(onnx::MODEL_OPSETS, opset);
        }
        count
    }
}

impl<'a> Flow<'a> {
    fn of(graph: &'a LeanGraph, ranks: &'a HashMap<String, usize>) -> Self {
        let mut flow = Self { graph, ranks, makers: HashMap::new(), readers: HashMap::new() };
        for (at, node) in graph.nodes.iter().enumerate() {
            flow.makers.extend(node.outputs.iter().map(|output| (output.as_str(), at)));
            node.inputs.iter().for_each(|input| flow.readers.entry(input).or_default().push(at));
        }
        flow
    }

    /// The node of `operator` that makes a value.
    fn made_by(&self, value: &str, operator: &str) -> Option<(usize, &'a Node)> {
        let at = *self.makers.get(value)?;
        let node = &self.graph.nodes[at];
        (node.operator == operator && node.outputs.len() == 1).then_some((at, node))
    }

    /// Whether nobody but the nodes `within` reads a value.
    fn is_read_by(&self, value: &str, within: &[usize]) -> bool {
        let all = self.readers.get(value);
        !self.graph.outputs.contains(value) && all.is_some_and(|all| all.iter().all(|at| within.contains(at)))
    }

    /// How many numbers of 32 bits there are in a list of weights.
    fn list(&self, name: &str) -> Option<usize> {
        let weights = self.graph.weights.get(name)?;
        (weights.kind == onnx::FLOAT && weights.sizes.len() == 1).then(|| weights.sizes[0])
    }

    /// The same, and its name.
    fn named_list(&self, name: &str) -> Option<&'a str> {
        self.list(name).and(self.graph.weights.get_key_value(name)).map(|(name, _)| name.as_str())
    }

    /// A number that is the same for all values.
    fn number(&self, name: &str) -> Option<f32> {
        self.graph.weights.get(name)?.real
    }

    /// The value of two that is none of `is`, and the other one.
    fn either<T>(&self, inputs: &'a [String], is: impl Fn(&str) -> Option<T>) -> Option<(&'a str, T)> {
        let [one, other] = inputs else { return None };
        is(other).map(|found| (one.as_str(), found)).or_else(|| is(one).map(|found| (other.as_str(), found)))
    }

    /// What `ReduceMean` along the last axis is of.
    fn mean_of(&self, value: &str) -> Option<(usize, &'a str)> {
        let (at, node) = self.made_by(value, "ReduceMean")?;
        let (x, axes) = node.inputs.split_first()?;
        let axes = match axes {
            [] => node.numbers("axes"),
            [axes] => self.graph.weights.get(axes).and_then(|axes| axes.number).into_iter().collect(),
            _ => return None,
        };
        let last = matches!(axes[..], [axis] if self.is_last(x, axis));
        (last && node.number("keepdims") != Some(0)).then_some((at, x))
    }

    fn is_last(&self, value: &str, axis: i64) -> bool {
        axis == -1 || self.ranks.get(value).is_some_and(|rank| axis == *rank as i64 - 1)
    }

    /// The normalisation that ends with a node.
    fn norm(&self, last: usize) -> Option<Norm> {
        let node = &self.graph.nodes[last];
        let norm = match &node.operator[..] {
            "LayerNormalization" => self.whole(last)?,
            "Add" => self.of_parts(last)?,
            _ => return None,
        };
        let length = self.list(&norm.scale)?;
        let inner = norm.nodes.iter().filter(|at| **at != last);
        let inner = inner.flat_map(|at| &self.graph.nodes[*at].outputs);
        let closed = inner.into_iter().all(|value| self.is_read_by(value, &norm.nodes));
        (length > 0 && self.list(&norm.shift) == Some(length) && closed).then_some(norm)
    }

    /// As ONNX's operator has it.
    fn whole(&self, last: usize) -> Option<Norm> {
        let node = &self.graph.nodes[last];
        let ([x, scale, shift], [_]) = (&node.inputs[..], &node.outputs[..]) else { return None };
        let epsilon = match node.attribute("epsilon") {
            Some(epsilon) => *reals(epsilon, onnx::ATTRIBUTE_REAL).first()?,
            None => USUAL_EPSILON,
        };
        let is_last = node.number("axis").is_none_or(|axis| self.is_last(x, axis));
        let [x, scale, shift] = [x, scale, shift].map(Clone::clone);
        (is_last && node.domain().is_none()).then(|| Norm { x, scale, shift, epsilon, nodes: vec![last] })
    }

    /// As it is written where there is no such operator: `(x - mean) / √(mean of (x - mean)² + ε) × scale + shift`.
    fn of_parts(&self, last: usize) -> Option<Norm> {
        let add = &self.graph.nodes[last];
        let (scaled, shift) = self.either(&add.inputs, |name| self.named_list(name))?;
        let (mul_at, mul) = self.made_by(scaled, "Mul")?;
        let (divided, scale) = self.either(&mul.inputs, |name| self.named_list(name))?;
        let (div_at, div) = self.made_by(divided, "Div")?;
        let [centred, deviation] = &div.inputs[..] else { return None };
        let (sub_at, sub) = self.made_by(centred, "Sub")?;
        let [x, mean] = &sub.inputs[..] else { return None };
        let (mean_at, of) = self.mean_of(mean)?;
        let (sqrt_at, sqrt) = self.made_by(deviation, "Sqrt")?;
        let (sum_at, sum) = self.made_by(sqrt.inputs.first()?, "Add")?;
        let (variance, epsilon) = self.either(&sum.inputs, |name| self.number(name))?;
        let (variance_at, squares) = self.mean_of(variance)?;
        let (square_at, squared) = self.square_of(squares)?;
        // Some write the difference twice.
        let (again_at, again) = self.made_by(squared, "Sub")?;
        let mut nodes = vec![mean_at, sub_at, again_at, square_at, variance_at, sum_at, sqrt_at, div_at, mul_at, last];
        nodes.dedup();
        let [x, scale, shift] = [x, scale, shift].map(str::to_owned);
        (of == x && again.inputs == sub.inputs).then_some(Norm { x, scale, shift, epsilon, nodes })
    }

    /// What is squared.
    fn square_of(&self, value: &str) -> Option<(usize, &'a str)> {
        if let Some((at, pow)) = self.made_by(value, "Pow") {
            let [x, power] = &pow.inputs[..] else { return None };
            let whole = self.graph.weights.get(power).and_then(|power| power.number);
            return (self.number(power) == Some(2.0) || whole == Some(2)).then_some((at, x));
        }
        let (at, mul) = self.made_by(value, "Mul")?;
        matches!(&mul.inputs[..], [one, other] if one == other).then(|| (at, mul.inputs[0].as_str()))
    }

    /// The node for a normalisation, with the sum before it where that is of a layer's product and what the layer was given; and what it
    /// stands for.
    fn fused(&self, norm: Norm) -> (Vec<usize>, Node) {
        let Norm { x, scale, shift, epsilon, mut nodes } = norm;
        let sum = self.sum(&x, &nodes);
        let (before, inputs) = match &sum {
            Some((at, [product, bias, skip])) => {
                nodes.splice(0..0, at.iter().copied());
                (Before::BiasAndSum, vec![*product, *bias, *skip])
            }
            None => (Before::Nothing, vec![x.as_str()]),
        };
        let inputs = inputs.into_iter().chain([scale.as_str(), shift.as_str()]);
        let node = inputs.fold(Message::default(), |node, input| node.bytes(onnx::NODE_INPUTS, input));
        let last = nodes.last().map(|at| &self.graph.nodes[*at].outputs);
        let node = last.into_iter().flatten().fold(node, |node, output| node.bytes(onnx::NODE_OUTPUTS, output));
        let attribute = Message::default().bytes(onnx::ATTRIBUTE_NAME, EPSILON);
        let attribute = attribute.real(onnx::ATTRIBUTE_REAL, epsilon).number(onnx::ATTRIBUTE_TYPE, onnx::IS_REAL);
        let node = node.bytes(onnx::NODE_OPERATOR, before.operator()).bytes(onnx::NODE_DOMAIN, DOMAIN);
        (nodes, Node::read(&node.bytes(onnx::NODE_ATTRIBUTES, attribute).into_bytes()))
    }

    /// `product + bias + skip`, and the two nodes that add them up, where only the nodes `within` read the sum.
    fn sum(&self, value: &str, within: &[usize]) -> Option<([usize; 2], [&'a str; 3])> {
        let (outer_at, outer) = self.made_by(value, "Add").filter(|_| self.is_read_by(value, within))?;
        let is_tokens = |name: &str| self.ranks.get(name) == Some(&3) && !self.graph.weights.contains_key(name);
        let biased = |name: &str| {
            let (at, add) = self.made_by(name, "Add").filter(|_| self.is_read_by(name, &[outer_at]))?;
            let (product, bias) = self.either(&add.inputs, |name| self.named_list(name))?;
            // As long as it is wide: a bias of one number would be for all.
            let matrix = self.made_by(product, "MatMul")?.1.inputs.get(1)?;
            let wide = self.graph.weights.get(matrix)?.sizes.last().copied();
            (self.list(bias) == wide).then_some((at, [product, bias]))
        };
        let (skip, (at, [product, bias])) = self.either(&outer.inputs, biased)?;
        (is_tokens(product) && is_tokens(skip)).then_some(([at, outer_at], [product, bias, skip]))
    }
}
