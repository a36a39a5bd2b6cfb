//! The whole pipeline without Node.js: real ONNX Runtime, tiny models.

#![allow(clippy::unwrap_used, clippy::expect_used, unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use embedcore::batch::Budget;
use embedcore::cache::{CacheOptions, EmbeddingCache};
use embedcore::embedding::Space;
use embedcore::error::Error;
use embedcore::generator::{Batching, CallOptions, Generator, GeneratorCache, GeneratorOptions, Inputs, OnError};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// A generator for a fixture.
async fn ready(name: &str) -> Arc<Generator> {
    ready_with(name, Budget::default(), false).await
}

/// The same with batches of another size, or a cache. Takes the library that the build put into `npm/`.
async fn ready_with(name: &str, budget: Budget, cached: bool) -> Arc<Generator> {
    use std::sync::Once;
    static LIBRARY: Once = Once::new();
    LIBRARY.call_once(|| {
        let mut packages = std::fs::read_dir(root().join("npm")).unwrap().flatten().map(|entry| entry.path());
        let library = packages.find(|path| path.join(env!("EMBEDCORE_ORT_FILE")).is_file());
        let directory = library.expect("no ONNX Runtime in npm/: run `python3 scripts/fetch_onnxruntime.py` first");
        embedcore::model::set_addon_directory(directory);
    });
    let path = root().join("fixtures/models").join(name).display().to_string();
    let options =
        GeneratorOptions { model_path: Some(path), budget, batching: Batching::Fixed, ..GeneratorOptions::default() };
    let generator = Generator::new(options).unwrap();
    let cache = EmbeddingCache::open(CacheOptions::default()).unwrap();
    if cached {
        generator.attach(Arc::new(GeneratorCache::new(Arc::new(cache), Space::builder().finish())));
    }
    generator.initialize(None).await.unwrap();
    Arc::new(generator)
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("text {i} {}", "reads a file and parses it ".repeat(i % 9))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn batched_is_alone_is_concurrent() {
    let generator = ready("bert-mean").await;
    let texts = texts(200);
    let together = generator.embed(Inputs::Texts(texts.clone()), CallOptions::default()).await.unwrap();
    let calls = texts.iter().map(|text| {
        let (generator, text) = (Arc::clone(&generator), text.clone());
        tokio::spawn(async move { generator.embed(Inputs::Texts(vec![text]), CallOptions::default()).await.unwrap() })
    });
    for (row, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        let alone = call.await.unwrap();
        for (a, b) in alone.matrix.row(0).iter().zip(together.matrix.row(row)) {
            assert!((a - b).abs() <= 1e-6, "row {row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_item_is_answered_once_and_progress_never_goes_back() {
    let generator = ready("bert-mean").await;
    let mut texts = texts(500);
    texts[7].clear();
    texts[300] = texts[299].clone();
    let last = Arc::new(AtomicUsize::new(0));
    let progress = {
        let last = Arc::clone(&last);
        move |processed: usize, total: usize| {
            assert_eq!(total, 500);
            assert!(last.swap(processed, Ordering::SeqCst) <= processed);
        }
    };
    let options = CallOptions { on_error: OnError::Skip, progress: Some(Box::new(progress)), ..CallOptions::default() };
    let answer = generator.embed(Inputs::Texts(texts), options).await.unwrap();
    assert_eq!(last.load(Ordering::SeqCst), 500);
    assert_eq!(answer.matrix.row(299), answer.matrix.row(300));
    for (index, item) in answer.items.iter().enumerate() {
        assert_eq!(item.error.is_some(), index == 7);
        assert_eq!(answer.matrix.row(index).iter().all(|value| *value == 0.0), index == 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_stops_computing() {
    let generator = ready("bert-mean").await;
    let answered = Arc::new(AtomicUsize::new(0));
    let call = tokio::spawn({
        let (generator, answered) = (Arc::clone(&generator), Arc::clone(&answered));
        let progress = move |processed: usize, _: usize| answered.store(processed, Ordering::SeqCst);
        let options = CallOptions { progress: Some(Box::new(progress)), ..CallOptions::default() };
        async move { generator.embed(Inputs::Texts(texts(20_000)), options).await }
    });
    while answered.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    // Closing waits for what still runs, so it is quick only if nothing but a batch does.
    let started = Instant::now();
    generator.close().await;
    let stopped_within = started.elapsed();
    let closed = generator.embed(Inputs::Texts(texts(3)), CallOptions::default()).await;
    assert_eq!(closed.unwrap_err(), Error::Closed);
    let started = Instant::now();
    generator.initialize(None).await.unwrap();
    generator.embed(Inputs::Texts(texts(20_000)), CallOptions::default()).await.unwrap();
    assert!(stopped_within < started.elapsed() / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_long_run_of_the_model_is_terminated_inside() {
    // Everything in one batch, so that nothing but the runtime itself can stop it early.
    let everything = Budget { max_tokens: usize::MAX, max_rows: usize::MAX };
    let generator = ready_with("bert-mean", everything, false).await;
    let long =
        || Inputs::Texts((0..8000).map(|i| format!("{i} {}", "reads a file and parses it ".repeat(12))).collect());
    generator.embed(Inputs::Texts(texts(10)), CallOptions::default()).await.unwrap();
    let started = Instant::now();
    generator.embed(long(), CallOptions::default()).await.unwrap();
    let full = started.elapsed();

    let started = Instant::now();
    let options = CallOptions { timeout: Some(full / 4), ..CallOptions::default() };
    let error = generator.embed(long(), options).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(started.elapsed() < full * 3 / 4, "{:?} of {full:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn little_memory_makes_small_batches_of_the_same_vectors() {
    let generator = ready("bert-mean").await;
    let free = generator.embed(Inputs::Texts(texts(300)), CallOptions::default()).await.unwrap();
    let batches = generator.totals().batches;
    let options = CallOptions { memory_limit: Some(500_000), ..CallOptions::default() };
    let short = generator.embed(Inputs::Texts(texts(300)), options).await.unwrap();
    assert!(generator.totals().batches - batches > 2 * batches);
    for (a, b) in free.matrix.data.iter().zip(&short.matrix.data) {
        assert!((a - b).abs() <= 1e-6);
    }
    assert_eq!(generator.totals().rows, 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_cannot_fit_alone_is_refused() {
    let generator = ready("bert-mean").await;
    let mut texts: Vec<String> = (0..40).map(|i| format!("short {i}")).collect();
    texts[17] = "reads a file and parses it ".repeat(40);
    let limited = |on_error| CallOptions { memory_limit: Some(20_000), on_error, ..CallOptions::default() };
    let answer = generator.embed(Inputs::Texts(texts.clone()), limited(OnError::Skip)).await.unwrap();
    for (index, item) in answer.items.iter().enumerate() {
        assert_eq!(item.error.is_some(), index == 17, "{index}: {:?}", item.error);
    }
    let error = generator.embed(Inputs::Texts(texts), limited(OnError::Throw)).await.unwrap_err();
    assert!(matches!(error, Error::MemoryLimit { index: 17, need, limit: 20_000, .. } if need > 20_000), "{error}");
    assert_eq!(error.code(), "MEMORY_LIMIT_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_one_call_is_none_of_another_that_waits_for_the_same_texts() {
    let generator = ready_with("bert-mean", Budget::default(), true).await;
    for round in 0..20 {
        let texts: Vec<String> =
            (0..30).map(|i| format!("round {round} {i} {}", "reads a file and parses it ".repeat(20))).collect();
        for on_error in [OnError::Throw, OnError::Skip] {
            let texts: Vec<String> = texts.iter().map(|text| format!("{on_error:?} {text}")).collect();
            let call = |memory_limit| {
                let (generator, inputs) = (Arc::clone(&generator), Inputs::Texts(texts.clone()));
                let options = CallOptions { memory_limit, on_error, ..CallOptions::default() };
                tokio::spawn(async move { generator.embed(inputs, options).await })
            };
            let (limited, free) = (call(Some(20_000)), call(None));
            if let Ok(answer) = limited.await.unwrap() {
                // What it has, the other one has computed.
                assert!(answer.items.iter().all(|item| item.error.is_some() || item.from_cache));
            }
            let answer = free.await.unwrap().unwrap();
            assert!(answer.items.iter().all(|item| item.error.is_none()));
        }
    }
}
