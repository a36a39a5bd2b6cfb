//! Whether failures are the size's, or nobody's.
//!
//! A size that is too large fails, and so does every batch while the machine, or a service, has trouble. Counting does not
//! tell the two apart; an experiment does. When a batch fails, sizes shrink until one succeeds, then the smallest that had
//! failed is tried once more. If it succeeds, it was not the size. If it fails again, the largest size that is possible lies
//! between the two: a bracket, which later batches narrow.
//!
//! Trouble that lets a batch through now and then can mislead the experiment. So no verdict is final: after some successes
//! in a row the size that failed is tried again, and whatever succeeds refutes the bracket as a whole. The wait doubles with
//! every failure that confirms it (exponential backoff, up to a bound), so that a limit that is real costs few batches. Only what
//! fails after as many successes as were to be waited for confirms it, and a failure below the bracket, which it does not
//! explain, ends the backoff: so trouble, however long, leaves nothing behind that the first good batches after it do not
//! clear away.

use serde::{Deserialize, Serialize};

/// Successes in a row after which a size that failed is tried again for the first time, and at most: a limit that is gone must
/// be noticed soon, too.
const WAIT: usize = 8;
const MOST_WAIT: usize = 40;

/// How often confirming is counted: no wait doubles as often.
pub(super) const MOST_CONFIRMED: u32 = 10;

/// The experiment that a failure starts.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Experiment {
    /// The smallest size that failed.
    pub(super) failed: usize,
    /// A smaller one that has succeeded since: now the one that failed is tried once more.
    pub(super) succeeded: Option<usize>,
}

/// The sizes between which the largest possible one lies.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Bracket {
    /// The largest size that has succeeded since.
    pub(super) fits: usize,
    /// The smallest size that fails. More than `fits`.
    pub(super) too_large: usize,
    /// The size that was in use before there was a bracket.
    pub(super) before: usize,
    /// How often trying again has confirmed it.
    pub(super) confirmed: u32,
    /// Successes in a row since the last failure.
    pub(super) successes: usize,
}

impl Bracket {
    /// Successes in a row that are waited for.
    fn wait(&self) -> usize {
        (WAIT << self.confirmed.min(MOST_CONFIRMED)).min(MOST_WAIT)
    }

    /// The largest size that is used: the geometric mean, at least what fits.
    fn limit(&self) -> usize {
        let middle = (self.fits as f64 * self.too_large as f64).sqrt().round() as usize;
        middle.clamp(self.fits, self.too_large - 1)
    }
}

/// What a record says about sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// Nothing new.
    Open,
    /// Sizes from some one on fail.
    TooLarge,
    /// They do not. The size that was in use before is given back.
    Refuted(usize),
}

/// What is known from failures.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Failures {
    pub(super) experiment: Option<Experiment>,
    pub(super) bracket: Option<Bracket>,
}

impl Failures {
    /// Takes a record, `in_use` the size that is in use but for tries.
    pub(super) fn observe(&mut self, size: usize, success: bool, in_use: usize) -> Verdict {
        if success { self.succeeded(size) } else { self.failed(size, in_use) }
    }

    fn succeeded(&mut self, size: usize) -> Verdict {
        match &mut self.experiment {
            Some(experiment) if size < experiment.failed => {
                experiment.succeeded = experiment.succeeded.max(Some(size));
            }
            // It was not the size.
            experiment => *experiment = None,
        }
        let Some(bracket) = &mut self.bracket else { return Verdict::Open };
        if size >= bracket.too_large {
            let before = bracket.before;
            *self = Self::default();
            return Verdict::Refuted(before);
        }
        bracket.fits = bracket.fits.max(size);
        bracket.successes += 1;
        Verdict::Open
    }

