//! The lease of core (`polity-core`): at most one process acts at a time, and each holder has an epoch of its own
//! (`leaseTransitions`) that fences everything it writes to the ledger.
//!
//! `machine` decides; this file reads and writes the Lease object. It never judges by wall clock, and never comes back after a loss:
//! losing the lease cancels the root token, and the process exits.

pub mod machine;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use polity_api::names;
use tokio_util::sync::CancellationToken;

pub use machine::Timing;
use machine::{Machine, Seen, Want};

/// One request may take this long; it must be well below `Timing::stop`.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why a round with the API server failed.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("the API server did not answer within {PATIENCE:?}")]
    Silent,
    #[error("reading or writing the lease failed")]
    Kube(#[from] kube::Error),
}

/// The lease as held by this process.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// Epoch: larger than that of every holder before.
    pub epoch: i64,
    origin: Instant,
    until_millis: Arc<AtomicU64>,
}

impl Leadership {
    /// Whether the lease is certainly still ours, by the monotonic clock. Cheap: ask before every effect.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.origin.elapsed() < Duration::from_millis(self.until_millis.load(Ordering::Acquire))
    }
}

/// A candidate, later the holder.
pub struct Elector {
    api: Api<Lease>,
    me: String,
    timing: Timing,
    origin: Instant,
    machine: Machine,
}

impl Elector {
    /// `floor`: the last epoch that the ledger knows (0: a new one).
    #[must_use]
    pub fn new(client: Client, namespace: &str, pod: &str, timing: Timing, floor: i64) -> Self {
        // New with every process, since a restarted one must not take the old one's lease for its own.
        let me = format!("{pod}_{}", uuid::Uuid::new_v4());
        let machine = Machine::new(me.clone(), timing, floor);
        Self { api: Api::namespaced(client, namespace), me, timing, origin: Instant::now(), machine }
    }

    /// Waits until this process holds the lease. None: `shutdown` came first.
    pub async fn acquire(&mut self, shutdown: &CancellationToken) -> Option<Leadership> {
        loop {
            if let Err(error) = self.round().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "lease not acquired yet");
            }
            if let (Some(epoch), Some(until)) = (self.machine.holds(self.origin.elapsed()), self.machine.deadline()) {
                tracing::info!(epoch, holder = %self.me, "lease acquired");
                let until_millis = Arc::new(AtomicU64::new(millis(until)));
                return Some(Leadership { epoch, origin: self.origin, until_millis });
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(self.timing.renew / 2) => {}
            }
        }
    }

    /// Renews until `root` is cancelled or the lease is lost; a loss cancels `root`. Returns whether it is still held.
    pub async fn keep(&mut self, leadership: &Leadership, root: &CancellationToken) -> bool {
        while let Some(deadline) = self.machine.deadline() {
            leadership.until_millis.store(millis(deadline), Ordering::Release);
            let (origin, renew) = (self.origin, self.timing.renew);
            let round = async {
                tokio::time::sleep(renew).await;
                self.round().await
            };
            tokio::select! {
                biased;
                () = root.cancelled() => return true,
                () = tokio::time::sleep_until((origin + deadline).into()) => break,
                result = round => if let Err(error) = result {
                    tracing::warn!(error = &error as &dyn std::error::Error, "lease not renewed");
                },
            }
        }
        self.machine.give_up();
        leadership.until_millis.store(0, Ordering::Release);
        tracing::error!(holder = %self.me, "lease lost: stopping");
        root.cancel();
        false
    }

    /// Lets the next candidate start at once. Call it only after everything that acts under the lease has stopped.
    pub async fn release(mut self) {
        self.machine.give_up();
        let api = self.api.clone();
        let release = async {
            let mut lease = api.get(names::LEASE).await?;
            if let Some(spec) = lease.spec.as_mut().filter(|s| s.holder_identity.as_deref() == Some(&self.me)) {
                spec.holder_identity = None;
                api.replace(names::LEASE, &params(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(PATIENCE, release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "lease not released; it expires by itself"),
            Err(_) => tracing::warn!("lease not released in time; it expires by itself"),
        }
    }

    /// One read, and the write that follows from it.
    async fn round(&mut self) -> Result<(), RoundError> {
        let read = in_time(self.api.get_opt(names::LEASE)).await?;
        let want = self.machine.read(self.origin.elapsed(), read.as_ref().map(seen));
        let (epoch, lease, holds) = match want {
            Want::Wait => return Ok(()),
            Want::Create { epoch, holds } => (epoch, self.record(epoch, None), holds),
            Want::Replace { version, transitions } => (transitions, self.record(transitions, Some(version)), true),
        };
        let sent = self.origin.elapsed();
        if lease.metadata.resource_version.is_some() {
            in_time(self.api.replace(names::LEASE, &params(), &lease)).await?;
        } else {
            in_time(self.api.create(&params(), &lease)).await?;
        }
        if holds {
            self.machine.written(sent, epoch);
        }
        Ok(())
    }

    fn record(&self, epoch: i64, version: Option<String>) -> Lease {
        // The wall clock is for people who look at the object; nobody compares it.
        let now = Some(MicroTime(Timestamp::now()));
        Lease {
            metadata: ObjectMeta { name: Some(names::LEASE.to_owned()), resource_version: version, ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: i32::try_from(self.timing.duration.as_secs().max(1)).ok(),
                lease_transitions: i32::try_from(epoch).ok(),
                renew_time: now,
                ..LeaseSpec::default()
            }),
        }
    }
}

async fn in_time<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, RoundError> {
    tokio::time::timeout(PATIENCE, request).await.map_err(|_| RoundError::Silent)?.map_err(RoundError::Kube)
}

fn params() -> PostParams {
    PostParams { field_manager: Some(names::CORE.to_owned()), ..PostParams::default() }
}

fn seen(lease: &Lease) -> Seen {
    let spec = lease.spec.clone().unwrap_or_default();
    Seen {
        holder: spec.holder_identity.filter(|h| !h.is_empty()),
        transitions: i64::from(spec.lease_transitions.unwrap_or_default()),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
