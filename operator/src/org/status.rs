//! Status of an Org from what was found and applied. Pure but for the one write at the end.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Api, ResourceExt};
use polity_api::{
    OrgStatus,
    conditions::{ANCESTRY, MEMBERS, NAMESPACE, NETWORK, QUOTA, STARTED},
    reasons,
};
use polity_plan::quota::{Share, Shortfall};

use super::{
    OrgError,
    apply::Applied,
    dereference::Facts,
    validate::{Checked, Stop},
};
use crate::{context::Context, status::Writer};

/// Result of one stage: a message when it is done.
type Stage = (&'static str, Result<String, Stop>);

/// The status.
pub fn status(facts: &Facts, checked: &Checked, applied: &Applied) -> OrgStatus {
    let mut status = facts.org.status.clone().unwrap_or_default();
    let generation = facts.org.metadata.generation.unwrap_or_default();
    status.observed_generation = generation;
    status.path = facts.path.clone().unwrap_or_default();
    if applied.namespace.is_some() {
        status.namespace.clone_from(&applied.namespace);
    }
    if let Some(hard) = &applied.hard {
        status.quota = hard.iter().map(|(r, a)| (r.clone(), Quantity(a.to_string()))).collect();
    }
    let stages = stages(facts, checked, applied);
    let first = stages.iter().find_map(|(_, result)| result.as_ref().err());
    let mut writer = Writer { conditions: &mut status.conditions, generation, now: facts.now };
    for (type_, result) in &stages {
        match result {
            Ok(message) => writer.set(type_, true, reasons::DONE, message),
            Err(stop) => writer.set(type_, false, stop.reason, &stop.message),
        }
    }
    match first {
        None => writer.summary(true, false, reasons::PROVISIONED, &format!("Namespace {} is provisioned.", facts.org.wanted_namespace())),
        Some(stop) => writer.summary(false, stop.stalled, stop.reason, &stop.message),
    }
    match started(facts) {
        Ok(()) => writer.set(STARTED, true, reasons::STARTED, "Calls and workers may run."),
        Err((reason, message)) => writer.set(STARTED, false, reason, &message),
    }
    status
}

/// Every stage in order. One that could not be tried says what it waits for.
fn stages(facts: &Facts, checked: &Checked, applied: &Applied) -> Vec<Stage> {
    let waits = || Stop { reason: reasons::WAITING, message: "Waits for the stages before it.".to_owned(), stalled: false };
    let there = applied.namespace.is_some();
    let namespace = match &checked.namespace {
        Err(stop) => Err(stop.clone()),
        Ok(_) if checked.ancestry.is_err() => Err(waits()),
        Ok(_) => applied
            .namespace
            .as_ref()
            .map(|n| format!("Namespace {} is {}.", n.name, if n.created { "made" } else { "adopted" }))
            .ok_or_else(waits),
    };
    let applied_all = || match &applied.taken {
        Some(stop) => Err(stop.clone()),
        None if !applied.done => Err(waits()),
        None => Ok(()),
    };
    let network = applied_all().and_then(|()| match &facts.ca {
        Some(_) => Ok("Nothing goes in or out but DNS and the edge, where the cluster enforces NetworkPolicy.".to_owned()),
        None => Err(Stop { reason: reasons::WAITING, message: "Waits for Polity's CA certificate.".to_owned(), stalled: false }),
    });
    let members = applied_all().and_then(|()| match &checked.refused {
        Some(stop) => Err(stop.clone()),
        None => Ok(format!("{} members are bound.", checked.members.values().map(std::collections::BTreeSet::len).sum::<usize>())),
    });
    vec![
        (ANCESTRY, checked.ancestry.clone().map(|()| format!("Path {}.", facts.path.as_deref().unwrap_or_default().join("/")))),
        (NAMESPACE, namespace),
        (QUOTA, quota(checked, applied, there)),
        (NETWORK, network),
        (MEMBERS, members),
    ]
}

fn quota(checked: &Checked, applied: &Applied, there: bool) -> Result<String, Stop> {
    if let Err(stop) = &checked.asks {
        return Err(stop.clone());
    }
    let Some(Share { unasked, shortfall, .. }) = applied.share.as_ref().filter(|_| there) else {
        return Err(Stop { reason: reasons::WAITING, message: "Waits for the stages before it.".to_owned(), stalled: false });
    };
    let waiting = |reason, message| Stop { reason, message, stalled: false };
    match shortfall {
        Some(Shortfall::Unavailable { resource, asked, left }) => {
            let message = format!("Asks {asked} of {resource}, but the parent has {left} left: nothing of the parent's quota is granted.");
            Err(waiting(reasons::QUOTA_UNAVAILABLE, message))
        }
        Some(Shortfall::InUse { resource, target, used }) => {
            Err(waiting(reasons::QUOTA_IN_USE, format!("Is to shrink {resource} to {target}, but uses {used}; it shrinks as that ends.")))
        }
        Some(Shortfall::NotYetFree { resource }) => {
            Err(waiting(reasons::QUOTA_IN_USE, format!("Waits until other Orgs have given back enough of {resource}.")))
        }
        None if !applied.uncounted.is_empty() => {
            let list = applied.uncounted.join(", ");
            Err(waiting(
                reasons::QUOTA_NOT_COUNTED,
                format!("Kubernetes does not count {list} yet (after an installation this takes up to a minute)."),
            ))
        }
        None if unasked.is_empty() => Ok("In force.".to_owned()),
        None => Ok(format!("In force. The parent limits {}, of which this Org asks nothing and has nothing.", unasked.join(", "))),
    }
}

/// Whether calls and workers may run, as far as spec and time say.
fn started(facts: &Facts) -> Result<(), (&'static str, String)> {
    for org in facts.line() {
        if org.spec.suspend {
            return Err((reasons::ORG_SUSPENDED, format!("Org {} is suspended: no call starts and no worker runs.", org.name_any())));
        }
        if let Some(at) = org.spec.start_at.as_ref().map(|t| t.0).filter(|at| *at > facts.now) {
            return Err((reasons::NOT_YET_STARTED, format!("Org {} starts at {at}.", org.name_any())));
        }
    }
    facts.path.as_ref().map(|_| ()).map_err(|broken| (reasons::ANCESTRY_BROKEN, format!("{broken}.")))
}

/// Writes it, if it is new.
pub async fn write(ctx: &Context, facts: &Facts, status: &OrgStatus) -> Result<(), OrgError> {
    // The finalizer may have been written since: the cache has the newer object, with the same status.
    let org = ctx.cluster.orgs.get("", &facts.org.name_any()).unwrap_or_else(|| facts.org.clone());
    crate::status::write(&Api::all(ctx.client.clone()), &ctx.cluster.orgs, org.as_ref(), status).await?;
    ctx.events.stalled(org.as_ref(), &status.conditions);
    Ok(())
}
