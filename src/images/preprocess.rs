//! From an image to what a model reads, as the model's own `preprocessor_config.json` says it: the steps of transformers'
//! `CLIPImageProcessor` and `ViTImageProcessor`, and of those that do the same under other names.

use serde_json::{Map, Value};

use super::resample::{CHANNELS, Filter, Rgb, resize};

/// Part of the embedding space: raise it whenever the same image and file give other values.
pub const VERSION: u32 = 1;

/// Longest side of what a model reads.
const LONGEST_SIDE: u64 = 4096;

/// Mean and standard deviation of OpenAI's CLIP, then of all that says nothing.
const CLIP_MEAN: [f64; CHANNELS] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD: [f64; CHANNELS] = [0.26862954, 0.26130258, 0.27577711];
const HALF: [f64; CHANNELS] = [0.5; CHANNELS];

/// Steps of other processors, which are no steps here: refused where a file asks for one.
const OTHER_STEPS: [&str; 7] = [
    "do_pad",
    "do_flip_channel_order",
    "do_thumbnail",
    "do_align_long_axis",
    "do_reduce_labels",
    "do_split_image",
    "do_image_splitting",
];

/// How large an image becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resize {
    /// Its shorter side.
    ShortestEdge(u64),
    /// Both, whatever its shape.
    Exactly { width: u64, height: u64 },
}

/// What is done to each image.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessing {
    resize: Option<(Resize, Filter)>,
    /// Width and height.
    crop: Option<(u64, u64)>,
    /// What each byte of each channel becomes.
    values: [[f32; 256]; CHANNELS],
}

impl Preprocessing {
    /// What a file says; `None` where it is not about images.
    ///
    /// # Errors
    /// What is wrong with it, or is not supported.
    pub fn parse(json: &Value) -> Result<Option<Self>, String> {
        let Some(file) = json.as_object() else { return Err("it is no JSON object".to_owned()) };
        let name = |field: &str| file.get(field).and_then(Value::as_str).unwrap_or_default();
        let kind = if name("image_processor_type").is_empty() {
            name("feature_extractor_type")
        } else {
            name("image_processor_type")
        };
        let about_images = file.contains_key("image_mean") || file.contains_key("do_resize") || kind.contains("Image");
        if !about_images {
            return Ok(None);
        }
        Self::of(file, kind).map(Some)
    }

