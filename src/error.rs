//! What can go wrong, seen from the caller: one variant for each thing that a caller can do about it.
//!
//! JS classes: `EmbeddingError` and its subclasses. Every error is `Clone`, because one failure may answer many waiters.

use serde_json::{Value, json};

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that the public API can answer instead of a vector.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument of a call is unusable: the message names it, its value or index, and what is accepted.
    #[error("{0}")]
    InvalidArgument(String),
    /// A text has nothing in it.
    #[error("{} is empty: leave it out", what.at(*index))]
    EmptyText {
        /// What it is.
        what: Subject,
        /// Its position in the call.
        index: usize,
    },
    /// An option of the constructor is unusable or contradicts another one.
    #[error("Invalid option `{option}`: {reason}")]
    InvalidConfig {
        /// The option's name, as the user wrote it.
        option: String,
        /// What is wrong and what is accepted.
        reason: String,
    },
    /// A text is longer than anything a model could read.
    #[error("{} has {bytes} bytes, more than the limit of {limit} bytes: split it into smaller pieces", what.at(*index))]
    InputTooLong {
        /// What it is.
        what: Subject,
        /// Its position in the call.
        index: usize,
        /// Its length in UTF-8 bytes.
        bytes: usize,
        /// The longest text that is accepted, in UTF-8 bytes.
        limit: usize,
    },
    /// The model or the runtime that executes it could not be loaded.
    #[error("Could not load the model from {path}: {reason}")]
    ModelInit {
        /// The file or directory that is at fault.
        path: String,
        /// What is wrong with it and what to do.
        reason: String,
        /// What the model is for, where another class than the one that was asked takes it.
        task: Option<&'static str>,
    },
    /// A file of a model could not be had from the hub.
    #[error("Could not get {file} from {url}: {reason}")]
    Hub {
        /// The file and its model.
        file: String,
        /// Where it was asked for, without anything secret.
        url: String,
        /// What the server answered; `None` where it did not.
        status: Option<u16>,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A server that computes vectors did not give any.
    #[error(
        "Could not {} by {url}: {reason}",
        index.map_or_else(|| "have texts embedded".to_owned(), |index| format!("have text {index} embedded"))
    )]
    Backend {
        /// Where it was asked, without anything secret.
        url: String,
        /// What the server answered; `None` where it did not.
        status: Option<u16>,
        /// What can be done about it.
        fault: Fault,
        /// What is wrong and what to do.
        reason: String,
        /// The text's position in the call, where it is about that text alone.
        index: Option<usize>,
    },
    /// The model answered with an error or with unusable numbers.
    #[error("Could not {}: {reason}", what.work(*index))]
    Generation {
        /// What it was about.
        what: Subject,
        /// Its position in the call.
        index: usize,
        /// What happened.
        reason: String,
    },
    /// An image has no vector.
    #[error("Image {index}{}: {reason}", path.as_ref().map(|path| format!(" ({path})")).unwrap_or_default())]
    Image {
        /// The image's position in the call.
        index: usize,
        /// Its file, if it was given as one.
        path: Option<String>,
        /// Whose fault it is.
        fault: ImageFault,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A text, alone in its batch, needs more memory than there may be.
    #[error(
        "{} needs more memory than there is: {} MB with what the process holds anyway, the limit is {} MB: \
         raise memoryLimit or the container's limit, set maxLength, or free some",
        what.at(*index),
        need.div_ceil(1 << 20),
        limit >> 20
    )]
    MemoryLimit {
        /// What it is.
        what: Subject,
        /// Its position in the call.
        index: usize,
        /// Bytes that are needed in all.
        need: u64,
        /// Bytes that there may be.
        limit: u64,
    },
    /// A model needs more memory than there may be.
    #[error(
        "The model {model} needs more memory than there is: {} MB with what the process holds anyway, the limit is {} MB: \
         raise memoryLimit or the container's limit, or take a smaller model or dtype",
        need.div_ceil(1 << 20),
        limit >> 20
    )]
    ModelTooLarge {
        /// The model as the user named it.
        model: String,
        /// Bytes that are needed in all.
        need: u64,
        /// Bytes that there may be.
        limit: u64,
    },
    /// The system gives no memory for what a call makes, whatever limits this library keeps itself.
    #[error(
        "There is no memory for {what}, which take {} MB: ask for fewer at a time, or raise the limit of the process",
        need.div_ceil(1 << 20)
    )]
    OutOfMemory {
        /// What it is, in the plural.
        what: &'static str,
        /// Bytes that it takes.
        need: u64,
    },
    /// No model is loaded yet.
    #[error("No model is loaded yet: await initialize() first")]
    NotInitialized,
    /// The caller's `AbortSignal` fired.
    #[error("The call was aborted")]
    Aborted,
    /// The call's `timeoutMs` passed.
    #[error("The call did not finish within {timeout_ms} ms: allow more time or send fewer texts")]
    TimedOut {
        /// The limit that the caller set, in milliseconds.
        timeout_ms: u64,
    },
    /// The generator was cleaned up, or the process is going away.
    #[error("The model was closed: await initialize() to use it again")]
    Closed,
    /// A file that this library writes cannot be read or written.
    #[error("Could not use {path}: {reason}")]
    Storage {
        /// The file.
        path: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// An index cannot answer for this model: its vectors are of another space.
    #[error("The index {path} was made with {made_with}: rebuild it, or use the model that it was made with")]
    IndexMismatch {
        /// The index' file.
        path: String,
        /// What made it.
        made_with: String,
    },
    /// A directory has no index yet.
    #[error("There is no index at {path} yet: make one first")]
    NoIndex {
        /// Where it is looked for.
        path: String,
    },
    /// The cache was closed.
    #[error("The cache is closed: make a new one")]
    CacheClosed,
    /// No thread could be started.
    #[error(
        "A thread could not be started ({reason}): this process may have no more of them. {} Allow more, and start the \
         process again",
        if limits.is_empty() { "Its container or its user is limited.".to_owned() }
        else { format!("Processes and threads that may exist at a time: of {}.", limits.join(", of ")) }
    )]
    Threads {
        /// The limits that are known, each with its name.
        limits: Vec<String>,
        /// What the system said.
        reason: String,
    },
    /// A defect of this library.
    #[error("Internal error, please report it: {0}")]
    Internal(String),
}

