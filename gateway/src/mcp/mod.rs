//! `/v1/orgs/{org}/mcp`: an Org's Tools for MCP clients, over streamable HTTP by the official SDK.
//!
//! Another door to the same house: who asks is found out for each request, and a `tools/call` is the call that `POST calls` makes. Nothing is kept
//! of a session but its name, so any replica answers any request, and a token that is revoked is refused with the next one. Resources are the caller's own
//! calls and what they wait for. This part never decides and never runs anything itself.

mod list;
mod meta;
mod resources;
mod result;
mod server;
mod session;

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Path, Request, State, rejection::PathRejection},
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager};

use crate::{
    body::{self, MAX_BODY},
    calls::org_of,
    decide::busy,
    problem::Problem,
    state::Gateway,
};

use server::Server;
use session::Message;

/// How often a stream that has nothing to say shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One MCP request over HTTP.
pub async fn serve(
    State(gateway): State<Arc<Gateway>>,
    org: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let caller = gateway.caller(request.headers()).await?;
    let org = org_of(org)?;
    let (parts, body) = request.into_parts();
    let body = match parts.method {
        Method::POST => body::bounded(&parts.headers, body, MAX_BODY).await?,
        _ => Bytes::new(),
    };
    let (message, session) = (Message::of(&body), session::named(&parts.headers));
    if let (Message::Cancelled(request), Some(session)) = (&message, &session) {
        // A view that is not there has nothing under way.
        if let Ok(view) = gateway.view(&org) {
            let _slot = gateway.call_slots.try_acquire().map_err(|_| busy())?;
            gateway.cancel_under_way(view.org_uid(), session::key(view.org_uid(), &caller.username, session, request)).await?;
        }
    }
    let traceparent = parts.headers.get("traceparent").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let config = StreamableHttpServerConfig::default()
        .with_allowed_hosts(gateway.names.iter().map(|name| authority(name)))
        // No page of any site may speak for whoever looks at it.
        .enforce_origin_validation()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_sse_keep_alive(Some(KEEP_ALIVE))
        .with_max_request_body_bytes(MAX_BODY);
    let server = Server::new(gateway, org, caller, traceparent, session);
    let service = StreamableHttpService::new(move || Ok(server.clone()), Arc::new(NeverSessionManager::default()), config);
    let mut response = service.handle(Request::from_parts(parts, Body::from(body))).await.into_response();
    if message == Message::Initialize
        && response.status() == StatusCode::OK
        && let Some(name) = session::new(rand::random())
    {
        response.headers_mut().insert(session::HEADER, name);
    }
    Ok(response)
}

/// A name as it stands in a `Host` header.
fn authority(name: &str) -> String {
    match name.parse() {
        Ok(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        _ => name.to_owned(),
    }
}
