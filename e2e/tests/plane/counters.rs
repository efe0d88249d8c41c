//! Rules that read counters and the history of a Task: sums, rates, loops, data that was read before; asked for through the API server and the gateway.

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use polity_api::{ToolCall, toolcall::Phase};
use polity_e2e::{apply, org_name, parts::Polity, shim, until};
use serde_json::{Value, json};

use crate::{
    calls::{call, phase},
    fixtures::{self, SOON},
    help::{self, Robot},
};

const DECIDED: [Phase; 3] = [Phase::Running, Phase::Denied, Phase::WaitingApproval];

/// Puts a Policy in force and waits until both parts have it: its last rule is one that a certain call breaks.
async fn policy(polity: &Polity, org: &str, spec: Value) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let mut spec = spec;
    let seen =
        json!({"name": "seen", "expression": "!has(args.to) || args.to != 'nobody'", "effect": "Deny", "message": "the Policy is seen"});
    spec["rules"].as_array_mut().context("rules")?.push(seen);
    let policy =
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Policy", "metadata": {"name": "counting", "namespace": org}, "spec": spec});
    apply(&admin, &policy.to_string()).await?;
    help::condition(&admin, "Policy", Some(org), "counting", "Ready", "InForce").await?;
    help::refuses(&help::bot(polity, org).await?, &call(1, "nobody"), "the Policy is seen").await
}

async fn decided(polity: &Polity, org: &str, calls: &Api<ToolCall>, amount: i64) -> Result<(String, ToolCall)> {
    let (name, _) = help::made(calls, &call(amount, "ann")).await?;
    let call = help::one_of(&polity.cluster.admin().await?, org, &name, &DECIDED).await?;
    Ok((name, call))
}

fn phase_of(call: &ToolCall) -> Option<Phase> {
    call.status.as_ref().and_then(|s| s.phase)
}

/// One payment of 49 is free; with four more the sum is above 50, so each asks. What waits counts; what is given back does not.
pub async fn five_times_49_asks_and_one_does_not(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("sum");
    let uid = fixtures::organisation(&admin, &org).await?;
    let spec = json!({
        "match": {"tools": ["pay"]},
        "counters": [{"name": "spent", "amount": "args.amount", "by": ["Agent"]}],
        "rules": [
            {"name": "sum", "expression": "counters.spent + args.amount <= 50", "effect": "RequireApproval", "approval": {"role": {"name": "manager"}}},
            {"name": "most", "expression": "counters.spent + args.amount <= 245", "effect": "Deny"},
        ],
    });
    policy(polity, &org, spec).await?;
    let bot = help::bot(polity, &org).await?;
    let (_, first) = decided(polity, &org, &bot, 49).await?;
    ensure!(phase_of(&first) == Some(Phase::Running), "{:?}", first.status);
    let mut waiting = Vec::new();
    for n in 2..=5 {
        let (name, call) = decided(polity, &org, &bot, 49).await?;
        ensure!(phase_of(&call) == Some(Phase::WaitingApproval), "payment {n}: {:?}", call.status);
        waiting.push((name, call));
    }
    // 245 are used and held: what waits holds its reservation, so that nothing more fits
    let (_, over) = decided(polity, &org, &bot, 1).await?;
    let rules = over.status.as_ref().and_then(|s| s.decision.as_ref()).map(|d| d.rules.clone()).unwrap_or_default();
    ensure!(help::reason(&over) == "PolicyDenied" && rules == [format!("{org}/counting/most")], "{:?}", over.status);
    let cancel = &waiting.pop().context("one that waits")?.0;
    help::patch(&admin, "ToolCall", Some(&org), cancel, json!({"spec": {"cancel": true}})).await??;
    phase(&admin, &org, cancel, Phase::Canceled).await?;
    let (_, fits) = decided(polity, &org, &bot, 1).await?;
    ensure!(phase_of(&fits) == Some(Phase::WaitingApproval), "what was held is not given back: {:?}", fits.status);
    // approved: its own reservation is not counted against it
    let (name, asked) = waiting.pop().context("one that waits")?;
    let approval = asked.status.and_then(|s| s.approval).context("approval")?;
    help::decides(polity, &org, &approval, &format!("boss@{org}"), "Approve").await??;
    phase(&admin, &org, &name, Phase::Running).await?;
    let lines = help::lines(polity, &uid, None)?;
    let unit = format!("count/rule/{org}/counting/spent");
    let asked: Vec<i64> = lines.iter().filter(|l| l["kind"] == "hold").filter_map(|l| l["past"]["counters"][0]["value"].as_i64()).collect();
    ensure!(asked == [49, 98, 147, 196, 196], "the records say what the counter stood at: {asked:?}");
    let reserved: i64 = lines.iter().filter_map(|l| l["reserved"][unit.as_str()].as_i64()).sum();
    ensure!(reserved == 5 * 49 + 1, "{reserved} reserved in the records");
    Ok(())
}

