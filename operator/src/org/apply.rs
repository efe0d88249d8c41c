//! Writes what an Org needs, in a fixed order, and prunes what it no longer needs.
//!
//! Order: finalizer, namespace, quota, limits, isolation, CA, account, members. Isolation and quota stand before anything can run.

use std::collections::BTreeSet;

use k8s_openapi::api::{core::v1::Namespace, networking::v1::NetworkPolicy, rbac::v1::RoleBinding};
use kube::{
    Api, ResourceExt,
    api::{Patch, PostParams},
};
use polity_api::{Org, names, org::NamespaceRef, reasons};
use polity_plan::quota::{Amounts, Share, allocate};
use serde_json::json;

use super::{
    OrgError,
    build::{self, Bundle},
    dereference::{Facts, quota_of, units},
    validate::{Checked, Plan, Stop},
};
use crate::{
    apply::{ApplyError, apply as apply_child, manager, prune},
    compare::difference,
    context::Context,
    killpoint,
};

/// What was applied; status is made from this only.
#[derive(Default)]
pub struct Applied {
    /// The namespace, when it is there.
    pub namespace: Option<NamespaceRef>,
    /// Quota as allocated.
    pub share: Option<Share>,
    /// What of the quota is in force.
    pub hard: Option<Amounts>,
    /// Resources that Kubernetes does not count yet: until it does, it refuses every creation of them.
    pub uncounted: Vec<String>,
    /// An object that has the name of ours.
    pub taken: Option<Stop>,
    /// Everything was applied.
    pub done: bool,
}

/// Applies as much as the checks allow.
pub async fn apply(ctx: &Context, facts: &Facts, checked: &Checked) -> Result<Applied, OrgError> {
    let mut applied = Applied::default();
    let (Ok(()), Ok(plan)) = (&checked.ancestry, &checked.namespace) else { return Ok(applied) };
    finalizer(ctx, &facts.org, true).await?;
    killpoint::reached("org-finalizer");
    let Some(namespace) = namespace(ctx, facts, plan).await? else { return Ok(applied) };
    killpoint::reached("org-namespace");
    let foreign = !namespace.created;
    applied.namespace = Some(namespace);
    let result = objects(ctx, facts, checked, foreign, &mut applied).await;
    match result {
        Ok(()) => {
            applied.done = true;
            Ok(applied)
        }
        Err(OrgError::Apply(taken @ ApplyError::Taken { .. })) => {
            applied.taken = Some(Stop { reason: reasons::NAME_TAKEN, message: format!("{taken}."), stalled: true });
            Ok(applied)
        }
        Err(error) => Err(error),
    }
}

