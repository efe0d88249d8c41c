//! Admission taken away, and what can be stored meanwhile: nothing starts until it is back, and a broken object stalls nobody else.

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use polity_api::{Caller, Org, ToolCall, toolcall::Phase};
use polity_e2e::{apply, apply_as, install, org_name, parts::Polity, shim, until};
use serde_json::json;

use crate::{
    admission::http_post,
    calls::{call, phase},
    fixtures::{self, SOON},
    help,
};

/// Puts back whatever of the chart is missing or changed, and waits until the edge is called again.
pub async fn reinstall(polity: &Polity) -> Result<()> {
    install::chart(&polity.cluster, &format!("https://127.0.0.1:{}", polity.addresses.webhook)).await?;
    until(SOON, "caBundle in both webhook configurations", || async {
        for kind in ["validatingwebhookconfiguration", "mutatingwebhookconfiguration"] {
            let text = polity.cluster.run("kubectl", &["get", kind, "polity", "-o", "json"]).map_err(|e| e.to_string())?;
            if !text.contains("caBundle") {
                return Err(format!("{kind}: empty"));
            }
        }
        Ok(())
    })
    .await
}

/// Each guard and its binding, deleted or weakened, stops every start; with it back, calls run.
pub async fn without_a_guard_nothing_starts(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("guarded");
    let uid = fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let weaken = json!({"spec": {"failurePolicy": "Ignore"}}).to_string();
    let warn = json!({"spec": {"validationActions": ["Warn"]}}).to_string();
    let ignore = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]).to_string();
    let mut changes: Vec<Vec<&str>> = Vec::new();
    for guard in ["polity-caller", "polity-status", "polity-govern"] {
        changes.push(vec!["delete", "validatingadmissionpolicy", guard]);
        changes.push(vec!["delete", "validatingadmissionpolicybinding", guard]);
    }
    changes.push(vec!["patch", "validatingadmissionpolicy", "polity-caller", "--type=merge", "-p", &weaken]);
    changes.push(vec!["patch", "validatingadmissionpolicybinding", "polity-status", "--type=merge", "-p", &warn]);
    changes.push(vec!["patch", "validatingwebhookconfiguration", "polity", "--type=json", "-p", &ignore]);
    for change in changes {
        polity.cluster.run("kubectl", &change)?;
        let held = nothing_starts(polity, &org, &uid, &robot, &calls).await;
        // A list that was weakened is a set to which an apply would only add.
        polity.cluster.run("kubectl", &["delete", change[1], change[2], "--ignore-not-found"])?;
        reinstall(polity).await?;
        held.with_context(|| change.join(" "))?;
        until(SOON, "calls begin again", || async {
            let (name, _) = help::made(&calls, &help::small()).await.map_err(|e| e.to_string())?;
            let call = help::one_of(&admin, &org, &name, &[Phase::Running, Phase::Denied]).await.map_err(|e| e.to_string())?;
            if help::reason(&call).is_empty() { Ok(()) } else { Err(help::reason(&call)) }
        })
        .await?;
    }
    Ok(())
}

async fn nothing_starts(polity: &Polity, org: &str, uid: &str, robot: &help::Robot, calls: &Api<ToolCall>) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    until(SOON, "core knows", || async {
        let body = json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}, "waitSeconds": 0});
        let (code, body) = robot.call(org, body).await.map_err(|e| e.to_string())?;
        if code == 503 && body["reason"] == "AdmissionNotEnforced" { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await?;
    match help::made(calls, &help::small()).await {
        Ok((name, id)) => {
            let denied = phase(&admin, org, &name, Phase::Denied).await?;
            ensure!(help::reason(&denied) == "AdmissionNotEnforced", "{denied:?}");
            let lines = help::lines(polity, uid, Some(&id))?;
            ensure!(help::kinds(&lines) == ["decision"], "{lines:?}");
        }
        Err(error) => ensure!(error.to_string().contains("AdmissionNotEnforced"), "{error:#}"),
    }
    Ok(())
}

