//! What core and edge share and what needs a client: watches with proof of life, the cache that decisions rest on, snapshots,
//! certificates, the connection between edge and core, servers, identities. Decides nothing and owns no record.

pub mod access;
pub mod backoff;
pub mod ca;
pub mod ca_store;
pub mod cache;
pub mod changes;
pub mod clock;
pub mod core_client;
pub mod deliver;
pub mod guarded;
pub mod guards;
pub mod health;
pub mod identity;
pub mod internal;
pub mod leaf_store;
pub mod metrics;
mod missing;
pub mod oidc;
pub mod pulse;
pub mod serve;
pub mod snapshots;
pub mod subject;
pub mod telemetry;
pub mod tls;
pub mod watch;
pub mod watched;
mod world_feed;
pub mod x509;

pub use tokio_util::sync::CancellationToken;

#[cfg(test)]
mod testing;
