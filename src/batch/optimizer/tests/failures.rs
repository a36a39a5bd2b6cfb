//! What failures leave behind.

use super::*;

#[test]
fn a_size_that_fails_is_left() {
    let mut optimizer = optimizer(32);
    let mut late = 0;
    for round in 0..100 {
        let size = optimizer.current();
        let fits = size <= 20;
        let time = if fits { large_best(size as f64) } else { 10.0 };
        let items = if fits { size as f64 } else { 0.0 };
        optimizer.record(Record { success: fits, items, ..batch(size, time) }).unwrap();
        late += usize::from(round >= 40 && !fits);
    }
    assert!((14..=20).contains(&optimizer.incumbent), "{}", optimizer.incumbent);
    assert!(late <= 6, "{late}");
    assert!(optimizer.analytics().success_rate < 1.0);
}

/// What share of the best size's throughput the next 50 batches have.
fn share(optimizer: &mut BatchOptimizer, machine: &mut Synthetic) -> f64 {
    let best = (1..=128).map(|n| n as f64 / (machine.shape)(n as f64)).fold(0.0, f64::max);
    let (mut items, mut time) = (0.0, 0.0);
    for _ in 0..50 {
        let size = optimizer.current();
        let took = machine.run(size);
        optimizer.record(batch(size, took)).unwrap();
        items += size as f64;
        time += took;
    }
    items / time / best
}

fn fail(optimizer: &mut BatchOptimizer, batches: usize) {
    for _ in 0..batches {
        let size = optimizer.current();
        optimizer.record(Record { success: false, items: 0.0, ..batch(size, 5.0) }).unwrap();
    }
}

#[test]
fn any_stretch_of_failures_is_forgotten_within_a_hundred_batches() {
    for (name, shape) in SHAPES.into_iter().chain([("nearly linear", nearly_linear as Shape)]) {
        for good in [0, 30, 100] {
            for failed in [1, 3, 10, 13, 15, 50, 200] {
                let worst = (1..=60)
                    .map(|seed| {
                        let (mut machine, mut optimizer) = (Synthetic::new(shape, 0.03, seed), optimizer(32));
                        drive(&mut optimizer, &mut machine, good);
                        fail(&mut optimizer, failed);
                        drive(&mut optimizer, &mut machine, 100);
                        share(&mut optimizer, &mut machine)
                    })
                    .fold(1.0, f64::min);
                assert!(worst >= 0.85, "{name}, {good} good batches, {failed} failed ones: {worst}");
            }
        }
    }
}

fn nearly_linear(n: f64) -> f64 {
    5.0 + 0.1 * n
}

