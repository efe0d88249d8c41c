//! Approvals: made by core for a call that must wait, judged by core whenever somebody decides, time passes, or roles change.
//! Never decides for anybody: `evaluate` is pure and counts what people wrote.

mod controller;
mod evaluate;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use polity_api::{
    Approval, ApprovalSpec, ToolCall,
    approval::{ActionRef, ApprovalPhase, TargetRef},
    conditions,
    toolcall::Digest,
};
use polity_ledger::{KeyedDigest, Subject};
use polity_policy::Decision;

pub use controller::{ApprovalContext, reconcile};
pub use evaluate::{Standing, evaluate};

/// Name of a call's Approval: the call's own name and the start of its uid, so that a re-created call gets another one.
#[must_use]
pub fn name(call: &ToolCall, id: &str) -> String {
    let short: String = id.chars().take(8).collect();
    let name: String = call.name_any().chars().take(240).collect();
    format!("{name}-{short}")
}

/// The call's Approval, if it has one. One of that name that is for another call is none of ours.
///
/// # Errors
/// The API server failed.
pub async fn find(client: &Client, namespace: &str, call: &ToolCall, id: &str) -> Result<Option<Approval>, kube::Error> {
    let api: Api<Approval> = Api::namespaced(client.clone(), namespace);
    Ok(api.get_opt(&name(call, id)).await?.filter(|a| a.spec.action.call_uid == id))
}

/// When the Approval of a call expires: as it says, or counted from the call's creation so that a restart does not prolong it.
#[must_use]
pub fn expiry(approval: Option<&Approval>, decision: &Decision, call: &ToolCall, now: Timestamp) -> Timestamp {
    let from = call.creation_timestamp().map_or(now, |t| t.0);
    approval.map_or_else(|| from + SignedDuration::from_secs(decision.expires_after.max(1)), |a| a.spec.expires_at.0)
}

/// Makes the Approval of a call; one that is there already is returned as it is.
///
/// # Errors
/// The API server failed or refused.
#[allow(clippy::too_many_arguments)]
pub async fn make(
    client: &Client,
    namespace: &str,
    call: &ToolCall,
    id: &str,
    subject: &Subject,
    decision: &Decision,
    digest: KeyedDigest,
    expires: Timestamp,
) -> Result<Approval, kube::Error> {
    let spec = ApprovalSpec {
        action: ActionRef {
            verb: subject.verb.clone(),
            target: TargetRef {
                kind: subject.target.kind.clone(),
                namespace: subject.target.namespace.clone(),
                name: subject.target.name.clone(),
                digest: subject.target.digest.clone(),
            },
            call: call.name_any(),
            call_uid: id.to_owned(),
            task: subject.dims.get("task").cloned(),
        },
        input: call.spec.input.clone().unwrap_or_default(),
        digest: Digest { digest: digest.digest, key_id: digest.key_id },
        requester: call.spec.caller.clone().unwrap_or_default(),
        requirements: decision.requirements.clone(),
        expires_at: Time(expires),
        decisions: Vec::new(),
    };
    let metadata = ObjectMeta {
        name: Some(name(call, id)),
        namespace: Some(namespace.to_owned()),
        owner_references: Some(vec![crate::dispatch::owner(&call.name_any(), id)]),
        ..ObjectMeta::default()
    };
    let api: Api<Approval> = Api::namespaced(client.clone(), namespace);
    match api.create(&PostParams::default(), &Approval { metadata, spec, status: None }).await {
        Err(kube::Error::Api(e)) if e.code == 409 => api.get(&name(call, id)).await,
        other => other,
    }
}

/// Ends an Approval that still waits, since its call no longer does. One that has ended stays as it is.
///
/// # Errors
/// The API server failed.
pub async fn withdraw(client: &Client, namespace: &str, call: &ToolCall, id: &str, why: &str, now: Timestamp) -> Result<(), kube::Error> {
    let Some(approval) = find(client, namespace, call, id).await? else { return Ok(()) };
    if approval.status.as_ref().and_then(|s| s.phase).is_some_and(|p| p != ApprovalPhase::Pending) {
        return Ok(());
    }
    let standing =
        Standing { phase: ApprovalPhase::Withdrawn, requirements: Vec::new(), message: format!("the call no longer waits: {why}") };
    controller::write(client, &approval, &standing, now).await.map(drop)
}

/// What an Approval's condition says.
#[must_use]
pub fn message(approval: &Approval) -> String {
    let list = approval.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let said = list.iter().find(|c| c.type_ == conditions::SUCCEEDED).map(|c| c.message.as_str()).unwrap_or_default();
    format!("Approval {}: {said}", approval.name_any())
}
