//! The real binary against a scripted fake edge on HTTPS: what it asks, what it prints, what it tries again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is how a test fails")]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, routing::any};
use serde_json::{Value, json};

/// A scripted fake edge: gives its answers in turn and keeps what it was asked.
#[derive(Default)]
struct Script {
    answers: VecDeque<(u16, Value)>,
    asked: Vec<(String, String, Value)>,
}

type Shared = Arc<Mutex<Script>>;

async fn answer(State(script): State<Shared>, request: axum::extract::Request) -> (StatusCode, Json<Value>) {
    let (method, uri) = (request.method().to_string(), request.uri().path_and_query().unwrap().to_string());
    assert_eq!(request.headers()["authorization"], "Bearer the-token");
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let mut script = script.lock().unwrap();
    script.asked.push((method, uri, serde_json::from_slice(&body).unwrap_or(Value::Null)));
    let (status, body) = script.answers.pop_front().expect("no answer is scripted for this");
    (StatusCode::from_u16(status).unwrap(), Json(body))
}

async fn play(answers: &[(u16, Value)], arguments: &[&str]) -> (String, Vec<(String, String, Value)>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.crt"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("token"), "the-token\n").unwrap();
    let (cert, key) = (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes());
    let tls = axum_server::tls_rustls::RustlsConfig::from_pem(cert, key).await.unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = Arc::new(Mutex::new(Script { answers: answers.iter().cloned().collect(), asked: Vec::new() }));
    let app = Router::new().fallback(any(answer)).with_state(script.clone());
    tokio::spawn(axum_server::from_tcp_rustls(listener, tls).unwrap().serve(app.into_make_service()));
    let worker = tokio::process::Command::new(env!("CARGO_BIN_EXE_polity-worker"))
        .env("POLITY_URL", format!("https://localhost:{port}/v1/orgs/acme"))
        .env("POLITY_TOKEN_FILE", dir.path().join("token"))
        .env("POLITY_CA_FILE", dir.path().join("ca.crt"))
        .args(["scripted", "--once", "--pod-uid", "pod-1"])
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let out = tokio::time::timeout(Duration::from_secs(60), worker).await.expect("the worker ends").unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let asked = script.lock().unwrap().asked.clone();
    (String::from_utf8(out.stdout).unwrap(), asked)
}

#[tokio::test]
async fn three_calls_three_outcomes() {
    let answers = [
        (200, json!({"id": "1", "phase": "Succeeded", "result": {"output": {"ok": true}}})),
        (403, json!({"reason": "PolicyDenied", "message": "over 500", "hint": "ask for less", "rules": ["acme/limits/hard"]})),
        (202, json!({"id": "3", "call": "c-3", "phase": "WaitingApproval", "approval": "c-3-abc"})),
        (202, json!({"id": "3", "call": "c-3", "phase": "WaitingApproval", "approval": "c-3-abc"})),
        (200, json!({"id": "3", "call": "c-3", "phase": "Succeeded", "result": {"output": {"ref": 7}}})),
    ];
    let calls = ["--call", r#"pay {"amount":20}"#, "--call", r#"pay {"amount":9000}"#, "--call", r#"acme/pay {"amount":400}"#];
    let (out, asked) = play(&answers, &calls).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines,
        [
            "SCRIPTED AGENT (no model, plays a fixed script): 3 calls",
            r#"CALL 1 pay amount=20: Succeeded {"ok":true}"#,
            r#"CALL 2 pay amount=9000: Denied rule=acme/limits/hard reason=PolicyDenied message="over 500" hint="ask for less""#,
            "CALL 3 pay amount=400: WaitingApproval approval=c-3-abc",
            r#"CALL 3 pay amount=400: Succeeded {"ref":7}"#,
        ]
    );
    assert_eq!(asked.len(), 5, "a denial is not asked again");
    assert_eq!(asked[0].0, "POST");
    assert_eq!(asked[0].1, "/v1/orgs/acme/calls");
    assert_eq!(asked[0].2, json!({"tool": "pay", "input": {"amount": 20}, "idempotencyKey": "pod-1-0", "waitSeconds": 30}));
    assert_eq!((&asked[2].2["toolOrg"], &asked[2].2["idempotencyKey"]), (&json!("acme"), &json!("pod-1-2")));
    assert_eq!((asked[3].0.as_str(), asked[3].1.as_str()), ("GET", "/v1/orgs/acme/calls/3?waitSeconds=30"));
}

#[tokio::test]
async fn an_edge_that_is_away_is_asked_again_with_the_same_key() {
    let answers = [
        (503, json!({"reason": "PolicyStale", "message": "not yet"})),
        (429, json!({"reason": "TooManyRequests", "message": "busy"})),
        (200, json!({"id": "1", "phase": "Failed", "reason": "ToolFailed", "message": "exit code 3"})),
    ];
    let (out, asked) = play(&answers, &["--call", "pay"]).await;
    assert!(out.contains(r#"CALL 1 pay: trying again: 503 Service Unavailable reason=PolicyStale message="not yet""#), "{out}");
    assert!(out.ends_with("CALL 1 pay: Failed reason=ToolFailed message=\"exit code 3\"\n"), "{out}");
    let keys: Vec<&Value> = asked.iter().map(|a| &a.2["idempotencyKey"]).collect();
    assert_eq!(keys, ["pod-1-0"; 3]);
}

#[tokio::test]
async fn other_refusals_end_the_call_not_the_script() {
    let answers = [
        (409, json!({"reason": "IdempotencyKeyReused", "message": "another body"})),
        (200, json!({"id": "2", "phase": "Succeeded", "result": {"output": 1}})),
    ];
    let (out, _) = play(&answers, &["--call", "a", "--call", "b"]).await;
    assert!(out.contains(r#"CALL 1 a: Refused 409 Conflict reason=IdempotencyKeyReused message="another body""#), "{out}");
    assert!(out.contains("CALL 2 b: Succeeded 1"), "{out}");
}
