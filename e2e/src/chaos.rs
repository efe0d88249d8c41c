//! Faults that tests bring on: core killed at a point of its own or at any moment, its lease freed once it is known to be dead, the API
//! server frozen; and putting everything back in order afterwards. Judges nothing.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::future::LocalBoxFuture;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    cluster::{Cluster, SYSTEM},
    parts::{Part, Polity},
};

/// Core's lease.
const LEASE: &str = "polity-core";
/// Variable that names the point at which core kills itself.
const POINT: &str = "POLITY_KILL_AT";
/// How long core may take to reach a point.
const REACH: Duration = Duration::from_secs(90);

/// The lease as it is: its holder, if any, and its epoch.
///
/// # Errors
/// It cannot be read.
pub async fn lease(cluster: &Cluster) -> Result<(Option<String>, i32)> {
    let lease = leases(cluster).await?.get(LEASE).await?.spec.unwrap_or_default();
    Ok((lease.holder_identity, lease.lease_transitions.unwrap_or_default()))
}

/// Takes the lease from a holder that is dead, so that the next core need not wait until it expires. Never call it while one runs.
///
/// # Errors
/// It cannot be written.
pub async fn free_lease(cluster: &Cluster) -> Result<()> {
    let free = json!({"spec": {"holderIdentity": null}});
    leases(cluster).await?.patch(LEASE, &PatchParams::default(), &Patch::Merge(free)).await.map(drop).context("freeing the lease")
}

async fn leases(cluster: &Cluster) -> Result<Api<Lease>> {
    Ok(Api::namespaced(cluster.admin().await?, SYSTEM))
}

/// Kills core if it runs and starts it again, to be killed at `point` if one is given. Does not wait.
///
/// # Errors
/// As for each step.
pub async fn reborn(cluster: &Cluster, core: &mut Part, point: Option<&str>) -> Result<()> {
    core.kill()?;
    match point {
        Some(point) => core.set(POINT, point),
        None => core.unset(POINT),
    }
    free_lease(cluster).await?;
    core.start()
}

/// Waits until core has killed itself at `point`. Its own exit is another thing, and fails.
///
/// # Errors
/// It still runs, or has ended otherwise.
pub async fn dies(core: &mut Part, point: &str) -> Result<()> {
    core.ended(REACH).await.with_context(|| format!("core did not reach {point}: is the server built with the feature killpoints?"))?;
    ensure!(core.killed(), "core ended by itself before {point}:\n{}", core.log_tail());
    Ok(())
}

/// Runs a test that breaks things, and puts both parts back in order, however it ended.
///
/// # Errors
/// What the test says, or the parts do not come back.
pub async fn mended<F>(polity: &mut Polity, test: F) -> Result<()>
where
    F: for<'a> FnOnce(&'a mut Polity) -> LocalBoxFuture<'a, Result<()>>,
{
    let result = test(polity).await;
    if result.is_err() || !polity.core.running() {
        reborn(&polity.cluster, &mut polity.core, None).await?;
    }
    if !polity.edge.running() {
        polity.edge.start()?;
    }
    let back = async {
        polity.core.ready().await?;
        polity.edge.ready().await
    };
    let back = back.await;
    result.and(back)
}

/// The API server, stopped in mid-air. It goes on when this is dropped.
pub struct Frozen {
    pid: String,
}

impl Frozen {
    /// Freezes the API server of a cluster that has no node of its own.
    ///
    /// # Errors
    /// Its process is not known, or cannot be signalled.
    pub fn api_server(cluster: &Cluster) -> Result<Self> {
        let file: PathBuf = cluster.dir()?.join("run/kube-apiserver.json");
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).with_context(|| format!("{}", file.display()))?)?;
        let pid = record["pid"].as_i64().context("pid of the API server")?.to_string();
        signal("-STOP", &pid)?;
        Ok(Self { pid })
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = signal("-CONT", &self.pid) {
            eprintln!("the API server stays frozen: {error:#}");
        }
    }
}

fn signal(which: &str, pid: &str) -> Result<()> {
    let status = Command::new("kill").args([which, pid]).status().context("kill")?;
    ensure!(status.success(), "kill {which} {pid}: {status}");
    Ok(())
}

/// Numbers that look random and are the same for the same seed.
pub struct Dice(u64);

impl Dice {
    /// From a seed; any is good.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `below`, which is not 0.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }
}
