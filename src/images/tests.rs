//! Pixels as Pillow and transformers have them, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn file(name: &str) -> ImageSource {
    ImageSource::File(fixtures().join("images").join(name))
}

fn pixels(source: ImageSource, preprocessing: &Preprocessing) -> Vec<f32> {
    let mut out = vec![0.0; preprocessing.count()];
    source.examine(MOST_PIXELS).unwrap().read(preprocessing, &mut out).unwrap();
    out
}

fn reason(source: ImageSource) -> String {
    let preprocessing = Preprocessing::parse(&json!({ "do_resize": true })).unwrap().unwrap();
    let read = |image: Image| image.read(&preprocessing, &mut vec![0.0; preprocessing.count()]);
    source.examine(1000).and_then(read).unwrap_err().to_string()
}

#[test]
fn pixels_are_those_of_the_reference_bit_for_bit() {
    let golden = json(fixtures().join("golden-images.json"));
    let mut compared = 0;
    for model in golden["models"].as_array().unwrap() {
        let directory = fixtures().join("models").join(model["name"].as_str().unwrap());
        let config = json(directory.join("preprocessor_config.json"));
        let preprocessing = Preprocessing::parse(&config).unwrap().unwrap();
        for image in model["images"].as_array().unwrap() {
            let name = image["file"].as_str().unwrap();
            // Decoders of JPEG differ by a step of brightness now and then.
            let Some(expected) = image["sha256"].as_str() else { continue };
            let pixels = pixels(file(name), &preprocessing);
            let bytes: Vec<u8> = pixels.iter().flat_map(|value| value.to_le_bytes()).collect();
            let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hash, expected, "{} {name}", model["name"]);
            compared += 1;
        }
    }
    assert!(compared > 80, "{compared}");
}

#[test]
fn all_images_weigh_what_their_headers_say() {
    let image = file("rgb.png").examine(MOST_PIXELS).unwrap();
    // 61 × 47 pixels in colours, three times at most, and the file.
    assert_eq!(image.working_bytes, 61 * 47 * 3 * 3 + fs::metadata(fixtures().join("images/rgb.png")).unwrap().len());
}

#[test]
fn an_image_is_its_content_wherever_it_comes_from() {
    let bytes = fs::read(fixtures().join("images/rgb.png")).unwrap();
    let from_bytes = ImageSource::Bytes(bytes.into()).examine(MOST_PIXELS).unwrap();
    assert_eq!(from_bytes.hash, file("rgb.png").examine(MOST_PIXELS).unwrap().hash);
}

#[test]
fn what_cannot_be_read_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        ImageSource::File(path)
    };
    let missing = ImageSource::File(directory.path().join("missing.png"));
    assert!(reason(missing).contains("cannot be read"));
    assert!(reason(ImageSource::File(directory.path().to_path_buf())).contains("a directory"));
    assert!(reason(at("text.png", b"no image")).contains("no PNG, JPEG, GIF, WebP or BMP"));
    assert!(reason(at("empty.png", b"")).contains("no PNG, JPEG, GIF, WebP or BMP"));
    assert!(reason(file("rgb.png")).contains("61 × 47 pixels, more than the limit of 1000"));
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let preprocessing = Preprocessing::parse(&json!({ "do_resize": true })).unwrap().unwrap();
    let mut out = vec![0.0; preprocessing.count()];
    for name in ["rgb.png", "rgb.jpg", "subsampled.jpg", "rgb.bmp", "rgb.webp", "animated.gif", "palette.png"] {
        let bytes = fs::read(fixtures().join("images").join(name)).unwrap();
        // Of a GIF and a WebP with frames, the first one counts.
        let end = if name == "animated.gif" { bytes.len() / 3 } else { bytes.len() * 9 / 10 };
        for length in (1..end).step_by(end / 40 + 1) {
            let source = ImageSource::Bytes(bytes[..length].into());
            let read = source.examine(MOST_PIXELS).and_then(|image| image.read(&preprocessing, &mut out));
            assert!(read.is_err(), "{name} with {length} bytes of {}", bytes.len());
        }
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let preprocessing = Preprocessing::parse(&json!({ "do_resize": true })).unwrap().unwrap();
    let mut out = vec![0.0; preprocessing.count()];
    for name in ["rgb.png", "turned.jpg", "rgb.bmp", "rgb.webp", "animated.webp", "animated.gif"] {
        let bytes = fs::read(fixtures().join("images").join(name)).unwrap();
        for at in (0..bytes.len()).step_by(bytes.len() / 60 + 1) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xa5;
            drop(
                ImageSource::Bytes(damaged.into())
                    .examine(1 << 20)
                    .and_then(|image| image.read(&preprocessing, &mut out)),
            );
        }
    }
}

