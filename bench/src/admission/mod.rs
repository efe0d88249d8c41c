//! `admission`: processor time of one review of a ToolCall's creation, beside a bare echo, OPA and Gatekeeper (its engine for CEL) with
//! the same rules.
//!
//! Measured is `/validate`, which decides; each server has the first core for itself, the load the second. The limit (`echo`)
//! reads the review and the ToolCall into their types and allows. Before anything is timed every server must allow what is
//! allowed and deny what is not.

pub mod organisation;
mod serve;

use std::env;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;

use crate::certs::Certs;
use crate::load::{self, Shape, Target};
use crate::report::{Better, Report};
use crate::samples::Samples;
use crate::server::{Server, be_the_load};

pub use serve::serve;

/// Path of the OPA binary, which `cargo xtask bench` builds.
const OPA: &str = "POLITY_BENCH_OPA";
/// Path of the server with Gatekeeper's engine, which `cargo xtask bench` builds.
const GATEKEEPER: &str = "POLITY_BENCH_GATEKEEPER";
const REPEATS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_millis(1500);
const KEPT: Shape = Shape { connections: 16, churn: None };
const CHURNED: Shape = Shape { connections: 64, churn: Some(32) };

/// One server, and what it took.
struct Rival {
    name: &'static str,
    server: Server,
    path: &'static str,
    kept: Samples,
    churned: Samples,
    rate: Samples,
    p50: Samples,
    p99: Samples,
}

