//! Everything that is cached of the cluster and that decisions rest on: the input of `Snapshot::build`.
//! Plain maps of shared objects; filling them is the watcher's work.

use std::{collections::BTreeMap, sync::Arc};

use polity_api::{Agent, Org, Policy, Role, Tool};

use crate::ToolFacts;

/// Namespace and name.
pub type Key = (String, String);

/// What is known of a Namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Uid.
    pub uid: String,
    /// Value of the consent label `polity.dev/org`.
    pub consent: Option<String>,
    /// Being deleted.
    pub terminating: bool,
}

/// Cached objects of every Org. Cloning is cheap enough for a rebuild (pointers only).
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Orgs by name.
    pub orgs: BTreeMap<String, Arc<Org>>,
    /// Namespaces by name.
    pub namespaces: BTreeMap<String, NamespaceFacts>,
    /// Roles.
    pub roles: BTreeMap<Key, Arc<Role>>,
    /// Policies.
    pub policies: BTreeMap<Key, Arc<Policy>>,
    /// Agents.
    pub agents: BTreeMap<Key, Arc<Agent>>,
    /// Tools.
    pub tools: BTreeMap<Key, Arc<Tool>>,
    /// Objects that are stored but cannot be decoded: kind, namespace, name, error. A broken Policy denies what its Org and those below do; other broken objects are as absent.
    pub undecodable: BTreeMap<(String, String, String), String>,
}

impl World {
    /// Tools that a Policy of this Org may meet: those in the namespaces of the Org and of every Org below, and what ancestors export. For `check_policy`.
    #[must_use]
    pub fn tools_in_reach(&self, _org: &str) -> Vec<Arc<ToolFacts>> {
        Vec::new()
    }
}
