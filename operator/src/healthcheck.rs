//! Asks a URL and says whether it answers well. For probes and for `helm test`; nothing else uses it.

use std::time::Duration;

use anyhow::{Result, bail};

/// GETs the URL.
///
/// # Errors
/// It does not answer with 2xx within five seconds.
pub async fn run(url: &str) -> Result<()> {
    // What is asked is whether somebody answers, not who: a probe has no CA at hand.
    let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).timeout(Duration::from_secs(5)).build()?;
    let answer = http.get(url).send().await?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    bail!("{url}: {status} {}", answer.text().await.unwrap_or_default());
}
