//! Calls under way at this replica, by the keys that they can be canceled by, and wishes to cancel that other replicas were told.
//!
//! A key is an id or a digest that only who made the call can name: whoever asks to cancel is checked before a key is made. A wish for something that is
//! not under way has no effect. Nothing here ends a call: it only tells the call that nobody wants it any more.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use polity_runtime::{
    CancellationToken,
    internal::{CancelRequest, CancelsRequest, MAX_WAIT_SECONDS},
};
use sha2::{Digest as _, Sha256};

use crate::{problem::Problem, state::Gateway};

/// Pause when core cannot be asked for wishes.
const PAUSE: Duration = Duration::from_secs(1);

/// What is under way.
#[derive(Debug, Default)]
pub struct UnderWay {
    leashes: AtomicU64,
    all: Mutex<HashMap<String, Vec<(u64, CancellationToken)>>>,
}

impl UnderWay {
    /// Tells what is under way under this key that it is not wanted any more. False: nothing is.
    pub fn cancel(&self, key: &str) -> bool {
        let found = self.all.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned().unwrap_or_default();
        found.iter().for_each(|(_, token)| token.cancel());
        !found.is_empty()
    }

    /// What is to begin, under these keys; it is under way until the leash is dropped.
    pub fn leash(self: &Arc<Self>, keys: Vec<String>) -> Leash {
        let (number, token) = (self.leashes.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &keys {
            all.entry(key.clone()).or_default().push((number, token.clone()));
        }
        drop(all);
        Leash { number, token, keys, of: self.clone() }
    }
}

/// By what a call can be stopped.
#[derive(Debug)]
pub struct Leash {
    number: u64,
    token: CancellationToken,
    keys: Vec<String>,
    of: Arc<UnderWay>,
}

impl Leash {
    /// Canceled when the call is not wanted any more.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        let mut all = self.of.all.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            if let Some(tokens) = all.get_mut(key) {
                tokens.retain(|(number, _)| *number != self.number);
                if tokens.is_empty() {
                    all.remove(key);
                }
            }
        }
    }
}

/// The key of a request of an MCP client: its session is known to nobody else.
pub fn key_of_request(org_uid: &str, username: &str, session: &str, request: &str) -> String {
    let mut hash = Sha256::new();
    for part in ["polity mcp request", org_uid, username, session, request] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    format!("mcp-{}", hex::encode(hash.finalize()))
}

impl Gateway {
    /// Asks that a call be canceled, wherever it is under way.
    ///
    /// # Errors
    /// It is not under way here, and core cannot be asked.
    pub(crate) async fn cancel_under_way(&self, org_uid: &str, key: String) -> Result<(), Problem> {
        if self.under_way.cancel(&key) {
            return Ok(());
        }
        Ok(self.core.cancel(&CancelRequest { org: org_uid.to_owned(), key }).await?)
    }
}

/// Listens to wishes that other replicas were told, until stopped.
pub async fn hear_cancels(gateway: Arc<Gateway>, stop: CancellationToken) {
    let mut position = CancelsRequest { wait: MAX_WAIT_SECONDS, ..CancelsRequest::default() };
    loop {
        let asked = tokio::select! {
            asked = gateway.core.cancels(&position) => asked,
            () = stop.cancelled() => return,
        };
        match asked {
            Ok(page) => {
                for key in &page.keys {
                    gateway.under_way.cancel(key);
                }
                position = CancelsRequest { epoch: page.epoch, after: page.next, ..position };
            }
            Err(error) => {
                tracing::debug!(%error, "core cannot be asked for wishes to cancel");
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_told_and_nothing_else() {
        let all = Arc::new(UnderWay::default());
        let (one, two) = (all.leash(vec!["a".into(), "b".into()]), all.leash(vec!["b".into()]));
        assert!(!all.cancel("c") && all.cancel("a"));
        assert!(one.token().is_cancelled() && !two.token().is_cancelled());
        assert!(all.cancel("b") && two.token().is_cancelled());
        drop(one);
        assert!(!all.cancel("a") && all.cancel("b"));
        drop(two);
        assert!(!all.cancel("b") && all.all.lock().unwrap().is_empty());
    }

    #[test]
    fn a_key_is_of_one_request_of_one_session_of_one_caller() {
        let key = key_of_request("org", "ann", "s", "1");
        for other in [
            ["org", "ann", "s", "2"],
            ["org", "ann", "t", "1"],
            ["org", "bob", "s", "1"],
            ["gro", "ann", "s", "1"],
            ["org", "ann", "s", "\"1\""],
        ] {
            assert_ne!(key, key_of_request(other[0], other[1], other[2], other[3]), "{other:?}");
        }
        assert_ne!(key_of_request("o", "ab", "c", "1"), key_of_request("o", "a", "bc", "1"));
    }
}
