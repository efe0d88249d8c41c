//! How far each chain has grown on disk, for those who wait for more of it. Knows no record.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// Heads of chains, by the Org's uid, as of the last flush.
#[derive(Debug)]
pub(crate) struct Heads {
    known: Mutex<HashMap<String, i64>>,
    commits: watch::Sender<u64>,
}

impl Heads {
    /// With the heads at the opening.
    pub(crate) fn new(known: HashMap<String, i64>) -> Self {
        Self { known: Mutex::new(known), commits: watch::Sender::new(0) }
    }

    /// Whether a chain has records beyond a sequence.
    pub(crate) fn beyond(&self, uid: &str, seq: i64) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(uid).is_some_and(|head| *head > seq)
    }

    /// Chains have grown, and their new records are on disk.
    pub(crate) fn grew(&self, heads: Vec<(String, i64)>) {
        if heads.is_empty() {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (uid, seq) in heads {
            let head = known.entry(uid).or_default();
            *head = seq.max(*head);
        }
        drop(known);
        self.commits.send_modify(|count| *count += 1);
    }

    /// Told after each flush that made a chain grow.
    pub(crate) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }
}