/// What of a call an error is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Subject {
    /// A text that is embedded.
    #[default]
    Text,
    /// The query of a pair that is scored.
    QueryOfPair,
    /// The document of one.
    DocumentOfPair,
    /// Both.
    Pair,
    /// The query that documents are ranked by.
    Query,
    /// One of these.
    Document,
}

impl Subject {
    /// What the one at `index` is called at the beginning of a sentence.
    fn at(self, index: usize) -> String {
        match self {
            Self::Text => format!("Text {index}"),
            Self::QueryOfPair => format!("The query of pair {index}"),
            Self::DocumentOfPair => format!("The document of pair {index}"),
            Self::Pair => format!("Pair {index}"),
            Self::Query => "The query".to_owned(),
            Self::Document => format!("Document {index}"),
        }
    }

    /// What was to be done with it.
    fn work(self, index: usize) -> String {
        match self {
            Self::Text => format!("embed text {index}"),
            Self::QueryOfPair => format!("read the query of pair {index}"),
            Self::DocumentOfPair => format!("read the document of pair {index}"),
            Self::Pair => format!("score pair {index}"),
            Self::Query => "read the query".to_owned(),
            Self::Document => format!("score document {index}"),
        }
    }

    /// Details with the part of a pair that they are about.
    fn said(self, mut details: Value) -> Value {
        match self {
            Self::Query | Self::QueryOfPair => details["part"] = json!("query"),
            Self::DocumentOfPair => details["part"] = json!("document"),
            Self::Text | Self::Pair | Self::Document => {}
        }
        details
    }

    /// The same in a call that has pairs; `ranked`: whether it ranks documents by one query.
    fn of_pairs(self, ranked: bool) -> Self {
        match (self, ranked) {
            (Self::QueryOfPair | Self::Query, true) => Self::Query,
            (Self::QueryOfPair | Self::Query, false) => Self::QueryOfPair,
            (_, true) => Self::Document,
            (Self::DocumentOfPair | Self::Document, false) => Self::DocumentOfPair,
            (Self::Text | Self::Pair, false) => Self::Pair,
        }
    }
}

/// Why a server gave no vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be reached, or fails.
    Unavailable,
    /// It is asked for too much at a time.
    RateLimited,
    /// It does not want to, or what it answers cannot be used.
    Rejected,
    /// It takes longer than it may: so many milliseconds.
    Late(u64),
}

