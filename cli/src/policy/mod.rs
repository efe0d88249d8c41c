//! `policy check` and `policy test`: the same functions that admission and decisions use, on files alone.

mod check;
mod manifests;
mod test;

use std::io::Write;

use anyhow::Result;

use crate::{Verdict, args::PolicyCommand};

/// Runs one of the commands.
pub fn run(command: &PolicyCommand, out: &mut dyn Write) -> Result<Verdict> {
    match command {
        PolicyCommand::Check { manifests, output } => check::run(manifests, *output, out),
        PolicyCommand::Test { manifests, tests, output } => test::run(manifests, tests, *output, out),
    }
}
