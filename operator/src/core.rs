//! Core: takes the ledger's lock and the lease, then runs controllers, dispatch, Approvals and the server for the edge.
//! Losing the lease ends the process; nothing here connects to a tool.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use kube::Client;
use polity_ledger::{Config, Ledger, OpenError, Refused, StoreError};
use polity_runtime::{
    CancellationToken,
    ca_store::{CaConfig, CaStore},
    cache::Cache,
    clock::{Clock, SystemClock},
    guards::Guards,
    health::Health,
    metrics::SnapshotAge,
    serve::{Listener, admin_router, serve_plain, serve_tls},
    tls::ClientAuth,
};
use tokio_util::task::TaskTracker;

use crate::{
    anchors::{self, Anchors},
    approval::ApprovalContext,
    closing::Closing,
    config,
    context::{self, Queues},
    controllers, definitions,
    dispatch::{self, CallContext, Gate, Runner, Settings, count::Turns},
    events::Announcer,
    internal::{self, Internal},
    lease::{Elector, Timing},
    policy::{Rollout, rollout},
    signals,
};

/// How long requests in flight may take when core stops.
const GRACE: Duration = Duration::from_secs(5);

/// Runs core until it is told to stop or loses its lease.
///
/// # Errors
/// Something that core cannot do without failed.
pub async fn run(settings: config::Core, stop: CancellationToken) -> Result<()> {
    signals::stop_on(&stop)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let tasks = TaskTracker::new();
    let health = Health::new();
    let metrics = prometheus::Registry::new();
    let leads = Arc::new(AtomicBool::new(false));
    let ready = leads.clone();
    health.ready(
        "lease",
        move || if ready.load(Ordering::Acquire) { Ok(()) } else { Err("waits for the ledger's lock or the lease".to_owned()) },
    );
    let admin = Listener::bind(settings.listen_admin)?;
    tasks.spawn(serve_plain(admin, admin_router(health.clone(), metrics.clone()), GRACE, stop.clone()));

    let client = Client::try_default().await.context("no way to the API server")?;
    let Some(ledger) = open(&settings, &stop).await? else { return Ok(()) };
    let floor = match ledger.fence(0).await {
        Ok(()) => 0,
        Err(Refused::Fenced { current, .. }) => current,
        Err(other) => return Err(other).context("reading the ledger's epoch"),
    };
    let mut elector = Elector::new(client.clone(), &settings.common.namespace, &settings.common.pod_name, Timing::default(), floor);
    let Some(leadership) = elector.acquire(&stop).await else { return Ok(()) };
    ledger.fence(leadership.epoch).await.context("raising the ledger's epoch")?;

    let cache = Cache::start(client.clone(), &stop);
    let snapshots = cache.snapshots().clone();
    let fresh = snapshots.clone();
    metrics.register(Box::new(SnapshotAge::new(snapshots.clone())?))?;
    health.ready("views", move || fresh.fresh().map_err(|e| e.to_string()));
    let guards = Guards::start(&client, &settings.common.namespace, &stop);
    let names = CaConfig {
        edge_names: settings.edge_names.iter().filter(|n| !n.is_empty()).cloned().collect(),
        ..CaConfig::new(&settings.common.namespace)
    };
    let ca = CaStore::new(client.clone(), names, clock.clone());
    tasks.spawn(ca.clone().run(stop.clone()));
    let events = Announcer::start(client.clone(), &settings.common.pod_name, clock.now(), &metrics, stop.clone())?;
    let counted = Arc::new(Rollout::new(&metrics)?);
    let gate = Arc::new(Gate {
        ledger: ledger.clone(),
        snapshots: snapshots.clone(),
        guards,
        leadership: leadership.clone(),
        client: client.clone(),
        clock: clock.clone(),
        turns: Turns::default(),
        anchors: Anchors::new(cache.clone(), ledger.clone(), leadership.epoch, &settings.restore),
        events: events.clone(),
        rollout: counted.clone(),
    });
    let queues = Queues::default();
    let runner = Arc::new(Runner::new(
        gate.clone(),
        client.clone(),
        Settings { image: settings.image.clone(), edge_url: settings.edge_base(), pods: settings.pods },
        queues.calls.clone(),
    ));
    let internal = internal::router(Arc::new(Internal { runner: runner.clone(), clock: clock.clone(), stop: stop.clone() }));
    let tls = ca.certs().server_config(&ClientAuth::Required { dns_name: polity_api::names::EDGE.to_owned() })?;
    tasks.spawn(serve_tls(Listener::bind(settings.listen_internal)?, internal, tls, GRACE, stop.clone()));

    tasks.spawn(anchors::keep(gate.clone(), cache.clone(), clock.clone(), Duration::from_secs(settings.anchor_seconds), stop.clone()));
    tasks.spawn(definitions::record(gate.clone(), cache.clone(), stop.clone()));
    let now = clock.clone();
    let settings = context::Settings {
        system_namespace: settings.common.namespace.clone(),
        edge_url: settings.edge_base(),
        ca: bundle(&ca, &stop),
        closing: Arc::new(Closing { runner: runner.clone() }),
        events: events.clone(),
        queues,
        rollout: counted,
        clock: Arc::new(move || now.now()),
    };
    let context = context::Context::new(client.clone(), settings);
    tasks.spawn(rollout::recount(context.clone(), ledger.clone(), stop.clone()));
    let calls = CallContext {
        client: client.clone(),
        store: context.cluster.calls.clone(),
        runner: runner.clone(),
        snapshots: snapshots.clone(),
        events: events.clone(),
        clock: clock.clone(),
    };
    let approvals =
        ApprovalContext { client: client.clone(), store: context.cluster.approvals.clone(), gate, snapshots, events, clock: clock.clone() };
    let controllers = controllers::run_controllers(context, Arc::new(calls), Arc::new(approvals), stop.clone());
    let controllers_stop = stop.clone();
    tasks.spawn(async move {
        if let Err(error) = controllers.await {
            tracing::error!(error = %error, "controllers ended");
        }
        // Core without controllers is no core: whatever ended them, the process ends too.
        controllers_stop.cancel();
    });
    tasks.spawn(dispatch::sweep(runner.clone(), client.clone(), clock.clone(), stop.clone()));
    leads.store(true, Ordering::Release);

    let kept = elector.keep(&leadership, &stop).await;
    tasks.close();
    let _ = tokio::time::timeout(GRACE + Duration::from_secs(2), tasks.wait()).await;
    ledger.close().await;
    if kept {
        elector.release().await;
        return Ok(());
    }
    anyhow::bail!("the lease was lost")
}

