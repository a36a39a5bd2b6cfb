//! Resizing as Pillow 13 does it, bit for bit: separable, in 8 bits after each pass; horizontally first, except where an image
//! becomes wider and lower.
//!
//! A filter that covers all the pixels which one becomes (antialiasing), with weights that are computed in double precision
//! and applied as integers. Only the part of the result that is asked for is computed: the larger a result and the smaller
//! the part, the more that saves.

use std::f64::consts::PI;
use std::ops::Range;

/// Channels of a pixel.
pub const CHANNELS: usize = 3;

/// Bits behind the point of a weight: 32, less the 8 of a value and two for sums beyond it and the sign.
const PRECISION: u32 = 22;

/// How pixels are weighted, by Pillow's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The pixel under the centre.
    Nearest,
    /// Windowed sinc of three lobes.
    Lanczos,
    /// A triangle.
    Bilinear,
    /// Catmull and Rom's: a = -0.5.
    Bicubic,
    /// All alike.
    Box,
    /// Windowed sinc of one lobe.
    Hamming,
}

impl Filter {
    /// By the number that files say.
    pub fn numbered(number: u64) -> Option<Self> {
        let all = [Self::Nearest, Self::Lanczos, Self::Bilinear, Self::Bicubic, Self::Box, Self::Hamming];
        usize::try_from(number).ok().and_then(|at| all.get(at).copied())
    }

    /// Pixels on each side that count, where nothing is made smaller.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Nearest | Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Hamming => match x.abs() {
                0.0 => 1.0,
                x if x >= 1.0 => 0.0,
                x => (x * PI).sin() / (x * PI) * (0.54 + 0.46 * (x * PI).cos()),
            },
            Self::Bicubic => match x.abs() {
                x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
                x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
                _ => 0.0,
            },
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}

/// An RGB image: rows from the top, pixels from the left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb {
    pub width: usize,
    pub height: usize,
    /// `height × width × 3` values.
    pub data: Vec<u8>,
}

impl Rgb {
    /// One of black pixels.
    pub fn black(width: usize, height: usize) -> Self {
        Self { width, height, data: vec![0; width * height * CHANNELS] }
    }

    pub fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.width * CHANNELS..][..self.width * CHANNELS]
    }
}

/// Which pixels become one, and with which weights.
struct Taps {
    from: usize,
    weights: Vec<i32>,
}

/// For each pixel of `part` of a line of `to` pixels, the taps in a line of `from`.
fn taps(filter: Filter, from: usize, to: u64, part: Range<u64>) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    part.map(|at| {
        let centre = (at as f64 + 0.5) * scale;
        let first = ((centre - support + 0.5) as usize).min(from);
        let end = ((centre + support + 0.5) as usize).min(from);
        let weights: Vec<f64> =
            (first..end).map(|x| filter.weight((x as f64 - centre + 0.5) * (1.0 / stretch))).collect();
        let sum: f64 = weights.iter().sum();
        let sum = if sum == 0.0 { 1.0 } else { sum };
        let fixed = |weight: f64| {
            let scaled = weight / sum * f64::from(1 << PRECISION);
            (scaled + 0.5_f64.copysign(scaled)) as i32
        };
        Taps { from: first, weights: weights.into_iter().map(fixed).collect() }
    })
    .collect()
}

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION - 1);

/// The columns and rows of `image`, resized to `width × height`, that are asked for.
pub fn resize(image: &Rgb, width: u64, height: u64, filter: Filter, columns: Range<u64>, rows: Range<u64>) -> Rgb {
    if filter == Filter::Nearest {
        return nearest(image, width, height, columns, rows);
    }
    let (across, down) = (columns.end - columns.start, rows.end - rows.start);
    if width > image.width as u64 && height < image.height as u64 {
        let low = vertically(image, &taps(filter, image.height, height, rows), 0, image.width, down as usize);
        return horizontally(&low, &taps(filter, image.width, width, columns), 0..down as usize);
    }
    let vertical = (height != image.height as u64).then(|| taps(filter, image.height, height, rows.clone()));
    // Rows of the image that become one of those that are asked for.
    let needed = match &vertical {
        None => rows.start as usize..rows.end as usize,
        Some(taps) => {
            let first = taps.iter().map(|tap| tap.from).min().unwrap_or_default();
            first..taps.iter().map(|tap| tap.from + tap.weights.len()).max().unwrap_or(first)
        }
    };
    let narrow = if width == image.width as u64 {
        crop(image, columns.start as usize..columns.end as usize, needed.clone())
    } else {
        horizontally(image, &taps(filter, image.width, width, columns), needed.clone())
    };
    match vertical {
        None => narrow,
        Some(taps) => vertically(&narrow, &taps, needed.start, across as usize, down as usize),
    }
}

fn horizontally(image: &Rgb, taps: &[Taps], rows: Range<usize>) -> Rgb {
    let mut out = Rgb::black(taps.len(), rows.len());
    for (y, into) in rows.zip(out.data.chunks_exact_mut((taps.len() * CHANNELS).max(1))) {
        let row = image.row(y);
        for (tap, into) in taps.iter().zip(into.as_chunks_mut::<CHANNELS>().0) {
            let pixels = row[tap.from * CHANNELS..][..tap.weights.len() * CHANNELS].as_chunks::<CHANNELS>().0;
            let mut sums = [HALF; CHANNELS];
            for (pixel, weight) in pixels.iter().zip(&tap.weights) {
                for channel in 0..CHANNELS {
                    sums[channel] += i32::from(pixel[channel]) * weight;
                }
            }
            *into = sums.map(to_byte);
        }
    }
    out
}

/// `first`: which row of the whole image the first one of `image` is.
fn vertically(image: &Rgb, taps: &[Taps], first: usize, across: usize, down: usize) -> Rgb {
    let mut out = Rgb::black(across, down);
    let mut sums = vec![HALF; across * CHANNELS];
    for (tap, into) in taps.iter().zip(out.data.chunks_exact_mut((across * CHANNELS).max(1))) {
        sums.fill(HALF);
        for (y, weight) in (tap.from - first..).zip(&tap.weights) {
            for (sum, value) in sums.iter_mut().zip(image.row(y)) {
                *sum += i32::from(*value) * weight;
            }
        }
        into.iter_mut().zip(&sums).for_each(|(value, sum)| *value = to_byte(*sum));
    }
    out
}

fn nearest(image: &Rgb, width: u64, height: u64, columns: Range<u64>, rows: Range<u64>) -> Rgb {
    let under =
        |at: u64, from: usize, to: u64| (((at as f64 + 0.5) * (from as f64 / to as f64)) as usize).min(from - 1);
    let mut out = Rgb { width: (columns.end - columns.start) as usize, height: 0, data: Vec::new() };
    for y in rows {
        let row = image.row(under(y, image.height, height));
        for x in columns.clone() {
            out.data.extend_from_slice(&row[under(x, image.width, width) * CHANNELS..][..CHANNELS]);
        }
        out.height += 1;
    }
    out
}

/// A part of an image.
pub fn crop(image: &Rgb, columns: Range<usize>, rows: Range<usize>) -> Rgb {
    let part = |y| &image.row(y)[columns.start * CHANNELS..columns.end * CHANNELS];
    let (width, height) = (columns.len(), rows.len());
    Rgb { width, height, data: rows.flat_map(|y| part(y).iter().copied()).collect() }
}
