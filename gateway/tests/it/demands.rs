//! What Policies change in the input of an agent's call, and what they demand of its result.

use polity_ledger::Outcome;
use serde_json::{Value, json};

use crate::harness::Edge;

fn text(answer: &Value, field: &str) -> String {
    answer[field].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_rewritten_input_runs_and_only_what_may_be_seen_is_delivered_or_kept() {
    let edge = Edge::start().await;
    let (status, answer) = edge.call(json!({"tool": "read", "input": {"amount": 900, "note": "DE1"}})).await;
    assert_eq!((status.as_u16(), &answer["phase"]), (200, &json!("Succeeded")), "{answer}");
    assert_eq!(answer["input"], json!({"amount": 70, "note": "DE1"}));
    assert_eq!(answer["decision"]["rewrites"], json!([{"rule": "acme/demands/cap", "paths": ["/amount"]}]));
    let delivered = json!({"paid": {"amount": 70, "note": "[redacted]"}});
    assert_eq!(answer["result"]["output"], delivered);
    let begin = &edge.ledger.begins()[0];
    assert_eq!(
        (&begin.subject.input, begin.subject.verdict.rewrites.as_slice()),
        (&answer["input"], ["acme/demands/cap".to_owned()].as_slice())
    );
    let attempt = edge.ledger.attempt_of(&text(&answer, "id")).unwrap();
    assert_eq!((attempt.result.as_ref(), &attempt.facts["redactions"]), (Some(&delivered), &json!({"path": 1})));
    // core's gate makes a digest of it
    assert_eq!(attempt.facts["returned"], json!({"paid": {"amount": 70, "note": "DE1"}}));
    let (_, small) = edge.call(json!({"tool": "read", "input": {"amount": 7}})).await;
    assert_eq!((&small["input"], &small["result"]["output"]), (&Value::Null, &json!({"paid": {"amount": 7}})), "{small}");
}

#[tokio::test]
async fn an_outcome_that_must_not_be_delivers_nothing_and_stays_done() {
    let edge = Edge::start().await;
    let (_, answer) = edge.call(json!({"tool": "read", "input": {"amount": 13, "note": "DE1"}})).await;
    assert_eq!((&answer["phase"], &answer["reason"]), (&json!("Failed"), &json!("PostconditionFailed")), "{answer}");
    assert!(text(&answer, "message").contains("acme/demands/check: not what was asked") && !answer.to_string().contains("DE1"), "{answer}");
    let attempt = edge.ledger.attempt_of(&text(&answer, "id")).unwrap();
    assert_eq!((attempt.outcome, attempt.result), (Some(Outcome::Done), None));
    assert_eq!(edge.ledger.log(), ["begin read", "settle Done PostconditionFailed used=1"]);
}

#[tokio::test]
async fn words_of_a_failed_tool_are_withheld_where_results_are_redacted() {
    let edge = Edge::start().await;
    let (_, told) = edge.call(json!({"tool": "broken", "input": {"amount": 1}})).await;
    assert!(text(&told, "message").contains("answered 500: \"broken\""), "{told}");
    let (_, kept) = edge.call(json!({"tool": "leaky", "input": {"amount": 1}})).await;
    assert_eq!((&kept["phase"], &kept["reason"], &kept["result"]["code"]), (&json!("Failed"), &json!("ToolFailed"), &json!(500)), "{kept}");
    assert!(text(&kept, "message").contains("withheld") && !text(&kept, "message").contains("broken"), "{kept}");
}
