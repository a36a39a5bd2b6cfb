//! A transformer or static embedding model in ONNX, whichever engine computes its graph: token ids in, vectors out.

use super::device::Device;
use super::directory::{self, ModelSpec};
use super::head::Head;
use super::memory_cost::MemoryCost;
use super::pooled_graph::Extension;
use super::pooling::extent;
use super::purpose::Purpose;
use super::reranker::Scores;
use super::session::{Cells, IDS, Kind, Port, Run, Session};
use super::weights::HashedWeights;
use super::{Architecture, Dtype, Model, ModelInfo, ModelOptions, Pooling, ProviderInfo, RunError, Then};
use crate::batch::Budget;
use crate::cancel::Cancel;
use crate::embedding::{Fingerprint, Modality, Task, Tokens, Value};
use crate::error::{Error, Result};
use crate::tokens::Chat;

/// Tokens of the text from which a model's price is learned: a run of tens of milliseconds.
const PRICED_LENGTH: usize = 128;

/// Batches at a time on a device: two inside, one that is filled, and one whose vectors are handed out.
const DEVICE_BATCHES: usize = 4;

/// What a graph can ask for.
#[derive(Clone, Copy, PartialEq)]
enum Feed {
    Ids,
    Mask,
    TypeIds,
    Positions,
}

impl Feed {
    fn named(name: &str) -> Option<Self> {
        match name {
            IDS => Some(Self::Ids),
            "attention_mask" => Some(Self::Mask),
            "token_type_ids" => Some(Self::TypeIds),
            "position_ids" => Some(Self::Positions),
            _ => None,
        }
    }
}

enum Input {
    /// A number for each token.
    Tokens { feed: Feed, wide: bool },
    /// What each token counts in a pooling.
    Weights(Pooling),
    /// What a decoder has read before, which is nothing.
    Cache { heads: usize, size: usize, half: bool },
    /// Of how many tokens, at the end, there are to be logits; a number by itself, or in a list.
    Kept { sizes: usize },
}

/// Tokens by which the texts of a run differ at the most, where the graph gives logits of the last ones alone: those of all of the
/// vocabulary for each of them.
const SPREAD: usize = 8;

/// See the module.
pub(super) struct Transformer {
    session: Box<dyn Session>,
    inputs: Vec<Input>,
    output: usize,
    output_dtype: &'static str,
    head: Head,
    /// Length of the graph's own vectors; 0 until the first run has told.
    width: usize,
    pad_id: u32,
    first_position: u32,
    memory_cost: MemoryCost,
    /// What computes, if it is not the processor.
    device: Option<Device>,
    info: ModelInfo,
}

