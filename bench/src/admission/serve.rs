//! The two servers of ours: the edge's admission server over a fixed organisation, and the limit beside it, which reads the
//! same review into the same types and always allows. Both serve with the code that the edge serves with.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::UserInfo;
use polity_api::{ToolCall, reasons};
use polity_ledger::Note;
use polity_policy::{Snapshot, TaskFacts, World};
use polity_runtime::CancellationToken;
use polity_runtime::serve::{Listener, serve_tls};
use polity_webhook::outcome::Accepted;
use polity_webhook::review::{Review, answer};
use polity_webhook::{Attempts, Cluster, Metrics, Permission, State, SystemClock, Unavailable, Views};

use super::organisation;
use crate::certs::Certs;

/// Serves what a bench asks for on a free port, which it prints, until stdin ends: `echo` and `polity:POLICIES` for admission, `evaluate-echo` and
/// `evaluate` for the gateway.
///
/// # Errors
/// When it cannot serve.
pub fn serve(what: &str, folder: &Path) -> Result<()> {
    let cancel = CancellationToken::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _within = runtime.enter();
    let router = match what.split_once(':') {
        None if what == "echo" => Router::new().route("/validate", post(echo)),
        None if what == "evaluate-echo" => crate::gateway::echo(),
        None if what == "evaluate" => crate::gateway::edge(folder, &cancel)?,
        Some(("polity", policies)) => polity_webhook::router(state(policies.parse()?)?),
        _ => bail!("nothing that is served: {what}"),
    };
    let tls = Certs::in_folder(folder).server()?;
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let ended = cancel.clone();
    std::thread::spawn(move || {
        let _until_closed = std::io::stdin().read_to_end(&mut Vec::new());
        ended.cancel();
    });
    println!("{}", listener.address());
    std::io::stdout().flush()?;
    Ok(runtime.block_on(serve_tls(listener, router, tls, Duration::ZERO, cancel))?)
}

async fn echo(body: Bytes) -> Response {
    let read = || -> Result<_> {
        let review: Review<'_> = serde_json::from_slice(&body)?;
        let request = review.request.context("no request")?;
        let _typed: ToolCall = request.new_object().map_err(|refusal| anyhow::anyhow!(refusal.text()))?;
        Ok(Json(answer(&request, Ok(Accepted::default()))).into_response())
    };
    read().unwrap_or_else(|error| (http::StatusCode::BAD_REQUEST, error.to_string()).into_response())
}

fn state(policies: usize) -> Result<State> {
    let world = Arc::new(organisation::world(policies));
    let fixed = Arc::new(Fixed { snapshot: Arc::new(Snapshot::build(&world, organisation::NAMESPACE)), world });
    let metrics = Metrics::new(&prometheus::Registry::new())?;
    let clock = Arc::new(SystemClock);
    Ok(State {
        views: fixed.clone(),
        cluster: fixed.clone(),
        attempts: fixed,
        clock,
        system_namespace: "polity-system".to_owned(),
        metrics,
    })
}

/// An organisation that nothing changes. Questions to a cluster are refused: the review needs none.
struct Fixed {
    snapshot: Arc<Snapshot>,
    world: Arc<World>,
}

impl Views for Fixed {
    fn of_namespace(&self, _namespace: &str) -> Result<Arc<Snapshot>, Unavailable> {
        Ok(self.snapshot.clone())
    }

    fn world(&self) -> Arc<World> {
        self.world.clone()
    }
}

impl Cluster for Fixed {
    fn may<'a>(&'a self, _user: &'a UserInfo, _permission: &'a Permission) -> BoxFuture<'a, Result<bool, Unavailable>> {
        async { Err(no_cluster()) }.boxed()
    }

    fn task<'a>(&'a self, _namespace: &'a str, _name: &'a str) -> BoxFuture<'a, Result<Option<TaskFacts>, Unavailable>> {
        async { Err(no_cluster()) }.boxed()
    }

    fn tool_appeared<'a>(&'a self, _namespace: &'a str, _name: &'a str) -> BoxFuture<'a, bool> {
        async { false }.boxed()
    }
}

fn no_cluster() -> Unavailable {
    Unavailable { reason: reasons::ADMISSION_FAILED, message: "a bench has no cluster".to_owned() }
}

impl Attempts for Fixed {
    fn take(&self, _note: Note) {}
}
