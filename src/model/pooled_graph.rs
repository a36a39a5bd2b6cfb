//! A graph that pools by itself, for processors to which the way is long: of `rows × tokens × width` values that a device has
//! computed, only `rows × width` come back.
//!
//! Nodes are added to the graph rather than run as a second one: then there is one session, the runtime decides where each node runs,
//! and nothing has to be known of any device's memory. A protobuf message may be given in pieces, whose lists are joined; so
//! what is added is bytes after the file, which itself is not understood beyond its outputs.
//!
//! How much each token counts is an input, so that a mean, a first or a last token are all the same product of matrices.

use super::pooling::{Activation, Dense, Head, Layer, Pooling, Residual};
use super::protobuf::{Field, Message, fields, parts};
use super::session::{Kind, Port};

/// What the inputs are called, each with the number of its pooling behind it, and the output.
const WEIGHTS: &str = "embedcore.weights.";
pub(super) const POOLED: &str = "embedcore.pooled";

/// Numbers of fields and values in `onnx.proto`.
mod onnx {
    pub const MODEL_GRAPH: u64 = 7;
    pub const MODEL_OPSETS: u64 = 8;
    pub const OPSET_DOMAIN: u64 = 1;
    pub const OPSET_VERSION: u64 = 2;
    pub const GRAPH_NODES: u64 = 1;
    pub const GRAPH_INPUTS: u64 = 11;
    pub const GRAPH_OUTPUTS: u64 = 12;
    pub const VALUE_NAME: u64 = 1;
    pub const VALUE_TYPE: u64 = 2;
    pub const TYPE_TENSOR: u64 = 1;
    pub const TENSOR_TYPE_ELEMENTS: u64 = 1;
    pub const TENSOR_TYPE_SHAPE: u64 = 2;
    pub const SHAPE_SIZES: u64 = 1;
    pub const SIZE_VALUE: u64 = 1;
    pub const NODE_INPUTS: u64 = 1;
    pub const NODE_OUTPUTS: u64 = 2;
    pub const NODE_NAME: u64 = 3;
    pub const NODE_OPERATOR: u64 = 4;
    pub const NODE_ATTRIBUTES: u64 = 5;
    pub const ATTRIBUTE_NAME: u64 = 1;
    pub const ATTRIBUTE_NUMBER: u64 = 3;
    pub const ATTRIBUTE_TENSOR: u64 = 5;
    pub const ATTRIBUTE_NUMBERS: u64 = 8;
    pub const ATTRIBUTE_TYPE: u64 = 20;
    pub const TENSOR_SIZES: u64 = 1;
    pub const TENSOR_TYPE: u64 = 2;
    pub const TENSOR_BYTES: u64 = 9;
    pub const FLOAT: u64 = 1;
    pub const INT64: u64 = 7;
    pub const FLOAT16: u64 = 10;
    pub const IS_NUMBER: u64 = 2;
    pub const IS_TENSOR: u64 = 4;
    pub const IS_NUMBERS: u64 = 7;
}

/// Since when sums stretch what is shorter, and since when axes are an input.
const STRETCHES: u64 = 7;
const AXES_ARE_INPUT: u64 = 18;

/// What a file says of its graph.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// The names of its inputs.
    pub inputs: Vec<String>,
    pub outputs: Vec<Port>,
    /// The version of the operators that it is written in.
    pub opset: Option<u64>,
}

impl Declared {
    /// By the bytes of the file, as far as they are what they should be.
    pub fn read(file: &[u8]) -> Self {
        let values = |field| parts(file, onnx::MODEL_GRAPH).flat_map(move |graph| parts(graph, field));
        let opset = parts(file, onnx::MODEL_OPSETS).find_map(|opset| {
            let domain = parts(opset, onnx::OPSET_DOMAIN).next().unwrap_or_default();
            matches!(domain, b"" | b"ai.onnx").then(|| value(opset, onnx::OPSET_VERSION)).flatten()
        });
        Self {
            inputs: values(onnx::GRAPH_INPUTS).filter_map(name).collect(),
            outputs: values(onnx::GRAPH_OUTPUTS).filter_map(port).collect(),
            opset,
        }
    }
}

fn name(value: &[u8]) -> Option<String> {
    Some(std::str::from_utf8(parts(value, onnx::VALUE_NAME).next()?).ok()?.to_owned())
}

