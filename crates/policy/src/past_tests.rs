//! Counters and history in rules, without a ledger: what is read, what is counted, what is refused.

#![expect(clippy::needless_pass_by_value, reason = "JSON is written in place")]

use jiff::Timestamp;
use polity_api::{caller::Caller, reasons};
use serde_json::{Value, json};

use crate::{Decision, Known, Past, Request, Snapshot, TaskFacts, Verdict, What, World, check_policy, world};

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    let metadata = if namespace.is_empty() { json!({"name": name}) } else { json!({"name": name, "namespace": namespace}) };
    json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

fn view(policies: Vec<(&str, &str, Value)>) -> Snapshot {
    let schema =
        json!({"type": "object", "required": ["amount"], "properties": {"amount": {"type": "integer"}, "usd": {"type": "string"}}});
    let tool = |more: Value| {
        let mut spec = json!({"inputSchema": schema, "runtime": {"container": {"image": "i", "command": ["c"]}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let mut objects = vec![
        object("Org", "", "acme", json!({})),
        object("Org", "", "unit", json!({"parentRef": {"name": "acme"}})),
        object("Agent", "unit", "bot", json!({"type": "AI", "image": "i", "command": ["c"]})),
        object("Role", "unit", "r", json!({"grants": [{"tools": ["*"]}], "assignment": {"agents": ["bot"]}})),
        object("Tool", "unit", "pay", tool(json!({}))),
        object(
            "Tool",
            "unit",
            "read",
            tool(json!({"outputLabels": [{"label": "customer-data"}, {"label": "customer-data", "paths": []}]})),
        ),
    ];
    objects.extend(policies.into_iter().map(|(namespace, name, spec)| object("Policy", namespace, name, spec)));
    let mut world = World::from_objects(objects);
    for org in world.orgs.values_mut() {
        let org = std::sync::Arc::make_mut(org);
        org.metadata.uid = org.metadata.name.as_ref().map(|name| format!("uid-{name}"));
    }
    Snapshot::build(&world, "unit")
}

struct Call<'a> {
    tool: &'a str,
    args: Value,
    task: Option<&'a str>,
    past: Past<'a>,
}

const PAY: Call<'static> = Call { tool: "pay", args: Value::Null, task: None, past: Past::Unknown };

fn decide(view: &Snapshot, call: Call<'_>) -> Decision {
    let caller = Caller { username: "system:serviceaccount:unit:polity-agent-bot".to_owned(), ..Caller::default() };
    let task = call.task.map(|name| TaskFacts { name: name.to_owned(), uid: format!("uid-{name}"), ..TaskFacts::default() });
    let args = if call.args.is_null() { json!({"amount": 10}) } else { call.args };
    view.decide(&Request {
        verb: "tool.call",
        tool: call.tool,
        tool_org: None,
        args: &args,
        caller: &caller,
        task: task.as_ref(),
        job_space: None,
        context: Some("talk"),
        id: "1",
        approved: &[],
        now: Timestamp::constant(1_767_268_800, 0),
        past: call.past,
    })
}

fn daily(more: Value) -> Value {
    let mut spec = json!({
        "match": {"tools": ["pay"]},
        "counters": [{"name": "spent", "amount": "args.amount", "by": ["Agent"], "window": "24h"}],
        "rules": [{"name": "day", "expression": "counters.spent + args.amount <= 50", "effect": "Deny"}],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn spent(value: i64) -> Known {
    let mut known = Known::default();
    known.set_counter("unit/limits", "spent", value);
    known
}

#[test]
fn a_sum_decides_and_without_it_nothing_is_allowed() {
    let view = view(vec![("unit", "limits", daily(json!({})))]);
    let unknown = decide(&view, PAY);
    assert_eq!((unknown.verdict, unknown.reason, unknown.needs_past()), (Verdict::Deny, reasons::COUNTERS_UNKNOWN, true));
    assert!(unknown.message.contains("unit/limits/spent"), "{}", unknown.message);
    for (before, verdict) in [(0, Verdict::Allow), (40, Verdict::Allow), (41, Verdict::Deny), (i64::MAX, Verdict::Deny)] {
        let known = spent(before);
        let decision = decide(&view, Call { past: Past::Known(&known), ..PAY });
        assert_eq!(decision.verdict, verdict, "{before}: {decision:?}");
    }
    let later = decide(&view, Call { past: Past::Later, ..PAY });
    assert_eq!((later.verdict, later.later), (Verdict::Allow, vec!["unit/limits/day".to_owned()]));
    // what others deny needs no counters
    let wrong = decide(&view, Call { args: json!({"amount": "x"}), ..PAY });
    assert_eq!((wrong.reason, wrong.needs_past()), (reasons::INVALID_ARGUMENTS, false));
    // another Policy's counter of that name is not this one
    let mut other = Known::default();
    other.set_counter("acme/limits", "spent", 0);
    assert_eq!(decide(&view, Call { past: Past::Known(&other), ..PAY }).reason, reasons::COUNTERS_UNKNOWN);
}

#[test]
fn where_a_call_counts() {
    let all = json!({"counters": [
        {"name": "spent", "amount": "args.amount", "by": ["Org", "Agent", "Task", "JobSpace", "Context", "Tool", "Input", "Agent"], "window": "24h"},
        {"name": "ever"},
    ]});
    let of = |counting: &crate::Counting| counting.tallies.iter().map(|t| (t.place.clone(), t.amount)).collect::<Vec<_>>();
    let view = view(vec![("acme", "limits", daily(all))]);
    let counting = decide(&view, Call { task: Some("t"), ..PAY }).counting;
    let tallies = of(&counting);
    assert_eq!(tallies.len(), 2, "no rule reads the history, no label is carried");
    let (spent, ever) = (&tallies[0].0, &tallies[1].0);
    assert_eq!(
        (spent.unit.as_str(), spent.org_uid.as_str(), spent.window, spent.by_input),
        ("count/rule/acme/limits/spent", "uid-acme", 86_400, true)
    );
    let dims: Vec<(&str, &str)> = spent.dims.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let want = [("agent", "unit/bot"), ("context", "talk"), ("jobSpace", ""), ("task", "t/uid-t"), ("tool", "unit/pay"), ("unit", "unit")];
    assert_eq!(dims, want);
    assert_eq!((ever.window, ever.by_input, ever.dims.len()), (0, false, 0));
    assert_eq!((tallies[0].1, tallies[1].1), (10, 1));
    // only what a rule reads is asked for
    assert_eq!(counting.asked.iter().map(|a| &a.what).collect::<Vec<_>>(), [&What::Counter("acme/limits".into(), "spent".into())]);
    let known = counting.known(&[41]);
    assert_eq!(decide(&view, Call { task: Some("t"), past: Past::Known(&known), ..PAY }).reason, reasons::POLICY_DENIED);
    assert!(!decide(&view, Call { tool: "read", ..PAY }).counting.tallies.is_empty(), "labels are counted whoever asks");
}

#[test]
fn amounts_that_are_none_deny() {
    for (amount, args, want) in [
        ("args.amount", json!({"amount": -1}), "negative"),
        ("args.amount * 9223372036854775807", json!({"amount": 2}), "overflow"),
        ("usd(args.usd)", json!({"amount": 1, "usd": "much"}), "usd()"),
        ("usd(args.usd)", json!({"amount": 1}), "`usd` is absent"),
    ] {
        let counters = json!({"counters": [{"name": "spent", "amount": amount, "window": "24h"}]});
        let view = view(vec![("unit", "limits", daily(counters.clone()))]);
        let known = spent(0);
        let decision = decide(&view, Call { args: args.clone(), past: Past::Known(&known), ..PAY });
        assert_eq!((decision.verdict, decision.reason), (Verdict::Deny, reasons::POLICY_ERROR), "{amount}");
        assert!(decision.message.contains(want) && decision.message.contains("counter spent"), "{}", decision.message);
        let mut observed = daily(counters);
        observed["mode"] = json!("Observe");
        let view = self::view(vec![("unit", "limits", observed)]);
        let decision = decide(&view, Call { args, past: Past::Known(&known), ..PAY });
        assert_eq!(decision.verdict, Verdict::Allow);
        assert!(decision.advisory.iter().any(|a| a.message.contains(want)), "{:?}", decision.advisory);
    }
}

#[test]
fn the_history_says_which_labels_were_carried() {
    let rules = json!({"match": {"tools": ["pay"]}, "rules": [
        {"name": "no-leak", "expression": "!('customer-data' in history.labels)", "effect": "Deny"},
        {"name": "short", "expression": "history.calls < 3 || 'vip' in history.labels", "effect": "Deny"},
    ]});
    let view = view(vec![("acme", "history", rules)]);
    let asked = |task| decide(&view, Call { task, ..PAY }).counting;
    let of_task = asked(Some("t"));
    assert_eq!(of_task.asked.len(), 3);
    assert!(of_task.asked.iter().all(|a| a.place.dims == [("task".to_owned(), "t/uid-t".to_owned())].into()));
    // without a Task: all that the Agent did
    assert!(asked(None).asked.iter().all(|a| a.place.dims == [("agent".to_owned(), "unit/bot".to_owned())].into()));
    // the number of calls is counted for the Task and for the Agent
    assert_eq!(of_task.tallies.iter().map(|t| t.place.unit.as_str()).collect::<Vec<_>>(), ["count/calls"; 2]);
    let read = decide(&view, Call { tool: "read", task: Some("t"), ..PAY }).counting;
    let mut units: Vec<&str> = read.tallies.iter().map(|t| t.place.unit.as_str()).collect();
    units.dedup();
    assert_eq!((read.tallies.len(), units), (4, vec!["count/calls", "count/label/customer-data"]));
    assert!(read.asked.is_empty(), "no rule on it asks");
    // in the order asked: calls, customer-data, vip
    for (values, want) in [
        ([0, 0, 0], None),
        ([2, 0, 0], None),
        ([3, 0, 0], Some("acme/history/short")),
        ([3, 0, 1], None),
        ([1, 1, 0], Some("acme/history/no-leak")),
        ([1, 7, 1], Some("acme/history/no-leak")),
    ] {
        let known = of_task.known(&values);
        let decision = decide(&view, Call { task: Some("t"), past: Past::Known(&known), ..PAY });
        assert_eq!(decision.rules.first().map(String::as_str), want, "{values:?}");
    }
}

/// A Tool counts by its name, where a rule in force asks for it; what is not known of it denies.
#[test]
fn calls_of_one_tool() {
    let asks = json!({"match": {"tools": ["pay"]}, "rules": [
        {"name": "read-first", "expression": "history.tools['read'] > 0", "effect": "Deny"},
        {"name": "twice", "expression": "history.tools['pay'] < 2", "effect": "Deny"},
    ]});
    let view = view(vec![("acme", "tools", asks)]);
    assert!(view.may_count("unit", "pay") && view.may_count("unit", "read"));
    let units = |tool| {
        let counting = decide(&view, Call { tool, task: Some("t"), ..PAY }).counting;
        counting.tallies.iter().map(|t| (t.place.unit.clone(), t.place.dims.keys().next().cloned().unwrap())).collect::<Vec<_>>()
    };
    let both = |unit: &str| [(unit.to_owned(), "task".to_owned()), (unit.to_owned(), "agent".to_owned())];
    assert_eq!(units("pay"), both("count/tool/pay"));
    assert_eq!(units("read"), [both("count/tool/read"), both("count/label/customer-data")].concat());
    let counting = decide(&view, Call { task: Some("t"), ..PAY }).counting;
    let asked: Vec<_> = counting.asked.iter().map(|a| a.what.clone()).collect();
    assert_eq!(asked, [What::Tool("pay".to_owned()), What::Tool("read".to_owned())]);
    for (pay, read, rule) in [(0, 1, None), (1, 5, None), (2, 1, Some("acme/tools/twice")), (0, 0, Some("acme/tools/read-first"))] {
        let known = counting.known(&[pay, read]);
        let decision = decide(&view, Call { task: Some("t"), past: Past::Known(&known), ..PAY });
        assert_eq!(decision.rules.first().map(String::as_str), rule, "{pay} {read}");
    }
    let mut partly = Known::default();
    partly.set_part_of_history(None, &[].into());
    partly.set_tool("pay", 0);
    let decision = decide(&view, Call { past: Past::Known(&partly), ..PAY });
    assert_eq!((decision.reason, decision.message.contains("\"read\"")), (reasons::COUNTERS_UNKNOWN, true), "{}", decision.message);
}

/// A record may tell of a part of the history only.
#[test]
fn what_is_not_told_of_the_history_denies() {
    let rules = json!({"rules": [
        {"name": "few", "expression": "history.calls < 5", "effect": "Deny"},
        {"name": "leak", "expression": "!('a' in history.labels)", "effect": "Deny"},
    ]});
    let view = view(vec![("acme", "p", rules)]);
    let decided = |calls: Option<i64>, labels: &[(&str, bool)]| {
        let mut known = Known::default();
        known.set_part_of_history(calls, &labels.iter().map(|(label, there)| ((*label).to_owned(), *there)).collect());
        let decision = decide(&view, Call { past: Past::Known(&known), ..PAY });
        (decision.verdict, decision.reason)
    };
    assert_eq!(decided(Some(4), &[("a", false)]), (Verdict::Allow, ""));
    assert_eq!(decided(Some(4), &[("a", true)]), (Verdict::Deny, reasons::POLICY_DENIED));
    assert_eq!(decided(Some(4), &[("b", false)]), (Verdict::Deny, reasons::COUNTERS_UNKNOWN));
    assert_eq!(decided(None, &[("a", false)]), (Verdict::Deny, reasons::COUNTERS_UNKNOWN));
    assert_eq!(decided(None, &[("a", true)]), (Verdict::Deny, reasons::POLICY_DENIED), "what is known and denies stands");
}

#[test]
fn what_can_never_be_right_is_refused() {
    let refuse = |spec: Value| check_policy(&serde_json::from_value(spec).unwrap(), std::iter::empty()).refuse().unwrap_or_default();
    let with = |counters: Value, expression: &str| {
        refuse(json!({"counters": counters, "rules": [{"name": "r", "expression": expression, "effect": "Deny"}]}))
    };
    let calls = || json!([{"name": "calls", "window": "1m"}]);
    assert_eq!(with(calls(), "counters.calls < 5 && history.calls < 9 && !('a' in history.labels)"), "");
    for (counters, expression, want) in [
        (calls(), "counters.cals < 5", "did you mean `calls`?"),
        (json!([]), "counters.calls < 5", "no field `calls` in counters of this Policy; there are no fields"),
        (calls(), "counters.calls < 'x'", "int"),
        (calls(), "size(counters) > 0", "counters.NAME"),
        (calls(), "counters.?calls.orValue(0) < 5", "counters.NAME"),
        (calls(), "counters['calls'] < 5", "counters.NAME"),
        (calls(), "history.labels.exists(l, l == 'a')", "one label"),
        (calls(), "agent.name in history.labels", "one label"),
        (calls(), "size(history.labels) == 0", "one label"),
        (calls(), "history.cals < 4", "did you mean `calls`?"),
        (calls(), "history.tools[agent.name] < 4", "one Tool only"),
        (calls(), "'pay' in history.tools", "one Tool only"),
        (calls(), "history.tools.pay < 4", "one Tool only"),
        (calls(), "size(history.tools) < 4", "one Tool only"),
        (calls(), "history.tools['pay'] < 'x'", "int"),
        (calls(), "history.tools['pay']", "must be a bool"),
        (calls(), "[1].all(x, history == x)", "history"),
        (
            json!([{"name": "calls", "window": "1m"}, {"name": "calls", "window": "2m"}]),
            "counters.calls < 5",
            "counter calls: another counter",
        ),
        (json!([{"name": "calls", "window": "soon"}]), "counters.calls < 5", "not a duration"),
        (json!([{"name": "calls", "by": ["Input"]}]), "counters.calls < 5", "needs a window"),
        (json!([{"name": "2nd", "window": "1m"}]), "true || counters.x < 5", "not one that rules can read"),
        (json!([{"name": "calls", "amount": "1.5", "window": "1m"}]), "counters.calls < 5", "must be an int"),
        (json!([{"name": "calls", "amount": "counters.calls", "window": "1m"}]), "counters.calls < 5", "no variable `counters`"),
        (json!([{"name": "calls", "amount": "history.calls", "window": "1m"}]), "counters.calls < 5", "no variable `history`"),
        (json!([{"name": "calls", "amount": "args.a.filter(", "window": "1m"}]), "counters.calls < 5", "counter calls, line 1"),
    ] {
        let refused = with(counters, expression);
        assert!(refused.contains(want), "{expression}: {refused}");
    }
    let rewrite = json!({"name": "r", "expression": "history.calls < 5", "effect": "Rewrite", "rewrite": [{"path": "a", "set": 1}]});
    assert!(refuse(json!({"rules": [rewrite]})).contains("cannot read counters or history"));
}

#[test]
fn amounts_are_checked_against_the_tools() {
    let tool = |name: &str, schema: Value| {
        let object = object("Tool", "a", name, json!({"runtime": {}, "inputSchema": schema}));
        crate::tool::facts(&polity_api::Org::default(), &serde_json::from_value(object).unwrap())
    };
    let pay = tool("pay", json!({"type": "object", "properties": {"amount": {"type": "integer"}, "price": {"type": "number"}}}));
    let mail = tool("mail", json!({"type": "object", "properties": {"to": {"type": "string"}}}));
    let check = |amount: &str, tools: &[crate::ToolFacts]| {
        let spec = json!({"counters": [{"name": "spent", "amount": amount, "window": "1m"}],
            "rules": [{"name": "r", "expression": "counters.spent < 5", "effect": "Deny"}]});
        check_policy(&serde_json::from_value(spec).unwrap(), tools.iter())
    };
    assert!(check("args.amount", &[]).missing_tools);
    assert!(check("args.amount", std::slice::from_ref(&pay)).summary().ready);
    assert!(
        check("args.amuont", std::slice::from_ref(&pay)).refuse().unwrap().contains("counter spent, line 1 column 6: no field `amuont`")
    );
    assert!(check("args.price", std::slice::from_ref(&pay)).refuse().unwrap().contains("must be an int"));
    let partly = check("args.amount", &[pay, mail]);
    assert_eq!((partly.refuse(), partly.not_typed.len()), (None, 1));
    // nobody reads it
    let spec = json!({"counters": [{"name": "spent", "window": "1m"}], "rules": [{"name": "r", "expression": "agent.name == 'x'", "effect": "Deny"}]});
    let idle = check_policy(&serde_json::from_value(spec).unwrap(), std::iter::empty());
    assert_eq!(
        idle.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["counter spent: is read by no rule of the Policy: no expression names counters.spent"]
    );
}

#[test]
fn both_evaluators_read_the_same() {
    use std::{sync::Arc, time::Duration};

    use crate::cel::{
        code::Slots,
        eval::{Outcome, Session},
        meter::{Limits, Meter},
        program,
    };
    let (counters, history) = (json!({"spent": 40, "calls": 3}), json!({"calls": 7, "labels": ["a", "b"], "tools": {"pay": 2}}));
    for (text, want) in [
        ("counters.spent + 10 <= 50", Outcome::Holds),
        ("counters.spent + 11 <= 50", Outcome::Fails),
        ("counters.calls * 2 == 6 && has(counters.calls)", Outcome::Holds),
        ("history.calls > counters.calls", Outcome::Holds),
        ("'a' in history.labels && !('c' in history.labels)", Outcome::Holds),
        ("[1, 7].exists(n, n == history.calls)", Outcome::Holds),
        ("history.tools['pay'] == 2 && history.tools['pay'] < history.calls", Outcome::Holds),
        ("counters.spent + 9223372036854775807 > 0", Outcome::Error("overflow in add".to_owned())),
    ] {
        let program = program::finish(program::parse(text).unwrap()).unwrap();
        assert!(program.code.is_ok(), "{text}: {:?}", program.code);
        let mut slots = Slots::default();
        slots.set_counters(Some(&counters));
        slots.set_history(Some(&history));
        let mut session = Session::new(Arc::new(Meter::new(Limits { time: Duration::from_secs(20), ..Limits::default() })), slots);
        assert_eq!((session.eval(&program), session.interpreted(&program)), (want.clone(), want), "{text}");
    }
    // what is not known is an error with either
    let program = program::finish(program::parse("counters.spent < 5").unwrap()).unwrap();
    let mut session = Session::new(Arc::new(Meter::new(Limits::default())), Slots::default());
    assert!(matches!(session.eval(&program), Outcome::Error(_)) && matches!(session.interpreted(&program), Outcome::Error(_)));
}

#[test]
fn the_bench_of_fixtures_states_what_was_before() {
    let world = world::World::from_objects(vec![
        object("Org", "", "a", json!({})),
        object("Agent", "a", "bot", json!({"type": "AI", "image": "i", "command": ["c"]})),
        object("Role", "a", "r", json!({"grants": [{"tools": ["*"]}], "assignment": {"agents": ["bot"]}})),
        object("Tool", "a", "t", json!({"runtime": {"container": {"image": "i", "command": ["c"]}}})),
        object(
            "Policy",
            "a",
            "p",
            json!({
            "counters": [{"name": "calls", "window": "1m"}],
            "rules": [
                {"name": "rate", "expression": "counters.calls < 5", "effect": "Deny"},
                {"name": "leak", "expression": "!('secret' in history.labels)", "effect": "Deny"},
                {"name": "mails", "expression": "history.tools['mail'] < 2", "effect": "Deny"},
            ]}),
        ),
    ]);
    let run = |more: Value, verdict: &str, reason: &str| {
        let mut fixture = json!({"name": "x", "org": "a", "agent": "bot", "tool": "t", "expect": {"verdict": verdict, "reason": reason}});
        fixture.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let result = crate::run_fixtures(&world, &[serde_json::from_value(fixture).unwrap()]).remove(0);
        assert_eq!(result.failures, Vec::<String>::new(), "{more}");
    };
    run(json!({}), "Deny", "CountersUnknown");
    run(json!({"counters": {"a/p/calls": 4}}), "Deny", "CountersUnknown");
    run(json!({"counters": {"a/p/calls": 4}, "history": {}}), "Allow", "");
    run(json!({"counters": {"a/p/calls": 4}, "history": {"tools": {"mail": 2, "t": 9}}}), "Deny", "PolicyDenied");
    run(json!({"counters": {"a/p/calls": 5}, "history": {}}), "Deny", "PolicyDenied");
    run(json!({"counters": {"a/p/calls": 4}, "history": {"calls": 9, "labels": ["secret"]}}), "Deny", "PolicyDenied");
    let wrong = json!({"name": "x", "org": "a", "agent": "bot", "tool": "t", "counters": {"calls": 1}, "expect": {"verdict": "Deny"}});
    let result = crate::run_fixtures(&world, &[serde_json::from_value(wrong).unwrap()]).remove(0);
    assert!(result.failures[0].contains("namespace/policy/counter"), "{result:?}");
}
