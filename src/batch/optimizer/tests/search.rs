//! How fast the best size is found, and whether it stays.

use super::super::Phase;
use super::*;

#[test]
fn settles_within_thirty_batches_and_holds() {
    for (name, shape) in SHAPES {
        let (worst, median) = over_seeds(|seed| {
            let (mut machine, mut optimizer) = (Synthetic::new(shape, 0.03, seed), optimizer(32));
            drive(&mut optimizer, &mut machine, 30);
            assert!(machine.efficiency(optimizer.incumbent) > 0.85, "{name}");
            drive(&mut optimizer, &mut machine, 200)
        });
        assert!(median >= 0.97 && worst >= 0.93, "{name}: {worst} {median}");
    }
}

#[test]
fn follows_a_change_of_load_within_twenty_batches() {
    for (_, before) in SHAPES {
        for (name, after) in SHAPES {
            let (_, median) = over_seeds(|seed| {
                let (mut machine, mut optimizer) = (Synthetic::new(before, 0.03, seed), optimizer(32));
                drive(&mut optimizer, &mut machine, 100);
                machine.shape = after;
                drive(&mut optimizer, &mut machine, 20);
                machine.efficiency(optimizer.incumbent)
            });
            assert!(median >= 0.96, "{name}: {median}");
        }
    }
}

#[test]
fn does_not_oscillate_nor_chase_a_load_that_slows_all_sizes_alike() {
    for (name, shape) in SHAPES {
        let (mut machine, mut optimizer) = (Synthetic::new(shape, 0.05, 3), optimizer(32));
        drive(&mut optimizer, &mut machine, 50);
        let (mut switches, mut base) = (0, optimizer.incumbent);
        for round in 0..400 {
            let size = optimizer.current();
            // The whole machine breathes: 30 % up and down in 200 batches.
            let load = 1.0 + 0.3 * (round as f64 / 200.0 * std::f64::consts::TAU).sin();
            optimizer.record(batch(size, machine.run(size) * load)).unwrap();
            if matches!(optimizer.phase, Phase::Hold(_)) {
                switches += usize::from(optimizer.incumbent != base);
                base = optimizer.incumbent;
            }
        }
        assert!(switches <= 6, "{name}: {switches}");
        assert!(machine.efficiency(base) > 0.93, "{name}: {base}");
    }
}

#[test]
fn keeps_the_size_until_it_has_enough_samples() {
    let mut optimizer = optimizer(32);
    for seen in 0..10 {
        assert_eq!(optimizer.current(), 32);
        let recommendation = optimizer.recommendation();
        assert_eq!((recommendation.size, recommendation.confidence <= 0.1), (32, true));
        assert!(recommendation.reason.starts_with("Insufficient performance data"), "{}", recommendation.reason);
        assert_eq!(optimizer.samples(), seen);
        optimizer.record(batch(32, 100.0)).unwrap();
    }
    assert_ne!(optimizer.current(), 32);
    assert!(optimizer.recommendation().confidence >= 0.1);
    optimizer.reset();
    assert_eq!((optimizer.current(), optimizer.samples(), optimizer.history().len()), (32, 0, 0));
}

#[test]
fn without_aggressiveness_it_only_learns_from_what_others_try() {
    let options = OptimizerOptions { aggressiveness: 0.0, ..OptimizerOptions::default() };
    let mut optimizer = BatchOptimizer::new(32, options).unwrap();
    for _ in 0..100 {
        optimizer.record(batch(32, large_best(32.0))).unwrap();
        assert_eq!(optimizer.current(), 32);
    }
    for _ in 0..5 {
        optimizer.record(batch(64, large_best(64.0))).unwrap();
    }
    assert_eq!(optimizer.current(), 64);
}