    fn of(file: &Map<String, Value>, kind: &str) -> Result<Self, String> {
        // One number for `size` is a side of the whole in ViT and its kin, the shorter side in CLIP and its own.
        let like_clip = ["CLIP", "Bit", "Chinese"].iter().any(|name| kind.contains(name)) || kind.is_empty();
        let on = |step: &str, default: bool| match file.get(step) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(on)) => Ok(*on),
            Some(other) => Err(format!("{step} is {other}, not true or false")),
        };
        for step in OTHER_STEPS {
            if on(step, false)? {
                return Err(format!("it asks for {step}, which is not supported"));
            }
        }
        if file.contains_key("crop_pct") {
            return Err("it asks for crop_pct, which is not supported".to_owned());
        }
        let side = |value: u64, field: &str| match value {
            1..=LONGEST_SIDE => Ok(value),
            _ => Err(format!("{field} is {value}, not a number of pixels from 1 to {LONGEST_SIDE}")),
        };
        let sides = |field: &str, size: &Map<String, Value>| -> Result<Option<(u64, u64)>, String> {
            let side = |name: &str| size.get(name).and_then(Value::as_u64).map(|value| side(value, field)).transpose();
            Ok(side("width")?.zip(side("height")?))
        };
        let resize = if on("do_resize", true)? {
            let number = match file.get("resample") {
                None | Some(Value::Null) => Some(if like_clip { 3 } else { 2 }),
                Some(number) => number.as_u64(),
            };
            let filter = number.and_then(Filter::numbered);
            let filter = filter.ok_or_else(|| format!("resample is {}, not a number from 0 to 5", file["resample"]))?;
            let size = match file.get("size") {
                None | Some(Value::Null) if like_clip => Resize::ShortestEdge(224),
                None | Some(Value::Null) => Resize::Exactly { width: 224, height: 224 },
                Some(Value::Object(size)) => {
                    let shortest = size.get("shortest_edge").and_then(Value::as_u64);
                    match (sides("size", size)?, shortest) {
                        (Some((width, height)), _) => Resize::Exactly { width, height },
                        (None, Some(edge)) if !size.contains_key("longest_edge") => {
                            Resize::ShortestEdge(side(edge, "size")?)
                        }
                        _ => {
                            let size = Value::Object(size.clone());
                            return Err(format!("size is {size}; shortest_edge, or height and width, are supported"));
                        }
                    }
                }
                Some(size) => {
                    let edge = size.as_u64().ok_or_else(|| format!("size is {size}, not a number of pixels"))?;
                    let edge = side(edge, "size")?;
                    if like_clip { Resize::ShortestEdge(edge) } else { Resize::Exactly { width: edge, height: edge } }
                }
            };
            Some((size, filter))
        } else {
            None
        };
        let crop = if on("do_center_crop", like_clip)? {
            let size = match file.get("crop_size") {
                None | Some(Value::Null) => Some((224, 224)),
                Some(Value::Object(size)) => sides("crop_size", size)?,
                Some(size) => size.as_u64().map(|value| side(value, "crop_size")).transpose()?.map(|side| (side, side)),
            };
            Some(size.ok_or_else(|| format!("crop_size is {}, not height and width", file["crop_size"]))?)
        } else {
            None
        };
        if crop.is_none() && !matches!(resize, Some((Resize::Exactly { .. }, _))) {
            return Err("images of different shapes stay different by it, and a batch has one: do_center_crop, or a \
                 size with height and width, is needed"
                .to_owned());
        }
        let values = Self::values(file, like_clip, on("do_rescale", true)?, on("do_normalize", true)?)?;
        Ok(Self { resize, crop, values })
    }

    fn values(
        file: &Map<String, Value>,
        like_clip: bool,
        rescale: bool,
        normalize: bool,
    ) -> Result<[[f32; 256]; CHANNELS], String> {
        let number = |value: &Value| value.as_f64().filter(|value| value.is_finite());
        let factor = match file.get("rescale_factor") {
            None | Some(Value::Null) => 1.0 / 255.0,
            Some(value) => number(value).ok_or_else(|| format!("rescale_factor is {value}, not a number"))?,
        };
        let each = |field: &str, default: [f64; CHANNELS]| -> Result<[f64; CHANNELS], String> {
            let wrong = |value: &Value| format!("{field} is {value}, not a number for each of {CHANNELS} channels");
            match file.get(field) {
                None | Some(Value::Null) => Ok(default),
                Some(value @ Value::Array(numbers)) => {
                    let numbers: Option<Vec<f64>> = numbers.iter().map(number).collect();
                    numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(|| wrong(value))
                }
                Some(value) => number(value).map(|one| [one; CHANNELS]).ok_or_else(|| wrong(value)),
            }
        };
        let mean = each("image_mean", if like_clip { CLIP_MEAN } else { HALF })?;
        let deviation = each("image_std", if like_clip { CLIP_STD } else { HALF })?;
        if deviation.contains(&0.0) {
            return Err(format!("image_std is {deviation:?}: what is divided by must not be 0"));
        }
        // In the precision of numpy, which the reference computes with: f64 times a byte, rounded; then all in f32.
        let value = |channel: usize, byte: usize| {
            let scaled = if rescale { (byte as f64 * factor) as f32 } else { byte as f32 };
            if normalize { (scaled - mean[channel] as f32) / deviation[channel] as f32 } else { scaled }
        };
        Ok(std::array::from_fn(|channel| std::array::from_fn(|byte| value(channel, byte))))
    }

    /// Width and height of what the model reads.
    pub fn size(&self) -> (usize, usize) {
        let (width, height) = match (self.crop, self.resize) {
            (Some(size), _) => size,
            (None, Some((Resize::Exactly { width, height }, _))) => (width, height),
            // Refused when it was parsed.
            (None, _) => (0, 0),
        };
        (width as usize, height as usize)
    }

    /// What tells it from another one that gives other values.
    pub fn digest(&self) -> Vec<u8> {
        let mut digest = format!("{:?} {:?} ", self.resize, self.crop).into_bytes();
        digest.extend(self.values.iter().flatten().flat_map(|value| value.to_le_bytes()));
        digest
    }

    /// How many values an image becomes.
    pub fn count(&self) -> usize {
        let (width, height) = self.size();
        width * height * CHANNELS
    }

    /// Writes what the model reads of an image to `out`, which has [`Preprocessing::count`] values: one channel after the other.
    pub fn apply(&self, image: &Rgb, out: &mut [f32]) {
        let seen = self.see(image);
        let (width, height) = self.size();
        for (channel, out) in out.chunks_exact_mut((width * height).max(1)).enumerate() {
            let values = &self.values[channel];
            for (value, pixel) in out.iter_mut().zip(seen.data.as_chunks::<CHANNELS>().0) {
                *value = values[usize::from(pixel[channel])];
            }
        }
    }

    /// The part of the resized image that the model sees, black where there is none.
    fn see(&self, image: &Rgb) -> Rgb {
        let (own_width, own_height) = (image.width as u64, image.height as u64);
        let (width, height, filter) = match self.resize {
            None => (own_width, own_height, Filter::Box),
            Some((Resize::Exactly { width, height }, filter)) => (width, height, filter),
            Some((Resize::ShortestEdge(edge), filter)) => {
                let longer = |long: u64, short: u64| (edge as f64 * long as f64 / short as f64) as u64;
                if own_width <= own_height {
                    (edge, longer(own_height, own_width), filter)
                } else {
                    (longer(own_width, own_height), edge, filter)
                }
            }
        };
        let Some((crop_width, crop_height)) = self.crop else {
            return resize(image, width, height, filter, 0..width, 0..height);
        };
        // Half of what is too much goes on each side; of an odd number, the smaller half first, as integers of Python are
        // divided; and of what is missing, the larger half.
        let window = |has: u64, wants: u64| {
            let first = (has as i64 - wants as i64).div_euclid(2);
            let from = first.max(0) as u64;
            let until = (first + wants as i64).clamp(0, has as i64) as u64;
            (from..until, (-first).max(0) as usize)
        };
        let (columns, left) = window(width, crop_width);
        let (rows, top) = window(height, crop_height);
        let part = resize(image, width, height, filter, columns, rows);
        if (part.width as u64, part.height as u64) == (crop_width, crop_height) {
            return part;
        }
        let mut padded = Rgb::black(crop_width as usize, crop_height as usize);
        for y in 0..part.height {
            let at = ((top + y) * padded.width + left) * CHANNELS;
            padded.data[at..at + part.width * CHANNELS].copy_from_slice(part.row(y));
        }
        padded
    }
}
