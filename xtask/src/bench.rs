//! `cargo xtask bench`: builds the benches as what ships is built and runs them. Measures nothing itself.

use std::process::Command;

use anyhow::Result;

use crate::{paths, run};

/// Runs the benches named; without names they are listed.
pub fn run(names: &[String]) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::root()).args(["run", "--quiet", "--release", "--locked", "--package", "polity-bench", "--"]).args(names);
    run::check(&mut cargo)
}
