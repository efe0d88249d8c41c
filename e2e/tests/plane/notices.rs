//! Kubernetes Events: what somebody must notice is told, on the right object, and nothing else is.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, Client, api::ListParams};
use polity_api::toolcall::Phase;
use polity_e2e::{apply, org_name, parts::Polity, shim, until};
use serde_json::json;

use crate::{
    approvals,
    calls::{call, phase},
    fixtures::{self, SOON},
    help, results,
};

/// Core's Events in a namespace.
async fn told(client: &Client, namespace: &str) -> Result<Vec<Event>, kube::Error> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let all = events.list(&ListParams::default()).await?.items;
    Ok(all.into_iter().filter(|e| e.reporting_controller.as_deref() == Some("polity.dev/polity-core")).collect())
}

fn about(event: &Event) -> (String, String, String) {
    let object = event.regarding.clone().unwrap_or_default();
    (object.kind.unwrap_or_default(), object.name.unwrap_or_default(), event.reason.clone().unwrap_or_default())
}

/// Waits until this is told of an object.
async fn tells(client: &Client, namespace: &str, kind: &str, name: &str, reason: &str) -> Result<Event> {
    until(SOON, &format!("{kind} {name}: {reason} is told"), || async {
        let all = told(client, namespace).await.map_err(|e| e.to_string())?;
        let wanted = (kind.to_owned(), name.to_owned(), reason.to_owned());
        let found = all.iter().find(|e| about(e) == wanted);
        found.cloned().ok_or_else(|| format!("{:?}", all.iter().map(about).collect::<Vec<_>>()))
    })
    .await
}

/// An Approval asked for and one that expired, calls denied and failed, an Org that stalls; a call that went well is not told of.
pub async fn of_what_somebody_must_notice(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("noticed");
    fixtures::organisation(&admin, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &call(200, "ann")).await?;

    let (asks, asks_uid) = help::made(&calls, &call(200, "ann")).await?;
    let waiting = phase(&admin, &org, &asks, Phase::WaitingApproval).await?;
    let approval = waiting.status.and_then(|s| s.approval).context("approval")?;
    let event = tells(&admin, &org, "Approval", &approval, "ApprovalRequired").await?;
    let note = event.note.unwrap_or_default();
    ensure!(event.type_.as_deref() == Some("Normal") && note.contains(&format!("bot@{org}")) && note.contains("pay"), "{note}");
    help::decides(polity, &org, &approval, &format!("boss@{org}"), "Deny").await??;
    let event = tells(&admin, &org, "ToolCall", &asks, "ApprovalDenied").await?;
    ensure!(event.type_.as_deref() == Some("Warning") && event.series.is_none(), "{event:?}");
    ensure!(event.regarding.and_then(|r| r.uid).as_deref() == Some(&asks_uid), "not with its uid");

    let (fails, id) = help::made(&calls, &help::small()).await?;
    shim::play(polity, &org, &id, 3, "").await?;
    tells(&admin, &org, "ToolCall", &fails, "ToolFailed").await?;

    let (runs, id) = help::made(&calls, &help::small()).await?;
    shim::play(polity, &org, &id, 0, "{}").await?;
    phase(&admin, &org, &runs, Phase::Succeeded).await?;
    // Told later than it would have been.
    let (fails_too, id) = help::made(&calls, &help::small()).await?;
    shim::play(polity, &org, &id, 3, "").await?;
    tells(&admin, &org, "ToolCall", &fails_too, "ToolFailed").await?;
    let all: Vec<_> = told(&admin, &org).await?.iter().map(about).collect();
    ensure!(all.len() == 4 && all.iter().all(|(_, name, _)| *name != runs), "{all:?}");

    let late = org_name("noticed-late");
    approvals::people(polity, &late, json!({"role": {"name": "manager"}, "expiresAfter": "2s"})).await?;
    let calls = help::bot(polity, &late).await?;
    help::takes(&calls, &call(200, "ann")).await?;
    let (expires, _) = help::made(&calls, &call(200, "ann")).await?;
    let denied = phase(&admin, &late, &expires, Phase::Denied).await?;
    let approval = denied.status.and_then(|s| s.approval).context("approval")?;
    tells(&admin, &late, "Approval", &approval, "ApprovalExpired").await?;
    tells(&admin, &late, "ToolCall", &expires, "ApprovalExpired").await?;

    // Somebody else's namespace: the Org waits for consent. An Org has no namespace, its Events are in default.
    let stalls = org_name("noticed-stalls");
    let yaml = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {stalls}}}}}");
    apply(&admin, &yaml).await?;
    apply(&admin, &format!("{{apiVersion: polity.dev/v1alpha1, kind: Org, metadata: {{name: {stalls}}}, spec: {{}}}}")).await?;
    help::condition(&admin, "Org", None, &stalls, "Stalled", "NamespaceNotConsenting").await?;
    tells(&admin, "default", "Org", &stalls, "NamespaceNotConsenting").await?;
    Ok(())
}

/// What was returned is not what was asked: told on the call, and of calls without an object on the Tool, as a series.
pub async fn of_outcomes_that_differ(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let (org, _) = results::demanding(polity, "differs").await?;
    let calls = help::bot(polity, &org).await?;
    let (name, id) = help::made(&calls, &help::small()).await?;
    shim::play(polity, &org, &id, 0, &results::returned(19)).await?;
    let event = tells(&admin, &org, "ToolCall", &name, "OutcomeDiffers").await?;
    ensure!(event.note.as_deref().unwrap_or_default().contains("another amount was paid"), "{event:?}");

    let robot = help::robot(polity, &org).await?;
    for _ in 0..2 {
        // The edge may see the Policy a moment later than core.
        until(SOON, "an outcome differs", || async {
            let asked = json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}, "waitSeconds": 0});
            let (_, begun) = robot.call(&org, asked).await.map_err(|e| e.to_string())?;
            let id = begun["id"].as_str().ok_or_else(|| begun.to_string())?;
            shim::play(polity, &org, id, 0, &results::returned(19)).await.map_err(|e| e.to_string())?;
            let (_, ended) = robot.read(&org, id, SOON).await.map_err(|e| e.to_string())?;
            if ended["reason"] == "PostconditionFailed" { Ok(()) } else { Err(ended.to_string()) }
        })
        .await?;
    }
    until(SOON, "a series on the Tool", || async {
        let event = tells(&admin, &org, "Tool", "pay", "OutcomeDiffers").await.map_err(|e| e.to_string())?;
        let count = event.series.as_ref().map_or(1, |s| s.count);
        if count == 2 { Ok(()) } else { Err(format!("{event:?}")) }
    })
    .await
}
