//! Plans: a snapshot goes in, a plan comes out. Quota over the Org tree, ancestry, who holds a Role, reporting lines, worker Pods.
//!
//! Pure: no client, no clock, no environment, no randomness.

pub mod assignment;
pub mod quantity;
pub mod quota;
pub mod reporting;
pub mod tree;
pub mod workers;
