//! Takes ToolCalls from their queue, one pass at a time for each, and says when to come back. What a pass does is in `call`.

use std::{sync::Arc, time::Duration};

use kube::{Client, ResourceExt};
use polity_api::{ToolCall, toolcall::Phase};
use polity_ledger::{OrgId, Refused};
use polity_runtime::{clock::Clock, snapshots::Snapshots};

use super::{call::Pass, ends::expire, runner::Runner};
use crate::{
    engine::{Key, store::Store},
    events::Announcer,
    requeue::Outcome as Next,
};

/// How soon to look again at a call that cannot go on for a passing reason.
pub(super) const SOON: Duration = Duration::from_secs(2);
/// How soon to try again what somebody else's write came before.
const AT_ONCE: Duration = Duration::from_millis(100);

/// What reconciling a call needs.
pub struct CallContext {
    /// API client.
    pub client: Client,
    /// ToolCalls as watched and written.
    pub store: Arc<Store<ToolCall>>,
    /// Runner and, in it, the gate.
    pub runner: Arc<Runner>,
    /// Views of the Orgs.
    pub snapshots: Arc<Snapshots>,
    /// Tells people what they must notice.
    pub events: Arc<Announcer>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Why a pass over a call or an Approval failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server failed.
    #[error("the API server failed")]
    Api(#[from] kube::Error),
    /// The ledger failed.
    #[error("the ledger refused")]
    Ledger(#[from] Refused),
}

impl Error {
    /// Tells whoever runs Polity, and when to try again: at a steady pace, since a person or an agent waits and what failed may be back any moment.
    pub fn again(&self, key: &Key) -> Next {
        let overtaken = match self {
            Self::Api(kube::Error::Api(status)) => status.code == 409,
            Self::Ledger(refused) => matches!(refused, Refused::StaleSnapshot { .. } | Refused::Contended),
            Self::Api(_) => false,
        };
        if overtaken {
            return Next::At(AT_ONCE);
        }
        tracing::warn!(namespace = key.0, name = key.1, error = self as &dyn std::error::Error, "could not be reconciled");
        Next::At(SOON)
    }
}

/// One pass over a call.
///
/// # Errors
/// None.
pub async fn reconcile(ctx: Arc<CallContext>, key: Key) -> Result<Next, std::convert::Infallible> {
    let Some(call) = ctx.store.get(&key.0, &key.1) else {
        let Some(broken) = ctx.store.broken(&key.0, &key.1) else { return Ok(Next::Gone) };
        tracing::warn!(namespace = key.0, name = key.1, error = %broken.error, "a stored ToolCall cannot be read: it never starts");
        return Ok(Next::Settled);
    };
    Ok(pass(&ctx, &call).await.unwrap_or_else(|error| error.again(&key)))
}

async fn pass(ctx: &CallContext, call: &ToolCall) -> Result<Next, Error> {
    let (Some(id), Some(namespace)) = (call.uid(), call.namespace()) else { return Ok(Next::Settled) };
    if call.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Settled);
    }
    let now = ctx.clock.now();
    ctx.events.call(call);
    let phase = call.status.as_ref().and_then(|s| s.phase);
    if phase.is_some_and(Phase::ended) {
        return expire(ctx, call, &namespace, now).await;
    }
    // A namespace that is no Org's (yet), or a view that is not fresh: nothing starts, look again.
    let Some(org_name) = ctx.snapshots.by_namespace(&namespace) else { return Ok(Next::At(SOON)) };
    let Ok(snapshot) = ctx.snapshots.get(&org_name) else { return Ok(Next::At(SOON)) };
    let org = OrgId { name: org_name, uid: snapshot.org_uid().to_owned() };
    // Boxed, as in `decide`: the futures hold whole decisions.
    Box::pin(Pass { ctx, call, id, namespace, org, snapshot, now }.go()).await
}
