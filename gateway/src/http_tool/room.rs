//! How much one replica has under way at one HTTP endpoint, so that a slow one does not take the room of all others. Counts, and waits for nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use polity_policy::ToolFacts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Calls that one replica sends to one endpoint at once: a quarter of what it takes in all.
pub const AT_ONCE: usize = 128;
/// Endpoints that are remembered although nothing of theirs is under way.
const REMEMBERED: usize = 1024;

/// Room at endpoints.
#[derive(Debug, Default)]
pub struct Rooms(Mutex<HashMap<String, Arc<Semaphore>>>);

impl Rooms {
    /// Room for one more call of a Tool, for as long as it is kept. None: its endpoint has none left, or it has no endpoint.
    pub fn take(&self, tool: &ToolFacts) -> Option<OwnedSemaphorePermit> {
        let (_, endpoint) = tool.spec.runtime.endpoint()?;
        // Tools of one namespace that reach it in the same way share it.
        let key = format!("{}\n{}", tool.namespace, serde_json::to_string(&endpoint).ok()?);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.retain(|_, room| room.available_permits() < AT_ONCE);
        }
        let room = all.entry(key).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone();
        room.try_acquire_owned().ok()
    }
}
