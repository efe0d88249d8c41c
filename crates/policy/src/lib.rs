//! The decision: checker, compiled rules, snapshot of an Org, `decide`. Pure: no client, no clock, no environment.

pub mod check;
mod compile;
mod snapshot;
pub mod types;
pub mod world;

pub use check::{PolicyCheck, Problem, Summary, check_policy};
pub use compile::CompileCache;
pub use snapshot::Snapshot;
pub use types::*;
pub use world::{Key, NamespaceFacts, World};
