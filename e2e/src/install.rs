//! Installs the chart's objects on a control plane that has no node: everything but the workloads, whose parts run on the host.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;

use crate::{
    cluster::{Cluster, SYSTEM, repo},
    manifests, wait,
};

/// Kinds that need a node.
const WORKLOADS: [&str; 3] = ["StatefulSet", "Deployment", "Pod"];

/// Renders the chart for an edge at `webhook` and applies it. CRDs first, then waits until they are served.
///
/// # Errors
/// Helm or the API server refuses something.
pub async fn chart(cluster: &Cluster, webhook: &str) -> Result<()> {
    let client = cluster.admin().await?;
    let chart = repo().join("charts/polity");
    let url = format!("webhook.url={webhook}");
    let rendered = cluster.run(
        "helm",
        &[
            "template",
            "polity",
            path(&chart)?,
            "--namespace",
            SYSTEM,
            "--set",
            &url,
            "--set",
            "clusterCIDRs={10.213.0.0/16,10.214.0.0/16,10.215.0.0/16}",
        ],
    )?;
    let system = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {SYSTEM}}}}}");
    manifests::apply(&client, &system).await?;
    let (crds, rest): (Vec<_>, Vec<_>) =
        manifests::documents(&rendered)?.into_iter().partition(|d| d["kind"] == "CustomResourceDefinition");
    let names: BTreeSet<String> = crds.iter().filter_map(|d| d["metadata"]["name"].as_str().map(str::to_owned)).collect();
    for crd in crds {
        manifests::apply(&client, &crd.to_string()).await?;
    }
    for name in names {
        cluster.run("kubectl", &["wait", "--for=condition=Established", "--timeout=30s", &format!("crd/{name}")])?;
    }
    counted(cluster).await?;
    for document in rest {
        let kind = document["kind"].as_str().unwrap_or_default();
        let hook = document["metadata"]["annotations"]["helm.sh/hook"].is_string();
        if !WORKLOADS.contains(&kind) && !hook {
            manifests::apply(&client, &document.to_string()).await.with_context(|| format!("{kind} {}", document["metadata"]["name"]))?;
        }
    }
    Ok(())
}

/// Waits until Kubernetes counts ToolCalls: its quota controller learns of new kinds up to 30 s after they are installed. Core copes by itself, but
/// would make the first tests wait.
async fn counted(cluster: &Cluster) -> Result<()> {
    let client = cluster.admin().await?;
    let namespace = "polity-e2e-quota";
    let made = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}");
    manifests::apply(&client, &made).await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), namespace);
    let mut turn = 0;
    wait::until(Duration::from_secs(120), "Kubernetes counts ToolCalls", || {
        turn += 1;
        let (quotas, client) = (quotas.clone(), client.clone());
        async move {
            // It looks once at a quota that it has not seen: a new one every second.
            let name = format!("probe-{}", turn / 20);
            let quota = format!(
                "{{apiVersion: v1, kind: ResourceQuota, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{hard: {{count/toolcalls.polity.dev: \"1\"}}}}}}"
            );
            if turn % 20 == 1 {
                manifests::apply(&client, &quota).await.map_err(|e| e.to_string())?;
            }
            let used = quotas.get_opt(&name).await.map_err(|e| e.to_string())?.and_then(|q| q.status).and_then(|s| s.used).unwrap_or_default();
            if used.contains_key("count/toolcalls.polity.dev") { Ok(()) } else { Err("not yet".to_owned()) }
        }
    })
    .await
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("the repository's path is not UTF-8")
}
