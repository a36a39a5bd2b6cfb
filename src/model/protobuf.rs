//! As much of protobuf's wire format as it takes to read a graph's outputs and to add nodes to it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

/// A field of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Field<'a> {
    Number(u64),
    /// A text, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// A number of 32 bits; of 64, none.
    Fixed(Option<[u8; 4]>),
}

/// The fields of a message, with their numbers, until something is no field.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let key = number(&mut rest)?;
        let field = match key & 7 {
            0 => Field::Number(number(&mut rest)?),
            2 => {
                let length = usize::try_from(number(&mut rest)?).ok()?;
                Field::Bytes(take(&mut rest, length)?)
            }
            1 => take(&mut rest, 8).map(|_| Field::Fixed(None))?,
            5 => take(&mut rest, 4).map(|bytes| Field::Fixed(bytes.try_into().ok()))?,
            _ => return None,
        };
        Some((key >> 3, field))
    })
}

/// The texts and messages among the fields of a message that have the number `wanted`.
pub(super) fn parts(message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).filter_map(move |(number, field)| match field {
        Field::Bytes(bytes) if number == wanted => Some(bytes),
        _ => None,
    })
}

/// The whole numbers among the fields of a message that have the number `wanted`, packed or not.
pub(super) fn numbers(message: &[u8], wanted: u64) -> Vec<i64> {
    let mut found = Vec::new();
    for (_, field) in fields(message).filter(|(number, _)| *number == wanted) {
        match field {
            Field::Number(value) => found.push(value.cast_signed()),
            Field::Bytes(mut packed) => {
                found.extend(std::iter::from_fn(|| number(&mut packed).map(u64::cast_signed)));
            }
            Field::Fixed(_) => {}
        }
    }
    found
}

/// The floating-point numbers of 32 bits among the fields of a message that have the number `wanted`, packed or not.
pub(super) fn reals(message: &[u8], wanted: u64) -> Vec<f32> {
    let mut found = Vec::new();
    for (_, field) in fields(message).filter(|(number, _)| *number == wanted) {
        match field {
            Field::Fixed(bytes) => found.extend(bytes.map(f32::from_le_bytes)),
            Field::Bytes(packed) => found.extend(packed.as_chunks().0.iter().copied().map(f32::from_le_bytes)),
            Field::Number(_) => {}
        }
    }
    found
}

/// What a file has of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Place {
    Number(u64),
    /// So many bytes follow.
    Bytes(u64),
    Fixed,
}

impl Place {
    /// How many bytes follow.
    pub fn length(self) -> u64 {
        match self {
            Self::Bytes(length) => length,
            Self::Number(_) | Self::Fixed => 0,
        }
    }
}

/// What becomes of a field of a file: it is read from there, or not.
pub(super) type Show<'a> = dyn FnMut(&mut BufReader<File>, u64, Place) -> io::Result<()> + 'a;

/// Shows each field of a message in a file, up to where that ends. What is not read of it is passed over.
pub(super) fn each_field(file: &mut BufReader<File>, end: u64, show: &mut Show<'_>) -> io::Result<()> {
    while file.stream_position()? < end {
        let key = number_in(file)?;
        let (place, length) = match key & 7 {
            0 => (Place::Number(number_in(file)?), 0),
            1 => (Place::Fixed, 8),
            2 => number_in(file).map(|length| (Place::Bytes(length), length))?,
            5 => (Place::Fixed, 4),
            _ => return Err(odd()),
        };
        let next = file.stream_position()?.checked_add(length).ok_or_else(odd)?;
        show(file, key >> 3, place)?;
        let rest = next.checked_sub(file.stream_position()?).ok_or_else(odd)?;
        file.seek_relative(i64::try_from(rest).map_err(|_| odd())?)?;
    }
    Ok(())
}

/// The error about a file that is none of these messages.
pub(super) fn odd() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// A number of which each byte holds seven bits.
pub(super) fn number_in(file: &mut impl Read) -> io::Result<u64> {
    let (mut value, mut byte) = (0, [0]);
    for shift in (0..64).step_by(7) {
        file.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 127) << shift;
        if byte[0] < 128 {
            return Ok(value);
        }
    }
    Err(odd())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// A message that is written.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    pub fn bytes(mut self, field: u64, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn real(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// The same to what is borrowed.
    pub fn add(&mut self, field: u64, bytes: impl AsRef<[u8]>) {
        *self = std::mem::take(self).bytes(field, bytes);
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(written in proptest::collection::vec((1u64..1 << 29, any::<u64>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..8)) {
            let message = written.iter().fold(Message::default(), |message, (field, value, bytes)| {
                message.number(*field, *value).bytes(*field, bytes).real(*field, *value as f32)
            });
            let message = message.into_bytes();
            let real = |value: u64| Field::Fixed(Some((value as f32).to_le_bytes()));
            let expected = written.iter().flat_map(|(field, value, bytes)| [(*field, Field::Number(*value)), (*field, Field::Bytes(bytes)), (*field, real(*value))]);
            prop_assert!(fields(&message).eq(expected));
        }

        #[test]
        fn nothing_is_read_beyond_the_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(fields(&bytes).count() <= bytes.len());
        }
    }
}
