//! Cluster DNS: a stock CoreDNS beside kubelet, behind the usual Service `kube-system/kube-dns`.

use std::fs;

use anyhow::Result;
use serde_json::json;

use super::{Cluster, plane::program, process};
use crate::shell;

/// Starts CoreDNS and makes its Service.
///
/// # Errors
/// It cannot be started, or the API server refuses the objects.
pub(super) fn start(cluster: &Cluster) -> Result<()> {
    let dir = &cluster.dir;
    let corefile = format!(
        ".:1053 {{\n  bind {}\n  errors\n  kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {}\n    pods disabled\n    ttl 5\n  }}\n  cache 5\n}}\n",
        cluster.address(),
        cluster.kubeconfig().display()
    );
    fs::write(dir.join("Corefile"), corefile)?;
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
         "spec": {"clusterIP": cluster.service_ip(10), "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 1053}, {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 1053}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"kubernetes.io/service-name": "kube-dns"}},
         "endpoints": [{"addresses": [cluster.address()], "conditions": {"ready": true}}],
         "ports": [{"name": "dns", "port": 1053, "protocol": "UDP"}, {"name": "dns-tcp", "port": 1053, "protocol": "TCP"}]},
    ]});
    let file = dir.join("dns.json");
    fs::write(&file, objects.to_string())?;
    shell::output(&mut cluster.kubectl(["apply", "-f", &file.display().to_string()]))?;
    process::start(dir, "coredns", program(cluster, "coredns").args(["-conf", &dir.join("Corefile").display().to_string()]))
}
