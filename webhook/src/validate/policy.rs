//! Policy: every rule is checked against the Tools in its reach; a name that cannot be right is refused with its place.

use polity_api::{PolicySpec, reasons};
use polity_policy::{Of, Problem, World, check_policy, unknown_names};

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
    for warning in &check.warnings {
        warnings.push(&warning.to_string());
    }
    if check.missing_tools {
        warnings.push("no Tool that the Policy selects is known yet; what it selects is denied until there is one");
    }
    match org {
        None => super::warn_no_org(&mut warnings, namespace),
        Some(org) => unknown_names(spec, org, world).iter().for_each(|sentence| warnings.push(sentence)),
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
    let place = |list: &str, index: Option<usize>| index.map_or_else(|| "spec".to_owned(), |index| format!("spec.{list}[{index}]"));
    match problem.of {
        Of::Obligation => return place("obligations", spec.obligations.iter().position(|o| o.name == problem.rule)),
        Of::Counter => {
            let counter = place("counters", spec.counters.iter().position(|c| c.name == problem.rule));
            return if problem.line > 0 { format!("{counter}.amount") } else { counter };
        }
        Of::Rule => {}
    }
    let rule = place("rules", spec.rules.iter().position(|r| r.name == problem.rule));
    if problem.line > 0 { format!("{rule}.expression") } else { rule }
}
