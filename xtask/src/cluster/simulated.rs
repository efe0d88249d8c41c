//! A node without a machine: KWOK keeps the Node's lease and says of each Pod bound to it that it runs and is ready.
//!
//! Nothing runs there: no container, no log, no address that answers. Controllers and the scheduler see what they would see of a real node.

use std::time::Duration;

use anyhow::Result;

use super::settings::NODE;
use super::{Cluster, control_plane, kubectl, process};
use crate::paths;
use crate::wait::{Look, until};

/// Only a Node that says so itself is simulated.
const MARK: &str = "polity.dev/simulated";

pub fn start(cluster: &Cluster) -> Result<()> {
    // Named, so that nothing of a file in the caller's home counts.
    let stages = paths::root().join("e2e/cluster/kwok/stages.yaml");
    let arguments = [
        format!("--kubeconfig={}", cluster.kubeconfig().display()),
        format!("--config={}", stages.display()),
        "--manage-all-nodes=false".to_owned(),
        format!("--manage-nodes-with-annotation-selector={MARK}=true"),
        "--node-lease-duration-seconds=40".to_owned(),
        "--server-address=".to_owned(),
    ];
    control_plane::run(cluster, "kwok", &arguments)?;
    kubectl::apply(
        cluster,
        &format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {NODE}, annotations: {{{MARK}: \"true\"}}, labels: {{kubernetes.io/hostname: {NODE}, kubernetes.io/os: linux}}}}}}"
        ),
    )?;
    until(Duration::from_secs(60), "simulated node ready", || {
        process::must_run(&cluster.dir, "kwok")?;
        Ok(if kubectl::node_ready(cluster) { Look::Done(()) } else { Look::NotYet("its condition Ready is not True".to_owned()) })
    })
}
