//! The life of an installation: tested, upgraded, removed and put back, while organisations stay.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use polity_api::toolcall::Phase;
use polity_e2e::{
    apply,
    cluster::{SYSTEM, repo},
    ledger, org_name,
};
use serde_json::Value;

use crate::{
    fixtures::{accepted, call, calls, done, expect, lines, organisation},
    node::Node,
};
use kube::ResourceExt as _;

const CHART: &str = "charts/polity";

fn helm(node: &Node, args: &[&str]) -> Result<String> {
    node.cluster.run("helm", &[args, &["--namespace", SYSTEM]].concat())
}

/// Uids and restarts of an Org's Pods.
fn pods(node: &Node, namespace: &str) -> Result<BTreeMap<String, u64>> {
    let list = node.get(&["pods", "--namespace", namespace, "--selector=polity.dev/kind=Agent"])?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let one = |pod: &Value| {
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default();
        pod["metadata"]["uid"].as_str().map(|uid| (uid.to_owned(), restarts))
    };
    Ok(items.iter().filter_map(one).collect())
}

pub async fn life(node: &mut Node) -> Result<()> {
    let node = &*node;
    let name = org_name("helm");
    let uid = organisation(node, &name).await?;
    let client = node.cluster.admin().await?;
    let bot = calls(node, &name).await?;
    let greet = call("greet", r#"{"name":"Ann"}"#)?;
    let agent = format!(
        "{{apiVersion: polity.dev/v1alpha1, kind: Agent, metadata: {{name: idler, namespace: {name}}}, spec: {{type: AI, image: 'docker.io/polity/polity:dev', command: [/polity-worker, scripted, --call, greet], replicas: 1}}}}"
    );
    apply(&client, &agent).await?;
    node.kubectl(&["wait", "--namespace", &name, "--for=condition=Ready", "--timeout=120s", "agents.polity.dev/idler"])?;
    let before = done(&bot, &client, &greet).await?;
    expect(&before, Phase::Succeeded, "")?;
    helm(node, &["test", "polity", "--timeout", "2m"])?;

    let chart = repo().join(CHART);
    let chart = chart.to_str().context("path")?;
    let workers = pods(node, &name)?;
    ensure!(workers.len() == 1, "{workers:?}");
    helm(node, &["upgrade", "polity", chart, "--reuse-values", "--set", "log=info\\,polity=debug", "--wait", "--timeout", "3m"])?;
    accepted(&bot, &greet).await?;
    expect(&done(&bot, &client, &greet).await?, Phase::Succeeded, "")?;

    let values = tempfile::NamedTempFile::new()?;
    std::fs::write(values.path(), helm(node, &["get", "values", "polity", "--output", "json"])?)?;
    helm(node, &["uninstall", "polity", "--wait", "--timeout", "2m"])?;
    let org = node.get(&["orgs.polity.dev", &name])?;
    ensure!(org["metadata"]["uid"] == uid.as_str() && org["metadata"]["deletionTimestamp"].is_null(), "{org}");
    let namespace = node.get(&["namespace", &name])?;
    ensure!(namespace["metadata"]["deletionTimestamp"].is_null(), "{namespace}");
    ensure!(node.get(&["crds"])?["items"].as_array().is_some_and(|l| l.iter().any(|c| c["metadata"]["name"] == "toolcalls.polity.dev")));
    ensure!(pods(node, &name)? == workers, "workers changed without Polity");

    let values = values.path().to_str().context("path")?.to_owned();
    helm(node, &["install", "polity", chart, "--values", &values, "--wait", "--timeout", "3m"])?;
    accepted(&bot, &greet).await?;
    let after = done(&bot, &client, &greet).await?;
    expect(&after, Phase::Succeeded, "")?;
    ensure!(pods(node, &name)? == workers, "workers were replaced or restarted");
    let seq = |action: &str| -> Result<u64> {
        let lines = lines(node, &uid, action)?;
        lines.first().and_then(|l| l["seq"].as_u64()).with_context(|| format!("no record of {action}"))
    };
    let (old, new) = (seq(&before.uid().context("uid")?)?, seq(&after.uid().context("uid")?)?);
    ensure!(old < new, "the chain does not go on: {old}, {new}");
    ledger::check(&node.data()?)?;
    helm(node, &["test", "polity", "--timeout", "2m"]).map(|_| ())
}
