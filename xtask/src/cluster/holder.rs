//! The namespaces of a cluster with a node: network, mounts and processes, held by one small process.
//!
//! That process is the first of its process namespace: when it ends, the kernel ends everything in there,
//! shims and containers included, and with the last of them go the mounts, links and iptables rules.
//! Nothing of the host's `/run` is seen inside, and no mount made inside is seen outside.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Cluster, process};
use crate::run;

pub const NAME: &str = "holder";

/// Folders of the host that parts insist on, and what is mounted over them inside.
const OVERLAID: &[(&str, &str)] = &[("/var/lib/kubelet", "node/kubelet"), ("/var/lib/cni", "node/cni"), ("/var/log", "node/var-log")];

pub fn start(cluster: &Cluster) -> Result<()> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "--"]);
    unshare.arg(cluster.bin.join("pause"));
    process::start(&cluster.dir, NAME, unshare, true)?;
    let mut made = Vec::new();
    mount(cluster, &["-t", "tmpfs", "-o", "mode=755", "tmpfs"], Path::new("/run"))?;
    for (over, from) in OVERLAID {
        if !Path::new(over).exists() {
            fs::create_dir_all(over).with_context(|| format!("create {over}"))?;
            made.push(*over);
        }
        let from = cluster.dir.join(from);
        fs::create_dir_all(&from)?;
        mount(cluster, &["--bind", &from.to_string_lossy()], Path::new(over))?;
    }
    // Parts and Pods may want to mount with propagation of their own.
    run::check(cluster.inside("mount").args(["--make-rshared", "/"]))?;
    fs::write(cluster.dir.join("made-folders"), made.join("\n"))?;
    Ok(())
}

fn mount(cluster: &Cluster, what: &[&str], at: &Path) -> Result<()> {
    run::check(cluster.inside("mount").args(what).arg(at))
}

pub fn running(cluster: &Cluster) -> bool {
    process::running(&cluster.dir, NAME)
}

/// Ends everything in the namespaces.
pub fn stop(cluster: &Cluster) -> Result<()> {
    process::stop(&cluster.dir, NAME, Duration::from_secs(10))?;
    for folder in fs::read_to_string(cluster.dir.join("made-folders")).unwrap_or_default().lines() {
        // Only when empty: another cluster or the host may have come to use it.
        let _in_use = fs::remove_dir(folder);
    }
    Ok(())
}

/// A command inside, or on the host for a cluster without namespaces.
pub fn enter(cluster: &Cluster, program: impl AsRef<OsStr>) -> Command {
    let Some(holder) = process::pid(&cluster.dir, NAME) else { return Command::new(program) };
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["--target", &holder.to_string(), "--net", "--mount", "--pid", "--"]).arg(program);
    nsenter
}
