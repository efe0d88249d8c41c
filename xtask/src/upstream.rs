//! The pinned upstream binaries of `e2e/cluster` and `e2e/peers`, built once into the cache that checkouts share.
//!
//! A module's binaries are kept under a digest of all that decides them, so a changed pin builds
//! anew and an old one is still there for older checkouts. Never downloads a prebuilt binary.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::cluster::Form;
use crate::wait::{Look, until};
use crate::{paths, run};

/// One folder with pins and what is built from it.
struct Module {
    /// Below `e2e`.
    home: &'static str,
    dir: &'static str,
    /// Name of the binary and its package.
    binaries: &'static [(&'static str, &'static str)],
    /// Whether clusters of a form need it: nobody waits for a build of what he does not use.
    needed: fn(Form) -> bool,
}

const MODULES: &[Module] = &[
    Module { home: "cluster", dir: "pause", binaries: &[("pause", ".")], needed: node },
    Module { home: "cluster", dir: "etcd", binaries: &[("etcd", "go.etcd.io/etcd/server/v3")], needed: all },
    Module {
        home: "cluster",
        dir: "kubernetes",
        binaries: &[
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
            ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
        ],
        needed: all,
    },
    Module {
        home: "cluster",
        dir: "containerd",
        binaries: &[
            ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
            ("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
            ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
        ],
        needed: node,
    },
    Module { home: "cluster", dir: "coredns", binaries: &[("coredns", "github.com/coredns/coredns")], needed: node },
    Module { home: "cluster", dir: "helm", binaries: &[("helm", "helm.sh/helm/v4/cmd/helm")], needed: all },
    Module { home: "cluster", dir: "kwok", binaries: &[("kwok", "sigs.k8s.io/kwok/cmd/kwok")], needed: simulated },
];

/// What benches measure us against; no cluster needs it.
const OPA: Module = Module { home: "peers", dir: "opa", binaries: &[("opa", "github.com/open-policy-agent/opa")], needed: |_| false };

/// Gatekeeper's engine behind a small server of ours.
const GATEKEEPER: Module = Module { home: "peers", dir: "gatekeeper", binaries: &[("gatekeeper", ".")], needed: |_| false };

/// The OPA server; builds it if it is missing.
pub fn opa() -> Result<PathBuf> {
    Ok(cached(&OPA)?.join("opa"))
}

/// The server with Gatekeeper's engine; builds it if it is missing.
pub fn gatekeeper() -> Result<PathBuf> {
    Ok(cached(&GATEKEEPER)?.join("gatekeeper"))
}

fn all(_: Form) -> bool {
    true
}

fn node(form: Form) -> bool {
    form == Form::Node
}

fn simulated(form: Form) -> bool {
    form == Form::Simulated
}

/// The folder with the binaries that a cluster of this form needs, as links into the cache; builds what is missing.
pub fn binaries(form: Form) -> Result<PathBuf> {
    let bin = paths::target().join("upstream/bin");
    fs::create_dir_all(&bin)?;
    for module in MODULES.iter().filter(|module| (module.needed)(form)) {
        let built = cached(module)?;
        for (name, _) in module.binaries {
            link(&built.join(name), &bin.join(name))?;
        }
    }
    Ok(bin)
}

/// The folders of the cache that a cluster of this form needs; [`binaries`] makes them.
pub fn built(form: Form) -> Result<Vec<String>> {
    MODULES.iter().filter(|module| (module.needed)(form)).map(|module| Ok(format!("{}-{}", module.dir, digest(module)?))).collect()
}

/// The folder in the cache with a module's binaries; builds them if they are missing.
fn cached(module: &Module) -> Result<PathBuf> {
    let store = paths::cache()?.join("upstream");
    fs::create_dir_all(&store)?;
    let built = store.join(format!("{}-{}", module.dir, digest(module)?));
    if !built.exists() {
        build(module, &store, &built)?;
    }
    Ok(built)
}

fn source(module: &Module) -> PathBuf {
    paths::root().join("e2e").join(module.home).join(module.dir)
}

fn digest(module: &Module) -> Result<String> {
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum", "main.go"] {
        let path = source(module).join(file);
        if path.exists() {
            hash.update(fs::read(&path).with_context(|| format!("read {}", path.display()))?);
        }
    }
    hash.update(ldflags(module)?);
    hash.update(std::env::consts::ARCH);
    hash.update(std::env::consts::OS);
    Ok(hex::encode(hash.finalize()).chars().take(16).collect())
}

