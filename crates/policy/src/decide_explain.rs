//! Explanations: every rule that binds with what became of it, the part that decided, what would pass, and no value of the call.

use polity_api::policy::Mode;

use super::*;
use crate::{Explanation, Trial, TrialResult};

fn explain(more: Vec<Value>, call: &Call<'_>) -> Explanation {
    let snapshot = Snapshot::build(&World::from_objects(with(more)), call.org);
    let caller = Caller { username: call.who.to_owned(), groups: vec!["staff".to_owned()], ..Caller::default() };
    let request = Request {
        verb: "tool.call",
        tool: call.tool,
        tool_org: call.tool_org,
        args: &call.args,
        caller: &caller,
        task: call.task.as_ref(),
        job_space: call.job_space,
        context: None,
        id: "",
        approved: &call.approved,
        past: crate::Past::Unknown,
        now: now(),
    };
    let e = snapshot.explain(&request);
    let decided = snapshot.decide(&request);
    assert_eq!(format!("{:?}", e.decision), format!("{decided:?}"), "an explanation is of the decision");
    e
}

#[track_caller]
fn of<'a>(e: &'a Explanation, rule: &str) -> &'a Trial {
    e.tried.iter().find(|t| t.rule == rule).unwrap_or_else(|| panic!("{rule}: {e:#?}"))
}

fn wanted<'a>(e: &'a Explanation, rule: &str) -> Option<&'a str> {
    of(e, rule).part.as_ref()?.would_pass.as_deref()
}

#[test]
fn names_every_rule_and_what_would_pass_and_no_value() {
    let call = Call { args: json!({"amount": 777, "list": [5, -4]}), ..Call::default() };
    let e = explain(
        vec![
            policy("acme", "a", "args.amount > 1 && args.amount <= 20", json!({})),
            policy("acme", "b", "args.amount < 1000", json!({"mode": "Warn"})),
            policy("finance", "c", "args.to == 'x'", json!({"mode": "Observe"})),
            policy("finance", "d", "agent.type == 'AI' || args.list.all(i, i > 0)", json!({"mode": "Observe"})),
            policy("finance", "e", "args.nothing == 5", json!({"mode": "Observe"})),
            policy("finance", "f", "false", json!({"match": {"agents": ["bot"]}})),
        ],
        &call,
    );
    assert_eq!((e.decision.reason, e.tried.len()), (reasons::POLICY_DENIED, 6), "{e:#?}");
    let failed = of(&e, "acme/a/r");
    assert_eq!((&failed.result, failed.mode), (&TrialResult::Fails, Some(Mode::Enforce)));
    let part = failed.part.as_ref().unwrap();
    assert_eq!(part.expression, "args.amount <= 20");
    assert_eq!(part.reads, [("args.amount".to_owned(), "int")]);
    assert_eq!(wanted(&e, "acme/a/r"), Some("args.amount > 1 && args.amount <= 20"));
    let held = of(&e, "acme/b/r");
    assert_eq!((&held.result, held.mode, &held.part), (&TrialResult::Holds, Some(Mode::Warn), &None));
    let absent = of(&e, "finance/c/r");
    assert!(matches!(&absent.result, TrialResult::Error(e) if e.contains("`to` is absent")), "{absent:?}");
    assert_eq!(absent.part.as_ref().unwrap().reads, [("args.to".to_owned(), "absent")]);
    assert_eq!(wanted(&e, "finance/c/r"), None);
    let looped = of(&e, "finance/d/r").part.as_ref().unwrap();
    assert_eq!(looped.expression, "agent.type == 'AI' || args.list.all(i, i > 0)");
    assert_eq!(looped.reads, [("agent.type".to_owned(), "string"), ("args.list".to_owned(), "list")]);
    assert!(matches!(&of(&e, "finance/e").result, TrialResult::Broken(why) if why.contains("nothing")));
    assert_eq!(of(&e, "finance/f").result, TrialResult::NotSelected("agents"));
    assert!(!format!("{:?}", e.tried).contains("777"), "{e:#?}");
}

#[test]
fn the_part_is_the_one_that_decided() {
    for (expression, part, would_pass) in [
        // what is false makes up for what has no value
        ("args.to == 'x' && args.amount < 3", "args.amount < 3", None),
        ("args.amount < 3 && args.to == 'x'", "args.amount < 3", None),
        ("args.amount < 3 && !has(args.to)", "args.amount < 3", Some("args.amount < 3")),
        ("args.amount < 3 && args.list.size() < 2", "args.amount < 3", Some("args.amount < 3 && args.list.size() < 2")),
        ("args.amount < 99 && args.list[0] == 1", "args.list[0] == 1", Some("args.list[0] == 1")),
        (
            "agent.type == 'Human' ? args.amount <= 500 * 0 : true",
            "args.amount <= 500 * 0",
            Some("agent.type == 'Human' ? args.amount <= 500 * 0 : true"),
        ),
        ("!(args.amount in [40, 41])", "!(args.amount in [40, 41])", Some("!(args.amount in [40, 41])")),
        ("'cfo' in roles", "'cfo' in roles", Some("'cfo' in roles")),
        ("has(args.to)", "has(args.to)", Some("has(args.to)")),
        ("args.amount < 3 && false", "args.amount < 3", None),
        ("(1 + 2) * 3 == 0 || 1 - (2 - 3) == 0", "(1 + 2) * 3 == 0 || 1 - (2 - 3) == 0", None),
        ("tool.priceUSD <= usd('0.25')", "tool.priceUSD <= 250000", Some("tool.priceUSD <= 250000")),
        ("args.list.filter(i, i > 6).size() > 0", "args.list.filter(i, i > 6).size() > 0", Some("args.list.filter(i, i > 6).size() > 0")),
    ] {
        let call = Call { args: json!({"amount": 40, "list": [5, 4]}), ..Call::default() };
        let e = explain(vec![policy("acme", "p", expression, json!({}))], &call);
        let trial = of(&e, "acme/p/r");
        assert_eq!(trial.result, TrialResult::Fails, "{expression}");
        let found = trial.part.as_ref().unwrap();
        assert_eq!((found.expression.as_str(), found.would_pass.as_deref()), (part, would_pass), "{expression}");
    }
}