fn value(message: &[u8], wanted: u64) -> Option<u64> {
    fields(message).find_map(|(number, field)| match field {
        Field::Number(value) if number == wanted => Some(value),
        _ => None,
    })
}

fn port(output: &[u8]) -> Option<Port> {
    let name = name(output)?;
    let tensor = parts(output, onnx::VALUE_TYPE).flat_map(|kind| parts(kind, onnx::TYPE_TENSOR)).next()?;
    let kind = match value(tensor, onnx::TENSOR_TYPE_ELEMENTS)? {
        onnx::FLOAT => Kind::Float32,
        onnx::FLOAT16 => Kind::Float16,
        other => Kind::Other(other.to_string()),
    };
    let sizes = parts(tensor, onnx::TENSOR_TYPE_SHAPE).flat_map(|shape| parts(shape, onnx::SHAPE_SIZES));
    let dims = sizes.map(|size| value(size, onnx::SIZE_VALUE).and_then(|value| usize::try_from(value).ok())).collect();
    Some(Port { name, kind, dims })
}

/// What makes a graph pool: see [`Extension::of`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Extension {
    /// What follows the file.
    pub bytes: Vec<u8>,
    /// What the inputs that were added weigh tokens for, in their order.
    pub poolings: Vec<Pooling>,
    /// How many of the layers after pooling the graph computes.
    pub layers: usize,
}

impl Extension {
    /// Pooling as `head` does it, of the output `hidden`, and those of its layers that come next and are products of matrices. `None`
    /// where a graph of this version, or this output, cannot be extended.
    pub fn of(head: &Head, hidden: &Port, opset: u64) -> Option<Self> {
        let half = match hidden.kind {
            Kind::Float32 => false,
            Kind::Float16 => true,
            _ => return None,
        };
        if head.pooling.is_empty() || !head.tokens.is_empty() || opset < STRETCHES {
            return None;
        }
        let mut graph = Graph { opset, message: Message::default(), count: 0 };
        let tokens = match half {
            true => graph.node("Cast", &[&hidden.name], &[number("to", onnx::FLOAT)]),
            false => hidden.name.clone(),
        };
        let pooled: Vec<String> =
            head.pooling.iter().enumerate().map(|(at, pooling)| graph.pool(at, *pooling, &tokens)).collect();
        let joined = match &pooled[..] {
            [one] => one.clone(),
            several => {
                let names: Vec<&str> = several.iter().map(String::as_str).collect();
                graph.node("Concat", &names, &[number("axis", 1)])
            }
        };
        let mut vectors = graph.reshape(&joined, &[0, -1]);
        // Whether layers fit is known where the width is.
        let mut width = hidden.dims.last().copied().flatten().and_then(|width| width.checked_mul(head.pooling.len()));
        let mut layers = 0;
        for layer in &head.layers {
            let (Layer::Dense(dense), Some(known)) = (layer, width) else { break };
            if dense.inputs != known {
                break;
            }
            vectors = graph.dense(dense, &vectors);
            width = Some(dense.outputs);
            layers += 1;
        }
        graph.name(&vectors, POOLED);
        let inputs = (0..head.pooling.len()).map(|at| matrix_port(&format!("{WEIGHTS}{at}")));
        let graph = inputs.fold(graph.message, |graph, input| graph.bytes(onnx::GRAPH_INPUTS, input));
        let graph = graph.bytes(onnx::GRAPH_OUTPUTS, matrix_port(POOLED));
        let bytes = Message::default().bytes(onnx::MODEL_GRAPH, graph).into_bytes();
        Some(Self { bytes, poolings: head.pooling.clone(), layers })
    }

    /// Which of the poolings an input of that name weighs tokens for.
    pub fn place(name: &str) -> Option<usize> {
        name.strip_prefix(WEIGHTS)?.parse().ok()
    }
}

/// Nodes that are added.
struct Graph {
    opset: u64,
    message: Message,
    count: usize,
}

