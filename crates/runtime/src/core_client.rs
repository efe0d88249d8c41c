//! The edge's side of the connection to core: HTTP/2 with mutual TLS, JSON, one method a request.
//!
//! Never turns a failure into permission: whatever is not an answer of the ledger is `LedgerUnavailable`. Sends a request a
//! second time only after `Fenced`, which wrote nothing, and only once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use polity_ledger::{Attempt, Begin, Begun, Held, Hold, Note, Page, Refused, Release, Settle, Settled};
use polity_policy::Known;
use reqwest::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use crate::{
    internal::{
        CancelRequest, Cancels, CancelsRequest, CountedBegin, EPOCH_HEADER, Hello, MAX_WAIT_SECONDS, PREFIX, PastRequest, RecordsRequest,
        RunError, RunRequest, ShimInput, ShimPod, ShimResult, ToolDrifted,
    },
    tls::{Certs, TlsError},
};

/// How to reach core.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// E.g. `https://polity-core.polity-system.svc:8443`, without a path.
    pub url: String,
    /// DNS name that core's certificate must carry, whatever the host in `url` is.
    pub server_name: String,
    /// Longest time to a connection.
    pub connect_timeout: Duration,
    /// Longest time to an answer (waiting for an attempt's end comes on top).
    pub request_timeout: Duration,
}

impl CoreConfig {
    /// The usual times, and the name that core's certificate carries.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            server_name: polity_api::names::CORE.to_owned(),
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(10),
        }
    }
}

/// Speaks with core.
pub struct CoreClient {
    http: ArcSwap<reqwest::Client>,
    /// Connection of those who wait for something to come: they never take the place of a decision.
    waits: ArcSwap<reqwest::Client>,
    certs: Arc<Certs>,
    config: CoreConfig,
    base: String,
    /// Epoch of the last hello; -1 before the first.
    epoch: AtomicI64,
}

