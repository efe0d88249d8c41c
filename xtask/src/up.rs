//! `cargo xtask up` and `down`: a cluster with Polity and an example organisation on it, and the show.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cluster::{Cluster, Form};
use crate::{host, install, packages, product, ready, show, upstream};

const EXAMPLE: &str = "examples/acme/";

/// Brings everything up, or up to date.
pub fn up(name: &str, install_packages: bool, plane_only: bool) -> Result<()> {
    let started = Instant::now();
    let cluster = Cluster::named(name)?;
    let node = !plane_only && node_possible();
    if node {
        heading("Debian packages for the node");
        packages::ensure(install_packages)?;
    } else {
        println!("Without root on Linux there is no node: control plane and Polity's parts run as processes of yours, no Pod runs,");
        println!("and calls of container tools are refused with reason NoPodRuntime. For a real node run this as root.");
    }
    heading("Upstream binaries (e2e/cluster)");
    upstream::binaries()?;
    if node {
        on_node(&cluster)?;
    } else {
        on_plane(&cluster)?;
    }
    closing(&cluster, started);
    Ok(())
}

fn on_node(cluster: &Cluster) -> Result<()> {
    heading("Polity and its image");
    let image = product::image()?;
    let cli = product::cli()?;
    upstream::link(&cli, &cluster.bin().join(product::CLI))?;
    heading("Kubernetes: a control plane and one real node");
    cluster.up(Form::Node)?;
    product::import(cluster, &image)?;
    heading("Helm: charts/polity");
    install::chart(cluster, &image)?;
    example(cluster, ready::ALL)?;
    show::tree(cluster)?;
    show::calls(cluster, &cli)
}

fn on_plane(cluster: &Cluster) -> Result<()> {
    heading("Polity");
    let built = product::host_binaries(&[])?;
    upstream::link(&built.join(product::CLI), &cluster.bin().join(product::CLI))?;
    heading("Kubernetes: a control plane");
    cluster.up(Form::Plane)?;
    heading("Polity's parts as processes of the host");
    host::start(cluster, &built)?;
    example(cluster, ready::WITHOUT_PODS)?;
    show::tree(cluster)
}

fn example(cluster: &Cluster, kinds: &str) -> Result<()> {
    heading(EXAMPLE);
    install::manifests(&mut cluster.kubectl(), EXAMPLE)?;
    ready::wait(cluster, kinds, Duration::from_secs(180))
}

/// Stops everything and removes what was made.
pub fn down(name: &str) -> Result<()> {
    Cluster::named(name)?.down()
}

/// Real nodes need root on Linux.
fn node_possible() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/proc/self/ns/pid").exists()
}

pub fn heading(text: &str) {
    println!("\n=== {text}");
}

fn closing(cluster: &Cluster, started: Instant) {
    let bin = cluster.bin().display();
    println!("\nUp after {} s. Stop it with `cargo xtask down`. To go on:\n", started.elapsed().as_secs());
    println!("  export KUBECONFIG={} PATH={bin}:$PATH", cluster.kubeconfig().display());
    println!("  kubectl polity tree");
    println!("  kubectl -n acme-finance get agents.polity.dev,tools.polity.dev,policies.polity.dev,toolcalls.polity.dev");
    println!("  kubectl explain policies.polity.dev.spec.rules");
}
