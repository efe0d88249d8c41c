//! Waiting for a condition with a deadline: the only place of the tests that sleeps.

use std::time::{Duration, Instant};

use anyhow::Result;

/// A deadline was missed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: not within {limit:?}: {why}")]
pub struct Late {
    what: String,
    limit: Duration,
    why: String,
}

/// Asks `look` every 50 ms until it answers something, or fails after `limit`, naming `what` and the last reason.
///
/// # Errors
/// The time is over.
pub async fn until<T, F>(limit: Duration, what: &str, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(why) if start.elapsed() >= limit => return Err(Late { what: what.to_owned(), limit, why }.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
