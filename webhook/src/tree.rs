//! Who belongs where, read from the cache: the Org of a namespace, its line of parents, its tree, and the usernames of an Agent.
//!
//! For advice at admission only: who a caller is, and what he may, the snapshot says.

use std::collections::BTreeSet;

use polity_api::{Agent, AgentType, Org, Role, names, role::RoleRef};
use polity_policy::{Key, World};

/// The Org whose namespace this is: as core has put in force, else as its spec asks.
#[must_use]
pub fn org_of<'a>(world: &'a World, namespace: &str) -> Option<&'a Org> {
    let in_force = |org: &&std::sync::Arc<Org>| org.status.as_ref().and_then(|s| s.namespace.as_ref()).is_some_and(|n| n.name == namespace);
    let asked = |org: &&std::sync::Arc<Org>| org.wanted_namespace() == namespace;
    world.orgs.values().find(in_force).or_else(|| world.orgs.values().find(asked)).map(AsRef::as_ref)
}

/// Name of an Org.
#[must_use]
pub fn name_of(org: &Org) -> &str {
    org.metadata.name.as_deref().unwrap_or_default()
}

/// Names of an Org and everything above it that is known, itself first. A circle ends where it closes.
#[must_use]
pub fn line(world: &World, org: &str) -> Vec<String> {
    let mut names = vec![org.to_owned()];
    while let Some(parent) = names.last().and_then(|n| world.orgs.get(n)).and_then(|o| o.spec.parent_ref.as_ref()) {
        if names.contains(&parent.name) {
            break;
        }
        names.push(parent.name.clone());
    }
    names
}

/// Namespaces of every Org of the tree that this Org is in.
#[must_use]
pub fn tree_namespaces(world: &World, org: &str) -> BTreeSet<String> {
    let root = line(world, org).pop();
    world.orgs.iter().filter(|(name, _)| line(world, name).pop() == root).map(|(_, org)| org.wanted_namespace().to_owned()).collect()
}

/// Namespaces of an Org and of every Org below it.
#[must_use]
pub fn namespaces_below(world: &World, org: &str) -> BTreeSet<String> {
    world
        .orgs
        .iter()
        .filter(|(name, _)| line(world, name).iter().any(|n| n == org))
        .map(|(_, org)| org.wanted_namespace().to_owned())
        .collect()
}

/// Usernames that an Agent says it has, or that core has put in force.
#[must_use]
pub fn usernames(agent: &Agent) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = agent.spec.usernames.iter().flatten().cloned().collect();
    all.extend(agent.status.iter().flat_map(|s| s.usernames.iter().cloned()));
    if agent.spec.type_ == AgentType::AI {
        let (namespace, name) = key(agent);
        all.insert(names::service_account_username(&namespace, &names::agent_account(&name)));
    }
    all
}

fn key(agent: &Agent) -> Key {
    (agent.metadata.namespace.clone().unwrap_or_default(), agent.metadata.name.clone().unwrap_or_default())
}

/// The Role that a reference written in `org` names: in its own Org, or in one above.
#[must_use]
pub fn role<'a>(world: &'a World, org: &str, reference: &RoleRef) -> Option<(&'a Key, &'a Role)> {
    let at = reference.org.as_deref().unwrap_or(org);
    if !line(world, org).iter().any(|n| n == at) {
        return None;
    }
    let namespace = world.orgs.get(at)?.wanted_namespace().to_owned();
    let (key, role) = world.roles.get_key_value(&(namespace, reference.name.clone()))?;
    role.metadata.deletion_timestamp.is_none().then_some((key, role.as_ref()))
}
