//! Cluster DNS: CoreDNS as a process of the node, behind the Service that Pods are told.
//!
//! It answers for `cluster.local` only; other names have no answer, since Pods have no way out.

use std::fs;

use anyhow::Result;

use super::settings::{DNS_SERVICE, Settings};
use super::{Cluster, control_plane, kubectl};

pub fn start(cluster: &Cluster, settings: &Settings) -> Result<()> {
    let address = settings.address();
    kubectl::apply(cluster, &manifest(&address.to_string()))?;
    let kubeconfig = control_plane::path(&cluster.dir, "config/coredns.kubeconfig");
    let corefile = format!(
        "\
.:53 {{
    bind {address}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    cache 5
}}
"
    );
    fs::write(cluster.dir.join("config/Corefile"), corefile)?;
    control_plane::run(cluster, "coredns", &["-conf".to_owned(), control_plane::path(&cluster.dir, "config/Corefile")])
}

fn manifest(address: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system, labels: {{k8s-app: kube-dns}}}}
spec:
  clusterIP: {DNS_SERVICE}
  ports:
  - {{name: dns, port: 53, protocol: UDP}}
  - {{name: dns-tcp, port: 53, protocol: TCP}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: kube-dns-node, namespace: kube-system, labels: {{kubernetes.io/service-name: kube-dns}}}}
addressType: IPv4
endpoints: [{{addresses: ["{address}"]}}]
ports:
- {{name: dns, port: 53, protocol: UDP}}
- {{name: dns-tcp, port: 53, protocol: TCP}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: polity:coredns}}
rules:
- {{apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: polity:coredns}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: polity:coredns}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: system:coredns}}]
"#
    )
}
