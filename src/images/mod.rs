//! Images: their bytes or files, what is read of them, and what a model reads.

mod decode;
mod preprocess;
mod refusal;
mod resample;

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::error::Result;
use refusal::{check_size, unreadable};

pub use preprocess::{Preprocessing, VERSION};
pub use resample::CHANNELS;

/// Most bytes of an image's file: what comes near this is no image.
pub const MOST_BYTES: u64 = 512 << 20;

/// Most pixels of an image, unless a call says otherwise: those of a camera, and three bytes each in memory.
pub const MOST_PIXELS: u64 = 100_000_000;

/// An image as a caller gives it.
#[derive(Debug, Clone)]
pub enum ImageSource {
    /// What its file holds.
    Bytes(Arc<[u8]>),
    /// An absolute path.
    File(PathBuf),
}

/// An image that was looked at: its content, and what its header says.
#[derive(Debug, Clone)]
pub struct Image {
    source: ImageSource,
    /// SHA-256 of what the file holds.
    pub hash: [u8; 32],
    /// Bytes of memory that it takes to decode it, its pixels included.
    pub working_bytes: u64,
    most_pixels: u64,
}

impl ImageSource {
    /// Where the image is, if that is a file.
    pub fn path(&self) -> Option<String> {
        match self {
            Self::Bytes(_) => None,
            Self::File(path) => Some(path.display().to_string()),
        }
    }

    /// Reads the header, and hashes all of it. An image with more pixels than `most_pixels` is refused. Blocks.
    ///
    /// # Errors
    /// Why it cannot be read, as far as its header tells: of image 0.
    pub fn examine(self, most_pixels: u64) -> Result<Image> {
        let bytes = self.bytes()?;
        let header = decode::header(&bytes)?;
        check_size(header.width, header.height, most_pixels)?;
        let hash = Sha256::digest(&bytes).into();
        // A file is read once more.
        let file = if matches!(self, Self::File(_)) { bytes.len() as u64 } else { 0 };
        let working_bytes = header.working_bytes + file;
        drop(bytes);
        Ok(Image { source: self, hash, working_bytes, most_pixels })
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        let path = match self {
            Self::Bytes(bytes) => return Ok(Cow::Borrowed(bytes)),
            Self::File(path) => path,
        };
        let failed = |error: std::io::Error| unreadable(format!("its file cannot be read: {error}"));
        // A pipe would be waited for, and a device has no end.
        let kind = fs::metadata(path).map_err(failed)?;
        if !kind.is_file() {
            let what = if kind.is_dir() { "a directory" } else { "no regular file" };
            return Err(unreadable(format!("its path is that of {what}")));
        }
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(unreadable(format!("its file is larger than {} MB", MOST_BYTES >> 20)));
        }
        Ok(Cow::Owned(bytes))
    }
}

impl Image {
    /// Writes what a model reads of it to `out`, which has as many values as `preprocessing` makes. Blocks: decodes it.
    ///
    /// # Errors
    /// Why it cannot be decoded, of image 0; and where its file has changed since it was looked at: its vector would be kept as that of
    /// another image.
    pub fn read(&self, preprocessing: &Preprocessing, out: &mut [f32]) -> Result<()> {
        let bytes = self.source.bytes()?;
        if matches!(self.source, ImageSource::File(_)) && self.hash != <[u8; 32]>::from(Sha256::digest(&bytes)) {
            return Err(unreadable("its file was changed during the call: call again"));
        }
        let image = decode::rgb(&bytes, self.most_pixels)?;
        drop(bytes);
        preprocessing.apply(&image, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
