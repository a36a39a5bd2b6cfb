//! The library: loaded once in a process, when it is first needed.

use std::ffi::CStr;
use std::path::PathBuf;
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::model::gate::{self, ONNX};
use crate::model::{Provider, library};

/// The ONNX Runtime of this process.
pub(super) struct Runtime {
    pub environment: Environment,
    pub build: String,
    pub library: PathBuf,
    /// What it offers, as options spell it.
    pub providers: Vec<String>,
}

impl Runtime {
    pub fn offers(&self, provider: &Provider) -> bool {
        self.providers.iter().any(|name| name == provider.as_str())
    }
}

/// Held while the library loads.
static LOADING: Mutex<()> = Mutex::new(());

/// Waits until nobody loads the library. For a thread of JS that ends, as it does before its process may.
pub fn await_load() {
    drop(LOADING.lock());
}

/// What the library is, and what it offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// Where it is.
    pub library: PathBuf,
    /// Its version, as far as it is known.
    pub version: Option<String>,
    /// The execution providers that it was built with.
    pub providers: Vec<String>,
}

/// Loads the library, if it is not; says what it is.
pub fn describe() -> Result<RuntimeInfo> {
    let Runtime { library, providers, .. } = runtime()?;
    Ok(RuntimeInfo { library: library.clone(), version: library::version(library), providers: providers.clone() })
}

/// Loads the library at the first call. A failure is not remembered: the user may mend it and try again.
pub(super) fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let _one_at_a_time = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let library = library::onnxruntime()?;
    let failed = |error: &dyn std::error::Error| {
        let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        Error::model(&library, format!("ONNX Runtime could not be loaded: {error}{cause}"))
    };
    // Versions 1.29 and later report home unless told not to before they are loaded.
    // SAFETY: runs once per process, under the lock above. What remains is the race of every setenv with a getenv on
    // another thread, which Node.js itself accepts at each assignment to process.env.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
    // Until the handler below stands, only `close` keeps an exit of the process from running into the load.
    let _inside = ONNX.enter(&Cancel::default())?;
    let environment = ort::init_from(&library).map_err(|error| failed(&error))?;
    gate::close_at_exit();
    let environment =
        environment.with_name("embedcore").with_telemetry(false).build().map_err(|error| failed(&error))?;
    environment.set_log_level(LogLevel::Fatal);
    let (build, providers) = (ort::info().to_owned(), offered());
    Ok(RUNTIME.get_or_init(|| Runtime { environment, build, library, providers }))
}

/// The execution providers that the loaded library was built with.
fn offered() -> Vec<String> {
    let (mut names, mut count) = (ptr::null_mut(), 0);
    // SAFETY: the library is loaded; both pointers are to places for the answer.
    let status = unsafe { (ort::api().GetAvailableProviders)(&mut names, &mut count) };
    // SAFETY: the status was just returned by the call above and is used once.
    if unsafe { ort::Error::result_from_status(status) }.is_err() || names.is_null() {
        return vec![Provider::Cpu.as_str().to_owned()];
    }
    let at = |index| {
        // SAFETY: the call above has filled `count` pointers to strings that end with a zero.
        spelt(&unsafe { CStr::from_ptr(*names.add(index)) }.to_string_lossy())
    };
    let mut spelt: Vec<String> = (0..usize::try_from(count).unwrap_or(0)).map(at).collect();
    // SAFETY: gives back what the call above gave, once. The answer is of no interest: nothing can be done.
    let released = unsafe { (ort::api().ReleaseAvailableProviders)(names, count) };
    // SAFETY: as above.
    drop(unsafe { ort::Error::result_from_status(released) });
    spelt.sort();
    spelt
}

/// The spelling in options of an execution provider's name.
pub(super) fn spelt(name: &str) -> String {
    match name.strip_suffix("ExecutionProvider").unwrap_or(name).to_ascii_lowercase().as_str() {
        "dml" => Provider::DirectMl.as_str().to_owned(),
        "nvtensorrtrtx" => Provider::TensorRtRtx.as_str().to_owned(),
        name => name.to_owned(),
    }
}
