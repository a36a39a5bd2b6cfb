//! A graph without its weights, which the runtime reads where they lie: in the file itself, that is mapped into memory. And without
//! what nobody reads: where all that comes of a text comes of its first token, the last layer is computed for that one alone.
//!
//! Parsed as a whole, a file is in memory twice while it is loaded, and what is copied out of it stays there; mapped, only what is
//! read takes memory, and weights that the runtime arranges anew take none beside that.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use super::protobuf::{Field, Message, Place, each_field, fields, numbers, odd, parts};

/// Numbers of fields and values in `onnx.proto`.
mod onnx {
    pub const MODEL_GRAPH: u64 = 7;
    pub const GRAPH_NODES: u64 = 1;
    pub const GRAPH_WEIGHTS: u64 = 5;
    pub const GRAPH_INPUTS: u64 = 11;
    pub const GRAPH_OUTPUTS: u64 = 12;
    pub const VALUE_NAME: u64 = 1;
    pub const VALUE_TYPE: u64 = 2;
    pub const TYPE_TENSOR: u64 = 1;
    pub const TENSOR_TYPE_SHAPE: u64 = 2;
    pub const SHAPE_SIZES: u64 = 1;
    pub const NODE_INPUTS: u64 = 1;
    pub const NODE_OUTPUTS: u64 = 2;
    pub const NODE_OPERATOR: u64 = 4;
    pub const NODE_ATTRIBUTES: u64 = 5;
    pub const ATTRIBUTE_NAME: u64 = 1;
    pub const ATTRIBUTE_NUMBER: u64 = 3;
    pub const ATTRIBUTE_TENSOR: u64 = 5;
    pub const ATTRIBUTE_GRAPHS: [u64; 2] = [6, 11];
    pub const ATTRIBUTE_NUMBERS: u64 = 8;
    pub const TENSOR_SIZES: u64 = 1;
    pub const TENSOR_TYPE: u64 = 2;
    pub const TENSOR_NUMBERS: u64 = 7;
    pub const TENSOR_NAME: u64 = 8;
    pub const TENSOR_BYTES: u64 = 9;
    pub const TENSOR_PLACE: u64 = 13;
    pub const TENSOR_LOCATION: u64 = 14;
    pub const PLACE_KEY: u64 = 1;
    pub const PLACE_VALUE: u64 = 2;
    pub const ELSEWHERE: u64 = 1;
    pub const INT64: u64 = 7;
}

/// Bytes of weights that are left in the graph: what is read while it is made ready, such as the sizes of a shape.
const SMALL: u64 = 4096;

/// Most bytes of what is not weights. The largest known have some.
const MOST_BYTES: u64 = 64 << 20;

/// A graph as it is given to a runtime, and what is known of it.
pub(super) struct LeanGraph {
    /// All but the graph.
    around: Message,
    nodes: Vec<Node>,
    /// Of the graph, all but the nodes.
    rest: Message,
    /// By name: the sizes of weights, and whole numbers where there is but one.
    weights: HashMap<String, Weights>,
    /// Names of inputs and how many sizes they have.
    inputs: HashMap<String, usize>,
    outputs: HashSet<String>,
}

struct Weights {
    sizes: Vec<usize>,
    number: Option<i64>,
}

