//! The objects of an Org, from its checked spec. Pure: nothing is read here, and nothing can fail.

mod members;
mod network;
mod quota;

use k8s_openapi::api::{
    core::v1::{ConfigMap, LimitRange, Namespace, ServiceAccount},
    networking::v1::NetworkPolicy,
    rbac::v1::RoleBinding,
};
use kube::{ResourceExt, api::ObjectMeta};
use polity_api::{Org, names};

pub use quota::resource_quota;

use super::{dereference::Facts, validate::Members};
use crate::apply::{labels, owner};

/// What core makes in an Org's namespace for the Org itself; its quota is built apart, under the lock of allocation.
pub struct Bundle {
    /// Defaults of containers.
    pub limits: LimitRange,
    /// Isolation.
    pub network: Vec<NetworkPolicy>,
    /// The CA that agents and tools trust; None: not made yet.
    pub ca: Option<ConfigMap>,
    /// Account of tool Pods.
    pub account: ServiceAccount,
    /// Rights of members, and of the edge where it must read Secrets.
    pub bindings: Vec<RoleBinding>,
}

/// Builds it.
pub fn bundle(facts: &Facts, members: &Members) -> Bundle {
    let org = &facts.org;
    let mut bindings = members::bindings(org, members);
    if facts.secrets {
        bindings.push(members::edge_secrets(org, &facts.system));
    }
    Bundle {
        limits: quota::limit_range(org),
        network: network::policies(org, &facts.system),
        ca: facts.ca.as_ref().map(|pem| ConfigMap {
            metadata: meta(org, names::CA_CONFIGMAP),
            data: Some([("ca.crt".to_owned(), pem.clone())].into()),
            ..ConfigMap::default()
        }),
        account: ServiceAccount {
            metadata: meta(org, names::TOOL_ACCOUNT),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        bindings,
    }
}

/// The namespace of an Org that has none yet.
pub fn namespace(org: &Org) -> Namespace {
    let mut labels = labels(&org.name_any(), "Org", &org.name_any());
    for mode in ["enforce", "audit", "warn"] {
        labels.insert(format!("pod-security.kubernetes.io/{mode}"), "restricted".to_owned());
    }
    Namespace {
        metadata: ObjectMeta {
            name: Some(org.wanted_namespace().to_owned()),
            labels: Some(labels),
            owner_references: Some(vec![owner(org)]),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

/// Metadata of a child of an Org.
fn meta(org: &Org, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(org.wanted_namespace().to_owned()),
        labels: Some(labels(&org.name_any(), "Org", &org.name_any())),
        owner_references: Some(vec![owner(org)]),
        ..ObjectMeta::default()
    }
}
