//! Checks a Policy before it is in force: the same function for admission, controller and command line.

use std::fmt;

use polity_api::{
    policy::{PolicyRule, PolicySpec},
    reasons,
};

use crate::{ToolFacts, cel::program::Fault, compile::CompiledPolicy, grant, tool::CompiledTool};

/// One thing that is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Name of the rule; empty when it is about the Policy as a whole.
    pub rule: String,
    /// Line in the expression, from 1; 0 when it is not about a place in it.
    pub line: usize,
    /// Column in that line, from 1.
    pub column: usize,
    /// What is wrong, what was meant, and what exists.
    pub message: String,
}

impl Problem {
    /// About a rule as a whole.
    pub(crate) fn rule(rule: &PolicyRule, message: &str) -> Self {
        Self { rule: rule.name.clone(), line: 0, column: 0, message: message.to_owned() }
    }

    /// At a place of a rule's expression.
    pub(crate) fn at(rule: &PolicyRule, fault: Fault) -> Self {
        Self { rule: rule.name.clone(), line: fault.line, column: fault.column, message: fault.message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.rule.is_empty() {
            write!(f, "rule {}", self.rule)?;
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
            (true, false, "InForce", format!("{} rules in force", self.rules))
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
    let mut out = PolicyCheck { errors: compiled.problems.clone(), rules: spec.rules.len(), ..PolicyCheck::default() };
    if !out.errors.is_empty() || !compiled.rules.iter().any(|r| r.program.uses_args) {
        return out;
    }
    let (mut known, mut fit) = (0, false);
    for tool in tools.filter(|t| grant::selects_tool(spec.matches.as_ref(), t)) {
        let compiled_tool = CompiledTool::new(tool);
        if compiled_tool.broken.is_some() {
            // denied ToolNotReady; nothing can be said of its arguments
            continue;
        }
        known += 1;
        match compiled.check_typed(spec, tool, compiled_tool.args.as_ref()).into_iter().next() {
            Some(problem) => out.not_typed.push((format!("{}/{}", tool.namespace, tool.name), problem)),
            None => fit = true,
        }
    }
    out.missing_tools = known == 0;
    if known > 0 && !fit {
        // no Tool that it selects has what it names: that is a slip, not a Tool that is still to come
        out.errors = std::mem::take(&mut out.not_typed).into_iter().map(|(_, problem)| problem).collect();
        out.errors.dedup();
    }
    out
}
