#![expect(clippy::needless_pass_by_value, reason = "JSON is written in place")]

use jiff::Timestamp;
use polity_api::caller::Caller;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{CompileCache, World, check_policy, compile_schema};

fn schema() -> Value {
    json!({"type": "object", "additionalProperties": false, "required": ["amount"], "properties": {
        "amount": {"type": "integer", "maximum": 5000},
        "ratio": {"type": "number"},
        "note": {"type": "string"},
        "dry": {"type": "boolean"},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "options": {"type": "object", "properties": {"trace": {"type": "boolean"}, "key": {"type": "string"}}},
        "to": {"type": "array", "items": {"type": "object", "properties": {"mail": {"type": "string"}, "sum": {"type": "integer"}}}},
        "tags": {"type": "object", "additionalProperties": {"type": "string"}}}})
}

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    let metadata = if namespace.is_empty() { json!({"name": name}) } else { json!({"name": name, "namespace": namespace}) };
    json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

/// Org `top` with its unit `low`, where `bot` may call `pay`.
fn world(policies: Vec<Value>) -> World {
    let mut all = vec![
        object("Org", "", "top", json!({})),
        object("Org", "", "low", json!({"parentRef": {"name": "top"}})),
        object("Agent", "low", "bot", json!({"type": "System", "usernames": ["bot"]})),
        object("Role", "low", "payer", json!({"grants": [{"tools": ["pay"]}], "assignment": {"agents": ["bot"]}})),
        object("Tool", "low", "pay", json!({"runtime": {}, "inputSchema": schema()})),
    ];
    all.extend(policies);
    World::from_objects(all)
}

fn rule(name: &str, expression: &str, patches: &Value) -> Value {
    json!({"name": name, "expression": expression, "effect": "Rewrite", "rewrite": patches})
}

fn policy(org: &str, name: &str, mode: &str, rules: &[Value]) -> Value {
    object("Policy", org, name, json!({"mode": mode, "rules": rules}))
}

fn decide_on(snapshot: &Snapshot, args: &Value, stored: bool) -> Decision {
    let caller = Caller { username: "bot".to_owned(), ..Caller::default() };
    let request = Request {
        verb: "tool.call",
        tool: "pay",
        tool_org: None,
        args,
        caller: &caller,
        task: None,
        job_space: None,
        context: None,
        id: "x",
        approved: &[],
        past: crate::Past::Unknown,
        now: Timestamp::UNIX_EPOCH,
    };
    if stored { snapshot.decide_stored(&request) } else { snapshot.decide(&request) }
}

fn decide(policies: Vec<Value>, args: &Value) -> Decision {
    decide_on(&Snapshot::build_with(&world(policies), "low", &CompileCache::default()), args, false)
}

fn applied(d: &Decision) -> Vec<(String, Vec<String>)> {
    d.rewrites.iter().map(|r| (r.rule.clone(), r.paths.clone())).collect()
}

