//! The veth pair between the host and a node's network namespace.
//!
//! No route or rule of the host is changed but the one that comes with the address of its end. Packets
//! of Pods to the outside end at the host, which forwards nothing for them.

use std::process::Command;

use anyhow::Result;

use super::settings::Settings;
use super::{Cluster, holder, process};
use crate::run;

const INNER: &str = "uplink";

pub fn connect(cluster: &Cluster, settings: &Settings) -> Result<()> {
    let outer = settings.host_link();
    let holder = process::pid(&cluster.dir, "holder").unwrap_or_default().to_string();
    ip(&["link", "add", &outer, "type", "veth", "peer", "name", INNER, "netns", &holder])?;
    ip(&["address", "add", &format!("{}/30", settings.host()), "dev", &outer])?;
    ip(&["link", "set", &outer, "up"])?;
    inside(cluster, &["link", "set", "lo", "up"])?;
    inside(cluster, &["address", "add", &format!("{}/30", settings.address()), "dev", INNER])?;
    inside(cluster, &["link", "set", INNER, "up"])?;
    inside(cluster, &["route", "add", "default", "via", &settings.host().to_string()])?;
    // The setting belongs to the network namespace, and is written from inside it.
    run::check(holder::enter(cluster, "sh").args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))
}

/// Removes the host's end, should the namespace not have taken it along yet.
pub fn disconnect(settings: &Settings) {
    let _gone = run::attempt(Command::new("ip").args(["link", "delete", &settings.host_link()]));
}

fn ip(arguments: &[&str]) -> Result<()> {
    run::check(Command::new("ip").args(arguments))
}

fn inside(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    run::check(holder::enter(cluster, "ip").args(arguments))
}
