//! The decision: checker, compiled rules, snapshot of an Org, `decide`. Pure: no client, no clock, no environment.

pub mod types;
pub mod world;

pub use types::*;
pub use world::{Key, NamespaceFacts, World};
