//! Which change wakes which reconcile. Told too often costs a look at the caches; told too seldom would be a fault, which the slow resync mends.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use kube::{Resource, ResourceExt};
use polity_api::{Agent, Approval, Org, Policy, Role, Task, Tool, ToolCall, toolcall::Phase};

use crate::{
    agent::claimed,
    cluster::parent_of,
    context::Context,
    engine::{key_of, store::Change},
};

/// Spec, existence or deletion changed, not just status.
fn definition_changed<K: Resource>(change: &Change<K>) -> bool {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => {
            let (old, new) = (old.meta(), new.meta());
            old.generation != new.generation || old.uid != new.uid || old.deletion_timestamp.is_some() != new.deletion_timestamp.is_some()
        }
        _ => true,
    }
}

/// An Org: itself; its parent (children block deletion, quota is shared); everything below (ancestry, suspension); its siblings when quota
/// moves; and what lives in the namespaces of all these.
pub fn org(ctx: &Context, change: &Change<Org>) {
    let name = &change.key.1;
    ctx.queues.org(name);
    if let Some(closing) = change.new.as_ref().filter(|o| o.metadata.deletion_timestamp.is_some()) {
        // A call that waits ends with its Org, which waits for it.
        calls(ctx, closing.wanted_namespace(), |call| phase(call) == Some(Phase::WaitingApproval));
    }
    let conditions = |o: &Option<std::sync::Arc<Org>>| {
        o.as_ref()
            .and_then(|o| o.status.as_ref())
            .map(|s| s.conditions.iter().map(|c| (c.type_.clone(), c.status.clone())).collect::<Vec<_>>())
    };
    let namespace = |o: &Option<std::sync::Arc<Org>>| o.as_ref().and_then(|o| o.status.as_ref()).and_then(|s| s.namespace.clone());
    let stage_changed = conditions(&change.old) != conditions(&change.new) || namespace(&change.old) != namespace(&change.new);
    if !definition_changed(change) {
        if stage_changed {
            inhabitants(ctx, name);
            // Its Tools count for the rules above only from the moment that its namespace is its own.
            policies_above(ctx, name);
        }
        return;
    }
    let present = change.new.as_ref().or(change.old.as_ref());
    let parent = present.and_then(|o| parent_of(o));
    let quota =
        |o: &Option<std::sync::Arc<Org>>| o.as_ref().and_then(|o| o.spec.quota.as_ref().map(|q| q.hard.clone())).unwrap_or_default();
    let quota_moved = quota(&change.old) != quota(&change.new);
    let links = ctx.cluster.links();
    if let Some(parent) = &parent {
        ctx.queues.org(parent);
        if quota_moved {
            links.iter().filter(|(_, l)| l.parent.as_ref() == Some(parent)).for_each(|(sibling, _)| ctx.queues.org(sibling));
        }
    }
    // Others may want the namespace that this one has, or had.
    if change.new.is_none() || change.old.is_none() {
        let wanted = present.map(|o| o.wanted_namespace().to_owned());
        ctx.cluster
            .orgs
            .all()
            .iter()
            .filter(|o| wanted.as_deref() == Some(o.wanted_namespace()))
            .for_each(|o| ctx.queues.org(&o.name_any()));
    }
    let (mut below, mut todo) = (BTreeSet::from([name.clone()]), vec![name.clone()]);
    while let Some(above) = todo.pop() {
        for (child, _) in links.iter().filter(|(_, l)| l.parent.as_ref() == Some(&above)) {
            if below.insert(child.clone()) {
                todo.push(child.clone());
            }
        }
    }
    for org in &below {
        ctx.queues.org(org);
        inhabitants(ctx, org);
    }
    if let Some(gone) = change.old.as_ref().filter(|_| change.new.is_none()) {
        inhabitants_of(ctx, gone.wanted_namespace());
    }
}

