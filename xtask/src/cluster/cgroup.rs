//! The control groups of a node's Pods: one folder per cluster below the root of each hierarchy.
//!
//! The kubelet makes what it needs in there; a second cluster on the machine has a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Cluster;
use crate::wait::{Look, until};

const ROOT: &str = "/sys/fs/cgroup";

/// The kubelet's `cgroupRoot`.
pub fn name(cluster: &Cluster) -> String {
    format!("polity-{}", cluster.name)
}

/// The roots of all hierarchies: of version 1 one for each controller, of version 2 a single one.
fn hierarchies() -> Vec<PathBuf> {
    if Path::new(ROOT).join("cgroup.controllers").exists() {
        return vec![PathBuf::from(ROOT)];
    }
    let entries = fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.join("cgroup.procs").exists() && !path.is_symlink()).collect()
}

pub fn make(cluster: &Cluster) -> Result<()> {
    for hierarchy in hierarchies() {
        let folder = hierarchy.join(name(cluster));
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    }
    Ok(())
}

/// Removes the folders, deepest first. What ran in them has ended, but the kernel may take a moment.
pub fn remove(cluster: &Cluster) -> Result<()> {
    for hierarchy in hierarchies() {
        let folder = hierarchy.join(name(cluster));
        until(Duration::from_secs(20), &format!("end of {}", folder.display()), || {
            remove_tree(&folder);
            Ok(if folder.exists() { Look::NotYet("a process is still in it".to_owned()) } else { Look::Done(()) })
        })?;
    }
    Ok(())
}

fn remove_tree(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _busy = fs::remove_dir(folder);
}
