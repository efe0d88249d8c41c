//! Stops a cluster and removes what it left, in an order that lets each part end: node, API server, etcd.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{Cluster, netns, node, process};
use crate::{shell, wait};

/// Stops and removes everything of the cluster.
///
/// # Errors
/// Something is left; it is named.
pub(super) fn down(cluster: &Cluster) -> Result<()> {
    let dir = &cluster.dir;
    if dir.exists() {
        for name in ["polity-core", "polity-edge", "coredns", "kubelet", "kube-proxy"] {
            process::stop(dir, name, Duration::from_secs(10))?;
        }
        if process::alive(dir, "containerd") {
            containers(cluster);
        }
        for name in ["containerd", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"] {
            process::stop(dir, name, Duration::from_secs(20))?;
        }
    }
    if shell::root() {
        shims(dir);
        unmount(dir)?;
        netns::down(cluster);
        cgroups(cluster)?;
    }
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    Ok(())
}

/// Kills and removes every container of this containerd.
fn containers(cluster: &Cluster) {
    let list = shell::output(&mut node::ctr(cluster, &["tasks", "list", "-q"])).unwrap_or_default();
    for id in list.split_whitespace() {
        shell::ok(&mut node::ctr(cluster, &["tasks", "delete", "-f", id]));
    }
    let list = shell::output(&mut node::ctr(cluster, &["containers", "list", "-q"])).unwrap_or_default();
    for id in list.split_whitespace() {
        shell::ok(&mut node::ctr(cluster, &["containers", "delete", id]));
    }
}

/// Shims of this containerd that are left: known by the address of its socket in their command line.
fn shims(dir: &Path) {
    let address = dir.join("containerd.sock").display().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return };
    for pid in entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains("containerd-shim") && line.contains(&address) {
            shell::ok(&mut shell::cmd("kill", ["-KILL", &pid.to_string()]));
        }
    }
}

/// Unmounts everything below the directory, deepest first.
fn unmount(dir: &Path) -> Result<()> {
    let below = || -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let prefix = format!("{}/", dir.display());
        let mut list: Vec<PathBuf> = mounts.lines().filter_map(|l| l.split_whitespace().nth(1)).filter(|p| p.starts_with(&prefix)).map(PathBuf::from).collect();
        list.sort_by_key(|p| std::cmp::Reverse(p.as_os_str().len()));
        list
    };
    wait::until(Duration::from_secs(20), "unmounting", || {
        for path in below() {
            shell::ok(&mut shell::cmd("umount", [path.as_os_str()]));
        }
        let left = below();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })?;
    // Network namespaces of Pods are mounted outside of the directory only while their sandbox lives; containerd removes them.
    Ok(())
}

/// Removes the node's cgroups, deepest first, after what is left in them was killed.
fn cgroups(cluster: &Cluster) -> Result<()> {
    for root in node::cgroups() {
        let top = root.join(node::cgroup(cluster));
        if !top.exists() {
            continue;
        }
        let left = wait::until(Duration::from_secs(15), "removing cgroups", || {
            let mut all = Vec::new();
            walk(&top, &mut all);
            for dir in &all {
                for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().split_whitespace() {
                    shell::ok(&mut shell::cmd("kill", ["-KILL", pid]));
                }
                let _ = fs::remove_dir(dir);
            }
            if top.exists() { Err(top.display().to_string()) } else { Ok(()) }
        });
        if let Err(error) = left {
            bail!("{error}");
        }
    }
    Ok(())
}

/// Directories below and including `dir`, deepest first.
fn walk(dir: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            walk(&entry.path(), all);
        }
    }
    all.push(dir.to_path_buf());
}
