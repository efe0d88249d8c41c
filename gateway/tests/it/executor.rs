//! Stored calls of `http` Tools: claimed, run, ended; and what is left in the middle.

use std::sync::Arc;

use polity_gateway::executor;
use polity_ledger::{Outcome, Refused, State};
use serde_json::{Value, json};

use crate::{
    api::Api,
    harness::{Edge, until},
    ledger::{Ledger, begun},
};

const UID: &str = "00000000-0000-4000-8000-000000000999";

fn call(name: &str, tool: &str, amount: i64) -> Value {
    let caller = json!({"username": "system:serviceaccount:acme:polity-agent-payer"});
    let spec = json!({"tool": {"name": tool}, "input": {"amount": amount}, "caller": caller, "trace": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}});
    json!({"apiVersion": "polity.dev/v1alpha1", "kind": "ToolCall", "metadata": {"name": name, "uid": UID, "generation": 1}, "spec": spec})
}

fn start(edge: &Edge) {
    tokio::spawn(executor::run(edge.gateway.clone(), edge.cancel.clone()));
}

async fn phase(api: &Api, name: &str, expected: &str) -> Value {
    until(expected, || {
        let call = api.get("toolcalls", name).unwrap();
        if call["status"]["phase"] == expected { Ok(call) } else { Err(call["status"].to_string()) }
    })
    .await
}

fn condition(call: &Value) -> (&str, &str) {
    let condition = call["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Succeeded").unwrap();
    (condition["status"].as_str().unwrap(), condition["reason"].as_str().unwrap())
}

