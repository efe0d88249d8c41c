//! Runs one call of a Tool with runtime `http`: where to, what to send, one try after another, and what the answer means.
//!
//! The host is resolved once and the connection goes to that very address; every address is judged by `Egress` first. No redirect is
//! followed, no proxy used, nothing beyond 1 MiB read, nothing goes on after the Tool's time-out. It runs only what the ledger has begun;
//! that is its caller's part. It never logs inputs, outputs or header values.

pub(crate) mod answer;
pub mod room;
pub(crate) mod send;
mod target;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use polity_api::reasons;
use polity_ledger::Outcome;
use polity_policy::ToolFacts;
use serde_json::Value;

use crate::egress::Egress;
pub use target::Roots;

/// Tries of a call whose Tool is idempotent.
const TRIES: u32 = 3;
/// Pause before the second try; doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// What must be asked of others for a call.
pub trait Lookup: Send + Sync {
    /// Addresses of a host name.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>>;
    /// Cluster address of a Service.
    fn service<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<IpAddr, String>>;
    /// Value of a key of a Secret.
    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str, key: &'a str) -> BoxFuture<'a, Result<String, String>>;
}

/// Runs `http` Tools.
pub struct HttpTools {
    /// Lookups.
    pub lookup: Arc<dyn Lookup>,
    /// What may be connected to; None until the cluster's own ranges are known: nothing outside is connected to before.
    pub egress: Arc<ArcSwapOption<Egress>>,
    /// Certificates trusted where a Tool names none.
    pub roots: Roots,
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The Tool as decided on.
    pub tool: &'a ToolFacts,
    /// Its input.
    pub input: &'a Value,
    /// W3C traceparent.
    pub trace: &'a str,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Ran {
    /// Whether it took effect.
    pub outcome: Outcome,
    /// Stable reason code; empty when all is well.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// What came out.
    pub output: Option<Value>,
    /// HTTP status, when the endpoint answered.
    pub status: Option<u16>,
}

impl Ran {
    pub(crate) fn not_done(reason: &'static str, message: impl Into<String>) -> Self {
        Self { outcome: Outcome::NotDone, reason, message: message.into(), output: None, status: None }
    }
}

/// How often a call is tried, and until when.
#[derive(Debug)]
pub(crate) struct Tries {
    left: u32,
    pause: Duration,
    deadline: Instant,
}

impl Tries {
    /// One try, or a few when the Tool is idempotent.
    pub fn new(idempotent: bool, deadline: Instant) -> Self {
        Self { left: if idempotent { TRIES } else { 1 }, pause: PAUSE, deadline }
    }

    /// Time that is left.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// After a try: waits and says yes if there is to be another.
    pub async fn again(&mut self, may_pass: bool) -> bool {
        self.left -= 1;
        if !may_pass || self.left == 0 || Instant::now() + self.pause >= self.deadline {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause *= 2;
        true
    }
}

impl HttpTools {
    /// Runs the call to its end, within the Tool's time-out.
    pub async fn run(&self, call: Call<'_>) -> Ran {
        let timeout = Duration::from_secs(u64::try_from(call.tool.spec.timeout_seconds).unwrap_or(1).max(1));
        let deadline = Instant::now() + timeout;
        let prepared = tokio::time::timeout(timeout, self.prepare(call)).await;
        let request = match prepared {
            Ok(Ok(request)) => request,
            Ok(Err(ran)) => return ran,
            Err(_) => return Ran::not_done(reasons::TIMED_OUT, format!("no address of the endpoint within {} s", timeout.as_secs())),
        };
        let mut tries = Tries::new(call.tool.spec.idempotent, deadline);
        loop {
            let last = request.send(tries.left()).await;
            if !tries.again(last.may_pass()).await {
                return answer::judge(last, call.tool, timeout, &request.secrets);
            }
        }
    }

    async fn prepare(&self, call: Call<'_>) -> Result<send::Request, Ran> {
        let http =
            call.tool.spec.runtime.http.as_ref().ok_or_else(|| Ran::not_done(reasons::TOOL_NOT_READY, "the Tool has no http runtime"))?;
        send::Request::build(self, call, http).await
    }
}

#[cfg(test)]
mod tests;
