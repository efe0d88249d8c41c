//! `cargo xtask bench`: builds the benches as what ships is built, and the rivals, and runs them. Measures nothing itself.

use std::process::Command;

use anyhow::Result;

use crate::{paths, run, upstream};

/// Runs the benches named; without names they are listed.
pub fn run(names: &[String]) -> Result<()> {
    let mut cargo = Command::new("cargo");
    if names.iter().any(|name| name == "admission") {
        cargo.env("POLITY_BENCH_OPA", upstream::opa()?).env("POLITY_BENCH_GATEKEEPER", upstream::gatekeeper()?);
    }
    cargo.current_dir(paths::root()).args(["run", "--quiet", "--release", "--locked", "--package", "polity-bench", "--"]).args(names);
    run::check(&mut cargo)
}
