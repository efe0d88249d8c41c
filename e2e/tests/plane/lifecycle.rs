//! Stopping and ending: Orgs suspended, not yet begun, deleted; calls canceled, lost, resolved, cleared away.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use polity_api::{Approval, Org, ToolCall, approval::ApprovalPhase, toolcall::Phase};
use polity_e2e::{apply, ledger, org_name, parts::Polity, shim, until};
use serde_json::json;

use crate::{
    calls::{call, phase},
    fixtures::{self, SOON},
    help,
    tenancy::gone,
};

/// A second after the answer to `suspend: true` nothing starts any more, whoever asks; what runs ends; resumed, calls are taken again.
/// Alone, since it is a promise about time: the work of other tests is not what it is about.
pub async fn suspended_within_a_second(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("suspend");
    let uid = fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let (running, id) = help::made(&calls, &help::small()).await?;
    phase(&admin, &org, &running, Phase::Running).await?;
    let (waiting, _) = help::made(&calls, &call(200, "ann")).await?;
    let approval = phase(&admin, &org, &waiting, Phase::WaitingApproval).await?.status.and_then(|s| s.approval).context("approval")?;

    help::patch(&admin, "Org", None, &org, json!({"spec": {"suspend": true}})).await??;
    let (answered, at) = (Instant::now(), jiff::Timestamp::now());
    // Asked without a pause; only what is asked after the second counts.
    let mut late = 0;
    while late < 5 {
        let counts = answered.elapsed() >= Duration::from_secs(1);
        let through_api = calls.create(&PostParams::default(), &help::small()).await;
        let (code, body) = robot.call(&org, json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}, "waitSeconds": 0})).await?;
        if counts {
            help::refused(through_api, 403, &["OrgSuspended"])?;
            ensure!(code == 403 && body["reason"] == "OrgSuspended", "{code} {body}");
            late += 1;
        }
        ensure!(answered.elapsed() < SOON, "asking took too long");
    }
    // Approved meanwhile: it does not start either.
    if help::decides(polity, &org, &approval, &format!("boss@{org}"), "Approve").await?.is_ok() {
        let ended = help::one_of(&admin, &org, &waiting, &[Phase::Denied]).await?;
        ensure!(help::reason(&ended) == "OrgSuspended", "{ended:?}");
    }
    let deadline = at + jiff::SignedDuration::from_secs(1);
    for line in help::lines(polity, &uid, None)?.iter().filter(|l| l["kind"] == "begin") {
        let time: jiff::Timestamp = line["time"].as_str().with_context(|| line.to_string())?.parse()?;
        ensure!(time <= deadline, "began {time}, suspended {at}: {line}");
    }
    help::condition(&admin, "Org", None, &org, "Started", "OrgSuspended").await?;
    // In flight finishes.
    shim::play(polity, &org, &id, 0, "{}").await?;
    phase(&admin, &org, &running, Phase::Succeeded).await?;
    // Workers are stopped.
    let pods: Api<Pod> = Api::namespaced(admin.clone(), &org);
    until(SOON, "the worker is stopped", || async {
        pods.get_opt(&robot.pod.name_any()).await.map_err(|e| e.to_string())?.map_or(Ok(()), |_| Err("there".to_owned()))
    })
    .await?;
    help::patch(&admin, "Org", None, &org, json!({"spec": {"suspend": false}})).await??;
    help::takes(&calls, &help::small()).await?;
    help::condition(&admin, "Org", None, &org, "Started", "Started").await?;
    Ok(())
}

/// Before `startAt` nothing starts; then it does, by itself. A parent that has not started holds its children.
pub async fn nothing_starts_before_start_at(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("early");
    let below = format!("{org}-kid");
    fixtures::organisation(&admin, &org).await?;
    fixtures::unit(&admin, &below, &org).await?;
    let (calls, kid) = (help::bot(polity, &org).await?, help::bot(polity, &below).await?);
    help::takes(&calls, &help::small()).await?;
    help::takes(&kid, &help::small()).await?;
    let starts = async |seconds: i64| {
        let start = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        help::patch(&admin, "Org", None, &org, json!({"spec": {"startAt": start.to_string()}})).await??;
        anyhow::Ok(start)
    };
    // Far away, so that there is time to look however slow the machine is; then near.
    starts(3600).await?;
    help::refuses(&calls, &help::small(), "OrgSuspended").await?;
    help::refuses(&kid, &help::small(), "OrgSuspended").await?;
    help::condition(&admin, "Org", None, &org, "Started", "NotYetStarted").await?;
    let start = starts(4).await?;
    help::takes(&calls, &help::small()).await?;
    ensure!(jiff::Timestamp::now() >= start, "taken before {start}");
    help::takes(&kid, &help::small()).await?;
    help::condition(&admin, "Org", None, &org, "Started", "Started").await?;
    help::condition(&admin, "Org", None, &below, "Started", "Started").await?;
    Ok(())
}

