//! A graph that an engine has compiled: what models ask of it, whichever engine it is.

use super::gate::Gate;
use super::{Compute, Pooling, ProviderInfo};
use crate::cancel::Cancel;

/// The input of every graph that reads texts.
pub(super) const IDS: &str = "input_ids";

/// A compiled graph, by whichever engine. Safe to call from many threads at once.
pub(super) trait Session: Send + Sync {
    /// What it is computed by.
    fn about(&self) -> &About;

    /// What runs are let in by.
    fn gate(&self) -> &'static Gate;

    /// What it asks for, in the order in which runs give it.
    fn inputs(&self) -> &[Port];

    /// What it can give.
    fn outputs(&self) -> &[Port];

    /// Computes the outputs. Blocks. What is inside is in the gate.
    fn run(&self, run: Run<'_>, read: &mut dyn FnMut(&Output<'_>)) -> Result<(), String>;

    /// What it pools itself, if it was made to.
    fn pooled(&self) -> Option<&Pooled> {
        None
    }

    /// Memory that runs have, in bytes. `None` where the engine does not tell.
    fn memory(&self) -> Option<RunMemory>;
}

/// What a graph does that its file leaves to others.
pub(super) struct Pooled {
    /// Which of the outputs has it.
    pub output: usize,
    /// In which ways, joined. Each has an input that says what tokens count.
    pub poolings: Vec<Pooling>,
    /// How many of the layers after that.
    pub layers: usize,
}

/// What computes a graph.
pub(super) struct About {
    pub compute: Compute,
    /// How the engine describes itself.
    pub build: String,
    pub providers: Vec<ProviderInfo>,
    pub intra_op_threads: usize,
}

/// An input or an output of a graph.
#[derive(Debug)]
pub(super) struct Port {
    pub name: String,
    pub kind: Kind,
    /// Its sizes, where they are fixed.
    pub dims: Vec<Option<usize>>,
}

/// The type of a tensor's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Int32,
    Int64,
    Float32,
    Float16,
    /// Another one, in the engine's words.
    Other(String),
}

/// One run of a graph.
pub(super) struct Run<'a> {
    /// The elements of each input, row by row.
    pub inputs: Vec<Cells>,
    /// The sizes of every input that has elements: texts and tokens of each, say.
    pub shape: Vec<usize>,
    /// Which of the outputs is read.
    pub output: usize,
    /// Which of its vectors are, in this order, where not all are.
    pub picked: Option<Vec<usize>>,
    /// Whether memory that is kept for later runs is given back after it.
    pub shrink: bool,
    pub cancel: &'a Cancel,
}

/// The elements of an input, of the type that it asks for.
pub(super) enum Cells {
    Wide(Vec<i64>),
    Narrow(Vec<i32>),
    Real(Vec<f32>),
    Half(Vec<half::f16>),
    /// None at all, of numbers of 32 bits or of 16: these are its sizes, one of which is 0.
    NoReals(Vec<usize>),
    NoHalves(Vec<usize>),
    /// One number, in so many sizes of 1.
    Count(i64, Vec<usize>),
}

impl Run<'_> {
    /// The vectors of an output that are read, as numbers of 32 bits.
    pub fn picked<T: Copy>(&self, dims: &[i64], values: &[T], real: impl Fn(T) -> f32) -> Vec<f32> {
        let width = dims.last().and_then(|width| usize::try_from(*width).ok()).unwrap_or_default();
        match &self.picked {
            None => values.iter().copied().map(real).collect(),
            Some(picked) => {
                let vector = |&at: &usize| values.chunks_exact(width.max(1)).nth(at).unwrap_or_default();
                picked.iter().flat_map(vector).copied().map(real).collect()
            }
        }
    }
}

/// What a run gave, as long as it may be looked at.
pub(super) struct Output<'a> {
    /// The sizes of all of it.
    pub dims: Vec<i64>,
    /// What is read of it.
    pub values: &'a [f32],
}

/// Memory of runs, in bytes.
pub(super) struct RunMemory {
    pub now: u64,
    /// The most that there ever was.
    pub peak: u64,
}
