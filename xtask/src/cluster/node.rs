//! containerd, kubelet and kube-proxy of the one real node. Needs root.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;

use super::{Cluster, plane::program, process};
use crate::{image, shell, wait};

/// Name under which the pause image is imported.
const PAUSE: &str = "docker.io/polity/pause:1";

/// Starts the node's parts.
///
/// # Errors
/// A part does not come up; its log is named.
pub(super) fn start(cluster: &Cluster) -> Result<()> {
    let dir = &cluster.dir;
    containerd(cluster)?;
    import_pause(cluster)?;
    for controller in cgroups() {
        fs::create_dir_all(controller.join(cgroup(cluster))).with_context(|| format!("cgroup in {}", controller.display()))?;
    }
    prepare_cpuset(cluster)?;
    fs::create_dir_all(dir.join("kubelet"))?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": dir.join("pki/ca.crt")}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": dir.join("pki/kubelet-serving.crt"), "tlsPrivateKeyFile": dir.join("pki/kubelet-serving.key"),
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", cgroup(cluster)), "failCgroupV1": false, "cgroupsPerQOS": true,
        "enforceNodeAllocatable": ["pods"], "oomScoreAdj": 0, "localStorageCapacityIsolation": false,
        "containerRuntimeEndpoint": format!("unix://{}", dir.join("containerd.sock").display()),
        "clusterDNS": [cluster.service_ip(10)], "clusterDomain": "cluster.local", "resolvConf": dir.join("resolv.conf"),
        "failSwapOn": false, "maxPods": 100, "podCIDR": cluster.pod_cidr(), "staticPodPath": "",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        "syncFrequency": "10s", "nodeStatusUpdateFrequency": "4s", "volumePluginDir": dir.join("kubelet/plugins-volume"),
        "podLogsDir": dir.join("pods"), "registerNode": true, "serializeImagePulls": false,
    });
    fs::write(dir.join("kubelet.json"), serde_json::to_string_pretty(&config)?)?;
    fs::write(dir.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
    let flags = [
        format!("--config={}", dir.join("kubelet.json").display()),
        format!("--kubeconfig={}", dir.join("kubelet.kubeconfig").display()),
        format!("--root-dir={}", dir.join("kubelet").display()),
        format!("--cert-dir={}", dir.join("pki").display()),
        "--hostname-override=polity-node".to_owned(),
        format!("--node-ip={}", cluster.address()),
    ];
    process::start(dir, "kubelet", program(cluster, "kubelet").args(flags))?;
    proxy(cluster)?;
    wait::until(Duration::from_secs(60), "kubelet registers its node", || {
        if !process::alive(dir, "kubelet") {
            return Err(process::log_tail(dir, "kubelet"));
        }
        if shell::ok(&mut cluster.kubectl(["get", "node", "polity-node"])) { Ok(()) } else { Err("no Node object".to_owned()) }
    })
}

fn proxy(cluster: &Cluster) -> Result<()> {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "iptables",
        "clientConnection": {"kubeconfig": cluster.dir.join("proxy.kubeconfig")}, "clusterCIDR": cluster.pod_cidr(),
        "hostnameOverride": "polity-node", "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "10s"},
    });
    let file = cluster.dir.join("proxy.json");
    fs::write(&file, serde_json::to_string_pretty(&config)?)?;
    process::start(&cluster.dir, "kube-proxy", program(cluster, "kube-proxy").arg(format!("--config={}", file.display())))
}

fn containerd(cluster: &Cluster) -> Result<()> {
    let dir = &cluster.dir;
    let net = dir.join("cni");
    fs::create_dir_all(&net)?;
    let conflist = json!({
        "cniVersion": "1.0.0", "name": "polity", "plugins": [
            {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
             "ipam": {"type": "host-local", "dataDir": dir.join("cni-state"), "ranges": [[{"subnet": cluster.pod_cidr()}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    fs::write(net.join("10-polity.conflist"), serde_json::to_string_pretty(&conflist)?)?;
    let show = |p: &str| dir.join(p).display().to_string();
    let config = format!(
        r#"version = 3
root = "{root}"
state = "{state}"
[grpc]
  address = "{sock}"
[ttrpc]
  address = "{sock}.ttrpc"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{cni}"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "/usr/sbin/runc"
      SystemdCgroup = false
[plugins.'io.containerd.nri.v1.nri']
  disable = true
"#,
        root = show("containerd"),
        state = show("run"),
        sock = show("containerd.sock"),
        cni = net.display(),
    );
    fs::write(dir.join("containerd.toml"), config)?;
    // The shim is found by name.
    let path = format!("{}:{}", cluster.bin.display(), std::env::var("PATH").unwrap_or_default());
    process::start(dir, "containerd", program(cluster, "containerd").arg(format!("--config={}", show("containerd.toml"))).env("PATH", path))?;
    wait::until(Duration::from_secs(30), "containerd", || {
        if !process::alive(dir, "containerd") {
            return Err(process::log_tail(dir, "containerd"));
        }
        shell::output(&mut ctr(cluster, &["version"])).map(|_| ()).map_err(|e| e.to_string())
    })
}

/// `ctr` against this node's containerd.
pub(crate) fn ctr(cluster: &Cluster, args: &[&str]) -> std::process::Command {
    let mut command = shell::cmd(cluster.bin.join("ctr"), ["-a", &cluster.dir.join("containerd.sock").display().to_string(), "-n", "k8s.io"]);
    command.args(args);
    command
}

fn import_pause(cluster: &Cluster) -> Result<()> {
    let file = cluster.dir.join("pause.tar");
    image::write(&file, PAUSE, &[("pause", &cluster.bin.join("pause"))], &["/pause"])?;
    import(cluster, &file)
}

/// Imports an image tar into the node.
///
/// # Errors
/// containerd refuses it.
pub(crate) fn import(cluster: &Cluster, file: &std::path::Path) -> Result<()> {
    shell::output(&mut ctr(cluster, &["images", "import", &file.display().to_string()])).map(|_| ())
}

/// Name of the node's cgroup, below each controller.
pub(super) fn cgroup(cluster: &Cluster) -> String {
    format!("polity-{}", cluster.name)
}

/// Mounted cgroup hierarchies: one a controller (version 1), or the one unified (version 2).
pub(super) fn cgroups() -> Vec<std::path::PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let fields = mounts.lines().filter_map(|l| {
        let words: Vec<&str> = l.split_whitespace().collect();
        Some((*words.first()?, *words.get(1)?, *words.get(2)?))
    });
    let mut v1 = Vec::new();
    let mut v2 = Vec::new();
    for (_, path, kind) in fields {
        match kind {
            "cgroup" => v1.push(path.into()),
            "cgroup2" => v2.push(path.into()),
            _ => {}
        }
    }
    if v1.is_empty() { v2 } else { v1 }
}

/// A new cpuset cgroup (version 1) is empty and takes no process until it has CPUs and memory nodes.
fn prepare_cpuset(cluster: &Cluster) -> Result<()> {
    for root in cgroups().iter().filter(|p| p.ends_with("cpuset")) {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let all = fs::read_to_string(root.join(file))?;
            fs::write(root.join(cgroup(cluster)).join(file), all.trim())?;
        }
    }
    Ok(())
}
