//! Tools of runtime http: a Service of the Tool's own namespace is reached, other addresses of the cluster are not.

use anyhow::{Context, Result, ensure};
use kube::Api;
use polity_api::{ToolCall, toolcall::Phase};
use polity_e2e::{apply_as, org_name, until};

use crate::{
    acme,
    fixtures::{PATIENCE, accepted, call, calls, done, expect, organisation, settled},
    node::Node,
};

pub async fn own_service(node: &Node) -> Result<()> {
    node.acme()?;
    let marketing = "acme-marketing";
    acme::all_ready(node, &["acme", marketing]).await?;
    node.kubectl(&["wait", "--namespace", marketing, "--for=condition=Available", "--timeout=120s", "deployment/mailer"])?;
    let erin: Api<ToolCall> = Api::namespaced(node.cluster.user("erin@acme.example", &[]).await?, marketing);
    let mail = call("email-send", r#"{"recipients":["a@example.com","b@example.com"],"subject":"Hello"}"#)?;
    accepted(&erin, &mail).await?;
    // The node's rules for the Service may come a moment after its Pod; till then a call fails, and says so.
    let client = node.cluster.admin().await?;
    let status = until(PATIENCE, "mail is sent", || async {
        let ended = done(&erin, &client, &mail).await.map_err(|e| e.to_string())?;
        expect(&ended, Phase::Succeeded, "").map_err(|e| e.to_string())
    })
    .await?;
    ensure!(status["result"]["output"]["accepted"] == 2, "{status}");
    Ok(())
}

pub async fn cluster_addresses_are_refused(node: &Node) -> Result<()> {
    let name = org_name("egress");
    let uid = organisation(node, &name).await?;
    let client = node.cluster.admin().await?;
    let nodes = node.get(&["nodes"])?;
    let address = nodes["items"][0]["status"]["addresses"][0]["address"].as_str().context("the node has no address")?;
    let services = node.get(&["service", "kubernetes", "--namespace", "default"])?;
    let service = services["spec"]["clusterIP"].as_str().context("clusterIP")?;
    let pods = node.get(&["pods", "--namespace", "polity-system"])?;
    let pod = pods["items"][0]["status"]["podIP"].as_str().context("podIP")?;
    let urls = [
        ("at-node", format!("https://{address}:10250/pods")),
        ("at-service", format!("https://{service}/version")),
        ("at-name", "https://polity-edge.polity-system.svc.cluster.local/".to_owned()),
        ("at-pod", format!("http://{pod}:8080/readyz")),
    ];
    for (tool, url) in urls {
        let yaml = format!(
            "{{apiVersion: polity.dev/v1alpha1, kind: Tool, metadata: {{name: {tool}, namespace: {name}}}, spec: {{runtime: {{http: {{url: '{url}', method: GET}}}}}}}}"
        );
        if let Err(refused) = apply_as(&client, &yaml).await? {
            ensure!(refused.to_string().contains("EgressRefused"), "{url}: {refused}");
            continue;
        }
        let get = call(tool, "{}")?;
        let bot = calls(node, &name).await?;
        accepted(&bot, &get).await?;
        let ended = done(&bot, &client, &get).await?;
        expect(&ended, Phase::Failed, "EgressRefused").with_context(|| url)?;
        settled(node, &uid, &ended, "NotDone")?;
    }
    Ok(())
}
