use super::*;

/// Numbers that look like any, from -1 to 1.
fn noise(count: usize, dimensions: usize, mut state: u64) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count * dimensions).map(|_| next()).collect()
}

fn matrix(data: &[f32], dimensions: usize) -> Matrix<'_> {
    Matrix::new("the matrix", data, dimensions).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    exact::Query::new(a).cosine(b).unwrap_or(0.0)
}

#[test]
fn the_best_rows_are_those_of_a_plain_search() {
    let (data, queries) = (noise(300, 37, 1), noise(70, 37, 2));
    let (data, queries) = (matrix(&data, 37), matrix(&queries, 37));
    for (k, threshold) in [(1, -1.0), (10, -1.0), (10, 0.3), (300, -1.0), (5, 0.99)] {
        let ranked = top_k(&queries, &data, k, threshold, &Cancel::default()).unwrap();
        assert_eq!(ranked.places, k);
        for query in 0..queries.count() {
            let scores = (0..300).map(|at| (at as u32, cosine(queries.row(query), data.row(at))));
            let mut scores: Vec<(u32, f32)> = scores.filter(|(_, score)| *score >= threshold).collect();
            scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let found: Vec<(u32, f32)> = ranked.found[query * k..][..k].iter().flatten().copied().collect();
            assert_eq!(found, scores[..k.min(scores.len())], "{k} {threshold}");
        }
    }
}

#[test]
fn equal_and_extreme_rows_are_no_exception() {
    let data = [1e-30f32, 0.0, 3e38, 3e38, 1.0, 1.0, 0.0, 0.0, -2.0, -2.0];
    let data = matrix(&data, 2);
    let ranked = top_k(&matrix(&[5.0, 5.0], 2), &data, 9, -1.0, &Cancel::default()).unwrap();
    let order: Vec<(u32, f32)> = ranked.found.into_iter().flatten().collect();
    assert_eq!(order[..2], [(1, 1.0), (2, 1.0)]);
    assert_eq!(order[3..], [(3, 0.0), (4, -1.0)]);
    assert_eq!(similarities(&[0.0, 0.0], &data, &Cancel::default()).unwrap(), [0.0; 5]);
    let nan = Matrix::new("the queries", &[0.0, 1.0, 2.0, f32::NAN], 2).unwrap_err().to_string();
    assert!(nan.contains("Row 1 of the queries has NaN at position 1"), "{nan}");
}

#[test]
fn pairs_are_all_that_are_near() {
    let data = noise(150, 8, 3);
    let data = matrix(&data, 8);
    let found = pairs(&data, 0.8, &Cancel::default()).unwrap();
    let mut expected = Vec::new();
    for a in 0..150 {
        let near = (a + 1..150).map(|b| (b, cosine(data.row(a), data.row(b)))).filter(|(_, score)| *score >= 0.8);
        expected.extend(near.map(|(b, score)| Pair { a: a as u32, b: b as u32, score }));
    }
    expected.sort_by(|x, y| y.score.total_cmp(&x.score).then((x.a, x.b).cmp(&(y.a, y.b))));
    assert!(!found.is_empty());
    assert_eq!(found, expected);
}

#[test]
fn too_many_pairs_are_refused() {
    let data = vec![1.0; 6000];
    let refused = pairs(&matrix(&data, 1), 0.5, &Cancel::default()).unwrap_err();
    assert!(refused.to_string().contains("raise the threshold"), "{refused}");
}

#[test]
fn duplicates_repeat_a_kept_row_and_form_no_chains() {
    // Each is near to the next, and the ends are far from each other.
    let data: Vec<f32> = (0..200).flat_map(|at| [(at as f32 * 0.02).cos(), (at as f32 * 0.02).sin()]).collect();
    let data = matrix(&data, 2);
    let Deduplicated { keep, duplicate_of } = dedupe(&data, 0.999, &Cancel::default()).unwrap();
    assert!(keep.len() > 10 && keep.len() < 100, "{}", keep.len());
    for (at, leader) in duplicate_of.iter().enumerate() {
        let best = keep.iter().filter(|kept| (**kept as usize) < at);
        let best = best.map(|kept| cosine(data.row(at), data.row(*kept as usize))).fold(-1.0, f32::max);
        match leader {
            None => assert!(keep.contains(&(at as u32)) && best < 0.999),
            Some(leader) => {
                assert!(keep.contains(leader));
                assert_eq!(cosine(data.row(at), data.row(*leader as usize)), best);
            }
        }
    }
}

