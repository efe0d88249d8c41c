//! Policies that change under load, and very many of them: what is decided is always one of the versions that were in force, records name which, and
//! once a version has been seen to bind no older one decides again.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, future::join, future::try_join_all, stream};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, ListParams, PostParams},
};
use polity_api::{Caller, Policy, Tool, ToolCall, reasons};
use polity_e2e::{Cluster, apply, manifests, org_name, parts::Polity, until};
use polity_policy::{Past, Request, Snapshot, World};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    fixtures::{self, SOON},
    help::{self, Robot},
};

/// How often the Policy is changed: even versions allow, odd ones deny.
const VERSIONS: usize = 6;
/// Answers by one version before it is changed again.
const ANSWERS: usize = 8;
/// Policies of the Org that has very many.
const MANY: usize = 1000;
/// Tools that they are for.
const TOOLS: usize = 10;
/// Most questions that the edge takes at once.
const BATCH: usize = 64;

/// What callers need to know: the version that is known to bind, doubled; odd while it is being changed.
#[derive(Default)]
struct Moment {
    settled: AtomicUsize,
    over: AtomicBool,
    /// Answers while one version was known to bind.
    judged: AtomicUsize,
}

/// Calls through the gateway and the API server while a Policy goes from allow to deny and back. As soon as one call has been decided by a version,
/// none that begins later is decided by another; and each record names the view that gives exactly its verdict.
pub async fn a_policy_changes_under_load(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("flux");
    let uid = fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;
    let policy = |version: usize| {
        let limit = if version.is_multiple_of(2) { 1000 } else { 1 };
        crate::admission::policy(&org, "flux", &format!("args.amount <= {limit}"))
    };
    apply(&admin, &policy(0)).await?;
    binds(&robot, &org, 0).await?;
    let before = help::lines(polity, &uid, None)?.len();

    let moment = Moment::default();
    let cluster = polity.cluster.clone();
    let callers = join(try_join_all((0..3).map(|_| through_gateway(&robot, &org, &moment))), through_api_server(&cluster, &org, &moment));
    let mut views: BTreeMap<String, Snapshot> = BTreeMap::new();
    let changes = async {
        for version in 0..VERSIONS {
            if version > 0 {
                moment.settled.store(2 * version - 1, Ordering::SeqCst);
                apply(&admin, &policy(version)).await?;
                binds(&robot, &org, version).await?;
            }
            moment.settled.store(2 * version, Ordering::SeqCst);
            if version < 2 {
                let view = view(polity, &org).await?;
                views.insert(view.digest().to_owned(), view);
            }
            let from = moment.judged.load(Ordering::SeqCst);
            until(SOON, "calls are decided by this version", || async {
                let judged = moment.judged.load(Ordering::SeqCst) - from;
                if judged >= ANSWERS || moment.over.load(Ordering::SeqCst) { Ok(()) } else { Err(format!("{judged}")) }
            })
            .await?;
        }
        anyhow::Ok(())
    };
    let (changed, (called, created)) = join(ended(&moment, changes), callers).await;
    called?;
    let created = created?;
    changed?;
    ensure!(views.len() == 2, "two versions have one digest");

    let lines = help::lines(polity, &uid, None)?;
    let (mut allowed, mut denied) = (0, 0);
    for line in lines.iter().skip(before).filter(|l| l["verb"] == "tool.call" && (l["kind"] == "begin" || l["kind"] == "decision")) {
        let digest = line["snapshot"].as_str().unwrap_or_default();
        let view = views.get(digest).with_context(|| format!("a view that never was in force decided: {line}"))?;
        let said = decided(view, line["actor"]["username"].as_str().unwrap_or_default());
        ensure!(line["verdict"]["effect"] == said, "the view that is named says {said}: {line}");
        ensure!((line["kind"] == "begin") == (said == "Allow"), "{line}");
        *(if said == "Allow" { &mut allowed } else { &mut denied }) += 1;
    }
    println!("a Policy changed {} times: {allowed} records of calls that began, {denied} of denials, {created} ToolCalls", VERSIONS - 1);
    ensure!(allowed > 0 && denied > 0, "{allowed} began, {denied} were denied");
    // The definition of each version is in the chain as well.
    for version in 0..2 {
        let digest = definition(&admin, &org, &policy(version)).await?;
        until(SOON, "the version is recorded", || async {
            let lines = help::lines(polity, &uid, None).map_err(|e| e.to_string())?;
            let found =
                lines.iter().any(|l| l["kind"] == "definition" && l["target"]["name"] == "flux" && l["target"]["digest"] == *digest);
            if found { Ok(()) } else { Err(format!("no record of {digest}")) }
        })
        .await?;
    }
    Ok(())
}

