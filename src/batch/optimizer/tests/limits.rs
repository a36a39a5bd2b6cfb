//! What memory and CPU do to sizes.

use super::*;

#[test]
fn memory_above_its_target_shrinks_batches_and_lets_them_grow_slowly() {
    let mut optimizer = optimizer(32);
    let mut sizes = Vec::new();
    for _ in 0..80 {
        let size = optimizer.current();
        sizes.push(size);
        let memory = (50.0 + size as f64 / 2.0).min(100.0);
        optimizer.record(Record { memory: Some(memory), ..batch(size, large_best(size as f64)) }).unwrap();
    }
    // 75 % is reached at 50.
    let late = &sizes[40..];
    assert!(late.iter().all(|size| *size <= 58), "{sizes:?}");
    assert!(late.iter().filter(|size| **size >= 30).count() > 30, "{sizes:?}");
    let high = optimizer.resources.ceiling;
    for _ in 0..200 {
        let size = optimizer.current();
        optimizer.record(Record { memory: Some(30.0), ..batch(size, large_best(size as f64)) }).unwrap();
    }
    assert!(
        high < 128 && optimizer.resources.ceiling == 128 && optimizer.incumbent > 100,
        "{high} {}",
        optimizer.incumbent
    );
}

#[test]
fn memory_of_somebody_else_does_not_shrink_batches_for_ever() {
    let mut optimizer = optimizer(32);
    for _ in 0..60 {
        let size = optimizer.current();
        optimizer.record(Record { memory: Some(85.0), sampled: true, ..batch(size, large_best(size as f64)) }).unwrap();
    }
    assert!(optimizer.incumbent >= 100, "{}", optimizer.incumbent);
    // In danger it does not matter whose it is.
    for _ in 0..60 {
        let size = optimizer.current();
        optimizer.record(Record { memory: Some(98.0), sampled: true, ..batch(size, large_best(size as f64)) }).unwrap();
    }
    assert_eq!(optimizer.current(), 1);
    assert!(optimizer.recommendation().reason.contains("memory usage"));
}

#[test]
fn cpu_above_its_target_is_avoided_where_another_size_needs_less() {
    let mut optimizer = optimizer(32);
    for _ in 0..60 {
        let size = optimizer.current();
        let cpu = if size > 40 { 100.0 } else { 60.0 };
        optimizer.record(Record { cpu: Some(cpu), ..batch(size, large_best(size as f64)) }).unwrap();
    }
    assert!((25..=40).contains(&optimizer.incumbent), "{}", optimizer.incumbent);
    let mut everywhere = super::optimizer(32);
    for _ in 0..60 {
        let size = everywhere.current();
        everywhere.record(Record { cpu: Some(100.0), ..batch(size, large_best(size as f64)) }).unwrap();
    }
    assert!(everywhere.incumbent > 100, "{}", everywhere.incumbent);
}