/// Runs it.
///
/// # Errors
/// When a server does not start or decides wrongly.
pub fn run() -> Result<Report> {
    be_the_load()?;
    let folder = tempfile::tempdir()?;
    let certs = Certs::make(folder.path())?;
    let ours = |what: &str| Server::of_ours(&["--serve", what, "--folder", &folder.path().to_string_lossy()]);
    let mut rivals = vec![
        rival("echo", ours("echo")?, "/validate"),
        rival("polity, 10 policies", ours("polity:10")?, "/validate?timeout=10s"),
        rival("polity, 100 policies", ours("polity:100")?, "/validate?timeout=10s"),
        rival("polity, 1000 policies", ours("polity:1000")?, "/validate?timeout=10s"),
        rival("OPA, 100 policies", opa(folder.path(), &certs)?, "/"),
        rival("Gatekeeper, 100 constraints", gatekeeper(folder.path(), &certs)?, "/v1/admit"),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let target = |rival: &Rival, amount: i64, expect| -> Result<Target> {
        let body = Bytes::from(organisation::review(amount));
        Ok(Target { address: rival.server.address(), path: rival.path.to_owned(), tls: certs.client()?, body, expect, bearer: "" })
    };
    for rival in &rivals {
        let (allowed, denied) = (target(rival, 50, "")?, target(rival, 51, "")?);
        runtime.block_on(decides(rival, &allowed, &denied)).with_context(|| rival.name.to_owned())?;
    }
    for _ in 0..REPEATS {
        for rival in &mut rivals {
            let target = target(rival, 50, r#""allowed":true"#)?;
            runtime.block_on(measure(rival, &target)).with_context(|| rival.name.to_owned())?;
        }
    }
    report(&rivals)
}

fn rival(name: &'static str, server: Server, path: &'static str) -> Rival {
    let none = Samples::default;
    Rival { name, server, path, kept: none(), churned: none(), rate: none(), p50: none(), p99: none() }
}

/// Where a rival is that `cargo xtask bench` builds.
fn built(variable: &str) -> Result<String> {
    env::var(variable).with_context(|| format!("{variable} must name a server; `cargo xtask bench` builds it and says where"))
}

fn opa(folder: &Path, certs: &Certs) -> Result<Server> {
    let rules = folder.join("rules.rego");
    std::fs::write(&rules, organisation::rego(100))?;
    Server::of_peer(&built(OPA)?, |address| {
        let fixed = ["run", "--server", "--log-level=error", "--disable-telemetry"].map(ToOwned::to_owned);
        let listens = format!("--addr=https://{address}");
        fixed.into_iter().chain([listens]).chain(certified(certs)).chain([rules.display().to_string()]).collect()
    })
}

fn gatekeeper(folder: &Path, certs: &Certs) -> Result<Server> {
    let policies = folder.join("constraints.json");
    std::fs::write(&policies, organisation::constraints(100).to_string())?;
    Server::of_peer(&built(GATEKEEPER)?, |address| {
        [format!("--addr={address}"), format!("--policies={}", policies.display())].into_iter().chain(certified(certs)).collect()
    })
}

/// Both rivals call it the same.
fn certified(certs: &Certs) -> [String; 2] {
    [format!("--tls-cert-file={}", certs.certificate().display()), format!("--tls-private-key-file={}", certs.key().display())]
}

/// Waits until it answers, then holds it to both verdicts; the echo allows everything.
async fn decides(rival: &Rival, allowed: &Target, denied: &Target) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let answer = loop {
        match load::ask(allowed).await {
            Ok(answer) => break answer,
            Err(error) if Instant::now() > deadline => return Err(error.context("no answer in 20 s")),
            Err(_not_yet) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    ensure!(answer.contains(r#""allowed":true"#), "an amount of 50 must be allowed: {answer}");
    let answer = load::ask(denied).await?;
    ensure!(answer.contains(r#""allowed":false"#) || rival.name == "echo", "an amount of 51 must be denied: {answer}");
    Ok(())
}

async fn measure(rival: &mut Rival, target: &Target) -> Result<()> {
    load::send(target, KEPT, WARM_UP).await?;
    let (cpu, started) = (rival.server.cpu()?, Instant::now());
    let kept = load::send(target, KEPT, MEASURED).await?;
    rival.rate.push(each(kept.requests) / started.elapsed().as_secs_f64());
    rival.kept.push(micros(rival.server.cpu()? - cpu) / each(kept.requests));
    rival.p50.push(micros(kept.quantile(0.5)));
    rival.p99.push(micros(kept.quantile(0.99)));
    let cpu = rival.server.cpu()?;
    let churned = load::send(target, CHURNED, MEASURED).await?;
    rival.churned.push(micros(rival.server.cpu()? - cpu) / each(churned.requests));
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn each(requests: u64) -> f64 {
    f64::from(u32::try_from(requests).unwrap_or(u32::MAX))
}

fn report(rivals: &[Rival]) -> Result<Report> {
    let mut report = Report::new("admission");
    for rival in rivals {
        report.figure(&format!("{}: CPU a review, 16 kept connections", rival.name), "µs", &rival.kept, Better::Lower);
        report.figure(&format!("{}: CPU a review, 64 connections with churn", rival.name), "µs", &rival.churned, Better::Lower);
        report.figure(&format!("{}: reviews, 16 kept connections", rival.name), "1/s", &rival.rate, Better::Higher);
        report.figure(&format!("{}: p50", rival.name), "µs", &rival.p50, Better::Lower);
        report.figure(&format!("{}: p99", rival.name), "µs", &rival.p99, Better::Lower);
        let mut peak = Samples::default();
        peak.push(rival.server.peak_mib()?);
        report.figure(&format!("{}: peak memory", rival.name), "MiB", &peak, Better::Lower);
    }
    let [echo, ten, hundred, thousand, opa, gatekeeper] = rivals else { anyhow::bail!("six rivals") };
    report.ratio("CPU, 100 policies, kept", echo.name, &hundred.kept.over(&echo.kept), 1.3, Better::Lower);
    report.ratio("CPU, 100 policies, churn", echo.name, &hundred.churned.over(&echo.churned), 1.3, Better::Lower);
    report.ratio("CPU, 100 policies, kept", opa.name, &hundred.kept.over(&opa.kept), 0.25, Better::Lower);
    report.ratio("CPU, 100 policies, churn", opa.name, &hundred.churned.over(&opa.churned), 0.25, Better::Lower);
    report.ratio("CPU, 100 policies, kept", gatekeeper.name, &hundred.kept.over(&gatekeeper.kept), 0.01, Better::Lower);
    report.ratio("CPU, 100 policies, churn", gatekeeper.name, &hundred.churned.over(&gatekeeper.churned), 0.01, Better::Lower);
    report.ratio("CPU, 1000 policies, kept", ten.name, &thousand.kept.over(&ten.kept), 1.2, Better::Lower);
    Ok(report)
}
