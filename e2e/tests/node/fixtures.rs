//! An organisation whose tools behave and misbehave, calls of them, and what became of the calls.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use polity_api::{
    ToolCall, ToolCallSpec,
    toolcall::{Phase, ToolRef},
};
use polity_e2e::{apply, ledger, until};
use serde_json::Value;

use crate::node::Node;

/// How long something that starts Pods may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A container tool of this image that stands in as `stand_in`.
pub fn tool(namespace: &str, name: &str, stand_in: &str, more: &str) -> String {
    format!(
        "
apiVersion: polity.dev/v1alpha1
kind: Tool
metadata: {{name: {name}, namespace: {namespace}}}
spec:
{more}
  runtime:
    container:
      image: docker.io/polity/polity:dev
      command: [/polity-worker, tool, {stand_in}]
      resources: {{requests: {{cpu: 5m, memory: 16Mi}}, limits: {{cpu: 500m, memory: 64Mi}}}}
"
    )
}

/// Makes the Org `name`, whose `bot@NAME` may call every tool. Returns its uid.
pub async fn organisation(node: &Node, name: &str) -> Result<String> {
    let client = node.cluster.admin().await?;
    let yaml = format!(
        "
apiVersion: v1
kind: Namespace
metadata:
  name: {name}
  labels: {{polity.dev/org: {name}, pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: polity.dev/v1alpha1
kind: Org
metadata: {{name: {name}}}
spec:
  members: [{{kind: User, name: bot@{name}, role: engineer}}]
---
apiVersion: polity.dev/v1alpha1
kind: Agent
metadata: {{name: bot, namespace: {name}}}
spec: {{type: System, usernames: [bot@{name}]}}
---
apiVersion: polity.dev/v1alpha1
kind: Role
metadata: {{name: caller, namespace: {name}}}
spec:
  grants: [{{tools: ['*']}}]
  assignment: {{agents: [bot]}}
---
{}",
        tool(name, "greet", "greet", "  timeoutSeconds: 60")
    );
    apply(&client, &yaml).await?;
    let first = call("greet", r#"{"name":"nobody"}"#)?;
    let bot = calls(node, name).await?;
    until(PATIENCE, "the Org takes calls", || async {
        bot.create(&PostParams { dry_run: true, ..PostParams::default() }, &first).await.map(|_| ()).map_err(|e| e.to_string())
    })
    .await?;
    let orgs: Api<polity_api::Org> = Api::all(client);
    orgs.get(name).await?.uid().context("uid of the Org")
}

/// Calls as the fixture's `bot` makes them.
pub async fn calls(node: &Node, namespace: &str) -> Result<Api<ToolCall>> {
    Ok(Api::namespaced(node.cluster.user(&format!("bot@{namespace}"), &[]).await?, namespace))
}

/// A call.
pub fn call(tool: &str, input: &str) -> Result<ToolCall> {
    Ok(ToolCall {
        metadata: ObjectMeta { generate_name: Some(format!("{tool}-")), ..ObjectMeta::default() },
        spec: ToolCallSpec {
            tool: ToolRef { name: tool.to_owned(), org: None },
            input: serde_json::from_str(input).context("input")?,
            ttl_seconds_after_finished: 3600,
            ..ToolCallSpec::default()
        },
        status: None,
    })
}

/// Applies a tool and waits until core has seen it and the edge would accept a call of it.
pub async fn takes(node: &Node, namespace: &str, yaml: &str, probe: &ToolCall) -> Result<()> {
    apply(&node.cluster.admin().await?, yaml).await?;
    node.kubectl(&["wait", "--namespace", namespace, "--for=condition=Ready", "--timeout=60s", "tools.polity.dev", "--all"])?;
    accepted(&calls(node, namespace).await?, probe).await
}

/// Waits until a call would be accepted.
pub async fn accepted(api: &Api<ToolCall>, probe: &ToolCall) -> Result<()> {
    until(PATIENCE, "the call would be accepted", || async {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        api.create(&dry, probe).await.map(|_| ()).map_err(|e| e.to_string())
    })
    .await
}

/// Creates a call and waits for its end.
pub async fn done(api: &Api<ToolCall>, client: &Client, call: &ToolCall) -> Result<ToolCall> {
    let made = api.create(&PostParams::default(), call).await?;
    ended(client, &made.namespace().context("namespace")?, &made.name_any()).await
}

/// Waits until nothing more becomes of a call by itself.
pub async fn ended(client: &Client, namespace: &str, name: &str) -> Result<ToolCall> {
    let api: Api<ToolCall> = Api::namespaced(client.clone(), namespace);
    until(PATIENCE, &format!("the end of call {name}"), || async {
        let call = api.get(name).await.map_err(|e| e.to_string())?;
        let over = phase(&call).is_some_and(|p| p.ended() || p == Phase::Unknown);
        if over { Ok(call) } else { Err(serde_json::to_string(&call.status).unwrap_or_default()) }
    })
    .await
}

pub fn phase(call: &ToolCall) -> Option<Phase> {
    call.status.as_ref().and_then(|s| s.phase)
}

/// Fails unless the call ended so; returns status as JSON.
pub fn expect(call: &ToolCall, wanted: Phase, reason: &str) -> Result<Value> {
    let status = serde_json::to_value(&call.status)?;
    let list = status["conditions"].as_array().cloned().unwrap_or_default();
    let said = list.iter().find(|c| c["type"] == "Succeeded").and_then(|c| c["reason"].as_str()).unwrap_or_default().to_owned();
    ensure!(phase(call) == Some(wanted) && (reason.is_empty() || said == reason), "not {wanted:?}/{reason}: {status}");
    Ok(status)
}

/// Lines of the ledger about one action.
pub fn lines(node: &Node, org_uid: &str, action: &str) -> Result<Vec<Value>> {
    let lines: Vec<Value> =
        ledger::records(&node.data()?, org_uid)?.iter().map(|r| serde_json::from_str(&r.to_line())).collect::<Result<_, _>>()?;
    Ok(lines.into_iter().filter(|l| l["action"] == action).collect())
}

/// Fails unless the ledger has exactly one begin and one settlement of the call, with this outcome.
pub fn settled(node: &Node, org_uid: &str, call: &ToolCall, outcome: &str) -> Result<()> {
    let lines = lines(node, org_uid, &call.uid().context("uid")?)?;
    let kinds: Vec<&str> = lines.iter().filter_map(|l| l["kind"].as_str()).filter(|k| ["begin", "settle"].contains(k)).collect();
    let last = lines.iter().rfind(|l| l["kind"] == "settle").cloned().unwrap_or_default();
    ensure!(kinds == ["begin", "settle"] && last["outcome"] == outcome, "not begun and settled {outcome}: {lines:?}");
    Ok(())
}
