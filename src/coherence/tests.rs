use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn one(rows: &[Vec<f64>], options: &CoherenceOptions) -> Metrics {
    let values: Vec<f64> = rows.concat();
    metrics(&values, &[shape_of(rows)], options).unwrap()[0]
}

fn shape_of(rows: &[Vec<f64>]) -> Shape {
    Shape { rows: rows.len(), columns: rows[0].len() }
}

const SCALED: CoherenceOptions =
    CoherenceOptions { shrinkage: 0.4, target: ShrinkageTarget::Scaled, weights: [0.2; 5] };

#[test]
fn golden_values_hold() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/coherence.json");
    let golden: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let cases = golden.as_array().unwrap();
    assert!(cases.len() >= 6);
    let number = |value: &Value| value.as_f64().unwrap();
    let (mut values, mut shapes) = (Vec::new(), Vec::new());
    for case in cases {
        let rows: Vec<Vec<f64>> = case["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row.as_array().unwrap().iter().map(number).collect())
            .collect();
        shapes.push(shape_of(&rows));
        values.extend(rows.concat());
    }
    // All at once, though their shapes differ.
    let all = metrics(&values, &shapes, &CoherenceOptions::default()).unwrap();
    for (case, found) in cases.iter().zip(all) {
        for (name, is) in ["EVB", "CR", "TS", "ES", "PD", "CCI"].into_iter().zip(found.numbers()) {
            assert!((is - number(&case[name])).abs() < 1e-12, "{}: {name} is {is}", case["name"]);
        }
    }
}

#[test]
fn a_constant_trajectory_has_no_variance_with_the_scaled_target() {
    let rows = vec![vec![0.8, 0.5, 0.2]; 3];
    assert_eq!(one(&rows, &SCALED).evb, 0.0);
    assert!((one(&rows, &SCALED).cci - 1.0).abs() < 1e-12);
    assert_eq!(one(&rows, &CoherenceOptions::default()).evb, 0.4);
    // tr((1 − λ) S + λ (tr S / m) I) = tr S.
    let rows = vec![vec![0.2, 0.9], vec![0.6, 0.1]];
    assert!((one(&rows, &SCALED).evb - (0.08 + 0.32) / 2.0).abs() < 1e-12);
}

#[test]
fn a_shape_without_values_is_refused() {
    for (rows, columns) in [(0, 0), (0, 3), (2, 0), (usize::MAX, 2)] {
        let error = metrics(&[], &[Shape { rows, columns }], &CoherenceOptions::default()).unwrap_err();
        assert_eq!(error.code(), "INVALID_ARGUMENT", "{rows} × {columns}");
    }
}

#[test]
fn what_is_no_score_is_named() {
    for (value, shown) in [(1.5, "1.5"), (-0.1, "-0.1"), (f64::NAN, "NaN"), (f64::INFINITY, "Infinity")] {
        let mut values = vec![0.5; 12 * 6];
        values[9 * 6 + 4] = value;
        let error = metrics(&values, &[Shape { rows: 2, columns: 3 }; 12], &SCALED).unwrap_err();
        let expected = format!("Trajectory 9, row 1, column 1 is {shown}, not a number from 0 to 1");
        assert_eq!(error, Error::InvalidArgument(expected));
    }
    let error = metrics(&[0.5; 5], &[Shape { rows: 2, columns: 3 }], &SCALED).unwrap_err();
    assert!(error.to_string().contains("5 values"));
    assert_eq!(metrics(&[], &[], &SCALED), Ok(Vec::new()));
}

fn trajectory() -> impl Strategy<Value = Vec<Vec<f64>>> {
    (1usize..7, 1usize..8).prop_flat_map(|(rows, columns)| {
        let value = prop_oneof![8 => 0.0..=1.0f64, 1 => Just(0.0), 1 => Just(1.0)];
        prop::collection::vec(prop::collection::vec(value, columns), rows)
    })
}

/// Five weights that sum to 1.
fn weights() -> impl Strategy<Value = [f64; 5]> {
    prop::array::uniform5(0.01..1.0f64).prop_map(|weights| {
        let sum: f64 = weights.iter().sum();
        weights.map(|weight| weight / sum)
    })
}

fn options() -> impl Strategy<Value = CoherenceOptions> {
    let target = prop_oneof![Just(ShrinkageTarget::Identity), Just(ShrinkageTarget::Scaled)];
    (0.0..=1.0f64, target, weights()).prop_map(|(shrinkage, target, weights)| CoherenceOptions {
        shrinkage,
        target,
        weights,
    })
}

