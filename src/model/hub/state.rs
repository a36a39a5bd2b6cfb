//! How the hub and the cache of its models are, for who asks why nothing can be fetched.

use std::path::PathBuf;
use std::time::Duration;

use super::super::http::{self, Ask, Http, Trouble, WaitLimit};
use super::{HubOptions, Settings};
use crate::cancel::Cancel;
use crate::error::Result;

/// How long the hub may take to answer anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// See [`HubState::look`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubState {
    /// Where the hub is, without anything secret.
    pub endpoint: String,
    /// Where models are kept.
    pub directory: PathBuf,
    /// What forbids the network, if anything does.
    pub offline: Option<&'static str>,
    /// Host and port of the proxy that the environment names for the hub, if any.
    pub proxy: Option<String>,
    /// Why it cannot be reached, if so; `None` in the outer option: nobody has tried, because of `offline`.
    pub unreachable: Option<Option<String>>,
}

impl HubState {
    /// Reads the settings and asks the hub for anything. Blocks for five seconds at most; a server that answers is there,
    /// whatever it says.
    ///
    /// # Errors
    /// `INVALID_CONFIG` for a variable of the environment that cannot be used.
    pub fn look(options: &HubOptions) -> Result<Self> {
        let settings = Settings::read(options)?;
        let proxy = http::proxy(&settings.endpoint)?.map(|proxy| format!("{}:{}", proxy.host(), proxy.port()));
        let unreachable = match settings.offline {
            Some(_) => None,
            None => Some(unreachable(&settings.endpoint)?),
        };
        let Settings { endpoint, cache, offline, .. } = settings;
        Ok(Self { endpoint: http::clean(&endpoint), directory: cache, offline, proxy, unreachable })
    }
}

fn unreachable(endpoint: &str) -> Result<Option<String>> {
    let http = Http::new(endpoint, WaitLimit { silence: Some(PATIENCE), whole: Some(PATIENCE) })?;
    let ask = Ask { method: "HEAD", url: endpoint, headers: &[], secrets: &[], body: None, ends: |_| true };
    Ok(match http.ask(&ask, &Cancel::default()) {
        Ok(_) | Err(Trouble::Status { .. }) => None,
        Err(Trouble::Network(reason) | Trouble::Late(reason) | Trouble::Distrust(reason)) => Some(reason),
        Err(Trouble::Final(error)) => Some(error.to_string()),
    })
}
