//! Rules that rewrite the input of a call: at creation, by the gateway before it decides, and never afterwards.

use anyhow::{Context, Result, ensure};
use kube::{Api, ResourceExt};
use polity_api::{ToolCall, reasons, toolcall::Phase};
use polity_e2e::{apply, org_name, parts::Polity, shim};
use serde_json::{Value, json};

use crate::{
    calls::call,
    fixtures::{self, SOON},
    help,
};

/// A Policy that caps `amount`.
fn cap(org: &str, most: i64) -> String {
    format!(
        "
apiVersion: polity.dev/v1alpha1
kind: Policy
metadata: {{name: cap, namespace: {org}}}
spec:
  match: {{tools: [pay]}}
  rules:
  - name: max
    expression: args.amount <= {most}
    effect: Rewrite
    rewrite: [{{path: amount, max: {most}}}]
"
    )
}

fn rewrites(org: &str) -> Value {
    json!([{"rule": format!("{org}/cap/max"), "paths": ["/amount"]}])
}

/// A parent's cap holds for a stored call and for an agent's: the tool gets the rewritten input, who asked sees it, the record names the rule.
pub async fn are_stored_run_and_recorded(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let (top, org) = (org_name("cap"), org_name("capped"));
    fixtures::organisation(&admin, &top).await?;
    let uid = fixtures::unit(&admin, &org, &top).await?;
    apply(&admin, &cap(&top, 30)).await?;
    let calls = help::bot(polity, &org).await?;
    polity_e2e::until(SOON, "the cap is in force", || async {
        let tried = help::tried(&calls, &call(40, "ann")).await.map_err(|e| e.to_string())?;
        if tried.spec.rewrites.is_empty() { Err(format!("{:?}", tried.spec.input)) } else { Ok(()) }
    })
    .await?;

    // 4000 would need a manager: capped it does not
    let (name, id) = help::made(&calls, &call(4000, "ann")).await?;
    let input = shim::play(polity, &org, &id, 0, r#"{"receipt": "r-1"}"#).await?;
    ensure!(input == json!({"amount": 30, "to": "ann"}), "the tool got {input}");
    let ended = help::one_of(&admin, &org, &name, &[Phase::Succeeded]).await?;
    ensure!(json!(ended.spec.input) == input && json!(ended.spec.rewrites) == rewrites(&top), "{:?}", ended.spec);
    let lines = help::lines(polity, &uid, Some(&id))?;
    let begin = lines.iter().find(|l| l["kind"] == "begin").context("begin")?;
    ensure!(begin["verdict"]["rewrites"] == json!([format!("{top}/cap/max")]), "{begin}");

    let robot = help::robot(polity, &org).await?;
    let (code, begun) = robot.call(&org, json!({"tool": "pay", "input": {"amount": 77, "to": "ann"}, "waitSeconds": 0})).await?;
    ensure!(code == 202 && begun["phase"] == "Running", "{code} {begun}");
    ensure!(begun["input"] == json!({"amount": 30, "to": "ann"}) && begun["decision"]["rewrites"] == rewrites(&top), "{begun}");
    let id = begun["id"].as_str().context("id")?;
    let input = shim::play(polity, &org, id, 0, r#"{"receipt": "r-2"}"#).await?;
    ensure!(input == json!({"amount": 30, "to": "ann"}), "the tool got {input}");
    let lines = help::lines(polity, &uid, Some(id))?;
    ensure!(lines[0]["verdict"]["rewrites"] == json!([format!("{top}/cap/max")]), "{}", lines[0]);
    Ok(())
}

/// A call that waits for a person is bound to its input: a cap that comes meanwhile denies it, though a person has approved; and what an agent's
/// waiting call asks for is what was rewritten.
pub async fn never_change_a_stored_call(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("stored");
    fixtures::organisation(&admin, &org).await?;
    apply(&admin, &cap(&org, 300)).await?;
    let calls = help::bot(polity, &org).await?;
    let robot = help::robot(polity, &org).await?;
    polity_e2e::until(SOON, "the cap is in force", || async {
        let tried = help::tried(&calls, &call(400, "ann")).await.map_err(|e| e.to_string())?;
        if tried.spec.rewrites.is_empty() { Err(format!("{:?}", tried.spec.input)) } else { Ok(()) }
    })
    .await?;
    let (code, waits) = robot.call(&org, json!({"tool": "pay", "input": {"amount": 900, "to": "ann"}, "waitSeconds": 0})).await?;
    ensure!(code == 202 && waits["phase"] == "WaitingApproval" && waits["input"] == json!({"amount": 300, "to": "ann"}), "{code} {waits}");
    let (agents, approval) = (waits["call"].as_str().context("call")?, waits["approval"].as_str().context("approval")?);
    let stored = Api::<ToolCall>::namespaced(admin.clone(), &org).get(agents).await?;
    ensure!(json!(stored.spec.rewrites) == rewrites(&org) && json!(stored.spec.input)["amount"] == 300, "{:?}", stored.spec);

    apply(&admin, &cap(&org, 200)).await?;
    polity_e2e::until(SOON, "the new cap is in force", || async {
        let tried = help::tried(&calls, &call(400, "ann")).await.map_err(|e| e.to_string())?;
        let amount = json!(tried.spec.input)["amount"].clone();
        if amount == 200 { Ok(()) } else { Err(amount.to_string()) }
    })
    .await?;
    // Either comes first: the person's word, or core's look at the call under the new rules.
    let _ = help::decides(polity, &org, approval, &format!("boss@{org}"), "Approve").await?;
    let denied = help::one_of(&admin, &org, &stored.name_any(), &[Phase::Denied, Phase::Running, Phase::Succeeded]).await?;
    ensure!(help::reason(&denied) == reasons::REWRITE_CHANGED, "{:?}", denied.status);
    let (name, _) = help::made(&calls, &call(45, "ann")).await?;
    help::one_of(&admin, &org, &name, &[Phase::Running]).await?;
    Ok(())
}
