//! Reads what an agent sends: bounded in size, time and depth before it is parsed, and without room for misspelt fields.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode},
};
use polity_api::{
    ToolCallSpec, reasons,
    toolcall::{TaskRef, ToolRef},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::problem::Problem;

/// Largest request.
pub const MAX_BODY: usize = 1024 * 1024;
/// Deepest nesting of a request.
const MAX_DEPTH: usize = 64;
/// Longest time that a request may take to arrive.
const MAX_ARRIVAL: Duration = Duration::from_secs(15);
/// How long an answer is waited for, unless the caller says otherwise, and at most.
const WAIT: u64 = 30;
/// See `WAIT`.
pub const MAX_WAIT: u64 = 120;

/// Body of `POST calls`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallBody {
    tool: String,
    #[serde(default)]
    tool_org: Option<String>,
    #[serde(default)]
    input: Map<String, Value>,
    #[serde(default)]
    task_ref: Option<String>,
    #[serde(default)]
    job_space: Option<String>,
    #[serde(default)]
    context: Option<String>,
    #[serde(default)]
    idempotency_key: Option<String>,
    #[serde(default)]
    wait_seconds: Option<u64>,
}

/// Names of the fields of `CallBody`, for the OpenAPI document's test.
#[cfg(test)]
pub const FIELDS: &[&str] = &["tool", "toolOrg", "input", "taskRef", "jobSpace", "context", "idempotencyKey", "waitSeconds"];

impl CallBody {
    /// How long the caller waits.
    pub fn wait(&self) -> Result<Duration, Problem> {
        wait_of(self.wait_seconds)
    }

    /// The spec of the call, as a ToolCall would have it, checked as the API server would.
    pub fn into_spec(self) -> Result<ToolCallSpec, Problem> {
        name("tool", &self.tool, 253)?;
        for (field, value, most) in [
            ("toolOrg", &self.tool_org, 50),
            ("taskRef", &self.task_ref, 253),
            ("jobSpace", &self.job_space, 63),
            ("context", &self.context, 128),
            ("idempotencyKey", &self.idempotency_key, 128),
        ] {
            if let Some(value) = value {
                name(field, value, most)?;
            }
        }
        Ok(ToolCallSpec {
            tool: ToolRef { name: self.tool, org: self.tool_org },
            input: Some(self.input),
            task_ref: self.task_ref.map(|name| TaskRef { name }),
            job_space: self.job_space,
            context: self.context,
            idempotency_key: self.idempotency_key,
            ttl_seconds_after_finished: 3600,
            ..ToolCallSpec::default()
        })
    }
}

fn name(field: &str, value: &str, most: usize) -> Result<(), Problem> {
    if value.is_empty() || value.len() > most || value.chars().any(char::is_control) {
        return Err(Problem::invalid(format!("{field} must have 1 to {most} characters")));
    }
    Ok(())
}

/// A wait in seconds, within bounds.
pub fn wait_of(seconds: Option<u64>) -> Result<Duration, Problem> {
    match seconds.unwrap_or(WAIT) {
        seconds if seconds <= MAX_WAIT => Ok(Duration::from_secs(seconds)),
        _ => Err(Problem::invalid(format!("waitSeconds is at most {MAX_WAIT}"))),
    }
}

/// `waitSeconds` of a query; no other parameter is known.
pub fn wait_of_query(query: Option<&str>) -> Result<Duration, Problem> {
    let mut seconds = None;
    for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if key != "waitSeconds" {
            return Err(Problem::invalid(format!("unknown parameter {key:?}; known is waitSeconds")));
        }
        seconds = Some(value.parse().map_err(|_| Problem::invalid("waitSeconds is a whole number"))?);
    }
    wait_of(seconds)
}

/// Reads a JSON body of at most `most` bytes.
pub async fn read<T: for<'de> Deserialize<'de>>(headers: &HeaderMap, body: Body, most: usize) -> Result<T, Problem> {
    let bytes = bounded(headers, body, most).await?;
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|e| unreadable("the body", &e))?;
    json.end().map_err(|e| Problem::invalid(format!("the body cannot be read: {e}")))?;
    Ok(read)
}

/// What is wrong, and in which field.
pub fn unreadable(what: &str, error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let inner = error.inner();
    match error.path().to_string().as_str() {
        "." => Problem::invalid(format!("{what} cannot be read: {inner}")),
        path => Problem::invalid(format!("{what} cannot be read: {path}: {inner}")),
    }
}

