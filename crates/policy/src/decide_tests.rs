//! Decisions from manifests: every gate and reason, the algebra, tenants, modes, and the properties that hold for any set of Policies.

#![expect(clippy::needless_pass_by_value, reason = "JSON is written in place")]

use std::time::Duration;

use jiff::Timestamp;
use polity_api::{caller::Caller, reasons};
use serde_json::{Value, json};

use crate::{CompileCache, Decision, Request, Snapshot, TaskFacts, Verdict, World, cel::meter::Limits, compile::CompiledPolicy};

#[path = "decide_explain.rs"]
mod explain;
#[path = "decide_faults.rs"]
mod faults;
#[path = "decide_index.rs"]
mod index;
#[path = "decide_open.rs"]
mod open;
#[path = "decide_properties.rs"]
mod properties;

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    let metadata = if namespace.is_empty() { json!({"name": name}) } else { json!({"name": name, "namespace": namespace}) };
    json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

fn tool(namespace: &str, name: &str, more: Value) -> Value {
    let mut spec = json!({"runtime": {"container": {"image": "i", "command": ["c"]}}, "inputSchema": {
        "type": "object", "additionalProperties": false, "required": ["amount"],
        "properties": {"amount": {"type": "integer"}, "to": {"type": "string"}, "list": {"type": "array", "items": {"type": "integer"}}}}});
    merge(&mut spec, more);
    object("Tool", namespace, name, spec)
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

fn policy(namespace: &str, name: &str, expression: &str, more: Value) -> Value {
    let mut spec =
        json!({"rules": [{"name": "r", "expression": expression, "effect": "Deny", "message": "too much", "hint": "ask for less"}]});
    merge(&mut spec, more);
    object("Policy", namespace, name, spec)
}

fn asking(namespace: &str, name: &str, expression: &str, approval: Value) -> Value {
    object(
        "Policy",
        namespace,
        name,
        json!({"rules": [{"name": "r", "expression": expression, "effect": "RequireApproval", "approval": approval}]}),
    )
}

/// Org acme with its unit finance; alice (a person) is accountant there, bot is an AI agent without a Role, carol heads acme.
fn acme() -> Vec<Value> {
    vec![
        object("Org", "", "acme", json!({"budget": [{"window": "24h", "calls": 100, "usd": "50"}]})),
        object("Org", "", "finance", json!({"parentRef": {"name": "acme"}, "budget": [{"window": "1h", "calls": 10}]})),
        object("Agent", "acme", "carol", json!({"type": "Human", "usernames": ["carol@acme"]})),
        object("Agent", "finance", "alice", json!({"type": "Human", "usernames": ["alice@acme"]})),
        object("Agent", "finance", "bot", json!({"type": "AI", "image": "i", "command": ["c"]})),
        object("Role", "acme", "cfo", json!({"assignment": {"agents": ["carol"]}, "export": "Descendants"})),
        object("Role", "acme", "secretive", json!({"assignment": {"agents": ["carol"]}, "grants": [{"tools": ["*"]}]})),
        object(
            "Role",
            "finance",
            "accountant",
            json!({
            "grants": [{"tools": ["pay*", "shared"]}], "reportsTo": {"org": "acme", "name": "cfo"}, "assignment": {"agents": ["alice"]}}),
        ),
        tool("finance", "payments", json!({"risk": ["money"], "price": {"usd": "0.5"}})),
        tool("finance", "other", json!({})),
        tool("acme", "shared", json!({"export": "Descendants"})),
        tool("acme", "private", json!({})),
    ]
}

struct Call<'a> {
    org: &'a str,
    who: &'a str,
    tool: &'a str,
    tool_org: Option<&'a str>,
    args: Value,
    task: Option<TaskFacts>,
    job_space: Option<&'a str>,
    approved: Vec<String>,
}

impl Default for Call<'_> {
    fn default() -> Self {
        Self {
            org: "finance",
            who: "alice@acme",
            tool: "payments",
            tool_org: None,
            args: json!({"amount": 40}),
            task: None,
            job_space: None,
            approved: Vec::new(),
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_767_268_800).unwrap()
}

