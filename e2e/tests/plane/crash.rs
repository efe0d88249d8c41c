//! Core killed with -9 between every two steps of a ToolCall and of an Org's life. Several Orgs are under way at each death, and each life of
//! core ends at the next point, so that recovery itself is killed as well. In the end everything is as if nothing had happened.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::future::{try_join, try_join_all};
use k8s_openapi::api::{
    core::v1::{ConfigMap, LimitRange, Namespace, Pod, ResourceQuota, ServiceAccount},
    networking::v1::NetworkPolicy,
    rbac::v1::RoleBinding,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use polity_api::{Approval, Org, ToolCall, toolcall::Phase};
use polity_e2e::{apply, audit, chaos, ledger, org_name, parts::Polity, shim::Shim, until};
use serde_json::json;

use crate::{
    calls::{call, phase},
    fixtures, help,
};

/// How long a shim keeps trying: over all deaths of core.
const PATIENCE: Duration = Duration::from_secs(240);

/// One Org under test.
struct House {
    name: String,
    uid: String,
    bot: Api<ToolCall>,
}

/// One call and how it must end.
struct Made {
    org: usize,
    name: String,
    id: String,
    wanted: Phase,
}

/// Killed at each point of calls that run, wait, are approved and are denied.
pub async fn at_each_point_of_a_call(polity: &mut Polity) -> Result<()> {
    chaos::mended(polity, |p| Box::pin(calls(p))).await
}

async fn calls(polity: &mut Polity) -> Result<()> {
    let from = audit::position(&polity.cluster)?;
    let houses = houses(polity).await?;
    let shim = Shim::new(polity, PATIENCE);
    // Asked for before anything dies: what the points of Approvals need.
    let mut approved = make(&houses, 200, Phase::Succeeded).await?;
    let mut refused = make(&houses, 300, Phase::Denied).await?;
    for made in approved.iter().chain(&refused) {
        phase(&polity.cluster.admin().await?, &houses[made.org].name, &made.name, Phase::WaitingApproval).await?;
    }
    let mut run = Vec::new();
    let mut waiting = Vec::new();
    for point in ["call-pod-made", "call-begun", "call-status-written"] {
        chaos::reborn(&polity.cluster, &mut polity.core, Some(point)).await?;
        run.extend(make(&houses, 20, Phase::Succeeded).await?);
        chaos::dies(&mut polity.core, point).await?;
    }
    chaos::reborn(&polity.cluster, &mut polity.core, Some("call-settled")).await?;
    run.extend(make(&houses, 20, Phase::Succeeded).await?);
    let lives = async {
        chaos::dies(&mut polity.core, "call-settled").await?;
        for point in ["call-held", "call-approval-made"] {
            chaos::reborn(&polity.cluster, &mut polity.core, Some(point)).await?;
            waiting.extend(make(&houses, 200, Phase::Succeeded).await?);
            chaos::dies(&mut polity.core, point).await?;
        }
        chaos::reborn(&polity.cluster, &mut polity.core, Some("approval-recorded")).await?;
        decide(&polity.cluster, &houses, &approved, "Approve").await?;
        chaos::dies(&mut polity.core, "approval-recorded").await?;
        chaos::reborn(&polity.cluster, &mut polity.core, Some("call-denied")).await?;
        decide(&polity.cluster, &houses, &refused, "Deny").await?;
        chaos::dies(&mut polity.core, "call-denied").await?;
        chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
        polity.core.ready().await
    };
    try_join(play(&shim, &houses, &run), lives).await?;
    for made in &waiting {
        phase(&polity.cluster.admin().await?, &houses[made.org].name, &made.name, Phase::WaitingApproval).await?;
    }
    decide(&polity.cluster, &houses, &waiting, "Approve").await?;
    approved.append(&mut waiting);
    play(&shim, &houses, &approved).await?;
    run.append(&mut approved);
    run.append(&mut refused);
    for made in &run {
        ended(polity, &houses, made).await.with_context(|| format!("call {} of {}", made.name, houses[made.org].name))?;
    }
    once(polity, &houses, &run, from)?;
    ledger::check(&polity.dir.join("data")).map(drop)
}

/// Three Orgs that take calls.
async fn houses(polity: &Polity) -> Result<Vec<House>> {
    let admin = polity.cluster.admin().await?;
    try_join_all((0..3).map(|i| {
        let admin = admin.clone();
        async move {
            let name = org_name(&format!("crash{i}"));
            let uid = fixtures::organisation(&admin, &name).await?;
            let bot = help::bot(polity, &name).await?;
            help::takes(&bot, &help::small()).await?;
            Ok(House { name, uid, bot })
        }
    }))
    .await
}

/// Makes one call of this amount in each Org. Admission asks no core, so this works with core dead.
async fn make(houses: &[House], amount: i64, wanted: Phase) -> Result<Vec<Made>> {
    try_join_all(houses.iter().enumerate().map(|(org, house)| async move {
        let mut call = call(amount, "ann");
        call.spec.idempotency_key = Some(uuid::Uuid::new_v4().to_string());
        let (name, id) = help::made(&house.bot, &call).await?;
        Ok(Made { org, name, id, wanted })
    }))
    .await
}

async fn play(shim: &Shim, houses: &[House], calls: &[Made]) -> Result<()> {
    try_join_all(calls.iter().map(|made| async move {
        let receipt = json!({"receipt": made.id}).to_string();
        shim.play(&houses[made.org].name, &made.id, 0, &receipt)
            .await
            .with_context(|| format!("shim of {} in {}", made.name, houses[made.org].name))
    }))
    .await
    .map(drop)
}

/// The manager decides; his word is stored whether core lives or not.
async fn decide(cluster: &polity_e2e::Cluster, houses: &[House], calls: &[Made], word: &str) -> Result<()> {
    let admin = cluster.admin().await?;
    for made in calls {
        let org = &houses[made.org].name;
        let boss = format!("boss@{org}");
        let call = Api::<ToolCall>::namespaced(admin.clone(), org).get(&made.name).await?;
        let approval = call.status.and_then(|s| s.approval).context("approval")?;
        let api: Api<Approval> = Api::namespaced(cluster.user(&boss, &[]).await?, org);
        let patch = json!({"spec": {"decisions": [{"by": boss, "decision": word}]}});
        api.patch(&approval, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    Ok(())
}

/// The call ended as it should, its result is its own tool's, and the ledger tells the same.
async fn ended(polity: &Polity, houses: &[House], made: &Made) -> Result<()> {
    let house = &houses[made.org];
    let call = phase(&polity.cluster.admin().await?, &house.name, &made.name, made.wanted).await?;
    let lines = help::lines(polity, &house.uid, Some(&made.id))?;
    let kinds = help::kinds(&lines);
    let count = |kind: &str| kinds.iter().filter(|k| **k == kind).count();
    if made.wanted == Phase::Denied {
        ensure!(help::reason(&call) == "ApprovalDenied", "{}", help::reason(&call));
        ensure!(count("begin") == 0 && count("hold") == 1 && count("release") == 1 && count("decision") == 1, "{kinds:?}");
        return Ok(());
    }
    let status = call.status.unwrap_or_default();
    let output = status.result.and_then(|r| r.output);
    ensure!(output == Some(json!({"receipt": made.id})), "another result: {output:?}");
    ensure!(status.pod.as_ref().is_some_and(|p| p.name == format!("call-{}", made.id)), "{:?}", status.pod);
    ensure!(status.decision.as_ref().is_some_and(|d| d.verdict == "Allow") && status.started_at.is_some(), "{:?}", status.decision);
    ensure!(count("begin") == 1 && count("settle") == 1 && count("hold") <= 1 && kinds.len() == 2 + count("hold"), "{kinds:?}");
    if let Some(approval) = status.approval {
        let admin = polity.cluster.admin().await?;
        let uid = Api::<Approval>::namespaced(admin.clone(), &house.name).get(&approval).await?.uid().unwrap_or_default();
        let records = help::lines(polity, &house.uid, None)?;
        let about = records.iter().filter(|r| r["kind"] == "approval" && r.to_string().contains(&uid)).count();
        ensure!(about == 1, "{about} records of Approval {approval}");
        let all = Api::<Approval>::namespaced(admin, &house.name).list(&ListParams::default()).await?;
        let of_call = all.iter().filter(|a| a.spec.action.call_uid == made.id).count();
        ensure!(of_call == 1, "{of_call} Approvals");
    }
    Ok(())
}

/// No Pod was made twice, by the API server's own log; that of a denied call never.
fn once(polity: &Polity, houses: &[House], calls: &[Made], from: u64) -> Result<()> {
    let writes = audit::writes(&polity.cluster, from)?;
    for made in calls {
        let (org, pod) = (&houses[made.org].name, format!("call-{}", made.id));
        let of_pod = |w: &&audit::Write| w.verb == "create" && w.resource == "pods" && w.namespace == *org && w.name == pod;
        let answers: Vec<i64> = writes.iter().filter(of_pod).map(|w| w.code).collect();
        let made_pods = answers.iter().filter(|code| **code == 201).count();
        // Who dies while he asks gets no answer, though the Pod may have been made.
        let unheard = answers.iter().filter(|code| **code >= 500).count();
        let right = if made.wanted == Phase::Succeeded { made_pods <= 1 && made_pods + unheard >= 1 } else { answers.is_empty() };
        ensure!(right, "Pod {pod} in {org} was asked for with {answers:?}");
    }
    Ok(())
}

/// Killed at each point while Orgs and a worker are made, and while they are deleted.
pub async fn at_each_point_of_an_org(polity: &mut Polity) -> Result<()> {
    chaos::mended(polity, |p| Box::pin(orgs(p))).await
}

async fn orgs(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let from = audit::position(&polity.cluster)?;
    // One that nobody kills, to compare with; then two of the same and one in somebody's namespace.
    let control = org_name("control");
    apply(&admin, &manifest(&control)).await?;
    fixtures::ready(&admin, &control).await?;
    let names: Vec<String> = ["dying0", "dying1", "guest"].into_iter().map(org_name).collect();
    let guest = &names[2];
    let foreign = format!(
        "
{{apiVersion: v1, kind: Namespace, metadata: {{name: {guest}, labels: {{polity.dev/org: {guest}}}}}}}
---
{{apiVersion: v1, kind: ConfigMap, metadata: {{name: theirs, namespace: {guest}}}, data: {{a: b}}}}
---
{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: theirs, namespace: {guest}}}}}
---
{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: theirs, namespace: {guest}}}, spec: {{podSelector: {{matchLabels: {{app: theirs}}}}, policyTypes: [Ingress]}}}}
---
{{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {{name: theirs, namespace: {guest}}}, roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}, subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: someone}}]}}
"
    );
    apply(&admin, &foreign).await?;
    let theirs = versions(&admin, guest).await?;

    let points =
        ["org-finalizer", "org-namespace", "ResourceQuota", "LimitRange", "NetworkPolicy", "ConfigMap", "ServiceAccount", "RoleBinding"];
    for (i, point) in points.into_iter().enumerate() {
        chaos::reborn(&polity.cluster, &mut polity.core, Some(point)).await?;
        if i == 0 {
            for name in &names {
                apply(&admin, &manifest(name)).await?;
            }
        }
        chaos::dies(&mut polity.core, point).await?;
    }
    chaos::reborn(&polity.cluster, &mut polity.core, Some("agent-pod-created")).await?;
    for name in &names {
        // Its namespace may not be there yet.
        until(fixtures::SOON, "the worker is asked for", || async {
            apply(&admin, &worker(name)).await.map(drop).map_err(|e| format!("{e:#}"))
        })
        .await?;
    }
    chaos::dies(&mut polity.core, "agent-pod-created").await?;
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    polity.core.ready().await?;
    apply(&admin, &worker(&control)).await?;
    for name in names.iter().chain([&control]) {
        fixtures::ready(&admin, name).await.with_context(|| name.clone())?;
        one_worker(&admin, name).await?;
    }
    let wanted = inventory(&admin, &control).await?;
    for name in &names {
        let mut found = inventory(&admin, name).await?;
        found.retain(|(_, name)| name != "theirs");
        ensure!(found == wanted, "{name} differs: {found:?}\nfrom {wanted:?}");
    }
    ensure!(versions(&admin, guest).await? == theirs, "what is theirs was touched");

    let orgs: Api<Org> = Api::all(admin.clone());
    for (i, point) in ["org-calls-ended", "org-flushed", "org-namespace-gone"].into_iter().enumerate() {
        chaos::reborn(&polity.cluster, &mut polity.core, Some(point)).await?;
        if i == 0 {
            for name in names.iter().chain([&control]) {
                orgs.delete(name, &DeleteParams::default()).await?;
            }
        }
        chaos::dies(&mut polity.core, point).await?;
    }
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    polity.core.ready().await?;
    for name in names.iter().chain([&control]) {
        gone(&admin, name, name == guest).await?;
    }
    ensure!(versions(&admin, guest).await? == theirs, "what is theirs was touched by the deletion");
    let mut left = inventory(&admin, guest).await?;
    left.retain(|(_, name)| name != "theirs");
    ensure!(left.is_empty(), "left behind: {left:?}");
    let writes = audit::of_polity(audit::writes(&polity.cluster, from)?);
    for name in &names {
        let made = writes.iter().filter(|w| w.resource == "namespaces" && w.verb == "create" && w.code == 201 && w.name == *name).count();
        // At most: who dies while the API server makes it hears no 201, and the log has none; that it is there was seen above.
        ensure!(made <= usize::from(name != guest), "namespace {name} was made {made} times");
    }
    ledger::check(&polity.dir.join("data")).map(drop)
}

