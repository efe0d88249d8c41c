//! `kubectl polity`: the command line for people. Checks and tests Policies offline, decides Approvals, asks for and makes
//! calls, verifies and exports records, shows the Org tree, and what servers of Tools list.
//!
//! It has no rights of its own: whatever it does on a cluster, its user could do with kubectl.

mod args;
mod audit;
mod can_i;
mod cluster;
mod explain;
mod policy;
mod table;
mod tool;
mod yaml;

use std::{io::Write, process::ExitCode};

use args::{Command, Line, ToolCommand};
use clap::Parser;

/// Whether what was asked for is so: decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Exit code 0.
    Good,
    /// Exit code 1, said already.
    Bad,
}

fn main() -> ExitCode {
    let line = Line::parse();
    match run(line) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::FAILURE,
        // A reader that has seen enough (`| head`) is no failure.
        Err(e) if e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(e) => {
            // With nobody to read it there is nothing left to say.
            let _ = writeln!(std::io::stderr(), "Error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(line: Line) -> anyhow::Result<Verdict> {
    let out = &mut std::io::stdout().lock();
    match line.command {
        Command::Policy(command) => policy::run(&command, out),
        Command::Audit(command) => audit::run(&command, out),
        Command::Approve(command) => cluster::run(&line.cluster, |c| async move { cluster::approve::run(&c, &command, out).await }),
        Command::Approvals(command) => cluster::run(&line.cluster, |c| async move { cluster::approvals::run(&c, &command, out).await }),
        Command::Call(command) => cluster::run(&line.cluster, |c| async move { cluster::call::run(&c, &command, out).await }),
        Command::CanI(command) if !command.manifests.is_empty() => can_i::offline(&command, out),
        Command::CanI(command) => cluster::run(&line.cluster, |c| async move { can_i::online(&c, &command, out).await }),
        Command::Explain(command) if !command.manifests.is_empty() => explain::offline(&command, out),
        Command::Explain(command) => cluster::run(&line.cluster, |c| async move { explain::online(&c, &command, out).await }),
        Command::Tool(ToolCommand::Pin(command)) => tool::pin(&line.cluster, &command, out),
        Command::Tree(command) => cluster::run(&line.cluster, |c| async move { cluster::tree::run(&c, &command, out).await }),
    }
}
