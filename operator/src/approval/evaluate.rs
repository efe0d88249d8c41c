//! Whether an Approval is met: each requirement on its own, by Agents that count. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use polity_api::approval::{Answer, ApprovalPhase, ApprovalSpec, PersonDecision, Progress, Requirement};
use polity_policy::{AgentFacts, Person, Snapshot};

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

/// Judges an Approval at `now`. Expiry counts as denied; one entitled Deny denies.
pub fn evaluate(spec: &ApprovalSpec, snapshot: &Snapshot, now: Timestamp) -> Standing {
    let progress: Vec<Progress> = spec.requirements.iter().map(|r| progress(r, spec, snapshot, now)).collect();
    let deny = spec
        .decisions
        .iter()
        .find(|d| d.decision == Answer::Deny && spec.requirements.iter().any(|r| entitled(d, r, spec, snapshot, now).is_ok()));
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

fn progress(requirement: &Requirement, spec: &ApprovalSpec, snapshot: &Snapshot, now: Timestamp) -> Progress {
    let mut approved: BTreeSet<String> = BTreeSet::new();
    let mut ignored = Vec::new();
    for decision in spec.decisions.iter().filter(|d| d.decision == Answer::Approve) {
        match entitled(decision, requirement, spec, snapshot, now) {
            Ok(agent) => {
                approved.insert(format!("{}/{}", agent.namespace, agent.name));
            }
            Err(why) => ignored.push(format!("{}: {why}", decision.by)),
        }
    }
    let met = i32::try_from(approved.len()).is_ok_and(|n| n >= requirement.count);
    Progress { rule: requirement.rule.clone(), approved_by: approved.into_iter().collect(), ignored, met }
}

/// Whether an entry counts for a requirement, or why not.
fn entitled(
    decision: &PersonDecision,
    requirement: &Requirement,
    spec: &ApprovalSpec,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<AgentFacts, String> {
    if decision.at.is_none() {
        return Err("the entry was not stamped by Polity".to_owned());
    }
    let person = Person { username: &decision.by, groups: &decision.groups };
    let agent = snapshot.approver(&spec.requester, person)?;
    snapshot.approves(&spec.requester, requirement, person, &agent, now)?;
    Ok(agent)
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
