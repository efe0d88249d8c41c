//! Rights of members as RoleBindings to the chart's ClusterRoles. Core makes no Role and holds none of these rights itself.

use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use polity_api::{Org, names, org::MemberKind};

use super::{super::validate::Members, meta};

const RBAC: &str = "rbac.authorization.k8s.io";

/// One RoleBinding for each member role that somebody has.
pub fn bindings(org: &Org, members: &Members) -> Vec<RoleBinding> {
    let subject = |(kind, name): &(MemberKind, String)| Subject {
        api_group: Some(RBAC.to_owned()),
        kind: match kind {
            MemberKind::User => "User",
            MemberKind::Group => "Group",
        }
        .to_owned(),
        name: name.clone(),
        namespace: None,
    };
    members
        .iter()
        .map(|(role, people)| {
            let name = format!("{}{}", names::MEMBER_BINDING_PREFIX, role.name());
            binding(org, &name, &format!("polity-org-{}", role.name()), people.iter().map(subject).collect())
        })
        .collect()
}

/// Lets the edge read Secrets of this namespace, for headers of http Tools.
pub fn edge_secrets(org: &Org, system: &str) -> RoleBinding {
    let edge =
        Subject { api_group: None, kind: "ServiceAccount".to_owned(), name: names::EDGE.to_owned(), namespace: Some(system.to_owned()) };
    binding(org, "polity-edge-secrets", "polity-edge-secrets", vec![edge])
}

fn binding(org: &Org, name: &str, role: &str, subjects: Vec<Subject>) -> RoleBinding {
    RoleBinding {
        metadata: meta(org, name),
        role_ref: RoleRef { api_group: RBAC.to_owned(), kind: "ClusterRole".to_owned(), name: role.to_owned() },
        subjects: Some(subjects),
    }
}