/// With both webhook configurations deleted: unstamped calls are refused by the guard, stamped ones are stored and denied, what was approved
/// does not start. What could be stored meanwhile, a circle of Roles, a Policy that does not compile, objects that cannot be decoded or are too
/// deep, stalls nobody else, neither then nor when everything starts anew.
pub async fn without_webhooks_nothing_starts_and_nothing_stalls(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let (org, other, odd) = (org_name("bare"), org_name("healthy"), org_name("odd"));
    let uid = fixtures::organisation(&admin, &org).await?;
    fixtures::organisation(&admin, &other).await?;
    fixtures::organisation(&admin, &odd).await?;
    let robot = help::robot(polity, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let (waiting, waiting_id) = help::made(&calls, &call(200, "ann")).await?;
    phase(&admin, &org, &waiting, Phase::WaitingApproval).await?;

    for kind in ["validatingwebhookconfiguration", "mutatingwebhookconfiguration"] {
        polity.cluster.run("kubectl", &["delete", kind, "polity"])?;
    }
    let broken = format!("{org}-broken");
    let stored = store(polity, &org, &broken, &odd, &robot, &calls).await;
    reinstall(polity).await?;
    stored?;
    ensure!(!help::kinds(&help::lines(polity, &uid, Some(&waiting_id))?).contains(&"begin"), "what waited began");

    nobody_else_is_stalled(polity, &org, &other, &broken).await.context("while it is stored")?;
    unknown_rules_deny(polity, &odd).await.context("while it is stored")?;
    polity.edge.kill()?;
    polity.core.restart().await?;
    polity.edge.restart().await?;
    nobody_else_is_stalled(polity, &org, &other, &broken).await.context("after a restart")?;
    unknown_rules_deny(polity, &odd).await.context("after a restart")?;

    for (kind, namespace, name) in [
        ("orgs.polity.dev", "", broken.as_str()),
        ("tools.polity.dev", &org, "deep"),
        ("toolcalls.polity.dev", &org, "deep"),
        ("policies.polity.dev", &odd, "newer"),
        ("policies.polity.dev", &org, "wrong"),
    ] {
        let mut args = vec!["delete", kind, name, "--wait=false"];
        if !namespace.is_empty() {
            args.extend(["-n", namespace]);
        }
        polity.cluster.run("kubectl", &args)?;
    }
    let orgs: Api<kube::api::DynamicObject> = Api::all_with(admin.clone(), &kube::core::ApiResource::erase::<Org>(&()));
    until(SOON * 2, "the broken Org can be deleted", || async {
        orgs.get_opt(&broken).await.map_err(|e| e.to_string())?.map_or(Ok(()), |o| Err(format!("{:?}", o.metadata)))
    })
    .await?;
    help::takes(&help::bot(polity, &odd).await?, &help::small()).await?;
    help::takes(&calls, &help::small()).await
}

/// What nobody can read may forbid anything: the Org of that Policy takes no calls, and says which object it is.
async fn unknown_rules_deny(polity: &Polity, odd: &str) -> Result<()> {
    help::refuses(&help::bot(polity, odd).await?, &help::small(), "newer").await
}

/// What can be stored while no webhook looks.
async fn store(polity: &Polity, org: &str, broken: &str, odd: &str, robot: &help::Robot, calls: &Api<ToolCall>) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    help::refuses(calls, &help::small(), "was not stamped").await?;
    let (code, body) = robot.call(org, json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}, "waitSeconds": 0})).await?;
    ensure!(code == 503 && body["reason"] == "AdmissionNotEnforced", "{code} {body}");
    let mut stamped = help::small();
    stamped.spec.caller = Some(Caller { username: format!("boss@{org}"), ..Caller::default() });
    help::refused(calls.create(&PostParams::default(), &stamped).await, 403, &["is not who asks"])?;
    stamped.spec.caller =
        Some(Caller { username: format!("bot@{org}"), groups: vec!["system:authenticated".to_owned()], ..Caller::default() });
    let (name, _) = help::made(calls, &stamped).await?;
    let denied = phase(&admin, org, &name, Phase::Denied).await?;
    ensure!(help::reason(&denied) == "AdmissionNotEnforced", "{denied:?}");

    let role = |name: &str, to: &str| {
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Role", "metadata": {"name": name, "namespace": org}, "spec": {"reportsTo": {"name": to}, "assignment": {"agents": ["other"]}}}).to_string()
    };
    apply(&admin, &role("left", "right")).await?;
    apply(&admin, &role("right", "left")).await?;
    // Decoded by nothing but the API server: an offset that no clock has.
    let start = json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Org", "metadata": {"name": broken}, "spec": {"startAt": "2026-01-01T00:00:00+99:99"}});
    admin.request_text(http_post("/apis/polity.dev/v1alpha1/orgs", start.to_string())?).await?;
    let deep = format!("{}{{}}{}", r#"{"a":"#.repeat(200), "}".repeat(200));
    let tool = format!(
        r#"{{"apiVersion":"polity.dev/v1alpha1","kind":"Tool","metadata":{{"name":"deep"}},"spec":{{"inputSchema":{deep},"runtime":{{"container":{{"image":"x","command":["x"]}}}}}}}}"#
    );
    admin.request_text(http_post(&format!("/apis/polity.dev/v1alpha1/namespaces/{org}/tools"), tool)?).await?;
    // Of a caller who may ask, in the form that the webhook would give it, but deeper than JSON is read.
    let caller = format!(r#"{{"username":"bot@{org}","groups":["system:authenticated"]}}"#);
    let call = format!(
        r#"{{"apiVersion":"polity.dev/v1alpha1","kind":"ToolCall","metadata":{{"name":"deep"}},"spec":{{"tool":{{"name":"pay"}},"caller":{caller},"input":{deep}}}}}"#
    );
    let client = polity.cluster.user(&format!("bot@{org}"), &[]).await?;
    client.request_text(http_post(&format!("/apis/polity.dev/v1alpha1/namespaces/{org}/toolcalls"), call)?).await?;
    newer_policy(polity, odd).await?;
    let wrong = json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Policy", "metadata": {"name": "wrong", "namespace": org},
        "spec": {"match": {"tools": ["pay"]}, "rules": [{"name": "rule", "expression": "agnet.name == 'bot'", "effect": "Deny"}]}});
    apply(&admin, &wrong.to_string()).await?;
    ensure!(
        apply_as(&admin, fixtures::manifests(&format!("{org}-new")).split("---").next().unwrap_or_default()).await?.is_ok(),
        "an Org cannot be made"
    );
    Ok(())
}

