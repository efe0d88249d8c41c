//! Installing the chart on a cluster with a node, as a user would: Helm, into a restricted namespace.

use std::process::Command;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::image::Written;
use crate::product::REPOSITORY;
use crate::{paths, run};

pub const NAMESPACE: &str = "polity-system";
const RELEASE: &str = "polity";

/// The namespace of the release, which admits only restricted Pods.
pub fn namespace(cluster: &Cluster) -> Result<()> {
    let levels = ["enforce", "warn", "audit"].map(|mode| format!("pod-security.kubernetes.io/{mode}: restricted")).join(", ");
    cluster.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}, labels: {{{levels}}}}}}}"))
}

/// Installs or upgrades the chart with this image, and waits until it is ready.
pub fn chart(cluster: &Cluster, image: &Written) -> Result<()> {
    namespace(cluster)?;
    let mut helm = cluster.helm();
    helm.args(["upgrade", "--install", RELEASE]).arg(paths::root().join("charts/polity")).args(["--namespace", NAMESPACE]);
    for (key, value) in [
        ("image.repository", REPOSITORY.to_owned()),
        ("image.tag", format!("dev-{}", image.digest)),
        ("core.persistence.storageClass", "polity-local".to_owned()),
        ("core.persistence.accessMode", "ReadWriteOnce".to_owned()),
    ] {
        helm.args(["--set", &format!("{key}={value}")]);
    }
    helm.args(["--wait", "--timeout", "3m"]);
    run::output(&mut helm).map(|_| ()).inspect_err(|_| why_not(cluster)).context("install the chart")
}

/// Prints what a person would look at first.
fn why_not(cluster: &Cluster) {
    let look = |arguments: &[&str]| {
        let text = run::attempt(cluster.kubectl().args(["--namespace", NAMESPACE]).args(arguments)).unwrap_or_default();
        println!("--- kubectl -n {NAMESPACE} {}\n{}", arguments.join(" "), text.trim_end());
    };
    look(&["get", "pods", "-o", "wide"]);
    look(&["get", "events", "--field-selector=type=Warning"]);
    for part in ["core", "edge"] {
        look(&["logs", "--tail=30", "--prefix", "--selector", &format!("app.kubernetes.io/component={part}")]);
        look(&["logs", "--tail=30", "--prefix", "--previous", "--selector", &format!("app.kubernetes.io/component={part}")]);
    }
}

/// Applies a folder of manifests as a user would.
pub fn manifests(kubectl: &mut Command, folder: &str) -> Result<()> {
    run::check(kubectl.current_dir(paths::root()).args(["apply", "-f", folder]))
}
