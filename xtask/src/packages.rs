//! The Debian packages that a node needs: which are missing, and installing them when asked to.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// A package and files of which one shows that it (or something as good) is there.
const NEEDED: &[(&str, &[&str])] = &[
    ("runc", &["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc", "/usr/local/bin/runc"]),
    ("containernetworking-plugins", &["/usr/lib/cni/ptp", "/opt/cni/bin/ptp"]),
    ("iptables", &["/usr/sbin/iptables", "/sbin/iptables", "/usr/bin/iptables"]),
    ("conntrack", &["/usr/sbin/conntrack", "/sbin/conntrack", "/usr/bin/conntrack"]),
    ("iproute2", &["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"]),
    ("util-linux", &["/usr/bin/nsenter", "/bin/nsenter"]),
    ("mount", &["/usr/bin/mount", "/bin/mount"]),
];

/// What tests need besides: a package, and a program of it that may lie in a directory of its version.
const TESTED: &[(&str, &str)] = &[("postgresql", "initdb")];
/// Where those are.
const PROGRAMS: &[&str] = &["/usr/local/bin", "/usr/bin", "/usr/local/pgsql/bin"];

pub fn missing() -> Vec<&'static str> {
    NEEDED.iter().filter(|(_, files)| !files.iter().any(|file| Path::new(file).exists())).map(|(package, _)| *package).collect()
}

/// The line to type.
pub fn line(packages: &[&str]) -> String {
    format!("apt-get install --yes --no-install-recommends {}", packages.join(" "))
}

/// Of those that tests need besides.
fn missing_for_tests() -> Vec<&'static str> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|version| version.path().join("bin"));
    let places: Vec<_> = versions.chain(PROGRAMS.iter().map(Into::into)).collect();
    TESTED.iter().filter(|(_, program)| !places.iter().any(|place| place.join(program).exists())).map(|(package, _)| *package).collect()
}

/// Installs what a node needs and is missing, or says the line when not told to.
pub fn ensure(install: bool) -> Result<()> {
    ensure_all(install, &missing())
}

/// The same for what tests need besides.
pub fn ensure_for_tests(install: bool) -> Result<()> {
    ensure_all(install, &missing_for_tests())
}

fn ensure_all(install: bool, missing: &[&'static str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    if !install {
        bail!("missing Debian packages; run this, or use --install-packages:\n  {}", line(missing));
    }
    println!("  installing {}", missing.join(" "));
    let apt = |arguments: &[&str]| run::check(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(arguments));
    apt(&["update", "-qq"])?;
    apt(&[&["install", "--yes", "-qq", "--no-install-recommends"], missing].concat())
}
