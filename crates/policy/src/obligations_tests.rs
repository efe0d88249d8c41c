#![expect(clippy::needless_pass_by_value, reason = "JSON is written in place")]

use jiff::Timestamp;
use polity_api::caller::Caller;
use serde_json::json;

use super::*;
use crate::{Decision, Request, Snapshot, Verdict, World, check_policy};

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    let metadata = if namespace.is_empty() { json!({"name": name}) } else { json!({"name": name, "namespace": namespace}) };
    json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

fn output() -> Value {
    json!({"type": "object", "properties": {
        "status": {"type": "string"}, "amount": {"type": "integer"}, "rate": {"type": "number"},
        "customers": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "iban": {"type": ["string", "null"]}}}},
        "free": {}}})
}

fn tool(name: &str, more: Value) -> Value {
    let mut spec = json!({"runtime": {}, "outputSchema": output(), "outputLabels": [
            {"label": "personal", "paths": ["customers.*.name", "/customers/*/iban"]}, {"label": "everything"}],
        "inputSchema": {"type": "object", "properties": {"amount": {"type": "integer"}, "rate": {"type": "number"}}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object("Tool", "low", name, spec)
}

/// Org `top` with its unit `low`, where `bot` may call `read`.
fn snapshot(policies: Vec<Value>) -> Snapshot {
    let mut all = vec![
        object("Org", "", "top", json!({})),
        object("Org", "", "low", json!({"parentRef": {"name": "top"}})),
        object("Agent", "low", "bot", json!({"type": "System", "usernames": ["bot"]})),
        object("Role", "low", "reader", json!({"grants": [{"tools": ["*"]}], "assignment": {"agents": ["bot"]}})),
        tool("read", json!({})),
    ];
    all.extend(policies);
    Snapshot::build(&World::from_objects(all), "low")
}

fn policy(org: &str, mode: &str, obligations: Value) -> Value {
    object("Policy", org, "p", json!({"mode": mode, "obligations": obligations}))
}

fn args() -> Value {
    json!({"amount": 5, "rate": 2})
}

fn decide(snapshot: &Snapshot) -> Decision {
    let caller = Caller { username: "bot".to_owned(), ..Caller::default() };
    snapshot.decide(&Request {
        verb: "tool.call",
        tool: "read",
        tool_org: None,
        args: &args(),
        caller: &caller,
        task: None,
        job_space: None,
        context: None,
        id: "x",
        approved: &[],
        past: crate::Past::Unknown,
        now: Timestamp::UNIX_EPOCH,
    })
}

/// What the call's obligations make of a result, after a way through JSON as a call that runs in a Pod takes.
fn apply(policies: Vec<Value>, result: Value) -> Result<Delivered, Withheld> {
    let decision = decide(&snapshot(policies));
    assert_eq!(decision.verdict, Verdict::Allow, "{}", decision.message);
    let text = serde_json::to_string(decision.obligations.as_deref().unwrap()).unwrap();
    serde_json::from_str::<Obligations>(&text).unwrap().apply(&args(), result)
}

fn customers() -> Value {
    json!({"amount": 5, "customers": [{"name": "ann", "iban": "DE1"}, {"name": "bob", "iban": null}, {"iban": "DE2"}], "free": {"a": [{"k": 1}, {"k": 2}]}})
}

#[test]
fn every_hit_is_redacted_and_counted_by_class() {
    let by_path = json!([{"name": "o", "redact": {"paths": ["customers.*.iban", "free.a.*.k"]}}]);
    let d = apply(vec![policy("top", "Enforce", by_path)], customers()).unwrap();
    assert_eq!(
        d.value,
        json!({"amount": 5, "customers": [{"name": "ann", "iban": REDACTED}, {"name": "bob", "iban": null}, {"iban": REDACTED}],
            "free": {"a": [{"k": REDACTED}, {"k": REDACTED}]}})
    );
    assert_eq!(d.redactions, [("path".to_owned(), 4)].into());
    let by_label = json!([{"name": "o", "redact": {"labels": ["personal", "unknown"]}}]);
    let d = apply(vec![policy("low", "Enforce", by_label)], customers()).unwrap();
    assert_eq!(d.redactions, [("personal".to_owned(), 4)].into());
    assert!(!d.value.to_string().contains("ann") && !d.value.to_string().contains("DE"), "{}", d.value);
    // several Policies add up; what is hidden already is not counted again, and a whole that is hidden has no parts
    let both = vec![
        policy("top", "Enforce", json!([{"name": "o", "redact": {"labels": ["everything"]}}])),
        policy("low", "Enforce", json!([{"name": "o", "redact": {"paths": ["customers.*.iban"]}}])),
    ];
    let d = apply(both, customers()).unwrap();
    assert_eq!((d.value, d.redactions), (json!(REDACTED), [("everything".to_owned(), 1)].into()));
}

#[test]
fn conditions_see_what_was_returned_and_asked() {
    let must =
        |expression: &str| policy("top", "Enforce", json!([{"name": "o", "expression": expression, "message": "not what was asked"}]));
    for (expression, good) in [
        ("result.amount == args.amount", true),
        ("result.amount < args.amount", false),
        ("args.rate * 0.5 == 1.0", true),
        ("result.customers.all(c, !has(c.iban) || c.iban == null || c.iban.startsWith('DE'))", true),
        ("has(result.status)", false),
    ] {
        let got = apply(vec![must(expression)], customers());
        match got {
            Ok(d) => assert!(good && d.value == customers(), "{expression}"),
            Err(w) => {
                assert_eq!((good, w.reason), (false, reasons::POSTCONDITION_FAILED), "{expression}: {}", w.message);
                assert!(w.message.starts_with("top/p/o: not what was asked"), "{}", w.message);
            }
        }
    }
    // a condition sees what is redacted afterwards
    let both = policy(
        "top",
        "Enforce",
        json!([{"name": "hide", "redact": {"paths": ["amount"]}}, {"name": "check", "expression": "result.amount == 5"}]),
    );
    assert_eq!(apply(vec![both], customers()).unwrap().value["amount"], REDACTED);
}

#[test]
fn whatever_fails_delivers_nothing() {
    let fail = |obligation: Value, result: Value| apply(vec![policy("top", "Enforce", json!([obligation]))], result).unwrap_err();
    let absent = fail(json!({"name": "o", "expression": "result.status == 'sent'"}), customers());
    assert_eq!(absent.reason, reasons::OBLIGATION_FAILED);
    assert!(absent.message.contains("`status` is absent"), "{}", absent.message);
    // no list where one must be: what should be hidden might be somewhere else
    let shape = fail(json!({"name": "o", "redact": {"paths": ["free.a.*.k"]}}), json!({"free": {"a": "DE1"}}));
    assert_eq!(shape.reason, reasons::OBLIGATION_FAILED);
    assert!(!shape.message.contains("DE1"), "{}", shape.message);
    let bomb = "result.customers.all(a, result.customers.all(b, result.customers.all(c, true)))";
    let decision = decide(&snapshot(vec![policy("top", "Enforce", json!([{"name": "o", "expression": bomb}]))]));
    let many: Vec<Value> = (0..50).map(|_| json!({"name": "x"})).collect();
    let few = Limits { steps: 1000, ..Limits::default() };
    let spent = decision.obligations.unwrap().apply_with(&args(), json!({"customers": many}), few).unwrap_err();
    assert_eq!(spent.reason, reasons::OBLIGATION_FAILED, "{}", spent.message);
}

#[test]
fn what_only_watches_changes_nothing_and_says_what_it_would_do() {
    for mode in ["Warn", "Observe"] {
        let watching = policy(
            "top",
            mode,
            json!([{"name": "hide", "redact": {"labels": ["personal"]}}, {"name": "check", "expression": "result.amount == 6"}]),
        );
        let d = apply(vec![watching], customers()).unwrap();
        assert_eq!((d.value, d.redactions.len(), d.advisory.len()), (customers(), 0, 2));
        assert!(
            d.advisory.iter().any(|a| a.contains("would redact 4 values")) && d.advisory.iter().any(|a| a.contains("PostconditionFailed")),
            "{:?}",
            d.advisory
        );
    }
    assert!(decide(&snapshot(Vec::new())).obligations.is_none());
}

#[test]
fn what_cannot_be_is_refused_when_it_is_written() {
    let snapshot = snapshot(Vec::new());
    let read = [snapshot.tool("read", None).unwrap()];
    let check = |spec: Value| check_policy(&serde_json::from_value(spec).unwrap(), read.iter().map(AsRef::as_ref));
    for (obligation, want) in [
        (json!({"name": "o"}), "exactly one of redact and expression"),
        (json!({"name": "o", "redact": {}}), "neither paths nor labels"),
        (json!({"name": "o", "redact": {"paths": ["customers.*.ibna"]}}), "did you mean `iban`?"),
        (json!({"name": "o", "redact": {"paths": ["customers.iban"]}}), "write * for every item"),
        (json!({"name": "o", "expression": "result.amuont == 1"}), "line 1 column 8: no field `amuont` in the result of Tool read"),
        (json!({"name": "o", "expression": "result.amount == args.amuont"}), "no field `amuont` in args"),
        (json!({"name": "o", "expression": "agent.name == 'x'"}), "no variable `agent`"),
        (json!({"name": "o", "expression": "result.amount"}), "must be a bool"),
        (json!({"name": "o", "expression": "result.amount =="}), "not a CEL expression"),
    ] {
        let refused = check(json!({"obligations": [obligation]})).refuse().unwrap_or_default();
        assert!(refused.starts_with("obligation o") && refused.contains(want), "{obligation}: {refused}");
    }
    let twice = json!({"rules": [{"name": "o", "expression": "true", "effect": "Deny"}], "obligations": [{"name": "o", "expression": "result == null"}]});
    assert!(check(twice).refuse().unwrap().contains("has this name"));
    assert!(check(json!({})).refuse().unwrap().contains("no rules and no obligations"));
    let good = json!({"obligations": [{"name": "o", "expression": "result.amount == args.amount"}]});
    assert!(check(good.clone()).summary().ready);
    assert!(check_policy(&serde_json::from_value(good).unwrap(), std::iter::empty()).summary().ready, "Tools may come later");

    let misspelt = crate::CompiledTool::new(&crate::tool::facts(
        &polity_api::Org::default(),
        &serde_json::from_value(tool("t", json!({"outputLabels": [{"label": "x", "paths": ["customers.*.ibna"]}]}))).unwrap(),
    ));
    assert!(misspelt.broken.unwrap().contains("spec.outputLabels[0].paths[0]"));
}

#[test]
fn a_policy_that_does_not_fit_denies() {
    let d = decide(&snapshot(vec![policy("top", "Enforce", json!([{"name": "o", "redact": {"paths": ["nothing"]}}]))]));
    assert_eq!((d.verdict, d.reason), (Verdict::Deny, reasons::POLICY_NOT_TYPED));
}
