//! The project's own commands: `cargo xtask up`, `down`, `test`, `gen` and their parts.
//! Never part of what is shipped.

mod cluster;
mod image;
mod shell;
mod upstream;
mod wait;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Commands of the Polity repository.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// A cluster without Polity.
    #[command(subcommand)]
    Cluster(ClusterVerb),
}

#[derive(Subcommand)]
enum ClusterVerb {
    /// Build the upstream binaries and say where they are.
    Binaries,
    /// Start a cluster.
    Up {
        /// Its name.
        #[arg(long, default_value = "up")]
        name: String,
        /// Only a control plane on loopback; needs no root.
        #[arg(long)]
        plane_only: bool,
    },
    /// Stop a cluster and remove everything of it.
    Down {
        /// Its name.
        #[arg(long, default_value = "up")]
        name: String,
    },
}

fn main() -> Result<()> {
    let repo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().context("no parent of xtask")?.to_owned();
    match Args::parse().verb {
        Verb::Cluster(verb) => {
            let bin = upstream::ensure(&repo)?;
            match verb {
                ClusterVerb::Binaries => println!("{}", bin.display()),
                ClusterVerb::Up { name, plane_only } => {
                    let cluster = cluster::Cluster::new(&repo, bin, &name, !plane_only);
                    cluster.up()?;
                    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
                }
                ClusterVerb::Down { name } => cluster::Cluster::new(&repo, bin, &name, true).down()?,
            }
        }
    }
    Ok(())
}
