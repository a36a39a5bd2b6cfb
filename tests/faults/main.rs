//! The files of a cache, a collection and an index on a system that fails: each of its calls, once (`shim.c` stands in between).
//! Whatever fails, no answer is wrong, nothing hangs or panics, and all of it goes on working.
//!
//! `EMBEDCORE_FAULTS=all` makes each call fail; else one in so many.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cache;
mod clock;
mod collection;
mod index;
mod memory;

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Far more than any of it takes: SQLite itself tries for ten seconds where a lock could not be given back.
const HANGS: Duration = Duration::from_secs(240);

/// What happens while a call fails, and what is looked at afterwards.
struct Case {
    /// The test that is the scenario, which runs in a process of its own.
    scenario: &'static str,
    /// What is found afterwards, with nothing failing, by what the scenario has told: how much is missing.
    look: fn(place: &Path, what: &str, told: &str) -> usize,
}

/// What a scenario is told: the path of the file, and where to tell what was done.
fn asked() -> (PathBuf, File) {
    let [path, told] = ["SCENARIO_PATH", "SCENARIO_TOLD"].map(|name| std::env::var(name).unwrap());
    (path.into(), OpenOptions::new().append(true).create(true).open(told).unwrap())
}

static SHIM: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let place = tempfile::tempdir().unwrap();
    let shim = place.path().join("shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.c");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status =
        Command::new(compiler).args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).arg("-ldl").status();
    assert!(status.unwrap().success());
    (place, shim)
});

struct Outcome {
    told: String,
    /// How many calls there were that can fail like this.
    calls: usize,
}

/// Runs a scenario in a directory, with a call failing.
fn run(case: &Case, place: &Path, kind: &str, at: usize, seed: usize) -> Outcome {
    let (told, count) = (place.join("told"), place.join("count"));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", case.scenario, "--ignored", "--nocapture"])
        .env("LD_PRELOAD", &SHIM.1)
        .env("SCENARIO_PATH", place.join("file.db"))
        .env("SCENARIO_TOLD", &told)
        .env("FAULTS_PATH", place.join("file.db"))
        .env("FAULTS_KIND", kind)
        .env("FAULTS_AT", at.to_string())
        .env("FAULTS_SEED", seed.to_string())
        .env("FAULTS_COUNT", &count)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > HANGS {
            child.kill().unwrap();
            panic!("{kind} at call {at}: it hangs");
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    let ended =
        if kind == "POWER" && at > 0 { status.code() == Some(137) || status.success() } else { status.success() };
    assert!(ended, "{kind} at call {at}: {status}: {said}");
    let told = fs::read_to_string(told).unwrap_or_default();
    Outcome { told, calls: fs::read_to_string(count).unwrap().trim().parse().unwrap() }
}

fn place() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Makes each call of a kind fail once; how much was missing after all of these.
fn each_call_fails(case: &Case, kind: &str, tries: usize) -> usize {
    let whole = place();
    let calm = run(case, whole.path(), kind, 0, 1);
    assert!(calm.told.ends_with("end\n"), "{kind}: the scenario ends early, although nothing fails");
    assert_eq!((case.look)(whole.path(), &format!("{kind}, but nothing fails"), &calm.told), 0);
    let thorough = std::env::var_os("EMBEDCORE_FAULTS").is_some();
    let step = if thorough { 1 } else { (calm.calls / 12).max(1) };
    let (mut runs, mut missing) = (0, 0);
    for at in (1..=calm.calls).step_by(step) {
        for seed in 0..if thorough { tries } else { 1 } {
            let place = place();
            let outcome = run(case, place.path(), kind, at, seed * 7919 + at);
            let what = format!("{kind} at call {at}, seed {seed}");
            let gone = (case.look)(place.path(), &what, &outcome.told);
            if gone > 0 {
                eprintln!("{what}: {gone} missing: {}", outcome.told);
            }
            missing += gone;
            runs += 1;
        }
    }
    eprintln!("{}: {kind}: {} calls, {runs} runs, {missing} missing", case.scenario, calm.calls);
    missing
}
