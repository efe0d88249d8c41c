//! What this repository ships, built for use on a cluster: the static binaries and the image made of them.
//!
//! The image is `docker.io/polity/polity`, tagged `dev` and with its own digest, so that an install of
//! new content is a roll-out. It is built with the profile that is shipped, and without test features.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cluster::Cluster;
use crate::image::{self, Image, Written};
use crate::{paths, run};

pub const REPOSITORY: &str = "docker.io/polity/polity";
/// Package and binary of the command line for people.
pub const CLI: &str = "kubectl-polity";
/// Binary and the package that it is in.
const BINARIES: &[(&str, &str)] = &[("polity", "polity-operator"), ("polity-worker", "polity-worker"), ("polity-shim", "polity-shim")];

/// Certificates of public authorities, where Debian keeps them and where the edge looks.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Builds the binaries and writes the image's archive.
pub fn image() -> Result<Written> {
    let triple = match std::env::consts::ARCH {
        "x86_64" => "x86_64-unknown-linux-gnu",
        "aarch64" => "aarch64-unknown-linux-gnu",
        other => bail!("no image is built for {other}"),
    };
    // A folder of its own: with other flags in the common one, each build would throw away the other's.
    let target = paths::target().join("image");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::root()).env("RUSTFLAGS", "-C target-feature=+crt-static");
    cargo.args(["build", "--release", "--locked", "--bins", "--target", triple, "--target-dir"]).arg(&target);
    // The shipped binaries are stripped: making line tables first would only cost time.
    cargo.args(["--config", "profile.release.debug=false"]);
    cargo.args(BINARIES.iter().flat_map(|(_, package)| ["--package", package]));
    run::check(&mut cargo)?;
    let built = target.join(triple).join("release");
    let mut files: Vec<(String, PathBuf)> = BINARIES.iter().map(|(name, _)| ((*name).to_owned(), built.join(name))).collect();
    // What `http` Tools trust outside of the cluster, where the machine that builds has it; without it each such Tool needs a caBundle.
    let roots = PathBuf::from(ROOTS);
    if roots.exists() {
        files.push((ROOTS.trim_start_matches('/').to_owned(), roots));
    } else {
        println!("{ROOTS} is missing (package ca-certificates): http Tools will trust only their own caBundle");
    }
    let names = vec![format!("{REPOSITORY}:dev"), format!("{REPOSITORY}:dev-DIGEST")];
    image::write(&Image { names, files, entrypoint: "/polity".to_owned() }, &target.join("polity.tar"))
}

/// Imports the image, unless the node has just that.
pub fn import(cluster: &Cluster, image: &Written) -> Result<()> {
    let mark = cluster.dir().join("image");
    if fs::read_to_string(&mark).is_ok_and(|digest| digest == image.digest) {
        return Ok(());
    }
    cluster.import(&image.path)?;
    fs::write(&mark, &image.digest).context("remember the imported image")
}

/// What runs as processes of the host: the server, the worker, and the command line for people.
pub const HOST: &[&str] = &["polity", "polity-worker", CLI];

/// Builds what runs as processes of the host, and names its folder.
pub fn host_binaries(features: &[&str]) -> Result<PathBuf> {
    build(&["polity-operator", "polity-worker", CLI], features)
}

/// The command line for people.
pub fn cli() -> Result<PathBuf> {
    Ok(build(&[CLI], &[])?.join(CLI))
}

fn build(packages: &[&str], features: &[&str]) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::root()).args(["build", "--locked", "--bins"]);
    cargo.args(packages.iter().flat_map(|package| ["--package", *package]));
    if !features.is_empty() {
        cargo.args(["--features", &features.join(",")]);
    }
    run::check(&mut cargo)?;
    Ok(paths::target().join("debug"))
}
