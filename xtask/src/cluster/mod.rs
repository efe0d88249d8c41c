//! A real Kubernetes on this machine, from the pinned upstream binaries.
//!
//! Three forms. *Plane*: etcd, API server and controller manager as processes of the caller, on loopback;
//! no root needed, and no Pod runs. *Simulated*: the same with a scheduler and a simulated node, which only says that
//! Pods run. *Node*: one real node, in namespaces of their own (network, mounts, processes), which need root on Linux. Everything of a cluster is under its folder;
//! nothing outside it is changed that `down` does not take back.

mod audit;
mod certs;
mod cgroup;
mod containerd;
mod control_plane;
mod dns;
mod down;
mod holder;
mod kubeconfig;
mod kubectl;
mod link;
mod node;
pub mod process;
mod settings;
mod simulated;
mod volumes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{paths, stop, upstream};
pub use settings::Form;
use settings::Settings;

/// One cluster, whether it runs or not.
pub struct Cluster {
    name: String,
    dir: PathBuf,
    bin: PathBuf,
}

impl Cluster {
    /// The cluster `name` of this checkout. Its folder is `target/cluster`, or `target/cluster-NAME` when it is not `up`.
    pub fn named(name: &str) -> Result<Self> {
        if name.is_empty() || name.len() > 20 || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
            bail!("a cluster's name is 1 to 20 lower-case letters, digits and dashes, not {name:?}");
        }
        let folder = if name == "up" { "cluster".to_owned() } else { format!("cluster-{name}") };
        let target = std::path::absolute(paths::target())?;
        Ok(Self { name: name.to_owned(), dir: target.join(folder), bin: target.join("upstream/bin") })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn bin(&self) -> &Path {
        &self.bin
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Boots the cluster, or leaves a healthy one of the same form as it is. Says whether it was booted.
    pub fn up(&self, form: Form) -> Result<bool> {
        upstream::binaries(form)?;
        if let Ok(settings) = Settings::read(&self.dir) {
            if settings.form == form && self.healthy() {
                return Ok(false);
            }
            println!("  the cluster \"{}\" is not whole or of the other form; starting it anew", self.name);
        }
        self.down()?;
        if let Err(error) = self.boot(form) {
            let logs = self.dir.join("log");
            let left = self.down().err().map(|left| format!("; and then: {left:#}")).unwrap_or_default();
            return Err(error.context(format!("boot the cluster \"{}\" (logs: {}){left}", self.name, logs.display())));
        }
        Ok(true)
    }

    fn boot(&self, form: Form) -> Result<()> {
        if form == Form::Node {
            node::check_machine()?;
        }
        for folder in ["log", "run", "pki", "config"] {
            fs::create_dir_all(self.dir.join(folder)).with_context(|| format!("create {}", self.dir.display()))?;
        }
        let settings = Settings::choose(form)?;
        settings.write(&self.dir)?;
        if form == Form::Node {
            holder::start(self)?;
            link::connect(self, &settings)?;
        }
        certs::write(&self.dir, &settings)?;
        kubeconfig::write_all(&self.dir, &settings)?;
        control_plane::start(self, &settings)?;
        match form {
            Form::Plane => Ok(()),
            Form::Simulated => simulated::start(self),
            Form::Node => node::start(self, &settings),
        }
    }

    /// Whether every part runs and the API server (and the node) answer ready.
    fn healthy(&self) -> bool {
        let Ok(settings) = Settings::read(&self.dir) else { return false };
        settings.form.parts().iter().all(|part| process::running(&self.dir, part))
            && kubectl::ready(self)
            && (settings.form == Form::Plane || kubectl::node_ready(self))
    }

    /// Stops every part and removes what was made; logs stay. No error when there is nothing.
    pub fn down(&self) -> Result<()> {
        stop::shielded(|| down::down(self))
    }

    /// `kubectl` as the cluster's admin.
    pub fn kubectl(&self) -> Command {
        kubectl::command(self)
    }

    /// `helm` as the cluster's admin; it keeps nothing outside the cluster's folder.
    pub fn helm(&self) -> Command {
        let mut helm = Command::new(self.bin.join("helm"));
        helm.env("KUBECONFIG", self.kubeconfig());
        for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(home, self.dir.join("helm"));
        }
        helm
    }

    /// Server-side apply of one manifest.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        kubectl::apply(self, manifest)
    }

    /// Brings an image archive onto the node.
    pub fn import(&self, archive: &Path) -> Result<()> {
        containerd::import(self, archive)
    }

    /// A command that runs where the cluster's parts run.
    pub fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        holder::enter(self, program)
    }
}