impl Transformer {
    /// A model whose graph was compiled. Runs it once, so that a model that cannot work fails here and not later. Its
    /// identity is still open, see [`Transformer::identified`].
    pub fn new(
        id: &str,
        spec: &ModelSpec,
        options: &ModelOptions,
        session: Box<dyn Session>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let bad = |reason: String| Error::model(&spec.onnx, reason);
        if spec.tokenizer_json.is_empty() {
            return Err(directory::no_tokenizer(&spec.root));
        }
        let poolings = session.pooled().map_or(&[][..], |pooled| &pooled.poolings);
        let input = |input: &Port| match Extension::place(&input.name).and_then(|place| poolings.get(place)) {
            Some(pooling) => Ok(Input::Weights(*pooling)),
            None => parse_input(input).map_err(bad),
        };
        let inputs = session.inputs().iter().map(input).collect::<Result<Vec<_>>>()?;
        if !inputs.iter().any(|input| matches!(input, Input::Tokens { feed: Feed::Ids, .. })) {
            return Err(bad("it has no input named input_ids, so it is not a text embedding model".to_owned()));
        }
        let outputs = session.outputs();
        let (output, head) = Head::of(spec, options, outputs)?;
        let port = &outputs[output];
        let output_dtype = match &port.kind {
            Kind::Float32 => "fp32",
            Kind::Float16 => "fp16",
            other => {
                return Err(bad(format!("its output {} is {other:?}; float32 and float16 are supported", port.name)));
            }
        };
        let ((pooling, normalize), about, named) = (head.manner(), session.about(), port.name.clone());
        let (output, head) = match session.pooled() {
            Some(pooled) => (pooled.output, head.after(pooled.layers)),
            None => (output, head),
        };
        let scores = match &spec.purpose {
            Purpose::Reranking(scores) => scores.clone(),
            _ => Scores::default(),
        };
        let mut model = Self {
            output,
            output_dtype,
            head,
            width: 0,
            pad_id: spec.pad_id,
            first_position: spec.first_position,
            memory_cost: MemoryCost::guess(0),
            device: Device::of(&options.providers),
            info: ModelInfo {
                model_id: id.to_owned(),
                modality: Modality::Text,
                architecture: Some(match inputs.iter().any(|input| matches!(input, Input::Cache { .. })) {
                    true => Architecture::Decoder,
                    false => spec.architecture,
                }),
                task: spec.purpose.task(),
                labels: Vec::new(),
                sigmoid: false,
                model_path: spec.onnx.display().to_string(),
                repository: spec.origin.as_ref().map(|(repository, _)| repository.clone()),
                revision: spec.origin.as_ref().map(|(_, commit)| commit.clone()),
                dimensions: 0,
                max_length: Some(spec.max_length),
                max_length_from: spec.max_length_from,
                pooling,
                normalize,
                output: Some(named),
                dtype: Some(Dtype::named(&spec.onnx).map_or(output_dtype, Dtype::as_str)),
                batch_invariant: false,
                intra_op_threads: about.intra_op_threads,
                runtime: about.build.clone(),
                compute: Some(about.compute),
                providers: about.providers.clone(),
                remote: None,
                fingerprint: Fingerprint::builder().finish(),
            },
            inputs,
            session,
        };
        (model.width, model.info.dimensions) =
            model.probe(cancel).map_err(|reason| cancel.check().err().unwrap_or_else(|| bad(reason)))?;
        if let Purpose::Reranking(_) = spec.purpose {
            let count = model.info.dimensions;
            let named = scores.labels.len() == count;
            model.info.labels =
                if named { scores.labels } else { (0..count).map(|label| format!("LABEL_{label}")).collect() };
            model.info.sigmoid = scores.sigmoid.unwrap_or(count == 1);
        }
        model.memory_cost = model.learn_memory_cost(cancel).unwrap_or_else(|| MemoryCost::guess(model.width));
        Ok(model)
    }

    /// The model with what only the hashed weights tell. `mix`: whether vectors of all precisions may be one space.
    pub fn identified(mut self, spec: &ModelSpec, weights: &HashedWeights, mix: bool) -> Self {
        self.info.batch_invariant = !weights.dynamic_quantization;
        self.info.fingerprint = fingerprint(spec, weights, &self.info, self.output_dtype, mix);
        self
    }

    /// Runs one token through the graph and the head; gives the width of the graph's vectors and the length of ours.
    fn probe(&self, cancel: &Cancel) -> Result<(usize, usize), String> {
        // The first token of any vocabulary; a padding id may lie outside the table.
        let token = Tokens { ids: vec![0], total: 1, ..Tokens::default() };
        let probe = |output: &[f32], width: usize| {
            let dimensions = self.head.dimensions(width)?;
            let values = self.head.values(output, width, &[&token]);
            if values.iter().any(|value| value.numbers().iter().any(|number| !number.is_finite())) {
                return Err("its vectors are not finite numbers: the weights are damaged".to_owned());
            }
            Ok((width, dimensions))
        };
        self.infer(&[&token], cancel, probe).map_err(|reason| format!("a first run of the model failed: {reason}"))?
    }

    /// Runs two texts, one after the other, and sees what they take. `None` where the engine does not tell.
    fn learn_memory_cost(&self, cancel: &Cancel) -> Option<MemoryCost> {
        let idle = self.session.memory()?.now;
        let longest = self.info.max_length.map_or(PRICED_LENGTH, |longest| longest.min(PRICED_LENGTH));
        let measure = |length: usize| {
            let tokens = Tokens { ids: vec![0; length], total: length, ..Tokens::default() };
            // The peak only ever rises, so the shorter text comes first.
            self.infer(&[&tokens], cancel, |_, _| ()).ok()?;
            Some((length, self.session.memory()?.peak.saturating_sub(idle)))
        };
        let short = measure((longest / 4).max(1))?;
        Some(MemoryCost::fit(short, measure(longest)?))
    }

