//! An image model in ONNX: pixels in, vectors out. CLIP's vision part, ViT, DINOv2, SigLIP and their kin.

use super::directory::ModelSpec;
use super::pooling::{Extent, Head};
use super::session::{Cells, Kind, Run, Session};
use super::weights::HashedWeights;
use super::{Architecture, Dtype, Model, ModelInfo, ModelOptions, Pooling, ProviderInfo, RunError, Then};
use crate::cancel::Cancel;
use crate::embedding::{Fingerprint, Modality, Task, Tokens, Value};
use crate::error::{Error, Result};
use crate::images::{self, CHANNELS, Preprocessing};

/// The input that takes images.
const PIXELS: &str = "pixel_values";

/// Outputs that hold one vector for each image, best first; then the one that holds one for each patch.
const IMAGE_OUTPUTS: [&str; 2] = ["image_embeds", "pooler_output"];
const PATCH_OUTPUT: &str = "last_hidden_state";

/// Memory of a run for each value of an image, where the runtime does not tell what runs take.
const GUESSED_BYTES_A_VALUE: u64 = 256;

/// How much more than was measured a run may take.
const MARGIN: f64 = 1.15;

/// Whether a graph asks for images.
pub(super) fn reads_images(session: &dyn Session) -> bool {
    session.inputs().iter().any(|input| input.name == PIXELS)
}

/// See the module.
pub(super) struct VisionModel {
    session: Box<dyn Session>,
    preprocessing: Preprocessing,
    /// Whether pixels are given as numbers of 16 bits.
    half: bool,
    output: usize,
    output_dtype: &'static str,
    head: Head,
    /// Length of the graph's own vectors; 0 until the first run has told.
    width: usize,
    /// Bytes of a run for each image.
    image_bytes: u64,
    info: ModelInfo,
}

impl VisionModel {
    /// A model whose graph was compiled. Runs it once, so that a model that cannot work fails here and not later. Its
    /// identity is still open, see [`VisionModel::identified`].
    pub fn new(
        id: &str,
        spec: &ModelSpec,
        options: &ModelOptions,
        session: Box<dyn Session>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let bad = |reason: String| Error::model(&spec.onnx, reason);
        let others: Vec<&str> =
            session.inputs().iter().map(|input| input.name.as_str()).filter(|name| *name != PIXELS).collect();
        if !others.is_empty() {
            return Err(bad(format!(
                "it reads images (pixel_values) together with {}: pass the path of the part that reads images alone (vision_model.onnx, \
                 most often)",
                others.join(", ")
            )));
        }
        let preprocessing = spec.preprocessing.clone().ok_or_else(|| {
            let missing = spec.root.join(super::config_files::PREPROCESSOR);
            Error::model(missing, "there is no such file, and without it nobody knows how images are prepared")
        })?;
        let preferred: Vec<&str> = match options.pooling[..] {
            [] => IMAGE_OUTPUTS.into_iter().chain([PATCH_OUTPUT]).collect(),
            _ => vec![PATCH_OUTPUT],
        };
        let outputs = session.outputs();
        let at = preferred.iter().find_map(|name| outputs.iter().position(|output| output.name == *name));
        let (at, output) = at.and_then(|at| Some((at, outputs.get(at)?))).ok_or_else(|| {
            let found: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
            bad(format!(
                "it has no output to read vectors from: it has {}, one of {} is needed",
                found.join(", "),
                preferred.join(", ")
            ))
        })?;
        let dtype = match output.kind {
            Kind::Float32 => Some("fp32"),
            Kind::Float16 => Some("fp16"),
            _ => None,
        };
        let output_dtype =
            dtype.ok_or_else(|| bad(format!("its output {} has no values of float32 or float16", output.name)))?;
        // Of patches, the first one is the class token, which is trained to stand for the whole.
        let pooling = match (output.name == PATCH_OUTPUT, &spec.pooling[..]) {
            (false, _) => Vec::new(),
            (true, []) => vec![Pooling::Cls],
            (true, pooling) => pooling.to_vec(),
        };
        let normalize = spec.normalize.unwrap_or(false);
        let about = session.about();
        let mut model = Self {
            half: session.inputs().iter().any(|input| input.kind == Kind::Float16),
            output: at,
            output_dtype,
            head: Head {
                tokens: spec.tokens.clone(),
                pooling: pooling.clone(),
                layers: spec.layers.clone(),
                dimensions: options.dimensions,
                normalize,
            },
            width: 0,
            image_bytes: GUESSED_BYTES_A_VALUE * preprocessing.count() as u64,
            info: ModelInfo {
                model_id: id.to_owned(),
                modality: Modality::Image,
                architecture: Some(Architecture::Encoder),
                task: Task::Embedding,
                labels: Vec::new(),
                sigmoid: false,
                model_path: spec.onnx.display().to_string(),
                repository: spec.origin.as_ref().map(|(repository, _)| repository.clone()),
                revision: spec.origin.as_ref().map(|(_, commit)| commit.clone()),
                dimensions: 0,
                max_length: None,
                max_length_from: None,
                pooling,
                normalize,
                output: Some(output.name.clone()),
                dtype: Some(Dtype::named(&spec.onnx).map_or(output_dtype, Dtype::as_str)),
                batch_invariant: false,
                intra_op_threads: about.intra_op_threads,
                runtime: about.build.clone(),
                compute: Some(about.compute),
                providers: about.providers.clone(),
                remote: None,
                fingerprint: Fingerprint::builder().finish(),
            },
            preprocessing,
            session,
        };
        let failed = |reason| cancel.check().err().unwrap_or_else(|| bad(reason));
        model.try_out(options, cancel).map_err(failed)?;
        Ok(model)
    }

