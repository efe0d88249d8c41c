//! `polity`: the one server binary. `core` and `edge` are its two workloads, `healthcheck` asks a URL.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use polity_operator::{config, core, edge, healthcheck};
use polity_runtime::{CancellationToken, telemetry, tls};

#[derive(Parser)]
#[command(name = "polity", version, about = "Runs organisations of AI agents and people on Kubernetes")]
struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Controllers, dispatch and ledger.
    Core(config::Core),
    /// Webhook and gateway.
    Edge(config::Edge),
    /// Exit with 0 if GET of a URL answers 2xx. Certificates are not checked: for probes and tests inside the cluster.
    Healthcheck {
        /// The URL.
        url: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    tls::install_crypto();
    let stop = CancellationToken::new();
    let result = match Args::parse().part {
        Part::Healthcheck { url } => healthcheck::run(&url).await,
        Part::Core(settings) => match telemetry::init(&settings.common.log()) {
            Ok(()) => core::run(settings, stop).await,
            Err(error) => Err(error.into()),
        },
        Part::Edge(settings) => match telemetry::init(&settings.common.log()) {
            Ok(()) => edge::run(settings, stop).await,
            Err(error) => Err(error.into()),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("polity: {error:#}");
            ExitCode::FAILURE
        }
    }
}
