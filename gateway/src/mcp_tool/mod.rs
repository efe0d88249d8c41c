//! Calls tools of others' MCP servers (Tools with runtime `mcp`), as far as a server lists exactly the definition that somebody pinned.
//!
//! Before a call begins it is let through here or not: the server must answer, must not have failed too often, must not have too much under way, and
//! must list the definition of the pinned digest. What was let through is sent once begun, over connections that `http_tool` holds to a judged
//! address. Each server has bounds of its own, so that a broken one takes nothing from another. Nothing that a server says changes a pin, and
//! nothing of it is believed but the answer to a call.

mod answer;
mod circuit;
mod listing;
#[cfg(test)]
mod official;
mod run;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use polity_api::reasons;
use polity_policy::ToolFacts;
use polity_upstream::Definition;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use crate::http_tool::HttpTools;
use listing::{Listed, Listing, Unlisted, Upstream};

/// Calls that one replica sends to one server at once.
pub const AT_ONCE: usize = 16;
/// How long what a server lists counts as what it lists now.
pub const FRESH: Duration = Duration::from_secs(30);
/// A list that does not fit is read again, unless it is younger than this.
const RECHECK: Duration = Duration::from_secs(1);
/// Servers that are remembered although nothing of theirs is under way.
const REMEMBERED: usize = 1024;

/// Calls tools of MCP servers.
pub struct McpTools {
    upstreams: Mutex<HashMap<String, Arc<Upstream>>>,
    /// Longest time to read a list.
    patience: Duration,
}

impl Default for McpTools {
    fn default() -> Self {
        Self { upstreams: Mutex::default(), patience: listing::READ }
    }
}

/// A call may begin, and be sent.
#[derive(Debug)]
pub struct Pass {
    upstream: Arc<Upstream>,
    definition: Definition,
    _slot: OwnedSemaphorePermit,
}

/// A server lists another definition than the one pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drifted {
    /// Digest that is pinned.
    pub pinned: String,
    /// Digest of what is listed.
    pub observed: String,
    /// Parts that differ, for people.
    pub changed: Vec<&'static str>,
}

/// Why a call must not begin.
#[derive(Clone, Debug, PartialEq)]
pub struct NotNow {
    /// Stable reason code.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// Something to tell core.
    pub drifted: Option<Box<Drifted>>,
}

impl NotNow {
    fn new(reason: &'static str, message: impl Into<String>, hint: &str) -> Self {
        Self { reason, message: message.into(), hint: hint.to_owned(), drifted: None }
    }
}

impl From<Unlisted> for NotNow {
    fn from(why: Unlisted) -> Self {
        Self::new(why.reason, why.message, "nothing has run; try again, and look at the server if it lasts")
    }
}

impl McpTools {
    /// Lets a call begin, or says why it must not.
    ///
    /// # Errors
    /// The server cannot be asked, or does not list what is pinned.
    pub async fn admit(&self, http: &HttpTools, tool: &ToolFacts) -> Result<Pass, NotNow> {
        const PIN: &str = "look at it and pin it: `kubectl polity tool pin`";
        let unpinned = || NotNow::new(reasons::TOOL_NOT_READY, "its definition is not pinned", PIN);
        let mcp = tool.spec.runtime.mcp.as_ref().ok_or_else(unpinned)?;
        let (Some(pinned), Some(text)) = (&mcp.digest, &mcp.definition) else { return Err(unpinned()) };
        let definition = Definition::parse(text)
            .ok()
            .filter(|d| d.digest() == pinned)
            .ok_or_else(|| NotNow::new(reasons::TOOL_NOT_READY, "the pinned digest is not that of the pinned definition", PIN))?;
        let upstream = self.upstream(tool);
        let Ok(slot) = upstream.slots.clone().try_acquire_owned() else {
            let message = format!("this replica has {AT_ONCE} calls to the server under way");
            return Err(NotNow::new(reasons::UPSTREAM_UNAVAILABLE, message, "nothing has run; try again a little later"));
        };
        let now = Instant::now();
        let mut listing = upstream.listing(http, tool, now.checked_sub(FRESH)).await?;
        if !listing.has(&mcp.tool, pinned) && listing.age(now) > RECHECK {
            // It may list it by now, since the pin or the server is newer.
            listing = upstream.listing(http, tool, Some(now)).await?;
        }
        compare(&listing, &mcp.tool, &definition)?;
        Ok(Pass { upstream, definition, _slot: slot })
    }

    /// What a server lists of a Tool now, pinned or not.
    ///
    /// # Errors
    /// The server cannot be asked, or does not list it.
    pub async fn observe(&self, http: &HttpTools, tool: &ToolFacts) -> Result<Definition, NotNow> {
        let mcp = tool.spec.runtime.mcp.as_ref();
        let mcp = mcp.ok_or_else(|| NotNow::new(reasons::INVALID_REQUEST, "the Tool has no mcp runtime", "there is nothing to pin"))?;
        let now = Instant::now();
        let listing = self.upstream(tool).listing(http, tool, now.checked_sub(RECHECK)).await?;
        match listing.tools.get(&mcp.tool) {
            Some(Listed::One(definition)) => Ok(definition.clone()),
            other => Err(missing(&listing, &mcp.tool, other)),
        }
    }

    /// The server of a Tool. Tools of one namespace that reach it in the same way share it.
    fn upstream(&self, tool: &ToolFacts) -> Arc<Upstream> {
        let endpoint = tool.spec.runtime.mcp.as_ref().and_then(|m| serde_json::to_string(&m.endpoint()).ok()).unwrap_or_default();
        let key = hex::encode(Sha256::digest(format!("{}\n{endpoint}", tool.namespace)));
        let mut all = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.retain(|_, upstream| Arc::strong_count(upstream) > 1);
        }
        all.entry(key).or_insert_with(|| Arc::new(Upstream::new(self.patience))).clone()
    }
}

/// Is what is listed what is pinned?
fn compare(listing: &Listing, name: &str, pinned: &Definition) -> Result<(), NotNow> {
    match listing.tools.get(name) {
        Some(Listed::One(listed)) if listed.digest() == pinned.digest() => Ok(()),
        Some(Listed::One(listed)) => {
            let changed = listed.changed(pinned);
            let drifted = Drifted { pinned: pinned.digest().to_owned(), observed: listed.digest().to_owned(), changed: changed.clone() };
            let message = format!(
                "the server lists another definition of {name:?} ({}) than the one pinned ({}); changed: {}",
                listed.digest(),
                pinned.digest(),
                changed.join(", ")
            );
            let hint = "look at what changed with `kubectl polity tool pin`; the Tool stays in quarantine until its pin is changed";
            Err(NotNow { drifted: Some(Box::new(drifted)), ..NotNow::new(reasons::TOOL_DRIFTED, message, hint) })
        }
        other => Err(missing(listing, name, other)),
    }
}

fn missing(listing: &Listing, name: &str, listed: Option<&Listed>) -> NotNow {
    let message = match listed {
        Some(Listed::Twice) => format!("the server lists {name:?} twice"),
        Some(Listed::Not(why)) => format!("what the server lists as {name:?} is no definition: {why}"),
        _ => format!("the server lists no tool {name:?}; it lists {} tools", listing.tools.len()),
    };
    NotNow::new(reasons::TOOL_DRIFTED, message, "nothing has run; it is asked again at the next call")
}
