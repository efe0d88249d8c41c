//! Who counts for an Approval: the same rule at admission and before the run. People are counted as Agents, so two usernames of one Agent are one approver,
//! and who asked, himself or through others, never counts. Reads holders and superiors of a time; stores nothing.

use jiff::Timestamp;
use polity_api::{approval::Requirement, caller::Caller};

use crate::{AgentFacts, Snapshot};

/// What the API server names itself for Pods; never a person.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Somebody, as the API server named him when he made his entry.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    /// Username.
    pub username: &'a str,
    /// Groups.
    pub groups: &'a [String],
}

impl Snapshot {
    /// The Agent whose entry this is, unless he may not decide about this request at all.
    ///
    /// # Errors
    /// He is no Agent of the tree, or he is who asks.
    pub fn approver(&self, requester: &Caller, person: Person<'_>) -> Result<AgentFacts, String> {
        let agent = self
            .agent_by_username(person.username)
            .ok_or_else(|| format!("{:?} is not the username of exactly one Agent of this organisation", person.username))?;
        for asking in std::iter::once(&requester.username).chain(&requester.chain) {
            let same = self.agent_by_username(asking).is_some_and(|a| a.namespace == agent.namespace && a.name == agent.name);
            if asking == person.username || same {
                return Err(format!("{}/{} asked for it (as {asking:?}), and nobody approves an own request", agent.namespace, agent.name));
            }
        }
        Ok(agent)
    }

    /// How many Agents could approve a requirement of this request at a time; None for a group, whose members only the API server knows.
    #[must_use]
    pub fn able(&self, requester: &Caller, requirement: &Requirement, now: Timestamp) -> Option<usize> {
        let asking: Vec<AgentFacts> =
            std::iter::once(&requester.username).chain(&requester.chain).filter_map(|u| self.agent_by_username(u)).collect();
        let among = match (&requirement.role, &requirement.group) {
            (Some(role), _) => self.holders(role, now),
            (None, Some(_)) => return None,
            (None, None) => asking.first().map(|agent| self.superiors(agent, now)).unwrap_or_default(),
        };
        let same = |a: &AgentFacts, b: &AgentFacts| a.namespace == b.namespace && a.name == b.name;
        let able = |a: &&AgentFacts| (!requirement.humans_only || a.kind == "Human") && !asking.iter().any(|b| same(a, b));
        Some(among.iter().filter(able).count())
    }

    /// Whether the entry of that person, who is that Agent, counts for a requirement at a time.
    ///
    /// # Errors
    /// It does not, and why.
    pub fn approves(
        &self,
        requester: &Caller,
        requirement: &Requirement,
        person: Person<'_>,
        agent: &AgentFacts,
        now: Timestamp,
    ) -> Result<(), String> {
        let name = format!("{}/{}", agent.namespace, agent.name);
        if requirement.humans_only && (agent.kind != "Human" || person.username.starts_with(SERVICE_ACCOUNT)) {
            return Err(format!("{name} is of type {}, and only people count for rule {}", agent.kind, requirement.rule));
        }
        let is = |found: Vec<AgentFacts>| found.iter().any(|a| a.namespace == agent.namespace && a.name == agent.name);
        let among = match (&requirement.role, &requirement.group) {
            (Some(role), _) => is(self.holders(role, now)),
            (None, Some(group)) => person.groups.contains(group),
            (None, None) => {
                let asking = self.agent_by_username(&requester.username).filter(|_| requirement.superior);
                asking.is_some_and(|asking| is(self.superiors(&asking, now)))
            }
        };
        if among { Ok(()) } else { Err(format!("{name} is not among {} (rule {})", requirement.asked(), requirement.rule)) }
    }
}
