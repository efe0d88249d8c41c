//! Whether an Approval is met: each requirement on its own, by Agents that count. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use polity_api::approval::{Answer, ApprovalPhase, ApprovalSpec, PersonDecision, Progress, Requirement};
use polity_policy::{AgentFacts, Snapshot};

/// Where an Approval stands, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Its phase.
    pub phase: ApprovalPhase,
    /// Progress of each requirement.
    pub requirements: Vec<Progress>,
    /// One sentence for people.
    pub message: String,
}

/// What evaluation needs to know of the Org.
pub trait Directory {
    /// The Agent behind a username.
    fn agent(&self, username: &str) -> Option<AgentFacts>;
    /// Whether the Agent holds the Role.
    fn holds(&self, agent: &AgentFacts, role: &polity_api::role::RoleRef) -> bool;
    /// Whether the Agent holds a Role that a Role of the requester reports to.
    fn superior(&self, agent: &AgentFacts, requester: &AgentFacts) -> bool;
}

impl Directory for Snapshot {
    fn agent(&self, username: &str) -> Option<AgentFacts> {
        self.agent_by_username(username)
    }
    fn holds(&self, agent: &AgentFacts, role: &polity_api::role::RoleRef) -> bool {
        self.holders(role).contains(agent)
    }
    fn superior(&self, agent: &AgentFacts, requester: &AgentFacts) -> bool {
        self.superiors(requester).contains(agent)
    }
}

/// Judges an Approval at `now`. Expiry counts as denied; one entitled Deny denies.
pub fn evaluate(spec: &ApprovalSpec, directory: &impl Directory, now: Timestamp) -> Standing {
    let requester = directory.agent(&spec.requester.username);
    let progress: Vec<Progress> = spec.requirements.iter().map(|r| progress(r, spec, requester.as_ref(), directory)).collect();
    let deny = spec.decisions.iter().find(|d| {
        d.decision == Answer::Deny && spec.requirements.iter().any(|r| entitled(d, r, spec, requester.as_ref(), directory).is_ok())
    });
    let (phase, message) = if let Some(deny) = deny {
        let why = deny.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default();
        (ApprovalPhase::Denied, format!("denied by {}{why}", deny.by))
    } else if progress.iter().all(|p| p.met) {
        (ApprovalPhase::Approved, "every requirement is met".to_owned())
    } else if now >= spec.expires_at.0 {
        (ApprovalPhase::Expired, "nobody approved in time; that counts as denied".to_owned())
    } else {
        let open: Vec<String> = spec
            .requirements
            .iter()
            .zip(&progress)
            .filter(|(_, p)| !p.met)
            .map(|(r, p)| format!("{} of {} from {} for {}", p.approved_by.len(), r.count, who(r), r.rule))
            .collect();
        (ApprovalPhase::Pending, format!("waiting: {}", open.join("; ")))
    };
    Standing { phase, requirements: progress, message }
}

/// Who is asked, for people.
#[must_use]
pub fn who(requirement: &Requirement) -> String {
    match (&requirement.role, &requirement.group) {
        (Some(role), _) => format!("role {}{}", role.org.as_deref().map(|o| format!("{o}/")).unwrap_or_default(), role.name),
        (None, Some(group)) => format!("group {group}"),
        (None, None) => "the requester's superior".to_owned(),
    }
}

fn progress(requirement: &Requirement, spec: &ApprovalSpec, requester: Option<&AgentFacts>, directory: &impl Directory) -> Progress {
    let mut approved: BTreeSet<String> = BTreeSet::new();
    let mut ignored = Vec::new();
    for decision in spec.decisions.iter().filter(|d| d.decision == Answer::Approve) {
        match entitled(decision, requirement, spec, requester, directory) {
            Ok(agent) => {
                approved.insert(format!("{}/{}", agent.namespace, agent.name));
            }
            Err(why) => ignored.push(format!("{}: {why}", decision.by)),
        }
    }
    let met = i32::try_from(approved.len()).is_ok_and(|n| n >= requirement.count);
    Progress { rule: requirement.rule.clone(), approved_by: approved.into_iter().collect(), ignored, met }
}

/// Whether an entry counts for a requirement, or why not. Counts Agents, never usernames.
pub fn entitled(
    decision: &PersonDecision,
    requirement: &Requirement,
    spec: &ApprovalSpec,
    requester: Option<&AgentFacts>,
    directory: &impl Directory,
) -> Result<AgentFacts, &'static str> {
    let Some(agent) = directory.agent(&decision.by) else {
        return Err("no Agent of the Org has this username");
    };
    let behind = || spec.requester.chain.iter().any(|name| *name == decision.by || directory.agent(name).as_ref() == Some(&agent));
    if decision.by == spec.requester.username || requester == Some(&agent) || behind() {
        return Err("the requester never counts, nor does anybody who asked through him");
    }
    if decision.at.is_none() {
        return Err("the entry was not stamped by Polity");
    }
    if requirement.humans_only && (agent.kind != "Human" || decision.by.starts_with("system:serviceaccount:")) {
        return Err("only people count");
    }
    let fits = match (&requirement.role, &requirement.group) {
        (Some(role), _) => directory.holds(&agent, role),
        (None, Some(group)) => decision.groups.contains(group),
        (None, None) => requirement.superior && requester.is_some_and(|r| directory.superior(&agent, r)),
    };
    if fits { Ok(agent) } else { Err("does not hold what the rule asks for") }
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
