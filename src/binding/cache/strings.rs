//! Strings of JavaScript, read without an allocation for each.
//!
//! Many strings come as the arguments of one call: nothing is cheaper for Node.js to pass, neither an array, whose
//! elements are looked up one by one, nor one string that all are joined to, which V8 has to copy together first.

use std::mem::MaybeUninit;
use std::{ptr, slice};

use napi::bindgen_prelude::{FromNapiValue, FunctionCallContext, ToNapiValue, TypeName, ValidateNapiValue};
use napi::{Result, Status, ValueType, sys};

/// Strings up to this many bytes are read to the stack.
const SHORT: usize = 4096;

/// Free room that is offered to a string whose length is not known. V8 is fastest where there is room for the longest
/// that a string of its length can be.
const ROOM: usize = 16 << 10;

/// More than this is not kept for the next call.
const KEPT: usize = 1 << 20;

/// A string's bytes in UTF-8. Lone surrogates, which have no UTF-8, are written like other characters beyond the first
/// 2048 (WTF-8): strings that differ in them only stay different, and come back as they were.
pub struct Text(pub Vec<u8>);

/// A string that is read when its bytes are needed; or a `Uint8Array`, which is what it holds: the [`digest_of_bytes`] of a
/// content that is no string.
///
/// [`digest_of_bytes`]: crate::embedding::digest_of_bytes
pub struct Str(sys::napi_env, sys::napi_value);

impl Str {
    /// Calls `work` with the bytes of a [`Text`]. Nothing is allocated for strings of usual length.
    pub fn with<T>(&self, work: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let mut short = [MaybeUninit::<u8>::uninit(); SHORT];
        // SAFETY: a `Str` lives no longer than the call that passed it. Node.js writes at most as many bytes as it is
        // told, a final zero included, and says how many without it.
        unsafe {
            let length = match self.read(short.as_mut_ptr().cast(), SHORT) {
                Ok(length) => length,
                Err(error) => return self.array().map_or(Err(error), |bytes| Ok(work(bytes))),
            };
            let bytes = slice::from_raw_parts(short.as_ptr().cast(), length);
            if is_whole(length, SHORT) && !may_be_mended(bytes) {
                return Ok(work(bytes));
            }
        }
        let mut long = Vec::new();
        self.append_to(&mut long)?;
        Ok(work(&long))
    }

    /// Appends the bytes of a [`Text`].
    fn append_to(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let before = bytes.len();
        bytes.reserve(ROOM);
        let mut room = bytes.capacity() - bytes.len();
        // SAFETY: as above; there is room for what Node.js is told.
        unsafe {
            let mut length = match self.read(bytes.as_mut_ptr().add(bytes.len()).cast(), room) {
                Ok(length) => length,
                Err(error) => {
                    bytes.extend_from_slice(self.array().ok_or(error)?);
                    return Ok(());
                }
            };
            if !is_whole(length, room) {
                length = self.read(ptr::null_mut(), 0)?;
                bytes.reserve(length + 1);
                room = bytes.capacity() - bytes.len();
                length = self.read(bytes.as_mut_ptr().add(bytes.len()).cast(), room)?;
            }
            bytes.set_len(before + length);
        }
        if may_be_mended(&bytes[before..]) {
            bytes.truncate(before);
            append_wide(&self.units()?, bytes);
        }
        Ok(())
    }

    /// What it holds, where it is no string but a `Uint8Array`.
    fn array(&self) -> Option<&[u8]> {
        let (mut kind, mut length, mut data) = (0, 0, ptr::null_mut());
        // SAFETY: a `Str` lives no longer than the call that passed it, and JavaScript waits for that; Node.js says how many
        // bytes there are, and where. What it is not asked for, it does not write.
        unsafe {
            let (no_buffer, no_offset) = (ptr::null_mut(), ptr::null_mut());
            let status =
                sys::napi_get_typedarray_info(self.0, self.1, &mut kind, &mut length, &mut data, no_buffer, no_offset);
            let bytes = status == sys::Status::napi_ok && kind == sys::TypedarrayType::uint8_array && !data.is_null();
            bytes.then(|| slice::from_raw_parts(data.cast(), length))
        }
    }

    /// The string as JavaScript has it.
    fn units(&self) -> Result<Vec<u16>> {
        let mut length = 0;
        // SAFETY: as above; there is room for the units that Node.js counts, and its final zero.
        unsafe {
            check(sys::napi_get_value_string_utf16(self.0, self.1, ptr::null_mut(), 0, &mut length))?;
            let mut units = vec![0u16; length + 1];
            check(sys::napi_get_value_string_utf16(self.0, self.1, units.as_mut_ptr(), units.len(), &mut length))?;
            units.truncate(length);
            Ok(units)
        }
    }

