//! Approval: one own entry a person, never the requester, only who counts, only while it waits.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)] // a helper that fails fails its test; `json!` values read best by value

mod common;

use std::sync::Arc;

use common::{ALICE, ALICE_TOO, Ask, BOB, BOT, CAROL, DAVE, Fixture, NOW, accepted, object, patch_of, refused, send};
use polity_api::reasons;
use serde_json::{Value, json};

fn requirement(who: Value) -> Value {
    let mut requirement = json!({"rule": "finance/limits/ask", "count": 1, "humansOnly": true});
    requirement.as_object_mut().unwrap().extend(who.as_object().unwrap().clone());
    requirement
}

fn cfo() -> Value {
    requirement(json!({"role": {"org": "acme", "name": "cfo"}}))
}

fn approval(requester: Value, requirements: Value, decisions: Value) -> Value {
    let mut approval = object(
        "Approval",
        "finance",
        "a1",
        json!({
            "action": {"verb": "tool.call", "call": "c1", "callUid": "u", "target": {"kind": "Tool", "namespace": "finance", "name": "payments-send", "digest": ""}},
            "input": {"amount": 60}, "digest": {"digest": "d", "keyId": "k"}, "requester": requester, "requirements": requirements,
            "expiresAt": "2026-11-22T12:00:00Z", "decisions": decisions,
        }),
    );
    approval["status"] = json!({"phase": "Pending"});
    approval
}

fn by_bot(requirements: Value, decisions: Value) -> Value {
    approval(json!({"username": BOT}), requirements, decisions)
}

fn yes(user: &str) -> Value {
    json!({"by": user, "decision": "Approve"})
}

#[tokio::test]
async fn an_own_entry_is_stamped_and_accepted() {
    let fixture = Arc::new(Fixture::default());
    let earlier = json!({"by": "zoe", "decision": "Approve", "at": NOW, "groups": ["g"]});
    let old = by_bot(json!([cfo()]), json!([earlier]));
    let new = by_bot(json!([cfo()]), json!([earlier, yes(CAROL)]));
    let stamped = Ask::update(CAROL, old, new).groups(&["execs"]).mutate(&fixture).await.unwrap();
    let decisions = &stamped.object()["spec"]["decisions"];
    assert_eq!(decisions[0], earlier, "others' entries stay as they are");
    assert_eq!(decisions[1], json!({"by": CAROL, "decision": "Approve", "at": NOW, "groups": ["execs"]}));
    assert_eq!(patch_of(&send(&fixture, "/mutate", &stamped.body).await["response"]), None);
    assert_eq!(accepted(&stamped.validate(&fixture).await), Vec::<String>::new());
}

#[tokio::test]
async fn nobody_writes_for_another() {
    let fixture = Arc::new(Fixture::default());
    let ask = Ask::update(BOB, by_bot(json!([cfo()]), json!([])), by_bot(json!([cfo()]), json!([yes(CAROL)])));
    refused(&ask.mutate(&fixture).await.err().unwrap(), 403, reasons::CALLER_NOT_STAMPED);
    refused(&ask.validate(&fixture).await, 403, reasons::CALLER_NOT_STAMPED);
    // Forged stamps are overwritten, and without stamps nothing is accepted.
    let forged = json!({"by": CAROL, "decision": "Approve", "at": "2020-01-01T00:00:00Z", "groups": ["execs"]});
    let ask = Ask::update(CAROL, by_bot(json!([cfo()]), json!([])), by_bot(json!([cfo()]), json!([forged])));
    refused(&ask.validate(&fixture).await, 403, reasons::CALLER_NOT_STAMPED);
    let stamped = ask.mutate(&fixture).await.unwrap();
    assert_eq!(stamped.object()["spec"]["decisions"][0]["groups"], json!(["system:authenticated"]));
}

/// Decides with one user; the answer of both webhooks.
async fn decide(user: &str, groups: &[&str], old: Value) -> Value {
    let mut new = old.clone();
    new["spec"]["decisions"] = json!([yes(user)]);
    Ask::update(user, old, new).groups(groups).admit(&Arc::new(Fixture::default())).await
}

