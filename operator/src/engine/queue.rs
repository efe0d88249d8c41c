//! Keys that wait for a worker: each at most once, never worked on by two at a time, the earliest wish wins.
//!
//! Holds keys only; what they mean and how often they fail is counted here, why is the worker's.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::Key;

#[derive(Debug, Default)]
struct State {
    /// By time, then key.
    due: BTreeSet<(Instant, Key)>,
    /// The time that `due` has for a key.
    at: HashMap<Key, Instant>,
    running: HashSet<Key>,
    failures: HashMap<Key, u32>,
}

impl State {
    fn schedule(&mut self, key: Key, when: Instant) {
        match self.at.get(&key).copied() {
            Some(old) if old <= when => return,
            Some(old) => {
                self.due.remove(&(old, key.clone()));
            }
            None => {}
        }
        self.at.insert(key.clone(), when);
        self.due.insert((when, key));
    }

    /// The first key that is due and idle; or when to look again.
    fn next(&mut self, now: Instant) -> Result<Key, Option<Instant>> {
        let found = self.due.iter().find(|(_, key)| !self.running.contains(key)).cloned();
        match found {
            Some((when, key)) if when <= now => {
                self.due.remove(&(when, key.clone()));
                self.at.remove(&key);
                self.running.insert(key.clone());
                Ok(key)
            }
            Some((when, _)) => Err(Some(when)),
            None => Err(None),
        }
    }
}

/// Queue of one controller.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    wake: Notify,
    debounce: Duration,
}

impl Queue {
    /// Keys added become due after `debounce`, so that a burst of changes is one reconcile.
    #[must_use]
    pub fn new(debounce: Duration) -> Self {
        Self { state: Mutex::default(), wake: Notify::new(), debounce }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants `key` worked on soon.
    pub fn add(&self, key: Key) {
        self.add_after(key, self.debounce);
    }

    /// Wants `key` worked on after `delay`, or earlier when it already is to be.
    pub fn add_after(&self, key: Key, delay: Duration) {
        self.state().schedule(key, Instant::now() + delay);
        self.wake.notify_one();
    }

    /// Waits for a key that is due. The caller must hand it back with `done`.
    pub async fn take(&self) -> Key {
        loop {
            let notified = self.wake.notified();
            let next = self.state().next(Instant::now());
            match next {
                Ok(key) => {
                    // Another worker may find the next one.
                    self.wake.notify_one();
                    return key;
                }
                Err(Some(when)) => tokio::select! {
                    () = notified => {}
                    () = tokio::time::sleep_until(when) => {}
                },
                Err(None) => notified.await,
            }
        }
    }

    /// Counts a failure of `key`, or forgets its failures; answers how many in a row there were before.
    pub fn count(&self, key: &Key, failed: bool) -> u32 {
        let failures = &mut self.state().failures;
        if !failed {
            return failures.remove(key).unwrap_or_default();
        }
        let count = failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        *count - 1
    }

    /// Hands a key back, and wants it again after `again`.
    pub fn done(&self, key: Key, again: Option<Duration>) {
        let mut state = self.state();
        state.running.remove(&key);
        if let Some(delay) = again {
            state.schedule(key, Instant::now() + delay);
        }
        drop(state);
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        (String::new(), name.to_owned())
    }
    async fn none(queue: &Queue) -> bool {
        tokio::time::timeout(Duration::from_millis(1), queue.take()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_and_the_earliest_wish_wins() {
        let queue = Queue::new(Duration::from_millis(50));
        queue.add_after(key("a"), Duration::from_secs(600));
        queue.add(key("a"));
        queue.add(key("a"));
        let start = Instant::now();
        assert_eq!(queue.take().await, key("a"));
        assert!(start.elapsed() >= Duration::from_millis(50) && start.elapsed() < Duration::from_secs(1));
        queue.done(key("a"), None);
        assert!(none(&queue).await, "nothing is left of the burst nor of the slow wish");
    }

    #[tokio::test(start_paused = true)]
    async fn one_key_is_never_worked_on_twice_at_a_time() {
        let queue = Queue::new(Duration::ZERO);
        queue.add(key("a"));
        let taken = queue.take().await;
        queue.add(key("a"));
        queue.add(key("b"));
        assert_eq!(queue.take().await, key("b"));
        assert!(none(&queue).await);
        queue.done(taken, None);
        assert_eq!(queue.take().await, key("a"), "the change during the work is not lost");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_counted_in_a_row() {
        let queue = Queue::new(Duration::ZERO);
        assert_eq!(queue.count(&key("a"), true), 0);
        assert_eq!(queue.count(&key("a"), true), 1);
        assert_eq!(queue.count(&key("a"), false), 2);
        assert_eq!(queue.count(&key("a"), true), 0);
    }
}
