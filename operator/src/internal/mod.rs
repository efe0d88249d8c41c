//! Core's server for the edge: the ledger's verbs behind the gate, runs of container tools, and their shims' input and results.
//! Mutual TLS: only a certificate of our CA that names the edge gets in. Never reached by agents or people.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use polity_ledger::{Begin, Hold, Note, OrgId, Refused, Release, Settle};
use polity_runtime::{
    clock::Clock,
    internal::{
        CancelRequest, CancelsRequest, CountedBegin, EPOCH_HEADER, Hello, MAX_WAIT_SECONDS, PREFIX, PastRequest, RunRequest, ShimPod,
        ShimResult, ToolDrifted,
    },
    subject,
};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

mod records;

use crate::dispatch::{
    Runner,
    outcome::Run,
    runner::{ShimError, StartError, SweepError},
};

/// A shim's result has at most 1 MiB of stdout and 64 KiB of stderr, which JSON may escape.
const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// What the routes share.
pub struct Internal {
    /// Runner and, in it, the gate.
    pub runner: Arc<Runner>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ends questions that wait.
    pub stop: CancellationToken,
}

/// The router.
pub fn router(state: Arc<Internal>) -> Router {
    let routes = Router::new()
        .route("/hello", get(hello))
        .route("/hold", post(hold))
        .route("/begin", post(begin))
        .route("/begin/counted", post(begin_counted))
        .route("/past", post(past))
        .route("/settle", post(settle))
        .route("/release", post(release))
        .route("/note", post(note))
        .route("/run", post(run))
        .route("/tools/drifted", post(drifted))
        .route("/cancel", post(cancel))
        .route("/cancels", post(cancels))
        .route("/attempts/{org}/{id}", get(attempt))
        .route("/records/{org}", post(records::page))
        .route("/runs/{id}/input", post(input))
        .route("/runs/{id}/result", post(result))
        .layer(middleware::from_fn_with_state(state.clone(), fence))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(state);
    Router::new().nest(PREFIX, routes)
}

/// A refusal as an answer: 409 with the ledger's own words, 503 when nothing can be said.
struct Answer(Refused);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = match &self.0 {
            Refused::LedgerUnavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Refused::NotFound { .. } => StatusCode::NOT_FOUND,
            Refused::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::CONFLICT,
        };
        (status, Json(self.0)).into_response()
    }
}

/// Refuses a request that believes in another leader's epoch. `hello` tells the epoch and is never fenced.
async fn fence(State(state): State<Arc<Internal>>, headers: HeaderMap, request: Request, next: Next) -> Response {
    let current = state.runner.gate.epoch();
    let claimed = headers.get(EPOCH_HEADER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<i64>().ok());
    if request.uri().path().ends_with("/hello") || claimed == Some(current) {
        return next.run(request).await;
    }
    Answer(Refused::Fenced { epoch: claimed.unwrap_or(-1), current }).into_response()
}

async fn hello(State(state): State<Arc<Internal>>) -> Json<Hello> {
    Json(Hello { epoch: state.runner.gate.epoch(), ready: true })
}

async fn hold(State(state): State<Arc<Internal>>, Json(body): Json<Hold>) -> Response {
    answer(state.runner.gate.hold(body, None).await)
}

async fn begin(State(state): State<Arc<Internal>>, Json(body): Json<Begin>) -> Response {
    answer(state.runner.gate.begin(body, None).await)
}

async fn begin_counted(State(state): State<Arc<Internal>>, Json(body): Json<CountedBegin>) -> Response {
    answer(state.runner.gate.begin(body.begin, Some(&body.facts)).await)
}

async fn past(State(state): State<Arc<Internal>>, Json(body): Json<PastRequest>) -> Response {
    answer(state.runner.gate.past(&body).await)
}

async fn settle(State(state): State<Arc<Internal>>, Json(body): Json<Settle>) -> Response {
    let id = body.id.clone();
    let settled = state.runner.gate.settle(body).await;
    if settled.is_ok() {
        state.runner.announce(&id);
    }
    answer(settled)
}

async fn release(State(state): State<Arc<Internal>>, Json(body): Json<Release>) -> Response {
    answer(state.runner.gate.release(body).await)
}

async fn note(State(state): State<Arc<Internal>>, Json(body): Json<Note>) -> Response {
    answer(state.runner.gate.note(body).await)
}

fn answer<T: serde::Serialize>(result: Result<T, Refused>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(refused) => Answer(refused).into_response(),
    }
}

