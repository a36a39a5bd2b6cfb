//! What a call embeds, as it was when the call was made: which of it is the same, and what it is called in the cache.

use std::sync::Arc;

use rayon::prelude::*;

use super::Inputs;
use super::answer::Distinct;
use super::model_cache::ModelCache;
use super::pairs::Pairs;
use crate::cancel::Cancel;
use crate::embedding::{InputType, Key};
use crate::error::{Error, Result};
use crate::images::{Image, ImageSource};
use crate::text::{self, Prepared};

/// What a call embeds.
pub(super) enum Contents {
    Texts(Vec<String>),
    Images(Vec<Result<Arc<Image>>>),
    Pairs(Pairs),
}

impl Contents {
    pub fn texts(&self) -> &[String] {
        match self {
            Self::Texts(texts) => texts,
            Self::Images(_) | Self::Pairs(_) => &[],
        }
    }

    /// The pairs of a call that has them.
    pub fn pairs(&self) -> Result<&Pairs> {
        match self {
            Self::Pairs(pairs) => Ok(pairs),
            Self::Texts(_) | Self::Images(_) => Err(Error::Internal("a call of pairs has none".to_owned())),
        }
    }

    /// Empties what stands for inputs that were none.
    pub fn clear(&mut self, indices: &[usize]) {
        match self {
            Self::Texts(texts) => {
                indices.iter().for_each(|&index| texts.get_mut(index).into_iter().for_each(String::clear));
            }
            Self::Pairs(pairs) => pairs.clear(indices),
            Self::Images(_) => {}
        }
    }

    /// The distinct inputs, and with a cache the key of each. Texts that have keys are told apart by these, which are hashes
    /// of all of them that are made side by side.
    pub fn distinct(&self, model_cache: Option<&ModelCache>, input_type: InputType) -> (Distinct, Vec<Key>) {
        match (self, model_cache) {
            (Self::Texts(texts), Some(model_cache)) => {
                let all = model_cache.keys(texts, input_type);
                let distinct = Distinct::of(all.iter());
                let keys = distinct.first.iter().map(|&index| all[index]).collect();
                (distinct, keys)
            }
            (Self::Texts(texts), None) => (Distinct::of(texts.iter()), Vec::new()),
            (Self::Pairs(pairs), _) => {
                let distinct = Distinct::of(pairs.places().iter());
                let keys = model_cache.map(|model_cache| model_cache.keys_of_pairs(pairs, &distinct.first));
                (distinct, keys.unwrap_or_default())
            }
            (Self::Images(images), _) => {
                // What cannot be read is like nothing else.
                let name = |(index, image): (usize, &Result<Arc<Image>>)| match image {
                    Ok(image) => (image.hash, None),
                    Err(_) => ([0; 32], Some(index)),
                };
                let distinct = Distinct::of(images.iter().enumerate().map(name));
                let keys = model_cache.map(|model_cache| {
                    let key = |&index: &usize| match &images[index] {
                        Ok(image) => model_cache.key_of_image(&image.hash),
                        Err(_) => model_cache.key_of_none(index),
                    };
                    distinct.first.iter().map(key).collect()
                });
                (distinct, keys.unwrap_or_default())
            }
        }
    }
}

/// What is to be embedded, and for each whether something was cut off it.
pub(super) fn prepare(inputs: Inputs, max_chars: usize, most_pixels: u64, cancel: &Cancel) -> (Contents, Vec<bool>) {
    match inputs {
        Inputs::Texts(texts) => {
            let cut = vec![false; texts.len()];
            (Contents::Texts(texts), cut)
        }
        Inputs::Pairs(pairs) => {
            let cut = vec![false; pairs.count()];
            (Contents::Pairs(pairs), cut)
        }
        Inputs::Images(images) => {
            let cut = vec![false; images.len()];
            let examine = |image: ImageSource| cancel.check().and_then(|()| image.examine(most_pixels)).map(Arc::new);
            (Contents::Images(images.into_par_iter().map(examine).collect()), cut)
        }
        Inputs::Annotations(annotations) => {
            let prepare = |annotation| {
                // Nobody looks at the texts of a call that was stopped.
                let stopped = |_| Prepared { text: String::new(), cut: true };
                let prepared = cancel.check().map_or_else(stopped, |()| text::prepare(annotation, max_chars));
                (prepared.text, prepared.cut)
            };
            let (texts, cut) = annotations.par_iter().with_min_len(64).map(prepare).unzip();
            (Contents::Texts(texts), cut)
        }
    }
}

/// What its inputs are called.
pub(super) enum Names {
    /// Texts go by themselves.
    Texts,
    Others(Vec<String>),
}

impl Names {
    pub fn of(inputs: &Inputs) -> Self {
        match inputs {
            Inputs::Texts(_) => Self::Texts,
            Inputs::Annotations(annotations) => {
                Self::Others(annotations.iter().map(|annotation| annotation.node_id.clone()).collect())
            }
            Inputs::Images(images) => {
                Self::Others(images.iter().map(|image| image.path().unwrap_or_default()).collect())
            }
            // Nobody looks for them by a name.
            Inputs::Pairs(_) => Self::Others(Vec::new()),
        }
    }

    pub fn name(&self, index: usize, contents: &Contents) -> String {
        let name = match self {
            Self::Texts => contents.texts().get(index),
            Self::Others(names) => names.get(index),
        };
        name.cloned().unwrap_or_default()
    }
}
