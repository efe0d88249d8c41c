//! Core and `main` of the one server binary: lease, controllers, dispatch, Approvals, the server around the ledger.

pub mod apply;
pub mod approval;
pub mod cluster;
pub mod compare;
pub mod config;
pub mod context;
pub mod core;
pub mod dispatch;
pub mod edge;
pub mod engine;
pub mod healthcheck;
pub mod internal;
pub mod killpoint;
pub mod lease;
pub mod org;
pub mod requeue;
pub mod signals;
pub mod status;
