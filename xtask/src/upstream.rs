//! Stock upstream binaries from the pinned Go modules in `e2e/cluster`, built once into a cache outside of the checkout,
//! keyed by the digest of module files and flags, so that a fresh clone finds them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::shell;

/// One Go module and the packages built from it.
struct Module {
    dir: &'static str,
    ldflags: &'static str,
    packages: &'static [(&'static str, &'static str)],
}

const KUBERNETES: &str = "-X k8s.io/component-base/version.gitVersion=v1.36.3 -X k8s.io/component-base/version.gitMajor=1 \
    -X k8s.io/component-base/version.gitMinor=36 -X k8s.io/component-base/version.gitTreeState=clean";

const MODULES: &[Module] = &[
    Module { dir: "etcd", ldflags: "", packages: &[("etcd", "go.etcd.io/etcd/server/v3")] },
    Module {
        dir: "kubernetes",
        ldflags: KUBERNETES,
        packages: &[
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
            ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
        ],
    },
    Module { dir: "helm", ldflags: "", packages: &[("helm", "helm.sh/helm/v4/cmd/helm")] },
    Module {
        dir: "containerd",
        ldflags: "",
        packages: &[
            ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
            ("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
            ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
        ],
    },
    Module { dir: "coredns", ldflags: "", packages: &[("coredns", "github.com/coredns/coredns")] },
    Module { dir: "pause", ldflags: "", packages: &[("pause", ".")] },
];

/// Where the binaries are kept: `POLITY_CACHE`, or `polity` in the user's cache directory.
pub(crate) fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    let base = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from);
    std::env::var_os("POLITY_CACHE").map_or_else(|| base.join("polity"), PathBuf::from)
}

/// Builds what is missing and returns the directory with all binaries.
///
/// # Errors
/// Go is missing or a build fails.
pub(crate) fn ensure(repo: &Path) -> Result<PathBuf> {
    let root = repo.join("e2e/cluster");
    let mut all = Sha256::new();
    for module in MODULES {
        all.update(key(&root, module)?);
    }
    let bin = cache().join("bin").join(&hex::encode(all.finalize())[..16]);
    fs::create_dir_all(&bin)?;
    let lock = fs::File::create(cache().join("build.lock"))?;
    lock.lock().context("locking the binary cache")?;
    for module in MODULES {
        build(&root, module, &bin)?;
    }
    Ok(bin)
}

fn key(root: &Path, module: &Module) -> Result<String> {
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum", "main.go"] {
        hash.update(fs::read(root.join(module.dir).join(file)).unwrap_or_default());
    }
    hash.update(module.ldflags);
    hash.update(shell::output(&mut shell::cmd("go", ["env", "GOVERSION"]))?);
    Ok(hex::encode(hash.finalize()))
}

/// Builds the module's packages that are not there, each under another name first so that none is ever half written.
fn build(root: &Path, module: &Module, bin: &Path) -> Result<()> {
    let missing: Vec<_> = module.packages.iter().filter(|(name, _)| !bin.join(name).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let start = Instant::now();
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    println!("  building {} from {} …", names.join(", "), module.dir);
    let made = cache().join("bin").join(format!("build-{}-{}", module.dir, std::process::id()));
    fs::create_dir_all(&made)?;
    for (name, package) in missing {
        let mut go = Command::new("go");
        go.current_dir(root.join(module.dir)).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly -buildvcs=false").args(["build", "-trimpath"]);
        go.arg("-ldflags").arg(format!("-s -w {}", module.ldflags)).arg("-o").arg(made.join(name)).arg(package);
        shell::run(&mut go).with_context(|| format!("building {name}"))?;
        fs::rename(made.join(name), bin.join(name))?;
    }
    fs::remove_dir_all(&made)?;
    println!("  {} ready after {} s", module.dir, start.elapsed().as_secs());
    Ok(())
}
