//! `cargo xtask up` and `down`: a cluster with Polity and an example organisation on it, and the show.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::{Cluster, Form};
use crate::{host, install, packages, product, ready, show, upstream};

const EXAMPLE: &str = "examples/acme/";

/// Brings everything up, or up to date.
///
/// With `simulated`, or where there can be no node, on a simulated one; then `built` may have the binaries.
pub fn up(name: &str, install_packages: bool, simulated: bool, built: Option<&Path>) -> Result<()> {
    let started = Instant::now();
    let cluster = Cluster::named(name)?;
    let form = if simulated || !node_possible() { Form::Simulated } else { Form::Node };
    if form == Form::Node {
        ensure!(built.is_none(), "--built goes with a simulated node; the image for a real one is always built");
        heading("Debian packages for the node");
        packages::ensure(install_packages)?;
    } else {
        println!("{SIMULATED}");
    }
    heading("Upstream binaries (e2e/cluster)");
    upstream::binaries(form)?;
    if form == Form::Node {
        on_node(&cluster)?;
    } else {
        on_simulated(&cluster, built)?;
    }
    closing(&cluster, form, started);
    Ok(())
}

/// What is real and what is not without root.
const SIMULATED: &str = "\
Without root (or with --simulated): etcd, API server, controller manager, scheduler, and Polity's core and edge are real, as processes of yours.
The node is simulated by KWOK: Pods are said to run, and none does. Calls of container tools are decided, and then refused with reason
NoPodRuntime. For a real node, and calls that run, use root on Linux.";

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
    example(cluster)?;
    show::tree(cluster)?;
    show::calls(cluster, &cli)
}

fn on_simulated(cluster: &Cluster, built: Option<&Path>) -> Result<()> {
    heading("Polity");
    let built = match built {
        Some(folder) => std::path::absolute(folder)?,
        None => product::host_binaries(&[])?,
    };
    upstream::link(&built.join(product::CLI), &cluster.bin().join(product::CLI))?;
    heading("Kubernetes: a control plane and a simulated node");
    cluster.up(Form::Simulated)?;
    heading("Polity's parts as processes of the host");
    let gateway = host::start(cluster, &built)?;
    example(cluster)?;
    show::tree(cluster)?;
    show::calls_without_pods(cluster, &built, &gateway)
}

fn example(cluster: &Cluster) -> Result<()> {
    heading(EXAMPLE);
    install::manifests(&mut cluster.kubectl(), EXAMPLE)?;
    ready::wait(cluster, Duration::from_secs(180))
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

fn closing(cluster: &Cluster, form: Form, started: Instant) {
    let bin = cluster.bin().display();
    let node = if form == Form::Simulated { " with a simulated node: no container runs" } else { "" };
    println!("\nUp after {} s{node}. Stop it with `cargo xtask down`. To go on:\n", started.elapsed().as_secs());
    println!("  export KUBECONFIG={} PATH={bin}:$PATH", cluster.kubeconfig().display());
    println!("  kubectl polity tree");
    println!("  kubectl -n acme-finance get agents.polity.dev,tools.polity.dev,policies.polity.dev,toolcalls.polity.dev");
    println!("  kubectl explain policies.polity.dev.spec.rules");
}
