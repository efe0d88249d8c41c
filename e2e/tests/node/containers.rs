//! What a tool's Pod is given, and what becomes of a tool that fails, takes too long, says too much, or never starts.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequestSpec},
    core::v1::Pod,
};
use kube::{Api, ResourceExt, api::PostParams};
use polity_api::toolcall::Phase;
use polity_e2e::{apply, apply_as, org_name, shim, until};

use crate::{
    fixtures::{PATIENCE, call, calls, done, ended, expect, organisation, settled, takes, tool},
    node::{Node, process},
};

pub async fn result_and_surroundings(node: &Node) -> Result<()> {
    let name = org_name("result");
    let uid = organisation(node, &name).await?;
    let (bot, client) = (calls(node, &name).await?, node.cluster.admin().await?);
    let greeted = done(&bot, &client, &call("greet", r#"{"name":"Ann"}"#)?).await?;
    let status = expect(&greeted, Phase::Succeeded, "")?;
    ensure!(status["result"]["output"]["greeting"] == "Hello, Ann!", "{status}");
    settled(node, &uid, &greeted, "Done")?;
    let inspect = call("inspect", "{}")?;
    takes(node, &name, &tool(&name, "inspect", "inspect", ""), &inspect).await?;
    let status = expect(&done(&bot, &client, &inspect).await?, Phase::Succeeded, "")?;
    let seen = &status["result"]["output"];
    ensure!(seen["user"] == 65_532 && seen["group"] == 65_532, "not the user it should be: {seen}");
    ensure!(seen["apiToken"] == false, "an API token is mounted: {seen}");
    ensure!(seen["rootWritable"] == false, "the image can be written: {seen}");
    let names = seen["variables"].as_array().context("variables")?;
    ensure!(names.iter().all(|n| !n.as_str().unwrap_or_default().starts_with("POLITY_")), "Polity's own variables are told: {seen}");
    Ok(())
}

pub async fn failure(node: &Node) -> Result<()> {
    let name = org_name("failure");
    let uid = organisation(node, &name).await?;
    let fail = call("fail", r#"{"message":"no funds on the account"}"#)?;
    takes(node, &name, &tool(&name, "fail", "fail", ""), &fail).await?;
    let failed = done(&calls(node, &name).await?, &node.cluster.admin().await?, &fail).await?;
    let status = expect(&failed, Phase::Failed, "ToolFailed")?;
    ensure!(status["result"]["code"] == 1, "{status}");
    ensure!(status["result"]["stderrTail"].as_str().is_some_and(|s| s.contains("no funds on the account")), "{status}");
    settled(node, &uid, &failed, "Done")
}

pub async fn secret_is_masked(node: &Node) -> Result<()> {
    let name = org_name("masked");
    organisation(node, &name).await?;
    let client = node.cluster.admin().await?;
    let value = "s3cr3t-of-the-bank-4711";
    let secret = format!("{{apiVersion: v1, kind: Secret, metadata: {{name: bank, namespace: {name}}}, stringData: {{token: {value}}}}}");
    apply(&client, &secret).await?;
    let tell = call("tell", r#"{"file":"/run/polity/secrets/bank/token"}"#)?;
    let with_secret = tool(&name, "tell", "tell", "").replace("      resources:", "      secrets: [{name: bank}]\n      resources:");
    takes(node, &name, &with_secret, &tell).await?;
    let told = done(&calls(node, &name).await?, &client, &tell).await?;
    let status = expect(&told, Phase::Failed, "ToolFailed")?;
    let tail = status["result"]["stderrTail"].as_str().unwrap_or_default();
    // That it was read at all shows in what is said: "reading file" would say that it was not.
    ensure!(!tail.is_empty() && !tail.contains("reading file"), "the Secret was not there: {status}");
    ensure!(!serde_json::to_string(&told)?.contains(value), "the value is in the call: {status}");
    let ledger = std::process::Command::new("grep").args(["-r", "-l", value]).arg(node.data()?).output()?;
    ensure!(ledger.stdout.is_empty(), "the value is in the ledger: {}", String::from_utf8_lossy(&ledger.stdout));
    Ok(())
}

pub async fn secret_of_another_is_refused(node: &Node) -> Result<()> {
    let name = org_name("author");
    organisation(node, &name).await?;
    let client = node.cluster.admin().await?;
    let yaml = format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: bank, namespace: {name}}}
stringData: {{token: another-value-of-the-bank}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: writes-tools, namespace: {name}}}
rules:
- {{apiGroups: [polity.dev], resources: [tools], verbs: [get, create, patch, update]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: writes-tools, namespace: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: writes-tools}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: writer@{name}}}]
"
    );
    apply(&client, &yaml).await?;
    let writer = node.cluster.user(&format!("writer@{name}"), &[]).await?;
    let plain = tool(&name, "tell", "tell", "");
    // First without the Secret: shows that nothing else refuses it.
    until(PATIENCE, "the author may write tools", || async {
        apply_as(&writer, &plain).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    })
    .await?;
    let refused = apply_as(&writer, &plain.replace("      resources:", "      secrets: [{name: bank}]\n      resources:")).await?;
    let Err(error) = refused else { anyhow::bail!("a Tool took a Secret that its author may not read") };
    ensure!(error.to_string().contains("SecretNotReadable"), "{error}");
    Ok(())
}

