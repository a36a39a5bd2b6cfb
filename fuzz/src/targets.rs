//! A target for each reader of foreign bytes.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;

use embedcore::batch::optimizer::{BatchOptimizer, Record};
use embedcore::coherence::{self, CoherenceOptions, Shape};
use embedcore::images::ImageSource;
use embedcore::metrics::{Metrics, MetricsOptions, Snapshot};
use embedcore::model::fuzzing::Hub;
use embedcore::server::request;
use embedcore::{cache, collection, generator, index, model, results};

use crate::input::{Input, files};
use crate::{damage, places};

pub struct Target {
    pub name: &'static str,
    /// Most bytes of an input.
    pub most: usize,
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, most: usize, run: fn(&[u8])) -> Target {
    Target { name, most, run }
}

pub const TARGETS: [Target; 28] = [
    target("row", 512, row),
    target("payload", 512, payload),
    target("note", 512, generator::fuzzing::note),
    target("shared-value", 512, cache::fuzzing::value),
    target("shared-change", 512, cache::fuzzing::change),
    target("cache-file", 512, damage::cache),
    target("collection-file", 512, damage::collection),
    target("index-file", 512, damage::index),
    target("filter", 2048, filter),
    target("safetensors", 4096, model::fuzzing::tensors),
    target("tokenizer", 4096, tokenizer),
    target("model", 16384, directory),
    target("template", 2048, template),
    target("graph", 4096, graph),
    target("library", 4096, library),
    target("image", 4096, image),
    target("hub", 4096, hub),
    target("hub-listing", 4096, listing),
    target("remote", 4096, remote),
    target("request", 4096, body),
    target("git", 4096, git),
    target("ignore", 2048, ignore),
    target("tree", 4096, tree),
    target("source", 4096, source),
    target("snapshot", 8192, snapshot),
    target("cycles", 8192, cycles),
    target("learned", 8192, learned),
    target("trajectories", 4096, trajectories),
];

fn row(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let format = i64::from(flags >> 2 & 3);
    let numbers = [input.number() as i64, input.number() as i64, input.number() as i64, format, input.number() as i64];
    let content = (flags & 2 != 0).then(|| input.bytes(if flags & 16 != 0 { 31 } else { 32 }));
    cache::fuzzing::row(input.sized(), content, input.sized(), input.0, numbers, flags & 1 != 0);
}

fn payload(data: &[u8]) {
    let mut input = Input(data);
    let kind = String::from_utf8_lossy(input.sized());
    results::fuzzing::payload(&kind, input.0);
}

fn filter(data: &[u8]) {
    let mut input = Input(data);
    let condition = String::from_utf8_lossy(input.sized());
    collection::fuzzing::filter(&condition, &String::from_utf8_lossy(input.0));
}

fn tokenizer(data: &[u8]) {
    let mut input = Input(data);
    let most = usize::from(input.byte()) * 4;
    let text = String::from_utf8_lossy(input.sized()).into_owned();
    model::fuzzing::tokenizer(input.0, most, &text);
}

/// Writes the files of an input below a directory; nothing outside.
fn unpack(place: &str, data: &[u8]) -> PathBuf {
    let root = places::empty(place);
    for (name, bytes) in files(data) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/');
        if name.is_empty()
            || name.len() > 60
            || name.contains("..")
            || name.starts_with('/')
            || !name.chars().all(plain)
        {
            continue;
        }
        let path = root.join(name);
        path.parent().map(fs::create_dir_all);
        fs::write(path, bytes).ok();
    }
    root
}

fn directory(data: &[u8]) {
    let root = unpack("model", data);
    model::fuzzing::directory(&root, &model::fuzzing::options(data.first().copied().unwrap_or_default()));
}

fn template(data: &[u8]) {
    let mut input = Input(data);
    let way = input.byte();
    let [query, document] = [input.sized(), input.sized()].map(String::from_utf8_lossy);
    model::fuzzing::template(&String::from_utf8_lossy(input.0), way, &query, &document);
}

fn graph(data: &[u8]) {
    let root = places::empty("graph");
    fs::write(root.join("model.onnx_data"), b"weights").ok();
    let path = root.join("model.onnx");
    fs::write(&path, data).ok();
    model::fuzzing::graph(&path);
}

fn library(data: &[u8]) {
    model::fuzzing::library(&places::file("libonnxruntime.so.1.28.0", data));
}

fn image(data: &[u8]) {
    let mut input = Input(data);
    let config = input.sized();
    let Some(preprocessing) = model::fuzzing::preprocessing(config) else { return };
    let Ok(image) = ImageSource::Bytes(Arc::from(input.0)).examine(250_000) else { return };
    if preprocessing.count() > 3 << 20 {
        return;
    }
    let mut out = vec![0.0; preprocessing.count()];
    if image.read(&preprocessing, &mut out).is_ok() {
        assert!(out.iter().all(|value| value.is_finite()));
    }
}

/// What the server of the hub sends next.
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

