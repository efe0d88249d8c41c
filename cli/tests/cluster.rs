//! Commands that speak with a cluster, against a small API server.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)] // a helper that fails fails its test; `json!` values read best by value

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::Method;
use common::{Server, list, status};
use serde_json::{Value, json};

const GROUP: &str = "/apis/polity.dev/v1alpha1";

fn approval(name: &str, phase: &str, decisions: Value) -> Value {
    json!({
        "apiVersion": "polity.dev/v1alpha1", "kind": "Approval", "metadata": {"name": name, "namespace": "finance", "resourceVersion": "7", "uid": "u"},
        "spec": {
            "action": {"verb": "tool.call", "call": "c1", "callUid": "u", "target": {"kind": "Tool", "namespace": "finance", "name": "payments-send", "digest": ""}},
            "input": {"amount": 60}, "digest": {"digest": "d", "keyId": "k"}, "requester": {"username": "bot"},
            "requirements": [{"rule": "finance/limits/ask", "role": {"org": "acme", "name": "cfo"}, "count": 2, "humansOnly": true}],
            "expiresAt": "2026-11-22T12:00:00Z", "decisions": decisions,
        },
        "status": {"phase": phase, "requirements": [{"rule": "finance/limits/ask", "approvedBy": ["acme/carol"], "met": false}]},
    })
}

fn is(method: &Method, path: &str, wanted: (&str, &str)) -> bool {
    method.as_str() == wanted.0 && path.split('?').next() == Some(wanted.1)
}

