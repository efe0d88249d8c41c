//! SIGTERM and SIGINT end the process in order.

use polity_runtime::CancellationToken;
use tokio::signal::unix::{SignalKind, signal};

/// Cancels the token at the first SIGTERM or SIGINT.
///
/// # Errors
/// The handlers cannot be set.
pub fn stop_on(stop: &CancellationToken) -> std::io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("told to stop");
        stop.cancel();
    });
    Ok(())
}