impl Graph {
    fn add(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: &[Message]) {
        let node = inputs.iter().fold(Message::default(), |node, input| node.bytes(onnx::NODE_INPUTS, input));
        let node =
            node.bytes(onnx::NODE_OUTPUTS, output).bytes(onnx::NODE_NAME, output).bytes(onnx::NODE_OPERATOR, operator);
        let node = attributes.iter().fold(node, |node, attribute| node.bytes(onnx::NODE_ATTRIBUTES, attribute));
        self.message = std::mem::take(&mut self.message).bytes(onnx::GRAPH_NODES, node);
    }

    /// A node; gives the name of its output.
    fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[Message]) -> String {
        let output = format!("embedcore.{}", self.count);
        self.count += 1;
        self.add(operator, inputs, &output, attributes);
        output
    }

    /// Gives a value a name.
    fn name(&mut self, value: &str, name: &str) {
        self.add("Identity", &[value], name, &[]);
    }

    fn constant(&mut self, sizes: &[usize], kind: u64, bytes: &[u8]) -> String {
        let tensor =
            sizes.iter().fold(Message::default(), |tensor, size| tensor.number(onnx::TENSOR_SIZES, *size as u64));
        let tensor = tensor.number(onnx::TENSOR_TYPE, kind).bytes(onnx::TENSOR_BYTES, bytes);
        let attribute = Message::default().bytes(onnx::ATTRIBUTE_NAME, "value").bytes(onnx::ATTRIBUTE_TENSOR, tensor);
        self.node("Constant", &[], &[attribute.number(onnx::ATTRIBUTE_TYPE, onnx::IS_TENSOR)])
    }

    fn numbers(&mut self, numbers: &[i64]) -> String {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.constant(&[numbers.len()], onnx::INT64, &bytes)
    }

    fn matrix(&mut self, sizes: &[usize], values: impl Iterator<Item = f32>) -> String {
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        self.constant(sizes, onnx::FLOAT, &bytes)
    }

    fn reshape(&mut self, value: &str, sizes: &[i64]) -> String {
        let sizes = self.numbers(sizes);
        self.node("Reshape", &[value, &sizes], &[])
    }

    /// `rows × 1 × width`.
    fn pool(&mut self, at: usize, pooling: Pooling, tokens: &str) -> String {
        let weights = format!("{WEIGHTS}{at}");
        if pooling != Pooling::Max {
            let row = self.reshape(&weights, &[0, 1, -1]);
            return self.node("MatMul", &[&row, tokens], &[]);
        }
        let column = self.reshape(&weights, &[0, -1, 1]);
        let sum = self.node("Add", &[tokens, &column], &[]);
        let keep = number("keepdims", 1);
        if self.opset >= AXES_ARE_INPUT {
            let axes = self.numbers(&[1]);
            return self.node("ReduceMax", &[&sum, &axes], &[keep]);
        }
        let axes = Message::default().bytes(onnx::ATTRIBUTE_NAME, "axes").number(onnx::ATTRIBUTE_NUMBERS, 1);
        self.node("ReduceMax", &[&sum], &[keep, axes.number(onnx::ATTRIBUTE_TYPE, onnx::IS_NUMBERS)])
    }

    fn dense(&mut self, dense: &Dense, x: &str) -> String {
        let Dense { inputs, outputs, .. } = *dense;
        let transposed = |weight: &[f32]| {
            let columns = (0..inputs).flat_map(|input| (0..outputs).map(move |output| output * inputs + input));
            columns.map(|at| weight[at]).collect::<Vec<f32>>()
        };
        let weight = self.matrix(&[inputs, outputs], transposed(&dense.weight).into_iter());
        let mut y = self.node("MatMul", &[x, &weight], &[]);
        if !dense.bias.is_empty() {
            let bias = self.matrix(&[outputs], dense.bias.iter().copied());
            y = self.node("Add", &[&y, &bias], &[]);
        }
        if dense.activation == Activation::Tanh {
            y = self.node("Tanh", &[&y], &[]);
        }
        match &dense.residual {
            Residual::None => y,
            Residual::Input => self.node("Add", &[&y, x], &[]),
            Residual::Weight(weight) => {
                let weight = self.matrix(&[inputs, outputs], transposed(weight).into_iter());
                let image = self.node("MatMul", &[x, &weight], &[]);
                self.node("Add", &[&y, &image], &[])
            }
        }
    }
}

