//! What the controllers have cached of the cluster, one store a kind, and the few look-ups that several of them need.
//!
//! Never asks the API server; a look-up that finds nothing says so.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{ConfigMap, LimitRange, Namespace, Pod, ResourceQuota, ServiceAccount},
    networking::v1::NetworkPolicy,
    rbac::v1::RoleBinding,
};
use kube::{Resource, ResourceExt, api::ObjectMeta};
use polity_api::{Agent, Approval, Org, Policy, Role, Task, Tool, ToolCall, names, reasons};
use polity_plan::tree::{self, Broken, Link};
use polity_policy::{NamespaceFacts, World};

use crate::engine::store::Store;

/// Every cache of the controllers.
#[derive(Debug, Default)]
pub struct Cluster {
    /// Orgs.
    pub orgs: Arc<Store<Org>>,
    /// Roles.
    pub roles: Arc<Store<Role>>,
    /// Policies.
    pub policies: Arc<Store<Policy>>,
    /// Agents.
    pub agents: Arc<Store<Agent>>,
    /// Tools.
    pub tools: Arc<Store<Tool>>,
    /// Tasks.
    pub tasks: Arc<Store<Task>>,
    /// ToolCalls.
    pub calls: Arc<Store<ToolCall>>,
    /// Approvals.
    pub approvals: Arc<Store<Approval>>,
    /// Every Namespace.
    pub namespaces: Arc<Store<Namespace>>,
    /// Pods that Polity made.
    pub pods: Arc<Store<Pod>>,
    /// ResourceQuotas that Polity made.
    pub quotas: Arc<Store<ResourceQuota>>,
    /// LimitRanges that Polity made.
    pub limits: Arc<Store<LimitRange>>,
    /// NetworkPolicies that Polity made.
    pub network: Arc<Store<NetworkPolicy>>,
    /// ServiceAccounts that Polity made.
    pub accounts: Arc<Store<ServiceAccount>>,
    /// RoleBindings that Polity made.
    pub bindings: Arc<Store<RoleBinding>>,
    /// ConfigMaps named `polity-ca`.
    pub maps: Arc<Store<ConfigMap>>,
}

impl Cluster {
    /// Waits until every cache has its first full list.
    pub async fn wait_ready(&self) {
        let Self { orgs, roles, policies, agents, tools, tasks, calls, approvals, .. } = self;
        let Self { namespaces, pods, quotas, limits, network, accounts, bindings, maps, .. } = self;
        futures::join!(
            orgs.wait_ready(),
            roles.wait_ready(),
            policies.wait_ready(),
            agents.wait_ready(),
            tools.wait_ready(),
            tasks.wait_ready(),
            calls.wait_ready(),
            approvals.wait_ready()
        );
        futures::join!(namespaces.wait_ready(), pods.wait_ready(), quotas.wait_ready(), limits.wait_ready());
        futures::join!(network.wait_ready(), accounts.wait_ready(), bindings.wait_ready(), maps.wait_ready());
    }

    /// The parent links of every Org.
    #[must_use]
    pub fn links(&self) -> BTreeMap<String, Link> {
        let link = |org: &Arc<Org>| Link { parent: parent_of(org), deleting: org.metadata.deletion_timestamp.is_some() };
        self.orgs.all().iter().map(|org| (org.name_any(), link(org))).collect()
    }

    /// Names from the root down to `org`.
    ///
    /// # Errors
    /// Its ancestry is broken.
    pub fn path(&self, org: &str) -> Result<Vec<String>, Broken> {
        tree::path(org, &self.links())
    }

