//! Fuzz target: requests, MCP and others, as a client's bytes: method and path, headers, an empty line, the body. Whatever comes: no panic, an answer in
//! time and one that is documented, and nothing is sent to a tool that was not begun.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, Request, Response},
};
use futures::StreamExt as _;
use polity_api::reasons;
use polity_fuzz::{Seen, Target, Verdict};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::harness::Edge;

/// What requests to the edge have in them, and what parsers stumble over.
const WORDS: &[&str] = &[
    "/v1/orgs/acme/",
    "/v1/orgs/other/",
    "calls",
    "evaluate",
    "/v1/evaluate",
    "records",
    "events",
    "mcp",
    "/shim/v1/runs/1/",
    "input",
    "result",
    "/cancel",
    "/openapi.json",
    "?after=",
    "&kind=begin",
    "?waitSeconds=0",
    "GET ",
    "POST ",
    "DELETE ",
    "HEAD ",
    "OPTIONS ",
    "authorization: Bearer payer-token",
    "authorization: Bearer auditor-token",
    "authorization: Bearer tool-token",
    "content-type: application/json",
    "content-type: text/plain",
    "accept: application/json, text/event-stream",
    "last-event-id: 1",
    "mcp-protocol-version: 2026-07-28",
    "mcp-session-id: x",
    "traceparent: 00-",
    "host: polity-edge",
    "host: elsewhere",
    "origin: https://elsewhere",
    "\n",
    "\n\n",
    ": ",
    "%00",
    "%2e%2e/",
    "\"tool\": \"pay\"",
    "\"tool\": \"again\"",
    "\"input\": {\"amount\": 20}",
    "\"items\": [",
    "\"waitSeconds\": 0",
    "\"idempotencyKey\": \"k\"",
    "\"jsonrpc\": \"2.0\"",
    "\"id\": 1",
    "\"id\": null",
    "\"method\": \"tools/call\"",
    "\"method\": \"tools/list\"",
    "\"method\": \"initialize\"",
    "\"method\": \"ping\"",
    "\"params\": {",
    "\"arguments\": {",
    "\"_meta\": {",
    "\"polity.dev/idempotencyKey\": \"k\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    "null",
    "1e999",
    "\\ud800",
    "\\u0000",
    "é",
];

/// Statuses that the server's document has, those of HTTP itself, and those of MCP's transport.
const KNOWN: [u16; 17] = [200, 202, 204, 400, 401, 403, 404, 405, 406, 408, 409, 410, 413, 415, 422, 429, 503];

/// None when no HTTP client could send it.
fn request(text: &[u8]) -> Option<Request<Body>> {
    let end = text.windows(2).position(|two| two == b"\n\n")?;
    let mut lines = text[..end].split(|byte| *byte == b'\n');
    let first = lines.next()?;
    let space = first.iter().position(|byte| *byte == b' ')?;
    let mut request = Request::builder().method(Method::from_bytes(&first[..space]).ok()?).uri(&first[space + 1..]);
    for line in lines {
        let colon = line.windows(2).position(|two| two == b": ")?;
        request = request.header(&line[..colon], &line[colon + 2..]);
    }
    request.body(Body::from(text[end + 2..].to_vec())).ok()
}

/// The beginning of an answer: a stream has no end.
async fn beginning(response: Response<Body>) -> (u16, Option<Value>) {
    let status = response.status().as_u16();
    let json = response.headers().get("content-type").is_some_and(|kind| kind == "application/json");
    let mut body = response.into_body().into_data_stream();
    let mut read = Vec::new();
    while json && let Ok(Some(Ok(piece))) = tokio::time::timeout(Duration::from_secs(5), body.next()).await {
        read.extend_from_slice(&piece);
    }
    (status, serde_json::from_slice(&read).ok())
}

async fn tried(edge: &Edge, input: &[u8], seen: &mut Seen) -> Verdict {
    let Some(request) = request(input) else { return Verdict::Unused };
    let (path, mcp) = (request.uri().path().to_owned(), request.uri().path().ends_with("/mcp"));
    let answer = tokio::time::timeout(Duration::from_secs(60), polity_gateway::router(edge.gateway.clone()).oneshot(request));
    let Ok(answer) = answer.await else { return Verdict::Wrong("no answer within a minute".to_owned()) };
    let Ok(answer) = answer;
    let (status, body) = beginning(answer).await;
    if !KNOWN.contains(&status) {
        return Verdict::Wrong(format!("{path} answered {status}: {body:?}"));
    }
    let told = body.as_ref().and_then(|b| b["reason"].as_str()).unwrap_or_default().to_owned();
    // MCP's transport has errors of its own.
    if status >= 400 && !mcp && !reasons::ALL.iter().any(|(code, _)| *code == told) {
        return Verdict::Wrong(format!("{path} answered {status} without a reason that is known: {body:?}"));
    }
    let (sent, begun) = (edge.sent(), edge.ledger.begun());
    if sent > begun {
        return Verdict::Wrong(format!("{sent} requests were sent to tools, and {begun} calls begun"));
    }
    let error = body.as_ref().and_then(|b| b["error"]["code"].as_i64());
    seen.note(&(path.split('/').next_back().unwrap_or_default().len() % 8, mcp, status, told, error));
    if status == 404 && !mcp { Verdict::Unused } else { Verdict::Used }
}

#[test]
fn requests() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let edge = runtime.block_on(Edge::start());
    Target {
        package: "polity-gateway",
        test: "fuzz::requests",
        corpus: concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/requests"),
        seeds: &[],
        words: WORDS,
    }
    .run(|input, seen| runtime.block_on(tried(&edge, input, seen)));
}
