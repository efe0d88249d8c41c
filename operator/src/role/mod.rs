//! Controller of Roles: who holds each (`status.holders`, the one list that decisions read), and whether its reporting line holds.
//!
//! Grants nothing by itself and writes nothing but the Role's status.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, ResourceExt};
use polity_api::{
    Role, RoleStatus,
    conditions::READY,
    reasons,
    role::{Export, Holder, RoleRef},
};
use polity_plan::{
    assignment::{Assigned, Presence, assign},
    reporting::cycle,
};

use crate::{
    cluster::Cluster,
    context::Context,
    engine::Key,
    requeue::Outcome,
    status::{StatusError, Writer, undecodable, write},
};

/// Brings the status of one Role up to date.
///
/// # Errors
/// The status was not written; it is tried again.
pub async fn reconcile(ctx: Arc<Context>, key: Key) -> Result<Outcome, StatusError> {
    let Some(role) = ctx.cluster.roles.get(&key.0, &key.1) else {
        return undecodable(&ctx.client, &ctx.cluster.roles, &key, ctx.now()).await;
    };
    if role.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome::Settled);
    }
    let facts = dereference(&ctx.cluster, role, ctx.now());
    let status = status(&facts);
    write(&Api::namespaced(ctx.client.clone(), &key.0), &ctx.cluster.roles, facts.role.as_ref(), &status).await?;
    Ok(Outcome::Settled)
}

/// What a Role refers to.
#[derive(Debug)]
struct Facts {
    role: Arc<Role>,
    org: bool,
    assigned: Assigned,
    superior: Superior,
    now: Timestamp,
}

/// The reporting line of a Role.
#[derive(Debug)]
enum Superior {
    Sound,
    NotFound(String),
    Cycle(Vec<String>),
}

fn dereference(cluster: &Cluster, role: Arc<Role>, now: Timestamp) -> Facts {
    let namespace = role.namespace().unwrap_or_default();
    let presence = |name: &str| match cluster.agents.get(&namespace, name) {
        None => Presence::Missing,
        Some(agent) if agent.metadata.deletion_timestamp.is_some() => Presence::Missing,
        Some(agent) if agent.status.as_ref().is_some_and(|s| polity_api::conditions::is_true(&s.conditions, READY)) => Presence::Ready,
        Some(_) => Presence::NotReady,
    };
    Facts {
        org: cluster.org_of(&namespace).is_some(),
        assigned: assign(&role.spec.assignment, presence),
        superior: superior(cluster, &role),
        role,
        now,
    }
}

/// Key of the Role that a Role refers to, if it may.
fn resolve(cluster: &Cluster, namespace: &str, reference: &RoleRef) -> Option<Key> {
    let own = cluster.org_of(namespace)?;
    let target = match reference.org.as_deref().filter(|o| *o != own.name_any()) {
        None => namespace.to_owned(),
        Some(above) => {
            let path = cluster.path(&own.name_any()).ok()?;
            let above = path.iter().find(|n| *n == above)?;
            cluster.orgs.get("", above)?.status.as_ref()?.namespace.as_ref()?.name.clone()
        }
    };
    let role = cluster.roles.get(&target, &reference.name)?;
    (target == namespace || role.spec.export == Some(Export::Descendants)).then_some((target, reference.name.clone()))
}

fn superior(cluster: &Cluster, role: &Role) -> Superior {
    let start = (role.namespace().unwrap_or_default(), role.name_any());
    let next = |key: &Key| {
        let role = cluster.roles.get(&key.0, &key.1)?;
        resolve(cluster, &key.0, role.spec.reports_to.as_ref()?)
    };
    if let Some(line) = cycle(&start, next) {
        let short = |(namespace, name): &Key| if *namespace == start.0 { name.clone() } else { format!("{namespace}/{name}") };
        return Superior::Cycle(line.iter().map(short).collect());
    }
    match &role.spec.reports_to {
        Some(reference) if resolve(cluster, &start.0, reference).is_none() => Superior::NotFound(
            reference.org.as_ref().map_or_else(|| reference.name.clone(), |org| format!("{} of Org {org}", reference.name)),
        ),
        _ => Superior::Sound,
    }
}

/// The status. Pure.
fn status(facts: &Facts) -> RoleStatus {
    let mut status = facts.role.status.clone().unwrap_or_default();
    let generation = facts.role.metadata.generation.unwrap_or_default();
    status.observed_generation = generation;
    let before = std::mem::take(&mut status.holders);
    // Who stays keeps his time.
    let since = |agent: &str| before.iter().find(|h| h.agent == agent).map_or(Time(facts.now), |h| h.since.clone());
    let stalled = matches!(facts.superior, Superior::Cycle(_));
    status.holders = facts
        .assigned
        .holders
        .iter()
        .map(|agent| Holder { agent: agent.clone(), source: "Assignment".to_owned(), since: since(agent), until: None })
        .collect();
    let mut writer = Writer { conditions: &mut status.conditions, generation, now: facts.now };
    let Assigned { holders, missing, beyond } = &facts.assigned;
    match &facts.superior {
        _ if !facts.org => writer.summary(false, false, reasons::ORG_NOT_READY, "This namespace belongs to no Org yet."),
        Superior::Cycle(line) => writer.summary(
            false,
            stalled,
            reasons::REPORTING_CYCLE,
            &format!("The reporting line comes back to itself: {}.", line.join(" → ")),
        ),
        Superior::NotFound(name) => {
            writer.summary(
                false,
                false,
                reasons::SUPERIOR_NOT_FOUND,
                &format!("Reports to Role {name}, which does not exist here or is not exported by an Org above."),
            );
        }
        Superior::Sound if !missing.is_empty() => {
            writer.summary(
                false,
                false,
                reasons::AGENT_NOT_FOUND,
                &format!("Assigned to Agents that do not exist: {}. Holders: {}.", missing.join(", "), names(holders)),
            );
        }
        Superior::Sound if !beyond.is_empty() => {
            writer.summary(true, false, reasons::ASSIGNED, &format!("Holders: {}. Beyond max: {}.", names(holders), beyond.join(", ")));
        }
        Superior::Sound => writer.summary(true, false, reasons::ASSIGNED, &format!("Holders: {}.", names(holders))),
    }
    status
}

fn names(list: &[String]) -> String {
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

#[cfg(test)]
mod tests;