fn manifest(name: &str) -> String {
    json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Org", "metadata": {"name": name}, "spec": {
        "quota": {"hard": {"pods": "5"}},
        "members": [{"kind": "User", "name": format!("bot@{name}"), "role": "engineer"}, {"kind": "User", "name": format!("boss@{name}"), "role": "approver"}],
    }})
    .to_string()
}

fn worker(name: &str) -> String {
    format!(
        "{{apiVersion: polity.dev/v1alpha1, kind: Agent, metadata: {{name: robot, namespace: {name}}}, spec: {{type: AI, image: docker.io/polity/polity:dev, command: [/worker], replicas: 1}}}}"
    )
}

/// Exactly one worker Pod, which stays the one.
async fn one_worker(client: &Client, namespace: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    // Quota is counted on new clusters after up to half a minute, and no worker starts before.
    until(fixtures::SOON, "one worker", || async {
        let list = pods.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        if list.items.len() == 1 { Ok(()) } else { Err(format!("{} Pods", list.items.len())) }
    })
    .await
}

/// Kind and name of everything that may be in an Org's namespace, with the namespace's own name blotted out.
async fn inventory(client: &Client, namespace: &str) -> Result<Vec<(&'static str, String)>> {
    let mut all: Vec<(&'static str, String)> =
        each(client, namespace).await?.into_iter().map(|(kind, name, _)| (kind, name.replace(namespace, "ORG"))).collect();
    all.sort();
    Ok(all)
}

/// Versions of what is not ours.
async fn versions(client: &Client, namespace: &str) -> Result<BTreeMap<&'static str, String>> {
    Ok(each(client, namespace)
        .await?
        .into_iter()
        .filter(|(_, name, _)| name == "theirs")
        .map(|(kind, _, version)| (kind, version))
        .collect())
}