    /// Runs the graph and hands its output for `batch`, and the length of each of its vectors, to `read`.
    fn infer<T>(&self, batch: &[&Tokens], cancel: &Cancel, read: impl FnOnce(&[f32], usize) -> T) -> Result<T, String> {
        self.infer_and(batch, cancel, false, read)
    }

    /// The same, and perhaps gives back what is kept for later runs.
    fn infer_and<T>(
        &self,
        batch: &[&Tokens],
        cancel: &Cancel,
        shrink: bool,
        read: impl FnOnce(&[f32], usize) -> T,
    ) -> Result<T, String> {
        let _inside = self.session.gate().enter(cancel).map_err(|error| error.to_string())?;
        let [rows, longest] = self.shape(batch);
        // What fills it up is the last text again, which is the shortest.
        let filled = || batch.iter().chain(batch.last().into_iter().cycle()).take(rows);
        let lengths = || filled().map(|tokens| tokens.ids.len());
        let shortest = lengths().min().unwrap_or(0);
        if shortest == 0 {
            return Err("the tokenizer found nothing in it that the model could read".to_owned());
        }
        let given = if self.keeps_last() { longest - shortest + 1 } else { longest };
        let read_last = self.head.reads_last();
        let last = |(row, length): (usize, usize)| row * given + length - 1 - (longest - given);
        let picked = read_last.then(|| lengths().enumerate().map(last).collect());
        let value = |feed: Feed, tokens: &Tokens, at: usize| match (feed, tokens.ids.get(at)) {
            (Feed::Ids, id) => *id.unwrap_or(&self.pad_id),
            (Feed::Mask, id) => u32::from(id.is_some() && at + tokens.unattended < tokens.ids.len()),
            (Feed::TypeIds, _) => tokens.type_ids.as_ref().and_then(|ids| ids.get(at)).copied().unwrap_or(0),
            (Feed::Positions, Some(_)) => self.first_position.saturating_add(at as u32),
            (Feed::Positions, None) => self.first_position.saturating_sub(1),
        };
        let cells = |feed: Feed| filled().flat_map(move |tokens| (0..longest).map(move |at| value(feed, tokens, at)));
        let weights = |pooling: Pooling| {
            filled().flat_map(move |tokens| (0..longest).map(move |at| pooling.weight(at, extent(tokens))))
        };
        let inputs = self.inputs.iter().map(|input| match *input {
            Input::Tokens { feed, wide: true } => Cells::Wide(cells(feed).map(i64::from).collect()),
            Input::Tokens { feed, wide: false } => Cells::Narrow(cells(feed).map(|cell| cell as i32).collect()),
            Input::Weights(pooling) => Cells::Real(weights(pooling).collect()),
            Input::Cache { heads, size, half: false } => Cells::NoReals(vec![rows, heads, 0, size]),
            Input::Cache { heads, size, half: true } => Cells::NoHalves(vec![rows, heads, 0, size]),
            Input::Kept { sizes } => Cells::Count(given as i64, vec![1; sizes]),
        });
        let shape = vec![rows, longest];
        let run = Run { inputs: inputs.collect(), shape, output: self.output, picked, shrink, cancel };
        let (mut read, mut result) = (Some(read), None);
        self.session.run(run, &mut |output| {
            let width = self.width_of([rows, given], &output.dims);
            let asked = output.values.len() / rows.max(1) * batch.len();
            result = read.take().map(|read| width.map(|width| read(&output.values[..asked], width)));
        })?;
        result.unwrap_or_else(|| Err("the run gave no output".to_owned()))
    }

    /// Whether the graph gives logits of the last tokens alone.
    fn keeps_last(&self) -> bool {
        self.head.reads_last() && self.inputs.iter().any(|input| matches!(input, Input::Kept { .. }))
    }

    /// Rows and tokens of each, as they run.
    fn shape(&self, batch: &[&Tokens]) -> [usize; 2] {
        self.filled(batch.len(), batch.iter().map(|tokens| tokens.ids.len()).max().unwrap_or(0))
    }

