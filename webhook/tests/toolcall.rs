//! ToolCall through both webhooks: stamps, forged callers, early decision, dry run, resolution.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)] // a helper that fails fails its test; `json!` values read best by value

mod common;

use std::sync::Arc;

use common::{ALICE, Ask, BOB, BOT, CORE, EDGE, Fixture, NOW, accepted, call, object, patch_of, policy, refused, send};
use polity_api::reasons;
use polity_policy::TaskFacts;
use serde_json::{Value, json};

fn pay(amount: i64) -> Value {
    call("payments-send", json!({"amount": amount}))
}

#[tokio::test]
async fn stamps_caller_and_trace_once() {
    let fixture = Arc::new(Fixture::default());
    let mut ask = Ask::create(BOT, pay(1));
    ask.body["request"]["userInfo"]["extra"] =
        json!({"authentication.kubernetes.io/pod-name": ["bot-1"], "authentication.kubernetes.io/pod-uid": ["pod-7"]});
    let stamped = ask.mutate(&fixture).await.unwrap();
    let caller = json!({"username": BOT, "uid": "uid-1", "groups": ["system:authenticated"], "podName": "bot-1", "podUid": "pod-7"});
    assert_eq!(stamped.object()["spec"]["caller"], caller);
    let trace = stamped.object()["spec"]["trace"]["traceparent"].as_str().unwrap();
    assert!(trace.starts_with("00-0707") && trace.ends_with("-01"), "{trace}");
    assert_eq!(stamped.object()["spec"]["input"], json!({"amount": 1}), "nothing else changes");
    let again = send(&fixture, "/mutate", &stamped.body).await;
    assert_eq!(patch_of(&again["response"]), None, "a second round patches nothing");
    accepted(&stamped.validate(&fixture).await);
}

#[tokio::test]
async fn a_forged_caller_is_refused_by_both() {
    let fixture = Arc::new(Fixture::default());
    for forged in [json!({"username": BOT}), json!({"username": BOB, "groups": ["admins"]}), json!({"username": BOB, "via": CORE})] {
        let mut new = pay(1);
        new["spec"]["caller"] = forged;
        new["spec"]["trace"] = json!({"traceparent": "00-00000000000000000000000000000001-0000000000000001-01"});
        let ask = Ask::create(BOB, new);
        let message = ask.mutate(&fixture).await.err().unwrap();
        assert!(refused(&message, 403, reasons::CALLER_NOT_STAMPED).contains("leave spec.caller out"));
        refused(&ask.validate(&fixture).await, 403, reasons::CALLER_NOT_STAMPED);
    }
    let notes = fixture.notes.lock().unwrap();
    assert_eq!(notes.len(), 3);
    let actor = notes[0].actor.as_ref().unwrap();
    assert_eq!((notes[0].kind.as_str(), notes[0].reason.as_str(), actor.username.as_str()), ("attempt", reasons::CALLER_NOT_STAMPED, BOB));
    assert_eq!((notes[0].org.name.as_str(), actor.agent.as_str()), ("finance", "finance/bob"));
}

#[tokio::test]
async fn what_another_mutator_changes_is_refused() {
    let fixture = Arc::new(Fixture::default());
    let stamped = Ask::create(ALICE, pay(1)).mutate(&fixture).await.unwrap();
    for (field, value) in [("caller", Value::Null), ("trace", Value::Null), ("trace", json!({"traceparent": "x"}))] {
        let mut body = stamped.body.clone();
        body["request"]["object"]["spec"][field] = value;
        refused(&(Ask { body }).validate(&fixture).await, 403, reasons::CALLER_NOT_STAMPED);
    }
    let mut body = stamped.body.clone();
    body["request"]["object"]["spec"]["caller"]["groups"] = json!([]);
    refused(&(Ask { body }).validate(&fixture).await, 403, reasons::CALLER_NOT_STAMPED);
}

#[tokio::test]
async fn only_our_accounts_act_for_another() {
    let fixture = Arc::new(Fixture::default());
    let mut new = pay(1);
    new["spec"]["caller"] = json!({"username": ALICE, "groups": ["staff"]});
    for ours in [CORE, EDGE] {
        let stamped = Ask::create(ours, new.clone()).mutate(&fixture).await.unwrap();
        assert_eq!(stamped.object()["spec"]["caller"], json!({"username": ALICE, "groups": ["staff"], "via": ours}));
        accepted(&stamped.validate(&fixture).await);
    }
    refused(&Ask::create("system:serviceaccount:finance:polity-core", new).admit(&fixture).await, 403, reasons::CALLER_NOT_STAMPED);
}

