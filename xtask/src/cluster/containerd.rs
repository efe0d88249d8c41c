//! containerd with runc and the CNI plug-ins of the distribution, and the two local images that Pods need.
//!
//! Everything it keeps is in the cluster's folder or in the node's own `/run`; a containerd of the
//! host is not touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::settings::PODS;
use super::{Cluster, control_plane, process};
use crate::image::{self, Image};
use crate::run;
use crate::wait::{Look, until};

pub const SOCKET: &str = "/run/containerd/containerd.sock";
/// The image that holds the namespaces of each Pod.
const PAUSE: &str = "docker.io/polity/pause:dev";
/// Where Debian's `containernetworking-plugins` puts its binaries, and where others look.
const CNI: &[&str] = &["/usr/lib/cni", "/opt/cni/bin"];

/// The folder of the CNI plug-ins, if the machine has them.
pub fn cni() -> Option<&'static str> {
    CNI.iter().copied().find(|dir| Path::new(dir).join("ptp").exists())
}

/// Where runc is, if the machine has it.
pub fn runc() -> Option<PathBuf> {
    ["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc", "/usr/local/bin/runc"].map(PathBuf::from).into_iter().find(|p| p.exists())
}

pub fn start(cluster: &Cluster) -> Result<()> {
    let path = |file: &str| control_plane::path(&cluster.dir, file);
    fs::create_dir_all(cluster.dir.join("config/cni"))?;
    fs::write(cluster.dir.join("config/cni/10-polity.conflist"), serde_json::to_vec_pretty(&network())?)?;
    let runc = runc().context("runc is missing")?;
    let config = format!(
        r#"version = 3
root = "{root}"
state = "/run/containerd"

[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{cni}"]
    conf_dir = "{conf}"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "{runc}"
        SystemdCgroup = false
"#,
        root = path("node/containerd"),
        cni = cni().context("the CNI plug-ins are missing")?,
        conf = path("config/cni"),
        runc = runc.display(),
    );
    fs::write(cluster.dir.join("config/containerd.toml"), config).context("write containerd.toml")?;
    // containerd finds its shim beside itself only by PATH.
    let search = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", cluster.bin.display());
    let mut command = cluster.inside("env");
    command.arg(search).arg(cluster.bin.join("containerd")).arg("--config").arg(path("config/containerd.toml"));
    process::start(&cluster.dir, "containerd", command, true)?;
    until(Duration::from_secs(30), "containerd answers", || {
        process::must_run(&cluster.dir, "containerd")?;
        let version = run::attempt(ctr(cluster).arg("version"));
        Ok(version.map_or_else(|| Look::NotYet("no answer".to_owned()), |_| Look::Done(())))
    })?;
    let pause = Image {
        names: vec![PAUSE.to_owned()],
        files: vec![("pause".to_owned(), cluster.bin.join("pause"))],
        entrypoint: "/pause".to_owned(),
    };
    import(cluster, &image::write(&pause, &cluster.dir.join("node/pause.tar"))?.path)
}

/// `ctr` on the images that the kubelet sees.
pub fn ctr(cluster: &Cluster) -> Command {
    let mut ctr = cluster.inside(cluster.bin.join("ctr"));
    ctr.args(["--address", SOCKET, "--namespace", "k8s.io"]);
    ctr
}

pub fn import(cluster: &Cluster, archive: &Path) -> Result<()> {
    run::output(ctr(cluster).args(["images", "import"]).arg(archive)).map(|_| ())
}

/// Each Pod has a veth pair of its own, so that all it sends passes the node's rules for Services,
/// also to a Pod beside it; a bridge would need a kernel module for that.
fn network() -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "polity",
        "plugins": [
            {"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}
