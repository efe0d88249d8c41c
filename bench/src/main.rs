//! `cargo xtask bench NAME`: measures Polity beside a peer or a limit, in the same run.
//!
//! Each bench is a module with a `run` that answers a [`Report`]; it is listed in [`BENCHES`]. A bench never is a test:
//! it fails when something does not work or answers wrongly, never because it was slow. Figures are medians of at least three
//! repeats in which the rivals take turns; ratios count, absolute times do not.

mod decision;
mod ledger;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;

use polity_bench::report::Report;
use polity_bench::{admission, gateway, memory, propagation};

/// Something that can be measured: its name, what it compares, and how.
type Bench = (&'static str, &'static str, fn() -> Result<Report>);

/// All of them.
const BENCHES: &[Bench] = &[
    ("admission", "CPU of a review beside a bare echo, OPA and Gatekeeper", admission::run),
    ("budget", "1,000 racing calls on a budget for 100", ledger::budget::run),
    ("decision", "one decision in process beside cel alone; ten thousand policies beside ten", decision::run),
    ("gateway", "who asks and what would be decided, beside a bare server with the same TLS", gateway::run),
    ("ledger", "durable begin+settle pairs beside the same bytes with group fdatasync", ledger::run),
    ("memory", "cache and views of 100 and 1,000 Orgs, and the time until they are there", memory::run),
    ("propagation", "from a Policy's change to the first decision by it, beside a bare watch client", propagation::run),
];

/// Measures Polity beside a peer or a limit.
#[derive(Parser)]
struct Arguments {
    /// Which; none names them all.
    names: Vec<String>,
    /// Folder for `NAME.json`.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// What a bench starts itself as: the server under test.
    #[arg(long, hide = true, requires = "folder")]
    serve: Option<String>,
    /// Folder with its certificates.
    #[arg(long, hide = true)]
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if let (Some(what), Some(folder)) = (&arguments.serve, &arguments.folder) {
        return admission::serve(what, folder);
    }
    if arguments.names.is_empty() {
        for (name, what, _) in BENCHES {
            println!("{name:<12} {what}");
        }
    }
    for name in &arguments.names {
        let Some((_, _, bench)) = BENCHES.iter().find(|(known, ..)| known == name) else {
            let known: Vec<_> = BENCHES.iter().map(|(name, ..)| *name).collect();
            bail!("no bench is named {name}; there are: {}", known.join(", "));
        };
        let report = bench().with_context(|| format!("bench {name}"))?;
        print!("{report}");
        println!("written to {}", report.write(&arguments.out)?.display());
    }
    Ok(())
}
