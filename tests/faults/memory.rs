//! A process that may have little memory: what does not fit is an error that says so, and not the end of the process.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use embedcore::cancel::Cancel;
use embedcore::error::Error;
use embedcore::generator::{CallOptions, Generator, GeneratorOptions, Inputs, StateDir};
use embedcore::matrix::{self, Matrix};

/// What the process may have on top of what it has.
const MORE: u64 = 1 << 30;

/// Forbids more address space than there is.
#[allow(unsafe_code)]
fn limit() {
    let pages: u64 = fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
    let most = pages * 4096 + MORE;
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the call reads nothing but this one.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}

/// A table of vectors of so many values.
fn model(place: &Path, dimensions: usize) {
    let vocabulary = r###"{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"a":4,"b":5,"c":6}"###;
    let tokenizer = format!(
        r#"{{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":{{"type":"Whitespace"}},"post_processor":null,"decoder":null,"model":{{"type":"WordLevel","vocab":{vocabulary},"unk_token":"[UNK]"}}}}"#
    );
    let header = format!(
        r#"{{"embeddings":{{"dtype":"F32","shape":[7,{dimensions}],"data_offsets":[0,{}]}}}}"#,
        7 * dimensions * 4
    );
    let table = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0x3c; 7 * dimensions * 4]].concat();
    fs::write(place.join("model.safetensors"), table).unwrap();
    fs::write(place.join("tokenizer.json"), tokenizer).unwrap();
    fs::write(place.join("config.json"), r#"{"normalize":true}"#).unwrap();
}

async fn embed(place: &Path) {
    const DIMENSIONS: usize = 60_000;
    model(place, DIMENSIONS);
    let options = GeneratorOptions {
        model_path: Some(place.display().to_string()),
        state_dir: StateDir::Off,
        ..GeneratorOptions::default()
    };
    let generator = Arc::new(Generator::new(options).unwrap());
    generator.initialize(None).await.unwrap();
    let embed = async |count: usize| {
        let texts = (0..count).map(|n| format!("a b {n}")).collect();
        generator.embed(Inputs::Texts(texts), CallOptions::default()).await
    };
    let before = embed(3).await.unwrap().matrix;
    let error = embed(16_000).await.unwrap_err();
    assert_eq!(error.code(), "MEMORY_LIMIT_EXCEEDED", "{error}");
    assert_eq!(embed(3).await.unwrap().matrix, before, "it does not work afterwards");
}

#[test]
#[ignore = "runs in a process of its own, which may have little memory"]
fn scenario() {
    limit();
    let place = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(embed(place.path()));

    let values: Vec<f32> = (0..40_000).map(|n| (n % 17) as f32 + 1.0).collect();
    let rows = |count: usize| Matrix::new("the matrix", &values[..count], 1).unwrap();
    let best = |count: usize| matrix::top_k(&rows(count), &rows(count), count, -1.0, &Cancel::default());
    let error = best(40_000).err().unwrap();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    assert!(best(20).is_ok(), "it does not work afterwards");
}

#[test]
fn what_does_not_fit_into_memory_is_an_error() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", "memory::scenario", "--ignored", "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
}
