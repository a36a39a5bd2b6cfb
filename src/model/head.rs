//! What follows a graph: which of its outputs is read, and what becomes of it, by what the model is for.

use super::directory::ModelSpec;
use super::late_interaction::LateInteraction;
use super::pooling::{self, extent};
use super::purpose::{self, Purpose};
use super::reranker::Answer;
use super::session::Port;
use super::splade::Splade;
use super::{Architecture, ModelOptions, Pooling};
use crate::embedding::{Task, Tokens, Value};
use crate::error::{Error, Result};

/// Outputs that hold one vector per text, one per token, or the scores of labels or of the vocabulary; best first.
const SENTENCE_OUTPUTS: [&str; 1] = ["sentence_embedding"];
const TOKEN_OUTPUTS: [&str; 2] = ["last_hidden_state", "token_embeddings"];
const LOGITS: [&str; 2] = ["logits", "scores"];

/// What becomes of an output.
pub(super) enum Head {
    /// One vector for each text.
    Vector(pooling::Head),
    /// Scores for each text, as they are.
    Scores,
    /// How much likelier a yes is than a no, by the logits of each text's last token.
    Answer(Answer),
    Sparse(Splade),
    Tokens(LateInteraction),
}

impl Head {
    /// What a model wants, and which of the outputs of its graph.
    pub fn of(spec: &ModelSpec, options: &ModelOptions, outputs: &[Port]) -> Result<(usize, Self)> {
        // An explicit pooling asks for the tokens' own vectors; otherwise what the graph pools itself is preferred.
        let wanted: Vec<&str> = match (&spec.purpose, options.pooling.is_empty()) {
            (Purpose::Embedding, false) => TOKEN_OUTPUTS.iter().chain(&SENTENCE_OUTPUTS).copied().collect(),
            (Purpose::Embedding, true) => SENTENCE_OUTPUTS.iter().chain(&TOKEN_OUTPUTS).copied().collect(),
            (Purpose::MultiVector(_), _) => TOKEN_OUTPUTS.to_vec(),
            (Purpose::Reranking(scores), _) if scores.head.is_some() => TOKEN_OUTPUTS.to_vec(),
            (Purpose::Reranking(_) | Purpose::Sparse(_), _) => LOGITS.to_vec(),
        };
        let has = |names: &[&str]| names.iter().find_map(|name| outputs.iter().position(|output| output.name == *name));
        let Some(output) = has(&wanted) else { return Err(missing(spec, outputs, &wanted, has)) };
        let head = match &spec.purpose {
            Purpose::Embedding => Self::Vector(vector(spec, options, &outputs[output].name)?),
            Purpose::Reranking(scores) => match (&scores.answer, &scores.head) {
                (Some(answer), _) => Self::Answer(answer.clone()),
                (None, Some(head)) => Self::Vector(head.clone()),
                (None, None) => Self::Scores,
            },
            Purpose::Sparse(splade) => Self::Sparse(splade.clone()),
            Purpose::MultiVector(late) => Self::Tokens(late.clone()),
        };
        Ok((output, head))
    }

    /// How many sizes the output has: texts, perhaps tokens, values.
    pub fn sizes(&self) -> usize {
        match self {
            Self::Vector(head) if head.pooling.is_empty() => 2,
            Self::Scores => 2,
            Self::Vector(_) | Self::Answer(_) | Self::Sparse(_) | Self::Tokens(_) => 3,
        }
    }

    /// Whether of an output that has a vector for each token it reads that of each text's last one alone.
    pub fn reads_last(&self) -> bool {
        matches!(self, Self::Answer(_))
    }

    /// Length of what it gives, for a graph whose output is `width` wide.
    pub fn dimensions(&self, width: usize) -> Result<usize, String> {
        match self {
            Self::Vector(head) => {
                let full = head.full_width(width)?;
                match head.dimensions {
                    Some(dimensions) if dimensions > full => {
                        Err(format!("dimensions: {dimensions} is more than the {full} that the model has"))
                    }
                    dimensions => Ok(dimensions.unwrap_or(full)),
                }
            }
            Self::Scores | Self::Sparse(_) => Ok(width),
            Self::Answer(Answer { yes, no }) => match [Some(*yes), *no].into_iter().flatten().max() {
                Some(token) if token as usize >= width => {
                    Err(format!("it gives logits of {width} tokens, and its answer is token {token}"))
                }
                _ => Ok(1),
            },
            Self::Tokens(late) => late.width(width),
        }
    }

    /// Bytes that it takes beside the run for `rows` texts, the longest of which has `longest` tokens; `copied`: whether the output is
    /// read from a copy in 32 bits.
    pub fn bytes(&self, [rows, longest]: [usize; 2], width: usize, copied: bool) -> usize {
        let vectors = if self.sizes() == 3 && !self.reads_last() { rows.saturating_mul(longest) } else { rows };
        let copy = if copied || self.reads_last() {
            vectors.saturating_mul(width).saturating_mul(size_of::<f32>())
        } else {
            0
        };
        let own = match self {
            Self::Tokens(late) => late.bytes(longest),
            Self::Vector(_) | Self::Scores | Self::Answer(_) | Self::Sparse(_) => 0,
        };
        copy.saturating_add(own)
    }

