//! The verbs one by one: states, repeats, keys, fencing.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use polity_ledger::{Definition, Idempotency, Note, OrgId, Outcome, Refused, Release, State, canonical};
use serde_json::json;

use crate::common::{Rig, org, settle, subject};

fn release(id: &str) -> Release {
    Release { org: org(), id: id.to_owned(), reason: "ApprovalExpired".to_owned(), by: "core".to_owned() }
}

fn key(key: &str, body: &str) -> Option<Idempotency> {
    Some(Idempotency { key: key.to_owned(), body: body.to_owned() })
}

fn state(refused: Refused) -> String {
    match refused {
        Refused::AlreadyExecuted { state, .. } => state,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn hold_begin_settle() {
    let rig = Rig::new();
    let held = rig.ledger.hold(1, rig.hold("a", 3, 10)).await.unwrap();
    let again = polity_ledger::Held { again: true, ..held.clone() };
    assert_eq!(rig.ledger.hold(1, rig.hold("a", 3, 10)).await.unwrap(), again, "the same hold again");
    assert_eq!(rig.total().await, (0, 3));
    let open = rig.ledger.open_attempts().await.unwrap();
    assert_eq!((open.len(), open[0].state), (1, State::Held));

    let begun = rig.ledger.begin(1, rig.begin("a", 3, 10)).await.unwrap();
    assert_eq!((begun.seq, begun.again), (held.seq + 1, false));
    assert_eq!(begun.input, held.input);
    assert_eq!(rig.total().await, (0, 3), "the hold's reservation is the begin's");
    let again = rig.ledger.begin(1, rig.begin("a", 3, 10)).await.unwrap();
    assert_eq!((again.seq, again.again), (begun.seq, true));
    let mut other = rig.begin("a", 3, 10);
    other.executor = "edge-2".to_owned();
    assert_eq!(state(rig.ledger.begin(1, other).await.unwrap_err()), "Begun");
    assert_eq!(state(rig.ledger.release(1, release("a")).await.unwrap_err()), "Begun");

    let mut end = settle("a", 2, Outcome::Done);
    end.result = Some(json!({ "paid": 12 }));
    end.facts = BTreeMap::from([("exitCode".to_owned(), json!(0))]);
    rig.clock.turn(SignedDuration::from_secs(2));
    let settled = rig.ledger.settle(1, end.clone()).await.unwrap();
    assert_eq!(settled.outcome, Some(Outcome::Done));
    assert_eq!(rig.ledger.settle(1, end).await.unwrap(), settled, "the same settlement again");
    assert_eq!(rig.total().await, (2, 0));
    assert_eq!(state(rig.ledger.begin(1, rig.begin("a", 3, 10)).await.unwrap_err()), "Settled");
    assert_eq!(state(rig.ledger.hold(1, rig.hold("a", 3, 10)).await.unwrap_err()), "Settled");

    let attempt = rig.ledger.attempt(&org(), "a").await.unwrap().unwrap();
    assert_eq!((attempt.state, attempt.executor.as_str()), (State::Settled, "core"));
    assert_eq!(attempt.result, Some(json!({ "paid": 12 })));
    assert_eq!(attempt.result_digest, settled.result);
    assert_eq!(attempt.resume, json!({ "pod": "a" }));
    assert!(rig.ledger.open_attempts().await.unwrap().is_empty());

    let records = rig.records().await;
    let kinds: Vec<&str> = records.iter().map(|r| r.kind.as_str()).collect();
    assert_eq!(kinds, ["genesis", "hold", "begin", "settle"]);
    let end = &records[3];
    assert_eq!((end.verb.as_str(), end.task.as_str(), end.duration_ms), ("tool.call", "t-1", Some(2000)));
    assert_eq!(end.target.as_ref().unwrap().name, "refund");
    assert!(!end.text().contains("paid") && !end.text().contains("somebody"), "digests only");
}

#[tokio::test]
async fn a_hold_that_lapsed_or_was_released_cannot_begin() {
    let rig = Rig::new();
    rig.ledger.hold(1, rig.hold("a", 1, 10)).await.unwrap();
    rig.ledger.hold(1, rig.hold("b", 1, 10)).await.unwrap();
    let seq = rig.ledger.release(1, release("a")).await.unwrap();
    assert_eq!(rig.ledger.release(1, release("a")).await.unwrap(), seq, "the same release again");
    assert_eq!(state(rig.ledger.begin(1, rig.begin("a", 1, 10)).await.unwrap_err()), "Released");
    assert!(rig.ledger.expire(1).await.unwrap().is_empty());
    rig.clock.turn(SignedDuration::from_hours(1));
    assert_eq!(state(rig.ledger.begin(1, rig.begin("b", 1, 10)).await.unwrap_err()), "Expired");
    let lapsed = rig.ledger.expire(1).await.unwrap();
    assert_eq!((lapsed.len(), lapsed[0].id.as_str(), lapsed[0].reason.as_str()), (1, "b", "HoldExpired"));
    assert_eq!(rig.total().await, (0, 0));
    assert_eq!(state(rig.ledger.begin(1, rig.begin("b", 1, 10)).await.unwrap_err()), "Released");
    assert!(matches!(rig.ledger.settle(1, settle("b", 1, Outcome::Done)).await, Err(Refused::NotFound { .. })));
    assert!(matches!(rig.ledger.settle(1, settle("none", 1, Outcome::Done)).await, Err(Refused::NotFound { .. })));
    assert!(matches!(rig.ledger.release(1, release("none")).await, Err(Refused::NotFound { .. })));
}

#[tokio::test]
async fn what_was_held_is_what_begins() {
    let rig = Rig::new();
    rig.ledger.hold(1, rig.hold("a", 1, 10)).await.unwrap();
    let mut other = rig.begin("a", 1, 10);
    other.subject.input = json!({ "amount": 12000, "to": "somebody" });
    assert!(matches!(rig.ledger.begin(1, other).await, Err(Refused::Invalid { .. })));
    let mut encoded = rig.begin("a", 1, 10);
    encoded.subject.input = json!({ "to": "somebody", "amount": 12 });
    rig.ledger.begin(1, encoded).await.expect("12 and 12.0 are the same input");
}

#[tokio::test]
async fn idempotency_keys() {
    let mut rig = Rig::new();
    let with = |rig: &Rig, id: &str, k: Option<Idempotency>| {
        let mut begin = rig.begin(id, 1, 10);
        begin.idempotency = k;
        begin
    };
    rig.ledger.begin(1, with(&rig, "a", key("k", "body"))).await.unwrap();
    rig.reopen().await;
    let replay = Err(Refused::IdempotencyReplay { id: "a".to_owned() });
    assert_eq!(rig.ledger.begin(1, with(&rig, "b", key("k", "body"))).await, replay);
    assert_eq!(rig.ledger.begin(1, with(&rig, "b", key("k", "other"))).await, Err(Refused::IdempotencyKeyReused));
    let mut hold = rig.hold("b", 1, 10);
    hold.idempotency = key("k", "body");
    assert_eq!(rig.ledger.hold(1, hold).await, Err(Refused::IdempotencyReplay { id: "a".to_owned() }));
    // Another caller and another verb have keys of their own.
    let mut caller = with(&rig, "c", key("k", "other"));
    caller.subject.actor.username = "jane".to_owned();
    rig.ledger.begin(1, caller).await.unwrap();
    let mut verb = with(&rig, "d", key("k", "other"));
    verb.subject.verb = "model.call".to_owned();
    rig.ledger.begin(1, verb).await.unwrap();

    let caller = subject("a").actor.username;
    let found = rig.ledger.by_idempotency(&org(), &caller, "tool.call", "k").await.unwrap().unwrap();
    assert_eq!(found.id, "a");
    rig.ledger.settle(1, settle("a", 1, Outcome::Done)).await.unwrap();
    rig.clock.turn(SignedDuration::from_hours(23));
    rig.ledger.expire(1).await.unwrap();
    assert_eq!(rig.ledger.begin(1, with(&rig, "b", key("k", "body"))).await, replay);
    rig.clock.turn(SignedDuration::from_hours(2));
    rig.ledger.expire(1).await.unwrap();
    assert_eq!(rig.ledger.by_idempotency(&org(), &caller, "tool.call", "k").await.unwrap(), None);
    rig.ledger.begin(1, with(&rig, "b", key("k", "body"))).await.unwrap();
    // The key of "c" stays as long as "c" runs.
    assert!(rig.ledger.by_idempotency(&org(), "jane", "tool.call", "k").await.unwrap().is_some());
}

#[tokio::test]
async fn single_use_keys() {
    let rig = Rig::new();
    let with = |id: &str| {
        let mut begin = rig.begin(id, 1, 10);
        begin.consume = vec!["approval/u1".to_owned()];
        begin
    };
    rig.ledger.begin(1, with("a")).await.unwrap();
    assert!(rig.ledger.begin(1, with("a")).await.unwrap().again);
    let used = Err(Refused::AlreadyUsed { key: "approval/u1".to_owned() });
    assert_eq!(rig.ledger.begin(1, with("b")).await, used);
    rig.ledger.settle(1, settle("a", 0, Outcome::NotDone)).await.unwrap();
    assert_eq!(rig.ledger.begin(1, with("b")).await, used, "used once, whatever came of it");
    assert_eq!(rig.total().await, (0, 0));
}

#[tokio::test]
async fn an_older_epoch_is_refused_everywhere() {
    let mut rig = Rig::new();
    rig.ledger.begin(3, rig.begin("a", 1, 10)).await.unwrap();
    rig.ledger.fence(5).await.unwrap();
    rig.ledger.fence(5).await.unwrap();
    rig.reopen().await;
    let fenced = Refused::Fenced { epoch: 4, current: 5 };
    assert_eq!(rig.ledger.fence(4).await.unwrap_err(), fenced);
    assert_eq!(rig.ledger.hold(4, rig.hold("b", 1, 10)).await.unwrap_err(), fenced);
    assert_eq!(rig.ledger.begin(4, rig.begin("a", 1, 10)).await.unwrap_err(), fenced);
    assert_eq!(rig.ledger.settle(4, settle("a", 1, Outcome::Done)).await.unwrap_err(), fenced);
    assert_eq!(rig.ledger.release(4, release("a")).await.unwrap_err(), fenced);
    assert_eq!(rig.ledger.note(4, note("decision", None)).await.unwrap_err(), fenced);
    assert_eq!(rig.ledger.expire(4).await.unwrap_err(), fenced);
    assert_eq!(rig.ledger.definition(4, definition(Some(json!(1)))).await.unwrap_err(), fenced);
    rig.ledger.settle(6, settle("a", 1, Outcome::Done)).await.unwrap();
    assert_eq!(rig.ledger.fence(5).await.unwrap_err(), Refused::Fenced { epoch: 5, current: 6 });
    assert_eq!(rig.records().await.last().unwrap().epoch, 6);
}

fn note(kind: &str, once: Option<&str>) -> Note {
    Note {
        kind: kind.to_owned(),
        org: org(),
        once: once.map(str::to_owned),
        subject: Some(subject("call-1")),
        actor: None,
        target: None,
        reason: "PolicyDenied".to_owned(),
        facts: BTreeMap::from([("redactions".to_owned(), json!({ "email": 2 })), ("hint".to_owned(), json!("ask"))]),
    }
}

#[tokio::test]
async fn notes() {
    let rig = Rig::new();
    let first = rig.ledger.note(1, note("decision", Some("decision/u1/1"))).await.unwrap();
    assert_eq!(rig.ledger.note(1, note("decision", Some("decision/u1/1"))).await.unwrap(), first);
    assert_eq!(rig.ledger.note(1, note("somethingNew", None)).await.unwrap(), first + 1);
    for kind in ["begin", "settle", "genesis", ""] {
        assert!(matches!(rig.ledger.note(1, note(kind, None)).await, Err(Refused::Invalid { .. })), "{kind}");
    }
    let records = rig.records().await;
    assert_eq!(records.len(), 3);
    let record = &records[1];
    assert_eq!((record.reason.as_str(), record.redactions["email"]), ("PolicyDenied", 2));
    assert_eq!(record.facts, BTreeMap::from([("hint".to_owned(), json!("ask"))]));
    assert!(record.input.is_some() && record.input_text.is_none());

    let mut full = note("decision", None);
    full.subject.as_mut().unwrap().keep_input = true;
    rig.ledger.note(1, full).await.unwrap();
    assert_eq!(rig.records().await[3].input_text, Some(json!({ "amount": 12, "to": "somebody" })));
}

fn definition(body: Option<serde_json::Value>) -> Definition {
    Definition { org: org(), kind: "Policy".to_owned(), namespace: "acme".to_owned(), name: "refunds".to_owned(), body, actor: None }
}

#[tokio::test]
async fn definitions_are_kept_by_digest() {
    let rig = Rig::new();
    let one = rig.ledger.definition(1, definition(Some(json!({ "max": 1 })))).await.unwrap();
    let same = rig.ledger.definition(1, definition(Some(json!({ "max": 1.0 })))).await.unwrap();
    assert_eq!((same.digest.as_str(), same.seq), (one.digest.as_str(), None));
    let two = rig.ledger.definition(1, definition(Some(json!({ "max": 2 })))).await.unwrap();
    assert_ne!(one.digest, two.digest);
    let back = rig.ledger.definition(1, definition(Some(json!({ "max": 1 })))).await.unwrap();
    assert_eq!(back.digest, one.digest);
    let gone = rig.ledger.definition(1, definition(None)).await.unwrap();
    assert_eq!(gone.digest, "");
    assert_eq!(rig.ledger.definition(1, definition(None)).await.unwrap().seq, None);
    assert_eq!(rig.ledger.definition_body(&org(), &two.digest).await.unwrap(), Some(json!({ "max": 2 })));
    let records = rig.records().await;
    let told: Vec<(&str, &str)> = records[1..].iter().map(|r| (r.kind.as_str(), r.reason.as_str())).collect();
    assert_eq!(told, [("definition", "Added"), ("definition", "Changed"), ("definition", "Changed"), ("definition", "Removed")]);
}

#[tokio::test]
async fn digests_are_keyed_by_org() {
    let mut rig = Rig::new();
    let text = canonical(&json!({ "b": 1.0, "a": null })).unwrap();
    let one = rig.ledger.digest(&org(), &text).await.unwrap();
    assert_eq!(rig.ledger.digest(&org(), &text).await.unwrap(), one);
    let other = OrgId { name: "other".to_owned(), uid: "uid-other".to_owned() };
    let two = rig.ledger.digest(&other, &text).await.unwrap();
    assert!(one.digest != two.digest && one.key_id != two.key_id);
    assert_eq!((one.digest.len(), one.size), (64, 16));
    rig.reopen().await;
    assert_eq!(rig.ledger.digest(&org(), &text).await.unwrap(), one, "the key is kept");
    assert_eq!(rig.ledger.orgs().await.unwrap(), [org(), other]);
}
