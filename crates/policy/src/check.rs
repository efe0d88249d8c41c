//! Checks a Policy before it is in force: the same function for admission, controller and command line.

use polity_api::policy::PolicySpec;

use crate::ToolFacts;

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

/// What the check of a Policy found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyCheck {
    /// What can never be right: admission refuses it.
    pub errors: Vec<Problem>,
    /// Tools (as `namespace/name`) that lack what a rule names: these calls are denied `PolicyNotTyped`.
    pub not_typed: Vec<(String, Problem)>,
    /// Rules name `args` and no Tool that the Policy selects is known yet: what it selects is denied until then.
    pub missing_tools: bool,
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
        None
    }

    /// What the controller's condition says.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary { ready: false, stalled: false, reason: "", message: String::new() }
    }
}

/// Checks every rule of a Policy against the declared variables and the Tools in its reach (`World::tools_in_reach`); those that its `match` does not
/// select are left out here.
#[must_use]
pub fn check_policy<'a>(_spec: &PolicySpec, _tools: impl Iterator<Item = &'a ToolFacts>) -> PolicyCheck {
    PolicyCheck::default()
}