fn decide_in(snapshot: &Snapshot, call: &Call<'_>, limits: Option<Limits>) -> Decision {
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
    // a debug build on a busy machine needs more than 50 ms
    snapshot.decide_with(&request, limits.unwrap_or(Limits { steps: 1_000_000, time: Duration::from_secs(20) }))
}

fn decide(objects: Vec<Value>, call: &Call<'_>) -> Decision {
    decide_in(&Snapshot::build(&World::from_objects(objects), call.org), call, None)
}

fn with(more: Vec<Value>) -> Vec<Value> {
    let mut all = acme();
    for new in more {
        let same = |o: &Value| {
            o["kind"] == new["kind"]
                && o["metadata"]["name"] == new["metadata"]["name"]
                && o["metadata"]["namespace"] == new["metadata"]["namespace"]
        };
        all.retain(|o| !same(o));
        all.push(new);
    }
    all
}

#[track_caller]
fn expect(d: &Decision, verdict: Verdict, reason: &str, says: &str) {
    assert_eq!((d.verdict, d.reason), (verdict, reason), "{d:#?}");
    assert!(d.message.contains(says) || d.hint.contains(says), "{says:?} not in {d:#?}");
}

#[test]
fn a_grant_allows_and_says_which() {
    let d = decide(acme(), &Call::default());
    expect(&d, Verdict::Allow, "", "finance/accountant");
    assert_eq!(d.roles, ["finance/accountant"]);
    assert_eq!(d.agent.unwrap().kind, "Human");
    assert_eq!(d.tool.unwrap().micro_usd, 500_000);
    assert_eq!(d.snapshot.len(), 64);
}

#[test]
fn before_any_policy() {
    let deep = (0..40).fold(json!(1), |v, _| json!([v]));
    let finance = |spec: Value| with(vec![object("Org", "", "finance", spec)]);
    let parent = json!({"name": "acme"});
    let bare = || Call::default();
    for (objects, call, reason, says) in [
        (acme(), Call { org: "nowhere", ..bare() }, reasons::ORG_NOT_READY, "does not exist"),
        (finance(json!({"parentRef": {"name": "gone"}})), bare(), reasons::ANCESTRY_BROKEN, "gone"),
        (
            with(vec![object("Org", "", "acme", json!({"parentRef": {"name": "finance"}}))]),
            bare(),
            reasons::ANCESTRY_BROKEN,
            "its own ancestor",
        ),
        (with(vec![object("Org", "", "acme", json!({"suspend": "maybe"}))]), bare(), reasons::ANCESTRY_BROKEN, "cannot be decoded"),
        (finance(json!({"parentRef": parent, "suspend": true})), bare(), reasons::ORG_SUSPENDED, "finance is suspended"),
        (with(vec![object("Org", "", "acme", json!({"suspend": true}))]), bare(), reasons::ORG_SUSPENDED, "acme is suspended"),
        (finance(json!({"parentRef": parent, "startAt": "2027-01-01T00:00:00Z"})), bare(), reasons::ORG_SUSPENDED, "starts at 2027"),
        (acme(), Call { who: "mallory", ..bare() }, reasons::UNKNOWN_CALLER, "mallory"),
        (
            with(vec![object("Agent", "finance", "twin", json!({"type": "Human", "usernames": ["alice@acme"]}))]),
            bare(),
            reasons::UNKNOWN_CALLER,
            "finance/alice, finance/twin",
        ),
        (acme(), Call { tool: "paymets", ..bare() }, reasons::TOOL_NOT_FOUND, "did you mean `payments`?"),
        (acme(), Call { tool: "shared", ..bare() }, reasons::TOOL_NOT_FOUND, "Org acme exports a Tool of this name"),
        (acme(), Call { tool: "private", tool_org: Some("acme"), ..bare() }, reasons::TOOL_NOT_FOUND, "exported to descendants"),
        (
            with(vec![tool("finance", "payments", json!({"inputSchema": {"type": "objekt"}}))]),
            bare(),
            reasons::TOOL_NOT_READY,
            "input schema",
        ),
        (
            with(vec![tool("finance", "payments", json!({"inputSchema": {"$ref": "https://example.com/x"}}))]),
            bare(),
            reasons::TOOL_NOT_READY,
            "leaves the schema",
        ),
        (with(vec![tool("finance", "payments", json!({"timeoutSeconds": "soon"}))]), bare(), reasons::TOOL_NOT_READY, "cannot be decoded"),
        (with(vec![tool("finance", "payments", json!({"price": {"usd": "cheap"}}))]), bare(), reasons::TOOL_NOT_READY, "price"),
        (acme(), Call { args: json!({"amount": "x"}), ..bare() }, reasons::INVALID_ARGUMENTS, "args/amount: the value is not of type"),
        (acme(), Call { args: json!({"amuont": 5}), ..bare() }, reasons::INVALID_ARGUMENTS, "amuont"),
        (acme(), Call { args: json!([1]), ..bare() }, reasons::INVALID_ARGUMENTS, "JSON object"),
        (acme(), Call { args: json!({"amount": deep}), ..bare() }, reasons::INVALID_ARGUMENTS, "deeper than 32"),
        (acme(), Call { args: json!({"amount": 1, "to": "x".repeat(1_000_000)}), ..bare() }, reasons::INPUT_TOO_LARGE, "32768"),
        (
            acme(),
            Call { task: Some(TaskFacts { name: "t".into(), cancel: true, ..TaskFacts::default() }), ..bare() },
            reasons::TASK_CANCELED,
            "t is canceled",
        ),
        (acme(), Call { tool: "other", ..bare() }, reasons::NOT_GRANTED, "it holds finance/accountant"),
        (
            acme(),
            Call { who: "system:serviceaccount:finance:polity-agent-bot", ..bare() },
            reasons::NOT_GRANTED,
            "granted by finance/accountant",
        ),
        // a Role of an ancestor that is not exported grants nothing here
        (acme(), Call { who: "carol@acme", ..bare() }, reasons::NOT_GRANTED, "it holds acme/cfo"),
    ] {
        let d = decide(objects, &call);
        expect(&d, Verdict::Deny, reason, says);
    }
}

