//! Approvals: who counts, how many, how long, once, and for exactly what was asked.

use anyhow::{Context, Result, ensure};
use kube::{Api, Client};
use polity_api::{Approval, ToolCall, approval::ApprovalPhase, toolcall::Phase};
use polity_e2e::{apply, org_name, parts::Polity, shim, until};
use serde_json::{Value, json};

use crate::{
    calls::{call, phase},
    fixtures::{self, SOON},
    help,
};

/// The fixture with people: `ann` (two usernames) asks and is a manager herself, `boss` (two usernames) and `chief` are managers.
pub async fn people(polity: &Polity, org: &str, approval: Value) -> Result<String> {
    let admin = polity.cluster.admin().await?;
    let uid = fixtures::organisation(&admin, org).await?;
    let user = |name: &str, role: &str| json!({"kind": "User", "name": format!("{name}@{org}"), "role": role});
    let members = json!([
        user("ann", "engineer"),
        user("ann", "approver"),
        user("ann2", "approver"),
        user("boss", "approver"),
        user("boss2", "approver"),
        user("chief", "approver"),
        user("other", "approver"),
        user("bot", "engineer"),
        user("director", "director"),
    ]);
    help::patch(&admin, "Org", None, org, json!({"spec": {"members": members}})).await??;
    for (name, usernames) in [("ann", vec!["ann", "ann2"]), ("chief", vec!["chief"])] {
        let usernames: Vec<String> = usernames.iter().map(|u| format!("{u}@{org}")).collect();
        let agent = json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name, "namespace": org}, "spec": {"type": "Human", "usernames": usernames}});
        apply(&admin, &agent.to_string()).await?;
    }
    let usernames = [format!("boss@{org}"), format!("boss2@{org}")];
    help::patch(&admin, "Agent", Some(org), "boss", json!({"spec": {"usernames": usernames}})).await??;
    help::patch(&admin, "Role", Some(org), "manager", json!({"spec": {"assignment": {"agents": ["boss", "chief", "ann"]}}})).await??;
    help::patch(&admin, "Role", Some(org), "payer", json!({"spec": {"assignment": {"agents": ["bot", "ann"]}}})).await??;
    let rule = json!({"name": "small", "expression": "args.amount <= 50", "effect": "RequireApproval", "approval": approval});
    help::patch(&admin, "Policy", Some(org), "limits", json!({"spec": {"rules": [rule]}})).await??;
    let managers: Api<polity_api::Role> = Api::namespaced(admin.clone(), org);
    until(SOON, "three managers", || async {
        let role = managers.get("manager").await.map_err(|e| e.to_string())?;
        if role.status.as_ref().is_some_and(|s| s.holders.len() == 3) { Ok(()) } else { Err(format!("{:?}", role.status)) }
    })
    .await?;
    for approver in ["ann", "ann2", "boss", "boss2", "chief", "other"] {
        help::may(&admin, &format!("{approver}@{org}"), org, "patch", "approvals").await?;
    }
    help::takes(&help::of(polity, &format!("ann@{org}"), org).await?, &call(200, "ann")).await?;
    Ok(uid)
}

/// A large payment that `who` asks for, waiting: name, uid, Approval.
async fn asked(polity: &Polity, org: &str, who: &str) -> Result<(String, String, String)> {
    let admin = polity.cluster.admin().await?;
    let calls: Api<ToolCall> = help::of(polity, &format!("{who}@{org}"), org).await?;
    let (name, id) = help::made(&calls, &call(200, "ann")).await?;
    let waiting = phase(&admin, org, &name, Phase::WaitingApproval).await?;
    Ok((name, id, waiting.status.and_then(|s| s.approval).context("approval")?))
}

/// Waits until the Approval is in this phase.
async fn stands(client: &Client, org: &str, approval: &str, wanted: ApprovalPhase) -> Result<Approval> {
    let approvals: Api<Approval> = Api::namespaced(client.clone(), org);
    until(SOON, &format!("Approval {approval} is {wanted:?}"), || async {
        let approval = approvals.get(approval).await.map_err(|e| e.to_string())?;
        if approval.status.as_ref().and_then(|s| s.phase) == Some(wanted) { Ok(approval) } else { Err(format!("{:?}", approval.status)) }
    })
    .await
}

fn two() -> Value {
    json!({"role": {"name": "manager"}, "count": 2})
}