/// Calls race on a rule that allows ten, half of them through the API server and half through the gateway: exactly ten begin.
pub async fn a_racing_loop_begins_exactly_as_often(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("rate");
    let uid = fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;
    let spec = json!({
        "match": {"tools": ["pay"]},
        "counters": [{"name": "calls", "window": "9999d"}],
        "rules": [{"name": "rate", "expression": "counters.calls < 10", "effect": "Deny"}],
    });
    policy(polity, &org, spec).await?;
    let bot = help::bot(polity, &org).await?;
    help::takes(&bot, &help::small()).await?;
    let one = help::small();
    let made = try_join_all((0..20).map(|_| async { bot.create(&PostParams::default(), &one).await }));
    let body = json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}, "waitSeconds": 0});
    let asked = join_all((0..20).map(|_| robot.call(&org, body.clone())));
    let (made, asked) = futures::future::join(made, asked).await;
    ensure!(made?.len() == 20);
    let mut running = 0;
    for answer in asked {
        match answer? {
            (202, body) if body["phase"] == "Running" => running += 1,
            (403, body) if body["reason"] == "PolicyDenied" => {}
            (code, body) => anyhow::bail!("{code} {body}"),
        }
    }
    let all: Api<ToolCall> = Api::namespaced(admin, &org);
    let stored = until(SOON * 3, "every call is decided", || async {
        let list = all.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
        let decided = list.iter().filter(|c| phase_of(c).is_some_and(|p| DECIDED.contains(&p))).count();
        if decided == 20 { Ok(list) } else { Err(format!("{:?}", help::tally(&list))) }
    })
    .await?;
    let begun = stored.iter().filter(|c| phase_of(c) == Some(Phase::Running)).count();
    ensure!(begun + running == 10, "{begun} stored and {running} asked for run");
    let others: Vec<String> = stored.iter().filter(|c| phase_of(c) == Some(Phase::Denied)).map(help::reason).collect();
    ensure!(others.iter().all(|r| r == "PolicyDenied"), "{others:?}");
    let begins = help::lines(polity, &uid, None)?.iter().filter(|l| l["kind"] == "begin").count();
    ensure!(begins == 10, "{begins} begins");
    Ok(())
}

/// The same call over and over is stopped at the fourth; another input goes on. The counters outlive a core that is killed.
pub async fn a_loop_is_stopped_also_after_a_crash(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("loop");
    fixtures::organisation(&admin, &org).await?;
    let spec = json!({
        "match": {"tools": ["pay"]},
        "counters": [{"name": "same", "by": ["Agent", "Input"], "window": "9999d"}],
        "rules": [{"name": "loop", "expression": "counters.same < 3", "effect": "Deny", "hint": "ask for something else"}],
    });
    policy(polity, &org, spec).await?;
    let bot = help::bot(polity, &org).await?;
    for _ in 0..2 {
        let (_, call) = decided(polity, &org, &bot, 20).await?;
        ensure!(phase_of(&call) == Some(Phase::Running), "{:?}", call.status);
    }
    polity.core.kill()?;
    polity.core.start()?;
    polity.core.ready().await?;
    help::takes(&bot, &help::small()).await?;
    let mut phases = Vec::new();
    for amount in [20, 20, 21, 20] {
        phases.push(phase_of(&decided(polity, &org, &bot, amount).await?.1));
    }
    ensure!(phases == [Some(Phase::Running), Some(Phase::Denied), Some(Phase::Running), Some(Phase::Denied)], "{phases:?}");
    Ok(())
}

