//! When a request to the hub is made again, and how long after.

use std::time::Duration;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::model::http::{Trouble, pause};

/// Attempts without a single new byte, and the pause after the first of them; each further one is twice as long.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(300);

/// The longest pause that a server may ask for before the caller is told instead.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Asks again where that may help, a few times.
pub(super) fn retried<T>(cancel: &Cancel, mut ask: impl FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
    let mut fruitless = 0;
    loop {
        match ask() {
            Err(trouble) => {
                fruitless += 1;
                wait(cancel, trouble, fruitless)?;
            }
            answer => return answer,
        }
    }
}

/// Waits before the next attempt, or gives the trouble back if there shall be none.
pub(super) fn wait(cancel: &Cancel, trouble: Trouble, fruitless: u32) -> Result<(), Trouble> {
    let asked_for = match &trouble {
        Trouble::Network(_) | Trouble::Late(_) => None,
        Trouble::Status { status: 408 | 416 | 429 | 500.., retry_after, .. } => *retry_after,
        _ => return Err(trouble),
    };
    if fruitless >= ATTEMPTS || asked_for.is_some_and(|pause| pause > LONGEST_PAUSE) {
        return Err(trouble);
    }
    let own = FIRST_PAUSE * 2u32.pow(fruitless.saturating_sub(1));
    Ok(pause(cancel, asked_for.unwrap_or_default().max(own))?)
}