/// The CA bundle as the controllers want it: text, or nothing yet.
fn bundle(ca: &CaStore, stop: &CancellationToken) -> tokio::sync::watch::Receiver<Option<String>> {
    let mut changes = ca.bundle_changes();
    let text = |bundle: &Option<Arc<str>>| bundle.as_deref().map(str::to_owned);
    let (send, receive) = tokio::sync::watch::channel(text(&changes.borrow()));
    let stop = stop.clone();
    tokio::spawn(async move {
        while stop.run_until_cancelled(changes.changed()).await.is_some_and(|c| c.is_ok()) {
            let bundle = text(&changes.borrow_and_update());
            if send.send(bundle).is_err() {
                return;
            }
        }
    });
    receive
}

/// Opens the ledger, waiting while another core holds its lock or its server is away.
async fn open(settings: &config::Core, stop: &CancellationToken) -> Result<Option<Ledger>> {
    loop {
        let config = Config::at(settings.ledger(), &settings.common.namespace);
        let opening = tokio::task::spawn_blocking(|| Ledger::open(config, Arc::new(polity_ledger::SystemClock)));
        match opening.await.context("opening the ledger")? {
            Ok(ledger) => return Ok(Some(ledger)),
            Err(OpenError::Store(away @ StoreError::Lost(_))) => tracing::warn!(error = %away, "the ledger's server is away: waiting"),
            Err(OpenError::Locked { .. }) => tracing::info!("another core holds the ledger: waiting"),
            Err(error) => return Err(error).context("opening the ledger"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}
