//! How batches went, and what an optimizer would do, in numbers for people.

use super::options::Record;
use super::{BatchOptimizer, Phase};

/// Latest records that stand for the present.
const RECENT: usize = 5;

/// The promise of other sizes, relative, at which confidence is 1/e.
const PROMISE: f64 = 0.02;

/// Bounds of the confidence.
const CONFIDENCE: (f64, f64) = (0.1, 0.99);

/// What the optimizer would do, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendation {
    /// The best size that is known.
    pub size: usize,
    /// 0–1: exp(−e / 0.02), where e is the relative gain that other sizes still promise. At most 0.1 without enough records.
    pub confidence: f64,
    /// In words.
    pub reason: String,
    /// Relative gain over what was measured of late, at least 0: 0.1 for 10 % more throughput.
    pub expected_improvement: f64,
    /// CPU usage (%) to expect, where it was ever measured.
    pub cpu: Option<f64>,
    /// Memory usage (%) to expect, where it was ever measured.
    pub memory: Option<f64>,
    /// Items per second to expect; 0 without any record of success.
    pub throughput: f64,
}

/// How batches went, over the history that is kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Analytics {
    /// Items per second, over all time that batches took.
    pub average_throughput: f64,
    /// Mean size.
    pub average_size: f64,
    /// Mean duration in ms.
    pub average_time_ms: f64,
    /// Share of batches that succeeded, 0–1.
    pub success_rate: f64,
    /// 0–1: half the performance score, three tenths the resource score, two tenths the stability score.
    pub score: f64,
    /// Throughput of late relative to that of the best size known, 0–1.
    pub performance_score: f64,
    /// 1 up to the targets of CPU and memory, from there linearly to 0 at 100 %; the mean of the two.
    pub resource_score: f64,
    /// Success rate × (1 − coefficient of variation of throughput among batches of one size), 0–1.
    pub stability_score: f64,
    /// Mean of CPU and memory usage, 0–1; 0 where neither was measured.
    pub utilization: f64,
    /// Relative change of the latest five batches against the five before: throughput, memory and CPU.
    pub trends: [f64; 3],
}

impl BatchOptimizer {
    /// What the optimizer would do, and why.
    pub fn recommendation(&self) -> Recommendation {
        let best = self.arm(self.incumbent).filter(|_| self.samples > 0);
        let throughput = best.map_or(0.0, |arm| self.to_items(arm.mean + self.level));
        let mut recommendation = Recommendation {
            size: self.current,
            confidence: CONFIDENCE.0,
            reason: String::new(),
            expected_improvement: 0.0,
            cpu: self.resources.cpu,
            memory: self.resources.memory,
            throughput,
        };
        if self.samples < self.options.min_samples {
            let (has, needs) = (self.samples, self.options.min_samples);
            recommendation.reason = format!("Insufficient performance data for optimization: {has} of {needs} batches");
            return recommendation;
        }
        let promise = self.most_promising(&self.posterior()).map_or(0.0, |(_, promise)| promise);
        let recent: Vec<f64> = self.history.iter().rev().take(RECENT).map(Record::throughput).collect();
        let recent = mean(&recent).unwrap_or_default();
        recommendation.size = self.settled();
        recommendation.confidence = (-promise / PROMISE).exp().clamp(CONFIDENCE.0, CONFIDENCE.1);
        if recent > 0.0 && throughput > 0.0 {
            recommendation.expected_improvement = (throughput / recent - 1.0).clamp(0.0, f64::MAX);
        }
        recommendation.reason = self.reason();
        recommendation
    }

