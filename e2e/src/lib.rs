//! What the tests on a real API server share: the cluster that `cargo xtask test` made, Polity's parts as host processes, users,
//! manifests, and waiting with a deadline. Asserts nothing by itself.

pub mod audit;
pub mod between;
pub mod chaos;
pub mod clients;
pub mod cluster;
pub mod install;
pub mod ledger;
pub mod manifests;
pub mod parts;
pub mod runner;
pub mod shim;
pub mod wait;

pub use cluster::Cluster;
pub use manifests::{apply, apply_as, org_name};
pub use wait::until;
