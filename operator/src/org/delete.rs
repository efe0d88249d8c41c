//! End of an Org, in order: close (decisions deny from the deletion timestamp on) → calls end → the ledger is flushed → the namespace goes
//! (an adopted one only loses what core made) → the finalizer is released. Each step is done again safely after a crash at any point.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::{ConfigMap, LimitRange, Namespace, Pod, ResourceQuota, ServiceAccount},
    networking::v1::NetworkPolicy,
    rbac::v1::RoleBinding,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Preconditions},
    core::ApiResource,
};
use polity_api::{Org, ToolCall, names, reasons};
use polity_ledger::OrgId;
use polity_runtime::guarded::Guarded;

use super::{OrgError, apply::finalizer};
use crate::{
    apply::prune,
    cluster::{controller_uid, parent_of},
    context::Context,
    killpoint,
    requeue::Outcome,
    status::{Writer, write},
};

/// How long calls may take to end once their Org is being deleted.
const PATIENCE: Duration = Duration::from_secs(60);
/// Phases in which nothing runs any more; an unknown outcome waits for a person, not for us.
const ENDED: [&str; 5] = ["Succeeded", "Failed", "Denied", "Canceled", "Unknown"];

/// One step of the end.
pub async fn reconcile(ctx: &Context, org: &Arc<Org>) -> Result<Outcome, OrgError> {
    let name = org.name_any();
    if !org.finalizers().iter().any(|f| f == names::FINALIZER) {
        return Ok(Outcome::Settled);
    }
    let children: Vec<_> = ctx.cluster.orgs.all().iter().filter(|o| parent_of(o).as_deref() == Some(&name)).map(|o| o.name_any()).collect();
    if !children.is_empty() {
        let list = children.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        say(ctx, org, reasons::CHILDREN_EXIST, &format!("Waits until the Orgs below are gone: {list} ({} in all).", children.len()))
            .await?;
        return Ok(Outcome::Waiting);
    }
    let namespace = ctx.cluster.namespaces.get("", org.wanted_namespace()).filter(|n| of(org, n));
    if let Some(namespace) = &namespace {
        let open = open_calls(ctx, org, namespace).await?;
        let since = org.metadata.deletion_timestamp.as_ref().map_or(ctx.now(), |t| t.0);
        let patience = i64::try_from(PATIENCE.as_secs()).unwrap_or_default();
        if open > 0 && ctx.now().duration_since(since).as_secs() < patience {
            say(ctx, org, reasons::ORG_DELETING, &format!("Waits for open calls to end, at most {patience} s.")).await?;
            return Ok(Outcome::At(Duration::from_secs(1)));
        }
    }
    killpoint::reached("org-calls-ended");
    // A namespace on its way out was flushed before it was deleted; whoever else deleted it, it is flushed when it is gone.
    if namespace.as_ref().is_none_or(|n| n.metadata.deletion_timestamp.is_none()) {
        flush(ctx, org).await?;
    }
    if let Some(namespace) = &namespace
        && !leave(ctx, org, namespace).await?
    {
        say(ctx, org, reasons::ORG_DELETING, &format!("Waits until namespace {} is gone.", namespace.name_any())).await?;
        return Ok(Outcome::Waiting);
    }
    killpoint::reached("org-namespace-gone");
    finalizer(ctx, org, false).await?;
    Ok(Outcome::Settled)
}

async fn flush(ctx: &Context, org: &Org) -> Result<(), OrgError> {
    let id = OrgId { name: org.name_any(), uid: org.uid().unwrap_or_default() };
    ctx.closing.flush(&id).await.map_err(|e| OrgError::Flush(org.name_any(), format!("{e:#}")))?;
    killpoint::reached("org-flushed");
    Ok(())
}

/// Whether the namespace is (still) this Org's: made for it, or the one it has adopted.
fn of(org: &Org, namespace: &Namespace) -> bool {
    let adopted = org.status.as_ref().and_then(|s| s.namespace.as_ref()).is_some_and(|n| Some(&n.uid) == namespace.metadata.uid.as_ref());
    controller_uid(namespace) == org.metadata.uid.as_deref() || adopted
}

/// Calls of the namespace that have not ended. Read live, since nothing of it is cached here.
async fn open_calls(ctx: &Context, org: &Org, namespace: &Namespace) -> Result<usize, OrgError> {
    // An undecodable call must not hold its Org for ever: only the phase is read.
    let api: Api<Guarded<DynamicObject>> =
        Api::namespaced_with(ctx.client.clone(), &namespace.name_any(), &ApiResource::erase::<ToolCall>(&()));
    let mut params = ListParams::default().limit(500);
    let mut open = 0;
    loop {
        let page = api.list(&params).await.map_err(|e| OrgError::Kube("reading the calls", org.name_any(), Box::new(e)))?;
        // A call that no one has ever decided holds nothing.
        open += page
            .iter()
            .filter_map(|c| c.0.as_ref().ok())
            .filter(|c| c.data["status"]["phase"].as_str().is_some_and(|p| !ENDED.contains(&p)))
            .count();
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(open),
        }
    }
}

/// Deletes a namespace that core made, or takes our things out of an adopted one. Whether that is complete.
async fn leave(ctx: &Context, org: &Org, namespace: &Namespace) -> Result<bool, OrgError> {
    let name = namespace.name_any();
    if controller_uid(namespace) != org.metadata.uid.as_deref() {
        let owners = ctx.cluster.agents.in_namespace(&name).iter().filter_map(|a| a.uid()).chain(org.uid()).collect::<Vec<_>>();
        for owner in owners {
            let none = BTreeSet::new();
            prune::<Pod>(ctx, &name, &owner, &none).await?;
            prune::<RoleBinding>(ctx, &name, &owner, &none).await?;
            prune::<ServiceAccount>(ctx, &name, &owner, &none).await?;
            prune::<ConfigMap>(ctx, &name, &owner, &none).await?;
            prune::<LimitRange>(ctx, &name, &owner, &none).await?;
            prune::<ResourceQuota>(ctx, &name, &owner, &none).await?;
            // Isolation goes last, when nothing is left that it isolates.
            prune::<NetworkPolicy>(ctx, &name, &owner, &none).await?;
        }
        return Ok(true);
    }
    if namespace.metadata.deletion_timestamp.is_some() {
        return Ok(false);
    }
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let preconditions = Some(Preconditions { uid: namespace.metadata.uid.clone(), resource_version: None });
    match api.delete(&name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
        Ok(either) => {
            if let Some(left) = either.left() {
                ctx.cluster.namespaces.learn(left);
            }
            Ok(false)
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
        Err(error) => Err(OrgError::Kube("deleting the namespace", org.name_any(), Box::new(error))),
    }
}

async fn say(ctx: &Context, org: &Arc<Org>, reason: &str, message: &str) -> Result<(), OrgError> {
    let mut status = org.status.clone().unwrap_or_default();
    status.observed_generation = org.metadata.generation.unwrap_or_default();
    let mut writer = Writer { conditions: &mut status.conditions, generation: status.observed_generation, now: ctx.now() };
    writer.summary(false, false, reason, message);
    write(&Api::all(ctx.client.clone()), &ctx.cluster.orgs, org.as_ref(), &status).await?;
    Ok(())
}