#[tokio::test]
async fn decides_early() {
    let fixture = Arc::new(Fixture::default());
    let warnings = accepted(&Ask::create(ALICE, pay(20)).admit(&fixture).await);
    assert_eq!(warnings, Vec::<String>::new());

    let warnings = accepted(&Ask::create(ALICE, pay(30)).admit(&fixture).await);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("finance/advice/small") && warnings[0].len() <= 256, "{warnings:?}");

    let response = Ask::create(ALICE, pay(60)).admit(&fixture).await;
    let warnings = accepted(&response);
    assert!(
        warnings.iter().any(|w| w.contains("waits for approval") && w.contains("cfo") && w.contains("finance/limits/ask")),
        "{warnings:?}"
    );
    assert_eq!(response["auditAnnotations"]["verdict"], "RequireApproval");
    assert!(fixture.notes.lock().unwrap().is_empty(), "what is accepted is recorded by dispatch");

    let response = Ask::create(ALICE, pay(501)).admit(&fixture).await;
    let message = refused(&response, 403, reasons::POLICY_DENIED);
    for part in ["finance/limits/max", "Payments above 500 are forbidden.", "Ask for at most 500."] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let causes = response["status"]["details"]["causes"].as_array().unwrap();
    assert!(causes.iter().any(|c| c["reason"] == reasons::POLICY_DENIED && c["message"] == "finance/limits/max"), "{causes:?}");
    assert!(causes.iter().any(|c| c["reason"] == "Hint" && c["message"] == "Ask for at most 500."), "{causes:?}");
    let notes = fixture.notes.lock().unwrap();
    let subject = notes[0].subject.as_ref().unwrap();
    assert_eq!((notes.len(), notes[0].reason.as_str(), subject.id.as_str()), (1, reasons::POLICY_DENIED, "ToolCall-c1"));
    assert_eq!((subject.verdict.effect.as_str(), subject.actor.agent.as_str()), ("Deny", "finance/alice"));
    assert!(!subject.trace.is_empty());
}

#[tokio::test]
async fn refuses_what_no_grant_allows() {
    let fixture = Arc::new(Fixture::default());
    refused(&Ask::create(BOB, pay(1)).admit(&fixture).await, 403, reasons::NOT_GRANTED);
    refused(&Ask::create("eve", pay(1)).admit(&fixture).await, 403, reasons::UNKNOWN_CALLER);
    refused(&Ask::create(ALICE, call("payments-other", json!({}))).admit(&fixture).await, 403, reasons::TOOL_NOT_FOUND);
    refused(&Ask::create(ALICE, call("payments-send", json!({"amount": "1"}))).admit(&fixture).await, 403, reasons::INVALID_ARGUMENTS);
}

#[tokio::test]
async fn a_tool_made_a_moment_ago_is_looked_for_once() {
    let late = ("finance".to_owned(), "payments-new".to_owned());
    let fixture = Arc::new(Fixture { late_tool: Some(late).into(), ..Fixture::default() });
    accepted(&Ask::create(ALICE, call("payments-new", json!({"amount": 1}))).admit(&fixture).await);
}

#[tokio::test]
async fn says_when_there_are_too_few_to_approve() {
    let mut fixture = Fixture::default();
    let pair = json!([{"name": "pair", "expression": "false", "effect": "RequireApproval", "approval": {"role": {"org": "acme", "name": "cfo"}, "count": 2}}]);
    policy(fixture.world.get_mut().unwrap(), "pair", "Enforce", pair);
    let warnings = accepted(&Ask::create(ALICE, pay(1)).admit(&Arc::new(fixture)).await);
    assert_eq!(
        warnings.last().unwrap(),
        "only 1 of the 2 approvers that rule finance/pair/pair asks for are there (who asks never counts)"
    );
}