/// A deleted Org goes with its namespace although a call waits and one runs; its chain stays whole.
pub async fn a_deleted_org_leaves_its_chain(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("leaving");
    let uid = fixtures::organisation(&admin, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let (done, id) = help::made(&calls, &help::small()).await?;
    shim::play(polity, &org, &id, 0, "{}").await?;
    phase(&admin, &org, &done, Phase::Succeeded).await?;
    let (waiting, _) = help::made(&calls, &call(200, "ann")).await?;
    phase(&admin, &org, &waiting, Phase::WaitingApproval).await?;
    let (running, last) = help::made(&calls, &help::small()).await?;
    phase(&admin, &org, &running, Phase::Running).await?;
    help::patch(&admin, "Org", None, &org, json!({"spec": {"deletionProtection": true}})).await??;
    let orgs: Api<Org> = Api::all(admin.clone());
    help::refused(orgs.delete(&org, &DeleteParams::default()).await, 403, &["deletionProtection"])?;
    help::patch(&admin, "Org", None, &org, json!({"spec": {"deletionProtection": false}})).await??;
    orgs.delete(&org, &DeleteParams::default()).await?;
    help::refuses(&calls, &help::small(), "OrgDeleting").await?;
    shim::play(polity, &org, &last, 0, "{}").await?;
    gone(&admin, &org).await?;
    let lines = help::lines(polity, &uid, Some(&id))?;
    ensure!(help::kinds(&lines) == ["begin", "settle"], "{lines:?}");
    ledger::check(&polity.dir.join("data"))?;
    // The same name again is another Org with a chain of its own.
    let next = fixtures::organisation(&admin, &org).await?;
    ensure!(next != uid);
    help::takes(&calls, &help::small()).await
}

/// Canceled while it waits: never begins, its Approval is withdrawn. Canceled while it runs but has not started: its Pod goes, nothing was done.
pub async fn canceled_calls_end(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("cancel");
    let uid = fixtures::organisation(&admin, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let cancel = Patch::Merge(json!({"spec": {"cancel": true}}));
    let params = PatchParams::default();

    let (waiting, id) = help::made(&calls, &call(200, "ann")).await?;
    let approval = phase(&admin, &org, &waiting, Phase::WaitingApproval).await?.status.and_then(|s| s.approval).context("approval")?;
    calls.patch(&waiting, &params, &cancel).await?;
    phase(&admin, &org, &waiting, Phase::Canceled).await?;
    let approvals: Api<Approval> = Api::namespaced(admin.clone(), &org);
    until(SOON, "the Approval is withdrawn", || async {
        let approval = approvals.get(&approval).await.map_err(|e| e.to_string())?;
        let withdrawn = approval.status.as_ref().and_then(|s| s.phase) == Some(ApprovalPhase::Withdrawn);
        if withdrawn { Ok(()) } else { Err(format!("{:?}", approval.status)) }
    })
    .await?;
    help::refused(help::decides(polity, &org, &approval, &format!("boss@{org}"), "Approve").await?, 403, &["ApprovalEnded"])?;
    ensure!(!help::kinds(&help::lines(polity, &uid, Some(&id))?).contains(&"begin"), "it began");
    help::refused(
        calls.patch(&waiting, &params, &Patch::Merge(json!({"spec": {"cancel": false}}))).await,
        422,
        &["cancel cannot be taken back"],
    )?;

    let (running, id) = help::made(&calls, &help::small()).await?;
    phase(&admin, &org, &running, Phase::Running).await?;
    calls.patch(&running, &params, &cancel).await?;
    phase(&admin, &org, &running, Phase::Canceled).await?;
    let lines = help::lines(polity, &uid, Some(&id))?;
    ensure!(help::kinds(&lines) == ["begin", "settle"] && lines[1]["outcome"] == "NotDone", "{lines:?}");
    let pods: Api<Pod> = Api::namespaced(admin.clone(), &org);
    until(SOON, "its Pod is gone", || async {
        pods.get_opt(&format!("call-{id}")).await.map_err(|e| e.to_string())?.map_or(Ok(()), |_| Err("there".to_owned()))
    })
    .await
}

/// A canceled Task takes no new call, ends those that wait, stops those that run. A Task that is not there takes none either.
pub async fn a_canceled_task_ends_its_calls(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("task");
    fixtures::organisation(&admin, &org).await?;
    let task = json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Task", "metadata": {"name": "close-books", "namespace": org}, "spec": {"jobSpace": "books"}});
    apply(&admin, &task.to_string()).await?;
    let calls = help::bot(polity, &org).await?;
    let of_task = |amount: i64, task: &str| {
        let mut call = call(amount, "ann");
        call.spec.task_ref = Some(polity_api::toolcall::TaskRef { name: task.to_owned() });
        call
    };
    help::takes(&calls, &of_task(20, "close-books")).await?;
    help::refused(help::tried(&calls, &of_task(20, "no-such")).await, 403, &["TaskNotFound", "no-such"])?;
    let (running, _) = help::made(&calls, &of_task(20, "close-books")).await?;
    let (waiting, _) = help::made(&calls, &of_task(200, "close-books")).await?;
    let (beside, _) = help::made(&calls, &help::small()).await?;
    phase(&admin, &org, &running, Phase::Running).await?;
    phase(&admin, &org, &waiting, Phase::WaitingApproval).await?;
    phase(&admin, &org, &beside, Phase::Running).await?;
    help::patch(&admin, "Task", Some(&org), "close-books", json!({"spec": {"cancel": true}})).await??;
    let ended = phase(&admin, &org, &waiting, Phase::Canceled).await?;
    ensure!(help::reason(&ended) == "TaskCanceled", "{ended:?}");
    phase(&admin, &org, &running, Phase::Canceled).await?;
    help::refuses(&calls, &of_task(20, "close-books"), "TaskCanceled").await?;
    help::takes(&calls, &help::small()).await?;
    phase(&admin, &org, &beside, Phase::Running).await?;
    // A Role of a job space grants only to calls for a Task of it.
    help::patch(&admin, "Role", Some(&org), "payer", json!({"spec": {"jobSpace": "books"}})).await??;
    help::refuses(&calls, &help::small(), "NotGranted").await?;
    let again = task.to_string().replace("close-books", "open-books");
    apply(&admin, &again).await?;
    help::takes(&calls, &of_task(20, "open-books")).await
}

/// A run whose Pod vanished is Unknown and stays so until a director says what happened, once.
pub async fn a_lost_run_is_resolved_by_a_director(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("lost");
    let uid = fixtures::organisation(&admin, &org).await?;
    let members = json!([
        {"kind": "User", "name": format!("bot@{org}"), "role": "engineer"},
        {"kind": "User", "name": format!("manager@{org}"), "role": "admin"},
        {"kind": "User", "name": format!("director@{org}"), "role": "director"},
    ]);
    help::patch(&admin, "Org", None, &org, json!({"spec": {"members": members}})).await??;
    help::may(&admin, &format!("manager@{org}"), &org, "patch", "toolcalls").await?;
    help::may(&admin, &format!("director@{org}"), &org, "resolve", "toolcalls").await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let (name, id) = help::made(&calls, &help::small()).await?;
    phase(&admin, &org, &name, Phase::Running).await?;
    let say = |outcome: &str, reason: &str| Patch::Merge(json!({"spec": {"resolution": {"outcome": outcome, "reason": reason}}}));
    let params = PatchParams::default();
    let director: Api<ToolCall> = help::of(polity, &format!("director@{org}"), &org).await?;
    help::refused(director.patch(&name, &params, &say("Done", "guess")).await, 403, &["ResolutionRefused"])?;
    let pods: Api<Pod> = Api::namespaced(admin.clone(), &org);
    pods.delete(&format!("call-{id}"), &DeleteParams::default().grace_period(0)).await?;
    let lost = phase(&admin, &org, &name, Phase::Unknown).await?;
    ensure!(help::said(&lost) == "OutcomeUnknown", "{lost:?}");
    for who in ["bot", "manager"] {
        let api: Api<ToolCall> = help::of(polity, &format!("{who}@{org}"), &org).await?;
        help::refused(api.patch(&name, &params, &say("Done", "the bank says so")).await, 403, &["resolve"])
            .with_context(|| who.to_owned())?;
    }
    let forged = Patch::Merge(json!({"spec": {"resolution": {"outcome": "Done", "reason": "x", "by": format!("other@{org}")}}}));
    if let Ok(made) = director.patch(&name, &PatchParams { dry_run: true, ..params.clone() }, &forged).await {
        ensure!(made.spec.resolution.is_some_and(|r| r.by == Some(format!("director@{org}"))), "resolved in another's name");
    }
    director.patch(&name, &params, &say("Done", "the bank says so")).await?;
    let ended = phase(&admin, &org, &name, Phase::Succeeded).await?;
    ensure!(help::said(&ended) == "Resolved", "{ended:?}");
    help::refused(director.patch(&name, &params, &say("NotDone", "changed my mind")).await, 422, &["set once"])?;
    let lines = help::lines(polity, &uid, Some(&id))?;
    ensure!(help::kinds(&lines) == ["begin", "settle", "resolution"], "{lines:?}");
    ensure!(lines[2].to_string().contains(&format!("director@{org}")), "{}", lines[2]);
    Ok(())
}

/// An ended call goes when its time is over, its records stay.
pub async fn an_ended_call_is_cleared_away(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("ttl");
    let uid = fixtures::organisation(&admin, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let mut short = help::small();
    short.spec.ttl_seconds_after_finished = 1;
    let (name, id) = help::made(&calls, &short).await?;
    shim::play(polity, &org, &id, 0, "{}").await?;
    until(SOON, "the call is gone", || async {
        calls.get_opt(&name).await.map_err(|e| e.to_string())?.map_or(Ok(()), |c| Err(format!("{:?}", c.status)))
    })
    .await?;
    ensure!(help::kinds(&help::lines(polity, &uid, Some(&id))?) == ["begin", "settle"]);
    Ok(())
}

/// Namespace, Org, or both deleted while core and edge are down: when they are up again nothing is stuck, and what remains works.
pub async fn deleted_while_polity_is_down(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let (lost, left, both, stays) = (org_name("lost-ns"), org_name("left-org"), org_name("both"), org_name("stays"));
    for name in [&lost, &left, &both, &stays] {
        fixtures::organisation(&admin, name).await?;
    }
    let calls = help::bot(polity, &left).await?;
    help::takes(&calls, &help::small()).await?;
    let (running, _) = help::made(&calls, &help::small()).await?;
    phase(&admin, &left, &running, Phase::Running).await?;
    polity.edge.kill()?;
    polity.core.kill()?;
    let (orgs, namespaces): (Api<Org>, Api<Namespace>) = (Api::all(admin.clone()), Api::all(admin.clone()));
    for name in [&lost, &both] {
        namespaces.delete(name, &DeleteParams::default()).await?;
    }
    for name in [&left, &both] {
        orgs.delete(name, &DeleteParams::default()).await?;
    }
    until(SOON * 2, "the namespaces are gone although Polity is down", || async {
        for name in [&lost, &both] {
            if let Some(namespace) = namespaces.get_opt(name).await.map_err(|e| e.to_string())? {
                return Err(format!("{:?}", namespace.status));
            }
        }
        Ok(())
    })
    .await?;
    polity.core.start()?;
    polity.edge.start()?;
    polity.core.ready().await?;
    polity.edge.ready().await?;
    gone(&admin, &both).await?;
    // The run in it is given up after the patience of the deletion, or found to have ended.
    until(SOON * 2, "the Org with a run is gone", || async {
        orgs.get_opt(&left).await.map_err(|e| e.to_string())?.map_or(Ok(()), |o| Err(format!("{:?}", o.status)))
    })
    .await?;
    // The Org that lost its namespace gets another one of that name and works again.
    fixtures::organisation(&admin, &lost).await?;
    help::takes(&help::bot(polity, &lost).await?, &help::small()).await?;
    help::takes(&help::bot(polity, &stays).await?, &help::small()).await
}

/// Two ToolCalls with one idempotency key and the same request run once, and both show the outcome; another request under it is denied.
pub async fn calls_with_one_key_run_once(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("keyed");
    let uid = fixtures::organisation(&admin, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let keyed = |amount: i64| {
        let mut call = call(amount, "ann");
        call.spec.idempotency_key = Some("invoice-9".to_owned());
        call
    };
    let (first, id) = help::made(&calls, &keyed(20)).await?;
    phase(&admin, &org, &first, Phase::Running).await?;
    let (second, _) = help::made(&calls, &keyed(20)).await?;
    let (other, _) = help::made(&calls, &keyed(21)).await?;
    let denied = phase(&admin, &org, &other, Phase::Denied).await?;
    ensure!(help::reason(&denied) == "IdempotencyKeyReused", "{denied:?}");
    shim::play(polity, &org, &id, 0, r#"{"receipt": "r-9"}"#).await?;
    for name in [&first, &second] {
        let ended = phase(&admin, &org, name, Phase::Succeeded).await?;
        let output = ended.status.and_then(|s| s.result).and_then(|r| r.output);
        ensure!(output == Some(json!({"receipt": "r-9"})), "{name}: {output:?}");
    }
    let begins = help::lines(polity, &uid, None)?.iter().filter(|l| l["kind"] == "begin").count();
    ensure!(begins == 1, "{begins} begins");
    Ok(())
}
