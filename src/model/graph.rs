//! Which of a model's files is its graph: the usual places, the variants by the type of their weights, what lies beside.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The type of a graph's weights: one of the variants in which models are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floating point, as models are trained.
    Fp32,
    /// 16-bit floating point.
    Fp16,
    /// 8-bit integers, signed or not as the exporter saw fit.
    Q8,
    /// Signed 8-bit integers.
    Int8,
    /// Unsigned 8-bit integers.
    Uint8,
    /// 4-bit integers in blocks.
    Q4,
    /// The same with 16-bit floating point for everything else.
    Q4F16,
    /// 4-bit NormalFloat or FloatingPoint in blocks.
    Bnb4,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Fp32, Self::Fp16, Self::Q8, Self::Int8, Self::Uint8, Self::Q4, Self::Q4F16, Self::Bnb4];

    /// The spelling in options.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Q8 => "q8",
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Q4 => "q4",
            Self::Q4F16 => "q4f16",
            Self::Bnb4 => "bnb4",
        }
    }

    /// The usual name of its file.
    fn file(self) -> &'static str {
        match self {
            Self::Fp32 => "model.onnx",
            Self::Fp16 => "model_fp16.onnx",
            Self::Q8 => "model_quantized.onnx",
            Self::Int8 => "model_int8.onnx",
            Self::Uint8 => "model_uint8.onnx",
            Self::Q4 => "model_q4.onnx",
            Self::Q4F16 => "model_q4f16.onnx",
            Self::Bnb4 => "model_bnb4.onnx",
        }
    }

    /// What the name of a graph says about its weights. `model.onnx` may hold anything.
    pub(super) fn named(graph: &Path) -> Option<Self> {
        let name = graph.file_name()?.to_str()?;
        Self::ALL.into_iter().find(|dtype| *dtype != Self::Fp32 && dtype.file() == name)
    }
}

/// Files of which a model has one at least, beside its graph or above.
const SAYS_WHAT_IT_READS: [&str; 2] = ["tokenizer.json", super::config_files::PREPROCESSOR];

/// Where a graph is looked for, best first.
pub(super) fn places(dtype: Option<Dtype>) -> [String; 2] {
    let file = dtype.unwrap_or(Dtype::Fp32).file();
    [format!("onnx/{file}"), file.to_owned()]
}

/// Whether `file` holds weights of `graph`, which the format allows to lie beside it.
pub(super) fn is_data_of(graph: &str, file: &str) -> bool {
    let rest = file.strip_prefix(graph).unwrap_or_default();
    rest == ".data" || rest.strip_prefix("_data").is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// The names that decide whether `graph` has all its weights: those that lie beside it, and the first of each numbering
/// that does not, by what `has` says.
pub(super) fn data_of(graph: &str, has: impl Fn(&str) -> bool) -> Vec<String> {
    let mut names = vec![format!("{graph}.data"), format!("{graph}_data")];
    for number in 1.. {
        let Some(true) = names.last().map(|last| has(last)) else { break };
        names.push(format!("{graph}_data_{number}"));
    }
    names
}

/// The graph of the model in a directory.
pub(super) fn at(directory: &Path, dtype: Option<Dtype>) -> Option<PathBuf> {
    places(dtype).iter().map(|graph| directory.join(graph)).find(|graph| graph.is_file())
}

/// Whether there is a graph in a directory, of whatever type.
pub(super) fn is_in(directory: &Path) -> bool {
    Dtype::ALL.into_iter().any(|dtype| at(directory, Some(dtype)).is_some())
}

/// The error about a directory without a graph of that type.
pub(super) fn none_in(directory: &Path, dtype: Option<Dtype>) -> Error {
    Error::model(directory, missing(&places(dtype), &graphs_in(directory)))
}

/// The directory that holds the files of the model at `path`, and its graph.
pub(super) fn locate(path: &str, dtype: Option<Dtype>) -> Result<(PathBuf, PathBuf)> {
    let given = Path::new(path);
    let kind = fs::metadata(given).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::model(
            path,
            "there is no such file or directory: pass the path of a model directory in Hugging Face layout, of an .onnx file, or a hub id such as 'owner/name'",
        ),
        _ => Error::model(path, error.to_string()),
    })?;
    if kind.is_dir() {
        return match at(given, dtype) {
            Some(onnx) => Ok((given.to_path_buf(), onnx)),
            None => Err(none_in(given, dtype)),
        };
    }
    if given.extension().is_none_or(|extension| extension != "onnx") {
        return Err(Error::model(path, "this file is not an .onnx file: pass a model directory or an .onnx file"));
    }
    if let Some(dtype) = dtype {
        let reason =
            format!("{path} is one file: pass its directory, of which dtype chooses a file, or leave dtype out");
        return match Dtype::named(given) {
            Some(named) if named == dtype => at_file(given),
            None if dtype == Dtype::Fp32 => at_file(given),
            _ => Err(Error::config("dtype", reason)),
        };
    }
    at_file(given)
}

