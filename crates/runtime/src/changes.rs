//! Telling several listeners what changed, level-triggered: each listener has a queue of keys in which a key waits at most once,
//! so that nothing is lost however slow a listener is, and a queue is never longer than there are keys.

use std::{
    collections::{HashSet, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use futures::Stream;
use tokio::sync::Notify;

#[derive(Debug)]
struct Queue<T> {
    waiting: Mutex<(VecDeque<T>, HashSet<T>)>,
    added: Notify,
}

impl<T: Clone + Eq + Hash> Queue<T> {
    fn push(&self, key: &T) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.1.insert(key.clone()) {
            waiting.0.push_back(key.clone());
            drop(waiting);
            self.added.notify_one();
        }
    }

    fn pop(&self) -> Option<T> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let key = waiting.0.pop_front()?;
        waiting.1.remove(&key);
        Some(key)
    }
}

/// The listener's end: gives each key that changed since it was last given.
#[derive(Debug)]
pub struct Changes<T>(Arc<Queue<T>>);

impl<T: Clone + Eq + Hash> Changes<T> {
    /// Waits for the next key that changed. Look at the present state then: several changes of a key are given once.
    pub async fn next(&mut self) -> T {
        loop {
            if let Some(key) = self.0.pop() {
                return key;
            }
            // A key pushed in between left a permit, so that this returns at once.
            self.0.added.notified().await;
        }
    }

    /// Adds keys to this listener's queue alone.
    pub(crate) fn fill(&mut self, keys: impl IntoIterator<Item = T>) {
        for key in keys {
            self.0.push(&key);
        }
    }

    /// A key that waits already.
    pub fn try_next(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// As an endless stream.
    pub fn into_stream(self) -> impl Stream<Item = T> + Send
    where
        T: Send + Sync + 'static,
    {
        futures::stream::unfold(self, |mut changes| async move { Some((changes.next().await, changes)) })
    }
}

/// The teller's end.
#[derive(Debug)]
pub struct Announcer<T>(Mutex<Vec<Weak<Queue<T>>>>);

impl<T> Default for Announcer<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Eq + Hash> Announcer<T> {
    /// A new listener, whose queue begins with `initial`.
    pub fn subscribe(&self, initial: impl IntoIterator<Item = T>) -> Changes<T> {
        let queue = Arc::new(Queue { waiting: Mutex::default(), added: Notify::new() });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&queue));
        for key in initial {
            queue.push(&key);
        }
        Changes(queue)
    }

    /// Tells every listener; forgets those that are gone.
    pub fn tell(&self, keys: impl IntoIterator<Item = T>) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|l| l.strong_count() > 0);
        let queues: Vec<_> = listeners.iter().filter_map(Weak::upgrade).collect();
        drop(listeners);
        for key in keys {
            for queue in &queues {
                queue.push(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_waits_once_and_none_is_lost() {
        let announcer = Announcer::default();
        let mut slow = announcer.subscribe(["a"]);
        announcer.tell(["b", "a", "b"]);
        assert_eq!([slow.next().await, slow.next().await], ["a", "b"]);
        assert_eq!(slow.try_next(), None);
        announcer.tell(["a"]);
        assert_eq!(slow.next().await, "a");
    }

    #[tokio::test]
    async fn wakes_a_listener_that_waits() {
        let announcer = Arc::new(Announcer::default());
        let mut listener = announcer.subscribe([]);
        let waiting = tokio::spawn(async move { listener.next().await });
        tokio::task::yield_now().await;
        announcer.tell([7]);
        assert_eq!(waiting.await.unwrap(), 7);
    }
}
