//! Weights of a graph that is found by a link, as caches of models have them: a runtime reads them in one folder only, where the files
//! themselves lie, under names of their own.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{onnx, text};
use crate::model::protobuf::{Field, Message, fields, parts};

/// What the key of a file's name is called.
const LOCATION: &str = "location";

/// Where a graph lies, and the files of its weights.
pub(super) struct Links {
    /// The graph itself.
    pub file: PathBuf,
    /// The folder of the link to it, if it was found by one.
    link: Option<PathBuf>,
    /// Names of files beside the link, and of what they are.
    names: HashMap<String, Option<String>>,
    /// Whether one of them lies elsewhere.
    is_divided: bool,
}

impl Links {
    pub fn of(path: &Path) -> io::Result<Self> {
        let link = fs::symlink_metadata(path)?.is_symlink().then(|| folder(path));
        let file = if link.is_some() { fs::canonicalize(path)? } else { path.to_owned() };
        Ok(Self { file, link, names: HashMap::new(), is_divided: false })
    }

    /// The folder in which all files of weights lie; `None` where there is none.
    pub fn folder(&self) -> Option<PathBuf> {
        (!self.is_divided).then(|| folder(&self.file))
    }

    /// Weights with the name of the file itself in which they are.
    pub fn followed(&mut self, tensor: Vec<u8>) -> Vec<u8> {
        let Some(link) = self.link.clone() else { return tensor };
        let named = |place: &[u8]| text(place, onnx::PLACE_KEY).as_deref() == Some(LOCATION);
        let Some(name) = parts(&tensor, onnx::TENSOR_PLACE).find(|place| named(place)) else { return tensor };
        let Some(name) = text(name, onnx::PLACE_VALUE) else { return tensor };
        let home = folder(&self.file);
        let real = self.names.entry(name).or_insert_with_key(|name| {
            let real = fs::canonicalize(link.join(name)).ok().filter(|real| folder(real) == home)?;
            Some(real.file_name()?.to_str()?.to_owned())
        });
        let Some(real) = real else {
            self.is_divided = true;
            return tensor;
        };
        let place = || Message::default().bytes(onnx::PLACE_KEY, LOCATION).bytes(onnx::PLACE_VALUE, &*real);
        let followed = fields(&tensor).fold(Message::default(), |message, (number, field)| match field {
            Field::Bytes(bytes) if number == onnx::TENSOR_PLACE && named(bytes) => message.bytes(number, place()),
            Field::Bytes(bytes) => message.bytes(number, bytes),
            Field::Number(value) => message.number(number, value),
            // Numbers that lie elsewhere are not here, too.
            Field::Fixed(_) => message,
        });
        followed.into_bytes()
    }
}

fn folder(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}
