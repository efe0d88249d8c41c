//! The Policies' part of a decision. Deny beats RequireApproval beats allow, in any order; approvals add up; modes apply after the verdict.

use std::{collections::BTreeMap, sync::Arc};

use polity_api::{
    approval::Requirement,
    duration,
    policy::{Effect, Mode, PolicyRule},
    reasons,
    role::RoleRef,
};

use crate::{
    Advisory, Decision, Problem, Request, Snapshot, Verdict,
    cel::{
        eval::{Outcome, Session},
        meter::Meter,
    },
    compile::CompiledRule,
    decide::Granted,
    grant,
    snapshot::PolicyInForce,
    vars,
};

/// What a rule that did not hold asks for.
#[derive(Debug)]
struct Finding {
    /// `namespace/policy/rule`, or `namespace/policy` when it is about the whole Policy.
    rule: String,
    reason: &'static str,
    message: String,
    hint: String,
    /// What must be approved; None: deny.
    requirement: Option<(Requirement, i64)>,
}

/// Applies every Policy that selects the action. The decision is an allow before it and what the Policies leave of it afterwards.
pub(crate) fn apply(snapshot: &Snapshot, request: &Request<'_>, g: &Granted<'_>, decision: &mut Decision, meter: &Arc<Meter>) {
    let mut found = Vec::new();
    let mut advisory = Vec::new();
    let mut spent = false;
    let action = snapshot.action(request, g);
    let selects = |p: &&PolicyInForce| grant::selects(p.policy.spec.matches.as_ref(), &action, &vars::held_in(g, &p.namespace));
    let selecting: Vec<&PolicyInForce> = snapshot.policies_for(g.tool).filter(selects).collect();
    let tool = g.tool;
    // what compiles is no part of the budget: a Policy and a Tool meet for the first time only once
    let typed: Vec<_> = selecting.iter().map(|p| p.compiled.typed(&p.policy.spec, &tool.facts, tool.compiled.args.as_ref())).collect();
    match vars::slots(snapshot, request, g) {
        Ok(slots) => {
            let mut session = Session::new(Arc::clone(meter), slots);
            // what enforces is evaluated first: rules that only observe can use up nothing but what is left
            for enforcing in [true, false] {
                let mut namespace = None;
                for (&policy, untyped) in selecting.iter().zip(&typed).filter(|(p, _)| (p.policy.spec.mode == Mode::Enforce) == enforcing) {
                    if namespace != Some(&policy.namespace) {
                        namespace = Some(&policy.namespace);
                        session.slots.set_roles(move || vars::roles(g, policy));
                    }
                    let findings = judge(policy, untyped.as_ref(), snapshot, g, &mut session);
                    if enforcing {
                        found.extend(findings);
                    } else {
                        advise(policy, findings, request.approved, &mut advisory);
                    }
                }
                if enforcing {
                    spent = session.spent();
                }
            }
        }
        Err(message) => {
            found.push(Finding { rule: String::new(), reason: reasons::POLICY_ERROR, message, hint: String::new(), requirement: None });
        }
    }
    for (policy, error) in &snapshot.broken_policies {
        let message = format!("{policy} is stored but cannot be decoded: {error}");
        found.push(Finding { rule: policy.clone(), reason: reasons::POLICY_INVALID, message, hint: String::new(), requirement: None });
    }
    advisory.sort_by(|a: &Advisory, b| a.rule.cmp(&b.rule));
    decision.advisory = advisory;
    if spent {
        let message = "the rules for this call need more than the time and steps of one decision".to_owned();
        found.push(Finding {
            rule: String::new(),
            reason: reasons::DECISION_BUDGET_EXCEEDED,
            message,
            hint: String::new(),
            requirement: None,
        });
    }
    combine(found, request.approved, decision);
}