async fn run(State(state): State<Arc<Internal>>, Json(body): Json<RunRequest>) -> Response {
    let subject_ = &body.begin.subject;
    let snapshot = state.runner.gate.snapshots.find(&subject_.org.uid, &subject_.snapshot);
    let Some(snapshot) = snapshot else { return Answer(Refused::StaleSnapshot { digest: subject_.snapshot.clone() }).into_response() };
    let mut tools = snapshot.path().iter().filter_map(|org| snapshot.tool(&body.tool.name, Some(org)));
    let tool = tools.find(|t| t.namespace == body.tool.namespace && t.digest == body.tool.digest);
    let Some((tool, container)) = tool.as_ref().and_then(|t| Some((t, t.spec.runtime.container.as_ref()?))) else {
        let what = format!("{}/{} is no container Tool of the view that decided", body.tool.namespace, body.tool.name);
        return Answer(Refused::Invalid { what }).into_response();
    };
    let run = Run {
        id: subject_.id.clone(),
        org: subject_.org.clone(),
        namespace: snapshot.namespace().to_owned(),
        tool: (tool.namespace.clone(), tool.name.clone()),
        container: container.clone(),
        output_schema: tool.spec.output_schema.clone(),
        timeout_seconds: tool.spec.timeout_seconds,
        idempotent: tool.spec.idempotent,
        input: subject_.input.clone(),
        reserve: subject::reserve(tool),
        call: None,
        trace: subject_.trace.clone(),
        obligations: body.obligations,
    };
    let begin = Begin { reserve: run.reserve.clone(), ..body.begin };
    match state.runner.start(&run, begin, body.facts.as_ref(), state.clock.now()).await {
        Ok((begun, _)) => Json(begun).into_response(),
        Err(StartError::Refused(refused)) => Answer(refused).into_response(),
        Err(StartError::PodRefused(what)) => Answer(Refused::PodRefused { what }).into_response(),
        Err(StartError::NoPodRuntime) => Answer(Refused::NoPodRuntime).into_response(),
        Err(error @ StartError::Api(_)) => Answer(Refused::LedgerUnavailable { what: error.to_string() }).into_response(),
    }
}

async fn drifted(State(state): State<Arc<Internal>>, Json(body): Json<ToolDrifted>) -> Response {
    match crate::tool::drift::note(&state.runner.gate.client, &body, state.clock.now()).await {
        Ok(()) => Json(()).into_response(),
        Err(error) => Answer(Refused::LedgerUnavailable { what: error.to_string() }).into_response(),
    }
}

async fn cancel(State(state): State<Arc<Internal>>, Json(body): Json<CancelRequest>) -> Response {
    let org = OrgId { name: String::new(), uid: body.org };
    match state.runner.cancel_any(&org, &body.key).await {
        Ok(()) => Json(()).into_response(),
        Err(SweepError::Refused(refused)) => Answer(refused).into_response(),
        Err(error @ SweepError::Api(_)) => Answer(Refused::LedgerUnavailable { what: error.to_string() }).into_response(),
    }
}

async fn cancels(State(state): State<Arc<Internal>>, Json(body): Json<CancelsRequest>) -> Response {
    let longest = Duration::from_secs(body.wait.min(MAX_WAIT_SECONDS));
    let told = state.runner.cancels.after(&body, state.runner.gate.epoch(), longest);
    tokio::select! {
        page = told => Json(page).into_response(),
        () = state.stop.cancelled() => Answer(Refused::LedgerUnavailable { what: "core stops".to_owned() }).into_response(),
    }
}

#[derive(Deserialize)]
struct Wait {
    #[serde(default)]
    wait: u64,
}

async fn attempt(State(state): State<Arc<Internal>>, Path((org, id)): Path<(String, String)>, Query(query): Query<Wait>) -> Response {
    let org = OrgId { name: String::new(), uid: org };
    let longest = Duration::from_secs(query.wait.min(MAX_WAIT_SECONDS));
    match state.runner.wait(&org, &id, longest).await {
        Ok(Some(attempt)) => Json(attempt).into_response(),
        Ok(None) => Answer(Refused::NotFound { id }).into_response(),
        Err(refused) => Answer(refused).into_response(),
    }
}

async fn input(State(state): State<Arc<Internal>>, Path(id): Path<String>, Json(pod): Json<ShimPod>) -> Response {
    shim(&id, state.runner.input(&id, &pod, state.clock.now()).await)
}

async fn result(State(state): State<Arc<Internal>>, Path(id): Path<String>, Json(body): Json<ShimResult>) -> Response {
    shim(&id, state.runner.result(&id, &body).await)
}

fn shim<T: serde::Serialize>(id: &str, result: Result<T, ShimError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(ShimError::NotKnown) => Answer(Refused::NotFound { id: id.to_owned() }).into_response(),
        Err(ShimError::OtherPod) => StatusCode::FORBIDDEN.into_response(),
        Err(ShimError::Refused(refused)) => Answer(refused).into_response(),
        Err(error @ ShimError::Api(_)) => Answer(Refused::LedgerUnavailable { what: error.to_string() }).into_response(),
    }
}
