//! What core and edge share and what needs a client: watches with proof of life, the cache that decisions rest on, snapshots,
//! certificates, the connection between edge and core, servers, identities. Decides nothing and owns no record.

pub mod access;
pub mod clock;
pub mod core_client;
pub mod health;
pub mod identity;
pub mod internal;
pub mod serve;
pub mod subject;
pub mod telemetry;
pub mod tls;
pub mod x509;

pub use tokio_util::sync::CancellationToken;
