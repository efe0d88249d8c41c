//! Parts die while calls run: what was accepted ends truthfully, what was refused passes when tried again.

use std::{cell::Cell, time::Duration};

use anyhow::{Context, Result, ensure};
use kube::{Api, ResourceExt, api::PostParams};
use polity_api::{ToolCall, toolcall::Phase};
use polity_e2e::{apply, cluster::SYSTEM, ledger, org_name, until};

use crate::{
    acme,
    fixtures::{PATIENCE, call, calls, ended, expect, organisation, settled},
    node::{Node, process},
};

/// Creates a call, trying again while it is refused; says how often it was.
async fn insist(api: &Api<ToolCall>, call: &ToolCall) -> Result<(ToolCall, usize)> {
    let refused = Cell::new(0);
    let made = until(Duration::from_secs(60), "a call is accepted when tried again", || async {
        api.create(&PostParams::default(), call).await.map_err(|e| {
            refused.set(refused.get() + 1);
            e.to_string()
        })
    })
    .await?;
    Ok((made, refused.get()))
}

/// A number below `limit`, another in each run.
fn chance(limit: u8) -> usize {
    usize::from(uuid::Uuid::new_v4().as_bytes()[0] % limit)
}

/// Ends core's process on this machine as a crash would, by its own pid.
fn crash(node: &Node) -> Result<()> {
    let pod = node.get(&["pod", "polity-core-0", "--namespace", SYSTEM])?;
    let uid = pod["metadata"]["uid"].as_str().context("uid of core's Pod")?;
    let pid = process(uid, "/polity\0")?.with_context(|| format!("no process of core's Pod {uid}"))?;
    let killed = std::process::Command::new("kill").args(["-9", &pid]).status()?;
    ensure!(killed.success(), "kill -9 {pid}");
    Ok(())
}

async fn core_is_back(node: &Node) -> Result<()> {
    until(PATIENCE, "core is ready again", || async {
        let pod = node.get(&["pod", "polity-core-0", "--namespace", SYSTEM]).map_err(|e| e.to_string())?;
        let list = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True") && pod["metadata"]["deletionTimestamp"].is_null();
        if ready { Ok(()) } else { Err(pod["status"].to_string()) }
    })
    .await
}

/// How many calls the agent beside the bot makes.
const AGENTS_CALLS: usize = 10;

/// An agent whose Pod makes calls through the gateway, one after the other.
async fn agent(node: &Node, name: &str) -> Result<()> {
    let call = r#"--call, 'greet {"name":"Bob"}'"#;
    let script = [call; AGENTS_CALLS].join(", ");
    let yaml = format!(
        "
apiVersion: polity.dev/v1alpha1
kind: Agent
metadata: {{name: robot, namespace: {name}}}
spec:
  type: AI
  image: docker.io/polity/polity:dev
  command: [/polity-worker, scripted, {script}]
  replicas: 1
---
apiVersion: polity.dev/v1alpha1
kind: Role
metadata: {{name: caller, namespace: {name}}}
spec:
  grants: [{{tools: ['*']}}]
  assignment: {{agents: [bot, robot]}}
"
    );
    apply(&node.cluster.admin().await?, &yaml).await.map(|_| ())
}

pub async fn core_is_killed(node: &mut Node) -> Result<()> {
    let node = &*node;
    let name = org_name("killed");
    let uid = organisation(node, &name).await?;
    let (bot, client) = (calls(node, &name).await?, node.cluster.admin().await?);
    agent(node, &name).await?;
    acme::says(node, &name, "robot", &["CALL 1 "]).await?;
    let mut made = Vec::new();
    for round in 0..3 {
        let at = chance(5);
        for index in 0..6 {
            made.push(insist(&bot, &call("greet", r#"{"name":"Ann"}"#)?).await?.0);
            if index == at {
                // Waits a little, by chance, for one of the calls before: then some run, some begin, some end.
                let earlier = &made[made.len() - 1 - chance(u8::try_from(at + 1)?)];
                until(PATIENCE, "a call has begun", || async {
                    let now =
                        Api::<ToolCall>::namespaced(client.clone(), &name).get(&earlier.name_any()).await.map_err(|e| e.to_string())?;
                    now.status.and_then(|s| s.phase).filter(|p| *p != Phase::Pending).map(|_| ()).ok_or_else(|| "Pending".to_owned())
                })
                .await?;
                if round == 1 {
                    node.kubectl(&["delete", "pod", "polity-core-0", "--namespace", SYSTEM, "--grace-period=0", "--force"])?;
                } else {
                    crash(node)?;
                }
            }
        }
        core_is_back(node).await?;
    }
    for call in &made {
        let call = ended(&client, &name, &call.name_any()).await?;
        expect(&call, Phase::Succeeded, "")?;
        settled(node, &uid, &call, "Done")?;
    }
    for number in 1..=AGENTS_CALLS {
        acme::says(node, &name, "robot", &[&format!("CALL {number} "), ": Succeeded", "Hello, Bob!"]).await?;
    }
    let data = node.data()?;
    ledger::check(&data)?;
    let begun = ledger::records(&data, &uid)?.iter().filter(|r| r.to_line().contains(r#""kind":"begin""#)).count();
    ensure!(begun == made.len() + AGENTS_CALLS, "{begun} calls began, {} were made", made.len() + AGENTS_CALLS);
    Ok(())
}

pub async fn edge_goes(node: &mut Node) -> Result<()> {
    let node = &*node;
    let name = org_name("edge");
    let uid = organisation(node, &name).await?;
    let (bot, client) = (calls(node, &name).await?, node.cluster.admin().await?);
    let mut made = Vec::new();
    for index in 0..10 {
        if index == 2 || index == 6 {
            let pods = node.get(&["pods", "--namespace", SYSTEM, "--selector=app.kubernetes.io/component=edge"])?;
            // Not the one that went before and may still be on its way.
            let stays = |pod: &&serde_json::Value| pod["metadata"]["deletionTimestamp"].is_null();
            let pod = pods["items"].as_array().and_then(|list| list.iter().find(stays)).context("no edge")?;
            let pod = pod["metadata"]["name"].as_str().context("its name")?.to_owned();
            node.kubectl(&["delete", "pod", &pod, "--namespace", SYSTEM, "--wait=false"])?;
        }
        let (call, refused) = insist(&bot, &call("greet", r#"{"name":"Ann"}"#)?).await?;
        if refused > 0 {
            println!("mended by trying again {refused} times");
        }
        made.push(call);
    }
    for call in &made {
        let call = ended(&client, &name, &call.name_any()).await?;
        expect(&call, Phase::Succeeded, "")?;
        settled(node, &uid, &call, "Done")?;
    }
    node.kubectl(&["rollout", "status", "deployment/polity-edge", "--namespace", SYSTEM, "--timeout=120s"]).map(|_| ())
}