#[tokio::test]
async fn rewrites_the_input_and_says_by_which_rule() {
    let mut fixture = Fixture::default();
    let cap = json!([{"name": "max", "expression": "args.amount <= 20", "effect": "Rewrite", "rewrite": [{"path": "amount", "max": 20}]}]);
    policy(fixture.world.get_mut().unwrap(), "cap", "Enforce", cap);
    let fixture = Arc::new(fixture);
    let stamped = Ask::create(ALICE, pay(501)).mutate(&fixture).await.unwrap();
    let rewrites = json!([{"rule": "finance/cap/max", "paths": ["/amount"]}]);
    assert_eq!((&stamped.object()["spec"]["input"], &stamped.object()["spec"]["rewrites"]), (&json!({"amount": 20}), &rewrites));
    let warnings = accepted(&stamped.validate(&fixture).await);
    assert_eq!(warnings, ["rule finance/cap/max rewrote /amount of the input"]);

    // an input that the rules leave alone has no such stamp, and nobody writes one himself
    let small = Ask::create(ALICE, pay(5)).mutate(&fixture).await.unwrap();
    assert_eq!((&small.object()["spec"]["input"], &small.object()["spec"]["rewrites"]), (&json!({"amount": 5}), &Value::Null));
    let mut forged = pay(5);
    forged["spec"]["rewrites"] = rewrites.clone();
    assert!(refused(&Ask::create(ALICE, forged.clone()).admit(&fixture).await, 403, reasons::CALLER_NOT_STAMPED).contains("spec.rewrites"));
    // the edge has rewritten what it stores for an agent
    forged["spec"]["caller"] = json!({"username": ALICE});
    let stored = Ask::create(EDGE, forged).mutate(&fixture).await.unwrap();
    assert_eq!(stored.object()["spec"]["rewrites"], rewrites);
    accepted(&stored.validate(&fixture).await);

    // what comes past the rewrite is not rewritten any more
    let mut body = stamped.body.clone();
    body["request"]["object"]["spec"]["input"] = json!({"amount": 21});
    refused(&(Ask { body }).validate(&fixture).await, 403, reasons::REWRITE_CHANGED);
    let mut later = stamped.object().clone();
    later["spec"]["rewrites"] = json!([]);
    refused(&Ask::update(ALICE, stamped.object().clone(), later).admit(&fixture).await, 403, reasons::CALLER_NOT_STAMPED);
}

