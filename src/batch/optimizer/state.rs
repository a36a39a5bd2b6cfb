//! What an optimizer has learned, as JSON, so that another one can go on with it. Whatever comes back may be damaged: it is
//! taken only if an optimizer could have written it.

use serde_json::Value;

use super::candidates::candidates;
use super::change_point::{self, ChangeDetector, MOST_RAISED};
use super::failures::{Failures, MOST_CONFIRMED};
use super::noise;
use super::options::{MOST, OptimizerOptions};
use super::resources::Resources;
use super::{BatchOptimizer, Phase};
use crate::error::{Error, Result};

/// Raised when states mean something else than before.
const VERSION: u64 = 1;

/// Sizes that something is known about, at most.
const MOST_ARMS: usize = 4096;

/// Largest number of batches that is counted. More than will ever run, and no sum of such overflows.
const MOST_BATCHES: usize = 1 << 52;

/// Largest size, and number of records that are kept.
const MOST_ITEMS: usize = u32::MAX as usize;

impl BatchOptimizer {
    /// All that it knows.
    pub fn state(&self) -> Value {
        let mut state = serde_json::to_value(self).unwrap_or_default();
        if let Value::Object(fields) = &mut state {
            fields.insert("version".to_owned(), VERSION.into());
        }
        state
    }

    /// The same without the history, which only [`BatchOptimizer::analytics`] are about.
    pub fn learned(&self) -> Value {
        Self { history: Default::default(), ..self.clone() }.state()
    }

    /// The optimizer that had this state.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for what no optimizer of this version can have written.
    pub fn restored(mut state: Value) -> Result<Self> {
        let refused =
            |reason: String| Error::InvalidArgument(format!("The state of an optimizer cannot be used: {reason}"));
        let Value::Object(fields) = &mut state else { return Err(refused("it is not an object".into())) };
        match fields.remove("version") {
            Some(version) if version == VERSION => {}
            Some(version) => return Err(refused(format!("its version is {version}, not {VERSION}"))),
            None => return Err(refused("it has no version".into())),
        }
        let mut optimizer: Self = serde_json::from_value(state).map_err(|error| refused(error.to_string()))?;
        optimizer.check().map_err(refused)?;
        optimizer.candidates = candidates(&optimizer.options);
        Ok(optimizer)
    }