struct Node {
    raw: Vec<u8>,
    operator: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl LeanGraph {
    /// Of a file; `None` where there is none in it.
    ///
    /// # Errors
    /// Where it cannot be read, is not as expected, or something else in it than weights is large.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
        let mut file = BufReader::new(File::open(path)?);
        let end = file.get_ref().metadata()?.len();
        let mut lean = Self {
            around: Message::default(),
            nodes: Vec::new(),
            rest: Message::default(),
            weights: HashMap::new(),
            inputs: HashMap::new(),
            outputs: HashSet::new(),
        };
        let mut left = MOST_BYTES;
        each_field(&mut file, end, &mut |file, number, place| {
            if number != onnx::MODEL_GRAPH {
                return copy(file, &mut lean.around, number, place, &mut left);
            }
            let end = file.stream_position()?.saturating_add(place.length());
            each_field(file, end, &mut |file, number, place| match number {
                onnx::GRAPH_NODES => {
                    lean.nodes.push(Node::read(&bytes(file, place, &mut left)?));
                    Ok(())
                }
                onnx::GRAPH_WEIGHTS if place.length() > SMALL => {
                    let tensor = without_bytes(file, place, name, &mut left)?.into_bytes();
                    lean.know(&tensor);
                    lean.rest.add(number, &tensor);
                    Ok(())
                }
                onnx::GRAPH_WEIGHTS | onnx::GRAPH_INPUTS | onnx::GRAPH_OUTPUTS => {
                    let value = bytes(file, place, &mut left)?;
                    match number {
                        onnx::GRAPH_WEIGHTS => lean.know(&value),
                        onnx::GRAPH_INPUTS => lean.inputs.extend(input(&value)),
                        _ => lean.outputs.extend(text(&value, onnx::VALUE_NAME)),
                    }
                    lean.rest.add(number, &value);
                    Ok(())
                }
                _ => copy(file, &mut lean.rest, number, place, &mut left),
            })
        })?;
        Ok((!lean.nodes.is_empty()).then_some(lean))
    }

