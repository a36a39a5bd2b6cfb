//! Strings of JavaScript, read without an allocation for each.
//!
//! Many strings come as the arguments of one call: nothing is cheaper for Node.js to pass, neither an array, whose
//! elements are looked up one by one, nor one string that all are joined to, which V8 has to copy together first.

use std::mem::MaybeUninit;
use std::{ptr, slice};

use napi::bindgen_prelude::{FromNapiValue, FunctionCallContext, TypeName, ValidateNapiValue};
use napi::{Result, Status, ValueType, sys};

/// Strings up to this many bytes are read to the stack.
const SHORT: usize = 4096;

/// Free room that is offered to a string whose length is not known. V8 is fastest where there is room for the longest
/// that a string of its length can be.
const ROOM: usize = 16 << 10;

/// More than this is not kept for the next call.
const KEPT: usize = 1 << 20;

/// A string's bytes in UTF-8. Lone surrogates become U+FFFD, as everywhere in the web platform.
pub struct Text(pub Vec<u8>);

/// A string that is read when its bytes are needed.
pub struct Str(sys::napi_env, sys::napi_value);

impl Str {
    /// Calls `work` with the bytes in UTF-8. Nothing is allocated for strings of usual length.
    pub fn with<T>(&self, work: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let mut short = [MaybeUninit::<u8>::uninit(); SHORT];
        // SAFETY: a `Str` lives no longer than the call that passed it. Node.js writes at most as many bytes as it is
        // told, a final zero included, and says how many without it.
        unsafe {
            let length = self.read(short.as_mut_ptr().cast(), SHORT)?;
            if is_whole(length, SHORT) {
                return Ok(work(slice::from_raw_parts(short.as_ptr().cast(), length)));
            }
        }
        let mut long = Vec::new();
        self.append_to(&mut long)?;
        Ok(work(&long))
    }

    /// Appends the bytes in UTF-8.
    fn append_to(&self, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.reserve(ROOM);
        let mut room = bytes.capacity() - bytes.len();
        // SAFETY: as above; there is room for what Node.js is told.
        unsafe {
            let mut length = self.read(bytes.as_mut_ptr().add(bytes.len()).cast(), room)?;
            if !is_whole(length, room) {
                length = self.read(ptr::null_mut(), 0)?;
                bytes.reserve(length + 1);
                room = bytes.capacity() - bytes.len();
                length = self.read(bytes.as_mut_ptr().add(bytes.len()).cast(), room)?;
            }
            bytes.set_len(bytes.len() + length);
        }
        Ok(())
    }

    /// Writes what fits to `to` and says how many bytes; without a place to write to, how many there are.
    unsafe fn read(&self, to: *mut std::ffi::c_char, room: usize) -> Result<usize> {
        let mut length = 0;
        // SAFETY: the caller's, see above.
        let status = unsafe { sys::napi_get_value_string_utf8(self.0, self.1, to, room, &mut length) };
        if status == sys::Status::napi_ok {
            return Ok(length);
        }
        Err(napi::Error::new(Status::from(status), "a string was expected".to_owned()))
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