/// Why an image has no vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFault {
    /// It cannot be read as an image.
    Unreadable,
    /// It has more pixels than it may.
    TooLarge {
        /// Pixels from left to right.
        width: u32,
        /// Pixels from top to bottom.
        height: u32,
        /// Most pixels of an image.
        limit: u64,
    },
    /// The model failed.
    Model,
    /// It needs more memory than there may be.
    Memory {
        /// Bytes that are needed in all.
        need: u64,
        /// Bytes that there may be.
        limit: u64,
    },
}

impl Error {
    /// The same of a call whose inputs are images; `path_of` gives the file of one.
    pub(crate) fn of_images(self, path_of: impl Fn(usize) -> Option<String>) -> Self {
        let mb = |bytes: u64| bytes >> 20;
        let (index, fault, reason) = match self {
            Self::Generation { index, reason, .. } => {
                (index, ImageFault::Model, format!("could not be embedded: {reason}"))
            }
            Self::MemoryLimit { index, need, limit, .. } => {
                let reason = format!(
                    "needs more memory than there is: {} MB with what the process holds anyway, the limit is {} MB: raise \
                     memoryLimit or the container's limit, make the image smaller, or free some",
                    mb(need.saturating_add((1 << 20) - 1)),
                    mb(limit)
                );
                (index, ImageFault::Memory { need, limit }, reason)
            }
            Self::Image { index, fault, reason, .. } => (index, fault, reason),
            other => return other,
        };
        Self::Image { index, path: path_of(index), fault, reason }
    }

    /// The same of a call that has pairs of texts; `ranked`: whether it ranks documents by one query.
    pub(crate) fn of_pairs(mut self, ranked: bool) -> Self {
        self.subject_mut().into_iter().for_each(|what| *what = what.of_pairs(ranked));
        self
    }

    /// The same about something else than it says.
    pub(crate) fn about(mut self, subject: Subject) -> Self {
        self.subject_mut().into_iter().for_each(|what| *what = subject);
        self
    }

    /// The same about one of `many` entries of a call.
    pub(crate) fn in_entry(self, at: usize, many: bool) -> Self {
        match self {
            Self::InvalidArgument(message) if many => Self::InvalidArgument(format!("Entry {at}: {message}")),
            other => other,
        }
    }

