//! What Policies demand of results: nobody sees what is redacted, and an outcome that is not what it must be ends the call.

use anyhow::{Context, Result, ensure};
use polity_api::toolcall::Phase;
use polity_e2e::{apply, org_name, parts::Polity, shim, until};
use serde_json::{Value, json};

use crate::{
    calls::call,
    fixtures::{self, SOON},
    help,
};

fn demands(org: &str) -> String {
    format!(
        "
apiVersion: polity.dev/v1alpha1
kind: Policy
metadata: {{name: results, namespace: {org}}}
spec:
  match: {{tools: [pay]}}
  obligations:
  - name: no-secrets
    redact: {{paths: [payer.iban], labels: [personal]}}
  - name: paid-what-was-asked
    expression: result.paid == args.amount
    message: another amount was paid
"
    )
}

/// An Org whose Tool `pay` says what it returns, with demands on it.
pub async fn demanding(polity: &Polity, prefix: &str) -> Result<(String, String)> {
    let admin = polity.cluster.admin().await?;
    let org = org_name(prefix);
    let uid = fixtures::organisation(&admin, &org).await?;
    let schema = json!({"type": "object", "required": ["paid"], "properties": {
        "paid": {"type": "integer"}, "payer": {"type": "object", "properties": {"iban": {"type": "string"}, "name": {"type": "string"}}}}});
    let labels = json!([{"label": "personal", "paths": ["payer.name"]}]);
    help::patch(&admin, "Tool", Some(&org), "pay", json!({"spec": {"outputSchema": schema, "outputLabels": labels}})).await??;
    apply(&admin, &demands(&org)).await?;
    help::condition(&admin, "Policy", Some(&org), "results", "Ready", "InForce").await?;
    Ok((org, uid))
}

pub fn returned(paid: i64) -> String {
    json!({"paid": paid, "payer": {"iban": "DE-TOP-SECRET", "name": "ann"}}).to_string()
}

/// The caller, the object and the ledger's copy have only what may be delivered; the record has both digests and the counts.
pub async fn nobody_sees_what_is_redacted(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let (org, uid) = demanding(polity, "redact").await?;
    let robot = help::robot(polity, &org).await?;
    let delivered = json!({"paid": 20, "payer": {"iban": "[redacted]", "name": "[redacted]"}});
    // the edge may see the Policy a moment later than core
    until(SOON, "an agent's result is redacted", || async {
        let (_, begun) = robot
            .call(&org, json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}, "waitSeconds": 0}))
            .await
            .map_err(|e| e.to_string())?;
        let id = begun["id"].as_str().ok_or_else(|| begun.to_string())?;
        shim::play(polity, &org, id, 0, &returned(20)).await.map_err(|e| e.to_string())?;
        let (_, ended) = robot.read(&org, id, SOON).await.map_err(|e| e.to_string())?;
        if ended["result"]["output"] == delivered { Ok(()) } else { Err(ended.to_string()) }
    })
    .await?;

    let calls = help::bot(polity, &org).await?;
    let (name, id) = help::made(&calls, &call(20, "ann")).await?;
    shim::play(polity, &org, &id, 0, &returned(20)).await?;
    let ended = help::one_of(&admin, &org, &name, &[Phase::Succeeded, Phase::Failed]).await?;
    let result = json!(ended.status.context("status")?.result);
    ensure!(result["output"] == delivered, "{result}");
    let lines = help::lines(polity, &uid, Some(&id))?;
    let settle = lines.iter().find(|l| l["kind"] == "settle").context("settle")?;
    ensure!(settle["redactions"] == json!({"path": 1, "personal": 1}) && settle["outcome"] == "Done", "{settle}");
    let (as_returned, as_delivered) = (&settle["facts"]["returned"], &settle["result"]);
    ensure!(as_returned["digest"].is_string() && as_returned["digest"] != as_delivered["digest"], "{settle}");
    ensure!(as_delivered["digest"] == result["digest"]["digest"], "{settle} {result}");
    ensure!(!Value::from(lines.clone()).to_string().contains("TOP-SECRET"), "{lines:?}");

    // what a failed tool says is not shown either
    let (name, id) = help::made(&calls, &call(21, "ann")).await?;
    shim::play(polity, &org, &id, 3, "DE-TOP-SECRET").await?;
    let failed = help::one_of(&admin, &org, &name, &[Phase::Failed]).await?;
    let text = json!(failed.status).to_string();
    ensure!(text.contains("withheld") && !text.contains("stderrTail"), "{text}");
    Ok(())
}

/// The tool did something else than it was asked: the call fails, says so, delivers nothing, and is not recorded as not done.
pub async fn an_outcome_is_held_to_its_condition(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let (org, uid) = demanding(polity, "claim").await?;
    let calls = help::bot(polity, &org).await?;
    let (name, id) = help::made(&calls, &call(20, "ann")).await?;
    shim::play(polity, &org, &id, 0, &returned(19)).await?;
    let ended = help::one_of(&admin, &org, &name, &[Phase::Succeeded, Phase::Failed]).await?;
    ensure!(help::said(&ended) == "PostconditionFailed", "{:?}", ended.status);
    let text = json!(ended.status).to_string();
    ensure!(
        text.contains("another amount was paid") && text.contains("results/paid-what-was-asked") && !text.contains("TOP-SECRET"),
        "{text}"
    );
    let lines = help::lines(polity, &uid, Some(&id))?;
    let settle = lines.iter().find(|l| l["kind"] == "settle").context("settle")?;
    ensure!(settle["outcome"] == "Done" && settle["reason"] == "PostconditionFailed" && settle["result"].is_null(), "{settle}");
    ensure!(settle["facts"]["returned"]["digest"].is_string() && settle["used"]["calls"] == 1, "{settle}");
    Ok(())
}
