//! `/validate`: answers early what dispatch would deny, and refuses definitions that can never be right.
//!
//! What is not right *yet* (a Role or Tool that will be applied later) is a warning here and a condition later. Updates that
//! leave `spec` alone and deletions pass unseen, so a namespace can always be cleaned up.

mod agent;
mod approval;
pub mod attempt;
mod org;
mod policy;
mod role;
mod tool;
pub(crate) mod toolcall;

use polity_api::{Agent, GROUP, Org, Policy, Role, Tool};
use serde::de::DeserializeOwned;

use crate::{
    outcome::{Accepted, Outcome, Warnings},
    review::{Operation, Request},
    state::State,
};

/// Answers one review.
///
/// # Errors
/// The change is refused.
pub async fn review(state: &State, request: &Request<'_>) -> Outcome {
    let ours = request.kind.group == GROUP && request.sub_resource.as_deref().is_none_or(str::is_empty);
    let create = match request.operation {
        Operation::Create => true,
        Operation::Update => false,
        Operation::Delete | Operation::Connect => return Ok(Accepted::default()),
    };
    if !ours {
        return Ok(Accepted::default());
    }
    let world = || state.views.world();
    match request.kind.kind.as_str() {
        "ToolCall" if create => toolcall::create(state, request).await,
        "ToolCall" => toolcall::update(state, request).await,
        "Approval" if !create => approval::update(state, request),
        "Policy" => match changed::<Policy, _>(request, |p| &p.spec)? {
            Some(policy) => policy::check(&policy.spec, request.namespace(), &world()),
            None => Ok(Accepted::default()),
        },
        "Tool" => match changed::<Tool, _>(request, |t| &t.spec)? {
            Some(tool) => tool::check(state, request, &tool.spec).await,
            None => Ok(Accepted::default()),
        },
        "Org" => ratcheted::<Org, _>(request, |o| &o.spec, |org| org::check(org, create, &world(), &state.system_namespace)),
        "Role" => ratcheted::<Role, _>(request, |r| &r.spec, |role| role::check(role, request.namespace(), &world())),
        "Agent" => {
            ratcheted::<Agent, _>(request, |a| &a.spec, |agent| agent::check(agent, request.namespace(), &world(), &state.system_namespace))
        }
        _ => Ok(Accepted::default()),
    }
}

/// Checks a definition. An update is not refused for what was wrong before it: an Org must be suspendable whatever has become of the rest.
fn ratcheted<T: DeserializeOwned, S: PartialEq>(request: &Request<'_>, spec: impl Fn(&T) -> &S, check: impl Fn(&T) -> Outcome) -> Outcome {
    let Some(new) = changed(request, spec)? else { return Ok(Accepted::default()) };
    let mut refusal = match check(&new) {
        Ok(accepted) => return Ok(accepted),
        Err(refusal) => refusal,
    };
    let before = request.before::<T>().and_then(|old| check(&old).err()).map(|r| r.causes).unwrap_or_default();
    if refusal.causes.is_empty() || !refusal.causes.iter().all(|cause| before.contains(cause)) {
        return Err(refusal);
    }
    for (_, field, problem) in &refusal.causes {
        refusal.warnings.push(&format!("still wrong: {field}: {problem}"));
    }
    Ok(Accepted::warned(refusal.warnings))
}

/// The new object, unless an update leaves its spec as it is.
fn changed<T: DeserializeOwned, S: PartialEq>(
    request: &Request<'_>,
    spec: impl Fn(&T) -> &S,
) -> Result<Option<T>, crate::outcome::Refusal> {
    let before: Option<T> = request.before();
    let new: T = match request.new_object() {
        Ok(new) => new,
        // Stored by another version and now touched in its metadata only: nothing to judge.
        Err(_) if before.is_none() && same_raw_spec(request) => return Ok(None),
        Err(refusal) => return Err(refusal),
    };
    let same = before.is_some_and(|before| spec(&before) == spec(&new));
    Ok((!same).then_some(new))
}

fn same_raw_spec(request: &Request<'_>) -> bool {
    let (Some(new), Some(old)) = (request.object, request.old_object) else { return false };
    let spec = |raw: &serde_json::value::RawValue| serde_json::from_str::<serde_json::Value>(raw.get()).ok().map(|mut v| v["spec"].take());
    spec(new).is_some_and(|s| spec(old) == Some(s))
}

/// Warns that the namespace belongs to no Org that is known.
fn warn_no_org(warnings: &mut Warnings, namespace: &str) {
    warnings.push(&format!("namespace {namespace:?} belongs to no Org yet; the object has no effect until it does"));
}