/// Policies of the Org and of those above it.
fn policies_above(ctx: &Context, org: &str) {
    let above: BTreeSet<String> = ctx.cluster.path(org).unwrap_or_default().into_iter().collect();
    let owner = |key: &crate::engine::Key| ctx.cluster.org_of(&key.0).is_some_and(|o| above.contains(&o.name_any()));
    ctx.cluster.policies.keys().into_iter().filter(owner).for_each(|key| ctx.queues.policies.add(key));
}

/// Everything in the namespace of an Org that looks at its Org.
fn inhabitants(ctx: &Context, org: &str) {
    if let Some(org) = ctx.cluster.orgs.get("", org) {
        inhabitants_of(ctx, org.wanted_namespace());
    }
}

/// Everything in a namespace that looks at the Org of it.
fn inhabitants_of(ctx: &Context, namespace: &str) {
    for key in ctx.cluster.agents.keys_in(namespace) {
        ctx.queues.agents.add(key);
    }
    for key in ctx.cluster.roles.keys_in(namespace) {
        ctx.queues.roles.add(key);
    }
    for key in ctx.cluster.tools.keys_in(namespace) {
        ctx.queues.tools.add(key);
    }
    for key in ctx.cluster.policies.keys_in(namespace) {
        ctx.queues.policies.add(key);
    }
    for key in ctx.cluster.tasks.keys_in(namespace) {
        ctx.queues.tasks.add(key);
    }
}

/// A Namespace: the Orgs that want it.
pub fn namespace(ctx: &Context, change: &Change<Namespace>) {
    for org in ctx.cluster.orgs.all().iter().filter(|o| o.wanted_namespace() == change.key.1) {
        ctx.queues.org(&org.name_any());
        inhabitants(ctx, &org.name_any());
    }
}

/// Something that core made: whom it was made for.
pub fn child<K: Resource>(ctx: &Context, change: &Change<K>) {
    let Some(object) = change.new.as_ref().or(change.old.as_ref()) else { return };
    let owners = object.meta().owner_references.iter().flatten().filter(|o| o.controller == Some(true));
    for owner in owners {
        match owner.kind.as_str() {
            "Org" => ctx.queues.org(&owner.name),
            "Agent" => ctx.queues.agents.add((change.key.0.clone(), owner.name.clone())),
            _ => {}
        }
    }
}

/// A ResourceQuota: its Org; those that share quota with it when what it has changed; Agents that were refused.
pub fn quota(ctx: &Context, change: &Change<ResourceQuota>) {
    child(ctx, change);
    let hard = |q: &Option<std::sync::Arc<ResourceQuota>>| q.as_ref().and_then(|q| q.spec.as_ref()).and_then(|s| s.hard.clone());
    if hard(&change.old) != hard(&change.new)
        && let Some(org) = ctx.cluster.org_of(&change.key.0)
    {
        let family = |o: &Org| {
            parent_of(o) == Some(org.name_any())
                || (parent_of(&org).is_some() && (parent_of(o) == parent_of(&org) || Some(o.name_any()) == parent_of(&org)))
        };
        ctx.cluster.orgs.all().iter().filter(|o| o.spec.quota.is_some() && family(o)).for_each(|o| ctx.queues.org(&o.name_any()));
    }
    let limited =
        |a: &Agent| a.status.as_ref().is_some_and(|s| s.conditions.iter().any(|c| c.type_ == polity_api::reasons::SCALING_LIMITED));
    ctx.cluster.agents.in_namespace(&change.key.0).iter().filter(|a| limited(a)).for_each(|a| ctx.queues.agents.add(key_of(&a.metadata)));
}

/// An Agent: itself; Roles that name it; other Agents that claim a username of it.
pub fn agent(ctx: &Context, change: &Change<Agent>) {
    ctx.queues.agents.add(change.key.clone());
    for role in ctx.cluster.roles.in_namespace(&change.key.0).iter().filter(|r| r.spec.assignment.agents.contains(&change.key.1)) {
        ctx.queues.roles.add(key_of(&role.metadata));
    }
    if !definition_changed(change) {
        return;
    }
    let names: BTreeSet<String> = [&change.old, &change.new].into_iter().flatten().flat_map(|a| claimed(a)).collect();
    for other in ctx.cluster.agents.all().iter().filter(|a| claimed(a).iter().any(|n| names.contains(n))) {
        ctx.queues.agents.add(key_of(&other.metadata));
    }
}

