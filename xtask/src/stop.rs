//! Being asked to stop: SIGINT, SIGTERM and SIGHUP set one flag that every wait looks at.
//!
//! The process never dies of these signals by itself, so that what was started is always torn down;
//! once `teardown` has been called, waits no longer give up.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Clone, Copy, PartialEq)]
enum State {
    Running,
    Asked,
    TearingDown,
}

static STATE: Mutex<State> = Mutex::new(State::Running);
static CHANGED: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts listening for the signals.
pub fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("start the signal runtime")?;
    let streams = {
        let _entered = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
    };
    let mut streams = streams.into_iter().collect::<std::io::Result<Vec<_>>>().context("listen for signals")?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let [interrupt, terminate, hangup] = streams.as_mut_slice() else { return };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                let mut state = state();
                if *state == State::Running {
                    eprintln!("\nasked to stop; tearing down what was started");
                    *state = State::Asked;
                }
                CHANGED.notify_all();
            }
        });
    });
    Ok(())
}

/// From here on, waits run to their deadlines even when a stop was asked for.
pub fn teardown() {
    *state() = State::TearingDown;
}

/// Whether a stop was asked for and is not yet being carried out.
pub fn asked() -> bool {
    *state() == State::Asked
}

/// Waits for `time`, or fails at once when asked to stop.
pub fn pause(time: Duration) -> Result<()> {
    let (state, _) = CHANGED.wait_timeout_while(state(), time, |state| *state != State::Asked).unwrap_or_else(PoisonError::into_inner);
    if *state == State::Asked {
        bail!("stopped by a signal");
    }
    Ok(())
}
