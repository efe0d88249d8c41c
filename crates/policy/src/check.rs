//! Checks a Policy before it is in force: the same function for admission, controller and command line.

use std::{collections::BTreeMap, fmt};

use polity_api::{
    policy::{PolicyRule, PolicySpec},
    reasons,
};

use crate::{ToolFacts, cel::program::Fault, compile::CompiledPolicy, grant, honest, tool::CompiledTool};

/// One thing that is wrong with a rule or an obligation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Name of the rule, obligation or counter; empty when it is about the Policy as a whole.
    pub rule: String,
    /// What has this name.
    pub of: Of,
    /// Line in the expression, from 1; 0 when it is not about a place in it.
    pub line: usize,
    /// Column in that line, from 1.
    pub column: usize,
    /// What is wrong, what was meant, and what exists.
    pub message: String,
}

/// A part of a Policy that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    /// One of `rules`.
    Rule,
    /// One of `obligations`.
    Obligation,
    /// One of `counters`.
    Counter,
}

impl Of {
    /// What it is called in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Obligation => "obligation",
            Self::Counter => "counter",
        }
    }
}

impl Problem {
    /// About a counter of this name as a whole.
    pub(crate) fn counter(name: &str, message: &str) -> Self {
        Self { rule: name.to_owned(), of: Of::Counter, line: 0, column: 0, message: message.to_owned() }
    }

    /// At a place of the amount of a counter of this name.
    pub(crate) fn counter_at(name: &str, fault: Fault) -> Self {
        Self { rule: name.to_owned(), of: Of::Counter, line: fault.line, column: fault.column, message: fault.message }
    }

    /// About a rule as a whole.
    pub(crate) fn rule(rule: &PolicyRule, message: &str) -> Self {
        Self { rule: rule.name.clone(), of: Of::Rule, line: 0, column: 0, message: message.to_owned() }
    }

    /// About the Policy as a whole.
    pub(crate) fn whole(message: &str) -> Self {
        Self { rule: String::new(), of: Of::Rule, line: 0, column: 0, message: message.to_owned() }
    }

    /// About an obligation of this name.
    pub(crate) fn obligation(name: &str, message: &str) -> Self {
        Self { rule: name.to_owned(), of: Of::Obligation, line: 0, column: 0, message: message.to_owned() }
    }

    /// At a place of the expression of an obligation of this name.
    pub(crate) fn fault(name: &str, fault: Fault) -> Self {
        Self { rule: name.to_owned(), of: Of::Obligation, line: fault.line, column: fault.column, message: fault.message }
    }

