//! Errors about an image: the first one of a call, as far as anybody here knows.

use crate::error::{Error, ImageFault, Result};

/// That it is no image, or a damaged one.
pub fn unreadable(reason: impl Into<String>) -> Error {
    Error::Image { index: 0, path: None, fault: ImageFault::Unreadable, reason: reason.into() }
}

/// Refuses an image that has more pixels than it may.
pub fn check_size(width: u32, height: u32, limit: u64) -> Result<()> {
    if u64::from(width) * u64::from(height) <= limit {
        return Ok(());
    }
    let reason = format!(
        "it has {width} × {height} pixels, more than the limit of {limit}: make it smaller, or raise maxPixels"
    );
    Err(Error::Image { index: 0, path: None, fault: ImageFault::TooLarge { width, height, limit }, reason })
}