pub async fn time_out_kills(node: &Node) -> Result<()> {
    let name = org_name("timeout");
    let uid = organisation(node, &name).await?;
    let (bot, client) = (calls(node, &name).await?, node.cluster.admin().await?);
    let (sleep, nap) = (call("sleep", r#"{"seconds":600}"#)?, call("nap", r#"{"seconds":600}"#)?);
    takes(node, &name, &tool(&name, "sleep", "sleep", "  timeoutSeconds: 2"), &sleep).await?;
    takes(node, &name, &tool(&name, "nap", "sleep", "  timeoutSeconds: 2\n  idempotent: true"), &nap).await?;
    let slept = done(&bot, &client, &sleep).await?;
    expect(&slept, Phase::Unknown, "")?;
    settled(node, &uid, &slept, "Unknown")?;
    let napped = done(&bot, &client, &nap).await?;
    expect(&napped, Phase::Failed, "TimedOut")?;
    settled(node, &uid, &napped, "NotDone")?;
    let pods: Api<Pod> = Api::namespaced(client, &name);
    until(PATIENCE, "no tool's Pod runs", || async {
        let list = pods.list(&kube::api::ListParams::default()).await.map_err(|e| e.to_string())?;
        let running = |p: &&Pod| p.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"));
        let left: Vec<String> = list.items.iter().filter(running).map(ResourceExt::name_any).collect();
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    })
    .await
}

/// The kubelet itself says that it cannot get the image, and would try for ever: the call fails in time, as one that was never done.
pub async fn image_cannot_be_got(node: &Node) -> Result<()> {
    let name = org_name("absent");
    let uid = organisation(node, &name).await?;
    let absent = call("absent", "{}")?;
    // Nobody listens there.
    let image = "127.0.0.1:9/absent:1";
    let missing = tool(&name, "absent", "greet", "").replace("docker.io/polity/polity:dev", image);
    takes(node, &name, &missing, &absent).await?;
    let failed = done(&calls(node, &name).await?, &node.cluster.admin().await?, &absent).await?;
    let status = expect(&failed, Phase::Failed, "ToolFailed")?;
    let said = status["conditions"].to_string();
    ensure!(said.contains("image cannot be got") && said.contains(image) && said.contains("never started"), "{said}");
    settled(node, &uid, &failed, "NotDone")
}

pub async fn result_too_large(node: &Node) -> Result<()> {
    let name = org_name("large");
    let uid = organisation(node, &name).await?;
    let (bot, client) = (calls(node, &name).await?, node.cluster.admin().await?);
    let large = call("large", r#"{"bytes":20000}"#)?;
    takes(node, &name, &tool(&name, "large", "large", ""), &large).await?;
    for bytes in [20_000, 2_000_000] {
        let ended = done(&bot, &client, &call("large", &format!(r#"{{"bytes":{bytes}}}"#))?).await?;
        let status = expect(&ended, Phase::Failed, "ResultTooLarge")?;
        ensure!(status["result"]["output"].is_null(), "{bytes}: {status}");
        settled(node, &uid, &ended, "Done")?;
    }
    let ended = done(&bot, &client, &call("large", r#"{"bytes":16000}"#)?).await?;
    expect(&ended, Phase::Succeeded, "").map(|_| ())
}

/// The token of one tool's Pod opens that Pod's run and no other; a token of nobody opens none.
pub async fn run_of_another_is_closed(node: &Node) -> Result<()> {
    let name = org_name("another");
    organisation(node, &name).await?;
    let (bot, client) = (calls(node, &name).await?, node.cluster.admin().await?);
    let sleep = call("sleep", r#"{"seconds":600}"#)?;
    takes(node, &name, &tool(&name, "sleep", "sleep", "  timeoutSeconds: 45\n  idempotent: true"), &sleep).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &name);
    let mut runs = Vec::new();
    for _ in 0..2 {
        let made = bot.create(&PostParams::default(), &sleep).await?;
        let id = made.uid().context("uid")?;
        let pod = until(PATIENCE, "the tool's Pod runs", || async {
            let pod = pods.get(&format!("call-{id}")).await.map_err(|e| e.to_string())?;
            let running = pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"));
            if running { Ok(pod) } else { Err(format!("{:?}", pod.status)) }
        })
        .await?;
        runs.push((made.name_any(), id, pod));
    }
    let [(first_name, first, pod), (second_name, second, _)] = runs.as_slice() else { anyhow::bail!("two runs") };
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.name_any()),
        uid: pod.uid(),
    };
    let spec = TokenRequestSpec { audiences: vec!["polity".to_owned()], bound_object_ref: Some(bound), expiration_seconds: Some(600) };
    let token = node.cluster.token(&name, "polity-tool", spec).await?;
    let edge = node.edge()?;
    let http = shim::client()?;
    let input = |id: &str, token: &str| http.get(format!("{}/shim/v1/runs/{id}/input", edge.base)).bearer_auth(token).send();
    let own = input(first, &token).await?;
    ensure!(own.status() == 200, "its own run: {}", own.status());
    let other = input(second, &token).await?;
    ensure!(other.status() == 403, "another's run: {}", other.status());
    let forged = http.post(format!("{}/shim/v1/runs/{second}/result", edge.base)).bearer_auth(&token);
    let forged = forged.json(&serde_json::json!({"exitCode": 0, "stdout": "{}", "stderrTail": ""})).send().await?;
    ensure!(forged.status() == 403, "another's result: {}", forged.status());
    ensure!(input(first, "nobody").await?.status() == 401);
    for name_of_call in [first_name, second_name] {
        let api: Api<polity_api::ToolCall> = Api::namespaced(client.clone(), &name);
        let cancel = kube::api::Patch::Merge(serde_json::json!({"spec": {"cancel": true}}));
        api.patch(name_of_call, &kube::api::PatchParams::default(), &cancel).await?;
        expect(&ended(&client, &name, name_of_call).await?, Phase::Canceled, "")?;
    }
    Ok(())
}

/// Canceled in the moment in which the tool begins, before the kubelet has told anybody: it may have taken effect.
pub async fn cancel_of_a_running_tool_is_no_undoing(node: &Node) -> Result<()> {
    let name = org_name("cancel");
    let uid = organisation(node, &name).await?;
    let (bot, client) = (calls(node, &name).await?, node.cluster.admin().await?);
    let sleep = call("sleep", r#"{"seconds":600}"#)?;
    takes(node, &name, &tool(&name, "sleep", "sleep", "  timeoutSeconds: 45"), &sleep).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &name);
    let made = bot.create(&PostParams::default(), &sleep).await?;
    let pod = format!("call-{}", made.uid().context("uid")?);
    let pod_uid = until(PATIENCE, "the tool's Pod", || async {
        pods.get(&pod).await.map_err(|e| e.to_string())?.uid().ok_or_else(|| "no uid".to_owned())
    })
    .await?;
    until(PATIENCE, "the tool's process", || async {
        process(&pod_uid, "/polity-worker\0tool\0sleep").map_err(|e| e.to_string())?.ok_or_else(|| "none".to_owned())
    })
    .await?;
    let cancel = kube::api::Patch::Merge(serde_json::json!({"spec": {"cancel": true}}));
    bot.patch(&made.name_any(), &kube::api::PatchParams::default(), &cancel).await?;
    let canceled = ended(&client, &name, &made.name_any()).await?;
    expect(&canceled, Phase::Unknown, "OutcomeUnknown")?;
    settled(node, &uid, &canceled, "Unknown")
}
