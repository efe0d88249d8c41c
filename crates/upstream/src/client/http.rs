//! One message over HTTP: what was never sent, what was answered and what broke off in between are told apart.

use std::time::Duration;

use reqwest::{
    Method, Response,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
};
use serde_json::{Value, json};

use super::{Endpoint, Failure, MAX_MESSAGE, MAX_STREAM, NOT_OFFERED, excerpt, sse};

/// Bytes that are read of a failed answer.
const MAX_FAILED: usize = 4096;
/// Most requests of a server that are refused in one stream; then it is broken off.
const MAX_REQUESTS: usize = 8;
/// Longest time to tell the server so.
const REFUSE: Duration = Duration::from_secs(2);

/// An answer, and the session that came with it.
#[derive(Debug)]
pub struct Answered {
    /// The member `result`.
    pub result: Value,
    /// Header `Mcp-Session-Id`.
    pub session: Option<HeaderValue>,
}

/// Sends a request and reads its answer.
pub(super) async fn ask(endpoint: &Endpoint, message: &Value, id: u64, list_changed: &mut bool) -> Result<Answered, Failure> {
    let answer = send(endpoint, message).await?;
    let session = answer.headers().get("mcp-session-id").cloned();
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let result = match kind.as_str() {
        "application/json" => {
            let body = whole(answer).await?;
            let message = serde_json::from_slice(&body).map_err(|e| Failure::Protocol(format!("its answer is not one JSON value: {e}")))?;
            result_of(message, id)?
        }
        "text/event-stream" => stream(endpoint, answer, id, list_changed).await?,
        other => {
            let what = if other.is_empty() { "nothing that has a type".to_owned() } else { excerpt(other) };
            return Err(Failure::Protocol(format!("it answers {what} where JSON or an event stream must be")));
        }
    };
    Ok(Answered { result, session })
}

/// Sends what has no answer.
pub(super) async fn tell(endpoint: &Endpoint, message: &Value) -> Result<(), Failure> {
    send(endpoint, message).await.map(drop)
}

/// Sends; gives the answer when its status is a success.
async fn send(endpoint: &Endpoint, message: &Value) -> Result<Response, Failure> {
    let mut request = reqwest::Request::new(Method::POST, endpoint.url.clone());
    request.headers_mut().clone_from(&endpoint.headers);
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *request.body_mut() = Some(message.to_string().into());
    let answer = match endpoint.client.execute(request).await {
        Ok(answer) => answer,
        Err(e) if e.is_connect() || e.is_builder() => return Err(Failure::NotSent { timed_out: e.is_timeout(), why: causes(&e) }),
        Err(e) => return Err(broken(&e)),
    };
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status().as_u16();
    let location = answer.headers().get("location").map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let location = location.map(|l| l.split(['?', '#']).next().unwrap_or_default().chars().take(200).collect());
    Err(Failure::Status { status, location, text: String::from_utf8_lossy(&beginning(answer).await).into_owned() })
}

/// How a status is told.
pub(super) fn told(status: u16, location: Option<&str>, text: &str) -> String {
    match (location, text) {
        (Some(to), _) if (300..400).contains(&status) => {
            format!(", a redirect to {to}; redirects are not followed, name the final address")
        }
        (_, "") => String::new(),
        (_, text) => format!(": {text}"),
    }
}

fn broken(error: &reqwest::Error) -> Failure {
    Failure::Broken { timed_out: error.is_timeout(), why: causes(error) }
}

/// The beginning of a body, as far as it comes.
async fn beginning(mut answer: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() >= MAX_FAILED {
            body.truncate(MAX_FAILED);
            break;
        }
    }
    body
}

async fn whole(mut answer: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| broken(&e))? {
        if body.len() + chunk.len() > MAX_MESSAGE {
            return Err(Failure::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Reads a stream until the answer has come. What the server asks meanwhile is refused; what it tells is not believed.
async fn stream(endpoint: &Endpoint, mut answer: Response, id: u64, list_changed: &mut bool) -> Result<Value, Failure> {
    let (mut events, mut size, mut requests) = (sse::Events::new(MAX_MESSAGE), 0, 0);
    while let Some(chunk) = answer.chunk().await.map_err(|e| broken(&e))? {
        size += chunk.len();
        if size > MAX_STREAM {
            return Err(Failure::Broken { timed_out: false, why: format!("{MAX_STREAM} bytes of a stream without the answer") });
        }
        for data in events.take(&chunk).map_err(|sse::TooLarge| Failure::TooLarge)? {
            let message: Value =
                serde_json::from_slice(&data).map_err(|e| Failure::Protocol(format!("an event of its stream is not JSON: {e}")))?;
            let Some(method) = message.get("method").and_then(Value::as_str) else { return result_of(message, id) };
            if method == "notifications/tools/list_changed" {
                *list_changed = true;
            }
            let Some(asked) = message.get("id").filter(|i| i.is_string() || i.is_number()) else { continue };
            requests += 1;
            if requests > MAX_REQUESTS {
                return Err(Failure::Broken { timed_out: false, why: format!("more than {MAX_REQUESTS} requests of its own") });
            }
            refuse(endpoint, asked, method).await;
        }
    }
    Err(Failure::Broken { timed_out: false, why: "its stream ended without the answer".to_owned() })
}

/// Refuses what a server asks of us; a ping is answered.
async fn refuse(endpoint: &Endpoint, id: &Value, method: &str) {
    let answer = if method == "ping" {
        json!({"jsonrpc": "2.0", "id": id, "result": {}})
    } else {
        json!({"jsonrpc": "2.0", "id": id, "error": {"code": NOT_OFFERED, "message": "not offered: tools are called, and nothing is asked in return"}})
    };
    // It may not want to hear it; its answer to our own request is what counts.
    let _ = tokio::time::timeout(REFUSE, tell(endpoint, &answer)).await;
}

/// The result in a message that must be the answer to our request.
fn result_of(mut message: Value, id: u64) -> Result<Value, Failure> {
    let wrong = |what: String| Err(Failure::Protocol(what));
    if !message.is_object() || message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return wrong("its answer is no JSON-RPC 2.0 message".to_owned());
    }
    // An error about a request whose id could not be read has none.
    let error = message.get("error").and_then(Value::as_object).map(|e| {
        let code = e.get("code").and_then(Value::as_i64).unwrap_or_default();
        let message = e.get("message").and_then(Value::as_str).unwrap_or_default();
        Failure::Refused { code, message: message.chars().take(MAX_FAILED).collect() }
    });
    match message.get("id") {
        Some(Value::Number(n)) if n.as_u64() == Some(id) => {}
        None | Some(Value::Null) if error.is_some() => {}
        _ => return wrong("it answers a request that was not made".to_owned()),
    }
    if let Some(error) = error {
        return Err(error);
    }
    match message.get_mut("result") {
        Some(result) if result.is_object() => Ok(result.take()),
        _ => wrong("its answer has neither a result nor an error".to_owned()),
    }
}

/// An error with its causes, without the URL.
#[must_use]
pub fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = if text.is_empty() { inner.to_string() } else { format!("{text}: {inner}") };
        cause = inner.source();
    }
    if text.is_empty() { "the request failed".to_owned() } else { text }
}