#[tokio::test]
async fn an_allowed_call_is_run_with_two_writes() {
    let edge = Edge::start().await;
    edge.api.put("toolcalls", call("c", "pay", 20));
    start(&edge);
    let done = phase(&edge.api, "c", "Succeeded").await;
    assert_eq!(done["status"]["result"]["output"], json!({"paid": {"amount": 20}}));
    assert_eq!((condition(&done), &done["status"]["result"]["code"]), (("True", "Done"), &json!(200)));
    assert!(done["status"]["claim"]["by"].as_str().unwrap().starts_with("polity-edge-1."));
    assert_eq!((&done["status"]["decision"]["verdict"], &done["status"]["decision"]["record"]), (&json!("Allow"), &json!(1)));
    assert!(done["status"]["startedAt"].is_string() && done["status"]["finishedAt"].is_string());
    assert_eq!(edge.api.writes(), ["PATCH toolcalls/status"; 2]);
    let begin = &edge.ledger.begins()[0];
    assert_eq!((begin.subject.id.as_str(), begin.subject.trace.as_str()), (UID, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    assert_eq!(edge.ledger.log(), ["begin pay", "settle Done  used=1"]);
}

#[tokio::test]
async fn two_replicas_run_a_call_once() {
    let (api, ledger) = (Api::new(), Arc::<Ledger>::default());
    let one = Edge::start_with("polity-edge-1", api.clone(), ledger.clone()).await;
    let two = Edge::start_with("polity-edge-2", api.clone(), ledger.clone()).await;
    start(&one);
    start(&two);
    api.put("toolcalls", call("c", "pay", 20));
    phase(&api, "c", "Succeeded").await;
    assert_eq!((one.sent() + two.sent(), ledger.begins().len()), (1, 1));
}

#[tokio::test]
async fn a_claim_that_conflicts_is_written_on_the_newer_object() {
    let edge = Edge::start().await;
    edge.api.conflicts(3);
    edge.api.put("toolcalls", call("c", "pay", 20));
    start(&edge);
    phase(&edge.api, "c", "Succeeded").await;
    assert_eq!(edge.sent(), 1);
}

#[tokio::test]
async fn denials_and_waits_are_left_to_core_and_containers_too() {
    let edge = Edge::start().await;
    for (name, tool, amount) in [("denied", "pay", 9000), ("waits", "pay", 400), ("box", "box", 1)] {
        let mut call = call(name, tool, amount);
        call["metadata"]["uid"] = Value::Null;
        edge.api.put("toolcalls", call);
    }
    start(&edge);
    edge.api.put("toolcalls", call("z", "pay", 1));
    phase(&edge.api, "z", "Succeeded").await;
    for name in ["denied", "waits", "box"] {
        assert!(edge.api.get("toolcalls", name).unwrap()["status"].is_null(), "{name}");
    }
    assert_eq!((edge.sent(), edge.ledger.begins().len()), (1, 1));
}

#[tokio::test]
async fn an_approved_call_runs_on_its_approval() {
    let edge = Edge::start().await;
    let mut waits = call("c", "pay", 400);
    waits["status"] = json!({"phase": "WaitingApproval", "approval": "a", "conditions": []});
    edge.api.put("toolcalls", waits);
    let mut held = begun(UID, "", jiff::Timestamp::MAX);
    held.state = State::Held;
    edge.ledger.put(held);
    let approval = |phase: &str, call_uid: &str| {
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Approval", "metadata": {"name": "a", "uid": "approval-uid"},
            "spec": {"action": {"verb": "tool.call", "target": {"kind": "Tool", "namespace": "acme", "name": "pay", "digest": "d"}, "call": "c", "callUid": call_uid},
                "input": {"amount": 400}, "digest": {"digest": "d", "keyId": "k"}, "requester": {"username": "u"},
                "requirements": [{"rule": "acme/limits/small", "count": 1, "humansOnly": true}], "expiresAt": "2099-01-01T00:00:00Z"},
            "status": {"phase": phase}})
    };
    edge.api.put("approvals", approval("Pending", UID));
    start(&edge);
    edge.api.put("approvals", approval("Approved", "another-call"));
    let mut other = call("z", "pay", 1);
    other["metadata"]["uid"] = Value::Null;
    edge.api.put("toolcalls", other);
    phase(&edge.api, "z", "Succeeded").await;
    assert_eq!(edge.sent(), 1, "neither a pending Approval nor another call's lets it run");
    edge.api.put("approvals", approval("Approved", UID));
    phase(&edge.api, "c", "Succeeded").await;
    let begin = edge.ledger.begins().into_iter().find(|b| b.subject.id == UID).unwrap();
    assert_eq!((begin.subject.verdict.approvals, begin.idempotency), (vec!["approval-uid".to_owned()], None));
}

#[tokio::test]
async fn what_the_ledger_refuses_for_good_ends_the_call() {
    let edge = Edge::start().await;
    edge.ledger.refuse_begin([Refused::BudgetExceeded { owner: "Org acme".into(), unit: "calls".into(), limit: 5, used: 5, asked: 1 }]);
    edge.api.put("toolcalls", call("c", "pay", 20));
    start(&edge);
    let denied = phase(&edge.api, "c", "Denied").await;
    assert_eq!((condition(&denied), &denied["status"]["decision"]["record"]), (("False", "BudgetExceeded"), &json!(7)));
    assert_eq!((edge.sent(), edge.ledger.notes().len()), (0, 1));
}

#[tokio::test]
async fn the_same_key_shows_the_outcome_that_stands() {
    let edge = Edge::start().await;
    let (_, first) = edge.call(json!({"tool": "pay", "input": {"amount": 20}, "idempotencyKey": "k"})).await;
    let mut again = call("c", "pay", 20);
    again["spec"]["idempotencyKey"] = json!("k");
    edge.api.put("toolcalls", again);
    start(&edge);
    let done = phase(&edge.api, "c", "Succeeded").await;
    assert_eq!((condition(&done).1, &done["status"]["result"]["output"]), ("IdempotencyReplay", &first["result"]["output"]));
    assert_eq!(edge.sent(), 1);
}