/// What a call through the gateway is answered.
async fn said(robot: &Robot, org: &str, tool: &str, task: Option<&str>) -> Result<(u16, Value)> {
    let mut body = json!({"tool": tool, "input": {}, "waitSeconds": 0});
    if let Some(task) = task {
        body["taskRef"] = json!(task);
    }
    robot.call(org, body).await
}

/// After customer data was read for a Task nothing leaves the house for it any more; for another Task it does. A call without a Task answers for all
/// that its Agent has done.
pub async fn nothing_is_sent_after_customer_data_was_read(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("leak");
    fixtures::organisation(&admin, &org).await?;
    let tool = |name: &str, more: Value| {
        let mut spec = json!({"runtime": {"container": {"image": "docker.io/polity/polity:dev", "command": ["/pay"]}}});
        spec.as_object_mut().into_iter().for_each(|s| s.extend(more.as_object().cloned().unwrap_or_default()));
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Tool", "metadata": {"name": name, "namespace": org}, "spec": spec}).to_string()
    };
    apply(&admin, &tool("crm", json!({"outputLabels": [{"label": "customer-data"}]}))).await?;
    apply(&admin, &tool("mail", json!({"risk": ["external"]}))).await?;
    for task in ["one", "two", "three"] {
        let task = json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Task", "metadata": {"name": task, "namespace": org}, "spec": {}});
        apply(&admin, &task.to_string()).await?;
    }
    help::patch(&admin, "Role", Some(&org), "payer", json!({"spec": {"grants": [{"tools": ["pay", "crm", "mail"]}]}})).await??;
    let robot = help::robot(polity, &org).await?;
    let spec = json!({
        "match": {"tools": ["mail", "pay"]},
        "rules": [
            {"name": "no-leak", "expression": "!('customer-data' in history.labels)", "effect": "Deny", "hint": "start another Task"},
            {"name": "few", "expression": "history.calls < 3", "effect": "Deny"},
        ],
    });
    // `args.to` is nothing of `mail`: without the rule that tells when it is seen
    let policy =
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Policy", "metadata": {"name": "counting", "namespace": org}, "spec": spec});
    apply(&admin, &policy.to_string()).await?;
    help::condition(&admin, "Policy", Some(&org), "counting", "Ready", "InForce").await?;
    // both parts have the Policy when the fourth call of a Task is one too many
    until(SOON, "the Policy is seen", || async {
        let (_, told) = said(&robot, &org, "mail", Some("three")).await.map_err(|e| e.to_string())?;
        if told["reason"] == "PolicyDenied" { Ok(()) } else { Err(told.to_string()) }
    })
    .await?;
    let (code, begun) = said(&robot, &org, "mail", Some("one")).await?;
    ensure!(code == 202 && begun["phase"] == "Running", "before anything was read: {code} {begun}");
    let (code, read) = said(&robot, &org, "crm", Some("one")).await?;
    ensure!(code == 202 && read["phase"] == "Running", "{code} {read}");
    // it may return at any moment from now on
    let (code, denied) = said(&robot, &org, "mail", Some("one")).await?;
    ensure!(code == 403 && denied["rules"] == json!([format!("{org}/counting/no-leak")]), "{code} {denied}");
    shim::play(polity, &org, read["id"].as_str().context("id")?, 0, r#"{"customers": []}"#).await?;
    let (code, denied) = said(&robot, &org, "mail", Some("one")).await?;
    ensure!(code == 403 && denied["hint"] == "start another Task", "{code} {denied}");
    let (code, other) = said(&robot, &org, "mail", Some("two")).await?;
    ensure!(code == 202, "another Task: {code} {other}");
    let (code, none) = said(&robot, &org, "mail", None).await?;
    ensure!(code == 403 && none["reason"] == "PolicyDenied", "without a Task: {code} {none}");
    Ok(())
}

/// A rule asks how often one Tool was called in the Task: what other Tools did is not counted, and the record says what it stood at.
pub async fn a_tool_is_asked_for_by_name(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("byname");
    let uid = fixtures::organisation(&admin, &org).await?;
    for name in ["check", "mail"] {
        let tool = json!({
            "apiVersion": "polity.dev/v1alpha1", "kind": "Tool", "metadata": {"name": name, "namespace": org},
            "spec": {"runtime": {"container": {"image": "docker.io/polity/polity:dev", "command": ["/pay"]}}},
        });
        apply(&admin, &tool.to_string()).await?;
    }
    let task = json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Task", "metadata": {"name": "one", "namespace": org}, "spec": {}});
    apply(&admin, &task.to_string()).await?;
    help::patch(&admin, "Role", Some(&org), "payer", json!({"spec": {"grants": [{"tools": ["pay", "check", "mail"]}]}})).await??;
    let robot = help::robot(polity, &org).await?;
    let rule = |name: &str, expression: &str| json!({"name": name, "expression": expression, "effect": "Deny"});
    let rules = [rule("checked", "history.tools['check'] >= 1"), rule("once", "history.tools['mail'] < 1")];
    let policy = json!({
        "apiVersion": "polity.dev/v1alpha1", "kind": "Policy", "metadata": {"name": "counting", "namespace": org},
        "spec": {"match": {"tools": ["mail"]}, "rules": rules},
    });
    apply(&admin, &policy.to_string()).await?;
    help::condition(&admin, "Policy", Some(&org), "counting", "Ready", "InForce").await?;
    until(SOON, "both parts have the Policy", || async {
        let (_, told) = said(&robot, &org, "mail", Some("one")).await.map_err(|e| e.to_string())?;
        if told["rules"] == json!([format!("{org}/counting/checked")]) { Ok(()) } else { Err(told.to_string()) }
    })
    .await?;
    let (code, begun) = said(&robot, &org, "check", Some("one")).await?;
    ensure!(code == 202, "{code} {begun}");
    let (code, begun) = said(&robot, &org, "mail", Some("one")).await?;
    ensure!(code == 202, "after the check: {code} {begun}");
    let (code, denied) = said(&robot, &org, "mail", Some("one")).await?;
    ensure!(code == 403 && denied["rules"] == json!([format!("{org}/counting/once")]), "{code} {denied}");
    let lines = help::lines(polity, &uid, Some(begun["id"].as_str().context("id")?))?;
    let record = lines.iter().find(|l| l["kind"] == "begin").context("its begin")?;
    ensure!(record["past"]["tools"] == json!({"check": 1, "mail": 0}), "{record}");
    Ok(())
}

/// A parent's counter counts its whole tree.
pub async fn a_parents_counter_counts_its_tree(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let parent = org_name("tree");
    let below = format!("{parent}-kid");
    fixtures::organisation(&admin, &parent).await?;
    fixtures::unit(&admin, &below, &parent).await?;
    let (above, kid) = (help::bot(polity, &parent).await?, help::bot(polity, &below).await?);
    help::takes(&above, &help::small()).await?;
    let spec = json!({
        "match": {"tools": ["pay"]},
        "counters": [{"name": "calls"}],
        "rules": [{"name": "two", "expression": "counters.calls < 2", "effect": "Deny"}],
    });
    policy(polity, &parent, spec).await?;
    help::refuses(&kid, &call(1, "nobody"), "the Policy is seen").await?;
    let mut phases = Vec::new();
    for (api, org) in [(&above, &parent), (&kid, &below), (&kid, &below), (&above, &parent)] {
        phases.push(phase_of(&decided(polity, org, api, 20).await?.1));
    }
    ensure!(phases == [Some(Phase::Running), Some(Phase::Running), Some(Phase::Denied), Some(Phase::Denied)], "{phases:?}");
    Ok(())
}
