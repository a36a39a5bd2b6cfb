//! What a generator reads that may come from anybody: what `fuzz/` calls.

#![allow(missing_docs)]

use std::path::Path;

use super::learned::{Kept, State};
use super::model_cache::{About, Shape};
use super::{StateDir, model_cache};
use crate::batch::Budget;
use crate::batch::sizing::BatchSizer;
use crate::embedding::Task;

/// A note beside a vector.
pub fn note(bytes: &[u8]) {
    model_cache::name_of(bytes);
    let Some((_, rest)) = About::from_note(bytes) else { return };
    for task in [Task::Reranking, Task::Sparse, Task::MultiVector] {
        for dimensions in [1, 3] {
            let shape = Shape { task, dimensions };
            let Some(value) = shape.read(rest) else { continue };
            let mut written = Vec::new();
            shape.write(&value, &mut written);
            assert_eq!(written, rest);
        }
    }
}

/// The file of what was learned, in a directory.
pub fn learned(directory: &Path, bytes: &[u8]) {
    let kept = Kept::new(&StateDir::At(directory.to_owned()), None, "learned", &"fuzz");
    let Some(kept) = kept else { return };
    if std::fs::write(&kept.0, bytes).is_err() {
        return;
    }
    let Some(state) = kept.read::<State>() else { return };
    state.overhead.is_sound();
    let Ok(sizer) = BatchSizer::learning(Budget::default(), BatchSizer::defaults(), |_| 64) else { return };
    sizer.restore(state.batches);
    for longest in [1, 30, 500, 100_000] {
        for nth in 0..3 {
            let choice = sizer.next(longest);
            assert!(choice.rows > 0);
            sizer.record(choice, choice.rows, choice.rows * longest, 5.0, nth != 1, nth);
        }
        sizer.outlook_of(longest);
        sizer.speed(longest);
    }
    sizer.optimize();
    sizer.state();
}