/// Runs to the end and says that it is over, however it went.
async fn ended(moment: &Moment, changes: impl Future<Output = Result<()>>) -> Result<()> {
    let result = changes.await;
    moment.over.store(true, Ordering::SeqCst);
    result
}

fn pay() -> Value {
    json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}, "waitSeconds": 0})
}

/// Waits until the edge decides by this version.
async fn binds(robot: &Robot, org: &str, version: usize) -> Result<()> {
    until(SOON, "the version binds", || async {
        let (code, body) =
            robot.evaluate(org, json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}})).await.map_err(|e| e.to_string())?;
        let wanted = if version.is_multiple_of(2) { "Allow" } else { "Deny" };
        if code == 200 && body["verdict"] == wanted { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await
}

/// Calls until told to stop, and judges each answer that one version alone can have given.
async fn through_gateway(robot: &Robot, org: &str, moment: &Moment) -> Result<()> {
    let _over = OnFailure(moment);
    while !moment.over.load(Ordering::SeqCst) {
        let from = moment.settled.load(Ordering::SeqCst);
        let (code, body) = robot.call(org, pay()).await?;
        let known = from == moment.settled.load(Ordering::SeqCst) && from.is_multiple_of(2);
        let allows = (from / 2).is_multiple_of(2);
        match code {
            202 => ensure!(!known || allows, "allowed after the Policy had been seen to deny: {body}"),
            403 => {
                ensure!(body["reason"] == "PolicyDenied", "{body}");
                ensure!(!known || !allows, "denied after the Policy had been seen to allow: {body}");
            }
            // Core hears of a version after the edge has decided by it.
            503 => ensure!(body["reason"] == reasons::STALE_SNAPSHOT, "{body}"),
            _ => anyhow::bail!("{code} {body}"),
        }
        if known && code != 503 {
            moment.judged.fetch_add(1, Ordering::SeqCst);
        }
    }
    Ok(())
}

/// The same through the API server; gives how many were created.
async fn through_api_server(cluster: &Cluster, org: &str, moment: &Moment) -> Result<usize> {
    let _over = OnFailure(moment);
    let bot: Api<ToolCall> = Api::namespaced(cluster.user(&format!("bot@{org}"), &[]).await?, org);
    let mut created = 0;
    while !moment.over.load(Ordering::SeqCst) {
        let from = moment.settled.load(Ordering::SeqCst);
        let answer = bot.create(&PostParams::default(), &help::small()).await;
        let known = from == moment.settled.load(Ordering::SeqCst) && from.is_multiple_of(2);
        let allows = (from / 2).is_multiple_of(2);
        match answer {
            Ok(_) => {
                ensure!(!known || allows, "created after the Policy had been seen to deny");
                created += 1;
            }
            Err(kube::Error::Api(status)) if status.message.contains("flux") => {
                ensure!(!known || !allows, "refused after the Policy had been seen to allow: {}", status.message);
            }
            Err(other) => return Err(other.into()),
        }
    }
    Ok(created)
}

/// Whoever fails ends the others too.
struct OnFailure<'a>(&'a Moment);

impl Drop for OnFailure<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

/// The view of an Org, built from what the API server has at this moment.
async fn view(polity: &Polity, org: &str) -> Result<Snapshot> {
    let admin = polity.cluster.admin().await?;
    let mut objects = Vec::new();
    for (version, kind, namespaced) in [
        ("v1", "Namespace", false),
        ("polity.dev/v1alpha1", "Org", false),
        ("polity.dev/v1alpha1", "Agent", true),
        ("polity.dev/v1alpha1", "Role", true),
        ("polity.dev/v1alpha1", "Policy", true),
        ("polity.dev/v1alpha1", "Tool", true),
    ] {
        let namespace = if namespaced { json!(org) } else { Value::Null };
        let api: Api<DynamicObject> =
            manifests::api_of(&admin, &json!({"apiVersion": version, "kind": kind, "metadata": {"namespace": namespace}}))?;
        let list = if namespaced { api.list(&ListParams::default()).await?.items } else { vec![api.get(org).await?] };
        for object in list {
            let mut object = serde_json::to_value(object)?;
            object["apiVersion"] = version.into();
            object["kind"] = kind.into();
            objects.push(object);
        }
    }
    Ok(Snapshot::build(&World::from_objects(objects), org))
}

/// What a view says of the call that is made here.
fn decided(view: &Snapshot, username: &str) -> &'static str {
    let caller = Caller { username: username.to_owned(), ..Caller::default() };
    let args = json!({"amount": 20, "to": "ann"});
    let request = Request {
        verb: "tool.call",
        tool: "pay",
        tool_org: None,
        args: &args,
        caller: &caller,
        task: None,
        job_space: None,
        context: None,
        id: "",
        approved: &[],
        now: jiff::Timestamp::now(),
        past: Past::Unknown,
    };
    view.decide(&request).verdict.name()
}

