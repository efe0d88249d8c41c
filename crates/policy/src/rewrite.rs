//! Rewrites of the input, before anything else of a Policy is looked at: from the root Org down, in the order of names and of rules. Every patch is
//! idempotent, and what all of them make of an input must be left alone by each of them; otherwise the call is denied. So no rule below undoes what one
//! above demands. Never touches a result, and never a call that is stored (`Snapshot::decide_stored`).

use std::{cmp::Ordering, sync::Arc};

use polity_api::{
    policy::{Effect, Mode, Patch, PolicyRule},
    reasons,
    toolcall::Rewritten,
};
use serde_json::{Number, Value};

use crate::{
    Advisory, Decision, Request, Snapshot, Verdict,
    cel::{
        eval::{Outcome, Session},
        meter::Meter,
        ty::Ty,
    },
    compile::CompiledRule,
    decide::Granted,
    grant,
    path::{Change, MAX_LISTED, Path},
    snapshot::PolicyInForce,
    vars,
};

/// Most entries of `rewrites`.
const MAX_RULES: usize = 64;

/// One change, compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledPatch {
    path: Path,
    what: What,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Set(Value),
    Clamp { min: Option<Number>, max: Option<Number> },
    Remove,
    Mask { keep_last: usize },
}

impl CompiledPatch {
    /// Reads a patch: exactly one kind of change, each of which does nothing when done again.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(patch: &Patch) -> Result<Self, String> {
        let path = Path::parse(&patch.path)?;
        let clamps = patch.min.is_some() || patch.max.is_some();
        if [patch.set.is_some(), clamps, patch.remove, patch.mask.is_some()].into_iter().filter(|given| *given).count() != 1 {
            return Err(format!("path {path}: give exactly one of set, min and/or max, remove, mask"));
        }
        let bound = |name: &str, value: &Option<Value>| match value {
            None => Ok(None),
            Some(Value::Number(n)) => Ok(Some(n.clone())),
            Some(_) => Err(format!("path {path}: {name} is not a number")),
        };
        let what = if let Some(constant) = &patch.set {
            What::Set(constant.clone())
        } else if let Some(mask) = &patch.mask {
            What::Mask { keep_last: usize::try_from(mask.keep_last).map_err(|_| format!("path {path}: mask.keepLast is negative"))? }
        } else if patch.remove {
            What::Remove
        } else {
            let (min, max) = (bound("min", &patch.min)?, bound("max", &patch.max)?);
            if let (Some(low), Some(high)) = (&min, &max)
                && order(low, high) != Some(Ordering::Less)
                && order(low, high) != Some(Ordering::Equal)
            {
                return Err(format!("path {path}: min is above max"));
            }
            What::Clamp { min, max }
        };
        Ok(Self { path, what })
    }

    /// Whether the patch goes with the arguments of a Tool.
    ///
    /// # Errors
    /// The path does not exist, or what is there has another type.
    pub fn fits(&self, args: &Ty) -> Result<(), String> {
        let (ty, always) = self.path.typed(args)?;
        let path = &self.path;
        match (&self.what, ty) {
            (What::Remove, _) if always => Err(format!("path {path}: the Tool's schema requires it, so it cannot be removed")),
            (What::Remove, _) | (_, Ty::Dyn) => Ok(()),
            (What::Set(value), ty) if conforms(value, ty) => Ok(()),
            (What::Set(value), ty) => Err(format!("path {path}: {value} is not a value of type {ty} that the Tool's schema allows")),
            (What::Clamp { min, max }, Ty::Int) => match [min, max].into_iter().flatten().find(|n| n.as_i64().is_none()) {
                Some(n) => Err(format!("path {path}: {n} is not a whole number, and the Tool's schema says integer")),
                None => Ok(()),
            },
            (What::Clamp { .. }, Ty::Double) | (What::Mask { .. }, Ty::Str(None)) => Ok(()),
            (What::Clamp { .. }, other) => Err(format!("path {path}: min and max need a number, and it is {other}")),
            (What::Mask { .. }, Ty::Str(Some(_))) => {
                Err(format!("path {path}: the Tool's schema lists its values, and a masked one is none"))
            }
            (What::Mask { .. }, other) => Err(format!("path {path}: mask needs a string, and it is {other}")),
        }
    }
}

impl Change for What {
    fn creates(&self) -> bool {
        matches!(self, Self::Set(_))
    }

    fn removes(&self) -> bool {
        matches!(self, Self::Remove)
    }

