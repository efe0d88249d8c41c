//! The admission server of the edge: `/mutate` stamps who asks, `/validate` answers early what dispatch would deny.
//!
//! It decides on the object of one review and on what this replica has cached, and it answers within the API server's
//! deadline or refuses. It never writes to the cluster, reserves nothing, and on a dry run it leaves no trace: what
//! has effect is decided again at dispatch. Deletions and metadata-only updates pass without being looked at.

pub mod address;
pub mod metrics;
pub mod mutate;
pub mod outcome;
pub mod review;
pub mod server;
pub mod state;
pub mod tree;
pub mod user;
pub mod validate;
pub mod wiring;

pub use metrics::Metrics;
pub use server::router;
pub use state::{Attempts, Clock, Cluster, Permission, State, SystemClock, Unavailable, Views};
pub use wiring::{Live, Recorder};
