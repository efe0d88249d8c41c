//! The one way to wait: poll a condition until a deadline, and say at the end what was missing.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::stop;

/// What one look at a condition found.
pub enum Look<T> {
    Done(T),
    /// Not yet, and why: the last reason is part of the error at the deadline.
    NotYet(String),
}

/// Polls `look` until it is done or `deadline` has passed. An error of `look` itself ends the wait.
pub fn until<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let started = Instant::now();
    let mut step = Duration::from_millis(10);
    loop {
        match look()? {
            Look::Done(value) => return Ok(value),
            Look::NotYet(reason) if started.elapsed() >= deadline => {
                bail!("{what}: not within {} s: {reason}", deadline.as_secs());
            }
            Look::NotYet(_) => {}
        }
        stop::pause(step)?;
        step = (step * 3 / 2).min(Duration::from_millis(250));
    }
}
