//! By which usernames decisions know an Agent, each in one Agent of an Org tree only.

use kube::ResourceExt;
use polity_api::{Agent, AgentType, names, reasons};

use crate::cluster::Cluster;

/// Why an Agent has no usernames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Reason of the condition.
    pub reason: &'static str,
    /// Message of the condition.
    pub message: String,
}

/// What an Agent claims: an AI its account, others what they list.
pub fn claimed(agent: &Agent) -> Vec<String> {
    match agent.spec.type_ {
        AgentType::AI => {
            vec![names::service_account_username(&agent.namespace().unwrap_or_default(), &names::agent_account(&agent.name_any()))]
        }
        AgentType::Human | AgentType::System => agent.spec.usernames.clone().unwrap_or_default(),
    }
}

/// Usernames in force, or why there are none: an account belongs to its AI Agent, and else the elder keeps a name.
pub fn usernames(cluster: &Cluster, agent: &Agent) -> Result<Vec<String>, Refused> {
    let mut mine = claimed(agent);
    mine.sort();
    mine.dedup();
    if agent.spec.type_ == AgentType::Human
        && let Some(name) = mine.iter().find(|n| n.starts_with("system:"))
    {
        let message = format!("{name:?} is an account of the system, not a person. Use type System for programs.");
        return Err(Refused { reason: reasons::NOT_HUMAN, message });
    }
    if agent.spec.type_ == AgentType::AI {
        return Ok(mine);
    }
    let root = |namespace: &str| {
        let org = cluster.org_of(namespace)?;
        // A broken ancestry denies everything anyway; then only the own Org is compared.
        Some(cluster.path(&org.name_any()).ok().and_then(|p| p.into_iter().next()).unwrap_or_else(|| org.name_any()))
    };
    let rank = |a: &Agent| (a.spec.type_ != AgentType::AI, a.creation_timestamp().map(|t| t.0), a.namespace(), a.name_any());
    let (own_root, own_rank) = (root(&agent.namespace().unwrap_or_default()), rank(agent));
    let before = cluster.agents.all().into_iter().filter(|other| rank(other) < own_rank && other.metadata.uid != agent.metadata.uid);
    for other in before {
        let taken = claimed(&other).into_iter().find(|n| mine.contains(n));
        if let Some(name) = taken
            && root(&other.namespace().unwrap_or_default()) == own_root
        {
            let message = format!(
                "Username {name:?} belongs to Agent {}/{} of the same Org tree.",
                other.namespace().unwrap_or_default(),
                other.name_any()
            );
            return Err(Refused { reason: reasons::USERNAME_TAKEN, message });
        }
    }
    Ok(mine)
}