    /// What it makes of what it reads of the output for a batch, which is `rows × longest × width`, or `rows × width`.
    pub fn values(&self, output: &[f32], width: usize, batch: &[&Tokens]) -> Vec<Value> {
        let per_row = (output.len() / batch.len().max(1)).max(1);
        let rows = output.chunks_exact(per_row).zip(batch);
        match self {
            Self::Vector(head) => {
                let mut vectors = Vec::new();
                head.apply(output, width, batch.iter().map(|tokens| extent(tokens)), &mut vectors);
                Value::dense(&vectors, vectors.len() / batch.len().max(1))
            }
            Self::Scores => rows.map(|(row, _)| Value::Dense(row.to_vec())).collect(),
            Self::Answer(Answer { yes, no }) => {
                let logit = |row: &[f32], token: u32| row.get(token as usize).copied().unwrap_or(f32::NAN);
                rows.map(|(row, _)| Value::Dense(vec![logit(row, *yes) - no.map_or(0.0, |no| logit(row, no))]))
                    .collect()
            }
            Self::Sparse(splade) => {
                rows.map(|(row, tokens)| splade.apply(&row[..tokens.ids.len() * width], width)).collect()
            }
            Self::Tokens(late) => {
                rows.map(|(row, tokens)| late.apply(&row[..tokens.ids.len() * width], width, tokens)).collect()
            }
        }
    }

    /// What is left to do once a graph has pooled and applied so many layers.
    pub fn after(self, layers: usize) -> Self {
        match self {
            Self::Vector(head) => Self::Vector(head.after(layers)),
            other => other,
        }
    }

    /// How the vectors of tokens become one, and whether it has length 1.
    pub fn manner(&self) -> (Vec<Pooling>, bool) {
        match self {
            Self::Vector(head) => (head.pooling.clone(), head.normalize),
            Self::Tokens(late) => (Vec::new(), late.normalize),
            Self::Scores | Self::Answer(_) | Self::Sparse(_) => (Vec::new(), false),
        }
    }
}

/// Why there is nothing to read, with the class for such a model where that is clear.
fn missing(spec: &ModelSpec, outputs: &[Port], wanted: &[&str], has: impl Fn(&[&str]) -> Option<usize>) -> Error {
    let task = spec.purpose.task();
    if matches!(task, Task::Reranking | Task::Sparse) && has(&SENTENCE_OUTPUTS).or(has(&TOKEN_OUTPUTS)).is_some() {
        return purpose::wrong(&spec.root, Task::Embedding);
    }
    // A language model: of what is made of one, a reranker alone gives logits.
    let speaks = spec.architecture == Architecture::Decoder && has(&LOGITS).is_some();
    if matches!(task, Task::Embedding | Task::MultiVector) && speaks {
        return purpose::wrong(&spec.root, Task::Reranking);
    }
    let found: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
    let hint = match (task, has(&LOGITS)) {
        (Task::Embedding | Task::MultiVector, Some(_)) => {
            "; a model with logits is for CrossEncoder or for SparseEncoder"
        }
        _ => "",
    };
    let reason = format!(
        "it has no output to read vectors from: it has {}, one of {} is needed{hint}",
        found.join(", "),
        wanted.join(", ")
    );
    Error::model(&spec.onnx, reason)
}

fn vector(spec: &ModelSpec, options: &ModelOptions, output: &str) -> Result<pooling::Head> {
    let pooled = SENTENCE_OUTPUTS.contains(&output);
    if pooled && !options.pooling.is_empty() {
        let reason = format!("the graph pools by itself: it has {output} but no output with a vector per token");
        return Err(Error::config("pooling", reason));
    }
    let unsaid: Vec<&str> = [
        (spec.pooling.is_empty() && !pooled).then_some("pooling: 'mean' | 'cls' | 'last_token' | 'max'"),
        spec.normalize.is_none().then_some("normalize: true | false"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let (Some(normalize), true) = (spec.normalize, unsaid.is_empty()) else {
        let reason = format!(
            "nothing in its files says how its vectors are made (no modules.json): pass {}, as the model's authors describe it",
            unsaid.join(" and ")
        );
        return Err(Error::model(&spec.onnx, reason));
    };
    let dimensions = options.dimensions;
    Ok(match pooled {
        true => pooling::Head { dimensions, normalize, ..pooling::Head::default() },
        false => pooling::Head {
            tokens: spec.tokens.clone(),
            pooling: spec.pooling.clone(),
            layers: spec.layers.clone(),
            dimensions,
            normalize,
        },
    })
}
