//! Controller of Policies: says whether the rules are in force and what of them is not. The check is the one that admission makes; this
//! writes nothing but status and decides no call.

pub mod rollout;

use std::sync::Arc;

use jiff::Timestamp;
use kube::{Api, ResourceExt};
use polity_api::{
    Policy, PolicyStatus,
    policy::{Mode, Rollout as Shown},
    reasons,
};
use polity_policy::{PolicyCheck, check_policy};

pub use self::rollout::Rollout;
use crate::{
    context::Context,
    engine::Key,
    requeue::Outcome,
    status::{StatusError, Writer, undecodable, write},
};

/// Brings the status of one Policy up to date.
///
/// # Errors
/// The status was not written; it is tried again.
pub async fn reconcile(ctx: Arc<Context>, key: Key) -> Result<Outcome, StatusError> {
    let Some(policy) = ctx.cluster.policies.get(&key.0, &key.1) else {
        ctx.rollout.forget(&key);
        return undecodable(&ctx.client, &ctx.cluster.policies, &key, ctx.now()).await;
    };
    let check = ctx.cluster.org_of(&key.0).map(|org| {
        let tools = ctx.cluster.world().tools_in_reach(&org.name_any());
        check_policy(&policy.spec, tools.iter().map(AsRef::as_ref))
    });
    let mut status = status(&policy, check.as_ref(), ctx.now());
    let again = show(&ctx, &key, &policy, &mut status);
    write(&Api::namespaced(ctx.client.clone(), &key.0), &ctx.cluster.policies, policy.as_ref(), &status).await?;
    Ok(again)
}

/// Puts what the rules would have done into the status, as long as they are not enforced.
fn show(ctx: &Context, key: &Key, policy: &Policy, status: &mut PolicyStatus) -> Outcome {
    if policy.spec.mode == Mode::Enforce {
        ctx.rollout.forget(key);
        status.rollout = None;
        return Outcome::Settled;
    }
    let digest = status.digest.clone().unwrap_or_default();
    let before: Option<&Shown> = policy.status.as_ref().filter(|s| s.digest.as_deref() == Some(&digest)).and_then(|s| s.rollout.as_ref());
    let (shown, again) = ctx.rollout.figures(key, &digest, before, ctx.now());
    status.rollout = Some(shown);
    again.map_or(Outcome::Settled, Outcome::At)
}

/// The status. Pure.
fn status(policy: &Policy, check: Option<&PolicyCheck>, now: Timestamp) -> PolicyStatus {
    let mut status = policy.status.clone().unwrap_or_default();
    let generation = policy.metadata.generation.unwrap_or_default();
    status.observed_generation = generation;
    status.rules = i32::try_from(policy.spec.rules.len()).ok();
    status.digest = Some(polity_policy::digest(&policy.spec));
    status.cost = check.and_then(|check| check.cost).map(|steps| i64::try_from(steps).unwrap_or(i64::MAX));
    let mut writer = Writer { conditions: &mut status.conditions, generation, now };
    match check {
        None => writer.summary(false, false, reasons::ORG_NOT_READY, "This namespace belongs to no Org yet."),
        Some(check) => {
            let summary = check.summary();
            writer.summary(summary.ready, summary.stalled, summary.reason, &summary.message);
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use polity_api::conditions;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_condition_is_what_the_check_says_and_stays_at_rest() {
        let mut policy: Policy = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "acme", "generation": 4},
            "spec": {"rules": [{"name": "max", "expression": "args.amount <= 500", "effect": "Deny"}]}}))
        .unwrap();
        let check = check_policy(&policy.spec, std::iter::empty());
        let one = status(&policy, Some(&check), Timestamp::from_second(1).unwrap());
        assert!(
            one.conditions.iter().any(|c| c.type_ == conditions::READY && c.status == "False" && c.reason == reasons::TOOL_NOT_FOUND),
            "{:?}",
            one.conditions
        );
        assert_eq!((one.rules, one.observed_generation), (Some(1), 4));
        // the parts of the expression: args, .amount, 500, <=
        assert_eq!(one.cost, Some(4));
        policy.status = Some(one.clone());
        assert_eq!(status(&policy, Some(&check), Timestamp::MAX), one);
        policy.spec.rules[0].expression = "args.amount <= ".to_owned();
        let broken = status(&policy, Some(&check_policy(&policy.spec, std::iter::empty())), Timestamp::from_second(1).unwrap());
        assert!(conditions::is_true(&broken.conditions, conditions::STALLED), "{:?}", broken.conditions);
        assert_eq!(broken.cost, None);
        assert_eq!(
            status(&policy, None, Timestamp::from_second(1).unwrap())
                .conditions
                .iter()
                .find(|c| c.type_ == conditions::READY)
                .map(|c| c.reason.as_str()),
            Some(reasons::ORG_NOT_READY)
        );
    }
}
