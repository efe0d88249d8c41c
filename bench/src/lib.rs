//! The benches and what they share: load, servers under test, repeats of a figure, and the report of them.
//!
//! Nothing here decides or governs anything: it drives what ships.

pub mod admission;
pub mod certs;
pub mod gateway;
pub mod load;
pub mod memory;
pub mod propagation;
pub mod report;
pub mod samples;
pub mod server;
pub mod standin;
