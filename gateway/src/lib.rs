//! The edge's server for agents and tool Pods, and its executor of `http` and `mcp` calls.
//!
//! A request is decided on the Org's present view, begun in core's ledger, run, settled, answered. Nothing here keeps state that matters: what must
//! last is in the ledger or in a ToolCall. It writes to Kubernetes the ToolCall of a call that must wait, and claim, decision and result of the
//! stored calls that it runs; nothing else.

mod answer;
mod body;
mod calls;
pub mod cluster;
pub mod core;
mod decide;
pub mod egress;
mod evaluate;
mod events;
mod execute;
pub mod executor;
pub mod http_tool;
mod id;
mod mcp;
pub mod mcp_tool;
mod metrics;
mod objects;
mod observed;
mod openapi;
mod problem;
mod records;
mod shim;
mod state;
mod trace;
mod under_way;

use std::sync::Arc;

use axum::{
    Json, Router,
    http::StatusCode,
    routing::{MethodRouter, any, get, post},
};
use polity_api::reasons;

pub use events::Limits as StreamLimits;
pub use id::belongs as is_call_id;
pub use metrics::Metrics;
pub use problem::Problem;
pub use state::{Gateway, Replica, Settings};
pub use under_way::hear_cancels;

/// Routes of the server. Serve it over TLS with Polity's certificate.
pub fn router(gateway: Arc<Gateway>) -> Router {
    let routed = routes().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    routed
        .fallback(|| async { Problem::not_found("no such path; GET /openapi.json lists them") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, reasons::INVALID_REQUEST, "this path does not take that method")
        })
        .layer(axum::middleware::from_fn_with_state(gateway.clone(), metrics::count))
        .with_state(gateway)
}

fn routes() -> Vec<(&'static str, MethodRouter<Arc<Gateway>>)> {
    vec![
        ("/v1/orgs/{org}/calls", post(calls::create)),
        ("/v1/orgs/{org}/calls/{id}", get(calls::read)),
        ("/v1/orgs/{org}/calls/{id}/cancel", post(calls::cancel)),
        ("/v1/orgs/{org}/evaluate", post(evaluate::of_org)),
        ("/v1/evaluate", post(evaluate::any_org)),
        ("/v1/orgs/{org}/mcp", any(mcp::serve)),
        ("/v1/orgs/{org}/records", get(records::read)),
        ("/v1/orgs/{org}/events", get(events::follow)),
        ("/v1/orgs/{org}/tools/{tool}/definition", get(observed::read)),
        ("/shim/v1/runs/{id}/input", get(shim::input)),
        ("/shim/v1/runs/{id}/result", post(shim::result)),
        ("/openapi.json", get(|| async { Json(openapi::document()) })),
    ]
}
