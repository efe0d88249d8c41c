//! A conversation with an MCP server over streamable HTTP: initialize, `tools/list`, `tools/call`, and the end. A server that is not initialized any more
//! (revision 2026-07-28) is asked in that way. Requests only what it is told to,
//! once; offers the server nothing (no sampling, elicitation or roots: what a server asks is refused) and believes nothing but the answer to the
//! request that it sent. Bounds sizes; the time is its caller's to bound.
//!
//! It is not the official SDK's client because that one parses a listing into its own types, so that a digest would be of what it understood; opens
//! streams and tries again by itself; and does not say whether a request was sent, which decides whether a call may have taken effect.

mod http;
mod modern;
mod sse;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};

pub use http::{Answered, causes};

/// The revision that is asked for first.
pub const REVISION: &str = "2025-11-25";
/// Revisions that a server may answer with.
const REVISIONS: [&str; 3] = [REVISION, "2025-06-18", "2025-03-26"];
/// JSON-RPC: method not found. What a server is told that asks for something, and what is made of one that asks instead of answering.
const NOT_OFFERED: i64 = -32601;
/// Largest message from a server, in bytes.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// Most bytes of a stream until the answer has come.
pub const MAX_STREAM: usize = 4 * 1024 * 1024;
/// Most pages of a listing.
const MAX_PAGES: usize = 32;
/// Most tools of a listing.
const MAX_TOOLS: usize = 2000;
/// Most characters that are kept of what a server says about a failure.
const EXCERPT: usize = 200;

/// Where a server is, and with what client it is reached.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Connects. Must follow no redirect and retry nothing.
    pub client: reqwest::Client,
    /// The MCP endpoint.
    pub url: url::Url,
    /// Sent with each request.
    pub headers: HeaderMap,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing was sent.
    #[error("cannot be reached: {why}")]
    NotSent {
        /// No connection in time.
        timed_out: bool,
        /// Causes.
        why: String,
    },
    /// Sent, or perhaps sent, and no answer to it.
    #[error("gave no full answer: {why}")]
    Broken {
        /// Not in time.
        timed_out: bool,
        /// Causes.
        why: String,
    },
    /// A status that is no success.
    #[error("answered {status}{}", http::told(*.status, .location.as_deref(), &excerpt(.text)))]
    Status {
        /// HTTP status.
        status: u16,
        /// Where a redirect leads to, without its query.
        location: Option<String>,
        /// The beginning of the body.
        text: String,
    },
    /// The answer is larger than `MAX_MESSAGE`.
    #[error("answered with more than {MAX_MESSAGE} bytes")]
    TooLarge,
    /// A JSON-RPC error as answer.
    #[error("answered error {code}: {}", excerpt(.message))]
    Refused {
        /// JSON-RPC code.
        code: i64,
        /// The server's words.
        message: String,
    },
    /// Answered with what is no answer to the request.
    #[error("does not speak MCP as it should: {0}")]
    Protocol(String),
}

impl Failure {
    /// With the server's own words changed, e.g. to mask what must not be shown.
    #[must_use]
    pub fn worded(self, change: impl Fn(String) -> String) -> Self {
        match self {
            Self::Status { status, location, text } => Self::Status { status, location, text: change(text) },
            Self::Refused { code, message } => Self::Refused { code, message: change(message) },
            other => other,
        }
    }
}

/// A conversation that can be had.
#[derive(Debug)]
pub struct Conversation {
    endpoint: Endpoint,
    next: u64,
    /// Each request stands for itself, as since revision 2026-07-28.
    modern: bool,
    /// The server said that its list of tools has changed.
    pub list_changed: bool,
}

impl Conversation {
    /// Begins: initializes, or finds out that the server speaks only the revision that needs no beginning.
    ///
    /// # Errors
    /// As `Failure` says; no tool was called.
    pub async fn open(endpoint: Endpoint) -> Result<Self, Failure> {
        let not = match Self::initialize(endpoint.clone()).await {
            Err(not @ (Failure::Refused { .. } | Failure::Status { status: 400 | 404 | 405 | 406 | 415 | 422, .. })) => not,
            other => return other,
        };
        // What it said to the first question is what counts if it does not know the second one either.
        Self::discover(endpoint).await.map_err(|_| not)
    }

    /// Asks what the server speaks.
    async fn discover(mut endpoint: Endpoint) -> Result<Self, Failure> {
        endpoint.headers.insert("mcp-protocol-version", HeaderValue::from_static(modern::REVISION));
        let mut own = Self { endpoint, next: 0, modern: true, list_changed: false };
        let found = own.ask("server/discover", json!({}), None).await?.result;
        let spoken = found.get("supportedVersions").and_then(Value::as_array);
        if !spoken.is_some_and(|versions| versions.iter().any(|version| version == modern::REVISION)) {
            return Err(Failure::Protocol(format!("it does not speak {}", modern::REVISION)));
        }
        Ok(own)
    }

