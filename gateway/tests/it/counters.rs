//! Rules that read counters: asked for only where a rule reads them, decided by what core says they stand at, and never allowed without an answer.

use polity_ledger::Refused;
use serde_json::{Value, json};

use crate::harness::Edge;

fn sum(amount: i64) -> Value {
    json!({"tool": "sum", "input": {"amount": amount}})
}

#[tokio::test]
async fn counters_decide_and_are_asked_for_only_where_a_rule_reads_them() {
    let edge = Edge::start().await;
    edge.ledger.set_past(|past| past.set_counter("acme/sums", "spent", 40));
    let (status, done) = edge.call(sum(10)).await;
    assert_eq!((status.as_u16(), &done["phase"]), (200, &json!("Succeeded")), "{done}");
    let payer = "system:serviceaccount:acme:polity-agent-payer";
    let log = edge.ledger.log();
    assert_eq!(log[..3], [format!("past of sum for {payer} task -"), "begin sum".to_owned(), format!("counted for {payer}")], "{log:?}");
    let (status, denied) = edge.call(sum(11)).await;
    assert_eq!((status.as_u16(), &denied["rules"]), (403, &json!(["acme/sums/day"])), "{denied}");
    let before = edge.ledger.log().len();
    edge.call(json!({"tool": "pay", "input": {"amount": 20}})).await;
    let log = edge.ledger.log();
    assert!(log[before..].iter().any(|l| l == "begin pay"), "{log:?}");
    assert!(!log[before..].iter().any(|l| l.starts_with("past") || l.starts_with("counted")), "no rule on it reads counters: {log:?}");
}

#[tokio::test]
async fn what_core_does_not_tell_denies() {
    let edge = Edge::start().await;
    let (status, denied) = edge.call(sum(1)).await;
    assert_eq!((status.as_u16(), &denied["reason"]), (403, &json!("CountersUnknown")), "{denied}");
    edge.ledger.away(true);
    let (status, told) = edge.call(sum(1)).await;
    assert_eq!((status.as_u16(), &told["reason"]), (503, &json!("LedgerUnavailable")), "{told}");
    assert!(edge.ledger.begins().is_empty() && edge.sent() == 0);
}

#[tokio::test]
async fn a_view_or_counter_that_moves_is_decided_again() {
    let edge = Edge::start().await;
    edge.ledger.set_past(|past| past.set_counter("acme/sums", "spent", 0));
    edge.ledger.stale_past(2);
    edge.ledger.refuse_begin([Refused::Contended]);
    let (status, done) = edge.call(sum(50)).await;
    assert_eq!((status.as_u16(), &done["phase"]), (200, &json!("Succeeded")), "{done}");
    edge.ledger.refuse_begin([Refused::Contended, Refused::Contended, Refused::Contended]);
    let (_, told) = edge.call(sum(50)).await;
    assert_eq!(told["reason"], json!("Contended"), "{told}");
}

#[tokio::test]
async fn what_was_answered_before_stands_whatever_was_counted_since() {
    let edge = Edge::start().await;
    edge.ledger.set_past(|past| past.set_counter("acme/sums", "spent", 0));
    let keyed = |amount: i64| json!({"tool": "sum", "input": {"amount": amount}, "idempotencyKey": "k-1"});
    let (_, first) = edge.call(keyed(50)).await;
    assert_eq!(first["phase"], json!("Succeeded"), "{first}");
    edge.ledger.set_past(|past| past.set_counter("acme/sums", "spent", 50));
    let (_, again) = edge.call(keyed(50)).await;
    assert_eq!((&again["id"], &again["phase"]), (&first["id"], &first["phase"]), "{again}");
    let (_, other) = edge.call(keyed(49)).await;
    assert_eq!(other["reason"], json!("PolicyDenied"), "another body under the key is decided for itself: {other}");
    assert_eq!(edge.sent(), 1);
}

#[tokio::test]
async fn a_question_reads_and_reserves_nothing() {
    let edge = Edge::start().await;
    edge.ledger.set_past(|past| past.set_counter("acme/sums", "spent", 45));
    for (amount, verdict) in [(5, "Allow"), (6, "Deny")] {
        let (_, told) = edge.ask("POST", "/v1/orgs/acme/evaluate", "payer-token", Some(sum(amount))).await;
        assert_eq!(told["verdict"], json!(verdict), "{told}");
    }
    assert!(edge.ledger.log().iter().all(|line| line.starts_with("past of")), "{:?}", edge.ledger.log());
}