/// Trouble: whether the `nth` batch, of this size, succeeds.
type Trouble = (&'static str, fn(&mut Synthetic, usize, usize) -> bool);

const TROUBLES: [Trouble; 12] = [
    ("one success in 4", |_, nth, _| nth % 4 == 3),
    ("one success in 5", |_, nth, _| nth % 5 == 4),
    ("one success in 7", |_, nth, _| nth % 7 == 6),
    ("one success in 11", |_, nth, _| nth % 11 == 10),
    ("one success in 2", |_, nth, _| nth % 2 == 1),
    ("two successes in 5", |_, nth, _| nth % 5 > 2),
    ("bursts", |_, nth, _| nth * nth % 29 > 20),
    ("a tenth fails", |machine, _, _| machine.uniform() > 0.1),
    ("half of them fail", |machine, _, _| machine.uniform() > 0.5),
    ("nine in ten fail", |machine, _, _| machine.uniform() > 0.9),
    ("what is large fails", |_, _, size| size <= 5),
    ("what is large fails, and half of the rest", |machine, _, size| size <= 20 && machine.uniform() > 0.5),
];

#[test]
fn failures_with_successes_between_are_forgotten_as_soon() {
    for (shape_name, shape) in SHAPES.into_iter().chain([("nearly linear", nearly_linear as Shape)]) {
        for (name, trouble) in TROUBLES {
            for seed in 1..=60 {
                let good = [0, 5, 30, 100][seed as usize % 4];
                let length = [10, 30, 100, 300, 1000][seed as usize % 5];
                let (mut machine, mut optimizer) = (Synthetic::new(shape, 0.03, seed), optimizer(32));
                drive(&mut optimizer, &mut machine, good);
                for nth in 0..length {
                    let size = optimizer.current();
                    let success = trouble(&mut machine, nth, size);
                    let items = if success { size as f64 } else { 0.0 };
                    let time = machine.run(size);
                    optimizer.record(Record { success, items, ..batch(size, time) }).unwrap();
                }
                drive(&mut optimizer, &mut machine, 100);
                let share = share(&mut optimizer, &mut machine);
                assert!(
                    share >= 0.85,
                    "{shape_name}, {good} good batches, {length} where {name}, seed {seed}: {share}"
                );
            }
        }
    }
}

#[test]
fn a_size_that_is_too_large_is_found_among_other_failures() {
    for seed in 1..=60 {
        let (mut machine, mut optimizer) = (Synthetic::new(large_best, 0.03, seed), optimizer(32));
        let mut late = 0;
        for nth in 0..600 {
            let size = optimizer.current();
            let success = size <= 20 && (nth > 200 || machine.uniform() > 0.5);
            let items = if success { size as f64 } else { 0.0 };
            let time = machine.run(size);
            optimizer.record(Record { success, items, ..batch(size, time) }).unwrap();
            late += usize::from(nth >= 300 && !success);
        }
        assert!((17..=20).contains(&optimizer.settled()), "{}", optimizer.settled());
        // Tried again now and then.
        assert!(late <= 12, "{late} of 300 failed");
    }
}

#[test]
fn without_searches_failures_leave_the_size_that_was_in_use() {
    for good in [0, 30, 100] {
        for failed in 1..30 {
            let options = OptimizerOptions { searches: false, ..OptimizerOptions::default() };
            let mut optimizer = BatchOptimizer::new(32, options).unwrap();
            let mut machine = Synthetic::new(cliff, 0.03, failed as u64);
            drive(&mut optimizer, &mut machine, good);
            let base = optimizer.incumbent;
            fail(&mut optimizer, failed);
            drive(&mut optimizer, &mut machine, 3);
            assert_eq!(optimizer.incumbent, base, "{good} good batches, {failed} failed ones");
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]

    /// Runs of successes and of failures of any lengths, again and again, with sizes above some `limit` failing, too.
    #[test]
    fn no_pattern_of_failures_misleads_for_long(
        shape in 0usize..5,
        seed in 1u64..1_000_000,
        good in 0usize..120,
        runs in proptest::collection::vec((0usize..14, 1usize..14), 1..6),
        length in 1usize..400,
        limit in 1usize..160,
    ) {
        let shapes = SHAPES.map(|(_, shape)| shape);
        let shape = shapes.get(shape).copied().unwrap_or(nearly_linear);
        let pattern: Vec<bool> = runs
            .iter()
            .flat_map(|&(good, bad)| std::iter::repeat_n(true, good).chain(std::iter::repeat_n(false, bad)))
            .collect();
        let (mut machine, mut optimizer) = (Synthetic::new(shape, 0.03, seed), optimizer(32));
        drive(&mut optimizer, &mut machine, good);
        for nth in 0..length {
            let size = optimizer.current();
            let success = pattern[nth % pattern.len()] && size <= limit;
            let items = if success { size as f64 } else { 0.0 };
            let time = machine.run(size);
            optimizer.record(Record { success, items, ..batch(size, time) }).unwrap();
        }
        drive(&mut optimizer, &mut machine, 100);
        let efficiency = machine.efficiency(optimizer.settled());
        proptest::prop_assert!(efficiency >= 0.85, "{}", efficiency);
    }
}
