//! `policy check`, `test`, `bench` and `replay`: the same functions that admission and decisions use, on files alone.

mod bench;
mod check;
pub mod manifests;
mod replay;
mod test;
mod told;

use std::io::Write;

use anyhow::Result;

use crate::{Verdict, args::PolicyCommand};

/// Runs one of the commands.
pub fn run(command: &PolicyCommand, out: &mut dyn Write) -> Result<Verdict> {
    match command {
        PolicyCommand::Check { manifests, output } => check::run(manifests, *output, out),
        PolicyCommand::Test { manifests, tests, coverage, full_coverage, output } => {
            let coverage = test::Coverage { shown: *coverage || *full_coverage, required: *full_coverage };
            test::run(manifests, tests, coverage, *output, out)
        }
        PolicyCommand::Bench { manifests, tests, seconds, max_micros, output } => {
            bench::run(manifests, tests, *seconds, *max_micros, *output, out)
        }
        PolicyCommand::Replay { manifests, candidates, records, output } => replay::run(manifests, candidates, records, *output, out),
    }
}
