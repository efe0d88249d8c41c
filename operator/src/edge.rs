//! The edge: webhook and gateway, without state. It never writes more to the cluster than the calls that it runs.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use kube::Client;
use polity_gateway::Gateway;
use polity_runtime::{
    CancellationToken,
    ca_store::CaConfig,
    cache::Cache,
    clock::SystemClock,
    core_client::{CoreClient, CoreConfig},
    health::Health,
    leaf_store,
    metrics::SnapshotAge,
    oidc::{Issuer, Oidc},
    serve::{Listener, admin_router, serve_plain, serve_tls},
    tls::ClientAuth,
};
use tokio_util::task::TaskTracker;

use crate::{config, signals};

/// How long requests in flight may take when the edge stops.
const GRACE: Duration = Duration::from_secs(10);
/// How long calls that have begun may take to be settled after that.
const DRAIN: Duration = Duration::from_secs(20);

/// Runs the edge until it is told to stop.
///
/// # Errors
/// Something that the edge cannot do without failed.
pub async fn run(settings: config::Edge, stop: CancellationToken) -> Result<()> {
    signals::stop_on(&stop)?;
    let tasks = TaskTracker::new();
    let health = Health::new();
    let metrics = prometheus::Registry::new();
    let client = Client::try_default().await.context("no way to the API server")?;
    let cache = Cache::start(client.clone(), &stop);
    metrics.register(Box::new(SnapshotAge::new(cache.snapshots().clone())?))?;
    let fresh = cache.snapshots().clone();
    health.ready("views", move || fresh.fresh().map_err(|e| e.to_string()));
    let certs = leaf_store::follow(client.clone(), &settings.common.namespace, stop.clone());
    let valid = certs.clone();
    health.ready("certificate", move || valid.valid(jiff::Timestamp::now()));
    let admin = Listener::bind(settings.listen_admin)?;
    tasks.spawn(serve_plain(admin, admin_router(health, metrics.clone()), GRACE, stop.clone()));

    let core = CoreClient::new(CoreConfig::new(settings.core_base()), certs.clone())?;
    tasks.spawn(core.clone().renew_connections(stop.clone()));
    let webhook_metrics = polity_webhook::Metrics::new(&metrics)?;
    let reviews = polity_webhook::router(polity_webhook::State {
        views: cache.clone(),
        cluster: Arc::new(polity_webhook::wiring::Live::new(client.clone(), cache.clone())),
        attempts: polity_webhook::wiring::Recorder::start(core.clone(), webhook_metrics.clone(), stop.clone()),
        clock: Arc::new(polity_webhook::state::SystemClock),
        system_namespace: settings.common.namespace.clone(),
        metrics: webhook_metrics,
    });
    let tls = certs.server_config(&ClientAuth::None)?;
    tasks.spawn(serve_tls(Listener::bind(settings.listen_webhook)?, reviews, tls, GRACE, stop.clone()));

    let configured = networks(&settings.cluster_cidrs)?;
    let egress = Arc::new(arc_swap::ArcSwapOption::empty());
    tasks.spawn(polity_gateway::cluster::keep_egress(client.clone(), configured, egress.clone(), stop.clone()));
    let named = polity_gateway::Settings {
        replica: settings.common.pod_name.clone(),
        system_namespace: settings.common.namespace.clone(),
        names: CaConfig { edge_names: settings.edge_names.clone(), ..CaConfig::new(&settings.common.namespace) }.edge(),
        metrics: polity_gateway::Metrics::new(&metrics)?,
        oidc: issuers(&settings.oidc_issuers)?,
        streams: streams(&settings)?,
    };
    let http = Gateway::http_tools(client.clone(), egress);
    let gateway = Gateway::new(&named, client, cache, core, http, Arc::new(SystemClock), &stop);
    tasks.spawn(polity_gateway::executor::run(gateway.clone(), stop.clone()));
    tasks.spawn(polity_gateway::hear_cancels(gateway.clone(), stop.clone()));
    let tls = certs.server_config(&ClientAuth::None)?;
    tasks.spawn(serve_tls(Listener::bind(settings.listen_gateway)?, polity_gateway::router(gateway.clone()), tls, GRACE, stop.clone()));

    stop.cancelled().await;
    tasks.close();
    let _ = tokio::time::timeout(GRACE + Duration::from_secs(2), tasks.wait()).await;
    gateway.drain(DRAIN).await;
    Ok(())
}

/// The configured issuers; one that makes no sense must not pass for none.
fn issuers(text: &str) -> Result<Vec<Arc<Oidc>>> {
    let text = if text.trim().is_empty() { "[]" } else { text };
    let issuers: Vec<Issuer> = serde_json::from_str(text).context("POLITY_OIDC_ISSUERS is no list of issuers")?;
    let clock: polity_runtime::clock::SharedClock = Arc::new(SystemClock);
    Oidc::all(issuers, &clock).context("POLITY_OIDC_ISSUERS")
}

/// Bounds of streams of events. One without a place for anybody, or with a pulse that nobody feels, is a mistake.
fn streams(settings: &config::Edge) -> Result<polity_gateway::StreamLimits> {
    let config::Edge { events_heartbeat_seconds: seconds, events_streams: streams, events_streams_per_caller: of_caller, .. } = *settings;
    anyhow::ensure!((1..=60).contains(&seconds), "POLITY_EVENTS_HEARTBEAT_SECONDS: {seconds} is not between 1 and 60");
    anyhow::ensure!(streams > 0 && of_caller > 0, "POLITY_EVENTS_STREAMS and POLITY_EVENTS_STREAMS_PER_CALLER: at least 1");
    Ok(polity_gateway::StreamLimits {
        heartbeat: Duration::from_secs(seconds),
        streams,
        of_caller,
        ..polity_gateway::StreamLimits::default()
    })
}

/// The configured networks of the cluster; a word that is none must not pass for an empty list.
fn networks(words: &[String]) -> Result<Vec<ipnet::IpNet>> {
    let words = words.iter().map(|w| w.trim()).filter(|w| !w.is_empty());
    words.map(|w| w.parse().with_context(|| format!("POLITY_CLUSTER_CIDRS: {w:?} is no network such as 10.0.0.0/8"))).collect()
}
