//! What a Policy that is not enforced would have done: counted over calls that went on, shown in its status, the same after a crash, and nothing at rest.

use anyhow::{Context, Result, ensure};
use kube::Api;
use polity_api::{Policy, policy::Rollout, toolcall::Phase};
use polity_e2e::{apply, org_name, parts::Polity, until};
use serde_json::{Value, json};

use crate::{
    calls::{call, phase},
    fixtures::{self, SOON},
    help,
};

/// Waits until the figures say this: denied, asked, rewritten.
async fn figures(policies: &Api<Policy>, wanted: [i64; 3]) -> Result<Rollout> {
    until(SOON, &format!("the figures are {wanted:?}"), || async {
        let rollout = policies.get("trial").await.map_err(|e| e.to_string())?.status.and_then(|s| s.rollout);
        let rollout = rollout.ok_or("none")?;
        if [rollout.denied, rollout.asked, rollout.rewritten] == wanted { Ok(rollout) } else { Err(format!("{rollout:?}")) }
    })
    .await
}

/// A Policy in Observe counts what it would have denied or sent to people, call by call, through the API server and the gateway; a core that is killed
/// shows the same; once it enforces it counts nothing.
pub async fn what_enforce_would_have_denied(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("trial");
    let uid = fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;
    let bot = help::bot(polity, &org).await?;
    let policies: Api<Policy> = Api::namespaced(admin.clone(), &org);
    let spec = json!({
        "mode": "Observe",
        "match": {"tools": ["pay"]},
        "rules": [
            {"name": "most", "expression": "args.amount <= 40", "effect": "Deny"},
            {"name": "ask", "expression": "args.amount <= 30", "effect": "RequireApproval", "approval": {"role": {"name": "manager"}}},
            {"name": "seen", "expression": "args.to != 'nobody'", "effect": "Deny"},
        ],
    });
    let trial =
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Policy", "metadata": {"name": "trial", "namespace": org}, "spec": spec});
    apply(&admin, &trial.to_string()).await?;
    help::condition(&admin, "Policy", Some(&org), "trial", "Ready", "InForce").await?;
    let zero = figures(&policies, [0, 0, 0]).await?;
    // both parts have it: a call that would be denied is decided by the edge, and begins at core by the view that the edge decided by
    until(SOON, "the edge has the Policy", || async {
        let ask = json!({"tool": "pay", "input": {"amount": 1, "to": "nobody"}, "waitSeconds": 0});
        let (code, body) = robot.call(&org, ask).await.map_err(|e| e.to_string())?;
        let counted = policies.get("trial").await.map_err(|e| e.to_string())?.status.and_then(|s| s.rollout).map_or(0, |r| r.calls);
        if counted > 0 { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await?;
    // how many of those were seen by the Policy is known from the records alone
    let seen = i64::try_from(would(polity, &uid)?.len())?;

    let (name, _) = help::made(&bot, &call(45, "ann")).await?;
    phase(&admin, &org, &name, Phase::Running).await?;
    let (code, body) = robot.call(&org, json!({"tool": "pay", "input": {"amount": 35, "to": "ann"}, "waitSeconds": 0})).await?;
    ensure!(code == 202, "{code} {body}");
    // asked for already: with more people
    let (name, _) = help::made(&bot, &call(60, "ann")).await?;
    phase(&admin, &org, &name, Phase::WaitingApproval).await?;
    // what is denied anyway and what passes are not counted
    help::refuses(&bot, &call(45, "mallory"), "mallory is never paid").await?;
    let (name, _) = help::made(&bot, &call(20, "ann")).await?;
    phase(&admin, &org, &name, Phase::Running).await?;

    let shown = figures(&policies, [seen + 2, 1, 0]).await?;
    ensure!(shown.calls == seen + 3 && shown.since.0 <= zero.since.0 + jiff::SignedDuration::from_secs(1), "{shown:?} after {zero:?}");
    let latest = shown.examples.first().context("an example")?;
    ensure!((latest.rule.as_str(), latest.agent.as_str()) == ("most", format!("{org}/bot").as_str()), "{latest:?}");
    ensure!(latest.tool == format!("{org}/pay") && latest.org == org, "{latest:?}");
    let records = would(polity, &uid)?;
    let found = records.iter().find(|r| r["seq"] == latest.record).context("the example's record")?;
    let effects: Vec<&str> = found["verdict"]["advisory"].as_array().into_iter().flatten().filter_map(|a| a["effect"].as_str()).collect();
    ensure!(effects == ["RequireApproval", "Deny"] && found["kind"] == "hold", "{found}");
    ensure!(!format!("{shown:?}").contains("ann\""), "a value of the input is shown: {shown:?}");

    // the next core reads the same from the records
    polity.core.kill()?;
    polity.core.start()?;
    polity.core.ready().await?;
    help::takes(&bot, &help::small()).await?;
    let (name, _) = help::made(&bot, &call(35, "bob")).await?;
    phase(&admin, &org, &name, Phase::Running).await?;
    let after = figures(&policies, [seen + 2, 2, 0]).await?;
    ensure!(after.since == shown.since, "{after:?}");

    help::patch(&admin, "Policy", Some(&org), "trial", json!({"spec": {"mode": "Enforce"}})).await??;
    until(SOON, "an enforced Policy shows no figures", || async {
        let status = policies.get("trial").await.map_err(|e| e.to_string())?.status;
        let shown = status.and_then(|s| s.rollout);
        if shown.is_none() { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await?;
    help::refuses(&bot, &call(45, "ann"), "args.amount <= 40").await
}

/// Records of calls that went on and that the Policy would have treated otherwise.
fn would(polity: &Polity, org_uid: &str) -> Result<Vec<Value>> {
    let mut lines = help::lines(polity, org_uid, None)?;
    lines.retain(|l| l["verdict"]["advisory"].is_array() && (l["kind"] == "begin" || l["kind"] == "hold"));
    Ok(lines)
}
