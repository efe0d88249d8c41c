//! Why a decision is what it is: every Policy that binds, what became of each rule, the part that decided and what would pass. On demand only; `decide` pays
//! nothing for it. It names no value of the call, only names, types and the rules' own constants.

use std::sync::Arc;

use polity_api::policy::{Effect, Mode};

use crate::{
    Decision, Known, Request, Snapshot,
    cel::{
        code::{Branch, Part},
        eval::{Outcome, Session},
        meter::{Limits, Meter},
    },
    compile::CompiledRule,
    decide::Granted,
    grant,
    rewrite::Outcomes,
    snapshot::PolicyInForce,
    vars,
};

/// A decision with what became of each rule.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The decision, exactly as `decide` gives it.
    pub decision: Decision,
    /// Each rule of each Policy that binds, by Policy and in the order written. Empty when the call was denied before any rule was looked at.
    pub tried: Vec<Trial>,
}

/// What became of one rule, or of a Policy as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// `namespace/policy/rule`; `namespace/policy` when it is about the whole Policy.
    pub rule: String,
    /// Mode of its Policy; None: the Policy cannot be decoded.
    pub mode: Option<Mode>,
    /// What a rule does when it does not hold; None for a whole Policy.
    pub effect: Option<Effect>,
    /// What became of it.
    pub result: TrialResult,
    /// The part that decided, when the rule does not hold and has a compiled form.
    pub part: Option<Part>,
    /// Its branches, and which of them ran. Empty without compiled form.
    pub branches: Vec<Branch>,
}

/// What became of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialResult {
    /// Its expression is true.
    Holds,
    /// Its expression is false.
    Fails,
    /// Its expression has no value for this call, and why.
    Error(String),
    /// It cannot be used: its Policy does not compile or does not fit the Tool, or the rule is out of use. What enforces denies then.
    Broken(String),
    /// Its Policy is not about this call; the field of `match` that does not fit.
    NotSelected(&'static str),
    /// It rewrites: these places of the input. Empty: it had nothing to change.
    Rewrites(Vec<String>),
    /// It rewrites, and its Policy only watches: what it would have done.
    Would(String),
}

impl TrialResult {
    /// Its name, for programs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Holds => "Holds",
            Self::Fails => "Fails",
            Self::Error(_) => "Error",
            Self::Broken(_) => "Broken",
            Self::NotSelected(_) => "NotSelected",
            Self::Rewrites(_) => "Rewrites",
            Self::Would(_) => "WouldRewrite",
        }
    }
}

impl Snapshot {
    /// Decides an action and says how each rule came out. Takes several times as long as `decide`: each rule is evaluated again, with a budget of its own.
    #[must_use]
    pub fn explain(&self, request: &Request<'_>) -> Explanation {
        let mut tried = Vec::new();
        let decision = self.decide_and(request, Limits::default(), Some(&mut tried));
        Explanation { decision, tried }
    }
}

/// Looks at every rule by itself, with the input as rewritten.
pub(crate) fn trials(snapshot: &Snapshot, request: &Request<'_>, g: &Granted<'_>, rewrites: &Outcomes) -> Vec<Trial> {
    let action = snapshot.action(request, g);
    let mut out = Vec::new();
    for policy in &snapshot.policies {
        let spec = &policy.policy.spec;
        let whole = |result| Trial {
            rule: format!("{}/{}", policy.namespace, policy.name),
            mode: Some(spec.mode),
            effect: None,
            result,
            part: None,
            branches: Vec::new(),
        };
        if let Some(field) = grant::misses(spec.matches.as_ref(), &action, |role| vars::holds(g, &policy.namespace, role)) {
            out.push(whole(TrialResult::NotSelected(field)));
            continue;
        }
        let untyped = policy.compiled.typed(spec, &g.tool.facts, &g.tool.compiled);
        if let Some(problem) = policy.compiled.problems.first().or(untyped.as_ref()) {
            out.push(whole(TrialResult::Broken(problem.to_string())));
            continue;
        }
        for (rule, compiled) in spec.rules.iter().zip(&policy.compiled.rules) {
            let name = format!("{}/{}/{}", policy.namespace, policy.name, rule.name);
            let (result, part, branches) = match rule.effect {
                Effect::Rewrite => (rewritten(&name, rewrites), None, Vec::new()),
                Effect::Deny | Effect::RequireApproval => tried(snapshot, request, g, policy, compiled),
            };
            out.push(Trial { rule: name, mode: Some(spec.mode), effect: Some(rule.effect), result, part, branches });
        }
    }
    out.extend(snapshot.broken_policies.iter().map(|(policy, error)| Trial {
        rule: policy.clone(),
        mode: None,
        effect: None,
        result: TrialResult::Broken(format!("it is stored but cannot be decoded: {error}")),
        part: None,
        branches: Vec::new(),
    }));
    out
}

/// What a rewriting rule has done, or would have.
fn rewritten(name: &str, rewrites: &Outcomes) -> TrialResult {
    match rewrites.advisory.iter().find(|a| a.rule == name) {
        Some(would) => TrialResult::Would(would.message.clone()),
        None => TrialResult::Rewrites(rewrites.applied.iter().find(|r| r.rule == name).map(|r| r.paths.clone()).unwrap_or_default()),
    }
}

/// Evaluates one rule.
fn tried(
    snapshot: &Snapshot,
    request: &Request<'_>,
    g: &Granted<'_>,
    policy: &PolicyInForce,
    compiled: &CompiledRule,
) -> (TrialResult, Option<Part>, Vec<Branch>) {
    let out_of_use = || TrialResult::Broken("it has panicked and is out of use until its Policy changes".to_owned());
    if compiled.quarantined() {
        return (out_of_use(), None, Vec::new());
    }
    let slots = match vars::slots(snapshot, request, g) {
        Ok(slots) => slots,
        Err(e) => return (TrialResult::Error(e), None, Vec::new()),
    };
    let mut session = Session::new(Arc::new(Meter::new(Limits::default())), slots);
    session.slots.set_roles(move || vars::roles(g, policy));
    let whole = format!("{}/{}", policy.namespace, policy.name);
    if let Some(why) = request.past.lacks(&whole, &compiled.program.reads) {
        return (TrialResult::Error(why), None, Vec::new());
    }
    let known = request.past.known();
    session.slots.set_counters(known.and_then(|known| known.counters(&whole)));
    session.slots.set_history(known.and_then(Known::history));
    let result = match session.eval(&compiled.program) {
        Outcome::Holds => return (TrialResult::Holds, None, session.branches(&compiled.program).unwrap_or_default()),
        Outcome::Panicked => return (out_of_use(), None, Vec::new()),
        Outcome::Spent => {
            return (TrialResult::Error("it needs more than the time and steps of one decision".to_owned()), None, Vec::new());
        }
        Outcome::Fails => TrialResult::Fails,
        Outcome::Error(e) => TrialResult::Error(e),
    };
    let part = session.part(&compiled.program);
    (result, part, session.branches(&compiled.program).unwrap_or_default())
}
