//! What `http` Tools need of the cluster: addresses of names and Services, Secrets at call time, and the cluster's own address ranges,
//! which nothing outside may be mistaken for. Reads only.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Node, Secret, Service},
    networking::v1::ServiceCIDR,
};
use kube::{Api, Client, api::ListParams};
use polity_runtime::CancellationToken;

use crate::{egress::Egress, http_tool::Lookup};

/// How often the ranges are read again: a new node brings new ones.
const REFRESH: Duration = Duration::from_secs(30);
/// While they are not known.
const RETRY: Duration = Duration::from_secs(2);

/// Asks DNS and the API server.
pub struct ClusterLookup {
    client: Client,
}

impl ClusterLookup {
    /// With this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Lookup for ClusterLookup {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await.map_err(|e| e.to_string())?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }

    fn service<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<IpAddr, String>> {
        Box::pin(async move {
            let api: Api<Service> = Api::namespaced(self.client.clone(), namespace);
            let found = api.get_opt(name).await.map_err(|e| format!("cannot read Service {name}: {e}"))?;
            cluster_ip(name, found.as_ref().ok_or_else(|| format!("there is no Service {name} in namespace {namespace}"))?)
        })
    }

    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str, key: &'a str) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async move {
            let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            let found = api.get_opt(name).await.map_err(|e| format!("cannot read Secret {name}: {e}"))?;
            let data = found.and_then(|s| s.data).ok_or_else(|| format!("there is no Secret {name} in namespace {namespace}"))?;
            let value = data.get(key).ok_or_else(|| format!("Secret {name} has no key {key}"))?;
            String::from_utf8(value.0.clone()).map_err(|_| format!("Secret {name}, key {key}: not text"))
        })
    }
}

/// The address that Kubernetes gave a Service. One that is only another name (ExternalName), or has no address of its own, has none.
fn cluster_ip(name: &str, service: &Service) -> Result<IpAddr, String> {
    let spec = service.spec.as_ref();
    if spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName") {
        return Err(format!("Service {name} is only another name; give its host as url"));
    }
    let address = spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    address.parse().map_err(|_| format!("Service {name} has no cluster address of its own"))
}

/// Keeps `egress` up to date: configured ranges, and those of nodes, Pods and Services. Until they have been read once, nothing outside is
/// connected to; afterwards the last ones known stay in force.
pub async fn keep_egress(client: Client, configured: Vec<IpNet>, egress: Arc<ArcSwapOption<Egress>>, cancel: CancellationToken) {
    loop {
        let pause = match discover(&client).await {
            Ok(found) => {
                let fresh = Egress::production([configured.clone(), found].concat());
                if egress.load().as_deref() != Some(&fresh) {
                    tracing::info!(?fresh, "addresses that http Tools may not reach");
                    egress.store(Some(Arc::new(fresh)));
                }
                REFRESH
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the cluster's own address ranges");
                RETRY
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn discover(client: &Client) -> Result<Vec<IpNet>, kube::Error> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let mut ranges: Vec<IpNet> = nodes.items.iter().flat_map(of_node).collect();
    match Api::<ServiceCIDR>::all(client.clone()).list(&ListParams::default()).await {
        Ok(cidrs) => ranges
            .extend(cidrs.items.iter().filter_map(|c| c.spec.as_ref()?.cidrs.as_ref()).flatten().filter_map(|c| c.parse::<IpNet>().ok())),
        // Clusters that do not have the kind yet name the range in the configuration.
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    let api: Api<Service> = Api::namespaced(client.clone(), "default");
    if let Some(address) = api.get_opt("kubernetes").await?.and_then(|s| cluster_ip("kubernetes", &s).ok()) {
        ranges.push(IpNet::from(address));
    }
    ranges.sort();
    ranges.dedup();
    Ok(ranges)
}

/// Addresses of a node and ranges of its Pods.
fn of_node(node: &Node) -> Vec<IpNet> {
    let pods =
        node.spec.as_ref().map(|s| s.pod_cidrs.clone().unwrap_or_default().into_iter().chain(s.pod_cidr.clone())).into_iter().flatten();
    let own = node.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
    let own = own.iter().filter_map(|a| a.address.parse::<IpAddr>().ok()).map(IpNet::from);
    pods.filter_map(|range| range.parse().ok()).chain(own).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_an_address_of_the_cluster_counts() {
        let service = |spec| serde_json::from_value::<Service>(json!({"spec": spec})).unwrap();
        assert_eq!(cluster_ip("a", &service(json!({"clusterIP": "10.96.1.2"}))), Ok("10.96.1.2".parse().unwrap()));
        for bad in [json!({"clusterIP": "None"}), json!({}), json!({"type": "ExternalName", "externalName": "x", "clusterIP": "10.96.1.2"})]
        {
            assert!(cluster_ip("a", &service(bad.clone())).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_has_addresses_and_pod_ranges() {
        let node: Node = serde_json::from_value(json!({
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.7.2"}, {"type": "Hostname", "address": "node-1"}]}
        }))
        .unwrap();
        let ranges = of_node(&node);
        for expected in ["10.244.1.0/24", "fd00:1::/64", "192.168.7.2/32"] {
            assert!(ranges.contains(&expected.parse().unwrap()), "{expected} in {ranges:?}");
        }
    }
}