    /// Initializes. A session that the server opens is kept for this conversation only.
    async fn initialize(endpoint: Endpoint) -> Result<Self, Failure> {
        let mut own = Self { endpoint, next: 0, modern: false, list_changed: false };
        let params = json!({
            "protocolVersion": REVISION,
            "capabilities": {},
            "clientInfo": {"name": "polity", "version": env!("CARGO_PKG_VERSION")},
        });
        let Answered { result, session } = own.ask("initialize", params, None).await?;
        let revision = result.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
        if !REVISIONS.contains(&revision) {
            let named: String = revision.chars().take(32).filter(|c| c.is_ascii_graphic()).collect();
            return Err(Failure::Protocol(format!("it answers revision {named:?}; {} are spoken", REVISIONS.join(", "))));
        }
        let revision = HeaderValue::from_str(revision).map_err(|e| Failure::Protocol(e.to_string()))?;
        own.endpoint.headers.insert("mcp-protocol-version", revision);
        if let Some(session) = session {
            own.endpoint.headers.insert("mcp-session-id", session);
        }
        http::tell(&own.endpoint, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        Ok(own)
    }

    /// Every tool that the server lists, as it lists it.
    ///
    /// # Errors
    /// As `Failure` says; also when the list does not end.
    pub async fn list(&mut self) -> Result<Vec<Value>, Failure> {
        let (mut tools, mut size, mut seen) = (Vec::new(), 0, HashSet::new());
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let params = cursor.as_ref().map_or_else(|| json!({}), |c| json!({"cursor": c}));
            let mut result = self.ask("tools/list", params, None).await?.result;
            let Some(Value::Array(page)) = result.get_mut("tools").map(Value::take) else {
                return Err(Failure::Protocol("its answer to tools/list has no list of tools".to_owned()));
            };
            size += page.iter().map(|t| t.to_string().len()).sum::<usize>();
            tools.extend(page);
            if tools.len() > MAX_TOOLS || size > MAX_STREAM {
                return Err(Failure::Protocol(format!("it lists more than {MAX_TOOLS} tools or {MAX_STREAM} bytes")));
            }
            cursor = match result.get("nextCursor") {
                None | Some(Value::Null) => return Ok(tools),
                Some(Value::String(next)) if seen.insert(next.clone()) => Some(next.clone()),
                Some(_) => return Err(Failure::Protocol("its list of tools turns in a circle".to_owned())),
            };
        }
        Err(Failure::Protocol(format!("its list of tools has more than {MAX_PAGES} pages")))
    }

    /// Calls a tool; gives the `CallToolResult` as it came. `schema` is the tool's input schema as the server lists it.
    ///
    /// # Errors
    /// As `Failure` says: only after `NotSent` nothing has happened for certain.
    pub async fn call(
        &mut self,
        name: &str,
        arguments: &Map<String, Value>,
        schema: Option<&Value>,
        trace: &str,
    ) -> Result<Value, Failure> {
        let mut params = json!({"name": name, "arguments": arguments});
        if !trace.is_empty() {
            params["_meta"] = json!({"traceparent": trace});
        }
        let result = self.ask("tools/call", params, schema).await?.result;
        match result.get("resultType").and_then(Value::as_str) {
            None | Some("complete") => Ok(result),
            Some(other) => {
                let message = format!("it gives no result but {:?}; what it asks for is not offered", excerpt(other));
                Err(Failure::Refused { code: NOT_OFFERED, message })
            }
        }
    }

    /// What ends this conversation, whatever becomes of it: to be sent after the last answer, or instead of waiting for it.
    #[must_use]
    pub fn farewell(&self) -> Farewell {
        Farewell { endpoint: self.endpoint.clone(), last: self.next, modern: self.modern }
    }

    async fn ask(&mut self, method: &str, mut params: Value, schema: Option<&Value>) -> Result<Answered, Failure> {
        self.next += 1;
        let mut endpoint = self.endpoint.clone();
        if self.modern {
            modern::mark(&mut params);
            endpoint.headers.extend(modern::headers(method, &params, schema));
        }
        let message = json!({"jsonrpc": "2.0", "id": self.next, "method": method, "params": params});
        http::ask(&endpoint, &message, self.next, &mut self.list_changed).await
    }
}

/// The end of a conversation. Best effort: a server that hears nothing of it drops the session by itself.
#[derive(Clone, Debug)]
pub struct Farewell {
    endpoint: Endpoint,
    last: u64,
    modern: bool,
}

impl Farewell {
    /// Says that the last request is not waited for any more, and ends the session.
    pub async fn cancel(self) {
        if self.modern {
            // The connection was closed, which says it.
            return;
        }
        let params = json!({"requestId": self.last + 1, "reason": "nobody waits for the answer any more"});
        let _ = http::tell(&self.endpoint, &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await;
        self.end().await;
    }

    /// Ends the session, if there is one.
    pub async fn end(self) {
        if self.endpoint.headers.contains_key("mcp-session-id") {
            let _ = self.endpoint.client.delete(self.endpoint.url.clone()).headers(self.endpoint.headers.clone()).send().await;
        }
    }
}

/// The beginning of what a server said, on one line.
#[must_use]
pub fn excerpt(text: &str) -> String {
    let shown = |c: char| if crate::flags::hidden(c) { '\u{fffd}' } else { c };
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(EXCERPT).map(shown).collect()
}
