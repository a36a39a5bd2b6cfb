//! PNG, JPEG, GIF, WebP and BMP → RGB, the way up that its camera was held, as transformers' `load_image` gives it: palettes
//! and shades of grey become colours, what is transparent keeps its colour, of 16 bits the upper 8 count, of an animation the
//! first frame.

use std::io::Cursor;
use std::panic::catch_unwind;

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError, ImageReader, Limits};

use super::refusal::{check_size, unreadable};
use super::resample::{CHANNELS, Rgb};
use crate::error::{Error, Result};

/// Most bytes that a decoder takes for itself: those of the largest image that any call may allow, and some more.
const MOST_DECODED_BYTES: u64 = 4 << 30;

/// What a header says.
pub struct Header {
    pub width: u32,
    pub height: u32,
    /// Bytes of memory that decoding takes, at the most.
    pub working_bytes: u64,
}

/// Reads the header alone.
pub fn header(bytes: &[u8]) -> Result<Header> {
    guarded(bytes, |bytes| {
        let decoder = decoder(bytes)?;
        let (width, height) = decoder.dimensions();
        let rgb = u64::from(width) * u64::from(height) * CHANNELS as u64;
        // As it was decoded, in colours, and upright.
        let working_bytes = decoder.total_bytes().saturating_add(2 * rgb);
        Ok(Header { width, height, working_bytes })
    })
}

/// Decodes an image of at most so many pixels.
pub fn rgb(bytes: &[u8], most_pixels: u64) -> Result<Rgb> {
    guarded(bytes, |bytes| {
        let mut decoder = decoder(bytes)?;
        let (width, height) = decoder.dimensions();
        check_size(width, height, most_pixels)?;
        if is_jpeg(bytes) && !is_whole_jpeg(bytes) {
            return Err(unreadable("it is cut off: its file ends before the image does"));
        }
        // What is wrong with the note about the camera is no reason to refuse the image.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let (width, height, color) = (width as usize, height as usize, decoder.color_type());
        let mut data = vec![0; decoder.total_bytes() as usize];
        decoder.read_image(&mut data).map_err(broken)?;
        Ok(upright(Rgb { width, height, data: to_rgb(data, color)? }, orientation))
    })
}

/// What a decoder panics about is an image that it cannot read.
fn guarded<T>(bytes: &[u8], work: impl FnOnce(&[u8]) -> Result<T> + std::panic::UnwindSafe) -> Result<T> {
    let damaged = |_| Err(unreadable("it is damaged: its decoder gave up"));
    catch_unwind(|| work(bytes)).unwrap_or_else(damaged)
}

fn decoder(bytes: &[u8]) -> Result<impl ImageDecoder + '_> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let mut reader = reader.map_err(|error| unreadable(error.to_string()))?;
    if reader.format().is_none() {
        return Err(unreadable("it is no PNG, JPEG, GIF, WebP or BMP"));
    }
    // The image itself is bounded by the number of its pixels, which is looked at first. A frame of it may say that it is
    // larger than the whole.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MOST_DECODED_BYTES);
    reader.limits(limits);
    reader.into_decoder().map_err(broken)
}

fn broken(error: ImageError) -> Error {
    unreadable(match &error {
        ImageError::Unsupported(_) => {
            format!("it is of a kind that is not supported: {error}; PNG, JPEG, GIF, WebP and BMP are")
        }
        _ => format!("it is damaged or cut off: {error}"),
    })
}

fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8])
}

/// Whether a JPEG has an end: its decoder makes what is missing grey.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(found) = memchr::memchr(0xff, bytes.get(at..).unwrap_or_default()) {
        at += found + 1;
        match bytes.get(at) {
            // Its end.
            Some(0xd9) => return true,
            // A byte of the picture, the next part of it, or padding.
            Some(0x00 | 0xd0..=0xd7 | 0x01) => at += 1,
            Some(0xff) => {}
            // Something that says how long it is: a preview in it has an end of its own.
            Some(_) => match bytes.get(at + 1..at + 3) {
                Some(length) => at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
            None => return false,
        }
    }
    false
}

fn to_rgb(data: Vec<u8>, color: ColorType) -> Result<Vec<u8>> {
    // Values of 16 bits are in the machine's own order.
    let upper = if cfg!(target_endian = "little") { 1 } else { 0 };
    let grey = |size: usize, at: usize| data.chunks_exact(size).flat_map(|pixel| [pixel[at]; CHANNELS]).collect();
    let colours =
        |size: usize, at: [usize; CHANNELS]| data.chunks_exact(size).flat_map(|pixel| at.map(|at| pixel[at])).collect();
    Ok(match color {
        ColorType::Rgb8 => data,
        ColorType::Rgba8 => colours(4, [0, 1, 2]),
        ColorType::L8 => grey(1, 0),
        ColorType::La8 => grey(2, 0),
        ColorType::L16 => grey(2, upper),
        ColorType::La16 => grey(4, upper),
        ColorType::Rgb16 => colours(6, [upper, 2 + upper, 4 + upper]),
        ColorType::Rgba16 => colours(8, [upper, 2 + upper, 4 + upper]),
        other => return Err(unreadable(format!("its colours are {other:?}, which is not supported"))),
    })
}

/// Which pixel of an image comes to (x, y), given its width and height.
type From = fn(usize, usize, usize, usize) -> (usize, usize);

/// Turns an image the way up that its camera was held.
fn upright(image: Rgb, orientation: Orientation) -> Rgb {
    let (across, down) = (image.width, image.height);
    let (turned, from): (bool, From) = match orientation {
        Orientation::NoTransforms => return image,
        Orientation::FlipHorizontal => (false, |x, y, w, _| (w - 1 - x, y)),
        Orientation::Rotate180 => (false, |x, y, w, h| (w - 1 - x, h - 1 - y)),
        Orientation::FlipVertical => (false, |x, y, _, h| (x, h - 1 - y)),
        Orientation::Rotate90FlipH => (true, |x, y, _, _| (y, x)),
        Orientation::Rotate90 => (true, |x, y, _, h| (y, h - 1 - x)),
        Orientation::Rotate270FlipH => (true, |x, y, w, h| (w - 1 - y, h - 1 - x)),
        Orientation::Rotate270 => (true, |x, y, w, _| (w - 1 - y, x)),
    };
    let (width, height) = if turned { (down, across) } else { (across, down) };
    let mut out = Rgb { width, height, data: Vec::with_capacity(image.data.len()) };
    for y in 0..height {
        for x in 0..width {
            let (x, y) = from(x, y, across, down);
            out.data.extend_from_slice(&image.row(y)[x * CHANNELS..][..CHANNELS]);
        }
    }
    out
}