impl CoreClient {
    /// A client that presents and trusts what `certs` holds at the time of each connection.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(config: CoreConfig, certs: Arc<Certs>) -> Result<Arc<Self>, TlsError> {
        let http = ArcSwap::from_pointee(build(&config, &certs)?);
        let waits = ArcSwap::from_pointee(build(&config, &certs)?);
        let base = format!("{}{PREFIX}", config.url.trim_end_matches('/'));
        Ok(Arc::new(Self { http, waits, certs, config, base, epoch: AtomicI64::new(-1) }))
    }

    /// Drops kept connections whenever the certificate changes, so that none outlives the certificate it was made with.
    pub async fn renew_connections(self: Arc<Self>, cancel: CancellationToken) {
        let mut changes = self.certs.changes();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            for kept in [&self.http, &self.waits] {
                match build(&self.config, &self.certs) {
                    Ok(client) => kept.store(Arc::new(client)),
                    Err(error) => tracing::error!(%error, "cannot renew the connection to core"),
                }
            }
        }
    }

    /// The epoch of the last hello.
    #[must_use]
    pub fn epoch(&self) -> Option<i64> {
        Some(self.epoch.load(Ordering::Acquire)).filter(|epoch| *epoch >= 0)
    }

    /// Asks for core's epoch and remembers it.
    ///
    /// # Errors
    /// `LedgerUnavailable` when core does not answer.
    pub async fn hello(&self) -> Result<Hello, Refused> {
        let answer = self.send(Method::GET, "/hello", None::<&()>, self.config.request_timeout).await?;
        let hello: Hello = answer.decode()?;
        self.epoch.store(hello.epoch, Ordering::Release);
        Ok(hello)
    }

    /// Reserve without permission to run.
    ///
    /// # Errors
    /// What the ledger refused; `LedgerUnavailable` when core does not answer.
    pub async fn hold(&self, hold: &Hold) -> Result<Held, Refused> {
        self.verb("/hold", hold).await
    }

    /// Start: committed before anything runs.
    ///
    /// # Errors
    /// What the ledger refused; `LedgerUnavailable` when core does not answer. Then it may have been committed: the same
    /// `Begin` sent again answers `again`, otherwise the attempt ends as unknown at its deadline.
    pub async fn begin(&self, begin: &Begin) -> Result<Begun, Refused> {
        self.verb("/begin", begin).await
    }

    /// Start an action that counts. As `begin`.
    ///
    /// # Errors
    /// As `begin`; `Contended` also when what was counted meanwhile changes the verdict: decide again.
    pub async fn begin_counted(&self, begin: &CountedBegin) -> Result<Begun, Refused> {
        self.verb("/begin/counted", begin).await
    }

    /// What counters and history stand at for a call. Reserves nothing.
    ///
    /// # Errors
    /// What core refused; `LedgerUnavailable` when it does not answer.
    pub async fn past(&self, request: &PastRequest) -> Result<Known, Refused> {
        self.verb("/past", request).await
    }

    /// The end of an action that began.
    ///
    /// # Errors
    /// What the ledger refused; `LedgerUnavailable` when core does not answer (the same settlement may be sent again).
    pub async fn settle(&self, settle: &Settle) -> Result<Settled, Refused> {
        self.verb("/settle", settle).await
    }

    /// Give a hold back.
    ///
    /// # Errors
    /// What the ledger refused; `LedgerUnavailable` when core does not answer.
    pub async fn release(&self, release: &Release) -> Result<(), Refused> {
        self.verb::<_, serde_json::Value>("/release", release).await.map(drop)
    }

    /// Tells of a Tool whose server lists another definition than the one pinned.
    ///
    /// # Errors
    /// `LedgerUnavailable` when core does not answer, or cannot write it down.
    pub async fn drifted(&self, told: &ToolDrifted) -> Result<(), Refused> {
        self.verb::<_, serde_json::Value>("/tools/drifted", told).await.map(drop)
    }

    /// A record that reserves nothing. Answered with its sequence, None when the same was recorded before.
    ///
    /// # Errors
    /// What the ledger refused; `LedgerUnavailable` when core does not answer.
    pub async fn note(&self, note: &Note) -> Result<Option<i64>, Refused> {
        self.verb("/note", note).await
    }

    /// Begin a container call and have core start its Pod.
    ///
    /// # Errors
    /// What core refused; `LedgerUnavailable` when core does not answer.
    pub async fn run(&self, run: &RunRequest) -> Result<Begun, Refused> {
        self.verb("/run", run).await
    }

    /// Hands a wish to cancel on: core stops what it runs itself, and tells the edges of everything else.
    ///
    /// # Errors
    /// `LedgerUnavailable` when core does not answer, or could not stop what it runs.
    pub async fn cancel(&self, wish: &CancelRequest) -> Result<(), Refused> {
        self.verb::<_, serde_json::Value>("/cancel", wish).await.map(drop)
    }

    /// Wishes to cancel that other edges were told.
    ///
    /// # Errors
    /// `LedgerUnavailable` when core does not answer.
    pub async fn cancels(&self, request: &CancelsRequest) -> Result<Cancels, Refused> {
        let wait = Duration::from_secs(request.wait.min(MAX_WAIT_SECONDS));
        self.fenced(Method::POST, "/cancels", Some(request), self.config.request_timeout + wait).await?.decode()
    }

    /// An attempt as the ledger knows it, None when it does not. With `wait` the answer comes when the attempt has ended or
    /// the time is over (at most `MAX_WAIT_SECONDS`: call again).
    ///
    /// # Errors
    /// `LedgerUnavailable` when core does not answer.
    pub async fn attempt(&self, org_uid: &str, id: &str, wait: Duration) -> Result<Option<Attempt>, Refused> {
        let wait = wait.as_secs().min(MAX_WAIT_SECONDS);
        let path = format!("/attempts/{}/{}?wait={wait}", segment(org_uid)?, segment(id)?);
        let answer = self.fenced(Method::GET, &path, None::<&()>, self.config.request_timeout + Duration::from_secs(wait)).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.decode().map(Some)
    }

    /// A page of an Org's chain. Who may see it is for the caller to find out first.
    ///
    /// # Errors
    /// `LedgerUnavailable` when core does not answer.
    pub async fn records(&self, org_uid: &str, request: &RecordsRequest) -> Result<Page, Refused> {
        let wait = Duration::from_secs(request.wait.min(MAX_WAIT_SECONDS));
        let path = format!("/records/{}", segment(org_uid)?);
        self.fenced(Method::POST, &path, Some(request), self.config.request_timeout + wait).await?.decode()
    }

    /// The input of a run, for its Pod only.
    ///
    /// # Errors
    /// `NotKnown` (ask again), `AnotherPod`, or what core refused.
    pub async fn run_input(&self, id: &str, pod: &ShimPod) -> Result<ShimInput, RunError> {
        self.of_run(id, "input", pod).await
    }

    /// The result of a run, from its Pod only. The same again is answered the same.
    ///
    /// # Errors
    /// `NotKnown` (ask again), `AnotherPod`, or what core refused.
    pub async fn run_result(&self, id: &str, result: &ShimResult) -> Result<(), RunError> {
        self.of_run::<_, serde_json::Value>(id, "result", result).await.map(drop)
    }

    async fn of_run<B: Serialize + Sync, T: DeserializeOwned>(&self, id: &str, what: &str, body: &B) -> Result<T, RunError> {
        let path = format!("/runs/{}/{what}", segment(id)?);
        let answer = self.fenced(Method::POST, &path, Some(body), self.config.request_timeout).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Err(RunError::NotKnown { id: id.to_owned() }),
            StatusCode::FORBIDDEN => Err(RunError::AnotherPod { id: id.to_owned() }),
            _ => Ok(answer.decode()?),
        }
    }

    async fn verb<B: Serialize + Sync, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Refused> {
        self.fenced(Method::POST, path, Some(body), self.config.request_timeout).await?.decode()
    }

    /// Sends with the known epoch; when core has another, learns it and sends once more.
    async fn fenced<B: Serialize + Sync>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        timeout: Duration,
    ) -> Result<Answer, Refused> {
        if self.epoch().is_none() {
            self.hello().await?;
        }
        let answer = self.send(method.clone(), path, body, timeout).await?;
        if !answer.is_fenced() {
            return Ok(answer);
        }
        self.hello().await?;
        self.send(method, path, body, timeout).await
    }

    async fn send<B: Serialize + Sync>(&self, method: Method, path: &str, body: Option<&B>, timeout: Duration) -> Result<Answer, Refused> {
        let epoch = self.epoch.load(Ordering::Acquire);
        let waits = timeout > self.config.request_timeout;
        let http = if waits { self.waits.load_full() } else { self.http.load_full() };
        let mut request = http.request(method, format!("{}{path}", self.base)).timeout(timeout).header(EPOCH_HEADER, epoch);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(unavailable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unavailable)?;
        Ok(Answer { status, body })
    }
}