/// A Policy of a newer version: an effect that this one does not know, stored while the definition allowed it.
async fn newer_policy(polity: &Polity, odd: &str) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let crds: Api<CustomResourceDefinition> = Api::all(admin.clone());
    let tight = crds.get("policies.polity.dev").await?;
    let mut loose = serde_json::to_value(&tight)?;
    let effect = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/rules/items/properties/effect/enum";
    let words = loose.pointer_mut(effect).and_then(serde_json::Value::as_array_mut).context("the words for an effect")?;
    let known = words.clone();
    words.push(json!("Postpone"));
    let words = json!([{"op": "replace", "path": effect, "value": words}]).to_string();
    polity.cluster.run("kubectl", &["patch", "crd", "policies.polity.dev", "--type=json", "-p", &words])?;
    let newer = json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Policy", "metadata": {"name": "newer", "namespace": odd},
        "spec": {"match": {"tools": ["pay"]}, "rules": [{"name": "rule", "expression": "true", "effect": "Postpone"}]}});
    let stored = until(SOON, "the newer Policy is stored", || async {
        let path = format!("/apis/polity.dev/v1alpha1/namespaces/{odd}/policies");
        let request = http_post(&path, newer.to_string()).map_err(|e| e.to_string())?;
        admin.request_text(request).await.map(drop).map_err(|e| e.to_string())
    })
    .await;
    // As before, whatever happened.
    let words = json!([{"op": "replace", "path": effect, "value": known}]).to_string();
    polity.cluster.run("kubectl", &["patch", "crd", "policies.polity.dev", "--type=json", "-p", &words])?;
    stored
}

async fn nobody_else_is_stalled(polity: &Polity, org: &str, other: &str, broken: &str) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let calls = help::bot(polity, other).await?;
    help::takes(&calls, &help::small()).await?;
    let (name, id) = help::made(&calls, &help::small()).await?;
    shim::play(polity, other, &id, 0, "{}").await?;
    phase(&admin, other, &name, Phase::Succeeded).await?;
    let fresh = org_name("fresh");
    fixtures::organisation(&admin, &fresh).await?;
    help::takes(&help::bot(polity, &fresh).await?, &help::small()).await?;
    // The circle is told on each, the rule denies what it selects.
    for role in ["left", "right"] {
        let message = help::condition(&admin, "Role", Some(org), role, "Ready", "ReportingCycle").await?;
        ensure!(message.contains("left") && message.contains("right"), "{message}");
    }
    let message = help::condition(&admin, "Policy", Some(org), "wrong", "Ready", "PolicyInvalid").await?;
    ensure!(message.contains("agnet") && message.contains("agent"), "{message}");
    help::refuses(&help::bot(polity, org).await?, &help::small(), "PolicyInvalid").await?;
    // A broken Org takes no calls and says so, as far as anybody can tell.
    let below = format!("{broken}-below");
    let spec =
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Org", "metadata": {"name": below}, "spec": {"parentRef": {"name": broken}}});
    apply(&admin, &spec.to_string()).await?;
    help::condition(&admin, "Org", None, &below, "Ready", "AncestryBroken").await?;
    Api::<Org>::all(admin).delete(&below, &DeleteParams::default()).await?;
    until(SOON, "the child of the broken Org can be deleted", || async {
        let orgs: Api<Org> = Api::all(polity.cluster.admin().await.map_err(|e| e.to_string())?);
        orgs.get_opt(&below).await.map_err(|e| e.to_string())?.map_or(Ok(()), |o| Err(format!("{:?}", o.status)))
    })
    .await
}
