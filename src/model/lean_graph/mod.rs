//! A graph without its weights, which the runtime reads where they lie: in the file itself, that is mapped into memory. And in fewer
//! steps: where all that comes of a text comes of its first token, the last layer is computed for that one alone; and layer
//! normalisation, with the sum before it, is one operator.
//!
//! Parsed as a whole, a file is in memory twice while it is loaded, and what is copied out of it stays there; mapped, only what is
//! read takes memory, and weights that the runtime arranges anew take none beside that.

mod first_token;
mod layer_norm;
mod links;
mod ranks;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use links::Links;

use super::protobuf::{Message, Place, each_field, numbers, odd, parts, reals};

/// Numbers of fields and values in `onnx.proto`.
mod onnx {
    pub const MODEL_GRAPH: u64 = 7;
    pub const MODEL_OPSETS: u64 = 8;
    pub const OPSET_DOMAIN: u64 = 1;
    pub const OPSET_VERSION: u64 = 2;
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
    pub const NODE_DOMAIN: u64 = 7;
    pub const ATTRIBUTE_NAME: u64 = 1;
    pub const ATTRIBUTE_REAL: u64 = 2;
    pub const ATTRIBUTE_NUMBER: u64 = 3;
    pub const ATTRIBUTE_TENSOR: u64 = 5;
    pub const ATTRIBUTE_GRAPHS: [u64; 2] = [6, 11];
    pub const ATTRIBUTE_NUMBERS: u64 = 8;
    pub const ATTRIBUTE_TYPE: u64 = 20;
    pub const IS_REAL: u64 = 1;
    pub const TENSOR_SIZES: u64 = 1;
    pub const TENSOR_TYPE: u64 = 2;
    pub const TENSOR_REALS: u64 = 4;
    pub const TENSOR_NUMBERS: u64 = 7;
    pub const TENSOR_NAME: u64 = 8;
    pub const TENSOR_BYTES: u64 = 9;
    pub const TENSOR_PLACE: u64 = 13;
    pub const TENSOR_LOCATION: u64 = 14;
    pub const PLACE_KEY: u64 = 1;
    pub const PLACE_VALUE: u64 = 2;
    pub const ELSEWHERE: u64 = 1;
    pub const FLOAT: u64 = 1;
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
    /// By name: the sizes of weights, and numbers where there is but one.
    weights: HashMap<String, Weights>,
    /// Names of inputs and how many sizes they have.
    inputs: HashMap<String, usize>,
    outputs: HashSet<String>,
    /// Its file, and those of its weights.
    links: Links,
}

/// A graph as it is given to a runtime, and where the files are that its weights are in.
pub(super) struct LeanFile {
    pub bytes: Vec<u8>,
    pub folder: PathBuf,
}

