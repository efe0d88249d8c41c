//! Org: a namespace that may be one, amounts that can be read, members named once, and no circle of parents.
//!
//! Whether the parent has that much quota, and whether the namespace consents, is for core: it can still become so.

use polity_api::{Org, duration, money::parse_usd, names, org::OrgQuota, reasons};
use polity_plan::quantity::Amount;
use polity_policy::World;

use crate::{
    outcome::{Outcome, Problems, Warnings},
    tree,
};

/// Most Orgs in a line from the root.
const DEEPEST: usize = 32;

pub(super) fn check(org: &Org, create: bool, world: &World, system: &str) -> Outcome {
    let mut problems = Problems::default();
    let mut warnings = Warnings::default();
    let name = tree::name_of(org);
    namespace(org, name, world, system, &mut problems, &mut warnings);
    parents(org, name, create, world, &mut problems, &mut warnings);
    members(org, &mut problems);
    for (index, budget) in org.spec.budget.iter().enumerate() {
        let field = format!("spec.budget[{index}]");
        if duration::seconds(&budget.window).is_none() {
            problems.add(format!("{field}.window"), format!("{:?} is not a duration such as 24h", budget.window));
        }
        if let Some(Err(e)) = budget.usd.as_deref().map(parse_usd) {
            problems.add(format!("{field}.usd"), e.to_string());
        }
        if budget.calls.is_some_and(|calls| calls < 0) {
            problems.add(format!("{field}.calls"), "cannot be negative");
        }
    }
    if let Some(quota) = &org.spec.quota {
        check_quota(quota, &mut problems);
    }
    problems.outcome(warnings)
}

fn namespace(org: &Org, name: &str, world: &World, system: &str, problems: &mut Problems, warnings: &mut Warnings) {
    let wanted = org.wanted_namespace();
    let field = "spec.namespace";
    if names::reserved_namespace(wanted, system) {
        problems.because(reasons::NAMESPACE_REFUSED, field, format!("{wanted:?} is reserved; no Org may live there"));
    }
    // An Org whose namespace is in force keeps it, whoever else asks for it.
    if in_force(org) == Some(wanted) {
        return;
    }
    let other = world.orgs.iter().find(|(other, o)| *other != name && (o.wanted_namespace() == wanted || in_force(o) == Some(wanted)));
    if let Some((other, _)) = other {
        problems.because(reasons::NAMESPACE_REFUSED, field, format!("Org {other:?} lives in {wanted:?} already"));
    }
    if let Some(facts) = world.namespaces.get(wanted)
        && facts.consent.as_deref() != Some(name)
    {
        warnings.push(&format!("namespace {wanted:?} exists; it is used only once it carries the label {}: {name}", names::LABEL_ORG));
    }
}

fn in_force(org: &Org) -> Option<&str> {
    org.status.as_ref().and_then(|s| s.namespace.as_ref()).map(|n| n.name.as_str())
}

fn parents(org: &Org, name: &str, create: bool, world: &World, problems: &mut Problems, warnings: &mut Warnings) {
    let Some(parent) = &org.spec.parent_ref else { return };
    let field = "spec.parentRef.name";
    let above = tree::line(world, &parent.name);
    if parent.name == name || (create && above.iter().any(|n| n == name)) {
        problems.because(
            reasons::ANCESTRY_BROKEN,
            field,
            format!("{:?} is this Org itself or below it: parents would form a circle", parent.name),
        );
        return;
    }
    if above.len() >= DEEPEST {
        problems.add(field, format!("there are {} Orgs above; a tree has at most {DEEPEST} levels", above.len()));
    }
    match world.orgs.get(&parent.name) {
        None => warnings.push(&format!("parent Org {:?} is not there yet; until then every call here is denied", parent.name)),
        Some(found) if found.metadata.deletion_timestamp.is_some() => {
            warnings.push(&format!("parent Org {:?} is being deleted", parent.name));
        }
        Some(_) => {}
    }
}

fn members(org: &Org, problems: &mut Problems) {
    let members = &org.spec.members;
    for (index, member) in members.iter().enumerate() {
        let field = format!("spec.members[{index}]");
        if members[..index].contains(member) {
            problems.add(&field, format!("{:?} {:?} is there twice with role {}", member.kind, member.name, member.role.name()));
        }
        if member.name.starts_with("system:") {
            problems.add(format!("{field}.name"), format!("{:?}: names starting with system: belong to Kubernetes", member.name));
        }
    }
}

fn check_quota(quota: &OrgQuota, problems: &mut Problems) {
    let maps = [("hard", &quota.hard), ("containerLimits", &quota.container_limits), ("containerRequests", &quota.container_requests)];
    for (map, amounts) in maps {
        for (resource, amount) in amounts {
            let field = format!("spec.quota.{map}[{resource}]");
            if let Err(e) = Amount::parse(&amount.0) {
                problems.add(&field, e.to_string());
            }
            if map == "hard" && !is_quota_resource(resource) {
                problems.add(
                    &field,
                    "a ResourceQuota has no such resource; write e.g. requests.cpu, limits.memory, pods or count/toolcalls.polity.dev",
                );
            }
            if map != "hard" && !matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage") && !resource.contains('/') {
                problems.add(&field, "a container has cpu, memory and ephemeral-storage");
            }
        }
    }
    for (resource, request) in &quota.container_requests {
        let limit = quota.container_limits.get(resource).and_then(|limit| Amount::parse(&limit.0).ok());
        if let (Ok(request), Some(limit)) = (Amount::parse(&request.0), limit)
            && request > limit
        {
            problems.add(format!("spec.quota.containerRequests[{resource}]"), "is more than the limit in containerLimits");
        }
    }
}

/// What a ResourceQuota can limit.
fn is_quota_resource(name: &str) -> bool {
    const PLAIN: [&str; 14] = [
        "cpu",
        "memory",
        "ephemeral-storage",
        "pods",
        "services",
        "services.loadbalancers",
        "services.nodeports",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "requests.storage",
        "bindings",
    ];
    let resource = |rest: &str| !rest.is_empty();
    PLAIN.contains(&name)
        || name.strip_prefix("requests.").is_some_and(resource)
        || name.strip_prefix("limits.").is_some_and(resource)
        || name.split_once('/').is_some_and(|(prefix, rest)| !prefix.is_empty() && !rest.is_empty())
}
