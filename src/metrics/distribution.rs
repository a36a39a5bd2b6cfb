//! How durations are spread. Nanoseconds within, milliseconds on the way out.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Buckets are at most 1/128 of their values wide. With a bucket's middle for an answer, percentiles are off by at most
/// 0.4 %, and a distribution takes about 20 KB.
const DIGITS: u8 = 2;

const NS_PER_MS: f64 = 1e6;

/// The longest duration that is accepted, in milliseconds: thirty years.
pub const MAX_MS: f64 = 1e12;

/// Durations in nanoseconds: each is kept to 1/256, their number, sum, minimum and maximum exactly.
#[derive(Clone)]
pub(super) struct Distribution {
    histogram: Histogram<u64>,
    sum: u128,
    min: u64,
    max: u64,
}

/// What is told about durations, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Latency {
    /// The sum of all.
    pub total: f64,
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
}

impl Distribution {
    pub(super) fn new() -> Self {
        // 2 is valid for any width of counter; a histogram of nothing stands in if that should ever change.
        let histogram = Histogram::new(DIGITS).or_else(|_| Histogram::new(1));
        let Ok(histogram) = histogram else { unreachable!("the number of digits is a constant from 0 to 5") };
        Self { histogram, sum: 0, min: u64::MAX, max: 0 }
    }

    pub(super) fn record(&mut self, ns: u64) {
        self.record_n(ns, 1);
    }

