//! Proof of life of one watch: when the API server last said anything. Measured on the monotonic clock.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Age of what a watch has told.
#[derive(Debug)]
pub struct Pulse {
    base: Instant,
    /// Microseconds after `base`, plus one; 0: never.
    last: AtomicU64,
    synced: AtomicBool,
    became_synced: Notify,
    /// Highest resourceVersion seen; 0: none.
    version: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            base: Instant::now(),
            last: AtomicU64::new(0),
            synced: AtomicBool::new(false),
            became_synced: Notify::new(),
            version: AtomicU64::new(0),
        }
    }
}

impl Pulse {
    /// The API server spoke just now.
    pub fn beat(&self) {
        let since = u64::try_from(self.base.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.last.fetch_max(since + 1, Ordering::Release);
    }

    /// The first full list has been taken over.
    pub fn set_synced(&self) {
        self.synced.store(true, Ordering::Release);
        self.became_synced.notify_waiters();
    }

    /// Whether the first full list has been taken over.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Waits for the first full list.
    pub async fn until_synced(&self) {
        loop {
            let next = self.became_synced.notified();
            if self.synced() {
                return;
            }
            next.await;
        }
    }

    /// Time since the API server last spoke; None: never did.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let last = self.last.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.base.elapsed().saturating_sub(Duration::from_micros(last)))
    }

    /// A resourceVersion was seen. What is no number is passed over.
    pub fn saw(&self, version: &str) {
        if let Ok(version) = version.parse() {
            self.version.fetch_max(version, Ordering::AcqRel);
        }
    }

    /// Whether the watch is known to have passed this resourceVersion (an unreadable one counts as passed).
    #[must_use]
    pub fn passed(&self, version: &str) -> bool {
        version.parse::<u64>().map_or(true, |version| version <= self.version.load(Ordering::Acquire))
    }
}