/// Digest of a Policy as the chain records it: its uid and spec.
async fn definition(client: &kube::Client, org: &str, manifest: &str) -> Result<String> {
    let stored = Api::<Policy>::namespaced(client.clone(), org).get("flux").await?;
    let wanted: Value = serde_json::from_str(manifest)?;
    let spec: polity_api::PolicySpec = serde_json::from_value(wanted["spec"].clone())?;
    let body = json!({"uid": stored.metadata.uid, "spec": spec});
    let text = polity_ledger::canonical(&body).map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(hex::encode(Sha256::digest(text.as_bytes())))
}

/// One Org with a thousand Policies for ten tools: each decides what it is about, a change of one binds, and when they go nothing of them is left.
pub async fn a_thousand_policies(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("many");
    fixtures::organisation(&admin, &org).await?;
    let pay = Api::<Tool>::namespaced(admin.clone(), &org).get("pay").await?;
    for n in 0..TOOLS {
        let tool =
            json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Tool", "metadata": {"name": tool(n), "namespace": org}, "spec": pay.spec});
        apply(&admin, &tool.to_string()).await?;
    }
    help::patch(&admin, "Role", Some(&org), "payer", json!({"spec": {"grants": [{"tools": ["pay*"]}]}})).await??;
    let robot = help::robot(polity, &org).await?;
    let policies: Api<Policy> = Api::namespaced(admin.clone(), &org);
    let made: Vec<Policy> = (0..MANY).map(|n| Ok(serde_json::from_value(about(&org, n, n))?)).collect::<Result<_>>()?;
    stream::iter(made)
        .map(|policy| {
            let policies = policies.clone();
            async move { policies.create(&PostParams::default(), &policy).await.map(drop) }
        })
        .buffer_unordered(8)
        .try_collect::<()>()
        .await?;
    // Whoever is named in one is denied by that one and no other.
    let item = |n: usize, whom: usize| json!({"tool": tool(n), "input": {"amount": 20, "to": format!("person-{whom}")}});
    let by = |n: usize| json!([format!("{org}/p-{n}/rule")]);
    for from in (0..MANY).step_by(BATCH) {
        let asked: Vec<usize> = (from..MANY.min(from + BATCH)).collect();
        until(SOON, "the Policies bind", || async {
            let body = json!({"items": asked.iter().map(|n| item(*n, *n)).collect::<Vec<_>>()});
            let (code, body) = robot.evaluate(&org, body).await.map_err(|e| e.to_string())?;
            let answers = body["items"].as_array().cloned().unwrap_or_default();
            let wrong = asked.iter().zip(&answers).find(|(n, answer)| answer["reason"] != "PolicyDenied" || answer["rules"] != by(**n));
            match wrong {
                None if code == 200 && answers.len() == asked.len() => Ok(()),
                wrong => Err(format!("{code}: {} answers, of them wrong: {wrong:?}", answers.len())),
            }
        })
        .await?;
    }
    let mut call = item(777, 777);
    let (code, body) = robot.call(&org, call.clone()).await?;
    ensure!(code == 403 && body["rules"] == by(777), "{code} {body}");
    call["input"]["to"] = "ann".into();
    call["waitSeconds"] = 0.into();
    let (code, body) = robot.call(&org, call).await?;
    ensure!(code == 202, "nobody's: {code} {body}");

    // One of them is about somebody else now.
    apply(&admin, &about(&org, 777, 5000).to_string()).await?;
    until(SOON, "the change of one binds", || async {
        let (_, body) = robot.evaluate(&org, json!({"items": [item(777, 777), item(777, 5000)]})).await.map_err(|e| e.to_string())?;
        let (old, new) = (&body["items"][0], &body["items"][1]);
        if old["verdict"] == "Allow" && new["rules"] == by(777) { Ok(()) } else { Err(body.to_string()) }
    })
    .await?;
    policies.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    until(SOON, "none is left", || async {
        let (_, body) = robot.evaluate(&org, json!({"items": [item(1, 1), item(777, 5000)]})).await.map_err(|e| e.to_string())?;
        let gone = body["items"].as_array().is_some_and(|items| items.len() == 2 && items.iter().all(|i| i["verdict"] == "Allow"));
        if gone { Ok(()) } else { Err(body.to_string()) }
    })
    .await
}

/// Name of the tool that this Policy is for.
fn tool(policy: usize) -> String {
    format!("pay-{}", policy % TOOLS)
}

/// A Policy that denies payments to one person.
fn about(org: &str, n: usize, whom: usize) -> Value {
    json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Policy", "metadata": {"name": format!("p-{n}"), "namespace": org},
        "spec": {"match": {"tools": [tool(n)]}, "rules": [{"name": "rule", "expression": format!("args.to != 'person-{whom}'"), "effect": "Deny"}]}})
}
