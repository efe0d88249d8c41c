//! Tools of runtime http: a Service of the Tool's own namespace is reached, also after people allowed it and when the edge dies in the middle;
//! other addresses of the cluster are not reached.

use anyhow::{Context, Result, ensure};
use kube::{Api, ResourceExt, api::PostParams};
use polity_api::{ToolCall, toolcall::Phase};
use polity_e2e::{apply, apply_as, cluster::SYSTEM, org_name, until};

use crate::{
    acme,
    fixtures::{PATIENCE, accepted, call, calls, done, ended, expect, lines, organisation, phase, settled},
    node::{Node, process},
};

/// A mail service (a scripted stand-in) that takes `delay_ms` for each receipt, and two Tools that use it: only `mail-again` may be repeated.
/// What goes to more than one recipient, `boss@NAME` must allow.
async fn mail(node: &Node, name: &str, delay_ms: u32) -> Result<()> {
    let tool = |tool: &str, idempotent: bool| {
        format!(
            "
apiVersion: polity.dev/v1alpha1
kind: Tool
metadata: {{name: {tool}, namespace: {name}}}
spec:
  idempotent: {idempotent}
  timeoutSeconds: 20
  inputSchema:
    type: object
    required: [recipients, subject]
    properties: {{recipients: {{type: array, items: {{type: string}}}}, subject: {{type: string}}}}
  runtime: {{http: {{service: {{name: mailer, port: 8080, path: /send}}}}}}
---"
        )
    };
    let yaml = format!(
        "
{}
{}
apiVersion: polity.dev/v1alpha1
kind: Agent
metadata: {{name: boss, namespace: {name}}}
spec: {{type: Human, usernames: [boss@{name}]}}
---
apiVersion: polity.dev/v1alpha1
kind: Role
metadata: {{name: boss, namespace: {name}}}
spec: {{assignment: {{agents: [boss]}}}}
---
apiVersion: polity.dev/v1alpha1
kind: Policy
metadata: {{name: mail, namespace: {name}}}
spec:
  match: {{tools: [mail]}}
  rules:
    - {{name: many, expression: size(args.recipients) <= 1, effect: RequireApproval, approval: {{role: {{name: boss}}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: mailer, namespace: {name}}}
spec:
  selector: {{matchLabels: {{app: mailer}}}}
  template:
    metadata: {{labels: {{app: mailer}}}}
    spec:
      automountServiceAccountToken: false
      securityContext: {{runAsNonRoot: true, runAsUser: 65532, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
        - name: mailer
          image: docker.io/polity/polity:dev
          command: [/polity-worker, mailer, --delay-ms, '{delay_ms}']
          resources: {{requests: {{cpu: 10m, memory: 16Mi}}, limits: {{cpu: 100m, memory: 32Mi}}}}
          securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: mailer, namespace: {name}}}
spec: {{selector: {{app: mailer}}, ports: [{{port: 8080}}]}}
",
        tool("mail", false),
        tool("mail-again", true)
    );
    let members = serde_json::json!({"spec": {"members": [
        {"kind": "User", "name": format!("bot@{name}"), "role": "engineer"}, {"kind": "User", "name": format!("boss@{name}"), "role": "approver"},
    ]}});
    node.kubectl(&["patch", "orgs.polity.dev", name, "--type=merge", "--patch", &members.to_string()])?;
    apply(&node.cluster.admin().await?, &yaml).await?;
    node.kubectl(&["wait", "--namespace", name, "--for=condition=Available", "--timeout=120s", "deployment/mailer"])?;
    // The node's rules for the Service may come a moment after its Pod; till then a call fails, and says so.
    let (bot, client) = (calls(node, name).await?, node.cluster.admin().await?);
    let probe = call("mail-again", r#"{"recipients":[],"subject":"probe"}"#)?;
    until(PATIENCE, "the mail service is reached", || async {
        let ended = done(&bot, &client, &probe).await.map_err(|e| e.to_string())?;
        expect(&ended, Phase::Succeeded, "").map(|_| ()).map_err(|e| e.to_string())
    })
    .await
}

/// How often the mail service was asked to send this.
fn received(node: &Node, name: &str, subject: &str) -> Result<usize> {
    let log = node.kubectl(&["logs", "--namespace", name, "deployment/mailer"])?;
    Ok(log.lines().filter(|line| *line == format!("received {subject}")).count())
}

pub async fn runs_once_allowed(node: &Node) -> Result<()> {
    let name = org_name("allowed");
    let uid = organisation(node, &name).await?;
    mail(node, &name, 0).await?;
    let (bot, client) = (calls(node, &name).await?, node.cluster.admin().await?);
    let many = call("mail", r#"{"recipients":["a@x.example","b@x.example"],"subject":"many"}"#)?;
    accepted(&bot, &many).await?;
    let made = bot.create(&PostParams::default(), &many).await?.name_any();
    let approval = until(PATIENCE, "the call waits for an approval", || async {
        let now = bot.get(&made).await.map_err(|e| e.to_string())?;
        let waits = phase(&now) == Some(Phase::WaitingApproval);
        let approval = now.status.and_then(|s| s.approval).filter(|_| waits);
        approval.ok_or_else(|| "no approval yet".to_owned())
    })
    .await?;
    ensure!(received(node, &name, "many")? == 0, "sent before it was allowed");
    until(PATIENCE, "the boss may approve", || async {
        node.cli_as(&format!("boss@{name}"), &["approve", &approval, "--namespace", &name]).map_err(|e| e.to_string())
    })
    .await?;
    let call = ended(&client, &name, &made).await?;
    let status = expect(&call, Phase::Succeeded, "")?;
    ensure!(status["result"]["output"]["accepted"] == 2, "{status}");
    settled(node, &uid, &call, "Done")?;
    ensure!(received(node, &name, "many")? == 1, "sent more than once");
    Ok(())
}

/// Ends every edge's process on this machine as a crash would, each by its own pid.
fn crash_edges(node: &Node) -> Result<()> {
    let pods = node.get(&["pods", "--namespace", SYSTEM, "--selector=app.kubernetes.io/component=edge"])?;
    let mut killed = 0;
    for pod in pods["items"].as_array().context("edges")? {
        let uid = pod["metadata"]["uid"].as_str().context("uid of an edge's Pod")?;
        // One that is still starting, or is only left as an object after another test's roll-out, has no process and runs no call.
        let Some(pid) = process(uid, "/polity\0")? else { continue };
        ensure!(std::process::Command::new("kill").args(["-9", &pid]).status()?.success(), "kill -9 {pid}");
        killed += 1;
    }
    ensure!(killed > 0, "no edge has a process");
    Ok(())
}

/// The edges die while a request of theirs is under way: it is never made twice unless the Tool says that it may be, and nobody is told that it
/// was not made.
pub async fn edges_die_in_the_middle(node: &mut Node) -> Result<()> {
    let node = &*node;
    let name = org_name("midway");
    let uid = organisation(node, &name).await?;
    mail(node, &name, 6000).await?;
    let (bot, client) = (calls(node, &name).await?, node.cluster.admin().await?);
    let mut made = Vec::new();
    for tool in ["mail", "mail-again"] {
        let one = call(tool, &format!(r#"{{"recipients":["a@x.example"],"subject":"{tool}"}}"#))?;
        accepted(&bot, &one).await?;
        made.push(bot.create(&PostParams::default(), &one).await?.name_any());
    }
    until(PATIENCE, "both are under way", || async {
        let count = |subject: &str| received(node, &name, subject).map_err(|e| e.to_string());
        if count("mail")? > 0 && count("mail-again")? > 0 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await?;
    crash_edges(node)?;
    let once = ended(&client, &name, &made[0]).await?;
    expect(&once, Phase::Unknown, "")?;
    settled(node, &uid, &once, "Unknown")?;
    ensure!(received(node, &name, "mail")? == 1, "sent again, although nobody knows whether it was sent");
    let again = ended(&client, &name, &made[1]).await?;
    expect(&again, Phase::Succeeded, "")?;
    let records = lines(node, &uid, &again.uid().context("uid")?)?;
    let done = records.iter().filter(|r| r["kind"] == "settle" && r["outcome"] == "Done").count();
    ensure!(done == 1, "{done} settlements say Done: {records:?}");
    node.kubectl(&["rollout", "status", "deployment/polity-edge", "--namespace", SYSTEM, "--timeout=120s"]).map(|_| ())
}

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
