//! What Roles grant, and which actions a Policy looks at. Names and labels only; no expression is read here.

use polity_api::{policy::Match, role::Grant};

use crate::{ToolFacts, glob};

/// Whether a grant covers a verb on a Tool. A grant that names neither tools nor risk labels grants nothing.
#[must_use]
pub fn covers(grant: &Grant, verb: &str, tool: &ToolFacts) -> bool {
    if !grant.verbs.iter().any(|v| v == verb) || (grant.tools.is_none() && grant.risk.is_none()) {
        return false;
    }
    let named = grant.tools.as_ref().is_none_or(|globs| globs.iter().any(|g| glob::matches(g, &tool.name)));
    let harmless = grant.risk.as_ref().is_none_or(|allowed| tool.spec.risk.iter().all(|label| allowed.contains(label)));
    named && harmless
}

/// The facts of an action that a match reads.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// Verb.
    pub verb: &'a str,
    /// Org that acts.
    pub org: &'a str,
    /// Names from the root Org down to it.
    pub path: &'a [String],
    /// Tool.
    pub tool: &'a ToolFacts,
    /// Agent that acts, by name.
    pub agent: &'a str,
    /// Groups of the caller.
    pub groups: &'a [String],
    /// Job space of the action.
    pub job_space: Option<&'a str>,
}

/// Whether a match selects a Tool, whoever calls it.
#[must_use]
pub fn selects_tool(m: Option<&Match>, tool: &ToolFacts) -> bool {
    m.is_none_or(|m| any(&m.tools, |g| glob::matches(g, &tool.name)) && any(&m.risk, |label| tool.spec.risk.contains(label)))
}

/// Whether a match selects a Tool in an Org, whoever calls it.
#[must_use]
pub fn selects_place(m: Option<&Match>, tool: &ToolFacts, org: &str, path: &[String]) -> bool {
    selects_tool(m, tool) && m.is_none_or(|m| any(&m.orgs, |o| o == org) && any(&m.units, |u| path.contains(u)))
}

/// Whether a match selects an action. `held` says whether the caller has a Role of the Policy's own Org.
#[must_use]
pub fn selects(m: Option<&Match>, action: &Action<'_>, held: impl Fn(&str) -> bool) -> bool {
    misses(m, action, held).is_none()
}

/// The first field of a match that an action does not fit; None: it is selected.
#[must_use]
pub fn misses(m: Option<&Match>, action: &Action<'_>, held: impl Fn(&str) -> bool) -> Option<&'static str> {
    let m = m?;
    if !selects_tool(Some(m), action.tool) {
        return Some(if any(&m.tools, |g| glob::matches(g, &action.tool.name)) { "risk" } else { "tools" });
    }
    if !selects_place(Some(m), action.tool, action.org, action.path) {
        return Some(if any(&m.orgs, |o| o == action.org) { "units" } else { "orgs" });
    }
    if !any(&m.verbs, |v| v == action.verb) {
        return Some("verbs");
    }
    if !any(&m.roles, |r| held(r)) {
        return Some("roles");
    }
    if !any(&m.groups, |g| action.groups.contains(g)) {
        return Some("groups");
    }
    if !any(&m.agents, |a| a == action.agent) {
        return Some("agents");
    }
    (!any(&m.job_spaces, |j| action.job_space == Some(j))).then_some("jobSpaces")
}

/// An absent field selects everything.
fn any(entries: &[String], fits: impl Fn(&String) -> bool) -> bool {
    entries.is_empty() || entries.iter().any(fits)
}
