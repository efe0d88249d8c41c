//! Records are for those whom Kubernetes lets read them.

use axum::{body::Body, http::StatusCode};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::harness::Edge;

async fn get(edge: &Edge, path: &str, token: &str) -> (StatusCode, axum::http::HeaderMap, String) {
    let request = http::Request::get(path).header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
    let response = polity_gateway::router(edge.gateway.clone()).oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, headers, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn a_page_for_who_may_read_it() {
    let edge = Edge::start().await;
    let path = "/v1/orgs/acme/records?after=3&kind=begin&limit=999999&roots=true&since=2026-01-01T00:00:00Z";
    let (status, headers, text) = get(&edge, path, "auditor-token").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let header = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!([header("polity-next"), header("polity-head"), header("content-type")], ["5", "9", "application/x-ndjson"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    let asked: Value = serde_json::from_str(lines[0]).unwrap();
    let asked = &asked["asked"];
    assert_eq!((&asked["after"], &asked["limit"], &asked["roots"]), (&3.into(), &5000.into(), &true.into()));
    assert_eq!((&asked["filter"]["kind"], &asked["filter"]["since"]), (&"begin".into(), &"2026-01-01T00:00:00Z".into()));
}

#[tokio::test]
async fn nobody_else_reads_them() {
    let edge = Edge::start().await;
    let (status, _, text) = get(&edge, "/v1/orgs/acme/records", "payer-token").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(text.contains("NotPermitted") && text.contains("records.polity.dev") && text.contains("auditor"), "{text}");
    assert_eq!(get(&edge, "/v1/orgs/acme/records", "no-token").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(get(&edge, "/v1/orgs/other/records", "auditor-token").await.0, StatusCode::NOT_FOUND);
    let (status, _, text) = get(&edge, "/v1/orgs/acme/records?agnet=x", "auditor-token").await;
    assert!(status == StatusCode::BAD_REQUEST && text.contains("agnet"), "{text}");
}
