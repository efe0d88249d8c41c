//! Controller of Orgs: namespace, quota, network isolation, members, stage conditions, deletion in order.
//!
//! Decides nothing about calls; it never touches what core did not make, and never deletes an adopted namespace.

mod apply;
mod build;
mod delete;
mod dereference;
mod status;
#[cfg(test)]
mod tests;
mod validate;

use std::{sync::Arc, time::Duration};

pub use dereference::units;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::ResourceExt;

use crate::{
    apply::ApplyError,
    context::Context,
    engine::{Key, workers::Failure},
    requeue::{Category, Outcome, category},
    status::StatusError,
};

/// How long a new quota may stay uncounted before the status says so.
const YOUNG: Duration = Duration::from_secs(3);

/// Why a reconcile of an Org failed.
#[derive(Debug, thiserror::Error)]
pub enum OrgError {
    /// A child was not written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The status was not written.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The namespace or the Org itself was not written or read.
    #[error("{0} of Org {1}")]
    Kube(&'static str, String, #[source] Box<kube::Error>),
    /// The ledger has not written down everything of this Org.
    #[error("flushing the ledger of Org {0}: {1}")]
    Flush(String, String),
}

impl Failure for OrgError {
    fn category(&self) -> Category {
        match self {
            Self::Apply(error) => error.category(),
            Self::Status(error) => error.category(),
            Self::Kube(.., source) => category(source),
            Self::Flush(..) => Category::Transient,
        }
    }
}

/// Brings one Org to what its spec says.
///
/// # Errors
/// A step failed; it is tried again.
pub async fn reconcile(ctx: Arc<Context>, key: Key) -> Result<Outcome, OrgError> {
    let Some(org) = ctx.cluster.orgs.get("", &key.1) else {
        return Ok(crate::status::undecodable(&ctx.client, &ctx.cluster.orgs, &key, ctx.now()).await?);
    };
    if org.metadata.deletion_timestamp.is_some() {
        return delete::reconcile(&ctx, &org).await;
    }
    let ca = ctx.ca.borrow().clone();
    let facts = dereference::dereference(&ctx.cluster, org, ca, &ctx.system_namespace, ctx.now());
    let checked = validate::validate(&facts);
    let applied = apply::apply(&ctx, &facts, &checked).await?;
    if !applied.uncounted.is_empty() && dereference::quota_of(&ctx.cluster, &facts.org).is_some_and(|q| young(&q, facts.now)) {
        // Kubernetes counts a new quota in a moment: one status then, instead of two.
        return Ok(Outcome::At(YOUNG));
    }
    let status = status::status(&facts, &checked, &applied);
    status::write(&ctx, &facts, &status).await?;
    Ok(next(&facts, &applied, &status))
}

/// Whether a quota was made just now.
fn young(quota: &ResourceQuota, now: Timestamp) -> bool {
    let age = quota.creation_timestamp().map(|t| now.duration_since(t.0));
    age.is_some_and(|age| age.unsigned_abs() < YOUNG)
}

/// When to come back.
fn next(facts: &dereference::Facts, applied: &apply::Applied, status: &polity_api::OrgStatus) -> Outcome {
    // An ancestor's time counts too, and the earliest is looked at first; the rest follow from there.
    let starts = facts.line().filter_map(|o| o.spec.start_at.as_ref()).map(|t| t.0).filter(|at| *at > facts.now).min();
    match starts {
        Some(at) => {
            let wait = Duration::try_from(at.duration_since(facts.now)).unwrap_or_default();
            Outcome::At(wait + Duration::from_millis(1))
        }
        // It is counted within a moment of a reminder, or never by itself.
        None if !applied.uncounted.is_empty() => Outcome::At(Duration::from_secs(8)),
        // Whether somebody has freed a name of ours, no watch tells.
        None if applied.taken.is_some() || polity_api::conditions::is_true(&status.conditions, polity_api::conditions::RECONCILING) => {
            Outcome::Waiting
        }
        None => Outcome::Settled,
    }
}