/// Stripped, and for Kubernetes with the version that its parts tell each other.
fn ldflags(module: &Module) -> Result<String> {
    let mut flags = "-s -w".to_owned();
    if module.dir == "kubernetes" {
        let version = pinned(module, "k8s.io/kubernetes")?;
        let mut parts = version.trim_start_matches('v').split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        for (key, value) in [("gitVersion", version.as_str()), ("gitMajor", major), ("gitMinor", minor)] {
            flags.push_str(&format!(" -X k8s.io/component-base/version.{key}={value}"));
        }
    }
    Ok(flags)
}

/// The version that go.mod requires of `path`.
fn pinned(module: &Module, path: &str) -> Result<String> {
    let text = fs::read_to_string(source(module).join("go.mod"))?;
    text.lines()
        .filter_map(|line| line.trim().trim_start_matches("require ").strip_prefix(path)?.strip_prefix(' '))
        .find_map(|rest| rest.split_whitespace().next())
        .map(ToOwned::to_owned)
        .with_context(|| format!("{}/go.mod does not require {path}", module.dir))
}

/// Builds beside the final place and renames at the end, under a lock that other checkouts share.
fn build(module: &Module, store: &Path, built: &Path) -> Result<()> {
    let lock = File::create(store.join(".lock"))?;
    until(Duration::from_secs(3600), "another build of the upstream binaries", || match lock.try_lock() {
        Ok(()) => Ok(Look::Done(())),
        Err(fs::TryLockError::WouldBlock) => Ok(Look::NotYet("its lock is held".to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(error).context("lock the cache"),
    })?;
    if built.exists() {
        return Ok(());
    }
    if run::attempt(Command::new("go").arg("version")).is_none() {
        bail!("Go is missing: it builds the upstream binaries (https://go.dev/doc/install)");
    }
    let partial = store.join(format!(".partial-{}", module.dir));
    let _leftover = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial)?;
    let names: Vec<&str> = module.binaries.iter().map(|(name, _)| *name).collect();
    println!("  building {} from e2e/{}/{}", names.join(", "), module.home, module.dir);
    compile(module, &partial, store)?;
    fs::rename(&partial, built).with_context(|| format!("move into {}", built.display()))
}

fn compile(module: &Module, partial: &Path, store: &Path) -> Result<()> {
    let mut go = Command::new("go");
    go.current_dir(source(module)).env("CGO_ENABLED", "0").args(["build", "-v", "-buildvcs=false", "-trimpath"]);
    go.args(["-ldflags", &ldflags(module)?, "-o"]);
    match module.binaries {
        // A package path need not end in the name that its binary goes by.
        [(name, package)] => go.arg(partial.join(name)).arg(package),
        many => go.arg(partial).args(many.iter().map(|(_, package)| package)),
    };
    let log = store.join(format!("build-{}.log", module.dir));
    let (started, mut said) = (Instant::now(), Instant::now());
    run::logged(&mut go, &log, || {
        if said.elapsed() >= Duration::from_secs(15) {
            said = Instant::now();
            let packages = fs::read_to_string(&log).unwrap_or_default().lines().count();
            println!("    {packages} packages compiled or fetched, {} s", started.elapsed().as_secs());
        }
    })?;
    println!("    done in {} s", started.elapsed().as_secs());
    Ok(())
}

/// Makes `at` a symbolic link to `to`.
pub fn link(to: &Path, at: &Path) -> Result<()> {
    if fs::read_link(at).is_ok_and(|now| now == to) {
        return Ok(());
    }
    let _old = fs::remove_file(at);
    std::os::unix::fs::symlink(to, at).with_context(|| format!("link {}", at.display()))
}
