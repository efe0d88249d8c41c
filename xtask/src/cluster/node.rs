//! The one node: containerd, kubelet, kube-proxy and cluster DNS.
//!
//! The kubelet's settings allow what small machines and containers lack (control groups of version 1,
//! a root file system that is found, CAP_SYS_RESOURCE); none of them loosens what a Pod may do.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::settings::{DNS_SERVICE, NODE, PODS, Settings};
use super::{Cluster, cgroup, containerd, control_plane, dns, kubectl, process, volumes};
use crate::packages;
use crate::wait::{Look, until};

/// Whether this machine can run a node; if not, what to do.
pub fn check_machine() -> Result<()> {
    if !rustix::process::geteuid().is_root() || !Path::new("/proc/self/ns").exists() {
        bail!("a node needs root on Linux; without it there are `--plane-only` and `--simulated`");
    }
    let missing = packages::missing();
    if !missing.is_empty() {
        bail!("missing Debian packages: {}", packages::line(&missing));
    }
    Ok(())
}

pub fn start(cluster: &Cluster, settings: &Settings) -> Result<()> {
    containerd::start(cluster)?;
    dns::start(cluster, settings)?;
    kubelet(cluster, settings)?;
    kube_proxy(cluster)?;
    volumes::provision(cluster)?;
    until(Duration::from_secs(90), "node ready", || {
        for part in settings.form.parts() {
            process::must_run(&cluster.dir, part)?;
        }
        Ok(if kubectl::node_ready(cluster) { Look::Done(()) } else { Look::NotYet("its condition Ready is not True".to_owned()) })
    })
}

fn kubelet(cluster: &Cluster, settings: &Settings) -> Result<()> {
    let path = |file: &str| control_plane::path(&cluster.dir, file);
    cgroup::make(cluster)?;
    fs::write(cluster.dir.join("config/resolv.conf"), format!("nameserver {DNS_SERVICE}\n"))?;
    let none = json!({"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"});
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": settings.address(),
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": path("pki/ca.crt")}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": path("pki/kubelet-server.crt"),
        "tlsPrivateKeyFile": path("pki/kubelet-server.key"),
        "containerRuntimeEndpoint": format!("unix://{}", containerd::SOCKET),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", cgroup::name(cluster)),
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "resolvConf": path("config/resolv.conf"),
        "failCgroupV1": false,
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "oomScoreAdj": 0,
        "evictionHard": none,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": false,
        "maxPods": 250,
    });
    fs::write(cluster.dir.join("config/kubelet.json"), serde_json::to_vec_pretty(&config)?).context("write kubelet.json")?;
    let arguments = [
        format!("--config={}", path("config/kubelet.json")),
        format!("--kubeconfig={}", path("config/kubelet.kubeconfig")),
        format!("--hostname-override={NODE}"),
        format!("--node-ip={}", settings.address()),
    ];
    control_plane::run(cluster, "kubelet", &arguments)
}

fn kube_proxy(cluster: &Cluster) -> Result<()> {
    let arguments = [
        format!("--kubeconfig={}", control_plane::path(&cluster.dir, "config/kube-proxy.kubeconfig")),
        format!("--hostname-override={NODE}"),
        format!("--cluster-cidr={PODS}"),
        "--proxy-mode=iptables".to_owned(),
        // These settings of conntrack are the host's, not the namespace's.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-tcp-timeout-established=0s".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
    ];
    control_plane::run(cluster, "kube-proxy", &arguments)
}
