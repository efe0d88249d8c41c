//! The tests of `polity-e2e`, each group on a cluster of its own that is stopped afterwards whatever happens.

use anyhow::Result;

use super::cargo::{Counts, test};
use crate::cluster::{Cluster, Form};
use crate::{install, product};

/// On a control plane without a node; Polity's parts are processes that the tests start.
pub fn plane() -> Result<Counts> {
    on("test", Form::Plane, |cluster| test(&["--package", "polity-e2e", "--lib", "--test", "plane"], &plane_env(cluster)?))
}

/// The test of random kills alone, for longer than the suite runs it.
pub fn chaos(seconds: u64, seed: Option<u64>) -> Result<Counts> {
    on("chaos", Form::Plane, |cluster| {
        let mut env = plane_env(cluster)?;
        env.push(("POLITY_E2E_CHAOS_SECONDS", seconds.to_string()));
        env.extend(seed.map(|seed| ("POLITY_E2E_CHAOS_SEED", seed.to_string())));
        test(&["--package", "polity-e2e", "--test", "plane", "--", "--nocapture", "races_chaos"], &env)
    })
}

/// What tests on a control plane need. The server has kill points, which tests of crashes fail without.
fn plane_env(cluster: &Cluster) -> Result<Vec<(&'static str, String)>> {
    let built = product::host_binaries(&["polity-operator/killpoints"])?;
    Ok(vec![
        ("POLITY_E2E_KUBECONFIG", cluster.kubeconfig().to_string_lossy().into_owned()),
        ("POLITY_E2E_BIN", cluster.bin().to_string_lossy().into_owned()),
        ("POLITY_E2E_SERVER", built.join("polity").to_string_lossy().into_owned()),
        ("POLITY_E2E_CLI", built.join("kubectl-polity").to_string_lossy().into_owned()),
    ])
}

/// On a real node, with the chart installed.
pub fn node() -> Result<Counts> {
    let image = product::image()?;
    on("test-node", Form::Node, |cluster| {
        product::import(cluster, &image)?;
        install::chart(cluster, &image)?;
        // The build that the tests on a control plane make too: at the same time they would otherwise take it from each other.
        let cli = product::host_binaries(&["polity-operator/killpoints"])?.join(product::CLI);
        let env = [
            ("POLITY_E2E_NODE_KUBECONFIG", cluster.kubeconfig().to_string_lossy().into_owned()),
            ("POLITY_E2E_BIN", cluster.bin().to_string_lossy().into_owned()),
            ("POLITY_E2E_IMAGE", format!("{}:dev-{}", product::REPOSITORY, image.digest)),
            ("POLITY_E2E_CLI", cli.to_string_lossy().into_owned()),
        ];
        test(&["--package", "polity-e2e", "--test", "node"], &env)
    })
}

/// Runs `work` on a fresh cluster and stops that in the end.
fn on(name: &str, form: Form, work: impl FnOnce(&Cluster) -> Result<Counts>) -> Result<Counts> {
    let cluster = Cluster::named(name)?;
    cluster.down()?;
    let result = cluster.up(form).and_then(|_| work(&cluster));
    let down = cluster.down();
    let counts = result?;
    down.map(|()| counts)
}
