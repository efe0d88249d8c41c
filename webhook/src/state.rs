//! What the server needs from outside, as small traits: views of Orgs, the cluster, the recorder of attempts, clock and randomness.
//!
//! The rules see only these, so each is tested without a cluster. Nothing here caches or decides.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::UserInfo;
use polity_api::reasons;
use polity_ledger::Note;
use polity_policy::{Snapshot, TaskFacts, World};

use crate::{metrics::Metrics, outcome::Refusal};

/// Why there is no answer, with its reason code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// Stable reason code.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl From<Unavailable> for Refusal {
    fn from(why: Unavailable) -> Self {
        if why.reason == reasons::ADMISSION_FAILED {
            Self::failed(why.reason, why.message)
        } else {
            Self::forbidden(why.reason, why.message)
        }
    }
}

/// The views of this replica.
pub trait Views: Send + Sync {
    /// The Org whose namespace this is, fresh enough to decide by.
    ///
    /// # Errors
    /// The namespace is no Org's, or what is known of it is too old.
    fn of_namespace(&self, namespace: &str) -> Result<Arc<Snapshot>, Unavailable>;

    /// Everything cached, however old: for advice about definitions.
    fn world(&self) -> Arc<World>;
}

/// One right that a user may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// Verb.
    pub verb: &'static str,
    /// API group, empty for core kinds.
    pub group: &'static str,
    /// Resource.
    pub resource: &'static str,
    /// Namespace.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

/// Questions to the cluster; each answers within its own short time.
pub trait Cluster: Send + Sync {
    /// Whether the user has the right (SubjectAccessReview).
    fn may<'a>(&'a self, user: &'a UserInfo, permission: &'a Permission) -> BoxFuture<'a, Result<bool, Unavailable>>;

    /// The Task, from the cache or else once from the API server.
    fn task<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Option<TaskFacts>, Unavailable>>;

    /// Looks live for a Tool that the cache lacks; true when the views have it from now on.
    fn tool_appeared<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, bool>;
}

/// Takes notes of refused calls, best effort: never waits, drops when full.
pub trait Attempts: Send + Sync {
    /// Takes one.
    fn take(&self, note: Note);
}

/// Clock and randomness.
pub trait Clock: Send + Sync {
    /// Present time.
    fn now(&self) -> Timestamp;
    /// Random bytes for a trace context.
    fn trace_bytes(&self) -> [u8; 24];
}

/// The system's clock and randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn trace_bytes(&self) -> [u8; 24] {
        rand::random()
    }
}

/// Everything that the server holds.
#[derive(Clone)]
pub struct State {
    /// Views of Orgs.
    pub views: Arc<dyn Views>,
    /// The cluster.
    pub cluster: Arc<dyn Cluster>,
    /// The recorder.
    pub attempts: Arc<dyn Attempts>,
    /// Clock and randomness.
    pub clock: Arc<dyn Clock>,
    /// Namespace that Polity is installed into; our two accounts live there.
    pub system_namespace: String,
    /// Metrics.
    pub metrics: Metrics,
}