#[test]
fn namespaces_must_consent_and_be_the_same_one() {
    for (change, reason) in [
        (
            Box::new(|w: &mut World| w.namespaces.get_mut("finance").unwrap().terminating = true) as Box<dyn Fn(&mut World)>,
            reasons::NAMESPACE_NOT_CONSENTING,
        ),
        (Box::new(|w| w.namespaces.get_mut("finance").unwrap().uid = "other".into()), reasons::NAMESPACE_NOT_CONSENTING),
        (Box::new(|w| drop(w.namespaces.remove("finance"))), reasons::NAMESPACE_NOT_CONSENTING),
        (Box::new(|w| drop(w.namespaces.remove("acme"))), reasons::ANCESTRY_BROKEN),
        (Box::new(|w| w.namespaces.get_mut("acme").unwrap().terminating = true), reasons::ANCESTRY_BROKEN),
        (Box::new(|w| std::sync::Arc::make_mut(w.orgs.get_mut("finance").unwrap()).status = None), reasons::ORG_NOT_READY),
    ] {
        let mut world = World::from_objects(acme());
        change(&mut world);
        expect(&decide_in(&Snapshot::build(&world, "finance"), &Call::default(), None), Verdict::Deny, reason, "namespace");
    }
    for (label, verdict) in [(Some("finance"), Verdict::Allow), (Some("other"), Verdict::Deny), (None, Verdict::Deny)] {
        let mut objects = acme();
        objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "finance", "labels": label.map(|l| json!({"polity.dev/org": l}))}}));
        assert_eq!(decide(objects, &Call::default()).verdict, verdict, "{label:?}");
    }
    let mut deleting = acme();
    deleting[1]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    expect(&decide(deleting, &Call::default()), Verdict::Deny, reasons::ORG_DELETING, "being deleted");
    let mut deleting = acme();
    deleting[0]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    expect(&decide(deleting, &Call::default()), Verdict::Deny, reasons::ANCESTRY_BROKEN, "acme is being deleted");
}

