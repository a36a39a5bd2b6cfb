//! Texts as a model reads them, without a vector being made: how many tokens they have, which ones, and chunks that fit.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use super::engine::Engine;
use crate::cancel::Cancel;
use crate::chunks::{self, Chunk, Document, Sizer, SplitOptions};
use crate::embedding::InputType;
use crate::error::{Error, Result};
use crate::tokens::{MAX_TEXT_BYTES, Tokenizer};

/// The tokens of a text, those that are put around it included.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tokenized {
    /// Their ids.
    pub ids: Vec<u32>,
    /// As the vocabulary spells them.
    pub tokens: Vec<String>,
    /// Where each is in the text, in UTF-16 units; nowhere (0–0) for what was put around it.
    pub offsets: Vec<Range<usize>>,
}

impl Engine {
    fn counter(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| {
            let why = if self.model.info().remote.is_some() {
                "runs on a server, which counts its tokens"
            } else {
                "reads no texts"
            };
            Error::InvalidArgument(format!(
                "The model {} {why}: nothing here can tell them; splitText splits by characters",
                self.model.info().model_id
            ))
        })
    }

    /// The text as it is tokenised.
    pub(super) fn worded<'a>(&self, input_type: InputType, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        let prompt = self.prompts.of(input_type);
        if !prompt.is_empty() {
            text = Cow::Owned(format!("{prompt}{text}"));
        }
        if self.lowercase {
            text = Cow::Owned(text.to_lowercase());
        }
        text
    }

    /// How many tokens each text has, before it is cut. Call inside of `in_parallel`.
    pub fn count_tokens(&self, texts: &[String], input_type: InputType, cancel: &Cancel) -> Result<Vec<u32>> {
        let tokenizer = self.counter()?;
        let count = |(index, text): (usize, &String)| {
            cancel.check()?;
            let count = tokenizer.of(input_type).count(index, &self.worded(input_type, text))?;
            Ok(u32::try_from(count).unwrap_or(u32::MAX))
        };
        texts.par_iter().enumerate().map(count).collect()
    }

    /// The tokens of a text, before it is cut.
    pub fn tokenize_text(&self, text: &str, input_type: InputType) -> Result<Tokenized> {
        let found = self.counter()?.of(input_type).describe(&self.worded(input_type, text))?;
        let prompt = self.prompts.of(input_type);
        let before = if self.lowercase { prompt.to_lowercase().len() } else { prompt.len() };
        let places = Places::of(text, self.lowercase);
        let offsets = found.offsets.into_iter().map(|offset| match offset {
            Range { start, end } if end > start && end > before => {
                places.utf16(start.saturating_sub(before), false)..places.utf16(end - before, true)
            }
            _ => 0..0,
        });
        Ok(Tokenized { ids: found.ids, tokens: found.tokens, offsets: offsets.collect() })
    }

    /// The chunks of each document. Call inside of `in_parallel`.
    pub fn split(
        &self,
        documents: &[Document],
        most: Option<usize>,
        options: &SplitOptions,
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Chunk>>> {
        let sizer = ModelSizer { engine: self, tokenizer: self.counter()? };
        let limit = self.model.info().max_length.unwrap_or(usize::MAX);
        let options = SplitOptions { most: most.map_or(limit, |most| most.min(limit)), ..options.clone() };
        let split = |document| chunks::split(document, &options, &sizer, cancel);
        documents.par_iter().map(split).collect()
    }
}

/// Tokens of documents, as the model reads them.
struct ModelSizer<'a> {
    engine: &'a Engine,
    tokenizer: &'a Tokenizer,
}

impl Sizer for ModelSizer<'_> {
    fn units(&self, piece: &str) -> Result<Vec<usize>> {
        let starts = |text: &str| self.tokenizer.starts(text);
        if !self.engine.lowercase {
            return starts(piece);
        }
        let places = Places::of(piece, true);
        Ok(starts(&piece.to_lowercase())?.into_iter().map(|start| places.byte(start)).collect())
    }

    fn size(&self, chunk: &str) -> Result<usize> {
        self.tokenizer.count(0, &self.engine.worded(InputType::Document, chunk))
    }

    fn most_bytes(&self) -> usize {
        // Room for the prompt, and for letters that are longer in lower case.
        MAX_TEXT_BYTES / 4
    }
}

/// Where a place in a text, or in its lower case, is in the text: in bytes and in UTF-16 units.
struct Places {
    /// For each character: where it begins in what was tokenised, in the text, and in UTF-16 units of the text.
    characters: Vec<(usize, usize, usize)>,
}

impl Places {
    fn of(text: &str, lowercase: bool) -> Self {
        let mut at = (0, 0, 0);
        let mut characters = Vec::with_capacity(text.len() + 1);
        for c in text.chars() {
            characters.push(at);
            at.0 += if lowercase { c.to_lowercase().map(char::len_utf8).sum() } else { c.len_utf8() };
            at.1 += c.len_utf8();
            at.2 += c.len_utf16();
        }
        characters.push(at);
        Self { characters }
    }

    /// The character at or before a place, or at or after it.
    fn character(&self, at: usize, up: bool) -> (usize, usize, usize) {
        let found = self.characters.partition_point(|(start, ..)| *start < at);
        let exact = self.characters.get(found).is_some_and(|(start, ..)| *start == at);
        let index = if exact || up { found } else { found.saturating_sub(1) };
        self.characters[index.min(self.characters.len() - 1)]
    }

    fn utf16(&self, at: usize, up: bool) -> usize {
        self.character(at, up).2
    }

    fn byte(&self, at: usize) -> usize {
        self.character(at, false).1
    }
}