    /// What cannot be, in words.
    fn check(&self) -> std::result::Result<(), String> {
        let OptimizerOptions { min_size, max_size, min_samples, history, .. } = self.options;
        if self.options.checked().map_err(|error| error.to_string())? != self.options {
            return Err("its bounds are in the wrong order".into());
        }
        let whole = |name: &str, value: usize, least: usize, most: usize| {
            let fits = (least..=most).contains(&value);
            if fits { Ok(()) } else { Err(format!("{name} is {value}, not from {least} to {most}")) }
        };
        let number = |name: &str, value: f64, least: f64, most: f64| {
            let fits = (least..=most).contains(&value);
            if fits { Ok(()) } else { Err(format!("{name} is {value}, not from {least} to {most}")) }
        };
        whole("maxSize", max_size, min_size, MOST_ITEMS)?;
        whole("minSamples", min_samples, 0, MOST_ITEMS)?;
        whole("the number of records", self.history.len(), 0, history.min(self.samples))?;
        whole("history", history, 0, MOST_ITEMS)?;
        let Resources { ceiling, memory, cpu, lowered, relaxed } = &self.resources;
        let ChangeDetector { up, down, residuals, threshold } = &self.changes;
        let Failures { experiment, bracket } = &self.failures;
        let tried = experiment.iter().flat_map(|one| [Some(one.failed), one.succeeded]).flatten();
        if experiment.is_some_and(|one| one.succeeded.is_some_and(|size| size >= one.failed)) {
            return Err("a size that succeeded is not smaller than the one that failed".into());
        }
        let between = bracket.iter().flat_map(|one| [one.fits, one.too_large, one.before]);
        if bracket.is_some_and(|one| one.fits >= one.too_large) {
            return Err("a size that fits is not smaller than the one that is too large".into());
        }
        let lowered_to = lowered.iter().flat_map(|lowered| [lowered.from, lowered.to]);
        let sizes = [self.initial, self.incumbent, self.current, *ceiling].into_iter();
        for size in sizes.chain(lowered_to).chain(tried).chain(between).chain(self.arms.iter().map(|arm| arm.size)) {
            whole("a size", size, min_size, max_size)?;
        }
        let batches = match self.phase {
            Phase::Gather => 0,
            Phase::Search(batches) | Phase::Hold(batches) => batches,
        };
        let successes = bracket.map_or(0, |bracket| bracket.successes);
        for count in [self.samples, batches, *relaxed, successes, lowered.map_or(0, |lowered| lowered.records)] {
            whole("a number of batches", count, 0, MOST_BATCHES)?;
        }
        whole(
            "a number of retries",
            bracket.map_or(0, |bracket| bracket.confirmed as usize),
            0,
            MOST_CONFIRMED as usize,
        )?;
        whole("the number of sizes", self.arms.len(), 0, MOST_ARMS)?;
        whole("the number of residuals", self.noise.residuals.len(), 0, noise::RESIDUALS)?;
        whole("the number of residuals", residuals.len(), 0, change_point::RESIDUALS)?;
        let mut known: Vec<usize> = self.arms.iter().map(|arm| arm.size).collect();
        known.sort_unstable();
        if known.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("it knows two things about one size".into());
        }
        for arm in &self.arms {
            number("a logarithm of a throughput", arm.mean, -100.0, 100.0)?;
            number("the weight of a size", arm.weight, 0.0, 1e3)?;
        }
        number("the level", self.level, -100.0, 100.0)?;
        for value in self.noise.residuals.iter().chain(residuals) {
            number("a residual", *value, -1e3, 1e3)?;
        }
        number("the threshold", *threshold, 1.0, MOST_RAISED)?;
        for value in [*up, *down, self.held_ms, self.regret_ms] {
            number("a sum", value, 0.0, MOST * 1e3)?;
        }
        let usages = [*cpu, *memory, lowered.map(|lowered| lowered.before)].into_iter();
        let recorded = self.history.iter().flat_map(|record| [record.cpu, record.memory]);
        for usage in usages.chain(recorded).flatten() {
            number("a usage", usage, 0.0, 100.0)?;
        }
        for record in &self.history {
            record.check().map_err(|error| error.to_string())?;
            number("a time", record.at_ms, 0.0, MOST)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::Record;
    use super::*;

    fn record(size: usize, time_ms: f64, tokens: Option<f64>, success: bool) -> Record {
        let items = size as f64;
        let (cpu, memory) = (Some(50.0), Some(40.0));
        Record { size, time_ms, items, tokens, cpu, memory, sampled: true, success, at_ms: 0.0 }
    }

    /// One that has found its best size, on a machine that slows down beyond 40 items.
    fn learned() -> BatchOptimizer {
        let mut optimizer = BatchOptimizer::new(8, OptimizerOptions::default()).unwrap();
        run(&mut optimizer, 120);
        optimizer
    }

    fn run(optimizer: &mut BatchOptimizer, batches: usize) -> Vec<usize> {
        (0..batches)
            .map(|nth| {
                let size = optimizer.current();
                let over = if size > 40 { 3.0 } else { 1.0 };
                let time = (4.0 + size as f64) * over * (1.0 + 0.02 * ((nth * 7) % 5) as f64);
                optimizer.record(record(size, time, Some(30.0 * size as f64), nth % 29 != 28)).unwrap();
                size
            })
            .collect()
    }

    #[test]
    fn goes_on_as_if_nothing_had_been_between() {
        let mut before = learned();
        let text = before.state().to_string();
        let mut after = BatchOptimizer::restored(serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!((after.current(), after.samples()), (before.current(), before.samples()));
        assert_eq!(after.recommendation().reason, before.recommendation().reason);
        assert_eq!(after.history().len(), before.history().len());
        assert_eq!(run(&mut after, 200), run(&mut before, 200));
        // It has something to go on with: one that begins anew is elsewhere.
        let fresh = BatchOptimizer::new(8, OptimizerOptions::default()).unwrap();
        assert_ne!(fresh.current(), before.current());
        let without = BatchOptimizer::restored(before.learned()).unwrap();
        assert_eq!((without.history().len(), without.current()), (0, before.current()));
    }

    #[test]
    fn takes_nothing_that_no_optimizer_has_written() {
        let state = learned().state();
        let changed = |path: &str, value: Value| {
            let mut state = state.clone();
            *state.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
            BatchOptimizer::restored(state)
        };
        let more = |path: &str, count: usize| {
            let mut state = state.clone();
            let list = state.pointer_mut(path).unwrap().as_array_mut().unwrap();
            let first = list[0].clone();
            list.extend(std::iter::repeat_n(first, count));
            BatchOptimizer::restored(state)
        };
        let mut extra = state.clone();
        extra["more"] = json!(1);
        let mut without = state.clone();
        without.as_object_mut().unwrap().remove("arms");
        for result in [
            BatchOptimizer::restored(json!(null)),
            BatchOptimizer::restored(json!([])),
            BatchOptimizer::restored(json!({})),
            BatchOptimizer::restored(json!({ "version": 1 })),
            BatchOptimizer::restored(extra),
            BatchOptimizer::restored(without),
            changed("/version", json!(2)),
            changed("/version", json!("1")),
            changed("/current", json!(-1)),
            changed("/current", json!(0)),
            changed("/current", json!(129)),
            changed("/incumbent", json!(1.5)),
            changed("/resources/ceiling", json!(null)),
            changed("/level", json!(null)),
            changed("/level", json!(1e6)),
            changed("/changes/threshold", json!(0)),
            changed("/heldMs", json!(-1)),
            changed("/phase", json!("sleep")),
            changed("/phase", json!({ "hold": u64::MAX })),
            changed("/samples", json!(3)),
            changed("/samples", json!(u64::MAX)),
            changed("/arms/0/size", json!(0)),
            changed("/arms/0/mean", json!(1e9)),
            changed("/arms/0/weight", json!(-1)),
            changed("/arms", json!({})),
            changed("/history/0/timeMs", json!(-1)),
            changed("/history/0/cpu", json!(1000)),
            changed("/history/0/items", json!("many")),
            changed("/options/minSize", json!(0)),
            changed("/options/minSize", json!(500)),
            changed("/options/maxSize", json!(u64::MAX)),
            changed("/options/aggressiveness", json!(7)),
            more("/arms", 1),
            more("/arms", 100_000),
            more("/noise", 30),
            more("/history", 1000),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.code(), "INVALID_ARGUMENT");
            assert!(error.to_string().starts_with("The state of an optimizer cannot be used: "), "{error}");
        }
    }

    proptest! {
        /// Whatever one value of a state is replaced by: it is refused, or what comes of it works.
        #[test]
        fn never_panics(which in any::<prop::sample::Index>(), value in prop_oneof![
            Just(json!(null)), Just(json!(true)), Just(json!([])), Just(json!({})), Just(json!("x")), Just(json!(1e308)),
            any::<i64>().prop_map(|number| json!(number)), any::<f64>().prop_map(|number| json!(number)),
        ]) {
            static LEARNED: LazyLock<Value> = LazyLock::new(|| learned().state());
            let mut state = LEARNED.clone();
            let mut paths = Vec::new();
            collect(&state, String::new(), &mut paths);
            *state.pointer_mut(&paths[which.index(paths.len())]).unwrap() = value;
            if let Ok(mut optimizer) = BatchOptimizer::restored(state) {
                let bounds = optimizer.options().min_size..=optimizer.options().max_size;
                prop_assert!(run(&mut optimizer, 20).iter().all(|size| bounds.contains(size)));
                prop_assert!(optimizer.recommendation().confidence.is_finite());
                prop_assert!(optimizer.analytics().score.is_finite());
            }
        }
    }

    fn collect(value: &Value, path: String, paths: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| collect(value, format!("{path}/{name}"), paths))
            }
            Value::Array(values) => {
                values.iter().enumerate().for_each(|(at, value)| collect(value, format!("{path}/{at}"), paths));
            }
            _ => {}
        }
        paths.push(path);
    }
}