    /// Whether the system gives memory for `count` times `size` bytes of something large, `what` in the plural. Asked before it is
    /// made, since a process that finds out while it makes it ends.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn require_memory(what: &'static str, count: usize, size: usize) -> Result<()> {
        let need = count.saturating_mul(size);
        let room = Vec::<u8>::new().try_reserve_exact(need);
        room.map_err(|_| Self::OutOfMemory { what, need: need as u64 })
    }

    /// The stable code that programs test for; listed in the documentation of `EmbeddingError`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidArgument(_) | Self::EmptyText { .. } => "INVALID_ARGUMENT",
            Self::InvalidConfig { .. } | Self::IndexMismatch { .. } => "INVALID_CONFIG",
            Self::InputTooLong { .. } => "INPUT_TOO_LONG",
            Self::Hub { status: None | Some(408 | 500..), .. } | Self::Threads { .. } => "BACKEND_UNAVAILABLE",
            Self::Hub { status: Some(429), .. } => "RATE_LIMITED",
            Self::Backend { fault, .. } => match fault {
                Fault::Unavailable => "BACKEND_UNAVAILABLE",
                Fault::RateLimited => "RATE_LIMITED",
                Fault::Rejected => "BACKEND_REJECTED",
                Fault::Late(_) => "TIMED_OUT",
            },
            Self::ModelInit { .. } | Self::Hub { .. } => "MODEL_INIT_FAILED",
            Self::Image { fault, .. } => match fault {
                ImageFault::Unreadable => "INVALID_ARGUMENT",
                ImageFault::TooLarge { .. } => "INPUT_TOO_LONG",
                ImageFault::Model => "EMBEDDING_GENERATION_FAILED",
                ImageFault::Memory { .. } => "MEMORY_LIMIT_EXCEEDED",
            },
            Self::Generation { .. } => "EMBEDDING_GENERATION_FAILED",
            Self::MemoryLimit { .. } | Self::ModelTooLarge { .. } | Self::OutOfMemory { .. } => "MEMORY_LIMIT_EXCEEDED",
            Self::NotInitialized | Self::NoIndex { .. } => "NOT_INITIALIZED",
            Self::Aborted => "ABORTED",
            Self::TimedOut { .. } => "TIMED_OUT",
            Self::Closed | Self::CacheClosed => "CLOSED",
            Self::Storage { .. } => "CACHE_STORAGE_FAILED",
            Self::Internal(_) => "INTERNAL",
        }
    }

    /// Whether the same call may succeed later without a change by the caller.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Hub { status, .. } => matches!(status, None | Some(408 | 429 | 500..)),
            Self::Backend { fault, .. } => *fault != Fault::Rejected,
            _ => matches!(self, Self::TimedOut { .. } | Self::Storage { .. } | Self::Threads { .. }),
        }
    }

    /// The error's fields for programs, so that nobody has to parse the message.
    pub fn details(&self) -> Value {
        match self {
            Self::InvalidConfig { option, .. } => json!({ "option": option }),
            Self::InputTooLong { what, index, bytes, limit } => {
                what.said(json!({ "index": index, "bytes": bytes, "limit": limit }))
            }
            Self::ModelInit { path, task: Some(task), .. } => json!({ "path": path, "task": task }),
            Self::ModelInit { path, .. }
            | Self::Storage { path, .. }
            | Self::IndexMismatch { path, .. }
            | Self::NoIndex { path } => json!({ "path": path }),
            Self::OutOfMemory { need, .. } => json!({ "need": need }),
            Self::Hub { file, url, status, .. } => json!({ "file": file, "url": url, "status": status }),
            Self::Backend { url, status, fault, index, .. } => {
                let mut details = json!({ "url": url, "status": status });
                if let Fault::Late(timeout_ms) = fault {
                    details["timeoutMs"] = json!(timeout_ms);
                }
                if let Some(index) = index {
                    details["index"] = json!(index);
                }
                details
            }
            Self::Image { index, path, fault, .. } => {
                let mut details = match fault {
                    ImageFault::Unreadable | ImageFault::Model => json!({}),
                    ImageFault::TooLarge { width, height, limit } => {
                        json!({ "width": width, "height": height, "limit": limit })
                    }
                    ImageFault::Memory { need, limit } => json!({ "need": need, "limit": limit }),
                };
                details["index"] = json!(index);
                if let Some(path) = path {
                    details["path"] = json!(path);
                }
                details
            }
            Self::EmptyText { what, index } | Self::Generation { what, index, .. } => {
                what.said(json!({ "index": index }))
            }
            Self::MemoryLimit { index, need, limit, .. } => json!({ "index": index, "need": need, "limit": limit }),
            Self::ModelTooLarge { need, limit, .. } => json!({ "need": need, "limit": limit }),
            Self::TimedOut { timeout_ms } => json!({ "timeoutMs": timeout_ms }),
            Self::Threads { limits, .. } => json!({ "limits": limits }),
            Self::InvalidArgument(_)
            | Self::NotInitialized
            | Self::Aborted
            | Self::Closed
            | Self::CacheClosed
            | Self::Internal(_) => json!({}),
        }
    }

    /// The same error about the text at `index`: equal texts share one fate, but not one position.
    pub(crate) fn at(&self, index: usize) -> Self {
        let mut error = self.clone();
        error.index_mut().into_iter().for_each(|at| *at = index);
        error
    }

    /// The same error, counted from `by`.
    pub(crate) fn shifted(mut self, by: usize) -> Self {
        self.index_mut().into_iter().for_each(|at| *at += by);
        self
    }

    fn index_mut(&mut self) -> Option<&mut usize> {
        match self {
            Self::EmptyText { index, .. }
            | Self::InputTooLong { index, .. }
            | Self::Generation { index, .. }
            | Self::Image { index, .. }
            | Self::MemoryLimit { index, .. } => Some(index),
            Self::Backend { index, .. } => index.as_mut(),
            _ => None,
        }
    }

    fn subject_mut(&mut self) -> Option<&mut Subject> {
        match self {
            Self::EmptyText { what, .. }
            | Self::InputTooLong { what, .. }
            | Self::Generation { what, .. }
            | Self::MemoryLimit { what, .. } => Some(what),
            _ => None,
        }
    }

    /// What a model, or its tokenizer, could not do with the first input.
    pub(crate) fn generation(reason: impl Into<String>) -> Self {
        Self::Generation { what: Subject::Text, index: 0, reason: reason.into() }
    }

    /// A model that cannot be used because of `path`.
    pub(crate) fn model(path: impl AsRef<std::path::Path>, reason: impl Into<String>) -> Self {
        Self::ModelInit { path: path.as_ref().display().to_string(), reason: reason.into(), task: None }
    }

    /// An option that cannot be used.
    pub(crate) fn config(option: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidConfig { option: option.into(), reason: reason.into() }
    }
}