#[test]
fn a_key_of_the_call_is_in_no_message() {
    // compiled, and left to the evaluator `cel`
    for expression in ["{'a': 1}[args.to] == 1", "{'a': 1, args.to + 'b': 2}[args.to] == 1"] {
        let call = Call { args: json!({"amount": 40, "to": "confidential"}), ..Call::default() };
        let e = explain(vec![policy("acme", "p", expression, json!({}))], &call);
        assert_eq!(e.decision.reason, reasons::POLICY_ERROR, "{e:#?}");
        assert!(
            e.decision.message.contains("a key is absent") && !format!("{:?}{:?}", e.decision, e.tried).contains("confidential"),
            "{e:#?}"
        );
    }
}

#[test]
fn each_field_of_a_match_is_named() {
    for (field, entry) in [
        ("tools", "other"),
        ("risk", "health"),
        ("orgs", "acme"),
        ("units", "sales"),
        ("verbs", "task.create"),
        ("roles", "accountant"),
        ("groups", "guests"),
        ("agents", "bot"),
        ("jobSpaces", "audit"),
    ] {
        // a Role's name is one of the Org that wrote the Policy: acme has no accountant
        let e = explain(vec![policy("acme", "p", "false", json!({"match": {field: [entry]}}))], &Call::default());
        assert_eq!((e.decision.verdict, &of(&e, "acme/p").result), (Verdict::Allow, &TrialResult::NotSelected(field)));
    }
}

#[test]
fn what_rewrites_says_where_and_the_others_see_the_outcome() {
    let rewriting = |name: &str, mode: &str, max: i64| {
        let rule = json!({"name": "r", "expression": "false", "effect": "Rewrite", "rewrite": [{"path": "amount", "max": max}]});
        object("Policy", "acme", name, json!({"mode": mode, "rules": [rule]}))
    };
    let e = explain(
        vec![
            rewriting("lower", "Enforce", 30),
            rewriting("idle", "Enforce", 90),
            rewriting("watch", "Observe", 10),
            policy("acme", "p", "args.amount <= 30", json!({})),
        ],
        &Call::default(),
    );
    assert_eq!(e.decision.verdict, Verdict::Allow, "{e:#?}");
    assert!(matches!(&of(&e, "acme/lower/r").result, TrialResult::Rewrites(places) if places.len() == 1), "{e:#?}");
    assert_eq!(of(&e, "acme/idle/r").result, TrialResult::Rewrites(Vec::new()));
    assert!(matches!(&of(&e, "acme/watch/r").result, TrialResult::Would(_)), "{e:#?}");
    assert_eq!(of(&e, "acme/p/r").result, TrialResult::Holds);
}

#[test]
fn every_rule_that_rewrote_is_named_even_where_a_call_lists_fewer() {
    let rules: Vec<Value> = (0..70)
        .map(|i| json!({"name": format!("r{i}"), "expression": "false", "effect": "Rewrite", "rewrite": [{"path": "amount", "max": 100 - i}]}))
        .collect();
    // several Policies, as one has a limited number of rules
    let policies = rules.chunks(10).enumerate();
    let policies = policies.map(|(i, rules)| object("Policy", "acme", &format!("p{i}"), json!({"rules": rules}))).collect();
    let e = explain(policies, &Call { args: json!({"amount": 500}), ..Call::default() });
    assert_eq!((e.decision.verdict, e.decision.rewrites.len()), (Verdict::Allow, 64), "{e:#?}");
    assert_eq!(e.tried.len(), 70);
    assert!(e.tried.iter().all(|t| matches!(&t.result, TrialResult::Rewrites(places) if places.len() == 1)), "{e:#?}");
}

#[test]
fn what_is_denied_before_any_rule_tries_none() {
    let deny = || vec![policy("acme", "p", "false", json!({}))];
    for call in [
        Call { tool: "private", ..Call::default() },
        Call { who: "stranger", ..Call::default() },
        Call { args: json!({"amount": "x"}), ..Call::default() },
    ] {
        let e = explain(deny(), &call);
        assert!(e.decision.verdict == Verdict::Deny && e.tried.is_empty(), "{e:#?}");
    }
    let undecodable = object("Policy", "acme", "q", json!({"rules": "none"}));
    let e = explain(vec![undecodable], &Call::default());
    assert!(matches!((&of(&e, "acme/q").result, of(&e, "acme/q").mode), (TrialResult::Broken(_), None)), "{e:#?}");
}