    /// The model with what only the hashed weights tell.
    pub fn identified(mut self, spec: &ModelSpec, weights: &HashedWeights, mix: bool) -> Self {
        let number = |value: usize| (value as u64).to_le_bytes();
        self.info.batch_invariant = !weights.dynamic_quantization;
        let info = &self.info;
        let mut builder = Fingerprint::builder()
            .field("modality", info.modality.as_str())
            .field("weights", weights.sha256)
            .field("preprocessing", self.preprocessing.digest())
            .field("preprocessing version", images::VERSION.to_le_bytes())
            .field("output", info.output.as_deref().unwrap_or_default())
            .field("pooling", if info.pooling.is_empty() { "graph".to_owned() } else { Pooling::joined(&info.pooling) })
            .field("normalize", [u8::from(info.normalize)])
            .field("dimensions", number(info.dimensions))
            .field("dtype", self.output_dtype);
        if let Some((_, commit)) = &spec.origin {
            builder = builder.field("revision", commit);
        }
        for provider in info.providers.iter().filter_map(ProviderInfo::identity) {
            builder = builder.field("provider", provider);
        }
        if let Some(compute) = info.compute.filter(|_| !mix) {
            builder = compute.identify(builder);
        }
        for (name, bytes) in &spec.config_files {
            builder = builder.field(name, bytes);
        }
        self.info.fingerprint = builder.finish();
        self
    }

    /// Runs a grey image; learns the length of vectors, and what a run takes.
    fn try_out(&mut self, options: &ModelOptions, cancel: &Cancel) -> Result<(), String> {
        let before = self.session.memory();
        let (width, values) = self
            .infer(vec![0.0; self.preprocessing.count()], 1, cancel, false)
            .map_err(|reason| format!("a first run of the model failed: {reason}"))?;
        let full = self.head.full_width(width)?;
        if let Some(dimensions) = options.dimensions.filter(|&dimensions| dimensions > full) {
            return Err(format!("dimensions: {dimensions} is more than the {full} that the model has"));
        }
        let vectors = self.vectors(&values, width, 1);
        if vectors.iter().any(|value| !value.is_finite()) {
            return Err("its vectors are not finite numbers: the weights are damaged".to_owned());
        }
        (self.width, self.info.dimensions) = (width, vectors.len());
        if let (Some(before), Some(after)) = (before, self.session.memory()) {
            let run = (after.peak.saturating_sub(before.now) as f64 * MARGIN) as u64;
            // Our own copy of the pixels, and the runtime's.
            self.image_bytes = run + 2 * size_of::<f32>() as u64 * self.preprocessing.count() as u64;
        }
        Ok(())
    }