#[test]
fn duplicates_are_those_of_a_plain_search() {
    // Clusters that are tight, loose, and hardly any; 100 values, a quarter of which are looked at first; enough tiles
    // to leave that where it does not pay.
    let (middles, jitter) = (noise(40, 100, 7), noise(1000, 100, 8));
    let spread = |at: usize| [0.05, 0.3, 0.7, 1.5][at % 4];
    let data: Vec<f32> = (0..1000)
        .flat_map(|at| (0..100).map(move |place| (at, place)))
        .map(|(at, place)| middles[at % 40 * 100 + place] + spread(at) * jitter[at * 100 + place])
        .collect();
    let data = matrix(&data, 100);
    for threshold in [0.2, 0.5, 0.8, 0.9, 0.95, 0.99] {
        let mut keep: Vec<u32> = Vec::new();
        let mut duplicate_of = Vec::new();
        for at in 0..1000 {
            let scores = keep.iter().map(|kept| (cosine(data.row(at), data.row(*kept as usize)), *kept));
            let best = scores.reduce(|best, one| if one.0 > best.0 { one } else { best });
            let leader = best.filter(|(score, _)| *score >= threshold).map(|(_, kept)| kept);
            duplicate_of.push(leader);
            if leader.is_none() {
                keep.push(at as u32);
            }
        }
        assert!(threshold >= 0.95 || keep.len() < 990, "{threshold}: {}", keep.len());
        assert_eq!(
            dedupe(&data, threshold, &Cancel::default()).unwrap(),
            Deduplicated { keep, duplicate_of },
            "{threshold}"
        );
    }
}

#[test]
fn communities_lie_around_their_first_row_and_share_none() {
    let mut data = Vec::new();
    let jitter = noise(90, 4, 5);
    for at in 0..90 {
        let size = [0, 0, 0, 1, 1, 2][at % 6];
        let axis = |place: usize| if place == size { 5.0 } else { 0.0 };
        data.extend((0..4).map(|place| axis(place) + 0.3 * jitter[at * 4 + place]));
    }
    let data = matrix(&data, 4);
    let found = communities(&data, 0.97, 5, &Cancel::default()).unwrap();
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [45, 30, 15]);
    let mut seen: Vec<u32> = found.concat();
    seen.sort_unstable();
    assert_eq!(seen, (0..90).collect::<Vec<u32>>());
    for members in &found {
        let scores: Vec<f32> =
            members.iter().map(|at| cosine(data.row(members[0] as usize), data.row(*at as usize))).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b) && scores[scores.len() - 1] >= 0.97);
    }
    assert_eq!(communities(&data, 0.97, 31, &Cancel::default()).unwrap().len(), 1);
}

#[test]
fn clusters_are_those_that_the_rows_lie_in() {
    let jitter = noise(200, 3, 7);
    let data: Vec<f32> = (0..200)
        .flat_map(|at| {
            (0..3).map(|place| 10.0 * ((at % 4) / (place + 1)) as f32 + jitter[at * 3 + place]).collect::<Vec<_>>()
        })
        .collect();
    let data = matrix(&data, 3);
    let found = k_means(&data, 4, KMeansOptions::default(), &Cancel::default()).unwrap();
    let names: Vec<u32> = (0..4).map(|at| found.labels[at]).collect();
    assert!((0..200).all(|at| found.labels[at] == names[at % 4]), "{names:?}");
    let mut inertia = 0.0;
    for at in 0..200 {
        let centre = &found.centroids[found.labels[at] as usize * 3..][..3];
        inertia += data.row(at).iter().zip(centre).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    }
    assert!((found.inertia / inertia - 1.0).abs() < 1e-4, "{} {inertia}", found.inertia);
}

#[test]
fn clusters_of_equal_few_and_huge_rows() {
    let options = KMeansOptions::default();
    let equal = k_means(&matrix(&[3.0; 20], 2), 3, options, &Cancel::default()).unwrap();
    assert_eq!((equal.inertia, equal.labels), (0.0, vec![0; 10]));
    assert!(equal.centroids.iter().all(|value| *value == 3.0));
    let each = k_means(&matrix(&[0.0, 1.0, 2.0, 5.0], 1), 4, options, &Cancel::default()).unwrap();
    let mut labels = each.labels.clone();
    labels.sort_unstable();
    assert_eq!((each.inertia, labels), (0.0, vec![0, 1, 2, 3]));
    let huge = k_means(&matrix(&[3e38, 2.9e38, -3e38, -2.9e38], 1), 2, options, &Cancel::default()).unwrap();
    assert!(huge.labels[0] == huge.labels[1] && huge.labels[1] != huge.labels[2]);
    assert!(huge.inertia.is_finite() && huge.centroids.iter().all(|value| value.is_finite()));
}

#[test]
fn threads_change_nothing() {
    let data = noise(500, 20, 11);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let data = matrix(&data, 20);
            let options = KMeansOptions { seed: 5, ..KMeansOptions::default() };
            let none = Cancel::default();
            (
                k_means(&data, 13, options, &none).unwrap(),
                top_k(&data, &data, 7, 0.1, &none).unwrap(),
                pairs(&data, 0.4, &none).unwrap(),
                dedupe(&data, 0.4, &none).unwrap(),
                communities(&data, 0.4, 2, &none).unwrap(),
            )
        })
    };
    assert_eq!(on(1), on(5));
    let data = matrix(&data, 20);
    let seeded =
        |seed| k_means(&data, 13, KMeansOptions { seed, max_iterations: 1 }, &Cancel::default()).unwrap().labels;
    assert_ne!(seeded(1), seeded(2));
}
