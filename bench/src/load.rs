//! A load of HTTPS posts from one thread: closed loop, connections kept or made anew after some requests. It checks every answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Where to send, and what.
#[derive(Clone)]
pub struct Target {
    /// Of the server.
    pub address: SocketAddr,
    /// With query.
    pub path: String,
    /// Trusts the server's certificate for `localhost`.
    pub tls: Arc<ClientConfig>,
    /// JSON.
    pub body: Bytes,
    /// What a right answer contains.
    pub expect: &'static str,
    /// Token of whoever asks; none when empty.
    pub bearer: &'static str,
}

/// How to send.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Connections at a time.
    pub connections: usize,
    /// Requests after which a connection is closed and another made.
    pub churn: Option<u32>,
}

/// What came back.
pub struct Answered {
    /// Requests with a right answer.
    pub requests: u64,
    /// From send to the last byte, sorted.
    pub latencies: Vec<Duration>,
}

impl Answered {
    /// The latency that this share of requests (0 to 1) did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        // An index: non-negative and far below 2^52.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = ((self.latencies.len() as f64 * share) as usize).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

/// Sends for so long.
///
/// # Errors
/// When a connection fails or an answer is wrong: a load in which something failed measures nothing.
pub async fn send(target: &Target, shape: Shape, duration: Duration) -> Result<Answered> {
    let until = Instant::now() + duration;
    let mut tasks = JoinSet::new();
    for _ in 0..shape.connections {
        let target = target.clone();
        tasks.spawn(async move { one_by_one(&target, shape.churn, until).await });
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done.context("a sender panicked")??);
    }
    latencies.sort_unstable();
    Ok(Answered { requests: latencies.len() as u64, latencies })
}

/// Sends a single request and answers the body.
///
/// # Errors
/// When the server does not answer with 200.
pub async fn ask(target: &Target) -> Result<String> {
    let mut sender = connect(target).await?;
    post(&mut sender, target).await
}

async fn one_by_one(target: &Target, churn: Option<u32>, until: Instant) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let mut sender = connect(target).await?;
        let mut left = churn.unwrap_or(u32::MAX);
        while left > 0 && Instant::now() < until {
            let sent = Instant::now();
            let body = post(&mut sender, target).await?;
            latencies.push(sent.elapsed());
            ensure!(body.contains(target.expect), "expected {} in the answer: {body}", target.expect);
            left -= 1;
        }
    }
    Ok(latencies)
}

async fn connect(target: &Target) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(target.address).await.with_context(|| format!("connect to {}", target.address))?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    let stream = TlsConnector::from(target.tls.clone()).connect(name, stream).await.context("TLS handshake")?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.context("HTTP handshake")?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn post(sender: &mut SendRequest<Full<Bytes>>, target: &Target) -> Result<String> {
    sender.ready().await?;
    let mut request =
        http::Request::post(&target.path).header(http::header::HOST, "localhost").header(http::header::CONTENT_TYPE, "application/json");
    if !target.bearer.is_empty() {
        request = request.header(http::header::AUTHORIZATION, format!("Bearer {}", target.bearer));
    }
    let request = request.body(Full::new(target.body.clone()))?;
    let response = sender.send_request(request).await.context("send")?;
    let status = response.status();
    let body = String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?;
    if status != http::StatusCode::OK {
        bail!("status {status}: {body}");
    }
    Ok(body)
}