#[tokio::test]
async fn a_dry_run_leaves_no_note() {
    let fixture = Arc::new(Fixture::default());
    refused(&Ask::create(ALICE, pay(501)).dry_run().admit(&fixture).await, 403, reasons::POLICY_DENIED);
    refused(&Ask::create("eve", pay(1)).dry_run().admit(&fixture).await, 403, reasons::UNKNOWN_CALLER);
    assert!(fixture.notes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn stale_or_foreign_namespaces_deny() {
    let fixture = Arc::new(Fixture { stale: true, ..Fixture::default() });
    refused(&Ask::create(ALICE, pay(1)).admit(&fixture).await, 403, reasons::POLICY_STALE);
    let fixture = Arc::new(Fixture::default());
    let elsewhere = object("ToolCall", "elsewhere", "c1", json!({"tool": {"name": "payments-send"}, "input": {"amount": 1}}));
    refused(&Ask::create(ALICE, elsewhere).admit(&fixture).await, 403, reasons::ORG_NOT_READY);
}

#[tokio::test]
async fn a_policy_that_does_not_compile_denies_what_it_selects() {
    let mut fixture = Fixture::default();
    policy(fixture.world.get_mut().unwrap(), "broken", "Enforce", json!([{"name": "r", "expression": "args.amount <=", "effect": "Deny"}]));
    refused(&Ask::create(ALICE, pay(1)).admit(&Arc::new(fixture)).await, 403, reasons::POLICY_INVALID);
}

#[tokio::test]
async fn large_and_deep_inputs() {
    let fixture = Arc::new(Fixture::default());
    let large = call("payments-send", json!({"amount": 1, "to": "x".repeat(40_000)}));
    let message = Ask::create(ALICE, large).admit(&fixture).await;
    assert!(refused(&message, 403, reasons::INPUT_TOO_LARGE).contains("32768"));
    let megabyte = call("payments-send", json!({"amount": 1, "to": "x".repeat(1_000_000)}));
    refused(&Ask::create(ALICE, megabyte).admit(&fixture).await, 403, reasons::INPUT_TOO_LARGE);
    let mut deep = Ask::create(ALICE, pay(1)).mutate(&fixture).await.unwrap().body.to_string();
    deep = deep.replace(r#"{"amount":1}"#, &format!(r#"{{"amount":1,"to":{}{}}}"#, "[".repeat(1000), "]".repeat(1000)));
    let (status, text) = common::raw(&fixture, "/validate", "application/json", deep).await;
    assert!(!text.contains(r#""allowed":true"#), "{status} {text}");
}

#[tokio::test]
async fn tasks() {
    let task = |name: &str, cancel| TaskFacts { name: name.to_owned(), uid: "t".to_owned(), job_space: Some("q3".to_owned()), cancel };
    let tasks = [("t1".to_owned(), task("t1", false)), ("t2".to_owned(), task("t2", true))].into();
    let fixture = Arc::new(Fixture { tasks, ..Fixture::default() });
    let of = |name: &str, space: Value| {
        let mut new = pay(1);
        new["spec"]["taskRef"] = json!({"name": name});
        new["spec"]["jobSpace"] = space;
        Ask::create(ALICE, new)
    };
    accepted(&of("t1", Value::Null).admit(&fixture).await);
    accepted(&of("t1", json!("q3")).admit(&fixture).await);
    refused(&of("t1", json!("q4")).admit(&fixture).await, 422, reasons::INVALID_DEFINITION);
    refused(&of("t2", Value::Null).admit(&fixture).await, 403, reasons::TASK_CANCELED);
    refused(&of("t3", Value::Null).admit(&fixture).await, 403, reasons::TASK_NOT_FOUND);
}

/// A stored call with a phase.
fn stored(phase: &str) -> Value {
    let mut old = pay(1);
    old["spec"]["caller"] = json!({"username": BOT});
    old["status"] = json!({"phase": phase});
    old
}

#[tokio::test]
async fn resolves_an_unknown_outcome_once() {
    let may = vec![("dora".to_owned(), "resolve".to_owned(), "c1".to_owned())];
    let fixture = Arc::new(Fixture { may, ..Fixture::default() });
    let resolve = |user: &str, phase: &str, resolution: Value| {
        let mut new = stored(phase);
        new["spec"]["resolution"] = resolution;
        Ask::update(user, stored(phase), new)
    };
    let done = json!({"outcome": "Done", "reason": "seen in the bank's books"});
    let ask = resolve("dora", "Unknown", done.clone());
    let stamped = ask.mutate(&fixture).await.unwrap();
    assert_eq!(
        stamped.object()["spec"]["resolution"],
        json!({"outcome": "Done", "reason": "seen in the bank's books", "by": "dora", "at": NOW})
    );
    assert_eq!(patch_of(&send(&fixture, "/mutate", &stamped.body).await["response"]), None);
    accepted(&stamped.validate(&fixture).await);

    refused(&ask.validate(&fixture).await, 403, reasons::CALLER_NOT_STAMPED);
    refused(&resolve("eve", "Unknown", done.clone()).admit(&fixture).await, 403, reasons::NOT_PERMITTED);
    refused(&resolve("dora", "Running", done.clone()).admit(&fixture).await, 403, reasons::RESOLUTION_REFUSED);
    let forged = json!({"outcome": "Done", "reason": "x", "by": "dora"});
    refused(&resolve("eve", "Unknown", forged).admit(&fixture).await, 403, reasons::CALLER_NOT_STAMPED);
    let early = json!({"outcome": "Done", "reason": "x", "at": "2020-01-01T00:00:00Z"});
    let stamped = resolve("dora", "Unknown", early).mutate(&fixture).await.unwrap();
    assert_eq!(stamped.object()["spec"]["resolution"]["at"], NOW, "a written time does not stand");

    let mut resolved = stamped.object().clone();
    let old = resolved.clone();
    resolved["spec"]["resolution"]["outcome"] = json!("NotDone");
    refused(&Ask::update("dora", old.clone(), resolved).admit(&fixture).await, 403, reasons::RESOLUTION_REFUSED);
    let mut gone = old.clone();
    gone["spec"]["resolution"] = Value::Null;
    refused(&Ask::update("dora", old, gone).admit(&fixture).await, 403, reasons::RESOLUTION_REFUSED);
    let mut new = pay(1);
    new["spec"]["resolution"] = done;
    refused(&Ask::create(ALICE, new).admit(&fixture).await, 422, reasons::RESOLUTION_REFUSED);
}

#[tokio::test]
async fn updates() {
    let fixture = Arc::new(Fixture { panics: true, ..Fixture::default() });
    let mut labelled = stored("Running");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    accepted(&Ask::update("eve", stored("Running"), labelled).admit(&fixture).await);
    let mut canceled = stored("Running");
    canceled["spec"]["cancel"] = json!(true);
    accepted(&Ask::update(ALICE, stored("Running"), canceled).admit(&fixture).await);
    let mut other = stored("Running");
    other["spec"]["caller"] = json!({"username": ALICE});
    refused(&Ask::update(ALICE, stored("Running"), other).admit(&fixture).await, 403, reasons::CALLER_NOT_STAMPED);
}