    fn record_n(&mut self, ns: u64, times: u64) {
        // Resizes itself, which fails only for what 64 bits cannot count.
        if self.histogram.record_n(ns, times).is_ok() {
            self.sum = self.sum.saturating_add(u128::from(ns) * u128::from(times));
            self.min = self.min.min(ns);
            self.max = self.max.max(ns);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.histogram.len()
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if self.histogram.add(&other.histogram).is_ok() {
            self.sum = self.sum.saturating_add(other.sum);
            self.min = self.min.min(other.min);
            self.max = self.max.max(other.max);
        }
    }

    /// What was recorded since it was like `before`; `None` if it never was. Minimum and maximum are those of buckets.
    pub(super) fn since(&self, before: &Self) -> Option<Self> {
        let mut histogram = self.histogram.clone();
        histogram.subtract(&before.histogram).ok()?;
        let sum = self.sum.checked_sub(before.sum)?;
        let (min, max) = (histogram.min(), histogram.max().min(self.max));
        Some(Self { histogram, sum, min, max })
    }

    /// The duration that a share of `quantile`, 0–1, does not exceed, in nanoseconds. 0 while there is none.
    fn quantile(&self, quantile: f64) -> u64 {
        if self.count() == 0 {
            return 0;
        }
        let bucket = self.histogram.value_at_quantile(quantile);
        self.histogram.median_equivalent(bucket).clamp(self.min, self.max)
    }

    /// `None` while nothing was recorded.
    pub(super) fn latency(&self) -> Option<Latency> {
        let count = self.count();
        let ms = |ns: u64| ns as f64 / NS_PER_MS;
        let at = |quantile| ms(self.quantile(quantile));
        let total = self.sum as f64 / NS_PER_MS;
        (count > 0).then(|| Latency {
            total,
            min: ms(self.min),
            max: ms(self.max),
            mean: total / count as f64,
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
        })
    }

    /// Durations in nanoseconds and how many there are of each, in turn: what [`Self::parse`] makes the same of.
    pub(super) fn buckets(&self) -> Vec<u64> {
        let histogram = &self.histogram;
        histogram
            .iter_recorded()
            .flat_map(|step| [histogram.lowest_equivalent(step.value_iterated_to()), step.count_at_value()])
            .collect()
    }

    /// A distribution that somebody has written down.
    pub(super) fn parse(latency: &Latency, count: u64, buckets: &[u64]) -> Result<Self> {
        let wrong = |what: String| Err(Error::InvalidArgument(format!("The snapshot cannot be used: {what}")));
        let [total, min, max] = [latency.total, latency.min, latency.max];
        for (name, ms, most) in [("total", total, f64::MAX), ("min", min, MAX_MS), ("max", max, MAX_MS)] {
            if !(0.0..=most).contains(&ms) {
                return wrong(format!("{name} is {ms}, not a number of milliseconds from 0 to {most}"));
            }
        }
        let mut parsed = Self::new();
        for pair in buckets.chunks(2) {
            match *pair {
                // An empty one would make its duration the least or the longest.
                [ns, times] if ns as f64 <= MAX_MS * NS_PER_MS && (1..=count).contains(&times) => {
                    parsed.record_n(ns, times)
                }
                _ => return wrong(format!("its histogram has the bucket {pair:?}")),
            }
        }
        if parsed.count() != count {
            return wrong(format!("its histogram has {} durations, its count is {count}", parsed.count()));
        }
        if count > 0 {
            // Values lie within 1 % of where the histogram has them.
            let about = |ms: f64, bucket: u64| (ms * NS_PER_MS - bucket as f64).abs() <= bucket as f64 / 100.0 + 1.0;
            if min > max || !about(min, parsed.min) || !about(max, parsed.max) {
                return wrong(format!("min is {min} and max is {max}, which its histogram does not have"));
            }
            let (least, most) = (min * count as f64, max * count as f64);
            if total < least * (1.0 - 1e-6) || total > most * (1.0 + 1e-6) {
                return wrong(format!("total is {total}, which {count} from {min} to {max} do not make"));
            }
            let ns = |ms: f64| (ms * NS_PER_MS).round();
            (parsed.sum, parsed.min, parsed.max) = (ns(total) as u128, ns(min) as u64, ns(max) as u64);
        }
        Ok(parsed)
    }
}

/// Milliseconds as nanoseconds, if they are a duration at all.
pub fn nanoseconds(what: &str, ms: f64) -> Result<u64> {
    if (0.0..=MAX_MS).contains(&ms) {
        return Ok((ms * NS_PER_MS).round() as u64);
    }
    Err(Error::InvalidArgument(format!("{what} is {ms}: pass milliseconds, a number from 0 to {MAX_MS:e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A little generator of numbers from 0 to 1, so that tests do the same every time.
    fn uniform(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        }
    }

    fn normal(next: &mut impl FnMut() -> f64) -> f64 {
        (-2.0 * next().ln()).sqrt() * (std::f64::consts::TAU * next()).cos()
    }

    #[test]
    fn percentiles_are_within_one_percent_of_exact_ones() {
        let mut next = uniform(7);
        let mut samples: Vec<(&str, Vec<u64>)> = Vec::new();
        let mut fill = |name, draw: fn(&mut dyn FnMut() -> f64) -> f64| {
            samples.push((name, (0..1_000_000).map(|_| draw(&mut next).round() as u64).collect()));
        };
        fill("uniform", |next| 1e3 + 1e8 * next());
        fill("lognormal", |mut next| (14.0 + 1.5 * normal(&mut next)).exp());
        fill("bimodal", |mut next| {
            let centre = if next() < 0.7 { 2e5 } else { 4e8 };
            centre * (1.0 + 0.05 * normal(&mut next)).max(0.1)
        });
        for (name, mut values) in samples {
            let mut distribution = Distribution::new();
            values.iter().for_each(|ns| distribution.record(*ns));
            values.sort_unstable();
            let latency = distribution.latency().unwrap();
            let found = [latency.p50, latency.p95, latency.p99, latency.p999];
            for (quantile, found) in [0.5, 0.95, 0.99, 0.999].into_iter().zip(found) {
                let exact = values[(quantile * values.len() as f64).ceil() as usize - 1] as f64 / 1e6;
                assert!((found / exact - 1.0).abs() < 0.005, "{name} at {quantile}: {found} instead of {exact}");
            }
            assert_eq!(latency.min, values[0] as f64 / 1e6);
            assert_eq!(latency.max, values[values.len() - 1] as f64 / 1e6);
            let sum: f64 = values.iter().map(|ns| *ns as f64 / 1e6).sum();
            assert!((latency.total / sum - 1.0).abs() < 1e-9 && (latency.mean - sum / 1e6).abs() < 1e-6 * sum);
        }
    }

    #[test]
    fn survives_being_written_down() {
        let mut next = uniform(3);
        let mut one = Distribution::new();
        (0..10_000).for_each(|_| one.record((1e9 * next().powi(4)) as u64));
        let latency = one.latency().unwrap();
        let copy = Distribution::parse(&latency, one.count(), &one.buckets()).unwrap();
        assert_eq!((copy.latency(), copy.buckets()), (one.latency(), one.buckets()));

        let mut two = Distribution::new();
        two.record(5);
        two.record(u64::MAX / 4);
        let mut merged = copy;
        merged.merge(&two);
        assert_eq!((merged.count(), merged.min), (10_002, one.min.min(5)));
        let since = merged.since(&one).unwrap();
        assert_eq!((since.count(), since.buckets()), (2, two.buckets()));
        assert!(one.since(&merged).is_none());
        assert!(Distribution::new().latency().is_none());
    }

    #[test]
    fn refuses_what_does_not_add_up() {
        let latency = Latency { total: 2.0, min: 2.0, max: 2.0, ..Latency::default() };
        assert!(Distribution::parse(&latency, 1, &[2_000_000, 1]).is_ok());
        for other in [
            Latency { min: 3.0, ..latency },
            Latency { min: 1.0, ..latency },
            Latency { max: 4.0, ..latency },
            Latency { total: 4.0, ..latency },
        ] {
            assert!(Distribution::parse(&other, 1, &[2_000_000, 1]).is_err(), "{other:?}");
        }
        let cases: [(f64, u64, &[u64]); 6] = [
            (2.0, 2, &[2_000_000, 1]),
            (2.0, 1, &[2_000_000]),
            (2.0, 1, &[u64::MAX, 1]),
            (2.0, 1, &[2_000_000, u64::MAX]),
            (-2.0, 1, &[2_000_000, 1]),
            // Nothing took no time.
            (2.0, 1, &[0, 0, 2_000_000, 1]),
        ];
        for (total, count, buckets) in cases {
            let error = Distribution::parse(&Latency { total, ..latency }, count, buckets).err().unwrap();
            assert_eq!(error.code(), "INVALID_ARGUMENT", "{total} {count} {buckets:?}");
        }
        for ms in [-1.0, f64::NAN, f64::INFINITY, 1e13] {
            assert!(nanoseconds("The duration", ms).is_err());
        }
        assert_eq!(nanoseconds("The duration", 0.0015), Ok(1500));
    }
}