#[tokio::test(flavor = "multi_thread")]
async fn approve_adds_the_own_entry_and_survives_a_conflict() {
    let earlier =
        json!({"by": "zoe", "decision": "Approve", "at": "2026-11-21T12:00:00Z", "groups": ["g"], "note": "a field of a later version"});
    let tries = AtomicUsize::new(0);
    let before = earlier.clone();
    let server = Server::start(move |method, path, _| match method.as_str() {
        "POST" if path.starts_with("/apis/authentication.k8s.io/v1/selfsubjectreviews") => {
            (201, json!({"status": {"userInfo": {"username": "carol"}}}))
        }
        "GET" => (200, approval("a1", "Pending", json!([before]))),
        "PATCH" if tries.fetch_add(1, Ordering::SeqCst) == 0 => status(409, "Conflict", "changed"),
        "PATCH" => (200, approval("a1", "Pending", json!([]))),
        _ => status(404, "NotFound", path),
    })
    .await;
    server.run(&["approve", "a1", "--reason", "seen"]).await.ends(0).has(&["approval.polity.dev/a1 approved by carol"]);
    let asked = server.asked.lock().unwrap();
    let patches: Vec<&Value> = asked.iter().filter(|(m, ..)| m == Method::PATCH).map(|(.., body)| body).collect();
    assert_eq!(patches.len(), 2);
    let own = json!({"by": "carol", "decision": "Approve", "reason": "seen"});
    assert_eq!(*patches[1], json!({"metadata": {"resourceVersion": "7"}, "spec": {"decisions": [earlier, own]}}));
    assert!(asked.iter().any(|(m, path, _)| m == Method::PATCH && path.starts_with(&format!("{GROUP}/namespaces/finance/approvals/a1"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn approve_says_why_not() {
    let server = Server::start(|method, path, _| match method.as_str() {
        "POST" => (201, json!({"status": {"userInfo": {"username": "carol"}}})),
        "GET" if path.contains("/ended") => (200, approval("ended", "Denied", json!([]))),
        "GET" if path.contains("/mine") => (200, approval("mine", "Pending", json!([{"by": "carol", "decision": "Deny"}]))),
        "GET" if path.contains("/a1") => (200, approval("a1", "Pending", json!([]))),
        "PATCH" => status(
            403,
            "NotAnApprover",
            "admission webhook \"x\" denied the request: NotAnApprover: acme/carol is not among holders of Role cfo",
        ),
        _ => status(404, "NotFound", "approvals.polity.dev \"nope\" not found"),
    })
    .await;
    server.run(&["approve", "ended"]).await.ends(1).has(&["Denied already"]);
    server.run(&["approve", "mine"]).await.ends(1).has(&["you (carol) have decided already: Deny"]);
    server.run(&["approve", "a1", "--deny"]).await.ends(1).has(&["NotAnApprover", "Role cfo"]);
    server.run(&["approve", "nope"]).await.ends(1).has(&["not found"]);
    let asked = server.asked.lock().unwrap();
    assert_eq!(asked.iter().filter(|(m, ..)| m == Method::PATCH).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn approvals_lists_what_waits() {
    let server = Server::start(|method, path, _| {
        let all = [approval("a1", "Pending", json!([])), approval("old", "Approved", json!([]))];
        if is(method, path, ("GET", &format!("{GROUP}/approvals"))) { list(&all) } else { list(&[]) }
    })
    .await;
    let said = server.run(&["approvals", "-A"]).await;
    said.ends(0).has(&["a1", "bot", "tool.call payments-send", "1/2 role acme/cfo", "2026-11-22T12:00:00Z", r#"{"amount":60}"#]);
    assert!(!said.out.contains("old"), "{said:?}");
    assert_eq!(server.run(&["approvals", "-A", "-o", "json"]).await.json()["items"].as_array().unwrap().len(), 1);
    server.run(&["approvals"]).await.ends(0).has(&["Nothing waits"]);
}

fn call(phase: Option<&str>, more: Value) -> Value {
    let mut call = json!({
        "apiVersion": "polity.dev/v1alpha1", "kind": "ToolCall", "metadata": {"name": "greet-x1", "namespace": "finance", "resourceVersion": "3"},
        "spec": {"tool": {"name": "greet"}}, "status": more,
    });
    if let Some(phase) = phase {
        call["status"]["phase"] = json!(phase);
    }
    call
}

#[tokio::test(flavor = "multi_thread")]
async fn call_shows_the_result() {
    let done = call(Some("Succeeded"), json!({"result": {"output": {"hello": "world"}}}));
    let server = Server::start(move |method, path, _| match method.as_str() {
        "POST" => {
            let mut made = call(None, json!({}));
            made["warning"] = json!("waits for approval by holders of Role cfo");
            (201, made)
        }
        "GET" if path.contains("toolcalls") && !path.contains("watch=") => list(std::slice::from_ref(&done)),
        _ => status(404, "NotFound", path),
    })
    .await;
    server
        .run(&["call", "greet"])
        .await
        .ends(0)
        .has(&["toolcall.polity.dev/greet-x1 created", "Warning: waits for approval by holders of Role cfo"]);
    let said = server.run(&["call", "greet", "--input", r#"{"name":"x"}"#, "--task", "t1", "--wait"]).await;
    said.ends(0).has(&["greet-x1 Succeeded", "\"hello\": \"world\""]);
    let asked = server.asked.lock().unwrap();
    let (_, path, body) = asked.iter().rfind(|(m, ..)| m == Method::POST).unwrap();
    assert!(path.starts_with(&format!("{GROUP}/namespaces/finance/toolcalls")), "{path}");
    assert_eq!(body["metadata"]["generateName"], "greet-");
    assert_eq!((&body["spec"]["input"], &body["spec"]["taskRef"]), (&json!({"name": "x"}), &json!({"name": "t1"})));
    assert_eq!(body["spec"].get("caller"), None, "who asks is for the server to say");
}

#[tokio::test(flavor = "multi_thread")]
async fn call_says_why_not() {
    let failed = call(
        Some("Failed"),
        json!({"conditions": [{"type": "Succeeded", "status": "False", "reason": "ToolFailed", "message": "exit code 3", "lastTransitionTime": "2026-11-21T12:00:00Z"}],
               "result": {"code": 3, "stderrTail": "no such thing"}}),
    );
    let server = Server::start(move |method, _, body| match method.as_str() {
        "POST" if body["spec"]["tool"]["name"] == "pay" => {
            let message =
                "admission webhook \"x\" denied the request: PolicyDenied: rule finance/limits/max: too much. Hint: ask for at most 500";
            let (code, mut denied) = status(403, "PolicyDenied", message);
            denied["details"] = json!({"causes": [{"reason": "PolicyDenied", "message": "finance/limits/max"}]});
            (code, denied)
        }
        "POST" if body["spec"]["tool"]["name"] == "rbac" => {
            status(403, "Forbidden", "toolcalls.polity.dev is forbidden: User \"x\" cannot create")
        }
        "POST" => (201, call(None, json!({}))),
        _ => list(std::slice::from_ref(&failed)),
    })
    .await;
    let said = server.run(&["call", "pay"]).await;
    said.ends(1);
    assert_eq!(said.out, "denied: PolicyDenied\n  why:  rule finance/limits/max: too much.\n  hint: ask for at most 500\n");
    assert_eq!(server.run(&["call", "pay", "-o", "json"]).await.ends(1).json()["reason"], "PolicyDenied");
    server.run(&["call", "rbac"]).await.ends(1).has(&["cannot create"]);
    server.run(&["call", "greet", "--wait"]).await.ends(1).has(&["greet-x1 Failed", "ToolFailed: exit code 3", "no such thing"]);
    for bad in ["[1]", "{", "@/nonexistent"] {
        server.run(&["call", "greet", "--input", bad]).await.ends(1).has(&["Error"]);
    }
}

fn org(name: &str, parent: Option<&str>, ready: &str) -> Value {
    let spec = parent.map_or(json!({}), |p| json!({"parentRef": {"name": p}}));
    json!({
        "apiVersion": "polity.dev/v1alpha1", "kind": "Org", "metadata": {"name": name}, "spec": spec,
        "status": {"namespace": {"name": name, "uid": "u", "created": true}, "quota": {"pods": "5"},
                   "conditions": [{"type": "Ready", "status": ready, "reason": "Because", "message": "", "lastTransitionTime": "2026-11-21T12:00:00Z"}]},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn tree_shows_orgs_with_what_they_have() {
    let server = Server::start(|_, path, _| {
        let orgs = [
            org("acme", None, "True"),
            org("finance", Some("acme"), "True"),
            org("sales", Some("acme"), "False"),
            org("teams", Some("finance"), "True"),
        ];
        let agent = json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "bot", "namespace": "finance"},
                           "spec": {"type": "AI", "image": "x", "command": ["x"], "replicas": 3}, "status": {"readyReplicas": 2}});
        if path.starts_with(&format!("{GROUP}/orgs")) {
            return list(&orgs);
        }
        // As for a user with rights in one namespace only.
        if path.starts_with(&format!("{GROUP}/namespaces/finance/agents")) { list(&[agent]) } else { status(403, "Forbidden", "no") }
    })
    .await;
    let said = server.run(&["tree"]).await;
    said.ends(0);
    let words: Vec<Vec<&str>> = said.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["ORG", "READY", "NAMESPACE", "QUOTA", "AGENTS", "WORKERS"]);
    assert_eq!(words[1], ["acme", "True", "acme", "pods=5", "?", "?"]);
    assert_eq!(words[2], ["├──", "finance", "True", "finance", "pods=5", "1", "2/3"]);
    assert_eq!(words[3], ["│", "└──", "teams", "True", "teams", "pods=5", "?", "?"]);
    assert_eq!(words[4], ["└──", "sales", "False", "(Because)", "sales", "pods=5", "?", "?"]);
    server.run(&["tree", "nope"]).await.ends(1).has(&["no Org \"nope\""]);
}

#[test]
fn without_a_cluster_it_says_so() {
    common::run(&["approvals"]).ends(1).has(&["no usable kubeconfig"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn can_i_is_a_dry_run() {
    let server = Server::start(move |method, path, body| match (method.as_str(), body["spec"]["tool"]["name"].as_str()) {
        ("POST", _) if !path.contains("dryRun=All") => status(500, "InternalError", "this would have been a call"),
        ("POST", Some("greet")) => (201, call(None, json!({}))),
        ("POST", Some("pay")) => {
            let mut made = call(None, json!({}));
            made["warning"] = json!("waits for approval by holders of Role cfo (rule finance/limits/ask)");
            (201, made)
        }
        ("POST", _) => {
            let mut refused = status(
                403,
                "PolicyDenied",
                "admission webhook \"x\" denied the request: PolicyDenied: too much Hint: Ask for at most 500.",
            );
            refused.1["details"] = json!({"causes": [{"reason": "finance/limits/most", "message": "too much"}]});
            refused
        }
        _ => status(404, "NotFound", path),
    })
    .await;
    server.run(&["can-i", "greet", "--input", r#"{"name":"x"}"#]).await.ends(0).has(&["yes"]);
    server.run(&["can-i", "pay"]).await.ends(0).has(&["yes, after approval", "asks: holders of Role cfo (rule finance/limits/ask)"]);
    server.run(&["can-i", "burn"]).await.ends(1).has(&["no: PolicyDenied", "why: too much", "hint: Ask for at most 500."]);
    let json = server.run(&["can-i", "pay", "-o", "json"]).await.ends(0).json();
    assert_eq!(
        (&json["verdict"], &json["approvals"]),
        (&json!("RequireApproval"), &json!(["holders of Role cfo (rule finance/limits/ask)"]))
    );
    server.run(&["can-i", "pay", "--agent", "x"]).await.ends(2).has(&["--filename"]);
}
