//! Judges Approvals and writes their status; records each end in the ledger first.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use polity_api::{Approval, ApprovalStatus, approval::ApprovalPhase, conditions, reasons};
use polity_ledger::{Actor, Note, OrgId, Target};
use polity_runtime::{clock::Clock, snapshots::Snapshots};

use super::evaluate::{Standing, evaluate};
use crate::{
    dispatch::{Error, Gate},
    engine::{Key, store::Store},
    events::Announcer,
    requeue::Outcome as Next,
};

/// How soon to look again when the view of the Org is not fresh.
const SOON: Duration = Duration::from_secs(2);
/// How often to look at a waiting Approval, since the holders of a Role may change.
const SLOW: Duration = Duration::from_secs(30);

/// What judging needs.
pub struct ApprovalContext {
    /// API client.
    pub client: Client,
    /// Approvals as watched and written.
    pub store: Arc<Store<Approval>>,
    /// The gate in front of the ledger.
    pub gate: Arc<Gate>,
    /// Views of the Orgs.
    pub snapshots: Arc<Snapshots>,
    /// Tells people what they must notice.
    pub events: Arc<Announcer>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// One pass over an Approval.
///
/// # Errors
/// None.
pub async fn reconcile(ctx: Arc<ApprovalContext>, key: Key) -> Result<Next, std::convert::Infallible> {
    let Some(approval) = ctx.store.get(&key.0, &key.1) else {
        let Some(broken) = ctx.store.broken(&key.0, &key.1) else { return Ok(Next::Gone) };
        tracing::warn!(namespace = key.0, name = key.1, error = %broken.error, "a stored Approval cannot be read: it is never met");
        return Ok(Next::Settled);
    };
    Ok(pass(&ctx, &approval).await.unwrap_or_else(|error| error.again(&key)))
}

async fn pass(ctx: &ApprovalContext, approval: &Approval) -> Result<Next, Error> {
    ctx.events.approval(approval);
    let ended = approval.status.as_ref().and_then(|s| s.phase).is_some_and(|p| p != ApprovalPhase::Pending);
    if ended || approval.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Settled);
    }
    let namespace = approval.namespace().unwrap_or_default();
    let Some(org_name) = ctx.snapshots.by_namespace(&namespace) else { return Ok(Next::At(SOON)) };
    let Ok(snapshot) = ctx.snapshots.get(&org_name) else { return Ok(Next::At(SOON)) };
    let now = ctx.clock.now();
    let standing = evaluate(&approval.spec, snapshot.as_ref(), now);
    if standing.phase != ApprovalPhase::Pending {
        ctx.gate.note(note(approval, OrgId { name: org_name, uid: snapshot.org_uid().to_owned() }, &standing)).await?;
        crate::killpoint::reached("approval-recorded");
    }
    if let Some(written) = write(&ctx.client, approval, &standing, now).await? {
        ctx.store.learn(written);
    }
    let left = approval.spec.expires_at.0.duration_since(now).as_secs().clamp(0, 3_600);
    let left = Duration::from_secs(u64::try_from(left).unwrap_or_default() + 1);
    Ok(Next::At(left.min(SLOW)))
}

/// Writes the status if it differs, fenced by resourceVersion; answers what is stored then.
pub(super) async fn write(
    client: &Client,
    approval: &Approval,
    standing: &Standing,
    now: jiff::Timestamp,
) -> Result<Option<Approval>, kube::Error> {
    let status = status(approval, standing, now);
    if approval.status.as_ref() == Some(&status) {
        return Ok(None);
    }
    let api: Api<Approval> = Api::namespaced(client.clone(), &approval.namespace().unwrap_or_default());
    let patch = serde_json::json!({"metadata": {"resourceVersion": approval.resource_version()}, "status": status});
    api.patch_status(&approval.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(Some)
}

fn status(approval: &Approval, standing: &Standing, now: jiff::Timestamp) -> ApprovalStatus {
    let generation = approval.metadata.generation.unwrap_or_default();
    let mut list = approval.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let (word, reason) = match standing.phase {
        ApprovalPhase::Approved => ("True", reasons::APPROVED),
        ApprovalPhase::Pending => ("Unknown", reasons::APPROVAL_REQUIRED),
        ApprovalPhase::Denied => ("False", reasons::APPROVAL_DENIED),
        ApprovalPhase::Expired => ("False", reasons::APPROVAL_EXPIRED),
        ApprovalPhase::Withdrawn => ("False", reasons::CANCELED),
    };
    conditions::clear(&mut list, conditions::RECONCILING);
    conditions::set_status(&mut list, conditions::SUCCEEDED, word, reason, &standing.message, generation, now);
    ApprovalStatus {
        observed_generation: generation,
        conditions: list,
        phase: Some(standing.phase),
        requirements: standing.requirements.clone(),
    }
}

/// The record of an Approval's end: who said what, and what it was about.
fn note(approval: &Approval, org: OrgId, standing: &Standing) -> Note {
    let uid = approval.uid().unwrap_or_default();
    let deciders: Vec<serde_json::Value> = approval
        .spec
        .decisions
        .iter()
        .map(|d| serde_json::json!({"by": d.by, "decision": d.decision, "at": d.at, "reason": d.reason}))
        .collect();
    Note {
        kind: "approval".to_owned(),
        org,
        once: Some(format!("approval/{uid}/{:?}", standing.phase)),
        subject: None,
        actor: Some(Actor { kind: "System".to_owned(), username: polity_api::names::CORE.to_owned(), ..Actor::default() }),
        target: Some(Target {
            kind: "Approval".to_owned(),
            namespace: approval.namespace().unwrap_or_default(),
            name: approval.name_any(),
            digest: approval.spec.digest.digest.clone(),
        }),
        reason: format!("{:?}", standing.phase),
        facts: BTreeMap::from([
            ("decisions".to_owned(), serde_json::Value::Array(deciders)),
            ("call".to_owned(), serde_json::json!(approval.spec.action.call_uid)),
            ("approval".to_owned(), serde_json::json!(uid)),
        ]),
    }
}