fn number(name: &str, value: u64) -> Message {
    let attribute = Message::default().bytes(onnx::ATTRIBUTE_NAME, name).number(onnx::ATTRIBUTE_NUMBER, value);
    attribute.number(onnx::ATTRIBUTE_TYPE, onnx::IS_NUMBER)
}

/// An input or an output of 32-bit numbers, of rows and columns without known sizes.
fn matrix_port(name: &str) -> Message {
    let shape = Message::default().bytes(onnx::SHAPE_SIZES, []).bytes(onnx::SHAPE_SIZES, []);
    let tensor =
        Message::default().number(onnx::TENSOR_TYPE_ELEMENTS, onnx::FLOAT).bytes(onnx::TENSOR_TYPE_SHAPE, shape);
    let kind = Message::default().bytes(onnx::TYPE_TENSOR, tensor);
    Message::default().bytes(onnx::VALUE_NAME, name).bytes(onnx::VALUE_TYPE, kind)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cancel::Cancel;
    use crate::embedding::Tokens;
    use crate::model::onnx::OnnxSession;
    use crate::model::session::Session;
    use crate::model::{Compute, Files, ModelOptions, Provider, Source, Unloaded, set_addon_directory};

    fn tokens(length: usize, prompt: usize) -> Tokens {
        Tokens { ids: (0..length as u32).map(|id| id * 7 % 20).collect(), total: length, prompt, ..Tokens::default() }
    }

    #[test]
    fn a_graph_that_pools_gives_what_pooling_its_tokens_gives() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut packages = std::fs::read_dir(root.join("npm")).unwrap().flatten().map(|entry| entry.path());
        let library = packages.find(|path| path.join(env!("EMBEDCORE_ORT_FILE")).is_file());
        set_addon_directory(library.unwrap_or_else(|| panic!("run `python3 scripts/fetch_onnxruntime.py` first")));
        // What there is to be computed beside pooling.
        let models = [
            ("bert-mean", 0),
            ("bert-cls", 0),
            ("bert-max", 0),
            ("bert-dense", 1),
            ("bert-dense-identity", 2),
            ("bert-int32", 0),
            ("bert-fp16", 0),
            ("decoder-last-token", 0),
            ("decoder-left", 0),
            ("decoder-cache", 0),
            ("modernbert-mean", 0),
            ("mpnet-mean", 0),
            ("pooling-joined", 1),
            ("pooling-weighted", 0),
            ("roberta-positions", 0),
        ];
        for (name, layers) in models {
            // Twice the processor is the processor, too, but not alone.
            let extended = ModelOptions { providers: vec![Provider::Cpu, Provider::Cpu], ..ModelOptions::default() };
            let path = root.join("fixtures/models").join(name).display().to_string();
            let files = Files { id: name.to_owned(), path, origin: None };
            let unloaded = Unloaded::read(&Source::Files(files), &extended).unwrap();
            let Unloaded::Files(files) = &unloaded else { panic!("{name} has no files") };
            let session = OnnxSession::compile(&files.spec, &extended, &Cancel::default()).unwrap();
            assert_eq!(session.pooled().map(|pooled| pooled.layers), Some(layers), "{name}");
            let load = |options: &ModelOptions| {
                unloaded.load(Compute::REFERENCE, options, &Cancel::default(), || ()).0.unwrap()
            };
            let (plain, pooling) = (load(&ModelOptions::default()), load(&extended));
            let batch = [tokens(9, 2), tokens(5, 0), tokens(5, 4), tokens(1, 0)];
            let batch: Vec<&Tokens> = batch.iter().collect();
            let run = |model: &dyn crate::model::Model| model.run(&batch, &Cancel::default()).unwrap();
            for (one, other) in run(&*plain).iter().zip(run(&*pooling)) {
                assert_eq!(one.numbers().len(), other.numbers().len());
                let most = if name == "bert-fp16" { 2e-3 } else { 2e-6 };
                for (one, other) in one.numbers().iter().zip(other.numbers()) {
                    assert!((one - other).abs() <= most, "{name}: {one}, {other}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_graph_has_no_outputs() {
        for file in [&b""[..], b"not a graph at all", &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f], &[0xff; 40]] {
            let declared = Declared::read(file);
            assert!(declared.outputs.is_empty() && declared.inputs.is_empty() && declared.opset.is_none());
        }
    }
}