    fn failed(&mut self, size: usize, in_use: usize) -> Verdict {
        if let Some(bracket) = &mut self.bracket {
            let explained = size >= bracket.too_large;
            if !explained {
                bracket.confirmed = 0;
            } else if bracket.successes >= bracket.wait() {
                bracket.confirmed = (bracket.confirmed + 1).min(MOST_CONFIRMED);
            }
            bracket.successes = 0;
            if explained {
                return Verdict::Open;
            }
        }
        match self.experiment {
            Some(Experiment { failed, succeeded: Some(fits) }) if size >= failed => {
                let before = self.bracket.map_or(in_use, |bracket| bracket.before);
                self.bracket = Some(Bracket { fits, too_large: failed, before, confirmed: 0, successes: 0 });
                self.experiment = None;
                Verdict::TooLarge
            }
            experiment => {
                let failed = experiment.map_or(size, |experiment| experiment.failed.min(size));
                self.experiment = Some(Experiment { failed, succeeded: None });
                Verdict::Open
            }
        }
    }

    /// The largest size that is not held to be too large.
    pub(super) fn limit(&self) -> usize {
        self.bracket.map_or(usize::MAX, |bracket| bracket.limit())
    }

    /// The size that tells more, while an experiment runs: a smaller one, best `in_use` if that has ever succeeded; then the
    /// smallest that failed.
    pub(super) fn next(&self, in_use: Option<usize>) -> Option<usize> {
        let Experiment { failed, succeeded } = self.experiment?;
        Some(match (succeeded, in_use) {
            (Some(_), _) => failed,
            (None, Some(in_use)) if in_use < failed => in_use,
            (None, _) => failed / 2,
        })
    }

    /// The size that failed, when it is time to try it again; after that, every so many batches until somebody does.
    pub(super) fn retry(&self, every: usize) -> Option<usize> {
        let bracket = self.bracket?;
        let over = bracket.successes.checked_sub(bracket.wait())?;
        over.is_multiple_of(every).then_some(bracket.too_large)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch of each size, of which those above `limit` fail: what is found out.
    fn run(failures: &mut Failures, sizes: &[usize], limit: usize) -> Vec<Verdict> {
        sizes.iter().map(|&size| failures.observe(size, size <= limit, 32)).collect()
    }

    #[test]
    fn a_failure_is_the_sizes_if_a_smaller_one_succeeds_and_it_fails_again() {
        let mut failures = Failures::default();
        assert_eq!(run(&mut failures, &[32], 20), [Verdict::Open]);
        assert_eq!(
            (failures.next(None), failures.next(Some(24)), failures.next(Some(40))),
            (Some(16), Some(24), Some(16))
        );
        assert_eq!(run(&mut failures, &[16], 20), [Verdict::Open]);
        assert_eq!((failures.next(Some(24)), failures.limit()), (Some(32), usize::MAX));
        assert_eq!(run(&mut failures, &[32], 20), [Verdict::TooLarge]);
        // √(16 · 32), and on from there.
        assert_eq!((failures.next(None), failures.limit()), (None, 23));
        assert_eq!(run(&mut failures, &[23, 16, 23], 20).last(), Some(&Verdict::TooLarge));
        assert_eq!(failures.limit(), 19);
        run(&mut failures, &[19, 20], 20);
        assert_eq!(failures.limit(), 21);
    }

    #[test]
    fn it_is_not_if_it_succeeds_then() {
        let mut failures = Failures::default();
        run(&mut failures, &[32, 16, 8, 4], 5);
        assert_eq!(failures.next(None), Some(8));
        assert_eq!(run(&mut failures, &[8], 100), [Verdict::Open]);
        assert!(failures.experiment.is_none() && failures.bracket.is_none());
    }

    #[test]
    fn what_failed_is_tried_again_ever_more_seldom() {
        let mut failures = Failures::default();
        run(&mut failures, &[32, 16, 32], 20);
        let mut waits = Vec::new();
        for _ in 0..5 {
            let wait = (0..).find(|_| {
                let due = failures.retry(8).is_some();
                failures.observe(if due { 32 } else { 16 }, !due, 32);
                due
            });
            waits.extend(wait);
        }
        assert_eq!(waits, [8, 16, 32, 40, 40]);
        // What it does not explain begins the waiting anew; what succeeds ends it.
        run(&mut failures, &[16, 8, 16], 20);
        failures.observe(16, false, 32);
        failures.observe(16, true, 32);
        assert_eq!(failures.bracket.map(|bracket| bracket.wait()), Some(8));
        assert_eq!(run(&mut failures, &[32], 100), [Verdict::Refuted(32)]);
        assert_eq!((failures.limit(), failures.retry(1)), (usize::MAX, None));
    }
}
