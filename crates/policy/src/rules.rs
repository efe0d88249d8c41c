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
    Advisory, Counting, Decision, Known, Past, Problem, Request, Snapshot, Verdict,
    cel::{
        eval::{Outcome, Session},
        meter::Meter,
    },
    compile::CompiledRule,
    decide::Granted,
    grant, obligations,
    past::{Call, HistoryReads},
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
    let tool = g.tool;
    let index = snapshot.index_of(tool);
    let mut selecting: Vec<Selected<'_>> = Vec::new();
    let call = Call { request, granted: g, org: &snapshot.org, org_uid: &snapshot.org_uid };
    let mut seen = Seen { call: &call, counting: Counting::default(), later: Vec::new() };
    for (place, entry) in index.candidates(&action, g) {
        let Some(policy) = snapshot.policies.get(place) else { continue };
        if grant::selects(policy.policy.spec.matches.as_ref(), &action, |role| vars::holds(g, &policy.namespace, role)) {
            // what compiles is no part of the budget: a Policy and a Tool meet for the first time only once
            let check = || policy.compiled.typed(&policy.policy.spec, &tool.facts, &tool.compiled);
            let untyped = entry.typed.get_or_init(check).as_ref();
            selecting.push(Selected { policy, untyped, twins: &entry.twins, shared: &entry.shared });
        }
    }
    match vars::slots(snapshot, request, g) {
        Ok(slots) => {
            let mut session = Session::new(Arc::clone(meter), slots).sharing(index.shared);
            session.slots.set_history(request.past.known().and_then(Known::history));
            let mut known: Vec<Option<Outcome>> = vec![None; index.twins];
            // what enforces is evaluated first: rules that only observe can use up nothing but what is left
            for enforcing in [true, false] {
                let mut namespace = None;
                for selected in selecting.iter().filter(|s| (s.policy.policy.spec.mode == Mode::Enforce) == enforcing) {
                    let policy = selected.policy;
                    if namespace != Some(&policy.namespace) {
                        namespace = Some(&policy.namespace);
                        session.slots.set_roles(move || vars::roles(g, policy));
                    }
                    let findings = judge(selected, snapshot, g, &mut session, &mut known, request.past, &mut seen);
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
    let read = &snapshot.history_read;
    if read.calls || index.counts || !tool.facts.spec.output_labels.is_empty() || read.tools.contains(&tool.facts.name) {
        let mut reads = HistoryReads::default();
        selecting.iter().flat_map(|s| &s.policy.compiled.rules).for_each(|r| reads.add(&r.program.reads));
        seen.counting.add_history(&reads, read, &call);
    }
    seen.later.sort_unstable();
    (decision.counting, decision.later) = (seen.counting, seen.later);
    decision.obligations = obligations::demanded(&tool.facts, selecting.iter().map(|s| s.policy));
}

/// A Policy that selects the call.
struct Selected<'a> {
    policy: &'a PolicyInForce,
    /// What is wrong with it for the Tool.
    untyped: Option<&'a Problem>,
    /// For each rule: the number of its expression, if others have it too.
    twins: &'a [Option<u32>],
    /// For each rule and each of its parts that may be shared: the number of the part, if others have it too.
    shared: &'a [Box<[Option<u32>]>],
}

/// What is noted of counters and history while rules are judged.
struct Seen<'s> {
    call: &'s Call<'s>,
    counting: Counting,
    later: Vec<String>,
}

/// Findings of one Policy. `known` has the outcomes of expressions that several rules share.
fn judge<'a>(
    selected: &Selected<'a>,
    snapshot: &Snapshot,
    g: &Granted<'_>,
    session: &mut Session<'a>,
    known: &mut [Option<Outcome>],
    past: Past<'a>,
    seen: &mut Seen<'_>,
) -> Vec<Finding> {
    let policy = selected.policy;
    let whole = || format!("{}/{}", policy.namespace, policy.name);
    let broken =
        |reason, message: String, hint: &str| vec![Finding { rule: whole(), reason, message, hint: hint.to_owned(), requirement: None }];
    if let Some(problem) = policy.compiled.problems.first() {
        return broken(reasons::POLICY_INVALID, format!("{} does not compile: {problem}", whole()), "its author must correct it");
    }
    if let Some(problem) = selected.untyped {
        let message = format!("{} does not fit Tool {}: {problem}", whole(), g.tool.facts.name);
        return broken(reasons::POLICY_NOT_TYPED, message, "its author must correct it or narrow its match");
    }
    let mut found = count(policy, session, past, seen);
    for (at, (rule, compiled)) in policy.policy.spec.rules.iter().zip(&policy.compiled.rules).enumerate() {
        // those have been applied
        if rule.effect == Effect::Rewrite {
            continue;
        }
        if compiled.program.reads.any() {
            let name = || format!("{}/{}", whole(), rule.name);
            if matches!(past, Past::Later) {
                seen.later.push(name());
                continue;
            }
            if let Some(message) = past.lacks(&whole(), &compiled.program.reads) {
                let (reason, message) = (reasons::COUNTERS_UNKNOWN, format!("{}: {message}", name()));
                found.push(Finding { rule: name(), reason, message, hint: String::new(), requirement: None });
                continue;
            }
        }
        let twin = selected.twins.get(at).copied().flatten().and_then(|twin| known.get_mut(twin as usize));
        let shared = selected.shared.get(at).map(AsRef::as_ref).unwrap_or_default();
        let outcome = match twin {
            _ if compiled.quarantined() => Outcome::Panicked,
            None => session.eval_known(&compiled.program, shared),
            Some(Some(outcome)) => outcome.clone(),
            Some(unknown) => {
                let outcome = session.eval_known(&compiled.program, shared);
                // once the budget is spent, nothing is known
                *unknown = Some(outcome.clone()).filter(|o| *o != Outcome::Spent);
                outcome
            }
        };
        found.extend(finding(policy, rule, compiled, outcome, snapshot));
    }
    found
}

