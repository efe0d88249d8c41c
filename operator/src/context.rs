//! What every reconcile is given: client, caches, queues, the clock, and what the rest of core does when an Org closes.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use polity_ledger::OrgId;
use tokio::sync::{Mutex, watch};

use crate::{
    cluster::Cluster,
    engine::{Key, queue::Queue},
    events::Announcer,
    policy::Rollout,
};

/// How long a quota may stay uncounted before Kubernetes is reminded of it.
const REMIND: SignedDuration = SignedDuration::from_secs(31);
/// A namespace that nobody asked about for so long is forgotten.
const FORGET: SignedDuration = SignedDuration::from_secs(300);
/// A burst of changes within this is one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// What the rest of core does when an Org is deleted. Its calls are already denied then.
pub trait OrgClosing: Send + Sync {
    /// Writes down everything of this Org that is still on its way to the ledger. Tried again after a failure.
    fn flush<'a>(&'a self, org: &'a OrgId) -> BoxFuture<'a, anyhow::Result<()>>;
}

/// Present time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// One queue a controller.
#[derive(Clone, Debug)]
pub struct Queues {
    /// Orgs, by name.
    pub orgs: Arc<Queue>,
    /// Roles.
    pub roles: Arc<Queue>,
    /// Agents.
    pub agents: Arc<Queue>,
    /// Tools.
    pub tools: Arc<Queue>,
    /// Policies.
    pub policies: Arc<Queue>,
    /// Tasks.
    pub tasks: Arc<Queue>,
    /// ToolCalls.
    pub calls: Arc<Queue>,
    /// Approvals.
    pub approvals: Arc<Queue>,
}

impl Default for Queues {
    fn default() -> Self {
        let queue = || Arc::new(Queue::new(DEBOUNCE));
        // A caller waits for these.
        let prompt = || Arc::new(Queue::new(Duration::ZERO));
        Self {
            orgs: queue(),
            roles: queue(),
            agents: queue(),
            tools: queue(),
            policies: queue(),
            tasks: queue(),
            calls: prompt(),
            approvals: prompt(),
        }
    }
}

impl Queues {
    /// Wants an Org looked at.
    pub fn org(&self, name: &str) {
        self.orgs.add((String::new(), name.to_owned()));
    }

    /// Wants an Agent looked at.
    pub fn agent(&self, key: Key) {
        self.agents.add(key);
    }
}

/// Settings of the controllers.
#[derive(Clone)]
pub struct Settings {
    /// Namespace that Polity runs in.
    pub system_namespace: String,
    /// Base URL of the edge as agents reach it.
    pub edge_url: String,
    /// PEM of the CA that agents and tools trust; None: not made yet.
    pub ca: watch::Receiver<Option<String>>,
    /// The rest of core.
    pub closing: Arc<dyn OrgClosing>,
    /// Tells people what they must notice.
    pub events: Arc<Announcer>,
    /// Queues.
    pub queues: Queues,
    /// Counts what Policies that are not enforced would have done.
    pub rollout: Arc<Rollout>,
    /// Present time.
    pub clock: Clock,
}

/// A worker that the API server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Quota, use and template at the time.
    pub state: String,
    /// Until then it is not tried again while the state is the same.
    pub until: Timestamp,
    /// Why.
    pub message: String,
}

/// What every reconcile is given.
pub struct Context {
    /// Client of core.
    pub client: Client,
    /// Namespace that Polity runs in.
    pub system_namespace: String,
    /// Base URL of the edge as agents reach it.
    pub edge_url: String,
    /// PEM of the CA that agents and tools trust.
    pub ca: watch::Receiver<Option<String>>,
    /// The rest of core.
    pub closing: Arc<dyn OrgClosing>,
    /// Tells people what they must notice.
    pub events: Arc<Announcer>,
    /// Counts what Policies that are not enforced would have done.
    pub rollout: Arc<Rollout>,
    /// Caches.
    pub cluster: Cluster,
    /// Queues.
    pub queues: Queues,
    /// By root Org; held while quota is allocated and written: two Orgs of a tree must not both take what is left.
    allocations: std::sync::Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// When a namespace's quota was first found uncounted, or Kubernetes last reminded of it.
    reminded: std::sync::Mutex<HashMap<String, Timestamp>>,
    /// Workers that the API server refused, by Agent: not tried again until something has changed or time has passed.
    pub refusals: std::sync::Mutex<HashMap<Key, Refusal>>,
    clock: Clock,
}

impl Context {
    /// Context for one term of leadership.
    #[must_use]
    pub fn new(client: Client, settings: Settings) -> Arc<Self> {
        let Settings { system_namespace, edge_url, ca, closing, events, queues, rollout, clock } = settings;
        rollout.wakes(queues.policies.clone());
        Arc::new(Self {
            client,
            system_namespace,
            edge_url,
            ca,
            closing,
            events,
            rollout,
            cluster: Cluster::default(),
            queues,
            allocations: std::sync::Mutex::default(),
            reminded: std::sync::Mutex::default(),
            refusals: std::sync::Mutex::default(),
            clock,
        })
    }

    /// The lock of a tree's quota.
    pub fn allocation(&self, root: &str) -> Arc<Mutex<()>> {
        let mut all = self.allocations.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody holds or waits for these.
        all.retain(|_, lock| Arc::strong_count(lock) > 1);
        all.entry(root.to_owned()).or_default().clone()
    }

    /// Whether it is time to remind Kubernetes of a quota that it does not count: each half minute, the first time after one.
    pub fn remind(&self, namespace: &str, now: Timestamp) -> bool {
        let mut all = self.reminded.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, at| now.duration_since(*at) < FORGET);
        let since = *all.entry(namespace.to_owned()).or_insert(now);
        let due = now.duration_since(since) >= REMIND;
        if due {
            all.insert(namespace.to_owned(), now);
        }
        due
    }

    /// Present time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }
}