async fn each(client: &Client, namespace: &str) -> Result<Vec<(&'static str, String, String)>> {
    let mut all = Vec::new();
    macro_rules! list {
        ($($kind:ident),*) => {$(
            let api: Api<$kind> = Api::namespaced(client.clone(), namespace);
            for object in api.list(&ListParams::default()).await? {
                // Made by Kubernetes itself.
                if !["default", "kube-root-ca.crt"].contains(&object.name_any().as_str()) {
                    all.push((stringify!($kind), object.name_any(), object.resource_version().unwrap_or_default()));
                }
            }
        )*};
    }
    list!(ResourceQuota, LimitRange, NetworkPolicy, ConfigMap, ServiceAccount, RoleBinding);
    Ok(all)
}

/// The Org is gone, and its namespace unless that was somebody's.
async fn gone(client: &Client, name: &str, adopted: bool) -> Result<()> {
    let (orgs, namespaces): (Api<Org>, Api<Namespace>) = (Api::all(client.clone()), Api::all(client.clone()));
    until(fixtures::SOON * 2, &format!("Org {name} is gone"), || async {
        let org = orgs.get_opt(name).await.map_err(|e| e.to_string())?;
        let namespace = namespaces.get_opt(name).await.map_err(|e| e.to_string())?;
        let kept = namespace.as_ref().is_some_and(|n| n.metadata.deletion_timestamp.is_none());
        if org.is_none() && namespace.is_some() == adopted && kept == adopted {
            Ok(())
        } else {
            Err(format!("{:?} {:?}", org.map(|o| o.status), namespace.map(|n| n.status)))
        }
    })
    .await
}