/// Findings of one Policy.
fn judge<'a>(
    policy: &'a PolicyInForce,
    untyped: Option<&Problem>,
    snapshot: &Snapshot,
    g: &Granted<'_>,
    session: &mut Session<'a>,
) -> Vec<Finding> {
    let whole = format!("{}/{}", policy.namespace, policy.name);
    if let Some(problem) = policy.compiled.problems.first() {
        let message = format!("{whole} does not compile: {problem}");
        return vec![Finding {
            rule: whole,
            reason: reasons::POLICY_INVALID,
            message,
            hint: "its author must correct it".to_owned(),
            requirement: None,
        }];
    }
    let spec = &policy.policy.spec;
    if let Some(problem) = untyped {
        let message = format!("{whole} does not fit Tool {}: {problem}", g.tool.facts.name);
        return vec![Finding {
            rule: whole,
            reason: reasons::POLICY_NOT_TYPED,
            message,
            hint: "its author must correct it or narrow its match".to_owned(),
            requirement: None,
        }];
    }
    spec.rules
        .iter()
        .zip(&policy.compiled.rules)
        // those have been applied
        .filter(|(rule, _)| rule.effect != Effect::Rewrite)
        .filter_map(|(rule, compiled)| finding(policy, rule, compiled, session, snapshot))
        .collect()
}

fn finding<'a>(
    policy: &PolicyInForce,
    rule: &PolicyRule,
    compiled: &'a CompiledRule,
    session: &mut Session<'a>,
    snapshot: &Snapshot,
) -> Option<Finding> {
    let name = format!("{}/{}/{}", policy.namespace, policy.name, rule.name);
    let deny = |reason, why: String, hint: &str| {
        Some(Finding { rule: name.clone(), reason, message: format!("{name}: {why}"), hint: hint.to_owned(), requirement: None })
    };
    if compiled.quarantined() {
        return deny(reasons::RULE_QUARANTINED, "the rule has panicked and is out of use until its Policy changes".to_owned(), "");
    }
    match session.eval(&compiled.program) {
        Outcome::Holds => None,
        Outcome::Spent => deny(reasons::DECISION_BUDGET_EXCEEDED, "the time and steps of one decision are spent".to_owned(), ""),
        Outcome::Panicked => {
            compiled.quarantine();
            deny(reasons::RULE_QUARANTINED, "the rule has panicked and is out of use until its Policy changes".to_owned(), "")
        }
        Outcome::Error(e) => deny(reasons::POLICY_ERROR, e, rule.hint.as_deref().unwrap_or_default()),
        Outcome::Fails => {
            let why = rule.message.clone().unwrap_or_else(|| format!("`{}` does not hold", rule.expression));
            let requirement = match rule.effect {
                Effect::Deny | Effect::Rewrite => None,
                Effect::RequireApproval => Some(requirement(policy, rule, &name)),
            };
            if let Some(org) = requirement.as_ref().and_then(|(r, _)| unreachable(snapshot, policy, r.role.as_ref()?)) {
                return deny(
                    reasons::POLICY_INVALID,
                    format!("its approvers are a Role that Org {org} does not export to this Policy"),
                    "",
                );
            }
            let reason = if requirement.is_some() { reasons::APPROVAL_REQUIRED } else { reasons::POLICY_DENIED };
            let hint = rule.hint.clone().unwrap_or_default();
            Some(Finding { message: format!("{name}: {why}"), rule: name, reason, hint, requirement })
        }
    }
}

/// What must be approved. Role names are those of the Org that wrote the rule.
fn requirement(policy: &PolicyInForce, rule: &PolicyRule, name: &str) -> (Requirement, i64) {
    let approval = rule.approval.as_ref();
    let role = approval
        .and_then(|a| a.role.as_ref())
        .map(|r| RoleRef { org: Some(r.org.clone().unwrap_or_else(|| policy.org.clone())), name: r.name.clone() });
    let requirement = Requirement {
        rule: name.to_owned(),
        role,
        group: approval.and_then(|a| a.group.clone()),
        superior: approval.is_some_and(|a| a.superior),
        count: approval.map_or(1, |a| a.count),
        humans_only: approval.is_none_or(|a| a.humans_only),
        message: rule.message.clone().unwrap_or_default(),
    };
    let expires = approval.and_then(|a| duration::seconds(&a.expires_after)).unwrap_or_default();
    (requirement, expires)
}

