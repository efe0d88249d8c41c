//! Waiting for a condition with a deadline. The only place that sleeps.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks `f` until it answers something, or fails after `limit` naming `what` and the last reason.
///
/// # Errors
/// The time is over.
pub(crate) fn until<T>(limit: Duration, what: &str, mut f: impl FnMut() -> Result<T, String>) -> Result<T> {
    let start = Instant::now();
    loop {
        match f() {
            Ok(value) => return Ok(value),
            Err(why) if start.elapsed() >= limit => bail!("{what}: not within {} s: {why}", limit.as_secs()),
            Err(_) => std::thread::park_timeout(Duration::from_millis(100)),
        }
    }
}
