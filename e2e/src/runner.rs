//! Runs the tests of one level against one installation: started before the first, stopped after the last. Ordinary tests share it and run
//! side by side; a disruptive one (it kills or restarts parts) has it alone.
//!
//! A test that failed by a missed deadline runs once more, alone, and is named at the end: on a machine that compiles beside it, being late once says
//! little. What a test found wrong is never tried again.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::sync::RwLock;

use crate::wait::Late;

/// What a test gets.
pub type Shared<T> = Arc<RwLock<T>>;
type Body<T> = for<'a> fn(&'a T) -> LocalBoxFuture<'a, Result<()>>;
type Disruptive<T> = for<'a> fn(&'a mut T) -> LocalBoxFuture<'a, Result<()>>;

/// How long each test ran, without its wait for the installation.
type Times = Arc<Mutex<Vec<(Duration, String)>>>;

/// Tests that were late, and why.
type Lates = Arc<Mutex<Vec<(String, String)>>>;

/// How many of the slowest tests are named at the end.
const SLOWEST: usize = 12;

/// Collects tests and runs them.
pub struct Suite<T> {
    shared: Shared<T>,
    trials: Vec<Trial>,
    times: Times,
    lates: Lates,
}

impl<T: Send + Sync + 'static> Suite<T> {
    /// A suite for what the tests share.
    pub fn new(shared: T) -> Self {
        Self { shared: Arc::new(RwLock::new(shared)), trials: Vec::new(), times: Times::default(), lates: Lates::default() }
    }

    /// Adds a test that shares the installation with others.
    #[must_use]
    pub fn test(mut self, name: &str, body: Body<T>) -> Self {
        let (shared, times, lates, named) = (self.shared.clone(), self.times.clone(), self.lates.clone(), name.to_owned());
        self.trials.push(Trial::test(name, move || {
            block_on(async move {
                let first = {
                    let shared = shared.read().await;
                    timed(&times, &named, body(&shared)).await
                };
                let Some(shared) = again(&lates, &named, first.as_ref().err()).then(|| shared.write()) else { return first };
                let shared = shared.await;
                timed(&times, &named, body(&shared)).await
            })
        }));
        self
    }

    /// Adds a test that has the installation alone.
    #[must_use]
    pub fn alone(mut self, name: &str, body: Disruptive<T>) -> Self {
        let (shared, times, lates, named) = (self.shared.clone(), self.times.clone(), self.lates.clone(), name.to_owned());
        self.trials.push(Trial::test(name, move || {
            block_on(async move {
                let mut shared = shared.write().await;
                let first = timed(&times, &named, body(&mut shared)).await;
                if !again(&lates, &named, first.as_ref().err()) {
                    return first;
                }
                timed(&times, &named, body(&mut shared)).await
            })
        }));
        self
    }

    /// As [`alone`](Self::alone), where this machine allows the test what it needs; elsewhere it is listed as ignored.
    #[must_use]
    pub fn alone_if(mut self, possible: bool, name: &str, body: Disruptive<T>) -> Self {
        if possible {
            return self.alone(name, body);
        }
        self.trials.push(Trial::test(name, || Err(Failed::from("this machine does not allow it what it needs"))).with_ignored_flag(true));
        self
    }

    /// Runs what the command line selects, then `after` on what was shared, and says how it went.
    pub fn run(self, after: impl FnOnce(&mut T) -> Result<()>) -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads.get_or_insert(4);
        let conclusion = libtest_mimic::run(&arguments, self.trials);
        let mut times = std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner));
        times.sort_unstable_by(|a, b| b.cmp(a));
        let slowest: Vec<String> = times.iter().take(SLOWEST).map(|(took, name)| format!("{name} {} s", took.as_secs())).collect();
        println!("slowest: {}", slowest.join(", "));
        for (name, why) in self.lates.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            println!("late at first, then run again alone: {name}: {why}");
        }
        let last = after(&mut self.shared.blocking_write());
        if let Err(error) = &last {
            eprintln!("after the tests: {error:#}");
        }
        drop(self.shared);
        if conclusion.has_failed() || last.is_err() { ExitCode::from(101) } else { ExitCode::SUCCESS }
    }
}

/// Whether a test is to run once more; noted then.
fn again(lates: &Lates, name: &str, error: Option<&anyhow::Error>) -> bool {
    let Some(error) = error.filter(|e| e.chain().any(|cause| cause.is::<Late>())) else { return false };
    eprintln!("{name} was late and runs again, alone: {error:#}");
    lates.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), format!("{error:#}")));
    true
}

async fn timed(times: &Times, name: &str, body: impl Future<Output = Result<()>>) -> Result<()> {
    let from = Instant::now();
    let result = body.await;
    times.lock().unwrap_or_else(PoisonError::into_inner).push((from.elapsed(), name.to_owned()));
    result
}

fn block_on(body: impl Future<Output = Result<()>>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| Failed::from(e.to_string()))?;
    runtime.block_on(body).map_err(|e| Failed::from(format!("{e:#}")))
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[tokio::test]
    async fn only_a_missed_deadline_is_tried_again() {
        let lates = Lates::default();
        let late = crate::until(Duration::ZERO, "the end", || async { Err::<(), _>("not yet".to_owned()) }).await.context("a step");
        assert!(again(&lates, "slow", late.as_ref().err()));
        assert!(!again(&lates, "wrong", Some(&anyhow::anyhow!("11 of 10 began"))));
        assert!(!again(&lates, "good", None));
        assert_eq!(*lates.lock().unwrap(), [("slow".to_owned(), "a step: the end: not within 0ns: not yet".to_owned())]);
    }
}
