//! Isolation of an Org's namespace: nothing in or out, but DNS for all and the edge for agents and tools.

use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};
use polity_api::{Org, names};

use super::meta;

/// Port of the edge's Pods that agents and shims speak to.
const GATEWAY_PORT: i32 = 8443;

/// The policies of an Org.
pub fn policies(org: &Org, system: &str) -> Vec<NetworkPolicy> {
    let object = |suffix: &str, spec| NetworkPolicy { metadata: meta(org, &format!("{}-{suffix}", names::ORG_OBJECT)), spec: Some(spec) };
    vec![object("default-deny", default_deny()), object("dns", dns()), object("edge", edge(system))]
}

fn default_deny() -> NetworkPolicySpec {
    NetworkPolicySpec {
        pod_selector: Some(LabelSelector::default()),
        policy_types: Some(types(&["Ingress", "Egress"])),
        ..NetworkPolicySpec::default()
    }
}

fn dns() -> NetworkPolicySpec {
    let to = NetworkPolicyPeer { namespace_selector: Some(named("kube-system")), ..NetworkPolicyPeer::default() };
    egress(LabelSelector::default(), to, vec![port("UDP", 53), port("TCP", 53)])
}

/// Workers and tool Pods reach the edge; other Pods in the namespace do not.
fn edge(system: &str) -> NetworkPolicySpec {
    let pods = LabelSelector {
        match_labels: Some([(names::LABEL_MANAGED_BY.to_owned(), names::MANAGED_BY.to_owned())].into()),
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: names::LABEL_KIND.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec!["Agent".to_owned(), "ToolCall".to_owned()]),
        }]),
    };
    let edge = [("app.kubernetes.io/name", "polity"), ("app.kubernetes.io/component", "edge")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let to = NetworkPolicyPeer {
        namespace_selector: Some(named(system)),
        pod_selector: Some(LabelSelector { match_labels: Some(edge.into()), match_expressions: None }),
        ip_block: None,
    };
    egress(pods, to, vec![port("TCP", GATEWAY_PORT)])
}

fn egress(pods: LabelSelector, to: NetworkPolicyPeer, ports: Vec<NetworkPolicyPort>) -> NetworkPolicySpec {
    NetworkPolicySpec {
        pod_selector: Some(pods),
        policy_types: Some(types(&["Egress"])),
        egress: Some(vec![NetworkPolicyEgressRule { ports: Some(ports), to: Some(vec![to]) }]),
        ingress: None,
    }
}

fn named(namespace: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([("kubernetes.io/metadata.name".to_owned(), namespace.to_owned())].into()), match_expressions: None }
}

fn port(protocol: &str, port: i32) -> NetworkPolicyPort {
    NetworkPolicyPort { protocol: Some(protocol.to_owned()), port: Some(IntOrString::Int(port)), end_port: None }
}

fn types(list: &[&str]) -> Vec<String> {
    list.iter().map(|t| (*t).to_owned()).collect()
}