/// The formulas as they are written, one trajectory at a time.
fn plain(rows: &[Vec<f64>], options: &CoherenceOptions) -> Metrics {
    let (count, columns) = (rows.len() as f64, rows[0].len());
    let m = columns as f64;
    let steps = (rows.len() - 1).max(1) as f64;
    let column = |j: usize| rows.iter().map(move |row| row[j]);
    let spread = |j: usize| {
        let mean = column(j).sum::<f64>() / count;
        column(j).map(|value| (value - mean).powi(2)).sum::<f64>()
    };
    let trace = if rows.len() > 1 { (0..columns).map(spread).sum::<f64>() / steps } else { 0.0 };
    let target = if options.target == ShrinkageTarget::Identity { m } else { trace };
    let evb = (((1.0 - options.shrinkage) * trace + options.shrinkage * target) / m).min(1.0);
    let order = |row: &[f64]| {
        let mut order: Vec<usize> = (0..columns).collect();
        order.sort_by(|a, b| row[*a].total_cmp(&row[*b]));
        order
    };
    let shares = |row: &[f64]| {
        let sum = row.iter().sum::<f64>() + 1e-10;
        row.iter().map(|value| value / sum).collect::<Vec<f64>>()
    };
    let (mut changed, mut distance, mut divergence) = (0.0, 0.0, 0.0);
    for pair in rows.windows(2) {
        let [before, after] = pair else { unreachable!() };
        changed += f64::from(u8::from(order(before) != order(after)));
        let squares: f64 = before.iter().zip(after).map(|(a, b)| (a - b).powi(2)).sum();
        distance += (squares.sqrt() / m.sqrt()).min(1.0);
        let both = shares(before).into_iter().zip(shares(after));
        divergence += both.map(|(p, q)| p * ((p + 1e-10) / (q + 1e-10)).ln()).sum::<f64>().abs();
    }
    let (cr, ts, pd) = (changed / steps, 1.0 - distance / steps, (divergence / steps / 2.0).min(1.0));
    let es = 1.0 - (spread(0) / count / 0.25).min(1.0);
    let [a, b, c, d, e] = options.weights;
    let cci = a * (1.0 - evb) + b * (1.0 - cr) + c * ts + d * es + e * (1.0 - pd);
    Metrics { evb, cr, ts, es, pd, cci }
}

proptest! {
    #[test]
    fn it_is_what_the_formulas_say(all in prop::collection::vec(trajectory(), 1..30), options in options()) {
        let shapes: Vec<Shape> = all.iter().map(|rows| shape_of(rows)).collect();
        let values: Vec<f64> = all.iter().flat_map(|rows| rows.concat()).collect();
        let found = metrics(&values, &shapes, &options).unwrap();
        for (rows, found) in all.iter().zip(&found) {
            for (is, right) in found.numbers().into_iter().zip(plain(rows, &options).numbers()) {
                prop_assert!((is - right).abs() < 1e-9, "{found:?}");
                prop_assert!((-1e-12..=1.0 + 1e-12).contains(&is), "{found:?}");
            }
            if rows.len() == 1 {
                prop_assert_eq!((found.cr, found.ts, found.es, found.pd), (0.0, 1.0, 1.0, 0.0));
            }
        }
    }

    #[test]
    fn each_is_the_same_wherever_it_stands(
        mut all in prop::collection::vec(trajectory(), 1..40),
        order in prop::collection::vec(any::<prop::sample::Index>(), 40),
        options in options(),
    ) {
        let of = |all: &[Vec<Vec<f64>>]| {
            let shapes: Vec<Shape> = all.iter().map(|rows| shape_of(rows)).collect();
            metrics(&all.iter().flat_map(|rows| rows.concat()).collect::<Vec<f64>>(), &shapes, &options).unwrap()
        };
        let mut before = of(&all);
        for (at, other) in order.iter().take(all.len()).enumerate() {
            let other = other.index(all.len());
            all.swap(at, other);
            before.swap(at, other);
        }
        prop_assert_eq!(of(&all), before);
    }

    #[test]
    fn more_noise_is_less_coherence(
        base in prop::collection::vec(0.3..=0.7f64, 5),
        noise in prop::collection::vec(prop::collection::vec(-1.0..=1.0f64, 5), 2..6),
        small in 0.0..=0.15f64,
        more in 0.0..=0.15f64,
    ) {
        // The same noise, once more of it.
        let with = |scale: f64| -> Vec<Vec<f64>> {
            noise.iter().map(|row| row.iter().zip(&base).map(|(noise, base)| base + scale * noise).collect()).collect()
        };
        for options in [CoherenceOptions::default(), SCALED] {
            let (calm, loud) = (one(&with(small), &options), one(&with(small + more), &options));
            prop_assert!(loud.evb >= calm.evb - 1e-12);
            prop_assert!(loud.ts <= calm.ts + 1e-12);
            prop_assert!(loud.es <= calm.es + 1e-12);
            // What has no noise at all is as coherent as can be.
            let still = one(&with(0.0), &options);
            prop_assert!(loud.cci <= still.cci + 1e-12 && loud.cr >= still.cr && loud.pd >= still.pd - 1e-12);
        }
    }
}