    /// At a place of a rule's expression.
    pub(crate) fn at(rule: &PolicyRule, fault: Fault) -> Self {
        Self { rule: rule.name.clone(), of: Of::Rule, line: fault.line, column: fault.column, message: fault.message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.rule.is_empty() {
            write!(f, "{} {}", self.of.name(), self.rule)?;
            if self.line > 0 {
                write!(f, ", line {} column {}", self.line, self.column)?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

/// What the check of a Policy found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyCheck {
    /// What can never be right: admission refuses it.
    pub errors: Vec<Problem>,
    /// Tools (as `namespace/name`) that lack what a rule names: these calls are denied `PolicyNotTyped`.
    pub not_typed: Vec<(String, Problem)>,
    /// Rules name `args` and no Tool that the Policy selects is known yet: what it selects is denied until then.
    pub missing_tools: bool,
    /// Number of rules.
    pub rules: usize,
    /// Number of obligations.
    pub obligations: usize,
    /// Rules that have no compiled form, with what in them has none: they mean the same and take longer.
    pub interpreted: Vec<(String, &'static str)>,
    /// Rules that are right and still have no effect, or always the same: admission warns of them.
    pub warnings: Vec<Problem>,
    /// Estimate of the steps that the rules take at most in one decision; None: they are not right.
    pub cost: Option<u64>,
}

/// What a controller writes into the Policy's condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Whether Ready is True.
    pub ready: bool,
    /// Whether only a change of the Policy can help.
    pub stalled: bool,
    /// Reason of the condition.
    pub reason: &'static str,
    /// Message of the condition.
    pub message: String,
}

impl PolicyCheck {
    /// What admission must answer when it refuses the Policy; None: it may be stored.
    #[must_use]
    pub fn refuse(&self) -> Option<String> {
        (!self.errors.is_empty()).then(|| list(&self.errors))
    }

    /// What the controller's condition says.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let (ready, stalled, reason, message) = if !self.errors.is_empty() {
            (false, true, reasons::POLICY_INVALID, format!("denies what it selects: {}", list(&self.errors)))
        } else if self.missing_tools {
            (
                false,
                false,
                reasons::TOOL_NOT_FOUND,
                "denies what it selects: its rules name args, and no Tool that it selects is known yet".to_owned(),
            )
        } else if let Some((tool, problem)) = self.not_typed.first() {
            let more = self.not_typed.len() - 1;
            let more = if more == 0 { String::new() } else { format!("; and {more} more") };
            (false, true, reasons::POLICY_NOT_TYPED, format!("denies calls of Tool {tool}: {problem}{more}"))
        } else {
            let obligations = if self.obligations > 0 { format!(" and {} obligations", self.obligations) } else { String::new() };
            let warnings = if self.warnings.is_empty() { String::new() } else { format!("; {}", list(&self.warnings)) };
            (true, false, reasons::IN_FORCE, format!("{} rules{obligations} in force{warnings}", self.rules))
        };
        Summary { ready, stalled, reason, message }
    }
}

/// The first few problems in one text.
fn list(problems: &[Problem]) -> String {
    let mut text = problems.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if problems.len() > 5 {
        text += &format!("; and {} more", problems.len() - 5);
    }
    text
}

/// Checks every rule of a Policy against the declared variables and the Tools in its reach (`World::tools_in_reach`); those that its `match` does not
/// select are left out here.
#[must_use]
pub fn check_policy<'a>(spec: &PolicySpec, tools: impl Iterator<Item = &'a ToolFacts>) -> PolicyCheck {
    let compiled = CompiledPolicy::new(spec);
    let mut out = PolicyCheck {
        errors: compiled.problems.clone(),
        rules: spec.rules.len(),
        obligations: spec.obligations.len(),
        ..PolicyCheck::default()
    };
    let rules = compiled.rules.iter().zip(&spec.rules).map(|(c, r)| (&r.name, &c.program));
    let amounts = compiled.counters.iter().filter_map(|c| Some((&c.name, c.amount.as_ref()?)));
    out.interpreted = rules.chain(amounts).filter_map(|(name, program)| Some((name.clone(), program.code.as_ref().err()?.0))).collect();
    out.errors.extend(honest::over_budget(&compiled));
    let typed = compiled.names_args() || !compiled.obligations.is_empty();
    if !out.errors.is_empty() || !typed {
        if out.errors.is_empty() {
            out.warnings = honest::review(spec, &compiled, &[]);
            out.cost = Some(honest::cost(&compiled, &[]));
        }
        return out;
    }
    let mut known = 0;
    let mut fitting: Vec<&ToolFacts> = Vec::new();
    // rules, amounts and obligations that name args, and whether some Tool has what each names
    let mut fits: BTreeMap<(Of, &str), bool> = spec
        .rules
        .iter()
        .zip(&compiled.rules)
        .filter(|(_, c)| c.names_args())
        .map(|(r, _)| (Of::Rule, r.name.as_str()))
        .chain(compiled.obligations.iter().map(|o| (Of::Obligation, o.name.as_str())))
        .chain(compiled.counters.iter().filter(|c| c.names_args()).map(|c| (Of::Counter, c.name.as_str())))
        .map(|name| (name, false))
        .collect();
    let mut all: Vec<(String, Vec<Problem>)> = Vec::new();
    for tool in tools.filter(|t| grant::selects_tool(spec.matches.as_ref(), t)) {
        let compiled_tool = CompiledTool::new(tool);
        if compiled_tool.broken.is_some() {
            // denied ToolNotReady; nothing can be said of its arguments
            continue;
        }
        known += 1;
        let problems = compiled.check_typed(spec, tool, compiled_tool.args.as_ref(), &compiled_tool.result);
        for ((of, name), fit) in &mut fits {
            *fit |= !problems.iter().any(|p| p.of == *of && p.rule == *name);
        }
        if problems.is_empty() {
            fitting.push(tool);
        }
        all.push((format!("{}/{}", tool.namespace, tool.name), problems));
    }
    // what is demanded of results waits for Tools without harm
    out.missing_tools = known == 0 && compiled.names_args();
    // no Tool that it selects has what a rule names: that is a slip, not a Tool that is still to come
    let slip = |p: &Problem| fits.get(&(p.of, p.rule.as_str())) == Some(&false);
    for problem in all.iter().flat_map(|(_, problems)| problems).filter(|p| slip(p)) {
        if !out
            .errors
            .iter()
            .any(|e| (e.of, &e.rule) == (problem.of, &problem.rule) && (e.line, e.column) == (problem.line, problem.column))
        {
            out.errors.push(problem.clone());
        }
    }
    out.not_typed = all.into_iter().filter_map(|(tool, problems)| Some((tool, problems.into_iter().next()?))).collect();
    if out.errors.is_empty() {
        out.warnings = honest::review(spec, &compiled, &fitting);
        out.cost = Some(honest::cost(&compiled, &fitting));
    }
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_pass_by_value, reason = "JSON is written in place")]

    use polity_api::Org;
    use serde_json::{Value, json};

    use super::*;
    use crate::tool;

    fn tool(name: &str, schema: Value) -> ToolFacts {
        let object = json!({"metadata": {"name": name, "namespace": "a"}, "apiVersion": "polity.dev/v1alpha1", "kind": "Tool",
            "spec": {"runtime": {}, "inputSchema": schema}});
        tool::facts(&Org::default(), &serde_json::from_value(object).unwrap())
    }

    fn check(expressions: &[&str], m: Value, tools: &[ToolFacts]) -> PolicyCheck {
        let rules: Vec<Value> =
            expressions.iter().enumerate().map(|(i, e)| json!({"name": format!("r{i}"), "expression": e, "effect": "Deny"})).collect();
        check_policy(&serde_json::from_value(json!({"match": m, "rules": rules})).unwrap(), tools.iter())
    }

    #[test]
    fn names_outside_args_are_refused_whatever_tools_there_are() {
        let c = check(&["agnt.name == 'x'", "args.x == 1"], json!({}), &[]);
        let refused = c.refuse().unwrap();
        assert!(refused.starts_with("rule r0, line 1 column 1: no variable `agnt`; did you mean `agent`?"), "{refused}");
        assert_eq!((c.summary().ready, c.summary().stalled, c.summary().reason), (false, true, reasons::POLICY_INVALID));
    }

    #[test]
    fn args_are_checked_for_each_tool() {
        let pay = tool("pay", json!({"type": "object", "properties": {"amount": {"type": "integer"}}}));
        let mail = tool("mail", json!({"type": "object", "properties": {"to": {"type": "string"}}}));
        let none = check(&["args.amount < 5"], json!({}), &[]);
        assert_eq!((none.refuse(), none.missing_tools, none.summary().reason), (None, true, reasons::TOOL_NOT_FOUND));
        let fits = check(&["args.amount < 5"], json!({}), std::slice::from_ref(&pay));
        assert!(fits.refuse().is_none() && fits.summary().ready);
        let slip = check(&["args.amuont < 5"], json!({}), &[pay.clone(), mail.clone()]);
        assert!(slip.refuse().unwrap().contains("did you mean `amount`?"));
        let partly = check(&["args.amount < 5"], json!({}), &[pay.clone(), mail.clone()]);
        assert_eq!((partly.refuse(), partly.not_typed.len(), partly.not_typed[0].0.as_str()), (None, 1, "a/mail"));
        assert_eq!(partly.summary().reason, reasons::POLICY_NOT_TYPED);
        // each rule has its Tool: no slip, though every pair denies
        let crossed = check(&["args.amount < 5", "args.to == 'x'"], json!({}), &[pay.clone(), mail.clone()]);
        assert_eq!((crossed.refuse(), crossed.not_typed.len()), (None, 2));
        let narrow = check(&["args.amount < 5"], json!({"tools": ["p*"]}), &[pay, mail]);
        assert!(narrow.summary().ready, "{narrow:?}");
        let broken = check(&["args.amount < 5"], json!({}), &[tool("bad", json!({"type": 5}))]);
        assert!(broken.missing_tools && broken.refuse().is_none());
    }

    #[test]
    fn what_has_no_compiled_form_is_said() {
        let said = |expression| check(&[expression], json!({}), &[]).interpreted;
        assert_eq!(said("agent.type == 'AI' && now.getHours() > 8 && args.x.all(i, i in roles)"), []);
        assert_eq!(said("'podUid' in caller || size(org.path) > 1"), []);
        assert_eq!(said("now.getHours('Europe/Berlin') > 8 && quantity('1').sign() == 1"), []);
        assert_eq!(said("size(org) == 3").len(), 1);
    }

    #[test]
    fn the_shape_of_rules_is_checked_too() {
        let refuse = |rules: Value| {
            check_policy(&serde_json::from_value(json!({"rules": rules})).unwrap(), std::iter::empty()).refuse().unwrap_or_default()
        };
        let rule = |more: Value| {
            let mut rule = json!({"name": "r", "expression": "true", "effect": "RequireApproval"});
            rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            rule
        };
        for (rules, want) in [
            (json!([]), "no rules"),
            (json!([rule(json!({}))]), "needs approval"),
            (json!([rule(json!({"approval": {}}))]), "exactly one of"),
            (json!([rule(json!({"approval": {"group": "g", "superior": true}}))]), "exactly one of"),
            (json!([rule(json!({"approval": {"group": "g", "count": 0}}))]), "at least 1"),
            (json!([rule(json!({"approval": {"group": "g", "expiresAfter": "soon"}}))]), "not a duration"),
            (json!([rule(json!({"effect": "Deny", "approval": {"group": "g"}}))]), "belongs to effect"),
            (json!([rule(json!({"approval": {"group": "g"}})), rule(json!({"approval": {"group": "g"}}))]), "has this name"),
        ] {
            assert!(refuse(rules.clone()).contains(want), "{rules}");
        }
        assert_eq!(refuse(json!([rule(json!({"approval": {"group": "g"}}))])), "");
    }
}