    /// Writes what fits to `to` and says how many bytes; without a place to write to, how many there are.
    unsafe fn read(&self, to: *mut std::ffi::c_char, room: usize) -> Result<usize> {
        let mut length = 0;
        // SAFETY: the caller's, see above.
        check(unsafe { sys::napi_get_value_string_utf8(self.0, self.1, to, room, &mut length) })?;
        Ok(length)
    }
}

fn check(status: sys::napi_status) -> Result<()> {
    if status == sys::Status::napi_ok {
        return Ok(());
    }
    Err(napi::Error::new(Status::from(status), "a string was expected".to_owned()))
}

/// Whether Node.js may have written U+FFFD for a lone surrogate, or the string has one itself.
fn may_be_mended(bytes: &[u8]) -> bool {
    // The first byte is rare: it is looked for a register at a time.
    memchr::memchr_iter(0xef, bytes).any(|at| bytes[at..].starts_with("\u{fffd}".as_bytes()))
}

fn append_wide(units: &[u16], bytes: &mut Vec<u8>) {
    for unit in char::decode_utf16(units.iter().copied()) {
        match unit {
            Ok(character) => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(lone) => {
                let unit = lone.unpaired_surrogate();
                bytes.extend([0xe0 | (unit >> 12) as u8, 0x80 | (unit >> 6 & 0x3f) as u8, 0x80 | (unit & 0x3f) as u8]);
            }
        }
    }
}

/// The string that [`append_wide`] has written, where that is no UTF-8. Other bytes become U+FFFD.
fn to_units(mut bytes: &[u8]) -> Vec<u16> {
    let mut units = Vec::with_capacity(bytes.len());
    loop {
        let (valid, rest) = match std::str::from_utf8(bytes) {
            Ok(_) => (bytes, &[][..]),
            Err(error) => bytes.split_at(error.valid_up_to()),
        };
        units.extend(String::from_utf8_lossy(valid).encode_utf16());
        bytes = match *rest {
            [] => return units,
            [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ..] => {
                units.push(0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f));
                &rest[3..]
            }
            _ => {
                units.push(0xfffd);
                &rest[1..]
            }
        };
    }
}

impl ToNapiValue for Text {
    unsafe fn to_napi_value(env: sys::napi_env, Self(bytes): Self) -> Result<sys::napi_value> {
        let mut value = ptr::null_mut();
        // SAFETY: Node.js copies as much as it is told there is.
        check(unsafe {
            if std::str::from_utf8(&bytes).is_ok() {
                sys::napi_create_string_utf8(env, bytes.as_ptr().cast(), bytes.len() as isize, &mut value)
            } else {
                let units = to_units(&bytes);
                sys::napi_create_string_utf16(env, units.as_ptr(), units.len() as isize, &mut value)
            }
        })?;
        Ok(value)
    }
}

/// A character has up to four bytes, and there is a final zero: with fewer left, the next one may not have fitted.
fn is_whole(length: usize, room: usize) -> bool {
    length + 5 <= room
}

macro_rules! from_value {
    ($type:ty, $from:expr) => {
        impl TypeName for $type {
            fn type_name() -> &'static str {
                "String"
            }

            fn value_type() -> ValueType {
                ValueType::String
            }
        }

        impl ValidateNapiValue for $type {}

        impl FromNapiValue for $type {
            unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> Result<Self> {
                $from(env, value)
            }
        }
    };
}

from_value!(Str, |env, value| Ok(Str(env, value)));
from_value!(Text, |env, value| Str(env, value).with(|bytes| Text(bytes.to_vec())));

/// Strings, one after the other.
#[derive(Default)]
pub struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    /// Adds the arguments of a call from `from` up to `to`, or to the last.
    pub fn read(&mut self, call: &FunctionCallContext, from: usize, to: usize) -> Result<()> {
        for index in from..to.min(call.length()) {
            call.get::<Str>(index)?.append_to(&mut self.bytes)?;
            self.ends.push(self.bytes.len());
        }
        Ok(())
    }

    /// Forgets all, and keeps the memory for others unless it is much.
    pub fn clear(&mut self) {
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.ends.clear();
    }

    /// The strings in groups of `N`.
    pub fn groups<const N: usize>(&self) -> impl ExactSizeIterator<Item = [&[u8]; N]> {
        let mut from = 0;
        self.ends.as_chunks::<N>().0.iter().map(move |ends| {
            ends.map(|end| {
                let string = &self.bytes[from..end];
                from = end;
                string
            })
        })
    }
}