/// Two different managers must approve: not the requester under any name, not one person twice, nobody without the Role.
pub async fn a_quorum_counts_different_people(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("quorum");
    let uid = people(polity, &org, two()).await?;
    let (name, id, approval) = asked(polity, &org, "ann").await?;
    let as_user = |who: &str| format!("{who}@{org}");
    for (who, part) in [("ann", "NotAnApprover"), ("ann2", "NotAnApprover"), ("other", "NotAnApprover"), ("bot", "cannot patch")] {
        help::refused(help::decides(polity, &org, &approval, &as_user(who), "Approve").await?, 403, &[part])
            .with_context(|| who.to_owned())?;
    }
    help::decides(polity, &org, &approval, &as_user("boss"), "Approve").await??;
    // His second name adds nothing; whether it is refused or ignored is no matter.
    let _ = help::decides(polity, &org, &approval, &as_user("boss2"), "Approve").await?;
    let approvals: Api<Approval> = Api::namespaced(admin.clone(), &org);
    until(SOON, "one of two is counted", || async {
        let approval = approvals.get(&approval).await.map_err(|e| e.to_string())?;
        let status = approval.status.clone().unwrap_or_default();
        let seen = status.observed_generation == approval.metadata.generation.unwrap_or_default();
        if seen && status.requirements.iter().all(|r| r.approved_by.len() == 1 && !r.met) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await?;
    stands(&admin, &org, &approval, ApprovalPhase::Pending).await?;
    ensure!(help::kinds(&help::lines(polity, &uid, Some(&id))?) == ["hold"], "it began with one of two");
    help::decides(polity, &org, &approval, &as_user("chief"), "Approve").await??;
    shim::play(polity, &org, &id, 0, "{}").await?;
    phase(&admin, &org, &name, Phase::Succeeded).await?;
    let lines = help::lines(polity, &uid, Some(&id))?;
    ensure!(help::kinds(&lines) == ["hold", "begin", "settle"], "{lines:?}");
    Ok(())
}

/// One No denies, also after a Yes; nobody adds anything to what has ended.
pub async fn one_no_denies(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("no");
    let uid = people(polity, &org, two()).await?;
    let (name, id, approval) = asked(polity, &org, "bot").await?;
    help::decides(polity, &org, &approval, &format!("boss@{org}"), "Approve").await??;
    help::decides(polity, &org, &approval, &format!("chief@{org}"), "Deny").await??;
    stands(&admin, &org, &approval, ApprovalPhase::Denied).await?;
    let denied = phase(&admin, &org, &name, Phase::Denied).await?;
    ensure!(help::reason(&denied) == "ApprovalDenied", "{denied:?}");
    help::refused(help::decides(polity, &org, &approval, &format!("ann@{org}"), "Approve").await?, 403, &["ApprovalEnded"])?;
    until(SOON, "the hold is given back and nothing began", || async {
        let lines = help::lines(polity, &uid, Some(&id)).map_err(|e| e.to_string())?;
        let kinds = help::kinds(&lines);
        if kinds.contains(&"release") && kinds.contains(&"decision") && !kinds.contains(&"begin") {
            Ok(())
        } else {
            Err(format!("{kinds:?}"))
        }
    })
    .await
}

/// Nobody says enough in time: denied.
pub async fn expiry_counts_as_denied(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("late");
    people(polity, &org, json!({"role": {"name": "manager"}, "expiresAfter": "2s"})).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &call(200, "ann")).await?;
    let (name, _) = help::made(&calls, &call(200, "ann")).await?;
    let denied = phase(&admin, &org, &name, Phase::Denied).await?;
    ensure!(help::reason(&denied) == "ApprovalExpired", "{denied:?}");
    let approval = denied.status.and_then(|s| s.approval).context("approval")?;
    stands(&admin, &org, &approval, ApprovalPhase::Expired).await?;
    help::refused(help::decides(polity, &org, &approval, &format!("boss@{org}"), "Approve").await?, 403, &["ApprovalExpired"])?;
    Ok(())
}

/// An Approval is good for the one run that was asked for: the same call again asks again.
pub async fn an_approval_is_good_for_one_run(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("single");
    let uid = people(polity, &org, json!({"role": {"name": "manager"}})).await?;
    let (name, id, approval) = asked(polity, &org, "bot").await?;
    help::decides(polity, &org, &approval, &format!("boss@{org}"), "Approve").await??;
    shim::play(polity, &org, &id, 0, "{}").await?;
    phase(&admin, &org, &name, Phase::Succeeded).await?;
    let (again, next, second) = asked(polity, &org, "bot").await?;
    ensure!(second != approval && again != name);
    ensure!(help::kinds(&help::lines(polity, &uid, Some(&next))?) == ["hold"], "the second began");
    Ok(())
}

/// What was approved is what runs: a Tool that changed in between denies, and so does a rule that came in between.
pub async fn a_change_after_the_question_denies(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("changed");
    let uid = people(polity, &org, json!({"role": {"name": "manager"}})).await?;
    let (name, id, approval) = asked(polity, &org, "bot").await?;
    let image = json!({"spec": {"runtime": {"container": {"image": "docker.io/evil/evil:latest"}}}});
    help::patch(&admin, "Tool", Some(&org), "pay", image).await??;
    let tools: Api<polity_api::Tool> = Api::namespaced(admin.clone(), &org);
    until(SOON, "the Tool's change is seen", || async {
        let tool = tools.get("pay").await.map_err(|e| e.to_string())?;
        if tool.status.as_ref().map(|s| s.observed_generation) == tool.metadata.generation {
            Ok(())
        } else {
            Err(format!("{:?}", tool.status))
        }
    })
    .await?;
    if help::decides(polity, &org, &approval, &format!("boss@{org}"), "Approve").await?.is_err() {
        let ended = help::one_of(&admin, &org, &name, &[Phase::Denied]).await?;
        ensure!(help::reason(&ended) == "ApprovalMismatch", "{ended:?}");
    }
    let denied = phase(&admin, &org, &name, Phase::Denied).await?;
    ensure!(help::reason(&denied) == "ApprovalMismatch", "{denied:?}");
    ensure!(!help::kinds(&help::lines(polity, &uid, Some(&id))?).contains(&"begin"), "it began");

    let (name, id, approval) = asked(polity, &org, "bot").await?;
    apply(&admin, &crate::admission::policy(&org, "new", "args.amount < 100")).await?;
    help::refuses(&help::bot(polity, &org).await?, &call(200, "ann"), "PolicyDenied").await?;
    if help::decides(polity, &org, &approval, &format!("boss@{org}"), "Approve").await?.is_ok() {
        let denied = phase(&admin, &org, &name, Phase::Denied).await?;
        ensure!(help::reason(&denied) == "PolicyDenied", "{denied:?}");
    }
    ensure!(!help::kinds(&help::lines(polity, &uid, Some(&id))?).contains(&"begin"), "it began");
    Ok(())
}
