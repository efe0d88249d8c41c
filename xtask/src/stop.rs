//! Being asked to stop: SIGINT, SIGTERM and SIGHUP set one flag that every wait looks at.
//!
//! The process never dies of these signals by itself, so that what was started is always torn down:
//! within `shielded`, waits run to their deadlines even so.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Whether a stop was asked for, and whether it must be let pass for now.
#[derive(Clone, Copy)]
struct State {
    asked: bool,
    shielded: bool,
}

impl State {
    fn now(self) -> bool {
        self.asked && !self.shielded
    }
}

static STATE: Mutex<State> = Mutex::new(State { asked: false, shielded: false });
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
                if !state.asked {
                    eprintln!("\nasked to stop; tearing down what was started");
                    state.asked = true;
                }
                CHANGED.notify_all();
            }
        });
    });
    Ok(())
}

/// Runs `work` to its end even when a stop is asked for: for tearing down.
pub fn shielded<T>(work: impl FnOnce() -> T) -> T {
    let before = std::mem::replace(&mut state().shielded, true);
    let result = work();
    state().shielded = before;
    result
}

/// Fails when a stop was asked for.
pub fn check() -> Result<()> {
    if state().now() {
        bail!("stopped by a signal");
    }
    Ok(())
}

/// Waits for `time`, or fails at once when asked to stop.
pub fn pause(time: Duration) -> Result<()> {
    let (state, _) = CHANGED.wait_timeout_while(state(), time, |state| !state.now()).unwrap_or_else(PoisonError::into_inner);
    drop(state);
    check()
}