fn at_file(given: &Path) -> Result<(PathBuf, PathBuf)> {
    let parent = given.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let grandparent = if parent.file_name().is_some_and(|name| name == "onnx") { parent.parent() } else { None };
    let root = [Some(parent), grandparent]
        .into_iter()
        .flatten()
        .find(|dir| SAYS_WHAT_IT_READS.iter().any(|file| dir.join(file).is_file()));
    Ok((root.or(grandparent).unwrap_or(parent).to_path_buf(), given.to_path_buf()))
}

/// Why there is no graph, and what to do, where a model has the graphs `found`.
pub(super) fn missing(looked_for: &[String], found: &[String]) -> String {
    let mut advice: Vec<String> = Vec::new();
    let dtypes: Vec<String> = Dtype::ALL
        .into_iter()
        .filter(|dtype| places(Some(*dtype)).iter().any(|place| found.contains(place)))
        .map(|dtype| format!("'{}'", dtype.as_str()))
        .collect();
    if !dtypes.is_empty() {
        advice.push(format!("pass dtype: {}", dtypes.join(" or ")));
    }
    advice.push(match found {
        [] => "export the model to ONNX first".to_owned(),
        found => format!("pass the path of one of the .onnx files that are there: {}", found.join(", ")),
    });
    format!("it holds neither {}: {}", looked_for.join(" nor "), advice.join(", or "))
}

fn graphs_in(directory: &Path) -> Vec<String> {
    let mut found: Vec<String> = ["", "onnx/"]
        .iter()
        .filter_map(|sub| Some((sub, fs::read_dir(directory.join(sub)).ok()?)))
        .flat_map(|(sub, entries)| entries.flatten().map(move |entry| (sub, entry.file_name())))
        .filter_map(|(sub, name)| Some(format!("{sub}{}", name.to_str()?)))
        .filter(|name| name.ends_with(".onnx"))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_belongs_to_its_graph_only() {
        for (file, expected) in [
            ("onnx/model.onnx_data", true),
            ("onnx/model.onnx_data_1", true),
            ("onnx/model.onnx.data", true),
            ("onnx/model.onnx", false),
            ("onnx/model.onnx_database", false),
            ("onnx/model_q4.onnx_data", false),
            ("model.onnx_data", false),
        ] {
            assert_eq!(is_data_of("onnx/model.onnx", file), expected, "{file}");
        }
    }

    #[test]
    fn weights_are_all_there_when_the_next_number_is_not() {
        let of = |there: &[&str]| data_of("m.onnx", |file| there.contains(&file));
        assert_eq!(of(&[]), ["m.onnx.data", "m.onnx_data"]);
        assert_eq!(of(&["m.onnx.data"]), ["m.onnx.data", "m.onnx_data"]);
        assert_eq!(
            of(&["m.onnx_data", "m.onnx_data_1"]),
            ["m.onnx.data", "m.onnx_data", "m.onnx_data_1", "m.onnx_data_2"]
        );
    }

    #[test]
    fn every_variant_is_known_by_its_name() {
        for dtype in Dtype::ALL {
            let named = Dtype::named(Path::new(&places(Some(dtype))[0]));
            assert_eq!(named, (dtype != Dtype::Fp32).then_some(dtype));
        }
    }

    #[test]
    fn what_is_missing_is_said_with_what_is_there() {
        let reason = missing(&places(Some(Dtype::Q4)), &["onnx/model_int8.onnx".to_owned(), "other.onnx".to_owned()]);
        assert_eq!(
            reason,
            "it holds neither onnx/model_q4.onnx nor model_q4.onnx: pass dtype: 'int8', or pass the path of one of the \
             .onnx files that are there: onnx/model_int8.onnx, other.onnx"
        );
    }
}