    /// The graph's output for pixels of so many images, and the length of each of its vectors.
    fn infer(&self, pixels: Vec<f32>, rows: usize, cancel: &Cancel, shrink: bool) -> Result<(usize, Vec<f32>), String> {
        let (width, height) = self.preprocessing.size();
        // Taken first, so that it is given back last: what a run is given belongs to the engine, too.
        let _inside = self.session.gate().enter(cancel).map_err(|error| error.to_string())?;
        let cells = match self.half {
            true => Cells::Half(pixels.into_iter().map(half::f16::from_f32).collect()),
            false => Cells::Real(pixels),
        };
        let shape = vec![rows, CHANNELS, height, width];
        let run = Run { inputs: vec![cells], shape, output: self.output, picked: None, shrink, cancel };
        let (mut dims, mut values) = (Vec::new(), Vec::new());
        self.session.run(run, &mut |output| (dims, values) = (output.dims.clone(), output.values.to_vec()))?;
        let output = || self.info.output.as_deref().unwrap_or_default();
        let expected = if self.head.pooling.is_empty() { 2 } else { 3 };
        let width = match (dims.first(), dims.last()) {
            (Some(&first), Some(&width)) if dims.len() == expected && first == rows as i64 && width > 0 => {
                width as usize
            }
            _ => return Err(format!("its output {} has the shape {dims:?} for {rows} images", output())),
        };
        if self.width != 0 && width != self.width {
            return Err(format!("its output {} was {} wide at first and is {width} now", output(), self.width));
        }
        Ok((width, values))
    }

    fn vectors(&self, values: &[f32], width: usize, rows: usize) -> Vec<f32> {
        let patches = values.len() / (width * rows).max(1);
        let mut vectors = Vec::with_capacity(rows * self.info.dimensions);
        let all = Extent { tokens: patches, unpooled: 0 };
        self.head.apply(values, width, std::iter::repeat_n(all, rows), &mut vectors);
        vectors
    }
}

impl Model for VisionModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn run(&self, batch: &[&Tokens], cancel: &Cancel) -> Result<Vec<Value>, RunError> {
        let length = self.preprocessing.count();
        let mut pixels = vec![0.0; batch.len() * length];
        let mut faulty = Vec::new();
        for (at, (tokens, out)) in batch.iter().zip(pixels.chunks_exact_mut(length)).enumerate() {
            cancel.check().map_err(|error| RunError { error, then: Then::Nothing })?;
            let read = match &tokens.image {
                Some(image) => image.read(&self.preprocessing, out),
                None => Err(Error::Internal("a text came to a model that reads images".to_owned())),
            };
            if let Err(error) = read {
                faulty.push((at, error));
            }
        }
        if let Some((_, first)) = faulty.first() {
            return Err(RunError { error: first.clone(), then: Then::Without(faulty) });
        }
        let vectors = self.infer(pixels, batch.len(), cancel, false);
        let vectors = vectors
            .map(|(width, values)| Value::dense(&self.vectors(&values, width, batch.len()), self.info.dimensions));
        // One unusable image must not take its neighbours with it.
        vectors.map_err(|reason| RunError { error: Error::generation(reason), then: Then::Alone })
    }

    fn bytes(&self, rows: usize, _: usize) -> u64 {
        self.image_bytes.saturating_mul(rows as u64)
    }

    fn parallel(&self, cores: usize) -> usize {
        (cores / self.info.intra_op_threads.max(1)).max(1)
    }

    fn most_rows(&self) -> usize {
        if self.info.batch_invariant { usize::MAX } else { 1 }
    }

    fn most_weight(&self) -> Option<usize> {
        None
    }

    fn shrink(&self) {
        // There is nobody to tell of a failure, and nothing to do about it.
        drop(self.infer(vec![0.0; self.preprocessing.count()], 1, &Cancel::default(), true));
    }
}
