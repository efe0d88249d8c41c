//! Policy: every rule is checked against the Tools in its reach; a name that cannot be right is refused with its place.

use polity_api::{PolicySpec, reasons, role::RoleRef};
use polity_policy::{Problem, World, check_policy};

use crate::{
    outcome::{Outcome, Problems, Refusal, Warnings},
    tree,
};

pub(super) fn check(spec: &PolicySpec, namespace: &str, world: &World) -> Outcome {
    let mut problems = Problems::default();
    let mut warnings = Warnings::default();
    let org = tree::org_of(world, namespace).map(tree::name_of);
    let tools = org.map(|org| world.tools_in_reach(org)).unwrap_or_default();
    let check = check_policy(spec, tools.iter().map(AsRef::as_ref));

    for (index, rule) in spec.rules.iter().enumerate() {
        if spec.rules[..index].iter().any(|r| r.name == rule.name) {
            problems.add(format!("spec.rules[{index}].name"), format!("{:?} is there twice", rule.name));
        }
    }
    for problem in &check.errors {
        problems.because(reasons::POLICY_INVALID, field(spec, problem), problem.to_string());
    }
    for (tool, problem) in &check.not_typed {
        warnings.push(&format!("calls of Tool {tool} will be denied ({}): {problem}", reasons::POLICY_NOT_TYPED));
    }
    if check.missing_tools {
        warnings.push("no Tool that the Policy selects is known yet; what it selects is denied until there is one");
    }
    match org {
        None => super::warn_no_org(&mut warnings, namespace),
        Some(org) => missing_roles(spec, org, world, &mut warnings),
    }
    match problems.outcome(warnings) {
        // The check's own word on a refusal counts, should it refuse for something that is in none of its lists.
        Ok(accepted) => match check.refuse() {
            Some(text) => Err(Refusal::unprocessable(reasons::POLICY_INVALID, text)),
            None => Ok(accepted),
        },
        refused => refused,
    }
}

fn field(spec: &PolicySpec, problem: &Problem) -> String {
    match spec.rules.iter().position(|r| r.name == problem.rule) {
        Some(index) => format!("spec.rules[{index}].expression"),
        None => "spec".to_owned(),
    }
}

fn missing_roles(spec: &PolicySpec, org: &str, world: &World, warnings: &mut Warnings) {
    let named = spec.matches.iter().flat_map(|m| &m.roles).map(|name| RoleRef { org: None, name: name.clone() });
    let asked = spec.rules.iter().filter_map(|r| r.approval.as_ref()?.role.clone());
    for reference in named.chain(asked) {
        if tree::role(world, org, &reference).is_none() {
            let at = reference.org.as_deref().unwrap_or(org);
            warnings.push(&format!("Role {:?} of Org {at} is not there yet", reference.name));
        }
    }
}
