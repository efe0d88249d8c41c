//! The index narrows and never decides: whatever a match asks for, the rules that apply are those that the match selects.

use proptest::prelude::*;

use super::*;
use crate::grant;

fn matches() -> impl Strategy<Value = Value> {
    let some = |names: &'static [&'static str]| prop::option::weighted(0.3, prop::collection::vec(prop::sample::select(names), 1..3));
    (
        some(&["payments", "pay*", "other", "*"]),
        some(&["alice", "bot", "carol"]),
        some(&["accountant", "cfo"]),
        some(&["staff", "guests"]),
        some(&["audit", "books"]),
        some(&["tool.call", "task.create"]),
        some(&["finance", "acme"]),
    )
        .prop_map(|(tools, agents, roles, groups, spaces, verbs, units)| {
            let fields = [
                ("tools", tools),
                ("agents", agents),
                ("roles", roles),
                ("groups", groups),
                ("jobSpaces", spaces),
                ("verbs", verbs),
                ("units", units),
            ];
            fields.into_iter().filter_map(|(name, list)| Some((name.to_owned(), json!(list?)))).collect::<serde_json::Map<_, _>>().into()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_applies_is_what_is_selected(all in prop::collection::vec((matches(), any::<bool>()), 1..12), space in prop::option::of(Just("audit"))) {
        let policies = all.iter().enumerate().map(|(i, (m, above))| {
            policy(if *above { "acme" } else { "finance" }, &format!("p{i:02}"), "args.amount < 5", json!({"match": m}))
        });
        let snapshot = Snapshot::build(&World::from_objects(with(policies.collect())), "finance");
        let d = decide_in(&snapshot, &Call { job_space: space, ..Call::default() }, None);
        let tool = snapshot.tool("payments", None).unwrap();
        let path = ["acme".to_owned(), "finance".to_owned()];
        let groups = ["staff".to_owned()];
        let action = grant::Action { verb: "tool.call", org: "finance", path: &path, tool: &tool, agent: "alice", groups: &groups, job_space: space };
        let mut want: Vec<String> = all.iter().enumerate().filter_map(|(i, (m, above))| {
            let m = serde_json::from_value(m.clone()).unwrap();
            let namespace = if *above { "acme" } else { "finance" };
            grant::selects(Some(&m), &action, |role| !above && role == "accountant").then(|| format!("{namespace}/p{i:02}/r"))
        }).collect();
        want.sort();
        prop_assert_eq!(&d.rules, &want, "{:#?}", d);
    }
}

#[test]
fn rules_with_the_same_expression_each_say_so() {
    let twice = |expression: &str| {
        decide(with(vec![policy("acme", "p", expression, json!({})), policy("finance", "q", expression, json!({}))]), &Call::default())
    };
    assert_eq!(twice("args.amount < 5").rules, ["acme/p/r", "finance/q/r"]);
    assert_eq!(twice("args.to == 'x'").reason, reasons::POLICY_ERROR);
    // the same text about other roles
    assert_eq!(twice("'accountant' in roles").rules, ["acme/p/r"]);
}

/// Ten thousand in one Org, for a hundred tools: ten are about each amount, and that amount alone is denied, by those ten alone.
#[test]
fn ten_thousand_policies_decide_what_each_is_about() {
    const MANY: usize = 10_000;
    const AMOUNTS: usize = 1_000;
    const TOOLS: usize = 100;
    let mut objects = vec![
        object("Org", "", "acme", json!({})),
        object("Agent", "acme", "alice", json!({"type": "Human", "usernames": ["alice@acme"]})),
        object("Role", "acme", "payer", json!({"grants": [{"tools": ["pay-*"]}], "assignment": {"agents": ["alice"]}})),
    ];
    objects.extend((0..TOOLS).map(|n| tool("acme", &format!("pay-{n}"), json!({}))));
    objects.extend((0..MANY).map(|n| {
        let matched = json!({"match": {"tools": [format!("pay-{}", n % TOOLS)]}});
        policy("acme", &format!("p{n}"), &format!("args.amount != {}", n % AMOUNTS), matched)
    }));
    let snapshot = Snapshot::build(&World::from_objects(objects), "acme");
    let caller = Caller { username: "alice@acme".to_owned(), ..Caller::default() };
    let decide = |tool: usize, amount: usize| {
        let (tool, args) = (format!("pay-{}", tool % TOOLS), json!({"amount": amount}));
        let request = Request {
            verb: "tool.call",
            tool: &tool,
            tool_org: None,
            args: &args,
            caller: &caller,
            task: None,
            job_space: None,
            context: None,
            id: "",
            approved: &[],
            now: Timestamp::UNIX_EPOCH,
            past: crate::Past::Unknown,
        };
        snapshot.decide(&request)
    };
    for n in (0..AMOUNTS).step_by(97) {
        let own = decide(n, n);
        let mut about: Vec<String> = (n..MANY).step_by(AMOUNTS).map(|p| format!("acme/p{p}/r")).collect();
        about.sort();
        let mut rules = own.rules;
        rules.sort();
        assert_eq!((own.verdict, own.reason, rules), (Verdict::Deny, reasons::POLICY_DENIED, about));
        // The same amount is nothing to another tool, and another amount nothing to anybody.
        for other in [decide(n + 1, n), decide(n, AMOUNTS + n)] {
            assert_eq!((other.verdict, other.rules.len()), (Verdict::Allow, 0), "{}", other.message);
        }
    }
}
