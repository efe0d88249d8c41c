//! An Org becomes a namespace with everything in it, and stays so.

use anyhow::{Result, ensure};
use k8s_openapi::api::{
    core::v1::{LimitRange, Namespace, ResourceQuota},
    networking::v1::NetworkPolicy,
    rbac::v1::RoleBinding,
};
use kube::{Api, ResourceExt, api::ListParams};
use polity_e2e::{apply, org_name, parts::Polity};

use crate::fixtures;

/// One Org alone: its namespace, quota, limits, isolation and members are there when it says Ready.
pub async fn becomes_ready(polity: &Polity) -> Result<()> {
    let client = polity.cluster.admin().await?;
    let name = org_name("ready");
    apply(&client, fixtures::manifests(&name).split("---").next().unwrap_or_default()).await?;
    let org = fixtures::ready(&client, &name).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = namespaces.get(&name).await?;
    let status = org.status.unwrap_or_default();
    ensure!(status.namespace.as_ref().is_some_and(|n| Some(&n.uid) == namespace.metadata.uid.as_ref() && n.created), "{status:?}");
    ensure!(namespace.labels().get("pod-security.kubernetes.io/enforce").map(String::as_str) == Some("restricted"), "{namespace:?}");
    let all = ListParams::default();
    ensure!(!Api::<ResourceQuota>::namespaced(client.clone(), &name).list(&all).await?.items.is_empty(), "no ResourceQuota");
    ensure!(!Api::<LimitRange>::namespaced(client.clone(), &name).list(&all).await?.items.is_empty(), "no LimitRange");
    let isolation = Api::<NetworkPolicy>::namespaced(client.clone(), &name).list(&all).await?;
    let default_deny = isolation.iter().any(|p| {
        p.spec.as_ref().is_some_and(|s| {
            s.pod_selector.clone().unwrap_or_default().match_labels.unwrap_or_default().is_empty()
                && s.policy_types.as_ref().is_some_and(|t| t.len() == 2)
        })
    });
    ensure!(default_deny, "no default deny: {isolation:?}");
    let bindings = Api::<RoleBinding>::namespaced(client.clone(), &name).list(&all).await?;
    let engineer = bindings.iter().find(|b| b.role_ref.name == "polity-org-engineer");
    ensure!(engineer.is_some_and(|b| b.subjects.iter().flatten().any(|s| s.name == format!("bot@{name}"))), "{bindings:?}");
    Ok(())
}
