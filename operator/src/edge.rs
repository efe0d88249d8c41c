//! The edge: webhook and gateway, without state. It never writes more to the cluster than the calls that it runs.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use kube::Client;
use polity_runtime::{
    CancellationToken,
    cache::Cache,
    core_client::{CoreClient, CoreConfig},
    health::Health,
    leaf_store,
    metrics::SnapshotAge,
    serve::{Listener, admin_router, serve_plain, serve_tls},
    tls::ClientAuth,
};
use tokio_util::task::TaskTracker;

use crate::{config, signals};

/// How long requests in flight may take when the edge stops.
const GRACE: Duration = Duration::from_secs(10);

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

    stop.cancelled().await;
    tasks.close();
    let _ = tokio::time::timeout(GRACE + Duration::from_secs(2), tasks.wait()).await;
    Ok(())
}