/// A body that says to be JSON, within the bounds of size, time and depth; not parsed.
pub async fn bounded(headers: &HeaderMap, body: Body, most: usize) -> Result<Bytes, Problem> {
    let json = headers
        .get("content-type")
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json"));
    if !json {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reasons::INVALID_REQUEST, "the body must be application/json"));
    }
    let too_large =
        || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, reasons::INPUT_TOO_LARGE, format!("the request has more than {most} bytes"));
    let declared = headers.get("content-length").and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if declared.is_some_and(|n| n > most) {
        return Err(too_large());
    }
    let bytes = match tokio::time::timeout(MAX_ARRIVAL, axum::body::to_bytes(body, most)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) if is_limit(&error) => return Err(too_large()),
        Ok(Err(_)) => return Err(Problem::invalid("the body did not arrive whole")),
        Err(_) => return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, reasons::INVALID_REQUEST, "the body took too long to arrive")),
    };
    if depth(&bytes) > MAX_DEPTH {
        return Err(Problem::invalid(format!("the body is nested deeper than {MAX_DEPTH}")));
    }
    Ok(bytes)
}

fn is_limit(error: &axum::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.to_string().contains("length limit") {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// Deepest nesting of a JSON text, counted without parsing it.
fn depth(text: &[u8]) -> usize {
    let (mut now, mut most, mut quoted, mut escaped) = (0usize, 0usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' if !quoted => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn headers() -> HeaderMap {
        [("content-type".parse().unwrap(), "application/json; charset=utf-8".parse().unwrap())].into_iter().collect()
    }

    async fn call(text: impl Into<Body>) -> Result<CallBody, Problem> {
        read(&headers(), text.into(), MAX_BODY).await
    }

    #[test]
    fn depth_counts_brackets_outside_of_texts() {
        for (text, deep) in [("1", 0), ("{}", 1), (r#"{"a":[{"b":1}]}"#, 3), (r#"{"a":"[[[[\"[["}"#, 1), ("]]]][", 1)] {
            assert_eq!(depth(text.as_bytes()), deep, "{text}");
        }
    }

    #[tokio::test]
    async fn says_what_is_wrong() {
        let unknown = call(r#"{"tool":"a","imput":{}}"#).await.unwrap_err();
        assert_eq!(unknown.status(), 400);
        assert!(unknown.message().contains("`imput`") && unknown.message().contains("`idempotencyKey`"), "{}", unknown.message());
        let deep = format!(r#"{{"tool":"a","input":{{"x":{}{}}}}}"#, "[".repeat(5000), "]".repeat(5000));
        assert!(call(deep).await.unwrap_err().message().contains("nested deeper"));
        assert_eq!(call("x".repeat(MAX_BODY + 1)).await.unwrap_err().status(), 413);
        assert_eq!(call("{").await.unwrap_err().status(), 400);
        assert_eq!(call(r#"{"input":{}}"#).await.unwrap_err().status(), 400);
        let other: Result<CallBody, _> = read(&HeaderMap::new(), Body::from("{}"), MAX_BODY).await;
        assert_eq!(other.unwrap_err().status(), 415);
    }

    #[tokio::test]
    async fn becomes_the_spec_of_a_call() {
        let all = json!({"tool": "t", "toolOrg": "o", "input": {"a": 1}, "taskRef": "task", "jobSpace": "j", "context": "c", "idempotencyKey": "k", "waitSeconds": 5});
        assert_eq!(
            all.as_object().unwrap().keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(),
            FIELDS.iter().copied().collect()
        );
        let body = call(all.to_string()).await.unwrap();
        assert_eq!(body.wait().unwrap(), Duration::from_secs(5));
        let spec = body.into_spec().unwrap();
        assert_eq!((spec.tool.name.as_str(), spec.tool.org.as_deref(), spec.task_ref.unwrap().name.as_str()), ("t", Some("o"), "task"));
        for bad in [
            json!({"tool": ""}),
            json!({"tool": "a".repeat(254)}),
            json!({"tool": "a", "idempotencyKey": ""}),
            json!({"tool": "a", "context": "x\ny"}),
        ] {
            assert!(call(bad.to_string()).await.unwrap().into_spec().is_err(), "{bad}");
        }
        assert!(call(json!({"tool": "a", "waitSeconds": 121}).to_string()).await.unwrap().wait().is_err());
    }

    #[test]
    fn queries() {
        assert_eq!(wait_of_query(None).unwrap(), Duration::from_secs(30));
        assert_eq!(wait_of_query(Some("waitSeconds=0")).unwrap(), Duration::ZERO);
        for bad in ["waitSeconds=x", "wait=1", "waitSeconds=121", "waitSeconds=-1"] {
            assert!(wait_of_query(Some(bad)).is_err(), "{bad}");
        }
    }
}
