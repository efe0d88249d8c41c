//! The namespaces of a cluster with a node: network, mounts and processes, held by one small process.
//!
//! That process is the first of its process namespace: when it ends, the kernel ends everything in there,
//! shims and containers included, and with the last of them go the mounts, links and iptables rules.
//! Nothing of the host's `/run` and `/var/lib` is seen inside, and no mount made inside is seen outside.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Cluster, process};
use crate::{paths, run};

pub const NAME: &str = "holder";

/// Covered by empty file systems, so that what parts insist on there is neither the host's nor another cluster's.
/// (No folder is made on the host to mount on: taking it away again would unmount it for other clusters too.)
const COVERED: &[&str] = &["/run", "/var/lib"];
/// Folders that parts insist on, and what is mounted there: these may grow.
const MOUNTED: &[(&str, &str)] = &[("/var/lib/kubelet", "node/kubelet"), ("/var/lib/cni", "node/cni"), ("/var/log", "node/var-log")];

pub fn start(cluster: &Cluster) -> Result<()> {
    for needed in [cluster.dir.clone(), paths::cache()?] {
        if let Some(covered) = COVERED.iter().find(|covered| needed.starts_with(covered)) {
            bail!("{} is below {covered}, which a node does not see; keep checkout and cache elsewhere", needed.display());
        }
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "--"]);
    unshare.arg(cluster.bin.join("pause"));
    process::start(&cluster.dir, NAME, unshare, true)?;
    for covered in COVERED {
        mount(cluster, &["-t", "tmpfs", "-o", "mode=755", "tmpfs"], covered)?;
    }
    for (at, from) in MOUNTED {
        let from = cluster.dir.join(from);
        fs::create_dir_all(&from).with_context(|| format!("create {}", from.display()))?;
        run::check(cluster.inside("mkdir").args(["-p", at]))?;
        mount(cluster, &["--bind", &from.to_string_lossy()], at)?;
    }
    // Parts and Pods may want to mount with propagation of their own.
    run::check(cluster.inside("mount").args(["--make-rshared", "/"]))
}

fn mount(cluster: &Cluster, what: &[&str], at: &str) -> Result<()> {
    run::check(cluster.inside("mount").args(what).arg(at))
}

pub fn running(cluster: &Cluster) -> bool {
    process::running(&cluster.dir, NAME)
}

/// Ends everything in the namespaces.
pub fn stop(cluster: &Cluster) -> Result<()> {
    process::stop(&cluster.dir, NAME, Duration::from_secs(10))
}

/// A command inside, or on the host for a cluster without namespaces.
pub fn enter(cluster: &Cluster, program: impl AsRef<OsStr>) -> Command {
    let Some(holder) = process::pid(&cluster.dir, NAME) else { return Command::new(program) };
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["--target", &holder.to_string(), "--net", "--mount", "--pid", "--"]).arg(program);
    nsenter
}