/// The Org of a Role that a rule names though it is neither of the Org that wrote the rule nor exported by one above. Nobody could ever approve.
fn unreachable<'a>(snapshot: &Snapshot, policy: &PolicyInForce, role: &'a RoleRef) -> Option<&'a str> {
    let org = role.org.as_deref()?;
    (org != policy.org && !snapshot.exports(org, &role.name)).then_some(org)
}

/// Notes what a Policy in Warn or Observe would have done.
fn advise(policy: &PolicyInForce, findings: Vec<Finding>, approved: &[String], advisory: &mut Vec<Advisory>) {
    let warn = policy.policy.spec.mode == Mode::Warn;
    for f in findings.into_iter().filter(|f| f.requirement.is_none() || !approved.contains(&f.rule)) {
        let would = if f.requirement.is_some() { "would need approval" } else { "would deny" };
        advisory.push(Advisory { rule: f.rule, warn, message: format!("{would} ({}): {}", f.reason, f.message) });
    }
}

/// Deny beats RequireApproval beats allow. Among denials the most telling one speaks; all are listed.
fn combine(found: Vec<Finding>, approved: &[String], decision: &mut Decision) {
    let (mut asks, mut denials): (Vec<Finding>, Vec<Finding>) = found.into_iter().partition(|f| f.requirement.is_some());
    if !denials.is_empty() {
        denials.sort_by(|a, b| (rank(a.reason), &a.rule).cmp(&(rank(b.reason), &b.rule)));
        decision.verdict = Verdict::Deny;
        if let Some(first) = denials.first() {
            decision.reason = first.reason;
            decision.message.clone_from(&first.message);
            decision.hint.clone_from(&first.hint);
        }
        decision.rules = names(&denials);
        return;
    }
    asks.sort_by(|a, b| a.rule.cmp(&b.rule));
    let (met, open): (Vec<Finding>, Vec<Finding>) = asks.into_iter().partition(|f| approved.contains(&f.rule));
    if open.is_empty() {
        decision.verdict = Verdict::Allow;
        decision.reason = "";
        decision.rules = names(&met);
        return;
    }
    decision.verdict = Verdict::RequireApproval;
    decision.reason = reasons::APPROVAL_REQUIRED;
    decision.rules = names(&open);
    decision.message = open.iter().map(|f| f.message.as_str()).collect::<Vec<_>>().join("; ");
    decision.hint = open.iter().map(|f| f.hint.as_str()).find(|h| !h.is_empty()).unwrap_or_default().to_owned();
    decision.expires_after = open.iter().filter_map(|f| f.requirement.as_ref().map(|r| r.1)).min().unwrap_or_default();
    let by_rule: BTreeMap<String, Requirement> = open.into_iter().filter_map(|f| f.requirement.map(|r| (f.rule, r.0))).collect();
    decision.requirements = by_rule.into_values().collect();
}

fn names(found: &[Finding]) -> Vec<String> {
    let mut names: Vec<String> = found.iter().filter(|f| !f.rule.is_empty()).map(|f| f.rule.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Which denial speaks first: a spent budget, as nothing else is certain then; what a rule says; what is wrong with rules.
fn rank(reason: &str) -> usize {
    const ORDER: [&str; 6] = [
        reasons::DECISION_BUDGET_EXCEEDED,
        reasons::POLICY_DENIED,
        reasons::POLICY_ERROR,
        reasons::POLICY_NOT_TYPED,
        reasons::POLICY_INVALID,
        reasons::RULE_QUARANTINED,
    ];
    ORDER.iter().position(|r| *r == reason).unwrap_or(ORDER.len())
}
