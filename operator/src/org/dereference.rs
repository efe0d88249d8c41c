//! Collects what an Org refers to, from the caches only.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use kube::ResourceExt;
use polity_api::{Org, names};
use polity_plan::{
    quantity::Amount,
    quota::{Amounts, Unit},
    tree::{self, Broken, Link},
};

use crate::cluster::{Cluster, controller_uid, parent_of};

/// Everything that a reconcile of an Org reads.
pub struct Facts {
    /// The Org.
    pub org: Arc<Org>,
    /// Names from the root down to it.
    pub path: Result<Vec<String>, Broken>,
    /// Its ancestors, root first.
    pub ancestors: Vec<Arc<Org>>,
    /// The Namespace of that name, if there is one.
    pub namespace: Option<Arc<Namespace>>,
    /// Another Org that uses the namespace already, or was there first.
    pub rival: Option<String>,
    /// A Tool of the namespace takes headers from Secrets, so that the edge must read those.
    pub secrets: bool,
    /// PEM of the CA.
    pub ca: Option<String>,
    /// Namespace of Polity.
    pub system: String,
    /// Present time.
    pub now: Timestamp,
}

impl Facts {
    /// Ancestors, root first, and the Org itself.
    pub fn line(&self) -> impl Iterator<Item = &Arc<Org>> {
        self.ancestors.iter().chain(std::iter::once(&self.org))
    }
}

/// Collects.
pub fn dereference(cluster: &Cluster, org: Arc<Org>, ca: Option<String>, system: &str, now: Timestamp) -> Facts {
    let path = cluster.path(&org.name_any());
    let above = path.as_ref().map(|p| p[..p.len() - 1].to_vec()).unwrap_or_default();
    let wanted = org.wanted_namespace().to_owned();
    Facts {
        path,
        ancestors: above.iter().filter_map(|name| cluster.orgs.get("", name)).collect(),
        namespace: cluster.namespaces.get("", &wanted),
        rival: rival(cluster, &org, &wanted),
        secrets: cluster
            .tools
            .in_namespace(&wanted)
            .iter()
            .any(|t| t.spec.runtime.endpoint().is_some_and(|(_, e)| !e.secret_headers.is_empty())),
        ca,
        system: system.to_owned(),
        now,
        org,
    }
}

/// The Org that comes before this one for a namespace: who uses it, else who was there first.
fn rival(cluster: &Cluster, org: &Org, namespace: &str) -> Option<String> {
    let rank = |o: &Org| {
        let uses = o.status.as_ref().and_then(|s| s.namespace.as_ref()).is_some_and(|n| n.name == namespace);
        (!uses, o.creation_timestamp().map(|t| t.0), o.name_any())
    };
    let own = rank(org);
    cluster
        .orgs
        .all()
        .iter()
        .filter(|o| o.wanted_namespace() == namespace && o.metadata.uid != org.metadata.uid)
        .map(|o| rank(o))
        .filter(|r| *r < own)
        .min()
        .map(|r| r.2)
}

/// What allocation knows of every Org of the tree that `org` is in. An Org that is being deleted keeps its share until it is gone.
#[must_use]
pub fn units(cluster: &Cluster, org: &str) -> Vec<Unit> {
    let links: BTreeMap<String, Link> = cluster.links().into_iter().map(|(n, l)| (n, Link { deleting: false, ..l })).collect();
    let Some(root) = tree::path(org, &links).ok().and_then(|p| p.into_iter().next()) else { return Vec::new() };
    let all = cluster.orgs.all();
    all.iter().filter(|o| tree::path(&o.name_any(), &links).is_ok_and(|p| p.first() == Some(&root))).map(|o| unit(cluster, o)).collect()
}

fn unit(cluster: &Cluster, org: &Org) -> Unit {
    let quota = quota_of(cluster, org);
    let (live, used) =
        quota.map(|q| (q.spec.as_ref().and_then(|s| s.hard.clone()), q.status.as_ref().and_then(|s| s.used.clone()))).unwrap_or_default();
    Unit {
        name: org.name_any(),
        parent: parent_of(org),
        created: org.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        asks: asks(org).unwrap_or_default(),
        live: amounts(live.unwrap_or_default()),
        used: amounts(used.unwrap_or_default()),
    }
}

/// The ResourceQuota that core made for an Org.
pub fn quota_of(cluster: &Cluster, org: &Org) -> Option<Arc<ResourceQuota>> {
    cluster.quotas.get(org.wanted_namespace(), names::ORG_OBJECT).filter(|q| controller_uid(q.as_ref()) == org.metadata.uid.as_deref())
}

/// What the spec asks for.
pub fn asks(org: &Org) -> Result<Amounts, String> {
    let hard = org.spec.quota.iter().flat_map(|q| &q.hard);
    hard.map(|(r, q)| Amount::parse(&q.0).map(|a| (r.clone(), a)).map_err(|e| format!("quota.hard[{r:?}]: {e}"))).collect()
}

/// Amounts as the API server has them; one that cannot be read counts as nothing.
fn amounts(list: BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> Amounts {
    list.into_iter().filter_map(|(r, q)| Some((r, Amount::parse(&q.0).ok()?))).collect()
}
