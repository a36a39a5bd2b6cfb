//! Which size is tried next, and whether it is worth it: expected improvement (Mockus 1978; Jones, Schonlau & Welch,
//! *Efficient Global Optimization*, 1998), and a budget of time for tries in the hold.

use super::BatchOptimizer;
use super::gaussian_process::{Arm, CLIP, Posterior, posterior};
use super::options::{NORMAL, Record};

/// A size with this weight of records has been seen, and not too long ago.
const KNOWN: f64 = 0.3;

/// Two sizes nearer than this, as a ratio, need no other one between them.
const NEAR: f64 = 1.12;

/// The expected improvement, relative, that is worth a batch at the default aggressiveness.
pub(super) const WORTH: f64 = 0.005;

/// Share of all time that trying other sizes may cost, for an aggressiveness of 1.
const SHARE: f64 = 0.05;

/// A size takes over when it leads by this much, relative, and by as much as noise could explain.
const HYSTERESIS: f64 = 0.01;

/// How much of its lead over the incumbent a size needs to take over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Margin {
    /// Any.
    None,
    /// More than noise explains.
    Hysteresis,
}

impl BatchOptimizer {
    /// The best size that is known and allowed; the incumbent unless another leads by the margin.
    pub(super) fn leader(&self, margin: Margin) -> usize {
        let limit = self.limit();
        let known = self.posterior_of(&self.arms.iter().map(|arm| arm.size).collect::<Vec<_>>());
        let allowed = || known.iter().filter(|posterior| posterior.size <= limit);
        let Some(best) = allowed().max_by(|a, b| a.mean.total_cmp(&b.mean)) else { return self.incumbent.min(limit) };
        let Some(incumbent) = allowed().find(|posterior| posterior.size == self.incumbent) else {
            // One that never ran is not behind yet.
            let untried = self.incumbent <= limit && margin == Margin::Hysteresis;
            return if untried { self.incumbent } else { best.size };
        };
        let margin = if margin == Margin::None { 0.0 } else { HYSTERESIS + best.deviation };
        if best.mean > incumbent.mean + margin { best.size } else { incumbent.size }
    }

    /// The candidate of largest expected improvement, and how much that is, relative to the best size known. None is more
    /// than twice the largest size that ran since the last change, so that a first step over a cliff is a small one.
    pub(super) fn most_promising(&self, posterior: &[Posterior]) -> Option<(usize, f64)> {
        let limit = self.limit().min(self.reach());
        let best = self.best_of(posterior)?;
        posterior
            .iter()
            .filter(|posterior| posterior.size <= limit)
            .map(|posterior| (posterior.size, posterior.expected_improvement(best)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// How much sizes from `size` on promise, though they are above the limit.
    pub(super) fn promises_from(&self, size: usize) -> f64 {
        let posterior = self.posterior();
        let Some(best) = self.best_of(&posterior) else { return f64::INFINITY };
        let above = size..=self.reach().max(size);
        let promises = posterior.iter().filter(|posterior| above.contains(&posterior.size));
        promises.map(|posterior| posterior.expected_improvement(best)).fold(0.0, f64::max)
    }

    /// The best of the sizes that ran, and are allowed.
    fn best_of(&self, posterior: &[Posterior]) -> Option<f64> {
        let limit = self.limit();
        let ran = posterior.iter().filter(|posterior| self.arm(posterior.size).is_some());
        // Where none is allowed, one that is not has to do.
        let best = ran.map(|posterior| (posterior.size <= limit, posterior.mean));
        best.max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))).map(|(_, mean)| mean)
    }

    /// Twice the largest size that ran since the last change.
    fn reach(&self) -> usize {
        let known = self.arms.iter().filter(|arm| arm.weight >= KNOWN || arm.size == self.incumbent);
        2 * known.map(|arm| arm.size).max().unwrap_or(self.current).max(1)
    }

    /// The expected improvement that is worth a batch.
    pub(super) fn worth(&self) -> f64 {
        WORTH * NORMAL / self.options.aggressiveness.max(1e-9)
    }

    /// The middle between the incumbent and the next larger size, where that one is so much slower that there is a step
    /// somewhere between: the best size is likely to lie right before it. The process alone would be slow to see that.
    pub(super) fn bisection(&self) -> Option<usize> {
        if self.options.aggressiveness == 0.0 {
            return None;
        }
        let known = |arm: &&Arm| arm.weight >= KNOWN;
        let incumbent = self.arm(self.incumbent).filter(known)?;
        let larger = self.arms.iter().filter(known).filter(|arm| arm.size > incumbent.size);
        let next = larger.min_by_key(|arm| arm.size)?;
        let middle = (incumbent.size as f64 * next.size as f64).sqrt().round() as usize;
        let step = next.mean < incumbent.mean - (CLIP / 2.0).max(3.0 * self.noise.deviation());
        let wide = next.size as f64 / incumbent.size as f64 > NEAR && middle > incumbent.size && middle < next.size;
        (step && wide && middle <= self.limit()).then_some(middle)
    }

    /// Whether trying `size` once stays within the share of time that trying may cost.
    pub(super) fn can_afford(&self, size: usize, posterior: &[Posterior]) -> bool {
        let Some(incumbent) = self.arm(self.incumbent) else { return true };
        let expected = posterior.iter().find(|posterior| posterior.size == size);
        let expected = expected.map_or(incumbent.mean, |posterior| posterior.mean - posterior.deviation);
        // What was measured counts as it was, without the clipping. Of a size that never ran, there may be a step anywhere
        // below the next larger one.
        let known = self.arms.iter().filter(|arm| arm.size >= size).min_by_key(|arm| arm.size);
        let value =
            known.map_or(expected, |known| if known.size == size { known.mean } else { known.mean.min(expected) });
        let throughput = |value: f64| self.to_items(value + self.level).max(1e-9);
        let regret = size as f64 * (1.0 / throughput(value) - 1.0 / throughput(incumbent.mean)) * 1e3;
        self.regret_ms + regret.max(0.0) <= SHARE * self.options.aggressiveness * self.held_ms
    }

    /// Counts the time of a batch in the hold, and what of it the incumbent would have saved.
    pub(super) fn spend(&mut self, size: usize, record: &Record) {
        self.held_ms += record.time_ms;
        if let Some(incumbent) = self.arm(self.incumbent).filter(|_| size != self.incumbent) {
            let usual = record.items / self.to_items(incumbent.mean + self.level).max(1e-9) * 1e3;
            self.regret_ms += (record.time_ms - usual).max(0.0);
        }
    }

    /// What is known about each candidate and each size that ran.
    pub(super) fn posterior(&self) -> Vec<Posterior> {
        let mut sizes = self.candidates.clone();
        sizes.extend(self.arms.iter().map(|arm| arm.size));
        sizes.sort_unstable();
        sizes.dedup();
        self.posterior_of(&sizes)
    }

    pub(super) fn posterior_of(&self, sizes: &[usize]) -> Vec<Posterior> {
        posterior(&self.arms, self.noise.deviation(), sizes)
    }
}
