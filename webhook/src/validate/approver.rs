//! Whether a person's entry counts for a requirement of an Approval: the same rule at admission and before the run.
//!
//! People are counted as Agents: two usernames of one Agent are one approver, and the requester, or anybody behind a
//! delegated request, never counts. It reads holders and superiors from a fresh snapshot and stores nothing.

use polity_api::{approval::Requirement, caller::Caller};
use polity_policy::{AgentFacts, Snapshot};

const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// A person, as the API server named him when he made his entry.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    /// Username.
    pub username: &'a str,
    /// Groups.
    pub groups: &'a [String],
}

/// The person's Agent, unless he may not decide about this request at all.
///
/// # Errors
/// He is no Agent of the tree, or he is who asks.
pub fn agent_of(view: &Snapshot, requester: &Caller, person: Person<'_>) -> Result<AgentFacts, String> {
    let agent = view
        .agent_by_username(person.username)
        .ok_or_else(|| format!("{:?} is not the username of exactly one Agent of this organisation", person.username))?;
    for asking in std::iter::once(&requester.username).chain(&requester.chain) {
        if asking == person.username || view.agent_by_username(asking).as_ref() == Some(&agent) {
            return Err(format!("{}/{} asked for it (as {asking:?}), and nobody approves an own request", agent.namespace, agent.name));
        }
    }
    Ok(agent)
}

/// Whether that Agent's entry counts for this requirement.
///
/// # Errors
/// It does not, and why.
pub fn counts(
    view: &Snapshot,
    requester: &Caller,
    requirement: &Requirement,
    person: Person<'_>,
    agent: &AgentFacts,
) -> Result<(), String> {
    let name = format!("{}/{}", agent.namespace, agent.name);
    if requirement.humans_only && (agent.kind != "Human" || person.username.starts_with(SERVICE_ACCOUNT)) {
        return Err(format!("{name} is of type {}, and only people count for rule {}", agent.kind, requirement.rule));
    }
    let among = if let Some(role) = &requirement.role {
        view.holders(role).contains(agent)
    } else if let Some(group) = &requirement.group {
        person.groups.contains(group)
    } else if requirement.superior {
        view.agent_by_username(&requester.username).is_some_and(|asking| view.superiors(&asking).contains(agent))
    } else {
        false
    };
    if among { Ok(()) } else { Err(format!("{name} is not among {} (rule {})", requirement.asked(), requirement.rule)) }
}
