//! A real Kubernetes for development and tests: a control plane, and with root on Linux one real node in its own network namespace.
//! Everything that is started here is stopped here, by its own pid.

mod certs;
mod coredns;
mod down;
mod netns;
mod node;
mod plane;
mod process;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{shell, wait};

/// A cluster by name, with everything that depends on it. Two of different index can exist at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cluster {
    /// Name: `up` or `test`.
    pub(crate) name: String,
    /// Directory with all its state.
    pub(crate) dir: PathBuf,
    /// Directory with upstream binaries.
    pub(crate) bin: PathBuf,
    /// Whether it has a real node (root, own network namespace).
    pub(crate) node: bool,
    /// Tells apart subnets and ports.
    index: u16,
}

impl Cluster {
    /// A cluster that may or may not run yet.
    pub(crate) fn new(repo: &Path, bin: PathBuf, name: &str, node: bool) -> Self {
        let dir = if name == "up" { repo.join("target/cluster") } else { repo.join(format!("target/cluster-{name}")) };
        let index = match name {
            "up" => 1,
            "test" => 2,
            "plane" => 3,
            other => 10 + other.bytes().fold(0_u16, |sum, b| (sum.wrapping_mul(31).wrapping_add(u16::from(b))) % 200),
        };
        Self { name: name.to_owned(), dir, bin, node, index }
    }

    /// Admin's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Network namespace of the node.
    fn netns(&self) -> String {
        format!("polity-{}", self.name)
    }

    /// Address of the node (or loopback).
    pub(crate) fn address(&self) -> String {
        if self.node { format!("10.213.{}.2", self.index) } else { "127.0.0.1".to_owned() }
    }

    /// Address of the host's end of the link.
    pub(crate) fn host_address(&self) -> String {
        if self.node { format!("10.213.{}.1", self.index) } else { "127.0.0.1".to_owned() }
    }

    fn pod_cidr(&self) -> String {
        format!("10.214.{}.0/24", self.index)
    }

    fn service_cidr(&self) -> String {
        format!("10.215.{}.0/24", self.index)
    }

    fn service_ip(&self, last: u8) -> String {
        format!("10.215.{}.{last}", self.index)
    }

    /// Networks that belong to the cluster: nodes, Pods, Services.
    pub(crate) fn cidrs(&self) -> String {
        format!("10.213.{}.0/24,{},{}", self.index, self.pod_cidr(), self.service_cidr())
    }

    fn port(&self, base: u16) -> u16 {
        if self.node { base } else { base + 1000 + self.index * 10 }
    }

    /// URL of the API server.
    pub(crate) fn server(&self) -> String {
        format!("https://{}:{}", self.address(), self.port(6443))
    }

    /// `kubectl` as admin.
    pub(crate) fn kubectl<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = shell::cmd(self.bin.join("kubectl"), args);
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// `helm` as admin.
    pub(crate) fn helm<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = shell::cmd(self.bin.join("helm"), args);
        command.env("KUBECONFIG", self.kubeconfig()).env("HELM_CACHE_HOME", self.dir.join("helm")).env("HELM_CONFIG_HOME", self.dir.join("helm"));
        command
    }

    /// Whether it runs and answers.
    pub(crate) fn healthy(&self) -> bool {
        self.kubeconfig().exists() && shell::ok(&mut self.kubectl(["get", "--raw", "/readyz", "--request-timeout=3s"])) && process::all_alive(&self.dir)
    }

    /// Starts it; one that runs and answers is taken as it is.
    ///
    /// # Errors
    /// A part does not come up; its log is named.
    pub(crate) fn up(&self) -> Result<()> {
        if self.healthy() {
            println!("  cluster {} runs already", self.name);
            return Ok(());
        }
        self.down()?;
        fs::create_dir_all(&self.dir)?;
        if self.node {
            netns::up(self)?;
        }
        certs::write(self).context("making certificates")?;
        plane::start(self)?;
        if self.node {
            node::start(self)?;
            coredns::start(self)?;
            wait::until(Duration::from_secs(90), "node Ready", || {
                let line = shell::output(&mut self.kubectl(["get", "nodes", "--no-headers"])).map_err(|e| e.to_string())?;
                if line.contains(" Ready ") { Ok(()) } else { Err(line) }
            })?;
        }
        Ok(())
    }

    /// Stops everything and removes what is left: processes, containers, mounts, link, namespace, cgroups, files.
    ///
    /// # Errors
    /// Something could not be removed; it is named.
    pub(crate) fn down(&self) -> Result<()> {
        down::down(self)
    }
}
