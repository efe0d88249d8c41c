//! The life of a ToolCall: allowed and run, denied with its reason, waiting for a person.

use anyhow::{Context, Result, ensure};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use polity_api::{
    Approval, ToolCall, ToolCallSpec,
    toolcall::{Phase, ToolRef},
};
use polity_e2e::{ledger, org_name, parts::Polity, shim, until};
use serde_json::json;

use crate::{
    fixtures::{self, SOON},
    help,
};

/// A call of `pay`.
pub fn call(amount: i64, to: &str) -> ToolCall {
    let input = json!({"amount": amount, "to": to});
    ToolCall {
        metadata: ObjectMeta { generate_name: Some("pay-".to_owned()), ..ObjectMeta::default() },
        spec: ToolCallSpec {
            tool: ToolRef { name: "pay".to_owned(), org: None },
            input: input.as_object().cloned(),
            ttl_seconds_after_finished: 3600,
            ..ToolCallSpec::default()
        },
        status: None,
    }
}

/// Waits until the call is in this phase.
pub async fn phase(client: &Client, namespace: &str, name: &str, wanted: Phase) -> Result<ToolCall> {
    let calls: Api<ToolCall> = Api::namespaced(client.clone(), namespace);
    until(SOON, &format!("call {name} is {wanted:?}"), || async {
        let call = calls.get(name).await.map_err(|e| e.to_string())?;
        let status = call.status.clone().unwrap_or_default();
        if status.phase == Some(wanted) { Ok(call) } else { Err(serde_json::to_string(&status).unwrap_or_default()) }
    })
    .await
}

/// A small payment is stamped with its caller, begun, run in its Pod, settled, and its records are there in order.
pub async fn allowed(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let name = org_name("allowed");
    let uid = fixtures::organisation(&admin, &name).await?;
    let bot = polity.cluster.user(&format!("bot@{name}"), &[]).await?;
    let calls: Api<ToolCall> = Api::namespaced(bot, &name);
    let made = calls.create(&PostParams::default(), &call(20, "ann")).await?;
    ensure!(made.spec.caller.as_ref().is_some_and(|c| c.username == format!("bot@{name}")), "not stamped: {made:?}");
    let id = made.uid().context("uid")?;
    let input = shim::play(polity, &name, &id, 0, r#"{"receipt": "r-1"}"#).await?;
    ensure!(input == json!({"amount": 20, "to": "ann"}), "{input}");
    let ended = phase(&admin, &name, &made.name_any(), Phase::Succeeded).await?;
    let status = ended.status.unwrap_or_default();
    ensure!(status.result.as_ref().and_then(|r| r.output.clone()) == Some(json!({"receipt": "r-1"})), "{status:?}");
    let kinds: Vec<String> = ledger::records(&polity.dir.join("data"), &uid)?
        .iter()
        .filter_map(|r| serde_json::from_str::<serde_json::Value>(&r.to_line()).ok())
        .filter(|r| r["action"] == id.as_str())
        .filter_map(|r| r["kind"].as_str().map(str::to_owned))
        .collect();
    ensure!(kinds == ["begin", "settle"], "{kinds:?}");
    Ok(())
}

/// An image that no registry has: the call ends long before its time-out, says which image and why, and nothing was done. The test
/// speaks for the kubelet, in the words that a kubelet has for it.
pub async fn image_is_missing(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let name = org_name("absent");
    let uid = fixtures::organisation(&admin, &name).await?;
    let calls = help::bot(polity, &name).await?;
    help::takes(&calls, &help::small()).await?;
    let (made, id) = help::made(&calls, &help::small()).await?;
    phase(&admin, &name, &made, Phase::Running).await?;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(admin.clone(), &name);
    let bound = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(25);
    let waiting = json!({"reason": "ImagePullBackOff", "message": "Back-off pulling image"});
    let status = json!({"status": {
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": bound.to_string()}],
        "containerStatuses": [{"name": "tool", "image": "docker.io/polity/polity:dev", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": waiting}}]}});
    pods.patch_status(&format!("call-{id}"), &PatchParams::default(), &Patch::Merge(status)).await?;
    let ended = phase(&admin, &name, &made, Phase::Failed).await?;
    let said = serde_json::to_string(&ended.status)?;
    ensure!(said.contains("ToolFailed") && said.contains("ImagePullBackOff") && said.contains("docker.io/polity/polity:dev"), "{said}");
    let lines = help::lines(polity, &uid, Some(&id))?;
    ensure!(help::kinds(&lines) == ["begin", "settle"] && lines[1]["outcome"] == "NotDone", "{lines:?}");
    until(SOON, "its Pod is gone", || async {
        pods.get_opt(&format!("call-{id}")).await.map_err(|e| e.to_string())?.map_or(Ok(()), |_| Err("there".to_owned()))
    })
    .await
}

/// The API server answers 403 at once, with the rule, its reason code and its hint.
pub async fn denied(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let name = org_name("denied");
    fixtures::organisation(&admin, &name).await?;
    let calls: Api<ToolCall> = Api::namespaced(polity.cluster.user(&format!("bot@{name}"), &[]).await?, &name);
    let refused = calls.create(&PostParams::default(), &call(20, "mallory")).await;
    let Err(kube::Error::Api(answer)) = refused else { anyhow::bail!("not refused: {refused:?}") };
    ensure!(answer.code == 403, "{answer:?}");
    for part in [
        format!("{name}/limits/not-mallory"),
        "PolicyDenied".to_owned(),
        "mallory is never paid".to_owned(),
        "pay somebody else".to_owned(),
    ] {
        ensure!(answer.message.contains(&part), "{part:?} is not in {:?}", answer.message);
    }
    Ok(())
}

/// A larger payment waits; the requester and a stranger cannot approve; the manager can, and then it runs once.
pub async fn waits(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let name = org_name("waits");
    fixtures::organisation(&admin, &name).await?;
    let calls: Api<ToolCall> = Api::namespaced(polity.cluster.user(&format!("bot@{name}"), &[]).await?, &name);
    let made = calls.create(&PostParams::default(), &call(200, "ann")).await?;
    let waiting = phase(&admin, &name, &made.name_any(), Phase::WaitingApproval).await?;
    let approval = waiting.status.and_then(|s| s.approval).context("approval")?;
    let decide = |user: String| {
        let approval = approval.clone();
        let cluster = polity.cluster.clone();
        let namespace = name.clone();
        async move {
            let api: Api<Approval> = Api::namespaced(cluster.user(&user, &[]).await?, &namespace);
            let patch = json!({"spec": {"decisions": [{"by": user, "decision": "Approve"}]}});
            Ok::<_, anyhow::Error>(api.patch(&approval, &PatchParams::default(), &Patch::Merge(patch)).await)
        }
    };
    ensure!(decide(format!("bot@{name}")).await?.is_err(), "the requester approved himself");
    ensure!(decide(format!("other@{name}")).await?.is_err(), "somebody without the Role approved");
    let approved = decide(format!("boss@{name}")).await??;
    ensure!(approved.spec.decisions.iter().all(|d| d.at.is_some()), "not stamped: {approved:?}");
    let id = made.uid().context("uid")?;
    shim::play(polity, &name, &id, 0, "{}").await?;
    phase(&admin, &name, &made.name_any(), Phase::Succeeded).await?;
    Ok(())
}
