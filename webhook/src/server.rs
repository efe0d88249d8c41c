//! The HTTP side: body cap, content type, deadline, panics, metrics. Whatever goes wrong here refuses.
//!
//! It reads the review and writes the answer; what an answer says comes from `mutate` and `validate`.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration, time::Instant};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Query, State as Extract},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::FutureExt;
use polity_api::reasons;
use serde::Deserialize;

use crate::{
    mutate,
    outcome::{Outcome, Refusal},
    review::{API_VERSION, Answer, Request, Review, answer},
    state::State,
    validate,
};

/// Largest review that is read. The API server's own limit for an object is 3 MiB as well.
pub const MAX_BODY: usize = 3 * 1024 * 1024;
/// Longest time for an answer, whatever the API server would wait.
const LONGEST: Duration = Duration::from_secs(10);
/// Kept for the way back.
const SPARE: Duration = Duration::from_millis(500);
const SHORTEST: Duration = Duration::from_millis(250);

/// `POST /mutate` and `POST /validate`.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/mutate", post(mutate_review))
        .route("/validate", post(validate_review))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(state))
}

/// What the API server says in the query.
#[derive(Debug, Deserialize)]
struct Parameters {
    timeout: Option<String>,
}

async fn mutate_review(Extract(state): Extract<Arc<State>>, Query(query): Query<Parameters>, headers: HeaderMap, body: Bytes) -> Response {
    respond(&state, "mutate", &query, &headers, &body).await
}

async fn validate_review(
    Extract(state): Extract<Arc<State>>,
    Query(query): Query<Parameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    respond(&state, "validate", &query, &headers, &body).await
}

async fn respond(state: &State, webhook: &'static str, query: &Parameters, headers: &HeaderMap, body: &[u8]) -> Response {
    let json = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|v| v.starts_with("application/json"));
    if !json {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json\n").into_response();
    }
    let review: Review<'_> = match serde_json::from_slice(body) {
        Ok(review) => review,
        Err(e) => return (StatusCode::BAD_REQUEST, format!("the body is not an AdmissionReview: {e}\n")).into_response(),
    };
    let Some(request) = review.request else {
        return (StatusCode::BAD_REQUEST, "the AdmissionReview has no request\n").into_response();
    };
    if review.api_version != API_VERSION || review.kind != "AdmissionReview" {
        return (StatusCode::BAD_REQUEST, format!("expected AdmissionReview of {API_VERSION}\n")).into_response();
    }
    Json(judge(state, webhook, &request, limit(query.timeout.as_deref())).await).into_response()
}

/// Judges one request within its time; a panic or the end of the time refuses.
async fn judge(state: &State, webhook: &'static str, request: &Request<'_>, limit: Duration) -> Answer {
    let start = Instant::now();
    let work = AssertUnwindSafe(async {
        if webhook == "mutate" { mutate::review(state, request).await } else { validate::review(state, request).await }
    });
    let outcome = match tokio::time::timeout(limit, work.catch_unwind()).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_panic)) => {
            tracing::error!(webhook, kind = request.kind.kind, uid = request.uid, "a review panicked");
            Err(Refusal::failed(reasons::ADMISSION_FAILED, "Polity failed while it reviewed this request"))
        }
        Err(_elapsed) => Err(Refusal::failed(reasons::ADMISSION_FAILED, "Polity could not review this request in time").hint("try again")),
    };
    let (verdict, reason) = label(&outcome);
    state.metrics.answered(webhook, &request.kind.kind, verdict, reason, start.elapsed().as_secs_f64());
    tracing::debug!(
        webhook,
        kind = request.kind.kind,
        namespace = request.namespace(),
        name = request.name,
        verdict,
        reason,
        dry_run = request.dry_run,
        "reviewed"
    );
    answer(request, outcome)
}

fn label(outcome: &Outcome) -> (&'static str, &'static str) {
    match outcome {
        Ok(_) => ("allowed", ""),
        Err(refusal) if refusal.code >= 500 => ("failed", refusal.reason),
        Err(refusal) => ("denied", refusal.reason),
    }
}

/// Time for an answer: what the API server waits (`timeout=10s`), less the way back.
fn limit(timeout: Option<&str>) -> Duration {
    let asked = timeout.and_then(|t| t.strip_suffix('s')).and_then(|t| t.parse::<u64>().ok()).map_or(LONGEST, Duration::from_secs);
    asked.min(LONGEST).saturating_sub(SPARE).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        assert_eq!(limit(Some("5s")), Duration::from_millis(4500));
        assert_eq!(limit(Some("30s")), Duration::from_millis(9500));
        assert_eq!(limit(Some("0s")), SHORTEST);
        assert_eq!(limit(None), Duration::from_millis(9500));
        assert_eq!(limit(Some("1m0s")), Duration::from_millis(9500));
    }
}
