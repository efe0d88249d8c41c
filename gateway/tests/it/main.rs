//! The edge's server and executor against a scripted API server, core and upstream.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a failed expectation is how a test fails"
)]

mod api;
mod calls;
mod counters;
mod demands;
mod evaluate;
mod events;
mod executor;
mod fuzz;
mod harness;
mod ledger;
mod mcp;
mod records;
mod shims;
