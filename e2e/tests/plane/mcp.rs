//! An Org's MCP server as others' clients see it: the official ones of two languages, and the official conformance suite.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, ResourceExt, api::ListParams};
use polity_e2e::{clients, org_name, parts::Polity, shim, until};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    fixtures::{self, SOON},
    help::{self, Robot},
};

/// How long a client may take for all that it does.
const PATIENCE: Duration = Duration::from_secs(240);

/// What a worker Pod finds in its environment.
async fn as_worker(polity: &Polity, org: &str, robot: &Robot, command: &mut Command) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(polity.cluster.admin().await?, org);
    let map = maps.get("polity-ca").await?;
    let pem = map.data.as_ref().and_then(|d| d.get("ca.crt")).context("ca.crt in ConfigMap polity-ca")?;
    let ca: PathBuf = polity.dir.join(format!("{org}-ca.crt"));
    std::fs::write(&ca, pem)?;
    command
        .env("POLITY_URL", format!("{}/v1/orgs/{org}", polity.gateway().replace("127.0.0.1", "localhost")))
        .env("POLITY_TOKEN", &robot.token)
        .env("POLITY_CA_FILE", &ca)
        .env("NODE_EXTRA_CA_CERTS", &ca);
    Ok(())
}

/// Plays the Pod of every call of an Org, until dropped. Never ends by itself but with an error.
async fn play_all(polity: &Polity, org: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(polity.cluster.admin().await?, org);
    let calls = ListParams::default().labels("polity.dev/kind=ToolCall");
    let mut played = BTreeSet::new();
    loop {
        // Whoever waits for a call gives up earlier than this.
        let id = until(PATIENCE * 2, "a call has a Pod", || async {
            let list = pods.list(&calls).await.map_err(|e| e.to_string())?;
            let mut ids = list.iter().filter_map(|pod| pod.name_any().strip_prefix("call-").map(str::to_owned));
            ids.find(|id| !played.contains(id)).ok_or_else(|| "none is new".to_owned())
        })
        .await?;
        // What the Tool's command says is what it does.
        let pod = pods.get(&format!("call-{id}")).await?;
        let code = i32::from(serde_json::to_string(&pod.spec)?.contains("/fail"));
        shim::play(polity, org, &id, code, r#"{"receipt": "r-1"}"#).await?;
        played.insert(id);
    }
}

/// Runs a client while the Pods of its calls are played; gives what it printed.
async fn run(polity: &Polity, org: &str, robot: &Robot, mut command: Command) -> Result<String> {
    as_worker(polity, org, robot, &mut command).await?;
    let output = tokio::select! {
        output = clients::output(command, PATIENCE) => output?,
        played = play_all(polity, org) => return Err(played.err().context("playing Pods ended")?),
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
    ensure!(output.status.success(), "{}\n{out}\n{err}", output.status);
    Ok(out)
}

/// What every client must have been told, whoever wrote it.
fn judge(org: &str, told: &Value) -> Result<()> {
    ensure!(told["resources"] == json!([format!("polity://{org}/calls"), format!("polity://{org}/approvals")]), "{}", told["resources"]);
    let approvals = told["approvals"].as_array().map(Vec::as_slice).unwrap_or_default();
    let asked = |a: &Value| a["target"] == "pay" && a["requirements"][0]["message"] == "payments above 50 need a manager";
    ensure!(!approvals.is_empty() && approvals.iter().all(asked), "approvals: {}", told["approvals"]);
    ensure!(
        told["call"]["phase"] == "Succeeded" && told["call"]["result"]["output"] == json!({"receipt": "r-1"}),
        "call: {}",
        told["call"]
    );
    ensure!(told["tools"] == json!(["pay"]), "listed: {}", told["tools"]);
    ensure!(
        told["allowed"]["isError"] == false && told["allowed"]["structured"] == json!({"receipt": "r-1"}),
        "allowed: {}",
        told["allowed"]
    );
    let rule = format!("{org}/limits/not-mallory");
    for (what, parts) in [
        ("denied", vec!["PolicyDenied", rule.as_str(), "pay somebody else"]),
        ("invalid", vec!["InvalidArguments", "amount"]),
        ("waits", vec!["ApprovalRequired", "Approval call-", "Nothing has run"]),
    ] {
        let text = told[what]["text"].as_str().unwrap_or_default();
        ensure!(told[what]["isError"] == true, "{what}: {}", told[what]);
        for part in parts {
            ensure!(text.contains(part), "{what} does not say {part:?}: {text}");
        }
    }
    ensure!(told["unknown"]["protocolError"] == -32602, "unknown: {}", told["unknown"]);
    Ok(())
}

/// What an agent of a framework, its model scripted, must have gone through: it is denied, reads why, and its second call runs.
fn framework(told: &Value) -> Result<()> {
    ensure!(told["tools"] == json!(["pay"]), "{told}");
    let (denied, allowed) = (told["given"][0].as_str().unwrap_or_default(), told["given"][1].as_str().unwrap_or_default());
    ensure!(denied.contains("PolicyDenied") && denied.contains("pay somebody else") && allowed.contains("r-1"), "{told}");
    Ok(())
}

/// The official Python and TypeScript clients, given what a worker Pod has, see what the agent may call and are answered as any agent is.
pub async fn official_clients_work_unchanged(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("clients");
    let uid = fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;

    let (python, modules) = tokio::task::spawn_blocking(|| anyhow::Ok((clients::python()?, clients::typescript()?))).await??;
    let mut command = Command::new(&python);
    command.arg(clients::scripts().join("python/client.py"));
    let told: Value = serde_json::from_str(&run(polity, &org, &robot, command).await.context("Python")?)?;
    for (mode, version) in [("legacy", "2025-11-25"), ("auto", "2026-07-28")] {
        ensure!(told[mode]["version"] == version, "{mode}: {}", told[mode]["version"]);
        judge(&org, &told[mode]).with_context(|| format!("Python, {mode}"))?;
    }
    let mut command = Command::new(&python);
    command.arg(clients::scripts().join("python/agent.py"));
    let told: Value = serde_json::from_str(&run(polity, &org, &robot, command).await.context("Pydantic AI")?)?;
    framework(&told).context("Pydantic AI")?;

    let mut command = Command::new(clients::node(&modules)?);
    command.arg(clients::scripts().join("typescript/client.mjs")).env("POLITY_MODULES", &modules);
    let told: Value = serde_json::from_str(&run(polity, &org, &robot, command).await.context("TypeScript")?)?;
    ensure!(told["legacy"]["version"] == "2025-11-25", "{}", told["legacy"]["version"]);
    judge(&org, &told["legacy"]).context("TypeScript")?;

    let mut command = Command::new(clients::node(&modules)?);
    command.arg(clients::scripts().join("typescript/agent.mjs")).env("POLITY_MODULES", &modules);
    let told: Value = serde_json::from_str(&run(polity, &org, &robot, command).await.context("AI SDK")?)?;
    framework(&told).context("AI SDK")?;

    // Five sessions, each with one call that ran: recorded like any other, and nothing else has begun.
    let lines = help::lines(polity, &uid, None)?;
    let count = |kind: &str| lines.iter().filter(|l| l["kind"] == kind).count();
    ensure!((count("begin"), count("settle")) == (5, 5), "{} begins, {} settles", count("begin"), count("settle"));
    Ok(())
}

/// A client that stops waiting for its call, however its revision says that, stops the call: the run ends, and the ledger says how.
pub async fn clients_cancel_their_calls(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("unwanted");
    let uid = fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;
    let (python, modules) = tokio::task::spawn_blocking(|| anyhow::Ok((clients::python()?, clients::typescript()?))).await??;
    let mut scripts = [Command::new(&python), Command::new(clients::node(&modules)?)];
    scripts[0].arg(clients::scripts().join("python/cancel.py"));
    scripts[1].arg(clients::scripts().join("typescript/cancel.mjs")).env("POLITY_MODULES", &modules);
    let mut canceled = 0;
    for mut command in scripts {
        as_worker(polity, &org, &robot, &mut command).await?;
        // Nobody plays the Pods: without a cancellation the calls would run until their time is over.
        let output = clients::output(command, PATIENCE).await?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{}\n{out}\n{err}", output.status);
        let told: Value = serde_json::from_str(&out).with_context(|| out.to_string())?;
        for (mode, told) in told.as_object().context("modes")? {
            let text = told["after"]["text"].as_str().unwrap_or_default();
            ensure!(told["after"]["isError"] == true && text.contains("Canceled"), "{mode}: {told}");
            ensure!(told["progress"].as_str().is_some_and(|said| said.starts_with("under way for ")), "{mode}: {told}");
            canceled += 1;
        }
    }
    let lines = help::lines(polity, &uid, None)?;
    let settled: Vec<&Value> = lines.iter().filter(|l| l["kind"] == "settle").collect();
    ensure!(canceled == 3 && settled.len() == canceled, "{canceled} canceled: {settled:?}");
    ensure!(settled.iter().all(|l| l["outcome"] == "NotDone" && l["reason"] == "Canceled"), "{settled:?}");
    let pods = Api::<Pod>::namespaced(admin, &org);
    until(SOON, "no Pod of a call is left", || async {
        let list = pods.list(&ListParams::default().labels("polity.dev/kind=ToolCall")).await.map_err(|e| e.to_string())?;
        if list.items.is_empty() { Ok(()) } else { Err(format!("{:?}", list.iter().map(ResourceExt::name_any).collect::<Vec<_>>())) }
    })
    .await
}

/// Names of the Tools that an agent sees.
async fn listed(polity: &Polity, org: &str, robot: &Robot) -> Result<Vec<String>> {
    let request = shim::client()?.post(format!("{}/v1/orgs/{org}/mcp", polity.gateway())).bearer_auth(&robot.token);
    let request = request.header("accept", "application/json, text/event-stream").header("mcp-protocol-version", "2025-11-25");
    let told: Value = request.json(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).send().await?.json().await?;
    let names = told["result"]["tools"].as_array().with_context(|| told.to_string())?;
    Ok(names.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect())
}

/// Each scenario of the official suite passes or is named, with its reason, as one that does not apply.
pub async fn conformance_suite(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("conform");
    fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;
    // The suite wants each Tool to say what it does.
    help::patch(&admin, "Tool", Some(&org), "pay", json!({"spec": {"description": "Pays somebody."}})).await??;
    // Tools that the suite expects by names that no object can have.
    for (name, alias, command, schema) in [
        ("test-simple-text", "test_simple_text", "/pay", json!({"type": "object"})),
        ("test-error-handling", "test_error_handling", "/fail", json!({"type": "object"})),
        (
            "json-schema-2020-12-tool",
            "json_schema_2020_12_tool",
            "/pay",
            json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false,
                "$defs": {"address": {"type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}},
                "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
            }),
        ),
    ] {
        let tool = json!({
            "apiVersion": "polity.dev/v1alpha1", "kind": "Tool", "metadata": {"name": name, "namespace": org},
            "spec": {
                "description": "A tool of the conformance suite.", "mcpName": alias, "inputSchema": schema,
                "runtime": {"container": {"image": "docker.io/polity/polity:dev", "command": [command]}},
            },
        });
        polity_e2e::apply(&admin, &tool.to_string()).await?;
    }
    let grants = json!({"spec": {"grants": [{"tools": ["pay", "test-*", "json-*"]}]}});
    help::patch(&admin, "Role", Some(&org), "payer", grants).await??;
    until(SOON, "the suite's Tools are listed", || async {
        let told = listed(polity, &org, &robot).await.map_err(|e| format!("{e:#}"))?;
        if told.len() == 4 { Ok(()) } else { Err(told.join(", ")) }
    })
    .await?;
    let modules = tokio::task::spawn_blocking(clients::typescript).await??;
    let results = polity.dir.join("conformance");
    std::fs::create_dir_all(&results)?;
    let mut command = Command::new(clients::node(&modules)?);
    command
        .arg(clients::scripts().join("typescript/conformance.mjs"))
        .env("POLITY_MODULES", &modules)
        .env("POLITY_BASELINE", clients::scripts().join("conformance.yml"))
        .current_dir(&results);
    run(polity, &org, &robot, command).await.map(|told| println!("{told}"))
}

/// A call waits for a person; after the Approval the same call with the same key, made on a new connection, runs and gets the outcome.
pub async fn an_approved_call_is_resumed(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("resume");
    let uid = fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "pay", "arguments": {"amount": 200, "to": "ann"}, "_meta": {"polity.dev/idempotencyKey": "invoice-9"}}
    });
    let ask = || async {
        let request = shim::client()?.post(format!("{}/v1/orgs/{org}/mcp", polity.gateway())).bearer_auth(&robot.token);
        let request = request.header("accept", "application/json, text/event-stream").header("mcp-protocol-version", "2025-11-25");
        let answer = request.json(&call).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        let told: Value = serde_json::from_str(&text).with_context(|| format!("{status}: {text}"))?;
        Ok::<Value, anyhow::Error>(told["result"].clone())
    };
    let approval = until(SOON, "the call waits for its Approval", || async {
        let told = ask().await.map_err(|e| e.to_string())?;
        let named = told["_meta"]["polity.dev/call"]["approval"].as_str().map(str::to_owned);
        named.ok_or_else(|| told.to_string())
    })
    .await?;
    help::decides(polity, &org, &approval, &format!("boss@{org}"), "Approve").await??;
    let told = tokio::select! {
        told = until(SOON, "the outcome", || async {
            let told = ask().await.map_err(|e| e.to_string())?;
            if told["isError"] == false { Ok(told) } else { Err(told.to_string()) }
        }) => told?,
        played = play_all(polity, &org) => return Err(played.err().context("playing Pods ended")?),
    };
    ensure!(told["structuredContent"] == json!({"receipt": "r-1"}), "{told}");
    let begins = help::lines(polity, &uid, None)?.iter().filter(|l| l["kind"] == "begin").count();
    ensure!(begins == 1, "{begins} begins");
    Ok(())
}
