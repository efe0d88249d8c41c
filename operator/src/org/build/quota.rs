//! ResourceQuota and LimitRange of an Org, in the API server's canonical form.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{LimitRange, LimitRangeItem, LimitRangeSpec, ResourceQuota, ResourceQuotaSpec},
    apimachinery::pkg::api::resource::Quantity,
};
use polity_api::{Org, names};
use polity_plan::{quantity::Amount, quota::Amounts};

use super::meta;

/// Most objects of a kind in an Org that says nothing else: one Org cannot fill the store of the cluster.
const COUNTS: [(&str, i64); 3] =
    [("count/toolcalls.polity.dev", 1000), ("count/approvals.polity.dev", 1000), ("count/tasks.polity.dev", 1000)];
/// What a container gets that states nothing.
const LIMITS: [(&str, &str); 2] = [("cpu", "500m"), ("memory", "256Mi")];
const REQUESTS: [(&str, &str); 2] = [("cpu", "50m"), ("memory", "64Mi")];

/// The quota of an Org: what may be in force now, and default counts.
pub fn resource_quota(org: &Org, hard: &Amounts) -> ResourceQuota {
    let mut all: BTreeMap<String, Quantity> =
        COUNTS.iter().map(|(r, n)| ((*r).to_owned(), Quantity(Amount::whole(*n).to_string()))).collect();
    all.extend(hard.iter().map(|(r, a)| (r.clone(), Quantity(a.to_string()))));
    ResourceQuota {
        metadata: meta(org, names::ORG_OBJECT),
        spec: Some(ResourceQuotaSpec { hard: Some(all), ..ResourceQuotaSpec::default() }),
        ..ResourceQuota::default()
    }
}

/// Defaults of containers.
pub fn limit_range(org: &Org) -> LimitRange {
    let quota = org.spec.quota.clone().unwrap_or_default();
    LimitRange {
        metadata: meta(org, names::ORG_OBJECT),
        spec: Some(LimitRangeSpec {
            limits: vec![LimitRangeItem {
                type_: "Container".to_owned(),
                default: Some(or_default(&quota.container_limits, &LIMITS)),
                default_request: Some(or_default(&quota.container_requests, &REQUESTS)),
                ..LimitRangeItem::default()
            }],
        }),
    }
}

/// Canonical quantities; one that is not a quantity goes as it is, for the API server to refuse with its reason.
fn or_default(given: &BTreeMap<String, Quantity>, default: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    let canonical = |q: &Quantity| Quantity(Amount::parse(&q.0).map_or_else(|_| q.0.clone(), |a| a.to_string()));
    let mut all: BTreeMap<_, _> = default.iter().map(|(r, q)| ((*r).to_owned(), Quantity((*q).to_owned()))).collect();
    all.extend(given.iter().map(|(r, q)| (r.clone(), canonical(q))));
    all
}
