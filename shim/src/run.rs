//! `run`: input, command, result, in this order. Nothing starts without an input, and what has started is reported
//! whatever its end was.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::Settings,
    child,
    edge::{Edge, EdgeError},
    mask::Masks,
};

/// Exit code: nothing was started.
pub const NOT_STARTED: u8 = 10;
/// Exit code: the command ended or was stopped, its result was not accepted.
pub const NOT_ACCEPTED: u8 = 11;

/// Why there is no accepted result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing was started.
    #[error("nothing was started: {0}")]
    NotStarted(String),
    /// The result was not accepted.
    #[error("the command has ended, but its result was not accepted: {0}")]
    NotAccepted(EdgeError),
}

impl RunError {
    /// The exit code, by which core tells what it may conclude.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotStarted(_) => NOT_STARTED,
            Self::NotAccepted(_) => NOT_ACCEPTED,
        }
    }
}

/// Runs one call.
pub async fn run(settings: &Settings, command: &[String]) -> Result<(), RunError> {
    let not_started = |e: &dyn std::fmt::Display| RunError::NotStarted(e.to_string());
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return Err(RunError::NotStarted("another TLS provider is installed".to_owned()));
    }
    // As the first process of a container nothing ends it by default, so this is also what makes it deletable.
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| not_started(&e))?;
    let masks = Masks::read(&settings.secrets_dir).map_err(|e| not_started(&format!("reading {}: {e}", settings.secrets_dir.display())))?;
    let edge = Edge::new(settings).map_err(|e| not_started(&e))?;
    let input = tokio::select! {
        input = edge.input(Duration::from_secs(settings.input_patience_seconds)) => input.map_err(|e| not_started(&e))?,
        _ = terminate.recv() => return Err(not_started(&"stopped while waiting for the input")),
    };
    let timeout = Duration::from_secs(settings.timeout_seconds);
    let stopped = async {
        terminate.recv().await;
    };
    let report = child::run(command, &input, timeout, &masks, stopped).await;
    edge.result(&report, Duration::from_secs(settings.result_patience_seconds)).await.map_err(RunError::NotAccepted)
}
