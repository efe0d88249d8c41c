//! What every controller stands on: caches that read their own writes, one watch per kind, a queue per controller, workers.
//!
//! It knows nothing of any kind's meaning and never writes to the API server.

pub mod queue;
pub mod store;
pub mod watch;
pub mod workers;

/// Namespace (empty for cluster-scoped kinds) and name.
pub type Key = (String, String);

/// Key of an object.
#[must_use]
pub fn key_of(meta: &kube::api::ObjectMeta) -> Key {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}