/// Notes where a Policy counts the call. An amount that has no value, or is negative, is a finding of the Policy.
fn count<'a>(policy: &'a PolicyInForce, session: &mut Session<'a>, past: Past<'a>, seen: &mut Seen<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    if policy.compiled.counters.is_empty() {
        return found;
    }
    let whole = format!("{}/{}", policy.namespace, policy.name);
    for counter in &policy.compiled.counters {
        let amount = counter.amount.as_ref().map_or(Ok(1), |amount| session.number(amount));
        let (reason, why) = match amount {
            Ok(amount) if amount >= 0 => {
                seen.counting.add(policy, counter, amount, seen.call);
                continue;
            }
            Ok(_) => (reasons::POLICY_ERROR, "its amount is negative for these arguments".to_owned()),
            Err(Outcome::Spent) => (reasons::DECISION_BUDGET_EXCEEDED, "the time and steps of one decision are spent".to_owned()),
            Err(Outcome::Error(e)) => (reasons::POLICY_ERROR, e),
            Err(Outcome::Panicked | Outcome::Holds | Outcome::Fails) => (reasons::POLICY_ERROR, "its amount cannot be computed".to_owned()),
        };
        let message = format!("{whole}: counter {}: {why}", counter.name);
        found.push(Finding { rule: whole.clone(), reason, message, hint: String::new(), requirement: None });
    }
    session.slots.set_counters(past.known().and_then(|known| known.counters(&whole)));
    found
}

fn finding(policy: &PolicyInForce, rule: &PolicyRule, compiled: &CompiledRule, outcome: Outcome, snapshot: &Snapshot) -> Option<Finding> {
    if outcome == Outcome::Holds {
        return None;
    }
    let name = format!("{}/{}/{}", policy.namespace, policy.name, rule.name);
    let deny = |reason, why: String, hint: &str| {
        Some(Finding { rule: name.clone(), reason, message: format!("{name}: {why}"), hint: hint.to_owned(), requirement: None })
    };
    match outcome {
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
        let (would, effect) = match f.requirement {
            Some(_) => ("would need approval", Effect::RequireApproval),
            None => ("would deny", Effect::Deny),
        };
        let message = format!("{would} ({}): {}", f.reason, f.message);
        advisory.push(Advisory { rule: f.rule, warn, message, effect, policy: Arc::clone(&policy.digest) });
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
    const ORDER: [&str; 7] = [
        reasons::DECISION_BUDGET_EXCEEDED,
        reasons::POLICY_DENIED,
        reasons::POLICY_ERROR,
        reasons::POLICY_NOT_TYPED,
        reasons::POLICY_INVALID,
        reasons::RULE_QUARANTINED,
        // last, so that it speaks only where it alone stands in the way
        reasons::COUNTERS_UNKNOWN,
    ];
    ORDER.iter().position(|r| *r == reason).unwrap_or(ORDER.len())
}