/// Puts our finalizer on, or takes it off.
pub async fn finalizer(ctx: &Context, org: &Org, on: bool) -> Result<(), OrgError> {
    let has = org.finalizers().iter().any(|f| f == names::FINALIZER);
    if has == on {
        return Ok(());
    }
    let mut finalizers: Vec<_> = org.finalizers().iter().filter(|f| *f != names::FINALIZER).cloned().collect();
    if on {
        finalizers.push(names::FINALIZER.to_owned());
    }
    // The version: others' finalizers come and go as well.
    let patch = json!({"metadata": {"uid": org.metadata.uid, "resourceVersion": org.metadata.resource_version, "finalizers": finalizers}});
    let api: Api<Org> = Api::all(ctx.client.clone());
    match api.patch(&org.name_any(), &manager(), &Patch::Merge(patch)).await {
        Ok(written) => {
            ctx.cluster.orgs.learn(written);
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 && !on => Ok(()),
        Err(error) => Err(OrgError::Kube("writing the finalizer", org.name_any(), Box::new(error))),
    }
}

/// Makes or repairs the namespace. None: somebody else was faster; his is seen soon.
async fn namespace(ctx: &Context, facts: &Facts, plan: &Plan) -> Result<Option<NamespaceRef>, OrgError> {
    let failed = |what| move |e| OrgError::Kube(what, facts.org.name_any(), Box::new(e));
    let name = facts.org.wanted_namespace().to_owned();
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let wanted = build::namespace(&facts.org);
    let uid = match plan {
        Plan::Adopted(uid) => return Ok(Some(NamespaceRef { name, uid: uid.clone(), created: false })),
        // A create, never an apply: an apply would put our consent label on a namespace that somebody just made.
        Plan::Create => {
            match api.create(&PostParams { field_manager: Some(names::CORE.to_owned()), ..PostParams::default() }, &wanted).await {
                Ok(made) => {
                    let uid = made.uid().unwrap_or_default();
                    ctx.cluster.namespaces.learn(made);
                    uid
                }
                Err(kube::Error::Api(status)) if status.code == 409 => return Ok(None),
                Err(error) => return Err(failed("creating the namespace")(error)),
            }
        }
        Plan::Own(uid) => {
            let json = |n: &Namespace| serde_json::to_value(n).unwrap_or_default();
            if facts.namespace.as_ref().is_none_or(|live| difference(&json(&wanted), &json(live), &[]).apply) {
                let patch = json!({"metadata": {"uid": uid, "labels": wanted.metadata.labels}});
                let repaired = api.patch(&name, &manager(), &Patch::Merge(patch)).await.map_err(failed("repairing the namespace"))?;
                ctx.cluster.namespaces.learn(repaired);
            }
            uid.clone()
        }
    };
    Ok(Some(NamespaceRef { name, uid, created: true }))
}

async fn objects(ctx: &Context, facts: &Facts, checked: &Checked, foreign: bool, applied: &mut Applied) -> Result<(), OrgError> {
    if checked.asks.is_ok() {
        quota(ctx, facts, foreign, applied).await?;
    }
    let Bundle { limits, network, ca, account, bindings } = build::bundle(facts, &checked.members);
    apply_child(ctx, &limits, foreign).await?;
    for policy in &network {
        apply_child(ctx, policy, foreign).await?;
    }
    if let Some(ca) = &ca {
        apply_child(ctx, ca, foreign).await?;
    }
    apply_child(ctx, &account, foreign).await?;
    for binding in &bindings {
        apply_child(ctx, binding, foreign).await?;
    }
    let (namespace, uid) = (facts.org.wanted_namespace(), facts.org.uid().unwrap_or_default());
    let names = |list: Vec<String>| list.into_iter().collect::<BTreeSet<_>>();
    prune::<RoleBinding>(ctx, namespace, &uid, &names(bindings.iter().map(ResourceExt::name_any).collect())).await?;
    prune::<NetworkPolicy>(ctx, namespace, &uid, &names(network.iter().map(ResourceExt::name_any).collect())).await?;
    Ok(())
}

/// Allocates under the lock: gives back first what others no longer have, then takes what is free.
async fn quota(ctx: &Context, facts: &Facts, foreign: bool, applied: &mut Applied) -> Result<(), OrgError> {
    let name = facts.org.name_any();
    let root = facts.path.as_ref().ok().and_then(|p| p.first()).unwrap_or(&name);
    let lock = ctx.allocation(root);
    let _one_at_a_time = lock.lock().await;
    let before = units(&ctx.cluster, &name);
    let shares = allocate(&before);
    for unit in before.iter().filter(|u| u.name != name) {
        if let Some(share) = shares.get(&unit.name) {
            lower(ctx, &unit.name, &unit.live, share).await?;
        }
    }
    let Some(share) = allocate(&units(&ctx.cluster, &name)).remove(&name) else { return Ok(()) };
    apply_child(ctx, &build::resource_quota(&facts.org, &share.hard), foreign).await?;
    applied.uncounted = ctx.cluster.uncounted(facts.org.wanted_namespace(), share.hard.keys());
    remind(ctx, facts, &share.hard, foreign, &applied.uncounted).await?;
    applied.hard = Some(share.hard.clone());
    applied.share = Some(share);
    Ok(())
}

/// Kubernetes' quota controller learns of new kinds up to 30 s after they are installed, and looks again at a quota that it has seen before only
/// after minutes, or when its spec changes. So one that stays uncounted is changed and changed back.
async fn remind(ctx: &Context, facts: &Facts, hard: &Amounts, foreign: bool, uncounted: &[String]) -> Result<(), OrgError> {
    if uncounted.is_empty() || !ctx.remind(facts.org.wanted_namespace(), facts.now) {
        return Ok(());
    }
    tracing::info!(org = facts.org.name_any(), ?uncounted, "the quota is not counted yet: reminding Kubernetes of it");
    let counted: Amounts = hard.iter().filter(|(r, _)| !uncounted.contains(r)).map(|(r, a)| (r.clone(), *a)).collect();
    apply_child(ctx, &build::resource_quota(&facts.org, &counted), foreign).await?;
    apply_child(ctx, &build::resource_quota(&facts.org, hard), foreign).await?;
    Ok(())
}

/// Lowers another Org's quota where it no longer has it; raising is for its own reconcile.
async fn lower(ctx: &Context, name: &str, live: &Amounts, share: &Share) -> Result<(), OrgError> {
    let lower: Amounts = live.iter().map(|(r, l)| (r.clone(), share.hard.get(r).map_or(*l, |h| *h.min(l)))).collect();
    let Some(org) = ctx.cluster.orgs.get("", name) else { return Ok(()) };
    if lower == *live || org.metadata.deletion_timestamp.is_some() || quota_of(&ctx.cluster, &org).is_none() {
        return Ok(());
    }
    apply_child(ctx, &build::resource_quota(&org, &lower), false).await?;
    Ok(())
}
