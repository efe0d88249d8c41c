//! Core and `main` of the one server binary: lease, controllers, dispatch, Approvals, the server around the ledger.

pub mod engine;
pub mod lease;
pub mod requeue;
