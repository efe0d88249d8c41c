//! What a server lists, read at most once at a time and kept for a moment; with the server's bounds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use polity_api::reasons;
use polity_policy::ToolFacts;
use polity_upstream::{
    Definition,
    client::{Conversation, Endpoint, Failure},
};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{
    AT_ONCE,
    circuit::{Circuit, Gate},
    run::Leave,
};
use crate::http_tool::{HttpTools, answer::masked, send::Channel};

/// Longest time to read a list.
pub(super) const READ: Duration = Duration::from_secs(10);

/// One server, as one namespace reaches it.
#[derive(Debug)]
pub(super) struct Upstream {
    patience: Duration,
    /// Calls under way.
    pub slots: Arc<Semaphore>,
    circuit: Mutex<Circuit>,
    kept: ArcSwapOption<Listing>,
    /// Held while the list is read; has when the last reading ended badly, and how.
    reading: tokio::sync::Mutex<Option<(Instant, Unlisted)>>,
}

/// What a server lists.
#[derive(Debug)]
pub(super) struct Listing {
    asked: Instant,
    /// By name.
    pub tools: HashMap<String, Listed>,
}

/// What it lists under one name.
#[derive(Debug)]
pub(super) enum Listed {
    /// A definition.
    One(Definition),
    /// More than one.
    Twice,
    /// Something else.
    Not(String),
}

/// Why there is no list.
#[derive(Clone, Debug)]
pub(super) struct Unlisted {
    pub reason: &'static str,
    pub message: String,
}

impl Listing {
    fn of(asked: Instant, listed: &[Value]) -> Self {
        let mut tools = HashMap::new();
        for value in listed {
            let Some(name) = value.get("name").and_then(Value::as_str) else { continue };
            let one = Definition::of(value).map_or_else(|e| Listed::Not(e.to_string()), Listed::One);
            tools.entry(name.to_owned()).and_modify(|there| *there = Listed::Twice).or_insert(one);
        }
        Self { asked, tools }
    }

    /// Whether it lists this definition.
    pub fn has(&self, name: &str, digest: &str) -> bool {
        matches!(self.tools.get(name), Some(Listed::One(definition)) if definition.digest() == digest)
    }

    /// How long ago it was asked for.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.asked)
    }
}

impl Upstream {
    /// One whose list is waited for so long.
    pub fn new(patience: Duration) -> Self {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        Self { patience, slots, circuit: Mutex::default(), kept: ArcSwapOption::empty(), reading: tokio::sync::Mutex::default() }
    }

    /// What the server lists, asked for at `since` or later (None: whenever).
    pub async fn listing(&self, http: &HttpTools, tool: &ToolFacts, since: Option<Instant>) -> Result<Arc<Listing>, Unlisted> {
        let good = |listing: &Arc<Listing>| since.is_none_or(|since| listing.asked >= since);
        let wanted = Instant::now();
        if self.gate() == Gate::Closed
            && let Some(kept) = self.kept.load_full().filter(good)
        {
            return Ok(kept);
        }
        let mut failed = self.reading.lock().await;
        // Somebody else has read it meanwhile, or tried to.
        match self.gate() {
            Gate::Open(left) => {
                let last = failed.as_ref().map(|(_, why)| format!(": {}", why.message)).unwrap_or_default();
                let message = format!("the server has failed too often and is asked again in {} s{last}", left.as_secs() + 1);
                return Err(Unlisted { reason: reasons::UPSTREAM_UNAVAILABLE, message });
            }
            Gate::Closed => {
                if let Some(kept) = self.kept.load_full().filter(good) {
                    return Ok(kept);
                }
                if let Some((at, why)) = failed.as_ref().filter(|(at, _)| *at >= wanted) {
                    tracing::debug!(waited = ?at.saturating_duration_since(wanted), "a reading that was waited for has failed");
                    return Err(why.clone());
                }
            }
            Gate::Probe => {}
        }
        let asked = Instant::now();
        match tokio::time::timeout(self.patience, read(http, tool)).await.unwrap_or_else(|_| Err(self.late())) {
            Ok(listed) => {
                let listing = Arc::new(Listing::of(asked, &listed));
                self.worked();
                self.kept.store(Some(listing.clone()));
                *failed = None;
                Ok(listing)
            }
            Err(why) => {
                self.failed();
                *failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    /// What it lists has changed.
    pub fn forget(&self) {
        self.kept.store(None);
    }

    pub fn worked(&self) {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner).worked();
    }

    pub fn failed(&self) {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner).failed(Instant::now());
    }

    fn late(&self) -> Unlisted {
        let message = format!("the server gave no list of its tools within {:?}", self.patience);
        Unlisted { reason: reasons::UPSTREAM_UNAVAILABLE, message }
    }

    fn gate(&self) -> Gate {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner).gate(Instant::now())
    }
}

async fn read(http: &HttpTools, tool: &ToolFacts) -> Result<Vec<Value>, Unlisted> {
    let mcp = tool.spec.runtime.mcp.as_ref();
    let mcp = mcp.ok_or_else(|| Unlisted { reason: reasons::TOOL_NOT_READY, message: "the Tool has no mcp runtime".to_owned() })?;
    let channel = Channel::open(http, &tool.namespace, &mcp.endpoint(), "").await.map_err(|ran| {
        let reason = if ran.reason == reasons::TOOL_FAILED { reasons::UPSTREAM_UNAVAILABLE } else { ran.reason };
        Unlisted { reason, message: ran.message }
    })?;
    let Channel { client, url, headers, secrets } = channel;
    let unlisted = |failure: Failure| {
        let failure = failure.worded(|text| masked(text, &secrets));
        Unlisted { reason: reasons::UPSTREAM_UNAVAILABLE, message: format!("the server {failure}") }
    };
    let mut conversation = Conversation::open(Endpoint { client, url, headers }).await.map_err(unlisted)?;
    // Also when it is dropped in the middle.
    let leave = Leave::after(&conversation);
    let listed = conversation.list().await.map_err(unlisted);
    leave.end();
    listed
}
