//! The verbs and their flags.

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cluster::{Cluster, Form};
use crate::{run, upstream};

/// The verbs of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Parts of `up` and `test`, one by one.
    #[command(subcommand)]
    Cluster(ClusterVerb),
}

#[derive(Subcommand)]
enum ClusterVerb {
    /// Build the pinned upstream binaries into the cache.
    Binaries,
    /// Boot a bare cluster, or leave a healthy one as it is.
    Up {
        #[arg(long, default_value = "up")]
        name: String,
        /// Control plane on loopback only: needs no root, runs no Pod.
        #[arg(long)]
        plane_only: bool,
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
        Verb::Cluster(verb) => cluster(verb),
    }
}

fn cluster(verb: ClusterVerb) -> Result<()> {
    match verb {
        ClusterVerb::Binaries => println!("{}", upstream::binaries()?.display()),
        ClusterVerb::Up { name, plane_only } => {
            let cluster = Cluster::named(&name)?;
            let booted = cluster.up(if plane_only { Form::Plane } else { Form::Node })?;
            println!("{} KUBECONFIG={}", if booted { "booted:" } else { "already up:" }, cluster.kubeconfig().display());
        }
        ClusterVerb::Down { name } => Cluster::named(&name)?.down()?,
        ClusterVerb::Exec { name, command } => {
            let cluster = Cluster::named(&name)?;
            let mut words = command.iter();
            let mut inside = cluster.inside(words.next().map_or("true", String::as_str));
            run::check(inside.args(words))?;
        }
    }
    Ok(())
}