    fn change(&self, value: &mut Value) -> Result<bool, String> {
        let new = match (self, &*value) {
            (Self::Set(constant), _) => constant.clone(),
            (Self::Remove, _) | (_, Value::Null) => return Ok(false),
            (Self::Clamp { min, max }, Value::Number(n)) => {
                let (low, high) = (min.as_ref(), max.as_ref());
                let bound =
                    low.filter(|low| order(n, low) == Some(Ordering::Less)).or(high.filter(|h| order(n, h) == Some(Ordering::Greater)));
                match bound {
                    Some(bound) => Value::Number(bound.clone()),
                    None => return Ok(false),
                }
            }
            (Self::Mask { keep_last }, Value::String(text)) => Value::String(masked(text, *keep_last)),
            (Self::Clamp { .. }, _) => return Err("what is there is not a number".to_owned()),
            (Self::Mask { .. }, _) => return Err("what is there is not a string".to_owned()),
        };
        let changed = *value != new;
        *value = new;
        Ok(changed)
    }
}

/// Every character but the last few as `*`; a text that is not longer than these has none left.
fn masked(text: &str, keep_last: usize) -> String {
    let count = text.chars().count();
    let hidden = if count > keep_last { count - keep_last } else { count };
    text.chars().enumerate().map(|(i, c)| if i < hidden { '*' } else { c }).collect()
}

/// Compares JSON numbers: whole ones exactly, others as doubles.
fn order(a: &Number, b: &Number) -> Option<Ordering> {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// Whether a constant is of a type, as far as types say it; the schema says the rest at the call.
fn conforms(value: &Value, ty: &Ty) -> bool {
    match (value, ty.non_null()) {
        (_, Ty::Dyn) | (Value::Bool(_), Ty::Bool) | (Value::Number(_), Ty::Double) | (Value::Array(_), Ty::List(_)) => true,
        (Value::Object(_), Ty::Object(_) | Ty::Map(_)) | (Value::String(_), Ty::Str(None)) => true,
        (Value::Number(n), Ty::Int) => n.as_i64().is_some(),
        (Value::String(s), Ty::Str(Some(allowed))) => allowed.contains(s),
        _ => false,
    }
}

/// What the rewrites made of an input.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// The input as it is now; None: nothing changed.
    pub args: Option<Value>,
    /// What each rule changed.
    pub applied: Vec<Rewritten>,
    /// What rules in Warn or Observe would have changed.
    pub advisory: Vec<Advisory>,
}

/// What rules changed, as many of them as a call lists.
pub(crate) fn listed(mut applied: Vec<Rewritten>) -> Vec<Rewritten> {
    applied.truncate(MAX_RULES);
    applied
}

/// Why no input came out: the call is denied.
#[derive(Debug)]
pub(crate) struct Broken {
    pub reason: &'static str,
    pub rule: String,
    pub message: String,
    pub hint: String,
}

/// A rule that rewrites, with its Policy.
type Rule<'a> = (&'a PolicyInForce, &'a PolicyRule, &'a CompiledRule);

/// Runs the rewrites of every Policy that selects the action.
///
/// # Errors
/// A rule in Enforce has no value, or rules rewrite against each other.
pub(crate) fn run(snapshot: &Snapshot, request: &Request<'_>, g: &Granted<'_>, meter: &Arc<Meter>) -> Result<Outcomes, Broken> {
    let mut out = Outcomes::default();
    if snapshot.index_of(g.tool).rewriting.is_empty() {
        return Ok(out);
    }
    let action = snapshot.action(request, g);
    let selects = |p: &&PolicyInForce| {
        grant::selects(p.policy.spec.matches.as_ref(), &action, |role| vars::holds(g, &p.namespace, role))
            // what does not fit this Tool denies with the other rules
            && p.compiled.typed(&p.policy.spec, &g.tool.facts, &g.tool.compiled).is_none()
    };
    let policies: Vec<&PolicyInForce> = snapshot.rewriting(g.tool).filter(selects).collect();
    let (enforced, watching): (Vec<Rule<'_>>, Vec<Rule<'_>>) = policies
        .iter()
        .flat_map(|p| p.policy.spec.rules.iter().zip(&p.compiled.rules).map(move |(rule, compiled)| (*p, rule, compiled)))
        .filter(|(_, rule, _)| rule.effect == Effect::Rewrite)
        .partition(|(p, ..)| p.policy.spec.mode == Mode::Enforce);
    let mut args = request.args.clone();
    for rule in &enforced {
        let places = one(snapshot, &Request { args: &args, ..*request }, g, rule, meter)?;
        if let Some((new, places)) = places {
            args = new;
            out.applied.push(Rewritten { rule: name(rule), paths: places });
        }
    }
    if !out.applied.is_empty() {
        // each rule must be content with what all of them made together
        for rule in &enforced {
            if let Some((_, places)) = one(snapshot, &Request { args: &args, ..*request }, g, rule, meter)? {
                let others: Vec<String> = out.applied.iter().map(|r| r.rule.clone()).filter(|r| *r != name(rule)).take(MAX_RULES).collect();
                return Err(Broken {
                    reason: reasons::REWRITE_CONFLICT,
                    message: format!(
                        "{}: it would change {} again after {}; the rules rewrite the input against each other",
                        name(rule),
                        places.join(", "),
                        if others.is_empty() { "itself".to_owned() } else { others.join(", ") }
                    ),
                    rule: name(rule),
                    hint: "their authors must agree; until then, send an input that they leave alone".to_owned(),
                });
            }
        }
    }
    let now = Request { args: &args, ..*request };
    for rule in &watching {
        let warn = rule.0.policy.spec.mode == Mode::Warn;
        let (effect, message) = match one(snapshot, &now, g, rule, meter) {
            Ok(None) => continue,
            Ok(Some((_, places))) => (Effect::Rewrite, format!("would rewrite {} of the input ({})", places.join(", "), name(rule))),
            Err(broken) => (Effect::Deny, format!("would deny ({}): {}", broken.reason, broken.message)),
        };
        out.advisory.push(Advisory { rule: name(rule), warn, message, effect, policy: Arc::clone(&rule.0.digest) });
    }
    out.args = (!out.applied.is_empty()).then_some(args);
    Ok(out)
}

