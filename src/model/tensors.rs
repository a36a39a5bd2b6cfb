//! Tensors in a safetensors file: its header, bounded and checked, and numbers of any kind as numbers of 32 bits.

use std::ops::Deref;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use safetensors::{SafeTensorError, SafeTensors};

/// The longest header that is read. The modules of a sentence model have a handful of tensors, a few hundred bytes.
const MOST_HEADER_BYTES: u64 = 1 << 20;

/// Bytes before the header: its length.
const LENGTH_BYTES: usize = 8;

/// A file whose header was read: no tensor lies outside it or over another one.
pub(super) struct Tensors<B> {
    bytes: B,
    /// Where the tensors begin.
    begin: usize,
    metadata: Metadata,
}

/// How a tensor's numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    F64,
    F32,
    F16,
    Bf16,
    I8,
    I32,
    I64,
}

/// One tensor of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tensor<'a> {
    pub number: Number,
    pub shape: &'a [usize],
    /// Little-endian, row by row.
    pub bytes: &'a [u8],
    /// Where they begin in the file.
    pub at: usize,
}

impl<B: Deref<Target = [u8]>> Tensors<B> {
    /// Reads the header of a whole file.
    ///
    /// # Errors
    /// A reason in plain words, without the file's name.
    pub fn parse(bytes: B) -> Result<Self, String> {
        let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
        let length = length.ok_or("not a safetensors file: it is too short")?;
        if length > MOST_HEADER_BYTES {
            return Err(format!(
                "not a safetensors file of a sentence model: its header has {length} bytes, and {MOST_HEADER_BYTES} are the most that are read"
            ));
        }
        let (length, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| plain(&error))?;
        Ok(Self { bytes, begin: LENGTH_BYTES + length, metadata })
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// The tensor of that name, where there is one.
    pub fn find(&self, name: &str) -> Result<Option<Tensor<'_>>, String> {
        let Some(TensorInfo { dtype, shape, data_offsets: (begin, end) }) = self.metadata.info(name) else {
            return Ok(None);
        };
        let number = Number::of(*dtype).ok_or_else(|| {
            format!("{name} has numbers of the type {dtype:?}; F64, F32, F16, BF16, I8, I32 and I64 are read")
        })?;
        let (begin, end) = (self.begin + begin, self.begin + end);
        let bytes = self.bytes.get(begin..end).ok_or_else(|| format!("{name} lies outside the file"))?;
        Ok(Some(Tensor { number, shape, bytes, at: begin }))
    }

    /// The numbers of a tensor that must be there, in this shape.
    pub fn floats(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, String> {
        let tensor = self.find(name)?;
        let tensor = tensor.ok_or_else(|| format!("it has no tensor {name}; it has {}", self.names().join(", ")))?;
        if tensor.shape != expected {
            return Err(format!("{name} is {:?}, but {expected:?} was expected", tensor.shape));
        }
        Ok(tensor.floats().collect())
    }
}

impl Tensor<'_> {
    /// All numbers, row by row.
    pub fn floats(&self) -> impl Iterator<Item = f32> {
        let number = self.number;
        self.bytes.chunks_exact(number.size()).map(move |bytes| number.read(bytes))
    }
}

impl Number {
    fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F64 => Some(Self::F64),
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::I8 => Some(Self::I8),
            Dtype::I32 => Some(Self::I32),
            Dtype::I64 => Some(Self::I64),
            _ => None,
        }
    }

    /// Bytes of one.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::I8 => 1,
        }
    }

    /// Whether these two bytes, the highest of a number, are of one that is infinite or none at all.
    pub fn is_odd(self, highest: [u8; 2]) -> bool {
        let exponent = match self {
            Self::F64 => 0x7ff0,
            Self::F32 | Self::Bf16 => 0x7f80,
            Self::F16 => 0x7c00,
            Self::I8 | Self::I32 | Self::I64 => return false,
        };
        u16::from_le_bytes(highest) & exponent == exponent
    }

    /// The number in `bytes`, which are as many as it has.
    fn read(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            (Self::I64, &[a, b, c, d, e, f, g, h]) => i64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            (Self::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Self::I32, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]) as f32,
            (Self::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            (Self::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            (Self::I8, &[a]) => f32::from(a as i8),
            _ => f32::NAN,
        }
    }
}

/// The reasons that a person can do something about, in words.
fn plain(error: &SafeTensorError) -> String {
    match error {
        SafeTensorError::InvalidOffset(name) => {
            format!("not a safetensors file: the offsets of {name} overlap another tensor, or leave a gap")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            "not a whole safetensors file: its length is not what its header says, so it was cut off, or has something behind its end"
                .to_owned()
        }
        other => format!("not a safetensors file: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn numbers_of_all_kinds_are_read() {
        let header = r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[4,6]},"c":{"dtype":"I8","shape":[2],"data_offsets":[6,8]},"d":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}}"#;
        let data = [
            &f16::from_f32(1.5).to_le_bytes()[..],
            &f16::from_f32(-2.0).to_le_bytes(),
            &bf16::from_f32(0.25).to_le_bytes(),
            &[0x81, 3],
            &7f64.to_le_bytes(),
        ];
        let tensors = Tensors::parse(file(header, &data.concat())).unwrap();
        assert_eq!(tensors.floats("a", &[2]).unwrap(), [1.5, -2.0]);
        assert_eq!(tensors.floats("b", &[1]).unwrap(), [0.25]);
        assert_eq!(tensors.floats("c", &[2]).unwrap(), [-127.0, 3.0]);
        assert_eq!(tensors.floats("d", &[1]).unwrap(), [7.0]);
        assert!(tensors.floats("a", &[4]).unwrap_err().contains("[4] was expected"));
        assert!(tensors.floats("e", &[1]).unwrap_err().contains("no tensor e; it has a, b, c, d"));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let of = |bytes: Vec<u8>| Tensors::parse(bytes).err().unwrap();
        assert!(of(vec![1, 2]).contains("too short"));
        assert!(of(100_000_000u64.to_le_bytes().to_vec()).contains("header has 100000000 bytes"));
        assert!(of(file("{", &[])).contains("not a safetensors file"));
        let overlap = r#"{"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"I8","shape":[2],"data_offsets":[1,3]}}"#;
        assert!(of(file(overlap, &[0; 3])).contains("overlap"));
        let one = r#"{"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}"#;
        assert!(of(file(one, &[0; 3])).contains("cut off"));
        let kind = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
        assert!(Tensors::parse(file(kind, &[0])).unwrap().find("a").unwrap_err().contains("U8"));
    }

    #[test]
    fn what_is_no_number_shows_in_its_highest_bytes() {
        let odd = |number: Number, bytes: &[u8]| number.is_odd([bytes[bytes.len() - 2], bytes[bytes.len() - 1]]);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(odd(Number::F32, &value.to_le_bytes()) && odd(Number::F64, &f64::from(value).to_le_bytes()));
            assert!(odd(Number::F16, &f16::from_f32(value).to_le_bytes()));
            assert!(odd(Number::Bf16, &bf16::from_f32(value).to_le_bytes()));
        }
        for value in [0.0, -1.0, f32::MAX, f32::MIN] {
            assert!(!odd(Number::F32, &value.to_le_bytes()));
        }
        assert!(!Number::I8.is_odd([0xff, 0xff]));
    }
}
