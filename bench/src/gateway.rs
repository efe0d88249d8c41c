//! `gateway`: what it takes an edge to say who asks and what would be decided (`POST /v1/orgs/{org}/evaluate`, 100 Policies), beside a bare server with
//! the same TLS that reads the same body into a type and answers. Each server has the first core for itself, the load the second.
//!
//! Tokens are reviewed by the stand-in for an API server, and kept as an edge keeps them. Nothing runs: calls with a tool behind them need core, its
//! ledger and an upstream, and are not measured here.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::body::Bytes as Body;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use polity_gateway::{Gateway, Settings, StreamLimits};
use polity_runtime::CancellationToken;
use polity_runtime::cache::Cache;
use polity_runtime::clock::SystemClock;
use polity_runtime::core_client::{CoreClient, CoreConfig};
use polity_runtime::tls::Certs as Installed;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::admission::organisation;
use crate::certs::Certs;
use crate::load::{self, Shape, Target};
use crate::report::{Better, Report};
use crate::samples::Samples;
use crate::server::{Server, be_the_load};
use crate::standin::StandIn;

const PATH: &str = "/v1/orgs/acme/evaluate";
const POLICIES: usize = 100;
const REPEATS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_millis(1500);
const KEPT: Shape = Shape { connections: 16, churn: None };

/// What a server took.
#[derive(Default)]
struct Took {
    cpu: Samples,
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
    let serve = |what: &str| Server::of_ours(&["--serve", what, "--folder", &folder.path().to_string_lossy()]);
    let servers = [("bare server", serve("evaluate-echo")?), ("edge", serve("evaluate")?)];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let target = |server: &Server, amount: i64, expect| -> Result<Target> {
        let input = json!({"to": "SUPPLIER-7", "amount": amount, "currency": "USD", "memo": "invoice 2026-1187, net 30, ".repeat(24)});
        let body = Bytes::from(json!({"tool": organisation::tool(0), "input": input}).to_string());
        Ok(Target { address: server.address(), path: PATH.to_owned(), tls: certs.client()?, body, expect, bearer: "a-token" })
    };
    let mut took = [Took::default(), Took::default()];
    for (name, server) in &servers {
        let allowed = runtime.block_on(load::ask(&target(server, 50, "")?)).with_context(|| (*name).to_owned())?;
        ensure!(allowed.contains(r#""verdict":"Allow""#), "{name}: an amount of 50 must be allowed: {allowed}");
        let denied = runtime.block_on(load::ask(&target(server, 51, "")?))?;
        ensure!(denied.contains(r#""verdict":"Deny""#) || *name != "edge", "{name}: an amount of 51 must be denied: {denied}");
    }
    for _ in 0..REPEATS {
        for ((_, server), took) in servers.iter().zip(&mut took) {
            let target = target(server, 50, r#""verdict":"Allow""#)?;
            runtime.block_on(measure(server, &target, took))?;
        }
    }
    let mut report = Report::new("gateway");
    for ((name, _), took) in servers.iter().zip(&took) {
        report.figure(&format!("{name}: CPU a question, 16 kept connections"), "µs", &took.cpu, Better::Lower);
        report.figure(&format!("{name}: questions"), "1/s", &took.rate, Better::Higher);
        report.figure(&format!("{name}: p50"), "µs", &took.p50, Better::Lower);
        report.figure(&format!("{name}: p99"), "µs", &took.p99, Better::Lower);
    }
    let [bare, edge] = &took;
    report.ratio("evaluate, 100 policies: throughput", "bare server", &edge.rate.over(&bare.rate), 0.7, Better::Higher);
    report.ratio("evaluate, 100 policies: CPU", "bare server", &edge.cpu.over(&bare.cpu), 1.5, Better::Lower);
    Ok(report)
}

async fn measure(server: &Server, target: &Target, took: &mut Took) -> Result<()> {
    load::send(target, KEPT, WARM_UP).await?;
    let (cpu, started) = (server.cpu()?, Instant::now());
    let answered = load::send(target, KEPT, MEASURED).await?;
    let requests = f64::from(u32::try_from(answered.requests).unwrap_or(u32::MAX));
    took.rate.push(requests / started.elapsed().as_secs_f64());
    took.cpu.push((server.cpu()? - cpu).as_secs_f64() * 1e6 / requests);
    took.p50.push(answered.quantile(0.5).as_secs_f64() * 1e6);
    took.p99.push(answered.quantile(0.99).as_secs_f64() * 1e6);
    Ok(())
}

/// The bare server.
pub fn echo() -> Router {
    Router::new().route(PATH, post(answer))
}

/// What the bare server reads.
#[derive(Deserialize)]
struct Question {
    tool: String,
    input: Map<String, Value>,
}

async fn answer(body: Body) -> Response {
    match serde_json::from_slice::<Question>(&body) {
        Ok(question) => {
            Json(json!({"verdict": "Allow", "rules": [], "message": question.tool, "reason": question.input.len().to_string()}))
                .into_response()
        }
        Err(error) => (http::StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

/// The edge's gateway over a fixed organisation. To be called within a runtime.
///
/// # Errors
/// When its parts do not fit together.
pub fn edge(folder: &Path, stop: &CancellationToken) -> Result<Router> {
    let client = StandIn::with(Vec::new()).client();
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let certs = Installed::empty();
    certs.install(&read("tls.crt")?, &read("tls.key")?, &read("ca.crt")?)?;
    // Nobody listens there: what is measured asks no core.
    let core = CoreClient::new(CoreConfig::new("https://127.0.0.1:9"), certs)?;
    let settings = Settings {
        replica: "bench".to_owned(),
        system_namespace: "polity-system".to_owned(),
        names: vec!["localhost".to_owned()],
        metrics: polity_gateway::Metrics::new(&prometheus::Registry::new())?,
        oidc: Vec::new(),
        streams: StreamLimits::default(),
    };
    let http = Gateway::http_tools(client.clone(), Arc::default());
    let cache = Cache::fixed(organisation::world(POLICIES));
    let gateway = Gateway::new(&settings, client, cache, core, http, Arc::new(SystemClock), stop);
    Ok(polity_gateway::router(gateway))
}