/// `namespace/policy/rule`.
fn name((policy, rule, _): &Rule<'_>) -> String {
    format!("{}/{}/{}", policy.namespace, policy.name, rule.name)
}

/// What one rule makes of the arguments of a request, and where; None: it leaves them alone.
fn one(
    snapshot: &Snapshot,
    request: &Request<'_>,
    g: &Granted<'_>,
    rule: &Rule<'_>,
    meter: &Arc<Meter>,
) -> Result<Option<(Value, Vec<String>)>, Broken> {
    let (policy, source, compiled) = rule;
    let broken = |reason, why: String| {
        Err(Broken { reason, message: format!("{}: {why}", name(rule)), rule: name(rule), hint: source.hint.clone().unwrap_or_default() })
    };
    let panicked = || broken(reasons::RULE_QUARANTINED, "the rule has panicked and is out of use until its Policy changes".to_owned());
    if compiled.quarantined() {
        return panicked();
    }
    match evaluate(snapshot, request, g, policy, compiled, meter) {
        Outcome::Holds => return Ok(None),
        Outcome::Fails => {}
        Outcome::Spent => {
            return broken(reasons::DECISION_BUDGET_EXCEEDED, "the time and steps of one decision are spent".to_owned());
        }
        Outcome::Panicked => {
            compiled.quarantine();
            return panicked();
        }
        Outcome::Error(e) => return broken(reasons::POLICY_ERROR, e),
    }
    let mut args = request.args.clone();
    let mut places = Vec::new();
    for patch in &compiled.patches {
        match patch.path.apply(&mut args, &patch.what) {
            Ok(changed) => places.extend(changed.places),
            Err(e) => return broken(reasons::POLICY_ERROR, e),
        }
    }
    places.sort_unstable();
    places.dedup();
    places.truncate(MAX_LISTED);
    // several patches of one rule may cancel out
    Ok((args != *request.args).then_some((args, places)))
}

/// Evaluates a rule's expression on the arguments of a request.
fn evaluate(
    snapshot: &Snapshot,
    request: &Request<'_>,
    g: &Granted<'_>,
    policy: &PolicyInForce,
    compiled: &CompiledRule,
    meter: &Arc<Meter>,
) -> Outcome {
    match vars::slots(snapshot, request, g) {
        Ok(mut slots) => {
            slots.set_roles(move || vars::roles(g, policy));
            Session::new(Arc::clone(meter), slots).eval(&compiled.program)
        }
        Err(message) => Outcome::Error(message),
    }
}

impl Snapshot {
    /// Whether some Policy may rewrite the input of a Tool. False saves the work of asking.
    #[must_use]
    pub fn may_rewrite(&self, tool: &str, org: Option<&str>) -> bool {
        self.tool_in_force(tool, org).is_some_and(|tool| !self.index_of(tool).rewriting.is_empty())
    }

    /// `decide` for a call that is stored, whose input is never changed any more: what rules in force would change now is denied.
    #[must_use]
    pub fn decide_stored(&self, request: &Request<'_>) -> Decision {
        let mut decision = self.decide(request);
        if decision.rewritten.take().is_some() && decision.verdict != Verdict::Deny {
            let rules: Vec<String> = decision.rewrites.iter().map(|r| r.rule.clone()).collect();
            let places: Vec<&str> = decision.rewrites.iter().flat_map(|r| &r.paths).map(String::as_str).collect();
            decision.verdict = Verdict::Deny;
            decision.reason = reasons::REWRITE_CHANGED;
            decision.message = format!("{} would change {} of the input as it is stored", rules.join(", "), places.join(", "));
            decision.hint = "make a new call; its input is rewritten before it is stored".to_owned();
            decision.rules = rules;
            decision.requirements.clear();
            decision.expires_after = 0;
        }
        decision.rewrites.clear();
        decision
    }
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