    /// The names of what the graph asks for.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.inputs.keys().map(String::as_str)
    }

    /// The bytes of the whole, beside whose file the weights lie.
    pub fn into_bytes(self) -> Vec<u8> {
        let graph = self.nodes.into_iter().fold(self.rest, |graph, node| graph.bytes(onnx::GRAPH_NODES, node.raw));
        self.around.bytes(onnx::MODEL_GRAPH, graph).into_bytes()
    }

    fn know(&mut self, tensor: &[u8]) {
        self.weights.extend(text(tensor, onnx::TENSOR_NAME).map(|name| (name, Weights::read(tensor))));
    }

    /// Has what follows the last attention computed for the first token of each text alone, where the graph itself reads no other one
    /// of it. Whether it could be.
    ///
    /// From `Gather(x, 0, axis: 1)` backwards, what makes each token's values of that token's alone, and is read by nothing else, is
    /// given the first token of what it reads. Nothing else changes: each value is made of the same ones as before.
    pub fn keep_first(&mut self) -> bool {
        let ranks = self.ranks();
        // A graph within reads values that its node does not name.
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

    /// How many sizes values have, as far as that is easily told. What constants there are becomes known with the weights.
    fn ranks(&mut self) -> HashMap<String, usize> {
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

impl Weights {
    fn read(tensor: &[u8]) -> Self {
        let sizes = numbers(tensor, onnx::TENSOR_SIZES).into_iter();
        let whole = numbers(tensor, onnx::TENSOR_TYPE) == [onnx::INT64 as i64];
        let bytes = parts(tensor, onnx::TENSOR_BYTES).next().filter(|_| whole);
        let number = match (bytes.map(<[u8; 8]>::try_from), &numbers(tensor, onnx::TENSOR_NUMBERS)[..]) {
            (Some(Ok(bytes)), _) => Some(i64::from_le_bytes(bytes)),
            (None, [number]) => Some(*number),
            _ => None,
        };
        Self { sizes: sizes.map(|size| usize::try_from(size).unwrap_or_default()).collect(), number }
    }
}

/// The bytes of a field.
fn bytes(file: &mut BufReader<File>, place: Place, left: &mut u64) -> io::Result<Vec<u8>> {
    let Place::Bytes(length) = place else { return Err(odd()) };
    *left = left.checked_sub(length).ok_or_else(odd)?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(odd()) }
}

/// Adds a field as it is.
fn copy(
    file: &mut BufReader<File>,
    message: &mut Message,
    number: u64,
    place: Place,
    left: &mut u64,
) -> io::Result<()> {
    match place {
        Place::Number(value) => *message = std::mem::take(message).number(number, value),
        Place::Bytes(_) => message.add(number, bytes(file, place, left)?),
        Place::Fixed => return Err(odd()),
    }
    Ok(())
}

/// Weights with the place of their bytes, in the file called `name`, instead of the bytes.
fn without_bytes(file: &mut BufReader<File>, place: Place, name: &str, left: &mut u64) -> io::Result<Message> {
    let (mut tensor, mut found) = (Message::default(), None);
    let end = file.stream_position()?.saturating_add(place.length());
    each_field(file, end, &mut |file, number, place| {
        if number == onnx::TENSOR_BYTES && place.length() > SMALL {
            found = Some([file.stream_position()?, place.length()]);
            return Ok(());
        }
        copy(file, &mut tensor, number, place, left)
    })?;
    let Some([offset, length]) = found else { return Ok(tensor) };
    // What is not there is not looked for when it is needed.
    if file.get_ref().metadata()?.len() < offset.saturating_add(length) {
        return Err(odd());
    }
    let pairs = [("location", name.to_owned()), ("offset", offset.to_string()), ("length", length.to_string())];
    let tensor = pairs.into_iter().fold(tensor, |tensor, (key, value)| {
        tensor.bytes(onnx::TENSOR_PLACE, Message::default().bytes(onnx::PLACE_KEY, key).bytes(onnx::PLACE_VALUE, value))
    });
    Ok(tensor.number(onnx::TENSOR_LOCATION, onnx::ELSEWHERE))
}

/// The name of an input, and how many sizes it has.
fn input(value: &[u8]) -> Option<(String, usize)> {
    let kinds = parts(value, onnx::VALUE_TYPE).flat_map(|kind| parts(kind, onnx::TYPE_TENSOR));
    let shape = kinds.flat_map(|tensor| parts(tensor, onnx::TENSOR_TYPE_SHAPE)).next()?;
    Some((text(value, onnx::VALUE_NAME)?, parts(shape, onnx::SHAPE_SIZES).count()))
}

fn text(message: &[u8], field: u64) -> Option<String> {
    Some(std::str::from_utf8(parts(message, field).next()?).ok()?.to_owned())
}

/// From where, to where and along what the first token is taken.
const SLICE: [(&str, i64); 3] = [("embedcore.begin", 0), ("embedcore.end", 1), ("embedcore.axis", 1)];

/// What the first token of a value is called.
fn first_of(value: &str) -> String {
    format!("embedcore.first.{value}")
}

impl Node {
    fn read(bytes: &[u8]) -> Self {
        let texts =
            |field| parts(bytes, field).map(|text| String::from_utf8_lossy(text).into_owned()).collect::<Vec<_>>();
        Self {
            operator: texts(onnx::NODE_OPERATOR).pop().unwrap_or_default(),
            inputs: texts(onnx::NODE_INPUTS),
            outputs: texts(onnx::NODE_OUTPUTS),
            raw: bytes.to_vec(),
        }
    }

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
            Field::Fixed => node,
        });
        Self::read(&node.into_bytes())
    }

    fn attributes(&self) -> impl Iterator<Item = &[u8]> {
        parts(&self.raw, onnx::NODE_ATTRIBUTES)
    }

    fn attribute(&self, name: &str) -> Option<&[u8]> {
        self.attributes().find(|attribute| parts(attribute, onnx::ATTRIBUTE_NAME).next() == Some(name.as_bytes()))
    }

    fn number(&self, name: &str) -> Option<i64> {
        numbers(self.attribute(name)?, onnx::ATTRIBUTE_NUMBER).first().copied()
    }

    fn numbers(&self, name: &str) -> Vec<i64> {
        self.attribute(name).map_or_else(Vec::new, |attribute| numbers(attribute, onnx::ATTRIBUTE_NUMBERS))
    }

    fn has_graph(&self) -> bool {
        self.attributes()
            .any(|attribute| onnx::ATTRIBUTE_GRAPHS.iter().any(|field| parts(attribute, *field).next().is_some()))
    }

    fn constant(&self) -> Option<Weights> {
        let tensor = |attribute| parts(attribute, onnx::ATTRIBUTE_TENSOR).next().map(Weights::read);
        self.attributes().find_map(tensor)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models").join(name).join("onnx/model.onnx")
    }

    fn read(name: &str) -> LeanGraph {
        LeanGraph::read(&file(name)).unwrap().unwrap()
    }

    /// A graph as it is read from a file; each node by its operator, what it reads and what it gives.
    fn graph(nodes: &[(&str, &[&str], &str)], outputs: &[&str]) -> LeanGraph {
        let attribute = |name: &str, value: u64| {
            Message::default().bytes(onnx::ATTRIBUTE_NAME, name).number(onnx::ATTRIBUTE_NUMBER, value).number(20, 2)
        };
        let node = |(operator, inputs, output): &(&str, &[&str], &str)| {
            let node = inputs.iter().fold(Message::default(), |node, input| node.bytes(onnx::NODE_INPUTS, input));
            let node = node.bytes(onnx::NODE_OUTPUTS, output).bytes(onnx::NODE_OPERATOR, operator);
            if *operator == "Gather" { node.bytes(onnx::NODE_ATTRIBUTES, attribute("axis", 1)) } else { node }
        };
        let weights = |name: &str, sizes: &[u64], kind: u64, bytes: &[u8]| {
            let tensor = sizes.iter().fold(Message::default(), |tensor, size| tensor.number(onnx::TENSOR_SIZES, *size));
            let tensor = tensor.number(onnx::TENSOR_TYPE, kind).bytes(onnx::TENSOR_NAME, name);
            tensor.bytes(onnx::TENSOR_BYTES, bytes)
        };
        let port = |name: &str, sizes: usize| {
            let shape = (0..sizes).fold(Message::default(), |shape, _| shape.bytes(onnx::SHAPE_SIZES, []));
            let tensor = Message::default().number(1, 1).bytes(onnx::TENSOR_TYPE_SHAPE, shape);
            let kind = Message::default().bytes(onnx::TYPE_TENSOR, tensor);
            Message::default().bytes(onnx::VALUE_NAME, name).bytes(onnx::VALUE_TYPE, kind)
        };
        let all = nodes.iter().fold(Message::default(), |graph, one| graph.bytes(onnx::GRAPH_NODES, node(one)));
        let all = all
            .bytes(onnx::GRAPH_WEIGHTS, weights("w", &[4, 4], 1, &[0; 64]))
            .bytes(onnx::GRAPH_WEIGHTS, weights("bias", &[4], 1, &[0; 16]))
            .bytes(onnx::GRAPH_WEIGHTS, weights("places", &[8, 4], 1, &[0; 128]))
            .bytes(onnx::GRAPH_WEIGHTS, weights("first", &[], onnx::INT64, &[0; 8]))
            .bytes(onnx::GRAPH_WEIGHTS, weights("second", &[], onnx::INT64, &1_i64.to_le_bytes()))
            .bytes(onnx::GRAPH_INPUTS, port("tokens", 3))
            .bytes(onnx::GRAPH_INPUTS, port("rows", 2));
        let all = outputs.iter().fold(all, |graph, name| graph.bytes(onnx::GRAPH_OUTPUTS, port(name, 2)));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.onnx");
        std::fs::write(&path, Message::default().number(1, 8).bytes(onnx::MODEL_GRAPH, all).into_bytes()).unwrap();
        LeanGraph::read(&path).unwrap().unwrap()
    }

    #[test]
    fn cross_encoders_read_the_first_token_alone_and_others_do_not() {
        for name in ["cross-encoder", "cross-encoder-labels", "cross-encoder-roberta", "cross-encoder-second"] {
            let mut lean = read(name);
            let before = lean.nodes.len();
            assert!(lean.keep_first(), "{name}");
            let slices = lean.nodes.iter().filter(|node| node.outputs[0].starts_with("embedcore.first.")).count();
            assert_eq!((slices, lean.nodes.len()), (2, before + 2), "{name}");
        }
        for name in ["bert-mean", "splade", "colbert", "causal-reranker", "decoder-cache", "heavy-cross"] {
            assert!(!read(name).keep_first(), "{name}");
        }
    }

    #[test]
    fn weights_are_left_where_they_lie() {
        let whole = std::fs::metadata(file("cross-encoder")).unwrap().len();
        let lean = read("cross-encoder").into_bytes();
        assert!((lean.len() as u64) < whole, "{} of {whole}", lean.len());
        let bytes = std::fs::read(file("cross-encoder")).unwrap();
        let mut places = 0;
        for tensor in parts(&lean, onnx::MODEL_GRAPH).flat_map(|graph| parts(graph, onnx::GRAPH_WEIGHTS)) {
            let pairs = parts(tensor, onnx::TENSOR_PLACE);
            let pairs: HashMap<String, String> = pairs
                .map(|pair| (text(pair, onnx::PLACE_KEY).unwrap(), text(pair, onnx::PLACE_VALUE).unwrap()))
                .collect();
            let Some(offset) = pairs.get("offset") else { continue };
            let [offset, length] = [offset, &pairs["length"]].map(|number| number.parse::<usize>().unwrap());
            let name = text(tensor, onnx::TENSOR_NAME).unwrap();
            let mut all = parts(&bytes, onnx::MODEL_GRAPH).flat_map(|graph| parts(graph, onnx::GRAPH_WEIGHTS));
            let own = all.find(|own| text(own, onnx::TENSOR_NAME).as_ref() == Some(&name)).unwrap();
            assert_eq!(Some(&bytes[offset..offset + length]), parts(own, onnx::TENSOR_BYTES).next());
            assert_eq!((pairs["location"].as_str(), parts(tensor, onnx::TENSOR_BYTES).count()), ("model.onnx", 0));
            places += 1;
        }
        assert!(places > 1, "{places}");
    }

    #[test]
    fn what_is_not_by_token_or_read_elsewhere_is_left_as_it_is() {
        let layer: &[(&str, &[&str], &str)] = &[
            ("Softmax", &["tokens"], "x"),
            ("MatMul", &["x", "w"], "y"),
            ("Add", &["y", "bias"], "z"),
            ("Gather", &["z", "first"], "f"),
        ];
        let with = |at: usize, node: (&'static str, &'static [&'static str], &'static str)| {
            let mut nodes = layer.to_vec();
            nodes.insert(at, node);
            nodes
        };
        assert!(graph(layer, &["f"]).keep_first());
        // Another output, another reader, another token, a value for each place, one that is no list of tokens.
        assert!(!graph(layer, &["f", "z"]).keep_first());
        assert!(!graph(&with(3, ("Softmax", &["z"], "other")), &["f", "other"]).keep_first());
        let replaced = |at: usize, node| {
            let mut nodes = layer.to_vec();
            nodes[at] = node;
            graph(&nodes, &["f"]).keep_first()
        };
        assert!(!replaced(3, ("Gather", &["z", "second"], "f")));
        assert!(!replaced(2, ("Add", &["y", "places"], "z")));
        assert!(!replaced(2, ("Add", &["y", "rows"], "z")));
        assert!(!replaced(1, ("MatMul", &["x", "x"], "y")));
        // What nobody knows, and an input of the graph.
        assert!(!replaced(0, ("Unheard", &["tokens"], "x")));
        assert!(!graph(&[("MatMul", &["tokens", "w"], "y"), ("Gather", &["y", "first"], "f")], &["f"]).keep_first());
    }

    #[test]
    fn what_is_no_graph_is_an_error_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.onnx");
        let whole = std::fs::read(file("cross-encoder")).unwrap();
        for bytes in [&b""[..], b"not a graph at all", &[0xff; 64], &whole[..whole.len() / 2], &[0x3a, 0x02]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(!matches!(LeanGraph::read(&path), Ok(Some(graph)) if graph.nodes.is_empty()));
        }
        assert!(LeanGraph::read(&directory.path().join("nothing")).is_err());
    }
}