#[test]
fn only_what_the_api_server_calls_a_person_is_human() {
    let account = "system:serviceaccount:finance:ci";
    let objects = with(vec![object("Agent", "finance", "alice", json!({"type": "Human", "usernames": ["alice@acme", account]}))]);
    let snapshot = Snapshot::build(&World::from_objects(objects), "finance");
    assert_eq!(snapshot.agent_by_username(account).unwrap().kind, "System");
    assert_eq!(snapshot.agent_by_username("alice@acme").unwrap().kind, "Human");
    let objects = with(vec![object("Agent", "finance", "alice", json!({"type": "Human", "usernames": [account]}))]);
    let snapshot = Snapshot::build(&World::from_objects(objects), "finance");
    assert_eq!(
        snapshot.holders(&polity_api::role::RoleRef { org: None, name: "accountant".into() }, Timestamp::UNIX_EPOCH)[0].kind,
        "System"
    );
}

#[test]
fn a_job_space_binds_grants_to_its_tasks() {
    let role = object(
        "Role",
        "finance",
        "accountant",
        json!({"grants": [{"tools": ["*"]}], "jobSpace": "audit", "assignment": {"agents": ["alice"]}}),
    );
    let task = |space: Option<&str>| Some(TaskFacts { name: "t".into(), job_space: space.map(str::to_owned), ..TaskFacts::default() });
    for (call, verdict) in [
        (Call { task: task(Some("audit")), ..Call::default() }, Verdict::Allow),
        (Call { task: task(Some("sales")), ..Call::default() }, Verdict::Deny),
        (Call { task: task(None), ..Call::default() }, Verdict::Deny),
        (Call { job_space: Some("audit"), ..Call::default() }, Verdict::Deny),
        (Call::default(), Verdict::Deny),
    ] {
        let d = decide(with(vec![role.clone()]), &call);
        assert_eq!(d.verdict, verdict, "{d:#?}");
        if verdict == Verdict::Deny {
            expect(&d, Verdict::Deny, reasons::NOT_GRANTED, "job space audit");
        }
    }
}

