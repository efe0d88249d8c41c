//! What is said of rules that are right and still can have no effect, or one that is always the same: true or false for every input, decided by the bounds
//! of the Tools' schemas, or hidden by another rule of the Policy; and what rules cost. It stays silent wherever it is not certain.

use std::collections::BTreeSet;

use polity_api::policy::{Effect, PolicySpec};

use crate::{
    Problem, ToolFacts,
    cel::{
        bounds::{self, Op},
        cost,
        foresee::{Closed, Comparison, May, comparison, foresee},
        meter::MAX_STEPS,
        program::Program,
    },
    compile::{CompiledPolicy, CompiledRule},
};

/// Most Tools that are named in one text.
const NAMED: usize = 3;

/// Warnings about the rules of a Policy that compiles. `tools`: those that it selects and fits.
pub(crate) fn review(spec: &PolicySpec, compiled: &CompiledPolicy, tools: &[&ToolFacts]) -> Vec<Problem> {
    let closed = Closed::new();
    let mut settled = vec![false; compiled.rules.len()];
    let mut out = Vec::new();
    for ((rule, compiled), settled) in spec.rules.iter().zip(&compiled.rules).zip(&mut settled) {
        let always = foresee(&closed, &compiled.program, None, &mut BTreeSet::new());
        let text = said(always, rule.effect, "for every input").or_else(|| by_schema(&closed, rule.effect, compiled, tools));
        *settled = text.is_some() || always == May::FALSE;
        out.extend(text.map(|text| Problem::rule(rule, &text)));
    }
    out.extend(hidden(spec, compiled, &closed, &settled));
    let read = |name: &String| compiled.rules.iter().any(|r| r.program.reads.counters.contains(name));
    let unread = spec.counters.iter().filter(|c| !read(&c.name));
    out.extend(
        unread.map(|c| Problem::counter(&c.name, &format!("is read by no rule of the Policy: no expression names counters.{}", c.name))),
    );
    out
}

/// Steps that the rules take at most in one decision, as far as that can be said: the budget is kept in any case.
pub(crate) fn cost(compiled: &CompiledPolicy, tools: &[&ToolFacts]) -> u64 {
    let most = |program: &Program| {
        let schemas = tools.iter().map(|tool| cost::most(program, tool.spec.input_schema.as_ref()));
        schemas.max().unwrap_or_else(|| cost::most(program, None))
    };
    programs(compiled).map(most).fold(0, u64::saturating_add)
}

/// What is evaluated for a call that the Policy selects.
fn programs(compiled: &CompiledPolicy) -> impl Iterator<Item = &Program> {
    compiled.rules.iter().map(|rule| &rule.program).chain(compiled.counters.iter().filter_map(|counter| counter.amount.as_ref()))
}

/// What is wrong with rules that take more than the budget whatever they are given.
pub(crate) fn over_budget(compiled: &CompiledPolicy) -> Option<Problem> {
    let least = programs(compiled).map(cost::least).fold(0, u64::saturating_add);
    (least > MAX_STEPS).then(|| {
        Problem::whole(&format!(
            "its rules take at least {least} steps, and a decision has {MAX_STEPS}: every call that it selects would be denied"
        ))
    })
}

/// What is to be said of an outcome that is known; `when` says for which inputs.
fn said(may: May, effect: Effect, when: &str) -> Option<String> {
    if may == May::TRUE {
        return Some(format!("is true {when}, so that it can never have an effect: a rule states what must hold"));
    }
    if may == May::ERROR {
        return Some(format!("cannot be computed {when}, so that every call that the Policy selects is denied"));
    }
    let never = !may.has(May::TRUE) && effect == Effect::Deny;
    let what = if may == May::FALSE { "is false" } else { "is never true" };
    never.then(|| format!("{what} {when}, so that every call that the Policy selects is denied"))
}

