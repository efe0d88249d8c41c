//! Broken, panicking and unbounded rules: they deny what they select, and nobody else.

use super::*;

#[test]
fn what_is_broken_denies_in_enforce_and_is_noted_otherwise() {
    let absent = "args.to == 'x'";
    for (broken, reason) in [
        (policy("acme", "p", "args.amount <=", json!({})), reasons::POLICY_INVALID),
        (policy("acme", "p", "agnt.name == 'x'", json!({})), reasons::POLICY_INVALID),
        (policy("acme", "p", "!has(args.amuont) || args.amuont < 5", json!({})), reasons::POLICY_NOT_TYPED),
        (policy("acme", "p", absent, json!({})), reasons::POLICY_ERROR),
    ] {
        expect(&decide(with(vec![broken.clone()]), &Call::default()), Verdict::Deny, reason, "acme/p");
        for mode in ["Observe", "Warn"] {
            let mut lenient = broken.clone();
            lenient["spec"]["mode"] = json!(mode);
            let d = decide(with(vec![lenient]), &Call::default());
            assert_eq!((d.verdict, d.advisory.len()), (Verdict::Allow, 1), "{d:#?}");
            assert_eq!(d.advisory[0].warn, mode == "Warn");
            assert!(d.advisory[0].message.contains(reason));
        }
        // and only what it selects
        let mut elsewhere = broken;
        elsewhere["spec"]["match"] = json!({"tools": ["other"]});
        assert_eq!(decide(with(vec![elsewhere]), &Call::default()).verdict, Verdict::Allow);
    }
    let undecodable = object("Policy", "acme", "p", json!({"rules": "none", "mode": "Observe", "match": {"tools": ["other"]}}));
    expect(&decide(with(vec![undecodable]), &Call::default()), Verdict::Deny, reasons::POLICY_INVALID, "cannot be decoded");
    // a unit's broken Policy is not its parent's
    let undecodable = object("Policy", "finance", "p", json!({"rules": "none"}));
    let role = object("Role", "acme", "cfo", json!({"assignment": {"agents": ["carol"]}, "grants": [{"tools": ["*"]}]}));
    let d = decide(with(vec![undecodable, role]), &Call { org: "acme", who: "carol@acme", tool: "private", ..Call::default() });
    assert_eq!(d.verdict, Verdict::Allow, "{d:#?}");
}

#[test]
fn a_panicking_rule_denies_and_stays_out_of_use() {
    let world = World::from_objects(with(vec![policy("acme", "p", "true", json!({}))]));
    let mut snapshot = Snapshot::build(&world, "finance");
    snapshot.policies[0].compiled = CompiledPolicy::panicking().into();
    for _ in 0..2 {
        expect(&decide_in(&snapshot, &Call::default(), None), Verdict::Deny, reasons::RULE_QUARANTINED, "acme/p/r");
        assert!(snapshot.policies[0].compiled.rules[0].quarantined());
    }
}

#[test]
fn a_bomb_denies_its_calls_and_a_watching_one_nobodys() {
    let bomb = "args.list.all(a, args.list.all(b, args.list.all(c, a + b + c >= 0)))";
    let call = || Call { args: json!({"amount": 1, "list": (0..5000).collect::<Vec<_>>()}), ..Call::default() };
    expect(
        &decide(with(vec![policy("acme", "p", bomb, json!({}))]), &call()),
        Verdict::Deny,
        reasons::DECISION_BUDGET_EXCEEDED,
        "time and steps",
    );
    let d = decide(
        with(vec![policy("acme", "a", bomb, json!({"mode": "Observe"})), policy("finance", "z", "args.amount < 5", json!({}))]),
        &call(),
    );
    assert_eq!((d.verdict, d.advisory.len()), (Verdict::Allow, 1), "{d:#?}");
}
