//! Everything that is cached of the cluster and that decisions rest on: the input of `Snapshot::build`.
//! Plain maps of shared objects; filling them is the watcher's work.

use std::{collections::BTreeMap, sync::Arc};

use polity_api::{Agent, Org, Policy, Role, Tool, role::Export};

use crate::{ToolFacts, tool};

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
    pub fn tools_in_reach(&self, org: &str) -> Vec<Arc<ToolFacts>> {
        let above = self.path(org);
        let mut out = Vec::new();
        for (name, it) in &self.orgs {
            let below = self.path(name).iter().any(|o| o == org);
            if !below && !above.contains(name) {
                continue;
            }
            let namespace = namespace_of(it);
            let tools = self.tools.range((namespace.to_owned(), String::new())..).take_while(|((ns, _), _)| ns == namespace);
            out.extend(
                tools.filter(|(_, t)| below || t.spec.export == Some(Export::Descendants)).map(|(_, t)| Arc::new(tool::facts(it, t))),
            );
        }
        out
    }

    /// The Org that a namespace belongs to, by what core has put in force. No label is read.
    #[must_use]
    pub fn org_of(&self, namespace: &str) -> Option<&str> {
        let of = |org: &Org| org.status.as_ref().and_then(|s| s.namespace.as_ref()).is_some_and(|n| n.name == namespace);
        self.orgs.iter().find(|(_, org)| of(org)).map(|(name, _)| name.as_str())
    }

    /// Names from an Org up to its root, as far as they exist; a cycle is cut.
    pub(crate) fn path(&self, org: &str) -> Vec<String> {
        let mut path: Vec<String> = Vec::new();
        let mut next = Some(org.to_owned());
        while let Some(name) = next.take().filter(|n| !path.contains(n)) {
            next = self.orgs.get(&name).and_then(|o| o.spec.parent_ref.as_ref()).map(|p| p.name.clone());
            path.push(name);
        }
        path
    }

    /// A Role of an Org by its name, unless it is being deleted.
    pub(crate) fn role_of(&self, org: &str, name: &str) -> Option<&Role> {
        let namespace = namespace_of(self.orgs.get(org)?).to_owned();
        self.roles.get(&(namespace, name.to_owned())).filter(|r| r.metadata.deletion_timestamp.is_none()).map(AsRef::as_ref)
    }

    /// Names of the Roles of an Org.
    pub(crate) fn roles_of<'a>(&'a self, org: &'a str) -> impl Iterator<Item = &'a str> {
        let namespace = self.orgs.get(org).map_or("", |o| namespace_of(o));
        self.roles.keys().filter(move |(ns, _)| ns == namespace).map(|(_, name)| name.as_str())
    }
}

/// The namespace in force, or the one that is asked for while there is none.
fn namespace_of(org: &Org) -> &str {
    org.status.as_ref().and_then(|s| s.namespace.as_ref()).map_or_else(|| org.wanted_namespace(), |n| n.name.as_str())
}
