//! Reading: what a call has → tokens, some at a time, so that others get their turn.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use super::call::Call;
use super::contents::Contents;
use super::engine::{Engine, is_brief};
use super::pairs::PARTS;
use super::stage_metrics::Stage;
use crate::embedding::{InputType, Tokens};
use crate::error::{Error, Result, Subject};
use crate::host::threads::{blocking_unless, in_parallel};
use crate::tokens::{self, Half, Tokenizer};

/// Texts, and bytes of text, that are tokenised before another call gets its turn: some tenths of a second at most.
const WINDOW_TEXTS: usize = 1024;
const WINDOW_BYTES: usize = 1 << 20;

impl Engine {
    /// Tokens of the inputs of `slots`.
    pub(super) async fn tokenize(self: &Arc<Self>, call: &Call<'_>, slots: &[usize]) -> Result<Vec<Result<Tokens>>> {
        let first: Vec<usize> = slots.iter().map(|&slot| call.distinct.first[slot]).collect();
        if matches!(&*call.contents, Contents::Pairs(_)) {
            return self.tokenize_pairs(call, &first).await;
        }
        let input_type = call.options.input_type;
        let bytes = |index: usize| call.contents.texts().get(index).map_or(0, String::len);
        let read = move |engine: &Self, contents: &Contents, index: usize| match contents {
            Contents::Images(images) => match &images[index] {
                Ok(image) => Ok(Tokens::of_image(Arc::clone(image))),
                Err(error) => Err(error.at(index)),
            },
            texts => engine.encode(index, input_type, &texts.texts()[index]),
        };
        self.read_all(call, &first, bytes, read).await
    }

    /// Tokens of pairs: first of their texts, each of which is read once, then of both together.
    async fn tokenize_pairs(self: &Arc<Self>, call: &Call<'_>, first: &[usize]) -> Result<Vec<Result<Tokens>>> {
        let pairs = call.contents.pairs()?;
        // A text is read in one way, but where something is put before queries: then each role has its own.
        let roles = if self.prompts.query.is_empty() { 1 } else { PARTS.len() };
        let place = move |text: usize, part: usize| text * roles + part % roles;
        let both = move |[query, document]: [usize; 2]| [place(query, 0), place(document, 1)];
        let mut places: Vec<usize> = first.iter().flat_map(|&index| both(pairs.places()[index])).collect();
        places.sort_unstable();
        places.dedup();
        let bytes = |place: usize| pairs.texts()[place / roles].len();
        let read = move |engine: &Self, contents: &Contents, place: usize| {
            let text = &contents.pairs()?.texts()[place / roles];
            let role = if place.is_multiple_of(roles) { InputType::Query } else { InputType::Document };
            engine.pair_tokenizer()?.encode_half(&engine.worded(role, text))
        };
        let halves = self.read_all(call, &places, bytes, read).await?;
        let halves: Arc<HashMap<usize, Result<Half>>> = Arc::new(places.into_iter().zip(halves).collect());
        let known = Arc::clone(&halves);
        // What a pair takes is made of the tokens that are kept.
        let bytes = |index: usize| {
            let kept = |place| halves.get(&place).and_then(|half| half.as_ref().ok()).map_or(0, Half::bytes);
            both(pairs.places()[index]).map(kept).iter().sum()
        };
        let join = move |engine: &Self, contents: &Contents, index: usize| {
            let pairs = contents.pairs()?;
            let places = pairs.places()[index];
            // A query of nothing asks nothing; a document of nothing is a poor one.
            if pairs.texts()[places[0]].trim().is_empty() {
                return Err(Error::EmptyText { what: Subject::QueryOfPair, index });
            }
            let half = |part: usize| match known.get(&both(places)[part]) {
                Some(half) => half.as_ref().map_err(|error| error.at(index).about(PARTS[part])),
                None => Err(Error::Internal(format!("text {} of a call was not read", places[part]))),
            };
            engine.pair_tokenizer()?.encode_pair(half(0)?, half(1)?).map_err(|error| error.at(index))
        };
        self.read_all(call, first, bytes, join).await
    }

    /// What `read` makes of each of `items`, in parallel, off the caller's threads, and some at a time, so that others get their turn.
    async fn read_all<T: Send + 'static>(
        self: &Arc<Self>,
        call: &Call<'_>,
        items: &[usize],
        bytes: impl Fn(usize) -> usize,
        read: impl Fn(&Self, &Contents, usize) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Vec<Result<T>>> {
        let mut done = Vec::with_capacity(items.len());
        let (mut rest, read) = (items, Arc::new(read));
        while !rest.is_empty() {
            call.cancel.check()?;
            let mut sum = 0;
            let fits = rest.iter().take(WINDOW_TEXTS).take_while(|&&item| {
                let full = sum >= WINDOW_BYTES;
                sum += bytes(item);
                !full
            });
            let (window, after) = rest.split_at(fits.count());
            rest = after;
            let brief = is_brief(window.len(), sum);
            let (engine, contents, cancel, read, window) =
                (Arc::clone(self), Arc::clone(&call.contents), call.cancel.clone(), Arc::clone(&read), window.to_vec());
            let read_window = move || -> Result<Vec<Result<T>>> {
                let started = Instant::now();
                let one = |item| cancel.check().and_then(|()| read(&engine, &contents, item));
                let done: Vec<_> = if brief {
                    window.into_iter().map(one).collect()
                } else {
                    in_parallel(|| window.into_par_iter().map(one).collect())?
                };
                engine.stage_metrics.done(Stage::Tokenize, started, done.len());
                Ok(done)
            };
            done.extend(call.cancel.or_else(blocking_unless(brief, read_window)).await???);
        }
        call.cancel.check()?;
        Ok(done)
    }

    fn pair_tokenizer(&self) -> Result<&Tokenizer> {
        let tokenizer = self.tokenizer.as_ref();
        tokenizer.ok_or_else(|| Error::Internal(format!("the model {} has no tokenizer for pairs", self.id)))
    }

    fn encode(&self, index: usize, input_type: InputType, text: &str) -> Result<Tokens> {
        if text.trim().is_empty() {
            return Err(Error::EmptyText { what: Subject::Text, index });
        }
        let prompt = self.prompts.of(input_type);
        let text = self.worded(input_type, text);
        let Some(tokenizer) = &self.tokenizer else { return tokens::untold(index, input_type, &text) };
        let mut tokens = tokenizer.encode(index, input_type, &text)?;
        if self.leaves_out_prompts && !prompt.is_empty() {
            tokens.prompt = tokenizer.prompt_tokens(prompt);
        }
        Ok(tokens)
    }
}