    fn filled(&self, rows: usize, longest: usize) -> [usize; 2] {
        let most = self.info.max_length.unwrap_or(usize::MAX);
        self.device.as_ref().map_or([rows, longest], |device| device.shape(rows, longest, most))
    }

    /// The length of the vectors in an output, if it has the shape that it should have.
    fn width_of(&self, [rows, longest]: [usize; 2], dims: &[i64]) -> Result<usize, String> {
        let output = || self.info.output.as_deref().unwrap_or_default();
        let expected = self.head.sizes();
        let width = match dims.last() {
            Some(&width)
                if width > 0
                    && dims.len() == expected
                    && dims[..expected - 1] == [rows as i64, longest as i64][..expected - 1] =>
            {
                width as usize
            }
            _ => {
                return Err(format!(
                    "its output {} has the shape {dims:?} for {rows} texts of {longest} tokens",
                    output()
                ));
            }
        };
        match self.width {
            0 => Ok(width),
            before if before == width => Ok(width),
            before => Err(format!("its output {} was {before} wide at first and is {width} now", output())),
        }
    }

    /// A batch in the runs that it takes.
    fn parts<'a, 'b>(&self, batch: &'a [&'b Tokens]) -> impl Iterator<Item = &'a [&'b Tokens]> {
        let (keeps, mut rest) = (self.keeps_last(), batch);
        std::iter::from_fn(move || {
            let first = rest.first()?.ids.len();
            let alike = |tokens: &&Tokens| !keeps || tokens.ids.len().abs_diff(first) <= SPREAD / 2;
            let (part, others) = rest.split_at(rest.iter().position(|tokens| !alike(tokens)).unwrap_or(rest.len()));
            rest = others;
            Some(part)
        })
    }

    /// One run of what a batch takes.
    fn run_part(&self, batch: &[&Tokens], cancel: &Cancel) -> Result<Vec<Value>, RunError> {
        let shape = self.shape(batch);
        let full = |reason: String| {
            let advice = "embed shorter texts, by maxLength, or leave it more memory";
            RunError {
                error: Error::generation(format!("the device has no memory for it ({reason}): {advice}")),
                then: Then::Halves,
            }
        };
        if self.device.as_ref().is_some_and(|device| !device.admits(shape)) {
            return Err(full("a batch of that size did not fit before".to_owned()));
        }
        let values = self.infer(batch, cancel, |output, width| self.head.values(output, width, batch));
        match (values, &self.device) {
            (Ok(values), device) => {
                device.iter().for_each(|device| device.ran());
                Ok(values)
            }
            (Err(reason), Some(device)) if device.failed(shape, &reason) => Err(full(reason)),
            // One unusable text must not take its neighbours with it.
            (Err(reason), _) => Err(RunError { error: Error::generation(reason), then: Then::Alone }),
        }
    }
}

impl Model for Transformer {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn run(&self, batch: &[&Tokens], cancel: &Cancel) -> Result<Vec<Value>, RunError> {
        let mut values = Vec::with_capacity(batch.len());
        for part in self.parts(batch) {
            values.extend(self.run_part(part, cancel)?);
        }
        Ok(values)
    }

    fn bytes(&self, rows: usize, longest: usize) -> u64 {
        let [rows, longest] = self.filled(rows, longest);
        let beside = self.head.bytes([rows, longest], self.width, self.output_dtype == "fp16");
        // What was measured is one text by itself.
        let others = if self.keeps_last() { rows.saturating_mul(SPREAD * self.width * size_of::<f32>()) } else { 0 };
        self.memory_cost.bytes(rows, longest).saturating_add(beside as u64).saturating_add(others as u64)
    }

    fn parallel(&self, cores: usize) -> usize {
        if self.device.is_some() {
            return DEVICE_BATCHES;
        }
        (cores / self.info.intra_op_threads.max(1)).max(1)
    }

    fn most_rows(&self) -> usize {
        // Where a vector depends on the other rows of its batch, there are none.
        if self.info.batch_invariant { usize::MAX } else { 1 }
    }

    fn most_weight(&self) -> Option<usize> {
        None
    }

