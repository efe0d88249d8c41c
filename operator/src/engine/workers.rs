//! Workers of one controller: take a key, reconcile it, ask the requeue table when to come back. A panic is a failure like another.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, future::join_all};
use tokio_util::sync::CancellationToken;

use super::{Key, queue::Queue};
use crate::requeue::{Category, Outcome, again};

/// An error that knows its row of the requeue table.
pub trait Failure: std::error::Error + Send {
    /// Its row.
    fn category(&self) -> Category;
}

/// For a reconcile that answers its own failures.
impl Failure for std::convert::Infallible {
    fn category(&self) -> Category {
        match *self {}
    }
}

/// Runs `concurrency` workers until `shutdown`; the reconcile in hand is finished first.
pub async fn run<E, F, Fut>(name: &'static str, queue: Arc<Queue>, concurrency: usize, reconcile: F, shutdown: CancellationToken)
where
    E: Failure + 'static,
    F: Fn(Key) -> Fut,
    Fut: Future<Output = Result<Outcome, E>>,
{
    let work = || async {
        loop {
            let key = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                key = queue.take() => key,
            };
            let result = AssertUnwindSafe(reconcile(key.clone())).catch_unwind().await;
            let again = settle(name, &queue, &key, result);
            queue.done(key, again);
        }
    };
    join_all((0..concurrency.max(1)).map(|_| work())).await;
}

/// Logs and counts one result; answers when to come back.
fn settle<E: Failure + 'static>(name: &str, queue: &Queue, key: &Key, result: std::thread::Result<Result<Outcome, E>>) -> Option<Duration> {
    let jitter = rand::random::<f64>();
    let category = match result {
        Ok(Ok(outcome)) => {
            queue.count(key, false);
            return again(&Ok(outcome), 0, jitter);
        }
        Ok(Err(error)) => {
            let category = error.category();
            tracing::warn!(controller = name, namespace = key.0, name = key.1, category = ?category, error = &error as &(dyn std::error::Error + 'static), "reconcile failed");
            category
        }
        Err(_) => {
            tracing::error!(controller = name, namespace = key.0, name = key.1, "reconcile panicked");
            Category::Transient
        }
    };
    let before = queue.count(key, true);
    again(&Err(category), before, jitter)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no")]
    struct No;
    impl Failure for No {
        fn category(&self) -> Category {
            Category::Conflict
        }
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_panics_come_back_and_stop_nobody() {
        let queue = Arc::new(Queue::new(Duration::ZERO));
        let shutdown = CancellationToken::new();
        let (tries, other) = (AtomicU32::new(0), AtomicU32::new(0));
        for name in ["bad", "good"] {
            queue.add((String::new(), name.to_owned()));
        }
        let reconcile = |key: Key| {
            let (tries, other, shutdown) = (&tries, &other, &shutdown);
            async move {
                if key.1 == "good" {
                    other.fetch_add(1, Ordering::Relaxed);
                    return Ok(Outcome::Settled);
                }
                match tries.fetch_add(1, Ordering::Relaxed) {
                    0 => panic!("a bug"),
                    1 => Err(No),
                    _ => {
                        shutdown.cancel();
                        Ok(Outcome::Settled)
                    }
                }
            }
        };
        run("test", queue, 1, reconcile, shutdown.clone()).await;
        assert_eq!((tries.load(Ordering::Relaxed), other.load(Ordering::Relaxed)), (3, 1));
    }
}
