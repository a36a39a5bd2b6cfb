//! What a hub answers: what `fuzz/` calls.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use super::client::Client;
use super::{Id, Listing, Settings, is_inside, is_revision};
use crate::cancel::Cancel;

/// A hub at an address.
pub struct Hub(Client<'static>);

impl Hub {
    pub fn new(endpoint: String) -> Option<Self> {
        let read_timeout = Duration::from_secs(2);
        let settings = Settings { endpoint, token: None, cache: PathBuf::new(), offline: None, read_timeout };
        Client::new(Box::leak(Box::new(settings)), Box::leak(Box::new(Cancel::default()))).ok().map(Self)
    }

    /// Asks for a file, and what it is.
    pub fn ask(&self, whole: bool) {
        let url = self.0.url("a/b", "main", "c");
        if whole {
            if let Ok((_, answer)) = self.0.bytes(&url, 5) {
                io::copy(&mut answer.take(1 << 20), &mut io::sink()).ok();
            }
        } else if let Err(trouble) = self.0.meta(&url) {
            self.0.failed(trouble, "a/b", "c", &url).to_string();
        }
    }
}

pub fn listing(bytes: &[u8]) {
    let Ok(listing) = serde_json::from_slice::<Listing>(bytes) else { return };
    is_revision(&listing.sha);
    for sibling in &listing.siblings {
        if is_inside(&sibling.rfilename) {
            let joined = PathBuf::from("/cache").join(&sibling.rfilename);
            let mut parts = joined.components().skip(2);
            assert!(joined.starts_with("/cache") && parts.all(|part| matches!(part, std::path::Component::Normal(_))));
        }
    }
}

pub fn id(text: &str) {
    Id::parse(text);
}