    fn budget(&self) -> Option<Budget> {
        self.device.as_ref().map(Device::budget)
    }

    fn shrink(&self) {
        let token = Tokens { ids: vec![0], total: 1, ..Tokens::default() };
        // There is nobody to tell of a failure, and nothing to do about it.
        drop(self.infer_and(&[&token], &Cancel::default(), true, |_, _| ()));
    }
}

fn parse_input(input: &Port) -> Result<Input, String> {
    let name = &input.name;
    if is_cache(name) {
        return parse_cache(input);
    }
    if matches!(name.as_str(), "num_logits_to_keep" | "logits_to_keep") {
        return match input.kind {
            Kind::Int64 => Ok(Input::Kept { sizes: input.dims.len() }),
            ref other => Err(format!("its input {name} is {other:?}; int64 is supported")),
        };
    }
    let feed = Feed::named(name).ok_or_else(|| {
        format!(
            "it needs an input named {name}; known are input_ids, attention_mask, token_type_ids, position_ids, num_logits_to_keep, and past_key_values.N.key and .value"
        )
    })?;
    let wide = match &input.kind {
        Kind::Int64 => true,
        Kind::Int32 => false,
        other => return Err(format!("its input {name} is {other:?}; int64 and int32 are supported")),
    };
    Ok(Input::Tokens { feed, wide })
}

/// Whether an input is the keys or the values of a layer of a decoder that goes on where it was: `past_key_values.N.key`.
pub(super) fn is_cache(name: &str) -> bool {
    let layer = name.strip_prefix("past_key_values.").and_then(|rest| rest.split_once('.'));
    layer.is_some_and(|(layer, part)| layer.parse::<u32>().is_ok() && matches!(part, "key" | "value"))
}

fn parse_cache(Port { name, kind, dims }: &Port) -> Result<Input, String> {
    let half = match kind {
        Kind::Float32 => false,
        Kind::Float16 => true,
        other => return Err(format!("its input {name} is {other:?}; float32 and float16 are supported")),
    };
    match dims[..] {
        [_, Some(heads), past, Some(size)] if heads > 0 && size > 0 && past.unwrap_or_default() == 0 => {
            Ok(Input::Cache { heads, size, half })
        }
        _ => {
            let shown: Vec<String> =
                dims.iter().map(|size| size.map_or_else(|| "?".to_owned(), |size| size.to_string())).collect();
            Err(format!(
                "its input {name} has the shape [{}]: texts, heads, tokens read before and the size of a head were expected, of which heads and their size must be fixed and tokens must not: export it anew",
                shown.join(", ")
            ))
        }
    }
}

fn fingerprint(
    spec: &ModelSpec,
    weights: &HashedWeights,
    info: &ModelInfo,
    output_dtype: &str,
    mix: bool,
) -> Fingerprint {
    let number = |value: usize| (value as u64).to_le_bytes();
    let mut builder = Fingerprint::builder()
        .field("weights", weights.sha256)
        .field("tokenizer.json", &spec.tokenizer_json)
        .field("output", info.output.as_deref().unwrap_or_default())
        .field("pooling", if info.pooling.is_empty() { "graph".to_owned() } else { Pooling::joined(&info.pooling) })
        .field("normalize", [u8::from(info.normalize)])
        .field("dimensions", number(info.dimensions))
        .field("dtype", output_dtype);
    if info.task != Task::Embedding {
        builder = builder.field("task", info.task.as_str());
    }
    if let Purpose::MultiVector(late) = &spec.purpose {
        builder = builder.field("pool factor", number(late.shrink.factor));
    }
    if let Some(instruction) = spec.reading.chat.as_ref().and_then(Chat::instruction) {
        builder = builder.field("instruction", instruction);
    }
    builder = spec.identify(builder);
    // Other hardware computes with fewer bits: vectors are close to those of the CPU, but not as close as those of one
    // space have to be.
    for provider in info.providers.iter().filter_map(ProviderInfo::identity) {
        builder = builder.field("provider", provider);
    }
    // So do other engines, and in fewer bits still where that is their precision.
    if let Some(compute) = info.compute.filter(|_| !mix) {
        builder = compute.identify(builder);
    }
    spec.with_config_files(builder).finish()
}
