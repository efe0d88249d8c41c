//! Bodies, time and panics: whatever is wrong with a request or with us, the answer is a refusal or an HTTP error, never an allow.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)] // a helper that fails fails its test; `json!` values read best by value

mod common;

use std::sync::Arc;

use axum::http::StatusCode;
use common::{ALICE, Ask, Fixture, accepted, call, object, raw, refused, send};
use polity_api::reasons;
use serde_json::json;

#[tokio::test]
async fn bad_bodies_are_http_errors() {
    let fixture = Arc::new(Fixture::default());
    let review = Ask::create(ALICE, call("payments-send", json!({"amount": 1}))).body;
    let mut old_version = review.clone();
    old_version["apiVersion"] = json!("admission.k8s.io/v1beta1");
    for path in ["/mutate", "/validate"] {
        for (content, body, want) in [
            ("application/json", String::new(), StatusCode::BAD_REQUEST),
            ("application/json", "{".to_owned(), StatusCode::BAD_REQUEST),
            ("application/json", "[]".to_owned(), StatusCode::BAD_REQUEST),
            (
                "application/json",
                json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}).to_string(),
                StatusCode::BAD_REQUEST,
            ),
            ("application/json", old_version.to_string(), StatusCode::BAD_REQUEST),
            ("text/plain", review.to_string(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
            ("application/json", format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), StatusCode::BAD_REQUEST),
            ("application/json", "x".repeat(polity_webhook::server::MAX_BODY + 1), StatusCode::PAYLOAD_TOO_LARGE),
        ] {
            let head: String = body.chars().take(40).collect();
            let (status, text) = raw(&fixture, path, content, body).await;
            assert_eq!(status, want, "{path} {head}: {text}");
            assert!(!text.contains("\"allowed\":true"));
        }
    }
}

#[tokio::test]
async fn a_panic_is_a_refusal_of_that_request_only() {
    let fixture = Arc::new(Fixture { panics: true, ..Fixture::default() });
    let ask = Ask::create(ALICE, call("payments-send", json!({"amount": 1})));
    refused(&ask.admit(&fixture).await, 503, reasons::ADMISSION_FAILED);
    refused(&ask.validate(&fixture).await, 503, reasons::ADMISSION_FAILED);
    for webhook in ["mutate", "validate"] {
        assert_eq!(fixture.metrics.reviews(webhook, "ToolCall", "failed", reasons::ADMISSION_FAILED), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn no_time_left_is_a_refusal_before_the_api_server_gives_up() {
    let fixture = Arc::new(Fixture { hangs: true, ..Fixture::default() });
    let mut new = call("payments-send", json!({"amount": 1}));
    new["spec"]["taskRef"] = json!({"name": "t1"});
    let ask = Ask::create(ALICE, new).mutate(&fixture).await.unwrap();
    let start = tokio::time::Instant::now();
    let answer = send(&fixture, "/validate?timeout=3s", &ask.body).await;
    let message = refused(&answer["response"], 503, reasons::ADMISSION_FAILED);
    assert!(message.contains("try again"), "{message}");
    assert!(start.elapsed() < std::time::Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_is_not_ours_passes() {
    let fixture = Arc::new(Fixture { panics: true, ..Fixture::default() });
    let mut foreign = Ask::create(ALICE, object("ToolCall", "finance", "x", json!({})));
    foreign.body["request"]["kind"]["group"] = json!("other.example");
    accepted(&foreign.admit(&fixture).await);
    let mut status = Ask::update(ALICE, call("a", json!({})), call("b", json!({})));
    status.body["request"]["subResource"] = json!("status");
    accepted(&status.admit(&fixture).await);
    let mut delete = Ask::create(ALICE, call("a", json!({})));
    delete.body["request"]["operation"] = json!("DELETE");
    delete.body["request"]["oldObject"] = delete.body["request"]["object"].take();
    accepted(&delete.admit(&fixture).await);
}
