//! The one shape of every error: `{reason, message, hint?, rules?, snapshot?, id?}` with a fitting HTTP status.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use polity_api::reasons;
use polity_ledger::Refused;
use polity_policy::Decision;
use polity_runtime::identity::IdentityError;
use serde::Serialize;

/// An error as answered.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    body: Box<Body>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Body {
    /// Stable reason code.
    reason: String,
    /// What is wrong, for people.
    message: String,
    /// What would pass.
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
    /// Rules that led to it, as `namespace/policy/rule`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
    /// Digest of the view that decided.
    #[serde(skip_serializing_if = "String::is_empty")]
    snapshot: String,
    /// Id under which the denial is recorded.
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
}

impl Problem {
    /// A problem without further detail.
    pub fn new(status: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        let body = Body { reason: reason.to_owned(), message: message.into(), ..Body::default() };
        Self { status, body: Box::new(body) }
    }

    /// The request is malformed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reasons::INVALID_REQUEST, message)
    }

    /// There is none, or it is another's.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, reasons::NOT_FOUND, message)
    }

    /// It cannot be answered now; a retry may help.
    pub fn unavailable(reason: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason, message)
    }

    /// A denial, with the id under which it is recorded.
    pub fn denied(decision: &Decision, id: &str) -> Self {
        let status = match decision.reason {
            reasons::INPUT_TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
            reasons::IDEMPOTENCY_KEY_REUSED | reasons::ALREADY_USED => StatusCode::CONFLICT,
            _ => StatusCode::FORBIDDEN,
        };
        let body = Body {
            reason: decision.reason.to_owned(),
            message: decision.message.clone(),
            hint: decision.hint.clone(),
            rules: decision.rules.clone(),
            snapshot: decision.snapshot.clone(),
            id: id.to_owned(),
        };
        Self { status, body: Box::new(body) }
    }

    /// With what would pass.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = hint.into();
        self
    }

    /// One with every field, as JSON, for the OpenAPI document's test.
    #[cfg(test)]
    pub fn full() -> serde_json::Value {
        let text = || "x".to_owned();
        let body = Body { reason: text(), message: text(), hint: text(), rules: vec![text()], snapshot: text(), id: text() };
        serde_json::to_value(body).unwrap()
    }

    /// What is answered, as JSON.
    pub fn body(&self) -> impl Serialize + '_ {
        self.body.as_ref()
    }

    /// What would pass; empty when nothing can be said.
    pub fn told_hint(&self) -> &str {
        &self.body.hint
    }

    /// Rules that led to it.
    pub fn rules(&self) -> &[String] {
        &self.body.rules
    }

    /// Whether it says no for good, rather than that it cannot be said or is malformed.
    pub fn is_denial(&self) -> bool {
        matches!(self.status, StatusCode::FORBIDDEN | StatusCode::CONFLICT | StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// The reason code.
    pub fn reason(&self) -> &str {
        &self.body.reason
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.body.message
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

impl From<IdentityError> for Problem {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Unavailable(why) => Self::unavailable(reasons::UNAVAILABLE, format!("cannot find out who asks: {why}")),
            IdentityError::NoToken | IdentityError::Refused(_) => {
                Self::new(StatusCode::UNAUTHORIZED, reasons::UNAUTHENTICATED, error.to_string())
                    .hint(format!("send a token of audience {} as Authorization: Bearer", polity_api::names::AUDIENCE))
            }
        }
    }
}

/// Refusals that are not about a decision's own merits; those of the ledger that deny are decisions, see `calls`.
impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::LedgerUnavailable { .. } | Refused::Fenced { .. } => Self::unavailable(reasons::LEDGER_UNAVAILABLE, message),
            Refused::StaleSnapshot { .. } | Refused::Contended | Refused::AdmissionNotEnforced { .. } | Refused::PodRefused { .. } => {
                Self::unavailable(refused.reason(), message)
            }
            Refused::BudgetExceeded { .. } | Refused::ApprovalMismatch { .. } | Refused::NoPodRuntime => {
                Self::new(StatusCode::FORBIDDEN, refused.reason(), message)
            }
            Refused::IdempotencyKeyReused => {
                Self::new(StatusCode::CONFLICT, reasons::IDEMPOTENCY_KEY_REUSED, message).hint("use a key for one request only")
            }
            Refused::IdempotencyReplay { .. } | Refused::AlreadyExecuted { .. } => {
                Self::new(StatusCode::CONFLICT, reasons::ALREADY_EXECUTED, message)
            }
            Refused::AlreadyUsed { .. } => Self::new(StatusCode::CONFLICT, reasons::ALREADY_USED, message),
            Refused::NotFound { .. } => Self::not_found(message),
            Refused::Invalid { .. } => Self::invalid(message),
        }
    }
}
