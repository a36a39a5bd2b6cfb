//! Chunks: where they are in texts that JavaScript has.

use napi::bindgen_prelude::{PromiseRaw, Uint32Array};
use napi::{Env, Result};
use napi_derive::napi;

use super::to_js;
use crate::cancel::Cancel;
use crate::chunks::{self, Characters, Chunk, Document, Format, SplitOptions};
use crate::error::Error;
use crate::host::threads::{blocking, in_parallel};

/// See `SplitOptions`.
#[napi(object, object_to_js = false)]
pub struct NativeSplit {
    /// Most units of a chunk, where that is said.
    pub most: Option<u32>,
    /// Units that are repeated.
    pub overlap: u32,
    /// `auto`, `text`, `markdown` or `code`.
    pub format: String,
    /// The language of code.
    pub language: Option<String>,
}

impl NativeSplit {
    /// The limit, and all else.
    pub fn parsed(self) -> (Option<usize>, SplitOptions) {
        let Self { most, overlap, format, language } = self;
        let format = match &format[..] {
            "text" => Format::Text,
            "markdown" => Format::Markdown,
            "code" => Format::Code,
            _ => Format::Auto,
        };
        let most = most.map(|most| most as usize);
        (most, SplitOptions { most: most.unwrap_or(usize::MAX), overlap: overlap as usize, format, language })
    }
}

/// What a text can be split as: names of languages, and endings of their files.
#[napi(catch_unwind)]
pub fn split_languages() -> Vec<String> {
    chunks::languages().map(str::to_owned).collect()
}

/// Texts and their paths, in turn; an empty one is none.
pub fn documents(strings: Vec<String>) -> Vec<Document> {
    let mut documents = Vec::with_capacity(strings.len() / 2);
    let mut strings = strings.into_iter();
    while let (Some(text), Some(path)) = (strings.next(), strings.next()) {
        documents.push(Document { text, path: Some(path).filter(|path| !path.is_empty()) });
    }
    documents
}

/// The chunks of a text.
#[napi(object, object_from_js = false)]
pub struct NativeChunks {
    /// Of each: beginning, end, size, line, and how many headings it stands under.
    pub numbers: Uint32Array,
    /// Those of all, one after the other.
    pub headings: Vec<String>,
}

impl From<Vec<Chunk>> for NativeChunks {
    fn from(chunks: Vec<Chunk>) -> Self {
        let numbers = chunks.iter().flat_map(|chunk| {
            [chunk.utf16.start, chunk.utf16.end, chunk.size, chunk.line, chunk.headings.len()]
                .map(|number| number as u32)
        });
        let numbers = numbers.collect::<Vec<_>>().into();
        Self { numbers, headings: chunks.into_iter().flat_map(|chunk| chunk.headings).collect() }
    }
}

/// Splitting by characters.
#[napi]
#[derive(Default)]
pub struct NativeSplitter {
    cancel: Cancel,
}

#[napi]
impl NativeSplitter {
    /// One call.
    #[napi(constructor, catch_unwind)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops it: its promise is rejected with `ABORTED`.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.cancel.cancel(Error::Aborted);
    }

    /// See `chunks::split`.
    #[napi(catch_unwind)]
    pub fn split<'env>(
        &self,
        env: &'env Env,
        text: napi::bindgen_prelude::Utf16String,
        path: Option<String>,
        options: NativeSplit,
    ) -> Result<PromiseRaw<'env, NativeChunks>> {
        let cancel = self.cancel.clone();
        let (_, options) = options.parsed();
        env.spawn_future(async move {
            let work = {
                let cancel = cancel.clone();
                blocking(move || {
                    let document = Document { text: String::from_utf16_lossy(&text), path };
                    in_parallel(|| chunks::split(&document, &options, &Characters, &cancel))
                })
            };
            let done = cancel.or_else(work).await.and_then(|done| done.and_then(|done| done.flatten()));
            done.map(NativeChunks::from).map_err(to_js)
        })
    }
}
