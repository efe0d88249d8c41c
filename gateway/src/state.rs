//! What the server and the executor work with, put together once at start.

use std::{sync::Arc, time::Duration};

use polity_api::{Approval, ToolCall, names};
use polity_runtime::{
    CancellationToken, cache::Cache, clock::SharedClock, identity::Identities, oidc::Oidc, watch::Target, watched::Watched,
};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::{
    cluster::ClusterLookup,
    core::Core,
    events::{Limits as StreamLimits, Slots},
    http_tool::{HttpTools, room::Rooms},
    mcp_tool::McpTools,
    metrics::Metrics,
    under_way::UnderWay,
};

/// Calls that one replica handles at once; more are told to come again.
const CALLS_AT_ONCE: usize = 512;
/// Questions that may wait at once.
const WAITS_AT_ONCE: usize = 2048;

/// Which replica this is. A container that is started again in its Pod has the same name and is another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    name: String,
    process: String,
}

impl Replica {
    /// This process of the replica of that name.
    pub fn new(name: &str, random: [u8; 4]) -> Self {
        Self { name: name.to_owned(), process: format!("{name}.{}", hex::encode(random)) }
    }

    /// Name of this very process: what claims and begins in its name.
    pub fn process(&self) -> &str {
        &self.process
    }

    /// Whether `claimed` is an earlier process of this replica, which is dead then.
    pub fn was_me(&self, claimed: &str) -> bool {
        claimed != self.process && claimed.rsplit_once('.').is_some_and(|(name, _)| name == self.name)
    }
}

/// Parts that the edge is made of. `core`, `http` and `identities` are given, so that tests script them.
pub struct Gateway {
    /// Views of Orgs, Tasks.
    pub cache: Arc<Cache>,
    /// Ledger and runs.
    pub core: Arc<dyn Core>,
    /// Who a token is.
    pub identities: Arc<Identities>,
    /// The API server.
    pub client: kube::Client,
    /// ToolCalls.
    pub calls: Arc<Watched<ToolCall>>,
    /// Approvals.
    pub approvals: Arc<Watched<Approval>>,
    /// Requests of `http` Tools.
    pub http: HttpTools,
    /// Room at endpoints of `http` Tools.
    pub(crate) rooms: Rooms,
    /// Servers of `mcp` Tools.
    pub mcp: McpTools,
    /// Time.
    pub clock: SharedClock,
    /// Which replica this is.
    pub replica: Replica,
    /// Username of the edge's own account, for `via`.
    pub username: String,
    /// What it has done, counted.
    pub metrics: Metrics,
    /// Names that requests may ask this server by, over MCP.
    pub names: Vec<String>,
    /// Work that must not be dropped in the middle, whoever has stopped listening.
    pub work: TaskTracker,
    /// Ends what would not end by itself.
    pub(crate) stop: CancellationToken,
    pub(crate) streams: Slots,
    pub(crate) under_way: Arc<UnderWay>,
    pub(crate) call_slots: Semaphore,
    pub(crate) wait_slots: Semaphore,
}

/// What the edge is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this replica: its Pod's.
    pub replica: String,
    /// Namespace of Polity itself.
    pub system_namespace: String,
    /// Names and addresses of the server's certificate: the only ones that MCP clients may ask it by.
    pub names: Vec<String>,
    /// What it counts.
    pub metrics: Metrics,
    /// Issuers whose tokens are accepted beside those of the API server.
    pub oidc: Vec<Arc<Oidc>>,
    /// Bounds of streams of events.
    pub streams: StreamLimits,
}

impl Gateway {
    /// Puts the parts together and starts the watches of ToolCalls and Approvals.
    pub fn new(
        settings: &Settings,
        client: kube::Client,
        cache: Arc<Cache>,
        core: Arc<dyn Core>,
        http: HttpTools,
        clock: SharedClock,
        cancel: &CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            cache,
            core,
            identities: Arc::new(Identities::new(client.clone(), settings.oidc.clone())),
            calls: Watched::start(client.clone(), Target::all(), cancel.clone()),
            approvals: Watched::start(client.clone(), Target::all(), cancel.clone()),
            client,
            http,
            rooms: Rooms::default(),
            mcp: McpTools::default(),
            clock,
            replica: Replica::new(&settings.replica, rand::random()),
            username: names::service_account_username(&settings.system_namespace, names::EDGE),
            metrics: settings.metrics.clone(),
            names: settings.names.clone(),
            work: TaskTracker::new(),
            stop: cancel.clone(),
            streams: Slots::new(settings.streams),
            under_way: Arc::default(),
            call_slots: Semaphore::new(CALLS_AT_ONCE),
            wait_slots: Semaphore::new(WAITS_AT_ONCE),
        })
    }

    /// Requests of `http` Tools as a running edge makes them.
    pub fn http_tools(client: kube::Client, egress: Arc<arc_swap::ArcSwapOption<crate::egress::Egress>>) -> HttpTools {
        HttpTools { lookup: Arc::new(ClusterLookup::new(client)), egress, roots: crate::http_tool::Roots::system() }
    }

    /// Waits for what has begun to be settled, up to `grace`. Call after the servers have stopped.
    pub async fn drain(&self, grace: Duration) {
        self.work.close();
        if tokio::time::timeout(grace, self.work.wait()).await.is_err() {
            tracing::warn!(left = self.work.len(), "calls were still running when the edge had to end; their outcome will be unknown");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_container_is_another_process_of_the_same_replica() {
        let now = Replica::new("polity-edge-5d4-x2", [1; 4]);
        let before = Replica::new("polity-edge-5d4-x2", [2; 4]);
        assert!(now.was_me(before.process()));
        assert!(!now.was_me(now.process()) && !now.was_me("polity-edge-5d4-x3.02020202") && !now.was_me("polity-core"));
    }
}
