//! What would be decided, without anything that follows.

use serde_json::{Value, json};

use crate::harness::Edge;

async fn ask(edge: &Edge, path: &str, body: Value) -> (u16, Value) {
    let (status, answer) = edge.ask("POST", path, "payer-token", Some(body)).await;
    (status.as_u16(), answer)
}

const HERE: &str = "/v1/orgs/acme/evaluate";

#[tokio::test]
async fn says_what_a_call_would_be_answered_and_leaves_nothing() {
    let edge = Edge::start().await;
    for (amount, verdict, reason, rules) in [
        (20, "Allow", "", json!([])),
        (200, "RequireApproval", "ApprovalRequired", json!(["acme/limits/small"])),
        (9000, "Deny", "PolicyDenied", json!(["acme/limits/hard"])),
    ] {
        let (status, told) = ask(&edge, HERE, json!({"tool": "pay", "input": {"amount": amount}})).await;
        assert_eq!((status, &told["verdict"]), (200, &json!(verdict)), "{told}");
        assert_eq!(told["reason"].as_str().unwrap_or_default(), reason, "{told}");
        assert_eq!(told.get("rules").cloned().unwrap_or_else(|| json!([])), rules, "{told}");
        assert_eq!(told["snapshot"].as_str().unwrap().len(), 64);
        assert_eq!(told["requirements"][0]["role"]["name"].as_str(), (verdict == "RequireApproval").then_some("boss"), "{told}");
        let named = ask(&edge, "/v1/evaluate", json!({"org": "acme", "tool": "pay", "input": {"amount": amount}})).await.1;
        assert_eq!((&named["verdict"], &named["snapshot"]), (&told["verdict"], &told["snapshot"]));
    }
    let (_, told) = edge.ask("POST", HERE, "clerk-token", Some(json!({"tool": "pay", "input": {"amount": 1}}))).await;
    assert_eq!((&told["verdict"], &told["reason"]), (&json!("Deny"), &json!("NotGranted")));
    assert!(edge.ledger.log().is_empty() && edge.api.writes().is_empty() && edge.sent() == 0);
}

#[tokio::test]
async fn each_item_is_answered_by_itself() {
    let edge = Edge::start().await;
    let items = json!([
        {"tool": "pay", "input": {"amount": 20}},
        {"tool": "pay", "imput": {}},
        {"tool": "pay", "input": {"amount": "much"}},
        "nonsense",
        {"tool": "nope"},
        {"tool": "pay", "input": {"amount": 9000}},
    ]);
    let (status, told) = ask(&edge, HERE, json!({ "items": items })).await;
    assert_eq!(status, 200, "{told}");
    let found: Vec<(&str, &str)> = told["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| (i["verdict"].as_str().unwrap(), i["reason"].as_str().unwrap_or_default()))
        .collect();
    let expected = [
        ("Allow", ""),
        ("Deny", "InvalidRequest"),
        ("Deny", "InvalidArguments"),
        ("Deny", "InvalidRequest"),
        ("Deny", "ToolNotFound"),
        ("Deny", "PolicyDenied"),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_list_is_bounded_and_a_question_is_whole() {
    let edge = Edge::start().await;
    let one = json!({"tool": "pay", "input": {"amount": 1}});
    let many = |n: usize| json!({"items": vec![one.clone(); n]});
    assert_eq!(ask(&edge, HERE, many(64)).await.1["items"].as_array().unwrap().len(), 64);
    for (path, body, named) in [
        (HERE, many(65), "64"),
        (HERE, many(0), "64"),
        (HERE, json!({"items": [one], "tool": "pay"}), "tool"),
        (HERE, json!({"org": "other", "tool": "pay"}), "org"),
        ("/v1/evaluate", json!({"tool": "pay"}), "org"),
        (HERE, json!({"tool": "pay", "waitSeconds": 1}), "waitSeconds"),
        (HERE, json!({}), "tool"),
    ] {
        let (status, told) = ask(&edge, path, body).await;
        assert!(status == 400 && told["message"].as_str().unwrap().contains(named), "{named}: {status} {told}");
    }
    let (status, _) = edge.ask("POST", HERE, "nonsense", Some(one)).await;
    assert_eq!(status.as_u16(), 401);
}