    fn reason(&self) -> String {
        let allowed = self.resources.limit(&self.options);
        let failed = self.history.iter().rev().take(RECENT).filter(|record| !record.success).count();
        if allowed < self.options.max_size && self.settled() >= allowed {
            let (target, memory) = (self.options.target_memory, self.resources.memory.unwrap_or_default());
            format!("Reduced batch size: memory usage was above {target} % (now {memory:.0} %)")
        } else if failed > RECENT / 2 {
            format!("Recent batches failed ({failed} of {RECENT}): it is tried whether smaller ones succeed")
        } else if let Some(bracket) = self.failures.bracket {
            format!("Batches of {} items failed and smaller ones did not: it is tried again later", bracket.too_large)
        } else if let Phase::Search(left) = self.phase {
            format!("Best size so far; at most {left} more batches look for a better one")
        } else {
            format!("Fastest of {} sizes measured", self.arms.len())
        }
    }

    /// How batches went.
    pub fn analytics(&self) -> Analytics {
        let records: Vec<&Record> = self.history.iter().collect();
        let Some(last) = records.last() else { return Analytics::default() };
        let count = records.len() as f64;
        let time: f64 = records.iter().map(|record| record.time_ms.max(0.1)).sum();
        let items: f64 = records.iter().filter(|record| record.success).map(|record| record.items).sum();
        let success_rate = records.iter().filter(|record| record.success).count() as f64 / count;
        let measured = |value: fn(&Record) -> Option<f64>| {
            mean(&records.iter().filter_map(|record| value(record)).collect::<Vec<_>>())
        };
        let (cpu, memory) = (measured(|record| record.cpu), measured(|record| record.memory));
        let headroom = |usage: Option<f64>, target: f64| match usage {
            Some(usage) if usage > target => ((100.0 - usage) / (100.0 - target)).clamp(0.0, 1.0),
            _ => 1.0,
        };
        let resource_score =
            (headroom(cpu, self.options.target_cpu) + headroom(memory, self.options.target_memory)) / 2.0;
        let same: Vec<f64> = records
            .iter()
            .filter(|record| record.size == last.size && record.success)
            .map(|record| record.throughput())
            .collect();
        let stability_score = success_rate * (1.0 - variation(&same).min(1.0));
        let recent: Vec<f64> = records.iter().rev().take(RECENT).map(|record| record.throughput()).collect();
        let best = self.arms.iter().map(|arm| self.to_items(arm.mean + self.level)).fold(0.0, f64::max);
        let performance_score =
            if best > 0.0 { (mean(&recent).unwrap_or_default() / best).clamp(0.0, 1.0) } else { 0.0 };
        let usages: Vec<f64> = [cpu, memory].into_iter().flatten().collect();
        Analytics {
            average_throughput: items / time * 1e3,
            average_size: records.iter().map(|record| record.size as f64).sum::<f64>() / count,
            average_time_ms: records.iter().map(|record| record.time_ms).sum::<f64>() / count,
            success_rate,
            score: 0.5 * performance_score + 0.3 * resource_score + 0.2 * stability_score,
            performance_score,
            resource_score,
            stability_score,
            utilization: mean(&usages).unwrap_or_default() / 100.0,
            trends: [
                trend(&records, |record| Some(record.throughput())),
                trend(&records, |record| record.memory),
                trend(&records, |record| record.cpu),
            ],
        }
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Standard deviation relative to the mean; 0 for fewer than two values.
fn variation(values: &[f64]) -> f64 {
    let Some(mean) = mean(values).filter(|mean| *mean > 0.0 && values.len() > 1) else { return 0.0 };
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64;
    variance.sqrt() / mean
}

/// Relative change of the mean of the latest five against the five before. 0 while there are no such.
fn trend(records: &[&Record], value: impl Fn(&Record) -> Option<f64>) -> f64 {
    let of = |from: usize| {
        mean(&records.iter().rev().skip(from).take(RECENT).filter_map(|record| value(record)).collect::<Vec<_>>())
    };
    match (of(0), of(RECENT)) {
        // Next to nothing before makes it infinite.
        (Some(recent), Some(before)) if before > 0.0 => ((recent - before) / before).min(f64::MAX),
        _ => 0.0,
    }
}