/// What the schemas of all Tools that it is about decide. A rewriting rule reads its input before the schema is looked at.
fn by_schema(closed: &Closed, effect: Effect, rule: &CompiledRule, tools: &[&ToolFacts]) -> Option<String> {
    if effect == Effect::Rewrite || !rule.program.uses_args || tools.is_empty() {
        return None;
    }
    let mut may: Option<May> = None;
    let mut why = Vec::new();
    for tool in tools {
        let mut used = BTreeSet::new();
        let found = foresee(closed, &rule.program, tool.spec.input_schema.as_ref(), &mut used);
        let all = may.map_or(found, |may| may.or(found));
        said(all, effect, "")?;
        may = Some(all);
        if why.len() < NAMED {
            why.push(format!("{} of Tool {}", used.into_iter().collect::<Vec<_>>().join(", "), tool.name));
        }
    }
    let more = if tools.len() > NAMED { format!("; and so for {} more Tools", tools.len() - NAMED) } else { String::new() };
    said(may?, effect, &format!("by the schemas of the Tools that the Policy selects ({}{more})", why.join("; ")))
}

/// Rules that decide nothing because another one denies whenever they would do anything.
fn hidden(spec: &PolicySpec, compiled: &CompiledPolicy, closed: &Closed, settled: &[bool]) -> Vec<Problem> {
    // a rewriting rule is applied before the others and sees another input
    let rules: Vec<_> = spec
        .rules
        .iter()
        .zip(&compiled.rules)
        .zip(settled)
        .filter(|((rule, _), settled)| rule.effect != Effect::Rewrite && !**settled)
        .map(|((rule, compiled), _)| (rule, &compiled.program, comparison(closed, &compiled.program, &compiled.program.expr)))
        .collect();
    let mut out = Vec::new();
    for (at, (rule, program, compared)) in rules.iter().enumerate() {
        let by = rules.iter().enumerate().find_map(|(other_at, (other, other_program, other_compared))| {
            if other_at == at || other.effect != Effect::Deny {
                return None;
            }
            let first = rule.effect == Effect::RequireApproval || other_at < at;
            let patterns = || program.patterns.iter().map(regex::Regex::as_str).eq(other_program.patterns.iter().map(regex::Regex::as_str));
            if program.expr == other_program.expr && patterns() {
                return first.then_some((*other, "has the same expression"));
            }
            match within(other_compared.as_ref()?, compared.as_ref()?)? {
                Within::Same => first.then_some((*other, "demands the same")),
                Within::Tighter => Some((*other, "demands more")),
            }
        });
        out.extend(by.map(|(other, why)| {
            Problem::rule(rule, &format!("can never have an effect: rule {} {why} and denies whatever it would find", other.name))
        }));
    }
    out
}

/// How one demand contains another.
enum Within {
    Same,
    Tighter,
}

/// Whether whatever fulfils `a` fulfils `b`, for the same argument, bounded on the same side.
fn within(a: &Comparison<'_>, b: &Comparison<'_>) -> Option<Within> {
    if a.path != b.path || std::mem::discriminant(&a.constant) != std::mem::discriminant(&b.constant) {
        return None;
    }
    let (mut x, mut y) = (bounds::exact(&a.constant)?, bounds::exact(&b.constant)?);
    let (open, other_open) = match (a.op, b.op) {
        (Op::Less | Op::AtMost, Op::Less | Op::AtMost) => (a.op == Op::Less, b.op == Op::Less),
        (Op::Greater | Op::AtLeast, Op::Greater | Op::AtLeast) => {
            (x, y) = (-x, -y);
            (a.op == Op::Greater, b.op == Op::Greater)
        }
        _ => return None,
    };
    if x < y {
        return Some(Within::Tighter);
    }
    match (x <= y, open, other_open) {
        (true, open, other) if open == other => Some(Within::Same),
        (true, true, false) => Some(Within::Tighter),
        _ => None,
    }
}

#[cfg(test)]
#[path = "honest_tests.rs"]
mod tests;