#[tokio::test]
async fn a_running_call_is_stopped_when_asked() {
    let edge = Edge::start().await;
    edge.api.put("toolcalls", call("c", "slow", 1));
    start(&edge);
    until("it is sent", || (edge.sent() == 1).then_some(()).ok_or_else(|| "not sent".into())).await;
    let mut canceled = edge.api.get("toolcalls", "c").unwrap();
    canceled["spec"]["cancel"] = json!(true);
    edge.api.put("toolcalls", canceled);
    let call = phase(&edge.api, "c", "Unknown").await;
    assert_eq!(condition(&call), ("Unknown", "OutcomeUnknown"));
    assert_eq!(edge.ledger.attempt_of(UID).unwrap().outcome, Some(Outcome::Unknown));
}

#[tokio::test]
async fn a_canceled_call_never_begins() {
    let edge = Edge::start().await;
    let mut canceled = call("c", "pay", 1);
    canceled["spec"]["cancel"] = json!(true);
    edge.api.put("toolcalls", canceled);
    start(&edge);
    let mut other = call("z", "pay", 1);
    other["metadata"]["uid"] = Value::Null;
    edge.api.put("toolcalls", other);
    phase(&edge.api, "z", "Succeeded").await;
    assert_eq!((edge.sent(), edge.ledger.begins().len()), (1, 1));
}

/// A call that an earlier process of the same replica claimed.
fn claimed(tool: &str, by: &str) -> Value {
    let mut running = call("c", tool, 1);
    running["status"] = json!({"phase": "Running", "conditions": [], "claim": {"by": by, "at": "2026-01-01T00:00:00Z", "deadline": "2099-01-01T00:00:00Z"}});
    running
}

#[tokio::test]
async fn what_an_earlier_process_was_running_is_unknown() {
    let edge = Edge::start().await;
    edge.ledger.put(begun(UID, "polity-edge-1.00000000", jiff::Timestamp::MAX));
    edge.api.put("toolcalls", claimed("pay", "polity-edge-1.00000000"));
    start(&edge);
    phase(&edge.api, "c", "Unknown").await;
    assert_eq!((edge.sent(), edge.ledger.attempt_of(UID).unwrap().outcome), (0, Some(Outcome::Unknown)));
}

#[tokio::test]
async fn an_idempotent_one_is_run_again() {
    let edge = Edge::start().await;
    edge.ledger.put(begun(UID, "polity-edge-1.00000000", jiff::Timestamp::MAX));
    edge.api.put("toolcalls", claimed("again", "polity-edge-1.00000000"));
    edge.upstream.go.notify_one();
    start(&edge);
    let done = phase(&edge.api, "c", "Succeeded").await;
    assert_eq!((edge.sent(), &done["status"]["result"]["output"]), (1, &json!("late")));
}

#[tokio::test]
async fn one_that_another_replica_runs_is_left_alone() {
    let edge = Edge::start().await;
    edge.ledger.put(begun(UID, "polity-edge-2.00000000", jiff::Timestamp::MAX));
    edge.api.put("toolcalls", claimed("pay", "polity-edge-2.00000000"));
    start(&edge);
    let mut other = call("z", "pay", 1);
    other["metadata"]["uid"] = Value::Null;
    edge.api.put("toolcalls", other);
    phase(&edge.api, "z", "Succeeded").await;
    assert_eq!(edge.api.get("toolcalls", "c").unwrap()["status"]["phase"], "Running");
}

#[tokio::test]
async fn what_began_and_was_never_claimed_never_ran() {
    let edge = Edge::start().await;
    edge.ledger.put(begun(UID, "polity-edge-1.00000000", jiff::Timestamp::MAX));
    edge.api.put("toolcalls", call("c", "pay", 1));
    start(&edge);
    phase(&edge.api, "c", "Failed").await;
    assert_eq!((edge.sent(), edge.ledger.attempt_of(UID).unwrap().outcome), (0, Some(Outcome::NotDone)));
}
