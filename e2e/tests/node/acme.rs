//! The main job on examples/acme: an agent's Pod acts, is denied with a reason, and waits for a person.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use polity_api::{Approval, ToolCall, toolcall::Phase};
use polity_e2e::until;
use serde_json::json;

use crate::{
    fixtures::{PATIENCE, phase, settled},
    node::Node,
};

const KINDS: &str = "orgs.polity.dev,roles.polity.dev,policies.polity.dev,tools.polity.dev,agents.polity.dev";
const FINANCE: &str = "acme-finance";

/// Waits until every definition in these namespaces, and the Orgs of their names, are Ready.
pub async fn all_ready(node: &Node, namespaces: &[&str]) -> Result<()> {
    until(PATIENCE, "everything is Ready", || async {
        let list = node.get(&[KINDS, "--all-namespaces"]).map_err(|e| e.to_string())?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let of_these = |o: &&serde_json::Value| {
            let place = o["metadata"]["namespace"].as_str().or(o["metadata"]["name"].as_str()).unwrap_or_default();
            namespaces.contains(&place)
        };
        let unready: Vec<String> = items
            .iter()
            .filter(of_these)
            .filter_map(|o| {
                let list = o["status"]["conditions"].as_array().cloned().unwrap_or_default();
                let ready = list.iter().find(|c| c["type"] == "Ready").cloned().unwrap_or_default();
                let good = ready["status"] == "True" && o["status"]["observedGeneration"] == o["metadata"]["generation"];
                (!good).then(|| format!("{} {}: {ready}", o["kind"], o["metadata"]["name"]))
            })
            .collect();
        if unready.is_empty() { Ok(()) } else { Err(unready.join("\n")) }
    })
    .await
}

/// The log of the agent's one worker.
pub async fn log(node: &Node, namespace: &str, agent: &str) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(node.cluster.admin().await?, namespace);
    let list = pods.list(&ListParams::default().labels(&format!("polity.dev/kind=Agent,polity.dev/name={agent}"))).await?;
    let pod = list.items.first().with_context(|| format!("{agent} has no Pod"))?;
    Ok(pods.logs(&pod.name_any(), &kube::api::LogParams::default()).await?)
}

/// Waits until a line of the agent's log has all of these parts.
pub async fn says(node: &Node, namespace: &str, agent: &str, parts: &[&str]) -> Result<String> {
    until(PATIENCE, &format!("{agent} says {parts:?}"), || async {
        let log = log(node, namespace, agent).await.map_err(|e| e.to_string())?;
        let line = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
        line.map(str::to_owned).ok_or(log)
    })
    .await
}

pub async fn three_calls(node: &Node) -> Result<()> {
    node.acme()?;
    all_ready(node, &["acme", FINANCE, "acme-marketing", "acme-engineering"]).await?;
    let agent = "scripted-payer";
    says(node, FINANCE, agent, &["CALL 1 ", ": Succeeded", "20 USD to SUPPLIER-7"]).await?;
    let denied = ["CALL 2 ", ": Denied", "rule=acme/forbidden/no-sanctioned-accounts", "reason=PolicyDenied", "hint=\"Ask compliance"];
    says(node, FINANCE, agent, &denied).await?;
    says(node, FINANCE, agent, &["CALL 3 ", ": WaitingApproval"]).await?;
    let client = node.cluster.admin().await?;
    let approvals: Api<Approval> = Api::namespaced(client.clone(), FINANCE);
    let pending = until(PATIENCE, "the Approval", || async {
        let list = approvals.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let found = list.items.iter().find(|a| serde_json::to_value(&a.status).is_ok_and(|s| s["phase"] == "Pending"));
        found.map(ResourceExt::name_any).ok_or_else(|| format!("{} others", list.items.len()))
    })
    .await?;
    // An executive holds no Role that this Approval names.
    let carol = node.cli_as("carol@acme.example", &["approve", &pending, "--namespace", FINANCE]);
    ensure!(carol.is_err(), "a person without the Role approved: {carol:?}");
    node.cli_as("alice@acme.example", &["approve", &pending, "--namespace", FINANCE, "--reason", "The invoice is right."])?;
    says(node, FINANCE, agent, &["CALL 3 ", ": Succeeded", "200 USD to SUPPLIER-7"]).await?;
    let calls: Api<ToolCall> = Api::namespaced(client.clone(), FINANCE);
    let orgs: Api<polity_api::Org> = Api::all(client);
    let uid = orgs.get(FINANCE).await?.uid().context("uid")?;
    let call =
        calls.list(&ListParams::default()).await?.items.into_iter().find(|c| c.status.as_ref().is_some_and(|s| s.approval.is_some()));
    let call = call.context("no call with an Approval")?;
    ensure!(phase(&call) == Some(Phase::Succeeded), "{:?}", call.status);
    ensure!(call.spec.input == json!({"to": "SUPPLIER-7", "amount": 200, "currency": "USD", "method": "bank"}).as_object().cloned());
    settled(node, &uid, &call, "Done")?;
    says(node, "acme-engineering", "scripted-deployer", &["CALL 1 ", ": Succeeded", "shop 1.4.2 on staging"]).await?;
    polity_e2e::ledger::check(&node.data()?)?;
    Ok(())
}