/// A Role: itself; Roles that may report to it, directly or round a cycle.
pub fn role(ctx: &Context, change: &Change<Role>) {
    ctx.queues.roles.add(change.key.clone());
    if !definition_changed(change) {
        return;
    }
    let here = ctx.cluster.org_of(&change.key.0).map(|o| o.name_any());
    for role in ctx.cluster.roles.all().iter().filter(|r| r.spec.reports_to.is_some()) {
        let above = role.spec.reports_to.as_ref().and_then(|r| r.org.clone());
        if role.namespace().as_deref() == Some(&change.key.0) || (above.is_some() && above == here) {
            ctx.queues.roles.add(key_of(&role.metadata));
        }
    }
}

/// A Tool: itself; those that look like it; Policies that may meet it; its Org, since headers from Secrets need a right of the edge.
pub fn tool(ctx: &Context, change: &Change<Tool>) {
    ctx.queues.tools.add(change.key.clone());
    if !definition_changed(change) {
        return;
    }
    if change.old.is_none() || change.new.is_none() {
        // Names that look like this one's are said of both.
        for name in ctx.cluster.tools.keys_in(&change.key.0) {
            if polity_upstream::look_alike(&change.key.1, [name.1.as_str()]).is_some() {
                ctx.queues.tools.add(name);
            }
        }
    }
    let Some(org) = ctx.cluster.org_of(&change.key.0) else { return };
    let name = org.name_any();
    ctx.queues.org(&name);
    let above: BTreeSet<String> = ctx.cluster.path(&name).unwrap_or_default().into_iter().collect();
    let exported = [&change.old, &change.new].into_iter().flatten().any(|t| t.spec.export.is_some());
    for key in ctx.cluster.policies.keys() {
        let Some(org) = ctx.cluster.org_of(&key.0).map(|o| o.name_any()) else { continue };
        if above.contains(&org) || (exported && ctx.cluster.path(&org).is_ok_and(|p| p.contains(&name))) {
            ctx.queues.policies.add(key);
        }
    }
}

/// A Policy: itself.
pub fn policy(ctx: &Context, change: &Change<Policy>) {
    ctx.queues.policies.add(change.key.clone());
}

/// A Task: itself; its calls, which end when it is canceled.
pub fn task(ctx: &Context, change: &Change<Task>) {
    ctx.queues.tasks.add(change.key.clone());
    if definition_changed(change) {
        calls(ctx, &change.key.0, |call| call.spec.task_ref.as_ref().is_some_and(|t| t.name == change.key.1));
    }
}

/// A ToolCall: itself.
pub fn call(ctx: &Context, change: &Change<ToolCall>) {
    ctx.queues.calls.add(change.key.clone());
}

/// An Approval: itself, and the call that it is for.
pub fn approval(ctx: &Context, change: &Change<Approval>) {
    ctx.queues.approvals.add(change.key.clone());
    if let Some(approval) = change.new.as_ref().or(change.old.as_ref()) {
        ctx.queues.calls.add((change.key.0.clone(), approval.spec.action.call.clone()));
    }
}

/// Calls of a namespace that have not ended, as far as they are meant.
fn calls(ctx: &Context, namespace: &str, meant: impl Fn(&ToolCall) -> bool) {
    let open = |call: &&std::sync::Arc<ToolCall>| !phase(call).is_some_and(Phase::ended);
    for call in ctx.cluster.calls.in_namespace(namespace).iter().filter(open).filter(|c| meant(c)) {
        ctx.queues.calls.add(key_of(&call.metadata));
    }
}

fn phase(call: &ToolCall) -> Option<Phase> {
    call.status.as_ref().and_then(|s| s.phase)
}