#[test]
fn holders_lapse() {
    let mut objects = acme();
    let role = objects.iter_mut().find(|o| o["metadata"]["name"] == "accountant").unwrap();
    role["status"] =
        json!({"holders": [{"agent": "alice", "source": "Assignment", "since": "2025-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}]});
    expect(&decide(objects, &Call::default()), Verdict::Deny, reasons::NOT_GRANTED, "holds no Role");
}

#[test]
fn policies_narrow_and_add_up() {
    let low = policy("finance", "low", "args.amount <= 50", json!({}));
    let over = Call { args: json!({"amount": 60}), ..Call::default() };
    expect(&decide(with(vec![low.clone()]), &Call::default()), Verdict::Allow, "", "");
    let d = decide(with(vec![low.clone()]), &over);
    expect(&d, Verdict::Deny, reasons::POLICY_DENIED, "finance/low/r: too much");
    assert_eq!((d.rules.as_slice(), d.hint.as_str()), (["finance/low/r".to_owned()].as_slice(), "ask for less"));
    // an ancestor's binds too, its unit's does not bind it
    expect(
        &decide(with(vec![policy("acme", "low", "args.amount <= 50", json!({}))]), &over),
        Verdict::Deny,
        reasons::POLICY_DENIED,
        "acme/low/r",
    );
    // approvals add up, each with the Org that wrote it, the shortest expiry counts
    let asks = vec![
        asking("acme", "cfo", "args.amount <= 50", json!({"role": {"name": "cfo"}, "count": 2, "expiresAfter": "2h"})),
        asking("finance", "boss", "args.amount <= 55", json!({"superior": true})),
    ];
    let d = decide(with(asks.clone()), &over);
    expect(&d, Verdict::RequireApproval, reasons::APPROVAL_REQUIRED, "finance/boss/r");
    assert_eq!(d.rules, ["acme/cfo/r", "finance/boss/r"]);
    assert_eq!(d.expires_after, 7200);
    assert_eq!(d.requirements[0].role.as_ref().unwrap().org.as_deref(), Some("acme"));
    assert_eq!((d.requirements[0].count, d.requirements[1].superior, d.requirements[1].humans_only), (2, true, true));
    // an approval satisfies exactly the rules that it names
    let d = decide(with(asks.clone()), &Call { approved: vec!["acme/cfo/r".into()], args: json!({"amount": 60}), ..Call::default() });
    assert_eq!((d.verdict, d.rules.as_slice()), (Verdict::RequireApproval, ["finance/boss/r".to_owned()].as_slice()));
    let approved = vec!["acme/cfo/r".to_owned(), "finance/boss/r".to_owned()];
    let d = decide(with(asks.clone()), &Call { approved: approved.clone(), args: json!({"amount": 60}), ..Call::default() });
    assert_eq!((d.verdict, &d.rules), (Verdict::Allow, &approved));
    // and never a denial
    let d = decide(
        with([asks, vec![low]].concat()),
        &Call {
            approved: vec!["acme/cfo/r".into(), "finance/boss/r".into(), "finance/low/r".into()],
            args: json!({"amount": 60}),
            ..Call::default()
        },
    );
    expect(&d, Verdict::Deny, reasons::POLICY_DENIED, "finance/low/r");
}

#[test]
fn approvers_are_roles_that_the_rule_may_name() {
    let secretive = || json!({"role": {"org": "acme", "name": "secretive"}});
    let cfo = json!({"role": {"org": "acme", "name": "cfo"}});
    for (ask, verdict, reason) in [
        (asking("finance", "p", "false", cfo), Verdict::RequireApproval, reasons::APPROVAL_REQUIRED),
        // not exported: only acme's own rules may name it
        (asking("finance", "p", "false", secretive()), Verdict::Deny, reasons::POLICY_INVALID),
        (asking("acme", "p", "false", secretive()), Verdict::RequireApproval, reasons::APPROVAL_REQUIRED),
        (asking("finance", "p", "false", json!({"role": {"org": "sales", "name": "boss"}})), Verdict::Deny, reasons::POLICY_INVALID),
    ] {
        let snapshot = Snapshot::build(&World::from_objects(with(vec![ask])), "finance");
        let d = decide_in(&snapshot, &Call::default(), None);
        assert_eq!((d.verdict, d.reason), (verdict, reason), "{d:#?}");
        for r in &d.requirements {
            assert_eq!(snapshot.holders(r.role.as_ref().unwrap(), Timestamp::UNIX_EPOCH)[0].name, "carol");
            let able = |who: &str| {
                let asking = Caller { username: who.to_owned(), ..Caller::default() };
                snapshot.able(&asking, r, Timestamp::UNIX_EPOCH)
            };
            assert_eq!((able("alice@acme"), able("carol@acme")), (Some(1), Some(0)), "who asks does not count");
        }
    }
}

#[test]
fn a_match_selects() {
    for (m, selected) in [
        (json!({}), true),
        (json!({"orgs": ["finance"]}), true),
        (json!({"orgs": ["acme"]}), false),
        (json!({"units": ["acme"]}), true),
        (json!({"units": ["other"]}), false),
        (json!({"groups": ["staff", "x"]}), true),
        (json!({"groups": ["x"]}), false),
        (json!({"agents": ["alice"]}), true),
        (json!({"agents": ["bot"]}), false),
        (json!({"tools": ["pay*"]}), true),
        (json!({"tools": ["oth*"]}), false),
        (json!({"risk": ["money", "x"]}), true),
        (json!({"risk": ["x"]}), false),
        (json!({"verbs": ["tool.call"]}), true),
        (json!({"verbs": ["task.create"]}), false),
        (json!({"jobSpaces": ["audit"]}), false),
        (json!({"tools": ["pay*"], "risk": ["x"]}), false),
        // a Role of the Policy's own Org, and alice holds none of acme's
        (json!({"roles": ["accountant"]}), false),
    ] {
        let d = decide(with(vec![policy("acme", "p", "false", json!({"match": m}))]), &Call::default());
        assert_eq!(d.verdict == Verdict::Deny, selected, "{m}");
    }
    let d = decide(with(vec![policy("finance", "p", "false", json!({"match": {"roles": ["accountant"]}}))]), &Call::default());
    assert_eq!(d.verdict, Verdict::Deny);
}

#[test]
fn roles_are_named_as_in_the_org_that_wrote_the_rule() {
    for (namespace, expression, holds) in [
        ("finance", "'accountant' in roles", true),
        ("acme", "'accountant' in roles", false),
        ("acme", "'finance/accountant' in roles", true),
        ("finance", "roles == ['accountant'] && agent.type == 'Human' && agent.name == 'alice' && caller.username == 'alice@acme'", true),
        (
            "acme",
            "org.name == 'finance' && org.path == ['acme', 'finance'] && org.namespace == 'finance' && 'staff' in caller.groups",
            true,
        ),
        (
            "acme",
            "tool.name == 'payments' && tool.org == 'finance' && 'money' in tool.risk && !tool.idempotent && tool.priceUSD == usd('0.5')",
            true,
        ),
        ("acme", "!has(task.name) && !has(request.id) && !has(caller.via) && request.verb == 'tool.call'", true),
        ("acme", "now == timestamp('2026-01-01T12:00:00Z')", true),
    ] {
        let d = decide(with(vec![policy(namespace, "p", expression, json!({}))]), &Call::default());
        assert_eq!(d.verdict == Verdict::Allow, holds, "{namespace}: {expression}: {}", d.message);
    }
}

#[test]
fn budgets_superiors_and_digest() {
    let world = World::from_objects(acme());
    let snapshot = Snapshot::build(&world, "finance");
    let budgets: Vec<_> = snapshot.budgets().iter().map(|b| (b.org.as_str(), b.window, b.unit, b.max)).collect();
    assert_eq!(budgets, [("acme", 86_400, "calls", 100), ("acme", 86_400, "microUSD", 50_000_000), ("finance", 3_600, "calls", 10)]);
    let alice = snapshot.agent_by_username("alice@acme").unwrap();
    assert_eq!(snapshot.superiors(&alice, Timestamp::UNIX_EPOCH).iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["carol"]);
    assert_eq!(snapshot.roles_of("alice@acme", Timestamp::UNIX_EPOCH), ["finance/accountant"]);
    assert_eq!((snapshot.path().join("/").as_str(), snapshot.namespace(), snapshot.org_uid()), ("acme/finance", "finance", "org--finance"));
    let mut reversed = acme();
    reversed.reverse();
    assert_eq!(Snapshot::build(&World::from_objects(reversed), "finance").digest(), snapshot.digest());
    for more in [
        policy("acme", "p", "true", json!({})),
        tool("finance", "payments", json!({"risk": ["x"]})),
        object(
            "Role",
            "finance",
            "accountant",
            json!({"grants": [{"tools": ["pay*", "shared"]}], "reportsTo": {"org": "acme", "name": "cfo"}, "assignment": {"agents": ["alice", "bot"]}}),
        ),
    ] {
        assert_ne!(Snapshot::build(&World::from_objects(with(vec![more.clone()])), "finance").digest(), snapshot.digest(), "{more}");
    }
    // a neighbour's change is no change here
    let neighbour =
        with(vec![object("Org", "", "sales", json!({"parentRef": {"name": "acme"}})), policy("sales", "p", "false", json!({}))]);
    assert_eq!(Snapshot::build(&World::from_objects(neighbour), "finance").digest(), snapshot.digest());
}

#[test]
fn nobody_reaches_into_another_org() {
    let other = |name: &str| {
        vec![
            object("Org", "", name, json!({})),
            object("Agent", name, "eve", json!({"type": "Human", "usernames": ["eve@b"]})),
            object("Role", name, "all", json!({"grants": [{"tools": ["*"]}], "assignment": {"agents": ["eve"]}, "export": "Descendants"})),
            tool(name, "secret", json!({"export": "Descendants"})),
        ]
    };
    let objects = [acme(), other("b")].concat();
    expect(&decide(objects.clone(), &Call { who: "eve@b", ..Call::default() }), Verdict::Deny, reasons::UNKNOWN_CALLER, "eve@b");
    expect(
        &decide(objects, &Call { tool: "secret", tool_org: Some("b"), ..Call::default() }),
        Verdict::Deny,
        reasons::TOOL_NOT_FOUND,
        "secret",
    );
}

#[test]
fn compiled_parts_are_shared() {
    let world = World::from_objects(with(vec![policy("acme", "p", "true", json!({}))]));
    let cache = CompileCache::default();
    let (a, b) = (Snapshot::build_with(&world, "finance", &cache), Snapshot::build_with(&world, "acme", &cache));
    assert!(std::sync::Arc::ptr_eq(&a.policies[0].compiled, &b.policies[0].compiled));
}
