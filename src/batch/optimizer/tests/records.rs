//! What records and options are taken for.

use proptest::prelude::*;

use super::super::Analytics;
use super::*;

#[test]
fn throughput_is_in_tokens_where_they_are_known() {
    // Texts of very different length: in items per second it is all noise.
    let mut optimizer = optimizer(32);
    for round in 0..60 {
        let size = optimizer.current();
        let tokens = size as f64 * if round % 2 == 0 { 10.0 } else { 200.0 };
        let time = 60.0 + 0.02 * tokens + if size > 24 { tokens * 0.5 } else { 0.0 };
        optimizer.record(Record { tokens: Some(tokens), ..batch(size, time) }).unwrap();
    }
    assert!((16..=24).contains(&optimizer.incumbent), "{}", optimizer.incumbent);
    assert!(optimizer.recommendation().throughput > 0.0);
}

#[test]
fn bounds_in_the_wrong_order_are_swapped_and_others_refused() {
    let options = OptimizerOptions { min_size: 10, max_size: 5, ..OptimizerOptions::default() };
    let optimizer = BatchOptimizer::new(32, options).unwrap();
    assert_eq!((optimizer.options().min_size, optimizer.options().max_size, optimizer.current()), (5, 10, 10));
    for options in [
        OptimizerOptions { min_size: 0, ..OptimizerOptions::default() },
        OptimizerOptions { target_cpu: 101.0, ..OptimizerOptions::default() },
        OptimizerOptions { target_memory: f64::NAN, ..OptimizerOptions::default() },
        OptimizerOptions { aggressiveness: -0.1, ..OptimizerOptions::default() },
    ] {
        assert_eq!(BatchOptimizer::new(32, options).unwrap_err().code(), "INVALID_CONFIG");
    }
}

#[test]
fn scores_are_what_they_say() {
    let mut optimizer = optimizer(10);
    for _ in 0..10 {
        let resources = Record { cpu: Some(85.0), memory: Some(50.0), ..batch(10, 100.0) };
        optimizer.record(resources).unwrap();
    }
    let analytics = optimizer.analytics();
    assert!((analytics.average_throughput - 100.0).abs() < 1e-9);
    assert_eq!((analytics.average_size, analytics.average_time_ms, analytics.success_rate), (10.0, 100.0, 1.0));
    assert!((analytics.performance_score - 1.0).abs() < 1e-9);
    assert!((analytics.stability_score - 1.0).abs() < 1e-9);
    assert!((analytics.resource_score - 0.75).abs() < 1e-9);
    assert!((analytics.score - 0.925).abs() < 1e-9);
    assert!((analytics.utilization - 0.675).abs() < 1e-9);
    assert_eq!(analytics.trends, [0.0; 3]);
    assert_eq!(super::optimizer(3).analytics(), Analytics::default());
}

fn any_record() -> impl Strategy<Value = Record> {
    let number = || {
        prop_oneof![
            8 => 0.0f64..1e4,
            1 => prop::sample::select(vec![0.0, -1.0, f64::NAN, f64::INFINITY, -0.0, 1e300, 1e-300]),
        ]
    };
    let optional = move || prop::option::weighted(0.3, number());
    (0usize..300, number(), number(), optional(), optional(), optional(), any::<bool>(), prop::bool::weighted(0.9))
        .prop_map(|(size, time_ms, items, tokens, cpu, memory, sampled, success)| Record {
            size,
            time_ms,
            items,
            tokens,
            cpu,
            memory,
            sampled,
            success,
            at_ms: 0.0,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn stays_within_bounds_and_finite_whatever_is_recorded(
        records in prop::collection::vec((any_record(), any::<bool>()), 0..120),
        bounds in (1usize..200, 1usize..200),
        initial in 0usize..300,
        min_samples in 0usize..12,
        history in 0usize..30,
        aggressiveness in 0.0f64..=1.0,
    ) {
        let options = OptimizerOptions {
            min_size: bounds.0,
            max_size: bounds.1,
            min_samples,
            history,
            aggressiveness,
            ..OptimizerOptions::default()
        };
        let mut optimizer = BatchOptimizer::new(initial, options).unwrap();
        let (min, max) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
        for (record, obedient) in records {
            let record = if obedient { Record { size: optimizer.current(), ..record } } else { record };
            let before = format!("{optimizer:?}");
            if let Err(error) = optimizer.record(record) {
                prop_assert_eq!(error.code(), "INVALID_ARGUMENT");
                prop_assert_eq!(before, format!("{optimizer:?}"));
            }
            let recommendation = optimizer.recommendation();
            for size in [optimizer.current(), recommendation.size] {
                prop_assert!((min..=max).contains(&size), "{}", size);
            }
            prop_assert!((0.0..=1.0).contains(&recommendation.confidence));
            prop_assert!((0.0..=f64::MAX).contains(&recommendation.expected_improvement));
            prop_assert!(recommendation.throughput.is_finite());
            let analytics = optimizer.analytics();
            for score in [
                analytics.score,
                analytics.performance_score,
                analytics.resource_score,
                analytics.stability_score,
                analytics.success_rate,
                analytics.utilization,
            ] {
                prop_assert!((0.0..=1.0).contains(&score), "{:?}", analytics);
            }
            prop_assert!(analytics.trends.iter().all(|trend| trend.is_finite()));
            prop_assert!(optimizer.history().len() <= history);
            if optimizer.samples().is_multiple_of(7) {
                prop_assert!((min..=max).contains(&optimizer.optimize()));
            }
        }
    }
}
