//! The two ends of a ToolCall that need no decision: a refusal outside of the rules, and deletion when its time is over.

use std::time::Duration;

use jiff::Timestamp;
use kube::{Api, ResourceExt, api::DeleteParams};
use polity_api::ToolCall;
use polity_policy::{Decision, Snapshot, Verdict};

use super::controller::{CallContext, Error};
use crate::requeue::Outcome as Next;

/// Deletes an ended call when its time is over.
pub(super) async fn expire(ctx: &CallContext, call: &ToolCall, namespace: &str, now: Timestamp) -> Result<Next, Error> {
    let Some(finished) = call.status.as_ref().and_then(|s| s.finished_at.as_ref()) else { return Ok(Next::Settled) };
    let left = i64::from(call.spec.ttl_seconds_after_finished) - now.duration_since(finished.0).as_secs();
    if let Ok(left) = u64::try_from(left)
        && left > 0
    {
        return Ok(Next::At(Duration::from_secs(left)));
    }
    let api: Api<ToolCall> = Api::namespaced(ctx.client.clone(), namespace);
    let only = kube::api::Preconditions { uid: call.uid(), resource_version: None };
    match api.delete(&call.name_any(), &DeleteParams { preconditions: Some(only), ..DeleteParams::default() }).await {
        Ok(_) => Ok(Next::Settled),
        Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => Ok(Next::Settled),
        Err(error) => Err(error.into()),
    }
}

/// A refusal that comes before or outside of the rules.
pub(super) fn plain(reason: &'static str, message: String, snapshot: &Snapshot) -> Decision {
    Decision {
        verdict: Verdict::Deny,
        reason,
        message,
        hint: String::new(),
        rules: Vec::new(),
        advisory: Vec::new(),
        requirements: Vec::new(),
        expires_after: 0,
        snapshot: snapshot.digest().to_owned(),
        agent: None,
        roles: Vec::new(),
        tool: None,
        rewritten: None,
        rewrites: Vec::new(),
        obligations: None,
        counting: polity_policy::Counting::default(),
        later: Vec::new(),
    }
}
