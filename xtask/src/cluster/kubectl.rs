//! `kubectl` against a cluster, and the questions that the other modules ask with it.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Cluster;
use super::settings::NODE;
use crate::run;

pub fn command(cluster: &Cluster) -> Command {
    let mut kubectl = Command::new(cluster.bin.join("kubectl"));
    kubectl.env("KUBECONFIG", cluster.kubeconfig()).arg("--request-timeout=20s");
    kubectl
}

pub fn ready(cluster: &Cluster) -> bool {
    run::attempt(command(cluster).args(["get", "--raw", "/readyz", "--request-timeout=5s"])).is_some_and(|text| text == "ok")
}

pub fn node_ready(cluster: &Cluster) -> bool {
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    run::attempt(command(cluster).args(["get", "node", NODE, "-o", path])).is_some_and(|text| text == "True")
}

/// Server-side apply of one manifest.
pub fn apply(cluster: &Cluster, manifest: &str) -> Result<()> {
    let mut kubectl = command(cluster);
    kubectl.args(["apply", "--server-side", "--force-conflicts", "--field-manager=xtask", "-f", "-"]);
    let mut child = kubectl.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("start kubectl")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(manifest.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("kubectl apply failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