#[tokio::test]
async fn the_requester_never_counts_by_any_username() {
    let anyone = requirement(json!({"group": "staff"}));
    for (requester, user) in [
        (json!({"username": ALICE}), ALICE),
        (json!({"username": ALICE}), ALICE_TOO),
        (json!({"username": BOT, "chain": [ALICE]}), ALICE_TOO),
    ] {
        let response = decide(user, &["staff"], approval(requester, json!([anyone]), json!([]))).await;
        assert!(refused(&response, 403, reasons::NOT_AN_APPROVER).contains("own request"));
    }
    accepted(&decide(ALICE_TOO, &["staff"], approval(json!({"username": BOB}), json!([anyone]), json!([]))).await);
}

#[tokio::test]
async fn only_who_counts_for_a_requirement() {
    let message = decide(BOB, &[], by_bot(json!([cfo()]), json!([]))).await;
    let message = refused(&message, 403, reasons::NOT_AN_APPROVER);
    assert!(message.contains("finance/bob") && message.contains("Role cfo of Org acme"), "{message}");
    // One of several is enough.
    accepted(&decide(BOB, &["audit"], by_bot(json!([cfo(), requirement(json!({"group": "audit"}))]), json!([]))).await);
    // The group counts as it is now, by the API server.
    refused(
        &decide(DAVE, &["other"], by_bot(json!([requirement(json!({"group": "audit"}))]), json!([]))).await,
        403,
        reasons::NOT_AN_APPROVER,
    );
    // The bot's Role reports to cfo, which carol holds.
    let superior = requirement(json!({"superior": true}));
    accepted(&decide(CAROL, &[], by_bot(json!([superior]), json!([]))).await);
    refused(&decide(BOB, &[], by_bot(json!([superior]), json!([]))).await, 403, reasons::NOT_AN_APPROVER);
    // A stranger is nobody, whatever his groups.
    refused(
        &decide("eve", &["audit"], by_bot(json!([requirement(json!({"group": "audit"}))]), json!([]))).await,
        403,
        reasons::NOT_AN_APPROVER,
    );
}

#[tokio::test]
async fn machines_count_only_where_not_only_humans_do() {
    let by_bob = |who: Value| approval(json!({"username": BOB}), json!([who]), json!([]));
    refused(&decide(BOT, &["audit"], by_bob(requirement(json!({"group": "audit"})))).await, 403, reasons::NOT_AN_APPROVER);
    accepted(&decide(BOT, &["audit"], by_bob(requirement(json!({"group": "audit", "humansOnly": false})))).await);
}

#[tokio::test]
async fn only_while_it_waits() {
    let mut expired = by_bot(json!([cfo()]), json!([]));
    expired["spec"]["expiresAt"] = json!(NOW);
    refused(&decide(CAROL, &[], expired).await, 403, reasons::APPROVAL_EXPIRED);
    for (phase, reason) in [
        ("Expired", reasons::APPROVAL_EXPIRED),
        ("Denied", reasons::APPROVAL_ENDED),
        ("Approved", reasons::APPROVAL_ENDED),
        ("Withdrawn", reasons::APPROVAL_ENDED),
    ] {
        let mut ended = by_bot(json!([cfo()]), json!([]));
        ended["status"]["phase"] = json!(phase);
        refused(&decide(CAROL, &[], ended).await, 403, reason);
    }
}

#[tokio::test]
async fn nothing_else_changes() {
    let fixture = Arc::new(Fixture::default());
    let entry = json!({"by": CAROL, "decision": "Deny", "at": NOW, "groups": []});
    let old = by_bot(json!([cfo()]), json!([entry]));
    for decisions in [json!([]), json!([{"by": CAROL, "decision": "Approve", "at": NOW}])] {
        let mut new = old.clone();
        new["spec"]["decisions"] = decisions;
        refused(&Ask::update(CAROL, old.clone(), new).admit(&fixture).await, 403, reasons::APPROVAL_MISMATCH);
    }
    let mut new = old.clone();
    new["spec"]["input"] = json!({"amount": 1});
    refused(&Ask::update(CAROL, old.clone(), new).admit(&fixture).await, 422, reasons::APPROVAL_MISMATCH);
    let stale = Arc::new(Fixture { stale: true, ..Fixture::default() });
    let mut new = by_bot(json!([cfo()]), json!([]));
    let before = new.clone();
    new["spec"]["decisions"] = json!([yes(CAROL)]);
    refused(&Ask::update(CAROL, before, new).admit(&stale).await, 403, reasons::POLICY_STALE);
    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    accepted(&Ask::update("eve", old, labelled).admit(&stale).await);
}