    /// The Org whose namespace this is: named by status with the namespace's uid, and either made for it or consented to.
    #[must_use]
    pub fn org_of(&self, namespace: &str) -> Option<Arc<Org>> {
        let object = self.namespaces.get("", namespace)?;
        // A label taken off a namespace that core made is drift, soon repaired: nobody must stop for it.
        let made_for =
            object.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true) && o.kind == "Org").map(|o| &o.name);
        let org = self.orgs.get("", object.labels().get(names::LABEL_ORG).or(made_for)?)?;
        let in_force = org.status.as_ref()?.namespace.as_ref()?;
        let made = controller_uid(object.as_ref()) == org.metadata.uid.as_deref();
        let consents = object.labels().get(names::LABEL_ORG) == org.metadata.name.as_ref();
        (in_force.name == namespace && Some(&in_force.uid) == object.metadata.uid.as_ref() && (made || consents)).then_some(org)
    }

    /// Whether calls and workers of an Org may run, as far as its spec and its ancestors' say. Err: the Org that stops it, and why.
    ///
    /// # Errors
    /// Suspended, not yet started, or deleting; or its ancestry is broken.
    pub fn running(&self, org: &str, now: jiff::Timestamp) -> Result<(), NotRunning> {
        let path = self.path(org).map_err(|broken| NotRunning::Broken(broken.to_string()))?;
        for name in path {
            let Some(org) = self.orgs.get("", &name) else { return Err(NotRunning::Broken(format!("Org {name} cannot be read"))) };
            if org.metadata.deletion_timestamp.is_some() {
                return Err(NotRunning::Deleting(name));
            }
            if org.spec.suspend {
                return Err(NotRunning::Suspended(name));
            }
            if let Some(at) = org.spec.start_at.as_ref().map(|t| t.0).filter(|at| *at > now) {
                return Err(NotRunning::NotStarted(name, at));
            }
        }
        // The calls of a worker that starts earlier would be refused by the quota. Counted once, it stays so.
        let calls = "count/toolcalls.polity.dev".to_owned();
        let counts = self.orgs.get("", org).is_some_and(|o| self.uncounted(o.wanted_namespace(), std::iter::once(&calls)).is_empty());
        if counts { Ok(()) } else { Err(NotRunning::NotCounted(org.to_owned())) }
    }

    /// Which of these resources the namespace's ResourceQuota limits but Kubernetes does not count yet.
    #[must_use]
    pub fn uncounted<'a>(&self, namespace: &str, resources: impl Iterator<Item = &'a String>) -> Vec<String> {
        let quota = self.quotas.get(namespace, names::ORG_OBJECT);
        // As the API server's admission sees it: without a use it does not know, it refuses.
        let counted = quota.as_ref().and_then(|q| q.status.as_ref()).and_then(|s| s.used.as_ref());
        resources.filter(|r| counted.is_none_or(|c| !c.contains_key(*r))).cloned().collect()
    }

    /// What the check of a Policy reads.
    #[must_use]
    pub fn world(&self) -> World {
        let key = |meta: &ObjectMeta| (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        World {
            orgs: self.orgs.all().into_iter().map(|o| (o.name_any(), o)).collect(),
            namespaces: self.namespaces.all().iter().map(|n| (n.name_any(), namespace_facts(n))).collect(),
            tools: self.tools.all().into_iter().map(|t| (key(&t.metadata), t)).collect(),
            ..World::default()
        }
    }
}

/// Why nothing may start in an Org.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRunning {
    /// Ancestry is broken.
    #[error("{0}")]
    Broken(String),
    /// Being deleted.
    #[error("Org {0} is being deleted")]
    Deleting(String),
    /// Suspended.
    #[error("Org {0} is suspended")]
    Suspended(String),
    /// Kubernetes does not count the quota's resources yet.
    #[error("the quota of Org {0} is not counted by Kubernetes yet")]
    NotCounted(String),
    /// Before its time.
    #[error("Org {0} starts at {1}")]
    NotStarted(String, jiff::Timestamp),
}

impl NotRunning {
    /// Its reason code.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Broken(_) => reasons::ANCESTRY_BROKEN,
            Self::Deleting(_) => reasons::ORG_DELETING,
            Self::Suspended(_) | Self::NotStarted(..) => reasons::ORG_SUSPENDED,
            Self::NotCounted(_) => reasons::ORG_NOT_READY,
        }
    }
}

/// Name of the parent.
#[must_use]
pub fn parent_of(org: &Org) -> Option<String> {
    org.spec.parent_ref.as_ref().map(|p| p.name.clone())
}

fn namespace_facts(namespace: &Namespace) -> NamespaceFacts {
    NamespaceFacts {
        uid: namespace.uid().unwrap_or_default(),
        consent: namespace.labels().get(names::LABEL_ORG).cloned(),
        terminating: namespace.metadata.deletion_timestamp.is_some(),
    }
}

/// Uid of the controlling owner.
#[must_use]
pub fn controller_uid(object: &impl Resource) -> Option<&str> {
    let owners = object.meta().owner_references.as_ref()?;
    owners.iter().find(|o| o.controller == Some(true)).map(|o| o.uid.as_str())
}
