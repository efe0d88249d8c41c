//! The verbs and their flags.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cluster::{Cluster, Form};
use crate::{bench, generate, run, suite, up, upstream};

/// The verbs of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build everything, boot a cluster, install Polity, apply examples/acme and show what it does.
    Up {
        #[arg(long, default_value = "up")]
        name: String,
        /// Install Debian packages that are missing, instead of naming them.
        #[arg(long)]
        install_packages: bool,
        /// A simulated node, even as root: what there is without root. No container runs.
        #[arg(long)]
        simulated: bool,
        /// Take the server, the worker and the command line from this folder instead of building them. With a simulated node only.
        #[arg(long)]
        built: Option<PathBuf>,
    },
    /// Stop what `up` started and remove what it made; logs stay.
    Down {
        #[arg(long, default_value = "up")]
        name: String,
    },
    /// Check everything: what CI runs.
    Test {
        /// Only these parts.
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<suite::Part>,
        /// Install Debian packages that are missing, instead of naming them.
        #[arg(long)]
        install_packages: bool,
    },
    /// Kill core and edge at random while callers ask, and check that nothing forbidden, doubled or unpaid ran; `test` does so shortly.
    Chaos {
        #[arg(long, default_value_t = 300)]
        seconds: u64,
        /// Of an earlier run, as it printed it: the same kills at the same moments.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Measure Polity beside a peer or a limit; the figures are printed and left in target/bench. Without a name, say what can be measured.
    Bench { names: Vec<String> },
    /// Write CRDs, guards and reference pages from the Rust types.
    Gen {
        /// Write nothing; fail with the differences.
        #[arg(long)]
        check: bool,
    },
    /// Parts of `up` and `test`, one by one.
    #[command(subcommand)]
    Cluster(ClusterVerb),
}

#[derive(Subcommand)]
enum ClusterVerb {
    /// Build the pinned upstream binaries into the cache: those of a cluster with a real node, or with a simulated one.
    Binaries {
        #[arg(long)]
        simulated: bool,
    },
    /// Boot a bare cluster, or leave a healthy one as it is.
    Up {
        #[arg(long, default_value = "up")]
        name: String,
        /// Control plane on loopback only: needs no root, runs no Pod.
        #[arg(long)]
        plane_only: bool,
        /// Control plane on loopback and a simulated node: needs no root, Pods are only said to run.
        #[arg(long, conflicts_with = "plane_only")]
        simulated: bool,
    },
    /// Stop a cluster and remove what it made; logs stay.
    Down {
        #[arg(long, default_value = "up")]
        name: String,
    },
    /// Run a command where a cluster's node runs.
    Exec {
        #[arg(long, default_value = "up")]
        name: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

pub fn run() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Up { name, install_packages, simulated, built } => up::up(&name, install_packages, simulated, built.as_deref()),
        Verb::Down { name } => up::down(&name),
        Verb::Test { only, install_packages } => suite::run(&only, install_packages),
        Verb::Chaos { seconds, seed } => suite::chaos(seconds, seed),
        Verb::Bench { names } => bench::run(&names),
        Verb::Gen { check: true } => generate::check(),
        Verb::Gen { check: false } => generate::write(),
        Verb::Cluster(verb) => cluster(verb),
    }
}

fn cluster(verb: ClusterVerb) -> Result<()> {
    match verb {
        ClusterVerb::Binaries { simulated } => {
            println!("{}", upstream::binaries(if simulated { Form::Simulated } else { Form::Node })?.display());
        }
        ClusterVerb::Up { name, plane_only, simulated } => {
            let cluster = Cluster::named(&name)?;
            let booted = cluster.up(match (plane_only, simulated) {
                (true, _) => Form::Plane,
                (false, true) => Form::Simulated,
                (false, false) => Form::Node,
            })?;
            println!("{} KUBECONFIG={}", if booted { "booted:" } else { "already up:" }, cluster.kubeconfig().display());
        }
        ClusterVerb::Down { name } => Cluster::named(&name)?.down()?,
        ClusterVerb::Exec { name, command } => {
            let cluster = Cluster::named(&name)?;
            let mut words = command.iter();
            let program = words.next().map_or("true", String::as_str);
            // The working folder is not kept on the way in.
            let program = if program.contains('/') { std::path::absolute(program)? } else { program.into() };
            let mut inside = cluster.inside(program);
            run::check(inside.args(words))?;
        }
    }
    Ok(())
}
