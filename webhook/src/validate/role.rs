//! Role: globs that can match something, Agents named once, no circle in the reporting line as far as it is visible.

use polity_api::{Role, reasons, role::RoleRef};
use polity_plan::reporting::cycle;
use polity_policy::{Key, World};

use crate::{
    outcome::{Outcome, Problems, Warnings},
    tree,
};

pub(super) fn check(role: &Role, namespace: &str, world: &World) -> Outcome {
    let mut problems = Problems::default();
    let mut warnings = Warnings::default();
    for (g, grant) in role.spec.grants.iter().enumerate() {
        for (t, glob) in grant.tools.iter().flatten().enumerate() {
            if !is_tool_glob(glob) {
                let text = format!("{glob:?} matches no Tool: names have lower-case letters, digits, - and ., and patterns * and ?");
                problems.add(format!("spec.grants[{g}].tools[{t}]"), text);
            }
        }
        for verb in grant.verbs.iter().filter(|v| *v != "tool.call") {
            warnings.push(&format!("nothing asks for verb {verb:?} in this version; the only one is tool.call"));
        }
    }
    let agents = &role.spec.assignment.agents;
    for (index, agent) in agents.iter().enumerate() {
        if agents[..index].contains(agent) {
            problems.add(format!("spec.assignment.agents[{index}]"), format!("{agent:?} is there twice"));
        }
        if !world.agents.contains_key(&(namespace.to_owned(), agent.clone())) {
            warnings.push(&format!("Agent {agent:?} is not there yet"));
        }
    }
    match tree::org_of(world, namespace) {
        None => super::warn_no_org(&mut warnings, namespace),
        Some(org) => {
            missing_tools(role, tree::name_of(org), world, &mut warnings);
            let name = role.metadata.name.clone().unwrap_or_default();
            reporting(role, &(namespace.to_owned(), name), tree::name_of(org), world, &mut problems, &mut warnings);
        }
    }
    problems.outcome(warnings)
}

/// Grants of Tools by exact name that are not there yet, or not visible from here.
fn missing_tools(role: &Role, org: &str, world: &World, warnings: &mut Warnings) {
    let known = world.tools_in_reach(org);
    let named = role.spec.grants.iter().flat_map(|g| g.tools.iter().flatten());
    for name in named.filter(|name| is_tool_glob(name) && !name.contains(['*', '?'])) {
        if !known.iter().any(|tool| tool.name == *name) {
            warnings.push(&format!("Tool {name:?} is not there yet"));
        }
    }
}

/// Tool names are DNS subdomains; `*` and `?` match within a name.
fn is_tool_glob(glob: &str) -> bool {
    !glob.is_empty() && glob.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'*' | b'?'))
}

/// Follows the line upwards from this Role. Only this Role's own circles are its fault.
fn reporting(role: &Role, own: &Key, org: &str, world: &World, problems: &mut Problems, warnings: &mut Warnings) {
    let Some(first) = &role.spec.reports_to else { return };
    let resolve = |namespace: &str, reference: &RoleRef| -> Option<Key> {
        let from = tree::org_of(world, namespace).map(tree::name_of)?;
        let itself = reference.name == own.1 && reference.org.as_deref().unwrap_or(from) == org;
        if itself { Some(own.clone()) } else { tree::role(world, from, reference).map(|(key, _)| key.clone()) }
    };
    let superior = |of: &Key| {
        let reference = if of == own { Some(first) } else { world.roles.get(of)?.spec.reports_to.as_ref() };
        resolve(&of.0, reference?)
    };
    if superior(own).is_none() {
        warnings.push(&format!("Role {:?}, which this one reports to, is not there yet", first.name));
    }
    if let Some(circle) = cycle(own, superior) {
        let names: Vec<String> = circle.iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
        problems.because(reasons::REPORTING_CYCLE, "spec.reportsTo", format!("reports to itself: {}", names.join(" → ")));
    }
}
