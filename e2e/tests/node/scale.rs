//! Workers of an AI agent: as many as are wanted, back when lost, none while the Org is suspended.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use polity_e2e::{apply, org_name, until};

use crate::{
    fixtures::{PATIENCE, organisation},
    node::Node,
};

/// Adds an agent with this many workers, which call nothing that could fail.
async fn agent(node: &Node, name: &str, replicas: u32) -> Result<Api<Pod>> {
    let client = node.cluster.admin().await?;
    let yaml = format!(
        "
apiVersion: polity.dev/v1alpha1
kind: Agent
metadata: {{name: idler, namespace: {name}}}
spec:
  type: AI
  image: docker.io/polity/polity:dev
  command: [/polity-worker, scripted, --call, 'greet {{\"name\":\"idler\"}}']
  resources: {{requests: {{cpu: 5m, memory: 16Mi}}, limits: {{cpu: 200m, memory: 64Mi}}}}
  replicas: {replicas}
"
    );
    apply(&client, &yaml).await?;
    Ok(Api::namespaced(client, name))
}

/// Waits until exactly so many workers are there and ready, and the agent's status says so; returns their uids.
async fn workers(node: &Node, name: &str, pods: &Api<Pod>, wanted: usize) -> Result<Vec<String>> {
    let labels = ListParams::default().labels("polity.dev/kind=Agent,polity.dev/name=idler");
    until(PATIENCE, &format!("{wanted} workers"), || async {
        let list = pods.list(&labels).await.map_err(|e| e.to_string())?.items;
        let ready = |p: &Pod| {
            let conditions = p.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
            p.metadata.deletion_timestamp.is_none() && conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
        };
        let status = node.get(&["agents.polity.dev", "idler", "--namespace", name]).map_err(|e| e.to_string())?["status"].clone();
        let told = status["readyReplicas"].as_u64().unwrap_or_default() == wanted as u64;
        if list.len() == wanted && list.iter().all(ready) && told {
            Ok(list.iter().filter_map(ResourceExt::uid).collect())
        } else {
            Err(format!("{} Pods, {status}", list.len()))
        }
    })
    .await
}

pub async fn workers_follow(node: &Node) -> Result<()> {
    let name = org_name("scale");
    organisation(node, &name).await?;
    let pods = agent(node, &name, 1).await?;
    let first = workers(node, &name, &pods, 1).await?;
    let scale = |n: u32| node.kubectl(&["scale", "agents.polity.dev/idler", "--namespace", &name, &format!("--replicas={n}")]);
    scale(3)?;
    let three = workers(node, &name, &pods, 3).await?;
    ensure!(first.iter().all(|uid| three.contains(uid)), "a worker was replaced: {first:?} {three:?}");
    let gone =
        pods.list(&ListParams::default().labels("polity.dev/name=idler")).await?.items.first().map(ResourceExt::name_any).context("Pod")?;
    pods.delete(&gone, &DeleteParams::default()).await?;
    let again = until(PATIENCE, "a new worker", || async {
        let now = workers(node, &name, &pods, 3).await.map_err(|e| e.to_string())?;
        if now == three { Err("still the same".to_owned()) } else { Ok(now) }
    })
    .await?;
    ensure!(again.iter().filter(|uid| three.contains(uid)).count() == 2, "more than one was replaced: {three:?} {again:?}");
    scale(0)?;
    workers(node, &name, &pods, 0).await?;
    scale(1)?;
    workers(node, &name, &pods, 1).await.map(|_| ())
}

pub async fn suspended_org_has_no_workers(node: &Node) -> Result<()> {
    let name = org_name("suspend");
    organisation(node, &name).await?;
    let pods = agent(node, &name, 2).await?;
    workers(node, &name, &pods, 2).await?;
    let suspend =
        |on: bool| node.kubectl(&["patch", "orgs.polity.dev", &name, "--type=merge", "-p", &format!(r#"{{"spec":{{"suspend":{on}}}}}"#)]);
    suspend(true)?;
    workers(node, &name, &pods, 0).await?;
    suspend(false)?;
    workers(node, &name, &pods, 2).await.map(|_| ())
}
