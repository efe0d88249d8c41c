//! Tests on a real API server without a node: core and edge are host processes under their own accounts, tools' Pods are played by a
//! scripted shim with real tokens. Run by `cargo xtask test`.

mod calls;
mod chart;
mod examples;
mod fixtures;
mod orgs;

use std::process::ExitCode;

use polity_e2e::{Cluster, parts::Polity, runner::Suite};

fn main() -> ExitCode {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("TLS was set up before");
    }
    let listing = std::env::args().any(|a| a == "--list");
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return ExitCode::FAILURE };
    let Ok(dir) = tempfile::Builder::new().prefix("polity-e2e-").tempdir() else { return ExitCode::FAILURE };
    let started = if listing {
        Err(anyhow::anyhow!("listing"))
    } else {
        runtime.block_on(async { Polity::start(Cluster::plane()?, dir.path()).await })
    };
    let polity = match started {
        Ok(polity) => polity,
        Err(error) => {
            eprintln!("Polity does not start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    Suite::new(polity)
        .test("chart_renders_with_default_and_all_values", |p| Box::pin(chart::renders(p)))
        .test("chart_refuses_values", |p| Box::pin(chart::refuses_values(p)))
        .test("members_have_their_rights_and_no_more", |p| Box::pin(chart::members_have_their_rights_and_no_more(p)))
        .test("parts_have_no_more_than_they_use", |p| Box::pin(chart::parts_have_no_more_than_they_use(p)))
        .test("examples_become_ready", |p| Box::pin(examples::become_ready(p)))
        .test("example_without_its_namespace_file", |p| Box::pin(examples::without_a_namespace_first(p)))
        .test("org_becomes_ready", |p| Box::pin(orgs::becomes_ready(p)))
        .test("call_allowed_runs_and_settles", |p| Box::pin(calls::allowed(p)))
        .test("call_denied_early_says_rule_reason_hint", |p| Box::pin(calls::denied(p)))
        .test("call_waits_for_a_person", |p| Box::pin(calls::waits(p)))
        .run(|polity| {
            let count = polity_e2e::ledger::check(&polity.dir.join("data"))?;
            println!("invariants hold over {count} ledger records");
            Ok(())
        })
}