#[test]
fn every_patch_changes_what_it_says_and_nothing_else() {
    let args = json!({"amount": 900, "ratio": 0.25, "note": "DE0212345678", "to": [{"mail": "ann", "sum": 7}, {"mail": "bob"}], "tags": {"a": "x"}});
    for (patch, path, want) in [
        (json!({"path": "amount", "max": 500}), "/amount", json!(500)),
        (json!({"path": "/amount", "min": 1000, "max": 2000}), "/amount", json!(1000)),
        (json!({"path": "ratio", "min": 0.5}), "/ratio", json!(0.5)),
        (json!({"path": "note", "mask": {"keepLast": 4}}), "/note", json!("********5678")),
        (json!({"path": "note", "mask": {}}), "/note", json!("************")),
        (json!({"path": "dry", "set": true}), "/dry", json!(true)),
        (json!({"path": "options.trace", "set": false}), "/options/trace", json!(false)),
        (json!({"path": "to.*.mail", "mask": {"keepLast": 1}}), "/to/0/mail", json!("**n")),
        (json!({"path": "to.*.sum", "max": 5}), "/to/0/sum", json!(5)),
        (json!({"path": "to.*", "remove": true}), "/to/*", Value::Null),
        (json!({"path": "tags.*", "mask": {}}), "/tags/a", json!("*")),
        (json!({"path": "tags", "remove": true}), "/tags", Value::Null),
    ] {
        let d = decide(vec![policy("top", "p", "Enforce", &[rule("r", "false", &json!([patch]))])], &args);
        assert_eq!(d.verdict, Verdict::Allow, "{patch}: {} {}", d.reason, d.message);
        let now = d.rewritten.as_ref().unwrap();
        assert_eq!(applied(&d)[0].0, "top/p/r");
        assert_eq!(applied(&d)[0].1[0], path, "{patch}");
        assert_eq!(now.pointer(path).unwrap_or(&Value::Null), &want, "{patch}");
        let names = |v: &Value| {
            v.as_object()
                .unwrap()
                .iter()
                .filter(|(k, _)| !path[1..].starts_with(k.as_str()))
                .map(|(k, v)| format!("{k}{v}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(now), names(&args), "{patch}");
    }
    let short = decide(
        vec![policy("top", "p", "Enforce", &[rule("r", "false", &json!([{"path": "note", "mask": {"keepLast": 4}}]))])],
        &json!({"amount": 1, "note": "abc"}),
    );
    assert_eq!(short.rewritten.unwrap()["note"], "***", "a short text does not show itself");
    let absent = decide(
        vec![policy(
            "top",
            "p",
            "Enforce",
            &[rule("r", "false", &json!([{"path": "ratio", "max": 1}, {"path": "note", "remove": true}, {"path": "to.*.sum", "max": 1}]))],
        )],
        &json!({"amount": 1}),
    );
    assert_eq!((absent.verdict, absent.rewritten), (Verdict::Allow, None));
}

#[test]
fn what_cannot_be_is_refused_when_it_is_written() {
    let world = world(Vec::new());
    let tools = [Snapshot::build(&world, "low").tool("pay", None).unwrap()];
    let refuse = |rules: Value| {
        let spec = serde_json::from_value(json!({"rules": rules})).unwrap();
        check_policy(&spec, tools.iter().map(AsRef::as_ref)).refuse().unwrap_or_default()
    };
    for (patch, want) in [
        (json!({"path": "amuont", "max": 5}), "no field `amuont` in args of Tool pay; did you mean `amount`?"),
        (json!({"path": "options.trase", "set": true}), "did you mean `trace`?"),
        (json!({"path": "amount", "max": "5"}), "max is not a number"),
        (json!({"path": "amount", "max": 5.5}), "5.5 is not a whole number"),
        (json!({"path": "amount", "min": 6, "max": 5}), "min is above max"),
        (json!({"path": "amount"}), "exactly one of"),
        (json!({"path": "amount", "max": 5, "remove": true}), "exactly one of"),
        (json!({"path": "amount", "remove": true}), "requires it"),
        (json!({"path": "amount", "mask": {}}), "mask needs a string, and it is int"),
        (json!({"path": "note", "max": 5}), "min and max need a number, and it is string"),
        (json!({"path": "note", "mask": {"keepLast": -1}}), "negative"),
        (json!({"path": "kind", "mask": {}}), "lists its values"),
        (json!({"path": "kind", "set": "c"}), "\"c\" is not a value of type string that the Tool's schema allows"),
        (json!({"path": "dry", "set": 1}), "1 is not a value of type bool"),
        (json!({"path": "to.mail", "mask": {}}), "write * for every item"),
        (json!({"path": "to[0].mail", "mask": {}}), "write * for every item"),
        (json!({"path": "options.*", "remove": true}), "name one instead of *"),
        (json!({"path": "amount.x", "remove": true}), "int has no field `x`"),
        (json!({"path": "a..b", "remove": true}), "empty step"),
    ] {
        let message = refuse(json!([rule("r", "false", &json!([patch]))]));
        assert!(message.starts_with("rule r") && message.contains(want), "{patch}: {message}");
    }
    let deny = json!({"name": "r", "expression": "true", "effect": "Deny", "rewrite": [{"path": "amount", "max": 5}]});
    assert!(refuse(json!([deny])).contains("belongs to effect Rewrite"));
    assert!(refuse(json!([{"name": "r", "expression": "true", "effect": "Rewrite"}])).contains("needs rewrite"));
    assert!(refuse(json!([{"name": "r", "expression": "true", "effect": "Rewrite", "approval": {"group": "g"}, "rewrite": [{"path": "amount", "max": 5}]}])).contains("belongs to effect RequireApproval"));
    assert_eq!(refuse(json!([rule("r", "args.amount <= 5", &json!([{"path": "amount", "max": 5}]))])), "");
}

#[test]
fn every_check_sees_the_rewritten_input() {
    let cap = policy("top", "cap", "Enforce", &[rule("max", "args.amount <= 500", &json!([{"path": "amount", "max": 500}]))]);
    let deny = object("Policy", "low", "limits", json!({"rules": [{"name": "no", "expression": "args.amount <= 500", "effect": "Deny"}]}));
    let d = decide(vec![cap.clone(), deny], &json!({"amount": 4000}));
    assert_eq!((d.verdict, d.rewritten.unwrap()["amount"].as_i64()), (Verdict::Allow, Some(500)));
    // the schema, too: 9000 is above its maximum
    assert_eq!(decide(vec![cap.clone()], &json!({"amount": 9000})).verdict, Verdict::Allow);
    assert_eq!(decide(Vec::new(), &json!({"amount": 9000})).reason, reasons::INVALID_ARGUMENTS);
    // a rewrite below cannot lift what a rule above forbids, and one that leaves the schema denies by name
    let lift = policy("low", "lift", "Enforce", &[rule("min", "false", &json!([{"path": "amount", "min": 9000}]))]);
    let d = decide(vec![lift], &json!({"amount": 1}));
    assert_eq!(d.reason, reasons::INVALID_ARGUMENTS);
    assert!(d.message.contains("as rewritten by low/lift/min"), "{}", d.message);
    let garbage = decide(vec![cap], &json!({"amount": "many"}));
    assert_eq!(garbage.reason, reasons::INVALID_ARGUMENTS, "{}", garbage.message);
}

#[test]
fn rules_against_each_other_deny_and_name_themselves() {
    let top = policy("top", "cap", "Enforce", &[rule("max", "args.amount <= 500", &json!([{"path": "amount", "max": 500}]))]);
    let low = policy("low", "lift", "Enforce", &[rule("min", "args.amount >= 600", &json!([{"path": "amount", "min": 600}]))]);
    let d = decide(vec![low, top.clone()], &json!({"amount": 550}));
    assert_eq!((d.verdict, d.reason), (Verdict::Deny, reasons::REWRITE_CONFLICT));
    assert!(d.message.contains("top/cap/max") && d.message.contains("low/lift/min"), "{}", d.message);
    assert_eq!(d.rewritten, None);
    // the rule above looked at a field that the one below then changed
    let guard =
        policy("top", "guard", "Enforce", &[rule("no-b", "!has(args.kind) || args.kind != 'b'", &json!([{"path": "amount", "max": 1}]))]);
    let evade = policy("low", "evade", "Enforce", &[rule("b", "false", &json!([{"path": "kind", "set": "b"}]))]);
    let d = decide(vec![guard.clone(), evade], &json!({"amount": 100}));
    assert_eq!(d.reason, reasons::REWRITE_CONFLICT, "{}", d.message);
    assert_eq!(decide(vec![guard, top], &json!({"amount": 100, "kind": "b"})).rewritten.unwrap()["amount"], 1);
}

#[test]
fn modes_errors_and_stored_calls() {
    let rules = [rule("max", "args.amount <= 500", &json!([{"path": "amount", "max": 500}]))];
    for (mode, warn) in [("Warn", true), ("Observe", false)] {
        let d = decide(vec![policy("low", "p", mode, &rules)], &json!({"amount": 900}));
        assert_eq!((d.verdict, d.rewritten.is_none(), d.rewrites.len()), (Verdict::Allow, true, 0));
        assert_eq!((d.advisory.len(), d.advisory[0].warn), (1, warn));
        assert!(d.advisory[0].message.contains("would rewrite /amount"), "{}", d.advisory[0].message);
    }
    let broken = [rule("r", "args.note.size() > 3", &json!([{"path": "note", "remove": true}]))];
    let d = decide(vec![policy("low", "p", "Enforce", &broken)], &json!({"amount": 1}));
    assert_eq!((d.verdict, d.reason, d.rules), (Verdict::Deny, reasons::POLICY_ERROR, vec!["low/p/r".to_owned()]));
    let d = decide(vec![policy("low", "p", "Observe", &broken)], &json!({"amount": 1}));
    assert_eq!((d.verdict, d.advisory.len()), (Verdict::Allow, 1));

    let snapshot = Snapshot::build(&world(vec![policy("low", "p", "Enforce", &rules)]), "low");
    assert!(snapshot.may_rewrite("pay", None) && !snapshot.may_rewrite("other", None));
    let fresh = decide_on(&snapshot, &json!({"amount": 900}), false);
    let stored = decide_on(&snapshot, fresh.rewritten.as_ref().unwrap(), true);
    assert_eq!((stored.verdict, stored.rewritten, stored.rewrites.len()), (Verdict::Allow, None, 0));
    let changed = decide_on(&snapshot, &json!({"amount": 900}), true);
    assert_eq!((changed.verdict, changed.reason, changed.rules), (Verdict::Deny, reasons::REWRITE_CHANGED, vec!["low/p/max".to_owned()]));
    assert!(changed.message.contains("/amount") && changed.rewritten.is_none());
}

#[test]
fn an_unfit_tool_denies_and_needs_a_schema() {
    let d =
        decide(vec![policy("top", "p", "Enforce", &[rule("r", "false", &json!([{"path": "nothing", "set": 1}]))])], &json!({"amount": 1}));
    assert_eq!((d.verdict, d.reason, d.rewritten), (Verdict::Deny, reasons::POLICY_NOT_TYPED, None));
}

/// Any rule of a small language, with conditions and patches that touch each other's fields.
fn any_rule() -> impl Strategy<Value = (String, Value)> {
    let condition = prop::sample::select(vec![
        "false",
        "true",
        "args.amount <= 30",
        "args.amount >= 20",
        "has(args.kind) && args.kind == 'a'",
        "!has(args.note)",
        "!has(args.dry) || args.dry",
        "args.?to.orValue([]).all(t, !has(t.sum) || t.sum < 5)",
    ]);
    let patch = prop_oneof![
        (0_i64..50).prop_map(|n| json!({"path": "amount", "max": n})),
        (0_i64..50).prop_map(|n| json!({"path": "amount", "min": n})),
        (0_i64..9).prop_map(|n| json!({"path": "to.*.sum", "max": n})),
        Just(json!({"path": "to.*", "remove": true})),
        Just(json!({"path": "note", "remove": true})),
        (0_i32..4).prop_map(|n| json!({"path": "note", "mask": {"keepLast": n}})),
        prop::sample::select(vec!["x", "secret"]).prop_map(|s| json!({"path": "note", "set": s})),
        prop::sample::select(vec!["a", "b"]).prop_map(|s| json!({"path": "kind", "set": s})),
        any::<bool>().prop_map(|b| json!({"path": "options.trace", "set": b})),
        Just(json!({"path": "tags.*", "mask": {"keepLast": 1}})),
        any::<bool>().prop_map(|b| json!({"path": "dry", "set": b})),
    ];
    (condition, proptest::collection::vec(patch, 1..3)).prop_map(|(c, p)| (c.to_owned(), Value::Array(p)))
}

fn any_args() -> impl Strategy<Value = Value> {
    (
        0_i64..50,
        proptest::option::of("[a-zé]{0,6}"),
        proptest::option::of(prop::sample::select(vec!["a", "b"])),
        proptest::collection::vec(proptest::option::of(0_i64..9), 0..3),
    )
        .prop_map(|(amount, note, kind, sums)| {
            let mut args = json!({"amount": amount, "tags": {"k": "value"}});
            if let Some(note) = note {
                args["note"] = json!(note);
            }
            if let Some(kind) = kind {
                args["kind"] = json!(kind);
            }
            args["to"] = sums.into_iter().map(|s| s.map_or(json!({}), |s| json!({"sum": s}))).collect();
            args
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A patch done twice is a patch done once, on any value of the schema.
    #[test]
    fn patches_are_idempotent((_, patches) in any_rule(), args in any_args()) {
        for patch in patches.as_array().unwrap() {
            let patch = CompiledPatch::new(&serde_json::from_value(patch.clone()).unwrap()).unwrap();
            let mut once = args.clone();
            patch.path.apply(&mut once, &patch.what).unwrap();
            let mut twice = once.clone();
            let again = patch.path.apply(&mut twice, &patch.what).unwrap();
            prop_assert_eq!((&twice, again.count), (&once, 0));
        }
    }

    /// What comes out is what every rule leaves alone, so no rule below evades one above; and it is the same whatever order objects came in.
    #[test]
    fn what_comes_out_every_rule_leaves_alone(
        rules in proptest::collection::vec((any_rule(), any::<bool>()), 1..5),
        args in any_args(),
    ) {
        let policies: Vec<Value> = rules.iter().enumerate().map(|(i, ((c, p), top))| {
            policy(if *top { "top" } else { "low" }, &format!("p{i}"), "Enforce", &[rule("r", c, p)])
        }).collect();
        let d = decide(policies.clone(), &args);
        let mut reversed = policies.clone();
        reversed.reverse();
        let other = decide(reversed, &args);
        prop_assert_eq!((d.verdict, d.reason, &d.rewritten, &d.rewrites), (other.verdict, other.reason, &other.rewritten, &other.rewrites));
        if d.verdict == Verdict::Deny {
            prop_assert!(d.rewritten.is_none() || d.reason != reasons::REWRITE_CONFLICT);
            return Ok(());
        }
        let now = d.rewritten.clone().unwrap_or_else(|| args.clone());
        prop_assert!(compile_schema(&schema()).unwrap().is_valid(&now));
        // again, and by each Policy alone, nothing changes
        prop_assert_eq!(decide(policies.clone(), &now).rewritten, None);
        for one in policies {
            prop_assert_eq!(decide(vec![one], &now).rewritten, None);
        }
        prop_assert_eq!(d.rewritten.is_some(), now != args);
    }
}