static HUB: LazyLock<Hub> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    // Wherever an answer redirects to, it is asked here.
    for name in ["http_proxy", "https_proxy"] {
        // SAFETY: nothing else runs yet that looks at the environment.
        unsafe { std::env::set_var(name, format!("http://{address}")) };
    }
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut asked = [0; 4096];
            if stream.read(&mut asked).is_ok() {
                let answer = ANSWER.lock().map(|answer| answer.clone()).unwrap_or_default();
                stream.write_all(&answer).ok();
            }
        }
    });
    Hub::new(format!("http://{address}")).expect("a client")
});

fn hub(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    if let Ok(mut answer) = ANSWER.lock() {
        *answer = input.0.to_vec();
    }
    HUB.ask(flags & 1 != 0);
}

fn listing(data: &[u8]) {
    model::fuzzing::listing(data);
    model::fuzzing::name(&String::from_utf8_lossy(data));
}

fn remote(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.byte();
    model::fuzzing::answer(kind, input.0, usize::from(kind >> 4).max(1));
}

fn body(data: &[u8]) {
    if let Ok(request) = request::read(data, 50) {
        assert!(request.texts.len() <= 50);
    }
    request::read_rerank(data, 50).ok();
    request::read_inputs(data, 50).ok();
}

fn git(data: &[u8]) {
    index::fuzzing::settings(data);
    index::fuzzing::git_index(data);
}

fn ignore(data: &[u8]) {
    let mut input = Input(data);
    let path = input.sized();
    index::fuzzing::rules(input.0, path);
}

/// A source tree, with a repository in it.
fn tree(data: &[u8]) {
    let root = unpack("tree", data);
    fs::create_dir_all(root.join(".git/objects")).ok();
    fs::write(root.join(".git/HEAD"), "ref: refs/heads/main\n").ok();
    index::fuzzing::walk(&root);
}

fn source(data: &[u8]) {
    let mut input = Input(data);
    let extension = input.byte();
    index::fuzzing::source(extension.into(), input.0.to_vec());
}

fn snapshot(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(mut one) = Snapshot::parse(text) else { return };
    let Ok(other) = Snapshot::parse(text) else { return };
    one.merge(other).ok();
    let written = serde_json::to_string(&one).expect("a snapshot is JSON");
    Snapshot::parse(&written).unwrap_or_else(|error| panic!("what was merged is refused: {error}: {written}"));
}

fn cycles(data: &[u8]) {
    let root = places::empty("cycles");
    let path = root.join("cycles.json");
    fs::write(&path, data).ok();
    let metrics = Arc::new(Metrics::new(MetricsOptions { max_cycles: 5, persist_path: Some(path.clone()) }));
    metrics.load().ok();
    metrics.start_cycle("fuzz").ok();
    metrics.end_cycle("fuzz", true).ok();
    if metrics.save(&path).is_ok() {
        let again = Arc::new(Metrics::new(MetricsOptions { max_cycles: 5, persist_path: Some(path) }));
        let unusable = again.load().expect("what was saved is read");
        assert!(unusable.is_none(), "what was saved is damaged: {unusable:?}");
    }
}

fn learned(data: &[u8]) {
    generator::fuzzing::learned(&places::empty("learned"), data);
    let Ok(state) = serde_json::from_slice(data) else { return };
    let Ok(mut optimizer) = BatchOptimizer::restored(state) else { return };
    for nth in 0..20 {
        let size = optimizer.current();
        let options = optimizer.options();
        assert!((options.min_size..=options.max_size).contains(&size));
        let record = Record {
            size,
            time_ms: 4.0 + size as f64,
            items: size as f64,
            tokens: Some(size as f64 * 9.0),
            cpu: Some(50.0),
            memory: Some(40.0),
            sampled: true,
            success: nth % 9 != 8,
            at_ms: f64::from(nth),
        };
        optimizer.record(record).ok();
    }
    assert!(optimizer.recommendation().confidence.is_finite() && optimizer.analytics().score.is_finite());
    BatchOptimizer::restored(optimizer.state()).expect("what was written is read");
}

fn trajectories(data: &[u8]) {
    let mut input = Input(data);
    let shapes: Vec<Shape> = (0..1 + input.byte() % 10)
        .map(|_| Shape { rows: usize::from(input.byte() % 12), columns: usize::from(input.byte() % 8) })
        .collect();
    let wanted: usize = shapes.iter().map(|shape| shape.rows * shape.columns).sum();
    let whole = input.byte() & 1 == 0;
    let mut values: Vec<f64> =
        std::iter::from_fn(|| (!input.0.is_empty()).then(|| f64::from_bits(input.number()))).collect();
    if whole {
        // Most numbers are none from 0 to 1.
        values.iter_mut().for_each(|value| *value = value.abs().fract());
        values.resize(wanted, 0.5);
    }
    if let Ok(all) = coherence::metrics(&values, &shapes, &CoherenceOptions::default()) {
        assert_eq!(all.len(), shapes.len());
        assert!(all.iter().all(|metrics| metrics.numbers().iter().all(|number| number.is_finite())), "{all:?}");
    }
}
