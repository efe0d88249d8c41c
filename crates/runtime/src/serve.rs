//! HTTP servers: TLS with the certificate in force, and the plain one for health and metrics. Each ends when its token is
//! cancelled: no new connection, requests in flight get a time to finish.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use axum_server::{
    Handle,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto::Builder,
};
use prometheus::{Registry, TextEncoder};
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::health::Health;

/// Why a server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The server ended by itself.
    #[error("the server on {address} failed")]
    Serve {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// A connection whose peer takes nothing of what is sent for so long is closed: whoever does not read cannot hold what was written for him.
const UNREAD: Duration = Duration::from_secs(60);

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// A socket that listens already, so that its port is known (`:0` in tests) and connections queue before serving begins.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let fail = |source| ServeError::Bind { address, source };
        let socket = std::net::TcpListener::bind(address).map_err(fail)?;
        socket.set_nonblocking(true).map_err(fail)?;
        // Accepted connections inherit it (tcp(7)).
        rustix::net::sockopt::set_tcp_user_timeout(&socket, millis(UNREAD)).map_err(|e| fail(e.into()))?;
        let address = socket.local_addr().map_err(fail)?;
        Ok(Self { socket, address })
    }

    /// The address in force.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves over TLS until cancelled; then waits up to `grace` for requests in flight. Handlers find the peer's address in
/// `ConnectInfo<SocketAddr>`.
///
/// # Errors
/// When the socket fails.
pub async fn serve_tls(
    listener: Listener,
    router: Router,
    tls: ServerConfig,
    grace: Duration,
    cancel: CancellationToken,
) -> Result<(), ServeError> {
    let address = listener.address;
    let fail = |source| ServeError::Serve { address, source };
    let handle = Handle::new();
    let _stop = stop_with(&handle, cancel, grace);
    let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(Arc::new(tls))).handshake_timeout(Duration::from_secs(5));
    let mut server = axum_server::from_tcp(listener.socket).map_err(fail)?.acceptor(acceptor).handle(handle);
    be_impatient(server.http_builder());
    server.serve(router.into_make_service_with_connect_info::<SocketAddr>()).await.map_err(fail)
}

/// Serves plain HTTP until cancelled; then waits up to `grace` for requests in flight.
///
/// # Errors
/// When the socket fails.
pub async fn serve_plain(listener: Listener, router: Router, grace: Duration, cancel: CancellationToken) -> Result<(), ServeError> {
    let address = listener.address;
    let fail = |source| ServeError::Serve { address, source };
    let handle = Handle::new();
    let _stop = stop_with(&handle, cancel, grace);
    let mut server = axum_server::from_tcp(listener.socket).map_err(fail)?.handle(handle);
    be_impatient(server.http_builder());
    server.serve(router.into_make_service_with_connect_info::<SocketAddr>()).await.map_err(fail)
}

/// Who opens a connection and says nothing, or stops answering, is let go.
fn be_impatient(builder: &mut Builder<TokioExecutor>) {
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Some(Duration::from_secs(10)));
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(20))).keep_alive_timeout(Duration::from_secs(10));
}

/// Stops the server behind the handle when cancelled. The task ends with the guard: a server that failed leaves none behind.
fn stop_with(handle: &Handle<SocketAddr>, cancel: CancellationToken, grace: Duration) -> tokio_util::task::AbortOnDropHandle<()> {
    let handle = handle.clone();
    tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        cancel.cancelled().await;
        handle.graceful_shutdown(Some(grace));
    }))
}

/// `/healthz`, `/readyz` (the body names each check that fails) and `/metrics`.
pub fn admin_router(health: Health, metrics: Registry) -> Router {
    Router::new()
        .route("/healthz", get(|State((health, _)): State<(Health, Registry)>| async move { told(health.is_live()) }))
        .route("/readyz", get(|State((health, _)): State<(Health, Registry)>| async move { told(health.is_ready()) }))
        .route("/metrics", get(|State((_, metrics)): State<(Health, Registry)>| async move { exposition(&metrics) }))
        .with_state((health, metrics))
}

fn told(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => "ok\n".into_response(),
        Err(what) => (StatusCode::SERVICE_UNAVAILABLE, what).into_response(),
    }
}

fn exposition(metrics: &Registry) -> Response {
    match TextEncoder::new().encode_to_string(&metrics.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
