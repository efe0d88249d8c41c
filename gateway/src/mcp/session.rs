//! Sessions of clients of the revisions before 2026-07-28. A session is a name and nothing else: nothing is kept under it, any replica takes any, and it
//! proves nothing. It tells the requests of one client from those of another of the same account, so that a notice of cancellation means the right one.

use axum::http::{HeaderMap, HeaderValue};
use rmcp::model::RequestId;
use serde::Deserialize;

use crate::under_way::key_of_request;

/// Header with the name.
pub const HEADER: &str = "mcp-session-id";
/// Longest name that is looked at.
const LONGEST: usize = 128;
/// Largest notice that is looked at.
const NOTICE: usize = 4096;

/// What of a message decides what is done with it here.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// A client begins.
    Initialize,
    /// A client does not want the answer to this request any more.
    Cancelled(RequestId),
    /// Anything else.
    Other,
}

#[derive(Deserialize)]
struct Head {
    method: String,
    #[serde(default)]
    params: Params,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params {
    request_id: Option<RequestId>,
}

impl Message {
    /// Looks at a message. One that cannot be read is for the protocol to refuse.
    pub fn of(body: &[u8]) -> Self {
        // Calls are not read twice for this.
        let may = |name: &[u8]| body.windows(name.len()).any(|window| window == name);
        if body.len() > NOTICE || !(may(b"initialize") || may(b"cancelled")) {
            return Self::Other;
        }
        match serde_json::from_slice::<Head>(body) {
            Ok(Head { method, .. }) if method == "initialize" => Self::Initialize,
            Ok(Head { method, params: Params { request_id: Some(id) } }) if method == "notifications/cancelled" => Self::Cancelled(id),
            _ => Self::Other,
        }
    }
}

/// The session that a request names.
pub fn named(headers: &HeaderMap) -> Option<String> {
    let name = headers.get(HEADER)?.to_str().ok()?;
    (!name.is_empty() && name.len() <= LONGEST).then(|| name.to_owned())
}

/// A name for a client that begins.
pub fn new(random: [u8; 16]) -> Option<HeaderValue> {
    HeaderValue::from_str(&hex::encode(random)).ok()
}

/// The key of a request of a session. A number and a text are different requests.
pub fn key(org_uid: &str, username: &str, session: &str, request: &RequestId) -> String {
    let request = serde_json::to_string(request).unwrap_or_default();
    key_of_request(org_uid, username, session, &request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_begins_or_cancels_is_looked_at() {
        let of = |text: &str| Message::of(text.as_bytes());
        assert_eq!(of(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#), Message::Initialize);
        let cancelled = |id: &str| of(&format!(r#"{{"method":"notifications/cancelled","params":{{"requestId":{id},"reason":"x"}}}}"#));
        assert_eq!(cancelled("7"), Message::Cancelled(RequestId::Number(7)));
        assert_eq!(cancelled(r#""7""#), Message::Cancelled(RequestId::String("7".into())));
        for other in [
            r#"{"method":"notifications/cancelled"}"#,
            r#"{"method":"notifications/cancelled","params":{"requestId":[1]}}"#,
            r#"{"method":"notifications/initialized"}"#,
            r#"{"id":1,"method":"tools/call","params":{"name":"notifications/cancelled","requestId":7}}"#,
            "notifications/cancelled",
            "",
        ] {
            assert_eq!(of(other), Message::Other, "{other}");
        }
        let long = format!(r#"{{"method":"notifications/cancelled","params":{{"requestId":1,"reason":"{}"}}}}"#, "x".repeat(NOTICE));
        assert_eq!(of(&long), Message::Other);
    }

    #[test]
    fn a_session_is_a_short_name() {
        let of = |value: &str| named(&HeaderMap::from_iter([(axum::http::HeaderName::from_static(HEADER), value.parse().unwrap())]));
        assert_eq!(of("abc"), Some("abc".to_owned()));
        assert_eq!((of(""), of(&"x".repeat(129)), named(&HeaderMap::new())), (None, None, None));
        assert_eq!(new([7; 16]).unwrap().to_str().unwrap().len(), 32);
        assert_ne!(key("o", "a", "s", &RequestId::Number(1)), key("o", "a", "s", &RequestId::String("1".into())));
    }
}
