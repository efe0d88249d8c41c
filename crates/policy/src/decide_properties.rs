//! Properties of `decide`: order does not matter, more Policies only tighten, a spent budget never allows.

use proptest::prelude::*;

use super::*;

/// Any Policy of a small language over the call: effect, mode, match and expression.
fn any_policy() -> impl Strategy<Value = Value> {
    let expression = prop::sample::select(vec![
        "true",
        "false",
        "args.amount <= 30",
        "args.to == 'x'",
        "args.amount <=",
        "args.amuont < 5",
        "args.list.all(x, x > 0)",
    ]);
    let place = prop::sample::select(vec!["acme", "finance"]);
    (expression, place, any::<bool>(), prop::sample::select(vec!["Enforce", "Warn", "Observe"]), any::<bool>()).prop_map(
        |(expression, place, deny, mode, narrow)| {
            let rule = if deny {
                json!({"name": "r", "expression": expression, "effect": "Deny"})
            } else {
                json!({"name": "r", "expression": expression, "effect": "RequireApproval", "approval": {"group": "g"}})
            };
            let m = if narrow { json!({"tools": ["other"]}) } else { json!({}) };
            object("Policy", place, "", json!({"mode": mode, "match": m, "rules": [rule]}))
        },
    )
}

fn named(policies: &[Value]) -> Vec<Value> {
    let mut out = policies.to_vec();
    for (i, p) in out.iter_mut().enumerate() {
        p["metadata"]["name"] = json!(format!("p{i}"));
    }
    out
}

fn strength(v: Verdict) -> u8 {
    match v {
        Verdict::Allow => 0,
        Verdict::RequireApproval => 1,
        Verdict::Deny => 2,
    }
}

fn shown(d: &Decision) -> String {
    format!(
        "{:?} {} {} {} {:?} {:?} {:?} {} {}",
        d.verdict, d.reason, d.message, d.hint, d.rules, d.advisory, d.requirements, d.expires_after, d.snapshot
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn order_is_nothing_and_more_policies_only_tighten(policies in proptest::collection::vec(any_policy(), 1..6), amount in 20_i64..40) {
        let call = Call { args: json!({"amount": amount, "list": [1, 2]}), ..Call::default() };
        let policies = named(&policies);
        let all = decide(with(policies.clone()), &call);
        let mut reversed = policies.clone();
        reversed.reverse();
        prop_assert_eq!(shown(&all), shown(&decide(with(reversed), &call)));
        let fewer = decide(with(policies[1..].to_vec()), &call);
        prop_assert!(strength(all.verdict) >= strength(fewer.verdict));
    }

    #[test]
    fn without_a_grant_nothing_is_allowed(policies in proptest::collection::vec(any_policy(), 0..5)) {
        let call = Call { tool: "other", ..Call::default() };
        prop_assert_eq!(decide(with(named(&policies)), &call).reason, reasons::NOT_GRANTED);
    }

    #[test]
    fn watching_changes_nothing(policies in proptest::collection::vec(any_policy(), 0..4), watching in any_policy(), amount in 20_i64..40) {
        let call = Call { args: json!({"amount": amount, "list": [1, 2]}), ..Call::default() };
        let mut watching = watching;
        watching["spec"]["mode"] = json!("Observe");
        let without = decide(with(named(&policies)), &call);
        let mut more = policies;
        more.push(watching);
        let with_it = decide(with(named(&more)), &call);
        prop_assert_eq!((without.verdict, without.reason, without.message, without.rules), (with_it.verdict, with_it.reason, with_it.message, with_it.rules));
    }
}

#[test]
fn a_spent_budget_never_allows() {
    let expressions = ["args.list.all(x, x > 0) || true", "args.list.exists(x, x == 2)", "args.amount < 100"];
    let policies: Vec<Value> = expressions.iter().map(|e| policy("acme", "", e, json!({}))).collect();
    let world = World::from_objects(with(named(&policies)));
    let snapshot = Snapshot::build(&world, "finance");
    let call = Call { args: json!({"amount": 5, "list": [1, 2, 3, 4]}), ..Call::default() };
    let at = |limit| decide_in(&snapshot, &call, Some(Limits { steps: limit, time: Duration::from_secs(20) }));
    let enough = (0..1000).find(|n| at(*n).verdict == Verdict::Allow).unwrap();
    assert!(enough > 20);
    for limit in 0..enough {
        let d = at(limit);
        assert_eq!((d.verdict, d.reason), (Verdict::Deny, reasons::DECISION_BUDGET_EXCEEDED), "{limit}");
    }
    assert_eq!(at(enough + 1).verdict, Verdict::Allow);
}