#[test]
fn a_file_that_changes_during_a_call_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    fs::copy(fixtures().join("images/rgb.png"), &path).unwrap();
    let image = ImageSource::File(path.clone()).examine(MOST_PIXELS).unwrap();
    fs::copy(fixtures().join("images/grey.png"), &path).unwrap();
    let preprocessing = Preprocessing::parse(&json!({ "do_resize": true })).unwrap().unwrap();
    let read = image.read(&preprocessing, &mut vec![0.0; preprocessing.count()]);
    assert!(read.unwrap_err().to_string().contains("changed"));
}

#[test]
fn an_image_of_any_shape_takes_the_memory_of_what_is_seen() {
    // Resized as a whole, this one would have 32 × 2,080,000 pixels.
    let config =
        json!({ "size": { "shortest_edge": 32 }, "crop_size": 32, "image_processor_type": "CLIPImageProcessor" });
    let preprocessing = Preprocessing::parse(&config).unwrap().unwrap();
    let mut data = b"BM".to_vec();
    let (width, height) = (1u32, 65_000u32);
    for value in [54 + 4 * height, 0, 54, 40, width, height] {
        data.extend(value.to_le_bytes());
    }
    data.extend([1, 0, 24, 0]);
    data.extend([0; 24]);
    data.resize(54 + 4 * height as usize, 128);
    let pixels = pixels(ImageSource::Bytes(data.into()), &preprocessing);
    assert!(pixels[..32 * 32].iter().all(|value| (value - pixels[0]).abs() < 1e-6));
}

#[test]
fn what_a_file_asks_for_is_done_or_refused() {
    let parse = |config: Value| Preprocessing::parse(&config);
    let size = |config: Value| parse(config).unwrap().unwrap().size();
    // Defaults of both processors, and the spellings of old files.
    assert_eq!(size(json!({ "image_processor_type": "CLIPImageProcessor" })), (224, 224));
    assert_eq!(size(json!({ "image_processor_type": "ViTImageProcessor", "size": 96 })), (96, 96));
    assert_eq!(
        size(
            json!({ "feature_extractor_type": "CLIPFeatureExtractor", "do_resize": true, "size": 96, "crop_size": 64 })
        ),
        (64, 64)
    );
    assert_eq!(
        size(json!({ "image_mean": [0.5, 0.5, 0.5], "size": { "height": 30, "width": 40 }, "do_center_crop": false })),
        (40, 30)
    );
    // Of recordings.
    assert_eq!(parse(json!({ "feature_extractor_type": "WhisperFeatureExtractor", "sampling_rate": 16000 })), Ok(None));
    for (config, expected) in [
        (json!([]), "no JSON object"),
        (json!({ "do_resize": "yes" }), "do_resize"),
        (json!({ "do_resize": true, "do_pad": true }), "do_pad"),
        (json!({ "do_resize": true, "crop_pct": 0.9 }), "crop_pct"),
        (json!({ "do_resize": true, "resample": 9 }), "resample is 9"),
        (json!({ "do_resize": true, "size": { "longest_edge": 5 } }), "longest_edge"),
        (json!({ "do_resize": true, "size": { "shortest_edge": 0 } }), "size is 0"),
        (json!({ "do_resize": true, "size": { "shortest_edge": 99999 } }), "size is 99999"),
        (json!({ "do_resize": true, "crop_size": "large" }), "crop_size"),
        (json!({ "do_resize": false, "do_center_crop": false }), "different shapes"),
        (json!({ "do_resize": true, "image_mean": [0.5] }), "image_mean"),
        (json!({ "do_resize": true, "image_std": [1.0, 0.0, 1.0] }), "image_std"),
        (json!({ "do_resize": true, "rescale_factor": "1/255" }), "rescale_factor"),
    ] {
        let reason = parse(config.clone()).unwrap_err();
        assert!(reason.contains(expected), "{config}: {reason}");
    }
}