struct Weights {
    /// The type of the numbers, as the format has it.
    kind: u64,
    sizes: Vec<usize>,
    number: Option<i64>,
    real: Option<f32>,
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
        let links = Links::of(path)?;
        let path = links.file.clone();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
        let mut file = BufReader::new(File::open(&path)?);
        let end = file.get_ref().metadata()?.len();
        let mut lean = Self {
            around: Message::default(),
            nodes: Vec::new(),
            rest: Message::default(),
            weights: HashMap::new(),
            inputs: HashMap::new(),
            outputs: HashSet::new(),
            links,
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
                    // Those that lie in its own file are found already.
                    let tensor = match without_bytes(file, place, name, &mut left)? {
                        (tensor, true) => tensor.into_bytes(),
                        (tensor, false) => lean.links.followed(tensor.into_bytes()),
                    };
                    lean.know(&tensor);
                    lean.rest.add(number, &tensor);
                    Ok(())
                }
                onnx::GRAPH_WEIGHTS | onnx::GRAPH_INPUTS | onnx::GRAPH_OUTPUTS => {
                    let mut value = bytes(file, place, &mut left)?;
                    if number == onnx::GRAPH_WEIGHTS {
                        value = lean.links.followed(value);
                    }
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

    /// What a runtime is given. `None` where weights lie beside a link to the graph, and not beside the graph.
    pub fn into_file(self) -> Option<LeanFile> {
        let folder = self.links.folder()?;
        Some(LeanFile { bytes: self.into_bytes(), folder })
    }

    fn into_bytes(self) -> Vec<u8> {
        let graph = self.nodes.into_iter().fold(self.rest, |graph, node| graph.bytes(onnx::GRAPH_NODES, node.raw));
        self.around.bytes(onnx::MODEL_GRAPH, graph).into_bytes()
    }

    fn know(&mut self, tensor: &[u8]) {
        self.weights.extend(text(tensor, onnx::TENSOR_NAME).map(|name| (name, Weights::read(tensor))));
    }
}

impl Weights {
    fn read(tensor: &[u8]) -> Self {
        let kind = numbers(tensor, onnx::TENSOR_TYPE).first().map_or(0, |kind| kind.cast_unsigned());
        let sizes = numbers(tensor, onnx::TENSOR_SIZES).into_iter();
        let sizes: Vec<usize> = sizes.map(|size| usize::try_from(size).unwrap_or_default()).collect();
        let bytes = parts(tensor, onnx::TENSOR_BYTES).next();
        let whole = bytes.filter(|_| kind == onnx::INT64);
        let number = match (whole.map(<[u8; 8]>::try_from), &numbers(tensor, onnx::TENSOR_NUMBERS)[..]) {
            (Some(Ok(bytes)), _) => Some(i64::from_le_bytes(bytes)),
            (None, [number]) => Some(*number),
            _ => None,
        };
        let real = match (bytes.map(<[u8; 4]>::try_from), &reals(tensor, onnx::TENSOR_REALS)[..]) {
            (Some(Ok(bytes)), _) => Some(f32::from_le_bytes(bytes)),
            (None, [real]) => Some(*real),
            _ => None,
        };
        Self { kind, real: real.filter(|_| kind == onnx::FLOAT && sizes.iter().all(|size| *size == 1)), sizes, number }
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

/// Weights with the place of their bytes, in the file called `name`, instead of the bytes; and whether there are any.
fn without_bytes(file: &mut BufReader<File>, place: Place, name: &str, left: &mut u64) -> io::Result<(Message, bool)> {
    let (mut tensor, mut found) = (Message::default(), None);
    let end = file.stream_position()?.saturating_add(place.length());
    each_field(file, end, &mut |file, number, place| {
        if number == onnx::TENSOR_BYTES && place.length() > SMALL {
            found = Some([file.stream_position()?, place.length()]);
            return Ok(());
        }
        copy(file, &mut tensor, number, place, left)
    })?;
    let Some([offset, length]) = found else { return Ok((tensor, false)) };
    // What is not there is not looked for when it is needed.
    if file.get_ref().metadata()?.len() < offset.saturating_add(length) {
        return Err(odd());
    }
    let pairs = [("location", name.to_owned()), ("offset", offset.to_string()), ("length", length.to_string())];
    let tensor = pairs.into_iter().fold(tensor, |tensor, (key, value)| {
        tensor.bytes(onnx::TENSOR_PLACE, Message::default().bytes(onnx::PLACE_KEY, key).bytes(onnx::PLACE_VALUE, value))
    });
    Ok((tensor.number(onnx::TENSOR_LOCATION, onnx::ELSEWHERE), true))
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

    fn attributes(&self) -> impl Iterator<Item = &[u8]> {
        parts(&self.raw, onnx::NODE_ATTRIBUTES)
    }

    fn attribute(&self, name: &str) -> Option<&[u8]> {
        self.attributes().find(|attribute| parts(attribute, onnx::ATTRIBUTE_NAME).next() == Some(name.as_bytes()))
    }

    /// Whose operator it is, where it is not of the standard.
    fn domain(&self) -> Option<&[u8]> {
        parts(&self.raw, onnx::NODE_DOMAIN).next().filter(|domain| !matches!(*domain, b"" | b"ai.onnx"))
    }

    fn number(&self, name: &str) -> Option<i64> {
        numbers(self.attribute(name)?, onnx::ATTRIBUTE_NUMBER).first().copied()
    }

    fn numbers(&self, name: &str) -> Vec<i64> {
        self.attribute(name).map_or_else(Vec::new, |attribute| numbers(attribute, onnx::ATTRIBUTE_NUMBERS))
    }

    fn constant(&self) -> Option<Weights> {
        let tensor = |attribute| parts(attribute, onnx::ATTRIBUTE_TENSOR).next().map(Weights::read);
        self.attributes().find_map(tensor)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
            match *operator {
                "Gather" => node.bytes(onnx::NODE_ATTRIBUTES, attribute("axis", 1)),
                "ReduceMean" => {
                    let axes = Message::default().bytes(onnx::ATTRIBUTE_NAME, "axes");
                    node.bytes(onnx::NODE_ATTRIBUTES, axes.number(onnx::ATTRIBUTE_NUMBERS, 2).number(20, 7))
                }
                _ => node,
            }
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
            .bytes(onnx::GRAPH_WEIGHTS, weights("two", &[], onnx::FLOAT, &2.0_f32.to_le_bytes()))
            .bytes(onnx::GRAPH_WEIGHTS, weights("epsilon", &[1], onnx::FLOAT, &1e-12_f32.to_le_bytes()))
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
    fn layer_norms_become_one_operator_with_the_sum_before_them() {
        let count = |lean: &LeanGraph, operator| lean.nodes.iter().filter(|node| node.operator == operator).count();
        let fused = |name: &str| {
            let mut lean = read(name);
            let norms = lean.fuse_norms();
            let [alone, summed] = ["LayerNorm", "AddLayerNorm"].map(|operator| count(&lean, operator));
            assert_eq!((norms, count(&lean, "LayerNormalization")), (alone + summed, 0), "{name}");
            (alone, summed)
        };
        assert_eq!(fused("bert-mean"), (1, 4));
        assert_eq!(fused("cross-encoder"), (1, 4));
        // The sum is read by the next layer, too.
        assert_eq!(fused("clip-vision").1, 0);
        // Half precision, and no such thing.
        assert_eq!([fused("decoder-cache"), fused("pooling-joined")], [(0, 0); 2]);
    }

    #[test]
    fn layer_norms_that_are_written_out_are_found_and_what_is_read_elsewhere_is_left() {
        let norm: &[(&str, &[&str], &str)] = &[
            ("Softmax", &["tokens"], "given"),
            ("MatMul", &["tokens", "w"], "product"),
            ("Add", &["bias", "product"], "biased"),
            ("Add", &["biased", "given"], "x"),
            ("ReduceMean", &["x"], "mean"),
            ("Sub", &["x", "mean"], "centred"),
            ("Pow", &["centred", "two"], "squares"),
            ("ReduceMean", &["squares"], "variance"),
            ("Add", &["variance", "epsilon"], "sum"),
            ("Sqrt", &["sum"], "deviation"),
            ("Div", &["centred", "deviation"], "divided"),
            ("Mul", &["bias", "divided"], "scaled"),
            ("Add", &["scaled", "bias"], "y"),
        ];
        let fused = |nodes: &[(&str, &[&str], &str)], outputs: &[&str]| {
            let mut lean = graph(nodes, outputs);
            let count = lean.fuse_norms();
            let last = lean.nodes.last().map(|node| (node.operator.clone(), node.inputs.clone()));
            (count, lean.nodes.len(), last.unwrap_or_default())
        };
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let summed = ("AddLayerNorm".to_owned(), named(&["product", "bias", "given", "bias", "bias"]));
        assert_eq!(fused(norm, &["y"]), (1, 3, summed));
        let alone = ("LayerNorm".to_owned(), named(&["x", "bias", "bias"]));
        assert_eq!(fused(norm, &["y", "x"]), (1, 5, alone.clone()));
        assert_eq!(fused(norm, &["y", "biased"]), (1, 5, alone));
        for inner in ["mean", "centred", "squares", "variance", "sum", "deviation", "divided", "scaled"] {
            assert_eq!(fused(norm, &["y", inner]).0, 0, "{inner}");
        }
        let replaced = |at: usize, node| {
            let mut nodes = norm.to_vec();
            nodes[at] = node;
            fused(&nodes, &["y"]).0
        };
        assert_eq!(replaced(12, ("Add", &["scaled", "bias"], "y")), 1);
        assert_eq!(replaced(6, ("Mul", &["centred", "centred"], "squares")), 1);
        assert_eq!(replaced(4, ("ReduceMean", &["given"], "mean")), 0);
        assert_eq!(replaced(6, ("Pow", &["centred", "epsilon"], "squares")), 0);
        assert_eq!(replaced(6, ("Mul", &["centred", "x"], "squares")), 0);
        assert_eq!(replaced(8, ("Add", &["variance", "bias"], "sum")), 0);
        assert_eq!(replaced(10, ("Div", &["x", "deviation"], "divided")), 0);
        assert_eq!(replaced(12, ("Add", &["scaled", "places"], "y")), 0);
    }

    #[cfg(unix)]
    #[test]
    fn weights_are_found_behind_links() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("model.onnx");
        std::os::unix::fs::symlink(file("cross-encoder"), &link).unwrap();
        let lean = LeanGraph::read(&link).unwrap().unwrap().into_file().unwrap();
        let real = fs::canonicalize(file("cross-encoder")).unwrap();
        assert_eq!(lean.folder, real.parent().unwrap());
        // Those in files of their own, which are links, too, and under other names.
        let blobs = directory.path().join("blobs");
        fs::create_dir(&blobs).unwrap();
        fs::copy(&real, blobs.join("weights")).unwrap();
        fs::write(blobs.join("graph"), LeanGraph::read(&real).unwrap().unwrap().into_bytes()).unwrap();
        let [graph, weights] = [("other.onnx", "graph"), ("model.onnx", "weights")].map(|(name, blob)| {
            fs::remove_file(directory.path().join(name)).ok();
            std::os::unix::fs::symlink(blobs.join(blob), directory.path().join(name)).unwrap();
            directory.path().join(name)
        });
        let lean = LeanGraph::read(&graph).unwrap().unwrap().into_file().unwrap();
        assert_eq!(lean.folder, fs::canonicalize(&blobs).unwrap());
        let names = parts(&lean.bytes, onnx::MODEL_GRAPH).flat_map(|graph| parts(graph, onnx::GRAPH_WEIGHTS));
        let names = names.flat_map(|tensor| parts(tensor, onnx::TENSOR_PLACE).next());
        let names: HashSet<_> = names.map(|place| text(place, onnx::PLACE_VALUE).unwrap()).collect();
        assert_eq!(names, HashSet::from(["weights".to_owned()]));
        // They lie elsewhere, or are not there at all.
        fs::remove_file(&weights).unwrap();
        assert!(LeanGraph::read(&graph).unwrap().unwrap().into_file().is_none());
        fs::copy(&real, &weights).unwrap();
        assert!(LeanGraph::read(&graph).unwrap().unwrap().into_file().is_none());
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
