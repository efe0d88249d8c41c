//! The node's network namespace and the link to it. Needs root.

use anyhow::Result;

use super::Cluster;
use crate::shell;

/// Makes namespace, link and addresses.
///
/// # Errors
/// A command fails.
pub(super) fn up(cluster: &Cluster) -> Result<()> {
    let ns = cluster.netns();
    let (host, inside) = links(cluster);
    let ip = |line: &str| shell::output(&mut shell::cmd("ip", line.split_whitespace())).map(|_| ());
    ip(&format!("netns add {ns}"))?;
    ip(&format!("link add {host} type veth peer name {inside} netns {ns}"))?;
    ip(&format!("addr add {}/24 dev {host}", cluster.host_address()))?;
    ip(&format!("link set {host} up"))?;
    ip(&format!("-n {ns} addr add {}/24 dev {inside}", cluster.address()))?;
    ip(&format!("-n {ns} link set {inside} up"))?;
    ip(&format!("-n {ns} link set lo up"))?;
    ip(&format!("-n {ns} route add default via {}", cluster.host_address()))?;
    // Inside the namespace only: Pods reach Services, and bridged packets pass kube-proxy's rules.
    shell::output(&mut shell::cmd("nsenter", [&format!("--net=/run/netns/{ns}"), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))?;
    shell::ok(&mut shell::cmd(
        "nsenter",
        [&format!("--net=/run/netns/{ns}"), "sh", "-c", "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables"],
    ));
    Ok(())
}

/// Removes link and namespace; what is inside goes with it.
pub(super) fn down(cluster: &Cluster) {
    let (host, _) = links(cluster);
    shell::ok(&mut shell::cmd("ip", ["link", "del", &host]));
    shell::ok(&mut shell::cmd("ip", ["netns", "del", &cluster.netns()]));
}

fn links(cluster: &Cluster) -> (String, String) {
    (format!("pol{}h", cluster.index), format!("pol{}n", cluster.index))
}