/// What core answered.
struct Answer {
    status: StatusCode,
    body: bytes::Bytes,
}

impl Answer {
    fn is_fenced(&self) -> bool {
        self.status == StatusCode::CONFLICT && matches!(serde_json::from_slice(&self.body), Ok(Refused::Fenced { .. }))
    }

    fn decode<T: DeserializeOwned>(&self) -> Result<T, Refused> {
        let what = if self.status.is_success() {
            match serde_json::from_slice(&self.body) {
                Ok(answer) => return Ok(answer),
                Err(error) => format!("core's answer is unreadable: {error}"),
            }
        } else {
            match serde_json::from_slice(&self.body) {
                Ok(refused) if self.status == StatusCode::CONFLICT => return Err(refused),
                _ => format!("core answered {}: {}", self.status, excerpt(&self.body)),
            }
        };
        Err(Refused::LedgerUnavailable { what })
    }
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(200).collect()
}

fn unavailable(error: reqwest::Error) -> Refused {
    Refused::LedgerUnavailable { what: whole(&error.without_url()) }
}

/// The whole chain of causes, since the outermost one says only that something failed.
pub(crate) fn whole(error: &reqwest::Error) -> String {
    let mut what = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        what = format!("{what}: {error}");
        cause = error.source();
    }
    what
}

/// Ids go into a path: only what uids consist of.
fn segment(id: &str) -> Result<&str, Refused> {
    let fits = !id.is_empty() && id.len() <= 253 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits { Ok(id) } else { Err(Refused::Invalid { what: "an id has letters, digits and dashes only".to_owned() }) }
}

fn build(config: &CoreConfig, certs: &Arc<Certs>) -> Result<reqwest::Client, TlsError> {
    let mut tls = certs.client_config(Some(&config.server_name))?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(config.connect_timeout)
        // A half-open connection must not cost every request its full time-out.
        .http2_keep_alive_interval(Duration::from_secs(5))
        .http2_keep_alive_timeout(Duration::from_secs(5))
        .http2_keep_alive_while_idle(true)
        .build()
        .map_err(|source| TlsError::Client(source.to_string()))
}

#[cfg(test)]
#[path = "core_client_tests.rs"]
mod tests;
